/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/images.h"
#include "svc/clc/notice.h"
#include "svc/clc/ebs_encryption.h"
#include "svc/clc/volumes.h"

static const char *const taggable[] = {"snapshot", NULL};

/* How long CreateSnapshot waits for the point in time that it promises. */
enum { BEGIN_WAIT_MS = 10000 };

static int put_new(struct ec2_call *call, const struct snapshot_wish *w,
		   const struct shared_tag_list *tags, struct records_snapshot **ret)
{
	int r = snapshot_plan(call, w, ret);

	if (r >= 0)
		r = snapshot_put(call, *ret, true);
	if (r >= 0 && tags->count)
		r = tags_put(call, "snapshot", (*ret)->snapshot_id, tags);
	return r < 0 ? r : ec2_commit(call);
}

/* ---- CreateSnapshot ---- */

/*
 * What is written after the answer must not be in the snapshot: whoever freezes a file system, asks
 * and thaws it relies on that. So the answer waits, without a transaction, until the storage
 * controller has said from when on changes are left out. If it does not say so in time the
 * snapshot is given up, and the request with it: an answer would promise too much.
 */
static int has_begun(struct ec2_call *call, const char *id, struct records_snapshot **ret)
{
	struct record rec;
	int r = record_get(call->clc, call->arena, KIND_SNAPSHOT, id, &rec, &call->error);

	if (r == -ENOENT)
		return ec2_error(call, "InvalidSnapshot.NotFound",
				 "The snapshot '%s' was deleted while it was begun.", id);
	if (r < 0)
		return r;
	*ret = rec.value;
	return (*ret)->begin_time.set || snapshot_state_of(*ret) != SNAPSHOT_PENDING;
}

static int give_up(struct ec2_call *call, const char *id)
{
	struct records_snapshot *s = NULL;
	int r = ec2_begin(call);

	if (r >= 0)
		r = has_begun(call, id, &s);
	if (r == 0) {
		r = snapshot_drop(call, s);
		if (r >= 0)
			r = ec2_commit(call);
	} else if (r > 0) {
		r = ec2_commit(call); /* at the last moment */
		return r < 0 ? r : 0;
	}
	if (r < 0)
		return r;
	log_warn("a snapshot could not be begun in time", "id=%s", id);
	return ec2_error(call, "Unavailable",
			 "The storage controller did not begin the snapshot in %d seconds. It was "
			 "given up; try again.",
			 BEGIN_WAIT_MS / 1000);
}

static int await_begin(struct ec2_call *call, struct records_snapshot **s)
{
	struct notice *n = call->clc->storage_notice;
	int64_t until = clock_mono_ms() + BEGIN_WAIT_MS;
	const char *id = (*s)->snapshot_id;

	if (!n)
		return 0; /* the unit tests' controller, which has no threads */
	for (;;) {
		uint64_t seen = notice_count(n);
		int64_t left = until - clock_mono_ms();
		int r = has_begun(call, id, s);

		if (r != 0)
			return r < 0 ? r : 0;
		if (left <= 0 || (!notice_wait(n, seen, (int)left) && notice_closed(n)))
			return give_up(call, id);
	}
}

int ec2_create_snapshot(struct ec2_call *call, const struct ec2_create_snapshot_request *in,
			struct ec2_snapshot *out)
{
	struct records_snapshot *s = NULL;
	struct records_volume *v = NULL;
	struct shared_tag_list tags;
	int r = ec2_tags_from_specs(call, &in->tag_specifications, taggable, "snapshot", &tags);

	if (r >= 0)
		r = ec2_begin(call);
	if (r >= 0)
		r = ec2_get(call, KIND_VOLUME, in->volume_id, &v);
	if (r >= 0)
		r = put_new(call,
			    &(struct snapshot_wish){.volume = v, .description = in->description},
			    &tags, &s);
	if (r >= 0)
		r = await_begin(call, &s);
	if (r < 0)
		return r;
	*out = snapshot_to_reply(call, s, tags_to_reply(call->arena, &tags));
	if (snapshot_state_of(s) == SNAPSHOT_PENDING)
		out->progress = "";
	return 0;
}

/* ---- CopySnapshot, DeleteSnapshot ---- */

static int check_regions(struct ec2_call *call, const struct ec2_copy_snapshot_request *in)
{
	const char *region = call->clc->region;

	if (!str_eq(in->source_region, region))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.64s) for parameter sourceRegion is invalid: this cloud "
				 "has the region %s only",
				 in->source_region, region);
	if (in->destination_region && !str_eq(in->destination_region, region))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.64s) for parameter destinationRegion is invalid: this "
				 "cloud has the region %s only",
				 in->destination_region, region);
	return encryption_check_key(call, in->kms_key_id, &in->encrypted);
}

int ec2_copy_snapshot(struct ec2_call *call, const struct ec2_copy_snapshot_request *in,
		      struct ec2_copy_snapshot_result *out)
{
	struct records_snapshot *source = NULL, *s = NULL;
	struct shared_tag_list tags;
	int r = check_regions(call, in);

	if (r >= 0)
		r = ec2_tags_from_specs(call, &in->tag_specifications, taggable, "snapshot", &tags);
	if (r >= 0)
		r = ec2_begin(call);
	if (r >= 0)
		r = ec2_snapshot_get(call, in->source_snapshot_id, false, &source);
	if (r >= 0)
		r = put_new(
		    call,
		    &(struct snapshot_wish){.copy_of = source,
					    .description = in->description,
					    .encrypted = in->encrypted.value,
					    .kms_key_id = in->kms_key_id},
		    &tags, &s);
	if (r < 0)
		return r;
	out->snapshot_id = s->snapshot_id;
	out->tags = tags_to_reply(call->arena, &tags);
	return 0;
}

int ec2_delete_snapshot(struct ec2_call *call, const struct ec2_delete_snapshot_request *in)
{
	struct records_snapshot *s = NULL;
	const char *image_id = NULL;
	int r = ec2_begin(call);

	if (r >= 0)
		r = ec2_snapshot_get(call, in->snapshot_id, true, &s);
	if (r >= 0)
		r = image_of_snapshot(call->clc, call->arena, s->snapshot_id, &image_id,
				      &call->error);
	if (r < 0)
		return r;
	if (image_id)
		return ec2_error(call, "InvalidSnapshot.InUse",
				 "The snapshot %s is currently in use by %s", s->snapshot_id,
				 image_id);
	r = snapshot_drop(call, s);
	return r < 0 ? r : ec2_commit(call);
}
