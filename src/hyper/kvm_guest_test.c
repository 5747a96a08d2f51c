/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kvm driver against the real libvirtd, with a guest of one boot sector: prints a line on the
 * serial port, then waits for ever or switches itself off. Needs root and a running libvirtd;
 * skipped (77) without, unless MALLEE_GUEST_TESTS=required.
 */
#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "hyper/driver.h"
#include "hyper/host.h"
#include "os/file.h"
#include "os/spawn.h"

#define UID 1999999001u
#define DISK_SIZE (1 << 20)

extern const char boot_halt[], boot_halt_end[], boot_off[], boot_off_end[];

__asm__(".pushsection .rodata\n"
	".macro say_hello\n"
	"	cli\n"
	"	xor %ax, %ax\n"
	"	mov %ax, %ds\n"
	"	mov %ax, %ss\n"
	"	mov $0x8000, %sp\n"
	"	call 1f\n"
	"1:	pop %si\n"
	"	add $(3f - 1b), %si\n"
	"	mov $0x3f8, %dx\n"
	"2:	lodsb\n"
	"	test %al, %al\n"
	"	jz 4f\n"
	"	out %al, %dx\n"
	"	jmp 2b\n"
	"3:	.asciz \"hello from a boot sector\\r\\n\"\n"
	"4:\n"
	".endm\n"
	".code16\n"
	"boot_halt:\n"
	"	say_hello\n"
	"5:	hlt\n"
	"	jmp 5b\n"
	"boot_halt_end:\n"
	"boot_off:\n"
	"	say_hello\n"
	"	mov $0x604, %dx\n" /* q35: ACPI's PM1a control, sleep enable, S5 */
	"	mov $0x2000, %ax\n"
	"	out %ax, %dx\n"
	"6:	hlt\n"
	"	jmp 6b\n"
	"boot_off_end:\n"
	".code64\n"
	".popsection\n");

struct fixture {
	char dir[64], name[64], root[96], keep[96], gone[96], console[96], tap[16], uuid[40];
	struct hyper *h;
	struct hyper_machine m;
	atomic_int told;
};

static const struct hyper_ops *const ops = &hyper_kvm_ops;

static void count_call(void *ctx, const char *name)
{
	atomic_fetch_add((atomic_int *)ctx, 1);
}

static void write_disk(const struct fixture *f, const char *code, size_t len)
{
	_cleanup_(freep) char *disk = calloc(1, DISK_SIZE); /* the BIOS boots no smaller ones */

	assert_non_null(disk);
	assert_true(len < 510);
	memcpy(disk, code, len);
	disk[510] = 0x55;
	disk[511] = (char)0xaa;
	assert_int_equal(file_write_atomic(f->root, disk, DISK_SIZE, 0600), 0);
	assert_int_equal(chown(f->root, UID, UID), 0);
}

