/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/clc_priv.h"
#include "svc/clc/filters.h"
#include "svc/clc/images.h"
#include "svc/clc/volumes.h"

/* Tags of one resource are one record under the resource's id: they go with it, and one read gives
 * them all. */

static size_t utf8_chars(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += (*s & 0xc0) != 0x80;
	return n;
}

static int check_key(struct ec2_call *call, const char *key)
{
	if (!key || !*key)
		return ec2_error(call, "InvalidParameterValue", "Tag key cannot be empty.");
	if (utf8_chars(key) > LIMIT_TAG_KEY_CHARS)
		return ec2_error(call, "InvalidParameterValue",
				 "Tag key exceeds the maximum length of %d characters",
				 LIMIT_TAG_KEY_CHARS);
	if (strncasecmp(key, "aws:", 4) == 0)
		return ec2_error(call, "InvalidParameterValue",
				 "Tag keys starting with 'aws:' are reserved for internal use");
	return 0;
}

static int check_tag(struct ec2_call *call, const struct ec2_tag *tag)
{
	int r = check_key(call, tag->key);

	if (r == 0 && tag->value && utf8_chars(tag->value) > LIMIT_TAG_VALUE_CHARS)
		return ec2_error(call, "InvalidParameterValue",
				 "Tag value exceeds the maximum length of %d characters",
				 LIMIT_TAG_VALUE_CHARS);
	return r;
}

static struct shared_tag *find_tag(const struct shared_tag_list *tags, const char *key)
{
	for (size_t i = 0; i < tags->count; i++)
		if (strcmp(tags->items[i].key, key) == 0)
			return &tags->items[i];
	return NULL;
}

static int check_new_tags(struct ec2_call *call, const struct ec2_tag_list *tags)
{
	if (tags->count > LIMIT_TAGS_PER_RESOURCE)
		return ec2_error(call, "TagLimitExceeded", "A resource has at most %d tags",
				 LIMIT_TAGS_PER_RESOURCE);
	for (size_t i = 0; i < tags->count; i++) {
		int r = check_tag(call, &tags->items[i]);

		if (r < 0)
			return r;
		for (size_t j = 0; j < i; j++)
			if (strcmp(tags->items[i].key, tags->items[j].key) == 0)
				return ec2_error(call, "InvalidParameterValue",
						 "Duplicate tag key '%.127s' specified.",
						 tags->items[i].key);
	}
	return 0;
}

static bool allowed_type(const char *const *allowed, const char *type)
{
	for (; *allowed; allowed++)
		if (str_eq(*allowed, type))
			return true;
	return false;
}

int ec2_tags_from_specs(struct ec2_call *call, const struct ec2_tag_specification_list *specs,
			const char *const *allowed, const char *resource_type,
			struct shared_tag_list *ret)
{
	struct shared_tag_list out = {0};

	for (size_t i = 0; i < specs->count; i++) {
		const struct ec2_tag_specification *spec = &specs->items[i];
		int r;

		if (!spec->resource_type)
			return ec2_error(
			    call, "MissingParameter",
			    "The request must contain the parameter TagSpecification.%zu.ResourceType",
			    i + 1);
		if (!allowed_type(allowed, spec->resource_type))
			return ec2_error(
			    call, "InvalidParameterValue",
			    "'%.60s' is not a valid taggable resource type for this operation.",
			    spec->resource_type);
		for (size_t j = 0; j < i; j++)
			if (str_eq(spec->resource_type, specs->items[j].resource_type))
				return ec2_error(call, "InvalidParameterValue",
						 "Tag specification for '%.60s' is given twice",
						 spec->resource_type);
		r = check_new_tags(call, &spec->tags);
		if (r < 0)
			return r;
		if (!str_eq(spec->resource_type, resource_type))
			continue;
		out.set = true;
		out.count = spec->tags.count;
		out.items = arena_new_array(call->arena, struct shared_tag, out.count);
		for (size_t j = 0; j < out.count; j++)
			out.items[j] = (struct shared_tag){
			    .key = spec->tags.items[j].key,
			    .value = spec->tags.items[j].value ? spec->tags.items[j].value : ""};
	}
	*ret = out;
	return 0;
}

