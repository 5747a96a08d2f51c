/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_WIRE_OPS_H
#define MALLEE_WIRE_OPS_H

#include "base/metrics.h"
#include "wire/http_server.h"

/* The operator's listener that every daemon has: plain HTTP on loopback, GET /healthz (200 "ok", or 503 and what is wrong) and
 * GET /metrics (Prometheus text). */
struct ops_config {
	uint16_t port;
	/* Fill e with what is wrong and return negative, or return 0. Called on the server's thread. */
	int (*health)(void *ctx, struct error *e);
	/* Append metrics of the service's own; may be NULL. */
	void (*metrics)(void *ctx, struct buf *out);
	void *ctx;
};
int ops_server_start(const struct ops_config *c, struct http_server **ret, struct error *e);

#endif
