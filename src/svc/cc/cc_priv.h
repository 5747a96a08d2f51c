/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CC_PRIV_H
#define MALLEE_SVC_CC_PRIV_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/metrics.h"
#include "gen/cluster.h"
#include "svc/cc/cc.h"
#include "svc/cc/place.h"
#include "tls/tls.h"
#include "wire/rpc.h"

/*
 * Theory of operation. Everything here is soft state: what is wanted comes from the cloud
 * controller, what is comes from the nodes, and after a start both are told anew (the epoch, random
 * at each start, makes the cloud controller send all).
 *
 *   struct instance: one per id that anybody named: its specification (wanted), what its node
 * reports (observed), a reservation, a release (forget). It goes when none of the four is left.
 *   struct node: one per id that registered or that a specification names; two threads each. The
 * watcher (watch.c) polls the node and merges what it reports; the sender (send.c) carries
 * specifications and releases to it, again until the node has acknowledged them.
 *
 * One mutex, cc->lock, guards all tables, lists and counters below; it is never held over a message
 * to a node. Messages and documents are copied out, or in, under it. An instance is kept as JSON
 * text, which is small and has one owner.
 */
#define CC_ID_LEN 64
#define CC_EPOCH_LEN 40
#define CC_PEER_EPOCH_LEN 128

enum {
	CC_MAX_NODES = 1000,
	CC_MAX_INSTANCES = 100000, /* live, ended and being forgotten */
	CC_MAX_WAIT_MS = 20000,
	CC_SEND_BATCH = 200,
	CC_SEND_MAX_BYTES = 32 << 20, /* of one message; nodes take 64 MiB */
};

/* Times of the machinery; tests shorten them. */
struct cc_times {
	int silence_ms;	    /* a node that is silent for this long is unreachable */
	int reservation_ms; /* a reservation without a specification lives this long */
	int forget_ms;	    /* a release of an instance that no node has is kept this long */
	int poll_ms;	    /* one long poll of a node */
	int status_ms;	    /* how old a node's capacity may be */
	int backoff_min_ms, backoff_max_ms;
};

struct cc_config {
	const struct tls_context *tls; /* must outlive the cc */
	uint16_t port, ops_port;       /* 0: any */
	const char *nodes_path;	       /* where to remember the nodes; NULL: nowhere; copied */
	struct cc_times times;
};

struct node;
struct instance;

/* An instance is in at most one list of each kind. */
enum list_kind {
	LIST_NODE,     /* a node's instances */
	LIST_SEND,     /* … whose specification it has not acknowledged */
	LIST_FORGET,   /* … that it is to release; or the cc's lone ones */
	LIST_REVISION, /* what is reported, latest change last */
	LIST_RESERVED, /* oldest first */
	LIST_KINDS
};

struct instance_list {
	enum list_kind kind;
	struct instance *head, *tail;
	size_t count;
};

struct instance_link {
	struct instance_list *list; /* NULL: in none of this kind */
	struct instance *prev, *next;
};

/* What a node reports of an instance. */
struct sighting {
	bool ended, running, stopped;
	int64_t generation; /* of the specification that it speaks of */
};

struct instance {
	char id[CC_ID_LEN];
	uint32_t hash;
	struct instance *hash_next;
	struct instance_link link[LIST_KINDS];
	struct node *node; /* where it is, or is to be; NULL only for a lone release */

	char *spec; /* JSON; NULL: not told */
	int64_t generation;
	bool wants_off;	      /* stopped or terminated */
	uint64_t spec_serial; /* of this process: another one for each change of spec */
	uint64_t full_pass;   /* the last full telling that named it */

	char *observed;	     /* JSON, revision 0; NULL: not reported */
	struct sighting seen; /* of it what is looked at here */
	uint64_t seen_pass;  /* the node's last full report that named it */
	int64_t revision;    /* of the last change of the report */

	bool reserved; /* room is kept for it until then */
	int64_t reserved_until_ms;

	bool forget;
	int64_t forget_until_ms; /* lone ones */

	bool counted; /* taken is part of node->used */
	struct capacity size, taken;
};

struct node {
	char id[CC_ID_LEN];
	struct cc *cc;
	struct node *next;
	pthread_cond_t wake_watch, wake_send; /* its two threads wait here */
	pthread_t watch_thread, send_thread;
	bool threads_run;

	char *url; /* NULL: named by a specification, not registered yet */
	unsigned url_serial;
	struct rpc_client *watch_client,
	    *send_client; /* for cancelling; each is its thread's own */

	char *status; /* JSON of the last NodeStatus; NULL: none yet */
	bool says_ready;
	struct capacity total, reported_used;
	bool reachable;
	int64_t last_seen_ms, last_seen_unix_ms, created_ms; /* monotonic; UTC */
	int64_t unreachable_since_unix_ms;
	char last_error[256];

	char epoch[CC_PEER_EPOCH_LEN];
	int64_t revision; /* the node's own count, of the last report */
	uint64_t pass;	  /* full reports taken so far */

	bool need_full; /* the next message to it carries all that is wanted of it */
	unsigned full_serial;
	bool careful; /* it refused a batch: one at a time, until all went through */
	struct instance_list instances, send, forget;
	size_t instance_count; /* counted ones */
	struct capacity used;
};

