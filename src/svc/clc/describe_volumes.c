/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>

#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/filters.h"
#include "svc/clc/strmap.h"
#include "svc/clc/volumes.h"

enum {
	PAGE_MIN = 5,
	PAGE_MAX = 1000, /* what aws asks for when nobody says */
	/* Up to so many named volumes their tags are read one by one, else all of the account's at
	   once. */
	FEW = 20,
};

static void is_false(struct arena *a, const void *item, const void *parent,
		     struct filter_values *out)
{
	filter_values_add(out, "false");
}

/* ---- reading ---- */

struct reader {
	struct ec2_call *call;
	struct tag_index *index;  /* NULL: tags are read one by one */
	struct strmap *instances; /* those that were met: an instance has several volumes */
};

static int read_tags(struct reader *rd, const char *id, struct ec2_tag_list *ret)
{
	struct shared_tag_list tags;

	if (rd->index) {
		*ret = tag_index_find(rd->index, id);
		return 0;
	}
	int r = tags_get(rd->call->clc, rd->call->arena, id, &tags, &rd->call->error);
	if (r >= 0)
		*ret = tags_to_reply(rd->call->arena, &tags);
	return r;
}

/* The instance that has it; NULL when none has. */
static int read_instance(struct reader *rd, const struct records_volume *v,
			 const struct records_instance **ret)
{
	struct record rec;

	*ret = NULL;
	if (!v->instance_id)
		return 0;
	*ret = strmap_get(rd->instances, v->instance_id);
	if (*ret)
		return 0;
	int r = record_get(rd->call->clc, rd->call->arena, KIND_INSTANCE, v->instance_id, &rec,
			   &rd->call->error);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	*ret = rec.value;
	strmap_put(rd->instances, v->instance_id, rec.value);
	return 0;
}

static int list_volumes(struct ec2_call *call, const struct wire_string_list *ids,
			struct record_list *ret)
{
	if (ids->count)
		return ec2_get_many(call, KIND_VOLUME, ids, ret);
	return record_scan(call->clc, call->arena, KIND_VOLUME, call->account_id, ret,
			   &call->error);
}

/* The record of an item that no earlier page had; NULL for one that it had, unread. */
static int next_volume(struct ec2_call *call, struct record *r, const struct page *page,
		       const struct records_volume **ret)
{
	*ret = NULL;
	if (r->seq <= page->after_seq)
		return 0;
	int n = record_decode(call->arena, KIND_VOLUME, r, &call->error);
	if (n >= 0)
		*ret = r->value;
	return n;
}

/* ---- DescribeVolumes ---- */

static const struct filter_field volume_fields[] = {
    {"attachment.attach-time", "Attachments.AttachTime"},
    {"attachment.delete-on-termination", "Attachments.DeleteOnTermination"},
    {"attachment.device", "Attachments.Device"},
    {"attachment.instance-id", "Attachments.InstanceId"},
    {"attachment.status", "Attachments.State"},
    {"availability-zone", "AvailabilityZone"},
    {"create-time", "CreateTime"},
    {"encrypted", "Encrypted"},
    {"fast-restored", .get = is_false},
    {"multi-attach-enabled", "MultiAttachEnabled"},
    {"size", "Size"},
    {"snapshot-id", "SnapshotId"},
    {"status", "State"},
    {"volume-id", "VolumeId"},
    {"volume-type", "VolumeType"},
};
static const struct filter_table volume_filters = {
    .item = &ec2_shape_volume,
    .tags = "Tags",
    .fields = volume_fields,
    .count = ARRAY_SIZE(volume_fields),
};

