/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_HYPER_KVM_DISK_TESTKIT_H
#define MALLEE_HYPER_KVM_DISK_TESTKIT_H

/*
 * A running guest with disks, for its tests: Linux (the tiny image, whose init is told to run the test's script), vhost-user disks
 * served by mallee-blockd, one that the guest is started with and one that is plugged in later. What the script says on
 * the console is the test's to wait for; " ERROR " in it fails the test.
 *
 * Needs root, a running libvirtd and the tiny image; skipped (77) without, unless MALLEE_GUEST_TESTS=required. MALLEE_TINY_IMAGE
 * names another image than that of the build.
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
#define DISK_BYTES (16 << 20)
#define WAIT_MS 300000 /* of a guest under emulation, on a host that does other things, too */

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

static inline void count_call(void *ctx, const char *name)
{
	atomic_fetch_add((atomic_int *)ctx, 1);
}

/* The image with our script in the place of its start-up. Its one partition begins at 1 MiB. */
static inline void make_root(struct fixture *f, const char *script)
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

static inline void make_disk(const char *path)
{
	FILE *disk = fopen(path, "w");

	assert_non_null(disk);
	assert_int_equal(ftruncate(fileno(disk), DISK_BYTES), 0);
	fclose(disk);
	assert_int_equal(chown(path, UID, UID), 0);
}

static inline void serve(struct fixture *f, struct server *s)
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

static inline void stop(struct server *s)
{
	if (s->pid <= 0)
		return;
	kill(s->pid, SIGKILL);
	waitpid(s->pid, NULL, 0);
	s->pid = 0;
}

static inline void make_server(struct fixture *f, struct server *s, const char *serial)
{
	snprintf(s->serial, sizeof(s->serial), "%s", serial);
	snprintf(s->image, sizeof(s->image), "%s/%s.raw", f->dir, serial);
	make_disk(s->image);
	serve(f, s);
}

/* What can go wrong is done in the tests, so that it is cleared away. */
static inline void prepare(struct fixture *f, const char *script)
{
	make_root(f, script);
	make_disk(f->plain);
	make_server(f, &f->cold, COLD);
	make_server(f, &f->hot, HOT);
}

static inline void open_driver(struct fixture *f)
{
	struct hyper_config c = {
	    .cloud_id = "dsktest", .accel = HYPER_ACCEL_TCG, .run_dir = f->dir};
	struct error e = {0};

	if (ops->open(&c, &f->h, &e) < 0)
		fail_msg("%s", e.message);
	ops->watch(f->h, count_call, &f->told);
}

static inline int setup(void **state)
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

static inline int teardown(void **state)
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

static inline char *console(struct fixture *f)
{
	char *text = NULL;
	size_t len;

	return file_read(f->console, 1 << 22, &text, &len) == 0 ? text : strdup("");
}

static inline void assert_no_error(struct fixture *f)
{
	_cleanup_(freep) char *text = console(f);

	if (strstr(text, " ERROR "))
		fail_msg("the guest saw an error: %s", strstr(text, "guest: up"));
}

/* How often the console says so, the last line aside that may be half written. */
static inline int count_said(struct fixture *f, const char *what)
{
	_cleanup_(freep) char *text = console(f);
	int n = 0;

	for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
		n++;
	return n;
}

static inline void wait_said(struct fixture *f, const char *what, int times)
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
static inline void wait_progress(struct fixture *f, const char *serial)
{
	char what[40];

	snprintf(what, sizeof(what), "%s at", serial);
	wait_said(f, what, count_said(f, what) + 2); /* the first may have been begun before */
}

/* -1: not there; else its state. */
static inline int state_of(struct fixture *f, const char *serial, int slot)
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

static inline void attach(struct fixture *f, const struct hyper_disk *d)
{
	struct error e = {0};

	if (ops->disk_attach(f->h, f->name, d, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(state_of(f, d->serial, d->slot), HYPER_DISK_ATTACHED);
}

static inline void detach(struct fixture *f, const struct hyper_disk *d, bool force)
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

static inline void start(struct fixture *f)
{
	struct error e = {0};
	int ups = count_said(f, "guest: up");

	if (ops->start(f->h, &f->m, &e) < 0)
		fail_msg("%s", e.message);
	wait_said(f, "guest: up", ups + 1);
}

/* Text of the guest's monitor. */
static inline char *monitor(struct fixture *f, const char *command)
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

static inline int why_not(void)
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

#endif
