/* SPDX-License-Identifier: Apache-2.0 */
#include "volume/buffer.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"
#include "volume/keeper_priv.h"

static const char *const places[] = {"/dev/shm", "/run"};
#define TMPFS_SHARE 4  /* a quarter of the tmpfs … */
#define MEMORY_SHARE 8 /* … and an eighth of memory */

struct buffers {
	char dir[128]; /* "": there is no tmpfs */
	size_t most;   /* files */
};

static void folder(const char *place, const char *cloud_id, char *out, size_t size)
{
	snprintf(out, size, "%s/mallee-%s", place, cloud_id);
}

/* 0 when it is no tmpfs. */
static uint64_t tmpfs_bytes(const char *path)
{
	struct statfs fs;

	if (statfs(path, &fs) || fs.f_type != TMPFS_MAGIC)
		return 0;
	return (uint64_t)fs.f_blocks * (uint64_t)fs.f_bsize;
}

/* Where the folder is already, else the roomier one. */
static const char *choose(const char *cloud_id)
{
	const char *best = NULL;
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		folder(places[i], cloud_id, path, sizeof(path));
		if (tmpfs_bytes(places[i]) && access(path, F_OK) == 0)
			return places[i];
		if (tmpfs_bytes(places[i]) > (best ? tmpfs_bytes(best) : 0))
			best = places[i];
	}
	return best;
}

static size_t most_files(const char *place)
{
	struct sysinfo si;
	uint64_t memory = sysinfo(&si) ? 0 : (uint64_t)si.totalram * si.mem_unit;

	return (size_t)(MIN_OF(tmpfs_bytes(place) / TMPFS_SHARE, memory / MEMORY_SHARE) / BUFFER_BYTES);
}

/* Others' users walk through it to their own files, and see no names. What is there must be ours: the place is one where
 * anybody may make things. */
static int make_folder(const char *path, struct error *e)
{
	struct stat st;

	if (mkdir(path, 0711) && errno != EEXIST)
		return error_errno(e, errno, "Making %s", path);
	if (lstat(path, &st))
		return error_errno(e, errno, "Looking at %s", path);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
		return error_set(e, "InternalError", "%s is there already, and not ours: remove it", path);
	return chmod(path, 0711) ? error_errno(e, errno, "Opening %s to the volumes' users", path) : 0;
}

int buffers_open(const char *cloud_id, struct buffers **ret, struct error *e)
{
	struct buffers *b = calloc(1, sizeof(*b));
	const char *place = choose(cloud_id);
	int err = 0;

	if (!b)
		abort();
	if (place) {
		folder(place, cloud_id, b->dir, sizeof(b->dir));
		b->most = most_files(place);
		err = make_folder(b->dir, e);
	}
	if (err) {
		free(b);
		return err;
	}
	*ret = b;
	return 0;
}

void buffers_free(struct buffers *b)
{
	free(b);
}

static size_t count_files(const char *path)
{
	DIR *dir = opendir(path);
	size_t n = 0;

	for (struct dirent *entry; dir && (entry = readdir(dir));)
		n += entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return n;
}

int buffers_take(struct buffers *b, const char *id, uid_t uid, gid_t gid, char *path, size_t size, struct error *e)
{
	_cleanup_(fd_closep) int fd = -1;
	struct stat st;

	if (!keeper_record_id_valid(id)) {
		error_set(e, "InvalidParameterValue", "\"%s\" is no name for a volume's buffer", id);
		return -EINVAL;
	}
	if (!*b->dir)
		return -ENOSPC;
	snprintf(path, size, "%s/%s", b->dir, id);
	if (access(path, F_OK) && count_files(b->dir) >= b->most)
		return -ENOSPC;
	fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	if (fd < 0 || fstat(fd, &st))
		return error_errno(e, errno, "Making the buffer %s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(e, "InternalError", "The buffer %s is no file", path);
	if (fchmod(fd, 0600) || (geteuid() == 0 && fchown(fd, uid, gid)))
		return error_errno(e, errno, "Giving the buffer %s to its user", path);
	return 0;
}

void buffers_drop(struct buffers *b, const char *id)
{
	char path[256];

	if (!*b->dir || !keeper_record_id_valid(id))
		return;
	snprintf(path, sizeof(path), "%s/%s", b->dir, id);
	unlink(path);
}

int buffers_remove(const char *cloud_id)
{
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		char path[128];
		struct stat st;

		folder(places[i], cloud_id, path, sizeof(path));
		if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && dir_remove(path) < 0)
			err = -EIO;
	}
	return err;
}
