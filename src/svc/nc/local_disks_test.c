/* SPDX-License-Identifier: Apache-2.0 */
/* Whole disks of the node given to instances, on the fake hypervisor: who has which, and for how long. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "svc/nc/nc_fixture.h"

static int setup(void **state)
{
	char image[512] = "";

	setenv("MALLEE_LOCAL_DISKS", "/dev/none0,/dev/none1,/dev/none2", 1);
	*state = fixture_new("fake", NULL, image, sizeof(image));
	unsetenv("MALLEE_LOCAL_DISKS");
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

static void want(struct fixture *f, int number, const char *wanted, int disks)
{
	struct shared_instance_spec s = fixture_spec(f, number, wanted);

	s.local_disks = WIRE_INT_OF(disks);
	s.vcpus = WIRE_INT_OF(1);
	fixture_apply_spec(f, &s);
}

static void assert_used(struct fixture *f, int want_total, int want_used)
{
	const struct shared_node_status *s = fixture_call(f, "DescribeNode", NULL);

	assert_int_equal(s->local_disks.value, want_total);
	assert_int_equal(s->local_disks_used.value, want_used);
}

/* Which disk is the instance's of that index. */
static const char *device_of(struct fixture *f, int number, int index)
{
	char id[32];

	snprintf(id, sizeof(id), "i-%017d", number);
	for (size_t i = 0; i < f->nc->disk_count; i++)
		if (str_eq(f->nc->disks[i].instance, id) && f->nc->disks[i].index == index)
			return f->nc->disks[i].device;
	return NULL;
}

static void has_its_disks_while_it_lives(void **state)
{
	struct fixture *f = *state;

	assert_used(f, 3, 0);
	want(f, 1, "running", 2);
	fixture_await(f, 1, "running");
	assert_used(f, 3, 2);
	want(f, 2, "running", 1);
	fixture_await(f, 2, "running");
	assert_used(f, 3, 3);
	assert_string_not_equal(device_of(f, 1, 0), device_of(f, 1, 1));
	want(f, 1, "terminated", 2);
	fixture_await(f, 1, "terminated");
	assert_used(f, 3, 1);
	assert_non_null(device_of(f, 2, 0));
}

static void a_stop_gives_them_up_and_a_drain_does_not(void **state)
{
	struct fixture *f = *state;

	want(f, 1, "running", 1);
	fixture_await(f, 1, "running");
	const char *before = arena_strdup(f->arena, device_of(f, 1, 0));
	fixture_hold(f, true, 0);
	fixture_restart_node(f);
	assert_used(f, 3, 1);
	fixture_hold(f, false, 0);
	fixture_await(f, 1, "running");
	assert_string_equal(device_of(f, 1, 0), before);
	want(f, 1, "stopped", 1);
	fixture_await(f, 1, "stopped");
	assert_used(f, 3, 0);
	want(f, 1, "running", 1);
	fixture_await(f, 1, "running");
	assert_used(f, 3, 1);
}

static void one_too_many_waits_for_a_free_one(void **state)
{
	struct fixture *f = *state;

	want(f, 1, "running", 3);
	fixture_await(f, 1, "running");
	want(f, 2, "running", 1);
	for (int i = 0; i < 200; i++) {
		const struct shared_instance_observed *o = fixture_observe(f, 2);

		if (o && o->progress && strstr(o->progress, "no whole disk"))
			break;
		assert_true(!o || str_eq(o->state, "pending"));
		usleep(20000);
	}
	assert_string_equal(fixture_observe(f, 2)->state, "pending");
	want(f, 1, "terminated", 3);
	fixture_await(f, 2, "running");
	assert_used(f, 3, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(has_its_disks_while_it_lives, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_stop_gives_them_up_and_a_drain_does_not, setup, teardown),
	    cmocka_unit_test_setup_teardown(one_too_many_waits_for_a_free_one, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
