/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_COW_PRIV_H
#define MALLEE_BLOCK_FILTER_COW_PRIV_H

#include "block/filter/cow_bits_priv.h"
#include "block/filter/cow_lock_priv.h"

#define COW_BUFFERS 16u /* chunks in memory, of a queue */

struct cow;
struct cow_job;

/* What a queue's thread has for itself. */
struct cow_queue {
	struct cow *cow;
	struct blk_queue *queue;
	struct blk_pool *jobs;
	struct blk_list waiting;      /* for a job */
	bool admitting;
	char *buffers;                /* COW_BUFFERS chunks, touched as needed, the first ones first */
	uint32_t buffers_free;
	bool buffers_touched;         /* more than the first */
	struct cow_job *buffer_first, **buffer_last; /* wait for one */
	_Atomic uint64_t last_ns;     /* of the last guest's request: fill makes room for it */
	_Atomic uint64_t source_bytes, copied_chunks;
};

#define FILL_DEPTH 4u
#define FILL_BYTES (512u << 10)

struct fill_unit {
	struct chunk_lock lock;
	struct cow *cow;
	struct blk_req req;
	struct iovec iov;
	char *buffer;
	uint64_t first, count, started_ns;
	bool busy;
};

/* Background fill: cow_fill.c. Of queue 0's thread but for what is said otherwise. */
struct cow_fill {
	bool enabled, stopped;
	uint64_t rate;                /* bytes/s; 0: no limit */
	uint64_t next_ns;             /* nothing starts before */
	uint64_t cursor;              /* chunk */
	uint64_t backoff_ns;
	uint64_t unsynced_bytes;
	unsigned inflight;
	bool syncing;
	size_t unit_bytes;
	struct fill_unit unit[FILL_DEPTH];
	struct bits_wait sync;
	struct blk_timer timer;
	struct blk_task poke;
	_Atomic bool poked;           /* any thread's */
	struct {
		struct blk_task task;
		bool stop;
		void (*fn)(void *ctx);
		void *ctx;
	} settle;
	void (*settled)(void *ctx);   /* to be called when none is in flight */
	void *settled_ctx;
	_Atomic uint64_t bytes, errors;
	_Atomic bool failing;
};

struct cow {
	struct blk_layer *layer, *below;
	struct blk_layer *source;     /* NULL: zeroes, or not needed any more */
	struct bits *bits;            /* filled chunks */
	struct chunk_locks locks;
	uint32_t chunk_bytes;
	_Atomic uint64_t size_bytes, chunks;
	uint64_t source_end;          /* from here on the source is zeroes */
	_Atomic uint64_t filled;
	_Atomic bool complete;        /* and durably so: everything goes straight below */
	bool copy_on_read;
	struct blk_queue *queue0;
	struct cow_queue *queue[BLK_QUEUES_MAX];
	struct cow_fill fill;
};

void cow_submit(struct blk_layer *l, struct blk_req *r);
int cow_queue_start(struct blk_layer *l, struct blk_queue *q, struct error *e);
void cow_queue_stop(struct blk_layer *l, struct blk_queue *q);

static inline uint64_t cow_chunk_end(const struct cow *c, uint64_t first, uint64_t count)
{
	uint64_t end = (first + count) * c->chunk_bytes, size = c->size_bytes;

	return end < size ? end : size;
}
/* Of [off, end) read from the source, so that it ends on the source's own blocks; 0: all zeroes. */
uint64_t cow_source_bytes(const struct cow *c, uint64_t off, uint64_t end);
void cow_set_filled(struct cow *c, uint64_t first, uint64_t count); /* their data is written */

int cow_fill_init(struct cow *c, struct error *e);
void cow_fill_done(struct cow *c);
void cow_fill_start(struct cow *c, struct blk_queue *q); /* before it runs */
void cow_fill_poke(struct cow *c);                       /* any thread: look whether there is something to do */
void cow_fill_settle(struct cow *c, bool stop, void (*fn)(void *ctx), void *ctx);

#endif
