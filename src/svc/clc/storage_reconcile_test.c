/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/text.h"
#include "svc/clc/instances.h"
#include "svc/clc/inventory.h"
#include "svc/clc/reconcile.h"
#include "svc/clc/testing.h"
#include "svc/clc/volumes.h"

struct both {
	struct fixture *f;
	struct storage_applier *a;
	struct storage_observer *o;
	struct observer *cluster;
};

static int setup(void **state)
{
	struct both *b = calloc(1, sizeof(*b));

	b->f = fixture_new();
	b->a = storage_applier_new(&b->f->clc);
	b->o = storage_observer_new(&b->f->clc);
	b->cluster = observer_new(&b->f->clc);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct both *b = *state;

	storage_applier_free(b->a);
	storage_observer_free(b->o);
	observer_free(b->cluster);
	fixture_free(b->f);
	free(b);
	return 0;
}

/* What a killed and restarted controller would be: nothing is remembered but the state. */
static void restart(struct both *b)
{
	storage_applier_free(b->a);
	storage_observer_free(b->o);
	b->a = storage_applier_new(&b->f->clc);
	b->o = storage_observer_new(&b->f->clc);
}

static void apply(struct both *b)
{
	struct error e = {0};

	assert_int_equal(storage_applier_pass(b->a, &e), 0);
}

/* The observer's pass and what the threads do with its findings. */
static struct observer_findings observe(struct both *b)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct observer_findings found = {0};
	struct error e = {0};

	assert_int_equal(storage_observer_pass(b->o, a, 1, &found, &e), 0);
	storage_applier_note_epoch(b->a, found.epoch);
	for (size_t i = 0; i < found.ended_count; i++)
		storage_applier_forget(b->a, found.ended[i]);
	return found;
}

static struct observer_findings observe_cluster(struct both *b)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct observer_findings found = {0};
	struct error e = {0};

	assert_int_equal(observer_pass(b->cluster, a, 1, &found, &e), 0);
	return found;
}

static const char *call(struct both *b, const char *fmt, const char *id)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	_cleanup_(buf_done) struct buf query = BUF_INIT;

	buf_puts(&query, fmt);
	buf_puts(&query, id);
	return fixture_call(b->f, &b->f->account, query.data, &reply);
}

/* An answer's element, of a request that succeeds. */
static const char *made(struct both *b, const char *query, const char *element)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;

	assert_string_equal(fixture_call(b->f, &b->f->account, query, &reply), "");
	return fixture_element(b->f, reply.data, element, 0);
}

static const char *new_volume(struct both *b, const char *extra)
{
	return made(b,
		    arena_printf(b->f->arena, "Action=CreateVolume&AvailabilityZone=%s&%s",
				 b->f->clc.zone, extra),
		    "volumeId");
}

static const struct storage_volume_spec *volume_spec_of(struct both *b, const char *id)
{
	for (size_t i = 0; i < b->f->storage.volume_count; i++)
		if (str_eq(b->f->storage.volumes[i].volume_id, id))
			return &b->f->storage.volumes[i];
	return NULL;
}

static const struct storage_snapshot_spec *snapshot_spec_of(struct both *b, const char *id)
{
	for (size_t i = 0; i < b->f->storage.snapshot_count; i++)
		if (str_eq(b->f->storage.snapshots[i].snapshot_id, id))
			return &b->f->storage.snapshots[i];
	return NULL;
}

static const char *volume_state(struct both *b, const char *id)
{
	return fixture_get_volume(b->f, id)->state;
}

static bool was_forgotten(struct both *b, const char *id)
{
	for (size_t i = 0; i < b->f->storage.forgotten_count; i++)
		if (str_eq(b->f->storage.forgotten[i], id))
			return true;
	return false;
}

static const char *running(struct both *b)
{
	const char *id;

	fixture_run(b->f, 1, "", &id);
	fixture_report(b->f, id, "running");
	observe_cluster(b);
	assert_string_equal(fixture_instance(b->f, id)->state, "running");
	return id;
}

