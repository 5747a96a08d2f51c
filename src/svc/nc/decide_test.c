/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/macros.h"
#include "svc/nc/decide.h"

#define RUN NC_WANT_RUNNING
#define STOP NC_WANT_STOPPED
#define TERM NC_WANT_TERMINATED
#define UP                                                                                         \
	(NC_DISK | NC_PORT | NC_LAUNCHED | NC_THIS_BOOT |                                          \
	 NC_SEEN_RUNNING) /* a guest in good order */

static const struct {
	const char *story;
	struct nc_facts facts;
	enum nc_action want;
} stories[] = {
    {"new", {RUN, 0, HYPER_ABSENT, 0}, NC_DO_PREPARE},
    {"new on a drained node", {RUN, NC_HELD, HYPER_ABSENT, 0}, NC_DO_NOTHING},
    {"disk made", {RUN, NC_DISK, HYPER_ABSENT, 0}, NC_DO_START},
    {"start was begun, then NC died",
     {RUN, NC_DISK | NC_LAUNCHED | NC_THIS_BOOT, HYPER_OFF, 0},
     NC_DO_START},
    {"started", {RUN, UP & ~(uint32_t)NC_SEEN_RUNNING, HYPER_RUNNING, 0}, NC_DO_NOTE_RUNNING},
    {"runs", {RUN, UP, HYPER_RUNNING, 0}, NC_DO_NOTHING},
    {"runs after NC was restarted", {RUN, UP & ~(uint32_t)NC_PORT, HYPER_RUNNING, 0}, NC_DO_ADOPT},
    {"runs, its disk was unlinked",
     {RUN, UP & ~(uint32_t)NC_DISK, HYPER_RUNNING, 0},
     NC_DO_NOTHING},
    {"reboot", {RUN, UP | NC_REBOOT, HYPER_RUNNING, 0}, NC_DO_REBOOT},
    {"paused by a full disk", {RUN, UP, HYPER_PAUSED, 0}, NC_DO_START},
    {"crashed", {RUN, UP, HYPER_OFF, HYPER_OFF_CRASHED}, NC_DO_START},
    {"crashes again and again",
     {RUN, UP | NC_JUST_CRASHED, HYPER_OFF, HYPER_OFF_CRASHED},
     NC_DO_WAIT},
    {"virsh destroy by the operator", {RUN, UP, HYPER_OFF, HYPER_OFF_US}, NC_DO_START},
    {"host rebooted",
     {RUN, NC_DISK | NC_LAUNCHED | NC_SEEN_RUNNING, HYPER_OFF, HYPER_OFF_UNKNOWN},
     NC_DO_START},
    {"guest off, then host rebooted",
     {RUN, NC_DISK | NC_LAUNCHED | NC_SEEN_RUNNING, HYPER_OFF, HYPER_OFF_GUEST},
     NC_DO_START},
    {"guest switched itself off", {RUN, UP, HYPER_OFF, HYPER_OFF_GUEST}, NC_DO_END_GUEST_OFF},
    {"off because of a drain",
     {RUN, UP | NC_HELD | NC_ASKED_OFF, HYPER_OFF, HYPER_OFF_GUEST},
     NC_DO_NOTHING},
    {"off because of a drain, resumed",
     {RUN, UP | NC_ASKED_OFF, HYPER_OFF, HYPER_OFF_GUEST},
     NC_DO_START},
    {"disk lost", {RUN, UP & ~(uint32_t)NC_DISK, HYPER_OFF, HYPER_OFF_CRASHED}, NC_DO_END_LOST},
    {"drain", {RUN, UP | NC_HELD, HYPER_RUNNING, 0}, NC_DO_ASK_OFF},
    {"drain, asked", {RUN, UP | NC_HELD | NC_ASKED_OFF | NC_TOLD_OFF, HYPER_RUNNING, 0}, NC_DO_WAIT},
    {"drain, asked by a process that has ended", {RUN, UP | NC_HELD | NC_ASKED_OFF, HYPER_RUNNING, 0}, NC_DO_ASK_OFF},
    {"drain, does not listen",
     {RUN, UP | NC_HELD | NC_ASKED_OFF | NC_TOLD_OFF | NC_OFF_DUE, HYPER_RUNNING, 0},
     NC_DO_FORCE_OFF},
    {"shutting down", {RUN, UP | NC_HELD | NC_ASKED_OFF, HYPER_SHUTTING_DOWN, 0}, NC_DO_WAIT},
    {"stop", {STOP, UP, HYPER_RUNNING, 0}, NC_DO_ASK_OFF},
    {"stop, asked", {STOP, UP | NC_ASKED_OFF | NC_TOLD_OFF, HYPER_RUNNING, 0}, NC_DO_WAIT},
    {"stop, asked by a process that has ended", {STOP, UP | NC_ASKED_OFF, HYPER_RUNNING, 0}, NC_DO_ASK_OFF},
    {"stop, does not listen",
     {STOP, UP | NC_ASKED_OFF | NC_TOLD_OFF | NC_OFF_DUE, HYPER_RUNNING, 0},
     NC_DO_FORCE_OFF},
    {"stop, off", {STOP, UP | NC_ASKED_OFF, HYPER_OFF, HYPER_OFF_GUEST}, NC_DO_NOTE_STOPPED},
    {"stopped", {STOP, NC_DISK | NC_LAUNCHED | NC_SEEN_STOPPED, HYPER_ABSENT, 0}, NC_DO_NOTHING},
    {"start again", {RUN, NC_DISK | NC_LAUNCHED | NC_SEEN_STOPPED, HYPER_ABSENT, 0}, NC_DO_START},
    {"guest of an ebs instance switched itself off",
     {RUN, UP | NC_STOPS, HYPER_OFF, HYPER_OFF_GUEST},
     NC_DO_NOTE_GUEST_OFF},
    {"… which is recorded, volumes are open",
     {STOP, UP | NC_STOPS | NC_NOTED_OFF | NC_DEVICES, HYPER_OFF, HYPER_OFF_GUEST},
     NC_DO_DEVICES},
    {"… and closed",
     {STOP, UP | NC_STOPS | NC_NOTED_OFF, HYPER_OFF, HYPER_OFF_GUEST},
     NC_DO_NOTE_STOPPED},
    {"… and it is wanted again",
     {RUN, NC_DISK | NC_PORT | NC_LAUNCHED | NC_THIS_BOOT | NC_SEEN_STOPPED | NC_STOPS | NC_NOTED_OFF | NC_DEVICES,
      HYPER_OFF,
      HYPER_OFF_GUEST},
     NC_DO_DEVICES},
    {"… with its volumes open",
     {RUN, NC_DISK | NC_PORT | NC_LAUNCHED | NC_THIS_BOOT | NC_SEEN_STOPPED | NC_STOPS | NC_NOTED_OFF, HYPER_OFF, HYPER_OFF_GUEST},
     NC_DO_START},
    {"volumes before a first start", {RUN, NC_DISK | NC_DEVICES, HYPER_ABSENT, 0}, NC_DO_DEVICES},
    {"volumes of a running guest", {RUN, UP | NC_DEVICES, HYPER_RUNNING, 0}, NC_DO_DEVICES},
    {"volumes of a guest that is to go off", {STOP, UP | NC_DEVICES, HYPER_RUNNING, 0}, NC_DO_ASK_OFF},
    {"volumes on a drained node",
     {RUN, UP | NC_HELD | NC_ASKED_OFF | NC_DEVICES, HYPER_OFF, HYPER_OFF_GUEST},
     NC_DO_DEVICES},
    {"crashes again and again, with volumes",
     {RUN, UP | NC_JUST_CRASHED | NC_DEVICES, HYPER_OFF, HYPER_OFF_CRASHED},
     NC_DO_WAIT},
    {"terminate", {TERM, UP, HYPER_RUNNING, 0}, NC_DO_TERMINATE},
    {"terminate what never was", {TERM, 0, HYPER_ABSENT, 0}, NC_DO_TERMINATE},
    {"terminate on a drained node", {TERM, UP | NC_HELD, HYPER_RUNNING, 0}, NC_DO_TERMINATE},
    {"must end, whatever is wanted", {RUN, UP | NC_ENDING, HYPER_RUNNING, 0}, NC_DO_TERMINATE},
    {"over", {RUN, NC_ENDED | NC_ENDING, HYPER_ABSENT, 0}, NC_DO_NOTHING},
    {"over and wanted so", {TERM, NC_ENDED, HYPER_ABSENT, 0}, NC_DO_NOTHING},
};

