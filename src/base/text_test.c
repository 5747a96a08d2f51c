/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/text.h"

static void test_compare(void **state)
{
	assert_true(str_eq(NULL, NULL));
	assert_false(str_eq(NULL, ""));
	assert_true(str_eq("a", "a"));
	assert_true(str_prefix("abc", "ab"));
	assert_false(str_prefix("a", "ab"));
	assert_true(str_suffix("abc", "bc"));
	assert_false(str_suffix("c", "bc"));
	assert_true(bytes_equal_const("abc", "abc", 3));
	assert_false(bytes_equal_const("abc", "abd", 3));
	assert_true(bytes_equal_const("abc", "abd", 2));
}

static void test_wildcards(void **state)
{
	static const struct {
		const char *pattern, *text;
		bool match;
	} cases[] = {
	    {"", "", true},	      {"", "a", false},
	    {"*", "", true},	      {"*", "abc", true},
	    {"a*c", "abbbc", true},   {"a*c", "abbbd", false},
	    {"a?c", "abc", true},     {"a?c", "ac", false},
	    {"?", "", false},	      {"*a*b*", "xxaxxbxx", true},
	    {"*ab", "aab", true},     {"*ab", "abab", true},
	    {"a\\*c", "a*c", true},   {"a\\*c", "abc", false},
	    {"\\?", "?", true},	      {"\\?", "x", false},
	    {"\\\\", "\\", true},     {"a\\", "a\\", true},
	    {"**?", "a", true},	      {"i-*", "i-0123", true},
	    {"I-*", "i-0123", false}, {"*\\**", "a*b", true},
	    {"*\\**", "ab", false},   {"abc", "abcd", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (str_wildcard(cases[i].pattern, cases[i].text) != cases[i].match)
			fail_msg("\"%s\" on \"%s\"", cases[i].pattern, cases[i].text);
	}
}

/* What takes for ever where every star backtracks. */
static void test_wildcards_are_not_exponential(void **state)
{
	char pattern[201], text[2001];
	int64_t start = clock_mono_ms();

	for (size_t i = 0; i < 200; i += 2)
		memcpy(pattern + i, "*a", 2);
	pattern[199] = 'b';
	pattern[200] = '\0';
	memset(text, 'a', 2000);
	text[2000] = '\0';
	assert_false(str_wildcard(pattern, text));
	assert_true(clock_mono_ms() - start < 1000);
}

static void test_integers(void **state)
{
	int64_t i = 99;
	uint64_t u = 99;

	assert_int_equal(parse_i64("-5", -10, 10, &i), 0);
	assert_int_equal(i, -5);
	assert_int_equal(parse_i64("-9223372036854775808", INT64_MIN, INT64_MAX, &i), 0);
	assert_true(i == INT64_MIN);
	assert_int_equal(parse_i64("9223372036854775808", INT64_MIN, INT64_MAX, &i), -ERANGE);
	assert_int_equal(parse_i64("11", -10, 10, &i), -ERANGE);
	assert_true(i == INT64_MIN); /* untouched */
	assert_int_equal(parse_u64("18446744073709551615", 0, UINT64_MAX, &u), 0);
	assert_true(u == UINT64_MAX);
	assert_int_equal(parse_u64("18446744073709551616", 0, UINT64_MAX, &u), -ERANGE);
	assert_int_equal(parse_u64("00012", 0, 20, &u), 0);
	assert_int_equal(u, 12);
	for (const char *const *bad =
		 (const char *const[]){"", "-", "+1", " 1", "1 ", "1x", "0x10", "1.0", "--1", NULL};
	     *bad; bad++) {
		assert_int_equal(parse_i64(*bad, INT64_MIN, INT64_MAX, &i), -EINVAL);
		assert_int_equal(parse_u64(*bad, 0, UINT64_MAX, &u), -EINVAL);
	}
	assert_int_equal(parse_u64("-1", 0, UINT64_MAX, &u), -EINVAL);
	assert_int_equal(parse_i64(NULL, 0, 1, &i), -EINVAL);
	/* No number, however long: not "out of range". */
	assert_int_equal(parse_u64("99999999999999999999999x", 0, UINT64_MAX, &u), -EINVAL);
}

static void test_bool_and_double(void **state)
{
	bool b = false;
	double d = 0;

	assert_int_equal(parse_bool("True", &b), 0);
	assert_true(b);
	assert_int_equal(parse_bool("false", &b), 0);
	assert_false(b);
	assert_int_equal(parse_bool("1", &b), -EINVAL);
	assert_int_equal(parse_bool("", &b), -EINVAL);
	assert_int_equal(parse_f64("-1.5e3", &d), 0);
	assert_true(d == -1500.0);
	assert_int_equal(parse_f64("nan", &d), -EINVAL);
	assert_int_equal(parse_f64("inf", &d), -EINVAL);
	assert_int_equal(parse_f64("0x10", &d), -EINVAL);
	assert_int_equal(parse_f64("1e999", &d), -ERANGE);
	assert_int_equal(parse_f64("1 ", &d), -EINVAL);
	assert_int_equal(parse_f64("", &d), -EINVAL);
}

static void test_hex(void **state)
{
	unsigned char raw[4];
	char text[9];

	hex_encode("\x00\x7f\xff\xa0", 4, text);
	assert_string_equal(text, "007fffa0");
	assert_int_equal(hex_decode("007FffA0", 8, raw), 0);
	assert_memory_equal(raw, "\x00\x7f\xff\xa0", 4);
	assert_int_equal(hex_decode("007", 3, raw), -EINVAL);
	assert_int_equal(hex_decode("0g", 2, raw), -EINVAL);
}

static void test_base64(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	static const struct {
		const char *plain, *coded;
	} cases[] = {{"", ""},
		     {"f", "Zg=="},
		     {"fo", "Zm8="},
		     {"foo", "Zm9v"},
		     {"foob", "Zm9vYg=="},
		     {"fooba", "Zm9vYmE="},
		     {"foobar", "Zm9vYmFy"}};
	static const char *const bad[] = {"Z",	   "Zg",   "Zg=",  "Zg===", "Z===", "====",
					  "Zm9v=", "Zm=v", "Zm9_", "Zm 8=", "Zh==", "Zm9="};
	void *data;
	size_t len;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_string_equal(base64_encode(a, cases[i].plain, strlen(cases[i].plain)),
				    cases[i].coded);
		assert_int_equal(
		    base64_decode(a, cases[i].coded, strlen(cases[i].coded), &data, &len), 0);
		assert_int_equal(len, strlen(cases[i].plain));
		assert_memory_equal(data, cases[i].plain, len);
	}
	assert_int_equal(base64_decode(a, "Zm9v\r\nYmFy\n", 11, &data, &len), 0);
	assert_int_equal(len, 6);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (base64_decode(a, bad[i], strlen(bad[i]), &data, &len) == 0)
			fail_msg("accepted \"%s\"", bad[i]);
	}
}

