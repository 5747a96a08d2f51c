/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests, of guests and of those who read a view.
 *
 * A guest's change goes straight below when its chunks' bits in the map are set and no view needs them any more. Else it gets a job:
 *   announce   the regions in the map, durably, unless they are (snap_map.c); set the live bits, and those of the newest view
 *   copy       run by run of chunks that some view has not: lock, read below, write to each such view's scratch, unlock
 *   then the request itself goes below.
 * The lock is on the chunks while they are copied only: who changes a chunk has seen that all views have it.
 *
 * Who reads a view takes what is copied from its scratch, and what is not from below, with a lock that others who read share and
 * that keeps copies, and so changes, away until the data is there. When the view fails, changes no longer wait: so it is
 * looked at again after the data has come.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/macros.h"
#include "block/filter/snap_priv.h"

struct snap_job {
	struct chunk_lock lock;     /* its task is first */
	struct bits_wait sync;
	struct snap_queue *q;
	struct blk_req *io;
	struct blk_req *parent;
	struct snap_view *view;     /* that is read; NULL: a guest's change */
	uint64_t regions[2];
	uint64_t first, last;       /* chunks of the change; first moves on as they are copied */
	uint64_t at, piece;         /* bytes of a read */
	uint64_t scratch_off;       /* where in the scratch it is */
	unsigned copy_to;           /* index of the view that is written to */
	uint64_t copy_at, copy_count, slot; /* chunks being written there */
	bool locked;
	int buffer;
	struct iovec flat, *left;   /* what is left of an operation on the scratch */
	struct blk_aio aio;
	struct snap_job *next;
};

static void admit(struct snap_queue *q);
static void change_next(struct snap_job *j);
static void read_next(struct snap_job *j);
static void copy_read(struct snap_job *j);

static struct snap *snap_of(const struct snap_job *j)
{
	return j->q->snap;
}

/* ---- buffers and locks ---- */

static size_t buffers_bytes(const struct snap *s)
{
	return (size_t)2 * SNAP_BUFFERS * s->buffer_bytes;
}

static char *buffer_of(const struct snap_job *j)
{
	return j->q->buffers + (size_t)j->buffer * j->q->snap->buffer_bytes;
}

/* Beside each buffer: what of it is written to an encrypted scratch. */
static char *cipher_of(const struct snap_job *j)
{
	return buffer_of(j) + (size_t)SNAP_BUFFERS * j->q->snap->buffer_bytes;
}

static bool buffer_take(struct snap_job *j)
{
	struct snap_queue *q = j->q;

	if (!q->buffers_free) {
		j->next = NULL;
		*q->buffer_last = j;
		q->buffer_last = &j->next;
		return false;
	}
	j->buffer = __builtin_ctz(q->buffers_free);
	q->buffers_free &= q->buffers_free - 1;
	return true;
}

static void buffer_put(struct snap_job *j)
{
	struct snap_queue *q = j->q;
	struct snap_job *w = q->buffer_first;

	if (j->buffer < 0)
		return;
	if (w) {
		q->buffer_first = w->next;
		if (!w->next)
			q->buffer_last = &q->buffer_first;
		w->buffer = j->buffer;
		j->buffer = -1;
		copy_read(w);
		return;
	}
	q->buffers_free |= 1u << j->buffer;
	j->buffer = -1;
	if (!q->snap->views && q->buffers_free == (1u << SNAP_BUFFERS) - 1)
		madvise(q->buffers, buffers_bytes(q->snap), MADV_DONTNEED);
}

static void lock_freed(struct blk_task *t)
{
	struct snap_job *j = (struct snap_job *)t;

	if (j->view)
		read_next(j);
	else
		change_next(j);
}

static bool lock(struct snap_job *j, uint64_t first, uint64_t count)
{
	j->lock.task.fn = lock_freed;
	j->lock.queue = j->q->queue;
	j->lock.first = first;
	j->lock.count = count;
	j->lock.shared = j->view;
	j->locked = chunk_lock_take(&snap_of(j)->locks, &j->lock);
	return j->locked;
}

