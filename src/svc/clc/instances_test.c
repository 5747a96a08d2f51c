/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/text.h"
#include "gen/ec2.h"
#include "svc/clc/inventory.h"
#include "svc/clc/testing.h"

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

static const char *call(struct fixture *f, const char *query, struct buf *reply)
{
	return fixture_call(f, &f->account, query, reply);
}

/*
 * Every served action as a dry run of a request that would succeed: DryRunOperation, and not a bit
 * of the state changed. %i is a running instance, %a an image, both of the instance-store kind, %e and %b the same of EBS, %k a key
 * pair's name. The table is checked to be complete.
 */
static const char *const dry_runs[] = {
    "AttachVolume&VolumeId=%v&InstanceId=%i&Device=%2Fdev%2Fsdk",
    "CopyImage&SourceImageId=%b&SourceRegion=us-east-1&Name=copy",
    "CopySnapshot&SourceRegion=us-east-1&SourceSnapshotId=%s",
    "CreateImage&InstanceId=%e&Name=made",
    "CreateKeyPair&KeyName=new",
    "CreateSnapshot&VolumeId=%v",
    "CreateTags&ResourceId.1=%i&Tag.1.Key=a&Tag.1.Value=b",
    "CreateVolume&AvailabilityZone=us-east-1a&Size=1",
    "DeleteKeyPair&KeyName=%k",
    "DeleteSnapshot&SnapshotId=%s",
    "DeleteTags&ResourceId.1=%i",
    "DeleteVolume&VolumeId=%v",
    "DeregisterImage&ImageId=%a",
    "DescribeAccountAttributes",
    "DescribeAvailabilityZones",
    "DescribeImageAttribute&ImageId=%a&Attribute=description",
    "DescribeImages",
    "DescribeImportSnapshotTasks",
    "DescribeInstanceAttribute&InstanceId=%i&Attribute=userData",
    "DescribeInstanceStatus",
    "DescribeInstanceTypes",
    "DescribeInstances",
    "DescribeKeyPairs",
    "DescribeRegions",
    "DescribeSnapshotAttribute&SnapshotId=%s&Attribute=createVolumePermission",
    "DescribeSnapshots",
    "DescribeSubnets",
    "DescribeTags",
    "DescribeVolumeAttribute&VolumeId=%v&Attribute=autoEnableIO",
    "DescribeVolumeStatus",
    "DescribeVolumes",
    "DescribeVolumesModifications",
    "DescribeVpcs",
    "DetachVolume&VolumeId=%x",
    "DisableEbsEncryptionByDefault",
    "EnableEbsEncryptionByDefault",
    "GetEbsEncryptionByDefault",
    "GetConsoleOutput&InstanceId=%i",
    "ImportKeyPair&KeyName=other&PublicKeyMaterial="
    "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUJERVZoOVJLbWZHYjV3ZzFneFZ6SDJzN0F2NEo0Yk5"
    "pUWNUd3JXeFlRUjAgeAo%3D",
    "ImportSnapshot&DiskContainer.Format=RAW&DiskContainer.Url=s3%3A%2F%2Fbucket%2Fkey",
    "ModifyImageAttribute&ImageId=%a&Description.Value=new",
    "ModifyInstanceAttribute&InstanceId=%i&DisableApiTermination.Value=true",
    "ModifyInstanceMetadataOptions&InstanceId=%i&HttpTokens=required",
    "ModifySnapshotAttribute&SnapshotId=%s&CreateVolumePermission.Add.1.Group=all",
    "ModifyVolume&VolumeId=%v&Size=2",
    "ModifyVolumeAttribute&VolumeId=%v&AutoEnableIO.Value=true",
    "RebootInstances&InstanceId.1=%i",
    "RegisterImage&Name=other&ImageLocation=images%2Ftiny.raw",
    "ResetImageAttribute&ImageId=%a&Attribute=launchPermission",
    "ResetSnapshotAttribute&SnapshotId=%s&Attribute=createVolumePermission",
    "RunInstances&ImageId=%a&InstanceType=t2.nano&MinCount=1&MaxCount=1&ClientToken=dry&KeyName=%k",
    "StartInstances&InstanceId.1=%i",
    "StopInstances&InstanceId.1=%e",
    "TerminateInstances&InstanceId.1=%i",
};

