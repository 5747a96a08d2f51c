/* SPDX-License-Identifier: Apache-2.0 */
/* The node controller on the fake hypervisor. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "os/file.h"
#include "svc/nc/nc_fixture.h"

#define IMAGE_LEN 100000u

static int setup(void **state)
{
	char *image = calloc(1, IMAGE_LEN);

	*state = fixture_new("fake", NULL, image, IMAGE_LEN);
	free(image);
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

static void write_conf(struct fixture *f, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/nc/fake.conf", f->dir);
	assert_int_equal(file_write_atomic(path, text, strlen(text), 0600), 0);
}

static void forget(struct fixture *f, int number)
{
	const char *id = arena_printf(f->arena, "i-%017d", number);
	struct shared_forget_instances_request in = {
	    .instance_ids = {.set = true, .count = 1, .items = &id}};

	fixture_call(f, "ForgetInstances", &in);
}

static void test_life(void **state)
{
	struct fixture *f = *state;
	const struct shared_instance_observed *o;
	struct shared_get_console_output_request console = {.instance_id = "i-00000000000000001"};
	struct shared_get_console_output_response *text;

	fixture_apply(f, 1, "running");
	o = fixture_await(f, 1, "running");
	assert_string_equal(o->reachability, "ok");
	assert_null(o->state_reason_code);
	assert_true(fixture_has_file(f, 1, "/root.raw"));
	text = fixture_call(f, "GetConsoleOutput", &console);
	assert_non_null(memmem(text->output.data, text->output.len, "booted", 6));

	forget(f, 1); /* not over: nothing happens */
	assert_non_null(fixture_observe(f, 1));
	fixture_apply(f, 1, "terminated");
	o = fixture_await(f, 1, "terminated");
	assert_string_equal(o->state_reason_code, "Client.UserInitiatedShutdown");
	assert_false(fixture_has_file(f, 1, ""));
	fixture_apply(f, 1, "running"); /* over is over */
	usleep(200000);
	assert_string_equal(fixture_observe(f, 1)->state, "terminated");
	forget(f, 1);
	for (int i = 0; fixture_observe(f, 1); i++) { /* the worker that ended it may be at it still */
		assert_true(i < 500);
		usleep(20000);
	}
}

static void test_old_generations_are_ignored(void **state)
{
	struct fixture *f = *state;
	struct shared_instance_spec old = fixture_spec(f, 1, "terminated");

	fixture_apply(f, 1, "running");
	fixture_apply_spec(f, &old);
	fixture_await(f, 1, "running");
	usleep(200000);
	assert_string_equal(fixture_observe(f, 1)->state, "running");
}

static void test_failed_launches_say_why(void **state)
{
	struct fixture *f = *state;
	struct shared_instance_spec s = fixture_spec(f, 1, "running");
	const struct shared_instance_observed *o;
	char wrong[65];

	strcpy(wrong, f->sha);
	wrong[0] = wrong[0] == '0' ? '1' : '0';
	s.image_sha256 = wrong;
	fixture_apply_spec(f, &s);
	o = fixture_await(f, 1, "terminated");
	assert_string_equal(o->state_reason_code, "Server.InternalError");
	assert_non_null(strstr(o->state_reason_message, "damaged"));

	s = fixture_spec(f, 2, "running");
	s.disk_bytes = WIRE_INT_OF(1000);
	fixture_apply_spec(f, &s);
	o = fixture_await(f, 2, "terminated");
	assert_non_null(strstr(o->state_reason_message, "root disk only"));

	write_conf(f, "* start-fails\n");
	fixture_apply(f, 3, "running");
	o = fixture_await(f, 3, "terminated");
	assert_non_null(strstr(o->state_reason_message, "cannot start"));
	assert_false(fixture_has_file(f, 3, ""));
}

