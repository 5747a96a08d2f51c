/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks of a running guest: Linux (the tiny image, whose init is told to run our script), with
 * vhost-user disks served by mallee-blockd. The script takes up each disk as its serial shows up,
 * writes and compares block after block past the cache, and says on the console how far it is; the
 * disks are plugged, unplugged and their servers killed meanwhile.
 *
 * Needs root, a running libvirtd and the tiny image; skipped (77) without, unless
 * MALLEE_GUEST_TESTS=required. MALLEE_TINY_IMAGE names another image than that of the build.
 */
#include <errno.h>
#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "hyper/driver.h"
#include "hyper/host.h"
#include "os/file.h"
#include "os/spawn.h"

#define UID 1999999002u
#define COLD "vol0123456789abcdef0"
#define HOT "vol0123456789abcdef1"
#define PLAIN "vol-plain"
#define DISK_BYTES (16 << 20)
#define WAIT_MS 300000 /* of a guest under emulation, on a host that does other things, too */

static const char script[] =
    "#!/bin/sh\n"
    "say() { echo \"guest: $*\" > /dev/ttyS0; }\n"
    /* An error as the disk is being taken away is none. */
    "wrong() {\n"
    "	i=0\n"
    "	while [ $((i += 1)) -le 20 ]; do sleep 1; [ -e /sys/block/$1 ] || return; done\n"
    "	say \"$2 ERROR $3\"\n"
    "}\n"
    /* A node of its own: dd to one in /dev that is no more would make a plain file there. */
    "work() {\n"
    "	n=0\n"
    "	node=/tmp/node-$2\n"
    "	rm -f $node\n"
    "	mknod $node b $(tr : ' ' < /sys/block/$1/dev)\n"
    "	while [ -e /sys/block/$1 ]; do\n"
    "		n=$((n + 1))\n"
    "		echo \"$2 $n\" | dd of=$node bs=4096 seek=$((n % 512)) conv=sync oflag=direct 2> /dev/null ||\n"
    "			wrong $1 $2 write\n"
    "		got=$(dd if=$node bs=4096 skip=$((n % 512)) count=1 iflag=direct 2> /dev/null | head -n 1)\n"
    "		[ \"$got\" = \"$2 $n\" ] || wrong $1 $2 read\n"
    "		[ $((n % 5)) = 0 ] && say \"$2 at $n of $(($(cat /sys/block/$1/size) / 2048)) MiB\"\n"
    "	done\n"
    "	rm /tmp/$1\n"
    "	say \"$2 gone\"\n"
    "}\n"
    "mount -t proc proc /proc\n"
    "mount -t sysfs sys /sys\n"
    "mount -t tmpfs tmp /tmp\n"
    "echo 1 > /proc/sys/kernel/printk\n"
    "say up\n"
    "while :; do\n"
    "	for disk in /sys/block/vd*; do\n"
    "		name=${disk##*/}\n"
    "		serial=\n"
    "		[ -e /tmp/$name ] || read -r serial < $disk/serial\n"
    "		case \"$serial\" in vol*)\n"
    "			touch /tmp/$name\n"
    "			say \"$serial is $(($(cat $disk/size) / 2048)) MiB, cache $(cat $disk/queue/write_cache)\"\n"
    "			work $name $serial &\n"
    "		esac\n"
    "	done\n"
    "	usleep 200000\n"
    "done\n";

struct server {
	char path[96], image[96], serial[24];
	pid_t pid;
};

struct fixture {
	char dir[64], name[64], root[96], console[96], tap[16], uuid[40], plain[96];
	struct hyper *h;
	struct hyper_machine m;
	struct hyper_disk disks[2];
	struct server cold, hot;
	atomic_int told;
};

static const struct hyper_ops *const ops = &hyper_kvm_ops;

static const char *tiny_image(void)
{
	const char *path = getenv("MALLEE_TINY_IMAGE");

	return path ? path : TINY_IMAGE;
}

static void count_call(void *ctx, const char *name)
{
	atomic_fetch_add((atomic_int *)ctx, 1);
}