static void volume_is_told_and_becomes_available(void **state)
{
	struct both *b = *state;
	const char *id = new_volume(b, "Size=8&VolumeType=gp3");

	assert_string_equal(volume_state(b, id), "creating");
	apply(b);
	assert_int_equal(b->f->storage.full_applied, 1);
	const struct storage_volume_spec *s = volume_spec_of(b, id);
	assert_non_null(s);
	assert_string_equal(s->wanted, "available");
	assert_string_equal(s->account_id, b->f->account.record->account_id);
	assert_int_equal(s->size_bytes.value, INT64_C(8) << 30);
	assert_int_equal(s->limits->iops.value, 3000);
	assert_int_equal(s->limits->bytes_per_second.value, 125 << 20);
	assert_null(s->attachment);
	assert_null(s->snapshot_id);
	fixture_report_volume(b->f, id, "creating");
	observe(b);
	assert_string_equal(volume_state(b, id), "creating");
	fixture_report_volume(b->f, id, "available");
	assert_int_equal(observe(b).changed, 1);
	assert_string_equal(volume_state(b, id), "available");
	/* an observation is no change of what is wanted */
	size_t applied = b->f->storage.applied;
	apply(b);
	assert_int_equal(b->f->storage.applied, applied);
}

static void only_changes_are_sent_and_all_after_a_restart(void **state)
{
	struct both *b = *state;
	const char *one = fixture_volume(b->f, 1), *two = fixture_volume(b->f, 2);

	apply(b);
	assert_int_equal(b->f->storage.volume_count, 2);
	assert_string_equal(call(b, "Action=DeleteVolume&VolumeId=", one), "");
	apply(b);
	assert_int_equal(b->f->storage.volume_count, 1);
	assert_string_equal(volume_spec_of(b, one)->wanted, "deleted");
	/* the storage controller was started anew: it is told everything */
	b->f->storage.epoch = "s2";
	observe(b);
	apply(b);
	assert_int_equal(b->f->storage.full_applied, 2);
	assert_non_null(volume_spec_of(b, two));
	/* and so it is when this one was */
	restart(b);
	apply(b);
	assert_int_equal(b->f->storage.full_applied, 3);
	assert_int_equal(b->f->storage.volume_count, 2);
}

static void unreachable_controller_changes_nothing(void **state)
{
	struct both *b = *state;
	const char *id = fixture_volume(b->f, 1);
	struct error e = {0};
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct observer_findings found;

	b->f->storage.fail = "ServiceUnavailable";
	assert_true(storage_applier_pass(b->a, &e) < 0);
	assert_true(storage_observer_pass(b->o, a, 1, &found, &e) < 0);
	assert_string_equal(volume_state(b, id), "available");
	b->f->storage.fail = NULL;
	apply(b);
	assert_int_equal(b->f->storage.full_applied, 1);
}

static void deleted_volume_is_forgotten(void **state)
{
	struct both *b = *state;
	const char *id = fixture_volume(b->f, 1);
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct shared_tag_list tags;
	struct error e = {0};

	assert_string_equal(
	    call(b, "Action=CreateTags&Tag.1.Key=a&Tag.1.Value=b&ResourceId.1=", id), "");
	assert_string_equal(call(b, "Action=DeleteVolume&VolumeId=", id), "");
	assert_string_equal(volume_state(b, id), "deleting");
	apply(b);
	fixture_report_volume(b->f, id, "deleting");
	observe(b);
	assert_string_equal(volume_state(b, id), "deleting");
	fixture_report_volume(b->f, id, "deleted");
	observe(b);
	assert_null(fixture_get_volume(b->f, id));
	assert_int_equal(tags_get(&b->f->clc, a, id, &tags, &e), 0);
	assert_int_equal(tags.count, 0);
	assert_string_equal(call(b, "Action=DescribeVolumes&VolumeId.1=", id),
			    "InvalidVolume.NotFound");
	apply(b);
	assert_true(was_forgotten(b, id));
	/* killed before the storage controller was told: it still reports it, so it is told then */
	b->f->storage.forgotten_count = 0;
	restart(b);
	observe(b);
	apply(b);
	assert_true(was_forgotten(b, id));
	assert_int_equal(b->f->storage.volume_count, 0);
}

