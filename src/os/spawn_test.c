/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/text.h"
#include "os/file.h"
#include "os/spawn.h"

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_output(void **state)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct error e = {0};

	assert_int_equal(run_command_output(&out, &e, "printf", "%s|", "a b", "$HOME", "*", NULL),
			 0);
	assert_string_equal(out.data, "a b|$HOME|*|");
	assert_int_equal(run_command(&e, "true", NULL), 0);
}

static void test_large_output(void **state)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct error e = {0};

	assert_int_equal(run_command_output(&out, &e, "head", "-c", "3000000", "/dev/zero", NULL),
			 0);
	assert_int_equal(out.len, 3000000);
}

static void test_endless_output_is_stopped(void **state)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct error e = {0};

	assert_int_equal(run_command_output(&out, &e, "yes", NULL), -EFBIG);
	assert_non_null(strstr(e.message, "16 MiB"));
}

static void test_stdin(void **state)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct error e = {0};

	assert_int_equal(
	    spawn_run(&(struct spawn){.argv = ARGV("cat"), .stdin_text = "over\n"}, &out, NULL, &e),
	    0);
	assert_string_equal(out.data, "over\n");
	buf_reset(&out);
	assert_int_equal(spawn_run(&(struct spawn){.argv = ARGV("cat")}, &out, NULL, &e), 0);
	assert_int_equal(out.len, 0);
	/* A program that reads nothing. */
	assert_int_equal(
	    spawn_run(&(struct spawn){.argv = ARGV("true"), .stdin_text = "x"}, NULL, NULL, &e), 0);
}

static void test_failure_tells_the_last_line(void **state)
{
	struct error e = {0};
	int code = -1;

	assert_int_equal(
	    run_command(&e, "sh", "-c", "echo first >&2; echo 'the reason' >&2; exit 3", NULL),
	    -EREMOTEIO);
	assert_string_equal(e.message, "sh failed (status 3): the reason");
	error_clear(&e);
	assert_int_equal(
	    spawn_run(&(struct spawn){.argv = ARGV("sh", "-c", "exit 7")}, NULL, &code, &e), 0);
	assert_int_equal(code, 7);
	assert_int_equal(
	    spawn_run(&(struct spawn){.argv = ARGV("sh", "-c", "kill -9 $$")}, NULL, &code, &e), 0);
	assert_int_equal(code, 128 + SIGKILL);
	assert_int_equal(run_command(&e, "false", NULL), -EREMOTEIO);
	assert_string_equal(e.message, "false failed (status 1).");
}

static void test_not_installed(void **state)
{
	struct error e = {0};
	pid_t pid = 77;

	assert_int_equal(run_command(&e, "mallee-no-such-program", NULL), -ENOENT);
	assert_string_equal(e.message, "The program mallee-no-such-program is not installed.");
	error_clear(&e);
	assert_int_equal(spawn_start(&(struct spawn){.argv = ARGV("/no/such/program")}, &pid, &e),
			 -ENOENT);
	assert_int_equal(pid, 77);
	error_clear(&e);
	assert_int_equal(run_command(&e, "/etc/passwd", NULL), -EACCES);
	assert_non_null(strstr(e.message, "passwd"));
}

static void test_timeout(void **state)
{
	struct error e = {0};
	int64_t start = clock_mono_ms();
	struct spawn s = {.argv = ARGV("sleep", "30"), .timeout_ms = 100};

	assert_int_equal(spawn_run(&s, NULL, NULL, &e), -ETIMEDOUT);
	assert_non_null(strstr(e.message, "sleep took longer"));
	assert_true(clock_mono_ms() - start < 2500);
	/* One that ignores SIGTERM. */
	s.argv = ARGV("sh", "-c", "trap '' TERM; while :; do sleep 1; done");
	error_clear(&e);
	assert_int_equal(spawn_run(&s, NULL, NULL, &e), -ETIMEDOUT);
	assert_true(clock_mono_ms() - start < 9000);
}

/* The pipes stay open in a grandchild; the end of the program itself is what counts. */
static void test_background_child_does_not_hold_us(void **state)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct error e = {0};
	int64_t start = clock_mono_ms();

	assert_int_equal(run_command_output(&out, &e, "sh", "-c", "sleep 5 & echo started", NULL),
			 0);
	assert_string_equal(out.data, "started\n");
	assert_true(clock_mono_ms() - start < 3000);
}

