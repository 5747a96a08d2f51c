/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "block/filter/cow_bits_priv.h"
#include "block/filter/cow_testkit.h"
#include "block/filter/filter.h"

static const struct blk_layer_ops *const drivers[] = { &blk_cow_ops, &ck_disk_ops, NULL };
static char folder[64], map[96], map2[96];

enum { VOLUME, SOURCE, AFTER };

static struct blk_stack *open_stack(const char *back, const char *path, const char *options, unsigned queues)
{
	char spec[512];
	const char *filters[] = { spec, NULL };
	struct blk_stack_settings settings = { drivers, back, filters, queues, BLK_IO_AUTO };
	struct blk_stack *s = NULL;
	struct error e = { 0 };

	snprintf(spec, sizeof(spec), "cow:map=%s,%s", path, options);
	if (blk_stack_open(&settings, &s, &e) || blk_stack_start(s, &e))
		fail_msg("%s: %s", spec, e.message);
	return s;
}

static void close_stack(struct blk_stack *s)
{
	struct error e = { 0 };

	if (blk_stack_close(s, &e))
		fail_msg("%s", e.message);
}

static uint64_t number(struct blk_stack *s, const char *name)
{
	struct buf out = BUF_INIT;
	struct error e = { 0 };
	char key[64];

	assert_int_equal(blk_stack_command(s, "cow", "status", "", &out, &e), 0);
	snprintf(key, sizeof(key), "\"%s\":", name);
	char *at = strstr(out.data, key);
	assert_non_null(at);
	uint64_t n = at[strlen(key)] == '"' ? strncmp(at + strlen(key) + 1, "complete", 8) == 0 : strtoull(at + strlen(key), NULL, 10);
	buf_done(&out);
	return n;
}

static void wait_complete(struct blk_stack *s)
{
	for (unsigned i = 0; !number(s, "state"); i++) {
		assert_true(i < 20000);
		usleep(1000);
	}
	assert_int_equal(number(s, "filled_bytes"), number(s, "size_bytes"));
}

/* The volume holds stale bytes, as a reused place would: none of them may ever be seen. */
static void make_disks(uint64_t source_bytes, unsigned delay_us)
{
	ck_disk_init(VOLUME, CK_BYTES, delay_us);
	ck_disk_init(SOURCE, source_bytes, delay_us);
	memset(ck_disk[VOLUME].now, 0xee, CK_BYTES);
	memset(ck_disk[VOLUME].durable, 0xee, CK_BYTES);
	for (uint64_t i = 0; i < source_bytes / 512; i++)
		ck_pattern(ck_disk[SOURCE].now + i * 512, i, 0);
	ck_model_init(CK_SECTORS, MIN_OF(source_bytes, CK_BYTES) / 512);
	unlink(map);
}

/* Everything is some version in [from, to]. */
static void check_all(struct blk_stack *s, const uint32_t *from, const uint32_t *to)
{
	uint8_t data[64 * 512];

	for (uint64_t i = 0; i < ck.sectors; i += 64) {
		assert_int_equal(ck_io(s, NULL, BLK_READ, i * 512, data, sizeof(data)), 0);
		for (uint64_t k = 0; k < 64; k++)
			assert_true(ck_allowed(data + k * 512, i + k, ck.source_sectors, from[i + k], to[i + k]));
	}
}

static void run_load(struct blk_stack *s, unsigned queues, unsigned seed, unsigned ops, bool errors)
{
	struct ck_load *load[BLK_QUEUES_MAX];

	for (unsigned i = 0; i < queues; i++)
		load[i] = ck_load_new(s, i, seed + i, ops / queues, errors);
	for (unsigned i = 0; i < queues; i++)
		ck_load_wait(load[i]);
}

static void test_model(void **state)
{
	static const char *const options[] = {
		"source=ck:n=1,chunk=16k,fill=off",
		"source=ck:n=1,chunk=4k,copy-on-read=on",
		"source=ck:n=1,chunk=64k,fill=off,copy-on-read=on",
		"source=zero,chunk=16k,fill-rate=4M",
		"source=ck:n=1,chunk=16k",
	};
	unsigned seed = ck_seed();

	for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
		bool zero = strstr(options[i], "zero");
		/* shorter than the volume, and not at a chunk's end */
		make_disks(i % 2 ? CK_BYTES - 12 * 512 : CK_BYTES / 2 + 3 * 512, 30);
		if (zero)
			ck.source_sectors = 0;
		struct blk_stack *s = open_stack("ck:n=0", map, options[i], 3);
		run_load(s, 3, seed + i * 100, ck_ops(3000) / 5, false);
		check_all(s, ck.done, ck.sent);
		close_stack(s);
		s = open_stack("ck:n=0", map, options[i], 3); /* as it was left */
		check_all(s, ck.done, ck.sent);
		close_stack(s);
	}
}

