/* SPDX-License-Identifier: Apache-2.0 */
#include "block/back/back.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macros.h"
#include "block/back/file_testkit.h"

/* ---- opening ---- */

static void test_refusals(void **state)
{
	struct place *p = *state;
	struct error e = { 0 };

	assert_true(try_open(spec(p, ""), &e) < 0); /* no such file */
	make_file(p, 1000);
	assert_true(try_open(spec(p, ",direct=off"), &e) < 0);
	assert_non_null(strstr(e.message, "multiple of 512"));
	make_file(p, 0);
	assert_true(try_open(spec(p, ",direct=off"), &e) < 0);
	assert_true(try_open(spec(p, ",create=1000"), &e) < 0);
	assert_true(try_open(spec(p, ",create=1M,read-only=on"), &e) < 0);
	assert_true(try_open("file:path=/dev/null", &e) < 0);
	assert_true(try_open("file:path=/", &e) < 0);
	assert_int_equal(unlink(p->path), 0);
	assert_int_equal(mkfifo(p->path, 0600), 0);
	assert_true(try_open(spec(p, ""), &e) < 0);
}

static void test_create(void **state)
{
	struct place *p = *state;
	struct stat st;

	struct blk_stack *s = kit_open(drivers, spec(p, ",create=1M,direct=off"), BLK_IO_AUTO, 1);
	assert_int_equal(blk_stack_info(s)->size_bytes, 1 << 20);
	assert_false(blk_stack_info(s)->read_only);
	assert_true(blk_stack_info(s)->volatile_cache);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	s = kit_open(drivers, spec(p, ",create=2M,direct=off"), BLK_IO_AUTO, 1); /* it is there, and stays as it is */
	assert_int_equal(blk_stack_info(s)->size_bytes, 1 << 20);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	assert_int_equal(stat(p->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void test_lock(void **state)
{
	struct place *p = *state;
	struct error e = { 0 };
	int ready[2];
	char pid_text[32], c;

	make_file(p, 1 << 20);
	assert_int_equal(pipe(ready), 0);
	pid_t pid = fork();
	if (!pid) {
		int fd = open(p->path, O_RDWR);
		flock(fd, LOCK_EX);
		_unused_ ssize_t n = write(ready[1], "x", 1);
		pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_true(try_open(spec(p, ",direct=off,lock-wait=50"), &e) < 0);
	snprintf(pid_text, sizeof(pid_text), "process %d,", (int)pid);
	assert_string_equal(e.code, "InUse");
	assert_non_null(strstr(e.message, pid_text));
	assert_true(try_open(spec(p, ",direct=off,read-only=on,lock-wait=50"), &e) < 0);
	kill(pid, SIGKILL);
	assert_int_equal(try_open(spec(p, ",direct=off,lock-wait=10000"), &e), 0);
	waitpid(pid, NULL, 0);

	struct blk_stack *s = kit_open(drivers, spec(p, ",direct=off,read-only=on"), BLK_IO_AUTO, 1);
	assert_int_equal(try_open(spec(p, ",direct=off,read-only=on,lock-wait=0"), &e), 0);
	assert_true(try_open(spec(p, ",direct=off,lock-wait=0"), &e) < 0);
	char data[512] = "";
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, data, 512), -EROFS);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, 512), 0);
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0);
	assert_true(blk_stack_resize(s, 2 << 20, &e) < 0);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	close(ready[0]);
	close(ready[1]);
}

