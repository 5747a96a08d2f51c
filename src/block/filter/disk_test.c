/* SPDX-License-Identifier: Apache-2.0 */
#include "block/filter/filter.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macros.h"
#include "block/filter/disk_priv.h"
#include "block/filter/testkit.h"

#define MS 1000000ull
#define MB 1000000ull

/* ---- the model, with a clock of its own ---- */

static struct disk_model barracuda(bool elevator)
{
	return (struct disk_model){ .rate = 112 * MB, .seek_ns = 8 * MS, .near_bytes = 8 << 20, .flush_ns = 8 * MS, .elevator = elevator };
}

static uint64_t serve(struct disk_model *m, enum blk_op op, unsigned flags, uint64_t off, uint64_t len, uint64_t at)
{
	struct blk_req r = { .op = op, .flags = flags, .off_bytes = off, .len_bytes = len, .scratch = { at } };

	blk_list_push(&m->waiting, &r);
	assert_ptr_equal(disk_model_next(m), &r);
	assert_null(disk_model_next(m));
	return r.scratch[1];
}

static void test_service(void **state)
{
	struct disk_model m = barracuda(false);
	uint64_t t = 1000 * MS;

	assert_int_equal(serve(&m, BLK_READ, 0, 0, 112000, t), t + MS);
	assert_int_equal(serve(&m, BLK_READ, 0, 112000, 112000, t), t + 2 * MS); /* waits for the head */
	assert_int_equal(serve(&m, BLK_READ, 0, 112000 * 2 + (8 << 20), 112000, t + 5 * MS), t + 6 * MS); /* near: idle between */
	assert_int_equal(serve(&m, BLK_READ, 0, 0, 112000, t), t + 15 * MS); /* back, with a seek */
	assert_int_equal(serve(&m, BLK_FLUSH, 0, 0, 0, t + 20 * MS), t + 20 * MS); /* nothing was written */
	assert_int_equal(serve(&m, BLK_WRITE, 0, 112000, 112000, t + 20 * MS), t + 21 * MS);
	assert_int_equal(serve(&m, BLK_FLUSH, 0, 0, 0, t + 20 * MS), t + 29 * MS);
	assert_int_equal(serve(&m, BLK_FLUSH, 0, 0, 0, t + 20 * MS), t + 29 * MS);
	assert_int_equal(serve(&m, BLK_WRITE, BLK_FUA, 224000, 112000, t + 30 * MS), t + 39 * MS);
	assert_int_equal(m.seeks, 1);
	assert_int_equal(m.flushes, 2);
	assert_int_equal(m.bytes, 6 * 112000);
	assert_int_equal(m.busy_ns, (6 + 8 + 8 + 8) * MS);
	/* a sequential stream at any size goes at the rate */
	m = barracuda(false);
	for (unsigned i = 0; i < 112000; i++)
		t = serve(&m, BLK_READ, 0, i * 1000, 1000, 0);
	assert_in_range(t, 999 * MS, 1000 * MS);
}

static void test_elevator(void **state)
{
	static const uint64_t places[] = { 50, 10, 40, 90, 20, 60 }, fifo[] = { 50, 10, 40, 90, 20, 60 }, sorted[] = { 50, 60, 90, 10, 20, 40 };

	for (unsigned pass = 0; pass < 2; pass++) {
		struct disk_model m = barracuda(pass == 1);
		struct blk_req r[6], *next;
		m.head_bytes = 45ull << 30;
		for (unsigned i = 0; i < 6; i++) {
			r[i] = (struct blk_req){ .op = BLK_READ, .off_bytes = places[i] << 30, .len_bytes = 4096 };
			blk_list_push(&m.waiting, &r[i]);
		}
		for (unsigned i = 0; i < 6; i++) {
			next = disk_model_next(&m);
			assert_int_equal(next->off_bytes >> 30, pass ? sorted[i] : fifo[i]);
		}
		assert_null(disk_model_next(&m));
	}
	/* A stream ahead of the head does not hold up the one behind it for ever; and who has not come yet is not served. */
	struct disk_model m = barracuda(true);
	m.head_bytes = 1 << 30;
	struct blk_req behind = { .op = BLK_READ, .len_bytes = 4096 }, *next;
	blk_list_push(&m.waiting, &behind);
	static struct blk_req ahead[2000];
	unsigned n = 0;
	do {
		assert_true(n < ARRAY_SIZE(ahead));
		ahead[n] = (struct blk_req){ .op = BLK_READ, .off_bytes = (1ull << 30) + n * 65536ull, .len_bytes = 65536, .scratch = { m.free_ns } };
		blk_list_push(&m.waiting, &ahead[n++]);
		next = disk_model_next(&m);
	} while (next != &behind);
	assert_in_range(behind.scratch[1], 500 * MS, 530 * MS);
	m = barracuda(true);
	struct blk_req now = { .op = BLK_READ, .off_bytes = 1 << 30, .len_bytes = 4096 };
	struct blk_req later = { .op = BLK_READ, .len_bytes = 4096, .scratch = { 5 * MS } };
	blk_list_push(&m.waiting, &now);
	blk_list_push(&m.waiting, &later);
	assert_ptr_equal(disk_model_next(&m), &now);
}

