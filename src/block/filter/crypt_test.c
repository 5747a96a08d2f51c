/* SPDX-License-Identifier: Apache-2.0 */
/* The filter over the disk in memory, which is looked at beside it; random requests are tests/block's. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macros.h"
#include "block/filter/testkit.h"
#include "block/filter/xts_priv.h"
#include "os/file.h"

#define MIB (1u << 20)

static char folder[64], key_path[96], other_path[96], spec[160];
static uint8_t key[XTS_KEY_BYTES];

/* ---- below the filter: what reaches the disk is kept, and may be made to fail ---- */

static struct {
	struct blk_layer *disk;
	unsigned writes, flags;
	uint64_t fail_at;  /* the write that holds this byte fails; UINT64_MAX: none */
} spy;

static void spy_submit(struct blk_layer *l, struct blk_req *r)
{
	if (r->op == BLK_WRITE) {
		spy.writes++;
		spy.flags |= r->flags;
	}
	assert_true(r->op != BLK_WRITE_ZEROES);
	if (r->op == BLK_WRITE && spy.fail_at >= r->off_bytes && spy.fail_at < r->off_bytes + r->len_bytes)
		blk_complete(r, -ENOSPC);
	else
		blk_submit(l->below, r);
}

static int spy_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	spy.disk = l->below;
	spy.fail_at = UINT64_MAX;
	return 0;
}

static const struct blk_layer_ops spy_ops = { .name = "spy", .open = spy_open, .submit = spy_submit };

static const struct blk_layer_ops *const drivers[] = { &blk_crypt_ops, &spy_ops, &blk_mem_ops, NULL };

static struct blk_stack *open_stack(const char *filter, const char *back)
{
	const char *filters[] = { filter, "spy", NULL };
	struct blk_stack_settings settings = { drivers, back, filters, 1, BLK_IO_THREADS };
	struct blk_stack *s = NULL;
	struct error e = { 0 };

	if (blk_stack_open(&settings, &s, &e))
		fail_msg("%s: %s", filter, e.message);
	return s;
}

/* What the disk itself holds: mem answers within its submit. */
static int raw(struct blk_stack *s, enum blk_op op, uint64_t off, void *data, uint64_t len)
{
	struct iovec iov = { data, len };
	bool done = false;
	struct blk_req r = { .op = op, .off_bytes = off, .len_bytes = len, .iov = &iov, .iov_count = 1, .queue = blk_stack_queue(s, 0),
			     .done = kit_done, .ctx = &done };

	blk_submit(spy.disk, &r);
	assert_int_equal(blk_queue_run_until(r.queue, &done, 20000), 0);
	return r.result;
}

static void expect_cipher(struct blk_stack *s, uint32_t sector, uint64_t off, const uint8_t *plain, size_t len)
{
	uint8_t *wanted = malloc(len), *found = malloc(len);
	struct xts *x;

	assert_int_equal(xts_new(key, sector, 1, &x), 0);
	assert_int_equal(xts_encrypt(x, 0, off, plain, wanted, len), 0);
	assert_int_equal(raw(s, BLK_READ, off, found, len), 0);
	assert_memory_equal(found, wanted, len);
	xts_free(x);
	free(wanted);
	free(found);
}

static void fill(uint8_t *data, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)((i * 2654435761u + seed) >> 11);
}

static void test_layout(void **state)
{
	static const struct { const char *option, *back; uint32_t sector; } cases[] = {
		{ "512", "mem:size=16M", 512 },
		{ "512", "mem:size=16M,block-bytes=4096", 512 }, /* the format is not the disk's */
		{ "4096", "mem:size=16M,block-bytes=4096", 4096 },
	};
	uint8_t *data = malloc(8 * MIB), *back = malloc(8 * MIB);

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		snprintf(spec, sizeof(spec), "crypt:sector=%s,key-file=%s", cases[i].option, key_path);
		struct blk_stack *s = open_stack(spec, cases[i].back);
		fill(data, 8 * MIB, i);
		assert_int_equal(kit_io(s, BLK_WRITE, 0, 4096, data, 4096), 0);
		expect_cipher(s, cases[i].sector, 4096, data, 4096);
		/* longer than all the pages of a queue */
		assert_int_equal(kit_io(s, BLK_WRITE, 0, MIB, data, 8 * MIB), 0);
		expect_cipher(s, cases[i].sector, MIB, data, 8 * MIB);
		assert_int_equal(kit_io(s, BLK_READ, 0, MIB, back, 8 * MIB), 0);
		assert_memory_equal(back, data, 8 * MIB);
		assert_int_equal(blk_stack_close(s, NULL), 0);
	}
	free(data);
	free(back);
}

