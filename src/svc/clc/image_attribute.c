/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/image_devices.h"
#include "svc/clc/images.h"
#include "svc/clc/sharing.h"

/* An image's description, and who may launch it. */

enum { LAUNCH_USERS_MAX = 1000 };

static struct sharing_list permissions_of(struct arena *a,
					  const struct ec2_launch_permission_list *l)
{
	struct sharing_list to = {.items = arena_new_array(a, struct sharing_permission, l->count)};

	for (; to.count < l->count; to.count++)
		to.items[to.count] = (struct sharing_permission){
		    .group = l->items[to.count].group, .user_id = l->items[to.count].user_id};
	return to;
}

static int change_permissions(struct ec2_call *call,
			      const struct ec2_modify_image_attribute_request *in,
			      struct records_image *image)
{
	struct sharing_request q = {.parameter = "LaunchPermission",
				    .bad_user_code = "InvalidAMIAttributeItemValue",
				    .operation_type = in->operation_type,
				    .user_ids = &in->user_ids,
				    .groups = &in->user_groups};

	if (in->launch_permission) {
		q.add = permissions_of(call->arena, &in->launch_permission->add);
		q.remove = permissions_of(call->arena, &in->launch_permission->remove);
	}
	int r = sharing_read(call, &q);
	if (r < 0)
		return r;
	sharing_apply(call->arena, &q, &image->public, &image->launch_user_ids);
	if (image->launch_user_ids.count > LAUNCH_USERS_MAX)
		return ec2_error(call, "AttributeLimitExceeded",
				 "An image is shared with at most %d accounts", LAUNCH_USERS_MAX);
	return 0;
}

static bool asks_permissions(const struct ec2_modify_image_attribute_request *in)
{
	return in->launch_permission || in->operation_type || in->user_ids.count ||
	       in->user_groups.count;
}

/* Description, or Attribute with Value. */
static const char *new_description(const struct ec2_modify_image_attribute_request *in)
{
	return in->value ? in->value : in->description ? in->description->value : NULL;
}

static int check_description(struct ec2_call *call,
			     const struct ec2_modify_image_attribute_request *in)
{
	if (in->value && !in->attribute)
		return ec2_error(call, "InvalidParameterCombination",
				 "The parameter Value needs the parameter Attribute");
	if (in->value && in->description && !str_eq(in->value, in->description->value))
		return ec2_error(call, "InvalidParameterCombination",
				 "Value and Description are not the same");
	return image_description_check(call, new_description(in));
}

/* Which attribute: said by Attribute, or by the member that is there; exactly one. */
static int check_modify(struct ec2_call *call, const struct ec2_modify_image_attribute_request *in)
{
	const bool permissions = asks_permissions(in);
	const char *given = permissions ? "launchPermission" : "description";

	if (permissions == (in->description || in->value))
		return ec2_error(
		    call, "InvalidParameterCombination",
		    "The request must contain exactly one of the parameters LaunchPermission and Description");
	if (in->attribute && !str_eq(in->attribute, given))
		return ec2_error(call, "InvalidParameterCombination",
				 "Attribute is %.60s, and the request changes %s", in->attribute,
				 given);
	return permissions ? 0 : check_description(call, in);
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
	if (r == 0 && asks_permissions(in))
		r = change_permissions(call, in, image);
	else if (r == 0)
		image->description = new_description(in);
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
