/* SPDX-License-Identifier: Apache-2.0 */
#include "model/volume_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/macros.h"

/* What EC2's documentation says of each life cycle, by hand: the tables must not test themselves. What is not listed is that
 * reports change nothing. */
enum { STAYS = -1, REFUSES = -2 };

static int outcome(enum ebs_verdict v, int next)
{
	return v == EBS_MOVES ? next : v == EBS_STAYS ? STAYS : REFUSES;
}

static const struct {
	enum volume_state from;
	enum volume_event event;
	int to;
} volume_cases[] = {
	{ VOLUME_CREATING, VOLUME_ASK_ATTACH, REFUSES },
	{ VOLUME_CREATING, VOLUME_ASK_DELETE, REFUSES },
	{ VOLUME_CREATING, VOLUME_ASK_MODIFY, REFUSES },
	{ VOLUME_CREATING, VOLUME_ASK_SNAPSHOT, REFUSES },
	{ VOLUME_CREATING, VOLUME_SEEN_CREATED, VOLUME_AVAILABLE },
	{ VOLUME_CREATING, VOLUME_SEEN_FAILED, VOLUME_ERROR },
	{ VOLUME_AVAILABLE, VOLUME_ASK_ATTACH, VOLUME_IN_USE },
	{ VOLUME_AVAILABLE, VOLUME_ASK_DELETE, VOLUME_DELETING },
	{ VOLUME_AVAILABLE, VOLUME_ASK_MODIFY, STAYS },
	{ VOLUME_AVAILABLE, VOLUME_ASK_SNAPSHOT, STAYS },
	{ VOLUME_IN_USE, VOLUME_ASK_ATTACH, REFUSES },
	{ VOLUME_IN_USE, VOLUME_ASK_DELETE, REFUSES },
	{ VOLUME_IN_USE, VOLUME_ASK_MODIFY, STAYS },
	{ VOLUME_IN_USE, VOLUME_ASK_SNAPSHOT, STAYS },
	{ VOLUME_IN_USE, VOLUME_SEEN_DETACHED, VOLUME_AVAILABLE },
	{ VOLUME_DELETING, VOLUME_ASK_ATTACH, REFUSES },
	{ VOLUME_DELETING, VOLUME_ASK_DELETE, STAYS },
	{ VOLUME_DELETING, VOLUME_ASK_MODIFY, REFUSES },
	{ VOLUME_DELETING, VOLUME_ASK_SNAPSHOT, REFUSES },
	{ VOLUME_DELETING, VOLUME_SEEN_DELETED, VOLUME_DELETED },
	{ VOLUME_DELETED, VOLUME_ASK_ATTACH, REFUSES },
	{ VOLUME_DELETED, VOLUME_ASK_DELETE, STAYS },
	{ VOLUME_DELETED, VOLUME_ASK_MODIFY, REFUSES },
	{ VOLUME_DELETED, VOLUME_ASK_SNAPSHOT, REFUSES },
	{ VOLUME_ERROR, VOLUME_ASK_ATTACH, REFUSES },
	{ VOLUME_ERROR, VOLUME_ASK_DELETE, VOLUME_DELETING },
	{ VOLUME_ERROR, VOLUME_ASK_MODIFY, REFUSES },
	{ VOLUME_ERROR, VOLUME_ASK_SNAPSHOT, REFUSES },
};

static void test_volume(void **state)
{
	for (int from = 0; from < VOLUME_STATE_COUNT; from++) {
		for (int event = 0; event < VOLUME_EVENT_COUNT; event++) {
			int expected = STAYS;
			enum volume_state next = VOLUME_STATE_COUNT;
			for (size_t i = 0; i < ARRAY_SIZE(volume_cases); i++) {
				if ((int)volume_cases[i].from == from && (int)volume_cases[i].event == event)
					expected = volume_cases[i].to;
			}
			enum ebs_verdict v = volume_next((enum volume_state)from, (enum volume_event)event, &next);
			assert_int_equal(outcome(v, (int)next), expected);
		}
	}
}

