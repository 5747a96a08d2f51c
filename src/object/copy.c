/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "object/reader_priv.h"
#include "object/writer_priv.h"

/*
 * A copy shares its data files with the source through hard links: data files never change, and
 * each name is unlinked for itself. The links are made and their folders synced before the
 * transaction that names them; those of a copy that failed are removed here, and those of a crash
 * at the next start.
 */
struct copy {
	struct arena *a;
	const struct store_copy *c;
	struct extent *extents; /* with numbers of their own */
	size_t linked;		/* so many of them are links made already */
	struct object_row row;
	struct dropped_list dropped;
};

static int link_files(struct store *s, struct copy *op, struct error *e)
{
	const struct store_reader *from = op->c->from;
	bool shards[FILES_SHARDS] = {false};
	int r = 0;

	op->extents = arena_new_array(op->a, struct extent, from->count);
	for (; op->linked < from->count; op->linked++) {
		struct extent *x = &op->extents[op->linked];

		*x = from->extents[op->linked];
		if (x->kind == BLOB_FILE)
			r = files_link(s, x->file, &x->file, e);
		else
			x->file = files_new_number();
		if (r < 0)
			return r;
		if (x->kind == BLOB_FILE)
			shards[x->file % FILES_SHARDS] = true;
	}
	for (unsigned i = 0; i < FILES_SHARDS && r >= 0; i++)
		if (shards[i])
			r = files_sync_shard(s, i, e);
	return r;
}

static void unlink_files(struct store *s, const struct copy *op)
{
	for (size_t i = 0; i < op->linked; i++)
		if (op->extents[i].kind == BLOB_FILE)
			files_unlink(s, op->extents[i].file);
}

static int insert_extent(struct db_conn *c, const struct copy *op, size_t i, struct error *e)
{
	const struct extent *x = &op->extents[i];
	const struct writer_blob b = {
	    .kind = x->kind, .number = x->file, .size = x->len, .memory = x->memory};
	int r = writer_blob_insert(c, &b, e);

	if (r < 0 || op->row.kind != BLOB_EXTENTS)
		return r;
	sqlite3_stmt *st = db_stmt(c, SQL_EXTENT_INSERT);

	sqlite3_bind_int64(st, 1, op->row.blob);
	sqlite3_bind_int64(st, 2, (int64_t)i);
	sqlite3_bind_int64(st, 3, x->file);
	sqlite3_bind_int(st, 4, x->kind);
	sqlite3_bind_int64(st, 5, (int64_t)x->len);
	return db_exec(c, st, e);
}

static int copy_op(struct db_conn *c, void *ctx, struct error *e)
{
	struct copy *op = ctx;
	const struct store_put *to = &op->c->to;
	struct object_row old;
	int r = row_bucket_exists(c, to->bucket, e);

	if (r < 0)
		return r;
	int found = row_object_get(c, op->a, to->bucket, to->key, &old, e);

	if (found < 0)
		return found;
	r = row_condition_check(&to->condition, found ? &old : NULL, to->key, e);
	if (r >= 0 && found)
		r = row_object_remove(c, to->bucket, &old, &op->dropped, e);
	for (size_t i = 0; i < op->c->from->count && r >= 0; i++)
		r = insert_extent(c, op, i, e);
	return r < 0 ? r : row_object_insert(c, to->bucket, &op->row, e);
}

int store_object_copy(struct store *s, struct arena *a, const struct store_copy *c,
		      struct store_object *ret, struct error *e)
{
	struct copy op = {.a = a, .c = c};
	int r = key_check(c->to.key, e);

	if (r >= 0)
		r = files_check_space(s, 0, e);
	if (r >= 0)
		r = link_files(s, &op, e);
	if (r >= 0) {
		op.row.o = *c->object;
		op.row.o.key = c->to.key;
		op.row.o.pairs = c->to.pairs;
		op.row.o.modified_ms = now_seconds_ms();
		op.row.kind = c->from->multipart ? BLOB_EXTENTS
			      : c->from->count	 ? op.extents[0].kind
						 : BLOB_EMPTY;
		op.row.blob = op.row.kind == BLOB_FILE || op.row.kind == BLOB_INLINE
				  ? op.extents[0].file
				  : files_new_number();
		r = db_write(s->db, copy_op, &op, e);
	}
	if (r >= 0) {
		files_release(s, &op.dropped);
		*ret = op.row.o;
	} else if (r != DB_UNSURE) {
		unlink_files(s, &op);
	}
	dropped_done(&op.dropped);
	return r;
}
