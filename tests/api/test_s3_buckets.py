# SPDX-License-Identifier: Apache-2.0
import uuid

import pytest
from lib.s3 import Signer, new_bucket, refused


@pytest.fixture
def bucket(s3):
    with new_bucket(s3) as name:
        yield name


def test_create_head_list_delete(s3):
    name = "b." + uuid.uuid4().hex
    reply = s3.create_bucket(Bucket=name)
    assert reply["Location"] == "/" + name
    assert s3.head_bucket(Bucket=name)["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] == "us-east-1"
    listed = s3.list_buckets()
    assert name in [b["Name"] for b in listed["Buckets"]]
    assert len(listed["Owner"]["ID"]) == 64
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] is None
    assert s3.delete_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused(404, 404):
        s3.head_bucket(Bucket=name)
    with refused("NoSuchBucket", 404):
        s3.delete_bucket(Bucket=name)


def test_again(s3, client, bucket):
    s3.create_bucket(Bucket=bucket)  # us-east-1 says 200 to the owner
    with refused("BucketAlreadyExists", 409):
        client("s3", "other").create_bucket(Bucket=bucket)


@pytest.mark.parametrize("name", ["ab", "A" * 5, "a_b_c", "-abc", "abc-", "a..b", "10.0.0.1", "x" * 64])
def test_names(cloud, name):
    status, headers, body = Signer(cloud).request("PUT", "/" + name)
    assert status == 400 and b"<Code>InvalidBucketName</Code>" in body
    assert headers["x-amz-request-id"]


def test_not_empty(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=bucket)


def test_location_constraint(s3):
    with refused("IllegalLocationConstraintException", 400):
        s3.create_bucket(Bucket="x" + uuid.uuid4().hex, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})


def test_another_account_sees_nothing(s3, client, bucket):
    other = client("s3", "other")
    s3.put_object(Bucket=bucket, Key="secret", Body=b"mine")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="up")["UploadId"]
    assert bucket not in [b["Name"] for b in other.list_buckets()["Buckets"]]
    for call in (lambda: other.get_object(Bucket=bucket, Key="secret"),
                 lambda: other.get_object(Bucket=bucket, Key="no such key"),
                 lambda: other.put_object(Bucket=bucket, Key="mine", Body=b"x" * 100000),
                 lambda: other.delete_object(Bucket=bucket, Key="secret"),
                 lambda: other.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "secret"}]}),
                 lambda: other.list_objects_v2(Bucket=bucket),
                 lambda: other.list_multipart_uploads(Bucket=bucket),
                 lambda: other.get_bucket_location(Bucket=bucket),
                 lambda: other.upload_part(Bucket=bucket, Key="up", UploadId=upload, PartNumber=1, Body=b"x"),
                 lambda: other.abort_multipart_upload(Bucket=bucket, Key="up", UploadId=upload),
                 lambda: other.delete_bucket(Bucket=bucket)):
        with refused("AccessDenied", 403):
            call()
    with refused(403, 403):
        other.head_bucket(Bucket=bucket)
    with refused(403, 403):
        other.head_object(Bucket=bucket, Key="secret")
    assert s3.get_object(Bucket=bucket, Key="secret")["Body"].read() == b"mine"


def test_expected_owner(s3, bucket):
    with refused("AccessDenied", 403):
        s3.list_objects_v2(Bucket=bucket, ExpectedBucketOwner="999999999999")


@pytest.mark.parametrize("call, code", [
    ("get_bucket_policy", "NoSuchBucketPolicy"),
    ("get_bucket_cors", "NoSuchCORSConfiguration"),
    ("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration"),
    ("get_bucket_tagging", "NoSuchTagSet"),
    ("get_bucket_website", "NoSuchWebsiteConfiguration"),
    ("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError"),
    ("get_public_access_block", "NoSuchPublicAccessBlockConfiguration"),
    ("get_bucket_ownership_controls", "OwnershipControlsNotFoundError"),
    ("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
    ("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError"),
])
def test_not_configured(s3, bucket, call, code):
    with refused(code, 404):
        getattr(s3, call)(Bucket=bucket)
    with refused("NoSuchBucket", 404):
        getattr(s3, call)(Bucket="no-such-bucket-here")


def test_not_served(s3, bucket):
    with refused("NotImplemented", 501):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with refused("NotImplemented", 501):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="AES256")
    with refused("AccessControlListNotSupported", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    with refused("InvalidStorageClass", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="GLACIER")


def test_limit(client):
    other = client("s3", "limited")
    stem = uuid.uuid4().hex[:12]
    names = [f"{stem}-{i}" for i in range(100 - len(other.list_buckets()["Buckets"]))]
    for name in names:
        other.create_bucket(Bucket=name)
    try:
        with refused("TooManyBuckets", 400):
            other.create_bucket(Bucket=stem + "-more")
    finally:
        for name in names:
            other.delete_bucket(Bucket=name)


def test_fixed_answers(cloud, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    owner = s3.list_buckets()["Owner"]
    for acl in (s3.get_bucket_acl(Bucket=bucket), s3.get_object_acl(Bucket=bucket, Key="k")):
        assert acl["Owner"] == owner
        assert acl["Grants"] == [{"Grantee": {**owner, "Type": "CanonicalUser"}, "Permission": "FULL_CONTROL"}]
    with refused("NoSuchKey", 404):
        s3.get_object_acl(Bucket=bucket, Key="missing")
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    _, _, body = Signer(cloud).request("GET", f"/{bucket}", "versioning=")
    assert b"<VersioningConfiguration" in body
