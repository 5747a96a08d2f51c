/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_CORE_STACK_H
#define MALLEE_BLOCK_CORE_STACK_H

#include "block/core/layer.h"

/*
 * A volume: filters over a back end, entered by front ends through a gate. The gate holds requests back while a barrier
 * is up, and more than BLK_DEPTH_MAX of one queue. Fixed order (BLOCK.md): throttle, coalesce, readahead, snap, cow, crypt,
 * then fault and disk directly above the back end; another order, or one filter twice, is refused.
 */
struct blk_stack_settings {
	/* The drivers there are, NULL-terminated, filters in their order from the front end down: block/drivers.h, or a test's. */
	const struct blk_layer_ops *const *drivers;
	const char *back;             /* "file:path=…" */
	const char *const *filters;   /* NULL-terminated, from the front end down; NULL: none */
	unsigned queues;              /* 1 … BLK_QUEUES_MAX */
	enum blk_io_engine engine;
};

int blk_stack_open(const struct blk_stack_settings *s, struct blk_stack **ret, struct error *e);
/* Starts the queue threads. Without it the caller runs queue 0 by blk_queue_run_until() (tests). */
int blk_stack_start(struct blk_stack *s, struct error *e);
/* No front end is attached. Drains: barrier (a failing flush is told in *e, and the stack closes all the same), settle,
 * queues stopped, layers closed. Returns 0 or the flush's error. */
int blk_stack_close(struct blk_stack *s, struct error *e);

/* Makes now, on the queues' threads, what their first I/O would: before a sandbox forbids it. Started; not on a queue's thread. */
void blk_stack_ready_io(struct blk_stack *s);
unsigned blk_stack_needs(const struct blk_stack *s); /* BLK_NEEDS_… of all that is open */

struct blk_layer *blk_stack_top(struct blk_stack *s);
struct blk_layer *blk_stack_layer(struct blk_stack *s, const char *name); /* NULL */
const struct blk_info *blk_stack_info(const struct blk_stack *s);
unsigned blk_stack_queues(const struct blk_stack *s);
struct blk_queue *blk_stack_queue(struct blk_stack *s, unsigned index);

/* Enter at the top, through the gate. On r->queue's thread. */
void blk_stack_submit(struct blk_stack *s, struct blk_req *r);

/* Nothing inside, all that was acknowledged flushed to the back end and durable. Not on a queue's thread. -ETIMEDOUT or the
 * flush's error: the gate is open again. One at a time; blk_stack_resume() opens. */
#define BLK_BARRIER_MS 30000 /* a good timeout */
int blk_stack_barrier(struct blk_stack *s, int timeout_ms, struct error *e);
void blk_stack_resume(struct blk_stack *s);

/* Grow; at a barrier of its own. Front ends hear of it. */
int blk_stack_resize(struct blk_stack *s, uint64_t size_bytes, struct error *e);
struct blk_listener {
	void (*resized)(struct blk_listener *l, uint64_t size_bytes); /* on the thread that resized */
	struct blk_listener *next;
};
void blk_stack_listen(struct blk_stack *s, struct blk_listener *l);
void blk_stack_unlisten(struct blk_stack *s, struct blk_listener *l);

/* `LAYER VERB key=value,…` as the control socket gives it. Not on a queue's thread. */
int blk_stack_command(struct blk_stack *s, const char *layer, const char *verb, const char *args, struct buf *ret_json, struct error *e);

/* Counters of a stack and of the front ends on it. Any thread, while they are open. labels: `volume="vol-1"` or "". */
struct blk_front;
void blk_stack_stats_json(struct blk_stack *s, struct blk_front *const *fronts, unsigned front_count, struct buf *out);
/* The same without histograms: for who asks often. */
void blk_stack_counters_json(struct blk_stack *s, struct blk_front *const *fronts, unsigned front_count, struct buf *out);
void blk_stack_stats_prometheus(struct blk_stack *s, struct blk_front *const *fronts, unsigned front_count, const char *labels,
				struct buf *out);

#endif
