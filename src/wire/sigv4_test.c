/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/text.h"
#include "wire/sigv4_priv.h"
#include "wire/sigv4_vectors_priv.h"

/* A request of fixed texts: name, value, name, value, …, NULL. */
struct fake {
	const char *const *headers;
};

static const char *fake_header(void *ctx, const char *name)
{
	struct fake *f = ctx;

	for (const char *const *h = f->headers; h && h[0]; h += 2) {
		if (strcasecmp(h[0], name) == 0)
			return h[1];
	}
	return NULL;
}

static void fake_each(void *ctx, void (*fn)(void *fn_ctx, const char *name, const char *value),
		      void *fn_ctx)
{
	struct fake *f = ctx;

	for (const char *const *h = f->headers; h && h[0]; h += 2)
		fn(fn_ctx, h[0], h[1]);
}

static struct sigv4_source source(struct fake *f, const char *method, const char *path,
				  const char *query)
{
	return (struct sigv4_source){.method = method,
				     .path = path,
				     .query = query,
				     .header = fake_header,
				     .each_header = fake_each,
				     .ctx = f};
}

static int check(struct arena *a, const struct sigv4_source *src, const char *secret_text_, bool s3,
		 int64_t now_ms, const char *payload, struct error *e)
{
	unsigned char key[SIGV4_KEY_LEN];
	struct sigv4_auth auth;
	struct secret secret;
	int r = sigv4_parse_source(a, src, s3, now_ms, &auth, e);

	if (r < 0)
		return r;
	secret = secret_new(secret_text_);
	sigv4_signing_key(&secret, auth.date, auth.region, auth.service, key);
	secret_done(&secret);
	return sigv4_verify_source(a, src, &auth, key, s3 ? auth.payload_hash : payload, e);
}

static int check_vector(struct arena *a, const struct sigv4_vector *v, const char *secret,
			struct error *e)
{
	struct fake f = {v->headers};
	struct sigv4_source src = source(&f, v->method, v->path, v->query);

	return check(a, &src, secret, v->s3, VECTOR_NOW_MS, v->payload_sha256_hex, e);
}

static void what_botocore_signs_is_accepted(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(sigv4_vectors); i++) {
		struct arena *a = arena_new();
		struct error e = {0};

		if (check_vector(a, &sigv4_vectors[i], VECTOR_SECRET, &e) < 0)
			fail_msg("%s: %s: %s", sigv4_vectors[i].name, e.code, e.message);
		arena_free(a);
	}
}

static void another_secret_is_refused(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(sigv4_vectors); i++) {
		struct arena *a = arena_new();
		struct error e = {0};

		assert_true(check_vector(a, &sigv4_vectors[i], "another", &e) < 0);
		assert_string_equal(e.code, "SignatureDoesNotMatch");
		arena_free(a);
	}
}

/* Whatever of a signed request is changed, the signature no longer fits. */
static void changed_requests_are_refused(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(sigv4_vectors); i++) {
		struct arena *a = arena_new();
		struct sigv4_vector v = sigv4_vectors[i];
		struct error e = {0};

		v.method = "DELETE";
		assert_true(check_vector(a, &v, VECTOR_SECRET, &e) < 0);
		v = sigv4_vectors[i];
		v.path = arena_printf(a, "%sx", v.path);
		assert_true(check_vector(a, &v, VECTOR_SECRET, &e) < 0);
		v = sigv4_vectors[i];
		v.query = arena_printf(a, "%s%sx=y", v.query, *v.query ? "&" : "");
		assert_true(check_vector(a, &v, VECTOR_SECRET, &e) < 0);
		v = sigv4_vectors[i];
		for (size_t h = 0; v.headers[h]; h += 2) {
			if (strcasecmp(v.headers[h], "Host") == 0)
				v.headers[h + 1] = "elsewhere";
		}
		assert_true(check_vector(a, &v, VECTOR_SECRET, &e) < 0);
		assert_string_equal(e.code, "SignatureDoesNotMatch");
		if (!v.s3) {
			v = sigv4_vectors[i];
			v.payload_sha256_hex = "00";
			assert_true(check_vector(a, &v, VECTOR_SECRET, &e) < 0);
		}
		arena_free(a);
	}
}

/* The examples that Amazon's documentation works through. */
#define DOC_SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#define DOC_SCOPE                                                                                  \
	"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "

