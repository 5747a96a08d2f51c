# SPDX-License-Identifier: Apache-2.0
"""Volumes and real guests: what is written on one is there wherever it is attached, in its snapshots, and after stops. The guests
are the two that others use, which are told apart by what their volumes hold."""
import os
import signal
import uuid
from contextlib import contextmanager

import pytest
from botocore.exceptions import ClientError

from lib.cloud import wait_for
from lib.ebs import image, mappings, volume, volume_gone, wait_image, wait_snapshot, wait_volume
from lib.instances import error_code, instance, state, wait_state

GIB = 1 << 30
ROOT = "/dev/sda1"


def name_of(volume_id):
    """Where the guest finds it: udev's name of a virtio disk, by the serial that is the volume's id without its hyphen."""
    return "/dev/disk/by-id/virtio-" + volume_id.replace("-", "")


def there(guest, volume_id):
    return guest.ssh(f"test -b {name_of(volume_id)}", check=False).returncode == 0


def attach(ec2, guest, volume_id, device):
    ec2.attach_volume(InstanceId=guest.id, VolumeId=volume_id, Device=device)
    wait_for(f"{volume_id} to be attached", lambda: volume(ec2, volume_id)["Attachments"][0]["State"] == "attached", 120)
    wait_for(f"the guest to find {volume_id}", lambda: there(guest, volume_id), 60, 1)


def detach(ec2, guest, volume_id):
    ec2.detach_volume(VolumeId=volume_id)
    wait_volume(ec2, volume_id, "available", 120)
    wait_for(f"the guest to lose {volume_id}", lambda: not there(guest, volume_id), 60, 1)


def digest(guest, path, mib):
    return guest.ssh(f"dd if={path} bs=1M count={mib} 2> /dev/null | sha256sum", timeout=120).split()[0]


@pytest.fixture
def zone(real_ec2, first):
    return instance(real_ec2, first.id)["Placement"]["AvailabilityZone"]


@pytest.fixture
def new_volume(real_ec2, zone):
    """new_volume(**parameters): its id, once it is available. Gone afterwards."""
    made = []

    def make(**kw):
        made.append(real_ec2.create_volume(AvailabilityZone=zone, **{"VolumeType": "gp3", **kw})["VolumeId"])
        wait_volume(real_ec2, made[-1], "available")
        return made[-1]

    yield make
    for volume_id in made:
        if volume_gone(real_ec2, volume_id):
            continue
        if volume(real_ec2, volume_id)["Attachments"]:  # a test that failed
            real_ec2.detach_volume(VolumeId=volume_id, Force=True)
            wait_volume(real_ec2, volume_id, "available", 120)
        real_ec2.delete_volume(VolumeId=volume_id)


def digest_of_copy(ec2, guest, new_volume, snapshot, mib):
    """What a volume of the snapshot begins with, as a guest reads it."""
    copy = new_volume(SnapshotId=snapshot)
    attach(ec2, guest, copy, "/dev/sdg")
    found = digest(guest, name_of(copy), mib)
    detach(ec2, guest, copy)
    ec2.delete_volume(VolumeId=copy)
    return found


@pytest.fixture
def drop_snapshots(real_ec2):
    """A list: snapshots that end with the test."""
    made = []
    yield made
    for snapshot_id in made:
        real_ec2.delete_snapshot(SnapshotId=snapshot_id)


def test_root_is_a_volume(real_ec2, first):
    root = mappings(first.description)[ROOT]
    assert (first.description["RootDeviceType"], root["Status"]) == ("ebs", "attached")
    assert first.ssh(f"readlink -f {name_of(root['VolumeId'])}") == "/dev/vda"
    assert int(first.ssh("cat /sys/block/vda/size")) * 512 == volume(real_ec2, root["VolumeId"])["Size"] * GIB
    grown = 0.9 * volume(real_ec2, root["VolumeId"])["Size"] * GIB / 1024
    wait_for("the file system to fill the volume", lambda: int(first.ssh("df -P -k / | awk 'NR == 2 { print $2 }'")) > grown, 60, 1)


def test_same_bytes_elsewhere(real_ec2, first, second, new_volume, drop_snapshots):
    """Written by one guest; read by another; of a snapshot; and the first is as it was."""
    disk = new_volume(Size=1)
    attach(real_ec2, first, disk, "/dev/sdf")
    path = name_of(disk)
    assert int(first.ssh(f"cat /sys/block/$(basename $(readlink -f {path}))/size")) * 512 == GIB
    assert first.ssh(f"head -c 1048576 {path} | tr -d '\\0' | wc -c") == "0"  # new ones are empty
    first.ssh(f"dd if=/dev/urandom of={path} bs=1M count=24 && sync", timeout=120)
    written = digest(first, path, 24)
    detach(real_ec2, first, disk)

    attach(real_ec2, second, disk, "/dev/sdf")
    assert digest(second, path, 24) == written
    snapshot = real_ec2.create_snapshot(VolumeId=disk)["SnapshotId"]  # of one that is attached
    drop_snapshots.append(snapshot)
    second.ssh(f"dd if=/dev/zero of={path} bs=1M count=24 && sync", timeout=120)
    wait_snapshot(real_ec2, snapshot)
    detach(real_ec2, second, disk)

    assert digest_of_copy(real_ec2, first, new_volume, snapshot, 24) == written  # a snapshot is of the moment when its request was answered


