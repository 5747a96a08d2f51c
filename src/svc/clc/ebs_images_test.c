/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/text.h"
#include "svc/clc/images.h"
#include "svc/clc/instances.h"
#include "svc/clc/reconcile.h"
#include "svc/clc/testing.h"
#include "svc/clc/volumes.h"

/* Images of snapshots. What the storage controller would report is written into the records. */

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

/* ---- what the storage and the node say ---- */

static void snapshot_becomes(struct fixture *f, const char *id, enum snapshot_state s)
{
	struct records_snapshot *rec = fixture_get_snapshot(f, id);
	struct error e = {0};

	assert_non_null(rec);
	rec->state = snapshot_state_name(s);
	rec->begin_time = WIRE_TIME_OF(clock_unix_ms());
	assert_int_equal(snapshot_store(&f->clc, rec, false, &e), 0);
}

static void volumes_are_made(struct fixture *f, const char *instance_id)
{
	const struct records_instance *i = fixture_instance(f, instance_id);
	struct error e = {0};

	for (size_t n = 0; n < i->block_devices.count; n++) {
		struct records_volume *v = fixture_get_volume(f, i->block_devices.items[n].volume_id);

		volume_enter(v, VOLUME_IN_USE, clock_unix_ms());
		assert_int_equal(volume_store(&f->clc, v, false, &e), 0);
	}
}

static void node_reports(struct fixture *f, const char *id, const char *state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct observer *o = observer_new(&f->clc);
	struct observer_findings found;
	struct error e = {0};

	fixture_report(f, id, state);
	assert_int_equal(observer_pass(o, a, 1, &found, &e), 0);
	observer_free(o);
}

static const char *wanted_of(struct fixture *f, const char *id)
{
	struct applier *a = applier_new(&f->clc);
	struct error e = {0};

	assert_int_equal(applier_pass(a, &e), 0);
	applier_free(a);
	for (size_t i = 0; i < f->cluster.spec_count; i++)
		if (str_eq(f->cluster.specs[i].instance_id, id))
			return f->cluster.specs[i].wanted;
	return NULL;
}

/* As far as it can go by itself. */
static void steps(struct fixture *f, const char *image_id)
{
	struct error e = {0};
	bool wait = false;

	for (int n = 0; !wait; n++) {
		assert_true(n < 10);
		assert_int_equal(image_step(&f->clc, image_id, &wait, &e), 0);
	}
}

static const char *an_instance(struct fixture *f)
{
	const char *id = fixture_run_ebs(f,
					 "&BlockDeviceMapping.1.DeviceName=/dev/sdf&"
					 "BlockDeviceMapping.1.Ebs.VolumeSize=2");

	volumes_are_made(f, id);
	return id;
}

static const char *snapshot_of(struct fixture *f, const char *image, size_t n)
{
	return fixture_get_image(f, image)->block_devices.items[n].snapshot_id;
}

/* ---- RegisterImage ---- */

#define REGISTER "Action=RegisterImage&Name=made&"
#define MAP(n) "BlockDeviceMapping." #n

