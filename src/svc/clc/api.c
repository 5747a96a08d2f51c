/* SPDX-License-Identifier: Apache-2.0 */
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/clc/accounts.h"
#include "svc/clc/api.h"
#include "svc/clc/dispatch.h"
#include "wire/http_server.h"
#include "wire/sigv4.h"

/*
 * A request of the public API, in order: the form is read, the signature is checked against the
 * secret of the key it names and against the hash of the body as it came, the caller's account is
 * looked up, and the dispatcher does the rest. Nothing of a request is acted on before its
 * signature was found good; errors are printed in the manner of the service that the client thinks
 * it talks to.
 */
const struct metric_desc clc_metrics[METRIC_COUNT] = {
    [METRIC_REQUESTS] = {"mallee_clc_requests_total", "API requests answered", METRIC_COUNTER},
    [METRIC_ERRORS_CLIENT] = {"mallee_clc_client_errors_total", "API requests answered 4xx",
			      METRIC_COUNTER},
    [METRIC_ERRORS_SERVER] = {"mallee_clc_server_errors_total", "API requests answered 5xx",
			      METRIC_COUNTER},
    [METRIC_AUTH_FAILURES] = {"mallee_clc_auth_failures_total",
			      "API requests whose signature or key was refused", METRIC_COUNTER},
    [METRIC_REQUEST_MS] = {"mallee_clc_request_milliseconds_total",
			   "Time spent answering API requests", METRIC_COUNTER},
    [METRIC_LAUNCHED] = {"mallee_clc_instances_launched_total", "Instances launched",
			 METRIC_COUNTER},
    [METRIC_APPLIED] = {"mallee_clc_specs_applied_total",
			"Instance specifications sent to the cluster controller", METRIC_COUNTER},
    [METRIC_OBSERVED] = {"mallee_clc_observations_total",
			 "Instance observations received from the cluster controller",
			 METRIC_COUNTER},
    [METRIC_APPLIED_STORAGE] = {"mallee_clc_storage_specs_applied_total",
				"Volume and snapshot specifications sent to the storage controller",
				METRIC_COUNTER},
    [METRIC_OBSERVED_STORAGE] =
	{"mallee_clc_storage_observations_total",
	 "Volume and snapshot observations received from the storage controller", METRIC_COUNTER},
};

struct api_request {
	struct clc *clc;
	struct http_request *http;
	struct ec2_call call;
	const struct wire_service *service;
	struct wire_params params;
	const char *body;
	size_t body_len;
	const char *action;
};

/* The body is the form; a GET, or a POST without a body, has it in the query string. */
static int read_form(struct api_request *q)
{
	const char *form = q->body;
	size_t len = q->body_len;

	if (str_eq(http_method(q->http), "GET") || !len) {
		form = http_query(q->http);
		len = strlen(form);
	}
	return wire_params_parse(q->call.arena, form, len, &q->params, &q->call.error);
}

static void sha256_hex(const void *data, size_t len, char out[static 65])
{
	unsigned char digest[32];

	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, data, len, digest) < 0)
		abort(); /* SHA-256 is always there */
	hex_encode(digest, sizeof(digest), out);
}

static int unknown_key(struct api_request *q)
{
	if (q->service->protocol == WIRE_EC2)
		return ec2_error(&q->call, "AuthFailure",
				 "AWS was not able to validate the provided access credentials");
	return ec2_error(&q->call, "InvalidClientTokenId",
			 "The security token included in the request is invalid.");
}

/* EC2 does not tell a wrong secret from an unknown key; the other services do. */
static int bad_signature(struct api_request *q, int result)
{
	if (q->service->protocol != WIRE_EC2 ||
	    !str_eq(q->call.error.code, "SignatureDoesNotMatch"))
		return result;
	error_clear(&q->call.error);
	return unknown_key(q);
}

/* The scope must name a service of ours and this region (or, for services without regions, Amazon's
 * home of them). */
static int check_scope(struct api_request *q, const struct sigv4_auth *auth)
{
	const struct wire_service *s = api_service_find(auth->service);

	if (!s)
		return ec2_error(&q->call, "SignatureDoesNotMatch",
				 "Credential should be scoped to correct service: 'ec2', 'sts' or "
				 "'iam', not '%.32s'.",
				 auth->service);
	q->service = s;
	if (str_eq(auth->region, q->clc->region) ||
	    (s->protocol != WIRE_EC2 && str_eq(auth->region, "us-east-1")))
		return 0;
	return ec2_error(&q->call,
			 s->protocol == WIRE_EC2 ? "AuthFailure" : "SignatureDoesNotMatch",
			 "Credential should be scoped to a valid region, not '%.32s': this cloud's "
			 "is %s.",
			 auth->region, q->clc->region);
}

static int authenticate(struct api_request *q)
{
	struct ec2_call *call = &q->call;
	struct sigv4_auth auth;
	struct account acc;
	unsigned char key[SIGV4_KEY_LEN];
	char hash[65];
	int r = sigv4_parse(call->arena, q->http, false, call->now_ms, &auth, &call->error);

	if (r < 0)
		return r;
	r = check_scope(q, &auth);
	if (r < 0)
		return r;
	if (auth.session_token)
		return unknown_key(q); /* no temporary credentials are given out */
	r = account_by_access_key(q->clc, call->arena, auth.access_key_id, &acc, &call->error);
	if (r == -ENOENT)
		return unknown_key(q);
	if (r < 0)
		return r;
	struct secret secret = secret_new(acc.key->secret_access_key);
	sigv4_signing_key(&secret, auth.date, auth.region, auth.service, key);
	secret_done(&secret);
	sha256_hex(q->body, q->body_len, hash);
	r = sigv4_verify(call->arena, q->http, &auth, key, hash, &call->error);
	explicit_bzero(key, sizeof(key));
	if (r < 0)
		return bad_signature(q, r);
	call->account_id = acc.record->account_id;
	call->account_name = acc.record->name;
	call->arn = acc.arn;
	call->access_key_id = acc.key->access_key_id;
	return 0;
}

