# SPDX-License-Identifier: Apache-2.0
"""boto3's waiters of the served actions: each one ends when what it waits for is there, and fails when it cannot come."""
import json
import uuid

import pytest
from botocore.exceptions import WaiterError
from lib.cloud import SOURCE
from lib.s3 import new_bucket

NONE = "00000000000000000"


@pytest.fixture
def found(ec2, s3, running, ebs_running, image_id, snapshot_id):
    """Waiter: (client, what it finds, what it does not find). The second is None where nothing of the kind can be had yet."""
    key = "waiter-" + uuid.uuid4().hex
    ec2.create_key_pair(KeyName=key, KeyType="ed25519")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    free = ec2.create_volume(Size=1, AvailabilityZone="us-east-1a")["VolumeId"]
    used = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [ebs_running]}])["Volumes"][0]["VolumeId"]
    of = [{"Name": "snapshot-id", "Values": [snapshot_id]}]
    task = ec2.describe_import_snapshot_tasks(Filters=of)["ImportSnapshotTasks"][0]["ImportTaskId"]
    snapshot, no_snapshot = {"SnapshotIds": [snapshot_id]}, {"SnapshotIds": ["snap-" + NONE]}
    instance, no_instance = {"InstanceIds": [running]}, {"InstanceIds": ["i-" + NONE]}
    image, no_image = {"ImageIds": [image_id]}, {"ImageIds": ["ami-" + NONE]}
    with new_bucket(s3, "waiter") as name:
        s3.put_object(Bucket=name, Key="k", Body=b"x")
        bucket, no_bucket = {"Bucket": name}, {"Bucket": name + "-none"}
        there, not_there = {"Bucket": name, "Key": "k"}, {"Bucket": name, "Key": "none"}
        yield {
            "image_available": (ec2, image, no_image),
            "image_exists": (ec2, image, no_image),
            "instance_exists": (ec2, instance, no_instance),
            "instance_running": (ec2, instance, no_instance),
            "instance_status_ok": (ec2, instance, no_instance),
            "instance_stopped": (ec2, None, instance),  # below
            "instance_terminated": (ec2, None, instance),  # below, once it is
            "key_pair_exists": (ec2, {"KeyNames": [key]}, {"KeyNames": [key + "-none"]}),
            "snapshot_completed": (ec2, snapshot, no_snapshot),
            "snapshot_imported": (ec2, {"ImportTaskIds": [task]}, {"ImportTaskIds": ["import-snap-" + NONE]}),
            "subnet_available": (ec2, {"SubnetIds": [subnet]}, {"SubnetIds": ["subnet-" + NONE]}),
            "system_status_ok": (ec2, instance, no_instance),
            "volume_available": (ec2, {"VolumeIds": [free]}, {"VolumeIds": [used]}),
            "volume_deleted": (ec2, {"VolumeIds": ["vol-" + NONE]}, {"VolumeIds": [used]}),
            "volume_in_use": (ec2, {"VolumeIds": [used]}, {"VolumeIds": [free]}),
            "vpc_available": (ec2, {"VpcIds": [vpc]}, {"VpcIds": ["vpc-" + NONE]}),
            "vpc_exists": (ec2, {"VpcIds": [vpc]}, {"VpcIds": ["vpc-" + NONE]}),
            "bucket_exists": (s3, bucket, no_bucket),
            "bucket_not_exists": (s3, no_bucket, bucket),
            "object_exists": (s3, there, not_there),
            "object_not_exists": (s3, not_there, there),
        }
    ec2.delete_key_pair(KeyName=key)
    ec2.delete_volume(VolumeId=free)


def wait(client, waiter, attempts, **kw):
    client.get_waiter(waiter).wait(WaiterConfig={"Delay": 1, "MaxAttempts": attempts}, **kw)


def test_all(client, ec2, found, running, ebs_running):
    served = json.loads((SOURCE / "api" / "actions.json").read_text())
    for service in served:
        for name in client(service).waiter_names:
            operation = client(service).get_waiter(name).config.operation
            assert operation not in served[service] or name in found, f"{service}'s {name} is not tested"
    for name, (of, good, bad) in found.items():
        if name not in of.waiter_names:  # of newer clients
            continue
        if good is not None:
            wait(of, name, 30, **good)
        with pytest.raises(WaiterError):
            wait(of, name, 1, **bad)
    ec2.stop_instances(InstanceIds=[ebs_running])
    wait(ec2, "instance_stopped", 30, InstanceIds=[ebs_running])
    ec2.terminate_instances(InstanceIds=[running])
    wait(ec2, "instance_terminated", 30, InstanceIds=[running])
    with pytest.raises(WaiterError):  # at once: it cannot come back
        wait(ec2, "instance_running", 100, InstanceIds=[running])
