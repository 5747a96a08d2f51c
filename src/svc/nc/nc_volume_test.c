/* SPDX-License-Identifier: Apache-2.0 */
/* Instances with volumes, on the fake hypervisor, with a double of the storage controller. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "os/file.h"
#include "svc/nc/sc_double.h"

#define ROOT 1
#define DATA 2
#define WAIT_MS 20000

struct test {
	struct fixture *f;
	struct sc_double *sc;
	struct shared_block_device devices[3]; /* of instance 1 */
	size_t device_count;
	struct shared_instance_spec spec;
};

static int setup(void **state)
{
	struct test *t = calloc(1, sizeof(*t));
	char image[512] = "";

	t->f = fixture_new("fake", NULL, image, sizeof(image));
	t->sc = sc_double_new(t->f);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct test *t = *state;

	sc_double_free(t->sc);
	fixture_free(t->f);
	free(t);
	return 0;
}

/* --- what is wanted --- */

static struct shared_block_device *device(struct test *t, int number)
{
	for (size_t i = 0; i < t->device_count; i++)
		if (str_eq(t->devices[i].volume_id, volume_id(t->f, number)))
			return &t->devices[i];
	return NULL;
}

static void have(struct test *t, int number, int slot, bool boot, int64_t generation)
{
	struct shared_block_device *d = device(t, number);

	sc_double_see(t->sc, number); /* is there */
	if (!d)
		d = &t->devices[t->device_count++];
	*d = (struct shared_block_device){.volume_id = volume_id(t->f, number),
					  .device_name = boot ? "/dev/xvda" : "/dev/sdf",
					  .slot = WIRE_INT_OF(slot),
					  .boot = WIRE_BOOL_OF(boot),
					  .generation = WIRE_INT_OF(generation),
					  .wanted = "attached"};
}

static void drop(struct test *t, int number)
{
	struct shared_block_device *d = device(t, number);

	*d = t->devices[--t->device_count];
}

static void apply(struct test *t, const char *wanted)
{
	t->spec = fixture_spec(t->f, 1, wanted);
	t->spec.root_device_type = "ebs";
	t->spec.root_device_name = "/dev/xvda";
	t->spec.disk_bytes = WIRE_INT_OF(0);
	t->spec.image_url = t->spec.image_sha256 = NULL;
	t->spec.block_devices =
	    (struct shared_block_device_list){.set = true, .count = t->device_count, .items = t->devices};
	fixture_apply_spec(t->f, &t->spec);
}

static void launch(struct test *t)
{
	have(t, ROOT, 0, true, 1);
	apply(t, "running");
	fixture_await(t->f, 1, "running");
}

static void rules(struct test *t, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/nc/fake.conf", t->f->dir);
	assert_int_equal(file_write_atomic(path, text, strlen(text), 0600), 0);
}

/* --- what is --- */

static const struct shared_block_device_observed *see(struct test *t, int number)
{
	const struct shared_instance_observed *o = fixture_observe(t->f, 1);

	for (size_t i = 0; o && i < o->block_devices.count; i++)
		if (str_eq(o->block_devices.items[i].volume_id, volume_id(t->f, number)))
			return &o->block_devices.items[i];
	return NULL;
}

static const struct shared_block_device_observed *await_device(struct test *t, int number, const char *want)
{
	const struct shared_block_device_observed *d;
	int64_t end = clock_mono_ms() + 2 * WAIT_MS;

	for (;;) {
		d = see(t, number);
		if (d && str_eq(d->state, want))
			return d;
		if (clock_mono_ms() > end)
			fail_msg("volume %d is %s (%s), not %s", number, d ? d->state : "unknown", d && d->reason ? d->reason : "", want);
		usleep(20000);
	}
}

