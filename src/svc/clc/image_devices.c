/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/clc/image_devices.h"

#include <string.h>

#include "base/text.h"
#include "svc/clc/ebs_encryption.h"
#include "svc/clc/volumes.h"

#define DEFAULT_TYPE "gp2" /* EC2's, where a mapping names none */

struct records_image_block_device *image_device_find(const struct records_image_block_device_list *l,
						     const char *device_name)
{
	for (size_t i = 0; i < l->count; i++)
		if (str_eq(l->items[i].device_name, device_name))
			return &l->items[i];
	return NULL;
}

struct records_image_block_device_list
image_devices_copy(struct arena *a, const struct records_image_block_device_list *l)
{
	struct records_image_block_device_list out = {.set = true, .count = l->count};

	out.items = arena_new_array(a, struct records_image_block_device,
				    l->count + LIMIT_DEVICES_PER_INSTANCE + LIMIT_LOCAL_MAPPINGS);
	for (size_t i = 0; i < l->count; i++)
		out.items[i] = l->items[i];
	return out;
}

/* ---- merging ---- */

static bool is_ephemeral(const char *virtual_name)
{
	const char *digits = virtual_name + strlen("ephemeral");
	int64_t n;

	return str_prefix(virtual_name, "ephemeral") && strspn(digits, "0123456789") == strlen(digits) &&
	       parse_i64(digits, 0, LIMIT_LOCAL_MAPPINGS - 1, &n) == 0;
}

static int check_mapping(struct ec2_call *call,
			 const struct ec2_block_device_mapping_request_list *in, size_t n)
{
	const struct ec2_block_device_mapping *m = &in->items[n];
	int kinds = (m->ebs != NULL) + (m->no_device != NULL) + (m->virtual_name != NULL);

	if (!m->device_name || !*m->device_name)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter "
				 "BlockDeviceMapping.%zu.DeviceName",
				 n + 1);
	if (!device_name_valid(m->device_name))
		return ec2_error(call, "InvalidBlockDeviceMapping", "Invalid device name %.64s",
				 m->device_name);
	for (size_t i = 0; i < n; i++)
		if (str_eq(in->items[i].device_name, m->device_name))
			return ec2_error(call, "InvalidBlockDeviceMapping",
					 "The device '%s' is used in more than one block-device "
					 "mapping",
					 m->device_name);
	if (kinds != 1)
		return ec2_error(call, "InvalidBlockDeviceMapping",
				 "The mapping of '%s' must have exactly one of Ebs, NoDevice and "
				 "VirtualName",
				 m->device_name);
	if (m->virtual_name && !is_ephemeral(m->virtual_name))
		return ec2_error(call, "InvalidBlockDeviceMapping",
				 "Invalid virtual name %.64s: it must be ephemeral and a number from 0 to %d",
				 m->virtual_name, LIMIT_LOCAL_MAPPINGS - 1);
	return m->ebs ? encryption_check_key(call, m->ebs->kms_key_id, &m->ebs->encrypted) : 0;
}

static int check_ebs(struct ec2_call *call, const struct ec2_ebs_block_device *e,
		     const struct records_image_block_device *d, bool there)
{
	if (e->volume_size.set && e->volume_size.value < 1)
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%lld) for parameter volumeSize is invalid",
				 (long long)e->volume_size.value);
	if (e->volume_type && !volume_type_find(e->volume_type))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.64s) for parameter volumeType is invalid",
				 e->volume_type);
	if (e->snapshot_id && there && !str_eq(e->snapshot_id, d->snapshot_id))
		return ec2_error(call, "InvalidBlockDeviceMapping",
				 "The snapshot of the device '%s' cannot be another one",
				 d->device_name);
	return 0;
}

/* Performance that was said for one type says nothing of another. */
static int merge_ebs(struct ec2_call *call, const struct ec2_ebs_block_device *e,
		     struct records_image_block_device *d, bool there)
{
	int r = check_ebs(call, e, d, there);

	if (r < 0)
		return r;
	if (e->snapshot_id)
		d->snapshot_id = e->snapshot_id;
	if (e->volume_size.set)
		d->size_gib = e->volume_size;
	if (e->volume_type && !str_eq(e->volume_type, d->volume_type)) {
		d->volume_type = e->volume_type;
		d->iops = d->throughput = (struct wire_int){0};
	}
	if (e->iops.set)
		d->iops = e->iops;
	if (e->throughput.set)
		d->throughput = e->throughput;
	if (e->delete_on_termination.set)
		d->delete_on_termination = e->delete_on_termination;
	if (e->encrypted.value)
		d->encrypted = WIRE_BOOL_OF(true);
	if (e->kms_key_id)
		d->kms_key_id = e->kms_key_id;
	return 0;
}

