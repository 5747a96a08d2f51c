/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_CORE_FRONT_H
#define MALLEE_BLOCK_CORE_FRONT_H

#include "block/core/stack.h"

struct loop;

/*
 * A front end: shows a stack to the outside. Its protocol socket lives on the main thread's loop (os/loop.h), its requests on
 * the stack's queues. One static const table each, listed in block/drivers.c.
 */
struct blk_front {
	const struct blk_front_ops *ops;
	struct blk_stack *stack;
	struct loop *loop;
	unsigned needs; /* BLK_NEEDS_…, set by open */
	void *state;
	/* Told to the operator, one line (connected, peer gone, protocol error …). stack, loop and say are the program's. */
	void (*say)(void *ctx, bool is_error, const char *text);
	void *say_ctx;
};

struct blk_front_ops {
	const char *name;
	const char *doc;
	const struct blk_option *options;
	/* Binds and listens; the stack runs. Failing, it has undone all. */
	int (*open)(struct blk_front *f, const struct blk_values *v, struct error *e);
	/* No new requests; returns when those inside have been answered and every connection is closed. On the main thread. */
	void (*close)(struct blk_front *f);
	void (*stats)(struct blk_front *f, struct blk_stats_sink *sink); /* any thread */
};

/* spec: "vhost-user:socket=…"; fronts: NULL-terminated, block/drivers.h. */
int blk_front_open(const struct blk_front_ops *const *fronts, const char *spec, struct blk_front *f, struct error *e);
void blk_front_close(struct blk_front *f);

#endif
