/* SPDX-License-Identifier: Apache-2.0 */
#include "history.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

void die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	flockfile(stderr);
	fputs("FAILED: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	fflush(stderr);
	va_end(args);
	_exit(70);
}

void *shared_memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		die("no %zu bytes of shared memory", bytes);
	return p;
}

void history_init(struct history *h, uint64_t sectors, uint32_t ops_max, uint32_t nodes_max, _Atomic uint64_t *clock)
{
	h->clock = clock;
	h->sectors = sectors;
	h->ops_max = ops_max;
	h->nodes_max = nodes_max;
	h->op = shared_memory(ops_max * sizeof(*h->op));
	h->node = shared_memory(nodes_max * sizeof(*h->node));
	h->head = shared_memory(sectors * sizeof(*h->head));
	history_clear(h);
}

void history_clear(struct history *h)
{
	memset(h->op, 0, atomic_load(&h->ops) * sizeof(*h->op));
	h->ops = h->nodes = 0;
	for (uint64_t i = 0; i < h->sectors; i++)
		h->head[i] = 0;
}

void history_done(struct history *h)
{
	munmap(h->op, h->ops_max * sizeof(*h->op));
	munmap(h->node, h->nodes_max * sizeof(*h->node));
	munmap(h->head, h->sectors * sizeof(*h->head));
}

bool history_is_full(const struct history *h)
{
	return h->ops > h->ops_max / 4 * 3 || h->nodes > h->nodes_max / 4 * 3;
}

uint64_t history_tick(struct history *h)
{
	return atomic_fetch_add(h->clock, 1) + 1;
}

static void link_sector(struct history *h, uint64_t sector, uint32_t node, uint32_t op)
{
	uint32_t first = atomic_load(&h->head[sector]);

	h->node[node].op = op;
	do
		h->node[node].next = first;
	while (!atomic_compare_exchange_weak(&h->head[sector], &first, node + 1));
}

uint32_t history_begin(struct history *h, enum history_kind kind, bool fua, uint64_t sector, uint64_t sectors, uint64_t data)
{
	uint32_t op = atomic_fetch_add(&h->ops, 1);
	uint32_t node = atomic_fetch_add(&h->nodes, (uint32_t)sectors);

	if (op >= h->ops_max || node > h->nodes_max || sectors > h->nodes_max - node)
		die("the record is too short for this test");
	if (sector > h->sectors || sectors > h->sectors - sector)
		die("sectors %llu+%llu lie beyond the disk", (unsigned long long)sector, (unsigned long long)sectors);
	struct history_op *o = &h->op[op];
	o->kind = kind;
	o->fua = fua;
	o->sector = sector;
	o->sectors = sectors;
	o->data = data;
	o->maybe = false;
	o->completed = o->effect[0] = o->effect[1] = 0;
	o->split = o->split_end = 0;
	for (uint64_t i = 0; i < sectors; i++)
		link_sector(h, sector + i, node + (uint32_t)i, op);
	/* Last: who is killed on the way has submitted nothing. */
	o->submitted = history_tick(h);
	return op;
}

void history_end(struct history *h, uint32_t op, int result)
{
	if (result)
		h->op[op].maybe = true;
	h->op[op].completed = history_tick(h);
}

void history_cut_off(struct history *h)
{
	for (uint32_t i = 0; i < h->ops; i++) {
		if (!h->op[i].completed)
			history_end(h, i, -1);
	}
}

/* ---- what may be there ---- */

static bool has_completed(const struct history_op *o, uint64_t by)
{
	return o->completed && o->completed <= by;
}

struct history_view history_view(const struct history *h, enum history_mode mode, uint64_t at)
{
	struct history_view v = { .mode = mode, .at = at };

	for (uint32_t i = 0; mode == VIEW_POWER && i < h->ops; i++) {
		const struct history_op *o = &h->op[i];
		if (o->kind == HISTORY_FLUSH && has_completed(o, at) && !o->maybe && o->submitted > v.flushed_before)
			v.flushed_before = o->submitted;
	}
	return v;
}

bool history_is_known(const struct history *h, uint32_t op, const struct history_view *v)
{
	const struct history_op *o = &h->op[op];

	if (!has_completed(o, v->at))
		return false;
	if (o->maybe) /* as far as it came to the disk, a flush takes it along */
		return h->ordered && v->mode == VIEW_POWER && (v->write_through || o->completed < v->flushed_before);
	switch (v->mode) {
	case VIEW_READ:
		return o->completed < v->read_start;
	case VIEW_KILL:
		return true;
	default:
		return o->fua || v->write_through || o->completed < v->flushed_before;
	}
}

uint64_t history_order(const struct history *h, uint32_t op, uint64_t sector, uint64_t at)
{
	const struct history_op *o = &h->op[op];
	uint64_t s = sector - o->sector, effect = s < o->split ? o->effect[0] : s < o->split_end ? o->effect[1] : 0;

	if (effect && effect <= at)
		return effect;
	return has_completed(o, at) ? 0 : UINT64_MAX;
}

static bool is_after(const struct history *h, uint32_t later, uint32_t op, uint64_t sector, uint64_t at)
{
	if (op == HISTORY_INITIAL)
		return !h->ordered || history_order(h, later, sector, at);
	if (h->ordered)
		return history_order(h, later, sector, at) > history_order(h, op, sector, at);
	return has_completed(&h->op[op], at) && h->op[op].completed < h->op[later].submitted;
}

static bool has_gone(const struct history *h, uint32_t first_node, uint32_t op, uint64_t sector, const struct history_view *v)
{
	for (uint32_t n = first_node; n; n = h->node[n - 1].next) {
		uint32_t later = h->node[n - 1].op;
		if (history_is_known(h, later, v) && is_after(h, later, op, sector, v->at))
			return true;
	}
	return false;
}

/* It had begun, and its end, if it has one, has not left this sector alone. */
static bool has_come(const struct history *h, uint32_t op, uint64_t sector, uint64_t at)
{
	if (!h->op[op].submitted || h->op[op].submitted > at)
		return false;
	return !h->ordered || history_order(h, op, sector, at);
}

unsigned history_candidates(const struct history *h, uint64_t sector, const struct history_view *v, uint32_t out[HISTORY_CANDIDATES_MAX])
{
	uint32_t first = atomic_load(&h->head[sector]);
	unsigned count = 0;

	for (uint32_t n = first; n; n = h->node[n - 1].next) {
		uint32_t op = h->node[n - 1].op;
		if (!has_come(h, op, sector, v->at) || has_gone(h, first, op, sector, v))
			continue;
		if (count == HISTORY_CANDIDATES_MAX - 1)
			die("too many operations on sector %llu", (unsigned long long)sector);
		out[count++] = op;
	}
	if (!has_gone(h, first, HISTORY_INITIAL, sector, v))
		out[count++] = HISTORY_INITIAL;
	return count;
}
