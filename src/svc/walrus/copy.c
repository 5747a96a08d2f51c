/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "svc/walrus/conditions_priv.h"
#include "svc/walrus/range_priv.h"
#include "svc/walrus/target_priv.h"
#include "svc/walrus/walrus_priv.h"

/* CopyObject, which shares the data, and UploadPartCopy, which reads and writes it. */

#define COPY_PIECE (256u << 10)

struct source {
	struct target target;
	struct store_bucket bucket;
	struct store_object object;
	struct store_reader *reader;
};

/* x-amz-copy-source: [/]BUCKET/KEY[?versionId=ID], percent-encoded. */
static int parse_source(struct s3_call *call, const char *text, struct target *ret)
{
	static const char version[] = "?versionId=";
	const char *query = strstr(text, version);
	char *path = arena_strndup(call->a, text, query ? (size_t)(query - text) : strlen(text));
	int r = query ? call_check_version(call, query + sizeof(version) - 1) : 0;

	if (*path != '/')
		path = arena_printf(call->a, "/%s", path);
	if (r >= 0)
		r = target_parse(call->a, path, NULL, ret, call->e);
	if (r >= 0 && (!ret->bucket || !ret->key))
		r = error_set(
		    call->e, "InvalidArgument",
		    "Copy Source must mention the source bucket and key: sourcebucket/sourcekey");
	return r;
}

static int open_source(struct s3_call *call, const char *text, const char *expected_owner,
		       const struct conditions *c, struct source *ret)
{
	int r = parse_source(call, text, &ret->target);

	if (r >= 0)
		r = call_bucket(call, ret->target.bucket, expected_owner, &ret->bucket);
	if (r >= 0)
		r = store_object_open(call->w->store, call->a, ret->bucket.id, ret->target.key,
				      &ret->object, &ret->reader, call->e);
	if (r >= 0 && conditions_check(call->a, c, &ret->object) != CONDITIONS_HOLD)
		r = error_set(call->e, "PreconditionFailed",
			      "At least one of the pre-conditions you specified did not hold");
	return r;
}

/* The copy's pairs: the source's, or with REPLACE those of this request and the source's checksums.
 */
static int copied_pairs(struct s3_call *call, const struct s3_copy_object_request *in,
			const struct store_object *from, struct store_pairs *ret)
{
	const struct object_headers h = {
	    .cache_control = in->cache_control,
	    .content_disposition = in->content_disposition,
	    .content_encoding = in->content_encoding,
	    .content_language = in->content_language,
	    .content_type = in->content_type,
	    .expires = in->expires,
	    .metadata = &in->metadata,
	};
	struct sums sums;

	if (!in->metadata_directive || str_eq(in->metadata_directive, "COPY")) {
		*ret = from->pairs;
		return 0;
	}
	sums_from_pairs(&from->pairs, &sums);
	return object_pairs(call, &h, &sums, ret);
}

static int copy_from(struct s3_call *call, const struct s3_copy_object_request *in,
		     const struct store_bucket *b, const struct source *from,
		     struct s3_copy_object_output *out)
{
	struct store_copy copy = {
	    .from = from->reader,
	    .object = &from->object,
	    .to = {.bucket = b->id, .key = in->key},
	};
	struct store_object o;
	struct sums sums;
	bool replace = in->metadata_directive && str_eq(in->metadata_directive, "REPLACE");
	int r;

	if (from->bucket.id == b->id && str_eq(from->target.key, in->key) && !replace)
		return error_set(
		    call->e, "InvalidRequest",
		    "This copy request is illegal because it is trying to copy an object to itself without "
		    "changing its metadata.");
	r = call_condition(call, in->if_match, in->if_none_match, &copy.to.condition);
	if (r >= 0)
		r = copied_pairs(call, in, &from->object, &copy.to.pairs);
	if (r >= 0)
		r = store_object_copy(call->w->store, call->a, &copy, &o, call->e);
	if (r < 0)
		return r;
	struct s3_copy_object_result *result =
	    arena_new_struct(call->a, struct s3_copy_object_result);

