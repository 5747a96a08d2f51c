/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "block/filter/coalesce_priv.h"

/*
 * How requests are let in.
 *
 * A write is absorbed: under the lock its slots are reserved and its pages marked as filling; without the lock the data is copied
 * and the records are published; under the lock the slots are installed in place of older ones; then it is answered. A page
 * never has two fills at once. A slot replaces the older one of its page and holds all its sectors, so the newest slot of a
 * page is all that is buffered of it.
 *
 * What is not absorbed (FUA, zeroes, discards, long writes, and writes when the buffer can take nothing) is direct: it goes
 * below itself. It is first entered among the directs, from where on nothing that touches its pages is let in, and drains: it
 * waits until no page of it is filling or being written, and until a page of which it covers only a part has been written back.
 * Then it is sent. Pages that it covers whole stay buffered, but are not written back, while it is below: after its success
 * they are dropped, before it is answered, and after its failure they are as they were. So an older write never follows a newer
 * one to the disk, and a death at any point leaves either the buffered data or the new.
 *
 * Who cannot go in waits in one line; those that wait for room go in their order. A line moves at every change (co_go).
 *
 * A buffer of which nothing more can be written back (each slot has failed, none is in flight) takes nothing more: writes then
 * go directly to the disk, whose own answer they get.
 *
 * A flush waits for the generations up to its own and goes below. When a slot of them failed after the flush came (it retries
 * all), it fails.
 *
 * scratch of a direct: [0] enum stage, [3] link in co->directs. Of a write that fills: [1] first slot. Of a flush: [0] its generation.
 */
enum stage { DRAINING, SENT };
enum step { ABSORB, DIRECT, WAIT_ROOM, WAIT_PLACE };

static uint64_t first_page(const struct blk_req *r)
{
	return r->off_bytes / CO_PAGE;
}

static uint64_t last_page(const struct blk_req *r)
{
	return (r->off_bytes + r->len_bytes - 1) / CO_PAGE;
}

static struct blk_req *direct_next(const struct blk_req *r)
{
	return (struct blk_req *)(uintptr_t)r->scratch[3];
}

static bool place_taken(struct co *co, const struct blk_req *r)
{
	for (struct blk_req *d = co->directs; d; d = direct_next(d))
		if (first_page(d) <= last_page(r) && first_page(r) <= last_page(d))
			return true;
	return false;
}

uint64_t co_under_direct(struct co *co, const struct co_region *g)
{
	uint64_t bits = 0;

	for (struct blk_req *d = co->directs; d; d = direct_next(d))
		if (d->scratch[0] == SENT)
			bits |= co_touched(g->index, d->off_bytes, d->len_bytes);
	return bits;
}

/* The sectors of a page that r covers. */
static uint8_t covered(const struct blk_req *r, uint64_t page)
{
	uint64_t base = page * CO_PAGE, from = MAX_OF(r->off_bytes, base) - base;
	uint64_t to = MIN_OF(r->off_bytes + r->len_bytes, base + CO_PAGE) - base;

	return (uint8_t)(((1u << to / BLK_SECTOR) - 1) & ~((1u << from / BLK_SECTOR) - 1));
}

/* ---- absorbing ---- */
static bool filling(struct co *co, const struct blk_req *r)
{
	for (uint64_t i = first_page(r) / CO_REGION_PAGES; co->fills && i <= last_page(r) / CO_REGION_PAGES; i++) {
		struct co_region *g = co_region_find(co, i);

		if (g && g->filling & co_touched(i, r->off_bytes, r->len_bytes))
			return true;
	}
	return false;
}

static void reserve(struct co *co, struct blk_req *r)
{
	uint16_t last = CO_NONE;
	struct co_region *g = NULL;

	for (uint64_t page = first_page(r); page <= last_page(r); page++) {
		unsigned n = co_slot_take(co), old;
		struct co_slot *s = &co->slot[n], *o = NULL;

		if (!g || g->index != page / CO_REGION_PAGES)
			g = co_region_get(co, page / CO_REGION_PAGES);
		s->page = page;
		s->seq = ++co->seq;
		s->mask = covered(r, page);
		s->merge = CO_NONE;
		s->first = last == CO_NONE;
		if (s->mask != CO_FULL)
			o = co_lookup(co, page, &old);
		if (o) {
			s->merge = (uint16_t)old;
			s->mask |= o->mask;
			o->pins++;
		}
		g->filling |= 1ull << page % CO_REGION_PAGES;
		if (last == CO_NONE)
			r->scratch[1] = n;
		else
			co->slot[last].next = (uint16_t)n;
		last = (uint16_t)n;
	}
	co->fills++;
}