int tags_put(struct ec2_call *call, const char *resource_type, const char *id,
	     const struct shared_tag_list *tags)
{
	const struct records_resource_tags rec = {
	    .resource_id = id,
	    .resource_type = resource_type,
	    .tags = {.set = true, .count = tags->count, .items = tags->items},
	};

	if (tags->count == 0)
		return tags_drop(call->clc, id, &call->error);
	return record_put(call->clc, KIND_TAGS, call->account_id, id, NULL, &rec, &call->error);
}

int tags_drop(struct clc *c, const char *id, struct error *e)
{
	int r = record_delete(c, KIND_TAGS, id, e);

	return r == -ENOENT ? 0 : r;
}

int tags_get(struct clc *c, struct arena *a, const char *id, struct shared_tag_list *ret,
	     struct error *e)
{
	struct record rec;
	int r = record_get(c, a, KIND_TAGS, id, &rec, e);

	*ret = (struct shared_tag_list){0};
	if (r == 0)
		*ret = ((const struct records_resource_tags *)rec.value)->tags;
	return r == -ENOENT ? 0 : r;
}

struct ec2_tag_list tags_to_reply(struct arena *a, const struct shared_tag_list *tags)
{
	struct ec2_tag_list out = {.set = tags->count > 0, .count = tags->count};

	out.items = arena_new_array(a, struct ec2_tag, tags->count);
	for (size_t i = 0; i < tags->count; i++)
		out.items[i] =
		    (struct ec2_tag){.key = tags->items[i].key, .value = tags->items[i].value};
	return out;
}

/* ---- all tags of an account ---- */

struct tag_index {
	struct arena *arena;
	size_t count;
	const struct records_resource_tags **items; /* sorted by resource id */
};

static int compare_resource(const void *x, const void *y)
{
	const struct records_resource_tags *const *a = x, *const *b = y;

	return strcmp((*a)->resource_id, (*b)->resource_id);
}

int tag_index_load(struct ec2_call *call, struct tag_index **ret)
{
	struct tag_index *t = arena_new_struct(call->arena, struct tag_index);
	struct record_list all;
	int r = ec2_list(call, KIND_TAGS, &all);

	if (r < 0)
		return r;
	t->arena = call->arena;
	t->count = all.count;
	t->items = arena_new_array(call->arena, const struct records_resource_tags *, all.count);
	for (size_t i = 0; i < all.count; i++)
		t->items[i] = all.items[i].value;
	if (t->count)
		qsort(t->items, t->count, sizeof(t->items[0]), compare_resource);
	*ret = t;
	return 0;
}

struct ec2_tag_list tag_index_find(const struct tag_index *t, const char *id)
{
	const struct records_resource_tags key = {.resource_id = id}, *const want = &key;
	const struct records_resource_tags **hit = NULL;

	if (t->count)
		hit = bsearch(&want, t->items, t->count, sizeof(t->items[0]), compare_resource);
	return hit ? tags_to_reply(t->arena, &(*hit)->tags) : (struct ec2_tag_list){0};
}

/* ---- CreateTags, DeleteTags ---- */

/* What the caller can tag: its own; an image only until it is deregistered, a snapshot until it is
 * deleted. */
static bool taggable_by(const char *account_id, enum clc_kind kind, const struct record *rec)
{
	if (kind == KIND_SNAPSHOT && !snapshot_visible(rec->value, account_id))
		return false;
	return str_eq(rec->account, account_id) &&
	       (kind != KIND_IMAGE || image_visible(rec->value, account_id));
}

