/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "block/filter/coalesce_priv.h"

/*
 * Write-back: one sweep over the disk after another, in the order of offsets. Neighbouring whole pages go together, up to the
 * merge limit; a page of which only some sectors are held goes alone, one write for each row of them.
 *
 * When: with nothing in flight whatever there is goes at once, so that an idle disk never waits. While something is in flight
 * the rest may grow: a run goes when it is a quarter of the limit long, or as long as the limit when two are in flight; or when
 * it was not written to for RIPE_NS. All goes at once when a flush or a direct request waits for it. The limit is no more than an
 * eighth of the buffer, so that writers find room while the disk works.
 *
 * A page that is being written back can be written anew meanwhile; the new slot waits until the old one's write has ended
 * (region->writing). A failed slot stays, is held until the next retry (time doubled up to BACKOFF_MAX_NS), and counts as
 * failed for flushes. When the slot that failed has been replaced its data is in the newer one, which takes over its generation.
 */
#define RIPE_NS 2000000u
#define BACKOFF_NS 100000000u
#define BACKOFF_MAX_NS 5000000000u
#define SCAN_MAX 512u
#define IN_FLIGHT_MERGES 4u

struct back {
	struct co_queue *q;
	uint64_t page;
	unsigned count;
	uint16_t slot[CO_MERGE_MAX];
};

static void back_done(struct blk_req *child);

size_t co_back_extra(void)
{
	return sizeof(struct back);
}

static uint64_t eligible(struct co *co, const struct co_region *g)
{
	uint64_t bits = g->dirty & ~g->writing & ~g->filling & ~g->held;

	return bits && co->direct_count ? bits & ~co_under_direct(co, g) : bits;
}

static bool pressed(const struct co *co)
{
	return co->flush_count || co->draining;
}

/* A run so long goes though the disk is busy: the busier, the longer. */
static unsigned long_enough(const struct co *co)
{
	return co->backs > 1 ? co->merge_pages : co->merge_pages / 4;
}

/* ---- sending ---- */
static struct blk_req *child_new(struct co_queue *q, uint64_t off, struct co_work *w)
{
	struct co *co = q->co;
	struct blk_req *c = blk_pool_get(q->backs);
	struct back *b = blk_pool_extra(c);

	b->q = q;
	b->count = 0;
	b->page = off / CO_PAGE;
	c->op = BLK_WRITE;
	c->flags = pressed(co) || co->waiting_room ? 0 : BLK_BACKGROUND;
	c->off_bytes = off;
	c->iov = blk_pool_iov(c);
	c->done = back_done;
	co->backs++;
	blk_list_push(&w->backs, c);
	blk_count(&co->count.write_backs, 1);
	return c;
}

static void child_add(struct co *co, struct blk_req *c, unsigned n, unsigned from, unsigned len)
{
	struct back *b = blk_pool_extra(c);
	struct iovec *iov = blk_pool_iov(c);
	uint8_t *data = co_data(&co->buffer, n) + from;

	if (c->iov_count && (uint8_t *)iov[c->iov_count - 1].iov_base + iov[c->iov_count - 1].iov_len == data)
		iov[c->iov_count - 1].iov_len += len;
	else
		iov[c->iov_count++] = (struct iovec){ data, len };
	blk_count(&co->count.merged, b->count && co->slot[n].first);
	b->slot[b->count++] = (uint16_t)n;
	c->len_bytes += len;
	co->slot[n].pieces++;
	co->back_pages++;
	blk_count(&co->count.write_back_bytes, len);
}

static void take(struct co_region *g, unsigned at)
{
	g->writing |= 1ull << at;
	g->dirty &= ~(1ull << at);
}

