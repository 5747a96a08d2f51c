/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/image_devices.h"
#include "svc/clc/images.h"

/* An image's description, and who may launch it: its owner, all ("Group=all"), or accounts by id.
 */

enum { LAUNCH_USERS_MAX = 1000 };

static int check_permission(struct ec2_call *call, const struct ec2_launch_permission *p)
{
	if (!p->group == !p->user_id)
		return ec2_error(call, "InvalidParameterCombination",
				 "A launch permission names either a Group or a UserId");
	if (p->group && !str_eq(p->group, "all"))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.60s) for parameter Group is invalid: all", p->group);
	if (p->user_id && (strlen(p->user_id) != 12 || strspn(p->user_id, "0123456789") != 12))
		return ec2_error(call, "InvalidAMIAttributeItemValue",
				 "Invalid attribute item value \"%.60s\" for userId item type",
				 p->user_id);
	return 0;
}

static void add_user(struct arena *a, struct wire_string_list *users, const char *id)
{
	const char **items = arena_new_array(a, const char *, users->count + 1);

	for (size_t i = 0; i < users->count; i++) {
		if (str_eq(users->items[i], id))
			return;
		items[i] = users->items[i];
	}
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

static int change_permissions(struct ec2_call *call,
			      const struct ec2_launch_permission_modifications *m,
			      struct records_image *image)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < m->add.count; i++)
		r = check_permission(call, &m->add.items[i]);
	for (size_t i = 0; r == 0 && i < m->remove.count; i++)
		r = check_permission(call, &m->remove.items[i]);
	if (r < 0)
		return r;
	for (size_t i = 0; i < m->add.count; i++) {
		if (m->add.items[i].group)
			image->public = WIRE_BOOL_OF(true);
		else
			add_user(call->arena, &image->launch_user_ids, m->add.items[i].user_id);
	}
	for (size_t i = 0; i < m->remove.count; i++) {
		if (m->remove.items[i].group)
			image->public = WIRE_BOOL_OF(false);
		else
			remove_user(&image->launch_user_ids, m->remove.items[i].user_id);
	}
	if (image->launch_user_ids.count > LAUNCH_USERS_MAX)
		return ec2_error(call, "AttributeLimitExceeded",
				 "An image is shared with at most %d accounts", LAUNCH_USERS_MAX);
	return 0;
}

/* Which attribute: said by Attribute, or by the member that is there; exactly one. */
static int check_modify(struct ec2_call *call, const struct ec2_modify_image_attribute_request *in)
{
	const char *given = in->launch_permission ? "launchPermission" : "description";

	if (!in->launch_permission == !in->description)
		return ec2_error(
		    call, "InvalidParameterCombination",
		    "The request must contain exactly one of the parameters LaunchPermission and Description");
	if (in->attribute && !str_eq(in->attribute, given))
		return ec2_error(call, "InvalidParameterCombination",
				 "Attribute is %.60s, and the request changes %s", in->attribute,
				 given);
	if (in->description && in->description->value && strlen(in->description->value) > 255)
		return ec2_error(call, "InvalidParameterValue",
				 "Description must have at most 255 characters");
	return 0;
}

int ec2_modify_image_attribute(struct ec2_call *call,
			       const struct ec2_modify_image_attribute_request *in)
{
	struct records_image *image;
	int r = check_modify(call, in);

	if (r == 0)
		r = ec2_begin(call);
	if (r == 0)
		r = ec2_image_get(call, in->image_id, true, &image);
	if (r == 0 && in->description)
		image->description = in->description->value;
	if (r == 0 && in->launch_permission)
		r = change_permissions(call, in->launch_permission, image);
	if (r == 0)
		r = image_put(call->clc, image, &call->error);
	return r < 0 ? r : ec2_commit(call);
}

int ec2_reset_image_attribute(struct ec2_call *call,
			      const struct ec2_reset_image_attribute_request *in)
{
	struct records_image *image;
	int r;

	if (!str_eq(in->attribute, "launchPermission"))
		return ec2_error(
		    call, "InvalidParameterValue",
		    "Value (%.60s) for parameter Attribute is invalid: launchPermission",
		    in->attribute);
	r = ec2_begin(call);
	if (r == 0)
		r = ec2_image_get(call, in->image_id, true, &image);
	if (r < 0)
		return r;
	image->public = WIRE_BOOL_OF(false);
	image->launch_user_ids.count = 0;
	r = image_put(call->clc, image, &call->error);
	return r < 0 ? r : ec2_commit(call);
}

static struct ec2_attribute_value *text_value(struct arena *a, const char *text)
{
	struct ec2_attribute_value *v = arena_new_struct(a, struct ec2_attribute_value);

	v->value = text;
	return v;
}

static void list_permissions(struct arena *a, const struct records_image *image,
			     struct ec2_launch_permission_list *out)
{
	out->set = true;
	out->items =
	    arena_new_array(a, struct ec2_launch_permission, image->launch_user_ids.count + 1);
	if (image->public.value)
		out->items[out->count++].group = "all";
	for (size_t i = 0; i < image->launch_user_ids.count; i++)
		out->items[out->count++].user_id = image->launch_user_ids.items[i];
}

int ec2_describe_image_attribute(struct ec2_call *call,
				 const struct ec2_describe_image_attribute_request *in,
				 struct ec2_image_attribute *out)
{
	struct records_image *image;
	int r = ec2_image_get(call, in->image_id, true, &image);

	if (r < 0)
		return r;
	out->image_id = image->image_id;
	if (str_eq(in->attribute, "description"))
		out->description = text_value(call->arena, image->description);
	else if (str_eq(in->attribute, "launchPermission"))
		list_permissions(call->arena, image, &out->launch_permissions);
	else if (str_eq(in->attribute, "bootMode"))
		out->boot_mode = text_value(call->arena, image->boot_mode);
	else if (str_eq(in->attribute, "blockDeviceMapping"))
		out->block_device_mappings =
		    image_devices_to_reply(call->arena, &image->block_devices);
	else if (str_eq(in->attribute, "productCodes"))
		out->product_codes.set = true;
	else if (str_eq(in->attribute, "kernel"))
		out->kernel_id = text_value(call->arena, NULL);
	else if (str_eq(in->attribute, "ramdisk"))
		out->ramdisk_id = text_value(call->arena, NULL);
	else if (str_eq(in->attribute, "sriovNetSupport"))
		out->sriov_net_support = text_value(call->arena, image->sriov_net_support);
	else
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.60s) for parameter Attribute is invalid", in->attribute);
	return 0;
}
