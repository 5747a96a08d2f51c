/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_BACK_TESTKIT_H
#define MALLEE_BLOCK_BACK_TESTKIT_H

/* For this folder's tests: a stack whose queue 0 is run by the test, and requests that are waited for. After cmocka.h. */
#include <stdlib.h>
#include <string.h>

#include "block/core/testkit.h"

static inline struct blk_stack *kit_open(const struct blk_layer_ops *const *drivers, const char *back, enum blk_io_engine engine,
					 unsigned queues)
{
	struct blk_stack_settings settings = { drivers, back, NULL, queues, engine };
	struct blk_stack *s = NULL;
	struct error e = { 0 };

	if (blk_stack_open(&settings, &s, &e))
		fail_msg("%s: %s", back, e.message);
	return s;
}

#endif
