/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "svc/clc/notice.h"

struct notice {
	pthread_mutex_t lock; /* innermost */
	pthread_cond_t changed;
	uint64_t count;
	bool closed;
};

struct notice *notice_new(void)
{
	struct notice *n = calloc(1, sizeof(*n));
	pthread_condattr_t attr;

	if (!n)
		abort();
	pthread_mutex_init(&n->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&n->changed, &attr);
	pthread_condattr_destroy(&attr);
	return n;
}

void notice_free(struct notice *n)
{
	if (!n)
		return;
	pthread_cond_destroy(&n->changed);
	pthread_mutex_destroy(&n->lock);
	free(n);
}

uint64_t notice_count(struct notice *n)
{
	pthread_mutex_lock(&n->lock);
	uint64_t count = n->count;
	pthread_mutex_unlock(&n->lock);
	return count;
}

static void wake_all(struct notice *n, bool close)
{
	if (!n)
		return;
	pthread_mutex_lock(&n->lock);
	n->count++;
	n->closed |= close;
	pthread_cond_broadcast(&n->changed);
	pthread_mutex_unlock(&n->lock);
}

void notice_post(struct notice *n)
{
	wake_all(n, false);
}

void notice_close(struct notice *n)
{
	wake_all(n, true);
}

bool notice_closed(struct notice *n)
{
	pthread_mutex_lock(&n->lock);
	bool closed = n->closed;
	pthread_mutex_unlock(&n->lock);
	return closed;
}

bool notice_wait(struct notice *n, uint64_t seen, int timeout_ms)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&n->lock);
	while (n->count == seen && !n->closed)
		if (pthread_cond_timedwait(&n->changed, &n->lock, &until) != 0)
			break;
	bool changed = n->count != seen && !n->closed;
	pthread_mutex_unlock(&n->lock);
	return changed;
}
