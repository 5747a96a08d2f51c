/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/unit.h"
#include "os/file.h"

#define LIMIT_MS 20000

/* A loop that runs until a condition holds, looked at every few milliseconds. */
struct bench {
	struct loop *loop;
	struct unit unit;
	bool (*until)(struct bench *b);
	bool held, down;
	int looks;
	pid_t old_pid;
};

static void look(void *ctx)
{
	struct bench *b = ctx;

	b->held = b->until(b);
	if (b->held || ++b->looks > LIMIT_MS / 20)
		loop_stop(b->loop);
}

static void run_until(struct bench *b, bool (*until)(struct bench *b))
{
	struct loop_source *timer;

	b->until = until;
	b->held = false;
	b->looks = 0;
	assert_int_equal(loop_add_timer(b->loop, 0, 20, look, b, &timer), 0);
	assert_int_equal(loop_run(b->loop), 0);
	loop_remove(timer);
	assert_true(b->held);
}

static void on_down(void *ctx)
{
	((struct bench *)ctx)->down = true;
}

static void setup(struct bench *b, const char *const *argv)
{
	memset(b, 0, sizeof(*b));
	assert_int_equal(loop_new(&b->loop), 0);
	b->unit = (struct unit){.name = "test",
				.argv = argv,
				.loop = b->loop,
				.on_down = on_down,
				.ctx = b,
				.pid_fd = -1};
}

static void teardown(struct bench *b)
{
	unit_done(&b->unit);
	loop_free(b->loop);
}

static const char *const sleeper[] = {"/bin/sleep", "1000", NULL};
static const char *const failing[] = {"/bin/sh", "-c", "exit 3", NULL};
static const char *const stubborn[] = {"/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done",
				       NULL};
static const char *const missing[] = {"/nonexistent/program", NULL};

static bool runs_anew(struct bench *b)
{
	return b->unit.state == UNIT_UP && b->unit.pid != b->old_pid;
}

static bool is_down(struct bench *b)
{
	return b->down;
}

static void test_killed_one_is_started_again(void **state)
{
	struct bench b;

	setup(&b, sleeper);
	unit_start(&b.unit);
	assert_int_equal(b.unit.state, UNIT_UP);
	b.old_pid = b.unit.pid;
	kill(b.old_pid, SIGKILL);
	run_until(&b, runs_anew);
	assert_false(b.down);
	unit_stop(&b.unit);
	run_until(&b, is_down);
	assert_int_equal(b.unit.state, UNIT_DOWN);
	teardown(&b);
}

static bool waited_long(struct bench *b)
{
	return b->unit.delay_ms >= 1600;
}

/* One that dies at once is tried less and less often, and can be told to stop in between. */
static void test_delay_grows(void **state)
{
	struct bench b;

	setup(&b, failing);
	unit_start(&b.unit);
	run_until(&b, waited_long);
	unit_stop(&b.unit);
	assert_true(b.unit.state == UNIT_DOWN || b.unit.state == UNIT_STOPPING);
	teardown(&b);
}

static void test_missing_program_is_tried_again(void **state)
{
	struct bench b;

	setup(&b, missing);
	unit_start(&b.unit);
	assert_int_equal(b.unit.state, UNIT_WAITING);
	assert_int_equal(b.unit.delay_ms, 200);
	teardown(&b);
}

static void test_stubborn_one_is_killed(void **state)
{
	struct bench b;

	setup(&b, stubborn);
	unit_start(&b.unit);
	usleep(300000); /* so that its trap is set */
	unit_stop(&b.unit);
	assert_int_equal(b.unit.state, UNIT_STOPPING);
	unit_kill(&b.unit);
	run_until(&b, is_down);
	teardown(&b);
}

/* A child of ours, of which the unit only knows the pid file that it holds. */
static pid_t start_holder(const char *path)
{
	pid_t pid = fork();

	if (pid == 0) {
		int fd;

		if (pidfile_take(path, &fd, NULL) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	for (int i = 0; i < 500 && pidfile_holder(path) != pid; i++)
		usleep(10000);
	return pid;
}

static void test_running_one_is_adopted(void **state)
{
	char path[64];
	struct bench b;
	pid_t pid;

	snprintf(path, sizeof(path), "/tmp/mallee-unit-test-%d.pid", (int)getpid());
	pid = start_holder(path);
	setup(&b, sleeper);
	b.unit.pid_path = strdup(path);
	unit_start(&b.unit);
	assert_int_equal(b.unit.state, UNIT_UP);
	assert_int_equal(b.unit.pid, pid);
	assert_true(b.unit.adopted);
	b.old_pid = pid;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	run_until(&b, runs_anew); /* watched like one's own: now it is */
	assert_false(b.unit.adopted);
	unit_stop(&b.unit);
	run_until(&b, is_down);
	teardown(&b);
	unlink(path);
}

static bool somewhere(void)
{
	return true;
}

static void test_one_that_runs_elsewhere_is_left(void **state)
{
	struct bench b;

	setup(&b, sleeper);
	b.unit.runs_elsewhere = somewhere;
	unit_start(&b.unit);
	assert_int_equal(b.unit.state, UNIT_DOWN);
	teardown(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_killed_one_is_started_again),
	    cmocka_unit_test(test_delay_grows),
	    cmocka_unit_test(test_missing_program_is_tried_again),
	    cmocka_unit_test(test_stubborn_one_is_killed),
	    cmocka_unit_test(test_running_one_is_adopted),
	    cmocka_unit_test(test_one_that_runs_elsewhere_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
