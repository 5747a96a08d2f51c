/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot towards what is wanted of it.
 *
 *   pending    of a volume: choose who serves it, record that, freeze a view there, record that it was begun (from then on its time is
 *              told), read what changed into Walrus when it is this one's turn. Of an image, or a copy: into Walrus
 *   completed  its manifest is written; the view is given up, and changes count from it on
 *   error      the view is given up, and what was stored
 *   deleted    when no volume reads from it and nothing is being stored upon it
 *
 * Views of one volume are read in the order in which they were begun, each only when the one before has been given up: what a
 * view says has changed is in terms of the last one that was completed, and that changes when one is.
 *
 * A view dies with the process that serves its volume. If nobody was told yet when it began it is begun anew, and also if the process
 * was ours, since then nobody has written; else the snapshot has failed.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/sc/sc_priv.h"
#include "wire/codec.h"

#define SCRATCH_LEAST (INT64_C(64) << 20)
#define SCRATCH_USUAL_LEAST (INT64_C(256) << 20)
#define SCRATCH_USUAL_MOST (INT64_C(8) << 30)
#define BEGIN_LIMIT_MS 300000 /* a view that cannot be begun for so long: the snapshot has failed */
#define URL_LIMIT_MS 900000   /* a URL that is refused for so long will not be taken any more */
#define END_TRIES 3           /* before a view is given up without its changes counting from it on */
#define LOOK_MS 2000          /* for what somebody should have told */

enum step {
	STEP_DONE,
	STEP_AGAIN,
	STEP_HEAVY, /* on a heavy worker */
	STEP_WAIT,  /* j->wait_ms, or until something happens */
	STEP_RETRY, /* j->err */
};

struct job {
	struct sc *sc;
	struct sc_snapshot *s; /* busy */
	const char *id;
	struct arena *arena;
	const struct storage_snapshot_spec *spec; /* a copy */
	struct sc_snapshot_record rec;            /* a copy; commit() makes it so */
	bool heavy, told; /* told: somebody knows when it began */
	int64_t wait_ms, failing_ms;
	struct error err;
};

static void refresh(struct job *j)
{
	int64_t since;

	arena_free(j->arena);
	j->arena = arena_new();
	pthread_mutex_lock(&j->sc->lock);
	j->spec = wire_copy(j->arena, &storage_shape_snapshot_spec, j->s->item.spec);
	j->rec = j->s->rec;
	since = j->s->item.failing_since_mono_ms;
	pthread_mutex_unlock(&j->sc->lock);
	j->failing_ms = since ? clock_mono_ms() - since : 0;
}

static int commit(struct job *j)
{
	int r = sc_store_snapshot(j->sc, j->id, &j->rec, &j->err);

	if (r < 0)
		return r;
	pthread_mutex_lock(&j->sc->lock);
	j->s->rec = j->rec;
	sc_show(j->sc, &j->s->item);
	pthread_mutex_unlock(&j->sc->lock);
	return 0;
}

static enum step wait_ms(struct job *j, int64_t ms)
{
	j->wait_ms = ms;
	return STEP_WAIT;
}

/* Who may have waited for this one. */
static void tell_others(struct job *j)
{
	pthread_mutex_lock(&j->sc->lock);
	struct sc_item *volume = j->spec->volume_id ? sc_find(j->sc, j->spec->volume_id) : NULL;
	if (volume)
		sc_kick(j->sc, volume);
	if (j->spec->volume_id)
		sc_kick_snapshots(j->sc, j->spec->volume_id);
	pthread_mutex_unlock(&j->sc->lock);
}

static enum step fail(struct job *j, const char *fmt, ...) _printf_(2, 3);
static enum step fail(struct job *j, const char *fmt, ...)
{
	struct snap_store *store = sc_store(j->sc, NULL);
	va_list ap;

	j->rec.state = SC_S_ERROR;
	va_start(ap, fmt);
	vsnprintf(j->rec.reason, sizeof(j->rec.reason), fmt, ap);
	va_end(ap);
	log_error("a snapshot has failed", "id=%s err=%s", j->id, log_quote(j->rec.reason));
	metrics_add(j->sc->metrics, SC_M_FAILURES, 1);
	error_clear(&j->err);
	if (commit(j) < 0)
		return STEP_RETRY;
	if (store)
		snap_abandon(store, j->id, NULL); /* the housekeeper's, if it does not work now */
	tell_others(j);
	return STEP_AGAIN;
}

