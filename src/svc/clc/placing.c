/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "gen/cluster.h"
#include "svc/clc/instances.h"
#include "svc/clc/peer.h"

enum { RESERVE_TIMEOUT_MS = 15000 };

/* The placements name instances; those that have none were not placed. */
static size_t take_placements(const struct placing *p,
			      const struct cluster_reserve_capacity_response *got)
{
	size_t placed = 0;

	for (size_t i = 0; i < p->count; i++) {
		p->nodes[i] = NULL;
		for (size_t j = 0; j < got->placements.count && !p->nodes[i]; j++)
			if (str_eq(got->placements.items[j].instance_id, p->ids[i]))
				p->nodes[i] = got->placements.items[j].node_id;
		placed += p->nodes[i] != NULL;
	}
	return placed;
}

int placing_ask(struct ec2_call *call, const struct placing *p)
{
	struct cluster_reserve_capacity_request ask = {.min_count = WIRE_INT_OF((int64_t)p->min)};
	struct cluster_reserve_capacity_response *got;
	struct error e = {0};

	ask.instances.set = true;
	ask.instances.count = p->count;
	ask.instances.items =
	    arena_new_array(call->arena, struct cluster_capacity_request, p->count);
	for (size_t i = 0; i < p->count; i++)
		ask.instances.items[i] = (struct cluster_capacity_request){
		    .instance_id = p->ids[i],
		    .vcpus = WIRE_INT_OF(p->types[i]->vcpus),
		    .memory_mib = WIRE_INT_OF(p->types[i]->memory_mib),
		    .node_id = p->on ? p->on[i] : NULL,
		    .disk_mib = WIRE_INT_OF(p->ebs[i] ? 0 : p->types[i]->disk_gib << 10),
		    .local_disks = WIRE_INT_OF(p->types[i]->local_disks),
		};
	int r = peer_call(call->clc->cluster, "ReserveCapacity", &ask, call->arena, &got,
			  RESERVE_TIMEOUT_MS, &e);
	if (r < 0 && str_eq(e.code, "InsufficientInstanceCapacity"))
		return ec2_error(call, e.code, "%s", e.message);
	if (r < 0)
		return ec2_error(call, "Unavailable",
				 "The cluster controller of %s did not place the instances: %s",
				 call->clc->zone, e.message);
	size_t placed = take_placements(p, got);
	if (placed < p->min)
		return ec2_error(call, "InsufficientInstanceCapacity",
				 "There is room for %zu of the %zu instances at the moment.", placed,
				 p->min);
	return 0;
}
