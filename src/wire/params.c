/* SPDX-License-Identifier: Apache-2.0 */
/* Query strings and forms. */
#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "wire/codec.h"

#define PARAMS_MAX 4000

/* Decode one key or value; text only. */
static int decode(struct arena *a, const char *text, size_t len, const char **ret, struct error *e)
{
	size_t decoded_len;
	char *decoded;

	if (uri_decode(a, text, len, true, &decoded, &decoded_len) < 0) {
		error_set(e, "MalformedQueryString",
			  "The query string holds a percent sign without two hexadecimal digits.");
		return -EINVAL;
	}
	if (memchr(decoded, '\0', decoded_len) || !utf8_valid(decoded, decoded_len)) {
		error_set(e, "MalformedQueryString", "The query string is not valid UTF-8 text.");
		return -EINVAL;
	}
	*ret = decoded;
	return 0;
}

int wire_params_parse(struct arena *a, const char *text, size_t len, struct wire_params *ret,
		      struct error *e)
{
	struct wire_params p = {0};
	size_t most = 1;

	for (size_t i = 0; i < len; i++)
		most += text[i] == '&';
	if (most > PARAMS_MAX) {
		error_set(e, "MalformedQueryString", "The request has more than %d parameters.",
			  PARAMS_MAX);
		return -E2BIG;
	}
	p.items = arena_new_array(a, struct wire_pair, most);
	for (const char *s = text, *end = text + len; s < end;) {
		const char *next = memchr(s, '&', (size_t)(end - s));
		const char *stop = next ? next : end;
		const char *equals = memchr(s, '=', (size_t)(stop - s));
		struct wire_pair *pair = &p.items[p.count];
		int r;

		if (stop > s) { /* "a=1&&b=2" and a trailing '&' are harmless */
			const char *key_end = equals ? equals : stop;

			r = decode(a, s, (size_t)(key_end - s), &pair->key, e);
			if (r >= 0)
				r = decode(a, equals ? equals + 1 : stop,
					   equals ? (size_t)(stop - equals - 1) : 0, &pair->value,
					   e);
			if (r < 0)
				return r;
			p.count++;
		}
		s = next ? next + 1 : end;
	}
	*ret = p;
	return 0;
}

const char *wire_params_get(const struct wire_params *p, const char *key)
{
	for (size_t i = 0; i < p->count; i++)
		if (str_eq(p->items[i].key, key))
			return p->items[i].value;
	return NULL;
}