/* ---- of a volume: where it is served ---- */

/* Lock */
static bool is_here(const struct sc *sc, const struct sc_volume *v)
{
	return !v->rec.holder.instance_id[0] || sc->fake;
}

struct activity {
	const char *volume;
	bool here, active, need_own;
};

static void note_activity(struct sc *sc, struct sc_item *item, void *ctx)
{
	const struct sc_snapshot *s = sc_snapshot_of(item);
	struct activity *a = ctx;

	if (item->kind != SC_SNAPSHOT || !str_eq(sc_snapshot_spec(s)->volume_id, a->volume))
		return;
	bool on_its_way = s->rec.state == SC_S_PENDING && !s->rec.stored && !item->deleted;
	a->active |= on_its_way || s->rec.view.set;
	a->need_own |= s->rec.view.set ? !s->rec.view.node_id[0] : on_its_way && a->here;
}

bool sc_snapshots_active(struct sc *sc, const char *volume_id, bool *ret_need_own)
{
	const struct sc_volume *v = sc_find_volume(sc, volume_id);
	struct activity a = { .volume = volume_id, .here = v && is_here(sc, v) };

	sc_each(sc, note_activity, &a);
	*ret_need_own = a.need_own;
	return a.active;
}

static struct sc_place place_of(const struct job *j)
{
	const struct sc_view *v = &j->rec.view;

	return (struct sc_place){ .node_id = v->node_id, .node_url = v->node_url, .volume = j->spec->volume_id, .generation = v->generation };
}

/* Lock. Our own process is to run: its volume's worker starts it, and has us look again. */
static enum step await_own(struct job *j, struct sc_volume *v)
{
	sc_kick(j->sc, &v->item);
	return wait_ms(j, LOOK_MS);
}

/* Lock */
static enum step choose_place(struct job *j, struct sc_volume *v)
{
	const struct sc_holder *h = &v->rec.holder;

	if (v->rec.state == SC_V_CREATING)
		return wait_ms(j, LOOK_MS);
	if (is_here(j->sc, v)) {
		if (!v->answers)
			return await_own(j, v);
		j->rec.view = (struct sc_view){ .set = true };
	} else {
		if (h->releasing)
			return wait_ms(j, LOOK_MS);
		j->rec.view = (struct sc_view){ .set = true, .generation = h->generation };
		memcpy(j->rec.view.node_id, h->node_id, sizeof(h->node_id));
		memcpy(j->rec.view.node_url, h->node_url, sizeof(h->node_url));
	}
	j->rec.view.sequence = ++j->sc->sequence;
	return STEP_AGAIN;
}

static enum step find_place(struct job *j)
{
	enum step step = STEP_DONE;

	pthread_mutex_lock(&j->sc->lock);
	struct sc_volume *v = sc_find_volume(j->sc, j->spec->volume_id);
	bool gone = !v || v->rec.state == SC_V_DELETED || v->rec.state == SC_V_ERROR;
	if (!gone)
		step = choose_place(j, v);
	pthread_mutex_unlock(&j->sc->lock);
	if (gone)
		return fail(j, "The volume %s does not exist, or cannot be used", j->spec->volume_id);
	if (step == STEP_AGAIN && commit(j) < 0)
		return STEP_RETRY;
	return step;
}

/* Whether who was chosen still has it. */
static bool still_there(struct job *j)
{
	const struct sc_view *w = &j->rec.view;
	bool there;

	pthread_mutex_lock(&j->sc->lock);
	const struct sc_volume *v = sc_find_volume(j->sc, j->spec->volume_id);
	const struct sc_holder *h = v ? &v->rec.holder : NULL;
	if (!w->node_id[0])
		there = v && v->rec.size_bytes && is_here(j->sc, v);
	else
		there = v && h->instance_id[0] && h->generation == w->generation && str_eq(h->node_id, w->node_id);
	pthread_mutex_unlock(&j->sc->lock);
	return there;
}

