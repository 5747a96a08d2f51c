# SPDX-License-Identifier: Apache-2.0
"""Volumes of instances by boto3 and `aws`: attached, shown, detached, gone with the instance or not. The fake driver's guests
take every volume and let go of it when they are asked."""
import uuid

import pytest
from botocore.exceptions import ClientError
from lib import ebs
from lib.cloud import wait_for
from lib.instances import error_code, instance, wait_state


def attach(ec2, volume_id, instance_id, device="/dev/sdf"):
    answer = ec2.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device=device)
    ebs.wait_attached(ec2, volume_id)
    return answer


def test_attach_and_detach(ec2, running, make_volume):
    v = make_volume()
    answer = attach(ec2, v, running)
    assert (answer["State"], answer["Device"], answer["DeleteOnTermination"]) == ("attaching", "/dev/sdf", False)
    ebs.wait(ec2, "volume_in_use", VolumeIds=[v])
    (shown,) = ebs.volume(ec2, v)["Attachments"]
    assert (shown["InstanceId"], shown["State"], shown["VolumeId"], shown["Device"]) == (running, "attached", v, "/dev/sdf")
    (device,) = [d for d in instance(ec2, running)["BlockDeviceMappings"] if d["DeviceName"] == "/dev/sdf"]
    assert device["Ebs"]["VolumeId"] == v
    for call, code in ((lambda: ec2.delete_volume(VolumeId=v), "VolumeInUse"),
                       (lambda: ec2.attach_volume(VolumeId=v, InstanceId=running, Device="/dev/sdg"), "VolumeInUse"),
                       (lambda: ec2.detach_volume(VolumeId=v, Device="/dev/sdz"), "InvalidAttachment.NotFound")):
        with pytest.raises(ClientError) as e:
            call()
        assert error_code(e) == code
    assert ec2.detach_volume(VolumeId=v, InstanceId=running, Device="/dev/sdf")["State"] == "detaching"
    ebs.wait(ec2, "volume_available", VolumeIds=[v])
    assert ebs.volume(ec2, v)["Attachments"] == []
    assert not [d for d in instance(ec2, running)["BlockDeviceMappings"] if d["DeviceName"] == "/dev/sdf"]
    attach(ec2, v, running, "/dev/sdg")  # and again, by another name
    ec2.detach_volume(VolumeId=v, Force=True)
    ebs.wait(ec2, "volume_available", VolumeIds=[v])
    with pytest.raises(ClientError) as e:
        ec2.detach_volume(VolumeId=v)
    assert error_code(e) == "IncorrectState"


def test_filters_by_attachment(ec2, running, make_volume):
    one, two = make_volume(), make_volume()
    attach(ec2, one, running, "/dev/sdf")
    attach(ec2, two, running, "/dev/sdg")

    def found(**filters):
        wanted = [{"Name": "attachment." + name.replace("_", "-"), "Values": [value]} for name, value in filters.items()]
        return [v["VolumeId"] for v in ec2.describe_volumes(Filters=wanted)["Volumes"]]

    assert found(instance_id=running) == [one, two]
    assert found(instance_id=running, device="/dev/sdg") == [two]
    assert found(instance_id=running, status="attached", delete_on_termination="false") == [one, two]
    assert found(instance_id=running, status="detaching") == []


@pytest.mark.parametrize("device, code", [
    ("/dev/sdf", "InvalidParameterValue"),  # taken
    ("/dev/sda1", "InvalidParameterValue"),  # the root's
    ("/dev/nvme0n1", "InvalidParameterValue"),
    ("", "InvalidParameterValue"),
])
def test_bad_devices(ec2, running, make_volume, device, code):
    attach(ec2, make_volume(), running)
    with pytest.raises(ClientError) as e:
        ec2.attach_volume(VolumeId=make_volume(), InstanceId=running, Device=device)
    assert error_code(e) == code


def test_bad_requests(ec2, running, make_volume):
    v = make_volume()
    for call, code in (
            (lambda: ec2.attach_volume(VolumeId="vol-00000000000000000", InstanceId=running, Device="/dev/sdf"),
             "InvalidVolume.NotFound"),
            (lambda: ec2.attach_volume(VolumeId=v, InstanceId="i-00000000000000000", Device="/dev/sdf"),
             "InvalidInstanceID.NotFound"),
            (lambda: ec2.attach_volume(VolumeId=v, InstanceId="mine", Device="/dev/sdf"), "InvalidInstanceID.Malformed"),
            (lambda: ec2.detach_volume(VolumeId=v, InstanceId=running), "IncorrectState"),
    ):
        with pytest.raises(ClientError) as e:
            call()
        assert error_code(e) == code


def test_limit(ec2, running, make_volume):
    made = [make_volume() for _ in range(16)]
    for n, v in enumerate(made[:15]):
        ec2.attach_volume(VolumeId=v, InstanceId=running, Device=f"/dev/sd{chr(ord('f') + n)}")
    with pytest.raises(ClientError) as e:
        ec2.attach_volume(VolumeId=made[15], InstanceId=running, Device="/dev/sdz")
    assert error_code(e) == "AttachmentLimitExceeded"
    for v in made[:15]:
        ebs.wait_attached(ec2, v)


