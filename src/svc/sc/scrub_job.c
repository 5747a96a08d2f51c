/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scrub: a thread of its own that reads snapshots past every cache, and then looks at the volumes' files. One at a time; its results
 * stay until the next. `lock` guards what is shown.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "block/filter/map_check.h"
#include "svc/sc/sc_priv.h"

#define FINDINGS_MAX 1000
#define TAKE_MS 10000 /* how long who is at work on a volume that looks damaged is waited for */

struct finding {
	char id[ID_LEN];
	bool corrupt;
	char message[400];
};

struct scrub_job {
	struct sc *sc;
	pthread_t thread;
	bool thread_made;
	_Atomic bool stop;
	char (*ids)[ID_LEN]; /* snapshots that were named */
	size_t id_count;
	pthread_mutex_t lock; /* all below */
	const char *state;
	char reason[400];
	int64_t start_ms, end_ms;
	struct snap_scrubbed before, now; /* of snapshots that are done; of the one that is being read */
	int64_t snapshots, snapshots_total, volumes, corrupt, unreadable;
	struct finding *findings;
	size_t finding_count;
};

struct scrub_job *scrub_job_new(struct sc *sc)
{
	struct scrub_job *j = calloc(1, sizeof(*j));

	if (!j)
		abort();
	j->sc = sc;
	j->state = "none";
	pthread_mutex_init(&j->lock, NULL);
	return j;
}

void scrub_job_free(struct scrub_job *j)
{
	if (!j)
		return;
	j->stop = true;
	if (j->thread_made)
		pthread_join(j->thread, NULL);
	free(j->ids);
	free(j->findings);
	pthread_mutex_destroy(&j->lock);
	free(j);
}

static void add_finding(struct scrub_job *j, const char *id, bool corrupt, const char *message)
{
	pthread_mutex_lock(&j->lock);
	j->corrupt += corrupt;
	j->unreadable += !corrupt;
	if (j->finding_count < FINDINGS_MAX) {
		struct finding *f = &j->findings[j->finding_count++];
		snprintf(f->id, sizeof(f->id), "%s", id);
		snprintf(f->message, sizeof(f->message), "%s", message);
		f->corrupt = corrupt;
	}
	pthread_mutex_unlock(&j->lock);
	log_write(corrupt ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN, corrupt ? "a scrub found corruption" : "a scrub could not read", "id=%s what=%s", id,
		  log_quote(message));
}

/* ---- snapshots ---- */

static void found(void *ctx, const struct snap_finding *f)
{
	add_finding(ctx, f->snapshot ? f->snapshot : "", !f->unreadable, f->message);
}

static bool progress(void *ctx, const struct snap_scrubbed *so_far)
{
	struct scrub_job *j = ctx;

	pthread_mutex_lock(&j->lock);
	j->now = *so_far;
	pthread_mutex_unlock(&j->lock);
	return j->stop || j->sc->stopping;
}

static int scrub_snapshots(struct scrub_job *j, struct error *e)
{
	struct snap_store *store = sc_store(j->sc, e);
	struct snap_scrubbed total;
	int err = 0;

	if (!store)
		return -EREMOTEIO;
	if (!j->id_count) {
		err = snap_scrub(store, &(struct snap_scrub){ .found = found, .progress = progress, .ctx = j }, &total, e);
		if (!err)
			progress(j, &total);
		return err;
	}
	for (size_t i = 0; i < j->id_count && !err; i++) {
		struct snap_scrub how = { .snapshot = j->ids[i], .found = found, .progress = progress, .ctx = j };
		struct error why = { 0 };
		err = snap_scrub(store, &how, &total, &why);
		if (err == -ENOENT) {
			add_finding(j, j->ids[i], true, "there is no such snapshot in the object store");
			err = 0;
		} else if (err) {
			*e = why;
		} else {
			progress(j, &total);
		}
		pthread_mutex_lock(&j->lock);
		j->before.snapshots += j->now.snapshots;
		j->before.chunks += j->now.chunks;
		j->before.bytes += j->now.bytes;
		j->now = (struct snap_scrubbed){ 0 };
		pthread_mutex_unlock(&j->lock);
	}
	return err;
}

/* ---- records ---- */

struct expected {
	char id[ID_LEN], device[POOL_DEVICE_MAX];
	int64_t size_bytes;
	bool snapshot, open;
};

struct expectations {
	struct expected *items;
	size_t count;
};

/* Lock. Whether anything can be said of it. */
static bool describe(struct sc_item *item, struct expected *n)
{
	if (item->kind == SC_VOLUME) {
		const struct sc_volume *v = sc_volume_of(item);
		if (v->rec.state != SC_V_AVAILABLE)
			return false;
		*n = (struct expected){ .size_bytes = v->rec.size_bytes, .open = v->rec.holder.instance_id[0] || v->served };
		memcpy(n->device, v->rec.device, sizeof(n->device));
	} else {
		const struct sc_snapshot *s = sc_snapshot_of(item);
		if (s->rec.state != SC_S_COMPLETED || item->deleted)
			return false;
		*n = (struct expected){ .snapshot = true, .size_bytes = s->rec.size_bytes };
	}
	memcpy(n->id, item->id, ID_LEN);
	return true;
}

