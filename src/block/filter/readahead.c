/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "base/text.h"
#include "block/filter/filter.h"
#include "block/filter/readahead_priv.h"

/*
 * Read-ahead: finds who reads in sequence and reads on before they ask, so that a reader with one request at a time keeps the
 * disk busy. One cache a volume.
 *
 * A read: nothing cached at all, or no chunk of its own hash heads: to the disk, after a look by the queue's own detector.
 * That is all that random reads pay. Otherwise, under the lock: served from chunks (pinned there, copied outside the lock), or
 * left with the chunk that is being read, or sent to the disk. When a chunk arrives its waiters are looked at anew, on the
 * thread that loaded it; who finds nothing then is posted to its own queue and goes to the disk from there. So a read-ahead
 * that fails or is out of date costs its waiters time and nothing else.
 *
 * A write, write-zeroes or discard goes below as a child, so that its end is heard: both ends change generations
 * (readahead_cache.c).
 *
 * Loads are children of the queue that asked for them. A timer, on the queue that started a stream while none ran, ends idle
 * streams and gives memory back; it stops when there is nothing left to do.
 */
#define TICK_NS 500000000u
#define CHUNKS_MAX 65000u

static struct ra_queue *queue_of(struct ra *ra, const struct blk_req *r)
{
	return ra->layer->queue_state[blk_queue_index(r->queue)];
}

/* ---- loading ---- */
static void load_done(struct blk_req *child);

/* Under lock: children for all that streams want now. */
static void take_loads(struct ra_queue *q, struct blk_list *loads)
{
	struct ra *ra = q->ra;
	uint64_t now = blk_queue_now(q->queue);
	struct ra_chunk *c;

	while (blk_pool_out(q->loads) < ra->chunk_count && (c = ra_next_load(ra, now))) {
		struct blk_req *child = blk_pool_get(q->loads);
		struct iovec *iov = blk_pool_iov(child);

		*iov = (struct iovec){ c->data + c->from, c->to - c->from };
		child->op = BLK_READ;
		child->flags = BLK_BACKGROUND;
		child->off_bytes = c->index * ra->chunk_bytes + c->from;
		child->len_bytes = iov->iov_len;
		child->iov = iov;
		child->iov_count = 1;
		child->ctx = c;
		child->done = load_done;
		c->loader = q;
		blk_list_push(loads, child);
	}
}

static void submit_all(struct ra_queue *q, struct blk_list *list)
{
	struct blk_req *r;

	while ((r = blk_list_pop(list)))
		blk_submit(q->ra->layer->below, r);
}

/* Copies what ra_look() pinned, and lets go of it. On any queue's thread: q is that of the caller. */
static void serve(struct ra_queue *q, struct blk_req *r, struct ra_chunk *const pinned[], unsigned count, struct blk_list *loads)
{
	struct ra *ra = q->ra;
	uint64_t at = r->off_bytes, end = at + r->len_bytes;

	for (unsigned i = 0; i < count; i++) {
		uint64_t base = pinned[i]->index * ra->chunk_bytes, stop = MIN_OF(end, base + ra->chunk_bytes);

		blk_iov_to(r->iov, r->iov_count, at - r->off_bytes, pinned[i]->data + (at - base), stop - at);
		at = stop;
	}
	assert(at == end);
	pthread_mutex_lock(&ra->lock);
	ra_unpin(ra, pinned, count, r, blk_queue_now(q->queue));
	take_loads(q, loads);
	pthread_mutex_unlock(&ra->lock);
	blk_complete(r, 0);
}

static void go_on(struct blk_task *t)
{
	struct ra_queue *q = (struct ra_queue *)((char *)t - offsetof(struct ra_queue, task));
	struct blk_list again;

	pthread_mutex_lock(&q->ra->lock);
	again = q->again;
	q->again = (struct blk_list){ 0 };
	q->posted = false;
	pthread_mutex_unlock(&q->ra->lock);
	submit_all(q, &again);
}

