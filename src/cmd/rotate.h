/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_ROTATE_H
#define MALLEE_CMD_ROTATE_H

#include <stdint.h>

/* When path is longer than max_bytes: its text moves to path.1 (replacing the one before) and path
 * becomes empty. The writers keep their descriptors (opened O_APPEND); lines written in that very
 * moment may be lost. 0 or negative errno. */
int rotate_log(const char *path, uint64_t max_bytes);

#endif
