/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/http_server.h"

#include <arpa/inet.h>
#include <assert.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "os/file.h"
#include "os/privs.h"
#include "wire/http_server_priv.h"

/*
 * Theory of operation. MHD calls on_target() when it has the request line, on_request() first when
 * the headers are complete, then for each piece of the body, then once more at the end, and
 * on_completed() when all is over. A reply can be handed to MHD in the first and in the last of
 * these calls only, and in the first MHD closes the connection behind it; with unread bytes in the
 * socket that close becomes a reset, and a client that is still sending may never see why it was
 * refused. So a refusal waits until the body was read and thrown away, unless the client asked
 * first
 * (`Expect: 100-continue`: it has not sent the body) or the body is too long to be worth it.
 */

static void set_turn(struct http_request *r, enum http_turn turn)
{
	if (r->conn)
		atomic_store(&r->conn->turn, turn);
}

static enum MHD_Result queue(struct http_request *r)
{
	enum MHD_Result ret;

	set_turn(r, HTTP_TURN_REPLY);
	ret = MHD_queue_response(r->mhd, r->status, r->response);
	r->queued = ret == MHD_YES;
	return ret;
}

static bool peer_trusted(struct http_request *r)
{
	struct http_conn *c = r->conn;

	if (!r->server->tls)
		return true;
	if (!c)
		return false;
	if (!c->identity_checked) {
		const union MHD_ConnectionInfo *info =
		    MHD_get_connection_info(r->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);

		c->identity_checked = true;
		c->identity_valid =
		    info && tls_peer_identity(r->server->tls, info->tls_session, &c->identity) == 0;
	}
	return c->identity_valid;
}

static bool expects_body(const struct http_request *r)
{
	return r->declared_bytes > 0;
}

static uint64_t body_limit(const struct http_request *r)
{
	return r->streamed ? r->server->max_stream_bytes : r->server->max_body_bytes;
}

static void refuse_long_body(struct http_request *r)
{
	const struct http_server *s = r->server;
	char text[96];

	if (s->handler.too_long) {
		s->handler.too_long(s->ctx, r);
		return;
	}
	snprintf(text, sizeof(text), "The request's body is longer than the %llu bytes taken here.",
		 (unsigned long long)body_limit(r));
	http_reply_plain(r, MHD_HTTP_CONTENT_TOO_LARGE, text);
}

static enum MHD_Result request_begin(struct http_request *r, const char *method,
				     const char *version)
{
	struct http_server *s = r->server;
	const char *why = NULL;
	unsigned status;

	r->begun = true;
	r->streamed = s->handler.body != NULL;
	set_turn(r, HTTP_TURN_HANDLER);
	status = http_request_read_head(r, method, version, &why);
	if (status) {
		http_reply_plain(r, status, why);
		return queue(r); /* where its body would end is not known */
	}
	if (!peer_trusted(r)) {
		http_reply_plain(r, MHD_HTTP_FORBIDDEN,
				 "A client certificate of this cloud's own authority is needed.");
	} else if (r->declared_bytes != UINT64_MAX && r->declared_bytes > body_limit(r)) {
		refuse_long_body(r);
	} else {
		r->called = true;
		if (s->handler.begin)
			s->handler.begin(s->ctx, r);
	}
	if (r->response && expects_body(r) &&
	    (r->expects_continue ||
	     (r->declared_bytes != UINT64_MAX && r->declared_bytes > HTTP_DRAIN_MAX_BYTES)))
		return queue(r);
	set_turn(r, HTTP_TURN_BODY);
	return MHD_YES;
}

/* Many clients that each send a long body, and never its end, must not take all memory. */
static void collect(struct http_request *r, const char *data, size_t len)
{
	struct http_server *s = r->server;
	uint64_t held = atomic_fetch_add(&s->held_bytes, len) + len;

	if (held <= (uint64_t)HTTP_HELD_BODIES * s->max_body_bytes) {
		buf_append(&r->body, data, len);
		return;
	}
	atomic_fetch_sub(&s->held_bytes, len);
	http_request_drop_body(r);
	http_reply_plain(r, MHD_HTTP_SERVICE_UNAVAILABLE,
			 "Too many long requests are under way. Try again shortly.");
}

static enum MHD_Result request_body(struct http_request *r, const char *data, size_t len)
{
	struct http_server *s = r->server;

