/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_TESTS_BLOCK_LOAD_H
#define MALLEE_TESTS_BLOCK_LOAD_H

#include "block/core/stack.h"
#include "model.h"

#define LOAD_DEPTH 8u

struct load {
	struct blk_stack *stack;
	struct world *world;
	struct model *model;
	unsigned ops;        /* of each queue */
	uint64_t seed;
	unsigned barriers;   /* chance in a thousand, a fifth of a millisecond */
	/* On the main thread, now and then. NULL: nothing. */
	void (*meanwhile)(struct load *l, uint64_t *random);
	void *ctx;
	_Atomic uint64_t failed;
};

/* Random requests on all queues of a started stack; reads are checked as they end. */
void load_run(struct load *l);
/* Reads everything and checks it against the view; stamps: room for all sectors. */
void load_verify(struct load *l, const struct history_view *v, uint64_t *stamps, const char *what);

#endif
