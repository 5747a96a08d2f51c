/* SPDX-License-Identifier: Apache-2.0 */
#include "hyper/host.h"

#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hyper/host_priv.h"
#include "os/file.h"
#include "os/privs.h"

#define KVM_DEVICE "/dev/kvm"
#define QEMU_USER "libvirt-qemu"
#define KVM_GROUP "kvm"

bool host_needs_access(const struct stat *dev, uid_t uid, gid_t gid, gid_t kvm_gid)
{
	mode_t rw;

	if (dev->st_uid == uid)
		rw = dev->st_mode >> 6;
	else if (dev->st_gid == gid || dev->st_gid == kvm_gid)
		rw = dev->st_mode >> 3;
	else
		rw = dev->st_mode;
	return (rw & 6) != 6;
}

static int write_record(const char *path, const struct stat *before, gid_t ours, struct error *e)
{
	char text[128];
	int n = snprintf(text, sizeof(text), KVM_DEVICE " gid=%u mode=%o ours=%u\n",
			 (unsigned int)before->st_gid, (unsigned int)(before->st_mode & 07777),
			 (unsigned int)ours);
	int r = file_write_atomic(path, text, (size_t)n, 0600);

	return r < 0 ? error_errno(e, r, "cannot write %s", path) : 0;
}

int hyper_host_prepare(const char *record_path, struct error *e)
{
	struct stat dev;
	struct group *group;
	uid_t uid;
	gid_t gid, ours;
	int r;

	if (stat(KVM_DEVICE, &dev) < 0 || !S_ISCHR(dev.st_mode) ||
	    privs_lookup_user(QEMU_USER, &uid, &gid) < 0)
		return 0;
	group = getgrnam(KVM_GROUP);
	ours = group ? group->gr_gid : gid;
	if (!host_needs_access(&dev, uid, gid, ours))
		return 0;
	if (access(record_path, F_OK) != 0) {
		r = write_record(record_path, &dev, ours, e);
		if (r < 0)
			return r;
	}
	if (chown(KVM_DEVICE, (uid_t)-1, ours) < 0 ||
	    chmod(KVM_DEVICE, (dev.st_mode & 07777) | 0060) < 0)
		return error_errno(e, errno,
				   "cannot give the group %s access to " KVM_DEVICE, group ? KVM_GROUP : QEMU_USER);
	return 0;
}

int hyper_host_restore(const char *record_path, struct error *e)
{
	_cleanup_(freep) char *text = NULL;
	unsigned int gid, mode, ours;
	struct stat dev;
	size_t len;
	int r = file_read(record_path, 4096, &text, &len);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return error_errno(e, r, "cannot read %s", record_path);
	if (sscanf(text, KVM_DEVICE " gid=%u mode=%o ours=%u", &gid, &mode, &ours) != 3)
		return error_set(e, "InternalError",
				 "%s is damaged: remove it after a look at " KVM_DEVICE,
				 record_path);
	/* The device is made anew at each boot; then there is nothing to put back. */
	if (stat(KVM_DEVICE, &dev) == 0 && dev.st_gid == ours &&
	    (dev.st_mode & 07777) == (mode | 0060) &&
	    (chown(KVM_DEVICE, (uid_t)-1, gid) < 0 || chmod(KVM_DEVICE, mode) < 0))
		return error_errno(e, errno, "cannot restore " KVM_DEVICE);
	if (unlink(record_path) < 0)
		return error_errno(e, errno, "cannot remove %s", record_path);
	return 0;
}

gid_t hyper_qemu_gid(enum hyper_accel accel, uid_t uid)
{
	struct stat dev;

	if (accel != HYPER_ACCEL_KVM || stat(KVM_DEVICE, &dev) < 0 || (dev.st_mode & 6) == 6)
		return (gid_t)uid;
	return dev.st_gid;
}
