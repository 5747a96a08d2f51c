/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "svc/sc/snap_store_priv.h"

/* Both have the same blob for this page, or nothing: nothing in it differs. */
static bool same_page(const struct snap_root *a, const struct snap_root *b, uint64_t page)
{
	const struct snap_page_ref *x = a && page < a->page_count ? &a->pages[page] : NULL, *y = &b->pages[page];

	if (!x || !x->stored || !y->stored)
		return !(x && x->stored) && !y->stored;
	return memcmp(x->sha, y->sha, SHA256_LEN) == 0;
}

struct comparing {
	struct objects *objects;
	const struct snap_root *a, *b;
	struct snap_page *page_a, *page_b;
};

static int load_pages(struct comparing *c, uint64_t page, struct error *e)
{
	int err = 0;

	snap_page_free(c->page_a);
	snap_page_free(c->page_b);
	c->page_a = c->page_b = NULL;
	if (c->a && page < c->a->page_count)
		err = snap_get_page(c->objects, c->a, page, &c->page_a, e);
	else
		c->page_a = snap_page_new(page, c->b->page_chunks);
	return err ? err : snap_get_page(c->objects, c->b, page, &c->page_b, e);
}

static void describe(const struct snap_root *b, uint64_t chunk, const struct snap_chunk_ref *ref, struct snap_change *out)
{
	uint64_t off = chunk * b->chunk_bytes;

	*out = (struct snap_change){ .off_bytes = off, .len_bytes = MIN_OF((uint64_t)b->chunk_bytes, b->size_bytes - off),
				     .is_zero = ref->codec == SNAP_ZERO };
	if (!out->is_zero)
		memcpy(out->token, ref->sha, SHA256_LEN);
}

static int compare(struct comparing *c, uint64_t *from, struct snap_change *out, unsigned max, struct error *e)
{
	uint64_t chunks = snap_root_chunks(c->b), at = *from;
	uint32_t per_page = c->b->page_chunks;
	unsigned count = 0;

	while (at < chunks && count < max) {
		uint64_t page = at / per_page;

		if (same_page(c->a, c->b, page)) {
			at = (page + 1) * per_page;
			continue;
		}
		if (!c->page_b || c->page_b->index != page) {
			int err = load_pages(c, page, e);
			if (err)
				return err;
		}
		const struct snap_chunk_ref *ref = &c->page_b->chunk[at % per_page];
		if (!snap_chunk_same(&c->page_a->chunk[at % per_page], ref))
			describe(c->b, at, ref, &out[count++]);
		at++;
	}
	*from = MIN_OF(at, chunks);
	return (int)count;
}

int snap_changes(struct snap_store *s, const char *a, const char *b, uint64_t *from_chunk, struct snap_change *out, unsigned max,
		 struct error *e)
{
	_cleanup_(snap_root_freep) struct snap_root *root_a = NULL, *root_b = NULL;
	int r = snap_open_root(s, b, NULL, &root_b, e);

	if (!r && a && *a)
		r = snap_open_root(s, a, NULL, &root_a, e);
	if (r)
		return r;
	if (root_a && (root_a->chunk_bytes != root_b->chunk_bytes || root_a->page_chunks != root_b->page_chunks ||
		       root_a->size_bytes > root_b->size_bytes)) {
		error_set(e, "InvalidParameterValue", "snapshots %s and %s cannot be compared: another block size, or a larger volume", a, b);
		return -EINVAL;
	}
	struct comparing c = { .objects = s->objects, .a = root_a, .b = root_b };
	r = compare(&c, from_chunk, out, max, e);
	snap_page_free(c.page_a);
	snap_page_free(c.page_b);
	return r;
}
