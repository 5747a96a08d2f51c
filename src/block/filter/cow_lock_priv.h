/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_COW_LOCK_PRIV_H
#define MALLEE_BLOCK_FILTER_COW_LOCK_PRIV_H

#include <pthread.h>

#include "block/core/queue.h"

/*
 * Locks on ranges of chunks, between the queues of a stack. Who cannot have one waits in a list at the one that is in its way,
 * and is told by its task, on its own queue, when that was released: it then looks again at whether it needs the lock, and
 * tries again. A holder has one lock at a time, so that nobody waits in a circle.
 */
struct chunk_lock {
	struct blk_task task;       /* fn and queue are the taker's */
	struct blk_queue *queue;
	uint64_t first, count;
	bool shared;
	struct chunk_lock *next;    /* of the held, or of those who wait for the same one */
	struct chunk_lock *waiting; /* for this one, last first */
};

struct chunk_locks {
	pthread_mutex_t lock;
	struct chunk_lock *held;
};

void chunk_locks_init(struct chunk_locks *t);
void chunk_locks_done(struct chunk_locks *t); /* asserts that none is held */
/* Whether it has it; if not, k->task runs later, once. Any thread. */
bool chunk_lock_take(struct chunk_locks *t, struct chunk_lock *k);
void chunk_lock_release(struct chunk_locks *t, struct chunk_lock *k);

#endif
