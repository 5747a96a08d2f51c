/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OBJECT_DIGEST_H
#define MALLEE_OBJECT_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"

/* The digests that an object may carry, computed together in one pass. Results are the bytes in
 * network order, as S3's checksum headers (base64 of them) and ETags (hexadecimal) print them. */
enum digest_kind {
	DIGEST_MD5,
	DIGEST_SHA1,
	DIGEST_SHA256,
	DIGEST_CRC32,	  /* IEEE 802.3 */
	DIGEST_CRC32C,	  /* Castagnoli */
	DIGEST_CRC64NVME, /* NVM Express 2.0, 64b CRC */
	DIGEST_COUNT
};

#define DIGEST_BIT(kind) (1u << (kind))
#define DIGEST_MAX 32 /* bytes of the longest */

struct digest_set;

/* kinds: DIGEST_BIT()s. Never NULL. */
struct digest_set *digest_set_new(unsigned kinds);
void digest_set_free(struct digest_set *d);
DEFINE_CLEANUP(struct digest_set *, digest_set_free, digest_set_freep)
void digest_set_update(struct digest_set *d, const void *data, size_t len);
unsigned digest_set_kinds(const struct digest_set *d);
/* The digest of all bytes so far; the length is returned. The set can go on being updated. kind
 * must be in the set. */
size_t digest_set_get(const struct digest_set *d, enum digest_kind kind,
		      unsigned char out[static DIGEST_MAX]);

size_t digest_len(enum digest_kind kind);
/* One digest of one piece of memory. */
size_t digest_once(enum digest_kind kind, const void *data, size_t len,
		   unsigned char out[static DIGEST_MAX]);

/* The CRC of a followed by b out of both CRCs and b's length; kind is one of the CRCs. in and out
 * as digest_set_get() gives them; out may be a. */
void digest_crc_combine(enum digest_kind kind, const unsigned char *a, const unsigned char *b,
			uint64_t b_len, unsigned char *out);

#endif
