/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_COALESCE_PRIV_H
#define MALLEE_BLOCK_FILTER_COALESCE_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/macros.h"
#include "block/core/layer.h"

/*
 * coalesce, its parts:
 *   coalesce.c         the driver, and the order in which things happen after any change
 *   coalesce_buffer.c  the file that outlives the process
 *   coalesce_index.c   what is buffered where: slots and regions
 *   coalesce_write.c   writes, discards and flushes, as they are let in
 *   coalesce_back.c    write-back
 *   coalesce_read.c    reads of which a part is buffered
 */

#define CO_PAGE 4096u
#define CO_SECTORS (CO_PAGE / BLK_SECTOR)
#define CO_FULL 0xffu
#define CO_NONE 0xffffu
#define CO_SLOTS_MAX 65408u
#define CO_REGION_PAGES 64u
#define CO_LEVELS 8u
#define CO_HEADS 4096u
#define CO_GENS 1024u
#define CO_SEGMENT 256u    /* slots whose room is taken at once */
#define CO_BACKS 32u       /* write-backs in flight */
#define CO_MERGE_MAX 256u  /* pages of one: BLK_IOV_MAX */
#define CO_DIRECTS 320u    /* requests of a queue that pass the buffer, below us at one time */
#define CO_READS 64u
#define CO_IDENTITY 64u

/* ---- the file (coalesce_buffer.c) ---- */
struct co_buffer {
	int fd;
	uint8_t *map, *data;
	uint64_t *records;   /* 4 words each, little-endian */
	size_t map_bytes;
	uint64_t data_at;
	unsigned slots;
	unsigned reserved;   /* slots from 0 on that are sure to have room */
	uint64_t salt;
};
struct co_record {
	uint64_t page, seq;
	uint8_t mask;
};
/* Opens or makes it; -EBUSY, -ESTALE … with *e said. block_bytes and size_bytes: of the volume. */
int co_buffer_open(struct co_buffer *b, const char *path, const char *identity, uint64_t bytes, const struct blk_info *info, struct error *e);
void co_buffer_close(struct co_buffer *b);
void co_buffer_resized(struct co_buffer *b, uint64_t size_bytes);
/* Whether slot holds a record that was published: then *ret. */
bool co_buffer_record(const struct co_buffer *b, unsigned slot, struct co_record *ret);
void co_buffer_publish(struct co_buffer *b, unsigned slot, const struct co_record *r);
void co_buffer_unpublish(struct co_buffer *b, unsigned slot);
bool co_buffer_grow(struct co_buffer *b); /* room for one more segment; false: there is none */
void co_buffer_punch(struct co_buffer *b);
static inline uint8_t *co_data(const struct co_buffer *b, unsigned slot)
{
	return b->data + (size_t)slot * CO_PAGE;
}

/* ---- slots and regions (coalesce_index.c); all under co->lock ---- */
enum co_slot_state { CO_FREE, CO_FILLING, CO_HELD /* data in it */, CO_GONE /* replaced or written; free once nobody uses it */ };

struct co_slot {
	uint64_t page, seq;
	uint32_t gen;       /* flushes from this one on wait for it */
	uint8_t mask;       /* sectors that it holds */
	uint8_t state;
	bool failed;        /* its last write-back did */
	uint16_t pins;      /* copying from it */
	uint16_t pieces;    /* write-backs of it in flight */
	uint16_t next;      /* chain of one write while it fills */
	uint16_t merge;     /* slot whose other sectors are taken over while it fills; CO_NONE */
	bool first;         /* page of its write */
	bool error;         /* of a write-back in flight */
};

struct co_region {
	uint64_t index; /* page / 64 */
	uint64_t present, dirty, writing, filling, held;
	/* present: slot[] holds data; dirty: to be written; writing: a slot of that page, this or an older, is being written;
	 * filling: a newer is being copied; held: not before the next retry */
	uint64_t last_ns;
	uint16_t slot[CO_REGION_PAGES];
	uint16_t hash_next;
	uint16_t skip[CO_LEVELS];
};

struct co_counters {
	_Atomic uint64_t absorbed, absorbed_bytes, replaced_bytes, merged, write_backs, write_back_bytes, full_waits, overlap_waits, failures,
		direct, read_overlaps, flushes, flush_errors, replayed, punched, write_through;
};

struct co;
struct co_queue {
	struct co *co;
	struct blk_queue *queue;
	struct blk_pool *backs, *directs, *reads;
	struct blk_list held;   /* directs that wait for a child */
	struct blk_list parked; /* reads that wait for one */
	struct blk_list ready;  /* co->lock: to be sent below from this queue */
	bool posted;            /* co->lock */
	struct blk_task task, pump;
	struct blk_timer retry, idle;
};

