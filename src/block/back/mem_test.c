/* SPDX-License-Identifier: Apache-2.0 */
#include "block/back/back.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/macros.h"
#include "block/back/testkit.h"

static const struct blk_layer_ops *const drivers[] = { &blk_mem_ops, &blk_null_ops, NULL };

static void test_sizes(void **state)
{
	static const char *const bad[] = { "mem", "mem:size=4097", "mem:size=4608,block-bytes=4096", "mem:size=1M,block-bytes=8",
					   "null:size=5000", "mem:size=1M,colour=red" };
	struct blk_stack *s;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct blk_stack_settings settings = { drivers, bad[i], NULL, 1, BLK_IO_THREADS };
		struct error e = { 0 };
		assert_true(blk_stack_open(&settings, &s, &e) < 0);
		assert_true(error_is_set(&e));
	}
	s = kit_open(drivers, "mem:size=4608", BLK_IO_THREADS, 1);
	assert_int_equal(blk_stack_info(s)->size_bytes, 4608);
	assert_int_equal(blk_stack_info(s)->block_bytes, 512);
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

static void test_null(void **state)
{
	struct blk_stack *s = kit_open(drivers, "null:size=1T,block-bytes=4096", BLK_IO_THREADS, 1);
	char data[8192];

	memset(data, 7, sizeof(data));
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 4096, data, sizeof(data)), 0);
	assert_int_equal(kit_io(s, BLK_READ, 0, 4096, data, sizeof(data)), 0);
	assert_true(kit_all(data, sizeof(data), 0));
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0);
	assert_int_equal(kit_io(s, BLK_DISCARD, 0, 0, NULL, 1ull << 40), 0);
	assert_int_equal(blk_stack_resize(s, 2ull << 40, NULL), 0);
	assert_int_equal(blk_stack_info(s)->size_bytes, 2ull << 40);
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

static void test_read_only(void **state)
{
	struct blk_stack *s = kit_open(drivers, "mem:size=1M,read-only=on", BLK_IO_THREADS, 1);
	char data[512] = "";

	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, data, 512), -EROFS);
	assert_int_equal(kit_io(s, BLK_WRITE_ZEROES, 0, 0, NULL, 512), -EROFS);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, 512), 0);
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

/* Against a plain array, in pieces of odd lengths and several elements; the disk grows on the way. */
#define DISK (300 * 512u)

static void test_model(void **state)
{
	static char model[2 * DISK], data[64 * 512];
	struct blk_stack *s = kit_open(drivers, "mem:size=153600", BLK_IO_THREADS, 1);
	unsigned seed = getenv("MALLEE_MODEL_SEED") ? (unsigned)atoi(getenv("MALLEE_MODEL_SEED")) : 1;
	unsigned ops = getenv("MALLEE_MODEL_OPS") ? (unsigned)atoi(getenv("MALLEE_MODEL_OPS")) : 20000, size = DISK;

	print_message("seed %u\n", seed);
	memset(model, 0, sizeof(model));
	for (unsigned i = 0; i < ops; i++) {
		unsigned sectors = size / 512, off = (unsigned)rand_r(&seed) % sectors, len = 1 + (unsigned)rand_r(&seed) % 64;
		len = MIN_OF(len, sectors - off) * 512;
		off *= 512;
		unsigned cut = (unsigned)rand_r(&seed) % (len + 1), what = (unsigned)rand_r(&seed) % 4;
		struct iovec iov[2] = { { data, cut }, { data + cut, len - cut } };
		struct blk_req r = { .op = BLK_READ, .off_bytes = off, .len_bytes = len, .iov = iov, .iov_count = 2 };
		if (what == 0) {
			for (unsigned k = 0; k < len; k++)
				data[k] = (char)rand_r(&seed);
			r.op = BLK_WRITE;
			memcpy(model + off, data, len);
		} else if (what == 1) {
			r.op = BLK_WRITE_ZEROES;
			memset(model + off, 0, len);
		}
		assert_int_equal(kit_request(s, &r), 0);
		if (what > 1)
			assert_memory_equal(data, model + off, len);
		if (i == ops / 2) {
			size = 2 * DISK;
			assert_int_equal(blk_stack_resize(s, size, NULL), 0);
		}
	}
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_null),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_model),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
