/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/id.h"
#include "base/text.h"
#include "svc/clc/api.h"
#include "svc/clc/peer.h"
#include "svc/clc/reconcile.h"
#include "svc/clc/strmap.h"
#include "svc/clc/volumes.h"

enum {
	BATCH = 200, /* specifications in one message */
	FORGET_BATCH = 500,
	TIMEOUT_MS = 10000,
	FULL_TIMEOUT_MS = 60000,
	EPOCH_LEN = 128,
	/* A message of the controllers is 64 MiB at most; a specification with a presigned address
	   stays well below 3 KiB. */
	FULL_MAX = 20000,
};

/*
 * The order matters where one thing's end meets another's beginning: a snapshot that is deleted as
 * soon as a volume was made of it, a volume that is as soon as a snapshot of it was asked for. Both
 * are legal, and the storage controller must hear of the beginning first. So an end is told one
 * pass after it was noticed, when all that was recorded before it has been noticed too, and after
 * everything else of that pass.
 */

/* What must be known of a volume or snapshot without reading its record. */
struct entry {
	char id[ID_LEN];
	enum clc_kind kind;
	int64_t generation, sent; /* sent < generation: the storage controller has to be told */
	bool ends;		  /* it is wanted deleted */
	uint64_t noticed;	  /* in which pass that was found */
};

struct storage_applier {
	struct clc *clc;
	struct strmap *entries; /* id -> struct entry, owned */
	int64_t revisions[KIND_COUNT]; /* of the state, up to which the entries are true */
	char epoch[EPOCH_LEN];
	bool full; /* the next message must carry everything */
	uint64_t passes;
	bool postponed; /* an end was found in this pass */
	size_t ended_count, ended_room;
	char (*ended)[ID_LEN]; /* deleted ones without a record, to be released */
};

static const enum clc_kind kinds[] = {KIND_VOLUME, KIND_SNAPSHOT};

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

struct storage_applier *storage_applier_new(struct clc *c)
{
	struct storage_applier *a = must(calloc(1, sizeof(*a)));

	a->clc = c;
	a->entries = strmap_new();
	a->full = true;
	return a;
}

void storage_applier_free(struct storage_applier *a)
{
	size_t pos = 0;

	if (!a)
		return;
	for (void *p; (p = strmap_next(a->entries, &pos, NULL));)
		free(p);
	strmap_free(a->entries);
	free(a->ended);
	free(a);
}

void storage_applier_note_epoch(struct storage_applier *a, const char *epoch)
{
	if (!epoch || str_eq(a->epoch, epoch))
		return;
	snprintf(a->epoch, sizeof(a->epoch), "%s", epoch);
	a->full = true;
}

void storage_applier_forget(struct storage_applier *a, const char *id)
{
	if (strlen(id) >= ID_LEN)
		return;
	free(strmap_remove(a->entries, id));
	if (a->ended_count == a->ended_room) {
		a->ended_room = a->ended_room ? 2 * a->ended_room : 16;
		a->ended = must(realloc(a->ended, a->ended_room * sizeof(*a->ended)));
	}
	strcpy(a->ended[a->ended_count++], id);
}

/* ---- the index ---- */

struct wish {
	int64_t generation;
	bool ends;
};

static struct wish wish_of(enum clc_kind kind, const void *value)
{
	const struct records_volume *v = value;
	const struct records_snapshot *s = value;

	if (kind == KIND_VOLUME)
		return (struct wish){v->generation.value, str_eq(v->wanted, WANTED_DELETED)};
	return (struct wish){s->generation.value, str_eq(s->wanted, WANTED_DELETED)};
}

static void update_entry(struct storage_applier *a, enum clc_kind kind, const struct record *r)
{
	const struct wish w = wish_of(kind, r->value);
	struct entry *x = strmap_get(a->entries, r->id);

	if (!x) {
		x = must(calloc(1, sizeof(*x)));
		snprintf(x->id, sizeof(x->id), "%s", r->id);
		x->kind = kind;
		strmap_put(a->entries, x->id, x);
	}
	x->generation = w.generation;
	if (w.ends && !x->ends) {
		x->ends = true;
		x->noticed = a->passes;
	}
}

