/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/cc/cc_priv.h"

struct node *node_find(struct cc *c, const char *id)
{
	for (struct node *n = c->nodes; n; n = n->next) {
		if (str_eq(n->id, id))
			return n;
	}
	return NULL;
}

static void cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

struct node *node_get(struct cc *c, const char *id, struct error *e)
{
	struct node *n = node_find(c, id);

	if (n)
		return n;
	if (!*id || strlen(id) >= CC_ID_LEN) {
		error_set(e, "InvalidParameterValue", "\"%.80s\" is not the id of a node", id);
		return NULL;
	}
	if (c->node_count >= CC_MAX_NODES) {
		error_set(e, "LimitExceeded", "this cluster controller keeps %d nodes at most",
			  CC_MAX_NODES);
		return NULL;
	}
	n = calloc(1, sizeof(*n));
	if (!n)
		abort();
	strcpy(n->id, id);
	n->cc = c;
	n->created_ms = clock_mono_ms();
	n->instances.kind = LIST_NODE;
	n->send.kind = LIST_SEND;
	n->forget.kind = LIST_FORGET;
	cond_init(&n->wake_watch);
	cond_init(&n->wake_send);
	n->next = c->nodes;
	c->nodes = n;
	c->node_count++;
	return n;
}

static int start_threads(struct node *n, struct error *e)
{
	int r;

	if (n->threads_run)
		return 0;
	r = pthread_create(&n->watch_thread, NULL, watch_run, n);
	if (r)
		return error_errno(e, r, "cannot start the thread that watches node %s", n->id);
	r = pthread_create(&n->send_thread, NULL, send_run, n);
	if (r)
		abort(); /* half of a node is no node; the supervisor starts us anew */
	n->threads_run = true;
	return 0;
}

int node_register(struct cc *c, const char *id, const char *url, struct error *e)
{
	struct node *n;
	bool moved;
	int r;

	if (!str_prefix(url, "https://") || strlen(url) > 255)
		return error_set(e, "InvalidParameterValue",
				 "the node's URL \"%.80s\" does not start with https://", url);
	if (c->stopping)
		return error_set(e, "ServiceUnavailable", "the cluster controller is stopping");
	n = node_get(c, id, e);
	if (!n)
		return -EREMOTEIO;
	moved = !str_eq(n->url, url);
	if (moved) {
		log_info("node registered", "node=%s url=%s", log_quote(id), log_quote(url));
		free(n->url);
		n->url = strdup(url);
		if (!n->url)
			abort();
		n->url_serial++;
		if (n->watch_client)
			rpc_client_cancel(n->watch_client);
		if (n->send_client)
			rpc_client_cancel(n->send_client);
	}
	/* One that we wait to try again is there now. */
	pthread_cond_signal(&n->wake_watch);
	pthread_cond_signal(&n->wake_send);
	r = start_threads(n, e);
	return r < 0 ? r : moved;
}

bool node_ready(const struct node *n)
{
	return n->reachable && n->status && n->says_ready;
}

void node_want_full(struct node *n)
{
	n->need_full = true;
	n->full_serial++;
	pthread_cond_signal(&n->wake_send);
}

static void touch_all(struct node *n)
{
	for (struct instance *i = n->instances.head; i; i = i->link[LIST_NODE].next) {
		if (i->seen.running)
			instance_touch(n->cc, i);
	}
}

void node_seen(struct node *n, const char *epoch)
{
	n->last_seen_ms = clock_mono_ms();
	n->last_seen_unix_ms = clock_unix_ms();
	n->last_error[0] = '\0';
	if (!n->reachable) {
		n->reachable = true;
		log_info("node answers", "node=%s", log_quote(n->id));
		touch_all(n);
		pthread_cond_signal(&n->wake_send);
	}
	if (epoch && !str_eq(n->epoch, epoch)) {
		/* Started anew (or new to us): it has to be told all. */
		snprintf(n->epoch, sizeof(n->epoch), "%s", epoch);
		n->revision = 0;
		node_want_full(n);
	}
}

