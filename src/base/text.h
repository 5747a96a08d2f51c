/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BASE_TEXT_H
#define MALLEE_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

bool str_eq(const char *a, const char *b); /* NULL equals only NULL */
bool str_prefix(const char *s, const char *prefix);
bool str_suffix(const char *s, const char *suffix);

/* AWS filter wildcards: * any run, ? one character, \ takes the next literally. Linear in time. */
bool str_wildcard(const char *pattern, const char *s);

/* Whole-string decimal integers; range inclusive. 0, -EINVAL (not a number) or -ERANGE. */
int parse_i64(const char *s, int64_t min, int64_t max, int64_t *ret);
int parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);
int parse_bool(const char *s, bool *ret); /* true/false, any case; -EINVAL */
int parse_f64(const char *s, double *ret);

void hex_encode(const void *data, size_t len, char *out); /* 2 * len + NUL, lower case */
int hex_decode(const char *s, size_t len, void *out);     /* len even; -EINVAL */

/* Standard base64 with padding. decode accepts line breaks; 0 or -EINVAL. */
char *base64_encode(struct arena *a, const void *data, size_t len);
int base64_decode(struct arena *a, const char *s, size_t len, void **ret_data, size_t *ret_len);

/* RFC 3986 percent-encoding as SigV4 wants it (unreserved kept, upper-case hex); keep_slash leaves '/'. */
char *uri_encode(struct arena *a, const char *s, size_t len, bool keep_slash);
/* Decodes %XX; with plus_is_space also '+'. *ret_len may hold NULs: callers that need text must check.
 * -EINVAL on a truncated or non-hex escape. */
int uri_decode(struct arena *a, const char *s, size_t len, bool plus_is_space, char **ret, size_t *ret_len);

bool utf8_valid(const char *s, size_t len);

/* Constant-time comparison of len bytes. */
bool bytes_equal_const(const void *a, const void *b, size_t len);

#endif
