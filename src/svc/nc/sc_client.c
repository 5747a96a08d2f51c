/* SPDX-License-Identifier: Apache-2.0 */
/* Messages to the storage controller, from whatever thread: as many connections as there are threads. */
#include <stdio.h>

#include "svc/nc/nc_priv.h"

#define CALL_MS 10000

static struct nc_sc_client *take(struct nc *nc)
{
	struct nc_sc_client *c = NULL;
	char url[64];

	snprintf(url, sizeof(url), "https://127.0.0.1:%u", settings_port(nc->settings, PORT_SC));
	pthread_mutex_lock(&nc->lock);
	for (size_t i = 0; !c && i < ARRAY_SIZE(nc->sc); i++)
		if (!nc->sc[i].used && !nc->stopping)
			c = &nc->sc[i];
	if (c && !c->client && rpc_client_new(nc->tls, TLS_ROLE_SC, url, &c->client) < 0)
		c = NULL;
	if (c)
		c->used = true;
	pthread_mutex_unlock(&nc->lock);
	return c;
}

int nc_sc_call(struct nc *nc, const char *action, const void *in, struct arena *a, void **ret_out, struct error *e)
{
	struct nc_sc_client *c = take(nc);
	int r;

	if (!c)
		return error_set(e, "ServiceUnavailable", "the node is stopping");
	r = rpc_call(c->client, &storage_service, action, in, a, ret_out, CALL_MS, e);
	pthread_mutex_lock(&nc->lock);
	c->used = false;
	pthread_mutex_unlock(&nc->lock);
	return r;
}
