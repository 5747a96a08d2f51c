/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Closing volumes that nobody wants here any more: two threads, a volume at a time each.
 *
 *   closing: the storage controller lets go (VolumeBusy: it still reads a snapshot; later) → what the write buffer holds is
 *            written back → the process is stopped → the files are the storage controller's again
 *   closed:  the storage controller is told → forgotten
 *
 * A node that is drained does not wait for others once its time is over: a snapshot that is read begins anew then.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/nc/nc_priv.h"
#include "volume/keyfile.h"

#define BUSY_MS 2000
#define RETRY_FIRST_MS 500
#define RETRY_MOST_MS 15000
#define WRITE_BACK_MS 60000
#define STOP_MS 30000
#define GIVE_UP_MS 300000 /* a buffer that cannot be written back for so long is given up */

enum outcome { DONE, BUSY, FAILED };

struct closing {
	struct nc *nc;
	char id[ID_LEN];
	int64_t generation, since_mono_ms;
	struct arena *arena;
	struct records_node_volume *rec;
	struct error err;
};

static bool in_a_hurry(struct nc *nc)
{
	bool hurry;

	pthread_mutex_lock(&nc->lock);
	hurry = nc->held && clock_unix_ms() >= nc->held_deadline_ms;
	pthread_mutex_unlock(&nc->lock);
	return hurry;
}

static int tell(struct closing *c, const char *action)
{
	struct storage_volume_holder in = {
	    .volume_id = c->id, .node_id = c->nc->node_id, .generation = WIRE_INT_OF(c->generation)};
	void *out;

	return nc_sc_call(c->nc, action, &in, c->arena, &out, &c->err);
}

static enum outcome release(struct closing *c)
{
	bool busy, away;

	if (tell(c, "ReleaseVolume") == 0)
		return DONE;
	busy = str_eq(c->err.code, "VolumeBusy");
	away = str_eq(c->err.code, "ServiceUnavailable");
	if (in_a_hurry(c->nc) || !(busy || away)) {
		log_warn("a volume is closed without the storage controller's word", "volume=%s err=%s", c->id,
			 log_quote(c->err.message));
		error_clear(&c->err);
		return DONE;
	}
	return busy ? BUSY : FAILED;
}

/* Nobody writes to it any more, so what is written back now is all. */
static enum outcome write_back(struct closing *c)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	char record[4096];

	nc_volume_path(c->nc, c->id, "args", record, sizeof(record));
	if (!c->rec->buffer || access(record, F_OK) < 0) /* it was never started */
		return DONE;
	if (nc_volume_command(c->nc, c->id, "coalesce drain", WRITE_BACK_MS, &out, &c->err) == 0)
		return DONE;
	if (clock_mono_ms() - c->since_mono_ms < GIVE_UP_MS && !in_a_hurry(c->nc))
		return FAILED;
	log_error("a volume is closed with writes that could not be carried out: they are lost", "volume=%s err=%s", c->id,
		  log_quote(c->err.message));
	error_clear(&c->err);
	return DONE;
}

static enum outcome give_back(struct closing *c)
{
	struct nc_file_rules rules = nc_volume_files(c->nc, (int)c->rec->slot.value);

	for (size_t i = 0; i < c->rec->files.count; i++) {
		int r = nc_file_take_back(&rules, c->rec->files.items[i], &c->err);

		if (r == -EPERM) { /* it never was the instance's */
			log_warn("a volume's file is left as it is", "volume=%s err=%s", c->id, log_quote(c->err.message));
			error_clear(&c->err);
		} else if (r < 0) {
			return FAILED;
		}
	}
	return DONE;
}

static enum outcome stop_serving(struct closing *c)
{
	enum outcome o = write_back(c);
	char log[4096];
	int r;

	if (o != DONE)
		return o;
	r = keeper_stop(c->nc->keeper, c->id, STOP_MS, &c->err);
	if (r == -ETIMEDOUT) {
		log_warn("a volume's process did not end by itself", "volume=%s", c->id);
		r = keeper_stop(c->nc->keeper, c->id, STOP_MS, &c->err); /* its folder, too */
	}
	if (r < 0)
		return FAILED;
	error_clear(&c->err);
	o = give_back(c);
	if (o != DONE)
		return o;
	buffers_drop(c->nc->buffers, c->id);
	keyfile_drop(c->nc->cloud_id, "nc", c->id);
	snprintf(log, sizeof(log), "%s/log/volumes/%s.log", settings_get(c->nc->settings, SETTING_STATE), c->id);
	unlink(log);
	return DONE;
}

