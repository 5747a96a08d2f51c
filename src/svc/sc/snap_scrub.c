/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots are looked at by lineage and age. What one shares with the one before it of its lineage was looked at with that one: pages
 * with the same SHA-256 are passed over, and so are chunks that lie at the same place of the same pack. What was found wrong is
 * remembered by where it lies, so that it is reported of every snapshot that refers to it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "svc/sc/snap_store_priv.h"

struct bad { /* a chunk that was found wrong */
	uint64_t chunk;
	struct snap_pack_ref pack;
	uint32_t off;
	bool unreadable;
	char message[512];
};

struct scrub {
	struct snap_store *store;
	const struct snap_scrub *how;
	struct snap_scrubbed sum;
	struct snap_root *before; /* of the same lineage, looked at already; NULL: none */
	bool before_whole;        /* all its pages could be read */
	struct bad *bad;
	size_t bad_count, bad_cap;
	struct buf scratch;
	unsigned char *chunk;
	struct snap_page *page, *page_before;
};

static bool stopped(struct scrub *s)
{
	return (s->how->progress && s->how->progress(s->how->ctx, &s->sum)) || objects_cancelled(s->store->objects);
}

static void report(struct scrub *s, const struct snap_finding *f)
{
	*(f->unreadable ? &s->sum.unreadable : &s->sum.corrupt) += 1;
	s->how->found(s->how->ctx, f);
}

static void remember(struct scrub *s, uint64_t chunk, unsigned i, bool unreadable, const char *message)
{
	const struct snap_pack_ref *pack = &s->page->packs[s->page->chunk[i].pack];

	for (size_t j = 0; j < s->bad_count; j++) {
		if (s->bad[j].chunk == chunk && s->bad[j].off == s->page->chunk[i].off && s->bad[j].pack.number == pack->number &&
		    upload_id_eq(&s->bad[j].pack.upload, &pack->upload))
			return;
	}
	if (s->bad_count == s->bad_cap) {
		s->bad_cap = s->bad_cap ? 2 * s->bad_cap : 16;
		s->bad = realloc(s->bad, s->bad_cap * sizeof(*s->bad));
		if (!s->bad)
			abort();
	}
	struct bad *b = &s->bad[s->bad_count++];
	*b = (struct bad){ .chunk = chunk, .pack = *pack, .off = s->page->chunk[i].off,
			   .unreadable = unreadable };
	snprintf(b->message, sizeof(b->message), "%s", message);
}

static bool same_place(const struct snap_page *p, const struct snap_page *q, unsigned i)
{
	const struct snap_chunk_ref *a = &p->chunk[i], *b = &q->chunk[i];

	return a->codec == b->codec && a->off == b->off && a->len == b->len && memcmp(a->sha, b->sha, SHA256_LEN) == 0 &&
	       p->packs[a->pack].number == q->packs[b->pack].number &&
	       upload_id_eq(&p->packs[a->pack].upload, &q->packs[b->pack].upload);
}

/* What was found wrong in the snapshot before, and lies at the same place in this one. */
static void report_known(struct scrub *s, const struct snap_root *r, uint64_t page)
{
	for (size_t i = 0, count = s->bad_count; i < count; i++) {
		const struct bad *b = &s->bad[i];
		unsigned at = (unsigned)(b->chunk % r->page_chunks);
		const struct snap_chunk_ref *c;

		if (b->chunk / r->page_chunks != page)
			continue;
		c = &s->page->chunk[at];
		if (c->codec == SNAP_ZERO || c->off != b->off || s->page->packs[c->pack].number != b->pack.number ||
		    !upload_id_eq(&s->page->packs[c->pack].upload, &b->pack.upload))
			continue;
		if (s->page_before && (s->page_before->chunk[at].codec == SNAP_ZERO || !same_place(s->page, s->page_before, at)))
			continue; /* it is looked at again */
		report(s, &(struct snap_finding){ .snapshot = r->id, .first_chunk = b->chunk, .chunk_count = 1,
						  .unreadable = b->unreadable, .message = b->message });
	}
}

static bool knows_bad(const struct scrub *s, const struct snap_root *r, uint64_t page)
{
	for (size_t i = 0; i < s->bad_count; i++) {
		if (s->bad[i].chunk / r->page_chunks == page)
			return true;
	}
	return false;
}

static int scrub_chunks(struct scrub *s, const struct snap_root *r, uint64_t page)
{
	unsigned chunks = snap_page_ref_chunks(r, page);

	for (unsigned i = 0; i < chunks; i++) {
		const struct snap_chunk_ref *c = &s->page->chunk[i];
		uint64_t chunk = page * r->page_chunks + i;
		struct error e = { 0 };

		if (c->codec == SNAP_ZERO || (s->page_before && s->page_before->chunk[i].codec != SNAP_ZERO &&
					      same_place(s->page, s->page_before, i)))
			continue;
		int err = snap_load_chunk(s->store->objects, r, s->page, i, &s->scratch, s->chunk, &e);
		s->sum.chunks++;
		s->sum.bytes += s->scratch.len;
		if (stopped(s))
			return -ECANCELED;
		if (!err)
			continue;
		remember(s, chunk, i, err != -EBADMSG, e.message);
		report(s, &(struct snap_finding){ .snapshot = r->id, .first_chunk = chunk, .chunk_count = 1,
						  .unreadable = err != -EBADMSG, .message = e.message });
	}
	return 0;
}

