# SPDX-License-Identifier: Apache-2.0
"""Daemons that are killed, guests that are rebooted, accounts beside each other."""
import botocore.exceptions
import pytest

from lib.instances import error_code, state, wait_state


@pytest.mark.parametrize("daemon", ["clc", "cc", "walrus", "sc", "nc", "supervisor"])
def test_killed_daemon_costs_nothing(real_cloud, real_ec2, first, daemon):
    boot_id = first.boot_id()
    pid = real_cloud.kill(daemon)
    if daemon == "supervisor":
        assert real_cloud.run("status", check=False).returncode == 1
        real_cloud.up("--no-instance")
    else:
        real_cloud.wait_restarted(daemon, pid)
    real_cloud.wait_healthy()
    assert state(real_ec2, first.id) == "running"
    assert first.boot_id() == boot_id
    assert first.http("GET", "/latest/meta-data/instance-id") == (200, first.id)


def test_launching_again_changes_nothing(real_cloud, real_ec2, first):
    before = [i["InstanceId"] for r in real_ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    real_cloud.up(timeout=300)
    after = [i["InstanceId"] for r in real_ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    assert sorted(before) == sorted(after)


def test_second_account_sees_nothing(real_client, first):
    other = real_client("ec2", account="neighbour")
    assert other.describe_instances()["Reservations"] == []
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        other.terminate_instances(InstanceIds=[first.id])
    assert error_code(raised) == "InvalidInstanceID.NotFound"
    assert other.describe_key_pairs()["KeyPairs"] == []


def test_reboot(real_ec2, second):
    boot_id = second.boot_id()
    second.ssh("echo kept > /root/kept; sync")
    real_ec2.reboot_instances(InstanceIds=[second.id])
    from lib.cloud import wait_for

    def rebooted():
        done = second.ssh("cat /proc/sys/kernel/random/boot_id", check=False)
        return done.returncode == 0 and done.stdout.strip() != boot_id
    wait_for("the guest to come back with another boot id", rebooted, 300, 1)
    assert second.ssh("cat /root/kept") == "kept"
    assert second.ssh("cat /root/user-data-runs") == "run"
    assert state(real_ec2, second.id) == "running"


def test_guest_powers_itself_off(real_ec2, second):
    """It is stopped then, and can be started again."""
    second.ssh("echo kept > /root/kept-by-poweroff; poweroff", check=False)
    wait_state(real_ec2, second.id, "stopped", 60)
    assert second.description["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    real_ec2.start_instances(InstanceIds=[second.id])
    wait_state(real_ec2, second.id, "running", 120)
    second.wait_ssh()
    assert second.ssh("cat /root/kept-by-poweroff") == "kept"
