/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_CORE_REQUEST_H
#define MALLEE_BLOCK_CORE_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct blk_queue;
struct blk_gate;
struct blk_io_stats;

/*
 * One request on its way through a stack. Whoever submits it owns it, its iovec and its data until done() is called:
 * once, on the thread of its queue, and never inside the submit that led to it. A layer may hand the very request to the
 * layer below (it then hears nothing of its end), or keep it and submit children of its own (struct blk_pool).
 */
enum blk_op {
	BLK_READ,
	BLK_WRITE,
	BLK_FLUSH,        /* durable: every write that completed before it was submitted. No offset, no length */
	BLK_DISCARD,      /* a hint; reads of the range are undefined until it is written */
	BLK_WRITE_ZEROES, /* reads give zeroes afterwards; no data */
	BLK_OPS
};

enum blk_flags {
	BLK_FUA = 1 << 0,        /* WRITE and WRITE_ZEROES: durable before it completes. Every layer obeys it */
	BLK_MAY_UNMAP = 1 << 1,  /* WRITE_ZEROES: room may be given back. Without it the range stays allocated */
	BLK_BACKGROUND = 1 << 2, /* the engine's own: fill, read-ahead, write-back. May wait behind others */
};

/* Limits that front ends hold; the layers below assert them. */
#define BLK_DEPTH_MAX 256u           /* requests of one queue inside a stack */
#define BLK_IOV_MAX 256u             /* elements of a request's iovec */
#define BLK_LEN_MAX (32u << 20)      /* bytes of a READ or WRITE; DISCARD and WRITE_ZEROES may be as long as the disk */
#define BLK_QUEUES_MAX 16u           /* queues of a stack */
#define BLK_SECTOR 512u              /* the least block_bytes */

/*
 * A READ whose submitter can pass its data on by reference says so. Whoever ends it may then leave iov alone, set given and say
 * where in which open file the data lies, which the page cache has: nothing has to be copied. What is written there later is then
 * read, as by any read that is under way while it is written. What has to stay as it was (a frozen view) is not lent; a layer that
 * submits requests of its own does not pass the wish on.
 */
struct blk_loan {
	bool wanted;        /* the submitter's */
	bool given;         /* whoever ends it */
	int fd;             /* open for as long as the stack is */
	uint64_t off_bytes; /* in that file */
};

struct blk_req {
	enum blk_op op;
	uint32_t flags;           /* enum blk_flags */
	uint64_t off_bytes;       /* multiples of the layer's block_bytes, inside its size: checked by the front end */
	uint64_t len_bytes;       /* READ, WRITE: the sum of iov; > 0 but for FLUSH */
	const struct iovec *iov;  /* READ, WRITE */
	unsigned iov_count;
	struct blk_loan loan;     /* READ */
	struct blk_queue *queue;
	void (*done)(struct blk_req *r); /* r->result is 0 or a negative errno: -EIO, -ENOSPC, -EROFS, -EOPNOTSUPP … */
	void *ctx;                /* the submitter's */
	int result;
	bool completed;           /* asserts that it happens once */
	struct blk_req *next;     /* the list of whoever holds it */
	struct blk_gate *gate;    /* the stack's door that it came through; NULL: none */
	struct {
		struct blk_io_stats *io;
		uint64_t arrival_ns;
	} account[2];             /* where it is counted, see stats.h: at most the stack's top and a back end */
	uint64_t scratch[4];      /* of the layer that holds it; lost when it is handed down */
};

/* Ends r: from the thread of its queue or from any other. done() runs on its queue's thread, later. */
void blk_complete(struct blk_req *r, int result);

/* A queue of requests: first in, first out. */
struct blk_list {
	struct blk_req *first, **last; /* last: NULL while empty, so that zeroed memory is an empty list */
};
void blk_list_push(struct blk_list *l, struct blk_req *r);
struct blk_req *blk_list_pop(struct blk_list *l); /* NULL when empty */
static inline bool blk_list_empty(const struct blk_list *l)
{
	return !l->first;
}

/* ---- iovecs ---- */
uint64_t blk_iov_bytes(const struct iovec *iov, unsigned count);
/* The part [skip, skip + len) of iov as elements in out (room for max): their number. Asserts that it is inside and fits. */
unsigned blk_iov_slice(const struct iovec *iov, unsigned count, uint64_t skip, uint64_t len, struct iovec *out, unsigned max);
/* Copy between flat memory and [skip, skip + len) of iov. */
void blk_iov_to(const struct iovec *iov, unsigned count, uint64_t skip, const void *from, size_t len);
void blk_iov_from(const struct iovec *iov, unsigned count, uint64_t skip, void *to, size_t len);
void blk_iov_zero(const struct iovec *iov, unsigned count, uint64_t skip, size_t len);
/* Whether every base and length is a multiple of align (a power of two). */
bool blk_iov_aligned(const struct iovec *iov, unsigned count, size_t align);

/* ---- children: requests of a layer's own, made when a queue starts, so that the data path allocates nothing ---- */
struct blk_pool; /* belongs to one queue's thread */
/* count requests, each with room for iov_max elements and extra_bytes of the layer's own (zeroed once). Memory is touched
 * only as it is used, last used first. -ENOMEM. */
int blk_pool_new(struct blk_queue *q, unsigned count, unsigned iov_max, size_t extra_bytes, struct blk_pool **ret);
void blk_pool_free(struct blk_pool *p); /* asserts that all are back */
struct blk_req *blk_pool_get(struct blk_pool *p); /* fields zeroed, queue set; NULL when all are out */
/* The same, and it asks what r asks, with r's iovec; ctx is r. done is still to be set. */
struct blk_req *blk_pool_copy(struct blk_pool *p, struct blk_req *r);
void blk_pool_put(struct blk_pool *p, struct blk_req *r);
struct iovec *blk_pool_iov(struct blk_req *r); /* its own elements; set r->iov to them to use them */
void *blk_pool_extra(struct blk_req *r);
unsigned blk_pool_out(const struct blk_pool *p); /* how many are out */

#endif
