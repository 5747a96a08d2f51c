/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/clc/filters.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"

enum { PATH_STEPS_MAX = 6 };

/* A path of member names, resolved against the shape tables once a request. */
struct filter_path {
	size_t count;
	const struct wire_member *steps[PATH_STEPS_MAX];
};

enum filter_what { FILTER_FIELD, FILTER_TAG, FILTER_TAG_KEY, FILTER_TAG_VALUE };

struct filter {
	enum filter_what what;
	const struct filter_field *field; /* FILTER_FIELD */
	struct filter_path path;	  /* of the field, or of the tag list */
	const char *tag_key;		  /* FILTER_TAG */
	struct wire_string_list values;
};

struct filter_set {
	struct arena *arena;
	const struct filter_table *table;
	size_t count;
	struct filter *filters;
};

/* One filter being tried on one item: values are compared as they are found, nothing is collected.
 */
struct filter_values {
	const struct wire_string_list *wanted;
	bool matched;
};

void filter_values_add(struct filter_values *v, const char *value)
{
	if (!value)
		return;
	for (size_t i = 0; !v->matched && i < v->wanted->count; i++)
		v->matched = str_wildcard(v->wanted->items[i], value);
}

static const struct wire_member *find_member(const struct wire_shape *s, const char *name,
					     size_t len)
{
	for (size_t i = 0; i < s->member_count; i++)
		if (strlen(s->members[i].name) == len && memcmp(s->members[i].name, name, len) == 0)
			return &s->members[i];
	return NULL;
}

/* Tables are ours: a path that leads nowhere is our mistake, and every table is resolved by a test.
 */
static struct filter_path resolve(const struct wire_shape *shape, const char *path)
{
	struct filter_path p = {0};

	for (const char *s = path; *s;) {
		const size_t len = strcspn(s, ".");

		while (shape->type == WIRE_LIST)
			shape = shape->item;
		assert(shape->type == WIRE_STRUCT && p.count < PATH_STEPS_MAX);
		const struct wire_member *m = find_member(shape, s, len);

		assert(m);
		p.steps[p.count++] = m;
		shape = m->shape;
		s += len;
		s += *s == '.';
	}
	assert(p.count > 0);
	return p;
}

static void add_scalar(const struct wire_shape *shape, const void *at, struct filter_values *out)
{
	char text[32];

	switch (shape->type) {
	case WIRE_STRING:
		filter_values_add(out, *(const char *const *)at);
		return;
	case WIRE_INT: {
		const struct wire_int *v = at;

		snprintf(text, sizeof(text), "%" PRId64, v->value);
		filter_values_add(out, v->set ? text : NULL);
		return;
	}
	case WIRE_BOOL: {
		const struct wire_bool *v = at;

		filter_values_add(out, !v->set ? NULL : v->value ? "true" : "false");
		return;
	}
	case WIRE_TIME: {
		const struct wire_time *v = at;

		if (!v->set)
			return;
		clock_format_iso(v->value, text);
		filter_values_add(out, text);
		return;
	}
	case WIRE_DOUBLE: {
		const struct wire_double *v = at;

		snprintf(text, sizeof(text), "%g", v->value);
		filter_values_add(out, v->set ? text : NULL);
		return;
	}
	default: /* no filter asks for a blob, a map or a whole structure */
		return;
	}
}

/* Called with each list item or member that a path leads to. */
typedef void (*visit_fn)(const struct wire_shape *shape, const void *at, void *ctx);

static void visit_path(const struct filter_path *p, size_t step, const void *base, visit_fn fn,
		       void *ctx);

/* `at` is a structure's first byte, here. */
static void visit_value(const struct filter_path *p, size_t next, const struct wire_shape *shape,
			const void *at, visit_fn fn, void *ctx)
{
	if (next == p->count)
		fn(shape, at, ctx);
	else
		visit_path(p, next, at, fn, ctx);
}

static void visit_list(const struct filter_path *p, size_t next, const struct wire_shape *item,
		       const struct wire_list *list, visit_fn fn, void *ctx)
{
	for (size_t i = 0; i < list->count; i++) {
		struct wire_int number;

		if (item->type == WIRE_INT) { /* bare numbers in a list */
			number = WIRE_INT_OF(((const int64_t *)list->items)[i]);
			visit_value(p, next, item, &number, fn, ctx);
		} else {
			visit_value(p, next, item, (const char *)list->items + i * item->size, fn,
				    ctx);
		}
	}
}

