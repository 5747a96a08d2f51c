/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_TESTKIT_PRIV_H
#define MALLEE_SVC_SC_TESTKIT_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "svc/sc/snap_writer.h"

/* For tests: a bucket in memory with faults. Percentages are of calls. */
struct bucket_object {
	char key[OBJECT_KEY_MAX];
	unsigned char *data;
	size_t len;
};
struct bucket {
	pthread_mutex_t lock;
	struct bucket_object *objects; /* sorted */
	size_t count, cap;
	uint64_t seed;
	_Atomic unsigned fail_percent;    /* an error, and nothing done */
	_Atomic unsigned lost_percent;    /* done, but the answer is lost */
	/* Of gets: the end is missing; a bit is another on its way. Never so often in a row that the object counts as damaged. */
	_Atomic unsigned short_percent, corrupt_percent;
	_Atomic unsigned delay_us;
	_Atomic int kill_in;              /* > 0: so many changes from now on the process is dead */
	_Atomic bool dead;
	_Atomic bool unreachable;
	_Atomic unsigned gets, puts, removes;
	_Atomic unsigned page_gets;
	unsigned char damaged[4096];      /* by the hash of a key and an offset: answers in a row */
};
void bucket_init(struct bucket *b, uint64_t seed);
void bucket_done(struct bucket *b);
/* One process's way to it. */
struct objects *bucket_objects(struct bucket *b);
struct bucket_object *bucket_find(struct bucket *b, const char *key);
size_t bucket_count(struct bucket *b, const char *prefix);
uint64_t bucket_random(uint64_t *seed); /* xorshift */

/* Master keys in a folder of their own; and their end, with that of the folder. */
struct kit_keys {
	char dir[64];
	struct keys *keys;
};
void kit_keys_init(struct kit_keys *k);
void kit_keys_done(struct kit_keys *k);

/* A snapshot of `data` with chunks of 4096 bytes and 8 to a page; encrypted when the store has keys. Asserts that it works. */
#define KIT_CHUNK 4096u
#define KIT_PAGE 8u
void kit_snapshot(struct snap_store *s, const char *id, const char *parent, const unsigned char *data, uint64_t size);
/* Chunks by a pattern: every third zero, others text that compresses, or noise. */
void kit_fill(uint64_t *seed, unsigned char *data, uint64_t size);

#endif
