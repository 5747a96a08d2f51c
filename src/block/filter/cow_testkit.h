/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_COW_TESTKIT_H
#define MALLEE_BLOCK_FILTER_COW_TESTKIT_H

/*
 * For cow's and snap's tests, after cmocka.h: disks that remember what would be lost with the power, and a load of random requests
 * on several queues that is checked against a model. Sectors of requests in flight at the same time are distinct (chunks are
 * not), so that every read has one right answer.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/core/stack.h"

#define CK_DISKS 6
#define CK_SECTORS 8192u /* 4 MiB */
#define CK_BYTES ((uint64_t)CK_SECTORS * 512)

/* ---- disks ---- */

struct ck_disk {
	pthread_mutex_t lock;
	uint64_t bytes;
	uint8_t *now, *durable;
	bool *lossy;               /* per sector: now differs from durable, maybe */
	_Atomic unsigned fail_percent;
	_Atomic int fail_op;       /* -1: any */
	_Atomic unsigned ops[BLK_OPS];
	_Atomic uint64_t written;
	unsigned delay_us;
};

struct ck_queue {
	struct ck_disk *disk;
	struct blk_queue *queue;
	struct blk_timer timer;
	struct blk_list held;
	unsigned seed;
};

static struct ck_disk ck_disk[CK_DISKS];

static _unused_ void ck_disk_init(unsigned which, uint64_t bytes, unsigned delay_us)
{
	struct ck_disk *d = &ck_disk[which];

	free(d->now);
	free(d->durable);
	free(d->lossy);
	*d = (struct ck_disk){ .lock = PTHREAD_MUTEX_INITIALIZER, .bytes = bytes, .delay_us = delay_us, .fail_op = -1 };
	d->now = calloc(1, bytes * 2);
	d->durable = calloc(1, bytes * 2);
	d->lossy = calloc(1, bytes / 512 * 2);
}

static int ck_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	struct ck_disk *d = &ck_disk[blk_values_number(v, "n")];

	if (!d->bytes)
		return error_set(e, "Test", "no such disk");
	l->state = d;
	l->info = (struct blk_info){ .size_bytes = d->bytes, .block_bytes = 512, .physical_bytes = 4096, .volatile_cache = true };
	return 0;
}

static void ck_move(struct ck_disk *d, struct blk_req *r)
{
	char *at = (char *)d->now + r->off_bytes;

	if (r->op == BLK_FLUSH)
		return;
	assert_true(r->off_bytes <= d->bytes && r->len_bytes <= d->bytes - r->off_bytes && r->len_bytes % 512 == 0);
	if (r->op == BLK_READ) {
		blk_iov_to(r->iov, r->iov_count, 0, at, r->len_bytes);
		return;
	}
	if (r->op == BLK_WRITE)
		blk_iov_from(r->iov, r->iov_count, 0, at, r->len_bytes);
	else
		memset(at, 0, r->len_bytes);
	d->written += r->len_bytes;
	if (r->flags & BLK_FUA)
		memcpy(d->durable + r->off_bytes, at, r->len_bytes);
	memset(d->lossy + r->off_bytes / 512, !(r->flags & BLK_FUA), r->len_bytes / 512);
}

static void ck_perform(struct ck_queue *q, struct blk_req *r)
{
	struct ck_disk *d = q->disk;
	bool fails = (d->fail_op < 0 || d->fail_op == (int)r->op) && (unsigned)rand_r(&q->seed) % 100 < d->fail_percent;

	d->ops[r->op]++;
	pthread_mutex_lock(&d->lock);
	if (!fails)
		ck_move(d, r);
	pthread_mutex_unlock(&d->lock);
	blk_complete(r, fails ? -EIO : 0);
}

static void ck_timer(struct blk_timer *t)
{
	struct ck_queue *q = (struct ck_queue *)((char *)t - offsetof(struct ck_queue, timer));
	struct blk_list held = q->held;
	struct blk_req *r;

	q->held = (struct blk_list){ 0 };
	while ((r = blk_list_pop(&held))) {
		if (rand_r(&q->seed) % 3)
			ck_perform(q, r);
		else
			blk_list_push(&q->held, r); /* overtaken by others */
	}
	if (!blk_list_empty(&q->held))
		blk_timer_set(q->queue, t, blk_queue_now(q->queue) + q->disk->delay_us * 1000u);
}

