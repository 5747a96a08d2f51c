/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_MEASURE_FIGURES_H
#define MALLEE_MEASURE_FIGURES_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What a disk did, in the terms of iostat. Counters only grow; two samples of them make the figures of the time between:
 *   avgrq-sz = sectors / requests; avgqu-sz = time in queue, summed over requests, / elapsed;
 *   %util = time with at least one request outstanding / elapsed; await = time that requests took / requests.
 * Discards and flushes are counted by themselves: a discard of a gigabyte moves no data and would make avgrq-sz meaningless.
 */
#define DISK_NAME_LEN 64
#define SECTOR_BYTES 512

enum disk_op { DISK_READ, DISK_WRITE, DISK_DISCARD, DISK_FLUSH, DISK_OPS };

struct disk_op_counters {
	uint64_t ops;     /* completed */
	uint64_t merged;  /* joined with another before they were issued; not in ops */
	uint64_t bytes;
	uint64_t wait_ns; /* time that they took, summed */
	uint64_t sequential; /* began where a recent one ended */
};

struct disk_counters {
	uint64_t at_ns; /* when they were read, on any clock that does not go backwards; the caller's to set */
	struct disk_op_counters op[DISK_OPS];
	uint64_t outstanding;   /* requests at that moment; no counter */
	uint64_t busy_ns;       /* time with at least one outstanding */
	uint64_t weighted_ns;   /* requests outstanding, summed over time */
	uint64_t times_wrap_ns; /* the times start again from 0 here; 0: never */
	bool places_known;      /* sequential was counted: the kernel does not */
};

/* One line of /proc/diskstats (Linux, Documentation/admin-guide/iostats.rst): 11, 15 or 17 figures behind the name, by the
 * kernel's age; later figures are ignored. Does not touch at_ns' meaning: it is set to 0. -EINVAL: no such line. */
int disk_counters_parse(const char *line, char ret_name[DISK_NAME_LEN], struct disk_counters *ret);

/* The line of one disk ("loop0") in the text of the whole file. -ENOENT: there is none. */
int disk_counters_find(const char *diskstats, const char *name, struct disk_counters *ret);

/* One point of a stack in mallee-blockd's `stats`: "guest" is what was asked for, "disk" what went to the storage. Its
 * members are named as there. */
struct blockd_op_counters {
	uint64_t ops, bytes, errors, latency_ns, sequential;
};

struct blockd_counters {
	struct blockd_op_counters read, write, flush, discard, write_zeroes;
	uint64_t outstanding, busy_ns, weighted_ns;
	bool places_known;
};

/* write_zeroes counts as discard: no data move. at_ns is 0. */
struct disk_counters disk_counters_of_blockd(const struct blockd_counters *b);

/* What was done between two samples, as counters. outstanding is that of the later one, at_ns the time between.
 * -ESTALE: a counter went backwards and did not wrap (the device was removed and made anew, blockd started again), or no time
 * passed: the later sample is a new first one. A time that wrapped is found by times_wrap_ns. */
int disk_counters_delta(const struct disk_counters *before, const struct disk_counters *after, struct disk_counters *ret);

/* NaN where there was nothing to derive it from: no request, no sizes. MB: 10^6 bytes. */
struct disk_figures {
	double elapsed_s;
	double iops, read_iops, write_iops; /* reads and writes */
	double discards_s, flushes_s;
	double mb_s, read_mb_s, write_mb_s;
	double merged_s;
	double avgrq_sectors, read_avgrq_sectors, write_avgrq_sectors;
	double avgqu;
	double util_percent; /* 0 to 100 */
	double sequential_percent; /* of reads and writes; NaN where it was not counted */
	double await_ms, read_await_ms, write_await_ms, flush_await_ms;
};

/* The figures of the time between two samples; errors as disk_counters_delta. */
int disk_figures_between(const struct disk_counters *before, const struct disk_counters *after, struct disk_figures *ret);

#endif
