# SPDX-License-Identifier: Apache-2.0
"""Signatures: what is let in and how everything else is refused. Requests are signed by botocore's own signers, then spoilt."""
import datetime
import http.client
import re
from unittest import mock

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

VERSIONS = {"ec2": "2016-11-15", "sts": "2011-06-15", "iam": "2010-05-08"}
FORM = "application/x-www-form-urlencoded; charset=utf-8"


@pytest.fixture(scope="module")
def account(cloud):
    return cloud.account_env()


class Sender:
    """Signs a request with botocore and sends its bytes as they are."""

    def __init__(self, cloud, account):
        self.host = f"127.0.0.1:{cloud.port('api')}"
        self.key, self.secret = account["AWS_ACCESS_KEY_ID"], account["AWS_SECRET_ACCESS_KEY"]

    def signed(self, form="Action=DescribeRegions", service="ec2", region="us-east-1", key=None, secret=None, at=None,
               token=None, signer=auth.SigV4Auth, **kw):
        body = f"{form}&Version={VERSIONS.get(service, VERSIONS['ec2'])}"
        request = AWSRequest("POST", f"http://{self.host}/", data=body, headers={"Content-Type": FORM})
        self._sign(request, signer(Credentials(key or self.key, secret or self.secret, token), service, region, **kw), at)
        return dict(request.headers.items()), body

    def presigned(self, form="Action=DescribeRegions", at=None, expires=60):
        request = AWSRequest("GET", f"http://{self.host}/?{form}&Version=2016-11-15")
        signer = auth.SigV4QueryAuth(Credentials(self.key, self.secret), "ec2", "us-east-1", expires=expires)
        # Its own idea of an empty GET's body is S3's; EC2 hashes the empty body.
        self._sign(request, signer, at)
        return request.url[len(f"http://{self.host}"):]

    @staticmethod
    def _sign(request, signer, at):
        now = at or datetime.datetime.utcnow()
        with mock.patch.object(auth, "datetime") as fake:
            fake.datetime.utcnow.return_value = now
            signer.add_auth(request)

    def send(self, headers, body, method="POST", target="/"):
        connection = http.client.HTTPConnection(self.host, timeout=10)
        connection.request(method, target, body, headers)
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        code = re.search("<Code>([^<]*)</Code>", text)
        assert (code is not None) == (reply.status >= 400), text
        return reply.status, code.group(1) if code else None, text


@pytest.fixture(scope="module")
def sender(cloud, account):
    return Sender(cloud, account)


def shifted(**kw):
    return datetime.datetime.utcnow() + datetime.timedelta(**kw)


def test_header_signature(sender):
    status, _, text = sender.send(*sender.signed())
    assert status == 200 and "<regionName>us-east-1</regionName>" in text


def test_query_signature(sender):
    assert sender.send({}, None, "GET", sender.presigned())[0] == 200


def test_session_token_is_unknown(sender):
    assert sender.send(*sender.signed(token="abc"))[:2] == (401, "AuthFailure")


@pytest.mark.parametrize("how,status,code", [
    (dict(secret="x" * 40), 401, "AuthFailure"),
    (dict(key="AKIAAAAAAAAAAAAAAAAA"), 401, "AuthFailure"),
    (dict(key="AKIA'OR'1'='1"), 401, "AuthFailure"),
    (dict(region="eu-west-1"), 401, "AuthFailure"),
    (dict(service="s3"), 403, "SignatureDoesNotMatch"),
    (dict(service="dynamodb"), 403, "SignatureDoesNotMatch"),
    (dict(service="sts", form="Action=GetCallerIdentity", secret="x" * 40), 403, "SignatureDoesNotMatch"),
    (dict(service="sts", form="Action=GetCallerIdentity", key="AKIAAAAAAAAAAAAAAAAA"), 403, "InvalidClientTokenId"),
    (dict(service="sts", form="Action=GetCallerIdentity", region="eu-west-1"), 403, "SignatureDoesNotMatch"),
    (dict(service="iam", form="Action=ListUsers", secret="x" * 40), 403, "SignatureDoesNotMatch"),
])
def test_wrong_credentials(sender, how, status, code):
    assert sender.send(*sender.signed(**how))[:2] == (status, code)


@pytest.mark.parametrize("shift", [dict(minutes=20), dict(minutes=-20), dict(days=400), dict(days=-400)])
def test_skew(sender, shift):
    assert sender.send(*sender.signed(at=shifted(**shift)))[:2] == (400, "RequestExpired")


