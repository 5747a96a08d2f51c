/* SPDX-License-Identifier: Apache-2.0 */
#include <nettle/sha1.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/text.h"
#include "wire/sigv4_priv.h"

/*
 * Signature Version 2 in a query: AWSAccessKeyId, Expires (seconds since 1970) and Signature, the
 * base64 of an HMAC-SHA1 whose key is the secret access key. HMAC starts with one block of key
 * material in each of its two hashes; what SHA-1 has made of these two blocks is all that is needed
 * to go on, so that is our signing key, and the secret stays where it is kept.
 */

/* --- HMAC-SHA1 from its two states --- */

static void put_state(const struct sha1_ctx *ctx, unsigned char out[static SIGV2_DIGEST_LEN])
{
	for (int i = 0; i < _SHA1_DIGEST_LENGTH; i++) {
		for (int b = 0; b < 4; b++)
			out[4 * i + b] = (unsigned char)(ctx->state[i] >> (24 - 8 * b));
	}
}

/* As after one block. */
static void get_state(const unsigned char in[static SIGV2_DIGEST_LEN], struct sha1_ctx *ctx)
{
	sha1_init(ctx);
	ctx->count = 1;
	for (int i = 0; i < _SHA1_DIGEST_LENGTH; i++)
		ctx->state[i] = (uint32_t)in[4 * i] << 24 | (uint32_t)in[4 * i + 1] << 16 |
				(uint32_t)in[4 * i + 2] << 8 | in[4 * i + 3];
}

static void half_key(const unsigned char block[static SHA1_BLOCK_SIZE], unsigned char pad,
		     unsigned char out[static SIGV2_DIGEST_LEN])
{
	unsigned char padded[SHA1_BLOCK_SIZE];
	struct sha1_ctx ctx;

	for (int i = 0; i < SHA1_BLOCK_SIZE; i++)
		padded[i] = block[i] ^ pad;
	sha1_init(&ctx);
	sha1_update(&ctx, sizeof(padded), padded);
	put_state(&ctx, out);
	explicit_bzero(padded, sizeof(padded));
}

void sigv2_key(const struct secret *secret_key, unsigned char out[static SIGV4_KEY_LEN])
{
	const char *value = secret_reveal(secret_key);
	unsigned char block[SHA1_BLOCK_SIZE] = {0};
	size_t len = strlen(value);
	struct sha1_ctx ctx;

	if (len <= sizeof(block)) {
		memcpy(block, value, len);
	} else {
		sha1_init(&ctx);
		sha1_update(&ctx, len, (const unsigned char *)value);
		sha1_digest(&ctx, SHA1_DIGEST_SIZE, block);
	}
	half_key(block, 0x36, out);
	half_key(block, 0x5c, out + SIGV2_DIGEST_LEN);
	explicit_bzero(block, sizeof(block));
}

void sigv2_mac(const unsigned char key[static SIGV4_KEY_LEN], const char *text,
	       unsigned char out[static SIGV2_DIGEST_LEN])
{
	unsigned char inner[SIGV2_DIGEST_LEN];
	struct sha1_ctx ctx;

	get_state(key, &ctx);
	sha1_update(&ctx, strlen(text), (const unsigned char *)text);
	sha1_digest(&ctx, sizeof(inner), inner);
	get_state(key + SIGV2_DIGEST_LEN, &ctx);
	sha1_update(&ctx, sizeof(inner), inner);
	sha1_digest(&ctx, SIGV2_DIGEST_LEN, out);
}

/* --- what is signed --- */

/* Query parameters that choose what is done or how it is answered; the others are not signed.
 * Sorted. */
static const char *const signed_params[] = {
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "defaultObjectAcl",
    "delete",
    "inventory",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "partNumber",
    "policy",
    "replication",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "select",
    "select-type",
    "storageClass",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
};

static bool has_value(const char *query, const char *name)
{
	size_t name_len = strlen(name);

	for (const char *p = query; *p;) {
		size_t len = strcspn(p, "&");

		if (len > name_len && strncmp(p, name, name_len) == 0 && p[name_len] == '=')
			return true;
		p += len + (p[len] == '&');
	}
	return false;
}

static void append_resource(struct arena *a, const struct sigv4_source *src, struct buf *out)
{
	char separator = '?';

	buf_puts(out, src->path);
	for (size_t i = 0; i < ARRAY_SIZE(signed_params); i++) {
		size_t count;
		const char *value = sigv4_query_param(a, src->query, signed_params[i], &count);

		if (!count)
			continue;
		buf_putc(out, separator);
		buf_puts(out, signed_params[i]);
		if (has_value(src->query, signed_params[i]))
			buf_printf(out, "=%s", value);
		separator = '&';
	}
}

