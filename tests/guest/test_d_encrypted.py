# SPDX-License-Identifier: Apache-2.0
"""An encrypted volume in a guest: what it writes is there for it, and for nobody who has the host's disks."""
import hashlib
import os
import signal
from pathlib import Path

import pytest

from guest import BOOT_S, Guest
from lib import ebs
from lib.atrest import files_with, needles_of, read_keys
from lib.cloud import wait_for

pytestmark = [pytest.mark.timeout(600)]

LINES = 8192


def text(seed):
    return "".join(f"{hashlib.sha256(f'{seed} {i}'.encode()).hexdigest()[:63]}\n" for i in range(LINES))


def disk_of(guest, volume_id):
    serial = volume_id.replace("-", "")
    find = f"grep -l {serial} /sys/block/*/serial 2>/dev/null | cut -d/ -f4"
    return "/dev/" + wait_for(f"{volume_id} in the guest", lambda: guest.ssh(find, check=False).stdout.strip(), 60, 1)


def attach(ec2, guest, volume_id, device):
    ec2.attach_volume(VolumeId=volume_id, InstanceId=guest.id, Device=device)
    ebs.wait_attached(ec2, volume_id, 120)
    return disk_of(guest, volume_id)


def detach(ec2, volume_id):
    ec2.detach_volume(VolumeId=volume_id)
    ebs.wait(ec2, "volume_available", VolumeIds=[volume_id])


def write(guest, disk, at, content):
    guest.ssh(f"dd of={disk} bs=4k seek={at} conv=fsync 2>/dev/null && sync", input=content)


def digest(guest, disk, at, size):
    return guest.ssh(f"dd if={disk} bs=4k skip={at} count={size // 4096} 2>/dev/null | sha256sum").split()[0]


def sha(content):
    return hashlib.sha256(content.encode()).hexdigest()


def make(ec2, **kw):
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    volume_id = ec2.create_volume(AvailabilityZone=zone, **kw)["VolumeId"]
    ebs.wait(ec2, "volume_available", VolumeIds=[volume_id])
    return volume_id


def kill_server(cloud, volume_id):
    """The mallee-blockd of a volume; its command line tells neither key nor data, only the key's file."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"mallee-blockd") and any(str(cloud.state).encode() in w and volume_id.encode() in w for w in words):
            assert any(w.startswith(b"crypt:key-file=/") for w in words)
            os.kill(int(entry.parent.name), signal.SIGKILL)
            return
    raise AssertionError(f"nobody serves {volume_id}")


def test_encrypted_volume(real_cloud, real_ec2, first):
    ec2, guest = real_ec2, first.wait_ssh()
    before, after = text("before"), text("after")
    size = len(before)
    needles = [content[i:i + 32].encode() for content in (before, after) for i in range(0, size, size // 16)]
    volume_id = make(ec2, Size=1, Encrypted=True)
    disk = attach(ec2, guest, volume_id, "/dev/sdf")
    assert digest(guest, disk, 0, 4 << 20) == hashlib.sha256(bytes(4 << 20)).hexdigest()  # zeroes, not rubbish
    write(guest, disk, 1024, before)
    snapshot_id = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    write(guest, disk, 1024, after)  # while the snapshot is read, perhaps
    ebs.wait(ec2, "snapshot_completed", SnapshotIds=[snapshot_id])
    assert ebs.snapshot(ec2, snapshot_id)["Encrypted"] is True
    keys = read_keys(real_cloud)
    (key,) = [path for path in keys if path.name == volume_id]
    assert key.stat().st_mode & 0o777 == 0o400 and key.stat().st_uid != 0
    assert files_with(real_cloud.state, needles) == set()
    for path, (_, content) in keys.items():
        assert files_with(real_cloud.state, needles_of(content), skip=keys) == set(), path
    assert digest(guest, disk, 1024, size) == sha(after)
    kill_server(real_cloud, volume_id)  # its successor reads the key again
    guest.ssh("echo 3 > /proc/sys/vm/drop_caches")
    assert digest(guest, disk, 1024, size) == sha(after)
    detach(ec2, volume_id)
    wait_for("the key to go with the attachment", lambda: not key.exists(), 60)
    # What it was, from the snapshot; and the volume itself again.
    copy = make(ec2, SnapshotId=snapshot_id)
    assert ebs.volume(ec2, copy)["Encrypted"] is True
    disk = attach(ec2, guest, copy, "/dev/sdg")
    assert digest(guest, disk, 1024, size) == sha(before)
    disk = attach(ec2, guest, volume_id, "/dev/sdf")
    assert digest(guest, disk, 1024, size) == sha(after)
    for attached in (copy, volume_id):
        detach(ec2, attached)
    assert files_with(real_cloud.state, needles) == set()
    for made in (copy, volume_id):
        ec2.delete_volume(VolumeId=made)
    ebs.wait(ec2, "volume_deleted", VolumeIds=[copy, volume_id])
    ec2.delete_snapshot(SnapshotId=snapshot_id)
    # The same with a plain volume is found: this test looks in the right places.
    plain = make(ec2, Size=1)
    write(guest, attach(ec2, guest, plain, "/dev/sdf"), 1024, before)
    detach(ec2, plain)
    assert any(plain in name for name in files_with(real_cloud.state, needles))
    ec2.delete_volume(VolumeId=plain)


def test_encrypted_root(real_cloud, real_ec2, image_id):
    """A plain image, a root that is encrypted: it boots, and what it writes is not seen."""
    ec2 = real_ec2
    (image,) = ec2.describe_images(ImageIds=[image_id])["Images"]
    (launched,) = ec2.run_instances(
        ImageId=image_id, InstanceType="t2.nano", MinCount=1, MaxCount=1, KeyName="mallee",
        BlockDeviceMappings=[{"DeviceName": image["RootDeviceName"], "Ebs": {"Encrypted": True}}])["Instances"]
    ec2.get_waiter("instance_running").wait(InstanceIds=[launched["InstanceId"]], WaiterConfig={"Delay": 1, "MaxAttempts": BOOT_S})
    guest = Guest(real_cloud, ec2, launched["InstanceId"], real_cloud.state / "keys" / "mallee").wait_ssh()
    try:
        (volume,) = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [guest.id]}])["Volumes"]
        assert volume["Encrypted"] is True
        content = text("root")
        guest.ssh("cat > /root/secret; sync; sync", input=content)
        assert files_with(real_cloud.state, [content[i:i + 40].encode() for i in range(0, len(content), 65536)]) == set()
        assert guest.ssh("sha256sum < /root/secret").split()[0] == sha(content)
    finally:
        ec2.terminate_instances(InstanceIds=[guest.id])
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[guest.id], WaiterConfig={"Delay": 1, "MaxAttempts": 120})
