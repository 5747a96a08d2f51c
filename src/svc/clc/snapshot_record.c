/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/id.h"
#include "base/text.h"
#include "svc/clc/ebs_encryption.h"
#include "svc/clc/volumes.h"

enum snapshot_state snapshot_state_of(const struct records_snapshot *s)
{
	enum snapshot_state state = snapshot_state_parse(s->state);

	return state == SNAPSHOT_STATE_COUNT ? SNAPSHOT_ERROR : state;
}

bool snapshot_visible(const struct records_snapshot *s, const char *account_id)
{
	if (snapshot_state_of(s) == SNAPSHOT_DELETED)
		return false;
	return str_eq(s->account_id, account_id) || s->public.value ||
	       list_has(&s->create_volume_user_ids, account_id);
}

int snapshot_store(struct clc *c, struct records_snapshot *s, bool spec_changed, struct error *e)
{
	if (spec_changed)
		s->generation = WIRE_INT_OF(s->generation.value + 1);
	return record_put(c, KIND_SNAPSHOT, s->account_id, s->snapshot_id, s->client_token, s, e);
}

int snapshot_put(struct ec2_call *call, struct records_snapshot *s, bool spec_changed)
{
	call->wake_storage |= spec_changed;
	return snapshot_store(call->clc, s, spec_changed, &call->error);
}

/* NULL when there is none, or none any more. */
static int find(struct ec2_call *call, const char *id, struct records_snapshot **ret)
{
	struct record rec;
	int r = ec2_check_id(call, KIND_SNAPSHOT, id);

	if (r < 0)
		return r;
	r = record_get(call->clc, call->arena, KIND_SNAPSHOT, id, &rec, &call->error);
	if (r < 0 && r != -ENOENT)
		return r;
	*ret = r == 0 ? rec.value : NULL;
	if (*ret && snapshot_state_of(*ret) == SNAPSHOT_DELETED)
		*ret = NULL;
	return 0;
}

static int not_found(struct ec2_call *call, const char *id)
{
	return ec2_error(call, "InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", id);
}

int ec2_snapshot_get(struct ec2_call *call, const char *id, bool own, struct records_snapshot **ret)
{
	struct records_snapshot *s = NULL;
	int r = find(call, id, &s);

	if (r < 0)
		return r;
	if (!s || !snapshot_visible(s, call->account_id))
		return not_found(call, id);
	if (own && !str_eq(s->account_id, call->account_id))
		return ec2_error(call, "UnauthorizedOperation",
				 "You are not authorized to perform this operation on snapshot '%s'.",
				 id);
	*ret = s;
	return 0;
}

int ec2_snapshot_of_image(struct ec2_call *call, const char *id, struct records_snapshot **ret)
{
	struct records_snapshot *s = NULL;
	int r = find(call, id, &s);

	if (r < 0)
		return r;
	if (!s)
		return not_found(call, id);
	*ret = s;
	return 0;
}

static int check_room(struct ec2_call *call)
{
	int64_t count;
	int r = state_count(call->clc->state, clc_kinds[KIND_SNAPSHOT].kind, call->account_id,
			    &count, &call->error);

	if (r >= 0 && count >= LIMIT_SNAPSHOTS_PER_ACCOUNT)
		return ec2_error(call, "SnapshotLimitExceeded",
				 "This account has its limit of %d snapshots",
				 LIMIT_SNAPSHOTS_PER_ACCOUNT);
	return r;
}

static int pending_limit(const char *volume_type)
{
	return str_eq(volume_type, "st1") || str_eq(volume_type, "sc1") ? LIMIT_PENDING_SNAPSHOTS_PER_HDD_VOLUME
									: LIMIT_PENDING_SNAPSHOTS_PER_VOLUME;
}

