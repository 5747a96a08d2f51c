/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "gen/storage_rpc.h"
#include "svc/sc/sc_priv.h"
#include "wire/codec.h"
#include "wire/ops.h"

#define WAIT_MOST_MS 20000
#define LINGER_MS 20 /* changes come in swarms: wait for the rest of it */
#define FORGET_WAIT_MS 3000
#define SIZE_MOST (INT64_C(64) << 40)

/* ---- what is wanted ---- */

struct wanted { /* one specification of a message, of either kind */
	enum sc_kind kind;
	const char *id;
	const void *spec;
	int64_t generation;
	bool good;  /* it can be carried out */
	bool fresh; /* of an item that was not there */
	bool stale;
};

static const char *check_volume(const struct storage_volume_spec *v)
{
	if (!id_valid("vol", v->volume_id))
		return "VolumeId";
	if (!str_eq(v->wanted, "available") && !str_eq(v->wanted, "deleted"))
		return "Wanted";
	if (v->size_bytes.value < 4096 || v->size_bytes.value > SIZE_MOST || v->size_bytes.value % 4096)
		return "SizeBytes";
	if (v->snapshot_id && !id_valid("snap", v->snapshot_id))
		return "SnapshotId";
	if (v->attachment && (!id_valid("i", v->attachment->instance_id) || strlen(v->attachment->node_id) >= 64))
		return "Attachment";
	return NULL;
}

static const char *check_snapshot(const struct storage_snapshot_spec *s)
{
	if (!id_valid("snap", s->snapshot_id))
		return "SnapshotId";
	if (!str_eq(s->wanted, "completed") && !str_eq(s->wanted, "deleted"))
		return "Wanted";
	if (s->volume_id && !id_valid("vol", s->volume_id))
		return "VolumeId";
	if (s->copy_of && !id_valid("snap", s->copy_of))
		return "CopyOf";
	if (str_eq(s->wanted, "completed") && (s->volume_id != NULL) + (s->import != NULL) + (s->copy_of != NULL) != 1)
		return "one of VolumeId, Import and CopyOf is to be given";
	return NULL;
}

static void gather(const struct storage_apply_storage_request *in, struct wanted *list)
{
	size_t n = 0;

	for (size_t i = 0; i < in->volumes.count; i++, n++) {
		const struct storage_volume_spec *v = &in->volumes.items[i];
		const char *why = check_volume(v);
		list[n] = (struct wanted){ SC_VOLUME, v->volume_id, v, v->generation.value, .good = !why };
		if (why)
			log_warn("specification refused", "id=%s err=%s", log_quote(v->volume_id), log_quote(why));
	}
	for (size_t i = 0; i < in->snapshots.count; i++, n++) {
		const struct storage_snapshot_spec *s = &in->snapshots.items[i];
		const char *why = check_snapshot(s);
		list[n] = (struct wanted){ SC_SNAPSHOT, s->snapshot_id, s, s->generation.value, .good = !why };
		if (why)
			log_warn("specification refused", "id=%s err=%s", log_quote(s->snapshot_id), log_quote(why));
	}
}

/* One that is to be deleted need not say of what it was a snapshot; we have to know. Lock. */
static void keep_volume(struct wanted *w, const struct sc_item *known, struct arena *a)
{
	const struct storage_snapshot_spec *spec = w->spec;

	if (w->kind != SC_SNAPSHOT || known->kind != SC_SNAPSHOT || spec->volume_id)
		return;
	struct storage_snapshot_spec *whole = arena_memdup(a, spec, sizeof(*spec));
	whole->volume_id = arena_strdup(a, sc_snapshot_spec((const struct sc_snapshot *)known)->volume_id);
	w->spec = whole;
}

/* Into the table, busy until it is on disk; or found to be no news. */
static void enter(struct sc *sc, struct wanted *w, struct arena *a)
{
	pthread_mutex_lock(&sc->lock);
	struct sc_item *item = sc_find(sc, w->id);
	if (!item) {
		item = sc_add(sc, w->kind, w->id);
		sc_set_spec(item, w->spec);
		item->busy = w->fresh = true;
		if (w->kind == SC_VOLUME) /* from now on its source stays */
			sc_volume_of(item)->wants_export = sc_volume_spec(sc_volume_of(item))->snapshot_id != NULL;
	} else {
		w->stale = w->kind != item->kind || w->generation <= item->generation;
		keep_volume(w, item, a);
	}
	pthread_mutex_unlock(&sc->lock);
}

