# SPDX-License-Identifier: Apache-2.0
"""Images: registered from an object, read by the worker, shared, deregistered."""
import time

import pytest
from botocore.exceptions import ClientError

BUCKET = "image-tests"


def code(excinfo):
    return excinfo.value.response["Error"]["Code"]


@pytest.fixture(scope="module")
def bucket(s3):
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="raw", Body=b"\0" * 4096)
    s3.put_object(Bucket=BUCKET, Key="odd", Body=b"\0" * 4097)
    s3.put_object(Bucket=BUCKET, Key="qcow2", Body=b"QFI\xfb" + b"\0" * 4092)
    return BUCKET


def wait_settled(ec2, image, timeout=20):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        shown, = ec2.describe_images(ImageIds=[image])["Images"]
        if shown["State"] != "pending":
            return shown
        time.sleep(0.1)
    raise AssertionError(f"{image} is still pending")


@pytest.fixture
def image(ec2, bucket, request):
    out = ec2.register_image(Name="im " + request.node.name[:60], ImageLocation=bucket + "/raw", Description="one")
    yield out["ImageId"]
    try:
        ec2.deregister_image(ImageId=out["ImageId"])
    except ClientError as e:
        assert e.response["Error"]["Code"] == "InvalidAMIID.NotFound"


def test_life_of_an_image(ec2, image, cloud):
    shown = wait_settled(ec2, image)
    assert shown["State"] == "available"
    assert shown["RootDeviceType"] == "instance-store" and shown["RootDeviceName"] == "/dev/sda1"
    assert shown["Architecture"] == "x86_64" and shown["Public"] is False and shown["Description"] == "one"
    ec2.get_waiter("image_available").wait(ImageIds=[image])
    assert [i["ImageId"] for i in ec2.describe_images(Owners=["self"], Filters=[
        {"Name": "name", "Values": ["im test_life*"]}])["Images"]] == [image]
    ec2.deregister_image(ImageId=image)
    with pytest.raises(ClientError) as e:
        ec2.describe_images(ImageIds=[image])
    assert code(e) == "InvalidAMIID.NotFound"


@pytest.mark.parametrize("key, reason", [
    ("missing", "Client.ImageNotFound"), ("odd", "Client.InvalidImage"), ("qcow2", "Client.InvalidImage")])
def test_what_is_no_disk_fails_with_a_reason(ec2, bucket, key, reason):
    image = ec2.register_image(Name="bad " + key, ImageLocation=f"{bucket}/{key}")["ImageId"]
    shown = wait_settled(ec2, image)
    assert shown["State"] == "failed" and shown["StateReason"]["Code"] == reason and shown["StateReason"]["Message"]
    ec2.deregister_image(ImageId=image)


def test_another_accounts_object_cannot_be_read(client, bucket):
    other = client("ec2", account="images-thief")
    image = other.register_image(Name="stolen", ImageLocation=bucket + "/raw")["ImageId"]
    shown = wait_settled(other, image)
    assert shown["State"] == "failed" and shown["StateReason"]["Code"] == "Client.ImageAccessDenied"
    other.deregister_image(ImageId=image)


def test_sharing(ec2, client, image):
    other, sts = client("ec2", account="images-other"), client("sts", account="images-other")
    them = sts.get_caller_identity()["Account"]

    def sees():
        return any(i["ImageId"] == image for i in other.describe_images()["Images"])

    assert not sees()
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": them}]})
    assert sees()
    assert ec2.describe_image_attribute(ImageId=image, Attribute="launchPermission")["LaunchPermissions"] == [{"UserId": them}]
    with pytest.raises(ClientError) as e:
        other.deregister_image(ImageId=image)
    assert code(e) == "AuthFailure"
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"Group": "all"}], "Remove": [{"UserId": them}]})
    assert sees()
    assert any(i["ImageId"] == image for i in other.describe_images(ExecutableUsers=["all"])["Images"])
    ec2.reset_image_attribute(ImageId=image, Attribute="launchPermission")
    assert not sees()


THEM = "123456789012"