static void count(struct api_request *q, int status, int64_t ms)
{
	struct metrics *m = q->clc->metrics;

	metrics_add(m, METRIC_REQUESTS, 1);
	metrics_add(m, METRIC_REQUEST_MS, ms);
	if (status >= 500)
		metrics_add(m, METRIC_ERRORS_SERVER, 1);
	else if (status >= 400)
		metrics_add(m, METRIC_ERRORS_CLIENT, 1);
}

static void answer(struct api_request *q, int result, struct buf *reply, int64_t start_ms)
{
	struct ec2_call *call = &q->call;
	int status = 200;

	if (result < 0) {
		if (!error_is_set(&call->error))
			error_errno(&call->error, result, "the request failed");
		buf_reset(reply);
		wire_query_error(q->service, &call->error, call->request_id, reply);
		status = wire_error_http_status(q->service, call->error.code);
	}
	http_reply_header(q->http, "x-amzn-RequestId", call->request_id);
	http_reply_header(q->http, "Cache-Control", "no-cache, no-store");
	http_reply(q->http, status, "text/xml;charset=UTF-8", reply->data, reply->len);
	int64_t ms = clock_mono_ms() - start_ms;
	count(q, status, ms);
	log_write(
	    status >= 500 ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, "request",
	    "service=%s action=%s account=%s status=%d code=%s ms=%lld id=%s%s%s", q->service->name,
	    q->action ? q->action : "-", call->account_id ? call->account_id : "-", status,
	    result < 0 ? log_quote(call->error.code) : "-", (long long)ms, call->request_id,
	    status >= 500 ? " why=" : "", status >= 500 ? log_quote(call->error.message) : "");
}

static void api_end(void *ctx, struct http_request *http)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	int64_t start_ms = clock_mono_ms();
	struct api_request q = {
	    .clc = ctx,
	    .http = http,
	    .service = api_service_find("ec2"),
	    .call = {.clc = ctx,
		     .arena = http_arena(http),
		     .request_id = http_request_id(http),
		     .now_ms = clock_unix_ms()},
	};
	int r;

	q.body = http_body(http, &q.body_len);
	r = read_form(&q);
	if (r >= 0) {
		q.service = api_service_by_version(wire_params_get(&q.params, "Version"));
		r = authenticate(&q);
		if (r < 0)
			metrics_add(q.clc->metrics, METRIC_AUTH_FAILURES, 1);
	}
	if (r >= 0)
		r = api_dispatch(&q.call, q.service, &q.params, &q.action, &reply);
	answer(&q, r, &reply, start_ms);
}

/* Before who sent it is known: in EC2's manner. */
static void refuse(struct clc *c, struct http_request *http, int status, const struct error *e)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;

	wire_query_error(api_service_find("ec2"), e, http_request_id(http), &reply);
	metrics_add(c->metrics, METRIC_REQUESTS, 1);
	metrics_add(c->metrics, METRIC_ERRORS_CLIENT, 1);
	http_reply(http, status, "text/xml;charset=UTF-8", reply.data, reply.len);
}

static void api_too_long(void *ctx, struct http_request *http)
{
	struct error e = {0};

	error_set(&e, "RequestEntityTooLarge", "A request has at most %d bytes", LIMIT_BODY_BYTES);
	refuse(ctx, http, 413, &e);
}

/* What can be refused before the body is sent. */
static void api_begin(void *ctx, struct http_request *http)
{
	const char *method = http_method(http), *type = http_header(http, "Content-Type");
	static const char form[] = "application/x-www-form-urlencoded";
	struct error e = {0};

	if (!str_eq(http_path(http), "/"))
		error_set(&e, "InvalidRequest", "The API is served at /, not at %.100s",
			  http_path(http));
	else if (!str_eq(method, "POST") && !str_eq(method, "GET"))
		error_set(&e, "InvalidRequest", "The API is served by POST and GET, not by %.16s",
			  method);
	else if (str_eq(method, "POST") && type && strncasecmp(type, form, sizeof(form) - 1) != 0)
		error_set(&e, "InvalidRequest", "A POST must carry %s, not %.100s", form, type);
	if (error_is_set(&e))
		refuse(ctx, http, str_eq(http_path(http), "/") ? 400 : 404, &e);
}

static const struct http_handler api_handler = {
    .begin = api_begin, .end = api_end, .too_long = api_too_long};

/* Handlers wait: for a place for an instance, for a snapshot's point in time. Nobody else's request
 * shall wait with them. */
enum { API_THREADS = -1 };

int api_start(struct clc *c, const char *address, bool free_bind, struct http_server **ret,
	      struct error *e)
{
	const struct http_server_config config = {
	    .address = address,
	    .free_bind = free_bind,
	    .port = settings_port(c->settings, PORT_API),
	    .threads = API_THREADS,
	    .max_body_bytes = LIMIT_BODY_BYTES,
	    .handler = &api_handler,
	    .ctx = c,
	};
	return http_server_start(&config, ret, e);
}