/* What was not asked to go has not gone, whatever is reported. */
static void unasked_deletion_is_not_believed(void **state)
{
	struct both *b = *state;
	const char *id = fixture_volume(b->f, 1);

	fixture_report_volume(b->f, id, "deleted");
	observe(b);
	assert_string_equal(volume_state(b, id), "available");
	apply(b);
	assert_int_equal(b->f->storage.forgotten_count, 0);
}

static void attachment_is_told_to_both(void **state)
{
	struct both *b = *state;
	const char *i = running(b), *v = fixture_volume_of(b->f, i, "/dev/sdf");
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct shared_instance_spec spec;
	struct error e = {0};

	apply(b);
	const struct storage_volume_spec *s = volume_spec_of(b, v);
	assert_string_equal(s->attachment->instance_id, i);
	assert_string_equal(s->attachment->node_id, "n1");
	assert_int_equal(s->attachment->generation.value, 1);
	assert_int_equal(instance_spec(&b->f->clc, a, fixture_instance(b->f, i), &spec, &e), 0);
	assert_int_equal(spec.block_devices.count, 1);
	assert_string_equal(spec.block_devices.items[0].volume_id, v);
	assert_string_equal(spec.block_devices.items[0].wanted, "attached");
	assert_int_equal(spec.block_devices.items[0].slot.value, 1);
	assert_int_equal(spec.block_devices.items[0].generation.value, 1);

	fixture_report_device(b->f, i, v, "attaching");
	observe_cluster(b);
	assert_string_equal(device_of_volume(fixture_instance(b->f, i), v)->state, "attaching");
	fixture_report_device(b->f, i, v, "attached");
	assert_false(observe_cluster(b).other_side);
	assert_string_equal(device_of_volume(fixture_instance(b->f, i), v)->state, "attached");
}

static void detached_volume_is_available(void **state)
{
	struct both *b = *state;
	const char *i = running(b), *v = fixture_volume_of(b->f, i, "/dev/sdf");

	fixture_report_device(b->f, i, v, "attached");
	observe_cluster(b);
	assert_string_equal(call(b, "Action=DetachVolume&VolumeId=", v), "");
	assert_string_equal(device_of_volume(fixture_instance(b->f, i), v)->wanted, "detached");
	fixture_report_device(b->f, i, v, "busy");
	observe_cluster(b);
	assert_string_equal(device_of_volume(fixture_instance(b->f, i), v)->state, "busy");
	assert_string_equal(call(b, "Action=DetachVolume&Force=true&VolumeId=", v), "");
	assert_string_equal(device_of_volume(fixture_instance(b->f, i), v)->wanted, "forced");
	assert_string_equal(device_of_volume(fixture_instance(b->f, i), v)->state, "detaching");
	int64_t instance_generation = fixture_instance(b->f, i)->generation.value;
	int64_t volume_generation = fixture_get_volume(b->f, v)->generation.value;
	fixture_report_device(b->f, i, v, "detached");
	assert_true(observe_cluster(b).other_side);
	assert_int_equal(fixture_instance(b->f, i)->block_devices.count, 0);
	assert_true(fixture_instance(b->f, i)->generation.value > instance_generation);
	assert_true(fixture_get_volume(b->f, v)->generation.value > volume_generation);
	assert_string_equal(volume_state(b, v), "available");
	assert_null(fixture_get_volume(b->f, v)->instance_id);
	apply(b);
	assert_null(volume_spec_of(b, v)->attachment);
	/* The report of an attachment that was is none of the next one. */
	assert_string_equal(
	    call(b,
		 arena_printf(b->f->arena,
			      "Action=AttachVolume&InstanceId=%s&Device=/dev/sdg&VolumeId=", i),
		 v),
	    "");
	struct shared_block_device_observed *old =
	    &b->f->cluster.observed[0].block_devices.items[0];
	assert_string_equal(old->state, "detached");
	assert_int_equal(old->generation.value, 1);
	b->f->cluster.observed[0].revision = WIRE_INT_OF(++b->f->cluster.revision);
	observe_cluster(b);
	assert_string_equal(device_of_volume(fixture_instance(b->f, i), v)->state, "attaching");
}

