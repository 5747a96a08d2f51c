/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/sc/snap_format_priv.h"

#include <gnutls/crypto.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "os/locked.h"

/*
 * The root: magic, version, kind, cipher, chunk size, chunks of a page, size, time, counts, ids; then the uploads; then the pages
 * in order, as runs of zero pages and single stored ones (where the page lies, its SHA-256, which of its chunks are not zero, the
 * packs that those lie in); last the SHA-256 of all that. A tombstone ends after the ids. An encrypted one (cipher 1) has behind its
 * ids the master key's id and the wrapped data key, and before the last SHA-256 that of all before, authenticated (snap_root_mac()).
 */
#define ROOT_MAGIC "MALSNAP1"
#define ROOT_VERSION 1
#define CIPHER_NONE 0
#define CIPHER_GCM 1

enum root_kind { ROOT_SNAPSHOT = 1, ROOT_TOMBSTONE = 2 };
enum page_tag { PAGES_ZERO = 0, PAGE_FULL = 1, PAGE_SOME = 2 };

void snap_page_ref_done(struct snap_page_ref *p)
{
	free(p->present);
	free(p->runs);
	*p = (struct snap_page_ref){ 0 };
}

void snap_root_free(struct snap_root *r)
{
	if (!r)
		return;
	for (uint64_t i = 0; r->pages && i < r->page_count; i++)
		snap_page_ref_done(&r->pages[i]);
	free(r->pages);
	free(r->uploads);
	snap_cipher_free(r->cipher);
	free(r);
}

/* ---- keys ---- */

static void purpose_of(const struct snap_root *r, char out[static ID_LEN + 16])
{
	snprintf(out, ID_LEN + 16, "snapshots of %s", r->lineage);
}

int snap_root_lock(struct snap_root *r, struct keys *k, const unsigned char key[static SNAP_KEY_BYTES], struct error *e)
{
	char purpose[ID_LEN + 16];

	purpose_of(r, purpose);
	int err = keys_wrap(k, purpose, key, SNAP_KEY_BYTES, r->key_id, r->wrapped, e);
	if (err)
		return err;
	r->encrypted = true;
	r->cipher = snap_cipher_new(key);
	return 0;
}

int snap_root_unwrap(const struct snap_root *r, struct keys *k, const char *key_id, const unsigned char *wrapped, unsigned char *key,
		     struct error *e)
{
	char purpose[ID_LEN + 16];

	if (!k) {
		error_set(e, "KMSKeyNotFound", "snapshot %s is encrypted, and there is no key to read it with", r->id);
		return -ENOKEY;
	}
	purpose_of(r, purpose);
	return keys_unwrap(k, key_id, purpose, wrapped, SNAP_WRAPPED, key, SNAP_KEY_BYTES, e);
}

int snap_root_unlock(struct snap_root *r, struct keys *k, const unsigned char *key, struct error *e)
{
	unsigned char mac[SHA256_LEN];

	if (!r->encrypted || r->cipher)
		return 0;
	_cleanup_(locked_freep) void *unwrapped = locked_new(SNAP_KEY_BYTES);
	if (!unwrapped)
		return error_errno(e, ENOMEM, "reading snapshot %s", r->id);
	int err = key ? 0 : snap_root_unwrap(r, k, r->key_id, r->wrapped, unwrapped, e);
	if (err)
		return err;
	struct snap_cipher *c = snap_cipher_new(key ? key : unwrapped);
	snap_root_mac(c, r->said, mac);
	if (gnutls_memcmp(mac, r->mac, sizeof(mac)) != 0) {
		snap_cipher_free(c);
		error_set(e, "Server.InternalError", "snapshot %s: its manifest (object " SNAP_ROOTS "%s) was not written with this key, or was altered",
			  r->id, r->id);
		return key ? -EKEYREJECTED : -EBADMSG;
	}
	r->cipher = c;
	return 0;
}