static bool own_answers(struct job *j)
{
	pthread_mutex_lock(&j->sc->lock);
	struct sc_volume *v = sc_find_volume(j->sc, j->spec->volume_id);
	bool answers = j->rec.view.node_id[0] || (v && v->answers);
	if (v && !answers)
		sc_kick(j->sc, &v->item);
	pthread_mutex_unlock(&j->sc->lock);
	return answers;
}

/* ---- of a volume: its view ---- */

static int64_t usual_scratch(struct job *j)
{
	pthread_mutex_lock(&j->sc->lock);
	const struct sc_volume *v = sc_find_volume(j->sc, j->spec->volume_id);
	int64_t size = v ? v->rec.size_bytes : 0;
	pthread_mutex_unlock(&j->sc->lock);
	return MAX_OF(MIN_OF(size, SCRATCH_USUAL_LEAST), MIN_OF(size / 10, SCRATCH_USUAL_MOST));
}

/* Nobody knows of it yet: another one may be begun, perhaps elsewhere. */
static enum step forget_view(struct job *j)
{
	j->rec.view = (struct sc_view){ 0 };
	j->rec.parent_chosen = false;
	return commit(j) < 0 ? STEP_RETRY : STEP_AGAIN;
}

static bool is_releasing(struct job *j)
{
	pthread_mutex_lock(&j->sc->lock);
	const struct sc_volume *v = sc_find_volume(j->sc, j->spec->volume_id);
	bool releasing = v && v->rec.holder.releasing;
	pthread_mutex_unlock(&j->sc->lock);
	return releasing;
}

static enum step not_begun(struct job *j)
{
	/* Who has it open must not wait for what does not come about: begun elsewhere, once it is closed. */
	if (!still_there(j) || is_releasing(j))
		return forget_view(j);
	if (str_eq(j->err.code, "InsufficientCapacity") && j->s->scratch_bytes > SCRATCH_LEAST) {
		j->s->scratch_bytes = MAX_OF(j->s->scratch_bytes / 2, SCRATCH_LEAST);
		return STEP_AGAIN;
	}
	if (j->failing_ms > BEGIN_LIMIT_MS)
		return fail(j, "The volume could not be frozen: %.300s", j->err.message);
	return STEP_RETRY;
}

static enum step begin_view(struct job *j)
{
	struct sc_place p = place_of(j);
	struct sc_view *v = &j->rec.view;
	struct sc_view_info info;

	if (!own_answers(j))
		return wait_ms(j, LOOK_MS);
	if (!j->s->scratch_bytes)
		j->s->scratch_bytes = usual_scratch(j);
	/* A predecessor may have begun it and died before it could say when. */
	if (sc_view_end(j->sc, &p, j->id, false, &j->err) || sc_view_begin(j->sc, &p, j->id, j->s->scratch_bytes, &info, &j->err))
		return not_begun(j);
	v->begun = true;
	memcpy(v->socket, info.socket, sizeof(v->socket));
	memcpy(v->export_name, info.export_name, sizeof(v->export_name));
	memcpy(v->base, info.base, sizeof(v->base));
	v->size_bytes = info.size_bytes;
	if (!j->rec.begin_time_ms)
		j->rec.begin_time_ms = clock_unix_ms();
	j->rec.size_bytes = info.size_bytes;
	if (commit(j) < 0)
		return STEP_RETRY;
	log_info("a volume was frozen", "snapshot=%s volume=%s node=%s base=%s", j->id, j->spec->volume_id, *v->node_id ? v->node_id : "none",
		 *v->base ? v->base : "none");
	return STEP_AGAIN;
}

struct later {
	struct job *j;
	char ids[64][ID_LEN];
	size_t count;
};

static void note_later(struct sc *sc, struct sc_item *item, void *ctx)
{
	struct later *l = ctx;
	const struct sc_snapshot *s = sc_snapshot_of(item);

	if (item->kind == SC_SNAPSHOT && s->rec.view.set && s->rec.view.sequence > l->j->rec.view.sequence && l->count < ARRAY_SIZE(l->ids) &&
	    str_eq(sc_snapshot_spec(s)->volume_id, l->j->spec->volume_id))
		memcpy(l->ids[l->count++], item->id, ID_LEN);
}

