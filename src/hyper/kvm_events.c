/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libvirt's event loop, on a thread of its own: tells the watcher which guest changed, resets
 * guests that did not reboot in time, and opens the connection again after libvirtd was restarted.
 *
 * libvirt has one loop for the whole process, registered once; hence the pthread_once below, and
 * one open kvm driver a process.
 */
#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "hyper/kvm_priv.h"

#define KVM_TICK_MS 1000

static pthread_once_t register_once =
    PTHREAD_ONCE_INIT; /* libvirt's loop is the process's, not ours */

static void register_loop(void)
{
	virEventRegisterDefaultImpl();
}

/* name NULL: any of them may have changed. */
static void tell_watcher(struct kvm *k, const char *name)
{
	void (*fn)(void *, const char *);
	void *ctx;

	pthread_mutex_lock(&k->lock);
	fn = k->watch_fn;
	ctx = k->watch_ctx;
	pthread_mutex_unlock(&k->lock);
	if (fn && (!name || kvm_name_is_ours(k->cloud_id, name)))
		fn(ctx, name);
}

void kvm_reboot_expect(struct kvm *k, const char *name, int64_t ms)
{
	size_t len = strlen(name) + 1;
	struct kvm_reboot *r = malloc(sizeof(*r) + len);

	if (!r)
		abort();
	memcpy(r->name, name, len);
	r->deadline_mono_ms = clock_mono_ms() + ms;
	pthread_mutex_lock(&k->lock);
	r->next = k->reboots;
	k->reboots = r;
	pthread_mutex_unlock(&k->lock);
}

/* Take the reboots off the list that are of this name, or (name NULL) whose time is over. The
 * caller frees them. */
static struct kvm_reboot *take_reboots(struct kvm *k, const char *name)
{
	struct kvm_reboot **p = &k->reboots, *taken = NULL;
	int64_t now = clock_mono_ms();

	pthread_mutex_lock(&k->lock);
	while (*p) {
		struct kvm_reboot *r = *p;

		if (name ? strcmp(r->name, name) != 0 : r->deadline_mono_ms > now) {
			p = &r->next;
			continue;
		}
		*p = r->next;
		r->next = taken;
		taken = r;
	}
	pthread_mutex_unlock(&k->lock);
	return taken;
}

static void forget_reboots(struct kvm *k, const char *name)
{
	struct kvm_reboot *list = take_reboots(k, name);

	while (list) {
		struct kvm_reboot *r = list;

		list = r->next;
		free(r);
	}
}

static int on_lifecycle(virConnectPtr conn _unused_, virDomainPtr dom, int event,
			int detail _unused_, void *ctx)
{
	struct kvm *k = ctx;
	const char *name = virDomainGetName(dom);

	if (event == VIR_DOMAIN_EVENT_STOPPED || event == VIR_DOMAIN_EVENT_STARTED)
		forget_reboots(k, name);
	tell_watcher(k, name);
	return 0;
}

static void on_reboot(virConnectPtr conn _unused_, virDomainPtr dom, void *ctx)
{
	forget_reboots(ctx, virDomainGetName(dom));
}

/* A guest let go of a device (DEVICE_DELETED), or will not (DEVICE_UNPLUG_GUEST_ERROR). Which one
 * does not matter: disk_list() tells. */
static void on_unplug(virConnectPtr conn _unused_, virDomainPtr dom, const char *event _unused_,
		      long long seconds _unused_, unsigned int micros _unused_,
		      const char *details _unused_, void *ctx)
{
	tell_watcher(ctx, virDomainGetName(dom));
}

void kvm_events_attach(struct kvm *k, virConnectPtr conn)
{
	int lifecycle, reboot, deleted, refused;

	lifecycle =
	    virConnectDomainEventRegisterAny(conn, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
					     VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle), k, NULL);
	reboot = virConnectDomainEventRegisterAny(conn, NULL, VIR_DOMAIN_EVENT_ID_REBOOT,
						  VIR_DOMAIN_EVENT_CALLBACK(on_reboot), k, NULL);
	deleted = virConnectDomainQemuMonitorEventRegister(conn, NULL, "DEVICE_DELETED", on_unplug,
							   k, NULL, 0);
	refused = virConnectDomainQemuMonitorEventRegister(conn, NULL, "DEVICE_UNPLUG_GUEST_ERROR",
							   on_unplug, k, NULL, 0);
	pthread_mutex_lock(&k->lock);
	k->event_ids[0] = lifecycle;
	k->event_ids[1] = reboot;
	k->monitor_ids[0] = deleted;
	k->monitor_ids[1] = refused;
	pthread_mutex_unlock(&k->lock);
	tell_watcher(k, NULL); /* what happened while nobody listened? */
}

void kvm_events_detach(struct kvm *k, virConnectPtr conn)
{
	int ids[2], monitor_ids[2];

	pthread_mutex_lock(&k->lock);
	memcpy(ids, k->event_ids, sizeof(ids));
	memcpy(monitor_ids, k->monitor_ids, sizeof(monitor_ids));
	k->event_ids[0] = k->event_ids[1] = -1;
	k->monitor_ids[0] = k->monitor_ids[1] = -1;
	pthread_mutex_unlock(&k->lock);
	for (int i = 0; i < 2; i++) {
		if (ids[i] >= 0)
			virConnectDomainEventDeregisterAny(conn, ids[i]);
		if (monitor_ids[i] >= 0)
			virConnectDomainQemuMonitorEventDeregister(conn, monitor_ids[i]);
	}
}

static void reset_late_ones(struct kvm *k, virConnectPtr conn)
{
	struct kvm_reboot *list = take_reboots(k, NULL);

	while (list) {
		struct kvm_reboot *r = list;
		virDomainPtr dom = virDomainLookupByName(conn, r->name);

		if (dom) {
			virDomainReset(dom, 0);
			virDomainFree(dom);
		}
		list = r->next;
		free(r);
	}
}

static void on_tick(int timer _unused_, void *ctx)
{
	struct kvm *k = ctx;
	virConnectPtr conn;

	if (k->stopping)
		return;
	conn = kvm_connect(k, NULL);
	if (!conn)
		return;
	if (virConnectIsAlive(conn) != 1)
		kvm_error(k, conn, NULL, "use",
			  "libvirt"); /* dropped; the next tick connects anew */
	else
		reset_late_ones(k, conn);
	virConnectClose(conn);
}

static void *run(void *ctx)
{
	struct kvm *k = ctx;

	while (!k->stopping)
		if (virEventRunDefaultImpl() < 0)
			virResetLastError();
	return NULL;
}

int kvm_events_start(struct kvm *k, struct error *e)
{
	int r;

	pthread_once(&register_once, register_loop);
	k->timer = virEventAddTimeout(KVM_TICK_MS, on_tick, k, NULL);
	if (k->timer < 0)
		return error_set(e, "InternalError", "cannot use libvirt's event loop: %s",
				 virGetLastErrorMessage());
	r = pthread_create(&k->thread, NULL, run, k);
	if (r != 0)
		return error_errno(e, r, "cannot start the thread of libvirt's events");
	k->thread_started = true;
	return 0;
}

void kvm_events_stop(struct kvm *k)
{
	k->stopping = true;
	if (k->thread_started) {
		virEventUpdateTimeout(k->timer, 0); /* wakes the loop */
		pthread_join(k->thread, NULL);
		k->thread_started = false;
	}
	if (k->timer >= 0)
		virEventRemoveTimeout(k->timer);
}
