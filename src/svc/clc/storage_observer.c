/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/clc/api.h"
#include "svc/clc/instances.h"
#include "svc/clc/inventory.h"
#include "svc/clc/peer.h"
#include "svc/clc/reconcile.h"
#include "svc/clc/volumes.h"

enum { BATCH = 100, SLACK_MS = 5000, EPOCH_LEN = 128 };

struct storage_observer {
	struct clc *clc;
	char epoch[EPOCH_LEN];
	int64_t revision;
};

struct storage_observer *storage_observer_new(struct clc *c)
{
	struct storage_observer *o = calloc(1, sizeof(*o));

	if (!o)
		abort();
	o->clc = c;
	return o;
}

void storage_observer_free(struct storage_observer *o)
{
	free(o);
}

/* One batch, within its transaction. What must not be done before the commit is kept. */
struct batch {
	struct clc *clc;
	struct arena *arena;
	struct observer_findings *findings;
	int64_t now_ms;
	size_t failed_launches;
	enum instance_state left[BATCH]; /* the states that failed launches had */
};

static void note_ended(struct batch *b, const char *id)
{
	b->findings->ended[b->findings->ended_count++] = id;
}

/* The storage controller has it and we have no record: if it is deleted, it is released. */
static int unknown(struct batch *b, const char *id, const char *state)
{
	if (str_eq(state, WANTED_DELETED))
		note_ended(b, id);
	else
		log_warn("the storage has something that is none of ours", "id=%s state=%s",
			 log_quote(id), log_quote(state));
	return 0;
}

/* Gone, as was wanted: its record goes at once, and with it every trace here. */
static int bury(struct batch *b, enum clc_kind kind, const char *id, struct error *e)
{
	int r = tags_drop(b->clc, id, e);

	if (r >= 0)
		r = record_delete(b->clc, kind, id, e);
	if (r < 0)
		return r;
	note_ended(b, id);
	b->findings->changed++;
	log_info(clc_kinds[kind].kind, "id=%s state=deleted", id);
	return 0;
}

/* ---- volumes ---- */

/* A launch whose volume cannot be made has failed. */
static int fail_launch(struct batch *b, const struct records_volume *v, struct error *e)
{
	enum instance_state next;
	struct record rec;
	int r = record_get(b->clc, b->arena, KIND_INSTANCE, v->instance_id, &rec, e);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	struct records_instance *i = rec.value;
	if (instance_state_of(i) != INSTANCE_PENDING ||
	    instance_next(INSTANCE_PENDING, INSTANCE_ASK_TERMINATE, &next) != INSTANCE_MOVES)
		return 0;
	instance_enter(i, next, b->now_ms);
	i->wanted = instance_state_name(INSTANCE_TERMINATED);
	i->state_reason_code = "Server.InternalError";
	i->state_reason_message =
	    arena_printf(b->arena, "Server.InternalError: the volume %s could not be made: %s",
			 v->volume_id, v->state_reason ? v->state_reason : "no reason was given");
	i->state_transition_reason = i->state_reason_message;
	i->generation = WIRE_INT_OF(i->generation.value + 1);
	b->findings->other_side = true;
	b->left[b->failed_launches++] = INSTANCE_PENDING;
	log_warn("a launch failed for its volume", "id=%s volume=%s err=%s", i->instance_id,
		 v->volume_id, log_quote(v->state_reason ? v->state_reason : "-"));
	return record_put(b->clc, KIND_INSTANCE, i->account_id, i->instance_id, NULL, i, e);
}

/* Which event of the table a report is; false: none. */
static bool volume_event_of(const char *state, enum volume_event *ret)
{
	static const struct {
		const char *state;
		enum volume_event event;
	} events[] = {
	    {"available", VOLUME_SEEN_CREATED},
	    {"error", VOLUME_SEEN_FAILED},
	    {"deleted", VOLUME_SEEN_DELETED},
	};

	for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
		if (!str_eq(events[i].state, state))
			continue;
		*ret = events[i].event;
		return true;
	}
	return false;
}

