/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a file or a device, and finding out what it is.
 *
 * The lock is the fence of a successor: the kernel keeps a flock() until the last reference to the open file is gone, and I/O
 * that a dead process left in the kernel holds one. So nothing is read, written or changed before the lock is had, and the
 * descriptor is never anybody else's. A device is claimed with O_EXCL as well, which also keeps it from being mounted.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/macros.h"
#include "base/text.h"
#include "block/back/file_priv.h"
#include "os/file.h"

#define LOCK_POLL_MS 20
#define BLOCK_MAX 4096u

/* ---- the lock ---- */

/* The pid that /proc/locks gives for a flock() on st's file; 0 when it is not told (another pid namespace, say). */
static long lock_holder(const struct stat *st)
{
	FILE *locks = fopen("/proc/locks", "re");
	char line[256];
	long holder = 0;

	while (locks && !holder && fgets(line, sizeof(line), locks)) {
		unsigned major_number, minor_number;
		unsigned long inode;
		long pid;
		/* `12: FLOCK  ADVISORY  WRITE 4711 fe:00:131 0 EOF`; who waits has `->` before FLOCK */
		if (sscanf(line, "%*d: FLOCK %*s %*s %ld %x:%x:%lu", &pid, &major_number, &minor_number, &inode) == 4 &&
		    inode == st->st_ino && makedev(major_number, minor_number) == st->st_dev && pid > 0)
			holder = pid;
	}
	if (locks)
		fclose(locks);
	return holder;
}

static int refuse_busy(const struct file *f, int wait_ms, struct error *e)
{
	struct stat st;
	long pid = stat(f->path, &st) ? 0 : lock_holder(&st);
	char who[48] = "another process";

	if (pid)
		snprintf(who, sizeof(who), "process %ld", pid);
	error_set(e, "InUse", "%s is in use by %s, also after %d ms: end that first, or give lock-wait=", f->path, who, wait_ms);
	return -EBUSY;
}

static int open_flags(const struct file *f, bool create)
{
	int flags = O_CLOEXEC | O_NOCTTY | (f->read_only ? O_RDONLY : O_RDWR);

	if (f->direct)
		flags |= O_DIRECT;
	if (f->is_device && !f->read_only)
		flags |= O_EXCL;
	if (create)
		flags |= O_CREAT;
	return flags;
}

/* f->fd, not locked yet. -EBUSY: a device that somebody has claimed. */
static int open_path(struct file *f, bool create, struct error *e)
{
	struct stat st;

	/* Looked at first: opening a FIFO would hang, opening some devices does things. */
	if (stat(f->path, &st)) {
		if (errno != ENOENT || !create)
			return error_errno(e, errno, "opening %s", f->path);
		st = (struct stat){ .st_mode = S_IFREG };
	}
	f->is_device = S_ISBLK(st.st_mode);
	if (!f->is_device && !S_ISREG(st.st_mode))
		return error_set(e, "InvalidOption", "path=%s: neither a regular file nor a block device", f->path);
	f->fd = open(f->path, open_flags(f, create && !f->is_device), 0600);
	if (f->fd >= 0) {
		/* When it was last read is nobody's concern, and costs something with each read. Only its owner may say so. */
		fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) | O_NOATIME);
		return 0;
	}
	if (errno == EBUSY)
		return -EBUSY;
	if (errno == EINVAL && f->direct)
		return error_set(e, "Unsupported", "%s: there is no direct I/O here; give direct=off", f->path);
	return error_errno(e, errno, "opening %s for %s", f->path, f->read_only ? "reading" : "writing");
}