static void unlock(struct snap_job *j)
{
	if (j->locked)
		chunk_lock_release(&snap_of(j)->locks, &j->lock);
	j->locked = false;
}

static void put_job(struct snap_job *j)
{
	struct snap_queue *q = j->q;

	unlock(j);
	buffer_put(j);
	blk_pool_put(q->jobs, j->io);
	admit(q);
}

static void end(struct snap_job *j, int result)
{
	blk_complete(j->parent, result);
	put_job(j);
}

static void io(struct snap_job *j, const struct iovec *iov, unsigned iov_count, uint64_t off, uint64_t len,
	       void (*done)(struct blk_req *r))
{
	struct blk_req *r = j->io;

	r->op = BLK_READ;
	r->flags = j->parent->flags & BLK_BACKGROUND;
	r->iov = iov;
	r->iov_count = iov_count;
	r->off_bytes = off;
	r->len_bytes = len;
	r->done = done;
	r->ctx = j;
	blk_submit(snap_of(j)->below, r);
}

/* ---- the scratch: whole operations out of short ones; 0 or -errno in j->aio.result at the end ---- */

static bool scratch_goes_on(struct snap_job *j)
{
	struct blk_aio *a = &j->aio;

	if (a->result <= 0) {
		a->result = a->result ? a->result : -EIO;
		return false;
	}
	uint64_t n = (uint64_t)a->result;
	a->off_bytes += n;
	while (a->iov_count && n >= j->left->iov_len) {
		n -= j->left->iov_len;
		j->left++;
		a->iov_count--;
	}
	a->result = 0;
	if (!a->iov_count)
		return false;
	j->left->iov_base = (char *)j->left->iov_base + n;
	j->left->iov_len -= n;
	a->iov = j->left;
	blk_aio_submit(j->q->queue, a);
	return true;
}

static void scratch_io(struct snap_job *j, enum blk_aio_op op, int fd, struct iovec *iov, unsigned count, uint64_t off,
		       void (*done)(struct blk_aio *a))
{
	j->left = iov;
	j->aio = (struct blk_aio){ .op = op, .fd = fd, .iov = iov, .iov_count = count, .off_bytes = off, .done = done };
	blk_aio_submit(j->q->queue, &j->aio);
}

/* ---- copying before a change ---- */

static bool needed(const struct snap *s, uint64_t chunk)
{
	for (unsigned i = 0; i < s->views; i++) {
		if (!snap_view_has(s->view[i], chunk, chunk))
			return true;
	}
	return false;
}

static void copy_next(struct snap_job *j);

static void copy_written(struct blk_aio *a)
{
	struct snap_job *j = (struct snap_job *)((char *)a - offsetof(struct snap_job, aio));
	struct snap_view *v = snap_of(j)->view[j->copy_to];

	if (scratch_goes_on(j))
		return;
	if (a->result)
		snap_view_fail(v);
	else
		snap_view_copied(v, j->copy_at, j->copy_count, j->slot);
	blk_count(&j->q->copied_chunks, j->copy_count);
	j->copy_at += j->copy_count;
	copy_next(j);
}

/* What is to be written, in j->flat. */
static bool copy_prepare(struct snap_job *j, struct snap_view *v)
{
	size_t chunk = snap_of(j)->chunk_bytes;

	j->flat = (struct iovec){ buffer_of(j) + (j->copy_at - j->lock.first) * chunk, j->copy_count * chunk };
	if (!v->scratch_key)
		return true;
	void *plain = j->flat.iov_base;
	j->flat.iov_base = cipher_of(j);
	return !xts_encrypt(v->scratch_key, blk_queue_index(j->q->queue), j->slot * chunk, plain, j->flat.iov_base, j->flat.iov_len);
}

static void copies_done(struct snap_job *j)
{
	j->first = j->lock.first + j->lock.count;
	unlock(j);
	buffer_put(j);
	change_next(j);
}

