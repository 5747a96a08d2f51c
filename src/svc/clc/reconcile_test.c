/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/text.h"
#include "svc/clc/instances.h"
#include "svc/clc/inventory.h"
#include "svc/clc/reconcile.h"
#include "svc/clc/testing.h"

struct both {
	struct fixture *f;
	struct applier *a;
	struct observer *o;
};

static int setup(void **state)
{
	struct both *b = calloc(1, sizeof(*b));

	b->f = fixture_new();
	b->a = applier_new(&b->f->clc);
	b->o = observer_new(&b->f->clc);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct both *b = *state;

	applier_free(b->a);
	observer_free(b->o);
	fixture_free(b->f);
	free(b);
	return 0;
}

/* What a killed and restarted controller would be: nothing is remembered but the state. */
static void restart(struct both *b)
{
	applier_free(b->a);
	observer_free(b->o);
	b->a = applier_new(&b->f->clc);
	b->o = observer_new(&b->f->clc);
}

static void apply(struct both *b)
{
	struct error e = {0};

	assert_int_equal(applier_pass(b->a, &e), 0);
}

/* The observer's pass and what the threads do with its findings. */
static void observe(struct both *b)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct observer_findings found;
	struct error e = {0};

	assert_int_equal(observer_pass(b->o, a, 1, &found, &e), 0);
	applier_note_epoch(b->a, found.epoch);
	for (size_t i = 0; i < found.ended_count; i++)
		applier_forget(b->a, found.ended[i]);
}

static const char *call(struct both *b, const char *query)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;

	return fixture_call(b->f, &b->f->account, query, &reply);
}

static const char *state_of(struct both *b, const char *id)
{
	return fixture_instance(b->f, id)->state;
}

static const struct shared_instance_spec *spec_of(struct both *b, const char *id)
{
	for (size_t i = 0; i < b->f->cluster.spec_count; i++)
		if (str_eq(b->f->cluster.specs[i].instance_id, id))
			return &b->f->cluster.specs[i];
	return NULL;
}

static void launch_reaches_the_node(void **state)
{
	struct both *b = *state;
	const char *id;

	fixture_run(b->f, 1, "&UserData=aGVsbG8%3D", &id);
	assert_string_equal(state_of(b, id), "pending");
	apply(b);
	assert_int_equal(b->f->cluster.full_applied, 1);
	const struct shared_instance_spec *s = spec_of(b, id);
	assert_non_null(s);
	assert_string_equal(s->wanted, "running");
	assert_string_equal(s->node_id, "n1");
	assert_string_equal(s->gateway_ip, "10.77.0.1");
	assert_int_equal(s->user_data.len, 5);
	assert_non_null(strstr(s->image_url, "/images/tiny.raw?"));
	assert_non_null(strstr(s->image_url, "X-Amz-Signature="));
	assert_false(s->tags.set);
	fixture_report(b->f, id, "running");
	observe(b);
	assert_string_equal(state_of(b, id), "running");
	assert_true(fixture_instance(b->f, id)->running_since.set);
	assert_int_equal(inventory_count(b->f->clc.inventory, INSTANCE_RUNNING), 1);
	assert_int_equal(inventory_count(b->f->clc.inventory, INSTANCE_PENDING), 0);
}

static void only_changes_are_sent(void **state)
{
	struct both *b = *state;
	const char *ids[3];

	fixture_run(b->f, 3, "", ids);
	apply(b);
	assert_int_equal(b->f->cluster.spec_count, 3);
	size_t applied = b->f->cluster.applied;
	apply(b);
	apply(b);
	assert_int_equal(b->f->cluster.applied, applied);
	/* an observation is no change of what is wanted */
	fixture_report(b->f, ids[1], "running");
	observe(b);
	apply(b);
	assert_int_equal(b->f->cluster.applied, applied);
	assert_string_equal(
	    call(b, arena_printf(b->f->arena, "Action=RebootInstances&InstanceId.1=%s", ids[1])),
	    "");
	apply(b);
	assert_int_equal(b->f->cluster.applied, applied + 1);
	assert_int_equal(b->f->cluster.spec_count, 1);
	assert_int_equal(spec_of(b, ids[1])->reboot_generation.value, 1);
	assert_true(spec_of(b, ids[1])->generation.value > 1);
}