static void ck_submit(struct blk_layer *l, struct blk_req *r)
{
	struct ck_queue *q = l->queue_state[blk_queue_index(r->queue)];
	struct ck_disk *d = q->disk;

	if (r->op == BLK_FLUSH) {
		/* What has completed; early is as good as late. */
		pthread_mutex_lock(&d->lock);
		for (uint64_t i = 0; i < d->bytes / 512; i++) {
			if (d->lossy[i])
				memcpy(d->durable + i * 512, d->now + i * 512, 512);
			d->lossy[i] = false;
		}
		pthread_mutex_unlock(&d->lock);
	}
	if (!d->delay_us) {
		ck_perform(q, r);
		return;
	}
	blk_list_push(&q->held, r);
	if (!q->timer.link)
		blk_timer_set(q->queue, &q->timer, blk_queue_now(q->queue) + d->delay_us * 1000u);
}

static int ck_queue_start(struct blk_layer *l, struct blk_queue *queue, struct error *e)
{
	struct ck_queue *q = calloc(1, sizeof(*q));

	q->disk = l->state;
	q->queue = queue;
	q->timer.fn = ck_timer;
	q->seed = blk_queue_index(queue) + 77;
	l->queue_state[blk_queue_index(queue)] = q;
	return 0;
}

static void ck_queue_stop(struct blk_layer *l, struct blk_queue *queue)
{
	free(l->queue_state[blk_queue_index(queue)]);
}

static int ck_resize(struct blk_layer *l, uint64_t size_bytes, struct error *e)
{
	struct ck_disk *d = l->state;

	l->info.size_bytes = d->bytes = size_bytes; /* up to twice what it was made with */
	return 0;
}

static const struct blk_option ck_options[] = {
	{ .name = "n", .type = BLK_OPT_UINT, .required = true, .doc = "which" },
	{ 0 },
};
static const struct blk_layer_ops ck_disk_ops = {
	.name = "ck", .is_back = true, .options = ck_options, .open = ck_open, .queue_start = ck_queue_start,
	.queue_stop = ck_queue_stop, .submit = ck_submit, .resize = ck_resize,
};

/* What a loss of power leaves: of each sector that was not flushed, the new or the old. */
static _unused_ void ck_disk_lose(struct ck_disk *d, unsigned *seed, uint8_t *out)
{
	pthread_mutex_lock(&d->lock);
	for (uint64_t i = 0; i < d->bytes / 512; i++)
		memcpy(out + i * 512, (d->lossy[i] && rand_r(seed) % 2 ? d->now : d->lossy[i] ? d->durable : d->now) + i * 512, 512);
	pthread_mutex_unlock(&d->lock);
}

/* ---- sectors: version v of sector i; v % 8 is 7: zeroes, 6: anything (discarded); 0: as the volume began ---- */

static _unused_ void ck_pattern(uint8_t *at, uint64_t sector, uint32_t version)
{
	uint64_t word = UINT64_C(1) << 63 | sector << 24 | version;

	for (unsigned i = 0; i < 64; i++)
		memcpy(at + i * 8, &word, 8);
}

/* Its version; -1: zeroes; -2: neither */
static _unused_ int64_t ck_version(const uint8_t *at, uint64_t sector)
{
	uint64_t word;

	memcpy(&word, at, 8);
	if (memcmp(at, at + 8, 504))
		return -2;
	if (!word)
		return -1;
	return word >> 24 == (UINT64_C(1) << 39 | sector) ? (int64_t)(word & 0xffffff) : -2;
}

/* ---- the model ---- */

