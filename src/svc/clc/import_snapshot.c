/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <strings.h>

#include "base/id.h"
#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/filters.h"
#include "svc/clc/ebs_encryption.h"
#include "svc/clc/volumes.h"

/*
 * ImportSnapshot: a snapshot from a raw disk image in Walrus. The task is a record that names its snapshot; how far it is, is told
 * by the snapshot's record.
 */

enum { PAGE_MIN = 5, PAGE_MAX = 1000 };

/* "s3://bucket/key" */
static const char *location_of_url(struct ec2_call *call, const char *url)
{
	const char *rest = str_prefix(url, "s3://") ? url + 5 : NULL;
	const char *slash = rest ? strchr(rest, '/') : NULL;

	return slash && slash > rest && slash[1] ? arena_strdup(call->arena, rest) : NULL;
}

static int check_location(struct ec2_call *call, const struct ec2_snapshot_disk_container *d,
			  const char **ret)
{
	const struct ec2_user_bucket *b = d->user_bucket;

	if (!d->url == !b)
		return ec2_error(call, "InvalidParameterCombination",
				 "The disk container must have exactly one of Url and UserBucket");
	if (b && (!b->s3_bucket || !*b->s3_bucket || strchr(b->s3_bucket, '/') || !b->s3_key ||
		  !*b->s3_key))
		return ec2_error(call, "InvalidParameterValue",
				 "The user bucket must have an S3Bucket and an S3Key");
	*ret = b ? arena_printf(call->arena, "%s/%s", b->s3_bucket, b->s3_key)
		 : location_of_url(call, d->url);
	if (!*ret || strlen(*ret) > 63 + 1 + 1024)
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.100s) for parameter Url is invalid: give s3://bucket/key",
				 d->url ? d->url : *ret);
	return 0;
}

static int check_request(struct ec2_call *call, const struct ec2_import_snapshot_request *in,
			 const char **ret_location)
{
	const struct ec2_snapshot_disk_container *d = in->disk_container;

	if (!d)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter DiskContainer");
	if (d->format && strcasecmp(d->format, "raw") != 0)
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.32s) for parameter Format is invalid: only RAW disks can be "
				 "imported here (`qemu-img convert` makes them)",
				 d->format);
	int r = encryption_check_key(call, in->kms_key_id, &in->encrypted);
	if (r < 0)
		return r;
	if (in->client_token && strlen(in->client_token) > LIMIT_CLIENT_TOKEN_CHARS)
		return ec2_error(call, "InvalidParameterValue",
				 "The client token has more than %d characters",
				 LIMIT_CLIENT_TOKEN_CHARS);
	if ((in->description && strlen(in->description) > 255) ||
	    (d->description && strlen(d->description) > 255))
		return ec2_error(call, "InvalidParameterValue",
				 "Description must have at most 255 characters");
	return check_location(call, d, ret_location);
}

/* ---- showing ---- */

/* EC2's words: active, completed, error, deleted. */
static const char *status_of(const struct records_snapshot *s)
{
	static const char *const names[SNAPSHOT_STATE_COUNT] = {
	    [SNAPSHOT_PENDING] = "active",
	    [SNAPSHOT_COMPLETED] = "completed",
	    [SNAPSHOT_ERROR] = "error",
	    [SNAPSHOT_DELETED] = "deleted",
	};

	return names[s ? snapshot_state_of(s) : SNAPSHOT_DELETED];
}

