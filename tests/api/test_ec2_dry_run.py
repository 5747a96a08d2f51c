# SPDX-License-Identifier: Apache-2.0
"""DryRun on every EC2 action that is served: DryRunOperation, 412, and nothing changed."""
import json
import sqlite3
import uuid

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

from lib.cloud import SOURCE, wait_for
from lib.ebs import mappings, wait_snapshot, wait_volume
from lib.instances import instance, wait_state

SERVED = json.loads((SOURCE / "api" / "actions.json").read_text())["ec2"]
KEY = f"dry-{uuid.uuid4().hex}"
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBERVh9RKmfGb5wg1gxVzH2s7Av4J4bNiQcTwrWxYQR0 x"


@pytest.fixture(scope="module")
def things(ec2, s3, image_id, ebs_image_id):
    ec2.create_key_pair(KeyName=KEY, KeyType="ed25519")
    new, ebs = (ec2.run_instances(ImageId=i, InstanceType="t2.nano", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
                for i in (image_id, ebs_image_id))
    ec2.get_waiter("instance_running").wait(InstanceIds=[new, ebs], WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    volume = ec2.create_volume(Size=1, AvailabilityZone="us-east-1a")["VolumeId"]
    wait_volume(ec2, volume, "available")
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    wait_snapshot(ec2, snapshot)
    (root,) = mappings(instance(ec2, ebs)).values()
    wait_for("the root to be attached", lambda: mappings(instance(ec2, ebs))["/dev/sda1"]["Status"] == "attached")
    yield {"i": new, "ami": image_id, "ebs": ebs, "ebs-ami": ebs_image_id, "vol": volume, "snap": snapshot, "root": root["VolumeId"]}
    ec2.terminate_instances(InstanceIds=[new, ebs])
    for i in (new, ebs):
        wait_state(ec2, i, "terminated")
    ec2.delete_volume(VolumeId=volume)
    ec2.delete_snapshot(SnapshotId=snapshot)
    ec2.delete_key_pair(KeyName=KEY)


# What an action needs besides DryRun to succeed; an action that is not named needs nothing.
ARGUMENTS = {
    "AttachVolume": lambda t: dict(VolumeId=t["vol"], InstanceId=t["ebs"], Device="/dev/sdf"),
    "CopyImage": lambda t: dict(SourceImageId=t["ebs-ami"], SourceRegion="us-east-1", Name="dry-" + uuid.uuid4().hex),
    "CopySnapshot": lambda t: dict(SourceSnapshotId=t["snap"], SourceRegion="us-east-1"),
    "CreateImage": lambda t: dict(InstanceId=t["ebs"], Name="dry-" + uuid.uuid4().hex),
    "CreateSnapshot": lambda t: dict(VolumeId=t["vol"]),
    "CreateVolume": lambda t: dict(AvailabilityZone="us-east-1a", Size=1),
    "DeleteSnapshot": lambda t: dict(SnapshotId=t["snap"]),
    "DeleteVolume": lambda t: dict(VolumeId=t["vol"]),
    "DescribeSnapshotAttribute": lambda t: dict(SnapshotId=t["snap"], Attribute="createVolumePermission"),
    "DescribeVolumeAttribute": lambda t: dict(VolumeId=t["vol"], Attribute="autoEnableIO"),
    "DetachVolume": lambda t: dict(VolumeId=t["vol"]),
    "ImportSnapshot": lambda t: dict(DiskContainer={"Format": "RAW", "Url": "s3://api-test-images/disk.raw"}),
    "ModifySnapshotAttribute": lambda t: dict(SnapshotId=t["snap"], Attribute="createVolumePermission", OperationType="add",
                                              GroupNames=["all"]),
    "ModifyVolume": lambda t: dict(VolumeId=t["vol"], Size=2),
    "ModifyVolumeAttribute": lambda t: dict(VolumeId=t["vol"], AutoEnableIO={"Value": True}),
    "ResetSnapshotAttribute": lambda t: dict(SnapshotId=t["snap"], Attribute="createVolumePermission"),
    "CreateKeyPair": lambda t: dict(KeyName=KEY + "x"),
    "CreateTags": lambda t: dict(Resources=[t["i"]], Tags=[{"Key": "dry", "Value": "run"}]),
    "DeleteKeyPair": lambda t: dict(KeyName=KEY),
    "DeleteTags": lambda t: dict(Resources=[t["i"]]),
    "DeregisterImage": lambda t: dict(ImageId=t["ami"]),
    "DescribeImageAttribute": lambda t: dict(ImageId=t["ami"], Attribute="description"),
    "DescribeInstanceAttribute": lambda t: dict(InstanceId=t["i"], Attribute="instanceType"),
    "GetConsoleOutput": lambda t: dict(InstanceId=t["i"]),
    "ImportKeyPair": lambda t: dict(KeyName=KEY + "y", PublicKeyMaterial=PUBLIC),
    "ModifyImageAttribute": lambda t: dict(ImageId=t["ami"], Description={"Value": "dry"}),
    "ModifyInstanceAttribute": lambda t: dict(InstanceId=t["i"], DisableApiTermination={"Value": True}),
    "ModifyInstanceMetadataOptions": lambda t: dict(InstanceId=t["i"], HttpTokens="required"),
    "RebootInstances": lambda t: dict(InstanceIds=[t["i"]]),
    "RegisterImage": lambda t: dict(Name="dry-" + uuid.uuid4().hex, ImageLocation="api-test-images/disk.raw"),
    "ResetImageAttribute": lambda t: dict(ImageId=t["ami"], Attribute="launchPermission"),
    "RunInstances": lambda t: dict(ImageId=t["ami"], InstanceType="t2.nano", MinCount=1, MaxCount=1, KeyName=KEY, ClientToken=KEY),
    "StartInstances": lambda t: dict(InstanceIds=[t["i"]]),
    "StopInstances": lambda t: dict(InstanceIds=[t["ebs"]]),
    "TerminateInstances": lambda t: dict(InstanceIds=[t["i"]]),
}


def contents(cloud):
    """All of the state, but for what nodes report meanwhile."""
    with sqlite3.connect(f"file:{cloud.state}/clc/clc.db?mode=ro", uri=True) as db:
        rows = db.execute("SELECT kind, id, account, name, doc FROM object ORDER BY kind, id").fetchall()
    out = {}
    for kind, object_id, account, name, doc in rows:
        doc = json.loads(doc)
        for volatile in ("Reachability", "ReachabilitySince"):
            doc.pop(volatile, None)
        out[kind, object_id] = (account, name, doc)
    return out


@pytest.mark.parametrize("action", SERVED)
def test_dry_run(cloud, ec2, things, action):
    before = contents(cloud)
    with pytest.raises(ClientError) as e:
        getattr(ec2, xform_name(action))(DryRun=True, **ARGUMENTS.get(action, lambda t: {})(things))
    error = e.value.response
    if action == "DetachVolume":  # of one that is not attached: what cannot succeed has no dry run that does
        assert error["Error"]["Code"] == "IncorrectState"
    else:
        assert error["Error"]["Code"] == "DryRunOperation"
        assert error["ResponseMetadata"]["HTTPStatusCode"] == 412
    after = contents(cloud)
    assert {k: v for k, v in after.items() if k[0] != "instance" or k[1] == things["i"]} == \
           {k: v for k, v in before.items() if k[0] != "instance" or k[1] == things["i"]}
    assert set(after) == set(before)


def test_dry_run_still_checks(ec2):
    with pytest.raises(ClientError) as e:
        ec2.terminate_instances(InstanceIds=["i-00000000000000000"], DryRun=True)
    assert e.value.response["Error"]["Code"] == "InvalidInstanceID.NotFound"


def test_dry_run_false_is_none(ec2):
    assert ec2.describe_regions(DryRun=False)["Regions"]
