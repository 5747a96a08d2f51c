/* SPDX-License-Identifier: Apache-2.0 */
#include "block/core/stats.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/macros.h"
#include "base/text.h"
#include "block/core/stats_priv.h"

static unsigned bucket_of(uint64_t value)
{
	unsigned bucket = value ? 63 - (unsigned)__builtin_clzll(value) : 0;

	return MIN_OF(bucket, BLK_BUCKETS - 1u);
}

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* The time since the last event, with what was outstanding in it. */
static void pass_time(struct blk_io_stats *s, uint64_t now_ns)
{
	uint32_t outstanding = atomic_load_explicit(&s->outstanding, memory_order_relaxed);
	uint64_t last = get(&s->last_ns);

	if (outstanding && now_ns > last) {
		blk_count(&s->weighted_ns, (now_ns - last) * outstanding);
		blk_count(&s->busy_ns, now_ns - last);
	}
	atomic_store_explicit(&s->last_ns, now_ns, memory_order_relaxed);
}

/* Whether r goes on where a recent request ended. Of a stream among random requests each takes its place away for a while. */
static void note_place(struct blk_io_stats *s, const struct blk_req *r)
{
	uint64_t *end = s->places[r->op].end;
	unsigned i = 0;

	while (i < BLK_STREAMS && end[i] != r->off_bytes)
		i++;
	if (i < BLK_STREAMS)
		blk_count(&s->op[r->op].sequential, 1);
	else
		i = s->places[r->op].oldest++ % BLK_STREAMS;
	end[i] = r->off_bytes + r->len_bytes;
}

void blk_io_stats_arrive(struct blk_io_stats *s, const struct blk_req *r, uint64_t now_ns)
{
	uint32_t outstanding = atomic_load_explicit(&s->outstanding, memory_order_relaxed);

	pass_time(s, now_ns);
	blk_count(&s->depth_log2[bucket_of(outstanding + 1)], 1);
	if (r->op != BLK_FLUSH)
		blk_count(&s->bytes_log2[bucket_of(r->len_bytes)], 1);
	if (r->op <= BLK_WRITE)
		note_place(s, r);
	atomic_store_explicit(&s->outstanding, outstanding + 1, memory_order_relaxed);
}

void blk_io_stats_complete(struct blk_io_stats *s, const struct blk_req *r, uint64_t arrival_ns, uint64_t now_ns)
{
	uint32_t outstanding = atomic_load_explicit(&s->outstanding, memory_order_relaxed);
	uint64_t took_ns = now_ns > arrival_ns ? now_ns - arrival_ns : 0;
	struct blk_op_stats *op = &s->op[r->op];

	pass_time(s, now_ns);
	atomic_store_explicit(&s->outstanding, outstanding - 1, memory_order_relaxed);
	blk_count(&op->ops, 1);
	blk_count(&op->latency_ns, took_ns);
	if (r->result)
		blk_count(&op->errors, 1);
	else
		blk_count(&op->bytes, r->len_bytes);
	blk_count(&s->latency_us_log2[bucket_of(took_ns / 1000)], 1);
}

/* ---- sums over queues ---- */

void io_totals_add(struct io_totals *t, const struct blk_io_stats *s, uint64_t now_ns)
{
	uint32_t outstanding = atomic_load_explicit(&s->outstanding, memory_order_relaxed);
	uint64_t last = get(&s->last_ns), open_ns = outstanding && now_ns > last ? now_ns - last : 0;

	for (unsigned i = 0; i < BLK_OPS; i++) {
		t->op[i].ops += get(&s->op[i].ops);
		t->op[i].bytes += get(&s->op[i].bytes);
		t->op[i].errors += get(&s->op[i].errors);
		t->op[i].latency_ns += get(&s->op[i].latency_ns);
		t->op[i].sequential += get(&s->op[i].sequential);
	}
	for (unsigned i = 0; i < BLK_BUCKETS; i++) {
		t->latency_us_log2[i] += get(&s->latency_us_log2[i]);
		t->bytes_log2[i] += get(&s->bytes_log2[i]);
		t->depth_log2[i] += get(&s->depth_log2[i]);
	}
	t->weighted_ns += get(&s->weighted_ns) + open_ns * outstanding;
	t->busy_ns = MAX_OF(t->busy_ns, get(&s->busy_ns) + open_ns);
	t->outstanding += outstanding;
}

