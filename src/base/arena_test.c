/* SPDX-License-Identifier: Apache-2.0 */
#include <stdalign.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/buf.h"

static void test_zeroed_and_aligned(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();

	for (size_t size = 0; size < 5000; size += 37) {
		unsigned char *p = arena_alloc(a, size);

		assert_int_equal((uintptr_t)p % alignof(max_align_t), 0);
		for (size_t i = 0; i < size; i++)
			assert_int_equal(p[i], 0);
		memset(p, 0xa5, size); /* so that an overlap would show in the next one */
	}
}

static void test_pieces_do_not_overlap(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	enum { N = 300 };
	unsigned char *p[N];
	size_t size[N];

	for (size_t i = 0; i < N; i++) {
		size[i] = i % 7 == 0 ? 100000 + i : i * 13;
		p[i] = arena_alloc(a, size[i]);
		memset(p[i], (int)(i & 0xff), size[i]);
	}
	for (size_t i = 0; i < N; i++) {
		for (size_t k = 0; k < size[i]; k++)
			assert_int_equal(p[i][k], i & 0xff);
	}
}

static void test_size_zero_is_unique(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();

	assert_ptr_not_equal(arena_alloc(a, 0), arena_alloc(a, 0));
}

static void test_strings(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	char long_text[9000];

	memset(long_text, 'x', sizeof(long_text));
	long_text[sizeof(long_text) - 1] = '\0';
	assert_null(arena_strdup(a, NULL));
	assert_string_equal(arena_strdup(a, ""), "");
	assert_string_equal(arena_strndup(a, "abcdef", 3), "abc");
	assert_string_equal(arena_strndup(a, NULL, 0), "");
	assert_string_equal(arena_printf(a, "%d-%s", 7, "b"), "7-b");
	assert_string_equal(arena_printf(a, "%s", long_text), long_text);
	assert_memory_equal(arena_memdup(a, "a\0b", 3), "a\0b", 3);
	assert_true(arena_used(a) >= 9000);
}

static void test_free_of_null(void **state)
{
	arena_free(NULL);
}

static void test_buf_grows(void **state)
{
	_cleanup_(buf_done) struct buf b = BUF_INIT;

	for (int i = 0; i < 10000; i++) {
		buf_printf(&b, "%04d", i);
		assert_int_equal(b.len, 4 * (i + 1));
		assert_int_equal(b.data[b.len], 0);
	}
	assert_memory_equal(b.data + 4 * 1234, "1234", 4);
	buf_reset(&b);
	assert_int_equal(b.len, 0);
	buf_append(&b, "a\0b", 3);
	buf_putc(&b, 'c');
	assert_int_equal(b.len, 4);
	assert_memory_equal(b.data, "a\0bc", 5);
}

static void test_buf_steal(void **state)
{
	struct buf b = BUF_INIT;
	char *s = buf_steal(&b);

	assert_string_equal(s, "");
	free(s);
	buf_puts(&b, "text");
	s = buf_steal(&b);
	assert_string_equal(s, "text");
	assert_null(b.data);
	assert_int_equal(b.len, 0);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_zeroed_and_aligned),
	    cmocka_unit_test(test_pieces_do_not_overlap),
	    cmocka_unit_test(test_size_zero_is_unique),
	    cmocka_unit_test(test_strings),
	    cmocka_unit_test(test_free_of_null),
	    cmocka_unit_test(test_buf_grows),
	    cmocka_unit_test(test_buf_steal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
