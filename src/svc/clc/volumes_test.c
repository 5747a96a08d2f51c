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
#include "svc/clc/testing.h"
#include "svc/clc/volumes.h"

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

static struct buf reply; /* of the last call; freed by main */

/* %i, %v, %x, %z: an instance that runs, an available volume, one that it has, the zone. */
struct words {
	const char *i, *v, *x, *z;
};

static const char *call(struct fixture *f, const char *pattern, const struct words *w)
{
	_cleanup_(buf_done) struct buf query = BUF_INIT;

	for (const char *p = pattern; *p; p++) {
		const char *word = p[0] != '%'	 ? NULL
				   : p[1] == 'i' ? w->i
				   : p[1] == 'v' ? w->v
				   : p[1] == 'x' ? w->x
				   : p[1] == 'z' ? w->z
						 : NULL;

		if (word)
			buf_puts(&query, word), p++;
		else
			buf_putc(&query, *p);
	}
	return fixture_call(f, &f->account, query.data, &reply);
}

static const char *element(struct fixture *f, const char *name, size_t n)
{
	return fixture_element(f, reply.data, name, n);
}

static void set_instance_state(struct fixture *f, const char *id, const char *state)
{
	struct records_instance *i = fixture_instance(f, id);
	struct error e = {0};

	i->state = state;
	assert_int_equal(record_put(&f->clc, KIND_INSTANCE, i->account_id, id, NULL, i, &e), 0);
}

static void set_volume_state(struct fixture *f, const char *id, enum volume_state s)
{
	struct records_volume *v = fixture_get_volume(f, id);
	struct error e = {0};

	volume_enter(v, s, clock_unix_ms());
	assert_int_equal(volume_store(&f->clc, v, false, &e), 0);
}

static struct words make_words(struct fixture *f)
{
	struct words w = {.z = f->clc.zone, .v = fixture_volume(f, 4)};

	fixture_run(f, 1, "", &w.i);
	set_instance_state(f, w.i, "running");
	w.x = fixture_volume_of(f, w.i, "/dev/sdf");
	return w;
}

#define CREATE "Action=CreateVolume&AvailabilityZone=%z&"
#define ATTACH "Action=AttachVolume&InstanceId=%i&"

