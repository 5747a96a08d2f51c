/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_NC_PRIV_H
#define MALLEE_SVC_NC_NC_PRIV_H

#include <net/if.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/id.h"
#include "base/metrics.h"
#include "gen/node.h"
#include "gen/records.h"
#include "gen/shared.h"
#include "hyper/driver.h"
#include "net/net.h"
#include "state/state.h"
#include "svc/nc/decide.h"
#include "svc/nc/image_cache.h"
#include "svc/nc/metadata.h"
#include "svc/nc/nc.h"
#include "tls/tls.h"
#include "wire/http_server.h"
#include "wire/rpc.h"

/*
 * Theory of operation. An instance is a specification (what the cloud controller wants; kind
 * "instance" of the node's state), a record (what the node did; kind "record") and what is shown of
 * it. Whatever changes, the instance is put into a queue, and a worker asks nc_decide() what to do
 * next and does it until there is nothing left: reconcile.c, steps.c.
 *
 * Who may touch what. `nc->lock` guards the table, the queues and every instance's members, and is
 * never held over disk, network or hypervisor. While an instance is `busy` its record belongs to
 * the worker, which works on copies: it writes the new record to disk first and then, under the
 * lock, into the table. RPC handlers write specifications only.
 */

enum nc_state { NC_PENDING, NC_RUNNING, NC_SHUTTING_DOWN, NC_STOPPED, NC_TERMINATED };
enum nc_reach { NC_REACH_NONE, NC_REACH_INITIALIZING, NC_REACH_OK, NC_REACH_IMPAIRED };

/* Durable: NodeInstance in api/internal/records.json */
struct nc_record {
	int slot; /* of its user id; -1: none any more */
	enum nc_state state;
	char end_code[64],
	    end_message[400]; /* code set: the node decided that it must end, or it did */
	int64_t reboot_done;
	char boot_id[40];     /* "": never launched */
	int64_t asked_off_ms; /* 0: not since the last start */
};

struct nc_instance {
	struct nc_instance *hash_next, *queue_next;
	char id[ID_LEN];
	struct arena *arena; /* of spec; both are replaced as a whole */
	const struct shared_instance_spec *spec;
	uint32_t ipv4_be;
	struct nc_record rec;

	char progress[200];
	enum nc_reach reach;
	int64_t reach_since_ms;
	int64_t revision; /* of the last change of what is shown */

	bool busy, queued, again, forgotten;
	bool starting; /* its guest is about to be: the hypervisor need not name it yet */
	int64_t due_mono_ms; /* look at it then; 0: only when something happens */
	unsigned int attempts;
	int64_t failing_since_mono_ms;
	int64_t started_mono_ms;
	bool port;
	char tap[IFNAMSIZ];

	int64_t ping_due_mono_ms;
	int misses;
};

struct nc_queue {
	struct nc_instance *first, **last;
	pthread_cond_t filled;
};

#define NC_BUCKETS 4096
#define NC_SLOTS 65536	   /* instances at most; with real guests NC_REAL_SLOTS */
#define NC_REAL_SLOTS 4096 /* user ids that one cloud has on a host */
#define NC_WORKERS 4
#define NC_HEAVY_WORKERS 3 /* these fetch images and make disks */
#define NC_THREADS (NC_WORKERS + NC_HEAVY_WORKERS + 4)
#define NC_LAUNCH_LIMIT_MS 300000 /* a launch that cannot go on this long has failed */
#define NC_STOP_MS 60000 /* a guest that does not switch itself off by then is switched off */

enum nc_metric {
	NC_M_INSTANCES,
	NC_M_RUNNING,
	NC_M_LAUNCHES,
	NC_M_LAUNCH_FAILURES,
	NC_M_RESTARTS,
	NC_M_RETRIES,
	NC_M_CACHE_BYTES,
	NC_M_MENDED,
	NC_METRIC_COUNT
};

struct nc {
	uint32_t magic;
	/* set by nc_start(), constant afterwards */
	struct settings *settings;
	const char *cloud_id, *node_id; /* in settings */
	char *dir;			/* <state>/nc */
	char boot_id[40];
	char epoch[33];
	uid_t uid_base;
	const struct hyper_ops *ops;
	struct hyper *hyper;
	enum hyper_accel accel;
	char accel_why[256];
	struct net *net; /* NULL with the fake hypervisor */
	struct metadata *metadata;
	struct state *state;
	struct image_cache *cache;
	struct tls_context *tls;
	struct metrics *metrics;
	struct rpc_server *rpc;
	struct http_server *ops_server;

	pthread_mutex_t lock; /* all below */
	pthread_cond_t shown; /* revision grew */
	struct nc_instance *buckets[NC_BUCKETS];
	size_t count;
	int64_t revision;
	struct nc_queue light, heavy;
	uint8_t slots[NC_SLOTS / 8];
	bool held;
	int64_t held_deadline_ms; /* Unix time: guests that are still on are switched off */
	atomic_bool stopping;	  /* set under the lock */
	pthread_cond_t stop;	  /* … with this */
	struct error hyper_error, register_error,
	    net_error; /* the last try's; empty when it went well */
	bool registered;
	struct rpc_client *cc; /* of the registering thread, to be cancelled */
	pthread_t threads[NC_THREADS];
	size_t thread_count;
};
#define NC_MAGIC 0x6e636e63u

