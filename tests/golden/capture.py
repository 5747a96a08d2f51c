#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
Captures what boto3 really puts on the wire for the calls below (signing, checksums, hooks and all)
without a network: the request is caught before it is sent and a plain reply returned.

    MALLEE_BUILD=build capture.py captured-VERSION.json

writes the requests of the botocore of that version (another than the installed one: by PYTHONPATH), and
beside each the value that our decoder reads in it. Read the difference before you keep it:
test_captured.py holds the decoder to these values from then on.
"""

import json
import sys
import urllib.parse

import boto3
import botocore.awsrequest
import botocore.config
import botocore.exceptions
import tool

CALLS = [
    ("ec2", "run_instances", {
        "ImageId": "ami-0123456789abcdef0", "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 2,
        "KeyName": "key one", "UserData": "#!/bin/sh\necho hi\n", "ClientToken": "tok-1",
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [
            {"Key": "Name", "Value": "web & db"}, {"Key": "empty", "Value": ""}]}],
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        "Monitoring": {"Enabled": False}, "InstanceInitiatedShutdownBehavior": "terminate"}),
    ("ec2", "run_instances", {
        "ImageId": "ami-0123456789abcdef0", "MinCount": 1, "MaxCount": 1, "ClientToken": "tok-2",
        "NetworkInterfaces": [{"DeviceIndex": 0, "SubnetId": "subnet-0123456789abcdef0",
                               "DeleteOnTermination": True, "AssociatePublicIpAddress": False}],
        "Placement": {"AvailabilityZone": "us-east-1a", "Tenancy": "default"}, "DryRun": True}),
    ("ec2", "describe_instances", {"Filters": [
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
        {"Name": "tag:Name", "Values": ["web*"]}], "MaxResults": 100}),
    ("ec2", "describe_instances", {"InstanceIds": ["i-0123456789abcdef0", "i-12345678"]}),
    ("ec2", "terminate_instances", {"InstanceIds": ["i-0123456789abcdef0"]}),
    ("ec2", "import_key_pair", {"KeyName": "k", "PublicKeyMaterial": b"ssh-ed25519 AAAA x@y"}),
    ("ec2", "create_tags", {"Resources": ["i-0123456789abcdef0"],
                            "Tags": [{"Key": "ключ", "Value": "1 + 1 = 2%"}]}),
    ("ec2", "describe_regions", {}),
    ("ec2", "register_image", {"Name": "tiny", "ImageLocation": "images/tiny.raw",
                               "Architecture": "x86_64", "VirtualizationType": "hvm",
                               "RootDeviceName": "/dev/vda"}),
    ("sts", "get_caller_identity", {}),
    ("s3", "list_buckets", {}),
    ("s3", "create_bucket", {"Bucket": "a-bucket", "CreateBucketConfiguration": {
        "LocationConstraint": "eu-west-1"}}),
    ("s3", "head_bucket", {"Bucket": "a-bucket"}),
    ("s3", "get_bucket_location", {"Bucket": "a-bucket"}),
    ("s3", "put_object", {"Bucket": "a-bucket", "Key": "dir/ä +&.txt", "Body": b"hello",
                          "ContentType": "text/plain", "Metadata": {"Colour": "blue"}}),
    ("s3", "get_object", {"Bucket": "a-bucket", "Key": "dir/ä +&.txt", "Range": "bytes=0-99",
                          "ResponseContentType": "text/html"}),
    ("s3", "head_object", {"Bucket": "a-bucket", "Key": "k", "PartNumber": 2}),
    ("s3", "delete_object", {"Bucket": "a-bucket", "Key": "k"}),
    ("s3", "delete_objects", {"Bucket": "a-bucket", "Delete": {
        "Objects": [{"Key": "a<b>&c"}, {"Key": "d"}], "Quiet": True}}),
    ("s3", "list_objects", {"Bucket": "a-bucket", "Prefix": "a/b", "Delimiter": "/"}),
    ("s3", "list_objects_v2", {"Bucket": "a-bucket", "MaxKeys": 0, "StartAfter": "x y"}),
    ("s3", "create_multipart_upload", {"Bucket": "a-bucket", "Key": "k", "StorageClass": "STANDARD"}),
    ("s3", "upload_part", {"Bucket": "a-bucket", "Key": "k", "PartNumber": 3, "UploadId": "u+1",
                           "Body": b"part"}),
    ("s3", "complete_multipart_upload", {
        "Bucket": "a-bucket", "Key": "k", "UploadId": "u", "MultipartUpload": {"Parts": [
            {"ETag": '"e1"', "PartNumber": 1}, {"ETag": '"e2"', "PartNumber": 2}]}}),
    ("s3", "abort_multipart_upload", {"Bucket": "a-bucket", "Key": "k", "UploadId": "u"}),
    ("s3", "list_parts", {"Bucket": "a-bucket", "Key": "k", "UploadId": "u", "MaxParts": 5}),
    ("s3", "list_multipart_uploads", {"Bucket": "a-bucket"}),
]

# What changes from run to run or says nothing to a decoder.
DROPPED = {"authorization", "x-amz-date", "amz-sdk-invocation-id", "amz-sdk-request", "user-agent"}


class Caught(Exception):
    pass


def client(service):
    return boto3.client(
        service, region_name="us-east-1", endpoint_url="http://127.0.0.1:1",
        aws_access_key_id="AKIAEXAMPLEEXAMPLE00", aws_secret_access_key="secret",
        config=botocore.config.Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}))


def capture(service, method, params):
    caught = []

    def before_send(request, **_):
        caught.append(request)
        raise Caught

    c = client(service)
    c.meta.events.register("before-send", before_send)
    try:
        getattr(c, method)(**params)
    except (Caught, botocore.exceptions.HTTPClientError):
        pass
    return as_json(service, caught[0])


def as_json(service, request):
    """The request as a golden_tool command."""
    url = urllib.parse.urlsplit(request.url)
    body = request.body or b""
    if hasattr(body, "read"):
        body = body.read()
    if isinstance(body, str):
        body = body.encode()
    if service != "s3":
        return {"op": "query", "service": service, "body": body.decode()}
    bucket, _, key = url.path.lstrip("/").partition("/")
    command = {"op": "rest", "service": service, "method": request.method,
               "bucket": urllib.parse.unquote(bucket) or None,
               "key": urllib.parse.unquote(key) or None, "query": url.query,
               "headers": sorted([k, v.decode() if isinstance(v, bytes) else v]
                                 for k, v in request.headers.items() if k.lower() not in DROPPED)}
    if request.method == "POST" or not key:  # others stream their body past the codecs
        command["body"] = body.decode()
    return command


def main():
    codecs = tool.Tool()
    captures = []
    for service, method, params in CALLS:
        request = capture(service, method, params)
        captures.append({"call": method, "request": request, "value": codecs.ask(**request)["value"]})
    with open(sys.argv[1], "w", encoding="utf-8") as f:
        json.dump(captures, f, indent=1, ensure_ascii=False)
        f.write("\n")


if __name__ == "__main__":
    main()
