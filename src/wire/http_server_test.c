/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/text.h"
#include "wire/http_server_priv.h"

/* Raw bytes over real sockets, so that what a client library would never send is sent too. */

struct seen {
	_Atomic int begins, ends, dones, aborted;
	_Atomic uint64_t bytes;
	_Atomic int freed;
	_Atomic int waiting;
};

static const char content[] = "0123456789abcdefghijklmnopqrstuvwxyz";

static void on_begin(void *ctx, struct http_request *r)
{
	struct seen *seen = ctx;

	seen->begins++;
	if (str_prefix(http_path(r), "/refuse"))
		http_reply(r, 403, "text/plain", "refused", 7);
}

static void on_body(void *ctx, struct http_request *r, const void *data, size_t len)
{
	struct seen *seen = ctx;

	seen->bytes += len;
	if (str_prefix(http_path(r), "/midway"))
		http_reply(r, 409, "text/plain", "midway", 6);
}

static ssize_t read_content(void *ctx, uint64_t off, void *buf, size_t max)
{
	size_t n = MIN_OF(max, sizeof(content) - 1 - off);

	n = MIN_OF(n, (size_t)5);
	memcpy(buf, content + off, n);
	return (ssize_t)n;
}

static ssize_t read_broken(void *ctx, uint64_t off, void *buf, size_t max)
{
	if (off)
		return -EIO;
	memcpy(buf, "part", 4);
	return 4;
}

static ssize_t read_short(void *ctx, uint64_t off, void *buf, size_t max)
{
	return 0;
}

static void count_free(void *ctx)
{
	((struct seen *)ctx)->freed++;
}

static void reply_file(struct http_request *r, uint64_t off, uint64_t len)
{
	char path[] = "/tmp/mallee-http-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(write(fd, content, sizeof(content) - 1), (ssize_t)sizeof(content) - 1);
	http_reply_header(r, "Content-Range", "bytes 10-19/36");
	http_reply_fd(r, len ? 206 : 200, "application/octet-stream", fd, off, len);
}

static void on_end(void *ctx, struct http_request *r)
{
	struct seen *seen = ctx;
	const char *path = http_path(r);
	size_t len;
	const char *body = http_body(r, &len);
	char *text;

	seen->ends++;
	if (str_eq(path, "/stream"))
		return http_reply_stream(r, 200, "text/plain", sizeof(content) - 1, read_content,
					 count_free, seen);
	if (str_eq(path, "/broken"))
		return http_reply_stream(r, 200, NULL, 100, read_broken, count_free, seen);
	if (str_eq(path, "/short"))
		return http_reply_stream(r, 200, NULL, 100, read_short, count_free, seen);
	if (str_eq(path, "/file"))
		return reply_file(r, 10, 10);
	if (str_eq(path, "/empty-file"))
		return reply_file(r, 0, 0);
	if (str_eq(path, "/silent"))
		return;
	if (str_eq(path, "/nothing"))
		return http_reply(r, 204, NULL, NULL, 0);
	if (str_eq(path, "/wait")) {
		seen->waiting++;
		for (int i = 0; i < 300 && seen->waiting < 2; i++)
			usleep(10000);
	}
	http_reply_header(r, "X-Kept", "a\r\nInjected: yes");
	http_reply_header(r, "X-Empty", "");
	http_reply_header(r, "Date", "Sun, 22 Nov 2026 10:00:00 GMT");
	text = arena_printf(http_arena(r), "%s|%s|%s|%s|%s|%zu|%s", http_method(r), http_target(r),
			    path, http_query(r),
			    http_header(r, "X-Test") ? http_header(r, "x-test") : "-", len, body);
	http_reply(r, 200, "text/plain", text, strlen(text));
}

static void on_done(void *ctx, struct http_request *r, bool aborted)
{
	struct seen *seen = ctx;

	if (aborted)
		seen->aborted++;
	seen->dones++;
}

static const struct http_handler collecting = {.begin = on_begin, .end = on_end, .done = on_done};
static const struct http_handler streaming = {
    .begin = on_begin, .body = on_body, .end = on_end, .done = on_done};

struct fixture {
	struct seen seen;
	struct http_server *server;
	uint16_t port;
};

static struct fixture *start(const struct http_handler *handler, int threads)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error e = {0};
	struct http_server_config c = {
	    .address = "127.0.0.1",
	    .handler = handler,
	    .ctx = &f->seen,
	    .threads = threads,
	    .max_body_bytes = 100000,
	    .max_stream_bytes = 50 << 20,
	};

	assert_int_equal(http_server_start(&c, &f->server, &e), 0);
	f->port = http_server_port(f->server);
	assert_true(f->port > 0);
	return f;
}

