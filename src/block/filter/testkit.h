/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_TESTKIT_H
#define MALLEE_BLOCK_FILTER_TESTKIT_H

/* For tests of one filter over the disk in memory: queue 0 is run by the test, requests are waited for. After cmocka.h. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "block/core/testkit.h"
#include "block/filter/filter.h"

extern const struct blk_layer_ops blk_mem_ops; /* the tests are linked with the back ends, the filters are not */

static inline double kit_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline int kit_try(const struct blk_layer_ops *filter, const char *spec, const char *back, unsigned queues, struct blk_stack **ret,
			  struct error *e)
{
	const struct blk_layer_ops *drivers[] = { filter, &blk_mem_ops, NULL };
	const char *filters[] = { spec, NULL };
	/* The stack keeps the table for what it opens later: none of these filters does. */
	struct blk_stack_settings settings = { drivers, back, filters, queues, BLK_IO_THREADS };

	return blk_stack_open(&settings, ret, e);
}

static inline struct blk_stack *kit_open(const struct blk_layer_ops *filter, const char *spec, const char *back, unsigned queues)
{
	struct blk_stack *s = NULL;
	struct error e = { 0 };

	if (kit_try(filter, spec, back, queues, &s, &e))
		fail_msg("%s: %s", spec, e.message);
	return s;
}

static inline void kit_run(struct blk_stack *s, int ms)
{
	bool never = false;

	blk_queue_run_until(blk_stack_queue(s, 0), &never, ms);
}

static inline void kit_command(struct blk_stack *s, const char *layer, const char *verb, const char *args)
{
	struct buf out = BUF_INIT;
	struct error e = { 0 };

	if (blk_stack_command(s, layer, verb, args, &out, &e))
		fail_msg("%s %s: %s", verb, args ? args : "", e.message);
	buf_done(&out);
}

#endif
