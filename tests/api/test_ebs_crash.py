# SPDX-License-Identifier: Apache-2.0
"""The cloud, storage and node controllers are killed again and again while clients make, attach, snapshot and delete volumes: a
token is one volume, every request gets where it was to go, and nothing is left over."""
import concurrent.futures
import json
import random
import sqlite3
import time
import uuid

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from lib import ebs
from lib.cloud import wait_for
from lib.instances import wait_state

CLIENTS, ROUNDS, KILLS = 3, 4, 8
LONG_S = 120


def persist(act, *fine):
    """Again until there is an answer, as a client with retries does; None for an error that says that it was done before."""
    deadline = time.monotonic() + LONG_S
    while True:
        try:
            return act()
        except BotoCoreError:
            assert time.monotonic() < deadline
        except ClientError as e:
            if e.response["Error"]["Code"] in fine:
                return None
            assert e.response["ResponseMetadata"]["HTTPStatusCode"] >= 500, e
            assert time.monotonic() < deadline
        time.sleep(0.1)


def volume_state(ec2, volume_id):
    found = persist(lambda: ec2.describe_volumes(VolumeIds=[volume_id]), "InvalidVolume.NotFound")
    return found["Volumes"][0]["State"] if found else "gone"


def attached(ec2, volume_id):
    return persist(lambda: ebs.attachment_state(ec2, volume_id)) == "attached"


def records(cloud, kind):
    with sqlite3.connect(f"file:{cloud.state}/clc/clc.db?mode=ro", uri=True) as db:
        return {i: json.loads(d) for i, d in db.execute("SELECT id, doc FROM object WHERE kind = ?", (kind,))}


@pytest.mark.timeout(600)
def test_killed_in_the_middle(cloud, ec2, launch, zone):
    instances = [launch()["Instances"][0]["InstanceId"] for _ in range(CLIENTS)]
    made = set()

    def life(instance_id, n):
        token = uuid.uuid4().hex
        v = persist(lambda: ec2.create_volume(AvailabilityZone=zone, Size=1, ClientToken=token))["VolumeId"]
        made.add(v)
        wait_for("a volume", lambda: volume_state(ec2, v) == "available", LONG_S)
        persist(lambda: ec2.attach_volume(VolumeId=v, InstanceId=instance_id, Device=f"/dev/sd{chr(ord('f') + n)}"), "VolumeInUse")
        wait_for("an attachment", lambda: attached(ec2, v), LONG_S)
        # A repeated request is a second snapshot: those that were given up are gone all the same.
        persist(lambda: ec2.create_snapshot(VolumeId=v, Description="crash"))
        persist(lambda: ec2.detach_volume(VolumeId=v), "IncorrectState")
        wait_for("its end", lambda: volume_state(ec2, v) == "available", LONG_S)
        assert persist(lambda: ec2.create_volume(AvailabilityZone=zone, Size=1, ClientToken=token))["VolumeId"] == v
        persist(lambda: ec2.delete_volume(VolumeId=v), "InvalidVolume.NotFound")
        wait_for("nothing", lambda: volume_state(ec2, v) == "gone", LONG_S)

    def client(instance_id):
        for n in range(ROUNDS):
            life(instance_id, n)

    for i in instances:
        wait_state(ec2, i, "running")
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        work = [pool.submit(client, i) for i in instances]
        for n in range(KILLS):
            time.sleep(random.uniform(0.5, 3))
            daemon = ("clc", "sc", "nc")[n % 3]
            cloud.wait_restarted(daemon, cloud.kill(daemon), 60)
        for w in work:
            w.result()

    assert len(made) == CLIENTS * ROUNDS
    for s in persist(lambda: ec2.describe_snapshots(Filters=[{"Name": "description", "Values": ["crash"]}]))["Snapshots"]:
        wait_for("a snapshot", lambda: persist(lambda: ebs.snapshot(ec2, s["SnapshotId"]))["State"] == "completed", LONG_S)
        persist(lambda: ec2.delete_snapshot(SnapshotId=s["SnapshotId"]), "InvalidSnapshot.NotFound")
    wait_for("every record to be gone", lambda: not made & set(records(cloud, "volume")), LONG_S)
    wait_for("every snapshot to be gone", lambda: not [s for s in records(cloud, "snapshot").values()
                                                       if s.get("Description") == "crash"], LONG_S)
    assert all(not i.get("BlockDevices") for i in records(cloud, "instance").values() if i["InstanceId"] in instances)
    wait_for("every file to be gone", lambda: not [v for v in made if (cloud.state / "sc" / "volumes" / v).exists()], LONG_S)
