/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's requests. One whose chunks are all filled, or that reads what is all in the source, is handed on as it is. Any other
 * gets a job, which goes through it piece by piece (next_piece), one I/O at a time; a piece is as long as its chunks are of one kind:
 *   filled          as it is, below
 *   read            from the source, or zeroes
 *   whole chunks    lock, write below, bits, unlock
 *   part of a chunk lock, read the chunk from the source, lay the guest's data over it, write all of it, bit, unlock
 * A job has at most one lock. Who waited for one looks at the piece anew. A job takes a buffer only when it has its lock, and who has
 * a buffer waits for nothing but I/O.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/macros.h"
#include "block/filter/cow_priv.h"

#define RUN_MAX (UINT64_C(1) << 20) /* chunks looked at, and locked, at once */

struct cow_job {
	struct chunk_lock lock;     /* its task is first */
	struct bits_wait sync;
	struct cow_queue *q;
	struct blk_req *io;         /* the pool's request that this is the extra of */
	struct blk_req *parent;
	uint64_t at;                /* bytes of the parent that are done */
	uint64_t piece;             /* bytes in progress */
	bool fua, locked;
	bool merge;                 /* the piece goes through the buffer; otherwise it only fills its chunk */
	int buffer;                 /* index; -1: none */
	struct iovec flat;
	struct cow_job *next;       /* waits for a buffer */
};

static void next_piece(struct cow_job *j);
static void admit(struct cow_queue *q);

/* ---- buffers ---- */

static char *buffer_of(const struct cow_job *j)
{
	return j->q->buffers + (size_t)j->buffer * j->q->cow->chunk_bytes;
}

static bool buffer_take(struct cow_job *j)
{
	struct cow_queue *q = j->q;

	if (!q->buffers_free) {
		j->next = NULL;
		*q->buffer_last = j;
		q->buffer_last = &j->next;
		return false;
	}
	j->buffer = __builtin_ctz(q->buffers_free);
	q->buffers_free &= q->buffers_free - 1;
	q->buffers_touched |= j->buffer > 0;
	return true;
}

static void fill_chunk(struct cow_job *j);

static void buffer_put(struct cow_job *j)
{
	struct cow_queue *q = j->q;
	struct cow_job *w = q->buffer_first;
	size_t chunk = q->cow->chunk_bytes;

	if (j->buffer < 0)
		return;
	if (w) {
		q->buffer_first = w->next;
		if (!w->next)
			q->buffer_last = &q->buffer_first;
		w->buffer = j->buffer;
		j->buffer = -1;
		fill_chunk(w);
		return;
	}
	q->buffers_free |= 1u << j->buffer;
	j->buffer = -1;
	if (q->buffers_touched && q->buffers_free == (1u << COW_BUFFERS) - 1) {
		madvise(q->buffers + chunk, (COW_BUFFERS - 1) * chunk, MADV_DONTNEED);
		q->buffers_touched = false;
	}
}

/* ---- the end of a job ---- */

static void unlock(struct cow_job *j)
{
	if (j->locked)
		chunk_lock_release(&j->q->cow->locks, &j->lock);
	j->locked = false;
}

static void end(struct cow_job *j, int result)
{
	struct cow_queue *q = j->q;

	blk_complete(j->parent, result);
	blk_pool_put(q->jobs, j->io);
	admit(q);
}

static void synced(struct blk_task *t)
{
	struct cow_job *j = (struct cow_job *)((char *)t - offsetof(struct cow_job, sync.task));

	end(j, j->sync.result);
}

static void sync_then_end(struct cow_job *j)
{
	j->sync = (struct bits_wait){ .task.fn = synced, .queue = j->q->queue };
	bits_sync(j->q->cow->bits, j->q->queue, &j->sync);
}

static void finish(struct cow_job *j, int result)
{
	unlock(j);
	buffer_put(j);
	if (!result && j->fua)
		sync_then_end(j);
	else
		end(j, result);
}

static void piece_done(struct cow_job *j)
{
	j->at += j->piece;
	next_piece(j);
}