static void documented_examples(void **state)
{
	static const struct {
		const char *method, *path, *query, *headers[12];
	} cases[] = {
	    {"GET",
	     "/test.txt",
	     "",
	     {"Host", "examplebucket.s3.amazonaws.com", "Range", "bytes=0-9",
	      "x-amz-content-sha256", SIGV4_EMPTY_SHA256, "x-amz-date", "20130524T000000Z",
	      "Authorization",
	      DOC_SCOPE
	      "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
	      "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"}},
	    {"PUT",
	     "/test$file.text",
	     "",
	     {"Host", "examplebucket.s3.amazonaws.com", "Date", "Fri, 24 May 2013 00:00:00 GMT",
	      "x-amz-storage-class", "REDUCED_REDUNDANCY", "x-amz-content-sha256",
	      "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072", "x-amz-date",
	      "20130524T000000Z", "Authorization"}},
	    {"GET",
	     "/",
	     "lifecycle",
	     {"Host", "examplebucket.s3.amazonaws.com", "x-amz-content-sha256", SIGV4_EMPTY_SHA256,
	      "x-amz-date", "20130524T000000Z", "Authorization",
	      DOC_SCOPE
	      "SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
	      "Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"}},
	    {"GET",
	     "/",
	     "max-keys=2&prefix=J",
	     {"Host", "examplebucket.s3.amazonaws.com", "x-amz-content-sha256", SIGV4_EMPTY_SHA256,
	      "x-amz-date", "20130524T000000Z", "Authorization",
	      DOC_SCOPE
	      "SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
	      "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"}},
	    {"GET",
	     "/test.txt",
	     "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2F"
	     "s3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&"
	     "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
	     {"Host", "examplebucket.s3.amazonaws.com"}},
	};
	int64_t now;

	assert_int_equal(clock_parse("20130524T000000Z", &now), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *headers[14] = {0};
		struct arena *a = arena_new();
		struct error e = {0};
		struct fake f = {headers};
		struct sigv4_source src =
		    source(&f, cases[i].method, cases[i].path, cases[i].query);

		memcpy(headers, cases[i].headers, sizeof(cases[i].headers));
		if (i == 1)
			headers[11] = DOC_SCOPE
			    "SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class, "
			    "Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd";
		if (check(a, &src, DOC_SECRET, true, now, NULL, &e) < 0)
			fail_msg("example %zu: %s: %s", i, e.code, e.message);
		arena_free(a);
	}
}

static void documented_signing_key(void **state)
{
	struct secret secret = secret_new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
	unsigned char key[SIGV4_KEY_LEN];
	char hex[2 * SIGV4_KEY_LEN + 1];

	sigv4_signing_key(&secret, "20150830", "us-east-1", "iam", key);
	hex_encode(key, sizeof(key), hex);
	assert_string_equal(hex, "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
				 "0000000000000000");
	secret_done(&secret);
}

#define AUTH(scope, headers, signature)                                                            \
	"AWS4-HMAC-SHA256 Credential=AKID/" scope ", SignedHeaders=" headers                       \
	", Signature=" signature
#define SIG "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define GOOD_SCOPE "20261122/us-east-1/ec2/aws4_request"
#define PRESIGNED(date, expires)                                                                            \
	"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20261122%2Fus-east-1%2Fs3%2Faws4_request" \
	"&X-Amz-Date=" date "&X-Amz-Expires=" expires                                                       \
	"&X-Amz-SignedHeaders=host&X-Amz-Signature=" SIG

