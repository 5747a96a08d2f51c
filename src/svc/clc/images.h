/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_IMAGES_H
#define MALLEE_SVC_CLC_IMAGES_H

#include "svc/clc/clc_priv.h"

/* States of an image's record, and their names in it. */
#define IMAGE_PENDING "pending" /* the worker has not read its object yet */
#define IMAGE_AVAILABLE "available"
#define IMAGE_FAILED "failed"
#define IMAGE_DEREGISTERED                                                                         \
	"deregistered" /* hidden; the record stays while instances were made from it */

/* Whether an account may see and launch it: its own, public, or shared with it; not once
 * deregistered. */
bool image_visible(const struct records_image *image, const char *account_id);

/* The image by id as ec2_get() words its errors: visible to the caller; with `own`, AuthFailure
 * unless it is the caller's. */
int ec2_image_get(struct ec2_call *call, const char *id, bool own, struct records_image **ret);

/* For every way to make an image. InvalidAMIName.Malformed, InvalidParameterValue. */
int image_name_check(struct ec2_call *call, const char *name);
int image_description_check(struct ec2_call *call, const char *description);
/* Give it what all images have, and an id unless it has one, and store it: AMILimitExceeded, InvalidAMIName.Duplicate. Within a
 * transaction. */
int image_put_new(struct ec2_call *call, struct records_image *image);
/* "ACCOUNT/NAME": what EC2 shows as the location of one that is made of snapshots. */
const char *image_location_of(struct ec2_call *call, const char *name);
bool image_is_ebs(const struct records_image *image);

/* ---- CreateImage (create_image.c): what is still to be done for it, CreatePhase ---- */
#define CREATE_STOPPING "stopping"   /* the guest is to be off: the observer sees when it is */
#define CREATE_SNAPSHOTS "snapshots" /* make those that are named with a VolumeId; once all have begun, the guest may go on */

/* For one that failed or is deregistered: snapshots that have not been made will not be, so their tags go; an instance that is kept
 * off for it no longer is. Changes *image, too, which the caller stores. Within a transaction. */
int image_end(struct ec2_call *call, struct records_image *image);
/* One step of a pending image of snapshots, in a transaction of its own: snapshots are made, its instance goes on, it becomes
 * available or failed. *ret_wait: its next step needs somebody else's, the storage controller's or a node's. */
int image_step(struct clc *c, const char *image_id, bool *ret_wait, struct error *e);

/* Store a changed record under its owner, with its name while it is registered. */
int image_put(struct clc *c, const struct records_image *image, struct error *e);

/* The registered image (pending, available or failed; anybody's) that uses the snapshot, for DeleteSnapshot: its id in a, or NULL.
 */
int image_of_snapshot(struct clc *c, struct arena *a, const char *snapshot_id, const char **ret_image_id, struct error *e);

#endif
