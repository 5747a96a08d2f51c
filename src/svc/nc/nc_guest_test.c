/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node controller with a real guest of one boot sector, a real network and the real libvirtd.
 * Needs root and a running libvirtd; skipped (77) without, unless MALLEE_GUEST_TESTS=required.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "hyper/host.h"
#include "os/file.h"
#include "svc/nc/nc_fixture.h"

#define DISK_LEN (1 << 20)

/* Prints "mallee" on the serial port, then waits for ever. */
static const unsigned char boot_sector[] = {
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x16, 0x7c, 0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74,
    0x03, 0xee, 0xeb, 0xf8, 0xf4, 0xeb, 0xfd, 'm',  'a',  'l',	'l',  'e',  'e',  '\n', 0,
};

static char subnet[32];

static int setup(void **state)
{
	unsigned char *image = calloc(1, DISK_LEN);
	struct error e = {0};

	memcpy(image, boot_sector, sizeof(boot_sector));
	image[510] = 0x55;
	image[511] = 0xaa;
	if (net_choose_subnet(subnet, sizeof(subnet), &e) < 0)
		fail_msg("%s", e.message);
	*state = fixture_new("tcg", subnet, image, DISK_LEN);
	free(image);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char net_dir[96];
	struct error e = {0};

	/* Also when the test has failed: a host that a test leaves in disorder spoils the next one. */
	for (int i = 1; i <= 2; i++)
		if (fixture_observe(f, i)) {
			fixture_apply(f, i, "terminated");
			fixture_await(f, i, "terminated");
		}
	nc_stop(f->nc);
	f->nc = NULL;
	snprintf(net_dir, sizeof(net_dir), "%s/nc/net", f->dir);
	if (net_uninstall(net_dir, &e) < 0)
		print_error("%s\n", e.message);
	fixture_free(f);
	return 0;
}

/* An address of the subnet that was chosen, which is at least a /28. */
static void launch(struct fixture *f, int number)
{
	struct shared_instance_spec s = fixture_spec(f, number, "running");
	unsigned int a, b, c, d;

	assert_int_equal(sscanf(subnet, "%u.%u.%u.%u/", &a, &b, &c, &d), 4);
	s.private_ip = arena_printf(f->arena, "%u.%u.%u.%u", a, b, c, d + 4 + (unsigned int)number);
	s.mac_address = arena_printf(f->arena, "02:00:00:00:00:%02x", number);
	s.private_dns_name = arena_printf(f->arena, "ip-%u-%u-%u-%u.ec2.internal", a, b, c,
					  d + 4 + (unsigned int)number);
	fixture_apply_spec(f, &s);
}

static void await_console(struct fixture *f, const char *id, int times)
{
	struct shared_get_console_output_request in = {.instance_id = id};
	int64_t end = clock_mono_ms() + 60000;

	for (;;) {
		struct shared_get_console_output_response *out =
		    fixture_call(f, "GetConsoleOutput", &in);
		const char *at = out->output.data, *stop = at + out->output.len;
		int found = 0;

		while (at < stop && (at = memmem(at, (size_t)(stop - at), "mallee\n", 7))) {
			found++;
			at += 7;
		}
		if (found == times)
			return;
		if (clock_mono_ms() > end)
			fail_msg("the console shows %d boots, not %d", found, times);
		usleep(100000);
	}
}

static void await_restarts(struct fixture *f, int64_t want)
{
	for (int i = 0; metrics_get(f->nc->metrics, NC_M_RESTARTS) != want; i++) {
		assert_true(i < 600);
		usleep(100000);
	}
}

static void test_life(void **state)
{
	struct fixture *f = *state;
	const char *id = "i-00000000000000001";
	char path[160];
	struct stat st;

	launch(f, 1);
	fixture_await(f, 1, "running");
	await_console(f, id, 1);
	nc_instance_path(f->nc, id, "root.raw", path, sizeof(path));
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_uid >= f->nc->uid_base && st.st_uid < f->nc->uid_base + NC_REAL_SLOTS);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_true(st.st_blocks * 512 >= 4 << 20);
	/* It answers no ARP. */
	assert_string_equal(fixture_observe(f, 1)->reachability, "initializing");

	fixture_restart_node(f); /* the guest does not notice */
	fixture_await(f, 1, "running");
	usleep(500000);
	await_console(f, id, 1);
	assert_int_equal(metrics_get(f->nc->metrics, NC_M_RESTARTS), 0);

	fixture_apply(f, 1, "terminated");
	fixture_await(f, 1, "terminated");
	assert_false(fixture_has_file(f, 1, ""));
}

static void kill_qemu(const char *name)
{
	_cleanup_(freep) char *text = NULL;
	char path[128];
	size_t len;

	snprintf(path, sizeof(path), "/run/libvirt/qemu/%s.pid", name);
	assert_int_equal(file_read(path, 32, &text, &len), 0);
	assert_true(atoi(text) > 1);
	assert_int_equal(kill(atoi(text), SIGKILL), 0);
}

static void test_crash_and_drain(void **state)
{
	struct fixture *f = *state;
	const char *id = "i-00000000000000002";
	char name[64];
	struct error e = {0};
	struct hyper_status st;

	launch(f, 2);
	fixture_await(f, 2, "running");
	await_console(f, id, 1);
	nc_domain_name(f->nc, id, name);

	/* As when QEMU dies: it is started again, after the pause that follows a fresh start. */
	kill_qemu(name);
	await_restarts(f, 1);
	await_console(f, id, 2);

	/* It has no ACPI: off by force when its time is over; disk and console stay. */
	fixture_hold(f, true, 1);
	for (int i = 0;; i++) {
		assert_int_equal(f->nc->ops->status(f->nc->hyper, name, &st, &e), 0);
		if (st.state == HYPER_ABSENT)
			break;
		assert_true(i < 200);
		usleep(100000);
	}
	assert_true(fixture_has_file(f, 2, "/root.raw"));
	fixture_hold(f, false, 0);
	await_console(f, id, 3);
	assert_string_equal(fixture_observe(f, 2)->state, "running");
}

static int why_not(void)
{
	const char *mode = getenv("MALLEE_GUEST_TESTS");
	const char *why = NULL;

	if (geteuid() != 0)
		why = "not root";
	else if (access("/run/libvirt/libvirt-sock", F_OK) != 0)
		why = "libvirtd does not run";
	if (!why)
		return 0;
	printf("svc_nc/nc_guest: %s\n", why);
	return mode && strcmp(mode, "required") == 0 ? 1 : 77;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_life, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_crash_and_drain, setup, teardown),
	};
	int r = why_not();

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
