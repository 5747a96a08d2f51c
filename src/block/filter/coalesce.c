/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "block/filter/coalesce_priv.h"
#include "block/filter/filter.h"

/*
 * Coalesce: a write-back cache that outlives the process. Writes are answered when they are in a file on tmpfs
 * (coalesce_buffer.c), merged, and written back in the order of the disk (coalesce_back.c); reads see them
 * (coalesce_read.c). What has been answered survives the death of this process, not that of the host, as with a disk's volatile
 * cache; a flush makes it durable (coalesce_write.c has the rules of order).
 *
 * A file that an earlier process left is not written back at the start: its records are entered in the index, as if they had
 * just been absorbed, before the first request comes.
 *
 * Any change may let something else go on: co_go() looks at all that waits, then picks write-backs, and does without the lock
 * what came of it. What must go below from another queue's thread is posted there.
 *
 * Idle: when nothing has been buffered for a while the file's room is given back; it is taken again a segment at a time.
 */

static void work_off(struct co_queue *q, struct co_work *w)
{
	struct blk_req *r;

	while ((r = blk_list_pop(&w->sends)))
		co_send(q, r);
	while ((r = blk_list_pop(&w->backs)))
		blk_submit(q->co->layer->below, r);
	while ((r = blk_list_pop(&w->fills)))
		co_fill(q, r);
}

void co_go_locked(struct co_queue *q)
{
	struct co *co = q->co;

	for (;;) {
		struct co_work w = { 0 };

		co_let_in(q, &w);
		co_pick(q, &w);
		pthread_mutex_unlock(&co->lock);
		bool filled = w.fills.first;
		work_off(q, &w);
		if (!filled)
			return;
		/* what was filled may be what others wait for */
		pthread_mutex_lock(&co->lock);
	}
}

void co_go(struct co_queue *q)
{
	pthread_mutex_lock(&q->co->lock);
	co_go_locked(q);
}

static void on_pump(struct blk_task *t)
{
	co_go((struct co_queue *)((char *)t - offsetof(struct co_queue, pump)));
}

static void on_post(struct blk_task *t)
{
	struct co_queue *q = (struct co_queue *)((char *)t - offsetof(struct co_queue, task));
	struct co_work w = { 0 };

	pthread_mutex_lock(&q->co->lock);
	w.sends = q->ready;
	q->ready = (struct blk_list){ 0 };
	q->posted = false;
	pthread_mutex_unlock(&q->co->lock);
	work_off(q, &w);
	co_go(q);
}

static void on_idle(struct blk_timer *t)
{
	struct co_queue *q = (struct co_queue *)((char *)t - offsetof(struct co_queue, idle));
	struct co *co = q->co;
	uint64_t now = blk_queue_now(q->queue);

	pthread_mutex_lock(&co->lock);
	co->idle_armed = false;
	if (!atomic_load(&co->busy) && !co->fills) {
		if (now >= co->last_ns + co->idle_ns) {
			co_buffer_punch(&co->buffer);
			co->free_slots = co->buffer.reserved;
			blk_count(&co->count.punched, 1);
		} else {
			co->idle_armed = true;
			blk_timer_set(q->queue, t, co->last_ns + co->idle_ns);
		}
	}
	pthread_mutex_unlock(&co->lock);
}

static void coalesce_submit(struct blk_layer *l, struct blk_req *r)
{
	struct co *co = l->state;
	struct co_queue *q = co_queue_of(co, r);

	if (r->op == BLK_READ)
		co_submit_read(q, r);
	else if (r->op == BLK_FLUSH)
		co_submit_flush(q, r);
	else
		co_submit_write(q, r);
}

/* ---- life ---- */
static void coalesce_close(struct blk_layer *l)
{
	struct co *co = l->state;

	assert(!co->backs && !co->directs);
	if (co->opened && !co->held_slots) /* else there may be records that were not looked at */
		co_buffer_punch(&co->buffer);
	co_index_close(co);
	co_buffer_close(&co->buffer);
	pthread_mutex_destroy(&co->lock);
	free(co);
	l->state = NULL;
}

