# SPDX-License-Identifier: Apache-2.0
"""Images of snapshots, on the fake driver: imported, registered, made from instances, copied."""
import os

import pytest
from botocore.exceptions import ClientError

from lib.cloud import wait_for
from lib.ebs import image, import_task, snapshot, wait_image, wait_imported, wait_snapshot
from lib.instances import error_code, instance, state, wait_state

ROOT = "/dev/sda1"


def devices(shown):
    return {m["DeviceName"]: m["Ebs"] for m in shown["BlockDeviceMappings"]}


# ---- ImportSnapshot ----

def test_import_of_a_url(ec2, s3):
    s3.create_bucket(Bucket="import-test")
    s3.put_object(Bucket="import-test", Key="folder/disk one", Body=os.urandom(4096))
    task = ec2.import_snapshot(Description="mine", DiskContainer={"Format": "raw", "Url": "s3://import-test/folder/disk one"},
                               TagSpecifications=[{"ResourceType": "import-snapshot-task", "Tags": [{"Key": "a", "Value": "b"}]}])
    assert task["ImportTaskId"].startswith("import-snap-")
    assert task["Description"] == "mine"
    detail = wait_imported(ec2, task["ImportTaskId"])
    assert detail["UserBucket"] == {"S3Bucket": "import-test", "S3Key": "folder/disk one"}
    made = snapshot(ec2, detail["SnapshotId"])
    assert (made["State"], made["Progress"], made["VolumeSize"], made["VolumeId"]) == ("completed", "100%", 1, "vol-ffffffff")
    (shown,) = ec2.describe_import_snapshot_tasks(Filters=[{"Name": "tag:a", "Values": ["b"]}])["ImportSnapshotTasks"]
    assert shown["ImportTaskId"] == task["ImportTaskId"]
    ec2.delete_snapshot(SnapshotId=detail["SnapshotId"])
    assert import_task(ec2, task["ImportTaskId"])["Status"] == "deleted"


def test_import_of_nothing_fails(ec2, s3):
    s3.create_bucket(Bucket="import-nothing")
    task = ec2.import_snapshot(DiskContainer={"Format": "RAW", "UserBucket": {"S3Bucket": "import-nothing", "S3Key": "no"}})
    wait_for("the import to fail", lambda: import_task(ec2, task["ImportTaskId"])["Status"] == "error", 60)
    detail = import_task(ec2, task["ImportTaskId"])
    assert detail["StatusMessage"]
    with pytest.raises(ClientError) as raised:
        ec2.register_image(Name="nothing", BlockDeviceMappings=[{"DeviceName": ROOT, "Ebs": {"SnapshotId": detail["SnapshotId"]}}])
    assert error_code(raised) == "IncorrectState"
    ec2.delete_snapshot(SnapshotId=detail["SnapshotId"])


def test_same_token_same_task(ec2, s3):
    where = {"Format": "RAW", "UserBucket": {"S3Bucket": "api-test-images", "S3Key": "disk.raw"}}
    tasks = {ec2.import_snapshot(ClientToken="import-once", DiskContainer=where)["ImportTaskId"] for _ in range(2)}
    assert len(tasks) == 1
    detail = import_task(ec2, tasks.pop())
    wait_for("its end", lambda: snapshot(ec2, detail["SnapshotId"])["State"] != "pending", 60)
    ec2.delete_snapshot(SnapshotId=detail["SnapshotId"])


# ---- RegisterImage ----

def test_registered_image(ec2, ebs_image_id, snapshot_id):
    shown = image(ec2, ebs_image_id)
    assert (shown["State"], shown["RootDeviceType"], shown["RootDeviceName"]) == ("available", "ebs", ROOT)
    assert devices(shown) == {ROOT: {"DeleteOnTermination": True, "SnapshotId": snapshot_id, "VolumeSize": 1,
                                     "VolumeType": "gp2", "Encrypted": False}}
    for name, value in [("block-device-mapping.snapshot-id", snapshot_id), ("root-device-type", "ebs"),
                        ("block-device-mapping.volume-size", "1"), ("block-device-mapping.delete-on-termination", "true")]:
        found = ec2.describe_images(Owners=["self"], Filters=[{"Name": name, "Values": [value]}])["Images"]
        assert ebs_image_id in [i["ImageId"] for i in found], name
    shown = ec2.describe_image_attribute(ImageId=ebs_image_id, Attribute="blockDeviceMapping")
    assert devices(shown)[ROOT]["SnapshotId"] == snapshot_id


