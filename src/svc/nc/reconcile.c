/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "os/shutdown.h"
#include "svc/nc/nc_priv.h"
#include "wire/codec.h"

#define ROUNDS 16 /* steps in a row before others have their turn */
#define RETRY_FIRST_MS 1000
#define RETRY_MOST_MS 30000
#define RETRY_FEW 3
#define CRASH_PAUSE_MS 10000

void nc_instance_path(const struct nc *nc, const char *id, const char *file, char *out, size_t size)
{
	snprintf(out, size, "%s/instances/%s%s%s", nc->dir, id, *file ? "/" : "", file);
}

void nc_domain_name(const struct nc *nc, const char *id, char out[static 64])
{
	snprintf(out, 64, "mallee-%s-%s", nc->cloud_id, id);
}

static void sha256(const char *a, const char *b, unsigned char out[static 32])
{
	gnutls_hash_hd_t h;

	if (gnutls_hash_init(&h, GNUTLS_DIG_SHA256) < 0)
		abort();
	gnutls_hash(h, a, strlen(a) + 1);
	gnutls_hash(h, b, strlen(b));
	gnutls_hash_deinit(h, out);
}

void nc_instance_uuid(const char *cloud_id, const char *instance_id, char out[static 37])
{
	unsigned char digest[32];
	char h[33];

	sha256(cloud_id, instance_id, digest);
	hex_encode(digest, 16, h);
	memcpy(h, "ec2", 3);
	h[12] = '4'; /* version and variant, so that it is well-formed */
	h[16] = '8';
	snprintf(out, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", h, h + 8, h + 12, h + 16, h + 20);
}

uid_t nc_uid_base(const char *cloud_id)
{
	unsigned char digest[32];
	uint32_t n;

	sha256("uid", cloud_id, digest);
	memcpy(&n, digest, sizeof(n));
	return 1900000000u + n % 50000 * NC_REAL_SLOTS;
}

int nc_commit(struct nc_job *j)
{
	struct nc *nc = j->nc;
	struct nc_instance *inst = j->inst;
	int r;

	if (memcmp(&inst->rec, &j->rec, sizeof(j->rec)) == 0) /* ours to read while it is busy */
		return 0;
	r = nc_store_record(nc, j->id, &j->rec, &j->err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&nc->lock);
	if (inst->rec.state != j->rec.state)
		log_info("instance", "id=%s state=%s was=%s reason=%s", j->id,
			 nc_state_name(j->rec.state), nc_state_name(inst->rec.state),
			 log_quote(j->rec.end_code));
	inst->rec = j->rec;
	nc_show(nc, inst);
	pthread_mutex_unlock(&nc->lock);
	return 0;
}

void nc_progress(struct nc_job *j, const char *fmt, ...)
{
	struct nc *nc = j->nc;
	char text[sizeof(j->inst->progress)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&nc->lock);
	if (strcmp(text, j->inst->progress) != 0) {
		strcpy(j->inst->progress, text);
		nc_show(nc, j->inst);
	}
	pthread_mutex_unlock(&nc->lock);
}

bool nc_unwanted(struct nc_job *j)
{
	struct nc *nc = j->nc;
	bool answer;

	pthread_mutex_lock(&nc->lock);
	answer = nc->stopping || nc_parse_wanted(j->inst->spec) != NC_WANT_RUNNING;
	pthread_mutex_unlock(&nc->lock);
	return answer;
}

static bool stops_when_off(const struct shared_instance_spec *s)
{
	return nc_is_ebs(s) && !str_eq(s->instance_initiated_shutdown_behavior, "terminate");
}

/* What is known without asking anybody. */
static void gather_own(struct nc_job *j)
{
	struct nc *nc = j->nc;
	const struct nc_record *rec = &j->rec;
	int64_t now = clock_unix_ms(), deadline;
	uint32_t f = 0;
	bool held, port, told, forced = j->spec->force_off.value && nc_parse_wanted(j->spec) == NC_WANT_STOPPED;

	pthread_mutex_lock(&nc->lock);
	held = nc->held;
	port = j->inst->port;
	told = rec->asked_off_ms && j->inst->told_off_ms == rec->asked_off_ms;
	deadline = nc->held_deadline_ms;
	if (j->inst->started_mono_ms &&
	    clock_mono_ms() - j->inst->started_mono_ms < CRASH_PAUSE_MS && rec->state == NC_RUNNING)
		f |= NC_JUST_CRASHED;
	pthread_mutex_unlock(&nc->lock);

	f |= rec->state == NC_TERMINATED ? NC_ENDED : 0;
	f |= rec->end_code[0] ? NC_ENDING : 0;
	f |= held ? NC_HELD : 0;
	f |= port ? NC_PORT : 0;
	f |= rec->boot_id[0] ? NC_LAUNCHED : 0;
	f |= strcmp(rec->boot_id, nc->boot_id) == 0 ? NC_THIS_BOOT : 0;
	f |= rec->state == NC_RUNNING ? NC_SEEN_RUNNING : 0;
	f |= rec->state == NC_STOPPED ? NC_SEEN_STOPPED : 0;
	f |= rec->asked_off_ms ? NC_ASKED_OFF : 0;
	f |= told ? NC_TOLD_OFF : 0;
	if (forced)
		f |= NC_TOLD_OFF | NC_OFF_DUE;
	if (rec->asked_off_ms && now >= (held ? deadline : rec->asked_off_ms + NC_STOP_MS))
		f |= NC_OFF_DUE;
	f |= j->spec->reboot_generation.value > rec->reboot_done ? NC_REBOOT : 0;
	f |= stops_when_off(j->spec) ? NC_STOPS : 0;
	f |= rec->guest_off ? NC_NOTED_OFF : 0;
	j->facts = (struct nc_facts){
	    .wanted = nc_parse_wanted(j->spec), .flags = f, .machine = HYPER_ABSENT};
	/* Its owner switched it off from inside: that counts until somebody wants something else. */
	if (j->facts.wanted == NC_WANT_RUNNING && rec->guest_off && rec->guest_off == j->spec->generation.value)
		j->facts.wanted = NC_WANT_STOPPED;
}

/* A guest that went off as its owner might have switched it off. Where the host's own shutdown ends guests, it goes with its
 * host, and comes back with it. */
static bool went_with_host(const struct nc_job *j)
{
	const struct nc_facts *f = &j->facts;

	return f->machine == HYPER_OFF && f->off_reason == HYPER_OFF_GUEST && (f->flags & NC_THIS_BOOT) &&
	       !(f->flags & (NC_ASKED_OFF | NC_HELD)) && host_going_down(SYSTEMD_RUNS);
}

/* 0, or negative with j->err: the hypervisor cannot be asked. */
static int gather(struct nc_job *j)
{
	struct nc *nc = j->nc;
	struct hyper_status st;
	char path[4096], name[64];
	int r;

	gather_own(j);
	nc_instance_path(nc, j->id, "root.raw", path, sizeof(path));
	if (nc_is_ebs(j->spec) || access(path, F_OK) == 0)
		j->facts.flags |= NC_DISK;
	if (j->facts.flags & NC_ENDED)
		return 0;
	if (!(j->facts.flags & NC_LAUNCHED))
		return nc_devices_gather(j);
	nc_domain_name(nc, j->id, name);
	r = nc->ops->status(nc->hyper, name, &st, &j->err);
	if (r < 0)
		return r;
	j->facts.machine = st.state;
	j->facts.off_reason = st.off_reason;
	if (went_with_host(j))
		j->facts.flags |= NC_HELD;
	return nc_devices_gather(j);
}

static void refresh(struct nc_job *j)
{
	arena_free(j->arena);
	j->arena = arena_new();
	error_clear(&j->err);
	j->wait_ms = j->retry_most_ms = 0;
	j->devices = NULL;
	j->device_count = 0;
	pthread_mutex_lock(&j->nc->lock);
	j->inst->again = false;
	j->rec = j->inst->rec;
	j->spec = wire_copy(j->arena, &shared_shape_instance_spec, j->inst->spec);
	pthread_mutex_unlock(&j->nc->lock);
}

/* Note how often and how long it has failed. */
static void note_failure(struct nc_job *j, unsigned int *ret_attempts, int64_t *ret_since)
{
	struct nc_instance *inst = j->inst;

	pthread_mutex_lock(&j->nc->lock);
	inst->attempts++;
	if (!inst->failing_since_mono_ms)
		inst->failing_since_mono_ms = clock_mono_ms();
	*ret_attempts = inst->attempts;
	*ret_since = inst->failing_since_mono_ms;
	pthread_mutex_unlock(&j->nc->lock);
}

static void note_success(struct nc_job *j)
{
	pthread_mutex_lock(&j->nc->lock);
	j->inst->attempts = 0;
	j->inst->failing_since_mono_ms = 0;
	pthread_mutex_unlock(&j->nc->lock);
}

/* A launch that failed ends the instance, and says why. */
static enum nc_step give_up(struct nc_job *j)
{
	bool own_code = str_prefix(j->err.code, "Server.") || str_prefix(j->err.code, "Client.");
	struct error why = j->err;

	log_error("launch failed", "id=%s code=%s err=%s", j->id, why.code, log_quote(why.message));
	metrics_add(j->nc->metrics, NC_M_LAUNCH_FAILURES, 1);
	snprintf(j->rec.end_code, sizeof(j->rec.end_code), "%s",
		 own_code ? why.code : "Server.InternalError");
	snprintf(j->rec.end_message, sizeof(j->rec.end_message), "%s: %.*s", j->rec.end_code, 300,
		 why.message);
	error_clear(&j->err);
	if (nc_commit(j) < 0) {
		j->wait_ms = RETRY_MOST_MS;
		return NC_STEP_WAIT;
	}
	return NC_STEP_AGAIN;
}

/* A step did not work: again later, or never. Only a launch is ever given up: what ran once, or has
 * to go, is tried for ever. */
static enum nc_step failed(struct nc_job *j, enum nc_step how)
{
	bool launching =
	    j->rec.state == NC_PENDING && j->facts.wanted == NC_WANT_RUNNING && !j->rec.end_code[0];
	unsigned int attempts;
	int64_t since;

	note_failure(j, &attempts, &since);
	if (launching &&
	    (how == NC_STEP_FAIL || (how == NC_STEP_RETRY_FEW && attempts >= RETRY_FEW) ||
	     clock_mono_ms() - since >= NC_LAUNCH_LIMIT_MS))
		return give_up(j);
	j->wait_ms = (int64_t)RETRY_FIRST_MS << MIN_OF(attempts - 1, 5u);
	j->wait_ms = how == NC_STEP_FAIL
			 ? RETRY_MOST_MS
			 : MIN_OF(j->wait_ms, j->retry_most_ms ? j->retry_most_ms : (int64_t)RETRY_MOST_MS);
	metrics_add(j->nc->metrics, NC_M_RETRIES, 1);
	log_warn("will try again", "id=%s attempt=%u in_ms=%lld err=%s", j->id, attempts,
		 (long long)j->wait_ms, log_quote(j->err.message));
	nc_progress(j, "waiting: %.180s", j->err.message);
	return NC_STEP_WAIT;
}

static enum nc_step round_of(struct nc_job *j, bool heavy, bool *ret_to_heavy)
{
	enum nc_action action;
	enum nc_step step;

	refresh(j);
	if (gather(j) < 0)
		return failed(j, NC_STEP_RETRY);
	action = nc_decide(&j->facts);
	if (action == NC_DO_PREPARE && !heavy) {
		*ret_to_heavy = true;
		return NC_STEP_DONE;
	}
	step = nc_step_run(j, action);
	if (step == NC_STEP_RETRY || step == NC_STEP_RETRY_FEW || step == NC_STEP_FAIL)
		return failed(j, step);
	note_success(j);
	return step;
}

struct nc_outcome nc_reconcile(struct nc *nc, struct nc_instance *inst, bool heavy)
{
	struct nc_job j = {.nc = nc, .inst = inst};
	struct nc_outcome out = {0};
	enum nc_step step = NC_STEP_AGAIN;

	memcpy(j.id, inst->id, sizeof(j.id));
	for (int i = 0; i < ROUNDS && step == NC_STEP_AGAIN && !out.heavy; i++)
		step = round_of(&j, heavy, &out.heavy);
	out.again = step == NC_STEP_AGAIN;
	out.wait_ms = step == NC_STEP_WAIT ? MAX_OF(j.wait_ms, (int64_t)1) : 0;
	arena_free(j.arena);
	return out;
}
