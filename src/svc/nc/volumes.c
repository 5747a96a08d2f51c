/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes that are open here. One goes through:
 *
 *   recorded (open) → asked of the storage controller → its answer recorded → files given to the instance's user →
 *   its mallee-blockd started (the keeper records what runs) → served; or held, and asked again until it is not
 *   … → recorded as closing → closing.c → closed → forgotten
 *
 * Each step may be cut off and done again: all of them are asked for anew, with the same answer, until `served`. That is what
 * the keeper knows (real guests), or what this process asked for (fake ones, for which nothing runs).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "os/file.h"
#include "svc/nc/nc_priv.h"
#include "volume/keyfile.h"

#define VOLUME_KEY_BYTES 64
#define SERVE_MS 5000 /* what a process may take until it answers; it goes on trying after that */
#define ANSWER_MS 3000

/* --- the table --- */

static size_t bucket_of(const char *id)
{
	uint32_t hash = 2166136261u;

	for (const char *c = id; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 16777619u;
	return hash % NC_BUCKETS;
}

static struct nc_volume **place(struct nc *nc, const char *id)
{
	struct nc_volume **p;

	for (p = &nc->volume_buckets[bucket_of(id)]; *p; p = &(*p)->hash_next)
		if (strcmp((*p)->id, id) == 0)
			break;
	return p;
}

struct nc_volume *nc_volume_find(struct nc *nc, const char *id)
{
	return *place(nc, id);
}

/* Lock; not there yet. */
static struct nc_volume *add(struct nc *nc, const char *id, const char *instance, int64_t generation, int slot)
{
	struct nc_volume *v = calloc(1, sizeof(*v));

	if (!v)
		abort();
	snprintf(v->id, sizeof(v->id), "%s", id);
	snprintf(v->instance, sizeof(v->instance), "%s", instance);
	v->generation = generation;
	v->slot = slot;
	nc_hold_slot(nc, slot);
	*place(nc, id) = v;
	v->instance_next = nc->volumes_by_instance[bucket_of(v->instance)];
	nc->volumes_by_instance[bucket_of(v->instance)] = v;
	nc->volume_count++;
	return v;
}

void nc_volume_remove(struct nc *nc, struct nc_volume *v)
{
	struct nc_volume **p = &nc->volumes_by_instance[bucket_of(v->instance)];

	while (*p != v)
		p = &(*p)->instance_next;
	*p = v->instance_next;
	*place(nc, v->id) = v->hash_next;
	nc_release_slot(nc, v->slot);
	nc->volume_count--;
	free(v);
}

void nc_each_volume(struct nc *nc, void (*fn)(struct nc *nc, struct nc_volume *v, void *ctx), void *ctx)
{
	for (size_t i = 0; i < NC_BUCKETS && nc->volume_count; i++)
		for (struct nc_volume *v = nc->volume_buckets[i]; v; v = v->hash_next)
			fn(nc, v, ctx);
}

void nc_each_volume_of(struct nc *nc, const char *instance_id, void (*fn)(struct nc *nc, struct nc_volume *v, void *ctx),
		       void *ctx)
{
	for (struct nc_volume *v = nc->volumes_by_instance[bucket_of(instance_id)]; v; v = v->instance_next)
		if (str_eq(v->instance, instance_id))
			fn(nc, v, ctx);
}

static void add_served(struct nc *nc, struct nc_volume *v, void *ctx)
{
	*(bool *)ctx |= v->state != NC_VOLUME_CLOSED;
}

bool nc_volumes_are_served(struct nc *nc)
{
	bool any = false;

	pthread_mutex_lock(&nc->lock);
	nc_each_volume(nc, add_served, &any);
	pthread_mutex_unlock(&nc->lock);
	return any;
}

const char *nc_volume_state_name(enum nc_volume_state s)
{
	static const char *const names[] = {"open", "closing", "closed"};

	return names[s];
}

void nc_volume_path(const struct nc *nc, const char *id, const char *file, char *out, size_t size)
{
	snprintf(out, size, "%s/%s%s%s", nc->volumes_dir, id, *file ? "/" : "", file);
}

/* --- its process --- */

struct arguments {
	struct arena *arena;
	const char *list[KEEPER_ARGS_MAX + 1];
	size_t count;
};

static void put(struct arguments *a, const char *option, const char *spec)
{
	a->list[a->count++] = option;
	a->list[a->count++] = spec;
}

/* name, and behind a colon what else is given. */
static void put_filter(struct arguments *a, const char *name, const char *options)
{
	put(a, "--filter", options && *options ? arena_printf(a->arena, "%s:%s", name, options) : name);
}

/* The stack of BLOCK.md. Throttle is there without limits, too: they may come. */
static void print_arguments(struct nc *nc, const struct records_node_volume *v, uid_t sc_uid, struct arguments *a)
{
	char path[4096], serial[ID_LEN];
	size_t n = strcspn(v->volume_id, "-");

	snprintf(serial, sizeof(serial), "%.*s%s", (int)n, v->volume_id, v->volume_id + n + 1);
	put_filter(a, "throttle", v->throttle);
	if (v->buffer)
		put_filter(a, "coalesce", arena_printf(a->arena, "buffer=%s,volume=%s", v->buffer, v->volume_id));
	put_filter(a, "readahead", NULL);
	put_filter(a, "snap", v->snap);
	if (v->cow)
		put_filter(a, "cow", v->cow);
	if (v->key_file)
		put_filter(a, "crypt", arena_printf(a->arena, "key-file=%s", v->key_file));
	put(a, "--back", v->back);
	nc_volume_path(nc, v->volume_id, "vhost.sock", path, sizeof(path));
	put(a, "--front", arena_printf(a->arena, "vhost-user:socket=%s,serial=%s,seg-max=254", path, serial));
	nc_volume_path(nc, v->volume_id, "nbd.sock", path, sizeof(path));
	put(a, "--front", arena_printf(a->arena, "nbd:socket=%s,mode=0666,peer-uid=%u,read-only=on", path, sc_uid));
}

static int owner_of_sc(const struct nc *nc, uid_t *ret, struct error *e)
{
	struct stat st;

	if (lstat(nc->sc_dir, &st) < 0)
		return error_errno(e, errno, "cannot look at %s", nc->sc_dir);
	*ret = st.st_uid;
	return 0;
}

static int describe(struct nc *nc, const struct records_node_volume *v, struct arguments *a, struct keeper_volume *ret,
		    struct error *e)
{
	uid_t sc_uid = 0, uid = nc->uid_base + (uid_t)v->slot.value;
	int r = owner_of_sc(nc, &sc_uid, e);

	if (r < 0)
		return r;
	print_arguments(nc, v, sc_uid, a);
	*ret = (struct keeper_volume){.id = v->volume_id, .uid = uid, .gid = (gid_t)uid, .args = a->list};
	return 0;
}

/* What runs already goes on, whatever it was started with. */
static int serve(struct nc *nc, const struct records_node_volume *v, struct arena *arena, struct error *e)
{
	_cleanup_(buf_done) struct buf info = BUF_INIT;
	struct arguments a = {.arena = arena};
	struct keeper_volume k;
	struct error other = {0};
	int r = describe(nc, v, &a, &k, e);

	if (r < 0)
		return r;
	r = keeper_start(nc->keeper, &k, SERVE_MS, &other);
	if (r == -EEXIST) {
		error_clear(&other);
		r = keeper_change(nc->keeper, &k, &other);
		if (r == 0)
			r = keeper_command(nc->keeper, v->volume_id, "info", ANSWER_MS, &info, &other);
	}
	if (r < 0)
		error_set(e, other.code, "%s", other.message);
	return r;
}

int nc_volume_command(struct nc *nc, const char *id, const char *line, int timeout_ms, struct buf *ret_json, struct error *e)
{
	return keeper_command(nc->keeper, id, line, timeout_ms, ret_json, e);
}

/* Limits for this run and later ones. */
static int throttle(struct nc *nc, const char *id, const char *options, struct error *e)
{
	_cleanup_(arena_freep) struct arena *arena = arena_new();
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct records_node_volume *v;
	struct arguments a = {.arena = arena};
	struct keeper_volume k;
	int r = nc_read_volume(nc, id, arena, &v, e);

	if (r == -ENOENT)
		return error_set(e, "VolumeNotOpen", "volume %s is not open on this node", id);
	if (r < 0)
		return r;
	v->throttle = options;
	r = nc_store_volume(nc, v, e);
	if (r == 0)
		r = describe(nc, v, &a, &k, e);
	if (r == 0)
		r = keeper_change(nc->keeper, &k, e);
	if (r == 0)
		r = keeper_command(nc->keeper, id, arena_printf(arena, "throttle set %s", options), ANSWER_MS, &out, e);
	return r;
}

int nc_volume_throttle(struct nc *nc, const char *id, const char *options, struct error *e)
{
	struct nc_volume *v;
	bool ours;
	int r;

	pthread_mutex_lock(&nc->lock);
	v = nc_volume_find(nc, id);
	ours = v && !v->busy && v->state == NC_VOLUME_OPEN;
	if (ours)
		v->busy = true;
	pthread_mutex_unlock(&nc->lock);
	if (!ours)
		return error_set(e, "ServiceUnavailable", "volume %s is being opened or closed: try again", id);
	r = throttle(nc, id, options, e);
	pthread_mutex_lock(&nc->lock);
	v->busy = false; /* whoever works on one has it to himself: it is still there */
	pthread_cond_signal(&nc->close_due);
	pthread_mutex_unlock(&nc->lock);
	return r;
}

/* --- opening --- */

/* Have it to ourselves. 0; -EAGAIN: not now. */
static int claim(struct nc_job *j, const char *id, int64_t generation, bool *ret_fresh)
{
	struct nc *nc = j->nc;
	struct nc_volume *v;
	int r = 0;

	pthread_mutex_lock(&nc->lock);
	v = nc_volume_find(nc, id);
	*ret_fresh = !v;
	if (!v) {
		v = add(nc, id, j->id, generation, j->rec.slot);
	} else if (v->busy || v->state == NC_VOLUME_CLOSED || v->generation != generation || !str_eq(v->instance, j->id)) {
		r = -EAGAIN;
	}
	if (r == 0) {
		v->busy = true;
		v->served = false;
		v->state = NC_VOLUME_OPEN; /* it may have been on its way out */
	}
	pthread_mutex_unlock(&nc->lock);
	if (r < 0)
		error_set(&j->err, "IncorrectState", "volume %s is still being closed here", id);
	return r;
}

/* forget: nothing of it is there. */
static void unclaim(struct nc *nc, const char *id, bool served, bool held, bool forget)
{
	struct nc_volume *v;

	pthread_mutex_lock(&nc->lock);
	v = nc_volume_find(nc, id);
	v->busy = false;
	v->served = served;
	v->held = held;
	if (forget)
		nc_volume_remove(nc, v);
	pthread_mutex_unlock(&nc->lock);
}

static enum nc_step refused(const struct error *e)
{
	static const char *const finally[] = {"VolumeNotFound", "StaleAttachment", "InvalidParameterValue", "AccessDenied"};

	for (size_t i = 0; i < ARRAY_SIZE(finally); i++)
		if (str_eq(e->code, finally[i]))
			return NC_STEP_FAIL;
	return NC_STEP_RETRY;
}

/* To where its process finds it, and nowhere else: the record has the file's name. */
static enum nc_step keep_key(struct nc_job *j, struct records_node_volume *v, const char *hex)
{
	uid_t uid = j->nc->uid_base + (uid_t)v->slot.value;
	unsigned char key[VOLUME_KEY_BYTES];
	char path[256];
	int r;

	v->key_file = NULL;
	if (!hex)
		return NC_STEP_AGAIN;
	r = strlen(hex) == 2 * sizeof(key) ? hex_decode(hex, 2 * sizeof(key), key) : -EINVAL;
	explicit_bzero((char *)hex, strlen(hex)); /* the reply's, and nobody reads it after us */
	if (r < 0) {
		error_set(&j->err, "InternalError", "the storage controller gives no key for volume %s that is one", v->volume_id);
		return NC_STEP_FAIL;
	}
	if (j->nc->keeper)
		r = keyfile_put(j->nc->cloud_id, "nc", v->volume_id, key, sizeof(key), uid, (gid_t)uid, path, sizeof(path), &j->err);
	explicit_bzero(key, sizeof(key));
	if (r < 0)
		return r == -EOPNOTSUPP ? NC_STEP_FAIL : NC_STEP_RETRY;
	v->key_file = j->nc->keeper ? arena_strdup(j->arena, path) : NULL;
	return NC_STEP_AGAIN;
}

static enum nc_step ask(struct nc_job *j, struct records_node_volume *v)
{
	struct nc *nc = j->nc;
	struct storage_open_volume_request in = {
	    .volume_id = v->volume_id,
	    .instance_id = j->id,
	    .node_id = nc->node_id,
	    .generation = v->generation,
	    .node_url = arena_printf(j->arena, "https://127.0.0.1:%u", settings_port(nc->settings, PORT_NC)),
	};
	struct storage_open_volume_response *out;

	if (nc_sc_call(nc, "OpenVolume", &in, j->arena, (void **)&out, &j->err) < 0)
		return refused(&j->err);
	if (!v->back) /* else what it was told since holds */
		v->throttle = out->throttle;
	v->back = out->back;
	v->snap = out->snap;
	v->cow = out->cow;
	v->files = out->files;
	v->held = out->held;
	return keep_key(j, v, out->key);
}

struct nc_file_rules nc_volume_files(const struct nc *nc, int slot)
{
	const char *pool = settings_get(nc->settings, SETTING_EBS_POOL);
	uid_t uid = nc->uid_base + (uid_t)slot;

	return (struct nc_file_rules){.dir = nc->sc_dir,
				      .disks = str_prefix(pool, "disks:") ? pool + strlen("disks:") : "",
				      .uid = uid,
				      .gid = (gid_t)uid};
}

static enum nc_step give_files(struct nc_job *j, const struct records_node_volume *v)
{
	struct nc_file_rules rules = nc_volume_files(j->nc, (int)v->slot.value);

	for (size_t i = 0; i < v->files.count; i++) {
		int r = nc_file_give(&rules, v->files.items[i], &j->err);

		if (r < 0)
			return r == -EPERM ? NC_STEP_FAIL : NC_STEP_RETRY;
	}
	return NC_STEP_AGAIN;
}

static enum nc_step take_buffer(struct nc_job *j, struct records_node_volume *v)
{
	uid_t uid = j->nc->uid_base + (uid_t)v->slot.value;
	char path[256];
	int r = buffers_take(j->nc->buffers, v->volume_id, uid, (gid_t)uid, path, sizeof(path), &j->err);

	if (r == -ENOSPC) {
		log_info("no memory is left for a volume's write buffer: it goes without", "volume=%s", v->volume_id);
		error_clear(&j->err);
		v->buffer = NULL;
		return NC_STEP_AGAIN;
	}
	v->buffer = r < 0 ? NULL : arena_strdup(j->arena, path);
	return r < 0 ? NC_STEP_RETRY : NC_STEP_AGAIN;
}

static enum nc_step open_claimed(struct nc_job *j, struct records_node_volume *v)
{
	enum nc_step step;

	if (nc_store_volume(j->nc, v, &j->err) < 0)
		return NC_STEP_RETRY;
	step = ask(j, v);
	if (step != NC_STEP_AGAIN || !j->nc->keeper)
		return step;
	step = take_buffer(j, v);
	if (step != NC_STEP_AGAIN)
		return step;
	if (nc_store_volume(j->nc, v, &j->err) < 0)
		return NC_STEP_RETRY;
	step = give_files(j, v);
	if (step == NC_STEP_AGAIN && serve(j->nc, v, j->arena, &j->err) < 0)
		step = NC_STEP_RETRY;
	return step;
}

enum nc_step nc_volume_open(struct nc_job *j, const char *id, int64_t generation)
{
	struct records_node_volume *v = arena_new_struct(j->arena, struct records_node_volume), *known;
	struct error ignored = {0};
	enum nc_step step;
	bool fresh;

	if (claim(j, id, generation, &fresh) < 0)
		return NC_STEP_RETRY;
	*v = (struct records_node_volume){
	    .volume_id = id,
	    .instance_id = j->id,
	    .generation = WIRE_INT_OF(generation),
	    .slot = WIRE_INT_OF(j->rec.slot),
	    .state = nc_volume_state_name(NC_VOLUME_OPEN),
	};
	if (!fresh && nc_read_volume(j->nc, id, j->arena, &known, &ignored) == 0) {
		*v = *known; /* what was given to its user must not be forgotten */
		v->state = nc_volume_state_name(NC_VOLUME_OPEN);
	}
	step = open_claimed(j, v);
	if (step == NC_STEP_AGAIN && v->held.value) {
		error_set(&j->err, "VolumeNotReady", "volume %s waits until its snapshots are frozen", id);
		step = NC_STEP_WAIT;
	}
	/* Refused for good, at once: there is nothing to close. */
	bool forget = fresh && step == NC_STEP_FAIL && !v->back && nc_store_forget_volume(j->nc, id, &ignored) == 0;
	if (step == NC_STEP_AGAIN)
		log_info("volume open", "volume=%s id=%s generation=%lld", id, j->id, (long long)generation);
	unclaim(j->nc, id, step == NC_STEP_AGAIN, v->held.value, forget);
	return step;
}

/* --- to be closed --- */

int nc_volume_close(struct nc *nc, const char *id, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct records_node_volume *rec;
	struct nc_volume *v;
	int r = nc_read_volume(nc, id, a, &rec, e);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (str_eq(rec->state, nc_volume_state_name(NC_VOLUME_OPEN))) {
		rec->state = nc_volume_state_name(NC_VOLUME_CLOSING);
		r = nc_store_volume(nc, rec, e);
	}
	if (r < 0)
		return r;
	pthread_mutex_lock(&nc->lock);
	v = nc_volume_find(nc, id);
	if (v && v->state == NC_VOLUME_OPEN) {
		v->state = NC_VOLUME_CLOSING;
		v->due_mono_ms = 0;
		v->attempts = 0;
		v->closing_since_mono_ms = clock_mono_ms();
		pthread_cond_signal(&nc->close_due);
	}
	pthread_mutex_unlock(&nc->lock);
	return 0;
}

static void find_open(struct nc *nc, struct nc_volume *v, void *ctx)
{
	if (v->state == NC_VOLUME_OPEN)
		strcpy(ctx, v->id);
}

int nc_volumes_close_all(struct nc *nc, const char *instance_id, struct error *e)
{
	for (;;) {
		char id[ID_LEN] = "";
		int r;

		pthread_mutex_lock(&nc->lock);
		nc_each_volume_of(nc, instance_id, find_open, id);
		pthread_mutex_unlock(&nc->lock);
		if (!id[0])
			return 0;
		r = nc_volume_close(nc, id, e);
		if (r < 0)
			return r;
	}
}

/* --- at the start of the node --- */

static void noted(void *ctx, const char *id, const char *what, const struct error *why)
{
	struct nc *nc = ctx;

	if (str_eq(what, "started again"))
		metrics_add(nc->metrics, NC_M_BLOCKD_RESTARTS, 1);
	log_warn("a volume's process", "volume=%s what=%s err=%s", id, log_quote(what),
		 log_quote(why ? why->message : ""));
}

/* Buffers are gone after the host's boot, and a process makes none for itself: its folder is not its own. */
static void mend_buffer(struct nc *nc, const struct records_node_volume *v)
{
	uid_t uid = nc->uid_base + (uid_t)v->slot.value;
	struct error e = {0};
	char path[256];

	if (!v->buffer || str_eq(v->state, nc_volume_state_name(NC_VOLUME_CLOSED)))
		return;
	if (buffers_take(nc->buffers, v->volume_id, uid, (gid_t)uid, path, sizeof(path), &e) < 0)
		log_error("a volume's write buffer cannot be made", "volume=%s err=%s", v->volume_id, log_quote(e.message));
}

static bool is_wanted(struct nc *nc, struct arena *a, const char *instance_id)
{
	struct nc_instance *inst = nc_find(nc, instance_id);
	struct state_object o;
	struct error e = {0};

	if (inst)
		return inst->rec.state != NC_TERMINATED;
	/* A record that cannot be read is left alone; so are its volumes. */
	return state_get(nc->state, a, "instance", instance_id, &o, &e) != -ENOENT;
}

static void load_one(struct nc *nc, struct arena *a, const struct records_node_volume *rec)
{
	struct nc_volume *v = add(nc, rec->volume_id, rec->instance_id, rec->generation.value, (int)rec->slot.value);

	for (int s = NC_VOLUME_OPEN; s <= NC_VOLUME_CLOSED; s++)
		if (str_eq(rec->state, nc_volume_state_name((enum nc_volume_state)s)))
			v->state = (enum nc_volume_state)s;
	v->closing_since_mono_ms = clock_mono_ms();
	v->held = rec->held.value;
	if (nc->buffers)
		mend_buffer(nc, rec);
}

static int load(struct nc *nc, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct state_object *list;
	size_t count;
	int r = state_list(nc->state, a, "volume", NULL, 0, &list, &count, e);

	for (size_t i = 0; r == 0 && i < count; i++) {
		struct records_node_volume *rec;
		struct error why = {0};
		bool good = nc_read_volume(nc, list[i].id, a, &rec, &why) == 0 && strlen(rec->volume_id) < ID_LEN &&
			    strlen(rec->instance_id) < ID_LEN && rec->slot.value >= 0 && rec->slot.value < NC_SLOTS;

		if (!good) {
			log_error("a volume's record cannot be read: it is left alone", "id=%s err=%s", list[i].id,
				  log_quote(why.message));
			continue;
		}
		load_one(nc, a, rec);
		if (!is_wanted(nc, a, rec->instance_id))
			r = nc_volume_close(nc, rec->volume_id, e);
	}
	return r;
}

/* After the host's boot its key is gone, too: it is to be asked for again. */
static bool lacks_key(struct nc *nc, const char *id)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct records_node_volume *rec;
	struct error ignored = {0};

	return nc_read_volume(nc, id, a, &rec, &ignored) == 0 && rec->key_file && !keyfile_is_there(nc->cloud_id, "nc", id);
}

