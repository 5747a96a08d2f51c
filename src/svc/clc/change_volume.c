/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/volumes.h"

/* Deleted, modified, its attribute set: one volume of the caller's each. */

static int wrong_state(struct ec2_call *call, const struct records_volume *v)
{
	return ec2_error(call, "IncorrectState", "Volume '%s' is in the '%s' state.", v->volume_id,
			 v->state);
}

int ec2_delete_volume(struct ec2_call *call, const struct ec2_delete_volume_request *in)
{
	struct records_volume *v;
	enum volume_state next;
	int r = ec2_begin(call);

	if (r >= 0)
		r = ec2_get(call, KIND_VOLUME, in->volume_id, &v);
	if (r < 0)
		return r;
	if (v->instance_id)
		return ec2_error(call, "VolumeInUse", "Volume %s is currently attached to %s",
				 v->volume_id, v->instance_id);
	switch (volume_next(volume_state_of(v), VOLUME_ASK_DELETE, &next)) {
	case EBS_REFUSES:
		return wrong_state(call, v);
	case EBS_STAYS:
		break;
	case EBS_MOVES:
		volume_enter(v, next, call->now_ms);
		r = volume_put(call, v, true);
		break;
	}
	return r < 0 ? r : ec2_commit(call);
}

/* ---- ModifyVolume ---- */

/* What a change to io1, io2 or gp3 gives when it does not say; a change within a type keeps it. */
enum { DEFAULT_IOPS = 3000 };

static int plan_shape(struct ec2_call *call, const struct ec2_modify_volume_request *in,
		      const struct records_volume *v, const struct volume_type **ret_type,
		      struct volume_limits *ret)
{
	const char *name = in->volume_type ? in->volume_type : v->volume_type;
	const struct volume_type *t = volume_type_find(name);
	bool same = str_eq(name, v->volume_type);
	int64_t size = in->size.set ? in->size.value : v->size_gib.value;
	int64_t iops = in->iops.value, mib_per_s = in->throughput.value;

	if (!t)
		return ec2_error(call, "UnknownVolumeType", "Unsupported volume type '%.64s'.",
				 name);
	if ((in->iops.set && iops < 1) || (in->throughput.set && mib_per_s < 1))
		return ec2_error(call, "InvalidParameterValue",
				 "The parameters iops and throughput must be positive");
	if (size < v->size_gib.value)
		return ec2_error(call, "InvalidParameterValue",
				 "New size cannot be smaller than existing size");
	if (!in->iops.set && volume_type_takes_iops(t))
		iops = same ? v->iops.value : DEFAULT_IOPS;
	if (!in->throughput.set && same && volume_type_takes_throughput(t))
		mib_per_s = v->throughput.value;
	*ret_type = t;
	return volume_type_limits(t, (uint64_t)size, (uint64_t)iops, (uint64_t)mib_per_s, ret,
				  &call->error);
}

static int check_boots(struct ec2_call *call, const struct records_volume *v,
		       const struct volume_type *t)
{
	const struct records_instance_block_device *d;
	struct record rec;
	int r;

	if (!v->instance_id || volume_type_boots(t))
		return 0;
	r = record_get(call->clc, call->arena, KIND_INSTANCE, v->instance_id, &rec, &call->error);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	d = device_of_volume(rec.value, v->volume_id);
	if (d && d->boot.value)
		return ec2_error(call, "InvalidParameterValue",
				 "The volume '%s' is a root volume, which cannot be of type %s",
				 v->volume_id, volume_type_name(t));
	return 0;
}

