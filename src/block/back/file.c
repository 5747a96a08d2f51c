/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A regular file or a whole block device.
 *
 * direct=on: requests whose memory suits the disk go to the kernel as they are; others through one of a few buffers, and wait when
 * all are out. direct=off: the page cache is asked first, on the spot (preadv2() with RWF_NOWAIT), because handing a hit to another
 * thread costs several times the hit; what is not there goes the long way. Who can pass data on by reference gets long hits lent
 * (file_loan.c). Writes likewise where the file system can (xfs, btrfs; ext4 cannot: seen once and remembered).
 *
 * A request that the kernel works on has a `struct file_op`; without one left it waits. Short transfers go on from where they ended.
 * A file that ends before its size does (somebody cut it) gives -EIO.
 */
#include "block/back/back.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/text.h"
#include "block/back/file_priv.h"
#include "os/file.h"

#define RETRIES_MAX 100

/* ---- an operation ---- */

/* Memory and lengths as direct I/O wants them. */
static bool suits(const struct file *f, const struct blk_req *r)
{
	uintptr_t bases = 0, lengths = 0;

	for (unsigned i = 0; i < r->iov_count; i++) {
		bases |= (uintptr_t)r->iov[i].iov_base;
		lengths |= r->iov[i].iov_len;
	}
	return !(bases & (f->mem_align - 1)) && !(lengths & (f->off_align - 1));
}

static void rw_done(struct blk_aio *a);

static bool wants_dsync(const struct file_op *op)
{
	const struct file *f = op->fq->file;

	return (op->req->flags & BLK_FUA) && f->direct && !op->sync_error && !atomic_load_explicit(&f->no_dsync, memory_order_relaxed);
}

static void rw_next(struct file_op *op)
{
	struct blk_req *r = op->req;
	uint64_t left = r->len_bytes - op->done_bytes;

	op->aio.op = r->op == BLK_READ ? BLK_AIO_READ : BLK_AIO_WRITE;
	op->aio.flags = wants_dsync(op) ? RWF_DSYNC : 0;
	op->aio.off_bytes = r->off_bytes + op->done_bytes;
	op->aio.done = rw_done;
	if (op->bounce) {
		left = MIN_OF(left, (uint64_t)FILE_BOUNCE_BYTES);
		if (r->op == BLK_WRITE)
			blk_iov_from(r->iov, r->iov_count, op->done_bytes, op->bounce, left);
		op->iov[0] = (struct iovec){ op->bounce, left };
		op->aio.iov = op->iov;
		op->aio.iov_count = 1;
	} else if (op->done_bytes) {
		op->aio.iov = op->iov;
		op->aio.iov_count = blk_iov_slice(r->iov, r->iov_count, op->done_bytes, left, op->iov, BLK_IOV_MAX);
	} else {
		op->aio.iov = r->iov;
		op->aio.iov_count = r->iov_count;
	}
	blk_aio_submit(op->fq->queue, &op->aio);
}

/* Goes on with a buffer between, or waits for one. */
static void rw_bounced(struct file_op *op)
{
	struct file_queue *fq = op->fq;

	if (fq->free_bounces) {
		op->bounce = fq->free_bounce[--fq->free_bounces];
		blk_count(&fq->counters.bounced, 1);
		rw_next(op);
		return;
	}
	op->next = NULL;
	*fq->bounce_waiting_last = op;
	fq->bounce_waiting_last = &op->next;
}

static void put_bounce(struct file_queue *fq, char *bounce)
{
	struct file_op *op = fq->bounce_waiting;

	if (!bounce)
		return;
	fq->free_bounce[fq->free_bounces++] = bounce;
	if (!op)
		return;
	fq->bounce_waiting = op->next;
	if (!op->next)
		fq->bounce_waiting_last = &fq->bounce_waiting;
	rw_bounced(op);
}

bool file_op_again(struct file_op *op, int64_t result)
{
	if ((result != -EINTR && result != -EAGAIN) || op->retries++ == RETRIES_MAX)
		return false;
	blk_aio_submit(op->fq->queue, &op->aio);
	return true;
}

/* What failed for the way it was asked, and is asked in another way. */
static bool rw_differently(struct file_op *op, int64_t result)
{
	struct file *f = op->fq->file;

	if ((op->aio.flags & RWF_DSYNC) && result == -EOPNOTSUPP) {
		atomic_store_explicit(&f->no_dsync, true, memory_order_relaxed);
		rw_next(op);
		return true;
	}
	if (f->direct && !op->bounce && result == -EINVAL) { /* the alignment that we were told is not enough */
		rw_bounced(op);
		return true;
	}
	if ((op->aio.flags & RWF_DSYNC) && result < 0 && result != -EINVAL) { /* the write or the sync? */
		op->sync_error = (int)result;
		rw_next(op);
		return true;
	}
	return false;
}

