/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The overlays' rules: what holds between the members of one input and what values they may have,
 * beyond what the models say.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/id.h"
#include "base/text.h"
#include "wire/codec.h"
#include "wire/value_priv.h"

struct check {
	const struct wire_service *service;
	const struct wire_rule *rule;
	struct error *e;
};

typedef int (*visit_fn)(struct check *c, const char *name, const struct wire_shape *shape,
			const struct wire_scalar *v);

/* The wire name of a dotted member path: Filters.Name -> Filter.Name. */
static void wire_name(const struct wire_shape *shape, const char *path, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	while (path && shape && used < size) {
		size_t len = strcspn(path, ".");
		const struct wire_member *m = NULL;

		if (shape->type == WIRE_LIST)
			shape = shape->item;
		for (size_t i = 0; i < shape->member_count && !m; i++)
			if (strlen(shape->members[i].name) == len &&
			    strncmp(shape->members[i].name, path, len) == 0)
				m = &shape->members[i];
		if (!m)
			return;
		used += (size_t)snprintf(out + used, size - used, "%s%s", used ? "." : "", m->in);
		shape = m->shape;
		path = path[len] ? path + len + 1 : NULL;
	}
}

static const struct wire_member *member_named(const struct wire_shape *shape, const char *name,
					      size_t len)
{
	for (size_t i = 0; i < shape->member_count; i++)
		if (strlen(shape->members[i].name) == len &&
		    strncmp(shape->members[i].name, name, len) == 0)
			return &shape->members[i];
	return NULL;
}

static int visit(struct check *c, const struct wire_shape *shape, const void *value,
		 const char *path, const char *name, visit_fn fn, size_t *found);

static int visit_items(struct check *c, const struct wire_shape *shape, const struct wire_list *l,
		       const char *path, const char *name, visit_fn fn, size_t *found)
{
	int r = 0;

	if (!path)
		(*found)++;
	for (size_t i = 0; i < l->count && r >= 0; i++) {
		struct wire_scalar v;

		if (path && shape->item->type == WIRE_STRUCT) {
			r = visit(c, shape->item, list_item(l, shape, i), path, name, fn, found);
		} else if (!path && fn && shape->item->type != WIRE_STRUCT) {
			scalar_load(shape->item, true, list_item(l, shape, i), &v);
			r = fn(c, name, shape->item, &v);
		}
	}
	return r;
}

/* Every value that a dotted path leads to; through lists, each item's. *found counts the members
 * that are present; fn may be NULL. */
static int visit(struct check *c, const struct wire_shape *shape, const void *value,
		 const char *path, const char *name, visit_fn fn, size_t *found)
{
	size_t len = strcspn(path, ".");
	const struct wire_member *m = member_named(shape, path, len);
	const char *rest = path[len] ? path + len + 1 : NULL;
	struct wire_scalar v;

	if (!m || !member_present(value, m))
		return 0;
	switch (m->shape->type) {
	case WIRE_LIST:
		return visit_items(c, m->shape, member_of(value, m), rest, name, fn, found);
	case WIRE_STRUCT:
		if (rest)
			return visit(c, m->shape, *(const void *const *)member_of(value, m), rest,
				     name, fn, found);
		(*found)++;
		return 0;
	case WIRE_MAP:
		(*found)++;
		return 0;
	default:
		(*found)++;
		if (!fn)
			return 0;
		scalar_load(m->shape, false, member_of(value, m), &v);
		return fn(c, name, m->shape, &v);
	}
}

static const char *code_of(const struct check *c, const char *query, const char *rest)
{
	if (c->rule->code)
		return c->rule->code;
	return c->service->protocol == WIRE_REST_XML ? rest : query;
}

static int check_range(struct check *c, const char *name, const struct wire_shape *shape,
		       const struct wire_scalar *v)
{
	int64_t n = shape->type == WIRE_STRING ? (int64_t)strlen(v->string) : v->number;

	if (n >= c->rule->min && n <= c->rule->max)
		return 0;
	error_set(c->e, code_of(c, "InvalidParameterValue", "InvalidArgument"),
		  "Value (%" PRId64 ") for parameter %s is invalid: it must be %" PRId64
		  " to %" PRId64 ".",
		  n, name, c->rule->min, c->rule->max);
	return -EINVAL;
}

