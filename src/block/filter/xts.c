/* SPDX-License-Identifier: Apache-2.0 */
#include "block/filter/xts_priv.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "block/core/request.h"

#define TWEAK_BYTES 16u
#define TWEAK_UNIT 512u

struct lane {
	_Alignas(64) uint8_t sector[XTS_SECTOR_MAX]; /* one that lies in several elements */
	gnutls_cipher_hd_t cipher;
};

struct xts {
	uint32_t sector_bytes;
	unsigned lanes;
	struct lane *lane[];
};

static int lane_new(const uint8_t *key, struct lane **ret)
{
	struct lane *l = aligned_alloc(64, sizeof(*l));
	uint8_t zero[TWEAK_BYTES] = { 0 };
	gnutls_datum_t k = { (uint8_t *)key, XTS_KEY_BYTES }, iv = { zero, sizeof(zero) };

	if (!l)
		return -ENOMEM;
	int err = gnutls_cipher_init(&l->cipher, GNUTLS_CIPHER_AES_256_XTS, &k, &iv);
	if (err < 0) {
		free(l);
		return err == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EINVAL;
	}
	*ret = l;
	return 0;
}

int xts_new(const uint8_t key[XTS_KEY_BYTES], uint32_t sector_bytes, unsigned lanes, struct xts **ret)
{
	assert(sector_bytes == 512 || sector_bytes == 4096);
	if (gnutls_memcmp(key, key + XTS_KEY_BYTES / 2, XTS_KEY_BYTES / 2) == 0)
		return -EINVAL;
	struct xts *x = calloc(1, sizeof(*x) + lanes * sizeof(*x->lane));
	if (!x)
		return -ENOMEM;
	x->sector_bytes = sector_bytes;
	for (; x->lanes < lanes; x->lanes++) {
		int err = lane_new(key, &x->lane[x->lanes]);
		if (err) {
			xts_free(x);
			return err;
		}
	}
	*ret = x;
	return 0;
}

void xts_free(struct xts *x)
{
	while (x && x->lanes) {
		struct lane *l = x->lane[--x->lanes];
		gnutls_cipher_deinit(l->cipher);
		explicit_bzero(l, sizeof(*l));
		free(l);
	}
	free(x);
}

typedef int cipher_fn(gnutls_cipher_hd_t h, const void *from, size_t from_bytes, void *to, size_t to_bytes);

static int decrypt(gnutls_cipher_hd_t h, const void *from, size_t from_bytes, void *to, size_t to_bytes)
{
	return gnutls_cipher_decrypt2(h, from, from_bytes, to, to_bytes);
}

static int encrypt(gnutls_cipher_hd_t h, const void *from, size_t from_bytes, void *to, size_t to_bytes)
{
	return gnutls_cipher_encrypt2(h, from, from_bytes, to, to_bytes);
}

static inline int sectors(const struct xts *x, struct lane *l, cipher_fn *fn, uint64_t off, const uint8_t *from, uint8_t *to, size_t bytes)
{
	uint8_t tweak[TWEAK_BYTES] = { 0 };
	uint64_t number = off / TWEAK_UNIT;
	int err = 0;

	assert(!(off % x->sector_bytes) && !(bytes % x->sector_bytes));
	for (size_t at = 0; at < bytes; at += x->sector_bytes) {
		for (unsigned i = 0; i < sizeof(number); i++)
			tweak[i] = (uint8_t)(number >> 8 * i);
		gnutls_cipher_set_iv(l->cipher, tweak, sizeof(tweak));
		err |= fn(l->cipher, from + at, x->sector_bytes, to + at, x->sector_bytes);
		number += x->sector_bytes / TWEAK_UNIT;
	}
	return err ? -EIO : 0;
}

int xts_encrypt(struct xts *x, unsigned lane, uint64_t off, const void *from, void *to, size_t bytes)
{
	return sectors(x, x->lane[lane], encrypt, off, from, to, bytes);
}

/* to: NULL: in place. */
static int elements(struct xts *x, struct lane *l, cipher_fn *fn, uint64_t off, const struct iovec *iov, unsigned count, uint64_t skip,
		    uint8_t *to, size_t len)
{
	int err = 0;

	while (len) {
		while (count && skip >= iov->iov_len) {
			skip -= iov->iov_len;
			iov++;
			count--;
		}
		assert(count);
		uint8_t *from = (uint8_t *)iov->iov_base + skip;
		size_t some = MIN_OF(iov->iov_len - skip, len);
		some -= some % x->sector_bytes;
		if (some) {
			err |= sectors(x, l, fn, off, from, to ? to : from, some);
		} else {
			some = x->sector_bytes;
			blk_iov_from(iov, count, skip, l->sector, some);
			err |= sectors(x, l, fn, off, l->sector, to ? to : l->sector, some);
			if (!to)
				blk_iov_to(iov, count, skip, l->sector, some);
		}
		to = to ? to + some : NULL;
		off += some;
		skip += some;
		len -= some;
	}
	return err ? -EIO : 0;
}

int xts_encrypt_iov(struct xts *x, unsigned lane, uint64_t off, const struct iovec *iov, unsigned count, uint64_t skip, void *to, size_t len)
{
	return elements(x, x->lane[lane], encrypt, off, iov, count, skip, to, len);
}

int xts_decrypt_iov(struct xts *x, unsigned lane, uint64_t off, const struct iovec *iov, unsigned count, uint64_t skip, size_t len)
{
	return elements(x, x->lane[lane], decrypt, off, iov, count, skip, NULL, len);
}
