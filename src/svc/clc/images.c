/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/clc/images.h"

#include <ctype.h>
#include <string.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/filters.h"
#include "svc/clc/image_devices.h"

bool image_visible(const struct records_image *image, const char *account_id)
{
	if (str_eq(image->state, IMAGE_DEREGISTERED))
		return false;
	return str_eq(image->account_id, account_id) || image->public.value ||
	       list_has(&image->launch_user_ids, account_id);
}

int image_put(struct clc *c, const struct records_image *image, struct error *e)
{
	const char *name = str_eq(image->state, IMAGE_DEREGISTERED) ? NULL : image->name;

	return record_put(c, KIND_IMAGE, image->account_id, image->image_id, name, image, e);
}

int image_of_snapshot(struct clc *c, struct arena *a, const char *snapshot_id,
		      const char **ret_image_id, struct error *e)
{
	struct record_list all;
	int r = record_list(c, a, KIND_IMAGE, NULL, 0, &all, e);

	if (r < 0)
		return r;
	*ret_image_id = NULL;
	for (size_t i = 0; i < all.count; i++) {
		const struct records_image *image = all.items[i].value;

		if (str_eq(image->state, IMAGE_DEREGISTERED))
			continue;
		for (size_t j = 0; j < image->block_devices.count; j++)
			if (str_eq(image->block_devices.items[j].snapshot_id, snapshot_id))
				*ret_image_id = image->image_id;
	}
	return 0;
}

int ec2_image_get(struct ec2_call *call, const char *id, bool own, struct records_image **ret)
{
	struct records_image *image;
	struct record rec;
	int r = ec2_check_id(call, KIND_IMAGE, id);

	if (r < 0)
		return r;
	r = record_get(call->clc, call->arena, KIND_IMAGE, id, &rec, &call->error);
	if (r < 0 && r != -ENOENT)
		return r;
	image = r == 0 ? rec.value : NULL;
	if (!image || !image_visible(image, call->account_id))
		return ec2_error(call, "InvalidAMIID.NotFound",
				 "The image id '[%s]' does not exist", id);
	if (own && !str_eq(image->account_id, call->account_id))
		return ec2_error(call, "AuthFailure", "Not authorized for images: [%s]", id);
	*ret = image;
	return 0;
}

int ec2_image_for_launch(struct ec2_call *call, const char *image_id, struct records_image **ret)
{
	struct records_image *image;
	int r = ec2_image_get(call, image_id, false, &image);

	if (r < 0)
		return r;
	if (!str_eq(image->state, IMAGE_AVAILABLE))
		return ec2_error(call, "InvalidAMIID.Unavailable",
				 "The image ID '%s' is not available: it is %s", image_id,
				 image->state);
	*ret = image;
	return 0;
}

/* ---- RegisterImage ---- */

int image_name_check(struct ec2_call *call, const char *name)
{
	const size_t len = name ? strlen(name) : 0;

	if (!name)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter Name");
	if (len < 3 || len > 128)
		return ec2_error(call, "InvalidAMIName.Malformed",
				 "AMI names must be between 3 and 128 characters long");
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("()[] ./-'@_", name[i]))
			return ec2_error(
			    call, "InvalidAMIName.Malformed",
			    "AMI names may hold letters, digits, ( ) [ ] spaces . / - ' @ and _ only");
	return 0;
}

/* "bucket/key", an optional slash before it. Whether it can be read is the worker's to find out. */
static int check_location(struct ec2_call *call, const char *location, const char **ret)
{
	if (!location)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter ImageLocation");
	location += *location == '/';
	const char *slash = strchr(location, '/');

	if (!slash || slash == location || !slash[1] || strlen(location) > 63 + 1 + 1024)
		return ec2_error(
		    call, "InvalidParameterValue",
		    "Value for parameter ImageLocation is invalid: give bucket/key of a raw disk image in S3");
	*ret = location;
	return 0;
}

/* A member that clients send for other clouds' sake: only one value is true here. */
static int check_only(struct ec2_call *call, const char *parameter, const char *value,
		      const char *only)
{
	if (value && !str_eq(value, only))
		return ec2_error(
		    call, "InvalidParameterValue",
		    "Value (%.60s) for parameter %s is invalid: this cloud's images are %s", value,
		    parameter, only);
	return 0;
}

