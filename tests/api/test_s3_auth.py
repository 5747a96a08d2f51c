# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import http.client
import os
import urllib.error
import urllib.request
import zlib

import pytest
from botocore.config import Config
from lib.s3 import Signer, new_bucket, path_of, send


@pytest.fixture(scope="module")
def bucket(s3):
    with new_bucket(s3, "auth") as name:
        s3.put_object(Bucket=name, Key="k", Body=b"content")
        yield name


def code_of(reply):
    body = reply[2]
    assert b"<Message>" in body and b"<Message></Message>" not in body, body  # Debian's aws crashes without one
    return reply[0], body.split(b"<Code>")[1].split(b"<")[0].decode()


def test_wrong_signatures(cloud, bucket):
    path = path_of(bucket, "k")
    assert Signer(cloud).request("GET", path)[0] == 200

    signer = Signer(cloud)
    signer.secret += "x"
    assert code_of(signer.request("GET", path)) == (403, "SignatureDoesNotMatch")
    signer = Signer(cloud)
    signer.access_key = "AKIAAAAAAAAAAAAAAAAA"
    for _ in range(3):  # also out of the cache of refusals
        assert code_of(signer.request("GET", path)) == (403, "InvalidAccessKeyId")
    for skew in (-1000, 1000):
        signer = Signer(cloud)
        signer.skew_s = skew
        assert code_of(signer.request("GET", path)) == (403, "RequestTimeTooSkewed")
    signer = Signer(cloud)
    signer.service = "ec2"
    assert code_of(signer.request("GET", path)) == (400, "AuthorizationHeaderMalformed")
    host = signer.host
    assert code_of(send(host, "GET", path, {"host": host})) == (403, "AccessDenied")
    assert code_of(send(host, "GET", "/", {"host": host})) == (403, "AccessDenied")
    assert code_of(send(host, "GET", path, {"host": host, "authorization": "AWS4-HMAC-SHA256 nonsense"}))[0] in (400, 403)
    assert code_of(send(host, "GET", path, {"host": host, "authorization": "AWS k:sig"})) == (400, "InvalidRequest")


def test_changed_request(cloud, bucket):
    """What was signed cannot be sent as something else."""
    signer, path = Signer(cloud), path_of(bucket, "k")
    signed = signer.headers("GET", path)
    assert code_of(send(signer.host, "DELETE", path, signed)) == (403, "SignatureDoesNotMatch")
    assert code_of(send(signer.host, "GET", path + "2", signed)) == (403, "SignatureDoesNotMatch")
    assert code_of(send(signer.host, "GET", path + "?versionId=null", signed)) == (403, "SignatureDoesNotMatch")
    assert code_of(send(signer.host, "GET", path, dict(signed, **{"x-amz-acl": "private"})))[0] == 403
    signed = signer.headers("PUT", path, payload_hash=hashlib.sha256(b"signed").hexdigest())
    assert code_of(send(signer.host, "PUT", path, signed, b"forged")) == (400, "XAmzContentSHA256Mismatch")
    signed = signer.headers("PUT", path, payload_hash=hashlib.sha256(b"x" * 300000).hexdigest())
    assert code_of(send(signer.host, "PUT", path, signed, b"y" * 300000)) == (400, "XAmzContentSHA256Mismatch")
    assert signer.request("GET", path)[2] == b"content"


def fetch(url, method="GET", data=None, headers=None):
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as reply:
            return reply.status, dict(reply.headers), reply.read()
    except urllib.error.HTTPError as e:
        return e.code, dict(e.headers), e.read()


def test_presigned(client, bucket):
    s3 = client("s3", config=Config(signature_version="s3v4"))
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k", "ResponseContentType": "a/b"})
    status, headers, body = fetch(url)
    assert (status, headers["Content-Type"], body) == (200, "a/b", b"content")
    assert code_of(fetch(url.replace("a%2Fb", "a%2Fc"))) == (403, "SignatureDoesNotMatch")
    assert fetch(url, "HEAD")[0] == 403
    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "presigned ü+"}, ExpiresIn=60)
    assert fetch(url, "PUT", os.urandom(100_000))[0] == 200
    assert s3.head_object(Bucket=bucket, Key="presigned ü+")["ContentLength"] == 100_000


