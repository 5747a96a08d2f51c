/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "svc/walrus/walrus_priv.h"

/* Multipart uploads. Kept with an upload besides the object's own pairs: */
#define PAIR_ALGORITHM "upload-algorithm" /* CRC32, … */
#define PAIR_SUM_TYPE "upload-type"	  /* COMPOSITE, FULL_OBJECT */

static bool is_crc(enum sum_algorithm s)
{
	return s == SUM_CRC32 || s == SUM_CRC32C || s == SUM_CRC64NVME;
}

/* Algorithm and type of the object's checksum, checked against each other. SUM_COUNT: none. */
static int choose_sum(struct s3_call *call, const char *algorithm, const char *type,
		      enum sum_algorithm *ret, const char **ret_type)
{
	enum sum_algorithm s = algorithm ? sum_by_name(algorithm) : SUM_COUNT;

	if (algorithm && s == SUM_COUNT)
		return error_set(call->e, "InvalidRequest",
				 "The checksum algorithm %.30s is not supported.", algorithm);
	if (type && !algorithm)
		return error_set(
		    call->e, "InvalidRequest",
		    "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.");
	if (type && !str_eq(type, "COMPOSITE") && !str_eq(type, "FULL_OBJECT"))
		return error_set(call->e, "InvalidRequest",
				 "Value for x-amz-checksum-type header is invalid.");
	if (type && ((str_eq(type, "FULL_OBJECT") && !is_crc(s)) ||
		     (str_eq(type, "COMPOSITE") && s == SUM_CRC64NVME)))
		return error_set(
		    call->e, "InvalidRequest",
		    "The %s checksum type cannot be used with the %s checksum algorithm.", type,
		    sum_descs[s].name);
	*ret = s;
	*ret_type = type ? type : s == SUM_CRC64NVME ? "FULL_OBJECT" : "COMPOSITE";
	return 0;
}

static enum sum_algorithm sum_of_upload(const struct store_upload *up)
{
	const char *name = store_pairs_get(&up->pairs, PAIR_ALGORITHM);

	return name ? sum_by_name(name) : SUM_COUNT;
}

int s3_create_multipart_upload(struct s3_call *call,
			       const struct s3_create_multipart_upload_request *in,
			       struct s3_create_multipart_upload_output *out)
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
	const struct sums none = {0};
	char *id = arena_alloc(call->a, STORE_UPLOAD_ID_LEN);
	enum sum_algorithm s = SUM_COUNT;
	struct store_pairs object;
	struct store_bucket b;
	const char *type;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0)
		r = choose_sum(call, in->checksum_algorithm, in->checksum_type, &s, &type);
	if (r >= 0)
		r = object_pairs(call, &h, &none, &object);
	if (r < 0)
		return r;
	struct store_pair *pairs = arena_new_array(call->a, struct store_pair, object.count + 2);
	struct store_pairs all = {.items = pairs, .count = object.count};

	if (object.count)
		memcpy(pairs, object.items, object.count * sizeof(*pairs));
	if (s != SUM_COUNT) {
		pairs[all.count++] = (struct store_pair){PAIR_ALGORITHM, sum_descs[s].name};
		pairs[all.count++] = (struct store_pair){PAIR_SUM_TYPE, type};
		out->checksum_algorithm = sum_descs[s].name;
		out->checksum_type = type;
	}
	r = store_upload_create(call->w->store, b.id, in->key, &all, id, call->e);
	out->bucket = in->bucket;
	out->key = in->key;
	out->upload_id = id;
	return r;
}

static int find_sum(struct s3_call *call, const struct store_bucket *b, const char *key,
		    const char *upload, enum sum_algorithm *ret)
{
	struct store_upload up;
	int r = store_upload_get(call->w->store, call->a, b->id, key, upload, &up, call->e);

	if (r >= 0)
		*ret = sum_of_upload(&up);
	return r;
}

int part_digest(struct s3_call *call, const struct store_bucket *b, const char *key,
		const char *upload, unsigned *digests)
{
	enum sum_algorithm s;
	int r = find_sum(call, b, key, upload, &s);

	if (r >= 0 && s != SUM_COUNT)
		*digests |= DIGEST_BIT(sum_descs[s].kind);
	return r;
}

