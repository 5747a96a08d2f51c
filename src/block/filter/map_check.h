/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_MAP_CHECK_H
#define MALLEE_BLOCK_FILTER_MAP_CHECK_H

#include "base/error.h"

/*
 * Whether a map of cow or snap can be read as it lies on the disk: its header and every page, of which one good copy of two is enough.
 * An empty one is fine: it was never used. Of a volume that nobody serves. -EBADMSG: damaged; other: it cannot be looked at.
 */
int blk_map_check(const char *path, struct error *e);

#endif