static const struct shared_block_device_observed *await_reason(struct test *t, int number, const char *part)
{
	const struct shared_block_device_observed *d;
	int64_t end = clock_mono_ms() + WAIT_MS;

	for (;;) {
		d = see(t, number);
		if (d && d->reason && strstr(d->reason, part))
			return d;
		if (clock_mono_ms() > end)
			fail_msg("volume %d is %s (%s), not \"%s\"", number, d ? d->state : "unknown", d && d->reason ? d->reason : "", part);
		usleep(20000);
	}
}

static void await_open(struct test *t, int number, bool open)
{
	int64_t end = clock_mono_ms() + WAIT_MS;

	while (!!sc_double_see(t->sc, number).instance[0] != open) {
		if (clock_mono_ms() > end)
			fail_msg("volume %d is %s", number, open ? "not open" : "still open");
		usleep(10000);
	}
}

static size_t plugged(struct test *t)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct hyper_disk_status *list;
	struct error e = {0};
	size_t count;
	char name[64];

	nc_domain_name(t->f->nc, "i-00000000000000001", name);
	assert_int_equal(t->f->nc->ops->disk_list(t->f->nc->hyper, name, a, &list, &count, &e), 0);
	return count;
}

static size_t records(struct test *t)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct state_object *list;
	struct error e = {0};
	size_t count;

	assert_int_equal(state_list(t->f->nc->state, a, "volume", NULL, 0, &list, &count, &e), 0);
	return count;
}

static void await_no_records(struct test *t)
{
	int64_t end = clock_mono_ms() + WAIT_MS;

	while (records(t)) {
		assert_true(clock_mono_ms() < end);
		usleep(10000);
	}
}

/* Its user is nobody's any more: an instant after the record went. */
static void await_slot_free(struct test *t, int slot)
{
	for (int i = 0;; i++) {
		bool used;

		pthread_mutex_lock(&t->f->nc->lock);
		used = t->f->nc->slot_users[slot];
		pthread_mutex_unlock(&t->f->nc->lock);
		if (!used)
			return;
		assert_true(i < 500);
		usleep(10000);
	}
}

static void restart(struct test *t)
{
	fixture_restart_node(t->f);
}

/* --- tests --- */

static void test_launch_and_terminate(void **state)
{
	struct test *t = *state;
	const struct shared_instance_observed *o;

	have(t, DATA, 1, false, 1);
	launch(t);
	assert_string_equal(see(t, ROOT)->state, "attached");
	assert_string_equal(see(t, DATA)->state, "attached");
	assert_int_equal(plugged(t), 2);
	assert_int_equal(t->f->fetches, 0);
	assert_false(fixture_has_file(t->f, 1, "/root.raw"));
	assert_int_equal(records(t), 2);
	apply(t, "terminated");
	o = fixture_await(t->f, 1, "terminated");
	assert_string_equal(o->block_devices.items[0].state, "detached");
	await_open(t, ROOT, false);
	await_open(t, DATA, false);
	await_no_records(t);
	assert_int_equal(sc_double_see(t->sc, ROOT).closes, 1);
}

static void test_launch_waits_for_its_volumes(void **state)
{
	struct test *t = *state;
	const struct shared_instance_observed *o;

	sc_double_refuse(t->sc, ROOT, "VolumeNotReady");
	have(t, ROOT, 0, true, 1);
	apply(t, "running");
	o = fixture_await_progress(t->f, 1, "VolumeNotReady");
	assert_string_equal(o->state, "pending");
	assert_string_equal(await_reason(t, ROOT, "VolumeNotReady")->state, "attaching");
	restart(t);
	sc_double_refuse(t->sc, ROOT, NULL);
	o = fixture_await(t->f, 1, "running");
	assert_null(o->progress);
	assert_string_equal(see(t, ROOT)->state, "attached");
	assert_null(see(t, ROOT)->reason);
}

