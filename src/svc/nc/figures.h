/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_FIGURES_H
#define MALLEE_SVC_NC_FIGURES_H

#include <net/if.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/id.h"
#include "measure/diagnose.h"
#include "measure/figures.h"
#include "svc/nc/readings.h"
#include "volume/counters.h"

/*
 * Live figures of the instances that run here: what was done between the last two samples of everything that counts, and the sums
 * since it was first seen. No I/O: the sampler (sampler.c) reads, and tells what it read by figures_…_took().
 *
 * A source that began to count anew (a process that was started again, a tap made anew) gives no figures for that one interval;
 * sums go on. One that cannot be read gives none either, and `why` says so.
 *
 * Threads: the sampler alone adds, removes and changes, under `lock`; it may read without it. Others read under the lock.
 */
#define FIGURES_NAME 64
#define FIGURES_WHY 120

enum figures_source {
	FIGURES_BLOCKD,	    /* a mallee-blockd's control socket */
	FIGURES_HYPERVISOR, /* QEMU's own disk, by the driver */
	FIGURES_NONE,	    /* nothing serves it: the hypervisor is a fake */
};

/* What is to be sampled. Its strings are the caller's. */
struct figures_disk_target {
	const char *name;	 /* "vol-…", "disk-sdb", "root" */
	const char *device_name; /* as the user named it, "/dev/sdf"; NULL: not named */
	const char *control;	 /* of a FIGURES_BLOCKD */
	const char *under;	 /* a file or device that it lies on; NULL: to be found out */
	enum figures_source source;
	bool is_volume; /* of EBS */
};
struct figures_target {
	const char *id, *domain, *tap, *interface_id;
	unsigned vcpus;
	const struct figures_disk_target *disks;
	size_t disk_count;
};

struct figures_disk {
	char name[FIGURES_NAME], device_name[FIGURES_NAME];
	char *control, *under;
	enum figures_source source;
	bool is_volume;
	char host_device[DISK_NAME_LEN]; /* it lies on; "": on none that is counted */
	bool host_device_known;		 /* it was looked for */
	bool host_cached;		 /* the host's page cache is between: what the disk does now is not what is asked now */

	/* the last sample */
	bool have;
	pid_t pid;
	struct disk_counters guest, storage; /* storage: FIGURES_BLOCKD */
	struct counters_link link;
	struct process_reading process; /* its blockd */
	uint64_t process_at_ns;

	/* between the last two; valid if fresh, else why */
	bool fresh;
	char why[FIGURES_WHY];
	struct disk_figures guest_figures, storage_figures;
	struct disk_counters guest_delta, storage_delta;
	uint64_t limit_iops, limit_bps; /* 0: none; what is saved up may exceed them for a while */
	uint64_t held, held_delta;	/* requests that waited for them */
	double process_percent;		/* of one core; negative: not known */

	struct disk_counters total; /* guest's, since it was first seen; at_ns is how long */
};

struct figures_nic {
	char tap[IFNAMSIZ];
	bool have;
	struct link_reading last;
	uint64_t last_ns;

	bool fresh;
	double elapsed_s, total_s;
	struct link_reading delta, total; /* of the tap: what it receives is what the guest sends */
};

struct figures_cpu {
	bool have;
	struct process_reading last;
	uint64_t last_ns;

	bool fresh;
	unsigned vcpus;		/* that were told apart; 0: none was, and the next three are the process's */
	double elapsed_s;
	double percent;		/* of all its vCPUs */
	double busiest_percent; /* of the busiest one */
	double wait_percent;	/* of the one that waited longest for a core */
	double process_percent; /* QEMU as a whole, of one core */
	uint64_t total_ns, total_elapsed_ns; /* vCPUs' time since it was first seen; over all of them */
};

struct figures_instance {
	char id[ID_LEN], interface_id[ID_LEN];
	char *domain;
	unsigned vcpus;
	struct figures_cpu cpu;
	struct figures_nic nic;
	struct figures_disk **disks;
	size_t disk_count;
};

