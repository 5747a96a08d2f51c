/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "svc/walrus/walrus_priv.h"

/* ListObjects and ListObjectsV2, which differ in how a page is continued and in what they repeat of
 * the request. */

struct encoder {
	struct arena *a;
	bool url; /* encoding-type=url: for keys that XML 1.0 cannot carry */
};

static const char *encoded(const struct encoder *enc, const char *s)
{
	return s && enc->url ? uri_encode(enc->a, s, strlen(s), true) : s;
}

static int page_size(struct wire_int max)
{
	return max.set ? (int)MIN_OF(max.value, (int64_t)STORE_LIST_MAX) : STORE_LIST_MAX;
}

static struct s3_owner *owner_of(struct s3_call *call)
{
	struct s3_owner *o = arena_new_struct(call->a, struct s3_owner);

	o->id = call->caller.canonical_id;
	o->display_name = call->caller.account_name;
	return o;
}

static struct s3_object_list contents_of(struct s3_call *call, const struct store_listing *l,
					 const struct encoder *enc, bool owners)
{
	struct s3_object_list list = {.set = l->object_count > 0, .count = l->object_count};
	struct s3_owner *owner = owners ? owner_of(call) : NULL;

	list.items = arena_new_array(call->a, struct s3_object, list.count);
	for (size_t i = 0; i < list.count; i++) {
		const struct store_object *o = &l->objects[i];

		list.items[i] = (struct s3_object){
		    .key = encoded(enc, o->key),
		    .last_modified = WIRE_TIME_OF(o->modified_ms),
		    .e_tag = etag_quote(call->a, o->etag),
		    .size = WIRE_INT_OF((int64_t)o->size),
		    .storage_class = "STANDARD",
		    .owner = owner,
		};
	}
	return list;
}

static struct s3_common_prefix_list prefixes_of(struct s3_call *call, const char **prefixes,
						size_t count, const struct encoder *enc)
{
	struct s3_common_prefix_list list = {.set = count > 0, .count = count};

	list.items = arena_new_array(call->a, struct s3_common_prefix, count);
	for (size_t i = 0; i < count; i++)
		list.items[i].prefix = encoded(enc, prefixes[i]);
	return list;
}

/* The token is the last entry of its page, dressed so that nobody builds one by hand. */
static int read_token(struct s3_call *call, const char *token, const char **ret)
{
	void *text;
	size_t len;

	if (!*token || base64_decode(call->a, token, strlen(token), &text, &len) < 0 ||
	    len > STORE_KEY_MAX || !utf8_valid(text, len) || memchr(text, '\0', len))
		return error_set(call->e, "InvalidArgument",
				 "The continuation token provided is incorrect");
	*ret = arena_strndup(call->a, text, len);
	return 0;
}

int s3_list_objects_v2(struct s3_call *call, const struct s3_list_objects_v2_request *in,
		       struct s3_list_objects_v2_output *out)
{
	struct store_list q = {.prefix = in->prefix,
			       .delimiter = in->delimiter,
			       .after = in->start_after,
			       .max = page_size(in->max_keys)};
	struct store_listing l;
	struct store_bucket b;
	const struct encoder enc = {.a = call->a, .url = in->encoding_type != NULL};
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0 && in->continuation_token)
		r = read_token(call, in->continuation_token, &q.after);
	q.bucket = b.id;
	if (r >= 0)
		r = store_object_list(call->w->store, call->a, &q, &l, call->e);
	if (r < 0)
		return r;
	*out = (struct s3_list_objects_v2_output){
	    .is_truncated = WIRE_BOOL_OF(l.truncated),
	    .contents = contents_of(call, &l, &enc, in->fetch_owner.set && in->fetch_owner.value),
	    .name = in->bucket,
	    .prefix = encoded(&enc, in->prefix ? in->prefix : ""),
	    .delimiter = encoded(&enc, in->delimiter),
	    .max_keys = WIRE_INT_OF(q.max),
	    .common_prefixes = prefixes_of(call, l.prefixes, l.prefix_count, &enc),
	    .encoding_type = in->encoding_type,
	    .key_count = WIRE_INT_OF((int64_t)(l.object_count + l.prefix_count)),
	    .continuation_token = in->continuation_token,
	    .next_continuation_token =
		l.truncated ? base64_encode(call->a, l.last, strlen(l.last)) : NULL,
	    .start_after = encoded(&enc, in->start_after),
	};
	return 0;
}

