/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FRONT_VHOST_USER_PRIV_H
#define MALLEE_BLOCK_FRONT_VHOST_USER_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "block/core/front.h"
#include "block/front/vhost_wire.h"
#include "block/virtio/inflight.h"
#include "block/virtio/vblk.h"
#include "block/virtio/virtq.h"

#define VHOST_RINGS_MAX 64u
#define SLOT_IOV 8u /* pieces of a request that lie in its slot; longer lists have a place of their own */

struct vhost_user;

/* ---- vhost_user_ring.c: one virtqueue; what is below "queue's" is touched on its queue's thread, or while it is stopped ---- */

struct vhost_slot {
	struct blk_req req;
	struct vhost_ring *ring;
	uint8_t *status_at;
	uint32_t written_bytes, failed_bytes;
	uint16_t head;
	bool busy;
	unsigned iov_left;        /* elements from req.iov on, of a request that goes down in several pieces */
	uint64_t bytes_left;      /* behind the piece that is below */
	size_t cut_bytes;         /* taken off the piece's last element for the time being */
	struct iovec iov[SLOT_IOV];
};

struct vhost_ring {
	struct vhost_user *user;
	unsigned index;
	struct blk_queue *queue;

	/* The peer's settings: the main thread's, applied at start. */
	unsigned num;
	uint16_t base;
	uint64_t desc_user, avail_user, used_user;
	bool has_addr;
	bool running;             /* started and not yet finished */
	bool stop_asked, resume, broken_told;
	bool enabled_wanted;
	int kick_fd, call_fd, err_fd;

	/* The queue's. */
	struct virtq q;
	struct virtq_chain chain; /* being parsed */
	struct inflight inflight;
	struct vhost_slot *slots; /* by head */
	struct iovec *long_iov;   /* VIRTQ_IOV_MAX for each head; touched only where it is used */
	uint16_t *again;          /* heads to be submitted once more, in order */
	unsigned again_count;
	struct blk_watch kick;
	struct blk_task batch, stop;
	unsigned inside;          /* requests */
	unsigned short_sleeps;    /* in a row */
	unsigned sleeps_needed;   /* of those, before it is worth a wait */
	uint64_t slept_ns;        /* since when; 0: it does not */
	bool enabled, stopping, active;

	_Atomic uint64_t waits, waits_in_vain;
	_Atomic uint64_t kicks, calls, batches, breaks, resubmitted;
	_Atomic(const char *) broken; /* to be told by the main thread */
};

void vhost_ring_init(struct vhost_ring *r, struct vhost_user *u, unsigned index);
/* All settings are there: does its memory make sense? Then it runs. Main thread. -EINVAL; -EBADMSG: the in-flight memory's part. */
int vhost_ring_start(struct vhost_ring *r);
/* Takes no more; vhost_user_ended() is called, on any thread, when nothing of it is inside. Main thread; it must be running. */
void vhost_ring_stop(struct vhost_ring *r);
/* After that, on the main thread: frees, and sets base to where the peer goes on. */
void vhost_ring_finish(struct vhost_ring *r);
void vhost_ring_enable(struct vhost_ring *r, bool on);
/* Each takes fd over; -1: none. */
int vhost_ring_set_kick(struct vhost_ring *r, int fd);
void vhost_ring_set_call(struct vhost_ring *r, int fd);
void vhost_ring_set_err(struct vhost_ring *r, int fd);
void vhost_never_block(int fd); /* the peer may have made it to block; our threads do not. -1: nothing */

/* ---- vhost_user.c: the socket and its one peer. The main thread's, but for what is atomic ---- */

struct vhost_user {
	struct blk_front *front;
	struct blk_stack *stack;
	struct blk_listener listener;
	struct vblk disk;
	unsigned seg_max;
	char *path;
	uid_t peer_uid;
	int listen_fd, event_fd;
	struct loop_source *listen_source, *event_source, *peer_source;

	/* The peer. */
	struct vhost_channel peer;
	int back_fd;              /* for our own requests to it */
	uint64_t features, protocol_features;
	bool features_set;
	bool write_back;          /* the cache mode that the driver has set */
	struct vmem mem;
	void *inflight;           /* the shared memory, mapped */
	uint64_t inflight_map_bytes;
	char *inflight_memory;    /* where the queues' parts begin in it */
	unsigned inflight_queues, inflight_size;
	struct vhost_ring ring[VHOST_RINGS_MAX];

	/* Something that takes time: `then` runs when as many have ended as were begun. Messages wait meanwhile. */
	_Atomic unsigned outstanding;
	void (*then)(struct vhost_user *u);
	struct vhost_msg held;    /* the message that waits for it */
	struct blk_req flush;
	struct blk_task flush_task;

	_Atomic bool config_changed; /* to be told, once a ring runs */
	_Atomic uint64_t connections, refused, protocol_errors;
};

/* A thing that was counted in `outstanding` has ended. Any thread. */
void vhost_user_ended(struct vhost_user *u);
void vhost_user_wake(struct vhost_user *u); /* the main thread looks at what is to be told */
void vhost_user_say(struct vhost_user *u, bool is_error, const char *fmt, ...) _printf_(3, 4);
/* then(u) when all outstanding things have ended, soon, from the loop. */
void vhost_user_wait(struct vhost_user *u, void (*then)(struct vhost_user *u));
void vhost_user_stop_rings(struct vhost_user *u);
void vhost_user_finish_rings(struct vhost_user *u);
void vhost_user_tell_config(struct vhost_user *u); /* the capacity has changed */
/* The connection ends, as soon as nothing of it is inside. why: NULL when the peer has gone by itself. */
void vhost_user_drop_peer(struct vhost_user *u, const char *why);

/* ---- vhost_user_msg.c: what the peer asks ---- */
/* A whole message; takes its descriptors over. Negative: the connection cannot go on (said). */
int vhost_user_message(struct vhost_user *u, struct vhost_msg *m);

/* ---- vhost_user_mem.c: memory that the peer shares ---- */
int vhost_mem_map(struct vmem_region *r, int fd, uint64_t fd_off); /* fills host, map; the rest is set. Keeps no descriptor */
void vhost_mem_unmap(struct vmem_region *r);
void vhost_mem_clear(struct vmem *m);
int vhost_inflight_make(struct vhost_user *u, struct vhost_inflight *io, int *ret_fd);
int vhost_inflight_take(struct vhost_user *u, const struct vhost_inflight *in, int fd);
void vhost_inflight_drop(struct vhost_user *u);
struct inflight_queue *vhost_inflight_queue(struct vhost_user *u, unsigned index); /* NULL */
struct inflight_tail *vhost_inflight_tail(struct vhost_user *u);                   /* NULL: none, or not made by us */

#endif
