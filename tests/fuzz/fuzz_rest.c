/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An S3 request as text: "METHOD /BUCKET/KEY?QUERY", header lines, an empty line, the body.
 * Whatever it is, it is refused with a reason or decoded; what is decoded has a bucket wherever the
 * action has one, and can be copied and written as JSON.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "gen/s3.h"
#include "wire/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEADERS_MAX 32

struct headers {
	const char *names[HEADERS_MAX], *values[HEADERS_MAX];
	size_t count;
};

static const char *get_header(void *ctx, const char *name)
{
	struct headers *h = ctx;

	for (size_t i = 0; i < h->count; i++)
		if (strcasecmp(h->names[i], name) == 0)
			return h->values[i];
	return NULL;
}

static void each_header(void *ctx, void (*fn)(void *fn_ctx, const char *name, const char *value),
			void *fn_ctx)
{
	struct headers *h = ctx;

	for (size_t i = 0; i < h->count; i++)
		fn(fn_ctx, h->names[i], h->values[i]);
}

/* Cut the text at the first c; returns what follows, or the empty end. */
static char *cut(char *text, char c)
{
	char *at = text + strcspn(text, (char[]){c, '\0'});

	if (*at)
		*at++ = '\0';
	return at;
}

static char *read_headers(struct headers *h, char *text)
{
	while (*text && *text != '\n') {
		char *next = cut(text, '\n');
		char *value = cut(text, ':');

		if (h->count < HEADERS_MAX) {
			h->names[h->count] = text;
			h->values[h->count++] = value + strspn(value, " ");
		}
		text = next;
	}
	return *text ? text + 1 : text;
}

static void check_decoded(struct arena *a, const struct wire_action *act, const void *in)
{
	_cleanup_(buf_done) struct buf json = BUF_INIT;
	const void *copy;

	if (!act->input)
		return;
	for (size_t i = 0; i < act->input->member_count; i++) {
		const struct wire_member *m = &act->input->members[i];

		if (m->location == WIRE_IN_URI &&
		    !*(const char *const *)((const char *)in + m->offset))
			abort();
	}
	copy = wire_copy(a, act->input, in);
	if (!wire_equal(act->input, in, copy))
		abort();
	wire_json_encode(act->input, in, &json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	char *method = arena_strndup(a, (const char *)data, size);
	char *rest = cut(method, '\n');
	char *bucket = cut(method, ' ');
	char *query = cut(bucket, '?');
	struct headers h = {.count = 0};
	char *body = read_headers(&h, rest);
	const struct wire_action *act;
	struct wire_params params;
	struct error e = {0};
	void *in = NULL;
	char *key;

	bucket += *bucket == '/';
	key = cut(bucket, '/');
	if (wire_params_parse(a, query, strlen(query), &params, &e) < 0)
		return 0;

	struct wire_rest_request r = {.method = method,
				      .bucket = *bucket ? bucket : NULL,
				      .key = *bucket && *key ? key : NULL,
				      .query = &params,
				      .header = get_header,
				      .each_header = each_header,
				      .header_ctx = &h,
				      .body = body,
				      .body_len = strlen(body)};

	act = wire_rest_route(&s3_service, &r, &e);
	if (act && wire_rest_decode(a, &s3_service, act, &r, &in, &e) >= 0)
		check_decoded(a, act, in);
	else if (!error_is_set(&e))
		abort();
	return 0;
}
