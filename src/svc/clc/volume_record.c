/* SPDX-License-Identifier: Apache-2.0 */
#include "base/id.h"
#include "base/text.h"
#include "svc/clc/ebs_encryption.h"
#include "svc/clc/volumes.h"

#define DEFAULT_TYPE "gp2"

enum volume_state volume_state_of(const struct records_volume *v)
{
	enum volume_state s = volume_state_parse(v->state);

	return s == VOLUME_STATE_COUNT ? VOLUME_ERROR : s;
}

void volume_enter(struct records_volume *v, enum volume_state s, int64_t now_ms)
{
	v->state = volume_state_name(s);
	v->state_time = WIRE_TIME_OF(now_ms);
	if (s == VOLUME_DELETING)
		v->wanted = WANTED_DELETED;
}

int volume_store(struct clc *c, struct records_volume *v, bool spec_changed, struct error *e)
{
	if (spec_changed)
		v->generation = WIRE_INT_OF(v->generation.value + 1);
	return record_put(c, KIND_VOLUME, v->account_id, v->volume_id, v->client_token, v, e);
}

int volume_put(struct ec2_call *call, struct records_volume *v, bool spec_changed)
{
	call->wake_storage |= spec_changed;
	return volume_store(call->clc, v, spec_changed, &call->error);
}

/* One that was still being made goes, or stays, as one that was made. */
void volume_let_go(struct records_volume *v, bool delete, int64_t now_ms)
{
	enum volume_state next;

	v->instance_id = NULL;
	if (volume_next(volume_state_of(v), VOLUME_SEEN_DETACHED, &next) == EBS_MOVES)
		volume_enter(v, next, now_ms);
	if (delete && !str_eq(v->wanted, WANTED_DELETED))
		volume_enter(v, VOLUME_DELETING, now_ms);
}

bool volume_is_modifying(const struct records_volume *v)
{
	return v->modification && str_eq(v->modification->state, MODIFICATION_MODIFYING);
}

struct volume_shape volume_wanted_shape(const struct records_volume *v)
{
	const struct records_volume_modification *m = v->modification;

	if (volume_is_modifying(v))
		return (struct volume_shape){.type = m->target_volume_type,
					     .size_gib = m->target_size_gib.value,
					     .iops = m->target_iops.value,
					     .mib_per_s = m->target_throughput.value};
	return (struct volume_shape){.type = v->volume_type,
				     .size_gib = v->size_gib.value,
				     .iops = v->iops.value,
				     .mib_per_s = v->throughput.value};
}

void volume_modified(struct records_volume *v, int64_t now_ms)
{
	struct records_volume_modification *m = v->modification;

	v->volume_type = m->target_volume_type;
	v->size_gib = m->target_size_gib;
	v->iops = m->target_iops;
	v->throughput = m->target_throughput;
	m->state = MODIFICATION_COMPLETED;
	m->status_message = NULL;
	m->end_time = WIRE_TIME_OF(now_ms);
}

void volume_not_modified(struct records_volume *v, const char *why, int64_t now_ms)
{
	struct records_volume_modification *m = v->modification;

	m->state = MODIFICATION_FAILED;
	m->status_message = why;
	m->end_time = WIRE_TIME_OF(now_ms);
}

static int check_room(struct ec2_call *call)
{
	int64_t count;
	int r = state_count(call->clc->state, clc_kinds[KIND_VOLUME].kind, call->account_id, &count,
			    &call->error);

	if (r >= 0 && count >= LIMIT_VOLUMES_PER_ACCOUNT)
		return ec2_error(call, "VolumeLimitExceeded",
				 "This account has its limit of %d volumes",
				 LIMIT_VOLUMES_PER_ACCOUNT);
	return r;
}