static void visit_path(const struct filter_path *p, size_t step, const void *base, visit_fn fn,
		       void *ctx)
{
	const struct wire_member *m = p->steps[step];
	const void *at = (const char *)base + m->offset;

	if (m->shape->type == WIRE_STRUCT) {
		const void *const *ptr = at;

		if (*ptr)
			visit_value(p, step + 1, m->shape, *ptr, fn, ctx);
	} else if (m->shape->type == WIRE_LIST) {
		visit_list(p, step + 1, m->shape->item, at, fn, ctx);
	} else {
		visit_value(p, step + 1, m->shape, at, fn, ctx);
	}
}

static void visit_field(const struct wire_shape *shape, const void *at, void *ctx)
{
	add_scalar(shape, at, ctx);
}

struct tag_visit {
	const struct filter *filter;
	struct filter_values *out;
};

static void visit_tag(const struct wire_shape *shape, const void *at, void *ctx)
{
	struct tag_visit *v = ctx;
	const struct ec2_tag *tag = at;

	if (v->filter->what == FILTER_TAG_KEY)
		filter_values_add(v->out, tag->key);
	else if (v->filter->what == FILTER_TAG_VALUE || str_eq(tag->key, v->filter->tag_key))
		filter_values_add(v->out, tag->value);
}

static bool match_one(const struct filter_set *s, const struct filter *f, const void *item,
		      const void *parent)
{
	struct filter_values found = {.wanted = &f->values};

	if (f->what != FILTER_FIELD)
		visit_path(&f->path, 0, item, visit_tag, &(struct tag_visit){f, &found});
	else if (f->field->get)
		f->field->get(s->arena, item, parent, &found);
	else
		visit_path(&f->path, 0, f->field->of_parent ? parent : item, visit_field, &found);
	return found.matched;
}

bool filter_set_match(const struct filter_set *s, const void *item, const void *parent)
{
	for (size_t i = 0; i < s->count; i++)
		if (!match_one(s, &s->filters[i], item, parent))
			return false;
	return true;
}

static const struct filter_field *find_field(const struct filter_table *t, const char *name)
{
	for (size_t i = 0; i < t->count; i++)
		if (strcmp(t->fields[i].name, name) == 0)
			return &t->fields[i];
	return NULL;
}

static int set_field(struct ec2_call *call, const struct filter_table *t, const char *name,
		     struct filter *f)
{
	const struct wire_shape *shape;

	if (t->tags && str_prefix(name, "tag:") && name[4]) {
		f->what = FILTER_TAG;
		f->tag_key = name + 4;
	} else if (t->tags && strcmp(name, "tag-key") == 0) {
		f->what = FILTER_TAG_KEY;
	} else if (t->tags && strcmp(name, "tag-value") == 0) {
		f->what = FILTER_TAG_VALUE;
	} else {
		f->field = find_field(t, name);
		if (!f->field)
			return ec2_error(call, "InvalidParameterValue",
					 "The filter '%.100s' is invalid", name);
		shape = f->field->of_parent ? t->parent : t->item;
		if (!f->field->get)
			f->path = resolve(shape, f->field->path);
		return 0;
	}
	f->path = resolve(t->item, t->tags);
	return 0;
}

int filter_set_new(struct ec2_call *call, const struct filter_table *t,
		   const struct ec2_filter_list *filters, struct filter_set **ret)
{
	struct filter_set *s = arena_new_struct(call->arena, struct filter_set);

	if (filters->count > LIMIT_FILTERS_PER_REQUEST)
		return ec2_error(call, "FilterLimitExceeded", "A request takes at most %d filters",
				 LIMIT_FILTERS_PER_REQUEST);
	s->arena = call->arena;
	s->table = t;
	s->filters = arena_new_array(call->arena, struct filter, filters->count);
	for (size_t i = 0; i < filters->count; i++) {
		const struct ec2_filter *in = &filters->items[i];
		int r;

		if (!in->name || !*in->name)
			return ec2_error(call, "MissingParameter",
					 "The request must contain the parameter Filter.%zu.Name",
					 i + 1);
		r = set_field(call, t, in->name, &s->filters[i]);
		if (r < 0)
			return r;
		if (in->values.count == 0)
			return ec2_error(call, "InvalidParameterValue",
					 "The filter '%.100s' needs at least one value", in->name);
		if (in->values.count > LIMIT_VALUES_PER_FILTER)
			return ec2_error(call, "FilterLimitExceeded",
					 "The filter '%.100s' takes at most %d values", in->name,
					 LIMIT_VALUES_PER_FILTER);
		s->filters[i].values = in->values;
		s->count++;
	}
	*ret = s;
	return 0;
}
