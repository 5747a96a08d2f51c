/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole disks of the node (MALLEE_LOCAL_DISKS), each given to one instance at a time: of types that have some. A disk goes through
 *
 *   free → recorded as an instance's → given to its user, its mallee-blockd started (served) → the guest runs
 *   … drained: the process ends, the disk stays the instance's
 *   … stopped or terminated: the process ends, the disk's ends are made blank, the record goes → free
 *
 * What a tenant left is never read by the next: the disk begins as zeroes (filter cow), whatever is on it. Only the worker of its
 * instance touches a disk that is not free, so a disk needs no lock of its own; the list is guarded by nc->lock.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "os/disk.h"
#include "os/file.h"
#include "svc/nc/nc_priv.h"
#include "wire/codec.h"

#define KIND_DISK "disk"
#define PREFIX "disk-" /* of the names that its process and its record have */
#define SERVE_MS 5000
#define STOP_MS 5000
#define RETRY_MS 2000

/* "disk-sdb" of /dev/sdb */
static void name_of(const char *device, char out[static NC_DISK_NAME])
{
	snprintf(out, NC_DISK_NAME, PREFIX "%.58s", device + strlen("/dev/"));
	for (char *c = out; *c; c++)
		if (strchr("/._:+", *c))
			*c = '-';
}

static void folder_of(const struct nc *nc, const struct nc_disk *d, const char *file, char *out, size_t size)
{
	snprintf(out, size, "%s/disks/%s%s%s", nc->dir, d->name, *file ? "/" : "", file);
}

bool nc_disk_is_name(const char *id)
{
	return str_prefix(id, PREFIX);
}

/* Lock */
static struct nc_disk *find(struct nc *nc, const char *name)
{
	for (size_t i = 0; i < nc->disk_count; i++)
		if (str_eq(nc->disks[i].name, name))
			return &nc->disks[i];
	return NULL;
}

/* Lock. The instance's disk of that index; NULL: it has none yet. */
static struct nc_disk *disk_of(struct nc *nc, const char *instance, int index)
{
	for (size_t i = 0; i < nc->disk_count; i++)
		if (nc->disks[i].index == index && str_eq(nc->disks[i].instance, instance))
			return &nc->disks[i];
	return NULL;
}

/* --- taking --- */

static int put_record(struct nc *nc, const struct nc_disk *d, struct error *e)
{
	const struct records_node_disk rec = {.device = d->device,
					      .instance_id = d->instance,
					      .slot = WIRE_INT_OF(d->slot),
					      .index = WIRE_INT_OF(d->index)};

	return nc_store_put(nc, KIND_DISK, d->name, &records_shape_node_disk, &rec, e);
}

/* A free disk becomes the instance's; durable before it is touched. */
static struct nc_disk *take(struct nc_job *j, int index)
{
	struct nc *nc = j->nc;
	struct nc_disk *d = NULL;
	struct error why = {0};

	for (size_t i = 0; i < nc->disk_count && !d; i++) {
		pthread_mutex_lock(&nc->lock);
		bool mine = nc->disks[i].listed && !nc->disks[i].instance[0];
		if (mine)
			strcpy(nc->disks[i].instance, j->id);
		pthread_mutex_unlock(&nc->lock);
		if (!mine)
			continue;
		d = &nc->disks[i];
		d->slot = j->rec.slot;
		d->index = index;
		if ((nc->keeper && disk_check_blank(d->device, &why) < 0) || put_record(nc, d, &why) < 0) {
			pthread_mutex_lock(&nc->lock);
			d->instance[0] = '\0';
			pthread_mutex_unlock(&nc->lock);
			d = NULL;
		}
	}
	if (!d)
		error_set(&j->err, "Server.InsufficientInstanceCapacity", "no whole disk of this node is free%s%.300s",
			  *why.message ? ": " : "", why.message);
	return d;
}

/* --- serving --- */

