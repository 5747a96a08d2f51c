/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "svc/sc/snap_format_priv.h"

/*
 * A page, as a blob in a pack: magic, index, chunks, uploads (id, attempt), packs (upload, number), a bitmap of the chunks that
 * are not zero, and of each of those: pack u16, codec u8, 0, offset u32, length u32, digest. The root has the SHA-256 of what is stored.
 */
#define PAGE_MAGIC "MALPAGE1"
#define NO_PACK UINT16_MAX

struct snap_page *snap_page_new(uint64_t index, unsigned chunks)
{
	struct snap_page *p = calloc(1, sizeof(*p) + chunks * sizeof(p->chunk[0]));

	if (!p)
		abort();
	p->index = index;
	p->chunks = chunks;
	return p;
}

void snap_page_free(struct snap_page *p)
{
	if (!p)
		return;
	free(p->packs);
	free(p);
}

uint16_t snap_page_pack(struct snap_page *p, const struct upload_id *u, uint32_t number)
{
	for (unsigned i = p->pack_count; i--;) {
		if (p->packs[i].number == number && upload_id_eq(&p->packs[i].upload, u))
			return (uint16_t)i;
	}
	if (p->pack_count == 2 * SNAP_PAGE_CHUNKS_MAX)
		snap_page_compact(p);
	if (p->pack_count == p->pack_cap) {
		p->pack_cap = p->pack_cap ? 2 * p->pack_cap : 16;
		p->packs = realloc(p->packs, p->pack_cap * sizeof(*p->packs));
		if (!p->packs)
			abort();
	}
	p->packs[p->pack_count] = (struct snap_pack_ref){ *u, number };
	return (uint16_t)p->pack_count++;
}

void snap_page_compact(struct snap_page *p)
{
	_cleanup_(freep) uint16_t *moved = malloc((p->pack_count + 1) * sizeof(*moved));
	unsigned kept = 0;

	if (!moved)
		abort();
	memset(moved, 0xff, p->pack_count * sizeof(*moved));
	for (unsigned i = 0; i < p->chunks; i++) {
		if (p->chunk[i].codec != SNAP_ZERO)
			moved[p->chunk[i].pack] = 0;
	}
	for (unsigned i = 0; i < p->pack_count; i++) {
		if (moved[i] == NO_PACK)
			continue;
		moved[i] = (uint16_t)kept;
		p->packs[kept++] = p->packs[i];
	}
	for (unsigned i = 0; i < p->chunks; i++) {
		if (p->chunk[i].codec != SNAP_ZERO)
			p->chunk[i].pack = moved[p->chunk[i].pack];
	}
	p->pack_count = kept;
}

/* The different uploads of p's packs, and for each pack which it is. */
static unsigned gather_uploads(const struct snap_page *p, struct upload_id *uploads, uint16_t *of_pack)
{
	unsigned count = 0;

	for (unsigned i = 0; i < p->pack_count; i++) {
		unsigned j = count;

		while (j && !upload_id_eq(&uploads[j - 1], &p->packs[i].upload))
			j--;
		if (j == 0) {
			uploads[count++] = p->packs[i].upload;
			j = count;
		}
		of_pack[i] = (uint16_t)(j - 1);
	}
	return count;
}

void snap_page_encode(struct snap_page *p, struct buf *out)
{
	snap_page_compact(p);
	_cleanup_(freep) struct upload_id *uploads = calloc(p->pack_count + 1, sizeof(*uploads));
	_cleanup_(freep) uint16_t *of_pack = calloc(p->pack_count + 1, sizeof(*of_pack));
	unsigned char present[SNAP_PAGE_CHUNKS_MAX / 8] = { 0 };

	if (!uploads || !of_pack)
		abort();
	unsigned count = gather_uploads(p, uploads, of_pack);
	buf_append(out, PAGE_MAGIC, 8);
	snap_put_u64(out, p->index);
	snap_put_u32(out, p->chunks);
	snap_put_var(out, count);
	for (unsigned i = 0; i < count; i++) {
		snap_put_text(out, uploads[i].snapshot);
		snap_put_u64(out, uploads[i].attempt);
	}
	snap_put_var(out, p->pack_count);
	for (unsigned i = 0; i < p->pack_count; i++) {
		snap_put_var(out, of_pack[i]);
		snap_put_var(out, p->packs[i].number);
	}
	for (unsigned i = 0; i < p->chunks; i++) {
		if (p->chunk[i].codec != SNAP_ZERO)
			present[i / 8] |= (unsigned char)(1 << i % 8);
	}
	buf_append(out, present, (p->chunks + 7) / 8);
	for (unsigned i = 0; i < p->chunks; i++) {
		const struct snap_chunk_ref *c = &p->chunk[i];

		if (c->codec == SNAP_ZERO)
			continue;
		snap_put_u32(out, c->pack | (uint32_t)c->codec << 16);
		snap_put_u32(out, c->off);
		snap_put_u32(out, c->len);
		buf_append(out, c->sha, SHA256_LEN);
	}
}