static void test_trouble_is_waited_out(void **state)
{
	struct fixture *f = *state;
	const struct shared_instance_observed *o;

	write_conf(f, "* start-unreachable\n");
	fixture_apply(f, 1, "running");
	o = fixture_await_progress(f, 1, "waiting: cannot reach");
	assert_string_equal(o->state, "pending");
	write_conf(f, "\n");
	o = fixture_await(f, 1, "running");
	assert_null(o->progress);
}

static void test_guest_switches_itself_off(void **state)
{
	struct fixture *f = *state;
	const struct shared_instance_observed *o;

	fixture_apply(f, 1, "running");
	fixture_apply(f, 2, "running");
	fixture_await(f, 1, "running");
	fixture_await(f, 2, "running");
	write_conf(f, "i-00000000000000001 powers-off\n");
	o = fixture_await(f, 1, "terminated");
	assert_string_equal(o->state_reason_code, "Client.InstanceInitiatedShutdown");
	assert_string_equal(fixture_observe(f, 2)->state, "running");
}

static void test_restart_adopts(void **state)
{
	struct fixture *f = *state;
	char epoch[40];

	fixture_apply(f, 1, "running");
	fixture_await(f, 1, "running");
	fixture_apply(f, 2, "terminated"); /* never seen before */
	fixture_await(f, 2, "terminated");
	strcpy(epoch, f->nc->epoch);
	fixture_restart_node(f);
	assert_string_not_equal(epoch, f->nc->epoch);
	fixture_await(f, 1, "running");
	assert_int_equal(metrics_get(f->nc->metrics, NC_M_RESTARTS), 0);
	assert_int_equal(metrics_get(f->nc->metrics, NC_M_LAUNCHES), 0);
	assert_string_equal(fixture_observe(f, 2)->state, "terminated");
	assert_int_equal(f->fetches, 1);
}

static void test_host_boot_starts_again(void **state)
{
	struct fixture *f = *state;
	char path[160];

	fixture_apply(f, 1, "running");
	fixture_await(f, 1, "running");
	nc_stop(f->nc);
	/* What a host's boot leaves: no machines; the record names another boot. */
	snprintf(path, sizeof(path), "%s/nc/fake", f->dir);
	assert_int_equal(dir_remove(path), 0);
	fixture_start_node(f);
	fixture_await(f, 1, "running");
	for (int i = 0; i < 100 && metrics_get(f->nc->metrics, NC_M_RESTARTS) == 0; i++)
		usleep(50000);
	assert_int_equal(metrics_get(f->nc->metrics, NC_M_RESTARTS), 1);
	assert_true(fixture_has_file(f, 1, "/root.raw"));
}

static const char *node_state(struct fixture *f)
{
	struct shared_node_status *s = fixture_call(f, "DescribeNode", NULL);

	return s->state;
}

static bool machine_is(struct fixture *f, int number, enum hyper_state want)
{
	struct hyper_status st;
	char name[64];

	snprintf(name, sizeof(name), "mallee-%s-i-%017d", f->nc->cloud_id, number);
	f->nc->ops->status(f->nc->hyper, name, &st, NULL);
	return st.state == want || (want == HYPER_OFF && st.state == HYPER_ABSENT);
}

static void await_machine(struct fixture *f, int number, enum hyper_state want)
{
	for (int i = 0; !machine_is(f, number, want); i++) {
		assert_true(i < 400);
		usleep(50000);
	}
}

static void test_drain_and_resume(void **state)
{
	struct fixture *f = *state;

	write_conf(f, "i-00000000000000002 ignores-shutdown\n");
	fixture_apply(f, 1, "running");
	fixture_apply(f, 2, "running");
	fixture_await(f, 1, "running");
	fixture_await(f, 2, "running");
	assert_string_equal(node_state(f), "ready");
	fixture_hold(f, true, 2);
	await_machine(f, 1, HYPER_OFF);
	await_machine(f, 2, HYPER_OFF); /* by force */
	fixture_restart_node(f);	/* remembered */
	fixture_apply(f, 3, "running");
	usleep(300000);
	assert_true(machine_is(f, 1, HYPER_OFF) && machine_is(f, 3, HYPER_ABSENT));
	assert_true(fixture_has_file(f, 1, "/root.raw") && fixture_has_file(f, 2, "/root.raw"));
	fixture_hold(f, false, 0);
	for (int i = 1; i <= 3; i++)
		await_machine(f, i, HYPER_RUNNING);
	fixture_await(f, 3, "running");
	assert_string_equal(fixture_observe(f, 1)->state, "running");
	assert_string_equal(node_state(f), "ready");
}

