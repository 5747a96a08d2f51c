/* SPDX-License-Identifier: Apache-2.0 */
/* The rules on recorded figures: the study's tables, and what was measured under emulation in their shape. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/macros.h"
#include "base/text.h"
#include "measure/diagnose.h"

/* A figure of 0 is unknown here, and one of NO is 0. */
#define NO -1.0
#define RULES_MAX 4

struct row {
	const char *what;
	struct diagnose_input in;
	const char *rules[RULES_MAX]; /* all that fire, by gain */
	double gains[RULES_MAX];      /* 0: not told here */
};

static struct diagnose_input input_of(const struct diagnose_input *short_form)
{
	const double *from = (const double *)short_form;
	struct diagnose_input in;
	double *to = (double *)&in;

	diagnose_input_init(&in);
	for (size_t i = 0; i < sizeof(in) / sizeof(double); i++) {
		if (from[i] != 0)
			to[i] = MAX_OF(from[i], 0);
	}
	return in;
}

static void check(const struct row *row)
{
	struct diagnose_input in = input_of(&row->in);
	struct finding found[FINDINGS_MAX];
	size_t count = diagnose(&in, found), wanted = 0;

	while (wanted < RULES_MAX && row->rules[wanted])
		wanted++;
	for (size_t i = 0; i < count; i++) {
		if (i >= wanted || !str_eq(found[i].rule, row->rules[i]))
			fail_msg("%s: %s (%.2f) is number %zu: %s", row->what, found[i].rule, found[i].gain, i, found[i].why);
		if (row->gains[i] != 0 && fabs(found[i].gain - row->gains[i]) > 0.01 * row->gains[i])
			fail_msg("%s: %s gains %.3f, not %.3f", row->what, found[i].rule, found[i].gain, row->gains[i]);
	}
	if (count < wanted)
		fail_msg("%s: %s does not fire", row->what, row->rules[count]);
}

static void check_all(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		check(&rows[i]);
}

/* ---- the study ---- */

#define STUDY_WRITE(rate, rq, qu, util) .write = 1, .random = NO, .direct = NO, .mb_s = rate, .ratio = (rate) / 111.0, \
	.avgrq_sectors = rq, .avgqu = qu, .util_percent = util, .disk_mb_s = 111, .disk_best_sectors = 1024
#define STUDY_READ(rate, rq, qu, util) .write = NO, .random = NO, .direct = NO, .depth = 1, .mb_s = rate, .ratio = (rate) / 108.0, \
	.avgrq_sectors = rq, .avgqu = qu, .util_percent = util, .disk_mb_s = 108, .disk_best_sectors = 512

static void study_writes(void **state)
{
	static const struct row rows[] = {
		{ "host", { STUDY_WRITE(111, 1024, 140, 100) }, { "none" }, { 1 } },
		{ "KVM file SCSI sparse", { STUDY_WRITE(1.3, 30, 0.9, 90), .emulated = 1, .sparse = 1, .depth = 1 },
		  { "small-requests", "sparse" }, { 15.1, 2.92 } },
		{ "KVM disk SCSI/phy", { STUDY_WRITE(71.5, 256, 0.57, 64), .emulated = 1, .host_cache = NO, .sparse = NO, .paravirtual_mb_s = 110 },
		  { "emulated-device" }, { 1.538 } },
		{ "KVM disk SCSI/phy, without the row to compare with", { STUDY_WRITE(71.5, 256, 0.57, 64), .emulated = 1 },
		  { "emulated-device" }, { 1.552 } },
		{ "KVM disk SCSI/tap", { STUDY_WRITE(70, 256, 0.58, 59), .emulated = 1, .host_cache = 1, .paravirtual_mb_s = 111, .uncached_mb_s = 71.5 },
		  { "emulated-device" }, { 1.586 } },
		{ "KVM disk virtio/phy", { STUDY_WRITE(110, 1024, 60, 100), .emulated = NO, .host_cache = NO }, { "none" } },
		{ "KVM disk virtio/tap", { STUDY_WRITE(111, 1024, 60, 100), .emulated = NO, .host_cache = 1, .uncached_mb_s = 110 }, { "none" } },
		{ "Xen file SCSI preallocated", { STUDY_WRITE(58.4, 995, 142, 100), .emulated = 1, .sparse = NO }, { "none" } },
		{ "Xen disk SCSI/tap", { STUDY_WRITE(66, 78, 30, 99), .emulated = 1, .host_cache = 1, .uncached_mb_s = 65.8 },
		  { "small-requests" }, { 1.583 } },
		{ "Xen disk XVD/phy", { STUDY_WRITE(102, 700, 3, 100), .emulated = NO }, { "none" } },
	};

	check_all(rows, ARRAY_SIZE(rows));
}

