/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_OBJECTS_H
#define MALLEE_SVC_SC_OBJECTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/secret.h"

/*
 * The bucket that snapshots lie in. What speaks to it is a table of functions (Walrus over S3; in tests a double), and what
 * all callers want on top is here: failures that may pass are tried again, later and later, until the attempts are used up
 * or objects_cancel() is called. Any thread may call; calls block.
 *
 * Errors: -ENOENT no such object; -EEXIST it is there already (put with only_if_absent); -EACCES, -ENOSPC, -EINVAL: trying
 * again does not help; anything else may pass.
 */
#define OBJECT_KEY_MAX 128 /* bytes, NUL included. Only [a-z0-9/-]: nothing in a URL or in XML needs escapes */

struct object_entry {
	char key[OBJECT_KEY_MAX];
	uint64_t size_bytes;
};

struct objects_ops {
	int (*put)(void *ctx, const char *key, const void *data, size_t len, bool only_if_absent, struct error *e);
	/* Bytes [off, off + len) appended to out; fewer where the object ends. */
	int (*get)(void *ctx, const char *key, uint64_t off, uint64_t len, struct buf *out, struct error *e);
	int (*remove)(void *ctx, const char *key, struct error *e); /* missing is fine */
	/* Up to max entries with the prefix behind `after` (not NULL), in order: *ret_count; fewer than max only at the end. */
	int (*list)(void *ctx, const char *prefix, const char *after, struct object_entry *out, unsigned max,
		    unsigned *ret_count, struct error *e);
	void (*cancel)(void *ctx); /* calls under way end soon, later ones at once */
	void (*free)(void *ctx);
};

struct objects_retry {
	unsigned attempts;      /* 0: 8 */
	unsigned first_ms;      /* 0: 100; doubled each time, a random half of it waited in addition */
	unsigned max_ms;        /* 0: 5000 */
};

struct objects;
/* Owns ctx from here on (also when it fails, which is for want of memory only). */
struct objects *objects_new(const struct objects_ops *ops, void *ctx, const struct objects_retry *retry /* NULL: as said */);
void objects_free(struct objects *o);

int objects_put(struct objects *o, const char *key, const void *data, size_t len, bool only_if_absent, struct error *e);
int objects_get(struct objects *o, const char *key, uint64_t off, uint64_t len, struct buf *out, struct error *e);
int objects_remove(struct objects *o, const char *key, struct error *e);
/* fn for every object with the prefix, in order; a return value other than 0 ends it and is returned. */
typedef int objects_fn(void *ctx, const struct object_entry *entry);
int objects_list(struct objects *o, const char *prefix, objects_fn *fn, void *ctx, struct error *e);
/* The callers under way get -ECANCELED soon, later ones at once. For stopping; not to be taken back. */
void objects_cancel(struct objects *o);
bool objects_cancelled(struct objects *o);

struct objects_counters {
	_Atomic uint64_t puts, gets, removes, lists, retries, failures, bytes_sent, bytes_received;
};
const struct objects_counters *objects_counters(const struct objects *o);

/* ---- Walrus ---- */
struct objects_s3_config {
	const char *endpoint; /* "http://127.0.0.1:8774" */
	const char *region, *bucket;
	const char *access_key_id;
	struct secret secret_key; /* copied */
	int timeout_ms; /* 0: only stalls end a transfer */
};
int objects_s3_new(const struct objects_s3_config *c, const struct objects_retry *retry, struct objects **ret, struct error *e);
/* CreateBucket; one of our own that is there already is fine. */
int objects_s3_make_bucket(struct objects *o, struct error *e);

#endif