static void test_launch_fails(void **state)
{
	struct test *t = *state;
	const struct shared_instance_observed *o;

	have(t, DATA, 1, false, 1);
	sc_double_refuse(t->sc, DATA, "StaleAttachment");
	have(t, ROOT, 0, true, 1);
	apply(t, "running");
	o = fixture_await(t->f, 1, "terminated");
	assert_string_equal(o->state_reason_code, "Server.InternalError");
	assert_non_null(strstr(o->state_reason_message, "StaleAttachment"));
	await_no_records(t);
	await_open(t, ROOT, false);
}

static void test_launch_given_up_by_its_owner(void **state)
{
	struct test *t = *state;

	sc_double_refuse(t->sc, ROOT, "VolumeInUse");
	have(t, ROOT, 0, true, 1);
	apply(t, "running");
	usleep(300000);
	apply(t, "terminated");
	fixture_await(t->f, 1, "terminated");
	await_no_records(t);
}

static void test_attach_and_detach(void **state)
{
	struct test *t = *state;

	launch(t);
	sc_double_refuse(t->sc, DATA, "VolumeInUse");
	have(t, DATA, 3, false, 7);
	apply(t, "running");
	assert_string_equal(await_reason(t, DATA, "VolumeInUse")->state, "attaching");
	assert_null(fixture_observe(t->f, 1)->progress);
	sc_double_refuse(t->sc, DATA, NULL);
	assert_int_equal(await_device(t, DATA, "attached")->generation.value, 7);
	assert_int_equal(plugged(t), 2);
	device(t, DATA)->wanted = "detached";
	apply(t, "running");
	await_device(t, DATA, "detached");
	await_open(t, DATA, false);
	assert_int_equal(plugged(t), 1);
	/* And again, in one go: the old attachment goes first. */
	have(t, DATA, 3, false, 8);
	apply(t, "running");
	await_device(t, DATA, "attached");
	have(t, DATA, 4, false, 9);
	apply(t, "running");
	assert_int_equal(await_device(t, DATA, "attached")->generation.value, 9);
	assert_int_equal(sc_double_see(t->sc, DATA).generation, 9);
	drop(t, DATA); /* as if it had been told of as detached */
	apply(t, "running");
	await_open(t, DATA, false);
	assert_int_equal(plugged(t), 1);
	assert_string_equal(fixture_observe(t->f, 1)->state, "running");
}

static void test_attach_fails(void **state)
{
	struct test *t = *state;

	launch(t);
	have(t, DATA, 3, false, 1);
	sc_double_refuse(t->sc, DATA, "StaleAttachment");
	apply(t, "running");
	assert_non_null(strstr(await_device(t, DATA, "failed")->reason, "StaleAttachment"));
	drop(t, DATA);
	apply(t, "running");
	rules(t, "* attach-fails\n");
	usleep(300000);
	have(t, 3, 3, false, 1);
	apply(t, "running");
	await_device(t, 3, "failed");
	await_open(t, 3, false);
	assert_string_equal(fixture_observe(t->f, 1)->state, "running");
}

static void test_busy_and_force(void **state)
{
	struct test *t = *state;

	have(t, DATA, 3, false, 1);
	rules(t, "* keeps-disks\n");
	launch(t);
	device(t, DATA)->wanted = "detached";
	apply(t, "running");
	await_device(t, DATA, "detaching");
	assert_non_null(await_device(t, DATA, "busy")->reason);
	assert_int_equal(plugged(t), 2);
	await_open(t, DATA, true);
	device(t, DATA)->wanted = "forced";
	apply(t, "running");
	await_device(t, DATA, "detached");
	await_open(t, DATA, false);
	assert_int_equal(plugged(t), 1);
}

