/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_VOLUMES_H
#define MALLEE_SVC_CLC_VOLUMES_H

#include "model/volume_state.h"
#include "model/volume_type.h"
#include "svc/clc/clc_priv.h"

/*
 * What the files about volumes, snapshots and attachments share. Records are those of records.json.
 *
 * An attachment stands in its instance's record (BlockDevices); the volume's record names that
 * instance. Both are written in one transaction. The specification that the storage controller gets
 * of a volume is made from both (storage_spec.c); the node's from the instance's record alone
 * (spec.c).
 */

/* What `Wanted` says in records and specifications of volumes, snapshots and attachments. */
#define WANTED_AVAILABLE "available"
#define WANTED_COMPLETED "completed"
#define WANTED_DELETED "deleted"
#define WANTED_ATTACHED "attached"
#define WANTED_DETACHED "detached"
#define WANTED_FORCED "forced"

/* What EC2 shows as the volume of a snapshot that is of none. */
#define NO_VOLUME_ID "vol-ffffffff"

/* ---- volumes (volume_record.c) ---- */

/* What a request asks of a new volume: CreateVolume's parameters, or a block device of a launch or
 * an image. 0 and NULL: not said. */
struct volume_wish {
	const char *volume_type; /* NULL: gp2 for CreateVolume as at EC2; launches say what they mean */
	const char *snapshot_id;
	int64_t size_gib, iops, mib_per_s;
	bool encrypted;	/* asked for; it may be without */
	const char *kms_key_id;
	bool of_image; /* the snapshot is one of an image that the caller may launch: it need not
			  be the caller's to use */
};
/* A record in state creating, checked (types' limits, snapshot visible and completed, the account's
 * room) and not stored yet; in the call's arena. UnknownVolumeType, InvalidParameterValue,
 * InvalidParameterCombination, InvalidSnapshot.NotFound, IncorrectState, MissingParameter,
 * UnsupportedOperation, VolumeLimitExceeded. */
int volume_plan(struct ec2_call *call, const struct volume_wish *w, struct records_volume **ret);
/* Store it; with spec_changed its generation grows and the storage reconciler is woken at commit.
 * Within a transaction. */
int volume_put(struct ec2_call *call, struct records_volume *v, bool spec_changed);
/* The same for who has no call: the caller wakes the reconciler. */
int volume_store(struct clc *c, struct records_volume *v, bool spec_changed, struct error *e);
/* A name that is none of ours (a damaged record) counts as error. */
enum volume_state volume_state_of(const struct records_volume *v);
void volume_enter(struct records_volume *v, enum volume_state s, int64_t now_ms);
/* Its last attachment has ended: the volume is available again, or, with `delete`, is to go. */
void volume_let_go(struct records_volume *v, bool delete, int64_t now_ms);

/* Size and performance: as they are, or as a modification that is under way wants them. 0: not
 * shown of this type. */
struct volume_shape {
	const char *type;
	int64_t size_gib, iops, mib_per_s;
};
struct volume_shape volume_wanted_shape(const struct records_volume *v);
#define MODIFICATION_MODIFYING "modifying"
#define MODIFICATION_COMPLETED "completed"
#define MODIFICATION_FAILED "failed"
bool volume_is_modifying(const struct records_volume *v);
/* The storage controller has done it. */
void volume_modified(struct records_volume *v, int64_t now_ms);
/* It cannot do it: the volume stays as it was, which is to be told as a new specification. */
void volume_not_modified(struct records_volume *v, const char *why, int64_t now_ms);

/* ---- attachments (attachment.c) ---- */

/* Attach, within the transaction of the call: the device goes into i->block_devices with the lowest
 * free slot (boot: 0), the volume becomes in-use and names the instance. A volume that is still
 * being made may be attached by the launch that makes it: it becomes in-use when it is made.
 * Neither record is stored: the caller puts both. AttachmentLimitExceeded, InvalidParameterValue
 * (the device's name is taken or no name). */
