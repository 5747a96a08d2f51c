/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/sc/pool.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"

#define RESERVE_SHARE 20                    /* of the file system: a twentieth is left alone, */
#define RESERVE_MOST (INT64_C(10) << 30)    /* or so much */
#define MUCH (INT64_C(1) << 60)
#define END_BYTES (1u << 20)                /* signatures of file systems, volume managers and partitions lie within these of an end */

struct pool {
	bool on_disks, accounted;
	char *dir;
	char devices[POOL_DEVICES][POOL_DEVICE_MAX];
	const char *device[POOL_DEVICES + 1]; /* NULL-terminated */
	int count;
};

int pool_parse(const char *setting, char names[][POOL_DEVICE_MAX], int max)
{
	const char *at = setting + strlen("disks:");
	int n = 0;

	if (str_eq(setting, "files"))
		return 0;
	if (!str_prefix(setting, "disks:"))
		return -EINVAL;
	for (;;) {
		size_t len = strcspn(at, ",");
		if (n == max || len >= POOL_DEVICE_MAX || !str_prefix(at, "/dev/") || len <= strlen("/dev/"))
			return -EINVAL;
		snprintf(names[n++], POOL_DEVICE_MAX, "%.*s", (int)len, at);
		if (!at[len])
			return n;
		at += len + 1;
	}
}

int pool_new(const char *setting, const char *dir, bool accounted, struct pool **ret, struct error *e)
{
	struct pool *p = calloc(1, sizeof(*p));

	if (!p || !(p->dir = strdup(dir)))
		abort();
	p->accounted = accounted;
	p->on_disks = str_prefix(setting, "disks:");
	p->count = pool_parse(setting, p->devices, POOL_DEVICES);
	if (p->count < 0) {
		pool_free(p);
		return error_set(e, "InvalidSetting", "ebs_pool: \"%.64s\" is neither files nor disks:/dev/X,/dev/Y", setting);
	}
	for (int i = 0; i < p->count; i++)
		p->device[i] = p->devices[i];
	*ret = p;
	return 0;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	free(p->dir);
	free(p);
}

bool pool_on_disks(const struct pool *p)
{
	return p->on_disks;
}

const char *const *pool_devices(const struct pool *p)
{
	return p->device;
}

/* ---- room ---- */

static int device_open(const char *device, int flags, struct error *e)
{
	struct stat st;
	int fd = -1;

	if (stat(device, &st))
		return error_errno(e, errno, "looking at %s", device);
	if (!S_ISBLK(st.st_mode))
		return error_set(e, "InvalidSetting", "%s is no block device", device);
	fd = open(device, flags | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW);
	if (fd < 0)
		return error_errno(e, errno, "opening %s", device);
	return fd;
}

static int device_size(const char *device, int64_t *ret, struct error *e)
{
	_cleanup_(fd_closep) int fd = device_open(device, O_RDONLY, e);
	uint64_t bytes;

	if (fd < 0)
		return fd;
	if (ioctl(fd, BLKGETSIZE64, &bytes))
		return error_errno(e, errno, "%s: its size", device);
	*ret = (int64_t)bytes;
	return 0;
}

void pool_room(const struct pool *p, int64_t promised_bytes, int64_t held_bytes, struct pool_room *ret)
{
	struct statvfs fs;
	int64_t size;

	*ret = (struct pool_room){ 0 };
	if (p->on_disks) {
		for (int i = 0; i < p->count; i++) {
			if (device_size(p->devices[i], &size, NULL) == 0)
				ret->total_bytes += size;
		}
		ret->free_bytes = MAX_OF(ret->total_bytes - promised_bytes, (int64_t)0);
		return;
	}
	if (!p->accounted) {
		*ret = (struct pool_room){ MUCH, MUCH - promised_bytes };
		return;
	}
	if (statvfs(p->dir, &fs))
		return;
	int64_t unused = (int64_t)(fs.f_bavail * fs.f_frsize), all = (int64_t)(fs.f_blocks * fs.f_frsize);
	int64_t reserve = MIN_OF(all / RESERVE_SHARE, RESERVE_MOST);
	ret->total_bytes = MAX_OF(unused + held_bytes - reserve, (int64_t)0);
	ret->free_bytes = MAX_OF(ret->total_bytes - promised_bytes, (int64_t)0);
}

