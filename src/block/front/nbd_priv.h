/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FRONT_NBD_PRIV_H
#define MALLEE_BLOCK_FRONT_NBD_PRIV_H

#include <pthread.h>

#include "block/core/front.h"
#include "block/front/nbd_handshake.h"
#include "os/loop.h"
#include "tls/session.h"

/*
 * The NBD server. Threads: listening and handshakes belong to the main thread's loop (nbd.c, nbd_peer.c); a connection that has
 * been admitted belongs to one queue (nbd_conn.c: life, receiving; nbd_request.c: requests; nbd_reply.c: replies, sending), and
 * comes back to the main thread when it has ended: server->ended, under server->lock, told by ended_fd.
 *
 * Memory of a connection is made when it is admitted: requests (slots), the pieces that they are carried out in (parts), and
 * NBD_UNITS units of data. A request that is larger than a part goes through the stack part by part. Who runs out of slots,
 * parts or units stops receiving (stalled) until some come back. Idle for a second, it gives the memory of its data back.
 */
#define NBD_SLOTS 128u
#define NBD_UNIT_BYTES 32768u
#define NBD_UNITS 128u
#define NBD_PART_UNITS 8u
#define NBD_PART_BYTES (NBD_PART_UNITS * NBD_UNIT_BYTES)
#define NBD_RX_BYTES 65536u
#define NBD_ORDERED_MAX (2u << 20)   /* a read whose reply must be in one piece is held until whole, up to this */
#define NBD_HOT_BYTES (512u << 10)   /* read ahead of the socket while the stack answers at once: stays in the CPU's cache */
#define NBD_EARLY_BYTES (256u << 10) /* waiting replies of this size go out before the batch's end */
#define NBD_EXTENTS_MAX 256u         /* of one block status reply */

struct nbd_part;
struct nbd_slot;

/* Something to be sent: a header, the data of a part, or both. */
struct nbd_out {
	struct nbd_out *next;
	struct nbd_slot *slot;
	struct nbd_part *part; /* NULL: no data */
	uint32_t head_bytes, data_bytes;
	uint8_t head[NBD_CHUNK_HOLE_BYTES];
};

/* One client's request. */
struct nbd_slot {
	struct nbd_slot *next;      /* free, or todo */
	struct nbd_request rq;
	unsigned refs;              /* itself until its last reply is queued, that reply, and its parts */
	int error;                  /* the first */
	uint32_t issued, left;      /* bytes handed to the stack; not answered yet */
	struct nbd_part *first, *last; /* ordered reads: parts by offset, not queued yet */
	bool head_queued;
	bool abandoned;             /* will never be answered: its own reference is gone */
	struct nbd_out out;
};

/* A piece of a request: one request to the stack. */
struct nbd_part {
	struct blk_req req;
	struct nbd_conn *conn;
	struct nbd_slot *slot;
	struct nbd_part *next;      /* free, or slot->first */
	uint32_t filled;            /* bytes of a write's payload so far */
	bool ended;
	uint32_t batch;             /* in which it ends if the stack answers at once */
	uint8_t units[NBD_PART_UNITS];
	uint8_t unit_count;
	struct iovec iov[NBD_PART_UNITS];
	struct nbd_out out;
};

enum nbd_conn_state {
	NBD_CONN_OPEN,
	NBD_CONN_DRAINING, /* receives no more; ends when all is answered */
	NBD_CONN_DEAD,     /* its socket is gone; ends when the stack has answered */
	NBD_CONN_ENDED,    /* on its way to the main thread */
};

struct nbd_counters { /* one writer: the queue's thread */
	_Atomic uint64_t requests, errors, bytes_sent, bytes_received, sends, receives, stalls, holes, lent_bytes;
} __attribute__((aligned(64)));

struct nbd_conn {
	struct nbd_server *server;
	struct nbd_conn *next;      /* the server's list */
	struct nbd_conn *ended_next;
	struct blk_queue *queue;
	struct nbd_counters *counters;
	struct blk_task start, drain, flush;
	bool drain_posted;          /* the main thread's */
	struct blk_watch watch;
	struct blk_timer tick;
	bool busy;                  /* since the last tick */
	uint64_t drain_until_ns;
	enum nbd_conn_state state;
	const char *why;            /* it ended; NULL: as it should */
	int fd;
	struct tls_session *tls;    /* NULL: none */
	struct blk_layer *view_owner, *view; /* NULL: the stack itself */
	char name[128];

	uint64_t size_bytes;
	uint32_t block_bytes;
	bool structured, read_only, fast_zeroes, discards;
	bool borrows;               /* data that it is lent it can send (struct blk_loan): without TLS, and not from a view */
	unsigned meta;              /* enum nbd_meta */

	uint8_t *rx;                /* NBD_RX_BYTES, then the units */
	uint32_t rx_at, rx_len;     /* not parsed yet: [rx_at, rx_len) */
	bool readable, stalled;
	uint32_t skip;              /* payload bytes of a refused write */
	struct nbd_slot *writing;   /* whose payload is coming */
	struct nbd_part *filling;
	struct nbd_slot *stream;    /* a long ordered read: it has the connection to itself */