@pytest.mark.parametrize("shift", [dict(minutes=10), dict(minutes=-10)])
def test_tolerated_skew(sender, shift):
    assert sender.send(*sender.signed(at=shifted(**shift)))[0] == 200


def test_expired_presigned_url(sender):
    url = sender.presigned(at=shifted(minutes=-5), expires=60)
    assert sender.send({}, None, "GET", url)[:2] == (400, "RequestExpired")
    assert sender.send({}, None, "GET", sender.presigned(at=shifted(minutes=-5), expires=600))[0] == 200


@pytest.mark.parametrize("old,new", [("Action=DescribeRegions", "Action=DescribeVpcs"), ("X-Amz-Expires=60", "X-Amz-Expires=600"),
                                     ("Version=2016", "Version=2015")])
def test_presigned_url_is_changed(sender, old, new):
    url = sender.presigned()
    assert old in url
    assert sender.send({}, None, "GET", url.replace(old, new))[:2] == (401, "AuthFailure")


def test_body_is_changed(sender):
    headers, body = sender.signed()
    assert sender.send(headers, body.replace("Regions", "Vpcs###"))[:2] == (401, "AuthFailure")


def test_unsigned_payload_is_no_way_round(sender):
    headers, body = sender.signed()
    headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
    assert sender.send(headers, body)[0] in (400, 401, 403)


@pytest.mark.parametrize("spoil", [
    lambda h: h.pop("X-Amz-Date"),
    lambda h: h.update({"X-Amz-Date": "yesterday"}),
    lambda h: h.update({"X-Amz-Date": "20261122T100000"}),
    lambda h: h.update(Authorization="AWS4-HMAC-SHA256"),
    lambda h: h.update(Authorization="AWS4-HMAC-SHA256 Credential=, SignedHeaders=, Signature="),
    lambda h: h.update(Authorization=h["Authorization"].replace("aws4_request", "aws5_request")),
    lambda h: h.update(Authorization=h["Authorization"].replace("SignedHeaders=", "SignedHeaders=x-none;")),
    lambda h: h.update(Authorization=h["Authorization"].replace("Signature=", "Signature=zz")),
    lambda h: h.update(Authorization=h["Authorization"][:-1]),
    lambda h: h.update(Authorization=h["Authorization"].replace("/ec2/", "/")),
    lambda h: h.update(Authorization=re.sub("/[0-9]{8}/", "/20010101/", h["Authorization"])),
    lambda h: h.update(Authorization="Basic dXNlcjpwYXNz"),
    lambda h: h.update(Authorization="\xe4" * 1000),
    lambda h: h.update({"X-Amz-Extra": "unsigned"}),
])
def test_spoilt_header(sender, spoil):
    headers, body = sender.signed()
    spoil(headers)
    status, code, _ = sender.send({k: v.encode("latin-1") for k, v in headers.items()}, body)
    assert status in (400, 401, 403)
    assert code in ("AuthFailure", "IncompleteSignature", "SignatureDoesNotMatch", "MissingAuthenticationToken",
                    "InvalidClientTokenId", "RequestExpired")


def test_not_signed(sender):
    headers = {"Content-Type": FORM}
    assert sender.send(headers, "Action=DescribeRegions&Version=2016-11-15")[:2] == (403, "MissingAuthenticationToken")
    status, code, text = sender.send(headers, "Action=GetCallerIdentity&Version=2011-06-15")
    assert (status, code) == (403, "MissingAuthenticationToken")
    assert "<ErrorResponse" in text  # in the manner of STS, not of EC2


# ---- what comes with a good signature and is still wrong ----

