/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of an upload: its mark, its packs (chunks, and the pages that tell of them), its root, its mark removed. One page is
 * open at a time, the one that the last told chunk is in; when the next page's turn comes it is packed like a chunk. Pages that
 * nothing was told of are the parent's, referred to where they lie. The root is written only when every pack was answered for,
 * and only where there is none: there a tombstone stops an upload that was given up meanwhile.
 */
#include "svc/sc/snap_writer.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "os/locked.h"
#include "svc/sc/snap_resume_priv.h"
#include "svc/sc/snap_send_priv.h"
#include "svc/sc/snap_store_priv.h"

struct snap_writer {
	struct snap_store *store;
	struct objects *objects;
	struct snap_use *use, *parent_use;
	struct snap_root *root;       /* the new one as it grows: parent's pages until they are replaced */
	struct upload_id id;
	struct snap_send *send;
	struct snap_resume *resume;
	struct snap_packer *packer;
	bool compress, committed;
	struct snap_page *page;       /* the open one; NULL: none yet */
	bool dirty;
	unsigned char *padded, *packed; /* a chunk each */
	_Atomic uint64_t next_chunk, told, resumed;
	int err;                      /* the first failure; nothing goes on after it */
	struct error why;
};

static int stay_failed(struct snap_writer *w, int err, const struct error *why, struct error *e)
{
	if (err && !w->err) {
		w->err = err;
		w->why = *why;
	}
	if (w->err && e && !error_is_set(e))
		*e = w->why;
	return w->err;
}

/* ---- beginning ---- */

static int put_mark(struct snap_writer *w, const char *parent, struct error *e)
{
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	struct snap_mark mark = { .time_ms = clock_unix_ms() };
	char key[SNAP_KEY_MAX];

	snap_id_copy(mark.parent, parent);
	if (w->root && w->root->encrypted) {
		memcpy(mark.key_id, w->root->key_id, sizeof(mark.key_id));
		memcpy(mark.wrapped, w->root->wrapped, sizeof(mark.wrapped));
	}
	snap_mark_key(w->id.snapshot, key);
	snap_mark_encode(w->id.snapshot, &mark, &text);
	return objects_put(w->objects, key, text.data, text.len, false, e);
}

static int remove_mark(struct snap_writer *w)
{
	char key[SNAP_KEY_MAX];

	snap_mark_key(w->id.snapshot, key);
	return objects_remove(w->objects, key, NULL);
}

/* The snapshot must not exist, nor have been given up. */
static int check_is_new(struct snap_writer *w, struct error *e)
{
	struct error why = { 0 };
	struct snap_root *r;
	int err = snap_load_any_root(w->store, w->id.snapshot, &r, &why);

	if (err == -ENOENT)
		return 0;
	if (err && err != -EBADMSG && err != -EPROTONOSUPPORT) {
		*e = why;
		return err;
	}
	bool abandoned = !err && r->abandoned;
	if (!err)
		snap_root_free(r);
	error_set(e, "InvalidSnapshot.Duplicate", abandoned ? "the upload of snapshot %s was given up: start another with a new id" :
		  "there is a snapshot %s already", w->id.snapshot);
	return -EEXIST;
}

