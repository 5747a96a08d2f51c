/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"

#define ROOM 12

struct list {
	struct arena *a;
	struct net_finding items[ROOM];
	size_t count;
};

static void add(struct list *l, bool fatal, const char *text, const char *remedy)
{
	if (l->count < ROOM)
		l->items[l->count++] = (struct net_finding){fatal, text, remedy};
}

static void look_at_programs(struct list *l)
{
	static const char *const places[] = {"/usr/sbin/dnsmasq", "/usr/bin/dnsmasq",
					     "/usr/local/sbin/dnsmasq"};
	bool found = false;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		found |= !access(places[i], X_OK);
	if (!found)
		add(l, true, "dnsmasq is not installed: guests get no address",
		    "apt-get install dnsmasq-base");
	if (access("/dev/net/tun", F_OK) < 0)
		add(l, true, "/dev/net/tun is missing: guests get no network interface",
		    "modprobe tun, or give this container the device");
}

/* A name server that has every address of the host has the gateway's, too. */
static void look_at_dns(struct list *l)
{
	_cleanup_(freep) char *udp = NULL;
	size_t len;

	if (file_read("/proc/net/udp", 16 << 20, &udp, &len) < 0)
		return;
	if (strstr(udp, " 00000000:0035 "))
		add(l, true,
		    "a name server of this host listens on all addresses (0.0.0.0:53), so that dnsmasq can't on the bridge",
		    "let it listen on its own addresses only (BIND: listen-on; dnsmasq: bind-dynamic)");
}

static void look_at_config(struct list *l, const struct net_config *c)
{
	struct error why = {0};
	struct record r = {0};
	int err;

	if (net_check_subnet(c->subnet, c->cloud_id, &why) < 0)
		add(l, true, arena_strdup(l->a, why.message), "set MALLEE_SUBNET");
	error_clear(&why);
	err = record_load(c->dir, &r, &why);
	if (err < 0 && err != -ENOENT)
		add(l, true, arena_strdup(l->a, why.message), "see the message");
	record_done(&r);
}

static int look_at_firewalls(struct list *l, const struct net_config *c, struct net_finding **ret,
			     size_t *ret_count, struct error *e)
{
	char bridge[IFNAMSIZ];
	struct rules *rules;
	int err;

	bridge_name(c->cloud_id, bridge);
	err = rules_open(&rules);
	if (err < 0)
		return error_errno(e, err, "cannot speak to nftables");
	err = foreign_diagnose(rules, bridge, l->a, ret, ret_count, e);
	rules_close(rules);
	return err;
}

int net_diagnose(const struct net_config *c, struct arena *a, struct net_finding **ret,
		 size_t *ret_count, struct error *e)
{
	struct list l = {.a = a};
	struct net_finding *firewalls = NULL, *all;
	struct error why = {0};
	size_t count = 0;

	if (!cloud_id_valid(c->cloud_id))
		return error_set(e, "HostNetwork",
				 "the cloud's id '%s' is not 1 to %d characters of a-z and 0-9",
				 c->cloud_id ? c->cloud_id : "", CLOUD_ID_MAX);
	look_at_programs(&l);
	look_at_dns(&l);
	look_at_config(&l, c);
	if (look_at_firewalls(&l, c, &firewalls, &count, &why) < 0)
		add(&l, false,
		    arena_printf(a, "the firewall rules could not be read: %s", why.message),
		    "run this as root");
	all = arena_new_array(a, struct net_finding, l.count + count);
	memcpy(all, l.items, l.count * sizeof(*all));
	if (count)
		memcpy(all + l.count, firewalls, count * sizeof(*all));
	*ret = all;
	*ret_count = l.count + count;
	return 0;
}
