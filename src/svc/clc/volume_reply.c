/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "svc/clc/ebs_encryption.h"
#include "svc/clc/volumes.h"

struct ec2_volume_attachment attachment_to_reply(const struct records_instance *i,
						 const struct records_instance_block_device *d)
{
	return (struct ec2_volume_attachment){
	    .attach_time = d->attach_time,
	    .device = d->device_name,
	    .instance_id = i->instance_id,
	    .state = d->state,
	    .volume_id = d->volume_id,
	    .delete_on_termination = WIRE_BOOL_OF(d->delete_on_termination.value),
	};
}

static struct ec2_volume_attachment_list attachments(struct arena *a,
						     const struct records_volume *v,
						     const struct records_instance *i)
{
	const struct records_instance_block_device *d = i ? device_of_volume(i, v->volume_id) : NULL;
	struct ec2_volume_attachment_list out = {.set = true};

	if (!d)
		return out;
	out.count = 1;
	out.items = arena_new_struct(a, struct ec2_volume_attachment);
	out.items[0] = attachment_to_reply(i, d);
	return out;
}

struct ec2_volume volume_to_reply(struct ec2_call *call, const struct records_volume *v,
				  const struct records_instance *i, struct ec2_tag_list tags)
{
	return (struct ec2_volume){
	    .attachments = attachments(call->arena, v, i),
	    .availability_zone = v->availability_zone,
	    .create_time = v->create_time,
	    .encrypted = WIRE_BOOL_OF(v->encrypted.value),
	    .kms_key_id = encryption_key_shown(call, v->account_id, &v->encrypted, v->kms_key_id),
	    .size = v->size_gib,
	    .snapshot_id = v->snapshot_id ? v->snapshot_id : "",
	    .state = v->state,
	    .volume_id = v->volume_id,
	    .iops = v->iops,
	    .tags = tags,
	    .volume_type = v->volume_type,
	    .multi_attach_enabled = WIRE_BOOL_OF(false),
	    .throughput = v->throughput,
	};
}

struct ec2_volume_modification *modification_to_reply(struct arena *a,
						      const struct records_volume *v)
{
	struct ec2_volume_modification *out = arena_new_struct(a, struct ec2_volume_modification);
	const struct records_volume_modification *m = v->modification;

	*out = (struct ec2_volume_modification){
	    .volume_id = v->volume_id,
	    .modification_state = m->state,
	    .status_message = m->status_message,
	    .target_size = m->target_size_gib,
	    .target_iops = m->target_iops,
	    .target_volume_type = m->target_volume_type,
	    .target_throughput = m->target_throughput,
	    .target_multi_attach_enabled = WIRE_BOOL_OF(false),
	    .original_size = m->original_size_gib,
	    .original_iops = m->original_iops,
	    .original_volume_type = m->original_volume_type,
	    .original_throughput = m->original_throughput,
	    .original_multi_attach_enabled = WIRE_BOOL_OF(false),
	    .progress = WIRE_INT_OF(str_eq(m->state, MODIFICATION_COMPLETED) ? 100 : 0),
	    .start_time = m->start_time,
	    .end_time = m->end_time,
	};
	return out;
}
