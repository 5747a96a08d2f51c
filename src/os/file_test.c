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
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/file.h"

static char dir[64];
static char path_text[2][256];

/* dir + "/" + name; two at a time */
static const char *in_dir(const char *name)
{
	static int n;
	char *out = path_text[n++ % 2];

	snprintf(out, sizeof(path_text[0]), "%s/%s", dir, name);
	return out;
}

static int setup(void **state)
{
	strcpy(dir, "/tmp/mallee-file-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	return dir_remove(dir);
}

static void test_write_and_read(void **state)
{
	const char *path = in_dir("a");
	char *data = NULL;
	size_t len;
	struct stat st;

	assert_int_equal(file_write_atomic(path, "one\0two", 7, 0640), 0);
	assert_int_equal(file_read(path, 7, &data, &len), 0);
	assert_int_equal(len, 7);
	assert_memory_equal(data, "one\0two", 8);
	free(data);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_int_equal(file_write_atomic(path, "", 0, 0600), 0);
	assert_int_equal(file_read(path, 0, &data, &len), 0);
	assert_int_equal(len, 0);
	assert_string_equal(data, "");
	free(data);
}

static void test_read_limits(void **state)
{
	const char *path = in_dir("a");
	static char big[100000];
	char *data = NULL;
	size_t len = 5;

	memset(big, 'x', sizeof(big));
	assert_int_equal(file_write_atomic(path, big, sizeof(big), 0600), 0);
	assert_int_equal(file_read(path, sizeof(big) - 1, &data, &len), -EFBIG);
	assert_null(data);
	assert_int_equal(len, 5);
	for (size_t max = sizeof(big); max < sizeof(big) + 3; max++) {
		assert_int_equal(file_read(path, max, &data, &len), 0);
		assert_int_equal(len, sizeof(big));
		free(data);
	}
	assert_int_equal(file_read(in_dir("none"), 10, &data, &len), -ENOENT);
	assert_int_equal(file_read("/proc/self/stat", 4096, &data, NULL), 0);
	assert_true(strlen(data) > 10);
	free(data);
}

static void test_failed_write_leaves_the_old(void **state)
{
	char *data;

	assert_int_equal(file_write_atomic(in_dir("none/a"), "x", 1, 0600), -ENOENT);
	assert_int_equal(mkdir(in_dir("full"), 0700), 0);
	assert_int_equal(file_write_atomic(in_dir("full/x"), "x", 1, 0600), 0);
	/* A folder is in the way of the rename: nothing of ours may stay beside it. */
	assert_true(file_write_atomic(in_dir("full"), "x", 1, 0600) < 0);
	assert_int_equal(file_read(in_dir("full/x"), 10, &data, NULL), 0);
	assert_string_equal(data, "x");
	free(data);
	assert_int_equal(dir_remove(in_dir("full")), 0);
	assert_int_equal(rmdir(dir), 0); /* empty: no temporary file left */
	assert_int_equal(mkdir(dir, 0700), 0);
}

static void test_dirs(void **state)
{
	struct stat st;
	mode_t old = umask(077);

	assert_int_equal(dir_make(in_dir("a/b//c/"), 0755), 0);
	umask(old);
	assert_int_equal(stat(in_dir("a/b/c"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0755);
	assert_int_equal(chmod(in_dir("a"), 0700), 0);
	assert_int_equal(dir_make(in_dir("a/b"), 0755), 0);
	assert_int_equal(stat(in_dir("a"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(file_write_atomic(in_dir("file"), "x", 1, 0600), 0);
	assert_int_equal(dir_make(in_dir("file"), 0755), -ENOTDIR);
	assert_int_equal(dir_make(in_dir("file/sub"), 0755), -ENOTDIR);
	assert_int_equal(dir_make("", 0755), -ENOENT);
	assert_int_equal(dir_sync(in_dir("a")), 0);
	assert_int_equal(dir_sync(in_dir("none")), -ENOENT);
}

static void test_remove_does_not_follow_links(void **state)
{
	assert_int_equal(dir_make(in_dir("keep/sub"), 0755), 0);
	assert_int_equal(file_write_atomic(in_dir("keep/file"), "x", 1, 0600), 0);
	assert_int_equal(dir_make(in_dir("gone/deep/er"), 0755), 0);
	assert_int_equal(file_write_atomic(in_dir("gone/deep/er/file"), "x", 1, 0600), 0);
	assert_int_equal(symlink("../keep", in_dir("gone/link")), 0);
	assert_int_equal(symlink("nowhere", in_dir("gone/dangling")), 0);
	assert_int_equal(dir_remove(in_dir("gone")), 0);
	assert_int_equal(access(in_dir("gone"), F_OK), -1);
	assert_int_equal(access(in_dir("keep/file"), F_OK), 0);
	assert_int_equal(symlink("keep", in_dir("link")), 0);
	assert_int_equal(dir_remove(in_dir("link")), 0);
	assert_int_equal(access(in_dir("keep/sub"), F_OK), 0);
	assert_int_equal(dir_remove(in_dir("none")), 0);
	assert_int_equal(dir_remove(in_dir("keep/file")), 0);
}

static void test_pwrite(void **state)
{
	_cleanup_(fd_closep) int fd = open(in_dir("p"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	char got[5] = {0};

	assert_int_equal(fd_pwrite_all(fd, "abcd", 4, 3), 0);
	assert_int_equal(pread(fd, got, 4, 3), 4);
	assert_string_equal(got, "abcd");
	assert_int_equal(fd_pwrite_all(fd, "abcd", 4, UINT64_MAX - 1), -EFBIG);
	assert_int_equal(fd_write_all(-1, "a", 1), -EBADF);
}

static void test_full_disk_is_told(void **state)
{
	_cleanup_(fd_closep) int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, "a", 1), -ENOSPC);
}

/* A child that holds the pid file until it is killed; returns once it does. */
static pid_t holder(const char *path)
{
	int ready[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		int fd;

		close(ready[0]);
		if (pidfile_take(path, &fd, NULL) == 0 && write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return pid;
}

static void test_pidfile(void **state)
{
	const char *path = in_dir("d.pid");
	pid_t other, told = 0;
	int fd = -1;

	assert_int_equal(pidfile_holder(path), 0);
	other = holder(path);
	assert_int_equal(pidfile_holder(path), other);
	assert_int_equal(pidfile_take(path, &fd, &told), -EBUSY);
	assert_int_equal(told, other);
	kill(other, SIGKILL);
	assert_int_equal(waitpid(other, NULL, 0), other);
	/* The file is still there, with a pid that may be anybody's by now: only the lock counts.
	 */
	assert_int_equal(pidfile_holder(path), 0);
	assert_int_equal(pidfile_take(path, &fd, &told), 0);
	assert_int_equal(pidfile_holder(path), getpid());
	assert_int_equal(pidfile_holder(path), getpid()); /* looking did not let it go */
	close(fd);
	assert_int_equal(pidfile_holder(path), 0);
	assert_int_equal(pidfile_take(in_dir("none/x.pid"), &fd, NULL), -ENOENT);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_write_and_read),
	    TEST(test_read_limits),
	    TEST(test_failed_write_leaves_the_old),
	    TEST(test_dirs),
	    TEST(test_remove_does_not_follow_links),
	    TEST(test_pwrite),
	    TEST(test_full_disk_is_told),
	    TEST(test_pidfile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