static void write_file(const char *path)
{
	_cleanup_(freep) char *disk = calloc(1, DISK_SIZE);

	assert_non_null(disk);
	assert_int_equal(file_write_atomic(path, disk, DISK_SIZE, 0600), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct hyper_config c = {.cloud_id = "drvtest", .accel = HYPER_ACCEL_TCG};
	struct error e = {0};
	unsigned int n = (unsigned int)getpid();

	strcpy(f->dir, "/tmp/mallee-guest-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	chmod(f->dir, 0711);
	c.run_dir = f->dir;
	snprintf(f->name, sizeof(f->name), "mallee-drvtest-i-%017u", n);
	snprintf(f->uuid, sizeof(f->uuid), "ec2d0000-0000-4000-8000-%012u", n);
	snprintf(f->root, sizeof(f->root), "%s/root.raw", f->dir);
	snprintf(f->keep, sizeof(f->keep), "%s/keep.raw", f->dir);
	snprintf(f->gone, sizeof(f->gone), "%s/gone.raw", f->dir);
	snprintf(f->console, sizeof(f->console), "%s/console.log", f->dir);
	snprintf(f->tap, sizeof(f->tap), "mltt%u", n);
	assert_int_equal(run_command(&e, "ip", "tuntap", "add", "dev", f->tap, "mode", "tap", NULL),
			 0);
	f->m = (struct hyper_machine){
	    .name = f->name,
	    .instance_id = f->name + 15,
	    .uuid = f->uuid,
	    .vcpus = 1,
	    .memory_mib = 64,
	    .root_path = f->root,
	    .tap = f->tap,
	    .mac = "02:00:00:00:00:01",
	    .console_path = f->console,
	    .uid = UID,
	    .gid = hyper_qemu_gid(HYPER_ACCEL_TCG, UID),
	};
	assert_int_equal(ops->open(&c, &f->h, &e), 0);
	ops->watch(f->h, count_call, &f->told);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};

	ops->destroy(f->h, f->name, &e);
	ops->close(f->h);
	run_command(&e, "ip", "link", "del", f->tap, NULL);
	dir_remove(f->dir);
	free(f);
	return 0;
}

static void wait_state(struct fixture *f, enum hyper_state want)
{
	int64_t end = clock_mono_ms() + 30000;
	struct hyper_status st;
	struct error e = {0};

	do {
		if (ops->status(f->h, f->name, &st, &e) < 0)
			fail_msg("%s", e.message);
		if (st.state == want)
			return;
		usleep(50000);
	} while (clock_mono_ms() < end);
	fail_msg("the guest is in state %d, not %d", st.state, want);
}

static void wait_console(struct fixture *f, const char *want)
{
	int64_t end = clock_mono_ms() + 30000;

	for (;;) {
		_cleanup_(freep) char *text = NULL;
		size_t len;

		if (file_read(f->console, 1 << 20, &text, &len) == 0 && strstr(text, want))
			return;
		if (clock_mono_ms() > end)
			fail_msg("the console shows no \"%s\" but \"%s\"", want, text ? text : "");
		usleep(50000);
	}
}

/* The user id of the QEMU that has this name in its arguments; 0 when there is none. */
static uid_t qemu_uid(const struct fixture *f)
{
	struct buf out = BUF_INIT;
	struct error e = {0};
	unsigned int uid = 0;

	(void)run_command_output(&out, &e, "pgrep", "-f", f->name,
				 NULL); /* fails when there is none */
	for (char *line = out.data; line && *line;
	     line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		_cleanup_(freep) char *text = NULL;
		char path[64];
		size_t len;

		snprintf(path, sizeof(path), "/proc/%d/status", atoi(line));
		if (file_read(path, 1 << 16, &text, &len) == 0 && strstr(text, "Name:\tqemu"))
			assert_int_equal(sscanf(strstr(text, "\nUid:"), "\nUid: %u", &uid), 1);
	}
	buf_done(&out);
	return uid;
}

static void test_life(void **state)
{
	struct fixture *f = *state;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct hyper_status *list, st;
	struct error e = {0};
	struct stat root;
	size_t count;

	write_disk(f, boot_halt, (size_t)(boot_halt_end - boot_halt));
	if (ops->start(f->h, &f->m, &e) < 0)
		fail_msg("%s", e.message);
	wait_state(f, HYPER_RUNNING);
	wait_console(f, "hello from a boot sector");
	assert_int_equal(qemu_uid(f), UID);
	assert_int_equal(ops->start(f->h, &f->m, &e), 0); /* it runs: nothing happens */
	assert_int_equal(ops->list(f->h, a, &list, &count, &e), 0);
	assert_true(count >= 1);
	assert_true(f->told >= 1);

	assert_int_equal(ops->destroy(f->h, f->name, &e), 0);
	assert_int_equal(ops->status(f->h, f->name, &st, &e), 0);
	assert_int_equal(st.state, HYPER_ABSENT);
	assert_int_equal(stat(f->root, &root), 0);
	assert_int_equal(root.st_mode & 0777, 0600);
	assert_int_equal(ops->destroy(f->h, f->name, &e), 0);
	assert_int_equal(qemu_uid(f), 0);
}

static void test_guest_switches_itself_off(void **state)
{
	struct fixture *f = *state;
	struct hyper_status st;
	struct error e = {0};

	write_disk(f, boot_off, (size_t)(boot_off_end - boot_off));
	if (ops->start(f->h, &f->m, &e) < 0)
		fail_msg("%s", e.message);
	wait_state(f, HYPER_OFF);
	assert_int_equal(ops->status(f->h, f->name, &st, &e), 0);
	assert_int_equal(st.off_reason, HYPER_OFF_GUEST);
	wait_console(f, "hello from a boot sector");

	/* Started again, the console is continued. */
	if (ops->start(f->h, &f->m, &e) < 0)
		fail_msg("%s", e.message);
	wait_console(f, "hello from a boot sector\r\nhello from a boot sector");
}

/* -1: not there */
static int disk_state(struct fixture *f, const char *serial)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct hyper_disk_status *list;
	struct error e = {0};
	size_t count;

	if (ops->disk_list(f->h, f->name, a, &list, &count, &e) < 0)
		fail_msg("%s", e.message);
	for (size_t i = 0; i < count; i++)
		if (strcmp(list[i].serial, serial) == 0)
			return (int)list[i].state;
	return -1;
}

