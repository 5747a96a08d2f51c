/* SPDX-License-Identifier: Apache-2.0 */
/* I/O on files by a few threads, where io_uring may not be used: they take operations from one list and push what ended on another. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/core/queue_priv.h"

#define THREADS 8
#define STACK_BYTES (128 * 1024)

struct aio_engine {
	struct blk_queue *queue;
	pthread_mutex_t lock;   /* todo and closing; held for list work only */
	pthread_cond_t work;
	struct blk_aio *todo, **todo_last;
	bool closing;
	struct blk_aio *local, **local_last; /* of this batch, not handed over yet */
	_Atomic(struct blk_aio *) ended;     /* last first */
	pthread_t threads[THREADS];
	unsigned thread_count;
};

static int64_t perform(struct blk_aio *op)
{
	int64_t n = 0;

	switch (op->op) {
	case BLK_AIO_READ:
		n = preadv2(op->fd, op->iov, (int)op->iov_count, (off_t)op->off_bytes, op->flags);
		break;
	case BLK_AIO_WRITE:
		n = pwritev2(op->fd, op->iov, (int)op->iov_count, (off_t)op->off_bytes, op->flags);
		break;
	case BLK_AIO_FDATASYNC:
		n = fdatasync(op->fd);
		break;
	case BLK_AIO_FALLOCATE:
		n = fallocate(op->fd, op->flags, (off_t)op->off_bytes, (off_t)op->len_bytes);
		break;
	}
	return n < 0 ? -errno : n;
}

static struct blk_aio *next_todo(struct aio_engine *a)
{
	struct blk_aio *op;

	pthread_mutex_lock(&a->lock);
	while (!a->todo && !a->closing)
		pthread_cond_wait(&a->work, &a->lock);
	op = a->todo;
	if (op) {
		a->todo = op->next;
		if (!a->todo)
			a->todo_last = &a->todo;
	}
	pthread_mutex_unlock(&a->lock);
	return op;
}

static void *run_worker(void *arg)
{
	struct aio_engine *a = arg;
	struct blk_aio *op;

	while ((op = next_todo(a))) {
		op->result = perform(op);
		struct blk_aio *head = atomic_load_explicit(&a->ended, memory_order_relaxed);
		do
			op->next = head;
		while (!atomic_compare_exchange_weak(&a->ended, &head, op));
		queue_wake(a->queue);
	}
	return NULL;
}

static void threads_close(struct aio_engine *a)
{
	pthread_mutex_lock(&a->lock);
	a->closing = true;
	pthread_cond_broadcast(&a->work);
	pthread_mutex_unlock(&a->lock);
	for (unsigned i = 0; i < a->thread_count; i++)
		pthread_join(a->threads[i], NULL);
	pthread_cond_destroy(&a->work);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

static int threads_open(struct blk_queue *q, struct aio_engine **ret)
{
	struct aio_engine *a = calloc(1, sizeof(*a));
	pthread_attr_t attr;

	if (!a)
		return -ENOMEM;
	a->queue = q;
	a->todo_last = &a->todo;
	a->local_last = &a->local;
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->work, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	while (a->thread_count < THREADS && !pthread_create(&a->threads[a->thread_count], &attr, run_worker, a))
		a->thread_count++;
	pthread_attr_destroy(&attr);
	if (!a->thread_count) { /* fewer than asked for are enough */
		threads_close(a);
		return -EAGAIN;
	}
	*ret = a;
	return 0;
}

static void threads_submit(struct aio_engine *a, struct blk_aio *op)
{
	op->next = NULL;
	*a->local_last = op;
	a->local_last = &op->next;
}

static void threads_flush(struct aio_engine *a)
{
	if (!a->local)
		return;
	bool several = a->local->next;
	pthread_mutex_lock(&a->lock);
	*a->todo_last = a->local;
	a->todo_last = a->local_last;
	if (several)
		pthread_cond_broadcast(&a->work);
	else
		pthread_cond_signal(&a->work);
	pthread_mutex_unlock(&a->lock);
	a->local = NULL;
	a->local_last = &a->local;
}

static void threads_reap(struct aio_engine *a)
{
	if (!atomic_load_explicit(&a->ended, memory_order_acquire))
		return;
	struct blk_aio *last_first = atomic_exchange(&a->ended, NULL), *op = NULL;
	while (last_first) {
		struct blk_aio *next = last_first->next;
		last_first->next = op;
		op = last_first;
		last_first = next;
	}
	while (op) {
		struct blk_aio *next = op->next;
		op->done(op);
		op = next;
	}
}

const struct aio_ops aio_threads_ops = {
	.which = BLK_IO_THREADS,
	.open = threads_open,
	.close = threads_close,
	.submit = threads_submit,
	.flush = threads_flush,
	.reap = threads_reap,
};
