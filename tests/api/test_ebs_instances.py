# SPDX-License-Identifier: Apache-2.0
"""Instances whose root is a volume, on the fake driver: what a launch makes, stop and start, and what becomes of it all."""
import pytest
from botocore.exceptions import ClientError

from lib.cloud import wait_for
from lib.ebs import mappings, volume, volume_gone, wait_volume
from lib.instances import error_code, instance, state, wait_state

ROOT = "/dev/sda1"


def root_of(ec2, instance_id):
    return mappings(instance(ec2, instance_id))[ROOT]


def test_root_is_a_volume(ec2, ebs_running, snapshot_id):
    shown = instance(ec2, ebs_running)
    assert (shown["RootDeviceType"], shown["RootDeviceName"]) == ("ebs", ROOT)
    root = mappings(shown)[ROOT]
    assert root["DeleteOnTermination"]
    wait_for("the root to be attached", lambda: root_of(ec2, ebs_running)["Status"] == "attached")
    disk = volume(ec2, root["VolumeId"])
    assert (disk["State"], disk["SnapshotId"], disk["Size"]) == ("in-use", snapshot_id, 1)
    (attachment,) = disk["Attachments"]
    assert (attachment["InstanceId"], attachment["Device"]) == (ebs_running, ROOT)
    behavior = ec2.describe_instance_attribute(InstanceId=ebs_running, Attribute="instanceInitiatedShutdownBehavior")
    assert behavior["InstanceInitiatedShutdownBehavior"]["Value"] == "stop"
    shown = ec2.describe_instance_attribute(InstanceId=ebs_running, Attribute="blockDeviceMapping")
    assert mappings(shown)[ROOT]["VolumeId"] == root["VolumeId"]


def test_filters(ec2, ebs_running, running):
    def found(name, *values):
        pages = ec2.get_paginator("describe_instances").paginate(Filters=[{"Name": name, "Values": list(values)}])
        return {i["InstanceId"] for p in pages for r in p["Reservations"] for i in r["Instances"]}

    assert ebs_running in found("root-device-type", "ebs")
    assert running in found("root-device-type", "instance-store")
    assert ebs_running not in found("root-device-type", "instance-store")
    assert found("block-device-mapping.volume-id", root_of(ec2, ebs_running)["VolumeId"]) == {ebs_running}
    assert ebs_running in found("block-device-mapping.device-name", ROOT)
    assert running not in found("block-device-mapping.delete-on-termination", "true")


def test_volumes_of_a_launch(ec2, launch, ebs_image_id):
    wanted = [{"DeviceName": ROOT, "Ebs": {"VolumeSize": 3, "VolumeType": "gp3"}},
              {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": False}},
              {"DeviceName": "/dev/sdg", "VirtualName": "ephemeral0"}]
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "of", "Value": "launch"}]}]
    launched = launch(ImageId=ebs_image_id, BlockDeviceMappings=wanted, TagSpecifications=tags)["Instances"][0]["InstanceId"]
    wait_state(ec2, launched, "running")
    devices = mappings(instance(ec2, launched))
    assert set(devices) == {ROOT, "/dev/sdf"}
    root, data = (volume(ec2, devices[name]["VolumeId"]) for name in (ROOT, "/dev/sdf"))
    assert (root["Size"], root["VolumeType"], data["Size"]) == (3, "gp3", 1)
    assert root["Tags"] == data["Tags"] == [{"Key": "of", "Value": "launch"}]
    ec2.terminate_instances(InstanceIds=[launched])
    wait_state(ec2, launched, "terminated")
    wait_for("the root to be gone", lambda: volume_gone(ec2, root["VolumeId"]))
    wait_volume(ec2, data["VolumeId"], "available")
    ec2.delete_volume(VolumeId=data["VolumeId"])


