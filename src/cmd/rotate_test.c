/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/rotate.h"
#include "os/file.h"

static off_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? -1 : st.st_size;
}

static int make_dir(void **state)
{
	char *dir = strdup("/tmp/mallee-rotate-XXXXXX");

	*state = dir;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	dir_remove(*state);
	free(*state);
	return 0;
}

static void test_short_log_stays(void **state)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/a.log", (char *)*state);
	assert_int_equal(file_write_atomic(path, "12345", 5, 0600), 0);
	assert_int_equal(rotate_log(path, 5), 0);
	assert_int_equal(size_of(path), 5);
}

static void test_missing_log_is_fine(void **state)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/none.log", (char *)*state);
	assert_int_equal(rotate_log(path, 5), 0);
}

/* The writer's descriptor stays good, and what it writes next is the new file's first line. */
static void test_long_log_moves(void **state)
{
	_cleanup_(freep) char *text = NULL;
	char path[200], old[210];
	size_t len;
	int fd;

	snprintf(path, sizeof(path), "%s/b.log", (char *)*state);
	snprintf(old, sizeof(old), "%s.1", path);
	assert_int_equal(file_write_atomic(old, "older", 5, 0600), 0);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "123456", 6), 6);
	assert_int_equal(rotate_log(path, 5), 0);
	assert_int_equal(size_of(path), 0);
	assert_int_equal(write(fd, "next", 4), 4);
	close(fd);
	assert_int_equal(size_of(path), 4);
	assert_int_equal(file_read(old, 100, &text, &len), 0);
	assert_string_equal(text, "123456");
}

static void test_symbolic_link_is_refused(void **state)
{
	char path[200], target[200];

	snprintf(path, sizeof(path), "%s/c.log", (char *)*state);
	snprintf(target, sizeof(target), "%s/target", (char *)*state);
	assert_int_equal(file_write_atomic(target, "123456", 6, 0600), 0);
	assert_int_equal(symlink(target, path), 0);
	assert_true(rotate_log(path, 5) < 0);
	assert_int_equal(size_of(target), 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_short_log_stays),
	    cmocka_unit_test(test_missing_log_is_fine),
	    cmocka_unit_test(test_long_log_moves),
	    cmocka_unit_test(test_symbolic_link_is_refused),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
