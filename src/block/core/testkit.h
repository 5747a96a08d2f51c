/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_CORE_TESTKIT_H
#define MALLEE_BLOCK_CORE_TESTKIT_H

#include <stdlib.h>
#include <string.h>

#include "block/core/stack.h"

/* For drivers' tests, after cmocka.h: one request at a time through a stack whose queue 0 the caller's thread runs. */

static inline void kit_done(struct blk_req *r)
{
	*(bool *)r->ctx = true;
}

static inline int kit_request(struct blk_stack *s, struct blk_req *r)
{
	bool done = false;

	r->queue = blk_stack_queue(s, 0);
	r->done = kit_done;
	r->ctx = &done;
	blk_stack_submit(s, r);
	assert_false(done);
	assert_int_equal(blk_queue_run_until(r->queue, &done, 20000), 0);
	return r->result;
}

static inline int kit_io(struct blk_stack *s, enum blk_op op, unsigned flags, uint64_t off, void *data, uint64_t len)
{
	struct iovec iov = { data, len };
	struct blk_req r = { .op = op, .flags = flags, .off_bytes = off, .len_bytes = len, .iov = &iov, .iov_count = 1 };

	if (op != BLK_READ && op != BLK_WRITE)
		r.iov_count = 0;
	return kit_request(s, &r);
}

static inline bool kit_all(const void *data, size_t len, int byte)
{
	const unsigned char *p = data;

	while (len && *p == byte) {
		p++;
		len--;
	}
	return !len;
}

#endif
