/* SPDX-License-Identifier: Apache-2.0 */
#include "block/core/stack.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/text.h"
#include "block/core/front.h"
#include "block/core/stack_priv.h"
#include "block/core/stats_priv.h"

/* ---- layers ---- */

void blk_submit(struct blk_layer *l, struct blk_req *r)
{
	r->completed = false;
	if (l->io) {
		struct blk_io_stats *io = &l->io[blk_queue_index(r->queue)];
		unsigned i = r->account[0].io ? 1 : 0;
		assert(!r->account[i].io);
		r->account[i].io = io;
		r->account[i].arrival_ns = blk_queue_now(r->queue);
		blk_io_stats_arrive(io, r, r->account[i].arrival_ns);
	}
	l->ops->submit(l, r);
}

static int driver_index(const struct blk_layer_ops *const *drivers, const char *name)
{
	for (int i = 0; drivers[i]; i++) {
		if (str_eq(drivers[i]->name, name))
			return i;
	}
	return -1;
}

static int find_driver(const struct blk_stack *s, const char *spec, bool back, int *ret_index, struct error *e)
{
	char name[32];
	int err = blk_spec_name(spec, name, e);

	if (err)
		return err;
	int index = driver_index(s->drivers, name);
	if (index < 0 || s->drivers[index]->is_back != back)
		return error_set(e, "InvalidOption", "there is no %s \"%s\"", back ? "back end" : "filter", name);
	*ret_index = index;
	return 0;
}

static int layer_open(struct blk_stack *s, const struct blk_layer_ops *ops, const char *spec, struct blk_layer *below,
		      struct blk_layer **ret, struct error *e)
{
	_cleanup_(blk_values_freep) struct blk_values *values = NULL;
	int err = blk_values_parse(spec, ops->options, &values, e);

	if (err)
		return err;
	struct blk_layer *l = calloc(1, sizeof(*l));
	if (!l)
		return error_errno(e, ENOMEM, "opening %s", ops->name);
	l->ops = ops;
	l->below = below;
	l->stack = s;
	if (below)
		l->info = below->info;
	err = ops->open(l, values, e);
	if (err) {
		free(l);
		return err;
	}
	*ret = l;
	return 0;
}

static void layer_close(struct blk_layer *l)
{
	if (!l)
		return;
	if (l->ops->close)
		l->ops->close(l);
	free(l);
}

static void stop_queues(struct blk_stack *s, struct blk_layer *l, unsigned count)
{
	for (unsigned i = 0; i < count && l->ops->queue_stop; i++)
		l->ops->queue_stop(l, s->queue[i]);
}

static int start_queues(struct blk_stack *s, struct blk_layer *l, struct error *e)
{
	for (unsigned i = 0; i < s->queues && l->ops->queue_start; i++) {
		int err = l->ops->queue_start(l, s->queue[i], e);
		if (err) {
			stop_queues(s, l, i);
			return err;
		}
	}
	return 0;
}

int blk_back_open(struct blk_stack *s, const char *spec, struct blk_layer **ret, struct error *e)
{
	unsigned slot = 0;
	int index, err;
	struct blk_layer *l;

	while (slot < EXTRA_BACKS_MAX && s->extra[slot])
		slot++;
	if (slot == EXTRA_BACKS_MAX)
		return error_set(e, "InvalidOption", "%s: more than %d back ends beside the stack", spec, EXTRA_BACKS_MAX);
	err = find_driver(s, spec, true, &index, e);
	if (!err)
		err = layer_open(s, s->drivers[index], spec, NULL, &l, e);
	if (err)
		return err;
	err = start_queues(s, l, e);
	if (err) {
		layer_close(l);
		return err;
	}
	s->extra[slot] = l;
	*ret = l;
	return 0;
}

void blk_back_close(struct blk_layer *l)
{
	if (!l)
		return;
	struct blk_stack *s = l->stack;
	for (unsigned i = 0; i < EXTRA_BACKS_MAX; i++) {
		if (s->extra[i] == l)
			s->extra[i] = NULL;
	}
	stop_queues(s, l, s->queues);
	layer_close(l);
}

/* ---- opening ---- */

static void enter_top(struct blk_gate *g, struct blk_req *r)
{
	struct blk_stack *s = g->ctx;

	blk_submit(s->layer[s->layers - 1], r);
}

static void gate_is_quiet(struct blk_gate *g)
{
	struct blk_stack *s = g->ctx;

	pthread_mutex_lock(&s->lock);
	s->quiet++;
	pthread_cond_broadcast(&s->quieter);
	pthread_mutex_unlock(&s->lock);
}

static int open_queues(struct blk_stack *s, const struct blk_stack_settings *settings, struct error *e)
{
	for (; s->queues < settings->queues; s->queues++) {
		int err = blk_queue_new(s->queues, settings->engine, &s->queue[s->queues], e);
		if (err)
			return err;
		s->gate[s->queues] = (struct blk_gate){ .enter = enter_top, .quiet = gate_is_quiet, .ctx = s };
	}
	return 0;
}