/* The next chunks of the locked ones that some view needs: from copy_at on for view copy_to, then for the later ones. */
static void copy_next(struct snap_job *j)
{
	struct snap *s = snap_of(j);
	uint64_t end_ = j->lock.first + j->lock.count;

	for (; j->copy_to < s->views; j->copy_to++, j->copy_at = j->lock.first) {
		struct snap_view *v = s->view[j->copy_to];
		while (j->copy_at < end_ && snap_view_has(v, j->copy_at, j->copy_at))
			j->copy_at++;
		j->copy_count = 0;
		while (j->copy_at + j->copy_count < end_ && !snap_view_has(v, j->copy_at + j->copy_count, j->copy_at + j->copy_count))
			j->copy_count++;
		if (!j->copy_count)
			continue;
		if (!snap_view_room(v, j->copy_count, &j->slot)) {
			snap_view_fail(v);
			continue;
		}
		if (!copy_prepare(j, v)) {
			snap_view_fail(v);
			continue;
		}
		scratch_io(j, BLK_AIO_WRITE, v->scratch_fd, &j->flat, 1, j->slot * s->chunk_bytes, copy_written);
		return;
	}
	copies_done(j);
}

static void old_is_read(struct blk_req *r)
{
	struct snap_job *j = r->ctx;
	struct snap *s = snap_of(j);

	/* What cannot be read cannot be kept; the guest may mend it by writing it. */
	for (unsigned i = 0; i < s->views && r->result; i++) {
		for (uint64_t k = 0; k < j->lock.count; k++) {
			if (!snap_view_has(s->view[i], j->lock.first + k, j->lock.first + k))
				snap_view_fail(s->view[i]);
		}
	}
	j->copy_to = 0;
	j->copy_at = j->lock.first;
	copy_next(j);
}

static void copy_read(struct snap_job *j)
{
	struct snap *s = snap_of(j);
	uint64_t off = j->lock.first * s->chunk_bytes, len = j->lock.count * s->chunk_bytes;

	len = MIN_OF(len, s->below->info.size_bytes - off);
	memset(buffer_of(j) + len, 0, j->lock.count * s->chunk_bytes - len);
	j->flat = (struct iovec){ buffer_of(j), len };
	io(j, &j->flat, 1, off, len, old_is_read);
}

/* From j->first on; true: a copy is under way, or waited for. */
static bool copy_start(struct snap_job *j)
{
	struct snap *s = snap_of(j);
	uint64_t most = s->buffer_bytes / s->chunk_bytes, count = 1;

	while (j->first <= j->last && !needed(s, j->first))
		j->first++;
	if (j->first > j->last)
		return false;
	while (count < most && j->first + count <= j->last && needed(s, j->first + count))
		count++;
	if (!lock(j, j->first, count))
		return true;
	/* Another may have copied them while this one waited, or just before: then copy_next() finds nothing to do. */
	if (buffer_take(j))
		copy_read(j);
	return true;
}

/* ---- a guest's change ---- */

static struct snap_view *newest(const struct snap *s)
{
	unsigned n = s->views;

	return n ? s->view[n - 1] : NULL;
}

static bool bits_are_set(const struct snap *s, uint64_t first, uint64_t last)
{
	bool set;

	return !s->map.tracking || (bits_run(snap_map_bits(s), first, last + 1, &set) == last + 1 - first && set);
}

static bool may_go(const struct snap *s, uint64_t first, uint64_t last)
{
	const struct snap_view *v = newest(s);
	bool set;

	if (!bits_are_set(s, first, last))
		return false;
	if (!v)
		return true;
	if (snap_set_run(&v->since, first, last + 1, &set) != last + 1 - first || !set)
		return false;
	for (unsigned i = 0; i < s->views; i++) {
		if (!snap_view_has(s->view[i], first, last))
			return false;
	}
	return true;
}

/* Copies what is left to copy, and then lets the request go. */
static void change_next(struct snap_job *j)
{
	struct snap *s = snap_of(j);
	struct blk_req *r = j->parent;

	if (copy_start(j))
		return;
	blk_submit(s->below, r);
	put_job(j);
}

