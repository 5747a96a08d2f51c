/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "svc/walrus/target_priv.h"
#include "svc/walrus/walrus_priv.h"

/* Sub-resources that no bucket here has, and S3's answer to whoever asks for them. */
static const struct {
	const char *query, *code, *message;
} unconfigured[] = {
    {"cors", "NoSuchCORSConfiguration", "The CORS configuration does not exist"},
    {"encryption", "ServerSideEncryptionConfigurationNotFoundError",
     "The server side encryption configuration was not found"},
    {"lifecycle", "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"},
    {"object-lock", "ObjectLockConfigurationNotFoundError",
     "Object Lock configuration does not exist for this bucket"},
    {"ownershipControls", "OwnershipControlsNotFoundError",
     "The bucket ownership controls were not found"},
    {"policy", "NoSuchBucketPolicy", "The bucket policy does not exist"},
    {"policyStatus", "NoSuchBucketPolicy", "The bucket policy does not exist"},
    {"publicAccessBlock", "NoSuchPublicAccessBlockConfiguration",
     "The public access block configuration was not found"},
    {"replication", "ReplicationConfigurationNotFoundError",
     "The replication configuration was not found"},
    {"tagging", "NoSuchTagSet", "The TagSet does not exist"},
    {"website", "NoSuchWebsiteConfiguration",
     "The specified bucket does not have a website configuration"},
};

bool bucket_unconfigured(const char *method, const struct wire_params *query, struct error *e)
{
	if (!str_eq(method, "GET"))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(unconfigured); i++)
		if (wire_params_get(query, unconfigured[i].query)) {
			error_set(e, unconfigured[i].code, "%s", unconfigured[i].message);
			return true;
		}
	return false;
}

int call_bucket(struct s3_call *call, const char *name, const char *expected_owner,
		struct store_bucket *ret)
{
	struct store_bucket b;
	int r = store_bucket_get(call->w->store, call->a, name, &b, call->e);

	if (r < 0)
		return r;
	if (!str_eq(b.account, call->caller.account_id))
		return error_set(call->e, "AccessDenied", "The bucket belongs to another account.");
	if (expected_owner && !str_eq(b.account, expected_owner))
		return error_set(call->e, "AccessDenied",
				 "The bucket does not belong to the expected account.");
	*ret = b;
	return 0;
}

static bool is_us_east_1(const struct s3_call *call)
{
	return str_eq(call->w->region, "us-east-1");
}

int s3_create_bucket(struct s3_call *call, const struct s3_create_bucket_request *in,
		     struct s3_create_bucket_output *out)
{
	const struct s3_create_bucket_configuration *conf = in->create_bucket_configuration;
	const struct store_bucket b = {
	    .name = in->bucket,
	    .account = call->caller.account_id,
	    .owner = call->caller.canonical_id,
	};
	int r = bucket_name_check(in->bucket, call->e);

	if (r < 0)
		return r;
	if (conf && conf->location_constraint &&
	    !str_eq(conf->location_constraint, call->w->region))
		return error_set(call->e, "IllegalLocationConstraintException",
				 "The location constraint %.40s is not this cloud's region, %s.",
				 conf->location_constraint, call->w->region);
	r = store_bucket_create(call->w->store, &b, call->e);
	if (r < 0 && str_eq(call->e->code, "BucketAlreadyOwnedByYou") && is_us_east_1(call)) {
		error_clear(call->e); /* as Amazon's oldest region does */
		r = 0;
	}
	if (r >= 0)
		out->location = arena_printf(call->a, "/%s", in->bucket);
	return r;
}

int s3_head_bucket(struct s3_call *call, const struct s3_head_bucket_request *in)
{
	struct store_bucket b;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0)
		http_reply_header(call->http, "x-amz-bucket-region", call->w->region);
	return r;
}

int s3_delete_bucket(struct s3_call *call, const struct s3_delete_bucket_request *in)
{
	struct store_bucket b;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	return r < 0 ? r : store_bucket_delete(call->w->store, b.id, call->e);
}

int s3_get_bucket_location(struct s3_call *call, const struct s3_get_bucket_location_request *in,
			   struct s3_get_bucket_location_output *out)
{
	struct store_bucket b;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0) /* empty is how S3 spells its oldest region */
		out->location_constraint = is_us_east_1(call) ? "" : call->w->region;
	return r;
}

/* Whether a bucket is in the page: the token is the last name of the page before. */
static bool is_wanted(const struct s3_list_buckets_request *in, const char *name)
{
	if (in->prefix && !str_prefix(name, in->prefix))
		return false;
	return !in->continuation_token || strcmp(name, in->continuation_token) > 0;
}

int s3_list_buckets(struct s3_call *call, const struct s3_list_buckets_request *in,
		    struct s3_list_buckets_output *out)
{
	size_t count, max = in->max_buckets.set ? (size_t)in->max_buckets.value : SIZE_MAX;
	struct store_bucket *list;
	int r = store_bucket_list(call->w->store, call->a, call->caller.account_id, &list, &count,
				  call->e);

	if (r < 0)
		return r;
	out->prefix = in->prefix;
	out->owner = arena_new_struct(call->a, struct s3_owner);
	out->owner->id = call->caller.canonical_id;
	out->owner->display_name = call->caller.account_name;
	out->buckets.set = true;
	out->buckets.items = arena_new_array(call->a, struct s3_bucket, count);
	for (size_t i = 0; i < count; i++) {
		if (!is_wanted(in, list[i].name))
			continue;
		if (out->buckets.count == max) {
			out->continuation_token = out->buckets.items[max - 1].name;
			break;
		}
		out->buckets.items[out->buckets.count++] = (struct s3_bucket){
		    .name = list[i].name,
		    .creation_date = WIRE_TIME_OF(list[i].created_ms),
		};
	}
	return 0;
}
