/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/sc/packset.h"

#include <stdlib.h>
#include <string.h>

bool upload_id_eq(const struct upload_id *a, const struct upload_id *b)
{
	return a->attempt == b->attempt && strcmp(a->snapshot, b->snapshot) == 0;
}

void packset_done(struct packset *s)
{
	for (unsigned i = 0; i < s->count; i++)
		free(s->uploads[i].runs);
	free(s->uploads);
	*s = PACKSET_INIT;
}

static struct packset_upload *find(const struct packset *s, const struct upload_id *id)
{
	for (unsigned i = s->count; i--;) {
		if (upload_id_eq(&s->uploads[i].id, id))
			return &s->uploads[i];
	}
	return NULL;
}

static struct packset_upload *find_or_add(struct packset *s, const struct upload_id *id)
{
	struct packset_upload *u = find(s, id);

	if (u)
		return u;
	if (s->count == s->cap) {
		s->cap = s->cap ? 2 * s->cap : 8;
		s->uploads = realloc(s->uploads, s->cap * sizeof(*s->uploads));
		if (!s->uploads)
			abort();
	}
	u = &s->uploads[s->count++];
	*u = (struct packset_upload){ .id = *id };
	return u;
}

/* The first run that ends behind `number`. */
static unsigned lower(const struct packset_upload *u, uint64_t number)
{
	unsigned lo = 0, hi = u->count;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if ((uint64_t)u->runs[mid].first + u->runs[mid].count > number)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* Runs [at, at + old) become the count (0 to 2) of with. */
static void splice(struct packset_upload *u, unsigned at, unsigned old, const struct pack_run *with, unsigned count)
{
	if (u->count - old + count > u->cap) {
		u->cap = u->cap ? 2 * u->cap : 4;
		u->runs = realloc(u->runs, u->cap * sizeof(*u->runs));
		if (!u->runs)
			abort();
	}
	if (u->count > at + old)
		memmove(u->runs + at + count, u->runs + at + old, (u->count - at - old) * sizeof(*u->runs));
	for (unsigned i = 0; i < count; i++)
		u->runs[at + i] = with[i];
	u->count = u->count - old + count;
}

void packset_add(struct packset *s, const struct upload_id *id, uint32_t first, uint32_t count)
{
	uint64_t from = first, to = from + count;

	if (!count)
		return;
	struct packset_upload *u = find_or_add(s, id);
	/* what touches or overlaps becomes one */
	unsigned at = lower(u, from ? from - 1 : 0), end = at;
	while (end < u->count && u->runs[end].first <= to) {
		uint64_t run_end = (uint64_t)u->runs[end].first + u->runs[end].count;

		from = u->runs[end].first < from ? u->runs[end].first : from;
		to = run_end > to ? run_end : to;
		end++;
	}
	struct pack_run run = { (uint32_t)from, (uint32_t)(to - from) };
	splice(u, at, end - at, &run, 1);
}

void packset_remove(struct packset *s, const struct upload_id *id, uint32_t first, uint32_t count)
{
	struct packset_upload *u = find(s, id);
	uint64_t from = first, to = from + count;
	struct pack_run left[2];
	unsigned lefts = 0;

	if (!u || !count)
		return;
	unsigned at = lower(u, from), end = at;
	while (end < u->count && u->runs[end].first < to) {
		uint64_t run_from = u->runs[end].first, run_to = run_from + u->runs[end].count;

		if (run_from < from)
			left[lefts++] = (struct pack_run){ (uint32_t)run_from, (uint32_t)(from - run_from) };
		if (run_to > to)
			left[lefts++] = (struct pack_run){ (uint32_t)to, (uint32_t)(run_to - to) };
		end++;
	}
	splice(u, at, end - at, left, lefts);
}

void packset_add_all(struct packset *s, const struct packset *other)
{
	for (unsigned i = 0; i < other->count; i++) {
		const struct packset_upload *u = &other->uploads[i];

		for (unsigned j = 0; j < u->count; j++)
			packset_add(s, &u->id, u->runs[j].first, u->runs[j].count);
	}
}

void packset_subtract(struct packset *s, const struct packset *other)
{
	for (unsigned i = 0; i < other->count; i++) {
		const struct packset_upload *u = &other->uploads[i];

		for (unsigned j = 0; j < u->count; j++)
			packset_remove(s, &u->id, u->runs[j].first, u->runs[j].count);
	}
}

void packset_remove_snapshot(struct packset *s, const char *snapshot)
{
	for (unsigned i = 0; i < s->count; i++) {
		if (strcmp(s->uploads[i].id.snapshot, snapshot) == 0)
			s->uploads[i].count = 0;
	}
}

bool packset_has(const struct packset *s, const struct upload_id *id, uint32_t number)
{
	const struct packset_upload *u = find(s, id);

	if (!u)
		return false;
	unsigned at = lower(u, number);
	return at < u->count && u->runs[at].first <= number;
}

uint64_t packset_size(const struct packset *s)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < s->count; i++) {
		for (unsigned j = 0; j < s->uploads[i].count; j++)
			sum += s->uploads[i].runs[j].count;
	}
	return sum;
}
