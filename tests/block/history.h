/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_TESTS_BLOCK_HISTORY_H
#define MALLEE_TESTS_BLOCK_HISTORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What was asked of a disk, and when: a list of operations a sector, in memory that outlives the process. Any thread and any
 * process that shares the mapping may add; nothing is locked, so that one that is killed leaves nothing half done: an operation
 * is in its sectors' lists before the disk hears of it, and without a time of completion until its end was told.
 *
 * Two operations on a sector are in order only when one was complete before the other was submitted. A sector may hold what an
 * operation put there unless another that came after it, in that sense, is known to be there. What "known" means is the view:
 *   READ   complete before the read was submitted
 *   KILL   complete: what a dead process leaves
 *   POWER  complete with FUA, or before the submission of a flush that is complete: what a loss of power leaves
 */
#define SECTOR 512u
#define HISTORY_INITIAL UINT32_MAX   /* what was there before the first operation */
#define HISTORY_CANDIDATES_MAX 512u

enum history_kind { HISTORY_WRITE, HISTORY_ZEROES, HISTORY_DISCARD, HISTORY_FLUSH, HISTORY_SEEN /* what was found; not durable by that */ };

struct history_op {
	_Atomic uint64_t submitted, completed; /* the clock's; completed 0: not yet */
	_Atomic bool maybe;                    /* failed, or cut off: may be there or not, and makes nothing else go */
	bool fua;
	enum history_kind kind;
	uint64_t sector, sectors;
	uint64_t data;                         /* the user's */
	/* Of a disk's own record (ordered): the first `split` sectors took effect at effect[0], those below `split_end` at
	 * effect[1], others not yet, or, when it has ended, never. */
	uint64_t split, split_end;
	_Atomic uint64_t effect[2];
};

struct history_node {
	uint32_t op, next; /* next: index + 1 */
};

struct history {
	_Atomic uint64_t *clock;
	uint64_t sectors;
	bool ordered; /* the disk knows in which order it did what came at the same time */
	uint32_t ops_max, nodes_max;
	_Atomic uint32_t ops, nodes;
	struct history_op *op;
	struct history_node *node;
	_Atomic uint32_t *head; /* per sector: index + 1 */
};

enum history_mode { VIEW_READ, VIEW_KILL, VIEW_POWER };
struct history_view {
	enum history_mode mode;
	uint64_t at;             /* nothing that happened later counts */
	uint64_t read_start;     /* READ */
	uint64_t flushed_before; /* POWER: history_flushed_before() */
	bool write_through;      /* POWER: a disk without a cache: what is complete is durable */
};

void *shared_memory(size_t bytes); /* zeroes; taken as it is touched */
void history_init(struct history *h, uint64_t sectors, uint32_t ops_max, uint32_t nodes_max, _Atomic uint64_t *clock);
void history_clear(struct history *h);
void history_done(struct history *h);
bool history_is_full(const struct history *h); /* three quarters: time to end */
uint64_t history_tick(struct history *h);

uint32_t history_begin(struct history *h, enum history_kind kind, bool fua, uint64_t sector, uint64_t sectors, uint64_t data);
void history_end(struct history *h, uint32_t op, int result);
void history_cut_off(struct history *h); /* nothing runs: what has not ended never will */

struct history_view history_view(const struct history *h, enum history_mode mode, uint64_t at);
bool history_is_known(const struct history *h, uint32_t op, const struct history_view *v);
/* Of an ordered history: its place in the order of what is done to a sector. UINT64_MAX: it may still come; 0: it will not. */
uint64_t history_order(const struct history *h, uint32_t op, uint64_t sector, uint64_t at);
/* What the sector may hold: indexes of operations, lowest last, HISTORY_INITIAL among them. Their number, at least 1. */
unsigned history_candidates(const struct history *h, uint64_t sector, const struct history_view *v, uint32_t out[HISTORY_CANDIDATES_MAX]);

/* ---- for all of these tests ---- */
uint64_t random_next(uint64_t *state);
static inline uint64_t random_below(uint64_t *state, uint64_t n)
{
	return n ? random_next(state) % n : 0;
}
void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn)); /* the process, with what was wrong */

#endif
