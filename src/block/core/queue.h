/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_CORE_QUEUE_H
#define MALLEE_BLOCK_CORE_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

#include "base/error.h"

/*
 * A queue: one thread, its event loop, its I/O. Requests belong to a queue and their callbacks run on its thread; what
 * several queues share takes a lock, held for memory work only. One turn of the loop: what other threads posted, finished
 * I/O, ready descriptors and timers; then done() of all that completed, again until none is left; then what was deferred to
 * the end of the batch (front ends answer in one go, I/O is submitted in one go); then it sleeps.
 */
struct blk_queue;

enum blk_io_engine { BLK_IO_AUTO, BLK_IO_URING, BLK_IO_THREADS };

/* BLK_IO_AUTO: io_uring where the kernel lets us (probed), else threads. Index: 0 … BLK_QUEUES_MAX - 1. */
int blk_queue_new(unsigned index, enum blk_io_engine engine, struct blk_queue **ret, struct error *e);
/* Not while it runs. NULL is fine. */
void blk_queue_free(struct blk_queue *q);
int blk_queue_start(struct blk_queue *q); /* a thread that runs it */
void blk_queue_stop(struct blk_queue *q); /* ends that thread, from another */
/* The caller's thread is the queue's until *flag is true or timeout_ms have passed (-ETIMEDOUT): for tests and tools. */
int blk_queue_run_until(struct blk_queue *q, const bool *flag, int timeout_ms);

unsigned blk_queue_index(const struct blk_queue *q);
enum blk_io_engine blk_queue_engine(const struct blk_queue *q); /* URING or THREADS: what it got */
bool blk_queue_is_current(const struct blk_queue *q);
/* CLOCK_MONOTONIC in ns as read at the last event: cheap. */
uint64_t blk_queue_now(const struct blk_queue *q);
uint64_t blk_queue_read_clock(struct blk_queue *q); /* the same, read anew. On q's thread */
bool blk_queue_has_more(const struct blk_queue *q); /* on q's thread: it is known not to sleep after this */

/* ---- tasks ---- */
struct blk_task {
	void (*fn)(struct blk_task *t);
	struct blk_task *next; /* the queue's while it waits */
	bool waiting;          /* blk_queue_defer() only */
};
/* From any thread: fn on q's thread, soon. One posting at a time for one task. */
void blk_queue_post(struct blk_queue *q, struct blk_task *t);
/* From any thread but q's: as above, and returns when fn has. q must be running. */
void blk_queue_call(struct blk_queue *q, void (*fn)(void *ctx), void *ctx);
/* On q's thread: fn at the end of this batch, once however often it is asked for. */
void blk_queue_defer(struct blk_queue *q, struct blk_task *t);

/* ---- descriptors ---- (on q's thread, or before it starts) */
struct blk_watch {
	void (*fn)(struct blk_watch *w, uint32_t events);
	struct blk_queue *queue;
	int fd;
};
/* events as epoll's (EPOLLET: an eventfd then needs no read). The watch is the caller's and stays in place. */
int blk_watch_add(struct blk_queue *q, struct blk_watch *w, int fd, uint32_t events, void (*fn)(struct blk_watch *w, uint32_t events));
int blk_watch_change(struct blk_watch *w, uint32_t events);
void blk_watch_remove(struct blk_watch *w); /* safe in its own callback; fine when it was never added (queue NULL) */

/* ---- timers ---- (on q's thread, or before it starts) */
struct blk_timer {
	void (*fn)(struct blk_timer *t);
	uint64_t deadline_ns;     /* CLOCK_MONOTONIC */
	struct blk_timer *next, **link; /* link: NULL while not set */
};
void blk_timer_set(struct blk_queue *q, struct blk_timer *t, uint64_t deadline_ns); /* moves it when it is set */
void blk_timer_cancel(struct blk_timer *t);

/* ---- I/O on files ---- (on q's thread) */
/* A file that is used much: the queue's engine may keep it at hand, which saves looking it up with each operation. */
struct blk_aio_file {
	struct blk_queue *queue; /* the rest: the queue's */
	int fd, slot;
	bool tried;
};
void blk_aio_file_open(struct blk_aio_file *f, struct blk_queue *q, int fd);
void blk_aio_file_close(struct blk_aio_file *f); /* before fd is; no operation is out. On q's thread, or when q does not run */

enum blk_aio_op { BLK_AIO_READ, BLK_AIO_WRITE, BLK_AIO_FDATASYNC, BLK_AIO_FALLOCATE };
struct blk_aio {
	enum blk_aio_op op;
	int fd;
	struct blk_aio_file *file; /* fd's; NULL: none */
	int flags;                /* READ, WRITE: RWF_DSYNC …; FALLOCATE: its mode */
	const struct iovec *iov;  /* the caller's, in place until done */
	unsigned iov_count;
	uint64_t off_bytes, len_bytes; /* len_bytes: FALLOCATE */
	int64_t result;           /* bytes, 0, or a negative errno. Short counts happen: the caller goes on */
	void (*done)(struct blk_aio *a); /* on q's thread, never inside blk_aio_submit() */
	struct blk_aio *next;     /* the queue's */
	struct blk_queue *queue;  /* set by blk_aio_submit() */
};
void blk_aio_submit(struct blk_queue *q, struct blk_aio *a);
void blk_queue_ready_io(struct blk_queue *q); /* on its thread: makes what the first I/O would; nothing if there is it */

#endif
