/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/instances.h"
#include "svc/clc/inventory.h"
#include "svc/clc/volumes.h"

/* Start, stop, reboot, terminate: all the instances that are named, or, if one of them cannot,
 * none. */

struct change {
	struct records_instance *rec;
	enum instance_state from, to;
};

struct changes {
	size_t count;
	struct change *items;
};

static int load(struct ec2_call *call, const struct wire_string_list *ids, struct changes *ret)
{
	struct record_list l;
	int r;

	if (!ids->count)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter InstanceId");
	r = ec2_get_many(call, KIND_INSTANCE, ids, &l);
	if (r < 0)
		return r;
	ret->count = l.count;
	ret->items = arena_new_array(call->arena, struct change, l.count);
	for (size_t i = 0; i < l.count; i++) {
		ret->items[i].rec = l.items[i].value;
		ret->items[i].from = ret->items[i].to = instance_state_of(l.items[i].value);
	}
	return 0;
}

/* Ask the table for each; `verb` is for the error's text. */
static int decide(struct ec2_call *call, struct changes *c, enum instance_event event,
		  const char *verb)
{
	for (size_t i = 0; i < c->count; i++) {
		struct change *x = &c->items[i];

		if (instance_next(x->from, event, &x->to) == INSTANCE_REFUSES)
			return ec2_error(call, "IncorrectInstanceState",
					 "The instance '%s' is not in a state from which it can be "
					 "%s: it is %s.",
					 x->rec->instance_id, verb, instance_state_name(x->from));
	}
	return 0;
}

static int commit(struct ec2_call *call, const struct changes *c)
{
	int r = ec2_commit(call);

	if (r < 0)
		return r;
	for (size_t i = 0; i < c->count; i++)
		if (c->items[i].from != c->items[i].to)
			inventory_moved(call->clc->inventory, c->items[i].from, c->items[i].to);
	return 0;
}

static struct ec2_instance_state_change_list to_reply(struct arena *a, const struct changes *c)
{
	struct ec2_instance_state_change_list out = {.set = true, .count = c->count};

	out.items = arena_new_array(a, struct ec2_instance_state_change, c->count);
	for (size_t i = 0; i < c->count; i++) {
		out.items[i].instance_id = c->items[i].rec->instance_id;
		out.items[i].previous_state = instance_state_to_reply(a, c->items[i].from);
		out.items[i].current_state = instance_state_to_reply(a, c->items[i].to);
	}
	return out;
}

static int check_termination_allowed(struct ec2_call *call, const struct changes *c)
{
	for (size_t i = 0; i < c->count; i++) {
		const struct records_instance *rec = c->items[i].rec;

		if (rec->disable_api_termination.set && rec->disable_api_termination.value &&
		    c->items[i].from != c->items[i].to)
			return ec2_error(
			    call, "OperationNotPermitted",
			    "The instance '%s' may not be terminated. Modify its "
			    "'disableApiTermination' instance attribute and try again.",
			    rec->instance_id);
	}
	return 0;
}

static int terminate(struct ec2_call *call, struct changes *c)
{
	int r = decide(call, c, INSTANCE_ASK_TERMINATE, "terminated");

	if (r >= 0)
		r = check_termination_allowed(call, c);
	for (size_t i = 0; r >= 0 && i < c->count; i++) {
		struct change *x = &c->items[i];

		if (x->from == x->to)
			continue;
		instance_enter(x->rec, x->to, call->now_ms);
		instance_blame_user(call->arena, x->rec, call->now_ms);
		x->rec->wanted = instance_state_name(INSTANCE_TERMINATED);
		r = instance_put(call, x->rec, true);
	}
	return r < 0 ? r : commit(call, c);
}

int ec2_terminate_instances(struct ec2_call *call, const struct ec2_terminate_instances_request *in,
			    struct ec2_terminate_instances_result *out)
{
	struct changes c;
	int r = ec2_begin(call);

