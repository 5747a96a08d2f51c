/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's fio writes, reads back and checks two disks, over and over, while the servers of both are killed at random a hundred times:
 * one disk was there from the start, the other one is plugged in. The guest sees no error and no byte that it has not written last.
 *
 * fio is Debian's, on a disk of its own with the libraries that it takes. MALLEE_KILLS: another number than a hundred.
 */
#include "hyper/kvm_disk_testkit.h"

#include <jansson.h>

#define TOOLS "vol-tools"
#define KILLS 100

static const char script[] =
    "#!/bin/sh\n"
    "say() { echo \"guest: $*\" > /dev/ttyS0; }\n"
    "work() {\n"
    "	pass=0\n"
    "	while :; do\n"
    "		pass=$((pass + 1))\n"
    /* Headers of another pass have another seed: what is stale is found. */
    "		chroot /tmp/tools /usr/bin/fio --name=$2 --filename=/dev/$1 --ioengine=libaio --direct=1 --rw=randwrite --bs=16k \\\n"
    "			--iodepth=16 --size=4m --offset=4m --randseed=$pass --verify=crc32c --verify_backlog=64 --verify_fatal=1 \\\n"
    "			--do_verify=1 --fsync=48 --thread --verify_state_save=0 --aux-path=/tmp --output=/tmp/$2 ||\n"
    "			say \"$2 ERROR in pass $pass: $(head -n 5 /tmp/tools/tmp/$2)\"\n"
    "		say \"$2 passed $pass\"\n"
    "	done\n"
    "}\n"
    "mount -t proc proc /proc\n"
    "mount -t sysfs sys /sys\n"
    "mount -t tmpfs tmp /tmp\n"
    "echo 4 > /proc/sys/kernel/printk\n" /* errors of disks are on the console */
    "mkdir /tmp/tools\n"
    "say up\n"
    "while :; do\n"
    "	for disk in /sys/block/vd*; do\n"
    "		name=${disk##*/}\n"
    "		serial=\n"
    "		[ -e /tmp/$name ] || read -r serial < $disk/serial\n"
    "		case \"$serial\" in\n"
    "		" TOOLS ")\n"
    "			touch /tmp/$name\n"
    "			mount -t ext4 -o ro /dev/$name /tmp/tools && mount -o bind /dev /tmp/tools/dev &&\n"
    "				mount -o bind /proc /tmp/tools/proc && mount -t tmpfs tmp /tmp/tools/tmp || say tools ERROR\n"
    "			;;\n"
    "		vol0*)\n"
    "			[ -e /tmp/tools/usr/bin/fio ] || continue\n"
    "			touch /tmp/$name\n"
    "			say \"$serial is there\"\n"
    "			work $name $serial &\n"
    "		esac\n"
    "	done\n"
    "	usleep 200000\n"
    "done\n";

/* A disk with fio and what it takes. */
static void make_tools(struct fixture *f, const char *path)
{
	static const char make[] = "set -e; mkdir -p \"$1/dev\" \"$1/proc\" \"$1/tmp\"; fio=$(command -v fio)\n"
				   "cp -L --parents \"$fio\" $(ldd \"$fio\" | grep -o '/[^ ]*') \"$1\"\n"
				   "mke2fs -q -t ext4 -d \"$1\" \"$2\" 192M";
	char folder[128];
	struct error e = {0};

	snprintf(folder, sizeof(folder), "%s/tools", f->dir);
	if (run_command(&e, "mkdir", folder, NULL) < 0 || run_command(&e, "sh", "-c", make, "sh", folder, path, NULL) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(chown(path, UID, UID), 0);
}

/* What the server's guest has asked of it since it began; -1: it cannot be asked yet. */
static int64_t ops_of(struct server *s)
{
	_cleanup_(freep) char *control = NULL;
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct error e = {0};
	json_int_t reads = 0, writes = 0;

	assert_true(asprintf(&control, "%s.control", s->path) > 0);
	if (run_command_output(&out, &e, BLOCKD, "--to", control, "stats", NULL) < 0)
		return -1;
	json_t *j = json_loads(out.data, 0, NULL);
	int bad = json_unpack(j, "{s:{s:{s:I},s:{s:I}}}", "guest", "read", "ops", &reads, "write", "ops", &writes);
	json_decref(j);
	assert_int_equal(bad, 0);
	return reads + writes;
}

static void wait_ops(struct fixture *f, struct server *s, int64_t wanted)
{
	int64_t end = clock_mono_ms() + WAIT_MS;

	while (ops_of(s) < wanted) {
		if (clock_mono_ms() > end) {
			_cleanup_(freep) char *text = console(f);
			fail_msg("the guest does not use %s: %s", s->serial, strstr(text, "guest: up") ? strstr(text, "guest: up") : text);
		}
		usleep(20000);
	}
}

static void assert_kernel_is_content(struct fixture *f)
{
	_cleanup_(freep) char *text = console(f);
	const char *bad[] = {"I/O error", "blocked for more than", "Buffer I/O", "critical"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (strstr(text, bad[i]))
			fail_msg("the guest's kernel: %s", strstr(text, bad[i]));
}

static void test_fio(void **state)
{
	struct fixture *f = *state;
	const char *kills_text = getenv("MALLEE_KILLS"), *seed_text = getenv("MALLEE_SEED");
	unsigned seed = seed_text ? (unsigned)strtoul(seed_text, NULL, 10) : (unsigned)getpid();
	int kills = kills_text ? atoi(kills_text) : KILLS;
	char tools[96];
	struct hyper_disk disks[2] = {f->disks[0], {.path = tools, .serial = TOOLS, .slot = 7}};

	printf("seed %u\n", seed);
	snprintf(tools, sizeof(tools), "%s/tools.raw", f->dir);
	prepare(f, script);
	make_tools(f, tools);
	f->m.disks = disks;
	f->m.disk_count = 2;
	start(f);
	attach(f, &f->disks[1]);
	wait_said(f, "guest: " COLD " is there", 1);
	wait_said(f, "guest: " HOT " is there", 1);
	for (int i = 0; i < kills; i++) {
		struct server *first = rand_r(&seed) % 2 ? &f->cold : &f->hot, *second = first == &f->cold ? &f->hot : &f->cold;
		wait_ops(f, &f->cold, 1 + rand_r(&seed) % 80);
		wait_ops(f, &f->hot, 1 + rand_r(&seed) % 80);
		stop(first);
		usleep((useconds_t)(rand_r(&seed) % 20000));
		stop(second);
		serve(f, first);
		serve(f, second);
		assert_no_error(f);
	}
	wait_said(f, COLD " passed", count_said(f, COLD " passed") + 2); /* the first may have been begun before */
	wait_said(f, HOT " passed", count_said(f, HOT " passed") + 2);
	assert_kernel_is_content(f);
	printf("%d kills of each; passes of fio: %d and %d\n", kills, count_said(f, COLD " passed"), count_said(f, HOT " passed"));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_fio, setup, teardown),
	};
	int r = why_not();

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
