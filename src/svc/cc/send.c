/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/text.h"
#include "gen/node.h"
#include "svc/cc/cc_priv.h"
#include "wire/codec.h"

/*
 * One thread a node: carries what is wanted to it until it has acknowledged. One message at a time:
 * all (after either side was started anew), else what changed, else releases. What changes while a
 * message is under way stays on the list, since its serial is another one.
 */
enum { SEND_TIMEOUT_MS = 30000 };

struct letter {
	struct arena *a;
	bool forget, full;
	unsigned full_serial;
	size_t count;
	const char **ids;
	const char **texts; /* specifications, JSON */
	uint64_t *serials;
};

static bool has_work(const struct node *n)
{
	return n->need_full || n->send.count || n->forget.count;
}

static void letter_room(struct letter *l, size_t max)
{
	l->ids = arena_new_array(l->a, const char *, max);
	l->texts = arena_new_array(l->a, const char *, max);
	l->serials = arena_new_array(l->a, uint64_t, max);
}

static void letter_add(struct letter *l, const struct instance *i)
{
	l->ids[l->count] = arena_strdup(l->a, i->id);
	l->texts[l->count] = arena_strdup(l->a, i->spec);
	l->serials[l->count++] = i->spec_serial;
}

/* All that is wanted of the node, if that fits one message; else all of it goes on the list of what
 * is to be sent. */
static void gather_full(struct node *n, struct letter *l)
{
	size_t bytes = 0, count = 0;

	for (struct instance *i = n->instances.head; i; i = i->link[LIST_NODE].next) {
		if (i->spec) {
			bytes += strlen(i->spec);
			count++;
		}
	}
	if (n->careful || bytes > CC_SEND_MAX_BYTES || !n->cc->has_full) {
		for (struct instance *i = n->instances.head; i; i = i->link[LIST_NODE].next)
			instance_send_again(i);
		n->need_full = false;
		return;
	}
	l->full = true;
	l->full_serial = n->full_serial;
	letter_room(l, count);
	for (struct instance *i = n->instances.head; i; i = i->link[LIST_NODE].next) {
		if (i->spec)
			letter_add(l, i);
	}
}

static void gather_changed(struct node *n, struct letter *l)
{
	size_t bytes = 0, max = n->careful ? 1 : CC_SEND_BATCH;

	letter_room(l, max);
	for (struct instance *i = n->send.head; i && l->count < max; i = i->link[LIST_SEND].next) {
		bytes += strlen(i->spec);
		if (l->count && bytes > CC_SEND_MAX_BYTES)
			break;
		letter_add(l, i);
	}
}

static void gather_forgets(struct node *n, struct letter *l)
{
	l->forget = true;
	l->ids = arena_new_array(l->a, const char *, CC_SEND_BATCH);
	for (struct instance *i = n->forget.head; i && l->count < CC_SEND_BATCH;
	     i = i->link[LIST_FORGET].next)
		l->ids[l->count++] = arena_strdup(l->a, i->id);
}

/* Under the lock. False: nothing is to be sent after all. */
static bool gather(struct node *n, struct letter *l)
{
	if (n->need_full)
		gather_full(n, l);
	if (!l->full && n->send.count)
		gather_changed(n, l);
	else if (!l->full && n->forget.count)
		gather_forgets(n, l);
	return l->full || l->count;
}

static int send_specs(struct rpc_client *client, struct letter *l, const char **ret_epoch,
		      struct error *e)
{
	struct shared_apply_instances_request in = {.full = {.set = l->full, .value = true}};
	struct shared_apply_instances_response *out = NULL;
	int r;

	in.instances.set = true;
	in.instances.items = arena_new_array(l->a, struct shared_instance_spec, l->count);
	for (size_t k = 0; k < l->count; k++) {
		struct shared_instance_spec *spec = NULL;

		r = wire_json_decode(l->a, &shared_shape_instance_spec, l->texts[k],
				     strlen(l->texts[k]), false, (void **)&spec, e);
		if (r < 0)
			return r;
		in.instances.items[in.instances.count++] = *spec;
	}
	r = rpc_call(client, &node_service, "ApplyInstances", &in, l->a, (void **)&out,
		     SEND_TIMEOUT_MS, e);
	if (r >= 0)
		*ret_epoch = out->epoch;
	return r;
}

