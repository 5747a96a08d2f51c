/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a file does besides reading and writing.
 *
 * FLUSH. One fdatasync() runs at a time, for all queues. Who comes while it runs waits for the next, which serves all that wait:
 * a call is submitted after everyone it serves has come, so it covers whatever had completed before they came.
 *
 * A flush that failed. The kernel tells of a failed write-back once and then takes the pages for clean; a disk drops a sector that
 * it cannot write. So a later fdatasync() that succeeds says nothing about what was written before the failed one, and passing its
 * success on would be a lie to a guest that tries again. Hence the error stays: every later FLUSH fails with it, and every FUA write
 * that needs an fdatasync(), until the file is opened anew (the guest then sees what the disk has) or the operator says by
 * `clear-error` that he has dealt with it. Reads and writes go on, as on a disk that is failing.
 * Where the page cache is used a FUA write is a write and a shared fdatasync(), never RWF_DSYNC: that would take delivery of an
 * error that belongs to earlier writes. A direct FUA write is one with RWF_DSYNC; when that fails it is tried again without: should it
 * then succeed the sync had failed, and the error stays as above; else it is a sector that cannot be written, and only that.
 *
 * WRITE_ZEROES. FALLOC_FL_ZERO_RANGE is quick, but what it leaves behind are unwritten extents, and the first write to each of them
 * costs as much as one into a hole: a journal commit. A volume that was preallocated by being written would lose that, block by
 * block. So on a file with discard=off zeroes are written as zeroes (zeroes=auto), at the cost that a disk without the command has,
 * and the volume stays what it was. With discard=on room is thin anyway: a hole is punched where the request allows it, else the
 * range is made unwritten. Devices have no extents: they are asked to do it themselves.
 *
 * DISCARD gives room back with discard=on; else it does nothing, and a preallocated file stays so.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "base/macros.h"
#include "block/back/file_priv.h"

/* ---- FLUSH ---- */

int file_sync_init(struct file_sync *s)
{
	return -pthread_mutex_init(&s->lock, NULL);
}

static void sync_done(struct blk_aio *a);

/* On q's thread, by the one who found that none runs, or whose call has just ended. */
static void sync_start(struct file *f, struct blk_queue *q)
{
	struct file_sync *s = &f->sync;

	pthread_mutex_lock(&s->lock);
	s->batch = s->waiting;
	s->waiting = (struct blk_list){ 0 };
	pthread_mutex_unlock(&s->lock);
	s->aio = (struct blk_aio){ .op = BLK_AIO_FDATASYNC, .fd = f->fd, .done = sync_done };
	atomic_fetch_add_explicit(&s->calls, 1, memory_order_relaxed);
	blk_aio_submit(q, &s->aio);
}

static void sync_done(struct blk_aio *a)
{
	struct file *f = (struct file *)((char *)a - offsetof(struct file, sync.aio));
	struct file_sync *s = &f->sync;
	struct blk_list batch = s->batch;
	struct blk_req *r;
	int err = (int)a->result;

	if (err == -EINTR || err == -EAGAIN) {
		blk_aio_submit(a->queue, a);
		return;
	}
	if (err)
		atomic_store(&s->error, err);
	else
		err = atomic_load(&s->error); /* they came before that was known, and it concerns them, too */
	while ((r = blk_list_pop(&batch)))
		blk_complete(r, err);
	pthread_mutex_lock(&s->lock);
	s->running = !blk_list_empty(&s->waiting);
	bool more = s->running;
	pthread_mutex_unlock(&s->lock);
	if (more)
		sync_start(f, a->queue);
}

/* r ends when what has completed by now is durable. */
void file_sync_join(struct file *f, struct blk_req *r)
{
	struct file_sync *s = &f->sync;
	int err = atomic_load(&s->error);

	atomic_fetch_add_explicit(&s->flushes, 1, memory_order_relaxed);
	if (err || f->read_only) {
		blk_complete(r, err);
		return;
	}
	pthread_mutex_lock(&s->lock);
	blk_list_push(&s->waiting, r);
	bool start = !s->running;
	s->running = true;
	pthread_mutex_unlock(&s->lock);
	if (start)
		sync_start(f, r->queue);
}

/* ---- WRITE_ZEROES ---- */

enum zero_way { ZERO_BY_HOLE, ZERO_BY_RANGE, ZERO_BY_WRITING };

static enum zero_way zero_way(const struct file *f, const struct blk_req *r)
{
	if ((r->flags & BLK_MAY_UNMAP) && f->discard && !atomic_load_explicit(&f->no_punch, memory_order_relaxed))
		return ZERO_BY_HOLE;
	if (!f->zeroes_written && !atomic_load_explicit(&f->no_zero_range, memory_order_relaxed))
		return ZERO_BY_RANGE;
	return ZERO_BY_WRITING;
}

static void write_zeroes(struct file_op *op, uint64_t off, uint64_t len)
{
	unsigned n = 0;

	len = MIN_OF(len, (uint64_t)FILE_ZEROES_BYTES * FILE_ZEROES_TIMES);
	for (uint64_t left = len; left; left -= op->iov[n++].iov_len)
		op->iov[n] = (struct iovec){ op->fq->file->zeroes, MIN_OF(left, (uint64_t)FILE_ZEROES_BYTES) };
	op->aio.op = BLK_AIO_WRITE;
	op->aio.flags = 0;
	op->aio.iov = op->iov;
	op->aio.iov_count = n;
	op->aio.off_bytes = off;
	op->aio.len_bytes = len;
	blk_aio_submit(op->fq->queue, &op->aio);
}

