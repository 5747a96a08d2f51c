/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OBJECT_STORE_H
#define MALLEE_OBJECT_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/error.h"
#include "object/digest.h"
#include "object/limits.h"

/*
 * An object store in a folder. What a function reports as done is durable; what was not finished
 * leaves nothing behind.
 *
 * Errors carry codes of the object store's vocabulary: NoSuchBucket, NoSuchKey, NoSuchUpload,
 * BucketAlreadyExists, BucketAlreadyOwnedByYou, BucketNotEmpty, TooManyBuckets, PreconditionFailed,
 * InvalidPart, InvalidPartOrder, EntityTooSmall, EntityTooLarge, KeyTooLongError, InvalidArgument,
 * InsufficientStorage (the disk is full), InternalError (the disk or the database failed). Names
 * that the caller must have checked: bucket names' form; keys are UTF-8 without NUL. Strings in
 * results live in the arena that was given. Times are milliseconds since 1970, cut to whole
 * seconds.
 */
struct store;

/* Opens or makes the store in dir, which one process may hold at a time, and removes what
 * unfinished uploads left. */
int store_open(const char *dir, struct store **ret, struct error *e);
void store_close(struct store *s); /* no writer or reader may be left; NULL is fine */

struct store_status {
	int64_t buckets, objects, bytes; /* bytes: of visible objects */
	int64_t free_bytes;		 /* of the file system, for unprivileged users */
};
int store_status(struct store *s, struct store_status *ret, struct error *e);

/* --- buckets --- */
struct store_bucket {
	int64_t id;	     /* never used twice */
	const char *name;    /* unique in the store */
	const char *account; /* who may use it */
	const char *owner;   /* the owner's public id */
	int64_t created_ms;
};
/* id and created_ms are not read. */
int store_bucket_create(struct store *s, const struct store_bucket *b, struct error *e);
int store_bucket_get(struct store *s, struct arena *a, const char *name, struct store_bucket *ret,
		     struct error *e);
/* Uploads under way are aborted with it. */
int store_bucket_delete(struct store *s, int64_t bucket, struct error *e);
/* By name. */
int store_bucket_list(struct store *s, struct arena *a, const char *account,
		      struct store_bucket **ret, size_t *ret_count, struct error *e);

/* --- objects --- */
struct store_pair {
	const char *name, *value;
};
/* What belongs to an object and is given back with it; the engine does not look inside. */
struct store_pairs {
	size_t count;
	const struct store_pair *items;
};
const char *store_pairs_get(const struct store_pairs *p, const char *name); /* NULL when absent */

struct store_object {
	const char *key;
	uint64_t size;
	const char *etag; /* hexadecimal, without quotes; of a multipart object with "-PARTS" */
	int64_t modified_ms;
	int part_count; /* 0: made by one PUT */
	struct store_pairs pairs;
};
int store_object_head(struct store *s, struct arena *a, int64_t bucket, const char *key,
		      struct store_object *ret, struct error *e);
/* Missing keys are no error. *ret_existed, with one place a key, may be NULL. All in one
 * transaction. */
int store_objects_delete(struct store *s, int64_t bucket, const char *const *keys, size_t count,
			 bool *ret_existed, struct error *e);
/* Deletes if the object is there with this ETag ("*": any); else PreconditionFailed, or NoSuchKey
 * when there is none. */
int store_object_delete_if(struct store *s, int64_t bucket, const char *key, const char *if_match,
			   struct error *e);

/* --- reading --- */
struct store_reader;
/* The object as it is now; stays readable when it is overwritten or deleted meanwhile. */
int store_object_open(struct store *s, struct arena *a, int64_t bucket, const char *key,
		      struct store_object *ret, struct store_reader **ret_reader, struct error *e);
void store_reader_free(struct store_reader *r);
DEFINE_CLEANUP(struct store_reader *, store_reader_free, store_reader_freep)
/* At most max bytes from off: fewer at a part's end; 0 at the object's end. Negative errno when the
 * disk fails. */
ssize_t store_reader_read(struct store_reader *r, uint64_t off, void *buf, size_t max);
/* If one file holds [off, off + len): a descriptor of the caller's own and the place in it. */
bool store_reader_file(struct store_reader *r, uint64_t off, uint64_t len, int *ret_fd,
		       uint64_t *ret_off);
/* If the bytes are in memory: their place, valid until the reader is freed. */
const void *store_reader_memory(const struct store_reader *r);
/* Where part number n (from 1) of a multipart object lies; false when there is no such part. */
bool store_reader_part(const struct store_reader *r, int n, uint64_t *ret_off, uint64_t *ret_len);

/* --- writing --- */
#define STORE_SIZE_UNKNOWN UINT64_MAX

struct store_writer;
/* size: what is to come, so that a disk too full is told before the data is sent; digests:
 * DIGEST_BIT()s, MD5 is always computed. */
int store_writer_new(struct store *s, uint64_t size, unsigned digests, struct store_writer **ret,
		     struct error *e);