	if (r >= 0)
		r = load(call, &in->instance_ids, &c);
	if (r >= 0)
		r = terminate(call, &c);
	if (r >= 0)
		out->terminating_instances = to_reply(call->arena, &c);
	return r;
}

/* ---- start ---- */

static bool has_root(const struct records_instance *i)
{
	for (size_t n = 0; n < i->block_devices.count; n++)
		if (i->block_devices.items[n].boot.value && str_eq(i->block_devices.items[n].wanted, WANTED_ATTACHED))
			return true;
	return !instance_is_ebs(i);
}

/* No node would take one without a root: it would be pending for ever. */
static int decide_start(struct ec2_call *call, struct changes *c)
{
	int r = decide(call, c, INSTANCE_ASK_START, "started");

	for (size_t i = 0; r >= 0 && i < c->count; i++)
		if (c->items[i].from != c->items[i].to && !has_root(c->items[i].rec))
			r = ec2_error(call, "InvalidParameterValue",
				      "Invalid value '%s' for instanceId. Instance does not have a volume "
				      "attached at root (%s)",
				      c->items[i].rec->instance_id, c->items[i].rec->root_device_name);
	return r;
}

/* Its capacity was given back when it was stopped. Those that have to be started, in *p. */
static int ask_for_room(struct ec2_call *call, const struct changes *c, struct placing *p)
{
	bool *ebs = arena_new_array(call->arena, bool, c->count);

	*p = (struct placing){
	    .ids = arena_new_array(call->arena, const char *, c->count),
	    .types = arena_new_array(call->arena, const struct instance_type *, c->count),
	    .ebs = ebs,
	    .on = arena_new_array(call->arena, const char *, c->count),
	    .nodes = arena_new_array(call->arena, const char *, c->count),
	};
	for (size_t i = 0; i < c->count; i++) {
		const struct change *x = &c->items[i];

		if (x->from == x->to)
			continue;
		p->ids[p->count] = x->rec->instance_id;
		p->on[p->count] = x->rec->node_id;
		ebs[p->count] = instance_is_ebs(x->rec);
		p->types[p->count] = instance_type_find(x->rec->instance_type);
		if (!p->types[p->count++])
			return ec2_error(call, "Unsupported",
					 "The instance type %s is no longer offered",
					 x->rec->instance_type);
	}
	p->min = p->count;
	return p->count ? placing_ask(call, p) : 0;
}

/* Its volumes may be opened where it runs, and only there. */
static int move_volumes(struct ec2_call *call, const struct records_instance *rec)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < rec->block_devices.count; i++) {
		struct record v;

		r = record_get(call->clc, call->arena, KIND_VOLUME,
			       rec->block_devices.items[i].volume_id, &v, &call->error);
		r = r >= 0 ? volume_put(call, v.value, true) : r == -ENOENT ? 0 : r;
	}
	return r;
}

static int start_one(struct ec2_call *call, struct change *x, const char *node_id)
{
	struct records_instance *rec = x->rec;
	bool moved = !str_eq(rec->node_id, node_id);

	if (!rec->interface_attach_time.set)
		rec->interface_attach_time = rec->launch_time;
	rec->launch_time = WIRE_TIME_OF(call->now_ms);
	rec->state_reason_code = rec->state_reason_message = NULL;
	rec->state_transition_reason = NULL;
	rec->wanted = instance_state_name(INSTANCE_RUNNING);
	rec->force_off = (struct wire_bool){0};
	rec->node_id = node_id;
	instance_enter(rec, x->to, call->now_ms);
	int r = instance_put(call, rec, true);
	return r >= 0 && moved ? move_volumes(call, rec) : r;
}

static const char *node_of(const struct placing *p, const char *id)
{
	for (size_t i = 0; i < p->count; i++)
		if (str_eq(p->ids[i], id))
			return p->nodes[i];
	return NULL;
}

