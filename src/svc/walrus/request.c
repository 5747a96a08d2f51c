/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "gen/s3_dispatch.h"
#include "svc/walrus/guard_priv.h"
#include "svc/walrus/payload_priv.h"
#include "svc/walrus/target_priv.h"
#include "svc/walrus/walrus_priv.h"

/*
 * One request, from headers to reply:
 *
 *   begin   bucket and key out of the target; who signed; which action. A streamed upload's
 * parameters are decoded and checked here, so that what cannot succeed is refused before its data
 * is sent, and a writer is opened. body    through the payload's framing into the writer, or into a
 * buffer of bounded size. end     the body's digests are checked against all that the client said
 * of them; the other actions are decoded; the handler runs; its struct becomes the reply. done
 * whatever was not committed is undone.
 *
 * The first error of a request is its reply. An error found in the middle of a body ends the
 * reading at once.
 */
struct request {
	struct s3_call call;
	struct error error;
	struct target target;
	struct wire_params query;
	const struct wire_action *action;
	int (*handler)(void *call, const void *in, void *out);
	void *in;
	struct payload *payload;
	struct guard guard;
	struct buf body; /* of actions that are not streamed */
	uint64_t received;
};

static bool is_streamed(const struct request *q)
{
	return q->action && (q->action->flags & WIRE_ACTION_STREAM_IN);
}

/* --- replies --- */

static void add_header(void *ctx, const char *name, const char *value)
{
	http_reply_header(ctx, name, value);
}

/* What the request is about, decoded; the raw path as long as that cannot be told. */
static const char *resource(const struct request *q)
{
	const struct target *t = &q->target;

	if (!t->bucket)
		return http_path(q->call.http);
	return arena_printf(q->call.a, "/%s%s%s", t->bucket, t->key ? "/" : "",
			    t->key ? t->key : "");
}

static void reply_error(struct request *q)
{
	struct http_request *r = q->call.http;
	int status = wire_error_http_status(&s3_service, q->error.code);
	struct buf out = BUF_INIT;

	metrics_add(q->call.w->metrics, status >= 500 ? METRIC_ERRORS_SERVER : METRIC_ERRORS_CLIENT,
		    1);
	if (status >= 500)
		log_warn("request failed", "id=%s method=%s code=%s why=%s", http_request_id(r),
			 http_method(r), q->error.code, log_quote(q->error.message));
	http_reply_header(r, "x-amz-request-id", http_request_id(r));
	if (status == 503)
		http_reply_header(r, "Retry-After", "1");
	if (!str_eq(http_method(r), "HEAD") && status != 304)
		wire_rest_error(&s3_service, &q->error, resource(q), http_request_id(r), &out);
	http_reply(r, status, "application/xml", out.data, out.len);
	buf_done(&out);
}

static ssize_t read_body(void *ctx, uint64_t off, void *buf, size_t max)
{
	struct s3_body *b = ctx;

	if (!b->reader || off >= b->len)
		return 0;
	return store_reader_read(b->reader, b->off + off, buf,
				 (size_t)MIN_OF((uint64_t)max, b->len - off));
}

static void free_body(void *ctx)
{
	struct s3_body *b = ctx;

	store_reader_free(b->reader);
	free(b);
}

/* Hands the object's bytes to the server in the cheapest form that they have: a file, memory, or
 * read piece by piece. */
static void reply_object(struct request *q, int status)
{
	struct s3_body *b = &q->call.body;
	struct http_request *r = q->call.http;
	const char *memory = b->reader ? store_reader_memory(b->reader) : NULL;
	uint64_t file_off;
	int fd;

	metrics_add(q->call.w->metrics, METRIC_BYTES_OUT, b->reader ? (int64_t)b->len : 0);
	if (b->reader && store_reader_file(b->reader, b->off, b->len, &fd, &file_off)) {
		http_reply_fd(r, status, b->content_type, fd, file_off, b->len);
	} else if (memory) {
		http_reply(r, status, b->content_type, memory + b->off, (size_t)b->len);
	} else {
		struct s3_body *copy = malloc(sizeof(*copy));

		if (!copy)
			abort();
		*copy = *b;
		b->reader = NULL; /* goes with the copy */
		http_reply_stream(r, status, copy->content_type, copy->len, read_body, free_body,
				  copy);
	}
}

static void reply(struct request *q, const void *out_struct)
{
	struct http_request *r = q->call.http;
	struct buf out = BUF_INIT;
	int status = 200;

	wire_rest_reply(&s3_service, q->action, out_struct, &status, add_header, r, &out);
	if (q->call.status)
		status = q->call.status;
	http_reply_header(r, "x-amz-request-id", http_request_id(r));
	if (q->call.body.set)
		reply_object(q, status);
	else
		http_reply(r, status, out.len ? "application/xml" : NULL, out.data, out.len);
	buf_done(&out);
}

