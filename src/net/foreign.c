/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other firewalls of this host. Every base chain of a hook has its say: an accept of ours doesn't
 * undo a drop of theirs. So:
 *  - iptables (Docker, ufw and hand-made rules): where its FORWARD or INPUT would drop, three rules
 * for our bridge alone are put first; what guests may do is still decided by our own tables. In
 * DOCKER-USER where that exists: Docker keeps it and leaves it first.
 *  - firewalld and other nftables rule sets: not ours to edit; `doctor` says what to do.
 * With net.bridge.bridge-nf-call-iptables=1, FORWARD sees bridged frames too; ports of ours are
 * isolated, so there are none.
 */
#include "net/net_priv.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"
#include "os/privs.h"
#include "os/spawn.h"

/* --- iptables --- */

#define SPEC_WORDS 24

static int iptables(const char *command, const char *verb, const char *chain, const char *spec,
		    struct buf *out, int *ret_code, struct error *e)
{
	_cleanup_(freep) char *words = strdup(spec);
	const char *argv[SPEC_WORDS + 6] = {command, "-w", "5", verb, chain};
	struct spawn s = {.argv = argv, .timeout_ms = 20000};
	char *save = NULL;
	size_t n = 5;

	if (!words)
		abort();
	for (char *w = strtok_r(words, " ", &save); w && n < SPEC_WORDS + 5;
	     w = strtok_r(NULL, " ", &save))
		argv[n++] = w;
	return spawn_run(&s, out, ret_code, e);
}

/* Whether the output of `iptables -S CHAIN` shows a chain that drops what nothing accepts: by its
 * policy, or by a last word without a condition. */
static bool chain_drops(const char *chain, const char *listing)
{
	static const struct {
		const char *before, *after;
	} ends[] = {{"-P ", " DROP"}, {"-A ", " -j DROP"}, {"-A ", " -j REJECT"}};
	char line[64];

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		snprintf(line, sizeof(line), "%s%s%s", ends[i].before, chain, ends[i].after);
		for (const char *s = listing; (s = strstr(s, line)); s += strlen(line)) {
			char after = s[strlen(line)];

			if ((s == listing || s[-1] == '\n') &&
			    (!after || after == '\n' || after == ' '))
				return true;
		}
	}
	return false;
}

static bool recorded(const struct record *r, const struct record_rule *rule)
{
	for (size_t i = 0; i < r->rule_count; i++) {
		if (!memcmp(&r->rules[i], rule, sizeof(*rule)))
			return true;
	}
	return false;
}

static int ensure_rule(const char *command, const char *chain, const char *spec, struct record *r,
		       unsigned *changed, struct error *e)
{
	struct record_rule rule = {0};
	int err, code;

	err = iptables(command, "-C", chain, spec, NULL, &code, e);
	if (err < 0 || !code)
		return err;
	snprintf(rule.command, sizeof(rule.command), "%s", command);
	snprintf(rule.chain, sizeof(rule.chain), "%s", chain);
	snprintf(rule.spec, sizeof(rule.spec), "%s", spec);
	if (!recorded(r, &rule)) {
		record_add_rule(r, &rule);
		err = record_save(r, e);
		if (err < 0)
			return err;
	}
	++*changed;
	return iptables(command, "-I", chain, spec, NULL, NULL, e);
}

static int chain_listing(const char *command, const char *chain, struct buf *out, bool *ret_exists,
			 struct error *e)
{
	int code = 0, err = iptables(command, "-S", chain, "", out, &code, e);

	*ret_exists = !err && !code;
	return err;
}

static int ensure_forward(const char *command, struct record *r, unsigned *changed, struct error *e)
{
	struct buf text = BUF_INIT;
	bool exists, drops;
	char spec[256];
	const char *chain;
	int err;

	err = chain_listing(command, "FORWARD", &text, &exists, e);
	drops = !err && exists && text.data && chain_drops("FORWARD", text.data);
	chain = drops && strstr(text.data, "-j DOCKER-USER") ? "DOCKER-USER" : "FORWARD";
	buf_done(&text);
	if (err < 0 || !drops)
		return err;
	snprintf(spec, sizeof(spec), "-i %s -m comment --comment mallee-%s -j ACCEPT", r->bridge,
		 r->cloud_id);
	err = ensure_rule(command, chain, spec, r, changed, e);
	snprintf(
	    spec, sizeof(spec),
	    "-o %s -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment mallee-%s -j ACCEPT",
	    r->bridge, r->cloud_id);
	return err < 0 ? err : ensure_rule(command, chain, spec, r, changed, e);
}

