/* SPDX-License-Identifier: Apache-2.0 */
/* The small things that the format is made of: numbers, keys, digests, compression. */
#include <assert.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/text.h"
#include "svc/sc/snap_format_priv.h"

#define ZSTD_LEVEL 1

void snap_sha256(const void *data, size_t len, unsigned char out[static SHA256_LEN])
{
	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, data, len, out) < 0)
		abort();
}

bool snap_all_zero(const void *data, size_t len)
{
	const unsigned char *p = data;

	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

bool snap_id_ok(const char *id)
{
	size_t len = strlen(id);

	return len > 0 && len < ID_LEN && strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

void snap_id_copy(char out[static ID_LEN], const char *id)
{
	size_t len = strlen(id);

	assert(len < ID_LEN);
	memset(out, 0, ID_LEN);
	memcpy(out, id, len);
}

/* ---- keys ---- */

void snap_root_key(const char *snapshot, char out[static SNAP_KEY_MAX])
{
	snprintf(out, SNAP_KEY_MAX, SNAP_ROOTS "%s", snapshot);
}

void snap_mark_key(const char *snapshot, char out[static SNAP_KEY_MAX])
{
	snprintf(out, SNAP_KEY_MAX, SNAP_MARKS "%s", snapshot);
}

void snap_pack_key(const struct upload_id *u, uint32_t number, char out[static SNAP_KEY_MAX])
{
	snprintf(out, SNAP_KEY_MAX, SNAP_PACKS "%s/%016" PRIx64 "/%08" PRIx32, u->snapshot, u->attempt, number);
}

static bool is_hex(const char *s, size_t len)
{
	return strspn(s, "0123456789abcdef") >= len;
}

int snap_parse_pack_key(const char *key, struct upload_id *ret, uint32_t *ret_number)
{
	const char *id = key + strlen(SNAP_PACKS), *slash;

	if (!str_prefix(key, SNAP_PACKS) || !(slash = strchr(id, '/')) || slash == id || slash - id >= ID_LEN ||
	    strlen(slash) != 1 + 16 + 1 + 8 || !is_hex(slash + 1, 16) || slash[17] != '/' || !is_hex(slash + 18, 8))
		return -EINVAL;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->snapshot, id, (size_t)(slash - id));
	ret->attempt = strtoull(slash + 1, NULL, 16);
	*ret_number = (uint32_t)strtoul(slash + 18, NULL, 16);
	return snap_id_ok(ret->snapshot) ? 0 : -EINVAL;
}

/* ---- compression ---- */

struct snap_packer {
	ZSTD_CCtx *zstd;
};

struct snap_packer *snap_packer_new(void)
{
	struct snap_packer *p = calloc(1, sizeof(*p));

	if (!p || !(p->zstd = ZSTD_createCCtx()))
		abort();
	return p;
}

void snap_packer_free(struct snap_packer *p)
{
	if (!p)
		return;
	ZSTD_freeCCtx(p->zstd);
	free(p);
}

size_t snap_compress(struct snap_packer *p, const void *data, size_t len, void *out)
{
	/* It pays from an eighth saved on: below that reading would cost more than the room is worth. */
	size_t n = ZSTD_compressCCtx(p->zstd, out, len - len / 8, data, len, ZSTD_LEVEL);

	return ZSTD_isError(n) ? 0 : n;
}

int snap_decompress(enum snap_codec codec, const void *stored, size_t stored_len, void *out, size_t len)
{
	if (codec == SNAP_RAW) {
		if (stored_len != len)
			return -EBADMSG;
		memcpy(out, stored, len);
		return 0;
	}
	if (codec != SNAP_ZSTD)
		return -EBADMSG;
	return ZSTD_decompress(out, len, stored, stored_len) == len ? 0 : -EBADMSG;
}

/* ---- numbers ---- */

void snap_put_u32(struct buf *b, uint32_t v)
{
	unsigned char raw[4];

	for (unsigned i = 0; i < 4; i++)
		raw[i] = (unsigned char)(v >> (8 * i));
	buf_append(b, raw, sizeof(raw));
}

void snap_put_u64(struct buf *b, uint64_t v)
{
	snap_put_u32(b, (uint32_t)v);
	snap_put_u32(b, (uint32_t)(v >> 32));
}

void snap_put_var(struct buf *b, uint64_t v)
{
	unsigned char raw[10];
	unsigned n = 0;

	for (; v >= 0x80; v >>= 7)
		raw[n++] = (unsigned char)(v | 0x80);
	raw[n++] = (unsigned char)v;
	buf_append(b, raw, n);
}

void snap_put_text(struct buf *b, const char *s)
{
	size_t len = strlen(s);

	buf_putc(b, (char)len);
	buf_append(b, s, len);
}

const void *snap_get_bytes(struct snap_in *in, size_t len)
{
	const void *at = in->at;

	if (in->bad || len > (size_t)(in->end - in->at)) {
		in->bad = true;
		return NULL;
	}
	in->at += len;
	return at;
}

uint32_t snap_get_u32(struct snap_in *in)
{
	const unsigned char *p = snap_get_bytes(in, 4);

	return p ? p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24 : 0;
}

uint64_t snap_get_u64(struct snap_in *in)
{
	uint64_t low = snap_get_u32(in);

	return low | (uint64_t)snap_get_u32(in) << 32;
}

uint64_t snap_get_var(struct snap_in *in, uint64_t max)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 63; shift += 7) {
		const unsigned char *p = snap_get_bytes(in, 1);

		if (!p)
			return 0;
		v |= (uint64_t)(*p & 0x7f) << shift;
		if (*p & 0x80)
			continue;
		if (v <= max)
			return v;
		break;
	}
	in->bad = true;
	return 0;
}

void snap_get_id(struct snap_in *in, bool may_be_empty, char out[static ID_LEN])
{
	const unsigned char *len = snap_get_bytes(in, 1);
	const char *text = len && *len < ID_LEN ? snap_get_bytes(in, *len) : NULL;

	memset(out, 0, ID_LEN);
	if (!text) {
		in->bad = true;
		return;
	}
	memcpy(out, text, *len);
	if (!(may_be_empty && *len == 0) && (strlen(out) != *len || !snap_id_ok(out)))
		in->bad = true;
}
