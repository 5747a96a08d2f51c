/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codecs as a filter for tests: one JSON command a line in, one JSON answer a line out.
 *
 *   {"op": "query", "service": "ec2", "body": "Action=…"}         -> {"action": …, "value": {…}}
 *   {"op": "rest", "service": "s3", "method": …, "bucket": …, "key": …, "query": …,
 *    "headers": [[name, value] …], "body": text or absent}         -> {"action": …, "value": {…}}
 *   {"op": "encode", "service": …, "action": …, "value": {…}}      -> {"body": "Action=…"}
 *   {"op": "reply", "service": …, "action": …, "value": {…}}       -> {"status": …, "headers": […],
 * "body": xml}
 *   {"op": "read", "service": …, "action": …, "body": xml}         -> {"value": {…}}
 *   {"op": "error", "service": …, "code": …, "message": …}         -> {"status": …, "body": xml}
 *   anything that is refused                                       -> {"error": {"code": …,
 * "message": …, "status": …}}
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "gen/ec2.h"
#include "gen/iam.h"
#include "gen/s3.h"
#include "gen/sts.h"
#include "wire/codec.h"

static const struct wire_service *find_service(const char *name)
{
	static const struct wire_service *const services[] = {&ec2_service, &sts_service,
							      &iam_service, &s3_service};

	for (size_t i = 0; i < ARRAY_SIZE(services); i++)
		if (str_eq(services[i]->name, name))
			return services[i];
	return NULL;
}

static const char *text_of(json_t *cmd, const char *key)
{
	return json_string_value(json_object_get(cmd, key));
}

static void put_value(json_t *answer, const struct wire_shape *shape, const void *value)
{
	_cleanup_(buf_done) struct buf text = BUF_INIT;

	if (!shape) {
		json_object_set_new(answer, "value", json_null());
		return;
	}
	wire_json_encode(shape, value, &text);
	json_object_set_new(answer, "value", json_loadb(text.data, text.len, 0, NULL));
}

/* The command's value, of the shape; NULL for an action without one. */
static int get_value(struct arena *a, json_t *cmd, const struct wire_shape *shape, void **ret,
		     struct error *e)
{
	char *text;
	int r;

	*ret = NULL;
	if (!shape)
		return 0;
	text = json_dumps(json_object_get(cmd, "value"), JSON_COMPACT);
	r = text ? wire_json_decode(a, shape, text, strlen(text), true, ret, e)
		 : error_set(e, "Tool", "the command has no value");
	free(text);
	return r;
}

static int do_query(struct arena *a, const struct wire_service *s, json_t *cmd, json_t *answer,
		    struct error *e)
{
	const char *body = text_of(cmd, "body");
	const struct wire_action *act;
	struct wire_params params;
	void *in;
	int r = wire_params_parse(a, body, strlen(body), &params, e);

	if (r < 0)
		return r;
	act = wire_query_route(s, &params, e);
	if (!act)
		return -EINVAL;
	r = wire_query_decode(a, s, act, &params, &in, e);
	if (r < 0)
		return r;
	json_object_set_new(answer, "action", json_string(act->name));
	put_value(answer, act->input, in);
	return 0;
}

static const char *header(void *ctx, const char *name)
{
	json_t *pair;
	size_t i;

	json_array_foreach((json_t *)ctx, i, pair)
	{
		if (strcasecmp(json_string_value(json_array_get(pair, 0)), name) == 0)
			return json_string_value(json_array_get(pair, 1));
	}
	return NULL;
}

static void each_header(void *ctx, void (*fn)(void *fn_ctx, const char *name, const char *value),
			void *fn_ctx)
{
	json_t *pair;
	size_t i;

	json_array_foreach((json_t *)ctx, i, pair)
	{
		fn(fn_ctx, json_string_value(json_array_get(pair, 0)),
		   json_string_value(json_array_get(pair, 1)));
	}
}

static int do_rest(struct arena *a, const struct wire_service *s, json_t *cmd, json_t *answer,
		   struct error *e)
{
	const char *query = text_of(cmd, "query");
	struct wire_params params;
	struct wire_rest_request r = {
	    .method = text_of(cmd, "method"),
	    .bucket = text_of(cmd, "bucket"),
	    .key = text_of(cmd, "key"),
	    .query = &params,
	    .header = header,
	    .each_header = each_header,
	    .header_ctx = json_object_get(cmd, "headers"),
	    .body = text_of(cmd, "body"),
	};
	const struct wire_action *act;
	void *in;
	int ret = wire_params_parse(a, query, strlen(query), &params, e);

	if (ret < 0)
		return ret;
	r.body_len = r.body ? strlen(r.body) : 0;
	act = wire_rest_route(s, &r, e);
	if (!act)
		return -EINVAL;
	ret = wire_rest_decode(a, s, act, &r, &in, e);
	if (ret < 0)
		return ret;
	json_object_set_new(answer, "action", json_string(act->name));
	put_value(answer, act->input, in);
	return 0;
}