static void test_stop_and_start(void **state)
{
	struct test *t = *state;

	have(t, DATA, 1, false, 1);
	launch(t);
	apply(t, "stopped");
	fixture_await(t->f, 1, "stopped");
	await_open(t, ROOT, false);
	await_open(t, DATA, false);
	assert_string_equal(see(t, ROOT)->state, "attached");
	assert_string_equal(see(t, DATA)->state, "attached");
	await_no_records(t);
	restart(t);
	assert_string_equal(fixture_observe(t->f, 1)->state, "stopped");
	/* Changed while it is off. */
	device(t, DATA)->wanted = "detached";
	have(t, 3, 2, false, 1);
	apply(t, "stopped");
	await_device(t, DATA, "detached");
	await_device(t, 3, "attached");
	drop(t, DATA);
	apply(t, "running");
	assert_string_not_equal(fixture_observe(t->f, 1)->state, "stopped");
	fixture_await(t->f, 1, "running");
	assert_int_equal(plugged(t), 2);
	await_device(t, 3, "attached");
	assert_int_equal(sc_double_see(t->sc, ROOT).opens, 2);
}

static void test_start_waits_for_ever(void **state)
{
	struct test *t = *state;
	const struct shared_instance_observed *o;

	launch(t);
	apply(t, "stopped");
	fixture_await(t->f, 1, "stopped");
	await_no_records(t);
	sc_double_refuse(t->sc, ROOT, "VolumeNotFound");
	apply(t, "running");
	o = fixture_await_progress(t->f, 1, "VolumeNotFound");
	assert_string_equal(o->state, "pending");
	sc_double_stop(t->sc);
	usleep(500000);
	sc_double_start(t->sc);
	sc_double_refuse(t->sc, ROOT, NULL);
	fixture_await(t->f, 1, "running");
}

static void test_guest_stops_itself(void **state)
{
	struct test *t = *state;
	const struct shared_instance_observed *o;

	launch(t);
	rules(t, "* powers-off\n");
	o = fixture_await(t->f, 1, "stopped");
	assert_string_equal(o->state_reason_code, "Client.InstanceInitiatedShutdown");
	rules(t, "\n");
	await_open(t, ROOT, false);
	usleep(300000);
	restart(t);
	usleep(300000);
	o = fixture_observe(t->f, 1);
	assert_string_equal(o->state, "stopped");
	assert_string_equal(o->state_reason_code, "Client.InstanceInitiatedShutdown");
	apply(t, "stopped");
	usleep(200000);
	assert_string_equal(fixture_observe(t->f, 1)->state, "stopped");
	apply(t, "running");
	o = fixture_await(t->f, 1, "running");
	assert_null(o->state_reason_code);
	assert_int_equal(metrics_get(t->f->nc->metrics, NC_M_LAUNCH_FAILURES), 0);
}

static void test_guest_terminates_itself(void **state)
{
	struct test *t = *state;

	have(t, ROOT, 0, true, 1);
	t->spec = fixture_spec(t->f, 1, "running");
	t->spec.root_device_type = "ebs";
	t->spec.disk_bytes = WIRE_INT_OF(0);
	t->spec.instance_initiated_shutdown_behavior = "terminate";
	t->spec.block_devices = (struct shared_block_device_list){.set = true, .count = 1, .items = t->devices};
	fixture_apply_spec(t->f, &t->spec);
	fixture_await(t->f, 1, "running");
	rules(t, "* powers-off\n");
	assert_string_equal(fixture_await(t->f, 1, "terminated")->state_reason_code, "Client.InstanceInitiatedShutdown");
	await_no_records(t);
}

static void test_busy_with_a_snapshot(void **state)
{
	struct test *t = *state;
	int slot;

	launch(t);
	slot = nc_find(t->f->nc, "i-00000000000000001")->rec.slot;
	sc_double_busy(t->sc, ROOT, true);
	apply(t, "terminated");
	fixture_await(t->f, 1, "terminated");
	await_open(t, ROOT, true);
	assert_int_equal(records(t), 1);
	restart(t);
	usleep(300000);
	assert_int_equal(records(t), 1);
	assert_int_equal(t->f->nc->slot_users[slot], 1); /* its user is nobody else's yet */
	assert_int_equal(sc_double_see(t->sc, ROOT).closes, 0);
	sc_double_busy(t->sc, ROOT, false);
	await_open(t, ROOT, false);
	await_slot_free(t, slot);
	assert_int_equal(records(t), 0);
}

