# SPDX-License-Identifier: Apache-2.0
"""What the tests of the EC2 API share: an image, and instances that end with the test."""
import os

import pytest

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
