/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_CORE_QUEUE_PRIV_H
#define MALLEE_BLOCK_CORE_QUEUE_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "block/core/queue.h"
#include "block/core/request.h"

#define QUEUE_EVENTS 64 /* of one epoll_pwait2() */

/* What performs I/O on files: io_uring or a pool of threads. All on the queue's thread. */
struct aio_engine;
struct aio_ops {
	enum blk_io_engine which;
	int (*open)(struct blk_queue *q, struct aio_engine **ret);
	void (*close)(struct aio_engine *a);
	void (*submit)(struct aio_engine *a, struct blk_aio *op); /* may keep it until flush */
	void (*flush)(struct aio_engine *a);                      /* the batch's end */
	void (*reap)(struct aio_engine *a);                       /* calls done() of what ended */
	bool (*starves)(const struct aio_engine *a);              /* NULL: never. It could hand nothing over, and nothing will wake it */
	void (*file_close)(struct aio_engine *a, struct blk_aio_file *f); /* NULL: it keeps none */
};
extern const struct aio_ops aio_uring_ops, aio_threads_ops;
bool aio_uring_works(void); /* the kernel lets this process use it: tried by a real read */

struct blk_queue {
	unsigned index;
	const struct aio_ops *aio_ops;
	struct aio_engine *aio; /* made by its thread at first use */
	int epoll_fd, wake_fd;
	pthread_t thread;
	bool started;
	bool stop;              /* its thread's */
	uint64_t now_ns;
	struct blk_list done;   /* completed here, done() still to come */
	_Atomic(struct blk_req *) remote_done;  /* completed elsewhere, last first */
	_Atomic(struct blk_task *) posted;      /* last first */
	_Atomic bool woken;     /* wake_fd was written since the last turn */
	struct blk_task *deferred, **deferred_last;
	struct blk_timer *timers; /* soonest first */
	struct epoll_event events[QUEUE_EVENTS];
	int event_count;        /* of the turn in progress: blk_watch_remove() strikes its own out */
};

void queue_completed(struct blk_queue *q, struct blk_req *r);
void queue_wake(struct blk_queue *q);

/* gate.c: r has come out of the stack. */
void gate_leave(struct blk_gate *g);

#endif