static const struct refusal {
	const char *authorization, *date, *query, *extra, *code, *s3_code;
} refusals[] = {
    {NULL, NULL, "", NULL, "MissingAuthenticationToken", "AccessDenied"},
    {"", "20261122T100000Z", "", NULL, "IncompleteSignature", "InvalidRequest"},
    {"AWS AKID:sig", "20261122T100000Z", "", NULL, "IncompleteSignature", "InvalidRequest"},
    {"AWS4-HMAC-SHA256", "20261122T100000Z", "", NULL, "IncompleteSignature", "InvalidRequest"},
    {"AWS4-HMAC-SHA256 ", "20261122T100000Z", "", NULL, "IncompleteSignature",
     "AuthorizationHeaderMalformed"},
    {"AWS4-HMAC-SHA256 Credential", "20261122T100000Z", "", NULL, "IncompleteSignature",
     "AuthorizationHeaderMalformed"},
    {"AWS4-HMAC-SHA256 Credential=AKID/" GOOD_SCOPE, "20261122T100000Z", "", NULL,
     "IncompleteSignature", "AuthorizationHeaderMalformed"},
    {AUTH(GOOD_SCOPE, "host;x-amz-date", SIG) ", Signature=" SIG, "20261122T100000Z", "", NULL,
     "IncompleteSignature", "AuthorizationHeaderMalformed"},
    {AUTH("20261122/us-east-1/aws4_request", "host;x-amz-date", SIG), "20261122T100000Z", "", NULL,
     "IncompleteSignature", "AuthorizationHeaderMalformed"},
    {AUTH("20261122/a/b/c/d/aws4_request", "host;x-amz-date", SIG), "20261122T100000Z", "", NULL,
     "IncompleteSignature", "AuthorizationHeaderMalformed"},
    {AUTH("2026112x/us-east-1/ec2/aws4_request", "host;x-amz-date", SIG), "20261122T100000Z", "",
     NULL, "IncompleteSignature", "AuthorizationHeaderMalformed"},
    {AUTH("20261122/us-east-1/ec2/aws5_request", "host;x-amz-date", SIG), "20261122T100000Z", "",
     NULL, "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"},
    {AUTH(GOOD_SCOPE, "host;x-amz-date", "abc"), "20261122T100000Z", "", NULL,
     "IncompleteSignature", "AuthorizationHeaderMalformed"},
    {AUTH(GOOD_SCOPE, "", SIG), "20261122T100000Z", "", NULL, "IncompleteSignature",
     "AuthorizationHeaderMalformed"},
    {AUTH(GOOD_SCOPE, "x-amz-date;host", SIG), "20261122T100000Z", "", NULL, "IncompleteSignature",
     "AuthorizationHeaderMalformed"},
    {AUTH(GOOD_SCOPE, "host;host;x-amz-date", SIG), "20261122T100000Z", "", NULL,
     "IncompleteSignature", "AuthorizationHeaderMalformed"},
    {AUTH(GOOD_SCOPE, "Host;x-amz-date", SIG), "20261122T100000Z", "", NULL, "IncompleteSignature",
     "AuthorizationHeaderMalformed"},
    {AUTH(GOOD_SCOPE, "host;x-amz-date", SIG), NULL, "", NULL, "IncompleteSignature",
     "AccessDenied"},
    {AUTH(GOOD_SCOPE, "host;x-amz-date", SIG), "yesterday", "", NULL, "IncompleteSignature",
     "AccessDenied"},
    {AUTH(GOOD_SCOPE, "host;x-amz-date", SIG), "20261322T100000Z", "", NULL, "IncompleteSignature",
     "AccessDenied"},
    {AUTH(GOOD_SCOPE, "host;x-amz-date", SIG), "20261121T235959Z", "", NULL,
     "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"},
    {AUTH(GOOD_SCOPE, "host;x-amz-date", SIG), "20261122T094459Z", "", NULL, "RequestExpired",
     "RequestTimeTooSkewed"},
    {AUTH(GOOD_SCOPE, "host;x-amz-date", SIG), "20261122T101501Z", "", NULL, "RequestExpired",
     "RequestTimeTooSkewed"},
    {AUTH(GOOD_SCOPE, "x-amz-date", SIG), "20261122T100000Z", "", NULL, "SignatureDoesNotMatch",
     "AccessDenied"},
    {AUTH(GOOD_SCOPE, "host", SIG), "20261122T100000Z", "", NULL, "SignatureDoesNotMatch",
     "AccessDenied"},
    {AUTH(GOOD_SCOPE, "host;x-amz-date", SIG), "20261122T100000Z", "", "x-amz-acl",
     "SignatureDoesNotMatch", "AccessDenied"},
    {AUTH(GOOD_SCOPE, "host;x-amz-date", SIG), "20261122T100000Z", "", NULL, NULL,
     "InvalidRequest"},
    {AUTH(GOOD_SCOPE, "host;x-amz-content-sha256;x-amz-date", SIG), "20261122T100000Z", "",
     "x-amz-content-sha256", NULL, "InvalidArgument"},
    {AUTH(GOOD_SCOPE, "host;x-amz-date", SIG), "20261122T100000Z",
     PRESIGNED("20261122T100000Z", "9"), NULL, "IncompleteSignature", "InvalidArgument"},
    {NULL, NULL, "AWSAccessKeyId=AKID&Signature=x&Expires=1", NULL, "IncompleteSignature",
     "AccessDenied"},
    {NULL, NULL, "AWSAccessKeyId=AKID&Signature=x", NULL, "IncompleteSignature", "AccessDenied"},
    {NULL, NULL, "AWSAccessKeyId=AKID&Signature=x&Expires=soon", NULL, "IncompleteSignature",
     "AccessDenied"},
    {NULL, NULL, "AWSAccessKeyId=AKID&Signature=x&Expires=1795341599", NULL, "IncompleteSignature",
     "AccessDenied"},
    {NULL, NULL, "AWSAccessKeyId=AKID&AWSAccessKeyId=B&Signature=x&Expires=1795349999", NULL,
     "IncompleteSignature", "AccessDenied"},
    {NULL, NULL, "AWSAccessKeyId=AKID&Signature=x&Expires=1795349999", NULL, "IncompleteSignature",
     NULL},
    {NULL, NULL, "X-Amz-Algorithm=AWS4-HMAC-SHA256", NULL, "IncompleteSignature",
     "AuthorizationQueryParametersError"},
    {NULL, NULL, "X-Amz-Algorithm=none", NULL, "IncompleteSignature",
     "AuthorizationQueryParametersError"},
    {NULL, NULL, PRESIGNED("20261122T100000Z", "9") "&X-Amz-Date=20261122T100000Z", NULL,
     "IncompleteSignature", "AuthorizationQueryParametersError"},
    {NULL, NULL, PRESIGNED("20261122T100000Z", "0"), NULL, "IncompleteSignature",
     "AuthorizationQueryParametersError"},
    {NULL, NULL, PRESIGNED("20261122T100000Z", "604801"), NULL, "IncompleteSignature",
     "AuthorizationQueryParametersError"},
    {NULL, NULL, PRESIGNED("20261122T100000Z", "soon"), NULL, "IncompleteSignature",
     "AuthorizationQueryParametersError"},
    {NULL, NULL, PRESIGNED("20261122T095000Z", "599"), NULL, "RequestExpired", "AccessDenied"},
    {NULL, NULL, PRESIGNED("20261122T101501Z", "9"), NULL, "RequestExpired", "AccessDenied"},
    {NULL, NULL, PRESIGNED("20261121T100000Z", "604800"), NULL, "SignatureDoesNotMatch",
     "AuthorizationQueryParametersError"},
};

