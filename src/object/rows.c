/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/text.h"
#include "object/store_priv.h"

const char *store_pairs_get(const struct store_pairs *p, const char *name)
{
	for (size_t i = 0; i < p->count; i++)
		if (str_eq(p->items[i].name, name))
			return p->items[i].value;
	return NULL;
}

int64_t now_seconds_ms(void)
{
	return clock_unix_ms() / 1000 * 1000;
}

int key_check(const char *key, struct error *e)
{
	size_t len = strlen(key);

	if (len == 0)
		return error_set(e, "InvalidArgument", "An object's key cannot be empty.");
	if (len > STORE_KEY_MAX)
		return error_set(e, "KeyTooLongError", "The key has %zu bytes; %d are the limit.",
				 len, STORE_KEY_MAX);
	if (!utf8_valid(key, len))
		return error_set(e, "InvalidArgument", "The key is not valid UTF-8.");
	return 0;
}

void row_bind_pairs(sqlite3_stmt *st, int i, const struct store_pairs *p)
{
	struct buf b = BUF_INIT;

	for (size_t n = 0; n < p->count; n++) {
		buf_append(&b, p->items[n].name, strlen(p->items[n].name) + 1);
		buf_append(&b, p->items[n].value, strlen(p->items[n].value) + 1);
	}
	if (b.len > 0)
		sqlite3_bind_blob(st, i, b.data, (int)b.len, SQLITE_TRANSIENT);
	buf_done(&b);
}

void row_column_pairs(struct arena *a, sqlite3_stmt *st, int col, struct store_pairs *ret)
{
	const void *blob = sqlite3_column_blob(st, col);
	size_t len = (size_t)sqlite3_column_bytes(st, col), strings = 0;

	*ret = (struct store_pairs){0};
	if (!blob || len == 0)
		return;
	char *text =
	    arena_strndup(a, blob, len); /* ends with a NUL more, so that no string runs over */

	for (size_t i = 0; i < len; i++)
		strings += text[i] == '\0';

	struct store_pair *items = arena_new_array(a, struct store_pair, strings / 2);
	const char *p = text;

	for (size_t i = 0; i < strings / 2; i++) {
		items[i].name = p;
		p += strlen(p) + 1;
		items[i].value = p;
		p += strlen(p) + 1;
	}
	ret->items = items;
	ret->count = strings / 2;
}

void row_object(struct arena *a, sqlite3_stmt *st, bool with_pairs, struct object_row *ret)
{
	*ret = (struct object_row){
	    .o =
		{
		    .key = db_column_key(a, st, 0),
		    .size = (uint64_t)sqlite3_column_int64(st, 1),
		    .etag = db_column_text(a, st, 2),
		    .modified_ms = sqlite3_column_int64(st, 3),
		    .part_count = sqlite3_column_int(st, 4),
		},
	    .blob = sqlite3_column_int64(st, 6),
	    .kind = (enum blob_kind)sqlite3_column_int(st, 7),
	    .upload = db_column_text(a, st, 8),
	};
	if (with_pairs)
		row_column_pairs(a, st, 5, &ret->o.pairs);
}

int row_object_get(struct db_conn *c, struct arena *a, int64_t bucket, const char *key,
		   struct object_row *ret, struct error *e)
{
	sqlite3_stmt *st = db_stmt(c, SQL_OBJECT_GET);

	sqlite3_bind_int64(st, 1, bucket);
	db_bind_key(st, 2, key);
	int r = db_step(c, st, e);

	if (r > 0) {
		row_object(a, st, true, ret);
		sqlite3_reset(st);
	}
	return r;
}

int row_object_insert(struct db_conn *c, int64_t bucket, const struct object_row *row,
		      struct error *e)
{
	sqlite3_stmt *st = db_stmt(c, SQL_OBJECT_INSERT);

	sqlite3_bind_int64(st, 1, bucket);
	db_bind_key(st, 2, row->o.key);
	sqlite3_bind_int64(st, 3, row->blob);
	sqlite3_bind_int(st, 4, row->kind);
	sqlite3_bind_int64(st, 5, (int64_t)row->o.size);
	db_bind_text(st, 6, row->o.etag);
	sqlite3_bind_int64(st, 7, row->o.modified_ms);
	sqlite3_bind_int(st, 8, row->o.part_count);
	db_bind_text(st, 9, row->upload);
	row_bind_pairs(st, 10, &row->o.pairs);
	return db_exec(c, st, e);
}

static int delete_by_number(struct db_conn *c, enum sql which, int64_t number, struct error *e)
{
	sqlite3_stmt *st = db_stmt(c, which);

	sqlite3_bind_int64(st, 1, number);
	return db_exec(c, st, e);
}

static int extents_remove(struct db_conn *c, int64_t blob, struct dropped_list *l, struct error *e)
{
	sqlite3_stmt *st = db_stmt(c, SQL_EXTENT_LIST);
	int r;

	sqlite3_bind_int64(st, 1, blob);
	while ((r = db_step(c, st, e)) > 0) {
		int64_t file = sqlite3_column_int64(st, 0);
		enum blob_kind kind = (enum blob_kind)sqlite3_column_int(st, 1);

		if (kind == BLOB_FILE)
			dropped_add(l, blob, file);
		else if (kind == BLOB_INLINE &&
			 (r = delete_by_number(c, SQL_INLINE_DELETE, file, e)) < 0)
			return r;
	}
	return r < 0 ? r : delete_by_number(c, SQL_EXTENT_DELETE, blob, e);
}

