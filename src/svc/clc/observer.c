/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "model/ipv4.h"
#include "svc/clc/api.h"
#include "svc/clc/peer.h"
#include "svc/clc/images.h"
#include "svc/clc/instances.h"
#include "svc/clc/inventory.h"
#include "svc/clc/reconcile.h"
#include "svc/clc/volumes.h"

enum { BATCH = 100, SLACK_MS = 5000, EPOCH_LEN = 128 };

struct observer {
	struct clc *clc;
	char epoch[EPOCH_LEN];
	int64_t revision;
	bool wake_images;
};

struct observer *observer_new(struct clc *c)
{
	struct observer *o = calloc(1, sizeof(*o));

	if (!o)
		abort();
	o->clc = c;
	return o;
}

void observer_free(struct observer *o)
{
	free(o);
}

/* A record that was written, for what follows the commit. */
struct written {
	const struct records_instance *rec;
	enum instance_state from, to;
};

/* Why it is stopping or has ended. What the user asked for stays the reason of what follows from
 * it. */
static void take_reason(struct arena *a, const struct shared_instance_observed *seen,
			struct records_instance *i, enum instance_state to)
{
	if (to == INSTANCE_RUNNING || to == INSTANCE_PENDING)
		return;
	if (str_eq(i->state_reason_code, "Client.UserInitiatedShutdown"))
		return;
	/* The node only knows that it was told to. A launch that failed elsewhere has its reason. */
	if (i->state_reason_code && str_eq(seen->state_reason_code, "Client.UserInitiatedShutdown"))
		return;
	if (seen->state_reason_code) {
		const char *text = seen->state_reason_message ? seen->state_reason_message : "";

		i->state_reason_code = seen->state_reason_code;
		i->state_reason_message =
		    str_prefix(text, seen->state_reason_code)
			? text
			: arena_printf(a, "%s: %s", seen->state_reason_code, text);
	} else if (!i->state_reason_code && to == INSTANCE_TERMINATED) {
		i->state_reason_code = "Server.InternalError";
		i->state_reason_message =
		    "Server.InternalError: the node ended the instance and gave no reason";
	}
	i->state_transition_reason = i->state_reason_message;
}

/* Whether the guest answers: told while it runs. */
static bool take_reachability(const struct shared_instance_observed *seen,
			      struct records_instance *i)
{
	if (instance_state_of(i) != INSTANCE_RUNNING || !seen->reachability ||
	    str_eq(seen->reachability, i->reachability))
		return false;
	i->reachability = seen->reachability;
	i->reachability_since = seen->reachability_since;
	return true;
}

/* A report about an older wish must not undo a newer one: a guest that was still seen running when
 * its stop was recorded. */
static bool is_stale(const struct shared_instance_observed *seen, const struct records_instance *i,
		     enum instance_event ev)
{
	return (seen->generation.value < i->generation.value ||
		str_eq(i->wanted, instance_state_name(INSTANCE_STOPPED))) &&
	       instance_state_of(i) == INSTANCE_STOPPED &&
	       (ev == INSTANCE_SEEN_RUNNING || ev == INSTANCE_SEEN_PENDING);
}

/*
 * A guest with a root that is a volume is off. Because it was to be; because it switched itself off, of which a wish is made; or on
 * the way to where it is wanted, after it was off for an image's snapshots or before it is started: then nothing has happened.
 */
static bool means_stopped(const struct shared_instance_observed *seen, struct records_instance *i)
{
	bool current = seen->generation.value >= i->generation.value;

	if (!instance_is_ebs(i) || !str_eq(i->wanted, instance_state_name(INSTANCE_RUNNING)))
		return true;
	if (!str_eq(seen->state_reason_code, "Client.InstanceInitiatedShutdown") ||
	    (instance_state_of(i) == INSTANCE_PENDING && !current))
		return false;
	i->wanted = instance_state_name(INSTANCE_STOPPED);
	i->generation = WIRE_INT_OF(i->generation.value + 1);
	return true;
}

/* One that was seen off while it was still to start has started, as far as its life is concerned. */
static bool enter_stopped(struct arena *a, const struct shared_instance_observed *seen,
			  struct records_instance *i, int64_t now_ms)
{
	enum instance_state to = INSTANCE_STOPPED;

	if (!means_stopped(seen, i))
		return false;
	if (instance_next(instance_state_of(i), INSTANCE_SEEN_STOPPED, &to) != INSTANCE_MOVES &&
	    !(instance_state_of(i) == INSTANCE_PENDING && instance_is_ebs(i) &&
	      !str_eq(i->wanted, instance_state_name(INSTANCE_RUNNING))))
		return false;
	instance_enter(i, to, now_ms);
	take_reason(a, seen, i, to);
	return true;
}

/* True if the record changed. */
static bool take(struct arena *a, const struct shared_instance_observed *seen,
		 struct records_instance *i, int64_t now_ms)
{
	enum instance_state reported = instance_state_parse(seen->state), to;
	bool changed = false;

	if (reported == INSTANCE_STATE_COUNT)
		return false;
	enum instance_event ev = instance_state_seen(reported);
	if (ev == INSTANCE_SEEN_STOPPED)
		changed = enter_stopped(a, seen, i, now_ms);
	else if (!is_stale(seen, i, ev) &&
		 instance_next(instance_state_of(i), ev, &to) == INSTANCE_MOVES) {
		instance_enter(i, to, now_ms);
		take_reason(a, seen, i, to);
		changed = true;
	}
	return take_reachability(seen, i) || changed;
}

