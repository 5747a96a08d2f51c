# SPDX-License-Identifier: Apache-2.0
"""Which instances DescribeInstances and DescribeInstanceStatus show: filters, wildcards, pages."""
import uuid

import pytest

from lib.instances import instance, wait_state

NAME = f"filters-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def fleet(ec2, image_id):
    """Two launches of different sizes, told from the rest of the cloud by a tag: [[a, b], [c]]."""
    def run(count, **kw):
        tags = [{"Key": "fleet", "Value": NAME}, {"Key": "size", "Value": kw["InstanceType"]}]
        reservation = ec2.run_instances(ImageId=image_id, MinCount=count, MaxCount=count,
                                        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}], **kw)
        return [i["InstanceId"] for i in reservation["Instances"]]

    made = [run(2, InstanceType="t2.nano"),
            run(1, InstanceType="t2.micro", MetadataOptions={"HttpTokens": "required"}, ClientToken=NAME)]
    for i in made[0] + made[1]:
        wait_state(ec2, i, "running")
    yield made
    ec2.terminate_instances(InstanceIds=made[0] + made[1])
    for i in made[0] + made[1]:
        wait_state(ec2, i, "terminated")


def find(ec2, *filters):
    wanted = [{"Name": "tag:fleet", "Values": [NAME]}]
    wanted += [{"Name": n, "Values": v if isinstance(v, list) else [v]} for n, v in filters]
    return [i["InstanceId"] for r in ec2.describe_instances(Filters=wanted)["Reservations"] for i in r["Instances"]]


def test_no_filter_but_the_tag(ec2, fleet):
    assert find(ec2) == fleet[0] + fleet[1]


@pytest.mark.parametrize("name,value,expect", [
    ("instance-type", "t2.nano", "ab"),
    ("instance-type", ["t2.nano", "t2.micro"], "abc"),
    ("instance-type", "t2.*", "abc"),
    ("instance-type", "t2.?????", "c"),
    ("instance-type", "T2.nano", ""),
    ("instance-type", "t2.n", ""),
    ("instance-state-name", "running", "abc"),
    ("instance-state-name", ["pending", "terminated"], ""),
    ("instance-state-code", "16", "abc"),
    ("launch-index", "1", "b"),
    ("availability-zone", "us-east-1a", "abc"),
    ("architecture", "x86_64", "abc"),
    ("root-device-type", "instance-store", "abc"),
    ("virtualization-type", "hvm", "abc"),
    ("tenancy", "default", "abc"),
    ("monitoring-state", "disabled", "abc"),
    ("metadata-options.http-tokens", "required", "c"),
    ("metadata-options.http-put-response-hop-limit", "1", "abc"),
    ("client-token", NAME, "c"),
    ("source-dest-check", "true", "abc"),
    ("network-interface.addresses.primary", "true", "abc"),
    ("network-interface.attachment.device-index", "0", "abc"),
    ("network-interface.attachment.status", "attached", "abc"),
    ("network-interface.status", "available", ""),
    ("launch-time", "20*", "abc"),
    ("tag:size", "t2.micro", "c"),
    ("tag:size", ["*nano", "nothing"], "ab"),
    ("tag:none", "*", ""),
    ("tag-key", "size", "abc"),
    ("tag-key", ["si?e"], "abc"),
    ("tag-value", "t2.micro", "c"),
    ("private-dns-name", "ip-*", "abc"),
    ("network-interface.addresses.private-dns-name", "ip-*", "abc"),
    ("current-instance-boot-mode", "legacy-bios", "abc"),
    ("network-interface.ipv6-address", "*", ""),
    ("platform", "windows", ""),
    ("ip-address", "*", ""),
    ("iam-instance-profile.arn", "*", ""),
])
def test_filters(ec2, fleet, name, value, expect):
    letters = dict(zip("abc", fleet[0] + fleet[1]))
    assert find(ec2, (name, value)) == [letters[x] for x in expect]


