/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing. The order makes it safe beside uploads:
 * - An upload writes its mark, then packs, then the root, then removes its mark. It refers to packs of its own and of its
 *   parent, which is not deleted meanwhile.
 * - gc lists packs, then marks, then roots. A pack that it saw belongs to an upload whose mark it sees (kept), or that ended before
 *   the marks were listed: then its root, if it has one, is there to be seen, and tells.
 * - An upload is given up by a tombstone in the place of its root, put there only if there is none. So either the root was first, or
 *   the upload cannot be committed any more, and its packs may go.
 * - Deleting removes the root first. What is cut off after that is garbage, and gc's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "svc/sc/snap_store_priv.h"

#define TOMBSTONE_MS (INT64_C(7) * 24 * 3600 * 1000)

static int remove_packs(struct snap_store *s, const struct packset *packs, uint64_t *removed, struct error *e)
{
	for (unsigned i = 0; i < packs->count; i++) {
		const struct packset_upload *u = &packs->uploads[i];

		for (unsigned j = 0; j < u->count; j++) {
			for (uint32_t n = 0; n < u->runs[j].count; n++) {
				char key[SNAP_KEY_MAX];
				int err;

				snap_pack_key(&u->id, u->runs[j].first + n, key);
				err = objects_remove(s->objects, key, e);
				if (err)
					return err;
				++*removed;
			}
		}
	}
	return 0;
}

static int add_pack(void *ctx, const struct object_entry *entry)
{
	struct upload_id u;
	uint32_t number;

	if (snap_parse_pack_key(entry->key, &u, &number) == 0)
		packset_add(ctx, &u, number, 1);
	return 0;
}

/* ---- giving up ---- */

/* 0: a tombstone stands; 1: the snapshot is committed; or an error. */
static int bury(struct snap_store *s, const char *snapshot, struct error *e)
{
	struct snap_root tomb = { .abandoned = true, .time_ms = clock_unix_ms() }, *there;
	_cleanup_(buf_done) struct buf raw = BUF_INIT;
	char key[SNAP_KEY_MAX];
	int err;

	snap_id_copy(tomb.id, snapshot);
	snap_root_encode(&tomb, &raw);
	snap_root_key(snapshot, key);
	err = objects_put(s->objects, key, raw.data, raw.len, true, e);
	if (err != -EEXIST)
		return err;
	snap_error_clear(e);
	err = snap_load_any_root(s, snapshot, &there, e);
	if (err == -EBADMSG || err == -EPROTONOSUPPORT) {
		snap_error_clear(e);
		return 1; /* whatever it is, it was committed */
	}
	if (err)
		return err;
	err = there->abandoned ? 0 : 1;
	snap_root_free(there);
	return err;
}

/* No commit any more, and no mark. Its packs are the caller's to remove: those that no manifest refers to, for a mark may have outlived
 * a snapshot that was committed and deleted, and has children. 1: it is committed, and only its mark was removed. */
static int give_up(struct snap_store *s, const char *snapshot, struct error *e)
{
	char mark[SNAP_KEY_MAX];
	int err = bury(s, snapshot, e);
	bool committed = err == 1;

	if (err < 0)
		return err;
	snap_mark_key(snapshot, mark);
	err = objects_remove(s->objects, mark, e);
	return err ? err : committed;
}

/* ---- delete ---- */

int snap_read_mark(struct snap_store *s, const char *id, struct snap_mark *ret, struct error *e)
{
	_cleanup_(buf_done) struct buf raw = BUF_INIT;
	char key[SNAP_KEY_MAX];
	int err;

	snap_mark_key(id, key);
	err = objects_get(s->objects, key, 0, SNAP_MARK_MAX, &raw, e);
	if (err)
		return err;
	if (snap_mark_decode(raw.data ? raw.data : "", raw.len, ret)) /* not one of ours, or torn: nothing is known but that it is there */
		*ret = (struct snap_mark){ .parent = "?" };
	return 0;
}

/* Whether an upload that has a mark was committed or given up all the same: only its mark is left. */
static bool is_over(struct snap_store *s, const char *snapshot)
{
	struct snap_root *r;
	int err = snap_load_any_root(s, snapshot, &r, NULL);

	if (!err)
		snap_root_free(r);
	return !err || err == -EBADMSG || err == -EPROTONOSUPPORT;
}

