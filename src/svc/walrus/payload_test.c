/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "svc/walrus/payload_priv.h"

/* The worked example of Amazon's documentation of chunked uploads: 66,560 letters a in chunks of 64
 * KiB and 1 KiB. */
#define SEED "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
#define FIRST "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"
#define SECOND "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"
#define LAST "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"

static struct payload *make(struct arena *a, const char *kind)
{
	struct secret secret = secret_new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
	struct sigv4_auth auth = {
	    .date = "20130524",
	    .region = "us-east-1",
	    .service = "s3",
	    .signature = SEED,
	    .payload_hash = kind,
	};
	unsigned char key[SIGV4_KEY_LEN];
	struct payload *p = NULL;
	struct error e = {0};

	sigv4_signing_key(&secret, auth.date, auth.region, auth.service, key);
	secret_done(&secret);
	assert_int_equal(clock_parse("20130524T000000Z", &auth.time_ms), 0);
	assert_int_equal(payload_new(a, &auth, key, &p, &e), 0);
	return p;
}

static void add_chunk(struct buf *b, size_t len, const char *signature)
{
	buf_printf(b, "%zx;chunk-signature=%s\r\n", len, signature);
	for (size_t i = 0; i < len; i++)
		buf_putc(b, 'a');
	buf_puts(b, "\r\n");
}

static struct buf example(void)
{
	struct buf b = BUF_INIT;

	add_chunk(&b, 65536, FIRST);
	add_chunk(&b, 1024, SECOND);
	add_chunk(&b, 0, LAST);
	return b;
}

static int collect(void *ctx, const void *data, size_t len, struct error *e)
{
	buf_append(ctx, data, len);
	return 0;
}

/* Feeds the body in pieces of `step` bytes; the error's code, or NULL when all went well. */
static const char *feed(struct arena *a, const char *kind, const struct buf *body, size_t step,
			struct buf *out, struct payload **ret)
{
	struct error *e = arena_alloc(a, sizeof(*e));
	struct payload *p = make(a, kind);
	int r = 0;

	for (size_t off = 0; off < body->len && r >= 0; off += step)
		r = payload_feed(p, body->data + off, MIN_OF(step, body->len - off), collect, out,
				 e);
	if (r >= 0)
		r = payload_finish(p, e);
	payload_done(p);
	if (ret)
		*ret = p;
	return r < 0 ? e->code : NULL;
}

#define SIGNED "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
#define TRAILER "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

static void test_example(void **state)
{
	static const size_t steps[] = {1, 7, 100, 65536, 1000000};
	struct buf body = example();

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		_cleanup_(arena_freep) struct arena *a = arena_new();
		struct buf out = BUF_INIT;

		assert_null(feed(a, SIGNED, &body, steps[i], &out, NULL));
		assert_int_equal(out.len, 66560);
		assert_int_equal(strspn(out.data, "a"), 66560);
		buf_done(&out);
	}
	buf_done(&body);
}

/* Whatever single byte is changed or cut off, the body is refused. */
static void test_every_damage(void **state)
{
	struct buf body = example();

	for (size_t at = 0; at < body.len; at += at < 200 || at > body.len - 300 ? 1 : 4999) {
		_cleanup_(arena_freep) struct arena *a = arena_new();
		struct buf out = BUF_INIT, cut = {.data = body.data, .len = at};
		char kept = body.data[at];

		body.data[at] ^= 0x11;
		if (!feed(a, SIGNED, &body, 4096, &out, NULL))
			assert_true(kept == '\r'); /* a line may end without it */
		body.data[at] = kept;
		/* The last chunk's own line is the end; the empty line behind it adds nothing. */
		if (at < body.len - 3)
			assert_string_equal(feed(a, SIGNED, &cut, 4096, &out, NULL),
					    "IncompleteBody");
		buf_done(&out);
	}
	buf_done(&body);
}

