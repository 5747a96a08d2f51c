/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/clc/api.h"
#include "svc/clc/peer.h"
#include "svc/clc/instances.h"
#include "svc/clc/inventory.h"
#include "svc/clc/reconcile.h"
#include "svc/clc/strmap.h"

enum {
	BATCH = 100, /* specifications in one message */
	FORGET_BATCH = 500,
	TIMEOUT_MS = 10000,
	FULL_TIMEOUT_MS = 60000,
	PURGE_EVERY_MS = 10000,
	EPOCH_LEN = 128,
	/* A message of the controllers is 64 MiB at most. */
	MESSAGE_BYTES = 32 << 20,
	SPEC_BYTES = 1536, /* without what may be long */
	TAG_BYTES = 24,
};

/* What the applier must know of an instance without reading its record. */
struct entry {
	char id[ID_LEN];
	char reservation[ID_LEN];
	enum instance_state state;
	int64_t state_time_ms;
	int64_t generation, sent; /* sent < generation: the cluster controller has to be told */
	bool released;		  /* ended, and the cluster controller knows that we know */
};

struct id_list {
	size_t count, room;
	char (*items)[ID_LEN];
};

struct applier {
	struct clc *clc;
	struct strmap *entries;	     /* instance id -> struct entry, owned */
	struct strmap *reservations; /* reservation id -> size_t: entries of it, owned */
	int64_t revision;	     /* of the state, up to which the entries are true */
	char epoch[EPOCH_LEN];
	bool full;	       /* the next message must carry everything */
	struct id_list strays; /* ended ones without an entry, to be released */
	int64_t purged_ms;
};

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

struct applier *applier_new(struct clc *c)
{
	struct applier *a = must(calloc(1, sizeof(*a)));

	a->clc = c;
	a->entries = strmap_new();
	a->reservations = strmap_new();
	a->full = true;
	return a;
}

void applier_free(struct applier *a)
{
	size_t pos = 0;

	if (!a)
		return;
	for (void *p; (p = strmap_next(a->entries, &pos, NULL));)
		free(p);
	pos = 0;
	for (void *p; (p = strmap_next(a->reservations, &pos, NULL));)
		free(p);
	strmap_free(a->entries);
	strmap_free(a->reservations);
	free(a->strays.items);
	free(a);
}

void applier_note_epoch(struct applier *a, const char *epoch)
{
	if (!epoch || str_eq(a->epoch, epoch))
		return;
	snprintf(a->epoch, sizeof(a->epoch), "%s", epoch);
	a->full = true;
}

void applier_forget(struct applier *a, const char *instance_id)
{
	struct id_list *l = &a->strays;

	if (strlen(instance_id) >= ID_LEN)
		return;
	if (l->count == l->room) {
		l->room = l->room ? 2 * l->room : 16;
		l->items = must(realloc(l->items, l->room * sizeof(*l->items)));
	}
	strcpy(l->items[l->count++], instance_id);
}

/* ---- the index ---- */

static void count_reservation(struct applier *a, const char *id, int by)
{
	size_t *n = strmap_get(a->reservations, id);

	if (!n) {
		n = must(calloc(1, sizeof(*n)));
		strmap_put(a->reservations, id, n);
	}
	*n += (size_t)by;
	if (*n == 0)
		free(strmap_remove(a->reservations, id));
}

static bool in_use(const struct applier *a, const char *reservation)
{
	return strmap_get(a->reservations, reservation) != NULL;
}

static void update_entry(struct applier *a, const struct records_instance *i)
{
	struct entry *x = strmap_get(a->entries, i->instance_id);

	if (!x) {
		x = must(calloc(1, sizeof(*x)));
		snprintf(x->id, sizeof(x->id), "%s", i->instance_id);
		snprintf(x->reservation, sizeof(x->reservation), "%s", i->reservation_id);
		strmap_put(a->entries, i->instance_id, x);
		count_reservation(a, x->reservation, 1);
	}
	x->state = instance_state_of(i);
	x->state_time_ms = i->state_time.value;
	x->generation = i->generation.value;
}

static int refresh(struct applier *a, struct arena *arena, struct error *e)
{
	struct record_list l;
	int r = record_list(a->clc, arena, KIND_INSTANCE, NULL, a->revision, &l, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < l.count; i++) {
		update_entry(a, l.items[i].value);
		a->revision = MAX_OF(a->revision, l.items[i].revision);
	}
	return 0;
}

