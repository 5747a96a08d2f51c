/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/walrus/payload_priv.h"

#include <ctype.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/text.h"
#include "object/digest.h"

/*
 * aws-chunked, as a machine over lines and data:
 *
 *   HEADER   "SIZE[;chunk-signature=HEX]" CRLF          size > 0: DATA, else LAST
 *   DATA     SIZE bytes                                 then DATA_END
 *   DATA_END CRLF                                       the chunk's signature is checked; HEADER
 *   LAST     "NAME:VALUE" CRLF … (trailers), then an empty line or the body's end; END
 */
enum state { STATE_HEADER, STATE_DATA, STATE_DATA_END, STATE_LAST, STATE_END };

#define LINE_MAX_BYTES 1024
#define TRAILERS_MAX 8
#define SIGNATURE_DIGITS 64
#define V4_KEY_BYTES 32

struct payload {
	struct arena *a;
	enum payload_kind kind;
	enum state state;
	char line[LINE_MAX_BYTES];
	size_t line_len;
	uint64_t chunk_left;
	struct digest_set *chunk_hash;	      /* signed chunks */
	char signature[SIGNATURE_DIGITS + 1]; /* of the chunk being read */
	char previous[SIGNATURE_DIGITS + 1];
	bool trailer_signed;
	struct wire_pair trailer_items[TRAILERS_MAX];
	struct wire_params trailers;
	/* what every chunk's signature covers */
	unsigned char key[SIGV4_KEY_LEN];
	char date[17];
	const char *scope;
};

static const struct {
	const char *text;
	enum payload_kind kind;
} kinds[] = {
    {"UNSIGNED-PAYLOAD", PAYLOAD_UNSIGNED},
    {"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", PAYLOAD_SIGNED_CHUNKS},
    {"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", PAYLOAD_SIGNED_CHUNKS_TRAILER},
    {"STREAMING-UNSIGNED-PAYLOAD-TRAILER", PAYLOAD_UNSIGNED_CHUNKS_TRAILER},
};

static bool has_signatures(const struct payload *p)
{
	return p->kind == PAYLOAD_SIGNED_CHUNKS || p->kind == PAYLOAD_SIGNED_CHUNKS_TRAILER;
}

static bool has_trailers(const struct payload *p)
{
	return p->kind == PAYLOAD_SIGNED_CHUNKS_TRAILER ||
	       p->kind == PAYLOAD_UNSIGNED_CHUNKS_TRAILER;
}

int payload_new(struct arena *a, const struct sigv4_auth *auth,
		const unsigned char key[static SIGV4_KEY_LEN], struct payload **ret,
		struct error *e)
{
	struct payload *p = arena_new_struct(a, struct payload);
	const char *hash = auth->payload_hash ? auth->payload_hash : "UNSIGNED-PAYLOAD";
	bool known = strlen(hash) == 64;

	p->a = a;
	p->kind = PAYLOAD_SHA256;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (str_eq(hash, kinds[i].text)) {
			p->kind = kinds[i].kind;
			known = true;
		}
	if (!known)
		return error_set(e, "NotImplemented",
				 "This form of x-amz-content-sha256 is not implemented: %.60s.",
				 hash);
	if (has_signatures(p) && strlen(auth->signature) != SIGNATURE_DIGITS)
		return error_set(e, "InvalidRequest",
				 "Signed chunks need a request signed with Version 4.");
	if (has_signatures(p))
		p->chunk_hash = digest_set_new(DIGEST_BIT(DIGEST_SHA256));
	memcpy(p->key, key, sizeof(p->key));
	clock_format_basic(auth->time_ms, p->date);
	p->scope =
	    arena_printf(a, "%s/%s/%s/aws4_request", auth->date, auth->region, auth->service);
	if (has_signatures(p))
		memcpy(p->previous, auth->signature, SIGNATURE_DIGITS);
	*ret = p;
	return 0;
}

void payload_done(struct payload *p)
{
	if (!p)
		return;
	digest_set_free(p->chunk_hash);
	p->chunk_hash = NULL;
	explicit_bzero(p->key, sizeof(p->key));
}

