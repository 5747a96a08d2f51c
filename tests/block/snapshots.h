/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_TESTS_BLOCK_SNAPSHOTS_H
#define MALLEE_TESTS_BLOCK_SNAPSHOTS_H

#include "harness.h"

/* Snapshots while guests go on: views hold what was there when they began and nothing else, and what is not in the map of
 * changes is as it was in the snapshot that the map counts from. For a case's meanwhile and finish. */
size_t snapshots_bytes(uint64_t sectors);
void snapshots_meanwhile(struct load *l, uint64_t *random);
void snapshots_finish(struct load *l);

#endif
