/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "wire/http_client.h"
#include "wire/http_server.h"
#include "wire/ops.h"

/* The client against our own server, in plain HTTP; TLS is in rpc_test.c. */

static void on_end(void *ctx, struct http_request *r)
{
	size_t len;
	const char *body = http_body(r, &len), *path = http_path(r),
		   *type = http_header(r, "Content-Type");
	char *text;

	if (str_eq(path, "/missing"))
		return http_reply(r, 404, "text/plain", "not here", 8);
	if (str_eq(path, "/moved")) {
		http_reply_header(r, "Location", "/plain");
		return http_reply(r, 302, NULL, NULL, 0);
	}
	if (str_eq(path, "/big")) {
		char *zeros = arena_alloc(http_arena(r), 1000000);

		return http_reply(r, 200, "text/plain", zeros, 1000000);
	}
	if (str_eq(path, "/slow"))
		usleep(1500000);
	text = arena_printf(
	    http_arena(r), "%s|%s|%s|%s|%zu|%s", http_method(r), http_target(r), type ? type : "-",
	    http_header(r, "X-Test") ? http_header(r, "X-Test") : "-", len, len < 100 ? body : "…");
	http_reply(r, 200, "text/plain", text, strlen(text));
}

struct fixture {
	struct http_server *server;
	struct http_client *client;
	char base[64];
};

static int setup(void **state)
{
	static const struct http_handler handler = {.end = on_end};
	struct http_server_config c = {
	    .address = "127.0.0.1", .handler = &handler, .max_body_bytes = 4 << 20};
	struct fixture *f = calloc(1, sizeof(*f));
	struct error e = {0};

	assert_int_equal(http_server_start(&c, &f->server, &e), 0);
	assert_int_equal(http_client_new(NULL, &f->client), 0);
	snprintf(f->base, sizeof(f->base), "http://127.0.0.1:%u", http_server_port(f->server));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	http_client_free(f->client);
	http_server_stop(f->server, 100);
	free(f);
	return 0;
}

/* One exchange; the reply's text, the caller's to free, or NULL with *e set. */
static char *ask(struct fixture *f, struct http_exchange *x, const char *path, struct error *e)
{
	char url[256];
	char *text;
	int r;

	snprintf(url, sizeof(url), "%s%s", f->base, path);
	x->url = url;
	r = http_client_do(f->client, x, e);
	x->url = NULL;
	if (r < 0)
		return NULL;
	text = x->reply.data ? buf_steal(&x->reply) : strdup("");
	buf_done(&x->reply);
	return text;
}

static void expect(struct fixture *f, struct http_exchange *x, const char *path, int status,
		   const char *want)
{
	struct error e = {0};
	char *got = ask(f, x, path, &e);

	if (!got)
		fail_msg("%s: %s", e.code, e.message);
	assert_string_equal(got, want);
	assert_int_equal(x->status, status);
	free(got);
}

static void methods_and_bodies(void **state)
{
	static const char *const headers[] = {"X-Test: yes", "Content-Type: text/x", NULL};
	struct fixture *f = *state;
	struct http_exchange x = {.method = "GET"};

	expect(f, &x, "/a%20b/../c?q=%2F", 200, "GET|/a%20b/../c?q=%2F|-|-|0|");
	x = (struct http_exchange){.method = "POST", .body = "hello", .body_len = 5};
	expect(f, &x, "/p", 200, "POST|/p|-|-|5|hello");
	x = (struct http_exchange){.method = "POST"};
	expect(f, &x, "/p", 200, "POST|/p|-|-|0|");
	x = (struct http_exchange){
	    .method = "PUT", .body = "hello", .body_len = 5, .headers = headers};
	expect(f, &x, "/p", 200, "PUT|/p|text/x|yes|5|hello");
	x = (struct http_exchange){.method = "DELETE"};
	expect(f, &x, "/d", 200, "DELETE|/d|-|-|0|");
	x = (struct http_exchange){.method = "HEAD"};
	expect(f, &x, "/h", 200, "");
	x = (struct http_exchange){.method = "GET"};
	expect(f, &x, "/missing", 404, "not here");
	expect(f, &x, "/moved", 302, "");
}