/* Under the transaction all is looked at again: one that had no room asked for it stays as it is, with an error. */
static int start(struct ec2_call *call, struct changes *c, const struct placing *p)
{
	int r = decide_start(call, c);

	for (size_t i = 0; r >= 0 && i < c->count; i++) {
		struct change *x = &c->items[i];
		const char *node = node_of(p, x->rec->instance_id);

		if (x->from == x->to)
			continue;
		r = node ? start_one(call, x, node)
			 : ec2_error(call, "IncorrectInstanceState",
				     "The instance '%s' has just been stopped: try again",
				     x->rec->instance_id);
	}
	return r < 0 ? r : commit(call, c);
}

int ec2_start_instances(struct ec2_call *call, const struct ec2_start_instances_request *in,
			struct ec2_start_instances_result *out)
{
	struct placing p;
	struct changes c;
	int r = load(call, &in->instance_ids, &c);

	if (r >= 0)
		r = decide_start(call, &c);
	if (r >= 0)
		r = ec2_dry_run_point(call);
	if (r >= 0)
		r = ask_for_room(call, &c, &p);
	if (r >= 0)
		r = ec2_begin(call);
	if (r >= 0)
		r = load(call, &in->instance_ids, &c);
	if (r >= 0)
		r = start(call, &c, &p);
	if (r >= 0)
		out->starting_instances = to_reply(call->arena, &c);
	return r;
}

/* ---- stop ---- */

/* A root disk of the instance-store kind would be lost. */
static int check_stoppable(struct ec2_call *call, const struct changes *c)
{
	for (size_t i = 0; i < c->count; i++)
		if (!instance_is_ebs(c->items[i].rec) && c->items[i].from != INSTANCE_TERMINATED)
			return ec2_error(call, "UnsupportedOperation",
					 "The instance '%s' does not have an 'ebs' root device type "
					 "and cannot be stopped.",
					 c->items[i].rec->instance_id);
	return 0;
}

/* By force, the guest is not asked, or is no longer waited for. */
static int stop(struct ec2_call *call, struct changes *c, bool force)
{
	int r = check_stoppable(call, c);

	if (r >= 0)
		r = decide(call, c, INSTANCE_ASK_STOP, "stopped");
	for (size_t i = 0; r >= 0 && i < c->count; i++) {
		struct change *x = &c->items[i];
		bool stops = x->from != x->to, hurried = force && x->to == INSTANCE_STOPPING && !x->rec->force_off.value;

		if (!stops && !hurried)
			continue;
		if (stops) {
			instance_enter(x->rec, x->to, call->now_ms);
			instance_blame_user(call->arena, x->rec, call->now_ms);
			x->rec->wanted = instance_state_name(INSTANCE_STOPPED);
		}
		if (force)
			x->rec->force_off = WIRE_BOOL_OF(true);
		r = instance_put(call, x->rec, true);
	}
	return r < 0 ? r : commit(call, c);
}

int ec2_stop_instances(struct ec2_call *call, const struct ec2_stop_instances_request *in,
		       struct ec2_stop_instances_result *out)
{
	struct changes c;
	int r = 0;

	if (in->hibernate.set && in->hibernate.value)
		return ec2_error(call, "UnsupportedHibernationConfiguration",
				 "Instances cannot hibernate here: Hibernate can only be false");
	r = ec2_begin(call);
	if (r >= 0)
		r = load(call, &in->instance_ids, &c);
	if (r >= 0)
		r = stop(call, &c, in->force.set && in->force.value);
	if (r >= 0)
		out->stopping_instances = to_reply(call->arena, &c);
	return r;
}

int ec2_reboot_instances(struct ec2_call *call, const struct ec2_reboot_instances_request *in)
{
	struct changes c;
	int r = ec2_begin(call);

	if (r >= 0)
		r = load(call, &in->instance_ids, &c);
	if (r >= 0)
		r = decide(call, &c, INSTANCE_ASK_REBOOT, "rebooted");
	for (size_t i = 0; r >= 0 && i < c.count; i++) {
		struct records_instance *rec = c.items[i].rec;

		rec->reboot_generation = WIRE_INT_OF(rec->reboot_generation.value + 1);
		r = instance_put(call, rec, true);
	}
	return r < 0 ? r : commit(call, &c);
}