/* The image with our script in the place of its start-up. Its one partition begins at 1 MiB. */
static void make_root(struct fixture *f)
{
	static const char inittab[] = "::sysinit:/disk-test\n";
	char tab[96], code[96], commands[96], at[128];
	_cleanup_(freep) char *text = NULL;
	struct error e = {0};

	snprintf(tab, sizeof(tab), "%s/inittab", f->dir);
	snprintf(code, sizeof(code), "%s/disk-test", f->dir);
	snprintf(commands, sizeof(commands), "%s/commands", f->dir);
	snprintf(at, sizeof(at), "%s?offset=1048576", f->root);
	assert_int_equal(file_write_atomic(tab, inittab, strlen(inittab), 0644), 0);
	assert_int_equal(file_write_atomic(code, script, strlen(script), 0755), 0);
	assert_true(asprintf(&text,
			     "rm /etc/inittab\nwrite %s /etc/inittab\nwrite %s /disk-test\n"
			     "set_inode_field /disk-test mode 0100755\n",
			     tab, code) > 0);
	assert_int_equal(file_write_atomic(commands, text, strlen(text), 0600), 0);
	if (run_command(&e, "cp", "--sparse=always", tiny_image(), f->root, NULL) < 0 ||
	    run_command(&e, "/sbin/debugfs", "-w", "-f", commands, at, NULL) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(chown(f->root, UID, UID), 0);
}

static void make_disk(const char *path)
{
	FILE *disk = fopen(path, "w");

	assert_non_null(disk);
	assert_int_equal(ftruncate(fileno(disk), DISK_BYTES), 0);
	fclose(disk);
	assert_int_equal(chown(path, UID, UID), 0);
}

static void serve(struct fixture *f, struct server *s)
{
	_cleanup_(freep) char *back = NULL, *front = NULL, *log = NULL, *user = NULL, *control = NULL;
	int64_t end = clock_mono_ms() + 10000;
	struct error e = {0};
	struct stat st;

	assert_true(asprintf(&back, "file:path=%s", s->image) > 0);
	assert_true(asprintf(&front, "vhost-user:socket=%s,serial=%s,seg-max=254", s->path, s->serial) > 0);
	assert_true(asprintf(&log, "%s/blockd.log", f->dir) > 0);
	assert_true(asprintf(&user, "%u:%u", UID, UID) > 0);
	assert_true(asprintf(&control, "%s.control", s->path) > 0);
	const char *argv[] = {BLOCKD, "--user",  user,	"--back",    back,
			      "--front", front, "--control", control, NULL};
	struct spawn spawn = {.argv = argv, .log_path = log};

	unlink(s->path);
	if (spawn_start(&spawn, &s->pid, &e) < 0)
		fail_msg("%s", e.message);
	while (stat(s->path, &st) < 0) {
		assert_true(clock_mono_ms() < end);
		usleep(10000);
	}
}

static void stop(struct server *s)
{
	if (s->pid <= 0)
		return;
	kill(s->pid, SIGKILL);
	waitpid(s->pid, NULL, 0);
	s->pid = 0;
}

static void make_server(struct fixture *f, struct server *s, const char *serial)
{
	snprintf(s->serial, sizeof(s->serial), "%s", serial);
	snprintf(s->image, sizeof(s->image), "%s/%s.raw", f->dir, serial);
	make_disk(s->image);
	serve(f, s);
}

/* What can go wrong is done in the tests, so that it is cleared away. */
static void prepare(struct fixture *f)
{
	make_root(f);
	make_disk(f->plain);
	make_server(f, &f->cold, COLD);
	make_server(f, &f->hot, HOT);
}

static void open_driver(struct fixture *f)
{
	struct hyper_config c = {
	    .cloud_id = "dsktest", .accel = HYPER_ACCEL_TCG, .run_dir = f->dir};
	struct error e = {0};

	if (ops->open(&c, &f->h, &e) < 0)
		fail_msg("%s", e.message);
	ops->watch(f->h, count_call, &f->told);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error e = {0};
	unsigned int n = (unsigned int)getpid();

	*state = f;
	strcpy(f->dir, "/var/tmp/mallee-disk-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(chown(f->dir, UID, UID), 0);
	chmod(f->dir, 0711);
	snprintf(f->name, sizeof(f->name), "mallee-dsktest-i-%017u", n);
	snprintf(f->uuid, sizeof(f->uuid), "ec2d0001-0000-4000-8000-%012u", n);
	snprintf(f->root, sizeof(f->root), "%s/root.raw", f->dir);
	snprintf(f->plain, sizeof(f->plain), "%s/plain.raw", f->dir);
	snprintf(f->console, sizeof(f->console), "%s/console.log", f->dir);
	snprintf(f->tap, sizeof(f->tap), "mltd%u", n);
	if (run_command(&e, "ip", "tuntap", "add", "dev", f->tap, "mode", "tap", NULL) < 0)
		fail_msg("%s", e.message);
	snprintf(f->cold.path, sizeof(f->cold.path), "%s/%s.sock", f->dir, COLD);
	snprintf(f->hot.path, sizeof(f->hot.path), "%s/%s.sock", f->dir, HOT);
	f->disks[0] = (struct hyper_disk){
	    .kind = HYPER_DISK_VHOST_USER, .path = f->cold.path, .serial = COLD, .slot = 0};
	f->disks[1] = (struct hyper_disk){
	    .kind = HYPER_DISK_VHOST_USER, .path = f->hot.path, .serial = HOT, .slot = 15};
	f->m = (struct hyper_machine){
	    .name = f->name,
	    .instance_id = f->name + 15,
	    .uuid = f->uuid,
	    .vcpus = 1,
	    .memory_mib = 256,
	    .root_path = f->root,
	    .disks = f->disks,
	    .disk_count = 1,
	    .tap = f->tap,
	    .mac = "02:00:00:00:00:02",
	    .console_path = f->console,
	    .uid = UID,
	    .gid = hyper_qemu_gid(HYPER_ACCEL_TCG, UID),
	};
	open_driver(f);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};

	ops->destroy(f->h, f->name, &e);
	ops->close(f->h);
	stop(&f->cold);
	stop(&f->hot);
	run_command(&e, "ip", "link", "del", f->tap, NULL);
	dir_remove(f->dir);
	free(f);
	return 0;
}

static char *console(struct fixture *f)
{
	char *text = NULL;
	size_t len;

	return file_read(f->console, 1 << 22, &text, &len) == 0 ? text : strdup("");
}

static void assert_no_error(struct fixture *f)
{
	_cleanup_(freep) char *text = console(f);

	if (strstr(text, " ERROR "))
		fail_msg("the guest saw an error: %s", strstr(text, "guest: up"));
}

/* How often the console says so, the last line aside that may be half written. */
static int count_said(struct fixture *f, const char *what)
{
	_cleanup_(freep) char *text = console(f);
	int n = 0;

	for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
		n++;
	return n;
}

static void wait_said(struct fixture *f, const char *what, int times)
{
	int64_t end = clock_mono_ms() + WAIT_MS;

	while (count_said(f, what) < times) {
		if (clock_mono_ms() > end) {
			_cleanup_(freep) char *text = console(f);

			fail_msg("the guest does not say \"%s\" %d times but %s", what, times,
				 strstr(text, "guest: up") ? strstr(text, "guest: up") : text);
		}
		usleep(100000);
	}
	assert_no_error(f);
}

/* The disk is written and read from now on. */
static void wait_progress(struct fixture *f, const char *serial)
{
	char what[40];

	snprintf(what, sizeof(what), "%s at", serial);
	wait_said(f, what, count_said(f, what) + 2); /* the first may have been begun before */
}

/* -1: not there; else its state. */
static int state_of(struct fixture *f, const char *serial, int slot)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct hyper_disk_status *list;
	struct error e = {0};
	size_t count;

	if (ops->disk_list(f->h, f->name, a, &list, &count, &e) < 0)
		fail_msg("%s", e.message);
	for (size_t i = 0; i < count; i++)
		if (strcmp(list[i].serial, serial) == 0) {
			assert_int_equal(list[i].slot, slot);
			return (int)list[i].state;
		}
	return -1;
}

