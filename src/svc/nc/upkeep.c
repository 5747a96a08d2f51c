/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three threads, one loop each: the housekeeper mends and bounds what lies about, the reacher asks
 * guests for their address, the registrar tells the cluster controller that the node is there.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "gen/cluster.h"
#include "svc/nc/nc_priv.h"

#define HOUSE_MS 10000
#define PING_TIMEOUT_MS 300
#define PING_NEW_MS 2000
#define PING_OK_MS 30000
#define PING_AGAIN_MS 5000 /* after a miss */
#define PING_MISSES 3
#define REGISTER_MS 10000
#define REGISTER_RETRY_MS 2000

struct id_list { /* a copy of what is in the table, to work on without the lock */
	size_t count, room;
	char (*ids)[ID_LEN];
};

static void list_add(struct id_list *l, const char *id)
{
	if (l->count == l->room) {
		l->room = l->room ? 2 * l->room : 64;
		l->ids = reallocarray(l->ids, l->room, sizeof(*l->ids));
		if (!l->ids)
			abort();
	}
	strcpy(l->ids[l->count++], id);
}

/* --- housekeeper --- */

static void list_with_console(struct nc *nc, struct nc_instance *inst, void *ctx)
{
	if (inst->rec.state != NC_TERMINATED && inst->rec.boot_id[0])
		list_add(ctx, inst->id);
}

static void bound_consoles(struct nc *nc)
{
	struct id_list list = {0};
	char path[4096];

	pthread_mutex_lock(&nc->lock);
	nc_each(nc, list_with_console, &list);
	pthread_mutex_unlock(&nc->lock);
	for (size_t i = 0; i < list.count && !nc->stopping; i++) {
		nc_instance_path(nc, list.ids[i], "console.log", path, sizeof(path));
		nc_console_bound(path);
	}
	free(list.ids);
}

/* Keep the newest outcome of something that is tried again and again; log when it changes between
 * good and bad. */
static void note(struct nc *nc, struct error *kept, const struct error *now, const char *what)
{
	bool was_bad, is_bad = error_is_set(now);

	pthread_mutex_lock(&nc->lock);
	was_bad = error_is_set(kept);
	*kept = *now;
	pthread_mutex_unlock(&nc->lock);
	if (is_bad && !was_bad)
		log_warn("trouble", "with=%s err=%s", log_quote(what), log_quote(now->message));
	else if (!is_bad && was_bad)
		log_info("well again", "what=%s", log_quote(what));
}

/* The hypervisor answers; and machines of ours that no specification names are told of, not
 * touched. */
static void check_hypervisor(struct nc *nc, bool first)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	size_t count = 0, prefix = strlen("mallee-") + strlen(nc->cloud_id) + 1;
	struct hyper_status *list;
	struct error e = {0};

	nc->ops->list(nc->hyper, a, &list, &count, &e);
	note(nc, &nc->hyper_error, &e, "the hypervisor");
	for (size_t i = 0; first && !error_is_set(&e) && i < count; i++) {
		bool known;

		pthread_mutex_lock(&nc->lock);
		known = strlen(list[i].name) > prefix && nc_find(nc, list[i].name + prefix);
		pthread_mutex_unlock(&nc->lock);
		if (!known)
			log_warn("a machine of this cloud that nobody asked for: left alone",
				 "domain=%s", list[i].name);
	}
}

static void check_net(struct nc *nc)
{
	struct error e = {0};
	unsigned int mended = 0;

	if (!nc->net)
		return;
	net_check(nc->net, &mended, &e);
	note(nc, &nc->net_error, &e, "the guests' network");
	if (mended > 0) {
		metrics_add(nc->metrics, NC_M_MENDED, mended);
		log_warn("the guests' network was changed by somebody: mended", "things=%u",
			 mended);
	}
}

/* A process of a volume that is down when one looks, and again at the next look. */
static void check_volumes(struct nc *nc, char down[static ID_LEN])
{
	size_t max = nc->keeper ? keeper_list(nc->keeper, NULL, 0) + 16 : 0, n;
	struct keeper_status *list = calloc(max + 1, sizeof(*list));
	char now[ID_LEN] = "";
	struct error e = {0};

	if (!list)
		abort();
	n = nc->keeper ? MIN_OF(keeper_list(nc->keeper, list, max), max) : 0;
	for (size_t i = 0; i < n; i++) {
		if (list[i].pid)
			continue;
		if (str_eq(down, list[i].id))
			error_set(&e, "ServiceUnavailable", "volume %s is not served: log/volumes/%s.log says why",
				  list[i].id, list[i].id);
		if (!now[0] || str_eq(down, list[i].id))
			snprintf(now, sizeof(now), "%.31s", list[i].id);
	}
	free(list);
	strcpy(down, now);
	note(nc, &nc->volume_error, &e, "a volume");
}