/* What later views say has changed is from now on in terms of this snapshot. */
static int rebase_later(struct job *j)
{
	struct sc *sc = j->sc;
	struct later l = { .j = j };
	int r = 0;

	pthread_mutex_lock(&sc->lock);
	sc_each(sc, note_later, &l);
	pthread_mutex_unlock(&sc->lock);
	for (size_t i = 0; i < l.count && r == 0; i++) {
		bool known;
		struct sc_item *item = sc_take(sc, l.ids[i], 60000, &known);
		if (!item && known)
			return error_set(&j->err, "ServiceUnavailable", "snapshot %s is being worked on", l.ids[i]);
		if (!item)
			continue;
		struct sc_snapshot_record rec = sc_snapshot_of(item)->rec;
		if (rec.view.set && rec.view.begun) {
			memcpy(rec.view.base, j->id, ID_LEN);
			r = sc_store_snapshot(sc, l.ids[i], &rec, &j->err);
			pthread_mutex_lock(&sc->lock);
			if (r == 0)
				sc_snapshot_of(item)->rec = rec;
			pthread_mutex_unlock(&sc->lock);
		}
		sc_give_back(sc, item, true);
	}
	return r;
}

/* The snapshot is stored, has failed, or is not wanted: its view is given up. */
static enum step end_view(struct job *j, bool count_from_it)
{
	struct sc_place p = place_of(j);
	bool there = still_there(j);
	int r = 0;

	if (there && !own_answers(j))
		return wait_ms(j, LOOK_MS);
	if (there)
		r = sc_view_end(j->sc, &p, j->id, count_from_it && j->s->item.attempts < END_TRIES, &j->err);
	if (r && !str_eq(j->err.code, "VolumeNotOpen"))
		return STEP_RETRY;
	bool ended = there && r == 0 && count_from_it && j->s->item.attempts < END_TRIES;
	error_clear(&j->err);
	if (ended && rebase_later(j) < 0)
		return STEP_RETRY;
	j->rec.view = (struct sc_view){ 0 };
	if (commit(j) < 0)
		return STEP_RETRY;
	tell_others(j);
	return STEP_AGAIN;
}

/* ---- of a volume: its data ---- */

struct turn {
	const struct job *j;
	bool earlier;
};

static void note_earlier(struct sc *sc, struct sc_item *item, void *ctx)
{
	struct turn *t = ctx;
	const struct sc_snapshot *s = sc_snapshot_of(item);

	if (item->kind == SC_SNAPSHOT && s->rec.view.set && s->rec.view.begun && s->rec.view.sequence < t->j->rec.view.sequence &&
	    str_eq(sc_snapshot_spec(s)->volume_id, t->j->spec->volume_id))
		t->earlier = true;
}

static bool is_turn(struct job *j)
{
	struct turn t = { .j = j };

	pthread_mutex_lock(&j->sc->lock);
	sc_each(j->sc, note_earlier, &t);
	pthread_mutex_unlock(&j->sc->lock);
	return !t.earlier;
}

struct newest {
	const struct job *j;
	int64_t time_ms;
	char id[ID_LEN];
};

static void note_newest(struct sc *sc, struct sc_item *item, void *ctx)
{
	struct newest *n = ctx;
	const struct sc_snapshot *s = sc_snapshot_of(item);

	if (item->kind == SC_SNAPSHOT && s->rec.state == SC_S_COMPLETED && !item->deleted && s->rec.begin_time_ms > n->time_ms &&
	    s->rec.size_bytes <= n->j->rec.size_bytes && str_eq(sc_snapshot_spec(s)->volume_id, n->j->spec->volume_id)) {
		n->time_ms = s->rec.begin_time_ms;
		memcpy(n->id, item->id, ID_LEN);
	}
}

/* It is there, and to stay. 1: it is; negative: Walrus does not say. */
static int is_usable(struct job *j, struct snap_store *store, const char *id)
{
	struct snap_info info;

	if (!id || !*id)
		return 0;
	pthread_mutex_lock(&j->sc->lock);
	const struct sc_snapshot *s = sc_find_snapshot(j->sc, id);
	bool leaving = s && (s->item.deleted || s->removing);
	pthread_mutex_unlock(&j->sc->lock);
	if (leaving)
		return 0;
	int r = snap_info(store, id, &info, &j->err);
	if (r == -ENOENT || r == -EBADMSG || r == -EPROTONOSUPPORT) {
		error_clear(&j->err);
		return 0;
	}
	return r ? r : (int64_t)info.size_bytes <= j->rec.size_bytes && info.encrypted == j->spec->encrypted.value;
}