/* -EBUSY when an upload that is not over needs `snapshot`, in whatever process. */
static int check_marks(struct snap_store *s, const char *snapshot, struct error *e)
{
	_cleanup_(snap_ids_done) struct snap_ids ids = { 0 };
	int err = snap_all_ids(s, SNAP_MARKS, &ids, e);

	for (size_t i = 0; !err && i < ids.count; i++) {
		struct snap_mark mark;

		err = snap_read_mark(s, ids.id[i], &mark, e);
		if (err == -ENOENT) {
			snap_error_clear(e);
			err = 0;
		} else if (!err && (str_eq(mark.parent, snapshot) || str_eq(mark.parent, "?")) && !is_over(s, ids.id[i])) {
			error_set(e, "InvalidSnapshot.InUse", "snapshot %s is the parent of %s, whose upload has neither been committed nor"
				  " given up", snapshot, ids.id[i]);
			err = -EBUSY;
		}
	}
	return err;
}

static const char *known_lineage(const struct snap_store *s, const char *id)
{
	for (size_t i = 0; i < s->lineage_count; i++) {
		if (str_eq(s->lineages[i].id, id))
			return s->lineages[i].lineage;
	}
	return NULL;
}

/* Whether id is known to be of another lineage. */
static bool is_stranger(struct snap_store *s, const char *id, const char *lineage)
{
	pthread_mutex_lock(&s->lock);
	const char *its = known_lineage(s, id);
	bool stranger = its && !str_eq(its, lineage);
	pthread_mutex_unlock(&s->lock);
	return stranger;
}

static void remember_lineage(struct snap_store *s, const struct snap_root *r)
{
	if (r->abandoned)
		return;
	pthread_mutex_lock(&s->lock);
	if (!known_lineage(s, r->id)) {
		if (s->lineage_count == s->lineage_cap) {
			s->lineage_cap = s->lineage_cap ? 2 * s->lineage_cap : 64;
			s->lineages = realloc(s->lineages, s->lineage_cap * sizeof(*s->lineages));
			if (!s->lineages)
				abort();
		}
		struct snap_lineage *l = &s->lineages[s->lineage_count++];
		memcpy(l->id, r->id, ID_LEN);
		memcpy(l->lineage, r->lineage, ID_LEN);
	}
	pthread_mutex_unlock(&s->lock);
}

/* Takes from packs what any manifest (of that lineage; NULL: at all) refers to. */
static int keep_referenced(struct snap_store *s, const char *lineage, struct packset *packs, struct error *e)
{
	_cleanup_(snap_ids_done) struct snap_ids ids = { 0 };
	int err = snap_all_ids(s, SNAP_ROOTS, &ids, e);

	for (size_t i = 0; !err && i < ids.count; i++) {
		_cleanup_(snap_root_freep) struct snap_root *r = NULL;
		struct packset used = PACKSET_INIT;

		if (lineage && is_stranger(s, ids.id[i], lineage))
			continue;
		err = snap_load_any_root(s, ids.id[i], &r, e);
		if (err == -ENOENT) { /* deleted meanwhile */
			snap_error_clear(e);
			err = 0;
			continue;
		}
		if (err)
			break;
		remember_lineage(s, r);
		snap_root_packs(r, &used);
		packset_subtract(packs, &used);
		packset_done(&used);
	}
	return err;
}

static int delete_packs(struct snap_store *s, const struct snap_root *r, uint64_t *removed, struct error *e)
{
	struct packset packs = PACKSET_INIT;
	int err;

	snap_root_packs(r, &packs);
	err = keep_referenced(s, r->lineage, &packs, e);
	if (!err)
		err = remove_packs(s, &packs, removed, e);
	packset_done(&packs);
	return err;
}

int snap_delete(struct snap_store *s, const char *snapshot, struct snap_removed *ret, struct error *e)
{
	_cleanup_(snap_root_freep) struct snap_root *r = NULL;
	struct snap_removed removed = { 0 };
	struct error why = { 0 };
	char key[SNAP_KEY_MAX];
	struct snap_use *use;
	int err;

	if (!snap_id_ok(snapshot)) {
		error_set(e, "InvalidSnapshot.NotFound", "there is no snapshot %s", snapshot);
		return -ENOENT;
	}
	err = snap_use(s, snapshot, SNAP_REMOVES, &use, e);
	if (err)
		return err;
	err = check_marks(s, snapshot, e);
	if (!err)
		err = snap_load_root(s, snapshot, &r, &why);
	if (err == -EBADMSG || err == -EPROTONOSUPPORT) {
		removed.incomplete = true; /* what it referred to cannot be told: gc's */
		err = 0;
	}
	/* A mark that its commit left behind goes first: without the root it would look like an upload's. */
	snap_mark_key(snapshot, key);
	if (!err)
		err = objects_remove(s->objects, key, e);
	snap_root_key(snapshot, key);
	if (!err)
		err = objects_remove(s->objects, key, e);
	if (!err && r)
		removed.incomplete = delete_packs(s, r, &removed.packs, &why) != 0;
	if ((err || removed.incomplete) && e && !error_is_set(e))
		*e = why;
	snap_unuse(s, use);
	if (!err && ret)
		*ret = removed;
	return err;
}

