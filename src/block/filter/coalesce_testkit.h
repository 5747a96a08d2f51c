/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_COALESCE_TESTKIT_H
#define MALLEE_BLOCK_FILTER_COALESCE_TESTKIT_H

/*
 * What the tests of the two caches share beside the disk: a model that says which values a read may see while several queues
 * read and write the same places. It can live in shared memory, so that a test can kill the process that runs the stack and
 * look at what is left. Include it once, after cmocka.h.
 */
#include "block/filter/coalesce_testdisk.h"

#define TK_HISTORY 96u
#define TK_DEPTH 8u
#define TK_LEN_MAX (192u << 10)

/* ---- the model ---- */
struct tk_write {
	uint64_t stamp, start;
	uint64_t end;         /* UINT64_MAX: not ended */
	bool any;             /* a discard: whatever is read is right */
	bool maybe;           /* it failed: seen or not */
};
struct tk_place {
	uint32_t count; /* changed behind what it counts: the process may be killed */
	struct tk_write w[TK_HISTORY];
};
struct tk_model {
	pthread_mutex_t lock;
	_Atomic uint64_t clock;
	_Atomic uint64_t stamps;
	uint64_t units;
	_Atomic uint64_t checked;
	struct tk_place place[];
};

static struct tk_model *tk_model_new(uint64_t size)
{
	struct tk_model *m = tk_shared(sizeof(*m) + size / TK_UNIT * sizeof(struct tk_place));

	pthread_mutex_init(&m->lock, NULL);
	m->units = size / TK_UNIT;
	m->clock = 1;
	for (uint64_t i = 0; i < m->units; i++)
		m->place[i].count = 1;
	return m;
}

static void tk_model_free(struct tk_model *m)
{
	munmap(m, sizeof(*m) + m->units * sizeof(struct tk_place));
}

/* Nothing is in flight, and at(unit) is what is there. */
static void tk_model_reset(struct tk_model *m, const uint8_t *disk)
{
	for (uint64_t i = 0; i < m->units; i++) {
		m->place[i].w[0] = (struct tk_write){ .start = 0, .end = 0 };
		memcpy(&m->place[i].w[0].stamp, disk + i * TK_UNIT, 8);
		m->place[i].count = 1;
	}
}

/* A killed process leaves a sector in parts where it was copying one to the memory that is this disk. A disk writes whole ones: what it
 * had begun is finished. */
static inline void tk_finish_sectors(struct tk_model *m, struct tk_disk *d)
{
	for (uint64_t i = 0; i < m->units; i++) {
		uint8_t *unit = d->now + i * TK_UNIT;
		struct tk_place *p = &m->place[i];
		uint64_t word, whole;
		bool begun = false;

		if (!memcmp(unit, unit + 8, TK_UNIT - 8))
			continue;
		memcpy(&whole, unit + TK_UNIT - 8, 8); /* as it was, when not even a word of the new is there */
		for (uint32_t n = p->count; n--;) {
			if (p->w[n].end != UINT64_MAX)
				continue;
			begun = true;
			for (unsigned at = 0; at < TK_UNIT; at += 8) {
				memcpy(&word, unit + at, 8);
				if (word == p->w[n].stamp)
					whole = word;
			}
		}
		for (unsigned at = 0; at < TK_UNIT && begun; at += 8)
			memcpy(unit + at, &whole, 8);
	}
}

static bool tk_room(struct tk_model *m, uint64_t unit, uint64_t units)
{
	bool room = true;

	pthread_mutex_lock(&m->lock);
	for (uint64_t i = unit; i < unit + units; i++)
		room = room && m->place[i].count < TK_HISTORY - TK_DEPTH * 4;
	pthread_mutex_unlock(&m->lock);
	return room;
}

static void tk_begin(struct tk_model *m, uint64_t unit, uint64_t units, uint64_t stamp, bool any, uint64_t *ret_start)
{
	pthread_mutex_lock(&m->lock);
	*ret_start = m->clock++;
	for (uint64_t i = unit; i < unit + units; i++) {
		struct tk_place *p = &m->place[i];

		assert_true(p->count < TK_HISTORY);
		p->w[p->count] = (struct tk_write){ stamp, *ret_start, UINT64_MAX, any, false };
		atomic_signal_fence(memory_order_seq_cst);
		p->count++;
	}
	pthread_mutex_unlock(&m->lock);
}

