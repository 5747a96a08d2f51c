/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_SNAPSHOT_PRIV_H
#define MALLEE_SVC_SC_SNAPSHOT_PRIV_H

#include "svc/sc/sc_priv.h"

/* A worker at one snapshot, for snapshot.c (what is next), snapshot_view.c (its frozen view) and snapshot_data.c (what is stored). */

#define SNAP_LOOK_MS 2000 /* for what somebody should have told */

enum snap_step {
	STEP_DONE,
	STEP_AGAIN,
	STEP_HEAVY, /* on a heavy worker */
	STEP_WAIT,  /* j->wait_ms, or until something happens */
	STEP_RETRY, /* j->err */
};

struct snap_job {
	struct sc *sc;
	struct sc_snapshot *s; /* busy */
	const char *id;
	struct arena *arena;
	const struct storage_snapshot_spec *spec; /* a copy */
	struct sc_snapshot_record rec;            /* a copy; snap_commit() makes it so */
	bool heavy, told; /* told: somebody knows when it began */
	int64_t wait_ms, failing_ms;
	struct error err;
};

/* ---- snapshot.c ---- */
int snap_commit(struct snap_job *j); /* j->rec to disk and into the table; negative with j->err */
enum snap_step snap_wait(struct snap_job *j, int64_t ms);
void snap_tell_others(struct snap_job *j); /* who may have waited for this one */
enum snap_step snap_fail(struct snap_job *j, const char *fmt, ...) _printf_(2, 3); /* for good */
enum snap_step snap_stored(struct snap_job *j, const struct snap_info *info);

/* ---- snapshot_view.c ---- */
enum snap_step snap_find_place(struct snap_job *j);
enum snap_step snap_begin_view(struct snap_job *j);
enum snap_step snap_forget_view(struct snap_job *j); /* nobody was told of it, or wrote since: it is begun anew, perhaps elsewhere */
bool snap_still_there(struct snap_job *j);           /* who was chosen to serve the view still has the volume */
/* The snapshot is stored, has failed, or is not wanted: its view is given up. */
enum snap_step snap_end_view(struct snap_job *j, bool count_from_it);

/* ---- snapshot_data.c ---- */
bool snap_is_turn(struct snap_job *j); /* no view of the volume that was begun before is left */
enum snap_step snap_upload(struct snap_job *j);

#endif
