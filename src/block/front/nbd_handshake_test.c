/* SPDX-License-Identifier: Apache-2.0 */
#include "block/front/nbd_handshake.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int find_export(void *ctx, const char *name, struct nbd_export *ret)
{
	if (*name && strcmp(name, "snap/a") != 0)
		return -ENOENT;
	*ret = (struct nbd_export){ .size_bytes = 1 << 20, .flags = NBD_SEND_FLUSH, .minimum = 512, .preferred = 4096, .has_changed = *name };
	return 0;
}

static void begin(struct nbd_handshake *h, enum nbd_tls_mode tls)
{
	uint8_t flags[4];
	size_t used;

	*h = (struct nbd_handshake){ .exports = find_export, .tls = tls };
	nbd_handshake_init(h);
	assert_int_equal(h->out.len, 18);
	assert_memory_equal(h->out.data, "NBDMAGICIHAVEOPT\0\3", 18);
	buf_reset(&h->out);
	nbd_put32(flags, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	assert_int_equal(nbd_handshake_feed(h, flags, 3, &used), NBD_STEP_MORE);
	assert_int_equal(used, 0);
	assert_int_equal(nbd_handshake_feed(h, flags, 4, &used), NBD_STEP_MORE);
	assert_int_equal(used, 4);
}

/* One option, handed over byte by byte more: its step. */
static enum nbd_step option(struct nbd_handshake *h, uint32_t option, const void *data, size_t len)
{
	uint8_t *wire = malloc(NBD_OPTION_BYTES + len);
	size_t at = 0, have = 0, used;
	enum nbd_step step = NBD_STEP_MORE;

	nbd_option_encode(option, (uint32_t)len, wire);
	if (len)
		memcpy(wire + NBD_OPTION_BYTES, data, len);
	while (step == NBD_STEP_MORE && at < NBD_OPTION_BYTES + len) {
		have += have < NBD_OPTION_BYTES + len;
		step = nbd_handshake_feed(h, wire + at, have - at, &used);
		at += used;
	}
	free(wire);
	return step;
}

/* The type of the next reply; its data in *ret. */
static uint32_t next_reply(struct nbd_handshake *h, size_t *at, const uint8_t **ret, uint32_t *ret_len)
{
	struct nbd_option_reply r;

	assert_true(h->out.len - *at >= NBD_OPTION_REPLY_BYTES);
	assert_int_equal(nbd_option_reply_decode((uint8_t *)h->out.data + *at, &r), 0);
	*at += NBD_OPTION_REPLY_BYTES;
	assert_true(h->out.len - *at >= r.length);
	*ret = (uint8_t *)h->out.data + *at;
	*ret_len = r.length;
	*at += r.length;
	return r.type;
}

static uint32_t only_reply(struct nbd_handshake *h)
{
	const uint8_t *data;
	size_t at = 0;
	uint32_t len, type = next_reply(h, &at, &data, &len);

	assert_int_equal(at, h->out.len);
	buf_reset(&h->out);
	return type;
}

static const uint8_t go_default[] = { 0, 0, 0, 0, 0, 1, 0, 3 };
static const uint8_t go_other[] = { 0, 0, 0, 1, 'x', 0, 0 };
static const uint8_t meta_default[] = { 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 15, 'b', 'a', 's', 'e', ':', 'a', 'l', 'l', 'o', 'c', 'a', 't', 'i', 'o', 'n' };

static void test_go(void **state)
{
	struct nbd_handshake h;
	struct nbd_export x;
	const uint8_t *data;
	uint32_t len;
	size_t at = 0;

	begin(&h, NBD_TLS_OFF);
	assert_int_equal(option(&h, NBD_OPT_GO, go_other, sizeof(go_other)), NBD_STEP_MORE);
	assert_int_equal(only_reply(&h), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(option(&h, NBD_OPT_GO, go_default, 5), NBD_STEP_MORE);
	assert_int_equal(only_reply(&h), NBD_REP_ERR_INVALID);
	assert_int_equal(option(&h, 4711, go_default, 5), NBD_STEP_MORE);
	assert_int_equal(only_reply(&h), NBD_REP_ERR_UNSUP);
	assert_int_equal(option(&h, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_STEP_MORE);
	assert_int_equal(only_reply(&h), NBD_REP_ACK);
	assert_int_equal(option(&h, NBD_OPT_GO, go_default, sizeof(go_default)), NBD_STEP_ADMIT);
	assert_int_equal(h.out.len, 0);
	find_export(NULL, h.name, &x);
	assert_int_equal(nbd_handshake_admit(&h, &x), 0); /* no context was chosen */
	assert_int_equal(next_reply(&h, &at, &data, &len), NBD_REP_INFO);
	assert_int_equal(len, 12);
	assert_int_equal(nbd_get64(data + 2), 1 << 20);
	assert_int_equal(nbd_get16(data + 10), NBD_SEND_FLUSH | NBD_HAS_FLAGS | NBD_SEND_DF);
	assert_int_equal(next_reply(&h, &at, &data, &len), NBD_REP_INFO);
	assert_int_equal(nbd_get16(data), NBD_INFO_BLOCK_SIZE);
	assert_int_equal(nbd_get32(data + 2), 512);
	assert_int_equal(nbd_get32(data + 10), NBD_PAYLOAD_MAX);
	assert_int_equal(next_reply(&h, &at, &data, &len), NBD_REP_ACK);
	nbd_handshake_done(&h);
}

static void test_export_name(void **state)
{
	struct nbd_handshake h;
	struct nbd_export x;

	begin(&h, NBD_TLS_OFF);
	assert_int_equal(option(&h, NBD_OPT_EXPORT_NAME, "x", 1), NBD_STEP_DROP);
	nbd_handshake_done(&h);
	begin(&h, NBD_TLS_OFF);
	assert_int_equal(option(&h, NBD_OPT_EXPORT_NAME, "snap/a", 6), NBD_STEP_ADMIT);
	assert_string_equal(h.name, "snap/a");
	find_export(NULL, h.name, &x);
	nbd_handshake_admit(&h, &x);
	assert_int_equal(h.out.len, 10); /* NO_ZEROES */
	assert_int_equal(nbd_get16(h.out.data + 8), NBD_SEND_FLUSH | NBD_HAS_FLAGS);
	nbd_handshake_done(&h);
}

static void test_meta(void **state)
{
	static const uint8_t list_all[] = { 0, 0, 0, 6, 's', 'n', 'a', 'p', '/', 'a', 0, 0, 0, 0 };
	struct nbd_handshake h;
	struct nbd_export x;
	const uint8_t *data;
	uint32_t len;
	size_t at = 0;

	begin(&h, NBD_TLS_OFF);
	option(&h, NBD_OPT_SET_META_CONTEXT, meta_default, sizeof(meta_default));
	assert_int_equal(only_reply(&h), NBD_REP_ERR_INVALID); /* no structured replies */
	option(&h, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	only_reply(&h);
	option(&h, NBD_OPT_LIST_META_CONTEXT, list_all, sizeof(list_all));
	assert_int_equal(next_reply(&h, &at, &data, &len), NBD_REP_META_CONTEXT);
	assert_memory_equal(data + 4, NBD_META_ALLOCATION, len - 4);
	assert_int_equal(next_reply(&h, &at, &data, &len), NBD_REP_META_CONTEXT);
	assert_memory_equal(data + 4, NBD_META_CHANGED, len - 4);
	assert_int_equal(next_reply(&h, &at, &data, &len), NBD_REP_ACK);
	buf_reset(&h.out);
	option(&h, NBD_OPT_SET_META_CONTEXT, meta_default, sizeof(meta_default));
	at = 0;
	assert_int_equal(next_reply(&h, &at, &data, &len), NBD_REP_META_CONTEXT);
	assert_int_equal(nbd_get32(data), 1);
	buf_reset(&h.out);
	option(&h, NBD_OPT_EXPORT_NAME, "", 0);
	find_export(NULL, "", &x);
	assert_int_equal(nbd_handshake_admit(&h, &x), NBD_META_BIT_ALLOCATION);
	/* chosen for another export: none */
	option(&h, NBD_OPT_EXPORT_NAME, "snap/a", 6);
	assert_int_equal(nbd_handshake_admit(&h, &x), 0);
	nbd_handshake_done(&h);
}

static void test_tls_required(void **state)
{
	struct nbd_handshake h;

	begin(&h, NBD_TLS_REQUIRE);
	option(&h, NBD_OPT_LIST, NULL, 0);
	assert_int_equal(only_reply(&h), NBD_REP_ERR_TLS_REQD);
	option(&h, NBD_OPT_GO, go_default, sizeof(go_default));
	assert_int_equal(only_reply(&h), NBD_REP_ERR_TLS_REQD);
	assert_int_equal(option(&h, NBD_OPT_STARTTLS, "x", 1), NBD_STEP_MORE);
	assert_int_equal(only_reply(&h), NBD_REP_ERR_INVALID);
	assert_int_equal(option(&h, NBD_OPT_STARTTLS, NULL, 0), NBD_STEP_TLS);
	assert_int_equal(only_reply(&h), NBD_REP_ACK);
	h.structured = true;
	nbd_handshake_secured(&h);
	assert_false(h.structured);
	option(&h, NBD_OPT_STARTTLS, NULL, 0);
	assert_int_equal(only_reply(&h), NBD_REP_ERR_INVALID);
	assert_int_equal(option(&h, NBD_OPT_GO, go_default, sizeof(go_default)), NBD_STEP_ADMIT);
	nbd_handshake_done(&h);
	begin(&h, NBD_TLS_REQUIRE);
	assert_int_equal(option(&h, NBD_OPT_EXPORT_NAME, "", 0), NBD_STEP_DROP);
	nbd_handshake_done(&h);
	begin(&h, NBD_TLS_OFF);
	option(&h, NBD_OPT_STARTTLS, NULL, 0);
	assert_int_equal(only_reply(&h), NBD_REP_ERR_POLICY);
	assert_int_equal(option(&h, NBD_OPT_ABORT, NULL, 0), NBD_STEP_CLOSE);
	assert_int_equal(only_reply(&h), NBD_REP_ACK);
	nbd_handshake_done(&h);
}

static void test_limits(void **state)
{
	_cleanup_(freep) char *big = calloc(1, 70000);
	struct nbd_handshake h;
	uint8_t flags[4];
	size_t used;

	begin(&h, NBD_TLS_OFF);
	assert_int_equal(option(&h, NBD_OPT_GO, big, NBD_HANDSHAKE_DATA_MAX + 1), NBD_STEP_MORE);
	assert_int_equal(only_reply(&h), NBD_REP_ERR_TOO_BIG);
	assert_int_equal(option(&h, NBD_OPT_GO, go_default, sizeof(go_default)), NBD_STEP_ADMIT);
	nbd_handshake_done(&h);
	begin(&h, NBD_TLS_OFF);
	assert_int_equal(option(&h, NBD_OPT_GO, big, 70000), NBD_STEP_DROP);
	nbd_handshake_done(&h);
	begin(&h, NBD_TLS_OFF);
	for (unsigned i = 0; i < NBD_HANDSHAKE_OPTIONS_MAX; i++)
		assert_int_equal(option(&h, NBD_OPT_LIST, NULL, 0), NBD_STEP_MORE);
	assert_int_equal(option(&h, NBD_OPT_LIST, NULL, 0), NBD_STEP_DROP);
	nbd_handshake_done(&h);
	static const uint32_t bad[] = { 0, NBD_FLAG_NO_ZEROES, 4 | NBD_FLAG_FIXED_NEWSTYLE };
	for (unsigned i = 0; i < 3; i++) {
		h = (struct nbd_handshake){ .exports = find_export };
		nbd_put32(flags, bad[i]);
		assert_int_equal(nbd_handshake_feed(&h, flags, 4, &used), NBD_STEP_DROP);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_go), cmocka_unit_test(test_export_name), cmocka_unit_test(test_meta),
		cmocka_unit_test(test_tls_required), cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
