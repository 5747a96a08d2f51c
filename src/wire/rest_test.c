/* SPDX-License-Identifier: Apache-2.0 */
/* Edges of REST-XML and of the XML that it reads; agreement with botocore is shown by tests/golden.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "base/text.h"
#include "gen/s3.h"
#include "wire/codec.h"

/* A request as a test writes it; headers are pairs, NULL-terminated. */
struct ask {
	const char *method, *bucket, *key, *query;
	const char *headers[9];
	const char *body;
};

static const char *header(void *ctx, const char *name)
{
	for (const char *const *h = ctx; *h; h += 2)
		if (strcasecmp(h[0], name) == 0)
			return h[1];
	return NULL;
}

static void each_header(void *ctx, void (*fn)(void *fn_ctx, const char *name, const char *value),
			void *fn_ctx)
{
	for (const char *const *h = ctx; *h; h += 2)
		fn(fn_ctx, h[0], h[1]);
}

static const struct wire_action *route_and_decode(struct arena *a, const struct ask *ask, void **in,
						  struct error *e)
{
	const char *query = ask->query ? ask->query : "";
	struct wire_params params;
	struct wire_rest_request r = {.method = ask->method,
				      .bucket = ask->bucket,
				      .key = ask->key,
				      .query = &params,
				      .header = header,
				      .each_header = each_header,
				      .header_ctx = (void *)ask->headers,
				      .body = ask->body,
				      .body_len = ask->body ? strlen(ask->body) : 0};
	const struct wire_action *act;

	if (wire_params_parse(a, query, strlen(query), &params, e) < 0)
		return NULL;
	act = wire_rest_route(&s3_service, &r, e);
	return act && wire_rest_decode(a, &s3_service, act, &r, in, e) >= 0 ? act : NULL;
}

static void refused(const struct ask *ask, const char *code, const char *words)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct error e = {0};
	void *in = NULL;

	assert_null(route_and_decode(a, ask, &in, &e));
	if (!str_eq(e.code, code) || !strstr(e.message, words))
		fail_msg("%s ?%s: got %s: %s", ask->method, ask->query, e.code, e.message);
}

#define REFUSED(code, words, ...) refused(&(struct ask){__VA_ARGS__}, code, words)

static void *accepted(struct arena *a, const struct ask *ask, const char *action)
{
	struct error e = {0};
	void *in = NULL;
	const struct wire_action *act = route_and_decode(a, ask, &in, &e);

	if (!act)
		fail_msg("%s: %s: %s", action, e.code, e.message);
	assert_string_equal(act->name, action);
	return in;
}

#define ACCEPTED(a, action, ...) accepted(a, &(struct ask){__VA_ARGS__}, action)