/* Opened while snapshots of it have yet to be frozen here: no guest gets it before, neither by a plug nor at its start. */
static void test_held(void **state)
{
	struct test *t = *state;

	launch(t);
	sc_double_hold(t->sc, DATA, true);
	have(t, DATA, 3, false, 1);
	apply(t, "running");
	await_open(t, DATA, true);
	usleep(700000);
	assert_true(sc_double_see(t->sc, DATA).opens > 1); /* asked again */
	assert_string_equal(see(t, DATA)->state, "attaching");
	assert_non_null(strstr(see(t, DATA)->reason, "frozen"));
	restart(t);
	usleep(700000);
	assert_int_equal(plugged(t), 1);
	sc_double_hold(t->sc, DATA, false);
	await_device(t, DATA, "attached");
	assert_int_equal(plugged(t), 2);

	apply(t, "stopped");
	fixture_await(t->f, 1, "stopped");
	await_open(t, ROOT, false);
	sc_double_hold(t->sc, ROOT, true);
	apply(t, "running");
	await_open(t, ROOT, true);
	await_open(t, DATA, true); /* it does not wait for the root */
	usleep(700000);
	assert_string_equal(fixture_observe(t->f, 1)->state, "pending");
	sc_double_hold(t->sc, ROOT, false);
	fixture_await(t->f, 1, "running");
	assert_int_equal(plugged(t), 2);
}

/* Stopped while a snapshot is read from it, and wanted again: it is not closed at all. */
static void test_wanted_again(void **state)
{
	struct test *t = *state;

	launch(t);
	sc_double_busy(t->sc, ROOT, true);
	apply(t, "stopped");
	fixture_await(t->f, 1, "stopped");
	apply(t, "running");
	fixture_await(t->f, 1, "running");
	sc_double_busy(t->sc, ROOT, false);
	usleep(300000);
	assert_int_equal(sc_double_see(t->sc, ROOT).closes, 0);
	assert_int_equal(plugged(t), 1);
}

static void test_drain(void **state)
{
	struct test *t = *state;
	struct shared_node_status *s;
	int64_t end = clock_mono_ms() + WAIT_MS;

	launch(t);
	sc_double_busy(t->sc, ROOT, true); /* which is not waited for longer than the guests are */
	fixture_hold(t->f, true, 3);
	do {
		assert_true(clock_mono_ms() < end);
		usleep(50000);
		s = fixture_call(t->f, "DescribeNode", NULL);
	} while (!str_eq(s->state, "drained"));
	await_open(t, ROOT, false);
	assert_string_equal(see(t, ROOT)->state, "attached");
	restart(t);
	fixture_hold(t->f, false, 0);
	await_open(t, ROOT, true);
	for (int i = 0; plugged(t) != 1; i++) {
		assert_true(i < 400);
		usleep(50000);
	}
	assert_string_equal(fixture_await(t->f, 1, "running")->state, "running");
}

/* And, with luck, runs again. */
static bool has_crashed(struct test *t)
{
	struct hyper_status st;
	struct error e = {0};
	char name[64];

	nc_domain_name(t->f->nc, "i-00000000000000001", name);
	assert_int_equal(t->f->nc->ops->status(t->f->nc->hyper, name, &st, &e), 0);
	return st.state != HYPER_RUNNING || metrics_get(t->f->nc->metrics, NC_M_RESTARTS) > 0;
}

