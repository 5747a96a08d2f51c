/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening is mending: what should be is computed from the configuration and the record, what is is
 * asked of the kernel, and only the difference is made. So the same steps serve the first start, a
 * restart of NC beside running guests, and net_check().
 *
 * Order of making: the record, then the host; rules, then links that they guard. Order of taking
 * away: the other way round.
 */
#include "net/net_priv.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"

#define NET_MAGIC 0x6d6e6574u

bool cloud_id_valid(const char *id)
{
	size_t n = id ? strlen(id) : 0;

	return n >= 1 && n <= CLOUD_ID_MAX &&
	       strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789") == n;
}

void bridge_name(const char *cloud_id, char out[static IFNAMSIZ])
{
	snprintf(out, IFNAMSIZ, "mlb%.*s", CLOUD_ID_MAX, cloud_id);
}

void rules_config_of(const struct net *n, struct rules_config *ret)
{
	*ret = (struct rules_config){
	    .cloud_id = n->record.cloud_id,
	    .bridge = n->record.bridge,
	    .subnet = n->subnet,
	    .gateway = n->gateway,
	    .metadata_port = n->metadata_port,
	    .api_ports = n->api_ports,
	    .api_port_count = n->api_port_count,
	};
}

void dhcp_config_of(const struct net *n, struct dhcp_config *ret)
{
	*ret = (struct dhcp_config){
	    .dir = n->dhcp_dir,
	    .bridge = n->record.bridge,
	    .subnet = n->subnet,
	    .gateway = n->gateway,
	    .mtu = 1500,
	    .domain = n->domain,
	};
}

/* --- the bridge --- */

/* What a bridge of ours has under /proc/sys/net; all of it goes with the bridge. In order: IPv6 off
 * before the link comes up. */
static const struct {
	const char *family, *key, *value;
} bridge_sysctls[] = {
    {"ipv6/conf", "disable_ipv6", "1"},
    {"ipv6/conf", "accept_ra", "0"},
    {"ipv4/conf", "rp_filter", "1"},
    {"ipv4/conf", "send_redirects", "0"},
    {"ipv4/conf", "accept_redirects", "0"},
    {"ipv4/conf", "accept_source_route", "0"},
    {"ipv4/conf", "forwarding", "1"},
    {"ipv4/conf", "arp_ignore",
     "1"}, /* the host's other addresses are none of the guests' business */
    {"ipv4/conf", "arp_announce", "2"}, /* ask as the gateway */
    {"ipv4/conf", "proxy_arp_pvlan", "1"},
    {"ipv4/neigh", "proxy_delay",
     "0"}, /* or the first packet between guests waits for up to 0.8 s */
};

/* The same address at every start: guests keep it in their ARP tables. Ours start 06, guests' 02.
 */
