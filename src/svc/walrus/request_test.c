/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/text.h"
#include "svc/walrus/conditions_priv.h"
#include "svc/walrus/range_priv.h"
#include "svc/walrus/sums_priv.h"
#include "svc/walrus/target_priv.h"

/* The small parsers of a request. */

static void test_target(void **state)
{
	static const struct {
		const char *path, *host, *bucket, *key, *code;
	} cases[] = {
	    {"/", NULL, NULL, NULL, NULL},
	    {"/b", NULL, "b", NULL, NULL},
	    {"/b/", NULL, "b", NULL, NULL},
	    {"/b/k", "10.0.0.1:8774", "b", "k", NULL},
	    {"/b//k", NULL, "b", "/k", NULL},
	    {"/b/../k", NULL, "b", "../k", NULL},
	    {"/b/a%2Fb+%20%2B", NULL, "b", "a/b+ +", NULL},
	    {"/k/l", "b.localhost:8774", "b", "k/l", NULL},
	    {"/", "b.c.s3.localhost", "b.c", NULL, NULL},
	    {"/b/k", "s3.localhost", "b", "k", NULL},
	    {"/b/k", "localhost", "b", "k", NULL},
	    {"/b/k", "notlocalhost", "b", "k", NULL},
	    {"/b/k", ".localhost", "b", "k", NULL},
	    {"/b/%", NULL, NULL, NULL, "InvalidURI"},
	    {"/b/%00", NULL, NULL, NULL, "InvalidURI"},
	    {"/b/%ff", NULL, NULL, NULL, "InvalidURI"},
	    {"//k", NULL, NULL, NULL, "InvalidURI"},
	    {"*", NULL, NULL, NULL, "InvalidURI"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(arena_freep) struct arena *a = arena_new();
		struct target t = {0};
		struct error e = {0};
		int r = target_parse(a, cases[i].path, cases[i].host, &t, &e);

		assert_true((r < 0) == (cases[i].code != NULL));
		if (cases[i].code)
			assert_string_equal(e.code, cases[i].code);
		assert_true(str_eq(t.bucket, cases[i].bucket));
		assert_true(str_eq(t.key, cases[i].key));
	}
}

static void test_range(void **state)
{
	static const struct {
		const char *text;
		uint64_t size;
		int ret;
		uint64_t off, len;
	} cases[] = {
	    {"bytes=0-0", 10, 1, 0, 1},	 {"bytes=2-5", 10, 1, 2, 4},
	    {"bytes=5-", 10, 1, 5, 5},	 {"bytes=-3", 10, 1, 7, 3},
	    {"bytes=-30", 10, 1, 0, 10}, {"bytes=9-99999999999999999999999999", 10, 1, 9, 1},
	    {"bytes=10-", 10, -1, 0, 0}, {"bytes=99999999999999999999999999-", 10, -1, 0, 0},
	    {"bytes=-0", 10, -1, 0, 0},	 {"bytes=0-", 0, -1, 0, 0},
	    {"bytes=-5", 0, -1, 0, 0},	 {"bytes=5-4", 10, 0, 0, 0},
	    {"bytes=-", 10, 0, 0, 0},	 {"bytes=", 10, 0, 0, 0},
	    {"bytes=1", 10, 0, 0, 0},	 {"bytes=1-2,4-5", 10, 0, 0, 0},
	    {"bytes=1-2x", 10, 0, 0, 0}, {"octets=1-2", 10, 0, 0, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t off = 0, len = 0;
		struct error e = {0};
		int r = range_parse(cases[i].text, cases[i].size, &off, &len, &e);

		assert_int_equal(r < 0 ? -1 : r, cases[i].ret);
		assert_int_equal(off, cases[i].off);
		assert_int_equal(len, cases[i].len);
		if (r < 0)
			assert_string_equal(e.code, "InvalidRange");
	}
}

static void test_conditions(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const struct store_object o = {.etag = "abc", .modified_ms = 5000};
	const struct wire_time before = WIRE_TIME_OF(4000), same = WIRE_TIME_OF(5000), none = {0};
	const struct {
		struct conditions c;
		enum conditions_result wanted;
	} cases[] = {
	    {{0}, CONDITIONS_HOLD},
	    {{"\"abc\"", NULL, none, none}, CONDITIONS_HOLD},
	    {{"abc", NULL, none, none}, CONDITIONS_HOLD},
	    {{"*", NULL, none, none}, CONDITIONS_HOLD},
	    {{"\"x\" , W/\"abc\"", NULL, none, none}, CONDITIONS_HOLD},
	    {{"\"x\"", NULL, none, none}, CONDITIONS_FAIL},
	    {{"", NULL, none, none}, CONDITIONS_FAIL},
	    {{NULL, NULL, none, before}, CONDITIONS_FAIL},
	    {{NULL, NULL, none, same}, CONDITIONS_HOLD},
	    {{"abc", NULL, none, before}, CONDITIONS_HOLD},
	    {{NULL, "\"abc\"", none, none}, CONDITIONS_UNMODIFIED},
	    {{NULL, "\"x\"", same, none}, CONDITIONS_HOLD},
	    {{NULL, NULL, same, none}, CONDITIONS_UNMODIFIED},
	    {{NULL, NULL, before, none}, CONDITIONS_HOLD},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(conditions_check(a, &cases[i].c, &o), cases[i].wanted);
}

static void test_sums(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct sums s = {.value = {[SUM_CRC32] = "y/Q5Jg==", [SUM_SHA1] = "x-2"},
			 .type = "COMPOSITE"},
		    back;
	struct store_pair items[SUM_COUNT + 1];
	struct store_pairs pairs = {.items = items};
	unsigned char bytes[DIGEST_MAX];

	sums_to_pairs(&s, items, &pairs.count);
	assert_int_equal(pairs.count, 3);
	sums_from_pairs(&pairs, &back);
	assert_string_equal(back.value[SUM_CRC32], "y/Q5Jg==");
	assert_string_equal(back.value[SUM_SHA1], "x-2");
	assert_null(back.value[SUM_SHA256]);
	assert_string_equal(back.type, "COMPOSITE");
	assert_int_equal(sum_by_name("crc32c"), SUM_CRC32C);
	assert_int_equal(sum_by_name("md5"), SUM_COUNT);
	assert_int_equal(sum_by_header("X-Amz-Checksum-SHA256"), SUM_SHA256);
	assert_true(sum_decode(a, SUM_CRC32, "y/Q5Jg==", bytes));
	assert_int_equal(bytes[0], 0xcb);
	assert_string_equal(sum_encode(a, SUM_CRC32, bytes), "y/Q5Jg==");
	assert_false(sum_decode(a, SUM_CRC32, "y/Q5", bytes));
	assert_false(sum_decode(a, SUM_CRC32, "???", bytes));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_target),
	    cmocka_unit_test(test_range),
	    cmocka_unit_test(test_conditions),
	    cmocka_unit_test(test_sums),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
