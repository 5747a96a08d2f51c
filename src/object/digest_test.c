/* SPDX-License-Identifier: Apache-2.0 */
#include "object/test_util_priv.h"

#include "base/text.h"
#include "object/digest.h"

/* The check values that each algorithm's catalogue gives for the text 123456789. */
static const struct {
	enum digest_kind kind;
	const char *hex;
} known[] = {
    {DIGEST_MD5, "25f9e794323b453885f5181f1b624d0b"},
    {DIGEST_SHA1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"},
    {DIGEST_SHA256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"},
    {DIGEST_CRC32, "cbf43926"},
    {DIGEST_CRC32C, "e3069283"},
    {DIGEST_CRC64NVME, "ae8b14860a799888"},
};

static void test_known(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		unsigned char out[DIGEST_MAX];
		char hex[2 * DIGEST_MAX + 1];

		hex_encode(out, digest_once(known[i].kind, "123456789", 9, out), hex);
		assert_string_equal(hex, known[i].hex);
	}
}

static void test_pieces_equal_whole(void **state)
{
	unsigned char data[100003], whole[DIGEST_MAX], pieces[DIGEST_MAX];
	_cleanup_(digest_set_freep) struct digest_set *d =
	    digest_set_new(DIGEST_BIT(DIGEST_COUNT) - 1);

	pattern_fill(data, sizeof(data), 0, 7);
	for (size_t off = 0, n = 1; off < sizeof(data); off += n, n = n * 2 % 7919 + 1) {
		n = MIN_OF(n, sizeof(data) - off);
		digest_set_update(d, data + off, n);
	}
	for (int k = 0; k < DIGEST_COUNT; k++) {
		size_t len = digest_once(k, data, sizeof(data), whole);

		assert_int_equal(digest_set_get(d, k, pieces), len);
		assert_memory_equal(whole, pieces, len);
	}
}

static void test_crc_combine(void **state)
{
	static const enum digest_kind crcs[] = {DIGEST_CRC32, DIGEST_CRC32C, DIGEST_CRC64NVME};
	unsigned char data[5000], a[DIGEST_MAX], b[DIGEST_MAX], whole[DIGEST_MAX];

	pattern_fill(data, sizeof(data), 0, 3);
	for (size_t k = 0; k < ARRAY_SIZE(crcs); k++)
		for (size_t cut = 0; cut <= sizeof(data); cut += 625) {
			size_t len = digest_once(crcs[k], data, sizeof(data), whole);

			digest_once(crcs[k], data, cut, a);
			digest_once(crcs[k], data + cut, sizeof(data) - cut, b);
			digest_crc_combine(crcs[k], a, b, sizeof(data) - cut, a);
			assert_memory_equal(a, whole, len);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_known),
	    cmocka_unit_test(test_pieces_equal_whole),
	    cmocka_unit_test(test_crc_combine),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
