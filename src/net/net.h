/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_NET_NET_H
#define MALLEE_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/error.h"

/*
 * The guests' network on one host: a bridge of this cloud's own with the gateway address, a tap a guest, an nftables table, dnsmasq.
 * All names carry the cloud id; everything made and every sysctl changed is recorded in <dir>/host.json before it is done, so that
 * net_uninstall() gives the host back. Nothing else on the host is touched; no physical NIC is enslaved.
 *
 *   bridge  mlb<id>    tap  mlt<first 4 of id><8 hex of the instance id>    tables  inet mallee_<id>, bridge mallee_<id>
 *   (ids have 1 to 12 characters of [a-z0-9]; each link's alias says "mallee <id>", a tap's its instance besides)
 *
 * Stateless per tap in the bridge family: only the guest's own MAC, IPv4, ARP and DHCP-client traffic leaves it. Ports are isolated,
 * the bridge answers ARP for neighbours (proxy_arp_pvlan), so guest-to-guest traffic is routed through the inet table. Traffic to
 * 169.254.169.254:80 is redirected on ingress to the metadata port on the gateway; that address is never put on the host.
 */
struct net; /* may be used from several threads */

struct net_config {
	const char *cloud_id;
	const char *dir;         /* <state>/nc/net */
	const char *subnet;      /* CIDR */
	const char *region;      /* for the DNS domain */
	uint16_t metadata_port;  /* on the gateway */
	uint16_t api_ports[4];   /* what guests may reach on the gateway besides; 0 ends */
};

/* Choose a free subnet: the first candidate that overlaps no route, address or Docker pool of this host. */
int net_choose_subnet(char *ret_cidr, size_t size, struct error *e);
/* Refuses a malformed CIDR, one smaller than /28 or larger than /16, or one that overlaps what the host has (but for bridge of ours). */
int net_check_subnet(const char *cidr, const char *cloud_id, struct error *e);

/* Adopts what is there, makes what is missing, mends what was changed. Idempotent; needs CAP_NET_ADMIN. */
int net_open(const struct net_config *c, struct net **ret, struct error *e);
void net_close(struct net *n); /* leaves the host's network as it is: guests go on */
/* Mend what somebody or something took away since (rules, bridge settings, sysctls, a dead dnsmasq); call it every 10 s or so.
 * *ret_mended (may be NULL): how many things were wrong. Costs a few netlink round trips when all is well. */
int net_check(struct net *n, unsigned *ret_mended, struct error *e);
const char *net_gateway(const struct net *n);
const char *net_bridge(const struct net *n);

struct net_port {
	const char *instance_id;
	const char *mac;
	const char *ip;
	const char *hostname; /* "ip-10-0-0-5" */
	uid_t uid;            /* the tap's owner */
	gid_t gid;
	const char *account;  /* guests of one account reach each other; NULL: this one reaches no other guest */
};
/* Make (or mend) the guest's tap, its rules, its DHCP and DNS entries. ret_tap: IFNAMSIZ bytes. Idempotent. */
int net_port_add(struct net *n, const struct net_port *p, char *ret_tap, struct error *e);
int net_port_remove(struct net *n, const char *instance_id, struct error *e); /* missing is success */
/* Remove ports that are not in this list (after a restart). */
int net_port_prune(struct net *n, const char *const *instance_ids, size_t count, struct error *e);

/* Ask for the guest's address by ARP on its own port and wait up to timeout_ms: 0 when it answers from its own MAC, -ETIMEDOUT. */
int net_port_ping(struct net *n, const char *instance_id, int timeout_ms, struct error *e);

/* Take everything away that the record names and restore what was changed; idempotent. Uses the record only, no struct net. */
int net_uninstall(const char *dir, struct error *e);

/* What stands in the way on this host (Docker's FORWARD policy, ufw, firewalld, rp_filter, …): one line each, with what to do. */
struct net_finding { bool fatal; const char *text; const char *remedy; };
int net_diagnose(const struct net_config *c, struct arena *a, struct net_finding **ret, size_t *ret_count, struct error *e);

#endif
