/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes of a real guest: a boot sector on a root volume that mallee-blockd serves, a second volume plugged while it runs, under
 * the real libvirtd. The storage controller is a double, its files are real, and belong to a user of their own.
 * Needs root, a running libvirtd and mallee-blockd; skipped (77) without, unless MALLEE_GUEST_TESTS=required.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "gen/volume.h"
#include "hyper/host.h"
#include "os/file.h"
#include "svc/nc/sc_double.h"
#include "volume/control.h"

#define SC_USER 1999990000u
#define SIZE (8 << 20)
#define ROOT 1
#define DATA 2
#define WAIT_MS 120000

/* Prints "mallee" on the serial port, then waits for ever. */
static const unsigned char boot_sector[] = {
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x16, 0x7c, 0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74,
    0x03, 0xee, 0xeb, 0xf8, 0xf4, 0xeb, 0xfd, 'm',  'a',  'l',	'l',  'e',  'e',  '\n', 0,
};

struct test {
	struct fixture *f;
	struct sc_double *sc;
	struct rpc_client *as_sc; /* to the node's service for the storage controller */
	char subnet[32];
	struct shared_block_device devices[2];
	size_t device_count;
};

static const char *const files[] = {"data.raw", "changes.map", "changes.map.2", "cow.map"};

static const char *file_of(struct test *t, int number, const char *file)
{
	return arena_printf(t->f->arena, "%s/sc/volumes/%s/%s", t->f->dir, volume_id(t->f, number), file);
}

static void make_file(const char *path, bool data, bool boot)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	unsigned char sector[512] = {0};

	memcpy(sector, boot_sector, sizeof(boot_sector));
	sector[510] = 0x55;
	sector[511] = 0xaa;
	assert_true(fd >= 0);
	if (data)
		assert_int_equal(ftruncate(fd, SIZE), 0);
	if (boot)
		assert_int_equal(pwrite(fd, sector, 512, 0), 512);
	assert_int_equal(fchown(fd, SC_USER, SC_USER), 0);
	close(fd);
}

/* As the storage controller makes one. The root is plain, the other one is zeroes to be filled. */
static void make_volume(struct test *t, int number)
{
	struct double_volume *v = sc_double_volume(t->sc, number);
	const char *folder = file_of(t, number, "");
	bool root = number == ROOT;

	assert_int_equal(dir_make(folder, 0711), 0);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		v->files[i] = file_of(t, number, files[i]);
		make_file(v->files[i], i == 0, i == 0 && root);
	}
	v->size_bytes = SIZE;
	v->back = arena_printf(t->f->arena, "file:path=%s,direct=off", v->files[0]);
	v->throttle = "iops=100000";
	v->cow = root ? NULL : arena_printf(t->f->arena, "source=zero,map=%s", v->files[3]);
	snprintf(v->snap, sizeof(v->snap), "map=%s", v->files[1]);
}

static int setup(void **state)
{
	struct test *t = calloc(1, sizeof(*t));
	struct error e = {0};
	char image[512] = "", path[160], url[64];

	*state = t;
	if (net_choose_subnet(t->subnet, sizeof(t->subnet), &e) < 0)
		fail_msg("%s", e.message);
	t->f = fixture_new("tcg", t->subnet, image, sizeof(image));
	snprintf(path, sizeof(path), "%s/bin", t->f->dir);
	assert_int_equal(dir_make(path, 0755), 0);
	snprintf(path, sizeof(path), "%s/bin/mallee-blockd", t->f->dir);
	assert_int_equal(symlink(BLOCKD, path), 0);
	snprintf(path, sizeof(path), "%s/sc/volumes", t->f->dir);
	assert_int_equal(dir_make(path, 0711), 0);
	snprintf(path, sizeof(path), "%s/sc", t->f->dir);
	assert_int_equal(chown(path, SC_USER, SC_USER), 0);
	t->sc = sc_double_new(t->f);
	make_volume(t, ROOT);
	make_volume(t, DATA);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u", settings_port(t->f->settings, PORT_NC));
	assert_int_equal(rpc_client_new(t->sc->tls, TLS_ROLE_NC, url, &t->as_sc), 0);
	return 0;
}

