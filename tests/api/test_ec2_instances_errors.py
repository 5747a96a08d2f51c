# SPDX-License-Identifier: Apache-2.0
"""Requests about instances that must fail, each with its code and without a change; and another account's view."""
import pytest
from botocore.exceptions import ClientError

from lib.instances import error_code, instance

NOBODY = "i-00000000000000000"
RUN = dict(InstanceType="t2.nano", MinCount=1, MaxCount=1)
NIC = {"DeviceIndex": 0}

RUN_ERRORS = [
    (dict(ImageId="ami-00000000000000000"), "InvalidAMIID.NotFound"),
    (dict(ImageId="ami-xyz"), "InvalidAMIID.Malformed"),
    (dict(ImageId=""), "InvalidAMIID.Malformed"),
    (dict(MinCount=0), "InvalidParameterValue"),
    (dict(MinCount=2), "InvalidParameterValue"),
    (dict(MinCount=1001, MaxCount=1001), None),
    (dict(MinCount=900, MaxCount=900, InstanceType="r5.4xlarge"), "InsufficientInstanceCapacity"),
    (dict(InstanceType="t9.giant"), "InvalidParameterValue"),
    (dict(KeyName="nobody's"), "InvalidKeyPair.NotFound"),
    (dict(SubnetId="subnet-00000000000000000"), "InvalidSubnetID.NotFound"),
    (dict(SubnetId="subnet"), "InvalidSubnetID.Malformed"),
    (dict(PrivateIpAddress="8.8.8.8"), "InvalidParameterValue"),
    (dict(PrivateIpAddress="1.2.3"), "InvalidParameterValue"),
    (dict(PrivateIpAddress="::1"), "InvalidParameterValue"),
    (dict(PrivateIpAddress="8.8.8.8", MaxCount=2), "InvalidParameterCombination"),
    (dict(NetworkInterfaces=[NIC, dict(DeviceIndex=1)]), "UnsupportedOperation"),
    (dict(NetworkInterfaces=[dict(DeviceIndex=3)]), "InvalidParameterValue"),
    (dict(NetworkInterfaces=[NIC], SubnetId="subnet-00000000000000000"), "InvalidParameterCombination"),
    (dict(NetworkInterfaces=[dict(NIC, AssociatePublicIpAddress=True)]), "UnsupportedOperation"),
    (dict(NetworkInterfaces=[dict(NIC, NetworkInterfaceId="eni-00000000000000000")]), "UnsupportedOperation"),
    (dict(NetworkInterfaces=[dict(NIC, InterfaceType="efa")]), "InvalidParameterValue"),
    (dict(Placement={"AvailabilityZone": "us-east-1z"}), "InvalidParameterValue"),
    (dict(Placement={"Tenancy": "host"}), None),
    (dict(Placement={"GroupName": "near"}), "UnsupportedOperation"),
    (dict(EbsOptimized=True), "Unsupported"),
    (dict(InstanceInitiatedShutdownBehavior="stop"), "InvalidParameterCombination"),
    (dict(InstanceInitiatedShutdownBehavior="explode"), "InvalidParameterValue"),
    (dict(MetadataOptions={"HttpTokens": "sometimes"}), "InvalidParameterValue"),
    (dict(MetadataOptions={"HttpPutResponseHopLimit": 0}), "InvalidParameterValue"),
    (dict(MetadataOptions={"HttpProtocolIpv6": "enabled"}), None),
    (dict(ClientToken="x" * 65), "InvalidParameterValue"),
    (dict(ClientToken="t\u00f6ken"), "InvalidParameterValue"),
    (dict(TagSpecifications=[{"ResourceType": "planet", "Tags": [{"Key": "a", "Value": ""}]}]), "InvalidParameterValue"),
    (dict(TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "aws:x", "Value": ""}]}]), None),
    (dict(TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": str(i), "Value": ""} for i in range(51)]}]), "TagLimitExceeded"),
    (dict(MetadataOptions={"InstanceMetadataTags": "enabled"},
          TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "a b", "Value": ""}]}]), "InvalidParameterValue"),
    (dict(SecurityGroupIds=["sg-00000000000000000"]), "UnsupportedOperation"),
    (dict(IamInstanceProfile={"Name": "admin"}), "UnsupportedOperation"),
    (dict(BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 1}}]), "InvalidBlockDeviceMapping"),
    (dict(BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 0}}]), "InvalidParameterValue"),
    (dict(BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "Encrypted": True, "KmsKeyId": "mine"}}]),
     "InvalidParameterValue"),
    (dict(BlockDeviceMappings=2 * [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1}}]), "InvalidBlockDeviceMapping"),
    (dict(InstanceMarketOptions={"MarketType": "spot"}), "UnsupportedOperation"),
    (dict(LaunchTemplate={"LaunchTemplateName": "mine"}), "UnsupportedOperation"),
]


def live(ec2):
    pages = ec2.get_paginator("describe_instances").paginate()
    return {i["InstanceId"] for p in pages for r in p["Reservations"] for i in r["Instances"]}