static int give(struct nc *nc, const struct nc_disk *d, uid_t uid, struct error *e)
{
	char path[4096];
	int r;

	folder_of(nc, d, "", path, sizeof(path));
	r = dir_make(path, 0700);
	if (r == 0 && (chown(path, uid, (gid_t)uid) < 0 || chown(d->device, uid, (gid_t)uid) < 0))
		r = -errno;
	return r < 0 ? error_errno(e, r, "cannot give %s to its instance", d->device) : 0;
}

static int serve(struct nc_job *j, struct nc_disk *d)
{
	struct nc *nc = j->nc;
	uid_t uid = nc->uid_base + (uid_t)d->slot;
	char map[4096], socket[4096], buffer[256] = "";
	const char *args[KEEPER_ARGS_MAX + 1];
	struct error full = {0};
	size_t n = 0;
	int r = give(nc, d, uid, &j->err);

	if (r < 0)
		return r;
	if (buffers_take(nc->buffers, d->name, uid, (gid_t)uid, buffer, sizeof(buffer), &full) == 0) {
		args[n++] = "--filter";
		args[n++] = arena_printf(j->arena, "coalesce:buffer=%s,volume=%s", buffer, d->name);
	}
	folder_of(nc, d, "cow.map", map, sizeof(map));
	nc_volume_path(nc, d->name, "vhost.sock", socket, sizeof(socket));
	args[n++] = "--filter";
	args[n++] = "readahead";
	args[n++] = "--filter";
	args[n++] = arena_printf(j->arena, "cow:source=zero,map=%s", map);
	args[n++] = "--back";
	args[n++] = arena_printf(j->arena, "file:path=%s", d->device);
	args[n++] = "--front";
	args[n++] = arena_printf(j->arena, "vhost-user:socket=%s,serial=ephemeral%d,seg-max=254", socket, d->index);
	args[n] = NULL;
	const struct keeper_volume k = {.id = d->name, .uid = uid, .gid = (gid_t)uid, .args = args};
	r = keeper_start(nc->keeper, &k, SERVE_MS, &j->err);
	if (r == -EEXIST) { /* it has run with a buffer, or without */
		error_clear(&j->err);
		r = 0;
	}
	return r;
}

static int end_process(struct nc *nc, struct nc_disk *d, struct error *e)
{
	struct error late = {0};
	int r;

	if (!nc->keeper || !d->served)
		return 0;
	r = keeper_stop(nc->keeper, d->name, STOP_MS, &late);
	if (r == -ETIMEDOUT)
		r = keeper_stop(nc->keeper, d->name, STOP_MS, e);
	else if (r < 0)
		error_set(e, late.code, "%s", late.message);
	d->served = r < 0;
	return r;
}

/* --- giving up --- */

static int blank(struct nc *nc, struct nc_disk *d, struct error *e)
{
	char path[4096];
	int r = chown(d->device, 0, 0) < 0 && errno != ENOENT ? -errno : 0;

	if (r < 0)
		return error_errno(e, r, "cannot take %s back", d->device);
	if (disk_blank(d->device, e) < 0 && access(d->device, F_OK) == 0)
		return -EREMOTEIO;
	error_clear(e);
	buffers_drop(nc->buffers, d->name);
	folder_of(nc, d, "", path, sizeof(path));
	r = dir_remove(path);
	return r < 0 ? error_errno(e, r, "cannot remove %s", path) : 0;
}

static int release(struct nc *nc, struct nc_disk *d, struct error *e)
{
	int r = end_process(nc, d, e);

	if (r == 0 && nc->keeper)
		r = blank(nc, d, e);
	if (r == 0) {
		r = state_delete(nc->state, KIND_DISK, d->name, e);
		r = r == -ENOENT ? 0 : r;
	}
	if (r < 0)
		return r;
	log_info("local disk free", "device=%s id=%s", d->device, d->instance);
	pthread_mutex_lock(&nc->lock);
	d->instance[0] = '\0';
	pthread_mutex_unlock(&nc->lock);
	return 0;
}

int nc_disks_release(struct nc *nc, const char *instance_id, struct error *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < nc->disk_count; i++) {
		pthread_mutex_lock(&nc->lock);
		bool its = str_eq(nc->disks[i].instance, instance_id);
		pthread_mutex_unlock(&nc->lock);
		if (its)
			r = release(nc, &nc->disks[i], e);
	}
	return r;
}

