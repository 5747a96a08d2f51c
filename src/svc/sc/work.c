/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads: light workers (short steps), heavy workers (data of snapshots), a ticker that wakes items whose time has come, a
 * housekeeper (exports that nobody needs, what uploads left in Walrus), and the connector (bucket.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/sc/sc_priv.h"
#include "svc/sc/snap_format_priv.h"
#include "svc/sc/snap_store_priv.h"
#include "svc/sc/view_reader.h"

#define TICK_MS 100
#define RETRY_FIRST_MS 200
#define RETRY_MOST_MS 15000
#define TIDY_MS 2000
#define GC_MS (60 * 60 * 1000)
#define GIVE_UP_MS (INT64_C(30) * 24 * 3600 * 1000) /* uploads that no record tells of; those that one does are given up by it */

bool sc_sleep(struct sc *sc, int64_t ms)
{
	struct timespec t;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	pthread_mutex_lock(&sc->lock);
	while (!sc->stopping && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&sc->stop, &sc->lock, &t);
	pthread_mutex_unlock(&sc->lock);
	return !sc->stopping;
}

int64_t sc_retry_ms(struct sc *sc, struct sc_item *item, const struct error *why, int64_t *ret_for_ms)
{
	int64_t now = clock_mono_ms(), wait_ms;

	pthread_mutex_lock(&sc->lock);
	unsigned attempts = ++item->attempts;
	if (!item->failing_since_mono_ms)
		item->failing_since_mono_ms = now;
	if (ret_for_ms)
		*ret_for_ms = now - item->failing_since_mono_ms;
	pthread_mutex_unlock(&sc->lock);
	wait_ms = MIN_OF((int64_t)RETRY_FIRST_MS << MIN_OF(attempts - 1, 10u), (int64_t)RETRY_MOST_MS);
	metrics_add(sc->metrics, SC_M_RETRIES, 1);
	log_warn("will try again", "id=%s attempt=%u in_ms=%lld err=%s", item->id, attempts, (long long)wait_ms, log_quote(why->message));
	return wait_ms;
}

void sc_succeeded(struct sc *sc, struct sc_item *item)
{
	pthread_mutex_lock(&sc->lock);
	item->attempts = 0;
	item->failing_since_mono_ms = 0;
	pthread_mutex_unlock(&sc->lock);
}

/* ---- workers ---- */

static struct sc_item *take(struct sc *sc, struct sc_queue *q, bool heavy)
{
	struct sc_item *item;

	while (!q->first && !sc->stopping)
		pthread_cond_wait(&q->filled, &sc->lock);
	if (sc->stopping)
		return NULL;
	item = q->first;
	q->first = item->queue_next;
	if (!q->first)
		q->last = &q->first;
	if (heavy)
		return item; /* busy since it was handed over */
	item->queued = false;
	if (item->busy) { /* a handler took it while it waited */
		item->again = true;
		return take(sc, q, heavy);
	}
	item->busy = true;
	return item;
}

static void to_heavy(struct sc *sc, struct sc_item *item)
{
	item->queue_next = NULL;
	*sc->heavy.last = item;
	sc->heavy.last = &item->queue_next;
	pthread_cond_signal(&sc->heavy.filled);
}

static void put_back(struct sc *sc, struct sc_item *item, const struct sc_outcome *out)
{
	if (out->heavy) {
		to_heavy(sc, item); /* still busy */
		return;
	}
	item->busy = false;
	pthread_cond_broadcast(&sc->freed);
	if (item->again || out->again) {
		item->again = false;
		sc_kick(sc, item);
	} else if (out->wait_ms > 0) {
		item->due_mono_ms = clock_mono_ms() + out->wait_ms;
	}
}

static void work(struct sc *sc, struct sc_queue *q, bool heavy)
{
	struct sc_item *item;

	pthread_mutex_lock(&sc->lock);
	while ((item = take(sc, q, heavy))) {
		struct sc_outcome out;

		item->again = false;
		pthread_mutex_unlock(&sc->lock);
		out = item->kind == SC_VOLUME ? sc_reconcile_volume(sc, sc_volume_of(item)) :
						sc_reconcile_snapshot(sc, sc_snapshot_of(item), heavy);
		pthread_mutex_lock(&sc->lock);
		put_back(sc, item, &out);
	}
	pthread_mutex_unlock(&sc->lock);
}

static void *light_worker(void *ctx)
{
	struct sc *sc = ctx;

	work(sc, &sc->light, false);
	return NULL;
}

static void *heavy_worker(void *ctx)
{
	struct sc *sc = ctx;

	work(sc, &sc->heavy, true);
	return NULL;
}

static void kick_if_due(struct sc *sc, struct sc_item *item, void *ctx)
{
	if (item->due_mono_ms && item->due_mono_ms <= *(int64_t *)ctx)
		sc_kick(sc, item);
}

static void *ticker(void *ctx)
{
	struct sc *sc = ctx;

	while (sc_sleep(sc, TICK_MS)) {
		int64_t now = clock_mono_ms();

		pthread_mutex_lock(&sc->lock);
		sc_each(sc, kick_if_due, &now);
		pthread_mutex_unlock(&sc->lock);
	}
	return NULL;
}

/* ---- the housekeeper ---- */

/* An upload whose snapshot is not on its way any more will never be gone on with. */
static bool is_left_over(struct sc *sc, const char *id)
{
	pthread_mutex_lock(&sc->lock);
	const struct sc_snapshot *s = sc_find_snapshot(sc, id);
	bool left = !s || s->rec.state == SC_S_COMPLETED || s->rec.state == SC_S_DELETED || (s->rec.state == SC_S_ERROR && !s->item.busy);
	pthread_mutex_unlock(&sc->lock);
	return left;
}

static void collect_garbage(struct sc *sc, struct snap_store *store)
{
	_cleanup_(snap_ids_done) struct snap_ids ids = { 0 };
	struct snap_removed removed = { 0 };
	struct error why = { 0 };
	int err = snap_all_ids(store, SNAP_MARKS, &ids, &why);

	for (size_t i = 0; !err && i < ids.count; i++) {
		if (!is_left_over(sc, ids.id[i]))
			continue;
		log_info("an upload is given up", "id=%s", ids.id[i]);
		err = snap_abandon(store, ids.id[i], &why);
		if (err == -EBUSY)
			err = 0;
	}
	if (!err)
		err = snap_gc(store, GIVE_UP_MS, &removed, &why);
	if (err && !sc->stopping)
		log_warn("snapshots' garbage cannot be collected", "err=%s", log_quote(why.message));
	else if (removed.packs)
		log_info("snapshots' garbage collected", "packs=%llu", (unsigned long long)removed.packs);
}

static void *housekeeper(void *ctx)
{
	struct sc *sc = ctx;
	int64_t gc_at = 0;

	while (sc_sleep(sc, TIDY_MS)) {
		struct snap_store *store = sc_store(sc, NULL);

		sc_exports_tidy(sc);
		if (store && clock_mono_ms() >= gc_at) {
			collect_garbage(sc, store);
			gc_at = clock_mono_ms() + GC_MS;
		}
	}
	return NULL;
}

/* ---- start and stop ---- */

int sc_work_start(struct sc *sc, struct error *e)
{
	static void *(*const single[])(void *) = { ticker, housekeeper, sc_connector };
	void *(*run[SC_THREADS])(void *);
	size_t n = 0;

	for (int i = 0; i < SC_WORKERS; i++)
		run[n++] = light_worker;
	for (int i = 0; i < SC_HEAVY_WORKERS; i++)
		run[n++] = heavy_worker;
	for (size_t i = 0; i < ARRAY_SIZE(single); i++)
		run[n++] = single[i];
	for (size_t i = 0; i < n; i++) {
		int r = pthread_create(&sc->threads[i], NULL, run[i], sc);

		if (r != 0)
			return error_errno(e, r, "cannot start the storage controller's threads");
		sc->thread_count++;
	}
	return 0;
}

static void cancel_one(struct sc *sc, struct sc_item *item, void *ctx)
{
	struct sc_snapshot *s = sc_snapshot_of(item);

	if (item->kind != SC_SNAPSHOT)
		return;
	s->cancel = true;
	if (s->writer)
		snap_writer_cancel(s->writer);
	if (s->http)
		http_client_cancel(s->http);
	if (s->reader)
		view_reader_cancel(s->reader);
}

void sc_work_stop(struct sc *sc)
{
	pthread_mutex_lock(&sc->lock);
	sc->stopping = true;
	pthread_cond_broadcast(&sc->stop);
	pthread_cond_broadcast(&sc->shown);
	pthread_cond_broadcast(&sc->freed);
	pthread_cond_broadcast(&sc->light.filled);
	pthread_cond_broadcast(&sc->heavy.filled);
	for (size_t i = 0; i < SC_CALLS; i++) {
		if (sc->calls[i])
			rpc_client_cancel(sc->calls[i]);
	}
	sc_each(sc, cancel_one, NULL);
	if (sc->objects)
		objects_cancel(sc->objects);
	pthread_mutex_unlock(&sc->lock);
	for (size_t i = 0; i < sc->thread_count; i++)
		pthread_join(sc->threads[i], NULL);
	sc->thread_count = 0;
}
