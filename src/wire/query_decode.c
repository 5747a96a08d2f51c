/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Query requests into structs. A key is a path: NetworkInterface.1.SubnetId is the member SubnetId
 * of the first item of the list NetworkInterface. The keys are sorted once, '.' before everything
 * else, so that all keys below one name are neighbours; each structure and list then takes its
 * run of neighbours apart by their next segment. Case matters, as it does to EC2.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "wire/codec.h"
#include "wire/value_priv.h"

#define INDEX_MAX 1000

/* A run of neighbouring keys that agree in their first `off` characters. */
struct run {
	const struct wire_pair *pairs;
	size_t count;
	size_t off;
};

struct decoder {
	struct arena *arena;
	struct error *e;
	const char *invalid, *missing; /* the service's codes */
};

static int decode_struct(struct decoder *d, const struct wire_shape *shape, struct run run,
			 int depth, void *dst);

static int compare_keys(const void *x, const void *y)
{
	const unsigned char *a = (const void *)((const struct wire_pair *)x)->key;
	const unsigned char *b = (const void *)((const struct wire_pair *)y)->key;

	while (*a && *a == *b)
		a++, b++;
	if (*a == *b)
		return 0;
	if (!*a || !*b)
		return *a ? 1 : -1;
	if (*a == '.' || *b == '.')
		return *a == '.' ? -1 : 1;
	return *a < *b ? -1 : 1;
}

static const char *rest_of(const struct run *run, size_t i)
{
	return run->pairs[i].key + run->off;
}

/* The keys from i on that share the next segment; *ret_len is the segment's length. */
static struct run same_segment(const struct run *run, size_t i, size_t *ret_len)
{
	const char *segment = rest_of(run, i);
	size_t len = strcspn(segment, "."), n = 1;

	while (i + n < run->count && strncmp(rest_of(run, i + n), segment, len) == 0 &&
	       strcspn(rest_of(run, i + n), ".") == len)
		n++;
	*ret_len = len;
	return (struct run){.pairs = run->pairs + i, .count = n, .off = run->off + len};
}

/* Step over the '.' that follows a segment. False when the key ends here: it has a value of its
 * own. */
static bool step_inside(struct run *run)
{
	if (rest_of(run, 0)[0] != '.')
		return false;
	run->off++;
	return true;
}

static int bad_value(struct decoder *d, const struct run *run, const char *why)
{
	error_set(d->e, d->invalid, "Value (%.100s) for parameter %.150s is invalid: %s.",
		  run->pairs[0].value, run->pairs[0].key, why);
	return -EINVAL;
}

static int decode_scalar(struct decoder *d, const struct wire_shape *shape, struct run run,
			 bool item, void *dst)
{
	const char *text = run.pairs[0].value;
	struct wire_scalar v;
	char why[80];

	if (rest_of(&run, 0)[0] != '\0') {
		error_set(d->e, "UnknownParameter", "The parameter %.200s is not recognized",
			  run.pairs[0].key);
		return -EINVAL;
	}
	if (run.count > 1) {
		if (str_eq(run.pairs[1].key, run.pairs[0].key))
			return bad_value(d, &run, "the parameter is given twice");
		error_set(d->e, "UnknownParameter", "The parameter %.200s is not recognized",
			  run.pairs[1].key);
		return -EINVAL;
	}
	if (scalar_parse(d->arena, shape, text, strlen(text), &v) < 0) {
		snprintf(why, sizeof(why), "it must be %s", type_phrase(shape->type));
		return bad_value(d, &run, why);
	}
	if (scalar_check(shape, &v, why, sizeof(why)) < 0)
		return bad_value(d, &run, why);
	scalar_store(shape, item, dst, &v);
	return 0;
}

struct indexed_run {
	int64_t index;
	struct run run;
};

static int compare_indexes(const void *x, const void *y)
{
	int64_t a = ((const struct indexed_run *)x)->index,
		b = ((const struct indexed_run *)y)->index;

	return a < b ? -1 : a > b;
}

/* The items of a list, in the order of their indexes, which may have gaps. */
static int collect_items(struct decoder *d, struct run run, struct indexed_run *items,
			 size_t *ret_count)
{
	size_t count = 0, len;

	for (size_t i = 0; i < run.count;) {
		struct run item = same_segment(&run, i, &len);
		const char *digits = rest_of(&run, i);

		/* No leading zeros: 1 and 01 would be the same item twice. */
		if (len == 0 || len > 4 || digits[0] == '0' ||
		    parse_i64(arena_strndup(d->arena, digits, len), 1, INDEX_MAX,
			      &items[count].index) < 0) {
			error_set(d->e, d->invalid,
				  "The parameter %.200s is invalid: list indexes are 1 to %d.",
				  item.pairs[0].key, INDEX_MAX);
			return -EINVAL;
		}
		items[count++].run = item;
		i += item.count;
	}
	qsort(items, count, sizeof(*items), compare_indexes);
	*ret_count = count;
	return 0;
}

