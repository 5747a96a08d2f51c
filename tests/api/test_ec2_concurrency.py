# SPDX-License-Identifier: Apache-2.0
"""Many clients at once: nothing is given out twice, and one token is one launch."""
import concurrent.futures
import uuid

import pytest

from lib.cloud import wait_for
from lib.instances import wait_state

CLIENTS = 8


@pytest.fixture(scope="module")
def pool():
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as executor:
        yield executor


def shown(ec2, key):
    pages = ec2.describe_instances(Filters=[{"Name": "tag-key", "Values": [key]}])
    return [i for r in pages["Reservations"] for i in r["Instances"]]


def test_launch_and_end_at_once(ec2, pool, image_id):
    key = uuid.uuid4().hex
    tags = [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": ""}]}]

    def client(n):
        for _ in range(3):
            ids = [i["InstanceId"] for i in ec2.run_instances(
                ImageId=image_id, InstanceType="t2.nano", MinCount=1, MaxCount=3, TagSpecifications=tags)["Instances"]]
            addresses = [i["PrivateIpAddress"] for i in shown(ec2, key) if "PrivateIpAddress" in i]
            assert len(addresses) == len(set(addresses))
            ec2.create_tags(Resources=ids, Tags=[{"Key": "more", "Value": str(n)}])
            ec2.modify_instance_metadata_options(InstanceId=ids[0], InstanceMetadataTags="enabled")
            ec2.describe_instance_status(InstanceIds=ids, IncludeAllInstances=True)
            ec2.terminate_instances(InstanceIds=ids)

    list(pool.map(client, range(CLIENTS)))
    wait_for("all to end", lambda: {i["State"]["Name"] for i in shown(ec2, key)} == {"terminated"}, 60)
    assert len(shown(ec2, key)) == CLIENTS * 9


def test_one_token_is_one_launch(ec2, pool, image_id):
    token = uuid.uuid4().hex
    launches = list(pool.map(lambda _: ec2.run_instances(ImageId=image_id, InstanceType="t2.nano", MinCount=2, MaxCount=2,
                                                         ClientToken=token), range(2 * CLIENTS)))
    ids = {tuple(i["InstanceId"] for i in r["Instances"]) for r in launches}
    assert len(ids) == 1
    found = ec2.describe_instances(Filters=[{"Name": "client-token", "Values": [token]}])["Reservations"]
    assert [i["InstanceId"] for r in found for i in r["Instances"]] == list(ids.pop())
    started = [i["InstanceId"] for i in launches[0]["Instances"]]
    ec2.terminate_instances(InstanceIds=started)
    for i in started:
        wait_state(ec2, i, "terminated")