def test_presigned_expired(client, bucket):
    import time
    s3 = client("s3", config=Config(signature_version="s3v4"))
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=1)
    time.sleep(2.1)
    status, _, body = fetch(url)
    assert status == 403 and b"<Code>AccessDenied</Code>" in body and b"Request has expired" in body


def test_presigned_version_2(client, bucket):
    """What boto3 and older tools make in us-east-1 when nobody asks for Version 4."""
    s3 = client("s3", config=Config(signature_version="s3"))
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    assert "AWSAccessKeyId=" in url
    assert fetch(url)[2] == b"content"
    assert code_of(fetch(url.replace("/k?", "/j?"))) == (403, "SignatureDoesNotMatch")
    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "v2"}, ExpiresIn=60)
    assert fetch(url, "PUT", b"x" * 100_000, {"Content-Type": ""})[0] == 200
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=-5)
    assert code_of(fetch(url)) == (403, "AccessDenied")


# ---- the framings of a body ----

def test_unsigned_payload(cloud, bucket):
    signer, path = Signer(cloud), path_of(bucket, "unsigned")
    assert signer.request("PUT", path, body=b"x" * 50000, payload_hash="UNSIGNED-PAYLOAD")[0] == 200
    assert signer.request("GET", path)[2] == b"x" * 50000
    assert code_of(signer.request("PUT", path, body=b"x", payload_hash="STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"))[0] == 501


def signed_chunks(signer, path, pieces, length=None, spoil=None, trailers=None, declared=()):
    """PUT of aws-chunked pieces; spoil(framed bytes) may change what is sent."""
    headers = {"x-amz-decoded-content-length": str(sum(map(len, pieces)) if length is None else length),
               "content-encoding": "aws-chunked"}
    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    if trailers is not None:
        kind += "-TRAILER"
        headers["x-amz-trailer"] = ",".join(declared or [n for n, _ in trailers])
    signed = signer.headers("PUT", path, headers=headers, payload_hash=kind)
    framed, previous = b"", signer.seed
    for piece in pieces:
        chunk, previous = signer.chunk(previous, piece)
        framed += chunk
    chunk, previous = signer.chunk(previous, b"")
    framed += chunk if trailers is None else chunk[:-2] + signer.trailers(previous, trailers)
    return send(signer.host, "PUT", path, signed, spoil(framed) if spoil else framed)


PIECES = [os.urandom(65536), os.urandom(65536), os.urandom(777)]


def test_signed_chunks(cloud, bucket):
    signer, path = Signer(cloud), path_of(bucket, "chunks")
    assert signed_chunks(signer, path, PIECES)[0] == 200
    _, headers, body = signer.request("GET", path)
    assert body == b"".join(PIECES)
    assert "content-encoding" not in headers  # aws-chunked is the request's, not the object's
    assert signed_chunks(signer, path, [])[0] == 200
    assert signer.request("GET", path)[2] == b""


def test_signed_chunks_spoilt(cloud, bucket):
    signer, path = Signer(cloud), path_of(bucket, "spoilt")
    flip = lambda b: b[:70000] + bytes([b[70000] ^ 1]) + b[70001:]  # noqa: E731
    assert code_of(signed_chunks(signer, path, PIECES, spoil=flip)) == (403, "SignatureDoesNotMatch")
    assert code_of(signed_chunks(signer, path, PIECES, spoil=lambda b: b[:100000])) == (400, "IncompleteBody")
    assert code_of(signed_chunks(signer, path, PIECES, length=5)) == (400, "IncompleteBody")
    assert code_of(signed_chunks(signer, path, PIECES, spoil=lambda b: b + b"more")) == (400, "InvalidRequest")
    assert code_of(signed_chunks(signer, path, PIECES, spoil=lambda b: b"zz" + b)) == (400, "InvalidRequest")
    assert code_of(signed_chunks(signer, path, PIECES, spoil=lambda b: b"1" * 5000)) == (400, "InvalidRequest")
    second = len(b"10000;chunk-signature=") + 64 + 2 + 65536 + 2
    swapped = lambda b: b[second:2 * second] + b[:second] + b[2 * second:]  # noqa: E731
    assert code_of(signed_chunks(signer, path, PIECES, spoil=swapped)) == (403, "SignatureDoesNotMatch")
    last = lambda b: b[:second] + b[2 * second:]  # noqa: E731: a chunk left out
    assert code_of(signed_chunks(signer, path, PIECES, spoil=last)) == (403, "SignatureDoesNotMatch")
    assert signer.request("GET", path)[0] == 404


