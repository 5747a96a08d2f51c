# SPDX-License-Identifier: Apache-2.0
"""Live figures of real guests: what one does is on `mallee top`, and what holds it back is named."""
import contextlib
import json
import os
import signal
import subprocess

import pytest

from lib.cloud import wait_for
from lib.ebs import volume, wait_volume
from lib.instances import instance


def figures(cloud, guest):
    """What the node says of the guest, over the last second."""
    reply = json.loads(cloud.run("top", "--json", "--interval", "1").stdout)
    (found,) = [i for i in reply["Instances"] if i["InstanceId"] == guest.id]
    return reply["Host"], found


@contextlib.contextmanager
def working(guest, command):
    """The command again and again in the guest, meanwhile."""
    guest.ssh(f"touch /tmp/on; (while test -e /tmp/on; do {command}; done) > /tmp/working 2>&1 < /dev/null &")
    try:
        yield
    except AssertionError:
        print(guest.ssh("tail -n 5 /tmp/working", check=False).stdout)
        raise
    finally:
        guest.ssh("rm -f /tmp/on")


def disk_of(found, name):
    return next((d for d in found["Disks"] if d["Name"] == name), None)


def value(metrics, name):
    """-1 when it was not measured this time."""
    return next((m["Value"] for m in metrics if m["Name"] == name), -1)


def test_a_writing_guest(real_cloud, first):
    root = next(m["Ebs"]["VolumeId"] for m in first.description["BlockDeviceMappings"])
    seen = {}

    def writes():
        """The disk, out of an interval in which it was written to and all was measured."""
        seen["host"], seen["guest"] = host, found = figures(real_cloud, first)
        disk = disk_of(found, root) or {}
        guest = disk.get("Guest", {})
        written = guest.get("WriteMbS", 0) > 0.2 and guest.get("AwaitMs", 0) > 0 and disk["Storage"].get("WriteIops", 0) > 0
        measured = host.get("CpuPercent", 0) > 0 and found.get("BusiestCpuPercent", 0) > 0 and found.get("Nics")
        return written and measured and disk.get("HeldBackBy") and disk

    def shown():
        text = real_cloud.run("top").stdout
        return first.id in text and root in text and "storage" in text

    def exported():
        metrics = real_cloud.get(real_cloud.port("ops-nc"), "/metrics")[1]
        return f'mallee_instance_disk_ops_total{{instance="{first.id}",volume="{root}",device="/dev/sda1",op="write"}}' in metrics

    with working(first, "dd if=/dev/zero of=/root/figures bs=64k count=200 oflag=direct"):
        disk = wait_for("the guest's writes to be seen", writes, 60, 0.5)
        wait_for("top to show it", shown)
        wait_for("the metrics to tell it", exported)
    first.ssh("rm /root/figures")
    guest = disk["Guest"]
    assert disk["Kind"] == "volume" and disk["LimitIops"] == 3000 and disk["HeldBackBy"]
    assert 8 <= guest["RequestSectors"] <= 1024 and 0 < guest["UtilPercent"] <= 100 and guest["AwaitMs"] > 0
    assert value(disk["Metrics"], "VolumeWriteOps") > 0 and value(disk["Metrics"], "VolumeIdleTime") >= 0
    found = seen["guest"]
    assert 0 < found["CpuPercent"] <= 100 and found["BusiestCpuPercent"] > 0
    assert value(found["Metrics"], "EBSWriteBytes") > 0 and value(found["Metrics"], "CPUUtilization") > 0
    (nic,) = found["Nics"]
    assert nic["Device"] == first.tap and nic["NetworkInterfaceId"].startswith("eni-")
    assert 0 < seen["host"]["CpuPercent"] <= 100 and seen["host"]["SamplerPercent"] < 5
    if "HostDevice" in disk:  # not on overlay and the like
        assert disk["HostDevice"] in {d["Device"] for d in seen["host"]["Disks"]}


def test_network_is_the_guests(real_cloud, first):
    """NetworkIn is what the guest receives, and not what its tap does."""
    before = value(figures(real_cloud, first)[1]["Metrics"], "NetworkIn")
    sink = subprocess.Popen(["/usr/bin/ssh", "-i", str(first.key), "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
                             "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", f"root@{first.address}",
                             "cat > /dev/null"], stdin=subprocess.PIPE)
    try:
        def arrives():
            with contextlib.suppress(BrokenPipeError):
                sink.stdin.write(bytes(1 << 20))
            metrics = figures(real_cloud, first)[1]["Metrics"]
            into, out = value(metrics, "NetworkIn"), value(metrics, "NetworkOut")
            return into > max(before, 100_000) and into > 2 * out
        wait_for("the guest to receive", arrives, 60, 0.1)
    finally:
        sink.kill()
        sink.wait()


@pytest.fixture
def slow_volume(real_ec2, first):
    """100 requests a second, none saved up."""
    zone = instance(real_ec2, first.id)["Placement"]["AvailabilityZone"]
    volume_id = real_ec2.create_volume(AvailabilityZone=zone, VolumeType="io2", Size=4, Iops=100)["VolumeId"]
    wait_volume(real_ec2, volume_id, "available")
    real_ec2.attach_volume(InstanceId=first.id, VolumeId=volume_id, Device="/dev/sdk")
    wait_for(f"{volume_id} to be attached", lambda: volume(real_ec2, volume_id)["Attachments"][0]["State"] == "attached", 120)
    path = "/dev/disk/by-id/virtio-" + volume_id.replace("-", "")
    wait_for("the guest to find it", lambda: first.ssh(f"test -b {path}", check=False).returncode == 0, 60, 1)
    yield volume_id, path
    real_ec2.detach_volume(VolumeId=volume_id)
    wait_volume(real_ec2, volume_id, "available", 120)
    real_ec2.delete_volume(VolumeId=volume_id)


def server_of(cloud, volume_id):
    control = f"{cloud.state}/nc/volumes/{volume_id}/control.sock"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if control.encode() in f.read().split(b"\0"):
                    return int(pid)
    return None


def test_throttled_volume_is_named(real_cloud, first, slow_volume):
    volume_id, path = slow_volume

    def limited():
        return disk_of(figures(real_cloud, first)[1], volume_id) or {}

    def rules():
        return [f["Rule"] for f in limited().get("HeldBackBy", [])]

    def root_is_measured():
        root = figures(real_cloud, first)[1]["Disks"][0]
        return root["Name"] != volume_id and "Guest" in root

    with working(first, f"dd if={path} of=/dev/null bs=4k count=500 iflag=direct"):
        wait_for("the limit to be named", lambda: "volume-limit" in rules(), 60, 0.5)
        wait_for("top to name it", lambda: "HELD BACK: volume-limit" in real_cloud.run("top").stdout)
        # Its process stops: nobody waits for it, and it says so; then it dies, and its successor is counted anew.
        pid = server_of(real_cloud, volume_id)
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for("its silence to be seen", lambda: "does not answer" in limited().get("WhyEmpty", ""), 30, 0.5)
            wait_for("the root to be measured nevertheless", root_is_measured, 30, 0.5)
        finally:
            os.kill(pid, signal.SIGKILL)
        wait_for("its successor to be measured", lambda: "volume-limit" in rules(), 90, 0.5)
    wait_for("its metrics", lambda: value(limited().get("Metrics", []), "VolumeReadOps") >= 0)