/* The guest is off as CreateImage wants it: its volumes stand still, and the image worker goes on. */
static int release_image(struct observer *o, struct arena *a,
			 const struct shared_instance_observed *seen,
			 const struct records_instance *i, struct error *e)
{
	struct record rec;

	if (!i->held_off_for || !str_eq(seen->state, instance_state_name(INSTANCE_STOPPED)) ||
	    seen->generation.value < i->generation.value)
		return 0;
	int r = record_get(o->clc, a, KIND_IMAGE, i->held_off_for, &rec, e);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	struct records_image *image = rec.value;
	if (!str_eq(image->create_phase, CREATE_STOPPING))
		return 0;
	image->create_phase = CREATE_SNAPSHOTS;
	o->wake_images = true;
	return image_put(o->clc, image, e);
}

/* One observation, within a transaction. */
static int observe_one(struct observer *o, struct arena *a,
		       const struct shared_instance_observed *seen, struct written *ret,
		       struct observer_findings *f, struct error *e)
{
	bool ended = str_eq(seen->state, instance_state_name(INSTANCE_TERMINATED));
	struct record rec;
	int r = record_get(o->clc, a, KIND_INSTANCE, seen->instance_id, &rec, e);

	ret->rec = NULL;
	if (r == -ENOENT) {
		if (ended)
			f->ended[f->ended_count++] = seen->instance_id;
		else
			log_warn("a node has an instance that is none of ours", "id=%s node=%s",
				 log_quote(seen->instance_id), log_quote(seen->node_id));
		return 0;
	}
	if (r < 0)
		return r;
	struct records_instance *i = rec.value;
	ret->from = instance_state_of(i);
	if (ended && ret->from == INSTANCE_TERMINATED)
		f->ended[f->ended_count++] = seen->instance_id;
	r = release_image(o, a, seen, i, e);
	if (r < 0)
		return r;
	bool changed = take(a, seen, i, clock_unix_ms()), devices_ended = false;
	r = devices_observe(o->clc, a, seen, i, &changed, &devices_ended, e);
	if (r < 0 || !changed)
		return r;
	if (devices_ended) {
		i->generation = WIRE_INT_OF(i->generation.value + 1);
		f->other_side = true;
	}
	ret->to = instance_state_of(i);
	ret->rec = i;
	return record_put(o->clc, KIND_INSTANCE, i->account_id, i->instance_id, NULL, i, e);
}

static void after_commit(struct observer *o, const struct written *w)
{
	const struct records_instance *i = w->rec;
	uint32_t ip;

	if (!i || w->from == w->to)
		return;
	inventory_moved(o->clc->inventory, w->from, w->to);
	if (w->to == INSTANCE_TERMINATED && ipv4_parse(i->private_ip, &ip) == 0)
		inventory_give(o->clc->inventory, i->account_id, ip);
	log_info("instance", "id=%s from=%s to=%s reason=%s", i->instance_id,
		 instance_state_name(w->from), instance_state_name(w->to),
		 i->state_reason_code ? log_quote(i->state_reason_message) : "-");
}

static int observe_batch(struct observer *o, struct arena *a,
			 const struct shared_instance_observed *seen, size_t count,
			 struct observer_findings *f, struct error *e)
{
	struct written w[BATCH];
	int r = state_begin(o->clc->state, e);

	if (r < 0)
		return r;
	for (size_t i = 0; r >= 0 && i < count; i++)
		r = observe_one(o, a, &seen[i], &w[i], f, e);
	if (r >= 0)
		r = state_commit(o->clc->state, e);
	if (r < 0) {
		state_rollback(o->clc->state);
		return r;
	}
	if (o->wake_images)
		image_worker_wake(o->clc->image_worker);
	o->wake_images = false;
	for (size_t i = 0; i < count; i++) {
		f->changed += w[i].rec != NULL;
		after_commit(o, &w[i]);
	}
	return 0;
}

int observer_pass(struct observer *o, struct arena *arena, int wait_ms,
		  struct observer_findings *ret, struct error *e)
{
	struct shared_describe_instances_request in = {
	    .epoch = *o->epoch ? o->epoch : NULL,
	    .since_revision = WIRE_INT_OF(o->revision),
	    .wait_ms = WIRE_INT_OF(wait_ms),
	};
	struct shared_describe_instances_response *out;
	struct observer_findings f = {0};
	int r = peer_call(o->clc->cluster, "DescribeInstances", &in, arena, &out,
			     wait_ms + SLACK_MS, e);

	if (r < 0)
		return r;
	f.epoch = out->epoch;
	f.ended = arena_new_array(arena, const char *, out->instances.count);
	for (size_t i = 0; i < out->instances.count; i += BATCH) {
		size_t n = MIN_OF(out->instances.count - i, (size_t)BATCH);

		r = observe_batch(o, arena, &out->instances.items[i], n, &f, e);
		if (r < 0)
			return r; /* asked for again: the revision was not moved on */
	}
	metrics_add(o->clc->metrics, METRIC_OBSERVED, (int64_t)out->instances.count);
	snprintf(o->epoch, sizeof(o->epoch), "%s", out->epoch);
	o->revision = out->revision.value;
	*ret = f;
	return 0;
}
