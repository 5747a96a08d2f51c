/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/sigv4.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/text.h"
#include "wire/sigv4_priv.h"

/* The text that is signed: everything that both sides must form alike, byte for byte. */

static void sha256(const void *data, size_t len, unsigned char out[static SIGV4_DIGEST_LEN])
{
	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, data, len, out) < 0)
		abort(); /* a GnuTLS without SHA-256 is no GnuTLS */
}

static void hmac(const void *key, size_t key_len, const char *text,
		 unsigned char out[static SIGV4_DIGEST_LEN])
{
	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, key_len, text, strlen(text), out) < 0)
		abort();
}

void sigv4_sha256_hex(const void *data, size_t len, char out[static SIGV4_HASH_HEX_LEN])
{
	unsigned char digest[SIGV4_DIGEST_LEN];

	sha256(data, len, digest);
	hex_encode(digest, sizeof(digest), out);
}

void sigv4_signing_key(const struct secret *secret_key, const char *date, const char *region,
		       const char *service, unsigned char out[static SIGV4_KEY_LEN])
{
	const char *value = secret_reveal(secret_key);
	size_t len = strlen(value) + 4;
	char *seed;

	if (str_eq(date, SIGV4_DATE_V2)) {
		sigv2_key(secret_key, out);
		return;
	}
	seed = malloc(len + 1);
	if (!seed)
		abort();
	memset(out, 0, SIGV4_KEY_LEN);
	snprintf(seed, len + 1, "AWS4%s", value);
	hmac(seed, len, date, out);
	hmac(out, SIGV4_DIGEST_LEN, region, out);
	hmac(out, SIGV4_DIGEST_LEN, service, out);
	hmac(out, SIGV4_DIGEST_LEN, "aws4_request", out);
	secret_free_string(seed);
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool unreserved(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '.' || c == '_' || c == '~';
}

/* The byte at s[*i], escape resolved; *i moves behind it. A '%' that starts no escape stands for
 * itself. */
static unsigned char next_byte(const char *s, size_t len, size_t *i, bool plus_is_space,
			       bool *ret_escaped)
{
	unsigned char c = (unsigned char)s[(*i)++];

	*ret_escaped = false;
	if (c == '+' && plus_is_space)
		return ' ';
	if (c == '%' && len - *i >= 2 && hex_value(s[*i]) >= 0 && hex_value(s[*i + 1]) >= 0) {
		c = (unsigned char)(hex_value(s[*i]) << 4 | hex_value(s[*i + 1]));
		*i += 2;
		*ret_escaped = true;
	}
	return c;
}

char *sigv4_normalise(struct arena *a, const char *s, size_t len, bool keep_slash,
		      bool plus_is_space)
{
	static const char digits[] = "0123456789ABCDEF";
	char *out = arena_alloc(a, 3 * len + 1);
	size_t n = 0, i = 0;

	while (i < len) {
		bool escaped;
		unsigned char c = next_byte(s, len, &i, plus_is_space, &escaped);

		if (unreserved(c) || (c == '/' && keep_slash && !escaped)) {
			out[n++] = (char)c;
		} else {
			out[n++] = '%';
			out[n++] = digits[c >> 4];
			out[n++] = digits[c & 15];
		}
	}
	out[n] = '\0';
	return out;
}

/* Decoded text up to len; an escaped NUL ends it, so that such a value equals no proper one. */
static char *decode(struct arena *a, const char *s, size_t len)
{
	char *out = arena_alloc(a, len + 1);
	size_t n = 0, i = 0;
	bool escaped;

	while (i < len)
		out[n++] = (char)next_byte(s, len, &i, true, &escaped);
	out[n] = '\0';
	return out;
}

const char *sigv4_query_param(struct arena *a, const char *query, const char *name,
			      size_t *ret_count)
{
	const char *found = NULL;
	size_t count = 0;

	for (const char *p = query; *p;) {
		size_t len = strcspn(p, "&");
		const char *eq = memchr(p, '=', len);
		size_t name_len = eq ? (size_t)(eq - p) : len;

		if (str_eq(decode(a, p, name_len), name)) {
			if (!count++)
				found = eq ? decode(a, eq + 1, len - name_len - 1) : "";
		}
		p += len + (p[len] == '&');
	}
	if (ret_count)
		*ret_count = count;
	return found;
}

/* Path of services other than S3: dot segments and empty segments out, then encoded once more. */
static char *canonical_path_twice(struct arena *a, const char *path)
{
	size_t len = strlen(path), n = 0;
	char *out = arena_alloc(a, len + 2);

	out[n++] = '/';
	for (const char *p = path; *p;) {
		size_t seg = strcspn(p, "/");

		if (seg == 2 && memcmp(p, "..", 2) == 0) {
			if (n > 1)
				n--; /* the slash behind the last segment */
			while (n > 1 && out[n - 1] != '/')
				n--;
		} else if (seg && !(seg == 1 && *p == '.')) {
			memcpy(out + n, p, seg);
			n += seg;
			out[n++] = '/';
		}
		p += seg + (p[seg] == '/');
	}
	if (n > 1 && (!len || path[len - 1] != '/'))
		n--;
	return uri_encode(a, out, n, true);
}

struct param {
	char *name, *value;
};

static int by_name_and_value(const void *x, const void *y)
{
	const struct param *p = x, *q = y;
	int r = strcmp(p->name, q->name);

	return r ? r : strcmp(p->value, q->value);
}

static void canonical_query(struct arena *a, const char *query, bool presigned, struct buf *out)
{
	struct param *params;
	size_t room = 1, count = 0;

	for (const char *p = query; *p; p++)
		room += *p == '&';
	params = arena_new_array(a, struct param, room);
	for (const char *p = query; *p;) {
		size_t len = strcspn(p, "&");
		const char *eq = memchr(p, '=', len);
		size_t name_len = eq ? (size_t)(eq - p) : len;
		struct param *q = &params[count];

		if (len) {
			q->name = sigv4_normalise(a, p, name_len, false, true);
			q->value = eq ? sigv4_normalise(a, eq + 1, len - name_len - 1, false, true)
				      : arena_strdup(a, "");
			if (!presigned || !str_eq(q->name, "X-Amz-Signature"))
				count++;
		}
		p += len + (p[len] == '&');
	}
	qsort(params, count, sizeof(*params), by_name_and_value);
	for (size_t i = 0; i < count; i++)
		buf_printf(out, "%s%s=%s", i ? "&" : "", params[i].name, params[i].value);
}

/* Runs of white space become one space; none at the ends. */
static void append_collapsed(struct buf *out, const char *value)
{
	bool gap = false, any = false;

	for (const char *p = value; *p; p++) {
		if (*p == ' ' || *p == '\t') {
			gap = any;
			continue;
		}
		if (gap)
			buf_putc(out, ' ');
		buf_putc(out, *p);
		gap = false;
		any = true;
	}
}

static void canonical_headers(struct arena *a, const struct sigv4_source *src,
			      const char *signed_headers, struct buf *out)
{
	for (const char *p = signed_headers; *p;) {
		size_t len = strcspn(p, ";");
		char *name = arena_strndup(a, p, len);
		const char *value = src->header(src->ctx, name);

		buf_printf(out, "%s:", name);
		append_collapsed(out, value ? value : "");
		buf_putc(out, '\n');
		p += len + (p[len] == ';');
	}
}

char *sigv4_canonical_request(struct arena *a, const struct sigv4_source *src,
			      const struct sigv4_auth *auth, const char *payload_sha256_hex)
{
	struct buf b = BUF_INIT;
	char *text;

	buf_printf(&b, "%s\n%s\n", src->method,
		   str_eq(auth->service, "s3")
		       ? sigv4_normalise(a, src->path, strlen(src->path), true, false)
		       : canonical_path_twice(a, src->path));
	canonical_query(a, src->query, auth->form == SIGV4_QUERY, &b);
	buf_putc(&b, '\n');
	canonical_headers(a, src, auth->signed_headers, &b);
	buf_printf(&b, "\n%s\n%s", auth->signed_headers, payload_sha256_hex);
	text = arena_strndup(a, b.data, b.len);
	buf_done(&b);
	return text;
}

void sigv4_signature(struct arena *a, const struct sigv4_auth *auth, const char *canonical_request,
		     const unsigned char key[static SIGV4_KEY_LEN],
		     unsigned char out[static SIGV4_DIGEST_LEN])
{
	char hash[SIGV4_HASH_HEX_LEN], time[17];
	char *text;

	clock_format_basic(auth->time_ms, time);
	sigv4_sha256_hex(canonical_request, strlen(canonical_request), hash);
	text = arena_printf(a, SIGV4_ALGORITHM "\n%s\n%s/%s/%s/aws4_request\n%s", time, auth->date,
			    auth->region, auth->service, hash);
	hmac(key, SIGV4_DIGEST_LEN, text, out);
}
