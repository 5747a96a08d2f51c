/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/macros.h"
#include "measure/figures.h"

#define S UINT64_C(1000000000)
#define MS UINT64_C(1000000)

#define assert_near(value, wanted) assert_true(fabs((value) - (double)(wanted)) <= 1e-6 * fmax(1, fabs((double)(wanted))))

static const char recorded[] =
	"   7       0 loop0 100 5 12800 90 2048 7 2097152 62700 3 990 62790 4 0 8192 2 6 48\n"
	"   7       1 loop10 1 0 2 3 4 0 5 6 0 7 8\n"
	" 253       0 vda 11 0 22 33 44 0 55 66 0 77 88 1 0 2 3\n";

static void lines(void **state)
{
	char name[DISK_NAME_LEN];
	struct disk_counters c;

	assert_int_equal(disk_counters_parse(recorded, name, &c), 0);
	assert_string_equal(name, "loop0");
	assert_int_equal(c.op[DISK_READ].ops, 100);
	assert_int_equal(c.op[DISK_READ].merged, 5);
	assert_int_equal(c.op[DISK_READ].bytes, 12800 * 512);
	assert_int_equal(c.op[DISK_READ].wait_ns, 90 * MS);
	assert_int_equal(c.op[DISK_WRITE].ops, 2048);
	assert_int_equal(c.op[DISK_WRITE].bytes, UINT64_C(2097152) * 512);
	assert_int_equal(c.op[DISK_DISCARD].ops, 4);
	assert_int_equal(c.op[DISK_DISCARD].bytes, 8192 * 512);
	assert_int_equal(c.op[DISK_FLUSH].ops, 6);
	assert_int_equal(c.op[DISK_FLUSH].wait_ns, 48 * MS);
	assert_int_equal(c.outstanding, 3);
	assert_int_equal(c.busy_ns, 990 * MS);
	assert_int_equal(c.weighted_ns, 62790 * MS);
	assert_int_equal(c.at_ns, 0);
}

static void a_disk_in_the_file(void **state)
{
	struct disk_counters c;

	assert_int_equal(disk_counters_find(recorded, "vda", &c), 0);
	assert_int_equal(c.op[DISK_DISCARD].ops, 1);
	assert_int_equal(disk_counters_find(recorded, "loop10", &c), 0);
	assert_int_equal(c.weighted_ns, 8 * MS);
	assert_int_equal(disk_counters_find(recorded, "loop1", &c), -ENOENT);
	assert_int_equal(disk_counters_find("", "vda", &c), -ENOENT);
	assert_int_equal(disk_counters_find("\n\nnonsense\n", "vda", &c), -ENOENT);
}

static void what_is_no_line(void **state)
{
	static const char *const bad[] = {
		"", "\n", "7", "7 0", "7 0 loop0", "7 0 loop0 1 2 3 4 5 6 7 8 9 10", "7 0 loop0 1 2 3 4 5 6 7 8 9 10 x",
		"7 0 loop0 1 2 3 -4 5 6 7 8 9 10 11", "7 0 loop0 1 2 3 99999999999999999999999 5 6 7 8 9 10 11",
		"x 0 loop0 1 2 3 4 5 6 7 8 9 10 11", "7 0 loop0 1 2 3 4 5 6 7 8 9 10 11 12 oops",
		"7 0 loop0\n1 2 3 4 5 6 7 8 9 10 11",
		"7 0 a234567890123456789012345678901234567890123456789012345678901234 1 2 3 4 5 6 7 8 9 10 11"
	};
	struct disk_counters c;
	char name[DISK_NAME_LEN];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(disk_counters_parse(bad[i], name, &c), -EINVAL);
	/* Figures of kernels to come are none of ours. */
	assert_int_equal(disk_counters_parse("7 0 sda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19", name, &c), 0);
}

