/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_TESTS_BLOCK_CASES_H
#define MALLEE_TESTS_BLOCK_CASES_H

#include "harness.h"

extern const struct blk_layer_ops *const case_drivers[]; /* all filters, `recorder`, `pattern` */

#endif
