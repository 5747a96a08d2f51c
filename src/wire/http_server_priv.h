/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_WIRE_HTTP_SERVER_PRIV_H
#define MALLEE_WIRE_HTTP_SERVER_PRIV_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "wire/http_server.h"

/* What a client may do at most. */
enum {
	HTTP_HEAD_MAX_BYTES = 64 * 1024, /* request line and headers */
	HTTP_IDLE_S = 60,
	HTTP_CONNECTIONS_POOL = 2000,
	HTTP_CONNECTIONS_THREADED = 500,
	HTTP_HELD_BODIES = 64, /* longest bodies' worth that all requests together keep in memory */
};
/* And how slowly; tests shorten it. */
struct http_pace {
	int head_ms;	  /* from connect or the reply before, until the headers are complete */
	int window_ms;	  /* in each so long a time, whenever it is not the handler's turn, */
	int window_bytes; /* … it moves so many bytes, either way */
	int watch_ms;	  /* how often that is looked at */
};
#define HTTP_PACE ((struct http_pace){65000, 60000, 1024, 5000})
#define HTTP_DRAIN_MAX_BYTES                                                                       \
	(UINT64_C(1) << 30) /* of a refused body; then the connection is cut                       \
			     */

/* Whose turn it is on a connection. */
enum http_turn { HTTP_TURN_HEAD, HTTP_TURN_BODY, HTTP_TURN_HANDLER, HTTP_TURN_REPLY };

/* One per TCP connection, on the server's list while MHD has the socket open. */
struct http_conn {
	struct http_conn *prev, *next;
	int fd;
	_Atomic int turn;	       /* enum http_turn; written by the connection's thread */
	_Atomic int64_t head_since_ms; /* monotonic */
	int64_t window_since_ms;       /* the watch thread's own */
	uint64_t window_bytes;
	bool identity_checked, identity_valid;
	struct tls_identity identity;
};

struct http_server {
	struct MHD_Daemon *daemon;
	int listen_fd;
	uint16_t port;
	const struct tls_context *tls;
	struct http_handler handler;
	void *ctx;
	void (*free_ctx)(void *ctx);
	size_t max_body_bytes;
	uint64_t max_stream_bytes;
	struct http_pace pace;

	/* lock guards the list of connections, active and stopping; held for list work only. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct http_conn *conns;
	int active; /* requests between their first line and done */
	bool stopping;
	bool watching;
	_Atomic uint64_t held_bytes; /* of collected bodies */
	pthread_t watch_thread;
};

/* As http_server_start(), with another pace. */
int http_server_start_paced(const struct http_server_config *c, struct http_pace pace,
			    struct http_server **ret, struct error *e);
int http_watch_start(struct http_server *s);
void http_watch_stop(struct http_server *s);
void http_watch_add(struct http_server *s, struct http_conn *c);
void http_watch_remove(struct http_server *s, struct http_conn *c);

struct http_header_line {
	const char *name, *value;
};

struct http_request {
	unsigned magic;
	struct http_server *server;
	struct MHD_Connection *mhd;
	struct http_conn *conn;
	struct arena *arena;
	const char *method, *target, *path, *query;
	struct http_header_line *headers;
	size_t header_count, header_room;
	char id[37];
	void *data;

	bool begun;	   /* the headers were seen */
	bool called;	   /* begin was called, so done must be */
	bool library_said; /* the reply is this layer's own, not the handler's */
	bool queued;	   /* the reply was handed to MHD */
	bool expects_continue;
	bool streamed;		 /* the handler takes the body in pieces */
	uint64_t declared_bytes; /* Content-Length; UINT64_MAX when chunked */
	uint64_t received_bytes;
	struct buf body;

	struct http_header_line *reply_headers;
	size_t reply_header_count, reply_header_room;
	struct MHD_Response *response;
	unsigned status;
};

#define HTTP_REQUEST_MAGIC 0x48545251u

/* Takes uri (the raw request target, NULL when there was none) into a new request. */
struct http_request *http_request_new(struct http_server *s, struct MHD_Connection *mhd,
				      const char *uri);
void http_request_free(struct http_request *r);
/* Copies the headers; then 0, or the status of the refusal with its text in *ret_why. */
unsigned http_request_read_head(struct http_request *r, const char *method, const char *version,
				const char **ret_why);
/* What was collected of the body is not needed any more. */
void http_request_drop_body(struct http_request *r);
/* A plain-text reply of this layer's own. */
void http_reply_plain(struct http_request *r, unsigned status, const char *text);

#endif
