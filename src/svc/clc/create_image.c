/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/image_devices.h"
#include "svc/clc/images.h"
#include "svc/clc/instances.h"
#include "svc/clc/ebs_encryption.h"
#include "svc/clc/volumes.h"

/*
 * CreateImage and CopyImage: images of snapshots that have yet to be made.
 *
 * The image's record says what is to be done, and each step is one transaction, so any daemon may be killed between two of them:
 *
 *   CreatePhase stopping    Instance.HeldOffFor names the image: the specification that the node gets wants the guest stopped,
 *                           while the API goes on to show it running. The observer, who hears that it is off, sets the next phase.
 *   CreatePhase snapshots   a snapshot record for each device with a VolumeId. The volumes stand still. When the storage controller
 *                           has begun all of them, HeldOffFor is cleared and the guest started again.
 *   none                    available when all snapshots are completed, failed when one is.
 *
 * NoReboot, or an instance that is stopped: snapshots are made in the request's own transaction.
 */

bool image_is_ebs(const struct records_image *image)
{
	return str_eq(image->root_device_type, "ebs");
}

/* ---- snapshots ---- */

/* Of one device, under the id that the mapping has. */
static int make_snapshot(struct ec2_call *call, const struct records_image *image,
			 struct records_image_block_device *d)
{
	struct records_volume *v;
	struct records_snapshot *s;
	int r = ec2_get(call, KIND_VOLUME, d->volume_id, &v);

	if (r < 0)
		return r;
	r = snapshot_plan(call,
			  &(struct snapshot_wish){
			      .volume = v,
			      .description = arena_printf(call->arena, "Created by CreateImage(%s) for %s",
							  image->source_instance_id, image->image_id)},
			  &s);
	if (r < 0)
		return r;
	s->snapshot_id = d->snapshot_id;
	d->volume_id = NULL;
	return snapshot_put(call, s, true);
}

static int make_snapshots(struct ec2_call *call, struct records_image *image)
{
	for (size_t i = 0; i < image->block_devices.count; i++) {
		struct records_image_block_device *d = &image->block_devices.items[i];
		int r = d->volume_id ? make_snapshot(call, image, d) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

static bool has_volumes(const struct records_image *image)
{
	for (size_t i = 0; i < image->block_devices.count; i++)
		if (image->block_devices.items[i].volume_id)
			return true;
	return false;
}

/* ---- the instance ---- */

static int release_instance(struct ec2_call *call, struct records_image *image)
{
	struct record rec;
	int r;

	if (!image->create_phase)
		return 0;
	image->create_phase = NULL;
	r = record_get(call->clc, call->arena, KIND_INSTANCE, image->source_instance_id, &rec,
		       &call->error);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	struct records_instance *i = rec.value;
	if (!str_eq(i->held_off_for, image->image_id))
		return 0;
	i->held_off_for = NULL;
	return instance_put(call, i, true);
}

/* Told before the guest is taken off for it. */
static int check_pending(struct ec2_call *call, const struct records_image *image)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < image->block_devices.count; i++) {
		const char *id = image->block_devices.items[i].volume_id;
		struct records_volume *v;

		if (!id)
			continue;
		r = ec2_get(call, KIND_VOLUME, id, &v);
		if (r >= 0)
			r = snapshot_check_pending(call, v);
	}
	return r;
}

int image_end(struct ec2_call *call, struct records_image *image)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < image->block_devices.count; i++)
		if (image->block_devices.items[i].volume_id)
			r = tags_drop(call->clc, image->block_devices.items[i].snapshot_id, &call->error);
	return r < 0 ? r : release_instance(call, image);
}

static int hold_off(struct ec2_call *call, struct records_instance *i, struct records_image *image)
{
	if (i->held_off_for)
		return ec2_error(call, "IncorrectInstanceState",
				 "The instance '%s' is off for the image %s: try again when that has "
				 "its snapshots",
				 i->instance_id, i->held_off_for);
	int r = check_pending(call, image);
	if (r < 0)
		return r;
	i->held_off_for = image->image_id;
	image->create_phase = CREATE_STOPPING;
	return instance_put(call, i, true);
}

