/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/sc/sc.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "os/file.h"
#include "svc/sc/sc_priv.h"

static const struct metric_desc metric_descs[SC_METRIC_COUNT] = {
	[SC_M_VOLUMES] = { "mallee_sc_volumes", "Volumes that are not deleted", METRIC_GAUGE },
	[SC_M_OPEN] = { "mallee_sc_volumes_open", "Volumes that a node has open", METRIC_GAUGE },
	[SC_M_FILLING] = { "mallee_sc_volumes_filling", "Volumes that still read from their snapshot", METRIC_GAUGE },
	[SC_M_SNAPSHOTS] = { "mallee_sc_snapshots", "Snapshots that are complete", METRIC_GAUGE },
	[SC_M_PENDING] = { "mallee_sc_snapshots_pending", "Snapshots on their way", METRIC_GAUGE },
	[SC_M_POOL_TOTAL] = { "mallee_sc_pool_bytes", "What volumes may take together", METRIC_GAUGE },
	[SC_M_POOL_USED] = { "mallee_sc_pool_promised_bytes", "What volumes were promised", METRIC_GAUGE },
	[SC_M_CREATED] = { "mallee_sc_volumes_created_total", "Volumes made", METRIC_COUNTER },
	[SC_M_STORED] = { "mallee_sc_snapshots_stored_total", "Snapshots made", METRIC_COUNTER },
	[SC_M_STORED_BYTES] = { "mallee_sc_snapshots_stored_bytes_total", "Bytes that snapshots added to Walrus", METRIC_COUNTER },
	[SC_M_FAILURES] = { "mallee_sc_failures_total", "Volumes and snapshots that ended in error", METRIC_COUNTER },
	[SC_M_RETRIES] = { "mallee_sc_retries_total", "Steps that failed and are tried again", METRIC_COUNTER },
	[SC_M_CORRUPT] = { "mallee_sc_scrub_findings", "What the last scrub found corrupt", METRIC_GAUGE },
};

static void init_locks(struct sc *sc)
{
	pthread_cond_t *const conds[] = { &sc->shown, &sc->freed, &sc->stop, &sc->light.filled, &sc->heavy.filled };
	pthread_condattr_t attr;

	pthread_mutex_init(&sc->lock, NULL);
	pthread_mutex_init(&sc->pool_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	for (size_t i = 0; i < ARRAY_SIZE(conds); i++)
		pthread_cond_init(conds[i], &attr);
	pthread_condattr_destroy(&attr);
	sc->light.last = &sc->light.first;
	sc->heavy.last = &sc->heavy.first;
}

static int copy_settings(struct sc *sc, const struct settings *s, struct error *e)
{
	int r = settings_load(&sc->settings, e);

	for (int i = SETTING_CLOUD_ID; r == 0 && i < SETTING_COUNT; i++) {
		const char *value = settings_get(s, (enum setting)i);
		if (*value)
			r = settings_set(sc->settings, (enum setting)i, value, e);
	}
	if (r < 0)
		return r;
	sc->dir = settings_path(sc->settings, "sc");
	sc->fake = str_eq(settings_get(sc->settings, SETTING_HYPERVISOR), "fake");
	return 0;
}

/* Others pass through to the files and sockets that are theirs; only peers is ours alone. */
static int make_folders(struct sc *sc, struct error *e)
{
	static const struct {
		const char *name;
		mode_t mode;
	} folders[] = { { "", 0711 }, { "/volumes", 0711 }, { "/exports", 0711 }, { "/served", 0700 }, { "/peers", 0700 }, { "/log", 0700 } };

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		char path[4096];
		snprintf(path, sizeof(path), "%s%s", sc->dir, folders[i].name);
		int r = dir_make(path, folders[i].mode);
		if (r == 0 && chmod(path, folders[i].mode))
			r = -errno;
		if (r < 0)
			return error_errno(e, r, "cannot make %s", path);
	}
	return 0;
}

static int open_keys(struct sc *sc, struct error *e)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/keys", sc->dir);
	return keys_open(path, &sc->keys, e);
}

/* Whether files there can be read and written past the page cache. */
static int try_direct(struct sc *sc, struct error *e)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/volumes/.direct", sc->dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_DIRECT, 0600);
	sc->direct = fd >= 0;
	fd_closep(&fd);
	unlink(path);
	if (sc->direct)
		log_info("volumes", "io=direct");
	else
		log_warn("the state folder's file system takes no O_DIRECT: volumes go through the page cache", "io=cached");
	return 0;
}

