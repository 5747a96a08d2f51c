/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "gen/cluster.h"
#include "svc/clc/cluster.h"
#include "wire/rpc.h"

enum { IDLE_MAX = 8 };

struct cluster {
	const struct tls_context *tls;
	char *url;
	cluster_transport transport; /* NULL: the network */
	void *transport_ctx;
	pthread_mutex_t lock; /* never held over a call */
	struct rpc_client *idle[IDLE_MAX];
	size_t idle_count;
	bool reachable;
	struct error why;
};

static struct cluster *make(void)
{
	struct cluster *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	pthread_mutex_init(&c->lock, NULL);
	error_set(&c->why, "ServiceUnavailable", "it was not asked yet");
	return c;
}

int cluster_new(const struct tls_context *tls, const char *base_url, struct cluster **ret)
{
	struct cluster *c = make();

	c->tls = tls;
	c->url = strdup(base_url);
	if (!c->url)
		abort();
	*ret = c;
	return 0;
}

struct cluster *cluster_new_with(cluster_transport fn, void *ctx)
{
	struct cluster *c = make();

	c->transport = fn;
	c->transport_ctx = ctx;
	return c;
}

void cluster_free(struct cluster *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->idle_count; i++)
		rpc_client_free(c->idle[i]);
	pthread_mutex_destroy(&c->lock);
	free(c->url);
	free(c);
}

static int client_take(struct cluster *c, struct rpc_client **ret)
{
	struct rpc_client *client = NULL;

	pthread_mutex_lock(&c->lock);
	if (c->idle_count)
		client = c->idle[--c->idle_count];
	pthread_mutex_unlock(&c->lock);
	if (client) {
		*ret = client;
		return 0;
	}
	return rpc_client_new(c->tls, TLS_ROLE_CC, c->url, ret);
}

static void client_give(struct cluster *c, struct rpc_client *client)
{
	pthread_mutex_lock(&c->lock);
	if (c->idle_count < IDLE_MAX) {
		c->idle[c->idle_count++] = client;
		client = NULL;
	}
	pthread_mutex_unlock(&c->lock);
	rpc_client_free(client);
}

static int over_network(struct cluster *c, const char *action, const void *in, struct arena *a,
			void **ret_out, int timeout_ms, struct error *e)
{
	struct rpc_client *client;
	int r = client_take(c, &client);

	if (r < 0)
		return error_errno(e, r, "cannot make a connection to %s", c->url);
	r = rpc_call(client, &cluster_service, action, in, a, ret_out, timeout_ms, e);
	client_give(c, client);
	return r;
}

static void note_health(struct cluster *c, int result, const struct error *e)
{
	pthread_mutex_lock(&c->lock);
	/* An error of the controller's own shows that it is there; who is not trusted is not it. */
	c->reachable = result >= 0 || (!str_eq(e->code, "ServiceUnavailable") &&
				       !str_eq(e->code, "PeerNotTrusted"));
	if (!c->reachable)
		c->why = *e;
	pthread_mutex_unlock(&c->lock);
}

int cluster_call(struct cluster *c, const char *action, const void *in, struct arena *a,
		 void *ret_out, int timeout_ms, struct error *e)
{
	struct error why = {0};
	void *out = NULL;
	int r;

	if (c->transport)
		r = c->transport(c->transport_ctx, action, in, a, &out, timeout_ms, &why);
	else
		r = over_network(c, action, in, a, &out, timeout_ms, &why);
	note_health(c, r, &why);
	if (r < 0) {
		error_set(e, why.code, "%s", why.message);
		return r;
	}
	if (ret_out)
		memcpy(ret_out, &out, sizeof(out));
	return 0;
}

bool cluster_reachable(struct cluster *c, struct error *ret_why)
{
	pthread_mutex_lock(&c->lock);
	bool ok = c->reachable;
	if (!ok && ret_why)
		*ret_why = c->why;
	pthread_mutex_unlock(&c->lock);
	return ok;
}
