/* SPDX-License-Identifier: Apache-2.0 */
#include "block/core/nbd_proto.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/macros.h"

static void test_request(void **state)
{
	static const uint8_t wire[] = { 0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0x20, 0 };
	struct nbd_request r = { 0 }, want = { NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, 0x0102030405060708, 0x100001000, 0x2000 };
	uint8_t out[NBD_REQUEST_BYTES];

	assert_int_equal(sizeof(wire), NBD_REQUEST_BYTES);
	assert_int_equal(nbd_request_decode(wire, &r), 0);
	assert_true(r.flags == want.flags && r.command == want.command && r.cookie == want.cookie && r.offset == want.offset &&
		    r.length == want.length);
	assert_int_equal(nbd_request_encode(&r, out), sizeof(wire));
	assert_memory_equal(out, wire, sizeof(wire));
	out[0] ^= 1;
	assert_int_equal(nbd_request_decode(out, &r), -EPROTO);
}

static void test_replies(void **state)
{
	uint8_t out[64];
	struct nbd_reply r;

	nbd_simple_reply_encode(&(struct nbd_simple_reply){ 28, 77 }, out);
	assert_int_equal(nbd_reply_decode(out, NBD_SIMPLE_REPLY_BYTES, &r), NBD_SIMPLE_REPLY_BYTES);
	assert_false(r.structured);
	assert_int_equal(r.error, 28);
	assert_int_equal(r.cookie, 77);

	assert_int_equal(nbd_chunk_data_encode(5, true, 4096, 512, out), NBD_CHUNK_DATA_BYTES);
	assert_int_equal(nbd_reply_decode(out, 19, &r), 0);
	assert_int_equal(nbd_reply_decode(out, 20, &r), NBD_CHUNK_BYTES);
	assert_true(r.structured && r.type == NBD_CHUNK_DATA && r.flags == NBD_CHUNK_DONE && r.length == 520 && r.cookie == 5);
	assert_int_equal(nbd_get64(out + 20), 4096);

	nbd_chunk_hole_encode(5, false, 4096, 512, out);
	assert_int_equal(nbd_reply_decode(out, 20, &r), NBD_CHUNK_BYTES);
	assert_true(r.type == NBD_CHUNK_HOLE && !r.flags);
	nbd_chunk_error_encode(5, 22, out);
	assert_int_equal(nbd_reply_decode(out, 20, &r), NBD_CHUNK_BYTES);
	assert_true(r.type == NBD_CHUNK_ERROR && r.flags == NBD_CHUNK_DONE && r.length == 6);
}

static void test_chunks_that_cannot_be(void **state)
{
	static const struct nbd_chunk bad[] = {
		{ NBD_CHUNK_DONE, NBD_CHUNK_NONE, 1, 4 },      { 0, NBD_CHUNK_NONE, 1, 0 },
		{ NBD_CHUNK_DONE, NBD_CHUNK_DATA, 1, 8 },      { NBD_CHUNK_DONE, NBD_CHUNK_DATA, 1, NBD_PAYLOAD_MAX + 9 },
		{ NBD_CHUNK_DONE, NBD_CHUNK_HOLE, 1, 11 },     { NBD_CHUNK_DONE, NBD_CHUNK_BLOCK_STATUS, 1, 4 },
		{ NBD_CHUNK_DONE, NBD_CHUNK_BLOCK_STATUS, 1, 16 }, { NBD_CHUNK_DONE, NBD_CHUNK_ERROR, 1, 5 },
		{ NBD_CHUNK_DONE, NBD_CHUNK_ERROR_OFFSET, 1, 13 }, { NBD_CHUNK_DONE, 0x8009, 1, 0 },
	};
	uint8_t out[NBD_CHUNK_BYTES];
	struct nbd_reply r;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		nbd_chunk_encode(&bad[i], out);
		assert_int_equal(nbd_reply_decode(out, sizeof(out), &r), -EPROTO);
	}
	memset(out, 0, sizeof(out));
	assert_int_equal(nbd_reply_decode(out, sizeof(out), &r), -EPROTO);
}

