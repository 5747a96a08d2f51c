# SPDX-License-Identifier: Apache-2.0
"""Instances from launch to end, on the fake driver."""
import base64
import datetime
import re
import uuid

import pytest
from botocore.exceptions import ClientError, WaiterError

from lib.instances import error_code, instance, state, wait_state
from lib.cloud import wait_for

FAST = {"Delay": 1, "MaxAttempts": 30}


# ---- launch ----

def test_launch_as_it_is_shown(ec2, sts, launch, image_id):
    before = datetime.datetime.now(datetime.timezone.utc)
    reservation = launch()
    (new,) = reservation["Instances"]
    account = sts.get_caller_identity()["Account"]
    assert re.fullmatch("r-[0-9a-f]{17}", reservation["ReservationId"])
    assert reservation["OwnerId"] == account and reservation["Groups"] == []
    assert re.fullmatch("i-[0-9a-f]{17}", new["InstanceId"])
    assert new["State"] == {"Code": 0, "Name": "pending"}
    assert new["StateReason"] == {"Code": "pending", "Message": "pending"}
    ec2.get_waiter("instance_running").wait(InstanceIds=[new["InstanceId"]], WaiterConfig=FAST)
    i = instance(ec2, new["InstanceId"])
    assert i["State"] == {"Code": 16, "Name": "running"} and "StateReason" not in i
    assert i["ImageId"] == image_id and i["InstanceType"] == "t2.nano" and i["AmiLaunchIndex"] == 0
    assert abs(i["LaunchTime"] - before) < datetime.timedelta(seconds=30)
    assert i["Placement"] == {"AvailabilityZone": "us-east-1a", "GroupName": "", "Tenancy": "default"}
    assert i["Monitoring"] == {"State": "disabled"}
    assert i["RootDeviceType"] == "instance-store" and i["BlockDeviceMappings"] == []
    assert i["Architecture"] == "x86_64" and i["VirtualizationType"] == "hvm"
    assert i["CpuOptions"] == {"CoreCount": 1, "ThreadsPerCore": 1}
    assert i["MetadataOptions"] == {"State": "applied", "HttpTokens": "optional", "HttpPutResponseHopLimit": 1,
                                    "HttpEndpoint": "enabled", "HttpProtocolIpv6": "disabled", "InstanceMetadataTags": "disabled"}
    assert "KeyName" not in i and "Tags" not in i
    assert uuid.UUID(i["ClientToken"])  # botocore makes one for each call


def test_primary_interface(ec2, sts, running):
    i = instance(ec2, running)
    (subnet,) = ec2.describe_subnets()["Subnets"]
    (nic,) = i["NetworkInterfaces"]
    address = i["PrivateIpAddress"]
    assert i["SubnetId"] == nic["SubnetId"] == subnet["SubnetId"]
    assert i["VpcId"] == nic["VpcId"] == subnet["VpcId"]
    assert i["PrivateDnsName"] == nic["PrivateDnsName"] == f"ip-{address.replace('.', '-')}.ec2.internal"
    assert nic["PrivateIpAddress"] == address
    assert nic["PrivateIpAddresses"] == [{"Primary": True, "PrivateDnsName": i["PrivateDnsName"], "PrivateIpAddress": address}]
    assert re.fullmatch("eni-[0-9a-f]{17}", nic["NetworkInterfaceId"])
    assert re.fullmatch("02(:[0-9a-f]{2}){5}", nic["MacAddress"])
    assert nic["Attachment"]["DeviceIndex"] == 0 and nic["Attachment"]["Status"] == "attached"
    assert nic["Attachment"]["DeleteOnTermination"] is True
    assert nic["OwnerId"] == sts.get_caller_identity()["Account"]
    assert nic["Status"] == "in-use" and nic["SourceDestCheck"] is True and nic["Groups"] == []


def test_several_at_once(ec2, launch):
    reservation = launch(MinCount=3, MaxCount=3)
    assert [i["AmiLaunchIndex"] for i in reservation["Instances"]] == [0, 1, 2]
    ids = [i["InstanceId"] for i in reservation["Instances"]]
    for name in ("PrivateIpAddress", "PrivateDnsName"):
        assert len({i[name] for i in reservation["Instances"]}) == 3
    assert len({i["NetworkInterfaces"][0]["MacAddress"] for i in reservation["Instances"]}) == 3
    ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig=FAST)
    (found,) = ec2.describe_instances(InstanceIds=ids[1:])["Reservations"]
    assert found["ReservationId"] == reservation["ReservationId"]
    assert [i["InstanceId"] for i in found["Instances"]] == ids[1:]