static void unreachable_controller_changes_nothing(void **state)
{
	struct both *b = *state;
	struct error e = {0};
	struct observer_findings found;
	const char *id;

	fixture_run(b->f, 1, "", &id);
	b->f->cluster.fail = "ServiceUnavailable";
	assert_true(applier_pass(b->a, &e) < 0);
	assert_true(observer_pass(b->o, b->f->arena, 1, &found, &e) < 0);
	assert_string_equal(state_of(b, id), "pending");
	assert_string_equal(
	    call(b, arena_printf(b->f->arena, "Action=TerminateInstances&InstanceId.1=%s", id)),
	    "");
	assert_string_equal(state_of(b, id), "shutting-down");
	assert_true(applier_pass(b->a, &e) < 0);
	b->f->cluster.fail = NULL;
	apply(b);
	assert_string_equal(spec_of(b, id)->wanted, "terminated");
	assert_null(spec_of(b, id)->image_url);
}

static void new_epoch_gets_everything(void **state)
{
	struct both *b = *state;
	const char *ids[2];

	fixture_run(b->f, 2, "", ids);
	apply(b);
	b->f->cluster.epoch = "e2";
	observe(b);
	apply(b);
	assert_int_equal(b->f->cluster.full_applied, 2);
	assert_int_equal(b->f->cluster.spec_count, 2);
	apply(b);
	assert_int_equal(b->f->cluster.full_applied, 2);
	/* also when an application is the first to meet it */
	b->f->cluster.epoch = "e3";
	call(b, arena_printf(b->f->arena, "Action=TerminateInstances&InstanceId.1=%s", ids[0]));
	apply(b);
	assert_int_equal(b->f->cluster.full_applied, 3);
	assert_int_equal(b->f->cluster.spec_count, 2);
}

static void end_is_recorded_and_released(void **state)
{
	struct both *b = *state;
	const char *id;

	size_t before = inventory_free_addresses(b->f->clc.inventory);
	fixture_run(b->f, 1, "", &id);
	assert_int_equal(inventory_free_addresses(b->f->clc.inventory), before - 1);
	apply(b);
	fixture_report(b->f, id, "running");
	observe(b);
	call(b, arena_printf(b->f->arena, "Action=TerminateInstances&InstanceId.1=%s", id));
	apply(b);
	/* still seen running: no way back */
	fixture_report(b->f, id, "running");
	observe(b);
	assert_string_equal(state_of(b, id), "shutting-down");
	assert_int_equal(b->f->cluster.forgotten_count, 0);
	fixture_report(b->f, id, "terminated");
	observe(b);
	struct records_instance *rec = fixture_instance(b->f, id);
	assert_string_equal(rec->state, "terminated");
	assert_string_equal(rec->state_reason_code, "Client.UserInitiatedShutdown");
	assert_non_null(strstr(rec->state_transition_reason, "User initiated ("));
	assert_int_equal(inventory_free_addresses(b->f->clc.inventory), before);
	apply(b);
	assert_int_equal(b->f->cluster.forgotten_count, 1);
	assert_string_equal(b->f->cluster.forgotten[0], id);
	apply(b);
	assert_int_equal(b->f->cluster.forgotten_count, 1);
	/* the message may have been lost on its way: what is reported again is released again */
	fixture_report(b->f, id, "terminated");
	observe(b);
	apply(b);
	assert_int_equal(b->f->cluster.forgotten_count, 2);
	assert_int_equal(inventory_free_addresses(b->f->clc.inventory), before);
}

