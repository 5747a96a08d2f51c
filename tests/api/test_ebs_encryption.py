# SPDX-License-Identifier: Apache-2.0
"""Encrypted volumes and snapshots: what the API shows, and that neither their data nor their keys lie about."""
import hashlib
import os
import signal

import pytest
from botocore.exceptions import ClientError

from lib import ebs
from lib.atrest import TMPFS, cloud_id, files_with, keys_at_hand, needles_of, read_keys
from lib.cloud import wait_for

MIB = 1 << 20


def pattern(seed, size):
    return b"".join(hashlib.sha256(f"{seed} {i}".encode()).digest() for i in range(size // 32))


def code_of(call):
    with pytest.raises(ClientError) as raised:
        call()
    return raised.value.response["Error"]["Code"]


def import_snapshot(ec2, s3, name, data, **kw):
    """A snapshot of 1 GiB that begins with data. The object, which is plain, is gone when this returns."""
    s3.create_bucket(Bucket=f"encryption-{name}")
    s3.put_object(Bucket=f"encryption-{name}", Key="disk", Body=data)
    task = ec2.import_snapshot(DiskContainer={"Format": "RAW", "UserBucket": {"S3Bucket": f"encryption-{name}", "S3Key": "disk"}}, **kw)
    snapshot_id = wait_for("the import to begin", lambda: task["SnapshotTaskDetail"].get("SnapshotId") or ec2.describe_import_snapshot_tasks(
        ImportTaskIds=[task["ImportTaskId"]])["ImportSnapshotTasks"][0]["SnapshotTaskDetail"].get("SnapshotId"))
    ebs.wait(ec2, "snapshot_completed", SnapshotIds=[snapshot_id])
    s3.delete_object(Bucket=f"encryption-{name}", Key="disk")
    s3.delete_bucket(Bucket=f"encryption-{name}")
    return snapshot_id


def test_data_and_keys_lie_nowhere(cloud, ec2, s3, make_volume, make_snapshot):
    data = pattern("secret", 8 * MIB)
    data_needles = [data[i:i + 24] for i in range(0, len(data), MIB)]
    snapshot_id = import_snapshot(ec2, s3, "secret", data, Encrypted=True)
    assert ebs.snapshot(ec2, snapshot_id)["Encrypted"] is True
    volume_id = make_volume(SnapshotId=snapshot_id)
    assert ebs.volume(ec2, volume_id)["Encrypted"] is True
    second = make_snapshot(volume_id)
    assert ebs.snapshot(ec2, second)["Encrypted"] is True
    again = make_volume(SnapshotId=second)
    copy = ec2.copy_snapshot(SourceSnapshotId=second, SourceRegion=ec2.meta.region_name)["SnapshotId"]
    ebs.wait(ec2, "snapshot_completed", SnapshotIds=[copy])
    keys = read_keys(cloud)
    assert any("/sc/keys/" in str(path) for path in keys) and any(path.name == snapshot_id for path in keys)
    for path, (mode, key) in keys.items():
        assert mode & 0o077 == 0
        assert len(key) in (32, 64)
        assert files_with(cloud.state, needles_of(key), skip=keys) == set(), path
    assert files_with(cloud.state, data_needles) == set()
    for made in (volume_id, again):
        ec2.delete_volume(VolumeId=made)
    ebs.wait(ec2, "volume_deleted", VolumeIds=[volume_id, again])
    for made in (copy, second, snapshot_id):
        ec2.delete_snapshot(SnapshotId=made)
    wait_for("the keys of what is served no more to go",
             lambda: not any(path.name in (snapshot_id, second, volume_id, again) for path in keys_at_hand(cloud)), 60)


def test_a_plain_snapshot_is_seen_and_its_encrypted_copy_is_not(cloud, ec2, s3, make_volume):
    """What the test above looks for would be found; and a copy is stored anew."""
    data = pattern("plain", 4 * MIB)
    needles = [data[i:i + 24] for i in range(0, len(data), MIB)]
    plain = import_snapshot(ec2, s3, "plain", data)
    assert ebs.snapshot(ec2, plain)["Encrypted"] is False
    assert files_with(cloud.state, needles)
    copy = ec2.copy_snapshot(SourceSnapshotId=plain, SourceRegion=ec2.meta.region_name, Encrypted=True)["SnapshotId"]
    ebs.wait(ec2, "snapshot_completed", SnapshotIds=[copy])
    assert ebs.snapshot(ec2, copy)["Encrypted"] is True
    volume_id = make_volume(SnapshotId=copy)
    encrypted_of_plain = make_volume(SnapshotId=plain, Encrypted=True)
    assert ebs.volume(ec2, volume_id)["Encrypted"] and ebs.volume(ec2, encrypted_of_plain)["Encrypted"]
    ec2.delete_volume(VolumeId=encrypted_of_plain)
    ebs.wait(ec2, "volume_deleted", VolumeIds=[encrypted_of_plain])
    ec2.delete_snapshot(SnapshotId=plain)
    wait_for("what was plain to go", lambda: not files_with(cloud.state, needles), 60)
    again = make_volume(SnapshotId=copy)  # the copy needs nothing of it
    assert ebs.volume(ec2, again)["State"] == "available"
    for made in (volume_id, again):
        ec2.delete_volume(VolumeId=made)
    ebs.wait(ec2, "volume_deleted", VolumeIds=[volume_id, again])
    ec2.delete_snapshot(SnapshotId=copy)


def test_storage_controller_starts_again(cloud, ec2, make_volume, make_snapshot):
    """With the keys that it had; also after they left memory with the host; and with a new master key beside the old one."""
    volume_id = make_volume(Encrypted=True)
    first = make_snapshot(volume_id)
    masters = cloud.state / "sc" / "keys"
    old = cloud.kill("sc", signal.SIGSTOP)  # so that its successor finds all of this done
    new_master = masters / "master-2"
    new_master.write_bytes(os.urandom(32))
    new_master.chmod(0o600)
    os.chown(new_master, masters.stat().st_uid, masters.stat().st_gid)
    for place in TMPFS:
        for folder in place.glob(f"mallee-keys-{cloud_id(cloud)}-sc"):
            for path in folder.iterdir():
                path.unlink()
    cloud.kill("sc")
    cloud.wait_restarted("sc", old)
    second = make_snapshot(volume_id)
    made = make_volume(SnapshotId=second)
    assert ebs.volume(ec2, made)["Encrypted"]
    assert ebs.snapshot(ec2, first)["Encrypted"] and ebs.snapshot(ec2, second)["Encrypted"]
    other = make_volume(SnapshotId=first)
    assert ebs.volume(ec2, other)["Encrypted"]
    assert "0 corrupt, 0 unreadable" in cloud.run("volume", "scrub").stdout


def test_by_default(ec2, make_volume):
    assert ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
    assert ec2.enable_ebs_encryption_by_default()["EbsEncryptionByDefault"] is True
    try:
        assert ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is True
        assert ebs.volume(ec2, make_volume())["Encrypted"] is True
    finally:
        assert ec2.disable_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
    assert ebs.volume(ec2, make_volume())["Encrypted"] is False


def test_a_launch(ec2, launch):
    (instance,) = launch(BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "Encrypted": True}}])["Instances"]
    wait_for("its volume", lambda: ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance["InstanceId"]]}])["Volumes"])
    found = ec2.describe_volumes(Filters=[{"Name": "encrypted", "Values": ["true"]},
                                          {"Name": "attachment.instance-id", "Values": [instance["InstanceId"]]}])["Volumes"]
    assert len(found) == 1


