/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_HYPER_KVM_PRIV_H
#define MALLEE_HYPER_KVM_PRIV_H

#include <jansson.h>
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
#define KVM_SPARE_PORTS HYPER_DISK_SLOTS
#define KVM_PORT_COUNT (KVM_PORT_SPARE_FIRST - 1 + KVM_SPARE_PORTS)
#define KVM_PORT_SLOT 2 /* first slot of bus 0 that holds root ports */

/* Entries of a vhost-user disk's ring: one request may be of as many segments, so that they can be
 * large. (QEMU's own default is 128.) */
#define KVM_QUEUE_SIZE 256

/* Append the domain's XML; direct_io(path): does the file's file system take O_DIRECT? -EINVAL when
 * a name holds bytes that XML cannot, or the disks contradict one another. */
typedef bool kvm_direct_io_fn(const char *path);
int kvm_domain_xml(const struct hyper_machine *m, enum hyper_accel accel,
		   kvm_direct_io_fn *direct_io, struct buf *out, struct error *e);
/* The same of one disk that is no boot disk, as libvirt's hot plug takes it. */
int kvm_disk_xml(const struct hyper_disk *d, bool direct_io, struct buf *out, struct error *e);

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
	int monitor_ids[2];   /* a disk is gone, a disk is refused; of conn */
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
 * -ENOTCONN when the daemon is gone (worth trying again), -ENOENT when the domain is, and else
 * -EREMOTEIO. */
int kvm_error(struct kvm *k, virConnectPtr conn, struct error *e, const char *what,
	      const char *name);
/* The same after a call on a domain. (Asking libvirt for the name first would lose the error.) */
int kvm_domain_error(struct kvm *k, virDomainPtr dom, struct error *e, const char *what);

/* 1: it is off (or runs already), or gone since it was looked up. */
int kvm_resume(struct kvm *k, virDomainPtr dom, struct error *e);

/* Runs fn on the named domain of ours. Absent: *ret_absent and 0, when the caller has a use for that,
 * or -ENOENT; also when fn says -ENOENT, since others may undefine the domain at any time. */
typedef int kvm_domain_fn(struct kvm *k, virConnectPtr conn, virDomainPtr dom, void *ctx,
			  struct error *e);
int kvm_on_domain(struct hyper *h, const char *name, bool *ret_absent, kvm_domain_fn *fn, void *ctx,
		  struct error *e);

/* One guest's QEMU monitor. */
struct kvm_monitor {
	struct kvm *k;
	virConnectPtr conn;
	virDomainPtr dom;
};

/*
 * Runs one command; takes over args (NULL: none). *ret (may be NULL) is its answer, for the caller
 * to json_decref(). -ENOENT: the guest does not run. -EREMOTEIO: QEMU refused, or libvirt did.
 *
 * libvirt marks a domain that is spoken to like this as tainted ("custom-monitor"): a line in
 * libvirtd's log, once a guest, and a word in its status file. It has no other effect.
 */
int kvm_monitor_run(const struct kvm_monitor *m, const char *command, json_t *args, json_t **ret,
		    struct error *e);
/* A line of the human monitor; *ret_text (may be NULL) is for the caller to free(). */
int kvm_monitor_line(const struct kvm_monitor *m, const char *line, char **ret_text,
		     struct error *e);

/* The id that QEMU knows a disk by, the same for those of the XML (libvirt wants "ua-" there) and
 * for those plugged later: its place and serial, so that it says all that a list needs. */
#define KVM_DISK_ID_BYTES 64
void kvm_disk_id(const struct hyper_disk *d, char id[static KVM_DISK_ID_BYTES]);
/* -EINVAL: not one of ours. ret->serial points into id. */
int kvm_disk_id_parse(const char *id, struct hyper_disk *ret);

/* Pull out the device behind this root port, whatever the guest says. It must be the one that is
 * meant: look before. Leaves the guest paused, and this mark among the chardevs, if the process is
 * killed in it: then kvm_eject_finish() is due. */
#define KVM_EJECT_MARK "mallee-ejecting"
int kvm_eject_finish(const struct kvm_monitor *m, struct error *e);
int kvm_eject(const struct kvm_monitor *m, unsigned int port, struct error *e);

int kvm_disk_attach(struct hyper *h, const char *name, const struct hyper_disk *d,
		    struct error *e);
int kvm_disk_detach(struct hyper *h, const char *name, const char *serial, bool force,
		    struct error *e);
int kvm_disk_list(struct hyper *h, const char *name, struct arena *a,
		  struct hyper_disk_status **ret, size_t *ret_count, struct error *e);
/* -ENOTCONN when one of the machine's sockets is not served: QEMU would wait for it, for ever and
 * deaf. */
int kvm_disks_served(const struct hyper_machine *m, struct error *e);

/* kvm_figures.c */
int kvm_process(struct hyper *h, const char *name, pid_t *ret_pid);
int kvm_file_counters(struct hyper *h, const char *const *names, size_t count, struct hyper_file_counters *ret,
		      struct error *e);

int kvm_events_start(struct kvm *k, struct error *e);
void kvm_events_stop(struct kvm *k);
void kvm_events_attach(struct kvm *k, virConnectPtr conn); /* a fresh connection's callbacks */
void kvm_events_detach(struct kvm *k, virConnectPtr conn);
/* Expect a reboot of this guest within ms; else reset it. */
void kvm_reboot_expect(struct kvm *k, const char *name, int64_t ms);

#endif
