/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/text.h"
#include "os/file.h"
#include "wire/rpc.h"

/* A service of three actions, as the generator would emit it. */
struct note {
	const char *text;
	struct wire_int number;
};

static const struct wire_shape text_shape = {
    .name = "String", .type = WIRE_STRING, .min = 1, .max = 0};
static const struct wire_shape number_shape = {
    .name = "Integer", .type = WIRE_INT, .min = 0, .max = 1000000};
static const struct wire_member note_members[] = {
    {.name = "Text",
     .in = "Text",
     .out = "Text",
     .shape = &text_shape,
     .offset = offsetof(struct note, text),
     .flags = WIRE_REQUIRED},
    {.name = "Number",
     .in = "Number",
     .out = "Number",
     .shape = &number_shape,
     .offset = offsetof(struct note, number)},
};
static const struct wire_shape note_shape = {.name = "Note",
					     .type = WIRE_STRUCT,
					     .size = sizeof(struct note),
					     .members = note_members,
					     .member_count = 2,
					     .min = 1};
static const struct wire_action note_actions[] = {
    {.name = "Echo",
     .input = &note_shape,
     .output = &note_shape,
     .roles = TLS_ROLE_BIT(TLS_ROLE_CLC)},
    {.name = "Fail", .input = &note_shape, .roles = TLS_ROLE_BIT(TLS_ROLE_CLC)},
    {.name = "Wait",
     .output = &note_shape,
     .roles = TLS_ROLE_BIT(TLS_ROLE_CLC) | TLS_ROLE_BIT(TLS_ROLE_NC)},
};
static const struct wire_error_status note_errors[] = {{"NoteNotFound", 404, ""}};
static const struct wire_service note_service = {.name = "notes",
						 .protocol = WIRE_RPC,
						 .actions = note_actions,
						 .action_count = 3,
						 .errors = note_errors,
						 .error_count = 1};

struct seen {
	_Atomic int calls;
	_Atomic int waiting;
	char peer[128];
};

static int do_echo(void *ctx, struct arena *a, const struct tls_identity *peer, const void *in,
		   void *out, struct error *e)
{
	struct seen *seen = ctx;

	seen->calls++;
	snprintf(seen->peer, sizeof(seen->peer), "%s %s", tls_role_name(peer->role), peer->id);
	*(struct note *)out = *(const struct note *)in;
	return 0;
}

static int do_fail(void *ctx, struct arena *a, const struct tls_identity *peer, const void *in,
		   void *out, struct error *e)
{
	const struct note *note = in;

	if (str_eq(note->text, "silently"))
		return -EIO;
	return error_set(e, "NoteNotFound", "no note \"%s\" here", note->text);
}

static int do_wait(void *ctx, struct arena *a, const struct tls_identity *peer, const void *in,
		   void *out, struct error *e)
{
	struct seen *seen = ctx;

	seen->waiting++;
	for (int i = 0; i < 500 && seen->waiting < 2; i++)
		usleep(10000);
	((struct note *)out)->text = "done";
	return 0;
}

static const struct rpc_handler note_handlers[] = {
    {"Echo", do_echo}, {"Fail", do_fail}, {"Wait", do_wait}};

struct fixture {
	char dir[64], foreign[64], url[64];
	struct tls_context *cc, *clc, *nc, *stranger;
	struct seen seen;
	struct rpc_server *server;
	uint16_t port;
};

static struct tls_context *identity(const char *dir, enum tls_role role, const char *id)
{
	static const char *const names[] = {NULL};
	struct tls_context *t = NULL;
	struct error e = {0};

	if (tls_issue(dir, role, id, names, &e) < 0 || tls_context_load(dir, role, &t, &e) < 0)
		fail_msg("%s", e.message);
	return t;
}