/* ---- I/O ---- */

static void io(struct cow_job *j, struct blk_layer *to, enum blk_op op, uint64_t off, uint64_t len, void (*done)(struct blk_req *r))
{
	struct blk_req *r = j->io;

	r->op = op;
	r->flags = j->parent->flags & BLK_BACKGROUND;
	if (op == BLK_WRITE_ZEROES) /* a discarded chunk needs no room */
		r->flags |= j->parent->op == BLK_DISCARD ? BLK_MAY_UNMAP : j->parent->flags & BLK_MAY_UNMAP;
	r->off_bytes = off;
	r->len_bytes = len;
	r->done = done;
	r->ctx = j;
	blk_submit(to, r);
}

static void io_guest(struct cow_job *j, struct blk_layer *to, enum blk_op op, uint64_t len, void (*done)(struct blk_req *r))
{
	const struct blk_req *p = j->parent;
	bool data = op == BLK_READ || op == BLK_WRITE;

	j->piece = len;
	j->io->iov = blk_pool_iov(j->io);
	j->io->iov_count = data ? blk_iov_slice(p->iov, p->iov_count, j->at, len, blk_pool_iov(j->io), BLK_IOV_MAX) : 0;
	io(j, to, op, p->off_bytes + j->at, len, done);
}

static void io_buffer(struct cow_job *j, struct blk_layer *to, enum blk_op op, uint64_t off, uint64_t len,
		      void (*done)(struct blk_req *r))
{
	j->flat = (struct iovec){ buffer_of(j), len };
	j->io->iov = &j->flat;
	j->io->iov_count = 1;
	io(j, to, op, off, len, done);
}

static void plain_done(struct blk_req *r)
{
	struct cow_job *j = r->ctx;

	if (r->result)
		finish(j, r->result);
	else
		piece_done(j);
}

/* ---- filling a chunk, with the guest's data over the source's where merge says so ---- */

static void chunk_written(struct blk_req *r)
{
	struct cow_job *j = r->ctx;
	struct cow *c = j->q->cow;

	if (r->result) {
		finish(j, r->result);
		return;
	}
	cow_set_filled(c, j->lock.first, 1);
	blk_count(&j->q->copied_chunks, 1);
	unlock(j);
	buffer_put(j);
	piece_done(j);
}

static void chunk_write(struct cow_job *j)
{
	struct cow *c = j->q->cow;
	const struct blk_req *p = j->parent;
	uint64_t off = j->lock.first * c->chunk_bytes, len = cow_chunk_end(c, j->lock.first, 1) - off;
	uint64_t had = off < c->source_end && c->source ? MIN_OF(len, c->source_end - off) : 0;
	char *chunk = buffer_of(j);

	memset(chunk + had, 0, len - had);
	if (j->merge && p->op == BLK_WRITE)
		blk_iov_from(p->iov, p->iov_count, j->at, chunk + (p->off_bytes + j->at - off), j->piece);
	else if (j->merge)
		memset(chunk + (p->off_bytes + j->at - off), 0, j->piece);
	io_buffer(j, c->below, BLK_WRITE, off, len, chunk_written);
}

static void chunk_read(struct blk_req *r)
{
	struct cow_job *j = r->ctx;

	if (r->result)
		finish(j, r->result);
	else
		chunk_write(j);
}

static void fill_chunk(struct cow_job *j)
{
	struct cow *c = j->q->cow;
	uint64_t off = j->lock.first * c->chunk_bytes;
	uint64_t len = cow_source_bytes(c, off, cow_chunk_end(c, j->lock.first, 1));

	if (!len) {
		chunk_write(j);
		return;
	}
	blk_count(&j->q->source_bytes, len);
	io_buffer(j, c->source, BLK_READ, off, len, chunk_read);
}

/* ---- pieces ---- */

static void lock_freed(struct blk_task *t)
{
	next_piece((struct cow_job *)t);
}

