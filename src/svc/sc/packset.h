/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_PACKSET_H
#define MALLEE_SVC_SC_PACKSET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/id.h"

/* Whose packs: those of one attempt to upload one snapshot. Attempts are random, so that no pack is ever written twice. */
struct upload_id {
	char snapshot[ID_LEN];
	uint64_t attempt;
};
bool upload_id_eq(const struct upload_id *a, const struct upload_id *b);

/* A set of packs as runs of numbers by upload: a volume of terabytes is some runs. One thread at a time. */
struct pack_run {
	uint32_t first, count;
};
struct packset_upload {
	struct upload_id id;
	struct pack_run *runs; /* sorted, apart */
	unsigned count, cap;
};
struct packset {
	struct packset_upload *uploads;
	unsigned count, cap;
};
#define PACKSET_INIT ((struct packset){ 0 })

void packset_done(struct packset *s);
void packset_add(struct packset *s, const struct upload_id *id, uint32_t first, uint32_t count);
void packset_remove(struct packset *s, const struct upload_id *id, uint32_t first, uint32_t count);
void packset_add_all(struct packset *s, const struct packset *other);
void packset_subtract(struct packset *s, const struct packset *other);
/* Whatever attempts of this snapshot there are. */
void packset_remove_snapshot(struct packset *s, const char *snapshot);
bool packset_has(const struct packset *s, const struct upload_id *id, uint32_t number);
uint64_t packset_size(const struct packset *s);

#endif
