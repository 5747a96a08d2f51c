/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_PROCESSES_H
#define MALLEE_CMD_PROCESSES_H

#include "base/settings.h"

/* Ends the processes that the storage controller keeps for volumes and snapshots, which outlive it: once it is down. They
 * come back with it. */
int processes_end(const struct settings *s, struct error *e);

#endif