void bridge_mac(const char *cloud_id, uint8_t out[static 6])
{
	uint64_t h = 0xcbf29ce484222325;

	for (const char *s = cloud_id; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3;
	for (int i = 1; i < 6; i++)
		out[i] = h >> (8 * i);
	out[0] = 0x06;
}

static int make_bridge(struct net *n, const uint8_t mac[static 6], struct error *e)
{
	int err = nl_bridge_add(n->nl, n->record.bridge, mac);

	if (err == -EOPNOTSUPP)
		return error_set(e, "HostNetwork", "this kernel has no bridges (module bridge)");
	return err < 0 ? error_errno(e, err, "cannot make the bridge %s", n->record.bridge) : 0;
}

/* Ours by its alias; or just made by us, when we were killed before we gave it one. */
static int claim_bridge(struct net *n, const struct nl_link *l, const uint8_t mac[static 6],
			struct error *e)
{
	char alias[NL_ALIAS_MAX];
	int err = 0;

	snprintf(alias, sizeof(alias), "mallee %s", n->record.cloud_id);
	if (strcmp(l->kind, "bridge") ||
	    (strcmp(l->alias, alias) && (l->alias[0] || memcmp(l->mac, mac, 6))))
		return error_set(
		    e, "HostNetwork",
		    "there is an interface %s that Mallee did not make: remove it, or use another "
		    "cloud id",
		    n->record.bridge);
	if (!l->alias[0])
		err = nl_link_alias(n->nl, l->index, alias);
	return err < 0 ? error_errno(e, err, "cannot mark the bridge %s", l->name) : 0;
}

struct addr_wanted {
	int index;
	uint32_t ip;
	bool found;
};

static int look_for_addr(void *ctx, int index, uint32_t ip, unsigned prefix)
{
	struct addr_wanted *w = ctx;

	w->found |= index == w->index && ip == w->ip;
	return 0;
}

static int ensure_addr(struct net *n, int index, unsigned *changed, struct error *e)
{
	struct addr_wanted w = {.index = index, .ip = n->gateway};
	int err;

	err = nl_addr_each(n->nl, look_for_addr, &w);
	if (!err && !w.found) {
		++*changed;
		err = nl_addr_add(n->nl, index, n->gateway, n->subnet.prefix);
	}
	if (!err)
		err = nl_proxy_set(n->nl, index, METADATA_IP);
	return err < 0 ? error_errno(e, err, "cannot give %s its addresses", n->record.bridge) : 0;
}

int bridge_ensure(struct net *n, unsigned *changed, struct error *e)
{
	struct nl_link l;
	uint8_t mac[6];
	int err;

	bridge_mac(n->record.cloud_id, mac);
	err = nl_link_get(n->nl, n->record.bridge, &l);
	if (err == -ENODEV) {
		++*changed;
		err = make_bridge(n, mac, e);
		if (err < 0)
			return err;
		err = nl_link_get(n->nl, n->record.bridge, &l);
	}
	if (err < 0)
		return error_errno(e, err, "cannot read the state of %s", n->record.bridge);
	err = claim_bridge(n, &l, mac, e);
	if (err < 0)
		return err;
	for (size_t i = 0; i < ARRAY_SIZE(bridge_sysctls); i++) {
		err = sysctl_link(bridge_sysctls[i].family, l.name, bridge_sysctls[i].key,
				  bridge_sysctls[i].value);
		if (err < 0)
			return error_errno(e, err, "cannot set %s/%s/%s", bridge_sysctls[i].family,
					   l.name, bridge_sysctls[i].key);
		*changed += err;
	}
	if (!l.up) {
		++*changed;
		err = nl_link_up(n->nl, l.index, true);
		if (err < 0)
			return error_errno(e, err, "cannot bring %s up", l.name);
	}
	return ensure_addr(n, l.index, changed, e);
}

/* --- all of it --- */

static int ensure_rules(struct net *n, unsigned *changed, struct error *e)
{
	bool intact;
	int err = ruleset_intact(n, true, &intact, e);

	if (err < 0 || intact)
		return err;
	/* Without a fingerprint somebody's commit may have been about anything: made anew, but no
	 * news. */
	*changed += n->fingerprint != 0;
	return ruleset_apply(n, NULL, e);
}

struct links {
	struct nl_link *items;
	size_t count;
};

static int collect_tap(void *ctx, const struct nl_link *l)
{
	struct links *all = ctx;

	if (!str_prefix(l->name, "mlt"))
		return 0;
	all->items = reallocarray(all->items, all->count + 1, sizeof(*l));
	if (!all->items)
		abort();
	all->items[all->count++] = *l;
	return 0;
}

static const struct nl_link *find_link(const struct links *all, const char *name)
{
	for (size_t i = 0; i < all->count; i++) {
		if (str_eq(all->items[i].name, name))
			return &all->items[i];
	}
	return NULL;
}

/* One dump of all links, and only those that look wrong are looked at. Ports whose tap is gone (the
 * host was started anew) come back when their instance is started. */
static int ensure_ports(struct net *n, unsigned *changed, struct error *e)
{
	struct links taps = {0};
	struct nl_link bridge;
	int err;

	err = nl_link_get(n->nl, n->record.bridge, &bridge);
	if (!err)
		err = nl_link_each(n->nl, collect_tap, &taps);
	if (err < 0)
		error_errno(e, err, "cannot read the state of the taps");
	for (size_t i = 0; i < n->record.port_count && !err; i++) {
		const struct record_port *p = &n->record.ports[i];
		const struct nl_link *l = find_link(&taps, p->tap);

		if (l && !port_in_order(p, l, bridge.index))
			err = port_ensure(n, p, changed, e);
	}
	free(taps.items);
	return err;
}

static int ensure_others(struct net *n, unsigned *changed, struct error *e)
{
	uint32_t now = ruleset_generation();
	int err =
	    foreign_ensure(n->rules, !now || now != n->foreign_generation, &n->record, changed, e);

	if (!err)
		n->foreign_generation = now;
	return err;
}

static int ensure_all(struct net *n, unsigned *changed, struct error *e)
{
	struct dhcp_config c;
	int err;

	err = forwarding_on(&n->record, e);
	if (err < 0)
		return err;
	*changed += err;
	err = ensure_rules(n, changed, e);
	if (!err)
		err = bridge_ensure(n, changed, e);
	if (!err)
		err = ensure_ports(n, changed, e);
	if (!err)
		err = ensure_others(n, changed, e);
	if (err < 0)
		return err;
	dhcp_config_of(n, &c);
	err = dhcp_ensure(&c, n->record.ports, n->record.port_count, e);
	if (err < 0)
		return err;
	*changed += err;
	return 0;
}

int net_check(struct net *n, unsigned *ret_mended, struct error *e)
{
	unsigned changed = 0;
	int err;

	assert(n->magic == NET_MAGIC);
	pthread_mutex_lock(&n->lock);
	err = ensure_all(n, &changed, e);
	pthread_mutex_unlock(&n->lock);
	if (ret_mended)
		*ret_mended = changed;
	return err;
}

/* --- opening --- */

static int open_record(const struct net_config *c, struct record *r, struct error *e)
{
	int err = record_load(c->dir, r, e);

	if (err == -ENOENT) {
		err = record_new(c->dir, c->cloud_id, c->subnet, r, e);
		return err < 0 ? err : record_save(r, e);
	}
	if (err < 0)
		return err;
	if (!str_eq(r->cloud_id, c->cloud_id))
		return error_set(e, "HostNetwork", "%s belongs to the cloud '%s', not to '%s'",
				 r->path, r->cloud_id, c->cloud_id);
	if (!str_eq(r->subnet, c->subnet))
		return error_set(
		    e, "HostNetwork",
		    "the subnet was changed from %s to %s while the network exists: terminate the "
		    "instances and run make uninstall, then make up",
		    r->subnet, c->subnet);
	return 0;
}

static void domain_of(const char *region, char *out, size_t size)
{
	if (!region || !*region || str_eq(region, "us-east-1"))
		snprintf(out, size, "ec2.internal");
	else
		snprintf(out, size, "%s.compute.internal", region);
}

static int net_init(struct net *n, const struct net_config *c, struct error *e)
{
	unsigned changed = 0;
	int err;

	err = dir_make(c->dir, 0711);
	if (err < 0)
		return error_errno(e, err, "cannot make %s", c->dir);
	err = open_record(c, &n->record, e);
	if (err < 0)
		return err;
	if (cidr_parse(c->subnet, &n->subnet) < 0)
		return error_set(e, "InvalidSubnet", "'%s' is not an IPv4 subnet", c->subnet);
	n->gateway = n->subnet.addr + 1;
	ipv4_format(n->gateway, n->gateway_text);
	n->metadata_port = c->metadata_port;
	for (size_t i = 0; i < ARRAY_SIZE(c->api_ports) && c->api_ports[i]; i++)
		n->api_ports[n->api_port_count++] = c->api_ports[i];
	domain_of(c->region, n->domain, sizeof(n->domain));
	if (asprintf(&n->dhcp_dir, "%s/dnsmasq", c->dir) < 0)
		abort();
	err = nl_open(&n->nl);
	if (!err)
		err = rules_open(&n->rules);
	if (err < 0)
		return error_errno(e, err, "cannot speak to the kernel's network configuration");
	return ensure_all(n, &changed, e);
}

/* A route that came later (a VPN's) is no reason to leave the guests of a network that stands. */
static bool stands(const struct net_config *c)
{
	_cleanup_(nl_closep) struct nl *nl = NULL;
	char name[IFNAMSIZ], alias[NL_ALIAS_MAX];
	struct nl_link l;

	if (!cloud_id_valid(c->cloud_id))
		return false;
	bridge_name(c->cloud_id, name);
	snprintf(alias, sizeof(alias), "mallee %s", c->cloud_id);
	return nl_open(&nl) == 0 && nl_link_get(nl, name, &l) == 0 && str_eq(l.alias, alias);
}

int net_open(const struct net_config *c, struct net **ret, struct error *e)
{
	struct net *n;
	int err;

	if (!c->metadata_port)
		return error_set(e, "HostNetwork", "no port for the metadata service");
	err = stands(c) ? 0 : net_check_subnet(c->subnet, c->cloud_id, e);
	if (err < 0)
		return err;
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	n->magic = NET_MAGIC;
	pthread_mutex_init(&n->lock, NULL);
	err = net_init(n, c, e);
	if (err < 0) {
		net_close(n);
		return err;
	}
	*ret = n;
	return 0;
}

void net_close(struct net *n)
{
	if (!n)
		return;
	assert(n->magic == NET_MAGIC);
	nl_close(n->nl);
	rules_close(n->rules);
	record_done(&n->record);
	free(n->dhcp_dir);
	pthread_mutex_destroy(&n->lock);
	n->magic = 0;
	free(n);
}

const char *net_gateway(const struct net *n)
{
	return n->gateway_text;
}

const char *net_bridge(const struct net *n)
{
	return n->record.bridge;
}