static void bodies_from_files(void **state)
{
	struct fixture *f = *state;
	char path[] = "/tmp/mallee-client-XXXXXX";
	int fd = mkstemp(path);
	struct http_exchange x = {.method = "PUT", .body_fd = fd, .body_len = 2 << 20};
	struct error e = {0};

	unlink(path);
	assert_int_equal(ftruncate(fd, 3 << 20), 0);
	expect(f, &x, "/f", 200, "PUT|/f|-|-|2097152|…");
	x.body_len = 4 << 20; /* more than the file has: the exchange breaks, nothing is made up */
	assert_null(ask(f, &x, "/f", &e));
	assert_true(error_is_set(&e));
	close(fd);
}

static int count_data(void *ctx, const void *data, size_t len)
{
	*(size_t *)ctx += len;
	return *(size_t *)ctx > 500000;
}

static int count_all(void *ctx, const void *data, size_t len)
{
	*(size_t *)ctx += len;
	return 0;
}

static void replies_have_limits(void **state)
{
	struct fixture *f = *state;
	struct http_exchange x = {.method = "GET", .max_reply_bytes = 999999};
	struct error e = {0};
	size_t seen = 0;

	assert_null(ask(f, &x, "/big", &e));
	assert_string_equal(e.code, "ReplyTooLarge");
	error_clear(&e);
	x = (struct http_exchange){.method = "GET", .on_data = count_all, .on_data_ctx = &seen};
	free(ask(f, &x, "/big", &e));
	assert_int_equal(seen, 1000000);
	seen = 0;
	x.on_data = count_data;
	assert_null(ask(f, &x, "/big", &e));
	assert_string_equal(e.code, "Cancelled");
	assert_true(seen > 500000 && seen < 1000000);
}

static void failures_name_the_url_without_its_secrets(void **state)
{
	struct fixture *f = *state;
	struct http_exchange x = {.method = "GET",
				  .url = "http://user:word@127.0.0.1:1/b/k?X-Amz-Signature=secret"};
	struct error e = {0};

	assert_int_equal(http_client_do(f->client, &x, &e), -ECONNREFUSED);
	assert_string_equal(e.code, "ServiceUnavailable");
	assert_non_null(strstr(e.message, "http://127.0.0.1:1/b/k:"));
	assert_null(strstr(e.message, "secret"));
	assert_null(strstr(e.message, "word"));
	error_clear(&e);
	x.url = "ftp://h/";
	assert_int_equal(http_client_do(f->client, &x, &e), -EINVAL);
	error_clear(&e);
	x.timeout_ms = 300;
	assert_null(ask(f, &x, "/slow", &e));
	assert_string_equal(e.code, "ServiceUnavailable");
	assert_non_null(strstr(e.message, "in time"));
	error_clear(&e);
	http_client_cancel(f->client);
	x.timeout_ms = 0;
	assert_null(ask(f, &x, "/slow", &e));
	assert_string_equal(e.code, "Cancelled");
}

static int health(void *ctx, struct error *e)
{
	return *(bool *)ctx ? 0 : error_set(e, "NotReady", "the disk is on fire");
}

static void metrics(void *ctx, struct buf *out)
{
	buf_puts(out, "mallee_test 1\n");
}

static void operators_listener(void **state)
{
	struct fixture *f = *state;
	bool well = true;
	struct ops_config c = {.health = health, .metrics = metrics, .ctx = &well};
	struct http_exchange x = {.method = "GET"};
	struct http_server *ops;
	struct error e = {0};

	assert_int_equal(ops_server_start(&c, &ops, &e), 0);
	snprintf(f->base, sizeof(f->base), "http://127.0.0.1:%u", http_server_port(ops));
	expect(f, &x, "/healthz", 200, "ok\n");
	well = false;
	expect(f, &x, "/healthz", 503, "the disk is on fire\n");
	expect(f, &x, "/metrics", 200, "mallee_test 1\n");
	expect(f, &x, "/", 404, "/healthz and /metrics are here\n");
	x.method = "POST";
	expect(f, &x, "/healthz", 405, "GET or HEAD\n");
	http_server_stop(ops, 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	    CASE(methods_and_bodies),  CASE(bodies_from_files),
	    CASE(replies_have_limits), CASE(failures_name_the_url_without_its_secrets),
	    CASE(operators_listener),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