static const struct {
	enum attachment_state from;
	enum attachment_event event;
	int to;
} attachment_cases[] = {
	{ ATTACHMENT_ATTACHING, ATTACHMENT_ASK_DETACH, ATTACHMENT_DETACHING },
	{ ATTACHMENT_ATTACHING, ATTACHMENT_ASK_FORCE, ATTACHMENT_DETACHING },
	{ ATTACHMENT_ATTACHING, ATTACHMENT_SEEN_PLUGGED, ATTACHMENT_ATTACHED },
	{ ATTACHMENT_ATTACHING, ATTACHMENT_SEEN_GONE, ATTACHMENT_DETACHED },
	{ ATTACHMENT_ATTACHING, ATTACHMENT_SEEN_FAILED, ATTACHMENT_DETACHED },
	{ ATTACHMENT_ATTACHED, ATTACHMENT_ASK_DETACH, ATTACHMENT_DETACHING },
	{ ATTACHMENT_ATTACHED, ATTACHMENT_ASK_FORCE, ATTACHMENT_DETACHING },
	{ ATTACHMENT_ATTACHED, ATTACHMENT_SEEN_GONE, ATTACHMENT_DETACHED },
	{ ATTACHMENT_DETACHING, ATTACHMENT_SEEN_HELD, ATTACHMENT_BUSY },
	{ ATTACHMENT_DETACHING, ATTACHMENT_SEEN_GONE, ATTACHMENT_DETACHED },
	{ ATTACHMENT_DETACHING, ATTACHMENT_SEEN_FAILED, ATTACHMENT_DETACHED },
	{ ATTACHMENT_BUSY, ATTACHMENT_ASK_FORCE, ATTACHMENT_DETACHING },
	{ ATTACHMENT_BUSY, ATTACHMENT_SEEN_GONE, ATTACHMENT_DETACHED },
	{ ATTACHMENT_DETACHED, ATTACHMENT_ASK_DETACH, REFUSES },
	{ ATTACHMENT_DETACHED, ATTACHMENT_ASK_FORCE, REFUSES },
};

static void test_attachment(void **state)
{
	for (int from = 0; from < ATTACHMENT_STATE_COUNT; from++) {
		for (int event = 0; event < ATTACHMENT_EVENT_COUNT; event++) {
			int expected = STAYS;
			enum attachment_state next = ATTACHMENT_STATE_COUNT;
			for (size_t i = 0; i < ARRAY_SIZE(attachment_cases); i++) {
				if ((int)attachment_cases[i].from == from && (int)attachment_cases[i].event == event)
					expected = attachment_cases[i].to;
			}
			enum ebs_verdict v = attachment_next((enum attachment_state)from, (enum attachment_event)event, &next);
			assert_int_equal(outcome(v, (int)next), expected);
		}
	}
}

static void test_snapshot(void **state)
{
	static const int expected[SNAPSHOT_STATE_COUNT][SNAPSHOT_EVENT_COUNT] = {
		[SNAPSHOT_PENDING] = { REFUSES, SNAPSHOT_DELETED, SNAPSHOT_COMPLETED, SNAPSHOT_ERROR },
		[SNAPSHOT_COMPLETED] = { STAYS, SNAPSHOT_DELETED, STAYS, STAYS },
		[SNAPSHOT_ERROR] = { REFUSES, SNAPSHOT_DELETED, STAYS, STAYS },
		[SNAPSHOT_DELETED] = { REFUSES, STAYS, STAYS, STAYS },
	};

	for (int from = 0; from < SNAPSHOT_STATE_COUNT; from++) {
		for (int event = 0; event < SNAPSHOT_EVENT_COUNT; event++) {
			enum snapshot_state next = SNAPSHOT_STATE_COUNT;
			enum ebs_verdict v = snapshot_next((enum snapshot_state)from, (enum snapshot_event)event, &next);
			assert_int_equal(outcome(v, (int)next), expected[from][event]);
		}
	}
}

static void test_names(void **state)
{
	for (int i = 0; i < VOLUME_STATE_COUNT; i++)
		assert_int_equal(volume_state_parse(volume_state_name((enum volume_state)i)), i);
	for (int i = 0; i < ATTACHMENT_STATE_COUNT; i++)
		assert_int_equal(attachment_state_parse(attachment_state_name((enum attachment_state)i)), i);
	for (int i = 0; i < SNAPSHOT_STATE_COUNT; i++)
		assert_int_equal(snapshot_state_parse(snapshot_state_name((enum snapshot_state)i)), i);
	assert_int_equal(volume_state_parse(NULL), VOLUME_STATE_COUNT);
	assert_int_equal(snapshot_state_parse("complete"), SNAPSHOT_STATE_COUNT);
	assert_string_equal(volume_state_name(VOLUME_IN_USE), "in-use");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_volume),
		cmocka_unit_test(test_attachment),
		cmocka_unit_test(test_snapshot),
		cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
