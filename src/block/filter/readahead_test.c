/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "block/filter/coalesce_testkit.h"
#include "block/filter/filter.h"
#include "block/filter/readahead_priv.h"

#define MIB (1u << 20)
#define RATE 110000000u

static struct blk_stack *open_on(struct tk_disk *d, const char *spec, unsigned queues)
{
	struct error e = { 0 };
	struct blk_stack *s = tk_open(&blk_readahead_ops, spec, queues, d, &e);

	if (!s)
		print_message("%s\n", e.message);
	assert_non_null(s);
	return s;
}

static void close_all(struct blk_stack *s, struct tk_disk *d)
{
	struct error e = { 0 };

	assert_int_equal(blk_stack_close(s, &e), 0);
	tk_disk_free(d);
}

static struct tk_disk *mechanical(uint64_t size)
{
	struct tk_disk *d = tk_disk_new(size);

	d->rate = RATE;
	d->seek_ns = 8000000;
	d->overhead_ns = 50000;
	return d;
}

/* Waits on queue 0 of a stack that is not started. */
static void pause_ms(struct blk_stack *s, int ms)
{
	bool never = false;

	blk_queue_run_until(blk_stack_queue(s, 0), &never, ms);
}

static void test_detector(void **state)
{
	static struct ra_run run[RA_DETECT];
	uint64_t seed = 12345, bytes, off = 77 << 20;
	unsigned found = 0, order[] = { 1, 0, 3, 2, 5, 4, 7, 6 };

	for (unsigned i = 0; i < 100000; i++)
		found += ra_detect(run, tk_random(&seed) % (1u << 30) & ~4095ull, 4096, RA_NEED_MIN, &bytes);
	assert_true(found <= 2);
	memset(run, 0, sizeof(run));
	found = 0;
	/* the same place over and over is no run */
	for (unsigned i = 0; i < 1000; i++)
		assert_false(ra_detect(run, 5 << 20, 65536, RA_NEED_MIN, &bytes));
	/* queued reads that arrive slightly out of order, across a region's edge, among strangers */
	off += MIB - 131072;
	for (unsigned i = 0; i < 8 && !found; i++) {
		for (unsigned j = 0; j < 50; j++)
			ra_detect(run, tk_random(&seed) % (1u << 30) & ~4095ull, 4096, RA_NEED_MIN, &bytes);
		found += ra_detect(run, off + order[i] * 65536, 65536, RA_NEED_MIN, &bytes);
	}
	assert_true(found);
	/* one of each four blocks is no run that is worth the rest */
	memset(run, 0, sizeof(run));
	for (unsigned i = 0; i < 100; i++)
		assert_false(ra_detect(run, (200ull << 20) + i * 4 * 65536ull, 65536, RA_NEED_MIN, &bytes));
}

static void test_synchronous_reader_gets_the_disk(void **state)
{
	struct tk_disk *d = mechanical(64 * MIB);
	struct blk_stack *s = open_on(d, "readahead", 1);

	memset(d->now, 1, d->size);
	uint64_t rate = tk_sync_rate(s, BLK_READ, 0, 32 * MIB, 65536, false);
	print_message("64 kB at depth 1: %.1f MB/s of %.1f\n", (double)rate / 1e6, RATE / 1e6);
	if (getenv("MALLEE_MEASURE")) /* on a quiet machine */
		assert_true(rate > RATE / 100 * 96);
	assert_true(tk_counter(s, "hits") > 450);
	assert_true(tk_counter(s, "streams_found") == 1);
	assert_true(d->background > 100);
	close_all(s, d);
}

static void test_fast_disk_gets_a_larger_window(void **state)
{
	struct tk_disk *d = tk_disk_new(64 * MIB);
	struct blk_stack *s = open_on(d, "readahead", 1);

	d->rate = 2000000000;
	d->overhead_ns = 10000;
	uint64_t rate = tk_sync_rate(s, BLK_READ, 0, 64 * MIB, 65536, false);
	print_message("2 GB/s disk: %.0f MB/s\n", (double)rate / 1e6);
	assert_true(tk_counter(s, "unused_bytes") < 4 * MIB);
	close_all(s, d);
}