/* --- an instance's worker --- */

enum due { NOTHING, OPEN, PAUSE, RELEASE };

static enum due due(const struct nc_job *j)
{
	const int64_t wanted = j->spec->local_disks.value;
	size_t has = 0, served = 0;

	pthread_mutex_lock(&j->nc->lock);
	for (size_t i = 0; i < j->nc->disk_count; i++) {
		const struct nc_disk *d = &j->nc->disks[i];

		has += str_eq(d->instance, j->id);
		served += str_eq(d->instance, j->id) && d->served;
	}
	pthread_mutex_unlock(&j->nc->lock);
	switch (nc_phase_of(&j->facts)) {
	case NC_PHASE_STARTING:
		return (int64_t)served < wanted ? OPEN : NOTHING;
	case NC_PHASE_OFF:
		if (j->facts.wanted == NC_WANT_STOPPED)
			return has ? RELEASE : NOTHING;
		return served ? PAUSE : NOTHING;
	case NC_PHASE_OTHER:
	case NC_PHASE_ON:
		break;
	}
	return NOTHING;
}

bool nc_disks_due(const struct nc_job *j)
{
	return due(j) != NOTHING;
}

static enum nc_step open_all(struct nc_job *j)
{
	for (int i = 0; i < j->spec->local_disks.value; i++) {
		pthread_mutex_lock(&j->nc->lock);
		struct nc_disk *d = disk_of(j->nc, j->id, i);
		pthread_mutex_unlock(&j->nc->lock);
		if (!d)
			d = take(j, i);
		if (!d || (j->nc->keeper && !d->served && serve(j, d) < 0))
			return NC_STEP_RETRY;
		d->served = true;
	}
	return NC_STEP_AGAIN;
}

static enum nc_step pause_all(struct nc_job *j)
{
	for (size_t i = 0; i < j->nc->disk_count; i++) {
		pthread_mutex_lock(&j->nc->lock);
		bool its = str_eq(j->nc->disks[i].instance, j->id);
		pthread_mutex_unlock(&j->nc->lock);
		if (its && end_process(j->nc, &j->nc->disks[i], &j->err) < 0)
			return NC_STEP_RETRY;
		if (its)
			j->nc->disks[i].served = false;
	}
	return NC_STEP_AGAIN;
}

enum nc_step nc_disks_step(struct nc_job *j)
{
	switch (due(j)) {
	case OPEN:
		return open_all(j);
	case PAUSE:
		return pause_all(j);
	case RELEASE:
		return nc_disks_release(j->nc, j->id, &j->err) < 0 ? NC_STEP_RETRY : NC_STEP_AGAIN;
	case NOTHING:
		break;
	}
	return NC_STEP_DONE;
}

size_t nc_disks_of_machine(struct nc_job *j, struct hyper_disk *out, size_t max)
{
	size_t n = 0;

	for (int i = 0; j->nc->keeper && i < j->spec->local_disks.value && n < max; i++) {
		char path[4096];

		pthread_mutex_lock(&j->nc->lock);
		const struct nc_disk *d = disk_of(j->nc, j->id, i);
		pthread_mutex_unlock(&j->nc->lock);
		if (!d || !d->served)
			continue;
		nc_volume_path(j->nc, d->name, "vhost.sock", path, sizeof(path));
		out[n++] = (struct hyper_disk){.kind = HYPER_DISK_VHOST_USER,
					       .path = arena_strdup(j->arena, path),
					       .serial = arena_printf(j->arena, "ephemeral%d", i),
					       .slot = HYPER_DISK_SLOTS - 1 - i};
	}
	return n;
}

void nc_disks_count(struct nc *nc, int *ret_total, int *ret_used)
{
	*ret_total = *ret_used = 0;
	for (size_t i = 0; i < nc->disk_count; i++) {
		*ret_used += nc->disks[i].instance[0] != '\0';
		*ret_total += nc->disks[i].instance[0] || (nc->disks[i].listed && nc->disks[i].usable);
	}
}

/* --- at the start of the node --- */

