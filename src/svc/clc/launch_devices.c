/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "svc/clc/image_devices.h"
#include "svc/clc/images.h"
#include "svc/clc/instances.h"
#include "svc/clc/volumes.h"

static struct volume_wish wish_of(const struct launch *l, const struct records_image_block_device *d)
{
	const struct records_image_block_device *of =
	    image_device_find(&l->image->block_devices, d->device_name);

	return (struct volume_wish){
	    .volume_type = d->volume_type,
	    .snapshot_id = d->snapshot_id,
	    .size_gib = d->size_gib.value,
	    .iops = d->iops.value,
	    .mib_per_s = d->throughput.value,
	    .encrypted = d->encrypted.value,
	    .kms_key_id = d->kms_key_id,
	    .of_image = of && d->snapshot_id && str_eq(of->snapshot_id, d->snapshot_id),
	};
}

/* The disk of an instance-store image is not a volume, so no mapping can change it. */
static int check_root(struct ec2_call *call, const struct launch *l)
{
	if (image_is_ebs(l->image) || !image_device_find(&l->devices, l->image->root_device_name))
		return 0;
	return ec2_error(call, "InvalidBlockDeviceMapping",
			 "%s is the root device of '%s', which is of the instance-store kind: it "
			 "cannot be a volume",
			 l->image->root_device_name, l->image->image_id);
}

/* An instance has all local disks of its type and no others, whichever its mappings name: EC2 does so with NVMe disks. */
static void leave_out_locals(struct records_image_block_device_list *l)
{
	size_t kept = 0;

	for (size_t n = 0; n < l->count; n++)
		if (!l->items[n].virtual_name)
			l->items[kept++] = l->items[n];
	l->count = kept;
}

int launch_plan_devices(struct ec2_call *call, const struct ec2_run_instances_request *in,
			struct launch *l)
{
	const char *root = l->image->root_device_name;
	int r;

	l->devices = l->image->block_devices;
	r = image_devices_merge(call, &in->block_device_mappings, root, &l->devices);
	if (r >= 0)
		leave_out_locals(&l->devices);
	if (r >= 0)
		r = check_root(call, l);
	if (r >= 0)
		r = image_devices_check(call, root, &l->image->block_devices, &l->devices);
	/* What cannot be made is told before anything is taken. */
	for (size_t n = 0; r >= 0 && n < l->devices.count; n++) {
		const struct volume_wish w = wish_of(l, &l->devices.items[n]);
		struct records_volume *unused;

		r = volume_plan(call, &w, &unused);
	}
	return r;
}

static int make_device(struct ec2_call *call, const struct launch *l,
		       const struct records_image_block_device *d, struct records_instance *i)
{
	const struct volume_wish w = wish_of(l, d);
	struct records_instance_block_device *device;
	struct records_volume *v;
	int r = volume_plan(call, &w, &v);

	if (r >= 0)
		r = device_attach(call, i, v,
				  &(struct attach_wish){
				      .device_name = d->device_name,
				      .boot = str_eq(d->device_name, i->root_device_name),
				      .delete_on_termination = d->delete_on_termination.value,
				  },
				  &device);
	if (r >= 0)
		r = volume_put(call, v, true);
	if (r >= 0 && l->volume_tags.count)
		r = tags_put(call, "volume", v->volume_id, &l->volume_tags);
	return r;
}

int launch_make_devices(struct ec2_call *call, const struct launch *l, struct records_instance *i)
{
	for (size_t n = 0; n < l->devices.count; n++) {
		int r = make_device(call, l, &l->devices.items[n], i);

		if (r < 0)
			return r;
	}
	return 0;
}
