/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A volume towards what is wanted of it.
 *
 *   creating   reserve room (and a disk), record that, make the files, serve the source → available; what cannot be → error
 *   available  as large as is wanted, or that is refused; limits told to who has it open; a process of our own while snapshots need
 *              one or it is filled in the background; filled → the source is not needed any more
 *   deleting   nobody has it open, no snapshot is made of it → its process, its disk's ends and its files go → deleted
 *
 * Each step may have been done before, and cut off anywhere.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "os/disk.h"
#include "svc/sc/sc_priv.h"
#include "wire/codec.h"

#define LOOK_OPEN_MS 15000 /* how often who has it open is asked, how often one in the background */
#define LOOK_OWN_MS 1000
#define TELL_AGAIN_MS 60000

enum step {
	STEP_DONE,
	STEP_AGAIN,
	STEP_WAIT,  /* j->wait_ms */
	STEP_RETRY, /* j->err */
};

struct job {
	struct sc *sc;
	struct sc_volume *v; /* busy */
	const char *id;
	struct arena *arena;
	const struct storage_volume_spec *spec; /* a copy */
	struct sc_volume_record rec;            /* a copy; commit() makes it so */
	bool served, opening, need_own, active;
	int64_t wait_ms;
	struct error err;
};

static void refresh(struct job *j)
{
	struct sc *sc = j->sc;

	arena_free(j->arena);
	j->arena = arena_new();
	pthread_mutex_lock(&sc->lock);
	j->spec = wire_copy(j->arena, &storage_shape_volume_spec, j->v->item.spec);
	j->rec = j->v->rec;
	j->served = j->v->served;
	j->opening = j->v->opening_until_mono_ms > clock_mono_ms();
	j->active = sc_snapshots_active(sc, j->id, &j->need_own);
	pthread_mutex_unlock(&sc->lock);
}

static int commit(struct job *j)
{
	int r = sc_store_volume(j->sc, j->id, &j->rec, &j->err);

	if (r < 0)
		return r;
	pthread_mutex_lock(&j->sc->lock);
	j->v->rec = j->rec;
	sc_show(j->sc, &j->v->item);
	pthread_mutex_unlock(&j->sc->lock);
	return 0;
}

/* With the fake hypervisor nobody serves what is open. */
static bool is_held(const struct job *j)
{
	return j->rec.holder.instance_id[0] && !j->sc->fake;
}

static struct sc_place place_of(const struct job *j)
{
	const struct sc_holder *h = &j->rec.holder;

	if (!is_held(j))
		return (struct sc_place){ .node_id = "", .node_url = "", .volume = j->id };
	return (struct sc_place){ .node_id = h->node_id, .node_url = h->node_url, .volume = j->id, .generation = h->generation };
}

static enum step wait_ms(struct job *j, int64_t ms)
{
	j->wait_ms = ms;
	return STEP_WAIT;
}

static bool has_source(const struct job *j)
{
	return j->spec->snapshot_id && !j->rec.filled;
}

/* ---- room ---- */

static int reserve(struct job *j, int64_t bytes)
{
	struct sc *sc = j->sc;
	int64_t held = sc->fake || pool_on_disks(sc->pool) ? 0 : sc_held_bytes(sc);

	pthread_mutex_lock(&sc->lock);
	int64_t more = bytes - j->v->reserved_bytes;
	int r = more > 0 ? pool_check(sc->pool, more, sc_promised_bytes(sc), held, &j->err) : 0;
	if (r == 0)
		j->v->reserved_bytes = MAX_OF(bytes, j->v->reserved_bytes);
	pthread_mutex_unlock(&sc->lock);
	return r;
}

static void unreserve(struct job *j, int64_t bytes)
{
	pthread_mutex_lock(&j->sc->lock);
	j->v->reserved_bytes = bytes;
	pthread_mutex_unlock(&j->sc->lock);
}

struct used_list {
	const char **items;
	size_t count;
};

static void list_used(struct sc *sc, struct sc_item *item, void *ctx)
{
	struct used_list *l = ctx;

	if (item->kind == SC_VOLUME && sc_volume_of(item)->rec.device[0])
		l->items[l->count++] = sc_volume_of(item)->rec.device;
}