/* What stands for %LETTER; NULL ends the list. */
struct word {
	char letter;
	const char *text;
};

static const char *fill_words(struct fixture *f, const char *pattern, const struct word *words)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;

	for (const char *p = pattern; *p; p++) {
		const struct word *w = words;

		while (p[0] == '%' && w->text && w->letter != p[1])
			w++;
		if (p[0] == '%' && w->text)
			buf_puts(&out, w->text), p++;
		else
			buf_putc(&out, *p);
	}
	return arena_strdup(f->arena, out.data);
}

static const char *fill(struct fixture *f, const char *pattern, const char *instance,
			const char *image)
{
	return fill_words(
	    f, pattern, (struct word[]){{'i', instance}, {'a', image}, {'k', "key"}, {0, NULL}});
}

static void dry_run_changes_nothing(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *id, *image = fixture_image(f, &f->account, 1 << 20);
	struct error e = {0};

	fixture_run(f, 1, "", &id);
	struct records_instance *rec = fixture_instance(f, id);
	rec->state = "running";
	record_put(&f->clc, KIND_INSTANCE, rec->account_id, id, NULL, rec, &e);
	const struct word words[] = {{'e', fixture_run_ebs(f, "")},
				     {'b', fixture_ebs_image(f, &f->account, 1)},
				     {'v', fixture_volume(f, 1)},
				     {'x', fixture_volume_of(f, id, "/dev/sdf")},
				     {'s', fixture_snapshot(f, &f->account, 1)},
				     {0, NULL}};
	assert_string_equal(call(f, "Action=CreateKeyPair&KeyName=key&KeyType=ed25519", &reply),
			    "");
	size_t addresses = inventory_free_addresses(f->clc.inventory);
	int64_t revision = state_revision(f->clc.state);
	for (size_t i = 0; i < ARRAY_SIZE(dry_runs); i++) {
		const char *query =
		    arena_printf(f->arena, "Action=%s&DryRun=true",
				 fill_words(f, fill(f, dry_runs[i], id, image), words));
		const char *code = call(f, query, &reply);

		if (!str_eq(code, "DryRunOperation"))
			print_error("%s: %s\n", dry_runs[i], code);
		assert_string_equal(code, "DryRunOperation");
		assert_int_equal(state_revision(f->clc.state), revision);
	}
	assert_int_equal(inventory_free_addresses(f->clc.inventory), addresses);
	assert_int_equal(f->cluster.applied, 0);
	/* What can never succeed has no dry run that does, either. */
	assert_string_equal(
	    call(f, fill(f, "Action=StopInstances&InstanceId.1=%i&DryRun=true", id, image), &reply),
	    "UnsupportedOperation");
}

static void dry_runs_are_complete(void **state)
{
	for (size_t i = 0; i < ec2_service.action_count; i++) {
		const char *name = ec2_service.actions[i].name;
		bool found = false;

		for (size_t j = 0; j < ARRAY_SIZE(dry_runs); j++) {
			size_t len = strcspn(dry_runs[j], "&");

			found |= strlen(name) == len && strncmp(dry_runs[j], name, len) == 0;
		}
		if (!found)
			print_error("no dry run of %s\n", name);
		assert_true(found);
	}
}

/* A dry run still says what is wrong with the request. */
static void dry_run_checks(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;

	assert_string_equal(call(f,
				 "Action=TerminateInstances&DryRun=true&InstanceId.1="
				 "i-00000000000000000",
				 &reply),
			    "InvalidInstanceID.NotFound");
	assert_string_equal(call(f, "Action=TerminateInstances&DryRun=true", &reply),
			    "MissingParameter");
	assert_string_equal(call(f, "Action=DescribeInstances&DryRun=maybe", &reply),
			    "InvalidParameterValue");
}

#define RUN "Action=RunInstances&ImageId=%a&"
#define ONE RUN "MinCount=1&MaxCount=1&"