static atomic_int lost_requests;

static int lose_request(struct hyper *h, const char *name, struct error *e)
{
	lost_requests++;
	return 0;
}

/* A node that ended between noting that it asks a guest to switch itself off and asking: the next one asks. */
static void test_asked_off_by_a_node_that_ended(void **state)
{
	struct fixture *f = *state;
	static struct hyper_ops losing;

	losing = hyper_fake_ops;
	losing.shutdown = lose_request;
	lost_requests = 0;
	fixture_apply(f, 1, "running");
	fixture_await(f, 1, "running");
	f->nc->ops = &losing;
	fixture_apply(f, 1, "stopped");
	while (!lost_requests)
		usleep(10000);
	usleep(300000);
	assert_int_equal(lost_requests, 1); /* once is enough while it lives */
	assert_true(machine_is(f, 1, HYPER_RUNNING));
	fixture_restart_node(f);
	fixture_await(f, 1, "stopped");
}

static atomic_int slow_starts;
static atomic_bool let_go;

/* As libvirt's: when it returns, the guest runs. */
static int slow_start(struct hyper *h, const struct hyper_machine *m, struct error *e)
{
	struct hyper_status st = {.state = HYPER_OFF};
	int r;

	slow_starts++;
	while (!let_go)
		usleep(10000);
	r = hyper_fake_ops.start(h, m, e);
	while (r == 0 && st.state != HYPER_RUNNING) {
		usleep(10000);
		r = hyper_fake_ops.status(h, m->name, &st, e);
	}
	return r;
}

/* A node whose worker is just starting a guest is not drained yet. */
static void test_drain_meets_a_start(void **state)
{
	struct fixture *f = *state;
	static struct hyper_ops slow;
	struct shared_node_status *s;

	slow = hyper_fake_ops;
	slow.start = slow_start;
	slow_starts = 0;
	let_go = false;
	f->nc->ops = &slow;
	fixture_apply(f, 1, "running");
	while (!slow_starts)
		usleep(10000);
	fixture_hold(f, true, 5);
	s = fixture_call(f, "DescribeNode", NULL);
	let_go = true;
	assert_string_equal(s->state, "draining");
	while (!str_eq(s->state, "drained")) {
		usleep(50000);
		s = fixture_call(f, "DescribeNode", NULL);
	}
	assert_true(machine_is(f, 1, HYPER_OFF));
	usleep(600000);
	s = fixture_call(f, "DescribeNode", NULL);
	assert_string_equal(s->state, "drained");
	assert_int_equal(slow_starts, 1);
}

static atomic_int asked_off;

static int count_shutdown(struct hyper *h, const char *name, struct error *e)
{
	asked_off++;
	return hyper_fake_ops.shutdown(h, name, e);
}

/* By force a guest is not asked; one that was asked, and does not listen, is no longer waited for. */
static void test_forced_stop(void **state)
{
	struct fixture *f = *state;
	static struct hyper_ops counting;
	struct shared_instance_spec s;

	counting = hyper_fake_ops;
	counting.shutdown = count_shutdown;
	asked_off = 0;
	f->nc->ops = &counting;
	write_conf(f, "* ignores-shutdown\n");
	fixture_apply(f, 1, "running");
	fixture_apply(f, 2, "running");
	fixture_await(f, 1, "running");
	fixture_await(f, 2, "running");

	fixture_apply(f, 1, "stopped");
	while (!asked_off)
		usleep(10000);
	usleep(500000);
	assert_true(machine_is(f, 1, HYPER_RUNNING));
	for (int i = 1; i <= 2; i++) {
		s = fixture_spec(f, i, "stopped");
		s.force_off = WIRE_BOOL_OF(true);
		fixture_apply_spec(f, &s);
		fixture_await(f, i, "stopped");
		assert_true(machine_is(f, i, HYPER_OFF));
	}
	assert_int_equal(asked_off, 1);
	fixture_apply(f, 2, "running");
	fixture_await(f, 2, "running");
}

