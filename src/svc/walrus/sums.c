/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/walrus/sums_priv.h"

#include <string.h>
#include <strings.h>

#include "base/text.h"

#define PAIR_TYPE "checksum-type"

const struct sum_desc sum_descs[SUM_COUNT] = {
    [SUM_CRC32] = {"CRC32", "x-amz-checksum-crc32", DIGEST_CRC32},
    [SUM_CRC32C] = {"CRC32C", "x-amz-checksum-crc32c", DIGEST_CRC32C},
    [SUM_CRC64NVME] = {"CRC64NVME", "x-amz-checksum-crc64nvme", DIGEST_CRC64NVME},
    [SUM_SHA1] = {"SHA1", "x-amz-checksum-sha1", DIGEST_SHA1},
    [SUM_SHA256] = {"SHA256", "x-amz-checksum-sha256", DIGEST_SHA256},
};

static const char *const pair_names[SUM_COUNT] = {
    [SUM_CRC32] = "checksum-crc32",	    [SUM_CRC32C] = "checksum-crc32c",
    [SUM_CRC64NVME] = "checksum-crc64nvme", [SUM_SHA1] = "checksum-sha1",
    [SUM_SHA256] = "checksum-sha256",
};

enum sum_algorithm sum_by_name(const char *name)
{
	for (int i = 0; i < SUM_COUNT; i++)
		if (strcasecmp(name, sum_descs[i].name) == 0)
			return i;
	return SUM_COUNT;
}

enum sum_algorithm sum_by_header(const char *header)
{
	for (int i = 0; i < SUM_COUNT; i++)
		if (strcasecmp(header, sum_descs[i].header) == 0)
			return i;
	return SUM_COUNT;
}

bool sum_decode(struct arena *a, enum sum_algorithm s, const char *text,
		unsigned char out[static DIGEST_MAX])
{
	void *bytes;
	size_t len;

	if (base64_decode(a, text, strlen(text), &bytes, &len) < 0 ||
	    len != digest_len(sum_descs[s].kind))
		return false;
	memcpy(out, bytes, len);
	return true;
}

const char *sum_encode(struct arena *a, enum sum_algorithm s, const unsigned char *bytes)
{
	return base64_encode(a, bytes, digest_len(sum_descs[s].kind));
}

bool sums_any(const struct sums *s)
{
	for (int i = 0; i < SUM_COUNT; i++)
		if (s->value[i])
			return true;
	return false;
}

void sums_to_pairs(const struct sums *s, struct store_pair *pairs, size_t *count)
{
	for (int i = 0; i < SUM_COUNT; i++)
		if (s->value[i])
			pairs[(*count)++] = (struct store_pair){pair_names[i], s->value[i]};
	if (s->type && sums_any(s))
		pairs[(*count)++] = (struct store_pair){PAIR_TYPE, s->type};
}

void sums_from_pairs(const struct store_pairs *p, struct sums *ret)
{
	for (int i = 0; i < SUM_COUNT; i++)
		ret->value[i] = store_pairs_get(p, pair_names[i]);
	ret->type = store_pairs_get(p, PAIR_TYPE);
}