static void send_partial(struct co_queue *q, struct co_region *g, unsigned at, struct co_work *w)
{
	struct co *co = q->co;
	unsigned n = g->slot[at], mask = co->slot[n].mask;
	uint64_t base = co->slot[n].page * CO_PAGE;

	for (unsigned from = 0, to; from < CO_SECTORS; from = to) {
		to = from + 1;
		if (!(mask >> from & 1))
			continue;
		while (to < CO_SECTORS && mask >> to & 1)
			to++;
		child_add(co, child_new(q, base + from * BLK_SECTOR, w), n, from * BLK_SECTOR, (to - from) * BLK_SECTOR);
	}
	take(g, at);
	co->sweep = co->slot[n].page + 1;
}

/* Pages from g's bit `at` on that can go in one write. */
static unsigned run_length(struct co *co, struct co_region *g, unsigned at, uint64_t bits, uint64_t *ret_last_ns)
{
	unsigned n = 0;

	*ret_last_ns = g->last_ns;
	while (n < co->merge_pages && bits >> at & 1 && co->slot[g->slot[at]].mask == CO_FULL) {
		n++;
		if (++at < CO_REGION_PAGES)
			continue;
		uint64_t next = g->index + 1;
		g = co_region_next(co, g);
		if (!g || g->index != next)
			break;
		at = 0;
		bits = eligible(co, g);
		if (bits & 1)
			*ret_last_ns = MAX_OF(*ret_last_ns, g->last_ns);
	}
	return n;
}

static void send_run(struct co_queue *q, struct co_region *g, unsigned at, unsigned pages, struct co_work *w)
{
	struct co *co = q->co;
	uint64_t page = g->index * CO_REGION_PAGES + at;
	struct blk_req *c = child_new(q, page * CO_PAGE, w);

	for (unsigned i = 0; i < pages; i++, at++) {
		if (at == CO_REGION_PAGES) {
			g = co_region_next(co, g);
			at = 0;
		}
		child_add(co, c, g->slot[at], 0, CO_PAGE);
		take(g, at);
	}
	co->sweep = page + pages;
}

/* Sends from g what is ripe at or behind bit from; whether there was something. */
static bool pick_region(struct co_queue *q, struct co_region *g, unsigned from, struct co_work *w)
{
	struct co *co = q->co;
	uint64_t all = eligible(co, g), bits = all & co_bits(from, CO_REGION_PAGES), last_ns, now = blk_queue_now(q->queue);

	while (bits) {
		unsigned at = (unsigned)__builtin_ctzll(bits);
		unsigned n = run_length(co, g, at, all, &last_ns);

		if (pressed(co) || !co->backs || n >= long_enough(co) || now >= last_ns + RIPE_NS) {
			if (n)
				send_run(q, g, at, n, w);
			else
				send_partial(q, g, at, w);
			return true;
		}
		n = MAX_OF(n, 1u);
		bits &= at + n >= CO_REGION_PAGES ? 0 : co_bits(at + n, CO_REGION_PAGES);
	}
	return false;
}

static bool pick_one(struct co_queue *q, struct co_work *w)
{
	struct co *co = q->co;
	uint64_t start = co->sweep / CO_REGION_PAGES;
	struct co_region *g = co_region_from(co, start);
	unsigned seen = 0;

	for (; g && seen < SCAN_MAX; g = co_region_next(co, g), seen++)
		if (pick_region(q, g, g->index == start ? co->sweep % CO_REGION_PAGES : 0, w))
			return true;
	/* from the disk's beginning again */
	for (g = co_region_from(co, 0); g && g->index <= start && seen < 2 * SCAN_MAX; g = co_region_next(co, g), seen++)
		if (pick_region(q, g, 0, w))
			return true;
	return false;
}

void co_pick(struct co_queue *q, struct co_work *w)
{
	struct co *co = q->co;

	while (!co->stopped && co->held_slots && co->backs < CO_BACKS && co->back_pages < IN_FLIGHT_MERGES * co->merge_pages)
		if (!pick_one(q, w))
			return;
}