/* ---- CreateImage ---- */

static int check_source(struct ec2_call *call, const struct records_instance *i)
{
	enum instance_state s = instance_state_of(i);

	if (!instance_is_ebs(i))
		return ec2_error(call, "InvalidParameterValue",
				 "The instance '%s' does not have an 'ebs' root device type: no image "
				 "can be made of it",
				 i->instance_id);
	if (s != INSTANCE_RUNNING && s != INSTANCE_STOPPED)
		return ec2_error(call, "IncorrectInstanceState",
				 "The instance '%s' must be running or stopped, and is %s",
				 i->instance_id, instance_state_name(s));
	return 0;
}

/* The instance's devices as an image's, with ids for the snapshots to come. */
static int list_devices(struct ec2_call *call, const struct records_instance *i,
			struct records_image_block_device_list *ret)
{
	struct records_image_block_device_list out = {.set = true};

	out.items = arena_new_array(call->arena, struct records_image_block_device,
				    i->block_devices.count);
	for (size_t n = 0; n < i->block_devices.count; n++) {
		const struct records_instance_block_device *d = &i->block_devices.items[n];
		struct records_volume *v;
		char id[ID_LEN];

		if (!str_eq(d->wanted, WANTED_ATTACHED))
			continue;
		int r = ec2_get(call, KIND_VOLUME, d->volume_id, &v);
		if (r < 0)
			return r;
		id_new("snap", id);
		out.items[out.count++] = (struct records_image_block_device){
		    .device_name = d->device_name,
		    .snapshot_id = arena_strdup(call->arena, id),
		    .volume_id = v->volume_id,
		    .size_gib = v->size_gib,
		    .volume_type = v->volume_type,
		    .iops = str_eq(v->volume_type, "gp2") ? (struct wire_int){0} : v->iops,
		    .throughput = v->throughput,
		    .encrypted = v->encrypted,
		    .kms_key_id = v->kms_key_id,
		    .delete_on_termination = d->delete_on_termination,
		};
	}
	*ret = out;
	return 0;
}

/* A disk cannot be smaller than what was on the one that it is made of. */
static int check_sizes(struct ec2_call *call, const struct records_image_block_device_list *was,
		       const struct records_image_block_device_list *is)
{
	for (size_t n = 0; n < is->count; n++) {
		const struct records_image_block_device *old =
		    image_device_find(was, is->items[n].device_name);

		if (old && !is->items[n].virtual_name && is->items[n].size_gib.value < old->size_gib.value)
			return ec2_error(call, "InvalidBlockDeviceMapping",
					 "Volume of size %lldGB of %s is smaller than the instance's, "
					 "expect size >= %lldGB",
					 (long long)is->items[n].size_gib.value, old->device_name,
					 (long long)old->size_gib.value);
	}
	return 0;
}

static int plan_devices(struct ec2_call *call, const struct ec2_create_image_request *in,
			const struct records_instance *i, struct records_image *image)
{
	struct records_image_block_device_list own;
	int r = list_devices(call, i, &own);

	image->block_devices = own;
	if (r >= 0)
		r = image_devices_merge(call, &in->block_device_mappings, i->root_device_name,
					&image->block_devices);
	if (r >= 0)
		r = image_devices_check_encryption(call, &in->block_device_mappings, &own);
	if (r >= 0)
		r = check_sizes(call, &own, &image->block_devices);
	if (r >= 0)
		r = image_devices_check(call, i->root_device_name, NULL, &image->block_devices);
	if (r < 0)
		return r;
	const struct records_image_block_device *root =
	    image_device_find(&image->block_devices, i->root_device_name);
	if (!root)
		return ec2_error(call, "IncorrectInstanceState",
				 "The root volume of '%s' is not attached", i->instance_id);
	image->size_bytes = WIRE_INT_OF(root->size_gib.value << 30);
	return 0;
}

