/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop. Everything that belongs to a queue is touched by its thread alone, but for two stacks that any thread may push to
 * (posted tasks, requests completed elsewhere) and the flag that says that the eventfd has been written for them.
 *
 * The wake-up: a pusher pushes, then sets `woken`, and writes the eventfd if it was not set. The loop clears `woken` and then
 * takes the stacks: whoever pushed before that is seen, whoever comes after it writes again. The eventfd is edge-triggered and
 * never read.
 */
#include "block/core/queue.h"

#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/core/queue_priv.h"
#include "block/core/stats.h"
#include "os/file.h"

#define ROUNDS_MAX 64 /* of completions before descriptors get their turn again */
#define RETRY_NS INT64_C(1000000) /* of handing I/O to a kernel that would not take it */

/* Which queue this thread is: an identity, not state that is passed along. */
static _Thread_local const struct blk_queue *current_queue;

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- making and ending ---- */

static int queue_open(struct blk_queue *q, struct error *e)
{
	q->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	q->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->epoll_fd < 0 || q->wake_fd < 0)
		return error_errno(e, errno, "a queue's event loop");
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.ptr = NULL };
	if (epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, q->wake_fd, &ev))
		return error_errno(e, errno, "a queue's event loop");
	return 0;
}

int blk_queue_new(unsigned index, enum blk_io_engine engine, struct blk_queue **ret, struct error *e)
{
	assert(index < BLK_QUEUES_MAX);
	struct blk_queue *q = calloc(1, sizeof(*q));
	if (!q)
		return error_errno(e, ENOMEM, "a queue");
	q->index = index;
	q->epoll_fd = q->wake_fd = -1;
	q->deferred_last = &q->deferred;
	q->now_ns = clock_ns();
	bool uring = engine != BLK_IO_THREADS && aio_uring_works();
	if (engine == BLK_IO_URING && !uring) {
		free(q);
		return error_set(e, "Unsupported", "io_uring does not work here: use io=threads or io=auto");
	}
	q->aio_ops = uring ? &aio_uring_ops : &aio_threads_ops;
	int err = queue_open(q, e);
	if (err) {
		blk_queue_free(q);
		return err;
	}
	*ret = q;
	return 0;
}

void blk_queue_free(struct blk_queue *q)
{
	if (!q)
		return;
	assert(!q->started);
	if (q->aio)
		q->aio_ops->close(q->aio);
	fd_closep(&q->epoll_fd);
	fd_closep(&q->wake_fd);
	free(q);
}

unsigned blk_queue_index(const struct blk_queue *q)
{
	return q->index;
}

enum blk_io_engine blk_queue_engine(const struct blk_queue *q)
{
	return q->aio_ops->which;
}

bool blk_queue_is_current(const struct blk_queue *q)
{
	return current_queue == q;
}

uint64_t blk_queue_now(const struct blk_queue *q)
{
	return q->now_ns;
}

uint64_t blk_queue_read_clock(struct blk_queue *q)
{
	return q->now_ns = clock_ns();
}

bool blk_queue_has_more(const struct blk_queue *q)
{
	return !blk_list_empty(&q->done) || q->deferred || atomic_load_explicit(&q->woken, memory_order_relaxed);
}

/* ---- what other threads hand in ---- */

