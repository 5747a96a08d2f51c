/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_WALRUS_SUMS_PRIV_H
#define MALLEE_SVC_WALRUS_SUMS_PRIV_H

#include "base/arena.h"
#include "base/error.h"
#include "object/store.h"

/* S3's additional checksums of an object or part: base64 texts, in x-amz-checksum-… headers,
 * trailers and XML. */
enum sum_algorithm { SUM_CRC32, SUM_CRC32C, SUM_CRC64NVME, SUM_SHA1, SUM_SHA256, SUM_COUNT };

struct sum_desc {
	const char *name;   /* CRC32, as in x-amz-checksum-algorithm */
	const char *header; /* x-amz-checksum-crc32 */
	enum digest_kind kind;
};
extern const struct sum_desc sum_descs[SUM_COUNT];

struct sums {
	const char *value[SUM_COUNT]; /* base64, NULL: none; of multipart objects with "-PARTS" when
					 composite */
	const char *type;	      /* FULL_OBJECT, COMPOSITE; NULL when there is no checksum */
};

/* SUM_COUNT when there is none of that name; any case. */
enum sum_algorithm sum_by_name(const char *name);
enum sum_algorithm sum_by_header(const char *header);
/* Whether text is base64 of as many bytes as the algorithm gives: they go to out. */
bool sum_decode(struct arena *a, enum sum_algorithm s, const char *text,
		unsigned char out[static DIGEST_MAX]);
const char *sum_encode(struct arena *a, enum sum_algorithm s, const unsigned char *bytes);
bool sums_any(const struct sums *s);

/* Kept with the object: named "checksum-" and the algorithm, and "checksum-type". Adds to pairs,
 * room for SUM_COUNT + 1. */
void sums_to_pairs(const struct sums *s, struct store_pair *pairs, size_t *count);
void sums_from_pairs(const struct store_pairs *p, struct sums *ret);

/* To and from the members of a generated struct, which all spell them alike. */
#define SUMS_TO(s, out)                                                                            \
	((out)->checksum_crc32 = (s)->value[SUM_CRC32],                                            \
	 (out)->checksum_crc32_c = (s)->value[SUM_CRC32C],                                         \
	 (out)->checksum_crc64_nvme = (s)->value[SUM_CRC64NVME],                                   \
	 (out)->checksum_sha1 = (s)->value[SUM_SHA1],                                              \
	 (out)->checksum_sha256 = (s)->value[SUM_SHA256])
#define SUMS_OF(in)                                                                                \
	((struct sums){.value = {[SUM_CRC32] = (in)->checksum_crc32,                               \
				 [SUM_CRC32C] = (in)->checksum_crc32_c,                            \
				 [SUM_CRC64NVME] = (in)->checksum_crc64_nvme,                      \
				 [SUM_SHA1] = (in)->checksum_sha1,                                 \
				 [SUM_SHA256] = (in)->checksum_sha256}})

#endif