def test_tags_key_and_user_data(ec2, launch):
    key = f"key-{uuid.uuid4().hex}"
    ec2.create_key_pair(KeyName=key, KeyType="ed25519")
    tags = [{"Key": "Name", "Value": "first"}, {"Key": "empty", "Value": ""}]
    new = launch(KeyName=key, UserData="#!/bin/sh\necho hi\n",
                 TagSpecifications=[{"ResourceType": "instance", "Tags": tags}])["Instances"][0]
    assert sorted(new["Tags"], key=lambda t: t["Key"]) == tags
    i = instance(ec2, new["InstanceId"])
    assert i["KeyName"] == key
    assert sorted(i["Tags"], key=lambda t: t["Key"]) == tags
    data = ec2.describe_instance_attribute(InstanceId=i["InstanceId"], Attribute="userData")["UserData"]["Value"]
    assert base64.b64decode(data) == b"#!/bin/sh\necho hi\n"
    ec2.delete_key_pair(KeyName=key)
    assert instance(ec2, i["InstanceId"])["KeyName"] == key  # as it was launched


def test_user_data_limit(ec2, launch):
    launch(UserData=b"x" * 16384)
    with pytest.raises(ClientError) as e:
        launch(UserData=b"x" * 16385)
    assert error_code(e) == "InvalidParameterValue"


def test_network_interface_form(ec2, launch):
    """What Terraform sends when a subnet is given."""
    (subnet,) = ec2.describe_subnets()["Subnets"]
    address = subnet["CidrBlock"].split("/")[0].rsplit(".", 1)[0] + ".77"
    new = launch(NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnet["SubnetId"], "PrivateIpAddress": address,
                                     "Description": "first", "DeleteOnTermination": True,
                                     "AssociatePublicIpAddress": False}])["Instances"][0]
    assert new["PrivateIpAddress"] == address
    assert new["NetworkInterfaces"][0]["Description"] == "first"
    with pytest.raises(ClientError) as e:
        launch(PrivateIpAddress=address)
    assert error_code(e) == "InvalidIPAddress.InUse"
    ec2.terminate_instances(InstanceIds=[new["InstanceId"]])
    wait_state(ec2, new["InstanceId"], "terminated")

    def launched():  # an instance is shown as terminated a little before its address is free
        try:
            return launch(PrivateIpAddress=address, SubnetId=subnet["SubnetId"])["Instances"][0]
        except ClientError as e:
            assert e.response["Error"]["Code"] == "InvalidIPAddress.InUse"
            return None
    assert wait_for("the address to be free", launched, 30)["PrivateIpAddress"] == address


def test_client_token(ec2, launch):
    token = uuid.uuid4().hex
    first = launch(ClientToken=token)
    again = launch(ClientToken=token)
    assert again["ReservationId"] == first["ReservationId"]
    assert [i["InstanceId"] for i in again["Instances"]] == [i["InstanceId"] for i in first["Instances"]]
    assert again["Instances"][0]["ClientToken"] == token
    with pytest.raises(ClientError) as e:
        launch(ClientToken=token, InstanceType="t2.micro")
    assert error_code(e) == "IdempotentParameterMismatch"
    # the token lives as long as the instance is shown
    (ended,) = [i["InstanceId"] for i in first["Instances"]]
    ec2.terminate_instances(InstanceIds=[ended])
    wait_state(ec2, ended, "terminated")
    assert launch(ClientToken=token)["Instances"][0]["InstanceId"] == ended