/* The resource must be the caller's own and of a kind that has tags. */
static int check_resource(struct ec2_call *call, const char *id, enum clc_kind *ret_kind)
{
	const enum clc_kind kind = clc_kind_of_id(id);
	struct record rec;
	int r;

	if (kind == KIND_COUNT || !clc_kinds[kind].resource_type)
		return ec2_error(call, "InvalidID", "The ID '%.100s' is not valid", id);
	r = ec2_check_id(call, kind, id);
	if (r < 0)
		return r;
	r = record_get(call->clc, call->arena, kind, id, &rec, &call->error);
	if (r == -ENOENT || (r == 0 && !taggable_by(call->account_id, kind, &rec)))
		return ec2_error(call, clc_kinds[kind].not_found_code, "The %s '%s' does not exist",
				 clc_kinds[kind].noun, id);
	*ret_kind = kind;
	return r;
}

static int check_resources(struct ec2_call *call, const struct wire_string_list *ids)
{
	if (ids->count == 0)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter resourceIdSet");
	if (ids->count > LIMIT_TAGGED_PER_REQUEST)
		return ec2_error(call, "InvalidParameterValue",
				 "A request takes at most %d resources", LIMIT_TAGGED_PER_REQUEST);
	return 0;
}

static int store_changed(struct ec2_call *call, enum clc_kind kind, const char *id,
			 const struct shared_tag_list *tags)
{
	int r = tags_put(call, clc_kinds[kind].resource_type, id, tags);

	if (r == 0 && kind == KIND_INSTANCE)
		r = instance_touch_tags(call, id);
	return r;
}

static int add_tags(struct ec2_call *call, const char *id, const struct ec2_tag_list *add)
{
	struct shared_tag_list old, all;
	enum clc_kind kind;
	int r = check_resource(call, id, &kind);

	if (r == 0)
		r = tags_get(call->clc, call->arena, id, &old, &call->error);
	if (r < 0)
		return r;
	all = (struct shared_tag_list){.set = true, .count = old.count};
	all.items = arena_new_array(call->arena, struct shared_tag, old.count + add->count);
	if (old.count)
		memcpy(all.items, old.items, old.count * sizeof(old.items[0]));
	for (size_t i = 0; i < add->count; i++) {
		struct shared_tag *t = find_tag(&all, add->items[i].key);

		if (!t)
			t = &all.items[all.count++];
		*t = (struct shared_tag){.key = add->items[i].key,
					 .value = add->items[i].value ? add->items[i].value : ""};
	}
	if (all.count > LIMIT_TAGS_PER_RESOURCE)
		return ec2_error(call, "TagLimitExceeded",
				 "The resource '%s' would have more than %d tags", id,
				 LIMIT_TAGS_PER_RESOURCE);
	return store_changed(call, kind, id, &all);
}

int ec2_create_tags(struct ec2_call *call, const struct ec2_create_tags_request *in)
{
	int r = check_resources(call, &in->resources);

	if (r == 0 && in->tags.count == 0)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter tagSet");
	if (r == 0)
		r = check_new_tags(call, &in->tags);
	if (r == 0)
		r = ec2_begin(call);
	for (size_t i = 0; r == 0 && i < in->resources.count; i++)
		r = add_tags(call, in->resources.items[i], &in->tags);
	return r < 0 ? r : ec2_commit(call);
}

/* Without a value a tag goes whatever its value; with one (the empty one too) only if that is its
 * value. */
static bool is_deleted(const struct shared_tag *tag, const struct ec2_tag_list *tags)
{
	for (size_t i = 0; i < tags->count; i++)
		if (str_eq(tag->key, tags->items[i].key) &&
		    (!tags->items[i].value || str_eq(tag->value, tags->items[i].value)))
			return true;
	return tags->count == 0;
}

static int remove_tags(struct ec2_call *call, const char *id, const struct ec2_tag_list *tags)
{
	struct shared_tag_list old, left = {.set = true};
	enum clc_kind kind;
	int r = check_resource(call, id, &kind);

	if (r == 0)
		r = tags_get(call->clc, call->arena, id, &old, &call->error);
	if (r < 0)
		return r;
	left.items = arena_new_array(call->arena, struct shared_tag, old.count);
	for (size_t i = 0; i < old.count; i++)
		if (!is_deleted(&old.items[i], tags))
			left.items[left.count++] = old.items[i];
	return left.count == old.count ? 0 : store_changed(call, kind, id, &left);
}

