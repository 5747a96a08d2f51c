/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OS_FILE_H
#define MALLEE_OS_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/macros.h"

void fd_closep(int *fd); /* _cleanup_: closes when >= 0, sets -1, keeps errno */

/* Whole file, NUL-terminated, malloc()ed. -EFBIG when longer than max_bytes. */
int file_read(const char *path, size_t max_bytes, char **ret_data, size_t *ret_len);
/* Durable replace: temporary file beside it, write, fsync, rename, fsync of the folder. */
int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode);
/* mkdir -p; existing folders are left as they are. */
int dir_make(const char *path, mode_t mode);
/* rm -r of path itself and all below; does not follow symbolic links; missing is fine. */
int dir_remove(const char *path);
int dir_sync(const char *path);
/* write() / pwrite() until all is written. */
int fd_write_all(int fd, const void *data, size_t len);
int fd_pwrite_all(int fd, const void *data, size_t len, uint64_t off_bytes);

/* A pid file held under a lock for the process's life. -EBUSY and *ret_pid (0 when it cannot be told) when another
 * holds it. The lock goes when *ret_fd is closed. */
int pidfile_take(const char *path, int *ret_fd, pid_t *ret_pid);
/* The pid of the process that holds it; 0 when nobody does. */
pid_t pidfile_holder(const char *path);

#endif
