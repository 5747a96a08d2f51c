/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/sc/snap_store.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "svc/sc/snap_store_priv.h"

struct snap_store *snap_store_open(struct objects *o)
{
	struct snap_store *s = calloc(1, sizeof(*s));

	if (!s)
		abort();
	s->objects = o;
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

void snap_store_close(struct snap_store *s)
{
	if (!s)
		return;
	assert(!s->uses);
	pthread_mutex_destroy(&s->lock);
	free(s->lineages);
	free(s);
}

void snap_store_use_keys(struct snap_store *s, struct keys *k)
{
	s->keys = k;
}

struct objects *snap_store_objects(struct snap_store *s)
{
	return s->objects;
}

/* ---- who uses what ---- */

static bool excludes(enum snap_use_kind a, enum snap_use_kind b)
{
	return a == SNAP_REMOVES || b == SNAP_REMOVES || (a == SNAP_WRITES && b == SNAP_WRITES);
}

int snap_use(struct snap_store *s, const char *id, enum snap_use_kind kind, struct snap_use **ret, struct error *e)
{
	static const char *const doing[] = { "being uploaded", "the parent of an upload under way", "being read", "being removed" };
	struct snap_use *u = calloc(1, sizeof(*u)), *other;

	if (!u)
		abort();
	pthread_mutex_lock(&s->lock);
	for (other = s->uses; other; other = other->next) {
		if (str_eq(other->id, id) && excludes(kind, other->kind))
			break;
	}
	if (!other) {
		snap_id_copy(u->id, id);
		u->kind = kind;
		u->next = s->uses;
		s->uses = u;
	} else {
		error_set(e, "InvalidSnapshot.InUse", "snapshot %s is %s: try again when that has ended", id, doing[other->kind]);
	}
	pthread_mutex_unlock(&s->lock);
	if (other) {
		free(u);
		return -EBUSY;
	}
	*ret = u;
	return 0;
}

void snap_unuse(struct snap_store *s, struct snap_use *u)
{
	if (!u)
		return;
	pthread_mutex_lock(&s->lock);
	for (struct snap_use **at = &s->uses; *at; at = &(*at)->next) {
		if (*at == u) {
			*at = u->next;
			break;
		}
	}
	pthread_mutex_unlock(&s->lock);
	free(u);
}

bool snap_is_used(struct snap_store *s, const char *id, enum snap_use_kind kind)
{
	bool found = false;

	pthread_mutex_lock(&s->lock);
	for (struct snap_use *u = s->uses; u && !found; u = u->next)
		found = u->kind == kind && str_eq(u->id, id);
	pthread_mutex_unlock(&s->lock);
	return found;
}

/* ---- roots ---- */

static int no_snapshot(const char *snapshot, struct error *e)
{
	error_set(e, "InvalidSnapshot.NotFound", "there is no snapshot %s", snapshot);
	return -ENOENT;
}

int snap_load_any_root(struct snap_store *s, const char *snapshot, struct snap_root **ret, struct error *e)
{
	_cleanup_(buf_done) struct buf raw = BUF_INIT;
	struct error why = { 0 };
	char key[SNAP_KEY_MAX];

	if (!snap_id_ok(snapshot))
		return no_snapshot(snapshot, e);
	snap_root_key(snapshot, key);
	/* What comes damaged is asked for again: perhaps it was only on its way here. */
	for (unsigned attempt = 0;; attempt++) {
		int err = objects_get(s->objects, key, 0, SNAP_ROOT_MAX, &raw, &why);

		if (err == -ENOENT)
			return no_snapshot(snapshot, e);
		if (!err)
			err = snap_root_decode(raw.data, raw.len, snapshot, ret, &why);
		if (err != -EBADMSG || attempt + 1 == SNAP_READ_ATTEMPTS) {
			if (err && e)
				*e = why;
			return err;
		}
		buf_reset(&raw);
		error_clear(&why);
	}
}

int snap_load_root(struct snap_store *s, const char *snapshot, struct snap_root **ret, struct error *e)
{
	int err = snap_load_any_root(s, snapshot, ret, e);

	if (!err && (*ret)->abandoned) {
		snap_root_free(*ret);
		return no_snapshot(snapshot, e);
	}
	return err;
}

int snap_open_root(struct snap_store *s, const char *snapshot, const unsigned char *key, struct snap_root **ret, struct error *e)
{
	struct snap_root *r;
	int err = snap_load_root(s, snapshot, &r, e);

	if (err)
		return err;
	err = snap_root_unlock(r, s->keys, key, e);
	if (err)
		snap_root_free(r);
	else
		*ret = r;
	return err;
}

int snap_data_key(struct snap_store *s, const char *snapshot, unsigned char ret[static SNAP_DATA_KEY_BYTES], struct error *e)
{
	_cleanup_(snap_root_freep) struct snap_root *r = NULL;
	int err = snap_open_root(s, snapshot, NULL, &r, e);

	static_assert(SNAP_DATA_KEY_BYTES == SNAP_KEY_BYTES, "one key under two names");
	if (!err && !r->encrypted) {
		error_set(e, "InternalError", "snapshot %s is not encrypted", snapshot);
		err = -EINVAL;
	}
	if (!err)
		snap_cipher_key(r->cipher, ret);
	return err;
}

int snap_info(struct snap_store *s, const char *snapshot, struct snap_info *ret, struct error *e)
{
	struct snap_root *r;
	int err = snap_load_root(s, snapshot, &r, e);

	if (err)
		return err;
	*ret = (struct snap_info){ .size_bytes = r->size_bytes, .time_ms = r->time_ms, .chunk_bytes = r->chunk_bytes,
				   .data_bytes = r->data_chunks * r->chunk_bytes, .added_bytes = r->added_bytes,
				   .encrypted = r->encrypted };
	memcpy(ret->key_id, r->key_id, sizeof(ret->key_id));
	memcpy(ret->id, r->id, ID_LEN);
	memcpy(ret->volume, r->volume, ID_LEN);
	memcpy(ret->parent, r->parent, ID_LEN);
	snap_root_free(r);
	return 0;
}

void snap_ids_done(struct snap_ids *ids)
{
	free(ids->id);
	*ids = (struct snap_ids){ 0 };
}

void snap_ids_add(struct snap_ids *ids, const char *id)
{
	if (ids->count == ids->cap) {
		ids->cap = ids->cap ? 2 * ids->cap : 64;
		ids->id = realloc(ids->id, ids->cap * sizeof(*ids->id));
		if (!ids->id)
			abort();
	}
	snap_id_copy(ids->id[ids->count++], id);
}

struct id_lister {
	struct snap_ids *ids;
	size_t prefix_len;
};

static int add_id(void *ctx, const struct object_entry *entry)
{
	struct id_lister *l = ctx;

	if (snap_id_ok(entry->key + l->prefix_len))
		snap_ids_add(l->ids, entry->key + l->prefix_len);
	return 0;
}

int snap_all_ids(struct snap_store *s, const char *prefix, struct snap_ids *ret, struct error *e)
{
	struct id_lister l = { ret, strlen(prefix) };

	return objects_list(s->objects, prefix, add_id, &l, e);
}

int snap_list(struct snap_store *s, int (*fn)(void *ctx, const char *snapshot), void *ctx, struct error *e)
{
	_cleanup_(snap_ids_done) struct snap_ids ids = { 0 };
	int err = snap_all_ids(s, SNAP_ROOTS, &ids, e);

	for (size_t i = 0; !err && i < ids.count; i++) {
		_cleanup_(snap_root_freep) struct snap_root *r = NULL;
		struct error why = { 0 };

		err = snap_load_any_root(s, ids.id[i], &r, &why);
		if (err == -ENOENT || (!err && r->abandoned)) {
			err = 0;
		} else if (!err || err == -EBADMSG || err == -EPROTONOSUPPORT) {
			err = fn(ctx, ids.id[i]);
		} else if (e) {
			*e = why;
		}
	}
	return err;
}

/* ---- pages and chunks ---- */

static int page_problem(const struct snap_root *r, uint64_t index, const char *what, struct error *e)
{
	const struct snap_page_ref *ref = &r->pages[index];
	char key[SNAP_KEY_MAX];

	snap_pack_key(&r->uploads[ref->upload], ref->pack, key);
	error_set(e, "Server.InternalError", "snapshot %s: page %" PRIu64 " of its manifest (chunks from %" PRIu64 " on; object %s, %"
		  PRIu32 " bytes at %" PRIu32 ") is %s", r->id, index, index * r->page_chunks, key, ref->len, ref->off, what);
	return -EBADMSG;
}

static int decode_page(const struct snap_root *r, uint64_t index, const struct buf *stored, struct snap_page **ret)
{
	const struct snap_page_ref *ref = &r->pages[index];
	struct snap_place at = { &r->uploads[ref->upload], ref->pack, ref->off, SNAP_BLOB_PAGE, 0, index };

	if (!r->encrypted)
		return snap_page_decode(stored->data, stored->len, index, r->page_chunks, ret);
	_cleanup_(freep) unsigned char *plain = malloc(stored->len);
	if (!plain || snap_unseal(r->cipher, &at, stored->data, stored->len, plain))
		return -EBADMSG;
	return snap_page_decode(plain, stored->len - SNAP_TAG, index, r->page_chunks, ret);
}

int snap_load_page(struct objects *o, const struct snap_root *r, uint64_t index, struct snap_page **ret, struct error *e)
{
	const struct snap_page_ref *ref = &r->pages[index];
	_cleanup_(buf_done) struct buf raw = BUF_INIT;
	unsigned char sha[SHA256_LEN];
	char key[SNAP_KEY_MAX];

	assert(ref->stored);
	snap_pack_key(&r->uploads[ref->upload], ref->pack, key);
	for (unsigned attempt = 0; attempt < SNAP_READ_ATTEMPTS; attempt++) {
		buf_reset(&raw);
		int err = objects_get(o, key, ref->off, ref->len, &raw, e);
		if (err == -ENOENT) {
			snap_error_clear(e);
			return page_problem(r, index, "missing", e);
		}
		if (err)
			return err;
		if (raw.len != ref->len)
			continue;
		snap_sha256(raw.data, raw.len, sha);
		if (memcmp(sha, ref->sha, SHA256_LEN) == 0 && decode_page(r, index, &raw, ret) == 0)
			return 0;
	}
	return page_problem(r, index, "corrupt", e);
}

int snap_get_page(struct objects *o, const struct snap_root *r, uint64_t index, struct snap_page **ret, struct error *e)
{
	if (r->pages[index].stored)
		return snap_load_page(o, r, index, ret, e);
	*ret = snap_page_new(index, r->page_chunks);
	return 0;
}

void snap_page_chunk_key(const struct snap_page *p, unsigned i, char out[static SNAP_KEY_MAX])
{
	const struct snap_pack_ref *pack = &p->packs[p->chunk[i].pack];

	snap_pack_key(&pack->upload, pack->number, out);
}

static int chunk_problem(const struct snap_root *r, const struct snap_page *p, unsigned i, const char *what, struct error *e)
{
	char key[SNAP_KEY_MAX];

	snap_page_chunk_key(p, i, key);
	error_set(e, "Server.InternalError", "snapshot %s: chunk %" PRIu64 " (object %s, %" PRIu32 " bytes at %" PRIu32 ") is %s",
		  r->id, p->index * r->page_chunks + i, key, p->chunk[i].len, p->chunk[i].off, what);
	return -EBADMSG;
}

void snap_chunk_name(const struct snap_page *p, unsigned i, unsigned char out[static SHA256_LEN])
{
	char text[SNAP_KEY_MAX + 64];

	snap_page_chunk_key(p, i, text);
	size_t len = strlen(text);
	snprintf(text + len, sizeof(text) - len, " %" PRIu32 "+%" PRIu32, p->chunk[i].off, p->chunk[i].len);
	snap_sha256(text, strlen(text), out);
}

int snap_read_chunk(const struct snap_root *r, const struct snap_page *p, unsigned i, const void *stored, void *out)
{
	const struct snap_chunk_ref *c = &p->chunk[i];
	const struct snap_pack_ref *pack = &p->packs[c->pack];
	struct snap_place at = { &pack->upload, pack->number, c->off, SNAP_BLOB_CHUNK, c->codec, p->index * r->page_chunks + i };
	_cleanup_(freep) unsigned char *plain = NULL;
	unsigned char sha[SHA256_LEN];
	size_t len = c->len;

	if (r->encrypted) {
		plain = malloc(len);
		if (!plain || snap_unseal(r->cipher, &at, stored, len, plain))
			return -EBADMSG;
		stored = plain;
		len -= SNAP_TAG;
	}
	if (snap_decompress(c->codec, stored, len, out, r->chunk_bytes))
		return -EBADMSG;
	snap_digest(r->cipher, out, r->chunk_bytes, sha);
	return memcmp(sha, c->sha, SHA256_LEN) == 0 ? 0 : -EBADMSG;
}

int snap_load_chunk(struct objects *o, const struct snap_root *r, const struct snap_page *p, unsigned i, struct buf *scratch,
		    void *out, struct error *e)
{
	const struct snap_chunk_ref *c = &p->chunk[i];
	char key[SNAP_KEY_MAX];

	if (c->codec == SNAP_ZERO) {
		memset(out, 0, r->chunk_bytes);
		return 0;
	}
	snap_page_chunk_key(p, i, key);
	for (unsigned attempt = 0; attempt < SNAP_READ_ATTEMPTS; attempt++) {
		buf_reset(scratch);
		int err = objects_get(o, key, c->off, c->len, scratch, e);
		if (err == -ENOENT) {
			snap_error_clear(e);
			return chunk_problem(r, p, i, "missing", e);
		}
		if (err)
			return err;
		if (scratch->len == c->len && snap_read_chunk(r, p, i, scratch->data, out) == 0)
			return 0;
	}
	return chunk_problem(r, p, i, "corrupt: it does not have its SHA-256", e);
}
