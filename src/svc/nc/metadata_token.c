/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/nc/metadata_priv.h"

#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/id.h"
#include "base/secret.h"
#include "base/text.h"
#include "os/file.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define MAC_BYTES 32

/* version, expiry in seconds since boot (big endian), HMAC-SHA256 of both and the instance's id */
#define TOKEN_VERSION 1
#define HEAD_BYTES 9
#define TOKEN_BYTES (HEAD_BYTES + MAC_BYTES)
#define TOKEN_TEXT_MAX 64

/* --- the key --- */

/* The file: the boot's id, a line break, the key in hexadecimal. */
static int parse_keys(const char *text, const char *boot_id, struct metadata_keys *ret)
{
	size_t n = strcspn(text, "\n");
	const char *hex = text + n + !!text[n];

	if (n != strlen(boot_id) || strncmp(text, boot_id, n) ||
	    strlen(hex) != 2 * METADATA_KEY_BYTES)
		return -EINVAL;
	return hex_decode(hex, 2 * METADATA_KEY_BYTES, ret->key);
}

static int make_keys(const char *path, const char *boot_id, struct metadata_keys *ret)
{
	char hex[2 * METADATA_KEY_BYTES + 1], text[192];
	int err;

	random_bytes(ret->key, sizeof(ret->key));
	hex_encode(ret->key, sizeof(ret->key), hex);
	snprintf(text, sizeof(text), "%.64s\n%s", boot_id, hex);
	err = file_write_atomic(path, text, strlen(text), 0600);
	explicit_bzero(hex, sizeof(hex));
	explicit_bzero(text, sizeof(text));
	return err;
}

int metadata_keys_load(const char *dir, struct metadata_keys *ret, struct error *e)
{
	_cleanup_(freep) char *boot_id = NULL;
	_cleanup_(freep) char *path = NULL;
	char *text = NULL;
	size_t len;
	int err;

	err = file_read(BOOT_ID, 128, &boot_id, &len);
	if (err < 0)
		return error_errno(e, err, "cannot read " BOOT_ID);
	boot_id[strcspn(boot_id, "\n")] = '\0';
	if (asprintf(&path, "%s/metadata.key", dir) < 0)
		abort();
	err = file_read(path, 4096, &text, &len);
	if (!err)
		err = parse_keys(text, boot_id, ret);
	secret_free_string(text);
	if (err < 0)
		err = make_keys(path, boot_id, ret);
	return err < 0 ? error_errno(e, err, "cannot write %s", path) : 0;
}

/* --- tokens --- */

static int64_t boot_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec;
}

static void authenticate(const struct metadata_keys *k, const unsigned char head[static HEAD_BYTES],
			 const char *instance_id, unsigned char mac[static MAC_BYTES])
{
	unsigned char text[HEAD_BYTES + 64];
	size_t n = strnlen(instance_id, sizeof(text) - HEAD_BYTES);

	memcpy(text, head, HEAD_BYTES);
	memcpy(text + HEAD_BYTES, instance_id, n);
	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, k->key, sizeof(k->key), text, HEAD_BYTES + n, mac) <
	    0)
		abort(); /* only for want of memory or a self-test that failed */
}

const char *metadata_token_make(const struct metadata_keys *k, const char *instance_id,
				int64_t ttl_s, struct arena *a)
{
	unsigned char token[TOKEN_BYTES] = {TOKEN_VERSION};
	uint64_t expiry = boot_seconds() + ttl_s;

	for (int i = 0; i < 8; i++)
		token[1 + i] = expiry >> (56 - 8 * i);
	authenticate(k, token, instance_id, token + HEAD_BYTES);
	return base64_encode(a, token, sizeof(token));
}

bool metadata_token_check(const struct metadata_keys *k, const char *instance_id, const char *token,
			  int64_t *ret_left_s)
{
	_cleanup_(arena_freep) struct arena *a = NULL;
	unsigned char mac[MAC_BYTES];
	uint64_t expiry = 0;
	unsigned char *t;
	void *data;
	size_t len = strnlen(token, TOKEN_TEXT_MAX + 1);

	if (len > TOKEN_TEXT_MAX)
		return false;
	a = arena_new();
	if (base64_decode(a, token, len, &data, &len) < 0 || len != TOKEN_BYTES)
		return false;
	t = data;
	authenticate(k, t, instance_id, mac);
	if (!bytes_equal_const(mac, t + HEAD_BYTES, MAC_BYTES) || t[0] != TOKEN_VERSION)
		return false;
	for (int i = 0; i < 8; i++)
		expiry = expiry << 8 | t[1 + i];
	*ret_left_s = (int64_t)expiry - boot_seconds();
	return *ret_left_s > 0;
}