static const struct {
	const char *query, *code;
} refusals[] = {
    {"Action=CreateVolume&Size=1", "MissingParameter"},
    {"Action=CreateVolume&Size=1&AvailabilityZone=us-east-9z", "InvalidZone.NotFound"},
    {CREATE "VolumeType=gp2", "MissingParameter"},
    {CREATE "Size=0", "InvalidParameterValue"},
    {CREATE "Size=-3", "InvalidParameterValue"},
    {CREATE "Size=16385", "InvalidParameterValue"},
    {CREATE "Size=many", "InvalidParameterValue"},
    {CREATE "Size=1&VolumeType=gp9", "UnknownVolumeType"},
    {CREATE "Size=1&VolumeType=st1", "InvalidParameterValue"},
    {CREATE "Size=10&VolumeType=io1", "MissingParameter"},
    {CREATE "Size=10&VolumeType=io1&Iops=501", "InvalidParameterValue"},
    {CREATE "Size=10&VolumeType=gp2&Iops=100", "InvalidParameterCombination"},
    {CREATE "Size=10&VolumeType=gp2&Throughput=200", "InvalidParameterCombination"},
    {CREATE "Size=10&VolumeType=gp3&Iops=0", "InvalidParameterValue"},
    {CREATE "Size=10&VolumeType=gp3&Throughput=1001", "InvalidParameterValue"},
    {CREATE "Size=1&Encrypted=true&KmsKeyId=mine", "InvalidParameterValue"},
    {CREATE "Size=1&KmsKeyId=alias/aws/ebs", "InvalidParameterDependency"},
    {CREATE "Size=1&MultiAttachEnabled=true", "UnsupportedOperation"},
    {CREATE "Size=1&OutpostArn=arn", "UnsupportedOperation"},
    {CREATE "SnapshotId=snap-00000000000000000", "InvalidSnapshot.NotFound"},
    {CREATE "SnapshotId=mine", "InvalidSnapshotID.Malformed"},
    {CREATE "Size=1&TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=a",
     "InvalidParameterValue"},
    {"Action=DescribeVolumes&VolumeId.1=vol-00000000000000000", "InvalidVolume.NotFound"},
    {"Action=DescribeVolumes&VolumeId.1=mine", "InvalidVolumeID.Malformed"},
    {"Action=DescribeVolumes&MaxResults=4", "InvalidParameterValue"},
    {"Action=DescribeVolumeStatus&MaxResults=4", "InvalidParameterValue"},
    {"Action=DescribeVolumes&MaxResults=5&VolumeId.1=%v", "InvalidParameterCombination"},
    {"Action=DescribeVolumes&NextToken=x", "InvalidNextToken"},
    {"Action=DescribeVolumes&Filter.1.Name=colour&Filter.1.Value.1=red", "InvalidParameterValue"},
    {"Action=DescribeVolumeStatus&VolumeId.1=vol-00000000000000000", "InvalidVolume.NotFound"},
    {"Action=DescribeVolumeAttribute&VolumeId=%v&Attribute=colour", "InvalidParameterValue"},
    {"Action=DescribeVolumesModifications&VolumeId.1=%v", "InvalidVolumeModification.NotFound"},
    {"Action=ModifyVolumeAttribute&VolumeId=%v", "MissingParameter"},
    {"Action=ModifyVolume&VolumeId=%v", "MissingParameter"},
    {"Action=ModifyVolume&VolumeId=%v&Size=3", "InvalidParameterValue"},
    {"Action=ModifyVolume&VolumeId=%v&Size=16385", "InvalidParameterValue"},
    {"Action=ModifyVolume&VolumeId=%v&VolumeType=gp9", "UnknownVolumeType"},
    {"Action=ModifyVolume&VolumeId=%v&Iops=3000", "InvalidParameterCombination"},
    {"Action=ModifyVolume&VolumeId=%v&MultiAttachEnabled=true", "UnsupportedOperation"},
    {"Action=ModifyVolume&VolumeId=vol-00000000000000000&Size=9", "InvalidVolume.NotFound"},
    {ATTACH "VolumeId=%v", "MissingParameter"},
    {ATTACH "VolumeId=%v&Device=", "InvalidParameterValue"},
    {ATTACH "VolumeId=%v&Device=/dev/sd", "InvalidParameterValue"},
    {ATTACH "VolumeId=%v&Device=/dev/nvme1n1", "InvalidParameterValue"},
    {ATTACH "VolumeId=%v&Device=/dev/sdf/../sdg", "InvalidParameterValue"},
    {ATTACH "VolumeId=%v&Device=/dev/sdf", "InvalidParameterValue"},
    {ATTACH "VolumeId=%v&Device=/dev/sda1", "InvalidParameterValue"},
    {ATTACH "VolumeId=%x&Device=/dev/sdg", "VolumeInUse"},
    {ATTACH "VolumeId=vol-00000000000000000&Device=/dev/sdg", "InvalidVolume.NotFound"},
    {"Action=AttachVolume&InstanceId=i-00000000000000000&VolumeId=%v&Device=/dev/sdg",
     "InvalidInstanceID.NotFound"},
    {"Action=DetachVolume&VolumeId=%v", "IncorrectState"},
    {"Action=DetachVolume&VolumeId=vol-00000000000000000", "InvalidVolume.NotFound"},
    {"Action=DetachVolume&VolumeId=%x&InstanceId=i-00000000000000000",
     "InvalidInstanceID.NotFound"},
    {"Action=DetachVolume&VolumeId=%x&Device=/dev/sdz", "InvalidAttachment.NotFound"},
    {"Action=DeleteVolume&VolumeId=%x", "VolumeInUse"},
    {"Action=DeleteVolume&VolumeId=vol-00000000000000000", "InvalidVolume.NotFound"},
    {"Action=DeleteVolume", "MissingParameter"},
};

static void bad_requests_are_refused(void **state)
{
	struct fixture *f = *state;
	const struct words w = make_words(f);
	int64_t revision = state_revision(f->clc.state);

	for (size_t n = 0; n < ARRAY_SIZE(refusals); n++) {
		const char *code = call(f, refusals[n].query, &w);

		if (!str_eq(code, refusals[n].code))
			print_error("%s: '%s', not %s\n", refusals[n].query, code, refusals[n].code);
		assert_string_equal(code, refusals[n].code);
	}
	assert_int_equal(state_revision(f->clc.state), revision);
}

