/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_SC_PRIV_H
#define MALLEE_SVC_SC_SC_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/id.h"
#include "base/metrics.h"
#include "gen/records.h"
#include "gen/storage.h"
#include "state/state.h"
#include "svc/sc/pool.h"
#include "svc/sc/sc.h"
#include "svc/sc/snap_writer.h"
#include "tls/tls.h"
#include "volume/keeper.h"
#include "wire/http_client.h"
#include "wire/http_server.h"
#include "wire/rpc.h"

/*
 * Theory of operation. A volume or a snapshot is an item: a specification (what the cloud controller wants), a record (what was done)
 * and what is shown of it. Whatever changes, the item is put into a queue, and a worker compares what is wanted with what is and
 * does what is next, until there is nothing left: volume.c, snapshot.c. Each step may be cut off anywhere and done again.
 *
 * Who may touch what. `sc->lock` guards the table, the queues and every item's members, and is never held over disk, network or a
 * process. While an item is `busy` its record belongs to who made it so (a worker, or a handler by sc_take()), who works on a copy:
 * first to disk, then, under the lock, into the table. Order of locks: a state transaction, then sc->lock.
 */

enum sc_kind { SC_VOLUME, SC_SNAPSHOT };

struct sc_item { /* first in struct sc_volume and struct sc_snapshot */
	struct sc_item *hash_next, *queue_next;
	enum sc_kind kind;
	char id[ID_LEN];
	struct arena *arena; /* of spec; both are replaced as a whole */
	const void *spec;    /* struct storage_volume_spec or struct storage_snapshot_spec */
	int64_t generation;  /* the spec's */
	bool deleted;        /* the spec wants that */
	bool busy, queued, again;
	int64_t due_mono_ms; /* look at it then; 0: only when something happens */
	unsigned attempts;
	int64_t failing_since_mono_ms;
	int64_t revision;    /* of the last change of what is shown */
};

/* ---- volumes ---- */

enum sc_volume_state { SC_V_CREATING, SC_V_AVAILABLE, SC_V_DELETING, SC_V_DELETED, SC_V_ERROR };

#define SC_THROTTLE_MAX 256
struct sc_holder {
	char instance_id[ID_LEN], node_id[64], node_url[128]; /* instance_id "": nobody */
	int64_t generation;
	char open_throttle[SC_THROTTLE_MAX], throttle[SC_THROTTLE_MAX]; /* as it was opened; as it was told last */
	bool releasing;
};

struct sc_volume_record { /* durable: StorageVolume in api/internal/records.json */
	enum sc_volume_state state;
	char reason[400];
	int64_t size_bytes;      /* of its file; 0: it has none yet */
	char device[POOL_DEVICE_MAX]; /* "": files */
	char key_id[KEY_ID_LEN], wrapped_key[2 * KEY_WRAPPED_MAX + 1]; /* "": it is not encrypted */
	bool filled;
	int64_t last_attachment;
	int64_t growing_bytes;      /* there is room for that much, and growth may have begun; 0: it does not grow */
	int64_t refused_generation; /* of the spec whose size cannot be had, for `reason` */
	struct sc_holder holder;
};

struct sc_volume {
	struct sc_item item;
	struct sc_volume_record rec;
	int64_t reserved_bytes;  /* of the pool, for this volume */
	bool served;             /* by a process of our own, or it may be */
	bool answers;            /* … which is known to answer */
	bool wants_export;       /* its source is to be served */
	int64_t opening_until_mono_ms; /* somebody wants to open it: our own process is to let go */
	int64_t looked_mono_ms;  /* at how much is filled */
};

/* ---- snapshots ---- */

enum sc_snapshot_state { SC_S_PENDING, SC_S_COMPLETED, SC_S_ERROR, SC_S_DELETED };

struct sc_view {
	bool set, begun;
	char node_id[64], node_url[128]; /* node_id "": a process of our own */
	int64_t generation, sequence, size_bytes;
	char socket[256], export_name[128], base[ID_LEN];
};

