/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_NET_NL_PRIV_H
#define MALLEE_NET_NL_PRIV_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/macros.h"

/*
 * rtnetlink: the little of it that we need. Every call is one request and waits for the kernel's
 * answer; all return 0 or a negative errno, the kernel's own. Not thread-safe: the owner locks. It
 * speaks to the network namespace that the thread was in when it was opened.
 */
struct nl;

int nl_open(struct nl **ret);
void nl_close(struct nl *nl); /* NULL is fine */
DEFINE_CLEANUP(struct nl *, nl_close, nl_closep)

#define NL_ALIAS_MAX 128

struct nl_link {
	int index;
	char name[IFNAMSIZ];
	char kind[16]; /* "bridge", "tun", "" for physical ones */
	char alias[NL_ALIAS_MAX];
	uint8_t mac[6];
	uint32_t mtu;
	bool up;
	int master;    /* ifindex; 0: none */
	bool isolated; /* bridge port flags */
	bool learning;
	uint32_t owner; /* of a tun: UINT32_MAX when it has none */
	uint32_t group;
};

int nl_link_get(struct nl *nl, const char *name, struct nl_link *ret); /* -ENODEV */
/* fn is called for every link; a non-zero return ends the walk and is returned. */
int nl_link_each(struct nl *nl, int (*fn)(void *ctx, const struct nl_link *l), void *ctx);

/* A bridge without STP, forward delay and multicast snooping; down. (The kernel takes no alias
 * here.) */
int nl_bridge_add(struct nl *nl, const char *name, const uint8_t mac[static 6]);
int nl_link_del(struct nl *nl, int index);
int nl_link_up(struct nl *nl, int index, bool up);
int nl_link_mac(struct nl *nl, int index, const uint8_t mac[static 6]);
int nl_link_alias(struct nl *nl, int index, const char *alias);
int nl_link_master(struct nl *nl, int index, int master); /* 0: none */
/* A port that reaches only the bridge itself: isolated, learns nothing, unknown unicast is not
 * flooded to it. */
int nl_port_isolate(struct nl *nl, int index);
/* Permanent forwarding entry of the bridge: this MAC lives behind this port. */
int nl_fdb_set(struct nl *nl, int port_index, const uint8_t mac[static 6]);

int nl_addr_add(struct nl *nl, int index, uint32_t ip,
		unsigned prefix); /* IPv4, host byte order; -EEXIST */
int nl_addr_each(struct nl *nl, int (*fn)(void *ctx, int index, uint32_t ip, unsigned prefix),
		 void *ctx);
/* Every IPv4 route of every table but those to 0.0.0.0/0. */
int nl_route_each(struct nl *nl, int (*fn)(void *ctx, int index, uint32_t dst, unsigned prefix),
		  void *ctx);
/* The link answers ARP for ip though it isn't the host's address. Idempotent. */
int nl_proxy_set(struct nl *nl, int index, uint32_t ip);

#endif
