/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/text.h"
#include "gen/cluster_rpc.h"
#include "gen/node.h"
#include "svc/cc/cc_priv.h"
#include "svc/cc/handlers_priv.h"
#include "wire/codec.h"

/* The cluster service: what the cloud controller, the operator and the nodes may ask. Each runs on
 * a thread of its own. */

struct rpc_binding cluster_binding(struct cc *c)
{
	return (struct rpc_binding){
	    .service = &cluster_service, .handlers = cluster_rpc_handlers, .ctx = c};
}

int cluster_reserve_capacity(void *ctx, struct arena *a, const struct tls_identity *peer,
			     const struct cluster_reserve_capacity_request *in,
			     struct cluster_reserve_capacity_response *out, struct error *e)
{
	return reserve(ctx, a, in, out, e);
}

int cluster_register_node(void *ctx, struct arena *a, const struct tls_identity *peer,
			  const struct cluster_register_node_request *in, struct error *e)
{
	struct cc *c = ctx;
	int r;

	if (!str_eq(peer->id, in->node_id))
		return error_set(e, "AccessDenied",
				 "the certificate of node %.63s cannot register a node named %.63s",
				 peer->id, in->node_id);
	pthread_mutex_lock(&c->lock);
	r = node_register(c, in->node_id, in->url, e);
	pthread_mutex_unlock(&c->lock);
	if (r > 0)
		node_file_save(c);
	return MIN_OF(r, 0);
}

/* --- ApplyInstances --- */

static int check_spec(const struct shared_instance_spec *s, struct error *e)
{
	if (!*s->instance_id || strlen(s->instance_id) >= CC_ID_LEN || !*s->node_id ||
	    strlen(s->node_id) >= CC_ID_LEN)
		return error_set(e, "InvalidParameterValue",
				 "a specification names instance \"%.80s\" and node \"%.80s\"",
				 s->instance_id, s->node_id);
	if (s->vcpus.value < 1 || s->memory_mib.value < 1 || s->disk_bytes.value < 0)
		return error_set(e, "InvalidParameterValue", "instance %s has no proper size",
				 s->instance_id);
	return 0;
}

/* Takes json, whatever the result. */
static int apply_one(struct cc *c, const struct shared_instance_spec *s, char *json,
		     struct error *e)
{
	const int64_t mib = 1024 * 1024;
	struct capacity size = {{s->vcpus.value, s->memory_mib.value,
				 s->disk_bytes.value / mib + (s->disk_bytes.value % mib != 0),
				 s->local_disks.value}};
	struct instance *i = instance_get(c, s->instance_id, e);
	struct node *n = i ? node_get(c, s->node_id, e) : NULL;

	if (!n) {
		if (i)
			instance_tidy(c, i);
		free(json);
		return -EREMOTEIO;
	}
	i->full_pass = c->full_pass;
	if (i->spec && s->generation.value < i->generation) {
		free(json); /* overtaken on the way */
		return 0;
	}
	instance_set_node(i, n);
	instance_set_spec(c, i, json, s->generation.value, !str_eq(s->wanted, "running"), &size);
	return 0;
}

/* What a full telling did not name was forgotten; every node is told its share in full. */
static void drop_unnamed(struct cc *c)
{
	for (struct node *n = c->nodes; n; n = n->next) {
		for (struct instance *i = n->instances.head, *next; i; i = next) {
			next = i->link[LIST_NODE].next;
			if (i->spec && i->full_pass != c->full_pass) {
				instance_drop_spec(c, i);
				instance_tidy(c, i);
			}
		}
		node_want_full(n);
	}
	c->has_full = true;
}

int cluster_apply_instances(void *ctx, struct arena *a, const struct tls_identity *peer,
			    const struct shared_apply_instances_request *in,
			    struct shared_apply_instances_response *out, struct error *e)
{
	struct cc *c = ctx;
	bool full = in->full.set && in->full.value;
	char **texts = arena_new_array(a, char *, in->instances.count);
	size_t done = 0;
	int r = 0;

	for (size_t k = 0; k < in->instances.count; k++) {
		r = check_spec(&in->instances.items[k], e);
		if (r < 0)
			return r;
	}
	for (size_t k = 0; k < in->instances.count; k++) {
		struct buf b = BUF_INIT;

		wire_json_encode(&shared_shape_instance_spec, &in->instances.items[k], &b);
		texts[k] = buf_steal(&b);
	}
	pthread_mutex_lock(&c->lock);
	c->full_pass += full;
	for (; r >= 0 && done < in->instances.count; done++)
		r = apply_one(c, &in->instances.items[done], texts[done], e);
	if (r >= 0 && full)
		drop_unnamed(c);
	pthread_mutex_unlock(&c->lock);
	for (; done < in->instances.count; done++)
		free(texts[done]);
	if (r < 0)
		return r;
	metrics_add(c->metrics, CC_METRIC_APPLIED, (int64_t)in->instances.count);
	out->epoch = c->epoch;
	return 0;
}