@contextmanager
def nothing_is_stored(cloud):
    """Walrus, where snapshots go, is dead, and nobody starts it."""
    supervisor, walrus = cloud.kill("supervisor", signal.SIGSTOP), cloud.pid("walrus")
    try:
        os.kill(walrus, signal.SIGKILL)
        yield
    finally:
        os.kill(supervisor, signal.SIGCONT)
    cloud.wait_restarted("walrus", walrus)


def test_attached_before_its_snapshot_is_stored(real_cloud, real_ec2, first, new_volume, drop_snapshots):
    """A snapshot of a detached volume, which a guest then has and overwrites before any of it was stored."""
    disk = new_volume(Size=1)
    path = name_of(disk)
    attach(real_ec2, first, disk, "/dev/sdf")
    first.ssh(f"dd if=/dev/urandom of={path} bs=1M count=8 && sync", timeout=120)
    written = digest(first, path, 8)
    detach(real_ec2, first, disk)
    with nothing_is_stored(real_cloud):
        snapshot = real_ec2.create_snapshot(VolumeId=disk)["SnapshotId"]
        drop_snapshots.append(snapshot)
        attach(real_ec2, first, disk, "/dev/sdf")
        first.ssh(f"dd if=/dev/zero of={path} bs=1M count=8 && sync", timeout=120)
    wait_snapshot(real_ec2, snapshot)
    detach(real_ec2, first, disk)
    assert digest_of_copy(real_ec2, first, new_volume, snapshot, 8) == written


def test_snapshot_is_of_one_moment(real_ec2, first, new_volume, drop_snapshots):
    """ext4, mounted and written to all the while: a volume of the snapshot mounts after its journal has been replayed, and is clean."""
    disk = new_volume(Size=1)
    attach(real_ec2, first, disk, "/dev/sdf")
    path = name_of(disk)
    first.ssh(f"""mkfs.ext4 -q {path} && mkdir -p /mnt/one && mount -t ext4 {path} /mnt/one
        cat > /tmp/writer <<'END'
            n=0
            while [ -e /mnt/one/go ]; do
                n=$((n + 1))
                head -c 65536 /dev/urandom > /mnt/one/file.$((n % 50))
                echo $n > /mnt/one/count.new && sync && mv /mnt/one/count.new /mnt/one/count
            done
END
        touch /mnt/one/go
        setsid sh /tmp/writer < /dev/null > /dev/null 2>&1 &""", timeout=120)
    wait_for("the writer to write", lambda: first.ssh("cat /mnt/one/count 2> /dev/null || echo 0") not in ("0", ""), 60, 1)
    before = int(first.ssh("cat /mnt/one/count"))
    snapshot = real_ec2.create_snapshot(VolumeId=disk)["SnapshotId"]
    drop_snapshots.append(snapshot)
    wait_snapshot(real_ec2, snapshot)
    after = int(first.ssh("rm /mnt/one/go; sleep 2; cat /mnt/one/count"))
    first.ssh("umount /mnt/one")
    detach(real_ec2, first, disk)

    copy = new_volume(SnapshotId=snapshot)
    attach(real_ec2, first, copy, "/dev/sdg")
    first.ssh(f"mkdir -p /mnt/two && mount -t ext4 {name_of(copy)} /mnt/two", timeout=120)
    count = int(first.ssh("cat /mnt/two/count"))
    first.ssh("umount /mnt/two")
    checked = first.ssh(f"e2fsck -f -n {name_of(copy)}", check=False, timeout=120)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    detach(real_ec2, first, copy)
    assert before - 1 <= count <= after  # the last one that was seen may not have been on the disk yet


def test_grow_under_a_running_guest(real_ec2, first, new_volume):
    disk = new_volume(Size=1)
    attach(real_ec2, first, disk, "/dev/sdf")
    path = name_of(disk)
    first.ssh(f"mkfs.ext4 -q {path} && mkdir -p /mnt/one && mount -t ext4 {path} /mnt/one && echo kept > /mnt/one/kept", timeout=120)
    real_ec2.modify_volume(VolumeId=disk, Size=2)
    size = f"cat /sys/block/$(basename $(readlink -f {path}))/size"
    wait_for("the guest to see the new size", lambda: int(first.ssh(size)) * 512 == 2 * GIB, 60, 1)
    first.ssh(f"resize2fs {path}", timeout=120)
    assert int(first.ssh("df -P -k /mnt/one | awk 'NR == 2 { print $2 }'")) > 1.8 * GIB / 1024
    assert first.ssh("cat /mnt/one/kept; umount /mnt/one") == "kept"
    detach(real_ec2, first, disk)
    assert volume(real_ec2, disk)["Size"] == 2


