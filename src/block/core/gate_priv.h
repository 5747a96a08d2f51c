/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_CORE_GATE_PRIV_H
#define MALLEE_BLOCK_CORE_GATE_PRIV_H

#include "block/core/request.h"

/*
 * A stack's door on one queue: counts who is inside, and parks who may not come in: while it is shut, or when BLK_DEPTH_MAX
 * are inside. On the queue's thread.
 */
struct blk_gate {
	void (*enter)(struct blk_gate *g, struct blk_req *r); /* hands r to the stack */
	void (*quiet)(struct blk_gate *g); /* shut, and the last has left */
	void *ctx;
	struct blk_list parked;
	unsigned inside;
	bool shut;
};

void gate_submit(struct blk_gate *g, struct blk_req *r);
void gate_shut(struct blk_gate *g); /* calls quiet(), now or later */
void gate_open(struct blk_gate *g);

#endif
