/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/text.h"
#include "hyper/fake_priv.h"

/* Room for ten thousand small machines. */
#define FAKE_HOST_VCPUS 24000
#define FAKE_HOST_MEMORY_MIB (48 * 1024 * 1024LL)
#define FAKE_HOST_DISK_MIB (400 * 1024 * 1024LL)

static const char *const fault_names[] = {
    [FAKE_START_FAILS] = "start-fails",
    [FAKE_START_UNREACHABLE] = "start-unreachable",
    [FAKE_IGNORES_SHUTDOWN] = "ignores-shutdown",
    [FAKE_POWERS_OFF] = "powers-off",
    [FAKE_CRASHES] = "crashes",
    [FAKE_KEEPS_DISKS] = "keeps-disks",
    [FAKE_ATTACH_FAILS] = "attach-fails",
    [FAKE_ATTACH_UNREACHABLE] = "attach-unreachable",
};

struct rule {
	struct rule *next;
	enum fake_fault fault;
	char who[40]; /* instance id, or "*" */
};

struct fake_rules {
	struct rule *first;
	struct hyper_host host;
};

static void parse_host(struct fake_rules *r, char *words)
{
	char *save = NULL;

	for (char *w = strtok_r(words, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
		long long n;

		if (sscanf(w, "vcpus=%lld", &n) == 1)
			r->host.vcpus = (int)n;
		else if (sscanf(w, "memory_mib=%lld", &n) == 1)
			r->host.memory_mib = n;
		else if (sscanf(w, "disk_mib=%lld", &n) == 1)
			r->host.disk_mib = n;
	}
}

static void add_rule(struct fake_rules *r, const char *who, const char *what)
{
	for (size_t i = 0; i < ARRAY_SIZE(fault_names); i++) {
		struct rule *rule;

		if (!str_eq(what, fault_names[i]))
			continue;
		rule = calloc(1, sizeof(*rule));
		if (!rule)
			abort();
		rule->fault = (enum fake_fault)i;
		snprintf(rule->who, sizeof(rule->who), "%s", who);
		rule->next = r->first;
		r->first = rule;
	}
}

struct fake_rules *fake_rules_parse(const char *text)
{
	struct fake_rules *r = calloc(1, sizeof(*r));
	_cleanup_(freep) char *copy = strdup(text);
	char *save = NULL;

	if (!r || !copy)
		abort();
	r->host = (struct hyper_host){FAKE_HOST_VCPUS, FAKE_HOST_MEMORY_MIB, FAKE_HOST_DISK_MIB};
	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char who[40], what[32];

		line[strcspn(line, "#")] = '\0';
		if (str_prefix(line, "host "))
			parse_host(r, line + 5);
		else if (sscanf(line, "%39s %31s", who, what) == 2)
			add_rule(r, who, what);
	}
	return r;
}

void fake_rules_free(struct fake_rules *r)
{
	while (r && r->first) {
		struct rule *rule = r->first;

		r->first = rule->next;
		free(rule);
	}
	free(r);
}

bool fake_rule(const struct fake_rules *r, const char *instance_id, enum fake_fault fault)
{
	for (const struct rule *rule = r ? r->first : NULL; rule; rule = rule->next)
		if (rule->fault == fault &&
		    (str_eq(rule->who, "*") || str_eq(rule->who, instance_id)))
			return true;
	return false;
}

void fake_rules_host(const struct fake_rules *r, struct hyper_host *ret)
{
	if (r)
		*ret = r->host;
	else
		*ret =
		    (struct hyper_host){FAKE_HOST_VCPUS, FAKE_HOST_MEMORY_MIB, FAKE_HOST_DISK_MIB};
}
