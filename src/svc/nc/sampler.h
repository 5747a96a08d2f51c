/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_SAMPLER_H
#define MALLEE_SVC_NC_SAMPLER_H

#include <pthread.h>
#include <stdint.h>

#include "svc/nc/figures.h"

struct nc;

/* The two threads that keep nc's figures (figures.h), and who waits for them. */
struct sampler {
	struct figures figures;
	pthread_cond_t due, done; /* with nc->lock: sample now; a sample was made */
	bool asked;
	int64_t rounds, sampled_mono_ms; /* nc->lock */
};

/* What one round costs elsewhere: it is for the sampler and for the bench that weighs it. root: as in readings.h; pid_of: of an
 * instance's machine, or -ENOENT. */
typedef int sampler_pid_fn(void *ctx, const char *domain, pid_t *ret);
void sampler_round(struct figures *f, const char *root, sampler_pid_fn *pid_of, void *ctx);

void sampler_init(struct sampler *s);
void sampler_done(struct sampler *s);
void sampler_stop(struct sampler *s); /* Lock; wakes all */
void *nc_sampler(void *ctx);	  /* their threads */
void *nc_file_sampler(void *ctx);
/* Returns when there is a sample that is no older than this, or after two seconds. */
void nc_sample_fresh(struct nc *nc, int64_t max_age_ms);

#endif
