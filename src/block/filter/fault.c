/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that fails as it is told. A rule says which requests it is for and what happens to them; rule 0 is given with the stack,
 * others by `set id=N,…`. The first rule that a request falls under decides, in order of their ids; counting and chance are the
 * rule's own, so that a seed gives the same faults for the same requests in the same order.
 *
 * What happens, in this order: a delay; a stall, until `release`; and then the end: an error, a torn write (so many bytes reach the
 * disk, and then the error, or the process kills itself), the death of the process, or nothing: the request goes on to the disk.
 * Held requests are in lists of their queue's, and what is to become of them in their scratch.
 */
#include "block/filter/filter.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/text.h"

#define RULES_MAX 16u
#define TORN_MAX 16u /* torn writes of one queue at once; more wait */
#define NS_PER_MS 1000000ull

/* ---- rules ---- */

struct action {
	uint32_t delay_ms;
	int error;            /* 0 or a negative errno */
	bool stall, torn, crash;
	uint32_t torn_bytes;
};

struct rule {
	bool in_use;
	uint32_t ops;         /* bits of enum blk_op */
	uint64_t off_bytes, end_bytes;
	uint64_t after, every, count; /* count 0: without end */
	uint32_t ppm;         /* 0: always */
	uint64_t random;      /* the generator's state */
	uint64_t seen, hit;
	struct action action;
};

struct counters {
	_Atomic uint64_t hits, errors, delayed, stalled, torn, released;
};

struct fault {
	_Atomic unsigned rules_in_use; /* 0: requests pass without the lock */
	pthread_mutex_t lock;          /* rule; and release_posted of queues */
	struct rule rule[RULES_MAX];
	struct counters counters;
	struct fault_queue *queue[BLK_QUEUES_MAX];
};

struct fault_queue {
	struct fault *fault;
	struct blk_layer *layer;
	struct blk_queue *queue;
	struct blk_timer timer;
	struct blk_list delayed;      /* soonest first; scratch[3]: due */
	struct blk_list stalled, waiting; /* waiting: for a child */
	struct blk_pool *children;
	struct blk_task release;
	bool release_posted;
};

static const struct {
	const char *name;
	int number;
} error_names[] = {
	{ "EIO", EIO }, { "ENOSPC", ENOSPC }, { "EROFS", EROFS }, { "ENOMEM", ENOMEM }, { "ENODEV", ENODEV },
	{ "EOPNOTSUPP", EOPNOTSUPP }, { "ETIMEDOUT", ETIMEDOUT }, { "EBUSY", EBUSY },
};
#define ERROR_CHOICES "EIO|ENOSPC|EROFS|ENOMEM|ENODEV|EOPNOTSUPP|ETIMEDOUT|EBUSY"

static const struct {
	const char *name;
	uint32_t ops;
} op_names[] = {
	{ "any", (1u << BLK_OPS) - 1 }, { "read", 1u << BLK_READ }, { "write", 1u << BLK_WRITE }, { "flush", 1u << BLK_FLUSH },
	{ "discard", 1u << BLK_DISCARD }, { "zeroes", 1u << BLK_WRITE_ZEROES },
	{ "change", 1u << BLK_WRITE | 1u << BLK_WRITE_ZEROES | 1u << BLK_DISCARD },
};
#define OP_CHOICES "any|read|write|flush|discard|zeroes|change"

/* xorshift64*: enough for faults, and the same everywhere. */
static uint32_t random_below(uint64_t *state, uint32_t below)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (uint32_t)((*state * 2685821657736338717ull) >> 32) % below;
}

static int error_number(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(error_names); i++) {
		if (str_eq(name, error_names[i].name))
			return -error_names[i].number;
	}
	return 0;
}

