/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker does for one instance: one function an action of nc_decide(). Each can be cut off
 * at any instruction and done again: the record says what may have been begun before it is begun,
 * and every call down is idempotent.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "hyper/host.h"
#include "os/file.h"
#include "svc/nc/clone.h"
#include "svc/nc/nc_priv.h"

#define SOON_MS 1000
#define ASK_FORGOTTEN_MS                                                                           \
	120000 /* a guest that still runs this long after it was asked to switch itself off will   \
		  not */

static enum nc_step wait_for(struct nc_job *j, int64_t ms)
{
	j->wait_ms = ms;
	return NC_STEP_WAIT;
}

static enum nc_step commit_and(struct nc_job *j, enum nc_step then)
{
	return nc_commit(j) < 0 ? NC_STEP_RETRY : then;
}

static enum nc_step hyper_failed(int r)
{
	return r == -ENOTCONN ? NC_STEP_RETRY : NC_STEP_RETRY_FEW;
}

static void show_reach(struct nc_job *j, enum nc_reach reach)
{
	pthread_mutex_lock(&j->nc->lock);
	j->inst->ping_due_mono_ms = 0;
	nc_set_reach(j->nc, j->inst, reach);
	pthread_mutex_unlock(&j->nc->lock);
}

/* What a guest that has just been started shows until it answers. */
static enum nc_reach first_reach(const struct nc *nc)
{
	return nc->ops->fakes_network ? NC_REACH_OK : NC_REACH_INITIALIZING;
}

/* A guest that runs on though it was asked to switch itself off. */
static enum nc_step forget_asked_off(struct nc_job *j)
{
	int64_t ago = clock_unix_ms() - j->rec.asked_off_ms;

	if (!j->rec.asked_off_ms || j->facts.machine != HYPER_RUNNING)
		return NC_STEP_DONE;
	if (ago < ASK_FORGOTTEN_MS)
		return wait_for(j, ASK_FORGOTTEN_MS - ago);
	j->rec.asked_off_ms = 0; /* from now on its going off is its own doing */
	return commit_and(j, NC_STEP_DONE);
}

static enum nc_step do_nothing(struct nc_job *j)
{
	if (j->rec.state == NC_RUNNING && j->facts.machine != HYPER_RUNNING)
		show_reach(j, NC_REACH_IMPAIRED); /* the node is drained */
	else if (j->rec.state == NC_RUNNING)
		nc_progress(j, "%s", ""); /* what a restart may have waited for */
	return forget_asked_off(j);
}

static enum nc_step do_devices(struct nc_job *j)
{
	if (forget_asked_off(j) == NC_STEP_RETRY)
		return NC_STEP_RETRY;
	if (j->rec.state == NC_PENDING && !j->inst->attempts)
		nc_progress(j, "opening volumes");
	enum nc_step disks = nc_disks_step(j), volumes;

	if (disks != NC_STEP_AGAIN && disks != NC_STEP_DONE)
		return disks;
	volumes = nc_devices_step(j);
	return volumes == NC_STEP_DONE ? disks : volumes;
}

static enum nc_step do_wait(struct nc_job *j)
{
	return wait_for(j, SOON_MS);
}

/* --- the root disk --- */

static bool report(struct nc_job *j, const char *what, int64_t done, int64_t size)
{
	int64_t percent = size > 0 ? done * 100 / size : 0;

	if (percent != j->last_progress_percent) {
		j->last_progress_percent = percent;
		nc_progress(j, "%s %" PRId64 "%%", what, percent);
	}
	return nc_unwanted(j);
}

static bool report_fetch(void *ctx, int64_t done, int64_t size)
{
	return report(ctx, "fetching image", done, size);
}

static bool report_clone(void *ctx, int64_t done, int64_t size)
{
	return report(ctx, "making root disk", done, size);
}

static enum nc_step fetch(struct nc_job *j, int *ret_fd)
{
	struct image_source source = {
	    .url = j->spec->image_url,
	    .sha256 = j->spec->image_sha256,
	    .size_bytes = j->spec->image_size_bytes.value,
	};
	int r;

	j->last_progress_percent = -1;
	r = image_cache_get(j->nc->cache, &source, report_fetch, j, ret_fd, &j->err);
	if (r == -ECANCELED)
		return NC_STEP_AGAIN;
	if (r < 0)
		return r == -EAGAIN ? NC_STEP_RETRY : NC_STEP_FAIL;
	return NC_STEP_DONE;
}

