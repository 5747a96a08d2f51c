/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/walrus/range_priv.h"

#include <ctype.h>
#include <strings.h>

#include "base/macros.h"

/* Digits into *ret, and *text behind them; a number too large for any object is as good as the
 * largest. False: none there. */
static bool take_number(const char **text, uint64_t *ret)
{
	uint64_t n = 0;
	const char *p = *text;

	for (; isdigit((unsigned char)*p); p++)
		n = n > INT64_MAX / 10 - 1 ? INT64_MAX : n * 10 + (uint64_t)(*p - '0');
	if (p == *text)
		return false;
	*text = p;
	*ret = n;
	return true;
}

int range_parse(const char *text, uint64_t size, uint64_t *ret_off, uint64_t *ret_len,
		struct error *e)
{
	uint64_t first = 0, last = UINT64_MAX;
	bool has_first, has_last;

	if (strncasecmp(text, "bytes=", 6) != 0)
		return 0;
	text += 6;
	has_first = take_number(&text, &first);
	if (*text++ != '-')
		return 0;
	has_last = take_number(&text, &last);
	if (*text || (!has_first && !has_last) || (has_first && has_last && last < first))
		return 0;
	if (!has_first) { /* the last so many */
		first = size - MIN_OF(last, size);
		last = UINT64_MAX;
	}
	if (first >= size)
		return error_set(e, "InvalidRange", "The requested range is not satisfiable");
	*ret_off = first;
	*ret_len = MIN_OF(last, size - 1) - first + 1;
	return 1;
}
