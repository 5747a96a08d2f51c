/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net_priv.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/id.h"
#include "base/text.h"
#include "os/file.h"

#define DOCKER_JSON "/etc/docker/daemon.json"

struct taken {
	struct cidr cidr;
	int index; /* of the link, 0: none */
	const char *what;
};

struct taken_list {
	struct taken *items;
	size_t count;
};

/* No host has a guest there, whatever its routes say. */
static const struct {
	const char *cidr, *what;
} reserved[] = {
    {"0.0.0.0/8", "\"this network\""},
    {"127.0.0.0/8", "loopback"},
    {"169.254.0.0/16", "link-local addresses"},
    {"224.0.0.0/3", "multicast and reserved addresses"},
};

static const char *const docker_defaults[] = {
    "172.17.0.0/16", "172.18.0.0/16", "172.19.0.0/16",	"172.20.0.0/14",
    "172.24.0.0/14", "172.28.0.0/14", "192.168.0.0/16",
};

/* Container platforms whose networks appear only once they run: not chosen by ourselves, though a
 * user may. */
static const char *const avoided[] = {"10.42.0.0/16", "10.43.0.0/16", "10.88.0.0/16"};

static void taken_add(struct taken_list *t, struct cidr c, int index, const char *what)
{
	t->items = reallocarray(t->items, t->count + 1, sizeof(*t->items));
	if (!t->items)
		abort();
	t->items[t->count++] = (struct taken){c, index, what};
}

static void taken_add_text(struct taken_list *t, const char *cidr, const char *what)
{
	struct cidr c;

	if (!cidr_parse(cidr, &c))
		taken_add(t, c, 0, what);
}

static int take_route(void *ctx, int index, uint32_t dst, unsigned prefix)
{
	struct cidr c = {dst, prefix};

	c.addr &= cidr_mask(c);
	taken_add(ctx, c, index, "a route of this host");
	return 0;
}

static int take_addr(void *ctx, int index, uint32_t ip, unsigned prefix)
{
	struct cidr c = {ip, prefix};

	c.addr &= cidr_mask(c);
	taken_add(ctx, c, index, "an address of this host");
	return 0;
}

/* default-address-pools of Docker's configuration; anything unreadable in it is Docker's to
 * complain of. */
static void take_docker(struct taken_list *t, const char *path)
{
	_cleanup_(freep) char *text = NULL;
	bool own_pools = false;
	json_t *root, *pools;
	size_t len;

	if (file_read(path, 1 << 20, &text, &len) < 0)
		text = NULL;
	root = text ? json_loadb(text, len, 0, NULL) : NULL;
	pools = json_object_get(root, "default-address-pools");
	for (size_t i = 0; i < json_array_size(pools); i++) {
		const char *base =
		    json_string_value(json_object_get(json_array_get(pools, i), "base"));
		struct cidr c;

		if (base && !cidr_parse(base, &c)) {
			taken_add(t, c, 0, "a pool of Docker's (default-address-pools)");
			own_pools = true;
		}
	}
	json_decref(root);
	for (size_t i = 0; i < ARRAY_SIZE(docker_defaults) && !own_pools; i++)
		taken_add_text(t, docker_defaults[i], "a default pool of Docker's");
}

static int gather(const char *docker_json, struct taken_list *t, struct error *e)
{
	_cleanup_(nl_closep) struct nl *nl = NULL;
	int err;

	err = nl_open(&nl);
	if (!err)
		err = nl_route_each(nl, take_route, t);
	if (!err)
		err = nl_addr_each(nl, take_addr, t);
	if (err < 0)
		return error_errno(e, err, "cannot read this host's routes");
	for (size_t i = 0; i < ARRAY_SIZE(reserved); i++)
		taken_add_text(t, reserved[i].cidr, reserved[i].what);
	take_docker(t, docker_json);
	return 0;
}