static void test_guest_memory_is_left_alone(void **state)
{
	struct blk_stack *s = open_stack(spec, "mem:size=4M");
	uint8_t *data = malloc(MIB + 3), *copy = malloc(MIB + 3);
	struct iovec iov[3] = { { data + 1, 700 }, { data + 701, 100 }, { data + 801, MIB - 800 } };
	struct blk_req r = { .op = BLK_WRITE, .len_bytes = MIB, .iov = iov, .iov_count = 3 };

	fill(data, MIB + 3, 9);
	memcpy(copy, data, MIB + 3);
	assert_int_equal(kit_request(s, &r), 0);
	assert_memory_equal(data, copy, MIB + 3);
	expect_cipher(s, 512, 0, copy + 1, MIB);
	memset(data, 0, MIB + 3);
	r = (struct blk_req){ .op = BLK_READ, .len_bytes = MIB, .iov = iov, .iov_count = 3 };
	assert_int_equal(kit_request(s, &r), 0);
	assert_memory_equal(data + 1, copy + 1, MIB);
	assert_int_equal(data[0] | data[MIB + 1], 0);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	free(data);
	free(copy);
}

static void test_zeroes_and_discards(void **state)
{
	struct blk_stack *s = open_stack(spec, "mem:size=64M");
	uint8_t *data = malloc(MIB), *zeroes = calloc(1, MIB);

	assert_false(blk_stack_info(s)->fast_zeroes);
	assert_true(blk_stack_info(s)->encrypted);
	assert_int_equal(kit_io(s, BLK_WRITE_ZEROES, BLK_MAY_UNMAP | BLK_FUA, 0, NULL, 64 * MIB), 0);
	assert_true(spy.writes >= 64u * 4 && spy.flags == BLK_FUA);
	for (unsigned i = 0; i < 64; i += 9) {
		assert_int_equal(kit_io(s, BLK_READ, 0, i * (uint64_t)MIB, data, MIB), 0);
		assert_true(kit_all(data, MIB, 0));
		expect_cipher(s, 512, i * (uint64_t)MIB, zeroes, MIB);
	}
	fill(data, MIB, 3);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, data, MIB), 0);
	assert_int_equal(kit_io(s, BLK_WRITE_ZEROES, 0, 512, NULL, 1024), 0);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, zeroes, 2048), 0);
	assert_memory_equal(zeroes, data, 512);
	assert_true(kit_all(zeroes + 512, 1024, 0));
	assert_memory_equal(zeroes + 1536, data + 1536, 512);
	/* A discard reaches the disk; what is read then is rubbish, and a write mends it. */
	assert_int_equal(kit_io(s, BLK_DISCARD, 0, 0, NULL, MIB), 0);
	assert_int_equal(raw(s, BLK_READ, 0, zeroes, MIB), 0);
	assert_true(kit_all(zeroes, MIB, 0));
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, zeroes, MIB), 0);
	assert_false(kit_all(zeroes, MIB, 0));
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, data, MIB), 0);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, zeroes, MIB), 0);
	assert_memory_equal(zeroes, data, MIB);
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	free(data);
	free(zeroes);
}

static void test_errors(void **state)
{
	struct blk_stack *s = open_stack(spec, "mem:size=32M");
	uint8_t *data = calloc(1, 8 * MIB);

	spy.fail_at = 3 * MIB + 512;
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, data, 8 * MIB), -ENOSPC);
	assert_int_equal(kit_io(s, BLK_WRITE_ZEROES, 0, 0, NULL, 32 * MIB), -ENOSPC);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 4 * MIB, data, MIB), 0);
	spy.fail_at = UINT64_MAX;
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, data, 8 * MIB), 0);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	free(data);
}

/* Many at once, more than there are pages and pieces: all end, none is mixed up. */
static void count_done(struct blk_req *r)
{
	unsigned *left = r->ctx;

	assert_int_equal(r->result, 0);
	--*left;
}