bool snap_root_shape_ok(const struct snap_root *r)
{
	return r->chunk_bytes >= SNAP_CHUNK_MIN && r->chunk_bytes <= SNAP_CHUNK_MAX && !(r->chunk_bytes & (r->chunk_bytes - 1)) &&
	       r->page_chunks >= 8 && r->page_chunks <= SNAP_PAGE_CHUNKS_MAX && r->page_chunks % 8 == 0 && r->size_bytes > 0 &&
	       r->size_bytes <= SNAP_SIZE_MAX && r->size_bytes % 512 == 0 &&
	       r->size_bytes / ((uint64_t)r->chunk_bytes * r->page_chunks) < SNAP_PAGES_MAX;
}

uint64_t snap_root_chunks(const struct snap_root *r)
{
	return (r->size_bytes + r->chunk_bytes - 1) / r->chunk_bytes;
}

unsigned snap_page_ref_chunks(const struct snap_root *r, uint64_t page)
{
	uint64_t left = snap_root_chunks(r) - page * r->page_chunks;

	return (unsigned)MIN_OF(left, (uint64_t)r->page_chunks);
}

bool snap_root_present(const struct snap_root *r, uint64_t chunk)
{
	const struct snap_page_ref *p = &r->pages[chunk / r->page_chunks];
	unsigned i = (unsigned)(chunk % r->page_chunks);

	return p->stored && (!p->present || (p->present[i / 8] >> i % 8 & 1));
}

static void *copy_of(const void *p, size_t len)
{
	void *copy;

	if (!p)
		return NULL;
	copy = malloc(len + 1);
	if (!copy)
		abort();
	return memcpy(copy, p, len);
}

void snap_page_ref_copy(struct snap_page_ref *to, const struct snap_page_ref *from)
{
	*to = *from;
	to->present = copy_of(from->present, SNAP_PAGE_CHUNKS_MAX / 8);
	to->runs = copy_of(from->runs, from->run_count * sizeof(*from->runs));
}

uint32_t snap_root_upload(struct snap_root *r, const struct upload_id *u)
{
	for (unsigned i = r->upload_count; i--;) {
		if (upload_id_eq(&r->uploads[i], u))
			return i;
	}
	r->uploads = realloc(r->uploads, (r->upload_count + 1) * sizeof(*r->uploads));
	if (!r->uploads)
		abort();
	r->uploads[r->upload_count] = *u;
	return r->upload_count++;
}

void snap_page_ref_describe(struct snap_root *r, struct snap_page_ref *ref, const struct snap_page *p)
{
	struct packset packs = PACKSET_INIT;
	unsigned present = 0, runs = 0;

	free(ref->present);
	free(ref->runs);
	ref->present = calloc(1, SNAP_PAGE_CHUNKS_MAX / 8);
	if (!ref->present)
		abort();
	for (unsigned i = 0; i < p->chunks; i++) {
		if (p->chunk[i].codec == SNAP_ZERO)
			continue;
		ref->present[i / 8] |= (unsigned char)(1 << i % 8);
		present++;
	}
	if (present == p->chunks) {
		free(ref->present);
		ref->present = NULL;
	}
	for (unsigned i = 0; i < p->pack_count; i++)
		packset_add(&packs, &p->packs[i].upload, p->packs[i].number, 1);
	for (unsigned i = 0; i < packs.count; i++)
		runs += packs.uploads[i].count;
	ref->runs = calloc(runs + 1, sizeof(*ref->runs));
	if (!ref->runs)
		abort();
	ref->run_count = 0;
	for (unsigned i = 0; i < packs.count; i++) {
		uint32_t upload = snap_root_upload(r, &packs.uploads[i].id);

		for (unsigned j = 0; j < packs.uploads[i].count; j++)
			ref->runs[ref->run_count++] = (struct snap_run){ upload, packs.uploads[i].runs[j].first,
									 packs.uploads[i].runs[j].count };
	}
	packset_done(&packs);
}

