/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks of a running guest. The script takes up each disk as its serial shows up, writes and compares block after block past
 * the cache, and says on the console how far it is; the disks are plugged, unplugged and their servers killed meanwhile.
 */
#include "hyper/kvm_disk_testkit.h"

#define PLAIN "vol-plain"

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
    "		[ $((n % 5)) = 0 ] && read -r size < /sys/block/$1/size && say \"$2 at $n of $((size / 2048)) MiB\"\n"
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
static void test_plug_and_unplug(void **state)
{
	struct fixture *f = *state;
	struct hyper_disk other = f->disks[1];
	struct error e = {0};

	prepare(f, script);
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

	prepare(f, script);
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

	prepare(f, script);
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

	prepare(f, script);
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

	prepare(f, script);
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
