/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cow: a volume that begins as another's copy, or as zeroes, and becomes a plain file while it is used. The layer below is the
 * volume's own file. A bit a chunk says whether the chunk is there (filled); the others are read from the source.
 *
 * A chunk is filled once and for ever, by a write below of all of it, under its lock (cow_lock): by the guest's own write when
 * that covers it, by one that was completed from the source (cow_io.c), or in the background (cow_fill.c). Its bit is set when
 * that write has ended, and seen by all queues from then on: to filled chunks requests go straight.
 *
 * What is durable. A FLUSH takes the set bits, flushes below, writes the bits durably (cow_bits_sync.c), and is then answered:
 * a bit is never durable before its data, and what was flushed is never in a chunk whose bit is not durable. A chunk whose bit was
 * lost with the power is filled from the source again; what the guest wrote there had not been flushed. After the death of the
 * process alone no bit is lost (cow_bits.c), so that what was acknowledged is there.
 *
 * When all is filled, and durably so, everything is passed through; the next start does not open the source.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/text.h"
#include "block/filter/cow_priv.h"
#include "block/filter/filter.h"

uint64_t cow_source_bytes(const struct cow *c, uint64_t off, uint64_t end)
{
	if (!c->source || off >= c->source_end)
		return 0;
	uint64_t block = c->source->info.block_bytes;
	uint64_t upto = (MIN_OF(end, c->source_end) + block - 1) / block * block;
	return MIN_OF(upto, c->source->info.size_bytes) - off;
}

void cow_set_filled(struct cow *c, uint64_t first, uint64_t count)
{
	uint64_t fresh = bits_set(c->bits, first, count);

	if (fresh && atomic_fetch_add(&c->filled, fresh) + fresh >= c->chunks)
		cow_fill_poke(c);
}

/* ---- opening ---- */

static int open_bits(struct cow *c, const struct blk_values *v, struct error *e)
{
	struct bits_settings settings = {
		.path = blk_values_text(v, "map"),
		.kind = "cow",
		.unit_bytes = c->chunk_bytes,
		.count = c->chunks,
	};
	int err = bits_open(&settings, &c->bits, e);

	if (err)
		return err;
	err = bits_syncer_new(c->bits, c->below);
	if (err)
		return error_errno(e, err, "opening cow");
	c->filled = bits_count_set(c->bits, 0, c->chunks);
	return 0;
}

/* What of the source is still needed: none of it when all chunks that it reaches are filled. */
static bool needs_source(const struct cow *c)
{
	uint64_t reached = (c->source_end + c->chunk_bytes - 1) / c->chunk_bytes;

	return bits_count_set(c->bits, 0, MIN_OF(reached, c->chunks)) < MIN_OF(reached, c->chunks);
}

static int check_label(const struct cow *c, const char *id, struct error *e)
{
	const char *label = c->bits->header.label;

	if (str_eq(label, id))
		return 0;
	return error_set(e, "InvalidMap", "the map is of a volume whose source is \"%s\", not \"%s\": give that source, or its source-id",
			 label, id);
}

static int open_source(struct cow *c, const struct blk_values *v, struct error *e)
{
	const char *spec = blk_values_text(v, "source");
	const char *id = blk_values_has(v, "source-id") ? blk_values_text(v, "source-id") : spec;
	struct bits_header *h = &c->bits->header;
	bool zero = str_eq(spec, "zero"), fresh = !h->label[0];

	if (strlen(id) >= sizeof(h->label))
		return error_set(e, "InvalidOption", "source-id: give one of less than %zu bytes", sizeof(h->label));
	c->source_end = h->extent_bytes;
	if (!fresh && !needs_source(c))
		return 0;
	int err = fresh ? 0 : check_label(c, id, e);
	if (!err && !zero)
		err = blk_back_open(c->layer->stack, spec, &c->source, e);
	if (!err && !fresh && c->source && c->source->info.size_bytes < c->source_end)
		err = error_set(e, "InvalidSource", "the source has %llu bytes; it had %llu when the map was made, and they are still needed",
				(unsigned long long)c->source->info.size_bytes, (unsigned long long)c->source_end);
	if (err || !fresh)
		return err;
	/* The map is new. From now on it belongs to this source, and ends where it does. */
	c->source_end = zero ? 0 : MIN_OF(c->source->info.size_bytes, c->size_bytes);
	h->extent_bytes = c->source_end;
	memcpy(h->label, id, strlen(id) + 1);
	err = bits_header_write(c->bits);
	return err ? error_errno(e, err, "writing the map") : 0;
}