int snapshot_check_pending(struct ec2_call *call, const struct records_volume *v)
{
	const int limit = pending_limit(v->volume_type);
	struct record_list l;
	int pending = 0;
	int r = record_scan(call->clc, call->arena, KIND_SNAPSHOT, v->account_id, &l, &call->error);

	for (size_t i = 0; r >= 0 && i < l.count; i++) {
		if (!strstr(l.items[i].doc, v->volume_id)) /* nearly all: not worth decoding */
			continue;
		r = record_decode(call->arena, KIND_SNAPSHOT, &l.items[i], &call->error);
		const struct records_snapshot *s = r >= 0 ? l.items[i].value : NULL;
		pending += s && str_eq(s->volume_id, v->volume_id) && snapshot_state_of(s) == SNAPSHOT_PENDING;
	}
	if (r >= 0 && pending >= limit)
		return ec2_error(call, "ConcurrentSnapshotLimitExceeded",
				 "Volume '%s' has its limit of %d snapshots that are pending: wait until one "
				 "of them is completed",
				 v->volume_id, limit);
	return r < 0 ? r : 0;
}

static int check_source(struct ec2_call *call, const struct snapshot_wish *w)
{
	enum volume_state v;
	enum snapshot_state s;

	if (w->volume && volume_next(volume_state_of(w->volume), VOLUME_ASK_SNAPSHOT, &v) == EBS_REFUSES)
		return ec2_error(call, "IncorrectState", "Volume '%s' is in the '%s' state.",
				 w->volume->volume_id, w->volume->state);
	if (w->copy_of &&
	    snapshot_next(snapshot_state_of(w->copy_of), SNAPSHOT_ASK_USE, &s) == EBS_REFUSES)
		return ec2_error(call, "IncorrectState", "Snapshot is in invalid state - %s",
				 w->copy_of->state);
	if (w->description && strlen(w->description) > LIMIT_DESCRIPTION_CHARS)
		return ec2_error(call, "InvalidParameterValue",
				 "The description has more than %d bytes",
				 LIMIT_DESCRIPTION_CHARS);
	int r = w->volume ? snapshot_check_pending(call, w->volume) : 0;
	return r < 0 ? r : check_room(call);
}

int snapshot_plan(struct ec2_call *call, const struct snapshot_wish *w,
		  struct records_snapshot **ret)
{
	struct records_snapshot *s = arena_new_struct(call->arena, struct records_snapshot);
	bool encrypted = false;
	char id[ID_LEN];
	int r = check_source(call, w);

	if (r >= 0 && w->volume) /* no default: its snapshots are what it is */
		encrypted = w->volume->encrypted.value;
	else if (r >= 0)
		r = encryption_wanted(call, w->encrypted, w->copy_of && w->copy_of->encrypted.value, &encrypted);
	if (r < 0)
		return r;
	id_new("snap", id);
	*s = (struct records_snapshot){
	    .snapshot_id = arena_strdup(call->arena, id),
	    .account_id = call->account_id,
	    .volume_id = w->volume ? w->volume->volume_id : NO_VOLUME_ID,
	    .volume_size_gib = w->volume    ? w->volume->size_gib
			       : w->copy_of ? w->copy_of->volume_size_gib
					    : WIRE_INT_OF(0), /* known once it is read */
	    .description = w->description,
	    .state = snapshot_state_name(SNAPSHOT_PENDING),
	    .progress = WIRE_INT_OF(0),
	    .start_time = WIRE_TIME_OF(call->now_ms),
	    .wanted = WANTED_COMPLETED,
	    .generation = WIRE_INT_OF(0),
	    .import_location = w->import_location,
	    .copy_of = w->copy_of ? w->copy_of->snapshot_id : NULL,
	};
	if (encrypted) {
		s->encrypted = WIRE_BOOL_OF(true);
		s->kms_key_id = encryption_named_key(w->kms_key_id, w->volume ? w->volume->kms_key_id : NULL);
	}
	*ret = s;
	return 0;
}

int snapshot_drop(struct ec2_call *call, struct records_snapshot *s)
{
	s->state = snapshot_state_name(SNAPSHOT_DELETED);
	s->wanted = WANTED_DELETED;
	s->client_token = NULL;
	int r = tags_drop(call->clc, s->snapshot_id, &call->error);
	return r < 0 ? r : snapshot_put(call, s, true);
}
