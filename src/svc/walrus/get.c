/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/text.h"
#include "svc/walrus/conditions_priv.h"
#include "svc/walrus/range_priv.h"
#include "svc/walrus/walrus_priv.h"

/* GetObject and HeadObject: the same but for the bytes. */

struct wanted {
	struct conditions conditions;
	const char *range;
	struct wire_int part_number;
	bool checksums;
};

static int check_conditions(struct s3_call *call, const struct wanted *w,
			    const struct store_object *o)
{
	char date[30];

	switch (conditions_check(call->a, &w->conditions, o)) {
	case CONDITIONS_FAIL:
		return error_set(call->e, "PreconditionFailed",
				 "At least one of the pre-conditions you specified did not hold");
	case CONDITIONS_UNMODIFIED:
		clock_format_http(o->modified_ms, date);
		http_reply_header(call->http, "ETag", etag_quote(call->a, o->etag));
		http_reply_header(call->http, "Last-Modified", date);
		return error_set(call->e, "NotModified", "The object was not modified.");
	default:
		return 0;
	}
}

/* Which bytes are wanted: sets the body's off and len, and the status when that is not the whole.
 */
static int choose_part(struct s3_call *call, int64_t n, const struct store_object *o,
		       const struct store_reader *reader)
{
	struct s3_body *b = &call->body;

	if (o->part_count == 0 && n == 1) {
		b->len = o->size;
	} else if (!reader || n > INT32_MAX ||
		   !store_reader_part(reader, (int)n, &b->off, &b->len)) {
		return error_set(call->e, "InvalidPartNumber",
				 "The requested partnumber is not satisfiable");
	}
	call->status = 206;
	return 0;
}

/* A range is wanted only of the version that If-Range names: the client has other bytes of it. */
static bool range_holds(struct s3_call *call, const struct store_object *o)
{
	const char *version = http_header(call->http, "If-Range");
	char date[30];

	clock_format_http(o->modified_ms, date);
	return !version || str_eq(version, etag_quote(call->a, o->etag)) || str_eq(version, date);
}

static int choose_bytes(struct s3_call *call, const struct wanted *w, const struct store_object *o,
			const struct store_reader *reader)
{
	struct s3_body *b = &call->body;
	int r = 0;

	b->off = 0;
	b->len = o->size;
	if (w->part_number.set && w->range)
		return error_set(call->e, "InvalidRequest",
				 "Cannot specify both Range header and partNumber query parameter");
	if (w->part_number.set) {
		r = choose_part(call, w->part_number.value, o, reader);
	} else if (w->range && range_holds(call, o)) {
		r = range_parse(w->range, o->size, &b->off, &b->len, call->e);
		if (r > 0)
			call->status = 206;
	}
	if (r < 0 && str_eq(call->e->code, "InvalidRange"))
		http_reply_header(
		    call->http, "Content-Range",
		    arena_printf(call->a, "bytes */%llu", (unsigned long long)o->size));
	if (r >= 0 && call->status == 206 && o->size > 0)
		http_reply_header(call->http, "Content-Range",
				  arena_printf(call->a, "bytes %llu-%llu/%llu",
					       (unsigned long long)b->off,
					       (unsigned long long)(b->off + b->len - 1),
					       (unsigned long long)o->size));
	return r < 0 ? r : 0;
}

static void find_metadata(struct arena *a, const struct store_pairs *pairs, struct wire_map *ret)
{
	ret->items = arena_new_array(a, struct wire_pair, pairs->count);
	for (size_t i = 0; i < pairs->count; i++) {
		if (!str_prefix(pairs->items[i].name, PAIR_META))
			continue;
		ret->set = true;
		ret->items[ret->count++] = (struct wire_pair){
		    pairs->items[i].name + strlen(PAIR_META), pairs->items[i].value};
	}
}

static struct wire_time find_expires(const struct store_pairs *pairs)
{
	const char *text = store_pairs_get(pairs, "expires");
	struct wire_time t = {0};

	t.set = text && parse_i64(text, INT64_MIN, INT64_MAX, &t.value) >= 0;
	return t;
}

