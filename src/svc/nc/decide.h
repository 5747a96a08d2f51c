/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_DECIDE_H
#define MALLEE_SVC_NC_DECIDE_H

#include "hyper/driver.h"

/*
 * What is to be done next for an instance, out of what is wanted and what is: one table, no I/O.
 * The reconciler carries out the action, gathers the facts anew and asks again, until there is
 * nothing to do.
 */
enum nc_wanted { NC_WANT_RUNNING, NC_WANT_STOPPED, NC_WANT_TERMINATED };

enum nc_fact {
	NC_ENDED = 1 << 0,  /* terminated, and nothing of it is left */
	NC_ENDING = 1 << 1, /* the node decided that it must end */
	NC_HELD = 1 << 2,   /* the node is drained: guests stay off */
	NC_DISK = 1 << 3,   /* the root disk is complete */
	NC_PORT = 1 << 4, /* its port on the network was looked after since this process started */
	NC_LAUNCHED = 1 << 5,	  /* it was started at least once */
	NC_THIS_BOOT = 1 << 6,	  /* … since the host booted: how it went off means something */
	NC_SEEN_RUNNING = 1 << 7, /* recorded as running */
	NC_SEEN_STOPPED = 1 << 8, /* recorded as stopped */
	NC_ASKED_OFF = 1 << 9,	  /* we asked the guest to switch itself off, or were about to, lately */
	NC_OFF_DUE = 1 << 10,	  /* … and it had its time, or is to have none */
	NC_REBOOT = 1 << 11,	  /* a reboot is wanted that was not carried out */
	NC_JUST_CRASHED = 1 << 12, /* it was started a moment ago and died */
	NC_STOPS = 1 << 13,	   /* a guest that switches itself off is stopped, not terminated */
	NC_NOTED_OFF = 1 << 14,	   /* … and that it did so is recorded */
	NC_DEVICES = 1 << 15,	   /* there is something to do about its volumes */
	NC_TOLD_OFF = 1 << 16	   /* … by this process: one that ended meanwhile may not have got to it */
};

struct nc_facts {
	enum nc_wanted wanted;
	uint32_t flags; /* enum nc_fact */
	enum hyper_state machine;
	enum hyper_off_reason off_reason;
};

enum nc_action {
	NC_DO_NOTHING,
	NC_DO_WAIT,	    /* something is under way: look again soon */
	NC_DO_PREPARE,	    /* fetch the image, make the root disk; long */
	NC_DO_START,	    /* port, then guest */
	NC_DO_ADOPT,	    /* it runs: look after its port */
	NC_DO_NOTE_RUNNING, /* record and show that it runs */
	NC_DO_REBOOT,
	NC_DO_ASK_OFF,
	NC_DO_FORCE_OFF,
	NC_DO_NOTE_STOPPED,
	NC_DO_END_GUEST_OFF, /* the guest switched itself off: must end */
	NC_DO_NOTE_GUEST_OFF, /* … is to be stopped */
	NC_DO_END_LOST,	     /* its disk is gone: must end */
	NC_DO_DEVICES,	     /* open, plug, unplug or close volumes */
	NC_DO_TERMINATE,     /* take everything away, keep a tombstone */
	NC_ACTION_COUNT
};

enum nc_action nc_decide(const struct nc_facts *f);
const char *nc_action_name(enum nc_action a);

#endif
