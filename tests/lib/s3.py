# SPDX-License-Identifier: Apache-2.0
"""What the tests of S3 share: buckets that go away by themselves, and requests below boto3's level."""
import hashlib
import hmac
import http.client
import uuid
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, urlsplit

from botocore.exceptions import ClientError

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@contextmanager
def refused(code, status=None):
    """The block must end with this service error."""
    try:
        yield
    except ClientError as e:
        got = e.response["Error"].get("Code"), e.response["ResponseMetadata"]["HTTPStatusCode"]
        assert got[0] == str(code), f"{got} where {code} was expected: {e}"
        assert status in (None, got[1]), f"{got} where {status} was expected"
    else:
        raise AssertionError(f"accepted where {code} was expected")


def empty(s3, bucket):
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        keys = [{"Key": o["Key"]} for o in page.get("Contents", [])]
        if keys:
            s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
    for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


@contextmanager
def new_bucket(s3, prefix="test"):
    name = f"{prefix}-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    try:
        yield name
    finally:
        empty(s3, name)
        s3.delete_bucket(Bucket=name)


def _mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Signer:
    """Signature Version 4, written down once more so that a test can get any single thing of it wrong."""

    def __init__(self, cloud, account="default"):
        env = cloud.account_env(account)
        self.access_key, self.secret = env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
        self.region = env["AWS_DEFAULT_REGION"]
        self.host = urlsplit(cloud.endpoint("s3", account)).netloc
        self.service = "s3"
        self.skew_s = 0

    def now(self):
        return (datetime.now(timezone.utc) + timedelta(seconds=self.skew_s)).strftime("%Y%m%dT%H%M%SZ")

    def scope(self, date):
        return f"{date[:8]}/{self.region}/{self.service}/aws4_request"

    def key(self, date):
        key = _mac(("AWS4" + self.secret).encode(), date[:8])
        for part in (self.region, self.service, "aws4_request"):
            key = _mac(key, part)
        return key

    def signature(self, date, text):
        return _mac(self.key(date), text).hex()

    def headers(self, method, path, query="", headers=None, payload_hash=EMPTY_SHA256):
        """All headers of a signed request; path is raw, query is canonical. self.date and self.seed tell what was used."""
        date = self.now()
        all_headers = {"host": self.host, "x-amz-date": date, "x-amz-content-sha256": payload_hash}
        all_headers.update({k.lower(): v for k, v in (headers or {}).items()})
        unsigned = {"expect", "transfer-encoding", "content-length", "connection"}
        names = sorted(n for n in all_headers if n not in unsigned)
        canonical = "\n".join([method, path, query] + [f"{n}:{all_headers[n].strip()}" for n in names] +
                              ["", ";".join(names), payload_hash])
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        seed = self.signature(date, f"AWS4-HMAC-SHA256\n{date}\n{self.scope(date)}\n{digest}")
        self.date, self.seed = date, seed
        all_headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={self.access_key}/{self.scope(date)},"
                                        f"SignedHeaders={';'.join(names)},Signature={seed}")
        return all_headers

    def request(self, method, path, query="", headers=None, body=b"", payload_hash=None):
        """(status, headers, body) of one signed request."""
        payload_hash = payload_hash or hashlib.sha256(body).hexdigest()
        signed = self.headers(method, path, query, headers, payload_hash)
        return send(self.host, method, path + ("?" + query if query else ""), signed, body)

    def chunk(self, previous, data):
        """One signed chunk of aws-chunked, and its signature."""
        text = "\n".join(["AWS4-HMAC-SHA256-PAYLOAD", self.date, self.scope(self.date), previous, EMPTY_SHA256,
                          hashlib.sha256(data).hexdigest()])
        signature = self.signature(self.date, text)
        return b"%x;chunk-signature=%s\r\n%s\r\n" % (len(data), signature.encode(), data), signature

    def trailers(self, previous, trailers):
        """Signed trailers, behind the last chunk's first line."""
        text = "".join(f"{name}:{value}\n" for name, value in trailers)
        digest = hashlib.sha256(text.encode()).hexdigest()
        signature = self.signature(self.date, "\n".join(["AWS4-HMAC-SHA256-TRAILER", self.date, self.scope(self.date),
                                                         previous, digest]))
        lines = "".join(f"{name}:{value}\r\n" for name, value in trailers)
        return f"{lines}x-amz-trailer-signature:{signature}\r\n\r\n".encode()


def send(host, method, target, headers, body=b""):
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if "transfer-encoding" not in headers and "content-length" not in headers:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders()
        if headers.get("transfer-encoding") == "chunked":
            for i in range(0, len(body), 4096):
                piece = body[i:i + 4096]
                connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            connection.send(b"0\r\n\r\n")
        elif body:
            connection.send(body)
        reply = connection.getresponse()
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def path_of(bucket, key=None):
    return f"/{bucket}" + ("/" + quote(key, safe="/~") if key is not None else "")