static void test_trailers(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct buf body = BUF_INIT, out = BUF_INIT;
	struct payload *p;

	buf_puts(&body, "5\r\nhello\r\n0\r\nX-Amz-Checksum-CRC32: \tabc= \r\n\r\n");
	for (size_t step = 1; step < body.len + 1; step += 3) {
		buf_reset(&out);
		assert_null(feed(a, TRAILER, &body, step, &out, &p));
		assert_string_equal(out.data, "hello");
		assert_int_equal(payload_trailers(p)->count, 1);
		assert_string_equal(payload_trailers(p)->items[0].key, "x-amz-checksum-crc32");
		assert_string_equal(payload_trailers(p)->items[0].value, "abc=");
	}
	buf_done(&body);
	buf_done(&out);
}

static void test_malformed(void **state)
{
	static const struct {
		const char *kind, *text, *code;
	} cases[] = {
	    {TRAILER, "", "IncompleteBody"},
	    {TRAILER, "5\r\nhel", "IncompleteBody"},
	    {TRAILER, "5\r\nhello\r\n", "IncompleteBody"},
	    {TRAILER, "5\r\nhello0\r\n", "InvalidRequest"},
	    {TRAILER, "\r\n", "InvalidRequest"},
	    {TRAILER, "-5\r\n", "InvalidRequest"},
	    {TRAILER, "0x5\r\n", "InvalidRequest"},
	    {TRAILER, "ffffffffffffffff\r\n", "InvalidRequest"},
	    {TRAILER, "0\r\nno trailer\r\n", "InvalidRequest"},
	    {TRAILER, "0\r\n:x\r\n", "InvalidRequest"},
	    {TRAILER, "0\r\n\r\nmore", "InvalidRequest"},
	    {TRAILER, "0\r\na:1\r\nb:1\r\nc:1\r\nd:1\r\ne:1\r\nf:1\r\ng:1\r\nh:1\r\ni:1\r\n",
	     "InvalidRequest"},
	    {SIGNED, "0\r\n\r\n", "InvalidRequest"},
	    {SIGNED, "0;chunk-signature=" LAST "0\r\n", "InvalidRequest"},
	    {SIGNED, "0;chunk-signature=" LAST "\r\n\r\n", "SignatureDoesNotMatch"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(arena_freep) struct arena *a = arena_new();
		struct buf out = BUF_INIT, body = BUF_INIT;
		const char *code;

		buf_puts(&body, cases[i].text);
		code = feed(a, cases[i].kind, &body, 3, &out, NULL);
		assert_non_null(code);
		assert_string_equal(code, cases[i].code);
		buf_done(&body);
		buf_done(&out);
	}
}

/* A signature of Version 2 is shorter, and there is nothing that chunks could go on from. */
static void test_version_2(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct sigv4_auth auth = {
	    .date = "20130524", .region = "", .service = "s3", .signature = "c2hvcnQ="};
	unsigned char key[SIGV4_KEY_LEN] = {0};
	struct payload *p = NULL;
	struct error e = {0};

	assert_int_equal(payload_new(a, &auth, key, &p, &e), 0);
	assert_int_equal(payload_kind(p), PAYLOAD_UNSIGNED);
	payload_done(p);
	auth.payload_hash = SIGNED;
	assert_true(payload_new(a, &auth, key, &p, &e) < 0);
	assert_string_equal(e.code, "InvalidRequest");
}

static void test_long_line(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct buf body = BUF_INIT, out = BUF_INIT;

	for (int i = 0; i < 100000; i++)
		buf_putc(&body, '1');
	assert_string_equal(feed(a, TRAILER, &body, 10, &out, NULL), "InvalidRequest");
	buf_done(&body);
	buf_done(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_example),   cmocka_unit_test(test_every_damage),
	    cmocka_unit_test(test_trailers),  cmocka_unit_test(test_malformed),
	    cmocka_unit_test(test_long_line), cmocka_unit_test(test_version_2),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
