/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/nc/decide.h"

#include <assert.h>

#include "base/macros.h"

#define M(s) (1u << (s))
#define ON (M(HYPER_RUNNING) | M(HYPER_PAUSED))
#define GONE (M(HYPER_ABSENT) | M(HYPER_OFF))
#define ANY_MACHINE (ON | GONE | M(HYPER_SHUTTING_DOWN))
#define W(w) (1u << (w))
#define ANY_WANTED (W(NC_WANT_RUNNING) | W(NC_WANT_STOPPED) | W(NC_WANT_TERMINATED))
#define ANY_REASON 0xffu

/* The first row that fits. `with` must all be set, `without` none of them. */
static const struct row {
	uint32_t wanted, machine;
	uint32_t with, without;
	uint32_t reasons; /* of HYPER_OFF */
	enum nc_action action;
} rows[] = {
    /* the end */
    {ANY_WANTED, ANY_MACHINE, NC_ENDED, 0, ANY_REASON, NC_DO_NOTHING},
    {ANY_WANTED, ANY_MACHINE, NC_ENDING, 0, ANY_REASON, NC_DO_TERMINATE},
    {W(NC_WANT_TERMINATED), ANY_MACHINE, 0, 0, ANY_REASON, NC_DO_TERMINATE},

    /* on, and to be off: drained, or stopped */
    {ANY_WANTED, M(HYPER_SHUTTING_DOWN), 0, NC_OFF_DUE, ANY_REASON, NC_DO_WAIT},
    {ANY_WANTED, M(HYPER_SHUTTING_DOWN), NC_OFF_DUE, 0, ANY_REASON, NC_DO_FORCE_OFF},
    {ANY_WANTED, ON, NC_HELD, NC_TOLD_OFF, ANY_REASON, NC_DO_ASK_OFF},
    {ANY_WANTED, ON, NC_HELD | NC_OFF_DUE, 0, ANY_REASON, NC_DO_FORCE_OFF},
    {ANY_WANTED, ON, NC_HELD, 0, ANY_REASON, NC_DO_WAIT},
    {W(NC_WANT_STOPPED), ON, 0, NC_TOLD_OFF, ANY_REASON, NC_DO_ASK_OFF},
    {W(NC_WANT_STOPPED), ON, NC_OFF_DUE, 0, ANY_REASON, NC_DO_FORCE_OFF},
    {W(NC_WANT_STOPPED), ON, 0, 0, ANY_REASON, NC_DO_WAIT},

    /* off by itself: the guest's owner switched it off. Not after a host boot, nor when we asked */
    {ANY_WANTED, M(HYPER_OFF), NC_LAUNCHED | NC_THIS_BOOT | NC_STOPS, NC_ASKED_OFF | NC_HELD | NC_NOTED_OFF,
     M(HYPER_OFF_GUEST), NC_DO_NOTE_GUEST_OFF},
    {ANY_WANTED, M(HYPER_OFF), NC_LAUNCHED | NC_THIS_BOOT, NC_ASKED_OFF | NC_HELD | NC_NOTED_OFF,
     M(HYPER_OFF_GUEST), NC_DO_END_GUEST_OFF},

    /* off, and to be off */
    {W(NC_WANT_STOPPED), GONE, NC_DEVICES, 0, ANY_REASON, NC_DO_DEVICES},
    {W(NC_WANT_RUNNING), GONE, NC_DEVICES | NC_HELD, 0, ANY_REASON, NC_DO_DEVICES},
    {W(NC_WANT_STOPPED), GONE, 0, NC_SEEN_STOPPED, ANY_REASON, NC_DO_NOTE_STOPPED},
    {W(NC_WANT_STOPPED), GONE, 0, 0, ANY_REASON, NC_DO_NOTHING},
    {W(NC_WANT_RUNNING), GONE, NC_HELD, 0, ANY_REASON, NC_DO_NOTHING},

    /* on, and to be on */
    {W(NC_WANT_RUNNING), M(HYPER_RUNNING), 0, NC_PORT, ANY_REASON, NC_DO_ADOPT},
    {W(NC_WANT_RUNNING), M(HYPER_RUNNING), 0, NC_SEEN_RUNNING, ANY_REASON, NC_DO_NOTE_RUNNING},
    {W(NC_WANT_RUNNING), M(HYPER_RUNNING), NC_REBOOT, 0, ANY_REASON, NC_DO_REBOOT},
    {W(NC_WANT_RUNNING), M(HYPER_RUNNING), NC_DEVICES, 0, ANY_REASON, NC_DO_DEVICES},
    {W(NC_WANT_RUNNING), M(HYPER_RUNNING), 0, 0, ANY_REASON, NC_DO_NOTHING},
    {W(NC_WANT_RUNNING), M(HYPER_PAUSED), 0, 0, ANY_REASON, NC_DO_START},

    /* off, and to be on */
    {W(NC_WANT_RUNNING), GONE, NC_LAUNCHED, NC_DISK, ANY_REASON, NC_DO_END_LOST},
    {W(NC_WANT_RUNNING), GONE, 0, NC_DISK, ANY_REASON, NC_DO_PREPARE},
    {W(NC_WANT_RUNNING), GONE, NC_JUST_CRASHED, 0, ANY_REASON, NC_DO_WAIT},
    {W(NC_WANT_RUNNING), GONE, NC_DEVICES, 0, ANY_REASON, NC_DO_DEVICES},
    {W(NC_WANT_RUNNING), GONE, 0, 0, ANY_REASON, NC_DO_START},
};

enum nc_action nc_decide(const struct nc_facts *f)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *r = &rows[i];

		if ((r->wanted & W(f->wanted)) && (r->machine & M(f->machine)) &&
		    (f->flags & r->with) == r->with && !(f->flags & r->without) &&
		    (f->machine != HYPER_OFF || (r->reasons & M(f->off_reason))))
			return r->action;
	}
	assert(!"the table decides every case");
	return NC_DO_NOTHING;
}

const char *nc_action_name(enum nc_action a)
{
	static const char *const names[NC_ACTION_COUNT] = {
	    "nothing",	    "wait",	 "prepare",  "start",	  "adopt",
	    "note-running", "reboot",	 "ask-off",  "force-off", "note-stopped",
	    "guest-off",    "guest-stopped", "disk-lost", "devices", "terminate"};

	return names[a];
}