/* --- DescribeInstances --- */

/* Copies of what changed, made under the lock; decoded after it. */
struct changes {
	size_t count;
	char **texts;
	int64_t *revisions;
	int64_t *impaired_since; /* < 0: as reported */
};

static void add_change(struct changes *ch, struct arena *a, const struct instance *i)
{
	bool lost = i->seen.running && i->node && !i->node->reachable;

	ch->texts[ch->count] = arena_strdup(a, i->observed);
	ch->revisions[ch->count] = i->revision;
	ch->impaired_since[ch->count++] = lost ? i->node->unreachable_since_unix_ms : -1;
}

static void collect(struct cc *c, struct arena *a, int64_t since, struct changes *ret)
{
	struct instance *first = NULL;
	size_t max = 0;

	for (struct instance *i = c->by_revision.tail; i && i->revision > since;
	     i = i->link[LIST_REVISION].prev) {
		first = i;
		max++;
	}
	ret->texts = arena_new_array(a, char *, max);
	ret->revisions = arena_new_array(a, int64_t, max);
	ret->impaired_since = arena_new_array(a, int64_t, max);
	for (struct instance *i = first; i; i = i->link[LIST_REVISION].next)
		add_change(ret, a, i);
}

static int decode(struct arena *a, const struct changes *ch,
		  struct shared_instance_observed_list *ret, struct error *e)
{
	ret->set = true;
	ret->items = arena_new_array(a, struct shared_instance_observed, ch->count);
	for (size_t k = 0; k < ch->count; k++) {
		struct shared_instance_observed *o = NULL;
		int r = wire_json_decode(a, &shared_shape_instance_observed, ch->texts[k],
					 strlen(ch->texts[k]), false, (void **)&o, e);

		if (r < 0)
			return r;
		o->revision = WIRE_INT_OF(ch->revisions[k]);
		if (ch->impaired_since[k] >= 0) {
			o->reachability = "impaired";
			o->reachability_since = WIRE_TIME_OF(ch->impaired_since[k]);
		}
		ret->items[ret->count++] = *o;
	}
	return 0;
}

static void wait_for_change(struct cc *c, int64_t since, int64_t wait_ms)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += wait_ms / 1000;
	until.tv_nsec += (wait_ms % 1000) * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	while (!c->stopping && c->revision <= since) {
		if (pthread_cond_timedwait(&c->changed, &c->lock, &until) != 0)
			break;
	}
}

int cluster_describe_instances(void *ctx, struct arena *a, const struct tls_identity *peer,
			       const struct shared_describe_instances_request *in,
			       struct shared_describe_instances_response *out, struct error *e)
{
	struct cc *c = ctx;
	bool same = str_eq(in->epoch, c->epoch) && in->since_revision.set;
	int64_t since = same ? in->since_revision.value : 0;
	int64_t wait_ms = same && in->wait_ms.set ? in->wait_ms.value : 0;
	struct changes ch = {0};
	bool full;

	if (wait_ms < 0 || wait_ms > CC_MAX_WAIT_MS)
		return error_set(e, "InvalidParameterValue", "WaitMs must be between 0 and %d",
				 CC_MAX_WAIT_MS);
	pthread_mutex_lock(&c->lock);
	if (wait_ms)
		wait_for_change(c, since, wait_ms);
	/* Until the cloud controller has told all, it may not know what it asks for: it gets
	 * everything. */
	full = !same || !c->has_full || since > c->revision;
	collect(c, a, full ? 0 : since, &ch);
	out->revision = WIRE_INT_OF(c->revision);
	pthread_mutex_unlock(&c->lock);
	out->epoch = c->epoch;
	out->full = WIRE_BOOL_OF(full);
	return decode(a, &ch, &out->instances, e);
}

/* --- ForgetInstances, GetConsoleOutput --- */