/* A rule from options; with none of its actions given there is none. */
static int rule_read(const struct blk_values *v, uint32_t block_bytes, struct rule *ret, struct error *e)
{
	struct rule rule = { .in_use = true };
	struct action *a = &rule.action;

	for (unsigned i = 0; i < ARRAY_SIZE(op_names); i++) {
		if (str_eq(blk_values_text(v, "op"), op_names[i].name))
			rule.ops = op_names[i].ops;
	}
	rule.off_bytes = blk_values_number(v, "off");
	uint64_t len = blk_values_number(v, "len");
	rule.end_bytes = len && len < UINT64_MAX - rule.off_bytes ? rule.off_bytes + len : UINT64_MAX;
	rule.after = blk_values_number(v, "after");
	rule.every = MAX_OF(blk_values_number(v, "every"), 1u);
	rule.count = blk_values_bool(v, "once") ? 1 : blk_values_number(v, "count");
	rule.ppm = (uint32_t)blk_values_number(v, "ppm");
	rule.random = blk_values_number(v, "seed") * 2 + 1;
	a->delay_ms = (uint32_t)blk_values_number(v, "delay");
	a->stall = blk_values_bool(v, "stall");
	a->crash = blk_values_bool(v, "crash");
	a->torn = blk_values_has(v, "torn");
	a->torn_bytes = (uint32_t)blk_values_number(v, "torn");
	if (blk_values_has(v, "error"))
		a->error = error_number(blk_values_text(v, "error"));
	if (a->torn && !a->error)
		a->error = -EIO;
	if (a->torn && (a->torn_bytes % block_bytes || rule.ops != 1u << BLK_WRITE))
		return error_set(e, "InvalidOption", "torn: for op=write only, and in multiples of %u", block_bytes);
	rule.in_use = a->delay_ms || a->stall || a->crash || a->torn || a->error;
	*ret = rule;
	return 0;
}

static bool rule_matches(const struct rule *rule, const struct blk_req *r)
{
	if (!rule->in_use || !(rule->ops & 1u << r->op) || (rule->count && rule->hit >= rule->count))
		return false;
	if (r->op == BLK_FLUSH) /* has no place: only a rule for flushes or for all places */
		return rule->ops == 1u << BLK_FLUSH || (!rule->off_bytes && rule->end_bytes == UINT64_MAX);
	return r->off_bytes < rule->end_bytes && r->off_bytes + r->len_bytes > rule->off_bytes;
}

/* Counts r, and says whether it is this one's turn. */
static bool rule_strikes(struct rule *rule, const struct blk_req *r)
{
	if (!rule_matches(rule, r))
		return false;
	rule->seen++;
	if (rule->seen <= rule->after || (rule->seen - rule->after) % rule->every)
		return false;
	if (rule->ppm && random_below(&rule->random, 1000000) >= rule->ppm)
		return false;
	rule->hit++;
	return true;
}

static bool find_action(struct fault *f, const struct blk_req *r, struct action *ret)
{
	bool found = false;

	pthread_mutex_lock(&f->lock);
	for (unsigned i = 0; i < RULES_MAX && !found; i++) {
		found = rule_strikes(&f->rule[i], r);
		if (found)
			*ret = f->rule[i].action;
	}
	pthread_mutex_unlock(&f->lock);
	return found;
}

/* ---- what is to become of a request that is held ---- */

enum { DO_STALL = 1, DO_TEAR = 2, DO_CRASH = 4 };

static void remember(struct blk_req *r, const struct action *a)
{
	r->scratch[0] = (a->stall ? DO_STALL : 0) | (a->torn ? DO_TEAR : 0) | (a->crash ? DO_CRASH : 0);
	r->scratch[1] = (uint64_t)-a->error;
	r->scratch[2] = a->torn_bytes;
}

static void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void crash(void)
{
	kill(getpid(), SIGKILL);
}

static void end_torn(struct blk_req *r)
{
	if (r->scratch[0] & DO_CRASH)
		crash();
	blk_complete(r, -(int)r->scratch[1]);
}

static void torn_done(struct blk_req *child);