static void test_base64_all_bytes(void **state)
{
	unsigned char raw[256];

	for (size_t i = 0; i < sizeof(raw); i++)
		raw[i] = (unsigned char)i;
	for (size_t n = 0; n <= sizeof(raw); n++) {
		_cleanup_(arena_freep) struct arena *a = arena_new();
		char *text = base64_encode(a, raw + sizeof(raw) - n, n);
		void *back;
		size_t len;

		assert_int_equal(strlen(text), (n + 2) / 3 * 4);
		assert_int_equal(base64_decode(a, text, strlen(text), &back, &len), 0);
		assert_int_equal(len, n);
		assert_memory_equal(back, raw + sizeof(raw) - n, n);
	}
}

static void test_uri(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	char *out;
	size_t len;

	assert_string_equal(uri_encode(a, "a b/c~_-.", 9, true), "a%20b/c~_-.");
	assert_string_equal(uri_encode(a, "a/\xc3\xa9+", 5, false), "a%2F%C3%A9%2B");
	assert_string_equal(uri_encode(a, "\0", 1, false), "%00");
	assert_int_equal(uri_decode(a, "a%20b+c%2f", 10, false, &out, &len), 0);
	assert_string_equal(out, "a b+c/");
	assert_int_equal(uri_decode(a, "a%20b+c", 7, true, &out, &len), 0);
	assert_string_equal(out, "a b c");
	assert_int_equal(uri_decode(a, "x%00y", 5, false, &out, &len), 0);
	assert_int_equal(len, 3);
	assert_memory_equal(out, "x\0y", 4);
	assert_int_equal(uri_decode(a, "%", 1, false, &out, &len), -EINVAL);
	assert_int_equal(uri_decode(a, "%4", 2, false, &out, &len), -EINVAL);
	assert_int_equal(uri_decode(a, "%4g", 3, false, &out, &len), -EINVAL);
	assert_int_equal(uri_decode(a, "%-1", 3, false, &out, &len), -EINVAL);
	/* The escape's digits end behind len. */
	assert_int_equal(uri_decode(a, "%41", 2, false, &out, &len), -EINVAL);
}

static void test_utf8(void **state)
{
	static const char *const good[] = {"",
					   "abc",
					   "\xc3\xa9",
					   "\xe2\x82\xac",
					   "\xf0\x9f\x8c\xb3",
					   "\xf4\x8f\xbf\xbf",
					   "\xed\x9f\xbf",
					   "\xee\x80\x80",
					   "\xc2\x80"};
	static const char *const bad[] = {"\x80",
					  "\xc3",
					  "\xc0\x80",
					  "\xc1\xbf",
					  "\xe0\x80\x80",
					  "\xe2\x82",
					  "\xed\xa0\x80",
					  "\xf0\x80\x80\x80",
					  "\xf4\x90\x80\x80",
					  "\xff",
					  "\xf8\x88\x80\x80\x80",
					  "\xc3(b",
					  "\xe2\x82z"};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(utf8_valid(good[i], strlen(good[i])));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (utf8_valid(bad[i], strlen(bad[i])))
			fail_msg("accepted case %zu", i);
	}
	assert_true(utf8_valid("a\0b", 3));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_compare),
	    cmocka_unit_test(test_wildcards),
	    cmocka_unit_test(test_wildcards_are_not_exponential),
	    cmocka_unit_test(test_integers),
	    cmocka_unit_test(test_bool_and_double),
	    cmocka_unit_test(test_hex),
	    cmocka_unit_test(test_base64),
	    cmocka_unit_test(test_base64_all_bytes),
	    cmocka_unit_test(test_uri),
	    cmocka_unit_test(test_utf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
