/* SPDX-License-Identifier: Apache-2.0 */
#include "block/filter/cow_lock_priv.h"

#include <assert.h>

void chunk_locks_init(struct chunk_locks *t)
{
	pthread_mutex_init(&t->lock, NULL);
	t->held = NULL;
}

void chunk_locks_done(struct chunk_locks *t)
{
	assert(!t->held);
	pthread_mutex_destroy(&t->lock);
}

static bool conflict(const struct chunk_lock *held, const struct chunk_lock *k)
{
	bool overlap = held->first < k->first + k->count && k->first < held->first + held->count;

	/* A sharer goes behind who waits for the lock alone, or that one would never get it. */
	return overlap && !(held->shared && k->shared && !held->waiting);
}

bool chunk_lock_take(struct chunk_locks *t, struct chunk_lock *k)
{
	struct chunk_lock *at;

	assert(k->count);
	k->waiting = NULL;
	pthread_mutex_lock(&t->lock);
	for (at = t->held; at && !conflict(at, k); at = at->next)
		;
	struct chunk_lock **list = at ? &at->waiting : &t->held;
	k->next = *list;
	*list = k;
	pthread_mutex_unlock(&t->lock);
	return !at;
}

void chunk_lock_release(struct chunk_locks *t, struct chunk_lock *k)
{
	struct chunk_lock *first = NULL;

	pthread_mutex_lock(&t->lock);
	struct chunk_lock **at = &t->held;
	while (*at != k)
		at = &(*at)->next;
	*at = k->next;
	while (k->waiting) {
		struct chunk_lock *w = k->waiting;
		k->waiting = w->next;
		w->next = first;
		first = w;
	}
	pthread_mutex_unlock(&t->lock);
	while (first) {
		struct chunk_lock *w = first;
		first = w->next;
		blk_queue_post(w->queue, &w->task);
	}
}
