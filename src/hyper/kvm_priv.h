/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_HYPER_KVM_PRIV_H
#define MALLEE_HYPER_KVM_PRIV_H

#include <libvirt/libvirt.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "hyper/driver.h"

/*
 * The guest's PCI Express tree. Every device has a root port of its own and an explicit address, so
 * that what is plugged later never moves what is there; the ports after the last device are free
 * for hot plug. QEMU takes eight ports a slot, hence three slots.
 */
enum kvm_port {
	KVM_PORT_DISK = 1, /* PCI bus number = number of the root port */
	KVM_PORT_NIC,
	KVM_PORT_RNG,
	KVM_PORT_BALLOON,
	KVM_PORT_SPARE_FIRST,
};
#define KVM_SPARE_PORTS 16
#define KVM_PORT_COUNT (KVM_PORT_SPARE_FIRST - 1 + KVM_SPARE_PORTS)
#define KVM_PORT_SLOT 2 /* first slot of bus 0 that holds root ports */

/* Append the domain's XML. direct_io: the disk's file system takes O_DIRECT. -EINVAL when a name
 * holds bytes that XML cannot. */
int kvm_domain_xml(const struct hyper_machine *m, enum hyper_accel accel, bool direct_io,
		   struct buf *out, struct error *e);

/* "mallee-<cloud>-" or an instance's name in it: does this domain belong to the cloud? */
bool kvm_name_is_ours(const char *cloud_id, const char *name);

/* libvirt's state and reason in the driver's words. */
void kvm_translate_state(int state, int reason, struct hyper_status *ret);

struct kvm_reboot { /* a guest that was asked to reboot and has not done so yet */
	struct kvm_reboot *next;
	int64_t deadline_mono_ms;
	char name[];
};

struct kvm {
	uint32_t magic;
	char *cloud_id, *uri;
	enum hyper_accel accel;

	pthread_mutex_t lock; /* the members below; never held over a libvirt call */
	virConnectPtr conn;   /* NULL: not connected */
	int event_ids[2];     /* lifecycle, reboot; of conn */
	struct kvm_reboot *reboots;
	void (*watch_fn)(void *ctx, const char *name);
	void *watch_ctx;

	atomic_bool stopping;
	int timer; /* in the event loop: looks at reboots, and wakes the loop to stop */
	bool thread_started;
	pthread_t thread; /* the event loop */
};
#define KVM_MAGIC 0x6b766d31u

/* A reference to the connection, opened (again) if need be; give it back with virConnectClose().
 * NULL: *e says why. */
virConnectPtr kvm_connect(struct kvm *k, struct error *e);
/* After a failed call: put libvirt's last error into *e; forget the connection if it broke. Returns
 * -ENOTCONN when the daemon is gone (worth trying again), and else -EREMOTEIO. */
int kvm_error(struct kvm *k, virConnectPtr conn, struct error *e, const char *what,
	      const char *name);

int kvm_events_start(struct kvm *k, struct error *e);
void kvm_events_stop(struct kvm *k);
void kvm_events_attach(struct kvm *k, virConnectPtr conn); /* a fresh connection's callbacks */
void kvm_events_detach(struct kvm *k, virConnectPtr conn);
/* Expect a reboot of this guest within ms; else reset it. */
void kvm_reboot_expect(struct kvm *k, const char *name, int64_t ms);

#endif
