/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BASE_METRICS_H
#define MALLEE_BASE_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/buf.h"

/*
 * Counters and gauges as a table: a service declares one static array of descriptions and one struct of
 * values indexed by it; metrics_print() writes Prometheus text (format 0.0.4). Adding is one relaxed atomic add.
 */
enum metric_kind { METRIC_COUNTER, METRIC_GAUGE };

struct metric_desc {
	const char *name; /* mallee_clc_requests_total */
	const char *help;
	enum metric_kind kind;
};

struct metrics; /* values for one description array */

struct metrics *metrics_new(const struct metric_desc *descs, size_t count); /* descs must outlive it */
void metrics_free(struct metrics *m);
void metrics_add(struct metrics *m, size_t index, int64_t n);
void metrics_set(struct metrics *m, size_t index, int64_t value);
int64_t metrics_get(const struct metrics *m, size_t index);
void metrics_print(const struct metrics *m, struct buf *out);

#endif