/* Copies: the records may change once the lock is let go of. */
static const char *const *used_devices(struct job *j)
{
	struct sc *sc = j->sc;
	struct used_list l = { 0 };

	pthread_mutex_lock(&sc->lock);
	l.items = arena_new_array(j->arena, const char *, sc->count + 1);
	sc_each(sc, list_used, &l);
	for (size_t i = 0; i < l.count; i++)
		l.items[i] = arena_strdup(j->arena, l.items[i]);
	pthread_mutex_unlock(&sc->lock);
	return l.items;
}

static int record_room(struct job *j)
{
	struct sc *sc = j->sc;
	int r = 0;

	pthread_mutex_lock(&sc->pool_lock);
	if (pool_on_disks(sc->pool))
		r = pool_choose(sc->pool, j->spec->size_bytes.value, used_devices(j), j->rec.device, &j->err);
	else
		r = reserve(j, j->spec->size_bytes.value);
	if (r == 0) {
		unreserve(j, j->spec->size_bytes.value);
		j->rec.size_bytes = j->spec->size_bytes.value;
		j->rec.filled = !j->spec->snapshot_id;
		r = j->spec->encrypted.value ? sc_key_make(j->sc, j->id, &j->rec, &j->err) : 0;
		if (r == 0)
			r = commit(j);
		r = r < 0 ? -EAGAIN : 0;
	}
	pthread_mutex_unlock(&sc->pool_lock);
	return r;
}

/* ---- creating ---- */

static enum step fail(struct job *j)
{
	struct error why = j->err;

	log_error("a volume cannot be made", "id=%s code=%s err=%s", j->id, why.code, log_quote(why.message));
	metrics_add(j->sc->metrics, SC_M_FAILURES, 1);
	error_clear(&j->err);
	if (sc_remove_files(j->sc, j->id, &j->err) < 0)
		return STEP_RETRY;
	if (j->spec->snapshot_id)
		sc_export_leave(j->sc, j->id, j->spec->snapshot_id);
	j->rec.state = SC_V_ERROR;
	snprintf(j->rec.reason, sizeof(j->rec.reason), "%.390s", why.message);
	j->rec.device[0] = j->rec.key_id[0] = j->rec.wrapped_key[0] = '\0';
	j->rec.size_bytes = 0;
	unreserve(j, 0); /* before anybody hears of it */
	return commit(j) < 0 ? STEP_RETRY : STEP_DONE;
}

/* It can be read, though perhaps it is wanted deleted: it is held for this volume (wants_export) since the specification was heard of,
 * and the cloud controller tells of a volume before it tells of its source's end. 1: it is not there yet. */
static int claim_source(struct job *j)
{
	const char *id = j->spec->snapshot_id;
	struct sc *sc = j->sc;
	int r = 0;

	pthread_mutex_lock(&sc->lock);
	const struct sc_snapshot *s = sc_find_snapshot(sc, id);
	if (s && s->rec.state == SC_S_PENDING && !s->rec.stored && !s->item.deleted)
		r = 1;
	else if (s && (s->removing || (s->item.deleted && !s->rec.stored) || s->rec.state == SC_S_DELETED || s->rec.state == SC_S_ERROR))
		r = error_set(&j->err, "InvalidSnapshot.NotFound", "The snapshot %s does not exist.", id);
	else
		j->v->wants_export = true;
	pthread_mutex_unlock(&sc->lock);
	return r;
}

/* STEP_AGAIN: it can be read, and fits. */
static enum step check_source(struct job *j)
{
	struct snap_info info;
	struct snap_store *store;
	int r = claim_source(j);

	if (r > 0)
		return wait_ms(j, 1000);
	if (r < 0)
		return fail(j);
	store = sc_store(j->sc, &j->err);
	if (!store)
		return STEP_RETRY;
	r = snap_info(store, j->spec->snapshot_id, &info, &j->err);
	sc_walrus_result(j->sc, r, &j->err);
	if (r == -ENOENT) {
		error_clear(&j->err);
		error_set(&j->err, "InvalidSnapshot.NotFound", "The snapshot %s does not exist.", j->spec->snapshot_id);
	}
	if (r == -ENOENT || r == -EBADMSG || r == -EPROTONOSUPPORT)
		return fail(j);
	if (r)
		return STEP_RETRY;
	if (info.encrypted && !j->spec->encrypted.value) {
		error_set(&j->err, "InvalidParameterValue", "The snapshot %s is encrypted: so must its volumes be.", j->spec->snapshot_id);
		return fail(j);
	}
	if ((int64_t)info.size_bytes > j->spec->size_bytes.value) {
		error_set(&j->err, "InvalidParameterValue", "The volume is smaller than the snapshot %s, which has %llu bytes.",
			  j->spec->snapshot_id, (unsigned long long)info.size_bytes);
		return fail(j);
	}
	return STEP_AGAIN;
}