static void faults_have_their_codes(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		const struct refusal *c = &refusals[i];
		const char *headers[10] = {"Host", "h"};
		size_t n = 2;

		if (c->authorization) {
			headers[n++] = "Authorization";
			headers[n++] = c->authorization;
		}
		if (c->date) {
			headers[n++] = "X-Amz-Date";
			headers[n++] = c->date;
		}
		if (c->extra) {
			headers[n++] = c->extra;
			headers[n++] = "odd";
		}
		for (int s3 = 0; s3 < 2; s3++) {
			const char *want = s3 ? c->s3_code : c->code;
			struct arena *a = arena_new();
			struct fake f = {headers};
			struct sigv4_source src = source(&f, "GET", "/", c->query);
			struct sigv4_auth auth;
			struct error e = {0};
			int r = sigv4_parse_source(a, &src, s3, VECTOR_NOW_MS, &auth, &e);

			if (want ? r >= 0 || !str_eq(e.code, want) : r < 0)
				fail_msg("case %zu (%s), s3 %d: %d %s: %s", i,
					 c->authorization ? c->authorization : c->query, s3, r,
					 e.code, e.message);
			arena_free(a);
		}
	}
}

static int check_v2(struct arena *a, const struct sigv2_vector *v, const char *secret,
		    int64_t now_ms, struct error *e)
{
	struct fake f = {v->headers};
	struct sigv4_source src = source(&f, v->method, v->path, v->query);

	return check(a, &src, secret, true, now_ms, NULL, e);
}

static void version_2_presigned_urls(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(sigv2_vectors); i++) {
		struct sigv2_vector v = sigv2_vectors[i];
		const char *secret = v.long_secret ? VECTOR_LONG_SECRET : VECTOR_SECRET;
		struct arena *a = arena_new();
		struct error e = {0};

		if (check_v2(a, &v, secret, VECTOR_NOW_MS, &e) < 0 ||
		    check_v2(a, &v, secret, VECTOR_NOW_MS + 3600000, &e) < 0)
			fail_msg("%s: %s: %s", v.name, e.code, e.message);
		assert_true(check_v2(a, &v, secret, VECTOR_NOW_MS + 3601000, &e) < 0);
		assert_string_equal(e.message, "Request has expired");
		error_clear(&e);
		assert_true(check_v2(a, &v, "another", VECTOR_NOW_MS, &e) < 0);
		assert_string_equal(e.code, "SignatureDoesNotMatch");
		v.path = "/b/another";
		assert_true(check_v2(a, &v, secret, VECTOR_NOW_MS, &e) < 0);
		v = sigv2_vectors[i];
		v.method = "DELETE";
		assert_true(check_v2(a, &v, secret, VECTOR_NOW_MS, &e) < 0);
		v = sigv2_vectors[i];
		v.query = arena_printf(a, "%s&tagging", v.query);
		assert_true(check_v2(a, &v, secret, VECTOR_NOW_MS, &e) < 0);
		arena_free(a);
	}
}