static void failed_launch_says_why(void **state)
{
	struct both *b = *state;
	const char *ids[2];

	fixture_run(b->f, 2, "", ids);
	apply(b);
	fixture_report(b->f, ids[0], "terminated");
	b->f->cluster.observed[0].state_reason_code = "Server.InternalError";
	b->f->cluster.observed[0].state_reason_message = "the image's digest is another";
	fixture_report(b->f, ids[1], "terminated");
	observe(b);
	struct records_instance *rec = fixture_instance(b->f, ids[0]);
	assert_string_equal(rec->state, "terminated");
	assert_string_equal(rec->wanted, "terminated");
	assert_string_equal(rec->state_reason_code, "Server.InternalError");
	assert_string_equal(rec->state_reason_message,
			    "Server.InternalError: the image's digest is another");
	/* one without a reason gets one */
	rec = fixture_instance(b->f, ids[1]);
	assert_string_equal(rec->state_reason_code, "Server.InternalError");
}

static void guest_shut_itself_down(void **state)
{
	struct both *b = *state;
	const char *id;

	fixture_run(b->f, 1, "", &id);
	fixture_report(b->f, id, "running");
	observe(b);
	fixture_report(b->f, id, "terminated");
	b->f->cluster.observed[0].state_reason_code = "Client.InstanceInitiatedShutdown";
	b->f->cluster.observed[0].state_reason_message =
	    "Client.InstanceInitiatedShutdown: Instance initiated shutdown";
	observe(b);
	struct records_instance *rec = fixture_instance(b->f, id);
	assert_string_equal(rec->state_reason_code, "Client.InstanceInitiatedShutdown");
	assert_string_equal(rec->state_reason_message,
			    "Client.InstanceInitiatedShutdown: Instance initiated shutdown");
}

static void reachability_is_kept_while_running(void **state)
{
	struct both *b = *state;
	const char *id;

	fixture_run(b->f, 1, "", &id);
	fixture_report(b->f, id, "pending");
	b->f->cluster.observed[0].reachability = "ok";
	observe(b);
	assert_null(fixture_instance(b->f, id)->reachability);
	fixture_report(b->f, id, "running");
	b->f->cluster.observed[0].reachability = "ok";
	b->f->cluster.observed[0].reachability_since = WIRE_TIME_OF(5000);
	observe(b);
	assert_string_equal(fixture_instance(b->f, id)->reachability, "ok");
	assert_int_equal(fixture_instance(b->f, id)->reachability_since.value, 5000);
	fixture_report(b->f, id, "shutting-down");
	observe(b);
	assert_string_equal(state_of(b, id), "shutting-down");
	assert_null(fixture_instance(b->f, id)->reachability);
}

/* A guest that was down with its host runs again; but not by a report from before the user's stop.
 */
static void stale_report_is_no_start(void **state)
{
	struct both *b = *state;
	struct error e = {0};
	const char *id;

	fixture_run(b->f, 1, "", &id);
	fixture_report(b->f, id, "running");
	observe(b);
	fixture_report(b->f, id, "stopped");
	observe(b);
	assert_string_equal(state_of(b, id), "stopped");
	struct records_instance *rec = fixture_instance(b->f, id);
	rec->generation = WIRE_INT_OF(rec->generation.value + 1);
	assert_int_equal(record_put(&b->f->clc, KIND_INSTANCE, rec->account_id, id, NULL, rec, &e),
			 0);
	fixture_report(b->f, id, "running");
	b->f->cluster.observed[0].generation = WIRE_INT_OF(1);
	observe(b);
	assert_string_equal(state_of(b, id), "stopped");
	fixture_report(b->f, id, "running");
	observe(b);
	assert_string_equal(state_of(b, id), "running");
}

