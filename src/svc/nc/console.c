/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Console logs are appended to by QEMU or by virtlogd, which also turns a long one over into
 * FILE.0. Both write with O_APPEND, so the beginning of the file can be taken away under them: as
 * whole blocks, which the file system moves (or turns into a hole) without losing a byte that is
 * written meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/file.h"
#include "svc/nc/nc_priv.h"

#define BOUND_BYTES (1 << 20)
#define KEEP_BYTES (256 << 10)

/* The last want bytes of the file at most, into to; the count, 0 when there is no file. */
static ssize_t read_tail(const char *path, char *to, size_t want, int64_t *ret_mtime_ms)
{
	_cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	*ret_mtime_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
	n = pread(fd, to, want, st.st_size > (off_t)want ? st.st_size - (off_t)want : 0);
	return n < 0 ? -errno : n;
}

int nc_console_read(const char *path, struct arena *a, void **ret_data, size_t *ret_len,
		    int64_t *ret_mtime_ms)
{
	char *data = arena_alloc(a, 2 * NC_CONSOLE_BYTES), *now = data + NC_CONSOLE_BYTES;
	int64_t mtime = 0, unused;
	char older[4096];
	ssize_t n = read_tail(path, now, NC_CONSOLE_BYTES, &mtime), before;

	if (n < 0)
		return (int)n;
	/* Turned over a moment ago: what is missing stands in the file before. */
	snprintf(older, sizeof(older), "%s.0", path);
	before = read_tail(older, data, (size_t)(NC_CONSOLE_BYTES - n), &unused);
	if (before > 0) {
		memmove(now - before, data, (size_t)before);
		now -= before;
		n += before;
	}
	*ret_data = now;
	*ret_len = (size_t)n;
	*ret_mtime_ms = mtime;
	return 0;
}

int nc_console_bound(const char *path)
{
	_cleanup_(fd_closep) int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	off_t drop;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (int64_t)st.st_blocks * 512 <= BOUND_BYTES)
		return 0;
	drop = (st.st_size - KEEP_BYTES) & ~(off_t)65535;
	if (drop <= 0 || fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, drop) == 0)
		return 0;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, drop) == 0)
		return 0;
	return -errno;
}