static const struct {
	const char *query, *code;
} refusals[] = {
    {"", "MissingAction"},
    {"Action=", "MissingAction"},
    {"Action=RunInstance", "InvalidAction"},
    {"Action=CreateVpc&CidrBlock=10.0.0.0/16", "InvalidAction"},
    {"Action=RunInstances", "MissingParameter"},
    {"Action=RunInstances&MinCount=1&MaxCount=1", "MissingParameter"},
    {RUN "MinCount=1", "MissingParameter"},
    {RUN "MinCount=x&MaxCount=1", "InvalidParameterValue"},
    {RUN "MinCount=0&MaxCount=1", "InvalidParameterValue"},
    {RUN "MinCount=2&MaxCount=1", "InvalidParameterValue"},
    {RUN "MinCount=-1&MaxCount=-1", "InvalidParameterValue"},
    {"Action=RunInstances&MinCount=1&MaxCount=1&ImageId=tiny", "InvalidAMIID.Malformed"},
    {"Action=RunInstances&MinCount=1&MaxCount=1&ImageId=ami-00000000000000000",
     "InvalidAMIID.NotFound"},
    {ONE "InstanceType=t2.huge", "InvalidParameterValue"},
    {ONE "KeyName=missing", "InvalidKeyPair.NotFound"},
    {ONE "UserData=***", "InvalidUserData.Malformed"},
    {ONE "SubnetId=subnet-00000000000000000", "InvalidSubnetID.NotFound"},
    {ONE "SubnetId=mine", "InvalidSubnetID.Malformed"},
    {ONE "PrivateIpAddress=10.77.0.1", "InvalidParameterValue"},
    {ONE "PrivateIpAddress=10.78.0.1", "InvalidParameterValue"},
    {ONE "PrivateIpAddress=here", "InvalidParameterValue"},
    {RUN "MinCount=1&MaxCount=2&PrivateIpAddress=10.77.0.9", "InvalidParameterCombination"},
    {ONE "PrivateIpAddress=10.77.0.9&NetworkInterface.1.DeviceIndex=0",
     "InvalidParameterCombination"},
    {ONE "NetworkInterface.1.DeviceIndex=1", "InvalidParameterValue"},
    {ONE "NetworkInterface.1.DeviceIndex=0&NetworkInterface.2.DeviceIndex=1",
     "UnsupportedOperation"},
    {ONE "NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.AssociatePublicIpAddress=true",
     "UnsupportedOperation"},
    {ONE "NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.DeleteOnTermination=false",
     "UnsupportedOperation"},
    {ONE "Placement.AvailabilityZone=mars-1a", "InvalidParameterValue"},
    {ONE "EbsOptimized=true", "Unsupported"},
    {ONE "HibernationOptions.Configured=true", "UnsupportedHibernationConfiguration"},
    {ONE "CreditSpecification.CpuCredits=standard", "InvalidParameterValue"},
    {ONE "InstanceInitiatedShutdownBehavior=stop", "InvalidParameterCombination"},
    {ONE "InstanceInitiatedShutdownBehavior=explode", "InvalidParameterValue"},
    {ONE "MetadataOptions.HttpTokens=never", "InvalidParameterValue"},
    {ONE "MetadataOptions.HttpPutResponseHopLimit=65", "InvalidParameterValue"},
    {ONE "MetadataOptions.HttpPutResponseHopLimit=0", "InvalidParameterValue"},
    {ONE "MetadataOptions.InstanceMetadataTags=enabled&TagSpecification.1.ResourceType=instance&"
	 "TagSpecification.1.Tag.1.Key=a/b",
     "InvalidParameterValue"},
    {ONE "TagSpecification.1.ResourceType=planet&TagSpecification.1.Tag.1.Key=a",
     "InvalidParameterValue"},
    {ONE "IamInstanceProfile.Name=admin", "UnsupportedOperation"},
    {ONE "SecurityGroupId.1=sg-1", "UnsupportedOperation"},
    {ONE "Colour=green", "UnknownParameter"},
    {"Action=TerminateInstances&InstanceId.1=%i&InstanceId.2=i-00000000000000000",
     "InvalidInstanceID.NotFound"},
    {"Action=TerminateInstances&InstanceId.1=", "InvalidInstanceID.Malformed"},
    {"Action=TerminateInstances&InstanceId.1=i-xyz", "InvalidInstanceID.Malformed"},
    {"Action=TerminateInstances&InstanceId.1=%a", "InvalidInstanceID.Malformed"},
    {"Action=RebootInstances&InstanceId.1=%i", "IncorrectInstanceState"},
    {"Action=StartInstances&InstanceId.1=%i", "IncorrectInstanceState"},
    {"Action=StopInstances&InstanceId.1=%i", "UnsupportedOperation"},
    {"Action=DescribeInstances&InstanceId.1=i-00000000000000000", "InvalidInstanceID.NotFound"},
    {"Action=DescribeInstances&MaxResults=4", "InvalidParameterValue"},
    {"Action=DescribeInstances&MaxResults=1001", "InvalidParameterValue"},
    {"Action=DescribeInstances&MaxResults=10&InstanceId.1=%i", "InvalidParameterCombination"},
    {"Action=DescribeInstances&NextToken=forged", "InvalidNextToken"},
    {"Action=DescribeInstances&Filter.1.Name=colour&Filter.1.Value.1=red", "InvalidParameterValue"},
    {"Action=DescribeInstanceAttribute&InstanceId=%i&Attribute=colour", "InvalidParameterValue"},
    {"Action=DescribeInstanceAttribute&InstanceId=%i", "MissingParameter"},
    {"Action=ModifyInstanceAttribute&InstanceId=%i", "InvalidParameterCombination"},
    {"Action=ModifyInstanceAttribute&InstanceId=%i&Attribute=colour&Value=red",
     "InvalidParameterValue"},
    {"Action=ModifyInstanceAttribute&InstanceId=%i&Attribute=userData&Value=eA==",
     "IncorrectInstanceState"},
    {"Action=ModifyInstanceAttribute&InstanceId=%i&Attribute=kernel&Value=x",
     "UnsupportedOperation"},
    {"Action=StopInstances&InstanceId.1=%i&Hibernate=true", "UnsupportedHibernationConfiguration"},
    {"Action=CreateImage&InstanceId=%i&Name=made", "InvalidParameterValue"},
    {"Action=CopyImage&SourceImageId=%a&SourceRegion=us-east-1&Name=copy", "UnsupportedOperation"},
    {"Action=CopyImage&SourceImageId=%a&SourceRegion=mars-1&Name=copy", "InvalidRegion"},
    {"Action=ImportSnapshot", "MissingParameter"},
    {"Action=ImportSnapshot&DiskContainer.Format=VHD&DiskContainer.Url=s3://a/b",
     "InvalidParameterValue"},
    {"Action=ImportSnapshot&DiskContainer.Url=http://a/b", "InvalidParameterValue"},
    {"Action=ImportSnapshot&DiskContainer.Url=s3://a/", "InvalidParameterValue"},
    {"Action=ImportSnapshot&DiskContainer.Description=x", "InvalidParameterCombination"},
    {"Action=DescribeImportSnapshotTasks&ImportTaskId.1=import-snap-00000000000000000",
     "InvalidConversionTaskId"},
    {ONE "BlockDeviceMapping.1.DeviceName=/dev/sdf", "InvalidBlockDeviceMapping"},
    {ONE "BlockDeviceMapping.1.Ebs.VolumeSize=1", "MissingParameter"},
    {ONE "BlockDeviceMapping.1.DeviceName=disk&BlockDeviceMapping.1.Ebs.VolumeSize=1",
     "InvalidBlockDeviceMapping"},
    {ONE "BlockDeviceMapping.1.DeviceName=/dev/sda1&BlockDeviceMapping.1.Ebs.VolumeSize=1",
     "InvalidBlockDeviceMapping"},
    {ONE "BlockDeviceMapping.1.DeviceName=/dev/sdf&BlockDeviceMapping.1.Ebs.Encrypted=true",
     "MissingParameter"},
    {ONE "BlockDeviceMapping.1.DeviceName=/dev/sdf&BlockDeviceMapping.1.Ebs.VolumeType=gp2",
     "MissingParameter"},
    {ONE "BlockDeviceMapping.1.DeviceName=/dev/sdf&BlockDeviceMapping.1.Ebs.VolumeSize=1&"
	 "BlockDeviceMapping.1.Ebs.VolumeType=gp9",
     "InvalidParameterValue"},
    {ONE "BlockDeviceMapping.1.DeviceName=/dev/sdf&BlockDeviceMapping.1.Ebs.VolumeSize=1&"
	 "BlockDeviceMapping.2.DeviceName=/dev/sdf&BlockDeviceMapping.2.Ebs.VolumeSize=1",
     "InvalidBlockDeviceMapping"},
    {ONE "BlockDeviceMapping.1.DeviceName=/dev/sdf&"
	 "BlockDeviceMapping.1.Ebs.SnapshotId=snap-00000000000000000",
     "InvalidSnapshot.NotFound"},
    {ONE "BlockDeviceMapping.1.DeviceName=/dev/sdf&BlockDeviceMapping.1.VirtualName=floppy0",
     "InvalidBlockDeviceMapping"},
    {"Action=ModifyInstanceAttribute&InstanceId=%i&BlockDeviceMapping.1.DeviceName=/dev/sdz&"
     "BlockDeviceMapping.1.Ebs.DeleteOnTermination=true",
     "InvalidInstanceAttributeValue"},
    {"Action=ModifyInstanceAttribute&InstanceId=%i&Value=true", "InvalidParameterValue"},
    {"Action=ModifyInstanceAttribute&InstanceId=%i&Attribute=disableApiTermination&Value=x",
     "InvalidParameterValue"},
    {"Action=ModifyInstanceAttribute&InstanceId=%i&Attribute=disableApiTermination",
     "InvalidParameterValue"},
    {"Action=ModifyInstanceAttribute&InstanceId=%i&InstanceInitiatedShutdownBehavior.Value=stop",
     "UnsupportedOperation"},
    {"Action=ModifyInstanceAttribute&InstanceId=%i&InstanceInitiatedShutdownBehavior.Value=x",
     "InvalidParameterValue"},
    {"Action=ModifyInstanceAttribute&InstanceId=%i&DisableApiTermination.Value=true&"
     "InstanceInitiatedShutdownBehavior.Value=terminate",
     "InvalidParameterCombination"},
    {"Action=ModifyInstanceAttribute&InstanceId=%i&InstanceType.Value=t2.micro",
     "IncorrectInstanceState"},
    {"Action=ModifyInstanceAttribute&InstanceId=i-00000000000000000&"
     "DisableApiTermination.Value=true",
     "InvalidInstanceID.NotFound"},
    {"Action=ModifyInstanceMetadataOptions&InstanceId=%i", "InvalidParameterCombination"},
    {"Action=ModifyInstanceMetadataOptions&InstanceId=%i&HttpTokens=x", "InvalidParameterValue"},
    {"Action=ModifyInstanceMetadataOptions&InstanceId=%i&HttpProtocolIpv6=enabled", NULL},
    {"Action=GetConsoleOutput&InstanceId=i-00000000000000000", "InvalidInstanceID.NotFound"},
    {"Action=GetConsoleOutput", "MissingParameter"},
};

