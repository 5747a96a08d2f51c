/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/volumes.h"

/* Who may make volumes of a snapshot: its owner, all ("Group=all"), or accounts by id. */

#define PERMISSION "createVolumePermission"

static int check_attribute(struct ec2_call *call, const char *attribute)
{
	if (attribute && !str_eq(attribute, PERMISSION))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.60s) for parameter attribute is invalid: " PERMISSION,
				 attribute);
	return 0;
}

static int check_group(struct ec2_call *call, const char *group)
{
	if (!str_eq(group, "all"))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.60s) for parameter group is invalid: all", group);
	return 0;
}

static int check_user(struct ec2_call *call, const char *id)
{
	if (strlen(id) != 12 || strspn(id, "0123456789") != 12)
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.60s) for parameter userId is invalid: an account's id "
				 "has 12 digits",
				 id);
	return 0;
}

static void add_user(struct arena *a, struct wire_string_list *users, const char *id)
{
	const char **items = arena_new_array(a, const char *, users->count + 1);

	if (list_has(users, id))
		return;
	if (users->count)
		memcpy(items, users->items, users->count * sizeof(items[0]));
	items[users->count] = id;
	*users = (struct wire_string_list){.set = true, .count = users->count + 1, .items = items};
}

static void remove_user(struct wire_string_list *users, const char *id)
{
	size_t kept = 0;

	for (size_t i = 0; i < users->count; i++)
		if (!str_eq(users->items[i], id))
			users->items[kept++] = users->items[i];
	users->count = kept;
}

/* One permission more or less: of a group or of an account. */
static int change(struct ec2_call *call, struct records_snapshot *s, bool add, const char *group,
		  const char *user)
{
	int r;

	if (!group == !user)
		return ec2_error(call, "InvalidParameterCombination",
				 "A permission names either a Group or a UserId");
	r = group ? check_group(call, group) : check_user(call, user);
	if (r >= 0 && add && s->encrypted.value)
		return ec2_error(call, "OperationNotPermitted",
				 "Encrypted snapshots with EBS default key cannot be shared");
	if (r < 0)
		return r;
	if (group)
		s->public = WIRE_BOOL_OF(add);
	else if (add)
		add_user(call->arena, &s->create_volume_user_ids, user);
	else
		remove_user(&s->create_volume_user_ids, user);
	return 0;
}

static int change_list(struct ec2_call *call, struct records_snapshot *s, bool add,
		       const struct ec2_create_volume_permission_list *l)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < l->count; i++)
		r = change(call, s, add, l->items[i].group, l->items[i].user_id);
	return r;
}

/* The older form: OperationType with UserIds and GroupNames. */
static int change_flat(struct ec2_call *call, struct records_snapshot *s,
		       const struct ec2_modify_snapshot_attribute_request *in)
{
	bool add = str_eq(in->operation_type, "add");
	int r = 0;

	if (!in->operation_type)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter operationType");
	for (size_t i = 0; r >= 0 && i < in->user_ids.count; i++)
		r = change(call, s, add, NULL, in->user_ids.items[i]);
	for (size_t i = 0; r >= 0 && i < in->group_names.count; i++)
		r = change(call, s, add, in->group_names.items[i], NULL);
	return r;
}

static int change_all(struct ec2_call *call, struct records_snapshot *s,
		      const struct ec2_modify_snapshot_attribute_request *in)
{
	const struct ec2_create_volume_permission_modifications *m = in->create_volume_permission;
	bool flat = in->user_ids.count || in->group_names.count;
	int r;

	if (!m && !flat)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter CreateVolumePermission");
	if (m && flat)
		return ec2_error(call, "InvalidParameterCombination",
				 "Permissions are given in one form: CreateVolumePermission, or "
				 "OperationType with UserIds and GroupNames");
	r = flat ? change_flat(call, s, in) : change_list(call, s, true, &m->add);
	if (r >= 0 && m)
		r = change_list(call, s, false, &m->remove);
	if (r >= 0 && s->create_volume_user_ids.count > LIMIT_SHARED_USERS)
		return ec2_error(call, "ResourceLimitExceeded",
				 "A snapshot is shared with at most %d accounts",
				 LIMIT_SHARED_USERS);
	return r;
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
		r = change_all(call, s, in);
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
