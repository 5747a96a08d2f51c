# SPDX-License-Identifier: Apache-2.0
"""What there is: region, zone, types, default network; and every documented filter of every Describe action."""
import re

import botocore.session
import pytest
from botocore.exceptions import ClientError


def code(excinfo):
    return excinfo.value.response["Error"]["Code"]


def documented_filters(action):
    """The filter names in the service model's own text of the action's Filters member."""
    model = botocore.session.Session().get_service_model("ec2")
    text = model.operation_model(action).input_shape.members["Filters"].documentation
    names = re.findall(r"<li>\s*<p>\s*<code>([a-zA-Z0-9.:-]+)</code>", text)
    return sorted({n for n in names if not n.startswith("tag:")})


DESCRIBES = ["DescribeRegions", "DescribeAvailabilityZones", "DescribeVpcs", "DescribeSubnets", "DescribeInstanceTypes",
             "DescribeImages", "DescribeKeyPairs", "DescribeTags", "DescribeInstances", "DescribeInstanceStatus"]


@pytest.mark.parametrize("action", DESCRIBES)
def test_every_documented_filter(ec2, action):
    method = getattr(ec2, re.sub(r"(?<!^)([A-Z])", r"_\1", action).lower())
    names = documented_filters(action)
    assert names
    for name in names:
        if name == "tag":
            continue
        method(Filters=[{"Name": name, "Values": ["no-such-value"]}])
    with pytest.raises(ClientError) as e:
        method(Filters=[{"Name": "no-such-filter", "Values": ["x"]}])
    assert code(e) == "InvalidParameterValue"


def test_region(ec2, cloud):
    regions = ec2.describe_regions()["Regions"]
    assert [r["RegionName"] for r in regions] == [cloud.env["AWS_DEFAULT_REGION"]]
    assert ec2.describe_regions(Filters=[{"Name": "region-name", "Values": ["eu-*"]}])["Regions"] == []
    with pytest.raises(ClientError) as e:
        ec2.describe_regions(RegionNames=["mars-north-1"])
    assert code(e) == "InvalidParameterValue"


def test_zone(ec2, cloud):
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert len(zones) == 1
    assert zones[0]["State"] == "available" and zones[0]["ZoneName"].startswith(zones[0]["RegionName"])
    assert ec2.describe_availability_zones(ZoneIds=[zones[0]["ZoneId"]])["AvailabilityZones"] == zones


def test_account_attributes(ec2):
    rows = {r["AttributeName"]: r["AttributeValues"][0]["AttributeValue"]
            for r in ec2.describe_account_attributes()["AccountAttributes"]}
    assert rows["default-vpc"] == ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    one = ec2.describe_account_attributes(AttributeNames=["supported-platforms"])["AccountAttributes"]
    assert len(one) == 1 and one[0]["AttributeValues"] == [{"AttributeValue": "VPC"}]


def test_default_network(ec2, client):
    vpc, = ec2.describe_vpcs()["Vpcs"]
    subnet, = ec2.describe_subnets()["Subnets"]
    assert vpc["IsDefault"] and subnet["DefaultForAz"] and subnet["VpcId"] == vpc["VpcId"]
    assert subnet["CidrBlock"] == vpc["CidrBlock"] == vpc["CidrBlockAssociationSet"][0]["CidrBlock"]
    assert subnet["AvailableIpAddressCount"] > 0
    again, = ec2.describe_subnets(SubnetIds=[subnet["SubnetId"]])["Subnets"]
    assert again | {"AvailableIpAddressCount": 0} == subnet | {"AvailableIpAddressCount": 0}  # instances come and go
    assert ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["false"]}])["Vpcs"] == []
    other = client("ec2", account="describe-other")
    theirs, = other.describe_vpcs()["Vpcs"]
    assert theirs["VpcId"] != vpc["VpcId"]
    with pytest.raises(ClientError) as e:
        other.describe_vpcs(VpcIds=[vpc["VpcId"]])
    assert code(e) == "InvalidVpcID.NotFound"


def test_ids_malformed_and_not_found(ec2):
    for method, name, bad, want in [
            (ec2.describe_vpcs, "VpcIds", "vpc-zz", "InvalidVpcID.Malformed"),
            (ec2.describe_vpcs, "VpcIds", "vpc-0123456789abcdef0", "InvalidVpcID.NotFound"),
            (ec2.describe_subnets, "SubnetIds", "subnet-0123456789abcdef0", "InvalidSubnetID.NotFound"),
            (ec2.describe_images, "ImageIds", "ami-0123456789abcdef0", "InvalidAMIID.NotFound"),
            (ec2.describe_images, "ImageIds", "ami-XYZ", "InvalidAMIID.Malformed")]:
        with pytest.raises(ClientError) as e:
            method(**{name: [bad]})
        assert code(e) == want


def test_instance_types(ec2):
    for name in ("m1.small", "t2.micro", "t3.micro"):
        one, = ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
        assert one["InstanceType"] == name
        assert one["VCpuInfo"]["DefaultVCpus"] >= 1 and one["MemoryInfo"]["SizeInMiB"] >= 256
        assert one["BurstablePerformanceSupported"] is False
    with pytest.raises(ClientError) as e:
        ec2.describe_instance_types(InstanceTypes=["z9.huge"])
    assert code(e) == "InvalidInstanceType"
    rows = [t["InstanceType"] for p in ec2.get_paginator("describe_instance_types").paginate(
        PaginationConfig={"PageSize": 5}) for t in p["InstanceTypes"]]
    assert len(rows) == len(set(rows)) > 10
    two = ec2.describe_instance_types(Filters=[{"Name": "vcpu-info.valid-cores", "Values": ["2"]}])["InstanceTypes"]
    assert two and all(t["VCpuInfo"]["DefaultVCpus"] == 2 for t in two)
    with pytest.raises(ClientError) as e:
        ec2.describe_instance_types(NextToken="forged")
    assert code(e) in ("InvalidNextToken", "InvalidParameterValue")
