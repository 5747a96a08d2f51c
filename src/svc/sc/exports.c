/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A volume that began as a snapshot reads from it until it is filled: over NBD, from a mallee-snapshotd, one for each snapshot that is
 * a source. It is started before the first volume reads from it and ended when the last one is filled or gone (sc_exports_tidy);
 * while it is being ended, its name is in exports_ending, and whoever needs it waits.
 *
 * Who may read is who serves a volume that began as this snapshot: exports/SNAPSHOT.peers has a link to a file of each such
 * volume, and the server admits the owners of these files.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "os/file.h"
#include "svc/sc/sc_priv.h"

#define START_MS 5000 /* it goes on trying behind that; a worker waits no longer, least of all when we are to stop */
#define STOP_MS 20000

void sc_export_socket(const struct sc *sc, const char *snapshot, char *out, size_t size)
{
	snprintf(out, size, "%s/exports/%s/nbd.sock", sc->dir, snapshot);
}

static void peers_path(const struct sc *sc, const char *snapshot, const char *volume, char *out, size_t size)
{
	snprintf(out, size, "%s/peers/%s%s%s", sc->dir, snapshot, *volume ? "/" : "", volume);
}

/* Lock */
static bool is_ending(const struct sc *sc, const char *snapshot)
{
	for (size_t i = 0; i < ARRAY_SIZE(sc->exports_ending); i++) {
		if (str_eq(sc->exports_ending[i], snapshot))
			return true;
	}
	return false;
}

static char *doubled(const char *value)
{
	struct buf out = BUF_INIT;

	for (const char *c = value; *c; c++) {
		buf_putc(&out, *c);
		if (*c == ',')
			buf_putc(&out, ',');
	}
	return buf_steal(&out);
}

static char *back_spec(struct sc *sc, const char *snapshot, const char *key_path)
{
	_cleanup_(freep) char *dir = doubled(sc->dir), *key = doubled(key_path);
	char *spec;

	if (sc->export_back)
		return sc->export_back(sc, snapshot);
	if (asprintf(&spec, "snapshot:id=%s,config=%s/walrus.conf%s%s", snapshot, dir, *key_path ? ",key-file=" : "", *key_path ? key : "") < 0)
		abort();
	return spec;
}

static int start(struct sc *sc, const char *snapshot, struct error *e)
{
	_cleanup_(freep) char *back = NULL, *dir = doubled(sc->dir), *front = NULL;
	char key[4096];
	int r = sc_export_key(sc, snapshot, key, sizeof(key), e);

	if (r < 0)
		return r;
	back = back_spec(sc, snapshot, key);

	if (asprintf(&front, "nbd:socket=%s/exports/%s/nbd.sock,mode=0666,peer-owners=%s/peers/%s,read-only=on,connections=256", dir,
		     snapshot, dir, snapshot) < 0)
		abort();
	const char *const args[] = { "--back", back, "--front", front, NULL };
	return sc_keep(sc->exports, &(struct keeper_volume){ .id = snapshot, .uid = geteuid(), .gid = getegid(), .args = args }, START_MS, e);
}

int sc_export_start(struct sc *sc, const char *volume, const char *snapshot, struct error *e)
{
	char peers[4096], file[4096];
	int r = 0;

	pthread_mutex_lock(&sc->lock);
	struct sc_volume *v = sc_find_volume(sc, volume);
	if (is_ending(sc, snapshot))
		r = error_set(e, "ServiceUnavailable", "the process that serves snapshot %s is just ending", snapshot);
	else if (v)
		v->wants_export = true;
	pthread_mutex_unlock(&sc->lock);
	if (r)
		return r;
	peers_path(sc, snapshot, "", peers, sizeof(peers));
	r = dir_make(peers, 0700);
	if (r)
		return error_errno(e, r, "making %s", peers);
	peers_path(sc, snapshot, volume, peers, sizeof(peers));
	sc_volume_path(sc, volume, "cow.map", file, sizeof(file));
	if (symlink(file, peers) && errno != EEXIST)
		return error_errno(e, errno, "making %s", peers);
	return start(sc, snapshot, e);
}

void sc_export_leave(struct sc *sc, const char *volume, const char *snapshot)
{
	char peer[4096];

	peers_path(sc, snapshot, volume, peer, sizeof(peer));
	unlink(peer);
	pthread_mutex_lock(&sc->lock);
	struct sc_volume *v = sc_find_volume(sc, volume);
	if (v)
		v->wants_export = false;
	pthread_mutex_unlock(&sc->lock);
}

/* ---- ending ---- */

struct search {
	const char *snapshot;
	bool found;
};

static void reads_it(struct sc *sc, struct sc_item *item, void *ctx)
{
	struct search *x = ctx;

	if (item->kind == SC_VOLUME && sc_volume_of(item)->wants_export && str_eq(sc_volume_spec(sc_volume_of(item))->snapshot_id, x->snapshot))
		x->found = true;
}

bool sc_export_needed(struct sc *sc, const char *snapshot)
{
	struct search x = { .snapshot = snapshot };

	sc_each(sc, reads_it, &x);
	return x.found;
}

bool sc_exported(struct sc *sc, const char *snapshot)
{
	return sc_keeps(sc->exports, snapshot);
}

static void end(struct sc *sc, const char *snapshot, char slot[ID_LEN])
{
	struct error why = { 0 };
	char peers[4096];
	int r;

	peers_path(sc, snapshot, "", peers, sizeof(peers));
	r = keeper_stop(sc->exports, snapshot, STOP_MS, &why);
	if (r == 0 || r == -ETIMEDOUT) {
		dir_remove(peers);
		sc_key_drop(sc, snapshot);
	}
	if (r)
		log_warn("a snapshot's process does not end well", "id=%s err=%s", snapshot, log_quote(why.message));
	else
		log_info("a snapshot is read by no volume any more", "id=%s", snapshot);
	pthread_mutex_lock(&sc->lock);
	*slot = '\0';
	struct sc_item *item = sc_find(sc, snapshot);
	if (item) /* it may be waiting to be deleted */
		sc_kick(sc, item);
	pthread_mutex_unlock(&sc->lock);
}

void sc_exports_tidy(struct sc *sc)
{
	size_t max = keeper_list(sc->exports, NULL, 0) + 16;
	struct keeper_status *list = calloc(max, sizeof(*list));

	if (!list)
		abort();
	size_t n = MIN_OF(keeper_list(sc->exports, list, max), max);
	for (size_t i = 0; i < n && !sc->stopping; i++) {
		char *slot = NULL;
		pthread_mutex_lock(&sc->lock);
		if (!sc_export_needed(sc, list[i].id)) {
			for (size_t k = 0; k < ARRAY_SIZE(sc->exports_ending) && !slot; k++) {
				if (!sc->exports_ending[k][0])
					slot = sc->exports_ending[k];
			}
			if (slot)
				snprintf(slot, ID_LEN, "%s", list[i].id);
		}
		pthread_mutex_unlock(&sc->lock);
		if (slot)
			end(sc, list[i].id, slot);
	}
	free(list);
}