static int store(struct sc *sc, const struct wanted *w, struct error *e)
{
	static const struct sc_volume_record new_volume;
	static const struct sc_snapshot_record new_snapshot;
	int r = sc_store_spec(sc, w->kind, w->id, w->spec, e);

	if (r == 0 && w->fresh)
		r = w->kind == SC_VOLUME ? sc_store_volume(sc, w->id, &new_volume, e) : sc_store_snapshot(sc, w->id, &new_snapshot, e);
	return r;
}

/* The transaction is over: let the workers have them, or take new ones out again. */
static void release(struct sc *sc, const struct wanted *list, size_t count, bool stored)
{
	pthread_mutex_lock(&sc->lock);
	for (size_t i = 0; i < count; i++) {
		const struct wanted *w = &list[i];
		struct sc_item *item = w->good ? sc_find(sc, w->id) : NULL;

		if (!item)
			continue;
		if (w->fresh)
			item->busy = false;
		if (w->fresh && !stored) {
			sc_remove(sc, item);
		} else if (stored && (w->fresh || w->generation > item->generation)) {
			if (!w->fresh)
				sc_set_spec(item, w->spec);
			sc_show(sc, item);
			sc_kick(sc, item);
		}
	}
	pthread_cond_broadcast(&sc->freed);
	pthread_mutex_unlock(&sc->lock);
}

int storage_apply_storage(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_apply_storage_request *in,
			  struct storage_apply_storage_response *out, struct error *e)
{
	struct sc *sc = ctx;
	size_t count = in->volumes.count + in->snapshots.count, done = 0;
	struct wanted *list = arena_new_array(a, struct wanted, count + 1);
	int r;

	/* Full tells that what is missing was forgotten. Nothing is destroyed for being missing: Forget releases tombstones. */
	gather(in, list);
	r = state_begin(sc->state, e);
	if (r < 0)
		return r;
	for (; r == 0 && done < count; done++) {
		if (!list[done].good)
			continue;
		enter(sc, &list[done], a);
		if (!list[done].stale)
			r = store(sc, &list[done], e);
	}
	if (r == 0)
		r = state_commit(sc->state, e);
	else
		state_rollback(sc->state);
	release(sc, list, done, r == 0);
	if (r < 0)
		return r;
	out->epoch = sc->epoch;
	return 0;
}

/* Lock */
static bool is_over(const struct sc_item *item)
{
	return item->kind == SC_VOLUME ? ((const struct sc_volume *)item)->rec.state == SC_V_DELETED :
					 ((const struct sc_snapshot *)item)->rec.state == SC_S_DELETED;
}

static bool may_forget(struct sc *sc, const char *id)
{
	pthread_mutex_lock(&sc->lock);
	const struct sc_item *item = sc_find(sc, id);
	bool over = item && is_over(item);
	pthread_mutex_unlock(&sc->lock);
	return over;
}

static int forget(struct sc *sc, const char *id, struct error *e)
{
	bool known;

	if (!may_forget(sc, id))
		return 0; /* unknown, or not over: nothing to forget */
	/* That it is over is seen before the worker that made it so is done with it. */
	struct sc_item *item = sc_take(sc, id, FORGET_WAIT_MS, &known);
	if (!item)
		return known ? (error_set(e, "ServiceUnavailable", "%s is being worked on", id), -EBUSY) : 0;
	/* Rows and item go in one transaction: an Apply of the same id comes before, or finds neither. */
	int r = is_over(item) ? state_begin(sc->state, e) : -ESTALE;
	if (r == 0)
		r = sc_store_forget(sc, item->kind, id, e);
	if (r == 0) {
		pthread_mutex_lock(&sc->lock);
		item->busy = false;
		sc_remove(sc, item);
		pthread_cond_broadcast(&sc->freed);
		pthread_mutex_unlock(&sc->lock);
		return state_commit(sc->state, e);
	}
	state_rollback(sc->state);
	sc_give_back(sc, item, false);
	return r == -ESTALE ? 0 : r; /* made anew since */
}

