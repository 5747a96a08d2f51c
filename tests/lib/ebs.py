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


def image(ec2, image_id):
    (found,) = ec2.describe_images(ImageIds=[image_id])["Images"]
    return found


def wait_volume(ec2, volume_id, name, timeout_s=60):
    return wait_for(f"{volume_id} to be {name}", lambda: volume(ec2, volume_id)["State"] == name, timeout_s)


def volume_gone(ec2, volume_id):
    found = ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [volume_id]}])["Volumes"]
    return not found or found[0]["State"] == "deleted"


def wait_snapshot(ec2, snapshot_id, name="completed", timeout_s=120):
    def there():
        now = snapshot(ec2, snapshot_id)
        assert now["State"] in ("pending", name), now
        return now["State"] == name
    return wait_for(f"{snapshot_id} to be {name}", there, timeout_s)


def wait_image(ec2, image_id, name="available", timeout_s=120):
    def there():
        now = image(ec2, image_id)
        assert now["State"] in ("pending", name), now
        return now["State"] == name
    return wait_for(f"{image_id} to be {name}", there, timeout_s)


def import_task(ec2, task_id):
    (task,) = ec2.describe_import_snapshot_tasks(ImportTaskIds=[task_id])["ImportSnapshotTasks"]
    return task["SnapshotTaskDetail"]


def wait_imported(ec2, task_id, timeout_s=60):
    def there():
        detail = import_task(ec2, task_id)
        assert detail["Status"] in ("active", "completed"), detail
        return detail["Status"] == "completed" and detail
    return wait_for(f"{task_id} to be completed", there, timeout_s)


def mappings(instance):
    """{device name: its Ebs}"""
    return {m["DeviceName"]: m["Ebs"] for m in instance["BlockDeviceMappings"]}