void node_missed(struct node *n, const struct error *e)
{
	int64_t since = n->last_seen_ms ? n->last_seen_ms : n->created_ms;

	metrics_add(n->cc->metrics, CC_METRIC_NODE_ERRORS, 1);
	if (!n->last_error[0])
		log_warn("a message to a node failed", "node=%s err=%s", log_quote(n->id),
			 log_quote(e->message));
	snprintf(n->last_error, sizeof(n->last_error), "%.255s", e->message);
	if (!n->reachable || clock_mono_ms() - since < n->cc->config.times.silence_ms)
		return;
	n->reachable = false;
	n->unreachable_since_unix_ms = n->last_seen_unix_ms;
	log_warn("node is unreachable", "node=%s silent_ms=%lld instances=%zu", log_quote(n->id),
		 (long long)(clock_mono_ms() - since), n->instance_count);
	touch_all(n);
}

struct capacity node_used(const struct cc *c, const struct node *n)
{
	struct capacity used = n->used;

	/* Before the cloud controller has told all, the node itself knows better what it has. */
	for (int r = 0; r < RESOURCE_COUNT && !c->has_full; r++)
		used.of[r] = MAX_OF(used.of[r], n->reported_used.of[r]);
	return used;
}

void node_describe_trouble(const struct node *n, char *out, size_t size)
{
	char since[CLOCK_ISO_LEN] = "";

	if (!n->url)
		snprintf(out, size, "node %s has not registered", n->id);
	else if (!n->last_seen_ms)
		snprintf(out, size, "node %s has not answered yet%s%s", n->id,
			 n->last_error[0] ? ": " : "", n->last_error);
	else if (!n->reachable) {
		clock_format_iso(n->last_seen_unix_ms, since);
		snprintf(out, size, "node %s has not answered since %s%s%s", n->id, since,
			 n->last_error[0] ? ": " : "", n->last_error);
	} else if (!n->status)
		snprintf(out, size, "node %s has not told its capacity yet", n->id);
	else
		snprintf(out, size, "node %s takes no instances now", n->id);
}

void node_wait(struct node *n, pthread_cond_t *cond, int timeout_ms)
{
	struct timespec until;

	if (timeout_ms < 0) {
		pthread_cond_wait(cond, &n->cc->lock);
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (timeout_ms % 1000) * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	pthread_cond_timedwait(cond, &n->cc->lock, &until);
}

struct rpc_client *node_client(struct node *n, struct rpc_client **client, unsigned *serial)
{
	if (!n->url)
		return NULL;
	if (*client && *serial == n->url_serial)
		return *client;
	rpc_client_free(TAKE_PTR(*client));
	*serial = n->url_serial;
	if (rpc_client_new(n->cc->config.tls, TLS_ROLE_NC, n->url, client) < 0)
		return NULL;
	rpc_client_expect_id(*client, n->id);
	return *client;
}

void nodes_stop(struct cc *c)
{
	pthread_mutex_lock(&c->lock);
	assert(c->stopping);
	for (struct node *n = c->nodes; n; n = n->next) {
		if (n->watch_client)
			rpc_client_cancel(n->watch_client);
		if (n->send_client)
			rpc_client_cancel(n->send_client);
		pthread_cond_broadcast(&n->wake_watch);
		pthread_cond_broadcast(&n->wake_send);
	}
	pthread_mutex_unlock(&c->lock);
	/* No node comes or goes any more: the server of messages has stopped. */
	for (struct node *n; (n = c->nodes);) {
		c->nodes = n->next;
		if (n->threads_run) {
			pthread_join(n->watch_thread, NULL);
			pthread_join(n->send_thread, NULL);
		}
		rpc_client_free(n->watch_client);
		rpc_client_free(n->send_client);
		pthread_cond_destroy(&n->wake_watch);
		pthread_cond_destroy(&n->wake_send);
		free(n->url);
		free(n->status);
		free(n);
	}
}
