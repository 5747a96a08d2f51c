/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/ebs_encryption.h"
#include "svc/clc/filters.h"
#include "svc/clc/volumes.h"

enum { PAGE_MIN = 5, PAGE_MAX = 1000 };

static const struct filter_field fields[] = {
    {"description", "Description"},
    {"encrypted", "Encrypted"},
    {"owner-alias", "OwnerAlias"},
    {"owner-id", "OwnerId"},
    {"progress", "Progress"},
    {"snapshot-id", "SnapshotId"},
    {"start-time", "StartTime"},
    {"status", "State"},
    {"storage-tier", "StorageTier"},
    {"volume-id", "VolumeId"},
    {"volume-size", "VolumeSize"},
};
static const struct filter_table table = {
    .item = &ec2_shape_snapshot,
    .tags = "Tags",
    .fields = fields,
    .count = ARRAY_SIZE(fields),
};

struct ec2_snapshot snapshot_to_reply(struct ec2_call *call, const struct records_snapshot *s,
				      struct ec2_tag_list tags)
{
	return (struct ec2_snapshot){
	    .description = s->description ? s->description : "",
	    .encrypted = WIRE_BOOL_OF(s->encrypted.value),
	    .kms_key_id = encryption_key_shown(call, s->account_id, &s->encrypted, s->kms_key_id),
	    .owner_id = s->account_id,
	    .progress = arena_printf(call->arena, "%lld%%", (long long)s->progress.value),
	    .snapshot_id = s->snapshot_id,
	    .start_time = s->start_time,
	    .state = s->state,
	    .state_message = s->state_message,
	    .volume_id = s->volume_id,
	    .volume_size = s->volume_size_gib,
	    .tags = tags,
	    .storage_tier = "standard",
	};
}

/* OwnerIds: accounts by id, "self"; "amazon" and "aws-marketplace" own none here. */
static bool owner_asked(const struct ec2_call *call, const struct wire_string_list *owners,
			const struct records_snapshot *s)
{
	return owners->count == 0 || list_has(owners, s->account_id) ||
	       (list_has(owners, "self") && str_eq(s->account_id, call->account_id));
}

/* RestorableByUserIds: "all" for public ones, "self" for those that are the caller's or shared with
 * it by name, an account for those of the caller's that it shares with that one. */
static bool restorable_asked(const struct ec2_call *call, const struct wire_string_list *users,
			     const struct records_snapshot *s)
{
	const bool own = str_eq(s->account_id, call->account_id);
	const struct wire_string_list *shared = &s->create_volume_user_ids;

	for (size_t i = 0; i < users->count; i++) {
		const char *user = users->items[i];
		const bool self = str_eq(user, "self") || str_eq(user, call->account_id);

		if ((str_eq(user, "all") && s->public.value) ||
		    (self && (own || list_has(shared, call->account_id))) ||
		    (own && list_has(shared, user)))
			return true;
	}
	return users->count == 0;
}

/* The named ones, of whoever they are; all or none. */
static int list_named(struct ec2_call *call, const struct wire_string_list *ids,
		      struct record_list *ret)
{
	ret->items = arena_new_array(call->arena, struct record, ids->count);
	ret->count = 0;
	if (ids->count > LIMIT_IDS_PER_REQUEST)
		return ec2_error(call, "InvalidParameterValue",
				 "A request takes at most %d snapshot ids", LIMIT_IDS_PER_REQUEST);
	for (size_t i = 0; i < ids->count; i++) {
		struct record *r = &ret->items[ret->count];
		struct records_snapshot *s;
		bool again = false;
		int n = ec2_snapshot_get(call, ids->items[i], false, &s);

		if (n < 0)
			return n;
		for (size_t j = 0; j < ret->count; j++)
			again |= str_eq(ret->items[j].id, s->snapshot_id);
		if (again)
			continue;
		*r = (struct record){
		    .id = s->snapshot_id, .account = s->account_id, .seq = 1, .value = s};
		ret->count++;
	}
	return 0;
}

/* Who asks for its own need not read everybody's. */
static int list_all(struct ec2_call *call, const struct wire_string_list *owners,
		    struct record_list *ret)
{
	bool own = owners->count == 1 && (str_eq(owners->items[0], "self") ||
					  str_eq(owners->items[0], call->account_id));

	return record_scan(call->clc, call->arena, KIND_SNAPSHOT, own ? call->account_id : NULL,
			   ret, &call->error);
}

/* Tags are the owner's own. Of many they are read at once. */
static int read_tags(struct ec2_call *call, const struct tag_index *index,
		     const struct records_snapshot *s, struct ec2_tag_list *ret)
{
	struct shared_tag_list tags;

	*ret = (struct ec2_tag_list){0};
	if (!str_eq(s->account_id, call->account_id))
		return 0;
	if (index) {
		*ret = tag_index_find(index, s->snapshot_id);
		return 0;
	}
	int r = tags_get(call->clc, call->arena, s->snapshot_id, &tags, &call->error);
	if (r >= 0)
		*ret = tags_to_reply(call->arena, &tags);
	return r;
}

static int select_items(struct ec2_call *call, const struct ec2_describe_snapshots_request *in,
			struct record_list *l, const struct tag_index *index,
			const struct filter_set *f, struct page *page,
			struct ec2_snapshot_list *out)
{
	out->set = true;
	out->items = arena_new_array(call->arena, struct ec2_snapshot, l->count);
	for (size_t n = 0; n < l->count && !page->more; n++) {
		struct ec2_tag_list tags;

		if (l->items[n].seq <= page->after_seq)
			continue;
		int r = record_decode(call->arena, KIND_SNAPSHOT, &l->items[n], &call->error);
		if (r < 0)
			return r;
		const struct records_snapshot *s = l->items[n].value;
		if (!snapshot_visible(s, call->account_id) || !owner_asked(call, &in->owner_ids, s) ||
		    !restorable_asked(call, &in->restorable_by_user_ids, s))
			continue;
		r = read_tags(call, index, s, &tags);
		if (r < 0)
			return r;
		out->items[out->count] = snapshot_to_reply(call, s, tags);
		if (filter_set_match(f, &out->items[out->count], NULL) &&
		    page_take(page, l->items[n].seq))
			out->count++;
	}
	return 0;
}

int ec2_describe_snapshots(struct ec2_call *call, const struct ec2_describe_snapshots_request *in,
			   struct ec2_describe_snapshots_result *out)
{
	const bool named = in->snapshot_ids.count > 0;
	struct tag_index *index = NULL;
	struct filter_set *filters;
	struct record_list l;
	struct page page;
	int r = filter_set_new(call, &table, &in->filters, &filters);

	if (r >= 0)
		r = ec2_page_clamped(call, &in->max_results, in->next_token, named, PAGE_MIN,
				     PAGE_MAX, &page);
	if (r >= 0)
		r = named ? list_named(call, &in->snapshot_ids, &l)
			  : list_all(call, &in->owner_ids, &l);
	if (r >= 0 && !named)
		r = tag_index_load(call, &index);
	if (r >= 0)
		r = select_items(call, in, &l, index, filters, &page, &out->snapshots);
	if (r >= 0)
		out->next_token = page_token(call->arena, &page);
	return r;
}
