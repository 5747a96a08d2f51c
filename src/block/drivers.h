/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_DRIVERS_H
#define MALLEE_BLOCK_DRIVERS_H

#include "block/core/front.h"
#include "block/core/layer.h"

/* Every filter, in the order of a stack from the front end down, and then every back end. NULL-terminated. */
extern const struct blk_layer_ops *const blk_drivers[];
/* Every front end. NULL-terminated. */
extern const struct blk_front_ops *const blk_fronts[];

#endif
