/* SPDX-License-Identifier: Apache-2.0 */
#include "model.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define OPS_MAX (1u << 16)
#define NODES_MAX (1u << 22)

struct model *model_new(uint64_t sectors, uint64_t source_sectors, _Atomic uint64_t *clock)
{
	struct model *m = shared_memory(sizeof(*m));

	m->sectors = sectors;
	m->known = shared_memory(sectors * sizeof(*m->known));
	m->seen = shared_memory(SEEN_MAX * sectors * sizeof(*m->seen));
	m->stamps = STAMP_FIRST;
	for (uint64_t i = 0; i < sectors; i++)
		m->known[i] = i < source_sectors ? STAMP_SOURCE : STAMP_ZERO;
	history_init(&m->history, sectors, OPS_MAX, NODES_MAX, clock);
	return m;
}

void model_free(struct model *m)
{
	history_done(&m->history);
	munmap(m->known, m->sectors * sizeof(*m->known));
	munmap(m->seen, SEEN_MAX * m->sectors * sizeof(*m->seen));
	munmap(m, sizeof(*m));
}

bool model_is_full(const struct model *m)
{
	return history_is_full(&m->history) || m->seen_count == SEEN_MAX;
}

static uint64_t stamp_of(const struct model *m, uint32_t op, uint64_t sector)
{
	if (op == HISTORY_INITIAL)
		return m->known[sector];
	const struct history_op *o = &m->history.op[op];
	switch (o->kind) {
	case HISTORY_SEEN:
		return m->seen[o->data * m->sectors + sector];
	case HISTORY_ZEROES:
		return STAMP_ZERO;
	case HISTORY_DISCARD:
		return STAMP_ANY;
	default:
		return o->data;
	}
}

static void tell(const struct model *m, const struct history_view *v, uint64_t sector, uint64_t stamp, const char *what)
{
	static const char *const kinds[] = { "write", "zeroes", "discard", "flush", "seen" };
	uint32_t candidate[HISTORY_CANDIDATES_MAX];
	unsigned count = history_candidates(&m->history, sector, v, candidate);
	uint64_t others = 0;

	flockfile(stderr);
	fprintf(stderr, "sector %llu holds stamp %lld (-1: torn, or of elsewhere); view %d at %llu, read began %llu, flushed before %llu\n",
		(unsigned long long)sector, (long long)stamp, v->mode, (unsigned long long)v->at, (unsigned long long)v->read_start,
		(unsigned long long)v->flushed_before);
	for (uint64_t i = 0; i < m->sectors && stamp > STAMP_FIRST && stamp < STAMP_ANY; i++)
		others += stamp_of(m, HISTORY_INITIAL, i) == stamp;
	fprintf(stderr, "  known before: %lld; sectors that had the stamp found: %llu\n", (long long)m->known[sector], (unsigned long long)others);
	for (uint32_t n = m->history.head[sector]; n; n = m->history.node[n - 1].next) {
		uint32_t op = m->history.node[n - 1].op;
		const struct history_op *o = &m->history.op[op];
		bool may = false;
		for (unsigned i = 0; i < count; i++)
			may |= candidate[i] == op;
		fprintf(stderr, "  %s %s%s of %llu+%llu, stamp %lld, %llu to %llu%s\n", may ? "may be:" : "gone:  ", kinds[o->kind],
			o->fua ? " FUA" : "", (unsigned long long)o->sector, (unsigned long long)o->sectors, (long long)stamp_of(m, op, sector),
			(unsigned long long)o->submitted, (unsigned long long)o->completed, o->maybe ? " cut off or failed" : "");
	}
	funlockfile(stderr);
	die("%s: a sector holds what it must not", what);
}

void model_check(struct model *m, const struct history_view *v, uint64_t sector, uint64_t sectors, const uint8_t *bytes, uint64_t *stamps,
		 const char *what)
{
	uint32_t candidate[HISTORY_CANDIDATES_MAX];

	for (uint64_t s = 0; s < sectors; s++) {
		uint64_t stamp = stamp_read(bytes + s * SECTOR, sector + s);
		unsigned count = history_candidates(&m->history, sector + s, v, candidate);
		bool any = false, right = false;
		for (unsigned i = 0; i < count; i++) {
			uint64_t may = stamp_of(m, candidate[i], sector + s);
			any |= may == STAMP_ANY;
			right |= may == stamp;
		}
		if (stamp == STAMP_BAD && m->torn_reads && v->mode == VIEW_READ && count > 1)
			any = true;
		if (!any && !right)
			tell(m, v, sector + s, stamp, what);
		if (stamps)
			stamps[s] = any ? STAMP_ANY : stamp;
	}
	m->checked += sectors;
}

void model_found(struct model *m, const uint64_t *stamps)
{
	uint32_t op;

	memcpy(m->seen + m->seen_count * m->sectors, stamps, m->sectors * sizeof(*stamps));
	op = history_begin(&m->history, HISTORY_SEEN, false, 0, m->sectors, m->seen_count++);
	history_end(&m->history, op, 0);
}

void model_forget(struct model *m, const uint64_t *stamps)
{
	memcpy(m->known, stamps, m->sectors * sizeof(*stamps));
	history_clear(&m->history);
	m->seen_count = 0;
}
