/* SPDX-License-Identifier: Apache-2.0 */
#include "os/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static void test_remove_stale(void **state)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	char dir[] = "/tmp/mallee-socket-XXXXXX";

	assert_non_null(mkdtemp(dir));
	snprintf(at.sun_path, sizeof(at.sun_path), "%s/s", dir);
	assert_int_equal(socket_remove_stale(at.sun_path), 0);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 1), 0);
	assert_int_equal(socket_remove_stale(at.sun_path), -EADDRINUSE);
	close(fd);
	assert_int_equal(access(at.sun_path, F_OK), 0);
	assert_int_equal(socket_remove_stale(at.sun_path), 0);
	assert_int_not_equal(access(at.sun_path, F_OK), 0);
	close(open(at.sun_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_int_equal(socket_remove_stale(at.sun_path), -EEXIST);
	assert_int_equal(unlink(at.sun_path) || rmdir(dir), 0);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void test_accept_without_descriptors(void **state)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct rlimit before, none;

	snprintf(at.sun_path + 1, sizeof(at.sun_path) - 1, "mallee-socket-test-%d", (int)getpid());
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 1) || connect(peer, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = (struct rlimit){ .rlim_cur = 0, .rlim_max = before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	double began = seconds();
	int r = socket_accept(fd, SOCK_CLOEXEC), err = errno;
	double took = seconds() - began;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_true(r < 0 && err == EMFILE && took >= 0.09);
	r = socket_accept(fd, SOCK_CLOEXEC);
	assert_true(r >= 0);
	close(r);
	close(peer);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_remove_stale), cmocka_unit_test(test_accept_without_descriptors) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