static void tear(struct fault_queue *fq, struct blk_req *r)
{
	uint64_t len = MIN_OF(r->scratch[2], r->len_bytes);

	if (!len) {
		end_torn(r);
		return;
	}
	struct blk_req *child = blk_pool_get(fq->children);
	if (!child) {
		blk_list_push(&fq->waiting, r);
		return;
	}
	child->op = BLK_WRITE;
	child->flags = r->flags;
	child->off_bytes = r->off_bytes;
	child->len_bytes = len;
	child->iov = blk_pool_iov(child);
	child->iov_count = blk_iov_slice(r->iov, r->iov_count, 0, len, blk_pool_iov(child), BLK_IOV_MAX);
	child->done = torn_done;
	child->ctx = r;
	*(struct fault_queue **)blk_pool_extra(child) = fq;
	blk_submit(fq->layer->below, child);
}

static void torn_done(struct blk_req *child)
{
	struct fault_queue *fq = *(struct fault_queue **)blk_pool_extra(child);

	end_torn(child->ctx);
	blk_pool_put(fq->children, child);
	struct blk_req *r = blk_list_pop(&fq->waiting);
	if (r)
		tear(fq, r);
}

/* The end of what was held. */
static void carry_out(struct fault_queue *fq, struct blk_req *r)
{
	struct counters *c = &fq->fault->counters;

	if (r->scratch[0] & DO_STALL) {
		r->scratch[0] &= ~(uint64_t)DO_STALL;
		count(&c->stalled);
		blk_list_push(&fq->stalled, r);
	} else if (r->scratch[0] & DO_TEAR) {
		count(&c->torn);
		tear(fq, r);
	} else if (r->scratch[0] & DO_CRASH) {
		crash();
	} else if (r->scratch[1]) {
		count(&c->errors);
		blk_complete(r, -(int)r->scratch[1]);
	} else {
		blk_submit(fq->layer->below, r);
	}
}

/* ---- delays ---- */

static void timer_set(struct fault_queue *fq)
{
	if (!blk_list_empty(&fq->delayed))
		blk_timer_set(fq->queue, &fq->timer, fq->delayed.first->scratch[3]);
}

static void timer_due(struct blk_timer *t)
{
	struct fault_queue *fq = (struct fault_queue *)((char *)t - offsetof(struct fault_queue, timer));

	while (!blk_list_empty(&fq->delayed) && fq->delayed.first->scratch[3] <= blk_queue_now(fq->queue))
		carry_out(fq, blk_list_pop(&fq->delayed));
	timer_set(fq);
}

static void delay(struct fault_queue *fq, struct blk_req *r, uint32_t delay_ms)
{
	struct blk_list sooner = { 0 };
	struct blk_req *at;

	count(&fq->fault->counters.delayed);
	r->scratch[3] = blk_queue_now(fq->queue) + delay_ms * NS_PER_MS;
	while (!blk_list_empty(&fq->delayed) && fq->delayed.first->scratch[3] <= r->scratch[3])
		blk_list_push(&sooner, blk_list_pop(&fq->delayed));
	blk_list_push(&sooner, r);
	while ((at = blk_list_pop(&fq->delayed)))
		blk_list_push(&sooner, at);
	fq->delayed = sooner;
	timer_set(fq);
}

static void release_task(struct blk_task *t)
{
	struct fault_queue *fq = (struct fault_queue *)((char *)t - offsetof(struct fault_queue, release));
	struct blk_list held = fq->stalled;
	struct blk_req *r;

	pthread_mutex_lock(&fq->fault->lock);
	fq->release_posted = false;
	pthread_mutex_unlock(&fq->fault->lock);
	fq->stalled = (struct blk_list){ 0 };
	while ((r = blk_list_pop(&held))) {
		count(&fq->fault->counters.released);
		carry_out(fq, r);
	}
}

/* ---- the layer ---- */

static void fault_submit(struct blk_layer *l, struct blk_req *r)
{
	struct fault *f = l->state;
	struct action a;

	if (!atomic_load_explicit(&f->rules_in_use, memory_order_relaxed) || !find_action(f, r, &a)) {
		blk_submit(l->below, r);
		return;
	}
	struct fault_queue *fq = l->queue_state[blk_queue_index(r->queue)];
	count(&f->counters.hits);
	remember(r, &a);
	if (a.delay_ms)
		delay(fq, r, a.delay_ms);
	else
		carry_out(fq, r);
}