static void expect(struct sc *sc, struct sc_item *item, void *ctx)
{
	struct expectations *x = ctx;

	x->count += !(item->kind == SC_VOLUME && item->busy) && describe(item, &x->items[x->count]);
}

/* Takes the lock. Whether it is still there, and what there is to say of it by now. */
static bool look_again(struct sc *sc, const char *id, struct expected *n)
{
	pthread_mutex_lock(&sc->lock);
	struct sc_item *item = sc_find(sc, id);
	bool there = item && describe(item, n);
	pthread_mutex_unlock(&sc->lock);
	return there;
}

/* What is wrong is told, or only that something is. */
static bool wrong(struct scrub_job *j, const char *id, bool tell, bool corrupt, const char *message)
{
	if (tell)
		add_finding(j, id, corrupt, message);
	return true;
}

static bool check_length(struct scrub_job *j, const struct expected *n, bool tell)
{
	char path[4096], text[400];
	struct stat st;

	sc_volume_path(j->sc, n->id, "data.raw", path, sizeof(path));
	if (stat(path, &st)) {
		snprintf(text, sizeof(text), "%.300s: %s", path, strerror(errno));
		return wrong(j, n->id, tell, errno == ENOENT, text);
	}
	if (st.st_size < n->size_bytes) {
		snprintf(text, sizeof(text), "%.300s has %lld bytes, and should have %lld", path, (long long)st.st_size, (long long)n->size_bytes);
		return wrong(j, n->id, tell, true, text);
	}
	return false;
}

/* Their headers and both copies of each page. Not of a volume that is open: they change under us, and may be another user's. */
static bool check_maps(struct scrub_job *j, const struct expected *n, bool tell)
{
	static const char *const maps[] = { "cow.map", "changes.map", "changes.map.2" };
	bool bad = false;

	for (size_t i = 0; i < ARRAY_SIZE(maps) && !n->open; i++) {
		char path[4096];
		struct error why = { 0 };
		sc_volume_path(j->sc, n->id, maps[i], path, sizeof(path));
		int r = blk_map_check(path, &why);
		if (r)
			bad = wrong(j, n->id, tell, r == -EBADMSG || r == -ENOENT, why.message);
	}
	return bad;
}

static bool check_files(struct scrub_job *j, const struct expected *n, bool tell)
{
	bool short_of = check_length(j, n, tell);

	return check_maps(j, n, tell) || short_of;
}

/* It may be deleted or opened while its files are read: what looks wrong is looked at again with nobody else at it. */
static void check_volume(struct scrub_job *j, const struct expected *n)
{
	struct expected now;
	bool known;

	if (!check_files(j, n, false))
		return;
	struct sc_item *item = sc_take(j->sc, n->id, TAKE_MS, &known);
	if (!item)
		return;
	if (look_again(j->sc, n->id, &now) && !now.snapshot)
		check_files(j, &now, true);
	sc_give_back(j->sc, item, false);
}

static void check_snapshot(struct scrub_job *j, const struct expected *n)
{
	struct snap_store *store = sc_store(j->sc, NULL);
	struct snap_info info;
	struct error why = { 0 };
	struct expected now;
	int r = store ? snap_info(store, n->id, &info, &why) : 0;
	bool differs = store && r == 0 && (int64_t)info.size_bytes != n->size_bytes;

	if ((r != -ENOENT && !differs) || !look_again(j->sc, n->id, &now))
		return;
	if (r == -ENOENT)
		add_finding(j, n->id, true, "it is recorded as complete, and there is no such snapshot in the object store");
	else
		add_finding(j, n->id, true, "its size in the object store is not the one that is recorded");
}

static void scrub_records(struct scrub_job *j)
{
	struct sc *sc = j->sc;
	struct expectations x = { 0 };

	pthread_mutex_lock(&sc->lock);
	x.items = calloc(sc->count + 1, sizeof(*x.items));
	if (!x.items)
		abort();
	sc_each(sc, expect, &x);
	pthread_mutex_unlock(&sc->lock);
	for (size_t i = 0; i < x.count && !j->stop && !sc->stopping; i++) {
		struct expected now; /* the list may be old by now */
		if (!look_again(sc, x.items[i].id, &now) || now.snapshot != x.items[i].snapshot)
			continue;
		if (now.snapshot) {
			check_snapshot(j, &now);
			continue;
		}
		check_volume(j, &now);
		pthread_mutex_lock(&j->lock);
		j->volumes++;
		pthread_mutex_unlock(&j->lock);
	}
	free(x.items);
}

/* ---- the thread ---- */

