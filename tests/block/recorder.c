/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The back end that records. A request waits some turns of its queue's loop, a few of them some hundred microseconds, so that requests end
 * in any order. A write takes effect in two parts, one when it arrives and one when it ends: a process that is killed leaves it torn.
 */
#include "recorder.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

struct recorder {
	struct world *world;
	pthread_mutex_t lock; /* the disk's bytes */
	bool read_only;
};

struct recorder_queue {
	struct recorder *recorder;
	struct blk_queue *queue;
	struct blk_task task;
	struct blk_timer timer;
	struct blk_list waiting;
	uint64_t random;
};

struct world *recorder_world;

static enum history_kind kind_of(const struct blk_req *r)
{
	switch (r->op) {
	case BLK_WRITE:
		return HISTORY_WRITE;
	case BLK_WRITE_ZEROES:
		return HISTORY_ZEROES;
	case BLK_DISCARD:
		return HISTORY_DISCARD;
	default:
		return HISTORY_FLUSH;
	}
}

/* The part [from, to) of what r does: its first or second. */
static void take_effect(struct recorder *rec, const struct blk_req *r, unsigned part, uint64_t from, uint64_t to)
{
	struct history *h = &rec->world->disk.history;
	uint8_t *at = rec->world->disk.now + r->off_bytes + from;

	pthread_mutex_lock(&rec->lock);
	if (r->op != BLK_READ && r->op != BLK_FLUSH) {
		struct history_op *o = &h->op[r->scratch[0]];
		/* Killed up to here it has not happened; from here on it has: end_copy() does the rest. */
		*(part ? &o->split_end : &o->split) = to / SECTOR;
		rec->world->copying = COPYING((uint32_t)r->scratch[0], part);
		o->effect[part] = history_tick(h);
	}
	if (r->op == BLK_READ)
		blk_iov_to(r->iov, r->iov_count, from, at, to - from);
	else if (r->op == BLK_WRITE)
		blk_iov_from(r->iov, r->iov_count, from, at, to - from);
	else if (r->op == BLK_WRITE_ZEROES)
		memset(at, 0, to - from);
	else if (r->op == BLK_DISCARD)
		memset(at, 0xdd, to - from);
	rec->world->copying = 0;
	pthread_mutex_unlock(&rec->lock);
}

/* ---- a request: scratch[0] its record, [1] what has taken effect, [2] the turns that it waits, [3] whether it fails ---- */

static void finish(struct recorder_queue *q, struct blk_req *r)
{
	struct recorder *rec = q->recorder;
	bool fails = r->scratch[3];

	if (!fails)
		take_effect(rec, r, 1, r->scratch[1], r->len_bytes);
	world_event(rec->world);
	if (r->op != BLK_READ)
		history_end(&rec->world->disk.history, (uint32_t)r->scratch[0], fails);
	world_event(rec->world);
	blk_complete(r, fails ? -EIO : 0);
}

static void go_on(struct recorder_queue *q)
{
	struct blk_list now = q->waiting;
	struct blk_req *r;

	q->waiting = (struct blk_list){ 0 };
	while ((r = blk_list_pop(&now))) {
		if (r->scratch[2]-- == 0)
			finish(q, r);
		else
			blk_list_push(&q->waiting, r);
	}
	if (blk_list_empty(&q->waiting))
		return;
	if (random_below(&q->random, 64) == 0)
		blk_timer_set(q->queue, &q->timer, blk_queue_now(q->queue) + random_below(&q->random, 300000));
	else
		blk_queue_defer(q->queue, &q->task);
}

static void on_task(struct blk_task *t)
{
	go_on((struct recorder_queue *)((char *)t - offsetof(struct recorder_queue, task)));
}

static void on_timer(struct blk_timer *t)
{
	go_on((struct recorder_queue *)((char *)t - offsetof(struct recorder_queue, timer)));
}

static void check_request(const struct blk_layer *l, const struct blk_req *r)
{
	if (r->op >= BLK_OPS || !blk_queue_is_current(r->queue))
		die("a request of another thread, or of no kind: %d", r->op);
	if (r->op == BLK_FLUSH)
		return;
	if (!r->len_bytes || r->off_bytes % l->info.block_bytes || r->len_bytes % l->info.block_bytes)
		die("op %d at %llu+%llu: not whole blocks", r->op, (unsigned long long)r->off_bytes, (unsigned long long)r->len_bytes);
	if (r->off_bytes > l->info.size_bytes || r->len_bytes > l->info.size_bytes - r->off_bytes)
		die("op %d at %llu+%llu: beyond the disk", r->op, (unsigned long long)r->off_bytes, (unsigned long long)r->len_bytes);
	if (r->op > BLK_WRITE)
		return;
	if (r->len_bytes > BLK_LEN_MAX || r->iov_count > BLK_IOV_MAX || blk_iov_bytes(r->iov, r->iov_count) != r->len_bytes)
		die("op %d of %llu bytes with %llu in %u elements", r->op, (unsigned long long)r->len_bytes,
		    (unsigned long long)blk_iov_bytes(r->iov, r->iov_count), r->iov_count);
}