struct co {
	struct blk_layer *layer;
	struct co_buffer buffer;
	uint64_t bypass_bytes;
	unsigned merge_pages;
	uint64_t idle_ns;
	_Atomic uint32_t busy;  /* slots in use: 0 means that no read looks further */

	pthread_mutex_t lock;   /* the rest; innermost, memory work only */
	struct co_slot *slot;
	struct co_region *region;
	uint64_t *free_bits;    /* slots */
	unsigned free_hint;
	unsigned free_slots;    /* of those that are reserved */
	uint16_t region_free;
	uint16_t region_fresh;  /* never used from here on */
	uint16_t head[CO_HEADS];
	uint16_t first[CO_LEVELS];
	uint64_t seq;

	uint32_t gen, gen_oldest;
	uint32_t pending[CO_GENS], failed[CO_GENS]; /* slots to be written, by gen */
	uint32_t failed_slots, held_slots;          /* held_slots: in state CO_HELD */

	struct blk_list waiting;  /* writes that cannot go in yet */
	struct blk_req *directs;  /* that are in: draining or below */
	struct blk_list flushes;
	unsigned waiting_room, waiting_place, draining, direct_count, flush_count, fills;

	uint64_t sweep;           /* page where the last write-back ended */
	unsigned backs, back_pages;
	uint64_t backoff_ns;
	bool opened;
	bool retry_armed, idle_armed, no_room;
	uint64_t no_room_ns, last_ns;
	bool stopped;
	void (*settled)(void *ctx);
	void *settled_ctx;
	struct co_counters count;
};

int co_index_open(struct co *co);
void co_index_close(struct co *co);
struct co_region *co_region_find(struct co *co, uint64_t index);
struct co_region *co_region_get(struct co *co, uint64_t index);      /* makes it */
struct co_region *co_region_from(struct co *co, uint64_t index);     /* the first at or behind index */
struct co_region *co_region_next(struct co *co, const struct co_region *g);
void co_region_tidy(struct co *co, struct co_region *g);             /* gone when empty */
bool co_slots_room(struct co *co, unsigned count, uint64_t now_ns);  /* may take room in the file */
unsigned co_slot_take(struct co *co);                                /* after co_slots_room() */
void co_slot_release(struct co *co, unsigned slot);                  /* CO_GONE and unused: free */
void co_slot_gone(struct co *co, unsigned slot);                     /* unpublished; free at once or at the end of its use */
struct co_slot *co_lookup(struct co *co, uint64_t page, unsigned *ret_slot);
void co_gen_add(struct co *co, const struct co_slot *s, int n);      /* n slots like s are waited for */
/* Slots waited for (or failed) of gens up to gen. */
bool co_gen_any(const uint32_t *counts, uint32_t oldest, uint32_t gen);
void co_index_replay(struct co *co, unsigned slot, const struct co_record *r);

static inline uint64_t co_bits(unsigned from, unsigned to) /* [from, to) of a region's pages */
{
	return (to - from == 64 ? ~0ull : (1ull << (to - from)) - 1) << from;
}
/* The bits of region index that [off, off + len) touches. */
uint64_t co_touched(uint64_t index, uint64_t off_bytes, uint64_t len_bytes);

/* ---- what may happen after a change: lists to be worked off without the lock ---- */
struct co_work {
	struct blk_list fills;   /* reserved: copy, publish, install */
	struct blk_list sends;   /* below, as they are or as directs; of this queue */
	struct blk_list backs;   /* write-back children of this queue */
};

/* coalesce_write.c */
void co_submit_write(struct co_queue *q, struct blk_req *r);
void co_submit_flush(struct co_queue *q, struct blk_req *r);
void co_let_in(struct co_queue *q, struct co_work *w); /* under lock: waiting, draining and flushes that can go on */
void co_fill(struct co_queue *q, struct blk_req *r);   /* copies, publishes, installs, completes */
void co_send(struct co_queue *q, struct blk_req *r);
void co_post(struct co_queue *q, struct co_queue *to, struct blk_req *r, struct co_work *w); /* under lock */

/* Under lock: those pages of g that a request below is about to make void. */
uint64_t co_under_direct(struct co *co, const struct co_region *g);
void co_direct_resume(struct co_queue *q);

/* coalesce_back.c */
size_t co_back_extra(void); /* bytes beside a write-back child */
void co_pick(struct co_queue *q, struct co_work *w); /* under lock */
void co_retry(struct blk_timer *t);
void co_retry_now(struct co *co);                    /* under lock */

/* coalesce_read.c */
void co_submit_read(struct co_queue *q, struct blk_req *r);

/* coalesce.c */
void co_go(struct co_queue *q);   /* after a change: all that can now go on does */
void co_go_locked(struct co_queue *q); /* the same with the lock held; lets go of it */
static inline struct co_queue *co_queue_of(struct co *co, const struct blk_req *r)
{
	return co->layer->queue_state[blk_queue_index(r->queue)];
}

#endif