static void rw_done(struct blk_aio *a)
{
	struct file_op *op = (struct file_op *)a;
	struct blk_req *r = op->req;
	int64_t result = a->result;

	if (file_op_again(op, result) || rw_differently(op, result))
		return;
	if (result < 0) {
		file_op_end(op, (int)result);
		return;
	}
	if (op->sync_error) { /* written without the sync it is: so that had failed, and tells of earlier writes as well */
		atomic_store(&op->fq->file->sync.error, op->sync_error);
		file_op_end(op, op->sync_error);
		return;
	}
	uint64_t n = (uint64_t)result;
	if (op->done_bytes + n < r->len_bytes)
		n = n / op->fq->file->off_align * op->fq->file->off_align;
	if (!n) {
		file_op_end(op, -EIO); /* the end of a file that was cut, or nothing at all */
		return;
	}
	if (op->bounce && r->op == BLK_READ)
		blk_iov_to(r->iov, r->iov_count, op->done_bytes, op->bounce, n);
	op->done_bytes += n;
	if (op->done_bytes == r->len_bytes) {
		file_op_end(op, 0);
		return;
	}
	if (!op->bounce)
		blk_count(&op->fq->counters.partial, 1);
	rw_next(op);
}

void file_op_begin(struct file_queue *fq, struct blk_req *r, uint64_t done_bytes)
{
	struct file_op *op = fq->free;

	if (!op) {
		r->scratch[0] = done_bytes;
		blk_list_push(&fq->waiting, r);
		return;
	}
	fq->free = op->next;
	op->req = r;
	op->done_bytes = done_bytes;
	op->bounce = NULL;
	op->retries = 0;
	op->sync_error = 0;
	if (r->op == BLK_DISCARD)
		file_discard_next(op);
	else if (r->op == BLK_WRITE_ZEROES)
		file_zero_next(op);
	else if (fq->file->direct && !suits(fq->file, r))
		rw_bounced(op);
	else
		rw_next(op);
}

static bool needs_sync(const struct file *f, const struct blk_req *r)
{
	if (!(r->flags & BLK_FUA))
		return false;
	if (r->op == BLK_WRITE_ZEROES)
		return true;
	return r->op == BLK_WRITE && (!f->direct || atomic_load_explicit(&f->no_dsync, memory_order_relaxed));
}

void file_op_end(struct file_op *op, int result)
{
	struct file_queue *fq = op->fq;
	struct blk_req *r = op->req;

	op->next = fq->free;
	fq->free = op;
	put_bounce(fq, op->bounce);
	if (!result && needs_sync(fq->file, r))
		file_sync_join(fq->file, r);
	else
		blk_complete(r, result);
	r = blk_list_pop(&fq->waiting);
	if (r)
		file_op_begin(fq, r, r->scratch[0]);
}

/* ---- the page cache, on the spot ---- */

static void read_now(struct file_queue *fq, struct blk_req *r)
{
	struct file *f = fq->file;
	ssize_t n = 0;

	if (!atomic_load_explicit(&f->no_read_now, memory_order_relaxed))
		n = preadv2(f->fd, r->iov, (int)r->iov_count, (off_t)r->off_bytes, f->now_flags);
	if (n == (ssize_t)r->len_bytes) {
		fq->batched = f->now_flags && blk_queue_engine(fq->queue) == BLK_IO_URING;
		blk_count(&fq->counters.inline_reads, 1);
		blk_complete(r, 0);
		return;
	}
	if (n < 0 && errno == EOPNOTSUPP)
		atomic_store_explicit(&f->no_read_now, true, memory_order_relaxed);
	blk_count(&fq->counters.missed, 1);
	file_op_begin(fq, r, n > 0 ? (uint64_t)n : 0);
}

/*
 * io_uring tries the page cache first, too, when it is handed the operation, where the file system can; so many small reads cost one
 * system call. Long ones are better done one by one: what was read first can be on its way while the next is copied.
 */
static void read_cached(struct file_queue *fq, struct blk_req *r)
{
	if (r->loan.wanted && file_lend(fq, r))
		return;
	if (!fq->batched || r->len_bytes > FILE_BATCHED_BYTES) {
		read_now(fq, r);
		return;
	}
	blk_count(&fq->counters.batched_reads, 1);
	file_op_begin(fq, r, 0);
}