def test_an_image_says_no_more_than_its_snapshots(ec2, launch, ebs_running, ebs_image_id, snapshot_id):
    """Neither RegisterImage nor CreateImage encrypts what is there; a launch may."""
    def mapping(**ebs_device):
        return [{"DeviceName": "/dev/sda1", "Ebs": {"Encrypted": True, **ebs_device}}]

    of_snapshot = {"Name": "claims", "RootDeviceName": "/dev/sda1", "BlockDeviceMappings": mapping(SnapshotId=snapshot_id)}
    of_instance = {"Name": "claims", "InstanceId": ebs_running, "NoReboot": True, "BlockDeviceMappings": mapping()}
    assert code_of(lambda: ec2.register_image(**of_snapshot)) == "InvalidBlockDeviceMapping"
    assert code_of(lambda: ec2.create_image(**of_instance)) == "InvalidBlockDeviceMapping"
    (started,) = launch(ImageId=ebs_image_id, BlockDeviceMappings=mapping())["Instances"]
    (root,) = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [started["InstanceId"]]}])["Volumes"]
    assert root["Encrypted"] is True


def test_types_say_so(ec2):
    found = ec2.describe_instance_types(InstanceTypes=["t2.nano"])["InstanceTypes"][0]
    assert found["EbsInfo"]["EncryptionSupport"] == "supported"


def test_the_key_is_shown(ec2, make_volume, make_snapshot):
    """As it was given, which who compares it relies on; else as an ARN that is taken."""
    plain = make_volume()
    assert "KmsKeyId" not in ebs.volume(ec2, plain) and "KmsKeyId" not in ebs.snapshot(ec2, make_snapshot(plain))
    own = ebs.volume(ec2, make_volume(Encrypted=True))["KmsKeyId"]
    assert own.startswith(f"arn:aws:kms:{ec2.meta.region_name}:") and own.endswith(":alias/aws/ebs")
    given = "arn:aws:kms:eu-west-1:123456789012:alias/aws/ebs"
    for key in (own, given):
        v = make_volume(Encrypted=True, KmsKeyId=key)
        assert ebs.volume(ec2, v)["KmsKeyId"] == key
        assert ebs.snapshot(ec2, make_snapshot(v))["KmsKeyId"] == key


def test_other_keys_are_refused(ec2, zone):
    assert code_of(lambda: ec2.create_volume(AvailabilityZone=zone, Size=1, Encrypted=True, KmsKeyId="alias/mine")) == "InvalidParameterValue"
    assert code_of(lambda: ec2.create_volume(AvailabilityZone=zone, Size=1, KmsKeyId="alias/aws/ebs")) == "InvalidParameterDependency"
