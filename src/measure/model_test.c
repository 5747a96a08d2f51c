/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "measure/model.h"
#include "measure/model_study.h"

#define assert_near(a, b, tolerance) assert_true(fabs((a) - (b)) <= (tolerance))

static const struct model_disk disk = { .rate_mb_s = 128, .overhead_us = 100 }; /* 128 sectors: 512 us and 100 */

static void test_alone(void **state)
{
	struct model_path p = { .sectors = 128, .depth = 1 };
	struct model_figures f = model_predict(&disk, &p);

	assert_near(f.mb_s, 65536 / 612.0, 1e-6);
	assert_near(f.requests_s, 1e6 / 612, 1e-6);
	assert_near(f.avgrq_sectors, 128, 0);
	assert_near(f.avgqu, 1, 1e-9);
	assert_near(f.util_percent, 100, 1e-9);
	assert_int_equal(f.bound, MODEL_DISK);
}

static void test_latency_starves_a_synchronous_reader(void **state)
{
	struct model_path p = { .sectors = 128, .depth = 1, .latency_us = 612 };
	struct model_figures f = model_predict(&disk, &p);

	assert_int_equal(f.bound, MODEL_DEPTH);
	assert_near(f.util_percent, 50, 1e-9);
	assert_near(f.avgqu, 0.5, 1e-9);
	/* One more in flight fills the disk: nothing is lost, and nobody queues. */
	p.depth = 2;
	f = model_predict(&disk, &p);
	assert_near(f.util_percent, 100, 1e-9);
	assert_near(f.avgqu, 1, 1e-9);
	/* More only wait. */
	p.depth = 32;
	f = model_predict(&disk, &p);
	assert_near(f.mb_s, 65536 / 612.0, 1e-6);
	assert_near(f.avgqu, 31, 1e-9);
}

/* Little's law, whatever is full: those at the disk and those elsewhere are all there are. */
static void test_nobody_is_lost(void **state)
{
	for (double depth = 1; depth <= 64; depth *= 2) {
		for (double latency = 0; latency <= 1e5; latency = latency * 10 + 10) {
			struct model_path p = { .sectors = 64, .depth = depth, .latency_us = latency };
			struct model_figures f = model_predict(&disk, &p);

			assert_near(f.avgqu + f.requests_s / 1e6 * latency, depth, 1e-6 * depth);
			assert_true(f.avgqu >= f.util_percent / 100 - 1e-9);
			assert_true(f.util_percent <= 100);
		}
	}
}

static void test_other_stations(void **state)
{
	struct model_path p = { .sectors = 128, .depth = 32, .cpu_us = 1224 };
	struct model_figures f = model_predict(&disk, &p);

	assert_int_equal(f.bound, MODEL_CPU);
	assert_near(f.util_percent, 50, 1e-9);
	assert_near(f.avgqu, 0.5, 1e-9);
	p.cpu_us = 0;
	p.wire_us = 6120;
	f = model_predict(&disk, &p);
	assert_int_equal(f.bound, MODEL_WIRE);
	assert_near(f.util_percent, 10, 1e-9);
	p.wire_us = 0;
	p.limit_mb_s = 10;
	f = model_predict(&disk, &p);
	assert_int_equal(f.bound, MODEL_LIMIT);
	assert_near(f.mb_s, 10, 1e-9);
	p.limit_iops = 100;
	f = model_predict(&disk, &p);
	assert_near(f.requests_s, 100, 1e-9);
	assert_string_equal(model_bound_name(f.bound), "limit");
}

static void test_works_ahead(void **state)
{
	struct model_path p = { .sectors = 128, .depth = 1, .ahead_us = 306 };
	struct model_figures f = model_predict(&disk, &p);

	assert_near(f.mb_s, 65536 / 612.0, 1e-9);
	assert_near(f.util_percent, 100, 1e-9);
	p.ahead_us = 1224;
	f = model_predict(&disk, &p);
	assert_int_equal(f.bound, MODEL_CPU);
	assert_near(f.mb_s, 65536 / 1224.0, 1e-9);
	assert_near(f.util_percent, 50, 1e-9);
}

/* A sparse file: data, journal and commit, each after a revolution of the disk. */
static void test_extra_writes(void **state)
{
	struct model_path p = { .sectors = 64, .depth = 1, .wait_us = 8000, .extra_requests = 2, .extra_sectors = 16 };
	struct model_figures f = model_predict(&disk, &p);

	assert_near(f.avgrq_sectors, 32, 1e-9);
	assert_near(f.mb_s, 32768 / (356 + 2 * 164 + 3 * 8000.0), 1e-9);
	assert_near(f.util_percent, 100, 1e-9);
}

