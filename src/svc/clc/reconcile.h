/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_RECONCILE_H
#define MALLEE_SVC_CLC_RECONCILE_H

#include "base/arena.h"
#include "base/error.h"
#include "gen/records.h"
#include "gen/shared.h"
#include "gen/storage.h"

struct clc;

/*
 * Drives the cluster and the storage to what the records want, and the records to what those
 * report. Two threads for each, which share nothing but the state and a list of ids:
 *
 *   applier   sends the specifications that changed since it last sent them (all of them when the
 * controller has been started anew), and releases what has ended once that is recorded; ended
 * instances it deletes an hour after. It keeps a small index of all there are, brought up to date by
 * revision, so that a pass costs what has changed.
 *   observer  asks the controller for changes, waiting there until there are some, and writes them
 * into the records by the tables of model/instance_state and model/volume_state.
 *
 * Both only compare and repeat, so either may be killed at any instruction. An unreachable
 * controller changes nothing. An attachment concerns both sides: an observer that ends one wakes the
 * other side's applier.
 */
struct reconciler;
enum reconcile_side { RECONCILE_CLUSTER, RECONCILE_STORAGE, RECONCILE_SIDES };

struct reconciler *reconciler_new(struct clc *c);
int reconciler_start(struct reconciler *r, struct error *e);
void reconciler_stop(struct reconciler *r); /* NULL is fine; waits for all threads: 3 s at most */
void reconciler_free(struct reconciler *r); /* NULL is fine; stopped */
/* Records changed. NULL is fine; any thread, from _new to _free. */
void reconciler_wake(struct reconciler *r, enum reconcile_side side);

/* ---- the parts, for the threads and the tests ---- */

/* What one pass of an observer found that concerns the appliers. */
struct observer_findings {
	const char *epoch;
	size_t changed;	    /* records written */
	bool other_side;    /* some of them are wanted of the other controller */
	bool snapshots;	    /* some snapshots have been completed, or failed */
	size_t ended_count; /* ended ones that have no record, or one that says so */
	const char **ended;
};

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
/* Ask, waiting up to wait_ms for something new; strings in arena. */
int observer_pass(struct observer *o, struct arena *arena, int wait_ms,
		  struct observer_findings *ret, struct error *e);

/* What a node needs to run this instance. */
int instance_spec(struct clc *c, struct arena *a, const struct records_instance *i,
		  struct shared_instance_spec *ret, struct error *e);

/* The same towards the storage controller. Records of what it has deleted go at once, so every
 * ended one is told by the observer. */
struct storage_applier;
struct storage_applier *storage_applier_new(struct clc *c);
void storage_applier_free(struct storage_applier *a);
int storage_applier_pass(struct storage_applier *a, struct error *e);
void storage_applier_note_epoch(struct storage_applier *a, const char *epoch);
void storage_applier_forget(struct storage_applier *a, const char *id);

struct storage_observer;
struct storage_observer *storage_observer_new(struct clc *c);
void storage_observer_free(struct storage_observer *o);
int storage_observer_pass(struct storage_observer *o, struct arena *arena, int wait_ms,
			  struct observer_findings *ret, struct error *e);

int volume_spec(struct clc *c, struct arena *a, const struct records_volume *v,
		struct storage_volume_spec *ret, struct error *e);
int snapshot_spec(struct clc *c, struct arena *a, const struct records_snapshot *s,
		  struct storage_snapshot_spec *ret, struct error *e);

#endif
