# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import os
import time
from datetime import datetime, timedelta, timezone

import pytest
from botocore.config import Config
from lib.s3 import Signer, new_bucket, path_of, refused


@pytest.fixture(scope="module")
def bucket(s3):
    with new_bucket(s3) as name:
        yield name


@pytest.mark.parametrize("size", [0, 1, 1000, 32768, 32769, 1 << 20, 9_000_001])
def test_put_get(s3, bucket, size):
    body = os.urandom(size)
    etag = '"%s"' % hashlib.md5(body).hexdigest()
    assert s3.put_object(Bucket=bucket, Key="k", Body=body)["ETag"] == etag
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == body
    assert got["ETag"] == etag and got["ContentLength"] == size and got["AcceptRanges"] == "bytes"
    assert got["ContentType"] == "binary/octet-stream"
    head = s3.head_object(Bucket=bucket, Key="k")
    assert head["ContentLength"] == size and head["ETag"] == etag
    assert abs(head["LastModified"] - datetime.now(timezone.utc)) < timedelta(seconds=20)
    assert head["LastModified"] == got["LastModified"]


@pytest.mark.parametrize("key", [
    "a b", "a+b", "a%2Fb", "a%b", "a//b", "/a", "a/../b", "..", ".", "a/./b", "a/", "ü/ß", "日本語", "🌳", "a&b=c?d#e", "~a",
    "a\\b", '"quoted"', "<xml>&amp;", "tab\tkey", "x" * 1024, "a:b;c,d", "trailing ", "*'()!"])
def test_odd_keys(s3, bucket, key):
    body = key.encode()
    s3.put_object(Bucket=bucket, Key=key, Body=body)
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]] == [key]
    assert [o["Key"] for o in s3.list_objects(Bucket=bucket, Prefix=key)["Contents"]] == [key]
    reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}]})
    assert [d["Key"] for d in reply["Deleted"]] == [key]
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=bucket, Key=key)


def test_bad_keys(cloud, s3, bucket):
    with refused("KeyTooLongError", 400):
        s3.put_object(Bucket=bucket, Key="x" * 1025, Body=b"")
    for raw in ("/%ff%fe", "/a%00b"):
        status, _, body = Signer(cloud).request("PUT", f"/{bucket}{raw}", body=b"x")
        assert status == 400 and b"<Code>InvalidURI</Code>" in body


