/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.json: written before the host is changed, so that whatever happens in between, uninstalling
 * knows of it; what is recorded but was not made (yet) is simply not there to be removed.
 */
#include "net/net_priv.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"

#define RECORD_MAX (16 << 20)
#define RECORD_VERSION 1

static void *grow(void *items, size_t count, size_t size)
{
	void *p = reallocarray(items, count + 1, size);

	if (!p)
		abort();
	return p;
}

struct record_port *record_add_port(struct record *r, const struct record_port *p)
{
	r->ports = grow(r->ports, r->port_count, sizeof(*p));
	r->ports[r->port_count] = *p;
	return &r->ports[r->port_count++];
}

void record_remove_port(struct record *r, struct record_port *p)
{
	size_t i = p - r->ports;

	memmove(p, p + 1, (--r->port_count - i) * sizeof(*p));
}

void record_add_sysctl(struct record *r, const struct record_sysctl *s)
{
	r->sysctls = grow(r->sysctls, r->sysctl_count, sizeof(*s));
	r->sysctls[r->sysctl_count++] = *s;
}

void record_add_rule(struct record *r, const struct record_rule *rule)
{
	r->rules = grow(r->rules, r->rule_count, sizeof(*rule));
	r->rules[r->rule_count++] = *rule;
}

struct record_port *record_find_port(const struct record *r, const char *instance_id)
{
	for (size_t i = 0; i < r->port_count; i++) {
		if (str_eq(r->ports[i].instance_id, instance_id))
			return &r->ports[i];
	}
	return NULL;
}

void record_done(struct record *r)
{
	free(r->path);
	free(r->sysctls);
	free(r->rules);
	free(r->ports);
	*r = (struct record){0};
}

static char *record_path(const char *dir)
{
	char *path;

	if (asprintf(&path, "%s/host.json", dir) < 0)
		abort();
	return path;
}

/* --- reading --- */

/* Copies a member of o into out; false when it is missing, no string, or too long. */
static bool take_text(const json_t *o, const char *key, char *out, size_t size)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s && strlen(s) < size && strlen(strcpy(out, s)) < size;
}

static bool take_u32(const json_t *o, const char *key, uint32_t *ret)
{
	const json_t *v = json_object_get(o, key);
	json_int_t n = json_integer_value(v);

	if (!json_is_integer(v) || n < 0 || n > UINT32_MAX)
		return false;
	*ret = n;
	return true;
}

#define TAKE(o, key, field) take_text(o, key, field, sizeof(field))

static bool read_port(struct record *r, const json_t *o)
{
	struct record_port p = {0};
	uint32_t ip;
	uint8_t mac[6];

	if (!TAKE(o, "instance", p.instance_id) || !TAKE(o, "tap", p.tap) ||
	    !TAKE(o, "mac", p.mac) || !TAKE(o, "ip", p.ip) || !TAKE(o, "hostname", p.hostname) ||
	    !TAKE(o, "account", p.account) || !take_u32(o, "group", &p.group) ||
	    !take_u32(o, "uid", &p.uid) || !take_u32(o, "gid", &p.gid))
		return false;
	if (!str_prefix(p.tap, "mlt") || !p.group || ipv4_parse(p.ip, &ip) < 0 ||
	    mac_parse(p.mac, mac) < 0)
		return false;
	record_add_port(r, &p);
	return true;
}

static bool read_sysctl(struct record *r, const json_t *o)
{
	struct record_sysctl s = {0};

	if (!TAKE(o, "name", s.name) || !TAKE(o, "before", s.before) || !TAKE(o, "set", s.set))
		return false;
	if (!str_prefix(s.name, "ipv4/") || strstr(s.name, ".."))
		return false;
	record_add_sysctl(r, &s);
	return true;
}

/* It is run as root: one of our own rules, for one of the programs that we use, and nothing else.
 */
static bool read_rule(struct record *r, const json_t *o)
{
	struct record_rule rule = {0};
	char comment[64];

	if (!TAKE(o, "command", rule.command) || !TAKE(o, "chain", rule.chain) ||
	    !TAKE(o, "spec", rule.spec))
		return false;
	snprintf(comment, sizeof(comment), "--comment mallee-%s -j ACCEPT", r->cloud_id);
	if ((!str_eq(rule.command, "iptables-nft") && !str_eq(rule.command, "iptables-legacy")) ||
	    rule.chain[0] == '-' || !str_suffix(rule.spec, comment))
		return false;
	record_add_rule(r, &rule);
	return true;
}

