/* SPDX-License-Identifier: Apache-2.0 */
#include "block/core/stack.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macros.h"

/*
 * A back end for these tests: counts what it is given, ends requests when told (`hold`), fails flushes when told; and two
 * filters that only pass on.
 */
static struct {
	_Atomic unsigned ops[BLK_OPS];
	_Atomic unsigned inside, most_inside;
	bool hold;
	int flush_error;
	struct blk_list held;
	unsigned opened, closed, queues;
	uint64_t resized_to;
	unsigned commands;
	unsigned inside_at_command;
} disk;

static int disk_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	if (blk_values_bool(v, "fails"))
		return error_set(e, "Test", "told to fail");
	l->info = (struct blk_info){ .size_bytes = blk_values_number(v, "size"), .block_bytes = 512, .physical_bytes = 512 };
	disk.opened++;
	return 0;
}

static int disk_queue_start(struct blk_layer *l, struct blk_queue *q, struct error *e)
{
	disk.queues++;
	return 0;
}

static void disk_queue_stop(struct blk_layer *l, struct blk_queue *q)
{
	disk.queues--;
}

static void disk_submit(struct blk_layer *l, struct blk_req *r)
{
	disk.ops[r->op]++;
	unsigned inside = ++disk.inside;
	if (inside > disk.most_inside)
		disk.most_inside = inside;
	if (disk.hold) {
		blk_list_push(&disk.held, r);
		return;
	}
	disk.inside--;
	blk_complete(r, r->op == BLK_FLUSH ? disk.flush_error : 0);
}

static int disk_resize(struct blk_layer *l, uint64_t size_bytes, struct error *e)
{
	l->info.size_bytes = disk.resized_to = size_bytes;
	return 0;
}

static int disk_command(struct blk_layer *l, const char *verb, const struct blk_values *args, struct buf *ret, struct error *e)
{
	disk.commands++;
	disk.inside_at_command = disk.inside;
	buf_printf(ret, "{\"n\":%llu}", (unsigned long long)blk_values_number(args, "n"));
	return 0;
}

static void disk_close(struct blk_layer *l)
{
	disk.closed++;
}

static const struct blk_option disk_options[] = {
	{ .name = "size", .type = BLK_OPT_BYTES, .fallback = "1M", .doc = "length" },
	{ .name = "fails", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "at open" },
	{ 0 },
};
static const struct blk_option poke_args[] = { { .name = "n", .type = BLK_OPT_UINT, .required = true, .doc = "a number" }, { 0 } };
static const struct blk_verb disk_verbs[] = {
	{ .name = "poke", .args = poke_args, .quiet = true, .doc = "nothing" },
	{ 0 },
};
static const struct blk_layer_ops disk_ops = {
	.name = "disk", .is_back = true, .options = disk_options, .open = disk_open, .queue_start = disk_queue_start,
	.queue_stop = disk_queue_stop, .submit = disk_submit, .resize = disk_resize, .command = disk_command,
	.verbs = disk_verbs, .close = disk_close,
};

static int pass_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	return 0;
}

static void pass_submit(struct blk_layer *l, struct blk_req *r)
{
	blk_submit(l->below, r);
}

static const struct blk_layer_ops upper_ops = { .name = "upper", .open = pass_open, .submit = pass_submit };
static const struct blk_layer_ops lower_ops = { .name = "lower", .open = pass_open, .submit = pass_submit };
static const struct blk_layer_ops *const drivers[] = { &upper_ops, &lower_ops, &disk_ops, NULL };

static struct blk_stack *open_stack(unsigned queues)
{
	static const char *const filters[] = { "upper", "lower", NULL };
	struct blk_stack_settings settings = { drivers, "disk", filters, queues, BLK_IO_AUTO };
	struct blk_stack *s;
	struct error e = { 0 };

	memset(&disk, 0, sizeof(disk));
	assert_int_equal(blk_stack_open(&settings, &s, &e), 0);
	assert_int_equal(disk.queues, queues);
	return s;
}

static void close_stack(struct blk_stack *s)
{
	struct error e = { 0 };

	assert_int_equal(blk_stack_close(s, &e), 0);
	assert_int_equal(disk.queues, 0);
	assert_int_equal(disk.opened, disk.closed);
}