enum payload_kind payload_kind(const struct payload *p)
{
	return p->kind;
}

bool payload_is_chunked(const struct payload *p)
{
	return p->kind >= PAYLOAD_SIGNED_CHUNKS;
}

const struct wire_params *payload_trailers(const struct payload *p)
{
	return &p->trailers;
}

static int malformed(struct error *e, const char *what)
{
	return error_set(e, "InvalidRequest", "The aws-chunked body is malformed: %s.", what);
}

/* Checks p->signature over text, which ends the string to sign, and makes it the previous one. */
static int check_signature(struct payload *p, const char *algorithm, const char *text,
			   struct error *e)
{
	unsigned char mac[32], given[32];
	_cleanup_(buf_done) struct buf to_sign =
	    BUF_INIT; /* not in the arena: a body has any number of chunks */

	buf_printf(&to_sign, "%s\n%s\n%s\n%s\n%s", algorithm, p->date, p->scope, p->previous, text);
	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, p->key, V4_KEY_BYTES, to_sign.data, to_sign.len,
			     mac) < 0)
		abort();
	if (hex_decode(p->signature, SIGNATURE_DIGITS, given) < 0 ||
	    !bytes_equal_const(mac, given, sizeof(mac)))
		return error_set(
		    e, "SignatureDoesNotMatch",
		    "The signature of a chunk of the body does not match what was received.");
	memcpy(p->previous, p->signature, sizeof(p->previous));
	return 0;
}

static int check_chunk(struct payload *p, struct error *e)
{
	static const char empty_sha256[] =
	    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
	unsigned char sha[DIGEST_MAX];
	char hex[2 * DIGEST_MAX + 1], text[2 * sizeof(hex) + 2];

	if (!has_signatures(p))
		return 0;
	hex_encode(sha, digest_set_get(p->chunk_hash, DIGEST_SHA256, sha), hex);
	digest_set_free(p->chunk_hash);
	p->chunk_hash = digest_set_new(DIGEST_BIT(DIGEST_SHA256));
	snprintf(text, sizeof(text), "%s\n%s", empty_sha256, hex);
	return check_signature(p, "AWS4-HMAC-SHA256-PAYLOAD", text, e);
}

static int take_signature(struct payload *p, const char *text, struct error *e)
{
	if (strlen(text) != SIGNATURE_DIGITS ||
	    strspn(text, "0123456789abcdef") != SIGNATURE_DIGITS)
		return malformed(e, "a signature is not 64 hexadecimal digits");
	memcpy(p->signature, text, sizeof(p->signature));
	return 0;
}

/* "1f40;chunk-signature=…" */
static int read_header(struct payload *p, struct error *e)
{
	static const char key[] = ";chunk-signature=";
	size_t digits = strspn(p->line, "0123456789abcdefABCDEF");
	int r = 0;

	if (digits == 0 || digits > 15)
		return malformed(e, "a chunk does not begin with its size");
	p->chunk_left = strtoull(p->line, NULL, 16);
	if (has_signatures(p)) {
		if (!str_prefix(p->line + digits, key))
			return malformed(e, "a chunk has no signature");
		r = take_signature(p, p->line + digits + sizeof(key) - 1, e);
	} else if (p->line[digits] != '\0' && p->line[digits] != ';') {
		return malformed(e, "a chunk's size is not a number");
	}
	if (r < 0)
		return r;
	p->state = p->chunk_left > 0 ? STATE_DATA : STATE_LAST;
	return p->state == STATE_LAST ? check_chunk(p, e) : 0;
}

/* The signature of the trailers covers "name:value\n" of each. */
static int check_trailers(struct payload *p, const char *signature, struct error *e)
{
	unsigned char sha[DIGEST_MAX];
	char hex[2 * DIGEST_MAX + 1];
	char *text = arena_strdup(p->a, "");
	int r = take_signature(p, signature, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < p->trailers.count; i++)
		text = arena_printf(p->a, "%s%s:%s\n", text, p->trailers.items[i].key,
				    p->trailers.items[i].value);
	hex_encode(sha, digest_once(DIGEST_SHA256, text, strlen(text), sha), hex);
	p->trailer_signed = true;
	return check_signature(p, "AWS4-HMAC-SHA256-TRAILER", hex, e);
}