def test_failed_launch_says_why(ec2, s3, launch, image_id):
    """The image's object is gone: nodes that do not have it yet cannot fetch it."""
    s3.put_object(Bucket="api-test-images", Key="gone.raw", Body=uuid.uuid4().bytes * 32 * 1024)
    image = ec2.register_image(Name=uuid.uuid4().hex, ImageLocation="api-test-images/gone.raw")["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig=FAST)
    s3.delete_object(Bucket="api-test-images", Key="gone.raw")
    new = launch(ImageId=image)["Instances"][0]["InstanceId"]
    with pytest.raises(WaiterError):
        ec2.get_waiter("instance_running").wait(InstanceIds=[new], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    wait_state(ec2, new, "terminated")
    i = instance(ec2, new)
    assert i["StateReason"]["Code"].startswith("Server.")
    assert i["StateReason"]["Message"].startswith(i["StateReason"]["Code"] + ": ")
    ec2.deregister_image(ImageId=image)


# ---- changes ----

def test_reboot(ec2, running):
    assert "ResponseMetadata" in ec2.reboot_instances(InstanceIds=[running])
    assert state(ec2, running) == "running"


def test_stop_is_unsupported(ec2, running):
    with pytest.raises(ClientError) as e:
        ec2.stop_instances(InstanceIds=[running])
    assert error_code(e) == "UnsupportedOperation"
    assert state(ec2, running) == "running"


def test_start_of_a_running_one_changes_nothing(ec2, running):
    (change,) = ec2.start_instances(InstanceIds=[running])["StartingInstances"]
    assert change["PreviousState"] == change["CurrentState"] == {"Code": 16, "Name": "running"}


def test_terminate(ec2, running):
    (change,) = ec2.terminate_instances(InstanceIds=[running])["TerminatingInstances"]
    assert change["PreviousState"]["Name"] == "running" and change["CurrentState"] == {"Code": 32, "Name": "shutting-down"}
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[running], WaiterConfig=FAST)
    i = instance(ec2, running)
    assert i["StateReason"] == {"Code": "Client.UserInitiatedShutdown",
                                "Message": "Client.UserInitiatedShutdown: User initiated shutdown"}
    assert re.fullmatch(r"User initiated \(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d GMT\)", i["StateTransitionReason"])
    assert i["NetworkInterfaces"] == [] and "PrivateIpAddress" not in i and "SubnetId" not in i
    # once more is no error, and the others are
    (change,) = ec2.terminate_instances(InstanceIds=[running])["TerminatingInstances"]
    assert change["PreviousState"]["Name"] == change["CurrentState"]["Name"] == "terminated"
    for action in (ec2.start_instances, ec2.reboot_instances):
        with pytest.raises(ClientError) as e:
            action(InstanceIds=[running])
        assert error_code(e) == "IncorrectInstanceState"


def test_terminate_while_pending(ec2, launch):
    new = launch()["Instances"][0]["InstanceId"]
    ec2.terminate_instances(InstanceIds=[new])
    wait_state(ec2, new, "terminated")
    with pytest.raises(WaiterError):
        ec2.get_waiter("instance_running").wait(InstanceIds=[new], WaiterConfig=FAST)


def test_all_or_none(ec2, launch):
    ids = [i["InstanceId"] for i in launch(MinCount=2, MaxCount=2)["Instances"]]
    (both,) = ec2.describe_instances(InstanceIds=ids)["Reservations"]
    with pytest.raises(ClientError) as e:
        ec2.terminate_instances(InstanceIds=[ids[0], "i-00000000000000000", ids[1]])
    assert error_code(e) == "InvalidInstanceID.NotFound"
    assert all(i["State"]["Name"] in ("pending", "running") for i in both["Instances"])
    changes = ec2.terminate_instances(InstanceIds=[ids[1], ids[0], ids[1]])["TerminatingInstances"]
    assert [c["InstanceId"] for c in changes] == [ids[1], ids[0]]


def test_termination_protection(ec2, launch):
    new = launch(DisableApiTermination=True)["Instances"][0]["InstanceId"]
    assert ec2.describe_instance_attribute(InstanceId=new, Attribute="disableApiTermination")["DisableApiTermination"]["Value"]
    with pytest.raises(ClientError) as e:
        ec2.terminate_instances(InstanceIds=[new])
    assert error_code(e) == "OperationNotPermitted"
    ec2.modify_instance_attribute(InstanceId=new, DisableApiTermination={"Value": False})
    ec2.terminate_instances(InstanceIds=[new])
    wait_state(ec2, new, "terminated")
    with pytest.raises(ClientError) as e:
        ec2.modify_instance_attribute(InstanceId=new, DisableApiTermination={"Value": True})
    assert error_code(e) == "IncorrectInstanceState"


# ---- looking ----

def test_status(ec2, running, launch):
    def status():
        (s,) = ec2.describe_instance_status(InstanceIds=[running])["InstanceStatuses"]
        return s

    s = status()
    assert s["InstanceState"] == {"Code": 16, "Name": "running"} and s["AvailabilityZone"] == "us-east-1a"
    assert s["SystemStatus"]["Status"] == "ok"
    assert s["SystemStatus"]["Details"] == [{"Name": "reachability", "Status": "passed"}]
    assert s["InstanceStatus"]["Status"] in ("initializing", "ok")
    assert s["InstanceStatus"]["Details"][0]["Name"] == "reachability"
    ec2.get_waiter("system_status_ok").wait(InstanceIds=[running], WaiterConfig=FAST)
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=[running], WaiterConfig=FAST)
    assert status()["InstanceStatus"] == {"Status": "ok", "Details": [{"Name": "reachability", "Status": "passed"}]}
    ec2.terminate_instances(InstanceIds=[running])
    assert ec2.describe_instance_status(InstanceIds=[running])["InstanceStatuses"] == []
    (s,) = ec2.describe_instance_status(InstanceIds=[running], IncludeAllInstances=True)["InstanceStatuses"]
    assert s["InstanceStatus"]["Status"] == s["SystemStatus"]["Status"] == "not-applicable"


