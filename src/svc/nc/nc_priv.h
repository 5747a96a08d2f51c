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
#include "gen/storage.h"
#include "hyper/driver.h"
#include "net/net.h"
#include "state/state.h"
#include "svc/nc/decide.h"
#include "svc/nc/devices.h"
#include "svc/nc/image_cache.h"
#include "svc/nc/metadata.h"
#include "svc/nc/nc.h"
#include "svc/nc/sampler.h"
#include "tls/tls.h"
#include "volume/buffer.h"
#include "volume/keeper.h"
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
 *
 * A volume that is open here is a record of its own (kind "volume"), since it outlives its instance: an
 * instance's worker opens it and marks it to be closed, two threads close (closing.c). Whoever works
 * on one has it `busy`.
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
	int64_t guest_off;    /* generation of the specification under which the guest of an ebs instance
				 switched itself off; 0: not since the last start */
};

/* What is shown of a volume of an instance, and how far it is. */
struct nc_device {
	char id[ID_LEN];
	int64_t generation;
	enum nc_device_state shown;
	char reason[160];
	bool failed;
	unsigned int tries;		       /* of what it waits for: to open it, then to plug it */
	int64_t asked_mono_ms, ask_again_mono_ms; /* to let go of it; 0: not yet */
};

enum nc_volume_state { NC_VOLUME_OPEN, NC_VOLUME_CLOSING, NC_VOLUME_CLOSED };

/* A volume that is open here. Durable: NodeVolume in api/internal/records.json; that has more. */
struct nc_volume {
	struct nc_volume *hash_next, *instance_next;
	char id[ID_LEN], instance[ID_LEN];
	int64_t generation;
	int slot;
	enum nc_volume_state state;
	bool served; /* the storage controller has opened it for us, and its process was started */
	bool held;   /* its process was started, perhaps, but no guest may have it yet */
	bool busy;
	int64_t due_mono_ms, closing_since_mono_ms;
	unsigned int attempts;
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
	int64_t told_off_ms; /* the rec.asked_off_ms for which this process told the guest; 0: for none */
	bool port;
	char tap[IFNAMSIZ];

	int64_t ping_due_mono_ms;
	int misses;

	struct nc_device *devices; /* the worker replaces it as a whole */
	size_t device_count;
};

#define NC_DISKS_MAX 32
#define NC_DISK_DEVICE 101
#define NC_DISK_NAME 64

/* A whole disk of the node: local_disks.c. */
struct nc_disk {
	char device[NC_DISK_DEVICE], name[NC_DISK_NAME];
	bool listed, usable;	/* by the setting; it could be used when the node was started */
	char instance[ID_LEN];	/* "": nobody's. Under the lock; all below is its worker's */
	int slot, index;	/* of its user; the instance's ephemeral0, 1, … */
	bool served;
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
#define NC_CLOSERS 2	   /* these close volumes */
#define NC_THREADS (NC_WORKERS + NC_HEAVY_WORKERS + NC_CLOSERS + 6)
#define NC_DEVICES_MAX 17  /* of an instance: the boot disk and what has a slot */
#define NC_LAUNCH_LIMIT_MS 300000 /* a launch that cannot go on this long has failed */
#define NC_REASON_USER "Client.UserInitiatedShutdown"
#define NC_REASON_GUEST "Client.InstanceInitiatedShutdown"
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
	NC_M_VOLUMES,
	NC_M_VOLUMES_CLOSING,
	NC_M_BLOCKD_RESTARTS,
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
	struct keeper *keeper;	 /* NULL with the fake hypervisor, as the next */
	struct buffers *buffers;
	char *volumes_dir, *sc_dir; /* <state>/nc/volumes, <state>/sc */
	struct sampler sampler;	    /* its figures have a lock of their own */

