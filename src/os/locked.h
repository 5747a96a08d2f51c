/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OS_LOCKED_H
#define MALLEE_OS_LOCKED_H

#include <stddef.h>

#include "base/error.h"

/* Memory for a key: pages of its own, zeroed, not in core dumps, not in a child, and not swapped out as long as the process may
 * lock memory (RLIMIT_MEMLOCK; without it they are ordinary pages). NULL: no memory. Freeing wipes; NULL is fine. */
void *locked_new(size_t bytes);
void locked_free(void *p);
DEFINE_CLEANUP(void *, locked_free, locked_freep)

/* The file of exactly `bytes` bytes at path, which nobody but its owner (this process' user, or root) has rights on, into `to`. */
int locked_read(const char *path, void *to, size_t bytes, struct error *e);

/* No core dump of this process from now on, and no other process of its user may look into it. */
void process_seal(void);

#endif