static int coalesce_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	const char *volume = blk_values_text(v, "volume");
	struct co *co;
	int rc;

	if (l->info.read_only)
		return error_set(e, "InvalidOption", "coalesce: there is nothing to write back to a read-only disk");
	if (l->info.block_bytes > CO_PAGE)
		return error_set(e, "InvalidOption", "coalesce: blocks of %u bytes are longer than its pages", l->info.block_bytes);
	co = calloc(1, sizeof(*co));
	if (!co)
		return error_errno(e, ENOMEM, "coalesce");
	pthread_mutex_init(&co->lock, NULL);
	co->layer = l;
	co->buffer.fd = -1;
	co->idle_ns = blk_values_number(v, "idle") * 1000000;
	co->merge_pages = (unsigned)(blk_values_number(v, "merge") / CO_PAGE);
	l->state = co;
	rc = co_buffer_open(&co->buffer, blk_values_text(v, "buffer"), volume ? volume : "", blk_values_number(v, "size"), &l->info, e);
	if (!rc) {
		rc = co_index_open(co);
		if (rc)
			error_errno(e, rc, "coalesce");
	}
	if (rc) {
		coalesce_close(l);
		return rc;
	}
	co->merge_pages = MIN_OF(co->merge_pages, co->buffer.slots / 8);
	/* a write must fit with room to spare */
	co->bypass_bytes = MIN_OF(blk_values_number(v, "bypass"), (uint64_t)co->buffer.slots / 4 * CO_PAGE);
	l->info.volatile_cache = true;
	co->opened = true;
	return 0;
}

static void coalesce_queue_stop(struct blk_layer *l, struct blk_queue *queue)
{
	struct co_queue *q = l->queue_state[blk_queue_index(queue)];

	if (!q)
		return;
	blk_timer_cancel(&q->retry);
	blk_timer_cancel(&q->idle);
	blk_pool_free(q->backs);
	blk_pool_free(q->directs);
	blk_pool_free(q->reads);
	free(q);
	l->queue_state[blk_queue_index(queue)] = NULL;
}

static int coalesce_queue_start(struct blk_layer *l, struct blk_queue *queue, struct error *e)
{
	struct co *co = l->state;
	struct co_queue *q = calloc(1, sizeof(*q));
	int rc = q ? 0 : -ENOMEM;

	l->queue_state[blk_queue_index(queue)] = q;
	if (!rc) {
		q->co = co;
		q->queue = queue;
		q->task.fn = on_post;
		q->pump.fn = on_pump;
		q->retry.fn = co_retry;
		q->idle.fn = on_idle;
		rc = blk_pool_new(queue, CO_BACKS + CO_SECTORS, CO_MERGE_MAX, co_back_extra(), &q->backs);
	}
	if (!rc)
		rc = blk_pool_new(queue, CO_DIRECTS, 0, sizeof(q), &q->directs);
	if (!rc)
		rc = blk_pool_new(queue, CO_READS, BLK_IOV_MAX, sizeof(q), &q->reads);
	if (rc) {
		coalesce_queue_stop(l, queue);
		return error_errno(e, rc, "coalesce: a queue");
	}
	if (blk_queue_index(queue))
		return 0;
	/* what was replayed is written back; room that nobody uses is given back */
	co->idle_armed = !co->held_slots;
	if (co->idle_armed) {
		blk_timer_set(queue, &q->idle, (uint64_t)clock_mono_ms() * 1000000 + co->idle_ns);
	} else {
		q->posted = true;
		blk_queue_post(queue, &q->task);
	}
	return 0;
}

static void coalesce_settle(struct blk_layer *l, bool stop, void (*fn)(void *ctx), void *ctx)
{
	struct co *co = l->state;
	struct co_queue *q = l->queue_state[0];

	pthread_mutex_lock(&co->lock);
	co->stopped = stop;
	bool wait = stop && co->backs;
	if (wait) {
		co->settled = fn;
		co->settled_ctx = ctx;
	}
	if (!stop && q && !q->posted) {
		q->posted = true;
		blk_queue_post(q->queue, &q->task);
	}
	pthread_mutex_unlock(&co->lock);
	if (!wait && fn)
		fn(ctx);
}

static int coalesce_resize(struct blk_layer *l, uint64_t size_bytes, struct error *e)
{
	struct co *co = l->state;

	l->info.size_bytes = l->below->info.size_bytes;
	co_buffer_resized(&co->buffer, l->info.size_bytes);
	return 0;
}