def crc32(data):
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def test_signed_trailers(cloud, bucket):
    signer, path = Signer(cloud), path_of(bucket, "trailer")
    good = [("x-amz-checksum-crc32", crc32(b"".join(PIECES)))]
    status, headers, _ = signed_chunks(signer, path, PIECES, trailers=good)
    assert status == 200 and headers["x-amz-checksum-crc32"] == good[0][1]
    assert signer.request("GET", path)[2] == b"".join(PIECES)
    bad = [("x-amz-checksum-crc32", crc32(b"other"))]
    assert code_of(signed_chunks(signer, path, PIECES, trailers=bad)) == (400, "BadDigest")
    forged = lambda b: b.replace(good[0][1].encode(), bad[0][1].encode())  # noqa: E731
    assert code_of(signed_chunks(signer, path, PIECES, trailers=good, spoil=forged)) == (403, "SignatureDoesNotMatch")
    unsigned = lambda b: b[:b.index(b"x-amz-trailer-signature")] + b"\r\n"  # noqa: E731
    assert code_of(signed_chunks(signer, path, PIECES, trailers=good, spoil=unsigned)) == (403, "SignatureDoesNotMatch")
    declared = ["x-amz-checksum-crc32", "x-amz-checksum-sha256"]
    assert code_of(signed_chunks(signer, path, PIECES, trailers=good, declared=declared)) == (400, "MalformedTrailerError")


@pytest.mark.parametrize("nested", [False, True])
def test_unsigned_trailer(cloud, bucket, nested):
    """As newer SDKs send over TLS: aws-chunked within HTTP's own chunks, without a Content-Length."""
    signer, path, data = Signer(cloud), path_of(bucket, "unsigned-trailer"), b"".join(PIECES)

    def put(crc, payload=data):
        headers = {"x-amz-decoded-content-length": str(len(payload)), "content-encoding": "gzip,aws-chunked",
                   "x-amz-trailer": "x-amz-checksum-crc32", "x-amz-sdk-checksum-algorithm": "CRC32"}
        if nested:
            headers["transfer-encoding"] = "chunked"
        signed = signer.headers("PUT", path, headers=headers, payload_hash="STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        body = b"%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n" % (len(payload), payload, crc.encode())
        return send(signer.host, "PUT", path, signed, body)

    assert put(crc32(data))[0] == 200
    _, headers, body = signer.request("GET", path, headers={"x-amz-checksum-mode": "ENABLED"})
    assert body == data and headers["x-amz-checksum-crc32"] == crc32(data) and headers["content-encoding"] == "gzip"
    assert code_of(put(crc32(b"other"))) == (400, "BadDigest")
    assert code_of(put("?")) == (400, "InvalidRequest")


def test_expect_continue(cloud, bucket):
    """Refused before the body is sent; asked for it otherwise."""
    import socket
    signer = Signer(cloud)
    for key, host_bucket, first in (("k2", bucket, b"HTTP/1.1 100"), ("k2", "no-such-bucket-here", b"HTTP/1.1 404")):
        path = path_of(host_bucket, key)
        signed = signer.headers("PUT", path, headers={"expect": "100-continue", "content-length": "5000000"},
                                payload_hash="UNSIGNED-PAYLOAD")
        name, port = signer.host.split(":")
        with socket.create_connection((name, int(port)), timeout=10) as s:
            head = f"PUT {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in signed.items()) + "\r\n"
            s.sendall(head.encode())
            assert s.recv(100).startswith(first)


def test_virtual_host(cloud, bucket):
    signer = Signer(cloud)
    address = signer.host
    for suffix in ("localhost", "s3.localhost"):
        signer.host = f"{bucket}.{suffix}:{address.split(':')[1]}"
        connection = http.client.HTTPConnection(address, timeout=10)
        signed = signer.headers("GET", "/k")
        connection.putrequest("GET", "/k", skip_host=True)
        for name, value in signed.items():
            connection.putheader(name, value)
        connection.endheaders()
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (200, b"content")


def test_malformed(cloud):
    signer = Signer(cloud)
    for target in ("/%zz", "//x", "/a?%zz", "/a?x=%00"):
        path, _, query = target.partition("?")
        status, headers, body = signer.request("GET", path, query)
        assert status in (400, 403) and b"<Code>" in body, (target, body)
