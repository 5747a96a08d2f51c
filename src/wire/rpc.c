/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/rpc.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/text.h"
#include "wire/codec.h"

/*
 * One thread per connection (rpc.h). Who may call is checked when the headers are there, before the
 * body is read; what a peer sends is decoded strictly, what a service answers leniently, so that a
 * newer service can talk to an older caller.
 */
#define RPC_MAX_BYTES                                                                              \
	(UINT64_C(64) << 20) /* a full table of 10,000 specifications with user data */

struct rpc_error {
	const char *code, *message;
};

static const struct wire_shape string_shape = {
    .name = "String", .type = WIRE_STRING, .min = 1, .max = 0};
static const struct wire_member error_members[] = {
    {.name = "Code",
     .in = "Code",
     .out = "Code",
     .shape = &string_shape,
     .offset = offsetof(struct rpc_error, code),
     .flags = WIRE_REQUIRED},
    {.name = "Message",
     .in = "Message",
     .out = "Message",
     .shape = &string_shape,
     .offset = offsetof(struct rpc_error, message)},
};
static const struct wire_shape error_shape = {
    .name = "Error",
    .type = WIRE_STRUCT,
    .size = sizeof(struct rpc_error),
    .members = error_members,
    .member_count = ARRAY_SIZE(error_members),
    .min = 1,
};

/* --- server --- */

struct rpc_server {
	struct http_server *http;
	struct rpc_binding *bindings;
	size_t count;
};

/* What begin found out for end. */
struct call {
	const struct rpc_binding *binding;
	const struct wire_action *action;
	const struct rpc_handler *handler;
};

static void reply_error(struct http_request *r, int status, const struct error *e)
{
	struct rpc_error out = {.code = e->code, .message = e->message};
	struct buf b = BUF_INIT;

	wire_json_encode(&error_shape, &out, &b);
	http_reply(r, status, "application/json", b.data, b.len);
	buf_done(&b);
}

static const struct rpc_binding *find_binding(const struct rpc_server *s, const char *name,
					      size_t len)
{
	for (size_t i = 0; i < s->count; i++) {
		const char *have = s->bindings[i].service->name;

		if (strlen(have) == len && memcmp(have, name, len) == 0)
			return &s->bindings[i];
	}
	return NULL;
}

/* Path "/service/Action" into *ret; 0, or the status of the refusal. */
static int route(const struct rpc_server *s, struct http_request *r, struct call *ret,
		 struct error *e)
{
	const char *path = http_path(r), *slash = path[0] ? strchr(path + 1, '/') : NULL;
	const struct tls_identity *peer = http_peer_identity(r);

	if (!str_eq(http_method(r), "POST")) {
		error_set(e, "MethodNotAllowed", "messages are sent with POST");
		return 405;
	}
	ret->binding = slash ? find_binding(s, path + 1, (size_t)(slash - path - 1)) : NULL;
	if (!ret->binding) {
		error_set(e, "UnknownService", "no such service here: %.200s", path);
		return 404;
	}
	ret->action = wire_action_find(ret->binding->service, slash + 1);
	if (!ret->action) {
		error_set(e, "InvalidAction", "the service %s has no action %.200s",
			  ret->binding->service->name, slash + 1);
		return 404;
	}
	ret->handler = &ret->binding->handlers[ret->action - ret->binding->service->actions];
	if (!peer || !(ret->action->roles & TLS_ROLE_BIT(peer->role))) {
		error_set(e, "AccessDenied", "the role %s may not call %s of %s",
			  peer ? tls_role_name(peer->role) : "none", ret->action->name,
			  ret->binding->service->name);
		return 403;
	}
	return 0;
}

static void on_begin(void *ctx, struct http_request *r)
{
	struct call *call = arena_new_struct(http_arena(r), struct call);
	struct error e = {0};
	int status = route(ctx, r, call, &e);

	if (status)
		reply_error(r, status, &e);
	http_set_data(r, call);
}

static int run_call(struct http_request *r, const struct call *call, void **ret_out,
		    struct error *e)
{
	const struct wire_action *act = call->action;
	struct arena *a = http_arena(r);
	void *in = NULL;
	size_t len;
	const char *body = http_body(r, &len);
	int res;

	if (act->input) {
		res = len ? wire_json_decode(a, act->input, body, len, true, &in, e)
			  : wire_json_decode(a, act->input, "{}", 2, true, &in, e);
		if (res < 0)
			return res;
	}
	*ret_out = act->output ? arena_alloc(a, act->output->size) : NULL;
	res = call->handler->fn(call->binding->ctx, a, http_peer_identity(r), in, *ret_out, e);
	if (res < 0 && !error_is_set(e))
		error_errno(e, res, "%s failed", act->name);
	return res;
}