/* NULL as a code: any error will do. */
static void bad_requests(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *id, *image = fixture_image(f, &f->account, 1 << 20);

	fixture_run(f, 1, "", &id);
	int64_t revision = state_revision(f->clc.state);
	size_t addresses = inventory_free_addresses(f->clc.inventory), wrong = 0;
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		const char *want = refusals[i].code;
		const char *code = call(f, fill(f, refusals[i].query, id, image), &reply);

		if (want ? !str_eq(code, want) : str_eq(code, "")) {
			print_error("%s: %s, not %s\n", refusals[i].query, code, want);
			wrong++;
		}
	}
	assert_int_equal(wrong, 0);
	assert_int_equal(state_revision(f->clc.state), revision);
	assert_int_equal(inventory_free_addresses(f->clc.inventory), addresses);
	assert_string_equal(fixture_instance(f, id)->state, "pending");
}

static void image_must_fit(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *image = fixture_image(f, &f->account, (INT64_C(1) << 30) + 1);

	assert_string_equal(call(f, fill(f, ONE "InstanceType=t2.nano", "", image), &reply),
			    "InvalidParameterCombination");
	assert_string_equal(call(f, fill(f, ONE "InstanceType=t2.micro", "", image), &reply), "");
}

static void capacity(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *image = fixture_image(f, &f->account, 1);
	size_t addresses = inventory_free_addresses(f->clc.inventory);

	f->cluster.capacity = 3;
	assert_string_equal(call(f, fill(f, RUN "MinCount=4&MaxCount=9", "", image), &reply),
			    "InsufficientInstanceCapacity");
	assert_int_equal(inventory_free_addresses(f->clc.inventory), addresses);
	/* as many as there is room for, between the two counts */
	assert_string_equal(call(f, fill(f, RUN "MinCount=2&MaxCount=9", "", image), &reply), "");
	assert_non_null(fixture_element(f, reply.data, "instanceId", 2));
	assert_null(fixture_element(f, reply.data, "instanceId", 3));
	assert_int_equal(inventory_free_addresses(f->clc.inventory), addresses - 3);
	f->cluster.fail = "ServiceUnavailable";
	assert_string_equal(call(f, fill(f, ONE "", "", image), &reply), "Unavailable");
	assert_int_equal(inventory_free_addresses(f->clc.inventory), addresses - 3);
}

