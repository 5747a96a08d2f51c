/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "svc/clc/peer.h"
#include "wire/rpc.h"

enum { IDLE_MAX = 8 };

struct peer {
	const struct tls_context *tls;
	enum tls_role role;
	const struct wire_service *service;
	char *url;
	peer_transport transport; /* NULL: the network */
	void *transport_ctx;
	pthread_mutex_t lock; /* never held over a call */
	struct rpc_client *idle[IDLE_MAX];
	size_t idle_count;
	bool reachable;
	struct error why;
};

static struct peer *make(void)
{
	struct peer *p = calloc(1, sizeof(*p));

	if (!p)
		abort();
	pthread_mutex_init(&p->lock, NULL);
	error_set(&p->why, "ServiceUnavailable", "it was not asked yet");
	return p;
}

struct peer *peer_new(const struct tls_context *tls, enum tls_role role,
		      const struct wire_service *service, const char *base_url)
{
	struct peer *p = make();

	p->tls = tls;
	p->role = role;
	p->service = service;
	p->url = strdup(base_url);
	if (!p->url)
		abort();
	return p;
}

struct peer *peer_new_with(peer_transport fn, void *ctx)
{
	struct peer *p = make();

	p->transport = fn;
	p->transport_ctx = ctx;
	return p;
}

void peer_free(struct peer *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->idle_count; i++)
		rpc_client_free(p->idle[i]);
	pthread_mutex_destroy(&p->lock);
	free(p->url);
	free(p);
}

static int client_take(struct peer *p, struct rpc_client **ret)
{
	struct rpc_client *client = NULL;

	pthread_mutex_lock(&p->lock);
	if (p->idle_count)
		client = p->idle[--p->idle_count];
	pthread_mutex_unlock(&p->lock);
	if (client) {
		*ret = client;
		return 0;
	}
	return rpc_client_new(p->tls, p->role, p->url, ret);
}

static void client_give(struct peer *p, struct rpc_client *client)
{
	pthread_mutex_lock(&p->lock);
	if (p->idle_count < IDLE_MAX) {
		p->idle[p->idle_count++] = client;
		client = NULL;
	}
	pthread_mutex_unlock(&p->lock);
	rpc_client_free(client);
}

static int over_network(struct peer *p, const char *action, const void *in, struct arena *a,
			void **ret_out, int timeout_ms, struct error *e)
{
	struct rpc_client *client;
	int r = client_take(p, &client);

	if (r < 0)
		return error_errno(e, r, "cannot make a connection to %s", p->url);
	r = rpc_call(client, p->service, action, in, a, ret_out, timeout_ms, e);
	client_give(p, client);
	return r;
}

static void note_health(struct peer *p, int result, const struct error *e)
{
	pthread_mutex_lock(&p->lock);
	/* An error of the peer's own shows that it is there; who is not trusted is not it. */
	p->reachable = result >= 0 || (!str_eq(e->code, "ServiceUnavailable") &&
				       !str_eq(e->code, "PeerNotTrusted"));
	if (!p->reachable)
		p->why = *e;
	pthread_mutex_unlock(&p->lock);
}

int peer_call(struct peer *p, const char *action, const void *in, struct arena *a,
		 void *ret_out, int timeout_ms, struct error *e)
{
	struct error why = {0};
	void *out = NULL;
	int r;

	if (p->transport)
		r = p->transport(p->transport_ctx, action, in, a, &out, timeout_ms, &why);
	else
		r = over_network(p, action, in, a, &out, timeout_ms, &why);
	note_health(p, r, &why);
	if (r < 0) {
		error_set(e, why.code, "%s", why.message);
		return r;
	}
	if (ret_out)
		memcpy(ret_out, &out, sizeof(out));
	return 0;
}

bool peer_reachable(struct peer *p, struct error *ret_why)
{
	pthread_mutex_lock(&p->lock);
	bool ok = p->reachable;
	if (!ok && ret_why)
		*ret_why = p->why;
	pthread_mutex_unlock(&p->lock);
	return ok;
}
