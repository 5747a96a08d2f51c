/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/client.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/secret.h"
#include "base/text.h"
#include "cmd/cmd_priv.h"
#include "wire/codec.h"
#include "wire/http_client.h"
#include "wire/rpc.h"
#include "wire/sigv4.h"

#define PEER_COUNT 5

struct client {
	const struct settings *settings;
	struct tls_context *tls;
	struct rpc_client *peers[PEER_COUNT];
	struct http_client *http;
	char *access_key_id;
	struct secret secret_key;
};

static const struct {
	enum tls_role role;
	enum port port;
} peers[PEER_COUNT] = {
    [PEER_CLC] = {TLS_ROLE_CLC, PORT_CLC},
    [PEER_CC] = {TLS_ROLE_CC, PORT_CC},
    [PEER_NC] = {TLS_ROLE_NC, PORT_NC},
    [PEER_WALRUS] = {TLS_ROLE_WALRUS, PORT_WALRUS},
    [PEER_SC] = {TLS_ROLE_SC, PORT_SC},
};

static int check_key(const struct settings *s, struct error *e)
{
	_cleanup_(freep) char *key = settings_path(s, "certs/operator.key");

	if (access(key, R_OK) == 0)
		return 0;
	if (errno == ENOENT)
		return error_set(
		    e, "NotSetUp",
		    "There is no cloud in %s. `mallee up` makes one; MALLEE_STATE names another folder.",
		    settings_get(s, SETTING_STATE));
	error_set(e, "NotOperator", "The operator's key %s is not yours to read. Run this as root.",
		  key);
	return -EACCES;
}

int client_new(const struct settings *s, struct client **ret, struct error *e)
{
	_cleanup_(freep) char *dir = settings_path(s, "certs");
	_cleanup_(client_freep) struct client *c = calloc(1, sizeof(*c));
	int r = check_key(s, e);

	if (!c)
		abort();
	if (r < 0)
		return r;
	c->settings = s;
	r = tls_context_load(dir, TLS_ROLE_OPERATOR, &c->tls, e);
	if (r < 0)
		return r;
	r = http_client_new(NULL, &c->http);
	if (r < 0)
		return error_errno(e, r, "Cannot make an HTTP client");
	*ret = TAKE_PTR(c);
	return 0;
}

void client_free(struct client *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < PEER_COUNT; i++) {
		if (c->peers[i])
			rpc_client_free(c->peers[i]);
	}
	if (c->http)
		http_client_free(c->http);
	if (c->tls)
		tls_context_free(c->tls);
	free(c->access_key_id);
	secret_done(&c->secret_key);
	free(c);
}

int client_rpc(struct client *c, enum client_peer peer, const struct wire_service *service,
	       const char *action, const void *in, struct arena *a, void **ret_out, int timeout_ms,
	       struct error *e)
{
	void *out = NULL;
	char url[64];
	int r;

	if (!c->peers[peer]) {
		snprintf(url, sizeof(url), "https://127.0.0.1:%u",
			 settings_port(c->settings, peers[peer].port));
		r = rpc_client_new(c->tls, peers[peer].role, url, &c->peers[peer]);
		if (r < 0)
			return error_errno(e, r, "Cannot make a client of %s", url);
	}
	r = rpc_call(c->peers[peer], service, action, in, a, &out, timeout_ms ? timeout_ms : 10000,
		     e);
	if (r == 0 && ret_out)
		*ret_out = out;
	return r;
}

int client_use_account(struct client *c, const char *name, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct admin_get_account_request in = {.name = name};
	void *out;
	const struct admin_account *account;
	int r = client_rpc(c, PEER_CLC, &admin_service, "GetAccount", &in, a, &out, 0, e);

	if (r < 0)
		return r;
	account = out;
	if (!account->access_key_id || !account->secret_access_key)
		return error_set(e, "InternalError", "The account %s has no keys", name);
	free(c->access_key_id);
	secret_done(&c->secret_key);
	c->access_key_id = strdup(account->access_key_id);
	c->secret_key = secret_new(account->secret_access_key);
	return 0;
}

/* Signs and sends; the reply's body is in x->reply whatever the status. */
static int send_signed(struct client *c, struct arena *a, const char *service,
		       const char *content_type, struct http_exchange *x, struct error *e)
{
	const char **signed_headers = sigv4_sign(
	    a, c->access_key_id, &c->secret_key, settings_get(c->settings, SETTING_REGION), service,
	    x->method, x->url, x->body, x->body_len, clock_unix_ms());
	const char **headers;
	size_t n = 0;

	while (signed_headers[n])
		n++;
	headers = arena_new_array(a, const char *, n + 2);
	memcpy(headers, signed_headers, n * sizeof(*headers));
	if (content_type)
		headers[n] = arena_printf(a, "Content-Type: %s", content_type);
	x->headers = headers;
	return http_client_do(c->http, x, e);
}

int client_ec2(struct client *c, const char *action, const void *in, struct arena *a,
	       void **ret_out, struct error *e)
{
	const struct wire_action *act = wire_action_find(&ec2_service, action);
	_cleanup_(buf_done) struct buf body = BUF_INIT;
	struct http_exchange x = {.method = "POST"};
	void *out = NULL;
	int r;

	if (!act)
		return error_set(e, "InvalidAction", "%s is not served", action);
	wire_query_encode(&ec2_service, act, in, &body);
	x.url = arena_printf(a, "http://%s:%u/", public_host(c->settings),
			     settings_port(c->settings, PORT_API));
	x.body = body.data;
	x.body_len = body.len;
	r = send_signed(c, a, "ec2", "application/x-www-form-urlencoded; charset=utf-8", &x, e);
	if (r == 0)
		r = wire_query_reply_decode(a, &ec2_service, act, x.reply.data ? x.reply.data : "",
					    x.reply.len, &out, e);
	buf_done(&x.reply);
	if (r == 0 && ret_out)
		*ret_out = out;
	return r;
}

/* The text of an element of a small XML reply, e.g. <Code>. NULL when absent. */
static char *xml_text(struct arena *a, const struct buf *xml, const char *name)
{
	const char *open = arena_printf(a, "<%s>", name), *from, *to;

	from = xml->data ? strstr(xml->data, open) : NULL;
	if (!from)
		return NULL;
	from += strlen(open);
	to = strchr(from, '<');
	return to ? arena_strndup(a, from, (size_t)(to - from)) : NULL;
}

int client_s3(struct client *c, const char *method, const char *path, const void *body,
	      size_t body_len, struct buf *ret_reply, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct http_exchange x = {
	    .method = method, .body = body, .body_len = body_len, .timeout_ms = -1};
	int r;

	x.url = arena_printf(a, "http://%s:%u%s", public_host(c->settings),
			     settings_port(c->settings, PORT_S3), path);
	r = send_signed(c, a, "s3", NULL, &x, e);
	if (r == 0 && x.status / 100 != 2) {
		const char *code = xml_text(a, &x.reply, "Code"),
			   *message = xml_text(a, &x.reply, "Message");

		r = error_set(e, code ? code : "InternalError", "%s %s: %s", method, path,
			      message ? message : "the object store answered without saying why");
	}
	if (r == 0 && ret_reply) {
		*ret_reply = x.reply;
		x.reply = BUF_INIT;
	}
	buf_done(&x.reply);
	return r;
}