	r->received_bytes += len;
	if (r->response)
		return r->received_bytes > HTTP_DRAIN_MAX_BYTES ? MHD_NO : MHD_YES;
	if (r->received_bytes > body_limit(r)) {
		http_request_drop_body(r);
		refuse_long_body(r);
		return MHD_YES;
	}
	if (!r->streamed) {
		collect(r, data, len);
		return MHD_YES;
	}
	set_turn(r, HTTP_TURN_HANDLER);
	s->handler.body(s->ctx, r, data, len);
	set_turn(r, HTTP_TURN_BODY);
	return MHD_YES;
}

static enum MHD_Result request_end(struct http_request *r)
{
	struct http_server *s = r->server;

	if (r->queued)
		return MHD_YES;
	set_turn(r, HTTP_TURN_HANDLER);
	if (!r->response)
		s->handler.end(s->ctx, r);
	if (!r->response)
		http_reply_plain(r, MHD_HTTP_INTERNAL_SERVER_ERROR,
				 "The server had no reply to this request.");
	return queue(r);
}

/* --- what MHD calls --- */

static void *on_target(void *cls, const char *uri, struct MHD_Connection *mhd)
{
	struct http_server *s = cls;

	pthread_mutex_lock(&s->lock);
	s->active++;
	pthread_mutex_unlock(&s->lock);
	return http_request_new(s, mhd, uri);
}

static size_t keep_escapes(void *cls, struct MHD_Connection *mhd, char *text)
{
	return strlen(text);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url,
				  const char *method, const char *version, const char *data,
				  size_t *len, void **request)
{
	struct http_request *r = *request;
	enum MHD_Result ret;

	if (!r)
		return MHD_NO;
	assert(r->magic == HTTP_REQUEST_MAGIC);
	if (!r->begun)
		return request_begin(r, method, version);
	if (!*len)
		return request_end(r);
	ret = request_body(r, data, *len);
	*len = 0;
	return ret;
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **request,
			 enum MHD_RequestTerminationCode code)
{
	struct http_server *s = cls;
	struct http_request *r = *request;

	if (!r)
		return;
	*request = NULL;
	assert(r->magic == HTTP_REQUEST_MAGIC);
	if (r->called && s->handler.done)
		s->handler.done(s->ctx, r,
				code != MHD_REQUEST_TERMINATED_COMPLETED_OK || !r->queued ||
				    r->library_said);
	if (r->conn) {
		atomic_store(&r->conn->head_since_ms, clock_mono_ms());
		set_turn(r, HTTP_TURN_HEAD);
	}
	http_request_free(r);
	pthread_mutex_lock(&s->lock);
	s->active--;
	if (s->stopping && s->active == 0)
		pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
			  enum MHD_ConnectionNotificationCode code)
{
	struct http_server *s = cls;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		const union MHD_ConnectionInfo *info =
		    MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
		struct http_conn *c = calloc(1, sizeof(*c));

		if (!c)
			abort();
		c->fd = info->connect_fd;
		*context = c;
		http_watch_add(s, c);
	} else if (*context) {
		http_watch_remove(s, *context);
		free(*context);
		*context = NULL;
	}
}

/* --- start and stop --- */

static int bind_error(const struct http_server_config *c, int err, struct error *e)
{
	char holder[128] = "";

	if (err == EADDRINUSE) {
		port_holder(c->port, holder, sizeof(holder));
		error_set(e, "AddressInUse",
			  "port %u of %s is taken%s%s; stop that program, or choose other "
			  "ports with MALLEE_PORT_BASE",
			  c->port, c->address, holder[0] ? " by " : "", holder);
	} else if (err == EADDRNOTAVAIL) {
		error_set(e, "AddressNotAvailable",
			  "cannot listen on %s: no interface of this host has that address",
			  c->address);
	} else {
		error_errno(e, err, "cannot listen on %s port %u", c->address, c->port);
	}
	return -err;
}

static int open_listener(const struct http_server_config *c, int *ret_fd, uint16_t *ret_port,
			 struct error *e)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(c->port)};
	_cleanup_(fd_closep) int fd = -1;
	socklen_t len = sizeof(sin);
	const int one = 1;

	if (inet_pton(AF_INET, c->address, &sin.sin_addr) != 1) {
		error_set(e, "InvalidAddress", "\"%s\" is no IPv4 address to listen on",
			  c->address);
		return -EINVAL;
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_errno(e, errno, "cannot make a socket");
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    (c->free_bind && setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof(one)) < 0))
		return error_errno(e, errno, "cannot set up the socket of port %u", c->port);
	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0 || listen(fd, 511) < 0)
		return bind_error(c, errno, e);
	if (getsockname(fd, (struct sockaddr *)&sin, &len) < 0)
		return error_errno(e, errno, "cannot tell the port of %s", c->address);
	*ret_port = ntohs(sin.sin_port);
	*ret_fd = fd;
	fd = -1;
	return 0;
}

