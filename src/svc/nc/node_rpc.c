/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "gen/node_rpc.h"
#include "svc/nc/nc_priv.h"
#include "wire/codec.h"
#include "wire/ops.h"

#define WAIT_MOST_MS 20000
#define LINGER_MS 20 /* changes come in swarms: wait for the rest of it */
#define FIGURES_AGE_LEAST_MS 200
#define DRAIN_DEFAULT_S 30
#define DRAIN_MOST_S 86400

/* --- what is wanted --- */

static const char *check_devices(const struct shared_instance_spec *s)
{
	const struct shared_block_device_list *list = &s->block_devices;
	uint32_t slots = 0;
	int boots = 0;

	if (s->local_disks.value < 0 || s->local_disks.value >= HYPER_DISK_SLOTS)
		return "LocalDisks";
	if (list->count > NC_DEVICES_MAX)
		return "BlockDevices: too many";
	for (size_t i = 0; i < list->count; i++) {
		const struct shared_block_device *d = &list->items[i];
		bool boot = d->boot.set && d->boot.value;

		if (!id_valid("vol", d->volume_id))
			return "BlockDevices: VolumeId";
		if (!str_eq(d->wanted, "attached") && !str_eq(d->wanted, "detached") && !str_eq(d->wanted, "forced"))
			return "BlockDevices: Wanted";
		if (d->slot.value < 0 || d->slot.value >= HYPER_DISK_SLOTS)
			return "BlockDevices: Slot";
		if (!boot && (slots & 1u << d->slot.value))
			return "BlockDevices: two have the same slot";
		for (size_t k = 0; k < i; k++)
			if (str_eq(d->volume_id, list->items[k].volume_id))
				return "BlockDevices: a volume is there twice";
		slots |= boot ? 0 : 1u << d->slot.value;
		boots += boot;
	}
	if (boots != nc_is_ebs(s) && str_eq(s->wanted, "running"))
		return "BlockDevices: an ebs instance has one boot disk, others have none";
	return NULL;
}

static int check_spec(const struct nc *nc, const struct shared_instance_spec *s, struct error *e)
{
	const char *why = NULL;

	if (!id_valid("i", s->instance_id))
		why = "InstanceId";
	else if (!str_eq(s->node_id, nc->node_id))
		why = "NodeId: it is another node's";
	else if (!str_eq(s->wanted, "running") && !str_eq(s->wanted, "stopped") &&
		 !str_eq(s->wanted, "terminated"))
		why = "Wanted";
	else if (s->vcpus.value < 1 || s->vcpus.value > 1024)
		why = "Vcpus";
	else if (s->memory_mib.value < 1 || s->memory_mib.value > ((int64_t)1 << 30))
		why = "MemoryMib";
	else if (s->disk_bytes.value < (nc_is_ebs(s) ? 0 : 1) || s->disk_bytes.value > ((int64_t)1 << 50))
		why = "DiskBytes";
	else
		why = check_devices(s);
	if (!why)
		return 0;
	return error_set(e, "InvalidParameterValue",
			 "the specification of %s cannot be carried out: %s", s->instance_id, why);
}

/* Older than what we have, or the same: the cloud controller repeats itself after a restart. Lock
 * held. */
static bool is_stale(const struct nc_instance *inst, const struct shared_instance_spec *s)
{
	return s->generation.value < inst->spec->generation.value ||
	       wire_equal(&shared_shape_instance_spec, s, inst->spec);
}

/* Lock held. */
static void adopt_spec(struct nc *nc, struct nc_instance *inst,
		       const struct shared_instance_spec *s, bool fresh)
{
	if (!fresh && is_stale(inst, s))
		return;
	nc_set_spec(inst, s);
	nc_show(nc, inst);
	nc_kick(nc, inst);
}

/* On disk first: what is acknowledged is remembered. Within a transaction. */
static int store_spec(struct nc *nc, const struct shared_instance_spec *s, bool known, int slot,
		      struct error *e)
{
	struct nc_record rec = {.slot = slot, .state = NC_PENDING};
	int r = nc_store_spec(nc, s, e);

	if (r == 0 && !known)
		r = nc_store_record(nc, s->instance_id, &rec, e);
	return r;
}

/* Put a new instance into the table so that it has a slot, or find that ours is as new as this.
 * *ret_skip: nothing to store. */
