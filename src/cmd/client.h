/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_CLIENT_H
#define MALLEE_CMD_CLIENT_H

#include "base/arena.h"
#include "base/error.h"
#include "base/settings.h"
#include "gen/admin.h"
#include "gen/cluster.h"
#include "gen/ec2.h"
#include "gen/node.h"
#include "gen/objects.h"
#include "gen/shared.h"
#include "gen/storage.h"
#include "wire/shape.h"

/* mallee as a client: of the services' messages, with the operator's certificate, and of the EC2
 * and S3 APIs, with an account's keys. Not thread-safe. */
struct client;

/* -EACCES and what to do when the operator's key may not be read. */
int client_new(const struct settings *s, struct client **ret, struct error *e);
void client_free(struct client *c);
DEFINE_CLEANUP(struct client *, client_free, client_freep)

enum client_peer { PEER_CLC, PEER_CC, PEER_NC, PEER_WALRUS, PEER_SC };
/* One message. *ret_out lives in a; NULL when the action has no output. timeout_ms 0: 10 s. */
int client_rpc(struct client *c, enum client_peer peer, const struct wire_service *service,
	       const char *action, const void *in, struct arena *a, void **ret_out, int timeout_ms,
	       struct error *e);

/* Sign what follows with this account's keys. */
int client_use_account(struct client *c, const char *name, struct error *e);
int client_ec2(struct client *c, const char *action, const void *in, struct arena *a,
	       void **ret_out, struct error *e);

/* S3 request with an XML or empty body; the reply's body into *ret_reply (may be NULL). path starts
 * "/bucket" and may carry a query string; it is percent-encoded already. An S3 error comes back in
 * *e with its code. */
int client_s3(struct client *c, const char *method, const char *path, const void *body,
	      size_t body_len, struct buf *ret_reply, struct error *e);

#endif