static void unknown_ones_are_released_but_never_ended(void **state)
{
	struct both *b = *state;

	fixture_report(b->f, "i-00000000000000001", "running");
	fixture_report(b->f, "i-00000000000000002", "terminated");
	fixture_report(b->f, "i-00000000000000003", "strange");
	observe(b);
	apply(b);
	assert_int_equal(b->f->cluster.forgotten_count, 1);
	assert_string_equal(b->f->cluster.forgotten[0], "i-00000000000000002");
	assert_int_equal(b->f->cluster.spec_count, 0);
}

/* Each step is followed by a controller that remembers nothing. */
static void any_step_may_be_the_last(void **state)
{
	struct both *b = *state;
	const char *id;

	fixture_run(b->f, 1, "", &id);
	restart(b);
	apply(b);
	assert_non_null(spec_of(b, id));
	restart(b);
	fixture_report(b->f, id, "running");
	restart(b);
	observe(b);
	assert_string_equal(state_of(b, id), "running");
	call(b, arena_printf(b->f->arena, "Action=TerminateInstances&InstanceId.1=%s", id));
	restart(b);
	apply(b);
	assert_string_equal(spec_of(b, id)->wanted, "terminated");
	fixture_report(b->f, id, "terminated");
	observe(b);
	restart(b);
	apply(b);
	assert_int_equal(b->f->cluster.forgotten_count, 1);
	assert_int_equal(b->f->cluster.spec_count, 0);
	/* addresses are what the records say */
	struct inventory *fresh;
	struct error e = {0};
	assert_int_equal(inventory_load(&b->f->clc, &fresh, &e), 0);
	assert_int_equal(inventory_free_addresses(fresh),
			 inventory_free_addresses(b->f->clc.inventory));
	inventory_free(fresh);
}

static void age(struct both *b, const char *id)
{
	struct records_instance *rec = fixture_instance(b->f, id);
	struct error e = {0};

	rec->state_time = WIRE_TIME_OF(clock_unix_ms() - TERMINATED_VISIBLE_MS - 1000);
	assert_int_equal(record_put(&b->f->clc, KIND_INSTANCE, rec->account_id, id, NULL, rec, &e),
			 0);
}

static int64_t count(struct both *b, enum clc_kind k)
{
	struct error e = {0};
	int64_t n;

	assert_int_equal(state_count(b->f->clc.state, clc_kinds[k].kind, NULL, &n, &e), 0);
	return n;
}

static void ended_ones_go_after_an_hour(void **state)
{
	struct both *b = *state;
	const char *ids[2];

	fixture_run(b->f, 2,
		    "&ClientToken=once&TagSpecification.1.ResourceType=instance"
		    "&TagSpecification.1.Tag.1.Key=a&TagSpecification.1.Tag.1.Value=b",
		    ids);
	assert_int_equal(count(b, KIND_TAGS), 2);
	apply(b);
	for (int i = 0; i < 2; i++)
		fixture_report(b->f, ids[i], "terminated");
	observe(b);
	apply(b);
	assert_int_equal(count(b, KIND_INSTANCE), 2);
	age(b, ids[0]);
	restart(b);
	apply(b);
	assert_null(fixture_instance(b->f, ids[0]));
	assert_non_null(fixture_instance(b->f, ids[1]));
	assert_int_equal(count(b, KIND_TAGS), 1);
	assert_int_equal(count(b, KIND_CLIENT_TOKEN), 1); /* as long as one is shown */
	age(b, ids[1]);
	restart(b);
	apply(b);
	assert_int_equal(count(b, KIND_INSTANCE), 0);
	assert_int_equal(count(b, KIND_TAGS), 0);
	assert_int_equal(count(b, KIND_CLIENT_TOKEN), 0);
}

