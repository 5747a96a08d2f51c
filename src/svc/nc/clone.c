/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/nc/clone.h"

#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "os/file.h"

#define CHUNK (4 << 20)
#define ALIGN 4096

static int check_space(const char *path, int64_t need, int64_t keep, struct error *e)
{
	_cleanup_(freep) char *copy = strdup(path);
	struct statvfs fs;
	int64_t avail;

	if (!copy || statvfs(dirname(copy), &fs) < 0)
		return error_errno(e, copy ? errno : ENOMEM, "cannot look at the free space for %s",
				   path);
	avail = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
	if (avail - keep >= need)
		return 0;
	error_set(e, "Server.InsufficientInstanceCapacity",
		  "the root disk needs %" PRId64 " MiB, and the node has %" PRId64
		  " MiB free beyond its reserve",
		  need >> 20, (avail > keep ? avail - keep : 0) >> 20);
	return -ENOSPC;
}

static int disk_error(struct error *e, int err, const char *path)
{
	err = abs(err);
	error_set(e,
		  err == ENOSPC || err == EDQUOT ? "Server.InsufficientInstanceCapacity"
						 : "Server.InternalError",
		  "cannot write the root disk %s: %s", path, strerror(err));
	return err == EDQUOT ? -ENOSPC : -err;
}

/* Up to CHUNK bytes of the image at off; zeroes behind its end. */
static int read_chunk(const struct clone_request *c, int64_t image_size, int64_t off, char *chunk,
		      size_t len)
{
	size_t got = 0;

	while (off + (int64_t)got < image_size && got < len) {
		size_t want = (size_t)MIN_OF((int64_t)(len - got), image_size - off - (int64_t)got);
		ssize_t n = pread(c->image_fd, chunk + got, want, off + (int64_t)got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		got += (size_t)n;
	}
	memset(chunk + got, 0, len - got);
	return 0;
}

static int write_blocks(const struct clone_request *c, int fd, int64_t image_size, struct error *e)
{
	_cleanup_(freep) char *chunk = NULL;
	bool clean = false; /* the chunk holds zeroes already */

	if (posix_memalign((void **)&chunk, ALIGN, CHUNK) != 0)
		return disk_error(e, ENOMEM, c->path);
	for (int64_t off = 0; off < c->size_bytes; off += CHUNK) {
		size_t len = (size_t)MIN_OF((int64_t)CHUNK, c->size_bytes - off);
		int r = 0;

		if (!clean)
			r = read_chunk(c, image_size, off, chunk, CHUNK);
		clean = off >= image_size;
		/* Direct writes take whole blocks only: the end of an odd-sized disk goes through
		 * the cache. */
		if (r == 0 && len % ALIGN != 0)
			fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_DIRECT);
		if (r == 0)
			r = fd_pwrite_all(fd, chunk, len, (uint64_t)off);
		if (r < 0)
			return disk_error(e, r, c->path);
		if (c->progress && c->progress(c->ctx, off + (int64_t)len, c->size_bytes))
			return -ECANCELED;
	}
	return 0;
}

static int fill(const struct clone_request *c, int fd, int64_t image_size, struct error *e)
{
	int r;

	if (c->sparse)
		return ftruncate(fd, c->size_bytes) < 0 ? disk_error(e, errno, c->path) : 0;
	/* One large allocation: the blocks lie together, and a full disk shows now. */
	r = fallocate(fd, 0, 0, c->size_bytes);
	if (r < 0 && errno != EOPNOTSUPP)
		return disk_error(e, errno, c->path);
	return write_blocks(c, fd, image_size, e);
}

static int open_temporary(const char *path, bool sparse)
{
	int flags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
	/* Gigabytes that nobody will read soon do not belong into the page cache. */
	int fd = open(path, sparse ? flags : flags | O_DIRECT, 0600);

	if (fd < 0 && errno == EINVAL)
		fd = open(path, flags, 0600);
	return fd < 0 ? -errno : fd;
}

static int make(const struct clone_request *c, const char *temporary, int64_t image_size,
		struct error *e)
{
	_cleanup_(fd_closep) int fd = open_temporary(temporary, c->sparse);
	int r;

	if (fd < 0)
		return disk_error(e, fd, temporary);
	r = fill(c, fd, image_size, e);
	if (r < 0)
		return r;
	if (geteuid() == 0 && fchown(fd, c->uid, c->gid) < 0)
		return disk_error(e, errno, c->path);
	if ((!c->sparse && fsync(fd) < 0) || rename(temporary, c->path) < 0)
		return disk_error(e, errno, c->path);
	return 0;
}

int clone_disk(const struct clone_request *c, struct error *e)
{
	_cleanup_(freep) char *temporary = NULL, *copy = strdup(c->path);
	struct stat st = {0};
	int r;

	if (!copy || asprintf(&temporary, "%s.tmp", c->path) < 0)
		abort();
	if (c->image_fd >= 0 && fstat(c->image_fd, &st) < 0)
		return error_errno(e, errno, "cannot read the image");
	if (st.st_size > c->size_bytes) {
		error_set(e, "Server.InternalError",
			  "the image has %" PRId64 " bytes, the root disk only %" PRId64,
			  (int64_t)st.st_size, c->size_bytes);
		return -EFBIG;
	}
	unlink(temporary); /* of an attempt that was killed: its space counts as free */
	r = c->sparse ? 0 : check_space(c->path, c->size_bytes, c->keep_free_bytes, e);
	if (r == 0)
		r = make(c, temporary, st.st_size, e);
	if (r < 0)
		unlink(temporary);
	else if (!c->sparse)
		dir_sync(dirname(copy));
	return r;
}