def test_missing(s3, bucket):
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=bucket, Key="missing")
    with refused(404, 404):
        s3.head_object(Bucket=bucket, Key="missing")
    with refused("NoSuchBucket", 404):
        s3.get_object(Bucket="no-such-bucket-at-all", Key="k")
    with refused("NoSuchBucket", 404):
        s3.put_object(Bucket="no-such-bucket-at-all", Key="k", Body=b"x" * 200000)
    assert s3.delete_object(Bucket=bucket, Key="missing")["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_kept_headers(s3, bucket):
    expires = datetime(2031, 5, 4, 3, 2, 1, tzinfo=timezone.utc)
    s3.put_object(Bucket=bucket, Key="h", Body=b"x", ContentType="text/html; charset=utf-8", ContentEncoding="gzip",
                  ContentDisposition='attachment; filename="f"', ContentLanguage="de", CacheControl="max-age=3", Expires=expires,
                  Metadata={"Colour": "green", "empty": "", "with-dash": "a b"})
    for got in (s3.get_object(Bucket=bucket, Key="h"), s3.head_object(Bucket=bucket, Key="h")):
        assert got["ContentType"] == "text/html; charset=utf-8" and got["ContentEncoding"] == "gzip"
        assert got["ContentDisposition"] == 'attachment; filename="f"' and got["ContentLanguage"] == "de"
        assert got["CacheControl"] == "max-age=3" and got["Expires"] == expires
        assert got["Metadata"] == {"colour": "green", "empty": "", "with-dash": "a b"}
    got = s3.get_object(Bucket=bucket, Key="h", ResponseContentType="text/plain", ResponseContentDisposition="inline",
                        ResponseCacheControl="no-store", ResponseContentEncoding="br", ResponseContentLanguage="fr",
                        ResponseExpires=expires + timedelta(days=1))
    assert (got["ContentType"], got["ContentDisposition"], got["CacheControl"]) == ("text/plain", "inline", "no-store")
    assert (got["ContentEncoding"], got["ContentLanguage"], got["Expires"]) == ("br", "fr", expires + timedelta(days=1))
    with refused("MetadataTooLarge", 400):
        s3.put_object(Bucket=bucket, Key="h", Body=b"", Metadata={"m": "x" * 2048})


@pytest.mark.parametrize("size", [1000, 100_000])
def test_ranges(s3, bucket, size):
    body = os.urandom(size)
    s3.put_object(Bucket=bucket, Key="r", Body=body)
    for text, first, last in (("0-0", 0, 0), ("0-9", 0, 9), ("10-", 10, size - 1), ("-10", size - 10, size - 1),
                              ("990-2000000", 990, min(2000000, size - 1)), (f"-{2 * size}", 0, size - 1),
                              (f"{size - 1}-", size - 1, size - 1)):
        got = s3.get_object(Bucket=bucket, Key="r", Range="bytes=" + text)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206, text
        assert got["Body"].read() == body[first:last + 1], text
        assert got["ContentRange"] == f"bytes {first}-{last}/{size}"
        head = s3.head_object(Bucket=bucket, Key="r", Range="bytes=" + text)
        assert head["ContentLength"] == last - first + 1
    for text in (f"{size}-", f"{size}-{size + 5}", "-0"):
        with refused("InvalidRange", 416):
            s3.get_object(Bucket=bucket, Key="r", Range="bytes=" + text)
    for text in ("bytes=0-1,5-6", "bytes=5-2", "lines=1-2", "bytes=", "bytes=a-b"):
        got = s3.get_object(Bucket=bucket, Key="r", Range=text)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 200 and got["ContentLength"] == size, text


def test_if_range(cloud, s3, bucket):
    """A download that goes on must not get bytes of another version."""
    etag = s3.put_object(Bucket=bucket, Key="resumed", Body=b"0123456789")["ETag"]
    date = s3.head_object(Bucket=bucket, Key="resumed")["ResponseMetadata"]["HTTPHeaders"]["last-modified"]
    for version, status, body in ((etag, 206, b"456789"), (date, 206, b"456789"), ('"other"', 200, b"0123456789"),
                                  ("Mon, 01 Jan 2024 00:00:00 GMT", 200, b"0123456789"), ("W/" + etag, 200, b"0123456789")):
        got = Signer(cloud).request("GET", path_of(bucket, "resumed"), headers={"range": "bytes=4-", "if-range": version})
        assert (got[0], got[2]) == (status, body), version


def test_conditional_get(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="c", Body=b"x")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="c")["LastModified"]
    before, after = modified - timedelta(seconds=1), modified + timedelta(seconds=1)
    for call in (s3.get_object, s3.head_object):
        for good in ({"IfMatch": etag}, {"IfMatch": "*"}, {"IfNoneMatch": '"other"'}, {"IfModifiedSince": before},
                     {"IfUnmodifiedSince": modified}, {"IfMatch": etag, "IfUnmodifiedSince": before}, {"IfMatch": f'"x", {etag}'}):
            call(Bucket=bucket, Key="c", **good)
        for failed in ({"IfMatch": '"other"'}, {"IfUnmodifiedSince": before}):
            with refused("PreconditionFailed" if call == s3.get_object else 412, 412):
                call(Bucket=bucket, Key="c", **failed)
        for same in ({"IfNoneMatch": etag}, {"IfModifiedSince": after}, {"IfNoneMatch": etag, "IfModifiedSince": before}):
            with refused(304, 304):
                call(Bucket=bucket, Key="c", **same)


def raw_put(cloud, bucket, key, body, **headers):
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    return Signer(cloud).request("PUT", path_of(bucket, key), headers=named, body=body)


def test_conditional_put(cloud, s3, bucket):
    assert raw_put(cloud, bucket, "once", b"1", if_none_match="*")[0] == 200
    status, _, body = raw_put(cloud, bucket, "once", b"2" * 100000, if_none_match="*")
    assert status == 412 and b"<Code>PreconditionFailed</Code>" in body
    assert s3.get_object(Bucket=bucket, Key="once")["Body"].read() == b"1"
    assert raw_put(cloud, bucket, "once", b"3", if_match='"wrong"')[0] == 412
    assert raw_put(cloud, bucket, "once", b"3", if_match='"%s"' % hashlib.md5(b"1").hexdigest())[0] == 200
    assert raw_put(cloud, bucket, "never", b"3", if_match="*")[0] == 404
    assert raw_put(cloud, bucket, "once", b"3", if_none_match='"x"')[0] == 501
    assert s3.get_object(Bucket=bucket, Key="once")["Body"].read() == b"3"


def test_content_md5(cloud, s3, bucket):
    body = b"some bytes"
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    assert raw_put(cloud, bucket, "md5", body, content_md5=md5)[0] == 200
    status, _, reply = raw_put(cloud, bucket, "md5", body + b"!", content_md5=md5)
    assert status == 400 and b"<Code>BadDigest</Code>" in reply
    status, _, reply = raw_put(cloud, bucket, "md5", body, content_md5="notbase64")
    assert status == 400 and b"<Code>InvalidDigest</Code>" in reply
    assert s3.get_object(Bucket=bucket, Key="md5")["Body"].read() == body


CHECKSUMS = {  # of the text 123456789
    "CRC32": "y/Q5Jg==", "CRC32C": "4waSgw==", "CRC64NVME": "rosUhgp5mIg=",
    "SHA1": base64.b64encode(hashlib.sha1(b"123456789").digest()).decode(),
    "SHA256": base64.b64encode(hashlib.sha256(b"123456789").digest()).decode()}