/* The size, and that what it begins as fits into it. */
static int plan_size(struct ec2_call *call, const struct volume_wish *w, int64_t *ret_gib,
		     bool *ret_encrypted, const char **ret_key)
{
	struct records_snapshot *s;
	enum snapshot_state unused;

	if (!w->snapshot_id || !*w->snapshot_id) {
		if (!w->size_gib)
			return ec2_error(
			    call, "MissingParameter",
			    "The request must contain the parameter size/snapshot");
		*ret_gib = w->size_gib;
		return 0;
	}
	int r = w->of_image ? ec2_snapshot_of_image(call, w->snapshot_id, &s)
			    : ec2_snapshot_get(call, w->snapshot_id, false, &s);
	if (r < 0)
		return r;
	if (snapshot_next(snapshot_state_of(s), SNAPSHOT_ASK_USE, &unused) == EBS_REFUSES)
		return ec2_error(call, "IncorrectState", "Snapshot is in invalid state - %s",
				 s->state);
	*ret_encrypted = s->encrypted.value;
	*ret_key = s->kms_key_id;
	*ret_gib = w->size_gib ? w->size_gib : s->volume_size_gib.value;
	if (*ret_gib < s->volume_size_gib.value)
		return ec2_error(call, "InvalidParameterValue",
				 "Volume of size %lldGB is smaller than snapshot '%s', expect size "
				 ">= %lldGB",
				 (long long)*ret_gib, s->snapshot_id,
				 (long long)s->volume_size_gib.value);
	return 0;
}

static int plan_limits(struct ec2_call *call, const struct volume_wish *w, int64_t gib,
		       const struct volume_type **ret, struct volume_limits *limits)
{
	const char *name = w->volume_type && *w->volume_type ? w->volume_type : DEFAULT_TYPE;
	const struct volume_type *t = volume_type_find(name);

	if (!t)
		return ec2_error(call, "UnknownVolumeType",
				 "Unsupported volume type '%.64s' for volume creation.", name);
	if (gib < 1 || w->iops < 0 || w->mib_per_s < 0)
		return ec2_error(call, "InvalidParameterValue",
				 "The parameters size, iops and throughput must be positive");
	*ret = t;
	return volume_type_limits(t, (uint64_t)gib, (uint64_t)w->iops, (uint64_t)w->mib_per_s,
				  limits, &call->error);
}

int volume_plan(struct ec2_call *call, const struct volume_wish *w, struct records_volume **ret)
{
	struct records_volume *v = arena_new_struct(call->arena, struct records_volume);
	const struct volume_type *type = NULL;
	struct volume_limits limits = {0};
	char id[ID_LEN];
	int64_t gib = 0;
	bool source_encrypted = false, encrypted = false;
	const char *source_key = NULL;
	int r;

	r = plan_size(call, w, &gib, &source_encrypted, &source_key);
	if (r >= 0)
		r = encryption_wanted(call, w->encrypted, source_encrypted, &encrypted);
	if (r >= 0)
		r = plan_limits(call, w, gib, &type, &limits);
	if (r >= 0)
		r = check_room(call);
	if (r < 0)
		return r;
	id_new("vol", id);
	*v = (struct records_volume){
	    .volume_id = arena_strdup(call->arena, id),
	    .account_id = call->account_id,
	    .availability_zone = call->clc->zone,
	    .size_gib = WIRE_INT_OF(gib),
	    .volume_type = volume_type_name(type),
	    .snapshot_id = w->snapshot_id && *w->snapshot_id ? w->snapshot_id : NULL,
	    .state = volume_state_name(VOLUME_CREATING),
	    .state_time = WIRE_TIME_OF(call->now_ms),
	    .create_time = WIRE_TIME_OF(call->now_ms),
	    .wanted = WANTED_AVAILABLE,
	    .generation = WIRE_INT_OF(0),
	};
	if (encrypted) {
		v->encrypted = WIRE_BOOL_OF(true);
		v->kms_key_id = encryption_named_key(w->kms_key_id, source_key);
	}
	if (limits.shown_iops)
		v->iops = WIRE_INT_OF((int64_t)limits.shown_iops);
	if (limits.shown_mib_per_s)
		v->throughput = WIRE_INT_OF((int64_t)limits.shown_mib_per_s);
	*ret = v;
	return 0;
}
