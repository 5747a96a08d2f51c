/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_BACK_BACK_H
#define MALLEE_BLOCK_BACK_BACK_H

#include "block/core/layer.h"

/* The back ends: what a stack stands on. */
extern const struct blk_layer_ops blk_file_ops; /* a regular file or a whole block device */
extern const struct blk_layer_ops blk_mem_ops;  /* memory, gone with the process */
extern const struct blk_layer_ops blk_null_ops; /* reads zeroes, forgets writes: measures the path alone */
extern const struct blk_layer_ops blk_nbd_ops;  /* an NBD server's export */

#endif