void snap_root_packs(const struct snap_root *r, struct packset *s)
{
	for (uint64_t i = 0; i < r->page_count; i++) {
		const struct snap_page_ref *p = &r->pages[i];

		if (!p->stored)
			continue;
		packset_add(s, &r->uploads[p->upload], p->pack, 1);
		for (unsigned j = 0; j < p->run_count; j++)
			packset_add(s, &r->uploads[p->runs[j].upload], p->runs[j].first, p->runs[j].count);
	}
}

/* ---- encoding ---- */

static void encode_page(const struct snap_root *r, const struct snap_page_ref *p, const uint32_t *new_index, struct buf *out)
{
	snap_put_var(out, p->present ? PAGE_SOME : PAGE_FULL);
	snap_put_var(out, new_index[p->upload]);
	snap_put_var(out, p->pack);
	snap_put_var(out, p->off);
	snap_put_var(out, p->len);
	buf_append(out, p->sha, SHA256_LEN);
	if (p->present)
		buf_append(out, p->present, (r->page_chunks + 7) / 8);
	snap_put_var(out, p->run_count);
	for (unsigned i = 0; i < p->run_count; i++) {
		snap_put_var(out, new_index[p->runs[i].upload]);
		snap_put_var(out, p->runs[i].first);
		snap_put_var(out, p->runs[i].count);
	}
}

static void encode_uploads(const struct snap_root *r, uint32_t *new_index, struct buf *out)
{
	uint32_t used = 0;

	for (uint64_t i = 0; i < r->page_count; i++) {
		const struct snap_page_ref *p = &r->pages[i];

		if (!p->stored)
			continue;
		new_index[p->upload] = 1;
		for (unsigned j = 0; j < p->run_count; j++)
			new_index[p->runs[j].upload] = 1;
	}
	for (unsigned i = 0; i < r->upload_count; i++)
		used += new_index[i];
	snap_put_var(out, used);
	used = 0;
	for (unsigned i = 0; i < r->upload_count; i++) {
		if (!new_index[i])
			continue;
		new_index[i] = used++;
		snap_put_text(out, r->uploads[i].snapshot);
		snap_put_u64(out, r->uploads[i].attempt);
	}
}

static void encode_mac(const struct snap_root *r, const struct buf *out, size_t start, unsigned char mac[static SHA256_LEN])
{
	unsigned char said[SHA256_LEN];

	snap_sha256(out->data + start, out->len - start, said);
	snap_root_mac(r->cipher, said, mac);
}

void snap_root_encode(const struct snap_root *r, struct buf *out)
{
	_cleanup_(freep) uint32_t *new_index = calloc(r->upload_count + 1u, sizeof(*new_index));
	unsigned char sha[SHA256_LEN];
	size_t start = out->len;

	if (!new_index)
		abort();
	buf_append(out, ROOT_MAGIC, 8);
	snap_put_u32(out, ROOT_VERSION);
	snap_put_u32(out, r->abandoned ? ROOT_TOMBSTONE : ROOT_SNAPSHOT);
	snap_put_u32(out, r->encrypted ? CIPHER_GCM : CIPHER_NONE);
	snap_put_u32(out, r->chunk_bytes);
	snap_put_u32(out, r->page_chunks);
	snap_put_u64(out, r->size_bytes);
	snap_put_u64(out, (uint64_t)r->time_ms);
	snap_put_u64(out, r->data_chunks);
	snap_put_u64(out, r->added_chunks);
	snap_put_u64(out, r->added_bytes);
	snap_put_text(out, r->id);
	snap_put_text(out, r->volume);
	snap_put_text(out, r->parent);
	snap_put_text(out, r->lineage);
	if (r->encrypted) {
		snap_put_text(out, r->key_id);
		buf_append(out, r->wrapped, sizeof(r->wrapped));
	}
	if (!r->abandoned)
		encode_uploads(r, new_index, out);
	for (uint64_t i = 0, zeroes; i < r->page_count; i++) {
		if (r->pages[i].stored) {
			encode_page(r, &r->pages[i], new_index, out);
			continue;
		}
		for (zeroes = 1; i + 1 < r->page_count && !r->pages[i + 1].stored; i++)
			zeroes++;
		snap_put_var(out, PAGES_ZERO);
		snap_put_var(out, zeroes);
	}
	if (r->encrypted) {
		memcpy(sha, r->mac, sizeof(sha)); /* of one that was decoded, and never unlocked */
		if (r->cipher)
			encode_mac(r, out, start, sha);
		buf_append(out, sha, sizeof(sha));
	}
	snap_sha256(out->data + start, out->len - start, sha);
	buf_append(out, sha, sizeof(sha));
}

