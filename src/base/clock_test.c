/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/macros.h"

#define T INT64_C(1795341600123) /* 2026-11-22T10:00:00.123Z */

static void test_formats(void **state)
{
	char iso[CLOCK_ISO_LEN], basic[17], http[30];

	clock_format_iso(T, iso);
	assert_string_equal(iso, "2026-11-22T10:00:00.123Z");
	clock_format_basic(T, basic);
	assert_string_equal(basic, "20261122T100000Z");
	clock_format_http(T, http);
	assert_string_equal(http, "Sun, 22 Nov 2026 10:00:00 GMT");
	clock_format_iso(0, iso);
	assert_string_equal(iso, "1970-01-01T00:00:00.000Z");
	clock_format_iso(-1, iso);
	assert_string_equal(iso, "1969-12-31T23:59:59.999Z");
}

static void test_out_of_range_is_clamped(void **state)
{
	char iso[CLOCK_ISO_LEN];

	clock_format_iso(INT64_MAX, iso);
	assert_string_equal(iso, "9999-12-31T23:59:59.999Z");
	clock_format_iso(INT64_MIN, iso);
	assert_string_equal(iso, "0001-01-01T00:00:00.000Z");
}

/* Our calendar against the C library's, a step that is no multiple of a day, over 300 years. */
static void test_agrees_with_libc(void **state)
{
	for (int64_t t = -4000000000; t < 6000000000; t += 86400 * 3 + 12345) {
		char ours[30], theirs[64], iso[CLOCK_ISO_LEN];
		time_t when = (time_t)t;
		struct tm tm;
		int64_t back;

		gmtime_r(&when, &tm);
		strftime(theirs, sizeof(theirs), "%a, %d %b %Y %H:%M:%S GMT", &tm);
		clock_format_http(t * 1000, ours);
		assert_string_equal(ours, theirs);
		assert_int_equal(clock_parse(ours, &back), 0);
		assert_int_equal(back, t * 1000);
		clock_format_iso(t * 1000 + 7, iso);
		assert_int_equal(clock_parse(iso, &back), 0);
		assert_int_equal(back, t * 1000 + 7);
	}
}

static void test_parse(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
	} good[] = {
	    {"2026-11-22T10:00:00Z", T - 123},
	    {"2026-11-22T10:00:00.123Z", T},
	    {"2026-11-22T10:00:00.123456789Z", T},
	    {"2026-11-22T10:00:00.5Z", T - 123 + 500},
	    {"2026-11-22T12:30:00+02:30", T - 123},
	    {"2026-11-22T07:00:00-0300", T - 123},
	    {"20261122T100000Z", T - 123},
	    {"Sun, 22 Nov 2026 10:00:00 GMT", T - 123},
	    {"1795341600", T - 123},
	    {"1795341600.123", T},
	    {"0", 0},
	    {"-1", -1000},
	    {"2024-02-29T00:00:00Z", INT64_C(1709164800000)},
	};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		int64_t ms = 42;

		assert_int_equal(clock_parse(good[i].text, &ms), 0);
		assert_int_equal(ms, good[i].ms);
	}
}

static void test_parse_refuses(void **state)
{
	static const char *const bad[] = {
	    "",
	    " ",
	    "now",
	    "2026-11-22",
	    "2026-11-22T10:00:00",
	    "2026-13-22T10:00:00Z",
	    "2026-02-29T10:00:00Z",
	    "2026-11-31T10:00:00Z",
	    "2026-11-22T24:00:00Z",
	    "2026-11-22T10:60:00Z",
	    "2026-11-22T10:00:61Z",
	    "2026-11-22T10:00:00.Z",
	    "2026-11-22T10:00:00Zx",
	    "2026-11-22T10:00:00+25:00",
	    "2026-1122T10:00:00Z",
	    "0000-01-01T00:00:00Z",
	    "20261122T100000",
	    "Son, 22 Nov 2026 10:00:00 GMT",
	    "Sun, 22 Nov 2026 10:00:00",
	    "Sun, 22 Nov 2026 10:00:00 CET",
	    "Sun",
	    "Sun,",
	    "99999999999999999999",
	    "1e5",
	    "1.",
	    "12 ",
	    "-",
	    ".5",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		int64_t ms = 42;

		if (clock_parse(bad[i], &ms) == 0)
			fail_msg("accepted \"%s\"", bad[i]);
		assert_int_equal(ms, 42);
	}
	assert_int_not_equal(clock_parse(NULL, &(int64_t){0}), 0);
}

static void test_clocks_move(void **state)
{
	int64_t a = clock_mono_ms(), u = clock_unix_ms();

	assert_true(u > INT64_C(1700000000000));
	nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	assert_true(clock_mono_ms() >= a + 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_formats),	     cmocka_unit_test(test_out_of_range_is_clamped),
	    cmocka_unit_test(test_agrees_with_libc), cmocka_unit_test(test_parse),
	    cmocka_unit_test(test_parse_refuses),    cmocka_unit_test(test_clocks_move),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