/* The root says of each chunk whether it is zero, and the page where it is: they must agree. */
static bool agrees(const struct scrub *s, const struct snap_root *r, uint64_t page)
{
	for (unsigned i = 0; i < snap_page_ref_chunks(r, page); i++) {
		if ((s->page->chunk[i].codec != SNAP_ZERO) != snap_root_present(r, page * r->page_chunks + i))
			return false;
	}
	return true;
}

static int scrub_page(struct scrub *s, const struct snap_root *r, uint64_t page)
{
	const struct snap_page_ref *ref = &r->pages[page], *before = NULL;
	struct error e = { 0 };
	int err;

	if (s->before && s->before_whole && page < s->before->page_count && s->before->pages[page].stored)
		before = &s->before->pages[page];
	bool same = before && memcmp(before->sha, ref->sha, SHA256_LEN) == 0 && before->pack == ref->pack && before->off == ref->off;
	if (!ref->stored || (same && !knows_bad(s, r, page)))
		return 0;
	err = snap_load_page(s->store->objects, r, page, &s->page, &e);
	if (!err && !agrees(s, r, page)) {
		error_set(&e, "Server.InternalError", "snapshot %s: page %" PRIu64 " of its manifest contradicts the manifest", r->id, page);
		err = -EBADMSG;
	}
	if (err) {
		s->before_whole = false; /* for the next one; nothing of it counts as looked at */
		report(s, &(struct snap_finding){ .snapshot = r->id, .first_chunk = page * r->page_chunks,
						  .chunk_count = snap_page_ref_chunks(r, page), .unreadable = err != -EBADMSG,
						  .message = e.message });
		return stopped(s) ? -ECANCELED : 0;
	}
	if (before && !same && snap_load_page(s->store->objects, s->before, page, &s->page_before, NULL))
		s->page_before = NULL;
	if (before && (same || s->page_before))
		report_known(s, r, page);
	return same ? 0 : scrub_chunks(s, r, page);
}

static int scrub_root(struct scrub *s, struct snap_root *r)
{
	bool whole = true;
	int err = 0;

	if (s->before && (!str_eq(s->before->lineage, r->lineage) || s->before->chunk_bytes != r->chunk_bytes ||
			  s->before->page_chunks != r->page_chunks)) {
		snap_root_free(TAKE_PTR(s->before));
		s->bad_count = 0;
	}
	if (!s->before)
		s->bad_count = 0;
	s->chunk = realloc(s->chunk, r->chunk_bytes);
	if (!s->chunk)
		abort();
	for (uint64_t i = 0; !err && i < r->page_count; i++) {
		bool before_whole = s->before_whole;

		err = scrub_page(s, r, i);
		whole &= s->before_whole || !before_whole;
		s->before_whole = before_whole;
		snap_page_free(TAKE_PTR(s->page));
		snap_page_free(TAKE_PTR(s->page_before));
	}
	s->sum.snapshots++;
	snap_root_free(s->before);
	s->before = r;
	s->before_whole = whole;
	return err;
}

static int scrub_one(struct scrub *s, const char *id)
{
	struct error e = { 0 };
	struct snap_root *r;
	int err = snap_open_root(s->store, id, NULL, &r, &e);

	if (err == -ENOENT && !s->how->snapshot)
		return 0; /* deleted meanwhile, or a tombstone */
	if (!err)
		return scrub_root(s, r);
	report(s, &(struct snap_finding){ .snapshot = id, .whole = true, .unreadable = err != -EBADMSG && err != -ENOENT,
					  .message = e.message });
	return stopped(s) ? -ECANCELED : 0;
}

/* ---- the order ---- */

struct known {
	char id[ID_LEN], lineage[ID_LEN];
	int64_t time_ms;
};

static int by_lineage_and_age(const void *a, const void *b)
{
	const struct known *x = a, *y = b;
	int r = strcmp(x->lineage, y->lineage);

	if (r)
		return r;
	return x->time_ms != y->time_ms ? (x->time_ms > y->time_ms) - (x->time_ms < y->time_ms) : strcmp(x->id, y->id);
}

static int scrub_all(struct scrub *s, struct error *e)
{
	_cleanup_(snap_ids_done) struct snap_ids ids = { 0 };
	_cleanup_(freep) struct known *known = NULL;
	int err = snap_all_ids(s->store, SNAP_ROOTS, &ids, e);

	if (err)
		return err;
	known = calloc(ids.count + 1, sizeof(*known));
	if (!known)
		abort();
	for (size_t i = 0; i < ids.count; i++) {
		_cleanup_(snap_root_freep) struct snap_root *r = NULL;

		snap_id_copy(known[i].id, ids.id[i]);
		if (snap_load_any_root(s->store, ids.id[i], &r, NULL))
			continue; /* said when its turn comes */
		memcpy(known[i].lineage, r->lineage, ID_LEN);
		known[i].time_ms = r->time_ms;
	}
	qsort(known, ids.count, sizeof(*known), by_lineage_and_age);
	for (size_t i = 0; !err && i < ids.count; i++)
		err = scrub_one(s, known[i].id);
	return err;
}

int snap_scrub(struct snap_store *store, const struct snap_scrub *how, struct snap_scrubbed *ret, struct error *e)
{
	struct scrub s = { .store = store, .how = how };
	int err = how->snapshot ? scrub_one(&s, how->snapshot) : scrub_all(&s, e);

	if (err == -ECANCELED)
		error_set(e, "Cancelled", "the scrub was stopped");
	snap_root_free(s.before);
	free(s.bad);
	free(s.chunk);
	buf_done(&s.scratch);
	if (ret)
		*ret = s.sum;
	return err;
}