static void tags_follow_into_the_guest(void **state)
{
	struct both *b = *state;
	const char *shown, *hidden;

	fixture_run(b->f, 1, "&MetadataOptions.InstanceMetadataTags=enabled", &shown);
	fixture_run(b->f, 1, "", &hidden);
	apply(b);
	size_t applied = b->f->cluster.applied;
	assert_string_equal(
	    call(b, arena_printf(b->f->arena,
				 "Action=CreateTags&ResourceId.1=%s&Tag.1.Key=k&Tag.1.Value=v",
				 hidden)),
	    "");
	apply(b);
	assert_int_equal(b->f->cluster.applied, applied);
	assert_string_equal(
	    call(b, arena_printf(b->f->arena,
				 "Action=CreateTags&ResourceId.1=%s&Tag.1.Key=k&Tag.1.Value=v",
				 shown)),
	    "");
	apply(b);
	assert_int_equal(b->f->cluster.applied, applied + 1);
	assert_int_equal(spec_of(b, shown)->tags.count, 1);
	assert_string_equal(spec_of(b, shown)->tags.items[0].value, "v");
	/* a key that cannot be a path is refused while tags are shown */
	assert_string_equal(
	    call(b, arena_printf(b->f->arena,
				 "Action=CreateTags&ResourceId.1=%s&Tag.1.Key=a%%2Fb&Tag.1.Value=v",
				 shown)),
	    "InvalidParameterValue");
}

/* As many more instances like this one, all in one transaction. */
static void multiply(struct both *b, const char *id, int count)
{
	struct records_instance *rec = fixture_instance(b->f, id);
	struct error e = {0};

	assert_int_equal(state_begin(b->f->clc.state, &e), 0);
	for (int i = 1; i < count; i++) {
		rec->instance_id = arena_printf(b->f->arena, "i-%017x", i);
		assert_int_equal(record_put(&b->f->clc, KIND_INSTANCE, rec->account_id,
					    rec->instance_id, NULL, rec, &e),
				 0);
	}
	assert_int_equal(state_commit(b->f->clc.state, &e), 0);
}

/* Ten thousand instances: they fit one message, and a pass in which nothing changed reads no
 * records. */
static void scale(void **state)
{
	struct both *b = *state;
	const char *id;

	fixture_run(b->f, 1, "", &id);
	multiply(b, id, 10000);
	apply(b);
	assert_int_equal(b->f->cluster.full_applied, 1);
	assert_int_equal(b->f->cluster.spec_count, 10000);
	size_t applied = b->f->cluster.applied;
	int64_t start = clock_mono_ms();
	for (int i = 0; i < 10; i++)
		apply(b);
	assert_int_equal(b->f->cluster.applied, applied);
	assert_true(clock_mono_ms() - start < 2000);
}

/* More than a message can hold goes in several, of which none says that it is all. */
static void too_much_for_one_message(void **state)
{
	struct both *b = *state;
	const char *id;

	char *data = arena_alloc(b->f->arena, 16384 + 1);
	memset(data, 'x', 16384);
	fixture_run(b->f, 1,
		    arena_printf(b->f->arena, "&UserData=%s",
				 uri_encode(b->f->arena, base64_encode(b->f->arena, data, 16384),
					    4 * ((16384 + 2) / 3), false)),
		    &id);
	multiply(b, id, 2000);
	apply(b);
	assert_int_equal(b->f->cluster.full_applied, 0);
	assert_true(b->f->cluster.applied > 1);
	size_t applied = b->f->cluster.applied;
	apply(b);
	assert_int_equal(b->f->cluster.applied, applied);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(launch_reaches_the_node),
	    TEST(only_changes_are_sent),
	    TEST(unreachable_controller_changes_nothing),
	    TEST(new_epoch_gets_everything),
	    TEST(end_is_recorded_and_released),
	    TEST(failed_launch_says_why),
	    TEST(guest_shut_itself_down),
	    TEST(reachability_is_kept_while_running),
	    TEST(stale_report_is_no_start),
	    TEST(unknown_ones_are_released_but_never_ended),
	    TEST(any_step_may_be_the_last),
	    TEST(ended_ones_go_after_an_hour),
	    TEST(tags_follow_into_the_guest),
	    TEST(scale),
	    TEST(too_much_for_one_message),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
