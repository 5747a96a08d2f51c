/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's threads: light workers (short steps), heavy workers (images and disks), a ticker that
 * wakes instances whose time has come, closers of volumes (closing.c), and three that each do one
 * thing: housekeeper, reacher, registrar.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/nc/nc_priv.h"

#define TICK_MS 100
#define LOOK_MS 30000 /* a call-back of the hypervisor may have been missed */

static struct nc_instance *take(struct nc *nc, struct nc_queue *q)
{
	struct nc_instance *inst;

	while (!q->first && !nc->stopping)
		pthread_cond_wait(&q->filled, &nc->lock);
	if (nc->stopping)
		return NULL;
	inst = q->first;
	q->first = inst->queue_next;
	if (!q->first)
		q->last = &q->first;
	inst->queued = false;
	inst->busy = true;
	return inst;
}

static void to_heavy(struct nc *nc, struct nc_instance *inst)
{
	struct nc_queue *q = &nc->heavy;

	inst->queue_next = NULL;
	*q->last = inst;
	q->last = &inst->queue_next;
	pthread_cond_signal(&q->filled);
}

static void put_back(struct nc *nc, struct nc_instance *inst, const struct nc_outcome *out)
{
	if (out->heavy) {
		to_heavy(nc, inst); /* still busy */
		return;
	}
	inst->busy = false;
	if (inst->forgotten) {
		nc_remove(nc, inst);
		return;
	}
	if (inst->again || out->again)
		nc_kick(nc, inst);
	else if (out->wait_ms > 0)
		inst->due_mono_ms = clock_mono_ms() + out->wait_ms;
}

static void work(struct nc *nc, struct nc_queue *q, bool heavy)
{
	struct nc_instance *inst;

	pthread_mutex_lock(&nc->lock);
	while ((inst = take(nc, q))) {
		struct nc_outcome out;

		pthread_mutex_unlock(&nc->lock);
		out = nc_reconcile(nc, inst, heavy);
		pthread_mutex_lock(&nc->lock);
		put_back(nc, inst, &out);
	}
	pthread_mutex_unlock(&nc->lock);
}

static void *light_worker(void *ctx)
{
	struct nc *nc = ctx;

	work(nc, &nc->light, false);
	return NULL;
}

static void *heavy_worker(void *ctx)
{
	struct nc *nc = ctx;

	work(nc, &nc->heavy, true);
	return NULL;
}

static void kick_if_due(struct nc *nc, struct nc_instance *inst, void *ctx)
{
	if (inst->due_mono_ms && inst->due_mono_ms <= *(int64_t *)ctx)
		nc_kick(nc, inst);
}

static void *ticker(void *ctx)
{
	struct nc *nc = ctx;
	int64_t look_at = 0;

	while (nc_sleep(nc, TICK_MS)) {
		int64_t now = clock_mono_ms();

		pthread_mutex_lock(&nc->lock);
		nc_each(nc, kick_if_due, &now);
		if (now >= look_at) {
			nc_kick_all(nc);
			look_at = now + LOOK_MS;
		}
		pthread_mutex_unlock(&nc->lock);
	}
	return NULL;
}

bool nc_sleep(struct nc *nc, int64_t ms)
{
	struct timespec t;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	pthread_mutex_lock(&nc->lock);
	while (!nc->stopping && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&nc->stop, &nc->lock, &t);
	pthread_mutex_unlock(&nc->lock);
	return !nc->stopping;
}

void nc_watch(void *ctx, const char *domain_name)
{
	struct nc *nc = ctx;
	size_t prefix = strlen("mallee-") + strlen(nc->cloud_id) + 1;
	struct nc_instance *inst;

	pthread_mutex_lock(&nc->lock);
	if (!domain_name) {
		nc_kick_all(nc);
	} else if (strlen(domain_name) > prefix) {
		inst = nc_find(nc, domain_name + prefix);
		if (inst)
			nc_kick(nc, inst);
	}
	pthread_mutex_unlock(&nc->lock);
}

int nc_work_start(struct nc *nc, struct error *e)
{
	static void *(*const single[])(void *) = {ticker,	nc_housekeeper, nc_reacher,
						     nc_registrar, nc_sampler,     nc_file_sampler};
	void *(*run[NC_THREADS])(void *);
	size_t n = 0;

	for (int i = 0; i < NC_WORKERS; i++)
		run[n++] = light_worker;
	for (int i = 0; i < NC_HEAVY_WORKERS; i++)
		run[n++] = heavy_worker;
	for (int i = 0; i < NC_CLOSERS; i++)
		run[n++] = nc_closer;
	for (size_t i = 0; i < ARRAY_SIZE(single); i++)
		run[n++] = single[i];
	for (size_t i = 0; i < n; i++) {
		int r = pthread_create(&nc->threads[i], NULL, run[i], nc);

		if (r != 0)
			return error_errno(e, r, "cannot start the node's threads");
		nc->thread_count++;
	}
	return 0;
}

void nc_work_stop(struct nc *nc)
{
	pthread_mutex_lock(&nc->lock);
	nc->stopping = true;
	pthread_cond_broadcast(&nc->stop);
	pthread_cond_broadcast(&nc->shown);
	pthread_cond_broadcast(&nc->light.filled);
	pthread_cond_broadcast(&nc->heavy.filled);
	pthread_cond_broadcast(&nc->close_due);
	sampler_stop(&nc->sampler);
	if (nc->cc)
		rpc_client_cancel(nc->cc);
	for (size_t i = 0; i < ARRAY_SIZE(nc->sc); i++)
		if (nc->sc[i].client)
			rpc_client_cancel(nc->sc[i].client);
	pthread_mutex_unlock(&nc->lock);
	if (nc->cache)
		image_cache_cancel(nc->cache);
	for (size_t i = 0; i < nc->thread_count; i++)
		pthread_join(nc->threads[i], NULL);
	nc->thread_count = 0;
}