/* False: the piece is looked at again when the lock is free. */
static bool lock(struct cow_job *j, uint64_t first, uint64_t count)
{
	j->lock.task.fn = lock_freed;
	j->lock.queue = j->q->queue;
	j->lock.first = first;
	j->lock.count = count;
	j->lock.shared = false;
	j->locked = chunk_lock_take(&j->q->cow->locks, &j->lock);
	return j->locked;
}

/* The chunk may have been filled between the look at it and the lock. */
static bool lock_unfilled(struct cow_job *j, uint64_t first, uint64_t count)
{
	struct bits *b = j->q->cow->bits;
	bool filled;

	if (!lock(j, first, count))
		return false;
	if (bits_run(b, first, first + count, &filled) == count && !filled)
		return true;
	unlock(j);
	next_piece(j);
	return false;
}

static void whole_written(struct blk_req *r)
{
	struct cow_job *j = r->ctx;

	if (r->result) {
		finish(j, r->result);
		return;
	}
	cow_set_filled(j->q->cow, j->lock.first, j->lock.count);
	unlock(j);
	piece_done(j);
}

static void read_piece(struct cow_job *j, uint64_t first, uint64_t off, uint64_t len)
{
	struct cow *c = j->q->cow;
	const struct blk_req *p = j->parent;

	if (!c->source || off >= c->source_end) {
		blk_iov_zero(p->iov, p->iov_count, j->at, len);
		j->piece = len;
		piece_done(j);
		return;
	}
	len = MIN_OF(len, c->source_end - off);
	uint64_t block = c->source->info.block_bytes;
	if (!c->copy_on_read && !((off | len) % block)) {
		blk_count(&j->q->source_bytes, len);
		io_guest(j, c->source, BLK_READ, len, plain_done);
		return;
	}
	/* Bring the chunk here; it is then read below. */
	if (!lock_unfilled(j, first, 1))
		return;
	j->piece = 0;
	j->merge = false;
	if (buffer_take(j))
		fill_chunk(j);
}

static void write_piece(struct cow_job *j, uint64_t first, uint64_t off, uint64_t len)
{
	struct cow *c = j->q->cow;
	enum blk_op op = j->parent->op;
	uint64_t chunk = c->chunk_bytes, start = first * chunk;
	/* The volume's last chunk may be short. */
	uint64_t whole = off + len == c->size_bytes ? (len + chunk - 1) / chunk : len / chunk;

	if (off == start && whole) {
		if (!lock_unfilled(j, first, whole))
			return;
		/* A discarded chunk must not show what the disk held before. */
		io_guest(j, c->below, op == BLK_DISCARD ? BLK_WRITE_ZEROES : op, MIN_OF(whole * chunk, len), whole_written);
		return;
	}
	j->piece = MIN_OF(len, start + chunk - off);
	if (op == BLK_DISCARD) { /* a hint, and not worth a copy */
		piece_done(j);
		return;
	}
	if (!lock_unfilled(j, first, 1))
		return;
	j->merge = true;
	if (buffer_take(j))
		fill_chunk(j);
}

static void next_piece(struct cow_job *j)
{
	const struct blk_req *p = j->parent;
	struct cow *c = j->q->cow;
	bool filled;

	if (j->at == p->len_bytes) {
		finish(j, 0);
		return;
	}
	uint64_t off = p->off_bytes + j->at, left = p->len_bytes - j->at;
	uint64_t first = off / c->chunk_bytes, last = MIN_OF((off + left - 1) / c->chunk_bytes, first + RUN_MAX - 1);
	uint64_t run = bits_run(c->bits, first, last + 1, &filled);
	uint64_t len = MIN_OF(left, cow_chunk_end(c, first, run) - off);
	if (filled)
		io_guest(j, c->below, p->op, len, plain_done);
	else if (p->op == BLK_READ)
		read_piece(j, first, off, len);
	else
		write_piece(j, first, off, len);
}

/* ---- the way in ---- */