static int ensure_input(const char *command, struct record *r, unsigned *changed, struct error *e)
{
	struct buf text = BUF_INIT;
	bool exists, drops;
	char spec[256];
	int err;

	err = chain_listing(command, "INPUT", &text, &exists, e);
	drops = !err && exists && text.data && chain_drops("INPUT", text.data);
	buf_done(&text);
	if (err < 0 || !drops)
		return err;
	snprintf(spec, sizeof(spec), "-i %s -m comment --comment mallee-%s -j ACCEPT", r->bridge,
		 r->cloud_id);
	return ensure_rule(command, "INPUT", spec, r, changed, e);
}

/* Is there an iptables filter table at all? Asked so that no iptables program is run, and no module
 * loaded, on a host without. */
static bool nft_filter_exists(struct rules *rules)
{
	struct buf out = BUF_INIT;
	struct error ignored = {0};
	int err = rules_list(rules, "list table ip filter", false, &out, &ignored);

	buf_done(&out);
	return !err;
}

static bool legacy_filter_exists(void)
{
	_cleanup_(freep) char *names = NULL;
	size_t len;

	return !file_read("/proc/net/ip_tables_names", 4096, &names, &len) &&
	       strstr(names, "filter");
}

static int ensure_with(const char *command, struct record *r, unsigned *changed, struct error *e)
{
	int err = ensure_forward(command, r, changed, e);

	if (!err)
		err = ensure_input(command, r, changed, e);
	/* Rules without the program that made them: foreign_diagnose() tells. */
	if (err == -ENOENT) {
		error_clear(e);
		err = 0;
	}
	return err;
}

int foreign_ensure(struct rules *rules, bool look_at_nft, struct record *r, unsigned *changed,
		   struct error *e)
{
	int err = 0;

	if (look_at_nft && nft_filter_exists(rules))
		err = ensure_with("iptables-nft", r, changed, e);
	if (!err && legacy_filter_exists())
		err = ensure_with("iptables-legacy", r, changed, e);
	return err;
}

int foreign_remove(const struct record *r, struct error *e)
{
	int first = 0;

	for (size_t i = 0; i < r->rule_count; i++) {
		const struct record_rule *rule = &r->rules[i];
		int code = 0,
		    err = iptables(rule->command, "-C", rule->chain, rule->spec, NULL, &code, e);

		/* Gone already, or the program is: then so are its rules, as far as we can know. */
		if (err == -ENOENT)
			error_clear(e);
		else if (!err && !code)
			err = iptables(rule->command, "-D", rule->chain, rule->spec, NULL, NULL, e);
		if (err < 0 && err != -ENOENT && !first)
			first = err;
	}
	return first;
}

/* --- what stands in the way --- */

struct findings {
	struct arena *a;
	struct net_finding *items;
	size_t count;
	const char *bridge;
};

#define FINDINGS_MAX 32

static void add(struct findings *f, bool fatal, const char *text, const char *remedy)
{
	if (f->count < FINDINGS_MAX)
		f->items[f->count++] = (struct net_finding){fatal, text, remedy};
}

