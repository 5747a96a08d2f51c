/* SPDX-License-Identifier: Apache-2.0 */
#include "block/filter/filter.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macros.h"
#include "block/filter/testkit.h"
#include "block/filter/throttle_priv.h"

#define S 1000000000ull
#define START (1000 * S) /* of the model's clock */

/* ---- the arithmetic, with a clock of its own ---- */

static struct limiter limiter_of(enum limit which, uint64_t rate, uint64_t burst_ms)
{
	struct limit_settings s = { .burst_ms = burst_ms };
	struct limiter m = { 0 };

	s.rate[which] = rate;
	limiter_set(&m, &s, START);
	return m;
}

/* A client that always has something waiting: how many go in the time. */
static uint64_t saturate(struct limiter *m, const struct cost *c, uint64_t from, uint64_t for_ns)
{
	uint64_t n = 0;

	while (limiter_reserve(m, c, from) < from + for_ns)
		n++;
	return n;
}

static void test_rates(void **state)
{
	static const uint64_t rates[] = { 1, 3, 7, 100, 3000, 16000, 999983, 250000000 };
	const struct cost one = { .amount = { 1, 4096 } };

	for (unsigned i = 0; i < ARRAY_SIZE(rates); i++) {
		struct limiter m = limiter_of(LIMIT_IOPS, rates[i], 0);
		uint64_t span = rates[i] > 1000000 ? S / 100 : 10 * S;
		uint64_t n = saturate(&m, &one, START, span), want = rates[i] * (span / 1000) / (S / 1000);
		assert_in_range(n, want, want + 1);
	}
	/* bytes, in sizes that divide nothing */
	struct limiter m = limiter_of(LIMIT_BPS, 125 << 20, 0);
	uint64_t bytes = 0, at;
	unsigned seed = 1;
	do {
		struct cost c = { .amount = { 1, 512 * (1 + (unsigned)rand_r(&seed) % 2000) } };
		at = limiter_reserve(&m, &c, START);
		bytes += c.amount[LIMIT_BYTES];
	} while (at < START + 10 * S);
	assert_true(bytes > 10 * (125ull << 20) * 999 / 1000 && bytes < 10 * (125ull << 20) * 1001 / 1000);
}

static void test_burst(void **state)
{
	const struct cost one = { .amount = { 1, 4096 } };
	struct limiter m = limiter_of(LIMIT_IOPS, 100, 1000);

	assert_int_equal(saturate(&m, &one, START, 1), 101); /* a second's worth, and the one that finds it not empty */
	for (unsigned i = 0; i < 10; i++)
		limiter_reserve(&m, &one, START);
	/* idle for long: as much again, no more */
	assert_int_equal(saturate(&m, &one, START + 100 * S, 1), 101);
	/* gp2: 100 a second saved up to 5,400,000, spent at 3000 a second at most */
	struct limit_settings s = { .burst = { 5400000, 0 }, .burst_ms = 0 };
	s.rate[LIMIT_IOPS] = 100;
	s.rate[LIMIT_IOPS_PEAK] = 3000;
	m = (struct limiter){ 0 };
	limiter_set(&m, &s, START);
	assert_in_range(saturate(&m, &one, START, 100 * S), 300000, 300002);
	/* 5.4 million last for 5,400,000 / (3000 - 100) seconds */
	saturate(&m, &one, START, 1900 * S);
	assert_in_range(saturate(&m, &one, START + 1900 * S, 100 * S), 9990, 10010);
}

static void test_large(void **state)
{
	struct limiter m = limiter_of(LIMIT_BPS, 1 << 20, 20);
	const struct cost large = { .amount = { 1, 32 << 20 } }, small = { .amount = { 1, 512 } };

	assert_int_equal(limiter_reserve(&m, &large, START), START); /* larger than the bucket: goes, and is paid for */
	assert_int_equal(limiter_reserve(&m, &small, START), START + 32 * S - 20000000);
	m = limiter_of(LIMIT_BPS, 1, 0);
	const struct cost huge = { .amount = { 1, UINT64_MAX } };
	limiter_reserve(&m, &huge, START);
	limiter_reserve(&m, &huge, START); /* no overflow */
	assert_true(limiter_reserve(&m, &small, START) > START + 1000000 * S);
}

static void test_directions(void **state)
{
	const struct cost read = { .amount = { 1, 4096 } }, write = { .amount = { 1, 4096 }, .write = true };
	struct limiter m = limiter_of(LIMIT_IOPS_WRITE, 10, 0);

	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(limiter_reserve(&m, &read, START), START);
	assert_int_equal(limiter_reserve(&m, &write, START), START);
	assert_int_equal(limiter_reserve(&m, &write, START), START + S / 10);
	m = limiter_of(LIMIT_BPS_READ, 4096, 0);
	limiter_reserve(&m, &read, START);
	assert_int_equal(limiter_reserve(&m, &write, START), START);
	assert_int_equal(limiter_reserve(&m, &read, START), START + S);
}

