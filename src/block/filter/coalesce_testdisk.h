/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_COALESCE_TESTDISK_H
#define MALLEE_BLOCK_FILTER_COALESCE_TESTDISK_H

/*
 * A disk whose requests take time, fail, and take effect early or late, with a volatile cache of its own. For the tests of
 * the two caches; it can live in shared memory. Include it once, after cmocka.h.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/macros.h"
#include "block/core/stack.h"

#define TK_UNIT 512u
#ifdef __SANITIZE_THREAD__
#define TK_SLOW 1 /* rates say nothing */
#else
#define TK_SLOW 0
#endif

static void *tk_shared(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static uint64_t tk_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t tk_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * 0x2545f4914f6cdd1du >> 11;
}

struct tk_disk {
	pthread_mutex_t lock;
	uint64_t size, room;
	uint8_t *now, *stable;          /* stable: what a power loss leaves */
	uint64_t rate;                  /* bytes a second; 0: random delays instead */
	uint64_t seek_ns, overhead_ns;
	uint64_t delay_ns;              /* most */
	_Atomic unsigned fail_percent;  /* of writes and flushes */
	_Atomic unsigned fail_reads_percent;
	_Atomic bool fail_all;
	uint64_t slow_write_ns;         /* writes take effect after so long */
	uint64_t bad_from, bad_to;      /* reads here fail */
	uint64_t head, free_ns, seed;
	_Atomic uint64_t ops[BLK_OPS], bytes[BLK_OPS], seeks, background, idle_ns;
	_Atomic uint64_t last_off;
};

static struct tk_disk *tk_disk_current; /* of the stack being opened */

struct tk_io {
	struct blk_timer timer;
	struct tk_disk *d;
	struct blk_req *r;
	bool early, used, fails;
};
struct tk_disk_queue {
	struct tk_io io[1024];
};

static struct tk_disk *tk_disk_new(uint64_t size)
{
	struct tk_disk *d = tk_shared(sizeof(*d));

	pthread_mutex_init(&d->lock, NULL);
	d->size = size;
	d->room = 2 * size;
	d->now = tk_shared(d->room);
	d->stable = tk_shared(d->room);
	d->seed = 88172645463325252u;
	d->delay_ns = 300000;
	return d;
}

static void tk_disk_free(struct tk_disk *d)
{
	munmap(d->now, d->room);
	munmap(d->stable, d->room);
	munmap(d, sizeof(*d));
}

static void tk_effect(struct tk_disk *d, struct blk_req *r)
{
	switch (r->op) {
	case BLK_READ:
		blk_iov_to(r->iov, r->iov_count, 0, d->now + r->off_bytes, r->len_bytes);
		return;
	case BLK_WRITE:
		blk_iov_from(r->iov, r->iov_count, 0, d->now + r->off_bytes, r->len_bytes);
		break;
	case BLK_WRITE_ZEROES:
		memset(d->now + r->off_bytes, 0, r->len_bytes);
		break;
	case BLK_DISCARD:
		memset(d->now + r->off_bytes, 0xdd, r->len_bytes);
		return;
	default:
		if (!d->rate) /* where time is measured nobody looks */
			memcpy(d->stable, d->now, d->size);
		return;
	}
	if (r->flags & BLK_FUA)
		memcpy(d->stable + r->off_bytes, d->now + r->off_bytes, r->len_bytes);
}

static void tk_io_done(struct blk_timer *t)
{
	struct tk_io *io = (struct tk_io *)((char *)t - offsetof(struct tk_io, timer));
	struct blk_req *r = io->r;
	bool fails = io->fails;

	if (!io->early && !fails) {
		pthread_mutex_lock(&io->d->lock);
		tk_effect(io->d, r);
		pthread_mutex_unlock(&io->d->lock);
	}
	io->used = false;
	blk_complete(r, fails ? -EIO : 0);
}

