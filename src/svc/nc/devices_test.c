/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/macros.h"
#include "svc/nc/devices.h"

#define HAVE NC_WANT_ATTACHED
#define LET_GO NC_WANT_DETACHED
#define FORCE NC_WANT_FORCED
#define SERVED (NC_DEV_OPEN | NC_DEV_SERVED)
#define IN (SERVED | NC_DEV_PLUGGED)

static const struct {
	const char *story;
	struct nc_device_facts facts;
	enum nc_device_action action;
	enum nc_device_state shown;
} stories[] = {
    {"launch", {HAVE, NC_PHASE_STARTING, NC_DEV_NEW | NC_DEV_BOOT}, NC_DEV_DO_OPEN, NC_DEV_ATTACHING},
    {"launch, open asked, then NC died", {HAVE, NC_PHASE_STARTING, NC_DEV_NEW | NC_DEV_OPEN}, NC_DEV_DO_OPEN, NC_DEV_ATTACHING},
    {"launch, served", {HAVE, NC_PHASE_STARTING, NC_DEV_NEW | SERVED}, NC_DEV_NOTHING, NC_DEV_ATTACHING},
    {"runs with it", {HAVE, NC_PHASE_ON, IN}, NC_DEV_NOTHING, NC_DEV_ATTACHED},
    {"runs, NC does not know yet that it is served", {HAVE, NC_PHASE_ON, NC_DEV_OPEN | NC_DEV_PLUGGED}, NC_DEV_NOTHING, NC_DEV_ATTACHED},
    {"attach", {HAVE, NC_PHASE_ON, 0}, NC_DEV_DO_OPEN, NC_DEV_ATTACHING},
    {"attach, served", {HAVE, NC_PHASE_ON, SERVED}, NC_DEV_DO_PLUG, NC_DEV_ATTACHING},
    {"attach refused", {HAVE, NC_PHASE_ON, NC_DEV_OPEN | NC_DEV_FAILED}, NC_DEV_DO_CLOSE, NC_DEV_IS_FAILED},
    {"attach refused, closed", {HAVE, NC_PHASE_ON, NC_DEV_FAILED}, NC_DEV_NOTHING, NC_DEV_IS_FAILED},
    {"detach", {LET_GO, NC_PHASE_ON, IN | NC_DEV_ASK_DUE}, NC_DEV_DO_ASK, NC_DEV_DETACHING},
    {"detach, asked", {LET_GO, NC_PHASE_ON, IN | NC_DEV_ASKED}, NC_DEV_WAIT, NC_DEV_DETACHING},
    {"detach, holds on", {LET_GO, NC_PHASE_ON, IN | NC_DEV_ASKED | NC_DEV_HOLDS_ON}, NC_DEV_WAIT, NC_DEV_BUSY},
    {"detach, holds on, ask again",
     {LET_GO, NC_PHASE_ON, IN | NC_DEV_ASKED | NC_DEV_HOLDS_ON | NC_DEV_ASK_DUE},
     NC_DEV_DO_ASK,
     NC_DEV_BUSY},
    {"detach, wanted again meanwhile", {HAVE, NC_PHASE_ON, IN | NC_DEV_ASKED}, NC_DEV_WAIT, NC_DEV_ATTACHING},
    {"force", {FORCE, NC_PHASE_ON, IN | NC_DEV_ASKED | NC_DEV_HOLDS_ON}, NC_DEV_DO_PULL, NC_DEV_DETACHING},
    {"let go", {LET_GO, NC_PHASE_ON, SERVED}, NC_DEV_DO_CLOSE, NC_DEV_DETACHING},
    {"closing", {LET_GO, NC_PHASE_ON, 0}, NC_DEV_NOTHING, NC_DEV_DETACHED},
    {"root of a running guest", {FORCE, NC_PHASE_ON, IN | NC_DEV_BOOT}, NC_DEV_NOTHING, NC_DEV_BUSY},
    {"crashed", {HAVE, NC_PHASE_STARTING, SERVED}, NC_DEV_NOTHING, NC_DEV_ATTACHED},
    {"crashed while detaching", {LET_GO, NC_PHASE_STARTING, SERVED}, NC_DEV_DO_CLOSE, NC_DEV_DETACHING},
    {"stop", {HAVE, NC_PHASE_OTHER, IN}, NC_DEV_NOTHING, NC_DEV_ATTACHED},
    {"stop, off", {HAVE, NC_PHASE_OFF, SERVED}, NC_DEV_DO_CLOSE, NC_DEV_ATTACHED},
    {"stopped", {HAVE, NC_PHASE_OFF, 0}, NC_DEV_NOTHING, NC_DEV_ATTACHED},
    {"detach from a stopped one", {LET_GO, NC_PHASE_OFF, 0}, NC_DEV_NOTHING, NC_DEV_DETACHED},
    {"start", {HAVE, NC_PHASE_STARTING, 0}, NC_DEV_DO_OPEN, NC_DEV_ATTACHED},
    {"attached anew, the guest still has the old", {HAVE, NC_PHASE_ON, NC_DEV_OLD | IN | NC_DEV_ASK_DUE}, NC_DEV_DO_ASK, NC_DEV_ATTACHING},
    {"attached anew, the old let go", {HAVE, NC_PHASE_ON, NC_DEV_OLD | SERVED}, NC_DEV_DO_CLOSE, NC_DEV_ATTACHING},
    {"attached anew, the old closing", {HAVE, NC_PHASE_ON, NC_DEV_OLD}, NC_DEV_WAIT, NC_DEV_ATTACHING},
};

static void test_stories(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(stories); i++) {
		struct nc_device_next n = nc_device_decide(&stories[i].facts);

		if (n.action != stories[i].action || n.shown != stories[i].shown)
			fail_msg("%s: %s, %s; not %s, %s", stories[i].story, nc_device_action_name(n.action),
				 nc_device_state_name(n.shown), nc_device_action_name(stories[i].action),
				 nc_device_state_name(stories[i].shown));
	}
}

/* The table answers whatever the facts are, and keeps its promises in every case. */
static void test_every_case(void **state)
{
	for (uint32_t flags = 0; flags < NC_DEV_FAILED << 1; flags++)
		for (int want = HAVE; want <= FORCE; want++)
			for (int phase = NC_PHASE_OTHER; phase <= NC_PHASE_ON; phase++) {
				struct nc_device_facts f = {(enum nc_device_want)want, (enum nc_phase)phase, flags};
				struct nc_device_next n = nc_device_decide(&f);

				if (n.action == NC_DEV_DO_CLOSE) { /* never under a guest */
					assert_true(phase != NC_PHASE_OTHER && (flags & NC_DEV_OPEN));
					assert_true(phase != NC_PHASE_ON || !(flags & NC_DEV_PLUGGED));
				}
				if (n.action == NC_DEV_DO_OPEN || n.action == NC_DEV_DO_PLUG)
					assert_true(want == HAVE && phase >= NC_PHASE_STARTING);
				if (n.action == NC_DEV_DO_PULL)
					assert_true(want == FORCE && !(flags & NC_DEV_BOOT));
				if (n.action == NC_DEV_DO_ASK || n.action == NC_DEV_DO_PULL)
					assert_true(phase == NC_PHASE_ON && (flags & NC_DEV_PLUGGED));
				if (n.shown == NC_DEV_DETACHED)
					assert_true(want != HAVE && !(flags & NC_DEV_OPEN));
				if (phase == NC_PHASE_OTHER)
					assert_int_equal(n.action, NC_DEV_NOTHING);
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
