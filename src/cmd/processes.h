/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_PROCESSES_H
#define MALLEE_CMD_PROCESSES_H

#include "base/settings.h"

/* Ends the processes that the storage controller and the node controller keep for volumes and snapshots, which outlive
 * them: once they are down. They come back with them. */
int processes_end(const struct settings *s, struct error *e);

#endif