/* Upon what it is stored: what the view counts changes from; else whatever it may share chunks with. */
static int choose_parent(struct job *j, struct snap_store *store)
{
	struct newest n = { .j = j };
	char source[ID_LEN] = "";

	pthread_mutex_lock(&j->sc->lock);
	sc_each(j->sc, note_newest, &n);
	const struct sc_volume *v = sc_find_volume(j->sc, j->spec->volume_id);
	if (v && sc_volume_spec(v)->snapshot_id)
		snprintf(source, sizeof(source), "%s", sc_volume_spec(v)->snapshot_id);
	pthread_mutex_unlock(&j->sc->lock);
	const char *const candidates[] = { j->rec.view.base, n.id, source };
	j->rec.parent[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(candidates); i++) {
		int r = is_usable(j, store, candidates[i]);
		if (r < 0)
			return r;
		if (r) {
			snprintf(j->rec.parent, sizeof(j->rec.parent), "%s", candidates[i]);
			break;
		}
	}
	j->rec.parent_chosen = true;
	return commit(j);
}

static enum step stored(struct job *j, const struct snap_info *info)
{
	j->rec.stored = true;
	j->rec.state = SC_S_COMPLETED;
	j->rec.size_bytes = (int64_t)info->size_bytes;
	j->rec.data_bytes = (int64_t)info->data_bytes;
	if (commit(j) < 0)
		return STEP_RETRY;
	metrics_add(j->sc->metrics, SC_M_STORED, 1);
	metrics_add(j->sc->metrics, SC_M_STORED_BYTES, (int64_t)info->added_bytes);
	log_info("a snapshot is stored", "id=%s parent=%s bytes=%llu data_bytes=%llu added_bytes=%llu", j->id, *info->parent ? info->parent : "none",
		 (unsigned long long)info->size_bytes, (unsigned long long)info->data_bytes, (unsigned long long)info->added_bytes);
	tell_others(j);
	return STEP_AGAIN;
}

static enum step view_lost(struct job *j)
{
	struct error why = j->err;

	/* From here on nobody is told of it who was not before. */
	pthread_mutex_lock(&j->sc->lock);
	j->told = j->s->begin_told;
	if (j->rec.view.node_id[0] && !j->told)
		j->s->rec.begin_time_ms = 0;
	pthread_mutex_unlock(&j->sc->lock);
	error_clear(&j->err);
	log_warn("a frozen view was lost", "snapshot=%s err=%s", j->id, log_quote(why.message));
	if (j->rec.view.node_id[0] && j->told)
		return fail(j, "The volume's process on node %s ended before its data were stored: make another snapshot (%.200s)",
			    j->rec.view.node_id, why.message);
	if (j->rec.view.node_id[0])
		j->rec.begin_time_ms = 0;
	return forget_view(j);
}

static enum step upload(struct job *j)
{
	struct snap_store *store = sc_store(j->sc, &j->err);

	if (!store)
		return STEP_RETRY;
	if (!j->rec.parent_chosen && choose_parent(j, store) < 0)
		return STEP_RETRY;
	struct sc_upload u = { .snapshot = j->s, .id = j->id, .volume = j->spec->volume_id, .parent = j->rec.parent, .view = &j->rec.view, .encrypted = j->spec->encrypted.value,
			       .all = !*j->rec.view.base || !str_eq(j->rec.parent, j->rec.view.base) };
	int r = sc_upload(j->sc, &u, &j->err);
	if (r == 0)
		return stored(j, &u.stored);
	if (j->s->cancel)
		return STEP_AGAIN;
	if (u.lost)
		return view_lost(j);
	if (str_eq(j->err.code, "ViewFailed"))
		return fail(j, "%.390s", j->err.message);
	if (r == -EEXIST)
		return fail(j, "Its upload was given up: make another snapshot");
	if (r == -ENOENT || r == -EINVAL) { /* the parent has gone, or is of another shape */
		log_warn("a snapshot's parent cannot be used", "id=%s parent=%s err=%s", j->id, j->rec.parent, log_quote(j->err.message));
		j->rec.parent_chosen = false;
		error_clear(&j->err);
		if (commit(j) < 0)
			return STEP_RETRY;
		return wait_ms(j, LOOK_MS);
	}
	sc_walrus_result(j->sc, r, &j->err);
	return STEP_RETRY;
}

