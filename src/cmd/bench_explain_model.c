/* SPDX-License-Identifier: Apache-2.0 */
/* What the model expects of each measured row, from the result's JSON and back into it. */
#include <math.h>
#include <stdlib.h>

#include "base/macros.h"
#include "base/text.h"
#include "cmd/bench_model.h"
#include "measure/model_bench.h"

/* Of the disk that mallee-blockd plays: block/filter/disk.c, barracuda-7200.11. */
#define PLAYED_FLUSH_US 8000.0
#define PLAYED_SEEK_US 8000.0

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* 0 where it is unknown. */
static double number_of(const json_t *object, const char *key)
{
	double n = json_number_value(json_object_get(object, key));

	return isfinite(n) && n > 0 ? n : 0;
}

static const json_t *row_of(const json_t *result, const char *configuration, const char *workload)
{
	size_t i;
	json_t *row;

	json_array_foreach(json_object_get(result, "rows"), i, row) {
		if (str_eq(text_of(row, "configuration"), configuration) && str_eq(text_of(row, "workload"), workload) &&
		    number_of(row, "mb_s") > 0)
			return row;
	}
	return NULL;
}

/* What a row has in its path, or else the result's settings. */
static double disk_mb_s(const json_t *result, const json_t *row)
{
	double rate = number_of(json_object_get(row, "path"), "disk_mb_s");

	return rate > 0 ? rate : number_of(json_object_get(result, "settings"), "rate_mb_s");
}

static double latency_us(const json_t *result, const json_t *row)
{
	const char *reference = model_bench_reference(text_of(row, "workload"));
	const json_t *from = reference ? row_of(result, text_of(row, "configuration"), reference) : NULL;

	if (!from)
		return 0;
	return model_bench_latency_us(number_of(json_object_get(from, "path"), "request_bytes"), number_of(from, "mb_s"),
				      disk_mb_s(result, from), number_of(from, "util_percent"));
}

/* What the host's own random requests kept the disk busy for, each. */
static double random_us(const json_t *result, const json_t *row)
{
	const json_t *host = row_of(result, "none", text_of(row, "workload"));
	double iops = number_of(host, "iops");

	return iops > 0 ? number_of(host, "util_percent") / 100 * 1e6 / iops : 0;
}

static bool is_played(const json_t *result)
{
	const char *disk = text_of(json_object_get(result, "settings"), "disk");

	return disk && str_prefix(disk, "model");
}

static struct model_bench_row bench_row(const json_t *result, const json_t *row)
{
	const json_t *path = json_object_get(row, "path");
	const json_t *host_write = row_of(result, "none", "dd-write"), *host_read = row_of(result, "none", "dd-read");
	double bytes_s = number_of(row, "mb_s") * 1e6;

	return (struct model_bench_row){
		.configuration = text_of(row, "configuration"),
		.workload = text_of(row, "workload"),
		.depth = number_of(path, "depth"),
		.request_bytes = number_of(path, "request_bytes"),
		.host_cache = json_is_true(json_object_get(path, "host_cache")),
		.cache_write_sectors = number_of(host_write, "avgrq_sectors"),
		.cache_write_depth = number_of(host_write, "avgqu"),
		.cache_read_sectors = number_of(host_read, "avgrq_sectors"),
		.cache_read_depth = number_of(host_read, "avgqu"),
		.disk_mb_s = disk_mb_s(result, row),
		.flush_us = is_played(result) ? PLAYED_FLUSH_US : 0,
		.seek_us = is_played(result) ? PLAYED_SEEK_US : 0,
		.flushes_per_byte = number_of(path, "flushes_s") / bytes_s,
		.metadata_per_byte = number_of(path, "metadata_writes_s") / bytes_s,
		.latency_us = latency_us(result, row),
		.random_us = random_us(result, row),
		.cpu_us_per_byte = number_of(path, "guest_cpu_percent") / 100 * 1e6 / bytes_s,
		.mtu = number_of(path, "mtu"),
		.wire_mb_s = number_of(path, "wire_mb_s"),
		.limit_mb_s = number_of(path, "limit_mb_s"),
		.limit_iops = number_of(path, "limit_iops"),
	};
}

/* A row that a number of the model's was taken from agrees by itself, in part at least. */
static bool is_reference(const json_t *row)
{
	const char *workload = text_of(row, "workload"), *reference = model_bench_reference(workload);

	return str_eq(workload, reference) ||
	       (str_eq(text_of(row, "configuration"), "none") && (str_prefix(workload, "rand-") || str_prefix(workload, "dd-")));
}

static void set(json_t *object, const char *key, double value, double step)
{
	double rounded = round(value / step) * step;

	if (json_object_set_new(object, key, isfinite(rounded) ? json_real(rounded) : json_null()) < 0)
		abort();
}

static json_t *model_of(const json_t *result, const json_t *row)
{
	struct model_disk disk;
	struct model_path path;

	if (!text_of(row, "configuration") || !text_of(row, "workload") || number_of(row, "mb_s") <= 0)
		return json_null();
	struct model_bench_row bench = bench_row(result, row);
	if (model_bench_path(&bench, &disk, &path) < 0)
		return json_null();
	struct model_figures f = model_predict(&disk, &path);
	json_t *model = json_object();
	set(model, "mb_s", f.mb_s, 0.01);
	if (str_prefix(bench.workload, "rand-"))
		set(model, "iops", f.requests_s, 0.1);
	set(model, "avgrq_sectors", f.avgrq_sectors, 1);
	set(model, "avgqu", f.avgqu, 0.01);
	set(model, "util_percent", f.util_percent, 0.1);
	if (json_object_set_new(model, "full_first", json_string(model_bound_name(f.bound))) < 0 ||
	    json_object_set_new(model, "reference", json_boolean(is_reference(row))) < 0)
		abort();
	return model;
}

void explain_model(json_t *result)
{
	size_t i;
	json_t *row;

	json_array_foreach(json_object_get(result, "rows"), i, row) {
		if (json_object_set_new(row, "model", model_of(result, row)) < 0)
			abort();
	}
}
