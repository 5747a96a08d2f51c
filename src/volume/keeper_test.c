/* SPDX-License-Identifier: Apache-2.0 */
#include "volume/keeper.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "os/file.h"
#include "volume/buffer.h"

static const char *program; /* mallee-blockd */
static char dir[] = "/tmp/mallee-keeper-XXXXXX";

static const char *const args[] = {"--back", "mem:size=1M", NULL};
static const char *const other_args[] = {"--back", "mem:size=2M", NULL};
static const char *const bad_args[] = {"--back", "mem:size=1M,colour=red", NULL};

static struct keeper_volume volume(const char *id, const char *const *a)
{
	return (struct keeper_volume){id, geteuid(), getegid(), a};
}

static struct keeper *new_keeper(void)
{
	struct keeper *k;
	struct error e = {0};

	assert_int_equal(keeper_new(&(struct keeper_settings){.program = program, .run_dir = dir, .log_dir = dir}, &k, &e), 0);
	return k;
}

/* Its process, once it serves. */
static pid_t pid_of(struct keeper *k, const char *id)
{
	struct keeper_status s[4];
	struct error e = {0};

	for (int i = 0; i < 500; i++) {
		_cleanup_(buf_done) struct buf out = BUF_INIT;
		size_t n = keeper_list(k, s, 4);
		for (size_t v = 0; v < n; v++) {
			if (str_eq(s[v].id, id) && s[v].pid && !keeper_command(k, id, "info", 2000, &out, &e))
				return s[v].pid;
		}
		usleep(10000);
	}
	return 0;
}

static bool runs(pid_t pid)
{
	return kill(pid, 0) == 0;
}

static bool folder_is_there(const char *id)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, id);
	return access(path, F_OK) == 0;
}

static void test_life(void **state)
{
	struct keeper *k = new_keeper();
	struct error e = {0};
	_cleanup_(buf_done) struct buf out = BUF_INIT;

	assert_int_equal(keeper_start(k, &(struct keeper_volume){"vol-1", geteuid(), getegid(), args}, 10000, &e), 0);
	pid_t pid = pid_of(k, "vol-1");
	assert_true(pid > 0);
	assert_int_equal(keeper_command(k, "vol-1", "info", 2000, &out, &e), 0);
	assert_non_null(strstr(out.data, "\"size_bytes\":1048576"));
	assert_true(keeper_command(k, "vol-1", "no such command", 2000, &out, &e) < 0);
	assert_string_equal(e.code, "InvalidCommand");
	error_clear(&e);

	/* again is fine, otherwise is not */
	struct keeper_volume v = volume("vol-1", args), o = volume("vol-1", other_args);
	assert_int_equal(keeper_start(k, &v, 10000, &e), 0);
	assert_int_equal(keeper_start(k, &o, 10000, &e), -EEXIST);
	assert_int_equal(pid_of(k, "vol-1"), pid);
	error_clear(&e);

	assert_int_equal(keeper_stop(k, "vol-1", 10000, &e), 0);
	assert_false(runs(pid));
	assert_false(folder_is_there("vol-1"));
	assert_int_equal(keeper_stop(k, "vol-1", 10000, &e), 0);
	assert_int_equal(keeper_command(k, "vol-1", "info", 2000, &out, &e), -ENOENT);
	error_clear(&e);
	assert_int_equal(keeper_start(k, &o, 10000, &e), 0); /* anew */
	assert_int_equal(keeper_stop(k, "vol-1", 10000, &e), 0);
	keeper_free(k);
}

static void test_killed_is_started_again(void **state)
{
	struct keeper *k = new_keeper();
	struct error e = {0};
	struct keeper_volume v = volume("vol-2", args);

	assert_int_equal(keeper_start(k, &v, 10000, &e), 0);
	for (uint64_t i = 1; i <= 3; i++) {
		pid_t pid = pid_of(k, "vol-2"), next = pid;
		kill(pid, SIGKILL);
		for (int n = 0; n < 1000 && next == pid; n++) {
			usleep(10000);
			next = pid_of(k, "vol-2");
		}
		assert_true(next > 0 && next != pid);
		struct keeper_status s;
		assert_int_equal(keeper_list(k, &s, 1), 1);
		assert_int_equal(s.restarts, i);
	}
	assert_int_equal(keeper_stop(k, "vol-2", 10000, &e), 0);
	keeper_free(k);
}

static void test_successor_adopts(void **state)
{
	struct keeper *k = new_keeper();
	struct error e = {0};
	struct keeper_volume v = volume("vol-3", args), w = volume("vol-4", args);

	assert_int_equal(keeper_start(k, &v, 10000, &e), 0);
	assert_int_equal(keeper_start(k, &w, 10000, &e), 0);
	pid_t pid = pid_of(k, "vol-3"), dead = pid_of(k, "vol-4");
	keeper_free(k);
	assert_true(runs(pid));
	kill(dead, SIGKILL);
	waitpid(dead, NULL, 0);

	k = new_keeper();
	assert_int_equal(pid_of(k, "vol-3"), pid); /* untouched */
	pid_t fresh = pid_of(k, "vol-4");
	assert_true(fresh > 0 && fresh != dead); /* started */
	assert_int_equal(keeper_start(k, &v, 10000, &e), 0); /* known */
	assert_int_equal(keeper_stop(k, "vol-3", 10000, &e), 0);
	assert_int_equal(keeper_stop(k, "vol-4", 10000, &e), 0);
	keeper_free(k);
}

