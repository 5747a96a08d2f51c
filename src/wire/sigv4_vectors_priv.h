/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_WIRE_SIGV4_VECTORS_PRIV_H
#define MALLEE_WIRE_SIGV4_VECTORS_PRIV_H

#include <stdbool.h>

/* Requests as botocore 1.29.27 signs them, its clock held at 2026-11-22T10:00:00Z. The key exists nowhere else. */
#define VECTOR_KEY_ID "AKIDMALLEE0123456789"
#define VECTOR_SECRET "mq3/Secret+Key/EXAMPLE0123456789abcdefgh"
#define VECTOR_NOW_MS INT64_C(1795341600000)

struct sigv4_vector {
	const char *name;
	bool s3;
	const char *method, *path, *query, *payload_sha256_hex;
	const char *headers[16]; /* name, value, …, NULL */
};

static const struct sigv4_vector sigv4_vectors[] = {
	{ .name = "ec2 post",
	  .s3 = false,
	  .method = "POST",
	  .path = "/",
	  .query = "",
	  .payload_sha256_hex = "6171eb09865e32b0602af0f7957e26573a51f53caaedff02ff88883cb0275885",
	  .headers = { "Content-Type", "application/x-www-form-urlencoded; charset=utf-8", "X-Amz-Date", "20261122T100000Z", "Authorization", "AWS4-HMAC-SHA256 Credential=AKIDMALLEE0123456789/20261122/us-east-1/ec2/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=8dbe3caafcf9424063b1242e7a562b2119de9906f296fc8323587cc62c202121", "Host", "127.0.0.1:8773" } },
	{ .name = "sts post with a session token",
	  .s3 = false,
	  .method = "POST",
	  .path = "/",
	  .query = "",
	  .payload_sha256_hex = "ab821ae955788b0e33ebd34c208442ccfc2d406e2edc5e7a39bd6458fbb4f843",
	  .headers = { "Content-Type", "application/x-www-form-urlencoded; charset=utf-8", "X-Amz-Date", "20261122T100000Z", "X-Amz-Security-Token", "token/with+odd=chars", "Authorization", "AWS4-HMAC-SHA256 Credential=AKIDMALLEE0123456789/20261122/us-east-1/sts/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=6ca8ef09445ca42249659082d5bd39310a41ff66a24295de65325ab7279facb7", "Host", "127.0.0.1:8773" } },
	{ .name = "iam get with a query",
	  .s3 = false,
	  .method = "GET",
	  .path = "/",
	  .query = "Action=ListUsers&Version=2010-05-08&b=2&a=%20x&a=&B=1",
	  .payload_sha256_hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	  .headers = { "X-Amz-Date", "20261122T100000Z", "Authorization", "AWS4-HMAC-SHA256 Credential=AKIDMALLEE0123456789/20261122/us-east-1/iam/aws4_request, SignedHeaders=host;x-amz-date, Signature=8f4d560eccc7e7cb0bf368cbc85e360222954102c53eb15895619f23fbc457c3", "Host", "cloud.example:8773" } },
	{ .name = "ec2 presigned",
	  .s3 = false,
	  .method = "GET",
	  .path = "/",
	  .query = "Action=DescribeInstances&Version=2016-11-15&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDMALLEE0123456789%2F20261122%2Fus-east-1%2Fec2%2Faws4_request&X-Amz-Date=20261122T100000Z&X-Amz-Expires=600&X-Amz-SignedHeaders=host&X-Amz-Signature=fc76be61a862c19fb8505bfb1ba5744c718fa490fbf5273fc1f879ac70259ce9",
	  .payload_sha256_hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	  .headers = { "Host", "127.0.0.1:8773" } },
	{ .name = "dot segments",
	  .s3 = false,
	  .method = "GET",
	  .path = "/a%20b/./../c//d%2Fe/",
	  .query = "",
	  .payload_sha256_hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	  .headers = { "X-Amz-Date", "20261122T100000Z", "Authorization", "AWS4-HMAC-SHA256 Credential=AKIDMALLEE0123456789/20261122/eu-west-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=c55818f98301500ea042f9141dc1803305524670a91bff32c2bd164e884bfd52", "Host", "127.0.0.1:8773" } },
	{ .name = "spaces in headers",
	  .s3 = false,
	  .method = "POST",
	  .path = "/",
	  .query = "",
	  .payload_sha256_hex = "6171eb09865e32b0602af0f7957e26573a51f53caaedff02ff88883cb0275885",
	  .headers = { "Content-Type", "application/x-www-form-urlencoded; charset=utf-8", "X-Amz-Meta", "  a   b  \"c   d\" ", "X-Amz-Date", "20261122T100000Z", "Authorization", "AWS4-HMAC-SHA256 Credential=AKIDMALLEE0123456789/20261122/us-east-1/ec2/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-meta, Signature=233fb8890b629c893ee643b58b6e69065b622d78e14236fd0f2e643354f671ed", "Host", "127.0.0.1:8773" } },
	{ .name = "s3 put, odd key",
	  .s3 = true,
	  .method = "PUT",
	  .path = "/bucket/a%20b%2Bc/%C3%A9~%21%2A%27%28%29%26%3D%40%3A%2C%24%3B%25%7C",
	  .query = "",
	  .payload_sha256_hex = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
	  .headers = { "Content-Type", "text/plain", "x-amz-meta-a", "b", "X-Amz-Date", "20261122T100000Z", "X-Amz-Content-SHA256", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "Authorization", "AWS4-HMAC-SHA256 Credential=AKIDMALLEE0123456789/20261122/us-east-1/s3/aws4_request, SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-meta-a, Signature=42b2fb557fb19076b528987374852fe64a4c5950a4993f50c596bc183ded8ac1", "Host", "127.0.0.1:8774" } },
	{ .name = "s3 get, double slashes",
	  .s3 = true,
	  .method = "GET",
	  .path = "/bucket//a/../b/",
	  .query = "",
	  .payload_sha256_hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	  .headers = { "X-Amz-Date", "20261122T100000Z", "X-Amz-Content-SHA256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "Authorization", "AWS4-HMAC-SHA256 Credential=AKIDMALLEE0123456789/20261122/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=77aec19fb8c01c29730b0bb5ced16d7bf3eef829d0d7f49fa3253b7cb5311779", "Host", "127.0.0.1:8774" } },
	{ .name = "s3 list",
	  .s3 = true,
	  .method = "GET",
	  .path = "/bucket",
	  .query = "list-type=2&prefix=a%2Fb%20c&delimiter=%2F&encoding-type=url&uploads",
	  .payload_sha256_hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	  .headers = { "X-Amz-Date", "20261122T100000Z", "X-Amz-Content-SHA256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "Authorization", "AWS4-HMAC-SHA256 Credential=AKIDMALLEE0123456789/20261122/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=2da67c2177160891d9350a9236e915b631e759e7f15dc9d4c3f830a771fcf05f", "Host", "127.0.0.1:8774" } },
	{ .name = "s3 https put, unsigned payload",
	  .s3 = true,
	  .method = "PUT",
	  .path = "/bucket/k",
	  .query = "",
	  .payload_sha256_hex = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
	  .headers = { "Content-MD5", "XUFAKrxLKna5cZ2REBfFkg==", "X-Amz-Date", "20261122T100000Z", "X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD", "Authorization", "AWS4-HMAC-SHA256 Credential=AKIDMALLEE0123456789/20261122/us-east-1/s3/aws4_request, SignedHeaders=content-md5;host;x-amz-content-sha256;x-amz-date, Signature=c55e4df8fd98fed87fc48375ad07e85b29a82d209da611c7a28d908e12bf23a3", "Host", "walrus.example" } },
	{ .name = "s3 presigned get",
	  .s3 = true,
	  .method = "GET",
	  .path = "/bucket/a%20b%2Bc/%C3%A9~%21%2A%27%28%29%26%3D%40%3A%2C%24%3B%25%7C",
	  .query = "response-content-disposition=attachment%3B%20filename%3D%22x.txt%22&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDMALLEE0123456789%2F20261122%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20261122T100000Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature=ec7ecd38800c6bcbbbfb3958d60902a1db78a1bb8c499608922c5f0c99c11787",
	  .payload_sha256_hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	  .headers = { "Host", "127.0.0.1:8774" } },
	{ .name = "s3 presigned put with a session token",
	  .s3 = true,
	  .method = "PUT",
	  .path = "/bucket/k",
	  .query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDMALLEE0123456789%2F20261122%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Date=20261122T100000Z&X-Amz-Expires=604800&X-Amz-SignedHeaders=host%3Bx-amz-acl&X-Amz-Security-Token=token%2Fwith%2Bodd%3Dchars&X-Amz-Signature=0c532354e032ff16af409bfb95ab9c17c7877ab335e2a723ebf3010ef11edf39",
	  .payload_sha256_hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	  .headers = { "x-amz-acl", "private", "Host", "127.0.0.1:8774" } },
};

/* Version 2, which boto3 and the aws command make for presigned URLs in us-east-1; valid for an hour. */
#define VECTOR_LONG_SECRET "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"

struct sigv2_vector {
	const char *name;
	bool long_secret;
	const char *method, *path, *query;
	const char *headers[12]; /* name, value, …, NULL */
};

static const struct sigv2_vector sigv2_vectors[] = {
	{"get", false, "GET", "/b/a%20b/%C3%BC",
	 "AWSAccessKeyId=AKIDMALLEE0123456789&Signature=5qOZcdp62Ec1wozx9KKqzTFv17Y%3D&Expires=1795345200",
	 {"Host", "127.0.0.1:8774"}},
	{"response headers and a version", false, "GET", "/b/k",
	 "response-content-type=text%2Fplain&versionId=null&x=y&response-content-disposition=attachment%3B%20filename%3D%22a%2Bb%22&AWSAccessKeyId=AKIDMALLEE0123456789&Signature=bVKFSdyeOutoVTdyDvMNXz4qILY%3D&Expires=1795345200",
	 {"Host", "127.0.0.1:8774"}},
	{"put with headers", false, "PUT", "/b/k",
	 "AWSAccessKeyId=AKIDMALLEE0123456789&Signature=3%2FHOs8W%2FBHZaqcl5iW6EewMu24M%3D&content-type=text%2Fplain&content-md5=XUFAKrxLKna5cZ2REBfFkg%3D%3D&x-amz-meta-b=2&x-amz-meta-a=1&Expires=1795345200",
	 {"Host", "127.0.0.1:8774", "Content-Type", "text/plain", "Content-MD5", "XUFAKrxLKna5cZ2REBfFkg==", "x-amz-meta-b", "2", "X-Amz-Meta-A", "1"}},
	{"sub-resource", false, "GET", "/b",
	 "uploads&AWSAccessKeyId=AKIDMALLEE0123456789&Signature=fL5%2BW5W%2BDpl%2FHbOr9wYho7kLSUc%3D&Expires=1795345200",
	 {"Host", "127.0.0.1:8774"}},
	{"part", false, "PUT", "/b/k",
	 "partNumber=2&uploadId=abc&AWSAccessKeyId=AKIDMALLEE0123456789&Signature=gnQqmFo1tsIAW2D7oUAMgmGJ9rw%3D&Expires=1795345200",
	 {"Host", "127.0.0.1:8774"}},
	{"a secret longer than a block", true, "GET", "/b/k",
	 "AWSAccessKeyId=AKIDMALLEE0123456789&Signature=xMINwGvknbkkJS9qXZ4I%2FtZOO7o%3D&Expires=1795345200",
	 {"Host", "127.0.0.1:8774"}},
};

#endif