static int select_volumes(struct reader *rd, struct record_list *l, const struct filter_set *f,
			  struct page *page, struct ec2_volume_list *out)
{
	out->set = true;
	out->items = arena_new_array(rd->call->arena, struct ec2_volume, l->count);
	for (size_t n = 0; n < l->count && !page->more; n++) {
		const struct records_volume *v;
		const struct records_instance *i = NULL;
		struct ec2_tag_list tags = {0};
		int r = next_volume(rd->call, &l->items[n], page, &v);

		if (r >= 0 && !v)
			continue;
		if (r >= 0)
			r = read_instance(rd, v, &i);
		if (r >= 0)
			r = read_tags(rd, v->volume_id, &tags);
		if (r < 0)
			return r;
		out->items[out->count] = volume_to_reply(rd->call, v, i, tags);
		if (filter_set_match(f, &out->items[out->count], NULL) &&
		    page_take(page, l->items[n].seq))
			out->count++;
	}
	return 0;
}

int ec2_describe_volumes(struct ec2_call *call, const struct ec2_describe_volumes_request *in,
			 struct ec2_describe_volumes_result *out)
{
	_cleanup_(strmap_freep) struct strmap *instances = strmap_new();
	struct reader rd = {.call = call, .instances = instances};
	const size_t ids = in->volume_ids.count;
	struct filter_set *filters;
	struct record_list l;
	struct page page;
	int r = filter_set_new(call, &volume_filters, &in->filters, &filters);

	if (r >= 0)
		r = ec2_page_clamped(call, &in->max_results, in->next_token, ids > 0, PAGE_MIN,
				     PAGE_MAX, &page);
	if (r >= 0)
		r = list_volumes(call, &in->volume_ids, &l);
	if (r >= 0 && (!ids || ids > FEW))
		r = tag_index_load(call, &rd.index);
	if (r >= 0)
		r = select_volumes(&rd, &l, filters, &page, &out->volumes);
	if (r >= 0)
		out->next_token = page_token(call->arena, &page);
	return r;
}

/* ---- DescribeVolumeStatus ---- */

static const struct filter_field status_fields[] = {
    {"action.code", "Actions.Code"},
    {"action.description", "Actions.Description"},
    {"action.event-id", "Actions.EventId"},
    {"availability-zone", "AvailabilityZone"},
    {"event.description", "Events.Description"},
    {"event.event-id", "Events.EventId"},
    {"event.event-type", "Events.EventType"},
    {"event.not-after", "Events.NotAfter"},
    {"event.not-before", "Events.NotBefore"},
    {"volume-status.details-name", "VolumeStatus.Details.Name"},
    {"volume-status.details-status", "VolumeStatus.Details.Status"},
    {"volume-status.status", "VolumeStatus.Status"},
};
static const struct filter_table status_filters = {
    .item = &ec2_shape_volume_status_item,
    .fields = status_fields,
    .count = ARRAY_SIZE(status_fields),
};

/* What is known of a volume: that it is there, or that it could not be made. No performance is
 * measured. */
static struct ec2_volume_status_info *status_info(struct arena *a, const struct records_volume *v)
{
	struct ec2_volume_status_info *out = arena_new_struct(a, struct ec2_volume_status_info);
	enum volume_state s = volume_state_of(v);
	bool there = s != VOLUME_CREATING && s != VOLUME_ERROR;

	out->status = there ? "ok" : s == VOLUME_ERROR ? "impaired" : "insufficient-data";
	out->details.set = true;
	out->details.count = 2;
	out->details.items = arena_new_array(a, struct ec2_volume_status_details, 2);
	out->details.items[0] = (struct ec2_volume_status_details){
	    .name = "io-enabled", .status = s == VOLUME_ERROR ? "failed" : "passed"};
	out->details.items[1] = (struct ec2_volume_status_details){
	    .name = "io-performance", .status = "not-applicable"};
	return out;
}