static void test_routes(void **state)
{
	static const struct {
		const char *method, *bucket, *key, *query, *action;
	} routes[] = {
	    {"GET", NULL, NULL, "", "ListBuckets"},
	    {"GET", NULL, NULL, "x-id=ListBuckets", "ListBuckets"},
	    {"PUT", "b", NULL, "", "CreateBucket"},
	    {"HEAD", "b", NULL, "", "HeadBucket"},
	    {"DELETE", "b", NULL, "", "DeleteBucket"},
	    {"GET", "b", NULL, "location", "GetBucketLocation"},
	    {"GET", "b", NULL, "location=", "GetBucketLocation"},
	    {"GET", "b", NULL, "", "ListObjects"},
	    {"GET", "b", NULL, "prefix=x", "ListObjects"},
	    {"GET", "b", NULL, "prefix=x&list-type=2", "ListObjectsV2"},
	    {"GET", "b", NULL, "uploads", "ListMultipartUploads"},
	    {"PUT", "b", "k", "", "PutObject"},
	    {"PUT", "b", "k", "X-Amz-Signature=x&X-Amz-Expires=1", "PutObject"},
	    {"PUT", "b", "k", "partNumber=1&uploadId=u", "UploadPart"},
	    {"GET", "b", "k", "", "GetObject"},
	    {"GET", "b", "k", "partNumber=1", "GetObject"},
	    {"GET", "b", "k", "uploadId=u", "ListParts"},
	    {"HEAD", "b", "k", "", "HeadObject"},
	    {"DELETE", "b", "k", "", "DeleteObject"},
	    {"DELETE", "b", "k", "uploadId=u", "AbortMultipartUpload"},
	    {"POST", "b", "k", "uploads", "CreateMultipartUpload"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		_cleanup_(arena_freep) struct arena *a = arena_new();

		ACCEPTED(a, routes[i].action, .method = routes[i].method,
			 .bucket = routes[i].bucket, .key = routes[i].key,
			 .query = routes[i].query);
	}
}

static void test_routes_refused(void **state)
{
	REFUSED("NotImplemented", "analytics", "GET", "b", NULL, "analytics&id=x");
	REFUSED("NotImplemented", "accelerate", "PUT", "b", NULL, "accelerate");
	REFUSED("NotImplemented", "torrent", "GET", "b", "k", "torrent");
	REFUSED("NotImplemented", "select", "POST", "b", "k", "select&select-type=2");
	REFUSED("NotImplemented", "inventory", "GET", "b", NULL, "inventory");
	REFUSED("NotImplemented", "POST", "POST", "b", NULL, "");
	REFUSED("MethodNotAllowed", "", "POST", NULL, NULL, "");
	REFUSED("MethodNotAllowed", "", "DELETE", NULL, NULL, "");
	REFUSED("MethodNotAllowed", "", "PATCH", "b", "k", "");
	REFUSED("InvalidArgument", "uploadId", "PUT", "b", "k", "uploadId=u");
	REFUSED("InvalidArgument", "frob", "GET", "b", NULL, "frob=1");
	REFUSED("InvalidArgument", "max-keys", "GET", "b", NULL, "max-keys=x");
	REFUSED("InvalidArgument", "twice", "GET", "b", NULL, "prefix=a&prefix=b");
	REFUSED("InvalidArgument", "partNumber", "GET", "b", "k", "partNumber=0");
	REFUSED("UnexpectedContent", "content", "GET", "b", NULL, "", .body = "x");
}

static void test_headers(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct s3_put_object_request *put =
	    ACCEPTED(a, "PutObject", "PUT", "b", "k", "",
		     {"X-AMZ-META-Colour", "blue", "x-amz-meta-colour", "red", "content-TYPE",
		      "a/b", "Expires", "Sun, 22 Nov 2026 10:00:00 GMT"});
	struct s3_get_object_request *get;

	assert_int_equal(put->metadata.count, 1);
	assert_string_equal(put->metadata.items[0].key, "colour");
	assert_string_equal(put->metadata.items[0].value, "blue,red");
	assert_string_equal(put->content_type, "a/b");
	assert_int_equal(put->expires.value, 1795341600000);
	get = ACCEPTED(a, "GetObject", "GET", "b", "k", "",
		       {"x-amz-sdk-x", "1", "X-Amz-Date", "x", "range", "bytes=0-"});
	assert_string_equal(get->range, "bytes=0-");
	assert_false(get->if_modified_since.set);
	REFUSED("NotImplemented", "x-amz-frob", "GET", "b", "k", "", {"x-amz-frob", ""});
	REFUSED("NotImplemented", "x-amz-server-side-encryption", "PUT", "b", "k", "",
		{"x-amz-server-side-encryption", "AES256"});
	REFUSED("InvalidArgument", "Expires", "PUT", "b", "k", "", {"Expires", "soon"});
	REFUSED("InvalidArgument", "UTF-8", "PUT", "b", "k", "", {"x-amz-meta-a", "\xff"});
	REFUSED("InvalidArgument", "UTF-8", "PUT", "b", "k", "", {"Content-Type", "\xff"});
	REFUSED("InvalidStorageClass", "STANDARD", "PUT", "b", "k", "",
		{"x-amz-storage-class", "GLACIER"});
}

static void test_body(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct s3_create_bucket_request *create;
	struct s3_delete_objects_request *in = ACCEPTED(
	    a, "DeleteObjects", "POST", "b", NULL, "delete",
	    .body = "<?xml version='1.0'?><!-- x --><p:Delete xmlns:p='urn:x'>\n <p:Object><Key>"
		    "<![CDATA[<a&b>]]></Key></p:Object><Quiet> true\n</Quiet>"
		    "<Object><Key> b </Key></Object></p:Delete>");

	assert_int_equal(in->delete->objects.count, 2);
	assert_string_equal(in->delete->objects.items[0].key, "<a&b>");
	assert_string_equal(in->delete->objects.items[1].key, " b ");
	assert_true(in->delete->quiet.set && in->delete->quiet.value);
	create = ACCEPTED(a, "CreateBucket", "PUT", "b", NULL, "", .body = "");
	assert_null(create->create_bucket_configuration);
	create = ACCEPTED(a, "CreateBucket", "PUT", "b", NULL, "",
			  .body = "<CreateBucketConfiguration/>");
	assert_null(create->create_bucket_configuration->location_constraint);
}

static void delete_refused(const char *code, const char *words, const char *body)
{
	REFUSED(code, words, "POST", "b", NULL, "delete", .body = body);
}

static void test_bad_bodies(void **state)
{
	_cleanup_(buf_done) struct buf deep = BUF_INIT;

	delete_refused("MalformedXML", "empty", "");
	delete_refused("MalformedXML", "well-formed", "<Delete>");
	delete_refused("MalformedXML", "well-formed", "<Delete/><Delete/>");
	delete_refused("MalformedXML", "well-formed", "<Delete>\xff</Delete>");
	delete_refused("MalformedXML", "well-formed", "<Delete>&frob;</Delete>");
	delete_refused("MalformedXML", "Delete", "<Remove/>");
	delete_refused("MalformedXML", "Delete.Object is missing", "<Delete/>");
	delete_refused("MalformedXML", "Delete.Object.2.Key is missing",
		       "<Delete><Object><Key>a</Key></Object><Object/></Delete>");
	delete_refused("MalformedXML", "Frob", "<Delete><Frob/></Delete>");
	delete_refused(
	    "MalformedXML", "twice",
	    "<Delete><Object><Key>a</Key></Object><Quiet>true</Quiet><Quiet>true</Quiet></Delete>");
	delete_refused("MalformedXML", "true or false",
		       "<Delete><Object><Key>a</Key></Object><Quiet>1</Quiet></Delete>");
	delete_refused("MalformedXML", "text alone",
		       "<Delete><Object><Key>a<b/></Key></Object></Delete>");
	delete_refused(
	    "MalformedXML", "document type",
	    "<!DOCTYPE Delete [<!ENTITY a \"x\"><!ENTITY b \"&a;&a;&a;\">]><Delete>&b;</Delete>");
	delete_refused("MalformedXML", "document type",
		       "<!DOCTYPE Delete SYSTEM \"file:///etc/passwd\"><Delete/>");
	for (int i = 0; i < 65; i++)
		buf_puts(&deep, "<Delete>");
	for (int i = 0; i < 65; i++)
		buf_puts(&deep, "</Delete>");
	delete_refused("MalformedXML", "deep", deep.data);
	buf_reset(&deep);
	for (int i = 0; i < 100000; i++)
		buf_puts(&deep, "<a>");
	delete_refused("MalformedXML", "well-formed", deep.data);
}

/* The same declaration in UTF-16, where no byte search finds it. */
static void test_doctype_in_utf16(void **state)
{
	static const char text[] = "<!DOCTYPE Delete []><Delete/>";
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(buf_done) struct buf wide = BUF_INIT;
	struct error e = {0};
	void *out = NULL;

	buf_append(&wide, "\xff\xfe", 2);
	for (const char *c = text; *c; c++) {
		buf_putc(&wide, *c);
		buf_putc(&wide, '\0');
	}
	assert_true(wire_xml_decode(a, &s3_shape_delete, wide.data, wide.len, &out, &e) < 0);
	assert_string_equal(e.code, "MalformedXML");
	assert_non_null(strstr(e.message, "document type"));
}

struct caught {
	char text[512];
};

static void catch (void *ctx, const char *name, const char *value)
{
	struct caught *c = ctx;
	size_t used = strlen(c->text);

	snprintf(c->text + used, sizeof(c->text) - used, "%s: %s\n", name, value);
}

static void test_reply(void **state)
{
	struct wire_pair meta[] = {{"a", "1\r\nX-Evil: 1"}};
	struct s3_head_object_output out = {
	    .e_tag = "\"e\"",
	    .content_length = WIRE_INT_OF(0),
	    .last_modified = WIRE_TIME_OF(1795341600123),
	    .metadata = {.set = true, .count = 1, .items = meta},
	};
	const struct wire_action *act = wire_action_find(&s3_service, "HeadObject");
	_cleanup_(buf_done) struct buf body = BUF_INIT;
	struct caught c = {""};
	int status = 0;

	wire_rest_reply(&s3_service, act, &out, &status, catch, &c, &body);
	assert_int_equal(status, 200);
	assert_int_equal(body.len, 0);
	assert_non_null(strstr(c.text, "Last-Modified: Sun, 22 Nov 2026 10:00:00 GMT\n"));
	assert_non_null(strstr(c.text, "Content-Length: 0\n"));
	assert_non_null(strstr(c.text, "x-amz-meta-a: 1  X-Evil: 1\n"));
	act = wire_action_find(&s3_service, "DeleteBucket");
	wire_rest_reply(&s3_service, act, NULL, &status, catch, &c, &body);
	assert_int_equal(status, 204);
	assert_int_equal(body.len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_routes),     cmocka_unit_test(test_routes_refused),
	    cmocka_unit_test(test_headers),    cmocka_unit_test(test_body),
	    cmocka_unit_test(test_bad_bodies), cmocka_unit_test(test_doctype_in_utf16),
	    cmocka_unit_test(test_reply),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
