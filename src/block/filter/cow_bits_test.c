/* SPDX-License-Identifier: Apache-2.0 */
#include "block/filter/cow_bits_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macros.h"

static char path[64];
static unsigned syncs; /* of any file */
static bool sync_fails;

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

int __wrap_fdatasync(int fd)
{
	syncs++;
	if (sync_fails) {
		errno = EIO;
		return -1;
	}
	return __real_fdatasync(fd);
}

static int setup(void **state)
{
	strcpy(path, "/tmp/mallee-bits-XXXXXX");
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	return 0;
}

static struct bits *open_map(uint64_t count, const char *boot)
{
	struct bits_settings s = { .path = path, .kind = "test", .unit_bytes = 65536, .count = count, .boot_id = boot };
	struct bits *b = NULL;
	struct error e = { 0 };

	if (bits_open(&s, &b, &e))
		fail_msg("%s", e.message);
	return b;
}

static int try_open(uint64_t count, const char *kind, uint32_t unit, bool damaged_is_set)
{
	struct bits_settings s = { .path = path, .kind = kind, .unit_bytes = unit, .count = count, .damaged_is_set = damaged_is_set };
	struct bits *b = NULL;
	struct error e = { 0 };
	int err = bits_open(&s, &b, &e);

	assert_true(!err || error_is_set(&e));
	if (!err)
		assert_int_equal(bits_sync_now(b), 0);
	bits_close(b);
	return err;
}

static void spoil(uint64_t off, const char *bytes, size_t len)
{
	int fd = open(path, O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, len, (off_t)off), (ssize_t)len);
	close(fd);
}

#define MANY (BITS_PER_PAGE * 3 + 1000)

static void test_bits(void **state)
{
	struct bits *b = open_map(MANY, NULL);
	bool set;

	assert_true(b->created);
	assert_int_equal(bits_run(b, 0, MANY, &set), MANY);
	assert_false(set);
	assert_int_equal(bits_set(b, BITS_PER_PAGE - 5, 200), 200);
	assert_int_equal(bits_set(b, BITS_PER_PAGE - 6, 3), 1);
	assert_int_equal(bits_set(b, BITS_PER_PAGE, 10), 0);
	assert_false(bits_test(b, BITS_PER_PAGE - 7));
	assert_true(bits_test(b, BITS_PER_PAGE - 6));
	assert_true(bits_test(b, BITS_PER_PAGE + 194));
	assert_false(bits_test(b, BITS_PER_PAGE + 195));
	assert_int_equal(bits_run(b, 0, MANY, &set), BITS_PER_PAGE - 6);
	assert_int_equal(bits_run(b, BITS_PER_PAGE - 6, MANY, &set), 201);
	assert_true(set);
	assert_int_equal(bits_run(b, BITS_PER_PAGE - 6, BITS_PER_PAGE + 2, &set), 8);
	assert_int_equal(bits_count_set(b, 0, MANY), 201);
	assert_false(bits_is_durable(b));
	assert_int_equal(bits_sync_now(b), 0);
	assert_true(bits_is_durable(b));
	bits_close(b);
}

/* The process dies: nothing is lost. The host dies: what was not durable is. */
static void test_boots(void **state)
{
	struct bits *b = open_map(MANY, "boot-1");

	bits_set(b, 10, 5);
	assert_int_equal(bits_sync_now(b), 0);
	bits_set(b, 100, 1);
	bits_close(b);
	b = open_map(MANY, "boot-1");
	assert_false(b->created);
	assert_true(b->same_boot);
	assert_int_equal(bits_count_set(b, 0, MANY), 6);
	assert_false(bits_is_durable(b)); /* known to be behind */
	bits_close(b);
	b = open_map(MANY, "boot-2");
	assert_false(b->same_boot);
	assert_int_equal(bits_count_set(b, 0, MANY), 5);
	assert_false(bits_test(b, 100));
	assert_true(bits_is_durable(b));
	bits_close(b);
}