/* True if the record changed. A volume that a launch made is in use as soon as it is there. */
static bool take_state(struct batch *b, const struct storage_volume_observed *seen,
		       struct records_volume *v)
{
	enum volume_event event;
	enum volume_state next;

	if (!volume_event_of(seen->state, &event) ||
	    volume_next(volume_state_of(v), event, &next) != EBS_MOVES)
		return false;
	if (next == VOLUME_AVAILABLE && v->instance_id)
		next = VOLUME_IN_USE;
	volume_enter(v, next, b->now_ms);
	v->state_reason = next == VOLUME_ERROR ? seen->reason : NULL;
	return true;
}

/* Done when the storage controller works by the specification that says it: size and limits. What
 * it refuses has failed, and the volume is wanted as it was. */
static bool take_modification(struct batch *b, const struct storage_volume_observed *seen,
			      struct records_volume *v, bool *ret_spec_changed)
{
	if (!volume_is_modifying(v) || seen->generation.value != v->generation.value)
		return false;
	if (seen->refused.value) {
		volume_not_modified(v, seen->reason, b->now_ms);
		log_warn("a modification has failed", "id=%s err=%s", v->volume_id,
			 seen->reason ? log_quote(seen->reason) : "-");
		*ret_spec_changed = true;
		return true;
	}
	if (!seen->limits.value ||
	    seen->size_bytes.value != volume_wanted_shape(v).size_gib << 30)
		return false;
	volume_modified(v, b->now_ms);
	return true;
}

static int observe_volume(struct batch *b, const struct storage_volume_observed *seen,
			  struct error *e)
{
	struct record rec;
	int r = record_get(b->clc, b->arena, KIND_VOLUME, seen->volume_id, &rec, e);

	if (r == -ENOENT)
		return unknown(b, seen->volume_id, seen->state);
	if (r < 0)
		return r;
	struct records_volume *v = rec.value;
	bool moved = take_state(b, seen, v);
	enum volume_state now = volume_state_of(v);
	if (moved && now == VOLUME_DELETED)
		return bury(b, KIND_VOLUME, v->volume_id, e);
	if (moved && now == VOLUME_ERROR && v->instance_id)
		r = fail_launch(b, v, e);
	bool spec_changed = false, modified = take_modification(b, seen, v, &spec_changed);
	if (r < 0 || (!moved && !modified))
		return r;
	b->findings->changed++;
	if (moved)
		log_info("volume", "id=%s state=%s reason=%s", v->volume_id, v->state,
			 v->state_reason ? log_quote(v->state_reason) : "-");
	return volume_store(b->clc, v, spec_changed, e);
}

/* ---- snapshots ---- */

static bool take_progress(const struct storage_snapshot_observed *seen, struct records_snapshot *s)
{
	const struct records_snapshot before = *s;

	if (seen->begin_time.set && !s->begin_time.set)
		s->begin_time = seen->begin_time;
	if (seen->progress.set)
		s->progress = seen->progress;
	if (seen->data_bytes.set)
		s->data_bytes = seen->data_bytes;
	/* Of an import known only now; and a volume may have grown since the snapshot was asked for. */
	if (seen->size_bytes.set)
		s->volume_size_gib =
		    WIRE_INT_OF((seen->size_bytes.value + (INT64_C(1) << 30) - 1) >> 30);
	return before.begin_time.set != s->begin_time.set ||
	       before.progress.value != s->progress.value ||
	       before.data_bytes.value != s->data_bytes.value ||
	       before.volume_size_gib.value != s->volume_size_gib.value;
}

static bool take_end(struct batch *b, const struct storage_snapshot_observed *seen,
		     struct records_snapshot *s)
{
	enum snapshot_event event;
	enum snapshot_state next;