/* Of a NIC of the host's, as it sees it: what it receives comes from outside. */
struct figures_host_link {
	char name[IFNAMSIZ];
	unsigned speed_mbit; /* each way; 0: it does not tell */
	struct figures_nic counted;
};

struct figures_host_disk {
	char device[DISK_NAME_LEN];
	bool have, fresh;
	struct disk_counters last, delta;
	struct disk_figures figures;
	struct disk_figures best; /* the interval with the most MB/s since it is looked at; elapsed_s 0: none yet */
};

struct figures_host {
	bool have, fresh;
	struct cpu_reading last;
	unsigned cores;
	double cpu_percent, steal_percent; /* of all cores */
	struct figures_host_disk *disks;   /* those that something of an instance lies on */
	size_t disk_count;
	struct figures_host_link *links; /* its NICs, not what was made by software */
	size_t link_count;
};

struct figures {
	pthread_mutex_t lock; /* all below */
	struct figures_instance **instances; /* sorted by id */
	size_t count;
	struct figures_host host;
	int64_t rounds, at_ms; /* how many were made; when the last one was (Unix time) */
	double elapsed_s;      /* between the last two */
	double sampler_percent; /* what sampling takes of one core, the sampler's thread alone */
};

void figures_init(struct figures *f);
void figures_done(struct figures *f);

/* Lock. Have exactly these, sorted by id; what is there stays as it is. */
void figures_sync(struct figures *f, const struct figures_target *targets, size_t count);
struct figures_instance *figures_find(const struct figures *f, const char *id); /* Lock, or the sampler; NULL */

/* Lock, all below. at_ns: of a clock that does not jump. err: what reading it came to. */
void figures_disk_took(struct figures_disk *d, const struct counters_ask *got);
/* Of a disk of QEMU's own: c->at_ns is set. */
void figures_file_took(struct figures_disk *d, int err, const struct disk_counters *c);
void figures_disk_process_took(struct figures_disk *d, uint64_t at_ns, const struct process_reading *p); /* pid 0: gone */
void figures_nic_took(struct figures_nic *n, uint64_t at_ns, const struct link_reading *l);			    /* l NULL: gone */
void figures_cpu_took(struct figures_cpu *c, unsigned vcpus, uint64_t at_ns, const struct process_reading *p); /* p NULL: gone */
/* Exactly these are there now. */
void figures_sync_links(struct figures *f, const struct nic_reading *nics, size_t count);
void figures_host_took(struct figures *f, uint64_t at_ns, const struct cpu_reading *cpu, const struct disk_reading *disks, size_t count);

/* --- figures_verdict.c: what holds a disk back. Lock. --- */
double figures_held_percent(const struct figures_disk *d); /* of its requests, those that waited for its limits */
#define FIGURES_BUSY_ENOUGH_PERCENT 50 /* below, nothing holds a guest back but a limit or a CPU */
/* Into ret[FINDINGS_MAX]; how many. 0: it asked for nothing, or has no figures. */
size_t figures_diagnose(const struct figures *f, const struct figures_instance *inst, const struct figures_disk *d,
			struct finding *ret);

/* Its CPUs alone, whatever its disks and NICs do: 0 or 1 of the rules guest-cpu and host-cpu. */
size_t figures_diagnose_cpu(const struct figures *f, const struct figures_instance *inst, struct finding *ret);

/* Its NIC: none, one or both of wire and nic-drops, into ret[2]. What its CPUs do to it, they tell themselves. */
size_t figures_diagnose_nic(const struct figures *f, const struct figures_instance *inst, struct finding *ret);

/* --- figures_cloudwatch.c: under CloudWatch's names. Lock. --- */
struct figures_metric {
	const char *space, *name, *unit;
	double value, total; /* of the last interval; since it was first seen */
	double total_s;	     /* … that long ago */
};
#define FIGURES_METRICS_MAX 16
size_t figures_disk_metrics(const struct figures_disk *d, struct figures_metric *ret);
size_t figures_instance_metrics(const struct figures_instance *inst, struct figures_metric *ret);

#endif
