/* SPDX-License-Identifier: Apache-2.0 */
#include "base/id.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/text.h"

#define ID_DIGITS 17
#define ID_DIGITS_OLD 8

void random_bytes(void *out, size_t len)
{
	unsigned char *p = out;

	while (len > 0) {
		ssize_t n = getrandom(p, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			abort();
		p += n;
		len -= (size_t)n;
	}
}

void id_new(const char *prefix, char out[static ID_LEN])
{
	unsigned char raw[(ID_DIGITS + 1) / 2];
	char hex[2 * sizeof(raw) + 1];

	assert(strlen(prefix) + 1 + ID_DIGITS < ID_LEN);
	random_bytes(raw, sizeof(raw));
	hex_encode(raw, sizeof(raw), hex);
	snprintf(out, ID_LEN, "%.*s-%.*s", ID_LEN - ID_DIGITS - 2, prefix, ID_DIGITS, hex);
}

bool id_valid(const char *prefix, const char *s)
{
	size_t n;

	if (!s || !str_prefix(s, prefix))
		return false;
	s += strlen(prefix);
	if (*s++ != '-')
		return false;
	n = strspn(s, "0123456789abcdef");
	return s[n] == '\0' && (n == ID_DIGITS || n == ID_DIGITS_OLD);
}

void random_token(char *out, size_t len)
{
	static const char alphabet[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	const unsigned n = sizeof(alphabet) - 1;

	for (size_t i = 0; i < len;) {
		unsigned char raw[64];

		random_bytes(raw, sizeof(raw));
		/* Bytes past the last whole multiple of n are dropped, so that no letter is
		 * likelier. */
		for (size_t k = 0; k < sizeof(raw) && i < len; k++) {
			if (raw[k] < 256 / n * n)
				out[i++] = alphabet[raw[k] % n];
		}
		explicit_bzero(raw, sizeof(raw));
	}
	out[len] = '\0';
}
