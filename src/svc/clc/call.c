/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/macros.h"
#include "base/text.h"
#include "svc/clc/clc_priv.h"
#include "svc/clc/reconcile.h"
#include "wire/codec.h"

int ec2_error(struct ec2_call *call, const char *code, const char *fmt, ...)
{
	char text[sizeof(call->error.message)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return error_set(&call->error, code, "%s", text);
}

int ec2_dry_run_point(struct ec2_call *call)
{
	if (!call->dry_run)
		return 0;
	return ec2_error(call, "DryRunOperation",
			 "Request would have succeeded, but DryRun flag is set.");
}

int ec2_begin(struct ec2_call *call)
{
	assert(!call->in_transaction);
	int r = state_begin(call->clc->state, &call->error);

	if (r >= 0)
		call->in_transaction = true;
	return r;
}

int ec2_commit(struct ec2_call *call)
{
	assert(call->in_transaction);
	int r = ec2_dry_run_point(call);

	if (r < 0)
		return r; /* the dispatcher rolls back */
	r = state_commit(call->clc->state, &call->error);
	if (r < 0)
		return r;
	call->in_transaction = false;
	if (call->wake_reconciler)
		reconciler_wake(call->clc->reconciler, RECONCILE_CLUSTER);
	if (call->wake_storage)
		reconciler_wake(call->clc->reconciler, RECONCILE_STORAGE);
	if (call->wake_images)
		image_worker_wake(call->clc->image_worker);
	return 0;
}

int ec2_request_digest(struct ec2_call *call, const struct wire_shape *shape, const void *in,
		       const char **ret)
{
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	unsigned char digest[32];
	char *hex = arena_alloc(call->arena, 2 * sizeof(digest) + 1);

	wire_json_encode(shape, in, &text);
	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, text.data, text.len, digest) < 0)
		return ec2_error(call, "InternalError", "SHA-256 is not to be had");
	hex_encode(digest, sizeof(digest), hex);
	*ret = hex;
	return 0;
}

/* Ours are base64 of this and a number; anything else was not made here. */
#define TOKEN_PREFIX "after:"

int ec2_page(struct ec2_call *call, const struct wire_int *max_results, const char *next_token,
	     bool with_ids, int64_t min, int64_t max, struct page *ret)
{
	struct page p = {.room = SIZE_MAX};

	if (max_results->set && with_ids)
		return ec2_error(call, "InvalidParameterCombination",
				 "The parameter MaxResults cannot be used together with ids");
	if (max_results->set && (max_results->value < min || max_results->value > max))
		return ec2_error(call, "InvalidParameterValue",
				 "Value ( %lld ) for parameter maxResults is invalid. Expecting a "
				 "value between %lld and %lld.",
				 (long long)max_results->value, (long long)min, (long long)max);
	if (max_results->set)
		p.room = (size_t)max_results->value;
	if (next_token && *next_token) {
		void *data;
		size_t len, prefix = strlen(TOKEN_PREFIX);

		if (base64_decode(call->arena, next_token, strlen(next_token), &data, &len) < 0 ||
		    len <= prefix || memcmp(data, TOKEN_PREFIX, prefix) != 0 ||
		    parse_i64(arena_strndup(call->arena, (char *)data + prefix, len - prefix), 0,
			      INT64_MAX, &p.after_seq) < 0)
			return ec2_error(call, "InvalidNextToken",
					 "The value of NextToken is not one that was given out");
		/* A page needs a size on every call; without one the rest comes at once. */
		p.last_seq = p.after_seq;
	}
	*ret = p;
	return 0;
}

int ec2_page_clamped(struct ec2_call *call, const struct wire_int *max_results,
		     const char *next_token, bool with_ids, int64_t min, int64_t max,
		     struct page *ret)
{
	struct wire_int asked = *max_results;

	asked.value = MIN_OF(asked.value, max);
	return ec2_page(call, &asked, next_token, with_ids, min, max, ret);
}

bool page_take(struct page *p, int64_t seq)
{
	if (seq <= p->after_seq)
		return false;
	if (p->room == 0) {
		p->more = true;
		return false;
	}
	if (p->room != SIZE_MAX)
		p->room--;
	p->last_seq = seq;
	return true;
}

const char *page_token(struct arena *a, const struct page *p)
{
	if (!p->more)
		return NULL;
	const char *text = arena_printf(a, TOKEN_PREFIX "%lld", (long long)p->last_seq);
	return base64_encode(a, text, strlen(text));
}

bool list_has(const struct wire_string_list *list, const char *s)
{
	for (size_t i = 0; i < list->count; i++)
		if (str_eq(list->items[i], s))
			return true;
	return false;
}

bool list_asks(const struct wire_string_list *list, const char *s)
{
	return list->count == 0 || list_has(list, s);
}
