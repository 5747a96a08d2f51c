/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/sc/pool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/text.h"
#include "os/disk.h"
#include "os/file.h"

#define RESERVE_SHARE 20                    /* of the file system: a twentieth is left alone, */
#define RESERVE_MOST (INT64_C(10) << 30)    /* or so much */
#define MUCH (INT64_C(1) << 60)

struct pool {
	bool on_disks, accounted;
	char *dir;
	char devices[POOL_DEVICES][POOL_DEVICE_MAX];
	const char *device[POOL_DEVICES + 1]; /* NULL-terminated */
	int count;
};

int pool_parse(const char *setting, char names[][POOL_DEVICE_MAX], int max)
{
	const char *at = setting + strlen("disks:");
	int n = 0;

	if (str_eq(setting, "files"))
		return 0;
	if (!str_prefix(setting, "disks:"))
		return -EINVAL;
	for (;;) {
		size_t len = strcspn(at, ",");
		if (n == max || len >= POOL_DEVICE_MAX || !str_prefix(at, "/dev/") || len <= strlen("/dev/"))
			return -EINVAL;
		snprintf(names[n++], POOL_DEVICE_MAX, "%.*s", (int)len, at);
		if (!at[len])
			return n;
		at += len + 1;
	}
}

int pool_new(const char *setting, const char *dir, bool accounted, struct pool **ret, struct error *e)
{
	struct pool *p = calloc(1, sizeof(*p));

	if (!p || !(p->dir = strdup(dir)))
		abort();
	p->accounted = accounted;
	p->on_disks = str_prefix(setting, "disks:");
	p->count = pool_parse(setting, p->devices, POOL_DEVICES);
	if (p->count < 0) {
		pool_free(p);
		return error_set(e, "InvalidSetting", "ebs_pool: \"%.64s\" is neither files nor disks:/dev/X,/dev/Y", setting);
	}
	for (int i = 0; i < p->count; i++)
		p->device[i] = p->devices[i];
	*ret = p;
	return 0;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	free(p->dir);
	free(p);
}

bool pool_on_disks(const struct pool *p)
{
	return p->on_disks;
}

const char *const *pool_devices(const struct pool *p)
{
	return p->device;
}

/* ---- room ---- */

void pool_room(const struct pool *p, int64_t promised_bytes, int64_t held_bytes, struct pool_room *ret)
{
	struct statvfs fs;
	int64_t size;

	*ret = (struct pool_room){ 0 };
	if (p->on_disks) {
		for (int i = 0; i < p->count; i++) {
			if (disk_size(p->devices[i], &size, NULL) == 0)
				ret->total_bytes += size;
		}
		ret->free_bytes = MAX_OF(ret->total_bytes - promised_bytes, (int64_t)0);
		return;
	}
	if (!p->accounted) {
		*ret = (struct pool_room){ MUCH, MUCH - promised_bytes };
		return;
	}
	if (statvfs(p->dir, &fs))
		return;
	int64_t unused = (int64_t)(fs.f_bavail * fs.f_frsize), all = (int64_t)(fs.f_blocks * fs.f_frsize);
	int64_t reserve = MIN_OF(all / RESERVE_SHARE, RESERVE_MOST);
	ret->total_bytes = MAX_OF(unused + held_bytes - reserve, (int64_t)0);
	ret->free_bytes = MAX_OF(ret->total_bytes - promised_bytes, (int64_t)0);
}

int pool_check(const struct pool *p, int64_t bytes, int64_t promised_bytes, int64_t held_bytes, struct error *e)
{
	struct pool_room room;

	pool_room(p, promised_bytes, held_bytes, &room);
	if (bytes <= room.free_bytes)
		return 0;
	return error_set(e, "InsufficientVolumeCapacity",
			 "InsufficientVolumeCapacity: %" PRId64 " GiB are wanted, and %" PRId64 " GiB can still be promised",
			 (bytes + (1 << 30) - 1) >> 30, room.free_bytes >> 30);
}

/* ---- devices ---- */

static bool is_used(const char *device, const char *const *used)
{
	for (; *used; used++) {
		if (str_eq(*used, device))
			return true;
	}
	return false;
}

int pool_choose(const struct pool *p, int64_t bytes, const char *const *used, char out[static POOL_DEVICE_MAX], struct error *e)
{
	int64_t best = INT64_MAX, size;
	struct error why = { 0 };

	*out = '\0';
	for (int i = 0; i < p->count; i++) {
		struct error no = { 0 };
		if (is_used(p->devices[i], used))
			continue;
		int r = disk_size(p->devices[i], &size, &no);
		if (r == 0 && (size < bytes || size >= best))
			continue;
		if (r == 0)
			r = disk_check_blank(p->devices[i], &no);
		if (r) {
			why = no;
			continue;
		}
		best = size;
		snprintf(out, POOL_DEVICE_MAX, "%s", p->devices[i]);
	}
	if (*out)
		return 0;
	return error_set(e, "InsufficientVolumeCapacity", "InsufficientVolumeCapacity: no disk of the pool is free and holds %" PRId64 " GiB%s%.200s",
			 (bytes + (1 << 30) - 1) >> 30, *why.message ? "; " : "", why.message);
}

int pool_device_fits(const char *device, int64_t bytes, struct error *e)
{
	int64_t size;
	int r = disk_size(device, &size, e);

	if (r == 0 && size < bytes)
		r = error_set(e, "InsufficientVolumeCapacity", "InsufficientVolumeCapacity: the volume's disk has %" PRId64 " GiB", size >> 30);
	return r;
}