static void test_reboot_once(void **state)
{
	struct fixture *f = *state;
	struct shared_instance_spec s = fixture_spec(f, 1, "running");
	const struct shared_instance_observed *o;

	s.reboot_generation = WIRE_INT_OF(3);
	fixture_apply_spec(f, &s);
	o = fixture_await(f, 1, "running");
	assert_int_equal(o->reboot_generation.value, 3); /* done with: it has just started */
	s.reboot_generation = WIRE_INT_OF(4);
	s.generation = WIRE_INT_OF(++f->generation);
	fixture_apply_spec(f, &s);
	for (int i = 0; fixture_observe(f, 1)->reboot_generation.value != 4; i++) {
		assert_true(i < 200);
		usleep(20000);
	}
}

static void test_long_poll(void **state)
{
	struct fixture *f = *state;
	struct shared_describe_instances_request in = {.wait_ms = WIRE_INT_OF(5000)};
	struct shared_describe_instances_response *out;
	int64_t begin;

	out = fixture_call(f, "DescribeInstances", &in);
	assert_true(out->full.value);
	in.epoch = out->epoch;
	in.since_revision = out->revision;
	in.wait_ms = WIRE_INT_OF(300);
	begin = clock_mono_ms();
	out = fixture_call(f, "DescribeInstances", &in);
	assert_false(out->full.value);
	assert_int_equal(out->instances.count, 0);
	assert_true(clock_mono_ms() - begin >= 290);

	fixture_apply(f, 1, "running");
	in.wait_ms = WIRE_INT_OF(10000);
	for (bool seen = false; !seen;) {
		begin = clock_mono_ms();
		out = fixture_call(f, "DescribeInstances", &in);
		assert_true(clock_mono_ms() - begin < 5000);
		assert_int_equal(out->instances.count, 1);
		in.since_revision = out->revision;
		seen = str_eq(out->instances.items[0].state, "running");
	}
}

/* Nothing runs, so nothing counts: but who is there is told, at once, and why there are no figures. */
static void test_figures(void **state)
{
	struct fixture *f = *state;
	struct node_get_figures_request in = {.max_age_ms = WIRE_INT_OF(200)};
	struct node_get_figures_response *out;
	_cleanup_(buf_done) struct buf text = BUF_INIT;

	fixture_apply(f, 1, "running");
	fixture_apply(f, 2, "running");
	fixture_await(f, 1, "running");
	fixture_await(f, 2, "running");
	usleep(300000);
	out = fixture_call(f, "GetFigures", &in);
	assert_int_equal(out->instances.count, 2);
	assert_string_equal(out->instances.items[0].instance_id, "i-00000000000000001");
	assert_false(out->instances.items[0].cpu_percent.set);
	assert_int_equal(out->instances.items[0].disks.count, 1);
	assert_string_equal(out->instances.items[0].disks.items[0].kind, "file");
	assert_non_null(strstr(out->instances.items[0].disks.items[0].why_empty, "fake"));
	assert_true(out->host->cores.value > 0);
	assert_true(out->interval_ms.value > 0);
	assert_true(clock_unix_ms() - out->time.value < 5000);
	nc_print_metrics(f->nc, &text);
	assert_non_null(strstr(text.data, "mallee_nc_sampler_cpu_percent "));

	in.instance_ids = (struct wire_string_list){
	    .set = true, .count = 1, .items = &(const char *){"i-00000000000000002"}};
	out = fixture_call(f, "GetFigures", &in);
	assert_int_equal(out->instances.count, 1);

	fixture_apply(f, 1, "terminated");
	fixture_await(f, 1, "terminated");
	usleep(300000);
	in = (struct node_get_figures_request){.max_age_ms = WIRE_INT_OF(200)};
	out = fixture_call(f, "GetFigures", &in);
	assert_int_equal(out->instances.count, 1);
}

