/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_METADATA_PRIV_H
#define MALLEE_SVC_NC_METADATA_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"

struct shared_instance_spec;

/* --- metadata_token.c: session tokens of IMDSv2 --- */

#define METADATA_KEY_BYTES 32
#define METADATA_TOKEN_MAX_TTL_S 21600

/*
 * Tokens are not stored: a token is its own expiry, authenticated for one instance with this node's
 * key. The expiry counts on the clock since boot, so that setting the time of day neither prolongs
 * nor ends any; the key is of one boot, too.
 */
struct metadata_keys {
	unsigned char key[METADATA_KEY_BYTES];
};

/* Read <dir>/metadata.key, or make a new one when there is none of this boot. */
int metadata_keys_load(const char *dir, struct metadata_keys *ret, struct error *e);
const char *metadata_token_make(const struct metadata_keys *k, const char *instance_id,
				int64_t ttl_s, struct arena *a);
/* Whether it was made for this instance and is not over; then how many seconds are left. */
bool metadata_token_check(const struct metadata_keys *k, const char *instance_id, const char *token,
			  int64_t *ret_left_s);

/* --- metadata_tree.c: what there is to read --- */

struct metadata_view {
	const struct shared_instance_spec *spec;
	const char *root_device; /* "/dev/vda" */
};

struct metadata_page {
	const char *content_type;
	const void *data;
	size_t len;
};

/* path: decoded, absolute ("/latest/meta-data/ami-id"). -ENOENT when there is no such thing for
 * this instance. What it returns lives in a, or as long as the specification. */
int metadata_tree_get(const struct metadata_view *v, const char *path, struct arena *a,
		      struct metadata_page *ret);
/* Whether path is /<a version>/api/token. */
bool metadata_is_token_path(const char *path);

#endif
