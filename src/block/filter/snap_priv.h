/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_SNAP_PRIV_H
#define MALLEE_BLOCK_FILTER_SNAP_PRIV_H

#include "block/filter/cow_bits_priv.h"
#include "block/filter/cow_lock_priv.h"
#include "block/filter/xts_priv.h"

#define SNAP_VIEWS 8u
#define SNAP_NAME 64u
#define SNAP_BUFFERS 8u
#define SNAP_REGION 256u    /* chunks whose changes are announced together; BITS_PER_PAGE is a multiple */

struct snap;

/* A bitmap in memory that takes what is touched of it only. */
struct snap_set {
	uint64_t *words;
	uint64_t count;
};
int snap_set_new(struct snap_set *s, uint64_t count);
void snap_set_free(struct snap_set *s);
int snap_set_grow(struct snap_set *s, uint64_t count);
bool snap_set_test(const struct snap_set *s, uint64_t i);
void snap_set_add(struct snap_set *s, uint64_t first, uint64_t n);
/* How many from first on, below end, are alike. */
uint64_t snap_set_run(const struct snap_set *s, uint64_t first, uint64_t end, bool *ret_set);
uint64_t snap_set_sum(const struct snap_set *s);
void snap_set_union(struct snap_set *to, const struct snap_set *from); /* what fits into to */

struct snap_slot {
	uint64_t chunk_plus_1; /* 0: none */
	uint64_t slot;
};

/* A frozen view: snap_view.c. */
struct snap_view {
	char name[SNAP_NAME];
	struct snap *snap;
	struct blk_layer layer;    /* what front ends read */
	uint64_t chunks;           /* of the volume as it was */
	unsigned held;             /* snap's lock */
	bool ended;                /* by force: freed with the last hold. snap's lock */
	_Atomic bool failed;
	struct snap_set copied;    /* chunks that are in the scratch */
	struct snap_set since;     /* changed from its beginning until the next view's: set by guests while it is the newest */
	struct snap_set changed;   /* from the base to its beginning; nothing is known (all) when changed_all */
	bool changed_all;
	int scratch_fd;
	struct xts *scratch_key;   /* of a volume that is encrypted below; NULL: the scratch is plain */
	uint64_t slots;
	pthread_mutex_t lock;      /* the three that follow */
	uint64_t slots_used;
	struct snap_slot *table;   /* where a chunk is in the scratch: open addressing */
	uint64_t table_size;       /* a power of two */
};

struct snap_queue {
	struct snap *snap;
	struct blk_queue *queue;
	struct blk_pool *jobs;
	struct blk_list waiting;   /* for a job; scratch[0] holds the view, 0: a guest's */
	bool admitting;
	char *buffers;
	uint32_t buffers_free;
	struct snap_job *buffer_first, **buffer_last;
	_Atomic uint64_t copied_chunks, marks;
};

/* What changed since the base: snap_map.c. */
struct snap_map {
	struct bits *bank[2];      /* one counts, the other is where the next base's is made; NULL: no map was asked for */
	_Atomic unsigned active;
	_Atomic bool tracking;     /* the base is known */
	_Atomic uint64_t *want, *have; /* a bit a region: its mark is asked for, is durable */
	size_t region_bytes;       /* of each of the two */
};

struct snap {
	struct blk_layer *layer, *below;
	uint32_t chunk_bytes;
	size_t buffer_bytes;
	_Atomic uint64_t chunks;
	struct snap_map map;
	struct chunk_locks locks;
	pthread_mutex_t lock;      /* views, as seen by threads that are no queue's */
	struct snap_view *view[SNAP_VIEWS]; /* oldest first; changes at a barrier */
	_Atomic unsigned views;
	_Atomic uint64_t failed_views;
	struct snap_queue *queue[BLK_QUEUES_MAX];
};

static inline uint64_t snap_chunks(const struct snap *s, uint64_t bytes)
{
	return (bytes + s->chunk_bytes - 1) / s->chunk_bytes;
}

/* ---- snap_io.c ---- */
void snap_submit(struct blk_layer *l, struct blk_req *r);
void snap_view_submit(struct blk_layer *l, struct blk_req *r);
int snap_queue_start(struct blk_layer *l, struct blk_queue *q, struct error *e);
void snap_queue_stop(struct blk_layer *l, struct blk_queue *q);

/* ---- snap_map.c ---- */
int snap_map_open(struct snap *s, const char *path, struct error *e);
void snap_map_close(struct snap *s); /* what is doubtful becomes certain: after a clean stop */
static inline struct bits *snap_map_bits(const struct snap *s)
{
	return s->map.bank[s->map.active];
}
const char *snap_map_base(const struct snap *s); /* "": unknown */
bool snap_map_announced(const struct snap *s, uint64_t first, uint64_t last); /* writes may go once their bits are set */
void snap_map_want(struct snap *s, uint64_t first, uint64_t last, uint64_t ret_regions[2]); /* then bits_sync(), then: */
void snap_map_have(struct snap *s, const uint64_t regions[2]);
int snap_map_grow(struct snap *s, uint64_t chunks, struct error *e);
/* At a barrier: name is the base, since what changed after it. Nothing has changed when it fails. */
int snap_map_commit(struct snap *s, const char *name, const struct snap_set *since, struct error *e);

/* ---- snap_view.c ---- */
struct snap_view *snap_view_find(struct snap *s, const char *name);
int snap_view_begin(struct snap *s, const char *name, const char *path, uint64_t scratch_bytes, struct error *e); /* barrier: its own */
int snap_view_end(struct snap *s, const char *name, bool commit, bool force, struct error *e);                    /* at a barrier */
void snap_view_free(struct snap_view *v);
void snap_view_fail(struct snap_view *v);
int snap_views_grow(struct snap *s, uint64_t chunks);
/* n chunks side by side; false: it is full. */
bool snap_view_room(struct snap_view *v, uint64_t n, uint64_t *ret_slot);
void snap_view_copied(struct snap_view *v, uint64_t first, uint64_t n, uint64_t slot);
uint64_t snap_view_slot(struct snap_view *v, uint64_t chunk); /* of one that is copied */
/* Whether nothing of [first, last] has to be copied for it any more. */
bool snap_view_has(const struct snap_view *v, uint64_t first, uint64_t last);

#endif
