/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BENCH_MASTER_H
#define MALLEE_BENCH_MASTER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "block/front/vhost_client.h"

/* What the command line says. */
struct master_options {
	const char *socket;
	bool write, sequential, poll, no_event_idx, no_indirect, no_inflight, verify;
	unsigned depth, num;
	uint64_t block_bytes, span_bytes;
	double seconds, ramp_seconds;
	pid_t server;          /* whose CPU time is told; 0: nobody's */
	const char *spawn;     /* verify: the back end's command line, that it may be killed and started again */
	unsigned kills;
	unsigned seed;
};

uint64_t master_now_ns(void);
uint64_t master_random(uint64_t *state);
int master_connect(struct vhost_client *c, const struct master_options *o, int timeout_ms); /* says why not */
/* 0: all that was written is there. Prints its JSON. */
int master_verify(const struct master_options *o);

#endif
