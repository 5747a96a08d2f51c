/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FRONT_FRONTS_H
#define MALLEE_BLOCK_FRONT_FRONTS_H

#include "block/core/front.h"

extern const struct blk_front_ops blk_vhost_user_ops; /* a guest's virtqueues */
extern const struct blk_front_ops blk_nbd_server_ops; /* NBD, unix socket or TCP, TLS */
extern const struct blk_front_ops blk_fuse_ops;       /* one file, for a loop device */

#endif
