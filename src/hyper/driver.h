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

struct hyper_machine {
	const char *name; /* domain name */
	const char *instance_id;
	const char *uuid; /* starts "ec2", 8-4-4-4-12; also the DMI system UUID and serial */
	int vcpus;
	int64_t memory_mib;
	const char *root_path; /* raw file, preallocated */
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
	/* Define and start. Idempotent: a running one of that name is success. */
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
	/* Calls fn, on a thread of the driver's own, whenever a machine changed state; name NULL:
	 * any of them may have (the driver was cut off meanwhile). Optional (NULL): then status()
	 * is polled. */
	int (*watch)(struct hyper *h, void (*fn)(void *ctx, const char *name), void *ctx);
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
