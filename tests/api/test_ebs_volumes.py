# SPDX-License-Identifier: Apache-2.0
"""Volumes by boto3 and `aws`: made, shown, changed, deleted."""
import json
import uuid

import pytest
from botocore.exceptions import ClientError
from lib import ebs
from lib.instances import error_code

NONE = "vol-00000000000000000"


@pytest.fixture
def aws(cloud):
    def run(*args, check=True):
        done = cloud.run("aws", "--output", "json", *args, check=check)
        return json.loads(done.stdout) if check and done.stdout.strip() else done

    return run


def test_a_life(ec2, zone):
    new = ec2.create_volume(AvailabilityZone=zone, Size=2, VolumeType="gp3", TagSpecifications=[
        {"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "life"}]}])
    v = new["VolumeId"]
    assert v.startswith("vol-") and len(v) == 21
    assert (new["State"], new["Size"], new["VolumeType"], new["Iops"], new["Throughput"]) == ("creating", 2, "gp3", 3000, 125)
    assert new["Encrypted"] is False and new["SnapshotId"] == "" and new["MultiAttachEnabled"] is False
    ebs.wait(ec2, "volume_available", VolumeIds=[v])
    shown = ebs.volume(ec2, v)
    assert shown["State"] == "available" and shown["Attachments"] == [] and shown["AvailabilityZone"] == zone
    assert shown["Tags"] == [{"Key": "Name", "Value": "life"}]
    assert ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [v]}])["Tags"][0]["ResourceType"] == "volume"
    ec2.delete_volume(VolumeId=v)
    ebs.wait(ec2, "volume_deleted", VolumeIds=[v])
    with pytest.raises(ClientError) as e:
        ec2.describe_volumes(VolumeIds=[v])
    assert error_code(e) == "InvalidVolume.NotFound"
    assert not ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [v]}])["Tags"]


@pytest.mark.parametrize("wanted, iops, throughput", [
    (dict(Size=1), 100, None),
    (dict(Size=100, VolumeType="gp2"), 300, None),
    (dict(Size=4, VolumeType="io1", Iops=150), 150, None),
    (dict(Size=4, VolumeType="io2", Iops=2000), 2000, None),
    (dict(Size=64, VolumeType="io2", Iops=64000), 64000, None),
    (dict(Size=8, VolumeType="gp3", Iops=4000, Throughput=250), 4000, 250),
    (dict(Size=64, VolumeType="gp3", Iops=32000, Throughput=2000), 32000, 2000),
    (dict(Size=1, VolumeType="standard"), None, None),
])
def test_types(ec2, make_volume, wanted, iops, throughput):
    shown = ebs.volume(ec2, make_volume(**wanted))
    assert shown["VolumeType"] == wanted.get("VolumeType", "gp2")
    assert (shown.get("Iops"), shown.get("Throughput")) == (iops, throughput)


@pytest.mark.parametrize("wanted, code", [
    (dict(Size=0), "InvalidParameterValue"),
    (dict(), "MissingParameter"),
    (dict(Size=99999), "InvalidParameterValue"),
    (dict(Size=65537, VolumeType="io2", Iops=100), "InvalidParameterValue"),
    (dict(Size=64, VolumeType="io2", Iops=64001), "InvalidParameterValue"),
    (dict(Size=1, VolumeType="gp9"), "UnknownVolumeType"),
    (dict(Size=4, VolumeType="io1"), "MissingParameter"),
    (dict(Size=4, Iops=100), "InvalidParameterCombination"),
    (dict(Size=1, Encrypted=True, KmsKeyId="mine"), "InvalidParameterValue"),
    (dict(Size=4, VolumeType="io1", Iops=100, MultiAttachEnabled=True), "UnsupportedOperation"),
    (dict(SnapshotId="snap-00000000000000000"), "InvalidSnapshot.NotFound"),
    (dict(SnapshotId="mine"), "InvalidSnapshotID.Malformed"),
    (dict(Size=1, AvailabilityZone="us-nowhere-1a"), "InvalidZone.NotFound"),
])
def test_bad_volumes(ec2, zone, wanted, code):
    with pytest.raises(ClientError) as e:
        ec2.create_volume(**{"AvailabilityZone": zone, **wanted})
    assert error_code(e) == code


@pytest.mark.parametrize("call, code", [
    (lambda c: c.describe_volumes(VolumeIds=[NONE]), "InvalidVolume.NotFound"),
    (lambda c: c.describe_volumes(VolumeIds=["mine"]), "InvalidVolumeID.Malformed"),
    (lambda c: c.delete_volume(VolumeId=NONE), "InvalidVolume.NotFound"),
    (lambda c: c.modify_volume(VolumeId=NONE, Size=9), "InvalidVolume.NotFound"),
    (lambda c: c.describe_volumes(Filters=[{"Name": "colour", "Values": ["red"]}]), "InvalidParameterValue"),
    (lambda c: c.describe_volume_status(VolumeIds=[NONE]), "InvalidVolume.NotFound"),
])
def test_bad_requests(ec2, call, code):
    with pytest.raises(ClientError) as e:
        call(ec2)
    assert error_code(e) == code