static void write_now(struct file_queue *fq, struct blk_req *r)
{
	struct file *f = fq->file;
	ssize_t n = 0;

	if (!(r->flags & BLK_FUA) && !atomic_load_explicit(&f->no_write_now, memory_order_relaxed)) {
		n = pwritev2(f->fd, r->iov, (int)r->iov_count, (off_t)r->off_bytes, f->now_flags);
		if (n == (ssize_t)r->len_bytes) {
			blk_count(&fq->counters.inline_writes, 1);
			blk_complete(r, 0);
			return;
		}
		if (n < 0 && errno == EOPNOTSUPP)
			atomic_store_explicit(&f->no_write_now, true, memory_order_relaxed);
	}
	file_op_begin(fq, r, n > 0 ? (uint64_t)n : 0);
}

static void file_submit(struct blk_layer *l, struct blk_req *r)
{
	struct file_queue *fq = l->queue_state[blk_queue_index(r->queue)];
	struct file *f = fq->file;

	assert(r->off_bytes <= l->info.size_bytes && r->len_bytes <= l->info.size_bytes - r->off_bytes);
	if (f->read_only && r->op != BLK_READ && r->op != BLK_FLUSH)
		blk_complete(r, -EROFS);
	else if (r->op == BLK_FLUSH)
		file_sync_join(f, r);
	else if (!r->len_bytes)
		blk_complete(r, 0);
	else if (r->op == BLK_DISCARD)
		file_discard(fq, r);
	else if (r->op == BLK_READ && !f->direct)
		read_cached(fq, r);
	else if (r->op == BLK_WRITE && !f->direct)
		write_now(fq, r);
	else
		file_op_begin(fq, r, 0);
}

/* ---- queues ---- */

static void queue_free(struct file_queue *fq)
{
	if (fq->iov)
		munmap(fq->iov, sizeof(struct iovec) * BLK_IOV_MAX * FILE_OPS);
	if (fq->bounces)
		munmap(fq->bounces, (size_t)FILE_BOUNCES * FILE_BOUNCE_BYTES);
	free(fq->ops);
	free(fq);
}

static void *map_memory(size_t bytes, int protection)
{
	void *p = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int file_queue_start(struct blk_layer *l, struct blk_queue *q, struct error *e)
{
	struct file_queue *fq = calloc(1, sizeof(*fq));

	if (!fq)
		return error_errno(e, ENOMEM, "a queue of a file");
	fq->file = l->state;
	fq->queue = q;
	fq->bounce_waiting_last = &fq->bounce_waiting;
	blk_aio_file_open(&fq->known, q, fq->file->fd);
	fq->ops = calloc(FILE_OPS, sizeof(*fq->ops));
	fq->iov = map_memory(sizeof(struct iovec) * BLK_IOV_MAX * FILE_OPS, PROT_READ | PROT_WRITE);
	fq->bounces = map_memory((size_t)FILE_BOUNCES * FILE_BOUNCE_BYTES, PROT_READ | PROT_WRITE);
	if (!fq->ops || !fq->iov || !fq->bounces) {
		queue_free(fq);
		return error_errno(e, ENOMEM, "a queue of a file");
	}
	for (unsigned i = FILE_OPS; i--;) {
		fq->ops[i] = (struct file_op){ .aio = { .fd = fq->file->fd, .file = &fq->known }, .next = fq->free, .fq = fq, .iov = fq->iov + i * BLK_IOV_MAX };
		fq->free = &fq->ops[i];
	}
	for (unsigned i = FILE_BOUNCES; i--;)
		fq->free_bounce[fq->free_bounces++] = fq->bounces + (size_t)i * FILE_BOUNCE_BYTES;
	l->queue_state[blk_queue_index(q)] = fq;
	return 0;
}

static void file_queue_stop(struct blk_layer *l, struct blk_queue *q)
{
	struct file_queue *fq = l->queue_state[blk_queue_index(q)];

	assert(blk_list_empty(&fq->waiting) && !fq->bounce_waiting);
	l->queue_state[blk_queue_index(q)] = NULL;
	blk_aio_file_close(&fq->known);
	queue_free(fq);
}

/* ---- the layer ---- */

static void file_free(struct file *f)
{
	if (!f)
		return;
	file_discarder_stop(f);
	file_loans_stop(f);
	pthread_mutex_destroy(&f->sync.lock);
	if (f->zeroes)
		munmap(f->zeroes, FILE_ZEROES_BYTES);
	fd_closep(&f->size_fd);
	fd_closep(&f->fd); /* and the lock with it */
	free(f->path);
	free(f);
}

static struct file *file_new(const struct blk_values *v)
{
	struct file *f = calloc(1, sizeof(*f));
	const char *zeroes = blk_values_text(v, "zeroes");

	if (!f)
		return NULL;
	f->fd = f->size_fd = -1;
	file_sync_init(&f->sync);
	f->path = strdup(blk_values_text(v, "path"));
	f->zeroes = map_memory(FILE_ZEROES_BYTES, PROT_READ);
	f->read_only = blk_values_bool(v, "read-only");
	f->direct = blk_values_bool(v, "direct");
	f->discard = blk_values_bool(v, "discard");
	f->zeroes_written = str_eq(zeroes, "write") || (str_eq(zeroes, "auto") && !f->discard);
	f->now_flags = RWF_NOWAIT;
	if (f->path && f->zeroes)
		return f;
	file_free(f);
	return NULL;
}

static int file_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	struct file *f = file_new(v);

	if (!f)
		return error_errno(e, ENOMEM, "opening a file");
	int err = file_open_locked(f, v, e);
	if (!err && f->is_device && str_eq(blk_values_text(v, "zeroes"), "auto"))
		f->zeroes_written = false; /* no extents */
	if (!err)
		err = file_probe(f, &l->info, e);
	f->discard_bytes = l->info.discard_bytes;
	if (!err && f->is_device && f->discard_bytes) {
		err = file_discarder_start(f);
		if (err)
			error_errno(e, err, "a thread for discards");
	}
	if (err) {
		file_free(f);
		return err;
	}
	if (!f->direct)
		file_loans_start(f, l->info.size_bytes);
	l->state = f;
	return 0;
}