static const struct taken *conflict(const struct taken_list *t, struct cidr c, int own_index)
{
	for (size_t i = 0; i < t->count; i++) {
		if (t->items[i].index && t->items[i].index == own_index)
			continue;
		if (cidr_overlap(t->items[i].cidr, c))
			return &t->items[i];
	}
	return NULL;
}

/* Two clouds of one host that are not up at the same time see nothing of each other: so not
 * everybody starts at the same place. */
int subnet_choose(const char *docker_json, char *ret_cidr, size_t size, struct error *e)
{
	enum {
		FIRST = 16,
		SECOND_OCTETS = 64,
		PER_OCTET = 16,
		CANDIDATES = SECOND_OCTETS * PER_OCTET
	};
	struct taken_list t = {0};
	char text[CIDR_TEXT];
	uint16_t start;
	int err;

	err = gather(docker_json, &t, e);
	for (size_t i = 0; i < ARRAY_SIZE(avoided); i++)
		taken_add_text(&t, avoided[i], "a container platform's pool");
	random_bytes(&start, sizeof(start));
	for (unsigned i = 0; i < CANDIDATES && !err; i++) {
		unsigned n = (start + i) % CANDIDATES;
		struct cidr c = {10u << 24 | (FIRST + n / PER_OCTET) << 16 | (n % PER_OCTET) << 12,
				 20};

		if (conflict(&t, c, 0))
			continue;
		free(t.items);
		cidr_format(c, text);
		return snprintf(ret_cidr, size, "%s", text) < (int)size ? 0 : -ENOBUFS;
	}
	free(t.items);
	return err ? err
		   : error_set(
			 e, "HostNetwork",
			 "no free subnet between 10.16.0.0 and 10.79.255.255 on this host: set "
			 "MALLEE_SUBNET to one that is free, e.g. 10.200.0.0/24");
}

static int own_link(const char *bridge, int *ret_index, struct error *e)
{
	_cleanup_(nl_closep) struct nl *nl = NULL;
	struct nl_link l;
	int err;

	*ret_index = 0;
	err = nl_open(&nl);
	if (!err)
		err = nl_link_get(nl, bridge, &l);
	if (err == -ENODEV)
		return 0;
	if (err < 0)
		return error_errno(e, err, "cannot look for the bridge %s", bridge);
	*ret_index = l.index;
	return 0;
}

int subnet_check(const char *docker_json, const char *cidr, const char *bridge, struct error *e)
{
	struct taken_list t = {0};
	const struct taken *with;
	char other[CIDR_TEXT];
	struct cidr c;
	int own, err;

	if (cidr_parse(cidr, &c) < 0)
		return error_set(
		    e, "InvalidSubnet",
		    "'%s' is not an IPv4 subnet such as 10.20.0.0/20 (network/prefix, no bits set "
		    "behind the prefix)",
		    cidr ? cidr : "");
	if (c.prefix < 16 || c.prefix > 28)
		return error_set(e, "InvalidSubnet", "the subnet %s must be between /16 and /28",
				 cidr);
	err = own_link(bridge, &own, e);
	if (!err)
		err = gather(docker_json, &t, e);
	with = err ? NULL : conflict(&t, c, own);
	if (with) {
		cidr_format(with->cidr, other);
		err = error_set(e, "InvalidSubnet",
				"the subnet %s overlaps %s, %s: set MALLEE_SUBNET to another", cidr,
				other, with->what);
	}
	free(t.items);
	return err;
}

int net_choose_subnet(char *ret_cidr, size_t size, struct error *e)
{
	return subnet_choose(DOCKER_JSON, ret_cidr, size, e);
}

int net_check_subnet(const char *cidr, const char *cloud_id, struct error *e)
{
	char bridge[IFNAMSIZ];

	if (!cloud_id_valid(cloud_id))
		return error_set(e, "HostNetwork",
				 "the cloud's id '%s' is not 1 to %d characters of a-z and 0-9",
				 cloud_id ? cloud_id : "", CLOUD_ID_MAX);
	bridge_name(cloud_id, bridge);
	return subnet_check(DOCKER_JSON, cidr, bridge, e);
}
