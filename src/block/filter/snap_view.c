/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frozen views, and what changed before, between and after them.
 *
 * The map (snap_map.c) holds what changed since the base until now. A view takes a copy of it when it begins: `changed`, what is
 * to be stored for it if the base is. From then on guests also set bits in the newest view's `since`. So, from the base on:
 *   base --changed--> view 1 --since 1--> view 2 --since 2--> now
 * When view 1 becomes the base, the map is made anew from since 1 and since 2, and view 2's changed is since 1. When it ends without,
 * the map goes on as it was. Either way since 1 is added to that of the view before, if there is one.
 * Views die with the process; the map, which has it all, is all that is kept.
 *
 * The scratch is a file whose room is really allocated; it has no name any more once it is open, so that nothing is left
 * behind. What fails there fails the view: reads of it give EIO from then on, and guests stop copying for it. Where the volume is
 * encrypted below, the scratch is too, with a key of the view's own that is nowhere else and ends with it.
 */
#include "block/core/stack.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/text.h"
#include "block/filter/snap_priv.h"

#define BEGIN_BARRIER_MS 3000 /* guests wait meanwhile; who asked tries again */
#include "os/file.h"
#include "os/locked.h"

void snap_view_fail(struct snap_view *v)
{
	if (!atomic_exchange(&v->failed, true))
		atomic_fetch_add(&v->snap->failed_views, 1);
}

/* ---- where chunks are in the scratch ---- */

static struct snap_slot *slot_of(struct snap_view *v, uint64_t chunk)
{
	uint64_t i = (chunk * UINT64_C(0x9e3779b97f4a7c15)) >> 20 & (v->table_size - 1);

	while (v->table[i].chunk_plus_1 && v->table[i].chunk_plus_1 != chunk + 1)
		i = (i + 1) & (v->table_size - 1);
	return &v->table[i];
}

bool snap_view_room(struct snap_view *v, uint64_t n, uint64_t *ret_slot)
{
	pthread_mutex_lock(&v->lock);
	bool room = n <= v->slots - v->slots_used;
	if (room) {
		*ret_slot = v->slots_used;
		v->slots_used += n;
	}
	pthread_mutex_unlock(&v->lock);
	return room;
}

void snap_view_copied(struct snap_view *v, uint64_t first, uint64_t n, uint64_t slot)
{
	pthread_mutex_lock(&v->lock);
	for (uint64_t i = 0; i < n; i++)
		*slot_of(v, first + i) = (struct snap_slot){ first + i + 1, slot + i };
	pthread_mutex_unlock(&v->lock);
	snap_set_add(&v->copied, first, n);
}

uint64_t snap_view_slot(struct snap_view *v, uint64_t chunk)
{
	pthread_mutex_lock(&v->lock);
	uint64_t slot = slot_of(v, chunk)->slot;
	pthread_mutex_unlock(&v->lock);
	return slot;
}

bool snap_view_has(const struct snap_view *v, uint64_t first, uint64_t last)
{
	bool set;

	if (v->failed || first >= v->chunks)
		return true;
	last = MIN_OF(last, v->chunks - 1);
	return snap_set_run(&v->copied, first, last + 1, &set) == last + 1 - first && set;
}

/* ---- the scratch ---- */

static int allocate(int fd, uint64_t bytes)
{
	static const char zeroes[65536];

	if (!fallocate(fd, 0, 0, (off_t)bytes))
		return 0;
	if (errno != EOPNOTSUPP)
		return -errno;
	for (uint64_t at = 0; at < bytes; at += sizeof(zeroes)) {
		int err = fd_pwrite_all(fd, zeroes, (size_t)MIN_OF(sizeof(zeroes), bytes - at), at);
		if (err)
			return err;
	}
	return 0;
}

static int open_scratch(struct snap_view *v, const char *path, struct error *e)
{
	struct stat st;

	v->scratch_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
	if (v->scratch_fd < 0 || fstat(v->scratch_fd, &st))
		return error_errno(e, errno, "opening the scratch %s", path);
	if (!S_ISREG(st.st_mode) || st.st_size || flock(v->scratch_fd, LOCK_EX | LOCK_NB))
		return error_set(e, "InvalidOption", "the scratch %s is not an empty file of its own: give another, or remove it", path);
	int err = allocate(v->scratch_fd, v->slots * v->snap->chunk_bytes);
	if (err)
		return error_errno(e, err, "%llu bytes for the scratch %s", (unsigned long long)v->slots * v->snap->chunk_bytes, path);
	unlink(path); /* where it may not be removed it stays, and its maker removes it */
	return 0;
}

static int make_scratch_key(struct snap_view *v, struct error *e)
{
	_cleanup_(locked_freep) void *key = locked_new(XTS_KEY_BYTES);

	if (!key || gnutls_rnd(GNUTLS_RND_KEY, key, XTS_KEY_BYTES) < 0 ||
	    xts_new(key, BLK_SECTOR, blk_stack_queues(v->snap->layer->stack), &v->scratch_key))
		return error_errno(e, ENOMEM, "a key for the scratch");
	return 0;
}