/* ---- telling ---- */

static bool must_send(const struct applier *a, const struct entry *x)
{
	return instance_state_live(x->state) && (a->full || x->sent < x->generation);
}

/* What an encoded specification is not longer than, but for what escaping adds. */
static size_t weight(const struct shared_instance_spec *s)
{
	size_t bytes = SPEC_BYTES + s->user_data.len / 3 * 4;

	bytes +=
	    (s->public_key ? strlen(s->public_key) : 0) + (s->image_url ? strlen(s->image_url) : 0);
	for (size_t i = 0; i < s->tags.count; i++)
		bytes += TAG_BYTES + strlen(s->tags.items[i].key) + strlen(s->tags.items[i].value);
	return bytes;
}

/* One message's worth of those that must be sent, going on from *pos. *ret_all: none is left after
 * them. */
static int gather(struct applier *a, struct arena *arena, size_t max, size_t *pos,
		  struct shared_instance_spec_list *ret, struct entry **sent, bool *ret_all,
		  struct error *e)
{
	size_t bytes = 0;
	struct entry *x = NULL;

	ret->set = true;
	ret->items = arena_new_array(arena, struct shared_instance_spec, max);
	while (ret->count < max && bytes < MESSAGE_BYTES &&
	       (x = strmap_next(a->entries, pos, NULL))) {
		struct record rec;

		if (!must_send(a, x))
			continue;
		int r = record_get(a->clc, arena, KIND_INSTANCE, x->id, &rec, e);
		if (r == -ENOENT)
			continue;
		if (r >= 0)
			r = instance_spec(a->clc, arena, rec.value, &ret->items[ret->count], e);
		if (r < 0)
			return r;
		bytes += weight(&ret->items[ret->count]);
		sent[ret->count++] = x;
	}
	*ret_all = !x || ret->count == strmap_count(a->entries);
	return 0;
}

static int send(struct applier *a, struct arena *arena, struct shared_apply_instances_request *in,
		struct entry **sent, char *epoch, struct error *e)
{
	struct shared_apply_instances_response *out;
	int r = peer_call(a->clc->cluster, "ApplyInstances", in, arena, &out,
			     in->full.set ? FULL_TIMEOUT_MS : TIMEOUT_MS, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < in->instances.count; i++)
		sent[i]->sent = in->instances.items[i].generation.value;
	metrics_add(a->clc->metrics, METRIC_APPLIED, (int64_t)in->instances.count);
	snprintf(epoch, EPOCH_LEN, "%s", out->epoch);
	return 0;
}

/* Everything, in one message that says so; or, if that would be too long, in several that don't:
 * the controller then knows all there is as well, but not that it does. */