static void test_random_reads_cost_nothing(void **state)
{
	struct tk_disk *d = tk_disk_new(64 * MIB);
	struct blk_stack *s = open_on(d, "readahead", 1);
	static uint8_t data[4096];
	uint64_t seed = 99;

	d->delay_ns = 0;
	for (unsigned i = 0; i < 3000; i++)
		assert_int_equal(tk_sync_op(s, BLK_READ, 0, tk_random(&seed) % (d->size / 4096) * 4096, 4096, data), 0);
	assert_true(tk_counter(s, "ahead_bytes") < MIB);
	assert_int_equal(tk_counter(s, "misses") + tk_counter(s, "hits"), 3000);
	close_all(s, d);
}

/* Many short runs: what is read in vain stays below what is read, and then they are let be. */
static void test_short_runs_are_let_be(void **state)
{
	struct tk_disk *d = tk_disk_new(2048ull * MIB);
	struct blk_stack *s = open_on(d, "readahead", 1);
	static uint8_t data[65536];
	uint64_t seed = 7, read = 0;

	d->delay_ns = 0;
	for (unsigned i = 0; i < 300; i++) {
		uint64_t at = tk_random(&seed) % (2000 * 16) * 65536;

		for (unsigned j = 0; j < 5; j++, read += 65536)
			assert_int_equal(tk_sync_op(s, BLK_READ, 0, at + j * 65536, 65536, data), 0);
	}
	print_message("short runs: %.0f MiB read, %.0f ahead\n", (double)read / MIB, (double)tk_counter(s, "ahead_bytes") / MIB);
	assert_true(tk_counter(s, "ahead_bytes") < read / 4);
	close_all(s, d);
}

/* Who rewrites what it has just read keeps its stream, and reads what it wrote. */
static void test_rewriting_in_place(void **state)
{
	struct tk_disk *d = tk_disk_new(8 * MIB);
	struct blk_stack *s = open_on(d, "readahead", 1);
	static uint8_t data[16384];

	d->delay_ns = 200000;
	for (uint64_t off = 0; off < 8 * MIB; off += sizeof(data)) {
		assert_int_equal(tk_sync_op(s, BLK_READ, 0, off, sizeof(data), data), 0);
		assert_int_equal(data[0], 0);
		memset(data, 1 + (int)(off >> 20), sizeof(data));
		assert_int_equal(tk_sync_op(s, BLK_WRITE, 0, off, sizeof(data), data), 0);
		if (off % 3 == 0 && off) {
			assert_int_equal(tk_sync_op(s, BLK_READ, 0, off - 512, 1024, data), 0);
			assert_memory_equal(data, d->now + off - 512, 1024);
		}
	}
	assert_true(tk_counter(s, "hits") > 300);
	assert_true(tk_counter(s, "stale_drops") < 5);
	close_all(s, d);
}

static void test_interleaved_streams_and_end_of_disk(void **state)
{
	struct tk_disk *d = tk_disk_new(8 * MIB + 3 * 512);
	struct blk_stack *s = open_on(d, "readahead:chunk=64k,cache=1M", 1);
	static uint8_t data[65536];
	uint64_t third = d->size / 3 / 512 * 512;

	for (uint64_t i = 0; i < d->size; i += 8)
		memcpy(d->now + i, &i, 8);
	for (uint64_t off = 0; off < third; off += 16384) {
		for (unsigned k = 0; k < 3; k++) {
			uint64_t at = k * third + off, len = MIN_OF((uint64_t)16384, (k + 1) * third - at);

			assert_int_equal(tk_sync_op(s, BLK_READ, 0, at, len, data), 0);
			assert_memory_equal(data, d->now + at, len);
		}
	}
	assert_true(tk_counter(s, "streams_found") >= 3);
	assert_true(tk_counter(s, "hits") > 400);
	close_all(s, d);
}

