/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/ebs_encryption.h"
#include "svc/clc/volumes.h"

static const char *const taggable[] = {"volume", NULL};

static int check_zone(struct ec2_call *call, const char *zone)
{
	if (!zone || !*zone)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter zone");
	if (!str_eq(zone, call->clc->zone))
		return ec2_error(call, "InvalidZone.NotFound", "The zone '%.64s' does not exist.",
				 zone);
	return 0;
}

/* A number that is there must be one that means something. */
static int check_positive(struct ec2_call *call, const struct wire_int *n, const char *name)
{
	if (n->set && n->value < 1)
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%lld) for parameter %s is invalid. It must be positive.",
				 (long long)n->value, name);
	return 0;
}

static int check(struct ec2_call *call, const struct ec2_create_volume_request *in)
{
	int r = check_zone(call, in->availability_zone);

	if (r >= 0)
		r = check_positive(call, &in->size, "size");
	if (r >= 0)
		r = check_positive(call, &in->iops, "iops");
	if (r >= 0)
		r = check_positive(call, &in->throughput, "throughput");
	if (r >= 0)
		r = encryption_check_key(call, in->kms_key_id, &in->encrypted);
	if (r >= 0 && in->multi_attach_enabled.value)
		return ec2_error(call, "UnsupportedOperation",
				 "A volume is attached to one instance at a time here: "
				 "MultiAttachEnabled cannot be true");
	return r;
}

static int digest_of(struct ec2_call *call, const struct ec2_create_volume_request *in,
		     const char **ret)
{
	struct ec2_create_volume_request same = *in;

	same.client_token = NULL;
	same.dry_run = (struct wire_bool){0};
	return ec2_request_digest(call, &ec2_shape_create_volume_request, &same, ret);
}

/* A token that was used: 1 and its volume, or IdempotentParameterMismatch. 0: it was not used, or
 * none was given. */
static int made_before(struct ec2_call *call, const char *token, const char *digest,
		       struct records_volume **ret)
{
	struct record rec;

	if (!token)
		return 0;
	int r = record_get_by_name(call->clc, call->arena, KIND_VOLUME, call->account_id, token,
				   &rec, &call->error);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	*ret = rec.value;
	if (!str_eq((*ret)->request_sha256, digest))
		return ec2_error(call, "IdempotentParameterMismatch",
				 "The token '%.64s' was used before with other parameters", token);
	return 1;
}

static int make(struct ec2_call *call, const struct ec2_create_volume_request *in,
		const char *digest, struct records_volume **ret)
{
	const struct volume_wish wish = {
	    .volume_type = in->volume_type,
	    .snapshot_id = in->snapshot_id,
	    .size_gib = in->size.value,
	    .iops = in->iops.value,
	    .mib_per_s = in->throughput.value,
	    .encrypted = in->encrypted.value,
	    .kms_key_id = in->kms_key_id,
	};
	struct shared_tag_list tags;
	int r = ec2_tags_from_specs(call, &in->tag_specifications, taggable, "volume", &tags);

	if (r >= 0)
		r = volume_plan(call, &wish, ret);
	if (r < 0)
		return r;
	(*ret)->client_token = in->client_token;
	(*ret)->request_sha256 = in->client_token ? digest : NULL;
	r = volume_put(call, *ret, true);
	if (r >= 0 && tags.count)
		r = tags_put(call, "volume", (*ret)->volume_id, &tags);
	return r;
}

/* What has it meanwhile, if it was made by an earlier request; NULL: nothing. */
static int find_instance(struct ec2_call *call, const struct records_volume *v,
			 const struct records_instance **ret)
{
	struct record rec;

	if (!v->instance_id)
		return 0;
	int r = record_get(call->clc, call->arena, KIND_INSTANCE, v->instance_id, &rec, &call->error);
	if (r >= 0)
		*ret = rec.value;
	return r == -ENOENT ? 0 : r;
}

int ec2_create_volume(struct ec2_call *call, const struct ec2_create_volume_request *in,
		      struct ec2_volume *out)
{
	const struct records_instance *instance = NULL;
	struct records_volume *v = NULL;
	struct shared_tag_list tags;
	const char *digest = NULL;
	int r = check(call, in);

	if (r >= 0)
		r = digest_of(call, in, &digest);
	if (r >= 0)
		r = ec2_begin(call);
	if (r >= 0)
		r = made_before(call, in->client_token, digest, &v);
	if (r == 0)
		r = make(call, in, digest, &v);
	if (r >= 0)
		r = tags_get(call->clc, call->arena, v->volume_id, &tags, &call->error);
	if (r >= 0)
		r = find_instance(call, v, &instance);
	if (r >= 0)
		r = ec2_commit(call);
	if (r >= 0)
		*out = volume_to_reply(call, v, instance, tags_to_reply(call->arena, &tags));
	return r;
}