/* This guest hears nothing, so it lets go of no disk. */
static void test_a_disk_is_taken_by_force(void **state)
{
	struct fixture *f = *state;
	struct hyper_disk keep = {.path = f->keep, .serial = "keep", .slot = 8};
	struct hyper_disk gone = {.path = f->gone, .serial = "gone", .slot = 0};
	struct error e = {0};

	write_disk(f, boot_halt, (size_t)(boot_halt_end - boot_halt));
	write_file(f->keep);
	write_file(f->gone);
	if (ops->start(f->h, &f->m, &e) < 0 ||
	    ops->disk_attach(f->h, f->name, &keep, &e) < 0 ||
	    ops->disk_attach(f->h, f->name, &gone, &e) < 0)
		fail_msg("%s", e.message);
	for (int i = 0; i < 3; i++) { /* asked again and again */
		if (ops->disk_detach(f->h, f->name, "gone", false, &e) < 0)
			fail_msg("%s", e.message);
		usleep(200000);
		assert_int_equal(disk_state(f, "gone"), HYPER_DISK_DETACHING);
	}
	assert_int_equal(ops->disk_attach(f->h, f->name, &gone, &e), -EBUSY);
	error_clear(&e);
	if (ops->disk_detach(f->h, f->name, "gone", true, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(disk_state(f, "gone"), -1);
	assert_int_equal(disk_state(f, "keep"), HYPER_DISK_ATTACHED);
	wait_state(f, HYPER_RUNNING);
	if (ops->disk_attach(f->h, f->name, &gone, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(disk_state(f, "gone"), HYPER_DISK_ATTACHED);
	/* The boot disk of a machine that names none is not on the list. */
	assert_int_equal(disk_state(f, "root"), -1);
}

/* Whoever took the disk was killed while the guest stood still. */
static void test_a_guest_does_not_stay_paused(void **state)
{
	struct fixture *f = *state;
	virConnectPtr conn = virConnectOpen("qemu:///system");
	struct error e = {0};
	virDomainPtr dom;
	char *text = NULL;

	write_disk(f, boot_halt, (size_t)(boot_halt_end - boot_halt));
	if (ops->start(f->h, &f->m, &e) < 0)
		fail_msg("%s", e.message);
	dom = virDomainLookupByName(conn, f->name);
	assert_non_null(dom);
	assert_int_equal(virDomainQemuMonitorCommand(
			     dom,
			     "{\"execute\":\"chardev-add\",\"arguments\":{\"id\":\"mallee-ejecting\","
			     "\"backend\":{\"type\":\"null\",\"data\":{}}}}",
			     &text, 0),
			 0);
	assert_int_equal(virDomainSuspend(dom), 0);
	wait_state(f, HYPER_PAUSED);
	assert_int_equal(disk_state(f, "none"), -1);
	wait_state(f, HYPER_RUNNING);
	assert_int_equal(virDomainSuspend(dom), 0); /* somebody else: not ours to resume */
	assert_int_equal(disk_state(f, "none"), -1);
	wait_state(f, HYPER_PAUSED);
	free(text);
	virDomainFree(dom);
	virConnectClose(conn);
}

static void test_errors_have_words(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};

	write_disk(f, boot_halt, (size_t)(boot_halt_end - boot_halt));
	f->m.root_path = "/nonexistent/root.raw";
	assert_int_equal(ops->start(f->h, &f->m, &e), -EREMOTEIO);
	if (!strstr(e.message, "/nonexistent/root.raw"))
		fail_msg("%s", e.message);
	error_clear(&e);
	assert_int_equal(ops->destroy(f->h, "debian12", &e), -EPERM);
	error_clear(&e);
	assert_int_equal(ops->shutdown(f->h, "mallee-drvtest-i-0", &e), -ENOENT);
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
	printf("hyper/kvm_guest: %s\n", why);
	return mode && strcmp(mode, "required") == 0 ? 1 : 77;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_life, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_guest_switches_itself_off, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_a_disk_is_taken_by_force, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_a_guest_does_not_stay_paused, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_errors_have_words, setup, teardown),
	};
	int r = why_not();

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