static void start(struct cow_queue *q, struct blk_req *io_req, struct blk_req *r)
{
	struct cow_job *j = blk_pool_extra(io_req);

	*j = (struct cow_job){ .q = q, .io = io_req, .parent = r, .fua = r->flags & BLK_FUA, .buffer = -1 };
	if (r->op == BLK_FLUSH)
		sync_then_end(j);
	else
		next_piece(j);
}

static void admit(struct cow_queue *q)
{
	struct blk_req *io_req;

	if (q->admitting) /* further up on this very stack */
		return;
	q->admitting = true;
	while (!blk_list_empty(&q->waiting) && (io_req = blk_pool_get(q->jobs)))
		start(q, io_req, blk_list_pop(&q->waiting));
	q->admitting = false;
}

/* Where it can go as it is; NULL: nowhere. */
static struct blk_layer *straight_to(struct cow *c, const struct blk_req *r)
{
	bool filled;

	if (r->op == BLK_FLUSH)
		return bits_is_durable(c->bits) ? c->below : NULL;
	uint64_t first = r->off_bytes / c->chunk_bytes, end = (r->off_bytes + r->len_bytes - 1) / c->chunk_bytes + 1;
	uint64_t run = bits_run(c->bits, first, MIN_OF(end, first + RUN_MAX), &filled);
	if (first + run < end)
		return NULL;
	if (filled)
		return r->flags & BLK_FUA && !bits_is_durable(c->bits) ? NULL : c->below;
	if (r->op != BLK_READ || c->copy_on_read || !c->source || r->off_bytes + r->len_bytes > c->source_end)
		return NULL;
	return (r->off_bytes | r->len_bytes) % c->source->info.block_bytes ? NULL : c->source;
}

void cow_submit(struct blk_layer *l, struct blk_req *r)
{
	struct cow *c = l->state;
	struct cow_queue *q = l->queue_state[blk_queue_index(r->queue)];

	if (atomic_load_explicit(&c->complete, memory_order_acquire)) {
		blk_submit(c->below, r);
		return;
	}
	if (!(r->flags & BLK_BACKGROUND))
		atomic_store_explicit(&q->last_ns, blk_queue_now(r->queue), memory_order_relaxed);
	struct blk_layer *to = straight_to(c, r);
	if (!to) {
		blk_list_push(&q->waiting, r);
		admit(q);
		return;
	}
	if (to == c->source)
		blk_count(&q->source_bytes, r->len_bytes);
	blk_submit(to, r);
}

/* ---- queues ---- */

int cow_queue_start(struct blk_layer *l, struct blk_queue *queue, struct error *e)
{
	struct cow *c = l->state;
	struct cow_queue *q = calloc(1, sizeof(*q));
	size_t bytes = (size_t)COW_BUFFERS * c->chunk_bytes;

	if (!q || blk_pool_new(queue, BLK_DEPTH_MAX, BLK_IOV_MAX, sizeof(struct cow_job), &q->jobs)) {
		free(q);
		return error_errno(e, ENOMEM, "a queue of cow");
	}
	q->buffers = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (q->buffers == MAP_FAILED) {
		blk_pool_free(q->jobs);
		free(q);
		return error_errno(e, ENOMEM, "a queue of cow");
	}
	q->cow = c;
	q->queue = queue;
	q->buffers_free = (1u << COW_BUFFERS) - 1;
	q->buffer_last = &q->buffer_first;
	l->queue_state[blk_queue_index(queue)] = q;
	c->queue[blk_queue_index(queue)] = q;
	if (!blk_queue_index(queue))
		cow_fill_start(c, queue);
	return 0;
}

void cow_queue_stop(struct blk_layer *l, struct blk_queue *queue)
{
	struct cow *c = l->state;
	struct cow_queue *q = c->queue[blk_queue_index(queue)];

	if (!blk_queue_index(queue))
		blk_timer_cancel(&c->fill.timer);
	c->queue[blk_queue_index(queue)] = NULL;
	blk_pool_free(q->jobs);
	munmap(q->buffers, (size_t)COW_BUFFERS * c->chunk_bytes);
	free(q);
}