static int take_away(struct ec2_call *call, const char *name, const char *root,
		     struct records_image_block_device_list *io)
{
	struct records_image_block_device *d = image_device_find(io, name);

	if (str_eq(name, root))
		return ec2_error(call, "InvalidBlockDeviceMapping",
				 "The root device %s cannot be left out", root);
	if (!d)
		return 0;
	size_t after = io->count - (size_t)(d - io->items) - 1;
	memmove(d, d + 1, after * sizeof(*d));
	io->count--;
	return 0;
}

/* *ret_there: there was one of that name and kind. What is there of the other kind, a volume or a local disk, is forgotten. */
static int find_or_add(struct ec2_call *call, const char *name, bool local, struct records_image_block_device_list *io,
		       struct records_image_block_device **ret, bool *ret_there)
{
	struct records_image_block_device *d = image_device_find(io, name);
	const size_t most = local ? LIMIT_LOCAL_MAPPINGS : LIMIT_DEVICES_PER_INSTANCE;
	size_t count = 0;

	*ret = d;
	*ret_there = d && local == (d->virtual_name != NULL);
	if (*ret_there)
		return 0;
	for (size_t i = 0; i < io->count; i++)
		count += local == (io->items[i].virtual_name != NULL);
	if (count >= most)
		return ec2_error(call, "InvalidBlockDeviceMapping", "An instance has at most %zu %s", most,
				 local ? "local disks" : "disks");
	*ret = d ? d : &io->items[io->count++];
	**ret = (struct records_image_block_device){.device_name = name};
	return 0;
}

static int merge_local(struct ec2_call *call, const struct ec2_block_device_mapping *m, const char *root,
		       struct records_image_block_device_list *io)
{
	struct records_image_block_device *d;
	bool there;
	int r;

	if (str_eq(m->device_name, root))
		return ec2_error(call, "InvalidBlockDeviceMapping", "The root device %s cannot be a local disk", root);
	r = find_or_add(call, m->device_name, true, io, &d, &there);
	if (r >= 0)
		d->virtual_name = m->virtual_name;
	return r;
}

static int merge_one(struct ec2_call *call, const struct ec2_block_device_mapping *m,
		     const char *root, struct records_image_block_device_list *io)
{
	struct records_image_block_device *d;
	bool there;
	int r;

	if (m->no_device)
		return take_away(call, m->device_name, root, io);
	if (m->virtual_name)
		return merge_local(call, m, root, io);
	r = find_or_add(call, m->device_name, false, io, &d, &there);
	if (r < 0)
		return r;
	if (!there)
		d->delete_on_termination = WIRE_BOOL_OF(true);
	return merge_ebs(call, m->ebs, d, there);
}

int image_devices_merge(struct ec2_call *call,
			const struct ec2_block_device_mapping_request_list *in, const char *root,
			struct records_image_block_device_list *io)
{
	*io = image_devices_copy(call->arena, io);
	for (size_t i = 0; i < in->count; i++) {
		int r = check_mapping(call, in, i);

		if (r >= 0)
			r = merge_one(call, &in->items[i], root, io);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- checking ---- */

/* Like ec2_snapshot_get, for one that the image grants. */
static int granted_snapshot(struct ec2_call *call, const char *id, struct records_snapshot **ret)
{
	struct record rec;
	int r = record_get(call->clc, call->arena, KIND_SNAPSHOT, id, &rec, &call->error);

	if (r == -ENOENT)
		return ec2_error(call, "InvalidSnapshot.NotFound",
				 "The snapshot '%s' does not exist.", id);
	if (r >= 0)
		*ret = rec.value;
	return r;
}

static int check_snapshot(struct ec2_call *call, const struct records_image_block_device_list *granted,
			  struct records_image_block_device *d)
{
	const struct records_image_block_device *g =
	    granted ? image_device_find(granted, d->device_name) : NULL;
	struct records_snapshot *s;
	int r = g && str_eq(g->snapshot_id, d->snapshot_id)
		    ? granted_snapshot(call, d->snapshot_id, &s)
		    : ec2_snapshot_get(call, d->snapshot_id, false, &s);

	if (r < 0)
		return r;
	if (snapshot_state_of(s) != SNAPSHOT_COMPLETED)
		return ec2_error(call, "IncorrectState",
				 "The snapshot '%s' is %s and can only be used once it is completed",
				 d->snapshot_id, s->state);
	if (s->encrypted.value)
		d->encrypted = WIRE_BOOL_OF(true);
	if (!d->size_gib.set)
		d->size_gib = s->volume_size_gib;
	if (d->size_gib.value < s->volume_size_gib.value)
		return ec2_error(call, "InvalidBlockDeviceMapping",
				 "Volume of size %lldGB is smaller than snapshot '%s', expect size "
				 ">= %lldGB",
				 (long long)d->size_gib.value, d->snapshot_id,
				 (long long)s->volume_size_gib.value);
	return 0;
}

static int check_type(struct ec2_call *call, const char *root, struct records_image_block_device *d)
{
	const struct volume_type *t;
	struct volume_limits limits;

	if (!d->volume_type)
		d->volume_type = DEFAULT_TYPE;
	t = volume_type_find(d->volume_type);
	if (!t)
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.64s) for parameter volumeType is invalid",
				 d->volume_type);
	if (str_eq(d->device_name, root) && !volume_type_boots(t))
		return ec2_error(call, "InvalidBlockDeviceMapping",
				 "A volume of the type %s cannot be the root device",
				 d->volume_type);
	return volume_type_limits(t, (uint64_t)d->size_gib.value, (uint64_t)d->iops.value,
				  (uint64_t)d->throughput.value, &limits, &call->error);
}

