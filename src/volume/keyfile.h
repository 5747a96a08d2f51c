/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_VOLUME_KEYFILE_H
#define MALLEE_VOLUME_KEYFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

/*
 * Keys of what is served, for the processes that serve it: a file each, of their user and readable by nobody else, in a folder on a
 * tmpfs. So they outlive those processes, which may be started again, but not the host, and no disk ever holds them (a host with
 * swap encrypts that, or a tmpfs may be on a disk after all).
 *
 * whose: the service that keeps them ("nc", "sc"), which has a folder of its own.
 */

/* What is there is replaced as a whole. path has room for size bytes. -EINVAL: a name that is no file's; -EOPNOTSUPP: this host has
 * no tmpfs. */
int keyfile_put(const char *cloud_id, const char *whose, const char *name, const void *key, size_t len, uid_t uid, gid_t gid, char *path,
		size_t size, struct error *e);
void keyfile_drop(const char *cloud_id, const char *whose, const char *name); /* one that is not there is fine */
bool keyfile_is_there(const char *cloud_id, const char *whose, const char *name);
/* Everything of a cloud, for good, as far as it is this user's. */
int keyfiles_remove(const char *cloud_id);

#endif
