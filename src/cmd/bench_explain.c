/* SPDX-License-Identifier: Apache-2.0 */
/* What a measured row's figures mean: from the result's JSON into the rules of src/measure, and their findings back. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/text.h"
#include "cmd/bench.h"
#include "cmd/bench_model.h"
#include "measure/diagnose.h"

#define RESULT_VERSION 1
#define SPREAD_OF_ONE_RUN 0.3
#define ABOUT_BEST 0.9 /* of the disk's best rate */

/* ---- what a result is ---- */

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* NaN where it is absent or null. A yes or no is 1 or 0. */
static double number_of(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	if (json_is_boolean(value))
		return json_is_true(value) ? 1 : 0;
	return json_is_number(value) ? json_number_value(value) : NAN;
}

static bool is_figure(const json_t *value)
{
	return !value || json_is_null(value) || json_is_number(value);
}

static const char *const row_figures[] = { "mb_s", "mbit_s", "iops", "transactions_s", "ratio", "spread_percent", "avgrq_sectors", "avgqu", "util_percent" };

/* Figures of `path` that are counted over a run; all others are named as the rules name them. */
static const struct {
	const char *count, *rate;
} path_counts[] = {
	{ "flushes", "flushes_s" },
	{ "metadata_writes", "metadata_writes_s" },
};

static const char *rate_of_count(const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(path_counts); i++) {
		if (str_eq(path_counts[i].count, key))
			return path_counts[i].rate;
	}
	return NULL;
}

static bool is_path_figure(const char *key)
{
	struct diagnose_input in;

	return diagnose_input_at(&in, key) || rate_of_count(key);
}

static int check_path(const json_t *path, const char *where, struct error *e)
{
	const char *key;
	json_t *value;

	if (!path || json_is_null(path))
		return 0;
	if (!json_is_object(path))
		return error_set(e, "BadRow", "%s: path is no object", where);
	json_object_foreach((json_t *)path, key, value) {
		if (is_path_figure(key) && !is_figure(value) && !json_is_boolean(value))
			return error_set(e, "BadRow", "%s: path.%s is neither a number nor true or false", where, key);
	}
	return 0;
}

static int check_runs(const json_t *runs, const char *where, struct error *e)
{
	size_t i;
	json_t *run;

	if (!runs || json_is_null(runs))
		return 0;
	if (!json_is_array(runs))
		return error_set(e, "BadRow", "%s: runs is no list", where);
	json_array_foreach(runs, i, run) {
		if (!json_is_object(run) || !is_figure(json_object_get(run, "seconds")))
			return error_set(e, "BadRow", "%s: run %zu is no object, or its seconds no number", where, i + 1);
	}
	return 0;
}

static int check_row(const json_t *row, size_t number, struct error *e)
{
	const char *configuration = text_of(row, "configuration"), *workload = text_of(row, "workload");
	const json_t *why_empty = json_object_get(row, "why_empty");
	char where[160];

	if (!json_is_object(row))
		return error_set(e, "BadRow", "Row %zu is no object", number);
	if (!configuration || !workload)
		return error_set(e, "BadRow", "Row %zu: %s is missing or no text", number, configuration ? "workload" : "configuration");
	snprintf(where, sizeof(where), "Row %zu (%.60s, %.40s)", number, configuration, workload);
	if (why_empty && !json_is_null(why_empty) && !json_is_string(why_empty))
		return error_set(e, "BadRow", "%s: why_empty is no text", where);
	for (size_t i = 0; i < ARRAY_SIZE(row_figures); i++) {
		if (!is_figure(json_object_get(row, row_figures[i])))
			return error_set(e, "BadRow", "%s: %s is no number", where, row_figures[i]);
	}
	if (check_path(json_object_get(row, "path"), where, e) < 0)
		return -EREMOTEIO;
	return check_runs(json_object_get(row, "runs"), where, e);
}

static bool known_kind(const char *kind)
{
	return str_eq(kind, "disk") || str_eq(kind, "net") || str_eq(kind, "paper");
}

static int check_result(const json_t *result, struct error *e)
{
	const json_t *version = json_object_get(result, "version"), *rows = json_object_get(result, "rows");
	size_t i;
	json_t *row;

	if (!json_is_object(result))
		return error_set(e, "BadResult", "Standard input is no result of mallee bench: no object");
	if (!json_is_integer(version) || json_integer_value(version) != RESULT_VERSION)
		return error_set(e, "BadResult", "Standard input is no result of mallee bench in version %d", RESULT_VERSION);
	if (!known_kind(text_of(result, "kind")))
		return error_set(e, "BadResult", "The result's kind is none of: disk, net, paper");
	if (!json_is_array(rows))
		return error_set(e, "BadResult", "The result has no list of rows");
	json_array_foreach(rows, i, row) {
		if (check_row(row, i + 1, e) < 0)
			return -EREMOTEIO;
	}
	return 0;
}

