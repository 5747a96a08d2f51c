/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "object/store_priv.h"

static void row_bucket(struct arena *a, sqlite3_stmt *st, struct store_bucket *ret)
{
	*ret = (struct store_bucket){
	    .id = sqlite3_column_int64(st, 0),
	    .name = db_column_text(a, st, 1),
	    .account = db_column_text(a, st, 2),
	    .owner = db_column_text(a, st, 3),
	    .created_ms = sqlite3_column_int64(st, 4),
	};
}

static int bucket_get(struct db_conn *c, struct arena *a, const char *name,
		      struct store_bucket *ret, struct error *e)
{
	sqlite3_stmt *st = db_stmt(c, SQL_BUCKET_BY_NAME);

	db_bind_text(st, 1, name);
	int r = db_step(c, st, e);

	if (r > 0) {
		row_bucket(a, st, ret);
		sqlite3_reset(st);
	}
	return r;
}

struct bucket_create {
	const struct store_bucket *b;
	struct arena *a;
};

static int create_op(struct db_conn *c, void *ctx, struct error *e)
{
	const struct bucket_create *op = ctx;
	struct store_bucket old;
	int r = bucket_get(c, op->a, op->b->name, &old, e);

	if (r < 0)
		return r;
	if (r > 0 && str_eq(old.account, op->b->account))
		return error_set(e, "BucketAlreadyOwnedByYou", "The bucket %s is yours already.",
				 old.name);
	if (r > 0)
		return error_set(
		    e, "BucketAlreadyExists",
		    "The name %s is taken: all accounts share the names of buckets. Choose another.",
		    old.name);

	sqlite3_stmt *st = db_stmt(c, SQL_BUCKET_COUNT);

	db_bind_text(st, 1, op->b->account);
	r = db_step(c, st, e);
	if (r < 0)
		return r;
	if (sqlite3_column_int64(st, 0) >= STORE_BUCKETS_PER_ACCOUNT)
		return error_set(e, "TooManyBuckets", "An account can have %d buckets.",
				 STORE_BUCKETS_PER_ACCOUNT);

	st = db_stmt(c, SQL_BUCKET_INSERT);
	db_bind_text(st, 1, op->b->name);
	db_bind_text(st, 2, op->b->account);
	db_bind_text(st, 3, op->b->owner);
	sqlite3_bind_int64(st, 4, now_seconds_ms());
	return db_exec(c, st, e);
}

int store_bucket_create(struct store *s, const struct store_bucket *b, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct bucket_create op = {.b = b, .a = a};

	return db_write(s->db, create_op, &op, e);
}

int store_bucket_get(struct store *s, struct arena *a, const char *name, struct store_bucket *ret,
		     struct error *e)
{
	struct db_conn *c;
	int r = db_read_begin(s->db, &c, e);

	if (r < 0)
		return r;
	r = bucket_get(c, a, name, ret, e);
	db_read_end(s->db, c);
	if (r == 0)
		return error_set(e, "NoSuchBucket", "There is no bucket named %.100s.", name);
	return r < 0 ? r : 0;
}

struct bucket_delete {
	int64_t bucket;
	struct arena *a;
	struct dropped_list dropped;
};

static int delete_uploads(struct db_conn *c, struct bucket_delete *op, struct error *e)
{
	for (;;) {
		sqlite3_stmt *st = db_stmt(c, SQL_UPLOAD_FROM);
		struct store_upload up;

		sqlite3_bind_int64(st, 1, op->bucket);
		db_bind_key(st, 2, "");
		db_bind_text(st, 3, "");
		int r = db_step(c, st, e);

		if (r <= 0)
			return r;
		row_upload(op->a, st, false, &up);
		sqlite3_reset(st);
		r = row_parts_remove(c, up.id, NULL, &op->dropped, e);
		if (r < 0)
			return r;
		r = row_upload_remove(c, op->bucket, up.key, up.id, e);
		if (r < 0)
			return r;
	}
}

static int delete_op(struct db_conn *c, void *ctx, struct error *e)
{
	struct bucket_delete *op = ctx;
	int r = row_bucket_exists(c, op->bucket, e);

	if (r < 0)
		return r;
	sqlite3_stmt *st = db_stmt(c, SQL_BUCKET_ANY_OBJECT);

	sqlite3_bind_int64(st, 1, op->bucket);
	r = db_step(c, st, e);
	if (r < 0)
		return r;
	if (r > 0)
		return error_set(e, "BucketNotEmpty",
				 "The bucket still holds objects; delete them first.");
	r = delete_uploads(c, op, e);
	if (r < 0)
		return r;
	st = db_stmt(c, SQL_BUCKET_DELETE);
	sqlite3_bind_int64(st, 1, op->bucket);
	return db_exec(c, st, e);
}

int store_bucket_delete(struct store *s, int64_t bucket, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct bucket_delete op = {.bucket = bucket, .a = a};
	int r = db_write(s->db, delete_op, &op, e);

	if (r >= 0)
		files_release(s, &op.dropped);
	dropped_done(&op.dropped);
	return r;
}

int store_bucket_list(struct store *s, struct arena *a, const char *account,
		      struct store_bucket **ret, size_t *ret_count, struct error *e)
{
	struct store_bucket *items =
	    arena_new_array(a, struct store_bucket, STORE_BUCKETS_PER_ACCOUNT);
	size_t count = 0;
	struct db_conn *c;
	int r = db_read_begin(s->db, &c, e);

	if (r < 0)
		return r;
	sqlite3_stmt *st = db_stmt(c, SQL_BUCKET_LIST);

	db_bind_text(st, 1, account);
	while (count < STORE_BUCKETS_PER_ACCOUNT && (r = db_step(c, st, e)) > 0)
		row_bucket(a, st, &items[count++]);
	db_read_end(s->db, c);
	if (r < 0)
		return r;
	*ret = items;
	*ret_count = count;
	return 0;
}
