/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <errno.h>

#include "base/macros.h"

#define LEN_MAX (1u << 20)
#define IOV_MAX_USED 6u

struct lane;
struct slot {
	struct blk_req req;
	struct lane *lane;
	struct iovec iov[IOV_MAX_USED];
	uint8_t *data;
	uint64_t start;
	uint32_t op;
};

/* One queue's requests, on its thread. */
struct lane {
	struct load *load;
	struct blk_queue *queue;
	struct blk_task task;
	struct blk_timer pause;
	uint64_t random, read_at, write_at;
	unsigned left, out;
	bool verifying;
	const struct history_view *view;
	uint64_t *stamps;
	const char *what;
	sem_t *ended;
	struct slot slot[LOAD_DEPTH];
	bool busy[LOAD_DEPTH];
};

/* ---- what to ask ---- */

static uint64_t choose_len(struct lane *q)
{
	static const uint16_t sectors[] = { 1, 1, 2, 3, 8, 8, 8, 8, 16, 31, 64, 128, 128, 129, 512 };
	uint64_t n = random_below(&q->random, 200) ? sectors[random_below(&q->random, ARRAY_SIZE(sectors))] :
						      1 + random_below(&q->random, LEN_MAX / SECTOR);

	return MIN_OF(n, q->load->model->sectors / 4) * SECTOR;
}

/* A third goes on where the last one ended, a third into a small hot place that all queues share, a third anywhere. */
static uint64_t choose_off(struct lane *q, uint64_t *sequence, uint64_t len)
{
	uint64_t size = q->load->model->sectors * SECTOR, hot = MAX_OF(size / 32, len), off;

	switch (random_below(&q->random, 3)) {
	case 0:
		off = *sequence + len <= size && random_below(&q->random, 100) ? *sequence : random_below(&q->random, (size - len) / SECTOR + 1) * SECTOR;
		*sequence = off + len;
		return off;
	case 1:
		return random_below(&q->random, (hot - len) / SECTOR + 1) * SECTOR;
	default:
		return random_below(&q->random, (size - len) / SECTOR + 1) * SECTOR;
	}
}

static enum blk_op choose_op(struct lane *q)
{
	uint64_t n = random_below(&q->random, 100);

	return n < 40 ? BLK_READ : n < 84 ? BLK_WRITE : n < 90 ? BLK_WRITE_ZEROES : n < 94 ? BLK_DISCARD : BLK_FLUSH;
}

/* Elements of any length, on any boundary. */
static void choose_iov(struct lane *q, struct slot *s)
{
	uint64_t at = 0, len = s->req.len_bytes, unit = random_below(&q->random, 4) ? SECTOR : 1;
	unsigned count = 1 + (unsigned)random_below(&q->random, IOV_MAX_USED);

	s->req.iov = s->iov;
	s->req.iov_count = 0;
	while (at < len) {
		uint64_t take = (1 + random_below(&q->random, len / unit)) * unit;
		if (s->req.iov_count + 1 == count || take > len - at)
			take = len - at;
		s->iov[s->req.iov_count++] = (struct iovec){ s->data + at, take };
		at += take;
	}
}

static void lane_next(struct lane *q, struct slot *s);

static enum history_kind kind_of(enum blk_op op)
{
	return op == BLK_WRITE ? HISTORY_WRITE : op == BLK_WRITE_ZEROES ? HISTORY_ZEROES : op == BLK_DISCARD ? HISTORY_DISCARD : HISTORY_FLUSH;
}

static void request_done(struct blk_req *r)
{
	struct slot *s = r->ctx;
	struct lane *q = s->lane;
	struct load *l = q->load;

	if (!blk_queue_is_current(q->queue))
		die("done() on another thread than its queue's");
	if (r->result) {
		l->failed++;
		if (!l->world->fail_permille)
			die("op %d at %llu+%llu failed: %s", r->op, (unsigned long long)r->off_bytes, (unsigned long long)r->len_bytes,
			    strerror(-r->result));
	}
	world_event(l->world);
	if (r->op != BLK_READ) {
		history_end(&l->model->history, s->op, r->result);
	} else if (!r->result) {
		struct history_view v = { .mode = VIEW_READ, .at = UINT64_MAX, .read_start = s->start };
		model_check(l->model, q->verifying ? q->view : &v, r->off_bytes / SECTOR, r->len_bytes / SECTOR, s->data,
			    q->verifying ? q->stamps + r->off_bytes / SECTOR : NULL, q->verifying ? q->what : "a read");
	}
	world_event(l->world);
	q->out--;
	q->busy[s - q->slot] = false;
	lane_next(q, s);
}

