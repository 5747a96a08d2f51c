/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits on requests and bytes a second, shared by all queues (the arithmetic: throttle_priv.h).
 *
 * A queue's requests go in the order they came. The first that waits has its reservation, and a timer until it may go; when it goes the
 * next one reserves. As each queue has one reservation at most, queues that all want more than there is take turns.
 *
 * `set` gives back what is reserved, changes the limits, and has every queue reserve anew, sooner or later than before.
 *
 * FLUSH is not limited and passes those that wait: it is about writes that have completed. DISCARD, and WRITE_ZEROES where zeroes
 * are cheap, count as one request without bytes.
 */
#include "block/filter/filter.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/text.h"
#include "block/filter/throttle_priv.h"

#define BURST_MS 20 /* evens out what comes late, at 1 % too much in the first two seconds */
#define IO_BYTES (256u << 10)

struct throttle_queue;

struct throttle {
	_Atomic bool active;             /* false: requests pass without the lock */
	pthread_mutex_t lock;            /* the rest, and `reserved` and `posted` of queues */
	struct limiter limiter;
	uint64_t io_bytes;
	struct throttle_queue *queue[BLK_QUEUES_MAX];
};

struct throttle_queue {
	struct throttle *throttle;
	struct blk_layer *layer;
	struct blk_queue *queue;
	struct blk_list waiting;         /* scratch[0]: when it came */
	uint64_t go_ns;                  /* the first's reservation */
	uint64_t last_go_ns;
	bool reserved, posted;
	struct cost cost;                /* of the reservation */
	struct blk_timer timer;
	struct blk_task again;
	_Atomic uint64_t held, held_ns, waiting_count;
};

static struct cost cost_of(const struct throttle *t, const struct blk_layer *l, const struct blk_req *r)
{
	struct cost c = { .amount = { 1, 0 }, .write = r->op != BLK_READ };

	if (r->op == BLK_DISCARD || (r->op == BLK_WRITE_ZEROES && l->info.fast_zeroes))
		return c;
	c.amount[LIMIT_OPS] = (r->len_bytes + t->io_bytes - 1) / t->io_bytes;
	c.amount[LIMIT_BYTES] = r->len_bytes;
	return c;
}

/* For r, the queue's next: when it may go. With the lock. */
static uint64_t reserve(struct throttle_queue *tq, const struct blk_req *r, uint64_t came_ns)
{
	struct throttle *t = tq->throttle;

	tq->cost = cost_of(t, tq->layer, r);
	return limiter_reserve(&t->limiter, &tq->cost, MAX_OF(came_ns, tq->last_go_ns));
}

/* Lets go who may, and sets the timer for the next. On the queue's thread. */
static void go_on(struct throttle_queue *tq)
{
	struct throttle *t = tq->throttle;
	uint64_t now = blk_queue_now(tq->queue);

	while (!blk_list_empty(&tq->waiting)) {
		struct blk_req *r = tq->waiting.first;
		pthread_mutex_lock(&t->lock);
		if (!tq->reserved)
			tq->go_ns = reserve(tq, r, r->scratch[0]);
		tq->reserved = tq->go_ns > now;
		pthread_mutex_unlock(&t->lock);
		if (tq->go_ns > now) {
			blk_timer_set(tq->queue, &tq->timer, tq->go_ns);
			return;
		}
		tq->last_go_ns = tq->go_ns;
		blk_list_pop(&tq->waiting);
		blk_count(&tq->held_ns, now - MIN_OF(r->scratch[0], now));
		blk_count(&tq->waiting_count, (uint64_t)-1);
		blk_submit(tq->layer->below, r);
	}
	blk_timer_cancel(&tq->timer);
}

static void timer_due(struct blk_timer *timer)
{
	go_on((struct throttle_queue *)((char *)timer - offsetof(struct throttle_queue, timer)));
}

static void run_again(struct blk_task *task)
{
	struct throttle_queue *tq = (struct throttle_queue *)((char *)task - offsetof(struct throttle_queue, again));

	pthread_mutex_lock(&tq->throttle->lock);
	tq->posted = false;
	pthread_mutex_unlock(&tq->throttle->lock);
	go_on(tq);
}

