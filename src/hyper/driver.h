/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_HYPER_DRIVER_H
#define MALLEE_HYPER_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/error.h"

/*
 * A hypervisor driver: turns a machine description into a running guest, and tells what runs. It
 * knows nothing of images, leases or clouds' life cycles: disks are files that exist, NICs are taps
 * that exist. Domains are named mallee-<cloud id>-<instance id>; a driver never touches one of
 * another name. Calls come from NC's worker threads, at most one at a time per machine.
 */
enum hyper_accel { HYPER_ACCEL_TCG, HYPER_ACCEL_KVM, HYPER_ACCEL_NONE /* fake */ };

enum hyper_disk_kind {
	HYPER_DISK_FILE,       /* a raw file or block device that QEMU opens itself */
	HYPER_DISK_VHOST_USER, /* a unix socket on which another process serves the disk */
};

#define HYPER_DISK_SLOTS 16
#define HYPER_SERIAL_BYTES 20 /* what virtio-blk can tell the guest */

/*
 * A disk beside, or in place of, the root disk. Each sits alone on a PCIe root port: the boot disk
 * on one of its own, the others on the port of their slot; so a slot is the same place for the
 * guest whether the disk was there at its start or came later. The serial names the disk in all
 * calls. The guest sees it as the disk's serial number: of a file QEMU tells it; of a vhost-user
 * disk the process behind the socket must, since QEMU asks it.
 */
struct hyper_disk {
	enum hyper_disk_kind kind;
	const char *path;   /* absolute */
	const char *serial; /* letters, digits, - and _; e.g. "vol" and 17 hex digits */
	int slot;	    /* 0 to HYPER_DISK_SLOTS - 1; of no meaning for the boot disk */
	int queues;	    /* request queues; 0 counts as 1 */
	bool boot;	    /* the guest boots from it; it cannot be detached */
};

enum hyper_disk_state {
	HYPER_DISK_ATTACHED,
	HYPER_DISK_DETACHING, /* the guest was asked to let go of it and has not yet */
};

struct hyper_disk_status {
	const char *serial;
	int slot; /* -1: the boot disk */
	enum hyper_disk_state state;
};

struct hyper_machine {
	const char *name; /* domain name */
	const char *instance_id;
	const char *uuid; /* starts "ec2", 8-4-4-4-12; also the DMI system UUID and serial */
	int vcpus;
	int64_t memory_mib;
	const char *root_path; /* raw file, preallocated; NULL: one of the disks is the boot disk */
	const struct hyper_disk *disks; /* all, also those that were attached while it ran */
	size_t disk_count;
	const char *tap;       /* existing tap, on its bridge */
	const char *mac;
	const char *console_path; /* serial console is appended here by the hypervisor */
	uid_t uid;		  /* QEMU of this machine runs as */
	gid_t gid;
};

enum hyper_state { HYPER_ABSENT, HYPER_RUNNING, HYPER_PAUSED, HYPER_SHUTTING_DOWN, HYPER_OFF };
enum hyper_off_reason {
	HYPER_OFF_UNKNOWN,
	HYPER_OFF_GUEST /* the guest powered itself off */,
	HYPER_OFF_US,
	HYPER_OFF_CRASHED
};

struct hyper_status {
	const char *name;
	enum hyper_state state;
	enum hyper_off_reason off_reason;
};

/* What a host has to give, before anything is set aside or sold. */
struct hyper_host {
	int vcpus;
	int64_t memory_mib, disk_mib;
};

/* What a machine has asked of the disks that QEMU opens itself, since it started; all of them together. */
struct hyper_file_counters {
	bool known; /* it runs, and its hypervisor told */
	uint64_t read_ops, read_bytes, read_ns, write_ops, write_bytes, write_ns, flush_ops, flush_ns;
};

struct hyper;

struct hyper_config {
	const char *cloud_id;
	const char *run_dir;	/* for sockets and logs of this driver, inside the state folder */
	enum hyper_accel accel; /* as probed */
	const char *uri;	/* libvirt: NULL for qemu:///system */
};