static void test_order_is_fixed(void **state)
{
	static const char *const bad[][3] = { { "lower", "upper" }, { "upper", "upper" }, { "disk" }, { "other" }, { "" } };
	struct blk_stack *s;

	memset(&disk, 0, sizeof(disk));
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error e = { 0 };
		struct blk_stack_settings settings = { drivers, "disk", bad[i], 1, BLK_IO_AUTO };
		assert_true(blk_stack_open(&settings, &s, &e) < 0);
		assert_true(error_is_set(&e));
	}
	const char *backs[] = { "upper", "disk:fails=on", "disk:colour=red" };
	for (unsigned i = 0; i < ARRAY_SIZE(backs); i++) {
		struct error e = { 0 };
		struct blk_stack_settings settings = { drivers, backs[i], NULL, 1, BLK_IO_AUTO };
		assert_true(blk_stack_open(&settings, &s, &e) < 0);
	}
	assert_int_equal(disk.opened, disk.closed);
}

/* ---- one thread ---- */

#define MANY (BLK_DEPTH_MAX * 3)

static unsigned ended;
static bool all_ended;

static void count_end(struct blk_req *r)
{
	all_ended = ++ended == MANY;
}

static void test_depth_is_held(void **state)
{
	struct blk_stack *s = open_stack(1);
	struct blk_req *r = calloc(MANY, sizeof(*r));
	bool never = false;

	ended = 0;
	all_ended = false;
	disk.hold = true;
	for (unsigned i = 0; i < MANY; i++) {
		r[i] = (struct blk_req){ .op = BLK_WRITE_ZEROES, .off_bytes = i * 512, .len_bytes = 512,
					 .queue = blk_stack_queue(s, 0), .done = count_end };
		blk_stack_submit(s, &r[i]);
	}
	assert_int_equal(disk.inside, BLK_DEPTH_MAX);
	disk.hold = false;
	struct blk_req *held;
	uint64_t last = 0;
	while ((held = blk_list_pop(&disk.held))) { /* in the order of their arrival */
		assert_true(held->off_bytes == last);
		last += 512;
		disk.inside--;
		blk_complete(held, 0);
		blk_queue_run_until(blk_stack_queue(s, 0), &never, 0);
	}
	assert_int_equal(blk_queue_run_until(blk_stack_queue(s, 0), &all_ended, 5000), 0);
	assert_int_equal(ended, MANY);
	assert_true(disk.most_inside <= BLK_DEPTH_MAX);
	free(r);
	close_stack(s);
}

static void test_stats(void **state)
{
	struct blk_stack *s = open_stack(1);
	struct blk_req r = { .op = BLK_WRITE_ZEROES, .len_bytes = 4096, .queue = blk_stack_queue(s, 0), .done = count_end };
	struct buf out = BUF_INIT;

	ended = MANY - 1;
	all_ended = false;
	blk_stack_submit(s, &r);
	assert_int_equal(blk_queue_run_until(blk_stack_queue(s, 0), &all_ended, 5000), 0);
	blk_stack_stats_json(s, NULL, 0, &out);
	assert_non_null(strstr(out.data, "\"guest\":{"));
	assert_non_null(strstr(out.data, "\"write_zeroes\":{\"ops\":1,\"bytes\":4096,\"errors\":0"));
	buf_reset(&out);
	blk_stack_stats_prometheus(s, NULL, 0, "volume=\"v\"", &out);
	assert_non_null(strstr(out.data, "mallee_block_ops_total{volume=\"v\",point=\"disk\",op=\"write_zeroes\"} 1\n"));
	assert_non_null(strstr(out.data, "mallee_block_outstanding{volume=\"v\",point=\"guest\"} 0\n"));
	buf_done(&out);
	close_stack(s);
}

static void write_at(struct blk_stack *s, uint64_t block)
{
	static uint8_t data[4096];
	struct iovec iov = { data, sizeof(data) };
	struct blk_req r = { .op = BLK_WRITE, .off_bytes = block * 4096, .len_bytes = 4096, .iov = &iov, .iov_count = 1,
			     .queue = blk_stack_queue(s, 0), .done = count_end };

	ended = MANY - 1;
	all_ended = false;
	blk_stack_submit(s, &r);
	assert_int_equal(blk_queue_run_until(blk_stack_queue(s, 0), &all_ended, 5000), 0);
}