/* r waited for a chunk that has ended: what now? */
static void again(struct ra_queue *q, struct blk_req *r, struct blk_list *loads)
{
	struct ra *ra = q->ra;
	struct ra_queue *own = queue_of(ra, r);
	struct ra_chunk *pinned[RA_SPAN_MAX];
	unsigned count;
	bool post = false;

	pthread_mutex_lock(&ra->lock);
	enum ra_verdict v = ra_look(ra, r, blk_queue_now(q->queue), pinned, &count);
	if (v == RA_MISS && own != q) {
		blk_list_push(&own->again, r);
		post = !own->posted;
		own->posted = true;
	}
	pthread_mutex_unlock(&ra->lock);
	if (v == RA_HIT)
		serve(q, r, pinned, count, loads);
	else if (v == RA_MISS && own == q)
		blk_submit(ra->layer->below, r);
	if (post)
		blk_queue_post(own->queue, &own->task);
}

static void load_done(struct blk_req *child)
{
	struct ra_chunk *c = child->ctx;
	struct ra_queue *q = c->loader;
	struct ra *ra = q->ra;
	struct blk_list waiters, loads = { 0 };
	void (*settled)(void *ctx) = NULL;
	void *settled_ctx;
	struct blk_req *r;
	int result = child->result;

	blk_pool_put(q->loads, child);
	pthread_mutex_lock(&ra->lock);
	ra_loaded(ra, c, result, blk_queue_now(q->queue), &waiters);
	if (blk_list_empty(&waiters))
		take_loads(q, &loads);
	pthread_mutex_unlock(&ra->lock);
	while ((r = blk_list_pop(&waiters)))
		again(q, r, &loads);
	submit_all(q, &loads);
	pthread_mutex_lock(&ra->lock);
	settled_ctx = ra->settled_ctx;
	if (!ra->loading)
		settled = TAKE_PTR(ra->settled);
	pthread_mutex_unlock(&ra->lock);
	if (settled)
		settled(settled_ctx);
}

/* ---- reads ---- */
static void tick(struct blk_timer *t)
{
	struct ra_queue *q = (struct ra_queue *)((char *)t - offsetof(struct ra_queue, tick));
	struct ra *ra = q->ra;
	uint64_t now = blk_queue_now(q->queue);
	bool wanted;

	pthread_mutex_lock(&ra->lock);
	ra_kill_idle(ra, now);
	wanted = ra_give_back(ra, now);
	if (!wanted)
		ra->ticker = NULL;
	pthread_mutex_unlock(&ra->lock);
	if (wanted)
		blk_timer_set(q->queue, t, now + TICK_NS);
}

static void start_stream(struct ra_queue *q, uint64_t pos, uint64_t seen_bytes)
{
	struct ra *ra = q->ra;
	struct blk_list loads = { 0 };
	uint64_t now = blk_queue_now(q->queue);
	bool arm = false;

	pthread_mutex_lock(&ra->lock);
	ra_stream_start(ra, pos, seen_bytes, now);
	take_loads(q, &loads);
	if (ra->streams && !ra->ticker) {
		ra->ticker = q;
		arm = true;
	}
	pthread_mutex_unlock(&ra->lock);
	if (arm)
		blk_timer_set(q->queue, &q->tick, now + TICK_NS);
	submit_all(q, &loads);
}

/* Not in the cache: to the disk, and is this a run? */
static void read_disk(struct ra_queue *q, struct blk_req *r)
{
	uint64_t off = r->off_bytes, len = r->len_bytes, seen;

	blk_count(&q->misses, 1);
	blk_submit(q->ra->layer->below, r);
	if (ra_detect(q->run, off, len, atomic_load_explicit(&q->ra->need, memory_order_relaxed), &seen))
		start_stream(q, off + len, seen);
}

static void read_near(struct ra_queue *q, struct blk_req *r)
{
	struct ra *ra = q->ra;
	struct ra_chunk *pinned[RA_SPAN_MAX];
	struct blk_list loads = { 0 };
	unsigned count;

	pthread_mutex_lock(&ra->lock);
	enum ra_verdict v = ra_look(ra, r, blk_queue_now(q->queue), pinned, &count);
	blk_count(&ra->count.waited, v == RA_WAIT);
	take_loads(q, &loads);
	pthread_mutex_unlock(&ra->lock);
	if (v == RA_HIT)
		serve(q, r, pinned, count, &loads);
	else if (v == RA_MISS)
		read_disk(q, r);
	submit_all(q, &loads);
}

static void submit_read(struct ra_queue *q, struct blk_req *r)
{
	struct ra *ra = q->ra;

	if (r->len_bytes > (uint64_t)(RA_SPAN_MAX - 1) * ra->chunk_bytes) {
		blk_count(&q->passed_by, 1);
		blk_submit(ra->layer->below, r);
	} else if (atomic_load_explicit(&ra->live, memory_order_relaxed) && ra_near(ra, r)) {
		read_near(q, r);
	} else {
		read_disk(q, r);
	}
}

