/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who asks is the source address of the connection; what may be answered is that instance's
 * MetadataOptions; what there is, is metadata_tree.c. Errors are answered as short pages in HTML,
 * as Amazon's: clients look at the status alone.
 *
 * A token must not leave the guest, so the reply that carries one travels HttpPutResponseHopLimit
 * hops. The time-to-live belongs to the connection and counts for retransmissions, too: were it set
 * back, the copy that follows a lost reply would travel on. So such a connection keeps it and ends
 * with that reply.
 */
#include "svc/nc/metadata.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "gen/shared.h"
#include "svc/nc/metadata_priv.h"
#include "wire/http_server.h"

#define METADATA_MAGIC 0x6d657461u
#define MAX_BODY_BYTES 1024
#define STOP_GRACE_MS 1000

#define TOKEN_HEADER "X-aws-ec2-metadata-token"
#define TTL_HEADER "X-aws-ec2-metadata-token-ttl-seconds"

struct metadata {
	uint32_t magic;
	struct http_server *server;
	struct metadata_keys keys;
	char *root_device;
	int (*lookup)(void *ctx, uint32_t ipv4_be, struct arena *a,
		      const struct shared_instance_spec **ret);
	void *ctx;
};

/* --- replies --- */

static const struct {
	int status;
	const char *text;
} errors[] = {
    {400, "Bad Request"}, {401, "Unauthorized"},       {403, "Forbidden"},
    {404, "Not Found"},	  {405, "Method Not Allowed"}, {500, "Internal Server Error"},
};

static void refuse(struct http_request *r, int status)
{
	const char *text = "Error";
	char page[256];
	int n;

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		if (errors[i].status == status)
			text = errors[i].text;
	}
	n = snprintf(page, sizeof(page),
		     "<!DOCTYPE html>\n<html lang=\"en\"><head><title>%d - %s</title></head>"
		     "<body><h1>%d - %s</h1></body></html>\n",
		     status, text, status, text);
	http_reply(r, status, "text/html", page, n);
}

static void tell_seconds(struct http_request *r, int64_t seconds)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, seconds);
	http_reply_header(r, TTL_HEADER, text);
}

/* --- tokens --- */

static int hop_limit(const struct shared_instance_spec *s)
{
	const struct shared_metadata_options *o = s->metadata_options;

	if (!o || !o->http_put_response_hop_limit.set)
		return 1;
	return (int)MAX_OF(1, MIN_OF(64, o->http_put_response_hop_limit.value));
}

static void give_token(struct metadata *m, struct http_request *r,
		       const struct shared_instance_spec *s)
{
	const char *ttl_text = http_header(r, TTL_HEADER), *token;
	int hops = hop_limit(s);
	int64_t ttl;

	if (http_header(r, "X-Forwarded-For")) {
		refuse(r, 403); /* through a proxy, whose clients are not the instance */
		return;
	}
	if (!ttl_text || parse_i64(ttl_text, 1, METADATA_TOKEN_MAX_TTL_S, &ttl) < 0) {
		refuse(r, 400);
		return;
	}
	if (setsockopt(http_socket(r), IPPROTO_IP, IP_TTL, &hops, sizeof(hops)) < 0) {
		refuse(r, 500); /* rather no token than one that travels too far */
		return;
	}
	http_reply_header(r, "Connection", "close");
	token = metadata_token_make(&m->keys, s->instance_id, ttl, http_arena(r));
	tell_seconds(r, ttl);
	http_reply(r, 200, "text/plain", token, strlen(token));
}

/* A token is needed when the instance says so; one that is given must be good in any case. */
static bool authorized(struct metadata *m, struct http_request *r,
		       const struct shared_instance_spec *s)
{
	const struct shared_metadata_options *o = s->metadata_options;
	const char *token = http_header(r, TOKEN_HEADER);
	int64_t left;

	if (!token)
		return !o || !str_eq(o->http_tokens, "required");
	if (!metadata_token_check(&m->keys, s->instance_id, token, &left))
		return false;
	tell_seconds(r, left);
	return true;
}

/* --- requests --- */

static void give_page(struct metadata *m, struct http_request *r,
		      const struct shared_instance_spec *s, const char *path)
{
	struct metadata_view v = {s, m->root_device};
	struct metadata_page page;

	if (metadata_tree_get(&v, path, http_arena(r), &page) < 0)
		refuse(r, 404);
	else
		http_reply(r, 200, page.content_type, page.data, page.len);
}

static int find_guest(struct metadata *m, struct http_request *r,
		      const struct shared_instance_spec **ret)
{
	const struct sockaddr *peer = http_peer(r);

	if (!peer || peer->sa_family != AF_INET)
		return -ENOENT;
	return m->lookup(m->ctx, ((const struct sockaddr_in *)peer)->sin_addr.s_addr, http_arena(r),
			 ret);
}

static void serve(struct metadata *m, struct http_request *r)
{
	const struct shared_instance_spec *s;
	const char *raw = http_path(r), *method = http_method(r);
	bool reads = str_eq(method, "GET") || str_eq(method, "HEAD");
	char *path;
	size_t len;

	if (find_guest(m, r, &s) < 0) {
		refuse(r, 404);
		return;
	}
	if (s->metadata_options && str_eq(s->metadata_options->http_endpoint, "disabled")) {
		refuse(r, 403);
		return;
	}
	if (uri_decode(http_arena(r), raw, strlen(raw), false, &path, &len) < 0 ||
	    strlen(path) != len) {
		refuse(r, 400);
		return;
	}
	if (metadata_is_token_path(path) ? !str_eq(method, "PUT") : !reads)
		refuse(r, 405);
	else if (!reads)
		give_token(m, r, s);
	else if (!authorized(m, r, s))
		refuse(r, 401);
	else
		give_page(m, r, s, path);
}

static void on_end(void *ctx, struct http_request *r)
{
	struct metadata *m = ctx;

	assert(m->magic == METADATA_MAGIC);
	serve(m, r);
}

/* --- life --- */

static int start_server(const struct metadata_config *c, struct metadata *m, struct error *e)
{
	static const struct http_handler handler = {.end = on_end};
	const struct http_server_config h = {
	    .address = c->address ? c->address : "127.0.0.1",
	    .free_bind = true,
	    .port = c->port,
	    .threads = 2,
	    .max_body_bytes = MAX_BODY_BYTES,
	    .handler = &handler,
	    .ctx = m,
	};

	return http_server_start(&h, &m->server, e);
}

int metadata_start(const struct metadata_config *c, struct metadata **ret, struct error *e)
{
	struct metadata *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	m->magic = METADATA_MAGIC;
	m->lookup = c->lookup;
	m->ctx = c->ctx;
	m->root_device = strdup(c->root_device ? c->root_device : "/dev/vda");
	err = m->root_device ? metadata_keys_load(c->dir, &m->keys, e) : -ENOMEM;
	if (!err)
		err = start_server(c, m, e);
	if (err < 0) {
		metadata_stop(m);
		return err;
	}
	*ret = m;
	return 0;
}

void metadata_stop(struct metadata *m)
{
	if (!m)
		return;
	assert(m->magic == METADATA_MAGIC);
	if (m->server)
		http_server_stop(m->server, STOP_GRACE_MS);
	explicit_bzero(&m->keys, sizeof(m->keys));
	free(m->root_device);
	m->magic = 0;
	free(m);
}

uint16_t metadata_port(const struct metadata *m)
{
	return http_server_port(m->server);
}
