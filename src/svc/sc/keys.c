/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wrapped key is nonce, ciphertext, tag. A new master key is written beside its place and linked there, so that of two processes that
 * make the same one only one succeeds, and the other takes that. `lock` guards the list; keys in it stay until the end.
 */
#include "svc/sc/keys.h"

#include <dirent.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/id.h"
#include "base/text.h"
#include "os/file.h"
#include "os/locked.h"

#define NAME "master-"
#define NONCE_BYTES 12u
#define TAG_BYTES 16u
#define MASTERS_MAX 1000u
#define PURPOSE_MAX 96u

struct master {
	unsigned number;
	unsigned char *key;
};

struct keys {
	char *dir;
	pthread_mutex_t lock;
	struct master *masters; /* by number */
	unsigned count;
};

static void key_path(const struct keys *k, unsigned number, char *out, size_t size)
{
	snprintf(out, size, "%s/" NAME "%u", k->dir, number);
}

static void key_id(unsigned number, char out[KEY_ID_LEN])
{
	snprintf(out, KEY_ID_LEN, NAME "%u", number);
}

/* 0: none of ours. */
static unsigned number_of(const char *name)
{
	uint64_t number;
	char again[KEY_ID_LEN];

	if (!str_prefix(name, NAME) || parse_u64(name + strlen(NAME), 1, MASTERS_MAX, &number))
		return 0;
	key_id((unsigned)number, again);
	return str_eq(again, name) ? (unsigned)number : 0;
}

static int by_number(const void *a, const void *b)
{
	const struct master *x = a, *y = b;

	return (x->number > y->number) - (x->number < y->number);
}

/* ---- files ---- */

static int load(struct keys *k, unsigned number, struct error *e)
{
	_cleanup_(locked_freep) void *key = locked_new(KEY_MASTER_BYTES);
	char path[512];

	key_path(k, number, path, sizeof(path));
	int err = key ? locked_read(path, key, KEY_MASTER_BYTES, e) : error_errno(e, ENOMEM, "reading %s", path);
	if (err)
		return err;
	struct master *masters = realloc(k->masters, (k->count + 1) * sizeof(*masters));
	if (!masters)
		return error_errno(e, ENOMEM, "reading %s", path);
	k->masters = masters;
	masters[k->count++] = (struct master){ number, TAKE_PTR(key) };
	qsort(masters, k->count, sizeof(*masters), by_number);
	return 0;
}

static int write_new(const char *path, const void *key, struct error *e)
{
	_cleanup_(fd_closep) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int err = fd < 0 ? -errno : fd_write_all(fd, key, KEY_MASTER_BYTES);

	if (!err && fsync(fd))
		err = -errno;
	return err ? error_errno(e, err, "writing the master key %s", path) : 0;
}

/* One that is there already is taken as it is. */
static int make(struct keys *k, unsigned number, struct error *e)
{
	_cleanup_(locked_freep) void *key = locked_new(KEY_MASTER_BYTES);
	char path[512], part[600], token[9];

	if (!key)
		return error_errno(e, ENOMEM, "making a master key");
	random_bytes(key, KEY_MASTER_BYTES);
	random_token(token, 8);
	key_path(k, number, path, sizeof(path));
	snprintf(part, sizeof(part), "%s.part-%s", path, token);
	int err = write_new(part, key, e);
	if (!err && link(part, path) && errno != EEXIST)
		err = error_errno(e, errno, "making the master key %s", path);
	unlink(part);
	if (!err && dir_sync(k->dir))
		err = error_errno(e, EIO, "making the master key %s durable", path);
	return err ? err : load(k, number, e);
}

static int load_all(struct keys *k, struct error *e)
{
	DIR *d = opendir(k->dir);
	int err = d ? 0 : error_errno(e, errno, "reading the keys in %s", k->dir);

	for (struct dirent *de; !err && (de = readdir(d));) {
		unsigned number = number_of(de->d_name);
		if (number)
			err = load(k, number, e);
	}
	if (d)
		closedir(d);
	return err;
}

int keys_open(const char *dir, struct keys **ret, struct error *e)
{
	struct keys *k = calloc(1, sizeof(*k));

	if (!k || !(k->dir = strdup(dir))) {
		free(k);
		return error_errno(e, ENOMEM, "reading the keys in %s", dir);
	}
	pthread_mutex_init(&k->lock, NULL);
	int err = dir_make(dir, 0700);
	if (err)
		error_errno(e, err, "making %s", dir);
	if (!err)
		err = load_all(k, e);
	if (!err && !k->count)
		err = make(k, 1, e);
	if (err) {
		keys_close(k);
		return err;
	}
	*ret = k;
	return 0;
}

void keys_close(struct keys *k)
{
	if (!k)
		return;
	for (unsigned i = 0; i < k->count; i++)
		locked_free(k->masters[i].key);
	free(k->masters);
	pthread_mutex_destroy(&k->lock);
	free(k->dir);
	free(k);
}