/* The new root: geometry, and the parent's pages. */
static int make_root(struct snap_writer *w, const struct snap_writer_config *c, const struct snap_root *parent, struct error *e)
{
	struct snap_root *r = w->root;

	if (parent && parent->encrypted != c->encrypted) {
		error_set(e, "InvalidParameterValue", "snapshot %s: its parent is %sencrypted, and so is it, or it has no parent", c->snapshot,
			  parent->encrypted ? "" : "not ");
		return -EINVAL;
	}
	if (parent && c->size_bytes < parent->size_bytes) {
		error_set(e, "InvalidParameterValue", "snapshot %s cannot be smaller than its parent", c->snapshot);
		return -EINVAL;
	}
	snap_id_copy(r->volume, c->volume ? c->volume : "");
	snap_id_copy(r->parent, parent ? parent->id : "");
	memcpy(r->lineage, parent ? parent->lineage : r->id, sizeof(r->lineage));
	r->chunk_bytes = parent ? parent->chunk_bytes : c->chunk_bytes ? c->chunk_bytes : SNAP_CHUNK_BYTES;
	r->page_chunks = parent ? parent->page_chunks : c->page_chunks ? c->page_chunks : SNAP_PAGE_CHUNKS;
	r->size_bytes = c->size_bytes;
	r->time_ms = clock_unix_ms();
	if (!snap_root_shape_ok(r)) {
		error_set(e, "InvalidParameterValue", "snapshot %s: its size does not fit its chunks", c->snapshot);
		return -EINVAL;
	}
	r->page_count = (snap_root_chunks(r) + r->page_chunks - 1) / r->page_chunks;
	r->pages = calloc(r->page_count, sizeof(*r->pages));
	if (!r->pages)
		abort();
	for (unsigned i = 0; parent && i < parent->upload_count; i++)
		snap_root_upload(r, &parent->uploads[i]);
	for (uint64_t i = 0; parent && i < parent->page_count; i++)
		snap_page_ref_copy(&r->pages[i], &parent->pages[i]);
	if (!parent || !parent->encrypted)
		return 0;
	_cleanup_(locked_freep) void *key = locked_new(SNAP_KEY_BYTES);
	if (!key)
		return error_errno(e, ENOMEM, "snapshot %s", c->snapshot);
	snap_cipher_key(parent->cipher, key);
	return snap_root_lock(r, w->store->keys, key, e); /* by the newest master key */
}

/* The key of a first snapshot's earlier upload, whose mark has it; else a new one. */
static int make_key(struct snap_writer *w, bool resume, struct error *e)
{
	_cleanup_(locked_freep) void *key = locked_new(SNAP_KEY_BYTES);
	struct snap_root *r = w->root;
	struct snap_mark mark = { 0 };

	if (!w->store->keys) {
		error_set(e, "KMSKeyNotFound", "snapshot %s is to be encrypted, and there is no master key", r->id);
		return -ENOKEY;
	}
	if (!key)
		return error_errno(e, ENOMEM, "snapshot %s", r->id);
	int err = resume ? snap_read_mark(w->store, r->id, &mark, e) : 0;
	if (err == -ENOENT) {
		snap_error_clear(e);
		err = 0;
	}
	if (err)
		return err;
	if (!*mark.key_id || snap_root_unwrap(r, w->store->keys, mark.key_id, mark.wrapped, key, NULL))
		random_bytes(key, SNAP_KEY_BYTES); /* what was sent is of no use */
	return snap_root_lock(r, w->store->keys, key, e);
}

static void new_root(struct snap_writer *w)
{
	w->root = calloc(1, sizeof(*w->root));
	if (!w->root)
		abort();
	snap_id_copy(w->root->id, w->id.snapshot);
	snap_id_copy(w->root->lineage, w->id.snapshot); /* unless it has a parent */
}

static int use_parent(struct snap_writer *w, const struct snap_writer_config *c, struct error *e)
{
	_cleanup_(snap_root_freep) struct snap_root *parent = NULL;
	int err;

	if (!c->parent || !*c->parent)
		return make_root(w, c, NULL, e);
	err = snap_use(w->store, c->parent, SNAP_PARENT, &w->parent_use, e);
	if (!err)
		err = snap_open_root(w->store, c->parent, NULL, &parent, e);
	return err ? err : make_root(w, c, parent, e);
}

static int check_config(const struct snap_writer_config *c, struct error *e)
{
	bool ids = c->snapshot && snap_id_ok(c->snapshot) && (!c->volume || !*c->volume || snap_id_ok(c->volume)) &&
		   (!c->parent || !*c->parent || (snap_id_ok(c->parent) && !str_eq(c->parent, c->snapshot)));

	if (ids && c->size_bytes && c->size_bytes % 512 == 0 && c->size_bytes <= SNAP_SIZE_MAX)
		return 0;
	error_set(e, "InvalidParameterValue", "a snapshot wants ids of letters, digits and hyphens, and a size of sectors up to 64 TiB");
	return -EINVAL;
}

