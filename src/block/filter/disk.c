/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mechanical disk's timing laid over a back end: one head for all queues, which serves one request at a time and takes for it
 * length / rate, a seek when it is far from where the last one ended, and a while for a flush when something was written. The bytes
 * themselves come from below while the head is "at work", and a request ends when both have ended.
 *
 * The head lives in model time (disk_model.c, under `lock`): the next service begins where the last one ended, not where a timer
 * happened to fire. A late timer lets several services pass at once, and as long as requests wait the rate is the model's.
 *
 * Whoever finds the head free (an arrival, or the queue whose request it was at) gives it the next request; that goes to the inbox
 * of its own queue, which sends it below and sets a timer for its end. `serving` says that such a timer is still to come: it
 * will look for the next, so that an arrival need not.
 */
#include "block/filter/filter.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/text.h"
#include "block/filter/disk_priv.h"

#define CHILDREN 256u
#define NS_PER_MS 1000000ull

enum { TIME_DONE = 1, DATA_DONE = 2 }; /* scratch[2] */

struct disk_queue;

struct disk {
	pthread_mutex_t lock;    /* the rest, and inbox and posted of queues */
	struct disk_model model;
	bool serving;
	struct disk_queue *queue[BLK_QUEUES_MAX];
};

struct disk_queue {
	struct disk *disk;
	struct blk_layer *layer;
	struct blk_queue *queue;
	struct blk_list inbox;   /* given to the head, not sent below yet */
	bool posted;
	struct blk_task task;
	struct blk_list service; /* sent below, soonest end (scratch[1]) first */
	struct blk_timer timer;
	struct blk_pool *children;
};

/* With the lock: the head gets what there is until it is busy beyond now. Others' queues are told. */
static void feed_head(struct disk_queue *dq, uint64_t now)
{
	struct disk *d = dq->disk;
	struct blk_req *r;

	while (!d->serving || d->model.free_ns <= now) {
		r = disk_model_next(&d->model);
		if (!r)
			return;
		d->serving = true;
		struct disk_queue *to = d->queue[blk_queue_index(r->queue)];
		blk_list_push(&to->inbox, r);
		if (to != dq && !to->posted) {
			to->posted = true;
			blk_queue_post(to->queue, &to->task);
		}
	}
}

static void timer_set(struct disk_queue *dq)
{
	if (!blk_list_empty(&dq->service))
		blk_timer_set(dq->queue, &dq->timer, dq->service.first->scratch[1]);
}

static void end_part(struct blk_req *r, unsigned part)
{
	r->scratch[2] |= part;
	if (r->scratch[2] == (TIME_DONE | DATA_DONE))
		blk_complete(r, -(int)r->scratch[3]);
}

static void child_done(struct blk_req *child);

static void send_below(struct disk_queue *dq, struct blk_req *r, struct blk_req *child)
{
	child->op = r->op;
	child->flags = r->flags;
	child->off_bytes = r->off_bytes;
	child->len_bytes = r->len_bytes;
	child->iov = r->iov;
	child->iov_count = r->iov_count;
	child->done = child_done;
	child->ctx = r;
	*(struct disk_queue **)blk_pool_extra(child) = dq;
	r->scratch[2] = r->scratch[3] = 0;
	blk_list_push(&dq->service, r);
	blk_submit(dq->layer->below, child);
}

/* What the head was given of this queue's. */
static void empty_inbox(struct disk_queue *dq)
{
	struct blk_req *child, *r;

	while ((child = blk_pool_get(dq->children))) {
		pthread_mutex_lock(&dq->disk->lock);
		r = blk_list_pop(&dq->inbox);
		pthread_mutex_unlock(&dq->disk->lock);
		if (!r) {
			blk_pool_put(dq->children, child);
			break;
		}
		send_below(dq, r, child);
	}
	timer_set(dq);
}

static void child_done(struct blk_req *child)
{
	struct disk_queue *dq = *(struct disk_queue **)blk_pool_extra(child);
	struct blk_req *r = child->ctx;
	bool was_short = blk_pool_out(dq->children) == CHILDREN;

	r->scratch[3] = (uint64_t)-child->result;
	blk_pool_put(dq->children, child);
	end_part(r, DATA_DONE);
	if (was_short)
		empty_inbox(dq);
}

static void timer_due(struct blk_timer *t)
{
	struct disk_queue *dq = (struct disk_queue *)((char *)t - offsetof(struct disk_queue, timer));
	struct disk *d = dq->disk;
	uint64_t now = blk_queue_now(dq->queue), last = 0;

	while (!blk_list_empty(&dq->service) && dq->service.first->scratch[1] <= now) {
		struct blk_req *r = blk_list_pop(&dq->service);
		last = r->scratch[1];
		end_part(r, TIME_DONE);
	}
	pthread_mutex_lock(&d->lock);
	if (last == d->model.free_ns)
		d->serving = false;
	feed_head(dq, now);
	pthread_mutex_unlock(&d->lock);
	empty_inbox(dq);
}

static void run_posted(struct blk_task *t)
{
	struct disk_queue *dq = (struct disk_queue *)((char *)t - offsetof(struct disk_queue, task));

	pthread_mutex_lock(&dq->disk->lock);
	dq->posted = false;
	pthread_mutex_unlock(&dq->disk->lock);
	empty_inbox(dq);
}

static void disk_submit(struct blk_layer *l, struct blk_req *r)
{
	struct disk *d = l->state;
	struct disk_queue *dq = l->queue_state[blk_queue_index(r->queue)];

	if (r->op == BLK_DISCARD) { /* such disks have none */
		blk_complete(r, 0);
		return;
	}
	r->scratch[0] = blk_queue_now(r->queue);
	pthread_mutex_lock(&d->lock);
	blk_list_push(&d->model.waiting, r);
	feed_head(dq, r->scratch[0]);
	bool mine = !blk_list_empty(&dq->inbox);
	pthread_mutex_unlock(&d->lock);
	if (mine)
		empty_inbox(dq);
}

