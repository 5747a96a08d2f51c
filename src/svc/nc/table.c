/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "svc/nc/nc_priv.h"
#include "wire/codec.h"

static struct nc_instance **place(struct nc *nc, const char *id)
{
	uint32_t hash = 2166136261u;
	struct nc_instance **p;

	for (const char *c = id; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 16777619u;
	for (p = &nc->buckets[hash % NC_BUCKETS]; *p; p = &(*p)->hash_next)
		if (strcmp((*p)->id, id) == 0)
			break;
	return p;
}

struct nc_instance *nc_find(struct nc *nc, const char *id)
{
	return *place(nc, id);
}

static int free_slot(const struct nc *nc)
{
	int limit = nc->ops->fakes_disks ? NC_SLOTS : NC_REAL_SLOTS;

	for (int i = 0; i < limit; i++)
		if (!nc->slot_users[i])
			return i;
	return -1;
}

void nc_hold_slot(struct nc *nc, int slot)
{
	if (slot >= 0 && slot < NC_SLOTS)
		nc->slot_users[slot]++;
}

void nc_release_slot(struct nc *nc, int slot)
{
	if (slot >= 0 && slot < NC_SLOTS) {
		assert(nc->slot_users[slot]);
		nc->slot_users[slot]--;
	}
}

struct nc_instance *nc_add(struct nc *nc, const char *id, const struct nc_record *rec)
{
	struct nc_instance **p = place(nc, id), *inst;
	int slot = rec ? rec->slot : free_slot(nc);

	assert(!*p);
	if (!rec && slot < 0)
		return NULL;
	inst = calloc(1, sizeof(*inst));
	if (!inst)
		abort();
	strncpy(inst->id, id, sizeof(inst->id) - 1);
	if (rec)
		inst->rec = *rec;
	inst->rec.slot = slot;
	nc_hold_slot(nc, slot);
	*p = inst;
	nc->count++;
	return inst;
}

static void unqueue(struct nc_queue *q, struct nc_instance *inst)
{
	for (struct nc_instance **p = &q->first; *p; p = &(*p)->queue_next)
		if (*p == inst) {
			*p = inst->queue_next;
			if (q->last == &inst->queue_next)
				q->last = p;
			return;
		}
}

void nc_remove(struct nc *nc, struct nc_instance *inst)
{
	struct nc_instance **p = place(nc, inst->id);

	assert(*p == inst && !inst->busy);
	if (inst->queued)
		unqueue(&nc->light, inst);
	*p = inst->hash_next;
	nc->count--;
	nc_release_slot(nc, inst->rec.slot);
	arena_free(inst->arena);
	free(inst->devices);
	free(inst);
}

void nc_table_free(struct nc *nc)
{
	for (size_t i = 0; i < NC_BUCKETS; i++)
		while (nc->buckets[i]) {
			nc->buckets[i]->busy = false;
			nc_remove(nc, nc->buckets[i]);
		}
}

void nc_set_spec(struct nc_instance *inst, const struct shared_instance_spec *spec)
{
	struct arena *a = arena_new();
	struct in_addr ip;

	inst->spec = wire_copy(a, &shared_shape_instance_spec, spec);
	arena_free(inst->arena);
	inst->arena = a;
	inst->ipv4_be = inet_pton(AF_INET, spec->private_ip, &ip) == 1 ? ip.s_addr : 0;
}

void nc_each(struct nc *nc, void (*fn)(struct nc *nc, struct nc_instance *inst, void *ctx),
	     void *ctx)
{
	for (size_t i = 0; i < NC_BUCKETS; i++)
		for (struct nc_instance *inst = nc->buckets[i]; inst; inst = inst->hash_next)
			fn(nc, inst, ctx);
}

void nc_show(struct nc *nc, struct nc_instance *inst)
{
	inst->revision = ++nc->revision;
	pthread_cond_broadcast(&nc->shown);
}

void nc_set_reach(struct nc *nc, struct nc_instance *inst, enum nc_reach reach)
{
	if (inst->reach == reach)
		return;
	inst->reach = reach;
	inst->reach_since_ms = clock_unix_ms();
	inst->misses = 0;
	nc_show(nc, inst);
}

void nc_kick(struct nc *nc, struct nc_instance *inst)
{
	struct nc_queue *q = &nc->light;

	inst->due_mono_ms = 0;
	if (inst->busy) {
		inst->again = true;
		return;
	}
	if (inst->queued)
		return;
	inst->queued = true;
	inst->queue_next = NULL;
	*q->last = inst;
	q->last = &inst->queue_next;
	pthread_cond_signal(&q->filled);
}

static void kick_one(struct nc *nc, struct nc_instance *inst, void *ctx _unused_)
{
	if (inst->rec.state != NC_TERMINATED)
		nc_kick(nc, inst);
}

void nc_kick_all(struct nc *nc)
{
	nc_each(nc, kick_one, NULL);
}

enum nc_state nc_shown_state(const struct nc_instance *inst)
{
	const struct nc_record *rec = &inst->rec;
	bool to_run = inst->spec && nc_parse_wanted(inst->spec) == NC_WANT_RUNNING && !rec->end_code[0] &&
		      rec->guest_off != inst->spec->generation.value;

	return rec->state == NC_STOPPED && to_run ? NC_PENDING : rec->state;
}

const char *nc_state_name(enum nc_state s)
{
	static const char *const names[] = {
	    [NC_PENDING] = "pending",
	    [NC_RUNNING] = "running",
	    [NC_SHUTTING_DOWN] = "shutting-down",
	    [NC_STOPPED] = "stopped",
	    [NC_TERMINATED] = "terminated",
	};

	return names[s];
}

const char *nc_reach_name(enum nc_reach r)
{
	static const char *const names[] = {
	    [NC_REACH_NONE] = NULL,
	    [NC_REACH_INITIALIZING] = "initializing",
	    [NC_REACH_OK] = "ok",
	    [NC_REACH_IMPAIRED] = "impaired",
	};

	return names[r];
}

void nc_observe(const struct nc *nc, const struct nc_instance *inst, struct arena *a,
		struct shared_instance_observed *out)
{
	const struct nc_record *rec = &inst->rec;

	*out = (struct shared_instance_observed){
	    .instance_id = arena_strdup(a, inst->id),
	    .node_id = nc->node_id,
	    .generation = WIRE_INT_OF(inst->spec ? inst->spec->generation.value : 0),
	    .state = nc_state_name(nc_shown_state(inst)),
	    .state_reason_code = rec->end_code[0] ? arena_strdup(a, rec->end_code) : NULL,
	    .state_reason_message = rec->end_message[0] ? arena_strdup(a, rec->end_message) : NULL,
	    .progress = inst->progress[0] ? arena_strdup(a, inst->progress) : NULL,
	    .reachability = nc_reach_name(inst->reach),
	    .reboot_generation = WIRE_INT_OF(rec->reboot_done),
	    .revision = WIRE_INT_OF(inst->revision),
	};
	if (nc_shown_state(inst) == NC_STOPPED && rec->guest_off) {
		out->state_reason_code = NC_REASON_GUEST;
		out->state_reason_message = NC_REASON_GUEST ": Instance initiated shutdown";
	}
	nc_devices_observe(inst, a, &out->block_devices);
	if (inst->reach != NC_REACH_NONE)
		out->reachability_since = WIRE_TIME_OF(inst->reach_since_ms);
}