/* What Terraform sends of every instance, or of every t3, whether or not it was asked for. */
static void what_clients_send_unasked(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *image = fixture_image(f, &f->account, 1);

	assert_string_equal(call(f,
				 fill(f,
				      ONE "InstanceType=t3.nano&Placement.AvailabilityZone=&"
					  "HibernationOptions.Configured=false&"
					  "CreditSpecification.CpuCredits=unlimited&"
					  "Monitoring.Enabled=false&EbsOptimized=false",
				      "", image),
				 &reply),
			    "");
}

/* The record of a deregistered image stays while its instances live, for nobody to see. */
static void deregistered_images_take_no_tags(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *id, *image = fixture_image(f, &f->account, 1);

	assert_string_equal(call(f, fill(f, ONE "InstanceType=t2.nano", "", image), &reply), "");
	id = fixture_element(f, reply.data, "instanceId", 0);
	assert_string_equal(
	    call(f, fill(f, "Action=DeregisterImage&ImageId=%a", id, image), &reply), "");
	assert_string_equal(
	    call(f, fill(f, "Action=CreateTags&ResourceId.1=%a&Tag.1.Key=a", id, image), &reply),
	    "InvalidAMIID.NotFound");
	assert_string_equal(
	    call(f, fill(f, "Action=DeleteTags&ResourceId.1=%a&Tag.1.Key=a", id, image), &reply),
	    "InvalidAMIID.NotFound");
}