static void on_end(void *ctx, struct http_request *r)
{
	const struct call *call = http_data(r);
	struct error e = {0};
	struct buf b = BUF_INIT;
	void *out = NULL;

	if (run_call(r, call, &out, &e) < 0) {
		reply_error(r, wire_error_http_status(call->binding->service, e.code), &e);
		return;
	}
	if (out)
		wire_json_encode(call->action->output, out, &b);
	else
		buf_puts(&b, "{}");
	http_reply(r, 200, "application/json", b.data, b.len);
	buf_done(&b);
}

static const struct http_handler rpc_http_handler = {.begin = on_begin, .end = on_end};

static void server_free(struct rpc_server *s)
{
	free(s->bindings);
	free(s);
}

int rpc_server_start(const struct rpc_binding *bindings, size_t count, const char *address,
		     uint16_t port, const struct tls_context *tls, struct rpc_server **ret,
		     struct error *e)
{
	struct rpc_server *s = calloc(1, sizeof(*s));
	struct http_server_config c = {
	    .address = address,
	    .port = port,
	    .threads = -1,
	    .tls = tls,
	    .max_body_bytes = RPC_MAX_BYTES,
	    .handler = &rpc_http_handler,
	    .ctx = s,
	};
	int r;

	if (!s || !(s->bindings = calloc(count, sizeof(*bindings))))
		abort();
	assert(tls);
	memcpy(s->bindings, bindings, count * sizeof(*bindings));
	s->count = count;
	for (size_t i = 0; i < count; i++) {
		for (size_t k = 0; k < bindings[i].service->action_count; k++)
			assert(str_eq(bindings[i].handlers[k].action,
				      bindings[i].service->actions[k].name));
	}
	r = http_server_start(&c, &s->http, e);
	if (r < 0) {
		server_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void rpc_server_stop(struct rpc_server *s)
{
	if (!s)
		return;
	http_server_stop(s->http, 5000);
	server_free(s);
}

uint16_t rpc_server_port(const struct rpc_server *s)
{
	return http_server_port(s->http);
}

/* --- client --- */

struct rpc_client {
	struct http_client *http;
	enum tls_role peer_role;
	char *base_url, *peer_id;
};

int rpc_client_new(const struct tls_context *tls, enum tls_role peer_role, const char *base_url,
		   struct rpc_client **ret)
{
	struct rpc_client *c = calloc(1, sizeof(*c));
	int r;

	if (!c || !(c->base_url = strdup(base_url)))
		abort();
	while (str_suffix(c->base_url, "/"))
		c->base_url[strlen(c->base_url) - 1] = '\0';
	c->peer_role = peer_role;
	r = http_client_new(tls, &c->http);
	if (r < 0) {
		rpc_client_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void rpc_client_free(struct rpc_client *c)
{
	if (!c)
		return;
	http_client_free(c->http);
	free(c->base_url);
	free(c->peer_id);
	free(c);
}

void rpc_client_expect_id(struct rpc_client *c, const char *peer_id)
{
	free(c->peer_id);
	c->peer_id = strdup(peer_id);
	if (!c->peer_id)
		abort();
}

void rpc_client_cancel(struct rpc_client *c)
{
	http_client_cancel(c->http);
}

/* An error that the peer answered, in its own words. */
static int take_error(struct arena *a, const char *url, const struct http_exchange *x,
		      struct error *e)
{
	struct rpc_error *err = NULL;

	if (x->reply.len && wire_json_decode(a, &error_shape, x->reply.data, x->reply.len, false,
					     (void **)&err, NULL) >= 0)
		return error_set(e, err->code, "%s", err->message ? err->message : "");
	if (x->status == 403)
		return error_set(e, "AccessDenied", "%s does not take our certificate", url);
	return error_set(e, "InternalError", "%s answered with HTTP status %d", url, x->status);
}

int rpc_call(struct rpc_client *c, const struct wire_service *s, const char *action, const void *in,
	     struct arena *a, void **ret_out, int timeout_ms, struct error *e)
{
	static const char *const headers[] = {"Content-Type: application/json", NULL};
	const struct wire_action *act = wire_action_find(s, action);
	struct buf body = BUF_INIT;
	struct http_exchange x = {.method = "POST",
				  .headers = headers,
				  .peer_role = c->peer_role,
				  .peer_id = c->peer_id,
				  .timeout_ms = timeout_ms};
	int r;

	assert(act && act->name);
	if (act->input && in)
		wire_json_encode(act->input, in, &body);
	else
		buf_puts(&body, "{}");
	x.url = arena_printf(a, "%s/%s/%s", c->base_url, s->name, action);
	x.body = body.data;
	x.body_len = body.len;
	r = http_client_do(c->http, &x, e);
	buf_done(&body);
	if (r < 0)
		return r;
	if (x.status != 200) {
		r = take_error(a, x.url, &x, e);
	} else if (act->output) {
		void *out = NULL;

		r = wire_json_decode(a, act->output, x.reply.data ? x.reply.data : "", x.reply.len,
				     false, &out, e);
		if (r >= 0 && ret_out)
			*ret_out = out;
	}
	buf_done(&x.reply);
	return r < 0 ? r : 0;
}