static void test_far_disk(void **state)
{
	struct model_path p = { .sectors = 128, .depth = 1, .server_us = 1000, .latency_us = 500, .far_disk = true };
	struct model_figures f = model_predict(&disk, &p);

	assert_near(f.mb_s, 65536 / 1500.0, 1e-9); /* its transfer hides behind the server */
	assert_true(isnan(f.avgrq_sectors) && isnan(f.avgqu) && isnan(f.util_percent));
	p.far_sectors = 512; /* known: the disk's own size counts for its overhead */
	f = model_predict(&disk, &p);
	assert_near(f.avgrq_sectors, 512, 0);
	assert_near(f.util_percent, 100 * (2048 + 100) / 4.0 / 1500, 1e-9);
	assert_near(f.avgqu, f.util_percent / 100, 1e-9);
	p.depth = 8;
	f = model_predict(&disk, &p);
	assert_int_equal(f.bound, MODEL_SERVER);
	assert_near(f.mb_s, 65.536, 1e-9);
	p.server_us = 10; /* but the disk's rate is the most there is */
	f = model_predict(&disk, &p);
	assert_int_equal(f.bound, MODEL_DISK);
}

/* ---- the study ---- */

static struct model_figures study(const char *configuration, bool write)
{
	struct model_disk d;
	struct model_path p;

	assert_int_equal(model_study_path(configuration, write, &d, &p), 0);
	return model_predict(&d, &p);
}

#define assert_within(is, study, percent) assert_near((is) / (study), 1, (percent) / 100.0)

static void test_study_writes(void **state)
{
	struct model_figures f = study("none", true);

	assert_within(f.mb_s, 111, 2);
	assert_within(f.avgqu, 140, 10);
	f = study("file-scsi", true);
	assert_within(f.mb_s, 1.3, 10);
	assert_within(f.avgrq_sectors, 30, 10);
	f = study("disk-scsi-phy", true);
	assert_within(f.mb_s, 71.5, 10);
	assert_within(f.util_percent, 64, 10);
	f = study("disk-virtio-phy", true);
	assert_within(f.mb_s, 110, 2);
	assert_within(f.avgqu, 60, 10);
	assert_within(study("net-none", true).mb_s, 65.2, 2);
	assert_within(study("net-virtio-phy", true).mb_s, 20.3, 10);
}

static void test_study_reads(void **state)
{
	assert_within(study("none", false).mb_s, 108, 5);
	assert_within(study("disk-virtio-phy", false).mb_s, 76.2, 6);
	struct model_figures f = study("xen-disk-scsi-phy", false);
	assert_within(f.mb_s, 42.8, 10);
	assert_within(f.avgqu, 22.4, 10);
	assert_within(study("net-scsi-phy", false).mb_s, 49.5, 5);
}

/* What is not modelled is said so, and every row that is has a reason; few constants are fitted. */
static void test_study_tables(void **state)
{
	struct model_disk d;
	struct model_path p;
	unsigned rows = 0, fitted = 0;
	const struct model_constant *c;
	const struct model_study_row *r;

	assert_int_equal(model_study_path("ec2-ebs", true, &d, &p), -ENOENT);
	assert_int_equal(model_study_path("disk-nvme", false, &d, &p), -ENOENT);
	for (; (r = model_study_row_at(rows)); rows++) {
		assert_true(strlen(r->why) > 10);
		assert_true(study(r->configuration, r->write).mb_s > 0);
	}
	assert_int_equal(rows, 34);
	for (unsigned i = 0; (c = model_study_constant_at(i)); i++) {
		assert_non_null(c->name);
		assert_true(c->value > 0 && strlen(c->why) > 5);
		fitted += c->provenance == MODEL_FITTED;
	}
	assert_in_range(fitted, 1, 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alone),
		cmocka_unit_test(test_latency_starves_a_synchronous_reader),
		cmocka_unit_test(test_nobody_is_lost),
		cmocka_unit_test(test_other_stations),
		cmocka_unit_test(test_works_ahead),
		cmocka_unit_test(test_extra_writes),
		cmocka_unit_test(test_far_disk),
		cmocka_unit_test(test_study_writes),
		cmocka_unit_test(test_study_reads),
		cmocka_unit_test(test_study_tables),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
