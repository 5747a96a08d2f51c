/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/http_server.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/id.h"
#include "base/text.h"
#include "wire/http_server_priv.h"

/* --- reading the head --- */

static void make_request_id(char out[static 37])
{
	unsigned char b[16];
	char hex[33];

	random_bytes(b, sizeof(b));
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	hex_encode(b, sizeof(b), hex);
	snprintf(out, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

/* "http://host/path" is a legal target; what follows the authority counts. */
static const char *strip_authority(const char *uri)
{
	if (strncasecmp(uri, "http://", 7) != 0 && strncasecmp(uri, "https://", 8) != 0)
		return uri;
	uri = strstr(uri, "//") + 2;
	uri += strcspn(uri, "/?");
	return *uri == '/' ? uri : "/";
}

struct http_request *http_request_new(struct http_server *s, struct MHD_Connection *mhd,
				      const char *uri)
{
	struct arena *a = arena_new();
	struct http_request *r = arena_new_struct(a, struct http_request);
	const union MHD_ConnectionInfo *info;
	const char *question;

	r->magic = HTTP_REQUEST_MAGIC;
	r->server = s;
	r->mhd = mhd;
	r->arena = a;
	info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	r->conn = info ? info->socket_context : NULL;
	r->method = "";
	r->target = uri ? arena_strdup(a, strip_authority(uri)) : "";
	question = strchr(r->target, '?');
	r->path =
	    question ? arena_strndup(a, r->target, (size_t)(question - r->target)) : r->target;
	r->query = question ? question + 1 : "";
	make_request_id(r->id);
	return r;
}

void http_request_drop_body(struct http_request *r)
{
	atomic_fetch_sub(&r->server->held_bytes, r->body.len);
	buf_done(&r->body);
}

void http_request_free(struct http_request *r)
{
	if (!r)
		return;
	assert(r->magic == HTTP_REQUEST_MAGIC);
	r->magic = 0;
	if (r->response)
		MHD_destroy_response(r->response);
	http_request_drop_body(r);
	arena_free(r->arena);
}

/* value lives in a already */
static void add_line(struct arena *a, struct http_header_line **lines, size_t *count, size_t *room,
		     const char *name, const char *value)
{
	if (*count == *room) {
		size_t grown = *room ? *room * 2 : 16;
		struct http_header_line *p = arena_new_array(a, struct http_header_line, grown);

		if (*count)
			memcpy(p, *lines, *count * sizeof(*p));
		*lines = p;
		*room = grown;
	}
	(*lines)[(*count)++] =
	    (struct http_header_line){.name = arena_strdup(a, name), .value = value};
}

static enum MHD_Result copy_header(void *cls, enum MHD_ValueKind kind, const char *name,
				   const char *value)
{
	struct http_request *r = cls;
	size_t len = value ? strlen(value) : 0;

	while (len && (value[len - 1] == ' ' || value[len - 1] == '\t'))
		len--; /* MHD strips the front only */
	add_line(r->arena, &r->headers, &r->header_count, &r->header_room, name,
		 arena_strndup(r->arena, value ? value : "", len));
	return MHD_YES;
}

static size_t count_header(const struct http_request *r, const char *name)
{
	size_t n = 0;

	for (size_t i = 0; i < r->header_count; i++)
		n += strcasecmp(r->headers[i].name, name) == 0;
	return n;
}

/* How long the body will be. MHD has parsed the number already; what it tolerates and we do not is
 * here. */
static unsigned read_framing(struct http_request *r, const char **ret_why)
{
	const char *length = http_header(r, "Content-Length");
	const char *coding = http_header(r, "Transfer-Encoding");

	if (coding && strcasecmp(coding, "chunked") != 0) {
		*ret_why = "This Transfer-Encoding is not served; send the body chunked or with a "
			   "Content-Length.";
		return MHD_HTTP_NOT_IMPLEMENTED;
	}
	if (count_header(r, "Content-Length") > 1 || (coding && length)) {
		*ret_why = "The body's length is given twice.";
		return MHD_HTTP_BAD_REQUEST;
	}
	if (coding)
		r->declared_bytes = UINT64_MAX;
	else if (length && parse_u64(length, 0, UINT64_MAX - 1, &r->declared_bytes) < 0) {
		*ret_why = "The Content-Length is not a number.";
		return MHD_HTTP_BAD_REQUEST;
	}
	return 0;
}

unsigned http_request_read_head(struct http_request *r, const char *method, const char *version,
				const char **ret_why)
{
	const char *expect;

	r->method = arena_strdup(r->arena, method);
	MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, copy_header, r);

	if (r->target[0] != '/' && !str_eq(r->target, "*")) {
		*ret_why = "The request target must be a path that starts with '/'.";
		return MHD_HTTP_BAD_REQUEST;
	}
	for (const char *p = r->target; *p; p++) {
		if ((unsigned char)*p <= ' ' || *p == 0x7f) {
			*ret_why =
			    "The request target holds a space or a control character; it must be "
			    "percent-encoded.";
			return MHD_HTTP_BAD_REQUEST;
		}
	}
	if (str_eq(version, "HTTP/1.1") && !http_header(r, "Host")) {
		*ret_why = "The Host header is missing.";
		return MHD_HTTP_BAD_REQUEST;
	}
	if (count_header(r, "Host") > 1) {
		*ret_why = "The Host header is given twice.";
		return MHD_HTTP_BAD_REQUEST;
	}
	expect = http_header(r, "Expect");
	r->expects_continue =
	    expect && strcasecmp(expect, "100-continue") == 0 && !str_eq(version, "HTTP/1.0");
	return read_framing(r, ret_why);
}

/* --- what handlers ask --- */

struct arena *http_arena(struct http_request *r)
{
	return r->arena;
}

const char *http_method(const struct http_request *r)
{
	return r->method;
}

const char *http_target(const struct http_request *r)
{
	return r->target;
}

const char *http_path(const struct http_request *r)
{
	return r->path;
}

const char *http_query(const struct http_request *r)
{
	return r->query;
}

const char *http_header(const struct http_request *r, const char *name)
{
	const char *only = NULL;
	size_t count = 0, len = 0;
	char *joined, *p;

	for (size_t i = 0; i < r->header_count; i++) {
		if (strcasecmp(r->headers[i].name, name) == 0) {
			only = r->headers[i].value;
			len += strlen(only) + 1;
			count++;
		}
	}
	if (count < 2)
		return only;
	p = joined = arena_alloc(r->arena, len);
	for (size_t i = 0; i < r->header_count; i++) {
		if (strcasecmp(r->headers[i].name, name) == 0) {
			p = stpcpy(p, r->headers[i].value);
			*p++ = ',';
		}
	}
	p[-1] = '\0';
	return joined;
}

void http_each_header(const struct http_request *r,
		      void (*fn)(void *ctx, const char *name, const char *value), void *ctx)
{
	for (size_t i = 0; i < r->header_count; i++)
		fn(ctx, r->headers[i].name, r->headers[i].value);
}

const char *http_body(const struct http_request *r, size_t *ret_len)
{
	if (ret_len)
		*ret_len = r->body.len;
	return r->body.data ? r->body.data : "";
}

const struct sockaddr *http_peer(const struct http_request *r)
{
	const union MHD_ConnectionInfo *info =
	    MHD_get_connection_info(r->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

	return info ? info->client_addr : NULL;
}

int http_socket(const struct http_request *r)
{
	const union MHD_ConnectionInfo *info =
	    MHD_get_connection_info(r->mhd, MHD_CONNECTION_INFO_CONNECTION_FD);

	return info ? info->connect_fd : -1;
}

const struct tls_identity *http_peer_identity(const struct http_request *r)
{
	return r->conn && r->conn->identity_valid ? &r->conn->identity : NULL;
}

const char *http_request_id(const struct http_request *r)
{
	return r->id;
}

void http_set_data(struct http_request *r, void *data)
{
	r->data = data;
}

void *http_data(const struct http_request *r)
{
	return r->data;
}

/* --- the reply --- */

void http_reply_header(struct http_request *r, const char *name, const char *value)
{
	char *clean;

	assert(r->magic == HTTP_REQUEST_MAGIC && !r->response);
	/* A value may come from a client (object metadata): no line break may get out. MHD takes no
	 * empty value, and white space at its edges means nothing. */
	clean = arena_strdup(r->arena, *value ? value : " ");
	for (char *p = clean; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	}
	add_line(r->arena, &r->reply_headers, &r->reply_header_count, &r->reply_header_room, name,
		 clean);
}

static void set_response(struct http_request *r, int status, const char *content_type,
			 struct MHD_Response *response)
{
	assert(r->magic == HTTP_REQUEST_MAGIC);
	assert(!r->response); /* exactly one reply a request */
	if (!response)
		abort(); /* out of memory */
	r->response = response;
	r->status = (unsigned)status;
	for (size_t i = 0; i < r->reply_header_count; i++)
		MHD_add_response_header(response, r->reply_headers[i].name,
					r->reply_headers[i].value);
	if (content_type)
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
}

void http_reply(struct http_request *r, int status, const char *content_type, const void *body,
		size_t len)
{
	set_response(r, status, content_type,
		     MHD_create_response_from_buffer(len, (void *)(uintptr_t)(len ? body : ""),
						     MHD_RESPMEM_MUST_COPY));
}

void http_reply_plain(struct http_request *r, unsigned status, const char *text)
{
	char *line = arena_printf(r->arena, "%s\n", text);

	r->library_said = true;
	http_reply(r, (int)status, "text/plain", line, strlen(line));
}

void http_reply_fd(struct http_request *r, int status, const char *content_type, int fd,
		   uint64_t off, uint64_t len)
{
	if (!len) { /* MHD would sendfile() nothing for ever */
		close(fd);
		http_reply(r, status, content_type, "", 0);
		return;
	}
	set_response(r, status, content_type,
		     MHD_create_response_from_fd_at_offset64(len, fd, off));
}

struct stream {
	ssize_t (*read)(void *ctx, uint64_t off, void *buf, size_t max);
	void (*free_ctx)(void *ctx);
	void *ctx;
	uint64_t len;
};

static ssize_t read_stream(void *cls, uint64_t off, char *buf, size_t max)
{
	struct stream *s = cls;
	ssize_t n;

	if (off >= s->len)
		return MHD_CONTENT_READER_END_OF_STREAM;
	n = s->read(s->ctx, off, buf, (size_t)MIN_OF((uint64_t)max, s->len - off));
	/* 0 before the end would make MHD ask again at once, for ever; a short reply must not look
	 * whole. */
	return n > 0 ? n : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void free_stream(void *cls)
{
	struct stream *s = cls;

	if (s->free_ctx)
		s->free_ctx(s->ctx);
	free(s);
}

void http_reply_stream(struct http_request *r, int status, const char *content_type, uint64_t len,
		       ssize_t (*read)(void *ctx, uint64_t off, void *buf, size_t max),
		       void (*free_ctx)(void *ctx), void *ctx)
{
	struct stream *s = malloc(sizeof(*s));

	if (!s)
		abort();
	*s = (struct stream){.read = read, .free_ctx = free_ctx, .ctx = ctx, .len = len};
	set_response(
	    r, status, content_type,
	    MHD_create_response_from_callback(len, 128 * 1024, read_stream, s, free_stream));
}

bool http_replied(const struct http_request *r)
{
	return r->response != NULL;
}