static void test_capacity(void **state)
{
	struct fixture *f = *state;
	struct shared_node_status *s;

	write_conf(f, "host vcpus=8 memory_mib=4096 disk_mib=100000\n");
	usleep(300000);
	fixture_apply(f, 1, "running");
	fixture_await(f, 1, "running");
	s = fixture_call(f, "DescribeNode", NULL);
	assert_int_equal(s->vcpus.value, 8);
	assert_int_equal(s->memory_mib.value, 4096);
	assert_int_equal(s->vcpus_used.value, 2);
	assert_int_equal(s->memory_mib_used.value, 1024);
	assert_int_equal(s->disk_mib_used.value, 8192);
	assert_string_equal(s->hypervisor, "fake");
	fixture_apply(f, 1, "terminated");
	fixture_await(f, 1, "terminated");
	s = fixture_call(f, "DescribeNode", NULL);
	assert_int_equal(s->vcpus_used.value, 0);
}

static void test_bad_specifications(void **state)
{
	struct fixture *f = *state;
	struct shared_instance_spec s = fixture_spec(f, 1, "running");
	struct shared_get_console_output_request console = {.instance_id = "i-00000000000000009"};
	struct error e = {0};
	void *out;

	s.instance_id = "../../etc";
	fixture_apply_spec(f, &s);
	s = fixture_spec(f, 1, "dancing");
	fixture_apply_spec(f, &s);
	s = fixture_spec(f, 1, "running");
	s.node_id = "n2";
	fixture_apply_spec(f, &s);
	s = fixture_spec(f, 1, "running");
	s.vcpus = WIRE_INT_OF(0);
	fixture_apply_spec(f, &s);
	assert_null(fixture_observe(f, 1));
	assert_true(rpc_call(f->cc, &node_service, "GetConsoleOutput", &console, f->arena, &out,
			     5000, &e) < 0);
	assert_string_equal(e.code, "InstanceNotFound");

	/* Nor do they change an instance that is there. */
	fixture_apply(f, 1, "running");
	fixture_await(f, 1, "running");
	fixture_apply(f, 1, "dancing");
	usleep(200000);
	assert_string_equal(fixture_observe(f, 1)->state, "running");
}

static void test_many(void **state)
{
	enum { MANY = 300 };
	struct fixture *f = *state;
	struct shared_instance_spec *specs =
	    arena_new_array(f->arena, struct shared_instance_spec, MANY);
	struct shared_apply_instances_request in = {
	    .full = WIRE_BOOL_OF(true), .instances = {.set = true, .count = MANY, .items = specs}};

	for (int i = 0; i < MANY; i++)
		specs[i] = fixture_spec(f, i, "running");
	fixture_call(f, "ApplyInstances", &in);
	for (int i = 0; i < MANY; i++)
		fixture_await(f, i, "running");
	assert_int_equal(f->fetches, 1);
	/* A full list without an instance destroys nothing. */
	in.instances.count = 1;
	fixture_call(f, "ApplyInstances", &in);
	usleep(200000);
	assert_string_equal(fixture_observe(f, MANY - 1)->state, "running");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_life),
	    T(test_old_generations_are_ignored),
	    T(test_failed_launches_say_why),
	    T(test_trouble_is_waited_out),
	    T(test_guest_switches_itself_off),
	    T(test_restart_adopts),
	    T(test_asked_off_by_a_node_that_ended),
	    T(test_host_boot_starts_again),
	    T(test_drain_and_resume),
	    T(test_drain_meets_a_start),
	    T(test_forced_stop),
	    T(test_reboot_once),
	    T(test_long_poll),
	    T(test_figures),
	    T(test_capacity),
	    T(test_bad_specifications),
	    T(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
