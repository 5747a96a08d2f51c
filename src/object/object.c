/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "object/store_priv.h"

int store_object_head(struct store *s, struct arena *a, int64_t bucket, const char *key,
		      struct store_object *ret, struct error *e)
{
	struct object_row row;
	struct db_conn *c;
	int r = db_read_begin(s->db, &c, e);

	if (r < 0)
		return r;
	r = row_object_get(c, a, bucket, key, &row, e);
	db_read_end(s->db, c);
	if (r == 0)
		return error_set(e, "NoSuchKey", "There is no object with the key %.300s.", key);
	if (r < 0)
		return r;
	*ret = row.o;
	return 0;
}

struct object_delete {
	struct arena *a;
	int64_t bucket;
	const char *const *keys;
	size_t count;
	bool *existed;
	const struct store_condition *condition;
	struct dropped_list dropped;
};

static int delete_op(struct db_conn *c, void *ctx, struct error *e)
{
	struct object_delete *op = ctx;

	for (size_t i = 0; i < op->count; i++) {
		struct object_row row;
		int r = row_object_get(c, op->a, op->bucket, op->keys[i], &row, e);
		bool found = r > 0;

		if (r >= 0 && op->condition)
			r = row_condition_check(op->condition, found ? &row : NULL, op->keys[i], e);
		if (r >= 0 && found)
			r = row_object_remove(c, op->bucket, &row, &op->dropped, e);
		if (r < 0)
			return r;
		if (op->existed)
			op->existed[i] = found;
	}
	return 0;
}

static int run_delete(struct store *s, struct object_delete *op, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();

	op->a = a;
	int r = db_write(s->db, delete_op, op, e);

	if (r >= 0)
		files_release(s, &op->dropped);
	dropped_done(&op->dropped);
	return r;
}

int store_objects_delete(struct store *s, int64_t bucket, const char *const *keys, size_t count,
			 bool *ret_existed, struct error *e)
{
	struct object_delete op = {
	    .bucket = bucket, .keys = keys, .count = count, .existed = ret_existed};

	return run_delete(s, &op, e);
}

int store_object_delete_if(struct store *s, int64_t bucket, const char *key, const char *if_match,
			   struct error *e)
{
	struct store_condition condition = {.if_match = if_match};
	struct object_delete op = {
	    .bucket = bucket, .keys = &key, .count = 1, .condition = &condition};

	return run_delete(s, &op, e);
}