/* ---- gc ---- */

/* One mark: is its upload over? Those that are not keep their packs. */
static int gc_mark(struct snap_store *s, const char *id, int64_t abandon_after_ms, struct packset *packs, struct snap_removed *ret,
		   struct error *e)
{
	struct snap_mark mark;
	struct snap_use *use;
	int err = snap_read_mark(s, id, &mark, e);

	if (err == -ENOENT) { /* it ended just now */
		snap_error_clear(e);
		return 0;
	}
	if (err)
		return err;
	if ((abandon_after_ms && clock_unix_ms() - mark.time_ms < abandon_after_ms) || snap_use(s, id, SNAP_REMOVES, &use, NULL)) {
		packset_remove_snapshot(packs, id); /* under way */
		return 0;
	}
	err = give_up(s, id, e);
	snap_unuse(s, use);
	ret->uploads += err == 0;
	return err < 0 ? err : 0; /* its packs go like any others, unless a manifest refers to them */
}

/* Tombstones of long ago, with nothing left of their uploads. */
static int gc_tombstones(struct snap_store *s, struct snap_removed *ret, struct error *e)
{
	_cleanup_(snap_ids_done) struct snap_ids ids = { 0 };
	int err = snap_all_ids(s, SNAP_ROOTS, &ids, e);

	for (size_t i = 0; !err && i < ids.count; i++) {
		_cleanup_(snap_root_freep) struct snap_root *r = NULL;
		char key[SNAP_KEY_MAX];

		pthread_mutex_lock(&s->lock);
		bool committed = known_lineage(s, ids.id[i]);
		pthread_mutex_unlock(&s->lock);
		if (committed || snap_load_any_root(s, ids.id[i], &r, NULL) || !r->abandoned ||
		    clock_unix_ms() - r->time_ms < TOMBSTONE_MS)
			continue;
		snap_root_key(ids.id[i], key);
		err = objects_remove(s->objects, key, e);
		ret->tombstones += !err;
	}
	return err;
}

int snap_gc(struct snap_store *s, int64_t abandon_after_ms, struct snap_removed *ret, struct error *e)
{
	_cleanup_(snap_ids_done) struct snap_ids marks = { 0 };
	struct packset packs = PACKSET_INIT;
	struct snap_removed removed = { 0 };
	int err = objects_list(s->objects, SNAP_PACKS, add_pack, &packs, e);

	if (!err)
		err = snap_all_ids(s, SNAP_MARKS, &marks, e);
	for (size_t i = 0; !err && i < marks.count; i++)
		err = gc_mark(s, marks.id[i], abandon_after_ms, &packs, &removed, e);
	if (!err)
		err = keep_referenced(s, NULL, &packs, e);
	if (!err)
		err = remove_packs(s, &packs, &removed.packs, e);
	if (!err)
		err = gc_tombstones(s, &removed, e);
	packset_done(&packs);
	if (ret)
		*ret = removed;
	return err;
}

int snap_abandon(struct snap_store *s, const char *snapshot, struct error *e)
{
	struct packset packs = PACKSET_INIT;
	char prefix[SNAP_KEY_MAX];
	struct snap_use *use;
	uint64_t removed = 0;
	int err;

	if (!snap_id_ok(snapshot)) {
		error_set(e, "InvalidSnapshot.NotFound", "there is no snapshot %s", snapshot);
		return -EINVAL;
	}
	err = snap_use(s, snapshot, SNAP_REMOVES, &use, e);
	if (err)
		return err;
	err = give_up(s, snapshot, e);
	if (err == 0) {
		snprintf(prefix, sizeof(prefix), SNAP_PACKS "%s/", snapshot);
		err = objects_list(s->objects, prefix, add_pack, &packs, e);
		if (!err)
			err = keep_referenced(s, NULL, &packs, e);
		if (!err)
			err = remove_packs(s, &packs, &removed, e);
		packset_done(&packs);
	}
	snap_unuse(s, use);
	return err < 0 ? err : 0;
}