static void study_reads(void **state)
{
	static const struct row rows[] = {
		{ "host", { STUDY_READ(108, 512, 0.94, 96) }, { "none" }, { 1 } },
		{ "KVM file SCSI sparse", { STUDY_READ(71.9, 450, 1.1, 96), .emulated = 1, .sparse = 1 }, { "none" } },
		{ "KVM disk SCSI/phy", { STUDY_READ(70.5, 512, 0.7, 68), .emulated = 1, .paravirtual_mb_s = 76.2 },
		  { "queue-starved", "emulated-device" }, { 1.4706, 1.081 } },
		{ "KVM disk SCSI/tap", { STUDY_READ(56.7, 512, 0.7, 62), .emulated = 1, .host_cache = 1, .paravirtual_mb_s = 76.1, .uncached_mb_s = 70.5 },
		  { "queue-starved", "emulated-device", "double-caching" }, { 1.6129, 1.342, 1.2434 } },
		{ "KVM disk virtio/phy", { STUDY_READ(76.2, 512, 0.5, 57) }, { "queue-starved" }, { 1.4173 } },
		{ "KVM disk virtio/tap", { STUDY_READ(76.1, 512, 0.5, 62), .host_cache = 1, .uncached_mb_s = 76.2 }, { "queue-starved" } },
		{ "Xen file SCSI", { STUDY_READ(83.1, 241, 1.6, 99), .emulated = 1 }, { "none" } },
		{ "Xen disk SCSI/phy", { STUDY_READ(42.8, 14, 22.4, 99), .emulated = 1, .paravirtual_mb_s = 94.8 },
		  { "small-requests", "emulated-device" }, { 2.41, 2.215 } },
		{ "Xen disk SCSI/tap", { STUDY_READ(35.3, 11, 22, 99), .emulated = 1, .host_cache = 1, .uncached_mb_s = 42.8 },
		  { "small-requests", "double-caching" }, { 2.93, 1.2125 } },
		{ "Xen disk XVD/phy", { STUDY_READ(94.8, 128, 2.2, 99) }, { "none" } },
	};

	check_all(rows, ARRAY_SIZE(rows));
}

/* Rows on EBS have no figures of the disk; the wire carried 117.5 MB/s of TCP and less of AoE. */
static void study_network(void **state)
{
	static const struct row rows[] = {
		{ "EBS from the host, write", { .write = 1, .random = NO, .mb_s = 65.2, .ratio = 1, .wire_mb_s = 117.5, .mtu = 9000, .network_volume = 1 },
		  { "none" } },
		{ "EBS SCSI/tap, read", { .write = NO, .random = NO, .direct = NO, .mb_s = 46.2, .ratio = 46.2 / 55.8, .wire_mb_s = 117.5, .mtu = 9000,
		  .network_volume = 1, .emulated = 1, .host_cache = 1, .uncached_mb_s = 49.5, .paravirtual_mb_s = 46.3 }, { "double-caching" }, { 1.0714 } },
		{ "EBS SCSI/phy, write", { .write = 1, .random = NO, .direct = NO, .mb_s = 18.7, .ratio = 18.7 / 65.2, .emulated = 1, .host_cache = NO,
		  .paravirtual_mb_s = 20.3 }, { "emulated-device" }, { 1.0856 } },
		{ "Xen transmits to the front end", { .mb_s = 117.5, .ratio = 1, .wire_mb_s = 117.5, .guest_cpu_percent = 30, .host_cpu_percent = 20 },
		  { "wire" }, { 3.333 } },
		{ "Xen to the driver domain: 700 Mb/s, the CPU over 90 % idle", { .mb_s = 87.5, .ratio = 87.5 / 117.5, .wire_mb_s = 117.5,
		  .guest_cpu_percent = 10, .host_cpu_percent = 9 }, { "none" } },
	};

	check_all(rows, ARRAY_SIZE(rows));
}

/* ---- a disk that several volumes lie on ---- */