static void change_announced(struct snap_job *j)
{
	struct snap *s = snap_of(j);
	struct snap_view *v = newest(s);

	if (s->map.tracking)
		bits_set(snap_map_bits(s), j->first, j->last + 1 - j->first);
	if (v)
		snap_set_add(&v->since, j->first, j->last + 1 - j->first);
	change_next(j);
}

static void announced(struct blk_task *t)
{
	struct snap_job *j = (struct snap_job *)((char *)t - offsetof(struct snap_job, sync.task));

	if (j->sync.result) {
		end(j, j->sync.result); /* unmarked it must not go: the next snapshot would be silently wrong */
		return;
	}
	snap_map_have(snap_of(j), j->regions);
	change_announced(j);
}

static void change_start(struct snap_job *j)
{
	struct snap *s = snap_of(j);

	j->first = j->parent->off_bytes / s->chunk_bytes;
	j->last = (j->parent->off_bytes + j->parent->len_bytes - 1) / s->chunk_bytes;
	if (bits_are_set(s, j->first, j->last) || snap_map_announced(s, j->first, j->last)) {
		change_announced(j);
		return;
	}
	snap_map_want(s, j->first, j->last, j->regions);
	blk_count(&j->q->marks, 1);
	j->sync = (struct bits_wait){ .task.fn = announced, .queue = j->q->queue };
	bits_sync(snap_map_bits(s), j->q->queue, &j->sync);
}

/* ---- reading a view ---- */

static void piece_done(struct snap_job *j, int result)
{
	unlock(j);
	if (result || j->view->failed) {
		end(j, -EIO);
		return;
	}
	j->at += j->piece;
	read_next(j);
}

static void scratch_is_read(struct blk_aio *a)
{
	struct snap_job *j = (struct snap_job *)((char *)a - offsetof(struct snap_job, aio));

	if (scratch_goes_on(j))
		return;
	int result = (int)a->result;
	if (!result && j->view->scratch_key)
		result = xts_decrypt_iov(j->view->scratch_key, blk_queue_index(j->q->queue), j->scratch_off, j->parent->iov, j->parent->iov_count,
					 j->at, j->piece);
	piece_done(j, result);
}

static void below_is_read(struct blk_req *r)
{
	piece_done(r->ctx, r->result);
}

static unsigned slice(struct snap_job *j, uint64_t len)
{
	const struct blk_req *p = j->parent;

	j->piece = len;
	return blk_iov_slice(p->iov, p->iov_count, j->at, len, blk_pool_iov(j->io), BLK_IOV_MAX);
}

static void read_scratch(struct snap_job *j, uint64_t chunk, uint64_t off, uint64_t left, uint64_t run)
{
	struct snap *s = snap_of(j);
	uint64_t slot = snap_view_slot(j->view, chunk), n = 1;

	while (n < run && snap_view_slot(j->view, chunk + n) == slot + n)
		n++;
	uint64_t len = MIN_OF(left, (chunk + n) * s->chunk_bytes - off);
	unsigned count = slice(j, len);
	j->scratch_off = slot * s->chunk_bytes + off % s->chunk_bytes;
	scratch_io(j, BLK_AIO_READ, j->view->scratch_fd, blk_pool_iov(j->io), count, j->scratch_off, scratch_is_read);
}

