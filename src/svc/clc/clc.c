/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "gen/cluster.h"
#include "gen/storage.h"
#include "model/ipv4.h"
#include "os/file.h"
#include "svc/clc/accounts.h"
#include "svc/clc/api.h"
#include "svc/clc/clc.h"
#include "svc/clc/peer.h"
#include "svc/clc/inventory.h"
#include "svc/clc/notice.h"
#include "svc/clc/reconcile.h"
#include "wire/http_server.h"
#include "wire/ops.h"
#include "wire/rpc.h"

#define CLC_MAGIC 0x4d434c43u
#define LOOPBACK "127.0.0.1"

enum { STOP_GRACE_MS = 2000 };

static int read_network(struct clc *c, struct error *e)
{
	const char *cidr = settings_get(c->settings, SETTING_SUBNET);
	struct ipv4_subnet s;

	if (!*cidr)
		return 0;
	if (ipv4_subnet_parse(cidr, &s) < 0)
		return error_set(e, "InvalidSetting",
				 "MALLEE_SUBNET is '%s': it must be an IPv4 network such as "
				 "10.1.0.0/16, with a prefix of 8 to 29",
				 cidr);
	c->network = (struct clc_network){.set = true,
					  .network = s.network,
					  .gateway = ipv4_subnet_gateway(&s),
					  .prefix = s.prefix};
	snprintf(c->network.cidr, sizeof(c->network.cidr), "%s", cidr);
	ipv4_format(c->network.gateway, c->network.gateway_ip);
	return 0;
}

static int open_state(struct clc *c, struct error *e)
{
	_cleanup_(freep) char *folder = settings_path(c->settings, "clc");
	_cleanup_(freep) char *path = settings_path(c->settings, "clc/clc.db");
	int r = dir_make(folder, 0700);

	if (r < 0)
		return error_errno(e, r, "cannot make %s", folder);
	r = state_open(path, &c->state, e);
	if (r >= 0)
		r = account_ensure_default(c, e);
	return r < 0 ? r : account_follow_settings(c, e);
}

static struct peer *open_peer(struct clc *c, enum tls_role role, const struct wire_service *service,
			      enum port port)
{
	char url[64];

	snprintf(url, sizeof(url), "https://" LOOPBACK ":%u", settings_port(c->settings, port));
	return peer_new(c->tls, role, service, url);
}

static int open_peers(struct clc *c, struct error *e)
{
	_cleanup_(freep) char *certs = settings_path(c->settings, "certs");
	int r = tls_context_load(certs, TLS_ROLE_CLC, &c->tls, e);

	if (r < 0)
		return r;
	c->cluster = open_peer(c, TLS_ROLE_CC, &cluster_service, PORT_CC);
	c->storage = open_peer(c, TLS_ROLE_SC, &storage_service, PORT_SC);
	return 0;
}

/* Its own health: that the cluster controller is away is that one's, and `mallee status` tells it.
 */
static int health(void *ctx, struct error *e)
{
	struct clc *c = ctx;
	int64_t count;

	return state_count(c->state, clc_kinds[KIND_ACCOUNT].kind, NULL, &count, e);
}

static void print_metrics(void *ctx, struct buf *out)
{
	static const char name[] = "mallee_clc_instances";
	struct clc *c = ctx;

	metrics_print(c->metrics, out);
	buf_printf(out, "# HELP %s Instances by state\n# TYPE %s gauge\n", name, name);
	for (int s = 0; s < INSTANCE_STATE_COUNT; s++)
		buf_printf(out, "%s{state=\"%s\"} %zu\n", name,
			   instance_state_name((enum instance_state)s),
			   inventory_count(c->inventory, (enum instance_state)s));
	buf_printf(out,
		   "# HELP mallee_clc_addresses_free Guest addresses not taken\n"
		   "# TYPE mallee_clc_addresses_free gauge\nmallee_clc_addresses_free %zu\n",
		   inventory_free_addresses(c->inventory));
}

/* Guests reach the API on their gateway's address, which appears when the node makes its bridge. */
static bool serves_guests(const struct clc *c)
{
	const char *listen = settings_get(c->settings, SETTING_LISTEN);

	return c->network.set && !str_eq(settings_get(c->settings, SETTING_HYPERVISOR), "fake") &&
	       !str_eq(listen, "0.0.0.0") && !str_eq(listen, c->network.gateway_ip);
}

static int listen_all(struct clc *c, struct error *e)
{
	const struct rpc_binding bindings[] = {admin_binding(c), identity_binding(c)};
	const struct ops_config ops = {.port = settings_port(c->settings, PORT_OPS_CLC),
				       .health = health,
				       .metrics = print_metrics,
				       .ctx = c};
	int r = rpc_server_start(bindings, ARRAY_SIZE(bindings), LOOPBACK,
				 settings_port(c->settings, PORT_CLC), c->tls, &c->rpc, e);

	if (r >= 0)
		r = api_start(c, settings_get(c->settings, SETTING_LISTEN), false, &c->api, e);
	if (r >= 0 && serves_guests(c))
		r = api_start(c, c->network.gateway_ip, true, &c->api_gateway, e);
	/* last: whoever finds it healthy finds its API, too */
	if (r >= 0)
		r = ops_server_start(&ops, &c->ops, e);
	return r;
}

int clc_start(const struct settings *s, struct clc **ret, struct error *e)
{
	struct clc *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		abort();
	c->magic = CLC_MAGIC;
	c->settings = s;
	c->region = settings_get(s, SETTING_REGION);
	c->zone = settings_get(s, SETTING_ZONE);
	c->start_time_ms = clock_unix_ms();
	c->metrics = metrics_new(clc_metrics, METRIC_COUNT);
	r = read_network(c, e);
	if (r >= 0)
		r = open_state(c, e);
	if (r >= 0)
		r = open_peers(c, e);
	if (r >= 0)
		r = inventory_load(c, &c->inventory, e);
	/* Its threads wake the image worker, which wakes it. */
	c->reconciler = reconciler_new(c);
	c->storage_notice = notice_new();
	if (r >= 0)
		r = image_worker_start(c, &c->image_worker, e);
	if (r >= 0)
		r = reconciler_start(c->reconciler, e);
	if (r >= 0)
		r = listen_all(c, e);
	if (r < 0) {
		clc_stop(c);
		return r;
	}
	log_info("serving", "region=%s zone=%s subnet=%s", c->region, c->zone,
		 c->network.set ? c->network.cidr : "-");
	*ret = c;
	return 0;
}

static void stop_server(struct http_server *s)
{
	if (s)
		http_server_stop(s, STOP_GRACE_MS);
}

void clc_stop(struct clc *c)
{
	if (!c)
		return;
	assert(c->magic == CLC_MAGIC);
	notice_close(c->storage_notice);
	stop_server(c->api_gateway);
	stop_server(c->api);
	stop_server(c->ops);
	if (c->rpc)
		rpc_server_stop(c->rpc);
	reconciler_stop(c->reconciler);
	image_worker_stop(c->image_worker);
	reconciler_free(c->reconciler);
	notice_free(c->storage_notice);
	peer_free(c->cluster);
	peer_free(c->storage);
	inventory_free(c->inventory);
	if (c->state)
		state_close(c->state);
	tls_context_free(c->tls);
	metrics_free(c->metrics);
	c->magic = 0;
	free(c);
}
