/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/sharing.h"
#include "svc/clc/volumes.h"

/* Who may make volumes of a snapshot. */

#define PERMISSION "createVolumePermission"

static int check_attribute(struct ec2_call *call, const char *attribute)
{
	if (attribute && !str_eq(attribute, PERMISSION))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.60s) for parameter attribute is invalid: " PERMISSION,
				 attribute);
	return 0;
}

static struct sharing_list permissions_of(struct arena *a,
					  const struct ec2_create_volume_permission_list *l)
{
	struct sharing_list to = {.items = arena_new_array(a, struct sharing_permission, l->count)};

	for (; to.count < l->count; to.count++)
		to.items[to.count] = (struct sharing_permission){
		    .group = l->items[to.count].group, .user_id = l->items[to.count].user_id};
	return to;
}

static int change_permissions(struct ec2_call *call, struct records_snapshot *s,
			      const struct ec2_modify_snapshot_attribute_request *in)
{
	struct sharing_request q = {.parameter = "CreateVolumePermission",
				    .bad_user_code = "InvalidParameterValue",
				    .one_way = true,
				    .operation_type = in->operation_type,
				    .user_ids = &in->user_ids,
				    .groups = &in->group_names};

	if (in->create_volume_permission) {
		q.add = permissions_of(call->arena, &in->create_volume_permission->add);
		q.remove = permissions_of(call->arena, &in->create_volume_permission->remove);
	}
	int r = sharing_read(call, &q);
	if (r < 0)
		return r;
	if (q.add.count && s->encrypted.value)
		return ec2_error(call, "OperationNotPermitted",
				 "Encrypted snapshots with EBS default key cannot be shared");
	sharing_apply(call->arena, &q, &s->public, &s->create_volume_user_ids);
	if (s->create_volume_user_ids.count > LIMIT_SHARED_USERS)
		return ec2_error(call, "ResourceLimitExceeded",
				 "A snapshot is shared with at most %d accounts",
				 LIMIT_SHARED_USERS);
	return 0;
}

int ec2_modify_snapshot_attribute(struct ec2_call *call,
				  const struct ec2_modify_snapshot_attribute_request *in)
{
	struct records_snapshot *s = NULL;
	int r = check_attribute(call, in->attribute);

	if (r >= 0)
		r = ec2_begin(call);
	if (r >= 0)
		r = ec2_snapshot_get(call, in->snapshot_id, true, &s);
	if (r >= 0)
		r = change_permissions(call, s, in);
	if (r >= 0)
		r = snapshot_put(call, s, false);
	return r < 0 ? r : ec2_commit(call);
}

int ec2_reset_snapshot_attribute(struct ec2_call *call,
				 const struct ec2_reset_snapshot_attribute_request *in)
{
	struct records_snapshot *s = NULL;
	int r = check_attribute(call, in->attribute);

	if (r >= 0)
		r = ec2_begin(call);
	if (r >= 0)
		r = ec2_snapshot_get(call, in->snapshot_id, true, &s);
	if (r < 0)
		return r;
	s->public = WIRE_BOOL_OF(false);
	s->create_volume_user_ids.count = 0;
	r = snapshot_put(call, s, false);
	return r < 0 ? r : ec2_commit(call);
}

int ec2_describe_snapshot_attribute(struct ec2_call *call,
				    const struct ec2_describe_snapshot_attribute_request *in,
				    struct ec2_describe_snapshot_attribute_result *out)
{
	struct records_snapshot *s = NULL;
	int r = ec2_snapshot_get(call, in->snapshot_id, true, &s);

	if (r < 0)
		return r;
	out->snapshot_id = s->snapshot_id;
	if (str_eq(in->attribute, "productCodes")) {
		out->product_codes.set = true;
		return 0;
	}
	r = check_attribute(call, in->attribute);
	if (r < 0)
		return r;
	struct ec2_create_volume_permission_list *l = &out->create_volume_permissions;
	l->set = true;
	l->items = arena_new_array(call->arena, struct ec2_create_volume_permission,
				   s->create_volume_user_ids.count + 1);
	if (s->public.value)
		l->items[l->count++].group = "all";
	for (size_t i = 0; i < s->create_volume_user_ids.count; i++)
		l->items[l->count++].user_id = s->create_volume_user_ids.items[i];
	return 0;
}