static void copy_slot(struct co *co, const struct blk_req *r, unsigned n)
{
	const struct co_slot *s = &co->slot[n];
	uint64_t base = s->page * CO_PAGE, from = MAX_OF(r->off_bytes, base), to = MIN_OF(r->off_bytes + r->len_bytes, base + CO_PAGE);
	uint8_t *data = co_data(&co->buffer, n), mine = covered(r, s->page);

	blk_iov_from(r->iov, r->iov_count, from - r->off_bytes, data + (from - base), to - from);
	for (unsigned i = 0; s->merge != CO_NONE && i < CO_SECTORS; i++)
		if (s->mask & ~mine & 1u << i)
			memcpy(data + i * BLK_SECTOR, co_data(&co->buffer, s->merge) + i * BLK_SECTOR, BLK_SECTOR);
	co_buffer_publish(&co->buffer, n, &(struct co_record){ .page = s->page, .seq = s->seq, .mask = s->mask });
}

/* o has a newer one. */
static void replaced(struct co *co, unsigned n)
{
	struct co_slot *o = &co->slot[n];

	blk_count(&co->count.replaced_bytes, (uint64_t)__builtin_popcount(o->mask) * BLK_SECTOR);
	if (!o->pieces) {
		co_slot_gone(co, n);
		return;
	}
	/* being written: counts in its generation until that has ended */
	co_buffer_unpublish(&co->buffer, n);
	co->held_slots--;
	o->state = CO_GONE;
}

static void install(struct co *co, unsigned n, uint64_t now_ns)
{
	struct co_slot *s = &co->slot[n];
	struct co_region *g = co_region_find(co, s->page / CO_REGION_PAGES);
	unsigned at = s->page % CO_REGION_PAGES, old = g->slot[at];
	uint64_t bit = 1ull << at;

	s->state = CO_HELD;
	s->gen = co->gen;
	if (g->present & bit && !co->slot[old].pieces) {
		s->gen = co->slot[old].gen;
		s->failed = co->slot[old].failed;
	}
	co->held_slots++;
	co_gen_add(co, s, 1);
	if (g->present & bit)
		replaced(co, old);
	if (s->merge != CO_NONE) {
		co->slot[s->merge].pins--;
		co_slot_release(co, s->merge);
	}
	g->slot[at] = (uint16_t)n;
	g->present |= bit;
	g->dirty |= bit;
	g->filling &= ~bit;
	g->last_ns = now_ns;
}

void co_fill(struct co_queue *q, struct blk_req *r)
{
	struct co *co = q->co;
	uint64_t now = blk_queue_now(q->queue);

	for (unsigned n = (unsigned)r->scratch[1]; n != CO_NONE; n = co->slot[n].next)
		copy_slot(co, r, n);
	pthread_mutex_lock(&co->lock);
	for (unsigned n = (unsigned)r->scratch[1], next; n != CO_NONE; n = next) {
		next = co->slot[n].next;
		install(co, n, now);
	}
	co->fills--;
	co->last_ns = now;
	blk_count(&co->count.absorbed, 1);
	blk_count(&co->count.absorbed_bytes, r->len_bytes);
	pthread_mutex_unlock(&co->lock);
	blk_complete(r, 0);
}

/* ---- directs ---- */
/* 0: it may be sent; 1: not yet; else why it never can. */
static int drained(struct co *co, const struct blk_req *r)
{
	uint64_t ends[] = { first_page(r), last_page(r) };

	if (!atomic_load(&co->busy))
		return 0;
	for (struct co_region *g = co_region_from(co, ends[0] / CO_REGION_PAGES); g && g->index <= ends[1] / CO_REGION_PAGES;
	     g = co_region_next(co, g))
		if ((g->filling | g->writing) & co_touched(g->index, r->off_bytes, r->len_bytes))
			return 1;
	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
		unsigned n;
		struct co_slot *s = co_lookup(co, ends[i], &n);

		if (s && s->mask & ~covered(r, ends[i]))
			return s->failed ? -EIO : 1;
	}
	return 0;
}

