/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/text.h"
#include "svc/walrus/walrus_priv.h"

/* Putting and deleting. */

const char *etag_unquote(struct arena *a, const char *text)
{
	size_t len = strlen(text);

	if (len >= 2 && text[0] == '"' && text[len - 1] == '"')
		return arena_strndup(a, text + 1, len - 2);
	return text;
}

const char *etag_quote(struct arena *a, const char *etag)
{
	return arena_printf(a, "\"%s\"", etag);
}

int call_check_version(struct s3_call *call, const char *version_id)
{
	if (!version_id || !*version_id || str_eq(version_id, "null"))
		return 0;
	return error_set(call->e, "NoSuchVersion",
			 "The bucket is not versioned: it has no version %.60s.", version_id);
}

int call_condition(struct s3_call *call, const char *if_match, const char *if_none_match,
		   struct store_condition *ret)
{
	if (if_none_match && !str_eq(if_none_match, "*"))
		return error_set(call->e, "NotImplemented",
				 "If-None-Match of a request that writes can only be *.");
	if (if_match && if_none_match)
		return error_set(call->e, "InvalidRequest",
				 "If-Match and If-None-Match exclude each other.");
	*ret = (struct store_condition){
	    .if_none = if_none_match != NULL,
	    .if_match = if_match ? etag_unquote(call->a, if_match) : NULL,
	};
	return 0;
}

/* Content-Encoding without aws-chunked, which is the framing of the request and none of the object.
 * NULL when nothing is left. */
static const char *own_encoding(struct arena *a, const char *text)
{
	char *save = NULL, *copy = arena_strdup(a, text);
	const char *kept = NULL;

	for (char *t = strtok_r(copy, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
		t += strspn(t, " \t");
		t[strcspn(t, " \t")] = '\0';
		if (*t && strcasecmp(t, "aws-chunked") != 0)
			kept = kept ? arena_printf(a, "%s,%s", kept, t) : t;
	}
	return kept;
}

static int check_metadata(struct s3_call *call, const struct wire_map *m)
{
	size_t size = 0;

	for (size_t i = 0; i < m->count; i++)
		size += strlen(m->items[i].key) + strlen(m->items[i].value);
	if (size > STORE_META_MAX)
		return error_set(call->e, "MetadataTooLarge",
				 "The user metadata has %zu bytes; %d are the limit.", size,
				 STORE_META_MAX);
	return 0;
}

int object_pairs(struct s3_call *call, const struct object_headers *h, const struct sums *sums,
		 struct store_pairs *ret)
{
	const char *encoding =
	    h->content_encoding ? own_encoding(call->a, h->content_encoding) : NULL;
	const struct store_pair content[] = {
	    {"cache-control", h->cache_control},
	    {"content-disposition", h->content_disposition},
	    {"content-encoding", encoding},
	    {"content-language", h->content_language},
	    {"content-type", h->content_type},
	    {"expires",
	     h->expires.set ? arena_printf(call->a, "%lld", (long long)h->expires.value) : NULL},
	};
	size_t count = 0, metadata = h->metadata->set ? h->metadata->count : 0;
	int r = check_metadata(call, h->metadata);

	if (r < 0)
		return r;
	struct store_pair *pairs = arena_new_array(call->a, struct store_pair,
						   ARRAY_SIZE(content) + metadata + SUM_COUNT + 1);

	for (size_t i = 0; i < ARRAY_SIZE(content); i++)
		if (content[i].value)
			pairs[count++] = content[i];
	for (size_t i = 0; i < metadata; i++)
		pairs[count++] = (struct store_pair){
		    arena_printf(call->a, PAIR_META "%s", h->metadata->items[i].key),
		    h->metadata->items[i].value,
		};
	sums_to_pairs(sums, pairs, &count);
	ret->items = pairs;
	ret->count = count;
	return 0;
}

static struct object_headers headers_of(const struct s3_put_object_request *in)
{
	return (struct object_headers){
	    .cache_control = in->cache_control,
	    .content_disposition = in->content_disposition,
	    .content_encoding = in->content_encoding,
	    .content_language = in->content_language,
	    .content_type = in->content_type,
	    .expires = in->expires,
	    .metadata = &in->metadata,
	};
}

static int digest_asked_for(struct s3_call *call, const char *algorithm, unsigned *digests)
{
	enum sum_algorithm s;

	if (!algorithm)
		return 0;
	s = sum_by_name(algorithm);
	if (s == SUM_COUNT)
		return error_set(
		    call->e, "InvalidRequest",
		    "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
		    "[CRC32, CRC32C, CRC64NVME, SHA1, SHA256]");
	*digests |= DIGEST_BIT(sum_descs[s].kind);
	return 0;
}

int s3_prepare_put_object(struct s3_call *call, const struct s3_put_object_request *in,
			  unsigned *digests)
{
	const struct object_headers h = headers_of(in);
	struct store_condition condition;
	struct store_bucket b;
	struct store_object o;
	struct store_pairs pairs;
	struct sums none = {0};
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0)
		r = object_pairs(call, &h, &none, &pairs);
	if (r >= 0)
		r = digest_asked_for(call, in->checksum_algorithm, digests);
	if (r >= 0)
		r = call_condition(call, in->if_match, in->if_none_match, &condition);
	/* Only the commit decides; this spares a client the upload that is bound to fail. */
	if (r >= 0 && condition.if_none &&
	    store_object_head(call->w->store, call->a, b.id, in->key, &o, NULL) >= 0)
		r = error_set(call->e, "PreconditionFailed",
			      "An object with this key is there already.");
	return r;
}