/* Filled in the background while guests write; then plain: the source is gone, nobody minds. */
static void test_fill(void **state)
{
	unsigned seed = ck_seed();

	make_disks(CK_BYTES / 2 + 512, 30);
	struct blk_stack *s = open_stack("ck:n=0", map, "source=ck:n=1,chunk=16k", 2);
	run_load(s, 2, seed, 400, false);
	wait_complete(s);
	check_all(s, ck.done, ck.sent);
	close_stack(s);
	for (uint64_t i = 0; i < ck.sectors; i++) /* the file alone is the volume */
		assert_true(ck_allowed(ck_disk[VOLUME].now + i * 512, i, ck.source_sectors, ck.done[i], ck.sent[i]));
	s = open_stack("ck:n=0", map, "source=ck:n=5,chunk=16k", 1); /* there is no such disk */
	assert_int_equal(number(s, "state"), 1);
	check_all(s, ck.done, ck.sent);
	close_stack(s);
}

static void test_zero_is_written(void **state)
{
	make_disks(512, 0);
	ck.source_sectors = 0;
	struct blk_stack *s = open_stack("ck:n=0", map, "source=zero", 1);
	wait_complete(s);
	assert_int_equal(ck_disk[VOLUME].ops[BLK_WRITE_ZEROES], 0);
	assert_int_equal(ck_disk[VOLUME].written, CK_BYTES);
	check_all(s, ck.done, ck.sent);
	/* grows: the new part is zeroes, and written as well */
	struct error e = { 0 };
	memset(ck_disk[VOLUME].now + CK_BYTES, 0, CK_BYTES);
	assert_int_equal(blk_stack_resize(s, CK_BYTES * 2, &e), 0);
	ck.sectors = CK_SECTORS * 2;
	check_all(s, ck.done, ck.sent);
	wait_complete(s);
	assert_int_equal(ck_disk[VOLUME].written, CK_BYTES * 2);
	close_stack(s);
}

static void test_source_fails(void **state)
{
	uint8_t data[512];

	make_disks(CK_BYTES, 0);
	ck_disk[SOURCE].fail_percent = 100;
	struct blk_stack *s = open_stack("ck:n=0", map, "source=ck:n=1,chunk=16k", 1);
	assert_int_equal(ck_io(s, NULL, BLK_READ, 512, data, 512), -EIO);
	ck_pattern(data, 1, 1);
	assert_int_equal(ck_io(s, NULL, BLK_WRITE, 512, data, 512), -EIO); /* it cannot be completed */
	while (!number(s, "fill_errors"))
		usleep(1000);
	ck_disk[SOURCE].fail_percent = 0;
	assert_int_equal(ck_io(s, NULL, BLK_WRITE, 512, data, 512), 0);
	ck.done[1] = ck.sent[1] = 1;
	wait_complete(s);
	check_all(s, ck.done, ck.sent);
	close_stack(s);
}

static void test_errors_at_random(void **state)
{
	unsigned seed = ck_seed();

	make_disks(CK_BYTES / 2, 20);
	ck_disk[SOURCE].fail_percent = 5;
	ck_disk[VOLUME].fail_percent = 5;
	struct blk_stack *s = open_stack("ck:n=0", map, "source=ck:n=1,chunk=16k", 2);
	run_load(s, 2, seed, 800, true);
	ck_disk[SOURCE].fail_percent = ck_disk[VOLUME].fail_percent = 0;
	for (uint64_t i = 0; i < ck.sectors; i++)
		ck.done[i] = ck.unsure[i] ? 0 : ck.done[i];
	check_all(s, ck.done, ck.sent);
	close_stack(s);
}

/* ---- deaths ---- */

static uint32_t floor_[CK_SECTORS * 2], ceiling[CK_SECTORS * 2];

/*
 * What is left at this moment: in this order, so that nothing is missed that a claim rests on. power: the host's death, else the
 * process's.
 */