static void direct_remove(struct co *co, struct blk_req *r)
{
	struct blk_req *d = co->directs;

	co->direct_count--;
	if (d == r) {
		co->directs = direct_next(r);
		return;
	}
	while (direct_next(d) != r)
		d = direct_next(d);
	d->scratch[3] = r->scratch[3];
}

static void direct_try(struct co_queue *q, struct blk_req *r, struct co_work *w)
{
	int rc = drained(q->co, r);

	if (rc > 0)
		return;
	q->co->draining--;
	if (!rc) {
		r->scratch[0] = SENT;
		co_post(q, co_queue_of(q->co, r), r, w);
		return;
	}
	direct_remove(q->co, r);
	blk_complete(r, rc);
}

static void direct_enter(struct co_queue *q, struct blk_req *r, struct co_work *w)
{
	struct co *co = q->co;

	r->scratch[0] = DRAINING;
	r->scratch[3] = (uintptr_t)co->directs;
	co->directs = r;
	co->direct_count++;
	co->draining++;
	blk_count(&co->count.direct, 1);
	direct_try(q, r, w);
}

static void drop_covered(struct co *co, const struct blk_req *r)
{
	struct co_region *g = co_region_from(co, first_page(r) / CO_REGION_PAGES), *next;

	for (; g && g->index <= last_page(r) / CO_REGION_PAGES; g = next) {
		uint64_t bits = g->present & co_touched(g->index, r->off_bytes, r->len_bytes);

		next = co_region_next(co, g);
		for (uint64_t left = bits; left; left &= left - 1)
			co_slot_gone(co, g->slot[__builtin_ctzll(left)]);
		g->present &= ~bits;
		g->dirty &= ~bits;
		g->held &= ~bits;
		co_region_tidy(co, g);
	}
}

static void direct_done(struct blk_req *child)
{
	struct blk_req *r = child->ctx;
	struct co_queue *q = *(struct co_queue **)blk_pool_extra(child);
	struct co *co = q->co;
	int result = child->result;

	blk_pool_put(q->directs, child);
	pthread_mutex_lock(&co->lock);
	if (!result && atomic_load(&co->busy))
		drop_covered(co, r);
	direct_remove(co, r);
	bool others = co->waiting.first || co->draining || co->flush_count || co->held_slots;
	pthread_mutex_unlock(&co->lock);
	blk_complete(r, result);
	co_direct_resume(q);
	if (others)
		co_go(q);
}

void co_send(struct co_queue *q, struct blk_req *r)
{
	struct blk_req *child;

	if (r->op == BLK_FLUSH) {
		blk_submit(q->co->layer->below, r);
		return;
	}
	child = blk_pool_copy(q->directs, r);
	if (!child) {
		blk_list_push(&q->held, r);
		return;
	}
	child->done = direct_done;
	*(struct co_queue **)blk_pool_extra(child) = q;
	blk_submit(q->co->layer->below, child);
}

void co_direct_resume(struct co_queue *q)
{
	struct blk_req *r = blk_list_pop(&q->held);

	if (r)
		co_send(q, r);
}

/* ---- letting in ---- */
static bool stuck(const struct co *co)
{
	return !co->backs && !co->fills && co->failed_slots == co->held_slots;
}

static enum step step_of(struct co *co, struct blk_req *r, bool room, uint64_t now_ns)
{
	if (place_taken(co, r))
		return WAIT_PLACE;
	if (r->op != BLK_WRITE || r->flags & BLK_FUA || r->len_bytes >= co->bypass_bytes)
		return DIRECT;
	if (filling(co, r))
		return WAIT_PLACE;
	if (room && co_slots_room(co, (unsigned)(last_page(r) - first_page(r) + 1), now_ns))
		return ABSORB;
	if (stuck(co)) {
		blk_count(&co->count.write_through, 1);
		return DIRECT;
	}
	return WAIT_ROOM;
}