/* What is empty was not given: Terraform sends all that it was not told so. */
static const char *given(const char *value)
{
	return value && *value ? value : NULL;
}

static int check_device(struct ec2_call *call, const char *device)
{
	if (device && (!str_prefix(device, "/dev/") || strlen(device) > 32 || !device[5]))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.60s) for parameter RootDeviceName is invalid", device);
	return 0;
}

int image_description_check(struct ec2_call *call, const char *description)
{
	if (description && strlen(description) > 255)
		return ec2_error(call, "InvalidParameterValue",
				 "Description must have at most 255 characters");
	return 0;
}

static int check_register(struct ec2_call *call, const struct ec2_register_image_request *in)
{
	int r = image_name_check(call, in->name);

	if (r == 0)
		r = check_only(call, "Architecture", in->architecture, "x86_64");
	if (r == 0)
		r = check_only(call, "VirtualizationType", in->virtualization_type, "hvm");
	if (r == 0)
		r = check_only(call, "BootMode", in->boot_mode, "legacy-bios");
	if (r == 0)
		r = check_device(call, given(in->root_device_name));
	if (r == 0 && given(in->sriov_net_support) && !str_eq(in->sriov_net_support, "simple"))
		r = ec2_error(call, "InvalidParameterValue",
			      "Value (%.60s) for parameter SriovNetSupport is invalid: it can only be simple",
			      in->sriov_net_support);
	if (r == 0 && in->ena_support.value)
		r = ec2_error(call, "InvalidParameterValue",
			      "EnaSupport is invalid: this cloud's network cards are virtio");
	return r == 0 ? image_description_check(call, in->description) : r;
}

/* From a raw disk image in Walrus: pending until the worker has read it. */
static int plan_instance_store(struct ec2_call *call, const struct ec2_register_image_request *in,
			       struct records_image *image)
{
	if (in->block_device_mappings.count)
		return ec2_error(call, "InvalidParameterCombination",
				 "An image is made either of the object that ImageLocation names or "
				 "of the snapshots in BlockDeviceMappings");
	image->root_device_type = "instance-store";
	image->state = IMAGE_PENDING;
	return check_location(call, given(in->image_location), &image->image_location);
}

/* From snapshots, all of which are completed: so it is available at once. */
static int plan_ebs(struct ec2_call *call, const struct ec2_register_image_request *in,
		    struct records_image *image)
{
	const struct records_image_block_device *root;
	int r = image_devices_merge(call, &in->block_device_mappings, image->root_device_name,
				    &image->block_devices);

	if (r == 0)
		r = image_devices_check_encryption(call, &in->block_device_mappings, NULL);
	if (r == 0)
		r = image_devices_check(call, image->root_device_name, NULL, &image->block_devices);
	if (r < 0)
		return r;
	root = image_device_find(&image->block_devices, image->root_device_name);
	if (!root || !root->snapshot_id)
		return ec2_error(call, "InvalidBlockDeviceMapping",
				 "The root device %s needs a mapping with a snapshot",
				 image->root_device_name);
	image->root_device_type = "ebs";
	image->state = IMAGE_AVAILABLE;
	image->size_bytes = WIRE_INT_OF(root->size_gib.value << 30);
	image->image_location = image_location_of(call, image->name);
	return 0;
}

static int check_room(struct ec2_call *call)
{
	int64_t count;
	int r = state_count(call->clc->state, clc_kinds[KIND_IMAGE].kind, call->account_id, &count,
			    &call->error);

	if (r == 0 && count >= LIMIT_IMAGES_PER_ACCOUNT)
		return ec2_error(call, "AMILimitExceeded",
				 "This account has its limit of %d images",
				 LIMIT_IMAGES_PER_ACCOUNT);
	return r;
}

static int name_taken(struct ec2_call *call, const char *name)
{
	struct record rec;
	int r = record_get_by_name(call->clc, call->arena, KIND_IMAGE, call->account_id, name, &rec,
				   &call->error);

	return r < 0 ? r
		     : ec2_error(call, "InvalidAMIName.Duplicate",
				 "AMI name %s is already in use by AMI %s", name, rec.id);
}

const char *image_location_of(struct ec2_call *call, const char *name)
{
	return arena_printf(call->arena, "%s/%s", call->account_id, name);
}