static bool read_list(struct record *r, const json_t *root, const char *key,
		      bool (*read)(struct record *r, const json_t *o))
{
	const json_t *list = json_object_get(root, key);

	if (!json_is_array(list))
		return false;
	for (size_t i = 0; i < json_array_size(list); i++) {
		if (!read(r, json_array_get(list, i)))
			return false;
	}
	return true;
}

static bool read_root(struct record *r, const json_t *root)
{
	char bridge[IFNAMSIZ];
	struct cidr c;

	if (json_integer_value(json_object_get(root, "version")) != RECORD_VERSION ||
	    !TAKE(root, "cloud_id", r->cloud_id) || !TAKE(root, "bridge", r->bridge) ||
	    !TAKE(root, "subnet", r->subnet) || !cloud_id_valid(r->cloud_id) ||
	    cidr_parse(r->subnet, &c) < 0)
		return false;
	bridge_name(r->cloud_id, bridge);
	return str_eq(bridge, r->bridge) && read_list(r, root, "sysctls", read_sysctl) &&
	       read_list(r, root, "rules", read_rule) && read_list(r, root, "ports", read_port);
}

int record_load(const char *dir, struct record *ret, struct error *e)
{
	_cleanup_(freep) char *path = record_path(dir);
	_cleanup_(freep) char *text = NULL;
	struct record r = {0};
	json_t *root;
	size_t len;
	bool good;
	int err;

	err = file_read(path, RECORD_MAX, &text, &len);
	if (err == -ENOENT)
		return err;
	if (err < 0)
		return error_errno(e, err, "cannot read %s", path);
	root = json_loadb(text, len, 0, NULL);
	good = read_root(&r, root);
	json_decref(root);
	if (!good) {
		record_done(&r);
		return error_set(
		    e, "HostNetwork",
		    "%s is not a record that this version wrote; it says what Mallee "
		    "changed on this host: mend it, or remove it after undoing that by hand",
		    path);
	}
	r.path = TAKE_PTR(path);
	*ret = r;
	return 0;
}

int record_new(const char *dir, const char *cloud_id, const char *subnet, struct record *ret,
	       struct error *e)
{
	struct record r = {0};

	if (!cloud_id_valid(cloud_id))
		return error_set(e, "HostNetwork",
				 "the cloud's id '%s' is not 1 to %d characters of a-z and 0-9",
				 cloud_id, CLOUD_ID_MAX);
	r.path = record_path(dir);
	strcpy(r.cloud_id, cloud_id);
	bridge_name(cloud_id, r.bridge);
	snprintf(r.subnet, sizeof(r.subnet), "%s", subnet);
	*ret = r;
	return 0;
}

/* --- writing --- */

static void append(json_t *list, json_t *o)
{
	if (!o || json_array_append_new(list, o) < 0)
		abort();
}

static json_t *list_into(json_t *root, const char *key)
{
	json_t *list = json_array();

	if (!list || json_object_set_new(root, key, list) < 0)
		abort();
	return list;
}

int record_save(const struct record *r, struct error *e)
{
	json_t *root = json_pack("{si ss ss ss}", "version", RECORD_VERSION, "cloud_id",
				 r->cloud_id, "bridge", r->bridge, "subnet", r->subnet);
	_cleanup_(freep) char *text = NULL;
	json_t *list;
	int err;

	if (!root)
		abort();
	list = list_into(root, "sysctls");
	for (size_t i = 0; i < r->sysctl_count; i++)
		append(list, json_pack("{ss ss ss}", "name", r->sysctls[i].name, "before",
				       r->sysctls[i].before, "set", r->sysctls[i].set));
	list = list_into(root, "rules");
	for (size_t i = 0; i < r->rule_count; i++)
		append(list, json_pack("{ss ss ss}", "command", r->rules[i].command, "chain",
				       r->rules[i].chain, "spec", r->rules[i].spec));
	list = list_into(root, "ports");
	for (size_t i = 0; i < r->port_count; i++) {
		const struct record_port *p = &r->ports[i];

		append(list,
		       json_pack("{ss ss ss ss ss ss sI sI sI}", "instance", p->instance_id, "tap",
				 p->tap, "mac", p->mac, "ip", p->ip, "hostname", p->hostname,
				 "account", p->account, "group", (json_int_t)p->group, "uid",
				 (json_int_t)p->uid, "gid", (json_int_t)p->gid));
	}
	text = json_dumps(root, JSON_INDENT(1));
	json_decref(root);
	if (!text)
		abort();
	err = file_write_atomic(r->path, text, strlen(text), 0600);
	return err < 0 ? error_errno(e, err, "cannot write %s", r->path) : 0;
}

int record_delete(struct record *r, struct error *e)
{
	if (unlink(r->path) < 0 && errno != ENOENT)
		return error_errno(e, errno, "cannot remove %s", r->path);
	return 0;
}
