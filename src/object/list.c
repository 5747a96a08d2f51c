/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "object/store_priv.h"

/*
 * Listing walks the primary key (bucket, key) from where the page starts. As soon as a key is
 * rolled up into a common prefix, the walk starts anew behind everything with that prefix: a page
 * costs one seek for each prefix and one step for each object.
 */

char *list_successor(struct arena *a, const char *s)
{
	size_t len = strlen(s);

	while (len > 0 && (unsigned char)s[len - 1] == 0xff)
		len--;
	if (len == 0)
		return NULL;
	char *t = arena_strndup(a, s, len);

	t[len - 1]++;
	return t;
}

const char *list_common_prefix(struct arena *a, const char *key, const char *prefix,
			       const char *delimiter)
{
	if (!*delimiter || !str_prefix(key, prefix))
		return NULL;
	const char *found = strstr(key + strlen(prefix), delimiter);

	return found ? arena_strndup(a, key, (size_t)(found - key) + strlen(delimiter)) : NULL;
}

struct walk {
	struct db_conn *c;
	struct arena *a;
	const struct store_list *q;
	const char *prefix, *delimiter;
	sqlite3_stmt *st;
};

static void seek(struct walk *w, enum sql which, const char *key)
{
	w->st = db_stmt(w->c, which);
	sqlite3_bind_int64(w->st, 1, w->q->bucket);
	db_bind_key(w->st, 2, key);
}

/* False: nothing can follow. */
static bool seek_past_prefix(struct walk *w, const char *common)
{
	const char *next = list_successor(w->a, common);

	if (next)
		seek(w, SQL_OBJECT_FROM, next);
	return next != NULL;
}

static bool seek_start(struct walk *w)
{
	const char *after = w->q->after ? w->q->after : "";
	const char *common = list_common_prefix(w->a, after, w->prefix, w->delimiter);

	if (common) /* behind a rolled-up entry: its other keys are the same entry */
		return seek_past_prefix(w, common);
	if (strcmp(after, w->prefix) < 0 || !*after)
		seek(w, SQL_OBJECT_FROM, w->prefix);
	else
		seek(w, SQL_OBJECT_BEHIND, after);
	return true;
}

static int walk_page(struct walk *w, struct store_listing *l, struct error *e)
{
	bool more = seek_start(w);
	int r = 0;

	while (more && (r = db_step(w->c, w->st, e)) > 0) {
		const char *key = db_column_key(w->a, w->st, 0);

		if (!str_prefix(key, w->prefix))
			break;
		if (l->object_count + l->prefix_count == (size_t)w->q->max) {
			l->truncated = true;
			break;
		}
		const char *common = list_common_prefix(w->a, key, w->prefix, w->delimiter);

		l->last = common ? common : key;
		if (common) {
			l->prefixes[l->prefix_count++] = common;
			more = seek_past_prefix(w, common);
		} else {
			struct object_row row;

			row_object(w->a, w->st, false, &row);
			l->objects[l->object_count++] = row.o;
		}
	}
	return r < 0 ? r : 0;
}

int store_object_list(struct store *s, struct arena *a, const struct store_list *q,
		      struct store_listing *ret, struct error *e)
{
	struct store_listing l = {0};
	struct walk w = {.a = a,
			 .q = q,
			 .prefix = q->prefix ? q->prefix : "",
			 .delimiter = q->delimiter ? q->delimiter : ""};

	if (q->max < 0 || q->max > STORE_LIST_MAX)
		return error_set(e, "InvalidArgument",
				 "A page of a listing can have 0 to %d entries.", STORE_LIST_MAX);
	if (q->max == 0) {
		*ret = l;
		return 0;
	}
	l.objects = arena_new_array(a, struct store_object, (size_t)q->max);
	l.prefixes = arena_new_array(a, const char *, (size_t)q->max);
	int r = db_read_begin(s->db, &w.c, e);

	if (r < 0)
		return r;
	r = db_snapshot_begin(w.c, e); /* the page's several seeks see one state of the bucket */
	if (r >= 0) {
		r = walk_page(&w, &l, e);
		db_snapshot_end(w.c);
	}
	db_read_end(s->db, w.c);
	if (r < 0)
		return r;
	*ret = l;
	return 0;
}
