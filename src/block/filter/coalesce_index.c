/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "block/filter/coalesce_priv.h"

/*
 * What is buffered where, in private memory; all under co->lock. A region is 64 pages of the volume of which at least one is
 * buffered or on its way in or out: found by a hash, and in the order of the disk by a skip list (levels from a hash of the
 * index, so that nothing random is needed). Slots and regions are as many as the buffer has pages, and made at the start.
 * Slots are given out lowest first: what is used is used again while it is warm, and room is taken from the file's start.
 *
 * Generations: a flush ends the present one. A slot counts in the generation in which the oldest of its data came, so a flush
 * waits until nothing is pending in generations up to its own; the counts are a ring.
 */
static struct co_region *region_at(struct co *co, uint16_t n)
{
	return n == CO_NONE ? NULL : &co->region[n];
}

static uint16_t *chain(struct co *co, uint64_t index)
{
	return &co->head[(index * 0x9e3779b97f4a7c15ull >> 40) % CO_HEADS];
}

struct co_region *co_region_find(struct co *co, uint64_t index)
{
	struct co_region *g = region_at(co, *chain(co, index));

	while (g && g->index != index)
		g = region_at(co, g->hash_next);
	return g;
}

static unsigned levels(uint64_t index)
{
	uint64_t h = (index + 1) * 0xbf58476d1ce4e5b9ull;

	return 1 + MIN_OF((unsigned)__builtin_ctzll((h ^ h >> 31) >> 8 | 1ull << 40) / 2, CO_LEVELS - 1);
}

/* The links in front of index, one a level. */
static void links_before(struct co *co, uint64_t index, uint16_t *link[CO_LEVELS])
{
	uint16_t *at = co->first;

	for (unsigned l = CO_LEVELS; l--;) {
		while (at[l] != CO_NONE && co->region[at[l]].index < index)
			at = co->region[at[l]].skip;
		link[l] = &at[l];
	}
}

struct co_region *co_region_from(struct co *co, uint64_t index)
{
	uint16_t *link[CO_LEVELS];

	links_before(co, index, link);
	return region_at(co, *link[0]);
}

struct co_region *co_region_next(struct co *co, const struct co_region *g)
{
	return region_at(co, g->skip[0]);
}

struct co_region *co_region_get(struct co *co, uint64_t index)
{
	struct co_region *g = co_region_find(co, index);
	uint16_t *link[CO_LEVELS], n = co->region_free;

	if (g)
		return g;
	if (n != CO_NONE)
		co->region_free = co->region[n].hash_next;
	else
		n = co->region_fresh++;
	assert(n < co->buffer.slots);
	g = &co->region[n];
	memset(g, 0, offsetof(struct co_region, slot));
	g->index = index;
	g->hash_next = *chain(co, index);
	*chain(co, index) = n;
	links_before(co, index, link);
	for (unsigned l = 0; l < levels(index); l++) {
		g->skip[l] = *link[l];
		*link[l] = n;
	}
	return g;
}

void co_region_tidy(struct co *co, struct co_region *g)
{
	uint16_t n = (uint16_t)(g - co->region), *at = chain(co, g->index), *link[CO_LEVELS];

	if (g->present | g->filling | g->writing)
		return;
	while (*at != n)
		at = &co->region[*at].hash_next;
	*at = g->hash_next;
	links_before(co, g->index, link);
	for (unsigned l = 0; l < levels(g->index); l++)
		*link[l] = g->skip[l];
	g->hash_next = co->region_free;
	co->region_free = n;
}

uint64_t co_touched(uint64_t index, uint64_t off_bytes, uint64_t len_bytes)
{
	uint64_t base = index * CO_REGION_PAGES, first = off_bytes / CO_PAGE, last = (off_bytes + len_bytes - 1) / CO_PAGE;

	if (last < base || first >= base + CO_REGION_PAGES)
		return 0;
	return co_bits(first > base ? (unsigned)(first - base) : 0, last - base >= CO_REGION_PAGES ? CO_REGION_PAGES : (unsigned)(last - base + 1));
}

struct co_slot *co_lookup(struct co *co, uint64_t page, unsigned *ret_slot)
{
	struct co_region *g = co_region_find(co, page / CO_REGION_PAGES);

	if (!g || !(g->present >> page % CO_REGION_PAGES & 1))
		return NULL;
	*ret_slot = g->slot[page % CO_REGION_PAGES];
	return &co->slot[*ret_slot];
}

/* ---- slots ---- */
#define NO_ROOM_NS 1000000000u

bool co_slots_room(struct co *co, unsigned count, uint64_t now_ns)
{
	while (co->free_slots < count && co->buffer.reserved < co->buffer.slots) {
		unsigned before = co->buffer.reserved;

		if (co->no_room && now_ns < co->no_room_ns + NO_ROOM_NS)
			return false;
		co->no_room = !co_buffer_grow(&co->buffer);
		co->no_room_ns = now_ns;
		for (unsigned i = before; i < co->buffer.reserved; i++)
			co->free_slots += co->slot[i].state == CO_FREE;
	}
	return co->free_slots >= count;
}

