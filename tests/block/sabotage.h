/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_TESTS_BLOCK_SABOTAGE_H
#define MALLEE_TESTS_BLOCK_SABOTAGE_H

#include "recorder.h"

/* how=no-flush, no-fua, lost-write, misplaced, hidden-cache */
extern const struct blk_layer_ops sabotage_ops;

#endif