@pytest.mark.parametrize("name,path", [
    ("instance-id", ["InstanceId"]), ("image-id", ["ImageId"]), ("private-ip-address", ["PrivateIpAddress"]),
    ("private-dns-name", ["PrivateDnsName"]), ("subnet-id", ["SubnetId"]), ("vpc-id", ["VpcId"]),
    ("root-device-name", ["RootDeviceName"]), ("hypervisor", ["Hypervisor"]), ("platform-details", ["PlatformDetails"]),
    ("network-interface.mac-address", ["NetworkInterfaces", 0, "MacAddress"]),
    ("network-interface.network-interface-id", ["NetworkInterfaces", 0, "NetworkInterfaceId"]),
    ("network-interface.addresses.private-ip-address", ["NetworkInterfaces", 0, "PrivateIpAddresses", 0, "PrivateIpAddress"]),
    ("network-interface.owner-id", ["NetworkInterfaces", 0, "OwnerId"]),
    ("network-interface.subnet-id", ["NetworkInterfaces", 0, "SubnetId"]),
    ("network-interface.attachment.attachment-id", ["NetworkInterfaces", 0, "Attachment", "AttachmentId"]),
])
def test_a_shown_value_finds_its_instance(ec2, fleet, name, path):
    value = instance(ec2, fleet[0][1])
    for step in path:
        value = value[step]
    assert fleet[0][1] in find(ec2, (name, value))
    assert find(ec2, (name, value + "0")) == []


def test_reservation_and_owner(ec2, sts, fleet):
    (reservation,) = ec2.describe_instances(InstanceIds=fleet[0])["Reservations"]
    assert find(ec2, ("reservation-id", reservation["ReservationId"])) == fleet[0]
    assert find(ec2, ("owner-id", sts.get_caller_identity()["Account"])) == fleet[0] + fleet[1]
    assert find(ec2, ("owner-id", "123456789012")) == []


def test_filters_are_all_required(ec2, fleet):
    assert find(ec2, ("instance-type", "t2.nano"), ("launch-index", "0")) == [fleet[0][0]]
    assert find(ec2, ("instance-type", "t2.nano"), ("tag:size", "t2.micro")) == []


def test_filters_with_ids(ec2, fleet):
    found = ec2.describe_instances(InstanceIds=fleet[0] + fleet[1], Filters=[{"Name": "instance-type", "Values": ["t2.micro"]}])
    assert [i["InstanceId"] for r in found["Reservations"] for i in r["Instances"]] == fleet[1]


def test_escaped_wildcards(ec2, fleet):
    ec2.create_tags(Resources=fleet[1], Tags=[{"Key": "star", "Value": "a*b?c"}])
    assert find(ec2, ("tag:star", r"a\*b\?c")) == fleet[1]
    assert find(ec2, ("tag:star", r"a\*bxc")) == []
    ec2.delete_tags(Resources=fleet[1], Tags=[{"Key": "star"}])
    assert find(ec2, ("tag-key", "star")) == []


@pytest.mark.parametrize("name,value,found", [
    ("instance-state-name", "running", True), ("instance-state-code", "80", False), ("system-status.status", "ok", True),
    ("system-status.reachability", "passed", True), ("instance-status.status", "impaired", False),
    ("availability-zone", "us-east-1?", True), ("event.code", "*", False),
])
def test_status_filters(ec2, fleet, name, value, found):
    out = ec2.describe_instance_status(InstanceIds=fleet[0], Filters=[{"Name": name, "Values": [value]}])["InstanceStatuses"]
    assert [s["InstanceId"] for s in out] == (fleet[0] if found else [])


def test_pages(ec2, image_id):
    ids = [i["InstanceId"] for i in ec2.run_instances(
        ImageId=image_id, InstanceType="t2.nano", MinCount=11, MaxCount=11,
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "paged", "Value": NAME}]}])["Instances"]]
    try:
        mine = [{"Name": "tag:paged", "Values": [NAME]}]
        pages = list(ec2.get_paginator("describe_instances").paginate(Filters=mine, PaginationConfig={"PageSize": 5}))
        assert [sum(len(r["Instances"]) for r in p["Reservations"]) for p in pages] == [5, 5, 1]
        assert [i["InstanceId"] for p in pages for r in p["Reservations"] for i in r["Instances"]] == ids
        # an instance that ends between two pages moves nothing
        first = ec2.describe_instances(Filters=mine, MaxResults=5)
        ec2.terminate_instances(InstanceIds=[ids[0]])
        second = ec2.describe_instances(Filters=mine, MaxResults=5, NextToken=first["NextToken"])
        assert [i["InstanceId"] for r in second["Reservations"] for i in r["Instances"]] == ids[5:10]
        statuses = list(ec2.get_paginator("describe_instance_status").paginate(
            IncludeAllInstances=True, PaginationConfig={"PageSize": 5}))
        seen = [s["InstanceId"] for p in statuses for s in p["InstanceStatuses"]]
        assert len(seen) == len(set(seen)) and set(ids) <= set(seen)
    finally:
        ec2.terminate_instances(InstanceIds=ids)
        for i in ids:
            wait_state(ec2, i, "terminated")