int part_commit(struct s3_call *call, const struct store_bucket *b, const char *key,
		const char *upload, int number, struct store_part *ret)
{
	struct store_pair items[SUM_COUNT + 1];
	struct store_pairs pairs = {.items = items};
	enum sum_algorithm s;
	int r = find_sum(call, b, key, upload, &s);

	if (r < 0)
		return r;
	if (s != SUM_COUNT && !call->sums.value[s]) {
		unsigned char bytes[DIGEST_MAX];

		store_writer_digest(call->writer, sum_descs[s].kind, bytes);
		call->sums.value[s] = sum_encode(call->a, s, bytes);
	}
	sums_to_pairs(&call->sums, items, &pairs.count);
	return store_writer_commit_part(call->writer, call->a, b->id, key, upload, number, &pairs,
					ret, call->e);
}

int s3_prepare_upload_part(struct s3_call *call, const struct s3_upload_part_request *in,
			   unsigned *digests)
{
	const struct sums told = SUMS_OF(in);
	enum sum_algorithm s;
	struct store_bucket b;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0)
		r = find_sum(call, &b, in->key, in->upload_id, &s);
	if (r >= 0 && s != SUM_COUNT && sums_any(&told) && !told.value[s])
		return error_set(call->e, "InvalidRequest",
				 "The upload's checksums are %s, and the part's is another.",
				 sum_descs[s].name);
	return r < 0 ? r : part_digest(call, &b, in->key, in->upload_id, digests);
}

int s3_upload_part(struct s3_call *call, const struct s3_upload_part_request *in,
		   struct s3_upload_part_output *out)
{
	struct store_bucket b;
	struct store_part part;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0)
		r = part_commit(call, &b, in->key, in->upload_id, (int)in->part_number.value,
				&part);
	if (r < 0)
		return r;
	out->e_tag = etag_quote(call->a, part.etag);
	SUMS_TO(&call->sums, out);
	return 0;
}

int s3_abort_multipart_upload(struct s3_call *call,
			      const struct s3_abort_multipart_upload_request *in,
			      struct s3_abort_multipart_upload_output *out)
{
	struct store_bucket b;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	return r < 0 ? r
		     : store_upload_abort(call->w->store, b.id, in->key, in->upload_id, call->e);
}

static struct s3_parts parts_of(struct s3_call *call, const struct store_part *parts, size_t count)
{
	struct s3_parts list = {.set = count > 0, .count = count};

	list.items = arena_new_array(call->a, struct s3_part, count);
	for (size_t i = 0; i < count; i++) {
		struct sums sums;

		sums_from_pairs(&parts[i].pairs, &sums);
		list.items[i] = (struct s3_part){
		    .part_number = WIRE_INT_OF(parts[i].number),
		    .last_modified = WIRE_TIME_OF(parts[i].modified_ms),
		    .e_tag = etag_quote(call->a, parts[i].etag),
		    .size = WIRE_INT_OF((int64_t)parts[i].size),
		};
		SUMS_TO(&sums, &list.items[i]);
	}
	return list;
}

int s3_list_parts(struct s3_call *call, const struct s3_list_parts_request *in,
		  struct s3_list_parts_output *out)
{
	int64_t after = in->part_number_marker.set ? in->part_number_marker.value : 0;
	int64_t max = in->max_parts.set ? in->max_parts.value : STORE_LIST_MAX;
	struct store_part *parts = NULL;
	struct store_upload up;
	struct store_bucket b;
	size_t count = 0;
	bool truncated = false;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0 && (after < 0 || after > INT32_MAX || max < 0 || max > INT32_MAX))
		r = error_set(call->e, "InvalidArgument",
			      "part-number-marker and max-parts must be between 0 and 2147483647.");
	max = MIN_OF(max, (int64_t)STORE_LIST_MAX);
	if (r >= 0)
		r = store_upload_get(call->w->store, call->a, b.id, in->key, in->upload_id, &up,
				     call->e);
	if (r >= 0 && max > 0)
		r = store_part_list(call->w->store, call->a, b.id, in->key, in->upload_id,
				    (int)after, (int)max, &parts, &count, &truncated, call->e);
	if (r < 0)
		return r;
	*out = (struct s3_list_parts_output){
	    .bucket = in->bucket,
	    .key = in->key,
	    .upload_id = in->upload_id,
	    .part_number_marker = WIRE_INT_OF(after),
	    .max_parts = WIRE_INT_OF(max),
	    .is_truncated = WIRE_BOOL_OF(truncated),
	    .parts = parts_of(call, parts, count),
	    .initiator = arena_new_struct(call->a, struct s3_initiator),
	    .owner = arena_new_struct(call->a, struct s3_owner),
	    .storage_class = "STANDARD",
	    .checksum_algorithm = store_pairs_get(&up.pairs, PAIR_ALGORITHM),
	    .checksum_type = store_pairs_get(&up.pairs, PAIR_SUM_TYPE),
	};
	if (count > 0)
		out->next_part_number_marker = WIRE_INT_OF(parts[count - 1].number);
	out->initiator->id = out->owner->id = call->caller.canonical_id;
	out->initiator->display_name = out->owner->display_name = call->caller.account_name;
	return 0;
}

