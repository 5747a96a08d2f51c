# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import os
import zlib

import pytest
from lib.s3 import Signer, new_bucket, path_of, refused

MIB = 1 << 20


@pytest.fixture(scope="module")
def bucket(s3):
    with new_bucket(s3, "parts") as name:
        yield name


def begin(s3, bucket, key, **kw):
    return s3.create_multipart_upload(Bucket=bucket, Key=key, **kw)["UploadId"]


def put(s3, bucket, key, upload, number, body, **kw):
    etag = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body, **kw)["ETag"]
    return {"PartNumber": number, "ETag": etag}


def complete(s3, bucket, key, upload, parts):
    return s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def test_complete(s3, bucket):
    bodies = {1: os.urandom(5 * MIB), 4: os.urandom(6 * MIB), 7: os.urandom(1000)}
    upload = begin(s3, bucket, "big", ContentType="video/x", Metadata={"m": "v"})
    parts = [put(s3, bucket, "big", upload, n, bodies[n]) for n in (7, 1)]
    put(s3, bucket, "big", upload, 4, b"replaced below" * 1000)
    parts = [parts[1], put(s3, bucket, "big", upload, 4, bodies[4]), parts[0]]
    put(s3, bucket, "big", upload, 9, b"left out")
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=bucket, Key="big")

    listed = s3.list_parts(Bucket=bucket, Key="big", UploadId=upload)
    assert [(p["PartNumber"], p["Size"]) for p in listed["Parts"]] == [(1, 5 * MIB), (4, 6 * MIB), (7, 1000), (9, 8)]
    page = s3.list_parts(Bucket=bucket, Key="big", UploadId=upload, MaxParts=2, PartNumberMarker=1)
    assert [p["PartNumber"] for p in page["Parts"]] == [4, 7]
    assert page["IsTruncated"] and page["NextPartNumberMarker"] == 7

    reply = complete(s3, bucket, "big", upload, parts)
    md5s = b"".join(hashlib.md5(bodies[n]).digest() for n in sorted(bodies))
    etag = '"%s-3"' % hashlib.md5(md5s).hexdigest()
    assert reply["ETag"] == etag and reply["Bucket"] == bucket and reply["Key"] == "big"
    whole = b"".join(bodies[n] for n in sorted(bodies))
    got = s3.get_object(Bucket=bucket, Key="big")
    assert got["Body"].read() == whole
    assert got["ETag"] == etag and got["ContentType"] == "video/x" and got["Metadata"] == {"m": "v"}
    got = s3.get_object(Bucket=bucket, Key="big", Range=f"bytes={5 * MIB - 10}-{11 * MIB + 9}")
    assert got["Body"].read() == whole[5 * MIB - 10:11 * MIB + 10]
    got = s3.get_object(Bucket=bucket, Key="big", PartNumber=2)
    assert got["Body"].read() == bodies[4] and got["PartsCount"] == 3
    assert s3.head_object(Bucket=bucket, Key="big", PartNumber=3)["ContentLength"] == 1000
    with refused("InvalidPartNumber", 416):
        s3.get_object(Bucket=bucket, Key="big", PartNumber=4)

    assert complete(s3, bucket, "big", upload, parts)["ETag"] == etag  # as when the reply was lost
    with refused("NoSuchUpload", 404):
        s3.list_parts(Bucket=bucket, Key="big", UploadId=upload)


def test_refused(s3, bucket):
    upload = begin(s3, bucket, "bad")
    small = put(s3, bucket, "bad", upload, 1, b"small")
    large = put(s3, bucket, "bad", upload, 2, bytes(5 * MIB))
    for parts, code in (([small, large], "EntityTooSmall"), ([large, small], "InvalidPartOrder"),
                        ([small, small], "InvalidPartOrder"), ([{"PartNumber": 3, "ETag": small["ETag"]}], "InvalidPart"),
                        ([{"PartNumber": 1, "ETag": '"0"'}], "InvalidPart"), ([{"PartNumber": 1}], "MalformedXML"),
                        ([], "MalformedXML")):
        with refused(code, 400):
            complete(s3, bucket, "bad", upload, parts)
    for number in (0, 10001):
        with refused("InvalidArgument", 400):
            put(s3, bucket, "bad", upload, number, b"x")
    with refused("NoSuchUpload", 404):
        put(s3, bucket, "other key", upload, 1, b"x")
    with refused("NoSuchUpload", 404):
        complete(s3, bucket, "bad", "no-such-upload", [small])
    complete(s3, bucket, "bad", upload, [large])
    assert s3.head_object(Bucket=bucket, Key="bad")["ContentLength"] == 5 * MIB


def test_abort_and_list(s3, bucket):
    uploads = [("a", begin(s3, bucket, "a")), ("d/x", begin(s3, bucket, "d/x")), ("d/y", begin(s3, bucket, "d/y"))]
    put(s3, bucket, "a", uploads[0][1], 1, bytes(100_000))
    listed = s3.list_multipart_uploads(Bucket=bucket)
    assert [(u["Key"], u["UploadId"]) for u in listed["Uploads"]] == uploads
    page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/", MaxUploads=1)
    assert [u["Key"] for u in page["Uploads"]] == ["a"] and page["IsTruncated"]
    page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/", KeyMarker=page["NextKeyMarker"],
                                     UploadIdMarker=page["NextUploadIdMarker"])
    assert [p["Prefix"] for p in page["CommonPrefixes"]] == ["d/"] and not page["IsTruncated"]
    for key, upload in uploads:
        reply = s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
        assert reply["ResponseMetadata"]["HTTPStatusCode"] == 204
        with refused("NoSuchUpload", 404):
            s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize("algorithm, digest", [
    ("SHA256", lambda b: hashlib.sha256(b).digest()),
    ("SHA1", lambda b: hashlib.sha1(b).digest()),
    ("CRC32", lambda b: zlib.crc32(b).to_bytes(4, "big"))])
