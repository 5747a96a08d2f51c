/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The volumes of an instance, by its worker: those of its specification, and those that are still open for it. Facts come from
 * the specification, from the table of volumes and from the hypervisor; nc_device_decide() says what is next for each. What is
 * remembered beside (since when the guest is asked, what failed) lives in memory only: a new process asks and tries anew.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/nc/nc_priv.h"

#define ASK_AGAIN_MS 5000
#define HOLDS_ON_MS 20000
#define TRY_AGAIN_MS 2000 /* what a running guest waits for */
#define TRY_SOON_MS 300	  /* … the first few times: the storage controller hears of an attachment when we do */
#define TRIES_SOON 6
#define LOOK_MS 1000
#define TRIES 3
#define LAUNCH_RETRY_MS 2000
#define START_RETRY_MS 5000

/* --- facts --- */

enum nc_phase nc_phase_of(const struct nc_facts *f)
{
	bool held = f->flags & NC_HELD;

	if (f->flags & (NC_ENDED | NC_ENDING) || f->wanted == NC_WANT_TERMINATED)
		return NC_PHASE_OTHER;
	if (f->machine == HYPER_RUNNING && f->wanted == NC_WANT_RUNNING && !held)
		return NC_PHASE_ON;
	if (f->machine != HYPER_ABSENT && f->machine != HYPER_OFF)
		return NC_PHASE_OTHER;
	return f->wanted == NC_WANT_STOPPED || held ? NC_PHASE_OFF : NC_PHASE_STARTING;
}

static enum nc_device_want parse_want(const struct shared_block_device *d)
{
	if (!d || str_eq(d->wanted, "detached"))
		return NC_WANT_DETACHED;
	return str_eq(d->wanted, "forced") ? NC_WANT_FORCED : NC_WANT_ATTACHED;
}

/* "vol-" and digits, and without the hyphen: what the guest reads. */
static void serial_of(const char *id, char out[static ID_LEN])
{
	size_t n = strcspn(id, "-");

	snprintf(out, ID_LEN, "%.*s%s", (int)n, id, id[n] ? id + n + 1 : "");
}

static struct nc_device_job *find(struct nc_job *j, const char *id)
{
	for (size_t i = 0; i < j->device_count; i++)
		if (str_eq(j->devices[i].dev.id, id))
			return &j->devices[i];
	return NULL;
}

/* What is remembered of this attachment. */
static void recall(const struct nc_instance *inst, struct nc_device *dev)
{
	for (size_t i = 0; i < inst->device_count; i++)
		if (str_eq(inst->devices[i].id, dev->id) && inst->devices[i].generation == dev->generation)
			*dev = inst->devices[i];
}

struct add_volumes {
	struct nc_job *job;
	size_t room;
};

static void add_volume(struct nc *nc, struct nc_volume *v, void *ctx)
{
	struct add_volumes *a = ctx;
	struct nc_device_job *d = find(a->job, v->id);

	if (!d && (a->job->device_count == a->room || v->state != NC_VOLUME_OPEN))
		return;
	if (!d) {
		d = &a->job->devices[a->job->device_count++];
		strcpy(d->dev.id, v->id);
		d->dev.generation = v->generation;
		d->dev.shown = NC_DEV_DETACHING;
		recall(a->job->inst, &d->dev);
	}
	if (d->dev.generation != v->generation)
		d->facts.flags |= NC_DEV_OLD;
	if (v->state != NC_VOLUME_OPEN)
		return;
	d->facts.flags |= NC_DEV_OPEN;
	if (v->served)
		d->facts.flags |= NC_DEV_SERVED;
}

static void gather_wanted(struct nc_job *j, enum nc_phase phase)
{
	const struct shared_block_device_list *list = &j->spec->block_devices;
	struct add_volumes a = {j, MIN_OF(list->count, (size_t)NC_DEVICES_MAX) + NC_DEVICES_MAX};

	j->devices = arena_new_array(j->arena, struct nc_device_job, a.room);
	j->device_count = 0;
	pthread_mutex_lock(&j->nc->lock);
	for (size_t i = 0; i < list->count && i < NC_DEVICES_MAX; i++) {
		struct nc_device_job *d = &j->devices[j->device_count++];

		d->spec = &list->items[i];
		snprintf(d->dev.id, sizeof(d->dev.id), "%s", d->spec->volume_id);
		d->dev.generation = d->spec->generation.value;
		recall(j->inst, &d->dev);
		if (d->spec->boot.set && d->spec->boot.value)
			d->facts.flags |= NC_DEV_BOOT;
	}
	nc_each_volume_of(j->nc, j->id, add_volume, &a);
	pthread_mutex_unlock(&j->nc->lock);
	for (size_t i = 0; i < j->device_count; i++) {
		struct nc_device_job *d = &j->devices[i];

		d->facts.phase = phase;
		d->facts.want = parse_want(d->spec);
		d->facts.flags |= j->rec.state == NC_PENDING ? NC_DEV_NEW : 0;
		d->facts.flags |= d->dev.failed ? NC_DEV_FAILED : 0;
	}
}

