/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/walrus/guard_priv.h"

#include <string.h>

#include "base/text.h"

static int read_md5(struct guard *g, struct arena *a, const char *text, struct error *e)
{
	size_t len;
	void *md5;

	if (!text)
		return 0;
	if (base64_decode(a, text, strlen(text), &md5, &len) < 0 || len != digest_len(DIGEST_MD5))
		return error_set(e, "InvalidDigest", "The Content-MD5 you specified was invalid.");
	g->content_md5 = base64_encode(a, md5, len);
	return 0;
}

static int take_sum(struct guard *g, struct arena *a, enum sum_algorithm s, const char *value,
		    struct error *e)
{
	unsigned char bytes[DIGEST_MAX];

	if (!sum_decode(a, s, value, bytes))
		return error_set(e, "InvalidRequest", "Value for %s header is invalid.",
				 sum_descs[s].header);
	g->sums.value[s] = value;
	return 0;
}

static int read_length(struct guard *g, const struct http_request *r, bool chunked, struct error *e)
{
	const char *decoded = http_header(r, "x-amz-decoded-content-length");
	const char *plain = http_header(r, "Content-Length");

	g->length = STORE_SIZE_UNKNOWN;
	if (chunked && !decoded)
		return error_set(
		    e, "MissingContentLength",
		    "An aws-chunked body needs the header x-amz-decoded-content-length.");
	const char *text = chunked ? decoded : plain;

	if (text && parse_u64(text, 0, INT64_MAX, &g->length) < 0)
		return error_set(e, "InvalidArgument", "The length %.30s is not a number of bytes.",
				 text);
	if (!text && !http_header(r, "Transfer-Encoding"))
		g->length = 0;
	return 0;
}

static int read_announced(struct guard *g, struct arena *a, const char *text, struct error *e)
{
	char *save = NULL, *copy = arena_strdup(a, text);

	for (char *t = strtok_r(copy, ", ", &save); t; t = strtok_r(NULL, ", ", &save)) {
		enum sum_algorithm s = sum_by_header(t);

		if (s == SUM_COUNT)
			return error_set(
			    e, "InvalidRequest",
			    "The value specified in x-amz-trailer is not supported: %.60s.", t);
		g->announced[s] = true;
	}
	return 0;
}

int guard_read_headers(struct guard *g, struct arena *a, const struct http_request *r,
		       const struct sigv4_auth *auth, bool chunked, struct error *e)
{
	const char *trailer = http_header(r, "x-amz-trailer");
	int rc = read_length(g, r, chunked, e);

	const char *hash = auth->payload_hash ? auth->payload_hash : "UNSIGNED-PAYLOAD";

	g->chunks_signed = chunked && !str_prefix(hash, "STREAMING-UNSIGNED");
	if (strlen(hash) == 64)
		g->sha256 = hash;
	if (rc >= 0)
		rc = read_md5(g, a, http_header(r, "Content-MD5"), e);
	for (int s = 0; s < SUM_COUNT && rc >= 0; s++) {
		const char *value = http_header(r, sum_descs[s].header);

		if (value && strchr(value, '-'))
			g->composite = sum_descs[s].header;
		else if (value)
			rc = take_sum(g, a, s, value, e);
	}
	if (rc >= 0 && trailer && chunked)
		rc = read_announced(g, a, trailer, e);
	return rc;
}

unsigned guard_digests(const struct guard *g)
{
	unsigned bits = g->sha256 ? DIGEST_BIT(DIGEST_SHA256) : 0;

	for (int s = 0; s < SUM_COUNT; s++)
		if (g->sums.value[s] || g->announced[s])
			bits |= DIGEST_BIT(sum_descs[s].kind);
	return bits;
}

bool guard_covers_body(const struct guard *g)
{
	return g->content_md5 || g->sha256 || g->chunks_signed || sums_any(&g->sums);
}

int guard_read_trailers(struct guard *g, struct arena *a, const struct wire_params *trailers,
			struct error *e)
{
	for (size_t i = 0; i < trailers->count; i++) {
		enum sum_algorithm s = sum_by_header(trailers->items[i].key);

		if (s == SUM_COUNT || !g->announced[s])
			return error_set(e, "MalformedTrailerError",
					 "The trailer %.60s was not announced by x-amz-trailer.",
					 trailers->items[i].key);
		int r = take_sum(g, a, s, trailers->items[i].value, e);

		if (r < 0)
			return r;
		g->announced[s] = false;
	}
	for (int s = 0; s < SUM_COUNT; s++)
		if (g->announced[s])
			return error_set(e, "MalformedTrailerError",
					 "The trailer %s was announced and did not come.",
					 sum_descs[s].header);
	return 0;
}

static size_t digest_of(const struct guard_body *b, enum digest_kind kind,
			unsigned char out[static DIGEST_MAX])
{
	return b->writer ? store_writer_digest(b->writer, kind, out)
			 : digest_once(kind, b->data, b->len, out);
}

int guard_check(const struct guard *g, struct arena *a, const struct guard_body *b,
		struct sums *ret, struct error *e)
{
	unsigned char out[DIGEST_MAX];
	char hex[2 * DIGEST_MAX + 1];
	struct sums sums = {0};

	if (g->length != STORE_SIZE_UNKNOWN && g->length != b->received)
		return error_set(e, "IncompleteBody",
				 "The body has %llu bytes where %llu were announced.",
				 (unsigned long long)b->received, (unsigned long long)g->length);
	if (g->composite && !b->object_sums)
		return error_set(e, "InvalidRequest", "Value for %s header is invalid.",
				 g->composite);
	if (g->sha256) {
		hex_encode(out, digest_of(b, DIGEST_SHA256, out), hex);
		if (!str_eq(hex, g->sha256))
			return error_set(
			    e, "XAmzContentSHA256Mismatch",
			    "The provided x-amz-content-sha256 header does not match what was computed.");
	}
	if (g->content_md5) {
		size_t len = digest_of(b, DIGEST_MD5, out);

		if (!str_eq(base64_encode(a, out, len), g->content_md5))
			return error_set(
			    e, "BadDigest",
			    "The Content-MD5 you specified did not match what was received.");
	}
	for (int s = 0; s < SUM_COUNT && !b->object_sums; s++) {
		if (!g->sums.value[s])
			continue;
		digest_of(b, sum_descs[s].kind, out);
		sums.value[s] = sum_encode(a, s, out);
		sums.type = "FULL_OBJECT";
		if (!str_eq(sums.value[s], g->sums.value[s]))
			return error_set(
			    e, "BadDigest",
			    "The %s you specified did not match the calculated checksum.",
			    sum_descs[s].name);
	}
	*ret = sums;
	return 0;
}
