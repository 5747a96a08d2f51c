/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_IMAGE_DEVICES_H
#define MALLEE_SVC_CLC_IMAGE_DEVICES_H

#include "svc/clc/clc_priv.h"

/*
 * Block device mappings, in the form that images' records have them: of RegisterImage and CreateImage, and what a launch makes of
 * its image's and its own. A device is found by its name, literally, as at EC2.
 */

/* A request's mappings over those that are there already (an image's, an instance's, none): by device name they change one, add
 * one, or, by NoDevice, take one away. `root` cannot be taken away. One with a VirtualName (ephemeral0 …) is a
 * local disk of the instance's type, which the root cannot be. InvalidBlockDeviceMapping, MissingParameter … */
int image_devices_merge(struct ec2_call *call,
			const struct ec2_block_device_mapping_request_list *in, const char *root,
			struct records_image_block_device_list *io);

/* Fill in sizes and types that were not said, and check each: its snapshot is there, is the caller's to use (unless `granted` has
 * a device of that name and snapshot) and completed, the volume is not smaller, the type can be had of that size and can boot. */
int image_devices_check(struct ec2_call *call, const char *root,
			const struct records_image_block_device_list *granted,
			struct records_image_block_device_list *io);

/* An image's snapshots are as they are, or as the instance's volumes (`own`; NULL: none) are: its mappings, which have been merged,
 * say nothing else of their encryption. A launch may have more encrypted. InvalidBlockDeviceMapping. */
int image_devices_check_encryption(struct ec2_call *call, const struct ec2_block_device_mapping_request_list *in,
				   const struct records_image_block_device_list *own);

struct records_image_block_device *
image_device_find(const struct records_image_block_device_list *l, const char *device_name);
/* A deep enough copy: items may be changed. In a. */
struct records_image_block_device_list
image_devices_copy(struct arena *a, const struct records_image_block_device_list *l);
/* As replies show them. */
struct ec2_block_device_mapping_list
image_devices_to_reply(struct arena *a, const struct records_image_block_device_list *l);

#endif