static void test_crash_and_restart(void **state)
{
	struct test *t = *state;

	launch(t);
	restart(t);
	fixture_await(t->f, 1, "running");
	usleep(300000);
	assert_int_equal(metrics_get(t->f->nc->metrics, NC_M_RESTARTS), 0);
	assert_int_equal(sc_double_see(t->sc, ROOT).closes, 0);
	t->spec.reboot_generation = WIRE_INT_OF(1);
	t->spec.generation = WIRE_INT_OF(++t->f->generation);
	fixture_apply_spec(t->f, &t->spec);
	usleep(500000);
	assert_int_equal(plugged(t), 1);
	rules(t, "* crashes\n");
	for (int i = 0; !has_crashed(t); i++) {
		assert_true(i < 400);
		usleep(50000);
	}
	rules(t, "\n");
	for (int i = 0; metrics_get(t->f->nc->metrics, NC_M_RESTARTS) == 0; i++) {
		assert_true(i < 400);
		usleep(50000);
	}
	assert_int_equal(sc_double_see(t->sc, ROOT).closes, 0);
	assert_string_equal(fixture_await(t->f, 1, "running")->state, "running");
}

/* NC dies wherever it may: each time a little later. */
static void test_restarts_at_each_step(void **state)
{
	struct test *t = *state;

	have(t, DATA, 1, false, 1);
	have(t, ROOT, 0, true, 1);
	for (int i = 0; i < 12; i++) {
		apply(t, "running");
		usleep((useconds_t)(i * 13000));
		restart(t);
		usleep((useconds_t)(i * 7000));
		restart(t);
		fixture_await(t->f, 1, "running");
		await_device(t, DATA, "attached");
		assert_int_equal(plugged(t), 2);
		apply(t, "stopped");
		usleep((useconds_t)(i * 11000));
		restart(t);
		fixture_await(t->f, 1, "stopped");
		await_open(t, ROOT, false);
		await_open(t, DATA, false);
		await_no_records(t);
	}
	apply(t, "terminated");
	restart(t);
	fixture_await(t->f, 1, "terminated");
	await_slot_free(t, 0);
}

static void test_bad_devices(void **state)
{
	struct test *t = *state;

	apply(t, "running"); /* no boot disk */
	have(t, ROOT, 0, true, 1);
	t->devices[0].volume_id = "vol-../../../etc/passwd";
	apply(t, "running");
	t->devices[0].volume_id = volume_id(t->f, ROOT);
	t->devices[0].slot = WIRE_INT_OF(16);
	apply(t, "running");
	have(t, ROOT, 0, true, 1);
	have(t, DATA, 1, false, 1);
	have(t, 3, 1, false, 1);
	apply(t, "running");
	device(t, 3)->slot = WIRE_INT_OF(2);
	device(t, 3)->wanted = "danced";
	apply(t, "running");
	assert_null(fixture_observe(t->f, 1));
	device(t, 3)->wanted = "attached";
	apply(t, "running");
	fixture_await(t->f, 1, "running");
	assert_int_equal(sc_double_see(t->sc, ROOT).opens, 1);
}

static void test_capacity(void **state)
{
	struct test *t = *state;
	struct shared_node_status *s;

	launch(t);
	s = fixture_call(t->f, "DescribeNode", NULL);
	assert_int_equal(s->vcpus_used.value, 2);
	assert_int_equal(s->disk_mib_used.value, 0);
	apply(t, "stopped");
	fixture_await(t->f, 1, "stopped");
	s = fixture_call(t->f, "DescribeNode", NULL);
	assert_int_equal(s->vcpus_used.value, 0);
	assert_int_equal(s->memory_mib_used.value, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    T(test_launch_and_terminate),
	    T(test_launch_waits_for_its_volumes),
	    T(test_launch_fails),
	    T(test_launch_given_up_by_its_owner),
	    T(test_attach_and_detach),
	    T(test_attach_fails),
	    T(test_busy_and_force),
	    T(test_stop_and_start),
	    T(test_start_waits_for_ever),
	    T(test_guest_stops_itself),
	    T(test_guest_terminates_itself),
	    T(test_busy_with_a_snapshot),
	    T(test_held),
	    T(test_wanted_again),
	    T(test_drain),
	    T(test_crash_and_restart),
	    T(test_restarts_at_each_step),
	    T(test_bad_devices),
	    T(test_capacity),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
