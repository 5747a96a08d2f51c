/* SPDX-License-Identifier: Apache-2.0 */
#include "object/store.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "object/store_priv.h"
#include "os/file.h"

/*
 * Theory of operation.
 *
 * A folder holds walrus.db (SQLite) and data/00 … data/ff. The bytes of an object are a "blob"
 * under a random number: nothing, a row of table inline (up to STORE_INLINE_MAX), one data file of
 * that number, or a list of extents, each of which is again inline or a file: the parts of a
 * multipart upload. Blobs never change once they are visible.
 *
 * A write goes: data into a new file; fdatasync; fsync of its folder; then one transaction that
 * puts the object's row, and takes out the row it replaces. That commit is the acknowledgement. A
 * crash before it leaves a file that no metadata names; such files are removed when the store is
 * opened (files_collect), which is why one process at a time may hold the store.
 *
 * After the commit the files of replaced or deleted blobs are unlinked, unless a reader has the
 * blob pinned: then by the last reader. A reader pins the blob that it found and then looks again:
 * if the row still names that blob, the pin stood before any deletion could commit, and so before
 * anybody looks for pins.
 */

int store_open(const char *dir, struct store **ret, struct error *e)
{
	struct store *s = calloc(1, sizeof(*s));
	char path[4096];
	pid_t holder = 0;
	int r;

	if (!s || !(s->dir = strdup(dir)))
		abort();
	s->lock_fd = -1;
	pthread_mutex_init(&s->pins_lock, NULL);
	r = dir_make(dir, 0700);
	if (r < 0) {
		r = error_errno(e, r, "making the folder %s", dir);
		goto fail;
	}
	snprintf(path, sizeof(path), "%s/lock", dir);
	r = pidfile_take(path, &s->lock_fd, &holder);
	if (r == -EBUSY)
		r = error_set(e, "InternalError", "The object store %s is in use by process %d.",
			      dir, (int)holder);
	else if (r < 0)
		r = error_errno(e, r, "locking %s", path);
	if (r < 0)
		goto fail;
	r = files_prepare(s, e);
	if (r < 0)
		goto fail;
	snprintf(path, sizeof(path), "%s/walrus.db", dir);
	r = db_open(path, &s->db, e);
	if (r >= 0)
		r = files_collect(s, e);
	if (r < 0)
		goto fail;
	r = dir_sync(dir);
	if (r >= 0) {
		snprintf(path, sizeof(path), "%s/..", dir); /* dir itself may be new */
		r = dir_sync(path);
	}
	if (r < 0) {
		r = error_errno(e, r, "syncing the folder %s", dir);
		goto fail;
	}
	*ret = s;
	return 0;
fail:
	store_close(s);
	return r;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	assert(!s->pins);
	db_close(s->db);
	dropped_done(&s->deferred);
	pthread_mutex_destroy(&s->pins_lock);
	fd_closep(&s->lock_fd);
	free(s->dir);
	free(s);
}

int store_status(struct store *s, struct store_status *ret, struct error *e)
{
	struct store_status status = {0};
	struct db_conn *c;
	struct statvfs fs;
	int r = db_read_begin(s->db, &c, e);

	if (r < 0)
		return r;
	sqlite3_stmt *st = db_stmt(c, SQL_STATUS);

	r = db_step(c, st, e);
	if (r > 0) {
		status.buckets = sqlite3_column_int64(st, 0);
		status.objects = sqlite3_column_int64(st, 1);
		status.bytes = sqlite3_column_int64(st, 2);
	}
	db_read_end(s->db, c);
	if (r < 0)
		return r;
	if (statvfs(s->dir, &fs) < 0)
		return error_errno(e, errno, "looking at the file system of %s", s->dir);
	status.free_bytes = (int64_t)((uint64_t)fs.f_bavail * fs.f_frsize);
	*ret = status;
	return 0;
}