/* ---- the filter ---- */

static void test_refusals(void **state)
{
	static const char *const bad[] = { "disk:preset=plain", "disk:preset=ssd", "disk:rate=0", "disk:order=random" };
	struct blk_stack *s;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error e = { 0 };
		assert_true(kit_try(&blk_disk_ops, bad[i], "mem:size=1M", 1, &s, &e) < 0);
	}
}

static void test_info(void **state)
{
	struct blk_stack *s = kit_open(&blk_disk_ops, "disk", "mem:size=64M", 1);
	const struct blk_info *info = blk_stack_info(s);
	char data[4096] = "";

	assert_true(info->rotational && info->volatile_cache && !info->discard_bytes && !info->fast_zeroes);
	double start = kit_now();
	kit_run(s, 1); /* a request comes when its queue last looked at the clock */
	assert_int_equal(kit_io(s, BLK_READ, 0, 32 << 20, data, 4096), 0);
	assert_true(kit_now() - start >= 0.007);
	start = kit_now();
	kit_run(s, 1);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 32 << 20, data, 4096), 0);
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0);
	assert_true(kit_now() - start >= 0.007);
	assert_int_equal(kit_io(s, BLK_DISCARD, 0, 0, NULL, 64 << 20), 0);
	assert_int_equal(kit_io(s, BLK_WRITE_ZEROES, 0, 32 << 20, NULL, 1 << 20), 0);
	assert_int_equal(blk_stack_resize(s, 128 << 20, NULL), 0);
	assert_int_equal(blk_stack_info(s)->size_bytes, 128 << 20);
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

struct stream {
	struct blk_stack *stack;
	struct blk_req r[16];
	struct iovec iov;
	char *data;
	uint64_t next, bytes;
	unsigned running;
	double gap, last;     /* the longest time without a word */
	bool stop, ended;
};

static void stream_next(struct blk_req *r)
{
	struct stream *st = r->ctx;
	double now = kit_now();

	st->gap = MAX_OF(st->gap, now - st->last);
	st->last = now;
	st->bytes += r->len_bytes;
	if (st->stop) {
		st->ended = --st->running == 0;
		return;
	}
	r->off_bytes = st->next;
	st->next = (st->next + r->len_bytes) % (64 << 20);
	blk_stack_submit(st->stack, r);
}

static void measure(const char *spec, enum blk_op op, size_t len, unsigned depth, double want)
{
	struct blk_stack *s = kit_open(&blk_disk_ops, spec, "mem:size=64M", 1);
	struct stream st = { .stack = s, .running = depth, .data = calloc(1, len), .next = depth * len };

	st.iov = (struct iovec){ st.data, len };
	for (unsigned i = 0; i < depth; i++) {
		st.r[i] = (struct blk_req){ .op = op, .off_bytes = i * len, .len_bytes = len, .iov = &st.iov, .iov_count = 1,
					    .queue = blk_stack_queue(s, 0), .done = stream_next, .ctx = &st };
		blk_stack_submit(s, &st.r[i]);
	}
	st.last = kit_now();
	kit_run(s, 50);
	uint64_t before = st.bytes;
	double start = kit_now();
	st.gap = 0;
	kit_run(s, 400);
	double rate = (double)(st.bytes - before) / (kit_now() - start) / 1e6;
	print_message("%s %zu bytes depth %u: %.1f MB/s of %.1f, longest gap %.1f ms\n", spec, len, depth, rate, want, st.gap * 1e3);
	/* What waits covers a late timer; a machine that had no processor for longer says nothing about the disk. */
	double covered = (double)(depth - 1) * (double)len / 1e6 / want;
	if (st.gap < covered)
		assert_true(rate > 0.97 * want);
	assert_true(rate < 1.04 * want + (double)len / 4e5); /* one more or less in 400 ms */
	st.stop = true;
	assert_int_equal(blk_queue_run_until(blk_stack_queue(s, 0), &st.ended, 5000), 0);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	free(st.data);
}

static void test_rate(void **state)
{
	measure("disk", BLK_READ, 65536, 16, 112);
	measure("disk", BLK_WRITE, 512 << 10, 4, 112);
	measure("disk", BLK_READ, 65536, 1, 112);
	measure("disk:rate=37000000", BLK_READ, 65536, 4, 37);
	measure("disk:order=elevator", BLK_READ, 65536, 8, 112);
	measure("disk:preset=plain,rate=1000000000", BLK_READ, 4096, 16, 1000); /* 4 us each: several to a timer */
}

/* Random I/O against an array: several at once in places of their own, in both orders. */
#define SLOTS 24u
#define SLOT 16384u

struct slot {
	struct blk_req r;
	struct iovec iov;
	unsigned char data[SLOT], model[SLOT];
	unsigned *left;
	bool *all;
};

static void slot_done(struct blk_req *r)
{
	struct slot *slot = r->ctx;

	if (!--*slot->left)
		*slot->all = true;
}