static int put_tags(struct ec2_call *call, const struct ec2_create_image_request *in,
		    const struct records_image *image)
{
	static const char *const allowed[] = {"image", "snapshot", NULL};
	struct shared_tag_list tags;
	int r = ec2_tags_from_specs(call, &in->tag_specifications, allowed, "image", &tags);

	if (r >= 0 && tags.count)
		r = tags_put(call, "image", image->image_id, &tags);
	if (r >= 0)
		r = ec2_tags_from_specs(call, &in->tag_specifications, allowed, "snapshot", &tags);
	for (size_t i = 0; r >= 0 && tags.count && i < image->block_devices.count; i++)
		if (image->block_devices.items[i].volume_id)
			r = tags_put(call, "snapshot", image->block_devices.items[i].snapshot_id,
				     &tags);
	return r;
}

static int create(struct ec2_call *call, const struct ec2_create_image_request *in,
		  struct records_instance *i, struct records_image *image)
{
	bool reboot = !(in->no_reboot.set && in->no_reboot.value) &&
		      instance_state_of(i) == INSTANCE_RUNNING;
	int r = check_source(call, i);

	if (r >= 0)
		r = plan_devices(call, in, i, image);
	if (r >= 0)
		r = put_tags(call, in, image);
	if (r >= 0)
		r = reboot ? hold_off(call, i, image) : make_snapshots(call, image);
	return r < 0 ? r : image_put_new(call, image);
}

int ec2_create_image(struct ec2_call *call, const struct ec2_create_image_request *in,
		     struct ec2_create_image_result *out)
{
	struct records_image image = {
	    .name = in->name,
	    .description = in->description,
	    .state = IMAGE_PENDING,
	    .root_device_type = "ebs",
	    .source_instance_id = in->instance_id,
	};
	struct records_instance *i;
	char id[ID_LEN];
	int r = image_name_check(call, in->name);

	if (r == 0)
		r = image_description_check(call, in->description);
	if (r == 0)
		r = ec2_begin(call);
	if (r == 0)
		r = ec2_get(call, KIND_INSTANCE, in->instance_id, &i);
	if (r < 0)
		return r;
	id_new("ami", id);
	image.image_id = arena_strdup(call->arena, id);
	image.image_location = image_location_of(call, in->name);
	image.root_device_name = i->root_device_name;
	image.sriov_net_support = i->sriov_net_support;
	r = create(call, in, i, &image);
	if (r == 0)
		r = ec2_commit(call);
	if (r == 0)
		out->image_id = image.image_id;
	return r;
}

/* ---- CopyImage ---- */

static int copy_snapshot(struct ec2_call *call, const struct ec2_copy_image_request *in,
			 const struct records_image *from, const struct records_image *to,
			 struct records_image_block_device *d)
{
	struct records_snapshot *s;
	struct record rec;
	int r = record_get(call->clc, call->arena, KIND_SNAPSHOT, d->snapshot_id, &rec, &call->error);

	if (r == -ENOENT)
		return ec2_error(call, "InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.",
				 d->snapshot_id);
	if (r < 0)
		return r;
	r = snapshot_plan(call,
			  &(struct snapshot_wish){
			      .copy_of = rec.value,
			      .encrypted = in->encrypted.value,
			      .kms_key_id = in->kms_key_id,
			      .description = arena_printf(call->arena,
							  "Copied for DestinationAmi %s from SourceAmi %s "
							  "for SourceSnapshot %s",
							  to->image_id, from->image_id, d->snapshot_id)},
			  &s);
	if (r < 0)
		return r;
	d->snapshot_id = s->snapshot_id;
	d->encrypted = s->encrypted;
	d->kms_key_id = s->kms_key_id;
	return snapshot_put(call, s, true);
}