/* A process may be killed between writing a page and syncing it: who reads it next must not take it for durable unsynced. */
static void test_killed_before_sync(void **state)
{
	struct bits *b = open_map(MANY, "boot-1");
	uint8_t slot[BITS_PAGE];
	uint64_t at = 0, page;

	bits_set(b, 10, 5);
	assert_true(bits_page_take(b, &at, &page, slot));
	spoil(bits_slot_offset(page, 1), (char *)slot, sizeof(slot));
	bits_close(b);
	unsigned before = syncs;
	b = open_map(MANY, "boot-1");
	assert_true(bits_is_durable(b)); /* as far as it can see */
	assert_int_equal(syncs, before + 1);
	bits_close(b);
}

/* Any write to a page may be torn: what was durable before it stays. */
static void test_torn(void **state)
{
	uint64_t page = 1;

	for (unsigned round = 0; round < 6; round++) {
		struct bits *b = open_map(MANY, "boot-1");
		assert_int_equal(bits_count_set(b, 0, MANY), round);
		bits_set(b, BITS_PER_PAGE + round, 1);
		assert_int_equal(bits_sync_now(b), 0);
		uint64_t next = bits_slot_offset(page, b->generation[page] + 1);
		bits_close(b);
		spoil(next + 100 * round, "torn", 4); /* a write of the next generation that did not get far */
		b = open_map(MANY, "boot-2");
		assert_int_equal(bits_count_set(b, 0, MANY), round + 1);
		bits_close(b);
	}
}

static void test_torn_first_write(void **state)
{
	struct bits *b = open_map(MANY, "boot-1");

	bits_close(b);
	spoil(bits_slot_offset(2, 1) + 7, "torn", 4);
	b = open_map(MANY, "boot-2");
	assert_int_equal(bits_count_set(b, 0, MANY), 0);
	bits_set(b, BITS_PER_PAGE * 2, 1);
	assert_int_equal(bits_sync_now(b), 0);
	bits_close(b);
	b = open_map(MANY, "boot-3");
	assert_int_equal(bits_count_set(b, 0, MANY), 1);
	bits_close(b);
}

static void test_damage(void **state)
{
	struct bits *b = open_map(MANY, "boot-1");

	bits_set(b, 0, 1);
	assert_int_equal(bits_sync_now(b), 0);
	bits_set(b, 1, 1);
	assert_int_equal(bits_sync_now(b), 0);
	bits_close(b);
	spoil(bits_slot_offset(0, 0) + 70, "x", 1);
	spoil(bits_slot_offset(0, 1) + 70, "x", 1);
	assert_true(try_open(MANY, "test", 65536, false) < 0);
	assert_int_equal(try_open(MANY, "test", 65536, true), 0);
	b = open_map(MANY, NULL);
	assert_int_equal(bits_count_set(b, 0, MANY), BITS_PER_PAGE);
	bits_close(b);
}

static void test_headers(void **state)
{
	struct bits *b = open_map(MANY, "boot-1");

	strcpy(b->header.label, "mine");
	b->header.sequence = 7;
	b->header.complete = true;
	assert_int_equal(bits_header_write(b), 0);
	bits_close(b);
	assert_true(try_open(MANY, "other", 65536, false) < 0);
	assert_true(try_open(MANY, "test", 4096, false) < 0);
	assert_true(try_open(MANY - 1, "test", 65536, false) < 0); /* of a longer volume */
	for (unsigned which = 2; which--;) {
		spoil(which * BITS_PAGE + 500, "torn", 4); /* the older one, each time */
		b = open_map(MANY, "boot-1");
		assert_string_equal(b->header.label, "mine");
		assert_true(b->header.complete && b->header.sequence == 7);
		assert_int_equal(bits_header_write(b), 0);
		bits_close(b);
	}
	spoil(500, "torn", 4);
	spoil(BITS_PAGE + 500, "torn", 4);
	assert_true(try_open(MANY, "test", 65536, false) < 0);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(try_open(MANY, "test", 65536, false), 0);
	assert_int_equal(truncate(path, 5 * BITS_PAGE), 0);
	assert_true(try_open(MANY, "test", 65536, false) < 0);
}

