/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/macros.h"
#include "model/instance_state.h"

enum { STAYS = -1, REFUSES = -2 };

/* Written out by hand from EC2's documentation of the life cycle: the table must not test itself.
 */
static const struct {
	enum instance_state from;
	enum instance_event event;
	int to; /* state, STAYS or REFUSES */
} cases[] = {
    {INSTANCE_PENDING, INSTANCE_ASK_START, REFUSES},
    {INSTANCE_PENDING, INSTANCE_ASK_STOP, REFUSES},
    {INSTANCE_PENDING, INSTANCE_ASK_REBOOT, REFUSES},
    {INSTANCE_PENDING, INSTANCE_ASK_TERMINATE, INSTANCE_SHUTTING_DOWN},
    {INSTANCE_PENDING, INSTANCE_SEEN_PENDING, STAYS},
    {INSTANCE_PENDING, INSTANCE_SEEN_RUNNING, INSTANCE_RUNNING},
    {INSTANCE_PENDING, INSTANCE_SEEN_STOPPED, STAYS},
    {INSTANCE_PENDING, INSTANCE_SEEN_SHUTTING_DOWN, INSTANCE_SHUTTING_DOWN},
    {INSTANCE_PENDING, INSTANCE_SEEN_TERMINATED, INSTANCE_TERMINATED},
    {INSTANCE_RUNNING, INSTANCE_ASK_START, STAYS},
    {INSTANCE_RUNNING, INSTANCE_ASK_STOP, INSTANCE_STOPPING},
    {INSTANCE_RUNNING, INSTANCE_ASK_REBOOT, INSTANCE_RUNNING},
    {INSTANCE_RUNNING, INSTANCE_ASK_TERMINATE, INSTANCE_SHUTTING_DOWN},
    {INSTANCE_RUNNING, INSTANCE_SEEN_PENDING, STAYS},
    {INSTANCE_RUNNING, INSTANCE_SEEN_RUNNING, STAYS},
    {INSTANCE_RUNNING, INSTANCE_SEEN_STOPPED, INSTANCE_STOPPED},
    {INSTANCE_RUNNING, INSTANCE_SEEN_SHUTTING_DOWN, INSTANCE_SHUTTING_DOWN},
    {INSTANCE_RUNNING, INSTANCE_SEEN_TERMINATED, INSTANCE_TERMINATED},
    {INSTANCE_STOPPING, INSTANCE_ASK_START, REFUSES},
    {INSTANCE_STOPPING, INSTANCE_ASK_STOP, STAYS},
    {INSTANCE_STOPPING, INSTANCE_ASK_REBOOT, REFUSES},
    {INSTANCE_STOPPING, INSTANCE_ASK_TERMINATE, INSTANCE_SHUTTING_DOWN},
    {INSTANCE_STOPPING, INSTANCE_SEEN_PENDING, STAYS},
    {INSTANCE_STOPPING, INSTANCE_SEEN_RUNNING, STAYS},
    {INSTANCE_STOPPING, INSTANCE_SEEN_STOPPED, INSTANCE_STOPPED},
    {INSTANCE_STOPPING, INSTANCE_SEEN_SHUTTING_DOWN, INSTANCE_SHUTTING_DOWN},
    {INSTANCE_STOPPING, INSTANCE_SEEN_TERMINATED, INSTANCE_TERMINATED},
    {INSTANCE_STOPPED, INSTANCE_ASK_START, INSTANCE_PENDING},
    {INSTANCE_STOPPED, INSTANCE_ASK_STOP, STAYS},
    {INSTANCE_STOPPED, INSTANCE_ASK_REBOOT, REFUSES},
    {INSTANCE_STOPPED, INSTANCE_ASK_TERMINATE, INSTANCE_SHUTTING_DOWN},
    {INSTANCE_STOPPED, INSTANCE_SEEN_PENDING, INSTANCE_PENDING},
    {INSTANCE_STOPPED, INSTANCE_SEEN_RUNNING, INSTANCE_RUNNING},
    {INSTANCE_STOPPED, INSTANCE_SEEN_STOPPED, STAYS},
    {INSTANCE_STOPPED, INSTANCE_SEEN_SHUTTING_DOWN, INSTANCE_SHUTTING_DOWN},
    {INSTANCE_STOPPED, INSTANCE_SEEN_TERMINATED, INSTANCE_TERMINATED},
    {INSTANCE_SHUTTING_DOWN, INSTANCE_ASK_START, REFUSES},
    {INSTANCE_SHUTTING_DOWN, INSTANCE_ASK_STOP, REFUSES},
    {INSTANCE_SHUTTING_DOWN, INSTANCE_ASK_REBOOT, REFUSES},
    {INSTANCE_SHUTTING_DOWN, INSTANCE_ASK_TERMINATE, STAYS},
    {INSTANCE_SHUTTING_DOWN, INSTANCE_SEEN_PENDING, STAYS},
    {INSTANCE_SHUTTING_DOWN, INSTANCE_SEEN_RUNNING, STAYS},
    {INSTANCE_SHUTTING_DOWN, INSTANCE_SEEN_STOPPED, STAYS},
    {INSTANCE_SHUTTING_DOWN, INSTANCE_SEEN_SHUTTING_DOWN, STAYS},
    {INSTANCE_SHUTTING_DOWN, INSTANCE_SEEN_TERMINATED, INSTANCE_TERMINATED},
    {INSTANCE_TERMINATED, INSTANCE_ASK_START, REFUSES},
    {INSTANCE_TERMINATED, INSTANCE_ASK_STOP, REFUSES},
    {INSTANCE_TERMINATED, INSTANCE_ASK_REBOOT, REFUSES},
    {INSTANCE_TERMINATED, INSTANCE_ASK_TERMINATE, STAYS},
    {INSTANCE_TERMINATED, INSTANCE_SEEN_PENDING, STAYS},
    {INSTANCE_TERMINATED, INSTANCE_SEEN_RUNNING, STAYS},
    {INSTANCE_TERMINATED, INSTANCE_SEEN_STOPPED, STAYS},
    {INSTANCE_TERMINATED, INSTANCE_SEEN_SHUTTING_DOWN, STAYS},
    {INSTANCE_TERMINATED, INSTANCE_SEEN_TERMINATED, STAYS},
};