static int gather_plugged(struct nc_job *j)
{
	struct hyper_disk_status *list;
	char name[64], serial[ID_LEN];
	size_t count;
	int r;

	nc_domain_name(j->nc, j->id, name);
	r = j->nc->ops->disk_list(j->nc->hyper, name, j->arena, &list, &count, &j->err);
	for (size_t i = 0; r == 0 && i < j->device_count; i++) {
		struct nc_device_job *d = &j->devices[i];

		serial_of(d->dev.id, serial);
		for (size_t k = 0; k < count; k++) {
			if (!str_eq(list[k].serial, serial))
				continue;
			d->facts.flags |= NC_DEV_PLUGGED;
			d->facts.flags |= list[k].state == HYPER_DISK_DETACHING ? NC_DEV_ASKED : 0;
		}
	}
	return r;
}

static void add_times(struct nc_device_job *d, int64_t now)
{
	bool leaving = d->facts.want != NC_WANT_ATTACHED || (d->facts.flags & NC_DEV_OLD);

	if (!leaving || !(d->facts.flags & NC_DEV_PLUGGED)) {
		d->dev.asked_mono_ms = d->dev.ask_again_mono_ms = 0;
		return;
	}
	if (d->dev.ask_again_mono_ms <= now)
		d->facts.flags |= NC_DEV_ASK_DUE;
	if (d->dev.asked_mono_ms && now - d->dev.asked_mono_ms >= HOLDS_ON_MS)
		d->facts.flags |= NC_DEV_HOLDS_ON;
}

/* --- what is shown --- */

static bool same_shown(const struct nc_instance *inst, const struct nc_job *j)
{
	if (inst->device_count != j->device_count)
		return false;
	for (size_t i = 0; i < j->device_count; i++) {
		const struct nc_device *a = &inst->devices[i], *b = &j->devices[i].dev;

		if (!str_eq(a->id, b->id) || a->generation != b->generation || a->shown != b->shown ||
		    !str_eq(a->reason, b->reason))
			return false;
	}
	return true;
}

static void remember(struct nc_job *j)
{
	struct nc_device *list = calloc(j->device_count + 1, sizeof(*list));

	if (!list)
		abort();
	for (size_t i = 0; i < j->device_count; i++)
		list[i] = j->devices[i].dev;
	pthread_mutex_lock(&j->nc->lock);
	if (!same_shown(j->inst, j))
		nc_show(j->nc, j->inst);
	free(j->inst->devices);
	j->inst->devices = list;
	j->inst->device_count = j->device_count;
	pthread_mutex_unlock(&j->nc->lock);
}

static void decide(struct nc_device_job *d)
{
	struct nc_device_next next = nc_device_decide(&d->facts);
	bool waits = next.shown == NC_DEV_ATTACHING || next.shown == NC_DEV_DETACHING ||
		     next.shown == NC_DEV_IS_FAILED || next.action == NC_DEV_DO_OPEN;

	d->action = next.action;
	d->dev.shown = next.shown;
	if (next.shown == NC_DEV_BUSY)
		snprintf(d->dev.reason, sizeof(d->dev.reason), "%s",
			 d->facts.flags & NC_DEV_BOOT ? "the guest runs from it" : "the guest does not let go of it");
	else if (!waits)
		d->dev.reason[0] = '\0';
}

int nc_devices_gather(struct nc_job *j)
{
	enum nc_phase phase = nc_phase_of(&j->facts);
	int64_t now = clock_mono_ms();
	int r = 0;

	gather_wanted(j, phase);
	if (j->device_count && phase == NC_PHASE_ON)
		r = gather_plugged(j);
	if (r < 0)
		return r;
	for (size_t i = 0; i < j->device_count; i++) {
		add_times(&j->devices[i], now);
		decide(&j->devices[i]);
		if (j->devices[i].action != NC_DEV_NOTHING)
			j->facts.flags |= NC_DEVICES;
	}
	if (nc_disks_due(j))
		j->facts.flags |= NC_DEVICES;
	if (j->device_count || j->inst->device_count) /* ours to read while it is busy */
		remember(j);
	return 0;
}

