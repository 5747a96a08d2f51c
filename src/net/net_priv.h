/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_NET_NET_PRIV_H
#define MALLEE_NET_NET_PRIV_H

#include <net/if.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/macros.h"
#include "model/ipv4.h"
#include "net/net.h"
#include "net/nl_priv.h"

/* --- cidr.c: addresses as numbers in host byte order --- */

#define CIDR_TEXT 20
#define MAC_TEXT 18

struct cidr {
	uint32_t addr;
	unsigned prefix;
};

int cidr_parse(const char *s, struct cidr *ret); /* -EINVAL; also when host bits are set */
void cidr_format(struct cidr c, char out[static CIDR_TEXT]);
uint32_t cidr_mask(struct cidr c);
bool cidr_overlap(struct cidr a, struct cidr b);
bool cidr_has(struct cidr c, uint32_t ip);
int mac_parse(const char *s, uint8_t ret[static 6]);
void mac_format(const uint8_t mac[static 6], char out[static MAC_TEXT]);

/* --- record.c: what we made and changed on this host, in <dir>/host.json --- */

#define CLOUD_ID_MAX 12
#define METADATA_IP 0xa9fea9feu /* 169.254.169.254 */

struct record_port {
	char instance_id[32];
	char tap[IFNAMSIZ];
	char mac[MAC_TEXT];
	char ip[IPV4_LEN];
	char hostname[64];
	char account[64]; /* "": none */
	uint32_t group;	  /* the account's number in the rules; never 0; one of its own for a port
			     without account */
	uid_t uid;
	gid_t gid;
};

/* A value under /proc/sys/net that belongs to the host. */
struct record_sysctl {
	char name[96]; /* "ipv4/ip_forward" */
	char before[32];
	char set[32];
};

/* A rule that we put into somebody else's chain, with the program that manages it. */
struct record_rule {
	char command[32]; /* "iptables" */
	char chain[32];	  /* "FORWARD" */
	char spec[256];	  /* words, separated by single blanks: "-i mlb1 -j ACCEPT" */
};

struct record {
	char *path;
	char cloud_id[CLOUD_ID_MAX + 1];
	char bridge[IFNAMSIZ];
	char subnet[CIDR_TEXT];
	struct record_sysctl *sysctls;
	size_t sysctl_count;
	struct record_rule *rules;
	size_t rule_count;
	struct record_port *ports;
	size_t port_count;
};

/* -ENOENT when there is none; anything that we did not write is refused with a message. */
int record_load(const char *dir, struct record *ret, struct error *e);
int record_new(const char *dir, const char *cloud_id, const char *subnet, struct record *ret,
	       struct error *e);
int record_save(const struct record *r, struct error *e); /* durable when it returns */
int record_delete(struct record *r, struct error *e);
void record_done(struct record *r);
struct record_port *record_find_port(const struct record *r, const char *instance_id); /* NULL */
/* Appends copies; the arrays may move. */
struct record_port *record_add_port(struct record *r, const struct record_port *p);
void record_remove_port(struct record *r, struct record_port *p);
void record_add_sysctl(struct record *r, const struct record_sysctl *s);
void record_add_rule(struct record *r, const struct record_rule *rule);

/* --- sysctl.c: /proc/sys/net of this network namespace --- */

int sysctl_get(const char *name, char *ret, size_t size);
int sysctl_put(const char *name, const char *value);
/* Set a value of a link of ours (it goes with the link, so it is not recorded):
 * "ipv4/conf/%s/rp_filter". 1: it had to be changed. */
int sysctl_link(const char *family, const char *link, const char *key, const char *value);
/* Turn IPv4 forwarding on, recording first all that this changes on the host. 1: it was off, 0: it
 * was on. */
int forwarding_on(struct record *r, struct error *e);
/* Put recorded values back, where they still are what we set. */
int sysctl_restore(const struct record *r, struct error *e);

/* --- tap.c --- */

/* Make a persistent tap with virtio headers, or find it; its owner is uid:gid afterwards. -EBUSY
 * when its owner is another and it is in use. */
int tap_make(struct nl *nl, const char *name, uid_t uid, gid_t gid);

/* --- rules.c: the tables inet mallee_<id> and bridge mallee_<id> --- */

struct rules;

#define GUEST_CONNECTIONS_MAX 128 /* of one guest to the services of its gateway, at a time */

struct rules_config {
	const char *cloud_id;
	const char *bridge;
	struct cidr subnet;
	uint32_t gateway;
	uint16_t metadata_port;
	const uint16_t *api_ports;
	size_t api_port_count;
};

int rules_open(struct rules **ret);
void rules_close(struct rules *r);
/* The whole of both tables as text, replacing what there is, in one transaction. */
void rules_print(const struct rules_config *c, const struct record_port *ports, size_t count,
		 struct buf *out);
