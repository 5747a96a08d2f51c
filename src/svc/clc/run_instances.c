/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/id.h"
#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "model/ipv4.h"
#include "svc/clc/api.h"
#include "svc/clc/images.h"
#include "svc/clc/instances.h"
#include "svc/clc/inventory.h"

/*
 * RunInstances. What is taken, in this order, and given back if a later step fails:
 *   1. addresses and room within the account's limit (inventory, in memory)
 *   2. capacity of nodes (the cluster controller; what no instance follows on is dropped there by
 * itself)
 *   3. the records: token, instances, their volumes, tags, in one transaction. From its commit on the launch has
 * happened.
 */
struct batch {
	size_t count;
	uint32_t *ips;
	const char **ids, **nodes;
};

static const char *new_id(struct arena *a, const char *prefix)
{
	char id[ID_LEN];

	id_new(prefix, id);
	return arena_strdup(a, id);
}

static void give_back(struct ec2_call *call, struct batch *b, size_t keep)
{
	while (b->count > keep)
		inventory_give(call->clc->inventory, call->account_id, b->ips[--b->count]);
}

static int take_addresses(struct ec2_call *call, const struct launch *l, struct batch *b)
{
	b->ips = arena_new_array(call->arena, uint32_t, l->max);
	b->ids = arena_new_array(call->arena, const char *, l->max);
	b->nodes = arena_new_array(call->arena, const char *, l->max);
	return inventory_take(call->clc->inventory, call->account_id, l->min, l->max, l->wanted_ip,
			      b->ips, &b->count, &call->error);
}

/* Placed ones to the front, with the addresses of the others behind them. */
static void sort_placed(struct batch *b)
{
	size_t placed = 0;

	for (size_t i = 0; i < b->count; i++) {
		const char *id = b->ids[i], *node = b->nodes[i];

		if (!node)
			continue;
		b->nodes[i] = NULL;
		b->ids[placed] = id;
		b->nodes[placed++] = node;
	}
}

static size_t placed_count(const struct batch *b)
{
	size_t n = 0;

	while (n < b->count && b->nodes[n])
		n++;
	return n;
}

static int reserve(struct ec2_call *call, const struct launch *l, struct batch *b)
{
	const struct instance_type **types =
	    arena_new_array(call->arena, const struct instance_type *, b->count);
	bool *ebs = arena_new_array(call->arena, bool, b->count);

	for (size_t i = 0; i < b->count; i++) {
		b->ids[i] = new_id(call->arena, "i");
		types[i] = l->type;
		ebs[i] = image_is_ebs(l->image);
	}
	int r = placing_ask(call, &(struct placing){.min = l->min,
						     .count = b->count,
						     .ids = b->ids,
						     .types = types,
						     .ebs = ebs,
						     .nodes = b->nodes});
	if (r >= 0)
		sort_placed(b);
	return r;
}

static struct records_instance *new_record(struct ec2_call *call, const struct launch *l,
					   const struct batch *b, size_t n,
					   const char *reservation_id)
{
	struct arena *a = call->arena;
	struct records_instance *i = arena_new_struct(a, struct records_instance);
	char ip[IPV4_LEN], mac[MAC_LEN];

	ipv4_format(b->ips[n], ip);
	mac_for_ipv4(settings_get(call->clc->settings, SETTING_CLOUD_ID), b->ips[n], mac);
	*i = (struct records_instance){
	    .instance_id = b->ids[n],
	    .account_id = call->account_id,
	    .reservation_id = reservation_id,
	    .client_token = l->token,
	    .ami_launch_index = WIRE_INT_OF((int64_t)n),
	    .image_id = l->image->image_id,
	    .image_account_id = l->image->account_id,
	    .image_location = image_is_ebs(l->image) ? NULL : l->image->image_location,
	    .image_sha256 = l->image->sha256,
	    .image_size_bytes = l->image->size_bytes,
	    .architecture = l->image->architecture,
	    .root_device_name = l->image->root_device_name,
	    .root_device_type = l->image->root_device_type,
	    .sriov_net_support = l->image->sriov_net_support,
	    .instance_type = l->type->name,
	    .key_name = l->key ? l->key->key_name : NULL,
	    .public_key = l->key ? l->key->public_key : NULL,
	    .user_data = l->user_data,
	    .launch_time = WIRE_TIME_OF(call->now_ms),
	    .state = instance_state_name(INSTANCE_PENDING),
	    .state_time = WIRE_TIME_OF(call->now_ms),
	    .wanted = instance_state_name(INSTANCE_RUNNING),
	    .generation = WIRE_INT_OF(1),
	    .node_id = b->nodes[n],
	    .availability_zone = call->clc->zone,
	    .vcpus = WIRE_INT_OF(l->type->vcpus),
	    .memory_mib = WIRE_INT_OF(l->type->memory_mib),
	    .disk_bytes = WIRE_INT_OF(image_is_ebs(l->image) ? 0 : l->type->disk_gib << 30),
	    .local_disks = WIRE_INT_OF(l->type->local_disks),
	    .network_interface_id = new_id(a, "eni"),
	    .network_interface_attachment_id = new_id(a, "eni-attach"),
	    .network_interface_description = l->interface_description,
	    .mac_address = arena_strdup(a, mac),
	    .private_ip = arena_strdup(a, ip),
	    .subnet_id = l->subnet->subnet_id,
	    .vpc_id = l->subnet->vpc_id,
	    .private_dns_name = clc_private_dns_name(call->clc, a, ip),
	    .metadata_options = l->metadata,
	    .instance_initiated_shutdown_behavior = l->shutdown_behavior,
	    .disable_api_termination = WIRE_BOOL_OF(l->disable_api_termination),
	    .monitoring_enabled = WIRE_BOOL_OF(l->monitoring),
	    .tenancy = "default",
	};
	return i;
}

