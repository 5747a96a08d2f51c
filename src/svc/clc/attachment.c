/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "svc/clc/volumes.h"

struct records_instance_block_device *device_of_volume(const struct records_instance *i,
						       const char *volume_id)
{
	for (size_t n = 0; n < i->block_devices.count; n++)
		if (str_eq(i->block_devices.items[n].volume_id, volume_id))
			return &i->block_devices.items[n];
	return NULL;
}

struct records_instance_block_device *device_by_name(const struct records_instance *i,
						     const char *device_name)
{
	for (size_t n = 0; n < i->block_devices.count; n++)
		if (str_eq(i->block_devices.items[n].device_name, device_name))
			return &i->block_devices.items[n];
	return NULL;
}

struct records_instance_block_device *device_in_last_slots(const struct records_instance *i, int count)
{
	for (size_t n = 0; n < i->block_devices.count; n++)
		if (i->block_devices.items[n].slot.value >= LIMIT_DEVICES_PER_INSTANCE - count)
			return &i->block_devices.items[n];
	return NULL;
}

enum attachment_state attachment_state_of(const struct records_instance_block_device *d)
{
	enum attachment_state s = attachment_state_parse(d->state);

	return s == ATTACHMENT_STATE_COUNT ? ATTACHMENT_ATTACHING : s;
}

/* A letter or two, and a partition's number. */
bool device_name_valid(const char *name)
{
	size_t letters, digits;

	if (strlen(name) > LIMIT_DEVICE_NAME_CHARS)
		return false;
	if (str_prefix(name, "/dev/"))
		name += strlen("/dev/");
	if (str_prefix(name, "xvd"))
		name += 3;
	else if (str_prefix(name, "sd") || str_prefix(name, "hd"))
		name += 2;
	else
		return false;
	letters = strspn(name, "abcdefghijklmnopqrstuvwxyz");
	digits = strspn(name + letters, "0123456789");
	return letters >= 1 && letters <= 2 && digits <= 2 && !name[letters + digits];
}

/* An instance-store root is a disk of the node's and no attachment: its name is taken all the same.
 */
static bool name_taken(const struct records_instance *i, const struct attach_wish *w)
{
	return device_by_name(i, w->device_name) ||
	       (!w->boot && str_eq(i->root_device_name, w->device_name) &&
		!str_eq(i->root_device_type, "ebs"));
}

static bool slot_taken(const struct records_instance *i, int64_t slot)
{
	for (size_t n = 0; n < i->block_devices.count; n++)
		if (i->block_devices.items[n].slot.value == slot)
			return true;
	return false;
}

static int choose_slot(struct ec2_call *call, const struct records_instance *i,
		       const struct attach_wish *w, int64_t *ret)
{
	int64_t slot = w->boot ? 0 : 1, end = w->boot ? 1 : LIMIT_DEVICES_PER_INSTANCE - i->local_disks.value; /* those have the last ones */

	while (slot < end && slot_taken(i, slot))
		slot++;
	if (slot == end)
		return ec2_error(call, "AttachmentLimitExceeded",
				 "The instance '%s' has its limit of volumes: a boot disk and %d "
				 "others",
				 i->instance_id,
				 (int)(LIMIT_DEVICES_PER_INSTANCE - 1 - i->local_disks.value));
	*ret = slot;
	return 0;
}

static int check_name(struct ec2_call *call, const struct records_instance *i,
		      const struct attach_wish *w)
{
	const char *name = w->device_name ? w->device_name : "";

	if (!device_name_valid(name))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.64s) for parameter device is invalid. %.64s is not a "
				 "valid EBS device name.",
				 name, name);
	if (name_taken(i, w))
		return ec2_error(call, "InvalidParameterValue",
				 "Invalid value '%s' for unixDevice. Attachment point %s is "
				 "already in use",
				 name, name);
	return 0;
}

static struct records_instance_block_device *add_device(struct arena *a, struct records_instance *i)
{
	struct records_instance_block_device_list *l = &i->block_devices;
	struct records_instance_block_device *items =
	    arena_new_array(a, struct records_instance_block_device, l->count + 1);

	if (l->count)
		memcpy(items, l->items, l->count * sizeof(items[0]));
	l->items = items;
	l->set = true;
	return &items[l->count++];
}

int device_attach(struct ec2_call *call, struct records_instance *i, struct records_volume *v,
		  const struct attach_wish *w, struct records_instance_block_device **ret)
{
	enum volume_state next;
	int64_t slot = 0;
	int r = check_name(call, i, w);

	if (r >= 0)
		r = choose_slot(call, i, w, &slot);
	if (r < 0)
		return r;
	v->instance_id = i->instance_id;
	v->attachment_generation = WIRE_INT_OF(v->attachment_generation.value + 1);
	if (volume_next(volume_state_of(v), VOLUME_ASK_ATTACH, &next) == EBS_MOVES)
		volume_enter(v, next, call->now_ms);
	struct records_instance_block_device *d = add_device(call->arena, i);
	*d = (struct records_instance_block_device){
	    .device_name = w->device_name,
	    .volume_id = v->volume_id,
	    .slot = WIRE_INT_OF(slot),
	    .boot = WIRE_BOOL_OF(w->boot),
	    .generation = v->attachment_generation,
	    .wanted = WANTED_ATTACHED,
	    .state = attachment_state_name(ATTACHMENT_ATTACHING),
	    .attach_time = WIRE_TIME_OF(call->now_ms),
	    .delete_on_termination = WIRE_BOOL_OF(w->delete_on_termination),
	};
	*ret = d;
	return 0;
}

void device_remove(struct records_instance *i, const char *volume_id)
{
	struct records_instance_block_device_list *l = &i->block_devices;
	size_t kept = 0;

	for (size_t n = 0; n < l->count; n++)
		if (!str_eq(l->items[n].volume_id, volume_id))
			l->items[kept++] = l->items[n];
	l->count = kept;
}