static int refresh(struct storage_applier *a, struct arena *arena, struct error *e)
{
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		struct record_list l;
		int r = record_list(a->clc, arena, kinds[k], NULL, a->revisions[kinds[k]], &l, e);

		if (r < 0)
			return r;
		for (size_t i = 0; i < l.count; i++) {
			update_entry(a, kinds[k], &l.items[i]);
			a->revisions[kinds[k]] =
			    MAX_OF(a->revisions[kinds[k]], l.items[i].revision);
		}
	}
	return 0;
}

/* ---- telling ---- */

struct message {
	struct storage_apply_storage_request in;
	size_t count;
	struct entry **sent;
	int64_t *generations;
};

static int add_spec(struct storage_applier *a, struct arena *arena, struct entry *x,
		    struct message *m, struct error *e)
{
	struct storage_volume_spec_list *volumes = &m->in.volumes;
	struct storage_snapshot_spec_list *snapshots = &m->in.snapshots;
	struct record rec;
	int r = record_get(a->clc, arena, x->kind, x->id, &rec, e);

	if (r < 0)
		return r == -ENOENT ? 0 : r; /* the observer tells of it */
	const struct wish w = wish_of(x->kind, rec.value);
	if (w.ends && !x->ends) {
		a->postponed = true;
		return 0;
	}
	if (x->kind == KIND_VOLUME)
		r = volume_spec(a->clc, arena, rec.value, &volumes->items[volumes->count], e);
	else
		r = snapshot_spec(a->clc, arena, rec.value, &snapshots->items[snapshots->count], e);
	if (r < 0)
		return r;
	volumes->count += x->kind == KIND_VOLUME;
	snapshots->count += x->kind != KIND_VOLUME;
	m->generations[m->count] = w.generation;
	m->sent[m->count++] = x;
	return 0;
}

/* Where a walk over the entries is: first those that go on, then those that end. */
struct walk {
	size_t pos;
	bool ends;
};

static struct entry *walk_next(struct storage_applier *a, struct walk *w)
{
	for (;;) {
		struct entry *x = strmap_next(a->entries, &w->pos, NULL);

		if (!x && w->ends)
			return NULL;
		if (!x)
			*w = (struct walk){.ends = true};
		else if (x->ends == w->ends)
			return x;
	}
}

static bool must_send(struct storage_applier *a, const struct entry *x)
{
	if (!a->full && x->sent >= x->generation)
		return false;
	if (!x->ends || x->noticed < a->passes)
		return true;
	a->postponed = true;
	return false;
}

/* One message's worth of those that must be sent, going on from *w. *ret_all: none is left after
 * them. */
static int gather(struct storage_applier *a, struct arena *arena, size_t max, struct walk *w,
		  struct message *ret, bool *ret_all, struct error *e)
{
	struct message m = {
	    .sent = arena_new_array(arena, struct entry *, max),
	    .generations = arena_new_array(arena, int64_t, max),
	};
	struct entry *x = NULL;

	m.in.volumes.set = m.in.snapshots.set = true;
	m.in.volumes.items = arena_new_array(arena, struct storage_volume_spec, max);
	m.in.snapshots.items = arena_new_array(arena, struct storage_snapshot_spec, max);
	while (m.count < max && (x = walk_next(a, w))) {
		int r = must_send(a, x) ? add_spec(a, arena, x, &m, e) : 0;

		if (r < 0)
			return r;
	}
	*ret = m;
	*ret_all = !x || m.count == strmap_count(a->entries);
	return 0;
}

