/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/macros.h"
#include "base/text.h"

/* Years 1 to 9999: what the formats can hold. */
#define MS_MIN INT64_C(-62135596800000)
#define MS_MAX INT64_C(253402300799999)

static const char day_names[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char month_names[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					"Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

struct civil {
	int64_t year, month, day, hour, minute, second, ms;
	int64_t weekday; /* 0 is Sunday */
};

static int64_t now_ms(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t clock_unix_ms(void)
{
	return now_ms(CLOCK_REALTIME);
}

int64_t clock_mono_ms(void)
{
	return now_ms(CLOCK_MONOTONIC);
}

static bool leap(int64_t year)
{
	return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int64_t days_of_month(int64_t year, int64_t month)
{
	static const int days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	return days[month - 1] + (month == 2 && leap(year));
}

/* Days from 0001-01-01 to the first day of year (both proleptic Gregorian). */
static int64_t days_before_year(int64_t year)
{
	int64_t y = year - 1;

	return y * 365 + y / 4 - y / 100 + y / 400;
}

#define DAYS_TO_1970 719162

static void civil_of(int64_t unix_ms, struct civil *c)
{
	int64_t ms = MIN_OF(MAX_OF(unix_ms, MS_MIN), MS_MAX) - MS_MIN; /* since year 1 */
	int64_t days = ms / 86400000, rest = ms % 86400000;

	c->weekday = (days + 1) % 7; /* 0001-01-01 was a Monday */
	c->year = days / 366 + 1;
	while (days >= days_before_year(c->year + 1))
		c->year++;
	days -= days_before_year(c->year);
	c->month = 1;
	while (days >= days_of_month(c->year, c->month))
		days -= days_of_month(c->year, c->month++);
	c->day = days + 1;
	c->hour = rest / 3600000;
	c->minute = rest / 60000 % 60;
	c->second = rest / 1000 % 60;
	c->ms = rest % 1000;
}

/* Decimal digits of value, right-aligned in width characters. */
static char *put_digits(char *out, int64_t value, int width)
{
	for (int i = width - 1; i >= 0; i--, value /= 10)
		out[i] = (char)('0' + value % 10);
	return out + width;
}

static char *put_text(char *out, const char *s)
{
	while (*s)
		*out++ = *s++;
	return out;
}

void clock_format_iso(int64_t unix_ms, char out[static CLOCK_ISO_LEN])
{
	struct civil c;

	civil_of(unix_ms, &c);
	out = put_text(put_digits(out, c.year, 4), "-");
	out = put_text(put_digits(out, c.month, 2), "-");
	out = put_text(put_digits(out, c.day, 2), "T");
	out = put_text(put_digits(out, c.hour, 2), ":");
	out = put_text(put_digits(out, c.minute, 2), ":");
	out = put_text(put_digits(out, c.second, 2), ".");
	*put_text(put_digits(out, c.ms, 3), "Z") = '\0';
}

void clock_format_basic(int64_t unix_ms, char out[static 17])
{
	struct civil c;

	civil_of(unix_ms, &c);
	out = put_digits(put_digits(put_digits(out, c.year, 4), c.month, 2), c.day, 2);
	out = put_text(out, "T");
	out = put_digits(put_digits(put_digits(out, c.hour, 2), c.minute, 2), c.second, 2);
	*put_text(out, "Z") = '\0';
}

void clock_format_http(int64_t unix_ms, char out[static 30])
{
	struct civil c;

	civil_of(unix_ms, &c);
	out = put_text(put_text(out, day_names[c.weekday]), ", ");
	out = put_text(put_digits(out, c.day, 2), " ");
	out = put_text(put_text(out, month_names[c.month - 1]), " ");
	out = put_text(put_digits(out, c.year, 4), " ");
	out = put_text(put_digits(out, c.hour, 2), ":");
	out = put_text(put_digits(out, c.minute, 2), ":");
	*put_text(put_digits(out, c.second, 2), " GMT") = '\0';
}

/* ---- parsing: each take_… moves *s behind what it accepts ---- */

static bool take_digits(const char **s, int width, int64_t *ret)
{
	int64_t v = 0;

	for (int i = 0; i < width; i++) {
		char ch = (*s)[i];

		if (ch < '0' || ch > '9')
			return false;
		v = v * 10 + (ch - '0');
	}
	*s += width;
	*ret = v;
	return true;
}

static bool take_char(const char **s, char ch)
{
	if (**s != ch)
		return false;
	(*s)++;
	return true;
}

static int civil_to_ms(const struct civil *c, int64_t offset_minutes, int64_t *ret)
{
	int64_t days, ms;

	if (c->year < 1 || c->month < 1 || c->month > 12 || c->day < 1 ||
	    c->day > days_of_month(c->year, c->month) || c->hour > 23 || c->minute > 59 ||
	    c->second > 60)
		return -EINVAL;
	days = days_before_year(c->year) - DAYS_TO_1970 + c->day - 1;
	for (int64_t m = 1; m < c->month; m++)
		days += days_of_month(c->year, m);
	ms = ((days * 24 + c->hour) * 60 + c->minute - offset_minutes) * 60000 + c->second * 1000 +
	     c->ms;
	if (ms < MS_MIN || ms > MS_MAX)
		return -EINVAL;
	*ret = ms;
	return 0;
}

/* Fraction of a second behind the '.'; digits past the millisecond are dropped. */
static bool take_fraction(const char **s, int64_t *ret_ms)
{
	int64_t ms = 0;
	int n = 0;

	for (; **s >= '0' && **s <= '9'; (*s)++, n++) {
		if (n < 3)
			ms = ms * 10 + (**s - '0');
	}
	for (int i = n; i < 3; i++)
		ms *= 10;
	*ret_ms = ms;
	return n > 0;
}

static bool take_zone(const char **s, int64_t *ret_minutes)
{
	int64_t hours, minutes, sign = **s == '-' ? -1 : 1;

	if (take_char(s, 'Z') || take_char(s, 'z')) {
		*ret_minutes = 0;
		return true;
	}
	if (!take_char(s, '+') && !take_char(s, '-'))
		return false;
	if (!take_digits(s, 2, &hours))
		return false;
	take_char(s, ':');
	if (!take_digits(s, 2, &minutes) || hours > 23 || minutes > 59)
		return false;
	*ret_minutes = sign * (hours * 60 + minutes);
	return true;
}

static int parse_iso(const char *s, int64_t *ret)
{
	struct civil c = {0};
	int64_t offset = 0;
	bool dashed;

	if (!take_digits(&s, 4, &c.year))
		return -EINVAL;
	dashed = take_char(&s, '-');
	if (!take_digits(&s, 2, &c.month) || (dashed && !take_char(&s, '-')) ||
	    !take_digits(&s, 2, &c.day) || !take_char(&s, 'T') || !take_digits(&s, 2, &c.hour) ||
	    (dashed && !take_char(&s, ':')) || !take_digits(&s, 2, &c.minute) ||
	    (dashed && !take_char(&s, ':')) || !take_digits(&s, 2, &c.second))
		return -EINVAL;
	if (take_char(&s, '.') && !take_fraction(&s, &c.ms))
		return -EINVAL;
	if (!take_zone(&s, &offset) || *s)
		return -EINVAL;
	return civil_to_ms(&c, offset, ret);
}

static int parse_http(const char *s, int64_t *ret)
{
	struct civil c = {0};
	size_t i;

	for (i = 0; i < 7 && !str_prefix(s, day_names[i]); i++)
		;
	if (i == 7)
		return -EINVAL;
	s += 3;
	if (!take_char(&s, ',') || !take_char(&s, ' ') || !take_digits(&s, 2, &c.day) ||
	    !take_char(&s, ' '))
		return -EINVAL;
	for (i = 0; i < 12 && !str_prefix(s, month_names[i]); i++)
		;
	if (i == 12)
		return -EINVAL;
	c.month = (int64_t)i + 1;
	s += 3;
	if (!take_char(&s, ' ') || !take_digits(&s, 4, &c.year) || !take_char(&s, ' ') ||
	    !take_digits(&s, 2, &c.hour) || !take_char(&s, ':') || !take_digits(&s, 2, &c.minute) ||
	    !take_char(&s, ':') || !take_digits(&s, 2, &c.second))
		return -EINVAL;
	if (!str_eq(s, " GMT") && !str_eq(s, " UTC") && !str_eq(s, " +0000"))
		return -EINVAL;
	return civil_to_ms(&c, 0, ret);
}

/* [-]digits[.digits]; at most 12 digits of seconds, so that the product cannot overflow. */
static int parse_epoch(const char *s, int64_t *ret)
{
	bool negative = take_char(&s, '-');
	int64_t seconds = 0, ms = 0;
	int n = 0;

	for (; *s >= '0' && *s <= '9' && n < 13; s++, n++)
		seconds = seconds * 10 + (*s - '0');
	if (n == 0 || n > 12)
		return -EINVAL;
	if (take_char(&s, '.') && !take_fraction(&s, &ms))
		return -EINVAL;
	ms += seconds * 1000;
	if (*s || ms > MS_MAX)
		return -EINVAL;
	*ret = negative ? MAX_OF(-ms, MS_MIN) : ms;
	return 0;
}

int clock_parse(const char *s, int64_t *ret_unix_ms)
{
	if (!s)
		return -EINVAL;
	if (parse_iso(s, ret_unix_ms) == 0 || parse_http(s, ret_unix_ms) == 0)
		return 0;
	return parse_epoch(s, ret_unix_ms);
}