int ec2_delete_tags(struct ec2_call *call, const struct ec2_delete_tags_request *in)
{
	int r = check_resources(call, &in->resources);

	for (size_t i = 0; r == 0 && i < in->tags.count; i++)
		r = check_key(call, in->tags.items[i].key);
	if (r == 0)
		r = ec2_begin(call);
	for (size_t i = 0; r == 0 && i < in->resources.count; i++)
		r = remove_tags(call, in->resources.items[i], &in->tags);
	return r < 0 ? r : ec2_commit(call);
}

/* ---- DescribeTags ---- */

static const struct filter_field tag_fields[] = {
    {.name = "key", .path = "Key"},
    {.name = "resource-id", .path = "ResourceId"},
    {.name = "resource-type", .path = "ResourceType"},
    {.name = "value", .path = "Value"},
};
static const struct filter_table tag_filters = {
    .item = &ec2_shape_tag_description,
    .fields = tag_fields,
    .count = ARRAY_SIZE(tag_fields),
};

/* A filter value that matches only `s` itself. */
static const char *quote_wildcards(struct arena *a, const char *s)
{
	char *out = arena_alloc(a, 2 * strlen(s) + 1), *p = out;

	for (; *s; s++) {
		if (strchr("*?\\", *s))
			*p++ = '\\';
		*p++ = *s;
	}
	return out;
}

/* Here an item is a tag: tag:KEY with values means that key and one of those values. */
static struct ec2_filter_list spell_out_tag_filters(struct arena *a,
						    const struct ec2_filter_list *in)
{
	struct ec2_filter_list out = {.set = in->set};

	out.items = arena_new_array(a, struct ec2_filter, 2 * in->count);
	for (size_t i = 0; i < in->count; i++) {
		const struct ec2_filter *f = &in->items[i];

		if (f->name && str_prefix(f->name, "tag:") && f->name[4]) {
			const char **key = arena_new_array(a, const char *, 1);

			key[0] = quote_wildcards(a, f->name + 4);
			out.items[out.count++] = (struct ec2_filter){
			    .name = "key", .values = {.set = true, .count = 1, .items = key}};
			out.items[out.count++] =
			    (struct ec2_filter){.name = "value", .values = f->values};
		} else {
			out.items[out.count++] = *f;
		}
	}
	return out;
}

int ec2_describe_tags(struct ec2_call *call, const struct ec2_describe_tags_request *in,
		      struct ec2_describe_tags_result *out)
{
	const struct ec2_filter_list spelt = spell_out_tag_filters(call->arena, &in->filters);
	struct filter_set *filters;
	struct record_list all;
	struct page page;
	size_t count = 0;
	int r = filter_set_new(call, &tag_filters, &spelt, &filters);

	if (r == 0)
		r = ec2_page(call, &in->max_results, in->next_token, false, 5, 1000, &page);
	if (r == 0)
		r = ec2_list(call, KIND_TAGS, &all);
	if (r < 0)
		return r;
	for (size_t i = 0; i < all.count; i++)
		count += ((const struct records_resource_tags *)all.items[i].value)->tags.count;
	out->tags.set = true;
	out->tags.items = arena_new_array(call->arena, struct ec2_tag_description, count);
	for (size_t i = 0; i < all.count; i++) {
		const struct records_resource_tags *rec = all.items[i].value;

		for (size_t j = 0; j < rec->tags.count; j++) {
			const struct ec2_tag_description item = {
			    .key = rec->tags.items[j].key,
			    .value = rec->tags.items[j].value,
			    .resource_id = rec->resource_id,
			    .resource_type = rec->resource_type,
			};

			if (filter_set_match(filters, &item, NULL) &&
			    page_take(&page, all.items[i].seq * (LIMIT_TAGS_PER_RESOURCE + 1) +
						 (int64_t)j))
				out->tags.items[out->tags.count++] = item;
		}
	}
	out->next_token = page_token(call->arena, &page);
	return 0;
}