static void judge_chain(struct findings *f, const json_t *chain)
{
	const char *family = json_string_value(json_object_get(chain, "family"));
	const char *table = json_string_value(json_object_get(chain, "table"));
	const char *name = json_string_value(json_object_get(chain, "name"));
	const char *hook = json_string_value(json_object_get(chain, "hook"));
	const char *policy = json_string_value(json_object_get(chain, "policy"));

	if (!family || !table || !name || !hook || !str_eq(policy, "drop"))
		return;
	if ((!str_eq(family, "inet") && !str_eq(family, "ip")) || str_prefix(table, "mallee_"))
		return;
	if (str_eq(family, "ip") && str_eq(table, "filter"))
		return; /* iptables: foreign_ensure() */
	if (str_eq(hook, "forward"))
		add(f, true,
		    arena_printf(
			f->a,
			"the nftables chain %s %s %s drops what it doesn't know, also guests' traffic",
			family, table, name),
		    arena_printf(
			f->a,
			"nft insert rule %s %s %s iifname %s accept; nft insert rule %s %s %s oifname %s ct "
			"state established,related accept (and in the file that makes that table)",
			family, table, name, f->bridge, family, table, name, f->bridge));
	else if (str_eq(hook, "input"))
		add(f, true,
		    arena_printf(
			f->a,
			"the nftables chain %s %s %s drops what it doesn't know, also guests' DHCP, DNS and "
			"metadata requests",
			family, table, name),
		    arena_printf(
			f->a,
			"nft insert rule %s %s %s iifname %s accept (Mallee's own table still limits what "
			"guests reach), also in the file that makes that table",
			family, table, name, f->bridge));
}

static int judge_chains(struct findings *f, struct rules *rules, struct error *e)
{
	struct buf out = BUF_INIT;
	json_t *root, *list;
	int err;

	err = rules_list(rules, "list chains", true, &out, e);
	root = err ? NULL : json_loads(out.data ? out.data : "", 0, NULL);
	list = json_object_get(root, "nftables");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *chain = json_object_get(json_array_get(list, i), "chain");

		if (str_eq(json_string_value(json_object_get(chain, "table")), "firewalld") &&
		    str_eq(json_string_value(json_object_get(chain, "name")), "filter_FORWARD"))
			add(f, true,
			    "firewalld is active and rejects traffic of interfaces that it doesn't know",
			    arena_printf(
				f->a,
				"firewall-cmd --permanent --zone=trusted --add-interface=%s && firewall-cmd "
				"--reload (Mallee's own table still limits what guests reach)",
				f->bridge));
		else
			judge_chain(f, chain);
	}
	json_decref(root);
	buf_done(&out);
	return err;
}

static void judge_iptables(struct findings *f, struct rules *rules)
{
	static const struct {
		const char *command;
	} programs[] = {{"iptables-nft"}, {"iptables-legacy"}};
	bool there[] = {nft_filter_exists(rules), legacy_filter_exists()};

	for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
		struct buf out = BUF_INIT;
		struct error why = {0};
		bool exists;
		int err;

		if (!there[i])
			continue;
		err = chain_listing(programs[i].command, "FORWARD", &out, &exists, &why);
		if (err == -ENOENT)
			add(f, false,
			    "this host has iptables rules, but not the program to look at them",
			    "apt-get install iptables");
		else if (!err && exists && out.data && chain_drops("FORWARD", out.data))
			add(f, false,
			    arena_printf(
				f->a,
				"%s drops forwarded traffic (Docker, ufw or rules of your own): three rules for "
				"%s are put before it, and taken away by uninstall",
				programs[i].command, f->bridge),
			    "nothing to do");
		buf_done(&out);
	}
}

static void judge_sysctls(struct findings *f)
{
	char value[32];

	if (!sysctl_get("ipv4/ip_forward", value, sizeof(value)) && str_eq(value, "0"))
		add(f, false,
		    "this host doesn't forward IPv4; net.ipv4.ip_forward is turned on for guests and restored by uninstall",
		    "nothing to do");
	if (!sysctl_get("bridge/bridge-nf-call-iptables", value, sizeof(value)) &&
	    str_eq(value, "1"))
		add(f, false,
		    "net.bridge.bridge-nf-call-iptables is 1: bridged traffic meets the FORWARD rules; guests' is routed, "
		    "not bridged, so that this changes nothing for them",
		    "nothing to do");
}

int foreign_diagnose(struct rules *rules, const char *bridge, struct arena *a,
		     struct net_finding **ret, size_t *ret_count, struct error *e)
{
	struct findings f = {.a = a,
			     .items = arena_new_array(a, struct net_finding, FINDINGS_MAX),
			     .bridge = bridge};
	int err;

	err = judge_chains(&f, rules, e);
	if (err < 0)
		return err;
	judge_iptables(&f, rules);
	judge_sysctls(&f);
	*ret = f.items;
	*ret_count = f.count;
	return 0;
}
