/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "hyper/driver.h"
#include "os/file.h"

struct fixture {
	char dir[64];
	struct hyper *h;
	atomic_int told;
};

static const struct hyper_ops *const ops = &hyper_fake_ops;

static void count_call(void *ctx, const char *name)
{
	atomic_fetch_add((atomic_int *)ctx, 1);
}

static void reopen(struct fixture *f)
{
	struct hyper_config c = {.cloud_id = "test", .run_dir = f->dir, .accel = HYPER_ACCEL_NONE};
	struct error e = {0};

	ops->close(f->h);
	f->h = NULL;
	assert_int_equal(ops->open(&c, &f->h, &e), 0);
	ops->watch(f->h, count_call, &f->told);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/mallee-fake-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	reopen(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	ops->close(f->h);
	dir_remove(f->dir);
	free(f);
	return 0;
}

static void write_conf(struct fixture *f, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/fake.conf", f->dir);
	assert_int_equal(file_write_atomic(path, text, strlen(text), 0600), 0);
}

static int start(struct fixture *f, int number, struct error *e)
{
	char name[64], id[32], console[128];
	struct hyper_machine m = {.name = name, .instance_id = id, .console_path = console};

	snprintf(id, sizeof(id), "i-%017d", number);
	snprintf(name, sizeof(name), "mallee-test-%s", id);
	snprintf(console, sizeof(console), "%s/console.log", f->dir);
	return ops->start(f->h, &m, e);
}

static struct hyper_status status(struct fixture *f, int number)
{
	struct hyper_status st;
	struct error e = {0};
	char name[64];

	snprintf(name, sizeof(name), "mallee-test-i-%017d", number);
	assert_int_equal(ops->status(f->h, name, &st, &e), 0);
	return st;
}

static void wait_state(struct fixture *f, int number, enum hyper_state want)
{
	int64_t end = clock_mono_ms() + 5000;

	while (status(f, number).state != want) {
		if (clock_mono_ms() > end)
			fail_msg("machine %d is in state %d, not %d", number,
				 status(f, number).state, want);
		usleep(5000);
	}
}

static void test_life(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};
	const char *name = "mallee-test-i-00000000000000001";

	assert_int_equal(status(f, 1).state, HYPER_ABSENT);
	assert_int_equal(start(f, 1, &e), 0);
	wait_state(f, 1, HYPER_RUNNING);
	assert_int_equal(start(f, 1, &e), 0); /* again: nothing happens */
	assert_int_equal(status(f, 1).state, HYPER_RUNNING);
	assert_int_equal(ops->shutdown(f->h, name, &e), 0);
	wait_state(f, 1, HYPER_OFF);
	assert_int_equal(status(f, 1).off_reason, HYPER_OFF_GUEST);
	assert_int_equal(ops->destroy(f->h, name, &e), 0);
	assert_int_equal(status(f, 1).state, HYPER_ABSENT);
	assert_int_equal(ops->destroy(f->h, name, &e), 0);
	assert_true(ops->shutdown(f->h, name, &e) < 0);
	assert_true(f->told >= 2);
}

static void test_machines_outlive_the_driver(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};

	assert_int_equal(start(f, 1, &e), 0);
	wait_state(f, 1, HYPER_RUNNING);
	assert_int_equal(start(f, 2, &e), 0);
	reopen(f); /* before the second one ran */
	assert_int_equal(status(f, 1).state, HYPER_RUNNING);
	wait_state(f, 2, HYPER_RUNNING);
}

static void test_rules(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};
	struct hyper_host host;

	write_conf(f, "i-00000000000000001 start-fails # for good\n"
		      "i-00000000000000002 start-unreachable\n"
		      "i-00000000000000003 ignores-shutdown\n"
		      "nonsense\nhost vcpus=4 memory_mib=2048\n");
	assert_int_equal(start(f, 1, &e), -EREMOTEIO);
	error_clear(&e);
	assert_int_equal(start(f, 2, &e), -ENOTCONN);
	assert_string_equal(e.code, "ServiceUnavailable");
	assert_int_equal(start(f, 3, &e), 0);
	wait_state(f, 3, HYPER_RUNNING);
	assert_int_equal(ops->shutdown(f->h, "mallee-test-i-00000000000000003", &e), 0);
	usleep(300000);
	assert_int_equal(status(f, 3).state, HYPER_RUNNING);
	ops->host(f->h, &host);
	assert_int_equal(host.vcpus, 4);
	assert_int_equal(host.memory_mib, 2048);
	assert_true(host.disk_mib > 2048);

	write_conf(f, "* crashes\n");
	wait_state(f, 3, HYPER_OFF);
	assert_int_equal(status(f, 3).off_reason, HYPER_OFF_CRASHED);
}

static void test_foreign_names_are_refused(void **state)
{
	struct fixture *f = *state;
	struct hyper_machine m = {
	    .name = "debian12", .instance_id = "i-1", .console_path = "/dev/null"};
	struct error e = {0};

	assert_int_equal(ops->start(f->h, &m, &e), -EPERM);
}

static void test_ten_thousand(void **state)
{
	struct fixture *f = *state;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct hyper_status *list;
	struct error e = {0};
	int64_t begin = clock_mono_ms();
	size_t count;

	for (int i = 0; i < 10000; i++)
		assert_int_equal(start(f, i, &e), 0);
	wait_state(f, 9999, HYPER_RUNNING);
	assert_int_equal(ops->list(f->h, a, &list, &count, &e), 0);
	assert_int_equal(count, 10000);
	assert_true(clock_mono_ms() - begin < 60000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_life, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_machines_outlive_the_driver, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_rules, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_foreign_names_are_refused, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_ten_thousand, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