static const char *const op_names[BLK_OPS] = { "read", "write", "flush", "discard", "write_zeroes" };

static void print_histogram_json(const char *name, const uint64_t *bucket, struct buf *out)
{
	unsigned count = BLK_BUCKETS;

	while (count && !bucket[count - 1])
		count--;
	buf_printf(out, ",\"%s\":[", name);
	for (unsigned i = 0; i < count; i++)
		buf_printf(out, "%s%" PRIu64, i ? "," : "", bucket[i]);
	buf_putc(out, ']');
}

void io_totals_json(const struct io_totals *t, bool histograms, struct buf *out)
{
	buf_putc(out, '{');
	for (unsigned i = 0; i < BLK_OPS; i++)
		buf_printf(out,
			   "\"%s\":{\"ops\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"latency_ns\":%" PRIu64
			   ",\"sequential\":%" PRIu64 "},",
			   op_names[i], t->op[i].ops, t->op[i].bytes, t->op[i].errors, t->op[i].latency_ns, t->op[i].sequential);
	buf_printf(out, "\"outstanding\":%u,\"busy_ns\":%" PRIu64 ",\"weighted_ns\":%" PRIu64, t->outstanding, t->busy_ns,
		   t->weighted_ns);
	if (histograms) {
		print_histogram_json("latency_us_log2", t->latency_us_log2, out);
		print_histogram_json("bytes_log2", t->bytes_log2, out);
		print_histogram_json("depth_log2", t->depth_log2, out);
	}
	buf_putc(out, '}');
}

/* ---- Prometheus text (format 0.0.4): one family at a time, over all points ---- */

static void print_sample(struct buf *out, const char *family, const char *labels, const char *point, const char *more)
{
	buf_printf(out, "mallee_block_%s{%s%spoint=\"%s\"%s} ", family, labels, *labels ? "," : "", point, more);
}

static void print_per_op(const struct io_point *points, unsigned count, const char *labels, struct buf *out)
{
	static const struct {
		const char *name, *help;
		size_t offset;
		bool is_ns;
	} families[] = {
		{ "ops_total", "Requests completed.", offsetof(struct op_totals, ops), false },
		{ "bytes_total", "Bytes of requests that succeeded.", offsetof(struct op_totals, bytes), false },
		{ "errors_total", "Requests that failed.", offsetof(struct op_totals, errors), false },
		{ "wait_seconds_total", "Time that requests took, summed.", offsetof(struct op_totals, latency_ns), true },
		{ "sequential_total", "Requests that began where a recent one ended.", offsetof(struct op_totals, sequential), false },
	};

	for (unsigned f = 0; f < ARRAY_SIZE(families); f++) {
		buf_printf(out, "# HELP mallee_block_%s %s\n# TYPE mallee_block_%s counter\n", families[f].name, families[f].help,
			   families[f].name);
		for (unsigned p = 0; p < count; p++) {
			for (unsigned i = 0; i < BLK_OPS; i++) {
				uint64_t v = *(const uint64_t *)((const char *)&points[p].totals.op[i] + families[f].offset);
				char op[32];
				snprintf(op, sizeof(op), ",op=\"%s\"", op_names[i]);
				print_sample(out, families[f].name, labels, points[p].name, op);
				if (families[f].is_ns)
					buf_printf(out, "%.9f\n", (double)v / 1e9);
				else
					buf_printf(out, "%" PRIu64 "\n", v);
			}
		}
	}
}