static void tk_end(struct tk_model *m, uint64_t unit, uint64_t units, uint64_t start, int result)
{
	pthread_mutex_lock(&m->lock);
	uint64_t end = m->clock++;
	for (uint64_t i = unit; i < unit + units; i++) {
		for (uint32_t n = m->place[i].count; n--;) {
			struct tk_write *w = &m->place[i].w[n];

			if (w->start != start)
				continue;
			w->maybe = result != 0;
			w->end = end;
			break;
		}
	}
	pthread_mutex_unlock(&m->lock);
}

static bool tk_superseded(const struct tk_place *p, const struct tk_write *w, uint64_t read_start)
{
	for (uint32_t n = p->count; n--;)
		if (!p->w[n].maybe && p->w[n].end < read_start && p->w[n].start > w->end)
			return true;
	return false;
}

/* Lock held. May a read that began at read_start and ends now see these bytes at that unit? */
static bool tk_may_see(struct tk_model *m, uint64_t unit, const uint8_t *bytes, uint64_t read_start)
{
	struct tk_place *p = &m->place[unit];
	uint64_t stamp;
	bool whole = !memcmp(bytes, bytes + 8, TK_UNIT - 8);

	memcpy(&stamp, bytes, 8);
	for (uint32_t n = p->count; n--;)
		if (((whole && p->w[n].stamp == stamp) || p->w[n].any) && !tk_superseded(p, &p->w[n], read_start))
			return true;
	printf("unit %llu: saw %llx%s; clock %llu, read began %llu\n", (unsigned long long)unit, (unsigned long long)stamp,
	       whole ? "" : " (torn)", (unsigned long long)m->clock, (unsigned long long)read_start);
	for (uint32_t n = 0; n < p->count; n++)
		printf("  %llx %llu-%lld%s%s\n", (unsigned long long)p->w[n].stamp, (unsigned long long)p->w[n].start,
		       (long long)p->w[n].end, p->w[n].any ? " discard" : "", p->w[n].maybe ? " failed" : "");
	return false;
}

static void tk_check(struct tk_model *m, uint64_t unit, uint64_t units, const uint8_t *bytes, uint64_t read_start)
{
	bool good = true;

	pthread_mutex_lock(&m->lock);
	for (uint64_t i = 0; i < units && good; i++)
		good = tk_may_see(m, unit + i, bytes + i * TK_UNIT, read_start);
	m->checked += units;
	pthread_mutex_unlock(&m->lock);
	assert_true(good);
}

/* ---- load: one driver a queue, TK_DEPTH requests each ---- */
struct tk_load;
struct tk_slot {
	struct blk_req req;
	struct tk_load *load;
	struct iovec iov[4];
	uint8_t *data;
	uint64_t start;
	bool busy;
};
struct tk_load {
	struct blk_task task;
	struct blk_stack *stack;
	struct blk_queue *queue;
	struct tk_model *model;
	struct tk_disk *disk;
	uint64_t seed, seq_read, seq_write;
	unsigned left, out;
	unsigned sequential_percent, write_percent;
	bool check_flushes, fails_expected, fua;
	bool finished;
	pthread_mutex_t *lock;
	pthread_cond_t *cond;
	_Atomic uint64_t failed, failed_reads;
	struct tk_slot slot[TK_DEPTH];
};

static void tk_next(struct tk_load *l, struct tk_slot *s);

static void tk_fill(struct tk_slot *s, uint64_t stamp)
{
	for (uint64_t i = 0; i < s->req.len_bytes; i += 8)
		memcpy(s->data + i, &stamp, 8);
}

static void tk_flushed(struct tk_load *l, struct tk_slot *s)
{
	pthread_mutex_lock(&l->disk->lock);
	pthread_mutex_lock(&l->model->lock);
	bool good = true;
	for (uint64_t i = 0; i < l->model->units && good; i++)
		good = tk_may_see(l->model, i, l->disk->stable + i * TK_UNIT, s->start);
	pthread_mutex_unlock(&l->model->lock);
	pthread_mutex_unlock(&l->disk->lock);
	assert_true(good);
}

static void tk_done(struct blk_req *r)
{
	struct tk_slot *s = r->ctx;
	struct tk_load *l = s->load;
	uint64_t unit = r->off_bytes / TK_UNIT, units = r->len_bytes / TK_UNIT;

	if (r->result) {
		l->failed++;
		l->failed_reads += r->op == BLK_READ;
		assert_true(l->fails_expected);
	}
	if (r->op == BLK_READ && !r->result)
		tk_check(l->model, unit, units, s->data, s->start);
	else if (r->op == BLK_FLUSH && !r->result && l->check_flushes)
		tk_flushed(l, s);
	else if (r->op != BLK_READ && r->op != BLK_FLUSH)
		tk_end(l->model, unit, units, s->start, r->result);
	l->out--;
	s->busy = false;
	tk_next(l, s);
}

