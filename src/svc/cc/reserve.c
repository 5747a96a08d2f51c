/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/text.h"
#include "svc/cc/cc_priv.h"

/* Choosing nodes for new instances. All is decided on a copy of the nodes' figures, then written
 * down. */

enum { MAX_INSTANCES_A_CALL = 10000 };

struct choice {
	struct node *node;
	struct capacity need;
};

static int read_need(const struct cluster_capacity_request *in, struct capacity *ret,
		     struct error *e)
{
	*ret = (struct capacity){{in->vcpus.value, in->memory_mib.value, in->disk_mib.value,
				in->local_disks.value}};
	for (int r = 0; r < RESOURCE_COUNT; r++) {
		/* An ebs instance has no disk of the node's. */
		int64_t least = r == RESOURCE_VCPUS || r == RESOURCE_MEMORY_MIB;

		if (ret->of[r] < least || ret->of[r] > (INT64_C(1) << 40))
			return error_set(e, "InvalidParameterValue",
					 "the size of instance %.63s is not one that can be placed",
					 in->instance_id);
	}
	return 0;
}

/* Where it must be: it is there already, or the caller says so. NULL: anywhere. *ret_disk: its disk is there, too. */
static int find_place(struct cc *c, const struct cluster_capacity_request *want, const struct instance *i, struct node **ret,
		      bool *ret_there, struct error *e)
{
	bool says = want->node_id && *want->node_id;

	*ret_there = i && i->node && i->spec;
	*ret = *ret_there ? i->node : NULL;
	if (*ret && says && !str_eq((*ret)->id, want->node_id))
		return error_set(e, "InvalidParameterValue", "instance %.63s is on node %s, not on %.63s", want->instance_id,
				 (*ret)->id, want->node_id);
	if (!*ret && says) {
		*ret = node_find(c, want->node_id);
		if (!*ret)
			return error_set(e, "InsufficientInstanceCapacity", "The node %.63s, which has the instance %.63s, is not there.",
					 want->node_id, want->instance_id);
	}
	return 0;
}

static int no_room(const struct node *n, const char *id, struct error *e)
{
	char why[512];

	node_describe_trouble(n, why, sizeof(why));
	return error_set(e, "InsufficientInstanceCapacity", "The instance %.63s can be started on its node only: %s.", id, why);
}

/* Room on one node. */
static int choose_there(struct node *n, bool there, struct place_node *places, struct node **nodes, size_t ready,
			struct choice *choice, const char *id, struct error *e)
{
	struct capacity need = choice->need;
	size_t k = 0;

	while (k < ready && nodes[k] != n)
		k++;
	if (k == ready)
		return no_room(n, id, e);
	if (there)
		need.of[RESOURCE_DISK_MIB] = 0;
	if (place_one(&places[k], 1, &need) < 0)
		return place_explain(&places[k], 1, 0, &need, 1, 0, e);
	choice->node = n;
	return 0;
}

static size_t list_ready(struct cc *c, struct arena *a, struct place_node **ret,
			 struct node ***ret_nodes)
{
	size_t count = 0;

	*ret = arena_new_array(a, struct place_node, c->node_count);
	*ret_nodes = arena_new_array(a, struct node *, c->node_count);
	for (struct node *n = c->nodes; n; n = n->next) {
		if (!node_ready(n))
			continue;
		(*ret)[count] = (struct place_node){.id = arena_strdup(a, n->id),
						    .total = n->total,
						    .used = node_used(c, n),
						    .instances = (int64_t)n->instance_count};
		(*ret_nodes)[count++] = n;
	}
	return count;
}

/* Under the lock. *ret_count: how many, from the first on, have a node. */
static int choose(struct cc *c, struct arena *a, const struct cluster_reserve_capacity_request *in,
		  struct choice *choices, size_t *ret_count, struct error *e)
{
	size_t min = in->min_count.set && in->min_count.value >= 0
			 ? MIN_OF((size_t)in->min_count.value, in->instances.count)
			 : in->instances.count;
	struct place_node *places;
	struct node **nodes;
	size_t ready = list_ready(c, a, &places, &nodes), done = 0;

	for (; done < in->instances.count; done++) {
		const struct cluster_capacity_request *want = &in->instances.items[done];
		struct instance *i = instance_find(c, want->instance_id);
		int k, r = read_need(want, &choices[done].need, e);
		struct node *n;
		bool there;

		if (r < 0)
			return r;
		if (i && i->node && (i->reserved || (i->spec && !instance_idle(i)))) {
			choices[done].node = i->node; /* asked again: the same answer */
			continue;
		}
		r = find_place(c, want, i, &n, &there, e);
		if (r == 0 && n) {
			r = choose_there(n, there, places, nodes, ready, &choices[done], want->instance_id, e);
			if (r == 0)
				continue;
		}
		if (r < 0)
			return r;
		k = place_one(places, ready, &choices[done].need);
		if (k < 0)
			break;
		choices[done].node = nodes[k];
	}
	*ret_count = done;
	if (done == in->instances.count || (done && done >= min))
		return 0;
	return place_explain(places, ready, c->node_count - ready, &choices[done].need,
			     in->instances.count, done, e);
}

static int write_down(struct cc *c, const char *id, const struct choice *choice, int64_t until_ms,
		      struct error *e)
{
	struct instance *i = instance_get(c, id, e);

	if (!i)
		return -EREMOTEIO;
	if (!i->spec || instance_idle(i))
		instance_reserve(c, i, choice->node, &choice->need, until_ms);
	return 0;
}

int reserve(struct cc *c, struct arena *a, const struct cluster_reserve_capacity_request *in,
	    struct cluster_reserve_capacity_response *out, struct error *e)
{
	struct choice *choices;
	size_t count = 0;
	int64_t now_ms = clock_mono_ms();
	int r;

	if (!in->instances.count || in->instances.count > MAX_INSTANCES_A_CALL)
		return error_set(e, "InvalidParameterValue",
				 "between 1 and %d instances can be placed at once",
				 MAX_INSTANCES_A_CALL);
	choices = arena_new_array(a, struct choice, in->instances.count);
	out->placements.items = arena_new_array(a, struct cluster_placement, in->instances.count);
	pthread_mutex_lock(&c->lock);
	table_expire(c, now_ms);
	r = choose(c, a, in, choices, &count, e);
	for (size_t k = 0; r >= 0 && k < count; k++) {
		const char *id = in->instances.items[k].instance_id;

		r = write_down(c, id, &choices[k], now_ms + c->config.times.reservation_ms, e);
		out->placements.items[k] = (struct cluster_placement){
		    .instance_id = id, .node_id = arena_strdup(a, choices[k].node->id)};
	}
	pthread_mutex_unlock(&c->lock);
	metrics_add(c->metrics, r < 0 ? CC_METRIC_REFUSED : CC_METRIC_PLACED,
		    r < 0 ? 1 : (int64_t)count);
	if (r < 0)
		return r;
	out->placements.set = true;
	out->placements.count = count;
	return 0;
}
