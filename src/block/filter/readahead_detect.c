/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>

#include "block/filter/readahead_priv.h"

/*
 * Runs of reads. A run sits in the slot of the region (1 MiB) in which its next read is expected, so that a read probes
 * one slot (two or three near a region's edge) whatever the number of runs. Queued sequential reads arrive slightly out of
 * order, so a read belongs to a run when it is within a few of its own lengths of the expected offset; what makes the run
 * sequential is then that its bytes cover the span that they were read from once: neither holes nor reading over and over.
 * A stranger in a slot takes it over when the run there has not been continued for as many strangers as it had reads.
 */
#define REGION_SHIFT 20
#define NEAR_READS 8u
#define NEAR_MAX (1u << 20)
#define KEEP_MAX 8u
#define RUN_BYTES 65536u /* less is not worth a stream, and small random reads of a hot region look like it too often */

static struct ra_run *slot(struct ra_run run[RA_DETECT], uint64_t off)
{
	uint64_t h = (off >> REGION_SHIFT) * 0x9e3779b97f4a7c15u;

	return &run[h >> 56 & (RA_DETECT - 1)];
}
static_assert(RA_DETECT == 256, "slot() takes eight bits");

static uint64_t nearness(uint64_t len)
{
	return MIN_OF(len * NEAR_READS, (uint64_t)NEAR_MAX);
}

static bool belongs(const struct ra_run *e, uint64_t off, uint64_t len)
{
	return e->reads && (off >= e->next ? off - e->next : e->next - off) <= nearness(len);
}

static struct ra_run *find(struct ra_run run[RA_DETECT], uint64_t off, uint64_t len)
{
	uint64_t n = nearness(len), below = off > n ? off - n : 0, above = off + n;
	struct ra_run *e = slot(run, off);

	if (belongs(e, off, len))
		return e;
	if (below >> REGION_SHIFT != off >> REGION_SHIFT && belongs(slot(run, below), off, len))
		return slot(run, below);
	if (above >> REGION_SHIFT != off >> REGION_SHIFT && belongs(slot(run, above), off, len))
		return slot(run, above);
	return NULL;
}

static bool dense(const struct ra_run *e)
{
	uint64_t span = e->next - e->start;

	return e->bytes <= span + span / 4 && e->bytes * 2 >= span;
}

static void put(struct ra_run run[RA_DETECT], const struct ra_run *e)
{
	struct ra_run *at = slot(run, e->next);

	if (at->reads && at->keep && e->reads <= at->reads) {
		at->keep--;
		return;
	}
	*at = *e;
}

bool ra_detect(struct ra_run run[RA_DETECT], uint64_t off_bytes, uint64_t len_bytes, uint32_t need, uint64_t *ret_bytes)
{
	struct ra_run *e = find(run, off_bytes, len_bytes), moved;

	if (!e) {
		moved = (struct ra_run){ .start = off_bytes, .next = off_bytes + len_bytes, .bytes = len_bytes, .reads = 1 };
		put(run, &moved);
		return false;
	}
	e->start = MIN_OF(e->start, off_bytes);
	e->next = MAX_OF(e->next, off_bytes + len_bytes);
	e->bytes += len_bytes;
	e->reads++;
	e->keep = MIN_OF(e->reads, KEEP_MAX);
	if (e->reads >= need && e->bytes >= RUN_BYTES && dense(e)) {
		*ret_bytes = e->bytes;
		e->reads = 0;
		return true;
	}
	if (e->reads >= 2 * need + NEAR_READS && !dense(e)) {
		/* it had its chance: begin anew here */
		e->start = off_bytes;
		e->bytes = len_bytes;
		e->next = off_bytes + len_bytes;
		e->reads = 1;
		e->keep = 0;
	}
	if (slot(run, e->next) != e) {
		moved = *e;
		e->reads = 0;
		put(run, &moved);
	}
	return false;
}