def test_as_terraform_registers_it(ec2, launch, snapshot_id):
    """What its aws_ami was not told is sent empty, and what it reads back must be what it sent."""
    made = ec2.register_image(Name="of-terraform", Architecture="x86_64", Description="", EnaSupport=False, ImageLocation="",
                              RootDeviceName="", SriovNetSupport="simple", VirtualizationType="hvm",
                              BlockDeviceMappings=[{"DeviceName": ROOT, "Ebs": {"SnapshotId": snapshot_id}}])["ImageId"]
    shown = image(ec2, made)
    assert (shown["RootDeviceName"], shown["RootDeviceType"], shown["SriovNetSupport"]) == (ROOT, "ebs", "simple")
    assert "BootMode" not in shown
    found = ec2.describe_images(Owners=["self"], Filters=[{"Name": "sriov-net-support", "Values": ["simple"]}])["Images"]
    assert [i["ImageId"] for i in found] == [made]
    assert ec2.describe_image_attribute(ImageId=made, Attribute="sriovNetSupport")["SriovNetSupport"] == {"Value": "simple"}
    started = launch(ImageId=made)["Instances"][0]["InstanceId"]
    assert instance(ec2, started)["SriovNetSupport"] == "simple"
    copy = ec2.copy_image(Name="of-terraforms", SourceImageId=made, SourceRegion=ec2.meta.region_name)["ImageId"]
    assert image(ec2, copy)["SriovNetSupport"] == "simple"
    wait_image(ec2, copy)
    drop(ec2, copy)
    wait_state(ec2, started, "running")
    of_it = ec2.create_image(InstanceId=started, Name="of-terraforms-instance", NoReboot=True)["ImageId"]
    assert image(ec2, of_it)["SriovNetSupport"] == "simple"
    wait_image(ec2, of_it)
    drop(ec2, of_it)
    ec2.deregister_image(ImageId=made)


def test_local_disks_of_an_image(ec2, launch, snapshot_id):
    locals_ = [{"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}, {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral1"}]
    made = ec2.register_image(Name="with-locals", RootDeviceName=ROOT, BlockDeviceMappings=[
        {"DeviceName": ROOT, "Ebs": {"SnapshotId": snapshot_id}}, *locals_])["ImageId"]
    assert image(ec2, made)["BlockDeviceMappings"][1:] == locals_
    assert ec2.describe_image_attribute(ImageId=made, Attribute="blockDeviceMapping")["BlockDeviceMappings"][1:] == locals_
    started = launch(ImageId=made, BlockDeviceMappings=[{"DeviceName": "/dev/sdb", "NoDevice": ""}])["Instances"][0]["InstanceId"]
    wait_state(ec2, started, "running")  # its type has none, and that is well
    assert [m["DeviceName"] for m in instance(ec2, started)["BlockDeviceMappings"]] == [ROOT]
    ec2.deregister_image(ImageId=made)


def test_boot_mode_is_shown_where_it_was_given(ec2, snapshot_id):
    made = ec2.register_image(Name="with-boot-mode", BootMode="legacy-bios", RootDeviceName=ROOT,
                              BlockDeviceMappings=[{"DeviceName": ROOT, "Ebs": {"SnapshotId": snapshot_id}}])["ImageId"]
    assert image(ec2, made)["BootMode"] == "legacy-bios"
    assert ec2.describe_image_attribute(ImageId=made, Attribute="bootMode")["BootMode"] == {"Value": "legacy-bios"}
    ec2.deregister_image(ImageId=made)


def test_snapshot_of_an_image_stays(ec2, ebs_image_id, snapshot_id):
    with pytest.raises(ClientError) as raised:
        ec2.delete_snapshot(SnapshotId=snapshot_id)
    assert error_code(raised) == "InvalidSnapshot.InUse"
    assert ebs_image_id in str(raised.value)


def test_both_kinds(ec2, image_id, ebs_image_id):
    assert image(ec2, image_id)["RootDeviceType"] == "instance-store"
    assert image(ec2, image_id)["BlockDeviceMappings"] == []
    assert image(ec2, ebs_image_id)["RootDeviceType"] == "ebs"


def test_of_another_account(client, ec2, ebs_image_id, snapshot_id):
    """Whoever may launch an image may have its volumes, but not make others of its snapshots."""
    other = client("ec2", account="borrower")
    ec2.modify_image_attribute(ImageId=ebs_image_id, LaunchPermission={"Add": [{"Group": "all"}]})
    try:
        launched = other.run_instances(ImageId=ebs_image_id, InstanceType="t2.nano", MinCount=1, MaxCount=1)
        (started,) = launched["Instances"]
        wait_state(other, started["InstanceId"], "running")
        with pytest.raises(ClientError) as raised:
            other.create_volume(SnapshotId=snapshot_id, AvailabilityZone=started["Placement"]["AvailabilityZone"])
        assert error_code(raised) == "InvalidSnapshot.NotFound"
        other.terminate_instances(InstanceIds=[started["InstanceId"]])
        wait_state(other, started["InstanceId"], "terminated")
    finally:
        ec2.modify_image_attribute(ImageId=ebs_image_id, LaunchPermission={"Remove": [{"Group": "all"}]})