/* 0, -EBUSY, or -ESTALE: the path means another file by now. */
static int lock_fd(struct file *f)
{
	struct stat mine, there;

	if (flock(f->fd, (f->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB))
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (fstat(f->fd, &mine))
		return -errno;
	if (stat(f->path, &there) || mine.st_dev != there.st_dev || mine.st_ino != there.st_ino)
		return -ESTALE;
	return 0;
}

static int lock_file(struct file *f, bool create, int wait_ms, struct error *e)
{
	int64_t deadline = clock_mono_ms() + wait_ms;

	for (;;) {
		int err = f->fd < 0 ? open_path(f, create, e) : 0;
		if (!err)
			err = lock_fd(f);
		if (!err)
			return 0;
		if (err == -ESTALE)
			fd_closep(&f->fd);
		else if (err != -EBUSY)
			return error_errno(e, err, "locking %s", f->path); /* or what was told before */
		if (clock_mono_ms() >= deadline)
			return refuse_busy(f, wait_ms, e);
		nanosleep(&(struct timespec){ 0, LOCK_POLL_MS * 1000000 }, NULL);
	}
}

/* A file that was made just now, or by a predecessor that died before it had its size. */
static int give_size(struct file *f, uint64_t size_bytes, struct error *e)
{
	char parent[PATH_MAX];
	struct stat st;

	if (fstat(f->fd, &st))
		return error_errno(e, errno, "looking at %s", f->path);
	if (st.st_size || f->is_device)
		return 0;
	if (ftruncate(f->fd, (off_t)size_bytes) || fsync(f->fd))
		return error_errno(e, errno, "making %s with %llu bytes", f->path, (unsigned long long)size_bytes);
	snprintf(parent, sizeof(parent), "%s", f->path);
	int err = dir_sync(dirname(parent));
	return err ? error_errno(e, err, "making %s", f->path) : 0;
}

static int open_size(struct file *f, const char *path, struct error *e)
{
	if (!f->is_device)
		return error_set(e, "InvalidOption", "size-of is for devices, and %s is a file: its own length is its size", f->path);
	f->size_fd = open(path, (f->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW);
	return f->size_fd < 0 ? error_errno(e, errno, "opening %s, which has the length of %s", path, f->path) : 0;
}

int file_open_locked(struct file *f, const struct blk_values *v, struct error *e)
{
	uint64_t create_bytes = blk_values_number(v, "create");

	if (create_bytes % BLOCK_MAX || (create_bytes && f->read_only))
		return error_set(e, "InvalidOption", "create: give a multiple of %u, and not read-only=on", BLOCK_MAX);
	int err = lock_file(f, create_bytes > 0, (int)blk_values_number(v, "lock-wait"), e);
	if (!err && create_bytes)
		err = give_size(f, create_bytes, e);
	if (!err && blk_values_has(v, "size-of"))
		err = open_size(f, blk_values_text(v, "size-of"), e);
	return err;
}

/* ---- what it is ---- */

int file_device_size(int fd, uint64_t *ret)
{
	return ioctl(fd, BLKGETSIZE64, ret) ? -errno : 0;
}

/* A number of the disk that dev is or is a part of; fallback when there is none (a file system without a disk). */
static uint64_t disk_attribute(dev_t dev, const char *name, uint64_t fallback)
{
	static const char *const folders[] = { "queue", "../queue" };
	uint64_t value = fallback;

	for (unsigned i = 0; i < ARRAY_SIZE(folders); i++) {
		_cleanup_(freep) char *text = NULL;
		char path[128];
		size_t len;
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major(dev), minor(dev), folders[i], name);
		if (file_read(path, 64, &text, &len))
			continue;
		text[strcspn(text, "\n")] = '\0';
		if (!parse_u64(text, 0, UINT64_MAX, &value))
			break;
	}
	return value;
}

/* No one tells: the least length that a direct read accepts. */
static int try_alignment(struct file *f)
{
	static const uint32_t lengths[] = { 512, BLOCK_MAX };
	_cleanup_(freep) void *memory = NULL;

	if (posix_memalign(&memory, BLOCK_MAX, BLOCK_MAX))
		return -ENOMEM;
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		if (pread(f->fd, memory, lengths[i], 0) > 0) {
			f->mem_align = f->off_align = lengths[i];
			return 0;
		}
	}
	f->mem_align = f->off_align = BLOCK_MAX;
	return 0;
}

static int find_alignment(struct file *f, uint32_t logical_bytes, struct error *e)
{
	struct statx sx = { 0 };

	if (!f->direct) {
		f->mem_align = f->off_align = 1;
		return 0;
	}
#ifdef STATX_DIOALIGN
	if (!statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) && (sx.stx_mask & STATX_DIOALIGN)) {
		if (!sx.stx_dio_offset_align)
			return error_set(e, "Unsupported", "%s: there is no direct I/O here; give direct=off", f->path);
		f->mem_align = MAX_OF(sx.stx_dio_mem_align, 1u);
		f->off_align = sx.stx_dio_offset_align;
	}
