/* SPDX-License-Identifier: Apache-2.0 */
#include "os/shutdown.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/file.h"

static char dir[] = "/tmp/mallee-shutdown-XXXXXX";

/* A systemctl that says this, first on PATH. */
static void systemctl_says(const char *word, int code)
{
	char path[64], text[128];

	snprintf(path, sizeof(path), "%s/systemctl", dir);
	snprintf(text, sizeof(text), "#!/bin/sh\n[ \"$*\" = is-system-running ] && echo %s\nexit %d\n", word, code);
	assert_int_equal(file_write_atomic(path, text, strlen(text), 0755), 0);
}

static void test_words(void **state)
{
	systemctl_says("running", 0);
	assert_false(host_going_down(dir));
	systemctl_says("degraded", 1);
	assert_false(host_going_down(dir));
	systemctl_says("stopping", 1);
	assert_true(host_going_down(dir));
	assert_false(host_going_down("/no/such/folder"));
}

static void test_no_answer(void **state)
{
	systemctl_says("", 1);
	assert_false(host_going_down(dir));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_words), cmocka_unit_test(test_no_answer)};
	char path[512];

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s:%s", dir, getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin");
	setenv("PATH", path, 1);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	dir_remove(dir);
	return failed;
}
