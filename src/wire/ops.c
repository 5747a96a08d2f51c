/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/ops.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

static void reply_health(const struct ops_config *c, struct http_request *r)
{
	struct error e = {0};
	const char *text = "ok\n";
	int status = 200;

	if (c->health && c->health(c->ctx, &e) < 0) {
		status = 503;
		text = arena_printf(http_arena(r), "%s\n", e.message[0] ? e.message : "not well");
	}
	http_reply(r, status, "text/plain; charset=utf-8", text, strlen(text));
}

static void reply_metrics(const struct ops_config *c, struct http_request *r)
{
	struct buf b = BUF_INIT;

	if (c->metrics)
		c->metrics(c->ctx, &b);
	http_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", b.data, b.len);
	buf_done(&b);
}

static void on_end(void *ctx, struct http_request *r)
{
	const char *path = http_path(r);
	bool health = str_eq(path, "/healthz"), metrics = str_eq(path, "/metrics");

	if (!health && !metrics) {
		http_reply(r, 404, "text/plain", "/healthz and /metrics are here\n", 31);
	} else if (!str_eq(http_method(r), "GET") && !str_eq(http_method(r), "HEAD")) {
		http_reply_header(r, "Allow", "GET, HEAD");
		http_reply(r, 405, "text/plain", "GET or HEAD\n", 12);
	} else if (health) {
		reply_health(ctx, r);
	} else {
		reply_metrics(ctx, r);
	}
}

static const struct http_handler ops_http_handler = {.end = on_end};

int ops_server_start(const struct ops_config *c, struct http_server **ret, struct error *e)
{
	struct ops_config *own = malloc(sizeof(*own));
	struct http_server_config server = {
	    .address = "127.0.0.1",
	    .port = c->port,
	    .threads = 1,
	    .max_body_bytes = 4096,
	    .handler = &ops_http_handler,
	    .ctx = own,
	    .free_ctx = free,
	};
	int r;

	if (!own)
		abort();
	*own = *c;
	r = http_server_start(&server, ret, e);
	if (r < 0)
		free(own);
	return r;
}