struct ck_model {
	pthread_mutex_t lock;
	uint64_t sectors;
	uint64_t source_sectors;            /* beyond: the volume began as zeroes */
	uint32_t sent[CK_SECTORS * 2];      /* last version submitted */
	uint32_t done[CK_SECTORS * 2];      /* last version acknowledged */
	uint32_t flushed[CK_SECTORS * 2];
	bool unsure[CK_SECTORS * 2];        /* a write failed: versions up to sent may be there */
	uint16_t writing[CK_SECTORS * 2], reading[CK_SECTORS * 2];
};

static struct ck_model ck;

static _unused_ void ck_model_init(uint64_t sectors, uint64_t source_sectors)
{
	memset(&ck, 0, sizeof(ck));
	pthread_mutex_init(&ck.lock, NULL);
	ck.sectors = sectors;
	ck.source_sectors = source_sectors;
}

static _unused_ uint32_t ck_next_version(uint32_t v, enum blk_op op)
{
	do
		v++;
	while (op == BLK_WRITE ? v % 8 >= 6 || v % 8 == 0 : v % 8 != (op == BLK_WRITE_ZEROES ? 7u : 6u));
	return v;
}

/* May a sector that holds some version in [from, to] look like this? */
static _unused_ bool ck_allowed(const uint8_t *at, uint64_t sector, uint64_t source_sectors, uint32_t from, uint32_t to)
{
	int64_t v = ck_version(at, sector);

	for (uint32_t i = from; i <= to; i++) {
		if (i % 8 == 6 && i)
			return true;
		if (v == -1 && (i % 8 == 7 || (i == 0 && sector >= source_sectors)))
			return true;
		if (v == (int64_t)i && (i || sector < source_sectors))
			return true;
	}
	printf("sector %llu: %lld, not in %u..%u\n", (unsigned long long)sector, (long long)v, from, to);
	return false;
}

/* ---- the load ---- */

#define CK_DEPTH 12u
#define CK_LEN_MAX 320u /* sectors */

struct ck_load {
	struct blk_stack *stack;
	struct blk_queue *queue;
	unsigned seed, left, running;
	_Atomic unsigned pace_us;  /* how long a slot rests, at most */
	bool errors_expected;
	_Atomic bool stop;
	_Atomic bool finished;
	_Atomic unsigned errors;
	struct ck_slot {
		struct ck_load *load;
		struct blk_req req;
		struct iovec iov[2];
		uint8_t *data;
		uint64_t sector, sectors;
		uint32_t *snapshot;      /* FLUSH: what had completed; WRITE: versions */
		struct blk_timer retry;
	} slot[CK_DEPTH];
};

static _unused_ void ck_next(struct ck_slot *s);

static void ck_retry(struct blk_timer *t)
{
	ck_next((struct ck_slot *)((char *)t - offsetof(struct ck_slot, retry)));
}

static bool ck_claim(struct ck_slot *s, bool write)
{
	bool free_ = true;

	for (uint64_t i = s->sector; i < s->sector + s->sectors; i++)
		free_ &= !ck.writing[i] && !(write && ck.reading[i]);
	for (uint64_t i = s->sector; i < s->sector + s->sectors && free_; i++)
		(*(write ? &ck.writing[i] : &ck.reading[i]))++;
	return free_;
}

static void ck_check_read(struct ck_slot *s)
{
	for (uint64_t i = 0; i < s->sectors; i++) {
		uint64_t sector = s->sector + i;
		uint32_t from = ck.unsure[sector] ? 0 : ck.done[sector];
		assert_true(ck_allowed(s->data + i * 512, sector, ck.source_sectors, from, ck.sent[sector]));
	}
}

static void ck_written(struct ck_slot *s, int result)
{
	for (uint64_t i = 0; i < s->sectors; i++) {
		uint64_t sector = s->sector + i;
		if (result) {
			ck.unsure[sector] = true;
			continue;
		}
		ck.done[sector] = s->snapshot[i];
		ck.unsure[sector] = false;
		if (s->req.flags & BLK_FUA)
			ck.flushed[sector] = s->snapshot[i];
	}
}

