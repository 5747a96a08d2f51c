/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_WIRE_HTTP_SERVER_H
#define MALLEE_WIRE_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/arena.h"
#include "base/error.h"
#include "tls/tls.h"

/*
 * The HTTP server: a thin interface over libmicrohttpd, so that no other file knows that library. Requests are served by a pool
 * of threads (epoll); all callbacks of one request run on one thread, and two requests of one server may run at once.
 *
 *   begin: the headers are complete (nothing of the body was read; `Expect: 100-continue` was not answered yet). Either set a
 *          reply here (the body is then not asked for), or return with none to receive the body.
 *   body:  a piece of the body, in order. After a reply set here (or in begin) no more pieces come; what the client still
 *          sends is read and thrown away, up to 1 GiB, and then the reply goes out.
 *   end:   the body is complete: must set a reply.
 *   done:  always called last, exactly once, also when the client went away half-way (aborted = true): undo there.
 *
 * Limits: request line and headers 64 KiB together; a body longer than its Content-Length or than the server's max is refused;
 * so are collected ones (503) while 64 times that max is held in memory;
 * idle time-out 60 s; headers complete within 65 s; 1 KiB a minute while it is the client's turn. Malformed requests are
 * answered 400 by the library and never reach begin; with tls, so are peers without a certificate of the cloud (403).
 */
struct http_server;
struct http_request;

struct http_handler {
	void (*begin)(void *ctx, struct http_request *r);
	void (*body)(void *ctx, struct http_request *r, const void *data, size_t len); /* NULL: body collected, max_body_bytes */
	void (*end)(void *ctx, struct http_request *r);
	void (*done)(void *ctx, struct http_request *r, bool aborted); /* NULL: nothing to undo */
	/* The body is longer than is taken, by its declared length (then begin was not called) or as it comes: must set a reply.
	 * NULL: a line of plain text. */
	void (*too_long)(void *ctx, struct http_request *r);
};

struct http_server_config {
	const char *address;              /* "127.0.0.1"; IPv4 */
	bool free_bind;                   /* IP_FREEBIND: the address may not exist yet */
	uint16_t port;                    /* 0: any (http_server_port tells) */
	int threads;                      /* 0: 4; -1: one per connection, for handlers that wait (a handler of a pool
					   * keeps the other connections of its thread waiting) */
	const struct tls_context *tls;    /* NULL: plain HTTP; else mutual TLS */
	size_t max_body_bytes;            /* for collected bodies; 0: 1 MiB */
	uint64_t max_stream_bytes;        /* for streamed ones; 0: 5 GiB + 1 MiB */
	const struct http_handler *handler;
	void *ctx;
	void (*free_ctx)(void *ctx);      /* called when the server has stopped (not when its start fails); NULL: nothing */
};

/* A taken port is -EADDRINUSE, with its holder named in *e. */
int http_server_start(const struct http_server_config *c, struct http_server **ret, struct error *e);
/* Stops accepting, lets requests under way finish for grace_ms, closes. */
void http_server_stop(struct http_server *s, int grace_ms);
uint16_t http_server_port(const struct http_server *s);

/* --- the request --- */
struct arena *http_arena(struct http_request *r);                 /* lives until after done */
const char *http_method(const struct http_request *r);
const char *http_target(const struct http_request *r);            /* raw request target, as sent: "/b/k%20x?uploads" */
const char *http_path(const struct http_request *r);              /* raw part before '?' */
const char *http_query(const struct http_request *r);             /* raw part after '?', "" when none */
const char *http_header(const struct http_request *r, const char *name); /* NULL when absent; joined with ',' when repeated */
void http_each_header(const struct http_request *r, void (*fn)(void *ctx, const char *name, const char *value), void *ctx);
const char *http_body(const struct http_request *r, size_t *ret_len);    /* collected body, NUL-terminated */
const struct sockaddr *http_peer(const struct http_request *r);
int http_socket(const struct http_request *r);                    /* the connection's descriptor, for setsockopt only */
const struct tls_identity *http_peer_identity(const struct http_request *r); /* NULL on plain HTTP */
const char *http_request_id(const struct http_request *r);        /* a fresh UUID a request */
void http_set_data(struct http_request *r, void *data);           /* the handler's own */
void *http_data(const struct http_request *r);

/* --- the reply: exactly one a request --- */
void http_reply_header(struct http_request *r, const char *name, const char *value); /* before the reply; replaces Date, Server */
void http_reply(struct http_request *r, int status, const char *content_type, const void *body, size_t len); /* copies body */
/* Bytes [off, off + len) of fd, sent as the client takes them; the server owns fd from here on. */
void http_reply_fd(struct http_request *r, int status, const char *content_type, int fd, uint64_t off, uint64_t len);
/* Bytes from a callback (pull: fill at most max bytes at off, return the count, 0 only at the end, negative errno to break the
 * connection). len is the exact length. free_ctx runs once at the end. HEAD replies send the headers alone. */
void http_reply_stream(struct http_request *r, int status, const char *content_type, uint64_t len,
		       ssize_t (*read)(void *ctx, uint64_t off, void *buf, size_t max), void (*free_ctx)(void *ctx), void *ctx);
bool http_replied(const struct http_request *r);

#endif
