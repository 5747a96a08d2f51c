/* SPDX-License-Identifier: Apache-2.0 */
#include "block/drivers.h"

#include <stddef.h>

#include "block/back/back.h"
#include "block/filter/filter.h"
#include "block/front/fronts.h"

const struct blk_layer_ops *const blk_drivers[] = {
	&blk_throttle_ops,
	&blk_coalesce_ops,
	&blk_readahead_ops,
	&blk_snap_ops,
	&blk_cow_ops,
	&blk_crypt_ops,
	&blk_fault_ops,
	&blk_disk_ops,
	&blk_file_ops,
	&blk_mem_ops,
	&blk_null_ops,
	&blk_nbd_ops,
	NULL,
};

const struct blk_front_ops *const blk_fronts[] = {
	&blk_vhost_user_ops,
	&blk_nbd_server_ops,
	&blk_fuse_ops,
	NULL,
};