@pytest.mark.parametrize("change, shared_with", [
    (dict(Attribute="launchPermission", OperationType="add", UserIds=[THEM]), [{"UserId": THEM}]),
    (dict(Attribute="launchPermission", OperationType="add", UserIds=[THEM], UserGroups=["all"]), [{"Group": "all"}, {"UserId": THEM}]),
    (dict(UserIds=[THEM], LaunchPermission={"Add": [{"UserId": THEM}]}), [{"UserId": THEM}]),
    (dict(UserGroups=["all"], LaunchPermission={"Add": [{"Group": "all"}]}), [{"Group": "all"}]),
])
def test_older_form_of_sharing(ec2, image, change, shared_with):
    def shared():
        return ec2.describe_image_attribute(ImageId=image, Attribute="launchPermission")["LaunchPermissions"]

    ec2.modify_image_attribute(ImageId=image, **change)
    assert shared() == shared_with
    ec2.modify_image_attribute(ImageId=image, OperationType="remove", UserIds=[THEM], UserGroups=["all"])
    assert shared() == []


@pytest.mark.parametrize("change, want", [
    (dict(UserIds=[THEM]), "MissingParameter"),
    (dict(OperationType="add"), "MissingParameter"),
    (dict(OperationType="keep", UserIds=[THEM]), "InvalidParameterValue"),
    (dict(OperationType="add", UserIds=["12"]), "InvalidAMIAttributeItemValue"),
    (dict(OperationType="add", UserGroups=["some"]), "InvalidParameterValue"),
    (dict(OperationType="remove", LaunchPermission={"Add": [{"UserId": THEM}]}), "InvalidParameterCombination"),
    (dict(UserIds=[THEM], LaunchPermission={"Add": [{"Group": "all"}]}), "InvalidParameterCombination"),
    (dict(Attribute="description", OperationType="add", UserIds=[THEM]), "InvalidParameterCombination"),
    (dict(Description={"Value": "x"}, OperationType="add", UserIds=[THEM]), "InvalidParameterCombination"),
    (dict(Attribute="launchPermission", Value="x"), "InvalidParameterCombination"),
    (dict(Value="x"), "InvalidParameterCombination"),
    (dict(Attribute="description", Value="x", Description={"Value": "y"}), "InvalidParameterCombination"),
    (dict(Attribute="description", Value="x" * 256), "InvalidParameterValue"),
])
def test_bad_changes_of_attributes(ec2, image, change, want):
    with pytest.raises(ClientError) as e:
        ec2.modify_image_attribute(ImageId=image, **change)
    assert code(e) == want
    assert ec2.describe_image_attribute(ImageId=image, Attribute="launchPermission")["LaunchPermissions"] == []


@pytest.mark.parametrize("change, text", [
    (dict(Description={"Value": "two"}), "two"),
    (dict(Attribute="description", Value="three"), "three"),
])
def test_description(ec2, image, change, text):
    ec2.modify_image_attribute(ImageId=image, **change)
    assert ec2.describe_image_attribute(ImageId=image, Attribute="description")["Description"] == {"Value": text}


@pytest.mark.parametrize("changes, want", [
    ({"Name": "x"}, "InvalidAMIName.Malformed"),
    ({"Name": "a*b*c"}, "InvalidAMIName.Malformed"),
    ({"ImageLocation": "nokey"}, "InvalidParameterValue"),
    ({"ImageLocation": ""}, "MissingParameter"),
    ({"SriovNetSupport": "double"}, "InvalidParameterValue"),
    ({"Architecture": "arm64"}, "InvalidParameterValue"),
    ({"VirtualizationType": "paravirtual"}, "InvalidParameterValue"),
    ({"BootMode": "uefi"}, "InvalidParameterValue"),
    ({"EnaSupport": True}, "InvalidParameterValue"),
    ({"BlockDeviceMappings": [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1}}]}, "InvalidParameterCombination"),
])
def test_bad_registrations(ec2, bucket, changes, want):
    with pytest.raises(ClientError) as e:
        ec2.register_image(**{"Name": "a name", "ImageLocation": bucket + "/raw", **changes})
    assert code(e) == want


def test_names_are_unique(ec2, bucket, image):
    name = ec2.describe_images(ImageIds=[image])["Images"][0]["Name"]
    with pytest.raises(ClientError) as e:
        ec2.register_image(Name=name, ImageLocation=bucket + "/raw")
    assert code(e) == "InvalidAMIName.Duplicate"


def test_waiter_fails_on_a_failed_image(ec2, bucket):
    from botocore.exceptions import WaiterError
    image = ec2.register_image(Name="waiter fails", ImageLocation=bucket + "/missing")["ImageId"]
    with pytest.raises(WaiterError):
        ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    ec2.deregister_image(ImageId=image)
