/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "wire/codec.h"

static int parse(struct arena *a, const char *text, size_t len, struct wire_params *p)
{
	struct error e = {0};
	int r = wire_params_parse(a, text, len, p, &e);

	if (r < 0)
		assert_string_equal(e.code, "MalformedQueryString");
	return r;
}

static void test_pairs(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const char *text = "A=1&&B=a+b%2B%C3%A9&C&D=&=x&E=1=2&";
	struct wire_params p;

	assert_int_equal(parse(a, text, strlen(text), &p), 0);
	assert_int_equal(p.count, 6);
	assert_string_equal(wire_params_get(&p, "A"), "1");
	assert_string_equal(wire_params_get(&p, "B"), "a b+\xc3\xa9");
	assert_string_equal(wire_params_get(&p, "C"), "");
	assert_string_equal(wire_params_get(&p, "D"), "");
	assert_string_equal(wire_params_get(&p, ""), "x");
	assert_string_equal(wire_params_get(&p, "E"), "1=2");
	assert_null(wire_params_get(&p, "F"));
}

static void test_empty(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct wire_params p = {.count = 7};

	assert_int_equal(parse(a, "", 0, &p), 0);
	assert_int_equal(p.count, 0);
}

static void test_refused(void **state)
{
	static const char *const bad[] = {"A=%",   "A=%4",  "A=%zz",	  "%ff=1",
					  "A=%00", "A=%c3", "A=%ed%a0%80"};
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct wire_params p;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(parse(a, bad[i], strlen(bad[i]), &p) < 0);
	assert_true(parse(a, "A=\0b", 4, &p) < 0);
}

static void test_too_many(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	struct wire_params p;

	for (int i = 0; i < 4000; i++)
		buf_printf(&text, "%sk%d=v", i ? "&" : "", i);
	assert_int_equal(parse(a, text.data, text.len, &p), 0);
	assert_int_equal(p.count, 4000);
	buf_puts(&text, "&k=v");
	assert_true(parse(a, text.data, text.len, &p) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_pairs),
	    cmocka_unit_test(test_empty),
	    cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_too_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
