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
	struct hyper_machine m = {.name = name,
				  .instance_id = id,
				  .console_path = console,
				  .root_path = "/root.raw"};

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

/* Told is what has happened, a moment later. */
static void wait_told(struct fixture *f, int count)
{
	int64_t end = clock_mono_ms() + 5000;

	while (f->told < count) {
		assert_true(clock_mono_ms() < end);
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
	wait_told(f, 2);
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

#define M1 "mallee-test-i-00000000000000001"
#define VOL "vol0123456789abcdef0"

static const struct hyper_disk disk = {
    .kind = HYPER_DISK_VHOST_USER, .path = "/run/vol.sock", .serial = VOL, .slot = 3};

/* -1: not there */
static int disk_state(struct fixture *f, const char *serial, int slot)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct hyper_disk_status *list;
	struct error e = {0};
	size_t count;

	assert_int_equal(ops->disk_list(f->h, M1, a, &list, &count, &e), 0);
	for (size_t i = 0; i < count; i++)
		if (strcmp(list[i].serial, serial) == 0) {
			assert_int_equal(list[i].slot, slot);
			return (int)list[i].state;
		}
	return -1;
}

static void wait_disk_gone(struct fixture *f)
{
	int64_t end = clock_mono_ms() + 5000;

	while (disk_state(f, VOL, 3) >= 0) {
		assert_true(clock_mono_ms() < end);
		usleep(5000);
	}
}

static void test_disks(void **state)
{
	struct fixture *f = *state;
	struct hyper_disk other = disk;
	struct error e = {0};
	int told;

	assert_int_equal(ops->disk_attach(f->h, M1, &disk, &e), -ENOENT);
	assert_int_equal(start(f, 1, &e), 0);
	wait_state(f, 1, HYPER_RUNNING);
	assert_int_equal(ops->disk_attach(f->h, M1, &disk, &e), 0);
	assert_int_equal(ops->disk_attach(f->h, M1, &disk, &e), 0);
	other.serial = "vol-b";
	assert_int_equal(ops->disk_attach(f->h, M1, &other, &e), -EEXIST);
	other = disk;
	other.slot = 4;
	assert_int_equal(ops->disk_attach(f->h, M1, &other, &e), -EEXIST);
	other.serial = "vol-b";
	assert_int_equal(ops->disk_attach(f->h, M1, &other, &e), 0);
	reopen(f);
	assert_int_equal(disk_state(f, VOL, 3), HYPER_DISK_ATTACHED);

	told = f->told;
	assert_int_equal(ops->disk_detach(f->h, M1, VOL, false, &e), 0);
	assert_int_equal(disk_state(f, VOL, 3), HYPER_DISK_DETACHING);
	assert_int_equal(ops->disk_attach(f->h, M1, &disk, &e), -EBUSY);
	wait_disk_gone(f);
	wait_told(f, told + 1);
	assert_int_equal(disk_state(f, "vol-b", 4), HYPER_DISK_ATTACHED);
	assert_int_equal(ops->disk_detach(f->h, M1, VOL, false, &e), 0);
	assert_int_equal(ops->destroy(f->h, M1, &e), 0);
	assert_int_equal(disk_state(f, "vol-b", 4), -1);
}

static void test_a_guest_that_keeps_its_disks(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};

	write_conf(f, "* keeps-disks\n");
	assert_int_equal(start(f, 1, &e), 0);
	assert_int_equal(ops->disk_attach(f->h, M1, &disk, &e), 0);
	assert_int_equal(ops->disk_detach(f->h, M1, VOL, false, &e), 0);
	usleep(300000);
	assert_int_equal(disk_state(f, VOL, 3), HYPER_DISK_DETACHING);
	reopen(f);
	assert_int_equal(disk_state(f, VOL, 3), HYPER_DISK_DETACHING);
	assert_int_equal(ops->disk_detach(f->h, M1, VOL, true, &e), 0);
	assert_int_equal(disk_state(f, VOL, 3), -1);

	assert_int_equal(ops->disk_attach(f->h, M1, &disk, &e), 0);
	assert_int_equal(ops->disk_detach(f->h, M1, VOL, false, &e), 0);
	write_conf(f, "* attach-fails\n");
	wait_disk_gone(f);
	assert_int_equal(ops->disk_attach(f->h, M1, &disk, &e), -EREMOTEIO);
	write_conf(f, "* attach-unreachable\n");
	assert_int_equal(ops->disk_attach(f->h, M1, &disk, &e), -ENOTCONN);
}

static void test_disks_from_the_start(void **state)
{
	struct fixture *f = *state;
	struct hyper_disk disks[] = {disk, {.path = "/r", .serial = "vol-root", .boot = true}};
	struct hyper_machine m = {.name = M1,
				  .instance_id = "i-00000000000000001",
				  .console_path = "/dev/null",
				  .disks = disks,
				  .disk_count = 2};
	struct error e = {0};

	assert_int_equal(ops->start(f->h, &m, &e), 0);
	assert_int_equal(disk_state(f, VOL, 3), HYPER_DISK_ATTACHED);
	assert_int_equal(disk_state(f, "vol-root", -1), HYPER_DISK_ATTACHED);
	assert_int_equal(ops->disk_detach(f->h, M1, "vol-root", true, &e), -EPERM);
	m.root_path = "/two";
	assert_int_equal(ops->start(f->h, &m, &e), -EINVAL);
}

static void test_foreign_names_are_refused(void **state)
{
	struct fixture *f = *state;
	struct hyper_machine m = {
	    .name = "debian12", .instance_id = "i-1", .console_path = "/dev/null", .root_path = "/r"};
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
	    cmocka_unit_test_setup_teardown(test_disks, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_a_guest_that_keeps_its_disks, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_disks_from_the_start, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_foreign_names_are_refused, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_ten_thousand, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
