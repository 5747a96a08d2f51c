/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "gen/identity_rpc.h"
#include "os/file.h"
#include "svc/walrus/identity_priv.h"

/* A cloud controller that knows the key AKIAKNOWN. */
struct fixture {
	char dir[64];
	struct tls_context *clc, *walrus;
	struct rpc_server *server;
	char url[64];
	struct identity *id;
	struct arena *a;
	atomic_int calls;
	int64_t valid_ms;
};

int identity_get_service_key(void *ctx, struct arena *a, const struct tls_identity *peer,
			     struct identity_get_service_key_response *out, struct error *e)
{
	return error_set(e, "AccessDenied", "Walrus has no account of its own");
}

int identity_get_signing_key(void *ctx, struct arena *a, const struct tls_identity *peer,
			     const struct identity_get_signing_key_request *in,
			     struct identity_get_signing_key_response *out, struct error *e)
{
	struct fixture *f = ctx;
	unsigned char *key = arena_alloc(a, SIGV4_KEY_LEN);

	atomic_fetch_add(&f->calls, 1);
	if (!str_eq(in->access_key_id, "AKIAKNOWN"))
		return error_set(e, "InvalidAccessKeyId", "no such key");
	memset(key, 7, SIGV4_KEY_LEN);
	out->account_id = "123456789012";
	out->account_name = "default";
	out->canonical_id = arena_printf(a, "%064d", 1);
	out->arn = "arn:aws:iam::123456789012:root";
	out->signing_key = (struct wire_blob){key, SIGV4_KEY_LEN};
	out->valid_until = WIRE_TIME_OF(clock_unix_ms() + f->valid_ms);
	return 0;
}

static void start_server(struct fixture *f)
{
	const struct rpc_binding b = {&identity_service, identity_rpc_handlers, f};
	struct error e = {0};

	if (rpc_server_start(&b, 1, "127.0.0.1", 0, f->clc, &f->server, &e) < 0)
		fail_msg("%s", e.message);
}

static int up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error e = {0};

	strcpy(f->dir, "/tmp/mallee-identity-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	if (tls_ca_init(f->dir, "test", &e) < 0 ||
	    tls_issue(f->dir, TLS_ROLE_CLC, "clc", NULL, &e) < 0 ||
	    tls_issue(f->dir, TLS_ROLE_WALRUS, "w", NULL, &e) < 0 ||
	    tls_context_load(f->dir, TLS_ROLE_CLC, &f->clc, &e) < 0 ||
	    tls_context_load(f->dir, TLS_ROLE_WALRUS, &f->walrus, &e) < 0)
		fail_msg("%s", e.message);
	f->a = arena_new();
	f->valid_ms = 60000;
	start_server(f);
	snprintf(f->url, sizeof(f->url), "https://127.0.0.1:%u", rpc_server_port(f->server));
	f->id = identity_new(f->walrus, f->url);
	*state = f;
	return 0;
}

static int down(void **state)
{
	struct fixture *f = *state;

	identity_free(f->id);
	if (f->server)
		rpc_server_stop(f->server);
	tls_context_free(f->clc);
	tls_context_free(f->walrus);
	arena_free(f->a);
	dir_remove(f->dir);
	free(f);
	return 0;
}

/* The error's code, or "" . */
static const char *get(struct fixture *f, const char *key, const char *date)
{
	const struct sigv4_auth auth = {
	    .access_key_id = key, .date = date, .region = "us-east-1", .service = "s3"};
	struct error *e = arena_alloc(f->a, sizeof(*e));
	struct caller c = {0};

	if (identity_get(f->id, f->a, &auth, &c, e) >= 0) {
		assert_string_equal(c.account_id, "123456789012");
		assert_string_equal(c.account_name, "default");
		assert_int_equal(strlen(c.canonical_id), 64);
		assert_int_equal(c.signing_key[SIGV4_KEY_LEN - 1], 7);
	}
	return e->code;
}

static void test_cached(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 3; i++)
		assert_string_equal(get(f, "AKIAKNOWN", "20261122"), "");
	assert_int_equal(f->calls, 1);
	assert_string_equal(get(f, "AKIAKNOWN", "20261123"), ""); /* another key, by the day */
	assert_int_equal(f->calls, 2);
	for (int i = 0; i < 3; i++)
		assert_string_equal(get(f, "AKIAWRONG", "20261122"), "InvalidAccessKeyId");
	assert_int_equal(f->calls, 3);
}

static void test_asked_again(void **state)
{
	struct fixture *f = *state;

	f->valid_ms = -1;
	for (int i = 0; i < 3; i++)
		assert_string_equal(get(f, "AKIAKNOWN", "20261122"), "");
	assert_int_equal(f->calls, 3);
}

static void test_controller_down(void **state)
{
	struct fixture *f = *state;

	f->valid_ms = -1;
	assert_string_equal(get(f, "AKIAKNOWN", "20261122"), "");
	rpc_server_stop(f->server);
	f->server = NULL;
	assert_string_equal(get(f, "AKIAKNOWN", "20261122"),
			    ""); /* stale is better than an outage */
	assert_string_equal(get(f, "AKIAKNOWN", "20261123"), "ServiceUnavailable");
	assert_string_equal(get(f, "AKIAKNOWN", "20261122"), "");
}

static void test_too_stale(void **state)
{
	struct fixture *f = *state;

	f->valid_ms = -IDENTITY_STALE_MS - 1;
	assert_string_equal(get(f, "AKIAKNOWN", "20261122"), "");
	rpc_server_stop(f->server);
	f->server = NULL;
	assert_string_equal(get(f, "AKIAKNOWN", "20261122"), "ServiceUnavailable");
}

static void test_bounded(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 2 * IDENTITY_CACHE_MAX; i++)
		assert_string_equal(get(f, arena_printf(f->a, "AKIA%d", i), "20261122"),
				    "InvalidAccessKeyId");
	assert_int_equal(f->calls, 2 * IDENTITY_CACHE_MAX);
	assert_string_equal(get(f, "AKIAKNOWN", "20261122"), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_cached, up, down),
	    cmocka_unit_test_setup_teardown(test_asked_again, up, down),
	    cmocka_unit_test_setup_teardown(test_controller_down, up, down),
	    cmocka_unit_test_setup_teardown(test_too_stale, up, down),
	    cmocka_unit_test_setup_teardown(test_bounded, up, down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
