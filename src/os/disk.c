/* SPDX-License-Identifier: Apache-2.0 */
#include "os/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "os/file.h"

static int disk_open(const char *device, int flags, struct error *e)
{
	struct stat st;
	int fd = -1;

	if (stat(device, &st))
		return error_errno(e, errno, "looking at %s", device);
	if (!S_ISBLK(st.st_mode))
		return error_set(e, "InvalidSetting", "%s is no block device", device);
	fd = open(device, flags | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return error_errno(e, errno, "opening %s", device);
	return fd;
}

int disk_size(const char *device, int64_t *ret_bytes, struct error *e)
{
	_cleanup_(fd_closep) int fd = disk_open(device, O_RDONLY, e);
	uint64_t bytes;

	if (fd < 0)
		return fd;
	if (ioctl(fd, BLKGETSIZE64, &bytes))
		return error_errno(e, errno, "%s: its size", device);
	*ret_bytes = (int64_t)bytes;
	return 0;
}

static bool is_whole(const struct stat *st)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major(st->st_rdev), minor(st->st_rdev));
	return access(path, F_OK) != 0;
}

static int read_end(int fd, uint64_t off, const char *device, struct error *e)
{
	_cleanup_(freep) char *data = malloc(DISK_END_BYTES);

	if (!data)
		abort();
	for (size_t have = 0; have < DISK_END_BYTES;) {
		ssize_t n = pread(fd, data + have, DISK_END_BYTES - have, (off_t)(off + have));
		if (n <= 0)
			return error_errno(e, n ? errno : EIO, "reading %s", device);
		have += (size_t)n;
	}
	for (size_t i = 0; i < DISK_END_BYTES; i++) {
		if (data[i])
			return error_set(e, "InvalidSetting", "%s is not blank: it may hold somebody's data. If it does not, clear its ends: "
					 "wipefs -a, and dd if=/dev/zero over the first and the last MiB", device);
	}
	return 0;
}

/* O_EXCL: neither mounted nor held by another user of the kernel's, and not while we are at it. */
static int open_alone(const char *device, int64_t *ret_size, struct error *e)
{
	int fd, r = disk_size(device, ret_size, e);

	if (r == 0 && *ret_size < 2 * (int64_t)DISK_END_BYTES)
		r = error_set(e, "InvalidSetting", "%s is too small for a disk", device);
	if (r)
		return r;
	fd = disk_open(device, O_RDWR | O_EXCL, e);
	return fd;
}

int disk_check_blank(const char *device, struct error *e)
{
	int64_t size = 0;
	_cleanup_(fd_closep) int fd = open_alone(device, &size, e);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) || !is_whole(&st))
		return error_set(e, "InvalidSetting", "%s is a part of a disk: give whole ones", device);
	int r = read_end(fd, 0, device, e);
	return r ? r : read_end(fd, (uint64_t)size - DISK_END_BYTES, device, e);
}

int disk_blank(const char *device, struct error *e)
{
	_cleanup_(freep) char *zeroes = calloc(1, DISK_END_BYTES);
	int64_t size = 0;
	_cleanup_(fd_closep) int fd = open_alone(device, &size, e);

	if (!zeroes)
		abort();
	if (fd < 0)
		return fd;
	int r = fd_pwrite_all(fd, zeroes, DISK_END_BYTES, 0);
	if (!r)
		r = fd_pwrite_all(fd, zeroes, DISK_END_BYTES, (uint64_t)size - DISK_END_BYTES);
	if (!r && fsync(fd))
		r = -errno;
	return r ? error_errno(e, r, "clearing %s", device) : 0;
}