int snap_writer_begin(struct snap_store *s, const struct snap_writer_config *c, struct snap_writer **ret, struct error *e)
{
	struct snap_writer *w;
	struct error why = { 0 };
	int err = check_config(c, e);

	if (err)
		return err;
	w = calloc(1, sizeof(*w));
	if (!w)
		abort();
	w->store = s;
	w->objects = s->objects;
	w->compress = !c->no_compression;
	snap_id_copy(w->id.snapshot, c->snapshot);
	random_bytes(&w->id.attempt, sizeof(w->id.attempt));
	err = snap_use(s, c->snapshot, SNAP_WRITES, &w->use, &why);
	if (!err)
		err = check_is_new(w, &why);
	if (!err)
		new_root(w);
	if (!err && c->encrypted && (!c->parent || !*c->parent))
		err = make_key(w, c->resume, &why);
	if (!err)
		err = put_mark(w, c->parent ? c->parent : "", &why);
	if (!err) {
		err = use_parent(w, c, &why);
		if (!err && c->resume)
			err = snap_resume_load(w->objects, c->snapshot, w->root->cipher, &w->resume, &why);
		if (err && !c->resume)
			(void)remove_mark(w);
	}
	if (err) {
		snap_writer_free(w);
		if (e)
			*e = why;
		return err;
	}
	w->padded = malloc(w->root->chunk_bytes);
	w->packed = malloc(w->root->chunk_bytes);
	if (!w->padded || !w->packed)
		abort();
	w->packer = snap_packer_new();
	w->send = snap_send_new(w->objects, &w->id, c->in_flight ? c->in_flight : 2, c->pack_bytes ? c->pack_bytes : SNAP_PACK_BYTES,
				w->root->cipher);
	*ret = w;
	return 0;
}

uint32_t snap_writer_chunk_bytes(const struct snap_writer *w)
{
	return w->root->chunk_bytes;
}

uint64_t snap_writer_chunks(const struct snap_writer *w)
{
	return snap_root_chunks(w->root);
}

/* ---- pages ---- */

static int close_page(struct snap_writer *w, struct error *e)
{
	struct snap_page *p = w->page;
	struct snap_page_ref *ref;
	int err = 0;

	w->page = NULL;
	if (!p || !w->dirty) {
		snap_page_free(p);
		return 0;
	}
	ref = &w->root->pages[p->index];
	snap_page_compact(p);
	snap_page_ref_done(ref);
	if (p->pack_count > 0) {
		_cleanup_(buf_done) struct buf raw = BUF_INIT;
		struct snap_blob blob = { .kind = SNAP_BLOB_PAGE, .number = p->index };

		snap_page_encode(p, &raw);
		blob.len = (uint32_t)raw.len;
		err = snap_send_add(w->send, &blob, raw.data, &ref->pack, e);
		ref->stored = true;
		ref->upload = snap_root_upload(w->root, &w->id);
		ref->off = blob.off;
		ref->len = blob.len;
		memcpy(ref->sha, blob.sha, SHA256_LEN);
		snap_page_ref_describe(w->root, ref, p);
	}
	snap_page_free(p);
	return err;
}

static int open_page(struct snap_writer *w, uint64_t index, struct error *e)
{
	int err;

	if (w->page && w->page->index == index)
		return 0;
	err = close_page(w, e);
	w->dirty = false;
	return err ? err : snap_get_page(w->objects, w->root, index, &w->page, e);
}

/* ---- chunks ---- */

static int out_of_order(struct snap_writer *w, uint64_t first, uint64_t count, struct error *e)
{
	uint64_t chunks = snap_root_chunks(w->root);

	if (first >= w->next_chunk && first <= chunks && count <= chunks - first)
		return 0;
	error_set(e, "InternalError", "chunk %llu of snapshot %s is told out of its order, or is behind the end",
		  (unsigned long long)first, w->id.snapshot);
	return -EINVAL;
}

/* The stored form of a chunk into a pack. */
static int add_chunk(struct snap_writer *w, uint64_t chunk, const void *data, const unsigned char *sha, struct snap_chunk_ref *ref,
		     struct error *e)
{
	uint32_t len = w->root->chunk_bytes, pack;
	size_t packed = w->compress ? snap_compress(w->packer, data, len, w->packed) : 0;
	struct snap_blob blob = { .kind = SNAP_BLOB_CHUNK, .codec = packed ? SNAP_ZSTD : SNAP_RAW,
				  .len = packed ? (uint32_t)packed : len, .number = chunk };
	int err;

