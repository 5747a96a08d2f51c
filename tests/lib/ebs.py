# SPDX-License-Identifier: Apache-2.0
"""Short ways to look at volumes and snapshots."""
from .cloud import wait_for

QUICK = {"Delay": 1, "MaxAttempts": 60}


def volume(ec2, volume_id):
    (found,) = ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
    return found


def snapshot(ec2, snapshot_id):
    (found,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    return found


def attachment_state(ec2, volume_id):
    """Of the volume's one attachment; "detached" when it has none."""
    attachments = volume(ec2, volume_id)["Attachments"]
    return attachments[0]["State"] if attachments else "detached"


def wait(ec2, waiter, **kw):
    ec2.get_waiter(waiter).wait(WaiterConfig=QUICK, **kw)


def wait_attached(ec2, volume_id, timeout_s=60):
    return wait_for(f"{volume_id} to be attached", lambda: attachment_state(ec2, volume_id) == "attached", timeout_s)


def wait_modified(ec2, volume_id, timeout_s=60):
    def done():
        (found,) = ec2.describe_volumes_modifications(VolumeIds=[volume_id])["VolumesModifications"]
        return found["ModificationState"] == "completed" and found

    return wait_for(f"{volume_id} to be modified", done, timeout_s)
