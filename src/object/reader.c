/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "object/reader_priv.h"
#include "os/file.h"

static int load_inline(struct db_conn *c, struct arena *a, struct extent *x, struct error *e)
{
	sqlite3_stmt *st = db_stmt(c, SQL_INLINE_GET);

	sqlite3_bind_int64(st, 1, x->file);
	int r = db_step(c, st, e);

	if (r < 0)
		return r;
	if (r == 0 || (uint64_t)sqlite3_column_bytes(st, 0) != x->len)
		return error_set(e, "InternalError",
				 "The object's data in the database is damaged.");
	x->memory = arena_memdup(a, sqlite3_column_blob(st, 0), x->len);
	sqlite3_reset(st);
	return 0;
}

static int load_extents(struct db_conn *c, struct store_reader *r, int part_count, struct error *e)
{
	sqlite3_stmt *st = db_stmt(c, SQL_EXTENT_LIST);
	uint64_t off = 0;
	int rc;

	r->extents = arena_new_array(r->a, struct extent, (size_t)part_count);
	sqlite3_bind_int64(st, 1, r->blob);
	while ((rc = db_step(c, st, e)) > 0 && r->count < (size_t)part_count) {
		struct extent *x = &r->extents[r->count++];

		x->file = sqlite3_column_int64(st, 0);
		x->kind = (enum blob_kind)sqlite3_column_int(st, 1);
		x->len = (uint64_t)sqlite3_column_int64(st, 2);
		x->off = off;
		off += x->len;
	}
	if (rc < 0)
		return rc;
	if (rc > 0 || off != r->size)
		return error_set(e, "InternalError", "The object's list of parts is damaged.");
	return 0;
}

/* All that is needed to read the row's blob. */
static int load(struct db_conn *c, struct store_reader *r, const struct object_row *row,
		struct error *e)
{
	int rc = 0;

	r->blob = row->blob;
	r->size = row->o.size;
	r->multipart = row->kind == BLOB_EXTENTS;
	r->count = 0;
	if (row->kind == BLOB_EXTENTS) {
		rc = load_extents(c, r, row->o.part_count, e);
	} else if (row->kind != BLOB_EMPTY) {
		r->extents = arena_new_struct(r->a, struct extent);
		*r->extents = (struct extent){.len = r->size, .file = row->blob, .kind = row->kind};
		r->count = 1;
	}
	for (size_t i = 0; i < r->count && rc >= 0; i++)
		if (r->extents[i].kind == BLOB_INLINE)
			rc = load_inline(c, r->a, &r->extents[i], e);
	return rc;
}

/* 1 done; 0 no such object; negative failed. See store.c for why the row is read twice. */
static int find_and_pin(struct store_reader *r, struct arena *a, int64_t bucket, const char *key,
			struct object_row *row, struct error *e)
{
	struct db_conn *c;
	int rc = db_read_begin(r->s->db, &c, e);

	if (rc < 0)
		return rc;
	for (;;) {
		rc = db_snapshot_begin(c, e);
		if (rc < 0)
			break;
		rc = row_object_get(c, a, bucket, key, row, e);
		if (rc > 0) {
			int loaded = load(c, r, row, e);

			rc = loaded < 0 ? loaded : 1;
		}
		db_snapshot_end(c);
		if (rc <= 0)
			break;
		files_pin(r->s, r->blob);
		r->pinned = true;
		struct object_row again;

		rc = row_object_get(c, a, bucket, key, &again, e);
		if (rc < 0 || (rc > 0 && again.blob == r->blob))
			break;
		files_unpin(r->s, r->blob);
		r->pinned = false;
	}
	db_read_end(r->s->db, c);
	return rc;
}

static int switch_to(struct store_reader *r, size_t extent)
{
	if (r->fd >= 0 && r->current == extent)
		return 0;
	fd_closep(&r->fd);
	int fd = files_open(r->s, r->extents[extent].file);

	if (fd < 0)
		return fd;
	r->fd = fd;
	r->current = extent;
	return 0;
}

int store_object_open(struct store *s, struct arena *a, int64_t bucket, const char *key,
		      struct store_object *ret, struct store_reader **ret_reader, struct error *e)
{
	_cleanup_(store_reader_freep) struct store_reader *r = calloc(1, sizeof(*r));
	struct object_row row;

	if (!r)
		abort();
	r->s = s;
	r->fd = -1;
	r->a = arena_new();
	int rc = find_and_pin(r, a, bucket, key, &row, e);

	if (rc == 0)
		return error_set(e, "NoSuchKey", "There is no object with the key %.300s.", key);
	if (rc < 0)
		return rc;
	if (r->count == 1 && r->extents[0].kind == BLOB_FILE) {
		rc = switch_to(r, 0);
		if (rc < 0)
			return error_errno(e, rc, "opening the object's data file");
	}
	*ret = row.o;
	*ret_reader = TAKE_PTR(r);
	return 0;
}

void store_reader_free(struct store_reader *r)
{
	if (!r)
		return;
	fd_closep(&r->fd);
	if (r->pinned)
		files_unpin(r->s, r->blob);
	arena_free(r->a);
	free(r);
}

/* The extent that holds byte off, which is below the object's size. */
static size_t find_extent(const struct store_reader *r, uint64_t off)
{
	size_t low = 0, high = r->count;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (r->extents[mid].off <= off)
			low = mid;
		else
			high = mid;
	}
	return low;
}

ssize_t store_reader_read(struct store_reader *r, uint64_t off, void *buf, size_t max)
{
	if (off >= r->size || max == 0)
		return 0;
	size_t i = find_extent(r, off);
	const struct extent *x = &r->extents[i];
	uint64_t skip = off - x->off;
	size_t n = (size_t)MIN_OF((uint64_t)max, x->len - skip);

	if (x->kind == BLOB_INLINE) {
		memcpy(buf, (const char *)x->memory + skip, n);
		return (ssize_t)n;
	}
	int rc = switch_to(r, i);

	if (rc < 0)
		return rc;
	ssize_t got;

	do
		got = pread(r->fd, buf, n, (off_t)skip);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	return got == 0 ? -EIO : got; /* the file is shorter than it was made */
}

bool store_reader_file(struct store_reader *r, uint64_t off, uint64_t len, int *ret_fd,
		       uint64_t *ret_off)
{
	if (len == 0 || off >= r->size)
		return false;
	size_t i = find_extent(r, off);
	const struct extent *x = &r->extents[i];

	if (x->kind != BLOB_FILE || len > x->len - (off - x->off) || switch_to(r, i) < 0)
		return false;
	*ret_fd = r->fd; /* handed over; a later read opens it again */
	r->fd = -1;
	*ret_off = off - x->off;
	return true;
}

const void *store_reader_memory(const struct store_reader *r)
{
	return r->count == 1 && r->extents[0].kind == BLOB_INLINE ? r->extents[0].memory : NULL;
}

bool store_reader_part(const struct store_reader *r, int n, uint64_t *ret_off, uint64_t *ret_len)
{
	if (!r->multipart || n < 1 || (size_t)n > r->count)
		return false;
	*ret_off = r->extents[n - 1].off;
	*ret_len = r->extents[n - 1].len;
	return true;
}