static void throttle_submit(struct blk_layer *l, struct blk_req *r)
{
	struct throttle *t = l->state;
	struct throttle_queue *tq = l->queue_state[blk_queue_index(r->queue)];
	bool first = blk_list_empty(&tq->waiting);

	if (r->op == BLK_FLUSH || (first && !atomic_load_explicit(&t->active, memory_order_relaxed))) {
		blk_submit(l->below, r);
		return;
	}
	uint64_t now = blk_queue_now(r->queue);
	if (first) {
		pthread_mutex_lock(&t->lock);
		tq->go_ns = reserve(tq, r, now);
		tq->reserved = tq->go_ns > now;
		pthread_mutex_unlock(&t->lock);
		if (tq->go_ns <= now) {
			tq->last_go_ns = tq->go_ns;
			blk_submit(l->below, r);
			return;
		}
		blk_timer_set(tq->queue, &tq->timer, tq->go_ns);
	}
	blk_count(&tq->held, 1);
	blk_count(&tq->waiting_count, 1);
	r->scratch[0] = now;
	blk_list_push(&tq->waiting, r);
}

/* ---- limits ---- */

static void settings_read(const struct blk_values *v, struct limit_settings *s, uint64_t *io_bytes)
{
	for (unsigned i = 0; i < LIMITS; i++) {
		if (blk_values_has(v, limit_kinds[i].name))
			s->rate[i] = blk_values_number(v, limit_kinds[i].name);
	}
	if (blk_values_has(v, "iops-burst"))
		s->burst[LIMIT_OPS] = blk_values_number(v, "iops-burst");
	if (blk_values_has(v, "bps-burst"))
		s->burst[LIMIT_BYTES] = blk_values_number(v, "bps-burst");
	if (blk_values_has(v, "burst-ms"))
		s->burst_ms = blk_values_number(v, "burst-ms");
	if (blk_values_has(v, "io-bytes"))
		*io_bytes = blk_values_number(v, "io-bytes");
}

static void set_limits(struct throttle *t, const struct blk_values *v, uint64_t now_ns)
{
	struct limit_settings s;

	pthread_mutex_lock(&t->lock);
	for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
		if (t->queue[i] && t->queue[i]->reserved)
			limiter_refund(&t->limiter, &t->queue[i]->cost);
		if (t->queue[i])
			t->queue[i]->reserved = false;
	}
	s = t->limiter.settings;
	settings_read(v, &s, &t->io_bytes);
	limiter_set(&t->limiter, &s, now_ns);
	atomic_store(&t->active, limiter_active(&t->limiter));
	pthread_mutex_unlock(&t->lock);
}

static void wake_queues(struct throttle *t)
{
	for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
		struct throttle_queue *tq = t->queue[i];
		if (!tq)
			continue;
		pthread_mutex_lock(&t->lock);
		bool post = !tq->posted;
		tq->posted = true;
		pthread_mutex_unlock(&t->lock);
		if (post)
			blk_queue_post(tq->queue, &tq->again);
	}
}

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int throttle_command(struct blk_layer *l, const char *verb, const struct blk_values *args, struct buf *ret_json, struct error *e)
{
	struct throttle *t = l->state;

	if (str_eq(verb, "set")) {
		set_limits(t, args, clock_ns());
		wake_queues(t);
	}
	pthread_mutex_lock(&t->lock);
	struct limit_settings s = t->limiter.settings;
	uint64_t io_bytes = t->io_bytes;
	pthread_mutex_unlock(&t->lock);
	buf_putc(ret_json, '{');
	for (unsigned i = 0; i < LIMITS; i++)
		buf_printf(ret_json, "\"%s\":%llu,", limit_kinds[i].name, (unsigned long long)s.rate[i]);
	buf_printf(ret_json, "\"iops-burst\":%llu,\"bps-burst\":%llu,\"burst-ms\":%llu,\"io-bytes\":%llu}",
		   (unsigned long long)s.burst[LIMIT_OPS], (unsigned long long)s.burst[LIMIT_BYTES], (unsigned long long)s.burst_ms,
		   (unsigned long long)io_bytes);
	return 0;
}

/* ---- the layer ---- */

static int throttle_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	struct throttle *t = calloc(1, sizeof(*t));

	if (!t)
		return error_errno(e, ENOMEM, "the throttle filter");
	pthread_mutex_init(&t->lock, NULL);
	t->io_bytes = IO_BYTES;
	t->limiter.settings.burst_ms = BURST_MS;
	set_limits(t, v, clock_ns());
	l->state = t;
	return 0;
}

static void throttle_close(struct blk_layer *l)
{
	struct throttle *t = l->state;

	pthread_mutex_destroy(&t->lock);
	free(t);
}