struct sc_snapshot_record { /* durable: StorageSnapshot */
	enum sc_snapshot_state state;
	char reason[400];
	int64_t begin_time_ms; /* 0: not yet */
	int64_t size_bytes, data_bytes;
	bool parent_chosen, stored;
	char parent[ID_LEN];
	struct sc_view view;
};

struct sc_snapshot {
	struct sc_item item;
	struct sc_snapshot_record rec;
	int progress;
	bool begin_told;       /* somebody knows rec.begin_time_ms */
	int64_t scratch_bytes; /* to ask for; 0: as is usual */
	bool removing;         /* it is being removed from Walrus: no volume may begin to read it */
	/* What is to be ended when nobody wants it any more; of the worker that is at it. */
	struct snap_writer *writer;
	struct http_client *http;
	struct view_reader *reader;
	_Atomic bool cancel;
};

struct sc_queue {
	struct sc_item *first, **last;
	pthread_cond_t filled;
};

#define SC_BUCKETS 4096
#define SC_WORKERS 4
#define SC_HEAVY_WORKERS 2 /* these move snapshots' data */
#define SC_THREADS (SC_WORKERS + SC_HEAVY_WORKERS + 3)
#define SC_CALLS 16

enum sc_metric {
	SC_M_VOLUMES,
	SC_M_OPEN,
	SC_M_FILLING,
	SC_M_SNAPSHOTS,
	SC_M_PENDING,
	SC_M_POOL_TOTAL,
	SC_M_POOL_USED,
	SC_M_CREATED,
	SC_M_STORED,
	SC_M_STORED_BYTES,
	SC_M_FAILURES,
	SC_M_RETRIES,
	SC_M_CORRUPT,
	SC_METRIC_COUNT
};

struct scrub_job;

struct sc {
	uint32_t magic;
	/* set by sc_start(), constant afterwards */
	struct settings *settings;
	char *dir;        /* <state>/sc */
	char epoch[33];
	bool fake;        /* guests do not exist: nothing is accounted, and open volumes are served here */
	bool direct;      /* files are read and written past the page cache */
	struct keys *keys;  /* master keys */
	struct pool *pool;
	struct state *state;
	struct tls_context *tls;
	struct metrics *metrics;
	struct keeper *volumes, *exports; /* our own mallee-blockd and mallee-snapshotd processes */
	struct rpc_server *rpc;
	struct http_server *ops_server;
	struct scrub_job *scrub;
	/* For tests: how a snapshot is served instead of by the back end `snapshot`. malloc()ed. */
	char *(*export_back)(struct sc *sc, const char *snapshot);

	pthread_mutex_t pool_lock; /* held while a disk of the pool is chosen and recorded; taken before a state transaction */
	pthread_mutex_t lock; /* all below */
	pthread_cond_t shown; /* revision grew */
	pthread_cond_t freed; /* an item is not busy any more */
	struct sc_item *buckets[SC_BUCKETS];
	size_t count;
	int64_t revision, sequence;
	struct sc_queue light, heavy;
	atomic_bool stopping; /* set under the lock */
	pthread_cond_t stop;  /* … with this */
	char filling[ID_LEN]; /* the detached volume that is being filled */
	struct objects *objects;  /* NULL: Walrus was not reached yet. Both stay once they are there */
	struct snap_store *store;
	bool walrus_lost;     /* the last try failed: */
	struct error walrus_error;
	struct rpc_client *calls[SC_CALLS]; /* under way, to be cancelled */
	char exports_ending[16][ID_LEN];    /* being stopped: not to be used before they are gone */
	pthread_t threads[SC_THREADS];
	size_t thread_count;
};
#define SC_MAGIC 0x73637363u