	pthread_mutex_t lock; /* all below */
	pthread_cond_t shown; /* revision grew */
	struct nc_instance *buckets[NC_BUCKETS];
	size_t count;
	int64_t revision;
	struct nc_queue light, heavy;
	uint16_t slot_users[NC_SLOTS]; /* its instance, and each volume that its user serves */
	struct nc_volume *volume_buckets[NC_BUCKETS], *volumes_by_instance[NC_BUCKETS];
	size_t volume_count;
	pthread_cond_t close_due; /* a volume is to be closed */
	struct nc_disk disks[NC_DISKS_MAX];
	size_t disk_count; /* constant once started */
	struct nc_sc_client {
		struct rpc_client *client;
		bool used;
	} sc[NC_THREADS]; /* connections to the storage controller */
	bool held;
	int64_t held_deadline_ms; /* Unix time: guests that are still on are switched off */
	atomic_bool stopping;	  /* set under the lock */
	pthread_cond_t stop;	  /* … with this */
	struct error hyper_error, register_error,
	    net_error, volume_error; /* the last try's; empty when it went well */
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
void nc_hold_slot(struct nc *nc, int slot);	       /* Lock; one more of its users */
void nc_release_slot(struct nc *nc, int slot);	       /* Lock; one less */
/* What is shown as its state: one that is started again is pending. Lock. */
enum nc_state nc_shown_state(const struct nc_instance *inst);
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
int nc_store_volume(struct nc *nc, const struct records_node_volume *v, struct error *e);
int nc_read_volume(struct nc *nc, const char *id, struct arena *a, struct records_node_volume **ret,
		   struct error *e); /* -ENOENT */
int nc_store_forget_volume(struct nc *nc, const char *id, struct error *e);
/* One document of the node's state. */
int nc_store_put(struct nc *nc, const char *kind, const char *id, const struct wire_shape *shape,
		 const void *value, struct error *e);
bool nc_is_ebs(const struct shared_instance_spec *spec);

/* --- reconcile.c, steps.c: one instance at work --- */
struct nc_job {
	struct nc *nc;
	struct nc_instance *inst; /* busy: nobody else changes its record, nobody frees it */
	char id[ID_LEN];
	struct arena *arena;
	const struct shared_instance_spec *spec; /* a copy, in arena */
	struct nc_record rec;			 /* a copy; nc_commit() makes it so */
	struct nc_facts facts;
	struct nc_device_job *devices; /* in arena */
	size_t device_count;
	int64_t wait_ms, retry_most_ms; /* retry_most_ms 0: the usual */
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

/* --- volumes.c: those that are open here --- */
const char *nc_volume_state_name(enum nc_volume_state s);
int nc_volumes_open(struct nc *nc, struct error *e); /* at the start: adopts what is there */
void nc_volumes_free(struct nc *nc);
struct nc_volume *nc_volume_find(struct nc *nc, const char *id); /* Lock */
void nc_volume_remove(struct nc *nc, struct nc_volume *v);	 /* Lock; frees */
void nc_each_volume(struct nc *nc, void (*fn)(struct nc *nc, struct nc_volume *v, void *ctx),
		    void *ctx); /* Lock */
void nc_each_volume_of(struct nc *nc, const char *instance_id,
		       void (*fn)(struct nc *nc, struct nc_volume *v, void *ctx), void *ctx); /* Lock */
/* Opens it for j's instance and has it served. NC_STEP_AGAIN when it is, NC_STEP_WAIT when it is held and no
 * guest may have it yet, NC_STEP_RETRY, NC_STEP_FAIL (never); with j->err. */
enum nc_step nc_volume_open(struct nc_job *j, const char *id, int64_t generation);
/* Marks it to be closed, durably. */
int nc_volume_close(struct nc *nc, const char *id, struct error *e);
int nc_volumes_close_all(struct nc *nc, const char *instance_id, struct error *e);
bool nc_volumes_are_served(struct nc *nc); /* any */
int nc_volume_command(struct nc *nc, const char *id, const char *line, int timeout_ms, struct buf *ret_json,
		      struct error *e);
/* Limits, as in the storage controller's answer: for this run and later ones. */
int nc_volume_throttle(struct nc *nc, const char *id, const char *options, struct error *e);
void nc_volume_path(const struct nc *nc, const char *id, const char *file, char *out, size_t size);
/* Ask the storage controller; from any thread. */
int nc_sc_call(struct nc *nc, const char *action, const void *in, struct arena *a, void **ret_out, struct error *e);

/* --- closing.c --- */
void *nc_closer(void *ctx);

/* --- volume_files.c: what the storage controller says must be a volume's user's --- */
struct nc_file_rules {
	const char *dir;   /* regular files: below it, without links on the way */
	const char *disks; /* block devices: those of this list, words between commas or blanks */
	uid_t uid;	   /* of the instance */
	gid_t gid;
};
struct nc_file_rules nc_volume_files(const struct nc *nc, int slot);
/* Give it to the instance, or back to dir's owner. What is neither's is refused: -EPERM. */
int nc_file_give(const struct nc_file_rules *r, const char *path, struct error *e);
int nc_file_take_back(const struct nc_file_rules *r, const char *path, struct error *e); /* a missing one is success */

/* --- device_steps.c: an instance's volumes --- */
struct nc_device_job {
	const struct shared_block_device *spec; /* NULL: it is in no specification any more */
	struct nc_device dev;
	struct nc_device_facts facts;
	enum nc_device_action action;
	int slot;
	bool open; /* any attachment of it is */
};
enum nc_phase nc_phase_of(const struct nc_facts *f);
int nc_devices_gather(struct nc_job *j); /* into j->devices and j->facts; negative with j->err */
enum nc_step nc_devices_step(struct nc_job *j);
/* The disks of a guest that is about to start: those that are served. In j->arena. */
size_t nc_devices_disks(struct nc_job *j, struct hyper_disk **ret);
void nc_devices_observe(const struct nc_instance *inst, struct arena *a,
			struct shared_block_device_observed_list *out); /* Lock */

/* --- local_disks.c: whole disks of the node --- */
int nc_disks_open(struct nc *nc, struct error *e); /* at the start, after the volumes */
bool nc_disk_is_name(const char *id);		   /* a process of the keeper's that serves one */
/* Whether there is something to do for those of the job's instance, and that: NC_STEP_DONE when nothing is. */
bool nc_disks_due(const struct nc_job *j);
enum nc_step nc_disks_step(struct nc_job *j);
/* For its guest, that is about to start: how many. Paths in j->arena. */
size_t nc_disks_of_machine(struct nc_job *j, struct hyper_disk *out, size_t max);
/* An instance that has ended, or stopped, has none any more. */
int nc_disks_release(struct nc *nc, const char *instance_id, struct error *e);
void nc_disks_count(struct nc *nc, int *ret_total, int *ret_used); /* Lock */

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

/* --- figures_reply.c, figures_metrics.c: what the sampler knows, as a message and as Prometheus text --- */
void nc_figures_reply(struct nc *nc, struct arena *a, const struct node_get_figures_request *in,
		      struct node_get_figures_response *out);
void figures_print_metrics(struct figures *f, struct buf *out);

/* --- volume_rpc.c --- */
struct rpc_binding volume_binding(struct nc *nc);

#endif