/* A reader gets going; then a place ahead of it is written, cached or on its way. */
static void test_write_outdates_what_was_read(void **state)
{
	struct tk_disk *d = tk_disk_new(8 * MIB);
	struct blk_stack *s = open_on(d, "readahead:chunk=64k,cache=1M", 1);
	static uint8_t data[65536], fresh[4096];

	d->delay_ns = 3000000;
	for (uint64_t off = 0, round = 1; off < 6 * MIB; off += 16384, round++) {
		assert_int_equal(tk_sync_op(s, BLK_READ, 0, off, 16384, data), 0);
		assert_memory_equal(data, d->now + off, 16384);
		if (round % 3)
			continue;
		if (round % 2)
			pause_ms(s, 5); /* it has arrived */
		memset(fresh, (int)round, sizeof(fresh));
		uint64_t at = off + 16384 * (1 + round % 13);
		assert_int_equal(tk_sync_op(s, round % 5 ? BLK_WRITE : BLK_WRITE_ZEROES, 0, at, 4096, fresh), 0);
	}
	assert_true(tk_counter(s, "stale_drops") > 10);
	close_all(s, d);
}

/* A write is on its way to a place that is then read ahead: the old data must not stay. */
static void test_write_in_flight_is_not_read_ahead(void **state)
{
	struct tk_disk *d = tk_disk_new(4 * MIB);
	struct blk_stack *s = open_on(d, "readahead:chunk=64k,cache=1M", 1);
	static uint8_t data[16384], fresh[4096];
	struct iovec iov = { fresh, sizeof(fresh) };
	bool done = false;
	struct blk_req w = { .op = BLK_WRITE, .off_bytes = 2 * MIB + 200 * 1024, .len_bytes = sizeof(fresh), .iov = &iov, .iov_count = 1,
			     .queue = blk_stack_queue(s, 0), .done = tk_sync_done, .ctx = &done };
	uint64_t off = 2 * MIB;

	memset(fresh, 7, sizeof(fresh));
	d->delay_ns = 0;
	d->slow_write_ns = 100000000;
	blk_stack_submit(s, &w);
	for (; off < w.off_bytes - 2 * sizeof(data); off += sizeof(data))
		assert_int_equal(tk_sync_op(s, BLK_READ, 0, off, sizeof(data), data), 0);
	assert_false(done);
	assert_int_equal(blk_queue_run_until(w.queue, &done, 5000), 0);
	for (; off < 3 * MIB; off += sizeof(data)) {
		assert_int_equal(tk_sync_op(s, BLK_READ, 0, off, sizeof(data), data), 0);
		assert_memory_equal(data, d->now + off, sizeof(data));
	}
	close_all(s, d);
}

static void test_error_ahead_is_nobodys(void **state)
{
	struct tk_disk *d = tk_disk_new(4 * MIB);
	struct blk_stack *s = open_on(d, "readahead:chunk=64k,cache=1M", 1);
	static uint8_t data[16384];

	d->bad_from = 2 * MIB + 20480;
	d->bad_to = d->bad_from + 512;
	for (uint64_t off = 0; off < 4 * MIB; off += 16384) {
		bool bad = off < d->bad_to && off + 16384 > d->bad_from;

		assert_int_equal(tk_sync_op(s, BLK_READ, 0, off, 16384, data), bad ? -EIO : 0);
	}
	assert_true(tk_counter(s, "errors") >= 1);
	close_all(s, d);
}

static void test_idle_gives_memory_back(void **state)
{
	struct tk_disk *d = tk_disk_new(8 * MIB);
	struct blk_stack *s = open_on(d, "readahead:idle=200", 1);

	tk_sync_rate(s, BLK_READ, 0, 4 * MIB, 65536, false);
	assert_true(tk_counter(s, "chunks") > 0);
	pause_ms(s, 2600);
	assert_int_equal(tk_counter(s, "chunks"), 0);
	assert_int_equal(tk_counter(s, "streams"), 0);
	assert_true(tk_counter(s, "given_back") > 2);
	close_all(s, d);
}