static void another_account_sees_nothing(void **state)
{
	struct fixture *f = *state;
	const struct words w = make_words(f);
	struct account other;
	struct error e = {0};

	assert_int_equal(account_create(&f->clc, f->arena, "other", &other, &e), 0);
	f->account = other;
	assert_string_equal(call(f, "Action=DescribeVolumes", &w), "");
	assert_null(element(f, "volumeId", 0));
	assert_string_equal(call(f, "Action=DescribeVolumes&VolumeId.1=%v", &w),
			    "InvalidVolume.NotFound");
	assert_string_equal(call(f, "Action=DeleteVolume&VolumeId=%v", &w),
			    "InvalidVolume.NotFound");
	assert_string_equal(call(f, "Action=DetachVolume&VolumeId=%x", &w),
			    "InvalidVolume.NotFound");
}

static void defaults_are_ec2s(void **state)
{
	struct fixture *f = *state;
	const struct words w = {.z = f->clc.zone};

	assert_string_equal(call(f, CREATE "Size=10", &w), "");
	assert_string_equal(element(f, "volumeType", 0), "gp2");
	assert_string_equal(element(f, "status", 0), "creating");
	assert_string_equal(element(f, "size", 0), "10");
	assert_string_equal(element(f, "iops", 0), "100");
	assert_string_equal(element(f, "encrypted", 0), "false");
	assert_string_equal(element(f, "availabilityZone", 0), f->clc.zone);
	assert_null(element(f, "throughput", 0));
	assert_string_equal(call(f, CREATE "Size=10&VolumeType=gp3", &w), "");
	assert_string_equal(element(f, "iops", 0), "3000");
	assert_string_equal(element(f, "throughput", 0), "125");
	assert_string_equal(call(f, CREATE "Size=10&VolumeType=standard", &w), "");
	assert_null(element(f, "iops", 0));
}

static void token_makes_one_volume(void **state)
{
	struct fixture *f = *state;
	const struct words w = {.z = f->clc.zone};
	const char *with_tag = CREATE "Size=10&ClientToken=t&TagSpecification.1.ResourceType=volume&"
				      "TagSpecification.1.Tag.1.Key=k&"
				      "TagSpecification.1.Tag.1.Value=v";

	assert_string_equal(call(f, with_tag, &w), "");
	const char *id = element(f, "volumeId", 0);
	assert_string_equal(element(f, "key", 0), "k");
	set_volume_state(f, id, VOLUME_AVAILABLE);
	assert_string_equal(call(f, with_tag, &w), "");
	assert_string_equal(element(f, "volumeId", 0), id);
	assert_string_equal(element(f, "key", 0), "k");
	assert_string_equal(call(f, CREATE "Size=11&ClientToken=t", &w),
			    "IdempotentParameterMismatch");
	assert_string_equal(call(f, CREATE "Size=11&ClientToken=u", &w), "");
	assert_string_not_equal(element(f, "volumeId", 0), id);
	/* as it is by now */
	struct words x = {.v = id};
	fixture_run(f, 1, "", &x.i);
	set_instance_state(f, x.i, "running");
	assert_string_equal(call(f, ATTACH "VolumeId=%v&Device=/dev/sdf", &x), "");
	assert_string_equal(call(f, with_tag, &w), "");
	assert_string_equal(element(f, "instanceId", 0), x.i);
	assert_string_equal(element(f, "device", 0), "/dev/sdf");
	/* changes keep the token */
	assert_string_equal(call(f, "Action=ModifyVolume&Size=12&VolumeId=%v",
				 &(struct words){.v = id}),
			    "");
	assert_string_equal(call(f, with_tag, &w), "");
	assert_string_equal(element(f, "volumeId", 0), id);
}