/* --- table.c: the items. `Lock`: sc->lock is held by the caller --- */
struct sc_item *sc_find(struct sc *sc, const char *id); /* Lock */
struct sc_volume *sc_find_volume(struct sc *sc, const char *id);     /* Lock; NULL */
struct sc_snapshot *sc_find_snapshot(struct sc *sc, const char *id); /* Lock; NULL */
struct sc_item *sc_add(struct sc *sc, enum sc_kind kind, const char *id); /* Lock; not there yet */
void sc_remove(struct sc *sc, struct sc_item *item);                      /* Lock; frees */
void sc_set_spec(struct sc_item *item, const void *spec);                 /* Lock; copies */
void sc_each(struct sc *sc, void (*fn)(struct sc *sc, struct sc_item *item, void *ctx), void *ctx); /* Lock; fn must not remove */
void sc_show(struct sc *sc, struct sc_item *item); /* Lock; what is shown has changed: wake who waits for it */
void sc_kick(struct sc *sc, struct sc_item *item); /* Lock; have a worker look at it */
void sc_kick_id(struct sc *sc, const char *id);    /* takes the lock */
void sc_kick_all(struct sc *sc);                   /* Lock */
void sc_kick_snapshots(struct sc *sc, const char *volume_id); /* Lock; pending ones of this volume */
/* Wait until nobody is at work on it, and be the one who is. NULL: unknown, or timeout_ms are over, or the service stops
 * (*ret_known tells which). */
struct sc_item *sc_take(struct sc *sc, const char *id, int timeout_ms, bool *ret_known);
void sc_give_back(struct sc *sc, struct sc_item *item, bool kick);
void sc_table_free(struct sc *sc);

static inline struct sc_volume *sc_volume_of(struct sc_item *item)
{
	return (struct sc_volume *)item;
}

static inline struct sc_snapshot *sc_snapshot_of(struct sc_item *item)
{
	return (struct sc_snapshot *)item;
}

static inline const struct storage_volume_spec *sc_volume_spec(const struct sc_volume *v)
{
	return v->item.spec;
}

/* Lock */
static inline bool sc_volume_refused(const struct sc_volume *v)
{
	return v->rec.refused_generation && v->rec.refused_generation == v->item.generation;
}

static inline const struct storage_snapshot_spec *sc_snapshot_spec(const struct sc_snapshot *s)
{
	return s->item.spec;
}

/* --- show.c: what is shown --- */
const char *sc_volume_state_name(enum sc_volume_state s);
const char *sc_snapshot_state_name(enum sc_snapshot_state s);
void sc_observe_volume(const struct sc *sc, struct sc_volume *v, struct arena *a, struct storage_volume_observed *out); /* Lock */
void sc_observe_snapshot(struct sc_snapshot *s, struct arena *a, struct storage_snapshot_observed *out);                /* Lock */
void sc_status(struct sc *sc, struct arena *a, struct storage_get_status_response *out);
int64_t sc_held_bytes(struct sc *sc);     /* what volumes' files take on the disk; takes the lock */
int64_t sc_promised_bytes(struct sc *sc); /* Lock */
int sc_health(void *ctx, struct error *e);
void sc_print_metrics(void *ctx, struct buf *out);

/* --- store.c: what is on disk --- */
int sc_load(struct sc *sc, struct error *e);
int sc_store_spec(struct sc *sc, enum sc_kind kind, const char *id, const void *spec, struct error *e);
int sc_store_volume(struct sc *sc, const char *id, const struct sc_volume_record *rec, struct error *e);
int sc_store_snapshot(struct sc *sc, const char *id, const struct sc_snapshot_record *rec, struct error *e);
int sc_store_forget(struct sc *sc, enum sc_kind kind, const char *id, struct error *e);
/* The bucket's name: the one that was recorded, or a new one, recorded. */
int sc_store_bucket(struct sc *sc, char out[static 64], struct error *e);

/* --- work.c: threads --- */
struct sc_outcome {
	bool heavy;      /* go on in the heavy queue */
	bool again;      /* look at it again at once */
	int64_t wait_ms; /* > 0: look at it again then */
};
int sc_work_start(struct sc *sc, struct error *e);
void sc_work_stop(struct sc *sc);
bool sc_sleep(struct sc *sc, int64_t ms); /* false: the service is stopping. Not with the lock held */
/* It failed: how long to wait before it is tried again; says so in the log. *ret_for_ms (may be NULL): how long it has failed. */
int64_t sc_retry_ms(struct sc *sc, struct sc_item *item, const struct error *why, int64_t *ret_for_ms);
void sc_succeeded(struct sc *sc, struct sc_item *item);