static void shared_disk(void **state)
{
	static const struct row rows[] = {
		{ "a quarter of a full disk", { .mb_s = 25, .util_percent = 99, .others_percent = 75 }, { "shared-disk" }, { 4 } },
		{ "as far as the disk goes", { .mb_s = 25, .util_percent = 99, .others_percent = 90, .disk_mb_s = 100 }, { "shared-disk" }, { 4 } },
		{ "most of it", { .mb_s = 75, .util_percent = 99, .others_percent = 25 }, { "none" } },
		{ "it asks for nothing", { .mb_s = 0, .others_percent = 100 }, { "none" } },
	};

	check_all(rows, ARRAY_SIZE(rows));
}

/* ---- measured under emulation, on the modelled disk (112 MB/s) ---- */

#define MODEL(rate, rq, qu, util) .random = NO, .mb_s = rate, .avgrq_sectors = rq, .avgqu = qu, .util_percent = util, .disk_mb_s = 112

static void modelled_disk(void **state)
{
	static const struct row rows[] = {
		{ "LSI, sparse, writethrough", { MODEL(3, 110, 1.3, 90), .write = 1, .disk_best_sectors = 1014, .sparse = 1, .emulated = 1, .depth = 1 },
		  { "small-requests", "sparse" }, { 5.446, 2.834 } },
		/* Runs on the disk at a third of its rate: 64 kB direct, buffered, and 4 KiB at random. */
		{ "sparse, direct, flushes and blocks counted",
		  { .write = 1, .random = NO, .mb_s = 1.5, .avgrq_sectors = 56, .avgqu = 1.26, .util_percent = 87.7, .disk_mb_s = 37.3,
		    .disk_best_sectors = 950, .sparse = 1, .flushes_s = 43.9, .metadata_writes_s = 114.7, .ratio = 0.048 },
		  { "sparse", "small-requests" }, { 3.92, 3.56 } },
		{ "sparse, buffered",
		  { .write = 1, .random = NO, .mb_s = 2.9, .avgrq_sectors = 98.67, .avgqu = 1.2, .util_percent = 80.3, .disk_mb_s = 37.3,
		    .disk_best_sectors = 950, .sparse = 1, .flushes_s = 38.1, .metadata_writes_s = 110.5, .ratio = 0.08 },
		  { "sparse", "small-requests" }, { 2.93, 2.3 } },
		{ "sparse, random: no better than the host's own seeks",
		  { .write = 1, .random = 1, .mb_s = 0.11, .avgrq_sectors = 18.41, .avgqu = 1.34, .util_percent = 90.2, .disk_mb_s = 37.3,
		    .disk_best_sectors = 950, .sparse = 1, .flushes_s = 51.5, .metadata_writes_s = 161.4, .ratio = 0.5 },
		  { "sparse" }, { 2 } },
		{ "data in large requests, small ones only of metadata",
		  { MODEL(30, 300, 1.3, 90), .write = 1, .disk_best_sectors = 1014, .sparse = 1, .flushes_s = 100, .metadata_writes_s = 300 },
		  { "sparse" } },
		{ "LSI, unwritten extents", { MODEL(3, 300, 1.3, 90), .write = 1, .disk_best_sectors = 1014, .sparse = 1, .emulated = 1 },
		  { "sparse" } },
		{ "LSI, blocks written beforehand", { MODEL(9.2, 128, 1.1, 95), .write = 1, .disk_best_sectors = 1014, .sparse = NO, .emulated = 1 },
		  { "small-requests" } },
		{ "LSI, sparse, cache=none: the data take half of the busy time",
		  { MODEL(34, 254, 0.6, 57), .write = 1, .disk_best_sectors = 1014, .sparse = 1, .emulated = 1 }, { "emulated-device" }, { 1.754 } },
		{ "any guest, direct reads at depth 1", { MODEL(48, 128, 0.65, 63), .write = NO, .direct = 1, .depth = 1, .disk_best_sectors = 512 },
		  { "queue-starved" }, { 1.587 } },
		{ "the host's direct reads at depth 1", { MODEL(85, 128, 0.96, 96), .write = NO, .direct = 1, .depth = 1, .disk_best_sectors = 512 },
		  { "none" } },
		{ "virtio, AIO at depth 8", { MODEL(107, 128, 6, 99), .write = NO, .direct = 1, .depth = 8, .disk_best_sectors = 512 }, { "none" } },
		{ "depth 8 and a disk that is idle all the same", { MODEL(60, 128, 0.9, 60), .write = NO, .direct = 1, .depth = 8, .disk_best_sectors = 512,
		  .ratio = 0.5 }, { "none" } },
		{ "read-ahead below the guest", { MODEL(111, 511, 3.9, 98), .write = NO, .direct = 1, .depth = 1, .disk_best_sectors = 512 }, { "none" } },
		{ "virtio writes, the emulated CPU full", { MODEL(70, 1800, 8, 65), .write = 1, .disk_best_sectors = 1014, .guest_cpu_percent = 98,
		  .host_cpu_percent = 60 }, { "guest-cpu" }, { 1.538 } },
		{ "depth 1 and the emulated CPU full: no queue would help", { MODEL(48, 128, 0.65, 63), .write = NO, .direct = 1, .depth = 1,
		  .disk_best_sectors = 512, .guest_cpu_percent = 100 }, { "guest-cpu" } },
		{ "the CPU nearly full", { MODEL(70, 1800, 8, 65), .write = 1, .disk_best_sectors = 1014, .guest_cpu_percent = 89, .ratio = 0.6 }, { "none" } },
		{ "the CPU full and the disk too", { MODEL(108, 1014, 60, 99), .write = 1, .disk_best_sectors = 1014, .guest_cpu_percent = 99 }, { "none" } },
		{ "random 4 KiB reads: small by intent", { .random = 1, .write = NO, .direct = 1, .depth = 1, .mb_s = 0.49, .iops = 120, .avgrq_sectors = 8,
		  .avgqu = 0.99, .util_percent = 99, .disk_mb_s = 112, .disk_best_sectors = 512, .ratio = 1 }, { "none" } },
	};

	check_all(rows, ARRAY_SIZE(rows));
}

