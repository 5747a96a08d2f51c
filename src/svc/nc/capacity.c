/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>

#include "base/clock.h"
#include "svc/nc/nc_priv.h"

#define MIB (1 << 20)
#define DISK_RESERVE_SHARE 20 /* a twentieth of the file system … */
#define DISK_RESERVE_MOST ((int64_t)4 << 30)

static int64_t disk_total_and_free(struct nc *nc, int64_t *ret_free)
{
	struct statvfs fs;

	*ret_free = 0;
	if (statvfs(nc->dir, &fs) < 0)
		return 0;
	*ret_free = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
	return (int64_t)fs.f_blocks * (int64_t)fs.f_frsize;
}

int64_t nc_disk_reserve(struct nc *nc)
{
	int64_t unused, share = disk_total_and_free(nc, &unused) / DISK_RESERVE_SHARE;

	return MIN_OF(share, DISK_RESERVE_MOST);
}

struct usage {
	int64_t vcpus, memory_mib, disk_mib, made_disk_mib;
	int instances;
};

static void add_usage(struct nc *nc, struct nc_instance *inst, void *ctx)
{
	struct usage *u = ctx;
	int64_t disk = (inst->spec->disk_bytes.value + MIB - 1) / MIB;

	if (inst->rec.state == NC_TERMINATED)
		return;
	u->instances++;
	u->disk_mib += disk;
	if (inst->rec.boot_id[0])
		u->made_disk_mib += disk; /* no longer among what is free */
	if (nc_shown_state(inst) == NC_STOPPED)
		return;
	u->vcpus += inst->spec->vcpus.value;
	u->memory_mib += inst->spec->memory_mib.value;
}

static struct hyper_host real_host(struct nc *nc, const struct usage *u)
{
	struct hyper_host h = {.vcpus = get_nprocs()};
	struct sysinfo si;
	int64_t free_bytes;

	if (sysinfo(&si) == 0)
		h.memory_mib = (int64_t)((uint64_t)si.totalram * si.mem_unit / MIB);
	disk_total_and_free(nc, &free_bytes);
	/* The image cache gives way to instances only by its own limit, so what it takes counts as
	 * taken. */
	h.disk_mib = (free_bytes - nc_disk_reserve(nc)) / MIB + u->made_disk_mib;
	h.memory_mib -= settings_int(nc->settings, SETTING_RESERVE_MIB);
	return h;
}

/* Whether any guest is on, by the hypervisor's own word: a held instance's record stays "running".
 * Not to be called with the lock held. */
static bool guests_on(struct nc *nc)
{
	struct arena *a = arena_new();
	struct hyper_status *list;
	struct error e = {0};
	bool on = false;
	size_t count;

	if (nc->ops->list(nc->hyper, a, &list, &count, &e) < 0) {
		on = true; /* not known: not drained yet */
		count = 0;
	}
	for (size_t i = 0; i < count; i++)
		on |= list[i].state != HYPER_ABSENT && list[i].state != HYPER_OFF;
	arena_free(a);
	return on;
}

static void add_starting(struct nc *nc, struct nc_instance *inst, void *ctx)
{
	*(bool *)ctx |= inst->starting;
}

static const char *state_text(struct nc *nc, const struct usage *u, struct arena *a,
			      const char **ret_reason)
{
	const char *state = "ready", *reason = NULL;
	bool held, on = false;

	pthread_mutex_lock(&nc->lock);
	held = nc->held;
	nc_each(nc, add_starting, &on);
	pthread_mutex_unlock(&nc->lock);
	on = on || (held && (guests_on(nc) || nc_volumes_are_served(nc)));
	pthread_mutex_lock(&nc->lock);
	if (nc->held) {
		state = on ? "draining" : "drained";
		reason = "drained by the operator";
	} else if (error_is_set(&nc->hyper_error)) {
		reason = arena_strdup(a, nc->hyper_error.message);
	} else if (error_is_set(&nc->net_error)) {
		reason = arena_strdup(a, nc->net_error.message);
	}
	pthread_mutex_unlock(&nc->lock);
	*ret_reason = reason;
	return state;
}

void nc_node_status(struct nc *nc, struct arena *a, struct shared_node_status *out)
{
	struct hyper_host host;
	struct usage u = {0};
	int disks, disks_used;

	pthread_mutex_lock(&nc->lock);
	nc_each(nc, add_usage, &u);
	nc_disks_count(nc, &disks, &disks_used);
	pthread_mutex_unlock(&nc->lock);
	if (nc->ops->host)
		nc->ops->host(nc->hyper, &host);
	else
		host = real_host(nc, &u);

	*out = (struct shared_node_status){
	    .node_id = nc->node_id,
	    .last_seen = WIRE_TIME_OF(clock_unix_ms()),
	    .hypervisor = nc->ops->host			 ? nc->ops->name
			  : nc->accel == HYPER_ACCEL_KVM ? "kvm"
							 : "qemu",
	    .accelerator = hyper_accel_name(nc->accel),
	    .accelerator_reason = nc->accel_why,
	    .vcpus = WIRE_INT_OF(
		host.vcpus *
		(nc->ops->host ? 1 : settings_int(nc->settings, SETTING_OVERCOMMIT_CPU))),
	    .memory_mib = WIRE_INT_OF(MAX_OF(host.memory_mib, (int64_t)0)),
	    .disk_mib = WIRE_INT_OF(MAX_OF(host.disk_mib, (int64_t)0)),
	    .vcpus_used = WIRE_INT_OF(u.vcpus),
	    .memory_mib_used = WIRE_INT_OF(u.memory_mib),
	    .disk_mib_used = WIRE_INT_OF(u.disk_mib),
	    .local_disks = WIRE_INT_OF(disks),
	    .local_disks_used = WIRE_INT_OF(disks_used),
	    .instances = WIRE_INT_OF(u.instances),
	    .address = "127.0.0.1",
	    .version = MALLEE_VERSION,
	};
	out->state = state_text(nc, &u, a, &out->reason);
}
