/* SPDX-License-Identifier: Apache-2.0 */
/* Hexadecimal, base64 and percent-encoding (declared in text.h). */
#include "base/text.h"

#include <errno.h>
#include <string.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

void hex_encode(const void *data, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++) {
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	*out = '\0';
}

int hex_decode(const char *s, size_t len, void *out)
{
	unsigned char *p = out;

	if (len % 2)
		return -EINVAL;
	for (size_t i = 0; i < len; i += 2) {
		int hi = hex_digit(s[i]), lo = hex_digit(s[i + 1]);

		if (hi < 0 || lo < 0)
			return -EINVAL;
		*p++ = (unsigned char)(hi << 4 | lo);
	}
	return 0;
}

static const char b64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(struct arena *a, const void *data, size_t len)
{
	const unsigned char *p = data;
	char *out, *o;

	if (len > SIZE_MAX / 2)
		abort();
	out = o = arena_alloc(a, (len + 2) / 3 * 4 + 1);
	for (; len >= 3; len -= 3, p += 3) {
		*o++ = b64_digits[p[0] >> 2];
		*o++ = b64_digits[(p[0] & 3) << 4 | p[1] >> 4];
		*o++ = b64_digits[(p[1] & 15) << 2 | p[2] >> 6];
		*o++ = b64_digits[p[2] & 63];
	}
	if (len) {
		unsigned second = len == 2 ? p[1] : 0;

		*o++ = b64_digits[p[0] >> 2];
		*o++ = b64_digits[(p[0] & 3) << 4 | second >> 4];
		*o++ = len == 2 ? b64_digits[(second & 15) << 2] : '=';
		*o++ = '=';
	}
	*o = '\0';
	return out;
}

static int b64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int base64_decode(struct arena *a, const char *s, size_t len, void **ret_data, size_t *ret_len)
{
	unsigned char *out = arena_alloc(a, len / 4 * 3 + 4), *o = out;
	unsigned bits = 0, have = 0, pad = 0;

	for (size_t i = 0; i < len; i++) {
		int v;

		if (s[i] == '\n' || s[i] == '\r')
			continue;
		if (s[i] == '=') {
			pad++;
			continue;
		}
		v = b64_value(s[i]);
		if (v < 0 || pad)
			return -EINVAL;
		bits = bits << 6 | (unsigned)v;
		if (++have == 4) {
			*o++ = (unsigned char)(bits >> 16);
			*o++ = (unsigned char)(bits >> 8);
			*o++ = (unsigned char)bits;
			have = bits = 0;
		}
	}
	/* A group of two or three digits is filled up with '='; its unused bits are zero. */
	if (have == 1 || pad != (have ? 4 - have : 0))
		return -EINVAL;
	if (have == 2) {
		if (bits & 15)
			return -EINVAL;
		*o++ = (unsigned char)(bits >> 4);
	} else if (have == 3) {
		if (bits & 3)
			return -EINVAL;
		*o++ = (unsigned char)(bits >> 10);
		*o++ = (unsigned char)(bits >> 2);
	}
	*o = '\0';
	*ret_data = out;
	*ret_len = (size_t)(o - out);
	return 0;
}

static bool unreserved(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '.' || c == '_' || c == '~';
}

char *uri_encode(struct arena *a, const char *s, size_t len, bool keep_slash)
{
	static const char digits[] = "0123456789ABCDEF";
	char *out, *o;

	if (len > (SIZE_MAX - 1) / 3)
		abort();
	out = o = arena_alloc(a, 3 * len + 1);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (unreserved(s[i]) || (keep_slash && c == '/')) {
			*o++ = s[i];
		} else {
			*o++ = '%';
			*o++ = digits[c >> 4];
			*o++ = digits[c & 15];
		}
	}
	*o = '\0';
	return out;
}

int uri_decode(struct arena *a, const char *s, size_t len, bool plus_is_space, char **ret,
	       size_t *ret_len)
{
	char *out, *o;

	out = o = arena_alloc(a, len + 1);
	for (size_t i = 0; i < len; i++) {
		if (s[i] == '%') {
			if (len - i < 3 || hex_decode(s + i + 1, 2, o) < 0)
				return -EINVAL;
			o++;
			i += 2;
		} else {
			*o++ = plus_is_space && s[i] == '+' ? ' ' : s[i];
		}
	}
	*o = '\0';
	*ret = out;
	*ret_len = (size_t)(o - out);
	return 0;
}