static void register_of_snapshots(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *snapshot = fixture_snapshot(f, &f->account, 3);

	assert_string_equal(
	    call(f, &reply,
		 REGISTER MAP(1) ".DeviceName=/dev/sda1&" MAP(1) ".Ebs.SnapshotId=%s&" MAP(
		     2) ".DeviceName=/dev/sdb&" MAP(2) ".Ebs.VolumeSize=7&" MAP(
		     2) ".Ebs.VolumeType=gp3&" MAP(2) ".Ebs.DeleteOnTermination=false&" MAP(
		     3) ".DeviceName=/dev/sdc&" MAP(3) ".VirtualName=ephemeral0",
		 snapshot),
	    "");
	const char *id = fixture_element(f, reply.data, "imageId", 0);
	assert_string_equal(call(f, &reply,
				 "Action=DescribeImages&ImageId.1=%s&"
				 "Filter.1.Name=block-device-mapping.snapshot-id&Filter.1.Value.1=%s&"
				 "Filter.2.Name=block-device-mapping.volume-size&Filter.2.Value.1=7",
				 id, snapshot),
			    "");
	assert_string_equal(fixture_element(f, reply.data, "imageState", 0), "available");
	assert_string_equal(fixture_element(f, reply.data, "rootDeviceType", 0), "ebs");
	assert_string_equal(fixture_element(f, reply.data, "rootDeviceName", 0), "/dev/sda1");
	assert_string_equal(fixture_element(f, reply.data, "deviceName", 1), "/dev/sdb");
	assert_string_equal(fixture_element(f, reply.data, "deviceName", 2), "/dev/sdc");
	assert_string_equal(fixture_element(f, reply.data, "virtualName", 0), "ephemeral0");
	assert_null(fixture_element(f, reply.data, "deleteOnTermination", 2));
	assert_string_equal(fixture_element(f, reply.data, "volumeSize", 0), "3");
	assert_string_equal(fixture_element(f, reply.data, "volumeType", 0), "gp2");
	assert_string_equal(fixture_element(f, reply.data, "deleteOnTermination", 1), "false");
	assert_string_equal(call(f, &reply,
				 "Action=DescribeImageAttribute&ImageId=%s&"
				 "Attribute=blockDeviceMapping",
				 id),
			    "");
	assert_string_equal(fixture_element(f, reply.data, "snapshotId", 0), snapshot);
	/* DeleteSnapshot asks this */
	struct error e = {0};
	const char *user = NULL;
	assert_int_equal(image_of_snapshot(&f->clc, f->arena, snapshot, &user, &e), 0);
	assert_string_equal(user, id);
	assert_string_equal(call(f, &reply, "Action=DeregisterImage&ImageId=%s", id), "");
	assert_int_equal(image_of_snapshot(&f->clc, f->arena, snapshot, &user, &e), 0);
	assert_null(user);
}

#define LOCAL(n) "&" MAP(n) ".DeviceName=/dev/sd%c&" MAP(n) ".VirtualName=ephemeral%d"

/* By name like volumes, and a device is of one kind: it can be made the other. */
static void local_disks_are_merged(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *instance = an_instance(f);

	/* /dev/sdf, a volume of 2 GiB, becomes a local disk of the image */
	assert_string_equal(call(f, &reply, "Action=CreateImage&NoReboot=true&Name=locals&InstanceId=%s" LOCAL(1) LOCAL(2),
				 instance, 'f', 1, 'g', 23),
			    "");
	const char *id = fixture_element(f, reply.data, "imageId", 0);
	const struct records_image *image = fixture_get_image(f, id);
	assert_int_equal(image->block_devices.count, 3);
	assert_string_equal(image->block_devices.items[1].virtual_name, "ephemeral1");
	assert_null(image->block_devices.items[1].snapshot_id);
	assert_string_equal(image->block_devices.items[2].virtual_name, "ephemeral23");
	snapshot_becomes(f, snapshot_of(f, id, 0), SNAPSHOT_COMPLETED);
	steps(f, id);
	/* its launch: the one stays, another becomes a volume, and volumes are all that the record has */
	assert_string_equal(call(f, &reply,
				 "Action=RunInstances&ImageId=%s&InstanceType=m3.medium&MinCount=1&MaxCount=1&" MAP(
				     1) ".DeviceName=/dev/sdg&" MAP(1) ".Ebs.VolumeSize=3",
				 id),
			    "");
	const struct records_instance *i = fixture_instance(f, fixture_element(f, reply.data, "instanceId", 0));
	assert_int_equal(i->local_disks.value, 1);
	assert_int_equal(i->block_devices.count, 2);
	const struct records_instance_block_device *d = device_by_name(i, "/dev/sdg");
	assert_int_equal(fixture_get_volume(f, d->volume_id)->size_gib.value, 3);
	assert_true(d->delete_on_termination.value);

	const char *full = arena_printf(f->arena, "Action=CreateImage&NoReboot=true&Name=full&InstanceId=%s", instance);
	for (int n = 0; n <= LIMIT_LOCAL_MAPPINGS; n++) {
		if (n == LIMIT_LOCAL_MAPPINGS)
			assert_string_equal(call(f, &reply, "%s&DryRun=true", full), "DryRunOperation");
		full = arena_printf(f->arena, "%s&BlockDeviceMapping.%d.DeviceName=/dev/sdh%d&BlockDeviceMapping.%d.VirtualName=ephemeral0",
				    full, n + 1, n, n + 1);
	}
	assert_string_equal(call(f, &reply, "%s", full), "InvalidBlockDeviceMapping");
}

