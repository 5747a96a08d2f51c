/* SPDX-License-Identifier: Apache-2.0 */
#include "block/core/queue.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/core/request.h"

static struct blk_queue *new_queue(enum blk_io_engine engine)
{
	struct blk_queue *q;
	struct error e = { 0 };

	if (blk_queue_new(0, engine, &q, &e)) {
		print_message("skipped: %s\n", e.message);
		skip();
	}
	return q;
}

/* ---- I/O, on both engines ---- */

#define COUNT 1000 /* more than a ring holds */

struct io_run {
	struct blk_aio aio[COUNT];
	struct iovec iov[COUNT];
	uint32_t word[COUNT];
	unsigned left;
	bool all_done, inside;
};

static struct io_run *run_of_test;

static void io_done(struct blk_aio *a)
{
	assert_false(run_of_test->inside); /* never inside the submit */
	assert_int_equal(a->result, 4);
	run_of_test->all_done = --run_of_test->left == 0;
}

static void many(struct blk_queue *q, int fd, enum blk_aio_op op)
{
	struct io_run *run = run_of_test;

	run->left = COUNT;
	run->all_done = false;
	for (unsigned i = 0; i < COUNT; i++) {
		run->iov[i] = (struct iovec){ &run->word[i], 4 };
		run->aio[i] = (struct blk_aio){ .op = op, .fd = fd, .iov = &run->iov[i], .iov_count = 1, .off_bytes = i * 4, .done = io_done };
		run->inside = true;
		blk_aio_submit(q, &run->aio[i]);
		run->inside = false;
	}
	assert_int_equal(blk_queue_run_until(q, &run->all_done, 20000), 0);
}

static void check_engine(enum blk_io_engine engine)
{
	char path[] = "/tmp/mallee-queue-XXXXXX";
	int fd = mkstemp(path);
	struct blk_queue *q = new_queue(engine);

	unlink(path);
	assert_int_equal(blk_queue_engine(q), engine);
	run_of_test = calloc(1, sizeof(*run_of_test));
	for (unsigned i = 0; i < COUNT; i++)
		run_of_test->word[i] = i * 7;
	many(q, fd, BLK_AIO_WRITE);
	memset(run_of_test->word, 0, sizeof(run_of_test->word));
	many(q, fd, BLK_AIO_READ);
	for (unsigned i = 0; i < COUNT; i++)
		assert_int_equal(run_of_test->word[i], i * 7);
	free(run_of_test);
	blk_queue_free(q);
	close(fd);
}

static void test_uring(void **state)
{
	check_engine(BLK_IO_URING);
}

static void test_threads(void **state)
{
	check_engine(BLK_IO_THREADS);
}

static bool failed_done;

static void fails(struct blk_aio *a)
{
	assert_int_equal(a->result, -EBADF);
	failed_done = true;
}

static void test_error_is_told(void **state)
{
	for (enum blk_io_engine engine = BLK_IO_AUTO; engine <= BLK_IO_THREADS; engine += 2) {
		struct blk_queue *q = new_queue(engine);
		struct blk_aio a = { .op = BLK_AIO_FDATASYNC, .fd = -1, .done = fails };
		failed_done = false;
		blk_aio_submit(q, &a);
		assert_int_equal(blk_queue_run_until(q, &failed_done, 5000), 0);
		blk_queue_free(q);
	}
}

/* ---- tasks from other threads ---- */

#define POSTERS 4
#define POSTS 20000

static unsigned posted_count; /* the queue's thread's */

struct one_post {
	struct blk_task task;
	bool ran;
};

static void count_post(struct blk_task *t)
{
	((struct one_post *)t)->ran = true;
	posted_count++;
}

static void *post_many(void *arg)
{
	struct one_post *posts = calloc(POSTS, sizeof(*posts));

	for (unsigned i = 0; i < POSTS; i++) {
		posts[i].task.fn = count_post;
		blk_queue_post(arg, &posts[i].task);
	}
	return posts;
}

static void read_count(void *ctx)
{
	*(unsigned *)ctx = posted_count;
}

static void test_posts_from_many_threads(void **state)
{
	struct blk_queue *q = new_queue(BLK_IO_AUTO);
	pthread_t threads[POSTERS];
	void *posts[POSTERS];
	unsigned seen = 0;

	posted_count = 0;
	assert_int_equal(blk_queue_start(q), 0);
	for (unsigned i = 0; i < POSTERS; i++)
		pthread_create(&threads[i], NULL, post_many, q);
	for (unsigned i = 0; i < POSTERS; i++)
		pthread_join(threads[i], &posts[i]);
	blk_queue_call(q, read_count, &seen); /* comes behind them all */
	assert_int_equal(seen, POSTERS * POSTS);
	blk_queue_stop(q);
	for (unsigned i = 0; i < POSTERS; i++)
		free(posts[i]);
	blk_queue_free(q);
}