static enum nc_step make_disk(struct nc_job *j, int image_fd)
{
	struct nc *nc = j->nc;
	uid_t uid = nc->uid_base + (uid_t)j->rec.slot;
	char path[4096];
	struct clone_request c = {
	    .image_fd = image_fd,
	    .path = path,
	    .size_bytes = j->spec->disk_bytes.value,
	    .uid = uid,
	    .gid = hyper_qemu_gid(nc->accel, uid),
	    .sparse = nc->ops->fakes_disks,
	    .keep_free_bytes = nc_disk_reserve(nc),
	    .progress = report_clone,
	    .ctx = j,
	};
	int r;

	nc_instance_path(nc, j->id, "", path, sizeof(path));
	r = dir_make(path, 0711);
	if (r < 0)
		return error_errno(&j->err, r, "cannot make %s", path), NC_STEP_RETRY_FEW;
	nc_instance_path(nc, j->id, "root.raw", path, sizeof(path));
	j->last_progress_percent = -1;
	r = clone_disk(&c, &j->err);
	if (r == -ECANCELED)
		return NC_STEP_AGAIN;
	return r < 0 ? NC_STEP_FAIL : NC_STEP_AGAIN;
}

static enum nc_step do_prepare(struct nc_job *j)
{
	_cleanup_(fd_closep) int fd = -1;
	enum nc_step step;

	if (nc_unwanted(j))
		return j->nc->stopping ? NC_STEP_DONE : NC_STEP_AGAIN;
	step = fetch(j, &fd);
	if (step == NC_STEP_DONE)
		step = make_disk(j, fd);
	/* Given up since nobody wants it: decide anew, unless it is the node that stops. */
	if (step == NC_STEP_AGAIN && j->nc->stopping)
		return NC_STEP_DONE;
	return step;
}

/* --- on --- */

static enum nc_step add_port(struct nc_job *j)
{
	struct nc *nc = j->nc;
	_cleanup_(freep) char *host = NULL;
	char tap[IFNAMSIZ] = "";
	struct net_port p = {
	    .instance_id = j->id,
	    .mac = j->spec->mac_address,
	    .ip = j->spec->private_ip,
	    .uid = nc->uid_base + (uid_t)j->rec.slot,
	    .account = j->spec->account_id,
	};

	host = strndup(j->spec->private_dns_name, strcspn(j->spec->private_dns_name, "."));
	p.hostname = host;
	p.gid = hyper_qemu_gid(nc->accel, p.uid);
	if (nc->net && net_port_add(nc->net, &p, tap, &j->err) < 0)
		return NC_STEP_RETRY_FEW;
	pthread_mutex_lock(&nc->lock);
	strcpy(j->inst->tap, tap);
	j->inst->port = true;
	pthread_mutex_unlock(&nc->lock);
	return NC_STEP_AGAIN;
}

static int start_machine(struct nc_job *j)
{
	struct nc *nc = j->nc;
	uid_t uid = nc->uid_base + (uid_t)j->rec.slot;
	char name[64], uuid[37], root[4096], console[4096], tap[IFNAMSIZ];
	struct hyper_disk *disks;
	struct hyper_machine m = {
	    .name = name,
	    .instance_id = j->id,
	    .uuid = uuid,
	    .vcpus = (int)j->spec->vcpus.value,
	    .memory_mib = j->spec->memory_mib.value,
	    .root_path = nc_is_ebs(j->spec) ? NULL : root,
	    .tap = tap,
	    .mac = j->spec->mac_address,
	    .console_path = console,
	    .uid = uid,
	    .gid = hyper_qemu_gid(nc->accel, uid),
	};

	nc_domain_name(nc, j->id, name);
	nc_instance_uuid(nc->cloud_id, j->id, uuid);
	nc_instance_path(nc, j->id, "root.raw", root, sizeof(root));
	nc_instance_path(nc, j->id, "console.log", console, sizeof(console));
	m.disk_count = nc_devices_disks(j, &disks);
	m.disks = disks;
	pthread_mutex_lock(&nc->lock);
	strcpy(tap, j->inst->tap);
	j->inst->started_mono_ms = clock_mono_ms();
	pthread_mutex_unlock(&nc->lock);
	return nc->ops->start(nc->hyper, &m, &j->err);
}

/* Where it stands that the guest switched itself off must not outlive the record of why: were we cut off before it starts, it
 * would count as its own doing. The folder is one that an ebs instance has for its console. */
static enum nc_step forget_end(struct nc_job *j)
{
	char name[64], path[4096];
	int r;