static int setup(void **state)
{
	*state = start(&collecting, 2);
	return 0;
}

static int setup_streaming(void **state)
{
	*state = start(&streaming, 1);
	return 0;
}

static int setup_threaded(void **state)
{
	*state = start(&collecting, -1);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	http_server_stop(f->server, 1000);
	assert_int_equal(f->seen.begins, f->seen.dones);
	free(f);
	return 0;
}

static int dial(uint16_t port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	return fd;
}

static bool push(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n < 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

static bool push_text(int fd, const char *text)
{
	return push(fd, text, strlen(text));
}

/* All until the server closes or is silent for timeout_ms; *ret_closed tells which. */
static void pull(int fd, int timeout_ms, struct buf *out, bool *ret_closed)
{
	char tmp[65536];

	*ret_closed = false;
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, timeout_ms) <= 0)
			return;
		n = recv(fd, tmp, sizeof(tmp), 0);
		if (n <= 0) {
			*ret_closed = true;
			return;
		}
		buf_append(out, tmp, (size_t)n);
	}
}

static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("\"%s\" is not in:\n%s", part, text);
}

/* All until this text has come. */
static void pull_text(int fd, const char *text, struct buf *out)
{
	bool closed = false;

	while (!closed && !(out->data && strstr(out->data, text))) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		if (poll(&p, 1, 10000) <= 0)
			break;
		pull(fd, 0, out, &closed);
	}
	assert_has(out->data ? out->data : "", text);
}

/* Sends text and returns what comes back: the caller's to free. */
static char *exchange(uint16_t port, const char *text, bool *ret_closed)
{
	struct buf out = BUF_INIT;
	bool closed;
	int fd = dial(port);

	push_text(fd, text);
	pull(fd, 2000, &out, &closed);
	close(fd);
	if (ret_closed)
		*ret_closed = closed;
	buf_puts(&out, "");
	return out.data ? buf_steal(&out) : strdup("");
}

static void expect_reply(uint16_t port, const char *request, const char *part)
{
	char *got = exchange(port, request, NULL);

	assert_has(got, part);
	free(got);
}

static void wait_for(_Atomic int *what, int value)
{
	for (int i = 0; i < 500 && *what < value; i++)
		usleep(10000);
	assert_int_equal(*what, value);
}

static void keeps_the_target_as_sent(void **state)
{
	struct fixture *f = *state;

	expect_reply(
	    f->port,
	    "GET /b/k%20x%00y%2F+?a=%41&&b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
	    "GET|/b/k%20x%00y%2F+?a=%41&&b|/b/k%20x%00y%2F+|a=%41&&b|-|0|");
	expect_reply(f->port, "GET http://h:1/x?y HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
		     "GET|/x?y|/x|y|-|0|");
	expect_reply(f->port, "GET http://h HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
		     "GET|/|/||-|0|");
}

static void joins_repeated_headers(void **state)
{
	struct fixture *f = *state;

	expect_reply(
	    f->port,
	    "GET / HTTP/1.1\r\nHost: h\r\nX-Test: a\r\nx-test:  b c \t\r\nConnection: close\r\n\r\n",
	    "|a,b c|0|");
}

static void headers_of_replies_are_clean(void **state)
{
	struct fixture *f = *state;
	char *got =
	    exchange(f->port, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", NULL);

	assert_has(got, "X-Kept: a  Injected: yes\r\n");
	assert_has(got, "X-Empty: ");
	assert_has(got, "Date: Sun, 22 Nov 2026 10:00:00 GMT\r\n");
	assert_null(strstr(strstr(got, "Date: ") + 1, "Date: "));
	free(got);
}

static void malformed_requests_are_refused(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *request, *reply;
	} cases[] = {
	    {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
	    {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 400"},
	    {"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400"},
	    {"GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400"},
	    {"GET nopath HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400"},
	    {"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", "HTTP/1.1 400"},
	    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", "HTTP/1.1 400"},
	    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 400"},
	    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
	     "HTTP/1.1 400"},
	    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
	     "0\r\n\r\n",
	     "HTTP/1.1 400"},
	    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
	     "HTTP/1.1 413"},
	    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 501"},
	    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	     "HTTP/1.1 400"},
	    {"GET / HTTP/9.9\r\nHost: a\r\n\r\n", "HTTP/1.1 505"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *got = exchange(f->port, cases[i].request, NULL);

		if (!str_prefix(got, cases[i].reply))
			fail_msg("%s\nwas answered:\n%s", cases[i].request, got);
		free(got);
	}
	/* None of them reached the handler, but those whose chunks were wrong only later. */
	assert_true(f->seen.begins <= 1);
	free(exchange(f->port, "GARBAGE\r\n\r\n", NULL));
	free(exchange(f->port, "\x16\x03\x01\x02", NULL));
	expect_reply(f->port, "GET /alive HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		     "|/alive|");
}

