/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_CORE_STATS_PRIV_H
#define MALLEE_BLOCK_CORE_STATS_PRIV_H

#include "block/core/stats.h"

/* blk_io_stats summed over queues; fields of the same names. */
struct op_totals {
	uint64_t ops, bytes, errors, latency_ns, sequential;
};
struct io_totals {
	struct op_totals op[BLK_OPS];
	uint64_t weighted_ns;
	uint64_t busy_ns; /* of the busiest queue: the least that the whole was busy */
	uint32_t outstanding;
	uint64_t latency_us_log2[BLK_BUCKETS], bytes_log2[BLK_BUCKETS], depth_log2[BLK_BUCKETS];
};
/* Where requests are counted: "guest" (the stack's top), "disk" (its back end). */
struct io_point {
	const char *name;
	struct io_totals totals;
};

void io_totals_add(struct io_totals *t, const struct blk_io_stats *s, uint64_t now_ns);
void io_totals_json(const struct io_totals *t, bool histograms, struct buf *out);
void io_points_prometheus(const struct io_point *points, unsigned count, const char *labels, struct buf *out);

struct blk_stats_sink {
	struct buf *out;
	bool json;
	const char *labels;  /* Prometheus */
	const char *layer;   /* JSON: whose object is open */
	unsigned in_layer;
};

#endif