static void failed_attachment_frees_the_volume(void **state)
{
	struct both *b = *state;
	const char *i = running(b), *v = fixture_volume_of(b->f, i, "/dev/sdf");

	fixture_report_device(b->f, i, v, "failed");
	observe_cluster(b);
	assert_int_equal(fixture_instance(b->f, i)->block_devices.count, 0);
	assert_string_equal(volume_state(b, v), "available");
}

static void set_delete_on_termination(struct both *b, const char *i, const char *v)
{
	struct records_instance *rec = fixture_instance(b->f, i);
	struct error e = {0};

	device_of_volume(rec, v)->delete_on_termination = WIRE_BOOL_OF(true);
	assert_int_equal(record_put(&b->f->clc, KIND_INSTANCE, rec->account_id, i, NULL, rec, &e), 0);
}

static void terminated_instance_lets_its_volumes_go(void **state)
{
	struct both *b = *state;
	const char *i = running(b), *kept = fixture_volume_of(b->f, i, "/dev/sdf"),
		   *dropped = fixture_volume_of(b->f, i, "/dev/sdg");

	set_delete_on_termination(b, i, dropped);
	assert_string_equal(call(b, "Action=TerminateInstances&InstanceId.1=", i), "");
	assert_string_equal(volume_state(b, kept), "in-use");
	fixture_report(b->f, i, "terminated");
	assert_true(observe_cluster(b).other_side);
	assert_int_equal(fixture_instance(b->f, i)->block_devices.count, 0);
	assert_string_equal(volume_state(b, kept), "available");
	assert_string_equal(volume_state(b, dropped), "deleting");
	apply(b);
	assert_string_equal(volume_spec_of(b, dropped)->wanted, "deleted");
	assert_null(volume_spec_of(b, dropped)->attachment);
	struct storage_volume_spec spec;
	struct error e = {0};
	assert_int_equal(
	    volume_spec(&b->f->clc, b->f->arena, fixture_get_volume(b->f, kept), &spec, &e), 0);
	assert_string_equal(spec.wanted, "available");
	assert_null(spec.attachment);
}

/* As a launch makes them: attached before they are there. */
static const char *launched_with(struct both *b, const char **ret_volume)
{
	const char *i, *v = new_volume(b, "Size=1");
	struct ec2_call c = {.clc = &b->f->clc,
			     .arena = b->f->arena,
			     .account_id = b->f->account.record->account_id,
			     .now_ms = clock_unix_ms()};
	struct records_instance_block_device *d;

	fixture_run(b->f, 1, "", &i);
	struct records_instance *rec = fixture_instance(b->f, i);
	struct records_volume *vol = fixture_get_volume(b->f, v);
	assert_int_equal(
	    device_attach(&c, rec, vol, &(struct attach_wish){.device_name = "/dev/sdf"}, &d), 0);
	d->delete_on_termination = WIRE_BOOL_OF(true);
	assert_int_equal(instance_put(&c, rec, true), 0);
	assert_int_equal(volume_put(&c, vol, true), 0);
	*ret_volume = v;
	return i;
}