struct amz_headers {
	struct arena *a;
	const struct sigv4_source *src;
	const char **lines;
	size_t count, room;
};

static void count_amz_header(void *ctx, const char *name, const char *value)
{
	struct amz_headers *h = ctx;

	h->room += strncasecmp(name, "x-amz-", 6) == 0;
}

/* "name:value" once for each name; http_header() has joined the values of repeated ones. */
static void add_amz_header(void *ctx, const char *name, const char *value)
{
	struct amz_headers *h = ctx;
	char *line;

	if (strncasecmp(name, "x-amz-", 6) != 0 || h->count == h->room)
		return;
	line = arena_printf(h->a, "%s:%s", name, h->src->header(h->src->ctx, name));
	for (char *p = line; *p != ':'; p++)
		*p = (char)(*p >= 'A' && *p <= 'Z' ? *p - 'A' + 'a' : *p);
	h->lines[h->count++] = line;
}

static int by_text(const void *x, const void *y)
{
	return strcmp(*(const char *const *)x, *(const char *const *)y);
}

static void append_amz_headers(struct arena *a, const struct sigv4_source *src, struct buf *out)
{
	struct amz_headers h = {.a = a, .src = src};

	src->each_header(src->ctx, count_amz_header, &h);
	h.lines = arena_new_array(a, const char *, h.room);
	src->each_header(src->ctx, add_amz_header, &h);
	qsort(h.lines, h.count, sizeof(*h.lines), by_text);
	for (size_t i = 0; i < h.count; i++) {
		if (!i || !str_eq(h.lines[i], h.lines[i - 1]))
			buf_printf(out, "%s\n", h.lines[i]);
	}
}

char *sigv2_string_to_sign(struct arena *a, const struct sigv4_source *src)
{
	const char *md5 = src->header(src->ctx, "Content-MD5"),
		   *type = src->header(src->ctx, "Content-Type");
	const char *expires = sigv4_query_param(a, src->query, "Expires", NULL);
	struct buf b = BUF_INIT;
	char *text;

	buf_printf(&b, "%s\n%s\n%s\n%s\n", src->method, md5 ? md5 : "", type ? type : "",
		   expires ? expires : "");
	append_amz_headers(a, src, &b);
	append_resource(a, src, &b);
	text = arena_strndup(a, b.data, b.len);
	buf_done(&b);
	return text;
}

const char *sigv2_read(struct arena *a, const struct sigv4_source *src, int64_t now_ms,
		       struct sigv4_auth *ret)
{
	size_t ids, dates, signatures;
	const char *id = sigv4_query_param(a, src->query, "AWSAccessKeyId", &ids);
	const char *expires = sigv4_query_param(a, src->query, "Expires", &dates);
	const char *given = sigv4_query_param(a, src->query, "Signature", &signatures);
	const int64_t latest_s = INT64_C(253402300799); /* the end of the year 9999 */
	int64_t expires_s;
	char *signature;

	if (ids != 1 || dates != 1 || signatures != 1 || !*id || strlen(id) > 128)
		return "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters, "
		       "each once";
	if (parse_i64(expires, 0, latest_s, &expires_s) < 0)
		return "Invalid date (Expires should be seconds since 1970)";
	if (expires_s * 1000 < now_ms)
		return "Request has expired";
	signature = arena_strdup(a, given);
	for (char *p = signature; *p; p++)
		*p = *p == ' ' ? '+' : *p; /* sent without its escape */
	*ret = (struct sigv4_auth){
	    .form = SIGV4_QUERY_V2,
	    .access_key_id = id,
	    .date = SIGV4_DATE_V2,
	    .region = "any",
	    .service = "s3",
	    .signed_headers = "",
	    .signature = signature,
	    .time_ms = now_ms,
	    .expires_s = expires_s - now_ms / 1000,
	    .session_token = sigv4_query_param(a, src->query, "x-amz-security-token", NULL),
	    .payload_hash = "UNSIGNED-PAYLOAD",
	};
	return NULL;
}

bool sigv2_matches(struct arena *a, const struct sigv4_source *src, const struct sigv4_auth *auth,
		   const unsigned char key[static SIGV4_KEY_LEN])
{
	unsigned char want[SIGV2_DIGEST_LEN];
	void *given = NULL;
	size_t len = 0;

	if (base64_decode(a, auth->signature, strlen(auth->signature), &given, &len) < 0 ||
	    len != sizeof(want))
		return false;
	sigv2_mac(key, sigv2_string_to_sign(a, src), want);
	return bytes_equal_const(want, given, sizeof(want));
}
