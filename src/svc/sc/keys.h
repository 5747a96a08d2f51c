/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_KEYS_H
#define MALLEE_SVC_SC_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * The storage's master keys: files master-1, master-2, … of 32 bytes in a folder of their own. The newest wraps; the others unwrap
 * what they wrapped. They wrap data keys (a volume's, a lineage of snapshots'), which are stored in wrapped form only. Who loses the
 * folder loses what is encrypted: it belongs into the backup, and not beside the data.
 *
 * Wrapping is AES-256-GCM with a nonce by chance: 2^32 keys can be wrapped by one master key before two of the same come into question.
 * What a key is for (`purpose`: "volume vol-…") and the master key's id are authenticated with it, so that a wrapped key that was put
 * in another's place does not unwrap.
 *
 * Any thread. Keys are in locked memory (os/locked.h).
 */
struct keys;

#define KEY_ID_LEN 24           /* "master-N" and NUL */
#define KEY_MASTER_BYTES 32u
#define KEY_VOLUME_BYTES 64u    /* what `crypt` takes */
#define KEY_DATA_MAX 64u
#define KEY_WRAP_EXTRA 28u      /* what a wrapped key is longer by */
#define KEY_WRAPPED_MAX (KEY_DATA_MAX + KEY_WRAP_EXTRA)

/* Makes the folder (0700) and master-1 when there are none. A file that others may read, or of another length, is refused. */
int keys_open(const char *dir, struct keys **ret, struct error *e);
void keys_close(struct keys *k); /* NULL is fine */
/* Another master key, which wraps from now on. */
int keys_rotate(struct keys *k, struct error *e);
void keys_newest(struct keys *k, char ret_id[KEY_ID_LEN]);
unsigned keys_count(struct keys *k);

/* len bytes, at most KEY_DATA_MAX; wrapped has room for len + KEY_WRAP_EXTRA. By the newest, whose id is returned. */
int keys_wrap(struct keys *k, const char *purpose, const void *key, size_t len, char ret_id[KEY_ID_LEN], void *wrapped, struct error *e);
/* -ENOKEY: there is no such master key here; -EKEYREJECTED: that one did not wrap this, or not for this purpose. */
int keys_unwrap(struct keys *k, const char *id, const char *purpose, const void *wrapped, size_t wrapped_len, void *key, size_t len,
		struct error *e);

#endif
