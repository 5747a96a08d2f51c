# SPDX-License-Identifier: Apache-2.0
"""A guest that was launched through the API, looked at from inside."""
from lib.cloud import wait_for


def test_first_instance_answers(first):
    name = first.description["PrivateDnsName"]
    assert first.ssh("hostname") == name.partition(".")[0]
    assert first.ssh("imds meta-data/instance-id") == first.id


def test_only_keys_open_the_door(first, second):
    stranger = type(first)(first.cloud, first.ec2, first.id, second.key)
    assert stranger.ssh("true", check=False).returncode == 255


def test_created_key_and_host_name(second):
    assert second.ssh("hostname") == second.description["PrivateDnsName"].partition(".")[0]


def test_user_data_ran_once(second):
    wait_for("the user data to have run", lambda: second.ssh("test -s /root/user-data-ran", check=False).returncode == 0)
    assert second.ssh("cat /root/user-data-runs") == "run"


def test_console_output(real_ec2, second):
    def console():
        return real_ec2.get_console_output(InstanceId=second.id).get("Output", "")  # boto3 decodes it

    text = wait_for("the console to say ready", lambda: next((t for t in [console()] if " ready " + second.id in t), None), 120)
    assert "user data says hello from " + second.ssh("hostname") in text
    assert "SSH HOST KEY FINGERPRINTS" in text


def test_root_disk_fills_its_volume(second):
    sectors = int(second.ssh("cat /sys/block/vda/size"))
    kib = int(second.ssh("df -k / | tail -n 1").split()[1])
    assert kib * 2 > sectors * 0.9


def test_name_service(first, second):
    name = first.description["PrivateDnsName"]
    assert first.address in second.ssh(f"nslookup {name}")


def test_status_becomes_ok(real_ec2, second):
    real_ec2.get_waiter("instance_status_ok").wait(InstanceIds=[second.id], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    (status,) = real_ec2.describe_instance_status(InstanceIds=[second.id])["InstanceStatuses"]
    assert status["InstanceStatus"]["Details"][0]["Status"] == "passed"
