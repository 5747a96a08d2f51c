/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot's frozen view: who serves the volume, beginning it there, and giving it up. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/sc/snapshot_priv.h"

#define SCRATCH_LEAST (INT64_C(64) << 20)
#define SCRATCH_USUAL_LEAST (INT64_C(256) << 20)
#define SCRATCH_USUAL_MOST (INT64_C(8) << 30)
#define BEGIN_LIMIT_MS 300000 /* a view that cannot be begun for so long: the snapshot has failed */
#define END_TRIES 3           /* before a view is given up without its changes counting from it on */

/* ---- where it is served ---- */

/* Lock */
static bool is_here(const struct sc *sc, const struct sc_volume *v)
{
	return !v->rec.holder.instance_id[0] || sc->fake;
}

/* Lock */
static bool is_opening(const struct sc_volume *v)
{
	return v->opening_until_mono_ms > clock_mono_ms();
}

struct activity {
	const char *volume;
	bool here, opening, active, need_own;
};

static void note_activity(struct sc *sc, struct sc_item *item, void *ctx)
{
	const struct sc_snapshot *s = sc_snapshot_of(item);
	struct activity *a = ctx;

	if (item->kind != SC_SNAPSHOT || !str_eq(sc_snapshot_spec(s)->volume_id, a->volume))
		return;
	bool on_its_way = s->rec.state == SC_S_PENDING && !s->rec.stored && !item->deleted;
	a->active |= on_its_way || s->rec.view.set;
	bool ours = s->rec.view.set ? !s->rec.view.node_id[0] : on_its_way && a->here;
	bool beginning = item->busy && s->rec.view.set && !s->rec.view.begun;
	a->need_own |= ours && (!a->opening || beginning);
}

bool sc_snapshots_active(struct sc *sc, const char *volume_id, bool *ret_need_own)
{
	const struct sc_volume *v = sc_find_volume(sc, volume_id);
	struct activity a = { .volume = volume_id, .here = v && is_here(sc, v), .opening = v && is_opening(v) };

	sc_each(sc, note_activity, &a);
	*ret_need_own = a.need_own;
	return a.active;
}

struct freeze_first {
	const struct sc_volume *volume;
	bool any;
};

static void note_unfrozen(struct sc *sc, struct sc_item *item, void *ctx)
{
	const struct sc_snapshot *s = sc_snapshot_of(item);
	struct freeze_first *x = ctx;
	const struct sc_holder *h = &x->volume->rec.holder;
	const struct sc_view *w = &s->rec.view;

	if (item->kind != SC_SNAPSHOT || !str_eq(sc_snapshot_spec(s)->volume_id, x->volume->item.id))
		return;
	bool told = s->rec.state == SC_S_PENDING && !s->rec.stored && !item->deleted && s->rec.begin_time_ms;
	bool frozen = w->begun && w->generation == h->generation && str_eq(w->node_id, h->node_id);
	x->any |= told && !frozen;
}

bool sc_snapshots_to_freeze(struct sc *sc, const struct sc_volume *v)
{
	struct freeze_first x = { .volume = v };

	if (!sc->fake)
		sc_each(sc, note_unfrozen, &x);
	return x.any;
}

static struct sc_place place_of(const struct snap_job *j)
{
	const struct sc_view *v = &j->rec.view;

	return (struct sc_place){ .node_id = v->node_id, .node_url = v->node_url, .volume = j->spec->volume_id, .generation = v->generation };
}

/* Lock. Our own process is to run: its volume's worker starts it, and has us look again. */
static enum snap_step await_own(struct snap_job *j, struct sc_volume *v)
{
	sc_kick(j->sc, &v->item);
	return snap_wait(j, SNAP_LOOK_MS);
}

/* Lock */
static enum snap_step choose_place(struct snap_job *j, struct sc_volume *v)
{
	const struct sc_holder *h = &v->rec.holder;

	if (v->rec.state == SC_V_CREATING)
		return snap_wait(j, SNAP_LOOK_MS);
	if (is_here(j->sc, v)) {
		if (!v->answers || is_opening(v))
			return await_own(j, v);
		j->rec.view = (struct sc_view){ .set = true };
	} else {
		if (h->releasing)
			return snap_wait(j, SNAP_LOOK_MS);
		j->rec.view = (struct sc_view){ .set = true, .generation = h->generation };
		memcpy(j->rec.view.node_id, h->node_id, sizeof(h->node_id));
		memcpy(j->rec.view.node_url, h->node_url, sizeof(h->node_url));
	}
	return STEP_AGAIN;
}

enum snap_step snap_find_place(struct snap_job *j)
{
	enum snap_step step = STEP_DONE;

	pthread_mutex_lock(&j->sc->lock);
	struct sc_volume *v = sc_find_volume(j->sc, j->spec->volume_id);
	bool gone = !v || v->rec.state == SC_V_DELETED || v->rec.state == SC_V_ERROR;
	if (!gone)
		step = choose_place(j, v);
	pthread_mutex_unlock(&j->sc->lock);
	if (gone)
		return snap_fail(j, "The volume %s does not exist, or cannot be used", j->spec->volume_id);
	if (step == STEP_AGAIN && snap_commit(j) < 0)
		return STEP_RETRY;
	return step;
}

bool snap_still_there(struct snap_job *j)
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

static bool own_answers(struct snap_job *j)
{
	pthread_mutex_lock(&j->sc->lock);
	struct sc_volume *v = sc_find_volume(j->sc, j->spec->volume_id);
	bool answers = j->rec.view.node_id[0] || (v && v->answers && !is_opening(v));
	if (v && !answers)
		sc_kick(j->sc, &v->item);
	pthread_mutex_unlock(&j->sc->lock);
	return answers;
}

