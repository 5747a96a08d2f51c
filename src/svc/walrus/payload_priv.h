/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_WALRUS_PAYLOAD_PRIV_H
#define MALLEE_SVC_WALRUS_PAYLOAD_PRIV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "wire/codec.h"
#include "wire/sigv4.h"

/*
 * The framings of a request's body, told by x-amz-content-sha256: plain bytes (their SHA-256
 * signed, or unsigned), or "aws-chunked": chunks, each perhaps with a signature that covers the one
 * before it, and perhaps trailers behind the last. Bytes are handed on as they come; a chunk whose
 * signature turns out wrong fails the request, whose data is then dropped.
 */
enum payload_kind {
	PAYLOAD_SHA256,
	PAYLOAD_UNSIGNED,
	PAYLOAD_SIGNED_CHUNKS,
	PAYLOAD_SIGNED_CHUNKS_TRAILER,
	PAYLOAD_UNSIGNED_CHUNKS_TRAILER,
};

struct payload;

typedef int payload_sink_fn(void *ctx, const void *data, size_t len, struct error *e);

/* auth and key are those that verified the headers. All memory is the arena's, but for
 * payload_done(). */
int payload_new(struct arena *a, const struct sigv4_auth *auth,
		const unsigned char key[static SIGV4_KEY_LEN], struct payload **ret,
		struct error *e);
void payload_done(struct payload *p); /* NULL is fine */
enum payload_kind payload_kind(const struct payload *p);
bool payload_is_chunked(const struct payload *p);
int payload_feed(struct payload *p, const void *data, size_t len, payload_sink_fn *sink, void *ctx,
		 struct error *e);
/* At the body's end: IncompleteBody when chunks or trailers are missing. */
int payload_finish(struct payload *p, struct error *e);
const struct wire_params *payload_trailers(const struct payload *p); /* names in lower case */

#endif
