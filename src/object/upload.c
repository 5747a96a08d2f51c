/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/id.h"
#include "base/text.h"
#include "object/store_priv.h"
#include "object/writer_priv.h"

/* Multipart uploads up to their completion, which complete.c does. */

struct upload_create {
	int64_t bucket;
	const char *key, *id;
	const struct store_pairs *pairs;
};

static int create_op(struct db_conn *c, void *ctx, struct error *e)
{
	const struct upload_create *op = ctx;
	int r = row_bucket_exists(c, op->bucket, e);

	if (r < 0)
		return r;
	sqlite3_stmt *st = db_stmt(c, SQL_UPLOAD_COUNT);

	sqlite3_bind_int64(st, 1, op->bucket);
	r = db_step(c, st, e);
	if (r < 0)
		return r;
	if (sqlite3_column_int64(st, 0) >= STORE_UPLOADS_PER_BUCKET)
		return error_set(
		    e, "InvalidRequest",
		    "The bucket has %d multipart uploads under way, the limit; complete or abort some.",
		    STORE_UPLOADS_PER_BUCKET);
	st = db_stmt(c, SQL_UPLOAD_INSERT);
	sqlite3_bind_int64(st, 1, op->bucket);
	db_bind_key(st, 2, op->key);
	db_bind_text(st, 3, op->id);
	sqlite3_bind_int64(st, 4, now_seconds_ms());
	row_bind_pairs(st, 5, op->pairs);
	return db_exec(c, st, e);
}

int store_upload_create(struct store *s, int64_t bucket, const char *key,
			const struct store_pairs *pairs, char ret_id[static STORE_UPLOAD_ID_LEN],
			struct error *e)
{
	char id[STORE_UPLOAD_ID_LEN];
	struct upload_create op = {.bucket = bucket, .key = key, .id = id, .pairs = pairs};
	int r = key_check(key, e);

	if (r < 0)
		return r;
	random_token(id, sizeof(id) - 1);
	r = db_write(s->db, create_op, &op, e);
	if (r >= 0)
		memcpy(ret_id, id, sizeof(id));
	return r;
}

int store_upload_get(struct store *s, struct arena *a, int64_t bucket, const char *key,
		     const char *id, struct store_upload *ret, struct error *e)
{
	struct db_conn *c;
	int r = db_read_begin(s->db, &c, e);

	if (r < 0)
		return r;
	r = row_upload_get(c, a, bucket, key, id, ret, e);
	db_read_end(s->db, c);
	return r;
}

struct upload_abort {
	struct arena *a;
	int64_t bucket;
	const char *key, *id;
	struct dropped_list dropped;
};

static int abort_op(struct db_conn *c, void *ctx, struct error *e)
{
	struct upload_abort *op = ctx;
	struct store_upload up;
	int r = row_upload_get(c, op->a, op->bucket, op->key, op->id, &up, e);

	if (r >= 0)
		r = row_parts_remove(c, op->id, NULL, &op->dropped, e);
	return r < 0 ? r : row_upload_remove(c, op->bucket, op->key, op->id, e);
}

int store_upload_abort(struct store *s, int64_t bucket, const char *key, const char *id,
		       struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct upload_abort op = {.a = a, .bucket = bucket, .key = key, .id = id};
	int r = db_write(s->db, abort_op, &op, e);

	if (r >= 0)
		files_release(s, &op.dropped);
	dropped_done(&op.dropped);
	return r;
}

struct part_commit {
	struct arena *a;
	int64_t bucket;
	const char *key, *id;
	const struct writer_blob *blob;
	struct store_part part;
	struct dropped_list dropped;
};