/* Under lock. False: r cannot go in and is at the line's end. */
static bool let_one_in(struct co_queue *q, struct blk_req *r, bool room, struct co_work *w)
{
	struct co *co = q->co;
	enum step step = step_of(co, r, room, blk_queue_now(q->queue));

	switch (step) {
	case ABSORB:
		reserve(co, r);
		blk_list_push(&w->fills, r);
		return true;
	case DIRECT:
		direct_enter(q, r, w);
		return true;
	default:
		co->waiting_room += step == WAIT_ROOM;
		co->waiting_place += step == WAIT_PLACE;
		blk_list_push(&co->waiting, r);
		return false;
	}
}

static void flushes_on(struct co_queue *q, struct co_work *w)
{
	struct co *co = q->co;
	struct blk_list all = co->flushes;
	struct blk_req *r;

	co->flushes = (struct blk_list){ 0 };
	while ((r = blk_list_pop(&all))) {
		uint32_t gen = (uint32_t)r->scratch[0];

		if (co_gen_any(co->pending, co->gen_oldest, gen)) {
			blk_list_push(&co->flushes, r);
			continue;
		}
		co->flush_count--;
		if (co_gen_any(co->failed, co->gen_oldest, gen)) {
			blk_count(&co->count.flush_errors, 1);
			blk_complete(r, -EIO);
		} else {
			co_post(q, co_queue_of(co, r), r, w);
		}
	}
}

/* A line that only waits for room need not be gone through until there is room for its first. */
static bool line_moves(struct co *co, uint64_t now_ns)
{
	struct blk_req *r = co->waiting.first;

	return r && (co->waiting_place || stuck(co) || co_slots_room(co, (unsigned)(last_page(r) - first_page(r) + 1), now_ns));
}

void co_let_in(struct co_queue *q, struct co_work *w)
{
	struct co *co = q->co;
	struct blk_list line = co->waiting;
	struct blk_req *r, *next;

	for (r = co->draining ? co->directs : NULL; r; r = next) {
		next = direct_next(r);
		if (r->scratch[0] == DRAINING)
			direct_try(q, r, w);
	}
	if (line_moves(co, blk_queue_now(q->queue))) {
		co->waiting = (struct blk_list){ 0 };
		co->waiting_room = co->waiting_place = 0;
		while ((r = blk_list_pop(&line)))
			let_one_in(q, r, !co->waiting_room, w);
	}
	if (co->flush_count)
		flushes_on(q, w);
}

void co_post(struct co_queue *q, struct co_queue *to, struct blk_req *r, struct co_work *w)
{
	if (to == q) {
		blk_list_push(&w->sends, r);
		return;
	}
	blk_list_push(&to->ready, r);
	if (!to->posted) {
		to->posted = true;
		blk_queue_post(to->queue, &to->task);
	}
}

void co_submit_write(struct co_queue *q, struct blk_req *r)
{
	struct co *co = q->co;
	struct co_work w = { 0 };

	pthread_mutex_lock(&co->lock);
	bool in = let_one_in(q, r, !co->waiting_room, &w);
	if (!in) {
		blk_count(&co->count.full_waits, co->waiting_room > 0);
		blk_count(&co->count.overlap_waits, !co->waiting_room);
	}
	bool pump = !in || w.fills.first || co->draining;
	pthread_mutex_unlock(&co->lock);
	while ((r = blk_list_pop(&w.fills)))
		co_fill(q, r);
	while ((r = blk_list_pop(&w.sends)))
		co_send(q, r);
	/* at the end of the batch: what came together is written together */
	if (pump)
		blk_queue_defer(q->queue, &q->pump);
}

void co_submit_flush(struct co_queue *q, struct blk_req *r)
{
	struct co *co = q->co;

	if (!atomic_load(&co->busy)) {
		blk_submit(co->layer->below, r);
		return;
	}
	pthread_mutex_lock(&co->lock);
	blk_count(&co->count.flushes, 1);
	r->scratch[0] = co->gen;
	/* a full ring: this flush and the next wait for the same */
	if (co->gen - co->gen_oldest < CO_GENS - 2)
		co->gen++;
	co_retry_now(co);
	blk_list_push(&co->flushes, r);
	co->flush_count++;
	co_go_locked(q);
}