static void decode_packs(struct snap_in *in, struct snap_page *p)
{
	unsigned count = (unsigned)snap_get_var(in, SNAP_UPLOADS_MAX);
	_cleanup_(freep) struct upload_id *uploads = calloc(count + 1u, sizeof(*uploads));

	if (!uploads)
		abort();
	for (unsigned i = 0; i < count && !in->bad; i++) {
		snap_get_id(in, false, uploads[i].snapshot);
		uploads[i].attempt = snap_get_u64(in);
	}
	unsigned packs = (unsigned)snap_get_var(in, p->chunks);
	if (in->bad)
		return;
	p->packs = calloc(packs + 1u, sizeof(*p->packs));
	p->pack_cap = packs + 1u;
	if (!p->packs)
		abort();
	for (unsigned i = 0; i < packs && !in->bad; i++) {
		uint64_t upload = snap_get_var(in, count ? count - 1 : 0);

		p->packs[i].number = (uint32_t)snap_get_var(in, UINT32_MAX);
		p->packs[i].upload = uploads[upload];
		p->pack_count++;
	}
	in->bad |= packs && !count;
}

static void decode_chunk(struct snap_in *in, const struct snap_page *p, struct snap_chunk_ref *c)
{
	uint32_t what = snap_get_u32(in);
	const void *sha;

	c->pack = (uint16_t)what;
	c->codec = (uint8_t)(what >> 16);
	c->off = snap_get_u32(in);
	c->len = snap_get_u32(in);
	sha = snap_get_bytes(in, SHA256_LEN);
	if (!sha || what >> 24 || c->pack >= p->pack_count || (c->codec != SNAP_RAW && c->codec != SNAP_ZSTD) || c->len == 0 ||
	    c->len > SNAP_CHUNK_MAX + SNAP_TAG || c->off < SNAP_PACK_HEADER || c->off > SNAP_PACK_MAX - c->len) {
		in->bad = true;
		return;
	}
	memcpy(c->sha, sha, SHA256_LEN);
}

int snap_page_decode(const void *data, size_t len, uint64_t index, unsigned chunks, struct snap_page **ret)
{
	struct snap_in in = { data, (const unsigned char *)data + len, false };
	const char *magic = snap_get_bytes(&in, 8);
	uint64_t its_index = snap_get_u64(&in);
	uint32_t its_chunks = snap_get_u32(&in);

	if (in.bad || memcmp(magic, PAGE_MAGIC, 8) != 0 || its_index != index || its_chunks != chunks)
		return -EBADMSG;
	struct snap_page *p = snap_page_new(index, chunks);
	decode_packs(&in, p);
	const unsigned char *present = snap_get_bytes(&in, (chunks + 7) / 8);
	for (unsigned i = 0; i < chunks && !in.bad; i++) {
		if (present[i / 8] >> i % 8 & 1)
			decode_chunk(&in, p, &p->chunk[i]);
	}
	if (in.bad || in.at != in.end) {
		snap_page_free(p);
		return -EBADMSG;
	}
	*ret = p;
	return 0;
}

bool snap_chunk_same(const struct snap_chunk_ref *a, const struct snap_chunk_ref *b)
{
	if (a->codec == SNAP_ZERO || b->codec == SNAP_ZERO)
		return a->codec == b->codec;
	return memcmp(a->sha, b->sha, SHA256_LEN) == 0;
}