static void run_batch(struct blk_stack *s, struct slot *slots, unsigned *seed)
{
	unsigned left = SLOTS;
	bool all = false;

	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *slot = &slots[i];
		unsigned off = (unsigned)rand_r(seed) % 32, len = 1 + (unsigned)rand_r(seed) % (32 - off), what = (unsigned)rand_r(seed) % 8;
		slot->left = &left;
		slot->all = &all;
		slot->iov = (struct iovec){ slot->data, len * 512 };
		slot->r = (struct blk_req){ .op = BLK_READ, .off_bytes = i * (uint64_t)SLOT + off * 512, .len_bytes = len * 512, .iov = &slot->iov,
					    .iov_count = 1, .queue = blk_stack_queue(s, 0), .done = slot_done, .ctx = slot };
		if (what < 3) {
			slot->r.op = BLK_WRITE;
			slot->r.flags = what ? 0 : BLK_FUA;
			memset(slot->data, rand_r(seed), len * 512);
			memcpy(slot->model + off * 512, slot->data, len * 512);
		} else if (what == 3) {
			slot->r.op = BLK_WRITE_ZEROES;
			memset(slot->model + off * 512, 0, len * 512);
		} else if (what == 4) {
			slot->r.op = BLK_FLUSH;
			slot->r.off_bytes = slot->r.len_bytes = 0;
		}
		blk_stack_submit(s, &slot->r);
	}
	assert_int_equal(blk_queue_run_until(blk_stack_queue(s, 0), &all, 20000), 0);
	for (unsigned i = 0; i < SLOTS; i++) {
		assert_int_equal(slots[i].r.result, 0);
		if (slots[i].r.op == BLK_READ)
			assert_memory_equal(slots[i].data, slots[i].model + slots[i].r.off_bytes % SLOT, slots[i].r.len_bytes);
	}
}

static void test_model(void **state)
{
	unsigned seed = getenv("MALLEE_MODEL_SEED") ? (unsigned)atoi(getenv("MALLEE_MODEL_SEED")) : 3;
	unsigned ops = getenv("MALLEE_MODEL_OPS") ? (unsigned)atoi(getenv("MALLEE_MODEL_OPS")) : 20000;

	print_message("seed %u\n", seed);
	for (unsigned pass = 0; pass < 2; pass++) {
		struct slot *slots = calloc(SLOTS, sizeof(*slots));
		struct blk_stack *s = kit_open(&blk_disk_ops, pass ? "disk:preset=plain,rate=1G,order=elevator" : "disk:preset=plain,rate=1G",
					       "mem:size=1M", 1);
		for (unsigned n = 0; n < ops / 2; n += SLOTS)
			run_batch(s, slots, &seed);
		assert_int_equal(blk_stack_close(s, NULL), 0);
		free(slots);
	}
}

/* One head for several queues, more in them than there are children, and nobody is forgotten. */
#define DEPTH 400u

struct load {
	struct blk_stack *stack;
	struct blk_req r[DEPTH];
	struct iovec iov;
	char data[512];
	unsigned left, running;
	uint64_t off;
	_Atomic bool ended;
};

static void again(struct blk_req *r)
{
	struct load *load = r->ctx;

	if (load->left) {
		load->left--;
		r->op = load->left % 50 ? BLK_READ : BLK_FLUSH;
		r->len_bytes = r->op == BLK_FLUSH ? 0 : 512;
		r->off_bytes = r->op == BLK_FLUSH ? 0 : load->off + load->left % 256 * 512;
		blk_submit(blk_stack_top(load->stack), r); /* past the gate, which would let 256 in */
	} else if (!--load->running) {
		atomic_store(&load->ended, true);
	}
}

static void load_start(void *ctx)
{
	struct load *load = ctx;

	load->running = DEPTH;
	for (unsigned i = 0; i < DEPTH; i++)
		again(&load->r[i]);
}

static void test_queues(void **state)
{
	static struct load load[3];

	for (unsigned pass = 0; pass < 2; pass++) {
		struct blk_stack *s = kit_open(&blk_disk_ops, pass ? "disk:preset=plain,rate=100M,order=elevator" : "disk:preset=plain,rate=100M",
					       "mem:size=1M", 3);
		assert_int_equal(blk_stack_start(s, NULL), 0);
		for (unsigned i = 0; i < 3; i++) {
			load[i] = (struct load){ .stack = s, .left = 10000, .off = i * (256u << 10) };
			load[i].iov = (struct iovec){ load[i].data, 512 };
			for (unsigned k = 0; k < DEPTH; k++)
				load[i].r[k] = (struct blk_req){ .queue = blk_stack_queue(s, i), .iov = &load[i].iov, .iov_count = 1,
								 .done = again, .ctx = &load[i] };
			blk_queue_call(blk_stack_queue(s, i), load_start, &load[i]);
		}
		for (unsigned i = 0; i < 3; i++) {
			while (!atomic_load(&load[i].ended))
				usleep(1000);
		}
		assert_int_equal(blk_stack_close(s, NULL), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_service), cmocka_unit_test(test_elevator), cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_info),	cmocka_unit_test(test_rate),	 cmocka_unit_test(test_model),
		cmocka_unit_test(test_queues),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