static int check_copy(struct ec2_call *call, const struct ec2_copy_image_request *in)
{
	if (!str_eq(in->source_region, call->clc->region))
		return ec2_error(call, "InvalidRegion",
				 "The region %.64s is none of this cloud: it has %s only",
				 in->source_region, call->clc->region);
	int k = encryption_check_key(call, in->kms_key_id, &in->encrypted);
	if (k < 0)
		return k;
	if (in->client_token && *in->client_token)
		return ec2_error(call, "UnsupportedOperation",
				 "CopyImage takes no client token here: the new image's name tells a "
				 "repeated request");
	int r = image_name_check(call, in->name);
	return r < 0 ? r : image_description_check(call, in->description);
}

int ec2_copy_image(struct ec2_call *call, const struct ec2_copy_image_request *in,
		   struct ec2_copy_image_result *out)
{
	struct records_image image = {
	    .name = in->name, .state = IMAGE_PENDING, .root_device_type = "ebs"};
	struct records_image *from;
	char id[ID_LEN];
	int r = check_copy(call, in);

	if (r == 0)
		r = ec2_begin(call);
	if (r == 0)
		r = ec2_image_for_launch(call, in->source_image_id, &from);
	if (r == 0 && !image_is_ebs(from))
		r = ec2_error(call, "UnsupportedOperation",
			      "The image '%s' is not of snapshots: register its object again under "
			      "another name instead",
			      from->image_id);
	if (r < 0)
		return r;
	id_new("ami", id);
	image.image_id = arena_strdup(call->arena, id);
	image.image_location = image_location_of(call, in->name);
	image.description = in->description ? in->description : from->description;
	image.root_device_name = from->root_device_name;
	image.boot_mode = from->boot_mode;
	image.sriov_net_support = from->sriov_net_support;
	image.size_bytes = from->size_bytes;
	image.block_devices = image_devices_copy(call->arena, &from->block_devices);
	for (size_t i = 0; r == 0 && i < image.block_devices.count; i++)
		if (image.block_devices.items[i].snapshot_id)
			r = copy_snapshot(call, in, from, &image, &image.block_devices.items[i]);
	if (r == 0)
		r = image_put_new(call, &image);
	if (r == 0)
		r = ec2_commit(call);
	if (r == 0)
		out->image_id = image.image_id;
	return r;
}

/* ---- what follows ---- */

static int fail(struct ec2_call *call, struct records_image *image, const char *why)
{
	image->state = IMAGE_FAILED;
	image->state_reason_code = "Client.SnapshotFailed";
	image->state_reason_message = why;
	return image_end(call, image);
}

/* Snapshots by how far they are; *ret_why: why there can be no image. A volume may have grown until its snapshot was begun: so
 * then does the image's. */
static int look_at_snapshots(struct ec2_call *call, struct records_image *image,
			     bool *ret_begun, bool *ret_completed, const char **ret_why)
{
	*ret_begun = *ret_completed = true;
	for (size_t i = 0; i < image->block_devices.count; i++) {
		struct records_image_block_device *d = &image->block_devices.items[i];
		const char *id = d->snapshot_id;
		struct record rec;

		if (!id)
			continue;
		int r = record_get(call->clc, call->arena, KIND_SNAPSHOT, id, &rec, &call->error);
		if (r < 0 && r != -ENOENT)
			return r;
		const struct records_snapshot *s = r == 0 ? rec.value : NULL;
		enum snapshot_state state =
		    s ? snapshot_state_of(s) : SNAPSHOT_DELETED;
		if (state != SNAPSHOT_PENDING && state != SNAPSHOT_COMPLETED)
			*ret_why = arena_printf(call->arena, "The snapshot %s %s%s%s", id,
						s ? "failed" : "is gone",
						s && s->state_message ? ": " : "",
						s && s->state_message ? s->state_message : "");
		if (s && d->size_gib.value < s->volume_size_gib.value)
			d->size_gib = s->volume_size_gib;
		*ret_completed = *ret_completed && state == SNAPSHOT_COMPLETED;
		*ret_begun = *ret_begun && (state == SNAPSHOT_COMPLETED || (s && s->begin_time.set));
	}
	return 0;
}