@pytest.mark.parametrize("daemon", ["nc", "sc", "clc"])
def test_killed_daemon_costs_the_guest_nothing(real_cloud, real_ec2, first, new_volume, daemon):
    """A guest writes on and reads back while who serves its volume's control is killed."""
    disk = new_volume(Size=1)
    attach(real_ec2, first, disk, "/dev/sdf")
    first.ssh(f"dd if=/dev/urandom of={name_of(disk)} bs=1M count=8 && sync")
    written = digest(first, name_of(disk), 8)
    real_cloud.wait_restarted(daemon, real_cloud.kill(daemon))
    first.ssh("echo 3 > /proc/sys/vm/drop_caches")
    assert digest(first, name_of(disk), 8) == written
    real_cloud.wait_healthy()
    detach(real_ec2, first, disk)


def test_what_a_volume_refuses(real_ec2, first, second, new_volume):
    disk = new_volume(Size=1)
    attach(real_ec2, first, disk, "/dev/sdf")
    for code, act in [("VolumeInUse", lambda: real_ec2.attach_volume(InstanceId=second.id, VolumeId=disk, Device="/dev/sdf")),
                      ("VolumeInUse", lambda: real_ec2.delete_volume(VolumeId=disk))]:
        with pytest.raises(ClientError) as raised:
            act()
        assert error_code(raised) == code
    detach(real_ec2, first, disk)


def test_stop_and_start_keep_all(real_ec2, second, new_volume):
    disk = new_volume(Size=1)
    attach(real_ec2, second, disk, "/dev/sdf")
    second.ssh(f"echo kept > /root/kept-by-stop; dd if=/dev/urandom of={name_of(disk)} bs=1M count=4")  # no sync: it is shut down
    written, boot_id, before = digest(second, name_of(disk), 4), second.boot_id(), second.description
    real_ec2.stop_instances(InstanceIds=[second.id])
    wait_state(real_ec2, second.id, "stopped", 180)
    assert {m["Ebs"]["Status"] for m in second.description["BlockDeviceMappings"]} == {"attached"}
    real_ec2.start_instances(InstanceIds=[second.id])
    wait_state(real_ec2, second.id, "running", 180)
    second.wait_ssh()
    assert second.boot_id() != boot_id
    assert second.ssh("cat /root/kept-by-stop") == "kept"
    assert digest(second, name_of(disk), 4) == written
    assert second.address == before["PrivateIpAddress"]
    assert mappings(second.description)[ROOT]["VolumeId"] == mappings(before)[ROOT]["VolumeId"]
    detach(real_ec2, second, disk)


def test_image_of_a_running_instance(real_cloud, real_ec2, second):
    """The guest is shut down for it and comes back by itself, before anything was stored; what it had written and not synced is in
    the image, and not what it writes after."""
    word = uuid.uuid4().hex
    second.ssh(f"echo {word} > /root/word")
    boot_id = second.boot_id()
    with nothing_is_stored(real_cloud):
        made = real_ec2.create_image(InstanceId=second.id, Name="guest-test")["ImageId"]
        wait_for("the guest to have been off", lambda: (r := second.ssh("cat /proc/sys/kernel/random/boot_id", check=False))
                 .returncode == 0 and r.stdout.strip() != boot_id, 300, 1)
        assert state(real_ec2, second.id) == "running"
        second.ssh("echo later > /root/word && sync")
    wait_image(real_ec2, made, timeout_s=300)
    (launched,) = real_ec2.run_instances(ImageId=made, InstanceType="t2.nano", MinCount=1, MaxCount=1, KeyName="guest-test")["Instances"]
    third = type(second)(real_cloud, real_ec2, launched["InstanceId"], second.key)
    try:
        wait_state(real_ec2, third.id, "running", 180)
        third.wait_ssh()
        assert third.ssh("cat /root/word") == word
        assert third.ssh("hostname") != second.ssh("hostname")
    finally:
        real_ec2.terminate_instances(InstanceIds=[third.id])
        wait_state(real_ec2, third.id, "terminated", 120)
    snapshots = [m["Ebs"]["SnapshotId"] for m in image(real_ec2, made)["BlockDeviceMappings"]]
    real_ec2.deregister_image(ImageId=made)
    for snapshot_id in snapshots:
        real_ec2.delete_snapshot(SnapshotId=snapshot_id)
    wait_for("the root to be gone", lambda: volume_gone(real_ec2, mappings(launched)[ROOT]["VolumeId"]), 60)