static enum step create(struct job *j)
{
	enum step s = STEP_AGAIN;

	if (!j->rec.size_bytes) {
		if (j->spec->snapshot_id)
			s = check_source(j);
		if (s != STEP_AGAIN)
			return s;
		int r = record_room(j);
		if (r == -EAGAIN)
			return STEP_RETRY;
		if (r)
			return fail(j);
	}
	if (sc_make_files(j->sc, j->id, j->rec.size_bytes, &j->err) < 0)
		return STEP_RETRY;
	if (j->rec.device[0] && sc_link_device(j->sc, j->id, j->rec.device, &j->err) < 0)
		return STEP_RETRY;
	if (has_source(j) && sc_export_start(j->sc, j->id, j->spec->snapshot_id, &j->err))
		return STEP_RETRY;
	j->rec.state = SC_V_AVAILABLE;
	if (commit(j) < 0)
		return STEP_RETRY;
	metrics_add(j->sc->metrics, SC_M_CREATED, 1);
	log_info("a volume is there", "id=%s bytes=%lld source=%s device=%s", j->id, (long long)j->rec.size_bytes,
		 j->spec->snapshot_id ? j->spec->snapshot_id : "none", j->rec.device[0] ? j->rec.device : "file");
	pthread_mutex_lock(&j->sc->lock);
	sc_kick_snapshots(j->sc, j->id);
	pthread_mutex_unlock(&j->sc->lock);
	return STEP_AGAIN;
}

/* ---- a process of our own ---- */

/* One volume at a time is filled in the background: whether it is this one's turn. */
static bool may_fill(struct job *j)
{
	struct sc *sc = j->sc;
	bool may = has_source(j) && !sc->fake && !j->rec.holder.instance_id[0] && !j->spec->attachment && !j->opening &&
		   j->rec.state == SC_V_AVAILABLE && !str_eq(j->spec->wanted, "deleted");

	pthread_mutex_lock(&sc->lock);
	bool mine = str_eq(sc->filling, j->id);
	if (may && !sc->filling[0])
		snprintf(sc->filling, sizeof(sc->filling), "%s", j->id);
	else if (!may && mine)
		sc->filling[0] = '\0';
	may = may && str_eq(sc->filling, j->id);
	pthread_mutex_unlock(&sc->lock);
	return may;
}

static int end_own(struct job *j)
{
	int r = j->served ? sc_serve_end(j->sc, j->id, &j->err) : 0;

	if (r == -ETIMEDOUT) /* it was killed; what it held was durable */
		log_warn("a volume's process did not end in time", "id=%s", j->id);
	else if (r)
		return r;
	pthread_mutex_lock(&j->sc->lock);
	j->v->served = j->v->answers = j->served = false;
	pthread_mutex_unlock(&j->sc->lock);
	return 0;
}

static int begin_own(struct job *j)
{
	pthread_mutex_lock(&j->sc->lock);
	j->v->served = j->served = true;
	pthread_mutex_unlock(&j->sc->lock);
	int r = sc_serve(j->sc, j->id, &j->rec, j->spec->snapshot_id, &j->err);
	if (r)
		return r;
	pthread_mutex_lock(&j->sc->lock);
	bool fresh = !j->v->answers;
	j->v->answers = true;
	if (fresh)
		sc_kick_snapshots(j->sc, j->id);
	pthread_mutex_unlock(&j->sc->lock);
	return 0;
}

/* ---- as large, and as fast, as is wanted ---- */

static bool is_refused(const struct job *j)
{
	return j->rec.refused_generation && j->rec.refused_generation == j->spec->generation.value;
}

/* Recorded before it is told, and final for this specification: who hears of it goes back to the size that was, and must not
 * meet a volume that has grown after all. */
static enum step refuse(struct job *j)
{
	log_warn("a volume cannot grow", "id=%s err=%s", j->id, log_quote(j->err.message));
	j->rec.refused_generation = j->spec->generation.value;
	snprintf(j->rec.reason, sizeof(j->rec.reason), "%.390s", j->err.message);
	error_clear(&j->err);
	return commit(j) < 0 ? STEP_RETRY : STEP_DONE;
}

