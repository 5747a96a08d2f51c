/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O on files through io_uring: operations are gathered and handed over a few at a time. All of a batch in one system call would
 * cost the least, but a disk that has nothing to do then waits until the last is prepared, and answers all of them at once: driver
 * and disk would take turns. One at a time costs a call, and often an exit to a hypervisor, for each. So the first few are few, and
 * while the disk is busy with those more are gathered.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/core/queue_priv.h"

#define RING_ENTRIES 256
#define FILES 8 /* kept at hand */
/* Of 4 KiB at a depth of 32 a virtual disk did a tenth more when its first were 4 and not 16; 1, 2 and 8 were behind. With 4 each
 * time it did no more than with 8 after the first, at 7 % more CPU; 14 brought nothing over 8. */
#define HANDED_OVER_FIRST 4u
#define HANDED_OVER 8u

struct aio_engine {
	struct blk_queue *queue;
	struct io_uring ring;
	bool unsubmitted;
	unsigned handed; /* to the kernel, and not reaped */
	uint8_t files; /* bits: slots in use */
	bool takes_files;
	struct blk_aio *waiting, **waiting_last; /* no room in the ring */
};

/* Debian 12's liburing declares functions for these two, and has forgotten to export them. */
static int ring_register(struct io_uring *ring, unsigned op, void *arg, unsigned count)
{
	return (int)syscall(SYS_io_uring_register, ring->ring_fd, op, arg, count);
}

/* A ring goes past a filter of system calls: so it can do what prepare() asks, and nothing else. */
static int ring_restrict(struct io_uring *ring)
{
	struct io_uring_restriction allowed[] = {
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FALLOCATE },
		{ .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_FIXED_FILE },
		{ .opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_FILES_UPDATE },
	};

	return ring_register(ring, IORING_REGISTER_RESTRICTIONS, allowed, ARRAY_SIZE(allowed)) || ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0) ?
		       -errno :
		       0;
}

/* files: whether it has room for files that are kept at hand, which older kernels do not know. */
static int ring_open(struct io_uring *ring, unsigned entries, bool *files)
{
	/* Completions are looked for by this thread alone, so that none has to interrupt it; older kernels don't know this. */
	int err = io_uring_queue_init(entries, ring, IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN);
	if (err == -EINVAL)
		err = io_uring_queue_init(entries, ring, IORING_SETUP_R_DISABLED);
	if (err)
		return err;
	*files = !io_uring_register_files_sparse(ring, FILES); /* while the ring still takes it */
	err = ring_restrict(ring);
	if (err)
		io_uring_queue_exit(ring);
	return err;
}

static int uring_open(struct blk_queue *q, struct aio_engine **ret)
{
	struct aio_engine *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	int err = ring_open(&a->ring, RING_ENTRIES, &a->takes_files);
	if (!err) {
		/* Only wakes the loop, which then reaps whatever woke it. */
		struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
		err = epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, a->ring.ring_fd, &ev) ? -errno : 0;
		if (err)
			io_uring_queue_exit(&a->ring);
	}
	if (err) {
		free(a);
		return err;
	}
	a->queue = q;
	a->waiting_last = &a->waiting;
	*ret = a;
	return 0;
}

static void uring_close(struct aio_engine *a)
{
	io_uring_queue_exit(&a->ring);
	free(a);
}

/* A file takes a slot with its first operation: only now is the ring there. */
static int take_slot(struct aio_engine *a, struct blk_aio_file *f)
{
	int slot = __builtin_ffs(~a->files & ((1 << FILES) - 1)) - 1;

	f->tried = true;
	if (!a->takes_files || slot < 0 || io_uring_register_files_update(&a->ring, (unsigned)slot, &f->fd, 1) != 1)
		return -1;
	a->files = (uint8_t)(a->files | 1u << slot);
	return f->slot = slot;
}

static void uring_file_close(struct aio_engine *a, struct blk_aio_file *f)
{
	io_uring_register_files_update(&a->ring, (unsigned)f->slot, &(int){ -1 }, 1);
	a->files = (uint8_t)(a->files & ~(1u << f->slot));
}