static void test_resize(void **state)
{
	struct tk_disk *d = tk_disk_new(4 * MIB + 512 * 7);
	struct blk_stack *s = open_on(d, "readahead:chunk=64k,cache=1M", 1);
	struct error e = { 0 };

	tk_sync_rate(s, BLK_READ, 3 * MIB, 512 * 7 + MIB - 512, 512, false);
	assert_int_equal(blk_stack_resize(s, 6 * MIB, &e), 0);
	memset(d->now, 5, d->size);
	tk_sync_rate(s, BLK_READ, 3 * MIB, 3 * MIB, 16384, false);
	assert_int_equal(blk_stack_info(s)->size_bytes, 6 * MIB);
	close_all(s, d);
}

static void test_options(void **state)
{
	static const char *const bad[] = { "readahead:chunk=100k", "readahead:cache=512k", "readahead:colour=red", "readahead:chunk=1k" };
	struct tk_disk *d = tk_disk_new(MIB);

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error e = { 0 };

		assert_null(tk_open(&blk_readahead_ops, bad[i], 1, d, &e));
		assert_true(error_is_set(&e));
	}
	tk_disk_free(d);
}

static void test_model(void **state)
{
	static const struct {
		unsigned queues, sequential, writes, fail_reads;
		uint64_t delay_ns;
	} round[] = { { 1, 80, 20, 0, 200000 }, { 3, 70, 30, 0, 200000 }, { 4, 90, 10, 5, 50000 }, { 2, 50, 50, 0, 0 } };
	uint64_t seed = tk_seed();

	for (unsigned i = 0; i < ARRAY_SIZE(round); i++) {
		struct tk_disk *d = tk_disk_new(3 * MIB);
		struct tk_model *m = tk_model_new(d->size);
		struct blk_stack *s = open_on(d, "readahead:chunk=64k,cache=512k,idle=20", round[i].queues);
		struct tk_load shape = { .sequential_percent = round[i].sequential, .write_percent = round[i].writes, .fua = true,
					 .fails_expected = round[i].fail_reads, .check_flushes = true };
		struct error e = { 0 };

		d->delay_ns = round[i].delay_ns;
		d->fail_reads_percent = round[i].fail_reads;
		d->seed ^= seed;
		assert_int_equal(blk_stack_start(s, &e), 0);
		for (unsigned left = tk_ops(8000) / round[i].queues, ops; left; left -= ops) {
			ops = MIN_OF(left, 1500u);
			tk_run(s, m, d, ops, seed + i + left, &shape);
			tk_model_reset(m, d->now);
		}
		print_message("round %u: hits %llu waited %llu stale %llu partial %llu, %llu units checked\n", i,
			      (unsigned long long)tk_counter(s, "hits"), (unsigned long long)tk_counter(s, "waited"),
			      (unsigned long long)tk_counter(s, "stale_drops"), (unsigned long long)tk_counter(s, "partial"),
			      (unsigned long long)m->checked);
		close_all(s, d);
		tk_model_free(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_detector),
		cmocka_unit_test(test_synchronous_reader_gets_the_disk),
		cmocka_unit_test(test_fast_disk_gets_a_larger_window),
		cmocka_unit_test(test_random_reads_cost_nothing),
		cmocka_unit_test(test_short_runs_are_let_be),
		cmocka_unit_test(test_rewriting_in_place),
		cmocka_unit_test(test_interleaved_streams_and_end_of_disk),
		cmocka_unit_test(test_write_outdates_what_was_read),
		cmocka_unit_test(test_write_in_flight_is_not_read_ahead),
		cmocka_unit_test(test_error_ahead_is_nobodys),
		cmocka_unit_test(test_idle_gives_memory_back),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