static int push_layer(struct blk_stack *s, const struct blk_layer_ops *ops, const char *spec, struct error *e)
{
	struct blk_layer *below = s->layers ? s->layer[s->layers - 1] : NULL;

	if (s->layers == LAYERS_MAX)
		return error_set(e, "InvalidOption", "more than %d filters", LAYERS_MAX - 1);
	int err = layer_open(s, ops, spec, below, &s->layer[s->layers], e);
	if (!err)
		s->layers++;
	return err;
}

static int open_layers(struct blk_stack *s, const struct blk_stack_settings *settings, struct error *e)
{
	int index, before = -1, order[LAYERS_MAX];
	unsigned filters = 0;
	int err = find_driver(s, settings->back, true, &index, e);

	if (err)
		return err;
	for (; settings->filters && settings->filters[filters]; filters++) {
		if (filters == LAYERS_MAX - 1)
			return error_set(e, "InvalidOption", "more than %d filters", LAYERS_MAX - 1);
		err = find_driver(s, settings->filters[filters], false, &order[filters], e);
		if (err)
			return err;
		if (order[filters] <= before)
			return error_set(e, "InvalidOption", "%s cannot be below %s: a stack's order is fixed, and a filter is in it once",
					 s->drivers[order[filters]]->name, s->drivers[before]->name);
		before = order[filters];
	}
	err = push_layer(s, s->drivers[index], settings->back, e);
	while (!err && filters--)
		err = push_layer(s, s->drivers[order[filters]], settings->filters[filters], e);
	return err;
}

static int ready_queues(struct blk_stack *s, struct error *e)
{
	for (unsigned i = 0; i < s->layers; i++) {
		int err = start_queues(s, s->layer[i], e);
		if (err) {
			while (i--)
				stop_queues(s, s->layer[i], s->queues);
			return err;
		}
	}
	s->queues_ready = true;
	return 0;
}

static void stack_free(struct blk_stack *s)
{
	for (unsigned i = s->layers; s->queues_ready && i--;)
		stop_queues(s, s->layer[i], s->queues);
	while (s->layers)
		layer_close(s->layer[--s->layers]);
	while (s->queues)
		blk_queue_free(s->queue[--s->queues]);
	pthread_cond_destroy(&s->quieter);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->change);
	free(s->guest_io);
	free(s->disk_io);
	free(s);
}

static void init_locks(struct blk_stack *s)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->quieter, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->change, NULL);
}

int blk_stack_open(const struct blk_stack_settings *settings, struct blk_stack **ret, struct error *e)
{
	struct blk_stack *s = calloc(1, sizeof(*s));

	assert(settings->queues && settings->queues <= BLK_QUEUES_MAX);
	if (!s)
		return error_errno(e, ENOMEM, "opening a stack");
	init_locks(s);
	s->drivers = settings->drivers;
	s->guest_io = calloc(settings->queues, sizeof(*s->guest_io));
	s->disk_io = calloc(settings->queues, sizeof(*s->disk_io));
	int err = s->guest_io && s->disk_io ? 0 : error_errno(e, ENOMEM, "opening a stack");
	if (!err)
		err = open_queues(s, settings, e);
	if (!err)
		err = open_layers(s, settings, e);
	if (!err)
		err = ready_queues(s, e);
	if (err) {
		stack_free(s);
		return err;
	}
	s->layer[0]->io = s->disk_io;
	if (s->layers > 1)
		s->layer[s->layers - 1]->io = s->guest_io;
	*ret = s;
	return 0;
}

int blk_stack_start(struct blk_stack *s, struct error *e)
{
	for (unsigned i = 0; i < s->queues; i++) {
		int err = blk_queue_start(s->queue[i]);
		if (err) {
			while (i--)
				blk_queue_stop(s->queue[i]);
			return error_errno(e, err, "starting a queue's thread");
		}
	}
	s->started = true;
	return 0;
}

static void ready_io(void *ctx)
{
	blk_queue_ready_io(ctx);
}

void blk_stack_ready_io(struct blk_stack *s)
{
	for (unsigned i = 0; i < s->queues; i++)
		blk_queue_call(s->queue[i], ready_io, s->queue[i]);
}

/* ---- what there is ---- */

unsigned blk_stack_needs(const struct blk_stack *s)
{
	unsigned needs = 0;

	for (unsigned i = 0; i < s->layers; i++)
		needs |= s->layer[i]->needs;
	for (unsigned i = 0; i < EXTRA_BACKS_MAX; i++)
		needs |= s->extra[i] ? s->extra[i]->needs : 0;
	return needs;
}

struct blk_layer *blk_stack_top(struct blk_stack *s)
{
	return s->layer[s->layers - 1];
}

struct blk_layer *blk_stack_layer(struct blk_stack *s, const char *name)
{
	for (unsigned i = 0; i < s->layers; i++) {
		if (str_eq(s->layer[i]->ops->name, name))
			return s->layer[i];
	}
	return NULL;
}