static void test_crowd(void **state)
{
	enum { COUNT = 600, BYTES = 48 << 10 };
	struct blk_stack *s = open_stack(spec, "mem:size=64M");
	static struct blk_req req[COUNT];
	static struct iovec iov[COUNT];
	uint8_t *data = malloc((size_t)COUNT * BYTES), *back = malloc((size_t)COUNT * BYTES);
	unsigned left = COUNT + 1;
	struct blk_req zero = { .op = BLK_WRITE_ZEROES, .off_bytes = (uint64_t)COUNT * BYTES, .len_bytes = 16 * MIB,
				.queue = blk_stack_queue(s, 0), .done = count_done, .ctx = &left };

	fill(data, (size_t)COUNT * BYTES, 1);
	for (unsigned round = 0; round < 2; round++) {
		if (!round)
			blk_submit(blk_stack_top(s), &zero); /* not through the gate, which would let only so many in */
		for (unsigned i = 0; i < COUNT; i++) {
			iov[i] = (struct iovec){ (round ? back : data) + (size_t)i * BYTES, BYTES };
			req[i] = (struct blk_req){ .op = round ? BLK_READ : BLK_WRITE, .off_bytes = (uint64_t)i * BYTES, .len_bytes = BYTES, .iov = &iov[i],
						   .iov_count = 1, .queue = blk_stack_queue(s, 0), .done = count_done, .ctx = &left };
			blk_submit(blk_stack_top(s), &req[i]);
		}
		while (left)
			kit_run(s, 1);
		left = COUNT;
	}
	assert_memory_equal(back, data, (size_t)COUNT * BYTES);
	kit_run(s, 2500); /* the pages go when nobody is there for a while */
	assert_int_equal(blk_stack_close(s, NULL), 0);
	free(data);
	free(back);
}

static void test_wrong_key(void **state)
{
	char file[128];
	const char *disk = "mem:size=1M";
	uint8_t data[8192], back[8192];

	/* Two filters of different keys on one disk in turn: the disk in memory goes with its stack, so its bytes are carried over. */
	snprintf(file, sizeof(file), "crypt:key-file=%s", other_path);
	fill(data, sizeof(data), 4);
	struct blk_stack *s = open_stack(spec, disk);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, data, sizeof(data)), 0);
	assert_int_equal(raw(s, BLK_READ, 0, back, sizeof(back)), 0);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	s = open_stack(file, disk);
	assert_int_equal(raw(s, BLK_WRITE, 0, back, sizeof(back)), 0);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, back, sizeof(back)), 0);
	for (unsigned i = 0; i < sizeof(back); i += 16)
		assert_memory_not_equal(back + i, data + i, 16);
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

/* ---- the scratch of a view above ---- */

static void view_read(struct blk_stack *s, struct blk_layer *view, uint64_t off, void *data, uint64_t len)
{
	struct iovec iov = { data, len };
	bool done = false;
	struct blk_req r = { .op = BLK_READ, .off_bytes = off, .len_bytes = len, .iov = &iov, .iov_count = 1, .queue = blk_stack_queue(s, 0),
			     .done = kit_done, .ctx = &done };

	blk_submit(view, &r);
	assert_int_equal(blk_queue_run_until(r.queue, &done, 20000), 0);
	assert_int_equal(r.result, 0);
}

/* A view of what was, its scratch found by another name; whether that has a sector of what was overwritten. */
static bool scratch_shows(const char *filter, unsigned views)
{
	const struct blk_layer_ops *const table[] = { &blk_snap_ops, &blk_crypt_ops, &blk_mem_ops, NULL };
	const char *filters[] = { "snap:chunk=16k", filter, NULL };
	struct blk_stack_settings settings = { table, "mem:size=1M", filters, 1, BLK_IO_THREADS };
	char path[128], link_path[128], args[300], name[8];
	static uint8_t old[256 << 10], back[256 << 10], changed[64 << 10];
	char *kept;
	struct blk_stack *s = NULL;
	struct error e = { 0 };
	bool shows = false;
	size_t len;

	fill(old, sizeof(old), 77);
	assert_int_equal(blk_stack_open(&settings, &s, &e), 0);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, old, sizeof(old)), 0);
	struct blk_layer *snap = blk_stack_layer(s, "snap"), *view[2];
	for (unsigned i = 0; i < views; i++) {
		snprintf(path, sizeof(path), "%s/scratch", folder);
		snprintf(link_path, sizeof(link_path), "%s/scratch-%u", folder, i);
		snprintf(name, sizeof(name), "v%u", i);
		assert_int_equal(file_write_atomic(path, "", 0, 0600), 0);
		assert_int_equal(link(path, link_path), 0);
		snprintf(args, sizeof(args), "name=%s,scratch=%s,scratch-size=512k", name, path);
		kit_command(s, "snap", "begin", args);
		view[i] = snap->ops->view(snap, name, &e);
		assert_non_null(view[i]);
	}
	for (unsigned i = 0; i < 4; i++) /* one by one, two side by side, out of order */
		assert_int_equal(kit_io(s, BLK_WRITE, 0, (i * 3 % 4) * 40960ull, changed, i == 2 ? 32768 : 4096), 0);
	for (unsigned i = 0; i < views; i++) {
		view_read(s, view[i], 0, back, sizeof(back));
		assert_memory_equal(back, old, sizeof(old));
		view_read(s, view[i], 40960 + 512, back, 1536);
		assert_memory_equal(back, old + 40960 + 512, 1536);
		snprintf(link_path, sizeof(link_path), "%s/scratch-%u", folder, i);
		assert_int_equal(file_read(link_path, MIB, &kept, &len), 0);
		assert_true(len >= 5u << 14);
		for (size_t at = 0; at < sizeof(old); at += 512)
			shows |= memmem(kept, len, old + at, 32) != NULL;
		free(kept);
		unlink(link_path);
		snap->ops->view_release(snap, view[i]);
		snprintf(args, sizeof(args), "name=v%u", i);
		kit_command(s, "snap", "end", args);
	}
	assert_int_equal(blk_stack_close(s, NULL), 0);
	return shows;
}