static int apply_all(struct applier *a, struct error *e)
{
	char epoch[EPOCH_LEN] = "";
	bool all = false, first = true;
	size_t pos = 0;

	while (!all) {
		_cleanup_(arena_freep) struct arena *arena = arena_new();
		struct shared_apply_instances_request in = {0};
		size_t max = strmap_count(a->entries);
		struct entry **sent = arena_new_array(arena, struct entry *, max);
		char answered[EPOCH_LEN];
		int r = gather(a, arena, max, &pos, &in.instances, sent, &all, e);

		if (r < 0)
			return r;
		if (all && first)
			in.full = WIRE_BOOL_OF(true);
		r = send(a, arena, &in, sent, answered, e);
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

static int apply_changed(struct applier *a, struct error *e)
{
	size_t pos = 0;

	for (bool all = false; !all && !a->full;) {
		_cleanup_(arena_freep) struct arena *arena = arena_new();
		struct shared_apply_instances_request in = {0};
		struct entry *sent[BATCH];
		char epoch[EPOCH_LEN];
		int r = gather(a, arena, BATCH, &pos, &in.instances, sent, &all, e);

		if (r >= 0 && in.instances.count) {
			r = send(a, arena, &in, sent, epoch, e);
			if (r >= 0)
				applier_note_epoch(a, epoch);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static int apply(struct applier *a, struct error *e)
{
	/* Changed ones may show that everything is to be sent. */
	for (int again = 0; again < 2; again++) {
		int r = a->full ? apply_all(a, e) : apply_changed(a, e);

		if (r < 0 || !a->full)
			return r;
	}
	return 0; /* the controller comes and goes: next time */
}

/* ---- releasing and forgetting ---- */

static int release_batch(struct applier *a, const char **ids, size_t count, struct error *e)
{
	_cleanup_(arena_freep) struct arena *arena = arena_new();
	struct shared_forget_instances_request in = {0};

	in.instance_ids = (struct wire_string_list){.set = true, .count = count, .items = ids};
	return peer_call(a->clc->cluster, "ForgetInstances", &in, arena, NULL, TIMEOUT_MS, e);
}

static int release_strays(struct applier *a, struct error *e)
{
	const char *ids[FORGET_BATCH];

	while (a->strays.count) {
		size_t n = MIN_OF(a->strays.count, (size_t)FORGET_BATCH);

		for (size_t i = 0; i < n; i++)
			ids[i] = a->strays.items[a->strays.count - n + i];
		int r = release_batch(a, ids, n, e);
		if (r < 0)
			return r;
		a->strays.count -= n;
	}
	return 0;
}

static int release_ended(struct applier *a, struct error *e)
{
	const char *ids[FORGET_BATCH];
	struct entry *entries[FORGET_BATCH];
	size_t pos = 0;

	for (;;) {
		size_t n = 0;

		for (struct entry *x;
		     n < FORGET_BATCH && (x = strmap_next(a->entries, &pos, NULL));) {
			if (x->state != INSTANCE_TERMINATED || x->released)
				continue;
			entries[n] = x;
			ids[n++] = x->id;
		}
		if (!n)
			return release_strays(a, e);
		int r = release_batch(a, ids, n, e);
		if (r < 0)
			return r;
		for (size_t i = 0; i < n; i++)
			entries[i]->released = true;
	}
}

static int delete_records(struct applier *a, const struct records_instance *i, bool last,
			  struct error *e)
{
	struct clc *c = a->clc;
	int r = state_begin(c->state, e);

	if (r < 0)
		return r;
	r = tags_drop(c, i->instance_id, e);
	if (r >= 0)
		r = tags_drop(c, i->network_interface_id, e);
	if (r >= 0 && last)
		r = record_delete(c, KIND_CLIENT_TOKEN, i->reservation_id, e);
	if (r >= 0 || r == -ENOENT)
		r = record_delete(c, KIND_INSTANCE, i->instance_id, e);
	if (r >= 0)
		r = state_commit(c->state, e);
	if (r < 0)
		state_rollback(c->state);
	return r;
}

/* A client token lives as long as any instance of its launch is shown. */
static int purge_one(struct applier *a, struct entry *x, struct error *e)
{
	_cleanup_(arena_freep) struct arena *arena = arena_new();
	struct record rec;
	int r = record_get(a->clc, arena, KIND_INSTANCE, x->id, &rec, e);

	if (r < 0 && r != -ENOENT)
		return r;
	count_reservation(a, x->reservation, -1);
	if (r >= 0)
		r = delete_records(a, rec.value, !in_use(a, x->reservation), e);
	if (r < 0 && r != -ENOENT) {
		count_reservation(a, x->reservation, 1);
		return r;
	}
	inventory_moved(a->clc->inventory, INSTANCE_TERMINATED, INSTANCE_STATE_COUNT);
	strmap_remove(a->entries, x->id);
	free(x);
	return 0;
}

static int purge(struct applier *a, int64_t now_ms, struct error *e)
{
	if (now_ms - a->purged_ms < PURGE_EVERY_MS && now_ms >= a->purged_ms)
		return 0;
	a->purged_ms = now_ms;
	for (;;) {
		size_t pos = 0;
		struct entry *x;

		while ((x = strmap_next(a->entries, &pos, NULL)))
			if (x->state == INSTANCE_TERMINATED && x->released &&
			    now_ms - x->state_time_ms >= TERMINATED_VISIBLE_MS)
				break;
		if (!x)
			return 0;
		int r = purge_one(a, x, e);
		if (r < 0)
			return r;
	}
}

int applier_pass(struct applier *a, struct error *e)
{
	_cleanup_(arena_freep) struct arena *arena = arena_new();
	int r = refresh(a, arena, e);

	if (r >= 0)
		r = apply(a, e);
	if (r >= 0)
		r = release_ended(a, e);
	if (r >= 0)
		r = purge(a, clock_unix_ms(), e);
	return r;
}