/* Undoes what was not committed. */
void store_writer_free(struct store_writer *w);
DEFINE_CLEANUP(struct store_writer *, store_writer_free, store_writer_freep)
int store_writer_write(struct store_writer *w, const void *data, size_t len, struct error *e);
uint64_t store_writer_size(const struct store_writer *w);
/* Of what was written so far; kind must be among those asked for, or MD5. */
size_t store_writer_digest(const struct store_writer *w, enum digest_kind kind,
			   unsigned char out[static DIGEST_MAX]);

struct store_condition {
	bool if_none;	      /* there must be no object of this key: PreconditionFailed */
	const char *if_match; /* there must be one with this ETag, "*" for any: PreconditionFailed,
				 NoSuchKey */
};
struct store_put {
	int64_t bucket;
	const char *key;
	struct store_pairs pairs;
	struct store_condition condition;
};
/* Makes the data durable and then the object visible, in place of an older one. Of ret, which may
 * be NULL, all but pairs is set. */
int store_writer_commit(struct store_writer *w, struct arena *a, const struct store_put *put,
			struct store_object *ret, struct error *e);

/* --- copying --- */
struct store_copy {
	struct store_reader *from;	   /* what is copied: as it was when it was opened */
	const struct store_object *object; /* of the same store_object_open() */
	struct store_put to;
};
/* Makes an object of the same bytes without copying them: files get a second name. ETag and parts
 * are those of the source. */
int store_object_copy(struct store *s, struct arena *a, const struct store_copy *c,
		      struct store_object *ret, struct error *e);

/* --- listing --- */
struct store_list {
	int64_t bucket;
	const char *prefix;    /* NULL or "": all */
	const char *delimiter; /* NULL or "": none; may be longer than one character */
	const char *after;     /* only entries behind this; the last entry of the page before. NULL:
				  from the first */
	int max; /* entries, 0 to STORE_LIST_MAX; objects and common prefixes together */
};
struct store_listing {
	struct store_object *objects; /* in byte order of their keys; without pairs */
	size_t object_count;
	const char **prefixes; /* in byte order; end with the delimiter */
	size_t prefix_count;
	bool truncated;
	const char
	    *last; /* the last entry, object or prefix: `after` of the next page; NULL when empty */
};
/* The cost grows with the entries returned, not with the objects below a common prefix. */
int store_object_list(struct store *s, struct arena *a, const struct store_list *q,
		      struct store_listing *ret, struct error *e);

/* --- multipart uploads --- */
#define STORE_UPLOAD_ID_LEN 40

struct store_upload {
	const char *id;
	const char *key;
	int64_t initiated_ms;
	struct store_pairs pairs;
};
struct store_part {
	int number;
	uint64_t size;
	const char *etag;
	int64_t modified_ms;
	struct store_pairs pairs; /* the part's checksums */
};
/* pairs: for the object to be. */
int store_upload_create(struct store *s, int64_t bucket, const char *key,
			const struct store_pairs *pairs, char ret_id[static STORE_UPLOAD_ID_LEN],
			struct error *e);
int store_upload_get(struct store *s, struct arena *a, int64_t bucket, const char *key,
		     const char *id, struct store_upload *ret, struct error *e);
int store_upload_abort(struct store *s, int64_t bucket, const char *key, const char *id,
		       struct error *e);
/* The written data as part `number`, in place of an earlier one. */
int store_writer_commit_part(struct store_writer *w, struct arena *a, int64_t bucket,
			     const char *key, const char *id, int number,
			     const struct store_pairs *pairs, struct store_part *ret,
			     struct error *e);
/* Parts in order of number, behind part number `after`; at most max of them (0: all). */
int store_part_list(struct store *s, struct arena *a, int64_t bucket, const char *key,
		    const char *id, int after, int max, struct store_part **ret, size_t *ret_count,
		    bool *ret_truncated, struct error *e);

struct store_part_ref {
	int number;
	const char *etag; /* without quotes */
};
struct store_complete {
	int64_t bucket;
	const char *key;
	const char *upload;
	const struct store_part_ref *parts;
	size_t part_count;
	struct store_pairs pairs; /* of the object: the upload's own are not added */
	struct store_condition condition;
};
/* The parts' files become the object's extents: nothing is copied. Completing again what this
 * upload made gives the same result. */
int store_upload_complete(struct store *s, struct arena *a, const struct store_complete *c,
			  struct store_object *ret, struct error *e);

struct store_upload_list {
	int64_t bucket;
	const char *prefix, *delimiter;	    /* as in store_list */
	const char *key_marker, *id_marker; /* behind this upload; without id_marker, behind all
					       uploads of key_marker */
	int max;
};
struct store_upload_listing {
	struct store_upload *uploads; /* by key, then by id; without pairs */
	size_t upload_count;
	const char **prefixes;
	size_t prefix_count;
	bool truncated;
	const char *last_key,
	    *last_id; /* markers of the next page; last_id NULL when the last entry is a prefix */
};
int store_upload_list(struct store *s, struct arena *a, const struct store_upload_list *q,
		      struct store_upload_listing *ret, struct error *e);

#endif