	memcpy(blob.sha, sha, SHA256_LEN);
	err = snap_send_add(w->send, &blob, packed ? w->packed : data, &pack, e);
	if (err)
		return err;
	ref->pack = snap_page_pack(w->page, &w->id, pack);
	ref->codec = blob.codec;
	ref->off = blob.off;
	ref->len = blob.len;
	memcpy(ref->sha, sha, SHA256_LEN);
	w->root->added_chunks++;
	w->root->added_bytes += blob.len;
	return 0;
}

static void take_resumed(struct snap_writer *w, const struct snap_sent *sent, struct snap_chunk_ref *ref)
{
	ref->pack = snap_page_pack(w->page, &sent->upload, sent->pack);
	ref->codec = sent->codec;
	ref->off = sent->off;
	ref->len = sent->len;
	memcpy(ref->sha, sent->sha, SHA256_LEN);
	w->root->added_chunks++;
	w->root->added_bytes += sent->len;
	w->resumed++;
}

static int put_chunk(struct snap_writer *w, uint64_t chunk, const void *data, struct error *e)
{
	uint32_t per_page = w->root->page_chunks;
	unsigned char sha[SHA256_LEN];
	int err = open_page(w, chunk / per_page, e);

	if (err)
		return err;
	struct snap_chunk_ref *ref = &w->page->chunk[chunk % per_page];
	if (snap_all_zero(data, w->root->chunk_bytes)) {
		w->dirty |= ref->codec != SNAP_ZERO;
		*ref = (struct snap_chunk_ref){ 0 };
		return 0;
	}
	snap_digest(w->root->cipher, data, w->root->chunk_bytes, sha);
	if (ref->codec != SNAP_ZERO && memcmp(ref->sha, sha, SHA256_LEN) == 0)
		return 0;
	w->dirty = true;
	*ref = (struct snap_chunk_ref){ 0 };
	const struct snap_sent *sent = snap_resume_find(w->resume, chunk, sha);
	if (!sent)
		return add_chunk(w, chunk, data, sha, ref, e);
	take_resumed(w, sent, ref);
	return 0;
}

int snap_writer_put(struct snap_writer *w, uint64_t chunk, const void *data, size_t len, struct error *e)
{
	uint32_t full = w->root->chunk_bytes;
	struct error why = { 0 };
	int err = w->err ? 0 : out_of_order(w, chunk, 1, &why);

	if (!err && !w->err && len < full) {
		if (chunk + 1 != snap_root_chunks(w->root) || len < w->root->size_bytes - chunk * full) {
			error_set(&why, "InternalError", "chunk %llu of snapshot %s is given short", (unsigned long long)chunk,
				  w->id.snapshot);
			err = -EINVAL;
		} else {
			memcpy(w->padded, data, len);
			memset(w->padded + len, 0, full - len);
			data = w->padded;
		}
	}
	if (!err && !w->err)
		err = put_chunk(w, chunk, data, &why);
	if (!err && !w->err) {
		w->next_chunk = chunk + 1;
		w->told++;
	}
	return stay_failed(w, err, &why, e);
}

/* All chunks of one page from `first` on. */
static int zero_in_page(struct snap_writer *w, uint64_t first, unsigned count, struct error *e)
{
	uint32_t per_page = w->root->page_chunks;
	bool open = w->page && w->page->index == first / per_page;
	int err;

	if (!open && !w->root->pages[first / per_page].stored)
		return 0;
	err = open_page(w, first / per_page, e);
	for (unsigned i = 0; !err && i < count; i++) {
		struct snap_chunk_ref *ref = &w->page->chunk[first % per_page + i];

		w->dirty |= ref->codec != SNAP_ZERO;
		*ref = (struct snap_chunk_ref){ 0 };
	}
	return err;
}

int snap_writer_zero(struct snap_writer *w, uint64_t first, uint64_t count, struct error *e)
{
	uint32_t per_page = w->root->page_chunks;
	struct error why = { 0 };
	int err = w->err ? 0 : out_of_order(w, first, count, &why);

	for (uint64_t at = first, end = first + count; !err && !w->err && at < end;) {
		uint64_t n = MIN_OF(end - at, per_page - at % per_page);

		err = zero_in_page(w, at, (unsigned)n, &why);
		at += n;
	}
	if (!err && !w->err && count) {
		w->next_chunk = first + count;
		w->told += count;
	}
	return stay_failed(w, err, &why, e);
}