static void every_move(void **state)
{
	assert_int_equal(ARRAY_SIZE(cases), INSTANCE_STATE_COUNT * INSTANCE_EVENT_COUNT);
	bool seen[INSTANCE_STATE_COUNT][INSTANCE_EVENT_COUNT] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		enum instance_state next = INSTANCE_STATE_COUNT;
		enum instance_verdict v = instance_next(cases[i].from, cases[i].event, &next);

		assert_false(seen[cases[i].from][cases[i].event]);
		seen[cases[i].from][cases[i].event] = true;
		if (cases[i].to == STAYS)
			assert_int_equal(v, INSTANCE_STAYS);
		else if (cases[i].to == REFUSES)
			assert_int_equal(v, INSTANCE_REFUSES);
		else
			assert_int_equal(v, INSTANCE_MOVES);
		assert_int_equal(next, cases[i].to >= 0 ? (enum instance_state)cases[i].to
							: INSTANCE_STATE_COUNT);
	}
}

/* A node's word is never refused: there is nobody to tell. */
static void reports_are_never_refused(void **state)
{
	for (int s = 0; s < INSTANCE_STATE_COUNT; s++) {
		for (int ev = INSTANCE_SEEN_PENDING; ev < INSTANCE_EVENT_COUNT; ev++) {
			enum instance_state next;

			assert_int_not_equal(
			    instance_next((enum instance_state)s, (enum instance_event)ev, &next),
			    INSTANCE_REFUSES);
		}
	}
}

static void names_and_codes(void **state)
{
	static const struct {
		const char *name;
		int code;
	} known[] = {{"pending", 0},  {"running", 16},	     {"stopping", 64},
		     {"stopped", 80}, {"shutting-down", 32}, {"terminated", 48}};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		enum instance_state s = instance_state_parse(known[i].name);

		assert_int_not_equal(s, INSTANCE_STATE_COUNT);
		assert_string_equal(instance_state_name(s), known[i].name);
		assert_int_equal(instance_state_code(s), known[i].code);
		assert_int_equal(instance_state_live(s), known[i].code != 48);
	}
	assert_int_equal(instance_state_parse("Running"), INSTANCE_STATE_COUNT);
	assert_int_equal(instance_state_parse(""), INSTANCE_STATE_COUNT);
	assert_int_equal(instance_state_parse(NULL), INSTANCE_STATE_COUNT);
	assert_int_equal(instance_state_seen(INSTANCE_TERMINATED), INSTANCE_SEEN_TERMINATED);
	assert_int_equal(instance_state_seen(INSTANCE_PENDING), INSTANCE_SEEN_PENDING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_move),
	    cmocka_unit_test(reports_are_never_refused),
	    cmocka_unit_test(names_and_codes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