/* What RunInstances and its repetition answer. */
static void reply_with(struct ec2_call *call, const char *reservation_id,
		       struct records_instance *const *instances, size_t count,
		       struct ec2_reservation *out)
{
	out->reservation_id = reservation_id;
	out->owner_id = call->account_id;
	out->groups.set = true;
	out->instances.set = true;
	out->instances.count = count;
	out->instances.items = arena_new_array(call->arena, struct ec2_instance, count);
	for (size_t i = 0; i < count; i++) {
		struct shared_tag_list tags = {0};
		struct error e = {0};

		/* The launch has happened: tags that cannot be read now must not make it look
		 * failed. */
		(void)tags_get(call->clc, call->arena, instances[i]->instance_id, &tags, &e);
		instance_to_reply(call, instances[i], tags_to_reply(call->arena, &tags),
				  &out->instances.items[i]);
	}
}

static int put_one(struct ec2_call *call, const struct launch *l, struct records_instance *i)
{
	int r = launch_make_devices(call, l, i);

	if (r >= 0)
		r = instance_put(call, i, false);
	if (r >= 0 && l->tags.count)
		r = tags_put(call, "instance", i->instance_id, &l->tags);
	if (r >= 0 && l->interface_tags.count)
		r = tags_put(call, "network-interface", i->network_interface_id,
			     &l->interface_tags);
	return r;
}

/* -EEXIST: another request with the same token was faster. */
static int put_token(struct ec2_call *call, const struct launch *l, const char *reservation_id)
{
	const struct records_client_token t = {
	    .token = l->token,
	    .request_sha256 = l->request_sha256,
	    .reservation_id = reservation_id,
	    .create_time = WIRE_TIME_OF(call->now_ms),
	};

	if (!l->token)
		return 0;
	return record_put(call->clc, KIND_CLIENT_TOKEN, call->account_id, reservation_id, l->token,
			  &t, &call->error);
}

static int record_launch(struct ec2_call *call, const struct launch *l, const struct batch *b,
			 struct ec2_reservation *out)
{
	const char *reservation_id = new_id(call->arena, "r");
	struct records_instance **instances =
	    arena_new_array(call->arena, struct records_instance *, b->count);
	int r = ec2_begin(call);

	if (r < 0)
		return r;
	r = put_token(call, l, reservation_id);
	for (size_t n = 0; r >= 0 && n < b->count; n++) {
		instances[n] = new_record(call, l, b, n, reservation_id);
		r = put_one(call, l, instances[n]);
	}
	call->wake_reconciler = true;
	if (r >= 0)
		r = ec2_commit(call);
	if (r < 0)
		return r;
	for (size_t n = 0; n < b->count; n++)
		inventory_moved(call->clc->inventory, INSTANCE_STATE_COUNT, INSTANCE_PENDING);
	metrics_add(call->clc->metrics, METRIC_LAUNCHED, (int64_t)b->count);
	reply_with(call, reservation_id, instances, b->count, out);
	return 0;
}

/* A token that was used: 1 and the first answer again, or IdempotentParameterMismatch. 0: it was
 * not used. */
static int answer_again(struct ec2_call *call, const struct launch *l, struct ec2_reservation *out)
{
	struct record_list all;
	struct record found;
	int r;

	if (!l->token)
		return 0;
	r = record_get_by_name(call->clc, call->arena, KIND_CLIENT_TOKEN, call->account_id,
			       l->token, &found, &call->error);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	const struct records_client_token *t = found.value;
	if (!str_eq(t->request_sha256, l->request_sha256))
		return ec2_error(call, "IdempotentParameterMismatch",
				 "The token '%s' was used before with other parameters", l->token);
	r = ec2_list(call, KIND_INSTANCE, &all);
	if (r < 0)
		return r;
	struct records_instance **mine =
	    arena_new_array(call->arena, struct records_instance *, all.count);
	size_t count = 0;
	for (size_t i = 0; i < all.count; i++) {
		struct records_instance *rec = all.items[i].value;

		if (str_eq(rec->reservation_id, t->reservation_id))
			mine[count++] = rec;
	}
	reply_with(call, t->reservation_id, mine, count, out);
	return 1;
}

int ec2_run_instances(struct ec2_call *call, const struct ec2_run_instances_request *in,
		      struct ec2_reservation *out)
{
	struct launch l = {0};
	struct batch b = {0};
	int r = launch_token(call, in, &l);

	if (r >= 0)
		r = answer_again(call, &l, out);
	if (r != 0)
		return r < 0 ? r : 0;
	r = launch_plan(call, in, &l);
	if (r >= 0)
		r = ec2_dry_run_point(call);
	if (r >= 0)
		r = take_addresses(call, &l, &b);
	if (r < 0)
		return r;
	r = reserve(call, &l, &b);
	if (r >= 0) {
		give_back(call, &b, placed_count(&b));
		r = record_launch(call, &l, &b, out);
	}
	if (r < 0)
		give_back(call, &b, 0);
	if (r != -EEXIST)
		return r;
	state_rollback(call->clc->state);
	call->in_transaction = false;
	r = answer_again(call, &l, out);
	return r == 0  ? ec2_error(call, "InternalError", "the client token vanished; try again")
	       : r < 0 ? r
		       : 0;
}