#endif
	if (!f->off_align && f->is_device)
		f->mem_align = f->off_align = logical_bytes;
	int err = f->off_align ? 0 : try_alignment(f);
	if (err)
		return error_errno(e, err, "%s: its alignment", f->path);
	f->off_align = MAX_OF(f->off_align, BLK_SECTOR);
	if (f->off_align > BLOCK_MAX || (f->off_align & (f->off_align - 1)) || (f->mem_align & (f->mem_align - 1)))
		return error_set(e, "Unsupported", "%s: direct I/O wants blocks of %u bytes; give direct=off", f->path, f->off_align);
	return 0;
}

static int probe_device(struct file *f, const struct stat *st, struct blk_info *info, struct error *e)
{
	unsigned physical = 0, optimal = 0;
	int logical = 0;

	if (file_device_size(f->fd, &info->size_bytes) || ioctl(f->fd, BLKSSZGET, &logical))
		return error_errno(e, errno, "%s: its size", f->path);
	if (f->size_fd >= 0) {
		struct stat length;
		if (fstat(f->size_fd, &length))
			return error_errno(e, errno, "%s: the length that it is to have", f->path);
		if ((uint64_t)length.st_size > info->size_bytes)
			return error_set(e, "InvalidSize", "%s has %llu bytes, and is to have %llu", f->path,
					 (unsigned long long)info->size_bytes, (unsigned long long)length.st_size);
		info->size_bytes = (uint64_t)length.st_size;
	}
	if (logical != BLK_SECTOR && logical != BLOCK_MAX)
		return error_set(e, "Unsupported", "%s has blocks of %d bytes", f->path, logical);
	info->block_bytes = (uint32_t)logical;
	if (!ioctl(f->fd, BLKPBSZGET, &physical))
		info->physical_bytes = physical;
	if (!ioctl(f->fd, BLKIOOPT, &optimal))
		info->optimal_bytes = optimal;
	info->rotational = disk_attribute(st->st_rdev, "rotational", 0);
	info->discard_bytes = (uint32_t)disk_attribute(st->st_rdev, "discard_granularity", 0);
	info->fast_zeroes = disk_attribute(st->st_rdev, "write_zeroes_max_bytes", 0) > 0;
	return 0;
}

static void probe_regular(struct file *f, const struct stat *st, struct blk_info *info)
{
	struct statfs fs = { 0 };

	info->size_bytes = (uint64_t)st->st_size;
	info->block_bytes = BLK_SECTOR;
	info->physical_bytes = (uint32_t)MIN_OF(st->st_blksize, 65536);
	info->rotational = disk_attribute(st->st_dev, "rotational", 0);
	info->discard_bytes = info->physical_bytes;
	info->fast_zeroes = !f->zeroes_written;
	/* Memory: nothing there waits for a disk, and RWF_NOWAIT is refused. */
	if (!fstatfs(f->fd, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC))
		f->now_flags = 0;
}

int file_probe(struct file *f, struct blk_info *ret, struct error *e)
{
	struct blk_info info = { .read_only = f->read_only, .volatile_cache = !f->read_only };
	struct stat st;
	int err = 0;

	if (fstat(f->fd, &st))
		return error_errno(e, errno, "looking at %s", f->path);
	if (f->is_device)
		err = probe_device(f, &st, &info, e);
	else
		probe_regular(f, &st, &info);
	if (!err)
		err = find_alignment(f, info.block_bytes, e);
	if (err)
		return err;
	if (f->off_align > info.block_bytes)
		info.block_bytes = BLOCK_MAX;
	if (!info.physical_bytes || (info.physical_bytes & (info.physical_bytes - 1)))
		info.physical_bytes = BLOCK_MAX;
	info.physical_bytes = MAX_OF(info.physical_bytes, info.block_bytes);
	if (!f->discard || f->read_only)
		info.discard_bytes = 0;
	if (!info.size_bytes || info.size_bytes % info.block_bytes)
		return error_set(e, "InvalidSize", "%s: its %llu bytes are no multiple of %u%s", f->path,
				 (unsigned long long)info.size_bytes, info.block_bytes,
				 info.block_bytes > BLK_SECTOR && !f->is_device ? " (512 is enough with direct=off)" : "");
	*ret = info;
	return 0;
}