/* ---- writes ---- */
static void write_done(struct blk_req *child);

static void write_below(struct ra_queue *q, struct blk_req *r)
{
	struct blk_req *child = blk_pool_copy(q->writes, r);
	struct ra *ra = q->ra;

	if (!child) {
		blk_list_push(&q->held, r);
		return;
	}
	child->done = write_done;
	*(struct ra_queue **)blk_pool_extra(child) = q;
	ra_write_begin(ra, r->off_bytes, r->len_bytes);
	if (atomic_load_explicit(&ra->live, memory_order_relaxed) && r->len_bytes <= ra->chunk_bytes && ra_near(ra, r)) {
		pthread_mutex_lock(&ra->lock);
		ra_write_behind(ra, r->off_bytes, r->len_bytes);
		pthread_mutex_unlock(&ra->lock);
	}
	blk_submit(ra->layer->below, child);
}

static void write_done(struct blk_req *child)
{
	struct blk_req *r = child->ctx, *held;
	struct ra_queue *q = *(struct ra_queue **)blk_pool_extra(child);
	int result = child->result;

	ra_write_end(q->ra, child->off_bytes, child->len_bytes);
	blk_pool_put(q->writes, child);
	blk_complete(r, result);
	held = blk_list_pop(&q->held);
	if (held)
		write_below(q, held);
}

static void readahead_submit(struct blk_layer *l, struct blk_req *r)
{
	struct ra *ra = l->state;
	struct ra_queue *q = queue_of(ra, r);

	switch (r->op) {
	case BLK_READ:
		submit_read(q, r);
		break;
	case BLK_WRITE:
	case BLK_WRITE_ZEROES:
	case BLK_DISCARD:
		write_below(q, r);
		break;
	default:
		blk_submit(l->below, r);
		break;
	}
}

/* ---- life ---- */
static void readahead_close(struct blk_layer *l)
{
	struct ra *ra = l->state;

	assert(!ra->loading);
	ra_cache_close(ra);
	pthread_mutex_destroy(&ra->lock);
	free(ra);
	l->state = NULL;
}

static int readahead_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	uint64_t cache = blk_values_number(v, "cache"), chunk = blk_values_number(v, "chunk");
	struct ra *ra;
	int rc;

	if (chunk & (chunk - 1))
		return error_set(e, "InvalidOption", "readahead: chunk=%llu is not a power of two", (unsigned long long)chunk);
	if (cache / chunk < 4 || cache / chunk > CHUNKS_MAX)
		return error_set(e, "InvalidOption", "readahead: the cache must hold 4 to %u chunks of %llu bytes", CHUNKS_MAX,
				 (unsigned long long)chunk);
	ra = calloc(1, sizeof(*ra));
	if (!ra)
		return error_errno(e, ENOMEM, "readahead");
	pthread_mutex_init(&ra->lock, NULL);
	ra->layer = l;
	ra->chunk_bytes = (uint32_t)chunk;
	ra->idle_ns = blk_values_number(v, "idle") * 1000000;
	ra->need = RA_NEED_MIN;
	ra->size_bytes = l->info.size_bytes;
	l->state = ra;
	rc = ra_cache_open(ra, cache);
	if (rc) {
		readahead_close(l);
		return error_errno(e, rc, "readahead: a cache of %llu bytes", (unsigned long long)cache);
	}
	return 0;
}

static void readahead_queue_stop(struct blk_layer *l, struct blk_queue *queue)
{
	struct ra *ra = l->state;
	struct ra_queue *q = l->queue_state[blk_queue_index(queue)];

	if (!q)
		return;
	blk_timer_cancel(&q->tick);
	pthread_mutex_lock(&ra->lock);
	if (ra->ticker == q)
		ra->ticker = NULL;
	pthread_mutex_unlock(&ra->lock);
	blk_pool_free(q->loads);
	blk_pool_free(q->writes);
	free(q);
	l->queue_state[blk_queue_index(queue)] = NULL;
}

