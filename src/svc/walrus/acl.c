/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/walrus/walrus_priv.h"

/* What is fixed of every bucket and object: its owner has full control, and nobody else anything;
 * there are no versions. */

static struct s3_grants owner_grants(struct s3_call *call, const struct s3_owner *owner)
{
	struct s3_grant *grant = arena_new_struct(call->a, struct s3_grant);

	grant->permission = "FULL_CONTROL";
	grant->grantee = arena_new_struct(call->a, struct s3_grantee);
	grant->grantee->type = "CanonicalUser";
	grant->grantee->id = owner->id;
	grant->grantee->display_name = owner->display_name;
	return (struct s3_grants){.set = true, .count = 1, .items = grant};
}

static struct s3_owner *owner_of(struct s3_call *call, const struct store_bucket *b)
{
	struct s3_owner *owner = arena_new_struct(call->a, struct s3_owner);

	owner->id = b->owner;
	owner->display_name = call->caller.account_name;
	return owner;
}

int s3_get_bucket_acl(struct s3_call *call, const struct s3_get_bucket_acl_request *in,
		      struct s3_get_bucket_acl_output *out)
{
	struct store_bucket b;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r < 0)
		return r;
	out->owner = owner_of(call, &b);
	out->grants = owner_grants(call, out->owner);
	return 0;
}

int s3_get_object_acl(struct s3_call *call, const struct s3_get_object_acl_request *in,
		      struct s3_get_object_acl_output *out)
{
	struct store_bucket b;
	struct store_object o;
	int r = call_bucket(call, in->bucket, in->expected_bucket_owner, &b);

	if (r >= 0)
		r = call_check_version(call, in->version_id);
	if (r >= 0)
		r = store_object_head(call->w->store, call->a, b.id, in->key, &o, call->e);
	if (r < 0)
		return r;
	out->owner = owner_of(call, &b);
	out->grants = owner_grants(call, out->owner);
	return 0;
}

int s3_get_bucket_versioning(struct s3_call *call,
			     const struct s3_get_bucket_versioning_request *in,
			     struct s3_get_bucket_versioning_output *out)
{
	struct store_bucket b;

	return call_bucket(call, in->bucket, in->expected_bucket_owner,
			   &b); /* no Status: never enabled */
}
