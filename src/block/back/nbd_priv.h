/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_BACK_NBD_PRIV_H
#define MALLEE_BLOCK_BACK_NBD_PRIV_H

#include <pthread.h>

#include "block/core/layer.h"
#include "block/core/nbd_proto.h"
#include "block/core/stack.h"
#include "tls/session.h"

/*
 * The NBD client. Threads: a link (nbd_link.c) is one connection and belongs to one queue, which receives and sends on it;
 * requests of queues without a link of their own come in through its inbox. Connecting and the handshake block, and so have a
 * thread of their own (nbd_connect.c), which hands finished connections to the links; only the first ones are made by open.
 *
 * A request goes out in pieces (slots), as the wire's limits want it. When a connection is lost its slots stay as they are, and
 * are sent again, oldest first, on the next: towards the server a request is done at least once.
 */
#define NBD_LINKS_MAX 16u
#define NBD_LINK_SLOTS 128u
#define NBD_LINK_RX_BYTES 65536u
#define NBD_PIECE_MAX (1u << 30)        /* of what has no data */
#define NBD_ZERO_BYTES (1u << 20)       /* zeroes to send where the server cannot make them */

/* What the server said of the export. Stays the same over reconnects, or the connection is not used. */
struct nbd_remote {
	uint64_t size_bytes;
	uint16_t flags;        /* enum nbd_transmission_flags */
	uint32_t minimum, preferred, maximum;
	bool structured;
	bool has_status;       /* base:allocation was asked for, and is there */
	uint32_t status_id;
};

/* ---- negotiation: nbd_negotiate.c; no socket in it ---- */
struct nbd_negotiation {
	/* The caller's. All of len bytes, or a negative errno. */
	int (*read)(void *ctx, void *data, size_t len);
	int (*write)(void *ctx, const void *data, size_t len);
	int (*secure)(void *ctx); /* TLS; NULL: none is wanted. Else nothing goes on without it */
	void *ctx;
	const char *export_name;
	bool want_status;         /* select base:allocation */
	struct nbd_remote remote; /* the result */
};
int nbd_negotiate(struct nbd_negotiation *n, struct error *e);

/* A connection whose user blocks, up to a deadline. */
struct nbd_dial {
	struct nbd_client *client;
	int fd;
	struct tls_session *tls;
	int64_t deadline_ms; /* clock_mono_ms() */
};
int nbd_dial_open(struct nbd_client *c, bool want_status, struct nbd_dial *d, struct nbd_remote *ret, struct error *e);
int nbd_dial_read(void *dial, void *data, size_t len);
int nbd_dial_write(void *dial, const void *data, size_t len);
void nbd_dial_close(struct nbd_dial *d);

/* Of what we make of it. */
static inline uint32_t nbd_block_bytes(const struct nbd_remote *x)
{
	return x->minimum > 512 ? 4096 : 512;
}

/* ---- links ---- */
enum nbd_slot_state { NBD_SLOT_FREE, NBD_SLOT_QUEUED, NBD_SLOT_SENT };

struct nbd_slot {
	struct nbd_slot *next;     /* free, or to be sent */
	struct blk_req *req;
	enum nbd_slot_state state;
	struct nbd_request rq;
	uint64_t seq;              /* of its making: the order when sent again */
	uint32_t generation;       /* in the cookie: an old reply is told from a new one */
	uint32_t received;         /* bytes of a read */
	int error;
	bool answered;             /* before all of it was sent */
	uint8_t header[NBD_REQUEST_BYTES];
};

struct nbd_link {
	struct nbd_client *client;
	struct blk_queue *queue;
	struct blk_task flush, adopt, knock;
	struct blk_watch watch;
	struct blk_timer tick;
	int fd;                    /* -1: down */
	struct tls_session *tls;
	bool blocked;
	uint64_t down_since_ns, heard_ns;
	struct nbd_dial fresh;     /* from the connecting thread, for adopt */

	pthread_mutex_t lock;      /* inbox and knocked */
	struct blk_list inbox;
	bool knocked;

	struct blk_list waiting;   /* requests with pieces still to be made */
	struct nbd_slot *out, **out_last; /* to be sent */
	uint64_t out_sent;         /* bytes of the first */
	struct nbd_slot *free;
	unsigned used;
	uint64_t next_seq;
	struct nbd_slot *reading;  /* whose data comes: */
	uint32_t read_at, read_left;
	uint8_t *rx;
	uint32_t rx_at, rx_len;
	struct nbd_slot slots[NBD_LINK_SLOTS];
};

struct nbd_counters {
	_Atomic uint64_t requests, resent, lost, protocol_errors, reconnected, connect_failures, other_exports;
};

struct nbd_client {
	char *path, *host, *port, *export_name;
	struct tls_context *tls;
	enum tls_role tls_peer;
	char *tls_peer_id;
	uint64_t connect_ms, timeout_ms, retry_ms, give_up_ms; /* give_up 0: never */
	bool gives_up;
	struct nbd_remote remote;
	uint32_t block_bytes;
	unsigned link_count, queue_count;
	struct nbd_link *links[NBD_LINKS_MAX];
	unsigned turn[BLK_QUEUES_MAX]; /* the queue's: which of its links is next */
	void *zeroes;              /* NBD_ZERO_BYTES, never written */
	struct nbd_counters counters;

	int cancel_fd;             /* readable: the connecting thread is to stop waiting */
	pthread_t thread;
	bool thread_started;
	pthread_mutex_t lock;      /* what follows */
	pthread_cond_t wanted;
	uint32_t links_wanted;     /* bit i: link i has no connection */
	bool status_wanted, quit, stopped, dialling;
	void (*settled)(void *ctx);
	void *settled_ctx;

	pthread_mutex_t status_lock; /* status, held for one question */
	struct nbd_dial status;
	uint32_t status_id;
	bool status_up;
	uint64_t status_cookie;
};

/* nbd_link.c */
int nbd_link_new(struct nbd_client *c, struct nbd_link **ret);
void nbd_link_free(struct nbd_link *k);
int nbd_link_begin(struct nbd_link *k, struct blk_queue *q); /* before the queue runs; fresh holds its connection */
void nbd_link_submit(struct nbd_link *k, struct blk_req *r); /* any queue's thread */
void nbd_link_end(struct nbd_link *k);                       /* the queue has stopped */
void nbd_link_flush(struct nbd_link *k);                     /* its queue's thread: make pieces and send */
void nbd_link_lost(struct nbd_link *k, bool protocol_error);
void nbd_slot_done(struct nbd_link *k, struct nbd_slot *slot, int err);

/* nbd_receive.c */
void nbd_receive(struct nbd_link *k);
/* What is in k's rx. 0 or -EPROTO. */
int nbd_take_replies(struct nbd_link *k);

/* nbd_connect.c: the connecting thread */
int nbd_connector_start(struct nbd_client *c, struct error *e);
void nbd_connector_stop(struct nbd_client *c);
void nbd_connector_want(struct nbd_client *c, const struct nbd_link *k); /* NULL: the status connection */
void nbd_connector_settle(struct nbd_client *c, bool stop, void (*fn)(void *ctx), void *ctx);

/* nbd_status.c */
int nbd_status_extents(struct nbd_client *c, uint64_t off_bytes, uint64_t len_bytes, struct blk_extent *out, unsigned max);

#endif