static void launch_waits_for_its_volume(void **state)
{
	struct both *b = *state;
	const char *v, *i = launched_with(b, &v);

	assert_string_equal(volume_state(b, v), "creating");
	apply(b);
	assert_string_equal(volume_spec_of(b, v)->attachment->instance_id, i);
	fixture_report_volume(b->f, v, "available");
	observe(b);
	assert_string_equal(volume_state(b, v), "in-use");
}

static void launch_fails_with_its_volume(void **state)
{
	struct both *b = *state;
	const char *v, *i = launched_with(b, &v);

	fixture_report_volume(b->f, v, "error")->reason = "the pool is full";
	assert_true(observe(b).other_side);
	assert_string_equal(volume_state(b, v), "error");
	const struct records_instance *rec = fixture_instance(b->f, i);
	assert_string_equal(rec->state, "shutting-down");
	assert_string_equal(rec->wanted, "terminated");
	assert_string_equal(rec->state_reason_code, "Server.InternalError");
	assert_non_null(strstr(rec->state_reason_message, "the pool is full"));
	assert_int_equal(inventory_count(b->f->clc.inventory, INSTANCE_SHUTTING_DOWN), 1);
	fixture_report(b->f, i, "terminated");
	b->f->cluster.observed[0].state_reason_code = "Client.UserInitiatedShutdown"; /* a node was told to, and knows no more */
	observe_cluster(b);
	assert_string_equal(volume_state(b, v), "deleting");
	rec = fixture_instance(b->f, i);
	assert_string_equal(rec->state, "terminated");
	assert_string_equal(rec->state_reason_code, "Server.InternalError");
	assert_non_null(strstr(rec->state_transition_reason, "the pool is full"));
}

static void volume_of_an_ended_launch_goes_unmade(void **state)
{
	struct both *b = *state;
	const char *v, *i = launched_with(b, &v);

	fixture_report(b->f, i, "terminated");
	observe_cluster(b);
	assert_string_equal(volume_state(b, v), "deleting");
	fixture_report_volume(b->f, v, "available");
	observe(b);
	assert_string_equal(volume_state(b, v), "deleting");
	fixture_report_volume(b->f, v, "deleted");
	observe(b);
	assert_null(fixture_get_volume(b->f, v));
}

static void modification_ends_when_it_is_in_force(void **state)
{
	struct both *b = *state;
	const char *v = fixture_volume(b->f, 4);

	apply(b);
	assert_string_equal(
	    call(b, "Action=ModifyVolume&Size=8&VolumeType=gp3&Iops=4000&VolumeId=", v), "");
	assert_int_equal(fixture_get_volume(b->f, v)->size_gib.value, 4);
	apply(b);
	assert_int_equal(volume_spec_of(b, v)->size_bytes.value, INT64_C(8) << 30);
	assert_string_equal(volume_spec_of(b, v)->volume_type, "gp3");
	assert_int_equal(volume_spec_of(b, v)->limits->iops.value, 4000);
	/* grown, and still with the old limits; an older specification's report */
	fixture_report_volume(b->f, v, "available")->limits = WIRE_BOOL_OF(false);
	observe(b);
	assert_string_equal(fixture_get_volume(b->f, v)->modification->state, "modifying");
	struct storage_volume_observed *seen = fixture_report_volume(b->f, v, "available");
	seen->generation = WIRE_INT_OF(seen->generation.value - 1);
	observe(b);
	assert_string_equal(fixture_get_volume(b->f, v)->modification->state, "modifying");
	fixture_report_volume(b->f, v, "available");
	observe(b);
	const struct records_volume *rec = fixture_get_volume(b->f, v);
	assert_string_equal(rec->modification->state, "completed");
	assert_null(rec->modification->status_message);
	assert_true(rec->modification->end_time.set);
	assert_int_equal(rec->size_gib.value, 8);
	assert_int_equal(rec->iops.value, 4000);
	assert_string_equal(rec->volume_type, "gp3");
	apply(b);
	assert_int_equal(volume_spec_of(b, v)->size_bytes.value, INT64_C(8) << 30);
}

