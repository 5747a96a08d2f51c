/* SPDX-License-Identifier: Apache-2.0 */
#include "volume/keyfile.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/id.h"
#include "base/text.h"
#include "os/file.h"
#include "volume/keeper_priv.h"

#define PREFIX "mallee-keys-"

/* /run is root's; where we may not write, the other. */
static const char *const places[] = {"/run", "/dev/shm"};

static bool is_tmpfs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

/* What is there must be ours: in /dev/shm anybody may make things. Others' users walk through it to their own files, and see no
 * names. */
static int open_folder(const char *path, bool make)
{
	_cleanup_(fd_closep) int fd = -1;
	struct stat st;

	if (make && mkdir(path, 0711) && errno != EEXIST)
		return -errno;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		return -errno;
	if (st.st_uid != geteuid())
		return -EPERM;
	if (make && fchmod(fd, 0711))
		return -errno;
	int ret = fd;
	fd = -1;
	return ret;
}

/* The folder's descriptor, or a negative errno. */
static int find_folder(const char *cloud_id, const char *whose, bool make, char *path, size_t size)
{
	int fd = -EOPNOTSUPP;

	for (size_t i = 0; i < ARRAY_SIZE(places) && fd < 0; i++) {
		if (!is_tmpfs(places[i]) || access(places[i], W_OK))
			continue;
		snprintf(path, size, "%s/" PREFIX "%s-%s", places[i], cloud_id, whose);
		fd = open_folder(path, make);
	}
	return fd;
}

static int write_file(int dir_fd, const char *part, const char *name, const void *key, size_t len, uid_t uid, gid_t gid)
{
	_cleanup_(fd_closep) int fd = openat(dir_fd, part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0400);
	int err = fd < 0 ? -errno : fd_write_all(fd, key, len);

	if (!err && (fchmod(fd, 0400) || (geteuid() == 0 && fchown(fd, uid, gid))))
		err = -errno;
	if (!err && renameat(dir_fd, part, dir_fd, name))
		err = -errno;
	if (err)
		unlinkat(dir_fd, part, 0);
	return err;
}

int keyfile_put(const char *cloud_id, const char *whose, const char *name, const void *key, size_t len, uid_t uid, gid_t gid, char *path,
		size_t size, struct error *e)
{
	_cleanup_(fd_closep) int dir_fd = -1;
	char folder[256], part[128], token[9];

	if (!keeper_record_id_valid(name)) {
		error_set(e, "InvalidParameterValue", "\"%s\" is no name for a key's file", name);
		return -EINVAL;
	}
	dir_fd = find_folder(cloud_id, whose, true, folder, sizeof(folder));
	if (dir_fd == -EOPNOTSUPP) {
		error_set(e, "UnsupportedOperation", "There is no tmpfs here (/run, /dev/shm) to give %s its key by", name);
		return -EOPNOTSUPP;
	}
	if (dir_fd == -EPERM)
		return error_set(e, "InternalError", "%s is there already, and not ours: remove it", folder);
	if (dir_fd < 0)
		return error_errno(e, dir_fd, "Making %s", folder);
	random_token(token, 8);
	snprintf(part, sizeof(part), ".%s.%s", name, token);
	int err = write_file(dir_fd, part, name, key, len, uid, gid);
	if (err)
		return error_errno(e, err, "Writing the key of %s to %s", name, folder);
	if ((size_t)snprintf(path, size, "%s/%s", folder, name) >= size)
		return error_errno(e, ENAMETOOLONG, "The key of %s", name);
	return 0;
}

void keyfile_drop(const char *cloud_id, const char *whose, const char *name)
{
	_cleanup_(fd_closep) int dir_fd = -1;
	char folder[256];

	if (!keeper_record_id_valid(name))
		return;
	dir_fd = find_folder(cloud_id, whose, false, folder, sizeof(folder));
	if (dir_fd >= 0)
		unlinkat(dir_fd, name, 0);
}

bool keyfile_is_there(const char *cloud_id, const char *whose, const char *name)
{
	_cleanup_(fd_closep) int dir_fd = -1;
	char folder[256];
	struct stat st;

	if (!keeper_record_id_valid(name))
		return false;
	dir_fd = find_folder(cloud_id, whose, false, folder, sizeof(folder));
	return dir_fd >= 0 && fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int keyfiles_remove(const char *cloud_id)
{
	char prefix[128];
	int err = 0;

	snprintf(prefix, sizeof(prefix), PREFIX "%s-", cloud_id);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		DIR *dir = is_tmpfs(places[i]) ? opendir(places[i]) : NULL;
		char path[512];
		struct stat st;

		for (struct dirent *entry; dir && (entry = readdir(dir));) {
			if (!str_prefix(entry->d_name, prefix))
				continue;
			snprintf(path, sizeof(path), "%s/%s", places[i], entry->d_name);
			if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && (st.st_uid == geteuid() || !geteuid()) && dir_remove(path) < 0)
				err = -EIO;
		}
		if (dir)
			closedir(dir);
	}
	return err;
}