int s3_list_objects(struct s3_call *call, const struct s3_list_objects_request *in,
		    struct s3_list_objects_output *out)
{
	struct store_list q = {.prefix = in->prefix,
			       .delimiter = in->delimiter,
			       .after = in->marker,
			       .max = page_size(in->max_keys)};
	struct store_listing l;
	struct store_bucket b;
	const struct encoder enc = {.a = call->a, .url = in->encoding_type != NULL};
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	q.bucket = b.id;
	if (r >= 0)
		r = store_object_list(call->w->store, call->a, &q, &l, call->e);
	if (r < 0)
		return r;
	*out = (struct s3_list_objects_output){
	    .is_truncated = WIRE_BOOL_OF(l.truncated),
	    .marker = encoded(&enc, in->marker ? in->marker : ""),
	    /* Without a delimiter clients go on from the last key themselves. */
	    .next_marker = l.truncated && in->delimiter ? encoded(&enc, l.last) : NULL,
	    .contents = contents_of(call, &l, &enc, true),
	    .name = in->bucket,
	    .prefix = encoded(&enc, in->prefix ? in->prefix : ""),
	    .delimiter = encoded(&enc, in->delimiter),
	    .max_keys = WIRE_INT_OF(q.max),
	    .common_prefixes = prefixes_of(call, l.prefixes, l.prefix_count, &enc),
	    .encoding_type = in->encoding_type,
	};
	return 0;
}

static struct s3_multipart_upload_list
uploads_of(struct s3_call *call, const struct store_upload_listing *l, const struct encoder *enc)
{
	struct s3_multipart_upload_list list = {.set = l->upload_count > 0,
						.count = l->upload_count};
	struct s3_initiator *initiator = arena_new_struct(call->a, struct s3_initiator);

	initiator->id = call->caller.canonical_id;
	initiator->display_name = call->caller.account_name;
	list.items = arena_new_array(call->a, struct s3_multipart_upload, list.count);
	for (size_t i = 0; i < list.count; i++)
		list.items[i] = (struct s3_multipart_upload){
		    .upload_id = l->uploads[i].id,
		    .key = encoded(enc, l->uploads[i].key),
		    .initiated = WIRE_TIME_OF(l->uploads[i].initiated_ms),
		    .storage_class = "STANDARD",
		    .owner = owner_of(call),
		    .initiator = initiator,
		};
	return list;
}

int s3_list_multipart_uploads(struct s3_call *call,
			      const struct s3_list_multipart_uploads_request *in,
			      struct s3_list_multipart_uploads_output *out)
{
	struct store_upload_list q = {
	    .prefix = in->prefix,
	    .delimiter = in->delimiter,
	    .key_marker = in->key_marker,
	    .id_marker = in->key_marker ? in->upload_id_marker : NULL,
	    .max = page_size(in->max_uploads),
	};
	struct store_upload_listing l;
	struct store_bucket b;
	const struct encoder enc = {.a = call->a, .url = in->encoding_type != NULL};
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	q.bucket = b.id;
	if (r >= 0)
		r = store_upload_list(call->w->store, call->a, &q, &l, call->e);
	if (r < 0)
		return r;
	*out = (struct s3_list_multipart_uploads_output){
	    .bucket = in->bucket,
	    .key_marker = encoded(&enc, in->key_marker ? in->key_marker : ""),
	    .upload_id_marker = in->upload_id_marker ? in->upload_id_marker : "",
	    .next_key_marker = l.truncated ? encoded(&enc, l.last_key) : NULL,
	    .prefix = encoded(&enc, in->prefix ? in->prefix : ""),
	    .delimiter = encoded(&enc, in->delimiter),
	    .next_upload_id_marker = l.truncated ? l.last_id : NULL,
	    .max_uploads = WIRE_INT_OF(q.max),
	    .is_truncated = WIRE_BOOL_OF(l.truncated),
	    .uploads = uploads_of(call, &l, &enc),
	    .common_prefixes = prefixes_of(call, l.prefixes, l.prefix_count, &enc),
	    .encoding_type = in->encoding_type,
	};
	return 0;
}