static int check_modify(struct ec2_call *call, const struct ec2_modify_volume_request *in,
			const struct records_volume *v)
{
	enum volume_state unused;

	if (!in->size.set && !in->volume_type && !in->iops.set && !in->throughput.set &&
	    !in->multi_attach_enabled.set)
		return ec2_error(call, "MissingParameter",
				 "The request must contain at least one of the parameters size, "
				 "volumeType, iops and throughput");
	if (in->multi_attach_enabled.value)
		return ec2_error(call, "UnsupportedOperation",
				 "A volume is attached to one instance at a time here: "
				 "MultiAttachEnabled cannot be true");
	if (volume_next(volume_state_of(v), VOLUME_ASK_MODIFY, &unused) == EBS_REFUSES)
		return wrong_state(call, v);
	if (volume_is_modifying(v))
		return ec2_error(call, "IncorrectModificationState",
				 "Volume '%s' cannot be modified in modification state MODIFYING",
				 v->volume_id);
	return 0;
}

static struct wire_int unless_zero(uint64_t value)
{
	return (struct wire_int){.set = value != 0, .value = (int64_t)value};
}

static void set_modification(struct ec2_call *call, const struct ec2_modify_volume_request *in,
			     struct records_volume *v, const struct volume_type *t,
			     const struct volume_limits *l)
{
	v->modification = arena_new_struct(call->arena, struct records_volume_modification);
	*v->modification = (struct records_volume_modification){
	    .state = MODIFICATION_MODIFYING,
	    .start_time = WIRE_TIME_OF(call->now_ms),
	    .original_size_gib = v->size_gib,
	    .original_volume_type = v->volume_type,
	    .original_iops = v->iops,
	    .original_throughput = v->throughput,
	    .target_size_gib = in->size.set ? in->size : v->size_gib,
	    .target_volume_type = volume_type_name(t),
	    .target_iops = unless_zero(l->shown_iops),
	    .target_throughput = unless_zero(l->shown_mib_per_s),
	};
}

int ec2_modify_volume(struct ec2_call *call, const struct ec2_modify_volume_request *in,
		      struct ec2_modify_volume_result *out)
{
	const struct volume_type *type = NULL;
	struct volume_limits limits;
	struct records_volume *v;
	int r = ec2_begin(call);

	if (r >= 0)
		r = ec2_get(call, KIND_VOLUME, in->volume_id, &v);
	if (r >= 0)
		r = check_modify(call, in, v);
	if (r >= 0)
		r = plan_shape(call, in, v, &type, &limits);
	if (r >= 0)
		r = check_boots(call, v, type);
	if (r < 0)
		return r;
	set_modification(call, in, v, type, &limits);
	r = volume_put(call, v, true);
	if (r >= 0)
		r = ec2_commit(call);
	if (r >= 0)
		out->volume_modification = modification_to_reply(call->arena, v);
	return r;
}

/* ---- attributes ---- */

int ec2_modify_volume_attribute(struct ec2_call *call,
				const struct ec2_modify_volume_attribute_request *in)
{
	struct records_volume *v;
	int r;

	if (!in->auto_enable_io || !in->auto_enable_io->value.set)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter AutoEnableIO");
	r = ec2_begin(call);
	if (r >= 0)
		r = ec2_get(call, KIND_VOLUME, in->volume_id, &v);
	if (r < 0)
		return r;
	v->auto_enable_io = in->auto_enable_io->value;
	r = volume_put(call, v, false);
	return r < 0 ? r : ec2_commit(call);
}

int ec2_describe_volume_attribute(struct ec2_call *call,
				  const struct ec2_describe_volume_attribute_request *in,
				  struct ec2_describe_volume_attribute_result *out)
{
	struct records_volume *v;
	int r = ec2_get(call, KIND_VOLUME, in->volume_id, &v);

	if (r < 0)
		return r;
	out->volume_id = v->volume_id;
	if (str_eq(in->attribute, "autoEnableIO")) {
		out->auto_enable_io =
		    arena_new_struct(call->arena, struct ec2_attribute_boolean_value);
		out->auto_enable_io->value = WIRE_BOOL_OF(v->auto_enable_io.value);
	} else if (str_eq(in->attribute, "productCodes")) {
		out->product_codes.set = true;
	} else {
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.60s) for parameter attribute is invalid. Unknown "
				 "attribute.",
				 in->attribute);
	}
	return 0;
}