/* --- volume.c, snapshot.c: one item at work --- */
struct sc_outcome sc_reconcile_volume(struct sc *sc, struct sc_volume *v);
struct sc_outcome sc_reconcile_snapshot(struct sc *sc, struct sc_snapshot *s, bool heavy);

/* Lock. Whether snapshots of it are on their way, and whether one needs a process of our own for it. */
bool sc_snapshots_active(struct sc *sc, const char *volume_id, bool *ret_need_own);
/* Lock. Whether some whose time was told already have yet to be frozen where it is open: nobody may write to it before. */
bool sc_snapshots_to_freeze(struct sc *sc, const struct sc_volume *v);

/* --- stack.c: what a volume is made of --- */
void sc_volume_path(const struct sc *sc, const char *id, const char *file /* NULL: the folder */, char *out, size_t size);
int sc_make_files(struct sc *sc, const char *id, int64_t size_bytes, struct error *e);
int sc_link_device(struct sc *sc, const char *id, const char *device, struct error *e);
int sc_remove_files(struct sc *sc, const char *id, struct error *e);
int sc_grow_file(struct sc *sc, const char *id, int64_t size_bytes, struct error *e);
void sc_print_throttle(const struct storage_volume_limits *l, char out[static SC_THROTTLE_MAX]); /* "": no limits, ever */
struct sc_stack { /* options of mallee-blockd, in an arena */
	const char *back, *snap, *cow;
	const char *const *files; /* NULL-terminated */
};
void sc_describe_stack(struct sc *sc, struct arena *a, const char *id, const char *device, const char *snapshot, struct sc_stack *ret);
/* Our own process for a volume that nobody has open. */
int sc_serve(struct sc *sc, const char *id, const struct sc_volume_record *rec, const char *snapshot, struct error *e);
int sc_serve_end(struct sc *sc, const char *id, struct error *e);
void sc_serve_socket(const struct sc *sc, const char *id, char *out, size_t size);
/* keeper_start(); what runs with other arguments is ended first. */
int sc_keep(struct keeper *k, const struct keeper_volume *v, int timeout_ms, struct error *e);
bool sc_keeps(struct keeper *k, const char *id);

/* --- volume_key.c: keys on their way --- */
int sc_key_make(struct sc *sc, const char *id, struct sc_volume_record *rec, struct error *e); /* into rec, wrapped */
int sc_key_reveal(struct sc *sc, const char *id, const struct sc_volume_record *rec, unsigned char key[static KEY_VOLUME_BYTES],
		  struct error *e); /* the caller wipes it */
int sc_key_file(struct sc *sc, const char *id, const struct sc_volume_record *rec, char *path, size_t size, struct error *e);
void sc_key_drop(struct sc *sc, const char *id); /* of a volume's, or a snapshot's, process that is gone */
/* The file of the key that a snapshot's process reads it with; *path "": it is not encrypted. */
int sc_export_key(struct sc *sc, const char *snapshot, char *path, size_t size, struct error *e);
bool sc_export_lacks_key(struct sc *sc, const char *snapshot); /* the host was started anew */

/* --- exports.c: snapshots that volumes read from --- */
int sc_export_start(struct sc *sc, const char *volume, const char *snapshot, struct error *e);
void sc_export_socket(const struct sc *sc, const char *snapshot, char *out, size_t size);
void sc_export_leave(struct sc *sc, const char *volume, const char *snapshot); /* the volume needs it no more */
void sc_exports_tidy(struct sc *sc); /* ends those that nobody needs */
bool sc_export_needed(struct sc *sc, const char *snapshot); /* Lock */
bool sc_exported(struct sc *sc, const char *snapshot);      /* its process is there still */