/* --- completion --- */

struct completion {
	const struct store_upload *up;
	const struct store_part *parts; /* all that were uploaded, by number */
	size_t part_count;
	struct store_part_ref *refs; /* the client's list */
	const struct store_part **chosen;
	size_t count;
	uint64_t size;
};

static const struct store_part *find_part(const struct completion *c, int64_t number)
{
	size_t low = 0, high = c->part_count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (c->parts[mid].number < number)
			low = mid + 1;
		else
			high = mid;
	}
	return low < c->part_count && c->parts[low].number == number ? &c->parts[low] : NULL;
}

/* The client may repeat each part's checksum. */
static int check_part_sums(struct s3_call *call, const struct s3_completed_part *p,
			   const struct store_part *part)
{
	const struct sums told = SUMS_OF(p);
	struct sums kept;

	sums_from_pairs(&part->pairs, &kept);
	for (int s = 0; s < SUM_COUNT; s++)
		if (told.value[s] && !str_eq(told.value[s], kept.value[s]))
			return error_set(
			    call->e, "InvalidPart",
			    "The %s of part %d is not the one that it was uploaded with.",
			    sum_descs[s].name, part->number);
	return 0;
}

static int read_parts(struct s3_call *call, const struct s3_completed_part_list *list,
		      struct completion *c)
{
	c->count = list->count;
	c->refs = arena_new_array(call->a, struct store_part_ref, list->count);
	c->chosen = arena_new_array(call->a, const struct store_part *, list->count);
	for (size_t i = 0; i < list->count; i++) {
		const struct s3_completed_part *p = &list->items[i];

		if (!p->part_number.set || !p->e_tag)
			return error_set(call->e, "MalformedXML",
					 "Every part of the list needs a PartNumber and an ETag.");
		if (p->part_number.value < 1 || p->part_number.value > STORE_PART_NUMBER_MAX)
			return error_set(call->e, "InvalidPart",
					 "There is no part %lld: part numbers go from 1 to %d.",
					 (long long)p->part_number.value, STORE_PART_NUMBER_MAX);
		c->refs[i] = (struct store_part_ref){(int)p->part_number.value,
						     etag_unquote(call->a, p->e_tag)};
		c->chosen[i] = find_part(c, p->part_number.value);
		if (!c->chosen[i])
			continue; /* the engine refuses it, or the upload was completed before */
		c->size += c->chosen[i]->size;
		int r = check_part_sums(call, p, c->chosen[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

/* The object's checksum out of its parts'. False when a part has none. */
static bool combine_sums(struct s3_call *call, const struct completion *c, enum sum_algorithm s,
			 bool full, const char **ret)
{
	_cleanup_(digest_set_freep) struct digest_set *set =
	    digest_set_new(DIGEST_BIT(sum_descs[s].kind));
	unsigned char total[DIGEST_MAX], bytes[DIGEST_MAX];

	for (size_t i = 0; i < c->count; i++) {
		struct sums kept = {0};

		if (c->chosen[i])
			sums_from_pairs(&c->chosen[i]->pairs, &kept);
		if (!kept.value[s] || !sum_decode(call->a, s, kept.value[s], bytes))
			return false;
		if (!full)
			digest_set_update(set, bytes, digest_len(sum_descs[s].kind));
		else if (i == 0)
			memcpy(total, bytes, sizeof(total));
		else
			digest_crc_combine(sum_descs[s].kind, total, bytes, c->chosen[i]->size,
					   total);
	}
	if (c->count == 0)
		return false;
	if (!full)
		digest_set_get(set, sum_descs[s].kind, total);
	*ret = sum_encode(call->a, s, total);
	if (!full)
		*ret = arena_printf(call->a, "%s-%zu", *ret, c->count);
	return true;
}

/* The checksum of the whole, and its comparison with what the client expects. */
static int finish_sums(struct s3_call *call, const struct s3_complete_multipart_upload_request *in,
		       const struct completion *c, struct sums *ret)
{
	const struct sums told = SUMS_OF(in);
	enum sum_algorithm s = sum_of_upload(c->up);

	*ret = (struct sums){0};
	if (s != SUM_COUNT) {
		ret->type = store_pairs_get(&c->up->pairs, PAIR_SUM_TYPE);
		if (in->checksum_type && !str_eq(in->checksum_type, ret->type))
			return error_set(call->e, "InvalidRequest",
					 "The upload's checksum type is %s.", ret->type);
		combine_sums(call, c, s, str_eq(ret->type, "FULL_OBJECT"), &ret->value[s]);
	}
	for (int i = 0; i < SUM_COUNT; i++) {
		size_t len = ret->value[i] ? strcspn(ret->value[i], "-") : 0;

		if (!told.value[i] || str_eq(told.value[i], ret->value[i]))
			continue;
		/* Composite ones are sent with and without the number of parts. */
		if (ret->value[i] && strlen(told.value[i]) == len &&
		    strncmp(told.value[i], ret->value[i], len) == 0)
			continue;
		return error_set(call->e, "BadDigest",
				 "The %s you specified did not match the calculated checksum.",
				 sum_descs[i].name);
	}
	return 0;
}

/* The object's pairs: the upload's without what is only the upload's, and the checksum. */
static struct store_pairs final_pairs(struct s3_call *call, const struct store_upload *up,
				      const struct sums *sums)
{
	struct store_pair *items =
	    arena_new_array(call->a, struct store_pair, up->pairs.count + SUM_COUNT + 1);
	size_t count = 0;

	for (size_t i = 0; i < up->pairs.count; i++)
		if (!str_eq(up->pairs.items[i].name, PAIR_ALGORITHM) &&
		    !str_eq(up->pairs.items[i].name, PAIR_SUM_TYPE))
			items[count++] = up->pairs.items[i];
	sums_to_pairs(sums, items, &count);
	return (struct store_pairs){.items = items, .count = count};
}

/* The upload and its parts. One that is gone may have been completed by a request whose reply was
 * lost: the engine knows. */
static int find_upload(struct s3_call *call, const struct store_bucket *b,
		       const struct s3_complete_multipart_upload_request *in,
		       struct store_upload *up, struct completion *c)
{
	struct store_part *parts = NULL;
	struct error e = {0};
	int r = store_upload_get(call->w->store, call->a, b->id, in->key, in->upload_id, up, &e);

	if (r >= 0)
		r = store_part_list(call->w->store, call->a, b->id, in->key, in->upload_id, 0, 0,
				    &parts, &c->part_count, NULL, &e);
	if (r < 0 && !str_eq(e.code, "NoSuchUpload"))
		return error_set(call->e, e.code, "%s", e.message);
	c->parts = parts;
	return 0;
}

int s3_complete_multipart_upload(struct s3_call *call,
				 const struct s3_complete_multipart_upload_request *in,
				 struct s3_complete_multipart_upload_output *out)
{
	struct store_upload up = {0};
	struct completion c = {.up = &up};
	struct store_complete done = {.key = in->key, .upload = in->upload_id};
	struct store_bucket b;
	struct store_object o;
	struct sums sums;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0 && (!in->multipart_upload || in->multipart_upload->parts.count == 0))
		r = error_set(call->e, "MalformedXML",
			      "The request must list the parts of the object.");
	if (r >= 0)
		r = call_condition(call, in->if_match, in->if_none_match, &done.condition);
	if (r >= 0)
		r = find_upload(call, &b, in, &up, &c);
	if (r >= 0)
		r = read_parts(call, &in->multipart_upload->parts, &c);
	if (r >= 0 && up.id)
		r = finish_sums(call, in, &c, &sums);
	if (r >= 0 && up.id && in->mpu_object_size.set &&
	    (uint64_t)in->mpu_object_size.value != c.size)
		r = error_set(call->e, "InvalidRequest",
			      "The parts together have %llu bytes, not %lld.",
			      (unsigned long long)c.size, (long long)in->mpu_object_size.value);
	if (r < 0)
		return r;
	done.bucket = b.id;
	done.parts = c.refs;
	done.part_count = c.count;
	if (up.id)
		done.pairs = final_pairs(call, &up, &sums);
	r = store_upload_complete(call->w->store, call->a, &done, &o, call->e);
	if (r < 0)
		return r;
	sums_from_pairs(&o.pairs, &sums);
	out->location = arena_printf(call->a, "/%s/%s", in->bucket,
				     uri_encode(call->a, in->key, strlen(in->key), true));
	out->bucket = in->bucket;
	out->key = in->key;
	out->e_tag = etag_quote(call->a, o.etag);
	SUMS_TO(&sums, out);
	out->checksum_type = sums.type;
	return 0;
}