static void tk_iov(struct tk_load *l, struct tk_slot *s)
{
	unsigned n = 1 + (unsigned)(tk_random(&l->seed) % 4);
	uint64_t units = s->req.len_bytes / TK_UNIT, at = 0;

	s->req.iov_count = 0;
	for (unsigned i = 0; i < n && at < units; i++) {
		uint64_t take = i == n - 1 ? units - at : 1 + tk_random(&l->seed) % (units - at);

		s->iov[s->req.iov_count++] = (struct iovec){ s->data + at * TK_UNIT, take * TK_UNIT };
		at += take;
	}
	s->req.iov = s->iov;
}

static uint64_t tk_place_of(struct tk_load *l, struct tk_slot *s, uint64_t *seq)
{
	uint64_t units = l->model->units, len = s->req.len_bytes / TK_UNIT, at;

	if (tk_random(&l->seed) % 100 >= l->sequential_percent)
		return tk_random(&l->seed) % (units - len + 1) * TK_UNIT;
	if (*seq + len > units || tk_random(&l->seed) % 64 == 0)
		*seq = tk_random(&l->seed) % (units - len + 1);
	at = *seq;
	*seq += len;
	return at * TK_UNIT;
}

static void tk_choose(struct tk_load *l, struct tk_slot *s)
{
	uint64_t pick = tk_random(&l->seed) % 100, sizes[] = { 1, 8, 8, 32, 128, 1 + tk_random(&l->seed) % 300 };
	struct blk_req *r = &s->req;

	*r = (struct blk_req){ .queue = l->queue, .done = tk_done, .ctx = s };
	r->len_bytes = sizes[tk_random(&l->seed) % ARRAY_SIZE(sizes)] * TK_UNIT;
	r->op = pick < l->write_percent ? BLK_WRITE : BLK_READ;
	if (pick >= 98)
		r->op = BLK_FLUSH;
	else if (pick >= 96)
		r->op = BLK_WRITE_ZEROES;
	else if (pick >= 95)
		r->op = BLK_DISCARD;
	r->off_bytes = tk_place_of(l, s, r->op == BLK_READ ? &l->seq_read : &l->seq_write);
	if (r->op != BLK_READ && r->op != BLK_FLUSH && !tk_room(l->model, r->off_bytes / TK_UNIT, r->len_bytes / TK_UNIT))
		r->op = BLK_READ;
	if (l->fua && (r->op == BLK_WRITE || r->op == BLK_WRITE_ZEROES) && tk_random(&l->seed) % 8 == 0)
		r->flags = BLK_FUA;
	if (r->op == BLK_FLUSH)
		r->off_bytes = r->len_bytes = 0;
}

static void tk_next(struct tk_load *l, struct tk_slot *s)
{
	if (!l->left) {
		if (!l->out) {
			pthread_mutex_lock(l->lock);
			l->finished = true;
			pthread_cond_signal(l->cond);
			pthread_mutex_unlock(l->lock);
		}
		return;
	}
	l->left--;
	l->out++;
	s->busy = true;
	tk_choose(l, s);
	if (s->req.op == BLK_READ || s->req.op == BLK_WRITE)
		tk_iov(l, s);
	if (s->req.op == BLK_READ || s->req.op == BLK_FLUSH) {
		s->start = l->model->clock++;
	} else {
		uint64_t stamp = s->req.op == BLK_WRITE ? ++l->model->stamps : 0;

		if (s->req.op == BLK_WRITE)
			tk_fill(s, stamp);
		tk_begin(l->model, s->req.off_bytes / TK_UNIT, s->req.len_bytes / TK_UNIT, stamp, s->req.op == BLK_DISCARD, &s->start);
	}
	blk_stack_submit(l->stack, &s->req);
}

static void tk_go(struct blk_task *t)
{
	struct tk_load *l = (struct tk_load *)t;

	for (unsigned i = 0; i < TK_DEPTH; i++)
		if (!l->slot[i].busy)
			tk_next(l, &l->slot[i]);
}

