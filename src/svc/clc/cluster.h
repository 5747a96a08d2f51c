/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_CLUSTER_H
#define MALLEE_SVC_CLC_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "tls/tls.h"

/*
 * The way to the cluster controller: a pool of connections, since a connection serves one thread at
 * a time, and what the last message told about the controller's health. Any thread may call.
 */
struct cluster;

/* One exchange; as rpc_call(). */
typedef int (*cluster_transport)(void *ctx, const char *action, const void *in, struct arena *a,
				 void **ret_out, int timeout_ms, struct error *e);

int cluster_new(const struct tls_context *tls, const char *base_url, struct cluster **ret);
/* Over another transport: the tests' cluster controller in the same process. */
struct cluster *cluster_new_with(cluster_transport fn, void *ctx);
void cluster_free(struct cluster *c); /* NULL is fine; no call may be under way */

/* *ret_out (may be NULL) lives in a. The peer's own errors come with their code; an unreachable
 * peer is "ServiceUnavailable". */
int cluster_call(struct cluster *c, const char *action, const void *in, struct arena *a,
		 void *ret_out, int timeout_ms, struct error *e);
/* Whether the last exchange reached the controller; the reason it did not, otherwise. */
bool cluster_reachable(struct cluster *c, struct error *ret_why);

#endif