static void register_refusals(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *good = fixture_snapshot(f, &f->account, 3);
	const char *pending = fixture_snapshot(f, &f->account, 3);
	struct account other;
	struct error e = {0};

	assert_int_equal(account_create(&f->clc, f->arena, "other", &other, &e), 0);
	const char *foreign = fixture_snapshot(f, &other, 3);
	snapshot_becomes(f, pending, SNAPSHOT_PENDING);
#define ROOT MAP(1) ".DeviceName=/dev/sda1&" MAP(1)
	/* The first mapping is the root's, of the snapshot unless that is NULL. */
	const struct {
		const char *snapshot, *query, *code;
	} refused[] = {
	    {foreign, "", "InvalidSnapshot.NotFound"},
	    {"snap-00000000000000000", "", "InvalidSnapshot.NotFound"},
	    {"vol-00000000000000000", "", "InvalidSnapshotID.Malformed"},
	    {pending, "", "IncorrectState"},
	    {good, "&ImageLocation=a/b", "InvalidParameterCombination"},
	    {good, "&RootDeviceName=/dev/xvda", "InvalidBlockDeviceMapping"},
	    {good, "&SriovNetSupport=double", "InvalidParameterValue"},
	    {good, "&" MAP(1) ".Ebs.VolumeSize=2", "InvalidBlockDeviceMapping"},
	    {good, "&" MAP(1) ".Ebs.VolumeType=sc1&" MAP(1) ".Ebs.VolumeSize=500",
	     "InvalidBlockDeviceMapping"},
	    {good, "&" MAP(2) ".DeviceName=/dev/sdb&" MAP(2) ".Ebs.DeleteOnTermination=true",
	     "MissingParameter"},
	    {good, "&" MAP(1) ".Ebs.KmsKeyId=mine&" MAP(1) ".Ebs.Encrypted=true", "InvalidParameterValue"},
	    {good, "&" MAP(1) ".Ebs.Encrypted=true", "InvalidBlockDeviceMapping"},
	    {good, "&" MAP(1) ".Ebs.Encrypted=false", "InvalidBlockDeviceMapping"},
	    {NULL, "&" MAP(1) ".Ebs.VolumeSize=5", "InvalidBlockDeviceMapping"},
	    {NULL, "&" MAP(1) ".NoDevice=", "InvalidBlockDeviceMapping"},
	    {NULL, "&" MAP(1) ".VirtualName=ephemeral0", "InvalidBlockDeviceMapping"},
	    {good, "&" MAP(2) ".DeviceName=/dev/sdb&" MAP(2) ".VirtualName=ephemeral24", "InvalidBlockDeviceMapping"},
	    {good, "&" MAP(2) ".DeviceName=/dev/sdb&" MAP(2) ".VirtualName=ephemeral", "InvalidBlockDeviceMapping"},
	    {good, "&" MAP(2) ".DeviceName=/dev/sdb&" MAP(2) ".VirtualName=sdb", "InvalidBlockDeviceMapping"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		const char *of = refused[i].snapshot;
		const char *code = call(
		    f, &reply, REGISTER MAP(1) ".DeviceName=/dev/sda1%s%s%s",
		    of ? "&" MAP(1) ".Ebs.SnapshotId=" : "", of ? of : "", refused[i].query);

		if (!str_eq(code, refused[i].code))
			print_error("%s: %s\n", refused[i].query, code);
		assert_string_equal(code, refused[i].code);
	}
}

/* ---- ImportSnapshot ---- */

static void import_task(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *query = "Action=ImportSnapshot&ClientToken=t&DiskContainer.Format=raw&"
			    "DiskContainer.UserBucket.S3Bucket=b&DiskContainer.UserBucket.S3Key=a/k";

	assert_string_equal(call(f, &reply, query), "");
	const char *task = fixture_element(f, reply.data, "importTaskId", 0);
	const char *snapshot = fixture_element(f, reply.data, "snapshotId", 0);
	assert_true(str_prefix(task, "import-snap-"));
	assert_string_equal(fixture_element(f, reply.data, "status", 0), "active");
	assert_string_equal(fixture_get_snapshot(f, snapshot)->import_location, "b/a/k");
	assert_string_equal(call(f, &reply, query), "");
	assert_string_equal(fixture_element(f, reply.data, "importTaskId", 0), task);
	assert_string_equal(call(f, &reply,
				 "Action=ImportSnapshot&ClientToken=t&DiskContainer.Url=s3://b/other"),
			    "IdempotentParameterMismatch");
	static const struct {
		enum snapshot_state state;
		const char *status;
	} rows[] = {{SNAPSHOT_COMPLETED, "completed"}, {SNAPSHOT_ERROR, "error"}};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		snapshot_becomes(f, snapshot, rows[i].state);
		assert_string_equal(
		    call(f, &reply, "Action=DescribeImportSnapshotTasks&ImportTaskId.1=%s", task),
		    "");
		assert_string_equal(fixture_element(f, reply.data, "status", 0), rows[i].status);
		assert_string_equal(fixture_element(f, reply.data, "s3Key", 0), "a/k");
	}
	assert_string_equal(call(f, &reply,
				 "Action=DescribeImportSnapshotTasks&Filters.1.Name=task-state&"
				 "Filters.1.Value.1=active"),
			    "");
	assert_null(fixture_element(f, reply.data, "importTaskId", 0));
}

