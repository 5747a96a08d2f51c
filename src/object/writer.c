/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "object/store_priv.h"
#include "object/writer_priv.h"
#include "os/file.h"

/*
 * Bytes on their way in. Up to STORE_INLINE_MAX they stay in memory; what is longer goes to a data
 * file, which nobody can see until a commit names it. The disk is kept writing while data arrives,
 * so that the sync at the end finds little left to do and an upload never fills the page cache.
 */
struct store_writer {
	struct store *s;
	struct digest_set *digests;
	uint64_t size;
	uint64_t pushed; /* to the disk, so far */
	char *memory;	 /* STORE_INLINE_MAX bytes; NULL once there is a file */
	int fd;
	int64_t file;
	bool committed;
};

int store_writer_new(struct store *s, uint64_t size, unsigned digests, struct store_writer **ret,
		     struct error *e)
{
	if (size != STORE_SIZE_UNKNOWN && size > STORE_PUT_MAX)
		return error_set(e, "EntityTooLarge",
				 "One upload can have %llu bytes; send more as a multipart upload.",
				 (unsigned long long)STORE_PUT_MAX);
	int r = files_check_space(s, size == STORE_SIZE_UNKNOWN ? 0 : size, e);

	if (r < 0)
		return r;
	struct store_writer *w = calloc(1, sizeof(*w));

	if (!w || !(w->memory = malloc(STORE_INLINE_MAX)))
		abort();
	w->s = s;
	w->fd = -1;
	w->digests = digest_set_new(digests | DIGEST_BIT(DIGEST_MD5));
	*ret = w;
	return 0;
}

void store_writer_free(struct store_writer *w)
{
	if (!w)
		return;
	if (w->fd >= 0 && !w->committed)
		files_unlink(w->s, w->file);
	fd_closep(&w->fd);
	free(w->memory);
	digest_set_free(w->digests);
	free(w);
}

static int write_file(struct store_writer *w, const void *data, size_t len, uint64_t off,
		      struct error *e)
{
	int r = fd_pwrite_all(w->fd, data, len, off);

	if (r == -ENOSPC || r == -EDQUOT)
		return error_set(e, "InsufficientStorage",
				 "The disk that holds the object store is full.");
	if (r < 0)
		return error_errno(e, r, "writing a data file");
	return 0;
}

static int push(struct store_writer *w, struct error *e)
{
	if (w->size - w->pushed < STORE_WRITEBACK_STEP)
		return 0;
	int r = files_check_space(w->s, 0, e);

	if (r < 0)
		return r;
	/* Only a hint: errors come back from the sync at the end. Waiting for the step before
	 * bounds what is dirty. */
	sync_file_range(w->fd, (off_t)w->pushed, (off_t)(w->size - w->pushed),
			SYNC_FILE_RANGE_WRITE);
	if (w->pushed > 0) {
		uint64_t before = w->pushed - MIN_OF(w->pushed, STORE_WRITEBACK_STEP);

		sync_file_range(w->fd, (off_t)before, (off_t)(w->pushed - before),
				SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				    SYNC_FILE_RANGE_WAIT_AFTER);
	}
	w->pushed = w->size;
	return 0;
}

int store_writer_write(struct store_writer *w, const void *data, size_t len, struct error *e)
{
	int r;

	if (len > STORE_PUT_MAX - w->size)
		return error_set(e, "EntityTooLarge",
				 "One upload can have %llu bytes; send more as a multipart upload.",
				 (unsigned long long)STORE_PUT_MAX);
	digest_set_update(w->digests, data, len);
	if (w->memory && w->size + len <= STORE_INLINE_MAX) {
		if (len > 0)
			memcpy(w->memory + w->size, data, len);
		w->size += len;
		return 0;
	}
	if (w->memory) {
		r = files_create(w->s, &w->file, &w->fd, e);
		if (r >= 0)
			r = write_file(w, w->memory, w->size, 0, e);
		if (r < 0)
			return r;
		free(TAKE_PTR(w->memory));
	}
	r = write_file(w, data, len, w->size, e);
	if (r < 0)
		return r;
	w->size += len;
	return push(w, e);
}