	result->e_tag = etag_quote(call->a, o.etag);
	result->last_modified = WIRE_TIME_OF(o.modified_ms);
	sums_from_pairs(&copy.to.pairs, &sums);
	SUMS_TO(&sums, result);
	result->checksum_type = sums.type;
	out->copy_object_result = result;
	return 0;
}

int s3_copy_object(struct s3_call *call, const struct s3_copy_object_request *in,
		   struct s3_copy_object_output *out)
{
	const struct conditions c = {in->copy_source_if_match, in->copy_source_if_none_match,
				     in->copy_source_if_modified_since,
				     in->copy_source_if_unmodified_since};
	struct source from = {0};
	struct store_bucket b;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0)
		r = open_source(call, in->copy_source, in->expected_source_bucket_owner, &c, &from);
	if (r >= 0)
		r = copy_from(call, in, &b, &from, out);
	store_reader_free(from.reader);
	return r;
}

/* Reads [off, off + len) into call->writer. */
static int copy_bytes(struct s3_call *call, struct store_reader *reader, uint64_t off, uint64_t len)
{
	_cleanup_(freep) char *piece = malloc(COPY_PIECE);
	uint64_t end = off + len;
	int r = 0;

	if (!piece)
		abort();
	while (off < end && r >= 0) {
		ssize_t n = store_reader_read(reader, off, piece,
					      (size_t)MIN_OF((uint64_t)COPY_PIECE, end - off));

		if (n <= 0)
			return error_errno(call->e, n < 0 ? (int)n : -EIO,
					   "reading the source of the copy");
		r = store_writer_write(call->writer, piece, (size_t)n, call->e);
		off += (uint64_t)n;
	}
	return r;
}

/* Both ends must be told and lie within the source: a shorter part than was asked for would make a
 * wrong object of the parts. */
static int source_range(struct s3_call *call, const char *range, const struct store_object *o,
			uint64_t *ret_off, uint64_t *ret_len)
{
	*ret_off = 0;
	*ret_len = o->size;
	if (!range)
		return 0;
	int r = range_parse(range, o->size, ret_off, ret_len, call->e);
	unsigned long long first = *ret_off, last = *ret_off + *ret_len - 1;

	if (r >= 0 && !str_eq(range, arena_printf(call->a, "bytes=%llu-%llu", first, last)))
		return error_set(
		    call->e, "InvalidArgument",
		    "The x-amz-copy-source-range must be bytes=FIRST-LAST, offsets in the source, which has %llu bytes.",
		    (unsigned long long)o->size);
	return r < 0 ? r : 0;
}

int s3_upload_part_copy(struct s3_call *call, const struct s3_upload_part_copy_request *in,
			struct s3_upload_part_copy_output *out)
{
	const struct conditions c = {in->copy_source_if_match, in->copy_source_if_none_match,
				     in->copy_source_if_modified_since,
				     in->copy_source_if_unmodified_since};
	struct source from = {0};
	struct store_part part;
	struct store_bucket b;
	uint64_t off, len;
	unsigned digests = 0;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0)
		r = part_digest(call, &b, in->key, in->upload_id, &digests);
	if (r >= 0)
		r = open_source(call, in->copy_source, in->expected_source_bucket_owner, &c, &from);
	if (r >= 0)
		r = source_range(call, in->copy_source_range, &from.object, &off, &len);
	if (r >= 0)
		r = store_writer_new(call->w->store, len, digests, &call->writer, call->e);
	if (r >= 0)
		r = copy_bytes(call, from.reader, off, len);
	if (r >= 0)
		r = part_commit(call, &b, in->key, in->upload_id, (int)in->part_number.value,
				&part);
	store_reader_free(from.reader);
	if (r < 0)
		return r;
	out->copy_part_result = arena_new_struct(call->a, struct s3_copy_part_result);
	out->copy_part_result->e_tag = etag_quote(call->a, part.etag);
	out->copy_part_result->last_modified = WIRE_TIME_OF(part.modified_ms);
	SUMS_TO(&call->sums, out->copy_part_result);
	return 0;
}
