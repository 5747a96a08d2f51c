/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_HYPER_DISK_PRIV_H
#define MALLEE_HYPER_DISK_PRIV_H

#include "hyper/driver.h"

/* What every driver refuses: -EINVAL and words. */
int hyper_disk_check(const struct hyper_disk *d, struct error *e);
/* A machine's disks as a whole: one boot disk, no slot and no serial twice. */
int hyper_disks_check(const struct hyper_machine *m, struct error *e);
/* -EINVAL: a boot disk can only be there from the start. */
int hyper_disk_no_boot(struct error *e);

#endif