def test_token_makes_one(ec2, zone, make_volume):
    token = uuid.uuid4().hex
    v = make_volume(Size=3, ClientToken=token)
    assert ec2.create_volume(AvailabilityZone=zone, Size=3, ClientToken=token)["VolumeId"] == v
    with pytest.raises(ClientError) as e:
        ec2.create_volume(AvailabilityZone=zone, Size=4, ClientToken=token)
    assert error_code(e) == "IdempotentParameterMismatch"


def test_filters_and_pages(ec2, make_volume):
    key = uuid.uuid4().hex
    made = [make_volume(TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": key, "Value": str(n)}]}]) for n in range(6)]

    def found(**filters):
        wanted = [{"Name": name.replace("_", "-"), "Values": values} for name, values in filters.items()]
        pages = ec2.get_paginator("describe_volumes").paginate(
            Filters=[{"Name": "tag-key", "Values": [key]}, *wanted], PaginationConfig={"PageSize": 5})
        return [v["VolumeId"] for page in pages for v in page["Volumes"]]

    assert found() == made
    assert found(status=["available"]) == made and found(status=["in-use"]) == []
    assert found(size=["1"], volume_type=["gp2"], encrypted=["false"]) == made
    assert found(volume_id=made[2:4]) == made[2:4]
    (one,) = ec2.describe_volumes(Filters=[{"Name": f"tag:{key}", "Values": ["3"]}])["Volumes"]
    assert one["VolumeId"] == made[3]


def test_status_and_attribute(ec2, make_volume):
    v = make_volume()
    (status,) = ec2.describe_volume_status(VolumeIds=[v])["VolumeStatuses"]
    assert status["VolumeStatus"]["Status"] == "ok" and status["Events"] == [] and status["Actions"] == []
    assert {d["Name"]: d["Status"] for d in status["VolumeStatus"]["Details"]}["io-enabled"] == "passed"
    assert ec2.describe_volume_attribute(VolumeId=v, Attribute="autoEnableIO")["AutoEnableIO"] == {"Value": False}
    ec2.modify_volume_attribute(VolumeId=v, AutoEnableIO={"Value": True})
    assert ec2.describe_volume_attribute(VolumeId=v, Attribute="autoEnableIO")["AutoEnableIO"] == {"Value": True}
    assert ec2.describe_volume_attribute(VolumeId=v, Attribute="productCodes")["ProductCodes"] == []


def test_grows_and_changes_its_type(ec2, make_volume):
    v = make_volume(Size=1)
    with pytest.raises(ClientError) as e:
        ec2.describe_volumes_modifications(VolumeIds=[v])
    assert error_code(e) == "InvalidVolumeModification.NotFound"
    change = ec2.modify_volume(VolumeId=v, Size=3, VolumeType="gp3")["VolumeModification"]
    assert (change["ModificationState"], change["OriginalSize"], change["TargetSize"]) == ("modifying", 1, 3)
    assert (change["OriginalVolumeType"], change["TargetVolumeType"], change["TargetIops"]) == ("gp2", "gp3", 3000)
    done = ebs.wait_modified(ec2, v)
    assert done["Progress"] == 100 and done["EndTime"] >= done["StartTime"]
    shown = ebs.volume(ec2, v)
    assert (shown["Size"], shown["VolumeType"], shown["Throughput"]) == (3, "gp3", 125)
    with pytest.raises(ClientError) as e:
        ec2.modify_volume(VolumeId=v, Size=2)
    assert error_code(e) == "InvalidParameterValue"
    ec2.modify_volume(VolumeId=v, Size=4)  # at once again: there is no rule of hours here
    ebs.wait_modified(ec2, v)
    assert ebs.volume(ec2, v)["Size"] == 4


def test_another_account_sees_none(client, make_volume):
    v = make_volume()
    other = client("ec2", account="volumes-other")
    assert other.describe_volumes()["Volumes"] == []
    for call in (lambda: other.delete_volume(VolumeId=v), lambda: other.create_snapshot(VolumeId=v),
                 lambda: other.create_tags(Resources=[v], Tags=[{"Key": "a", "Value": "b"}])):
        with pytest.raises(ClientError) as e:
            call()
        assert error_code(e) == "InvalidVolume.NotFound"


def test_by_the_cli(aws, ec2, zone):
    v = aws("ec2", "create-volume", "--availability-zone", zone, "--size", "1", "--volume-type", "gp3",
            "--tag-specifications", "ResourceType=volume,Tags=[{Key=Name,Value=cli}]")["VolumeId"]
    aws("ec2", "wait", "volume-available", "--volume-ids", v)
    for everything in ("describe-volumes", "describe-volume-status", "describe-volumes-modifications",
                       "describe-snapshots", "describe-import-snapshot-tasks"):
        aws("ec2", everything)  # it asks for pages of a length of its own
    assert aws("ec2", "describe-volumes", "--filters", "Name=tag:Name,Values=cl?", f"Name=volume-id,Values={v}",
               "--query", "Volumes[].[VolumeId,State,Size]") == [[v, "available", 1]]
    aws("ec2", "modify-volume", "--volume-id", v, "--size", "2")
    ebs.wait_modified(ec2, v)
    aws("ec2", "delete-volume", "--volume-id", v)
    aws("ec2", "wait", "volume-deleted", "--volume-ids", v)
    refused = aws("ec2", "describe-volumes", "--volume-ids", v, check=False)
    assert refused.returncode == 254 and "InvalidVolume.NotFound" in refused.stderr
