/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_METADATA_H
#define MALLEE_SVC_NC_METADATA_H

#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

struct shared_instance_spec; /* gen/shared.h */

/*
 * The instance metadata service (IMDSv1 and v2) of one node: plain HTTP on the guests' gateway. A guest is told by the source
 * address of its connection alone, which net's anti-spoofing makes trustworthy; so no guest can see another's.
 * What each instance may do is its specification's MetadataOptions, looked up anew for every request: a change needs no call here.
 */
struct metadata;

struct metadata_config {
	const char *address; /* net_gateway(); bound with IP_FREEBIND. NULL: 127.0.0.1 (fake driver, tests) */
	uint16_t port;       /* settings_port(s, PORT_METADATA); 0: any, see metadata_port() */
	const char *dir;     /* the node's state folder; the key of the session tokens is kept there, so that a restart of NC
			      * doesn't invalidate them; a reboot does */
	const char *root_device; /* NULL: "/dev/vda" */

	/*
	 * The specification of the instance that has this address (network byte order), allocated in a: it must stay valid as
	 * long as a, whatever happens to the node's own tables meanwhile. 0, or -ENOENT when no instance here has it (also for
	 * stopped and terminated ones). Called on the server's threads, several at once; must not block for long.
	 */
	int (*lookup)(void *ctx, uint32_t ipv4_be, struct arena *a, const struct shared_instance_spec **ret);
	void *ctx;
};

/* The strings of c are copied. A taken port is -EADDRINUSE, its holder named in *e. */
int metadata_start(const struct metadata_config *c, struct metadata **ret, struct error *e);
void metadata_stop(struct metadata *m); /* NULL is fine; waits for requests under way */
uint16_t metadata_port(const struct metadata *m);

#endif
