/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Background fill, on queue 0: goes through the volume and fills what is not filled, FILL_BYTES at a time, up to FILL_DEPTH at once.
 * A unit's way: lock -> (read the source) -> write below -> bits -> unlock. Zeroes are really written: room that is only allocated
 * costs its first writer as much as a hole. While the guest is at work one unit is in flight, and a pause of three times its
 * length follows it, so that the fill has a quarter of the disk's time at most. What fails is tried again, later and later.
 * From time to time the map is made durable, so that not all is done again after a loss of power; and when nothing is left, for
 * good: then the filter is complete.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/macros.h"
#include "block/filter/cow_priv.h"

#define GUEST_NS UINT64_C(10000000)         /* a guest that asked for something this short a time ago is at work */
#define PAUSE_MIN_NS UINT64_C(2000000)
#define BACKOFF_MIN_NS UINT64_C(100000000)
#define BACKOFF_MAX_NS UINT64_C(30000000000)
#define SYNC_BYTES (UINT64_C(256) << 20)

static void pump(struct cow *c);

static bool guest_is_at_work(const struct cow *c)
{
	uint64_t last = 0;

	for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
		if (c->queue[i])
			last = MAX_OF(last, atomic_load_explicit(&c->queue[i]->last_ns, memory_order_relaxed));
	}
	return last + GUEST_NS > blk_queue_now(c->queue0);
}

/* ---- the map's durability ---- */

static void synced(struct blk_task *t)
{
	struct bits_wait *w = (struct bits_wait *)t;
	struct cow *c = (struct cow *)((char *)w - offsetof(struct cow, fill.sync));
	struct cow_fill *f = &c->fill;

	f->syncing = false;
	f->failing = w->result != 0;
	if (w->result) {
		atomic_fetch_add(&f->errors, 1);
		f->next_ns = blk_queue_now(c->queue0) + BACKOFF_MIN_NS * 10;
	} else if (c->filled == c->chunks && bits_is_durable(c->bits)) {
		atomic_store(&c->complete, true);
		if (c->filled < c->chunks) /* grown meanwhile, by another thread: one of the two sees the other */
			atomic_store(&c->complete, false);
	}
	pump(c);
}

static void sync(struct cow *c)
{
	c->fill.syncing = true;
	c->fill.unsynced_bytes = 0;
	c->fill.sync = (struct bits_wait){ .task.fn = synced, .queue = c->queue0 };
	bits_sync(c->bits, c->queue0, &c->fill.sync);
}

/* ---- units ---- */

static void unit_end(struct fill_unit *u, int result)
{
	struct cow *c = u->cow;
	struct cow_fill *f = &c->fill;
	uint64_t now = blk_queue_now(c->queue0), bytes = u->count * c->chunk_bytes;

	chunk_lock_release(&c->locks, &u->lock);
	u->busy = false;
	f->inflight--;
	if (result) {
		atomic_fetch_add(&f->errors, 1);
		f->failing = true;
		f->backoff_ns = f->backoff_ns ? MIN_OF(f->backoff_ns * 2, BACKOFF_MAX_NS) : BACKOFF_MIN_NS;
		f->next_ns = now + f->backoff_ns;
		f->cursor = MIN_OF(f->cursor, u->first);
	} else if (u->count) {
		f->failing = false;
		f->backoff_ns = 0;
		atomic_fetch_add(&f->bytes, bytes);
		f->unsynced_bytes += bytes;
		if (guest_is_at_work(c))
			f->next_ns = MAX_OF(f->next_ns, now + MAX_OF(3 * (now - u->started_ns), PAUSE_MIN_NS));
	}
	pump(c);
}

static void unit_written(struct blk_req *r)
{
	struct fill_unit *u = r->ctx;

	if (!r->result)
		cow_set_filled(u->cow, u->first, u->count);
	unit_end(u, r->result);
}

static void unit_io(struct fill_unit *u, struct blk_layer *to, enum blk_op op, uint64_t len, void (*done)(struct blk_req *r))
{
	u->iov = (struct iovec){ u->buffer, len };
	u->req = (struct blk_req){
		.op = op,
		.flags = BLK_BACKGROUND,
		.off_bytes = u->first * u->cow->chunk_bytes,
		.len_bytes = len,
		.iov = &u->iov,
		.iov_count = 1,
		.queue = u->cow->queue0,
		.done = done,
		.ctx = u,
	};
	blk_submit(to, &u->req);
}