/* ---- the view ---- */

static int64_t usual_scratch(struct snap_job *j)
{
	pthread_mutex_lock(&j->sc->lock);
	const struct sc_volume *v = sc_find_volume(j->sc, j->spec->volume_id);
	int64_t size = v ? v->rec.size_bytes : 0;
	pthread_mutex_unlock(&j->sc->lock);
	return MAX_OF(MIN_OF(size, SCRATCH_USUAL_LEAST), MIN_OF(size / 10, SCRATCH_USUAL_MOST));
}

enum snap_step snap_forget_view(struct snap_job *j)
{
	j->rec.view = (struct sc_view){ 0 };
	j->rec.parent_chosen = false;
	return snap_commit(j) < 0 ? STEP_RETRY : STEP_AGAIN;
}

static bool is_releasing(struct snap_job *j)
{
	pthread_mutex_lock(&j->sc->lock);
	const struct sc_volume *v = sc_find_volume(j->sc, j->spec->volume_id);
	bool releasing = v && v->rec.holder.releasing;
	pthread_mutex_unlock(&j->sc->lock);
	return releasing;
}

static enum snap_step not_begun(struct snap_job *j)
{
	/* Who has it open must not wait for what does not come about: begun elsewhere, once it is closed. */
	if (!snap_still_there(j) || is_releasing(j))
		return snap_forget_view(j);
	if (str_eq(j->err.code, "InsufficientCapacity") && j->s->scratch_bytes > SCRATCH_LEAST) {
		j->s->scratch_bytes = MAX_OF(j->s->scratch_bytes / 2, SCRATCH_LEAST);
		return STEP_AGAIN;
	}
	if (j->failing_ms > BEGIN_LIMIT_MS)
		return snap_fail(j, "The volume could not be frozen: %.300s", j->err.message);
	return STEP_RETRY;
}

enum snap_step snap_begin_view(struct snap_job *j)
{
	struct sc_place p = place_of(j);
	struct sc_view *v = &j->rec.view;
	struct sc_view_info info;

	if (!snap_still_there(j))
		return snap_forget_view(j);
	if (!own_answers(j))
		return snap_wait(j, SNAP_LOOK_MS);
	if (!j->s->scratch_bytes)
		j->s->scratch_bytes = usual_scratch(j);
	/* A predecessor may have begun it and died before it could say when. */
	if (sc_view_end(j->sc, &p, j->id, false, &j->err) || sc_view_begin(j->sc, &p, j->id, j->s->scratch_bytes, &info, &j->err))
		return not_begun(j);
	v->begun = true;
	pthread_mutex_lock(&j->sc->lock);
	v->sequence = ++j->sc->sequence; /* behind those whose turn it may be by now */
	pthread_mutex_unlock(&j->sc->lock);
	memcpy(v->socket, info.socket, sizeof(v->socket));
	memcpy(v->export_name, info.export_name, sizeof(v->export_name));
	memcpy(v->base, info.base, sizeof(v->base));
	v->size_bytes = info.size_bytes;
	if (!j->rec.begin_time_ms)
		j->rec.begin_time_ms = clock_unix_ms();
	j->rec.size_bytes = info.size_bytes;
	if (snap_commit(j) < 0)
		return STEP_RETRY;
	log_info("a volume was frozen", "snapshot=%s volume=%s node=%s base=%s", j->id, j->spec->volume_id, *v->node_id ? v->node_id : "none",
		 *v->base ? v->base : "none");
	return STEP_AGAIN;
}

struct others {
	struct snap_job *j;
	char ids[64][ID_LEN];
	size_t count;
};

static void note_other(struct sc *sc, struct sc_item *item, void *ctx)
{
	struct others *l = ctx;
	const struct sc_snapshot *s = sc_snapshot_of(item);

	if (item->kind == SC_SNAPSHOT && s->rec.view.set && s != l->j->s && l->count < ARRAY_SIZE(l->ids) &&
	    str_eq(sc_snapshot_spec(s)->volume_id, l->j->spec->volume_id))
		memcpy(l->ids[l->count++], item->id, ID_LEN);
}

/* What the volume's other views say has changed is from now on in terms of this base. */
static int rebase_others(struct snap_job *j, const char base[static ID_LEN])
{
	struct sc *sc = j->sc;
	struct others l = { .j = j };
	int r = 0;

	pthread_mutex_lock(&sc->lock);
	sc_each(sc, note_other, &l);
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
			snprintf(rec.view.base, sizeof(rec.view.base), "%s", base);
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

/*
 * Whether the view was committed is known by what its volume's process says, not by what was asked for: an answer may have been
 * lost, and the next one is then of a view that is not there. One that was never stored has not been asked to be.
 */
enum snap_step snap_end_view(struct snap_job *j, bool count_from_it)
{
	struct sc_place p = place_of(j);
	bool there = snap_still_there(j);
	char base[ID_LEN];
	int r = 0;

	if (there && !own_answers(j))
		return snap_wait(j, SNAP_LOOK_MS);
	if (there)
		r = sc_view_end_base(j->sc, &p, j->id, count_from_it && j->s->item.attempts < END_TRIES, base, &j->err);
	if (r && !str_eq(j->err.code, "VolumeNotOpen"))
		return STEP_RETRY;
	bool ended = there && r == 0;
	error_clear(&j->err);
	if (ended && j->rec.stored && rebase_others(j, base) < 0)
		return STEP_RETRY;
	j->rec.view = (struct sc_view){ 0 };
	if (snap_commit(j) < 0)
		return STEP_RETRY;
	snap_tell_others(j);
	return STEP_AGAIN;
}