static void attach(struct fixture *f, const struct hyper_disk *d)
{
	struct error e = {0};

	if (ops->disk_attach(f->h, f->name, d, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(state_of(f, d->serial, d->slot), HYPER_DISK_ATTACHED);
}

static void detach(struct fixture *f, const struct hyper_disk *d, bool force)
{
	int64_t end = clock_mono_ms() + WAIT_MS;
	struct error e = {0};
	int told = f->told;

	if (ops->disk_detach(f->h, f->name, d->serial, force, &e) < 0)
		fail_msg("%s", e.message);
	while (state_of(f, d->serial, d->slot) >= 0) {
		assert_true(clock_mono_ms() < end);
		usleep(50000);
	}
	while (f->told == told && clock_mono_ms() < end)
		usleep(10000);
	assert_true(f->told > told);
	assert_int_equal(ops->disk_detach(f->h, f->name, d->serial, force, &e), 0);
}

static void start(struct fixture *f)
{
	struct error e = {0};
	int ups = count_said(f, "guest: up");

	if (ops->start(f->h, &f->m, &e) < 0)
		fail_msg("%s", e.message);
	wait_said(f, "guest: up", ups + 1);
}

/* Text of the guest's monitor. */
static char *monitor(struct fixture *f, const char *command)
{
	virConnectPtr conn = virConnectOpen("qemu:///system");
	virDomainPtr dom = virDomainLookupByName(conn, f->name);
	char *text = NULL;

	assert_non_null(dom);
	assert_int_equal(virDomainQemuMonitorCommand(dom, command, &text, 0), 0);
	virDomainFree(dom);
	virConnectClose(conn);
	return text;
}

static void test_plug_and_unplug(void **state)
{
	struct fixture *f = *state;
	struct hyper_disk other = f->disks[1];
	struct error e = {0};

	prepare(f);
	start(f);
	wait_said(f, "guest: " COLD " is 16 MiB", 1);
	assert_int_equal(state_of(f, COLD, 0), HYPER_DISK_ATTACHED);
	attach(f, &f->disks[1]);
	attach(f, &f->disks[1]); /* it is there: nothing happens */
	wait_said(f, "guest: " HOT " is 16 MiB", 1);
	wait_progress(f, COLD);
	wait_progress(f, HOT);
	other.serial = "vol-other";
	assert_int_equal(ops->disk_attach(f->h, f->name, &other, &e), -EEXIST);
	other = f->disks[1];
	other.slot = 3;
	assert_int_equal(ops->disk_attach(f->h, f->name, &other, &e), -EEXIST);

	detach(f, &f->disks[1], false);
	wait_said(f, HOT " gone", 1);
	attach(f, &f->disks[1]);
	wait_progress(f, HOT);
	detach(f, &f->disks[0], false); /* one of the XML */
	wait_said(f, COLD " gone", 1);
	attach(f, &f->disks[0]);
	wait_progress(f, COLD);

	/* Another driver, as after a restart, finds the same. */
	ops->close(f->h);
	open_driver(f);
	assert_int_equal(state_of(f, COLD, 0), HYPER_DISK_ATTACHED);
	assert_int_equal(state_of(f, HOT, 15), HYPER_DISK_ATTACHED);

	/* Stopped and started again, with all disks. */
	assert_int_equal(ops->destroy(f->h, f->name, &e), 0);
	assert_int_equal(state_of(f, HOT, 15), -1);
	assert_int_equal(ops->disk_detach(f->h, f->name, HOT, false, &e), 0);
	assert_int_equal(ops->disk_attach(f->h, f->name, &f->disks[1], &e), -ENOENT);
	f->m.disk_count = 2;
	start(f);
	assert_int_equal(state_of(f, HOT, 15), HYPER_DISK_ATTACHED);
	wait_progress(f, HOT);
	wait_progress(f, COLD);
}

static void test_servers_die(void **state)
{
	struct fixture *f = *state;

	prepare(f);
	start(f);
	attach(f, &f->disks[1]);
	for (int i = 0; i < 5; i++) {
		wait_progress(f, COLD);
		wait_progress(f, HOT);
		stop(&f->hot);
		stop(&f->cold);
		usleep((useconds_t)(i * 400000));
		serve(f, &f->cold);
		serve(f, &f->hot);
	}
	wait_progress(f, COLD);
	wait_progress(f, HOT);
}

/* Callers that were killed half way, and servers that are not there. */
static void test_half_done(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};
	_cleanup_(freep) char *added = NULL, *after = NULL;

	prepare(f);
	start(f);
	added = monitor(
	    f, "{\"execute\":\"chardev-add\",\"arguments\":{\"id\":\"socket-ua-disk15-" HOT "\",\"backend\":"
	       "{\"type\":\"null\",\"data\":{}}}}");
	assert_null(strstr(added, "error"));
	assert_int_equal(state_of(f, HOT, 15), -1);
	after = monitor(f, "{\"execute\":\"query-chardev\"}");
	assert_null(strstr(after, HOT));

	stop(&f->hot);
	assert_int_equal(ops->disk_attach(f->h, f->name, &f->disks[1], &e), -ENOTCONN);
	assert_string_equal(e.code, "ServiceUnavailable");
	assert_int_equal(state_of(f, HOT, 15), -1);
	serve(f, &f->hot);
	attach(f, &f->disks[1]);
	wait_progress(f, HOT);
	assert_int_equal(ops->destroy(f->h, f->name, &e), 0);
	stop(&f->cold);
	error_clear(&e);
	assert_int_equal(ops->start(f->h, &f->m, &e), -ENOTCONN);
}

static void test_files(void **state)
{
	struct fixture *f = *state;
	struct hyper_disk plain = {.path = f->plain, .serial = PLAIN, .slot = 7};

	prepare(f);
	start(f);
	attach(f, &plain);
	wait_said(f, "guest: " PLAIN " is 16 MiB", 1);
	wait_progress(f, PLAIN);
	detach(f, &plain, false);
	wait_said(f, PLAIN " gone", 1);
	attach(f, &plain);
	wait_progress(f, PLAIN);
	wait_progress(f, COLD);
}

/* blockd tells QEMU, and QEMU the guest. */
static void grow(struct server *s)
{
	_cleanup_(freep) char *control = NULL, *bytes = NULL;
	struct error e = {0};

	assert_true(asprintf(&control, "%s.control", s->path) > 0);
	assert_true(asprintf(&bytes, "%d", 2 * DISK_BYTES) > 0);
	if (run_command(&e, BLOCKD, "--to", control, "resize", bytes, NULL) < 0)
		fail_msg("%s", e.message);
}

static void test_disks_grow(void **state)
{
	struct fixture *f = *state;

	prepare(f);
	start(f);
	attach(f, &f->disks[1]);
	wait_progress(f, COLD);
	wait_progress(f, HOT);
	grow(&f->cold);
	grow(&f->hot);
	wait_said(f, "of 32 MiB", 6); /* one may be ahead */
	wait_progress(f, COLD);
	wait_progress(f, HOT);
}

static int why_not(void)
{
	const char *mode = getenv("MALLEE_GUEST_TESTS");
	const char *why = NULL;

	if (geteuid() != 0)
		why = "not root";
	else if (access("/run/libvirt/libvirt-sock", F_OK) != 0)
		why = "libvirtd does not run";
	else if (access(tiny_image(), R_OK) != 0)
		why = "there is no tiny image";
	else if (access(BLOCKD, X_OK) != 0)
		why = "mallee-blockd is not built";
	if (!why)
		return 0;
	printf("hyper/kvm_disk_guest: %s\n", why);
	return mode && strcmp(mode, "required") == 0 ? 1 : 77;
}

/* An argument picks tests by name, with wildcards: each boots a guest. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_plug_and_unplug, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_servers_die, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_half_done, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_disks_grow, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_files, setup, teardown),
	};
	int r = why_not();

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