static void ck_done(struct blk_req *r)
{
	struct ck_slot *s = r->ctx;

	pthread_mutex_lock(&ck.lock);
	if (r->result) {
		assert_true(s->load->errors_expected);
		s->load->errors++;
	}
	if (r->op == BLK_FLUSH) {
		for (uint64_t i = 0; i < ck.sectors && !r->result; i++)
			ck.flushed[i] = MAX_OF(ck.flushed[i], s->snapshot[i]);
	} else if (r->op == BLK_READ) {
		if (!r->result)
			ck_check_read(s);
		for (uint64_t i = 0; i < s->sectors; i++)
			ck.reading[s->sector + i]--;
	} else {
		ck_written(s, r->result);
		for (uint64_t i = 0; i < s->sectors; i++)
			ck.writing[s->sector + i]--;
	}
	pthread_mutex_unlock(&ck.lock);
	if (!s->load->pace_us) {
		ck_next(s);
		return;
	}
	s->retry.fn = ck_retry;
	blk_timer_set(s->load->queue, &s->retry,
		      blk_queue_now(s->load->queue) + UINT64_C(1000) * ((unsigned)rand_r(&s->load->seed) % s->load->pace_us));
}

static void ck_make(struct ck_slot *s)
{
	unsigned *seed = &s->load->seed, dice = (unsigned)rand_r(seed) % 100;
	struct blk_req *r = &s->req;
	uint64_t cut;

	*r = (struct blk_req){ .queue = s->load->queue, .done = ck_done, .ctx = s };
	r->op = dice < 40 ? BLK_READ : dice < 82 ? BLK_WRITE : dice < 88 ? BLK_WRITE_ZEROES : dice < 92 ? BLK_DISCARD : BLK_FLUSH;
	s->sectors = rand_r(seed) % (s->load->pace_us ? 20 : 4) ? 1 + (unsigned)rand_r(seed) % 40 : 1 + (unsigned)rand_r(seed) % CK_LEN_MAX;
	s->sector = (unsigned)rand_r(seed) % (ck.sectors - s->sectors + 1);
	if (rand_r(seed) % 3 == 0) { /* as guests do */
		s->sector &= ~UINT64_C(7);
		s->sectors = MIN_OF((s->sectors + 7) & ~UINT64_C(7), ck.sectors - s->sector);
	}
	if (r->op == BLK_FLUSH)
		return;
	r->off_bytes = s->sector * 512;
	r->len_bytes = s->sectors * 512;
	if (r->op == BLK_WRITE || r->op == BLK_WRITE_ZEROES)
		r->flags = (rand_r(seed) % 10 == 0 ? BLK_FUA : 0u) | (r->op == BLK_WRITE_ZEROES && rand_r(seed) % 2 ? BLK_MAY_UNMAP : 0u);
	if (r->op == BLK_READ || r->op == BLK_WRITE) {
		cut = (unsigned)rand_r(seed) % s->sectors * 512;
		s->iov[0] = (struct iovec){ s->data, cut };
		s->iov[1] = (struct iovec){ s->data + cut, r->len_bytes - cut };
		r->iov = cut ? s->iov : s->iov + 1;
		r->iov_count = cut ? 2 : 1;
	}
}

static void ck_prepare(struct ck_slot *s)
{
	if (s->req.op == BLK_FLUSH)
		memcpy(s->snapshot, ck.done, ck.sectors * sizeof(*s->snapshot));
	for (uint64_t i = 0; i < s->sectors && s->req.op != BLK_FLUSH && s->req.op != BLK_READ; i++) {
		uint64_t sector = s->sector + i;
		s->snapshot[i] = ck.sent[sector] = ck_next_version(ck.sent[sector], s->req.op);
		if (s->req.op == BLK_WRITE)
			ck_pattern(s->data + i * 512, sector, s->snapshot[i]);
	}
}