void nc_devices_observe(const struct nc_instance *inst, struct arena *a, struct shared_block_device_observed_list *out)
{
	const struct shared_block_device_list *list = inst->spec ? &inst->spec->block_devices : NULL;

	if (!list || !list->count)
		return;
	out->set = true;
	out->items = arena_new_array(a, struct shared_block_device_observed, list->count);
	for (size_t i = 0; i < list->count; i++) {
		const struct shared_block_device *d = &list->items[i];
		struct nc_device dev = {.generation = d->generation.value};

		snprintf(dev.id, sizeof(dev.id), "%s", d->volume_id);
		dev.shown = parse_want(d) == NC_WANT_ATTACHED ? NC_DEV_ATTACHING : NC_DEV_DETACHING;
		recall(inst, &dev);
		if (inst->rec.state == NC_TERMINATED)
			dev.shown = NC_DEV_DETACHED;
		out->items[out->count++] = (struct shared_block_device_observed){
		    .volume_id = arena_strdup(a, d->volume_id),
		    .generation = d->generation,
		    .state = nc_device_state_name(dev.shown),
		    .reason = dev.reason[0] && dev.shown != NC_DEV_DETACHED ? arena_strdup(a, dev.reason) : NULL,
		};
	}
}

/* --- steps --- */

static void disk_of(struct nc_job *j, const struct nc_device_job *d, struct hyper_disk *ret)
{
	char path[4096], serial[ID_LEN];

	serial_of(d->dev.id, serial);
	nc_volume_path(j->nc, d->dev.id, "vhost.sock", path, sizeof(path));
	*ret = (struct hyper_disk){
	    .kind = HYPER_DISK_VHOST_USER,
	    .path = arena_strdup(j->arena, path),
	    .serial = arena_strdup(j->arena, serial),
	    .slot = (int)d->spec->slot.value,
	    .boot = d->facts.flags & NC_DEV_BOOT,
	};
}

size_t nc_devices_disks(struct nc_job *j, struct hyper_disk **ret)
{
	size_t n = 0;

	*ret = arena_new_array(j->arena, struct hyper_disk, j->device_count + NC_DISKS_MAX);
	for (size_t i = 0; i < j->device_count; i++) {
		const struct nc_device_job *d = &j->devices[i];

		if (d->spec && d->facts.want == NC_WANT_ATTACHED && (d->facts.flags & NC_DEV_SERVED) &&
		    !(d->facts.flags & (NC_DEV_OLD | NC_DEV_FAILED)))
			disk_of(j, d, &(*ret)[n++]);
	}
	n += nc_disks_of_machine(j, *ret + n, NC_DISKS_MAX);
	return n;
}

/* What a device waits for is its reason, and the job's error is free for the next one. */
static void take_reason(struct nc_job *j, struct nc_device_job *d)
{
	snprintf(d->dev.reason, sizeof(d->dev.reason), "%.150s", j->err.message);
	error_clear(&j->err);
}

static enum nc_step wait_for(struct nc_job *j, int64_t ms)
{
	j->wait_ms = ms;
	return NC_STEP_WAIT;
}

/* A guest that is to start waits for it; it is shown, and tried for ever but at a launch. */
static enum nc_step open_for_start(struct nc_job *j, struct nc_device_job *d, enum nc_step step)
{
	bool launch = d->facts.flags & NC_DEV_NEW;

	snprintf(d->dev.reason, sizeof(d->dev.reason), "%.150s", j->err.message);
	j->retry_most_ms = launch ? LAUNCH_RETRY_MS : START_RETRY_MS;
	if (step != NC_STEP_FAIL || launch)
		return step;
	if (d->facts.flags & NC_DEV_BOOT)
		return NC_STEP_RETRY;
	d->dev.failed = true; /* the guest starts without it */
	error_clear(&j->err);
	return NC_STEP_AGAIN;
}

static enum nc_step do_open(struct nc_job *j, struct nc_device_job *d)
{
	enum nc_step step = nc_volume_open(j, d->dev.id, d->dev.generation);

	if (step == NC_STEP_AGAIN) {
		d->dev.reason[0] = '\0';
		d->dev.tries = 0;
		return step;
	}
	if (step == NC_STEP_WAIT) { /* held: it will not be long */
		take_reason(j, d);
		return wait_for(j, TRY_SOON_MS);
	}
	if (d->facts.phase == NC_PHASE_STARTING)
		return open_for_start(j, d, step);
	d->dev.failed = step == NC_STEP_FAIL;
	take_reason(j, d);
	return d->dev.failed ? NC_STEP_AGAIN : wait_for(j, d->dev.tries++ < TRIES_SOON ? TRY_SOON_MS : TRY_AGAIN_MS);
}