def test_console(ec2, running):
    out = ec2.get_console_output(InstanceId=running)
    assert out["InstanceId"] == running and "Timestamp" in out and isinstance(out["Output"], str)


@pytest.mark.parametrize("attribute,member,value", [
    ("instanceType", "InstanceType", {"Value": "t2.nano"}),
    ("instanceInitiatedShutdownBehavior", "InstanceInitiatedShutdownBehavior", {"Value": "terminate"}),
    ("disableApiTermination", "DisableApiTermination", {"Value": False}),
    ("disableApiStop", "DisableApiStop", {"Value": False}),
    ("ebsOptimized", "EbsOptimized", {"Value": False}),
    ("enaSupport", "EnaSupport", {"Value": False}),
    ("sourceDestCheck", "SourceDestCheck", {"Value": True}),
    ("userData", "UserData", {}),
    ("kernel", "KernelId", {}),
    ("ramdisk", "RamdiskId", {}),
    ("blockDeviceMapping", "BlockDeviceMappings", []),
    ("productCodes", "ProductCodes", []),
    ("groupSet", "Groups", []),
    ("enclaveOptions", "EnclaveOptions", {"Enabled": False}),
])
def test_attributes(ec2, attribute_instance, attribute, member, value):
    out = ec2.describe_instance_attribute(InstanceId=attribute_instance, Attribute=attribute)
    assert out["InstanceId"] == attribute_instance
    assert out[member] == value


def test_root_device_name(ec2, attribute_instance):
    out = ec2.describe_instance_attribute(InstanceId=attribute_instance, Attribute="rootDeviceName")
    assert out["RootDeviceName"]["Value"] == instance(ec2, attribute_instance)["RootDeviceName"]


@pytest.fixture(scope="module")
def attribute_instance(ec2, image_id):
    new = ec2.run_instances(ImageId=image_id, InstanceType="t2.nano", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    yield new
    ec2.terminate_instances(InstanceIds=[new])
    wait_state(ec2, new, "terminated")


# ---- metadata options ----

def test_metadata_options(ec2, running):
    out = ec2.modify_instance_metadata_options(InstanceId=running, HttpTokens="required", HttpPutResponseHopLimit=2)
    assert out["InstanceId"] == running
    assert out["InstanceMetadataOptions"]["State"] == "pending"
    options = instance(ec2, running)["MetadataOptions"]
    assert options["HttpTokens"] == "required" and options["HttpPutResponseHopLimit"] == 2
    assert options["HttpEndpoint"] == "enabled" and options["State"] == "applied"
    ec2.modify_instance_metadata_options(InstanceId=running, InstanceMetadataTags="enabled", HttpEndpoint="disabled")
    options = instance(ec2, running)["MetadataOptions"]
    assert options["InstanceMetadataTags"] == "enabled" and options["HttpEndpoint"] == "disabled"
    assert options["HttpTokens"] == "required"
    with pytest.raises(ClientError) as e:
        ec2.create_tags(Resources=[running], Tags=[{"Key": "not/a/path", "Value": ""}])
    assert error_code(e) == "InvalidParameterValue"


def test_metadata_options_of_a_launch(ec2, launch):
    new = launch(MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 3, "HttpEndpoint": "enabled",
                                  "InstanceMetadataTags": "enabled"})["Instances"][0]
    assert new["MetadataOptions"]["HttpTokens"] == "required" and new["MetadataOptions"]["HttpPutResponseHopLimit"] == 3


# ---- what survives ----

@pytest.mark.parametrize("daemon", ["clc", "cc", "nc"])
def test_a_killed_daemon_loses_nothing(cloud, ec2, launch, running, daemon):
    before = instance(ec2, running)
    new = launch()["Instances"][0]["InstanceId"]
    old = cloud.kill(daemon)
    cloud.wait_restarted(daemon, old)
    wait_state(ec2, new, "running", 60)
    after = instance(ec2, running)
    assert {k: v for k, v in after.items() if k != "MetadataOptions"} == {k: v for k, v in before.items() if k != "MetadataOptions"}
    ec2.terminate_instances(InstanceIds=[new])
    wait_state(ec2, new, "terminated", 60)
    wait_for("a new launch", lambda: launch(), 30)


def test_guest_switches_itself_off(cloud, ec2, launch):
    new = launch()["Instances"][0]["InstanceId"]
    wait_state(ec2, new, "running")
    conf = cloud.state / "nc" / "fake.conf"
    conf.write_text(f"{new} powers-off\n")
    try:
        wait_state(ec2, new, "terminated", 30)
    finally:
        conf.unlink()
    assert instance(ec2, new)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