	nc_instance_path(j->nc, j->id, "", path, sizeof(path));
	r = dir_make(path, 0711);
	if (r < 0)
		return error_errno(&j->err, r, "cannot make %s", path), NC_STEP_RETRY_FEW;
	if (j->facts.machine != HYPER_OFF || j->facts.off_reason != HYPER_OFF_GUEST)
		return NC_STEP_AGAIN;
	nc_domain_name(j->nc, j->id, name);
	r = j->nc->ops->destroy(j->nc->hyper, name, &j->err);
	return r < 0 ? hyper_failed(r) : NC_STEP_AGAIN;
}

static enum nc_step start_guest(struct nc_job *j)
{
	bool again = j->rec.boot_id[0] && j->rec.state != NC_PENDING;
	struct hyper_status st;
	enum nc_step step;
	char name[64];
	int r;

	if (j->rec.state == NC_RUNNING)
		show_reach(j, first_reach(j->nc));
	else
		nc_progress(j, "starting");
	step = add_port(j);
	if (step == NC_STEP_AGAIN)
		step = forget_end(j);
	if (step != NC_STEP_AGAIN)
		return step;
	snprintf(j->rec.boot_id, sizeof(j->rec.boot_id), "%s", j->nc->boot_id);
	j->rec.asked_off_ms = 0;
	j->rec.guest_off = 0;
	if (nc_commit(j) < 0)
		return NC_STEP_RETRY;
	metrics_add(j->nc->metrics, again ? NC_M_RESTARTS : NC_M_LAUNCHES, 1);
	r = start_machine(j);
	if (r < 0)
		return hyper_failed(r);
	nc_domain_name(j->nc, j->id, name);
	r = j->nc->ops->status(j->nc->hyper, name, &st, &j->err);
	if (r < 0)
		return hyper_failed(r);
	return st.state == HYPER_RUNNING ? NC_STEP_AGAIN : wait_for(j, SOON_MS);
}

/* Who drains the node asks the hypervisor what is on: a guest that is about to be counts, too. */
static bool note_starting(struct nc_job *j, bool starting)
{
	struct nc *nc = j->nc;
	bool held;

	pthread_mutex_lock(&nc->lock);
	held = nc->held;
	j->inst->starting = starting && !held;
	pthread_mutex_unlock(&nc->lock);
	return held;
}

static enum nc_step do_start(struct nc_job *j)
{
	enum nc_step step;

	if (note_starting(j, true))
		return NC_STEP_AGAIN; /* drained since the facts were gathered */
	step = start_guest(j);
	note_starting(j, false);
	return step;
}

static enum nc_step do_adopt(struct nc_job *j)
{
	return add_port(j);
}

static enum nc_step do_note_running(struct nc_job *j)
{
	if (j->rec.state != NC_RUNNING) /* reboots asked for before it ran are done with */
		j->rec.reboot_done = MAX_OF(j->rec.reboot_done, j->spec->reboot_generation.value);
	j->rec.state = NC_RUNNING;
	/* Before anybody is told that it runs. */
	nc_progress(j, "%s", "");
	show_reach(j, first_reach(j->nc));
	return commit_and(j, NC_STEP_AGAIN);
}

static enum nc_step do_reboot(struct nc_job *j)
{
	char name[64];
	int r;

	nc_domain_name(j->nc, j->id, name);
	r = j->nc->ops->reboot(j->nc->hyper, name, &j->err);
	if (r < 0)
		return hyper_failed(r);
	j->rec.reboot_done = j->spec->reboot_generation.value;
	return commit_and(j, NC_STEP_AGAIN);
}

/* --- off --- */

/* Recorded first, so that its going off is known to be our doing. Asked twice, a guest does no more than once; the time that it has
 * counts from the first. */
static enum nc_step do_ask_off(struct nc_job *j)
{
	char name[64];
	int r;

	if (!j->rec.asked_off_ms)
		j->rec.asked_off_ms = clock_unix_ms();
	if (nc_commit(j) < 0)
		return NC_STEP_RETRY;
	nc_domain_name(j->nc, j->id, name);
	r = j->nc->ops->shutdown(j->nc->hyper, name, &j->err);
	if (r == -ENOTCONN)
		return NC_STEP_RETRY;
	if (r < 0) /* it cannot be asked: it will be switched off when its time is over */
		log_warn("guest cannot be asked to shut down", "id=%s err=%s", j->id,
			 log_quote(j->err.message));
	pthread_mutex_lock(&j->nc->lock);
	j->inst->told_off_ms = j->rec.asked_off_ms;
	pthread_mutex_unlock(&j->nc->lock);
	return wait_for(j, SOON_MS);
}

static enum nc_step do_force_off(struct nc_job *j)
{
	char name[64];
	int r;