static int part_remove(struct db_conn *c, struct part_commit *op, struct error *e)
{
	sqlite3_stmt *st = db_stmt(c, SQL_PART_GET);
	struct part_row old;

	db_bind_text(st, 1, op->id);
	sqlite3_bind_int(st, 2, op->part.number);
	int r = db_step(c, st, e);

	if (r <= 0)
		return r;
	row_part(op->a, st, &old);
	sqlite3_reset(st);
	if (old.kind == BLOB_FILE) {
		dropped_add(&op->dropped, 0, old.file);
	} else if (old.kind == BLOB_INLINE) {
		st = db_stmt(c, SQL_INLINE_DELETE);
		sqlite3_bind_int64(st, 1, old.file);
		r = db_exec(c, st, e);
		if (r < 0)
			return r;
	}
	st = db_stmt(c, SQL_PART_DELETE);
	db_bind_text(st, 1, op->id);
	sqlite3_bind_int(st, 2, op->part.number);
	return db_exec(c, st, e);
}

static int part_op(struct db_conn *c, void *ctx, struct error *e)
{
	struct part_commit *op = ctx;
	struct store_upload up;
	int r = row_upload_get(c, op->a, op->bucket, op->key, op->id, &up, e);

	if (r >= 0)
		r = part_remove(c, op, e);
	if (r >= 0)
		r = writer_blob_insert(c, op->blob, e);
	if (r < 0)
		return r;
	sqlite3_stmt *st = db_stmt(c, SQL_PART_INSERT);

	db_bind_text(st, 1, op->id);
	sqlite3_bind_int(st, 2, op->part.number);
	sqlite3_bind_int64(st, 3, op->blob->number);
	sqlite3_bind_int(st, 4, op->blob->kind);
	sqlite3_bind_int64(st, 5, (int64_t)op->part.size);
	db_bind_text(st, 6, op->part.etag);
	sqlite3_bind_int64(st, 7, op->part.modified_ms);
	row_bind_pairs(st, 8, &op->part.pairs);
	return db_exec(c, st, e);
}

int store_writer_commit_part(struct store_writer *w, struct arena *a, int64_t bucket,
			     const char *key, const char *id, int number,
			     const struct store_pairs *pairs, struct store_part *ret,
			     struct error *e)
{
	struct store *s = writer_store(w);
	struct writer_blob blob;

	if (number < 1 || number > STORE_PART_NUMBER_MAX)
		return error_set(e, "InvalidArgument", "Part numbers go from 1 to %d.",
				 STORE_PART_NUMBER_MAX);
	int r = writer_seal(w, a, &blob, e);

	if (r < 0)
		return r;
	struct part_commit op = {
	    .a = a,
	    .bucket = bucket,
	    .key = key,
	    .id = id,
	    .blob = &blob,
	    .part = {.number = number,
		     .size = blob.size,
		     .etag = blob.etag,
		     .modified_ms = now_seconds_ms(),
		     .pairs = *pairs},
	};

	r = db_write(s->db, part_op, &op, e);
	if (r >= 0) {
		writer_committed(w);
		files_release(s, &op.dropped);
		if (ret)
			*ret = op.part;
	} else if (r == DB_UNSURE) {
		writer_committed(w);
	}
	dropped_done(&op.dropped);
	return r;
}

static int list_parts(struct db_conn *c, struct arena *a, const char *id, int after, size_t max,
		      struct store_part **ret, size_t *ret_count, bool *ret_truncated,
		      struct error *e)
{
	sqlite3_stmt *st = db_stmt(c, SQL_PART_LIST);
	struct store_part *items = NULL;
	size_t count = 0, cap = 0;
	bool truncated = false;
	int r;

	db_bind_text(st, 1, id);
	sqlite3_bind_int(st, 2, after);
	while ((r = db_step(c, st, e)) > 0) {
		struct part_row row;

		if (count == max) {
			truncated = true;
			break;
		}
		if (count == cap) {
			struct store_part *bigger =
			    arena_new_array(a, struct store_part, cap ? 2 * cap : 64);

			if (count)
				memcpy(bigger, items, count * sizeof(*items));
			items = bigger;
			cap = cap ? 2 * cap : 64;
		}
		row_part(a, st, &row);
		items[count++] = row.p;
	}
	if (r < 0)
		return r;
	*ret = items;
	*ret_count = count;
	if (ret_truncated)
		*ret_truncated = truncated;
	return 0;
}