int cluster_forget_instances(void *ctx, struct arena *a, const struct tls_identity *peer,
			     const struct shared_forget_instances_request *in, struct error *e)
{
	struct cc *c = ctx;
	int64_t now_ms = clock_mono_ms();
	int r = 0;

	pthread_mutex_lock(&c->lock);
	table_expire(c, now_ms);
	for (size_t k = 0; r >= 0 && k < in->instance_ids.count; k++) {
		struct instance *i = instance_get(c, in->instance_ids.items[k], e);

		/* One that is on no node that we know may turn up with the next one to register. */
		if (i)
			instance_set_forget(c, i, now_ms + c->config.times.forget_ms);
		else
			r = -EREMOTEIO;
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

/* Where an instance is: its node's URL and id, in the arena. */
static int locate(struct cc *c, struct arena *a, const char *id, const char **ret_url,
		  const char **ret_node, struct error *e)
{
	struct instance *i;
	char why[512];
	int r = 0;

	pthread_mutex_lock(&c->lock);
	i = instance_find(c, id);
	if (!i || !i->node || !(i->spec || i->observed)) {
		r = error_set(e, "InstanceNotFound", "no node has the instance %.63s", id);
	} else if (!i->node->reachable) {
		node_describe_trouble(i->node, why, sizeof(why));
		r = error_set(e, "NodeUnreachable", "the instance %s cannot be asked: %s", id, why);
	} else {
		*ret_url = arena_strdup(a, i->node->url);
		*ret_node = arena_strdup(a, i->node->id);
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

int cluster_get_console_output(void *ctx, struct arena *a, const struct tls_identity *peer,
			       const struct shared_get_console_output_request *in,
			       struct shared_get_console_output_response *out, struct error *e)
{
	struct cc *c = ctx;
	const char *url = NULL, *node = NULL;
	struct shared_get_console_output_response *got = NULL;
	struct rpc_client *client = NULL;
	struct error own = {0};
	int r = locate(c, a, in->instance_id, &url, &node, e);

	if (r < 0)
		return r;
	r = rpc_client_new(c->config.tls, TLS_ROLE_NC, url, &client);
	if (r < 0)
		return error_errno(e, r, "cannot make a connection to node %s", node);
	rpc_client_expect_id(client, node);
	r = rpc_call(client, &node_service, "GetConsoleOutput", in, a, (void **)&got, 10000, &own);
	rpc_client_free(client);
	if (r >= 0) {
		*out = *got;
		return 0;
	}
	if (str_eq(own.code, "ServiceUnavailable") || str_eq(own.code, "PeerNotTrusted"))
		return error_set(e, "NodeUnreachable", "node %s: %s", node, own.message);
	return error_set(e, own.code, "%s", own.message);
}

/* --- DescribeNodes --- */

/* The cc's own view over what the node said of itself. Under the lock. */
static void overlay(struct cc *c, struct arena *a, const struct node *n,
		    struct shared_node_status *s)
{
	struct capacity used = node_used(c, n);
	char why[512];

	s->node_id = arena_strdup(a, n->id);
	s->address = n->url ? arena_strdup(a, n->url) : NULL;
	s->instances = WIRE_INT_OF((int64_t)n->instance_count);
	s->vcpus_used = WIRE_INT_OF(used.of[RESOURCE_VCPUS]);
	s->memory_mib_used = WIRE_INT_OF(used.of[RESOURCE_MEMORY_MIB]);
	s->disk_mib_used = WIRE_INT_OF(used.of[RESOURCE_DISK_MIB]);
	s->local_disks_used = WIRE_INT_OF(used.of[RESOURCE_LOCAL_DISKS]);
	if (n->last_seen_unix_ms)
		s->last_seen = WIRE_TIME_OF(n->last_seen_unix_ms);
	if (!n->reachable || !n->status) {
		node_describe_trouble(n, why, sizeof(why));
		s->state = "unreachable";
		s->reason = arena_strdup(a, why);
	}
}

int cluster_describe_nodes(void *ctx, struct arena *a, const struct tls_identity *peer,
			   struct cluster_describe_nodes_response *out, struct error *e)
{
	struct cc *c = ctx;
	int r = 0;

	pthread_mutex_lock(&c->lock);
	table_expire(c, clock_mono_ms());
	out->nodes.set = true;
	out->nodes.items = arena_new_array(a, struct shared_node_status, c->node_count);
	for (struct node *n = c->nodes; n && r >= 0; n = n->next) {
		struct shared_node_status *s = &out->nodes.items[out->nodes.count++], *told = NULL;

		if (n->status)
			r = wire_json_decode(a, &shared_shape_node_status, n->status,
					     strlen(n->status), false, (void **)&told, e);
		if (r >= 0 && told)
			*s = *told;
		overlay(c, a, n, s);
	}
	pthread_mutex_unlock(&c->lock);
	return r < 0 ? r : 0;
}