static int send_forgets(struct rpc_client *client, struct letter *l, struct error *e)
{
	struct shared_forget_instances_request in = {
	    .instance_ids = {.set = true, .count = l->count, .items = l->ids},
	};

	return rpc_call(client, &node_service, "ForgetInstances", &in, l->a, NULL, SEND_TIMEOUT_MS,
			e);
}

/* Under the lock: the node has it. */
static void acknowledged(struct node *n, const struct letter *l)
{
	struct cc *c = n->cc;

	for (size_t k = 0; k < l->count; k++) {
		struct instance *i = instance_find(c, l->ids[k]);

		if (!i || i->node != n)
			continue;
		if (!l->forget) {
			if (i->spec_serial == l->serials[k])
				instance_sent(i);
			continue;
		}
		if (!i->forget)
			continue;
		instance_drop_forget(c, i);
		instance_drop_spec(c, i);
		instance_drop_observed(c, i);
		instance_tidy(c, i);
		metrics_add(c->metrics, CC_METRIC_FORGOTTEN, 1);
	}
	if (l->full && n->full_serial == l->full_serial)
		n->need_full = false;
	if (!l->forget)
		metrics_add(c->metrics, CC_METRIC_SENT, (int64_t)l->count);
	if (!n->need_full && !n->send.count)
		n->careful = false;
}

/* Under the lock: it did not get there, or the node would not have it. */
static void failed(struct node *n, const struct letter *l, const struct error *e)
{
	struct instance *i;

	if (str_eq(e->code, "ServiceUnavailable") || str_eq(e->code, "PeerNotTrusted") ||
	    str_eq(e->code, "Cancelled")) {
		node_missed(n, e);
		return;
	}
	metrics_add(n->cc->metrics, CC_METRIC_NODE_ERRORS, 1);
	log_error("a node refused a message", "node=%s first=%s count=%zu code=%s err=%s",
		  log_quote(n->id), l->count ? l->ids[0] : "-", l->count, e->code,
		  log_quote(e->message));
	if (l->forget)
		return;
	/* One that it refuses must not hold the others up: one at a time, the refused one to the
	 * end of the list. */
	n->careful = true;
	i = l->count == 1 ? instance_find(n->cc, l->ids[0]) : NULL;
	if (i && i->node == n)
		instance_send_again(i);
}

/* One message, if there is something to say. Called and returns under the lock; *ret_sent: the node
 * has it. */
static bool send_one(struct node *n, struct rpc_client *client, bool *ret_sent)
{
	struct cc *c = n->cc;
	struct letter l = {.a = arena_new()};
	const char *epoch = NULL;
	struct error e = {0};
	bool any = gather(n, &l);
	int r = 0;

	*ret_sent = false;
	if (any) {
		pthread_mutex_unlock(&c->lock);
		r = l.forget ? send_forgets(client, &l, &e) : send_specs(client, &l, &epoch, &e);
		pthread_mutex_lock(&c->lock);
		if (r >= 0) {
			/* Before the acknowledgement: a node that was started anew meanwhile is
			 * told all again. */
			node_seen(n, *n->epoch ? epoch : NULL);
			acknowledged(n, &l);
			*ret_sent = true;
		} else if (!c->stopping) {
			failed(n, &l, &e);
		}
	}
	arena_free(l.a);
	return any;
}

void *send_run(void *arg)
{
	struct node *n = arg;
	struct cc *c = n->cc;
	const struct cc_times *t = &c->config.times;
	int backoff_ms = t->backoff_min_ms;
	unsigned serial = 0;

	pthread_mutex_lock(&c->lock);
	while (!c->stopping) {
		struct rpc_client *client = node_client(n, &n->send_client, &serial);
		bool sent;

		if (!client || !has_work(n)) {
			node_wait(n, &n->wake_send, -1);
			continue;
		}
		if (!send_one(n, client, &sent))
			continue;
		if (sent) {
			backoff_ms = t->backoff_min_ms;
		} else if (!c->stopping && serial == n->url_serial) {
			node_wait(n, &n->wake_send, backoff_ms);
			backoff_ms = MIN_OF(2 * backoff_ms, t->backoff_max_ms);
		}
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}
