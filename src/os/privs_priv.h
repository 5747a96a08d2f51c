/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OS_PRIVS_PRIV_H
#define MALLEE_OS_PRIVS_PRIV_H

#include <sys/types.h>

/* The groups of uid by the user database, gid among them, malloc()ed; gid alone for an unknown
 * user. */
int user_groups(uid_t uid, gid_t gid, gid_t **ret, int *ret_count);

#endif
