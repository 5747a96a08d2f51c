/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_WIRE_HTTP_CLIENT_H
#define MALLEE_WIRE_HTTP_CLIENT_H

#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "tls/tls.h"

/* HTTP requests through libcurl. A client keeps connections alive; one client per thread. */
struct http_client;

int http_client_new(const struct tls_context *tls /* NULL: plain or public TLS */, struct http_client **ret);
void http_client_free(struct http_client *c);

struct http_exchange {
	const char *method, *url;
	const char *const *headers;      /* "Name: value", NULL-terminated; NULL for none */
	const void *body;                /* sent whole; NULL: none */
	size_t body_len;
	int body_fd;                     /* > 0: send body_len bytes from here instead */
	int connect_timeout_ms;          /* 0: 3 s */
	int timeout_ms;                  /* 0: 30 s for the whole exchange; -1: only stalls (1 kB/s for 30 s) end it */
	enum tls_role peer_role;         /* with tls: the certificate must carry this role */
	const char *peer_id;             /* with tls: and this id; NULL: any */
	/* Reply. With on_data the body goes there (a non-zero return aborts; status is set before), else into reply. */
	int (*on_data)(void *ctx, const void *data, size_t len);
	void *on_data_ctx;
	int status;                      /* out */
	int64_t reply_len;               /* out, before on_data: the body's length; -1: the peer did not say */
	struct buf reply;                /* out: body; the caller's to free (buf_done) */
	uint64_t max_reply_bytes;        /* 0: 64 MiB into reply, unlimited into on_data */
};

/*
 * 0 whatever the status; an unreachable, untrusted or broken peer is a negative errno and a message in *e that names the URL
 * (without its query, which may hold a signature). Codes: ServiceUnavailable, PeerNotTrusted (-EACCES), InvalidUrl (-EINVAL),
 * ReplyTooLarge (-EFBIG), Cancelled (-ECANCELED). With tls only https URLs are taken, and the peer must be of our own
 * authority and of peer_role before anything of the request is sent; names in the certificate do not matter. Redirects are
 * not followed, proxies not used.
 */
int http_client_do(struct http_client *c, struct http_exchange *x, struct error *e);

/* From any thread: the exchange under way and later ones end at once. For stopping. */
void http_client_cancel(struct http_client *c);

#endif