void queue_wake(struct blk_queue *q)
{
	if (atomic_exchange(&q->woken, true))
		return;
	/* It cannot fail but by a full counter, and then the loop has been woken before. */
	_unused_ ssize_t n = write(q->wake_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
}

void queue_completed(struct blk_queue *q, struct blk_req *r)
{
	if (current_queue == q) {
		blk_list_push(&q->done, r);
		return;
	}
	struct blk_req *head = atomic_load_explicit(&q->remote_done, memory_order_relaxed);
	do
		r->next = head;
	while (!atomic_compare_exchange_weak(&q->remote_done, &head, r));
	queue_wake(q);
}

void blk_queue_post(struct blk_queue *q, struct blk_task *t)
{
	struct blk_task *head = atomic_load_explicit(&q->posted, memory_order_relaxed);

	do
		t->next = head;
	while (!atomic_compare_exchange_weak(&q->posted, &head, t));
	queue_wake(q);
}

static void take_remote_done(struct blk_queue *q)
{
	struct blk_req *last_first = atomic_exchange(&q->remote_done, NULL), *first_first = NULL;

	while (last_first) {
		struct blk_req *r = last_first;
		last_first = r->next;
		r->next = first_first;
		first_first = r;
	}
	while (first_first) {
		struct blk_req *r = first_first;
		first_first = r->next;
		blk_list_push(&q->done, r);
	}
}

static void run_posted(struct blk_queue *q)
{
	struct blk_task *last_first = atomic_exchange(&q->posted, NULL), *first_first = NULL;

	while (last_first) {
		struct blk_task *t = last_first;
		last_first = t->next;
		t->next = first_first;
		first_first = t;
	}
	while (first_first) {
		struct blk_task *t = first_first;
		first_first = t->next;
		t->fn(t);
	}
}

struct call {
	struct blk_task task;
	void (*fn)(void *ctx);
	void *ctx;
	sem_t ended;
};

static void run_call(struct blk_task *t)
{
	struct call *c = (struct call *)t;

	c->fn(c->ctx);
	sem_post(&c->ended);
}

void blk_queue_call(struct blk_queue *q, void (*fn)(void *ctx), void *ctx)
{
	struct call c = { .task.fn = run_call, .fn = fn, .ctx = ctx };

	assert(current_queue != q);
	sem_init(&c.ended, 0, 0);
	blk_queue_post(q, &c.task);
	while (sem_wait(&c.ended) && errno == EINTR)
		;
	sem_destroy(&c.ended);
}

void blk_queue_defer(struct blk_queue *q, struct blk_task *t)
{
	if (t->waiting)
		return;
	t->waiting = true;
	t->next = NULL;
	*q->deferred_last = t;
	q->deferred_last = &t->next;
}

static void run_deferred(struct blk_queue *q)
{
	struct blk_task *t = q->deferred;

	q->deferred = NULL;
	q->deferred_last = &q->deferred;
	while (t) {
		struct blk_task *next = t->next;
		t->waiting = false;
		t->fn(t);
		t = next;
	}
}

/* ---- descriptors ---- */

int blk_watch_add(struct blk_queue *q, struct blk_watch *w, int fd, uint32_t events, void (*fn)(struct blk_watch *w, uint32_t events))
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	if (epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, fd, &ev))
		return -errno;
	*w = (struct blk_watch){ .fn = fn, .queue = q, .fd = fd };
	return 0;
}

int blk_watch_change(struct blk_watch *w, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	return epoll_ctl(w->queue->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev) ? -errno : 0;
}