/* --- begin --- */

static const char *request_header(void *ctx, const char *name)
{
	return http_header(ctx, name);
}

static void request_each_header(void *ctx,
				void (*fn)(void *fn_ctx, const char *name, const char *value),
				void *fn_ctx)
{
	http_each_header(ctx, fn, fn_ctx);
}

static struct wire_rest_request rest_request(struct request *q)
{
	return (struct wire_rest_request){
	    .method = http_method(q->call.http),
	    .bucket = q->target.bucket,
	    .key = q->target.key,
	    .query = &q->query,
	    .header = request_header,
	    .each_header = request_each_header,
	    .header_ctx = q->call.http,
	};
}

static int authenticate(struct request *q)
{
	struct s3_call *c = &q->call;
	struct sigv4_auth auth;
	int r = sigv4_parse(c->a, c->http, true, clock_unix_ms(), &auth, c->e);

	if (r >= 0 && !str_eq(auth.service, "s3"))
		r = error_set(c->e, "AuthorizationHeaderMalformed",
			      "The request is signed for the service %.30s; expecting s3.",
			      auth.service);
	if (r >= 0 && auth.session_token)
		r = error_set(c->e, "InvalidToken",
			      "The security token is not one that this cloud gave.");
	if (r >= 0)
		r = identity_get(c->w->identity, c->a, &auth, &c->caller, c->e);
	if (r >= 0)
		r = sigv4_verify(c->a, c->http, &auth, c->caller.signing_key, auth.payload_hash,
				 c->e);
	if (r >= 0)
		r = payload_new(c->a, &auth, c->caller.signing_key, &q->payload, c->e);
	if (r >= 0)
		r = guard_read_headers(&q->guard, c->a, c->http, &auth,
				       payload_is_chunked(q->payload), c->e);
	if (r < 0)
		metrics_add(c->w->metrics, METRIC_AUTH_FAILED, 1);
	return r;
}

static int route(struct request *q)
{
	struct wire_rest_request rest = rest_request(q);

	if (q->target.bucket && !q->target.key &&
	    bucket_unconfigured(rest.method, &q->query, q->call.e)) {
		struct store_bucket b;
		struct error e = {0};

		q->call.e = &e; /* a bucket that is missing or another's is the better answer */
		int r = call_bucket(&q->call, q->target.bucket, NULL, &b);

		q->call.e = &q->error;
		if (r < 0)
			q->error = e;
		return -EREMOTEIO;
	}
	q->action = wire_rest_route(&s3_service, &rest, q->call.e);
	if (!q->action)
		return -EREMOTEIO;
	for (size_t i = 0; i < ARRAY_SIZE(s3_dispatch); i++)
		if (str_eq(s3_dispatch[i].action, q->action->name))
			q->handler = s3_dispatch[i].fn;
	if (!q->handler)
		return error_set(q->call.e, "NotImplemented", "%s is not implemented.",
				 q->action->name);
	return 0;
}

static int prepare_stream(struct request *q)
{
	struct wire_rest_request rest = rest_request(q);
	unsigned digests = guard_digests(&q->guard);
	int r = wire_rest_decode(q->call.a, &s3_service, q->action, &rest, &q->in, q->call.e);

	if (r >= 0)
		r = str_eq(q->action->name, "PutObject")
			? s3_prepare_put_object(&q->call, q->in, &digests)
			: s3_prepare_upload_part(&q->call, q->in, &digests);
	if (r >= 0)
		r = store_writer_new(q->call.w->store, q->guard.length, digests, &q->call.writer,
				     q->call.e);
	return r;
}

static int begin(struct request *q)
{
	struct http_request *r = q->call.http;
	const char *query = http_query(r);
	int rc =
	    target_parse(q->call.a, http_path(r), http_header(r, "Host"), &q->target, q->call.e);

	if (rc >= 0)
		rc = authenticate(q);
	if (rc >= 0)
		rc = wire_params_parse(q->call.a, query, strlen(query), &q->query, q->call.e);
	if (rc >= 0)
		rc = route(q);
	if (rc >= 0 && is_streamed(q))
		rc = prepare_stream(q);
	return rc;
}

