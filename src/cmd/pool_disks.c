/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/pool_disks.h"

#include <dirent.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "os/disk.h"

typedef int disk_fn(const char *path, const struct stat *st, const void *arg, struct error *e);

static int each_disk(const struct settings *s, bool required, disk_fn *fn, const void *arg, struct error *e)
{
	const char *at = settings_get(s, SETTING_EBS_POOL);
	int r = 0;

	if (!str_prefix(at, "disks:") || geteuid() != 0)
		return 0;
	for (at += strlen("disks:"); *at && r == 0;) {
		size_t len = strcspn(at, ",");
		char path[128];
		struct stat st;

		snprintf(path, sizeof(path), "%.*s", (int)len, at);
		at += len + (at[len] == ',');
		if (lstat(path, &st) < 0 && errno == ENOENT && !required)
			continue; /* taken out of the machine */
		if (lstat(path, &st) < 0)
			return error_errno(e, errno, "Cannot look at %s, a disk of MALLEE_EBS_POOL", path);
		if (!S_ISBLK(st.st_mode))
			return error_set(e, "InvalidSetting", "%s, a disk of MALLEE_EBS_POOL, is no block device (name the device itself, not a link)", path);
		r = fn(path, &st, arg, e);
	}
	return r;
}

struct owner {
	uid_t uid;
	gid_t gid;
	mode_t mode;
};

static int give(const char *path, const struct stat *st, const void *arg, struct error *e)
{
	const struct owner *to = arg;

	if ((st->st_uid == 0) == (to->uid == 0))
		return 0;
	if (chown(path, to->uid, to->gid) < 0 || chmod(path, to->mode) < 0)
		return error_errno(e, errno, "Cannot give %s to its user", path);
	return 0;
}

int pool_disks_give(const struct settings *s, uid_t uid, gid_t gid, struct error *e)
{
	return each_disk(s, true, give, &(struct owner){uid, gid, 0600}, e);
}

int pool_disks_give_back(const struct settings *s, struct error *e)
{
	const struct group *disk = getgrnam("disk");

	return each_disk(s, false, give, &(struct owner){0, disk ? disk->gr_gid : 0, 0660}, e);
}

/* The storage controller leaves a link in the folder of a volume that is on a disk. */
static int blank_if_used(const char *path, const struct stat *st, const void *arg, struct error *e)
{
	DIR *dir = opendir(arg);
	bool used = false;

	for (struct dirent *entry; dir && !used && (entry = readdir(dir));) {
		char link[4096], target[128];
		ssize_t n;

		snprintf(link, sizeof(link), "%s/%s/device", (const char *)arg, entry->d_name);
		n = readlink(link, target, sizeof(target) - 1);
		target[MAX_OF(n, (ssize_t)0)] = '\0';
		used = n > 0 && str_eq(target, path);
	}
	if (dir)
		closedir(dir);
	return used ? disk_blank(path, e) : 0;
}

int pool_disks_blank(const struct settings *s, struct error *e)
{
	_cleanup_(freep) char *volumes = settings_path(s, "sc/volumes");

	return each_disk(s, false, blank_if_used, volumes, e);
}
