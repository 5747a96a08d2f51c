/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes to a whole stack: barrier, resize, commands. The barrier shuts every queue's gate, waits until all who were inside have
 * left, and then sends one FLUSH from the top: what was acknowledged is then on the disk, what a cache held included. Who comes
 * meanwhile is parked. `change` is held from blk_stack_barrier() to blk_stack_resume(), so that one change is made at a time.
 */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/text.h"
#include "block/core/stack_priv.h"

void stack_on_queue(struct blk_stack *s, struct blk_queue *q, void (*fn)(void *ctx), void *ctx)
{
	if (s->started)
		blk_queue_call(q, fn, ctx);
	else
		fn(ctx);
}

static void shut(void *ctx)
{
	gate_shut(ctx);
}

static void open_again(void *ctx)
{
	gate_open(ctx);
}

static void open_gates(struct blk_stack *s)
{
	pthread_mutex_lock(&s->lock);
	s->quiet = 0;
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < s->queues; i++)
		stack_on_queue(s, s->queue[i], open_again, &s->gate[i]);
}

static void deadline_in(struct timespec *t, int timeout_ms)
{
	clock_gettime(CLOCK_MONOTONIC, t);
	t->tv_sec += timeout_ms / 1000;
	t->tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (t->tv_nsec >= 1000000000) {
		t->tv_sec++;
		t->tv_nsec -= 1000000000;
	}
}

/* Until all gates are quiet. A stack without threads is driven by the caller. */
static int wait_quiet(struct blk_stack *s, int timeout_ms)
{
	struct timespec deadline;
	int err = 0;

	if (!s->started) {
		bool never = false;
		for (int left = timeout_ms < 0 ? INT32_MAX : timeout_ms; s->quiet < s->queues && left > 0; left--)
			blk_queue_run_until(s->queue[0], &never, 1);
		return s->quiet < s->queues ? -ETIMEDOUT : 0;
	}
	deadline_in(&deadline, timeout_ms < 0 ? 0 : timeout_ms);
	pthread_mutex_lock(&s->lock);
	while (s->quiet < s->queues && !err)
		err = timeout_ms < 0 ? pthread_cond_wait(&s->quieter, &s->lock) :
				       pthread_cond_timedwait(&s->quieter, &s->lock, &deadline);
	pthread_mutex_unlock(&s->lock);
	return -err;
}

/* The flush at the barrier. The wait for it never gives up: a disk that does not answer a flush does not answer the guest either. */
struct flush {
	struct blk_req req;
	struct blk_stack *stack;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool done;
};

static void flushed(struct blk_req *r)
{
	struct flush *f = r->ctx;

	pthread_mutex_lock(&f->lock);
	f->done = true;
	pthread_cond_signal(&f->ended);
	pthread_mutex_unlock(&f->lock);
}

static void submit_flush(void *ctx)
{
	struct flush *f = ctx;

	blk_submit(blk_stack_top(f->stack), &f->req);
}

static int flush_all(struct blk_stack *s)
{
	struct flush f = { .stack = s, .lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER };

	if (blk_stack_info(s)->read_only)
		return 0;
	f.req = (struct blk_req){ .op = BLK_FLUSH, .queue = s->queue[0], .done = flushed, .ctx = &f };
	stack_on_queue(s, s->queue[0], submit_flush, &f);
	if (!s->started)
		blk_queue_run_until(s->queue[0], &f.done, INT32_MAX);
	pthread_mutex_lock(&f.lock);
	while (!f.done)
		pthread_cond_wait(&f.ended, &f.lock);
	pthread_mutex_unlock(&f.lock);
	return f.req.result;
}

int blk_stack_barrier(struct blk_stack *s, int timeout_ms, struct error *e)
{
	pthread_mutex_lock(&s->change);
	pthread_mutex_lock(&s->lock);
	s->quiet = 0; /* one that gave up counts still, while its gates open again one by one */
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < s->queues; i++)
		stack_on_queue(s, s->queue[i], shut, &s->gate[i]);
	int err = wait_quiet(s, timeout_ms);
	if (err)
		error_errno(e, err, "waiting %d ms for requests in flight to end", timeout_ms);
	else if ((err = flush_all(s)))
		error_errno(e, err, "flushing the volume");
	if (err) {
		open_gates(s);
		pthread_mutex_unlock(&s->change);
	}
	return err;
}

void blk_stack_resume(struct blk_stack *s)
{
	open_gates(s);
	pthread_mutex_unlock(&s->change);
}

/* ---- resize ---- */

static int resize_layers(struct blk_stack *s, uint64_t size_bytes, struct error *e)
{
	for (unsigned i = 0; i < s->layers; i++) {
		struct blk_layer *l = s->layer[i];
		int err = 0;
		if (l->ops->resize)
			err = l->ops->resize(l, size_bytes, e);
		else if (l->below)
			l->info.size_bytes = l->below->info.size_bytes;
		else
			err = error_set(e, "Unsupported", "%s cannot be resized", l->ops->name);
		if (err)
			return err;
	}
	return 0;
}

int blk_stack_resize(struct blk_stack *s, uint64_t size_bytes, struct error *e)
{
	const struct blk_info *info = blk_stack_info(s);

	if (size_bytes % info->block_bytes)
		return error_set(e, "InvalidSize", "%llu bytes is no multiple of the block size %u", (unsigned long long)size_bytes,
				 info->block_bytes);
	if (size_bytes < info->size_bytes)
		return error_set(e, "InvalidSize", "%llu bytes is less than the %llu there are: a volume only grows",
				 (unsigned long long)size_bytes, (unsigned long long)info->size_bytes);
	int err = blk_stack_barrier(s, BLK_BARRIER_MS, e);
	if (err)
		return err;
	err = resize_layers(s, size_bytes, e);
	for (struct blk_listener *l = s->listeners; l && !err; l = l->next)
		l->resized(l, info->size_bytes);
	blk_stack_resume(s);
	return err;
}

/* ---- commands ---- */

int blk_stack_command(struct blk_stack *s, const char *layer, const char *verb, const char *args, struct buf *ret_json, struct error *e)
{
	_cleanup_(blk_values_freep) struct blk_values *values = NULL;
	struct blk_layer *l = blk_stack_layer(s, layer);
	const struct blk_verb *v = l ? l->ops->verbs : NULL;
	char text[4096];

	while (v && v->name && !str_eq(v->name, verb))
		v++;
	if (!l || !v || !v->name)
		return error_set(e, "InvalidCommand", "%s", l ? "that layer has no such verb" : "there is no such layer in this stack");
	int n = snprintf(text, sizeof(text), "%s:%s", verb, args ? args : "");
	if (n < 0 || (size_t)n >= sizeof(text))
		return error_set(e, "InvalidCommand", "the arguments of %s are too long", verb);
	int err = blk_values_parse(text, v->args, &values, e);
	if (!err && v->quiet)
		err = blk_stack_barrier(s, BLK_BARRIER_MS, e);
	if (err)
		return err;
	err = l->ops->command(l, verb, values, ret_json, e);
	if (v->quiet)
		blk_stack_resume(s);
	return err;
}