struct attach_wish {
	const char *device_name;
	bool boot, delete_on_termination;
};
int device_attach(struct ec2_call *call, struct records_instance *i, struct records_volume *v,
		  const struct attach_wish *w, struct records_instance_block_device **ret);
struct records_instance_block_device *device_of_volume(const struct records_instance *i,
						       const char *volume_id);
struct records_instance_block_device *device_by_name(const struct records_instance *i,
						     const char *device_name);
/* One that has one of the last slots, which whole disks of the node need; NULL: none has. */
struct records_instance_block_device *device_in_last_slots(const struct records_instance *i, int count);
/* /dev/sd… or /dev/xvd…, as EC2 takes them. */
bool device_name_valid(const char *name);
enum attachment_state attachment_state_of(const struct records_instance_block_device *d);
/* Drop it from the record; pointers to other devices of the instance are void. */
void device_remove(struct records_instance *i, const char *volume_id);

/* What a node reports of an instance's devices, within the observer's transaction
 * (observe_devices.c). *ret_changed: the instance's record is to be written; *ret_ended: an
 * attachment has ended, which is no longer wanted of the node, nor of the storage controller. */
int devices_observe(struct clc *c, struct arena *a, const struct shared_instance_observed *seen,
		    struct records_instance *i, bool *ret_changed, bool *ret_ended,
		    struct error *e);

/* As replies show them (volume_reply.c). i: the instance that has it, or NULL. */
struct ec2_volume_attachment attachment_to_reply(const struct records_instance *i,
						 const struct records_instance_block_device *d);
struct ec2_volume volume_to_reply(struct ec2_call *call, const struct records_volume *v,
				  const struct records_instance *i, struct ec2_tag_list tags);
struct ec2_volume_modification *modification_to_reply(struct arena *a,
						      const struct records_volume *v);

/* ---- snapshots (snapshot_record.c) ---- */

/* A new snapshot of a volume (or import, or copy), pending and not stored. */
struct snapshot_wish {
	const struct records_volume *volume; /* NULL: import_location or copy_of */
	const char *import_location;	     /* bucket/key */
	const struct records_snapshot *copy_of;
	const char *description;
	bool encrypted; /* of an import or a copy: asked for */
	const char *kms_key_id;
};
/* IncorrectState (the volume or the source is not such that it can be had),
 * InvalidParameterValue, SnapshotLimitExceeded, ConcurrentSnapshotLimitExceeded. */
int snapshot_plan(struct ec2_call *call, const struct snapshot_wish *w,
		  struct records_snapshot **ret);
/* ConcurrentSnapshotLimitExceeded when so many snapshots of it are pending that there can be no more. */
int snapshot_check_pending(struct ec2_call *call, const struct records_volume *v);
int snapshot_put(struct ec2_call *call, struct records_snapshot *s, bool spec_changed);
int snapshot_store(struct clc *c, struct records_snapshot *s, bool spec_changed, struct error *e);
/* As ec2_get() words its errors: the caller's own, or one that it may make volumes of (with `own`
 * such a one is UnauthorizedOperation). */
int ec2_snapshot_get(struct ec2_call *call, const char *id, bool own,
		     struct records_snapshot **ret);
/* One of an image that the caller may launch: whoever it belongs to. */
int ec2_snapshot_of_image(struct ec2_call *call, const char *id, struct records_snapshot **ret);
enum snapshot_state snapshot_state_of(const struct records_snapshot *s);
/* Whether an account may make volumes of it: its own, public, or shared with it; not once deleted.
 */
bool snapshot_visible(const struct records_snapshot *s, const char *account_id);
/* Ask for its end within a transaction: hidden from now on, its tags forgotten. */
int snapshot_drop(struct ec2_call *call, struct records_snapshot *s);
struct ec2_snapshot snapshot_to_reply(struct ec2_call *call, const struct records_snapshot *s,
				      struct ec2_tag_list tags);

#endif