/* ---- CreateImage ---- */

static const char *create(struct fixture *f, const char *instance, const char *extra)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;

	assert_string_equal(call(f, &reply, "Action=CreateImage&Name=made&InstanceId=%s%s", instance,
				 extra),
			    "");
	return fixture_element(f, reply.data, "imageId", 0);
}

static void create_without_reboot(void **state)
{
	struct fixture *f = *state;
	const char *instance = an_instance(f);
	int64_t generation = fixture_instance(f, instance)->generation.value;
	const char *id = create(f, instance,
				"&NoReboot=true&BlockDeviceMapping.1.DeviceName=/dev/sda1&"
				"BlockDeviceMapping.1.Ebs.VolumeSize=4&"
				"TagSpecification.1.ResourceType=snapshot&"
				"TagSpecification.1.Tag.1.Key=a");
	const struct records_image *image = fixture_get_image(f, id);

	assert_string_equal(image->state, "pending");
	assert_null(image->create_phase);
	assert_int_equal(image->block_devices.count, 2);
	assert_int_equal(image->block_devices.items[0].size_gib.value, 4);
	assert_int_equal(fixture_instance(f, instance)->generation.value, generation);
	for (size_t n = 0; n < 2; n++) {
		const struct records_snapshot *s = fixture_get_snapshot(f, snapshot_of(f, id, n));
		struct shared_tag_list tags;
		struct error e = {0};

		assert_string_equal(s->state, "pending");
		assert_int_equal(s->generation.value, 1);
		assert_int_equal(tags_get(&f->clc, f->arena, s->snapshot_id, &tags, &e), 0);
		assert_int_equal(tags.count, 1);
	}
	steps(f, id);
	snapshot_becomes(f, snapshot_of(f, id, 0), SNAPSHOT_COMPLETED);
	steps(f, id);
	assert_string_equal(fixture_get_image(f, id)->state, "pending");
	snapshot_becomes(f, snapshot_of(f, id, 1), SNAPSHOT_COMPLETED);
	steps(f, id);
	assert_string_equal(fixture_get_image(f, id)->state, "available");
	steps(f, id);
}

/* With a reboot too, and then before the guest goes off. */
static void create_with_snapshots_pending(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *instance = an_instance(f);
	const char *v = fixture_instance(f, instance)->block_devices.items[1].volume_id;

	for (int n = 0; n < LIMIT_PENDING_SNAPSHOTS_PER_VOLUME; n++)
		assert_string_equal(call(f, &reply, "Action=CreateSnapshot&VolumeId=%s", v), "");
	for (int reboot = 0; reboot < 2; reboot++)
		assert_string_equal(call(f, &reply, "Action=CreateImage&Name=many&NoReboot=%s&InstanceId=%s", reboot ? "false" : "true", instance),
				    "ConcurrentSnapshotLimitExceeded");
	assert_null(fixture_instance(f, instance)->held_off_for);
}

/* A volume that was still growing: its snapshot has what it had grown to, and the image can be launched. */
static void create_of_a_growing_volume(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *id = create(f, an_instance(f), "&NoReboot=true");
	struct error e = {0};

	for (size_t n = 0; n < 2; n++) {
		struct records_snapshot *s = fixture_get_snapshot(f, snapshot_of(f, id, n));

		s->volume_size_gib = WIRE_INT_OF(s->volume_size_gib.value + 1);
		assert_int_equal(snapshot_store(&f->clc, s, false, &e), 0);
		snapshot_becomes(f, s->snapshot_id, SNAPSHOT_COMPLETED);
	}
	int64_t was = fixture_get_image(f, id)->block_devices.items[0].size_gib.value;
	steps(f, id);
	assert_int_equal(fixture_get_image(f, id)->block_devices.items[0].size_gib.value, was + 1);
	assert_string_equal(call(f, &reply, "Action=RunInstances&ImageId=%s&InstanceType=t2.nano&MinCount=1&MaxCount=1", id), "");
}