static void start(struct fixture *f)
{
	struct rpc_binding b = {&note_service, note_handlers, &f->seen};
	struct error e = {0};

	if (rpc_server_start(&b, 1, "127.0.0.1", f->port, f->cc, &f->server, &e) < 0)
		fail_msg("%s", e.message);
	f->port = rpc_server_port(f->server);
	snprintf(f->url, sizeof(f->url), "https://127.0.0.1:%u/", f->port);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error e = {0};

	strcpy(f->dir, "/tmp/mallee-rpc-XXXXXX");
	strcpy(f->foreign, "/tmp/mallee-rpc-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_non_null(mkdtemp(f->foreign));
	assert_int_equal(tls_ca_init(f->dir, "one", &e), 0);
	assert_int_equal(tls_ca_init(f->foreign, "one", &e), 0);
	f->cc = identity(f->dir, TLS_ROLE_CC, "cc-1");
	f->clc = identity(f->dir, TLS_ROLE_CLC, "clc-1");
	f->nc = identity(f->dir, TLS_ROLE_NC, "node-1");
	f->stranger = identity(f->foreign, TLS_ROLE_CLC, "clc-1");
	start(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rpc_server_stop(f->server);
	tls_context_free(f->cc);
	tls_context_free(f->clc);
	tls_context_free(f->nc);
	tls_context_free(f->stranger);
	dir_remove(f->dir);
	dir_remove(f->foreign);
	free(f);
	return 0;
}

static struct rpc_client *client(struct fixture *f, const struct tls_context *tls,
				 enum tls_role server_role)
{
	struct rpc_client *c = NULL;

	assert_int_equal(rpc_client_new(tls, server_role, f->url, &c), 0);
	return c;
}

static int echo(struct rpc_client *c, struct error *e)
{
	struct note in = {.text = "grüße \"x\"", .number = WIRE_INT_OF(7)}, *out = NULL;
	struct arena *a = arena_new();
	int r = rpc_call(c, &note_service, "Echo", &in, a, (void **)&out, 10000, e);

	if (r == 0) {
		assert_string_equal(out->text, in.text);
		assert_true(out->number.set);
		assert_int_equal(out->number.value, 7);
	}
	arena_free(a);
	return r;
}

static void expect_code(int r, const struct error *e, const char *code, const char *part)
{
	assert_true(r < 0);
	if (!str_eq(e->code, code) || (part && !strstr(e->message, part)))
		fail_msg("%s: %s", e->code, e->message);
}

static void calls_reach_the_handler(void **state)
{
	struct fixture *f = *state;
	struct rpc_client *c = client(f, f->clc, TLS_ROLE_CC);
	struct error e = {0};

	rpc_client_expect_id(c, "cc-1");
	if (echo(c, &e) < 0 || echo(c, &e) < 0)
		fail_msg("%s: %s", e.code, e.message);
	assert_int_equal(f->seen.calls, 2);
	assert_string_equal(f->seen.peer, "clc clc-1");
	rpc_client_free(c);
}

static void errors_arrive_with_their_code(void **state)
{
	struct fixture *f = *state;
	struct rpc_client *c = client(f, f->clc, TLS_ROLE_CC);
	struct note in = {.text = "lost"};
	struct arena *a = arena_new();
	struct error e = {0};

	expect_code(rpc_call(c, &note_service, "Fail", &in, a, NULL, 10000, &e), &e, "NoteNotFound",
		    "no note \"lost\" here");
	error_clear(&e);
	in.text = "silently";
	expect_code(rpc_call(c, &note_service, "Fail", &in, a, NULL, 10000, &e), &e,
		    "InternalError", "Fail failed");
	arena_free(a);
	rpc_client_free(c);
}

static void other_roles_are_refused(void **state)
{
	struct fixture *f = *state;
	struct rpc_client *c = client(f, f->nc, TLS_ROLE_CC);
	struct error e = {0};

	expect_code(echo(c, &e), &e, "AccessDenied", "the role nc may not call Echo");
	assert_int_equal(f->seen.calls, 0);
	rpc_client_free(c);
}

static void another_cloud_is_refused(void **state)
{
	struct fixture *f = *state;
	struct rpc_client *c = client(f, f->stranger, TLS_ROLE_CC);
	struct error e = {0};

	expect_code(echo(c, &e), &e, "PeerNotTrusted", f->url);
	assert_int_equal(f->seen.calls, 0);
	rpc_client_free(c);
}

/* A client that shows no certificate, or one of another authority, yet accepts ours. */
static void clients_must_show_a_certificate(void **state)
{
	struct fixture *f = *state;
	struct tls_context mixed = *f->clc;
	struct error e = {0};
	struct rpc_client *c;

	mixed.cert_path = f->stranger->cert_path;
	mixed.key_path = f->stranger->key_path;
	c = client(f, &mixed, TLS_ROLE_CC);
	assert_true(echo(c, &e) < 0);
	assert_int_equal(f->seen.calls, 0);
	rpc_client_free(c);
	mixed.cert_path = mixed.key_path = NULL;
	c = client(f, &mixed, TLS_ROLE_CC);
	assert_true(echo(c, &e) < 0);
	assert_int_equal(f->seen.calls, 0);
	rpc_client_free(c);
}

/* Nothing is sent to a server of another role or id, though it is of this cloud. */
static void servers_must_be_the_right_one(void **state)
{
	struct fixture *f = *state;
	struct rpc_client *c = client(f, f->clc, TLS_ROLE_WALRUS);
	struct error e = {0};

	expect_code(echo(c, &e), &e, "PeerNotTrusted", "another role");
	rpc_client_free(c);
	error_clear(&e);
	c = client(f, f->clc, TLS_ROLE_CC);
	rpc_client_expect_id(c, "cc-2");
	expect_code(echo(c, &e), &e, "PeerNotTrusted", "another id");
	rpc_client_free(c);
	assert_int_equal(f->seen.calls, 0);
}

static void post(struct fixture *f, const char *method, const char *path, const char *body,
		 int want_status, const char *want)
{
	struct http_client *c;
	struct error e = {0};
	char url[128];
	struct http_exchange x = {.method = method,
				  .url = url,
				  .body = body,
				  .body_len = strlen(body),
				  .peer_role = TLS_ROLE_CC};

	snprintf(url, sizeof(url), "%s%s", f->url, path);
	assert_int_equal(http_client_new(f->clc, &c), 0);
	if (http_client_do(c, &x, &e) < 0)
		fail_msg("%s: %s", e.code, e.message);
	if (x.status != want_status || !strstr(x.reply.data, want))
		fail_msg("%s %s %s: %d %s", method, path, body, x.status, x.reply.data);
	buf_done(&x.reply);
	http_client_free(c);
}

static void bad_messages_are_refused(void **state)
{
	struct fixture *f = *state;

	post(f, "POST", "notes/Echo", "{\"Text\":\"a\"}", 200, "{\"Text\":\"a\"}");
	post(f, "POST", "notes/Echo", "{\"Text\":\"a\"", 400,
	     "\"Code\":\"SerializationException\"");
	post(f, "POST", "notes/Echo", "[]", 400, "SerializationException");
	post(f, "POST", "notes/Echo", "{\"Text\":1}", 400, "Text");
	post(f, "POST", "notes/Echo", "{}", 400, "Text");
	post(f, "POST", "notes/Echo", "{\"Text\":\"a\",\"Txet\":1}", 400, "Txet");
	post(f, "POST", "notes/Nope", "{}", 404, "InvalidAction");
	post(f, "POST", "other/Echo", "{}", 404, "UnknownService");
	post(f, "POST", "notes", "{}", 404, "UnknownService");
	post(f, "PUT", "notes/Echo", "{}", 405, "MethodNotAllowed");
	assert_int_equal(f->seen.calls, 1);
}

static void unreachable_servers_are_named(void **state)
{
	struct fixture *f = *state;
	struct rpc_client *c = client(f, f->clc, TLS_ROLE_CC);
	struct error e = {0};
	int r;

	assert_int_equal(echo(c, &e), 0);
	rpc_server_stop(f->server);
	f->server = NULL;
	r = echo(c, &e);
	expect_code(r, &e, "ServiceUnavailable", f->url);
	assert_int_equal(r, -ECONNREFUSED);
	error_clear(&e);
	start(f); /* on the same port: the client finds it again by itself */
	assert_int_equal(echo(c, &e), 0);
	rpc_client_free(c);
}

static void *wait_call(void *arg)
{
	struct fixture *f = arg;
	struct rpc_client *c = client(f, f->nc, TLS_ROLE_CC);
	struct arena *a = arena_new();
	struct error e = {0};
	void *out = NULL;
	int64_t before = clock_mono_ms();
	int r = rpc_call(c, &note_service, "Wait", NULL, a, &out, 20000, &e);

	if (r < 0)
		print_error("%s: %s\n", e.code, e.message);
	arena_free(a);
	rpc_client_free(c);
	return r == 0 && clock_mono_ms() - before < 4000 ? arg : NULL;
}

static void waiting_calls_hold_nobody_up(void **state)
{
	struct fixture *f = *state;
	pthread_t other;
	void *ok = NULL;

	assert_int_equal(pthread_create(&other, NULL, wait_call, f), 0);
	assert_non_null(wait_call(f));
	pthread_join(other, &ok);
	assert_non_null(ok);
}

static void *cancel_soon(void *arg)
{
	usleep(200000);
	rpc_client_cancel(arg);
	return NULL;
}

static void calls_can_be_cancelled(void **state)
{
	struct fixture *f = *state;
	struct rpc_client *c = client(f, f->nc, TLS_ROLE_CC);
	struct arena *a = arena_new();
	struct error e = {0};
	int64_t before = clock_mono_ms();
	pthread_t other;
	int r;

	assert_int_equal(pthread_create(&other, NULL, cancel_soon, c), 0);
	r = rpc_call(c, &note_service, "Wait", NULL, a, NULL, 20000, &e);
	assert_int_equal(r, -ECANCELED);
	assert_string_equal(e.code, "Cancelled");
	assert_true(clock_mono_ms() - before < 3500); /* would be five seconds */
	pthread_join(other, NULL);
	f->seen.waiting = 2;
	arena_free(a);
	rpc_client_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	    CASE(calls_reach_the_handler),	   CASE(errors_arrive_with_their_code),
	    CASE(other_roles_are_refused),	   CASE(another_cloud_is_refused),
	    CASE(clients_must_show_a_certificate), CASE(servers_must_be_the_right_one),
	    CASE(bad_messages_are_refused),	   CASE(unreachable_servers_are_named),
	    CASE(waiting_calls_hold_nobody_up),	   CASE(calls_can_be_cancelled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