@pytest.mark.parametrize("form,status,code", [
    ("", 400, "MissingAction"),
    ("Action=", 400, "MissingAction"),
    ("Action=Nothing", 400, "InvalidAction"),
    ("Action=CreateVpc", 400, "InvalidAction"),
    ("Action=DescribeRegions&Colour=red", 400, "UnknownParameter"),
    ("Action=DescribeRegions&DryRun=perhaps", 400, "InvalidParameterValue"),
    ("Action=DescribeRegions&Action=DescribeVpcs", 404, "MalformedQueryString"),
    ("Action=DescribeRegions&Version=2016-11-15", 404, "MalformedQueryString"),  # the signer's helper adds another
    ("Action=DescribeRegions&%zz=1", 404, "MalformedQueryString"),
    ("Action=DescribeRegions&RegionName.1=%00", None, None),
    ("Action=DescribeRegions&RegionName.1=%ff%fe", None, None),
    ("Action=DescribeInstances&Filter.1.Value.1=x", 400, None),
    ("Action=DescribeInstances&InstanceId.99999999999999999999=i-1", 400, None),
    ("Action=DescribeInstances&InstanceId.-1=i-1", 400, None),
    ("Action=DescribeInstances&InstanceId=i-1&InstanceId.1=i-2", 400, None),
    pytest.param("Action=DescribeInstances&" + "&".join(f"X{i}=1" for i in range(5000)), 404, "MalformedQueryString", id="5000 parameters"),
    pytest.param("Action=" + "A" * 5000, 400, "InvalidAction", id="long action"),
])
def test_malformed_forms(sender, form, status, code):
    got = sender.send(*sender.signed(form))
    assert 400 <= got[0] < 500
    assert got[0] == (status or got[0])
    assert got[1] == (code or got[1])


def test_versions(sender, account):
    def with_version(version, service="ec2"):
        body = "Action=" + ("DescribeRegions" if service == "ec2" else "GetCallerIdentity") + version
        request = AWSRequest("POST", f"http://{sender.host}/", data=body, headers={"Content-Type": FORM})
        auth.SigV4Auth(Credentials(sender.key, sender.secret), service, "us-east-1").add_auth(request)
        return sender.send(dict(request.headers.items()), body)[:2]

    assert with_version("&Version=2016-11-15") == (200, None)
    assert with_version("&Version=2014-10-01") == (200, None)  # older clients mean the same
    assert with_version("&Version=2099-01-01") == (400, "NoSuchVersion")
    assert with_version("&Version=new") == (400, "NoSuchVersion")
    assert with_version("") == (400, "MissingParameter")
    assert with_version("&Version=2011-06-15", "sts") == (200, None)
    assert with_version("&Version=2010-01-01", "sts") == (400, "NoSuchVersion")


def test_other_paths_and_methods(sender):
    headers, body = sender.signed()
    assert sender.send(headers, body, target="/other")[:2] == (404, "InvalidRequest")
    assert sender.send(headers, body, method="PUT")[:2] == (400, "InvalidRequest")
    assert sender.send({**headers, "Content-Type": "application/json"}, body)[:2] == (400, "InvalidRequest")


@pytest.mark.parametrize("chunked", [False, True])
def test_body_limit(sender, chunked):
    headers, body = sender.signed("Action=DescribeRegions&X=" + "x" * (2 << 20))
    sent = iter([body.encode()]) if chunked else body
    assert sender.send(headers, sent)[:2] == (413, "RequestEntityTooLarge")
    assert sender.send(*sender.signed())[0] == 200  # and goes on serving


def test_request_ids_differ(sender):
    ids = {re.search("<requestId>([^<]*)</requestId>", sender.send(*sender.signed())[2]).group(1) for _ in range(3)}
    assert len(ids) == 3


def test_log_has_no_secrets(cloud, sender, account):
    headers, body = sender.signed("Action=RunInstances&ImageId=ami-00000000000000000&MinCount=1&MaxCount=1&UserData=U0VDUkVUREFUQQ%3D%3D")
    sender.send(headers, body)
    text = (cloud.state / "log" / "clc.log").read_text()
    assert "action=RunInstances" in text
    assert account["AWS_SECRET_ACCESS_KEY"] not in text
    assert "U0VDUkVUREFUQQ" not in text and "SECRETDATA" not in text
    assert re.search("Signature=([0-9a-f]{64})", headers["Authorization"]).group(1) not in text


def test_metrics_and_health(cloud, sender):
    def value(name):
        return int(re.search(rf"^{name} (\d+)$", cloud.get(cloud.port("ops-clc"), "/metrics")[1], re.M).group(1))

    assert cloud.get(cloud.port("ops-clc"), "/healthz")[0] == 200
    requests, errors, refused = (value(f"mallee_clc_{n}_total") for n in ("requests", "client_errors", "auth_failures"))
    sender.send(*sender.signed())
    sender.send(*sender.signed(secret="x" * 40))
    assert value("mallee_clc_requests_total") >= requests + 2
    assert value("mallee_clc_client_errors_total") >= errors + 1
    assert value("mallee_clc_auth_failures_total") >= refused + 1