static void prepare_rw(struct io_uring_sqe *sqe, const struct blk_aio *op, int fd)
{
	bool read = op->op == BLK_AIO_READ;

	if (op->iov_count != 1)
		io_uring_prep_rw(read ? IORING_OP_READV : IORING_OP_WRITEV, sqe, fd, op->iov, op->iov_count, op->off_bytes);
	else /* nothing to be fetched from the list, then */
		io_uring_prep_rw(read ? IORING_OP_READ : IORING_OP_WRITE, sqe, fd, op->iov->iov_base, (unsigned)op->iov->iov_len, op->off_bytes);
	sqe->rw_flags = op->flags;
}

static void prepare(struct aio_engine *a, struct io_uring_sqe *sqe, struct blk_aio *op)
{
	struct blk_aio_file *f = op->file;
	int slot = !f ? -1 : f->tried ? f->slot : take_slot(a, f), fd = slot >= 0 ? slot : op->fd;

	switch (op->op) {
	case BLK_AIO_READ:
	case BLK_AIO_WRITE:
		prepare_rw(sqe, op, fd);
		break;
	case BLK_AIO_FDATASYNC:
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
		break;
	case BLK_AIO_FALLOCATE:
		io_uring_prep_fallocate(sqe, fd, op->flags, (off_t)op->off_bytes, (off_t)op->len_bytes);
		break;
	}
	if (slot >= 0)
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, op);
}

/* -EAGAIN, -EBUSY: the kernel is short of memory or has completions to be reaped first. The next turn tries again, which those
 * completions bring about; where there are none uring_starves() has the queue come again. */
static void hand_over(struct aio_engine *a)
{
	int n = io_uring_submit(&a->ring);

	if (n < 0)
		return;
	a->handed += (unsigned)n;
	a->unsubmitted = io_uring_sq_ready(&a->ring) > 0;
}

static bool try_submit(struct aio_engine *a, struct blk_aio *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&a->ring);

	if (!sqe) {
		hand_over(a);
		sqe = io_uring_get_sqe(&a->ring);
	}
	if (!sqe)
		return false;
	prepare(a, sqe, op);
	a->unsubmitted = true;
	if (io_uring_sq_ready(&a->ring) >= (a->handed ? HANDED_OVER : HANDED_OVER_FIRST))
		hand_over(a);
	return true;
}

static void uring_submit(struct aio_engine *a, struct blk_aio *op)
{
	if (!a->waiting && try_submit(a, op))
		return;
	op->next = NULL;
	*a->waiting_last = op;
	a->waiting_last = &op->next;
}

static void uring_flush(struct aio_engine *a)
{
	while (a->waiting && try_submit(a, a->waiting)) {
		a->waiting = a->waiting->next;
		if (!a->waiting)
			a->waiting_last = &a->waiting;
	}
	if (a->unsubmitted)
		hand_over(a);
}

static void uring_reap(struct aio_engine *a)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&a->ring, &cqe) == 0) {
		struct blk_aio *op = io_uring_cqe_get_data(cqe);
		op->result = cqe->res;
		io_uring_cqe_seen(&a->ring, cqe);
		a->handed--;
		op->done(op);
	}
}

static bool uring_starves(const struct aio_engine *a)
{
	return a->unsubmitted && !a->handed;
}

const struct aio_ops aio_uring_ops = {
	.which = BLK_IO_URING,
	.open = uring_open,
	.close = uring_close,
	.submit = uring_submit,
	.flush = uring_flush,
	.reap = uring_reap,
	.starves = uring_starves,
	.file_close = uring_file_close,
};

/* Some hosts refuse io_uring, some let it be made and fail its operations. */
bool aio_uring_works(void)
{
	struct io_uring ring;
	char byte;
	bool works = false, files;

	if (ring_open(&ring, 4, &files))
		return false;
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	if (fd >= 0 && sqe) {
		struct io_uring_cqe *cqe;
		struct iovec iov = { &byte, 1 };
		io_uring_prep_readv2(sqe, fd, &iov, 1, 0, 0);
		works = io_uring_submit_and_wait(&ring, 1) == 1 && io_uring_peek_cqe(&ring, &cqe) == 0 && cqe->res == 1;
	}
	if (fd >= 0)
		close(fd);
	io_uring_queue_exit(&ring);
	return works;
}