/* ---- rows ---- */

static bool is_net(const json_t *row)
{
	const char *workload = text_of(row, "workload");

	return str_prefix(workload, "tcp-") || str_eq(workload, "request-response");
}

/* MB/s of any row: links are told in Mb/s or in transactions (a byte there, a byte back), and random requests perhaps by their
 * number only. NaN: it was not measured. */
static double mb_s_of(const json_t *row)
{
	double mb_s = number_of(row, "mb_s");

	if (str_eq(text_of(row, "workload"), "request-response"))
		return number_of(row, "transactions_s") * 2 / 1e6;
	if (is_net(row))
		return number_of(row, "mbit_s") / 8;
	return isnan(mb_s) ? number_of(row, "iops") * number_of(json_object_get(row, "path"), "request_bytes") / 1e6 : mb_s;
}

static bool is_measured(const json_t *row)
{
	return !text_of(row, "why_empty") && !isnan(mb_s_of(row));
}

/* The row of another configuration, alike in all else; NULL: there is none. */
static const json_t *row_beside(const json_t *result, const json_t *row, const char *configuration)
{
	const char *workload = text_of(row, "workload"), *target = is_net(row) ? text_of(row, "target") : NULL;
	size_t i;
	json_t *other;

	json_array_foreach(json_object_get(result, "rows"), i, other) {
		if (configuration && str_eq(text_of(other, "configuration"), configuration) && str_eq(text_of(other, "workload"), workload) &&
		    str_eq(is_net(other) ? text_of(other, "target") : NULL, target) && is_measured(other))
			return other;
	}
	return NULL;
}

/* Configurations that differ in one thing. */
static const struct {
	const char *configuration;
	const char *paravirtual; /* the same with a paravirtual device */
	const char *uncached;    /* the same past the host's page cache */
} pairs[] = {
	{ "disk-scsi-phy", "disk-virtio-phy", NULL },
	{ "disk-scsi-tap", "disk-virtio-tap", "disk-scsi-phy" },
	{ "disk-virtio-tap", NULL, "disk-virtio-phy" },
	{ "disk-nvme", "disk-virtio-phy", NULL },
	{ "net-scsi-phy", "net-virtio-phy", NULL },
	{ "net-scsi-tap", "net-virtio-tap", "net-scsi-phy" },
	{ "net-virtio-tap", NULL, "net-virtio-phy" },
	{ "xen-disk-scsi-phy", "xen-disk-xvd-phy", NULL },
	{ "xen-disk-scsi-tap", NULL, "xen-disk-scsi-phy" },
	{ "xen-net-scsi-tap", NULL, "xen-net-scsi-phy" },
	{ "e1000", "virtio-net", NULL },
};

/* How far the row's median may be off, as a share of it. One run says nothing of that: twice what a good row's runs spread. */
static double doubt_of(const json_t *row)
{
	double spread = number_of(row, "spread_percent") / 100;
	bool told = json_array_size(json_object_get(row, "runs")) != 1 && spread > 0;

	if (told)
		return spread;
	return json_is_true(json_object_get(row, "unreliable")) ? SPREAD_OF_ONE_RUN : 0;
}

/* MB/s of the row beside; what lies within the spread of either is no difference. NaN without one. */
static double mb_s_beside(const json_t *row, const json_t *other)
{
	if (!other)
		return NAN;
	if (mb_s_of(other) <= mb_s_of(row) * (1 + fmax(doubt_of(row), doubt_of(other))))
		return fmin(mb_s_of(row), mb_s_of(other));
	return mb_s_of(other);
}

static void compare_with_pairs(const json_t *result, const json_t *row, struct diagnose_input *in)
{
	const char *configuration = text_of(row, "configuration");

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		if (!str_eq(pairs[i].configuration, configuration))
			continue;
		in->paravirtual_mb_s = mb_s_beside(row, row_beside(result, row, pairs[i].paravirtual));
		in->uncached_mb_s = mb_s_beside(row, row_beside(result, row, pairs[i].uncached));
	}
}