static void test_stories(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(stories); i++) {
		enum nc_action got = nc_decide(&stories[i].facts);

		if (got != stories[i].want)
			fail_msg("%s: %s, not %s", stories[i].story, nc_action_name(got),
				 nc_action_name(stories[i].want));
	}
}

/* The table answers whatever the facts are, and keeps its promises in every case. */
static void test_every_case(void **state)
{
	for (uint32_t flags = 0; flags < NC_TOLD_OFF << 1; flags++)
		for (int wanted = RUN; wanted <= TERM; wanted++)
			for (int machine = HYPER_ABSENT; machine <= HYPER_OFF; machine++)
				for (int why = HYPER_OFF_UNKNOWN; why <= HYPER_OFF_CRASHED; why++) {
					struct nc_facts f = {(enum nc_wanted)wanted, flags,
							     (enum hyper_state)machine,
							     (enum hyper_off_reason)why};
					enum nc_action a = nc_decide(&f);
					bool starts = a == NC_DO_START || a == NC_DO_PREPARE;

					if (flags & NC_ENDED)
						assert_int_equal(a, NC_DO_NOTHING);
					else if (wanted == TERM || (flags & NC_ENDING))
						assert_int_equal(a, NC_DO_TERMINATE);
					else
						assert_int_not_equal(a, NC_DO_TERMINATE);
					if (starts)
						assert_true(wanted == RUN && !(flags & NC_HELD));
					if (a == NC_DO_PREPARE)
						assert_false(flags & NC_LAUNCHED);
					if (a == NC_DO_NOTE_GUEST_OFF)
						assert_true((flags & NC_STOPS) && !(flags & NC_NOTED_OFF));
					if (a == NC_DO_DEVICES)
						assert_true(flags & NC_DEVICES);
					if (a == NC_DO_END_GUEST_OFF)
						assert_true(why == HYPER_OFF_GUEST &&
							    machine == HYPER_OFF);
				}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_stories),
	    cmocka_unit_test(test_every_case),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
