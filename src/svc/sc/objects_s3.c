/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bucket in Walrus, by signed S3 requests. An HTTP client belongs to one thread at a time: those that are free wait in a
 * list, from which a call takes one (or makes one) and puts it back; so there are as many as calls were ever under way at once.
 * The list is what `lock` guards; it is not held over an exchange.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "svc/sc/objects_priv.h"
#include "wire/http_client.h"
#include "wire/sigv4.h"

struct client {
	struct http_client *http;
	struct client *next;
	bool busy;
};

struct s3 {
	char *endpoint, *region, *bucket, *key_id;
	struct secret secret;
	int timeout_ms;
	pthread_mutex_t lock;
	struct client *clients;
	bool cancelled;
};

static int take_client(struct s3 *s, struct client **ret, struct error *e)
{
	struct client *c;
	int err = 0;

	pthread_mutex_lock(&s->lock);
	for (c = s->clients; c && c->busy; c = c->next)
		;
	if (s->cancelled) {
		err = -ECANCELED;
		error_set(e, "Cancelled", "stopped");
	} else if (!c) {
		c = calloc(1, sizeof(*c));
		if (!c)
			abort();
		err = http_client_new(NULL, &c->http);
		if (err) {
			free(c);
			error_errno(e, err, "cannot make an HTTP client");
		} else {
			c->next = s->clients;
			s->clients = c;
		}
	}
	if (!err) {
		c->busy = true;
		*ret = c;
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}

static void put_client(struct s3 *s, struct client *c)
{
	pthread_mutex_lock(&s->lock);
	c->busy = false;
	pthread_mutex_unlock(&s->lock);
}

static void s3_cancel(void *ctx)
{
	struct s3 *s = ctx;

	pthread_mutex_lock(&s->lock);
	s->cancelled = true;
	for (struct client *c = s->clients; c; c = c->next)
		http_client_cancel(c->http);
	pthread_mutex_unlock(&s->lock);
}

static void s3_free(void *ctx)
{
	struct s3 *s = ctx;
	struct client *c;

	while ((c = s->clients)) {
		s->clients = c->next;
		http_client_free(c->http);
		free(c);
	}
	pthread_mutex_destroy(&s->lock);
	secret_done(&s->secret);
	free(s->endpoint);
	free(s->region);
	free(s->bucket);
	free(s->key_id);
	free(s);
}

/* ---- one exchange ---- */

struct call {
	const char *method, *key, *query, *extra_header; /* extra: NULL or one more */
	const void *body;
	size_t body_len;
	uint64_t max_reply; /* 0: little is expected */
};

/* What S3's status means to our callers; text is its XML. */
static int status_errno(const struct call *call, int status, const char *text, struct error *e)
{
	char code[64] = "";
	const char *at = text ? strstr(text, "<Code>") : NULL;

	if (at)
		sscanf(at, "<Code>%63[A-Za-z0-9.]", code);
	error_set(e, "Server.InternalError", "%s %s: Walrus answered %d%s%s", call->method, call->key, status, *code ? " " : "",
		  code);
	switch (status) {
	case 404:
		return -ENOENT;
	case 412:
		return -EEXIST;
	case 403:
		/* The account's keys are asked of another daemon, which may be starting: those answers may pass. */
		return str_eq(code, "RequestTimeTooSkewed") ? -EAGAIN : -EACCES;
	case 507:
		return -ENOSPC;
	case 408:
	case 409: /* another conditional PUT of that key is under way */
	case 429:
		return -EAGAIN;
	default:
		return status >= 500 ? -EAGAIN : -EINVAL;
	}
}

/* ret_reply: the caller's, also on failure. */
static int do_call(struct s3 *s, const struct call *call, struct buf *ret_reply, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const char *url = arena_printf(a, "%s/%s%s%s%s%s", s->endpoint, s->bucket, *call->key ? "/" : "", call->key,
				       call->query ? "?" : "", call->query ? call->query : "");
	const char **headers = sigv4_sign(a, s->key_id, &s->secret, s->region, "s3", call->method, url, call->body, call->body_len,
					  clock_unix_ms());
	const char *all[8];
	unsigned count = 0;
	struct client *client;
	int err = take_client(s, &client, e);

	if (err)
		return err;
	while (headers[count]) {
		all[count] = headers[count];
		count++;
	}
	all[count++] = call->extra_header;
	all[count] = NULL;
	struct http_exchange x = { .method = call->method, .url = url, .headers = all, .body = call->body,
				   .body_len = call->body_len, .timeout_ms = s->timeout_ms ? s->timeout_ms : -1,
				   .max_reply_bytes = MAX_OF(call->max_reply, (uint64_t)(1 << 20)) };
	err = http_client_do(client->http, &x, e);
	put_client(s, client);
	*ret_reply = x.reply;
	if (err == -ECANCELED || err == -EINVAL)
		return err;
	if (err)
		return -EAGAIN; /* unreachable, broken, late: also -EACCES, of a firewall, may pass */
	return x.status / 100 == 2 ? x.status : status_errno(call, x.status, x.reply.data, e);
}

static int s3_put(void *ctx, const char *key, const void *data, size_t len, bool only_if_absent, struct error *e)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct call call = { .method = "PUT", .key = key, .body = data, .body_len = len };

	if (only_if_absent)
		call.extra_header = "If-None-Match: *";
	int r = do_call(ctx, &call, &reply, e);
	return r < 0 ? r : 0;
}