static void *run(void *ctx)
{
	struct scrub_job *j = ctx;
	struct error why = { 0 };

	if (!j->id_count)
		scrub_records(j);
	int err = scrub_snapshots(j, &why);
	pthread_mutex_lock(&j->lock);
	j->state = err ? "failed" : "done";
	snprintf(j->reason, sizeof(j->reason), "%.390s", err ? why.message : "");
	j->end_ms = clock_unix_ms();
	long long corrupt = j->corrupt, unreadable = j->unreadable;
	pthread_mutex_unlock(&j->lock);
	log_info("a scrub has ended", "corrupt=%lld unreadable=%lld err=%s", corrupt, unreadable, log_quote(err ? why.message : "none"));
	return NULL;
}

static int64_t count_snapshots(struct sc *sc)
{
	struct expectations x = { 0 };
	int64_t n = 0;

	pthread_mutex_lock(&sc->lock);
	x.items = calloc(sc->count + 1, sizeof(*x.items));
	if (!x.items)
		abort();
	sc_each(sc, expect, &x);
	pthread_mutex_unlock(&sc->lock);
	for (size_t i = 0; i < x.count; i++)
		n += x.items[i].snapshot;
	free(x.items);
	return n;
}

static void reset(struct scrub_job *j, const struct storage_start_scrub_request *in, int64_t total)
{
	free(j->ids);
	j->id_count = in->snapshot_ids.count;
	j->ids = calloc(j->id_count + 1, sizeof(*j->ids));
	if (!j->findings)
		j->findings = calloc(FINDINGS_MAX, sizeof(*j->findings));
	if (!j->ids || !j->findings)
		abort();
	for (size_t i = 0; i < j->id_count; i++)
		snprintf(j->ids[i], ID_LEN, "%s", in->snapshot_ids.items[i]);
	j->state = "running";
	j->reason[0] = '\0';
	j->start_ms = clock_unix_ms();
	j->end_ms = 0;
	j->before = j->now = (struct snap_scrubbed){ 0 };
	j->snapshots_total = j->id_count ? (int64_t)j->id_count : total;
	j->volumes = j->corrupt = j->unreadable = 0;
	j->finding_count = 0;
}

int scrub_job_start(struct scrub_job *j, const struct storage_start_scrub_request *in, struct error *e)
{
	int64_t total = count_snapshots(j->sc);

	for (size_t i = 0; i < in->snapshot_ids.count; i++) {
		if (!id_valid("snap", in->snapshot_ids.items[i]))
			return error_set(e, "InvalidParameterValue", "\"%.40s\" is no snapshot's id", in->snapshot_ids.items[i]);
	}
	pthread_mutex_lock(&j->lock);
	bool running = str_eq(j->state, "running");
	bool was = j->thread_made;
	if (!running)
		reset(j, in, total);
	pthread_mutex_unlock(&j->lock);
	if (running)
		return error_set(e, "ScrubRunning", "A scrub is running already");
	if (was)
		pthread_join(j->thread, NULL);
	int r = pthread_create(&j->thread, NULL, run, j);
	j->thread_made = r == 0;
	if (r) {
		pthread_mutex_lock(&j->lock);
		j->state = "failed";
		pthread_mutex_unlock(&j->lock);
		return error_errno(e, r, "cannot start a scrub");
	}
	return 0;
}

void scrub_job_describe(struct scrub_job *j, struct arena *a, struct storage_describe_scrub_response *out)
{
	pthread_mutex_lock(&j->lock);
	*out = (struct storage_describe_scrub_response){
		.state = j->state,
		.reason = j->reason[0] ? arena_strdup(a, j->reason) : NULL,
		.snapshots = WIRE_INT_OF((int64_t)(j->before.snapshots + j->now.snapshots)),
		.snapshots_total = WIRE_INT_OF(j->snapshots_total),
		.volumes = WIRE_INT_OF(j->volumes),
		.chunks = WIRE_INT_OF((int64_t)(j->before.chunks + j->now.chunks)),
		.bytes = WIRE_INT_OF((int64_t)(j->before.bytes + j->now.bytes)),
		.corrupt = WIRE_INT_OF(j->corrupt),
		.unreadable = WIRE_INT_OF(j->unreadable),
		.findings = { .set = true, .items = arena_new_array(a, struct storage_scrub_finding, j->finding_count + 1) },
	};
	if (j->start_ms)
		out->start_time = WIRE_TIME_OF(j->start_ms);
	if (j->end_ms)
		out->end_time = WIRE_TIME_OF(j->end_ms);
	for (size_t i = 0; i < j->finding_count; i++) {
		out->findings.items[out->findings.count++] = (struct storage_scrub_finding){
			.resource_id = arena_strdup(a, j->findings[i].id),
			.corrupt = WIRE_BOOL_OF(j->findings[i].corrupt),
			.message = arena_strdup(a, j->findings[i].message),
		};
	}
	pthread_mutex_unlock(&j->lock);
}

int64_t scrub_job_findings(struct scrub_job *j)
{
	pthread_mutex_lock(&j->lock);
	int64_t n = j->corrupt;
	pthread_mutex_unlock(&j->lock);
	return n;
}