int store_part_list(struct store *s, struct arena *a, int64_t bucket, const char *key,
		    const char *id, int after, int max, struct store_part **ret, size_t *ret_count,
		    bool *ret_truncated, struct error *e)
{
	struct store_upload up;
	struct db_conn *c;
	int r = db_read_begin(s->db, &c, e);

	if (r < 0)
		return r;
	r = row_upload_get(c, a, bucket, key, id, &up, e);
	if (r >= 0)
		r = list_parts(c, a, id, after, max > 0 ? (size_t)max : STORE_PART_NUMBER_MAX, ret,
			       ret_count, ret_truncated, e);
	db_read_end(s->db, c);
	return r;
}

/* --- listing --- */

struct walk {
	struct db_conn *c;
	struct arena *a;
	const struct store_upload_list *q;
	const char *prefix, *delimiter;
	sqlite3_stmt *st;
};

static void seek(struct walk *w, enum sql which, const char *key, const char *id)
{
	w->st = db_stmt(w->c, which);
	sqlite3_bind_int64(w->st, 1, w->q->bucket);
	db_bind_key(w->st, 2, key);
	db_bind_text(w->st, 3, id);
}

static bool seek_past(struct walk *w, const char *common)
{
	const char *next = list_successor(w->a, common);

	if (next)
		seek(w, SQL_UPLOAD_FROM, next, "");
	return next != NULL;
}

static bool seek_start(struct walk *w)
{
	const char *key = w->q->key_marker ? w->q->key_marker : "";
	const char *id = w->q->id_marker ? w->q->id_marker : "";
	const char *common = list_common_prefix(w->a, key, w->prefix, w->delimiter);

	if (common)
		return seek_past(w, common);
	if (!*key || strcmp(key, w->prefix) < 0)
		seek(w, SQL_UPLOAD_FROM, w->prefix, "");
	else /* "~" sorts behind every id: they are letters and digits */
		seek(w, SQL_UPLOAD_BEHIND, key, *id ? id : "~");
	return true;
}

static int walk_page(struct walk *w, struct store_upload_listing *l, struct error *e)
{
	bool more = seek_start(w);
	int r = 0;

	while (more && (r = db_step(w->c, w->st, e)) > 0) {
		struct store_upload up;

		row_upload(w->a, w->st, false, &up);
		if (!str_prefix(up.key, w->prefix))
			break;
		if (l->upload_count + l->prefix_count == (size_t)w->q->max) {
			l->truncated = true;
			break;
		}
		const char *common = list_common_prefix(w->a, up.key, w->prefix, w->delimiter);

		l->last_key = common ? common : up.key;
		l->last_id = common ? NULL : up.id;
		if (common) {
			l->prefixes[l->prefix_count++] = common;
			more = seek_past(w, common);
		} else {
			l->uploads[l->upload_count++] = up;
		}
	}
	return r < 0 ? r : 0;
}

int store_upload_list(struct store *s, struct arena *a, const struct store_upload_list *q,
		      struct store_upload_listing *ret, struct error *e)
{
	struct store_upload_listing l = {0};
	struct walk w = {.a = a,
			 .q = q,
			 .prefix = q->prefix ? q->prefix : "",
			 .delimiter = q->delimiter ? q->delimiter : ""};

	if (q->max < 0 || q->max > STORE_LIST_MAX)
		return error_set(e, "InvalidArgument",
				 "A page of a listing can have 0 to %d entries.", STORE_LIST_MAX);
	l.uploads = arena_new_array(a, struct store_upload, (size_t)q->max);
	l.prefixes = arena_new_array(a, const char *, (size_t)q->max);
	if (q->max > 0) {
		int r = db_read_begin(s->db, &w.c, e);

		if (r < 0)
			return r;
		r = db_snapshot_begin(w.c, e);
		if (r >= 0) {
			r = walk_page(&w, &l, e);
			db_snapshot_end(w.c);
		}
		db_read_end(s->db, w.c);
		if (r < 0)
			return r;
	}
	*ret = l;
	return 0;
}
