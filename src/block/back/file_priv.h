/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_BACK_FILE_PRIV_H
#define MALLEE_BLOCK_BACK_FILE_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "block/core/layer.h"

#define FILE_OPS 256u                    /* of one queue at once; more wait */
#define FILE_BOUNCES 8u                  /* of one queue */
#define FILE_BOUNCE_BYTES (128u << 10)
#define FILE_BATCHED_BYTES (16u << 10)   /* reads from the page cache up to this are handed to the kernel together */
#define FILE_LOAN_MIN_BYTES (64u << 10)  /* what is shorter is copied sooner than lent */
#define FILE_LOAN_MAX_BYTES (1u << 20)
#define FILE_ZEROES_BYTES (1u << 20)     /* the zeroes that are written, FILE_ZEROES_TIMES in one write */
#define FILE_ZEROES_TIMES 4u
#define FILE_RANGE_BYTES (1ull << 30)    /* of one fallocate */

struct file_queue;

/* A request that the kernel is at work on. Of its queue's thread. */
struct file_op {
	struct blk_aio aio; /* first */
	struct file_op *next;
	struct file_queue *fq;
	struct blk_req *req;
	uint64_t done_bytes;
	char *bounce;        /* NULL: the request's own memory */
	unsigned retries;
	int sync_error;      /* of a write with RWF_DSYNC, which is tried without */
	struct iovec *iov;   /* its own, BLK_IOV_MAX */
};

/* Counters: one writer, any reader. */
struct file_counters {
	_Atomic uint64_t inline_reads, inline_writes, batched_reads, lent_reads, missed, bounced, partial, zeroes_written_bytes;
};

struct file_queue {
	struct file *file;
	struct blk_queue *queue;
	struct blk_aio_file known;
	bool batched;                    /* small reads go to the kernel together: it answers what it has at once */
	struct file_op *ops, *free;
	struct iovec *iov;               /* all ops', mapped, touched when used */
	struct blk_list waiting;         /* requests, for an op; scratch[0]: bytes done */
	char *bounces, *free_bounce[FILE_BOUNCES];
	unsigned free_bounces;
	struct file_op *bounce_waiting, **bounce_waiting_last;
	struct file_counters counters;
};

/* FLUSHes that share fdatasync() calls, see file_space.c. */
struct file_sync {
	pthread_mutex_t lock;    /* waiting and running; held for list work only */
	struct blk_list waiting; /* for the next call */
	bool running;
	struct blk_list batch;   /* of the call in progress */
	struct blk_aio aio;
	_Atomic int error;       /* sticky: what a call failed with */
	_Atomic uint64_t calls, flushes;
};

/* A thread for BLKDISCARD, which only exists as a call that blocks. */
struct file_discarder {
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;    /* the rest */
	pthread_cond_t work;
	struct blk_list todo;
	bool closing;
};

struct file {
	int fd;
	char *path;
	int size_fd;             /* the file whose length is a device's; -1: all of it */
	bool read_only, direct, is_device;
	bool discard;            /* room may be given back */
	uint32_t discard_bytes;  /* in these units; 0: DISCARD does nothing */
	bool zeroes_written;     /* WRITE_ZEROES as writes, so that the blocks stay written */
	uint32_t mem_align, off_align; /* of direct I/O: addresses; offsets and lengths */
	int now_flags;           /* what makes preadv2() not wait */
	_Atomic bool no_read_now, no_write_now, no_dsync, no_punch, no_zero_range; /* tried in vain */
	char *zeroes;            /* FILE_ZEROES_BYTES that nobody writes to: they take no memory */
	char *pages;             /* the file, mapped but out of reach, to ask what the page cache has; NULL: cannot be asked */
	uint64_t pages_bytes;
	struct file_sync sync;
	struct file_discarder discarder;
};

/* file_open.c */
int file_open_locked(struct file *f, const struct blk_values *v, struct error *e);
int file_probe(struct file *f, struct blk_info *ret, struct error *e);
int file_device_size(int fd, uint64_t *ret);

/* file.c */
void file_op_begin(struct file_queue *fq, struct blk_req *r, uint64_t done_bytes);
void file_op_end(struct file_op *op, int result);
bool file_op_again(struct file_op *op, int64_t result); /* an interruption: it was submitted once more */

/* file_loan.c */
void file_loans_start(struct file *f, uint64_t size_bytes);
void file_loans_resize(struct file *f, uint64_t size_bytes); /* the stack is quiet */
void file_loans_stop(struct file *f);
bool file_lend(struct file_queue *fq, struct blk_req *r);    /* true: it has ended */

/* file_space.c: FLUSH, WRITE_ZEROES, DISCARD */
int file_sync_init(struct file_sync *s);
void file_sync_join(struct file *f, struct blk_req *r);
void file_zero_next(struct file_op *op);
void file_zero_done(struct blk_aio *a);
void file_discard(struct file_queue *fq, struct blk_req *r);
void file_discard_next(struct file_op *op);
void file_discard_done(struct blk_aio *a);
int file_discarder_start(struct file *f);
void file_discarder_stop(struct file *f);

#endif