/* Two writers in turn, each in sequence, and then one that is not. */
static void test_sequential(void **state)
{
	static const uint64_t blocks[] = { 8, 32, 9, 33, 10, 34, 50, 3, 40, 20 };
	struct blk_stack *s = open_stack(1);
	struct buf out = BUF_INIT;

	for (unsigned i = 0; i < ARRAY_SIZE(blocks); i++)
		write_at(s, blocks[i]);
	blk_stack_stats_prometheus(s, NULL, 0, "", &out);
	assert_non_null(strstr(out.data, "mallee_block_sequential_total{point=\"guest\",op=\"write\"} 4\n"));
	assert_non_null(strstr(out.data, "mallee_block_sequential_total{point=\"disk\",op=\"write\"} 4\n"));
	assert_non_null(strstr(out.data, "mallee_block_sequential_total{point=\"guest\",op=\"read\"} 0\n"));
	buf_done(&out);
	close_stack(s);
}

/* ---- several queues under load, while the stack is changed ---- */

#define LOAD_DEPTH 16

struct load {
	struct blk_stack *stack;
	struct blk_req r[LOAD_DEPTH];
	bool stop;            /* the queue's thread's */
	unsigned running;
};

static void again(struct blk_req *r)
{
	struct load *load = r->ctx;

	if (load->stop)
		load->running--;
	else
		blk_stack_submit(load->stack, r);
}

static void load_start(void *ctx)
{
	struct load *load = ctx;

	for (unsigned i = 0; i < LOAD_DEPTH; i++) {
		load->running++;
		blk_stack_submit(load->stack, &load->r[i]);
	}
}

static void load_stop(void *ctx)
{
	((struct load *)ctx)->stop = true;
}

static void load_running(void *ctx)
{
	struct load *load = ctx;

	if (!load->running)
		load->stack = NULL;
}

static void loads(struct blk_stack *s, struct load *load, unsigned queues, bool start)
{
	for (unsigned i = 0; i < queues; i++) {
		struct blk_queue *q = blk_stack_queue(s, i);
		if (start) {
			load[i] = (struct load){ .stack = s };
			for (unsigned k = 0; k < LOAD_DEPTH; k++)
				load[i].r[k] = (struct blk_req){ .op = BLK_WRITE_ZEROES, .len_bytes = 512, .queue = q, .done = again,
								 .ctx = &load[i] };
			blk_queue_call(q, load_start, &load[i]);
			continue;
		}
		blk_queue_call(q, load_stop, &load[i]);
		while (load[i].stack) {
			usleep(1000);
			blk_queue_call(q, load_running, &load[i]);
		}
	}
}

static unsigned heard;

static void on_resized(struct blk_listener *l, uint64_t size_bytes)
{
	heard++;
	assert_int_equal(disk.inside, 0);
}

static void test_changes_under_load(void **state)
{
	struct blk_stack *s = open_stack(3);
	struct load load[3];
	struct error e = { 0 };
	struct buf out = BUF_INIT;
	struct blk_listener listener = { .resized = on_resized };

	heard = 0;
	assert_int_equal(blk_stack_start(s, &e), 0);
	blk_stack_listen(s, &listener);
	loads(s, load, 3, true);
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(blk_stack_barrier(s, 10000, &e), 0);
		assert_int_equal(disk.inside, 0);
		unsigned before = disk.ops[BLK_WRITE_ZEROES];
		usleep(200);
		assert_int_equal(disk.ops[BLK_WRITE_ZEROES], before);
		assert_int_equal(disk.ops[BLK_FLUSH], i * 3 + 1);
		blk_stack_resume(s);
		assert_int_equal(blk_stack_resize(s, (2 + i) << 20, &e), 0);
		assert_int_equal(blk_stack_info(s)->size_bytes, (2 + i) << 20);
		buf_reset(&out);
		assert_int_equal(blk_stack_command(s, "disk", "poke", "n=7", &out, &e), 0);
		assert_string_equal(out.data, "{\"n\":7}");
		assert_int_equal(disk.inside_at_command, 0);
	}
	assert_int_equal(heard, 50);
	assert_true(blk_stack_command(s, "disk", "poke", "", &out, &e) < 0);
	assert_true(blk_stack_command(s, "disk", "push", "n=7", &out, &e) < 0);
	assert_true(blk_stack_command(s, "tape", "poke", "n=7", &out, &e) < 0);
	assert_true(blk_stack_resize(s, 1 << 20, &e) < 0);
	assert_true(blk_stack_resize(s, (100 << 20) + 1, &e) < 0);
	loads(s, load, 3, false);
	blk_stack_unlisten(s, &listener);
	buf_done(&out);
	close_stack(s);
}