/* Who waits for the lock of a file that is replaced meanwhile gets the new one. */
static void test_replaced(void **state)
{
	struct place *p = *state;
	char moved[200];

	make_file(p, 1 << 20);
	int fd = open(p->path, O_RDWR);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	pid_t pid = fork();
	if (!pid) {
		close(fd); /* or it would have the lock as well */
		struct error e = { 0 };
		struct blk_stack_settings settings = { drivers, spec(p, ",direct=off"), NULL, 1, BLK_IO_AUTO };
		struct blk_stack *s;
		if (blk_stack_open(&settings, &s, &e))
			_exit(1);
		_exit(blk_stack_info(s)->size_bytes == 2 << 20 ? 0 : 2);
	}
	usleep(100000);
	snprintf(moved, sizeof(moved), "%s.old", p->path);
	assert_int_equal(rename(p->path, moved), 0);
	make_file(p, 2 << 20);
	close(fd);
	int status = -1;
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- a random model, several requests at once ---- */

#define SLOTS 16
#define SLOT (128u << 10)

struct slot {
	struct blk_req r;
	struct iovec iov[3];
	unsigned char *data, *model; /* model: of this slot's range */
	bool undefined;              /* discarded and not written since */
	unsigned *left;
	bool *all;
};

static void slot_done(struct blk_req *r)
{
	struct slot *slot = r->ctx;

	if (!--*slot->left)
		*slot->all = true;
}

static unsigned rnd(unsigned *seed, unsigned below)
{
	return (unsigned)rand_r(seed) % below;
}

static void slot_plan(struct slot *slot, unsigned index, unsigned *seed, bool discard)
{
	unsigned sectors = SLOT / 512, off = rnd(seed, sectors), len = 1 + rnd(seed, rnd(seed, 8) ? 16 : sectors);
	struct blk_req *r = &slot->r;

	len = MIN_OF(len, sectors - off) * 512;
	off *= 512;
	r->off_bytes = index * (uint64_t)SLOT + off;
	r->len_bytes = len;
	r->flags = rnd(seed, 4) ? 0 : BLK_FUA;
	r->iov = slot->iov;
	/* Half of them in memory that direct I/O can't use. */
	unsigned char *data = slot->data + (rnd(seed, 2) ? 0 : 1 + rnd(seed, 500));
	unsigned cut = rnd(seed, 2) ? rnd(seed, len / 512 + 1) * 512 : rnd(seed, len + 1), used = 0;
	slot->iov[used++] = (struct iovec){ data, cut };
	slot->iov[used++] = (struct iovec){ data + cut, len - cut };
	r->iov_count = used;
	switch (rnd(seed, discard ? 7 : 6)) {
	case 0:
	case 1:
		r->op = BLK_WRITE;
		for (unsigned i = 0; i < len; i++)
			data[i] = (unsigned char)rand_r(seed);
		memcpy(slot->model + off, data, len);
		break;
	case 2:
		r->op = BLK_WRITE_ZEROES;
		r->flags |= rnd(seed, 2) ? BLK_MAY_UNMAP : 0;
		memset(slot->model + off, 0, len);
		break;
	case 3:
		r->op = BLK_FLUSH;
		r->off_bytes = r->len_bytes = 0;
		break;
	case 6:
		r->op = BLK_DISCARD; /* the whole slot is written again at once, see below */
		r->off_bytes = index * (uint64_t)SLOT;
		r->len_bytes = SLOT;
		slot->undefined = true;
		break;
	default:
		r->op = BLK_READ;
		memset(slot->data, 0xee, SLOT + 512);
	}
}

static void slot_check(struct slot *slot, unsigned index)
{
	struct blk_req *r = &slot->r;

	assert_int_equal(r->result, 0);
	if (r->op == BLK_READ)
		assert_memory_equal(slot->iov[0].iov_base, slot->model + (r->off_bytes - index * (uint64_t)SLOT), r->len_bytes);
}

static void run_batch(struct blk_stack *s, struct slot *slots)
{
	unsigned left = SLOTS;
	bool all = false;

	for (unsigned i = 0; i < SLOTS; i++) {
		slots[i].r.queue = blk_stack_queue(s, 0);
		slots[i].r.done = slot_done;
		slots[i].r.ctx = &slots[i];
		slots[i].left = &left;
		slots[i].all = &all;
		blk_stack_submit(s, &slots[i].r);
	}
	assert_int_equal(blk_queue_run_until(blk_stack_queue(s, 0), &all, 60000), 0);
	for (unsigned i = 0; i < SLOTS; i++)
		slot_check(&slots[i], i);
}

static void run_model(struct place *p, const char *options, enum blk_io_engine engine, bool discard)
{
	struct slot *slots = calloc(SLOTS, sizeof(*slots));
	unsigned seed = getenv("MALLEE_MODEL_SEED") ? (unsigned)atoi(getenv("MALLEE_MODEL_SEED")) : 7;
	unsigned batches = (getenv("MALLEE_MODEL_OPS") ? (unsigned)atoi(getenv("MALLEE_MODEL_OPS")) : 1600) / SLOTS;

	print_message("%s engine %d seed %u\n", options, (int)engine, seed);
	unlink(p->path);
	struct blk_stack *s = kit_open(drivers, spec(p, options), engine, 1);
	for (unsigned i = 0; i < SLOTS; i++) {
		slots[i].data = aligned_alloc(4096, SLOT + 4096);
		slots[i].model = calloc(1, SLOT);
	}
	for (unsigned b = 0; b < batches; b++) {
		for (unsigned i = 0; i < SLOTS; i++)
			slot_plan(&slots[i], i, &seed, discard);
		run_batch(s, slots);
		for (unsigned i = 0; i < SLOTS; i++) {
			if (!slots[i].undefined)
				continue;
			slots[i].undefined = false;
			memset(slots[i].data, (int)b, SLOT);
			memcpy(slots[i].model, slots[i].data, SLOT);
			assert_int_equal(kit_io(s, BLK_WRITE, 0, (uint64_t)i * SLOT, slots[i].data, SLOT), 0);
		}
	}
	assert_int_equal(blk_stack_close(s, NULL), 0);
	/* and all of it, as another sees it */
	int fd = open(p->path, O_RDONLY);
	for (unsigned i = 0; i < SLOTS; i++) {
		assert_int_equal(pread(fd, slots[i].data, SLOT, (off_t)i * SLOT), SLOT);
		assert_memory_equal(slots[i].data, slots[i].model, SLOT);
		free(slots[i].data);
		free(slots[i].model);
	}
	close(fd);
	free(slots);
}

static void test_model_direct(void **state)
{
	struct place *p = *state;

	if (!direct_works(p))
		skip();
	run_model(p, ",create=2M", BLK_IO_AUTO, false);
	run_model(p, ",create=2M,discard=on", BLK_IO_THREADS, true);
}

static void test_model_cached(void **state)
{
	run_model(*state, ",create=2M,direct=off", BLK_IO_AUTO, false);
	run_model(*state, ",create=2M,direct=off,discard=on,zeroes=range", BLK_IO_AUTO, true);
	run_model(*state, ",create=2M,direct=off", BLK_IO_THREADS, true);
}

static void test_in_memory(void **state)
{
	struct place *p = *state;
	struct place shm = *p;

	if (access("/dev/shm", W_OK)) {
		print_message("skipped: no /dev/shm\n");
		skip();
	}
	snprintf(shm.path, sizeof(shm.path), "/dev/shm/mallee-file-test-%d", (int)getpid());
	run_model(&shm, ",create=2M,direct=off,discard=on", BLK_IO_AUTO, true);
	unlink(shm.path);
}

/* ---- more than there are buffers and operations for ---- */

#define MANY 600

static void test_many(void **state)
{
	struct place *p = *state;
	struct slot *many = calloc(MANY, sizeof(*many));
	char *memory = aligned_alloc(4096, MANY * 1024 + 4096);
	unsigned left;
	bool all;

	if (!direct_works(p))
		skip();
	struct blk_stack *s = kit_open(drivers, spec(p, ""), BLK_IO_AUTO, 1);
	for (unsigned pass = 0; pass < 2; pass++) {
		left = MANY;
		all = false;
		for (unsigned i = 0; i < MANY; i++) {
			char *data = memory + i * 1024 + 3;
			memset(data, pass ? 0 : (int)i, 512);
			many[i].iov[0] = (struct iovec){ data, 512 };
			many[i].r = (struct blk_req){ .op = pass ? BLK_READ : BLK_WRITE, .off_bytes = i * 512, .len_bytes = 512,
						      .iov = many[i].iov, .iov_count = 1, .queue = blk_stack_queue(s, 0),
						      .done = slot_done, .ctx = &many[i] };
			many[i].left = &left;
			many[i].all = &all;
			blk_submit(blk_stack_top(s), &many[i].r); /* past the gate */
		}
		assert_int_equal(blk_queue_run_until(blk_stack_queue(s, 0), &all, 60000), 0);
		for (unsigned i = 0; i < MANY; i++) {
			assert_int_equal(many[i].r.result, 0);
			assert_true(kit_all(many[i].iov[0].iov_base, 512, (int)i & 255));
		}
	}
	/* One that is larger than a buffer. */
	memset(memory, 0x5a, 300000 / 512 * 512 + 1);
	assert_int_equal(kit_io(s, BLK_WRITE, BLK_FUA, 0, memory + 1, 300000 / 512 * 512), 0);
	memset(memory, 0, 300000);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, memory + 1, 300000 / 512 * 512), 0);
	assert_true(kit_all(memory + 1, 300000 / 512 * 512, 0x5a));
	assert_int_equal(blk_stack_close(s, NULL), 0);
	free(memory);
	free(many);
}