void rules_print_port(const char *cloud_id, const struct record_port *p, bool add, struct buf *out);
/* Run a batch: all of it or nothing. */
int rules_apply(struct rules *r, const char *batch, struct error *e);
/* Output of a command ("-j" form with json). The caller's buffer. -ENOENT when the object is
 * missing, and any other refusal -EREMOTEIO. */
int rules_list(struct rules *r, const char *command, bool json, struct buf *out, struct error *e);
/* A number for what the two tables hold now, whatever the order of set elements; 0 when a table is
 * missing. */
int rules_fingerprint(struct rules *r, const char *cloud_id, uint64_t *ret, struct error *e);
void rules_print_delete(const char *cloud_id, struct buf *out); /* fine when they are missing */

/* --- ruleset.c: the rules of one struct net --- */

/* The number of the last commit to nftables in this network namespace, whoever's. 0: it can't be
 * told. */
uint32_t ruleset_generation(void);
/* Whether they are as we left them. thorough: also take the fingerprint by which later calls may
 * know, if it is not taken yet. */
int ruleset_intact(struct net *n, bool thorough, bool *ret, struct error *e);
/* They are no longer known to be what the record says. */
void ruleset_doubt(struct net *n);
/* Run a batch, or when it is NULL or refused, make everything anew from the record. */
int ruleset_apply(struct net *n, const char *batch, struct error *e);

/* --- dhcp.c: dnsmasq --- */

struct dhcp_config {
	const char *dir; /* <dir of net>/dnsmasq */
	const char *bridge;
	struct cidr subnet;
	uint32_t gateway;
	uint32_t mtu;
	const char *domain;
};

/* Start dnsmasq, or leave the running one alone when it is ours and of this configuration. 1: it
 * had to be started. */
int dhcp_ensure(const struct dhcp_config *c, const struct record_port *ports, size_t count,
		struct error *e);
/* Write the hosts again and make dnsmasq read them. */
int dhcp_update(const struct dhcp_config *c, const struct record_port *ports, size_t count,
		struct error *e);
/* Give the lease back on behalf of a guest that is gone, so that its address can be another's at
 * once. Best effort. */
void dhcp_release(const struct dhcp_config *c, const struct record_port *p);
/* Stop it, if it runs and is ours; files stay. */
int dhcp_stop(const char *dir, struct error *e);
/* The pid of our dnsmasq, 0 when it doesn't run. */
pid_t dhcp_pid(const char *dir);

/* --- foreign.c: other firewalls of this host --- */

/* For iptables chains that would drop guests' traffic: put the narrowest accepting rules first,
 * recorded before. Counts what was missing into *changed. look_at_nft: whether nftables may have
 * changed since the last call. */
int foreign_ensure(struct rules *rules, bool look_at_nft, struct record *r, unsigned *changed,
		   struct error *e);
int foreign_remove(const struct record *r, struct error *e);
/* Findings about chains that we do not touch. */
int foreign_diagnose(struct rules *rules, const char *bridge, struct arena *a,
		     struct net_finding **ret, size_t *ret_count, struct error *e);

/* --- subnet.c --- */

/* The same as the public ones with Docker's configuration file named (tests). */
int subnet_choose(const char *docker_json, char *ret_cidr, size_t size, struct error *e);
int subnet_check(const char *docker_json, const char *cidr, const char *bridge, struct error *e);

/* --- net.c --- */

struct net {
	uint32_t magic;
	pthread_mutex_t lock; /* held over netlink, nftables and dnsmasq's files, never while
				 waiting for a guest */
	struct nl *nl;
	struct rules *rules;
	struct record record;
	struct cidr subnet;
	uint32_t gateway;
	char gateway_text[IPV4_LEN];
	char *dhcp_dir;
	char domain[96];
	uint16_t metadata_port;
	uint16_t api_ports[4];
	size_t api_port_count;
	uint32_t foreign_generation; /* of nftables when other firewalls were looked at */
	uint32_t generation;	     /* of nftables after our last commit; 0: not known */
	uint64_t fingerprint;	     /* of the rules as we left them; 0: not taken yet */
};

bool cloud_id_valid(const char *id);
void bridge_name(const char *cloud_id, char out[static IFNAMSIZ]);
void bridge_mac(const char *cloud_id, uint8_t out[static 6]);
/* Make or mend the bridge; *changed counts. */
int bridge_ensure(struct net *n, unsigned *changed, struct error *e);
/* Whether this link is the port's tap as it should be. */
bool port_in_order(const struct record_port *p, const struct nl_link *l, int bridge);
/* Make or mend one port's tap; *changed counts. */
int port_ensure(struct net *n, const struct record_port *p, unsigned *changed, struct error *e);
void rules_config_of(const struct net *n, struct rules_config *ret);
void dhcp_config_of(const struct net *n, struct dhcp_config *ret);

#endif
