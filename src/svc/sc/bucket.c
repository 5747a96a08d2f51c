/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walrus. One thread gets the service's own key from the cloud controller, records a bucket's name, makes the bucket, and from then
 * on looks whether Walrus answers. Without it volumes go on; what needs snapshots waits.
 *
 * The key is kept where the processes that serve snapshots read it, DIR/walrus.conf (0600), and in memory; never in a log.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "gen/identity.h"
#include "os/file.h"
#include "svc/sc/sc_priv.h"

#define AGAIN_FIRST_MS 250
#define AGAIN_MOST_MS 5000
#define WATCH_MS 10000
#define CLC_MS 10000

static void note(struct sc *sc, bool lost, const struct error *why)
{
	pthread_mutex_lock(&sc->lock);
	bool changed = sc->walrus_lost != lost;
	sc->walrus_lost = lost;
	error_clear(&sc->walrus_error);
	if (lost && why)
		sc->walrus_error = *why;
	pthread_mutex_unlock(&sc->lock);
	if (changed && lost)
		log_warn("snapshots cannot be made or read for now", "err=%s", log_quote(why ? why->message : ""));
	else if (changed)
		log_info("snapshots can be made and read", NULL);
}

void sc_walrus_result(struct sc *sc, int err, const struct error *why)
{
	if (err == 0)
		note(sc, false, NULL);
	else if (err != -ENOENT && err != -EEXIST && err != -ECANCELED && err != -EBUSY && err != -EBADMSG && err != -EINVAL &&
		 err != -EPROTONOSUPPORT)
		note(sc, true, why);
}

struct snap_store *sc_store(struct sc *sc, struct error *e)
{
	pthread_mutex_lock(&sc->lock);
	struct snap_store *store = sc->store;
	if (!store)
		error_set(e, "ServiceUnavailable", "the object store was not reached yet: %s", sc->walrus_error.message);
	pthread_mutex_unlock(&sc->lock);
	return store;
}

static int write_config(struct sc *sc, const struct objects_s3_config *c, struct error *e)
{
	_cleanup_(freep) char *path = NULL;
	struct buf text = BUF_INIT;

	if (asprintf(&path, "%s/walrus.conf", sc->dir) < 0)
		abort();
	buf_printf(&text, "# written by mallee-sc at each start\nendpoint = %s\nregion = %s\nbucket = %s\naccess-key-id = %s\n"
		   "secret-access-key = %s\n", c->endpoint, c->region, c->bucket, c->access_key_id, secret_reveal(&c->secret_key));
	int r = file_write_atomic(path, text.data, text.len, 0600);
	explicit_bzero(text.data, text.len);
	buf_done(&text);
	return r ? error_errno(e, r, "writing %s", path) : 0;
}

static int get_key(struct sc *sc, struct arena *a, const struct identity_get_service_key_response **ret, struct error *e)
{
	char url[64];
	void *out = NULL;

	snprintf(url, sizeof(url), "https://127.0.0.1:%u", settings_port(sc->settings, PORT_CLC));
	int r = sc_call(sc, TLS_ROLE_CLC, url, NULL, &identity_service, "GetServiceKey", NULL, a, &out, CLC_MS, e);
	if (r == 0)
		*ret = out;
	return r;
}

static int reach(struct sc *sc, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const struct identity_get_service_key_response *key;
	struct objects *objects = NULL;
	char endpoint[64], bucket[64];
	int r = sc_store_bucket(sc, bucket, e);

	if (r == 0)
		r = get_key(sc, a, &key, e);
	if (r)
		return r;
	snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u", settings_port(sc->settings, PORT_S3));
	struct objects_s3_config c = { .endpoint = endpoint, .region = settings_get(sc->settings, SETTING_REGION), .bucket = bucket,
				       .access_key_id = key->access_key_id, .secret_key = secret_new(key->secret_access_key) };
	explicit_bzero((char *)key->secret_access_key, strlen(key->secret_access_key));
	r = write_config(sc, &c, e);
	if (r == 0)
		r = objects_s3_new(&c, NULL, &objects, e);
	secret_done(&c.secret_key);
	if (r)
		return r;
	pthread_mutex_lock(&sc->lock);
	sc->objects = objects;
	if (sc->stopping)
		objects_cancel(objects);
	pthread_mutex_unlock(&sc->lock);
	r = objects_s3_make_bucket(objects, e);
	struct snap_store *store = r ? NULL : snap_store_open(objects);
	if (store)
		snap_store_use_keys(store, sc->keys);
	pthread_mutex_lock(&sc->lock);
	if (r)
		sc->objects = NULL;
	else
		sc->store = store;
	pthread_mutex_unlock(&sc->lock);
	if (r)
		objects_free(objects);
	else
		log_info("the object store was reached", "bucket=%s", bucket);
	return r;
}

static int seen(void *ctx, const struct object_entry *entry)
{
	return 1;
}

static int look(struct sc *sc, struct error *e)
{
	int r = objects_list(sc->objects, "health/", seen, NULL, e);

	return r > 0 ? 0 : r;
}

void *sc_connector(void *ctx)
{
	struct sc *sc = ctx;
	int64_t wait = AGAIN_FIRST_MS;

	while (!sc->stopping && !sc->store) {
		struct error why = { 0 };
		int r = reach(sc, &why);

		if (r == 0) {
			note(sc, false, NULL);
			pthread_mutex_lock(&sc->lock);
			sc_kick_all(sc);
			pthread_mutex_unlock(&sc->lock);
			break;
		}
		if (!sc->stopping)
			note(sc, true, &why);
		sc_sleep(sc, wait);
		wait = MIN_OF(wait * 2, (int64_t)AGAIN_MOST_MS);
	}
	while (sc_sleep(sc, WATCH_MS)) {
		struct error why = { 0 };
		int r = look(sc, &why);

		if (!sc->stopping)
			sc_walrus_result(sc, r, &why);
	}
	return NULL;
}
