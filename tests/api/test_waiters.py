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
def found(ec2, s3, running, image_id):
    """Waiter: (client, what it finds, what it does not find). The second is None where nothing of the kind can be had yet."""
    key = "waiter-" + uuid.uuid4().hex
    ec2.create_key_pair(KeyName=key, KeyType="ed25519")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
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
            "instance_stopped": (ec2, None, instance),  # instance-store: never
            "instance_terminated": (ec2, None, instance),  # below, once it is
            "key_pair_exists": (ec2, {"KeyNames": [key]}, {"KeyNames": [key + "-none"]}),
            "subnet_available": (ec2, {"SubnetIds": [subnet]}, {"SubnetIds": ["subnet-" + NONE]}),
            "system_status_ok": (ec2, instance, no_instance),
            "vpc_available": (ec2, {"VpcIds": [vpc]}, {"VpcIds": ["vpc-" + NONE]}),
            "vpc_exists": (ec2, {"VpcIds": [vpc]}, {"VpcIds": ["vpc-" + NONE]}),
            "bucket_exists": (s3, bucket, no_bucket),
            "bucket_not_exists": (s3, no_bucket, bucket),
            "object_exists": (s3, there, not_there),
            "object_not_exists": (s3, not_there, there),
        }
    ec2.delete_key_pair(KeyName=key)


def wait(client, waiter, attempts, **kw):
    client.get_waiter(waiter).wait(WaiterConfig={"Delay": 1, "MaxAttempts": attempts}, **kw)


def test_all(client, ec2, found, running):
    served = json.loads((SOURCE / "api" / "actions.json").read_text())
    for service in served:
        for name in client(service).waiter_names:
            operation = client(service).get_waiter(name).config.operation
            assert operation not in served[service] or name in found, f"{service}'s {name} is not tested"
    for name, (of, good, bad) in found.items():
        if good:
            wait(of, name, 30, **good)
        with pytest.raises(WaiterError):
            wait(of, name, 1, **bad)
    ec2.terminate_instances(InstanceIds=[running])
    wait(ec2, "instance_terminated", 30, InstanceIds=[running])
    with pytest.raises(WaiterError):  # at once: it cannot come back
        wait(ec2, "instance_running", 100, InstanceIds=[running])