static void test_barrier_tells_failure(void **state)
{
	struct blk_stack *s = open_stack(2);
	struct load load[2];
	struct error e = { 0 };

	assert_int_equal(blk_stack_start(s, &e), 0);
	loads(s, load, 2, true);
	disk.flush_error = -EIO;
	assert_int_equal(blk_stack_barrier(s, 10000, &e), -EIO);
	unsigned before = disk.ops[BLK_WRITE_ZEROES];
	while (disk.ops[BLK_WRITE_ZEROES] == before) /* the gate is open again */
		usleep(100);
	loads(s, load, 2, false);
	error_clear(&e);
	assert_int_equal(blk_stack_close(s, &e), -EIO);
	assert_true(error_is_set(&e));
	assert_int_equal(disk.opened, disk.closed);
}

/* ---- what requests are made of ---- */

static void test_iov(void **state)
{
	char a[8] = "abcdefg", b[4] = "hij", flat[12];
	struct iovec iov[2] = { { a, 7 }, { b, 3 } }, part[4];

	assert_int_equal(blk_iov_bytes(iov, 2), 10);
	assert_int_equal(blk_iov_slice(iov, 2, 5, 4, part, 4), 2);
	assert_memory_equal(part[0].iov_base, "fg", 2);
	assert_memory_equal(part[1].iov_base, "hi", 2);
	assert_int_equal(blk_iov_slice(iov, 2, 7, 3, part, 4), 1);
	blk_iov_from(iov, 2, 6, flat, 3);
	assert_memory_equal(flat, "ghi", 3);
	blk_iov_to(iov, 2, 6, "XYZ", 3);
	assert_memory_equal(a, "abcdefX", 7);
	assert_memory_equal(b, "YZj", 3);
	blk_iov_zero(iov, 2, 0, 8);
	assert_memory_equal(b, "\0Zj", 3);
	assert_true(blk_iov_aligned(part, 0, 512));
	assert_false(blk_iov_aligned(iov, 2, 512));
}

static void test_pool(void **state)
{
	struct blk_queue *q;
	struct blk_pool *p;
	struct blk_req *r[3];
	struct error e = { 0 };

	assert_int_equal(blk_queue_new(0, BLK_IO_AUTO, &q, &e), 0);
	assert_int_equal(blk_pool_new(q, 2, 5, 100, &p), 0);
	r[0] = blk_pool_get(p);
	r[1] = blk_pool_get(p);
	r[2] = blk_pool_get(p);
	assert_non_null(r[1]);
	assert_null(r[2]);
	memset(blk_pool_iov(r[0]), 1, 5 * sizeof(struct iovec));
	memset(blk_pool_extra(r[0]), 2, 100);
	assert_ptr_equal(r[1]->queue, q);
	assert_int_equal(((char *)blk_pool_extra(r[1]))[0], 0);
	blk_pool_put(p, r[0]);
	assert_ptr_equal(blk_pool_get(p), r[0]);
	blk_pool_put(p, r[1]);
	blk_pool_put(p, r[0]);
	assert_int_equal(blk_pool_out(p), 0);
	blk_pool_free(p);
	blk_queue_free(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_is_fixed),
		cmocka_unit_test(test_depth_is_held),
		cmocka_unit_test(test_stats),
		cmocka_unit_test(test_sequential),
		cmocka_unit_test(test_changes_under_load),
		cmocka_unit_test(test_barrier_tells_failure),
		cmocka_unit_test(test_iov),
		cmocka_unit_test(test_pool),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
