/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_VOLUME_BUFFER_H
#define MALLEE_VOLUME_BUFFER_H

#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

/*
 * Where the write buffers of volumes lie (mallee-blockd's filter coalesce): one file a volume in a folder of the cloud's own on a
 * tmpfs, so that a buffer outlives the process that fills it, but not the host. All together take a part of the tmpfs and of
 * memory at most; who comes when that is used up gets none, and writes go to the disk directly.
 */
struct buffers;

#define BUFFER_BYTES (16u << 20) /* coalesce's default */

/* Makes the folder. Where there is no tmpfs there are no buffers. */
int buffers_open(const char *cloud_id, struct buffers **ret, struct error *e);
void buffers_free(struct buffers *b); /* the folder stays. NULL is fine */
/* A file for a volume, for the user that serves it; what it holds already is kept. -ENOSPC: there is no room for another one;
 * -EINVAL: an id that is no file's name. */
int buffers_take(struct buffers *b, const char *id, uid_t uid, gid_t gid, char *path, size_t size, struct error *e);
void buffers_drop(struct buffers *b, const char *id);
/* Everything of a cloud, for good. */
int buffers_remove(const char *cloud_id);

#endif