static void escapes_have_one_form(void **state)
{
	static const struct {
		const char *in, *out;
		bool keep_slash, plus_is_space;
	} cases[] = {
	    {"/a%7eb%2fc%3a", "/a~b%2Fc%3A", true, false}, {"/a+b c", "/a%2Bb%20c", true, false},
	    {"a+b/c%", "a%20b%2Fc%25", false, true},	   {"%zz%4", "%25zz%254", false, false},
	    {"\xc3\xa9", "%C3%A9", false, false},	   {"", "", false, false},
	};
	struct arena *a = arena_new();

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(sigv4_normalise(a, cases[i].in, strlen(cases[i].in),
						    cases[i].keep_slash, cases[i].plus_is_space),
				    cases[i].out);
	arena_free(a);
}

/* What we sign ourselves passes our own check, and only with the right secret and within its time.
 */
static void own_signatures_are_accepted(void **state)
{
	static const char *const urls[] = {"http://127.0.0.1:8774/images/a%20b/%C3%A9?x=1&a=%2F&b",
					   "https://h:443", "http://h?q=1", "http://h:80/k#f"};
	struct secret secret = secret_new(VECTOR_SECRET);

	for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
		struct arena *a = arena_new();
		const char **lines = sigv4_sign(a, VECTOR_KEY_ID, &secret, "us-east-1", "s3", "PUT",
						urls[i], "hello", 5, VECTOR_NOW_MS);
		const char *headers[12] = {"Host", i == 0 ? "127.0.0.1:8774" : "h"};
		const char *query = strchr(urls[i], '?'),
			   *path = strchr(strstr(urls[i], "//") + 2, '/');
		struct fake f = {headers};
		struct error e = {0};
		struct sigv4_source src;

		for (size_t n = 0; lines[n]; n++) {
			headers[2 + 2 * n] = arena_strndup(a, lines[n], strcspn(lines[n], ":"));
			headers[3 + 2 * n] = strchr(lines[n], ':') + 2;
		}
		src = source(&f, "PUT", path ? arena_strndup(a, path, strcspn(path, "?#")) : "/",
			     query ? query + 1 : "");
		if (check(a, &src, VECTOR_SECRET, true, VECTOR_NOW_MS, NULL, &e) < 0)
			fail_msg("%s: %s: %s", urls[i], e.code, e.message);
		assert_true(check(a, &src, "another", true, VECTOR_NOW_MS, NULL, &e) < 0);
		arena_free(a);
	}
	secret_done(&secret);
}

static void own_presigned_urls_are_accepted(void **state)
{
	struct secret secret = secret_new(VECTOR_SECRET);
	struct arena *a = arena_new();
	const char *url =
	    sigv4_presign(a, VECTOR_KEY_ID, &secret, "us-east-1", "s3", "GET",
			  "http://127.0.0.1:8774/images/a%20b?versionId=null", 600, VECTOR_NOW_MS);
	const char *headers[] = {"Host", "127.0.0.1:8774", NULL};
	struct fake f = {headers};
	struct error e = {0};
	struct sigv4_source src = source(&f, "GET", "/images/a%20b", strchr(url, '?') + 1);

	assert_true(
	    str_prefix(url, "http://127.0.0.1:8774/images/a%20b?versionId=null&X-Amz-Algorithm="));
	assert_int_equal(check(a, &src, VECTOR_SECRET, true, VECTOR_NOW_MS + 600000, NULL, &e), 0);
	assert_true(check(a, &src, VECTOR_SECRET, true, VECTOR_NOW_MS + 601000, NULL, &e) < 0);
	assert_string_equal(e.code, "AccessDenied");
	assert_string_equal(e.message, "Request has expired");
	error_clear(&e);
	src.method = "PUT";
	assert_true(check(a, &src, VECTOR_SECRET, true, VECTOR_NOW_MS, NULL, &e) < 0);
	assert_string_equal(e.code, "SignatureDoesNotMatch");
	secret_done(&secret);
	arena_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_botocore_signs_is_accepted),
	    cmocka_unit_test(another_secret_is_refused),
	    cmocka_unit_test(changed_requests_are_refused),
	    cmocka_unit_test(documented_examples),
	    cmocka_unit_test(documented_signing_key),
	    cmocka_unit_test(faults_have_their_codes),
	    cmocka_unit_test(version_2_presigned_urls),
	    cmocka_unit_test(escapes_have_one_form),
	    cmocka_unit_test(own_signatures_are_accepted),
	    cmocka_unit_test(own_presigned_urls_are_accepted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