static void volume_of_a_snapshot(void **state)
{
	struct fixture *f = *state;
	const char *snapshot = fixture_snapshot(f, &f->account, 8);
	const struct words w = {.z = f->clc.zone, .v = snapshot};
	struct error e = {0};

	assert_string_equal(call(f, CREATE "SnapshotId=%v", &w), "");
	assert_string_equal(element(f, "size", 0), "8");
	assert_string_equal(element(f, "snapshotId", 0), snapshot);
	assert_string_equal(call(f, CREATE "SnapshotId=%v&Size=9", &w), "");
	assert_string_equal(element(f, "size", 0), "9");
	assert_string_equal(call(f, CREATE "SnapshotId=%v&Size=7", &w), "InvalidParameterValue");
	struct records_snapshot *s = fixture_get_snapshot(f, snapshot);
	s->state = "pending";
	assert_int_equal(snapshot_store(&f->clc, s, false, &e), 0);
	assert_string_equal(call(f, CREATE "SnapshotId=%v", &w), "IncorrectState");
}

static void attachments_are_shown(void **state)
{
	struct fixture *f = *state;
	const struct words w = make_words(f);

	assert_string_equal(call(f, ATTACH "VolumeId=%v&Device=xvdg", &w), "");
	assert_string_equal(element(f, "status", 0), "attaching");
	assert_string_equal(element(f, "device", 0), "xvdg");
	assert_string_equal(element(f, "deleteOnTermination", 0), "false");
	assert_string_equal(call(f, "Action=DescribeVolumes&VolumeId.1=%v", &w), "");
	assert_string_equal(element(f, "instanceId", 0), w.i);
	assert_string_equal(element(f, "status", 0), "attaching");
	assert_string_equal(element(f, "status", 1), "in-use");
	assert_int_equal(fixture_get_volume(f, w.v)->attachment_generation.value, 1);
	const struct records_instance *i = fixture_instance(f, w.i);
	assert_int_equal(device_of_volume(i, w.x)->slot.value, 1);
	assert_int_equal(device_of_volume(i, w.v)->slot.value, 2);
	assert_string_equal(call(f,
				 "Action=DescribeVolumes&Filter.1.Name=attachment.device&"
				 "Filter.1.Value.1=xvdg&Filter.2.Name=attachment.instance-id&"
				 "Filter.2.Value.1=%i",
				 &w),
			    "");
	assert_string_equal(element(f, "volumeId", 0), w.v);
	assert_string_equal(call(f, "Action=DetachVolume&VolumeId=%v&InstanceId=%i&Device=xvdg", &w),
			    "");
	assert_string_equal(element(f, "status", 0), "detaching");
	/* asked again: the same answer, and nothing is sent anew */
	int64_t generation = fixture_instance(f, w.i)->generation.value;
	assert_string_equal(call(f, "Action=DetachVolume&VolumeId=%v", &w), "");
	assert_int_equal(fixture_instance(f, w.i)->generation.value, generation);
	assert_string_equal(call(f, "Action=DetachVolume&VolumeId=%v&Force=true", &w), "");
	assert_true(fixture_instance(f, w.i)->generation.value > generation);
}

static void instance_has_sixteen_slots(void **state)
{
	struct fixture *f = *state;
	struct words w = {.z = f->clc.zone};
	static const char query[] = ATTACH "VolumeId=%v&Device=/dev/sdz";

	fixture_run(f, 1, "", &w.i);
	set_instance_state(f, w.i, "stopped");
	for (int n = 0; n < LIMIT_DEVICES_PER_INSTANCE - 1; n++)
		fixture_volume_of(f, w.i, arena_printf(f->arena, "/dev/sd%c", 'f' + n));
	w.v = fixture_volume(f, 1);
	assert_string_equal(call(f, query, &w), "AttachmentLimitExceeded");
	/* the lowest slot that is free is taken again */
	struct records_instance *i = fixture_instance(f, w.i);
	struct error e = {0};
	device_remove(i, i->block_devices.items[4].volume_id);
	assert_int_equal(record_put(&f->clc, KIND_INSTANCE, i->account_id, w.i, NULL, i, &e), 0);
	assert_string_equal(call(f, query, &w), "");
	assert_int_equal(device_of_volume(fixture_instance(f, w.i), w.v)->slot.value, 5);
}