int row_object_remove(struct db_conn *c, int64_t bucket, const struct object_row *row,
		      struct dropped_list *l, struct error *e)
{
	int r = 0;

	if (row->kind == BLOB_FILE)
		dropped_add(l, row->blob, row->blob);
	else if (row->kind == BLOB_INLINE)
		r = delete_by_number(c, SQL_INLINE_DELETE, row->blob, e);
	else if (row->kind == BLOB_EXTENTS)
		r = extents_remove(c, row->blob, l, e);
	if (r < 0)
		return r;
	sqlite3_stmt *st = db_stmt(c, SQL_OBJECT_DELETE);

	sqlite3_bind_int64(st, 1, bucket);
	db_bind_key(st, 2, row->o.key);
	return db_exec(c, st, e);
}

int row_bucket_exists(struct db_conn *c, int64_t bucket, struct error *e)
{
	sqlite3_stmt *st = db_stmt(c, SQL_BUCKET_BY_ID);

	sqlite3_bind_int64(st, 1, bucket);
	int r = db_step(c, st, e);

	if (r == 0)
		return error_set(e, "NoSuchBucket", "The bucket was deleted.");
	return r < 0 ? r : 0;
}

int row_condition_check(const struct store_condition *cond, const struct object_row *old,
			const char *key, struct error *e)
{
	if (cond->if_none && old)
		return error_set(e, "PreconditionFailed",
				 "An object with the key %.200s is there already.", key);
	if (!cond->if_match)
		return 0;
	if (!old)
		return error_set(e, "NoSuchKey", "There is no object with the key %.200s.", key);
	if (!str_eq(cond->if_match, "*") && !str_eq(cond->if_match, old->o.etag))
		return error_set(e, "PreconditionFailed", "The object %.200s has another ETag: %s.",
				 key, old->o.etag);
	return 0;
}

void row_upload(struct arena *a, sqlite3_stmt *st, bool with_pairs, struct store_upload *ret)
{
	*ret = (struct store_upload){
	    .key = db_column_key(a, st, 0),
	    .id = db_column_text(a, st, 1),
	    .initiated_ms = sqlite3_column_int64(st, 2),
	};
	if (with_pairs)
		row_column_pairs(a, st, 3, &ret->pairs);
}

int row_upload_get(struct db_conn *c, struct arena *a, int64_t bucket, const char *key,
		   const char *id, struct store_upload *ret, struct error *e)
{
	sqlite3_stmt *st = db_stmt(c, SQL_UPLOAD_GET);

	sqlite3_bind_int64(st, 1, bucket);
	db_bind_key(st, 2, key);
	db_bind_text(st, 3, id);
	int r = db_step(c, st, e);

	if (r == 0)
		return error_set(
		    e, "NoSuchUpload",
		    "There is no such upload for this key: it was completed, aborted, or never begun.");
	if (r < 0)
		return r;
	row_upload(a, st, true, ret);
	sqlite3_reset(st);
	return 0;
}

int row_upload_remove(struct db_conn *c, int64_t bucket, const char *key, const char *id,
		      struct error *e)
{
	sqlite3_stmt *st = db_stmt(c, SQL_UPLOAD_DELETE);

	sqlite3_bind_int64(st, 1, bucket);
	db_bind_key(st, 2, key);
	db_bind_text(st, 3, id);
	return db_exec(c, st, e);
}

void row_part(struct arena *a, sqlite3_stmt *st, struct part_row *ret)
{
	*ret = (struct part_row){
	    .p =
		{
		    .number = sqlite3_column_int(st, 0),
		    .size = (uint64_t)sqlite3_column_int64(st, 1),
		    .etag = db_column_text(a, st, 2),
		    .modified_ms = sqlite3_column_int64(st, 3),
		},
	    .file = sqlite3_column_int64(st, 5),
	    .kind = (enum blob_kind)sqlite3_column_int(st, 6),
	};
	row_column_pairs(a, st, 4, &ret->p.pairs);
}

int row_parts_remove(struct db_conn *c, const char *upload,
		     const bool keep[STORE_PART_NUMBER_MAX + 1], struct dropped_list *l,
		     struct error *e)
{
	sqlite3_stmt *st = db_stmt(c, SQL_PART_LIST);
	int r;

	db_bind_text(st, 1, upload);
	sqlite3_bind_int(st, 2, 0);
	while ((r = db_step(c, st, e)) > 0) {
		int64_t file = sqlite3_column_int64(st, 5);
		enum blob_kind kind = (enum blob_kind)sqlite3_column_int(st, 6);

		if (keep && keep[sqlite3_column_int(st, 0)])
			continue;
		if (kind == BLOB_FILE)
			dropped_add(l, 0, file);
		else if (kind == BLOB_INLINE &&
			 (r = delete_by_number(c, SQL_INLINE_DELETE, file, e)) < 0)
			return r;
	}
	if (r < 0)
		return r;
	st = db_stmt(c, SQL_PART_DELETE_ALL);
	db_bind_text(st, 1, upload);
	return db_exec(c, st, e);
}
