/* SPDX-License-Identifier: Apache-2.0 */
/* What is encrypted, and what the storage controller is told of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/text.h"
#include "svc/clc/reconcile.h"
#include "svc/clc/testing.h"
#include "svc/clc/volumes.h"

static struct buf reply; /* of the last call; freed by main */

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

static const char *call(struct fixture *f, const char *fmt, ...) _printf_(2, 3);
static const char *call(struct fixture *f, const char *fmt, ...)
{
	_cleanup_(buf_done) struct buf query = BUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	buf_vprintf(&query, fmt, ap);
	va_end(ap);
	return fixture_call(f, &f->account, query.data, &reply);
}

static const char *element(struct fixture *f, const char *name)
{
	return fixture_element(f, reply.data, name, 0);
}

static const char *create(struct fixture *f, const char *more, const char *encrypted)
{
	assert_string_equal(call(f, "Action=CreateVolume&AvailabilityZone=%s&%s", f->clc.zone, more), "");
	assert_string_equal(element(f, "encrypted"), encrypted);
	return element(f, "volumeId");
}

/* The volume exists now. */
static void be_available(struct fixture *f, const char *id)
{
	struct records_volume *v = fixture_get_volume(f, id);
	struct error e = {0};

	volume_enter(v, VOLUME_AVAILABLE, 1);
	assert_int_equal(volume_store(&f->clc, v, false, &e), 0);
}

static void be_completed(struct fixture *f, const char *id)
{
	struct records_snapshot *s = fixture_get_snapshot(f, id);
	struct error e = {0};

	s->state = snapshot_state_name(SNAPSHOT_COMPLETED);
	assert_int_equal(snapshot_store(&f->clc, s, false, &e), 0);
}

static bool told_encrypted(struct fixture *f, const char *volume)
{
	struct storage_volume_spec spec;
	struct error e = {0};

	assert_int_equal(volume_spec(&f->clc, f->arena, fixture_get_volume(f, volume), &spec, &e), 0);
	return spec.encrypted.value;
}

static bool told_encrypted_snapshot(struct fixture *f, const char *id)
{
	struct storage_snapshot_spec spec;
	struct error e = {0};

	assert_int_equal(snapshot_spec(&f->clc, f->arena, fixture_get_snapshot(f, id), &spec, &e), 0);
	return spec.encrypted.value;
}

static const char *copy(struct fixture *f, const char *of, const char *more)
{
	assert_string_equal(call(f, "Action=CopySnapshot&SourceRegion=us-east-1&SourceSnapshotId=%s%s", of, more), "");
	return element(f, "snapshotId");
}

static void asked_for(void **state)
{
	struct fixture *f = *state;
	const char *plain = create(f, "Size=1&Encrypted=false", "false");
	const char *v = create(f, "Size=1&Encrypted=true", "true");

	create(f, "Size=1&Encrypted=true&KmsKeyId=alias/aws/ebs", "true");
	create(f, "Size=1&Encrypted=true&KmsKeyId=arn:aws:kms:us-east-1:123456789012:alias/aws/ebs", "true");
	assert_true(told_encrypted(f, v));
	assert_false(told_encrypted(f, plain));
	assert_string_equal(call(f, "Action=DescribeVolumes&VolumeId.1=%s", v), "");
	assert_string_equal(element(f, "encrypted"), "true");
	assert_string_equal(call(f, "Action=DescribeVolumes&Filter.1.Name=encrypted&Filter.1.Value.1=false"), "");
	assert_string_equal(element(f, "volumeId"), plain);
}

/* A snapshot is what its volume is; and so is what is made of it. */
static void inherited(void **state)
{
	struct fixture *f = *state;
	const char *v = create(f, "Size=1&Encrypted=true", "true");

	be_available(f, v);
	assert_string_equal(call(f, "Action=CreateSnapshot&VolumeId=%s", v), "");
	assert_string_equal(element(f, "encrypted"), "true");
	const char *s = element(f, "snapshotId");
	assert_true(told_encrypted_snapshot(f, s));
	be_completed(f, s);
	assert_string_equal(call(f, "Action=DescribeSnapshots&SnapshotId.1=%s", s), "");
	assert_string_equal(element(f, "encrypted"), "true");
	const char *of = arena_printf(f->arena, "SnapshotId=%s", s);
	assert_true(told_encrypted(f, create(f, of, "true")));
	create(f, arena_printf(f->arena, "%s&Encrypted=false", of), "true");
	assert_true(told_encrypted_snapshot(f, copy(f, s, "")));
	/* Nobody else may have it. */
	assert_string_equal(call(f, "Action=ModifySnapshotAttribute&SnapshotId=%s&CreateVolumePermission.Add.1.Group=all", s),
			    "OperationNotPermitted");
	assert_string_equal(call(f, "Action=ModifySnapshotAttribute&SnapshotId=%s&CreateVolumePermission.Remove.1.Group=all", s), "");
}

/* A copy, and a volume, of what is plain may be encrypted. */
static void of_what_is_plain(void **state)
{
	struct fixture *f = *state;
	const char *s = fixture_snapshot(f, &f->account, 1);
	const char *of = arena_printf(f->arena, "SnapshotId=%s", s);

	assert_false(told_encrypted_snapshot(f, copy(f, s, "")));
	assert_true(told_encrypted_snapshot(f, copy(f, s, "&Encrypted=true")));
	assert_true(told_encrypted(f, create(f, arena_printf(f->arena, "%s&Encrypted=true", of), "true")));
	assert_false(told_encrypted(f, create(f, of, "false")));
}

