/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OBJECT_STORE_PRIV_H
#define MALLEE_OBJECT_STORE_PRIV_H

#include <pthread.h>

#include "object/db_priv.h"
#include "object/store.h"

/* A data file or blob whose metadata is gone: removed once no reader needs it. */
struct dropped {
	int64_t blob; /* pinned by readers under this number; 0: parts, which nobody reads */
	int64_t file;
};
struct dropped_list {
	size_t count, cap;
	struct dropped *items;
};
void dropped_add(struct dropped_list *l, int64_t blob, int64_t file);
void dropped_done(struct dropped_list *l);

struct pin {
	int64_t blob;
	int count;
	struct pin *next;
};

struct store {
	char *dir;
	int lock_fd;
	struct db *db;
	pthread_mutex_t pins_lock; /* of pins and deferred */
	struct pin *pins;
	struct dropped_list deferred;
};

/* --- files.c: data files and who still needs them --- */
#define FILES_SHARDS 256
int files_prepare(struct store *s, struct error *e); /* the folders */
int files_collect(struct store *s,
		  struct error *e); /* removes every file that no metadata names; at start only */
/* A new, empty file under a fresh number, open for writing. */
int files_create(struct store *s, int64_t *ret_id, int *ret_fd, struct error *e);
int files_open(struct store *s, int64_t id); /* descriptor for reading, or negative errno */
int files_sync(struct store *s, int64_t id, int fd,
	       struct error *e); /* data, and the folder's entry */
int files_sync_shard(struct store *s, unsigned shard, struct error *e);
/* The same data under a fresh number, too; the folder is not synced. Data files never change, so
 * both names are as good as copies. */
int files_link(struct store *s, int64_t from, int64_t *ret_id, struct error *e);
void files_unlink(struct store *s, int64_t id);
/* Of what a committed transaction dropped: removed now, or when the last pin goes. Empties the
 * list. */
void files_release(struct store *s, struct dropped_list *l);
void files_pin(struct store *s, int64_t blob);
void files_unpin(struct store *s, int64_t blob);
int64_t files_new_number(void);
/* InsufficientStorage unless size more bytes, and a reserve, are free. */
int files_check_space(struct store *s, uint64_t size, struct error *e);

/* --- rows.c: rows as structs --- */
struct object_row {
	struct store_object o;
	int64_t blob;
	enum blob_kind kind;
	const char *upload; /* that made it; NULL */
};
/* 1 found, 0 not, negative failed. */
int row_object_get(struct db_conn *c, struct arena *a, int64_t bucket, const char *key,
		   struct object_row *ret, struct error *e);
void row_object(struct arena *a, sqlite3_stmt *st, bool with_pairs, struct object_row *ret);
int row_object_insert(struct db_conn *c, int64_t bucket, const struct object_row *row,
		      struct error *e);
/* Takes a row out, with what hangs on it, and adds its files to l. */
int row_object_remove(struct db_conn *c, int64_t bucket, const struct object_row *row,
		      struct dropped_list *l, struct error *e);
int row_bucket_exists(struct db_conn *c, int64_t bucket, struct error *e); /* 0, or NoSuchBucket */
int row_condition_check(const struct store_condition *cond,
			const struct object_row *old /* NULL: none */, const char *key,
			struct error *e);

void row_upload(struct arena *a, sqlite3_stmt *st, bool with_pairs, struct store_upload *ret);
/* 0, or NoSuchUpload. */
int row_upload_get(struct db_conn *c, struct arena *a, int64_t bucket, const char *key,
		   const char *id, struct store_upload *ret, struct error *e);
int row_upload_remove(struct db_conn *c, int64_t bucket, const char *key, const char *id,
		      struct error *e); /* not its parts */
struct part_row {
	struct store_part p;
	int64_t file;
	enum blob_kind kind;
};
void row_part(struct arena *a, sqlite3_stmt *st, struct part_row *ret);
/* Parts of an upload with their data; for abort, and for what a completion leaves out. */
int row_parts_remove(struct db_conn *c, const char *upload,
		     const bool keep[STORE_PART_NUMBER_MAX + 1], struct dropped_list *l,
		     struct error *e);

/* Pairs as one BLOB: name NUL value NUL … */
void row_bind_pairs(sqlite3_stmt *st, int i, const struct store_pairs *p);
void row_column_pairs(struct arena *a, sqlite3_stmt *st, int col, struct store_pairs *ret);

int key_check(const char *key, struct error *e);
int64_t now_seconds_ms(void);

/* --- list.c --- */
/* The smallest byte string behind every string that starts with s; NULL when there is none. */
char *list_successor(struct arena *a, const char *s);
/* The common prefix that rolls key up, or NULL. */
const char *list_common_prefix(struct arena *a, const char *key, const char *prefix,
			       const char *delimiter);

#endif