static _unused_ void ck_next(struct ck_slot *s)
{
	struct ck_load *load = s->load;

	if (!load->left || load->stop) {
		if (!--load->running)
			load->finished = true;
		return;
	}
	ck_make(s);
	pthread_mutex_lock(&ck.lock);
	bool free_ = s->req.op == BLK_FLUSH || ck_claim(s, s->req.op != BLK_READ);
	if (free_)
		ck_prepare(s);
	pthread_mutex_unlock(&ck.lock);
	if (!free_) {
		s->retry.fn = ck_retry;
		blk_timer_set(load->queue, &s->retry, blk_queue_now(load->queue) + 20000);
		return;
	}
	load->left--;
	blk_stack_submit(load->stack, &s->req);
}

static void ck_load_start(void *ctx)
{
	struct ck_load *load = ctx;

	load->running = CK_DEPTH;
	for (unsigned i = 0; i < CK_DEPTH; i++)
		ck_next(&load->slot[i]);
}

/* On a stack that was started. */
static _unused_ struct ck_load *ck_load_new(struct blk_stack *s, unsigned queue, unsigned seed, unsigned ops, bool errors)
{
	struct ck_load *load = calloc(1, sizeof(*load));

	*load = (struct ck_load){ .stack = s, .queue = blk_stack_queue(s, queue), .seed = seed, .left = ops, .errors_expected = errors };
	for (unsigned i = 0; i < CK_DEPTH; i++) {
		load->slot[i].load = load;
		load->slot[i].data = malloc(CK_LEN_MAX * 512 + 8 * 512);
		load->slot[i].snapshot = malloc(sizeof(uint32_t) * CK_SECTORS * 2);
	}
	blk_queue_call(load->queue, ck_load_start, load);
	return load;
}

static _unused_ void ck_load_wait(struct ck_load *load)
{
	while (!load->finished)
		usleep(500);
	for (unsigned i = 0; i < CK_DEPTH; i++) {
		free(load->slot[i].data);
		free(load->slot[i].snapshot);
	}
	free(load);
}

/* ---- one request, from the test's thread ---- */

struct ck_call {
	struct blk_req req;
	struct blk_layer *layer; /* NULL: the stack */
	struct blk_stack *stack;
	_Atomic bool done;
};

static void ck_call_done(struct blk_req *r)
{
	((struct ck_call *)r->ctx)->done = true;
}

static void ck_call_submit(void *ctx)
{
	struct ck_call *c = ctx;

	if (c->layer)
		blk_submit(c->layer, &c->req);
	else
		blk_stack_submit(c->stack, &c->req);
}

static _unused_ int ck_io(struct blk_stack *s, struct blk_layer *layer, enum blk_op op, uint64_t off, void *data, uint64_t len)
{
	struct iovec iov = { data, len };
	struct ck_call c = { .layer = layer, .stack = s };

	c.req = (struct blk_req){ .op = op, .off_bytes = off, .len_bytes = len, .queue = blk_stack_queue(s, blk_stack_queues(s) - 1),
				  .done = ck_call_done, .ctx = &c };
	if (data) {
		c.req.iov = &iov;
		c.req.iov_count = 1;
	}
	blk_queue_call(c.req.queue, ck_call_submit, &c);
	while (!c.done)
		usleep(50);
	return c.req.result;
}

/* ---- files ---- */

static _unused_ unsigned ck_ops(unsigned fallback)
{
	const char *text = getenv("MALLEE_MODEL_OPS");

	return text ? (unsigned)strtoul(text, NULL, 10) : fallback;
}

static _unused_ unsigned ck_seed(void)
{
	const char *text = getenv("MALLEE_MODEL_SEED");
	unsigned seed = text ? (unsigned)strtoul(text, NULL, 10) : (unsigned)time(NULL) * 31 + (unsigned)getpid();

	printf("MALLEE_MODEL_SEED=%u\n", seed);
	return seed;
}

static _unused_ void ck_copy_file(const char *from, const char *to)
{
	FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
	char block[65536];
	size_t n;

	assert_true(in && out);
	while ((n = fread(block, 1, sizeof(block), in)) > 0)
		assert_int_equal(fwrite(block, 1, n, out), n);
	fclose(in);
	assert_int_equal(fclose(out), 0);
}

#endif
