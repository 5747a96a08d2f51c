/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/stat.h>

#include "base/text.h"
#include "svc/sc/sc_priv.h"

const char *sc_volume_state_name(enum sc_volume_state s)
{
	static const char *const names[] = {
		[SC_V_CREATING] = "creating", [SC_V_AVAILABLE] = "available", [SC_V_DELETING] = "deleting",
		[SC_V_DELETED] = "deleted",   [SC_V_ERROR] = "error",
	};

	return names[s];
}

const char *sc_snapshot_state_name(enum sc_snapshot_state s)
{
	static const char *const names[] = {
		[SC_S_PENDING] = "pending", [SC_S_COMPLETED] = "completed", [SC_S_ERROR] = "error", [SC_S_DELETED] = "deleted",
	};

	return names[s];
}

static const char *text_or_null(struct arena *a, const char *text)
{
	return *text ? arena_strdup(a, text) : NULL;
}

/* Nobody has it open: then they are in force when it is opened. */
static bool limits_in_force(const struct sc_volume *v)
{
	const struct sc_holder *h = &v->rec.holder;
	char wanted[SC_THROTTLE_MAX];

	if (!h->instance_id[0])
		return true;
	sc_print_throttle(sc_volume_spec(v)->limits, wanted);
	return str_eq(h->throttle, wanted);
}

void sc_observe_volume(const struct sc *sc, struct sc_volume *v, struct arena *a, struct storage_volume_observed *out)
{
	const struct sc_volume_record *rec = &v->rec;
	bool refused = sc_volume_refused(v), wrong = refused || rec->state == SC_V_ERROR || rec->state == SC_V_CREATING;

	*out = (struct storage_volume_observed){
		.volume_id = arena_strdup(a, v->item.id),
		.generation = WIRE_INT_OF(v->item.generation),
		.state = sc_volume_state_name(rec->state),
		.reason = text_or_null(a, wrong ? rec->reason : ""),
		.size_bytes = WIRE_INT_OF(rec->size_bytes),
		.limits = WIRE_BOOL_OF(limits_in_force(v)),
		.refused = WIRE_BOOL_OF(refused),
		.revision = WIRE_INT_OF(v->item.revision),
	};
}

void sc_observe_snapshot(struct sc_snapshot *s, struct arena *a, struct storage_snapshot_observed *out)
{
	const struct sc_snapshot_record *rec = &s->rec;

	*out = (struct storage_snapshot_observed){
		.snapshot_id = arena_strdup(a, s->item.id),
		.generation = WIRE_INT_OF(s->item.generation),
		.state = sc_snapshot_state_name(rec->state),
		.reason = text_or_null(a, rec->reason),
		.progress = WIRE_INT_OF(rec->stored ? 100 : s->progress),
		.revision = WIRE_INT_OF(s->item.revision),
	};
	if (rec->begin_time_ms) {
		out->begin_time = WIRE_TIME_OF(rec->begin_time_ms);
		s->begin_told = true;
	}
	if (rec->size_bytes)
		out->size_bytes = WIRE_INT_OF(rec->size_bytes);
	if (rec->stored)
		out->data_bytes = WIRE_INT_OF(rec->data_bytes);
}

/* ---- the whole ---- */

struct sums {
	int64_t volumes, open, filling, snapshots, pending, promised;
};

static void add_up(struct sc *sc, struct sc_item *item, void *ctx)
{
	struct sums *n = ctx;

	if (item->kind == SC_VOLUME) {
		const struct sc_volume *v = sc_volume_of(item);
		n->volumes += v->rec.state != SC_V_DELETED;
		n->open += v->rec.holder.instance_id[0] != '\0';
		n->filling += v->rec.state == SC_V_AVAILABLE && !v->rec.filled && sc_volume_spec(v)->snapshot_id;
		n->promised += v->reserved_bytes;
	} else {
		const struct sc_snapshot *s = sc_snapshot_of(item);
		n->snapshots += s->rec.state == SC_S_COMPLETED;
		n->pending += s->rec.state == SC_S_PENDING;
	}
}

struct held {
	struct sc *sc;
	char (*ids)[ID_LEN];
	size_t count;
};