static void processors(void **state)
{
	static const struct row rows[] = {
		{ "e1000 under emulation, 238 Mb/s", { .mb_s = 29.75, .ratio = 0.2, .emulated = 1, .paravirtual_mb_s = 95, .guest_cpu_percent = 99 },
		  { "guest-cpu", "emulated-device" }, { 5, 3.193 } },
		{ "the host is full", { .mb_s = 40, .disk_mb_s = 100, .host_cpu_percent = 97, .guest_cpu_percent = 60 }, { "host-cpu" }, { 2.5 } },
		{ "far from the wire's speed: no processor is ten times as fast", { .mb_s = 2, .ratio = 0.01, .guest_cpu_percent = 99 }, { "guest-cpu" }, { 10 } },
		{ "others fill the host, and the queue is starved all the same", { .mb_s = 40, .disk_mb_s = 100, .depth = 1, .avgqu = 0.5,
		  .util_percent = 50, .host_cpu_percent = 99 }, { "host-cpu", "queue-starved" }, { 2, 2 } },
		{ "the host is full, and so is the disk", { .mb_s = 31.6, .disk_mb_s = 37.3, .util_percent = 93, .host_cpu_percent = 99 }, { "none" } },
		{ "the host is nearly full", { .mb_s = 40, .disk_mb_s = 100, .host_cpu_percent = 89.9 }, { "none" } },
		{ "full, but nobody knows what there would be", { .mb_s = 40, .host_cpu_percent = 97, .guest_cpu_percent = 100 }, { "none" } },
	};

	check_all(rows, ARRAY_SIZE(rows));
}

static void network_volumes(void **state)
{
	static const struct row rows[] = {
		{ "MTU 1500", { .mb_s = 9, .disk_mb_s = 112, .wire_mb_s = 117.5, .network_volume = 1, .mtu = 1500 }, { "frame-size" }, { 5.31 } },
		{ "MTU 9000", { .mb_s = 9, .disk_mb_s = 112, .wire_mb_s = 117.5, .network_volume = 1, .mtu = 9000, .ratio = 0.1 }, { "none" } },
		{ "MTU 1500, yet at the disk's rate", { .mb_s = 110, .disk_mb_s = 112, .network_volume = 1, .mtu = 1500 }, { "none" } },
		{ "MTU 1500 of a NIC that carries no disk", { .mb_s = 9, .wire_mb_s = 117.5, .mtu = 1500, .ratio = 0.1 }, { "none" } },
		{ "MTU 1500, nothing known of disk or wire", { .mb_s = 9, .network_volume = 1, .mtu = 1500 }, { "none" } },
		{ "the wire is full and the disk is not", { .mb_s = 112, .disk_mb_s = 400, .wire_mb_s = 117.5, .network_volume = 1, .mtu = 9000,
		  .util_percent = 30 }, { "wire" }, { 3.333 } },
		{ "the wire nearly full", { .mb_s = 104, .disk_mb_s = 400, .wire_mb_s = 117.5, .ratio = 0.3 }, { "none" } },
		{ "the wire and the disk are full", { .mb_s = 112, .disk_mb_s = 113, .wire_mb_s = 117.5 }, { "none" } },
	};

	check_all(rows, ARRAY_SIZE(rows));
}