/* --- host.c: who serves a volume, and what is asked there --- */
struct sc_place {
	const char *node_id, *node_url; /* node_id "": a process of our own */
	const char *volume;
	int64_t generation;
};
struct sc_view_info {
	char socket[256], export_name[128], base[ID_LEN];
	int64_t size_bytes;
};
/* Codes: VolumeNotOpen, InsufficientCapacity, ServiceUnavailable, … */
int sc_view_begin(struct sc *sc, const struct sc_place *p, const char *name, int64_t scratch_bytes, struct sc_view_info *ret, struct error *e);
int sc_view_end(struct sc *sc, const struct sc_place *p, const char *name, bool commit, struct error *e);
/* ret_base: what all other views' changes count from now, also when the view had been ended before. */
int sc_view_end_base(struct sc *sc, const struct sc_place *p, const char *name, bool commit, char ret_base[static ID_LEN], struct error *e);
struct sc_filled {
	int64_t size_bytes, filled_bytes;
	bool complete;
};
/* size_bytes 0, throttle NULL: as it is; both so: only look. */
int sc_volume_change(struct sc *sc, const struct sc_place *p, int64_t size_bytes, const char *throttle, struct sc_filled *ret, struct error *e);
int sc_call(struct sc *sc, enum tls_role role, const char *url, const char *peer_id, const struct wire_service *service, const char *action,
	    const void *in, struct arena *a, void **ret_out, int timeout_ms, struct error *e);

/* --- bucket.c: Walrus --- */
void *sc_connector(void *ctx); /* the thread that finds and watches it */
struct snap_store *sc_store(struct sc *sc, struct error *e); /* NULL: not reached yet */
/* Some call failed or went well: what health says of it. */
void sc_walrus_result(struct sc *sc, int err, const struct error *why);

/* --- upload.c, import.c: data of snapshots; on a heavy worker. -ECANCELED when nobody wants it any more --- */
struct sc_upload {
	struct sc_snapshot *snapshot;
	const char *id, *volume;
	const char *parent; /* "": none */
	bool encrypted;
	bool all;           /* whatever is not zero is told, not only what is said to have changed */
	const struct sc_view *view;
	bool lost;          /* out: the view is not there any more */
	struct snap_info stored; /* out */
};
int sc_upload(struct sc *sc, struct sc_upload *u, struct error *e);
struct sc_import {
	struct sc_snapshot *snapshot;
	const char *id, *url, *sha256;
	bool encrypted;
	bool hopeless;      /* out: trying again is of no use */
	struct snap_info stored;
};
int sc_import(struct sc *sc, struct sc_import *m, struct error *e);
int sc_copy(struct sc *sc, struct sc_snapshot *s, const char *id, const char *source, struct snap_info *ret, struct error *e); /* encrypted */
void sc_progress(struct sc *sc, struct sc_snapshot *s, uint64_t done, uint64_t of, uint64_t size_bytes);
/* -EEXIST at the beginning: it may have been stored by a predecessor that died before it could say so. */
int sc_find_stored(struct snap_store *store, const char *id, struct snap_info *ret, struct error *e);

/* --- scrub_job.c --- */
struct scrub_job *scrub_job_new(struct sc *sc);
void scrub_job_free(struct scrub_job *j); /* ends it */
int scrub_job_start(struct scrub_job *j, const struct storage_start_scrub_request *in, struct error *e);
void scrub_job_describe(struct scrub_job *j, struct arena *a, struct storage_describe_scrub_response *out);
int64_t scrub_job_findings(struct scrub_job *j);

/* --- storage_rpc.c --- */
int sc_rpc_start(struct sc *sc, struct error *e);

/* For tests, which include no generated table: */
int storage_apply_storage(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_apply_storage_request *in,
			  struct storage_apply_storage_response *out, struct error *e);
int storage_describe_storage(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_describe_storage_request *in,
			     struct storage_describe_storage_response *out, struct error *e);
int storage_forget_storage(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_forget_storage_request *in,
			   struct error *e);

/* --- open_rpc.c: in the generated table --- */
int storage_open_volume(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_open_volume_request *in,
			struct storage_open_volume_response *out, struct error *e);
int storage_release_volume(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_volume_holder *in,
			   struct error *e);
int storage_close_volume(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_volume_holder *in,
			 struct error *e);

/* --- sc.c --- */
/* sc_start() in two: tests put their own bucket in between. */
struct sc *sc_new(void);
int sc_begin(struct sc *sc, const struct settings *s, struct error *e);

#endif