static int fault_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	struct fault *f = calloc(1, sizeof(*f));

	if (!f)
		return error_errno(e, ENOMEM, "the fault filter");
	pthread_mutex_init(&f->lock, NULL);
	int err = rule_read(v, l->info.block_bytes, &f->rule[0], e);
	if (err) {
		pthread_mutex_destroy(&f->lock);
		free(f);
		return err;
	}
	f->rules_in_use = f->rule[0].in_use;
	l->state = f;
	return 0;
}

static void fault_close(struct blk_layer *l)
{
	struct fault *f = l->state;

	pthread_mutex_destroy(&f->lock);
	free(f);
}

static int fault_queue_start(struct blk_layer *l, struct blk_queue *q, struct error *e)
{
	struct fault_queue *fq = calloc(1, sizeof(*fq));

	if (!fq || blk_pool_new(q, TORN_MAX, BLK_IOV_MAX, sizeof(fq), &fq->children)) {
		free(fq);
		return error_errno(e, ENOMEM, "a queue of the fault filter");
	}
	fq->fault = l->state;
	fq->layer = l;
	fq->queue = q;
	fq->timer.fn = timer_due;
	fq->release.fn = release_task;
	fq->fault->queue[blk_queue_index(q)] = fq;
	l->queue_state[blk_queue_index(q)] = fq;
	return 0;
}

static void fault_queue_stop(struct blk_layer *l, struct blk_queue *q)
{
	struct fault_queue *fq = l->queue_state[blk_queue_index(q)];

	assert(blk_list_empty(&fq->delayed) && blk_list_empty(&fq->stalled));
	blk_timer_cancel(&fq->timer);
	blk_pool_free(fq->children);
	fq->fault->queue[blk_queue_index(q)] = NULL;
	l->queue_state[blk_queue_index(q)] = NULL;
	free(fq);
}

/* ---- verbs ---- */

static void release_all(struct fault *f)
{
	for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
		struct fault_queue *fq = f->queue[i];
		if (!fq)
			continue;
		pthread_mutex_lock(&f->lock);
		bool post = !fq->release_posted;
		fq->release_posted = true;
		pthread_mutex_unlock(&f->lock);
		if (post)
			blk_queue_post(fq->queue, &fq->release);
	}
}

static void rule_put(struct fault *f, unsigned id, const struct rule *rule)
{
	unsigned in_use = 0;

	pthread_mutex_lock(&f->lock);
	f->rule[id] = *rule;
	for (unsigned i = 0; i < RULES_MAX; i++)
		in_use += f->rule[i].in_use;
	atomic_store(&f->rules_in_use, in_use);
	pthread_mutex_unlock(&f->lock);
}

static void clear(struct fault *f, const struct blk_values *args)
{
	const struct rule none = { 0 };

	for (unsigned i = 0; i < RULES_MAX; i++) {
		if (!blk_values_has(args, "id") || blk_values_number(args, "id") == i)
			rule_put(f, i, &none);
	}
}

static void show(struct fault *f, struct buf *out)
{
	const char *comma = "";

	buf_puts(out, "{\"rules\":[");
	pthread_mutex_lock(&f->lock);
	for (unsigned i = 0; i < RULES_MAX; i++) {
		if (!f->rule[i].in_use)
			continue;
		buf_printf(out, "%s{\"id\":%u,\"seen\":%llu,\"hit\":%llu}", comma, i, (unsigned long long)f->rule[i].seen,
			   (unsigned long long)f->rule[i].hit);
		comma = ",";
	}
	pthread_mutex_unlock(&f->lock);
	buf_puts(out, "]}");
}

