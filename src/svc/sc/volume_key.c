/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys on their way. A volume's key is made with the volume, and kept in its record, wrapped by a master key. It is told to who may
 * open the volume, and to our own process that serves it, by a file on a tmpfs. A snapshot's process gets its lineage's key in the same
 * way. What is deleted takes its wrapped key along: what a disk of the pool still holds of it cannot be read then.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "os/locked.h"
#include "svc/sc/sc_priv.h"
#include "volume/keyfile.h"

#define WHOSE "sc"

static const char *cloud_id(const struct sc *sc)
{
	return settings_get(sc->settings, SETTING_CLOUD_ID);
}

static void purpose_of(const char *id, char out[static ID_LEN + 16])
{
	snprintf(out, ID_LEN + 16, "volume %s", id);
}

int sc_key_make(struct sc *sc, const char *id, struct sc_volume_record *rec, struct error *e)
{
	_cleanup_(locked_freep) void *key = locked_new(KEY_VOLUME_BYTES);
	unsigned char wrapped[KEY_WRAPPED_MAX];
	char purpose[ID_LEN + 16];

	if (!key || !sc->keys)
		return error_set(e, "InternalError", "there is no master key to encrypt volume %s", id);
	random_bytes(key, KEY_VOLUME_BYTES);
	purpose_of(id, purpose);
	int r = keys_wrap(sc->keys, purpose, key, KEY_VOLUME_BYTES, rec->key_id, wrapped, e);
	if (r == 0)
		hex_encode(wrapped, sizeof(wrapped), rec->wrapped_key);
	return r;
}

int sc_key_reveal(struct sc *sc, const char *id, const struct sc_volume_record *rec, unsigned char key[static KEY_VOLUME_BYTES],
		  struct error *e)
{
	unsigned char wrapped[KEY_WRAPPED_MAX];
	char purpose[ID_LEN + 16];

	if (!sc->keys || strlen(rec->wrapped_key) != 2 * sizeof(wrapped) || hex_decode(rec->wrapped_key, 2 * sizeof(wrapped), wrapped))
		return error_set(e, "InternalError", "volume %s is encrypted, and its key is not to be had", id);
	purpose_of(id, purpose);
	return keys_unwrap(sc->keys, rec->key_id, purpose, wrapped, sizeof(wrapped), key, KEY_VOLUME_BYTES, e);
}

int sc_key_file(struct sc *sc, const char *id, const struct sc_volume_record *rec, char *path, size_t size, struct error *e)
{
	_cleanup_(locked_freep) void *key = locked_new(KEY_VOLUME_BYTES);
	int r = key ? sc_key_reveal(sc, id, rec, key, e) : error_errno(e, ENOMEM, "the key of %s", id);

	return r ? r : keyfile_put(cloud_id(sc), WHOSE, id, key, KEY_VOLUME_BYTES, geteuid(), getegid(), path, size, e);
}

void sc_key_drop(struct sc *sc, const char *id)
{
	keyfile_drop(cloud_id(sc), WHOSE, id);
}

/* ---- of snapshots ---- */

/* 1: it is encrypted. */
static int is_encrypted(struct sc *sc, const char *snapshot, struct error *e)
{
	struct snap_store *store;
	struct snap_info info;
	int known = -1;

	pthread_mutex_lock(&sc->lock);
	const struct sc_snapshot *s = sc_find_snapshot(sc, snapshot);
	if (s)
		known = sc_snapshot_spec(s)->encrypted.value;
	pthread_mutex_unlock(&sc->lock);
	if (known >= 0 || sc->export_back)
		return known > 0;
	store = sc_store(sc, e);
	if (!store)
		return -EREMOTEIO;
	int r = snap_info(store, snapshot, &info, e);
	sc_walrus_result(sc, r, e);
	return r ? r : info.encrypted;
}

int sc_export_key(struct sc *sc, const char *snapshot, char *path, size_t size, struct error *e)
{
	_cleanup_(locked_freep) void *key = NULL;
	struct snap_store *store;
	int r = is_encrypted(sc, snapshot, e);

	*path = '\0';
	if (r <= 0)
		return r;
	store = sc_store(sc, e);
	key = locked_new(SNAP_DATA_KEY_BYTES);
	if (!store || !key)
		return -EREMOTEIO;
	r = snap_data_key(store, snapshot, key, e);
	return r ? r : keyfile_put(cloud_id(sc), WHOSE, snapshot, key, SNAP_DATA_KEY_BYTES, geteuid(), getegid(), path, size, e);
}

bool sc_export_lacks_key(struct sc *sc, const char *snapshot)
{
	pthread_mutex_lock(&sc->lock);
	const struct sc_snapshot *s = sc_find_snapshot(sc, snapshot);
	bool encrypted = s && sc_snapshot_spec(s)->encrypted.value;
	pthread_mutex_unlock(&sc->lock);
	return encrypted && !sc->export_back && !keyfile_is_there(cloud_id(sc), WHOSE, snapshot);
}