int keys_rotate(struct keys *k, struct error *e)
{
	pthread_mutex_lock(&k->lock);
	unsigned next = k->masters[k->count - 1].number + 1;
	int err = next > MASTERS_MAX ? error_set(e, "InternalError", "there are %u master keys: no more are made", MASTERS_MAX) : make(k, next, e);
	pthread_mutex_unlock(&k->lock);
	return err;
}

void keys_newest(struct keys *k, char ret_id[KEY_ID_LEN])
{
	pthread_mutex_lock(&k->lock);
	key_id(k->masters[k->count - 1].number, ret_id);
	pthread_mutex_unlock(&k->lock);
}

unsigned keys_count(struct keys *k)
{
	pthread_mutex_lock(&k->lock);
	unsigned count = k->count;
	pthread_mutex_unlock(&k->lock);
	return count;
}

/* number 0: the newest. NULL: there is none. */
static const unsigned char *find(struct keys *k, unsigned number, unsigned *ret_number)
{
	const unsigned char *key = NULL;

	pthread_mutex_lock(&k->lock);
	for (unsigned i = k->count; i-- && !key;) {
		if (number && k->masters[i].number != number)
			continue;
		key = k->masters[i].key;
		*ret_number = k->masters[i].number;
	}
	pthread_mutex_unlock(&k->lock);
	return key;
}

/* ---- wrapping ---- */

static int open_cipher(const unsigned char *master, gnutls_aead_cipher_hd_t *ret)
{
	gnutls_datum_t key = { (unsigned char *)master, KEY_MASTER_BYTES };

	return gnutls_aead_cipher_init(ret, GNUTLS_CIPHER_AES_256_GCM, &key) < 0 ? -ENOMEM : 0;
}

static int about(const char *id, const char *purpose, char *out, size_t size)
{
	return snprintf(out, size, "mallee key 1|%s|%s", id, purpose);
}

int keys_wrap(struct keys *k, const char *purpose, const void *key, size_t len, char ret_id[KEY_ID_LEN], void *wrapped, struct error *e)
{
	unsigned number = 0;
	const unsigned char *master = find(k, 0, &number);
	unsigned char *nonce = wrapped, *sealed = nonce + NONCE_BYTES;
	char text[KEY_ID_LEN + PURPOSE_MAX + 16];
	size_t sealed_len = len + TAG_BYTES;
	gnutls_aead_cipher_hd_t h;

	if (!len || len > KEY_DATA_MAX || strlen(purpose) >= PURPOSE_MAX)
		return error_errno(e, EINVAL, "wrapping the key of %s", purpose);
	key_id(number, ret_id);
	int about_len = about(ret_id, purpose, text, sizeof(text));
	random_bytes(nonce, NONCE_BYTES);
	int err = open_cipher(master, &h);
	if (!err) {
		err = gnutls_aead_cipher_encrypt(h, nonce, NONCE_BYTES, text, (size_t)about_len, TAG_BYTES, key, len, sealed, &sealed_len) < 0 ? -EIO : 0;
		gnutls_aead_cipher_deinit(h);
	}
	return err ? error_errno(e, err, "wrapping the key of %s", purpose) : 0;
}

int keys_unwrap(struct keys *k, const char *id, const char *purpose, const void *wrapped, size_t wrapped_len, void *key, size_t len,
		struct error *e)
{
	unsigned number = number_of(id), found = 0;
	const unsigned char *master = number ? find(k, number, &found) : NULL, *nonce = wrapped;
	char text[KEY_ID_LEN + PURPOSE_MAX + 16];
	size_t plain_len = len;
	gnutls_aead_cipher_hd_t h;

	if (!master) {
		error_set(e, "KMSKeyNotFound", "the key of %s is wrapped by %.24s, which is not in %s", purpose, id, k->dir);
		return -ENOKEY;
	}
	int about_len = about(id, purpose, text, sizeof(text));
	if (wrapped_len != len + KEY_WRAP_EXTRA || strlen(purpose) >= PURPOSE_MAX)
		return error_errno(e, EINVAL, "unwrapping the key of %s", purpose);
	int err = open_cipher(master, &h);
	if (err)
		return error_errno(e, err, "unwrapping the key of %s", purpose);
	if (gnutls_aead_cipher_decrypt(h, nonce, NONCE_BYTES, text, (size_t)about_len, TAG_BYTES, nonce + NONCE_BYTES, len + TAG_BYTES, key,
				       &plain_len) < 0 || plain_len != len)
		err = -EKEYREJECTED;
	gnutls_aead_cipher_deinit(h);
	if (!err)
		return 0;
	explicit_bzero(key, len);
	error_set(e, "KMSKeyNotAccessible", "the key of %s does not unwrap with %s of %s: that is not the master key that wrapped it, or the "
		  "wrapped key was altered", purpose, id, k->dir);
	return err;
}
