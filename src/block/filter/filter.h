/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_FILTER_H
#define MALLEE_BLOCK_FILTER_FILTER_H

#include "block/core/layer.h"

/* The filters, in their order from the front end down. */
extern const struct blk_layer_ops blk_throttle_ops;  /* IOPS and bytes per second, with bursts */
extern const struct blk_layer_ops blk_coalesce_ops;  /* write-back cache that outlives the process; merges small writes */
extern const struct blk_layer_ops blk_readahead_ops; /* sequential readers never wait for the disk */
extern const struct blk_layer_ops blk_snap_ops;      /* frozen views, changed blocks */
extern const struct blk_layer_ops blk_cow_ops;       /* clones that end up plain; preallocation */
extern const struct blk_layer_ops blk_crypt_ops;     /* encryption at rest */
extern const struct blk_layer_ops blk_fault_ops;     /* delay, error, torn write: for tests */
extern const struct blk_layer_ops blk_disk_ops;      /* a mechanical disk's timing: for measurements */

#endif