static void test_scratch(void **state)
{
	assert_true(scratch_shows(NULL, 1)); /* it would be seen */
	assert_true(scratch_shows(NULL, 2));
	assert_false(scratch_shows(spec, 1));
	assert_false(scratch_shows(spec, 2));
}

static void refused(const char *filter, const char *back, const char *why)
{
	struct blk_stack *s;
	struct error e = { 0 };

	assert_true(kit_try(&blk_crypt_ops, filter, back, 1, &s, &e) < 0);
	if (!strstr(e.message, why))
		fail_msg("%s: \"%s\" does not say \"%s\"", filter, e.message, why);
}

static void test_refusals(void **state)
{
	char bad[96], text[160];

	refused("crypt", "mem:size=1M", "key-file= is missing");
	refused("crypt:key-file=/nowhere/key", "mem:size=1M", "opening the key file /nowhere/key");
	snprintf(text, sizeof(text), "crypt:sector=4096,key-file=%s", key_path);
	refused(text, "mem:size=1M", "more than a block of the disk (512)");
	snprintf(bad, sizeof(bad), "%s/bad", folder);
	snprintf(text, sizeof(text), "crypt:key-file=%s", bad);
	uint8_t alike[XTS_KEY_BYTES];
	memset(alike, 7, sizeof(alike));
	assert_int_equal(file_write_atomic(bad, alike, sizeof(alike), 0400), 0);
	refused(text, "mem:size=1M", "its two halves are the same");
	assert_int_equal(file_write_atomic(bad, key, 32, 0400), 0);
	refused(text, "mem:size=1M", "exactly 64");
	assert_int_equal(file_write_atomic(bad, key, 64, 0440), 0);
	refused(text, "mem:size=1M", "mode 0440");
}

static int setup(void **state)
{
	uint8_t other[XTS_KEY_BYTES];

	snprintf(folder, sizeof(folder), "/tmp/mallee-crypt-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(key_path, sizeof(key_path), "%s/key", folder);
	snprintf(other_path, sizeof(other_path), "%s/other", folder);
	for (unsigned i = 0; i < sizeof(key); i++) {
		key[i] = (uint8_t)(i * 37 + 11);
		other[i] = key[i] ^ (i == 5);
	}
	snprintf(spec, sizeof(spec), "crypt:key-file=%s", key_path);
	return file_write_atomic(key_path, key, sizeof(key), 0400) || file_write_atomic(other_path, other, sizeof(other), 0600);
}

static int teardown(void **state)
{
	return dir_remove(folder);
}

static int fresh(void **state)
{
	memset(&spy, 0, sizeof(spy));
	snprintf(spec, sizeof(spec), "crypt:key-file=%s", key_path);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_layout, fresh),
		cmocka_unit_test_setup(test_guest_memory_is_left_alone, fresh),
		cmocka_unit_test_setup(test_zeroes_and_discards, fresh),
		cmocka_unit_test_setup(test_errors, fresh),
		cmocka_unit_test_setup(test_crowd, fresh),
		cmocka_unit_test_setup(test_wrong_key, fresh),
		cmocka_unit_test_setup(test_scratch, fresh),
		cmocka_unit_test_setup(test_refusals, fresh),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
