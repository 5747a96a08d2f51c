/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot's data, out of its frozen view: when it is its turn, and upon which other one it is stored. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/sc/snapshot_priv.h"

struct turn {
	const struct snap_job *j;
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

bool snap_is_turn(struct snap_job *j)
{
	struct turn t = { .j = j };

	pthread_mutex_lock(&j->sc->lock);
	sc_each(j->sc, note_earlier, &t);
	pthread_mutex_unlock(&j->sc->lock);
	return !t.earlier;
}

struct newest {
	const struct snap_job *j;
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
static int is_usable(struct snap_job *j, struct snap_store *store, const char *id)
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
static int choose_parent(struct snap_job *j, struct snap_store *store)
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
	return snap_commit(j);
}

static enum snap_step view_lost(struct snap_job *j)
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
		return snap_fail(j, "The volume's process on node %s ended before its data were stored: make another snapshot (%.200s)",
			    j->rec.view.node_id, why.message);
	if (j->rec.view.node_id[0])
		j->rec.begin_time_ms = 0;
	return snap_forget_view(j);
}

enum snap_step snap_upload(struct snap_job *j)
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
		return snap_stored(j, &u.stored);
	if (j->s->cancel)
		return STEP_AGAIN;
	if (!j->rec.view.node_id[0] && !snap_still_there(j)) { /* somebody opened the volume meanwhile */
		error_clear(&j->err);
		return snap_forget_view(j);
	}
	if (u.lost)
		return view_lost(j);
	if (str_eq(j->err.code, "ViewFailed"))
		return snap_fail(j, "%.390s", j->err.message);
	if (r == -EEXIST)
		return snap_fail(j, "Its upload was given up: make another snapshot");
	if (r == -ENOENT || r == -EINVAL) { /* the parent has gone, or is of another shape */
		log_warn("a snapshot's parent cannot be used", "id=%s parent=%s err=%s", j->id, j->rec.parent, log_quote(j->err.message));
		j->rec.parent_chosen = false;
		error_clear(&j->err);
		if (snap_commit(j) < 0)
			return STEP_RETRY;
		return snap_wait(j, SNAP_LOOK_MS);
	}
	sc_walrus_result(j->sc, r, &j->err);
	return STEP_RETRY;
}
