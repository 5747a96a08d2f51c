/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "hyper/kvm_priv.h"
#include "os/file.h"

#define PID_DIR "/run/libvirt/qemu" /* libvirt has no call that tells it */

int kvm_process(struct hyper *h _unused_, const char *name, pid_t *ret_pid)
{
	_cleanup_(freep) char *text = NULL;
	char path[256];
	int64_t pid;
	size_t len;

	snprintf(path, sizeof(path), PID_DIR "/%s.pid", name);
	if (file_read(path, 32, &text, &len) < 0)
		return -ENOENT;
	text[strcspn(text, "\n")] = '\0';
	if (parse_i64(text, 1, INT32_MAX, &pid) < 0)
		return -ENOENT;
	*ret_pid = (pid_t)pid;
	return 0;
}

/* "block.2.rd.reqs" of the records' parameters into where it belongs, summed over disks. */
static void add_parameter(const virTypedParameter *p, struct hyper_file_counters *c)
{
	const struct {
		const char *name;
		uint64_t *to;
	} known[] = {
	    {".rd.reqs", &c->read_ops},	   {".rd.bytes", &c->read_bytes},   {".rd.times", &c->read_ns},
	    {".wr.reqs", &c->write_ops},   {".wr.bytes", &c->write_bytes}, {".wr.times", &c->write_ns},
	    {".fl.reqs", &c->flush_ops},   {".fl.times", &c->flush_ns},
	};

	if (p->type != VIR_TYPED_PARAM_ULLONG || !str_prefix(p->field, "block."))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (!str_suffix(p->field, known[i].name))
			continue;
		*known[i].to += p->value.ul;
		c->known = true;
	}
}

static void take_record(const virDomainStatsRecord *r, const char *const *names, size_t count, struct hyper_file_counters *ret)
{
	const char *name = virDomainGetName(r->dom);

	for (size_t i = 0; i < count; i++) {
		if (!str_eq(names[i], name))
			continue;
		for (int p = 0; p < r->nparams; p++)
			add_parameter(&r->params[p], &ret[i]);
	}
}

/* A guest that somebody works on, or that is gone, is left out: nobody waits for it. */
static int ask(struct kvm *k, virConnectPtr conn, virDomainPtr *doms, const char *const *names, size_t count,
	       struct hyper_file_counters *ret, struct error *e)
{
	virDomainStatsRecordPtr *records = NULL;
	int n = virDomainListGetStats(doms, VIR_DOMAIN_STATS_BLOCK, &records, VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT);

	if (n < 0)
		return kvm_error(k, conn, e, "ask for the disks' counters of", names[0]);
	for (int i = 0; i < n; i++)
		take_record(records[i], names, count, ret);
	virDomainStatsRecordListFree(records);
	return 0;
}

int kvm_file_counters(struct hyper *h, const char *const *names, size_t count, struct hyper_file_counters *ret, struct error *e)
{
	struct kvm *k = (struct kvm *)h;
	virConnectPtr conn = kvm_connect(k, e);
	virDomainPtr *doms = calloc(count + 1, sizeof(*doms));
	size_t n = 0;
	int r = conn ? 0 : -ENOTCONN;

	if (!doms)
		abort();
	memset(ret, 0, count * sizeof(*ret));
	for (size_t i = 0; r == 0 && i < count; i++) {
		doms[n] = virDomainLookupByName(conn, names[i]);
		n += doms[n] != NULL;
	}
	if (r == 0 && n)
		r = ask(k, conn, doms, names, count, ret, e);
	for (size_t i = 0; i < n; i++)
		virDomainFree(doms[i]);
	free(doms);
	if (conn)
		virConnectClose(conn);
	return r;
}