/* The modelled bare disk for a second: 111 MB/s, 1014 sectors, queue 62.7, 99 %. */
static void in_terms_of_iostat(void **state)
{
	struct disk_counters a = { .at_ns = 5 * S, .op[DISK_WRITE] = { .ops = 1000 } }, b = a;
	struct disk_figures f;

	b.at_ns += 1 * S;
	b.op[DISK_WRITE] = (struct disk_op_counters){ .ops = 1214, .bytes = 214 * 1014 * 512, .merged = 3, .wait_ns = 214 * 293 * MS };
	b.op[DISK_DISCARD] = (struct disk_op_counters){ .ops = 2, .bytes = UINT64_C(1) << 40 };
	b.op[DISK_FLUSH] = (struct disk_op_counters){ .ops = 4, .wait_ns = 32 * MS };
	b.busy_ns = 990 * MS;
	b.weighted_ns = 62700 * MS;
	assert_int_equal(disk_figures_between(&a, &b, &f), 0);
	assert_near(f.elapsed_s, 1);
	assert_near(f.iops, 214);
	assert_near(f.write_iops, 214);
	assert_near(f.read_iops, 0);
	assert_near(f.mb_s, 214 * 1014 * 512 / 1e6);
	assert_near(f.avgrq_sectors, 1014);
	assert_near(f.write_avgrq_sectors, 1014);
	assert_near(f.avgqu, 62.7);
	assert_near(f.util_percent, 99);
	assert_near(f.await_ms, 293);
	assert_near(f.flush_await_ms, 8);
	assert_near(f.merged_s, 3);
	assert_near(f.discards_s, 2);
	assert_near(f.flushes_s, 4);
	assert_true(isnan(f.read_avgrq_sectors) && isnan(f.read_await_ms));
}

static void reads_and_writes_together(void **state)
{
	struct disk_counters a = { .at_ns = 0 }, b = { .at_ns = 2 * S };
	struct disk_figures f;

	b.op[DISK_READ] = (struct disk_op_counters){ .ops = 100, .bytes = 100 * 128 * 512, .wait_ns = 100 * MS };
	b.op[DISK_WRITE] = (struct disk_op_counters){ .ops = 300, .bytes = 300 * 8 * 512, .wait_ns = 900 * MS };
	b.busy_ns = 2 * S + 9 * MS; /* a tick more than there was time */
	assert_int_equal(disk_figures_between(&a, &b, &f), 0);
	assert_near(f.iops, 200);
	assert_near(f.avgrq_sectors, (100 * 128 + 300 * 8) / 400.0);
	assert_near(f.read_avgrq_sectors, 128);
	assert_near(f.await_ms, 2.5);
	assert_near(f.util_percent, 100);
}

static void an_idle_disk(void **state)
{
	struct disk_counters a = { .at_ns = S, .busy_ns = 7 }, b = a;
	struct disk_figures f;

	b.at_ns += S;
	assert_int_equal(disk_figures_between(&a, &b, &f), 0);
	assert_true(f.iops == 0 && f.mb_s == 0 && f.util_percent == 0 && f.avgqu == 0);
	assert_true(isnan(f.avgrq_sectors) && isnan(f.await_ms) && isnan(f.flush_await_ms));
}

static void times_that_wrap(void **state)
{
	char name[DISK_NAME_LEN];
	struct disk_counters a, b;
	struct disk_figures f;

	assert_int_equal(disk_counters_parse("7 0 sda 10 0 80 4294967290 0 0 0 0 0 4294967000 4294967295", name, &a), 0);
	assert_int_equal(disk_counters_parse("7 0 sda 20 0 160 24 0 0 0 0 0 204 999", name, &b), 0);
	a.at_ns = S;
	b.at_ns = 2 * S;
	assert_int_equal(disk_figures_between(&a, &b, &f), 0);
	assert_near(f.util_percent, 50);
	assert_near(f.avgqu, 1);
	assert_near(f.await_ms, 3);
}

