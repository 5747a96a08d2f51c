/* SPDX-License-Identifier: Apache-2.0 */
/* What the page cache has is lent to who can pass it on: where that is, and when it is copied instead. */
#include "block/back/back.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/macros.h"
#include "block/back/file_testkit.h"

#define SIZE (2u << 20)
#define LONG (256u << 10)

static unsigned char noise[SIZE], data[SIZE];

/* Reads as one that can borrow. True: lent, and nothing was copied. In either way it is the noise of there. */
static bool is_lent(struct blk_stack *s, uint64_t off, uint64_t len)
{
	struct iovec iov = { data, len };
	struct blk_req r = { .op = BLK_READ, .off_bytes = off, .len_bytes = len, .iov = &iov, .iov_count = 1, .loan = { .wanted = true } };

	memset(data, 0xa5, len);
	assert_int_equal(kit_request(s, &r), 0);
	if (r.loan.given) {
		assert_true(kit_all(data, len, 0xa5));
		assert_int_equal(pread(r.loan.fd, data, len, (off_t)r.loan.off_bytes), len);
	}
	assert_memory_equal(data, noise + off, len);
	return r.loan.given;
}

static struct blk_stack *open_with_noise(struct place *p, const char *more)
{
	struct blk_stack *s = kit_open(drivers, spec(p, more), BLK_IO_AUTO, 1);

	for (uint32_t i = 0; i < SIZE; i++)
		noise[i] = (unsigned char)(i * 2654435761u >> 13 | 1);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, noise, blk_stack_info(s)->size_bytes), 0);
	return s;
}

static void test_lent(void **state)
{
	struct blk_stack *s = open_with_noise(*state, ",create=2M,direct=off");

	assert_true(is_lent(s, 0, LONG));
	assert_true(is_lent(s, 512, LONG));
	assert_true(is_lent(s, SIZE - LONG - 1536, LONG));
	assert_true(is_lent(s, SIZE - LONG, LONG));
	assert_true(is_lent(s, SIZE / 2, SIZE / 2));
	assert_false(is_lent(s, 0, 4096)); /* sooner copied */
	assert_false(is_lent(s, 0, SIZE)); /* too long to ask for at once */
	memset(data, 0, LONG);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, LONG), 0); /* nobody asked for a loan */
	assert_memory_equal(data, noise, LONG);
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

/* Zeroes are for the front end to see. */
static void test_zeroes(void **state)
{
	struct blk_stack *s = open_with_noise(*state, ",create=2M,direct=off");

	memset(noise, 0, 4096);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, noise, 4096), 0);
	assert_false(is_lent(s, 0, LONG));
	assert_true(is_lent(s, 4096, LONG));
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

static void test_not_in_the_cache(void **state)
{
	struct place *p = *state;
	struct blk_stack *s = open_with_noise(p, ",create=2M,direct=off");
	int fd = open(p->path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0);
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	bool gone = preadv2(fd, &(struct iovec){ data, 512 }, 1, SIZE - LONG, RWF_NOWAIT) < 0; /* a file system in memory keeps it */
	assert_int_equal(close(fd), 0);
	assert_int_equal(is_lent(s, SIZE - LONG, LONG), !gone);
	assert_true(is_lent(s, SIZE - LONG, LONG)); /* it is there now */
	assert_int_equal(blk_stack_close(s, NULL), 0);
	if (!direct_works(p))
		return;
	s = open_with_noise(p, ",create=2M,direct=on");
	assert_false(is_lent(s, 0, LONG));
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

static void test_grown_and_cut(void **state)
{
	struct place *p = *state;
	struct blk_stack *s = open_with_noise(p, ",create=1M,direct=off,discard=on");
	struct iovec iov = { data, LONG };
	struct blk_req beyond = { .op = BLK_READ, .off_bytes = SIZE / 2, .len_bytes = LONG, .iov = &iov, .iov_count = 1,
				  .loan = { .wanted = true } };
	struct error e = { 0 };

	assert_int_equal(blk_stack_resize(s, SIZE, &e), 0);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, noise, SIZE), 0);
	assert_true(is_lent(s, SIZE - LONG, LONG));
	assert_int_equal(truncate(p->path, SIZE / 2), 0); /* by somebody else */
	assert_int_equal(kit_request(s, &beyond), -EIO);
	assert_false(beyond.loan.given);
	assert_true(is_lent(s, 0, LONG));
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(test_lent), TEST(test_zeroes), TEST(test_not_in_the_cache), TEST(test_grown_and_cut) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