int storage_forget_storage(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_forget_storage_request *in,
			   struct error *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < in->volume_ids.count; i++)
		r = forget(ctx, in->volume_ids.items[i], e);
	for (size_t i = 0; r == 0 && i < in->snapshot_ids.count; i++)
		r = forget(ctx, in->snapshot_ids.items[i], e);
	return r;
}

/* ---- what is ---- */

/* Wait until something newer than since is there, the time is over, or the service stops. Lock held. */
static void await_change(struct sc *sc, int64_t since, int64_t wait_ms)
{
	struct timespec t;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += wait_ms / 1000;
	t.tv_nsec += wait_ms % 1000 * 1000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	while (sc->revision <= since && !sc->stopping && r == 0)
		r = pthread_cond_timedwait(&sc->shown, &sc->lock, &t);
	if (r == 0 && !sc->stopping) {
		pthread_mutex_unlock(&sc->lock);
		sc_sleep(sc, LINGER_MS);
		pthread_mutex_lock(&sc->lock);
	}
}

struct collect {
	struct arena *arena;
	int64_t since;
	struct storage_describe_storage_response *out;
};

static void collect_one(struct sc *sc, struct sc_item *item, void *ctx)
{
	struct collect *c = ctx;

	if (item->revision <= c->since)
		return;
	if (item->kind == SC_VOLUME)
		sc_observe_volume(sc, sc_volume_of(item), c->arena, &c->out->volumes.items[c->out->volumes.count++]);
	else
		sc_observe_snapshot(sc_snapshot_of(item), c->arena, &c->out->snapshots.items[c->out->snapshots.count++]);
}

int storage_describe_storage(void *ctx, struct arena *a, const struct tls_identity *peer,
			     const struct storage_describe_storage_request *in, struct storage_describe_storage_response *out, struct error *e)
{
	struct sc *sc = ctx;
	bool full = !str_eq(in->epoch, sc->epoch);
	struct collect c = { .arena = a, .since = full ? -1 : in->since_revision.value, .out = out };

	if (in->wait_ms.set && (in->wait_ms.value < 0 || in->wait_ms.value > WAIT_MOST_MS))
		return error_set(e, "InvalidParameterValue", "WaitMs is %" PRId64 "; it may be 0 to %d", in->wait_ms.value, WAIT_MOST_MS);
	pthread_mutex_lock(&sc->lock);
	if (!full && in->wait_ms.value > 0 && sc->revision <= c.since)
		await_change(sc, c.since, in->wait_ms.value);
	out->volumes.set = out->snapshots.set = true;
	out->volumes.items = arena_new_array(a, struct storage_volume_observed, sc->count + 1);
	out->snapshots.items = arena_new_array(a, struct storage_snapshot_observed, sc->count + 1);
	sc_each(sc, collect_one, &c);
	out->revision = WIRE_INT_OF(sc->revision);
	pthread_mutex_unlock(&sc->lock);
	out->epoch = sc->epoch;
	out->full = WIRE_BOOL_OF(full);
	return 0;
}

int storage_get_status(void *ctx, struct arena *a, const struct tls_identity *peer, struct storage_get_status_response *out, struct error *e)
{
	sc_status(ctx, a, out);
	return 0;
}

int storage_start_scrub(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_start_scrub_request *in,
			struct storage_describe_scrub_response *out, struct error *e)
{
	struct sc *sc = ctx;
	int r = scrub_job_start(sc->scrub, in, e);

	if (r == 0)
		scrub_job_describe(sc->scrub, a, out);
	return r;
}

int storage_describe_scrub(void *ctx, struct arena *a, const struct tls_identity *peer, struct storage_describe_scrub_response *out,
			   struct error *e)
{
	struct sc *sc = ctx;

	scrub_job_describe(sc->scrub, a, out);
	return 0;
}

/* ---- the listeners ---- */

int sc_rpc_start(struct sc *sc, struct error *e)
{
	const struct rpc_binding binding = { .service = &storage_service, .handlers = storage_rpc_handlers, .ctx = sc };
	const struct ops_config ops = {
		.port = settings_port(sc->settings, PORT_OPS_SC),
		.health = sc_health,
		.metrics = sc_print_metrics,
		.ctx = sc,
	};
	int r = rpc_server_start(&binding, 1, "127.0.0.1", settings_port(sc->settings, PORT_SC), sc->tls, &sc->rpc, e);

	return r == 0 ? ops_server_start(&ops, &sc->ops_server, e) : r;
}