/* ---- its end ---- */
static void move_gen(struct co *co, struct co_slot *s, uint32_t gen)
{
	uint32_t *counts = s->failed ? co->failed : co->pending;

	counts[gen % CO_GENS]++;
	counts[s->gen % CO_GENS]--;
	s->gen = gen;
}

static void mark_failed(struct co *co, struct co_slot *s, bool failed)
{
	uint32_t *from = failed ? co->pending : co->failed, *to = failed ? co->failed : co->pending;

	if (s->failed == failed)
		return;
	to[s->gen % CO_GENS]++;
	from[s->gen % CO_GENS]--;
	s->failed = failed;
	co->failed_slots += failed ? 1u : -1u;
}

static void slot_written(struct co *co, unsigned n)
{
	struct co_slot *s = &co->slot[n];
	struct co_region *g = co_region_find(co, s->page / CO_REGION_PAGES);
	unsigned at = s->page % CO_REGION_PAGES;
	uint64_t bit = 1ull << at;

	g->writing &= ~bit;
	if (s->state == CO_GONE) {
		struct co_slot *newer = &co->slot[g->slot[at]];

		assert(g->present & bit);
		if (s->error && (int32_t)(s->gen - newer->gen) < 0)
			move_gen(co, newer, s->gen);
		co_gen_add(co, s, -1);
		co_slot_release(co, n);
	} else if (s->error) {
		mark_failed(co, s, true);
		g->dirty |= bit;
		g->held |= bit;
	} else {
		mark_failed(co, s, false);
		g->present &= ~bit;
		co_slot_gone(co, n);
	}
	s->error = false;
	co_region_tidy(co, g);
}

static void arm_timers(struct co_queue *q, int result)
{
	struct co *co = q->co;
	uint64_t now = blk_queue_now(q->queue);

	if (result) {
		blk_count(&co->count.failures, 1);
		if (!co->retry_armed) {
			co->backoff_ns = co->backoff_ns ? MIN_OF(co->backoff_ns * 2, (uint64_t)BACKOFF_MAX_NS) : BACKOFF_NS;
			co->retry_armed = true;
			blk_timer_set(q->queue, &q->retry, now + co->backoff_ns);
		}
	} else if (!co->failed_slots) {
		co->backoff_ns = 0;
	}
	if (!co->held_slots && !co->idle_armed) {
		co->idle_armed = true;
		blk_timer_set(q->queue, &q->idle, now + co->idle_ns);
	}
}

static void back_done(struct blk_req *child)
{
	struct back *b = blk_pool_extra(child);
	struct co_queue *q = b->q;
	struct co *co = q->co;
	void (*settled)(void *ctx) = NULL;
	void *settled_ctx;

	pthread_mutex_lock(&co->lock);
	for (unsigned i = 0; i < b->count; i++) {
		struct co_slot *s = &co->slot[b->slot[i]];

		s->error |= child->result != 0;
		if (!--s->pieces)
			slot_written(co, b->slot[i]);
	}
	co->backs--;
	co->back_pages -= b->count;
	arm_timers(q, child->result);
	blk_pool_put(q->backs, child);
	settled_ctx = co->settled_ctx;
	if (!co->backs)
		settled = TAKE_PTR(co->settled);
	co_go_locked(q);
	if (settled)
		settled(settled_ctx);
}

void co_retry_now(struct co *co)
{
	if (!co->failed_slots)
		return;
	for (struct co_region *g = co_region_from(co, 0); g; g = co_region_next(co, g)) {
		for (uint64_t left = g->held & g->present; left; left &= left - 1)
			mark_failed(co, &co->slot[g->slot[__builtin_ctzll(left)]], false);
		g->held = 0;
	}
}

void co_retry(struct blk_timer *t)
{
	struct co_queue *q = (struct co_queue *)((char *)t - offsetof(struct co_queue, retry));
	struct co *co = q->co;

	pthread_mutex_lock(&co->lock);
	co->retry_armed = false;
	co_retry_now(co);
	co_go_locked(q);
}
