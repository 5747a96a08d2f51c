/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/sc/snap_resume_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct snap_resume {
	struct objects *objects;
	const struct snap_cipher *cipher;
	struct snap_sent *sent;
	size_t count, cap;
	struct error *e;
};

static void add(struct snap_resume *r, const struct upload_id *u, uint32_t pack, const struct snap_blob *b)
{
	if (r->count == r->cap) {
		r->cap = r->cap ? 2 * r->cap : 256;
		r->sent = realloc(r->sent, r->cap * sizeof(*r->sent));
		if (!r->sent)
			abort();
	}
	struct snap_sent *s = &r->sent[r->count++];
	*s = (struct snap_sent){ .number = b->number, .upload = *u, .pack = pack, .off = b->off, .len = b->len, .codec = b->codec };
	memcpy(s->sha, b->sha, SHA256_LEN);
}

static int read_pack(void *ctx, const struct object_entry *entry)
{
	struct snap_resume *r = ctx;
	_cleanup_(buf_done) struct buf tail = BUF_INIT;
	struct snap_blob *blobs;
	size_t need = 65536;
	struct snap_pack_ref at;
	unsigned count;
	int err;

	if (snap_parse_pack_key(entry->key, &at.upload, &at.number))
		return 0;
	for (unsigned attempt = 0; attempt < 2; attempt++) {
		need = (size_t)MIN_OF((uint64_t)need, entry->size_bytes);
		buf_reset(&tail);
		err = need ? objects_get(r->objects, entry->key, entry->size_bytes - need, need, &tail, r->e) : -ENOENT;
		if (err == -ENOENT) {
			error_clear(r->e);
			return 0;
		}
		if (err)
			return err;
		err = snap_pack_index((const unsigned char *)tail.data, tail.len, entry->size_bytes, r->cipher, &at, &blobs, &count,
				      &need);
		if (err != -EAGAIN)
			break;
	}
	if (err)
		return 0;
	for (unsigned i = 0; i < count; i++) {
		bool known = blobs[i].codec == SNAP_RAW || blobs[i].codec == SNAP_ZSTD;

		if (blobs[i].kind == SNAP_BLOB_CHUNK && known && blobs[i].len <= SNAP_CHUNK_MAX + SNAP_TAG)
			add(r, &at.upload, at.number, &blobs[i]);
	}
	free(blobs);
	return 0;
}

static int by_number(const void *a, const void *b)
{
	const struct snap_sent *x = a, *y = b;

	return (x->number > y->number) - (x->number < y->number);
}

int snap_resume_load(struct objects *o, const char *snapshot, const struct snap_cipher *cipher, struct snap_resume **ret, struct error *e)
{
	struct snap_resume *r = calloc(1, sizeof(*r));
	struct error why = { 0 };
	char prefix[SNAP_KEY_MAX];

	if (!r)
		abort();
	r->objects = o;
	r->cipher = cipher;
	r->e = &why;
	snprintf(prefix, sizeof(prefix), SNAP_PACKS "%s/", snapshot);
	int err = objects_list(o, prefix, read_pack, r, &why);
	r->e = NULL;
	if (err) {
		if (e && !error_is_set(e))
			*e = why;
		snap_resume_free(r);
		return err;
	}
	if (r->count)
		qsort(r->sent, r->count, sizeof(*r->sent), by_number);
	*ret = r;
	return 0;
}

void snap_resume_free(struct snap_resume *r)
{
	if (!r)
		return;
	free(r->sent);
	free(r);
}

const struct snap_sent *snap_resume_find(const struct snap_resume *r, uint64_t chunk, const unsigned char sha[static SHA256_LEN])
{
	size_t lo = 0, hi = r ? r->count : 0;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->sent[mid].number < chunk)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; r && lo < r->count && r->sent[lo].number == chunk; lo++) {
		if (memcmp(r->sent[lo].sha, sha, SHA256_LEN) == 0)
			return &r->sent[lo];
	}
	return NULL;
}
