/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_DEVICES_H
#define MALLEE_SVC_NC_DEVICES_H

#include <stdint.h>

/*
 * What is to be done next for one volume of an instance, and what is shown of it, out of what is wanted and what is: one table,
 * no I/O. As with nc_decide(): the action is carried out, the facts are gathered anew, until nothing is left to do.
 */
enum nc_device_want { NC_WANT_ATTACHED, NC_WANT_DETACHED, NC_WANT_FORCED };

enum nc_phase {
	NC_PHASE_OTHER,    /* the guest is on its way: volumes stay as they are */
	NC_PHASE_OFF,      /* off, and to be off */
	NC_PHASE_STARTING, /* off, and to be on */
	NC_PHASE_ON
};

enum nc_device_fact {
	NC_DEV_BOOT = 1 << 0,
	NC_DEV_NEW = 1 << 1,     /* the instance never ran */
	NC_DEV_OLD = 1 << 2,     /* all that follows is about an earlier attachment of the volume */
	NC_DEV_OPEN = 1 << 3,    /* recorded as open */
	NC_DEV_SERVED = 1 << 4,  /* … and its process was started */
	NC_DEV_PLUGGED = 1 << 5, /* the guest has it */
	NC_DEV_ASKED = 1 << 6,   /* … and was asked to let go */
	NC_DEV_ASK_DUE = 1 << 7, /* it is time to ask, or to ask again */
	NC_DEV_HOLDS_ON = 1 << 8, /* … and had its time */
	NC_DEV_FAILED = 1 << 9    /* it will never be attached */
};

struct nc_device_facts {
	enum nc_device_want want;
	enum nc_phase phase;
	uint32_t flags; /* enum nc_device_fact */
};

enum nc_device_action {
	NC_DEV_NOTHING,
	NC_DEV_WAIT,
	NC_DEV_DO_OPEN,
	NC_DEV_DO_PLUG,
	NC_DEV_DO_ASK,  /* the guest to let go of it */
	NC_DEV_DO_PULL, /* it out, without the guest's word */
	NC_DEV_DO_CLOSE,
	NC_DEV_ACTION_COUNT
};

enum nc_device_state {
	NC_DEV_ATTACHING,
	NC_DEV_ATTACHED,
	NC_DEV_DETACHING,
	NC_DEV_BUSY,
	NC_DEV_DETACHED,
	NC_DEV_IS_FAILED,
	NC_DEV_STATE_COUNT
};

struct nc_device_next {
	enum nc_device_action action;
	enum nc_device_state shown;
};

struct nc_device_next nc_device_decide(const struct nc_device_facts *f);
const char *nc_device_action_name(enum nc_device_action a);
const char *nc_device_state_name(enum nc_device_state s); /* as it is reported */

#endif