static int enter_spec(struct nc *nc, const struct shared_instance_spec *s, bool *ret_known,
		      int *ret_slot, bool *ret_skip, struct error *e)
{
	struct nc_instance *inst;
	int r = 0;

	pthread_mutex_lock(&nc->lock);
	inst = nc_find(nc, s->instance_id);
	*ret_known = inst;
	*ret_skip = inst && is_stale(inst, s);
	if (!inst) {
		inst = nc_add(nc, s->instance_id, NULL);
		if (inst) {
			nc_set_spec(inst, s);
			inst->busy = true; /* until it is on disk, nobody works on it */
		} else {
			r = error_set(e, "InsufficientInstanceCapacity",
				      "this node has no user id left for another instance");
		}
	}
	*ret_slot = inst ? inst->rec.slot : -1;
	pthread_mutex_unlock(&nc->lock);
	return r;
}

/* What was made of one specification of a message. */
struct taken {
	bool good;  /* it can be carried out */
	bool fresh; /* of an instance that was not there */
};

/* The transaction is over: let the workers have those that are new, or take them out again. */
static void release_specs(struct nc *nc, const struct shared_instance_spec_list *list,
			  const struct taken *taken, size_t count, bool stored)
{
	pthread_mutex_lock(&nc->lock);
	for (size_t i = 0; i < count; i++) {
		const struct shared_instance_spec *s = &list->items[i];
		struct nc_instance *inst = taken[i].good ? nc_find(nc, s->instance_id) : NULL;

		if (!inst)
			continue;
		if (taken[i].fresh)
			inst->busy = false;
		if (taken[i].fresh && !stored)
			nc_remove(nc, inst);
		else if (stored)
			adopt_spec(nc, inst, s, taken[i].fresh);
	}
	pthread_mutex_unlock(&nc->lock);
}

static int apply(struct nc *nc, const struct shared_instance_spec_list *list, struct taken *taken,
		 size_t *ret_done, struct error *e)
{
	int r = state_begin(nc->state, e);

	for (size_t i = 0; r == 0 && i < list->count; i++) {
		const struct shared_instance_spec *s = &list->items[i];
		struct error why = {0};
		bool known, skip;
		int slot;

		*ret_done = i + 1;
		if (check_spec(nc, s, &why) < 0) {
			log_warn("specification refused", "id=%s err=%s", log_quote(s->instance_id),
				 log_quote(why.message));
			continue;
		}
		r = enter_spec(nc, s, &known, &slot, &skip, e);
		taken[i] = (struct taken){.good = r == 0, .fresh = r == 0 && !known};
		if (r == 0 && !skip)
			r = store_spec(nc, s, known, slot, e);
	}
	if (r == 0)
		return state_commit(nc->state, e);
	state_rollback(nc->state);
	return r;
}

int node_apply_instances(void *ctx, struct arena *a, const struct tls_identity *peer,
			 const struct shared_apply_instances_request *in,
			 struct shared_apply_instances_response *out, struct error *e)
{
	struct nc *nc = ctx;
	struct taken *taken = arena_new_array(a, struct taken, in->instances.count + 1);
	size_t done = 0;
	int r;

	/* Full tells that what is missing was forgotten. Nothing is destroyed for being missing:
	 * Forget releases tombstones. */
	r = apply(nc, &in->instances, taken, &done, e);
	release_specs(nc, &in->instances, taken, done, r == 0);
	if (r < 0)
		return r;
	out->epoch = nc->epoch;
	return 0;
}

int node_forget_instances(void *ctx, struct arena *a, const struct tls_identity *peer,
			  const struct shared_forget_instances_request *in, struct error *e)
{
	struct nc *nc = ctx;
	int r = 0;

	for (size_t i = 0; r == 0 && i < in->instance_ids.count; i++) {
		const char *id = in->instance_ids.items[i];
		struct nc_instance *inst;
		bool over;

		pthread_mutex_lock(&nc->lock);
		inst = nc_find(nc, id);
		over = inst && inst->rec.state == NC_TERMINATED;
		pthread_mutex_unlock(&nc->lock);
		if (!over)
			continue; /* unknown, or not over: nothing to forget */
		r = nc_store_forget(nc, id, e);
		if (r < 0)
			break;
		pthread_mutex_lock(&nc->lock);
		inst = nc_find(nc, id);
		if (inst && inst->busy)
			inst->forgotten = true;
		else if (inst)
			nc_remove(nc, inst);
		pthread_mutex_unlock(&nc->lock);
	}
	return r;
}