/* A loop device that was taken away and made anew counts from 0: nothing is known of the time between. */
static void counters_that_begin_anew(void **state)
{
	struct disk_counters a = { .at_ns = S, .busy_ns = 500 * MS, .op[DISK_READ] = { .ops = 100, .bytes = 4096 } }, b = a;
	struct disk_figures f = { .iops = 12345 };

	b.at_ns = 2 * S;
	b.op[DISK_READ].ops = 3;
	assert_int_equal(disk_figures_between(&a, &b, &f), -ESTALE);
	b.op[DISK_READ].ops = 100;
	b.busy_ns = 100 * MS; /* without a wrap a time that goes back is no time */
	assert_int_equal(disk_figures_between(&a, &b, &f), -ESTALE);
	a.times_wrap_ns = b.times_wrap_ns = (UINT64_C(1) << 32) * MS;
	assert_int_equal(disk_figures_between(&a, &b, &f), -ESTALE); /* it would have been busy for 49 days */
	b = a;
	assert_int_equal(disk_figures_between(&a, &b, &f), -ESTALE); /* no time passed */
	b.at_ns = a.at_ns - 1;
	assert_int_equal(disk_figures_between(&a, &b, &f), -ESTALE);
	assert_true(f.iops == 12345);
}

static void of_blockd(void **state)
{
	struct blockd_counters b = {
		.read = { .ops = 1, .bytes = 4096, .latency_ns = 10, .sequential = 1 },
		.write = { .ops = 2, .bytes = 8192, .errors = 1, .latency_ns = 20 },
		.flush = { .ops = 3, .latency_ns = 30 },
		.discard = { .ops = 4, .bytes = 400 },
		.write_zeroes = { .ops = 5, .bytes = 500, .latency_ns = 50 },
		.outstanding = 6, .busy_ns = 7, .weighted_ns = 8,
	};
	struct disk_counters c = disk_counters_of_blockd(&b);

	assert_int_equal(c.op[DISK_READ].bytes, 4096);
	assert_int_equal(c.op[DISK_WRITE].ops, 2);
	assert_int_equal(c.op[DISK_WRITE].wait_ns, 20);
	assert_int_equal(c.op[DISK_FLUSH].ops, 3);
	assert_int_equal(c.op[DISK_DISCARD].ops, 9);
	assert_int_equal(c.op[DISK_DISCARD].bytes, 900);
	assert_int_equal(c.op[DISK_DISCARD].wait_ns, 50);
	assert_int_equal(c.outstanding, 6);
	assert_int_equal(c.busy_ns, 7);
	assert_int_equal(c.weighted_ns, 8);
	assert_int_equal(c.times_wrap_ns, 0);
	assert_int_equal(c.op[DISK_READ].sequential, 1);
}

static void where_requests_begin(void **state)
{
	struct disk_counters a = { .at_ns = 1000000000, .places_known = true }, b = a;
	struct disk_figures f;

	b.at_ns += 1000000000;
	b.op[DISK_READ] = (struct disk_op_counters){ .ops = 30, .bytes = 30 * 4096, .sequential = 20 };
	b.op[DISK_WRITE] = (struct disk_op_counters){ .ops = 10, .bytes = 10 * 4096, .sequential = 10 };
	assert_int_equal(disk_figures_between(&a, &b, &f), 0);
	assert_true(f.sequential_percent == 75);
	b.op[DISK_WRITE].sequential = 30; /* they came, and have not ended yet */
	assert_int_equal(disk_figures_between(&a, &b, &f), 0);
	assert_true(f.sequential_percent == 100);
	a.places_known = false; /* the process was upgraded in between */
	assert_int_equal(disk_figures_between(&a, &b, &f), 0);
	assert_true(isnan(f.sequential_percent));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines),
		cmocka_unit_test(a_disk_in_the_file),
		cmocka_unit_test(what_is_no_line),
		cmocka_unit_test(in_terms_of_iostat),
		cmocka_unit_test(reads_and_writes_together),
		cmocka_unit_test(an_idle_disk),
		cmocka_unit_test(times_that_wrap),
		cmocka_unit_test(counters_that_begin_anew),
		cmocka_unit_test(of_blockd),
		cmocka_unit_test(where_requests_begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