/* Runs ops requests on each queue of a started stack; shape: the fields to take over. Returns requests that failed. */
static uint64_t tk_run(struct blk_stack *s, struct tk_model *m, struct tk_disk *d, unsigned ops, uint64_t seed, const struct tk_load *shape)
{
	unsigned queues = blk_stack_queues(s);
	struct tk_load *load = calloc(queues, sizeof(*load));
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
	uint64_t failed = 0;

	for (unsigned i = 0; i < queues; i++) {
		load[i] = *shape;
		load[i].task.fn = tk_go;
		load[i].stack = s;
		load[i].queue = blk_stack_queue(s, i);
		load[i].model = m;
		load[i].disk = d;
		load[i].seed = seed * 7919 + i * 104729 + 1;
		load[i].left = ops;
		load[i].lock = &lock;
		load[i].cond = &cond;
		for (unsigned j = 0; j < TK_DEPTH; j++) {
			load[i].slot[j].load = &load[i];
			load[i].slot[j].data = aligned_alloc(4096, TK_LEN_MAX);
		}
	}
	for (unsigned i = 0; i < queues; i++)
		blk_queue_post(load[i].queue, &load[i].task);
	for (unsigned i = 0; i < queues; i++) {
		pthread_mutex_lock(&lock);
		while (!load[i].finished)
			pthread_cond_wait(&cond, &lock);
		pthread_mutex_unlock(&lock);
		failed += load[i].failed;
		for (unsigned j = 0; j < TK_DEPTH; j++)
			free(load[i].slot[j].data);
	}
	free(load);
	return failed;
}

static unsigned tk_ops(unsigned fallback)
{
	const char *t = getenv("MALLEE_MODEL_OPS");

	return t ? (unsigned)strtoul(t, NULL, 10) : TK_SLOW ? fallback / 4 : fallback;
}

static uint64_t tk_seed(void)
{
	const char *t = getenv("MALLEE_SEED");
	uint64_t seed = t ? strtoull(t, NULL, 10) : tk_now() >> 10 & 0xffffff;

	printf("seed: MALLEE_SEED=%llu\n", (unsigned long long)seed);
	return seed | 1;
}

/* Another filter below the one that is tested; no spec: none. */
static const struct blk_layer_ops *tk_second;
static const char *tk_second_spec;

static struct blk_stack *tk_open(const struct blk_layer_ops *filter, const char *spec, unsigned queues, struct tk_disk *d, struct error *e)
{
	/* the stack keeps the table */
	static const struct blk_layer_ops *drivers[4];
	const char *filters[] = { spec, tk_second_spec, NULL };
	struct blk_stack_settings settings = { drivers, "tkdisk", filters, queues, BLK_IO_THREADS };
	struct blk_stack *s;

	memset(drivers, 0, sizeof(drivers));
	drivers[0] = filter;
	drivers[1] = &tk_disk_ops;
	if (tk_second_spec) {
		drivers[1] = tk_second;
		drivers[2] = &tk_disk_ops;
	}
	tk_disk_current = d;
	if (blk_stack_open(&settings, &s, e))
		return NULL;
	return s;
}

/* One counter of a stack, by "layer" and name, from its JSON. */
static uint64_t tk_counter(struct blk_stack *s, const char *name)
{
	struct buf b = BUF_INIT;
	char key[64];

	snprintf(key, sizeof(key), "\"%s\":", name);
	blk_stack_stats_json(s, NULL, 0, &b);
	const char *at = strstr(b.data, key);
	if (!at)
		print_message("%s\n", b.data);
	assert_non_null(at);
	uint64_t v = strtoull(at + strlen(key), NULL, 10);
	buf_done(&b);
	return v;
}

/* A synchronous reader or writer at depth 1 on queue 0 of a stack that is not started. */
static void tk_sync_done(struct blk_req *r)
{
	*(bool *)r->ctx = true;
}

static int tk_sync_op(struct blk_stack *s, enum blk_op op, uint32_t flags, uint64_t off, uint64_t len, void *data)
{
	struct iovec iov = { data, len };
	bool done = false;
	struct blk_req r = { .op = op, .flags = flags, .off_bytes = off, .len_bytes = len, .iov = op <= BLK_WRITE ? &iov : NULL,
			     .iov_count = op <= BLK_WRITE, .queue = blk_stack_queue(s, 0), .done = tk_sync_done, .ctx = &done };

	blk_stack_submit(s, &r);
	assert_int_equal(blk_queue_run_until(r.queue, &done, 20000), 0);
	return r.result;
}

/* Bytes a second; with_flush counts a last flush in. */
static uint64_t tk_sync_rate(struct blk_stack *s, enum blk_op op, uint64_t off, uint64_t total, uint64_t len, bool with_flush)
{
	uint8_t *data = malloc(len);
	uint64_t began = tk_now();

	memset(data, 1, len);
	for (uint64_t at = 0; at < total; at += len)
		assert_int_equal(tk_sync_op(s, op, 0, off + at, len, data), 0);
	if (with_flush)
		assert_int_equal(tk_sync_op(s, BLK_FLUSH, 0, 0, 0, NULL), 0);
	free(data);
	return total * 1000000000u / (tk_now() - began);
}

#endif