static void local_disks_take_slots(void **state)
{
	struct fixture *f = *state;
	struct ec2_call c = {.clc = &f->clc, .arena = f->arena};
	struct records_instance i = {.instance_id = "i-0", .local_disks = WIRE_INT_OF(12)};
	struct records_volume *v = fixture_get_volume(f, fixture_volume(f, 1));
	struct records_instance_block_device *d;

	for (int n = 0; n < 4; n++) {
		const struct attach_wish wish = {
		    .device_name = arena_printf(f->arena, "/dev/sd%c", 'f' + n)};

		assert_int_equal(device_attach(&c, &i, v, &wish, &d) < 0, n == 3);
		volume_enter(v, VOLUME_AVAILABLE, 0);
	}
	assert_string_equal(c.error.code, "AttachmentLimitExceeded");
	assert_non_null(strstr(c.error.message, "a boot disk and 3 others"));
}

static void states_that_refuse(void **state)
{
	struct fixture *f = *state;
	const struct words w = make_words(f);
	static const char *const bad[] = {"pending", "stopping", "shutting-down", "terminated"};
	static const char attach[] = ATTACH "VolumeId=%v&Device=/dev/sdg";

	for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
		set_instance_state(f, w.i, bad[n]);
		assert_string_equal(call(f, attach, &w), "IncorrectState");
	}
	assert_string_equal(call(f, "Action=DetachVolume&VolumeId=%x", &w), "IncorrectState");
	set_instance_state(f, w.i, "running");
	for (int s = 0; s < VOLUME_STATE_COUNT; s++) {
		if (s == VOLUME_AVAILABLE || s == VOLUME_IN_USE)
			continue;
		set_volume_state(f, w.v, (enum volume_state)s);
		assert_string_equal(call(f, attach, &w), "IncorrectState");
		assert_string_equal(call(f, "Action=ModifyVolume&VolumeId=%v&Size=9", &w),
				    "IncorrectState");
		assert_string_equal(call(f, "Action=CreateSnapshot&VolumeId=%v", &w),
				    "IncorrectState");
	}
	set_volume_state(f, w.v, VOLUME_CREATING);
	assert_string_equal(call(f, "Action=DeleteVolume&VolumeId=%v", &w), "IncorrectState");
	set_volume_state(f, w.v, VOLUME_ERROR);
	assert_string_equal(call(f, "Action=DeleteVolume&VolumeId=%v", &w), "");
	assert_string_equal(call(f, "Action=DeleteVolume&VolumeId=%v", &w), "");
	assert_string_equal(fixture_get_volume(f, w.v)->state, "deleting");
}

static void root_volume_stays_while_the_guest_runs(void **state)
{
	struct fixture *f = *state;
	struct words w = {.i = fixture_run_ebs(f, "")};
	const struct records_instance *i = fixture_instance(f, w.i);

	w.x = i->block_devices.items[0].volume_id;
	set_volume_state(f, w.x, VOLUME_IN_USE);
	assert_string_equal(call(f, "Action=DetachVolume&VolumeId=%x", &w),
			    "OperationNotPermitted");
	assert_string_equal(call(f, "Action=DetachVolume&VolumeId=%x&Force=true", &w),
			    "OperationNotPermitted");
	assert_string_equal(call(f, "Action=ModifyVolume&VolumeId=%x&VolumeType=st1&Size=125", &w),
			    "InvalidParameterValue");
	set_instance_state(f, w.i, "stopped");
	assert_string_equal(call(f, "Action=DetachVolume&VolumeId=%x", &w), "");
	/* and comes back as what it was */
	struct records_instance *rec = fixture_instance(f, w.i);
	struct records_volume *v = fixture_get_volume(f, w.x);
	struct error e = {0};
	device_remove(rec, w.x);
	volume_let_go(v, false, clock_unix_ms());
	assert_int_equal(record_put(&f->clc, KIND_INSTANCE, rec->account_id, w.i, NULL, rec, &e), 0);
	assert_int_equal(volume_store(&f->clc, v, true, &e), 0);
	assert_string_equal(call(f, ATTACH "VolumeId=%x&Device=/dev/sda1", &w), "");
	const struct records_instance_block_device *d =
	    device_of_volume(fixture_instance(f, w.i), w.x);
	assert_true(d->boot.value);
	assert_int_equal(d->slot.value, 0);
	assert_int_equal(d->generation.value, 2);
}