/* drain is quiet: the barrier has flushed all. */
static int coalesce_command(struct blk_layer *l, const char *verb, const struct blk_values *args, struct buf *ret_json, struct error *e)
{
	struct co *co = l->state;

	pthread_mutex_lock(&co->lock);
	unsigned held = co->held_slots;
	pthread_mutex_unlock(&co->lock);
	buf_printf(ret_json, "{\"buffered_bytes\":%llu}", (unsigned long long)held * CO_PAGE);
	return 0;
}

static void coalesce_stats(struct blk_layer *l, struct blk_stats_sink *sink)
{
	struct co *co = l->state;
	const struct co_counters *c = &co->count;

	pthread_mutex_lock(&co->lock);
	uint64_t buffered = (uint64_t)co->held_slots * CO_PAGE, failed = (uint64_t)co->failed_slots * CO_PAGE,
		 room = (uint64_t)co->buffer.reserved * CO_PAGE, backs = co->backs;
	pthread_mutex_unlock(&co->lock);
	const struct {
		const char *name, *help;
		uint64_t value;
		bool gauge;
	} table[] = {
		{ "absorbed", "writes answered from the buffer", c->absorbed },
		{ "absorbed_bytes", "bytes of them", c->absorbed_bytes },
		{ "merged", "writes that went to the disk in one with the one before", c->merged },
		{ "replaced_bytes", "bytes that were written anew before the disk had them", c->replaced_bytes },
		{ "write_backs", "writes to the disk", c->write_backs },
		{ "write_back_bytes", "bytes of them", c->write_back_bytes },
		{ "failures", "write-backs that failed", c->failures },
		{ "full_waits", "writes that waited for room", c->full_waits },
		{ "overlap_waits", "writes that waited for another at the same place", c->overlap_waits },
		{ "direct", "writes, zeroes and discards that passed the buffer", c->direct },
		{ "write_through", "writes that passed it because it could take none", c->write_through },
		{ "read_overlaps", "reads of which a part or all was buffered", c->read_overlaps },
		{ "drains", "flushes that had something to write back", c->flushes },
		{ "flush_errors", "flushes that failed because a write-back had", c->flush_errors },
		{ "replayed", "records found in the buffer at the start", c->replayed },
		{ "punched", "times that the idle buffer's room was given back", c->punched },
		{ "buffered_bytes", "in the buffer now", buffered, true },
		{ "failed_bytes", "of which the last write-back failed", failed, true },
		{ "room_bytes", "tmpfs that the buffer holds now", room, true },
		{ "write_backs_now", "in flight", backs, true },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
		blk_stats_emit(sink, "coalesce", table[i].name, !table[i].gauge, table[i].value, table[i].help);
}

static const struct blk_option coalesce_options[] = {
	{ .name = "buffer", .type = BLK_OPT_TEXT, .required = true, .doc = "the buffer's file, on tmpfs; kept over restarts" },
	{ .name = "volume", .type = BLK_OPT_TEXT, .fallback = "", .doc = "whose buffer it is: one with data of another is refused" },
	{ .name = "size", .type = BLK_OPT_BYTES, .fallback = "16M", .min = 1 << 20, .max = 255u << 20, .doc = "bytes that it can hold" },
	{ .name = "merge", .type = BLK_OPT_BYTES, .fallback = "1M", .min = 1 << 14, .max = 1 << 20, .doc = "longest write to the disk" },
	{ .name = "bypass", .type = BLK_OPT_BYTES, .fallback = "512k", .min = 1 << 12, .doc = "writes as long as this go to the disk themselves" },
	{ .name = "idle", .type = BLK_OPT_MS, .fallback = "5000", .min = 10, .doc = "its room is given back after so long without a write" },
	{ 0 },
};

static const struct blk_option no_args[] = { { 0 } };
static const struct blk_verb coalesce_verbs[] = {
	{ .name = "drain", .args = no_args, .quiet = true, .doc = "write all back and flush" },
	{ 0 },
};

const struct blk_layer_ops blk_coalesce_ops = {
	.name = "coalesce",
	.doc = "answers writes from a buffer that outlives the process, and merges them",
	.options = coalesce_options,
	.open = coalesce_open,
	.queue_start = coalesce_queue_start,
	.queue_stop = coalesce_queue_stop,
	.submit = coalesce_submit,
	.settle = coalesce_settle,
	.resize = coalesce_resize,
	.command = coalesce_command,
	.verbs = coalesce_verbs,
	.stats = coalesce_stats,
	.close = coalesce_close,
};
