/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_VOLUME_COUNTERS_H
#define MALLEE_VOLUME_COUNTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

/*
 * The counters of many mallee-blockd at once, for who asks all of them every few seconds. Connections stay open. A round asks
 * everybody, then takes what comes within one time limit, so that a process that is stopped or dead delays nobody but by that.
 * What is older than the command `counters` (processes outlive an upgrade) is asked for `stats`, of which this is a part.
 */
struct counters_op {
	uint64_t ops, bytes, errors, latency_ns;
	uint64_t sequential; /* began where a recent one ended */
};

enum { COUNTERS_READ, COUNTERS_WRITE, COUNTERS_FLUSH, COUNTERS_DISCARD, COUNTERS_WRITE_ZEROES, COUNTERS_OPS };

struct counters_point {
	struct counters_op op[COUNTERS_OPS];
	uint64_t busy_ns, weighted_ns; /* with a request outstanding; that, times how many were */
	uint64_t outstanding;
	bool places_known; /* sequential was counted: older processes do not */
};

struct counters {
	struct counters_point guest, disk; /* what the guest asks; what the back end is asked */
	uint64_t limit_iops, limit_bps;	   /* of the filter throttle; 0: none */
	uint64_t held, held_ns;		   /* requests that waited for it, and how long */
};

/* One process's connection. Zeroed memory is one that was never used. */
struct counters_link {
	int fd_plus_one; /* 0: not connected */
	pid_t pid;	 /* who answers, by the kernel */
	bool old;	 /* knows only `stats` */
	struct buf in;
};
void counters_link_done(struct counters_link *l);

struct counters_ask {
	struct counters_link *link;
	const char *path; /* of its control socket */
	int err;	  /* out: 0, -ECONNREFUSED, -ENOENT, -ETIMEDOUT, -ECONNRESET, -EBADMSG, … */
	uint64_t at_ns;	  /* out, as the next two: when it was answered (CLOCK_MONOTONIC) */
	pid_t pid;	  /* another than before has counters that begin anew */
	struct counters got;
};

/* Takes timeout_ms at most, all together. A link is one thread's. */
void counters_round(struct counters_ask *asks, size_t count, int timeout_ms);

/* A process's answer, a line without its end: 0, -EBADMSG, -EOPNOTSUPP (it does not know the command). */
int counters_parse(const char *line, size_t len, struct counters *ret);

#endif
