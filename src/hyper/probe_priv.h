/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_HYPER_PROBE_PRIV_H
#define MALLEE_HYPER_PROBE_PRIV_H

#include "hyper/driver.h"

/* How far the probe came. Each stage but the first two was run by a guest. */
enum probe_stage {
	PROBE_NO_DEVICE,  /* /dev/kvm is not there, or not for us */
	PROBE_NO_VM,	  /* it opens, but a machine cannot be made */
	PROBE_REAL_MODE,  /* died, or hung, as firmware does its work */
	PROBE_PRIVILEGED, /* … as a kernel sets itself up: tables, MSRs, page-table loads, an
			     exception */
	PROBE_LOOP,	  /* … in a plain counting loop */
	PROBE_DONE,
};

struct probe_result {
	enum probe_stage stage; /* where it ended; PROBE_DONE when all ran */
	int err;		/* errno of the failing call, 0 */
	int exit_reason;	/* KVM_EXIT_… that was not expected, -1 */
	bool timed_out;
	int64_t real_mode_us, privileged_us, loop_us; /* 0: not reached */
};

#define PROBE_TIMEOUT_MS 2000
#define PROBE_REAL_INSTRUCTIONS 100000
#define PROBE_PRIVILEGED_ROUNDS 200
#define PROBE_LOOP_INSTRUCTIONS 8000000
#define PROBE_MIN_LOOP_PER_S                                                                       \
	50000000 /* KVM that works does thousands of millions; TCG some hundred */
#define PROBE_MIN_REAL_PER_S                                                                       \
	1000000 /* old processors emulate real mode: slow is fine, hanging is not */
#define PROBE_MAX_PRIVILEGED_US 500000

/* Judge what was measured; *why as hyper_probe(). No I/O. */
enum hyper_accel probe_decide(const struct probe_result *r, char *why, size_t size);

/* The guest's part, in this process: may crawl or hang, so it runs in a child. */
void probe_run(struct probe_result *r, void (*report)(void *ctx, const struct probe_result *r),
	       void *ctx);

#endif