@pytest.mark.parametrize("name", sorted(CHECKSUMS))
def test_checksums(cloud, bucket, name):
    header = "x-amz-checksum-" + name.lower()
    signer = Signer(cloud)
    put = lambda body, value: signer.request("PUT", path_of(bucket, "sum"), headers={header: value}, body=body)  # noqa: E731
    status, headers, _ = put(b"123456789", CHECKSUMS[name])
    assert status == 200 and headers[header] == CHECKSUMS[name]
    status, _, body = put(b"123456780", CHECKSUMS[name])
    assert status == 400 and b"<Code>BadDigest</Code>" in body
    for wrong in ("AAA=", CHECKSUMS[name] + "-1", CHECKSUMS[name].replace("=", "-"), ""):
        status, _, body = put(b"123456789", wrong)
        assert status == 400 and b"<Code>InvalidRequest</Code>" in body, wrong
    _, headers, body = signer.request("GET", path_of(bucket, "sum"), headers={"x-amz-checksum-mode": "ENABLED"})
    assert body == b"123456789" and headers[header] == CHECKSUMS[name]
    assert headers["x-amz-checksum-type"] == "FULL_OBJECT"
    _, headers, _ = signer.request("HEAD", path_of(bucket, "sum"))
    assert header not in headers


@pytest.mark.parametrize("size", [(5 << 30) + 1, 6 << 30])
def test_too_large(cloud, bucket, size):
    """Told before a byte of it is sent."""
    status, _, body = Signer(cloud).request("PUT", path_of(bucket, "large"), payload_hash="UNSIGNED-PAYLOAD",
                                            headers={"content-length": str(size), "expect": "100-continue"})
    assert status == 400 and b"<Code>EntityTooLarge</Code>" in body


def test_unknown_checksum(cloud, bucket):
    """A guard that we cannot check is refused, not ignored."""
    status, _, body = Signer(cloud).request("PUT", path_of(bucket, "sum"), headers={"x-amz-checksum-xxhash64": "AAAAAAAAAAA="}, body=b"1")
    assert status == 501 and b"x-amz-checksum-xxhash64" in body


@pytest.mark.parametrize("key", ["a b", "a%20b", "ü<&>"])
def test_resource_of_errors(cloud, bucket, key):
    import xml.etree.ElementTree as ElementTree
    _, _, body = Signer(cloud).request("GET", path_of(bucket, "missing/" + key))
    assert ElementTree.fromstring(body).find("Resource").text == f"/{bucket}/missing/{key}"


def test_delete_many(cloud, s3, bucket):
    keys = [f"many/{i}" for i in range(1000)]
    for key in keys[:20]:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in keys]})
    assert sorted(d["Key"] for d in reply["Deleted"]) == sorted(keys) and "Errors" not in reply
    assert s3.list_objects_v2(Bucket=bucket, Prefix="many/")["KeyCount"] == 0
    s3.put_object(Bucket=bucket, Key="quiet", Body=b"x")
    reply = s3.delete_objects(Bucket=bucket, Delete={"Quiet": True, "Objects": [{"Key": "quiet"}, {"Key": "v", "VersionId": "7"}]})
    assert "Deleted" not in reply and [e["Code"] for e in reply["Errors"]] == ["NoSuchVersion"]
    with refused("MalformedXML", 400):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in keys + ["more"]]})
    status, _, body = Signer(cloud).request("POST", f"/{bucket}", "delete=", body=b"<Delete><Object>")
    assert status == 400 and b"<Code>MalformedXML</Code>" in body


def test_null_version(cloud, s3, bucket):
    s3.put_object(Bucket=bucket, Key="v", Body=b"x")
    for version in ("", "null"):
        assert Signer(cloud).request("HEAD", path_of(bucket, "v"), "versionId=" + version)[0] == 200
    with refused("NoSuchVersion", 404):
        s3.get_object(Bucket=bucket, Key="v", VersionId="3")


def test_many_clients(client, bucket):
    """Overwrites and reads of one key at once: every read is one whole version."""
    from concurrent.futures import ThreadPoolExecutor
    s3 = client("s3", config=Config(max_pool_connections=20))
    versions = [bytes([i]) * (50_000 + 1000 * i) for i in range(16)]
    s3.put_object(Bucket=bucket, Key="hot", Body=versions[0])

    def work(i):
        if i % 2:
            s3.put_object(Bucket=bucket, Key="hot", Body=versions[i % 16])
            return True
        return s3.get_object(Bucket=bucket, Key="hot")["Body"].read() in versions

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(work, range(120)))


def test_overwritten_while_read(s3, bucket):
    body = os.urandom(20_000_000)
    s3.put_object(Bucket=bucket, Key="old", Body=body)
    stream = s3.get_object(Bucket=bucket, Key="old")["Body"]
    first = stream.read(100_000)
    s3.put_object(Bucket=bucket, Key="old", Body=b"new")
    s3.delete_object(Bucket=bucket, Key="old")
    time.sleep(0.2)
    assert first + stream.read() == body
