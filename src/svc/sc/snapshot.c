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
 *
 * So a volume whose view is in a process of ours can be opened: that process ends, a node serves the volume, and the view is begun
 * anew there, before the node gives the volume to a guest (OpenVolume's Held).
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/sc/snapshot_priv.h"
#include "wire/codec.h"

#define URL_LIMIT_MS 900000   /* a URL that is refused for so long will not be taken any more */

static void refresh(struct snap_job *j)
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

int snap_commit(struct snap_job *j)
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

enum snap_step snap_wait(struct snap_job *j, int64_t ms)
{
	j->wait_ms = ms;
	return STEP_WAIT;
}

void snap_tell_others(struct snap_job *j)
{
	pthread_mutex_lock(&j->sc->lock);
	struct sc_item *volume = j->spec->volume_id ? sc_find(j->sc, j->spec->volume_id) : NULL;
	if (volume)
		sc_kick(j->sc, volume);
	if (j->spec->volume_id)
		sc_kick_snapshots(j->sc, j->spec->volume_id);
	pthread_mutex_unlock(&j->sc->lock);
}

enum snap_step snap_fail(struct snap_job *j, const char *fmt, ...)
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
	if (snap_commit(j) < 0)
		return STEP_RETRY;
	if (store)
		snap_abandon(store, j->id, NULL); /* the housekeeper's, if it does not work now */
	snap_tell_others(j);
	return STEP_AGAIN;
}

enum snap_step snap_stored(struct snap_job *j, const struct snap_info *info)
{
	j->rec.stored = true;
	j->rec.state = SC_S_COMPLETED;
	j->rec.size_bytes = (int64_t)info->size_bytes;
	j->rec.data_bytes = (int64_t)info->data_bytes;
	if (snap_commit(j) < 0)
		return STEP_RETRY;
	metrics_add(j->sc->metrics, SC_M_STORED, 1);
	metrics_add(j->sc->metrics, SC_M_STORED_BYTES, (int64_t)info->added_bytes);
	log_info("a snapshot is stored", "id=%s parent=%s bytes=%llu data_bytes=%llu added_bytes=%llu", j->id, *info->parent ? info->parent : "none",
		 (unsigned long long)info->size_bytes, (unsigned long long)info->data_bytes, (unsigned long long)info->added_bytes);
	snap_tell_others(j);
	return STEP_AGAIN;
}

static enum snap_step of_volume(struct snap_job *j)
{
	if (!j->rec.view.set)
		return snap_find_place(j);
	if (!j->rec.view.begun)
		return snap_begin_view(j);
	if (!j->rec.view.node_id[0] && !snap_still_there(j))
		return snap_forget_view(j);
	if (!snap_is_turn(j))
		return snap_wait(j, SNAP_LOOK_MS);
	return j->heavy ? snap_upload(j) : STEP_HEAVY;
}

/* ---- of an image; of a snapshot ---- */

static int note_begin(struct snap_job *j)
{
	if (j->rec.begin_time_ms)
		return 0;
	j->rec.begin_time_ms = clock_unix_ms();
	return snap_commit(j);
}

static enum snap_step of_image(struct snap_job *j)
{
	struct sc_import m = { .snapshot = j->s, .id = j->id, .url = j->spec->import->url, .sha256 = j->spec->import->sha256,
			       .encrypted = j->spec->encrypted.value };

	if (!j->heavy)
		return STEP_HEAVY;
	if (note_begin(j) < 0)
		return STEP_RETRY;
	int r = sc_import(j->sc, &m, &j->err);
	if (r == 0)
		return snap_stored(j, &m.stored);
	if (j->s->cancel)
		return STEP_AGAIN;
	if (m.hopeless || r == -EEXIST || (str_eq(j->err.code, "ClientError") && j->failing_ms > URL_LIMIT_MS))
		return snap_fail(j, "%.390s", j->err.message);
	return STEP_RETRY;
}