static void take_image(bool power, unsigned *seed)
{
	pthread_mutex_lock(&ck.lock);
	memcpy(floor_, power ? ck.flushed : ck.done, sizeof(floor_));
	for (uint64_t i = 0; i < ck.sectors && !power; i++)
		floor_[i] = ck.writing[i] && ck.sent[i] > ck.done[i] ? ck.done[i] : floor_[i];
	pthread_mutex_unlock(&ck.lock);
	ck_copy_file(map, map2);
	ck_disk_init(AFTER, CK_BYTES, 0);
	if (power) {
		ck_disk_lose(&ck_disk[VOLUME], seed, ck_disk[AFTER].now);
	} else {
		pthread_mutex_lock(&ck_disk[VOLUME].lock);
		memcpy(ck_disk[AFTER].now, ck_disk[VOLUME].now, CK_BYTES);
		pthread_mutex_unlock(&ck_disk[VOLUME].lock);
	}
	memcpy(ck_disk[AFTER].durable, ck_disk[AFTER].now, CK_BYTES);
	pthread_mutex_lock(&ck.lock);
	memcpy(ceiling, ck.sent, sizeof(ceiling));
	pthread_mutex_unlock(&ck.lock);
	if (power) {
		struct bits_settings settings = { .path = map2, .kind = "cow", .unit_bytes = 16384, .count = CK_BYTES / 16384,
						  .boot_id = "another boot" };
		struct bits *b = NULL;
		struct error e = { 0 };
		if (bits_open(&settings, &b, &e))
			fail_msg("%s", e.message);
		bits_close(b);
	}
}

static void die_at_random(bool power)
{
	unsigned seed = ck_seed(), deaths = ck_ops(1500) / 60;

	for (unsigned life = 0; life < 3; life++) {
		const char *options = life == 0 ? "source=ck:n=1,chunk=16k,fill=off" : "source=ck:n=1,chunk=16k,fill-rate=2M";
		struct ck_load *load[2];
		make_disks(CK_BYTES * 3 / 4, life == 2 ? 200 : 30);
		struct blk_stack *s = open_stack("ck:n=0", map, options, 2);
		for (unsigned i = 0; i < 2; i++)
			load[i] = ck_load_new(s, i, seed + life * 10 + i, UINT32_MAX, false);
		for (unsigned i = 0; i < deaths / 3 + 1; i++) {
			usleep((unsigned)rand_r(&seed) % 20000);
			take_image(power, &seed);
			struct blk_stack *after = open_stack("ck:n=2", map2, "source=ck:n=1,chunk=16k,fill=off", 1);
			check_all(after, floor_, ceiling);
			close_stack(after);
		}
		for (unsigned i = 0; i < 2; i++) {
			load[i]->stop = true;
			ck_load_wait(load[i]);
		}
		close_stack(s);
	}
}

static void test_power_loss(void **state)
{
	die_at_random(true);
}

static void test_process_dies(void **state)
{
	die_at_random(false);
}

/* ---- what is refused ---- */

static void refused(const char *options, const char *because)
{
	char spec[512];
	const char *filters[] = { spec, NULL };
	struct blk_stack_settings settings = { drivers, "ck:n=0", filters, 1, BLK_IO_AUTO };
	struct blk_stack *s;
	struct error e = { 0 };

	snprintf(spec, sizeof(spec), "cow:%s", options);
	assert_true(blk_stack_open(&settings, &s, &e) < 0);
	if (!strstr(e.message, because))
		fail_msg("%s: %s", options, e.message);
}

static void test_refusals(void **state)
{
	char spec[256];

	make_disks(CK_BYTES, 0);
	close_stack(open_stack("ck:n=0", map, "source=ck:n=1,chunk=16k,fill=off,source-id=snap-1", 1));
	snprintf(spec, sizeof(spec), "map=%s,source=ck:n=1,chunk=16k,source-id=snap-2", map);
	refused(spec, "snap-1");
	snprintf(spec, sizeof(spec), "map=%s,source=ck:n=1,chunk=32k,source-id=snap-1", map);
	refused(spec, "chunk=16384");
	snprintf(spec, sizeof(spec), "map=%s,source=ck:n=5,chunk=16k,source-id=snap-1", map);
	refused(spec, "no such disk");
	snprintf(spec, sizeof(spec), "map=%s,source=ck:n=1,chunk=20k", map);
	refused(spec, "power of two");
	refused("source=zero", "map");
}

static int setup(void **state)
{
	strcpy(folder, "/tmp/mallee-cow-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(map, sizeof(map), "%s/map", folder);
	snprintf(map2, sizeof(map2), "%s/map2", folder);
	return 0;
}

static int teardown(void **state)
{
	unlink(map);
	unlink(map2);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model), cmocka_unit_test(test_fill), cmocka_unit_test(test_zero_is_written),
		cmocka_unit_test(test_source_fails), cmocka_unit_test(test_errors_at_random), cmocka_unit_test(test_power_loss),
		cmocka_unit_test(test_process_dies), cmocka_unit_test(test_refusals),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
