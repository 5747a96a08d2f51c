/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snap: views of a volume as it was at a moment, while it is written on, and a map of what changed since the last snapshot that was
 * completed. A view begins at the stack's barrier: what was acknowledged before is in it, nothing of what comes later. snap_view.c
 * has the views, snap_map.c the map, snap_io.c the requests.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/text.h"
#include "block/filter/filter.h"
#include "block/filter/snap_priv.h"

#define BUFFER_BYTES (512u << 10)

static void snap_free(struct snap *s)
{
	snap_map_close(s);
	for (unsigned i = 0; i < s->views; i++)
		snap_view_free(s->view[i]);
	chunk_locks_done(&s->locks);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static int snap_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	uint32_t chunk = (uint32_t)blk_values_number(v, "chunk");
	struct snap *s;

	if (chunk & (chunk - 1))
		return error_set(e, "InvalidOption", "chunk: %u is no power of two", chunk);
	if (chunk % l->info.block_bytes)
		return error_set(e, "InvalidOption", "chunk: less than a block of the volume");
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_errno(e, ENOMEM, "opening snap");
	s->layer = l;
	s->below = l->below;
	s->chunk_bytes = chunk;
	s->buffer_bytes = MAX_OF(BUFFER_BYTES, chunk);
	s->chunks = snap_chunks(s, l->info.size_bytes);
	chunk_locks_init(&s->locks);
	pthread_mutex_init(&s->lock, NULL);
	l->state = s;
	l->needs = BLK_NEEDS_FILES; /* scratch */
	int err = blk_values_has(v, "map") ? snap_map_open(s, blk_values_text(v, "map"), e) : 0;
	if (err)
		snap_free(s);
	return err;
}

static void snap_close(struct blk_layer *l)
{
	snap_free(l->state);
}

static int snap_resize(struct blk_layer *l, uint64_t size_bytes, struct error *e)
{
	struct snap *s = l->state;
	uint64_t chunks = snap_chunks(s, size_bytes);

	if (chunks > s->chunks) {
		int err = snap_map_grow(s, chunks, e);
		if (!err && snap_views_grow(s, chunks))
			err = error_errno(e, ENOMEM, "growing the views");
		if (err)
			return err;
		s->chunks = chunks;
	}
	l->info.size_bytes = l->below->info.size_bytes;
	return 0;
}

/* ---- views for front ends ---- */

static struct blk_layer *snap_view(struct blk_layer *l, const char *name, struct error *e)
{
	struct snap *s = l->state;

	pthread_mutex_lock(&s->lock);
	struct snap_view *v = snap_view_find(s, name);
	if (v)
		v->held++;
	pthread_mutex_unlock(&s->lock);
	if (!v)
		error_set(e, "InvalidCommand", "there is no view %s", name);
	return v ? &v->layer : NULL;
}

static void snap_view_release(struct blk_layer *l, struct blk_layer *view)
{
	struct snap *s = l->state;
	struct snap_view *v = view->state;

	pthread_mutex_lock(&s->lock);
	bool last = !--v->held && v->ended;
	pthread_mutex_unlock(&s->lock);
	if (last)
		snap_view_free(v);
}

/* ---- commands ---- */

static int check_name(const char *name, struct error *e)
{
	size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	if (!len || name[len] || len >= SNAP_NAME)
		return error_set(e, "InvalidOption", "name: give 1 to %u letters, digits, \".\", \"_\" or \"-\"", SNAP_NAME - 1);
	return 0;
}

static void print_view(const struct snap *s, struct snap_view *v, struct buf *out)
{
	uint64_t changed = v->changed_all ? v->chunks : snap_set_sum(&v->changed);

	pthread_mutex_lock(&v->lock);
	uint64_t used = v->slots_used;
	pthread_mutex_unlock(&v->lock);
	buf_printf(out,
		   "{\"name\":\"%s\",\"state\":\"%s\",\"held\":%u,\"size_bytes\":%llu,\"changed_bytes\":%llu,"
		   "\"scratch_bytes\":%llu,\"scratch_used_bytes\":%llu}",
		   v->name, v->failed ? "failed" : "open", v->held, (unsigned long long)v->layer.info.size_bytes,
		   (unsigned long long)MIN_OF(changed * s->chunk_bytes, v->layer.info.size_bytes),
		   (unsigned long long)v->slots * s->chunk_bytes, (unsigned long long)used * s->chunk_bytes);
}

static uint64_t changed_bytes(const struct snap *s)
{
	uint64_t size = s->chunks * s->chunk_bytes;

	return s->map.tracking ? bits_count_set(snap_map_bits(s), 0, s->chunks) * s->chunk_bytes : size;
}