/* ---- requests completed by another thread ---- */

static unsigned ended;
static bool all_ended;

static void request_done(struct blk_req *r)
{
	assert_int_equal(r->result, -EIO);
	assert_true(blk_queue_is_current(r->queue));
	all_ended = ++ended == COUNT;
}

static void *complete_all(void *arg)
{
	struct blk_req *r = arg;

	for (unsigned i = 0; i < COUNT; i++)
		blk_complete(&r[i], -EIO);
	return NULL;
}

static void test_completed_elsewhere(void **state)
{
	struct blk_queue *q = new_queue(BLK_IO_AUTO);
	struct blk_req *r = calloc(COUNT, sizeof(*r));
	pthread_t thread;

	ended = 0;
	all_ended = false;
	for (unsigned i = 0; i < COUNT; i++) {
		r[i].queue = q;
		r[i].done = request_done;
	}
	pthread_create(&thread, NULL, complete_all, r);
	assert_int_equal(blk_queue_run_until(q, &all_ended, 10000), 0);
	pthread_join(thread, NULL);
	assert_int_equal(ended, COUNT);
	free(r);
	blk_queue_free(q);
}

/* ---- timers, descriptors, the end of a batch ---- */

static struct blk_timer *fired[4];
static unsigned fired_count;
static bool three_fired;

static void fire(struct blk_timer *t)
{
	fired[fired_count++] = t;
	three_fired = fired_count == 3;
}

static void test_timers(void **state)
{
	struct blk_queue *q = new_queue(BLK_IO_AUTO);
	struct blk_timer a = { .fn = fire }, b = { .fn = fire }, c = { .fn = fire }, cancelled = { .fn = fire };
	uint64_t now = blk_queue_now(q);

	fired_count = 0;
	three_fired = false;
	blk_timer_set(q, &a, now + 30000000);
	blk_timer_set(q, &b, now + 10000000);
	blk_timer_set(q, &cancelled, now + 15000000);
	blk_timer_set(q, &c, now + 90000000000);
	blk_timer_set(q, &c, now + 20000000); /* moved */
	blk_timer_cancel(&cancelled);
	blk_timer_cancel(&cancelled);
	assert_int_equal(blk_queue_run_until(q, &three_fired, 10000), 0);
	assert_ptr_equal(fired[0], &b);
	assert_ptr_equal(fired[1], &c);
	assert_ptr_equal(fired[2], &a);
	assert_true(blk_queue_now(q) >= now + 30000000);
	blk_queue_free(q);
}

struct pair {
	struct blk_watch watch[2];
	struct blk_task task;
	unsigned calls, batches;
	bool batch_ended;
};
static struct pair *pair_of_test;

static void batch_end(struct blk_task *t)
{
	pair_of_test->batches++;
	pair_of_test->batch_ended = true;
}

/* Whichever comes first takes the other away, which must then not be called. */
static void on_event(struct blk_watch *w, uint32_t events)
{
	struct pair *p = pair_of_test;

	p->calls++;
	blk_queue_defer(w->queue, &p->task);
	blk_queue_defer(w->queue, &p->task);
	blk_watch_remove(&p->watch[w == &p->watch[0]]);
	blk_watch_remove(w);
}

static void test_watch_removed_in_its_batch(void **state)
{
	struct blk_queue *q = new_queue(BLK_IO_AUTO);
	struct pair p = { .task.fn = batch_end };
	int fds[2] = { eventfd(1, EFD_NONBLOCK), eventfd(1, EFD_NONBLOCK) };

	pair_of_test = &p;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(blk_watch_add(q, &p.watch[i], fds[i], EPOLLIN, on_event), 0);
	assert_int_equal(blk_queue_run_until(q, &p.batch_ended, 5000), 0);
	assert_int_equal(p.calls, 1);
	assert_int_equal(p.batches, 1);
	blk_watch_remove(&p.watch[0]);
	blk_queue_free(q);
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_uring),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_error_is_told),
		cmocka_unit_test(test_posts_from_many_threads),
		cmocka_unit_test(test_completed_elsewhere),
		cmocka_unit_test(test_timers),
		cmocka_unit_test(test_watch_removed_in_its_batch),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
