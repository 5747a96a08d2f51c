/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/text.h"
#include "svc/sc/sc_priv.h"
#include "svc/sc/view_reader.h"
#include "wire/codec.h"

static struct sc_item **place(struct sc *sc, const char *id)
{
	uint32_t hash = 2166136261u;
	struct sc_item **p;

	for (const char *c = id; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 16777619u;
	for (p = &sc->buckets[hash % SC_BUCKETS]; *p; p = &(*p)->hash_next) {
		if (str_eq((*p)->id, id))
			break;
	}
	return p;
}

struct sc_item *sc_find(struct sc *sc, const char *id)
{
	return *place(sc, id);
}

struct sc_volume *sc_find_volume(struct sc *sc, const char *id)
{
	struct sc_item *item = sc_find(sc, id);

	return item && item->kind == SC_VOLUME ? sc_volume_of(item) : NULL;
}

struct sc_snapshot *sc_find_snapshot(struct sc *sc, const char *id)
{
	struct sc_item *item = sc_find(sc, id);

	return item && item->kind == SC_SNAPSHOT ? sc_snapshot_of(item) : NULL;
}

struct sc_item *sc_add(struct sc *sc, enum sc_kind kind, const char *id)
{
	struct sc_item **p = place(sc, id);
	struct sc_item *item = calloc(1, kind == SC_VOLUME ? sizeof(struct sc_volume) : sizeof(struct sc_snapshot));

	assert(!*p);
	if (!item)
		abort();
	item->kind = kind;
	strncpy(item->id, id, sizeof(item->id) - 1);
	*p = item;
	sc->count++;
	return item;
}

static void unqueue(struct sc_queue *q, struct sc_item *item)
{
	for (struct sc_item **p = &q->first; *p; p = &(*p)->queue_next) {
		if (*p != item)
			continue;
		*p = item->queue_next;
		if (q->last == &item->queue_next)
			q->last = p;
		return;
	}
}

void sc_remove(struct sc *sc, struct sc_item *item)
{
	struct sc_item **p = place(sc, item->id);

	assert(*p == item && !item->busy);
	if (item->queued)
		unqueue(&sc->light, item);
	*p = item->hash_next;
	sc->count--;
	arena_free(item->arena);
	free(item);
}

void sc_table_free(struct sc *sc)
{
	for (size_t i = 0; i < SC_BUCKETS; i++) {
		while (sc->buckets[i]) {
			sc->buckets[i]->busy = false;
			sc_remove(sc, sc->buckets[i]);
		}
	}
}

void sc_set_spec(struct sc_item *item, const void *spec)
{
	struct arena *a = arena_new();

	if (item->kind == SC_VOLUME) {
		const struct storage_volume_spec *v = item->spec = wire_copy(a, &storage_shape_volume_spec, spec);
		item->generation = v->generation.value;
		item->deleted = str_eq(v->wanted, "deleted");
	} else {
		const struct storage_snapshot_spec *s = item->spec = wire_copy(a, &storage_shape_snapshot_spec, spec);
		item->generation = s->generation.value;
		item->deleted = str_eq(s->wanted, "deleted");
		if (item->deleted) { /* what is moved for it need not be */
			struct sc_snapshot *snap = sc_snapshot_of(item);
			snap->cancel = true;
			if (snap->writer)
				snap_writer_cancel(snap->writer);
			if (snap->http)
				http_client_cancel(snap->http);
			if (snap->reader)
				view_reader_cancel(snap->reader);
		}
	}
	arena_free(item->arena);
	item->arena = a;
}

void sc_each(struct sc *sc, void (*fn)(struct sc *sc, struct sc_item *item, void *ctx), void *ctx)
{
	for (size_t i = 0; i < SC_BUCKETS; i++) {
		for (struct sc_item *item = sc->buckets[i]; item; item = item->hash_next)
			fn(sc, item, ctx);
	}
}

void sc_show(struct sc *sc, struct sc_item *item)
{
	item->revision = ++sc->revision;
	pthread_cond_broadcast(&sc->shown);
}

void sc_kick(struct sc *sc, struct sc_item *item)
{
	struct sc_queue *q = &sc->light;

	item->due_mono_ms = 0;
	if (item->busy) {
		item->again = true;
		return;
	}
	if (item->queued)
		return;
	item->queued = true;
	item->queue_next = NULL;
	*q->last = item;
	q->last = &item->queue_next;
	pthread_cond_signal(&q->filled);
}

void sc_kick_id(struct sc *sc, const char *id)
{
	pthread_mutex_lock(&sc->lock);
	struct sc_item *item = sc_find(sc, id);
	if (item)
		sc_kick(sc, item);
	pthread_mutex_unlock(&sc->lock);
}

static void kick_one(struct sc *sc, struct sc_item *item, void *ctx)
{
	sc_kick(sc, item);
}

void sc_kick_all(struct sc *sc)
{
	sc_each(sc, kick_one, NULL);
}

static void kick_of_volume(struct sc *sc, struct sc_item *item, void *ctx)
{
	const struct sc_snapshot *s = sc_snapshot_of(item);

	if (item->kind == SC_SNAPSHOT && str_eq(sc_snapshot_spec(s)->volume_id, ctx) && (s->rec.state == SC_S_PENDING || s->rec.view.set))
		sc_kick(sc, item);
}

void sc_kick_snapshots(struct sc *sc, const char *volume_id)
{
	sc_each(sc, kick_of_volume, (void *)volume_id);
}

/* ---- one at work on it ---- */

static void deadline_in(struct timespec *t, int timeout_ms)
{
	clock_gettime(CLOCK_MONOTONIC, t);
	t->tv_sec += timeout_ms / 1000;
	t->tv_nsec += timeout_ms % 1000 * 1000000L;
	t->tv_sec += t->tv_nsec / 1000000000;
	t->tv_nsec %= 1000000000;
}

struct sc_item *sc_take(struct sc *sc, const char *id, int timeout_ms, bool *ret_known)
{
	struct timespec end;
	struct sc_item *item;

	deadline_in(&end, timeout_ms);
	pthread_mutex_lock(&sc->lock);
	while ((item = sc_find(sc, id)) && item->busy && !sc->stopping) {
		if (pthread_cond_timedwait(&sc->freed, &sc->lock, &end))
			break;
	}
	item = sc_find(sc, id);
	*ret_known = item != NULL;
	if (item && (item->busy || sc->stopping))
		item = NULL;
	if (item)
		item->busy = true;
	pthread_mutex_unlock(&sc->lock);
	return item;
}

void sc_give_back(struct sc *sc, struct sc_item *item, bool kick)
{
	pthread_mutex_lock(&sc->lock);
	item->busy = false;
	if (kick || item->again) {
		item->again = false;
		sc_kick(sc, item);
	}
	pthread_cond_broadcast(&sc->freed);
	pthread_mutex_unlock(&sc->lock);
}