/* ---- committing ---- */

static uint64_t count_data_chunks(const struct snap_root *r)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < r->page_count; i++) {
		const struct snap_page_ref *p = &r->pages[i];

		if (!p->stored)
			continue;
		for (unsigned j = 0; p->present && j < r->page_chunks / 8; j++)
			sum += (unsigned)__builtin_popcount(p->present[j]);
		if (!p->present)
			sum += r->page_chunks;
	}
	return sum;
}

/* Whether the root that is there is the one that we want there. */
static bool is_ours(struct snap_writer *w, const struct buf *raw)
{
	_cleanup_(snap_root_freep) struct snap_root *r = NULL;
	_cleanup_(buf_done) struct buf there = BUF_INIT;

	if (snap_load_any_root(w->store, w->id.snapshot, &r, NULL))
		return false;
	snap_root_encode(r, &there);
	return there.len == raw->len && memcmp(there.data, raw->data, raw->len) == 0;
}

static int put_root(struct snap_writer *w, struct error *e)
{
	_cleanup_(buf_done) struct buf raw = BUF_INIT;
	char key[SNAP_KEY_MAX];
	int err;

	w->root->data_chunks = count_data_chunks(w->root);
	snap_root_encode(w->root, &raw);
	if (raw.len > SNAP_ROOT_MAX) {
		error_set(e, "InternalError", "snapshot %s: its manifest would be too long (%zu bytes): make one without a parent",
			  w->id.snapshot, raw.len);
		return -EFBIG;
	}
	snap_root_key(w->id.snapshot, key);
	err = objects_put(w->objects, key, raw.data, raw.len, true, e);
	if (err != -EEXIST)
		return err;
	snap_error_clear(e);
	if (is_ours(w, &raw)) /* an answer was lost */
		return 0;
	error_set(e, "InvalidSnapshot.Duplicate", "the upload of snapshot %s was given up, or another was faster", w->id.snapshot);
	return -EEXIST;
}

int snap_writer_commit(struct snap_writer *w, struct snap_info *ret, struct error *e)
{
	const struct snap_root *r = w->root;
	struct error why = { 0 };
	int err = 0;

	if (!w->err) {
		err = close_page(w, &why);
		if (!err)
			err = snap_send_finish(w->send, &why);
		if (!err)
			err = put_root(w, &why);
		w->committed = !err;
	}
	err = stay_failed(w, err, &why, e);
	if (err)
		return err;
	(void)remove_mark(w); /* gc's, if it stays */
	w->next_chunk = snap_root_chunks(r);
	if (ret) {
		*ret = (struct snap_info){ .size_bytes = r->size_bytes, .time_ms = r->time_ms, .chunk_bytes = r->chunk_bytes,
					   .data_bytes = r->data_chunks * r->chunk_bytes, .added_bytes = r->added_bytes,
					   .encrypted = r->encrypted };
		memcpy(ret->key_id, r->key_id, sizeof(ret->key_id));
		memcpy(ret->id, r->id, ID_LEN);
		memcpy(ret->volume, r->volume, ID_LEN);
		memcpy(ret->parent, r->parent, ID_LEN);
	}
	return 0;
}

void snap_writer_progress(struct snap_writer *w, struct snap_progress *ret)
{
	*ret = (struct snap_progress){ .chunks_told = w->told, .position = w->next_chunk, .chunks = snap_root_chunks(w->root),
				       .sent_bytes = snap_send_sent(w->send), .added_bytes = snap_send_added(w->send),
				       .resumed_chunks = w->resumed };
}

void snap_writer_cancel(struct snap_writer *w)
{
	snap_send_cancel(w->send);
}

void snap_writer_free(struct snap_writer *w)
{
	if (!w)
		return;
	snap_send_free(w->send);
	snap_resume_free(w->resume);
	snap_packer_free(w->packer);
	snap_page_free(w->page);
	snap_root_free(w->root);
	snap_unuse(w->store, w->parent_use);
	snap_unuse(w->store, w->use);
	free(w->padded);
	free(w->packed);
	free(w);
}
