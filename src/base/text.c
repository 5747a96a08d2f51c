/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <strings.h>

bool str_eq(const char *a, const char *b)
{
	if (!a || !b)
		return a == b;
	return strcmp(a, b) == 0;
}

bool str_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_suffix(const char *s, const char *suffix)
{
	size_t n = strlen(s), k = strlen(suffix);

	return n >= k && memcmp(s + n - k, suffix, k) == 0;
}

/* One pattern element (literal, escaped literal or '?') against one character; its length, or 0. */
static size_t match_one(const char *p, char ch)
{
	if (*p == '\0')
		return 0;
	if (*p == '?')
		return 1;
	if (*p == '\\' && p[1] != '\0')
		return p[1] == ch ? 2 : 0;
	return *p == ch ? 1 : 0;
}

bool str_wildcard(const char *pattern, const char *s)
{
	const char *p = pattern, *star = NULL, *retry = NULL;

	/* On a mismatch only the last star takes one more character: an earlier one never has to.
	 */
	while (*s) {
		size_t n;

		if (*p == '*') {
			star = ++p;
			retry = s;
			continue;
		}
		n = match_one(p, *s);
		if (n) {
			p += n;
			s++;
		} else if (star) {
			p = star;
			s = ++retry;
		} else {
			return false;
		}
	}
	while (*p == '*')
		p++;
	return *p == '\0';
}

int parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	bool overflow = false;
	uint64_t v = 0;

	if (!s || !*s)
		return -EINVAL;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -EINVAL;
		overflow = overflow || __builtin_mul_overflow(v, 10, &v) ||
			   __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v);
	}
	if (overflow || v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int parse_i64(const char *s, int64_t min, int64_t max, int64_t *ret)
{
	bool negative = s && *s == '-';
	int64_t v;
	uint64_t u;
	int r;

	r = parse_u64(negative ? s + 1 : s, 0, (uint64_t)INT64_MAX + negative, &u);
	if (r < 0)
		return r;
	v = negative ? (int64_t)(0 - u) : (int64_t)u;
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int parse_bool(const char *s, bool *ret)
{
	if (!s)
		return -EINVAL;
	if (strcasecmp(s, "true") == 0)
		*ret = true;
	else if (strcasecmp(s, "false") == 0)
		*ret = false;
	else
		return -EINVAL;
	return 0;
}

int parse_f64(const char *s, double *ret)
{
	char *end;
	double v;

	/* strtod() also takes spaces, hexadecimal, "inf" and "nan": not here. */
	if (!s || !*s || s[strspn(s, "0123456789+-.eE")] != '\0')
		return -EINVAL;
	v = strtod(s, &end);
	if (*end || end == s)
		return -EINVAL;
	if (!isfinite(v))
		return -ERANGE;
	*ret = v;
	return 0;
}

bool utf8_valid(const char *s, size_t len)
{
	const unsigned char *p = (const unsigned char *)s, *end = p + len;

	while (p < end) {
		uint32_t ch = *p;
		size_t more = ch < 0x80	      ? 0
			      : ch >> 5 == 6  ? 1
			      : ch >> 4 == 14 ? 2
			      : ch >> 3 == 30 ? 3
					      : 9;
		static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};

		if (more == 9 || more >= (size_t)(end - p))
			return false;
		if (more)
			ch &= 0x3fu >> more;
		p++;
		for (size_t i = 0; i < more; i++, p++) {
			if (*p >> 6 != 2)
				return false;
			ch = ch << 6 | (*p & 0x3f);
		}
		if (ch < least[more] || ch > 0x10ffff || (ch >= 0xd800 && ch <= 0xdfff))
			return false;
	}
	return true;
}

bool bytes_equal_const(const void *a, const void *b, size_t len)
{
	const volatile unsigned char *x = a, *y = b;
	unsigned char diff = 0;

	for (size_t i = 0; i < len; i++)
		diff |= x[i] ^ y[i];
	return diff == 0;
}
