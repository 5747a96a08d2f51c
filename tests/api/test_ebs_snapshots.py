# SPDX-License-Identifier: Apache-2.0
"""Snapshots by boto3 and `aws`: made, shown, shared, copied, made volumes of, deleted."""
import signal
import uuid

import pytest
from botocore.exceptions import ClientError
from lib import ebs
from lib.instances import error_code

NONE = "snap-00000000000000000"


def test_a_life(ec2, make_volume):
    v = make_volume(Size=2)
    new = ec2.create_snapshot(VolumeId=v, Description="first", TagSpecifications=[
        {"ResourceType": "snapshot", "Tags": [{"Key": "Name", "Value": "life"}]}])
    s = new["SnapshotId"]
    assert (new["State"], new["VolumeId"], new["VolumeSize"], new["Description"]) == ("pending", v, 2, "first") or \
        new["State"] == "completed"
    ebs.wait(ec2, "snapshot_completed", SnapshotIds=[s])
    shown = ebs.snapshot(ec2, s)
    assert (shown["State"], shown["Progress"], shown["Encrypted"]) == ("completed", "100%", False)
    assert shown["Tags"] == [{"Key": "Name", "Value": "life"}]
    ec2.delete_snapshot(SnapshotId=s)
    for call in (lambda: ec2.describe_snapshots(SnapshotIds=[s]), lambda: ec2.delete_snapshot(SnapshotId=s)):
        with pytest.raises(ClientError) as e:
            call()
        assert error_code(e) == "InvalidSnapshot.NotFound"
    assert not ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [s]}])["Tags"]


def test_volume_of_a_snapshot(ec2, make_volume, make_snapshot, zone):
    s = make_snapshot(make_volume(Size=2))
    shown = ebs.volume(ec2, make_volume(SnapshotId=s))
    assert (shown["Size"], shown["SnapshotId"]) == (2, s)
    assert ebs.volume(ec2, make_volume(SnapshotId=s, Size=3))["Size"] == 3
    with pytest.raises(ClientError) as e:
        ec2.create_volume(AvailabilityZone=zone, SnapshotId=s, Size=1)
    assert error_code(e) == "InvalidParameterValue"


def test_of_a_volume_that_grows(ec2, make_volume, make_snapshot):
    """Whichever is first: it says how large it is, and a volume can be made of it."""
    for _ in range(4):
        v = make_volume()
        ec2.modify_volume(VolumeId=v, Size=2)
        s = make_snapshot(v)
        size = ebs.snapshot(ec2, s)["VolumeSize"]
        assert size in (1, 2) and ebs.volume(ec2, make_volume(SnapshotId=s))["Size"] == size
        ebs.wait_modified(ec2, v)
        assert ebs.snapshot(ec2, make_snapshot(v))["VolumeSize"] == 2


def test_few_are_pending_at_once(cloud, ec2, make_volume):
    v = make_volume()
    cloud.kill("walrus", signal.SIGSTOP)  # nothing is completed
    try:
        made = [ec2.create_snapshot(VolumeId=v)["SnapshotId"] for _ in range(5)]
        with pytest.raises(ClientError) as e:
            ec2.create_snapshot(VolumeId=v)
        assert error_code(e) == "ConcurrentSnapshotLimitExceeded"
    finally:
        cloud.kill("walrus", signal.SIGCONT)
    for s in made:
        ebs.wait_snapshot(ec2, s)
    made.append(ec2.create_snapshot(VolumeId=v)["SnapshotId"])
    ebs.wait_snapshot(ec2, made[-1])
    for s in made:
        ec2.delete_snapshot(SnapshotId=s)


def test_outlives_its_volume(ec2, make_volume, make_snapshot, zone):
    v = ec2.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"]
    ebs.wait(ec2, "volume_available", VolumeIds=[v])
    s = make_snapshot(v)
    ec2.delete_volume(VolumeId=v)
    ebs.wait(ec2, "volume_deleted", VolumeIds=[v])
    assert ebs.snapshot(ec2, s)["VolumeId"] == v
    make_volume(SnapshotId=s)


def test_snapshot_of_an_attached_volume(ec2, running, make_volume, make_snapshot):
    v = make_volume()
    ec2.attach_volume(VolumeId=v, InstanceId=running, Device="/dev/sdf")
    ebs.wait_attached(ec2, v)
    one, two = make_snapshot(v), make_snapshot(v)
    assert [ebs.snapshot(ec2, s)["State"] for s in (one, two)] == ["completed"] * 2


def test_copy(ec2, make_volume, make_snapshot):
    s = make_snapshot(make_volume(Size=2))
    copy = ec2.copy_snapshot(SourceSnapshotId=s, SourceRegion=ec2.meta.region_name, Description="a copy", TagSpecifications=[
        {"ResourceType": "snapshot", "Tags": [{"Key": "a", "Value": "b"}]}])
    try:
        assert copy["Tags"] == [{"Key": "a", "Value": "b"}]
        ebs.wait(ec2, "snapshot_completed", SnapshotIds=[copy["SnapshotId"]])
        shown = ebs.snapshot(ec2, copy["SnapshotId"])
        assert (shown["VolumeSize"], shown["VolumeId"], shown["Description"]) == (2, "vol-ffffffff", "a copy")
        ec2.delete_snapshot(SnapshotId=s)  # the copy stands on its own
        make_volume(SnapshotId=copy["SnapshotId"])
    finally:
        ec2.delete_snapshot(SnapshotId=copy["SnapshotId"])
    with pytest.raises(ClientError) as e:
        ec2.copy_snapshot(SourceSnapshotId=s, SourceRegion="eu-west-1" if ec2.meta.region_name != "eu-west-1" else "us-east-1")
    assert error_code(e) == "InvalidParameterValue"