static int read_trailer(struct payload *p, struct error *e)
{
	char *colon = strchr(p->line, ':');

	if (p->line_len == 0) {
		p->state = STATE_END;
		return 0;
	}
	if (!has_trailers(p) || !colon || colon == p->line)
		return malformed(e, "what follows the last chunk is no trailer");
	*colon = '\0';
	char *name = arena_strdup(p->a, p->line), *value = colon + 1;
	size_t len;

	for (char *c = name; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	value += strspn(value, " \t");
	for (len = strlen(value); len > 0 && strchr(" \t\r\n", value[len - 1]);)
		len--;
	if (str_eq(name, "x-amz-trailer-signature"))
		return check_trailers(p, arena_strndup(p->a, value, len), e);
	if (p->trailer_signed || p->trailers.count == TRAILERS_MAX)
		return malformed(e, "there are too many trailers");
	p->trailers.items = p->trailer_items;
	p->trailer_items[p->trailers.count++] =
	    (struct wire_pair){name, arena_strndup(p->a, value, len)};
	return 0;
}

/* Adds to the line; 1 when it is complete, without its CRLF (a bare LF ends it too). */
static int gather_line(struct payload *p, const char **data, size_t *len, struct error *e)
{
	const char *end = memchr(*data, '\n', *len);
	size_t n = end ? (size_t)(end - *data) : *len;

	if (n >= sizeof(p->line) - p->line_len || memchr(*data, '\0', n))
		return malformed(e, "a line of it is too long or holds a NUL");
	memcpy(p->line + p->line_len, *data, n);
	p->line_len += n;
	*data += end ? n + 1 : n;
	*len -= end ? n + 1 : n;
	if (!end)
		return 0;
	if (p->line_len > 0 && p->line[p->line_len - 1] == '\r')
		p->line_len--;
	p->line[p->line_len] = '\0';
	return 1;
}

static int take_line(struct payload *p, struct error *e)
{
	int r;

	switch (p->state) {
	case STATE_HEADER:
		r = read_header(p, e);
		break;
	case STATE_DATA_END:
		r = p->line_len == 0 ? check_chunk(p, e)
				     : malformed(e, "a chunk is longer than it says");
		p->state = STATE_HEADER;
		break;
	default:
		r = read_trailer(p, e);
	}
	p->line_len = 0;
	return r;
}

static int take_data(struct payload *p, const char **data, size_t *len, payload_sink_fn *sink,
		     void *ctx, struct error *e)
{
	size_t n = (size_t)MIN_OF((uint64_t)*len, p->chunk_left);
	int r;

	if (p->chunk_hash)
		digest_set_update(p->chunk_hash, *data, n);
	r = sink(ctx, *data, n, e);
	*data += n;
	*len -= n;
	p->chunk_left -= n;
	if (p->chunk_left == 0)
		p->state = STATE_DATA_END;
	return r;
}

int payload_feed(struct payload *p, const void *data, size_t len, payload_sink_fn *sink, void *ctx,
		 struct error *e)
{
	const char *at = data;
	int r = 0;

	if (!payload_is_chunked(p))
		return sink(ctx, data, len, e);
	while (len > 0 && r >= 0) {
		if (p->state == STATE_END)
			return malformed(e, "there is more behind its end");
		if (p->state == STATE_DATA) {
			r = take_data(p, &at, &len, sink, ctx, e);
			continue;
		}
		r = gather_line(p, &at, &len, e);
		if (r > 0)
			r = take_line(p, e);
	}
	return r < 0 ? r : 0;
}

int payload_finish(struct payload *p, struct error *e)
{
	if (!payload_is_chunked(p))
		return 0;
	if ((p->state != STATE_END && p->state != STATE_LAST) || p->line_len > 0)
		return error_set(e, "IncompleteBody", "The body ends before its last chunk.");
	if (p->kind == PAYLOAD_SIGNED_CHUNKS_TRAILER && !p->trailer_signed)
		return error_set(e, "SignatureDoesNotMatch",
				 "The trailers of the body are not signed.");
	return 0;
}