/* ---- a row as the rules see it ---- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Median of the runs' seconds; NaN without runs. */
static double run_seconds(const json_t *row)
{
	const json_t *runs = json_object_get(row, "runs");
	size_t count = 0, i;
	double *seconds = calloc(json_array_size(runs) + 1, sizeof(*seconds)), median;
	json_t *run;

	if (!seconds)
		abort();
	json_array_foreach(runs, i, run) {
		double s = number_of(run, "seconds");
		if (s > 0)
			seconds[count++] = s;
	}
	qsort(seconds, count, sizeof(*seconds), by_value);
	median = count ? (seconds[(count - 1) / 2] + seconds[count / 2]) / 2 : NAN;
	free(seconds);
	return median;
}

static void take_path(const json_t *row, struct diagnose_input *in)
{
	json_t *path = json_object_get(row, "path"), *value;
	double seconds = run_seconds(row);
	const char *key;

	json_object_foreach(path, key, value) {
		const char *rate = rate_of_count(key);
		double *figure = diagnose_input_at(in, rate ? rate : key);
		if (figure && !json_is_null(value))
			*figure = number_of(path, key) / (rate ? seconds : 1);
	}
}

/* One of the host's own rows that show what the disk gives in this direction. */
static bool shows_disk(const json_t *row, bool write)
{
	const char *workload = text_of(row, "workload");

	return !is_net(row) && str_eq(text_of(row, "configuration"), "none") && !str_prefix(workload, "rand-") &&
	       str_suffix(workload, "-write") == write && is_measured(row);
}

/* What it gives at its best, and the largest of the requests at which it gives about that: where the row does not tell itself. */
static void take_best_of_disk(const json_t *result, bool write, struct diagnose_input *in)
{
	const json_t *rows = json_object_get(result, "rows");
	double mb_s = NAN, sectors = NAN;
	size_t i;
	json_t *row;

	json_array_foreach(rows, i, row) {
		if (shows_disk(row, write))
			mb_s = fmax(mb_s, mb_s_of(row));
	}
	json_array_foreach(rows, i, row) {
		if (shows_disk(row, write) && mb_s_of(row) >= ABOUT_BEST * mb_s)
			sectors = fmax(sectors, number_of(row, "avgrq_sectors"));
	}
	if (isnan(in->disk_mb_s))
		in->disk_mb_s = mb_s;
	if (isnan(in->disk_best_sectors))
		in->disk_best_sectors = sectors;
}

static void take_disk(const json_t *result, const json_t *row, struct diagnose_input *in)
{
	const char *workload = text_of(row, "workload"), *configuration = text_of(row, "configuration");
	bool write = str_suffix(workload, "-write");

	in->write = write;
	in->random = str_prefix(workload, "rand-");
	in->network_volume = str_prefix(configuration, "net-") || str_prefix(configuration, "xen-net-") || str_eq(configuration, "ec2-ebs");
	take_best_of_disk(result, write, in);
}

static struct diagnose_input input_of(const json_t *result, const json_t *row)
{
	struct diagnose_input in;

	diagnose_input_init(&in);
	take_path(row, &in);
	in.mb_s = mb_s_of(row);
	in.iops = number_of(row, "iops");
	in.ratio = number_of(row, "ratio");
	in.avgrq_sectors = number_of(row, "avgrq_sectors");
	in.avgqu = number_of(row, "avgqu");
	in.util_percent = number_of(row, "util_percent");
	if (!is_net(row))
		take_disk(result, row, &in);
	compare_with_pairs(result, row, &in);
	return in;
}

/* ---- findings ---- */

static json_t *gain_of(double gain)
{
	return isfinite(gain) ? json_real(round(gain * 1000) / 1000) : json_null();
}

static json_t *held_back_by(const json_t *result, const json_t *row)
{
	struct finding found[FINDINGS_MAX];
	json_t *all = json_array();
	struct diagnose_input in = input_of(result, row);
	size_t count = is_measured(row) ? diagnose(&in, found) : 0;

	for (size_t i = 0; i < count; i++) {
		json_t *one = json_pack("{s:s, s:s, s:s, s:o}", "rule", found[i].rule, "why", found[i].why, "mend", found[i].mend, "gain",
					gain_of(found[i].gain));
		if (json_array_append_new(all, one) < 0)
			abort();
	}
	return all;
}

int explain_result(json_t *result, struct error *e)
{
	json_t *row;
	size_t i;

	if (check_result(result, e) < 0)
		return -EREMOTEIO;
	explain_model(result);
	json_array_foreach(json_object_get(result, "rows"), i, row) {
		if (json_object_set_new(row, "held_back_by", held_back_by(result, row)) < 0)
			abort();
	}
	return 0;
}