/* --- what is --- */

/* Wait until something newer than since is there, the time is over, or the node stops. Lock held.
 */
static void await_change(struct nc *nc, int64_t since, int64_t wait_ms)
{
	struct timespec t;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += wait_ms / 1000;
	t.tv_nsec += wait_ms % 1000 * 1000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	while (nc->revision <= since && !nc->stopping && r == 0)
		r = pthread_cond_timedwait(&nc->shown, &nc->lock, &t);
	if (r == 0 && !nc->stopping) {
		pthread_mutex_unlock(&nc->lock);
		nc_sleep(nc, LINGER_MS);
		pthread_mutex_lock(&nc->lock);
	}
}

struct collect {
	struct arena *arena;
	int64_t since;
	struct shared_instance_observed_list *list;
};

static void collect_one(struct nc *nc, struct nc_instance *inst, void *ctx)
{
	struct collect *c = ctx;

	if (inst->revision > c->since)
		nc_observe(nc, inst, c->arena, &c->list->items[c->list->count++]);
}

int node_describe_instances(void *ctx, struct arena *a, const struct tls_identity *peer,
			    const struct shared_describe_instances_request *in,
			    struct shared_describe_instances_response *out, struct error *e)
{
	struct nc *nc = ctx;
	bool full = !str_eq(in->epoch, nc->epoch);
	struct collect c = {
	    .arena = a, .since = full ? -1 : in->since_revision.value, .list = &out->instances};

	if (in->wait_ms.set && (in->wait_ms.value < 0 || in->wait_ms.value > WAIT_MOST_MS))
		return error_set(e, "InvalidParameterValue",
				 "WaitMs is %" PRId64 "; it may be 0 to %d", in->wait_ms.value,
				 WAIT_MOST_MS);
	pthread_mutex_lock(&nc->lock);
	if (!full && in->wait_ms.value > 0 && nc->revision <= c.since)
		await_change(nc, c.since, in->wait_ms.value);
	out->instances.set = true;
	out->instances.items = arena_new_array(a, struct shared_instance_observed, nc->count + 1);
	nc_each(nc, collect_one, &c);
	out->revision = WIRE_INT_OF(nc->revision);
	pthread_mutex_unlock(&nc->lock);
	out->epoch = nc->epoch;
	out->full = WIRE_BOOL_OF(full);
	return 0;
}

int node_get_console_output(void *ctx, struct arena *a, const struct tls_identity *peer,
			    const struct shared_get_console_output_request *in,
			    struct shared_get_console_output_response *out, struct error *e)
{
	struct nc *nc = ctx;
	char path[4096];
	void *data;
	size_t len;
	int64_t mtime;
	bool known;
	int r;

	pthread_mutex_lock(&nc->lock);
	known = nc_find(nc, in->instance_id);
	pthread_mutex_unlock(&nc->lock);
	if (!known)
		return error_set(e, "InstanceNotFound", "instance %s is not on this node",
				 in->instance_id);
	nc_instance_path(nc, in->instance_id, "console.log", path, sizeof(path));
	r = nc_console_read(path, a, &data, &len, &mtime);
	if (r < 0)
		return error_errno(e, r, "cannot read the console of %s", in->instance_id);
	out->output = (struct wire_blob){.data = data, .len = len};
	out->timestamp = WIRE_TIME_OF(mtime ? mtime : clock_unix_ms());
	return 0;
}

int node_describe_node(void *ctx, struct arena *a, const struct tls_identity *peer,
		       struct shared_node_status *out, struct error *e)
{
	nc_node_status(ctx, a, out);
	return 0;
}

int node_get_figures(void *ctx, struct arena *a, const struct tls_identity *peer,
		     const struct node_get_figures_request *in,
		     struct node_get_figures_response *out, struct error *e)
{
	if (in->max_age_ms.set && in->max_age_ms.value < FIGURES_AGE_LEAST_MS)
		return error_set(e, "InvalidParameterValue", "MaxAgeMs is %" PRId64 "; it is %d at least",
				 in->max_age_ms.value, FIGURES_AGE_LEAST_MS);
	nc_figures_reply(ctx, a, in, out);
	return 0;
}