/* ---- flushes ---- */

static void test_flushes_share(void **state)
{
	struct place *p = *state;
	struct slot many[40];
	unsigned left = 40;
	bool all = false;

	struct blk_stack *s = kit_open(drivers, spec(p, ",create=2M,direct=off"), BLK_IO_AUTO, 1);
	for (unsigned i = 0; i < 40; i++) {
		many[i].r = (struct blk_req){ .op = BLK_FLUSH, .queue = blk_stack_queue(s, 0), .done = slot_done, .ctx = &many[i] };
		many[i].left = &left;
		many[i].all = &all;
		blk_stack_submit(s, &many[i].r);
	}
	assert_int_equal(blk_queue_run_until(blk_stack_queue(s, 0), &all, 20000), 0);
	assert_int_equal(file_of(s)->sync.flushes, 40);
	assert_int_equal(file_of(s)->sync.calls, 2); /* the first alone, the rest together */
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0);
	assert_int_equal(file_of(s)->sync.calls, 3);
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

struct flusher {
	struct blk_stack *stack;
	struct blk_req r;
	unsigned left;
	_Atomic bool *ended;
};

static void flush_again(struct blk_req *r)
{
	struct flusher *f = r->ctx;

	assert_int_equal(r->result, 0);
	if (f->left--)
		blk_stack_submit(f->stack, r);
	else
		atomic_store(f->ended, true);
}

