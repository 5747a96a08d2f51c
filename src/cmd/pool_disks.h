/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_POOL_DISKS_H
#define MALLEE_CMD_POOL_DISKS_H

#include <sys/types.h>

#include "base/settings.h"

/* The disks of MALLEE_EBS_POOL, as root has to do with them. */

/* They belong to who makes volumes of them: told at each start, since device files are made anew with each boot. Those that
 * serve a guest at the moment belong to it, and are left. */
int pool_disks_give(const struct settings *s, uid_t uid, gid_t gid, struct error *e);
/* Those that volumes were on are made blank at their ends, so that they count as nobody's. Once nothing serves them. */
int pool_disks_blank(const struct settings *s, struct error *e);
/* All belong to root again. */
int pool_disks_give_back(const struct settings *s, struct error *e);

#endif
