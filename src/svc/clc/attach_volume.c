/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/instances.h"
#include "svc/clc/volumes.h"

/* ---- AttachVolume ---- */

static int check_attach(struct ec2_call *call, const struct records_instance *i,
			const struct records_volume *v)
{
	enum instance_state s = instance_state_of(i);
	enum volume_state unused;

	if (s != INSTANCE_RUNNING && s != INSTANCE_STOPPED)
		return ec2_error(call, "IncorrectState", "Instance '%s' is not 'running'.",
				 i->instance_id);
	if (v->instance_id)
		return ec2_error(call, "VolumeInUse", "%s is already attached to an instance",
				 v->volume_id);
	if (volume_next(volume_state_of(v), VOLUME_ASK_ATTACH, &unused) == EBS_REFUSES)
		return ec2_error(call, "IncorrectState", "%s is not 'available': it is '%s'.",
				 v->volume_id, v->state);
	if (!str_eq(i->availability_zone, v->availability_zone))
		return ec2_error(call, "InvalidVolume.ZoneMismatch",
				 "The volume '%s' is not in the same availability zone as instance "
				 "'%s'",
				 v->volume_id, i->instance_id);
	return 0;
}

/* An instance that boots from a volume and has lost it to a detach gets another one. */
static bool becomes_boot(const struct records_instance *i, const char *device)
{
	if (!str_eq(i->root_device_type, "ebs") || !str_eq(i->root_device_name, device))
		return false;
	for (size_t n = 0; n < i->block_devices.count; n++)
		if (i->block_devices.items[n].boot.value)
			return false;
	return true;
}

static int attach(struct ec2_call *call, const char *device, struct records_instance *i,
		  struct records_volume *v, struct records_instance_block_device **ret)
{
	const struct attach_wish wish = {.device_name = device, .boot = becomes_boot(i, device)};
	const struct volume_type *t = volume_type_find(v->volume_type);
	int r = check_attach(call, i, v);

	if (r < 0)
		return r;
	if (wish.boot && t && !volume_type_boots(t))
		return ec2_error(call, "InvalidParameterValue",
				 "Volumes of type %s cannot be root volumes", v->volume_type);
	r = device_attach(call, i, v, &wish, ret);
	if (r >= 0)
		r = instance_put(call, i, true);
	return r < 0 ? r : volume_put(call, v, true);
}

int ec2_attach_volume(struct ec2_call *call, const struct ec2_attach_volume_request *in,
		      struct ec2_volume_attachment *out)
{
	struct records_instance_block_device *d = NULL;
	struct records_instance *i = NULL;
	struct records_volume *v = NULL;
	int r = ec2_begin(call);

	if (r >= 0)
		r = ec2_get(call, KIND_VOLUME, in->volume_id, &v);
	if (r >= 0)
		r = ec2_get(call, KIND_INSTANCE, in->instance_id, &i);
	if (r >= 0)
		r = attach(call, in->device, i, v, &d);
	if (r >= 0)
		r = ec2_commit(call);
	if (r >= 0)
		*out = attachment_to_reply(i, d);
	return r;
}

/* ---- DetachVolume ---- */

/* The attachment that the request means; its instance and device are given to be sure. */
static int find(struct ec2_call *call, const struct ec2_detach_volume_request *in,
		struct records_instance **ret_instance, struct records_instance_block_device **ret)
{
	struct records_instance *i = NULL;
	struct records_volume *v = NULL;
	int r = ec2_get(call, KIND_VOLUME, in->volume_id, &v);

	if (r >= 0 && in->instance_id)
		r = ec2_get(call, KIND_INSTANCE, in->instance_id, &i);
	if (r < 0)
		return r;
	if (!v->instance_id)
		return ec2_error(call, "IncorrectState", "Volume '%s' is in the '%s' state.",
				 v->volume_id, v->state);
	if (!i)
		r = ec2_get(call, KIND_INSTANCE, v->instance_id, &i);
	if (r < 0)
		return r;
	struct records_instance_block_device *d = device_of_volume(i, v->volume_id);
	if (!d)
		return ec2_error(call, "InvalidAttachment.NotFound",
				 "The volume '%s' is not attached to instance '%s'", v->volume_id,
				 i->instance_id);
	if (in->device && !str_eq(in->device, d->device_name))
		return ec2_error(
		    call, "InvalidAttachment.NotFound",
		    "The volume '%s' is not attached to instance '%s' as device '%.64s'",
		    v->volume_id, i->instance_id, in->device);
	*ret_instance = i;
	*ret = d;
	return 0;
}

static int check_detach(struct ec2_call *call, const struct records_instance *i,
			const struct records_instance_block_device *d)
{
	enum instance_state s = instance_state_of(i);

	if (s == INSTANCE_PENDING || !instance_state_live(s) || s == INSTANCE_SHUTTING_DOWN)
		return ec2_error(call, "IncorrectState", "Instance '%s' is in the '%s' state.",
				 i->instance_id, i->state);
	if (d->boot.value && s != INSTANCE_STOPPED)
		return ec2_error(call, "OperationNotPermitted",
				 "Unable to detach root volume '%s' from instance '%s'",
				 d->volume_id, i->instance_id);
	return 0;
}

/* Asked again, it is no more than was asked before; by force, it is. */
static int detach(struct ec2_call *call, bool force, struct records_instance *i,
		  struct records_instance_block_device *d)
{
	const char *wanted =
	    force || str_eq(d->wanted, WANTED_FORCED) ? WANTED_FORCED : WANTED_DETACHED;
	enum attachment_state next;
	bool changed = !str_eq(d->wanted, wanted);

	if (attachment_next(attachment_state_of(d),
			    force ? ATTACHMENT_ASK_FORCE : ATTACHMENT_ASK_DETACH,
			    &next) == EBS_MOVES) {
		d->state = attachment_state_name(next);
		changed = true;
	}
	d->wanted = wanted;
	return changed ? instance_put(call, i, true) : 0;
}

int ec2_detach_volume(struct ec2_call *call, const struct ec2_detach_volume_request *in,
		      struct ec2_volume_attachment *out)
{
	struct records_instance_block_device *d = NULL;
	struct records_instance *i = NULL;
	int r = ec2_begin(call);

	if (r >= 0)
		r = find(call, in, &i, &d);
	if (r >= 0)
		r = check_detach(call, i, d);
	if (r >= 0)
		r = detach(call, in->force.value, i, d);
	if (r >= 0)
		r = ec2_commit(call);
	if (r >= 0)
		*out = attachment_to_reply(i, d);
	return r;
}