static enum outcome let_go(struct closing *c)
{
	enum outcome o = release(c);

	if (o == DONE && c->nc->keeper)
		o = stop_serving(c);
	if (o != DONE)
		return o;
	c->rec->state = nc_volume_state_name(NC_VOLUME_CLOSED);
	return nc_store_volume(c->nc, c->rec, &c->err) < 0 ? FAILED : DONE;
}

static void note_state(struct closing *c, enum nc_volume_state state)
{
	pthread_mutex_lock(&c->nc->lock);
	nc_volume_find(c->nc, c->id)->state = state;
	pthread_mutex_unlock(&c->nc->lock);
}

static enum outcome close_one(struct closing *c, enum nc_volume_state state)
{
	int r = nc_read_volume(c->nc, c->id, c->arena, &c->rec, &c->err);

	if (r == -ENOENT)
		return DONE;
	if (r < 0)
		return FAILED;
	if (state == NC_VOLUME_CLOSING) {
		enum outcome o = let_go(c);

		if (o != DONE)
			return o;
		note_state(c, NC_VOLUME_CLOSED);
	}
	if (tell(c, "CloseVolume") < 0)
		return FAILED;
	return nc_store_forget_volume(c->nc, c->id, &c->err) < 0 ? FAILED : DONE;
}

/* --- the threads --- */

struct choice {
	int64_t now, next_ms;
	struct nc_volume *due;
};

static void look(struct nc *nc, struct nc_volume *v, void *ctx)
{
	struct choice *c = ctx;

	if (v->state == NC_VOLUME_OPEN || v->busy)
		return;
	if (v->due_mono_ms <= c->now)
		c->due = v;
	else
		c->next_ms = MIN_OF(c->next_ms, v->due_mono_ms - c->now);
}

/* Lock. One to be closed, ours from now on; NULL: the node is stopping. */
static struct nc_volume *take(struct nc *nc)
{
	while (!nc->stopping) {
		struct choice c = {.now = clock_mono_ms(), .next_ms = 60000};
		struct timespec t;

		nc_each_volume(nc, look, &c);
		if (c.due) {
			c.due->busy = true;
			return c.due;
		}
		clock_gettime(CLOCK_MONOTONIC, &t);
		t.tv_sec += c.next_ms / 1000;
		t.tv_nsec += c.next_ms % 1000 * 1000000;
		t.tv_sec += t.tv_nsec / 1000000000;
		t.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&nc->close_due, &nc->lock, &t);
	}
	return NULL;
}

/* Lock */
static void put_back(struct nc *nc, struct nc_volume *v, enum outcome o, const struct error *why)
{
	struct nc_instance *inst = nc_find(nc, v->instance);
	int64_t wait_ms = BUSY_MS;

	v->busy = false;
	if (o == DONE) {
		log_info("volume closed", "volume=%s id=%s", v->id, v->instance);
		nc_volume_remove(nc, v);
		if (inst)
			nc_kick(nc, inst);
		return;
	}
	if (o == FAILED) {
		wait_ms = MIN_OF((int64_t)RETRY_FIRST_MS << MIN_OF(v->attempts, 6u), (int64_t)RETRY_MOST_MS);
		v->attempts++;
		if (!nc->stopping)
			log_warn("a volume cannot be closed yet", "volume=%s in_ms=%" PRId64 " err=%s", v->id, wait_ms,
				 log_quote(why->message));
	}
	v->due_mono_ms = clock_mono_ms() + wait_ms;
}

void *nc_closer(void *ctx)
{
	struct nc *nc = ctx;
	struct nc_volume *v;

	pthread_mutex_lock(&nc->lock);
	while ((v = take(nc))) {
		struct closing c = {.nc = nc, .generation = v->generation, .since_mono_ms = v->closing_since_mono_ms};
		enum nc_volume_state state = v->state;
		enum outcome o;

		strcpy(c.id, v->id);
		pthread_mutex_unlock(&nc->lock);
		c.arena = arena_new();
		o = close_one(&c, state);
		arena_free(c.arena);
		pthread_mutex_lock(&nc->lock);
		put_back(nc, v, o, &c.err);
	}
	pthread_mutex_unlock(&nc->lock);
	return NULL;
}