static void test_no_descriptor_leaks(void **state)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	_cleanup_(fd_closep) int leak = open("/dev/null", O_RDONLY); /* without CLOEXEC */
	struct error e = {0};

	assert_true(leak > 2);
	assert_int_equal(run_command_output(&out, &e, "sh", "-c", "echo /proc/$$/fd/*", NULL), 0);
	/* 0 1 2, and the one that the shell opened to list the folder */
	for (char *p = strtok(out.data, " \n"); p; p = strtok(NULL, " \n")) {
		int64_t fd;

		assert_int_equal(parse_i64(strrchr(p, '/') + 1, 0, 3, &fd), 0);
	}
}

static void test_signals_are_reset(void **state)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct error e = {0};
	sigset_t blocked, old;

	signal(SIGPIPE, SIG_IGN);
	sigfillset(&blocked);
	sigprocmask(SIG_BLOCK, &blocked, &old);
	assert_int_equal(
	    run_command_output(&out, &e, "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status", NULL),
	    0);
	sigprocmask(SIG_SETMASK, &old, NULL);
	signal(SIGPIPE, SIG_DFL);
	unsigned long long block, ignore;

	assert_int_equal(sscanf(out.data, "SigBlk: %llx SigIgn: %llx", &block, &ignore), 2);
	/* 32 and 33 are the C library's own: nobody can reset them, whoever started us. */
	ignore &= ~(3ULL << 31);
	assert_int_equal(block, 0);
	assert_int_equal(ignore, 0);
}

static void test_start_with_log(void **state)
{
	char log[] = "/tmp/mallee-spawn-XXXXXX";
	int fd = mkstemp(log), status;
	struct spawn s = {.argv = ARGV("sh", "-c", "echo out; echo err >&2; ps -o sid= -p $$"),
			  .log_path = log,
			  .new_session = true};
	_cleanup_(freep) char *text = NULL;
	struct error e = {0};
	char want[64];
	pid_t pid;

	close(fd);
	assert_int_equal(spawn_start(&s, &pid, &e), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(file_read(log, 1000, &text, NULL), 0);
	snprintf(want, sizeof(want), "%d\n", pid);
	assert_true(str_prefix(text, "out\nerr\n"));
	assert_true(str_suffix(text, want));
	/* Appended; the message points to the log. */
	s.argv = ARGV("sh", "-c", "echo more; exit 1");
	assert_int_equal(spawn_run(&s, NULL, NULL, &e), -EREMOTEIO);
	assert_non_null(strstr(e.message, log));
	free(text);
	assert_int_equal(file_read(log, 1000, &text, NULL), 0);
	assert_true(str_suffix(text, "more\n"));
	unlink(log);
	error_clear(&e);
	s.log_path = "/no/such/folder/log";
	assert_int_equal(spawn_start(&s, &pid, &e), -ENOENT);
	assert_non_null(strstr(e.message, "/no/such/folder/log"));
}

static void test_other_user(void **state)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct spawn s = {
	    .argv = ARGV("sh", "-c", "id -u; id -g; id -G"), .uid = 65534, .gid = 65534};
	struct error e = {0};

	if (geteuid() != 0) {
		s.uid = geteuid() + 1;
		assert_int_equal(spawn_run(&s, &out, NULL, &e), -EPERM);
		return;
	}
	assert_int_equal(spawn_run(&s, &out, NULL, &e), 0);
	assert_string_equal(out.data, "65534\n65534\n65534\n");
}

static void test_missing_namespace(void **state)
{
	struct spawn s = {.argv = ARGV("true"), .netns = "mallee-none"};
	struct error e = {0};

	assert_int_equal(spawn_run(&s, NULL, NULL, &e), -ENOENT);
	assert_non_null(strstr(e.message, "mallee-none"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_output),
	    cmocka_unit_test(test_large_output),
	    cmocka_unit_test(test_endless_output_is_stopped),
	    cmocka_unit_test(test_stdin),
	    cmocka_unit_test(test_failure_tells_the_last_line),
	    cmocka_unit_test(test_not_installed),
	    cmocka_unit_test(test_timeout),
	    cmocka_unit_test(test_background_child_does_not_hold_us),
	    cmocka_unit_test(test_no_descriptor_leaks),
	    cmocka_unit_test(test_signals_are_reset),
	    cmocka_unit_test(test_start_with_log),
	    cmocka_unit_test(test_other_user),
	    cmocka_unit_test(test_missing_namespace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
