/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_POOL_H
#define MALLEE_SVC_SC_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/*
 * What volumes are made of: a folder of files, or whole block devices, one a volume. The pool knows what there is; who was promised
 * what is its user's to remember, and to tell. Not locked: the caller is.
 */
struct pool;

#define POOL_DEVICE_MAX 128
#define POOL_DEVICES 64

/* setting: "files", or "disks:/dev/sdb,/dev/sdc"; dir: of the files. accounted false: there is room for everything. */
int pool_new(const char *setting, const char *dir, bool accounted, struct pool **ret, struct error *e);
void pool_free(struct pool *p);
bool pool_on_disks(const struct pool *p);

struct pool_room {
	int64_t total_bytes, free_bytes; /* free: that may still be promised */
};
/* promised: to all volumes; held: of that, what their files take on the disk already (files only). */
void pool_room(const struct pool *p, int64_t promised_bytes, int64_t held_bytes, struct pool_room *ret);
/* Room for so many bytes more: InsufficientVolumeCapacity. */
int pool_check(const struct pool *p, int64_t bytes, int64_t promised_bytes, int64_t held_bytes, struct error *e);
/* The smallest device that holds so many bytes, is none of used[], is blank, and in use by nobody. */
int pool_choose(const struct pool *p, int64_t bytes, const char *const *used, char out[static POOL_DEVICE_MAX], struct error *e);
/* Whether it has so many bytes. */
int pool_device_fits(const char *device, int64_t bytes, struct error *e);
/* The devices of the pool, NULL-terminated. */
const char *const *pool_devices(const struct pool *p);
/* What a setting names, into names[]: their number, or -EINVAL. */
int pool_parse(const char *setting, char names[][POOL_DEVICE_MAX], int max);

#endif