def test_sharing(client, ec2, make_volume, make_snapshot, zone):
    s = make_snapshot(make_volume())
    other = client("ec2", account="snapshots-other")
    other_id = client("sts", account="snapshots-other").get_caller_identity()["Account"]
    with pytest.raises(ClientError) as e:
        other.describe_snapshots(SnapshotIds=[s])
    assert error_code(e) == "InvalidSnapshot.NotFound"
    ec2.modify_snapshot_attribute(SnapshotId=s, Attribute="createVolumePermission", OperationType="add", UserIds=[other_id])
    shared = ec2.describe_snapshot_attribute(SnapshotId=s, Attribute="createVolumePermission")["CreateVolumePermissions"]
    assert shared == [{"UserId": other_id}]
    assert ebs.snapshot(other, s)["State"] == "completed"
    assert [x["SnapshotId"] for x in other.describe_snapshots(RestorableByUserIds=["self"])["Snapshots"]] == [s]
    assert other.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    v = other.create_volume(AvailabilityZone=zone, SnapshotId=s)["VolumeId"]
    ebs.wait(other, "volume_available", VolumeIds=[v])
    other.delete_volume(VolumeId=v)
    with pytest.raises(ClientError) as e:
        other.delete_snapshot(SnapshotId=s)
    assert error_code(e) == "UnauthorizedOperation"
    with pytest.raises(ClientError) as e:
        ec2.modify_snapshot_attribute(SnapshotId=s, OperationType="add", CreateVolumePermission={"Remove": [{"UserId": other_id}]})
    assert error_code(e) == "InvalidParameterCombination"
    ec2.modify_snapshot_attribute(SnapshotId=s, GroupNames=["all"], CreateVolumePermission={"Add": [{"Group": "all"}]})
    assert s in [x["SnapshotId"] for x in other.describe_snapshots(RestorableByUserIds=["all"])["Snapshots"]]
    ec2.reset_snapshot_attribute(SnapshotId=s, Attribute="createVolumePermission")
    with pytest.raises(ClientError):
        other.describe_snapshots(SnapshotIds=[s])


def test_a_page_of_more_than_there_can_be(ec2):
    for describe in (ec2.describe_snapshots, ec2.describe_volumes, ec2.describe_volume_status):
        assert "NextToken" not in describe(MaxResults=1001)


def test_filters_and_pages(ec2, make_volume, make_snapshot):
    key = uuid.uuid4().hex
    v = make_volume()
    made = [make_snapshot(v, Description=f"n{n}", TagSpecifications=[
        {"ResourceType": "snapshot", "Tags": [{"Key": key, "Value": str(n)}]}]) for n in range(6)]

    def found(**filters):
        wanted = [{"Name": name.replace("_", "-"), "Values": values} for name, values in filters.items()]
        pages = ec2.get_paginator("describe_snapshots").paginate(
            OwnerIds=["self"], Filters=[{"Name": "tag-key", "Values": [key]}, *wanted], PaginationConfig={"PageSize": 5})
        return [s["SnapshotId"] for page in pages for s in page["Snapshots"]]

    assert found() == made
    assert found(volume_id=[v], status=["completed"], volume_size=["1"], progress=["100%"]) == made
    assert found(description=["n[24]", "n4"]) == [made[4]]
    assert found(snapshot_id=made[1:3]) == made[1:3]


@pytest.mark.parametrize("call, code", [
    (lambda c: c.create_snapshot(VolumeId="vol-00000000000000000"), "InvalidVolume.NotFound"),
    (lambda c: c.create_snapshot(VolumeId="mine"), "InvalidVolumeID.Malformed"),
    (lambda c: c.delete_snapshot(SnapshotId=NONE), "InvalidSnapshot.NotFound"),
    (lambda c: c.delete_snapshot(SnapshotId="mine"), "InvalidSnapshotID.Malformed"),
    (lambda c: c.describe_snapshots(SnapshotIds=[NONE]), "InvalidSnapshot.NotFound"),
    (lambda c: c.describe_snapshots(MaxResults=4), "InvalidParameterValue"),
    (lambda c: c.copy_snapshot(SourceSnapshotId=NONE, SourceRegion=c.meta.region_name), "InvalidSnapshot.NotFound"),
    (lambda c: c.copy_snapshot(SourceSnapshotId=NONE, SourceRegion=c.meta.region_name, Encrypted=True, KmsKeyId="mine"),
     "InvalidParameterValue"),
])
def test_bad_requests(ec2, call, code):
    with pytest.raises(ClientError) as e:
        call(ec2)
    assert error_code(e) == code


def test_clc_is_killed_meanwhile(cloud, ec2, make_volume):
    s = ec2.create_snapshot(VolumeId=make_volume())["SnapshotId"]
    cloud.wait_restarted("clc", cloud.kill("clc"))
    ebs.wait(ec2, "snapshot_completed", SnapshotIds=[s])
    ec2.delete_snapshot(SnapshotId=s)


def test_by_the_cli(cloud, ec2, make_volume):
    v = make_volume()
    cloud.run("aws", "ec2", "create-snapshot", "--volume-id", v, "--description", "cli")
    (s,) = ec2.describe_snapshots(Filters=[{"Name": "volume-id", "Values": [v]}])["Snapshots"]
    cloud.run("aws", "ec2", "wait", "snapshot-completed", "--snapshot-ids", s["SnapshotId"])
    cloud.run("aws", "ec2", "delete-snapshot", "--snapshot-id", s["SnapshotId"])