/* ---- the layer ---- */

static const struct {
	const char *name;
	uint64_t rate, seek_ms, near_bytes, flush_ms;
} presets[] = {
	{ "barracuda-7200.11", 112000000, 8, 8u << 20, 8 },
	{ "plain", 0, 0, 0, 0 },
};
#define PRESET_CHOICES "barracuda-7200.11|plain"

static uint64_t given(const struct blk_values *v, const char *name, uint64_t otherwise)
{
	return blk_values_has(v, name) ? blk_values_number(v, name) : otherwise;
}

static int disk_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	unsigned preset = 0;

	while (!str_eq(presets[preset].name, blk_values_text(v, "preset")))
		preset++;
	uint64_t rate = given(v, "rate", presets[preset].rate);
	if (!rate)
		return error_set(e, "InvalidOption", "preset=plain has no rate of its own: give rate=");
	struct disk *d = calloc(1, sizeof(*d));
	if (!d)
		return error_errno(e, ENOMEM, "the disk filter");
	pthread_mutex_init(&d->lock, NULL);
	d->model = (struct disk_model){
		.rate = rate,
		.seek_ns = given(v, "seek", presets[preset].seek_ms) * NS_PER_MS,
		.near_bytes = given(v, "near", presets[preset].near_bytes),
		.flush_ns = given(v, "flush", presets[preset].flush_ms) * NS_PER_MS,
		.elevator = str_eq(blk_values_text(v, "order"), "elevator"),
	};
	l->state = d;
	l->info.rotational = true;
	l->info.volatile_cache = !l->info.read_only;
	l->info.discard_bytes = 0;
	l->info.fast_zeroes = false;
	return 0;
}

static void disk_close(struct blk_layer *l)
{
	struct disk *d = l->state;

	assert(blk_list_empty(&d->model.waiting));
	pthread_mutex_destroy(&d->lock);
	free(d);
}

static int disk_queue_start(struct blk_layer *l, struct blk_queue *q, struct error *e)
{
	struct disk_queue *dq = calloc(1, sizeof(*dq));

	if (!dq || blk_pool_new(q, CHILDREN, 0, sizeof(dq), &dq->children)) {
		free(dq);
		return error_errno(e, ENOMEM, "a queue of the disk filter");
	}
	dq->disk = l->state;
	dq->layer = l;
	dq->queue = q;
	dq->timer.fn = timer_due;
	dq->task.fn = run_posted;
	dq->disk->queue[blk_queue_index(q)] = dq;
	l->queue_state[blk_queue_index(q)] = dq;
	return 0;
}

static void disk_queue_stop(struct blk_layer *l, struct blk_queue *q)
{
	struct disk_queue *dq = l->queue_state[blk_queue_index(q)];

	assert(blk_list_empty(&dq->inbox) && blk_list_empty(&dq->service));
	blk_timer_cancel(&dq->timer);
	blk_pool_free(dq->children);
	dq->disk->queue[blk_queue_index(q)] = NULL;
	l->queue_state[blk_queue_index(q)] = NULL;
	free(dq);
}

static void disk_stats(struct blk_layer *l, struct blk_stats_sink *sink)
{
	struct disk *d = l->state;

	pthread_mutex_lock(&d->lock);
	struct disk_model m = d->model;
	pthread_mutex_unlock(&d->lock);
	blk_stats_emit(sink, "disk", "requests", true, m.requests, "requests that the head served");
	blk_stats_emit(sink, "disk", "bytes", true, m.bytes, "bytes that passed the head");
	blk_stats_emit(sink, "disk", "seeks", true, m.seeks, "times that the head moved");
	blk_stats_emit(sink, "disk", "flushes", true, m.flushes, "flushes that had something to write");
	blk_stats_emit(sink, "disk", "busy_ns", true, m.busy_ns, "time that the head was at work: %util");
	blk_stats_emit(sink, "disk", "weighted_ns", true, m.weighted_ns, "time that requests spent here, together: avgqu-sz");
}

static const struct blk_option disk_options[] = {
	{ .name = "preset", .type = BLK_OPT_CHOICE, .fallback = "barracuda-7200.11", .choices = PRESET_CHOICES,
	  .doc = "barracuda-7200.11: rate=112000000, seek=8, near=8M, flush=8; plain: none of these" },
	{ .name = "rate", .type = BLK_OPT_BYTES, .min = 1000, .max = 1ull << 40, .doc = "bytes a second under the head (k, M are powers of 1024)" },
	{ .name = "seek", .type = BLK_OPT_MS, .max = 10000, .doc = "to a place that is not near" },
	{ .name = "near", .type = BLK_OPT_BYTES, .doc = "so far from the last request's end no seek is needed" },
	{ .name = "flush", .type = BLK_OPT_MS, .max = 10000, .doc = "when something was written" },
	{ .name = "order", .type = BLK_OPT_CHOICE, .fallback = "fifo", .choices = "fifo|elevator",
	  .doc = "whom the head serves next: who came first, or who is next on its way" },
	{ 0 },
};

const struct blk_layer_ops blk_disk_ops = {
	.name = "disk",
	.doc = "a mechanical disk's timing, for measurements",
	.options = disk_options,
	.open = disk_open,
	.queue_start = disk_queue_start,
	.queue_stop = disk_queue_stop,
	.submit = disk_submit,
	.stats = disk_stats,
	.close = disk_close,
};
