/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_CORE_STATS_H
#define MALLEE_BLOCK_CORE_STATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/buf.h"
#include "block/core/request.h"

/*
 * What iostat's columns are made of, kept per queue by its thread and read by any (relaxed stores, no locked instruction).
 * The clock is the queue's batch clock, so that a request costs two additions and no clock read.
 *   avgrq-sz = sectors / ops; avgqu-sz = weighted_ns / elapsed; %util = busy_ns / elapsed; await = latency_ns / ops.
 */
#define BLK_BUCKETS 40 /* bucket i: values in [2^i, 2^(i+1)) */
#define BLK_STREAMS 4  /* sequential readers or writers at once that are told apart */

struct blk_op_stats {
	_Atomic uint64_t ops, bytes, errors, latency_ns;
	_Atomic uint64_t sequential; /* READ, WRITE: of ops, those that began where a recent one ended; counted as they arrive */
};

struct blk_io_stats {
	struct blk_op_stats op[BLK_OPS];
	_Atomic uint64_t weighted_ns;  /* sum over time of requests outstanding */
	_Atomic uint64_t busy_ns;      /* time with at least one outstanding */
	_Atomic uint64_t last_ns;      /* of the last arrival or completion */
	_Atomic uint32_t outstanding;
	_Atomic uint64_t latency_us_log2[BLK_BUCKETS];
	_Atomic uint64_t bytes_log2[BLK_BUCKETS];
	_Atomic uint64_t depth_log2[BLK_BUCKETS]; /* found by an arrival */
	struct { /* its thread's alone: where recent requests ended */
		uint64_t end[BLK_STREAMS];
		unsigned oldest;
	} places[BLK_WRITE + 1];
};

void blk_io_stats_arrive(struct blk_io_stats *s, const struct blk_req *r, uint64_t now_ns);
void blk_io_stats_complete(struct blk_io_stats *s, const struct blk_req *r, uint64_t arrival_ns, uint64_t now_ns);

static inline void blk_count(_Atomic uint64_t *counter, uint64_t n)
{
	/* one writer: a plain add that readers never see torn */
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

/* Where a layer's own counters go: into JSON or Prometheus text. */
struct blk_stats_sink;
/* name in snake_case without a prefix (`readahead` + `hits`); monotonic: a counter, else a gauge. help: one line. */
void blk_stats_emit(struct blk_stats_sink *sink, const char *layer, const char *name, bool monotonic, uint64_t value, const char *help);

#endif
