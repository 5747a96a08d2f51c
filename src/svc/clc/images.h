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

/* Store a changed record under its owner, with its name while it is registered. */
int image_put(struct clc *c, const struct records_image *image, struct error *e);

/* The registered image (pending, available or failed; anybody's) that uses the snapshot, for DeleteSnapshot: its id in a, or NULL.
 */
int image_of_snapshot(struct clc *c, struct arena *a, const char *snapshot_id, const char **ret_image_id, struct error *e);

#endif
