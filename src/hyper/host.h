/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_HYPER_HOST_H
#define MALLEE_HYPER_HOST_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "hyper/driver.h"

/*
 * Give QEMU's user (libvirt-qemu) access to /dev/kvm through the group kvm, as distributions do, or, where there is no such
 * group (a machine without udev), through that user's own.
 * Without it libvirt finds that its record of QEMU's abilities is out of date at each call and
 * takes it anew: starting a guest lasts 5 s instead of 1 s, also under TCG. What was there before
 * is written to record_path first. Nothing is done where the access is there already, or the
 * device or the user is not. Needs root. Call it before libvirtd is used.
 */
int hyper_host_prepare(const char *record_path, struct error *e);
/* Put back what the record names, if it is still as we left it, and remove the record. No record:
 * success. */
int hyper_host_restore(const char *record_path, struct error *e);

/* The group that a guest's QEMU must run as: with KVM that of /dev/kvm, unless all may open it;
 * else one of its own, numbered as its user. */
gid_t hyper_qemu_gid(enum hyper_accel accel, uid_t uid);

/* Whether this file can be read past the page cache; guests' disks are then. */
bool hyper_direct_io(const char *path);

#endif