static int fault_command(struct blk_layer *l, const char *verb, const struct blk_values *args, struct buf *ret_json, struct error *e)
{
	struct fault *f = l->state;
	struct rule rule;

	if (str_eq(verb, "set")) {
		int err = rule_read(args, l->info.block_bytes, &rule, e);
		if (err)
			return err;
		rule_put(f, (unsigned)blk_values_number(args, "id"), &rule);
	} else if (str_eq(verb, "clear")) {
		clear(f, args);
	} else if (str_eq(verb, "release")) {
		release_all(f);
	}
	show(f, ret_json);
	return 0;
}

static void fault_stats(struct blk_layer *l, struct blk_stats_sink *sink)
{
	struct counters *c = &((struct fault *)l->state)->counters;

	blk_stats_emit(sink, "fault", "hits", true, c->hits, "requests that a rule struck");
	blk_stats_emit(sink, "fault", "errors", true, c->errors, "requests that were failed");
	blk_stats_emit(sink, "fault", "delayed", true, c->delayed, "requests that were delayed");
	blk_stats_emit(sink, "fault", "torn", true, c->torn, "writes that were torn");
	blk_stats_emit(sink, "fault", "stalled", false, c->stalled - c->released, "requests held until release");
}

#define RULE_OPTIONS                                                                                                                     \
	{ .name = "op", .type = BLK_OPT_CHOICE, .fallback = "any", .choices = OP_CHOICES, .doc = "which requests" },                     \
	{ .name = "off", .type = BLK_OPT_BYTES, .doc = "only those that touch the disk from here on" },                                  \
	{ .name = "len", .type = BLK_OPT_BYTES, .doc = "for so many bytes (none: to its end)" },                                         \
	{ .name = "after", .type = BLK_OPT_UINT, .doc = "let so many pass first" },                                                      \
	{ .name = "every", .type = BLK_OPT_UINT, .min = 1, .doc = "strike every Nth" },                                                  \
	{ .name = "ppm", .type = BLK_OPT_UINT, .min = 1, .max = 1000000, .doc = "by chance: so many in a million" },                     \
	{ .name = "seed", .type = BLK_OPT_UINT, .fallback = "1", .max = UINT32_MAX, .doc = "of the chance" },                            \
	{ .name = "count", .type = BLK_OPT_UINT, .doc = "strike so many times and no more" },                                            \
	{ .name = "once", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "count=1" },                                                   \
	{ .name = "delay", .type = BLK_OPT_MS, .max = 3600000, .doc = "wait before anything else" },                                     \
	{ .name = "stall", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "then hold it until the verb release" },                      \
	{ .name = "torn", .type = BLK_OPT_BYTES, .max = BLK_LEN_MAX, .doc = "then write only so many bytes, and fail" },                 \
	{ .name = "error", .type = BLK_OPT_CHOICE, .choices = ERROR_CHOICES, .doc = "then fail with this (torn: EIO)" },                 \
	{ .name = "crash", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "kill this process (torn: after those bytes)" }

static const struct blk_option fault_options[] = { RULE_OPTIONS, { 0 } };
static const struct blk_option set_args[] = {
	{ .name = "id", .type = BLK_OPT_UINT, .fallback = "0", .max = RULES_MAX - 1, .doc = "which rule" },
	RULE_OPTIONS,
	{ 0 },
};
static const struct blk_option clear_args[] = {
	{ .name = "id", .type = BLK_OPT_UINT, .max = RULES_MAX - 1, .doc = "which rule (none: all)" },
	{ 0 },
};

static const struct blk_verb fault_verbs[] = {
	{ .name = "set", .args = set_args, .doc = "put a rule in place of another" },
	{ .name = "clear", .args = clear_args, .doc = "remove a rule or all" },
	{ .name = "release", .doc = "let stalled requests go on" },
	{ .name = "show", .doc = "the rules, and how often they struck" },
	{ 0 },
};

const struct blk_layer_ops blk_fault_ops = {
	.name = "fault",
	.doc = "fails, delays, holds or tears requests, for tests",
	.options = fault_options,
	.open = fault_open,
	.queue_start = fault_queue_start,
	.queue_stop = fault_queue_stop,
	.submit = fault_submit,
	.command = fault_command,
	.verbs = fault_verbs,
	.stats = fault_stats,
	.close = fault_close,
};