	log_info("guest is switched off", "id=%s why=%s", j->id,
		 log_quote(j->spec->force_off.value ? "forced" : "it did not shut down in time"));
	nc_domain_name(j->nc, j->id, name);
	r = j->nc->ops->destroy(j->nc->hyper, name, &j->err);
	return r < 0 ? hyper_failed(r) : NC_STEP_AGAIN;
}

static enum nc_step do_note_stopped(struct nc_job *j)
{
	j->rec.state = NC_STOPPED;
	show_reach(j, NC_REACH_NONE);
	nc_progress(j, "%s", "");
	return commit_and(j, NC_STEP_AGAIN);
}

static enum nc_step end(struct nc_job *j, const char *code, const char *message)
{
	snprintf(j->rec.end_code, sizeof(j->rec.end_code), "%s", code);
	snprintf(j->rec.end_message, sizeof(j->rec.end_message), "%s: %s", code, message);
	return commit_and(j, NC_STEP_AGAIN);
}

static enum nc_step do_end_guest_off(struct nc_job *j)
{
	return end(j, NC_REASON_GUEST, "Instance initiated shutdown");
}

/* Recorded with the specification that it went off under: a newer one starts it again. */
static enum nc_step do_note_guest_off(struct nc_job *j)
{
	log_info("guest switched itself off", "id=%s", j->id);
	j->rec.guest_off = j->spec->generation.value;
	return commit_and(j, NC_STEP_AGAIN);
}

static enum nc_step do_end_lost(struct nc_job *j)
{
	return end(j, "Server.InternalError", "The instance's root disk is gone from its node");
}

static enum nc_step do_terminate(struct nc_job *j)
{
	struct nc *nc = j->nc;
	char name[64], path[4096];
	int r, slot = j->rec.slot;

	j->rec.state = NC_SHUTTING_DOWN;
	if (nc_commit(j) < 0)
		return NC_STEP_RETRY;
	show_reach(j, NC_REACH_NONE);
	nc_domain_name(nc, j->id, name);
	r = nc->ops->destroy(nc->hyper, name, &j->err);
	if (r < 0)
		return NC_STEP_RETRY;
	if (nc->net && net_port_remove(nc->net, j->id, &j->err) < 0)
		return NC_STEP_RETRY;
	if (nc_volumes_close_all(nc, j->id, &j->err) < 0 || nc_disks_release(nc, j->id, &j->err) < 0)
		return NC_STEP_RETRY;
	nc_instance_path(nc, j->id, "", path, sizeof(path));
	r = dir_remove(path);
	if (r < 0)
		return error_errno(&j->err, r, "cannot remove %s", path), NC_STEP_RETRY;

	if (!j->rec.end_code[0]) {
		strcpy(j->rec.end_code, NC_REASON_USER);
		strcpy(j->rec.end_message, NC_REASON_USER ": User initiated shutdown");
	}
	j->rec.state = NC_TERMINATED;
	j->rec.slot = -1;
	if (nc_commit(j) < 0)
		return NC_STEP_RETRY;
	nc_progress(j, "%s", "");
	pthread_mutex_lock(&nc->lock);
	nc_release_slot(nc, slot);
	pthread_mutex_unlock(&nc->lock);
	return NC_STEP_DONE;
}

static enum nc_step (*const steps[NC_ACTION_COUNT])(struct nc_job *j) = {
    [NC_DO_NOTHING] = do_nothing,
    [NC_DO_WAIT] = do_wait,
    [NC_DO_PREPARE] = do_prepare,
    [NC_DO_START] = do_start,
    [NC_DO_ADOPT] = do_adopt,
    [NC_DO_NOTE_RUNNING] = do_note_running,
    [NC_DO_REBOOT] = do_reboot,
    [NC_DO_ASK_OFF] = do_ask_off,
    [NC_DO_FORCE_OFF] = do_force_off,
    [NC_DO_NOTE_STOPPED] = do_note_stopped,
    [NC_DO_END_GUEST_OFF] = do_end_guest_off,
    [NC_DO_NOTE_GUEST_OFF] = do_note_guest_off,
    [NC_DO_END_LOST] = do_end_lost,
    [NC_DO_DEVICES] = do_devices,
    [NC_DO_TERMINATE] = do_terminate,
};

enum nc_step nc_step_run(struct nc_job *j, enum nc_action action)
{
	if (action != NC_DO_NOTHING && action != NC_DO_WAIT)
		log_debug("step", "id=%s do=%s", j->id, nc_action_name(action));
	return steps[action](j);
}
