# SPDX-License-Identifier: Apache-2.0
"""What the tests of the EC2 API share: an image, and instances that end with the test."""
import os

import pytest

from lib import ebs
from lib.ebs import wait_imported
from lib.instances import state, wait_state

IMAGE_BYTES = 4 << 20


@pytest.fixture(scope="session")
def image_id(ec2, s3):
    """An available image of the default account: nothing boots from it on the fake driver."""
    s3.create_bucket(Bucket="api-test-images")
    s3.put_object(Bucket="api-test-images", Key="disk.raw", Body=os.urandom(512) + bytes(IMAGE_BYTES - 512))
    image = ec2.register_image(Name="api-test", ImageLocation="api-test-images/disk.raw")["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    return image


@pytest.fixture(scope="session")
def snapshot_id(ec2, s3):
    """A completed snapshot of 1 GiB, imported from a raw disk."""
    s3.create_bucket(Bucket="api-test-disks")
    s3.put_object(Bucket="api-test-disks", Key="disk.raw", Body=os.urandom(512) + bytes(IMAGE_BYTES - 512))
    task = ec2.import_snapshot(DiskContainer={"Format": "RAW", "UserBucket": {"S3Bucket": "api-test-disks", "S3Key": "disk.raw"}})
    return wait_imported(ec2, task["ImportTaskId"])["SnapshotId"]


@pytest.fixture(scope="session")
def ebs_image_id(ec2, snapshot_id):
    """An available image whose root, /dev/sda1, is a volume."""
    mapping = [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot_id}}]
    return ec2.register_image(Name="api-test-ebs", RootDeviceName="/dev/sda1", BlockDeviceMappings=mapping)["ImageId"]


@pytest.fixture
def launch(ec2, image_id):
    """launch(**parameters): RunInstances of one t2.nano, or as they say; all are terminated at the end."""
    started = []

    def run(**kw):
        kw = {"ImageId": image_id, "InstanceType": "t2.nano", "MinCount": 1, "MaxCount": 1, **kw}
        reservation = ec2.run_instances(**kw)
        started.extend(i["InstanceId"] for i in reservation["Instances"])
        return reservation

    yield run
    live = [i for i in started if state(ec2, i) not in ("terminated", "shutting-down")]
    if live:
        ec2.terminate_instances(InstanceIds=live)
    for i in started:
        wait_state(ec2, i, "terminated")


@pytest.fixture
def running(ec2, launch):
    """The id of an instance that runs."""
    instance_id = launch()["Instances"][0]["InstanceId"]
    wait_state(ec2, instance_id, "running")
    return instance_id


@pytest.fixture(scope="session")
def zone(ec2):
    return ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]


@pytest.fixture
def make_volume(ec2, zone):
    """make_volume(**parameters): the id of a volume of 1 GiB, or as they say, that is available; all go at the end."""
    made = []

    def make(**kw):
        kw = {"AvailabilityZone": zone, **kw}
        if "SnapshotId" not in kw:
            kw.setdefault("Size", 1)
        new = ec2.create_volume(**kw)["VolumeId"]
        made.append(new)
        ebs.wait(ec2, "volume_available", VolumeIds=[new])
        return new

    yield make
    drop_volumes(ec2, made)


def drop_volumes(ec2, ids):
    left = {v["VolumeId"]: v for v in ec2.describe_volumes()["Volumes"] if v["VolumeId"] in ids}
    for volume_id, found in left.items():
        for attachment in found["Attachments"]:
            if attachment["State"] not in ("detaching", "busy"):
                ec2.detach_volume(VolumeId=volume_id, InstanceId=attachment["InstanceId"], Force=True)
    for volume_id, found in left.items():
        if found["Attachments"]:
            ebs.wait(ec2, "volume_available", VolumeIds=[volume_id])
        if found["State"] not in ("deleting", "deleted"):
            ec2.delete_volume(VolumeId=volume_id)
    for volume_id in left:
        ebs.wait(ec2, "volume_deleted", VolumeIds=[volume_id])


@pytest.fixture
def make_snapshot(ec2):
    """make_snapshot(volume_id, **parameters): the id of a snapshot that is completed; all go at the end."""
    made = []

    def make(volume_id, **kw):
        new = ec2.create_snapshot(VolumeId=volume_id, **kw)["SnapshotId"]
        made.append(new)
        ebs.wait(ec2, "snapshot_completed", SnapshotIds=[new])
        return new

    yield make
    there = {s["SnapshotId"] for s in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    for snapshot_id in made:
        if snapshot_id in there:
            ec2.delete_snapshot(SnapshotId=snapshot_id)


@pytest.fixture
def ebs_running(ec2, launch, ebs_image_id):
    """The id of an instance that runs from a volume."""
    instance_id = launch(ImageId=ebs_image_id)["Instances"][0]["InstanceId"]
    wait_state(ec2, instance_id, "running")
    return instance_id
