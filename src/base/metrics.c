/* SPDX-License-Identifier: Apache-2.0 */
#include "base/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct metrics {
	const struct metric_desc *descs;
	size_t count;
	_Atomic int64_t values[];
};

struct metrics *metrics_new(const struct metric_desc *descs, size_t count)
{
	struct metrics *m = calloc(1, sizeof(*m) + count * sizeof(m->values[0]));

	if (!m)
		abort();
	m->descs = descs;
	m->count = count;
	return m;
}

void metrics_free(struct metrics *m)
{
	free(m);
}

void metrics_add(struct metrics *m, size_t index, int64_t n)
{
	assert(index < m->count);
	atomic_fetch_add_explicit(&m->values[index], n, memory_order_relaxed);
}

void metrics_set(struct metrics *m, size_t index, int64_t value)
{
	assert(index < m->count);
	atomic_store_explicit(&m->values[index], value, memory_order_relaxed);
}

int64_t metrics_get(const struct metrics *m, size_t index)
{
	assert(index < m->count);
	return atomic_load_explicit(&m->values[index], memory_order_relaxed);
}

/* Length of the name without its labels. */
static size_t family_len(const char *name)
{
	return strcspn(name, "{");
}

void metrics_print(const struct metrics *m, struct buf *out)
{
	for (size_t i = 0; i < m->count; i++) {
		const struct metric_desc *d = &m->descs[i];
		size_t len = family_len(d->name);

		/* Series of one family stand together in the table and share one head. */
		if (i == 0 || family_len(d[-1].name) != len ||
		    strncmp(d[-1].name, d->name, len) != 0) {
			buf_printf(out, "# HELP %.*s %s\n", (int)len, d->name, d->help);
			buf_printf(out, "# TYPE %.*s %s\n", (int)len, d->name,
				   d->kind == METRIC_COUNTER ? "counter" : "gauge");
		}
		buf_printf(out, "%s %" PRId64 "\n", d->name, metrics_get(m, i));
	}
}