int pool_check(const struct pool *p, int64_t bytes, int64_t promised_bytes, int64_t held_bytes, struct error *e)
{
	struct pool_room room;

	pool_room(p, promised_bytes, held_bytes, &room);
	if (bytes <= room.free_bytes)
		return 0;
	return error_set(e, "InsufficientVolumeCapacity",
			 "InsufficientVolumeCapacity: %" PRId64 " GiB are wanted, and %" PRId64 " GiB can still be promised",
			 (bytes + (1 << 30) - 1) >> 30, room.free_bytes >> 30);
}

/* ---- devices ---- */

static bool is_whole(const struct stat *st)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major(st->st_rdev), minor(st->st_rdev));
	return access(path, F_OK) != 0;
}

static int read_end(int fd, uint64_t off, const char *device, struct error *e)
{
	_cleanup_(freep) char *data = malloc(END_BYTES);

	if (!data)
		abort();
	for (size_t have = 0; have < END_BYTES;) {
		ssize_t n = pread(fd, data + have, END_BYTES - have, (off_t)(off + have));
		if (n <= 0)
			return error_errno(e, n ? errno : EIO, "reading %s", device);
		have += (size_t)n;
	}
	for (size_t i = 0; i < END_BYTES; i++) {
		if (data[i])
			return error_set(e, "InvalidSetting", "%s is not blank: it may hold somebody's data. If it does not, clear its ends: "
					 "wipefs -a, and dd if=/dev/zero over the first and the last MiB", device);
	}
	return 0;
}

/* O_EXCL: neither mounted nor held by another user of the kernel's, and not while we look. */
static int check_blank(const char *device, int64_t size, struct error *e)
{
	_cleanup_(fd_closep) int fd = device_open(device, O_RDWR | O_EXCL, e);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) || !is_whole(&st))
		return error_set(e, "InvalidSetting", "%s is a part of a disk: give whole ones", device);
	int r = read_end(fd, 0, device, e);
	return r ? r : read_end(fd, (uint64_t)size - END_BYTES, device, e);
}

static bool is_used(const char *device, const char *const *used)
{
	for (; *used; used++) {
		if (str_eq(*used, device))
			return true;
	}
	return false;
}

int pool_choose(const struct pool *p, int64_t bytes, const char *const *used, char out[static POOL_DEVICE_MAX], struct error *e)
{
	int64_t best = INT64_MAX, size;
	struct error why = { 0 };

	*out = '\0';
	for (int i = 0; i < p->count; i++) {
		struct error no = { 0 };
		if (is_used(p->devices[i], used))
			continue;
		int r = device_size(p->devices[i], &size, &no);
		if (r == 0 && (size < bytes || size >= best))
			continue;
		if (r == 0)
			r = size < 2 * END_BYTES ? -EINVAL : check_blank(p->devices[i], size, &no);
		if (r) {
			why = no;
			continue;
		}
		best = size;
		snprintf(out, POOL_DEVICE_MAX, "%s", p->devices[i]);
	}
	if (*out)
		return 0;
	return error_set(e, "InsufficientVolumeCapacity", "InsufficientVolumeCapacity: no disk of the pool is free and holds %" PRId64 " GiB%s%.200s",
			 (bytes + (1 << 30) - 1) >> 30, *why.message ? "; " : "", why.message);
}

int pool_device_fits(const char *device, int64_t bytes, struct error *e)
{
	int64_t size;
	int r = device_size(device, &size, e);

	if (r == 0 && size < bytes)
		r = error_set(e, "InsufficientVolumeCapacity", "InsufficientVolumeCapacity: the volume's disk has %" PRId64 " GiB", size >> 30);
	return r;
}

int pool_blank(const char *device, struct error *e)
{
	_cleanup_(freep) char *zeroes = calloc(1, END_BYTES);
	_cleanup_(fd_closep) int fd = device_open(device, O_RDWR | O_EXCL, e);
	uint64_t size;

	if (!zeroes)
		abort();
	if (fd < 0)
		return fd;
	if (ioctl(fd, BLKGETSIZE64, &size) || size < 2 * END_BYTES)
		return error_errno(e, errno, "%s: its size", device);
	int r = fd_pwrite_all(fd, zeroes, END_BYTES, 0);
	if (!r)
		r = fd_pwrite_all(fd, zeroes, END_BYTES, size - END_BYTES);
	if (!r && fsync(fd))
		r = -errno;
	return r ? error_errno(e, r, "clearing %s", device) : 0;
}