static void test_change_keeps_debt(void **state)
{
	struct limiter m = limiter_of(LIMIT_BPS, 1000, 0);
	const struct cost debt = { .amount = { 1, 10000 } }, one = { .amount = { 1, 1 } };
	struct limit_settings s = m.settings;

	limiter_reserve(&m, &debt, START); /* 10 s */
	s.rate[LIMIT_BPS] = 10000;         /* now 0.5 s of the 5 that are left: half the debt is paid */
	limiter_set(&m, &s, START + 5 * S);
	assert_int_equal(limiter_reserve(&m, &one, START + 5 * S), START + 5 * S + S / 2);
	limiter_refund(&m, &one);
	s.rate[LIMIT_BPS] = 0;
	limiter_set(&m, &s, START + 5 * S);
	assert_false(limiter_active(&m));
	assert_int_equal(limiter_reserve(&m, &debt, START + 5 * S), START + 5 * S);
}

/* ---- the filter ---- */

static void test_refusals(void **state)
{
	static const char *const bad[] = { "throttle:iops=-1", "throttle:io-bytes=0", "throttle:bps=x", "throttle:speed=1" };
	struct blk_stack *s;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error e = { 0 };
		assert_true(kit_try(&blk_throttle_ops, bad[i], "mem:size=1M", 1, &s, &e) < 0);
	}
}

struct load {
	struct blk_stack *stack;
	struct blk_req r[32];
	struct iovec iov;
	char *data;
	bool stop;
	unsigned running, done; /* the queue's thread's */
	double last, gap;       /* the longest time without a word: what the machine had no processor for us */
	bool ended;
};

static void again(struct blk_req *r)
{
	struct load *load = r->ctx;

	assert_int_equal(r->result, 0);
	double now = kit_now();
	load->gap = MAX_OF(load->gap, now - load->last);
	load->last = now;
	load->done++;
	if (!load->stop)
		blk_stack_submit(load->stack, r);
	else
		load->ended = --load->running == 0;
}

static void load_begin(struct load *load, struct blk_stack *s, unsigned queue, unsigned depth, size_t len)
{
	*load = (struct load){ .stack = s, .running = depth };
	load->data = calloc(1, len);
	load->iov = (struct iovec){ load->data, len };
	for (unsigned i = 0; i < depth; i++)
		load->r[i] = (struct blk_req){ .op = BLK_READ, .len_bytes = len, .iov = &load->iov, .iov_count = 1,
					       .queue = blk_stack_queue(s, queue), .done = again, .ctx = load };
}

static void load_submit(void *ctx)
{
	struct load *load = ctx;

	for (unsigned i = 0; i < load->running; i++)
		blk_stack_submit(load->stack, &load->r[i]);
}

static void load_stop(void *ctx)
{
	((struct load *)ctx)->stop = true;
}

/* Requests a second for so long, after a first while. */
static double measure(const char *spec, unsigned depth, size_t len, int ms, double *ret_gap)
{
	struct blk_stack *s = kit_open(&blk_throttle_ops, spec, "mem:size=4M", 1);
	struct load load;

	load_begin(&load, s, 0, depth, len);
	load_submit(&load);
	kit_run(s, 100);
	unsigned before = load.done;
	double start = kit_now();
	load.gap = 0;
	load.last = start;
	kit_run(s, ms);
	double rate = (load.done - before) / (kit_now() - start);
	*ret_gap = load.gap;
	load.stop = true;
	kit_command(s, "throttle", "set", "iops=0,bps=0,iops-rd=0");
	assert_int_equal(blk_queue_run_until(blk_stack_queue(s, 0), &load.ended, 5000), 0);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	free(load.data);
	return rate;
}

static void test_real_rates(void **state)
{
	static const struct {
		const char *spec;
		unsigned depth;
		size_t len;
		double want;
	} cases[] = {
		{ "throttle:iops=2000", 8, 4096, 2000 },
		{ "throttle:iops=2000", 1, 4096, 2000 },
		{ "throttle:iops-rd=500,iops-wr=1", 4, 4096, 500 },
		{ "throttle:bps=50M", 4, 65536, 800 },
		{ "throttle:iops=1000", 4, 1 << 20, 250 }, /* each counts as four */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		double gap, rate = measure(cases[i].spec, cases[i].depth, cases[i].len, 500, &gap);
		print_message("%s depth %u: %.1f of %.0f, longest gap %.1f ms\n", cases[i].spec, cases[i].depth, rate, cases[i].want,
			      gap * 1e3);
		if (gap < 0.01) /* a machine that had no processor for us says nothing about the filter */
			assert_true(rate > 0.9 * cases[i].want);
		assert_true(rate < 1.10 * cases[i].want); /* 500 ms, and a burst after a stop */
	}
}

