/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/nc/devices.h"

#include <assert.h>

#include "base/macros.h"

#define W(w) (1u << (w))
#define ON_IT W(NC_WANT_ATTACHED)
#define OFF_IT (W(NC_WANT_DETACHED) | W(NC_WANT_FORCED))
#define ANY_WANT (ON_IT | OFF_IT)
#define P(p) (1u << (p))
#define ON P(NC_PHASE_ON)
#define STARTING P(NC_PHASE_STARTING)
#define OFF P(NC_PHASE_OFF)
#define OTHER P(NC_PHASE_OTHER)
#define AT_WORK (ON | STARTING | OFF)

/* The first row that fits. `with` must all be set, `without` none of them. */
static const struct row {
	uint32_t want, phase;
	uint32_t with, without;
	enum nc_device_action action;
	enum nc_device_state shown;
} rows[] = {
    /* the guest is on its way */
    {ON_IT, OTHER, NC_DEV_FAILED, 0, NC_DEV_NOTHING, NC_DEV_IS_FAILED},
    {ON_IT, OTHER, NC_DEV_NEW, 0, NC_DEV_NOTHING, NC_DEV_ATTACHING},
    {ON_IT, OTHER, 0, 0, NC_DEV_NOTHING, NC_DEV_ATTACHED},
    {OFF_IT, OTHER, NC_DEV_OPEN, 0, NC_DEV_NOTHING, NC_DEV_DETACHING},
    {OFF_IT, OTHER, 0, 0, NC_DEV_NOTHING, NC_DEV_DETACHED},

    /* of an earlier attachment: out of the way */
    {ON_IT, ON, NC_DEV_OLD | NC_DEV_PLUGGED | NC_DEV_ASK_DUE, 0, NC_DEV_DO_ASK, NC_DEV_ATTACHING},
    {ON_IT, ON, NC_DEV_OLD | NC_DEV_PLUGGED, 0, NC_DEV_WAIT, NC_DEV_ATTACHING},
    {ON_IT, AT_WORK, NC_DEV_OLD | NC_DEV_OPEN, 0, NC_DEV_DO_CLOSE, NC_DEV_ATTACHING},
    {ON_IT, OFF, NC_DEV_OLD, 0, NC_DEV_NOTHING, NC_DEV_ATTACHED},
    {ON_IT, ON | STARTING, NC_DEV_OLD, 0, NC_DEV_WAIT, NC_DEV_ATTACHING},

    /* it will never be */
    {ON_IT, AT_WORK, NC_DEV_FAILED | NC_DEV_OPEN, NC_DEV_PLUGGED, NC_DEV_DO_CLOSE, NC_DEV_IS_FAILED},
    {ON_IT, AT_WORK, NC_DEV_FAILED, NC_DEV_PLUGGED, NC_DEV_NOTHING, NC_DEV_IS_FAILED},

    /* on, and to have it */
    {ON_IT, ON, NC_DEV_PLUGGED | NC_DEV_ASKED, 0, NC_DEV_WAIT, NC_DEV_ATTACHING},
    {ON_IT, ON, NC_DEV_PLUGGED, 0, NC_DEV_NOTHING, NC_DEV_ATTACHED},
    {ON_IT, ON, NC_DEV_SERVED, 0, NC_DEV_DO_PLUG, NC_DEV_ATTACHING},
    {ON_IT, ON, 0, 0, NC_DEV_DO_OPEN, NC_DEV_ATTACHING},

    /* on, and to let go of it */
    {OFF_IT, ON, NC_DEV_PLUGGED | NC_DEV_BOOT, 0, NC_DEV_NOTHING, NC_DEV_BUSY},
    {W(NC_WANT_FORCED), ON, NC_DEV_PLUGGED, 0, NC_DEV_DO_PULL, NC_DEV_DETACHING},
    {OFF_IT, ON, NC_DEV_PLUGGED | NC_DEV_ASK_DUE | NC_DEV_HOLDS_ON, 0, NC_DEV_DO_ASK, NC_DEV_BUSY},
    {OFF_IT, ON, NC_DEV_PLUGGED | NC_DEV_ASK_DUE, 0, NC_DEV_DO_ASK, NC_DEV_DETACHING},
    {OFF_IT, ON, NC_DEV_PLUGGED | NC_DEV_HOLDS_ON, 0, NC_DEV_WAIT, NC_DEV_BUSY},
    {OFF_IT, ON, NC_DEV_PLUGGED, 0, NC_DEV_WAIT, NC_DEV_DETACHING},

    /* off, and to be on */
    {ON_IT, STARTING, NC_DEV_SERVED | NC_DEV_NEW, 0, NC_DEV_NOTHING, NC_DEV_ATTACHING},
    {ON_IT, STARTING, NC_DEV_NEW, 0, NC_DEV_DO_OPEN, NC_DEV_ATTACHING},
    {ON_IT, STARTING, NC_DEV_SERVED, 0, NC_DEV_NOTHING, NC_DEV_ATTACHED},
    {ON_IT, STARTING, 0, 0, NC_DEV_DO_OPEN, NC_DEV_ATTACHED},

    /* off, and to be off: what is wanted attached counts as it, though nobody serves it */
    {ON_IT, OFF, NC_DEV_OPEN, 0, NC_DEV_DO_CLOSE, NC_DEV_ATTACHED},
    {ON_IT, OFF, 0, 0, NC_DEV_NOTHING, NC_DEV_ATTACHED},

    /* nobody has it, and nobody is to */
    {OFF_IT, AT_WORK, NC_DEV_OPEN, 0, NC_DEV_DO_CLOSE, NC_DEV_DETACHING},
    {OFF_IT, AT_WORK, 0, 0, NC_DEV_NOTHING, NC_DEV_DETACHED},
};

struct nc_device_next nc_device_decide(const struct nc_device_facts *f)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *r = &rows[i];

		if ((r->want & W(f->want)) && (r->phase & P(f->phase)) && (f->flags & r->with) == r->with &&
		    !(f->flags & r->without))
			return (struct nc_device_next){r->action, r->shown};
	}
	assert(!"the table decides every case");
	return (struct nc_device_next){NC_DEV_NOTHING, NC_DEV_IS_FAILED};
}

const char *nc_device_action_name(enum nc_device_action a)
{
	static const char *const names[NC_DEV_ACTION_COUNT] = {"nothing", "wait", "open", "plug",
							       "ask",	  "pull", "close"};

	return names[a];
}

const char *nc_device_state_name(enum nc_device_state s)
{
	static const char *const names[NC_DEV_STATE_COUNT] = {"attaching", "attached", "detaching",
							      "busy",	   "detached", "failed"};

	return names[s];
}