static int check_device(struct ec2_call *call, const char *root,
			const struct records_image_block_device_list *granted,
			struct records_image_block_device *d)
{
	int r = 0;

	if (d->iops.value < 0 || d->throughput.value < 0)
		return ec2_error(call, "InvalidParameterValue",
				 "Iops and Throughput of %s cannot be negative", d->device_name);
	if (d->snapshot_id && !d->volume_id)
		r = check_snapshot(call, granted, d);
	else if (!d->size_gib.set)
		r = ec2_error(call, "MissingParameter",
			      "The request must contain the parameter size or snapshotId for the "
			      "device '%s'",
			      d->device_name);
	return r < 0 ? r : check_type(call, root, d);
}

int image_devices_check(struct ec2_call *call, const char *root,
			const struct records_image_block_device_list *granted,
			struct records_image_block_device_list *io)
{
	for (size_t i = 0; i < io->count; i++) {
		int r = io->items[i].virtual_name ? 0 : check_device(call, root, granted, &io->items[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

int image_devices_check_encryption(struct ec2_call *call, const struct ec2_block_device_mapping_request_list *in,
				   const struct records_image_block_device_list *own)
{
	for (size_t i = 0; i < in->count; i++) {
		const struct ec2_ebs_block_device *e = in->items[i].ebs;
		const char *name = in->items[i].device_name;
		const struct records_image_block_device *of = own ? image_device_find(own, name) : NULL;

		if (!e || !e->encrypted.set)
			continue;
		if (e->snapshot_id)
			return ec2_error(call, "InvalidBlockDeviceMapping",
					 "the encrypted flag cannot be specified since device %s has a snapshot "
					 "specified.",
					 name);
		if (of && e->encrypted.value != of->encrypted.value)
			return ec2_error(call, "InvalidBlockDeviceMapping",
					 "The volume of the device %s is %sencrypted, and so is its snapshot: copy "
					 "the image to have encrypted ones",
					 name, of->encrypted.value ? "" : "not ");
	}
	return 0;
}

/* ---- showing ---- */

struct ec2_block_device_mapping_list
image_devices_to_reply(struct arena *a, const struct records_image_block_device_list *l)
{
	struct ec2_block_device_mapping_list out = {.set = true, .count = l->count};

	out.items = arena_new_array(a, struct ec2_block_device_mapping, l->count);
	for (size_t i = 0; i < l->count; i++) {
		const struct records_image_block_device *d = &l->items[i];
		struct ec2_ebs_block_device *e;

		if (d->virtual_name) {
			out.items[i] = (struct ec2_block_device_mapping){.device_name = d->device_name,
									 .virtual_name = d->virtual_name};
			continue;
		}
		e = arena_new_struct(a, struct ec2_ebs_block_device);
		*e = (struct ec2_ebs_block_device){
		    .delete_on_termination = WIRE_BOOL_OF(d->delete_on_termination.value),
		    .iops = d->iops,
		    .snapshot_id = d->snapshot_id,
		    .volume_size = d->size_gib,
		    .volume_type = d->volume_type,
		    .throughput = d->throughput,
		    .encrypted = WIRE_BOOL_OF(d->encrypted.value),
		};
		out.items[i] = (struct ec2_block_device_mapping){.device_name = d->device_name,
								 .ebs = e};
	}
	return out;
}