/* A snapshot is what its volume is; a device that is new to the image may be what it likes. */
static void create_changes_no_encryption(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *instance = an_instance(f);
	const char *query = "Action=CreateImage&Name=%s&NoReboot=true&InstanceId=%s&BlockDeviceMapping.1.DeviceName=%s"
			    "&BlockDeviceMapping.1.Ebs.Encrypted=%s%s";

	assert_string_equal(call(f, &reply, query, "one", instance, "/dev/sda1", "true", ""), "InvalidBlockDeviceMapping");
	assert_string_equal(call(f, &reply, query, "one", instance, "/dev/sda1", "false", ""), "");
	assert_string_equal(call(f, &reply, query, "two", instance, "/dev/sdg", "true", "&BlockDeviceMapping.1.Ebs.VolumeSize=1"),
			    "");
	const struct records_image *image = fixture_get_image(f, fixture_element(f, reply.data, "imageId", 0));
	assert_false(image->block_devices.items[0].encrypted.value);
	assert_true(image->block_devices.items[2].encrypted.value);
}

/* The guest is off from before the first snapshot until all have begun; the API does not show it. */
static void create_with_reboot(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *instance = an_instance(f);
	const char *id = create(f, instance,
				"&BlockDeviceMapping.1.DeviceName=/dev/sdf&"
				"BlockDeviceMapping.1.NoDevice=");
	const char *snapshot = snapshot_of(f, id, 0);

	assert_string_equal(fixture_get_image(f, id)->create_phase, CREATE_STOPPING);
	assert_int_equal(fixture_get_image(f, id)->block_devices.count, 1);
	assert_string_equal(wanted_of(f, instance), "stopped");
	assert_string_equal(call(f, &reply, "Action=CreateImage&Name=more&InstanceId=%s", instance),
			    "IncorrectInstanceState");
	steps(f, id);
	assert_null(fixture_get_snapshot(f, snapshot));
	node_reports(f, instance, "running");
	steps(f, id);
	assert_null(fixture_get_snapshot(f, snapshot));
	node_reports(f, instance, "stopped");
	assert_string_equal(fixture_instance(f, instance)->state, "running");
	steps(f, id);
	assert_string_equal(fixture_get_snapshot(f, snapshot)->state, "pending");
	assert_string_equal(wanted_of(f, instance), "stopped");
	snapshot_becomes(f, snapshot, SNAPSHOT_PENDING); /* begun */
	steps(f, id);
	assert_string_equal(wanted_of(f, instance), "running");
	assert_null(fixture_instance(f, instance)->held_off_for);
	assert_string_equal(fixture_get_image(f, id)->state, "pending");
	/* it is still off for a moment, and has not been stopped */
	node_reports(f, instance, "stopped");
	assert_string_equal(fixture_instance(f, instance)->state, "running");
	node_reports(f, instance, "running");
	snapshot_becomes(f, snapshot, SNAPSHOT_COMPLETED);
	steps(f, id);
	assert_string_equal(fixture_get_image(f, id)->state, "available");
}

/* An older report, of a guest that had been off, is none of this one. */
static void old_report_makes_no_snapshot(void **state)
{
	struct fixture *f = *state;
	const char *instance = an_instance(f);

	fixture_report(f, instance, "stopped");
	const char *id = create(f, instance, "");
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct observer *o = observer_new(&f->clc);
	struct observer_findings found;
	struct error e = {0};
	assert_int_equal(observer_pass(o, a, 1, &found, &e), 0);
	observer_free(o);
	assert_string_equal(fixture_get_image(f, id)->create_phase, CREATE_STOPPING);
	assert_string_equal(fixture_instance(f, instance)->state, "running");
}

static void failed_snapshot_fails_the_image(void **state)
{
	struct fixture *f = *state;
	const char *instance = an_instance(f);
	const char *id = create(f, instance, "");

	node_reports(f, instance, "stopped");
	steps(f, id);
	snapshot_becomes(f, snapshot_of(f, id, 1), SNAPSHOT_ERROR);
	steps(f, id);
	assert_string_equal(fixture_get_image(f, id)->state, "failed");
	assert_non_null(fixture_get_image(f, id)->state_reason_message);
	assert_string_equal(wanted_of(f, instance), "running");
}

