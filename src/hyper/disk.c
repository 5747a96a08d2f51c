/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/un.h>

#include "base/text.h"
#include "hyper/disk_priv.h"

#define QUEUES_MAX 16

static int refuse(struct error *e, const char *what, const char *text)
{
	error_set(e, "InvalidParameterValue", "%s: %s", what, text ? text : "none");
	return -EINVAL;
}

static bool serial_is_fine(const char *serial)
{
	size_t len = serial ? strlen(serial) : 0;

	return len > 0 && len <= HYPER_SERIAL_BYTES &&
	       strspn(serial, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_") == len;
}

int hyper_disk_check(const struct hyper_disk *d, struct error *e)
{
	size_t max = sizeof(((struct sockaddr_un *)NULL)->sun_path);

	if (!serial_is_fine(d->serial))
		return refuse(e, "a disk's serial must be 1 to 20 letters, digits, - and _", d->serial);
	if (!d->path || d->path[0] != '/')
		return refuse(e, "a disk's path must be absolute", d->path);
	if (d->kind == HYPER_DISK_VHOST_USER && strlen(d->path) >= max)
		return refuse(e, "the path of a disk's socket is too long", d->path);
	if (!d->boot && (d->slot < 0 || d->slot >= HYPER_DISK_SLOTS))
		return refuse(e, "there is no such slot for the disk", d->serial);
	if (d->queues < 0 || d->queues > QUEUES_MAX)
		return refuse(e, "a disk has 1 to 16 queues", d->serial);
	return 0;
}

int hyper_disks_check(const struct hyper_machine *m, struct error *e)
{
	size_t boots = m->root_path ? 1 : 0;

	for (size_t i = 0; i < m->disk_count; i++) {
		const struct hyper_disk *d = &m->disks[i];
		int r = hyper_disk_check(d, e);

		if (r < 0)
			return r;
		boots += d->boot;
		for (size_t j = 0; j < i; j++) {
			const struct hyper_disk *other = &m->disks[j];

			if (str_eq(d->serial, other->serial))
				return refuse(e, "two disks have the same serial", d->serial);
			if (!d->boot && !other->boot && d->slot == other->slot)
				return refuse(e, "two disks are to have the same slot", d->serial);
		}
	}
	return boots == 1 ? 0 : refuse(e, "a machine has one boot disk, not none or several", m->name);
}

int hyper_disk_no_boot(struct error *e)
{
	error_set(e, "InternalError", "a boot disk cannot be attached to a running machine");
	return -EINVAL;
}