static void flusher_start(void *ctx)
{
	struct flusher *f = ctx;

	blk_stack_submit(f->stack, &f->r);
}

static void test_flushes_of_queues(void **state)
{
	struct place *p = *state;
	struct flusher f[3];
	_Atomic bool ended[3] = { false };

	struct blk_stack *s = kit_open(drivers, spec(p, ",create=2M,direct=off"), BLK_IO_AUTO, 3);
	assert_int_equal(blk_stack_start(s, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		struct blk_queue *q = blk_stack_queue(s, i);
		f[i] = (struct flusher){ .stack = s, .left = 200, .ended = &ended[i] };
		f[i].r = (struct blk_req){ .op = BLK_FLUSH, .queue = q, .done = flush_again, .ctx = &f[i] };
		blk_queue_call(q, flusher_start, &f[i]);
	}
	for (unsigned i = 0; i < 3; i++) {
		while (!atomic_load(&ended[i]))
			usleep(1000);
	}
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

static void test_flush_failure_stays(void **state)
{
	struct place *p = *state;
	struct buf out = BUF_INIT;
	struct error e = { 0 };
	char data[512] = "";
	int fds[2];

	struct blk_stack *s = kit_open(drivers, spec(p, ",create=2M,direct=off"), BLK_IO_AUTO, 1);
	int saved = dup(file_of(s)->fd);
	assert_int_equal(pipe(fds), 0);
	dup2(fds[0], file_of(s)->fd); /* cannot be synced */
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), -EINVAL);
	dup2(saved, file_of(s)->fd);
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), -EINVAL);
	assert_int_equal(kit_io(s, BLK_WRITE, BLK_FUA, 0, data, 512), -EINVAL);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, data, 512), 0);
	assert_int_equal(blk_stack_barrier(s, 1000, &e), -EINVAL);
	assert_int_equal(blk_stack_command(s, "file", "clear-error", NULL, &out, NULL), 0);
	assert_string_equal(out.data, "{\"cleared\":22}");
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	buf_done(&out);
	close(saved);
	close(fds[0]);
	close(fds[1]);
}

