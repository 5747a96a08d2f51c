/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_CORE_STACK_PRIV_H
#define MALLEE_BLOCK_CORE_STACK_PRIV_H

#include <pthread.h>

#include "block/core/gate_priv.h"
#include "block/core/stack.h"

#define LAYERS_MAX 12
#define EXTRA_BACKS_MAX 4

struct blk_stack {
	const struct blk_layer_ops *const *drivers;
	struct blk_queue *queue[BLK_QUEUES_MAX];
	struct blk_gate gate[BLK_QUEUES_MAX];
	unsigned queues;
	bool started;
	struct blk_layer *layer[LAYERS_MAX]; /* [0] is the back end, the last the top */
	unsigned layers;
	struct blk_layer *extra[EXTRA_BACKS_MAX]; /* blk_back_open() */
	bool queues_ready; /* queue_start has been called */
	struct blk_io_stats *guest_io, *disk_io;  /* per queue */

	pthread_mutex_t change;  /* one barrier, resize or command that needs one at a time; held while it lasts */
	pthread_mutex_t lock;    /* what follows */
	pthread_cond_t quieter;
	unsigned quiet;          /* gates that are shut and empty */
	struct blk_listener *listeners;
};

/* fn on q's thread and back; the caller's own where the stack was not started. */
void stack_on_queue(struct blk_stack *s, struct blk_queue *q, void (*fn)(void *ctx), void *ctx);

#endif