static enum step of_volume(struct job *j)
{
	if (!j->rec.view.set)
		return find_place(j);
	if (!j->rec.view.begun)
		return begin_view(j);
	if (!is_turn(j))
		return wait_ms(j, LOOK_MS);
	return j->heavy ? upload(j) : STEP_HEAVY;
}

/* ---- of an image; of a snapshot ---- */

static int note_begin(struct job *j)
{
	if (j->rec.begin_time_ms)
		return 0;
	j->rec.begin_time_ms = clock_unix_ms();
	return commit(j);
}

static enum step of_image(struct job *j)
{
	struct sc_import m = { .snapshot = j->s, .id = j->id, .url = j->spec->import->url, .sha256 = j->spec->import->sha256,
			       .encrypted = j->spec->encrypted.value };

	if (!j->heavy)
		return STEP_HEAVY;
	if (note_begin(j) < 0)
		return STEP_RETRY;
	int r = sc_import(j->sc, &m, &j->err);
	if (r == 0)
		return stored(j, &m.stored);
	if (j->s->cancel)
		return STEP_AGAIN;
	if (m.hopeless || r == -EEXIST || (str_eq(j->err.code, "ClientError") && j->failing_ms > URL_LIMIT_MS))
		return fail(j, "%.390s", j->err.message);
	return STEP_RETRY;
}

static enum step of_snapshot(struct job *j)
{
	struct snap_store *store = sc_store(j->sc, &j->err);
	struct snap_writer *w;
	struct snap_info info;

	if (!j->heavy)
		return STEP_HEAVY;
	if (!store || note_begin(j) < 0)
		return STEP_RETRY;
	pthread_mutex_lock(&j->sc->lock);
	const struct sc_snapshot *source = sc_find_snapshot(j->sc, j->spec->copy_of);
	bool pending = source && source->rec.state == SC_S_PENDING && !source->rec.stored && !source->item.deleted;
	pthread_mutex_unlock(&j->sc->lock);
	if (pending)
		return wait_ms(j, LOOK_MS);
	int r = sc_find_stored(store, j->id, &info, &j->err);
	if (r == 0)
		return stored(j, &info);
	if (r == -ENOENT)
		r = snap_info(store, j->spec->copy_of, &info, &j->err);
	if (r == -ENOENT)
		return fail(j, "The snapshot %s, of which it is to be a copy, does not exist", j->spec->copy_of);
	if (r == 0 && info.encrypted && !j->spec->encrypted.value)
		return fail(j, "The snapshot %s is encrypted: so must its copies be", j->spec->copy_of);
	if (r == 0 && !info.encrypted && j->spec->encrypted.value) {
		r = sc_copy(j->sc, j->s, j->id, j->spec->copy_of, &info, &j->err);
		if (r == 0)
			return stored(j, &info);
		if (j->s->cancel)
			return STEP_AGAIN;
		if (r == -EEXIST)
			return fail(j, "Its copy was given up: make another one");
		sc_walrus_result(j->sc, r, &j->err);
		return STEP_RETRY;
	}
	struct snap_writer_config c = { .snapshot = j->id, .parent = j->spec->copy_of, .size_bytes = info.size_bytes, .resume = true,
					.encrypted = info.encrypted };
	if (r == 0)
		r = snap_writer_begin(store, &c, &w, &j->err);
	if (r) {
		sc_walrus_result(j->sc, r, &j->err);
		return STEP_RETRY;
	}
	r = snap_writer_commit(w, &info, &j->err);
	snap_writer_free(w);
	if (r == -EEXIST)
		return fail(j, "Its copy was given up: make another one");
	return r ? STEP_RETRY : stored(j, &info);
}

/* ---- gone ---- */