static void apply(struct test *t, const char *wanted)
{
	struct shared_instance_spec s = fixture_spec(t->f, 1, wanted);
	unsigned int a, b, c, d;

	assert_int_equal(sscanf(t->subnet, "%u.%u.%u.%u/", &a, &b, &c, &d), 4);
	s.private_ip = arena_printf(t->f->arena, "%u.%u.%u.%u", a, b, c, d + 5);
	s.root_device_type = "ebs";
	s.disk_bytes = WIRE_INT_OF(0);
	s.block_devices = (struct shared_block_device_list){.set = true, .count = t->device_count, .items = t->devices};
	fixture_apply_spec(t->f, &s);
}

static int teardown(void **state)
{
	struct test *t = *state;
	char net_dir[96], volumes[96];
	struct error e = {0};
	unsigned count = 0;

	if (fixture_observe(t->f, 1)) {
		for (size_t i = 0; i < t->device_count; i++)
			t->devices[i].wanted = "attached";
		apply(t, "terminated");
		fixture_await(t->f, 1, "terminated");
		for (int i = 0; nc_volumes_are_served(t->f->nc) && i < 300; i++)
			usleep(100000);
	}
	rpc_client_free(t->as_sc);
	snprintf(volumes, sizeof(volumes), "%s/nc/volumes", t->f->dir);
	snprintf(net_dir, sizeof(net_dir), "%s/nc/net", t->f->dir);
	_cleanup_(freep) char *cloud = strdup(t->f->nc->cloud_id);
	nc_stop(t->f->nc);
	t->f->nc = NULL;
	keeper_end_all(volumes, 10000, &count, &e);
	buffers_remove(cloud);
	if (net_uninstall(net_dir, &e) < 0)
		print_error("%s\n", e.message);
	sc_double_free(t->sc);
	fixture_free(t->f);
	free(t);
	assert_int_equal(count, 0);
	return 0;
}

static void have(struct test *t, int number, int slot, int64_t generation, const char *wanted)
{
	t->devices[number - 1] = (struct shared_block_device){.volume_id = volume_id(t->f, number),
							      .device_name = number == ROOT ? "/dev/xvda" : "/dev/sdf",
							      .slot = WIRE_INT_OF(slot),
							      .boot = WIRE_BOOL_OF(number == ROOT),
							      .generation = WIRE_INT_OF(generation),
							      .wanted = wanted};
	t->device_count = MAX_OF(t->device_count, (size_t)number);
}

