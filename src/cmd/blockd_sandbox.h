/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_BLOCKD_SANDBOX_H
#define MALLEE_CMD_BLOCKD_SANDBOX_H

#include <stdbool.h>

#include "base/error.h"

/*
 * What the process gives up once all is open (STYLE 26): a guest and a network talk to it from then on. needs: BLK_NEEDS_… of
 * what is open (block/core/layer.h). For all threads, for good: no new privileges, not dumpable, and system calls only that
 * serving a volume takes. Any other is told on stderr by its number, and ends the process by SIGSYS.
 */
int blockd_sandbox_enter(unsigned needs, struct error *e);

/* Root without --user: the capabilities that set-up takes are all that it keeps. Before the first thread. */
int blockd_sandbox_bound(bool has_fuse, struct error *e);

/* Unless --sandbox says otherwise. Sanitizers do at the end what no filter lets through. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BLOCKD_SANDBOX_DEFAULT false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define BLOCKD_SANDBOX_DEFAULT false
#endif
#endif
#ifndef BLOCKD_SANDBOX_DEFAULT
#define BLOCKD_SANDBOX_DEFAULT true
#endif

#endif
