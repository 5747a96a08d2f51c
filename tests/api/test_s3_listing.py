# SPDX-License-Identifier: Apache-2.0
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.config import Config
from lib.s3 import Signer, new_bucket, refused

# 5,000 keys in folders of very different sizes, in the order of their bytes.
KEYS = sorted([f"a/{i:05d}" for i in range(3000)] + [f"b/{i % 40:02d}/{i:04d}" for i in range(1900)] +
              [f"c{i:02d}" for i in range(98)] + ["a", "zz/ü"], key=str.encode)


@pytest.fixture(scope="module")
def bucket(client):
    s3 = client("s3", config=Config(max_pool_connections=8))
    with new_bucket(s3, "list") as name:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: s3.put_object(Bucket=name, Key=key, Body=key.encode()), KEYS))
        yield name


def listed(s3, bucket, operation="list_objects_v2", size=1000, **kw):
    """(keys, prefixes, pages) over all pages."""
    keys, prefixes, pages = [], [], 0
    for page in s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": size}, **kw):
        keys += [o["Key"] for o in page.get("Contents", [])]
        prefixes += [p["Prefix"] for p in page.get("CommonPrefixes", [])]
        pages += 1
        if operation == "list_objects_v2":
            assert page["KeyCount"] == len(page.get("Contents", [])) + len(page.get("CommonPrefixes", []))
    return keys, prefixes, pages


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
@pytest.mark.parametrize("size", [1000, 333])
def test_all(s3, bucket, operation, size):
    keys, prefixes, pages = listed(s3, bucket, operation, size)
    assert keys == KEYS and prefixes == []
    assert pages == -(-len(KEYS) // size)


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
@pytest.mark.parametrize("size", [1000, 7, 1])
def test_delimiter(s3, bucket, operation, size):
    keys, prefixes, _ = listed(s3, bucket, operation, size, Delimiter="/")
    assert keys == [k for k in KEYS if "/" not in k]
    assert prefixes == ["a/", "b/", "zz/"]
    keys, prefixes, _ = listed(s3, bucket, operation, size, Delimiter="/", Prefix="b/")
    assert keys == [] and prefixes == [f"b/{i:02d}/" for i in range(40)]


def test_prefix(s3, bucket):
    assert listed(s3, bucket, Prefix="b/07/")[0] == [k for k in KEYS if k.startswith("b/07/")]
    assert listed(s3, bucket, Prefix="zz/ü")[0] == ["zz/ü"]
    assert listed(s3, bucket, Prefix="nothing")[0] == []
    assert listed(s3, bucket, Prefix="c", Delimiter="5")[1] == [f"c{i}5" for i in (0, 1, 2, 3, 4)] + ["c5"] + \
        [f"c{i}5" for i in (6, 7, 8, 9)]


def test_start_after_and_tokens(s3, bucket):
    page = s3.list_objects_v2(Bucket=bucket, StartAfter="b/39/", MaxKeys=3)
    assert [o["Key"] for o in page["Contents"]] == [k for k in KEYS if k > "b/39/"][:3]
    assert page["IsTruncated"] and page["StartAfter"] == "b/39/" and page["MaxKeys"] == 3
    assert page["NextContinuationToken"] != page["Contents"][-1]["Key"]
    page = s3.list_objects_v2(Bucket=bucket, ContinuationToken=page["NextContinuationToken"], MaxKeys=2)
    assert [o["Key"] for o in page["Contents"]] == [k for k in KEYS if k > "b/39/"][3:5]
    for token in ("%%%", "", "/w=="):
        with refused("InvalidArgument", 400):
            s3.list_objects_v2(Bucket=bucket, ContinuationToken=token)


def test_sizes_of_pages(s3, bucket):
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=0)
    assert page["KeyCount"] == 0 and not page["IsTruncated"]
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=5000)
    assert page["KeyCount"] == 1000 and page["MaxKeys"] == 1000 and page["IsTruncated"]
    with refused("InvalidArgument", 400):
        s3.list_objects_v2(Bucket=bucket, MaxKeys=-1)


def test_entries(s3, bucket):
    entry = s3.list_objects_v2(Bucket=bucket, Prefix="zz/", FetchOwner=True)["Contents"][0]
    head = s3.head_object(Bucket=bucket, Key="zz/ü")
    assert entry["Size"] == head["ContentLength"] and entry["ETag"] == head["ETag"]
    assert entry["LastModified"] == head["LastModified"] and entry["StorageClass"] == "STANDARD"
    assert len(entry["Owner"]["ID"]) == 64
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket, Prefix="zz/")["Contents"][0]
    assert "Owner" in s3.list_objects(Bucket=bucket, Prefix="zz/")["Contents"][0]


def test_encoding(cloud, bucket):
    signer = Signer(cloud)
    _, _, body = signer.request("GET", f"/{bucket}", "encoding-type=url&list-type=2&prefix=zz%2F")
    assert b"<Key>zz/%C3%BC</Key>" in body and b"<EncodingType>url</EncodingType>" in body
    _, _, body = signer.request("GET", f"/{bucket}", "list-type=2&prefix=zz%2F")
    assert "<Key>zz/ü</Key>".encode() in body and b"EncodingType" not in body
    status, _, body = signer.request("GET", f"/{bucket}", "encoding-type=base64&list-type=2")
    assert status == 400 and b"<Code>InvalidArgument</Code>" in body


def test_prefixes_are_skipped(s3, bucket):
    """A page of prefixes must not cost a walk over the thousands of objects below them."""
    def cost(**kw):
        before = os.times().elapsed
        for _ in range(20):
            s3.list_objects_v2(Bucket=bucket, **kw)
        return os.times().elapsed - before

    assert cost(Delimiter="/", Prefix="a") < cost(Prefix="a") / 2