/* The members that both replies have, under the same names. */
#define FILL(call, out, o, w)                                                                      \
	do {                                                                                       \
		const struct store_pairs *p_ = &(o)->pairs;                                        \
		struct sums sums_ = {0};                                                           \
                                                                                                   \
		(out)->accept_ranges = "bytes";                                                    \
		(out)->last_modified = WIRE_TIME_OF((o)->modified_ms);                             \
		(out)->e_tag = etag_quote((call)->a, (o)->etag);                                   \
		(out)->cache_control = store_pairs_get(p_, "cache-control");                       \
		(out)->content_disposition = store_pairs_get(p_, "content-disposition");           \
		(out)->content_encoding = store_pairs_get(p_, "content-encoding");                 \
		(out)->content_language = store_pairs_get(p_, "content-language");                 \
		(out)->content_type = store_pairs_get(p_, "content-type");                         \
		(out)->expires = find_expires(p_);                                                 \
		if (!(out)->content_type)                                                          \
			(out)->content_type = "binary/octet-stream";                               \
		find_metadata((call)->a, p_, &(out)->metadata);                                    \
		if ((w)->part_number.set && (o)->part_count > 0)                                   \
			(out)->parts_count = WIRE_INT_OF((o)->part_count);                         \
		if ((w)->checksums && (call)->status != 206) {                                     \
			sums_from_pairs(p_, &sums_);                                               \
			SUMS_TO(&sums_, out);                                                      \
			(out)->checksum_type = sums_.type;                                         \
		}                                                                                  \
	} while (0)

/* 0, with *ret_reader NULL when only the headers are wanted. */
static int find_object(struct s3_call *call, const struct store_bucket *b, const char *key,
		       const struct wanted *w, bool bytes, struct store_object *ret,
		       struct store_reader **ret_reader)
{
	int r;

	if (bytes || w->part_number.set)
		r = store_object_open(call->w->store, call->a, b->id, key, ret, ret_reader,
				      call->e);
	else
		r = store_object_head(call->w->store, call->a, b->id, key, ret, call->e);
	if (r >= 0)
		r = check_conditions(call, w, ret);
	if (r >= 0)
		r = choose_bytes(call, w, ret, *ret_reader);
	return r;
}

int s3_get_object(struct s3_call *call, const struct s3_get_object_request *in,
		  struct s3_get_object_output *out)
{
	const struct wanted w = {
	    .conditions = {in->if_match, in->if_none_match, in->if_modified_since,
			   in->if_unmodified_since},
	    .range = in->range,
	    .part_number = in->part_number,
	    .checksums = in->checksum_mode && strcasecmp(in->checksum_mode, "ENABLED") == 0,
	};
	struct store_bucket b;
	struct store_object o;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0)
		r = call_check_version(call, in->version_id);
	if (r >= 0)
		r = find_object(call, &b, in->key, &w, true, &o, &call->body.reader);
	if (r < 0)
		return r;
	FILL(call, out, &o, &w);
	if (in->response_cache_control)
		out->cache_control = in->response_cache_control;
	if (in->response_content_disposition)
		out->content_disposition = in->response_content_disposition;
	if (in->response_content_encoding)
		out->content_encoding = in->response_content_encoding;
	if (in->response_content_language)
		out->content_language = in->response_content_language;
	if (in->response_content_type)
		out->content_type = in->response_content_type;
	if (in->response_expires.set)
		out->expires = in->response_expires;
	call->body.set = true;
	call->body.content_type =
	    TAKE_PTR(out->content_type); /* the server's own header, not a second one */
	return 0;
}

int s3_head_object(struct s3_call *call, const struct s3_head_object_request *in,
		   struct s3_head_object_output *out)
{
	const struct wanted w = {
	    .conditions = {in->if_match, in->if_none_match, in->if_modified_since,
			   in->if_unmodified_since},
	    .range = in->range,
	    .part_number = in->part_number,
	    .checksums = in->checksum_mode && strcasecmp(in->checksum_mode, "ENABLED") == 0,
	};
	_cleanup_(store_reader_freep) struct store_reader *reader = NULL;
	struct store_bucket b;
	struct store_object o;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0)
		r = call_check_version(call, in->version_id);
	if (r >= 0)
		r = find_object(call, &b, in->key, &w, false, &o, &reader);
	if (r < 0)
		return r;
	FILL(call, out, &o, &w);
	call->body.set = true;
	call->body.content_type = TAKE_PTR(out->content_type);
	return 0;
}