	struct nbd_slot *todo, **todo_last; /* what waits for parts or units */
	unsigned inflight;          /* parts in the stack */
	uint64_t held_bytes;        /* of reads: in the stack, or waiting to be sent */
	uint32_t batch;             /* counts runs of the flush task */
	bool hot;                   /* the stack answers at once: from memory */
	bool in_done, again;

	struct nbd_out *out, **out_last;
	uint64_t out_bytes;         /* waiting to be sent */
	uint32_t out_sent;          /* of the first */
	bool blocked;               /* the socket takes no more */

	struct nbd_slot *free_slots;
	struct nbd_part *free_parts;
	uint8_t *units;
	unsigned free_unit_count;
	uint8_t free_units[NBD_UNITS];
	struct nbd_slot slots[NBD_SLOTS];
	struct nbd_part parts[NBD_SLOTS];
};

struct nbd_peer; /* a client before it is admitted: nbd_peer.c */

struct nbd_server {
	struct blk_front *front;
	struct blk_stack *stack;
	struct loop *loop;
	struct tls_context *tls;
	enum nbd_tls_mode tls_mode;
	enum tls_role tls_peer;     /* NONE: any of the cloud's */
	char *path;                 /* unix socket; NULL: TCP */
	bool bound, any_uid, exclusive, read_only; /* bound: path is ours to remove */
	uint32_t peer_uid;
	char *peer_owners;              /* folder; NULL: none */
	unsigned connections_max;
	uint64_t handshake_ms;
	int listen_fd, ended_fd;
	struct loop_source *listen_source, *ended_source;
	struct nbd_peer *peers;
	struct nbd_conn *conns;
	unsigned peer_count, conn_count, next_queue;
	_Atomic uint64_t accepted, refused, admitted;
	_Atomic unsigned current;
	pthread_mutex_t lock;       /* what follows */
	pthread_cond_t more_ended;
	struct nbd_conn *ended;
	struct nbd_counters counters[BLK_QUEUES_MAX];
};

/* ---- nbd.c (main thread) ---- */
void nbd_say(struct nbd_server *s, bool is_error, const char *fmt, ...) _printf_(3, 4);
/* The export of a name; ret_view: held until given back, NULL for the stack itself. -ENOENT. */
int nbd_export_take(struct nbd_server *s, const char *name, struct nbd_export *ret, struct blk_layer **ret_owner, struct blk_layer **ret_view);
/* Asks all connections to end. */
void nbd_server_drain(struct nbd_server *s);

/* ---- nbd_peer.c (main thread) ---- */
void nbd_peer_new(struct nbd_server *s, int fd, const char *who); /* takes fd */
void nbd_peer_free(struct nbd_peer *p);
/* No connection is left: who waits for that may come in. */
void nbd_peers_admit(struct nbd_server *s);

/* ---- nbd_conn.c ---- */
/* Main thread: a connection for what has been negotiated; nbd_conn_begin() hands it to a queue. */
int nbd_conn_new(struct nbd_server *s, struct nbd_conn **ret);
void nbd_conn_begin(struct nbd_conn *c);
void nbd_conn_free(struct nbd_conn *c); /* main thread, when it has ended */
/* The queue's thread, as all that follows. */
void nbd_conn_fail(struct nbd_conn *c, const char *why); /* the socket is of no use any more */
void nbd_conn_stop(struct nbd_conn *c, const char *why); /* receive no more */
void nbd_conn_progress(struct nbd_conn *c);              /* slots, parts or units have come back */

/* ---- nbd_request.c ---- */
void nbd_parse(struct nbd_conn *c); /* what has been received, until it is used up or c is stalled */
void nbd_write_filled(struct nbd_conn *c, uint32_t bytes); /* bytes more of the payload are in c->filling */
void nbd_pump(struct nbd_conn *c);  /* hands to the stack what there is room for */

/* ---- nbd_reply.c ---- */
struct nbd_part *nbd_part_get(struct nbd_conn *c, struct nbd_slot *slot, uint32_t bytes); /* NULL: none, or no units */
void nbd_part_put(struct nbd_conn *c, struct nbd_part *p);
void nbd_slot_unref(struct nbd_conn *c, struct nbd_slot *slot);
void nbd_slot_abandon(struct nbd_conn *c, struct nbd_slot *slot);
void nbd_out_drop(struct nbd_conn *c); /* all that waits to be sent */
void nbd_reply_status(struct nbd_conn *c, struct nbd_slot *slot); /* slot->error; all its parts have ended */
void nbd_reply_read(struct nbd_conn *c, struct nbd_part *p);      /* p's data is there, or slot->error says why not */
void nbd_reply_raw(struct nbd_conn *c, struct nbd_part *p, uint32_t bytes); /* whole messages in p's data; the last reply */
void nbd_send(struct nbd_conn *c);

#endif
