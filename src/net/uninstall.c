/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving the host back, by the record alone. Every step goes on when another failed, so that as
 * much as possible is undone; the record stays until all of it was, and says so to the next
 * attempt.
 */
#include "net/net_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "os/file.h"

/* Links are ours when their alias says so: the names could have become others'. Those without are
 * ours when the record names them (we were killed between making and marking). */
struct own_links {
	const struct record *record;
	int *indexes;
	size_t count;
};

static bool made_but_unmarked(const struct record *r, const struct nl_link *l)
{
	uint8_t mac[6];

	bridge_mac(r->cloud_id, mac);
	if (str_eq(l->name, r->bridge))
		return str_eq(l->kind, "bridge") && !memcmp(l->mac, mac, 6);
	for (size_t i = 0; i < r->port_count; i++) {
		if (str_eq(r->ports[i].tap, l->name))
			return str_eq(l->kind, "tun");
	}
	return false;
}

static bool is_ours(const struct record *r, const struct nl_link *l)
{
	char alias[NL_ALIAS_MAX];
	size_t n = snprintf(alias, sizeof(alias), "mallee %s", r->cloud_id);

	if (!str_prefix(l->name, "mlt") && !str_prefix(l->name, "mlb"))
		return false;
	if (!l->alias[0])
		return made_but_unmarked(r, l);
	return str_prefix(l->alias, alias) && (!l->alias[n] || l->alias[n] == ' ');
}

static int collect(void *ctx, const struct nl_link *l)
{
	struct own_links *o = ctx;

	if (!is_ours(o->record, l))
		return 0;
	o->indexes = reallocarray(o->indexes, o->count + 1, sizeof(int));
	if (!o->indexes)
		abort();
	o->indexes[o->count++] = l->index;
	return 0;
}

static int remove_links(const struct record *r, struct error *e)
{
	_cleanup_(nl_closep) struct nl *nl = NULL;
	struct own_links own = {.record = r};
	int err = nl_open(&nl);

	if (!err)
		err = nl_link_each(nl, collect, &own);
	for (size_t i = 0; i < own.count && !err; i++) {
		err = nl_link_del(nl, own.indexes[i]);
		if (err == -ENODEV)
			err = 0;
	}
	free(own.indexes);
	return err < 0 ? error_errno(e, err, "cannot remove the bridge and taps of cloud %s",
				     r->cloud_id)
		       : 0;
}

static int remove_rules(const struct record *r, struct error *e)
{
	struct buf batch = BUF_INIT;
	struct rules *rules;
	int err = rules_open(&rules);

	if (err < 0)
		return error_errno(e, err, "cannot speak to nftables");
	rules_print_delete(r->cloud_id, &batch);
	err = rules_apply(rules, batch.data, e);
	rules_close(rules);
	buf_done(&batch);
	return err;
}

static int remove_all(struct record *r, const char *dhcp_dir, struct error *e)
{
	int steps[] = {
	    dhcp_stop(dhcp_dir, e), remove_links(r, e),	  foreign_remove(r, e),
	    remove_rules(r, e),	    sysctl_restore(r, e),
	};

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		if (steps[i] < 0)
			return steps[i];
	}
	steps[0] = dir_remove(dhcp_dir);
	if (steps[0] < 0)
		return error_errno(e, steps[0], "cannot remove %s", dhcp_dir);
	return record_delete(r, e);
}

int net_uninstall(const char *dir, struct error *e)
{
	_cleanup_(freep) char *dhcp_dir = NULL;
	struct record r = {0};
	int err;

	err = record_load(dir, &r, e);
	if (err == -ENOENT)
		return 0;
	if (err < 0)
		return err;
	if (asprintf(&dhcp_dir, "%s/dnsmasq", dir) < 0)
		abort();
	err = remove_all(&r, dhcp_dir, e);
	record_done(&r);
	return err;
}