/* --- drained --- */

static int set_hold(struct nc *nc, bool held, int64_t deadline_ms, struct error *e)
{
	int r = nc_store_hold(nc, held, deadline_ms, e);

	if (r < 0)
		return r;
	pthread_mutex_lock(&nc->lock);
	nc->held = held;
	nc->held_deadline_ms = deadline_ms;
	nc_kick_all(nc);
	pthread_mutex_unlock(&nc->lock);
	return 0;
}

int node_drain(void *ctx, struct arena *a, const struct tls_identity *peer,
	       const struct node_drain_request *in, struct error *e)
{
	int64_t timeout = in->timeout_s.set ? in->timeout_s.value : DRAIN_DEFAULT_S;

	if (timeout < 0 || timeout > DRAIN_MOST_S)
		return error_set(e, "InvalidParameterValue",
				 "TimeoutS is %" PRId64 "; it may be 0 to %d", timeout,
				 DRAIN_MOST_S);
	log_info("draining: guests are shut down", "timeout_s=%" PRId64, timeout);
	return set_hold(ctx, true, clock_unix_ms() + timeout * 1000, e);
}

int node_resume(void *ctx, struct arena *a, const struct tls_identity *peer, struct error *e)
{
	log_info("resumed: what should run is started", NULL);
	return set_hold(ctx, false, 0, e);
}

/* --- the listeners --- */

int nc_health(void *ctx, struct error *e)
{
	struct nc *nc = ctx;
	int r = 0;

	pthread_mutex_lock(&nc->lock);
	if (error_is_set(&nc->hyper_error))
		r = error_set(e, "ServiceUnavailable", "%s", nc->hyper_error.message);
	else if (error_is_set(&nc->net_error))
		r = error_set(e, "ServiceUnavailable", "%s", nc->net_error.message);
	else if (error_is_set(&nc->volume_error))
		r = error_set(e, "ServiceUnavailable", "%s", nc->volume_error.message);
	else if (!nc->registered)
		r = error_set(e, "ServiceUnavailable",
			      "not registered with the cluster controller: %s",
			      error_is_set(&nc->register_error) ? nc->register_error.message
								: "not tried yet");
	pthread_mutex_unlock(&nc->lock);
	return r;
}

static void count_states(struct nc *nc, struct nc_instance *inst, void *ctx)
{
	int64_t *counts = ctx;

	counts[0] += inst->rec.state != NC_TERMINATED;
	counts[1] += inst->rec.state == NC_RUNNING;
}

static void count_volumes(struct nc *nc, struct nc_volume *v, void *ctx)
{
	int64_t *counts = ctx;

	counts[v->state == NC_VOLUME_OPEN ? 0 : 1]++;
}

void nc_print_metrics(void *ctx, struct buf *out)
{
	struct nc *nc = ctx;
	int64_t counts[2] = {0}, volumes[2] = {0};

	pthread_mutex_lock(&nc->lock);
	nc_each(nc, count_states, counts);
	nc_each_volume(nc, count_volumes, volumes);
	pthread_mutex_unlock(&nc->lock);
	metrics_set(nc->metrics, NC_M_VOLUMES, volumes[0]);
	metrics_set(nc->metrics, NC_M_VOLUMES_CLOSING, volumes[1]);
	metrics_set(nc->metrics, NC_M_INSTANCES, counts[0]);
	metrics_set(nc->metrics, NC_M_RUNNING, counts[1]);
	metrics_print(nc->metrics, out);
	figures_print_metrics(&nc->sampler.figures, out);
}

int nc_rpc_start(struct nc *nc, struct error *e)
{
	struct rpc_binding bindings[] = {
	    {.service = &node_service, .handlers = node_rpc_handlers, .ctx = nc},
	    volume_binding(nc),
	};
	struct ops_config ops = {
	    .port = settings_port(nc->settings, PORT_OPS_NC),
	    .health = nc_health,
	    .metrics = nc_print_metrics,
	    .ctx = nc,
	};
	int r = rpc_server_start(bindings, ARRAY_SIZE(bindings), "127.0.0.1", settings_port(nc->settings, PORT_NC),
				 nc->tls, &nc->rpc, e);

	if (r == 0)
		r = ops_server_start(&ops, &nc->ops_server, e);
	return r;
}