struct hyper_ops {
	const char *name; /* "kvm", "fake" */
	/* Succeeds also while the hypervisor's daemon cannot be reached: calls then answer
	 * -ENOTCONN ("ServiceUnavailable") until it can be. Every other negative answer is one that
	 * trying again will hardly mend. */
	int (*open)(const struct hyper_config *c, struct hyper **ret, struct error *e);
	void (*close)(struct hyper *h);
	/* Define and start, with the disks of m. Idempotent: a running one of that name is success,
	 * whatever its disks are: disk_list() tells them. A vhost-user disk must be served by then:
	 * -ENOTCONN when nobody listens on its socket. */
	int (*start)(struct hyper *h, const struct hyper_machine *m, struct error *e);
	int (*shutdown)(struct hyper *h, const char *name,
			struct error *e); /* ask the guest (ACPI); returns at once */
	int (*destroy)(struct hyper *h, const char *name,
		       struct error *e); /* off now; and forget the definition. Absent is success */
	int (*reboot)(
	    struct hyper *h, const char *name,
	    struct error *e); /* ACPI where the guest listens, else reset; returns at once */
	int (*status)(struct hyper *h, const char *name, struct hyper_status *ret, struct error *e);
	int (*list)(struct hyper *h, struct arena *a, struct hyper_status **ret, size_t *ret_count,
		    struct error *e); /* ours only */
	/*
	 * Disks of a running machine. What is plugged is asked of the hypervisor each time, so that
	 * a caller that was killed anywhere just calls again: what it left half done is finished or
	 * undone by the next of these three calls, whichever it is.
	 */
	/* Plug it in. Success when that very disk is in that slot. -EEXIST: the slot or the serial
	 * is in use otherwise; -EBUSY: the disk is being detached; -ENOENT: the machine does not
	 * run; -ENOTCONN: as ever, or nobody serves the disk's socket. */
	int (*disk_attach)(struct hyper *h, const char *name, const struct hyper_disk *d,
			   struct error *e);
	/* Ask the guest to let go of it, and return: disk_list() and the watcher tell when it has.
	 * May be repeated, and should be, a few seconds apart: a guest that was not up yet did not
	 * hear the first. Success when it is not there (or the machine is not on).
	 * force: take it away without the guest's word, as one pulls a disk out; requests under way
	 * stay unanswered, and what the guest has of the disk is stale until it rescans its PCI bus
	 * or boots again. -EOPNOTSUPP where the hypervisor has no way to. */
	int (*disk_detach)(struct hyper *h, const char *name, const char *serial, bool force,
			   struct error *e);
	/* All disks that have a serial. None when the machine is not on. */
	int (*disk_list)(struct hyper *h, const char *name, struct arena *a,
			 struct hyper_disk_status **ret, size_t *ret_count, struct error *e);
	/* Calls fn, on a thread of the driver's own, whenever a machine changed state, or let go of
	 * a disk, or refused to; name NULL: any of them may have (the driver was cut off
	 * meanwhile). Optional (NULL): then status() is polled. */
	int (*watch)(struct hyper *h, void (*fn)(void *ctx, const char *name), void *ctx);
	/* The process that a running machine is, for who reads its counters in /proc; -ENOENT: not known. Cheap. Optional. */
	int (*process)(struct hyper *h, const char *name, pid_t *ret_pid);
	/* Of these running machines, into ret[count]. Costs a question to each QEMU. Optional. */
	int (*file_counters)(struct hyper *h, const char *const *names, size_t count, struct hyper_file_counters *ret,
			     struct error *e);
	void (*host)(struct hyper *h, struct hyper_host *ret); /* NULL: the real host */
	bool fakes_disks;				       /* a root disk need only exist */
	bool fakes_network; /* no tap is wanted and the guest counts as reachable */
};

extern const struct hyper_ops hyper_kvm_ops;  /* libvirt, QEMU with KVM or TCG */
extern const struct hyper_ops hyper_fake_ops; /* nothing runs: tests and scale */

/* "kvm", "tcg" or "none" */
const char *hyper_accel_name(enum hyper_accel accel);

/* The probe: runs some millions of guest instructions on /dev/kvm and times them. *why is one line
 * of text for the operator, to be put behind the accelerator's name, e.g. "8.0 M instructions in 11
 * ms" or "/dev/kvm runs 0.3 M instructions/s, below 50 M/s". Takes at most about 2 s. */
enum hyper_accel hyper_probe(char *why, size_t size);

#endif