/* The guest goes off, or has been stopped or ended meanwhile by somebody else. */
static int step_stopping(struct ec2_call *call, struct records_image *image, bool *ret_wait)
{
	struct record rec;
	int r = record_get(call->clc, call->arena, KIND_INSTANCE, image->source_instance_id, &rec,
			   &call->error);

	if (r < 0 && r != -ENOENT)
		return r;
	const struct records_instance *i = r == 0 ? rec.value : NULL;
	enum instance_state s = i ? instance_state_of(i) : INSTANCE_TERMINATED;
	if (s == INSTANCE_SHUTTING_DOWN || s == INSTANCE_TERMINATED)
		return fail(call, image, "The instance was terminated before its snapshots were made");
	if (s == INSTANCE_STOPPED)
		image->create_phase = CREATE_SNAPSHOTS;
	else
		*ret_wait = true;
	return 0;
}

static int step_snapshots(struct ec2_call *call, struct records_image *image, bool *ret_wait)
{
	bool begun, completed;
	const char *why = NULL;
	int r;

	if (has_volumes(image))
		return make_snapshots(call, image);
	r = look_at_snapshots(call, image, &begun, &completed, &why);
	if (r < 0 || why)
		return r < 0 ? r : fail(call, image, why);
	if (image->create_phase && begun)
		return release_instance(call, image);
	if (!image->create_phase && completed)
		image->state = IMAGE_AVAILABLE;
	else
		*ret_wait = true;
	return 0;
}

/* The image in *ret if it is still pending, else NULL. */
static int load_pending(struct ec2_call *call, const char *image_id, struct records_image **ret)
{
	struct record rec;
	int r = record_get(call->clc, call->arena, KIND_IMAGE, image_id, &rec, &call->error);

	*ret = NULL;
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	struct records_image *image = rec.value;
	call->account_id = image->account_id;
	if (str_eq(image->state, IMAGE_PENDING))
		*ret = image;
	return 0;
}

static int store(struct ec2_call *call, const struct records_image *image)
{
	int r = image_put(call->clc, image, &call->error);

	if (r >= 0)
		r = ec2_commit(call);
	if (r >= 0 && !str_eq(image->state, IMAGE_PENDING))
		log_info("image", "id=%s state=%s reason=%s", image->image_id, image->state,
			 image->state_reason_message ? log_quote(image->state_reason_message) : "-");
	return r;
}

static int step(struct ec2_call *call, const char *image_id, bool *ret_wait)
{
	struct records_image *image;
	int r = ec2_begin(call);

	if (r >= 0)
		r = load_pending(call, image_id, &image);
	if (r < 0)
		return r;
	if (!image) {
		*ret_wait = true;
		return 0;
	}
	r = str_eq(image->create_phase, CREATE_STOPPING) ? step_stopping(call, image, ret_wait)
							 : step_snapshots(call, image, ret_wait);
	return r < 0 || *ret_wait ? r : store(call, image);
}

static int give_up(struct ec2_call *call, const char *image_id, const char *why)
{
	struct records_image *image;
	int r = ec2_begin(call);

	if (r >= 0)
		r = load_pending(call, image_id, &image);
	if (r < 0 || !image)
		return r;
	r = fail(call, image, why);
	return r < 0 ? r : store(call, image);
}

static void end_transaction(struct ec2_call *call)
{
	if (call->in_transaction)
		state_rollback(call->clc->state);
	call->in_transaction = false;
}

int image_step(struct clc *c, const char *image_id, bool *ret_wait, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct ec2_call call = {.clc = c, .arena = a, .now_ms = clock_unix_ms()};
	bool wait = false;
	int r = step(&call, image_id, &wait);

	end_transaction(&call);
	/* What a request would be refused for (a volume that is gone) does not change by waiting. */
	if (r < 0 && !str_eq(call.error.code, "InternalError")) {
		const char *why = arena_strdup(a, call.error.message);

		error_clear(&call.error);
		r = give_up(&call, image_id, why);
		end_transaction(&call);
	}
	if (r < 0)
		*e = call.error;
	else
		*ret_wait = wait;
	return r;
}
