/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_READINGS_H
#define MALLEE_SVC_NC_READINGS_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "measure/figures.h"

/*
 * Counters that the host's kernel keeps, read as they are. `root` is "" for the host, or a folder that has proc/ and sys/ (tests).
 * Negative errno when there is no such thing; what was read is then zero.
 */
struct cpu_reading { /* /proc/stat, of all cores together, in ticks */
	uint64_t total, idle, steal; /* idle: waiting for disks included */
	unsigned cores;
};
int cpu_read(const char *root, struct cpu_reading *ret);

/* A line of /proc/diskstats. */
struct disk_reading {
	char device[DISK_NAME_LEN]; /* first */
	struct disk_counters counters; /* at_ns 0 */
};
/* All disks, malloc()ed, sorted by name. */
int disks_read(const char *root, struct disk_reading **ret, size_t *ret_count);
const struct disk_reading *disk_find(const struct disk_reading *list, size_t count, const char *device); /* NULL */

struct link_reading { /* a line of /proc/net/dev: as the device sees it */
	char name[IFNAMSIZ]; /* first */
	uint64_t rx_bytes, rx_packets, rx_dropped, tx_bytes, tx_packets, tx_dropped;
};
/* All links, malloc()ed, sorted by name. */
int links_read(const char *root, struct link_reading **ret, size_t *ret_count);
const struct link_reading *link_find(const struct link_reading *list, size_t count, const char *name); /* NULL */

/* The host's NICs: links that a device is behind (/sys/class/net/…/device). */
struct nic_reading {
	char name[IFNAMSIZ];
	unsigned speed_mbit; /* 0: not known, as of virtio's */
};
#define READINGS_NICS 16 /* more are not looked at */
size_t nics_read(const char *root, struct nic_reading ret[static READINGS_NICS]); /* how many */

#define READINGS_VCPUS 32 /* more are not looked at one by one */

/* A guest's process. Zeroed: nothing is known of it yet. */
struct process_reading {
	pid_t pid;
	uint64_t started_ticks; /* tells two processes of one number apart */
	uint64_t cpu_ns;	/* all its threads */
	unsigned vcpus;
	pid_t vcpu_tid[READINGS_VCPUS];
	uint64_t vcpu_run_ns[READINGS_VCPUS];
	uint64_t vcpu_wait_ns[READINGS_VCPUS]; /* it could have run, and had no core */
};
/* before: an earlier reading of the same process, whose threads are known then; NULL: none. -ESRCH: there is none. */
int process_read(const char *root, pid_t pid, unsigned vcpus, const struct process_reading *before, struct process_reading *ret);

/* The whole disk that a file or block device lies on, as /proc/diskstats names it. -ENODEV: on none that is counted. */
int device_under(const char *root, const char *path, char ret[static DISK_NAME_LEN]);

#endif