/* Images page as other things do, though only newer models say so. */
static void images_page(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *query = "Action=DescribeImages&MaxResults=2", *token = NULL;
	size_t seen = 0;

	for (int i = 0; i < 5; i++)
		fixture_image(f, &f->account, 1);
	for (int page = 0; page < 3; page++) {
		assert_string_equal(call(f, query, &reply), "");
		for (size_t n = 0; fixture_element(f, reply.data, "imageId", n); n++)
			seen++;
		token = fixture_element(f, reply.data, "nextToken", 0);
		assert_int_equal(token != NULL, page < 2);
		if (token)
			query = arena_printf(f->arena,
					     "Action=DescribeImages&MaxResults=2&NextToken=%s",
					     uri_encode(f->arena, token, strlen(token), false));
	}
	assert_int_equal(seen, 5);
}

static void client_token(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	struct account other;
	struct error e = {0};
	const char *image = fixture_image(f, &f->account, 1);
	const char *query = fill(f, ONE "ClientToken=t1&InstanceType=t2.nano", "", image);

	assert_string_equal(call(f, query, &reply), "");
	const char *first = fixture_element(f, reply.data, "instanceId", 0);
	const char *reservation = fixture_element(f, reply.data, "reservationId", 0);
	assert_string_equal(call(f, query, &reply), "");
	assert_string_equal(fixture_element(f, reply.data, "instanceId", 0), first);
	assert_string_equal(fixture_element(f, reply.data, "reservationId", 0), reservation);
	assert_string_equal(
	    call(f, fill(f, ONE "ClientToken=t1&InstanceType=t2.micro", "", image), &reply),
	    "IdempotentParameterMismatch");
	assert_string_equal(call(f, arena_printf(f->arena, "%s&DryRun=true", query), &reply),
			    "DryRunOperation");
	/* the same answer even without its image */
	assert_int_equal(record_delete(&f->clc, KIND_IMAGE, image, &e), 0);
	assert_string_equal(call(f, query, &reply), "");
	assert_string_equal(fixture_element(f, reply.data, "instanceId", 0), first);
	/* another account's token is another token */
	assert_int_equal(account_create(&f->clc, f->arena, "other", &other, &e), 0);
	assert_string_equal(fixture_call(f, &other, query, &reply), "InvalidAMIID.NotFound");
}

