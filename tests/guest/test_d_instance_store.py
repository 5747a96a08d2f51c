# SPDX-License-Identifier: Apache-2.0
"""The other kind of root, a disk of the node's: it is made from the image's object and ends with the instance."""
import json

import botocore.exceptions
import pytest

from guest import Guest
from lib.cloud import BUILD, wait_for
from lib.instances import error_code, wait_state


@pytest.fixture(scope="module")
def store_guest(real_cloud, real_ec2, second):
    tiny = BUILD / "cache" / "tiny.raw"
    image = real_cloud.run("image", "import", tiny, "--name", "tiny-store", "--root-device-type", "instance-store",
                           timeout=300).stdout.split()[-1]
    (launched,) = real_ec2.run_instances(ImageId=image, InstanceType="t2.nano", MinCount=1, MaxCount=1, KeyName="guest-test")["Instances"]
    guest = Guest(real_cloud, real_ec2, launched["InstanceId"], second.key)
    wait_state(real_ec2, guest.id, "running", 120)
    yield guest.wait_ssh()
    real_ec2.deregister_image(ImageId=image)


def test_it_is_the_nodes_disk(store_guest):
    shown = store_guest.description
    assert (shown["RootDeviceType"], shown["BlockDeviceMappings"]) == ("instance-store", [])
    assert store_guest.ssh("cat /sys/block/vda/serial") == ""


def test_its_figures_are_qemus(real_cloud, store_guest):
    """QEMU has the file open itself, and is asked; it does not count for how long a request was outstanding."""
    def written():
        store_guest.ssh("dd if=/dev/zero of=/root/x bs=64k count=100 conv=fsync 2> /dev/null; rm /root/x")
        reply = json.loads(real_cloud.run("top", "--json").stdout)
        (disk,) = next(i for i in reply["Instances"] if i["InstanceId"] == store_guest.id)["Disks"]
        return disk.get("Guest", {}).get("WriteMbS", 0) > 0.1 and disk

    disk = wait_for("the guest's writes to be seen", written, 60, 1)
    assert (disk["Kind"], disk["Name"]) == ("file", "root") and "Storage" not in disk
    assert disk["Guest"]["FlushesS"] > 0 and disk["Guest"]["QueueSize"] > 0 and "UtilPercent" not in disk["Guest"]
    assert disk["HeldBackBy"]


def test_it_cannot_be_stopped(real_ec2, store_guest):
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        real_ec2.stop_instances(InstanceIds=[store_guest.id])
    assert error_code(raised) == "UnsupportedOperation"


def test_reboot_keeps_it(real_ec2, store_guest):
    boot_id = store_guest.boot_id()
    store_guest.ssh("echo kept > /root/kept; sync")
    real_ec2.reboot_instances(InstanceIds=[store_guest.id])
    wait_for("the guest to come back with another boot id", lambda: (r := store_guest.ssh(
        "cat /proc/sys/kernel/random/boot_id", check=False)).returncode == 0 and r.stdout.strip() != boot_id, 300, 1)
    assert store_guest.ssh("cat /root/kept") == "kept"


def test_powering_off_ends_it(real_ec2, store_guest):
    store_guest.ssh("poweroff", check=False)
    wait_state(real_ec2, store_guest.id, "terminated", 60)
    assert store_guest.description["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    with pytest.raises(botocore.exceptions.WaiterError):
        real_ec2.get_waiter("instance_running").wait(InstanceIds=[store_guest.id], WaiterConfig={"Delay": 1, "MaxAttempts": 5})
    real_ec2.get_waiter("instance_terminated").wait(InstanceIds=[store_guest.id], WaiterConfig={"Delay": 1, "MaxAttempts": 5})