static int readahead_queue_start(struct blk_layer *l, struct blk_queue *queue, struct error *e)
{
	struct ra *ra = l->state;
	struct ra_queue *q = calloc(1, sizeof(*q));
	int rc = q ? 0 : -ENOMEM;

	l->queue_state[blk_queue_index(queue)] = q;
	if (!rc) {
		q->ra = ra;
		q->queue = queue;
		q->task.fn = go_on;
		q->tick.fn = tick;
		rc = blk_pool_new(queue, RA_WRITES, 0, sizeof(q), &q->writes);
	}
	if (!rc)
		rc = blk_pool_new(queue, ra->chunk_count, 1, 0, &q->loads);
	if (rc) {
		readahead_queue_stop(l, queue);
		return error_errno(e, rc, "readahead: a queue");
	}
	return 0;
}

static void readahead_settle(struct blk_layer *l, bool stop, void (*fn)(void *ctx), void *ctx)
{
	struct ra *ra = l->state;
	bool wait;

	pthread_mutex_lock(&ra->lock);
	ra->stopped = stop;
	if (stop)
		ra_forget_all(ra, 0);
	wait = stop && ra->loading;
	if (wait) {
		ra->settled = fn;
		ra->settled_ctx = ctx;
	}
	pthread_mutex_unlock(&ra->lock);
	if (!wait && fn)
		fn(ctx);
}

static int readahead_resize(struct blk_layer *l, uint64_t size_bytes, struct error *e)
{
	struct ra *ra = l->state;

	pthread_mutex_lock(&ra->lock);
	ra_forget_all(ra, 0); /* a chunk at the old end is short */
	l->info.size_bytes = l->below->info.size_bytes;
	ra->size_bytes = l->info.size_bytes;
	pthread_mutex_unlock(&ra->lock);
	return 0;
}

static void readahead_stats(struct blk_layer *l, struct blk_stats_sink *sink)
{
	struct ra *ra = l->state;
	const struct ra_counters *c = &ra->count;
	uint64_t misses = 0, passed_by = 0, streams, live = ra->live;

	for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
		struct ra_queue *q = l->queue_state[i];

		misses += q ? q->misses : 0;
		passed_by += q ? q->passed_by : 0;
	}
	pthread_mutex_lock(&ra->lock);
	streams = ra->streams;
	pthread_mutex_unlock(&ra->lock);
	const struct {
		const char *name, *help;
		uint64_t value;
		bool gauge;
	} table[] = {
		{ "hits", "reads served from memory", c->hits },
		{ "misses", "reads that went to the disk", misses },
		{ "waited", "reads that waited for a chunk on its way", c->waited },
		{ "partial", "reads of which a part was in memory, and that went to the disk", c->partial },
		{ "passed_by", "reads too long for the cache", passed_by },
		{ "ahead_bytes", "bytes read ahead", c->ahead_bytes },
		{ "used_bytes", "bytes served from memory", c->used_bytes },
		{ "unused_bytes", "bytes read ahead that nobody asked for", c->unused_bytes },
		{ "stale_drops", "chunks dropped because their range was written", c->stale },
		{ "errors", "read-aheads that failed", c->errors },
		{ "streams_found", "sequential readers found", c->streams },
		{ "given_back", "chunks whose memory was given back", c->given_back },
		{ "streams", "sequential readers now", streams, true },
		{ "chunks", "chunks loading or in memory now", live, true },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
		blk_stats_emit(sink, "readahead", table[i].name, !table[i].gauge, table[i].value, table[i].help);
}

static const struct blk_option readahead_options[] = {
	{ .name = "cache", .type = BLK_OPT_BYTES, .fallback = "16M", .min = 1 << 18, .max = 1ull << 32, .doc = "most memory it takes; given back when idle" },
	{ .name = "chunk", .type = BLK_OPT_BYTES, .fallback = "256k", .min = 1 << 16, .max = 1 << 22, .doc = "bytes of one read-ahead, a power of two" },
	{ .name = "idle", .type = BLK_OPT_MS, .fallback = "2000", .min = 10, .max = 3600000, .doc = "a reader that paused so long is forgotten" },
	{ 0 },
};

const struct blk_layer_ops blk_readahead_ops = {
	.name = "readahead",
	.doc = "reads on ahead of sequential readers",
	.options = readahead_options,
	.open = readahead_open,
	.queue_start = readahead_queue_start,
	.queue_stop = readahead_queue_stop,
	.submit = readahead_submit,
	.settle = readahead_settle,
	.resize = readahead_resize,
	.stats = readahead_stats,
	.close = readahead_close,
};