static void test_errors(void **state)
{
	static const int kept[] = { -EPERM, -EIO, -ENOMEM, -EINVAL, -ENOSPC, -EOVERFLOW, -EOPNOTSUPP, -ESHUTDOWN, 0 };

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		assert_int_equal(nbd_errno_decode(nbd_errno(kept[i])), kept[i]);
	assert_int_equal(nbd_errno(-EROFS), 1);
	assert_int_equal(nbd_errno(-EFBIG), 28);
	assert_int_equal(nbd_errno(-ECONNRESET), 5);
	assert_int_equal(nbd_errno_decode(12345), -EIO);
}

static void test_go(void **state)
{
	static const uint8_t data[] = { 0, 0, 0, 2, 'a', 'b', 0, 2, 0, 3, 0x12, 0x34 };
	struct nbd_text name;
	unsigned infos;

	assert_int_equal(nbd_parse_go(data, sizeof(data), &name, &infos), 0);
	assert_true(nbd_text_is(name, "ab"));
	assert_false(nbd_text_is(name, "abc"));
	assert_int_equal(infos, 1 << NBD_INFO_BLOCK_SIZE);
	for (size_t len = 0; len < sizeof(data); len++) {
		uint8_t *part = malloc(len ? len : 1); /* so that reading beyond it is seen */
		memcpy(part, data, len);
		assert_int_equal(nbd_parse_go(part, len, &name, &infos), -EINVAL);
		free(part);
	}
	static const uint8_t nul[] = { 0, 0, 0, 2, 'a', 0, 0, 0 }, bad_utf8[] = { 0, 0, 0, 1, 0xff, 0, 0 };
	assert_int_equal(nbd_parse_go(nul, sizeof(nul), &name, &infos), -EINVAL);
	assert_int_equal(nbd_parse_go(bad_utf8, sizeof(bad_utf8), &name, &infos), -EINVAL);
}

static void test_meta(void **state)
{
	static const uint8_t data[] = { 0, 0, 0, 1, 'x', 0, 0, 0, 2, 0, 0, 0, 5, 'b', 'a', 's', 'e', ':', 0, 0, 0, 1, 'q' };
	struct nbd_meta_queries q;
	struct nbd_text text;

	assert_int_equal(nbd_parse_meta(data, sizeof(data), &q), 0);
	assert_true(nbd_text_is(q.name, "x"));
	assert_int_equal(q.count, 2);
	assert_true(nbd_next_query(&q, &text) && nbd_text_is(text, "base:"));
	assert_true(nbd_next_query(&q, &text) && nbd_text_is(text, "q"));
	assert_false(nbd_next_query(&q, &text));
	for (size_t len = 0; len < sizeof(data); len++)
		assert_int_equal(nbd_parse_meta(data, len, &q), -EINVAL);
	uint8_t more[sizeof(data) + 1] = { 0 };
	memcpy(more, data, sizeof(data));
	assert_int_equal(nbd_parse_meta(more, sizeof(more), &q), -EINVAL);
}

static void test_options(void **state)
{
	uint8_t out[NBD_OPTION_REPLY_BYTES];
	struct nbd_option_reply r;
	uint32_t option, length;

	nbd_option_encode(NBD_OPT_GO, 6, out);
	assert_int_equal(nbd_option_decode(out, &option, &length), 0);
	assert_true(option == NBD_OPT_GO && length == 6);
	assert_memory_equal(out, "IHAVEOPT", 8);
	out[7] = 'X';
	assert_int_equal(nbd_option_decode(out, &option, &length), -EPROTO);
	nbd_option_reply_encode(&(struct nbd_option_reply){ NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, 3 }, out);
	assert_int_equal(nbd_option_reply_decode(out, &r), 0);
	assert_true(r.option == NBD_OPT_GO && r.type == NBD_REP_ERR_UNKNOWN && r.length == 3);
	out[0] = 1;
	assert_int_equal(nbd_option_reply_decode(out, &r), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request), cmocka_unit_test(test_replies), cmocka_unit_test(test_chunks_that_cannot_be),
		cmocka_unit_test(test_errors),  cmocka_unit_test(test_go),      cmocka_unit_test(test_meta),
		cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