/* The volume stays as it was, which the storage controller is told; and it may be tried again. */
static void modification_that_is_refused_has_failed(void **state)
{
	struct both *b = *state;
	const char *v = fixture_volume(b->f, 4);

	assert_string_equal(call(b, "Action=ModifyVolume&Size=8&VolumeType=gp3&VolumeId=", v), "");
	apply(b);
	int64_t generation = volume_spec_of(b, v)->generation.value;
	struct storage_volume_observed *seen = fixture_report_volume(b->f, v, "available");
	*seen = (struct storage_volume_observed){.volume_id = seen->volume_id, .generation = WIRE_INT_OF(generation - 1),
						 .state = "available", .size_bytes = WIRE_INT_OF(INT64_C(4) << 30),
						 .limits = WIRE_BOOL_OF(true), .refused = WIRE_BOOL_OF(true),
						 .reason = "no room to grow", .revision = seen->revision};
	observe(b);
	assert_string_equal(fixture_get_volume(b->f, v)->modification->state, "modifying");
	seen->generation = WIRE_INT_OF(generation);
	seen->revision = WIRE_INT_OF(++b->f->storage.revision);
	assert_int_equal(observe(b).changed, 1);
	const struct records_volume *rec = fixture_get_volume(b->f, v);
	assert_string_equal(rec->modification->state, "failed");
	assert_string_equal(rec->modification->status_message, "no room to grow");
	assert_true(rec->modification->end_time.set);
	assert_int_equal(rec->size_gib.value, 4);
	assert_string_equal(rec->volume_type, "gp2");
	assert_string_equal(made(b, "Action=DescribeVolumesModifications", "progress"), "0");
	apply(b);
	assert_true(volume_spec_of(b, v)->generation.value > generation);
	assert_int_equal(volume_spec_of(b, v)->size_bytes.value, INT64_C(4) << 30);
	assert_string_equal(volume_spec_of(b, v)->volume_type, "gp2");
	/* The report again, and late: of another modification it says nothing. */
	assert_string_equal(call(b, "Action=ModifyVolume&Size=5&VolumeId=", v), "");
	seen->revision = WIRE_INT_OF(++b->f->storage.revision);
	assert_int_equal(observe(b).changed, 0);
	assert_string_equal(fixture_get_volume(b->f, v)->modification->state, "modifying");
	assert_null(fixture_get_volume(b->f, v)->modification->status_message);
	fixture_report_volume(b->f, v, "available");
	observe(b);
	assert_int_equal(fixture_get_volume(b->f, v)->size_gib.value, 5);
}

static void snapshot_goes_its_way(void **state)
{
	struct both *b = *state;
	const char *v = fixture_volume(b->f, 4),
		   *s = made(b, arena_printf(b->f->arena, "Action=CreateSnapshot&VolumeId=%s", v),
			     "snapshotId");

	apply(b);
	assert_string_equal(snapshot_spec_of(b, s)->volume_id, v);
	assert_string_equal(snapshot_spec_of(b, s)->wanted, "completed");
	assert_null(snapshot_spec_of(b, s)->import);
	struct storage_snapshot_observed *seen = fixture_report_snapshot(b->f, s, "pending");
	seen->begin_time = WIRE_TIME_OF(1000);
	seen->progress = WIRE_INT_OF(37);
	assert_false(observe(b).snapshots);
	assert_int_equal(fixture_get_snapshot(b->f, s)->progress.value, 37);
	assert_true(fixture_get_snapshot(b->f, s)->begin_time.set);
	fixture_report_snapshot(b->f, s, "completed")->data_bytes = WIRE_INT_OF(4096);
	assert_true(observe(b).snapshots);
	assert_string_equal(fixture_get_snapshot(b->f, s)->state, "completed");
	assert_int_equal(fixture_get_snapshot(b->f, s)->progress.value, 100);
	assert_int_equal(fixture_get_snapshot(b->f, s)->data_bytes.value, 4096);
	/* what was completed stays so */
	fixture_report_snapshot(b->f, s, "error");
	observe(b);
	assert_string_equal(fixture_get_snapshot(b->f, s)->state, "completed");

	assert_string_equal(call(b, "Action=DeleteSnapshot&SnapshotId=", s), "");
	assert_string_equal(call(b, "Action=DescribeSnapshots&SnapshotId.1=", s),
			    "InvalidSnapshot.NotFound");
	apply(b);
	assert_string_equal(snapshot_spec_of(b, s)->wanted, "deleted");
	fixture_report_snapshot(b->f, s, "deleted");
	observe(b);
	assert_null(fixture_get_snapshot(b->f, s));
	apply(b);
	assert_true(was_forgotten(b, s));
}