static void file_close(struct blk_layer *l)
{
	file_free(l->state);
}

static int file_resize(struct blk_layer *l, uint64_t size_bytes, struct error *e)
{
	struct file *f = l->state;
	uint64_t there = 0;

	if (f->read_only)
		return error_set(e, "Unsupported", "%s is read-only", f->path);
	if (f->is_device) {
		int err = file_device_size(f->fd, &there);
		if (err)
			return error_errno(e, err, "%s: its size", f->path);
		if (there < size_bytes)
			return error_set(e, "InvalidSize", "%s has %llu bytes: grow the device first", f->path, (unsigned long long)there);
		if (f->size_fd >= 0 && (ftruncate(f->size_fd, (off_t)size_bytes) || fsync(f->size_fd)))
			return error_errno(e, errno, "growing the file that has the length of %s", f->path);
	} else {
		int err = ftruncate(f->fd, (off_t)size_bytes) ? -errno : 0;
		if (!err && fdatasync(f->fd)) {
			err = -errno;
			atomic_store(&f->sync.error, err); /* it may be about what was written before */
		}
		if (err)
			return error_errno(e, err, "growing %s to %llu bytes", f->path, (unsigned long long)size_bytes);
	}
	l->info.size_bytes = size_bytes;
	file_loans_resize(f, size_bytes);
	return 0;
}

/* Where the file changes kind next, as a multiple of the block size: data wins. */
static int next_change(const struct file *f, const struct blk_info *info, uint64_t off, uint64_t end, bool *ret_data, uint64_t *ret_next)
{
	off_t data = lseek(f->fd, (off_t)off, SEEK_DATA), next = (off_t)end;

	if (data < 0 && errno != ENXIO)
		return -errno;
	*ret_data = data >= 0 && (uint64_t)data - off < info->block_bytes;
	if (*ret_data)
		next = lseek(f->fd, data, SEEK_HOLE);
	else if (data >= 0)
		next = data / info->block_bytes * info->block_bytes;
	if (next < 0)
		return -errno;
	if (*ret_data)
		next = (next + info->block_bytes - 1) / info->block_bytes * info->block_bytes;
	*ret_next = MIN_OF((uint64_t)next, end);
	return 0;
}

static int file_extents(struct blk_layer *l, enum blk_extent_map map, uint64_t off_bytes, uint64_t len_bytes, struct blk_extent *out,
			unsigned max)
{
	struct file *f = l->state;
	uint64_t end = off_bytes + len_bytes, next = 0;
	unsigned n = 0;
	bool data = false;

	if (map != BLK_MAP_ALLOCATION)
		return -EOPNOTSUPP;
	while (n < max && off_bytes < end) {
		int err = next_change(f, &l->info, off_bytes, end, &data, &next);
		if (err)
			return err;
		out[n++] = (struct blk_extent){ next - off_bytes, data ? BLK_EXTENT_DATA : BLK_EXTENT_HOLE };
		off_bytes = next;
	}
	return (int)n;
}