/* ---- decoding ---- */

/* The bytes between the ids and the uploads; and takes what authenticates off the end. */
static void decode_lock(const void *data, struct snap_in *in, struct snap_root *r)
{
	const unsigned char *len = snap_get_bytes(in, 1);
	const char *id = len && *len < KEY_ID_LEN ? snap_get_bytes(in, *len) : NULL;
	const void *wrapped = snap_get_bytes(in, sizeof(r->wrapped));

	if (!id || !wrapped || in->end - in->at < SHA256_LEN) {
		in->bad = true;
		return;
	}
	memcpy(r->key_id, id, *len);
	memcpy(r->wrapped, wrapped, sizeof(r->wrapped));
	in->end -= SHA256_LEN;
	memcpy(r->mac, in->end, SHA256_LEN);
	snap_sha256(data, (size_t)(in->end - (const unsigned char *)data), r->said);
}

static void decode_head(struct snap_in *in, struct snap_root *r)
{
	r->chunk_bytes = snap_get_u32(in);
	r->page_chunks = snap_get_u32(in);
	r->size_bytes = snap_get_u64(in);
	r->time_ms = (int64_t)snap_get_u64(in);
	r->data_chunks = snap_get_u64(in);
	r->added_chunks = snap_get_u64(in);
	r->added_bytes = snap_get_u64(in);
	snap_get_id(in, false, r->id);
	snap_get_id(in, true, r->volume);
	snap_get_id(in, true, r->parent);
	snap_get_id(in, true, r->lineage);
}

static void decode_uploads(struct snap_in *in, struct snap_root *r)
{
	r->upload_count = (unsigned)snap_get_var(in, SNAP_UPLOADS_MAX);
	r->uploads = calloc(r->upload_count + 1u, sizeof(*r->uploads));
	if (!r->uploads)
		abort();
	for (unsigned i = 0; i < r->upload_count && !in->bad; i++) {
		snap_get_id(in, false, r->uploads[i].snapshot);
		r->uploads[i].attempt = snap_get_u64(in);
	}
}

static void decode_page(struct snap_in *in, const struct snap_root *r, bool some, struct snap_page_ref *p)
{
	uint64_t last_upload = r->upload_count ? r->upload_count - 1 : 0;
	const void *bytes;

	in->bad |= !r->upload_count;
	p->stored = true;
	p->upload = (uint32_t)snap_get_var(in, last_upload);
	p->pack = (uint32_t)snap_get_var(in, UINT32_MAX);
	p->off = (uint32_t)snap_get_var(in, SNAP_PACK_MAX);
	p->len = (uint32_t)snap_get_var(in, SNAP_PACK_MAX - p->off);
	bytes = snap_get_bytes(in, SHA256_LEN);
	if (bytes)
		memcpy(p->sha, bytes, SHA256_LEN);
	if (some && (bytes = snap_get_bytes(in, (r->page_chunks + 7) / 8))) {
		p->present = calloc(1, SNAP_PAGE_CHUNKS_MAX / 8);
		if (!p->present)
			abort();
		memcpy(p->present, bytes, (r->page_chunks + 7) / 8);
	}
	unsigned runs = (unsigned)snap_get_var(in, r->page_chunks);
	if (in->bad || p->off < SNAP_PACK_HEADER || !p->len) {
		in->bad = true;
		return;
	}
	p->runs = calloc(runs + 1u, sizeof(*p->runs));
	if (!p->runs)
		abort();
	for (unsigned i = 0; i < runs && !in->bad; i++) {
		struct snap_run *run = &p->runs[p->run_count++];

		run->upload = (uint32_t)snap_get_var(in, last_upload);
		run->first = (uint32_t)snap_get_var(in, UINT32_MAX);
		run->count = (uint32_t)snap_get_var(in, UINT32_MAX - run->first);
		in->bad |= !run->count;
	}
}

