# SPDX-License-Identifier: Apache-2.0
"""What the tests with real guests share. Booting is what costs, so there are two guests: `first`, which `mallee up` ran, and
`second`, with a key, user data and metadata options of its own. Files run in the order of their names; the last take down."""
import pytest

from guest import BOOT_S, Guest
from host import snapshot

USER_DATA = """#!/bin/sh
echo "user data says hello from $(hostname)"
date > /root/user-data-ran
echo run >> /root/user-data-runs
"""


@pytest.fixture(scope="session", autouse=True)
def host_before():
    """Taken before the first cloud starts: autouse fixtures come first."""
    return snapshot()


@pytest.fixture(scope="session")
def real_ec2(real_client):
    return real_client("ec2")


@pytest.fixture(scope="session")
def image_id(real_ec2):
    (image,) = real_ec2.describe_images(Filters=[{"Name": "name", "Values": ["tiny"]}])["Images"]
    return image["ImageId"]


@pytest.fixture(scope="session")
def first(real_cloud, real_ec2):
    found = real_ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["first"]},
                                                 {"Name": "instance-state-name", "Values": ["running"]}])
    (reservation,) = found["Reservations"]
    return Guest(real_cloud, real_ec2, reservation["Instances"][0]["InstanceId"], real_cloud.state / "keys" / "mallee")


@pytest.fixture(scope="session")
def second(real_cloud, real_ec2, image_id):
    key = real_cloud.state.with_name(real_cloud.state.name + "-key")
    key.touch(0o600)
    key.write_text(real_ec2.create_key_pair(KeyName="guest-test", KeyType="ed25519")["KeyMaterial"])
    (launched,) = real_ec2.run_instances(
        ImageId=image_id, InstanceType="t2.nano", MinCount=1, MaxCount=1, KeyName="guest-test", UserData=USER_DATA,
        MetadataOptions={"HttpTokens": "required"},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "second"}]}])["Instances"]
    waiter = real_ec2.get_waiter("instance_running")
    waiter.wait(InstanceIds=[launched["InstanceId"]], WaiterConfig={"Delay": 1, "MaxAttempts": BOOT_S})
    yield Guest(real_cloud, real_ec2, launched["InstanceId"], key).wait_ssh()
    key.unlink()
