/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "gen/node.h"
#include "svc/cc/cc_priv.h"
#include "wire/codec.h"

/* One thread a node: asks for its capacity now and then, and else waits with it for what changes.
 */
enum { STATUS_TIMEOUT_MS = 5000, POLL_SLACK_MS = 5000 };

/* What a report says of one instance, ready to be merged. */
struct report {
	const char *id;
	char *json;
	struct sighting seen;
};

static void take_status(struct node *n, const struct shared_node_status *s)
{
	struct buf b = BUF_INIT;
	bool was_ready = node_ready(n);

	wire_json_encode(&shared_shape_node_status, s, &b);
	free(n->status);
	n->status = buf_steal(&b);
	n->says_ready = str_eq(s->state, "ready");
	n->total = (struct capacity){{s->vcpus.value, s->memory_mib.value, s->disk_mib.value,
				      s->local_disks.value}};
	n->reported_used = (struct capacity){
	    {s->vcpus_used.value, s->memory_mib_used.value, s->disk_mib_used.value,
	     s->local_disks_used.value}};
	if (was_ready != node_ready(n))
		log_info("node", "node=%s state=%s vcpus=%lld memory_mib=%lld disk_mib=%lld",
			 log_quote(n->id), log_quote(s->state),
			 (long long)n->total.of[RESOURCE_VCPUS],
			 (long long)n->total.of[RESOURCE_MEMORY_MIB],
			 (long long)n->total.of[RESOURCE_DISK_MIB]);
}

static int ask_status(struct node *n, struct rpc_client *client, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct shared_node_status *s = NULL;
	int r = rpc_call(client, &node_service, "DescribeNode", NULL, a, (void **)&s,
			 STATUS_TIMEOUT_MS, e);

	if (r < 0)
		return r;
	if (!str_eq(s->node_id, n->id))
		return error_set(e, "PeerNotTrusted", "the node at %s says that it is %.64s", n->id,
				 s->node_id);
	pthread_mutex_lock(&n->cc->lock);
	node_seen(n, NULL);
	take_status(n, s);
	pthread_mutex_unlock(&n->cc->lock);
	return 0;
}

static struct report *encode(struct node *n, struct arena *a,
			     const struct shared_describe_instances_response *in)
{
	struct report *out = arena_new_array(a, struct report, in->instances.count);

	for (size_t k = 0; k < in->instances.count; k++) {
		struct shared_instance_observed o = in->instances.items[k];
		struct buf b = BUF_INIT;

		o.node_id = n->id;
		o.revision = WIRE_INT_OF(0); /* ours comes in when it is passed on */
		wire_json_encode(&shared_shape_instance_observed, &o, &b);
		out[k] = (struct report){.id = o.instance_id,
					 .json = buf_steal(&b),
					 .seen = {.ended = str_eq(o.state, "terminated"),
						  .running = str_eq(o.state, "running"),
						  .stopped = str_eq(o.state, "stopped"),
						  .generation = o.generation.value}};
	}
	return out;
}

static void merge_one(struct node *n, struct report *rep)
{
	struct error e = {0};
	struct instance *i = instance_get(n->cc, rep->id, &e);

	if (i && i->node && i->node != n && (i->spec || i->observed)) {
		log_warn("two nodes report one instance", "id=%s node=%s ignored=%s",
			 log_quote(i->id), log_quote(i->node->id), log_quote(n->id));
		i = NULL;
	} else if (!i) {
		log_warn("a report was not taken", "node=%s err=%s", log_quote(n->id),
			 log_quote(e.message));
	}
	if (!i) {
		free(rep->json);
		return;
	}
	instance_set_node(i, n);
	i->seen_pass = n->pass;
	instance_set_observed(n->cc, i, rep->json, &rep->seen);
}

/* A full report names all that the node has: what it does not name is gone from there. */
static void drop_unnamed(struct node *n)
{
	for (struct instance *i = n->instances.head, *next; i; i = next) {
		next = i->link[LIST_NODE].next;
		if (i->observed && i->seen_pass != n->pass) {
			instance_drop_observed(n->cc, i);
			instance_tidy(n->cc, i);
		}
	}
}

static void merge(struct node *n, const struct shared_describe_instances_response *in,
		  struct report *reports)
{
	bool full = in->full.set && in->full.value;

	pthread_mutex_lock(&n->cc->lock);
	node_seen(n, in->epoch);
	n->pass += full;
	for (size_t k = 0; k < in->instances.count; k++)
		merge_one(n, &reports[k]);
	if (full)
		drop_unnamed(n);
	n->revision = in->revision.value;
	pthread_mutex_unlock(&n->cc->lock);
	metrics_add(n->cc->metrics, CC_METRIC_REPORTED, (int64_t)in->instances.count);
}

static int ask_instances(struct node *n, struct rpc_client *client, const char *epoch,
			 int64_t revision, int wait_ms, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct shared_describe_instances_request in = {
	    .epoch = *epoch ? epoch : NULL,
	    .since_revision = WIRE_INT_OF(revision),
	    .wait_ms = WIRE_INT_OF(wait_ms),
	};
	struct shared_describe_instances_response *out = NULL;
	int r = rpc_call(client, &node_service, "DescribeInstances", &in, a, (void **)&out,
			 wait_ms + POLL_SLACK_MS, e);

	if (r < 0)
		return r;
	merge(n, out, encode(n, a, out));
	return 0;
}

/* One round. *status_ms: when the capacity was last told. */
static int watch_once(struct node *n, struct rpc_client *client, int64_t *status_ms,
		      const char *epoch, int64_t revision, struct error *e)
{
	const struct cc_times *t = &n->cc->config.times;
	int r;

	if (!*status_ms || clock_mono_ms() - *status_ms >= t->status_ms) {
		r = ask_status(n, client, e);
		if (r < 0)
			return r;
		*status_ms = clock_mono_ms();
	}
	return ask_instances(n, client, epoch, revision, *epoch ? t->poll_ms : 0, e);
}

void *watch_run(void *arg)
{
	struct node *n = arg;
	struct cc *c = n->cc;
	const struct cc_times *t = &c->config.times;
	int backoff_ms = t->backoff_min_ms;
	unsigned serial = 0;
	int64_t status_ms = 0;

	pthread_mutex_lock(&c->lock);
	while (!c->stopping) {
		struct rpc_client *client = node_client(n, &n->watch_client, &serial);
		char epoch[CC_PEER_EPOCH_LEN];
		int64_t revision = n->revision;
		struct error e = {0};
		int r;

		if (!client) {
			node_wait(n, &n->wake_watch, -1);
			continue;
		}
		strcpy(epoch, n->epoch);
		pthread_mutex_unlock(&c->lock);
		r = watch_once(n, client, &status_ms, epoch, revision, &e);
		pthread_mutex_lock(&c->lock);
		if (r >= 0) {
			backoff_ms = t->backoff_min_ms;
			continue;
		}
		status_ms = 0;
		if (c->stopping || serial != n->url_serial)
			continue;
		node_missed(n, &e);
		node_wait(n, &n->wake_watch, backoff_ms);
		backoff_ms = MIN_OF(2 * backoff_ms, t->backoff_max_ms);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}