static int select_statuses(struct ec2_call *call, struct record_list *l,
			   const struct filter_set *f, struct page *page,
			   struct ec2_volume_status_list *out)
{
	out->set = true;
	out->items = arena_new_array(call->arena, struct ec2_volume_status_item, l->count);
	for (size_t n = 0; n < l->count && !page->more; n++) {
		const struct records_volume *v;
		int r = next_volume(call, &l->items[n], page, &v);

		if (r < 0)
			return r;
		if (!v)
			continue;
		out->items[out->count] = (struct ec2_volume_status_item){
		    .actions = {.set = true},
		    .availability_zone = v->availability_zone,
		    .events = {.set = true},
		    .volume_id = v->volume_id,
		    .volume_status = status_info(call->arena, v),
		};
		if (filter_set_match(f, &out->items[out->count], NULL) &&
		    page_take(page, l->items[n].seq))
			out->count++;
	}
	return 0;
}

int ec2_describe_volume_status(struct ec2_call *call,
			       const struct ec2_describe_volume_status_request *in,
			       struct ec2_describe_volume_status_result *out)
{
	struct filter_set *filters;
	struct record_list l;
	struct page page;
	int r = filter_set_new(call, &status_filters, &in->filters, &filters);

	if (r >= 0)
		r = ec2_page_clamped(call, &in->max_results, in->next_token,
				     in->volume_ids.count > 0, PAGE_MIN, PAGE_MAX, &page);
	if (r >= 0)
		r = list_volumes(call, &in->volume_ids, &l);
	if (r >= 0)
		r = select_statuses(call, &l, filters, &page, &out->volume_statuses);
	if (r >= 0)
		out->next_token = page_token(call->arena, &page);
	return r;
}

/* ---- DescribeVolumesModifications ---- */

static const struct filter_field modification_fields[] = {
    {"modification-state", "ModificationState"},
    {"original-iops", "OriginalIops"},
    {"original-size", "OriginalSize"},
    {"original-throughput", "OriginalThroughput"},
    {"original-volume-type", "OriginalVolumeType"},
    {"originalMultiAttachEnabled", "OriginalMultiAttachEnabled"},
    {"start-time", "StartTime"},
    {"target-iops", "TargetIops"},
    {"target-size", "TargetSize"},
    {"target-throughput", "TargetThroughput"},
    {"target-volume-type", "TargetVolumeType"},
    {"targetMultiAttachEnabled", "TargetMultiAttachEnabled"},
    {"volume-id", "VolumeId"},
};
static const struct filter_table modification_filters = {
    .item = &ec2_shape_volume_modification,
    .fields = modification_fields,
    .count = ARRAY_SIZE(modification_fields),
};

static int select_modifications(struct ec2_call *call, bool named, struct record_list *l,
				const struct filter_set *f, struct page *page,
				struct ec2_volume_modification_list *out)
{
	out->set = true;
	out->items = arena_new_array(call->arena, struct ec2_volume_modification, l->count);
	for (size_t n = 0; n < l->count && !page->more; n++) {
		const struct records_volume *v;
		int r = next_volume(call, &l->items[n], page, &v);

		if (r < 0)
			return r;
		if (v && !v->modification && named)
			return ec2_error(call, "InvalidVolumeModification.NotFound",
					 "Modification for volume '%s' does not exist.",
					 v->volume_id);
		if (!v || !v->modification)
			continue;
		const struct ec2_volume_modification *item = modification_to_reply(call->arena, v);
		if (filter_set_match(f, item, NULL) && page_take(page, l->items[n].seq))
			out->items[out->count++] = *item;
	}
	return 0;
}

int ec2_describe_volumes_modifications(struct ec2_call *call,
				       const struct ec2_describe_volumes_modifications_request *in,
				       struct ec2_describe_volumes_modifications_result *out)
{
	struct filter_set *filters;
	struct record_list l;
	struct page page;
	int r = filter_set_new(call, &modification_filters, &in->filters, &filters);

	if (r >= 0)
		r = ec2_page(call, &in->max_results, in->next_token, false, 1,
			     PAGE_MAX, &page);
	if (r >= 0)
		r = list_volumes(call, &in->volume_ids, &l);
	if (r >= 0)
		r = select_modifications(call, in->volume_ids.count > 0, &l, filters, &page,
					 &out->volumes_modifications);
	if (r >= 0)
		out->next_token = page_token(call->arena, &page);
	return r;
}
