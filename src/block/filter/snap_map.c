/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changed since the base, which is the last snapshot that was completed: a bit a chunk, in a map (cow_bits.c says how it is kept).
 *
 * A write may become durable by itself as soon as it is submitted, so its chunk's durable bit must come before that. To write
 * the map for each would cost too much: chunks are announced by the region. A region is announced by making all its durable
 * bits set; the live ones stay exact, and are set before the write is submitted. So:
 *   live bit set                  -> the write may go
 *   region announced (have)       -> set the live bit, then the write may go
 *   else                          -> want, sync, have: one write of the map for all who wait, and for what lies ahead of a stream
 * A process that dies leaves the live bits, which are exact. After a loss of power the durable ones count, so that what was
 * announced counts as changed. A clean stop makes the durable ones exact.
 *
 * The base changes by making the new map in the other of two files, whose header then gets the higher sequence number: a death
 * before that leaves the old base with all its changes. A sequence of 0 is a map that is being made.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/macros.h"
#include "block/filter/snap_priv.h"

#define AHEAD 4u /* regions announced with one that follows an announced one */
#define REGIONS_PER_PAGE (BITS_PER_PAGE / SNAP_REGION)
#define REGION_BYTES (SNAP_REGION / 8)

_Static_assert(BITS_PER_PAGE % SNAP_REGION == 0, "a region is in one page");

static bool test(_Atomic uint64_t *set, uint64_t i)
{
	return atomic_load_explicit(&set[i / 64], memory_order_acquire) >> (i % 64) & 1;
}

static void add(_Atomic uint64_t *set, uint64_t i)
{
	atomic_fetch_or(&set[i / 64], UINT64_C(1) << (i % 64));
}

/* Into a page that is being written: the regions announced. */
static void announce(void *ctx, uint64_t page, uint8_t *payload)
{
	struct snap_map *m = ctx;

	for (unsigned i = 0; i < REGIONS_PER_PAGE; i++) {
		if (test(m->want, page * REGIONS_PER_PAGE + i))
			memset(payload + i * REGION_BYTES, 0xff, REGION_BYTES);
	}
}

const char *snap_map_base(const struct snap *s)
{
	return s->map.bank[0] ? snap_map_bits(s)->header.label : "";
}

bool snap_map_announced(const struct snap *s, uint64_t first, uint64_t last)
{
	for (uint64_t i = first / SNAP_REGION; i <= last / SNAP_REGION; i++) {
		if (!test(s->map.have, i))
			return false;
	}
	return true;
}

void snap_map_want(struct snap *s, uint64_t first, uint64_t last, uint64_t ret_regions[2])
{
	struct snap_map *m = &s->map;
	uint64_t from = first / SNAP_REGION, to = last / SNAP_REGION, end = (s->chunks - 1) / SNAP_REGION;

	if (from && test(m->have, from - 1))
		to = MIN_OF(to + AHEAD, end);
	for (uint64_t i = from; i <= to; i++)
		add(m->want, i);
	for (uint64_t page = from / REGIONS_PER_PAGE; page <= to / REGIONS_PER_PAGE; page++)
		bits_page_dirty(snap_map_bits(s), page);
	ret_regions[0] = from;
	ret_regions[1] = to;
}

void snap_map_have(struct snap *s, const uint64_t regions[2])
{
	for (uint64_t i = regions[0]; i <= regions[1]; i++)
		add(s->map.have, i);
}

/* ---- opening ---- */

static int open_bank(struct snap *s, unsigned which, const char *path, struct error *e)
{
	char name[4096];
	struct bits_settings settings = {
		.path = name,
		.kind = "changes",
		.unit_bytes = s->chunk_bytes,
		.count = s->chunks,
		.damaged_is_set = true,
	};
	struct bits **bank = &s->map.bank[which];

	int n = snprintf(name, sizeof(name), "%s%s", path, which ? ".2" : "");
	if (n < 0 || (size_t)n >= sizeof(name))
		return error_set(e, "InvalidOption", "map: the path is too long");
	int err = bits_open(&settings, bank, e);
	if (err)
		return err;
	(*bank)->lazy = true;
	err = bits_syncer_new(*bank, NULL);
	return err ? error_errno(e, err, "opening %s", name) : 0;
}

static void activate(struct snap *s, unsigned which)
{
	struct snap_map *m = &s->map;

	m->bank[!which]->adjust = NULL;
	m->bank[which]->adjust = announce;
	m->bank[which]->adjust_ctx = m;
	m->active = which;
	m->tracking = m->bank[which]->header.label[0] != '\0';
}