def test_instance_ends(ec2, running, make_volume):
    v = make_volume()
    attach(ec2, v, running)
    ec2.terminate_instances(InstanceIds=[running])
    wait_state(ec2, running, "terminated")
    ebs.wait(ec2, "volume_available", VolumeIds=[v])
    assert ebs.volume(ec2, v)["Attachments"] == []
    with pytest.raises(ClientError) as e:
        ec2.attach_volume(VolumeId=v, InstanceId=running, Device="/dev/sdf")
    assert error_code(e) == "IncorrectState"


def test_stopped_instance(ec2, ebs_running, make_volume):
    ec2.stop_instances(InstanceIds=[ebs_running])
    wait_state(ec2, ebs_running, "stopped")
    v = make_volume()
    attach(ec2, v, ebs_running)
    ec2.start_instances(InstanceIds=[ebs_running])
    wait_state(ec2, ebs_running, "running")
    assert ebs.attachment_state(ec2, v) == "attached"
    ec2.stop_instances(InstanceIds=[ebs_running])
    wait_state(ec2, ebs_running, "stopped")
    ec2.detach_volume(VolumeId=v)
    ebs.wait(ec2, "volume_available", VolumeIds=[v])


def test_root_of_a_stopped_instance(ec2, ebs_running):
    (root,) = instance(ec2, ebs_running)["BlockDeviceMappings"]
    device, v = root["DeviceName"], root["Ebs"]["VolumeId"]
    ebs.wait_attached(ec2, v)
    with pytest.raises(ClientError) as e:
        ec2.detach_volume(VolumeId=v)
    assert error_code(e) == "OperationNotPermitted"
    ec2.stop_instances(InstanceIds=[ebs_running])
    wait_state(ec2, ebs_running, "stopped")
    ec2.detach_volume(VolumeId=v)
    ebs.wait(ec2, "volume_available", VolumeIds=[v])
    with pytest.raises(ClientError) as e:
        ec2.start_instances(InstanceIds=[ebs_running])
    assert error_code(e) == "InvalidParameterValue" and f"attached at root ({device})" in str(e.value)
    assert instance(ec2, ebs_running)["State"]["Name"] == "stopped"
    attach(ec2, v, ebs_running, device)
    ec2.start_instances(InstanceIds=[ebs_running])
    wait_state(ec2, ebs_running, "running")
    assert [d["Ebs"]["VolumeId"] for d in instance(ec2, ebs_running)["BlockDeviceMappings"]] == [v]
    ec2.terminate_instances(InstanceIds=[ebs_running])
    wait_state(ec2, ebs_running, "terminated")
    ebs.wait(ec2, "volume_available", VolumeIds=[v])  # who attaches a volume by hand keeps it
    ec2.delete_volume(VolumeId=v)


def test_made_again_by_its_token(ec2, running, make_volume, zone):
    token = uuid.uuid4().hex
    v = make_volume(ClientToken=token)
    ec2.attach_volume(VolumeId=v, InstanceId=running, Device="/dev/sdf")
    again = ec2.create_volume(AvailabilityZone=zone, Size=1, ClientToken=token)
    assert (again["VolumeId"], again["State"]) == (v, "in-use")
    assert [(a["InstanceId"], a["Device"]) for a in again["Attachments"]] == [(running, "/dev/sdf")]


def test_modified_while_attached(ec2, running, make_volume):
    v = make_volume()
    attach(ec2, v, running)
    ec2.modify_volume(VolumeId=v, Size=2)
    ebs.wait_modified(ec2, v)
    shown = ebs.volume(ec2, v)
    assert (shown["Size"], shown["State"]) == (2, "in-use")


def test_moves_to_another_instance(ec2, launch, make_volume):
    v = make_volume()
    one, two = (launch()["Instances"][0]["InstanceId"] for _ in "12")
    for i in (one, two):
        wait_state(ec2, i, "running")
        attach(ec2, v, i)
        ec2.detach_volume(VolumeId=v)
        ebs.wait(ec2, "volume_available", VolumeIds=[v])


def test_clc_is_killed_meanwhile(cloud, ec2, running, make_volume):
    v = make_volume()
    ec2.attach_volume(VolumeId=v, InstanceId=running, Device="/dev/sdf")
    cloud.wait_restarted("clc", cloud.kill("clc"))
    wait_for("the volume to be attached", lambda: ebs.attachment_state(ec2, v) == "attached", 60)
    ec2.detach_volume(VolumeId=v)
    cloud.wait_restarted("clc", cloud.kill("clc"))
    ebs.wait(ec2, "volume_available", VolumeIds=[v])


def test_by_the_cli(cloud, ec2, running, make_volume):
    v = make_volume()
    cloud.run("aws", "ec2", "attach-volume", "--volume-id", v, "--instance-id", running, "--device", "/dev/sdf")
    cloud.run("aws", "ec2", "wait", "volume-in-use", "--volume-ids", v)
    ebs.wait_attached(ec2, v)
    cloud.run("aws", "ec2", "detach-volume", "--volume-id", v)
    cloud.run("aws", "ec2", "wait", "volume-available", "--volume-ids", v)