/* Recorded, too, before anything grows: growth that was begun is never refused. */
static enum step promise_room(struct job *j, int64_t bytes)
{
	int r = j->rec.device[0] ? pool_device_fits(j->rec.device, bytes, &j->err) : reserve(j, bytes);

	if (r && str_eq(j->err.code, "InsufficientVolumeCapacity"))
		return refuse(j);
	if (r)
		return STEP_RETRY;
	j->rec.growing_bytes = bytes;
	j->rec.reason[0] = '\0';
	return commit(j) < 0 ? STEP_RETRY : STEP_AGAIN;
}

/* STEP_DONE: it is as it should be, or cannot be. */
static enum step grow(struct job *j)
{
	int64_t wanted = j->spec->size_bytes.value;
	struct sc_place p = place_of(j);
	struct sc_filled now;
	int r;

	if (wanted <= j->rec.size_bytes || is_refused(j))
		return STEP_DONE;
	if (wanted > j->rec.growing_bytes)
		return promise_room(j, wanted);
	if (is_held(j) || j->served) {
		r = sc_volume_change(j->sc, &p, wanted, NULL, &now, &j->err);
		if (r == 0 && now.size_bytes < wanted)
			r = error_set(&j->err, "InternalError", "volume %s has %lld bytes after it was to grow", j->id, (long long)now.size_bytes);
	} else {
		r = sc_grow_file(j->sc, j->id, wanted, &j->err);
	}
	if (r)
		return STEP_RETRY;
	j->rec.size_bytes = wanted;
	j->rec.growing_bytes = 0;
	if (commit(j) < 0)
		return STEP_RETRY;
	unreserve(j, wanted);
	log_info("a volume has grown", "id=%s bytes=%lld", j->id, (long long)wanted);
	return STEP_AGAIN;
}

static enum step limit(struct job *j)
{
	struct sc_holder *h = &j->rec.holder;
	struct sc_place p = place_of(j);
	char wanted[SC_THROTTLE_MAX];
	struct sc_filled now;

	sc_print_throttle(j->spec->limits, wanted);
	if (!h->instance_id[0] || str_eq(h->throttle, wanted))
		return STEP_DONE;
	if (is_held(j) && sc_volume_change(j->sc, &p, 0, wanted, &now, &j->err))
		return STEP_RETRY;
	snprintf(h->throttle, sizeof(h->throttle), "%s", wanted);
	if (commit(j) < 0)
		return STEP_RETRY;
	j->v->looked_mono_ms = clock_mono_ms();
	log_info("a volume's limits were changed", "id=%s limits=%s", j->id, wanted);
	return STEP_AGAIN;
}

/* ---- filled ---- */

static enum step note_filled(struct job *j)
{
	j->rec.filled = true;
	if (commit(j) < 0)
		return STEP_RETRY;
	sc_export_leave(j->sc, j->id, j->spec->snapshot_id);
	log_info("a volume needs its source no more", "id=%s source=%s", j->id, j->spec->snapshot_id);
	pthread_mutex_lock(&j->sc->lock);
	if (str_eq(j->sc->filling, j->id))
		j->sc->filling[0] = '\0';
	pthread_mutex_unlock(&j->sc->lock);
	return STEP_AGAIN;
}

/* How far it is, asked now and then; and limits that differ from those its process was started with, told again: it may
 * have been started anew. */
static enum step look(struct job *j)
{
	bool held = is_held(j), told = held && !str_eq(j->rec.holder.throttle, j->rec.holder.open_throttle);
	int64_t every = has_source(j) ? held ? LOOK_OPEN_MS : LOOK_OWN_MS : TELL_AGAIN_MS, now = clock_mono_ms();
	struct sc_place p = place_of(j);
	struct sc_filled filled = { 0 };

	if (!told && !(has_source(j) && (held || j->served)))
		return has_source(j) && !j->sc->fake ? wait_ms(j, LOOK_OWN_MS * 2) : STEP_DONE;
	if (now - j->v->looked_mono_ms < every)
		return wait_ms(j, every - (now - j->v->looked_mono_ms));
	j->v->looked_mono_ms = now;
	struct error why = { 0 };
	int r = sc_volume_change(j->sc, &p, 0, told ? j->rec.holder.throttle : NULL, &filled, &why);
	if (r)
		log_debug("a volume cannot be looked at", "id=%s err=%s", j->id, log_quote(why.message));
	if (r == 0 && has_source(j) && filled.complete)
		return note_filled(j);
	return wait_ms(j, every);
}

