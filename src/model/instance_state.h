/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_MODEL_INSTANCE_STATE_H
#define MALLEE_MODEL_INSTANCE_STATE_H

#include <stdbool.h>

/*
 * The life cycle of an instance as one table: state x event. Users ask (start, stop, reboot,
 * terminate), nodes report what they see. Whether a request is served at all for a root device of
 * the instance's kind is asked before the table.
 */
enum instance_state {
	INSTANCE_PENDING,
	INSTANCE_RUNNING,
	INSTANCE_STOPPING,
	INSTANCE_STOPPED,
	INSTANCE_SHUTTING_DOWN,
	INSTANCE_TERMINATED,
	INSTANCE_STATE_COUNT
};

enum instance_event {
	INSTANCE_ASK_START,
	INSTANCE_ASK_STOP,
	INSTANCE_ASK_REBOOT,
	INSTANCE_ASK_TERMINATE,
	INSTANCE_SEEN_PENDING,
	INSTANCE_SEEN_RUNNING,
	INSTANCE_SEEN_STOPPED,
	INSTANCE_SEEN_SHUTTING_DOWN,
	INSTANCE_SEEN_TERMINATED,
	INSTANCE_EVENT_COUNT
};

enum instance_verdict {
	INSTANCE_MOVES,	 /* to *ret_next, which may be the same state (a reboot) */
	INSTANCE_STAYS,	 /* nothing to do, no error */
	INSTANCE_REFUSES /* a user's request that this state does not allow */
};

enum instance_verdict instance_next(enum instance_state state, enum instance_event event,
				    enum instance_state *ret_next);

/* "shutting-down", and EC2's code for it: 32. */
const char *instance_state_name(enum instance_state s);
int instance_state_code(enum instance_state s);
/* INSTANCE_STATE_COUNT when name is NULL or none of ours. */
enum instance_state instance_state_parse(const char *name);
/* The event that a node's report of this state is. */
enum instance_event instance_state_seen(enum instance_state s);
/* Still holds an address and counts against the limits. */
bool instance_state_live(enum instance_state s);

#endif