void *nc_housekeeper(void *ctx)
{
	struct nc *nc = ctx;
	char down[ID_LEN] = "";
	bool first = true;

	do {
		check_hypervisor(nc, first);
		check_volumes(nc, down);
		if (!first)
			check_net(nc); /* net_open() has just done so */
		bound_consoles(nc);
		metrics_set(nc->metrics, NC_M_CACHE_BYTES, image_cache_size(nc->cache));
		first = false;
	} while (nc_sleep(nc, HOUSE_MS));
	return NULL;
}

/* --- reacher --- */

static void list_due(struct nc *nc, struct nc_instance *inst, void *ctx)
{
	if (inst->rec.state == NC_RUNNING && inst->port && inst->reach != NC_REACH_NONE &&
	    inst->ping_due_mono_ms <= clock_mono_ms())
		list_add(ctx, inst->id);
}

static void note_ping(struct nc *nc, struct nc_instance *inst, bool answered)
{
	int64_t next = PING_OK_MS;

	if (answered) {
		nc_set_reach(nc, inst, NC_REACH_OK);
		inst->misses = 0;
	} else if (inst->reach == NC_REACH_INITIALIZING) {
		next = PING_NEW_MS; /* it boots; how long that takes is not ours to judge */
	} else {
		next = PING_AGAIN_MS;
		if (++inst->misses >= PING_MISSES)
			nc_set_reach(nc, inst, NC_REACH_IMPAIRED);
	}
	inst->ping_due_mono_ms = clock_mono_ms() + next;
}

static void ping_due_ones(struct nc *nc)
{
	struct id_list list = {0};

	pthread_mutex_lock(&nc->lock);
	nc_each(nc, list_due, &list);
	pthread_mutex_unlock(&nc->lock);
	for (size_t i = 0; i < list.count && !nc->stopping; i++) {
		int r = net_port_ping(nc->net, list.ids[i], PING_TIMEOUT_MS, NULL);
		struct nc_instance *inst;

		pthread_mutex_lock(&nc->lock);
		inst = nc_find(nc, list.ids[i]);
		if (inst && inst->rec.state == NC_RUNNING && inst->reach != NC_REACH_NONE)
			note_ping(nc, inst, r == 0);
		pthread_mutex_unlock(&nc->lock);
	}
	free(list.ids);
}

void *nc_reacher(void *ctx)
{
	struct nc *nc = ctx;

	while (nc->net && nc_sleep(nc, 500))
		ping_due_ones(nc);
	return NULL;
}

/* --- registrar --- */

static void register_once(struct nc *nc, struct rpc_client *cc, const char *url, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct cluster_register_node_request request = {.node_id = nc->node_id, .url = url};
	void *out;

	rpc_call(cc, &cluster_service, "RegisterNode", &request, a, &out, 5000, e);
}

void *nc_registrar(void *ctx)
{
	struct nc *nc = ctx;
	char cc_url[64], own_url[64];
	struct rpc_client *cc;
	bool good;

	snprintf(cc_url, sizeof(cc_url), "https://127.0.0.1:%u",
		 settings_port(nc->settings, PORT_CC));
	snprintf(own_url, sizeof(own_url), "https://127.0.0.1:%u",
		 settings_port(nc->settings, PORT_NC));
	if (rpc_client_new(nc->tls, TLS_ROLE_CC, cc_url, &cc) < 0)
		return NULL;
	pthread_mutex_lock(&nc->lock);
	nc->cc = cc;
	pthread_mutex_unlock(&nc->lock);
	do {
		struct error e = {0};

		register_once(nc, cc, own_url, &e);
		good = !error_is_set(&e);
		if (!nc->stopping)
			note(nc, &nc->register_error, &e, "the cluster controller");
		pthread_mutex_lock(&nc->lock);
		nc->registered = good;
		pthread_mutex_unlock(&nc->lock);
	} while (nc_sleep(nc, good ? REGISTER_MS : REGISTER_RETRY_MS));
	pthread_mutex_lock(&nc->lock);
	nc->cc = NULL;
	pthread_mutex_unlock(&nc->lock);
	rpc_client_free(cc);
	return NULL;
}
