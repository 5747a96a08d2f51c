/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/host.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "cmd/service.h"
#include "hyper/host.h"
#include "os/file.h"
#include "os/privs.h"
#include "os/spawn.h"

#define RECORD "/var/lib/mallee-host"
#define KVM_RECORD RECORD "/kvm-device"
#define CACHE "/var/cache/mallee" /* of image builds, where there is no build folder */

struct user {
	const char *name, *home, *comment;
};

static const struct user users[] = {
    {SERVICE_USER, "/nonexistent", "Mallee cloud services"},
    {"libvirt-qemu", "/var/lib/libvirt", "Libvirt Qemu"},
};

static int record(const char *kind, const char *name, const char *text, struct error *e)
{
	char path[300];
	int r;

	snprintf(path, sizeof(path), RECORD "/%s", kind);
	r = dir_make(path, 0755);
	if (r < 0)
		return error_errno(e, r, "Cannot make %s", path);
	snprintf(path, sizeof(path), RECORD "/%s/%s", kind, name);
	r = file_write_atomic(path, text, strlen(text), 0644);
	return r < 0 ? error_errno(e, r, "Cannot write %s", path) : 0;
}

int host_users_make(struct error *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(users); i++) {
		uid_t uid;
		gid_t gid;
		int r = privs_lookup_user(users[i].name, &uid, &gid);

		if (r == 0)
			continue;
		r = record("users", users[i].name, "made\n", e);
		if (r == 0)
			r = run_command(e, "useradd", "--system", "--user-group",
					"--no-create-home", "--home-dir", users[i].home, "--shell",
					"/usr/sbin/nologin", "--comment", users[i].comment,
					users[i].name, NULL);
		if (r < 0)
			return r;
	}
	return 0;
}

int host_cloud_add(const struct settings *s, struct error *e)
{
	return record("clouds", settings_get(s, SETTING_CLOUD_ID), settings_get(s, SETTING_STATE),
		      e);
}

int host_kvm_prepare(struct error *e)
{
	return hyper_host_prepare(KVM_RECORD, e);
}

static bool any_in(const char *kind)
{
	char path[300];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), RECORD "/%s", kind);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir)))
		found = entry->d_name[0] != '.';
	closedir(dir);
	return found;
}

static int remove_users(struct error *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(users); i++) {
		uid_t uid;
		gid_t gid;
		char path[300];
		int r = 0;

		snprintf(path, sizeof(path), RECORD "/users/%s", users[i].name);
		if (access(path, F_OK) < 0)
			continue;
		if (privs_lookup_user(users[i].name, &uid, &gid) == 0)
			r = run_command(e, "userdel", users[i].name, NULL);
		if (r < 0)
			return r;
		unlink(path);
		printf("  removed the user %s\n", users[i].name);
	}
	return 0;
}

static void name_packages(void)
{
	_cleanup_(freep) char *list = NULL;
	size_t len;

	if (file_read(RECORD "/packages", 65536, &list, &len) < 0)
		return;
	for (char *p = list; *p; p++) {
		if (*p == '\n')
			*p = ' ';
	}
	printf(
	    "These packages were installed for Mallee and stay; to remove them:\n  apt-get remove %s\n",
	    list);
}

int host_cloud_remove(const struct settings *s, struct error *e)
{
	char path[300];
	int r;

	snprintf(path, sizeof(path), RECORD "/clouds/%s", settings_get(s, SETTING_CLOUD_ID));
	if (unlink(path) < 0 && errno != ENOENT)
		return error_errno(e, errno, "Cannot remove %s", path);
	if (any_in("clouds")) {
		printf("  other clouds are on this machine: the users that they share stay\n");
		return 0;
	}
	r = hyper_host_restore(KVM_RECORD, e);
	if (r == 0)
		r = remove_users(e);
	if (r < 0)
		return r;
	name_packages();
	dir_remove(CACHE);
	r = dir_remove(RECORD);
	return r < 0 ? error_errno(e, r, "Cannot remove " RECORD) : 0;
}