static void own_limits(void **state)
{
	static const struct row rows[] = {
		{ "10 MB/s of 10", { .random = NO, .mb_s = 9.9, .limit_mb_s = 10, .disk_mb_s = 112, .avgqu = 0.1, .util_percent = 10, .depth = 1 },
		  { "volume-limit" }, { 10 } },
		{ "100 IOPS of 100", { .random = 1, .mb_s = 0.41, .iops = 100, .limit_iops = 100, .util_percent = 40, .avgqu = 0.4, .depth = 1, .disk_mb_s = 112 },
		  { "volume-limit" }, { 2.5 } },
		{ "direct requests count as they are", { .random = 1, .direct = 1, .request_bytes = 4096, .mb_s = 0.4096, .limit_iops = 100, .util_percent = 40 },
		  { "volume-limit" }, { 2.5 } },
		{ "nothing else is known", { .mb_s = 10, .limit_mb_s = 10 }, { "volume-limit" } },
		{ "8 MB/s of 10", { .mb_s = 8, .limit_mb_s = 10, .disk_mb_s = 112, .ratio = 0.1 }, { "none" } },
		{ "the limit is above the disk", { .mb_s = 110, .limit_mb_s = 120, .disk_mb_s = 112 }, { "none" } },
	};

	check_all(rows, ARRAY_SIZE(rows));
}

/* Live: a guest that asks for little is not held back. */
static void guests_that_rest(void **state)
{
	static const struct row rows[] = {
		{ "a guest that asks now and then", { MODEL(2, 128, 0.02, 2), .depth = 1, .demand_percent = 3, .disk_best_sectors = 100 }, { "none" } },
		{ "one that waits all the time", { MODEL(48, 128, 0.65, 63), .depth = 1, .demand_percent = 96 }, { "queue-starved" } },
	};
	struct diagnose_input in;
	struct finding f[FINDINGS_MAX];

	check_all(rows, ARRAY_SIZE(rows));
	diagnose_input_init(&in);
	in.mb_s = 0;
	assert_int_equal(diagnose(&in, f), 1);
	assert_non_null(strstr(f[0].why, "asks for less"));
	diagnose_input_init(&in);
	assert_int_equal(diagnose(&in, f), 1);
	assert_string_equal(f[0].rule, "none");
	assert_non_null(strstr(f[0].why, "No rule explains"));
}

/* ---- all rules ---- */

/* Just what each needs: take one away, and it does not fire. */
static void what_is_unknown_fires_nothing(void **state)
{
	static const struct {
		const char *rule;
		struct diagnose_input in;
	} least[] = {
		{ "queue-starved", { .mb_s = 50, .depth = 1, .avgqu = 0.5, .util_percent = 50 } },
		{ "small-requests", { .mb_s = 10, .random = NO, .util_percent = 90, .disk_mb_s = 100, .avgrq_sectors = 10, .disk_best_sectors = 1000 } },
		{ "sparse", { .mb_s = 10, .write = 1, .sparse = 1, .util_percent = 90, .disk_mb_s = 100 } },
		{ "double-caching", { .mb_s = 10, .host_cache = 1, .direct = NO, .uncached_mb_s = 15 } },
		{ "emulated-device", { .mb_s = 10, .emulated = 1, .paravirtual_mb_s = 20 } },
		{ "emulated-device", { .mb_s = 10, .emulated = 1, .util_percent = 50 } },
		{ "guest-cpu", { .guest_cpu_percent = 100, .util_percent = 50 } },
		{ "guest-cpu", { .guest_cpu_percent = 100, .ratio = 0.5 } },
		{ "host-cpu", { .host_cpu_percent = 100, .ratio = 0.5 } },
		{ "frame-size", { .mb_s = 10, .network_volume = 1, .mtu = 1500, .disk_mb_s = 100 } },
		{ "wire", { .mb_s = 100, .wire_mb_s = 100 } },
		{ "volume-limit", { .mb_s = 10, .limit_mb_s = 10 } },
		{ "volume-limit", { .mb_s = 10, .iops = 10, .limit_iops = 10 } },
		{ "shared-disk", { .mb_s = 10, .others_percent = 50 } },
	};
	static const double unknown[] = { NAN, -1, INFINITY };
	struct finding f[FINDINGS_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(least); i++) {
		struct diagnose_input in = input_of(&least[i].in);
		double *figures = (double *)&in;

		assert_int_equal(diagnose(&in, f), 1);
		assert_string_equal(f[0].rule, least[i].rule);
		for (size_t j = 0; j < sizeof(in) / sizeof(double); j++) {
			double kept = figures[j];
			if (isnan(kept))
				continue;
			for (size_t k = 0; k < ARRAY_SIZE(unknown); k++) {
				figures[j] = unknown[k];
				assert_int_equal(diagnose(&in, f), 1);
				if (!str_eq(f[0].rule, "none"))
					fail_msg("%s fires without figure %zu", f[0].rule, j);
			}
			figures[j] = kept;
		}
	}
}

