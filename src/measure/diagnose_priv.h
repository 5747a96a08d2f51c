/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_MEASURE_DIAGNOSE_PRIV_H
#define MALLEE_MEASURE_DIAGNOSE_PRIV_H

#include <stdbool.h>
#include <stddef.h>

#include "measure/diagnose.h"

/* A member of diagnose_input as it is read and shown. */
struct diagnose_figure {
	const char *name;  /* in results and in the struct */
	const char *label; /* before the value */
	const char *unit;  /* behind it */
	int decimals;
	size_t offset;
};

const struct diagnose_figure *diagnose_figure_find(size_t offset);

#endif
