/* SPDX-License-Identifier: Apache-2.0 */
#include "object/digest.h"

#include <assert.h>
#include <gnutls/crypto.h>
#include <string.h>

#include "object/crc_priv.h"

/* Pieces that stay in the CPU's first cache while one digest after another reads them. */
#define PIECE (16u << 10)

static const struct digest_desc {
	size_t len;
	gnutls_digest_algorithm_t gnutls; /* GNUTLS_DIG_UNKNOWN: a CRC */
	struct crc_params crc;
} descs[DIGEST_COUNT] = {
    [DIGEST_MD5] = {.len = 16, .gnutls = GNUTLS_DIG_MD5},
    [DIGEST_SHA1] = {.len = 20, .gnutls = GNUTLS_DIG_SHA1},
    [DIGEST_SHA256] = {.len = 32, .gnutls = GNUTLS_DIG_SHA256},
    [DIGEST_CRC32] = {.len = 4, .crc = {32, UINT64_C(0xedb88320)}},
    [DIGEST_CRC32C] = {.len = 4, .crc = {32, UINT64_C(0x82f63b78)}},
    [DIGEST_CRC64NVME] = {.len = 8, .crc = {64, UINT64_C(0x9a6c9329ac4bc9b5)}},
};

struct digest_set {
	unsigned kinds;
	gnutls_hash_hd_t hash[DIGEST_COUNT];
	struct crc *crc[DIGEST_COUNT];
};

static bool is_crc(enum digest_kind kind)
{
	return descs[kind].gnutls == GNUTLS_DIG_UNKNOWN;
}

struct digest_set *digest_set_new(unsigned kinds)
{
	struct digest_set *d = calloc(1, sizeof(*d));

	if (!d)
		abort();
	d->kinds = kinds;
	for (int k = 0; k < DIGEST_COUNT; k++) {
		if (!(kinds & DIGEST_BIT(k)))
			continue;
		if (is_crc(k))
			d->crc[k] = crc_new(&descs[k].crc);
		else if (gnutls_hash_init(&d->hash[k], descs[k].gnutls) < 0)
			abort(); /* no memory, or a library without these digests: nothing could be
				    stored */
	}
	return d;
}

void digest_set_free(struct digest_set *d)
{
	if (!d)
		return;
	for (int k = 0; k < DIGEST_COUNT; k++) {
		if (d->hash[k])
			gnutls_hash_deinit(d->hash[k], NULL);
		crc_free(d->crc[k]);
	}
	free(d);
}

void digest_set_update(struct digest_set *d, const void *data, size_t len)
{
	const unsigned char *p = data;

	while (len > 0) {
		size_t n = MIN_OF(len, PIECE);

		for (int k = 0; k < DIGEST_COUNT; k++) {
			if (d->hash[k])
				gnutls_hash(d->hash[k], p, n);
			else if (d->crc[k])
				crc_update(d->crc[k], p, n);
		}
		p += n;
		len -= n;
	}
}

unsigned digest_set_kinds(const struct digest_set *d)
{
	return d->kinds;
}

static void put_be(uint64_t value, size_t len, unsigned char *out)
{
	for (size_t i = 0; i < len; i++)
		out[i] = (unsigned char)(value >> (8 * (len - 1 - i)));
}

static uint64_t get_be(const unsigned char *in, size_t len)
{
	uint64_t v = 0;

	for (size_t i = 0; i < len; i++)
		v = v << 8 | in[i];
	return v;
}

size_t digest_set_get(const struct digest_set *d, enum digest_kind kind,
		      unsigned char out[static DIGEST_MAX])
{
	assert(d->kinds & DIGEST_BIT(kind));
	if (is_crc(kind)) {
		put_be(crc_value(d->crc[kind]), descs[kind].len, out);
	} else {
		gnutls_hash_hd_t copy = gnutls_hash_copy(d->hash[kind]);

		if (!copy)
			abort();
		gnutls_hash_deinit(copy, out);
	}
	return descs[kind].len;
}

size_t digest_len(enum digest_kind kind)
{
	return descs[kind].len;
}

size_t digest_once(enum digest_kind kind, const void *data, size_t len,
		   unsigned char out[static DIGEST_MAX])
{
	_cleanup_(digest_set_freep) struct digest_set *d = digest_set_new(DIGEST_BIT(kind));

	digest_set_update(d, data, len);
	return digest_set_get(d, kind, out);
}

void digest_crc_combine(enum digest_kind kind, const unsigned char *a, const unsigned char *b,
			uint64_t b_len, unsigned char *out)
{
	size_t len = descs[kind].len;

	assert(is_crc(kind));
	put_be(crc_combine(&descs[kind].crc, get_be(a, len), get_be(b, len), b_len), len, out);
}
