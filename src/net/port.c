/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* --- the tap --- */

/* The host's end of the cable must have another address than the guest's. */
static void tap_mac(const char *guest, uint8_t out[static 6])
{
	if (mac_parse(guest, out) < 0)
		abort(); /* validated when it was recorded */
	out[0] = 0xfe;
}

bool port_in_order(const struct record_port *p, const struct nl_link *l, int bridge)
{
	return l->master == bridge && l->isolated && !l->learning && l->up && l->alias[0] &&
	       l->owner == p->uid && l->group == p->gid;
}

static int attach(struct net *n, const struct record_port *p, const struct nl_link *tap,
		  unsigned *changed)
{
	struct nl_link bridge;
	uint8_t mac[6];
	int err;

	err = nl_link_get(n->nl, n->record.bridge, &bridge);
	if (err < 0)
		return err;
	if (port_in_order(p, tap, bridge.index))
		return 0;
	++*changed;
	tap_mac(p->mac, mac);
	/* A link that is up under libvirt's or our hands keeps its address. */
	if (!tap->up)
		err = nl_link_mac(n->nl, tap->index, mac);
	if (!err && tap->master != bridge.index)
		err = nl_link_master(n->nl, tap->index, bridge.index);
	if (!err)
		err = nl_port_isolate(n->nl, tap->index);
	if (!err && mac_parse(p->mac, mac) == 0)
		err = nl_fdb_set(n->nl, tap->index, mac);
	return err || tap->up ? err : nl_link_up(n->nl, tap->index, true);
}

int port_ensure(struct net *n, const struct record_port *p, unsigned *changed, struct error *e)
{
	char alias[NL_ALIAS_MAX];
	struct nl_link l;
	int err;

	err = tap_make(n->nl, p->tap, p->uid, p->gid);
	if (!err)
		err = nl_link_get(n->nl, p->tap, &l);
	if (err < 0)
		return error_errno(e, err, "cannot make the tap %s of %s", p->tap, p->instance_id);
	snprintf(alias, sizeof(alias), "mallee %s %s", n->record.cloud_id, p->instance_id);
	if (l.alias[0] && strcmp(l.alias, alias))
		return error_set(e, "HostNetwork", "the tap %s is not %s's but \"%s\"", p->tap,
				 p->instance_id, l.alias);
	if (!l.alias[0])
		err = nl_link_alias(n->nl, l.index, alias);
	if (!err)
		err = sysctl_link("ipv6/conf", p->tap, "disable_ipv6", "1");
	if (err >= 0)
		err = attach(n, p, &l, changed);
	return err < 0
		   ? error_errno(e, err, "cannot put the tap %s on %s", p->tap, n->record.bridge)
		   : 0;
}

/* --- adding --- */

static bool name_valid(const char *s, const char *also, size_t max)
{
	size_t len = s ? strlen(s) : 0;

	for (size_t i = 0; i < len; i++) {
		if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= '0' && s[i] <= '9') &&
		    !strchr(also, s[i]))
			return false;
	}
	return len > 0 && len < max;
}

static int refuse(struct error *e, const struct net_port *p, const char *what, const char *value)
{
	return error_set(e, "InvalidPort", "the port of instance %s: %s '%s'",
			 p->instance_id ? p->instance_id : "", what, value ? value : "");
}

static int validate(const struct net *n, const struct net_port *p, struct record_port *ret,
		    struct error *e)
{
	struct record_port r = {.uid = p->uid, .gid = p->gid};
	const char *account = p->account ? p->account : "";
	uint8_t mac[6];
	uint32_t ip;

	if (!name_valid(p->instance_id, "-", sizeof(r.instance_id)))
		return refuse(e, p, "malformed instance id", p->instance_id);
	if (mac_parse(p->mac, mac) < 0 || mac[0] & 1)
		return refuse(e, p, "malformed or multicast MAC address", p->mac);
	if (ipv4_parse(p->ip, &ip) < 0 || !cidr_has(n->subnet, ip) || ip == n->gateway ||
	    ip == n->subnet.addr || ip == (n->subnet.addr | ~cidr_mask(n->subnet)))
		return refuse(e, p, "not a guest's address in the subnet", p->ip);
	if (!name_valid(p->hostname, "-", sizeof(r.hostname)))
		return refuse(e, p, "malformed host name", p->hostname);
	if (*account && !name_valid(account, "-_", sizeof(r.account)))
		return refuse(e, p, "malformed account", account);
	strcpy(r.instance_id, p->instance_id);
	mac_format(mac, r.mac);
	ipv4_format(ip, r.ip);
	strcpy(r.hostname, p->hostname);
	strcpy(r.account, account);
	for (size_t i = 0; i < n->record.port_count; i++) {
		const struct record_port *o = &n->record.ports[i];

		if (str_eq(o->instance_id, r.instance_id))
			continue;
		if (str_eq(o->ip, r.ip) || str_eq(o->mac, r.mac))
			return error_set(
			    e, "InvalidPort",
			    "the port of instance %s: its address or MAC is that of %s",
			    p->instance_id, o->instance_id);
	}
	*ret = r;
	return 0;
}

static bool tap_taken(const struct record *r, const char *tap)
{
	for (size_t i = 0; i < r->port_count; i++) {
		if (str_eq(r->ports[i].tap, tap))
			return true;
	}
	return false;
}

/* mlt, four characters of the cloud's id, the last eight of the instance's; its last digit moves on
 * when two share them. */