/* s->lock is held, so that neither views nor base change. */
static void print_status(struct snap *s, struct buf *out)
{
	buf_printf(out, "{\"base\":\"%s\",\"chunk_bytes\":%u,\"changed_bytes\":%llu,\"views\":[", snap_map_base(s), s->chunk_bytes,
		   (unsigned long long)changed_bytes(s));
	for (unsigned i = 0; i < s->views; i++) {
		if (i)
			buf_putc(out, ',');
		print_view(s, s->view[i], out);
	}
	buf_puts(out, "]}");
}

static int snap_command(struct blk_layer *l, const char *verb, const struct blk_values *args, struct buf *ret_json, struct error *e)
{
	struct snap *s = l->state;
	int err = 0;

	if (!str_eq(verb, "status")) {
		const char *name = blk_values_text(args, "name");
		err = check_name(name, e);
		if (!err && str_eq(verb, "begin"))
			err = snap_view_begin(s, name, blk_values_text(args, "scratch"), blk_values_number(args, "scratch-size"), e);
		else if (!err)
			err = snap_view_end(s, name, blk_values_bool(args, "commit"), blk_values_bool(args, "force"), e);
	}
	if (err)
		return err;
	pthread_mutex_lock(&s->lock);
	print_status(s, ret_json);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* ---- telling ---- */

static int snap_extents(struct blk_layer *l, enum blk_extent_map map, uint64_t off, uint64_t len, struct blk_extent *out, unsigned max)
{
	struct snap *s = l->state;
	uint64_t first = off / s->chunk_bytes, last = (off + len - 1) / s->chunk_bytes;
	bool set = true;

	if (map == BLK_MAP_ALLOCATION && s->below->ops->extents)
		return s->below->ops->extents(s->below, map, off, len, out, max);
	if (map == BLK_MAP_CHANGED && s->map.tracking)
		len = MIN_OF(len, (first + bits_run(snap_map_bits(s), first, last + 1, &set)) * s->chunk_bytes - off);
	out[0] = (struct blk_extent){ len, set ? BLK_EXTENT_DATA : BLK_EXTENT_HOLE };
	return 1;
}

static void snap_stats(struct blk_layer *l, struct blk_stats_sink *sink)
{
	struct snap *s = l->state;
	uint64_t copied = 0, marks = 0;

	for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
		copied += s->queue[i] ? s->queue[i]->copied_chunks : 0;
		marks += s->queue[i] ? s->queue[i]->marks : 0;
	}
	blk_stats_emit(sink, "snap", "views", false, s->views, "Frozen views that are open.");
	blk_stats_emit(sink, "snap", "views_failed", true, s->failed_views, "Views that failed: a full scratch, or an error.");
	blk_stats_emit(sink, "snap", "copied_chunks", true, copied, "Chunks copied before a change.");
	blk_stats_emit(sink, "snap", "announcements", true, marks, "Changes that waited for the map.");
	blk_stats_emit(sink, "snap", "chunk_bytes", false, s->chunk_bytes, "Length of a chunk.");
}

static const struct blk_option snap_options[] = {
	{ .name = "map", .type = BLK_OPT_TEXT, .doc = "the file, and with .2 behind its name a second one, that says what changed since the last snapshot; made when missing" },
	{ .name = "chunk", .type = BLK_OPT_BYTES, .fallback = "64k", .min = 4096, .max = 1 << 20, .doc = "what is copied, and marked, at a time" },
	{ 0 },
};
static const struct blk_option begin_args[] = {
	{ .name = "name", .type = BLK_OPT_TEXT, .required = true, .doc = "of the view" },
	{ .name = "scratch", .type = BLK_OPT_TEXT, .required = true, .doc = "a file for what guests overwrite; a new one, or an empty one" },
	{ .name = "scratch-size", .type = BLK_OPT_BYTES, .required = true, .doc = "its room" },
	{ 0 },
};
static const struct blk_option end_args[] = {
	{ .name = "name", .type = BLK_OPT_TEXT, .required = true, .doc = "of the view" },
	{ .name = "commit", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "it was stored: changes count from it on" },
	{ .name = "force", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "even while it is read" },
	{ 0 },
};
static const struct blk_option no_args[] = { { 0 } };
static const struct blk_verb snap_verbs[] = {
	{ .name = "begin", .args = begin_args, .doc = "freeze a view of the volume as it is" },
	{ .name = "end", .args = end_args, .quiet = true, .doc = "give a view up" },
	{ .name = "status", .args = no_args, .doc = "base, changes and views" },
	{ 0 },
};

const struct blk_layer_ops blk_snap_ops = {
	.name = "snap",
	.doc = "frozen views, and a map of what changed",
	.options = snap_options,
	.open = snap_open,
	.queue_start = snap_queue_start,
	.queue_stop = snap_queue_stop,
	.submit = snap_submit,
	.resize = snap_resize,
	.command = snap_command,
	.verbs = snap_verbs,
	.view = snap_view,
	.view_release = snap_view_release,
	.extents = snap_extents,
	.stats = snap_stats,
	.close = snap_close,
};