/* Asked for while the volume grew, and begun when it had: as large as what it was made of. */
static void snapshot_is_as_large_as_its_volume_was(void **state)
{
	struct both *b = *state;
	const char *v = fixture_volume(b->f, 4);

	assert_string_equal(call(b, "Action=ModifyVolume&Size=8&VolumeId=", v), "");
	const char *s = made(b, arena_printf(b->f->arena, "Action=CreateSnapshot&VolumeId=%s", v), "snapshotId");
	struct storage_snapshot_observed *seen = fixture_report_snapshot(b->f, s, "pending");
	seen->begin_time = WIRE_TIME_OF(1000);
	seen->size_bytes = WIRE_INT_OF(INT64_C(8) << 30);
	observe(b);
	assert_int_equal(fixture_get_snapshot(b->f, s)->volume_size_gib.value, 8);
	fixture_report_snapshot(b->f, s, "completed")->size_bytes = WIRE_INT_OF(INT64_C(8) << 30);
	observe(b);
	assert_string_equal(made(b, arena_printf(b->f->arena, "Action=CreateVolume&AvailabilityZone=%s&SnapshotId=%s", b->f->clc.zone, s), "size"),
			    "8");
}

static void failed_snapshot_says_why(void **state)
{
	struct both *b = *state;
	const char *s = made(b,
			     arena_printf(b->f->arena, "Action=CreateSnapshot&VolumeId=%s",
					  fixture_volume(b->f, 4)),
			     "snapshotId");

	fixture_report_snapshot(b->f, s, "error")->reason = "a chunk could not be read";
	observe(b);
	assert_string_equal(fixture_get_snapshot(b->f, s)->state, "error");
	assert_string_equal(fixture_get_snapshot(b->f, s)->state_message,
			    "a chunk could not be read");
}

static void import_is_told_where_it_lies(void **state)
{
	struct both *b = *state;
	const char *s = made(b,
			     "Action=ImportSnapshot&DiskContainer.Format=RAW&"
			     "DiskContainer.Url=s3%3A%2F%2Fbucket%2Fdisk.raw",
			     "snapshotId");

	if (!s) { /* the task's answer may leave it out until it is there */
		struct record_list l;
		struct error e = {0};
		assert_int_equal(record_list(&b->f->clc, b->f->arena, KIND_SNAPSHOT, NULL, 0, &l, &e), 0);
		s = l.items[0].id;
	}
	apply(b);
	const struct storage_snapshot_spec *spec = snapshot_spec_of(b, s);
	assert_non_null(spec->import);
	assert_null(spec->volume_id);
	assert_string_equal(spec->import->location, "bucket/disk.raw");
	assert_non_null(strstr(spec->import->url, "/bucket/disk.raw?"));
	assert_non_null(strstr(spec->import->url, "X-Amz-Signature="));
	struct storage_snapshot_observed *seen = fixture_report_snapshot(b->f, s, "completed");
	seen->size_bytes = WIRE_INT_OF((INT64_C(2) << 30) + 512);
	observe(b);
	assert_int_equal(fixture_get_snapshot(b->f, s)->volume_size_gib.value, 3);
}

