/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a bitmap durable while the queues run. One run at a time, for all who waited when it began; who comes meanwhile is
 * served by the next. A run goes through the dirty pages in rounds of up to ROUND_PAGES:
 *   take (copies of the pages) -> flush the layer below, if any -> write each copy to its page's older slot -> fdatasync
 * What a taken bit stands for had completed when it was taken, so the flush makes it durable before the bit is. A round that
 * fails makes its pages dirty again and fails the run: the next one tries anew.
 * The run lives on the queue of whoever started it.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "block/filter/cow_bits_priv.h"

#define ROUND_PAGES 64

struct page_write {
	struct blk_aio aio;
	struct bits_syncer *syncer;
	struct iovec iov;
	uint64_t page;
};

struct bits_syncer {
	struct bits *bits;
	struct blk_layer *flush_layer;
	pthread_mutex_t lock; /* the three that follow */
	struct bits_wait *pending;
	bool running;
	/* the run's own, of its queue's thread */
	struct bits_wait *served;
	struct blk_queue *queue;
	uint64_t at;          /* pages before it have had their turn */
	unsigned rounds;
	struct page_write write[ROUND_PAGES];
	struct blk_aio fsync;
	struct blk_req flush;
	unsigned taken, left;
	int result;
	uint8_t (*copy)[BITS_PAGE]; /* ROUND_PAGES, touched as needed */
};

static void round_start(struct bits_syncer *s);

static void run_end(struct bits_syncer *s, int result)
{
	struct bits_wait *served = s->served;

	pthread_mutex_lock(&s->lock);
	struct bits_wait *next = s->pending;
	if (!next) /* an idle volume keeps none of it */
		madvise(s->copy, ROUND_PAGES * BITS_PAGE, MADV_DONTNEED);
	s->pending = NULL;
	s->running = next;
	if (next)
		s->served = next;
	pthread_mutex_unlock(&s->lock);
	/* From here on the syncer may be another queue's. */
	while (served) {
		struct bits_wait *w = served;
		served = w->next;
		w->result = result;
		blk_queue_post(w->queue, &w->task);
	}
	if (next) {
		s->at = s->rounds = 0;
		round_start(s);
	}
}

static void round_end(struct bits_syncer *s)
{
	for (unsigned i = 0; i < s->taken; i++)
		bits_page_written(s->bits, s->write[i].page, !s->result);
	if (s->result)
		run_end(s, s->result);
	else
		round_start(s);
}

static void synced(struct blk_aio *a)
{
	struct bits_syncer *s = (struct bits_syncer *)((char *)a - offsetof(struct bits_syncer, fsync));

	s->result = a->result < 0 ? (int)a->result : 0;
	round_end(s);
}

static void round_written(struct bits_syncer *s)
{
	if (s->result || s->taken == 1) { /* one page was written through to the disk */
		round_end(s);
		return;
	}
	s->fsync = (struct blk_aio){ .op = BLK_AIO_FDATASYNC, .fd = s->bits->fd, .done = synced };
	blk_aio_submit(s->queue, &s->fsync);
}

static void page_written(struct blk_aio *a)
{
	struct page_write *w = (struct page_write *)a;
	struct bits_syncer *s = w->syncer;

	if (a->result > 0 && (uint64_t)a->result < w->iov.iov_len) {
		w->iov.iov_base = (char *)w->iov.iov_base + a->result;
		w->iov.iov_len -= (uint64_t)a->result;
		a->off_bytes += (uint64_t)a->result;
		blk_aio_submit(s->queue, a);
		return;
	}
	if (a->result <= 0 && !s->result)
		s->result = a->result ? (int)a->result : -EIO;
	if (!--s->left)
		round_written(s);
}

static void pages_write(struct bits_syncer *s)
{
	s->left = s->taken;
	for (unsigned i = 0; i < s->taken; i++) {
		struct page_write *w = &s->write[i];
		w->syncer = s;
		w->iov = (struct iovec){ s->copy[i], BITS_PAGE };
		w->aio = (struct blk_aio){
			.op = BLK_AIO_WRITE,
			.fd = s->bits->fd,
			.flags = s->taken == 1 ? RWF_DSYNC : 0,
			.iov = &w->iov,
			.iov_count = 1,
			.off_bytes = bits_slot_offset(w->page, s->bits->generation[w->page] + 1),
			.done = page_written,
		};
		blk_aio_submit(s->queue, &w->aio);
	}
}

static void flushed(struct blk_req *r)
{
	struct bits_syncer *s = r->ctx;

	s->result = r->result;
	if (s->result || !s->taken)
		round_end(s);
	else
		pages_write(s);
}

static void round_start(struct bits_syncer *s)
{
	s->result = 0;
	s->taken = 0;
	while (s->taken < ROUND_PAGES && bits_page_take(s->bits, &s->at, &s->write[s->taken].page, s->copy[s->taken]))
		s->taken++;
	/* The first round flushes whether there is a page or not: waiters want their data durable too. */
	if (!s->taken && (s->rounds || !s->flush_layer)) {
		run_end(s, 0);
		return;
	}
	s->rounds++;
	if (!s->flush_layer) {
		pages_write(s);
		return;
	}
	s->flush = (struct blk_req){ .op = BLK_FLUSH, .queue = s->queue, .done = flushed, .ctx = s };
	blk_submit(s->flush_layer, &s->flush);
}

void bits_sync(struct bits *b, struct blk_queue *q, struct bits_wait *w)
{
	struct bits_syncer *s = b->syncer;

	assert(w->queue == q);
	w->next = NULL;
	pthread_mutex_lock(&s->lock);
	bool start = !s->running;
	if (start) {
		s->running = true;
	} else {
		w->next = s->pending;
		s->pending = w;
	}
	pthread_mutex_unlock(&s->lock);
	if (!start)
		return;
	s->served = w;
	s->queue = q;
	s->at = s->rounds = 0;
	round_start(s);
}

int bits_syncer_new(struct bits *b, struct blk_layer *flush)
{
	struct bits_syncer *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->copy = mmap(NULL, ROUND_PAGES * BITS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->copy == MAP_FAILED) {
		free(s);
		return -ENOMEM;
	}
	pthread_mutex_init(&s->lock, NULL);
	s->bits = b;
	s->flush_layer = flush;
	b->syncer = s;
	return 0;
}

void bits_syncer_free(struct bits *b)
{
	struct bits_syncer *s = b->syncer;

	if (!s)
		return;
	assert(!s->running);
	munmap(s->copy, ROUND_PAGES * BITS_PAGE);
	pthread_mutex_destroy(&s->lock);
	free(s);
	b->syncer = NULL;
}