/* As it was given, also by way of a snapshot; else the account's own, which is taken again. */
static void key_is_shown(void **state)
{
	struct fixture *f = *state;
	const char *own = arena_printf(f->arena, "arn:aws:kms:%s:%s:alias/aws/ebs", f->clc.region, f->account.record->account_id);
	static const char given[] = "arn:aws:kms:us-east-1:123456789012:alias/aws/ebs";

	create(f, "Size=1", "false");
	assert_null(element(f, "kmsKeyId"));
	create(f, "Size=1&Encrypted=true", "true");
	assert_string_equal(element(f, "kmsKeyId"), own);
	create(f, "Size=1&Encrypted=true&KmsKeyId=alias/aws/ebs", "true");
	assert_string_equal(element(f, "kmsKeyId"), own);
	const char *v = create(f, arena_printf(f->arena, "Size=1&Encrypted=true&KmsKeyId=%s", given), "true");
	assert_string_equal(element(f, "kmsKeyId"), given);
	assert_string_equal(call(f, "Action=DescribeVolumes&VolumeId.1=%s", v), "");
	assert_string_equal(element(f, "kmsKeyId"), given);
	be_available(f, v);
	assert_string_equal(call(f, "Action=CreateSnapshot&VolumeId=%s", v), "");
	assert_string_equal(element(f, "kmsKeyId"), given);
	const char *s = element(f, "snapshotId");
	be_completed(f, s);
	create(f, arena_printf(f->arena, "SnapshotId=%s", s), "true");
	assert_string_equal(element(f, "kmsKeyId"), given);
	assert_string_equal(call(f, "Action=DescribeSnapshots&SnapshotId.1=%s", copy(f, s, "")), "");
	assert_string_equal(element(f, "kmsKeyId"), own);
	assert_string_equal(call(f, "Action=DescribeSnapshots&SnapshotId.1=%s",
				 copy(f, s, arena_printf(f->arena, "&Encrypted=true&KmsKeyId=%s", given))),
			    "");
	assert_string_equal(element(f, "kmsKeyId"), given);
	assert_string_equal(call(f,
				 "Action=ImportSnapshot&DiskContainer.Format=RAW&DiskContainer.Url=s3://bucket/disk.raw&"
				 "Encrypted=true&KmsKeyId=%s",
				 given),
			    "");
	assert_string_equal(element(f, "kmsKeyId"), given);
}

static void of_a_launch(void **state)
{
	struct fixture *f = *state;
	const char *id;

	fixture_run(f, 1,
		    "&BlockDeviceMapping.1.DeviceName=/dev/sdf&BlockDeviceMapping.1.Ebs.VolumeSize=1&"
		    "BlockDeviceMapping.1.Ebs.Encrypted=true&"
		    "BlockDeviceMapping.1.Ebs.KmsKeyId=arn:aws:kms:us-east-1:123456789012:alias/aws/ebs",
		    &id);
	assert_string_equal(call(f, "Action=DescribeVolumes"), "");
	assert_string_equal(element(f, "kmsKeyId"), "arn:aws:kms:us-east-1:123456789012:alias/aws/ebs");
	assert_string_equal(element(f, "encrypted"), "true");
	assert_true(told_encrypted(f, element(f, "volumeId")));
}

static void by_default(void **state)
{
	struct fixture *f = *state;
	const char *s = fixture_snapshot(f, &f->account, 1);

	assert_string_equal(call(f, "Action=GetEbsEncryptionByDefault"), "");
	assert_string_equal(element(f, "ebsEncryptionByDefault"), "false");
	assert_string_equal(call(f, "Action=EnableEbsEncryptionByDefault&DryRun=true"), "DryRunOperation");
	create(f, "Size=1", "false");
	assert_string_equal(call(f, "Action=EnableEbsEncryptionByDefault"), "");
	assert_string_equal(element(f, "ebsEncryptionByDefault"), "true");
	assert_string_equal(call(f, "Action=GetEbsEncryptionByDefault"), "");
	assert_string_equal(element(f, "ebsEncryptionByDefault"), "true");
	create(f, "Size=1", "true");
	create(f, "Size=1&Encrypted=false", "true");
	assert_true(told_encrypted_snapshot(f, copy(f, s, "")));
	assert_string_equal(call(f, "Action=DisableEbsEncryptionByDefault"), "");
	assert_string_equal(element(f, "ebsEncryptionByDefault"), "false");
	create(f, "Size=1", "false");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(asked_for, setup, teardown),
	    cmocka_unit_test_setup_teardown(inherited, setup, teardown),
	    cmocka_unit_test_setup_teardown(of_what_is_plain, setup, teardown),
	    cmocka_unit_test_setup_teardown(key_is_shown, setup, teardown),
	    cmocka_unit_test_setup_teardown(of_a_launch, setup, teardown),
	    cmocka_unit_test_setup_teardown(by_default, setup, teardown),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);

	buf_done(&reply);
	return r;
}