static struct nc_disk *add(struct nc *nc, const char *device)
{
	struct nc_disk *d;

	if (nc->disk_count == NC_DISKS_MAX)
		return NULL;
	d = &nc->disks[nc->disk_count++];
	snprintf(d->device, sizeof(d->device), "%s", device);
	name_of(device, d->name);
	return d;
}

/* Those of the setting. One that cannot be used now is looked at again when it is about to be given away. */
static int add_listed(struct nc *nc, struct error *e)
{
	const char *at = settings_get(nc->settings, SETTING_LOCAL_DISKS);

	for (size_t len; *at; at += len + (at[len] == ',')) {
		char device[NC_DISK_DEVICE], name[NC_DISK_NAME];

		len = strcspn(at, ",");
		snprintf(device, sizeof(device), "%.*s", (int)len, at);
		name_of(device, name);
		if (find(nc, name))
			return error_set(e, "InvalidSetting", "MALLEE_LOCAL_DISKS: %s and another disk have names too much alike", device);
		struct nc_disk *d = add(nc, device);
		if (!d)
			return error_set(e, "InvalidSetting", "MALLEE_LOCAL_DISKS names more than %d disks", NC_DISKS_MAX);
		d->listed = true;
	}
	return 0;
}

static void load_one(struct nc *nc, const struct records_node_disk *rec)
{
	char name[NC_DISK_NAME];
	struct nc_disk *d;

	name_of(rec->device, name);
	d = find(nc, name);
	if (!d)
		d = add(nc, rec->device); /* no longer listed: the instance's until it ends */
	if (!d)
		return;
	snprintf(d->instance, sizeof(d->instance), "%s", rec->instance_id);
	d->slot = (int)rec->slot.value;
	d->index = (int)rec->index.value;
	/* The process is to be stopped with it, should there be one. */
	d->served = true;
}

static int load(struct nc *nc, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct state_object *list;
	size_t count;
	int r = state_list(nc->state, a, KIND_DISK, NULL, 0, &list, &count, e);

	for (size_t i = 0; r == 0 && i < count; i++) {
		struct records_node_disk *rec;
		struct error why = {0};

		if (wire_json_decode(a, &records_shape_node_disk, list[i].doc, strlen(list[i].doc), false, (void **)&rec, &why) < 0 ||
		    !str_prefix(rec->device, "/dev/"))
			log_error("a local disk's record cannot be read: it is left alone", "id=%s err=%s", list[i].id,
				  log_quote(why.message));
		else
			load_one(nc, rec);
	}
	return r;
}

static void check(struct nc_disk *d, bool real)
{
	struct error why = {0};

	d->usable = d->instance[0] || !real || disk_check_blank(d->device, &why) == 0;
	if (!d->usable)
		log_warn("a local disk is not offered", "device=%s err=%s", d->device, log_quote(why.message));
}

/* What the keeper was told of is served; the rest of an earlier run is not. */
static void note_served(struct nc *nc)
{
	size_t max = keeper_list(nc->keeper, NULL, 0) + 16;
	struct keeper_status *list = calloc(max, sizeof(*list));
	size_t n;

	if (!list)
		abort();
	n = MIN_OF(keeper_list(nc->keeper, list, max), max);
	for (size_t i = 0; i < nc->disk_count; i++) {
		struct nc_disk *d = &nc->disks[i];

		d->served = false;
		for (size_t k = 0; k < n; k++)
			d->served |= str_eq(list[k].id, d->name);
	}
	free(list);
}

int nc_disks_open(struct nc *nc, struct error *e)
{
	char path[4096];
	int r = add_listed(nc, e);

	if (r == 0)
		r = load(nc, e);
	if (r < 0 || !nc->disk_count)
		return r;
	if (nc->keeper) {
		note_served(nc);
		snprintf(path, sizeof(path), "%s/disks", nc->dir);
		r = dir_make(path, 0711);
		if (r < 0)
			return error_errno(e, r, "cannot make %s", path);
	}
	for (size_t i = 0; i < nc->disk_count; i++)
		check(&nc->disks[i], nc->keeper != NULL);
	return 0;
}