static void unknown_gains_come_last(void **state)
{
	struct diagnose_input in;
	struct finding f[FINDINGS_MAX];

	diagnose_input_init(&in);
	in.mb_s = 10;
	in.limit_mb_s = 10;
	in.emulated = 1;
	in.paravirtual_mb_s = 11;
	assert_int_equal(diagnose(&in, f), 2);
	assert_string_equal(f[0].rule, "emulated-device");
	assert_string_equal(f[1].rule, "volume-limit");
	assert_true(isnan(f[1].gain));
}

static double any_figure(void)
{
	static const double odd[] = { NAN, -1, 0, 1, INFINITY, -INFINITY, 1e308, 1e-308, 100, 1500 };
	int n = rand() % 20;

	return n < (int)ARRAY_SIZE(odd) ? odd[n] : rand() % 2000 / 10.0;
}

static void whatever_is_given(void **state)
{
	struct diagnose_input in;
	struct finding f[FINDINGS_MAX];

	srand(1);
	for (int i = 0; i < 100000; i++) {
		size_t count;
		for (size_t j = 0; j < sizeof(in) / sizeof(double); j++)
			((double *)&in)[j] = any_figure();
		count = diagnose(&in, f);
		assert_in_range(count, 1, FINDINGS_MAX);
		for (size_t j = 0; j < count; j++) {
			assert_true(isnan(f[j].gain) || f[j].gain >= 1);
			assert_true(f[j].why[0] && strlen(f[j].why) < FINDING_WHY_LEN - 1 && f[j].mend[0]);
			assert_true(!j || isnan(f[j].gain) || f[j].gain <= f[j - 1].gain);
			assert_true(!str_eq(f[j].rule, "none") || count == 1);
		}
	}
}

static void words(void **state)
{
	struct diagnose_input in;
	struct finding f[FINDINGS_MAX];
	const char *name;
	size_t count = 0;

	diagnose_input_init(&in);
	*diagnose_input_at(&in, "mb_s") = 76.2;
	*diagnose_input_at(&in, "depth") = 1;
	*diagnose_input_at(&in, "avgqu") = 0.5;
	*diagnose_input_at(&in, "util_percent") = 57;
	assert_null(diagnose_input_at(&in, "nothing"));
	assert_int_equal(diagnose(&in, f), 1);
	assert_string_equal(f[0].why, "One request at a time: while it travels through the layers the disk is idle "
				      "(depth 1, avgqu-sz 0.50, %util 57).");
	for (; (name = diagnose_rule_name(count)); count++) {
		for (size_t i = 0; i < count; i++)
			assert_string_not_equal(name, diagnose_rule_name(i));
	}
	assert_int_equal(count, 12);
	assert_string_equal(diagnose_rule_name(count - 1), "none");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(study_writes),
		cmocka_unit_test(study_reads),
		cmocka_unit_test(study_network),
		cmocka_unit_test(shared_disk),
		cmocka_unit_test(modelled_disk),
		cmocka_unit_test(processors),
		cmocka_unit_test(network_volumes),
		cmocka_unit_test(own_limits),
		cmocka_unit_test(guests_that_rest),
		cmocka_unit_test(what_is_unknown_fires_nothing),
		cmocka_unit_test(unknown_gains_come_last),
		cmocka_unit_test(whatever_is_given),
		cmocka_unit_test(words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