@pytest.mark.parametrize("change,code", RUN_ERRORS, ids=[str(c)[:60] for c, _ in RUN_ERRORS])
def test_launches_that_fail(ec2, image_id, change, code):
    before, (subnet,) = live(ec2), ec2.describe_subnets()["Subnets"]
    with pytest.raises(ClientError) as e:
        ec2.run_instances(**{"ImageId": image_id, **RUN, **change})
    assert error_code(e) == (code or error_code(e))
    assert 400 <= e.value.response["ResponseMetadata"]["HTTPStatusCode"] < 500 or code == "InsufficientInstanceCapacity"
    assert live(ec2) == before
    assert ec2.describe_subnets()["Subnets"][0]["AvailableIpAddressCount"] == subnet["AvailableIpAddressCount"]


def by_id(ec2, i):
    """Every action on one instance."""
    return {
        "describe": lambda: ec2.describe_instances(InstanceIds=[i]),
        "status": lambda: ec2.describe_instance_status(InstanceIds=[i]),
        "start": lambda: ec2.start_instances(InstanceIds=[i]),
        "stop": lambda: ec2.stop_instances(InstanceIds=[i]),
        "reboot": lambda: ec2.reboot_instances(InstanceIds=[i]),
        "terminate": lambda: ec2.terminate_instances(InstanceIds=[i]),
        "console": lambda: ec2.get_console_output(InstanceId=i),
        "attribute": lambda: ec2.describe_instance_attribute(InstanceId=i, Attribute="instanceType"),
        "options": lambda: ec2.modify_instance_metadata_options(InstanceId=i, HttpTokens="required"),
        "tags": lambda: ec2.create_tags(Resources=[i], Tags=[{"Key": "a", "Value": "b"}]),
    }


@pytest.mark.parametrize("bad", ["i-", "i-123", "i-0000000000000000g", "i-000000000000000000", "I-00000000000000000",
                                 "i-00000000000000000 ", "i-0000000000000000\u00e4"])
def test_malformed_ids(ec2, bad):
    for name, act in by_id(ec2, bad).items():
        if name == "tags":
            continue
        with pytest.raises(ClientError) as e:
            act()
        assert error_code(e) == "InvalidInstanceID.Malformed", name


def test_unknown_ids(ec2):
    for name, act in by_id(ec2, NOBODY).items():
        with pytest.raises(ClientError) as e:
            act()
        assert error_code(e) == "InvalidInstanceID.NotFound", name
        assert NOBODY in str(e.value)
    with pytest.raises(ClientError, match="i-00000000000000000, i-00000000000000001"):
        ec2.describe_instances(InstanceIds=[NOBODY, "i-00000000000000001"])


def test_another_account_sees_nothing(ec2, client, running, image_id):
    other = client("ec2", account="instances-other")
    for name, act in by_id(other, running).items():
        with pytest.raises(ClientError) as e:
            act()
        assert error_code(e) == "InvalidInstanceID.NotFound", name
    assert other.describe_instances()["Reservations"] == []
    assert other.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"] == []
    with pytest.raises(ClientError) as e:
        other.run_instances(ImageId=image_id, **RUN)
    assert error_code(e) == "InvalidAMIID.NotFound"
    with pytest.raises(ClientError) as e:
        ec2.run_instances(ImageId=image_id, SubnetId=other.describe_subnets()["Subnets"][0]["SubnetId"], **RUN)
    assert error_code(e) == "InvalidSubnetID.NotFound"
    assert instance(ec2, running)["State"]["Name"] == "running"


@pytest.mark.parametrize("kw,code", [
    (dict(MaxResults=4), "InvalidParameterValue"),
    (dict(MaxResults=1001), "InvalidParameterValue"),
    (dict(NextToken="forged"), "InvalidNextToken"),
    (dict(Filters=[{"Name": "colour", "Values": ["red"]}]), "InvalidParameterValue"),
    (dict(Filters=[{"Name": "instance-id", "Values": []}]), None),
    (dict(Filters=[{"Name": "", "Values": ["x"]}]), None),
    (dict(Filters=[{"Values": ["x"]}]), None),
])
def test_bad_descriptions(ec2, kw, code):
    for describe in (ec2.describe_instances, ec2.describe_instance_status):
        with pytest.raises(ClientError) as e:
            describe(**kw)
        assert error_code(e) == (code or error_code(e))


def test_ids_exclude_pages(ec2, running):
    with pytest.raises(ClientError) as e:
        ec2.describe_instances(InstanceIds=[running], MaxResults=10)
    assert error_code(e) == "InvalidParameterCombination"


@pytest.mark.parametrize("attribute", ["colour", "", "InstanceType"])
def test_unknown_attributes(ec2, running, attribute):
    with pytest.raises(ClientError) as e:
        ec2.describe_instance_attribute(InstanceId=running, Attribute=attribute)
    assert error_code(e) in ("InvalidParameterValue", "MissingParameter")


@pytest.mark.parametrize("kw,code", [
    ({}, "InvalidParameterCombination"),
    (dict(HttpTokens="x"), "InvalidParameterValue"),
    (dict(HttpEndpoint="x"), "InvalidParameterValue"),
    (dict(HttpPutResponseHopLimit=65), "InvalidParameterValue"),
    (dict(InstanceMetadataTags="x"), "InvalidParameterValue"),
    (dict(HttpProtocolIpv6="enabled"), None),
])
def test_bad_metadata_options(ec2, running, kw, code):
    before = instance(ec2, running)["MetadataOptions"]
    with pytest.raises(ClientError) as e:
        ec2.modify_instance_metadata_options(InstanceId=running, **kw)
    assert error_code(e) == (code or error_code(e))
    assert instance(ec2, running)["MetadataOptions"] == before
