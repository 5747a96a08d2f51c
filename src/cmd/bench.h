/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_BENCH_H
#define MALLEE_CMD_BENCH_H

#include <jansson.h>

#include "base/error.h"

/* Fill in what measured rows do not say of themselves, in place: `held_back_by` and `model` of each. The result is checked first and stays as
 * it was when it is none; *e says which row and figure. The format is bench/paper/result.py's. */
int explain_result(json_t *result, struct error *e);

#endif