static enum step is_gone(struct job *j)
{
	j->rec.state = SC_S_DELETED;
	if (commit(j) < 0)
		return STEP_RETRY;
	log_info("a snapshot is gone", "id=%s", j->id);
	tell_others(j);
	return STEP_DONE;
}

/* Begun, perhaps, and never completed. */
static enum step give_up(struct job *j)
{
	bool begun = j->rec.parent_chosen || j->rec.begin_time_ms;
	struct snap_store *store = begun ? sc_store(j->sc, &j->err) : NULL;

	if (!begun)
		return is_gone(j);
	if (!store)
		return STEP_RETRY;
	struct snap_info info;
	int r = sc_find_stored(store, j->id, &info, &j->err);
	if (r == 0) { /* it was completed at the last moment */
		j->rec.stored = true;
		return commit(j) < 0 ? STEP_RETRY : STEP_AGAIN;
	}
	error_clear(&j->err);
	r = snap_abandon(store, j->id, &j->err);
	return r ? STEP_RETRY : is_gone(j);
}

/* Marks it as leaving, unless somebody needs it. */
static bool may_remove(struct job *j)
{
	pthread_mutex_lock(&j->sc->lock);
	bool free_of_readers = !sc_export_needed(j->sc, j->id);
	j->s->removing = free_of_readers;
	pthread_mutex_unlock(&j->sc->lock);
	return free_of_readers && !sc_exported(j->sc, j->id);
}

static enum step erase(struct job *j)
{
	struct snap_removed removed = { 0 };
	struct snap_store *store;
	struct error why = { 0 };

	if (j->rec.view.set)
		return end_view(j, false);
	if (!j->rec.stored)
		return give_up(j);
	if (!j->heavy)
		return STEP_HEAVY;
	if (!may_remove(j))
		return wait_ms(j, LOOK_MS);
	store = sc_store(j->sc, &j->err);
	int r = store ? snap_delete(store, j->id, &removed, &why) : 0;
	if (!store || (r && r != -ENOENT)) {
		pthread_mutex_lock(&j->sc->lock);
		j->s->removing = false;
		pthread_mutex_unlock(&j->sc->lock);
		if (r == -EBUSY) /* the parent of one that is on its way */
			return wait_ms(j, LOOK_MS * 2);
		if (r)
			j->err = why;
		sc_walrus_result(j->sc, r, &why);
		return STEP_RETRY;
	}
	if (removed.incomplete)
		log_warn("some of a deleted snapshot is left for the next collection", "id=%s err=%s", j->id, log_quote(why.message));
	return is_gone(j);
}

/* ---- all ---- */

static enum step next(struct job *j)
{
	refresh(j);
	if (j->rec.state == SC_S_DELETED)
		return STEP_DONE;
	if (str_eq(j->spec->wanted, "deleted"))
		return erase(j);
	if (j->rec.state != SC_S_PENDING)
		return j->rec.view.set ? end_view(j, j->rec.state == SC_S_COMPLETED) : STEP_DONE;
	if (j->spec->copy_of)
		return of_snapshot(j);
	return j->spec->import ? of_image(j) : of_volume(j);
}

struct sc_outcome sc_reconcile_snapshot(struct sc *sc, struct sc_snapshot *s, bool heavy)
{
	struct job j = { .sc = sc, .s = s, .id = s->item.id, .heavy = heavy };
	struct sc_outcome out = { 0 };
	enum step step = STEP_AGAIN;

	for (int i = 0; i < 8 && step == STEP_AGAIN && !sc->stopping; i++) {
		error_clear(&j.err);
		step = next(&j);
		if (step == STEP_AGAIN)
			sc_succeeded(sc, &s->item);
	}
	if (step == STEP_RETRY && !sc->stopping)
		out.wait_ms = sc_retry_ms(sc, &s->item, &j.err, NULL);
	else if (step != STEP_HEAVY && step != STEP_RETRY)
		sc_succeeded(sc, &s->item);
	if (step == STEP_WAIT)
		out.wait_ms = MAX_OF(j.wait_ms, (int64_t)1);
	out.heavy = step == STEP_HEAVY;
	out.again = step == STEP_AGAIN;
	arena_free(j.arena);
	return out;
}