int s3_put_object(struct s3_call *call, const struct s3_put_object_request *in,
		  struct s3_put_object_output *out)
{
	const struct object_headers h = headers_of(in);
	struct store_put put = {.key = in->key};
	struct store_bucket b;
	struct store_object o;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner,
			    &b); /* again: the upload may have taken hours */

	put.bucket = b.id;
	if (r >= 0)
		r = object_pairs(call, &h, &call->sums, &put.pairs);
	if (r >= 0)
		r = call_condition(call, in->if_match, in->if_none_match, &put.condition);
	if (r >= 0)
		r = store_writer_commit(call->writer, call->a, &put, &o, call->e);
	if (r < 0)
		return r;
	out->e_tag = etag_quote(call->a, o.etag);
	SUMS_TO(&call->sums, out);
	out->checksum_type = call->sums.type;
	return 0;
}

int s3_delete_object(struct s3_call *call, const struct s3_delete_object_request *in,
		     struct s3_delete_object_output *out)
{
	struct store_bucket b;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0)
		r = call_check_version(call, in->version_id);
	if (r < 0)
		return r;
	if (in->if_match)
		return store_object_delete_if(call->w->store, b.id, in->key,
					      etag_unquote(call->a, in->if_match), call->e);
	return store_objects_delete(call->w->store, b.id, &in->key, 1, NULL, call->e);
}

/* Keys that can be deleted go to keys; the others become entries of the reply's errors. */
static size_t sort_out_keys(struct s3_call *call, const struct s3_object_identifier_list *list,
			    const char **keys, struct s3_errors *errors)
{
	size_t count = 0;

	errors->items = arena_new_array(call->a, struct s3_error, list->count);
	for (size_t i = 0; i < list->count; i++) {
		const struct s3_object_identifier *o = &list->items[i];

		if (!o->version_id || !*o->version_id || str_eq(o->version_id, "null")) {
			keys[count++] = o->key;
			continue;
		}
		errors->set = true;
		errors->items[errors->count++] = (struct s3_error){
		    .key = o->key,
		    .version_id = o->version_id,
		    .code = "NoSuchVersion",
		    .message = "The bucket is not versioned.",
		};
	}
	return count;
}

int s3_delete_objects(struct s3_call *call, const struct s3_delete_objects_request *in,
		      struct s3_delete_objects_output *out)
{
	const struct s3_object_identifier_list *list = &in->delete->objects;
	struct store_bucket b;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r < 0)
		return r;
	if (list->count == 0 || list->count > STORE_DELETE_MAX)
		return error_set(call->e, "MalformedXML",
				 "A request deletes 1 to %d objects, not %zu.", STORE_DELETE_MAX,
				 list->count);
	const char **keys = arena_new_array(call->a, const char *, list->count);
	size_t count = sort_out_keys(call, list, keys, &out->errors);

	r = store_objects_delete(call->w->store, b.id, keys, count, NULL, call->e);
	if (r < 0 || (in->delete->quiet.set && in->delete->quiet.value))
		return r;
	out->deleted.set = count > 0;
	out->deleted.count = count;
	out->deleted.items = arena_new_array(call->a, struct s3_deleted_object, count);
	for (size_t i = 0; i < count; i++)
		out->deleted.items[i].key = keys[i];
	return 0;
}