static void cow_free(struct cow *c)
{
	cow_fill_done(c);
	blk_back_close(c->source);
	bits_close(c->bits);
	chunk_locks_done(&c->locks);
	free(c);
}

static int check_options(const struct cow *c, const struct blk_values *v, struct error *e)
{
	if (c->chunk_bytes & (c->chunk_bytes - 1))
		return error_set(e, "InvalidOption", "chunk: %u is no power of two", c->chunk_bytes);
	if (c->below->info.read_only)
		return error_set(e, "InvalidOption", "cow needs a volume that can be written below it");
	if (!blk_values_text(v, "source")[0])
		return error_set(e, "InvalidOption", "source: give a back end, or zero");
	return 0;
}

static int cow_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	struct cow *c = calloc(1, sizeof(*c));

	if (!c)
		return error_errno(e, ENOMEM, "opening cow");
	c->layer = l;
	c->below = l->below;
	c->chunk_bytes = (uint32_t)blk_values_number(v, "chunk");
	c->size_bytes = l->info.size_bytes;
	c->chunks = (c->size_bytes + c->chunk_bytes - 1) / c->chunk_bytes;
	c->copy_on_read = blk_values_bool(v, "copy-on-read");
	c->fill.enabled = blk_values_bool(v, "fill");
	c->fill.rate = blk_values_number(v, "fill-rate");
	chunk_locks_init(&c->locks);
	int err = check_options(c, v, e);
	if (!err)
		err = open_bits(c, v, e);
	if (!err)
		err = open_source(c, v, e);
	if (!err)
		err = cow_fill_init(c, e);
	if (err) {
		cow_free(c);
		return err;
	}
	c->complete = c->filled == c->chunks && bits_is_durable(c->bits);
	if (!c->complete)
		l->info.volatile_cache = true; /* a bit is durable by a FLUSH only */
	l->state = c;
	return 0;
}

static void cow_close(struct blk_layer *l)
{
	struct cow *c = l->state;

	c->bits->header.complete = c->complete;
	if (c->complete)
		bits_header_write(c->bits); /* if it fails the next start counts the bits */
	cow_free(c);
}

static int cow_resize(struct blk_layer *l, uint64_t size_bytes, struct error *e)
{
	struct cow *c = l->state;
	uint64_t chunks = (size_bytes + c->chunk_bytes - 1) / c->chunk_bytes;
	int err = bits_grow(c->bits, chunks, e);

	if (err)
		return err;
	c->size_bytes = size_bytes;
	c->chunks = chunks;
	l->info.size_bytes = l->below->info.size_bytes;
	if (c->filled < chunks) {
		c->complete = false;
		l->info.volatile_cache = true;
	}
	cow_fill_poke(c);
	return 0;
}

static void cow_settle(struct blk_layer *l, bool stop, void (*fn)(void *ctx), void *ctx)
{
	cow_fill_settle(l->state, stop, fn, ctx);
}

/* ---- telling ---- */

static uint64_t filled_bytes(const struct cow *c)
{
	uint64_t bytes = c->filled * c->chunk_bytes, size = c->size_bytes;

	return MIN_OF(bytes, size);
}

static int cow_command(struct blk_layer *l, const char *verb, const struct blk_values *args, struct buf *ret_json, struct error *e)
{
	const struct cow *c = l->state;
	const char *state = c->complete ? "complete" : !c->fill.enabled ? "idle" : c->fill.failing ? "failing" : "filling";

	buf_printf(ret_json, "{\"state\":\"%s\",\"filled_bytes\":%llu,\"size_bytes\":%llu,\"fill_errors\":%llu}", state,
		   (unsigned long long)filled_bytes(c), (unsigned long long)c->size_bytes, (unsigned long long)c->fill.errors);
	return 0;
}