static void huge_headers_are_refused(void **state)
{
	struct fixture *f = *state;
	struct buf b = BUF_INIT;
	char *got;

	buf_puts(&b, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
	for (int i = 0; i < 40000; i++)
		buf_printf(&b, "X-%d: y\r\n", i);
	buf_puts(&b, "\r\n");
	got = exchange(f->port, b.data, NULL);
	/* Sent faster than refused, the refusal may be lost to a reset: then nothing comes. */
	assert_true(got[0] == '\0' || str_prefix(got, "HTTP/1.1 4"));
	free(got);
	buf_reset(&b);
	buf_puts(&b, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Test: ");
	for (int i = 0; i < 30000; i++)
		buf_putc(&b, 'z');
	buf_puts(&b, "\r\n\r\n");
	got = exchange(f->port, b.data, NULL);
	assert_true(str_prefix(got, "HTTP/1.1 200"));
	assert_int_equal(f->seen.begins, 1);
	free(got);
	buf_done(&b);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
	struct fixture *f = *state;
	char *got = exchange(f->port,
			     "GET /one HTTP/1.1\r\nHost: h\r\n\r\n"
			     "POST /two HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
			     "GET /three HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
			     NULL);
	char *one = strstr(got, "GET|/one|"), *two = strstr(got, "POST|/two|/two||-|3|abc");
	char *three = strstr(got, "GET|/three|");

	assert_true(one && two && three && one < two && two < three);
	free(got);
}

static void chunked_bodies_are_joined(void **state)
{
	struct fixture *f = *state;

	expect_reply(
	    f->port,
	    "PUT /c HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
	    "3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nX-Trailer: t\r\n\r\n",
	    "PUT|/c|/c||-|7|abcdefg");
}

static void long_bodies_are_refused(void **state)
{
	struct fixture *f = *state;
	struct buf b = BUF_INIT;
	char *got;

	buf_printf(
	    &b,
	    "POST /l HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 100001\r\n\r\n");
	for (int i = 0; i < 100001; i++)
		buf_putc(&b, 'x');
	got = exchange(f->port, b.data, NULL);
	assert_has(got, "HTTP/1.1 413");
	assert_has(got, "100000 bytes");
	assert_int_equal(f->seen.begins, 0);
	free(got);
	buf_reset(&b);
	buf_puts(
	    &b,
	    "POST /l HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 30; i++) {
		buf_puts(&b, "1000\r\n");
		for (int j = 0; j < 0x1000; j++)
			buf_putc(&b, 'x');
		buf_puts(&b, "\r\n");
	}
	buf_puts(&b, "0\r\n\r\n");
	got = exchange(f->port, b.data, NULL);
	assert_has(got, "HTTP/1.1 413");
	wait_for(&f->seen.aborted, 1);
	assert_int_equal(f->seen.ends, 0);
	free(got);
	buf_done(&b);
}

static void replies_without_a_body(void **state)
{
	struct fixture *f = *state;
	static const char *const paths[] = {"/stream", "/file", "/plain"};
	char *got = exchange(f->port,
			     "GET /nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", NULL);

	assert_has(got, "HTTP/1.1 204");
	assert_true(str_suffix(got, "\r\n\r\n"));
	free(got);
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		char request[128];

		snprintf(request, sizeof(request),
			 "HEAD %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", paths[i]);
		got = exchange(f->port, request, NULL);
		assert_has(got, "Content-Length: ");
		assert_null(strstr(got, "Content-Length: 0"));
		assert_true(str_suffix(got, "\r\n\r\n"));
		free(got);
	}
	wait_for(&f->seen.freed, 1);
}

static void replies_from_streams_and_files(void **state)
{
	struct fixture *f = *state;
	char *got =
	    exchange(f->port, "GET /stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", NULL);

	assert_has(got, "Content-Length: 36\r\n");
	assert_true(str_suffix(got, content));
	free(got);
	wait_for(&f->seen.freed, 1);
	got = exchange(f->port, "GET /file HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", NULL);
	assert_has(got, "HTTP/1.1 206");
	assert_true(str_suffix(got, "\r\n\r\nabcdefghij"));
	free(got);
	got = exchange(f->port, "GET /empty-file HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
		       NULL);
	assert_has(got, "Content-Length: 0\r\n");
	free(got);
	expect_reply(f->port, "GET /silent HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
		     "HTTP/1.1 500");
}

static void broken_streams_break_the_connection(void **state)
{
	struct fixture *f = *state;
	bool closed;
	char *got = exchange(
	    f->port, "GET /broken HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", &closed);

	assert_true(closed);
	assert_true(str_suffix(got, "\r\n\r\npart"));
	free(got);
	free(exchange(f->port, "GET /short HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
		      &closed));
	assert_true(closed);
	wait_for(&f->seen.freed, 2);
	wait_for(&f->seen.aborted, 2);
}

/* A refusal reaches a client that sends all of a large body first, as most do. */
static void refusals_reach_clients_that_send_first(void **state)
{
	struct fixture *f = *state;
	static const char *const paths[] = {"/refuse", "/midway"};
	static const char *const replies[] = {"HTTP/1.1 403", "HTTP/1.1 409"};
	size_t len = 20 << 20;
	char *body = calloc(1, len);

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		struct buf out = BUF_INIT;
		char head[128];
		bool closed;
		int fd = dial(f->port);

		snprintf(head, sizeof(head),
			 "PUT %s HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n", paths[i],
			 len);
		assert_true(push_text(fd, head));
		assert_true(push(fd, body, len));
		assert_true(
		    push_text(fd, "GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
		pull(fd, 2000, &out, &closed);
		assert_true(str_prefix(out.data, replies[i]));
		assert_has(out.data, "GET|/next|");
		assert_true(f->seen.bytes < len);
		buf_done(&out);
		close(fd);
	}
	free(body);
	assert_int_equal(f->seen.aborted, 0);
	assert_int_equal(f->seen.ends, 2); /* the two that followed */
}

static void expect_continue(void **state)
{
	struct fixture *f = *state;
	struct buf out = BUF_INIT;
	bool closed;
	char *got;
	int fd;

	got = exchange(
	    f->port,
	    "PUT /refuse HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
	    &closed);
	assert_true(str_prefix(got, "HTTP/1.1 403"));
	assert_true(closed);
	free(got);
	fd = dial(f->port);
	push_text(
	    fd, "PUT /ok HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n");
	pull_text(fd, "\r\n\r\n", &out);
	assert_string_equal(out.data, "HTTP/1.1 100 Continue\r\n\r\n");
	push_text(fd, "123456789");
	pull_text(fd, "HTTP/1.1 200", &out);
	assert_int_equal(f->seen.bytes, 9);
	buf_done(&out);
	close(fd);
}

static void a_client_that_leaves_is_told_to_done(void **state)
{
	struct fixture *f = *state;
	int fd = dial(f->port);

	push_text(fd, "PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc");
	wait_for(&f->seen.begins, 1);
	close(fd);
	wait_for(&f->seen.aborted, 1);
	fd = dial(f->port);
	push_text(fd, "PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc");
	wait_for(&f->seen.begins, 2);
	shutdown(fd, SHUT_WR);
	wait_for(&f->seen.aborted, 2);
	close(fd);
	assert_int_equal(f->seen.ends, 0);
}

/* Sends (or takes) a byte each 50 ms until the server cuts the connection; the milliseconds that it
 * lasted. */
static int64_t trickle(int fd, const char *text, int timeout_ms)
{
	int64_t start_ms = clock_mono_ms();

	while (clock_mono_ms() - start_ms < timeout_ms) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		char c;

		if (*text && !push(fd, text++, 1))
			break;
		if (poll(&p, 1, 0) > 0 && recv(fd, &c, 1, 0) <= 0)
			break;
		usleep(50000);
	}
	return clock_mono_ms() - start_ms;
}

/* Nobody holds a connection by sending a byte now and then; a handler that thinks is not cut. */
static void tricklers_are_cut(void **state)
{
	static const char slow_head[] =
	    "GET / HTTP/1.1\r\nHost: h\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
	struct seen seen = {0};
	struct http_server_config c = {
	    .address = "127.0.0.1", .handler = &collecting, .ctx = &seen, .threads = -1};
	struct http_pace pace = {
	    .head_ms = 500, .window_ms = 400, .window_bytes = 200, .watch_ms = 50};
	struct http_server *s;
	struct error e = {0};
	int fd;

	assert_int_equal(http_server_start_paced(&c, pace, &s, &e), 0);
	fd = dial(http_server_port(s));
	assert_in_range(trickle(fd, slow_head, 3000), 300, 2500);
	close(fd);
	fd = dial(http_server_port(s));
	push_text(fd, "PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n");
	assert_in_range(trickle(fd, slow_head, 3000), 300, 2500);
	wait_for(&seen.aborted, 1);
	close(fd);
	fd = dial(http_server_port(s));
	push_text(fd,
		  "GET /wait HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); /* three seconds */
	{
		struct buf out = BUF_INIT;
		bool closed;

		pull(fd, 6000, &out, &closed);
		assert_true(out.data && str_prefix(out.data, "HTTP/1.1 200"));
		buf_done(&out);
	}
	close(fd);
	http_server_stop(s, 1000);
}

static void *one_wait(void *arg)
{
	return exchange(*(uint16_t *)arg,
			"GET /wait HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", NULL);
}

/* With a thread per connection, a handler that waits holds nobody up: each of the two waits for the
 * other. */
static void waiting_handlers_run_side_by_side(void **state)
{
	struct fixture *f = *state;
	int64_t before = clock_mono_ms();
	pthread_t other;
	void *a, *b;

	assert_int_equal(pthread_create(&other, NULL, one_wait, &f->port), 0);
	a = one_wait(&f->port);
	pthread_join(other, &b);
	wait_for(&f->seen.dones, 2);
	assert_true(clock_mono_ms() - before < 2500);
	free(a);
	free(b);
}

static void *many(void *arg)
{
	uint16_t port = *(uint16_t *)arg;

	for (int i = 0; i < 50; i++)
		expect_reply(
		    port,
		    "POST /m HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
		    "|2|hi");
	return NULL;
}

static void many_clients_at_once(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[8];

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, many, &f->port), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	wait_for(&f->seen.dones, 400);
	assert_int_equal(f->seen.aborted, 0);
}

static void a_taken_port_names_its_holder(void **state)
{
	struct fixture *f = *state;
	struct seen seen = {0};
	struct http_server *s = NULL;
	struct error e = {0};
	struct http_server_config c = {
	    .address = "127.0.0.1", .port = f->port, .handler = &collecting, .ctx = &seen};

	assert_int_equal(http_server_start(&c, &s, &e), -EADDRINUSE);
	assert_null(s);
	assert_has(e.message, "taken");
	error_clear(&e);
	c = (struct http_server_config){
	    .address = "not an address", .handler = &collecting, .ctx = &seen};
	assert_int_equal(http_server_start(&c, &s, &e), -EINVAL);
	error_clear(&e);
	c.address = "192.0.2.77";
	assert_int_equal(http_server_start(&c, &s, &e), -EADDRNOTAVAIL);
	assert_has(e.message, "192.0.2.77");
	c.free_bind = true;
	error_clear(&e);
	assert_int_equal(http_server_start(&c, &s, &e), 0);
	http_server_stop(s, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define SERVED(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define STREAMED(fn) cmocka_unit_test_setup_teardown(fn, setup_streaming, teardown)
	    SERVED(keeps_the_target_as_sent),
	    SERVED(joins_repeated_headers),
	    SERVED(headers_of_replies_are_clean),
	    SERVED(malformed_requests_are_refused),
	    SERVED(huge_headers_are_refused),
	    SERVED(pipelined_requests_are_answered_in_order),
	    SERVED(chunked_bodies_are_joined),
	    SERVED(long_bodies_are_refused),
	    SERVED(replies_without_a_body),
	    SERVED(replies_from_streams_and_files),
	    SERVED(broken_streams_break_the_connection),
	    STREAMED(refusals_reach_clients_that_send_first),
	    STREAMED(expect_continue),
	    STREAMED(a_client_that_leaves_is_told_to_done),
	    cmocka_unit_test_setup_teardown(waiting_handlers_run_side_by_side, setup_threaded,
					    teardown),
	    SERVED(many_clients_at_once),
	    cmocka_unit_test(tricklers_are_cut),
	    SERVED(a_taken_port_names_its_holder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