static void add_header(void *ctx, const char *name, const char *value)
{
	json_array_append_new(ctx, json_pack("[ss]", name, value));
}

static int do_reply(struct arena *a, const struct wire_service *s, json_t *cmd, json_t *answer,
		    struct error *e)
{
	const struct wire_action *act = wire_action_find(s, text_of(cmd, "action"));
	_cleanup_(buf_done) struct buf body = BUF_INIT;
	json_t *headers;
	int status = 200, r;
	void *value;

	if (!act)
		return error_set(e, "Tool", "no such action");
	r = get_value(a, cmd, act->output, &value, e);
	if (r < 0)
		return r;
	headers = json_array();
	if (s->protocol == WIRE_REST_XML)
		wire_rest_reply(s, act, value, &status, add_header, headers, &body);
	else
		wire_query_reply(s, act, value, "11111111-2222-3333-4444-555555555555", &body);
	json_object_set_new(answer, "status", json_integer(status));
	json_object_set_new(answer, "headers", headers);
	json_object_set_new(answer, "body", json_stringn(body.data ? body.data : "", body.len));
	return 0;
}

static int do_encode(struct arena *a, const struct wire_service *s, json_t *cmd, json_t *answer,
		     struct error *e)
{
	const struct wire_action *act = wire_action_find(s, text_of(cmd, "action"));
	_cleanup_(buf_done) struct buf body = BUF_INIT;
	void *value;
	int r;

	if (!act)
		return error_set(e, "Tool", "no such action");
	r = get_value(a, cmd, act->input, &value, e);
	if (r < 0)
		return r;
	wire_query_encode(s, act, value, &body);
	json_object_set_new(answer, "body", json_stringn(body.data, body.len));
	return 0;
}

static int do_read(struct arena *a, const struct wire_service *s, json_t *cmd, json_t *answer,
		   struct error *e)
{
	const struct wire_action *act = wire_action_find(s, text_of(cmd, "action"));
	const char *body = text_of(cmd, "body");
	void *value;
	int r;

	if (!act)
		return error_set(e, "Tool", "no such action");
	r = wire_query_reply_decode(a, s, act, body, strlen(body), &value, e);
	if (r < 0)
		return r;
	put_value(answer, act->output, value);
	return 0;
}

static int do_error(struct arena *a, const struct wire_service *s, json_t *cmd, json_t *answer,
		    struct error *e)
{
	_cleanup_(buf_done) struct buf body = BUF_INIT;
	struct error given = {0};

	error_set(&given, text_of(cmd, "code"), "%s", text_of(cmd, "message"));
	if (s->protocol == WIRE_REST_XML)
		wire_rest_error(s, &given, "/b/k", "1111", &body);
	else
		wire_query_error(s, &given, "1111", &body);
	json_object_set_new(answer, "status", json_integer(wire_error_http_status(s, given.code)));
	json_object_set_new(answer, "body", json_stringn(body.data, body.len));
	return 0;
}

static const struct {
	const char *op;
	int (*fn)(struct arena *a, const struct wire_service *s, json_t *cmd, json_t *answer,
		  struct error *e);
} ops[] = {
    {"query", do_query}, {"rest", do_rest}, {"encode", do_encode},
    {"reply", do_reply}, {"read", do_read}, {"error", do_error},
};

static json_t *answer_to(json_t *cmd)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const struct wire_service *s = find_service(text_of(cmd, "service"));
	json_t *answer = json_object();
	struct error e = {0};
	int r = error_set(&e, "Tool", "no such service or op");

	for (size_t i = 0; s && i < ARRAY_SIZE(ops); i++) {
		if (!str_eq(ops[i].op, text_of(cmd, "op")))
			continue;
		error_clear(&e);
		r = ops[i].fn(a, s, cmd, answer, &e);
	}
	if (r < 0) {
		json_object_clear(answer);
		json_object_set_new(answer, "error",
				    json_pack("{sssssi}", "code", e.code, "message", e.message,
					      "status", s ? wire_error_http_status(s, e.code) : 0));
	}
	return answer;
}

int main(void)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t len;

	while ((len = getline(&line, &room, stdin)) > 0) {
		json_t *cmd = json_loadb(line, (size_t)len, JSON_ALLOW_NUL, NULL);
		json_t *answer = cmd ? answer_to(cmd) : json_pack("{ss}", "error", "not JSON");

		json_dumpf(answer, stdout, JSON_COMPACT);
		putchar('\n');
		fflush(stdout);
		json_decref(answer);
		json_decref(cmd);
	}
	free(line);
	return 0;
}