static void submit_load(struct lane *q, struct slot *s)
{
	struct load *l = q->load;
	struct blk_req *r = &s->req;
	uint64_t len = choose_len(q), stamp = 0;

	r->op = choose_op(q);
	if (r->op != BLK_FLUSH) {
		r->len_bytes = len;
		r->off_bytes = choose_off(q, r->op == BLK_READ ? &q->read_at : &q->write_at, len);
	}
	if ((r->op == BLK_WRITE || r->op == BLK_WRITE_ZEROES) && random_below(&q->random, 8) == 0)
		r->flags |= BLK_FUA;
	if (r->op == BLK_WRITE_ZEROES && random_below(&q->random, 2))
		r->flags |= BLK_MAY_UNMAP;
	if (r->op == BLK_READ || r->op == BLK_WRITE)
		choose_iov(q, s);
	if (r->op == BLK_WRITE) {
		stamp = l->model->stamps++;
		for (uint64_t at = 0; at < len; at += SECTOR)
			stamp_fill(s->data + at, stamp, (r->off_bytes + at) / SECTOR);
	}
	world_event(l->world);
	if (r->op == BLK_READ)
		s->start = history_tick(&l->model->history);
	else
		s->op = history_begin(&l->model->history, kind_of(r->op), r->flags & BLK_FUA, r->off_bytes / SECTOR, r->len_bytes / SECTOR, stamp);
	blk_stack_submit(l->stack, r);
}

static void submit_verify(struct lane *q, struct slot *s)
{
	uint64_t size = q->load->model->sectors * SECTOR;
	struct blk_req *r = &s->req;

	r->op = BLK_READ;
	r->off_bytes = q->read_at;
	r->len_bytes = choose_len(q) + 65536;
	r->len_bytes = MIN_OF(r->len_bytes, size - q->read_at);
	q->read_at += r->len_bytes;
	q->left = q->read_at < size;
	choose_iov(q, s);
	blk_stack_submit(q->load->stack, r);
}

static void lane_next(struct lane *q, struct slot *s)
{
	if (!q->left || (!q->verifying && (world_is_full(q->load->world) || model_is_full(q->load->model)))) {
		q->left = 0;
		if (!q->out)
			sem_post(q->ended);
		return;
	}
	if (!q->verifying && random_below(&q->random, 500) == 0 && !q->pause.link && q->out) {
		blk_timer_set(q->queue, &q->pause, blk_queue_now(q->queue) + random_below(&q->random, 3000000));
		return;
	}
	q->left--;
	q->out++;
	q->busy[s - q->slot] = true;
	s->req = (struct blk_req){ .queue = q->queue, .done = request_done, .ctx = s };
	if (q->verifying)
		submit_verify(q, s);
	else
		submit_load(q, s);
}

static void lane_go(struct lane *q)
{
	for (unsigned i = 0; i < LOAD_DEPTH && q->left; i++) {
		if (!q->busy[i])
			lane_next(q, &q->slot[i]);
	}
}

static void on_task(struct blk_task *t)
{
	lane_go((struct lane *)((char *)t - offsetof(struct lane, task)));
}

/* One slot pauses, others go on: while something is left, something is out. */
static void on_pause(struct blk_timer *t)
{
	lane_go((struct lane *)((char *)t - offsetof(struct lane, pause)));
}

/* ---- running ---- */

static bool wait_a_while(sem_t *s)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += 200000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return sem_timedwait(s, &t) == 0;
}

static void barrier(struct load *l)
{
	struct error e = { 0 };
	int err = blk_stack_barrier(l->stack, 30000, &e);

	if (!err)
		blk_stack_resume(l->stack);
	else if (!l->world->fail_permille)
		die("a barrier failed: %s", e.message);
}

static void cancel_pause(void *ctx)
{
	blk_timer_cancel(&((struct lane *)ctx)->pause);
}

static void run_lanes(struct load *l, struct lane *lanes, unsigned count)
{
	sem_t ended;
	uint64_t random = l->seed ^ 0x5bd1e995;

	sem_init(&ended, 0, 0);
	for (unsigned i = 0; i < count; i++) {
		struct lane *q = &lanes[i];
		q->load = l;
		q->queue = blk_stack_queue(l->stack, i);
		q->task.fn = on_task;
		q->pause.fn = on_pause;
		q->random = l->seed + i * 7919;
		q->ended = &ended;
		for (unsigned j = 0; j < LOAD_DEPTH; j++) {
			q->slot[j].lane = q;
			q->slot[j].data = aligned_alloc(4096, LEN_MAX + 65536);
		}
		blk_queue_post(q->queue, &q->task);
	}
	for (unsigned i = 0; i < count;) {
		if (wait_a_while(&ended)) {
			i++;
			continue;
		}
		if (!lanes[0].verifying && random_below(&random, 1000) < l->barriers)
			barrier(l);
		if (!lanes[0].verifying && l->meanwhile)
			l->meanwhile(l, &random);
	}
	for (unsigned i = 0; i < count; i++) {
		blk_queue_call(lanes[i].queue, cancel_pause, &lanes[i]);
		for (unsigned j = 0; j < LOAD_DEPTH; j++)
			free(lanes[i].slot[j].data);
	}
	sem_destroy(&ended);
}

void load_run(struct load *l)
{
	unsigned count = blk_stack_queues(l->stack);
	struct lane *lanes = calloc(count, sizeof(*lanes));

	for (unsigned i = 0; i < count; i++)
		lanes[i].left = l->ops;
	run_lanes(l, lanes, count);
	free(lanes);
}

void load_verify(struct load *l, const struct history_view *v, uint64_t *stamps, const char *what)
{
	struct lane *lane = calloc(1, sizeof(*lane));

	lane->verifying = true;
	lane->view = v;
	lane->stamps = stamps;
	lane->what = what;
	lane->left = 1;
	run_lanes(l, lane, 1);
	free(lane);
}
