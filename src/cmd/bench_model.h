/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_BENCH_MODEL_H
#define MALLEE_CMD_BENCH_MODEL_H

#include <jansson.h>

/* `mallee bench model`: prints the study's tables beside what the model makes of the study's machines, and all that went in, as
 * markdown. argv from "model" on; returns the exit code. */
int cmd_bench_model(int argc, char **argv);

/* Fills in `model` of each row that measured a disk, in place: null where nothing can be said. `reference` in it says that the row told
 * a number of the model's. */
void explain_model(json_t *result);

#endif
