/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "object/store_priv.h"

/*
 * Completing a multipart upload: the chosen parts' data become the extents of a new object, in one
 * transaction and without copying. Parts that the list leaves out are dropped.
 */

struct complete {
	struct arena *a;
	const struct store_complete *c;
	bool keep[STORE_PART_NUMBER_MAX + 1];
	struct digest_set *md5; /* of the parts' MD5s */
	size_t found;
	uint64_t size;
	struct object_row row;
	struct dropped_list dropped;
};

static int check_list(const struct store_complete *c, struct error *e)
{
	if (c->part_count == 0)
		return error_set(e, "InvalidArgument",
				 "A multipart upload is completed with at least one part.");
	for (size_t i = 0; i < c->part_count; i++) {
		if (c->parts[i].number < 1 || c->parts[i].number > STORE_PART_NUMBER_MAX)
			return error_set(e, "InvalidArgument", "Part numbers go from 1 to %d.",
					 STORE_PART_NUMBER_MAX);
		if (i > 0 && c->parts[i].number <= c->parts[i - 1].number)
			return error_set(e, "InvalidPartOrder", "Part %d is listed behind part %d.",
					 c->parts[i].number, c->parts[i - 1].number);
	}
	return 0;
}

static int no_such_part(const struct store_part_ref *ref, struct error *e)
{
	return error_set(e, "InvalidPart", "Part %d was not uploaded, or its ETag is not %.64s.",
			 ref->number, ref->etag);
}

static int take_part(struct db_conn *c, struct complete *op, const struct part_row *part,
		     struct error *e)
{
	const struct store_part_ref *ref = &op->c->parts[op->found];
	unsigned char md5[DIGEST_MAX];
	bool last = op->found + 1 == op->c->part_count;

	if (!str_eq(ref->etag, part->p.etag) ||
	    strlen(part->p.etag) != 2 * digest_len(DIGEST_MD5) ||
	    hex_decode(part->p.etag, 2 * digest_len(DIGEST_MD5), md5) < 0)
		return no_such_part(ref, e);
	if (!last && part->p.size < STORE_PART_MIN)
		return error_set(e, "EntityTooSmall",
				 "Part %d has %llu bytes; every part but the last needs %llu.",
				 part->p.number, (unsigned long long)part->p.size,
				 (unsigned long long)STORE_PART_MIN);
	if (part->p.size > STORE_OBJECT_MAX - op->size)
		return error_set(e, "EntityTooLarge", "An object can have %llu bytes.",
				 (unsigned long long)STORE_OBJECT_MAX);
	digest_set_update(op->md5, md5, digest_len(DIGEST_MD5));
	op->size += part->p.size;

	sqlite3_stmt *st = db_stmt(c, SQL_EXTENT_INSERT);

	sqlite3_bind_int64(st, 1, op->row.blob);
	sqlite3_bind_int64(st, 2, (int64_t)op->found);
	sqlite3_bind_int64(st, 3, part->file);
	sqlite3_bind_int(st, 4, part->kind);
	sqlite3_bind_int64(st, 5, (int64_t)part->p.size);
	op->keep[part->p.number] = true;
	op->found++;
	return db_exec(c, st, e);
}

/* Both lists are in order of number. */
static int take_parts(struct db_conn *c, struct complete *op, struct error *e)
{
	_cleanup_(arena_freep) struct arena *scratch = arena_new();
	sqlite3_stmt *st = db_stmt(c, SQL_PART_LIST);
	int r;

	db_bind_text(st, 1, op->c->upload);
	sqlite3_bind_int(st, 2, 0);
	while (op->found < op->c->part_count && (r = db_step(c, st, e)) > 0) {
		const struct store_part_ref *ref = &op->c->parts[op->found];
		struct part_row part;

		if (sqlite3_column_int(st, 0) < ref->number)
			continue;
		row_part(scratch, st, &part);
		if (part.p.number > ref->number)
			return no_such_part(ref, e);
		r = take_part(c, op, &part, e);
		if (r < 0)
			return r;
	}
	if (op->found < op->c->part_count)
		return r < 0 ? r : no_such_part(&op->c->parts[op->found], e);
	sqlite3_reset(st);
	return 0;
}

static int replace_object(struct db_conn *c, struct complete *op, struct error *e)
{
	struct object_row old;
	int found = row_object_get(c, op->a, op->c->bucket, op->c->key, &old, e);

	if (found < 0)
		return found;
	int r = row_condition_check(&op->c->condition, found ? &old : NULL, op->c->key, e);

	if (r >= 0 && found)
		r = row_object_remove(c, op->c->bucket, &old, &op->dropped, e);
	return r < 0 ? r : row_object_insert(c, op->c->bucket, &op->row, e);
}

static void make_etag(struct complete *op)
{
	unsigned char md5[DIGEST_MAX];
	char hex[2 * DIGEST_MAX + 1];

	hex_encode(md5, digest_set_get(op->md5, DIGEST_MD5, md5), hex);
	op->row.o.etag = arena_printf(op->a, "%s-%zu", hex, op->found);
}

/* A client that lost the reply asks again: the upload is gone, and the object says that it came
 * from it. */
static int completed_before(struct db_conn *c, struct complete *op, struct error *e)
{
	struct object_row row;
	struct store_upload up;
	int r = row_object_get(c, op->a, op->c->bucket, op->c->key, &row, e);

	if (r < 0)
		return r;
	if (r == 0 || !str_eq(row.upload, op->c->upload))
		return row_upload_get(c, op->a, op->c->bucket, op->c->key, op->c->upload, &up, e);
	op->row = row;
	return 1;
}

static int complete_op(struct db_conn *c, void *ctx, struct error *e)
{
	struct complete *op = ctx;
	int r = completed_before(c, op, e);

	if (r != 0)
		return r;
	r = take_parts(c, op, e);
	if (r < 0)
		return r;
	make_etag(op);
	op->row.o.size = op->size;
	op->row.o.part_count = (int)op->found;
	r = replace_object(c, op, e);
	if (r >= 0)
		r = row_parts_remove(c, op->c->upload, op->keep, &op->dropped, e);
	return r < 0 ? r : row_upload_remove(c, op->c->bucket, op->c->key, op->c->upload, e);
}

int store_upload_complete(struct store *s, struct arena *a, const struct store_complete *c,
			  struct store_object *ret, struct error *e)
{
	int r = check_list(c, e);

	if (r < 0)
		return r;
	_cleanup_(freep) struct complete *op = calloc(1, sizeof(*op));
	_cleanup_(digest_set_freep) struct digest_set *md5 = digest_set_new(DIGEST_BIT(DIGEST_MD5));

	if (!op)
		abort();
	op->a = a;
	op->c = c;
	op->md5 = md5;
	op->row = (struct object_row){
	    .o = {.key = c->key, .modified_ms = now_seconds_ms(), .pairs = c->pairs},
	    .blob = files_new_number(),
	    .kind = BLOB_EXTENTS,
	    .upload = c->upload,
	};
	r = db_write(s->db, complete_op, op, e);
	if (r >= 0) {
		files_release(s, &op->dropped);
		*ret = op->row.o;
	}
	dropped_done(&op->dropped);
	return r < 0 ? r : 0;
}
