/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "os/loop.h"

struct fixture {
	struct loop *loop;
	struct loop_source *a, *b;
	int fired, other;
	int pipe[2];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	return loop_new(&f->loop) < 0 || pipe(f->pipe) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	loop_free(f->loop);
	close(f->pipe[0]);
	close(f->pipe[1]);
	free(f);
	return 0;
}

/* So that a test which would wait for ever fails. */
static void give_up(void *ctx)
{
	fail_msg("the loop ran for 10 s");
}

static void run(struct fixture *f)
{
	struct loop_source *guard;

	assert_int_equal(loop_add_timer(f->loop, 10000, 0, give_up, NULL, &guard), 0);
	assert_int_equal(loop_run(f->loop), 0);
	loop_remove(guard);
}

static void count_to_three(void *ctx)
{
	struct fixture *f = ctx;

	if (++f->fired == 3)
		loop_stop(f->loop);
}

static void test_periodic_timer(void **state)
{
	struct fixture *f = *state;
	int64_t start = clock_mono_ms();

	assert_int_equal(loop_add_timer(f->loop, 0, 10, count_to_three, f, &f->a), 0);
	run(f);
	assert_int_equal(f->fired, 3);
	assert_true(clock_mono_ms() - start >= 19);
}

static void stop(void *ctx)
{
	struct fixture *f = ctx;

	f->other++;
	loop_stop(f->loop);
}

static void test_one_shot_timer(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(loop_add_timer(f->loop, 5, 0, count_to_three, f, NULL), 0);
	assert_int_equal(loop_add_timer(f->loop, 60, 0, stop, f, NULL), 0);
	run(f);
	assert_int_equal(f->fired, 1);
}

static void read_one(void *ctx, int fd, uint32_t events)
{
	struct fixture *f = ctx;
	char c;

	assert_int_equal(fd, f->pipe[0]);
	if (events & EPOLLIN && read(fd, &c, 1) == 1)
		f->fired += c;
	if (f->fired >= 5)
		loop_stop(f->loop);
}

static void test_fd(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(loop_add_fd(f->loop, f->pipe[0], EPOLLIN, read_one, f, &f->a), 0);
	assert_int_equal(write(f->pipe[1], "\x02\x03", 2), 2);
	run(f);
	assert_int_equal(f->fired, 5);
	assert_int_equal(loop_add_fd(f->loop, -1, EPOLLIN, read_one, f, &f->b), -EBADF);
	assert_int_equal(loop_add_fd(f->loop, f->pipe[0], EPOLLIN, read_one, f, &f->b), -EEXIST);
	assert_null(f->b);
}

/* Both timers are due in one batch; the first to run removes both, itself included. */
static void remove_both(void *ctx)
{
	struct fixture *f = ctx;

	f->fired++;
	loop_remove(f->a);
	loop_remove(f->b);
	loop_stop(f->loop);
}

static void test_remove_within_a_batch(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(loop_add_timer(f->loop, 0, 1, remove_both, f, &f->a), 0);
	assert_int_equal(loop_add_timer(f->loop, 0, 1, remove_both, f, &f->b), 0);
	usleep(5000);
	run(f);
	assert_int_equal(f->fired, 1);
	loop_remove(NULL);
}

static void woken(void *ctx)
{
	struct fixture *f = ctx;

	f->fired++;
	loop_stop(f->loop);
}

static void *wake_thread(void *ctx)
{
	struct fixture *f = ctx;

	usleep(20000);
	for (int i = 0; i < 5; i++)
		loop_wake(f->loop);
	return NULL;
}

static void test_wake_from_another_thread(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	loop_on_wake(f->loop, woken, f);
	assert_int_equal(pthread_create(&thread, NULL, wake_thread, f), 0);
	run(f);
	pthread_join(thread, NULL);
	assert_true(f->fired >= 1 && f->fired <= 5);
}

static void test_stop_before_run_counts(void **state)
{
	struct fixture *f = *state;

	loop_stop(f->loop);
	run(f); /* ends at once, or the guard fires */
	assert_int_equal(loop_add_timer(f->loop, 0, 0, stop, f, NULL), 0);
	run(f); /* and the loop can run again */
	assert_int_equal(f->other, 1);
}

static void on_signal(void *ctx, int signo)
{
	struct fixture *f = ctx;

	f->fired |= signo == SIGUSR1 ? 1 : 2;
	if (f->fired == 3)
		loop_stop(f->loop);
}

static void test_signals(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(loop_add_signal(f->loop, SIGUSR1, on_signal, f), 0);
	assert_int_equal(loop_add_signal(f->loop, SIGUSR2, on_signal, f), 0);
	assert_int_equal(loop_add_signal(f->loop, 0, on_signal, f), -EINVAL);
	kill(getpid(), SIGUSR1);
	kill(getpid(), SIGUSR2);
	run(f);
	assert_int_equal(f->fired, 3);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_periodic_timer),
	    TEST(test_one_shot_timer),
	    TEST(test_fd),
	    TEST(test_remove_within_a_batch),
	    TEST(test_wake_from_another_thread),
	    TEST(test_stop_before_run_counts),
	    TEST(test_signals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
