/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_PEER_H
#define MALLEE_SVC_CLC_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "tls/tls.h"
#include "wire/shape.h"

/*
 * The way to another controller, the cluster's or the storage's: a pool of connections, since a
 * connection serves one thread at a time, and what the last message told about its health. Any
 * thread may call.
 */
struct peer;

/* One exchange; as rpc_call(). */
typedef int (*peer_transport)(void *ctx, const char *action, const void *in, struct arena *a,
				 void **ret_out, int timeout_ms, struct error *e);

/* All that is given must live as long as the peer, but for base_url. */
struct peer *peer_new(const struct tls_context *tls, enum tls_role role,
		      const struct wire_service *service, const char *base_url);
/* Over another transport: the tests' controllers in the same process. */
struct peer *peer_new_with(peer_transport fn, void *ctx);
void peer_free(struct peer *p); /* NULL is fine; no call may be under way */

/* *ret_out (may be NULL) lives in a. The peer's own errors come with their code; an unreachable
 * peer is "ServiceUnavailable". */
int peer_call(struct peer *p, const char *action, const void *in, struct arena *a,
		 void *ret_out, int timeout_ms, struct error *e);
/* Whether the last exchange reached it; the reason it did not, otherwise. */
bool peer_reachable(struct peer *p, struct error *ret_why);

#endif