def test_composite_checksums(s3, bucket, algorithm, digest):
    bodies = [os.urandom(5 * MIB), b"tail"]
    key, member = "sum-" + algorithm, "Checksum" + algorithm
    upload = begin(s3, bucket, key, ChecksumAlgorithm=algorithm)
    parts = []
    for n, body in enumerate(bodies, 1):
        told = base64.b64encode(digest(body)).decode()
        parts.append(dict(put(s3, bucket, key, upload, n, body, **{member: told}), **{member: told}))
    wrong = [parts[0], dict(parts[1], **{member: parts[0][member]})]
    with refused("InvalidPart", 400):
        complete(s3, bucket, key, upload, wrong)
    expected = base64.b64encode(digest(b"".join(map(digest, bodies)))).decode() + "-2"
    assert complete(s3, bucket, key, upload, parts)[member] == expected
    assert s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")[member] == expected


def test_full_object_crc(cloud, s3, bucket):
    """Newer clients ask for the CRC of the whole, which comes out of the parts' CRCs."""
    bodies = [os.urandom(5 * MIB), os.urandom(5 * MIB + 1), b"tail"]
    signer, path = Signer(cloud), path_of(bucket, "full")
    _, headers, body = signer.request("POST", path, "uploads=", headers={
        "x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": "FULL_OBJECT"})
    upload = body.split(b"<UploadId>")[1].split(b"<")[0].decode()
    parts = [put(s3, bucket, "full", upload, n, b) for n, b in enumerate(bodies, 1)]
    xml = "".join(f"<Part><PartNumber>{p['PartNumber']}</PartNumber><ETag>{p['ETag']}</ETag></Part>" for p in parts)
    whole = base64.b64encode(zlib.crc32(b"".join(bodies)).to_bytes(4, "big")).decode()
    finish = lambda told: signer.request("POST", path, "uploadId=" + upload, headers={  # noqa: E731
        "x-amz-checksum-crc32": told, "x-amz-checksum-type": "FULL_OBJECT", "x-amz-mp-object-size": str(sum(map(len, bodies)))},
        body=f"<CompleteMultipartUpload>{xml}</CompleteMultipartUpload>".encode())
    status, _, body = finish("AAAAAA==")
    assert status == 400 and b"<Code>BadDigest</Code>" in body
    status, _, body = finish(whole)
    assert status == 200 and f"<ChecksumCRC32>{whole}</ChecksumCRC32>".encode() in body, body


@pytest.mark.parametrize("name", ["CRC32", "CRC64NVME"])
def test_checksums_are_told(cloud, s3, bucket, name):
    """Of parts that were sent, of copied ones, and of a copy: clients that check the whole need them."""
    signer, path, tag = Signer(cloud), path_of(bucket, "told"), f"<Checksum{name}>".encode()
    s3.put_object(Bucket=bucket, Key="source", Body=b"123456789")
    source = {"x-amz-copy-source": path_of(bucket, "source")}
    _, _, body = signer.request("POST", path, "uploads=", headers={
        "x-amz-checksum-algorithm": name, "x-amz-checksum-type": "FULL_OBJECT"})
    upload = body.split(b"<UploadId>")[1].split(b"<")[0].decode()
    _, headers, _ = signer.request("PUT", path, "partNumber=1&uploadId=" + upload, body=b"123456789")
    told = tag + headers["x-amz-checksum-" + name.lower()].encode()
    _, _, body = signer.request("PUT", path, "partNumber=2&uploadId=" + upload, headers=source)
    assert told in body
    etag = body.split(b"<ETag>")[1].split(b"<")[0].decode()
    _, _, body = signer.request("GET", path, "uploadId=" + upload)
    assert body.count(told) == 2 and b"<ChecksumType>FULL_OBJECT</ChecksumType>" in body
    status, _, _ = signer.request("POST", path, "uploadId=" + upload, body=(
        f"<CompleteMultipartUpload><Part><PartNumber>2</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>").encode())
    assert status == 200
    _, _, body = signer.request("PUT", path + "2", headers={"x-amz-copy-source": path})
    assert told in body and b"<ChecksumType>FULL_OBJECT</ChecksumType>" in body


def test_conditional_completion(cloud, s3, bucket):
    signer, path = Signer(cloud), path_of(bucket, "cond")
    upload = begin(s3, bucket, "cond")
    part = put(s3, bucket, "cond", upload, 1, b"multi")
    s3.put_object(Bucket=bucket, Key="cond", Body=b"first")
    body = (f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{part['ETag']}</ETag></Part>"
            "</CompleteMultipartUpload>").encode()
    finish = lambda: signer.request("POST", path, "uploadId=" + upload, headers={"if-none-match": "*"}, body=body)  # noqa: E731
    assert finish()[0] == 412
    assert s3.get_object(Bucket=bucket, Key="cond")["Body"].read() == b"first"
    s3.delete_object(Bucket=bucket, Key="cond")
    assert finish()[0] == 200
    assert s3.get_object(Bucket=bucket, Key="cond")["Body"].read() == b"multi"


def test_transfer(s3, bucket, tmp_path):
    """boto3's own threads: parallel parts up, parallel ranges down."""
    from boto3.s3.transfer import TransferConfig
    config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB, max_concurrency=6)
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(70 * MIB + 12345))
    s3.upload_file(str(source), bucket, "transfer", Config=config)
    s3.download_file(bucket, "transfer", str(back), Config=config)
    assert back.read_bytes() == source.read_bytes()
