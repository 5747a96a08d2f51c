/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The storage controller is unprivileged, and names files that root is to give away: whatever it says is looked at. A path is
 * walked once, for a file without following links, by O_PATH, which touches nothing; all that follows is done to what was found.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"
#include "svc/nc/nc_priv.h"

struct opened {
	int fd;
	struct stat st;
	uid_t sc_uid;
	gid_t sc_gid;
};

static int open_below(int dir_fd, const char *path)
{
	struct open_how how = {
	    .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
	    .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

/* Whether the operator named this block device. His list may hold links; what counts is which device it is. */
static bool is_listed(const char *disks, dev_t device)
{
	_cleanup_(freep) char *copy = strdup(disks);
	char *save = NULL;

	if (!copy)
		abort();
	for (char *word = strtok_r(copy, ", \t", &save); word; word = strtok_r(NULL, ", \t", &save)) {
		struct stat st;

		if (word[0] == '/' && stat(word, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == device)
			return true;
	}
	return false;
}

static int refuse(const char *path, const char *why, struct error *e)
{
	error_set(e, "InternalError", "the storage controller names %.300s as a volume's file: %s", path, why);
	return -EPERM;
}

/* What is neither a plain file below dir nor a device of the list is refused. */
static int open_device(const struct nc_file_rules *r, const char *path, struct opened *o, struct error *e)
{
	o->fd = open(path, O_PATH | O_CLOEXEC);
	if (o->fd < 0)
		return error_errno(e, errno, "cannot find the disk %.300s", path);
	if (fstat(o->fd, &o->st) < 0 || !S_ISBLK(o->st.st_mode))
		return refuse(path, "it is outside of its folder", e);
	if (!is_listed(r->disks, o->st.st_rdev))
		return refuse(path, "it is no disk of the pool", e);
	return 0;
}

static int open_file(const char *path, const char *rest, int dir_fd, const struct nc_file_rules *r, struct opened *o, struct error *e)
{
	o->fd = open_below(dir_fd, rest);
	if (o->fd == -ENOENT)
		return error_errno(e, ENOENT, "there is no file %.300s of the volume", path);
	if (o->fd == -ELOOP || o->fd == -EXDEV)
		return refuse(path, "there is a link on the way", e);
	if (o->fd < 0 || fstat(o->fd, &o->st) < 0)
		return error_errno(e, o->fd < 0 ? o->fd : errno, "cannot look at the volume's file %.300s", path);
	if (!S_ISREG(o->st.st_mode))
		return refuse(path, "it is no plain file", e);
	if (o->st.st_nlink != 1)
		return refuse(path, "it has another name besides", e);
	if (o->st.st_uid != o->sc_uid && o->st.st_uid != r->uid)
		return refuse(path, "it is somebody else's", e);
	return 0;
}

static int open_checked(const struct nc_file_rules *r, const char *path, struct opened *o, struct error *e)
{
	_cleanup_(fd_closep) int dir_fd = open(r->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	size_t len = strlen(r->dir);
	struct stat dir;

	o->fd = -1;
	if (dir_fd < 0 || fstat(dir_fd, &dir) < 0)
		return error_errno(e, errno, "cannot open %s", r->dir);
	o->sc_uid = dir.st_uid;
	o->sc_gid = dir.st_gid;
	if (strncmp(path, r->dir, len) == 0 && path[len] == '/')
		return open_file(path, path + len + 1, dir_fd, r, o, e);
	if (!*r->disks || path[0] != '/')
		return refuse(path, "it is outside of its folder", e);
	return open_device(r, path, o, e);
}

static int chown_opened(const struct opened *o, uid_t uid, gid_t gid)
{
	char path[64];

	if (fchownat(o->fd, "", uid, gid, AT_EMPTY_PATH) < 0)
		return -errno;
	if (!S_ISREG(o->st.st_mode) || !(o->st.st_mode & 07077))
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", o->fd);
	return chmod(path, 0600) < 0 ? -errno : 0;
}

int nc_file_give(const struct nc_file_rules *r, const char *path, struct error *e)
{
	struct opened o;
	int err = open_checked(r, path, &o, e);

	if (err == 0) {
		err = chown_opened(&o, r->uid, r->gid);
		if (err < 0)
			error_errno(e, err, "cannot give %.300s to its instance", path);
	}
	fd_closep(&o.fd);
	return err;
}

int nc_file_take_back(const struct nc_file_rules *r, const char *path, struct error *e)
{
	struct error why = {0};
	struct opened o;
	int err = open_checked(r, path, &o, &why);

	if (err == 0) {
		err = chown_opened(&o, o.sc_uid, o.sc_gid);
		if (err < 0)
			error_errno(&why, err, "cannot give %.300s back to the storage controller", path);
	}
	fd_closep(&o.fd);
	if (err < 0 && err != -ENOENT)
		error_set(e, why.code, "%s", why.message);
	return err == -ENOENT ? 0 : err;
}