static int decode_items(struct decoder *d, const struct wire_shape *shape, struct run run,
			int depth, struct wire_list *dst)
{
	struct indexed_run *parts = arena_new_array(d->arena, struct indexed_run, run.count);
	size_t count = 0;
	char why[80];
	char *items;
	int r = collect_items(d, run, parts, &count);

	if (r < 0)
		return r;
	if (list_check(shape, count, why, sizeof(why)) < 0)
		return bad_value(d, &run, why);
	items = arena_calloc(d->arena, count, shape->item->size);
	for (size_t i = 0; i < count; i++) {
		void *item = items + i * shape->item->size;

		if (shape->item->type != WIRE_STRUCT)
			r = decode_scalar(d, shape->item, parts[i].run, true, item);
		else if (step_inside(&parts[i].run))
			r = decode_struct(d, shape->item, parts[i].run, depth + 1, item);
		else
			r = bad_value(d, &parts[i].run, "it is a structure and takes members");
		if (r < 0)
			return r;
	}
	*dst = (struct wire_list){.set = true, .count = count, .items = items};
	return 0;
}

static int decode_list(struct decoder *d, const struct wire_member *m, struct run run, int depth,
		       void *dst)
{
	static const char member[] = "member.";

	if (!step_inside(&run)) {
		/* AWS Query clients write an empty list as `Name=`. */
		if (run.count > 1 || run.pairs[0].value[0] != '\0')
			return bad_value(d, &run, "it is a list: its items are numbered from .1");
		*(struct wire_list *)dst = (struct wire_list){.set = true};
		return 0;
	}
	if (m->flags & WIRE_MEMBER_LIST) {
		for (size_t i = 0; i < run.count; i++)
			if (!str_prefix(rest_of(&run, i), member))
				return bad_value(d, &run,
						 "a list's items are numbered from .member.1");
		run.off += sizeof(member) - 1;
	}
	return decode_items(d, m->shape, run, depth, dst);
}

static int decode_member(struct decoder *d, const struct wire_member *m, struct run run, int depth,
			 void *base)
{
	void *dst = member_at(base, m), *child;
	int r;

	switch (m->shape->type) {
	case WIRE_LIST:
		return decode_list(d, m, run, depth, dst);
	case WIRE_STRUCT:
		if (!step_inside(&run))
			return bad_value(d, &run, "it is a structure and takes members");
		child = arena_alloc(d->arena, m->shape->size);
		r = decode_struct(d, m->shape, run, depth + 1, child);
		if (r >= 0)
			*(void **)dst = child;
		return r;
	case WIRE_MAP: /* no action that we serve has one: the generator sees to it */
		return bad_value(d, &run, "maps are not supported");
	default:
		return decode_scalar(d, m->shape, run, false, dst);
	}
}

static const struct wire_member *find_member(const struct wire_shape *shape, const char *name,
					     size_t len)
{
	for (size_t i = 0; shape && i < shape->member_count; i++)
		if (strlen(shape->members[i].in) == len &&
		    strncmp(shape->members[i].in, name, len) == 0)
			return &shape->members[i];
	return NULL;
}

/* prefix is what leads to the structure, "NetworkInterface.1.", or nothing. */
static int check_required(struct decoder *d, const struct wire_shape *shape, const char *prefix,
			  size_t prefix_len, const void *base)
{
	for (size_t i = 0; i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];

		if (!(m->flags & WIRE_REQUIRED) || (m->flags & (WIRE_NO_FIELD | WIRE_UNSERVED)))
			continue;
		if (member_present(base, m) &&
		    (m->shape->type != WIRE_LIST ||
		     ((const struct wire_list *)member_of(base, m))->count > 0))
			continue;
		error_set(d->e, d->missing, "The request must contain the parameter %.*s%s",
			  (int)MIN_OF(prefix_len, 150u), prefix, m->in);
		return -EINVAL;
	}
	return 0;
}

