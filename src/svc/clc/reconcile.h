/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_RECONCILE_H
#define MALLEE_SVC_CLC_RECONCILE_H

#include "base/arena.h"
#include "base/error.h"
#include "gen/records.h"
#include "gen/shared.h"

struct clc;

/*
 * Drives the cluster to what the records want, and the records to what the cluster reports. Two
 * threads, which share nothing but the state and a list of ids:
 *
 *   applier   sends the specifications that changed since it last sent them (all of them when the
 * cluster controller has been started anew), releases instances whose end is recorded, and deletes
 * them an hour after. It keeps a small index of all instances, brought up to date by revision, so
 * that a pass costs what has changed. observer  asks the cluster controller for changes, waiting
 * there until there are some, and writes them into the records by the table of
 * model/instance_state.
 *
 * Both only compare and repeat, so either may be killed at any instruction. An unreachable
 * controller changes nothing.
 */
struct reconciler;

int reconciler_start(struct clc *c, struct reconciler **ret, struct error *e);
void reconciler_stop(struct reconciler *r); /* NULL is fine; waits for both threads: 3 s at most */
void reconciler_wake(struct reconciler *r); /* records changed. NULL is fine; any thread */

/* ---- the parts, for the threads and the tests ---- */
struct applier;
struct applier *applier_new(struct clc *c);
void applier_free(struct applier *a); /* NULL is fine */
/* One pass. 0, or negative when the controller could not be told: try again later. */
int applier_pass(struct applier *a, struct error *e);
/* The observer met another epoch, or ended instances of which there is no record left to take them
 * from. */
void applier_note_epoch(struct applier *a, const char *epoch);
void applier_forget(struct applier *a, const char *instance_id);

struct observer;
struct observer *observer_new(struct clc *c);
void observer_free(struct observer *o); /* NULL is fine */
/* What one pass found that concerns the applier. */
struct observer_findings {
	const char *epoch;
	size_t changed;	    /* records written */
	size_t ended_count; /* ended instances that have no record or an ended one */
	const char **ended;
};
/* Ask, waiting up to wait_ms for something new; strings in arena. */
int observer_pass(struct observer *o, struct arena *arena, int wait_ms,
		  struct observer_findings *ret, struct error *e);

/* What a node needs to run this instance. */
int instance_spec(struct clc *c, struct arena *a, const struct records_instance *i,
		  struct shared_instance_spec *ret, struct error *e);

#endif
