/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests under QEMU, with KVM or TCG, through libvirt.
 *
 * One connection is shared by all callers; libvirt's calls are thread-safe. `lock` guards the
 * pointer, not the calls: a caller takes a reference and works without the lock. When a call fails
 * because libvirtd went away, the connection is dropped and the next caller, or the event thread
 * within a second, opens a new one. Guests live on without libvirtd, so nothing else is lost.
 *
 * Domains are persistent: the definition outlives the guest, so that the reason of its end can be
 * asked for.
 */
#include <assert.h>
#include <fcntl.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "hyper/host.h"
#include "hyper/kvm_priv.h"

#define KVM_URI "qemu:///system"
#define KVM_REBOOT_MS 60000 /* a guest that ignores the power button this long is reset */
#define KVM_KEEPALIVE_S 5
#define KVM_KEEPALIVE_COUNT 3

static void domain_freep(virDomainPtr *d)
{
	if (*d)
		virDomainFree(*d);
}

static void conn_closep(virConnectPtr *c)
{
	if (*c)
		virConnectClose(*c);
}

static struct kvm *kvm_of(struct hyper *h)
{
	struct kvm *k = (struct kvm *)h;

	assert(k && k->magic == KVM_MAGIC);
	return k;
}

bool kvm_name_is_ours(const char *cloud_id, const char *name)
{
	size_t n = strlen(cloud_id);

	return str_prefix(name, "mallee-") && strncmp(name + 7, cloud_id, n) == 0 &&
	       name[7 + n] == '-';
}

void kvm_translate_state(int state, int reason, struct hyper_status *ret)
{
	ret->off_reason = HYPER_OFF_UNKNOWN;
	switch (state) {
	case VIR_DOMAIN_RUNNING:
	case VIR_DOMAIN_BLOCKED:
		ret->state = HYPER_RUNNING;
		return;
	case VIR_DOMAIN_PAUSED:
	case VIR_DOMAIN_PMSUSPENDED:
		ret->state = HYPER_PAUSED;
		return;
	case VIR_DOMAIN_SHUTDOWN:
		ret->state = HYPER_SHUTTING_DOWN;
		return;
	case VIR_DOMAIN_CRASHED:
		ret->state = HYPER_OFF;
		ret->off_reason = HYPER_OFF_CRASHED;
		return;
	default:
		break;
	}
	ret->state = HYPER_OFF;
	if (reason == VIR_DOMAIN_SHUTOFF_SHUTDOWN)
		ret->off_reason = HYPER_OFF_GUEST;
	else if (reason == VIR_DOMAIN_SHUTOFF_DESTROYED)
		ret->off_reason = HYPER_OFF_US;
	else if (reason == VIR_DOMAIN_SHUTOFF_CRASHED || reason == VIR_DOMAIN_SHUTOFF_FAILED)
		ret->off_reason = HYPER_OFF_CRASHED;
}

/* libvirt prints errors to stderr unless told otherwise; ours go into struct error. */
static void ignore_error(void *ctx _unused_, virErrorPtr err _unused_)
{
}

static virConnectPtr take_conn(struct kvm *k, virConnectPtr only)
{
	virConnectPtr conn = NULL;

	pthread_mutex_lock(&k->lock);
	if (k->conn && (!only || k->conn == only))
		conn = TAKE_PTR(k->conn);
	pthread_mutex_unlock(&k->lock);
	return conn;
}

static void drop_conn(struct kvm *k, virConnectPtr only)
{
	_cleanup_(conn_closep) virConnectPtr conn = take_conn(k, only);

	if (conn)
		kvm_events_detach(k, conn);
}

static bool is_broken(virConnectPtr conn, const virError *err)
{
	return virConnectIsAlive(conn) != 1 || (err && err->domain == VIR_FROM_RPC);
}

/* The last call failed since the domain is already as the caller wants it: running, or not. */
static bool is_moot(void)
{
	return virGetLastErrorCode() == VIR_ERR_OPERATION_INVALID;
}