static struct ec2_snapshot_task_detail *detail(struct ec2_call *call,
					       const struct records_import_snapshot_task *t,
					       const struct records_snapshot *s)
{
	struct arena *a = call->arena;
	struct ec2_snapshot_task_detail *d = arena_new_struct(a, struct ec2_snapshot_task_detail);
	struct ec2_user_bucket_details *b = arena_new_struct(a, struct ec2_user_bucket_details);
	const char *slash = t->location ? strchr(t->location, '/') : NULL;

	*d = (struct ec2_snapshot_task_detail){
	    .description = t->description,
	    .encrypted = WIRE_BOOL_OF(s && s->encrypted.value),
	    .format = t->format,
	    .snapshot_id = t->snapshot_id,
	    .status = status_of(s),
	    .status_message = s ? s->state_message : NULL,
	};
	if (s)
		d->kms_key_id = encryption_key_shown(call, s->account_id, &s->encrypted, s->kms_key_id);
	if (s && s->volume_size_gib.value > 0)
		d->disk_image_size = (struct wire_double){
		    .set = true, .value = (double)(s->volume_size_gib.value << 30)};
	if (str_eq(d->status, "active")) {
		d->progress = arena_printf(a, "%lld", (long long)s->progress.value);
		d->status_message = s->begin_time.set ? "converting" : "pending";
	}
	if (slash) {
		b->s3_bucket = arena_strndup(a, t->location, (size_t)(slash - t->location));
		b->s3_key = slash + 1;
		d->user_bucket = b;
	}
	return d;
}

static int load_snapshot(struct ec2_call *call, const char *id, struct records_snapshot **ret)
{
	struct record rec;
	int r = record_get(call->clc, call->arena, KIND_SNAPSHOT, id, &rec, &call->error);

	*ret = r == 0 ? rec.value : NULL;
	return r == -ENOENT ? 0 : r;
}

/* ---- ImportSnapshot ---- */

static int reply_with(struct ec2_call *call, const struct records_import_snapshot_task *t,
		      struct ec2_import_snapshot_result *out)
{
	struct shared_tag_list tags;
	struct records_snapshot *s;
	int r = load_snapshot(call, t->snapshot_id, &s);

	if (r >= 0)
		r = tags_get(call->clc, call->arena, t->import_task_id, &tags, &call->error);
	if (r < 0)
		return r;
	out->description = t->description;
	out->import_task_id = t->import_task_id;
	out->snapshot_task_detail = detail(call, t, s);
	out->tags = tags_to_reply(call->arena, &tags);
	return 0;
}

/* The same token again: the first task, if it is of the same object. */
static int answer_again(struct ec2_call *call, const struct records_import_snapshot_task *t,
			struct ec2_import_snapshot_result *out)
{
	struct record rec;
	int r = record_get_by_name(call->clc, call->arena, KIND_IMPORT_SNAPSHOT_TASK,
				   call->account_id, t->client_token, &rec, &call->error);

	if (r < 0)
		return r;
	const struct records_import_snapshot_task *first = rec.value;
	if (!str_eq(first->location, t->location) || !str_eq(first->description, t->description))
		return ec2_error(call, "IdempotentParameterMismatch",
				 "The token '%s' was used before with other parameters",
				 t->client_token);
	return reply_with(call, first, out);
}

static int put_tags(struct ec2_call *call, const struct ec2_import_snapshot_request *in,
		    const char *task_id)
{
	static const char *const allowed[] = {"import-snapshot-task", NULL};
	struct shared_tag_list tags;
	int r = ec2_tags_from_specs(call, &in->tag_specifications, allowed, "import-snapshot-task",
				    &tags);

	return r < 0 || !tags.count ? r : tags_put(call, "import-snapshot-task", task_id, &tags);
}

static int import(struct ec2_call *call, const struct ec2_import_snapshot_request *in,
		  struct records_import_snapshot_task *t)
{
	struct records_snapshot *s;
	const struct snapshot_wish w = {
	    .import_location = t->location,
	    .description = arena_printf(call->arena, "Imported from %.180s by %s", t->location,
					t->import_task_id),
	    .encrypted = in->encrypted.value,
	    .kms_key_id = in->kms_key_id,
	};
	int r = snapshot_plan(call, &w, &s);

	if (r < 0)
		return r;
	t->snapshot_id = s->snapshot_id;
	r = record_put(call->clc, KIND_IMPORT_SNAPSHOT_TASK, call->account_id, t->import_task_id,
		       t->client_token, t, &call->error);
	if (r >= 0)
		r = snapshot_put(call, s, true);
	return r < 0 ? r : put_tags(call, in, t->import_task_id);
}

