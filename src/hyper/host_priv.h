/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_HYPER_HOST_PRIV_H
#define MALLEE_HYPER_HOST_PRIV_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Can a user of this uid and group, who is also in the group kvm_gid, not read and write the
 * device? */
bool host_needs_access(const struct stat *dev, uid_t uid, gid_t gid, gid_t kvm_gid);

#endif