# ---- CreateImage ----

def drop(ec2, image_id):
    snapshots = [e["SnapshotId"] for e in devices(image(ec2, image_id)).values()]
    ec2.deregister_image(ImageId=image_id)
    for snapshot_id in snapshots:
        ec2.delete_snapshot(SnapshotId=snapshot_id)


@pytest.mark.parametrize("no_reboot", [True, False])
def test_create_image(ec2, launch, ebs_running, no_reboot):
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "of", "Value": "image"}]},
            {"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}]
    made = ec2.create_image(InstanceId=ebs_running, Name=f"made-{no_reboot}", NoReboot=no_reboot, TagSpecifications=tags)["ImageId"]
    assert state(ec2, ebs_running) == "running"
    wait_image(ec2, made)
    shown = image(ec2, made)
    assert (shown["RootDeviceType"], shown["Tags"]) == ("ebs", [{"Key": "a", "Value": "b"}])
    of = snapshot(ec2, devices(shown)[ROOT]["SnapshotId"])
    assert of["Tags"] == [{"Key": "of", "Value": "image"}]
    assert ebs_running in of["Description"] and made in of["Description"]
    assert state(ec2, ebs_running) == "running"
    again = launch(ImageId=made)["Instances"][0]["InstanceId"]
    wait_state(ec2, again, "running")
    drop(ec2, made)


def test_create_image_of_a_stopped_one(ec2, ebs_running):
    ec2.stop_instances(InstanceIds=[ebs_running])
    wait_state(ec2, ebs_running, "stopped")
    made = ec2.create_image(InstanceId=ebs_running, Name="of-a-stopped-one", BlockDeviceMappings=[
        {"DeviceName": ROOT, "Ebs": {"VolumeSize": 5}}, {"DeviceName": "/dev/sdh", "Ebs": {"VolumeSize": 2}}])["ImageId"]
    wait_image(ec2, made)
    assert {name: e["VolumeSize"] for name, e in devices(image(ec2, made)).items()} == {ROOT: 5, "/dev/sdh": 2}
    assert state(ec2, ebs_running) == "stopped"
    ec2.deregister_image(ImageId=made)


@pytest.mark.parametrize("daemon", ["clc", "nc", "sc"])
def test_create_image_whoever_is_killed(cloud, ec2, ebs_running, daemon):
    made = ec2.create_image(InstanceId=ebs_running, Name=f"killed-{daemon}")["ImageId"]
    cloud.wait_restarted(daemon, cloud.kill(daemon))
    wait_image(ec2, made)
    wait_for("the guest to be on again", lambda: ec2.describe_instance_status(InstanceIds=[ebs_running])["InstanceStatuses"]
             [0]["InstanceStatus"]["Status"] == "ok", 60)
    drop(ec2, made)


def test_create_image_of_an_instance_store_root(ec2, running):
    with pytest.raises(ClientError) as raised:
        ec2.create_image(InstanceId=running, Name="not-to-be-had")
    assert error_code(raised) == "InvalidParameterValue"


def test_copy_image(ec2, ebs_image_id, snapshot_id):
    copy = ec2.copy_image(Name="a-copy", SourceImageId=ebs_image_id, SourceRegion=ec2.meta.region_name)["ImageId"]
    wait_image(ec2, copy)
    of = devices(image(ec2, copy))[ROOT]["SnapshotId"]
    assert of != snapshot_id
    wait_snapshot(ec2, of)
    drop(ec2, copy)


def test_deregistered_image_leaves_its_instances(ec2, launch, ebs_running):
    made = ec2.create_image(InstanceId=ebs_running, Name="soon-gone", NoReboot=True)["ImageId"]
    wait_image(ec2, made)
    started = launch(ImageId=made)["Instances"][0]["InstanceId"]
    wait_state(ec2, started, "running")
    drop(ec2, made)
    assert instance(ec2, started)["ImageId"] == made
    ec2.stop_instances(InstanceIds=[started])
    wait_state(ec2, started, "stopped")
    ec2.start_instances(InstanceIds=[started])
    wait_state(ec2, started, "running")