static int throttle_queue_start(struct blk_layer *l, struct blk_queue *q, struct error *e)
{
	struct throttle_queue *tq = calloc(1, sizeof(*tq));

	if (!tq)
		return error_errno(e, ENOMEM, "a queue of the throttle filter");
	tq->throttle = l->state;
	tq->layer = l;
	tq->queue = q;
	tq->timer.fn = timer_due;
	tq->again.fn = run_again;
	tq->throttle->queue[blk_queue_index(q)] = tq;
	l->queue_state[blk_queue_index(q)] = tq;
	return 0;
}

static void throttle_queue_stop(struct blk_layer *l, struct blk_queue *q)
{
	struct throttle_queue *tq = l->queue_state[blk_queue_index(q)];

	assert(blk_list_empty(&tq->waiting));
	blk_timer_cancel(&tq->timer);
	tq->throttle->queue[blk_queue_index(q)] = NULL;
	l->queue_state[blk_queue_index(q)] = NULL;
	free(tq);
}

static void throttle_stats(struct blk_layer *l, struct blk_stats_sink *sink)
{
	struct throttle *t = l->state;
	uint64_t held = 0, held_ns = 0, waiting = 0;

	for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
		if (!t->queue[i])
			continue;
		held += t->queue[i]->held;
		held_ns += t->queue[i]->held_ns;
		waiting += t->queue[i]->waiting_count;
	}
	pthread_mutex_lock(&t->lock);
	uint64_t iops = t->limiter.settings.rate[LIMIT_IOPS], bps = t->limiter.settings.rate[LIMIT_BPS];
	pthread_mutex_unlock(&t->lock);
	blk_stats_emit(sink, "throttle", "held", true, held, "requests that had to wait");
	blk_stats_emit(sink, "throttle", "held_ns", true, held_ns, "how long they waited, together");
	blk_stats_emit(sink, "throttle", "waiting", false, waiting, "requests that wait now");
	blk_stats_emit(sink, "throttle", "iops", false, iops, "requests a second allowed; 0: unlimited");
	blk_stats_emit(sink, "throttle", "bps", false, bps, "bytes a second allowed; 0: unlimited");
}

static const struct blk_option throttle_options[] = {
	{ .name = "iops", .type = BLK_OPT_UINT, .max = 1ull << 40, .doc = "requests a second; 0: unlimited, as all of these" },
	{ .name = "bps", .type = BLK_OPT_BYTES, .max = 1ull << 50, .doc = "bytes a second" },
	{ .name = "iops-rd", .type = BLK_OPT_UINT, .max = 1ull << 40, .doc = "reads a second" },
	{ .name = "bps-rd", .type = BLK_OPT_BYTES, .max = 1ull << 50, .doc = "bytes read a second" },
	{ .name = "iops-wr", .type = BLK_OPT_UINT, .max = 1ull << 40, .doc = "writes a second" },
	{ .name = "bps-wr", .type = BLK_OPT_BYTES, .max = 1ull << 50, .doc = "bytes written a second" },
	{ .name = "iops-burst", .type = BLK_OPT_UINT, .max = 1ull << 40, .doc = "requests that iops= saves up for a burst" },
	{ .name = "bps-burst", .type = BLK_OPT_BYTES, .max = 1ull << 50, .doc = "bytes that bps= saves up for a burst" },
	{ .name = "iops-peak", .type = BLK_OPT_UINT, .max = 1ull << 40, .doc = "requests a second during such a burst" },
	{ .name = "bps-peak", .type = BLK_OPT_BYTES, .max = 1ull << 50, .doc = "bytes a second during such a burst" },
	{ .name = "burst-ms", .type = BLK_OPT_MS, .max = 3600000, .doc = "what all other limits save up (20), in time at their rate" },
	{ .name = "io-bytes", .type = BLK_OPT_BYTES, .min = 512, .max = 1u << 30, .doc = "a longer request counts as several (256k)" },
	{ 0 },
};

static const struct blk_verb throttle_verbs[] = {
	{ .name = "set", .args = throttle_options, .doc = "change the limits that are given; requests that wait go by the new ones" },
	{ .name = "show", .doc = "the limits" },
	{ 0 },
};

const struct blk_layer_ops blk_throttle_ops = {
	.name = "throttle",
	.doc = "limits requests and bytes a second",
	.options = throttle_options,
	.open = throttle_open,
	.queue_start = throttle_queue_start,
	.queue_stop = throttle_queue_stop,
	.submit = throttle_submit,
	.command = throttle_command,
	.verbs = throttle_verbs,
	.stats = throttle_stats,
	.close = throttle_close,
};
