/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_CHUNK_CACHE_H
#define MALLEE_SVC_SC_CHUNK_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * Chunks on the local disk, one file each, named by their SHA-256: whatever snapshot a chunk is of. The longest unused go when
 * the limit is reached. Nothing is trusted: what is read is compared with its name, and what does not fit is dropped. Any thread.
 *
 * Encrypted chunks are kept as they are stored, under a name that the caller gives; it is the caller who tells whether they are what
 * they should be, and drops them if not.
 */
struct chunk_cache;

/* One process a folder: -EBUSY. The folder is made; files in it that are not the cache's are left alone. */
int chunk_cache_open(const char *dir, uint64_t limit_bytes, struct chunk_cache **ret, struct error *e);
void chunk_cache_close(struct chunk_cache *c); /* NULL is fine */
/* Whether out was filled with len verified bytes. */
bool chunk_cache_get(struct chunk_cache *c, const unsigned char sha[static 32], void *out, size_t len);
/* A full disk is no failure: then it is not kept. */
void chunk_cache_put(struct chunk_cache *c, const unsigned char sha[static 32], const void *data, size_t len);

/* Of an encrypted chunk: len bytes as they are stored, unverified. */
bool chunk_cache_get_sealed(struct chunk_cache *c, const unsigned char name[static 32], void *out, size_t len);
void chunk_cache_drop(struct chunk_cache *c, const unsigned char name[static 32]); /* it was not what it should be */

struct chunk_cache_stats {
	uint64_t bytes, limit_bytes, files;
	uint64_t hits, misses, dropped /* corrupt */, evicted, unwritten;
};
void chunk_cache_stats(struct chunk_cache *c, struct chunk_cache_stats *ret);

#endif