static int name_tap(const struct record *r, struct record_port *p)
{
	size_t len = strlen(p->instance_id);
	size_t last;

	snprintf(p->tap, sizeof(p->tap), "mlt%.4s%s", r->cloud_id,
		 p->instance_id + (len > 8 ? len - 8 : 0));
	last = strlen(p->tap) - 1;
	for (const char *c = "0123456789abcdefghijklmnopqrstuvwxyz"; tap_taken(r, p->tap); c++) {
		if (!*c)
			return -EEXIST;
		p->tap[last] = *c;
	}
	return 0;
}

/* The number of the account in the rules: that of its other ports, or the smallest that is free. */
static uint32_t choose_group(const struct record *r, const char *account)
{
	uint32_t group = 1;

	for (size_t i = 0; i < r->port_count && *account; i++) {
		if (str_eq(r->ports[i].account, account))
			return r->ports[i].group;
	}
	for (size_t i = 0; i < r->port_count; i++) {
		if (r->ports[i].group == group) {
			group++;
			i = -1;
		}
	}
	return group;
}

static bool same_port(const struct record_port *a, const struct record_port *b)
{
	return str_eq(a->mac, b->mac) && str_eq(a->ip, b->ip) && str_eq(a->hostname, b->hostname) &&
	       str_eq(a->account, b->account) && a->uid == b->uid && a->gid == b->gid;
}

/* A batch of one port counts on the rest being as it was. */
static int change_rules(struct net *n, const struct record_port *p, bool added, bool intact,
			struct error *e)
{
	struct buf batch = BUF_INIT;
	int err;

	rules_print_port(n->record.cloud_id, p, added, &batch);
	err = ruleset_apply(n, intact ? batch.data : NULL, e);
	buf_done(&batch);
	return err;
}

static int update_dhcp(struct net *n, struct error *e)
{
	struct dhcp_config c;

	dhcp_config_of(n, &c);
	return dhcp_update(&c, n->record.ports, n->record.port_count, e);
}

static int remove_port(struct net *n, const char *instance_id, struct error *e);

static int add_port(struct net *n, const struct net_port *p, char *ret_tap, struct error *e)
{
	struct record_port wanted, *have;
	unsigned changed = 0;
	bool intact;
	int err;

	err = validate(n, p, &wanted, e);
	if (!err)
		err = ruleset_intact(n, false, &intact, e);
	if (err < 0)
		return err;
	have = record_find_port(&n->record, p->instance_id);
	if (have && !same_port(have, &wanted)) {
		err = remove_port(n, p->instance_id, e);
		if (!err)
			err = ruleset_intact(n, false, &intact, e);
		if (err < 0)
			return err;
		have = NULL;
	}
	if (!have) {
		err = name_tap(&n->record, &wanted);
		if (err < 0)
			return error_errno(e, err, "no name for the tap of %s", wanted.instance_id);
		wanted.group = choose_group(&n->record, wanted.account);
		have = record_add_port(&n->record, &wanted);
		err = record_save(&n->record, e);
		if (!err)
			err = change_rules(n, have, true, intact, e);
		/* The next try must find it neither recorded nor guarded. */
		if (err < 0)
			record_remove_port(&n->record, have);
	} else if (!intact) {
		err = ruleset_apply(n, NULL, e);
	}
	if (!err)
		err = port_ensure(n, have, &changed, e);
	if (!err)
		err = update_dhcp(n, e);
	if (!err)
		strcpy(ret_tap, have->tap);
	return err;
}

int net_port_add(struct net *n, const struct net_port *p, char *ret_tap, struct error *e)
{
	int err;

	pthread_mutex_lock(&n->lock);
	err = add_port(n, p, ret_tap, e);
	pthread_mutex_unlock(&n->lock);
	return err;
}

/* --- removing --- */

static int remove_tap(struct net *n, const struct record_port *p, struct error *e)
{
	struct nl_link l;
	int err = nl_link_get(n->nl, p->tap, &l);

	if (!err)
		err = nl_link_del(n->nl, l.index);
	return err < 0 && err != -ENODEV ? error_errno(e, err, "cannot remove the tap %s", p->tap)
					 : 0;
}

static int remove_port(struct net *n, const char *instance_id, struct error *e)
{
	struct record_port *p = record_find_port(&n->record, instance_id), gone;
	struct dhcp_config c;
	bool intact;
	int err;

	if (!p)
		return 0;
	err = remove_tap(n, p, e);
	if (!err)
		err = ruleset_intact(n, false, &intact, e);
	if (err < 0)
		return err;
	gone = *p;
	record_remove_port(&n->record, p);
	err = change_rules(n, &gone, false, intact, e);
	dhcp_config_of(n, &c);
	dhcp_release(&c, &gone);
	if (!err)
		err = update_dhcp(n, e);
	if (!err)
		return record_save(&n->record, e);
	record_add_port(&n->record, &gone);
	ruleset_doubt(n); /* they may lack it: should it be added again, all are made anew */
	return err;
}

int net_port_remove(struct net *n, const char *instance_id, struct error *e)
{
	int err;

	pthread_mutex_lock(&n->lock);
	err = remove_port(n, instance_id, e);
	pthread_mutex_unlock(&n->lock);
	return err;
}

static bool listed(const char *const *ids, size_t count, const char *id)
{
	for (size_t i = 0; i < count; i++) {
		if (str_eq(ids[i], id))
			return true;
	}
	return false;
}

int net_port_prune(struct net *n, const char *const *instance_ids, size_t count, struct error *e)
{
	int err = 0;

	pthread_mutex_lock(&n->lock);
	for (size_t i = n->record.port_count; i-- > 0 && !err;) {
		char id[32];

		strcpy(id, n->record.ports[i].instance_id);
		if (!listed(instance_ids, count, id))
			err = remove_port(n, id, e);
	}
	pthread_mutex_unlock(&n->lock);
	return err;
}