static int s3_get(void *ctx, const char *key, uint64_t off, uint64_t len, struct buf *out, struct error *e)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct call call = { .method = "GET", .key = key, .max_reply = len };
	char range[80];

	snprintf(range, sizeof(range), "Range: bytes=%" PRIu64 "-%" PRIu64, off, off + len - 1);
	call.extra_header = range;
	int r = do_call(ctx, &call, &reply, e);
	if (r == -EINVAL && reply.data && strstr(reply.data, "<Code>InvalidRange</Code>")) {
		if (e)
			error_clear(e);
		return 0; /* it ends before off */
	}
	if (r < 0)
		return r;
	if (r != 206 || reply.len > len) {
		error_set(e, "Server.InternalError", "GET %s: Walrus answered %d with %zu bytes to a range of %" PRIu64, key, r,
			  reply.len, len);
		return -EBADMSG;
	}
	buf_append(out, reply.data, reply.len);
	return 0;
}

static int s3_remove(void *ctx, const char *key, struct error *e)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct call call = { .method = "DELETE", .key = key };
	int r = do_call(ctx, &call, &reply, e);

	return r < 0 ? r : 0;
}

/* ---- listing: of ListObjectsV2's XML only what is needed, and our keys need no escapes ---- */

/* The text of the next <name> in [*at, end): its length; -1 when there is none. *at moves behind it. */
static int next_text(const char **at, const char *end, const char *name, const char **ret_text)
{
	char open[32], close[32];
	const char *from, *to;

	snprintf(open, sizeof(open), "<%s>", name);
	snprintf(close, sizeof(close), "</%s>", name);
	from = strstr(*at, open);
	if (!from || from >= end)
		return -1;
	from += strlen(open);
	to = strstr(from, close);
	if (!to || to > end)
		return -1;
	*ret_text = from;
	*at = to + strlen(close);
	return (int)(to - from);
}

static int read_entry(const char *at, const char *end, struct object_entry *out)
{
	const char *text, *from = at;
	char number[24];
	int len = next_text(&from, end, "Key", &text);

	if (len <= 0 || len >= OBJECT_KEY_MAX)
		return -EBADMSG;
	memcpy(out->key, text, (size_t)len);
	out->key[len] = '\0';
	from = at;
	len = next_text(&from, end, "Size", &text);
	if (len <= 0 || len >= (int)sizeof(number))
		return -EBADMSG;
	memcpy(number, text, (size_t)len);
	number[len] = '\0';
	return parse_u64(number, 0, INT64_MAX, &out->size_bytes) ? -EBADMSG : 0;
}

static int s3_list(void *ctx, const char *prefix, const char *after, struct object_entry *out, unsigned max, unsigned *ret_count,
		   struct error *e)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	char query[3 * OBJECT_KEY_MAX + 64], *q = query;
	struct call call = { .method = "GET", .key = "", .query = query, .max_reply = UINT64_C(1024) * max };
	unsigned count = 0;
	int r;

	q += sprintf(q, "list-type=2&max-keys=%u&prefix=", max);
	for (const char *p = prefix; *p; p++)
		q += sprintf(q, *p == '/' ? "%%2F" : "%c", *p);
	q += sprintf(q, "&start-after=");
	for (const char *p = after; *p; p++)
		q += sprintf(q, *p == '/' ? "%%2F" : "%c", *p);
	r = do_call(ctx, &call, &reply, e);
	if (r < 0)
		return r;
	const char *at = reply.data ? reply.data : "", *end = at + reply.len, *text;
	int len;
	while ((len = next_text(&at, end, "Contents", &text)) >= 0) {
		if (count == max || read_entry(text, text + len, &out[count])) {
			error_set(e, "Server.InternalError", "a listing of %s that cannot be read", prefix);
			return -EBADMSG;
		}
		count++;
	}
	*ret_count = count;
	return 0;
}

static const struct objects_ops s3_ops = { .put = s3_put, .get = s3_get, .remove = s3_remove, .list = s3_list,
					   .cancel = s3_cancel, .free = s3_free };

int objects_s3_new(const struct objects_s3_config *c, const struct objects_retry *retry, struct objects **ret, struct error *e)
{
	struct s3 *s = calloc(1, sizeof(*s));

	if (!s || !(s->endpoint = strdup(c->endpoint)) || !(s->region = strdup(c->region)) || !(s->bucket = strdup(c->bucket)) ||
	    !(s->key_id = strdup(c->access_key_id)))
		abort();
	s->secret = secret_new(secret_reveal(&c->secret_key));
	s->timeout_ms = c->timeout_ms;
	pthread_mutex_init(&s->lock, NULL);
	*ret = objects_new(&s3_ops, s, retry);
	return 0;
}

int objects_s3_make_bucket(struct objects *o, struct error *e)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct call call = { .method = "PUT", .key = "" };
	int r = do_call(objects_ctx(o, &s3_ops), &call, &reply, e);

	if (r < 0 && reply.data && strstr(reply.data, "<Code>BucketAlreadyOwnedByYou</Code>")) {
		if (e)
			error_clear(e);
		return 0;
	}
	return r < 0 ? r : 0;
}