/* ---- the layer that front ends see ---- */

static int view_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	return error_set(e, "InvalidOption", "a view is begun by snap");
}

static int changed_extents(struct snap_view *v, uint64_t off, uint64_t len, struct blk_extent *out, unsigned max)
{
	uint64_t chunk = v->snap->chunk_bytes, end = off + len;
	unsigned n = 0;

	while (off < end && n < max) {
		uint64_t first = off / chunk, last = (end - 1) / chunk;
		bool set = true;
		uint64_t run = v->changed_all ? last + 1 - first : snap_set_run(&v->changed, first, last + 1, &set);
		uint64_t upto = MIN_OF((first + run) * chunk, end);
		out[n++] = (struct blk_extent){ upto - off, set ? BLK_EXTENT_DATA : BLK_EXTENT_HOLE };
		off = upto;
	}
	return (int)n;
}

static int view_extents(struct blk_layer *l, enum blk_extent_map map, uint64_t off, uint64_t len, struct blk_extent *out, unsigned max)
{
	struct snap_view *v = l->state;
	struct blk_layer *below = v->snap->below;
	uint64_t chunk = v->snap->chunk_bytes, first = off / chunk;
	bool copied;

	if (map == BLK_MAP_CHANGED)
		return changed_extents(v, off, len, out, max);
	uint64_t run = snap_set_run(&v->copied, first, (off + len - 1) / chunk + 1, &copied);
	len = MIN_OF(len, (first + run) * chunk - off);
	int n = 1;
	out[0] = (struct blk_extent){ len, BLK_EXTENT_DATA };
	if (!copied && below->ops->extents)
		n = below->ops->extents(below, map, off, len, out, max);
	/* What was said of a chunk that was copied meanwhile may be of what a guest made of it. */
	bool set;
	if (!copied && snap_set_run(&v->copied, first, first + run, &set) != run) {
		out[0] = (struct blk_extent){ len, BLK_EXTENT_DATA };
		n = 1;
	}
	return n;
}

static const struct blk_layer_ops view_ops = {
	.name = "view",
	.doc = "a volume as it was",
	.open = view_open,
	.submit = snap_view_submit,
	.extents = view_extents,
};

/* ---- beginning ---- */

struct snap_view *snap_view_find(struct snap *s, const char *name)
{
	for (unsigned i = 0; i < s->views; i++) {
		if (str_eq(s->view[i]->name, name))
			return s->view[i];
	}
	return NULL;
}