static enum snap_step of_snapshot(struct snap_job *j)
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
		return snap_wait(j, SNAP_LOOK_MS);
	int r = sc_find_stored(store, j->id, &info, &j->err);
	if (r == 0)
		return snap_stored(j, &info);
	if (r == -ENOENT)
		r = snap_info(store, j->spec->copy_of, &info, &j->err);
	if (r == -ENOENT)
		return snap_fail(j, "The snapshot %s, of which it is to be a copy, does not exist", j->spec->copy_of);
	if (r == 0 && info.encrypted && !j->spec->encrypted.value)
		return snap_fail(j, "The snapshot %s is encrypted: so must its copies be", j->spec->copy_of);
	if (r == 0 && !info.encrypted && j->spec->encrypted.value) {
		r = sc_copy(j->sc, j->s, j->id, j->spec->copy_of, &info, &j->err);
		if (r == 0)
			return snap_stored(j, &info);
		if (j->s->cancel)
			return STEP_AGAIN;
		if (r == -EEXIST)
			return snap_fail(j, "Its copy was given up: make another one");
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
		return snap_fail(j, "Its copy was given up: make another one");
	return r ? STEP_RETRY : snap_stored(j, &info);
}

/* ---- gone ---- */

static enum snap_step is_gone(struct snap_job *j)
{
	j->rec.state = SC_S_DELETED;
	if (snap_commit(j) < 0)
		return STEP_RETRY;
	log_info("a snapshot is gone", "id=%s", j->id);
	snap_tell_others(j);
	return STEP_DONE;
}

/* Begun, perhaps, and never completed. */
static enum snap_step give_up(struct snap_job *j)
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
		return snap_commit(j) < 0 ? STEP_RETRY : STEP_AGAIN;
	}
	error_clear(&j->err);
	r = snap_abandon(store, j->id, &j->err);
	return r ? STEP_RETRY : is_gone(j);
}

/* Marks it as leaving, unless somebody needs it. */
static bool may_remove(struct snap_job *j)
{
	pthread_mutex_lock(&j->sc->lock);
	bool free_of_readers = !sc_export_needed(j->sc, j->id);
	j->s->removing = free_of_readers;
	pthread_mutex_unlock(&j->sc->lock);
	return free_of_readers && !sc_exported(j->sc, j->id);
}

static enum snap_step erase(struct snap_job *j)
{
	struct snap_removed removed = { 0 };
	struct snap_store *store;
	struct error why = { 0 };

	if (j->rec.view.set)
		return snap_end_view(j, false);
	if (!j->rec.stored)
		return give_up(j);
	if (!j->heavy)
		return STEP_HEAVY;
	if (!may_remove(j))
		return snap_wait(j, SNAP_LOOK_MS);
	store = sc_store(j->sc, &j->err);
	int r = store ? snap_delete(store, j->id, &removed, &why) : 0;
	if (!store || (r && r != -ENOENT)) {
		pthread_mutex_lock(&j->sc->lock);
		j->s->removing = false;
		pthread_mutex_unlock(&j->sc->lock);
		if (r == -EBUSY) /* the parent of one that is on its way */
			return snap_wait(j, SNAP_LOOK_MS * 2);
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

static enum snap_step next(struct snap_job *j)
{
	refresh(j);
	if (j->rec.state == SC_S_DELETED)
		return STEP_DONE;
	if (str_eq(j->spec->wanted, "deleted"))
		return erase(j);
	if (j->rec.state != SC_S_PENDING)
		return j->rec.view.set ? snap_end_view(j, j->rec.state == SC_S_COMPLETED) : STEP_DONE;
	if (j->spec->copy_of)
		return of_snapshot(j);
	return j->spec->import ? of_image(j) : of_volume(j);
}

struct sc_outcome sc_reconcile_snapshot(struct sc *sc, struct sc_snapshot *s, bool heavy)
{
	struct snap_job j = { .sc = sc, .s = s, .id = s->item.id, .heavy = heavy };
	struct sc_outcome out = { 0 };
	enum snap_step step = STEP_AGAIN;

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
