/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OS_PRIVS_H
#define MALLEE_OS_PRIVS_H

#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* Become this user for good: groups, gid, uid, no_new_privs, no capabilities but those in keep_caps
 * (bits 1 << CAP_…; 0 for none). */
int privs_drop(uid_t uid, gid_t gid, uint64_t keep_caps, struct error *e);
int privs_lookup_user(const char *name, uid_t *ret_uid, gid_t *ret_gid); /* -ENOENT */
/* Keep root but give up all capabilities outside keep_caps, for good. */
int privs_bound(uint64_t keep_caps, struct error *e);

/* Who listens on this TCP port: "nginx (pid 812)" into holder, or "" when it can't be told. */
void port_holder(uint16_t port, char *holder, size_t size);
/* Whether uid could traverse every folder of path; else -EACCES and the folder's name in *e. */
int path_traversable(const char *path, uid_t uid, gid_t gid, struct error *e);

#endif