static struct MHD_Daemon *start_daemon(struct http_server *s, const struct http_server_config *c)
{
	bool threaded = c->threads < 0;
	unsigned pool = c->threads > 0 ? (unsigned)c->threads : 4;
	unsigned flags = MHD_USE_ITC;
	struct MHD_OptionItem tls[] = {
	    {MHD_OPTION_HTTPS_MEM_CERT, 0, c->tls ? c->tls->cert_pem : NULL},
	    {MHD_OPTION_HTTPS_MEM_KEY, 0, c->tls ? c->tls->key_pem : NULL},
	    {MHD_OPTION_HTTPS_MEM_TRUST, 0, c->tls ? c->tls->ca_pem : NULL},
	    {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t) "NORMAL:-VERS-ALL:+VERS-TLS1.3"},
	    {MHD_OPTION_END, 0, NULL},
	};
	struct MHD_OptionItem threads[] = {
	    {MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)pool, NULL},
	    {MHD_OPTION_END, 0, NULL},
	};

	flags |= threaded ? MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL_INTERNAL_THREAD
			  : MHD_USE_EPOLL_INTERNAL_THREAD;
	if (c->tls)
		flags |= MHD_USE_TLS;
	return MHD_start_daemon(
	    flags, c->port, NULL, NULL, on_request, s, MHD_OPTION_LISTEN_SOCKET, s->listen_fd,
	    MHD_OPTION_URI_LOG_CALLBACK, on_target, s, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes,
	    s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_NOTIFY_CONNECTION,
	    on_connection, s, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_IDLE_S,
	    MHD_OPTION_CONNECTION_LIMIT,
	    (unsigned)(threaded ? HTTP_CONNECTIONS_THREADED : HTTP_CONNECTIONS_POOL),
	    MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(2 * HTTP_HEAD_MAX_BYTES),
	    MHD_OPTION_THREAD_STACK_SIZE, (size_t)(2 * 1024 * 1024), MHD_OPTION_ARRAY,
	    c->tls ? tls : &tls[4], MHD_OPTION_ARRAY, threaded || pool == 1 ? &threads[1] : threads,
	    MHD_OPTION_END);
}

static void server_free(struct http_server *s)
{
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int http_server_start_paced(const struct http_server_config *c, struct http_pace pace,
			    struct http_server **ret, struct error *e)
{
	struct http_server *s;
	pthread_condattr_t attr;
	int r;

	assert(c->handler && c->handler->end);
	s = calloc(1, sizeof(*s));
	if (!s)
		abort();
	s->listen_fd = -1;
	s->pace = pace;
	s->tls = c->tls;
	s->handler = *c->handler;
	s->ctx = c->ctx;
	s->free_ctx = c->free_ctx;
	s->max_body_bytes = c->max_body_bytes ? c->max_body_bytes : 1024 * 1024;
	s->max_stream_bytes =
	    c->max_stream_bytes ? c->max_stream_bytes : (UINT64_C(5) << 30) + 1024 * 1024;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);

	r = open_listener(c, &s->listen_fd, &s->port, e);
	if (r < 0) {
		server_free(s);
		return r;
	}
	s->daemon = start_daemon(s, c);
	if (!s->daemon || http_watch_start(s) < 0) {
		r = error_errno(e, errno ? errno : EIO, "cannot start the HTTP server of port %u",
				s->port);
		if (s->daemon) { /* it has the listener now, and closes it */
			MHD_stop_daemon(s->daemon);
			s->listen_fd = -1;
		}
		server_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

int http_server_start(const struct http_server_config *c, struct http_server **ret, struct error *e)
{
	return http_server_start_paced(c, HTTP_PACE, ret, e);
}

void http_server_stop(struct http_server *s, int grace_ms)
{
	struct timespec until;

	if (!s)
		return;
	if (MHD_quiesce_daemon(s->daemon) == MHD_INVALID_SOCKET)
		s->listen_fd = -1; /* MHD keeps it and closes it */
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += grace_ms / 1000;
	until.tv_nsec += (grace_ms % 1000) * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	while (s->active > 0 && pthread_cond_timedwait(&s->changed, &s->lock, &until) == 0)
		;
	pthread_mutex_unlock(&s->lock);
	MHD_stop_daemon(s->daemon);
	http_watch_stop(s);
	if (s->free_ctx)
		s->free_ctx(s->ctx);
	server_free(s);
}

uint16_t http_server_port(const struct http_server *s)
{
	return s->port;
}