static void test_grow(void **state)
{
	struct bits *b = open_map(100, "boot-1");
	struct error e = { 0 };

	bits_set(b, 99, 1);
	assert_int_equal(bits_grow(b, MANY, &e), 0);
	bits_set(b, MANY - 1, 1);
	assert_int_equal(bits_count_set(b, 0, MANY), 2);
	assert_int_equal(bits_sync_now(b), 0);
	bits_close(b);
	b = open_map(MANY + BITS_PER_PAGE, "boot-2");
	assert_int_equal(bits_count_set(b, 0, MANY + BITS_PER_PAGE), 2);
	assert_true(bits_grow(b, UINT64_C(1) << 50, &e) < 0);
	bits_close(b);
}

/* What is not a map is left as it is, however short it is or many zeroes it begins with. */
static void test_somebody_elses_file(void **state)
{
	static const struct {
		off_t length, word; /* where it says something */
	} files[] = { { 7, 0 }, { 5000, 4990 }, { 3 * BITS_PAGE, BITS_PAGE + 100 }, { 5 * BITS_PAGE, 4 * BITS_PAGE }, { 6 * BITS_PAGE, 6 * BITS_PAGE } };
	char said[8] = "";

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		assert_int_equal(truncate(path, 0) || truncate(path, files[i].length), 0);
		if (files[i].word < files[i].length)
			spoil((uint64_t)files[i].word, "mine", 4);
		assert_true(try_open(100, "test", 65536, true) < 0);
		int fd = open(path, O_RDONLY);
		assert_int_equal(lseek(fd, 0, SEEK_END), files[i].length);
		if (files[i].word < files[i].length) {
			assert_int_equal(pread(fd, said, 4, files[i].word), 4);
			assert_string_equal(said, "mine");
		}
		close(fd);
	}
}

static void read_slot(unsigned which, uint8_t slot[static BITS_PAGE])
{
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, slot, BITS_PAGE, (off_t)bits_slot_offset(0, which)), BITS_PAGE);
	close(fd);
}

/* However often it fails, the slot that holds what is durable stays as it is. */
static void test_failed_sync(void **state)
{
	struct bits *b = open_map(100, "boot-1");
	uint8_t durable[BITS_PAGE], slot[BITS_PAGE];

	bits_set(b, 1, 1);
	assert_int_equal(bits_sync_now(b), 0);
	read_slot(1, durable);
	assert_true(bits_slot_is_valid(durable, 0, 1));
	sync_fails = true;
	for (unsigned i = 2; i < 5; i++) {
		bits_set(b, i, 1);
		assert_int_equal(bits_sync_now(b), -EIO);
		assert_false(bits_is_durable(b));
		read_slot(1, slot);
		assert_memory_equal(slot, durable, BITS_PAGE);
	}
	sync_fails = false;
	assert_int_equal(bits_sync_now(b), 0);
	assert_true(bits_is_durable(b));
	bits_close(b);
	b = open_map(100, "boot-2");
	assert_int_equal(bits_count_set(b, 0, 100), 4);
	bits_close(b);
}

/* CRC-32C's check value, seen in the page's own: a header of known bytes would do as well. */
static void test_pages_are_told_apart(void **state)
{
	struct bits *b = open_map(MANY, "boot-1");
	uint8_t page[BITS_PAGE];
	uint64_t at = 0, which;

	bits_set(b, 0, 1);
	bits_set(b, BITS_PER_PAGE, 1);
	assert_true(bits_page_take(b, &at, &which, page));
	spoil(bits_slot_offset(2, 1), (char *)page, sizeof(page)); /* written to where it does not belong */
	bits_page_written(b, which, false);
	assert_int_equal(bits_sync_now(b), 0);
	bits_close(b);
	b = open_map(MANY, "boot-2");
	assert_int_equal(bits_count_set(b, 0, MANY), 2);
	bits_close(b);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_bits), T(test_boots), T(test_killed_before_sync), T(test_torn), T(test_torn_first_write), T(test_damage), T(test_headers), T(test_grow),
		T(test_pages_are_told_apart), T(test_failed_sync), T(test_somebody_elses_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
