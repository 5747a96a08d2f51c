/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_WIRE_RPC_H
#define MALLEE_WIRE_RPC_H

#include "base/arena.h"
#include "base/error.h"
#include "wire/http_client.h"
#include "wire/http_server.h"
#include "wire/shape.h"

/*
 * Our own services' messages: POST /<service>/<Action>, a JSON object in, a JSON object out, over mutual TLS. An error is
 * {"Code": …, "Message": …} with the code's HTTP status. Services, actions, shapes and the roles that may call each action are
 * described in api/internal/NAME.json and generated.
 */

/* One generated entry: calls the service's typed handler. Returns 0, or negative with *e set. */
struct rpc_handler {
	const char *action;
	int (*fn)(void *ctx, struct arena *a, const struct tls_identity *peer, const void *in, void *out, struct error *e);
};

struct rpc_binding {
	const struct wire_service *service;
	const struct rpc_handler *handlers; /* one per action, sorted as service->actions */
	void *ctx;
};

/* Each connection has a thread of its own, so a handler may wait (long polls) without holding others up. port 0: any. */
struct rpc_server;
int rpc_server_start(const struct rpc_binding *bindings, size_t count, const char *address, uint16_t port,
		     const struct tls_context *tls, struct rpc_server **ret, struct error *e);
/* Waits for calls under way: wake your long polls first. */
void rpc_server_stop(struct rpc_server *s);
uint16_t rpc_server_port(const struct rpc_server *s);

/* A connection to one service: base URL and expected role. Not thread-safe: one per thread. */
struct rpc_client;
int rpc_client_new(const struct tls_context *tls, enum tls_role peer_role, const char *base_url, struct rpc_client **ret);
void rpc_client_free(struct rpc_client *c);
/* The peer's certificate must also carry this id (a node's name). */
void rpc_client_expect_id(struct rpc_client *c, const char *peer_id);
/* From any thread: the call under way and later ones end at once, with code "Cancelled". */
void rpc_client_cancel(struct rpc_client *c);
/* *ret_out lives in a. The peer's own error comes back in *e with its code; an unreachable peer is code "ServiceUnavailable". */
int rpc_call(struct rpc_client *c, const struct wire_service *s, const char *action, const void *in, struct arena *a,
	     void **ret_out, int timeout_ms, struct error *e);

#endif