static void recorder_submit(struct blk_layer *l, struct blk_req *r)
{
	struct recorder *rec = l->state;
	struct recorder_queue *q = l->queue_state[blk_queue_index(r->queue)];
	struct world *a = rec->world;

	check_request(l, r);
	a->count[r->op]++;
	r->scratch[1] = 0;
	r->scratch[2] = random_below(&q->random, random_below(&q->random, 8) ? 4 : 40);
	r->scratch[3] = r->op != BLK_READ && random_below(&q->random, 1000) < a->fail_permille;
	if (r->op != BLK_READ) {
		world_event(a);
		r->scratch[0] = tape_begin(&a->disk, kind_of(r), r->flags & BLK_FUA, r->off_bytes, r->len_bytes, r->iov, r->iov_count);
		world_event(a);
		r->scratch[1] = random_below(&q->random, r->len_bytes / SECTOR + 1) * SECTOR;
		take_effect(rec, r, 0, 0, r->scratch[1]);
	}
	blk_list_push(&q->waiting, r);
	if (!q->timer.link)
		blk_queue_defer(q->queue, &q->task);
}

/* ---- life ---- */

static int recorder_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	struct recorder *rec = calloc(1, sizeof(*rec));

	rec->world = recorder_world;
	pthread_mutex_init(&rec->lock, NULL);
	l->state = rec;
	l->info = (struct blk_info){
		.size_bytes = rec->world->disk.size_bytes,
		.block_bytes = (uint32_t)blk_values_number(v, "block-bytes"),
		.physical_bytes = 4096,
		.discard_bytes = 4096,
		.volatile_cache = !rec->world->write_through,
	};
	return 0;
}

static int recorder_queue_start(struct blk_layer *l, struct blk_queue *queue, struct error *e)
{
	struct recorder *rec = l->state;
	struct recorder_queue *q = calloc(1, sizeof(*q));

	q->recorder = rec;
	q->queue = queue;
	q->task.fn = on_task;
	q->timer.fn = on_timer;
	q->random = rec->world->seed + blk_queue_index(queue) + atomic_load(&rec->world->clock);
	l->queue_state[blk_queue_index(queue)] = q;
	return 0;
}

static void recorder_queue_stop(struct blk_layer *l, struct blk_queue *queue)
{
	struct recorder_queue *q = l->queue_state[blk_queue_index(queue)];

	if (!blk_list_empty(&q->waiting))
		die("a queue was stopped with requests at the disk");
	blk_timer_cancel(&q->timer);
	free(q);
}

static void recorder_close(struct blk_layer *l)
{
	struct recorder *rec = l->state;

	pthread_mutex_destroy(&rec->lock);
	free(rec);
}

static const struct blk_option recorder_options[] = {
	{ .name = "block-bytes", .type = BLK_OPT_UINT, .fallback = "512", .min = 512, .max = 4096, .doc = "unit of offsets" },
	{ 0 },
};

const struct blk_layer_ops recorder_ops = {
	.name = "recorder",
	.doc = "a disk that tells",
	.is_back = true,
	.options = recorder_options,
	.open = recorder_open,
	.queue_start = recorder_queue_start,
	.queue_stop = recorder_queue_stop,
	.submit = recorder_submit,
	.close = recorder_close,
};

/* ---- pattern ---- */

static int pattern_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	l->info = (struct blk_info){ .size_bytes = blk_values_number(v, "size"), .block_bytes = 512, .physical_bytes = 4096, .read_only = true };
	return 0;
}

static void pattern_submit(struct blk_layer *l, struct blk_req *r)
{
	uint8_t sector[SECTOR];

	if (r->op != BLK_READ && r->op != BLK_FLUSH) {
		blk_complete(r, -EROFS);
		return;
	}
	check_request(l, r);
	for (uint64_t at = 0; r->op == BLK_READ && at < r->len_bytes; at += SECTOR) {
		stamp_fill(sector, STAMP_SOURCE, (r->off_bytes + at) / SECTOR);
		blk_iov_to(r->iov, r->iov_count, at, sector, SECTOR);
	}
	blk_complete(r, 0);
}

static const struct blk_option pattern_options[] = {
	{ .name = "size", .type = BLK_OPT_BYTES, .required = true, .doc = "length" },
	{ 0 },
};

const struct blk_layer_ops pattern_ops = {
	.name = "pattern", .doc = "sectors that tell their number", .is_back = true, .options = pattern_options,
	.open = pattern_open, .submit = pattern_submit,
};