/* ---- small reads of what is in the page cache ---- */

struct together {
	struct blk_req r;
	struct iovec iov;
	unsigned *left;
	bool *all;
	unsigned char data[4096];
};

static void together_done(struct blk_req *r)
{
	struct together *t = r->ctx;

	if (!--*t->left)
		*t->all = true;
}

static void read_together(struct blk_stack *s, struct together *t, unsigned count)
{
	unsigned left = count;
	bool all = false;

	for (unsigned i = 0; i < count; i++) {
		t[i].left = &left;
		t[i].all = &all;
		t[i].iov = (struct iovec){ t[i].data, sizeof(t[i].data) };
		t[i].r = (struct blk_req){ .op = BLK_READ, .off_bytes = i * sizeof(t[i].data), .len_bytes = sizeof(t[i].data), .iov = &t[i].iov,
					   .iov_count = 1, .queue = blk_stack_queue(s, 0), .done = together_done, .ctx = &t[i] };
		blk_stack_submit(s, &t[i].r);
	}
	assert_int_equal(blk_queue_run_until(blk_stack_queue(s, 0), &all, 20000), 0);
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(t[i].r.result, 0);
		assert_true(kit_all(t[i].data, sizeof(t[i].data), (int)i + 1));
	}
}

/* The first shows that the cache can be asked; the others go together. The lock is gone with the file, whoever knew of it. */
static void test_together(void **state)
{
	enum { COUNT = 32 };
	struct place *p = *state;
	struct together *t = calloc(COUNT, sizeof(*t));
	struct error e = { 0 };

	for (unsigned turn = 0; turn < 3; turn++) {
		struct blk_stack *s = kit_open(drivers, spec(p, ",create=2M,direct=off,lock-wait=0"), BLK_IO_AUTO, 1);
		struct file_queue *fq = blk_stack_layer(s, "file")->queue_state[0];
		for (unsigned i = 0; i < COUNT; i++) {
			memset(t[i].data, (int)i + 1, sizeof(t[i].data));
			assert_int_equal(kit_io(s, BLK_WRITE, 0, i * sizeof(t[i].data), t[i].data, sizeof(t[i].data)), 0);
		}
		read_together(s, t, COUNT);
		if (!fq->batched)
			print_message("not seen: no io_uring here, or a file system that cannot\n");
		read_together(s, t, COUNT);
		assert_true(!fq->batched || fq->counters.batched_reads >= COUNT);
		assert_int_equal(blk_stack_close(s, NULL), 0);
		assert_int_equal(try_open(spec(p, ",direct=off,lock-wait=0"), &e), 0);
	}
	free(t);
}

/* A file that was cut: what is not there is an error, and what is there is read. */
static void test_together_cut(void **state)
{
	struct place *p = *state;
	unsigned char data[4096] = "";

	struct blk_stack *s = kit_open(drivers, spec(p, ",create=2M,direct=off"), BLK_IO_AUTO, 1);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, data, sizeof(data)), 0);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, sizeof(data)), 0);
	assert_int_equal(truncate(p->path, 1 << 20), 0);
	assert_int_equal(kit_io(s, BLK_READ, 0, (1 << 20) + 4096, data, sizeof(data)), -EIO);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, sizeof(data)), 0);
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_refusals),
		TEST(test_create),
		TEST(test_lock),
		TEST(test_replaced),
		TEST(test_model_direct),
		TEST(test_model_cached),
		TEST(test_in_memory),
		TEST(test_many),
		TEST(test_flushes_share),
		TEST(test_flushes_of_queues),
		TEST(test_flush_failure_stays),
		TEST(test_together),
		TEST(test_together_cut),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