static int decode_struct(struct decoder *d, const struct wire_shape *shape, struct run run,
			 int depth, void *dst)
{
	size_t len;

	if (depth > WIRE_DEPTH_MAX)
		return bad_value(d, &run, "it is nested too deeply");
	for (size_t i = 0; i < run.count;) {
		struct run member = same_segment(&run, i, &len);
		const struct wire_member *m = find_member(shape, rest_of(&run, i), len);
		int r;

		if (!m) {
			error_set(d->e, "UnknownParameter",
				  "The parameter %.200s is not recognized", member.pairs[0].key);
			return -EINVAL;
		}
		if (m->flags & (WIRE_UNSERVED | WIRE_NO_FIELD)) {
			error_set(d->e, "UnsupportedOperation",
				  "The parameter %.200s is not supported by this cloud.",
				  member.pairs[0].key);
			return -EOPNOTSUPP;
		}
		r = decode_member(d, m, member, depth, dst);
		if (r < 0)
			return r;
		i += member.count;
	}
	return check_required(d, shape, run.count ? run.pairs[0].key : "", run.off, dst);
}

/* What belongs to the protocol and the signature, not to the action. */
static bool reserved(const char *key)
{
	return str_eq(key, "Action") || str_eq(key, "Version") || str_prefix(key, "X-Amz-");
}

/* Older clients of EC2 send older dates, and the newest meaning serves them; the other services had
 * one version each. */
static bool version_served(const struct wire_service *s, const char *version)
{
	static const char form[] = "dddd-dd-dd";

	if (str_eq(version, s->api_version))
		return true;
	for (size_t i = 0; i < sizeof(form); i++)
		if (form[i] == 'd' ? version[i] < '0' || version[i] > '9' : version[i] != form[i])
			return false;
	return s->protocol == WIRE_EC2 && strcmp(version, s->api_version) < 0;
}

const struct wire_action *wire_query_route(const struct wire_service *s,
					   const struct wire_params *params, struct error *e)
{
	const char *name = wire_params_get(params, "Action");
	const char *version = wire_params_get(params, "Version");
	const struct wire_action *act;
	size_t actions = 0, versions = 0;
	bool known = false;

	for (size_t i = 0; i < params->count; i++) {
		actions += str_eq(params->items[i].key, "Action");
		versions += str_eq(params->items[i].key, "Version");
	}
	if (actions > 1 || versions > 1) {
		error_set(e, "MalformedQueryString",
			  "The parameters Action and Version are given once each.");
		return NULL;
	}
	if (!name || !*name) {
		error_set(e, "MissingAction", "The request must contain the parameter Action");
		return NULL;
	}
	if (!version || !*version) {
		error_set(e, "MissingParameter", "The request must contain the parameter Version");
		return NULL;
	}
	if (!version_served(s, version)) {
		error_set(e, "NoSuchVersion",
			  "The requested version (%.40s) of service %s does not exist", version,
			  s->name);
		return NULL;
	}
	act = wire_action_find(s, name);
	if (act)
		return act;
	for (const char *const *k = s->known_actions; k && *k && !known; k++)
		known = str_eq(*k, name);
	error_set(e, "InvalidAction", "The action %.100s is not valid for this web service.%s",
		  name, known ? " (This cloud does not serve it.)" : "");
	return NULL;
}

int wire_query_decode(struct arena *a, const struct wire_service *s, const struct wire_action *act,
		      const struct wire_params *params, void **ret_in, struct error *e)
{
	struct wire_pair *pairs = arena_new_array(a, struct wire_pair, params->count);
	bool ec2 = s->protocol == WIRE_EC2;
	struct decoder d = {.arena = a,
			    .e = e,
			    .invalid = ec2 ? "InvalidParameterValue" : "ValidationError",
			    .missing = ec2 ? "MissingParameter" : "ValidationError"};
	struct run run = {.pairs = pairs};
	void *in = NULL;
	int r;

	for (size_t i = 0; i < params->count; i++)
		if (!reserved(params->items[i].key))
			pairs[run.count++] = params->items[i];
	if (run.count > 1)
		qsort(pairs, run.count, sizeof(*pairs), compare_keys);
	if (!act->input) {
		if (run.count > 0) {
			error_set(e, "UnknownParameter", "The parameter %.200s is not recognized",
				  pairs[0].key);
			return -EINVAL;
		}
		*ret_in = NULL;
		return 0;
	}
	in = arena_alloc(a, act->input->size);
	r = decode_struct(&d, act->input, run, 0, in);
	if (r < 0)
		return r;
	r = wire_validate(s, act, in, e);
	if (r < 0)
		return r;
	*ret_in = in;
	return 0;
}