static void on_begin(void *ctx, struct http_request *r)
{
	struct request *q = calloc(1, sizeof(*q));

	if (!q)
		abort();
	q->call = (struct s3_call){.w = ctx, .http = r, .a = http_arena(r), .e = &q->error};
	http_set_data(r, q);
	metrics_add(q->call.w->metrics, METRIC_REQUESTS, 1);
	if (begin(q) < 0)
		reply_error(q);
}

/* --- body --- */

static int take_bytes(void *ctx, const void *data, size_t len, struct error *e)
{
	struct request *q = ctx;

	q->received += len;
	if (q->call.writer)
		return store_writer_write(q->call.writer, data, len, e);
	if (len > WALRUS_MAX_XML - q->body.len)
		return error_set(e, "MaxMessageLengthExceeded",
				 "The request's body is longer than %u bytes.", WALRUS_MAX_XML);
	buf_append(&q->body, data, len);
	return 0;
}

static void on_body(void *ctx, struct http_request *r, const void *data, size_t len)
{
	struct request *q = http_data(r);

	metrics_add(q->call.w->metrics, METRIC_BYTES_IN, (int64_t)len);
	if (http_replied(r) || payload_feed(q->payload, data, len, take_bytes, q, q->call.e) >= 0)
		return;
	store_writer_free(TAKE_PTR(
	    q->call.writer)); /* gives the space back now, not when the client has sent the rest */
	reply_error(q);
}

/* Before begin, when the length is told and no PUT can have it; else in the middle of the body. */
static void on_too_long(void *ctx, struct http_request *r)
{
	struct request q = {.call = {.w = ctx, .http = r, .a = http_arena(r)}};

	error_set(&q.error, "EntityTooLarge",
		  "One upload can have %llu bytes; send more as a multipart upload.",
		  (unsigned long long)STORE_PUT_MAX);
	reply_error(&q);
}

/* --- end --- */

static int finish_body(struct request *q)
{
	struct s3_call *c = &q->call;
	int r = payload_finish(q->payload, c->e);

	if (r >= 0)
		r = guard_read_trailers(&q->guard, c->a, payload_trailers(q->payload), c->e);
	if (r >= 0)
		r = guard_check(
		    &q->guard, c->a,
		    &(struct guard_body){.writer = c->writer,
					 .data = q->body.data ? q->body.data : "",
					 .len = q->body.len,
					 .received = q->received,
					 .object_sums =
					     str_eq(q->action->name, "CompleteMultipartUpload")},
		    &c->sums, c->e);
	return r;
}

static int decode_collected(struct request *q)
{
	struct wire_rest_request rest = rest_request(q);

	if ((q->action->flags & WIRE_ACTION_MD5_REQUIRED) && !guard_covers_body(&q->guard))
		return error_set(q->call.e, "InvalidRequest",
				 "Missing required header for this request: Content-MD5");
	rest.body = q->body.data ? q->body.data : "";
	rest.body_len = q->body.len;
	return wire_rest_decode(q->call.a, &s3_service, q->action, &rest, &q->in, q->call.e);
}

static void on_end(void *ctx, struct http_request *r)
{
	struct request *q = http_data(r);
	void *out = NULL;

	if (http_replied(r))
		return;
	int rc = finish_body(q);

	if (rc >= 0 && !is_streamed(q))
		rc = decode_collected(q);
	if (rc >= 0) {
		if (q->action->output)
			out = arena_alloc(q->call.a, q->action->output->size);
		rc = q->handler(&q->call, q->in, out);
	}
	if (rc < 0 && !error_is_set(q->call.e))
		error_errno(q->call.e, rc, "%s", q->action->name);
	if (rc < 0)
		reply_error(q);
	else
		reply(q, out);
}

static void on_done(void *ctx, struct http_request *r, bool aborted)
{
	struct request *q = http_data(r);
	struct walrus *w = ctx;

	if (!q)
		return;
	if (aborted)
		metrics_add(w->metrics, METRIC_ABORTED, 1);
	log_debug("request", "id=%s method=%s path=%s action=%s account=%s code=%s aborted=%d",
		  http_request_id(r), http_method(r), log_quote(http_path(r)),
		  q->action ? q->action->name : "-",
		  q->call.caller.account_id ? q->call.caller.account_id : "-",
		  error_is_set(&q->error) ? q->error.code : "-", aborted);
	store_writer_free(q->call.writer);
	store_reader_free(q->call.body.reader);
	payload_done(q->payload);
	explicit_bzero(q->call.caller.signing_key, sizeof(q->call.caller.signing_key));
	buf_done(&q->body);
	free(q);
}

const struct http_handler walrus_http_handler = {
    .begin = on_begin,
    .body = on_body,
    .too_long = on_too_long,
    .end = on_end,
    .done = on_done,
};
