/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "svc/sc/snap_format_priv.h"

/*
 * A pack: magic, version, cipher; the blobs; the index (of each blob kind, codec, offset, length, number, digest); the footer: how many,
 * where the index is, its SHA-256, magic. Readers go by manifests; the index is for what has none. In an encrypted pack the blobs
 * are encrypted, and so is the index.
 */
#define PACK_MAGIC "MALPACK1"
#define PACK_END "MALPEND1"
#define PACK_VERSION 1

void snap_pack_begin(struct buf *pack, bool encrypted)
{
	buf_reset(pack);
	buf_append(pack, PACK_MAGIC, 8);
	snap_put_u32(pack, PACK_VERSION);
	snap_put_u32(pack, encrypted);
}

static struct snap_place index_place(const struct snap_pack_ref *at, uint32_t off, uint32_t count)
{
	return (struct snap_place){ .upload = &at->upload, .pack = at->number, .off = off, .kind = SNAP_PACK_INDEX, .number = count };
}

static void seal_index(struct buf *pack, size_t index, unsigned count, const struct snap_cipher *c, const struct snap_pack_ref *at)
{
	_cleanup_(buf_done) struct buf plain = BUF_INIT;
	struct snap_place place = index_place(at, (uint32_t)index, count);
	static const char tag[SNAP_TAG];

	buf_append(&plain, pack->data + index, pack->len - index);
	buf_append(pack, tag, sizeof(tag));
	snap_seal(c, &place, plain.data ? plain.data : "", plain.len, pack->data + index);
}

void snap_pack_finish(struct buf *pack, const struct snap_blob *blobs, unsigned count, const struct snap_cipher *c,
		      const struct snap_pack_ref *at)
{
	size_t index = pack->len;
	unsigned char sha[SHA256_LEN];

	for (unsigned i = 0; i < count; i++) {
		snap_put_u32(pack, blobs[i].kind | (uint32_t)blobs[i].codec << 8);
		snap_put_u32(pack, blobs[i].off);
		snap_put_u32(pack, blobs[i].len);
		snap_put_u64(pack, blobs[i].number);
		buf_append(pack, blobs[i].sha, SHA256_LEN);
	}
	if (c)
		seal_index(pack, index, count, c, at);
	snap_sha256(pack->len > index ? pack->data + index : "", pack->len - index, sha);
	snap_put_u32(pack, count);
	snap_put_u32(pack, (uint32_t)index);
	buf_append(pack, sha, sizeof(sha));
	buf_append(pack, PACK_END, 8);
}

static int read_blob(struct snap_in *in, uint32_t index_off, struct snap_blob *b)
{
	uint32_t what = snap_get_u32(in);
	const void *sha;

	b->kind = what & 0xff;
	b->codec = (uint8_t)(what >> 8);
	b->off = snap_get_u32(in);
	b->len = snap_get_u32(in);
	b->number = snap_get_u64(in);
	sha = snap_get_bytes(in, SHA256_LEN);
	if (!sha || what >> 16 || (b->kind != SNAP_BLOB_CHUNK && b->kind != SNAP_BLOB_PAGE) || b->off < SNAP_PACK_HEADER ||
	    b->off > index_off || b->len > index_off - b->off || !b->len)
		return -EBADMSG;
	memcpy(b->sha, sha, SHA256_LEN);
	return 0;
}

int snap_pack_index(const unsigned char *tail, size_t tail_len, uint64_t size_bytes, const struct snap_cipher *c,
		    const struct snap_pack_ref *at, struct snap_blob **ret_blobs, unsigned *ret_count, size_t *ret_need)
{
	if (size_bytes < SNAP_PACK_HEADER + SNAP_PACK_FOOTER || size_bytes > SNAP_PACK_MAX)
		return -EBADMSG;
	*ret_need = SNAP_PACK_FOOTER;
	if (tail_len < SNAP_PACK_FOOTER)
		return -EAGAIN;
	struct snap_in in = { tail + tail_len - SNAP_PACK_FOOTER, tail + tail_len, false };
	uint32_t count = snap_get_u32(&in), off = snap_get_u32(&in);
	const unsigned char *sha = snap_get_bytes(&in, SHA256_LEN);
	unsigned char real[SHA256_LEN];
	uint64_t index_len = (uint64_t)count * SNAP_BLOB_LEN + (c ? SNAP_TAG : 0);

	if (memcmp(in.at, PACK_END, 8) != 0 || off < SNAP_PACK_HEADER || off + index_len + SNAP_PACK_FOOTER != size_bytes)
		return -EBADMSG;
	*ret_need = (size_t)index_len + SNAP_PACK_FOOTER;
	if (tail_len < *ret_need)
		return -EAGAIN;
	in = (struct snap_in){ tail + tail_len - *ret_need, tail + tail_len - SNAP_PACK_FOOTER, false };
	snap_sha256(in.at, (size_t)index_len, real);
	if (memcmp(real, sha, SHA256_LEN) != 0)
		return -EBADMSG;
	_cleanup_(freep) unsigned char *plain = c ? malloc((size_t)index_len) : NULL;
	if (c) {
		struct snap_place place = index_place(at, off, count);
		if (!plain || snap_unseal(c, &place, in.at, (size_t)index_len, plain))
			return -EBADMSG;
		in = (struct snap_in){ plain, plain + (size_t)count * SNAP_BLOB_LEN, false };
	}
	struct snap_blob *blobs = calloc(count + 1u, sizeof(*blobs));
	if (!blobs)
		abort();
	for (uint32_t i = 0; i < count; i++) {
		if (read_blob(&in, off, &blobs[i])) {
			free(blobs);
			return -EBADMSG;
		}
	}
	*ret_blobs = blobs;
	*ret_count = count;
	return 0;
}

/* ---- marks: a line of text ---- */

void snap_mark_encode(const char *snapshot, const struct snap_mark *m, struct buf *out)
{
	char hex[2 * SNAP_WRAPPED + 1];

	buf_printf(out, "mallee-upload 1 %s %s %lld", snapshot, *m->parent ? m->parent : "-", (long long)m->time_ms);
	if (*m->key_id) {
		hex_encode(m->wrapped, sizeof(m->wrapped), hex);
		buf_printf(out, " %s %s", m->key_id, hex);
	}
	buf_putc(out, '\n');
}

int snap_mark_decode(const char *data, size_t len, struct snap_mark *ret)
{
	char text[600], snapshot[ID_LEN], key_id[KEY_ID_LEN] = "", hex[2 * SNAP_WRAPPED + 2] = "";
	struct snap_mark m = { 0 };
	long long time_ms;

	if (len >= sizeof(text))
		return -EBADMSG;
	memcpy(text, data, len);
	text[len] = '\0';
	int fields = sscanf(text, "mallee-upload 1 %31s %31s %lld %23s %121s", snapshot, m.parent, &time_ms, key_id, hex);
	if (fields < 3)
		return -EBADMSG;
	if (strcmp(m.parent, "-") == 0)
		m.parent[0] = '\0';
	m.time_ms = time_ms;
	if (fields == 5 && strlen(hex) == 2 * SNAP_WRAPPED && !hex_decode(hex, strlen(hex), m.wrapped))
		memcpy(m.key_id, key_id, sizeof(key_id));
	*ret = m;
	return 0;
}