int image_put_new(struct ec2_call *call, struct records_image *image)
{
	char id[ID_LEN];
	int r = check_room(call);

	if (r < 0)
		return r;
	if (!image->image_id) {
		id_new("ami", id);
		image->image_id = arena_strdup(call->arena, id);
	}
	image->account_id = call->account_id;
	image->architecture = "x86_64";
	image->virtualization_type = "hvm";
	image->create_time = WIRE_TIME_OF(call->now_ms);
	call->wake_images = true;
	r = image_put(call->clc, image, &call->error);
	return r == -EEXIST ? name_taken(call, image->name) : r;
}

int ec2_register_image(struct ec2_call *call, const struct ec2_register_image_request *in,
		       struct ec2_register_image_result *out)
{
	struct records_image image = {
	    .name = in->name,
	    .description = in->description,
	    .root_device_name = given(in->root_device_name) ? in->root_device_name : "/dev/sda1",
	    .boot_mode = in->boot_mode,
	    .sriov_net_support = given(in->sriov_net_support),
	};
	int r = check_register(call, in);

	if (r == 0)
		r = ec2_begin(call);
	if (r == 0)
		r = given(in->image_location) || !in->block_device_mappings.count
			? plan_instance_store(call, in, &image)
			: plan_ebs(call, in, &image);
	if (r == 0)
		r = image_put_new(call, &image);
	if (r < 0)
		return r;
	out->image_id = image.image_id;
	return ec2_commit(call);
}

int ec2_deregister_image(struct ec2_call *call, const struct ec2_deregister_image_request *in)
{
	struct records_image *image;
	int r = ec2_begin(call);

	if (r == 0)
		r = ec2_image_get(call, in->image_id, true, &image);
	if (r < 0)
		return r;
	image->state = IMAGE_DEREGISTERED;
	r = image_end(call, image);
	if (r == 0)
		r = image_put(call->clc, image, &call->error);
	if (r == 0)
		r = tags_drop(call->clc, image->image_id, &call->error);
	if (r < 0)
		return r;
	call->wake_images = true;
	return ec2_commit(call);
}

/* ---- DescribeImages ---- */

static const struct filter_field image_fields[] = {
    {.name = "architecture", .path = "Architecture"},
    {.name = "block-device-mapping.delete-on-termination",
     .path = "BlockDeviceMappings.Ebs.DeleteOnTermination"},
    {.name = "block-device-mapping.device-name", .path = "BlockDeviceMappings.DeviceName"},
    {.name = "block-device-mapping.encrypted", .path = "BlockDeviceMappings.Ebs.Encrypted"},
    {.name = "block-device-mapping.snapshot-id", .path = "BlockDeviceMappings.Ebs.SnapshotId"},
    {.name = "block-device-mapping.volume-size", .path = "BlockDeviceMappings.Ebs.VolumeSize"},
    {.name = "block-device-mapping.volume-type", .path = "BlockDeviceMappings.Ebs.VolumeType"},
    {.name = "creation-date", .path = "CreationDate"},
    {.name = "description", .path = "Description"},
    {.name = "ena-support", .path = "EnaSupport"},
    {.name = "hypervisor", .path = "Hypervisor"},
    {.name = "image-id", .path = "ImageId"},
    {.name = "image-type", .path = "ImageType"},
    {.name = "is-public", .path = "Public"},
    {.name = "kernel-id", .path = "KernelId"},
    {.name = "manifest-location", .path = "ImageLocation"},
    {.name = "name", .path = "Name"},
    {.name = "owner-alias", .path = "ImageOwnerAlias"},
    {.name = "owner-id", .path = "OwnerId"},
    {.name = "platform", .path = "Platform"},
    {.name = "product-code", .path = "ProductCodes.ProductCodeId"},
    {.name = "product-code.type", .path = "ProductCodes.ProductCodeType"},
    {.name = "ramdisk-id", .path = "RamdiskId"},
    {.name = "root-device-name", .path = "RootDeviceName"},
    {.name = "root-device-type", .path = "RootDeviceType"},
    {.name = "sriov-net-support", .path = "SriovNetSupport"},
    {.name = "state", .path = "State"},
    {.name = "state-reason-code", .path = "StateReason.Code"},
    {.name = "state-reason-message", .path = "StateReason.Message"},
    {.name = "virtualization-type", .path = "VirtualizationType"},
};
static const struct filter_table image_filters = {
    .item = &ec2_shape_image,
    .tags = "Tags",
    .fields = image_fields,
    .count = ARRAY_SIZE(image_fields),
};

