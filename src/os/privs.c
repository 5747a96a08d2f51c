/* SPDX-License-Identifier: Apache-2.0 */
#include "os/privs.h"

#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/privs_priv.h"

#define PASSWD_BYTES 16384

int privs_lookup_user(const char *name, uid_t *ret_uid, gid_t *ret_gid)
{
	struct passwd pw, *found;
	char text[PASSWD_BYTES];
	int r = getpwnam_r(name, &pw, text, sizeof(text), &found);

	if (r)
		return -r;
	if (!found)
		return -ENOENT;
	*ret_uid = pw.pw_uid;
	*ret_gid = pw.pw_gid;
	return 0;
}

int user_groups(uid_t uid, gid_t gid, gid_t **ret, int *ret_count)
{
	struct passwd pw, *found = NULL;
	char text[PASSWD_BYTES];
	gid_t *groups = NULL;
	int count = 1;

	getpwuid_r(uid, &pw, text, sizeof(text), &found);
	for (;;) {
		int room = count;
		gid_t *more = realloc(groups, (size_t)room * sizeof(*groups));

		if (!more) {
			free(groups);
			return -ENOMEM;
		}
		groups = more;
		if (!found) {
			groups[0] = gid;
			break;
		}
		if (getgrouplist(pw.pw_name, gid, groups, &count) >= 0)
			break;
		if (count <= room)
			count = room * 2;
	}
	*ret = groups;
	*ret_count = count;
	return 0;
}

/* Selects in libcap-ng's per-thread state what is both wanted and had. */
static int select_caps(uint64_t keep_caps)
{
	uint64_t have = 0;

	if (capng_get_caps_process() < 0)
		return -EPERM;
	for (unsigned cap = 0; cap <= CAP_LAST_CAP; cap++) {
		if (capng_have_capability(CAPNG_PERMITTED, cap))
			have |= UINT64_C(1) << cap;
	}
	capng_clear(CAPNG_SELECT_BOTH);
	for (unsigned cap = 0; cap <= CAP_LAST_CAP; cap++) {
		if (!(keep_caps & have & UINT64_C(1) << cap))
			continue;
		if (capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET,
				 cap) < 0)
			return -EPERM;
	}
	return 0;
}

static int change_user(uid_t uid, gid_t gid, uint64_t keep_caps)
{
	struct passwd pw, *found = NULL;
	char text[PASSWD_BYTES];
	int r = select_caps(keep_caps);

	if (r < 0)
		return r;
	getpwuid_r(uid, &pw, text, sizeof(text), &found);
	/* libcap-ng carries the kept capabilities over the change of uid. */
	if (capng_change_id((int)uid, (int)gid,
			    (found ? CAPNG_INIT_SUPP_GRP : CAPNG_DROP_SUPP_GRP) |
				CAPNG_CLEAR_BOUNDING) != 0)
		return -EPERM;
	return 0;
}

int privs_drop(uid_t uid, gid_t gid, uint64_t keep_caps, struct error *e)
{
	uid_t real, effective, saved;
	int r = 0;

	if (geteuid() == 0)
		r = change_user(uid, gid, keep_caps);
	else if (geteuid() != uid || getegid() != gid)
		r = -EPERM;
	if (r < 0)
		return error_errno(e, r, "Cannot become user %u, group %u", uid, gid);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(e, errno, "Cannot give up new privileges");
	if (getresuid(&real, &effective, &saved) < 0 || real != uid || effective != uid ||
	    saved != uid || (uid != 0 && setresuid(0, 0, 0) == 0))
		abort(); /* going on as root would be worse */
	return 0;
}

int privs_bound(uint64_t keep_caps, struct error *e)
{
	int r = select_caps(keep_caps);

	if (r == 0 && capng_apply(CAPNG_SELECT_BOTH) != 0)
		r = -EPERM;
	return r < 0 ? error_errno(e, r, "Cannot give up capabilities") : 0;
}

/* ---- path_traversable ---- */

/* The nth ancestor of path, counted from the root ("/", "/var", "/var/lib"), into out; false behind
 * the last. */
static bool ancestor(const char *path, unsigned n, char *out)
{
	size_t len = 0;

	while (path[len] == '/')
		len++;
	for (unsigned i = 0; i < n; i++) {
		if (!path[len])
			return false;
		while (path[len] && path[len] != '/')
			len++;
		if (i + 1 < n) {
			while (path[len] == '/')
				len++;
		}
	}
	memcpy(out, path, len);
	out[len] = '\0';
	return true;
}

#define DEPTH_MAX 200 /* fits an exit code */

/* In the child, as the user itself, so that the kernel judges with modes, groups and ACLs. Exits
 * with 0, or with 1 + the number of the first folder that it may not enter. */
static _Noreturn void probe(const char *path, const uid_t uid, gid_t gid, const gid_t *groups,
			    int count, char *scratch)
{
	struct stat st;

	if (geteuid() == 0 && uid != 0 &&
	    (setgroups((size_t)count, groups) < 0 || setresgid(gid, gid, gid) < 0 ||
	     setresuid(uid, uid, uid) < 0))
		_exit(255);
	for (unsigned n = 0; n < DEPTH_MAX && ancestor(path, n, scratch); n++) {
		if (stat(scratch, &st) < 0)
			_exit((int)n + 1);
		if (S_ISDIR(st.st_mode) && access(scratch, X_OK) < 0)
			_exit((int)n + 1);
	}
	_exit(0);
}

static int refuse(const char *folder, uid_t uid, struct error *e)
{
	struct passwd pw, *found = NULL;
	char text[PASSWD_BYTES], number[16];
	struct stat st;

	if (stat(folder, &st) < 0)
		return error_errno(e, errno, "Cannot look at %s", folder);
	getpwuid_r(uid, &pw, text, sizeof(text), &found);
	snprintf(number, sizeof(number), "%u", uid);
	error_set(
	    e, "InternalError",
	    "The user %s cannot enter the folder %s (mode %04o). Choose a place that others may enter, or "
	    "allow it: chmod o+x %s",
	    found ? pw.pw_name : number, folder, st.st_mode & 07777, folder);
	return -EACCES;
}

int path_traversable(const char *path, uid_t uid, gid_t gid, struct error *e)
{
	char *scratch;
	gid_t *groups;
	int count, status, r;
	pid_t pid;

	if (path[0] != '/')
		return error_errno(e, EINVAL, "Not an absolute path: %s", path);
	r = user_groups(uid, gid, &groups, &count);
	if (r < 0)
		return error_errno(e, r, "Cannot look up the groups of user %u", uid);
	scratch = malloc(strlen(path) + 2);
	if (!scratch)
		abort();
	pid = fork();
	if (pid == 0)
		probe(path, uid, gid, groups, count, scratch);
	free(groups);
	r = pid < 0 ? -errno : 0;
	while (pid > 0 && waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR) {
			r = -errno;
			break;
		}
	}
	if (r < 0)
		r = error_errno(e, r, "Cannot check who may enter %s", path);
	else if (!WIFEXITED(status) || WEXITSTATUS(status) == 255)
		r = error_errno(e, EPERM, "Cannot check as user %u who may enter %s", uid, path);
	else if (WEXITSTATUS(status) != 0 &&
		 ancestor(path, (unsigned)WEXITSTATUS(status) - 1, scratch))
		r = refuse(scratch, uid, e);
	free(scratch);
	return r;
}