static void print_histogram(const struct io_point *points, unsigned count, const char *labels, const char *family, const char *help,
			    size_t offset, double unit, struct buf *out)
{
	buf_printf(out, "# HELP mallee_block_%s %s\n# TYPE mallee_block_%s histogram\n", family, help, family);
	for (unsigned p = 0; p < count; p++) {
		const uint64_t *bucket = (const uint64_t *)((const char *)&points[p].totals + offset);
		char name[64], le[48];
		uint64_t sum = 0;
		snprintf(name, sizeof(name), "%s_bucket", family);
		for (unsigned i = 0; i < BLK_BUCKETS; i++) {
			sum += bucket[i];
			if (!bucket[i])
				continue;
			snprintf(le, sizeof(le), ",le=\"%.9g\"", (double)(UINT64_C(2) << i) * unit);
			print_sample(out, name, labels, points[p].name, le);
			buf_printf(out, "%" PRIu64 "\n", sum);
		}
		print_sample(out, name, labels, points[p].name, ",le=\"+Inf\"");
		buf_printf(out, "%" PRIu64 "\n", sum);
		snprintf(name, sizeof(name), "%s_count", family);
		print_sample(out, name, labels, points[p].name, "");
		buf_printf(out, "%" PRIu64 "\n", sum);
	}
}

static void print_time(const struct io_point *points, unsigned count, const char *labels, struct buf *out)
{
	buf_puts(out, "# HELP mallee_block_busy_seconds_total Time with at least one request outstanding (of the busiest queue).\n"
		      "# TYPE mallee_block_busy_seconds_total counter\n");
	for (unsigned p = 0; p < count; p++) {
		print_sample(out, "busy_seconds_total", labels, points[p].name, "");
		buf_printf(out, "%.9f\n", (double)points[p].totals.busy_ns / 1e9);
	}
	buf_puts(out, "# HELP mallee_block_queue_seconds_total Requests outstanding, summed over time: its rate is the queue's mean depth.\n"
		      "# TYPE mallee_block_queue_seconds_total counter\n");
	for (unsigned p = 0; p < count; p++) {
		print_sample(out, "queue_seconds_total", labels, points[p].name, "");
		buf_printf(out, "%.9f\n", (double)points[p].totals.weighted_ns / 1e9);
	}
	buf_puts(out, "# HELP mallee_block_outstanding Requests outstanding now.\n# TYPE mallee_block_outstanding gauge\n");
	for (unsigned p = 0; p < count; p++) {
		print_sample(out, "outstanding", labels, points[p].name, "");
		buf_printf(out, "%u\n", points[p].totals.outstanding);
	}
}

void io_points_prometheus(const struct io_point *points, unsigned count, const char *labels, struct buf *out)
{
	print_per_op(points, count, labels, out);
	print_time(points, count, labels, out);
	print_histogram(points, count, labels, "request_seconds", "How long requests took.",
			offsetof(struct io_totals, latency_us_log2), 1e-6, out);
	print_histogram(points, count, labels, "request_bytes", "How long requests were.", offsetof(struct io_totals, bytes_log2), 1,
			out);
	print_histogram(points, count, labels, "request_depth", "How many requests were outstanding with each, itself counted.",
			offsetof(struct io_totals, depth_log2), 1, out);
}

/* ---- layers' own counters ---- */

void blk_stats_emit(struct blk_stats_sink *sink, const char *layer, const char *name, bool monotonic, uint64_t value, const char *help)
{
	if (sink->json) {
		if (!str_eq(sink->layer, layer)) {
			buf_printf(sink->out, "%s\"%s\":{", sink->layer ? "}," : "", layer);
			sink->layer = layer;
			sink->in_layer = 0;
		}
		buf_printf(sink->out, "%s\"%s\":%" PRIu64, sink->in_layer++ ? "," : "", name, value);
		return;
	}
	const char *suffix = monotonic ? "_total" : "";
	buf_printf(sink->out, "# HELP mallee_block_%s_%s%s %s\n# TYPE mallee_block_%s_%s%s %s\nmallee_block_%s_%s%s", layer, name, suffix,
		   help, layer, name, suffix, monotonic ? "counter" : "gauge", layer, name, suffix);
	if (*sink->labels)
		buf_printf(sink->out, "{%s}", sink->labels);
	buf_printf(sink->out, " %" PRIu64 "\n", value);
}
