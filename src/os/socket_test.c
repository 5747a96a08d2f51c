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
#include <sys/socket.h>
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

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_remove_stale) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