static int open_pool(struct sc *sc, struct error *e)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/volumes", sc->dir);
	return pool_new(settings_get(sc->settings, SETTING_EBS_POOL), path, !sc->fake, &sc->pool, e);
}

static int open_state(struct sc *sc, struct error *e)
{
	_cleanup_(freep) char *path = NULL, *certs = settings_path(sc->settings, "certs");

	if (asprintf(&path, "%s/sc.db", sc->dir) < 0)
		abort();
	int r = state_open(path, &sc->state, e);
	if (r == 0)
		r = sc_load(sc, e);
	if (r == 0)
		r = tls_context_load(certs, TLS_ROLE_SC, &sc->tls, e);
	return r;
}

static void noted(void *ctx, const char *id, const char *what, const struct error *why)
{
	log_warn("a process", "id=%s what=%s err=%s", id, log_quote(what), log_quote(why ? why->message : "none"));
	sc_kick_id(ctx, id);
}

/* One program and one folder of processes. */
static int open_keeper(struct sc *sc, const char *program, const char *folder, struct keeper **ret, struct error *e)
{
	_cleanup_(freep) char *path = settings_path(sc->settings, "bin/%s", program);
	char run[4096], log[4096];

	snprintf(run, sizeof(run), "%s/%s", sc->dir, folder);
	snprintf(log, sizeof(log), "%s/log", sc->dir);
	return keeper_new(&(struct keeper_settings){ .program = path, .run_dir = run, .log_dir = log, .noted = noted, .ctx = sc }, ret, e);
}

static int open_keepers(struct sc *sc, struct error *e)
{
	int r = open_keeper(sc, "mallee-blockd", "served", &sc->volumes, e);

	return r ? r : open_keeper(sc, "mallee-snapshotd", "exports", &sc->exports, e);
}

int sc_begin(struct sc *sc, const struct settings *s, struct error *e)
{
	static int (*const steps[])(struct sc *sc, struct error *e) = {
		make_folders, open_keys, try_direct, open_pool, open_state, open_keepers, sc_work_start, sc_rpc_start,
	};
	int r = copy_settings(sc, s, e);

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(steps); i++)
		r = steps[i](sc, e);
	if (r < 0)
		return r;
	pthread_mutex_lock(&sc->lock);
	sc_kick_all(sc);
	pthread_mutex_unlock(&sc->lock);
	log_info("storage ready", "pool=%s items=%zu", settings_get(sc->settings, SETTING_EBS_POOL), sc->count);
	return 0;
}

int sc_start(const struct settings *s, struct sc **ret, struct error *e)
{
	struct sc *sc = sc_new();
	int r = sc_begin(sc, s, e);

	if (r < 0) {
		sc_stop(sc);
		return r;
	}
	*ret = sc;
	return 0;
}

struct sc *sc_new(void)
{
	struct sc *sc = calloc(1, sizeof(*sc));

	if (!sc)
		abort();
	sc->magic = SC_MAGIC;
	sc->metrics = metrics_new(metric_descs, SC_METRIC_COUNT);
	init_locks(sc);
	random_token(sc->epoch, sizeof(sc->epoch) - 1);
	sc->scrub = scrub_job_new(sc);
	return sc;
}

void sc_stop(struct sc *sc)
{
	if (!sc)
		return;
	assert(sc->magic == SC_MAGIC);
	sc_work_stop(sc); /* wakes long polls too */
	if (sc->rpc)
		rpc_server_stop(sc->rpc);
	if (sc->ops_server)
		http_server_stop(sc->ops_server, 1000);
	scrub_job_free(sc->scrub);
	keeper_free(sc->volumes);
	keeper_free(sc->exports);
	sc_table_free(sc);
	snap_store_close(sc->store);
	objects_free(sc->objects);
	keys_close(sc->keys);
	if (sc->state)
		state_close(sc->state);
	tls_context_free(sc->tls);
	pool_free(sc->pool);
	metrics_free(sc->metrics);
	settings_free(sc->settings);
	free(sc->dir);
	pthread_cond_destroy(&sc->shown);
	pthread_cond_destroy(&sc->freed);
	pthread_cond_destroy(&sc->stop);
	pthread_cond_destroy(&sc->light.filled);
	pthread_cond_destroy(&sc->heavy.filled);
	pthread_mutex_destroy(&sc->pool_lock);
	pthread_mutex_destroy(&sc->lock);
	sc->magic = 0;
	free(sc);
}
