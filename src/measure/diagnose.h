/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_MEASURE_DIAGNOSE_H
#define MALLEE_MEASURE_DIAGNOSE_H

#include <stddef.h>

/*
 * What is known of one run of the bench, or of one running disk or NIC over the last seconds. Everything is a double, NaN or
 * negative when unknown, so that one table can name the figures; yes and no are 1 and 0. Make it with diagnose_input_init().
 * A rule of which an input is unknown does not fire: docs/diagnosis.md lists what each needs.
 */
struct diagnose_input {
	/* What the guest asks for. */
	double depth;          /* requests that its program keeps in flight */
	double request_bytes;
	double write, random;  /* yes or no; neither: sequential reads */
	double direct;         /* past the guest's page cache */
	double demand_percent; /* of the time it had a request outstanding; a bench asks all the time and need not tell */

	/* The way that requests take. */
	double sparse;         /* extents that are holes or unwritten */
	double host_cache;     /* through the host's page cache */
	double emulated;       /* a device of which each register access leaves the guest (LSI 53c895a, e1000) */
	double exits_per_request; /* of the guest's program: how often its processors leave KVM meanwhile */
	double network_volume; /* its frames carry disk requests (AoE) */
	double mtu;            /* of the interface that carries them */

	/* What came of it. */
	double mb_s;           /* what the guest got; MB: 10^6 bytes */
	double iops;           /* requests of the guest */
	double ratio;          /* to the host's own figure of the same workload */
	double avgrq_sectors, avgqu, util_percent; /* of the disk in the host, as in measure/figures.h */
	double flushes_s;         /* at the disk, beside the data */
	double metadata_writes_s; /* blocks of 4 KiB that are written beyond the data */
	double guest_cpu_percent; /* of the busiest virtual CPU */
	double host_cpu_percent;  /* of all processors of the host */
	double others_percent;    /* of what a disk that is busy all the time does, that is not for this one; live only */

	/* What there is to be had. */
	double disk_mb_s;         /* sequentially, at its best */
	double disk_best_sectors; /* the request at which it is */
	double wire_mb_s;         /* payload that the link carries */
	double limit_mb_s, limit_iops; /* the volume's own */
	double paravirtual_mb_s;  /* the same run over a paravirtual device */
	double uncached_mb_s;     /* the same run past the host's page cache */
};

void diagnose_input_init(struct diagnose_input *in);

/* The figure of that name ("avgqu"), to be set by whoever reads names; NULL: there is none. */
double *diagnose_input_at(struct diagnose_input *in, const char *name);

#define FINDING_WHY_LEN 400
struct finding {
	const char *rule; /* "queue-starved"; the names never change */
	char why[FINDING_WHY_LEN]; /* a sentence, and the figures that it rests on */
	const char *mend; /* what to do about it */
	double gain;      /* how many times as much is to be expected then; NaN: nothing known limits it from above */
};

#define FINDINGS_MAX 16

/* What holds it back, what gains most first; unknown gains come last. Never nothing: when no rule fires it is "none" with a
 * gain of 1. ret has room for FINDINGS_MAX; returns their count. */
size_t diagnose(const struct diagnose_input *in, struct finding *ret);

/* The rules by their order in the table, for help and documentation; NULL behind the last. */
const char *diagnose_rule_name(size_t i);

#endif
