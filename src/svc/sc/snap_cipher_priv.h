/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_SNAP_CIPHER_PRIV_H
#define MALLEE_SVC_SC_SNAP_CIPHER_PRIV_H

#include <stddef.h>
#include <stdint.h>

#include "svc/sc/keys.h"
#include "svc/sc/packset.h"

/*
 * Encrypted snapshots (cipher 1): theory of operation.
 *
 * A lineage (a first snapshot and its descendants, which share packs) has a data key of 32 random bytes. It stands in each root of the
 * lineage, wrapped by the storage's newest master key of then (keys.h), which authenticates for which lineage it is. What is stored:
 *
 *   blobs   chunks (compressed before, where that pays), pages, and the index of a pack: AES-256-GCM, their tag of 16 bytes behind them
 *   root    in clear, for gc and listings need it without a key: ids, sizes, which chunks are zero, in which packs the others lie.
 *           Authenticated by HMAC-SHA256
 *   mark    of a first snapshot's upload: the wrapped key, so that a successor can use what was sent
 *
 * Keys are derived from the data key by HKDF: one for digests, one for roots, and one for blobs for each attempt at an upload.
 *
 * Nonces. A blob's nonce is the place where it lies: pack number and offset. A writer fills each place of its packs once, and what it
 * sends again it sends as it is; its attempt has a random id of 64 bits, so that two attempts at the same snapshot (there are a handful,
 * of one that dies again and again) have the same key with a chance of 2^-64 each. So no nonce is used twice with one key, and none has
 * to be stored. A blob that was put in another place, or another's, does not open; neither does one of another kind or number: these
 * are authenticated with it. Limits of GCM: a blob is at most 4 MiB (of 64 GiB), and one key sees what one attempt sends, at most 64 TiB,
 * 2^42 blocks and 2^28 blobs, where what an observer gains stays below 2^-40.
 *
 * Digests. What a plain snapshot knows by its SHA-256 is known here by an HMAC with the lineage's key, and stands in pages and
 * indexes only, which are encrypted. So who reads the bucket cannot tell whether two chunks are equal, in one snapshot, in two, or in
 * two tenants', nor whether a chunk is one that he has. He sees how long stored chunks are (how well they compress), and which are zero.
 * A page is known in its root by the SHA-256 of its encrypted form.
 */
#define SNAP_KEY_BYTES 32u
#define SNAP_TAG 16u
#define SNAP_WRAPPED (SNAP_KEY_BYTES + KEY_WRAP_EXTRA)

struct snap_cipher; /* a lineage's. Does not change: any thread */

/* The key stays the caller's, who wipes it. */
struct snap_cipher *snap_cipher_new(const unsigned char key[static SNAP_KEY_BYTES]);
void snap_cipher_free(struct snap_cipher *c); /* NULL is fine */
/* For whom the key is handed on to, or wrapped again. */
void snap_cipher_key(const struct snap_cipher *c, unsigned char out[static SNAP_KEY_BYTES]);

struct snap_place { /* of a blob: what it is, and where it lies */
	const struct upload_id *upload;
	uint32_t pack, off;
	uint32_t kind, codec;
	uint64_t number;
};
/* out has room for len + SNAP_TAG. */
void snap_seal(const struct snap_cipher *c, const struct snap_place *at, const void *plain, size_t len, void *out);
/* stored_len - SNAP_TAG bytes into out. -EBADMSG: not what was stored there. */
int snap_unseal(const struct snap_cipher *c, const struct snap_place *at, const void *stored, size_t stored_len, void *out);

/* Of a plain chunk; c NULL: its SHA-256. */
void snap_digest(const struct snap_cipher *c, const void *data, size_t len, unsigned char out[static 32]);
/* Of a root, out of the SHA-256 of what it says. */
void snap_root_mac(const struct snap_cipher *c, const unsigned char sha[static 32], unsigned char out[static 32]);

#endif