static void modification_is_shown(void **state)
{
	struct fixture *f = *state;
	const struct words w = make_words(f);

	assert_string_equal(call(f, "Action=DescribeVolumesModifications", &w), "");
	assert_null(element(f, "volumeId", 0));
	assert_string_equal(call(f, "Action=ModifyVolume&VolumeId=%v&VolumeType=gp3&Size=8", &w), "");
	assert_string_equal(element(f, "modificationState", 0), "modifying");
	assert_string_equal(element(f, "originalVolumeType", 0), "gp2");
	assert_string_equal(element(f, "originalSize", 0), "4");
	assert_string_equal(element(f, "targetSize", 0), "8");
	assert_string_equal(element(f, "targetIops", 0), "3000");
	assert_string_equal(element(f, "targetThroughput", 0), "125");
	assert_string_equal(call(f, "Action=ModifyVolume&VolumeId=%v&Size=9", &w),
			    "IncorrectModificationState");
	struct records_volume *v = fixture_get_volume(f, w.v);
	struct error e = {0};
	volume_modified(v, clock_unix_ms());
	assert_int_equal(volume_store(&f->clc, v, false, &e), 0);
	assert_string_equal(call(f,
				 "Action=DescribeVolumesModifications&Filter.1.Name="
				 "modification-state&Filter.1.Value.1=completed",
				 &w),
			    "");
	assert_string_equal(element(f, "volumeId", 0), w.v);
	assert_string_equal(element(f, "progress", 0), "100");
	/* within the type, what is not said stays */
	assert_string_equal(call(f, "Action=ModifyVolume&VolumeId=%v&Iops=4000", &w), "");
	assert_string_equal(element(f, "targetSize", 0), "8");
	assert_string_equal(element(f, "targetThroughput", 0), "125");
	assert_string_equal(element(f, "targetIops", 0), "4000");
}

static void status_and_attribute(void **state)
{
	struct fixture *f = *state;
	const struct words w = make_words(f);

	assert_string_equal(call(f, "Action=DescribeVolumeStatus&VolumeId.1=%v", &w), "");
	assert_non_null(strstr(reply.data, "<status>ok</status></volumeStatus>"));
	assert_string_equal(element(f, "name", 0), "io-enabled");
	set_volume_state(f, w.v, VOLUME_ERROR);
	assert_string_equal(call(f,
				 "Action=DescribeVolumeStatus&Filter.1.Name=volume-status.status&"
				 "Filter.1.Value.1=impaired",
				 &w),
			    "");
	assert_string_equal(element(f, "volumeId", 0), w.v);
	assert_null(element(f, "volumeId", 1));
	assert_string_equal(call(f, "Action=ModifyVolumeAttribute&VolumeId=%v&AutoEnableIO.Value=true",
				 &w),
			    "");
	assert_string_equal(
	    call(f, "Action=DescribeVolumeAttribute&VolumeId=%v&Attribute=autoEnableIO", &w), "");
	assert_non_null(strstr(reply.data, "<autoEnableIO><value>true</value></autoEnableIO>"));
}

/* So many volumes and snapshots, in one transaction: each of its own would wait for the disk. */
static void fill(struct fixture *f, int count)
{
	struct records_volume *v = fixture_get_volume(f, fixture_volume(f, 1));
	struct records_snapshot *s = fixture_get_snapshot(f, fixture_snapshot(f, &f->account, 1));
	struct error e = {0};
	char id[ID_LEN];

	assert_int_equal(state_begin(f->clc.state, &e), 0);
	for (int n = 1; n < count; n++) {
		id_new("vol", id);
		v->volume_id = id;
		assert_int_equal(record_put(&f->clc, KIND_VOLUME, v->account_id, id, NULL, v, &e), 0);
		id_new("snap", id);
		s->snapshot_id = id;
		assert_int_equal(record_put(&f->clc, KIND_SNAPSHOT, s->account_id, id, NULL, s, &e), 0);
	}
	assert_int_equal(state_commit(f->clc.state, &e), 0);
}