static int fail(struct kvm *k, virConnectPtr conn, virErrorPtr err, struct error *e, const char *what,
		const char *name)
{
	const char *text = err && err->message ? err->message : "libvirt gave no reason";
	bool broken = is_broken(conn, err);
	bool gone = err && err->code == VIR_ERR_NO_DOMAIN;

	error_set(e, broken ? "ServiceUnavailable" : "InternalError", "cannot %s %s: %s", what,
		  name, text);
	virFreeError(err);
	if (!broken)
		return gone ? -ENOENT : -EREMOTEIO;
	drop_conn(k, conn);
	return -ENOTCONN;
}

int kvm_error(struct kvm *k, virConnectPtr conn, struct error *e, const char *what,
	      const char *name)
{
	return fail(k, conn, virSaveLastError(), e, what, name);
}

int kvm_domain_error(struct kvm *k, virDomainPtr dom, struct error *e, const char *what)
{
	virErrorPtr err = virSaveLastError();

	return fail(k, virDomainGetConnect(dom), err, e, what, virDomainGetName(dom));
}

virConnectPtr kvm_connect(struct kvm *k, struct error *e)
{
	virConnectPtr conn = NULL, mine;
	const char *uri = k->uri ? k->uri : KVM_URI;

	pthread_mutex_lock(&k->lock);
	if (k->conn) {
		conn = k->conn;
		virConnectRef(conn);
	}
	pthread_mutex_unlock(&k->lock);
	if (conn)
		return conn;

	mine = virConnectOpen(uri);
	if (!mine) {
		const char *text = virGetLastErrorMessage();

		error_set(e, "ServiceUnavailable", "cannot reach libvirt at %s: %s", uri, text);
		return NULL;
	}
	virConnectSetKeepAlive(mine, KVM_KEEPALIVE_S, KVM_KEEPALIVE_COUNT);

	pthread_mutex_lock(&k->lock);
	if (!k->conn)
		k->conn = mine;
	conn = k->conn;
	virConnectRef(conn);
	pthread_mutex_unlock(&k->lock);
	if (conn == mine)
		kvm_events_attach(k, conn);
	else
		virConnectClose(mine); /* another thread was faster */
	return conn;
}

/* 0 and *ret, NULL when there is no such domain; or a negative errno. */
static int lookup(struct kvm *k, virConnectPtr conn, const char *name, virDomainPtr *ret,
		  struct error *e)
{
	virDomainPtr dom = virDomainLookupByName(conn, name);

	if (!dom && virGetLastErrorCode() != VIR_ERR_NO_DOMAIN)
		return kvm_error(k, conn, e, "find", name);
	*ret = dom;
	return 0;
}

static int kvm_open(const struct hyper_config *c, struct hyper **ret, struct error *e)
{
	struct kvm *k = calloc(1, sizeof(*k));
	_cleanup_(conn_closep) virConnectPtr conn = NULL;
	int r;

	if (!k)
		return error_errno(e, ENOMEM, "cannot open the hypervisor driver");
	k->magic = KVM_MAGIC;
	k->accel = c->accel;
	k->cloud_id = strdup(c->cloud_id);
	k->uri = c->uri ? strdup(c->uri) : NULL;
	k->event_ids[0] = k->event_ids[1] = -1;
	k->monitor_ids[0] = k->monitor_ids[1] = -1;
	k->timer = -1;
	pthread_mutex_init(&k->lock, NULL);
	virInitialize();
	virSetErrorFunc(NULL, ignore_error);
	r = kvm_events_start(k, e);
	if (r < 0) {
		hyper_kvm_ops.close((struct hyper *)k);
		return r;
	}
	conn = kvm_connect(k, NULL); /* if it is not there yet, later calls say so and try again */
	*ret = (struct hyper *)k;
	return 0;
}

static void kvm_close(struct hyper *h)
{
	struct kvm *k;

	if (!h)
		return;
	k = kvm_of(h);
	kvm_events_stop(k);
	drop_conn(k, NULL);
	while (k->reboots) {
		struct kvm_reboot *r = k->reboots;

		k->reboots = r->next;
		free(r);
	}
	pthread_mutex_destroy(&k->lock);
	free(k->cloud_id);
	free(k->uri);
	k->magic = 0;
	free(k);
}

bool hyper_direct_io(const char *path)
{
	void *block = NULL;
	bool works = false;
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	if (fd >= 0 && posix_memalign(&block, 4096, 4096) == 0)
		works = pread(fd, block, 4096, 0) >= 0;
	free(block);
	if (fd >= 0)
		close(fd);
	return works;
}