/* What the keeper was told of is served: it sees to that. */
static void note_served(struct nc *nc)
{
	size_t max = keeper_list(nc->keeper, NULL, 0) + 16;
	struct keeper_status *list = calloc(max, sizeof(*list));
	size_t n;

	if (!list)
		abort();
	n = MIN_OF(keeper_list(nc->keeper, list, max), max);
	for (size_t i = 0; i < n; i++) {
		struct nc_volume *v = nc_volume_find(nc, list[i].id);

		if (v)
			v->served = !v->held && !lacks_key(nc, v->id);
		else if (!nc_disk_is_name(list[i].id))
			log_warn("a volume's process that nobody asked for: left alone", "volume=%s", list[i].id);
	}
	free(list);
}

static int open_keeper(struct nc *nc, struct error *e)
{
	_cleanup_(freep) char *program = settings_path(nc->settings, "bin/mallee-blockd");
	_cleanup_(freep) char *logs = settings_path(nc->settings, "log/volumes");
	struct keeper_settings s = {
	    .program = program, .run_dir = nc->volumes_dir, .log_dir = logs, .noted = noted, .ctx = nc};
	int r = dir_make(nc->volumes_dir, 0711);

	if (r == 0)
		r = dir_make(logs, 0755);
	if (r < 0)
		return error_errno(e, r, "cannot make the folders for volumes' processes, %s and %s", nc->volumes_dir, logs);
	return keeper_new(&s, &nc->keeper, e);
}

int nc_volumes_open(struct nc *nc, struct error *e)
{
	int r = 0;

	if (!nc->ops->fakes_disks)
		r = buffers_open(nc->cloud_id, &nc->buffers, e);
	if (r == 0)
		r = load(nc, e);
	if (r == 0 && !nc->ops->fakes_disks)
		r = open_keeper(nc, e);
	if (r == 0 && nc->keeper)
		note_served(nc);
	return r;
}

void nc_volumes_free(struct nc *nc)
{
	keeper_free(nc->keeper);
	buffers_free(nc->buffers);
	for (size_t i = 0; i < NC_BUCKETS; i++)
		while (nc->volume_buckets[i])
			nc_volume_remove(nc, nc->volume_buckets[i]);
	free(nc->volumes_dir);
	free(nc->sc_dir);
}
