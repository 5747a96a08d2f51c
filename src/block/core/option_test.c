/* SPDX-License-Identifier: Apache-2.0 */
#include "block/core/option.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const struct blk_option table[] = {
	{ .name = "path", .type = BLK_OPT_TEXT, .required = true, .doc = "the file" },
	{ .name = "direct", .type = BLK_OPT_BOOL, .fallback = "on", .doc = "past the page cache" },
	{ .name = "size", .type = BLK_OPT_BYTES, .min = 512, .max = 1ull << 50, .doc = "length" },
	{ .name = "wait", .type = BLK_OPT_MS, .fallback = "30000", .doc = "how long" },
	{ .name = "mode", .type = BLK_OPT_CHOICE, .choices = "one|two", .fallback = "one", .doc = "which" },
	{ 0 },
};

static void test_values(void **state)
{
	struct blk_values *v;
	struct error e = { 0 };

	assert_int_equal(blk_values_parse("file:path=/a,,b=c,direct=off,size=3M", table, &v, &e), 0);
	assert_string_equal(blk_values_text(v, "path"), "/a,b=c");
	assert_false(blk_values_bool(v, "direct"));
	assert_int_equal(blk_values_number(v, "size"), 3u << 20);
	assert_int_equal(blk_values_number(v, "wait"), 30000);
	assert_string_equal(blk_values_text(v, "mode"), "one");
	blk_values_free(v);
	assert_int_equal(blk_values_parse("file:path=", table, &v, &e), 0);
	assert_string_equal(blk_values_text(v, "path"), "");
	assert_false(blk_values_has(v, "size"));
	blk_values_free(v);
}

static void test_refused(void **state)
{
	static const char *const bad[] = {
		"file",                       /* path is required */
		"file:path=/a,path=/b",       /* twice */
		"file:path=/a,colour=red",    /* unknown */
		"file:path=/a,size=",         /* no number */
		"file:path=/a,size=511",      /* too small */
		"file:path=/a,size=2000T",    /* too large */
		"file:path=/a,size=99999999999999999999T",
		"file:path=/a,size=-1",
		"file:path=/a,size=k",
		"file:path=/a,direct=yes",
		"file:path=/a,mode=on",
		"file:path=/a,mode=",
		"file:path=/a,mode",          /* no value */
		"file:path=/a,wait=1k",       /* a suffix is for bytes */
		"file:path=/a,=x",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct blk_values *v = NULL;
		struct error e = { 0 };
		if (!blk_values_parse(bad[i], table, &v, &e))
			fail_msg("%s was taken", bad[i]);
		assert_true(error_is_set(&e));
		assert_null(v);
	}
}

static void test_name(void **state)
{
	char name[32];
	struct error e = { 0 };

	assert_int_equal(blk_spec_name("file:path=x", name, &e), 0);
	assert_string_equal(name, "file");
	assert_int_equal(blk_spec_name("readahead", name, &e), 0);
	assert_true(blk_spec_name(":path=x", name, &e));
	assert_true(blk_spec_name("", name, &e));
	assert_true(blk_spec_name("0123456789012345678901234567890123456789", name, &e));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