static size_t tag_count(struct fixture *f)
{
	struct error e = {0};
	int64_t n = -1;

	assert_int_equal(state_count(f->clc.state, clc_kinds[KIND_TAGS].kind, NULL, &n, &e), 0);
	return (size_t)n;
}

/* What goes wrong on the way leaves no guest off, nor tags of snapshots that were never made. */
static void interrupted(void **state)
{
	static const char tagged[] = "&TagSpecification.1.ResourceType=snapshot&TagSpecification.1.Tag.1.Key=a";
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	struct error e = {0};
	const char *instance = an_instance(f);

	const char *id = create(f, instance, tagged);
	assert_int_equal(tag_count(f), 2);
	assert_string_equal(call(f, &reply, "Action=DeregisterImage&ImageId=%s", id), "");
	assert_string_equal(wanted_of(f, instance), "running");
	assert_int_equal(tag_count(f), 0);

	/* a volume that is gone */
	id = create(f, instance, tagged);
	const char *volume = fixture_get_image(f, id)->block_devices.items[1].volume_id;
	assert_int_equal(record_delete(&f->clc, KIND_VOLUME, volume, &e), 0);
	node_reports(f, instance, "stopped");
	steps(f, id);
	assert_string_equal(fixture_get_image(f, id)->state, "failed");
	assert_null(fixture_get_snapshot(f, snapshot_of(f, id, 0)));
	assert_string_equal(wanted_of(f, instance), "running");
	assert_int_equal(tag_count(f), 0);

	/* an end */
	instance = an_instance(f);
	assert_string_equal(call(f, &reply, "Action=CreateImage&Name=last&InstanceId=%s%s", instance, tagged), "");
	id = fixture_element(f, reply.data, "imageId", 0);
	assert_string_equal(call(f, &reply, "Action=TerminateInstances&InstanceId.1=%s", instance), "");
	assert_string_equal(wanted_of(f, instance), "terminated");
	steps(f, id);
	assert_string_equal(fixture_get_image(f, id)->state, "failed");
	assert_int_equal(tag_count(f), 0);
}

/* A user's stop wins: the guest stays off when the image has what it needs. */
static void stopped_meanwhile(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *instance = an_instance(f);
	const char *id = create(f, instance, "");

	assert_string_equal(call(f, &reply, "Action=StopInstances&InstanceId.1=%s", instance), "");
	node_reports(f, instance, "stopped");
	assert_string_equal(fixture_instance(f, instance)->state, "stopped");
	steps(f, id);
	snapshot_becomes(f, snapshot_of(f, id, 0), SNAPSHOT_COMPLETED);
	snapshot_becomes(f, snapshot_of(f, id, 1), SNAPSHOT_COMPLETED);
	steps(f, id);
	assert_string_equal(fixture_get_image(f, id)->state, "available");
	assert_string_equal(wanted_of(f, instance), "stopped");
	/* and of one that is off, at once */
	assert_string_equal(call(f, &reply, "Action=CreateImage&Name=off&InstanceId=%s", instance), "");
	id = fixture_element(f, reply.data, "imageId", 0);
	assert_null(fixture_get_image(f, id)->create_phase);
	assert_non_null(fixture_get_snapshot(f, snapshot_of(f, id, 0)));
}

static void copy(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *from = fixture_ebs_image(f, &f->account, 2);

	assert_string_equal(call(f, &reply,
				 "Action=CopyImage&SourceRegion=us-east-1&SourceImageId=%s&Name=copy",
				 from),
			    "");
	const char *id = fixture_element(f, reply.data, "imageId", 0);
	const char *snapshot = snapshot_of(f, id, 0);
	assert_string_equal(fixture_get_snapshot(f, snapshot)->copy_of, snapshot_of(f, from, 0));
	snapshot_becomes(f, snapshot, SNAPSHOT_COMPLETED);
	steps(f, id);
	assert_string_equal(fixture_get_image(f, id)->state, "available");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(register_of_snapshots),
	    TEST(local_disks_are_merged),
	    TEST(register_refusals),
	    TEST(import_task),
	    TEST(create_without_reboot),
	    TEST(create_of_a_growing_volume),
	    TEST(create_with_snapshots_pending),
	    TEST(create_changes_no_encryption),
	    TEST(create_with_reboot),
	    TEST(old_report_makes_no_snapshot),
	    TEST(failed_snapshot_fails_the_image),
	    TEST(interrupted),
	    TEST(stopped_meanwhile),
	    TEST(copy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
