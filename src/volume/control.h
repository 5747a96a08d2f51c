/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_VOLUME_CONTROL_H
#define MALLEE_VOLUME_CONTROL_H

#include <sys/types.h>

#include "base/buf.h"
#include "base/error.h"

/* mallee-blockd's control socket from the other side: one line out, one line of JSON back. */

/* Connected, or -errno (-ECONNREFUSED, -ENOENT: nobody serves it). *ret_pid: who does, by the kernel. */
int control_connect(const char *path, int timeout_ms, int *ret_fd, pid_t *ret_pid);
/* The result's JSON into *ret_json; what the process refused comes with its code. */
int control_ask(int fd, const char *line, struct buf *ret_json, struct error *e);

#endif