/* The volume is longer than the map was: what is new has changed. */
static int add_new_chunks(struct snap *s, uint64_t from, uint64_t to)
{
	struct bits *b = snap_map_bits(s);

	if (from == to)
		return 0;
	bits_set(b, from, to - from);
	for (uint64_t page = from / BITS_PER_PAGE; page <= (to - 1) / BITS_PER_PAGE; page++)
		bits_page_dirty(b, page);
	return bits_sync_now(b);
}

int snap_map_open(struct snap *s, const char *path, struct error *e)
{
	struct snap_map *m = &s->map;

	/* A region more than whole pages hold is never asked for. */
	m->region_bytes = (UINT64_C(1) << 30) / BITS_PAGE / 3 * REGIONS_PER_PAGE / 8 + 64;
	int err = open_bank(s, 0, path, e);
	if (!err)
		err = open_bank(s, 1, path, e);
	if (err)
		return err;
	char *regions = mmap(NULL, 2 * m->region_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (regions == MAP_FAILED)
		return error_errno(e, ENOMEM, "opening snap");
	m->want = (void *)regions;
	m->have = (void *)(regions + m->region_bytes);
	activate(s, m->bank[1]->header.sequence > m->bank[0]->header.sequence);
	struct bits *b = snap_map_bits(s);
	err = b->grown_from < b->count ? add_new_chunks(s, b->grown_from, b->count) : 0;
	if (!err && !b->header.sequence) {
		b->header.sequence = 1;
		err = bits_header_write(b);
	}
	return err ? error_errno(e, err, "writing %s", path) : 0;
}

void snap_map_close(struct snap *s)
{
	struct snap_map *m = &s->map;
	uint64_t regions = s->chunks / SNAP_REGION + 1;

	if (m->want) {
		struct bits *b = snap_map_bits(s);
		b->adjust = NULL;
		for (uint64_t i = 0; i < regions; i++) {
			if (test(m->want, i))
				bits_page_dirty(b, i / REGIONS_PER_PAGE);
		}
		bits_sync_now(b); /* should it fail, more counts as changed */
		munmap((void *)m->want, 2 * m->region_bytes);
	}
	bits_close(m->bank[0]);
	bits_close(m->bank[1]);
}

int snap_map_grow(struct snap *s, uint64_t chunks, struct error *e)
{
	struct snap_map *m = &s->map;
	uint64_t before = s->chunks;

	if (!m->bank[0] || chunks == before)
		return 0;
	int err = bits_grow(m->bank[0], chunks, e);
	if (!err)
		err = bits_grow(m->bank[1], chunks, e);
	if (err)
		return err;
	err = add_new_chunks(s, before, chunks);
	return err ? error_errno(e, err, "writing the map of changes") : 0;
}

/* ---- a new base ---- */

static void add_all(struct bits *b, const struct snap_set *since)
{
	for (uint64_t i = 0; i < since->count && i < b->count;) {
		bool set;
		uint64_t n = snap_set_run(since, i, MIN_OF(since->count, b->count), &set);
		if (set)
			bits_set(b, i, n);
		i += n;
	}
}

int snap_map_commit(struct snap *s, const char *name, const struct snap_set *since, struct error *e)
{
	struct snap_map *m = &s->map;
	unsigned other = !m->active;
	struct bits *b = m->bank[other];

	if (!m->bank[0])
		return error_set(e, "InvalidCommand", "there is no map of changes: snap was not given map=");
	b->header.sequence = 0;
	b->header.label[0] = '\0';
	int err = bits_header_write(b);
	if (!err) {
		bits_clear_all(b);
		add_all(b, since);
		err = bits_sync_now(b);
	}
	if (!err) {
		b->header.sequence = snap_map_bits(s)->header.sequence + 1;
		snprintf(b->header.label, sizeof(b->header.label), "%s", name);
		err = bits_header_write(b);
	}
	if (err) {
		/* The old one goes on; what may be on the disk of the new one is never to count. */
		b->header.sequence = 0;
		b->header.label[0] = '\0';
		if (bits_header_write(b)) {
			snap_map_bits(s)->header.sequence += 2;
			bits_header_write(snap_map_bits(s));
		}
		return error_errno(e, err, "writing the map of changes since %s", name);
	}
	madvise((void *)m->want, 2 * m->region_bytes, MADV_DONTNEED);
	/* Who reports holds it: a map is never made anew while it is looked at. */
	pthread_mutex_lock(&s->lock);
	activate(s, other);
	pthread_mutex_unlock(&s->lock);
	return 0;
}