@pytest.mark.parametrize("mapping, code", [
    ({"DeviceName": ROOT, "NoDevice": ""}, "InvalidBlockDeviceMapping"),
    ({"DeviceName": ROOT, "Ebs": {"VolumeType": "st1", "VolumeSize": 500}}, "InvalidBlockDeviceMapping"),
    ({"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": "snap-00000000000000000"}}, "InvalidSnapshot.NotFound"),
    ({"DeviceName": "/dev/sdf", "Ebs": {"VolumeType": "gp2"}}, "MissingParameter"),
    ({"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "VolumeType": "gp2", "Iops": 200}}, "InvalidParameterCombination"),
    ({"DeviceName": "../sdf", "Ebs": {"VolumeSize": 1}}, "InvalidBlockDeviceMapping"),
])
def test_refused_mappings_leave_nothing(ec2, ebs_image_id, mapping, code):
    before = {v["VolumeId"] for v in ec2.describe_volumes()["Volumes"]}
    with pytest.raises(ClientError) as raised:
        ec2.run_instances(ImageId=ebs_image_id, InstanceType="t2.nano", MinCount=1, MaxCount=1, BlockDeviceMappings=[mapping])
    assert error_code(raised) == code
    assert {v["VolumeId"] for v in ec2.describe_volumes()["Volumes"]} <= before


def test_the_type_does_not_limit_the_root(ec2, launch, ebs_image_id):
    wanted = [{"DeviceName": ROOT, "Ebs": {"VolumeSize": 40}}]
    launched = launch(ImageId=ebs_image_id, InstanceType="t2.nano", BlockDeviceMappings=wanted)["Instances"][0]["InstanceId"]
    wait_state(ec2, launched, "running")
    assert volume(ec2, root_of(ec2, launched)["VolumeId"])["Size"] == 40


def test_stop_and_start(ec2, ebs_running):
    before = instance(ec2, ebs_running)
    (change,) = ec2.stop_instances(InstanceIds=[ebs_running])["StoppingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "stopping")
    ec2.get_waiter("instance_stopped").wait(InstanceIds=[ebs_running], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    off = instance(ec2, ebs_running)
    assert off["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert off["StateTransitionReason"].startswith("User initiated (")
    assert off["PrivateIpAddress"] == before["PrivateIpAddress"]
    assert root_of(ec2, ebs_running)["Status"] == "attached"
    assert volume(ec2, root_of(ec2, ebs_running)["VolumeId"])["State"] == "in-use"
    assert ec2.stop_instances(InstanceIds=[ebs_running])["StoppingInstances"][0]["CurrentState"]["Name"] == "stopped"

    (change,) = ec2.start_instances(InstanceIds=[ebs_running])["StartingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("stopped", "pending")
    ec2.get_waiter("instance_running").wait(InstanceIds=[ebs_running], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    after = instance(ec2, ebs_running)
    assert after["LaunchTime"] > before["LaunchTime"]
    assert after["NetworkInterfaces"][0]["Attachment"]["AttachTime"] == before["LaunchTime"]
    assert not after["StateTransitionReason"]
    for same in ("PrivateIpAddress", "PrivateDnsName", "RootDeviceName"):
        assert after[same] == before[same]
    assert root_of(ec2, ebs_running)["VolumeId"] == mappings(before)[ROOT]["VolumeId"]


def test_what_cannot_be_stopped(ec2, ebs_running, running):
    for ids, extra, code in [([running], {}, "UnsupportedOperation"),
                             ([ebs_running, running], {}, "UnsupportedOperation"),
                             ([ebs_running], {"Hibernate": True}, "UnsupportedHibernationConfiguration")]:
        with pytest.raises(ClientError) as raised:
            ec2.stop_instances(InstanceIds=ids, **extra)
        assert error_code(raised) == code
    assert state(ec2, ebs_running) == "running"
    ec2.terminate_instances(InstanceIds=[ebs_running])
    wait_state(ec2, ebs_running, "terminated")
    for action in (ec2.stop_instances, ec2.start_instances):
        with pytest.raises(ClientError) as raised:
            action(InstanceIds=[ebs_running])
        assert error_code(raised) == "IncorrectInstanceState"


def test_a_stopped_one_is_changed_and_ended(ec2, ebs_running):
    with pytest.raises(ClientError) as raised:
        ec2.modify_instance_attribute(InstanceId=ebs_running, InstanceType={"Value": "t2.small"})
    assert error_code(raised) == "IncorrectInstanceState"
    ec2.stop_instances(InstanceIds=[ebs_running], Force=True)
    wait_state(ec2, ebs_running, "stopped")
    ec2.modify_instance_attribute(InstanceId=ebs_running, InstanceType={"Value": "t2.small"})
    ec2.modify_instance_attribute(InstanceId=ebs_running, UserData={"Value": b"#!/bin/sh"})
    assert instance(ec2, ebs_running)["InstanceType"] == "t2.small"
    shown = ec2.describe_instance_attribute(InstanceId=ebs_running, Attribute="userData")
    assert shown["UserData"]["Value"] == "IyEvYmluL3No"
    ec2.modify_instance_attribute(InstanceId=ebs_running, BlockDeviceMappings=[
        {"DeviceName": ROOT, "Ebs": {"DeleteOnTermination": False}}])
    root = root_of(ec2, ebs_running)
    assert not root["DeleteOnTermination"]
    ec2.terminate_instances(InstanceIds=[ebs_running])
    wait_state(ec2, ebs_running, "terminated")
    wait_volume(ec2, root["VolumeId"], "available")
    ec2.delete_volume(VolumeId=root["VolumeId"])


@pytest.mark.parametrize("daemon", ["clc", "cc", "nc", "sc"])
def test_killed_on_the_way(cloud, ec2, ebs_running, daemon):
    """Whoever is killed while an instance stops and starts costs nothing but time."""
    ec2.stop_instances(InstanceIds=[ebs_running])
    cloud.wait_restarted(daemon, cloud.kill(daemon))
    wait_state(ec2, ebs_running, "stopped", 60)
    ec2.start_instances(InstanceIds=[ebs_running])
    cloud.wait_restarted(daemon, cloud.kill(daemon))
    wait_state(ec2, ebs_running, "running", 60)
    wait_for("the root to be attached", lambda: root_of(ec2, ebs_running)["Status"] == "attached")


def test_types_say_so(ec2):
    (shown,) = ec2.describe_instance_types(InstanceTypes=["t2.nano"])["InstanceTypes"]
    assert shown["SupportedRootDeviceTypes"] == ["ebs", "instance-store"]
