/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_BACK_SNAPSHOT_H
#define MALLEE_SVC_SC_BACK_SNAPSHOT_H

#include "block/core/layer.h"

/*
 * A snapshot as a read-only back end, "snapshot:id=snap-…,config=/path": for the storage controller's own table of drivers. config is
 * a file of `name = value` lines, readable by its owner only, since it holds a key: endpoint, region, bucket, access-key-id,
 * secret-access-key. (`#` begins a comment.)
 */
extern const struct blk_layer_ops blk_snapshot_ops;

#endif