/* --- table.c: the instances. `Lock`: nc->lock is held by the caller --- */
struct nc_instance *nc_find(struct nc *nc, const char *id); /* Lock */
struct nc_instance *
nc_add(struct nc *nc, const char *id,
       const struct nc_record *rec); /* Lock; not there yet; NULL: no slot is free */
void nc_remove(struct nc *nc, struct nc_instance *inst); /* Lock; frees */
void nc_set_spec(struct nc_instance *inst,
		 const struct shared_instance_spec *spec); /* Lock; copies */
void nc_each(struct nc *nc, void (*fn)(struct nc *nc, struct nc_instance *inst, void *ctx),
	     void *ctx); /* Lock; fn must not remove */
void nc_show(struct nc *nc,
	     struct nc_instance *inst); /* Lock; what is shown has changed: wake who waits for it */
void nc_set_reach(struct nc *nc, struct nc_instance *inst, enum nc_reach reach); /* Lock */
void nc_kick(struct nc *nc, struct nc_instance *inst); /* Lock; have a worker look at it */
void nc_kick_all(struct nc *nc);		       /* Lock */
void nc_release_slot(struct nc *nc, int slot);	       /* Lock */
void nc_table_free(struct nc *nc);
const char *nc_state_name(enum nc_state s);
const char *nc_reach_name(enum nc_reach r); /* NULL for none */
void nc_observe(const struct nc *nc, const struct nc_instance *inst, struct arena *a,
		struct shared_instance_observed *out); /* Lock */

/* --- store.c: what is on disk --- */
int nc_load(struct nc *nc, struct error *e);
int nc_store_spec(struct nc *nc, const struct shared_instance_spec *spec, struct error *e);
int nc_store_record(struct nc *nc, const char *id, const struct nc_record *rec, struct error *e);
int nc_store_forget(struct nc *nc, const char *id, struct error *e);
int nc_store_hold(struct nc *nc, bool held, int64_t deadline_ms, struct error *e);
enum nc_wanted nc_parse_wanted(const struct shared_instance_spec *spec);

/* --- reconcile.c, steps.c: one instance at work --- */
struct nc_job {
	struct nc *nc;
	struct nc_instance *inst; /* busy: nobody else changes its record, nobody frees it */
	char id[ID_LEN];
	struct arena *arena;
	const struct shared_instance_spec *spec; /* a copy, in arena */
	struct nc_record rec;			 /* a copy; nc_commit() makes it so */
	struct nc_facts facts;
	int64_t wait_ms;
	int64_t last_progress_percent;
	struct error err;
};

enum nc_step {		      /* how a step ended */
	       NC_STEP_AGAIN, /* something changed: decide anew */
	       NC_STEP_DONE,
	       NC_STEP_WAIT,  /* look again after job->wait_ms, or when something happens */
	       NC_STEP_RETRY, /* job->err; what is missing may come back: try again for minutes */
	       NC_STEP_RETRY_FEW, /* job->err; try again a few times */
	       NC_STEP_FAIL,	  /* job->err; trying again is of no use */
};
enum nc_step nc_step_run(struct nc_job *j, enum nc_action action);

struct nc_outcome {
	bool heavy;	 /* go on in the heavy queue */
	bool again;	 /* look at it again at once */
	int64_t wait_ms; /* > 0: look at it again then */
};
struct nc_outcome nc_reconcile(struct nc *nc, struct nc_instance *inst, bool heavy);

int nc_commit(struct nc_job *j); /* j->rec to disk and into the table; negative with j->err */
void nc_progress(struct nc_job *j, const char *fmt, ...) _printf_(2, 3);
bool nc_unwanted(
    struct nc_job *j); /* does nobody want it to run any more, or is the node stopping? */
void nc_instance_path(const struct nc *nc, const char *id, const char *file, char *out,
		      size_t size);
void nc_domain_name(const struct nc *nc, const char *id, char out[static 64]);
/* "ec2" and more hexadecimal digits, always the same for an instance of a cloud. */
void nc_instance_uuid(const char *cloud_id, const char *instance_id, char out[static 37]);
uid_t nc_uid_base(const char *cloud_id);

/* --- work.c: threads --- */
int nc_work_start(struct nc *nc, struct error *e);
void nc_work_stop(struct nc *nc);
void nc_watch(void *ctx, const char *domain_name); /* the hypervisor's call-back */
bool nc_sleep(struct nc *nc, int64_t ms); /* false: the node is stopping. Not with the lock held */
void *nc_housekeeper(void *ctx);
void *nc_reacher(void *ctx);
void *nc_registrar(void *ctx);

/* --- console.c --- */
#define NC_CONSOLE_BYTES 65536
int nc_console_read(const char *path, struct arena *a, void **ret_data, size_t *ret_len,
		    int64_t *ret_mtime_ms);
/* Keep the log's disk use bounded while others append to it: drop its beginning when it takes more
 * than 1 MiB. */
int nc_console_bound(const char *path);

/* --- capacity.c --- */
void nc_node_status(struct nc *nc, struct arena *a, struct shared_node_status *out);
int64_t nc_disk_reserve(
    struct nc *nc); /* bytes of the state folder's file system that instances leave alone */

/* --- node_rpc.c --- */
int nc_rpc_start(struct nc *nc, struct error *e);
int nc_health(void *ctx, struct error *e);
void nc_print_metrics(void *ctx, struct buf *out);

/* --- volume_rpc.c --- */
struct rpc_binding volume_binding(struct nc *nc);

#endif