void snap_view_free(struct snap_view *v)
{
	if (!v)
		return;
	snap_set_free(&v->copied);
	snap_set_free(&v->since);
	snap_set_free(&v->changed);
	if (v->table)
		munmap(v->table, v->table_size * sizeof(*v->table));
	fd_closep(&v->scratch_fd);
	xts_free(v->scratch_key);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

static int make_sets(struct snap_view *v)
{
	int err = snap_set_new(&v->copied, v->chunks);

	if (!err)
		err = snap_set_new(&v->since, v->chunks);
	if (!err)
		err = snap_set_new(&v->changed, v->chunks);
	for (v->table_size = 16; v->table_size < 2 * v->slots; v->table_size *= 2)
		;
	void *table = mmap(NULL, v->table_size * sizeof(*v->table), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (err || table == MAP_FAILED)
		return -ENOMEM;
	v->table = table;
	return 0;
}

static void take_changes(struct snap_view *v)
{
	const struct bits *b = v->snap->map.bank[0] ? snap_map_bits(v->snap) : NULL;

	v->changed_all = !v->snap->map.tracking;
	for (uint64_t i = 0; i < v->chunks && !v->changed_all;) {
		bool set;
		uint64_t n = bits_run(b, i, v->chunks, &set);
		if (set)
			snap_set_add(&v->changed, i, n);
		i += n;
	}
}

static int view_new(struct snap *s, const char *name, uint64_t scratch_bytes, struct snap_view **ret, struct error *e)
{
	struct snap_view *v = calloc(1, sizeof(*v));

	if (!v)
		return error_errno(e, ENOMEM, "beginning a view");
	pthread_mutex_init(&v->lock, NULL);
	strncpy(v->name, name, sizeof(v->name) - 1);
	v->scratch_fd = -1;
	v->snap = s;
	v->chunks = s->chunks;
	v->slots = MIN_OF(scratch_bytes / s->chunk_bytes, v->chunks); /* no more than that is ever copied */
	v->layer = (struct blk_layer){ .ops = &view_ops, .stack = s->layer->stack, .info = s->layer->info, .state = v };
	v->layer.info.read_only = true;
	v->layer.info.volatile_cache = false;
	int err = make_sets(v);
	if (err) {
		snap_view_free(v);
		return error_errno(e, err, "beginning a view");
	}
	*ret = v;
	return 0;
}

static int may_begin(struct snap *s, const char *name, struct error *e)
{
	int err = 0;

	pthread_mutex_lock(&s->lock);
	if (snap_view_find(s, name))
		err = error_set(e, "InvalidCommand", "there is a view %s already", name);
	else if (s->views == SNAP_VIEWS)
		err = error_set(e, "InvalidCommand", "there are %u views already: end one", SNAP_VIEWS);
	pthread_mutex_unlock(&s->lock);
	return err;
}

/* The volume has grown since v was made. */
static int catch_up(struct snap_view *v)
{
	uint64_t chunks = v->snap->chunks;

	v->layer.info.size_bytes = v->snap->layer->info.size_bytes;
	if (chunks == v->chunks)
		return 0;
	v->chunks = chunks;
	int err = snap_set_grow(&v->copied, chunks);
	if (!err)
		err = snap_set_grow(&v->since, chunks);
	return err ? err : snap_set_grow(&v->changed, chunks);
}

/* At a barrier: from here on v is what the volume was. */
static int freeze(struct snap_view *v, struct error *e)
{
	struct snap *s = v->snap;
	int err = may_begin(s, v->name, e);

	if (!err && catch_up(v))
		err = error_errno(e, ENOMEM, "beginning a view");
	if (err)
		return err;
	take_changes(v);
	pthread_mutex_lock(&s->lock);
	s->view[s->views] = v;
	s->views++;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* All that takes its time (memory, the scratch's room) comes before the barrier: guests wait for what must be at it only. */
int snap_view_begin(struct snap *s, const char *name, const char *path, uint64_t scratch_bytes, struct error *e)
{
	struct snap_view *v = NULL;
	int err = may_begin(s, name, e);

	if (!err && scratch_bytes < s->chunk_bytes)
		err = error_set(e, "InvalidOption", "scratch-size: less than a chunk (%u bytes)", s->chunk_bytes);
	if (!err)
		err = view_new(s, name, scratch_bytes, &v, e);
	if (!err && s->below->info.encrypted)
		err = make_scratch_key(v, e);
	if (!err)
		err = open_scratch(v, path, e);
	if (!err)
		err = blk_stack_barrier(s->layer->stack, BEGIN_BARRIER_MS, e);
	if (!err) {
		err = freeze(v, e);
		blk_stack_resume(s->layer->stack);
	}
	if (err)
		snap_view_free(v);
	return err;
}

/* ---- ending ---- */

static unsigned index_of(const struct snap *s, const struct snap_view *v)
{
	unsigned i = 0;

	while (s->view[i] != v)
		i++;
	return i;
}

/* v's changes become those since the base. */
static int commit(struct snap *s, struct snap_view *v, struct error *e)
{
	unsigned at = index_of(s, v);
	struct snap_set since = { 0 };

	if (v->failed)
		return error_set(e, "InvalidCommand", "the view %s has failed: it cannot become the base", v->name);
	if (snap_set_new(&since, s->chunks))
		return error_errno(e, ENOMEM, "ending a view");
	for (unsigned i = at; i < s->views; i++)
		snap_set_union(&since, &s->view[i]->since);
	int err = snap_map_commit(s, v->name, &since, e);
	snap_set_free(&since);
	if (err)
		return err;
	for (unsigned i = 0; i < at; i++)
		s->view[i]->changed_all = true; /* older than the base */
	for (unsigned i = at + 1; i < s->views; i++) {
		struct snap_view *later = s->view[i];
		memset(later->changed.words, 0, (later->chunks / 64 + 1) * 8);
		later->changed_all = false;
		for (unsigned k = at; k < i; k++)
			snap_set_union(&later->changed, &s->view[k]->since);
	}
	return 0;
}

int snap_view_end(struct snap *s, const char *name, bool commit_it, bool force, struct error *e)
{
	struct snap_view *v = snap_view_find(s, name);

	if (!v)
		return error_set(e, "InvalidCommand", "there is no view %s", name);
	pthread_mutex_lock(&s->lock);
	bool held = v->held;
	pthread_mutex_unlock(&s->lock);
	if (held && !force)
		return error_set(e, "InUse", "the view %s is being read: stop that, or give force=on", name);
	int err = commit_it ? commit(s, v, e) : 0;
	if (err)
		return err;
	unsigned at = index_of(s, v);
	if (at) /* also when v is the base now: what is older may become it again */
		snap_set_union(&s->view[at - 1]->since, &v->since);
	pthread_mutex_lock(&s->lock);
	memmove(&s->view[at], &s->view[at + 1], (s->views - at - 1) * sizeof(*s->view));
	s->views--;
	held = v->held;
	v->ended = true;
	atomic_store(&v->failed, true);
	pthread_mutex_unlock(&s->lock);
	if (!held)
		snap_view_free(v);
	return 0;
}

int snap_views_grow(struct snap *s, uint64_t chunks)
{
	for (unsigned i = 0; i < s->views; i++) {
		struct snap_set *since = &s->view[i]->since;
		uint64_t before = since->count;
		int err = snap_set_grow(since, chunks);
		if (err)
			return err;
		if (i + 1 == s->views)
			snap_set_add(since, before, chunks - before); /* new is changed */
	}
	return 0;
}