static void unit_write(struct fill_unit *u, uint64_t had)
{
	struct cow *c = u->cow;
	uint64_t off = u->first * c->chunk_bytes, len = cow_chunk_end(c, u->first, u->count) - off;

	/* Past the source's end its last block may hold more than belongs to the volume. */
	if (c->source)
		had = MIN_OF(had, c->source_end > off ? c->source_end - off : 0);
	memset(u->buffer + had, 0, len - had);
	unit_io(u, c->below, BLK_WRITE, len, unit_written);
}

static void unit_read(struct blk_req *r)
{
	struct fill_unit *u = r->ctx;

	if (r->result)
		unit_end(u, r->result);
	else
		unit_write(u, r->len_bytes);
}

static void unit_locked(struct fill_unit *u)
{
	struct cow *c = u->cow;
	bool filled;
	uint64_t off = u->first * c->chunk_bytes;

	/* The guest may have been here meanwhile: what is left of the run, or nothing. */
	uint64_t run = bits_run(c->bits, u->first, u->first + u->count, &filled);
	if (filled) {
		c->fill.cursor = MIN_OF(c->fill.cursor, u->first + run);
		u->count = 0;
		unit_end(u, 0);
		return;
	}
	if (run < u->count)
		c->fill.cursor = MIN_OF(c->fill.cursor, u->first + run);
	u->count = run;
	uint64_t len = cow_source_bytes(c, off, cow_chunk_end(c, u->first, u->count));
	if (len)
		unit_io(u, c->source, BLK_READ, len, unit_read);
	else
		unit_write(u, 0);
}

static void unit_try(struct fill_unit *u)
{
	u->lock.first = u->first;
	u->lock.count = u->count;
	if (chunk_lock_take(&u->cow->locks, &u->lock))
		unit_locked(u);
}

static void unit_lock_freed(struct blk_task *t)
{
	unit_try((struct fill_unit *)t);
}

/* ---- what to do next ---- */

/* The next unfilled run from the cursor on. */
static bool find_run(struct cow *c, uint64_t *ret_first, uint64_t *ret_count)
{
	struct cow_fill *f = &c->fill;
	uint64_t chunks = c->chunks, most = f->unit_bytes / c->chunk_bytes;

	while (f->cursor < chunks) {
		bool filled;
		uint64_t run = bits_run(c->bits, f->cursor, chunks, &filled);
		*ret_first = f->cursor;
		*ret_count = MIN_OF(run, most);
		f->cursor += filled ? run : *ret_count;
		if (!filled)
			return true;
	}
	return false;
}

static struct fill_unit *idle_unit(struct cow_fill *f)
{
	for (unsigned i = 0; i < FILL_DEPTH; i++) {
		if (!f->unit[i].busy)
			return &f->unit[i];
	}
	return NULL;
}

static void unit_start(struct cow *c, struct fill_unit *u, uint64_t first, uint64_t count)
{
	struct cow_fill *f = &c->fill;
	uint64_t now = blk_queue_now(c->queue0);

	u->busy = true;
	f->inflight++;
	u->first = first;
	u->count = count;
	u->started_ns = now;
	if (f->rate) {
		/* 128 bits: a rate of a byte a second is silly, but no reason to overflow */
		uint64_t cost = (uint64_t)((__uint128_t)count * c->chunk_bytes * 1000000000u / f->rate);
		f->next_ns = MAX_OF(f->next_ns, now) + cost;
	}
	unit_try(u);
}

/* Nothing is left to start. */
static void round_off(struct cow *c)
{
	struct cow_fill *f = &c->fill;

	if (f->inflight || f->syncing || c->complete)
		return;
	if (c->filled == c->chunks) {
		sync(c);
		return;
	}
	if (f->enabled && !f->failing) {
		/* A guest's request failed to fill, or the volume grew: from the start. */
		f->cursor = 0;
		blk_timer_set(c->queue0, &f->timer, blk_queue_now(c->queue0) + BACKOFF_MIN_NS);
	}
}