static void read_next(struct snap_job *j)
{
	struct snap *s = snap_of(j);
	struct snap_view *v = j->view;
	uint64_t off = j->parent->off_bytes + j->at, left = j->parent->len_bytes - j->at;
	uint64_t chunk = off / s->chunk_bytes;
	bool copied;

	if (v->failed || !left) {
		end(j, v->failed ? -EIO : 0);
		return;
	}
	uint64_t most = s->buffer_bytes / s->chunk_bytes, last = MIN_OF((off + left - 1) / s->chunk_bytes, chunk + most - 1);
	uint64_t run = snap_set_run(&v->copied, chunk, last + 1, &copied);
	if (copied) {
		read_scratch(j, chunk, off, left, run);
		return;
	}
	if (!lock(j, chunk, run))
		return;
	/* As long as it is held nothing of this is copied, or changed. Some may have been, before. */
	uint64_t still = snap_set_run(&v->copied, chunk, chunk + run, &copied);
	if (copied) {
		unlock(j);
		read_scratch(j, chunk, off, left, still);
		return;
	}
	uint64_t len = MIN_OF(left, (chunk + still) * s->chunk_bytes - off);
	unsigned count = slice(j, len);
	io(j, blk_pool_iov(j->io), count, off, len, below_is_read);
}

/* ---- the ways in ---- */

static void start(struct snap_queue *q, struct blk_req *io_req, struct blk_req *r)
{
	struct snap_job *j = blk_pool_extra(io_req);

	memset(j, 0, sizeof(*j));
	j->q = q;
	j->io = io_req;
	j->parent = r;
	j->view = (struct snap_view *)(uintptr_t)r->scratch[0];
	j->buffer = -1;
	if (j->view)
		read_next(j);
	else
		change_start(j);
}

static void admit(struct snap_queue *q)
{
	struct blk_req *io_req;

	if (q->admitting)
		return;
	q->admitting = true;
	while (!blk_list_empty(&q->waiting) && (io_req = blk_pool_get(q->jobs)))
		start(q, io_req, blk_list_pop(&q->waiting));
	q->admitting = false;
}

void snap_submit(struct blk_layer *l, struct blk_req *r)
{
	struct snap *s = l->state;

	if (r->op != BLK_READ && r->op != BLK_FLUSH) {
		uint64_t first = r->off_bytes / s->chunk_bytes, last = (r->off_bytes + r->len_bytes - 1) / s->chunk_bytes;
		if (!may_go(s, first, last)) {
			struct snap_queue *q = l->queue_state[blk_queue_index(r->queue)];
			r->scratch[0] = 0;
			blk_list_push(&q->waiting, r);
			admit(q);
			return;
		}
	}
	blk_submit(s->below, r);
}

void snap_view_submit(struct blk_layer *l, struct blk_req *r)
{
	struct snap_view *v = l->state;
	struct snap_queue *q = v->snap->queue[blk_queue_index(r->queue)];

	if (r->op == BLK_FLUSH) {
		blk_complete(r, 0);
	} else if (r->op != BLK_READ) {
		blk_complete(r, -EROFS);
	} else {
		r->scratch[0] = (uintptr_t)v;
		blk_list_push(&q->waiting, r);
		admit(q);
	}
}

/* ---- queues ---- */

int snap_queue_start(struct blk_layer *l, struct blk_queue *queue, struct error *e)
{
	struct snap *s = l->state;
	struct snap_queue *q = calloc(1, sizeof(*q));

	if (!q || blk_pool_new(queue, BLK_DEPTH_MAX, BLK_IOV_MAX, sizeof(struct snap_job), &q->jobs)) {
		free(q);
		return error_errno(e, ENOMEM, "a queue of snap");
	}
	q->buffers = mmap(NULL, buffers_bytes(s), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (q->buffers == MAP_FAILED) {
		blk_pool_free(q->jobs);
		free(q);
		return error_errno(e, ENOMEM, "a queue of snap");
	}
	q->snap = s;
	q->queue = queue;
	q->buffers_free = (1u << SNAP_BUFFERS) - 1;
	q->buffer_last = &q->buffer_first;
	s->queue[blk_queue_index(queue)] = q;
	l->queue_state[blk_queue_index(queue)] = q;
	return 0;
}

void snap_queue_stop(struct blk_layer *l, struct blk_queue *queue)
{
	struct snap *s = l->state;
	struct snap_queue *q = s->queue[blk_queue_index(queue)];

	s->queue[blk_queue_index(queue)] = NULL;
	blk_pool_free(q->jobs);
	munmap(q->buffers, buffers_bytes(s));
	free(q);
}