	if (str_eq(seen->state, "completed"))
		event = SNAPSHOT_SEEN_COMPLETED;
	else if (str_eq(seen->state, "error"))
		event = SNAPSHOT_SEEN_FAILED;
	else
		return false;
	if (snapshot_next(snapshot_state_of(s), event, &next) != EBS_MOVES)
		return false;
	s->state = snapshot_state_name(next);
	s->state_message = next == SNAPSHOT_ERROR ? seen->reason : NULL;
	s->completion_time = WIRE_TIME_OF(b->now_ms);
	if (next == SNAPSHOT_COMPLETED)
		s->progress = WIRE_INT_OF(100);
	log_info("snapshot", "id=%s state=%s reason=%s", s->snapshot_id, s->state,
		 s->state_message ? log_quote(s->state_message) : "-");
	return true;
}

static int observe_snapshot(struct batch *b, const struct storage_snapshot_observed *seen,
			    struct error *e)
{
	struct record rec;
	int r = record_get(b->clc, b->arena, KIND_SNAPSHOT, seen->snapshot_id, &rec, e);

	if (r == -ENOENT)
		return unknown(b, seen->snapshot_id, seen->state);
	if (r < 0)
		return r;
	struct records_snapshot *s = rec.value;
	if (snapshot_state_of(s) == SNAPSHOT_DELETED)
		return str_eq(seen->state, WANTED_DELETED)
			   ? bury(b, KIND_SNAPSHOT, s->snapshot_id, e)
			   : 0;
	if (snapshot_state_of(s) != SNAPSHOT_PENDING)
		return 0;
	bool progressed = take_progress(seen, s), ended = take_end(b, seen, s);
	if (!progressed && !ended)
		return 0;
	b->findings->changed++;
	b->findings->snapshots |= ended;
	return snapshot_store(b->clc, s, false, e);
}

/* ---- a pass ---- */

static int run_batch(struct batch *b, const struct storage_describe_storage_response *out,
		     size_t from, size_t count, struct error *e)
{
	size_t volumes = out->volumes.count;
	const struct observer_findings before = *b->findings;
	int r = state_begin(b->clc->state, e);

	if (r < 0)
		return r;
	for (size_t n = from; r >= 0 && n < from + count; n++)
		r = n < volumes ? observe_volume(b, &out->volumes.items[n], e)
				: observe_snapshot(b, &out->snapshots.items[n - volumes], e);
	if (r >= 0)
		r = state_commit(b->clc->state, e);
	if (r < 0) {
		state_rollback(b->clc->state);
		*b->findings = before;
		return r;
	}
	for (size_t i = 0; i < b->failed_launches; i++)
		inventory_moved(b->clc->inventory, b->left[i], INSTANCE_SHUTTING_DOWN);
	return 0;
}

static int take_all(struct storage_observer *o, struct arena *arena,
		    const struct storage_describe_storage_response *out,
		    struct observer_findings *f, struct error *e)
{
	size_t total = out->volumes.count + out->snapshots.count;

	f->ended = arena_new_array(arena, const char *, total);
	for (size_t i = 0; i < total; i += BATCH) {
		struct batch b = {
		    .clc = o->clc, .arena = arena, .findings = f, .now_ms = clock_unix_ms()};
		int r = run_batch(&b, out, i, MIN_OF(total - i, (size_t)BATCH), e);

		if (r < 0)
			return r; /* asked for again: the revision was not moved on */
	}
	metrics_add(o->clc->metrics, METRIC_OBSERVED_STORAGE, (int64_t)total);
	return 0;
}

int storage_observer_pass(struct storage_observer *o, struct arena *arena, int wait_ms,
			  struct observer_findings *ret, struct error *e)
{
	struct storage_describe_storage_request in = {
	    .epoch = *o->epoch ? o->epoch : NULL,
	    .since_revision = WIRE_INT_OF(o->revision),
	    .wait_ms = WIRE_INT_OF(wait_ms),
	};
	struct storage_describe_storage_response *out;
	struct observer_findings f = {0};
	int r = peer_call(o->clc->storage, "DescribeStorage", &in, arena, &out, wait_ms + SLACK_MS, e);

	if (r < 0)
		return r;
	f.epoch = out->epoch;
	r = take_all(o, arena, out, &f, e);
	if (r < 0)
		return r;
	snprintf(o->epoch, sizeof(o->epoch), "%s", out->epoch);
	o->revision = out->revision.value;
	*ret = f;
	return 0;
}