static void test_unlimited_and_flush(void **state)
{
	struct blk_stack *s = kit_open(&blk_throttle_ops, "throttle:iops=1,burst-ms=0", "mem:size=1M", 1);
	char data[512];
	bool done = false;
	struct iovec iov = { data, 512 };
	struct blk_req r = { .op = BLK_READ, .len_bytes = 512, .iov = &iov, .iov_count = 1, .queue = blk_stack_queue(s, 0),
			     .done = kit_done, .ctx = &done };

	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, 512), 0); /* the first goes */
	blk_stack_submit(s, &r);
	kit_run(s, 20);
	assert_false(done);
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0); /* overtakes */
	assert_false(done);
	kit_command(s, "throttle", "set", "iops=0"); /* releases */
	assert_int_equal(blk_queue_run_until(r.queue, &done, 200), 0);
	double start = kit_now();
	for (unsigned i = 0; i < 1000; i++)
		kit_io(s, BLK_READ, 0, 0, data, 512);
	assert_true(kit_now() - start < 0.5);
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

static void test_change_retimes(void **state)
{
	struct blk_stack *s = kit_open(&blk_throttle_ops, "throttle:bps=1k,burst-ms=0", "mem:size=1M", 1);
	char data[4096];
	bool done = false;
	struct iovec iov = { data, 4096 };
	struct blk_req r = { .op = BLK_WRITE, .len_bytes = 4096, .iov = &iov, .iov_count = 1, .queue = blk_stack_queue(s, 0),
			     .done = kit_done, .ctx = &done };
	double start = kit_now();

	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, data, 4096), 0);
	blk_stack_submit(s, &r); /* in 4 s */
	kit_run(s, 10);
	kit_command(s, "throttle", "set", "bps=64k"); /* the debt of 4 kB: in 62 ms */
	kit_command(s, "throttle", "set", "bps=32k"); /* in 125 */
	assert_int_equal(blk_queue_run_until(r.queue, &done, 3000), 0);
	assert_true(kit_now() - start > 0.08);
	struct buf out = BUF_INIT;
	assert_int_equal(blk_stack_command(s, "throttle", "show", NULL, &out, NULL), 0);
	assert_non_null(strstr(out.data, "\"bps\":32768,"));
	buf_reset(&out);
	blk_stack_stats_json(s, NULL, 0, &out);
	assert_non_null(strstr(out.data, "\"held\":1"));
	buf_done(&out);
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

/* Requests of a queue keep their order, also where one that is cheap stands behind one that is not. */
static struct blk_req *order[64];
static unsigned order_count;

static void note_order(struct blk_req *r)
{
	order[order_count++] = r;
	*(bool *)r->ctx = order_count == 64;
}

static void test_order(void **state)
{
	struct blk_stack *s = kit_open(&blk_throttle_ops, "throttle:bps=10M,iops-wr=5000", "mem:size=1M", 1);
	static char data[65536];
	static struct blk_req r[64];
	struct iovec iov[2] = { { data, 512 }, { data, 65536 } };
	bool all = false;

	order_count = 0;
	for (unsigned i = 0; i < 64; i++) {
		r[i] = (struct blk_req){ .op = i % 3 ? BLK_READ : BLK_WRITE, .len_bytes = i % 5 ? 512 : 65536, .iov = &iov[i % 5 ? 0 : 1],
					 .iov_count = 1, .queue = blk_stack_queue(s, 0), .done = note_order, .ctx = &all };
		blk_stack_submit(s, &r[i]);
	}
	assert_int_equal(blk_queue_run_until(blk_stack_queue(s, 0), &all, 5000), 0);
	for (unsigned i = 0; i < 64; i++)
		assert_ptr_equal(order[i], &r[i]);
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

/* Queues that all want more share what there is, while limits change. */
static void test_queues(void **state)
{
	struct blk_stack *s = kit_open(&blk_throttle_ops, "throttle:iops=3000", "mem:size=1M", 3);
	struct load load[3];
	unsigned sum = 0;

	assert_int_equal(blk_stack_start(s, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		load_begin(&load[i], s, i, 4 << i, 4096); /* depth does not buy a larger part */
		blk_queue_call(blk_stack_queue(s, i), load_submit, &load[i]);
	}
	usleep(800000);
	for (unsigned i = 0; i < 200; i++) {
		char args[64];
		snprintf(args, sizeof(args), i % 2 ? "iops=3000,bps=0" : "bps=12M,iops=%u", 2000 + i * 10);
		kit_command(s, "throttle", "set", args);
		usleep(1000);
	}
	for (unsigned i = 0; i < 3; i++)
		blk_queue_call(blk_stack_queue(s, i), load_stop, &load[i]);
	kit_command(s, "throttle", "set", "iops=0,bps=0");
	assert_int_equal(blk_stack_barrier(s, 5000, NULL), 0);
	blk_stack_resume(s);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		print_message("queue %u: %u\n", i, load[i].done);
		sum += load[i].done;
		free(load[i].data);
	}
	for (unsigned i = 0; i < 3; i++) /* a third each, where there are processors for all three */
		assert_true(load[i].done > sum / 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rates),
		cmocka_unit_test(test_burst),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_directions),
		cmocka_unit_test(test_change_keeps_debt),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_real_rates),
		cmocka_unit_test(test_unlimited_and_flush),
		cmocka_unit_test(test_change_retimes),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_queues),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
