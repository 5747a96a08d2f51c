/* SPDX-License-Identifier: Apache-2.0 */
/* AES-256-XTS against the vectors of IEEE 1619 and against Nettle's. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <nettle/xts.h>

#include "base/macros.h"
#include "block/core/request.h"
#include "block/filter/xts_priv.h"

/* Vectors 10 to 14: digits of e and pi. */
static const char vector_key[] = "2718281828459045235360287471352662497757247093699959574966967627"
				 "3141592653589793238462643383279502884197169399375105820974944592";
static const struct {
	uint64_t sector;
	const char *first, *last; /* 16 bytes of 512 */
} vectors[] = {
	{ 0xff, "1c3b3a102f770386e4836c99e370cf9b", "c4f36ffda9fcea70b9c6e693e148c151" },
	{ 0xffff, "77a31251618a15e6b92d1d66dffe7b50", "a4f9e27b42af8100cb9d59cef9645803" },
	{ 0xffffff, "e387aaa58ba483afa7e8eb469778317e", "2263a1eef52dd6888c309f5a7d712826" },
	{ 0xffffffff, "bf53d2dade78e822a4d949a9bc6766b0", "4c82f335abb152c4a93411373aaa8220" },
	{ 0xffffffffff, "64497e5a831e4a932c09be3e5393376d", "d609d273ad5b0d59631c531f6a0a57b9" },
};

static void unhex(const char *text, uint8_t *to)
{
	for (size_t i = 0; text[2 * i]; i++)
		to[i] = (uint8_t)strtoul((char[]){ text[2 * i], text[2 * i + 1], 0 }, NULL, 16);
}

static struct xts *open_key(const char *text, uint32_t sector_bytes, unsigned lanes)
{
	uint8_t key[XTS_KEY_BYTES];
	struct xts *x;

	unhex(text, key);
	assert_int_equal(xts_new(key, sector_bytes, lanes, &x), 0);
	return x;
}

static void test_vectors(void **state)
{
	struct xts *x = open_key(vector_key, 512, 1);
	uint8_t plain[512], cipher[512], wanted[16];
	struct iovec iov = { cipher, sizeof(cipher) };

	for (unsigned i = 0; i < sizeof(plain); i++)
		plain[i] = (uint8_t)i;
	for (unsigned i = 0; i < ARRAY_SIZE(vectors); i++) {
		assert_int_equal(xts_encrypt(x, 0, vectors[i].sector * 512, plain, cipher, sizeof(plain)), 0);
		unhex(vectors[i].first, wanted);
		assert_memory_equal(cipher, wanted, sizeof(wanted));
		unhex(vectors[i].last, wanted);
		assert_memory_equal(cipher + 496, wanted, sizeof(wanted));
		assert_int_equal(xts_decrypt_iov(x, 0, vectors[i].sector * 512, &iov, 1, 0, sizeof(cipher)), 0);
		assert_memory_equal(cipher, plain, sizeof(plain));
	}
	xts_free(x);
	xts_free(NULL);
}

/* Sector by sector, the tweak counted in units of 512 bytes. */
static void nettle(const uint8_t *key, uint64_t off, uint32_t sector_bytes, const uint8_t *from, uint8_t *to, size_t bytes)
{
	struct xts_aes256_key k;

	xts_aes256_set_encrypt_key(&k, key);
	for (size_t at = 0; at < bytes; at += sector_bytes) {
		uint8_t tweak[16] = { 0 };
		for (unsigned i = 0; i < 8; i++)
			tweak[i] = (uint8_t)((off + at) / 512 >> 8 * i);
		xts_aes256_encrypt_message(&k, tweak, sector_bytes, to + at, from + at);
	}
}

/* Cuts memory at random places, some inside sectors, some elements empty. */
static unsigned cut(uint8_t *memory, size_t len, struct iovec *iov, unsigned max)
{
	unsigned n = 0;

	while (len) {
		size_t most = rand() % 3 ? 700 : 9000, some = n + 1 == max ? len : MIN_OF(len, (size_t)rand() % most);
		iov[n++] = (struct iovec){ memory, some };
		memory += some;
		len -= some;
	}
	return n;
}

static void test_pieces(void **state)
{
	enum { BYTES = 64 << 10 };
	static uint8_t plain[BYTES], copy[BYTES], cipher[BYTES], wanted[BYTES];
	uint8_t key[XTS_KEY_BYTES];
	struct iovec iov[64];

	srand(7);
	for (unsigned round = 0; round < 400; round++) {
		uint32_t sector = round % 2 ? 512 : 4096;
		struct xts *x;
		for (unsigned i = 0; i < sizeof(key); i++)
			key[i] = (uint8_t)rand();
		for (unsigned i = 0; i < BYTES; i += 8)
			memcpy(plain + i, &(uint64_t){ (uint64_t)rand() * (uint64_t)rand() }, 8);
		assert_int_equal(xts_new(key, sector, 3, &x), 0);
		uint64_t off = ((uint64_t)rand() << 20 | (uint64_t)rand()) * 4096;
		size_t skip = (size_t)(rand() % 8) * 4096, len = 4096 + (size_t)(rand() % 7) * 4096;
		nettle(key, off, sector, plain + skip, wanted, len);
		memcpy(copy, plain, BYTES);
		unsigned n = cut(copy, BYTES, iov, ARRAY_SIZE(iov));
		assert_int_equal(xts_encrypt_iov(x, round % 3, off, iov, n, skip, cipher, len), 0);
		assert_memory_equal(cipher, wanted, len);
		assert_memory_equal(copy, plain, BYTES); /* as it was */
		memcpy(copy + skip, cipher, len);
		assert_int_equal(xts_decrypt_iov(x, (round + 1) % 3, off, iov, n, skip, len), 0);
		assert_memory_equal(copy, plain, BYTES); /* and nothing beside it was touched */
		xts_free(x);
	}
}

static void test_weak_key(void **state)
{
	uint8_t key[XTS_KEY_BYTES];
	struct xts *x = NULL;

	memset(key, 3, sizeof(key));
	assert_int_equal(xts_new(key, 512, 1, &x), -EINVAL);
	assert_null(x);
	key[40] = 4;
	assert_int_equal(xts_new(key, 512, 1, &x), 0);
	xts_free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_vectors), cmocka_unit_test(test_pieces), cmocka_unit_test(test_weak_key) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