int ec2_import_snapshot(struct ec2_call *call, const struct ec2_import_snapshot_request *in,
			struct ec2_import_snapshot_result *out)
{
	struct records_import_snapshot_task t = {
	    .account_id = call->account_id,
	    .description = in->description,
	    .format = "RAW",
	    .create_time = WIRE_TIME_OF(call->now_ms),
	    .client_token = in->client_token && *in->client_token ? in->client_token : NULL,
	};
	char id[ID_LEN];
	int r = check_request(call, in, &t.location);

	if (r >= 0)
		r = ec2_begin(call);
	if (r < 0)
		return r;
	if (!t.description)
		t.description = in->disk_container->description;
	id_new("import-snap", id);
	t.import_task_id = arena_strdup(call->arena, id);
	r = import(call, in, &t);
	if (r == -EEXIST) {
		state_rollback(call->clc->state);
		call->in_transaction = false;
		return answer_again(call, &t, out);
	}
	if (r >= 0)
		r = ec2_commit(call);
	return r < 0 ? r : reply_with(call, &t, out);
}

/* ---- DescribeImportSnapshotTasks ---- */

/* Amazon's text names no filters; these are what its service takes. */
static const struct filter_field fields[] = {
    {"import-task-id", "ImportTaskId"},
    {"snapshot-id", "SnapshotTaskDetail.SnapshotId"},
    {"task-state", "SnapshotTaskDetail.Status"},
};
static const struct filter_table table = {
    .item = &ec2_shape_import_snapshot_task,
    .tags = "Tags",
    .fields = fields,
    .count = ARRAY_SIZE(fields),
};

static int task_item(struct ec2_call *call, const struct records_import_snapshot_task *t,
		     const struct tag_index *tags, struct ec2_import_snapshot_task *out)
{
	struct records_snapshot *s;
	int r = load_snapshot(call, t->snapshot_id, &s);

	if (r < 0)
		return r;
	*out = (struct ec2_import_snapshot_task){
	    .description = t->description,
	    .import_task_id = t->import_task_id,
	    .snapshot_task_detail = detail(call, t, s),
	    .tags = tag_index_find(tags, t->import_task_id),
	};
	return 0;
}

int ec2_describe_import_snapshot_tasks(struct ec2_call *call,
				       const struct ec2_describe_import_snapshot_tasks_request *in,
				       struct ec2_describe_import_snapshot_tasks_result *out)
{
	struct ec2_import_snapshot_task_list *tasks = &out->import_snapshot_tasks;
	struct filter_set *filters;
	struct tag_index *tags;
	struct record_list l;
	struct page page;
	int r = filter_set_new(call, &table, &in->filters, &filters);

	if (r >= 0)
		r = ec2_page(call, &in->max_results, in->next_token, in->import_task_ids.count > 0,
			     PAGE_MIN, PAGE_MAX, &page);
	if (r >= 0)
		r = in->import_task_ids.count
			? ec2_get_many(call, KIND_IMPORT_SNAPSHOT_TASK, &in->import_task_ids, &l)
			: ec2_list(call, KIND_IMPORT_SNAPSHOT_TASK, &l);
	if (r >= 0)
		r = tag_index_load(call, &tags);
	if (r < 0)
		return r;
	tasks->set = true;
	tasks->items = arena_new_array(call->arena, struct ec2_import_snapshot_task, l.count);
	for (size_t i = 0; i < l.count; i++) {
		struct ec2_import_snapshot_task *item = &tasks->items[tasks->count];

		r = task_item(call, l.items[i].value, tags, item);
		if (r < 0)
			return r;
		if (filter_set_match(filters, item, NULL) && page_take(&page, l.items[i].seq))
			tasks->count++;
	}
	out->next_token = page_token(call->arena, &page);
	return 0;
}