static int check_ours(struct kvm *k, const char *name, struct error *e)
{
	if (kvm_name_is_ours(k->cloud_id, name))
		return 0;
	error_set(e, "InternalError", "the domain %s is not one of cloud %s", name, k->cloud_id);
	return -EPERM;
}

/* 1 for a domain that is gone since it was looked up. */
static int unless_gone(int r, struct error *e)
{
	if (r != -ENOENT)
		return r;
	error_clear(e);
	return 1;
}

int kvm_resume(struct kvm *k, virDomainPtr dom, struct error *e)
{
	if (virDomainResume(dom) == 0)
		return 0;
	return is_moot() ? 1 : unless_gone(kvm_domain_error(k, dom, e, "resume"), e);
}

/* A guest that is there already: nothing to do, or only to let it run on. 1: it is off, or gone since
 * it was looked up. */
static int adopt(struct kvm *k, virConnectPtr conn, virDomainPtr dom, const char *name,
		 struct error *e)
{
	int state, reason;
	struct hyper_status st = {0};

	if (virDomainGetState(dom, &state, &reason, 0) < 0)
		return unless_gone(kvm_error(k, conn, e, "look at", name), e);
	kvm_translate_state(state, reason, &st);
	if (st.state == HYPER_OFF)
		return 1;
	return state == VIR_DOMAIN_PAUSED ? kvm_resume(k, dom, e) : 0;
}

static int kvm_start(struct hyper *h, const struct hyper_machine *m, struct error *e)
{
	struct kvm *k = kvm_of(h);
	_cleanup_(conn_closep) virConnectPtr conn = NULL;
	_cleanup_(domain_freep) virDomainPtr dom = NULL, fresh = NULL;
	struct buf xml = BUF_INIT;
	int r = check_ours(k, m->name, e);

	if (r < 0)
		return r;
	conn = kvm_connect(k, e);
	if (!conn)
		return -ENOTCONN;
	r = lookup(k, conn, m->name, &dom, e);
	if (r == 0 && dom) {
		r = adopt(k, conn, dom, m->name, e);
		if (r <= 0)
			return r;
		r = 0;
	}
	if (r == 0)
		r = kvm_domain_xml(m, k->accel, hyper_direct_io, &xml, e);
	if (r == 0)
		r = kvm_disks_served(m, e);
	if (r == 0) {
		fresh = virDomainDefineXML(conn, xml.data);
		if (!fresh)
			r = kvm_error(k, conn, e, "define", m->name);
	}
	if (r == 0 && virDomainCreate(fresh) < 0 && !is_moot())
		r = kvm_error(k, conn, e, "start", m->name);
	buf_done(&xml);
	return r;
}

int kvm_on_domain(struct hyper *h, const char *name, bool *ret_absent, kvm_domain_fn *fn, void *ctx,
		  struct error *e)
{
	struct kvm *k = kvm_of(h);
	_cleanup_(conn_closep) virConnectPtr conn = NULL;
	_cleanup_(domain_freep) virDomainPtr dom = NULL;
	int r = check_ours(k, name, e);

	if (r < 0)
		return r;
	conn = kvm_connect(k, e);
	if (!conn)
		return -ENOTCONN;
	r = lookup(k, conn, name, &dom, e);
	if (r < 0)
		return r;
	if (dom) {
		r = fn(k, conn, dom, ctx, e);
	} else {
		error_set(e, "InternalError", "there is no domain %s", name);
		r = -ENOENT;
	}
	if (r != -ENOENT || !ret_absent)
		return r;
	error_clear(e);
	*ret_absent = true;
	return 0;
}

static int do_shutdown(struct kvm *k, virConnectPtr conn, virDomainPtr dom, void *ctx _unused_,
		       struct error *e)
{
	if (virDomainShutdownFlags(dom, VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN) == 0 || is_moot())
		return 0;
	return kvm_domain_error(k, dom, e, "shut down");
}

static int kvm_shutdown(struct hyper *h, const char *name, struct error *e)
{
	return kvm_on_domain(h, name, NULL, do_shutdown, NULL, e);
}

