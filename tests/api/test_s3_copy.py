# SPDX-License-Identifier: Apache-2.0
import os

import pytest
from lib.s3 import Signer, new_bucket, path_of, refused

MIB = 1 << 20


@pytest.fixture(scope="module")
def bucket(s3):
    with new_bucket(s3, "copy") as name:
        yield name


@pytest.mark.parametrize("size", [0, 1000, 200_000])
def test_copy(s3, bucket, size):
    body = os.urandom(size)
    etag = s3.put_object(Bucket=bucket, Key="from ü+", Body=body, ContentType="a/b", Metadata={"m": "1"})["ETag"]
    reply = s3.copy_object(Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "from ü+"})
    assert reply["CopyObjectResult"]["ETag"] == etag
    s3.delete_object(Bucket=bucket, Key="from ü+")
    got = s3.get_object(Bucket=bucket, Key="to")
    assert got["Body"].read() == body and got["ContentType"] == "a/b" and got["Metadata"] == {"m": "1"}
    assert got["LastModified"] == reply["CopyObjectResult"]["LastModified"]
    itself = {"Bucket": bucket, "Key": "to"}
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=bucket, Key="to", CopySource=itself)
    s3.copy_object(Bucket=bucket, Key="to", CopySource=itself, MetadataDirective="REPLACE", ContentType="c/d", Metadata={"n": "2"})
    got = s3.get_object(Bucket=bucket, Key="to")
    assert got["Body"].read() == body and got["ContentType"] == "c/d" and got["Metadata"] == {"n": "2"}


def test_conditions(s3, client, bucket):
    etag = s3.put_object(Bucket=bucket, Key="c", Body=b"x")["ETag"]
    source = {"Bucket": bucket, "Key": "c"}
    s3.copy_object(Bucket=bucket, Key="d", CopySource=source, CopySourceIfMatch=etag)
    for failed in ({"CopySourceIfMatch": '"no"'}, {"CopySourceIfNoneMatch": etag}):
        with refused("PreconditionFailed", 412):
            s3.copy_object(Bucket=bucket, Key="d", CopySource=source, **failed)
    with refused("NoSuchKey", 404):
        s3.copy_object(Bucket=bucket, Key="d", CopySource={"Bucket": bucket, "Key": "missing"})
    with refused("InvalidArgument", 400):
        s3.copy_object(Bucket=bucket, Key="d", CopySource="only-a-bucket")
    other = client("s3", "other")
    with new_bucket(other, "copy-other") as theirs:
        with refused("AccessDenied", 403):
            other.copy_object(Bucket=theirs, Key="stolen", CopySource=source)
        with refused("AccessDenied", 403):
            s3.copy_object(Bucket=theirs, Key="planted", CopySource=source)


def test_conditions_of_the_target(cloud, s3, bucket):
    """Newer clients guard what a copy would replace."""
    old = s3.put_object(Bucket=bucket, Key="guarded", Body=b"old")["ETag"]
    s3.put_object(Bucket=bucket, Key="new", Body=b"new")

    def copy(key, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["x-amz-copy-source"] = path_of(bucket, "new")
        return Signer(cloud).request("PUT", path_of(bucket, key), headers=named)[0]

    assert copy("guarded", if_none_match="*") == 412
    assert copy("guarded", if_match='"other"') == 412
    assert copy("absent", if_match="*") == 404
    assert s3.get_object(Bucket=bucket, Key="guarded")["Body"].read() == b"old"
    assert copy("guarded", if_match=old) == 200
    assert copy("absent", if_none_match="*") == 200
    assert s3.get_object(Bucket=bucket, Key="guarded")["Body"].read() == b"new"


def test_part_copy(s3, bucket):
    body = os.urandom(11 * MIB)
    s3.put_object(Bucket=bucket, Key="large", Body=body)
    source = {"Bucket": bucket, "Key": "large"}
    upload = s3.create_multipart_upload(Bucket=bucket, Key="joined", ChecksumAlgorithm="CRC32")["UploadId"]
    parts = []
    for n, given in ((1, f"bytes=0-{6 * MIB - 1}"), (2, f"bytes={6 * MIB}-{11 * MIB - 1}"), (3, None)):
        extra = {"CopySourceRange": given} if given else {}
        reply = s3.upload_part_copy(Bucket=bucket, Key="joined", UploadId=upload, PartNumber=n, CopySource=source, **extra)
        parts.append({"PartNumber": n, "ETag": reply["CopyPartResult"]["ETag"]})
    for wrong, code in (("bytes=5-2", "InvalidArgument"), ("bytes=5-", "InvalidArgument"), ("bytes=-5", "InvalidArgument"),
                        (f"bytes=0-{11 * MIB}", "InvalidArgument"), (f"bytes={20 * MIB}-{21 * MIB}", "InvalidRange")):
        with refused(code):
            s3.upload_part_copy(Bucket=bucket, Key="joined", UploadId=upload, PartNumber=4, CopySource=source, CopySourceRange=wrong)
    s3.complete_multipart_upload(Bucket=bucket, Key="joined", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="joined")["Body"].read() == body * 2
    s3.copy_object(Bucket=bucket, Key="again", CopySource={"Bucket": bucket, "Key": "joined"})
    s3.delete_object(Bucket=bucket, Key="joined")
    assert s3.get_object(Bucket=bucket, Key="again")["Body"].read() == body * 2