static int check_id(struct check *c, const char *name, const struct wire_shape *shape,
		    const struct wire_scalar *v)
{
	if (shape->type != WIRE_STRING || id_valid(c->rule->text, v->string))
		return 0;
	error_set(c->e, code_of(c, "InvalidParameterValue", "InvalidArgument"),
		  "Invalid id: \"%.100s\" (expecting \"%s-...\")", v->string, c->rule->text);
	return -EINVAL;
}

static int check_value(struct check *c, const char *name, const struct wire_shape *shape,
		       const struct wire_scalar *v)
{
	char served[160] = "";
	size_t used = 0;

	if (shape->type != WIRE_STRING)
		return 0;
	for (const char *const *s = c->rule->values; *s; s++) {
		if (str_eq(*s, v->string))
			return 0;
		if (used < sizeof(served))
			used += (size_t)snprintf(served + used, sizeof(served) - used, "%s%s",
						 used ? ", " : "", *s);
	}
	error_set(c->e, code_of(c, "InvalidParameterValue", "InvalidArgument"),
		  "Value (%.100s) for parameter %s is invalid: this cloud accepts %s.", v->string,
		  name, served);
	return -EINVAL;
}

static int check_each(struct check *c, const struct wire_shape *input, const void *in, visit_fn fn)
{
	char name[128];
	size_t found = 0;
	int r = 0;

	for (const char *const *m = c->rule->members; *m && r >= 0; m++) {
		wire_name(input, *m, name, sizeof(name));
		r = visit(c, input, in, *m, name, fn, &found);
	}
	return r;
}

/* The members of a rule as "A, B or C". */
static void list_names(const struct check *c, const struct wire_shape *input, const char *word,
		       char *out, size_t size)
{
	size_t used = 0;
	char name[128];

	out[0] = '\0';
	for (const char *const *m = c->rule->members; *m && used < size; m++) {
		wire_name(input, *m, name, sizeof(name));
		used += (size_t)snprintf(out + used, size - used, "%s%s",
					 m == c->rule->members ? ""
					 : m[1]		       ? ", "
							       : word,
					 name);
	}
}

static int check_count(struct check *c, const struct wire_shape *input, const void *in)
{
	size_t given = 0;
	char names[256];

	for (const char *const *m = c->rule->members; *m; m++) {
		size_t found = 0;

		visit(c, input, in, *m, NULL, NULL, &found);
		given += found > 0;
	}
	if (given == 0 && c->rule->kind == WIRE_ONE_OF) {
		list_names(c, input, " or ", names, sizeof(names));
		error_set(c->e, code_of(c, "MissingParameter", "InvalidRequest"),
			  "The request must contain the parameter %s", names);
		return -EINVAL;
	}
	if (given > 1) {
		list_names(c, input, " and ", names, sizeof(names));
		error_set(c->e, code_of(c, "InvalidParameterCombination", "InvalidRequest"),
			  "The parameters %s cannot be used together.", names);
		return -EINVAL;
	}
	return 0;
}

int wire_validate(const struct wire_service *s, const struct wire_action *act, const void *in,
		  struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < act->rule_count && r >= 0; i++) {
		struct check c = {.service = s, .rule = &act->rules[i], .e = e};

		switch (c.rule->kind) {
		case WIRE_ONE_OF:
		case WIRE_AT_MOST_ONE:
			r = check_count(&c, act->input, in);
			break;
		case WIRE_RANGE:
			r = check_each(&c, act->input, in, check_range);
			break;
		case WIRE_PATTERN_ID:
			r = check_each(&c, act->input, in, check_id);
			break;
		case WIRE_VALUES:
			r = check_each(&c, act->input, in, check_value);
			break;
		}
	}
	return r;
}