static enum step keep(struct job *j)
{
	bool own = !is_held(j) && (j->need_own || may_fill(j));
	enum step s;

	if (is_held(j))
		may_fill(j); /* lets go of the turn */
	if (!own && j->served && end_own(j))
		return STEP_RETRY;
	if (has_source(j) && (!j->v->wants_export || !sc_exported(j->sc, j->spec->snapshot_id) || sc_export_lacks_key(j->sc, j->spec->snapshot_id)) &&
	    sc_export_start(j->sc, j->id, j->spec->snapshot_id, &j->err))
		return STEP_RETRY;
	if (own && begin_own(j))
		return STEP_RETRY;
	s = grow(j);
	if (s == STEP_DONE && !is_refused(j)) /* else it stays as it was, in all respects */
		s = limit(j);
	return s == STEP_DONE ? look(j) : s;
}

/* ---- deleting ---- */

static enum step erase(struct job *j)
{
	struct sc *sc = j->sc;

	if (j->rec.state != SC_V_DELETING) {
		j->rec.state = SC_V_DELETING;
		if (commit(j) < 0)
			return STEP_RETRY;
	}
	may_fill(j);
	if (j->rec.holder.instance_id[0] || j->active) {
		/* What a snapshot reads from stays; who closes it, or ends the snapshot, has us look again. */
		if (!is_held(j) && j->need_own && begin_own(j))
			return STEP_RETRY;
		return STEP_DONE;
	}
	if (end_own(j))
		return STEP_RETRY;
	if (j->spec->snapshot_id)
		sc_export_leave(sc, j->id, j->spec->snapshot_id);
	/* Nobody is to mistake what a tenant left there. */
	if (j->rec.device[0] && disk_blank(j->rec.device, &j->err))
		return STEP_RETRY;
	if (sc_remove_files(sc, j->id, &j->err) < 0)
		return STEP_RETRY;
	j->rec.state = SC_V_DELETED;
	j->rec.size_bytes = 0;
	j->rec.device[0] = j->rec.key_id[0] = j->rec.wrapped_key[0] = '\0';
	unreserve(j, 0); /* before anybody hears of it */
	if (commit(j) < 0)
		return STEP_RETRY;
	log_info("a volume is gone", "id=%s", j->id);
	if (j->spec->snapshot_id)
		sc_kick_id(sc, j->spec->snapshot_id);
	return STEP_DONE;
}

/* ---- all ---- */

/* Attachments before the highest that was ever heard of are stale, also when that one has ended. */
static int note_attachment(struct job *j)
{
	const struct storage_volume_attachment *at = j->spec->attachment;

	if (!at || at->generation.value <= j->rec.last_attachment)
		return 0;
	j->rec.last_attachment = at->generation.value;
	return commit(j);
}

static enum step next(struct job *j)
{
	refresh(j);
	if (note_attachment(j) < 0)
		return STEP_RETRY;
	if (j->rec.state == SC_V_DELETED)
		return STEP_DONE;
	if (str_eq(j->spec->wanted, "deleted"))
		return erase(j);
	if (j->rec.state == SC_V_CREATING)
		return create(j);
	return j->rec.state == SC_V_AVAILABLE ? keep(j) : STEP_DONE;
}

struct sc_outcome sc_reconcile_volume(struct sc *sc, struct sc_volume *v)
{
	struct job j = { .sc = sc, .v = v, .id = v->item.id };
	struct sc_outcome out = { 0 };
	enum step s = STEP_AGAIN;

	for (int i = 0; i < 8 && s == STEP_AGAIN && !sc->stopping; i++) {
		error_clear(&j.err);
		s = next(&j);
	}
	if (s == STEP_RETRY)
		out.wait_ms = sc_retry_ms(sc, &v->item, &j.err, NULL);
	else
		sc_succeeded(sc, &v->item);
	if (s == STEP_WAIT)
		out.wait_ms = MAX_OF(j.wait_ms, (int64_t)1);
	out.again = s == STEP_AGAIN;
	arena_free(j.arena);
	return out;
}
