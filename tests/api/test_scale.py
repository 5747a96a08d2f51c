# SPDX-License-Identifier: Apache-2.0
"""Ten thousand instances on the fake driver: they start, are shown in pages, cost nothing while nothing happens, survive a
killed controller, and end."""
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from lib import aws
from lib.cloud import Cloud, wait_for

MANY, BATCH = 10000, 1000
IDLE_CPU_PERCENT = 10

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def big():
    cloud = Cloud("fake", MALLEE_SUBNET="10.64.0.0/16")
    try:
        cloud.up("--no-instance")
        yield cloud
    finally:
        cloud.destroy()


def counts(cloud):
    text = cloud.get(cloud.port("ops-clc"), "/metrics")[1]
    return {line.split('"')[1]: int(line.split()[-1]) for line in text.splitlines()
            if line.startswith("mallee_clc_instances{")}


def cpu_percent(pid, seconds):
    def ticks():
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(words[11]) + int(words[12])

    before = ticks()
    time.sleep(seconds)
    return (ticks() - before) / seconds


def test_ten_thousand(big):
    clients = aws.Clients(big)
    ec2, s3 = clients("ec2"), clients("s3")
    s3.create_bucket(Bucket="scale")
    s3.put_object(Bucket="scale", Key="disk", Body=b"x" * 4096)
    image = ec2.register_image(Name="scale", ImageLocation="scale/disk")["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    for _ in range(MANY // BATCH):
        ec2.run_instances(ImageId=image, InstanceType="t2.nano", MinCount=BATCH, MaxCount=BATCH)
    wait_for("all to run", lambda: counts(big)["running"] == MANY, 900, 2)

    pages = ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000})
    shown = [i for p in pages for r in p["Reservations"] for i in r["Instances"]]
    ids = [i["InstanceId"] for i in shown]
    assert len(set(ids)) == len(ids) == MANY
    assert len({i["PrivateIpAddress"] for i in shown}) == MANY

    for daemon in ("clc", "cc"):
        assert cpu_percent(big.pid(daemon), 10) < IDLE_CPU_PERCENT, daemon

    for daemon in ("clc", "cc"):
        big.wait_restarted(daemon, big.kill(daemon), 60)
    one = dict(ImageId=image, InstanceType="t2.nano", MinCount=1, MaxCount=1)
    with pytest.raises(ClientError, match="InstanceLimitExceeded"):
        ec2.run_instances(**one)
    gone = ids.pop()
    ec2.terminate_instances(InstanceIds=[gone])
    wait_for("one to end", lambda: counts(big)["terminated"] == 1, 120)
    ids += [i["InstanceId"] for i in ec2.run_instances(**one)["Instances"]]
    wait_for("its successor to run", lambda: counts(big)["running"] == MANY, 120)

    for first in range(0, len(ids), BATCH):
        ec2.terminate_instances(InstanceIds=ids[first:first + BATCH])
    wait_for("all to end", lambda: counts(big)["terminated"] == MANY + 1, 900, 2)