static void note_id(struct sc *sc, struct sc_item *item, void *ctx)
{
	struct held *h = ctx;

	if (item->kind == SC_VOLUME && sc_volume_of(item)->rec.size_bytes)
		memcpy(h->ids[h->count++], item->id, ID_LEN);
}

int64_t sc_held_bytes(struct sc *sc)
{
	struct held h = { .sc = sc };
	int64_t sum = 0;

	pthread_mutex_lock(&sc->lock);
	h.ids = calloc(sc->count + 1, sizeof(*h.ids));
	if (!h.ids)
		abort();
	sc_each(sc, note_id, &h);
	pthread_mutex_unlock(&sc->lock);
	for (size_t i = 0; i < h.count; i++) {
		char path[4096];
		struct stat st;
		sc_volume_path(sc, h.ids[i], "data.raw", path, sizeof(path));
		if (stat(path, &st) == 0)
			sum += (int64_t)st.st_blocks * 512;
	}
	free(h.ids);
	return sum;
}

int64_t sc_promised_bytes(struct sc *sc)
{
	struct sums n = { 0 };

	sc_each(sc, add_up, &n);
	return n.promised;
}

static void measure(struct sc *sc, struct sums *n, struct pool_room *room)
{
	int64_t held = sc->fake ? 0 : sc_held_bytes(sc);

	pthread_mutex_lock(&sc->lock);
	sc_each(sc, add_up, n);
	pthread_mutex_unlock(&sc->lock);
	pool_room(sc->pool, n->promised, held, room);
}

int sc_health(void *ctx, struct error *e)
{
	struct sc *sc = ctx;
	int r = 0;

	pthread_mutex_lock(&sc->lock);
	if (sc->walrus_lost || !sc->store)
		r = error_set(e, "ServiceUnavailable", "snapshots cannot be made or read, volumes go on: %s",
			      error_is_set(&sc->walrus_error) ? sc->walrus_error.message : "the object store was not reached yet");
	pthread_mutex_unlock(&sc->lock);
	return r;
}

void sc_status(struct sc *sc, struct arena *a, struct storage_get_status_response *out)
{
	struct storage_pool_status *p = arena_new_struct(a, struct storage_pool_status);
	struct sums n = { 0 };
	struct pool_room room;
	struct error why = { 0 };

	measure(sc, &n, &room);
	*p = (struct storage_pool_status){
		.name = "default",
		.kind = pool_on_disks(sc->pool) ? "disks" : "files",
		.total_bytes = WIRE_INT_OF(room.total_bytes),
		.used_bytes = WIRE_INT_OF(n.promised),
		.free_bytes = WIRE_INT_OF(room.free_bytes),
	};
	*out = (struct storage_get_status_response){
		.version = MALLEE_VERSION,
		.pools = { .set = true, .count = 1, .items = p },
		.volumes = WIRE_INT_OF(n.volumes),
		.open_volumes = WIRE_INT_OF(n.open),
		.filling_volumes = WIRE_INT_OF(n.filling),
		.snapshots = WIRE_INT_OF(n.snapshots),
		.pending_snapshots = WIRE_INT_OF(n.pending),
	};
	if (sc_health(sc, &why) < 0)
		out->reason = arena_strdup(a, why.message);
}

void sc_print_metrics(void *ctx, struct buf *out)
{
	struct sc *sc = ctx;
	struct sums n = { 0 };
	struct pool_room room;

	measure(sc, &n, &room);
	metrics_set(sc->metrics, SC_M_VOLUMES, n.volumes);
	metrics_set(sc->metrics, SC_M_OPEN, n.open);
	metrics_set(sc->metrics, SC_M_FILLING, n.filling);
	metrics_set(sc->metrics, SC_M_SNAPSHOTS, n.snapshots);
	metrics_set(sc->metrics, SC_M_PENDING, n.pending);
	metrics_set(sc->metrics, SC_M_POOL_TOTAL, room.total_bytes);
	metrics_set(sc->metrics, SC_M_POOL_USED, n.promised);
	metrics_set(sc->metrics, SC_M_CORRUPT, sc->scrub ? scrub_job_findings(sc->scrub) : 0);
	metrics_print(sc->metrics, out);
}
