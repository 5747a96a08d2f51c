/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_CORE_LAYER_H
#define MALLEE_BLOCK_CORE_LAYER_H

#include "block/core/option.h"
#include "block/core/queue.h"
#include "block/core/request.h"
#include "block/core/stats.h"

struct blk_stack;
struct blk_layer;

/* What the process goes on asking of the kernel once it serves, besides I/O on what is open: for the program's sandbox. */
enum {
	BLK_NEEDS_FILES = 1,    /* opens and makes files */
	BLK_NEEDS_UNIX = 2,     /* connects to unix sockets */
	BLK_NEEDS_INTERNET = 4, /* connects to those, too, and looks names up */
	BLK_NEEDS_UNMOUNT = 8,
};

/* What a layer is to the one above; a filter starts from what is below it. */
struct blk_info {
	uint64_t size_bytes;       /* a multiple of block_bytes */
	uint32_t block_bytes;      /* 512 or 4096: unit of offsets and lengths */
	uint32_t physical_bytes;   /* what is written without read-modify-write */
	uint32_t optimal_bytes;    /* a good length; 0: unknown */
	uint32_t discard_bytes;    /* granularity of DISCARD; 0: DISCARD does nothing here */
	bool read_only;
	bool volatile_cache;       /* a completed write may still be lost with the power until a FLUSH */
	bool rotational;
	bool fast_zeroes;          /* WRITE_ZEROES is cheaper than writing them (it always works) */
	bool encrypted;            /* what is written here is, on the disk: a layer above that keeps data in a file encrypts it too */
};

enum blk_extent_kind { BLK_EXTENT_DATA, BLK_EXTENT_ZERO, BLK_EXTENT_HOLE /* unallocated, reads zeroes */ };
enum blk_extent_map { BLK_MAP_ALLOCATION, BLK_MAP_CHANGED /* snap's views: DATA = changed since the base */ };
struct blk_extent {
	uint64_t len_bytes;
	enum blk_extent_kind kind;
};

/*
 * A driver: one static const table, listed in block/drivers.c. Unless it says otherwise a callback runs on the thread that opens
 * the stack, while no request is inside; NULL where a driver has nothing to do.
 */
struct blk_layer_ops {
	const char *name;
	const char *doc;                   /* one line */
	bool is_back;                      /* a back end has nothing below */
	const struct blk_option *options;
	/* Required. Sets l->state and l->info; l->below is open. May wait for the fence (BLOCK.md 2: the lock of a dead
	 * process). On failure it has undone all and says why. */
	int (*open)(struct blk_layer *l, const struct blk_values *v, struct error *e);
	/* The queue's own state (pools, children): l->queue_state[index]. After all layers are open, before the queue runs. */
	int (*queue_start)(struct blk_layer *l, struct blk_queue *q, struct error *e);
	/* The queue runs no more; what the layer itself had in flight there has ended (settle). */
	void (*queue_stop)(struct blk_layer *l, struct blk_queue *q);
	/* Required. On the thread of r->queue. Never calls r->done; never blocks. */
	void (*submit)(struct blk_layer *l, struct blk_req *r);
	/* Ask background work to stop (stop true) and start again; fn(ctx) once none is in flight. Any thread may be the
	 * caller; fn may run on any. Layers without background work leave it NULL. */
	void (*settle)(struct blk_layer *l, bool stop, void (*fn)(void *ctx), void *ctx);
	/* The stack is quiet (barrier). Grow to size_bytes; sets l->info. NULL: the layer takes what is below as its own. */
	int (*resize)(struct blk_layer *l, uint64_t size_bytes, struct error *e);
	/* A command of the control socket: `LAYER VERB args`. Any thread but a queue's; requests go on unless the verb is
	 * listed in quiet_verbs, for which the stack is brought to a barrier (nothing inside, all flushed) around the call. */
	int (*command)(struct blk_layer *l, const char *verb, const struct blk_values *args, struct buf *ret_json, struct error *e);
	const struct blk_verb *verbs;
	/* Read-only layers of its own that front ends may export by name (snap's frozen views). NULL: no such view. Taken and
	 * given back on the main thread; a view that is held cannot be removed. */
	struct blk_layer *(*view)(struct blk_layer *l, const char *name, struct error *e);
	void (*view_release)(struct blk_layer *l, struct blk_layer *view);
	/* Up to max extents from off on, at least one; their number or a negative errno. On a queue's thread; must not block
	 * for long (lseek is fine). NULL: all is data. */
	int (*extents)(struct blk_layer *l, enum blk_extent_map map, uint64_t off_bytes, uint64_t len_bytes, struct blk_extent *out, unsigned max);
	/* Its own counters. Any thread, at any time while open. */
	void (*stats)(struct blk_layer *l, struct blk_stats_sink *sink);
	void (*close)(struct blk_layer *l);
};

struct blk_verb {
	const char *name; /* NULL ends a table */
	const struct blk_option *args;
	bool quiet; /* runs at a barrier */
	const char *doc;
};

struct blk_layer {
	const struct blk_layer_ops *ops;
	struct blk_layer *below;  /* NULL: a back end */
	struct blk_stack *stack;
	struct blk_info info;
	unsigned needs;           /* BLK_NEEDS_…, set by open */
	void *state;
	void *queue_state[BLK_QUEUES_MAX];
	struct blk_io_stats *io;  /* per queue; NULL: not accounted (the stack's top and its back end are) */
};

/* A back end beside the stack, for a layer's own use (cow's source): open until blk_back_close(), both from the layer's open
 * and close callbacks. Its queue_start and queue_stop are seen to. */
int blk_back_open(struct blk_stack *s, const char *spec, struct blk_layer **ret, struct error *e);
void blk_back_close(struct blk_layer *l); /* NULL is fine */

/* Hand r to layer l: accounts it where that is wanted. On r->queue's thread. */
void blk_submit(struct blk_layer *l, struct blk_req *r);

#endif