static uint64_t tk_service(struct tk_disk *d, const struct blk_req *r, uint64_t now)
{
	uint64_t far;

	if (!d->rate)
		return now + (d->delay_ns ? tk_random(&d->seed) % d->delay_ns : 0);
	d->idle_ns += d->free_ns && now > d->free_ns ? now - d->free_ns : 0;
	d->free_ns = MAX_OF(d->free_ns, now);
	if (r->op == BLK_FLUSH)
		return d->free_ns += d->seek_ns;
	far = r->off_bytes > d->head ? r->off_bytes - d->head : d->head - r->off_bytes;
	if (far > 8u << 20) {
		d->free_ns += d->seek_ns;
		d->seeks++;
	}
	d->head = r->off_bytes + r->len_bytes;
	d->free_ns += d->overhead_ns + r->len_bytes * 1000000000u / d->rate;
	return d->free_ns;
}

static void tk_disk_submit(struct blk_layer *l, struct blk_req *r)
{
	struct tk_disk *d = l->state;
	struct tk_disk_queue *q = l->queue_state[blk_queue_index(r->queue)];
	unsigned i = 0, percent = r->op == BLK_READ ? d->fail_reads_percent : d->fail_percent;
	uint64_t deadline;

	assert_true(r->op == BLK_FLUSH || (r->len_bytes && r->len_bytes <= d->size && r->off_bytes <= d->size - r->len_bytes));
	assert_true(r->op > BLK_WRITE || blk_iov_bytes(r->iov, r->iov_count) == r->len_bytes);
	while (i < ARRAY_SIZE(q->io) && q->io[i].used)
		i++;
	assert_true(i < ARRAY_SIZE(q->io));
	pthread_mutex_lock(&d->lock);
	struct tk_io *io = &q->io[i];
	io->used = true;
	io->d = d;
	io->r = r;
	io->timer.fn = tk_io_done;
	io->fails = (d->fail_all && r->op != BLK_READ) || tk_random(&d->seed) % 100 < percent;
	io->fails |= r->op == BLK_READ && r->off_bytes < d->bad_to && r->off_bytes + r->len_bytes > d->bad_from;
	io->early = tk_random(&d->seed) & 1 && r->op != BLK_FLUSH && !d->slow_write_ns;
	if (io->early && !io->fails)
		tk_effect(d, r);
	d->ops[r->op]++;
	d->bytes[r->op] += r->len_bytes;
	d->background += !!(r->flags & BLK_BACKGROUND);
	deadline = tk_service(d, r, tk_now());
	if (r->op == BLK_WRITE && d->slow_write_ns)
		deadline = tk_now() + d->slow_write_ns;
	pthread_mutex_unlock(&d->lock);
	blk_timer_set(r->queue, &io->timer, deadline);
}

static int tk_disk_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	l->state = tk_disk_current;
	l->info = (struct blk_info){ .size_bytes = tk_disk_current->size, .block_bytes = TK_UNIT, .physical_bytes = 4096,
				     .discard_bytes = 4096, .volatile_cache = true };
	return 0;
}

static int tk_disk_queue_start(struct blk_layer *l, struct blk_queue *q, struct error *e)
{
	l->queue_state[blk_queue_index(q)] = calloc(1, sizeof(struct tk_disk_queue));
	return 0;
}

static void tk_disk_queue_stop(struct blk_layer *l, struct blk_queue *q)
{
	free(TAKE_PTR(l->queue_state[blk_queue_index(q)]));
}

static int tk_disk_resize(struct blk_layer *l, uint64_t size_bytes, struct error *e)
{
	struct tk_disk *d = l->state;

	assert_true(size_bytes <= d->room);
	l->info.size_bytes = d->size = size_bytes;
	return 0;
}

static const struct blk_option tk_no_options[] = { { 0 } };
static const struct blk_layer_ops tk_disk_ops = {
	.name = "tkdisk", .doc = "test", .is_back = true, .options = tk_no_options, .open = tk_disk_open, .queue_start = tk_disk_queue_start,
	.queue_stop = tk_disk_queue_stop, .submit = tk_disk_submit, .resize = tk_disk_resize,
};

#endif