static void accounts_do_not_see_each_other(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	struct account other;
	struct error e = {0};
	const char *id, *image = fixture_image(f, &f->account, 1);
	static const char *const by_id[] = {
	    "Action=DescribeInstances&InstanceId.1=%i",
	    "Action=DescribeInstanceStatus&InstanceId.1=%i",
	    "Action=TerminateInstances&InstanceId.1=%i",
	    "Action=RebootInstances&InstanceId.1=%i",
	    "Action=GetConsoleOutput&InstanceId=%i",
	    "Action=DescribeInstanceAttribute&InstanceId=%i&Attribute=userData",
	    "Action=ModifyInstanceMetadataOptions&InstanceId=%i&HttpTokens=required",
	    "Action=CreateTags&ResourceId.1=%i&Tag.1.Key=a&Tag.1.Value=b",
	};

	fixture_run(f, 1, "", &id);
	assert_int_equal(account_create(&f->clc, f->arena, "other", &other, &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(by_id); i++)
		assert_string_equal(fixture_call(f, &other, fill(f, by_id[i], id, image), &reply),
				    "InvalidInstanceID.NotFound");
	assert_string_equal(fixture_call(f, &other, "Action=DescribeInstances", &reply), "");
	assert_null(fixture_element(f, reply.data, "instanceId", 0));
	assert_string_equal(fixture_call(f, &other, fill(f, ONE "", id, image), &reply),
			    "InvalidAMIID.NotFound");
	assert_string_equal(fixture_instance(f, id)->state, "pending");
}

static void pages(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *ids[12], *token = NULL;
	size_t seen = 0, page_count = 0;

	fixture_run(f, 12, "", ids);
	do {
		const char *query =
		    arena_printf(f->arena, "Action=DescribeInstances&MaxResults=5%s%s",
				 token ? "&NextToken=" : "",
				 token ? uri_encode(f->arena, token, strlen(token), false) : "");
		assert_string_equal(call(f, query, &reply), "");
		for (size_t i = 0; i < 5 && seen < 12; i++)
			assert_string_equal(fixture_element(f, reply.data, "instanceId", i),
					    ids[seen++]);
		token = fixture_element(f, reply.data, "nextToken", 0);
		page_count++;
	} while (token);
	assert_int_equal(seen, 12);
	assert_int_equal(page_count, 3);
	/* a page that is just full and the last has no token */
	assert_string_equal(call(f, "Action=DescribeInstances&MaxResults=12", &reply), "");
	assert_null(fixture_element(f, reply.data, "nextToken", 0));
}

static void termination_protection(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	const char *ids[2];

	fixture_run(f, 1, "&DisableApiTermination=true", &ids[0]);
	fixture_run(f, 1, "", &ids[1]);
	/* all or nothing */
	assert_string_equal(
	    call(f,
		 arena_printf(f->arena, "Action=TerminateInstances&InstanceId.1=%s&InstanceId.2=%s",
			      ids[1], ids[0]),
		 &reply),
	    "OperationNotPermitted");
	assert_string_equal(fixture_instance(f, ids[1])->state, "pending");
	/* either form takes it off */
	static const char *const forms[] = {"DisableApiTermination.Value=false",
					    "Attribute=disableApiTermination&Value=False"};
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		const char *one = arena_printf(f->arena,
					       "Action=TerminateInstances&DryRun=true&"
					       "InstanceId.1=%s",
					       ids[0]);

		assert_string_equal(
		    call(f,
			 arena_printf(f->arena,
				      "Action=ModifyInstanceAttribute&InstanceId=%s&"
				      "DisableApiTermination.Value=true",
				      ids[0]),
			 &reply),
		    "");
		assert_string_equal(call(f, one, &reply), "OperationNotPermitted");
		assert_string_equal(
		    call(f,
			 arena_printf(f->arena, "Action=ModifyInstanceAttribute&InstanceId=%s&%s",
				      ids[0], forms[i]),
			 &reply),
		    "");
		assert_string_equal(call(f, one, &reply), "DryRunOperation");
	}
	/* named twice is named once */
	assert_string_equal(
	    call(f,
		 arena_printf(f->arena, "Action=TerminateInstances&InstanceId.1=%s&InstanceId.2=%s",
			      ids[1], ids[1]),
		 &reply),
	    "");
	assert_null(fixture_element(f, reply.data, "instanceId", 1));
	assert_string_equal(fixture_element(f, reply.data, "name", 0), "shutting-down");
	assert_string_equal(fixture_element(f, reply.data, "name", 1), "pending");
}