static void tell_settled(struct cow_fill *f)
{
	void (*fn)(void *ctx) = f->settled;

	if (fn && !f->inflight && !f->syncing) {
		f->settled = NULL;
		fn(f->settled_ctx);
	}
}

static void pump(struct cow *c)
{
	struct cow_fill *f = &c->fill;
	uint64_t first, count;

	if (f->stopped) {
		tell_settled(f);
		return;
	}
	if (c->complete) {
		for (unsigned i = 0; i < FILL_DEPTH && !f->inflight; i++)
			madvise(f->unit[i].buffer, f->unit_bytes, MADV_DONTNEED);
		return;
	}
	if (f->unsynced_bytes >= SYNC_BYTES && !f->syncing)
		sync(c);
	unsigned depth = guest_is_at_work(c) || f->rate || f->failing ? 1 : FILL_DEPTH;
	bool left = f->enabled || c->filled == c->chunks;
	while (left && f->inflight < depth) {
		if (f->next_ns > blk_queue_now(c->queue0)) {
			blk_timer_set(c->queue0, &f->timer, f->next_ns);
			return;
		}
		left = f->enabled && find_run(c, &first, &count);
		if (left)
			unit_start(c, idle_unit(f), first, count);
	}
	if (!left)
		round_off(c);
}

static void timer_fired(struct blk_timer *t)
{
	pump((struct cow *)((char *)t - offsetof(struct cow, fill.timer)));
}

/* ---- from other threads ---- */

static void poked(struct blk_task *t)
{
	struct cow *c = (struct cow *)((char *)t - offsetof(struct cow, fill.poke));

	atomic_store(&c->fill.poked, false);
	pump(c);
}

void cow_fill_poke(struct cow *c)
{
	if (!atomic_exchange(&c->fill.poked, true))
		blk_queue_post(c->queue0, &c->fill.poke);
}

static void settle(struct blk_task *t)
{
	struct cow *c = (struct cow *)((char *)t - offsetof(struct cow, fill.settle.task));
	struct cow_fill *f = &c->fill;

	f->stopped = f->settle.stop;
	f->settled = f->settle.fn;
	f->settled_ctx = f->settle.ctx;
	if (f->stopped) {
		blk_timer_cancel(&f->timer);
		tell_settled(f);
		return;
	}
	f->settled = NULL;
	f->settle.fn(f->settle.ctx);
	pump(c);
}

void cow_fill_settle(struct cow *c, bool stop, void (*fn)(void *ctx), void *ctx)
{
	c->fill.settle.task.fn = settle;
	c->fill.settle.stop = stop;
	c->fill.settle.fn = fn;
	c->fill.settle.ctx = ctx;
	blk_queue_post(c->queue0, &c->fill.settle.task);
}

/* ---- making ---- */

int cow_fill_init(struct cow *c, struct error *e)
{
	struct cow_fill *f = &c->fill;

	f->unit_bytes = MAX_OF(FILL_BYTES, c->chunk_bytes);
	f->timer.fn = timer_fired;
	f->poke.fn = poked;
	for (unsigned i = 0; i < FILL_DEPTH; i++) {
		struct fill_unit *u = &f->unit[i];
		u->cow = c;
		u->lock.task.fn = unit_lock_freed;
		void *at = mmap(NULL, f->unit_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (at == MAP_FAILED)
			return error_errno(e, ENOMEM, "buffers of cow");
		u->buffer = at;
	}
	return 0;
}

void cow_fill_done(struct cow *c)
{
	for (unsigned i = 0; i < FILL_DEPTH; i++) {
		if (c->fill.unit[i].buffer)
			munmap(c->fill.unit[i].buffer, c->fill.unit_bytes);
	}
}

void cow_fill_start(struct cow *c, struct blk_queue *q)
{
	c->queue0 = q;
	for (unsigned i = 0; i < FILL_DEPTH; i++)
		c->fill.unit[i].lock.queue = q;
	blk_timer_set(q, &c->fill.timer, blk_queue_now(q));
}