static int file_command(struct blk_layer *l, const char *verb, const struct blk_values *args, struct buf *ret_json, struct error *e)
{
	struct file *f = l->state;

	/* What the cache holds may not be on the disk, although the kernel takes it for clean. */
	if (!f->direct)
		posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
	buf_printf(ret_json, "{\"cleared\":%d}", -atomic_exchange(&f->sync.error, 0));
	return 0;
}

static void file_stats(struct blk_layer *l, struct blk_stats_sink *sink)
{
	struct file *f = l->state;
	struct file_counters sum = { 0 };

	for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
		struct file_queue *fq = l->queue_state[i];
		if (!fq)
			continue;
		sum.inline_reads += fq->counters.inline_reads;
		sum.inline_writes += fq->counters.inline_writes;
		sum.batched_reads += fq->counters.batched_reads;
		sum.lent_reads += fq->counters.lent_reads;
		sum.missed += fq->counters.missed;
		sum.bounced += fq->counters.bounced;
		sum.partial += fq->counters.partial;
		sum.zeroes_written_bytes += fq->counters.zeroes_written_bytes;
	}
	blk_stats_emit(sink, "file", "inline_reads", true, sum.inline_reads, "reads that the page cache answered at once");
	blk_stats_emit(sink, "file", "batched_reads", true, sum.batched_reads, "small reads that were handed to the kernel together");
	blk_stats_emit(sink, "file", "lent_reads", true, sum.lent_reads, "reads that were passed on out of the page cache without a copy");
	blk_stats_emit(sink, "file", "missed_reads", true, sum.missed, "reads that the page cache did not answer");
	blk_stats_emit(sink, "file", "inline_writes", true, sum.inline_writes, "writes that the page cache took at once");
	blk_stats_emit(sink, "file", "bounced", true, sum.bounced, "requests whose memory did not suit direct I/O");
	blk_stats_emit(sink, "file", "partial", true, sum.partial, "transfers that were cut short and went on");
	blk_stats_emit(sink, "file", "zeroes_written_bytes", true, sum.zeroes_written_bytes, "zeroes written as data");
	blk_stats_emit(sink, "file", "flushes", true, f->sync.flushes, "flushes asked for");
	blk_stats_emit(sink, "file", "syncs", true, f->sync.calls, "fdatasync calls that served them");
	blk_stats_emit(sink, "file", "flush_failed", false, f->sync.error != 0, "1: a flush failed, and all fail until clear-error");
}

static const struct blk_option file_options[] = {
	{ .name = "path", .type = BLK_OPT_TEXT, .required = true, .doc = "the regular file or whole block device" },
	{ .name = "direct", .type = BLK_OPT_BOOL, .fallback = "on", .doc = "go past the page cache (O_DIRECT)" },
	{ .name = "read-only", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "open for reading; others may read too" },
	{ .name = "discard", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "let discards give room back; off: what is allocated stays so" },
	{ .name = "zeroes", .type = BLK_OPT_CHOICE, .fallback = "auto", .choices = "auto|write|range",
	  .doc = "write zeroes as data (keeps a preallocated file quick), by range (quick now), auto: write for a file with discard=off" },
	{ .name = "create", .type = BLK_OPT_BYTES, .max = 1ull << 60, .doc = "make the file with this length when it is not there" },
	{ .name = "size-of", .type = BLK_OPT_TEXT, .doc = "of a device, use as much as this file is long (it holds nothing); growing makes it longer" },
	{ .name = "lock-wait", .type = BLK_OPT_MS, .fallback = "30000", .max = 3600000,
	  .doc = "how long to wait for another process, or a dead one's last I/O, to let go" },
	{ 0 },
};

static const struct blk_verb file_verbs[] = {
	{ .name = "clear-error", .doc = "let flushes succeed again after one failed: what was written before it may be lost" },
	{ 0 },
};

const struct blk_layer_ops blk_file_ops = {
	.name = "file",
	.doc = "a regular file or a whole block device",
	.is_back = true,
	.options = file_options,
	.open = file_open,
	.queue_start = file_queue_start,
	.queue_stop = file_queue_stop,
	.submit = file_submit,
	.resize = file_resize,
	.command = file_command,
	.verbs = file_verbs,
	.extents = file_extents,
	.stats = file_stats,
	.close = file_close,
};
