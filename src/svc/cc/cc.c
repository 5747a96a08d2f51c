/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/cc/cc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "svc/cc/cc_priv.h"
#include "svc/cc/handlers_priv.h"
#include "wire/ops.h"

#define CC_MAGIC 0x43434343u
#define CC_ADDRESS "127.0.0.1"

const struct metric_desc cc_metric_descs[CC_METRIC_COUNT] = {
    [CC_METRIC_NODES] = {"mallee_cc_nodes", "Nodes known.", METRIC_GAUGE},
    [CC_METRIC_NODES_READY] = {"mallee_cc_nodes_ready", "Nodes that take instances.", METRIC_GAUGE},
    [CC_METRIC_INSTANCES] = {"mallee_cc_instances",
			     "Instances known, ended ones that are not forgotten included.",
			     METRIC_GAUGE},
    [CC_METRIC_RESERVATIONS] = {"mallee_cc_reservations", "Room reserved for instances to come.",
				METRIC_GAUGE},
    [CC_METRIC_PLACED] = {"mallee_cc_placed_total", "Instances that were given a node.",
			  METRIC_COUNTER},
    [CC_METRIC_REFUSED] = {"mallee_cc_refused_total", "Requests for room that were refused.",
			   METRIC_COUNTER},
    [CC_METRIC_APPLIED] = {"mallee_cc_specs_taken_total",
			   "Specifications taken from the cloud controller.", METRIC_COUNTER},
    [CC_METRIC_SENT] = {"mallee_cc_specs_sent_total", "Specifications that nodes acknowledged.",
			METRIC_COUNTER},
    [CC_METRIC_REPORTED] = {"mallee_cc_reports_total", "Reports of instances taken from nodes.",
			    METRIC_COUNTER},
    [CC_METRIC_NODE_ERRORS] = {"mallee_cc_node_errors_total", "Messages to nodes that failed.",
			       METRIC_COUNTER},
    [CC_METRIC_FORGOTTEN] = {"mallee_cc_forgotten_total",
			     "Ended instances that their node has released.", METRIC_COUNTER},
};

struct cc_times cc_default_times(void)
{
	return (struct cc_times){
	    .silence_ms = 30000,
	    .reservation_ms = 60000,
	    .forget_ms = 10 * 60000,
	    .poll_ms = 10000,
	    .status_ms = 10000,
	    .backoff_min_ms = 250,
	    .backoff_max_ms = 3000,
	};
}

/* --- the operator's listener --- */

static int health(void *ctx, struct error *e)
{
	struct cc *c = ctx;
	char why[512] = "no node has registered";
	bool ready = false;

	pthread_mutex_lock(&c->lock);
	for (struct node *n = c->nodes; n && !ready; n = n->next) {
		ready = node_ready(n);
		if (!ready)
			node_describe_trouble(n, why, sizeof(why));
	}
	pthread_mutex_unlock(&c->lock);
	return ready ? 0 : error_set(e, "NoNodeReady", "no node is ready: %s", why);
}

static void print_metrics(void *ctx, struct buf *out)
{
	struct cc *c = ctx;
	int64_t ready = 0;

	pthread_mutex_lock(&c->lock);
	table_expire(c, clock_mono_ms());
	for (struct node *n = c->nodes; n; n = n->next)
		ready += node_ready(n);
	metrics_set(c->metrics, CC_METRIC_NODES, (int64_t)c->node_count);
	metrics_set(c->metrics, CC_METRIC_NODES_READY, ready);
	metrics_set(c->metrics, CC_METRIC_INSTANCES, (int64_t)c->instance_count);
	metrics_set(c->metrics, CC_METRIC_RESERVATIONS, (int64_t)c->reservations.count);
	pthread_mutex_unlock(&c->lock);
	metrics_print(c->metrics, out);
}

/* --- start and stop --- */

static struct cc *cc_new(const struct cc_config *config)
{
	struct cc *c = calloc(1, sizeof(*c));
	pthread_condattr_t attr;

	if (!c)
		abort();
	c->magic = CC_MAGIC;
	c->config = *config;
	if (config->nodes_path) {
		c->own_nodes_path = strdup(config->nodes_path);
		if (!c->own_nodes_path)
			abort();
		c->config.nodes_path = c->own_nodes_path;
	}
	random_token(c->epoch, 20);
	c->metrics = metrics_new(cc_metric_descs, CC_METRIC_COUNT);
	c->by_revision.kind = LIST_REVISION;
	c->reservations.kind = LIST_RESERVED;
	c->lone_forgets.kind = LIST_FORGET;
	pthread_mutex_init(&c->save_lock, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &attr);
	pthread_condattr_destroy(&attr);
	return c;
}

int cc_start_with(const struct cc_config *config, struct cc **ret, struct error *e)
{
	struct cc *c = cc_new(config);
	struct ops_config ops = {
	    .port = config->ops_port, .health = health, .metrics = print_metrics, .ctx = c};
	struct rpc_binding binding = cluster_binding(c);
	int r;

	node_file_load(c); /* before any node can register, which writes the file */
	r = rpc_server_start(&binding, 1, CC_ADDRESS, config->port, config->tls, &c->rpc, e);
	if (r >= 0)
		r = ops_server_start(&ops, &c->ops, e);
	if (r < 0) {
		cc_stop(c);
		return r;
	}
	*ret = c;
	return 0;
}

int cc_start(const struct settings *s, struct cc **ret, struct error *e)
{
	char *certs = settings_path(s, "certs"), *nodes = settings_path(s, "cc/nodes");
	struct tls_context *tls = NULL;
	struct cc_config config = {
	    .port = settings_port(s, PORT_CC),
	    .ops_port = settings_port(s, PORT_OPS_CC),
	    .nodes_path = nodes,
	    .times = cc_default_times(),
	};
	int r = tls_context_load(certs, TLS_ROLE_CC, &tls, e);

	free(certs);
	config.tls = tls;
	if (r >= 0)
		r = cc_start_with(&config, ret, e);
	free(nodes);
	if (r < 0) {
		tls_context_free(tls);
		return r;
	}
	(*ret)->own_tls = tls;
	log_info("listening", "address=" CC_ADDRESS " port=%u ops_port=%u epoch=%s", cc_port(*ret),
		 cc_ops_port(*ret), (*ret)->epoch);
	return 0;
}

void cc_stop(struct cc *c)
{
	if (!c)
		return;
	assert(c->magic == CC_MAGIC);
	pthread_mutex_lock(&c->lock);
	c->stopping = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	rpc_server_stop(c->rpc);
	http_server_stop(c->ops, 1000);
	nodes_stop(c);
	table_free(c);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->save_lock);
	free(c->own_nodes_path);
	metrics_free(c->metrics);
	tls_context_free(c->own_tls);
	c->magic = 0;
	free(c);
}

uint16_t cc_port(const struct cc *c)
{
	return rpc_server_port(c->rpc);
}

uint16_t cc_ops_port(const struct cc *c)
{
	return http_server_port(c->ops);
}