static int send(struct storage_applier *a, struct arena *arena, struct message *m, char *epoch,
		struct error *e)
{
	struct storage_apply_storage_response *out;
	int r = peer_call(a->clc->storage, "ApplyStorage", &m->in, arena, &out,
			  m->in.full.set ? FULL_TIMEOUT_MS : TIMEOUT_MS, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < m->count; i++)
		m->sent[i]->sent = m->generations[i];
	metrics_add(a->clc->metrics, METRIC_APPLIED_STORAGE, (int64_t)m->count);
	snprintf(epoch, EPOCH_LEN, "%s", out->epoch);
	return 0;
}

/* Everything, in one message that says so; or, if that would be too long, in several that don't:
 * the controller then knows all there is as well, but not that it does. */
static int apply_all(struct storage_applier *a, struct error *e)
{
	char epoch[EPOCH_LEN] = "";
	bool all = false, first = true;
	struct walk w = {0};

	while (!all) {
		_cleanup_(arena_freep) struct arena *arena = arena_new();
		struct message m;
		char answered[EPOCH_LEN];
		int r = gather(a, arena, MIN_OF(strmap_count(a->entries), (size_t)FULL_MAX), &w, &m, &all, e);

		if (r < 0)
			return r;
		if (all && first && !a->postponed)
			m.in.full = WIRE_BOOL_OF(true);
		r = send(a, arena, &m, answered, e);
		if (r < 0)
			return r;
		if (!first && !str_eq(epoch, answered))
			return 0; /* started anew between two messages: again from the first */
		strcpy(epoch, answered);
		first = false;
	}
	strcpy(a->epoch, epoch);
	a->full = false;
	return 0;
}

static int apply_changed(struct storage_applier *a, struct error *e)
{
	struct walk w = {0};

	for (bool all = false; !all && !a->full;) {
		_cleanup_(arena_freep) struct arena *arena = arena_new();
		char epoch[EPOCH_LEN];
		struct message m;
		int r = gather(a, arena, BATCH, &w, &m, &all, e);

		if (r >= 0 && m.count) {
			r = send(a, arena, &m, epoch, e);
			if (r >= 0)
				storage_applier_note_epoch(a, epoch);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static int apply(struct storage_applier *a, struct error *e)
{
	/* Changed ones may show that everything is to be sent. */
	for (int again = 0; again < 2; again++) {
		int r = a->full ? apply_all(a, e) : apply_changed(a, e);

		if (r < 0 || !a->full)
			return r;
	}
	return 0; /* the controller comes and goes: next time */
}

/* ---- releasing ---- */

static int release(struct storage_applier *a, struct error *e)
{
	while (a->ended_count) {
		_cleanup_(arena_freep) struct arena *arena = arena_new();
		struct storage_forget_storage_request in = {0};
		size_t n = MIN_OF(a->ended_count, (size_t)FORGET_BATCH);
		const char *volumes[FORGET_BATCH], *snapshots[FORGET_BATCH];

		in.volume_ids = (struct wire_string_list){.set = true, .items = volumes};
		in.snapshot_ids = (struct wire_string_list){.set = true, .items = snapshots};
		for (size_t i = 0; i < n; i++) {
			const char *id = a->ended[a->ended_count - n + i];
			struct wire_string_list *l = clc_kind_of_id(id) == KIND_SNAPSHOT
							 ? &in.snapshot_ids
							 : &in.volume_ids;

			l->items[l->count++] = id;
		}
		int r = peer_call(a->clc->storage, "ForgetStorage", &in, arena, NULL, TIMEOUT_MS, e);
		if (r < 0)
			return r;
		a->ended_count -= n;
	}
	return 0;
}

static int pass(struct storage_applier *a, struct error *e)
{
	_cleanup_(arena_freep) struct arena *arena = arena_new();

	a->passes++;
	a->postponed = false;
	int r = refresh(a, arena, e);
	if (r >= 0 && a->full) { /* one message tells everything, ends and all */
		a->passes++;
		r = refresh(a, arena, e);
	}
	return r < 0 ? r : apply(a, e);
}

int storage_applier_pass(struct storage_applier *a, struct error *e)
{
	int r = pass(a, e);

	if (r >= 0 && a->postponed)
		r = pass(a, e);
	return r < 0 ? r : release(a, e);
}