static struct ec2_image image_item(struct ec2_call *call, const struct records_image *i,
				   const struct tag_index *tags)
{
	struct arena *a = call->arena;
	char *created = arena_alloc(a, CLOCK_ISO_LEN);
	struct ec2_image item = {
	    .architecture = i->architecture,
	    .creation_date = created,
	    .image_id = i->image_id,
	    .image_location = i->image_location,
	    .image_type = "machine",
	    .public = WIRE_BOOL_OF(i->public.value),
	    .owner_id = i->account_id,
	    .platform_details = "Linux/UNIX",
	    .usage_operation = "RunInstances",
	    .state = i->state,
	    .block_device_mappings = image_devices_to_reply(a, &i->block_devices),
	    .description = i->description,
	    .ena_support = WIRE_BOOL_OF(false),
	    .hypervisor = "xen", /* what EC2 says of its KVM images too */
	    .name = i->name,
	    .root_device_name = i->root_device_name,
	    .root_device_type = i->root_device_type,
	    .virtualization_type = i->virtualization_type,
	    .boot_mode = i->boot_mode,
	    .sriov_net_support = i->sriov_net_support,
	};

	clock_format_iso(i->create_time.value, created);
	if (i->state_reason_code) {
		item.state_reason = arena_new_struct(a, struct ec2_state_reason);
		item.state_reason->code = i->state_reason_code;
		item.state_reason->message = i->state_reason_message;
	}
	if (str_eq(i->account_id, call->account_id)) /* tags are the owner's own */
		item.tags = tag_index_find(tags, i->image_id);
	return item;
}

static bool owner_asked(const struct ec2_call *call, const struct wire_string_list *owners,
			const struct records_image *i)
{
	return owners->count == 0 || list_has(owners, i->account_id) ||
	       (list_has(owners, "self") && str_eq(i->account_id, call->account_id));
}

/* ExecutableUsers: "all" for public ones, "self" or one's own id for those shared with the caller.
 */
static bool user_asked(const struct ec2_call *call, const struct wire_string_list *users,
		       const struct records_image *i)
{
	const bool shared = list_has(&i->launch_user_ids, call->account_id);

	return users->count == 0 || (list_has(users, "all") && i->public.value) ||
	       (shared && (list_has(users, "self") || list_has(users, call->account_id)));
}

static int check_asked(struct ec2_call *call, const struct wire_string_list *ids)
{
	struct records_image *image;
	int r = 0;

	if (ids->count > LIMIT_IDS_PER_REQUEST)
		return ec2_error(call, "InvalidParameterValue",
				 "A request takes at most %d image ids", LIMIT_IDS_PER_REQUEST);
	for (size_t i = 0; r == 0 && i < ids->count; i++)
		r = ec2_image_get(call, ids->items[i], false, &image);
	return r;
}

int ec2_describe_images(struct ec2_call *call, const struct ec2_describe_images_request *in,
			struct ec2_describe_images_result *out)
{
	struct filter_set *filters;
	struct tag_index *tags;
	struct record_list all;
	struct page page;
	int r = filter_set_new(call, &image_filters, &in->filters, &filters);

	if (r == 0)
		r = ec2_page(call, &in->max_results, in->next_token, false, 1, 1000, &page);
	if (r == 0)
		r = check_asked(call, &in->image_ids);
	if (r == 0)
		r = record_list(call->clc, call->arena, KIND_IMAGE, NULL, 0, &all, &call->error);
	if (r == 0)
		r = tag_index_load(call, &tags);
	if (r < 0)
		return r;
	out->images.set = true;
	out->images.items = arena_new_array(call->arena, struct ec2_image, all.count);
	for (size_t i = 0; i < all.count; i++) {
		const struct records_image *image = all.items[i].value;

		if (!image_visible(image, call->account_id) ||
		    (in->image_ids.count && !list_has(&in->image_ids, image->image_id)) ||
		    !owner_asked(call, &in->owners, image) ||
		    !user_asked(call, &in->executable_users, image))
			continue;
		const struct ec2_image item = image_item(call, image, tags);

		if (filter_set_match(filters, &item, NULL) && page_take(&page, all.items[i].seq))
			out->images.items[out->images.count++] = item;
	}
	out->next_token = page_token(call->arena, &page);
	return 0;
}