static void copy_is_told_of_what(void **state)
{
	struct both *b = *state;
	const char *source = fixture_snapshot(b->f, &b->f->account, 2),
		   *s = made(b,
			     arena_printf(b->f->arena,
					  "Action=CopySnapshot&SourceRegion=%s&SourceSnapshotId=%s",
					  b->f->clc.region, source),
			     "snapshotId");

	apply(b);
	assert_string_equal(snapshot_spec_of(b, s)->copy_of, source);
	assert_null(snapshot_spec_of(b, s)->volume_id);
	assert_int_equal(fixture_get_snapshot(b->f, s)->volume_size_gib.value, 2);
}

/* A volume that is made of a snapshot, which is deleted at once: the storage controller hears of the
 * volume first, whoever comes first in the index; so it does of a snapshot and its volume's end. */
static void beginnings_are_told_before_ends(void **state)
{
	struct both *b = *state;
	const char *source = fixture_snapshot(b->f, &b->f->account, 2), *v = fixture_volume(b->f, 1);

	apply(b);
	size_t applied = b->f->storage.applied;
	const char *of_source =
	    new_volume(b, arena_printf(b->f->arena, "SnapshotId=%s", source));
	const char *of_v = made(
	    b, arena_printf(b->f->arena, "Action=CreateSnapshot&VolumeId=%s", v), "snapshotId");
	assert_string_equal(call(b, "Action=DeleteSnapshot&SnapshotId=", source), "");
	assert_string_equal(call(b, "Action=DeleteVolume&VolumeId=", v), "");
	b->f->storage.stop_after = applied + 1;
	struct error e = {0};
	assert_true(storage_applier_pass(b->a, &e) < 0);
	assert_int_equal(b->f->storage.applied, applied + 1);
	assert_string_equal(volume_spec_of(b, of_source)->snapshot_id, source);
	assert_string_equal(snapshot_spec_of(b, of_v)->volume_id, v);
	assert_null(snapshot_spec_of(b, source));
	assert_null(volume_spec_of(b, v));
	b->f->storage.stop_after = 0;
	apply(b);
	assert_string_equal(snapshot_spec_of(b, source)->wanted, "deleted");
	assert_string_equal(volume_spec_of(b, v)->wanted, "deleted");
	assert_null(snapshot_spec_of(b, of_v));
}

static void strangers_are_left_alone(void **state)
{
	struct both *b = *state;

	fixture_report_volume(b->f, "vol-0123456789abcdef0", "available");
	fixture_report_snapshot(b->f, "snap-0123456789abcdef0", "pending");
	assert_int_equal(observe(b).ended_count, 0);
	fixture_report_snapshot(b->f, "snap-0123456789abcdef0", "deleted");
	observe(b);
	apply(b);
	assert_int_equal(b->f->storage.forgotten_count, 1);
	assert_true(was_forgotten(b, "snap-0123456789abcdef0"));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(volume_is_told_and_becomes_available),
	    TEST(only_changes_are_sent_and_all_after_a_restart),
	    TEST(unreachable_controller_changes_nothing),
	    TEST(deleted_volume_is_forgotten),
	    TEST(unasked_deletion_is_not_believed),
	    TEST(attachment_is_told_to_both),
	    TEST(detached_volume_is_available),
	    TEST(failed_attachment_frees_the_volume),
	    TEST(terminated_instance_lets_its_volumes_go),
	    TEST(launch_waits_for_its_volume),
	    TEST(launch_fails_with_its_volume),
	    TEST(volume_of_an_ended_launch_goes_unmade),
	    TEST(modification_ends_when_it_is_in_force),
	    TEST(modification_that_is_refused_has_failed),
	    TEST(snapshot_goes_its_way),
	    TEST(snapshot_is_as_large_as_its_volume_was),
	    TEST(failed_snapshot_says_why),
	    TEST(import_is_told_where_it_lies),
	    TEST(copy_is_told_of_what),
	    TEST(beginnings_are_told_before_ends),
	    TEST(strangers_are_left_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
