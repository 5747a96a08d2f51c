# SPDX-License-Identifier: Apache-2.0
"""The cloud controller is killed again and again while clients launch and end instances: each token is one launch, what was
acknowledged is there, and no address is given out twice or lost."""
import concurrent.futures
import json
import random
import re
import sqlite3
import time
import uuid

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from lib.cloud import wait_for

CLIENTS, LAUNCHES, KILLS = 4, 12, 6
GONE = {"terminated"}


def persist(act, timeout_s=60):
    """Again until there is an answer, as a client with retries does."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return act()
        except BotoCoreError:
            assert time.monotonic() < deadline
        except ClientError as e:
            assert e.response["ResponseMetadata"]["HTTPStatusCode"] >= 500, e
            assert time.monotonic() < deadline
        time.sleep(0.1)


def records(cloud):
    with sqlite3.connect(f"file:{cloud.state}/clc/clc.db?mode=ro", uri=True) as db:
        return [json.loads(d) for d, in db.execute("SELECT doc FROM object WHERE kind = 'instance'")]


def free_addresses(cloud):
    return int(re.search(r"^mallee_clc_addresses_free (\d+)$", cloud.get(cloud.port("ops-clc"), "/metrics")[1], re.M).group(1))


@pytest.mark.timeout(300)
def test_killed_in_the_middle(cloud, ec2, image_id):
    ours, mark = {}, uuid.uuid4().hex
    tags = [{"ResourceType": "instance", "Tags": [{"Key": mark, "Value": ""}]}]

    def launch(token):
        r = persist(lambda: ec2.run_instances(ImageId=image_id, InstanceType="t2.nano", MinCount=2, MaxCount=2,
                                              ClientToken=token, TagSpecifications=tags))
        return tuple(i["InstanceId"] for i in r["Instances"])

    def client(n):
        for _ in range(LAUNCHES):
            token = uuid.uuid4().hex
            ids = ours[token] = launch(token)
            if random.random() < 0.5:
                persist(lambda: ec2.terminate_instances(InstanceIds=ids))
            assert launch(token) == ids

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        work = [pool.submit(client, n) for n in range(CLIENTS)]
        for _ in range(KILLS):
            time.sleep(random.uniform(0.1, 1.0))
            if cloud.pid("clc"):
                cloud.kill("clc")
            wait_for("clc to serve again", lambda: cloud.healthy("clc"), 30)
        for w in work:
            w.result()
    mine = {i for ids in ours.values() for i in ids}
    found = [i for r in ec2.describe_instances(Filters=[{"Name": "tag-key", "Values": [mark]}])["Reservations"]
             for i in r["Instances"]]
    assert {i["InstanceId"] for i in found} == mine  # all that was acknowledged, and nothing besides
    assert len(mine) == CLIENTS * LAUNCHES * 2

    def settled():
        states = {r["State"] for r in records(cloud) if r["InstanceId"] in mine}
        return states <= {"running", "terminated"}

    wait_for("all to settle", settled, 60)
    live = [r for r in records(cloud) if r["State"] not in GONE]
    assert len({r["PrivateIp"] for r in live}) == len({r["MacAddress"] for r in live}) == len(live)
    (subnet,) = ec2.describe_subnets()["Subnets"]
    size = 2 ** (32 - int(subnet["CidrBlock"].split("/")[1]))
    wait_for("the addresses of those that ended to be free", lambda: free_addresses(cloud) == size - 3 - len(live), 30)
    running = [r["InstanceId"] for r in live if r["InstanceId"] in mine]
    ec2.terminate_instances(InstanceIds=running)
    wait_for("all to end", lambda: all(r["State"] == "terminated" for r in records(cloud) if r["InstanceId"] in mine), 60)
