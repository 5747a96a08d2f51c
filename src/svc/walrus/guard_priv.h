/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_WALRUS_GUARD_PRIV_H
#define MALLEE_SVC_WALRUS_GUARD_PRIV_H

#include "svc/walrus/sums_priv.h"
#include "wire/codec.h"
#include "wire/http_server.h"
#include "wire/sigv4.h"

/* All that a client says of its body, in headers and trailers, and the check that it is so: length,
 * Content-MD5, x-amz-content-sha256, x-amz-checksum-…. */
struct guard {
	uint64_t length;	 /* of the data; STORE_SIZE_UNKNOWN when it was not told */
	const char *content_md5; /* base64; NULL */
	const char *sha256;	 /* hexadecimal; NULL when the payload is not signed as one */
	bool chunks_signed;
	struct sums sums;	   /* told */
	bool announced[SUM_COUNT]; /* by x-amz-trailer: must come behind the body */
	const char *composite;	   /* the header whose value has "-PARTS": a completion's; NULL */
};

int guard_read_headers(struct guard *g, struct arena *a, const struct http_request *r,
		       const struct sigv4_auth *auth, bool chunked, struct error *e);
/* DIGEST_BIT()s that guard_check() will need. */
unsigned guard_digests(const struct guard *g);
/* Whether anything guards the body against damage on its way. */
bool guard_covers_body(const struct guard *g);
int guard_read_trailers(struct guard *g, struct arena *a, const struct wire_params *trailers,
			struct error *e);

struct guard_body {
	const struct store_writer *writer; /* NULL: the body is data */
	const void *data;
	size_t len;
	uint64_t received; /* bytes */
	bool object_sums;  /* the checksum headers are of a whole object, not of this body */
};
/* BadDigest, InvalidDigest, XAmzContentSHA256Mismatch, IncompleteBody. The checksums, as verified,
 * go to *ret. */
int guard_check(const struct guard *g, struct arena *a, const struct guard_body *b,
		struct sums *ret, struct error *e);

#endif