uint64_t store_writer_size(const struct store_writer *w)
{
	return w->size;
}

size_t store_writer_digest(const struct store_writer *w, enum digest_kind kind,
			   unsigned char out[static DIGEST_MAX])
{
	return digest_set_get(w->digests, kind, out);
}

struct store *writer_store(const struct store_writer *w)
{
	return w->s;
}

int writer_seal(struct store_writer *w, struct arena *a, struct writer_blob *ret, struct error *e)
{
	unsigned char md5[DIGEST_MAX];
	size_t len = store_writer_digest(w, DIGEST_MD5, md5);
	char *etag = arena_alloc(a, 2 * len + 1);

	hex_encode(md5, len, etag);
	*ret = (struct writer_blob){.size = w->size, .etag = etag};
	if (w->fd >= 0) {
		ret->kind = BLOB_FILE;
		ret->number = w->file;
		return files_sync(w->s, w->file, w->fd, e);
	}
	ret->kind = w->size > 0 ? BLOB_INLINE : BLOB_EMPTY;
	ret->number = files_new_number();
	ret->memory = w->memory;
	return 0;
}

int writer_blob_insert(struct db_conn *c, const struct writer_blob *b, struct error *e)
{
	if (b->kind != BLOB_INLINE)
		return 0;
	sqlite3_stmt *st = db_stmt(c, SQL_INLINE_INSERT);

	sqlite3_bind_int64(st, 1, b->number);
	sqlite3_bind_blob(st, 2, b->memory, (int)b->size, SQLITE_STATIC);
	int r = db_exec(c, st, e);

	sqlite3_clear_bindings(st);
	return r;
}

void writer_committed(struct store_writer *w)
{
	w->committed = true;
}

struct commit {
	struct arena *a;
	const struct store_put *put;
	const struct writer_blob *blob;
	struct object_row row;
	struct dropped_list dropped;
};

static int commit_op(struct db_conn *c, void *ctx, struct error *e)
{
	struct commit *op = ctx;
	struct object_row old;
	int r = row_bucket_exists(c, op->put->bucket, e);

	if (r < 0)
		return r;
	int found = row_object_get(c, op->a, op->put->bucket, op->put->key, &old, e);

	if (found < 0)
		return found;
	r = row_condition_check(&op->put->condition, found ? &old : NULL, op->put->key, e);
	if (r >= 0 && found)
		r = row_object_remove(c, op->put->bucket, &old, &op->dropped, e);
	if (r >= 0)
		r = writer_blob_insert(c, op->blob, e);
	return r < 0 ? r : row_object_insert(c, op->put->bucket, &op->row, e);
}

int store_writer_commit(struct store_writer *w, struct arena *a, const struct store_put *put,
			struct store_object *ret, struct error *e)
{
	struct writer_blob blob;
	int r = key_check(put->key, e);

	if (r >= 0)
		r = writer_seal(w, a, &blob, e);
	if (r < 0)
		return r;
	struct commit op = {
	    .a = a,
	    .put = put,
	    .blob = &blob,
	    .row =
		{
		    .o = {.key = put->key,
			  .size = blob.size,
			  .etag = blob.etag,
			  .modified_ms = now_seconds_ms(),
			  .pairs = put->pairs},
		    .blob = blob.number,
		    .kind = blob.kind,
		},
	};

	r = db_write(w->s->db, commit_op, &op, e);
	if (r >= 0) {
		writer_committed(w);
		files_release(w->s, &op.dropped);
		if (ret)
			*ret = op.row.o;
	} else if (r == DB_UNSURE) {
		writer_committed(w);
	}
	dropped_done(&op.dropped);
	return r;
}