/* One that went down with its host is stopped, and can be asked to run again. */
static void start_of_a_stopped_one(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	struct error e = {0};
	const char *id;

	fixture_run(f, 1, "", &id);
	struct records_instance *rec = fixture_instance(f, id);
	rec->state = "stopped";
	assert_int_equal(record_put(&f->clc, KIND_INSTANCE, rec->account_id, id, NULL, rec, &e), 0);
	assert_string_equal(
	    call(f, fill(f, "Action=RebootInstances&InstanceId.1=%i", id, ""), &reply),
	    "IncorrectInstanceState");
	assert_string_equal(
	    call(f, fill(f, "Action=StartInstances&InstanceId.1=%i", id, ""), &reply), "");
	assert_string_equal(fixture_element(f, reply.data, "name", 0), "pending");
	assert_string_equal(fixture_element(f, reply.data, "name", 1), "stopped");
	struct records_instance *now = fixture_instance(f, id);
	assert_string_equal(now->state, "pending");
	assert_string_equal(now->wanted, "running");
	assert_true(now->generation.value > rec->generation.value);
}

/* What a damaged or foreign record would mean is told, and takes nothing else down. */
static void damaged_record(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = *state;
	struct error e = {0};
	const char *id;

	fixture_run(f, 1, "", &id);
	const struct state_object o = {.kind = "instance",
				       .id = "i-00000000000000001",
				       .account = f->account.record->account_id,
				       .doc = "{\"InstanceId\": 5}"};
	assert_int_equal(state_put(f->clc.state, &o, &e), 0);
	assert_string_equal(
	    call(f, "Action=DescribeInstances&InstanceId.1=i-00000000000000001", &reply),
	    "InternalError");
	assert_string_equal(
	    call(f, fill(f, "Action=DescribeInstances&InstanceId.1=%i", id, ""), &reply), "");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(dry_run_changes_nothing),
	    cmocka_unit_test(dry_runs_are_complete),
	    TEST(dry_run_checks),
	    TEST(bad_requests),
	    TEST(image_must_fit),
	    TEST(capacity),
	    TEST(what_clients_send_unasked),
	    TEST(deregistered_images_take_no_tags),
	    TEST(images_page),
	    TEST(client_token),
	    TEST(accounts_do_not_see_each_other),
	    TEST(pages),
	    TEST(termination_protection),
	    TEST(start_of_a_stopped_one),
	    TEST(damaged_record),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