static enum nc_step do_plug(struct nc_job *j, struct nc_device_job *d)
{
	struct hyper_disk disk;
	char name[64];
	int r;

	nc_domain_name(j->nc, j->id, name);
	disk_of(j, d, &disk);
	disk.boot = false;
	r = j->nc->ops->disk_attach(j->nc->hyper, name, &disk, &j->err);
	if (r == 0) {
		log_info("volume plugged", "volume=%s id=%s slot=%d", d->dev.id, j->id, disk.slot);
		d->dev.reason[0] = '\0';
		return NC_STEP_AGAIN;
	}
	take_reason(j, d);
	if (r != -ENOTCONN && r != -EBUSY && r != -EEXIST && r != -ENOENT && ++d->dev.tries >= TRIES) {
		log_warn("volume cannot be plugged", "volume=%s id=%s err=%s", d->dev.id, j->id, log_quote(d->dev.reason));
		d->dev.failed = true;
		return NC_STEP_AGAIN;
	}
	return wait_for(j, TRY_AGAIN_MS);
}

static enum nc_step unplug(struct nc_job *j, struct nc_device_job *d, bool force)
{
	char name[64], serial[ID_LEN];
	int64_t now = clock_mono_ms();
	int r;

	nc_domain_name(j->nc, j->id, name);
	serial_of(d->dev.id, serial);
	r = j->nc->ops->disk_detach(j->nc->hyper, name, serial, force, &j->err);
	if (r == -EOPNOTSUPP && force) {
		error_clear(&j->err);
		r = j->nc->ops->disk_detach(j->nc->hyper, name, serial, false, &j->err);
	}
	if (!d->dev.asked_mono_ms)
		d->dev.asked_mono_ms = now;
	d->dev.ask_again_mono_ms = now + ASK_AGAIN_MS;
	if (r < 0)
		take_reason(j, d);
	return wait_for(j, r < 0 || !force ? LOOK_MS : 200);
}

static enum nc_step do_ask(struct nc_job *j, struct nc_device_job *d)
{
	return unplug(j, d, false);
}

static enum nc_step do_pull(struct nc_job *j, struct nc_device_job *d)
{
	log_info("volume pulled out of a running guest", "volume=%s id=%s", d->dev.id, j->id);
	return unplug(j, d, true);
}

static enum nc_step do_close(struct nc_job *j, struct nc_device_job *d)
{
	if (nc_volume_close(j->nc, d->dev.id, &j->err) == 0)
		return NC_STEP_AGAIN;
	take_reason(j, d);
	return wait_for(j, TRY_AGAIN_MS);
}

static enum nc_step do_wait(struct nc_job *j, struct nc_device_job *d)
{
	return wait_for(j, LOOK_MS);
}

static enum nc_step (*const steps[NC_DEV_ACTION_COUNT])(struct nc_job *j, struct nc_device_job *d) = {
    [NC_DEV_WAIT] = do_wait,	   [NC_DEV_DO_OPEN] = do_open, [NC_DEV_DO_PLUG] = do_plug,
    [NC_DEV_DO_ASK] = do_ask,	   [NC_DEV_DO_PULL] = do_pull, [NC_DEV_DO_CLOSE] = do_close,
};

/* One step for each that wants one. What a start cannot do without ends it: j->err says what. */
enum nc_step nc_devices_step(struct nc_job *j)
{
	enum nc_step all = NC_STEP_DONE;
	int64_t wait_ms = 0;

	for (size_t i = 0; i < j->device_count && !j->nc->stopping; i++) {
		struct nc_device_job *d = &j->devices[i];
		enum nc_step step;

		if (d->action == NC_DEV_NOTHING)
			continue;
		if (d->action != NC_DEV_WAIT)
			log_debug("device", "id=%s volume=%s do=%s", j->id, d->dev.id, nc_device_action_name(d->action));
		j->wait_ms = 0;
		step = steps[d->action](j, d);
		if (step == NC_STEP_RETRY || step == NC_STEP_FAIL) {
			all = step;
			break;
		}
		if (step == NC_STEP_AGAIN)
			all = NC_STEP_AGAIN;
		else if (all != NC_STEP_AGAIN)
			all = NC_STEP_WAIT;
		if (step == NC_STEP_WAIT)
			wait_ms = wait_ms ? MIN_OF(wait_ms, j->wait_ms) : j->wait_ms;
	}
	j->wait_ms = wait_ms;
	remember(j);
	return all;
}