static int do_destroy(struct kvm *k, virConnectPtr conn, virDomainPtr dom, void *ctx _unused_,
		      struct error *e)
{
	unsigned int flags = VIR_DOMAIN_UNDEFINE_MANAGED_SAVE |
			     VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
			     VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | VIR_DOMAIN_UNDEFINE_NVRAM;

	if (virDomainDestroy(dom) < 0 && !is_moot())
		return kvm_domain_error(k, dom, e, "destroy");
	if (virDomainUndefineFlags(dom, flags) < 0 && !is_moot())
		return kvm_domain_error(k, dom, e, "undefine");
	return 0;
}

static int kvm_destroy(struct hyper *h, const char *name, struct error *e)
{
	bool absent;

	return kvm_on_domain(h, name, &absent, do_destroy, NULL, e);
}

static int do_reboot(struct kvm *k, virConnectPtr conn, virDomainPtr dom, void *ctx _unused_,
		     struct error *e)
{
	const char *name = virDomainGetName(dom);

	kvm_reboot_expect(k, name, KVM_REBOOT_MS);
	if (virDomainReboot(dom, VIR_DOMAIN_REBOOT_ACPI_POWER_BTN) < 0)
		return kvm_error(k, conn, e, "reboot", name);
	return 0;
}

static int kvm_reboot(struct hyper *h, const char *name, struct error *e)
{
	return kvm_on_domain(h, name, NULL, do_reboot, NULL, e);
}

static int do_status(struct kvm *k, virConnectPtr conn, virDomainPtr dom, void *ctx,
		     struct error *e)
{
	int state, reason;

	if (virDomainGetState(dom, &state, &reason, 0) < 0)
		return kvm_domain_error(k, dom, e, "look at");
	kvm_translate_state(state, reason, ctx);
	return 0;
}

static int kvm_status(struct hyper *h, const char *name, struct hyper_status *ret, struct error *e)
{
	struct hyper_status st = {.name = name};
	bool absent = false;
	int r = kvm_on_domain(h, name, &absent, do_status, &st, e);

	if (r < 0)
		return r;
	if (absent)
		st.state = HYPER_ABSENT;
	*ret = st;
	return 0;
}

static int kvm_list(struct hyper *h, struct arena *a, struct hyper_status **ret, size_t *ret_count,
		    struct error *e)
{
	struct kvm *k = kvm_of(h);
	_cleanup_(conn_closep) virConnectPtr conn = kvm_connect(k, e);
	virDomainPtr *doms = NULL;
	struct hyper_status *list;
	size_t count = 0;
	int n, state, reason;

	if (!conn)
		return -ENOTCONN;
	n = virConnectListAllDomains(conn, &doms, 0);
	if (n < 0)
		return kvm_error(k, conn, e, "list the domains of", k->cloud_id);
	list = arena_new_array(a, struct hyper_status, (size_t)n);
	for (int i = 0; i < n; i++) {
		const char *name = virDomainGetName(doms[i]);

		if (kvm_name_is_ours(k->cloud_id, name) &&
		    virDomainGetState(doms[i], &state, &reason, 0) == 0) {
			list[count].name = arena_strdup(a, name);
			kvm_translate_state(state, reason, &list[count++]);
		}
		virDomainFree(doms[i]);
	}
	free(doms);
	*ret = list;
	*ret_count = count;
	return 0;
}

static int kvm_watch(struct hyper *h, void (*fn)(void *ctx, const char *name), void *ctx)
{
	struct kvm *k = kvm_of(h);

	pthread_mutex_lock(&k->lock);
	k->watch_fn = fn;
	k->watch_ctx = ctx;
	pthread_mutex_unlock(&k->lock);
	return 0;
}

const struct hyper_ops hyper_kvm_ops = {
    .name = "kvm",
    .open = kvm_open,
    .close = kvm_close,
    .start = kvm_start,
    .shutdown = kvm_shutdown,
    .destroy = kvm_destroy,
    .reboot = kvm_reboot,
    .status = kvm_status,
    .list = kvm_list,
    .disk_attach = kvm_disk_attach,
    .disk_detach = kvm_disk_detach,
    .disk_list = kvm_disk_list,
    .watch = kvm_watch,
    .process = kvm_process,
    .file_counters = kvm_file_counters,
};
