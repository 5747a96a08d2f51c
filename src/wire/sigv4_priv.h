/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_WIRE_SIGV4_PRIV_H
#define MALLEE_WIRE_SIGV4_PRIV_H

#include "wire/sigv4.h"

/* What signing looks at of a request, so that tests, the fuzzer and our own client need no server.
 */
struct sigv4_source {
	const char *method;
	const char *path, *query;			    /* raw, as sent; query "" when none */
	const char *(*header)(void *ctx, const char *name); /* NULL when absent */
	void (*each_header)(void *ctx,
			    void (*fn)(void *fn_ctx, const char *name, const char *value),
			    void *fn_ctx);
	void *ctx;
};

#define SIGV4_DIGEST_LEN 32 /* of SHA-256 */
#define SIGV4_HASH_HEX_LEN 65
#define SIGV4_EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SIGV4_ALGORITHM "AWS4-HMAC-SHA256"
#define SIGV4_MAX_EXPIRES_S (7 * 24 * 3600)
#define SIGV4_SKEW_MS (15 * 60 * 1000)

int sigv4_parse_source(struct arena *a, const struct sigv4_source *src, bool s3, int64_t now_ms,
		       struct sigv4_auth *ret, struct error *e);
int sigv4_verify_source(struct arena *a, const struct sigv4_source *src,
			const struct sigv4_auth *auth,
			const unsigned char key[static SIGV4_KEY_LEN],
			const char *payload_sha256_hex, struct error *e);

/* One query parameter of a raw query string: name and value decoded; NULL when absent. *ret_count:
 * how often it is there. */
const char *sigv4_query_param(struct arena *a, const char *query, const char *name,
			      size_t *ret_count);
/* Percent-escapes in the one form that is signed: unreserved characters plain, all else %XX in
 * capitals. */
char *sigv4_normalise(struct arena *a, const char *s, size_t len, bool keep_slash,
		      bool plus_is_space);
/* The canonical request of the AWS documentation's "Create a signed AWS API request", step 1. */
char *sigv4_canonical_request(struct arena *a, const struct sigv4_source *src,
			      const struct sigv4_auth *auth, const char *payload_sha256_hex);
/* Steps 2 to 4: signature as 32 bytes. */
void sigv4_signature(struct arena *a, const struct sigv4_auth *auth, const char *canonical_request,
		     const unsigned char key[static SIGV4_KEY_LEN],
		     unsigned char out[static SIGV4_DIGEST_LEN]);
void sigv4_sha256_hex(const void *data, size_t len, char out[static SIGV4_HASH_HEX_LEN]);

/* --- sigv2.c: Version 2, query form --- */
#define SIGV2_DIGEST_LEN 20 /* of SHA-1 */

void sigv2_key(const struct secret *secret_key, unsigned char out[static SIGV4_KEY_LEN]);
void sigv2_mac(const unsigned char key[static SIGV4_KEY_LEN], const char *text,
	       unsigned char out[static SIGV2_DIGEST_LEN]);
/* Fills *ret from a query that has AWSAccessKeyId. NULL, or what is wrong with it (S3:
 * AccessDenied). */
const char *sigv2_read(struct arena *a, const struct sigv4_source *src, int64_t now_ms,
		       struct sigv4_auth *ret);
char *sigv2_string_to_sign(struct arena *a, const struct sigv4_source *src);
bool sigv2_matches(struct arena *a, const struct sigv4_source *src, const struct sigv4_auth *auth,
		   const unsigned char key[static SIGV4_KEY_LEN]);

#endif
