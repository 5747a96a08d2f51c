/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/text.h"
#include "svc/clc/instances.h"
#include "svc/clc/inventory.h"
#include "svc/clc/reconcile.h"
#include "svc/clc/testing.h"
#include "svc/clc/volumes.h"

/* Instances whose root is a volume: what a launch makes, and stop and start, with the cluster's double. */

static int setup(void **state)
{
	*state = fixture_new();
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

static const char *call(struct fixture *f, struct buf *reply, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	const char *query = arena_vprintf(f->arena, fmt, ap);
	va_end(ap);
	return fixture_call(f, &f->account, query, reply);
}

static size_t volume_count(struct fixture *f)
{
	struct error e = {0};
	int64_t n = -1;

	assert_int_equal(state_count(f->clc.state, "volume", NULL, &n, &e), 0);
	return (size_t)n;
}

static const struct records_instance_block_device *device(struct fixture *f, const char *id,
							  const char *name)
{
	return device_by_name(fixture_instance(f, id), name);
}

#define RUN "Action=RunInstances&InstanceType=t2.nano&MinCount=1&MaxCount=1&ImageId=%s"
#define MAP(n) "&BlockDeviceMapping." #n

static void launch_makes_volumes(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *image = fixture_ebs_image(f, &f->account, 8);

	assert_string_equal(
	    call(f, &reply,
		 "Action=RunInstances&InstanceType=t2.nano&MinCount=2&MaxCount=2&ImageId=%s" MAP(
		     1) ".DeviceName=/dev/sdf" MAP(1) ".Ebs.VolumeSize=2" MAP(1) ".Ebs.VolumeType="
		     "gp3" MAP(1) ".Ebs.DeleteOnTermination=false&TagSpecification.1.ResourceType="
				  "volume&TagSpecification.1.Tag.1.Key=a&"
				  "TagSpecification.1.Tag.1.Value=b",
		 image),
	    "");
	assert_int_equal(volume_count(f), 4);
	assert_string_equal(fixture_element(f, reply.data, "rootDeviceType", 0), "ebs");
	assert_string_equal(fixture_element(f, reply.data, "status", 0), "attaching");
	const char *id = fixture_element(f, reply.data, "instanceId", 1);
	const struct records_instance *i = fixture_instance(f, id);
	assert_int_equal(i->disk_bytes.value, 0);
	assert_null(i->image_location);
	assert_string_equal(i->instance_initiated_shutdown_behavior, "stop");
	assert_int_equal(i->block_devices.count, 2);
	const struct records_instance_block_device *root = device(f, id, "/dev/sda1");
	assert_true(root->boot.value);
	assert_int_equal(root->slot.value, 0);
	assert_true(root->delete_on_termination.value);
	assert_string_equal(root->state, "attaching");
	const struct records_volume *v = fixture_get_volume(f, root->volume_id);
	assert_int_equal(v->size_gib.value, 8);
	assert_string_equal(v->state, "creating");
	assert_string_equal(v->instance_id, id);
	assert_int_equal(v->generation.value, 1);
	assert_non_null(v->snapshot_id);
	const struct records_instance_block_device *data = device(f, id, "/dev/sdf");
	assert_false(data->boot.value);
	assert_int_equal(data->slot.value, 1);
	assert_false(data->delete_on_termination.value);
	assert_string_equal(fixture_get_volume(f, data->volume_id)->volume_type, "gp3");
	assert_string_equal(
	    call(f, &reply, "Action=DescribeTags&Filter.1.Name=resource-id&Filter.1.Value.1=%s",
		 data->volume_id),
	    "");
	assert_string_equal(fixture_element(f, reply.data, "key", 0), "a");
}

/* The request's mappings over the image's: by device name, and never smaller than the snapshot. */
static void mappings_are_merged(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *snapshot = fixture_snapshot(f, &f->account, 3);
	const char *other = fixture_snapshot(f, &f->account, 1);

	assert_string_equal(
	    call(f, &reply,
		 "Action=RegisterImage&Name=two" MAP(1) ".DeviceName=/dev/sda1" MAP(
		     1) ".Ebs.SnapshotId=%s" MAP(2) ".DeviceName=/dev/sdb" MAP(2) ".Ebs.VolumeSize"
										  "=1",
		 snapshot),
	    "");
	const char *image = fixture_element(f, reply.data, "imageId", 0);
	assert_string_equal(call(f, &reply,
				 RUN MAP(1) ".DeviceName=/dev/sda1" MAP(1) ".Ebs.VolumeSize=10" MAP(
				     1) ".Ebs.VolumeType=gp3" MAP(1) ".Ebs.Iops=4000" MAP(
				     2) ".DeviceName=/dev/sdb" MAP(2) ".NoDevice=",
				 image),
			    "");
	const char *id = fixture_element(f, reply.data, "instanceId", 0);
	assert_int_equal(fixture_instance(f, id)->block_devices.count, 1);
	const struct records_volume *v =
	    fixture_get_volume(f, device(f, id, "/dev/sda1")->volume_id);
	assert_int_equal(v->size_gib.value, 10);
	assert_int_equal(v->iops.value, 4000);
	assert_string_equal(v->snapshot_id, snapshot);

	size_t before = volume_count(f);
#define ROOT MAP(1) ".DeviceName=/dev/sda1" MAP(1)
	const struct {
		const char *query, *code;
	} refused[] = {
	    {ROOT ".Ebs.VolumeSize=2", "InvalidBlockDeviceMapping"},
	    {ROOT ".NoDevice=", "InvalidBlockDeviceMapping"},
	    {ROOT ".Ebs.VolumeType=st1" MAP(1) ".Ebs.VolumeSize=500", "InvalidBlockDeviceMapping"},
	    {ROOT ".Ebs.Iops=1", "InvalidParameterCombination"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		const char *code = call(f, &reply, RUN "%s", image, refused[i].query);

		if (!str_eq(code, refused[i].code))
			print_error("%s: %s\n", refused[i].query, code);
		assert_string_equal(code, refused[i].code);
	}
	assert_string_equal(call(f, &reply,
				 RUN MAP(1) ".DeviceName=/dev/sda1" MAP(1) ".Ebs.SnapshotId=%s",
				 image, other),
			    "InvalidBlockDeviceMapping");
	/* local disks are its type's: this one has none */
	assert_string_equal(call(f, &reply,
				 RUN MAP(1) ".DeviceName=/dev/sdc" MAP(1) ".VirtualName=ephemeral0",
				 image),
			    "");
	assert_int_equal(volume_count(f), before + 2);
}

/* Nothing is left of a launch that had no room, was repeated, or was a dry run. */
static void failed_launch_leaves_no_volume(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *image = fixture_ebs_image(f, &f->account, 1);

	f->cluster.capacity = 0;
	assert_string_equal(call(f, &reply, RUN, image), "InsufficientInstanceCapacity");
	assert_string_equal(call(f, &reply, RUN "&DryRun=true", image), "DryRunOperation");
	assert_int_equal(volume_count(f), 0);
	f->cluster.capacity = FAKE_MAX;
	assert_string_equal(call(f, &reply, RUN "&ClientToken=t", image), "");
	assert_string_equal(call(f, &reply, RUN "&ClientToken=t", image), "");
	assert_int_equal(volume_count(f), 1);
}

/* Whoever may launch an image needs no share of its snapshots; for volumes of one's own one does. */
static void images_of_others(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *image = fixture_ebs_image(f, &f->account, 1);
	const char *snapshot = fixture_get_image(f, image)->block_devices.items[0].snapshot_id;
	struct account other;
	struct error e = {0};

	assert_int_equal(account_create(&f->clc, f->arena, "other", &other, &e), 0);
	const char *run = arena_printf(f->arena, RUN, image);
	assert_string_equal(fixture_call(f, &other, run, &reply), "InvalidAMIID.NotFound");
	assert_string_equal(call(f, &reply,
				 "Action=ModifyImageAttribute&ImageId=%s&"
				 "LaunchPermission.Add.1.Group=all",
				 image),
			    "");
	assert_string_equal(fixture_call(f, &other, run, &reply), "");
	const char *id = fixture_element(f, reply.data, "instanceId", 0);
	assert_string_equal(
	    fixture_get_volume(f, device(f, id, "/dev/sda1")->volume_id)->account_id,
	    other.record->account_id);
	const char *mapped = arena_printf(
	    f->arena, RUN MAP(1) ".DeviceName=/dev/sdf" MAP(1) ".Ebs.SnapshotId=%s", image, snapshot);
	assert_string_equal(fixture_call(f, &other, mapped, &reply), "InvalidSnapshot.NotFound");
}

static const struct shared_instance_spec *apply(struct fixture *f, const char *id)
{
	struct applier *a = applier_new(&f->clc);
	struct error e = {0};

	assert_int_equal(applier_pass(a, &e), 0);
	applier_free(a);
	for (size_t i = 0; i < f->cluster.spec_count; i++)
		if (str_eq(f->cluster.specs[i].instance_id, id))
			return &f->cluster.specs[i];
	return NULL;
}

static void observe(struct fixture *f)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct observer *o = observer_new(&f->clc);
	struct observer_findings found;
	struct error e = {0};

	assert_int_equal(observer_pass(o, a, 1, &found, &e), 0);
	observer_free(o);
}

static void stop_and_start(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *id = fixture_run_ebs(f, "");
	const struct records_instance *was = fixture_instance(f, id);
	size_t addresses = inventory_free_addresses(f->clc.inventory);

	const struct shared_instance_spec *spec = apply(f, id);
	assert_string_equal(spec->root_device_type, "ebs");
	assert_null(spec->image_url);
	assert_int_equal(spec->block_devices.count, 1);
	assert_string_equal(call(f, &reply, "Action=StopInstances&InstanceId.1=%s", id), "");
	assert_string_equal(fixture_element(f, reply.data, "name", 0), "stopping");
	spec = apply(f, id);
	assert_string_equal(spec->wanted, "stopped");
	assert_false(spec->force_off.set);
	/* the guest hangs: asked again by force, it is hurried on, once */
	int64_t generation = spec->generation.value;
	for (int i = 0; i < 2; i++) {
		assert_string_equal(call(f, &reply, "Action=StopInstances&InstanceId.1=%s&Force=true", id), "");
		assert_string_equal(fixture_element(f, reply.data, "name", 0), "stopping");
		spec = apply(f, id);
		assert_true(spec->force_off.value);
		assert_int_equal(spec->generation.value, generation + 1);
	}
	assert_string_equal(call(f, &reply, "Action=StartInstances&InstanceId.1=%s", id),
			    "IncorrectInstanceState");
	/* a report from before does not stop it, nor start it again */
	fixture_report(f, id, "running");
	observe(f);
	assert_string_equal(fixture_instance(f, id)->state, "stopping");
	fixture_report(f, id, "stopped");
	observe(f);
	const struct records_instance *off = fixture_instance(f, id);
	assert_string_equal(off->state, "stopped");
	assert_string_equal(off->state_reason_code, "Client.UserInitiatedShutdown");
	assert_int_equal(off->block_devices.count, 1);
	assert_int_equal(inventory_free_addresses(f->clc.inventory), addresses);
	fixture_report(f, id, "running");
	observe(f);
	assert_string_equal(fixture_instance(f, id)->state, "stopped");

	f->cluster.capacity = 0;
	assert_string_equal(call(f, &reply, "Action=StartInstances&InstanceId.1=%s", id),
			    "InsufficientInstanceCapacity");
	assert_string_equal(fixture_instance(f, id)->state, "stopped");
	f->cluster.capacity = FAKE_MAX;
	assert_string_equal(call(f, &reply, "Action=StartInstances&InstanceId.1=%s", id), "");
	const struct records_instance *on = fixture_instance(f, id);
	assert_string_equal(on->state, "pending");
	assert_null(on->state_reason_code);
	assert_true(on->launch_time.value >= was->launch_time.value);
	assert_int_equal(on->interface_attach_time.value, was->launch_time.value);
	assert_string_equal(on->private_ip, was->private_ip);
	spec = apply(f, id);
	assert_string_equal(spec->wanted, "running");
	assert_false(spec->force_off.set);
	/* still off, on its way */
	fixture_report(f, id, "stopped");
	observe(f);
	assert_string_equal(fixture_instance(f, id)->state, "pending");
	fixture_report(f, id, "running");
	observe(f);
	assert_string_equal(fixture_instance(f, id)->state, "running");
}

/* Its volumes may be opened where it is started, and nowhere else. */
static void started_elsewhere(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	struct error e = {0};
	const char *id = fixture_run_ebs(f, "");
	struct records_instance *i = fixture_instance(f, id);
	const char *volume = i->block_devices.items[0].volume_id;
	int64_t generation = fixture_get_volume(f, volume)->generation.value;

	i->state = i->wanted = "stopped";
	i->node_id = "n0";
	assert_int_equal(record_put(&f->clc, KIND_INSTANCE, i->account_id, id, NULL, i, &e), 0);
	assert_string_equal(call(f, &reply, "Action=StartInstances&InstanceId.1=%s", id), "");
	assert_string_equal(fixture_instance(f, id)->node_id, "n0");
	assert_int_equal(fixture_get_volume(f, volume)->generation.value, generation);
	assert_int_equal(record_put(&f->clc, KIND_INSTANCE, i->account_id, id, NULL, i, &e), 0);
	f->cluster.place_on = "n1";
	assert_string_equal(call(f, &reply, "Action=StartInstances&InstanceId.1=%s", id), "");
	assert_string_equal(fixture_instance(f, id)->node_id, "n1");
	assert_true(fixture_get_volume(f, volume)->generation.value > generation);
}

/* What no node could run is refused, and what was asked with it stays off too. */
static void no_start_without_root(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	struct error e = {0};
	const char *id = fixture_run_ebs(f, ""), *whole = fixture_run_ebs(f, "");
	struct records_instance *i = fixture_instance(f, id), *w = fixture_instance(f, whole);

	i->state = i->wanted = w->state = w->wanted = "stopped";
	assert_int_equal(record_put(&f->clc, KIND_INSTANCE, w->account_id, whole, NULL, w, &e), 0);
	for (int gone = 0; gone < 2; gone++) {
		i->block_devices.items[0].wanted = WANTED_DETACHED;
		i->block_devices.count = gone ? 0 : 1;
		assert_int_equal(record_put(&f->clc, KIND_INSTANCE, i->account_id, id, NULL, i, &e), 0);
		assert_string_equal(
		    call(f, &reply, "Action=StartInstances&InstanceId.1=%s&InstanceId.2=%s", whole, id),
		    "InvalidParameterValue");
		assert_string_equal(fixture_instance(f, id)->state, "stopped");
		assert_string_equal(fixture_instance(f, whole)->state, "stopped");
	}
	assert_string_equal(call(f, &reply, "Action=StartInstances&InstanceId.1=%s", whole), "");
}

static void report_guest_off(struct fixture *f, const char *id)
{
	fixture_report(f, id, "stopped");
	f->cluster.observed[0].state_reason_code = "Client.InstanceInitiatedShutdown";
	f->cluster.observed[0].state_reason_message =
	    "Client.InstanceInitiatedShutdown: Instance initiated shutdown";
	observe(f);
}

static void guest_switched_itself_off(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *id = fixture_run_ebs(f, "");
	int64_t generation = fixture_instance(f, id)->generation.value;

	report_guest_off(f, id);
	const struct records_instance *i = fixture_instance(f, id);
	assert_string_equal(i->state, "stopped");
	assert_string_equal(i->wanted, "stopped");
	assert_string_equal(i->state_reason_code, "Client.InstanceInitiatedShutdown");
	assert_true(i->generation.value > generation);
	/* and again, before it was seen to run */
	assert_string_equal(call(f, &reply, "Action=StartInstances&InstanceId.1=%s", id), "");
	report_guest_off(f, id);
	assert_string_equal(fixture_instance(f, id)->state, "stopped");
}

/* What is said of it before it has heard of the start is old. */
static void old_end_is_no_new_one(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *id = fixture_run_ebs(f, "");

	report_guest_off(f, id);
	assert_string_equal(call(f, &reply, "Action=StartInstances&InstanceId.1=%s", id), "");
	f->cluster.observed[0].generation = WIRE_INT_OF(1);
	f->cluster.observed[0].revision = WIRE_INT_OF(++f->cluster.revision);
	observe(f);
	assert_string_equal(fixture_instance(f, id)->state, "pending");
	assert_string_equal(fixture_instance(f, id)->wanted, "running");
}

static void only_what_can_be_stopped(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	struct error e = {0};
	const char *ebs = fixture_run_ebs(f, ""), *store;

	fixture_run(f, 1, "", &store);
	assert_string_equal(
	    call(f, &reply, "Action=StopInstances&InstanceId.1=%s&InstanceId.2=%s", ebs, store),
	    "UnsupportedOperation");
	assert_string_equal(fixture_instance(f, ebs)->state, "running");
	struct records_instance *i = fixture_instance(f, store);
	i->state = "terminated";
	assert_int_equal(record_put(&f->clc, KIND_INSTANCE, i->account_id, store, NULL, i, &e), 0);
	assert_string_equal(call(f, &reply, "Action=StopInstances&InstanceId.1=%s", store),
			    "IncorrectInstanceState");
}

static void attributes(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	struct error e = {0};
	const char *id = fixture_run_ebs(f, "");
	static const char *const when_stopped[] = {"InstanceType.Value=t2.medium",
						   "UserData.Value=aGVsbG8%3D"};
	static const char *const any_time[] = {
	    "InstanceInitiatedShutdownBehavior.Value=terminate",
	    "BlockDeviceMapping.1.DeviceName=/dev/sda1&"
	    "BlockDeviceMapping.1.Ebs.DeleteOnTermination=false"};
#define MODIFY "Action=ModifyInstanceAttribute&InstanceId=%s&%s"

	for (size_t n = 0; n < ARRAY_SIZE(any_time); n++)
		assert_string_equal(call(f, &reply, MODIFY, id, any_time[n]), "");
	for (size_t n = 0; n < ARRAY_SIZE(when_stopped); n++)
		assert_string_equal(call(f, &reply, MODIFY, id, when_stopped[n]),
				    "IncorrectInstanceState");
	struct records_instance *i = fixture_instance(f, id);
	i->state = i->wanted = "stopped";
	assert_int_equal(record_put(&f->clc, KIND_INSTANCE, i->account_id, id, NULL, i, &e), 0);
	for (size_t n = 0; n < ARRAY_SIZE(when_stopped); n++)
		assert_string_equal(call(f, &reply, MODIFY, id, when_stopped[n]), "");
	assert_string_equal(call(f, &reply, MODIFY, id, "InstanceType.Value=t9.vast"),
			    "InvalidInstanceAttributeValue");
	const struct records_instance *now = fixture_instance(f, id);
	assert_string_equal(now->instance_type, "t2.medium");
	assert_int_equal(now->memory_mib.value, 4096);
	assert_int_equal(now->user_data.len, 5);
	assert_string_equal(now->instance_initiated_shutdown_behavior, "terminate");
	assert_false(now->block_devices.items[0].delete_on_termination.value);
	assert_true(now->generation.value > i->generation.value);
	assert_string_equal(call(f, &reply,
				 "Action=DescribeInstanceAttribute&InstanceId=%s&"
				 "Attribute=blockDeviceMapping",
				 id),
			    "");
	assert_string_equal(fixture_element(f, reply.data, "deleteOnTermination", 0), "false");
	assert_string_equal(
	    call(f, &reply,
		 "Action=DescribeInstances&Filter.1.Name=block-device-mapping.volume-id&"
		 "Filter.1.Value.1=%s&Filter.2.Name=root-device-type&Filter.2.Value.1=ebs",
		 now->block_devices.items[0].volume_id),
	    "");
	assert_string_equal(fixture_element(f, reply.data, "instanceId", 0), id);
}

/* The node gives it as many whole disks as were reserved, and they need slots that no volume has. */
static void type_brings_its_local_disks(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	struct error e = {0};
	const char *id = fixture_run_ebs(f, "&BlockDeviceMapping.1.DeviceName=/dev/sdf&BlockDeviceMapping.1.Ebs.VolumeSize=1");
	struct records_instance *i = fixture_instance(f, id);
	static const struct {
		const char *type, *code;
		int64_t slot, disks;
	} rows[] = {
	    {"c3.large", "", 1, 2},
	    {"d2.xlarge", "", 1, 3},
	    {"m3.medium", "", 1, 1},
	    {"t2.nano", "", 1, 0},
	    {"c3.large", "AttachmentLimitExceeded", LIMIT_DEVICES_PER_INSTANCE - 2, 0},
	    {"m3.medium", "", LIMIT_DEVICES_PER_INSTANCE - 2, 1},
	    {"t2.nano", "", LIMIT_DEVICES_PER_INSTANCE - 1, 0},
	    {"m3.medium", "AttachmentLimitExceeded", LIMIT_DEVICES_PER_INSTANCE - 1, 0},
	};

	for (size_t n = 0; n < ARRAY_SIZE(rows); n++) {
		i->state = i->wanted = "stopped";
		i->block_devices.items[1].slot = WIRE_INT_OF(rows[n].slot);
		assert_int_equal(record_put(&f->clc, KIND_INSTANCE, i->account_id, id, NULL, i, &e), 0);
		assert_string_equal(call(f, &reply, MODIFY "%s", id, "InstanceType.Value=", rows[n].type), rows[n].code);
		i = fixture_instance(f, id);
		assert_int_equal(i->local_disks.value, rows[n].disks);
	}
	assert_string_equal(call(f, &reply, MODIFY, id, "InstanceType.Value=d2.2xlarge"), "AttachmentLimitExceeded");
	assert_string_equal(i->instance_type, "t2.nano");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(launch_makes_volumes),
	    TEST(mappings_are_merged),
	    TEST(failed_launch_leaves_no_volume),
	    TEST(images_of_others),
	    TEST(stop_and_start),
	    TEST(started_elsewhere),
	    TEST(no_start_without_root),
	    TEST(guest_switched_itself_off),
	    TEST(old_end_is_no_new_one),
	    TEST(only_what_can_be_stopped),
	    TEST(attributes),
	    TEST(type_brings_its_local_disks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
