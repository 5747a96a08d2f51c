/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_MEASURE_MODEL_BENCH_H
#define MALLEE_MEASURE_MODEL_BENCH_H

#include "measure/model.h"

/*
 * A row that `mallee bench disk` measured, in the model's terms. How a configuration shapes requests is in a table with where
 * it comes from; what depends on the machine (latency, the processor's work for a byte, a random request's service) is taken from other
 * rows of the same result or from the row's processor time, never from the columns that are predicted.
 */

/* What is known of a row; 0: unknown. */
struct model_bench_row {
	const char *configuration;
	const char *workload;
	double depth;               /* that the workload keeps */
	double request_bytes;       /* of the workload */
	bool host_cache;            /* the host's page cache is in the path; of a network volume: its storage host's */
	double cache_write_sectors; /* what the host's page cache makes of a stream, and how many it keeps going: */
	double cache_write_depth;   /* as the host's own rows showed */
	double cache_read_sectors;
	double cache_read_depth;
	double disk_mb_s;           /* of the disk under test */
	double flush_us;            /* what a flush costs it, */
	double seek_us;             /* and going from a file's data to its metadata or back */
	double flushes_per_byte;    /* seen on the disk, for what the workload wrote; likewise */
	double metadata_per_byte;   /* writes of a block of 4 KiB beside the data */
	double latency_us;          /* of one request of 64 KiB at depth 1, beside the disk's time */
	double random_us;           /* the disk's time for a small random request */
	double cpu_us_per_byte;     /* of the guest's processor */
	double mtu;                 /* of a network volume's link, and */
	double wire_mb_s;           /* its rate; unknown: no limit */
	double limit_mb_s;
	double limit_iops;
};

/* -ENOENT: nothing is known of such a configuration or workload; -ENODATA: a figure is missing without which nothing can be said. */
int model_bench_path(const struct model_bench_row *r, struct model_disk *ret_disk, struct model_path *ret_path);

/* The row from which a configuration's latency is taken: "direct-read" for all that reads, "direct-write" for what writes. NULL: none. */
const char *model_bench_reference(const char *workload);
/* That row's latency: the part of a synchronous request of `bytes` in which the disk was idle, at least 0. That is what the transfer
 * leaves of it, or less: where flushes and seeks kept the disk busy, util_percent knows. */
double model_bench_latency_us(double bytes, double mb_s, double disk_mb_s, double util_percent);

#endif