const struct blk_info *blk_stack_info(const struct blk_stack *s)
{
	return &s->layer[s->layers - 1]->info;
}

unsigned blk_stack_queues(const struct blk_stack *s)
{
	return s->queues;
}

struct blk_queue *blk_stack_queue(struct blk_stack *s, unsigned index)
{
	assert(index < s->queues);
	return s->queue[index];
}

void blk_stack_submit(struct blk_stack *s, struct blk_req *r)
{
	gate_submit(&s->gate[blk_queue_index(r->queue)], r);
}

void blk_stack_listen(struct blk_stack *s, struct blk_listener *l)
{
	pthread_mutex_lock(&s->change);
	l->next = s->listeners;
	s->listeners = l;
	pthread_mutex_unlock(&s->change);
}

void blk_stack_unlisten(struct blk_stack *s, struct blk_listener *l)
{
	pthread_mutex_lock(&s->change);
	for (struct blk_listener **at = &s->listeners; *at; at = &(*at)->next) {
		if (*at == l) {
			*at = l->next;
			break;
		}
	}
	pthread_mutex_unlock(&s->change);
}

/* ---- closing ---- */

struct settling {
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool done;
};

static void settled(void *ctx)
{
	struct settling *w = ctx;

	pthread_mutex_lock(&w->lock);
	w->done = true;
	pthread_cond_signal(&w->ended);
	pthread_mutex_unlock(&w->lock);
}

static void settle(struct blk_stack *s, struct blk_layer *l)
{
	struct settling w = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false };

	if (!l->ops->settle)
		return;
	l->ops->settle(l, true, settled, &w);
	if (!s->started)
		blk_queue_run_until(s->queue[0], &w.done, 3600 * 1000);
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.ended, &w.lock);
	pthread_mutex_unlock(&w.lock);
}

int blk_stack_close(struct blk_stack *s, struct error *e)
{
	int err = blk_stack_barrier(s, -1, e);

	for (unsigned i = s->layers; i--;)
		settle(s, s->layer[i]);
	for (unsigned i = 0; i < EXTRA_BACKS_MAX; i++) {
		if (s->extra[i])
			settle(s, s->extra[i]);
	}
	for (unsigned i = 0; i < s->queues; i++)
		blk_queue_stop(s->queue[i]);
	if (!err)
		pthread_mutex_unlock(&s->change); /* of the barrier */
	stack_free(s);
	return err;
}

/* ---- counters ---- */

static void emit_all(struct blk_stack *s, struct blk_front *const *fronts, unsigned front_count, struct blk_stats_sink *sink)
{
	for (unsigned i = 0; i < front_count; i++) {
		if (fronts[i]->ops->stats)
			fronts[i]->ops->stats(fronts[i], sink);
	}
	for (unsigned i = s->layers; i--;) {
		if (s->layer[i]->ops->stats)
			s->layer[i]->ops->stats(s->layer[i], sink);
	}
}

static unsigned gather_points(struct blk_stack *s, struct io_point points[2])
{
	unsigned count = 0;
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	uint64_t now_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	memset(points, 0, 2 * sizeof(*points));
	points[count++].name = "guest";
	points[count++].name = "disk";
	for (unsigned i = 0; i < s->queues; i++) {
		/* With no filter the guest's requests are the disk's. */
		io_totals_add(&points[0].totals, s->layers > 1 ? &s->guest_io[i] : &s->disk_io[i], now_ns);
		io_totals_add(&points[1].totals, &s->disk_io[i], now_ns);
	}
	return count;
}

static void print_json(struct blk_stack *s, struct blk_front *const *fronts, unsigned front_count, bool histograms, struct buf *out)
{
	struct blk_stats_sink sink = { .out = out, .json = true };
	struct io_point points[2];
	unsigned count = gather_points(s, points);

	buf_putc(out, '{');
	for (unsigned i = 0; i < count; i++) {
		buf_printf(out, "\"%s\":", points[i].name);
		io_totals_json(&points[i].totals, histograms, out);
		buf_putc(out, ',');
	}
	buf_puts(out, "\"layers\":{");
	emit_all(s, fronts, front_count, &sink);
	buf_puts(out, sink.layer ? "}}}" : "}}");
}

void blk_stack_stats_json(struct blk_stack *s, struct blk_front *const *fronts, unsigned front_count, struct buf *out)
{
	print_json(s, fronts, front_count, true, out);
}

void blk_stack_counters_json(struct blk_stack *s, struct blk_front *const *fronts, unsigned front_count, struct buf *out)
{
	print_json(s, fronts, front_count, false, out);
}

void blk_stack_stats_prometheus(struct blk_stack *s, struct blk_front *const *fronts, unsigned front_count, const char *labels,
				struct buf *out)
{
	struct blk_stats_sink sink = { .out = out, .labels = labels };
	struct io_point points[2];
	unsigned count = gather_points(s, points);

	io_points_prometheus(points, count, labels, out);
	emit_all(s, fronts, front_count, &sink);
}