static void decode_pages(struct snap_in *in, struct snap_root *r)
{
	uint64_t i = 0;

	r->page_count = (snap_root_chunks(r) + r->page_chunks - 1) / r->page_chunks;
	r->pages = calloc(r->page_count, sizeof(*r->pages));
	if (!r->pages)
		abort();
	while (i < r->page_count && !in->bad) {
		uint64_t tag = snap_get_var(in, PAGE_SOME);

		if (in->bad)
			return;
		if (tag == PAGES_ZERO) {
			uint64_t zeroes = snap_get_var(in, r->page_count - i);

			in->bad |= !zeroes;
			i += zeroes;
		} else {
			decode_page(in, r, tag == PAGE_SOME, &r->pages[i++]);
		}
	}
}

static int damaged(const char *id, const char *what, struct error *e)
{
	error_set(e, "Server.InternalError", "snapshot %s: its manifest (object " SNAP_ROOTS "%s) is damaged: %s", id, id, what);
	return -EBADMSG;
}

int snap_root_decode(const void *data, size_t len, const char *id, struct snap_root **ret, struct error *e)
{
	unsigned char sha[SHA256_LEN];

	if (len < 8 + SHA256_LEN || memcmp(data, ROOT_MAGIC, 8) != 0)
		return damaged(id, "it does not begin as one", e);
	snap_sha256(data, len - SHA256_LEN, sha);
	if (memcmp(sha, (const char *)data + len - SHA256_LEN, SHA256_LEN) != 0)
		return damaged(id, "its checksum is another", e);
	struct snap_in in = { data, (const unsigned char *)data + len - SHA256_LEN, false };
	snap_get_bytes(&in, 8);
	uint32_t version = snap_get_u32(&in), kind = snap_get_u32(&in), cipher = snap_get_u32(&in);
	if (version != ROOT_VERSION || cipher > CIPHER_GCM) {
		error_set(e, "UnsupportedOperation", "snapshot %s: its format (version %" PRIu32 ", cipher %" PRIu32
			  ") is not known to this release", id, version, cipher);
		return -EPROTONOSUPPORT;
	}
	_cleanup_(snap_root_freep) struct snap_root *r = calloc(1, sizeof(*r));
	if (!r)
		abort();
	decode_head(&in, r);
	if (!in.bad && !str_eq(r->id, id))
		return damaged(id, "it is another snapshot's", e);
	r->encrypted = cipher == CIPHER_GCM;
	if (r->encrypted && !in.bad)
		decode_lock(data, &in, r);
	r->abandoned = kind == ROOT_TOMBSTONE;
	if (!r->abandoned && !in.bad) {
		in.bad = kind != ROOT_SNAPSHOT || !snap_root_shape_ok(r);
		if (!in.bad)
			decode_uploads(&in, r);
		if (!in.bad)
			decode_pages(&in, r);
	}
	if (in.bad || in.at != in.end)
		return damaged(id, "what it says does not fit together", e);
	*ret = TAKE_PTR(r);
	return 0;
}