static void await_console(struct test *t, int times)
{
	struct shared_get_console_output_request in = {.instance_id = "i-00000000000000001"};
	int64_t end = clock_mono_ms() + WAIT_MS;

	for (;;) {
		struct shared_get_console_output_response *out = fixture_call(t->f, "GetConsoleOutput", &in);
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

static void await_device(struct test *t, int number, const char *want)
{
	const struct shared_block_device_observed *d = NULL;
	int64_t end = clock_mono_ms() + WAIT_MS;

	while (!d || !str_eq(d->state, want)) {
		const struct shared_instance_observed *o = fixture_observe(t->f, 1);

		d = &o->block_devices.items[number - 1];
		if (clock_mono_ms() > end)
			fail_msg("volume %d is %s (%s), not %s", number, d->state, d->reason ? d->reason : "", want);
		usleep(50000);
	}
}

static pid_t server_of(struct test *t, int number)
{
	_cleanup_(fd_closep) int fd = -1;
	char path[256];
	pid_t pid = 0;

	snprintf(path, sizeof(path), "%s/nc/volumes/%s/control.sock", t->f->dir, volume_id(t->f, number));
	control_connect(path, 2000, &fd, &pid);
	return pid;
}

static uid_t owner(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_uid : (uid_t)-1;
}

static void *ask(struct test *t, const char *action, const void *in, const char *code)
{
	struct error e = {0};
	void *out = NULL;
	int r = rpc_call(t->as_sc, &volume_service, action, in, t->f->arena, &out, 60000, &e);

	if (!str_eq(r < 0 ? e.code : NULL, code))
		fail_msg("%s: %s %s", action, e.code, e.message);
	return out;
}

static void views(struct test *t)
{
	struct volume_begin_view_request begin = {.volume_id = volume_id(t->f, ROOT),
						  .generation = WIRE_INT_OF(1),
						  .name = "snap-00000000000000001",
						  .scratch_bytes = WIRE_INT_OF(1 << 20)};
	struct volume_end_view_request end = {
	    .volume_id = begin.volume_id, .generation = begin.generation, .name = begin.name, .commit = WIRE_BOOL_OF(true)};
	struct volume_begin_view_response *view = ask(t, "BeginView", &begin, NULL), *again = ask(t, "BeginView", &begin, NULL);
	struct stat st;

	assert_string_equal(view->socket, again->socket);
	assert_string_equal(view->export, "snap/snap-00000000000000001");
	assert_string_equal(view->base, "");
	assert_int_equal(view->size_bytes.value, SIZE);
	assert_int_equal(stat(view->socket, &st), 0);
	assert_true(st.st_mode & S_IWOTH); /* the storage controller's user gets in, and blockd looks who it is */
	for (unsigned i = 0; i < 2; i++) { /* asked again it says the same */
		struct volume_end_view_response *ended = ask(t, "EndView", &end, NULL);
		assert_string_equal(ended->base, begin.name);
	}
	begin.name = "snap-00000000000000002";
	view = ask(t, "BeginView", &begin, NULL);
	assert_string_equal(view->base, "snap-00000000000000001");
	end.name = begin.name;
	end.commit = WIRE_BOOL_OF(false);
	ask(t, "EndView", &end, NULL);
	begin.generation = WIRE_INT_OF(2);
	ask(t, "BeginView", &begin, "VolumeNotOpen");
	begin.generation = WIRE_INT_OF(1);
	begin.scratch_bytes = WIRE_INT_OF(INT64_C(1) << 60);
	begin.name = "snap-00000000000000003";
	ask(t, "BeginView", &begin, "InsufficientCapacity");
	begin.name = "../../etc";
	ask(t, "BeginView", &begin, "InvalidParameterValue");
}

/* Held: served to the storage controller and to no guest, and a new node controller knows. */
static void held(struct test *t)
{
	struct volume_begin_view_request begin = {.volume_id = volume_id(t->f, DATA),
						  .generation = WIRE_INT_OF(1),
						  .name = "snap-00000000000000004",
						  .scratch_bytes = WIRE_INT_OF(1 << 20)};
	struct volume_end_view_request end = {.volume_id = begin.volume_id, .generation = begin.generation, .name = begin.name};

	sc_double_hold(t->sc, DATA, true);
	have(t, DATA, 3, 1, "attached");
	apply(t, "running");
	await_device(t, DATA, "attaching");
	for (int i = 0; server_of(t, DATA) <= 1; i++) {
		assert_true(i < 600);
		usleep(50000);
	}
	ask(t, "BeginView", &begin, NULL);
	fixture_restart_node(t->f);
	fixture_await(t->f, 1, "running");
	usleep(1500000);
	await_device(t, DATA, "attaching");
	ask(t, "EndView", &end, NULL);
	sc_double_hold(t->sc, DATA, false);
}

static void changes(struct test *t)
{
	struct volume_describe_volume_request see = {.volume_id = volume_id(t->f, DATA), .generation = WIRE_INT_OF(1)};
	struct volume_change_volume_request change = {
	    .volume_id = see.volume_id, .generation = see.generation, .size_bytes = WIRE_INT_OF(2 * SIZE), .throttle = "iops=77"};
	struct volume_describe_volume_response *v = ask(t, "DescribeVolume", &see, NULL);
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct error e = {0};
	pid_t before = server_of(t, DATA);

	assert_int_equal(v->size_bytes.value, SIZE);
	v = ask(t, "ChangeVolume", &change, NULL);
	assert_int_equal(v->size_bytes.value, 2 * SIZE);
	ask(t, "ChangeVolume", &change, NULL);
	assert_int_equal(kill(before, SIGKILL), 0); /* its successor has the new limits, too */
	for (int i = 0; server_of(t, DATA) == before || !server_of(t, DATA); i++) {
		assert_true(i < 600);
		usleep(50000);
	}
	assert_int_equal(nc_volume_command(t->f->nc, see.volume_id, "throttle show", 3000, &out, &e), 0);
	assert_non_null(strstr(out.data, "\"iops\":77"));
	for (int i = 0; !v->complete.value; i++) {
		assert_true(i < 600);
		usleep(50000);
		v = ask(t, "DescribeVolume", &see, NULL);
	}
	assert_int_equal(v->filled_bytes.value, 2 * SIZE);
}

static void test_life(void **state)
{
	struct test *t = *state;
	const char *data = file_of(t, DATA, "data.raw"), *root = file_of(t, ROOT, "data.raw");
	pid_t server;

	have(t, ROOT, 0, 1, "attached");
	apply(t, "running");
	fixture_await(t->f, 1, "running");
	await_console(t, 1);
	assert_true(owner(root) >= t->f->nc->uid_base && owner(root) < t->f->nc->uid_base + NC_REAL_SLOTS);
	views(t);

	/* NC anew: neither the guest nor who serves it notices. */
	server = server_of(t, ROOT);
	assert_true(server > 1);
	fixture_restart_node(t->f);
	fixture_await(t->f, 1, "running");
	usleep(1000000);
	assert_int_equal(server_of(t, ROOT), server);
	assert_int_equal(metrics_get(t->f->nc->metrics, NC_M_RESTARTS), 0);
	assert_int_equal(kill(server, SIGKILL), 0);
	for (int i = 0; metrics_get(t->f->nc->metrics, NC_M_BLOCKD_RESTARTS) == 0; i++) {
		assert_true(i < 600);
		usleep(50000);
	}

	/* A second volume. This guest never lets go of one. */
	held(t);
	await_device(t, DATA, "attached");
	changes(t);
	have(t, DATA, 3, 1, "detached");
	apply(t, "running");
	await_device(t, DATA, "busy");
	have(t, DATA, 3, 1, "forced");
	apply(t, "running");
	await_device(t, DATA, "detached");
	for (int i = 0; owner(data) != SC_USER || sc_double_see(t->sc, DATA).instance[0]; i++) {
		assert_true(i < 600);
		usleep(50000);
	}
	assert_int_equal(server_of(t, DATA), 0);
	t->device_count = 1;

	/* Off, by force since it has no ACPI, and on again with the same disk. */
	apply(t, "stopped");
	fixture_await(t->f, 1, "running");
	for (int i = 0; !str_eq(fixture_observe(t->f, 1)->state, "stopped"); i++) {
		assert_true(i < 1200);
		usleep(100000);
	}
	for (int i = 0; owner(root) != SC_USER || sc_double_see(t->sc, ROOT).instance[0]; i++) {
		assert_true(i < 600);
		usleep(50000);
	}
	have(t, DATA, 5, 2, "attached"); /* and with one that it is started with */
	apply(t, "running");
	await_console(t, 2);
	await_device(t, DATA, "attached");
	assert_string_equal(fixture_await(t->f, 1, "running")->block_devices.items[0].state, "attached");
}

static int why_not(void)
{
	const char *mode = getenv("MALLEE_GUEST_TESTS");
	const char *why = NULL;

	if (geteuid() != 0)
		why = "not root";
	else if (access("/run/libvirt/libvirt-sock", F_OK) != 0)
		why = "libvirtd does not run";
	else if (access(BLOCKD, X_OK) != 0)
		why = "mallee-blockd is not built";
	if (!why)
		return 0;
	printf("svc_nc/nc_volume_guest: %s\n", why);
	return mode && strcmp(mode, "required") == 0 ? 1 : 77;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_life, setup, teardown),
	};
	int r = why_not();

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