unsigned co_slot_take(struct co *co)
{
	unsigned i = co->free_hint;

	while (!co->free_bits[i])
		i++;
	co->free_hint = i;
	unsigned n = i * 64 + (unsigned)__builtin_ctzll(co->free_bits[i]);
	assert(n < co->buffer.reserved && co->slot[n].state == CO_FREE && co->free_slots);
	co->free_bits[i] &= co->free_bits[i] - 1;
	co->free_slots--;
	co->slot[n] = (struct co_slot){ .state = CO_FILLING, .next = CO_NONE };
	atomic_fetch_add(&co->busy, 1);
	return n;
}

void co_slot_release(struct co *co, unsigned n)
{
	struct co_slot *s = &co->slot[n];

	if (s->state != CO_GONE || s->pins || s->pieces)
		return;
	s->state = CO_FREE;
	co->free_bits[n / 64] |= 1ull << n % 64;
	co->free_hint = MIN_OF(co->free_hint, n / 64);
	co->free_slots += n < co->buffer.reserved;
	atomic_fetch_sub(&co->busy, 1);
}

void co_slot_gone(struct co *co, unsigned n)
{
	assert(co->slot[n].state == CO_HELD);
	co_gen_add(co, &co->slot[n], -1);
	co_buffer_unpublish(&co->buffer, n);
	co->held_slots--;
	co->slot[n].state = CO_GONE;
	co_slot_release(co, n);
}

/* ---- generations ---- */
void co_gen_add(struct co *co, const struct co_slot *s, int n)
{
	uint32_t *counts = s->failed ? co->failed : co->pending;

	counts[s->gen % CO_GENS] += (uint32_t)n;
	co->failed_slots += s->failed ? (uint32_t)n : 0;
	while (co->gen_oldest != co->gen && !co->pending[co->gen_oldest % CO_GENS] && !co->failed[co->gen_oldest % CO_GENS])
		co->gen_oldest++;
}

bool co_gen_any(const uint32_t *counts, uint32_t oldest, uint32_t gen)
{
	for (uint32_t g = oldest; (int32_t)(gen - g) >= 0; g++)
		if (counts[g % CO_GENS])
			return true;
	return false;
}

/* ---- life ---- */
void co_index_replay(struct co *co, unsigned n, const struct co_record *r)
{
	struct co_region *g = co_region_get(co, r->page / CO_REGION_PAGES);
	uint64_t bit = 1ull << r->page % CO_REGION_PAGES;
	struct co_slot *s = &co->slot[n];

	if (g->present & bit) {
		unsigned other = g->slot[r->page % CO_REGION_PAGES];

		if (co->slot[other].seq >= r->seq) {
			co_buffer_unpublish(&co->buffer, n);
			return;
		}
		co_slot_gone(co, other);
	}
	*s = (struct co_slot){ .page = r->page, .seq = r->seq, .mask = r->mask, .state = CO_HELD, .next = CO_NONE, .gen = co->gen };
	co->free_bits[n / 64] &= ~(1ull << n % 64);
	co->free_slots -= n < co->buffer.reserved;
	co->held_slots++;
	atomic_fetch_add(&co->busy, 1);
	co_gen_add(co, s, 1);
	g->slot[r->page % CO_REGION_PAGES] = (uint16_t)n;
	g->present |= bit;
	g->dirty |= bit;
	co->seq = MAX_OF(co->seq, r->seq);
	blk_count(&co->count.replayed, 1);
}

int co_index_open(struct co *co)
{
	unsigned n = co->buffer.slots, words = (n + 63) / 64 + 1;

	co->slot = calloc(n, sizeof(*co->slot));
	co->region = calloc(n, sizeof(*co->region));
	co->free_bits = calloc(words, sizeof(*co->free_bits));
	if (!co->slot || !co->region || !co->free_bits)
		return -ENOMEM;
	memset(co->head, 0xff, sizeof(co->head));
	memset(co->first, 0xff, sizeof(co->first));
	co->region_free = CO_NONE;
	for (unsigned i = 0; i < n; i++)
		co->free_bits[i / 64] |= 1ull << i % 64;
	co->free_slots = co->buffer.reserved;
	for (unsigned i = 0; i < n; i++) {
		struct co_record r;

		if (co_buffer_record(&co->buffer, i, &r))
			co_index_replay(co, i, &r);
		else
			co_buffer_unpublish(&co->buffer, i);
	}
	return 0;
}

void co_index_close(struct co *co)
{
	free(co->slot);
	free(co->region);
	free(co->free_bits);
}
