/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_TESTS_BLOCK_MODEL_H
#define MALLEE_TESTS_BLOCK_MODEL_H

#include "history.h"
#include "recorder.h"

/* What a guest has asked of a volume and was told. Shared by the processes of a test. */
#define SEEN_MAX 64u

struct model {
	struct history history; /* data: the stamp; of HISTORY_SEEN: which of `seen` */
	uint64_t sectors;
	uint64_t *known;        /* stamps before the first operation */
	uint64_t *seen;         /* SEEN_MAX times sectors: what verifications found */
	unsigned seen_count;
	_Atomic uint64_t stamps;
	bool torn_reads;        /* a sector that is read while it is written may come in parts */
	_Atomic uint64_t checked; /* sectors */
};

struct model *model_new(uint64_t sectors, uint64_t source_sectors, _Atomic uint64_t *clock);
void model_free(struct model *m);
bool model_is_full(const struct model *m);
/* Bytes that were read: die unless the view allows them. Returns what a sector after this may hold, into stamps when not NULL. */
void model_check(struct model *m, const struct history_view *v, uint64_t sector, uint64_t sectors, const uint8_t *bytes, uint64_t *stamps,
		 const char *what);
/* The stamps of the whole disk as model_check() gave them, after a kill: that is what is there from now on. */
void model_found(struct model *m, const uint64_t *stamps);
/* The same after a loss of power or a clean end: durable, with an empty history. */
void model_forget(struct model *m, const uint64_t *stamps);

#endif