void blk_watch_remove(struct blk_watch *w)
{
	struct blk_queue *q = w->queue;

	if (!q)
		return;
	epoll_ctl(q->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	for (int i = 0; i < q->event_count; i++) {
		if (q->events[i].data.ptr == w)
			q->events[i].data.ptr = NULL;
	}
	w->queue = NULL;
}

static void run_events(struct blk_queue *q)
{
	for (int i = 0; i < q->event_count; i++) {
		struct blk_watch *w = q->events[i].data.ptr;
		if (w)
			w->fn(w, q->events[i].events);
	}
	q->event_count = 0;
}

/* ---- timers ---- */

void blk_timer_cancel(struct blk_timer *t)
{
	if (!t->link)
		return;
	*t->link = t->next;
	if (t->next)
		t->next->link = t->link;
	t->link = NULL;
}

void blk_timer_set(struct blk_queue *q, struct blk_timer *t, uint64_t deadline_ns)
{
	blk_timer_cancel(t);
	struct blk_timer **link = &q->timers;
	while (*link && (*link)->deadline_ns <= deadline_ns)
		link = &(*link)->next;
	t->deadline_ns = deadline_ns;
	t->next = *link;
	t->link = link;
	if (t->next)
		t->next->link = &t->next;
	*link = t;
}

static void run_timers(struct blk_queue *q)
{
	while (q->timers && q->timers->deadline_ns <= q->now_ns) {
		struct blk_timer *t = q->timers;
		blk_timer_cancel(t);
		t->fn(t);
	}
}

/* ---- I/O ---- */

void blk_queue_ready_io(struct blk_queue *q)
{
	if (!q->aio && q->aio_ops->open(q, &q->aio) && q->aio_ops != &aio_threads_ops) {
		/* It worked when it was tried, and does not now (a limit on locked memory, say): threads always do. */
		q->aio_ops = &aio_threads_ops;
		q->aio_ops->open(q, &q->aio);
	}
}

void blk_aio_submit(struct blk_queue *q, struct blk_aio *a)
{
	a->queue = q;
	blk_queue_ready_io(q);
	if (q->aio)
		q->aio_ops->submit(q->aio, a);
	else
		abort(); /* not even a few hundred bytes of memory */
}

void blk_aio_file_open(struct blk_aio_file *f, struct blk_queue *q, int fd)
{
	*f = (struct blk_aio_file){ .queue = q, .fd = fd, .slot = -1 };
}

void blk_aio_file_close(struct blk_aio_file *f)
{
	if (f->slot >= 0)
		f->queue->aio_ops->file_close(f->queue->aio, f);
	f->slot = -1;
}

/* ---- the loop ---- */

static void finish(struct blk_queue *q, struct blk_req *r)
{
	for (unsigned i = 0; i < ARRAY_SIZE(r->account) && r->account[i].io; i++) {
		blk_io_stats_complete(r->account[i].io, r, r->account[i].arrival_ns, q->now_ns);
		r->account[i].io = NULL;
	}
	struct blk_gate *gate = r->gate;
	r->gate = NULL;
	r->done(r);
	if (gate)
		gate_leave(gate);
}

static void run_completions(struct blk_queue *q)
{
	for (unsigned round = 0; round < ROUNDS_MAX; round++) {
		struct blk_list batch = q->done; /* what completes meanwhile is the next round's */
		struct blk_req *r;
		q->done = (struct blk_list){ 0 };
		if (!blk_list_empty(&batch))
			q->now_ns = clock_ns();
		while ((r = blk_list_pop(&batch)))
			finish(q, r);
		run_deferred(q);
		if (q->aio) {
			q->aio_ops->flush(q->aio);
			q->aio_ops->reap(q->aio);
		}
		if (blk_list_empty(&q->done) && !q->deferred) {
			if (q->aio) /* what was begun where another operation ended */
				q->aio_ops->flush(q->aio);
			return;
		}
	}
}

static int wait_events(struct blk_queue *q, int64_t limit_ns)
{
	if (blk_queue_has_more(q))
		limit_ns = 0;
	if (limit_ns && q->timers) {
		uint64_t now = clock_ns(), at = q->timers->deadline_ns;
		int64_t left = at > now ? (int64_t)(at - now) : 0;
		limit_ns = limit_ns < 0 ? left : MIN_OF(limit_ns, left);
	}
	if (q->aio && q->aio_ops->starves && q->aio_ops->starves(q->aio))
		limit_ns = limit_ns < 0 ? RETRY_NS : MIN_OF(limit_ns, RETRY_NS);
	struct timespec t = { limit_ns / 1000000000, limit_ns % 1000000000 };
	int n = epoll_pwait2(q->epoll_fd, q->events, QUEUE_EVENTS, limit_ns < 0 ? NULL : &t, NULL);
	return MAX_OF(n, 0); /* a signal, and io_uring's own, come as EINTR */
}

static void turn(struct blk_queue *q, int64_t limit_ns)
{
	q->event_count = wait_events(q, limit_ns);
	q->now_ns = clock_ns();
	if (atomic_load_explicit(&q->woken, memory_order_relaxed)) {
		atomic_store(&q->woken, false);
		run_posted(q);
		take_remote_done(q);
	}
	if (q->aio)
		q->aio_ops->reap(q->aio);
	run_events(q);
	run_timers(q);
	run_completions(q);
}

static void *run_thread(void *arg)
{
	struct blk_queue *q = arg;

	current_queue = q;
	while (!q->stop)
		turn(q, -1);
	current_queue = NULL;
	return NULL;
}

int blk_queue_start(struct blk_queue *q)
{
	assert(!q->started);
	q->stop = false;
	int err = pthread_create(&q->thread, NULL, run_thread, q);
	q->started = !err;
	return -err;
}

static void ask_to_stop(void *ctx)
{
	((struct blk_queue *)ctx)->stop = true;
}

void blk_queue_stop(struct blk_queue *q)
{
	if (!q->started)
		return;
	blk_queue_call(q, ask_to_stop, q);
	pthread_join(q->thread, NULL);
	q->started = false;
}

int blk_queue_run_until(struct blk_queue *q, const bool *flag, int timeout_ms)
{
	assert(!q->started);
	const struct blk_queue *before = current_queue;
	uint64_t end = clock_ns() + (uint64_t)timeout_ms * 1000000u;

	current_queue = q;
	run_completions(q); /* what was submitted before */
	while (!*(volatile const bool *)flag && clock_ns() < end)
		turn(q, (int64_t)(end - clock_ns()) > 0 ? (int64_t)(end - clock_ns()) : 0);
	current_queue = before;
	return *(volatile const bool *)flag ? 0 : -ETIMEDOUT;
}