static void allocate(struct file_op *op, int mode, uint64_t off, uint64_t len)
{
	op->aio.op = BLK_AIO_FALLOCATE;
	op->aio.flags = mode | FALLOC_FL_KEEP_SIZE;
	op->aio.off_bytes = off;
	op->aio.len_bytes = MIN_OF(len, FILE_RANGE_BYTES);
	blk_aio_submit(op->fq->queue, &op->aio);
}

void file_zero_next(struct file_op *op)
{
	struct blk_req *r = op->req;
	uint64_t off = r->off_bytes + op->done_bytes, len = r->len_bytes - op->done_bytes;

	op->aio.done = file_zero_done;
	switch (zero_way(op->fq->file, r)) {
	case ZERO_BY_HOLE:
		allocate(op, FALLOC_FL_PUNCH_HOLE, off, len);
		break;
	case ZERO_BY_RANGE:
		allocate(op, FALLOC_FL_ZERO_RANGE, off, len);
		break;
	case ZERO_BY_WRITING:
		write_zeroes(op, off, len);
		break;
	}
}

/* The file system does not know this: not to be asked again. */
static bool is_unsupported(struct file_op *op)
{
	struct file *f = op->fq->file;

	if (op->aio.op != BLK_AIO_FALLOCATE || (op->aio.result != -EOPNOTSUPP && op->aio.result != -ENOSYS))
		return false;
	atomic_store_explicit(op->aio.flags & FALLOC_FL_PUNCH_HOLE ? &f->no_punch : &f->no_zero_range, true, memory_order_relaxed);
	return true;
}

void file_zero_done(struct blk_aio *a)
{
	struct file_op *op = (struct file_op *)a;
	struct blk_req *r = op->req;
	uint64_t done = a->len_bytes;

	if (file_op_again(op, a->result))
		return;
	if (is_unsupported(op)) {
		file_zero_next(op);
		return;
	}
	if (a->op == BLK_AIO_WRITE && a->result >= 0) {
		done = (uint64_t)a->result / op->fq->file->off_align * op->fq->file->off_align;
		blk_count(&op->fq->counters.zeroes_written_bytes, done);
	}
	if (a->result < 0 || !done) {
		file_op_end(op, a->result < 0 ? (int)a->result : -EIO);
		return;
	}
	op->done_bytes += done;
	if (op->done_bytes < r->len_bytes)
		file_zero_next(op);
	else
		file_op_end(op, 0);
}

/* ---- DISCARD ---- */

/* Where its whole units end. */
static uint64_t discard_end(const struct file *f, const struct blk_req *r)
{
	return (r->off_bytes + r->len_bytes) / f->discard_bytes * f->discard_bytes;
}

void file_discard_next(struct file_op *op)
{
	struct blk_req *r = op->req;
	uint64_t off = r->off_bytes + op->done_bytes;

	op->aio.done = file_discard_done;
	allocate(op, FALLOC_FL_PUNCH_HOLE, off, discard_end(op->fq->file, r) - off);
}

void file_discard_done(struct blk_aio *a)
{
	struct file_op *op = (struct file_op *)a;
	struct blk_req *r = op->req;

	if (file_op_again(op, a->result))
		return;
	if (a->result < 0) {
		file_op_end(op, is_unsupported(op) ? 0 : (int)a->result); /* a hint */
		return;
	}
	op->done_bytes += a->len_bytes;
	if (r->off_bytes + op->done_bytes < discard_end(op->fq->file, r))
		file_discard_next(op);
	else
		file_op_end(op, 0);
}

static void discarder_push(struct file_discarder *d, struct blk_req *r)
{
	pthread_mutex_lock(&d->lock);
	blk_list_push(&d->todo, r);
	pthread_cond_signal(&d->work);
	pthread_mutex_unlock(&d->lock);
}

/* Only whole units: the file system would write zeroes into what is beside them. */
void file_discard(struct file_queue *fq, struct blk_req *r)
{
	struct file *f = fq->file;

	if (!f->discard_bytes || atomic_load_explicit(&f->no_punch, memory_order_relaxed)) {
		blk_complete(r, 0);
		return;
	}
	if (f->is_device) {
		discarder_push(&f->discarder, r);
		return;
	}
	uint64_t first = (r->off_bytes + f->discard_bytes - 1) / f->discard_bytes * f->discard_bytes;
	if (first < discard_end(f, r))
		file_op_begin(fq, r, first - r->off_bytes);
	else
		blk_complete(r, 0);
}

static void *run_discarder(void *arg)
{
	struct file *f = arg;
	struct file_discarder *d = &f->discarder;

	pthread_mutex_lock(&d->lock);
	while (!d->closing || !blk_list_empty(&d->todo)) {
		struct blk_req *r = blk_list_pop(&d->todo);
		if (!r) {
			pthread_cond_wait(&d->work, &d->lock);
			continue;
		}
		pthread_mutex_unlock(&d->lock);
		int err = ioctl(f->fd, BLKDISCARD, (uint64_t[]){ r->off_bytes, r->len_bytes }) ? -errno : 0;
		if (err == -EOPNOTSUPP)
			atomic_store(&f->no_punch, true);
		blk_complete(r, err == -EOPNOTSUPP ? 0 : err);
		pthread_mutex_lock(&d->lock);
	}
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

int file_discarder_start(struct file *f)
{
	struct file_discarder *d = &f->discarder;

	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->work, NULL);
	int err = pthread_create(&d->thread, NULL, run_discarder, f);
	d->started = !err;
	return -err;
}

void file_discarder_stop(struct file *f)
{
	struct file_discarder *d = &f->discarder;

	if (!d->started)
		return;
	pthread_mutex_lock(&d->lock);
	d->closing = true;
	pthread_cond_signal(&d->work);
	pthread_mutex_unlock(&d->lock);
	pthread_join(d->thread, NULL);
	pthread_cond_destroy(&d->work);
	pthread_mutex_destroy(&d->lock);
}