/* More than a page can have is asked for: a full page and a token are the answer. */
static void pages_have_a_most(void **state)
{
	static const char *const actions[] = {"DescribeVolumes", "DescribeVolumeStatus",
					      "DescribeSnapshots"};
	static const char *const items[] = {"volumeId", "volumeId", "snapshotId"};
	struct fixture *f = *state;
	struct words w = {.z = f->clc.zone};

	fill(f, 1001);
	for (size_t n = 0; n < ARRAY_SIZE(actions); n++) {
		const char *query = arena_printf(f->arena, "Action=%s&MaxResults=5000", actions[n]);

		assert_string_equal(call(f, query, &w), "");
		assert_non_null(element(f, items[n], 999));
		assert_null(element(f, items[n], 1000));
		const char *token = element(f, "nextToken", 0);
		assert_non_null(token);
		token = uri_encode(f->arena, token, strlen(token), false);
		assert_string_equal(
		    call(f, arena_printf(f->arena, "%s&NextToken=%s", query, token), &w), "");
		assert_non_null(element(f, items[n], 0));
		assert_null(element(f, items[n], 1));
		assert_null(element(f, "nextToken", 0));
	}
}

static void pages_and_tags(void **state)
{
	struct fixture *f = *state;
	struct words w = {.z = f->clc.zone};
	size_t seen = 0;
	const char *token = "";

	for (int n = 0; n < 12; n++)
		w.v = fixture_volume(f, n + 1);
	do {
		assert_string_equal(call(f,
					 arena_printf(f->arena,
						      "Action=DescribeVolumes&MaxResults=5%s%s",
						      *token ? "&NextToken=" : "", token),
					 &w),
				    "");
		while (element(f, "volumeId", seen % 5))
			if (++seen % 5 == 0)
				break;
		token = element(f, "nextToken", 0);
		if (token)
			token = uri_encode(f->arena, token, strlen(token), false);
	} while (token);
	assert_int_equal(seen, 12);
	assert_string_equal(
	    call(f, "Action=CreateTags&ResourceId.1=%v&Tag.1.Key=team&Tag.1.Value=blue", &w), "");
	assert_string_equal(
	    call(f, "Action=DescribeVolumes&Filter.1.Name=tag:team&Filter.1.Value.1=b*", &w), "");
	assert_string_equal(element(f, "volumeId", 0), w.v);
	assert_null(element(f, "volumeId", 1));
	assert_string_equal(element(f, "value", 0), "blue");
	assert_string_equal(call(f,
				 "Action=DescribeVolumes&Filter.1.Name=size&Filter.1.Value.1=3&"
				 "Filter.2.Name=status&Filter.2.Value.1=available",
				 &w),
			    "");
	assert_string_equal(element(f, "size", 0), "3");
	assert_null(element(f, "volumeId", 1));
}

static void device_names(void **state)
{
	static const char *const good[] = {"/dev/sdf", "/dev/sda1",  "/dev/xvdb", "/dev/xvdba",
					   "xvdh",     "/dev/sdf15", "sdz"};
	static const char *const bad[] = {"",	      "/dev/",	    "/dev/sd",	  "/dev/sdF",
					  "/dev/sdf150", "/dev/sdabc", "/dev/vdb", "/dev/sdf ",
					  "/dev/sd1",	 "../sdf"};

	for (size_t n = 0; n < ARRAY_SIZE(good); n++)
		assert_true(device_name_valid(good[n]));
	for (size_t n = 0; n < ARRAY_SIZE(bad); n++)
		assert_false(device_name_valid(bad[n]));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(bad_requests_are_refused),
	    TEST(another_account_sees_nothing),
	    TEST(defaults_are_ec2s),
	    TEST(token_makes_one_volume),
	    TEST(volume_of_a_snapshot),
	    TEST(attachments_are_shown),
	    TEST(instance_has_sixteen_slots),
	    TEST(local_disks_take_slots),
	    TEST(states_that_refuse),
	    TEST(root_volume_stays_while_the_guest_runs),
	    TEST(modification_is_shown),
	    TEST(status_and_attribute),
	    TEST(pages_have_a_most),
	    TEST(pages_and_tags),
	    cmocka_unit_test(device_names),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);

	buf_done(&reply);
	return r;
}
