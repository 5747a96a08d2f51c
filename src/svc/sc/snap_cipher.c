/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/sc/snap_cipher_priv.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "os/locked.h"

#define NONCE_BYTES 12u
#define KEY_BYTES 32u

struct snap_cipher { /* in locked memory */
	unsigned char key[SNAP_KEY_BYTES], digest_key[KEY_BYTES], root_key[KEY_BYTES];
};

static void put_le(unsigned char *to, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		to[i] = (unsigned char)(v >> 8 * i);
}

/* The data key is random and as long as the hash: it needs no extraction (RFC 5869, 3.3). */
static void derive(const struct snap_cipher *c, const void *info, size_t info_len, unsigned char out[static KEY_BYTES])
{
	gnutls_datum_t key = { (unsigned char *)c->key, sizeof(c->key) }, what = { (unsigned char *)info, (unsigned)info_len };

	if (gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &key, &what, out, KEY_BYTES) < 0)
		abort();
}

struct snap_cipher *snap_cipher_new(const unsigned char key[static SNAP_KEY_BYTES])
{
	static const char digest[] = "mallee snapshot 1 digest", root[] = "mallee snapshot 1 root";
	struct snap_cipher *c = locked_new(sizeof(*c));

	if (!c)
		abort();
	memcpy(c->key, key, sizeof(c->key));
	derive(c, digest, sizeof(digest), c->digest_key);
	derive(c, root, sizeof(root), c->root_key);
	return c;
}

void snap_cipher_free(struct snap_cipher *c)
{
	locked_free(c);
}

void snap_cipher_key(const struct snap_cipher *c, unsigned char out[static SNAP_KEY_BYTES])
{
	memcpy(out, c->key, sizeof(c->key));
}

/* ---- blobs ---- */

struct sealing {
	gnutls_aead_cipher_hd_t cipher;
	unsigned char nonce[NONCE_BYTES], about[16];
};

static void sealing_init(struct sealing *s, const struct snap_cipher *c, const struct snap_place *at)
{
	static const char blobs[24] = "mallee snapshot 1 blobs";
	unsigned char info[sizeof(blobs) + ID_LEN + 8], key[KEY_BYTES];
	gnutls_datum_t k = { key, sizeof(key) };

	memcpy(info, blobs, sizeof(blobs));
	memset(info + sizeof(blobs), 0, ID_LEN);
	memcpy(info + sizeof(blobs), at->upload->snapshot, strnlen(at->upload->snapshot, ID_LEN));
	put_le(info + sizeof(blobs) + ID_LEN, at->upload->attempt, 8);
	derive(c, info, sizeof(info), key);
	put_le(s->nonce, at->pack, 4);
	put_le(s->nonce + 4, at->off, 8);
	put_le(s->about, at->kind, 4);
	put_le(s->about + 4, at->codec, 4);
	put_le(s->about + 8, at->number, 8);
	int err = gnutls_aead_cipher_init(&s->cipher, GNUTLS_CIPHER_AES_256_GCM, &k);
	explicit_bzero(key, sizeof(key));
	if (err < 0)
		abort();
}

static void sealing_done(struct sealing *s)
{
	gnutls_aead_cipher_deinit(s->cipher);
}

void snap_seal(const struct snap_cipher *c, const struct snap_place *at, const void *plain, size_t len, void *out)
{
	size_t out_len = len + SNAP_TAG;
	struct sealing s;

	sealing_init(&s, c, at);
	if (gnutls_aead_cipher_encrypt(s.cipher, s.nonce, sizeof(s.nonce), s.about, sizeof(s.about), SNAP_TAG, plain, len, out, &out_len) < 0 ||
	    out_len != len + SNAP_TAG)
		abort(); /* going on would store what is not encrypted */
	sealing_done(&s);
}

int snap_unseal(const struct snap_cipher *c, const struct snap_place *at, const void *stored, size_t stored_len, void *out)
{
	size_t len = stored_len - SNAP_TAG;
	struct sealing s;

	if (stored_len < SNAP_TAG)
		return -EBADMSG;
	sealing_init(&s, c, at);
	int err = gnutls_aead_cipher_decrypt(s.cipher, s.nonce, sizeof(s.nonce), s.about, sizeof(s.about), SNAP_TAG, stored, stored_len, out, &len);
	sealing_done(&s);
	return err < 0 || len != stored_len - SNAP_TAG ? -EBADMSG : 0;
}

/* ---- digests ---- */

void snap_digest(const struct snap_cipher *c, const void *data, size_t len, unsigned char out[static 32])
{
	int err = c ? gnutls_hmac_fast(GNUTLS_MAC_SHA256, c->digest_key, sizeof(c->digest_key), data, len, out) :
		      gnutls_hash_fast(GNUTLS_DIG_SHA256, data, len, out);

	if (err < 0)
		abort();
}

void snap_root_mac(const struct snap_cipher *c, const unsigned char sha[static 32], unsigned char out[static 32])
{
	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, c->root_key, sizeof(c->root_key), sha, 32, out) < 0)
		abort();
}
