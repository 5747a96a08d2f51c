/* SPDX-License-Identifier: Apache-2.0 */
#include "block/filter/disk_priv.h"

#include "base/macros.h"

#define NS_PER_S 1000000000ull
#define WAIT_MAX_NS (NS_PER_S / 2) /* the elevator turns back for who waits longer */

static uint64_t seek_to(struct disk_model *m, uint64_t off)
{
	uint64_t distance = off > m->head_bytes ? off - m->head_bytes : m->head_bytes - off;

	if (distance <= m->near_bytes || !m->seek_ns)
		return 0;
	m->seeks++;
	return m->seek_ns;
}

static uint64_t flush(struct disk_model *m)
{
	if (!m->dirty)
		return 0;
	m->dirty = false;
	m->flushes++;
	return m->flush_ns;
}

static uint64_t service_ns(struct disk_model *m, const struct blk_req *r)
{
	if (r->op == BLK_FLUSH)
		return flush(m);
	uint64_t ns = seek_to(m, r->off_bytes) + (uint64_t)((unsigned __int128)r->len_bytes * NS_PER_S / m->rate);
	m->head_bytes = r->off_bytes + r->len_bytes;
	m->bytes += r->len_bytes;
	if (r->op != BLK_READ)
		m->dirty = true;
	if (r->flags & BLK_FUA)
		ns += flush(m);
	return ns;
}

/* The nearest ahead of the head, or else the one that is furthest back; a flush has no place and goes at once. */
static struct blk_req *by_elevator(struct disk_model *m, uint64_t start)
{
	struct blk_req *ahead = NULL, *back = NULL;

	for (struct blk_req *r = m->waiting.first; r && r->scratch[0] <= start; r = r->next) {
		if (r->op == BLK_FLUSH || start - r->scratch[0] > WAIT_MAX_NS)
			return r;
		if (r->off_bytes >= m->head_bytes && (!ahead || r->off_bytes < ahead->off_bytes))
			ahead = r;
		if (!back || r->off_bytes < back->off_bytes)
			back = r;
	}
	return ahead ? ahead : back;
}

static void take_out(struct blk_list *l, const struct blk_req *wanted)
{
	struct blk_list rest = { 0 };
	struct blk_req *r;

	if (l->first == wanted) {
		blk_list_pop(l);
		return;
	}
	while ((r = blk_list_pop(l))) {
		if (r != wanted)
			blk_list_push(&rest, r);
	}
	*l = rest;
}

struct blk_req *disk_model_next(struct disk_model *m)
{
	struct blk_req *r = m->waiting.first;

	if (!r)
		return NULL;
	uint64_t start = MAX_OF(m->free_ns, r->scratch[0]);
	if (m->elevator)
		r = by_elevator(m, start);
	take_out(&m->waiting, r);
	uint64_t ns = service_ns(m, r);
	m->free_ns = start + ns;
	m->requests++;
	m->busy_ns += ns;
	m->weighted_ns += m->free_ns - MIN_OF(r->scratch[0], m->free_ns);
	r->scratch[1] = m->free_ns;
	return r;
}