static void test_failure_is_told(void **state)
{
	struct keeper *k = new_keeper();
	struct error e = {0};
	struct keeper_volume v = volume("vol-5", bad_args), w = volume("../vol", args);

	assert_int_equal(keeper_start(k, &v, 3000, &e), -ETIMEDOUT);
	assert_non_null(strstr(e.message, "there is no option")); /* out of its log */
	error_clear(&e);
	assert_int_equal(keeper_stop(k, "vol-5", 5000, &e), 0);
	assert_true(keeper_start(k, &w, 500, &e) < 0);
	keeper_free(k);
}

static void test_changed_arguments(void **state)
{
	struct keeper *k = new_keeper();
	struct error e = {0};
	struct keeper_volume v = volume("vol-6", args), w = volume("vol-6", other_args);
	_cleanup_(buf_done) struct buf out = BUF_INIT;

	assert_int_equal(keeper_change(k, &w, &e), -ENOENT);
	error_clear(&e);
	assert_int_equal(keeper_start(k, &v, 10000, &e), 0);
	pid_t pid = pid_of(k, "vol-6"), next = pid;
	assert_int_equal(keeper_change(k, &w, &e), 0);
	assert_int_equal(pid_of(k, "vol-6"), pid); /* what runs goes on */
	assert_int_equal(keeper_start(k, &v, 10000, &e), -EEXIST);
	assert_int_equal(keeper_start(k, &w, 10000, &e), 0);
	error_clear(&e);
	kill(pid, SIGKILL);
	for (int n = 0; n < 1000 && next == pid; n++) {
		usleep(10000);
		next = pid_of(k, "vol-6");
	}
	assert_int_equal(keeper_command(k, "vol-6", "info", 2000, &out, &e), 0);
	assert_non_null(strstr(out.data, "\"size_bytes\":2097152"));
	keeper_free(k);

	k = new_keeper(); /* on disk, too */
	assert_int_equal(keeper_start(k, &w, 10000, &e), 0);
	assert_int_equal(keeper_stop(k, "vol-6", 10000, &e), 0);
	keeper_free(k);
}

static void test_all_are_ended(void **state)
{
	struct keeper *k = new_keeper();
	struct error e = {0};
	struct keeper_volume v = volume("vol-7", args), w = volume("vol-8", args);
	unsigned count;

	assert_int_equal(keeper_start(k, &v, 10000, &e), 0);
	assert_int_equal(keeper_start(k, &w, 10000, &e), 0);
	pid_t one = pid_of(k, "vol-7"), two = pid_of(k, "vol-8");
	keeper_free(k);
	assert_int_equal(keeper_end_all("/tmp/mallee-keeper-", 10000, &count, &e), 0);
	assert_int_equal(count, 0); /* another folder's */
	assert_int_equal(keeper_end_all(dir, 10000, &count, &e), 0);
	assert_int_equal(count, 2);
	waitpid(one, NULL, 0);
	waitpid(two, NULL, 0);
	assert_false(runs(one) || runs(two));
}

static void test_buffers(void **state)
{
	struct buffers *b;
	struct error e = {0};
	char cloud[32], path[256], again[256];
	struct stat st;

	snprintf(cloud, sizeof(cloud), "kt%d", (int)getpid());
	assert_int_equal(buffers_open(cloud, &b, &e), 0);
	if (buffers_take(b, "vol-1", geteuid(), getegid(), path, sizeof(path), &e) == -ENOSPC)
		skip(); /* no tmpfs, or a small one */
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(buffers_take(b, "vol-1", geteuid(), getegid(), again, sizeof(again), &e), 0);
	assert_string_equal(path, again);
	for (int i = 2; i < 4096; i++) {
		char id[32];
		snprintf(id, sizeof(id), "vol-%d", i);
		if (buffers_take(b, id, geteuid(), getegid(), again, sizeof(again), &e) == -ENOSPC)
			break;
		assert_true(i < 4095); /* there is an end to it */
	}
	assert_int_equal(buffers_take(b, "../x", geteuid(), getegid(), again, sizeof(again), &e), -EINVAL);
	buffers_drop(b, "vol-1");
	assert_int_equal(access(path, F_OK), -1);
	buffers_free(b);
	assert_int_equal(buffers_remove(cloud), 0);
	*strrchr(path, '/') = '\0';
	assert_int_equal(access(path, F_OK), -1);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_life),
	    cmocka_unit_test(test_killed_is_started_again),
	    cmocka_unit_test(test_successor_adopts),
	    cmocka_unit_test(test_failure_is_told),
	    cmocka_unit_test(test_changed_arguments),
	    cmocka_unit_test(test_all_are_ended),
	    cmocka_unit_test(test_buffers),
	};

	program = argc > 1 ? argv[1] : "mallee-blockd";
	if (!mkdtemp(dir))
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	dir_remove(dir);
	return failed;
}