enum cc_metric {
	CC_METRIC_NODES,
	CC_METRIC_NODES_READY,
	CC_METRIC_INSTANCES,
	CC_METRIC_RESERVATIONS,
	CC_METRIC_PLACED,
	CC_METRIC_REFUSED,
	CC_METRIC_APPLIED,
	CC_METRIC_SENT,
	CC_METRIC_REPORTED,
	CC_METRIC_NODE_ERRORS,
	CC_METRIC_FORGOTTEN,
	CC_METRIC_COUNT
};

struct cc {
	unsigned magic;
	struct cc_config config;
	struct tls_context *own_tls; /* NULL when the caller's */
	char *own_nodes_path;
	char epoch[CC_EPOCH_LEN];
	struct metrics *metrics;
	struct rpc_server *rpc;
	struct http_server *ops;

	pthread_mutex_t save_lock; /* one writer of the nodes' file; taken before lock */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a revision was given, or stopping */
	bool stopping;
	bool has_full; /* the cloud controller has told all that is wanted */
	uint64_t full_pass, serial;
	int64_t revision;
	struct instance **buckets;
	size_t bucket_count, instance_count;
	struct instance_list by_revision, reservations, lone_forgets;
	struct node *nodes;
	size_t node_count;
};

int cc_start_with(const struct cc_config *config, struct cc **ret, struct error *e);
uint16_t cc_port(const struct cc *c);
uint16_t cc_ops_port(const struct cc *c);
struct cc_times cc_default_times(void);

/* --- table.c: instances; all under cc->lock --- */
struct instance *instance_find(struct cc *c, const char *id);
/* Makes it when missing. LimitExceeded, InvalidParameterValue (an id that is too long). NULL then.
 */
struct instance *instance_get(struct cc *c, const char *id, struct error *e);
void instance_set_node(struct instance *i, struct node *n);
/* Takes json (malloc()ed). */
void instance_set_spec(struct cc *c, struct instance *i, char *json, int64_t generation, bool wants_off,
		       const struct capacity *size);
void instance_drop_spec(struct cc *c, struct instance *i);
void instance_sent(struct instance *i);	      /* the node has its specification */
void instance_send_again(struct instance *i); /* to the end of the node's send list */
void instance_set_observed(struct cc *c, struct instance *i, char *json, const struct sighting *seen);
/* It is off, and to be off: it takes no processor and no memory. */
bool instance_idle(const struct instance *i);
void instance_drop_observed(struct cc *c, struct instance *i);
void instance_touch(struct cc *c,
		    struct instance *i); /* a new revision for what is reported of it */
void instance_reserve(struct cc *c, struct instance *i, struct node *n, const struct capacity *size,
		      int64_t until_ms);
void instance_set_forget(struct cc *c, struct instance *i, int64_t lone_until_ms);
void instance_drop_forget(struct cc *c, struct instance *i);
/* Frees it if nothing is known of it any more. */
void instance_tidy(struct cc *c, struct instance *i);
/* Lets go what is overdue: reservations, lone releases. */
void table_expire(struct cc *c, int64_t now_ms);
void table_free(struct cc *c);

/* --- node.c; all under cc->lock unless said --- */
struct node *node_find(struct cc *c, const char *id);
/* Makes it when missing. LimitExceeded, InvalidParameterValue. NULL then. */
struct node *node_get(struct cc *c, const char *id, struct error *e);
/* 1 when it is new or its URL is, 0 when all is as before. */
int node_register(struct cc *c, const char *id, const char *url, struct error *e);
bool node_ready(const struct node *n);
void node_want_full(struct node *n);
/* It answered; an epoch other than before makes all be sent. epoch may be NULL (not told). */
void node_seen(struct node *n, const char *epoch);
/* It did not answer: notes why, and after the silence makes it unreachable. */
void node_missed(struct node *n, const struct error *e);
/* Capacity in use, as placement sees it. */
struct capacity node_used(const struct cc *c, const struct node *n);
/* One line of why a node is not ready, for errors and health. */
void node_describe_trouble(const struct node *n, char *out, size_t size);
/* Waits on one of the node's conditions until it is signalled, at most timeout_ms (-1: no limit).
 */
void node_wait(struct node *n, pthread_cond_t *cond, int timeout_ms);
/* Ends and joins all nodes' threads; not under the lock. */
void nodes_stop(struct cc *c);
/* A client for the node's present URL, replacing *client when the URL changed; NULL while there is
 * none. Under the lock. */
struct rpc_client *node_client(struct node *n, struct rpc_client **client, unsigned *serial);

/* --- node_file.c; not under the lock --- */
void node_file_save(struct cc *c);
void node_file_load(struct cc *c);

void *watch_run(void *node); /* watch.c */
void *send_run(void *node);  /* send.c */

/* --- reserve.c --- */
int reserve(struct cc *c, struct arena *a, const struct cluster_reserve_capacity_request *in,
	    struct cluster_reserve_capacity_response *out, struct error *e);

extern const struct metric_desc cc_metric_descs[CC_METRIC_COUNT];

#endif