static void cow_stats(struct blk_layer *l, struct blk_stats_sink *sink)
{
	struct cow *c = l->state;
	uint64_t source = 0, copied = 0;

	for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
		source += c->queue[i] ? c->queue[i]->source_bytes : 0;
		copied += c->queue[i] ? c->queue[i]->copied_chunks : 0;
	}
	blk_stats_emit(sink, "cow", "complete", false, c->complete, "Whether every chunk is in the volume's own file.");
	blk_stats_emit(sink, "cow", "filled_bytes", false, filled_bytes(c), "What of the volume is in its own file.");
	blk_stats_emit(sink, "cow", "source_read_bytes", true, source, "Read from the source for the guest.");
	blk_stats_emit(sink, "cow", "copied_chunks", true, copied, "Chunks completed from the source for a guest's request.");
	blk_stats_emit(sink, "cow", "fill_bytes", true, c->fill.bytes, "Filled in the background.");
	blk_stats_emit(sink, "cow", "fill_errors", true, c->fill.errors, "Background fills that failed and are tried again.");
}

static int below_extents(struct blk_layer *l, uint64_t off, uint64_t len, struct blk_extent *out, unsigned max)
{
	if (l->ops->extents)
		return l->ops->extents(l, BLK_MAP_ALLOCATION, off, len, out, max);
	out[0] = (struct blk_extent){ len, BLK_EXTENT_DATA };
	return 1;
}

/* One run of chunks of the same state, or a part of it. */
static int cow_extents(struct blk_layer *l, enum blk_extent_map map, uint64_t off, uint64_t len, struct blk_extent *out, unsigned max)
{
	struct cow *c = l->state;
	uint64_t first = off / c->chunk_bytes, last = (off + len - 1) / c->chunk_bytes;
	bool filled;

	if (map != BLK_MAP_ALLOCATION) {
		out[0] = (struct blk_extent){ len, BLK_EXTENT_DATA };
		return 1;
	}
	uint64_t end = cow_chunk_end(c, first, bits_run(c->bits, first, last + 1, &filled));
	len = MIN_OF(len, end - off);
	if (filled)
		return below_extents(c->below, off, len, out, max);
	if (!c->source || off >= c->source_end) {
		out[0] = (struct blk_extent){ len, BLK_EXTENT_HOLE };
		return 1;
	}
	return below_extents(c->source, off, MIN_OF(len, c->source_end - off), out, max);
}

static const struct blk_option cow_options[] = {
	{ .name = "source", .type = BLK_OPT_TEXT, .required = true, .doc = "the back end to copy from, its commas doubled; or zero" },
	{ .name = "source-id", .type = BLK_OPT_TEXT, .doc = "what the map remembers the source by (else source itself)" },
	{ .name = "map", .type = BLK_OPT_TEXT, .required = true, .doc = "the file that says what has been copied; made when missing" },
	{ .name = "chunk", .type = BLK_OPT_BYTES, .fallback = "64k", .min = 4096, .max = 1 << 20, .doc = "what is copied at a time" },
	{ .name = "fill", .type = BLK_OPT_BOOL, .fallback = "on", .doc = "copy everything in the background" },
	{ .name = "fill-rate", .type = BLK_OPT_BYTES, .fallback = "0", .doc = "bytes a second of that; 0: as the guest leaves room" },
	{ .name = "copy-on-read", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "keep what is read from the source" },
	{ 0 },
};
static const struct blk_option no_args[] = { { 0 } };
static const struct blk_verb cow_verbs[] = {
	{ .name = "status", .args = no_args, .doc = "how much is in the volume's own file" },
	{ 0 },
};

const struct blk_layer_ops blk_cow_ops = {
	.name = "cow",
	.doc = "a copy of a source, or zeroes, that ends as a plain volume",
	.options = cow_options,
	.open = cow_open,
	.queue_start = cow_queue_start,
	.queue_stop = cow_queue_stop,
	.submit = cow_submit,
	.settle = cow_settle,
	.resize = cow_resize,
	.command = cow_command,
	.verbs = cow_verbs,
	.extents = cow_extents,
	.stats = cow_stats,
	.close = cow_close,
};
