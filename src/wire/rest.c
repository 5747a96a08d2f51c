/* SPDX-License-Identifier: Apache-2.0 */
/* REST-XML requests into structs: which action a request means, and its members from path, query,
 * headers and body. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "wire/codec.h"
#include "wire/value_priv.h"
#include "wire/xml_priv.h"

/* --- routing -------------------------------------------------------------------------------- */

/* A route's query entry, "key" or "key=value", against the request. */
static bool query_matches(const struct wire_params *query, const char *entry)
{
	size_t len = strcspn(entry, "=");

	for (size_t i = 0; i < query->count; i++) {
		const struct wire_pair *p = &query->items[i];

		if (strlen(p->key) == len && strncmp(p->key, entry, len) == 0)
			return entry[len] == '\0' || str_eq(p->value, entry + len + 1);
	}
	return false;
}

static bool route_names(const struct wire_route *route, const char *key)
{
	for (const char *const *q = route->query; q && *q; q++) {
		size_t len = strcspn(*q, "=");

		if (strlen(key) == len && strncmp(*q, key, len) == 0)
			return true;
	}
	return false;
}

/* A key of the request that names another action than this one; NULL for none. */
static const char *foreign_subresource(const struct wire_service *s, const struct wire_route *route,
				       const struct wire_params *query)
{
	for (size_t i = 0; i < query->count; i++)
		for (const char *const *k = s->subresources; k && *k; k++)
			if (str_eq(*k, query->items[i].key) && !(route && route_names(route, *k)))
				return *k;
	return NULL;
}

static bool route_matches(const struct wire_service *s, const struct wire_route *route,
			  const struct wire_rest_request *r)
{
	for (const char *const *q = route->query; q && *q; q++)
		if (!query_matches(r->query, *q))
			return false;
	if (route->header && !r->header(r->header_ctx, route->header))
		return false;
	return !foreign_subresource(s, route, r->query);
}

const struct wire_action *wire_rest_route(const struct wire_service *s,
					  const struct wire_rest_request *r, struct error *e)
{
	int labels = !r->bucket ? 0 : !r->key ? 1 : 2;
	const char *other = foreign_subresource(s, NULL, r->query);
	bool near = false;

	for (size_t i = 0; i < s->action_count; i++) {
		const struct wire_route *route = &s->actions[i].route;

		if (route->path_labels != labels || !str_eq(route->method, r->method))
			continue;
		near = true;
		if (route_matches(s, route, r))
			return &s->actions[i];
	}
	if (other)
		error_set(
		    e, "NotImplemented",
		    "A parameter you provided implies functionality that is not implemented: %.60s",
		    other);
	else if (near)
		error_set(e, "NotImplemented", "This form of %.20s request is not implemented.",
			  r->method);
	else
		error_set(e, "MethodNotAllowed",
			  "The specified method is not allowed against this resource.");
	return NULL;
}

/* --- decoding ------------------------------------------------------------------------------- */

struct decoder {
	struct arena *arena;
	const struct wire_rest_request *r;
	struct error *e;
	/* while headers are walked: */
	const struct wire_service *service;
	const struct wire_shape *shape;
	const struct wire_member *map_member;
	struct wire_map *map;
	size_t map_room;
	int status;
};

static int not_implemented(struct decoder *d, const char *kind, const char *name)
{
	error_set(d->e, "NotImplemented",
		  "A %s you provided implies functionality that is not implemented: %.100s", kind,
		  name);
	return -EOPNOTSUPP;
}

static int decode_scalar(struct decoder *d, const struct wire_member *m, const char *text,
			 void *base)
{
	struct wire_scalar v;
	char why[80];
	int r = 0;

	if (!utf8_valid(text, strlen(text))) {
		snprintf(why, sizeof(why), "must be UTF-8 text");
		r = -EINVAL;
	} else if (scalar_parse(d->arena, m->shape, text, strlen(text), &v) < 0) {
		snprintf(why, sizeof(why), "must be %s", type_phrase(m->shape->type));
		r = -EINVAL;
	} else {
		r = scalar_check(m->shape, &v, why, sizeof(why));
	}
	if (r < 0) {
		error_set(d->e, "InvalidArgument", "%s: %s.", m->in, why);
		return -EINVAL;
	}
	scalar_store(m->shape, false, member_at(base, m), &v);
	return 0;
}

static bool matches_any(const char *const *patterns, const char *name, bool any_case)
{
	for (const char *const *p = patterns; p && *p; p++) {
		size_t len = strlen(*p);
		bool open = len > 0 && (*p)[len - 1] == '*';
		size_t n =
		    open ? len - 1 : len + 1; /* with the NUL, when the whole name must match */

		if (any_case ? strncasecmp(*p, name, n) == 0 : strncmp(*p, name, n) == 0)
			return true;
	}
	return false;
}

static const struct wire_member *member_at_location(const struct wire_shape *shape,
						    enum wire_location location, const char *name)
{
	for (size_t i = 0; shape && i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];

		if (m->location == location &&
		    (location == WIRE_IN_HEADER ? strcasecmp(m->in, name) == 0
						: str_eq(m->in, name)))
			return m;
	}
	return NULL;
}

/* Query parameters: each is a member, part of the route, or of the signature. */
static int decode_query(struct decoder *d, const struct wire_action *act, void *in)
{
	const struct wire_params *query = d->r->query;

	for (size_t i = 0; i < query->count; i++) {
		const struct wire_pair *p = &query->items[i];
		const struct wire_member *m = member_at_location(act->input, WIRE_IN_QUERY, p->key);
		int r;

		if (!m && (route_names(&act->route, p->key) ||
			   matches_any(d->service->passed_query, p->key, false)))
			continue;
		if (!m) {
			error_set(d->e, "InvalidArgument",
				  "The query parameter %.100s is not known to %s.", p->key,
				  act->name);
			return -EINVAL;
		}
		if (m->flags & (WIRE_UNSERVED | WIRE_NO_FIELD))
			return not_implemented(d, "parameter", p->key);
		if (member_present(in, m)) {
			error_set(d->e, "InvalidArgument",
				  "The query parameter %.100s is given twice.", p->key);
			return -EINVAL;
		}
		r = decode_scalar(d, m, p->value, in);
		if (r < 0)
			return r;
	}
	return 0;
}

/* x-amz-meta-NAME into the map, the name in lower case as S3 has it; repeated ones are joined. */
static void add_to_map(struct decoder *d, const char *name, const char *value)
{
	struct wire_map *map = d->map;
	char *key = arena_strdup(d->arena, name);

	for (char *c = key; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	for (size_t i = 0; i < map->count; i++)
		if (str_eq(map->items[i].key, key)) {
			map->items[i].value =
			    arena_printf(d->arena, "%s,%s", map->items[i].value, value);
			return;
		}
	if (map->count == d->map_room) {
		struct wire_pair *more;

		d->map_room = d->map_room ? d->map_room * 2 : 8;
		more = arena_new_array(d->arena, struct wire_pair, d->map_room);
		if (map->count)
			memcpy(more, map->items, map->count * sizeof(*more));
		map->items = more;
	}
	map->set = true;
	map->items[map->count++] = (struct wire_pair){key, arena_strdup(d->arena, value)};
}

static void decode_header(void *ctx, const char *name, const char *value)
{
	struct decoder *d = ctx;
	const struct wire_member *m = member_at_location(d->shape, WIRE_IN_HEADER, name);
	size_t prefix = d->map_member ? strlen(d->map_member->in) : 0;

	if (d->status < 0)
		return;
	if (m && (m->flags & (WIRE_UNSERVED | WIRE_NO_FIELD))) {
		d->status = not_implemented(d, "header", name);
	} else if (!m && d->map_member && strncasecmp(name, d->map_member->in, prefix) == 0) {
		if (!utf8_valid(value, strlen(value)) || !utf8_valid(name, strlen(name))) {
			error_set(d->e, "InvalidArgument", "User metadata must be UTF-8 text.");
			d->status = -EINVAL;
			return;
		}
		add_to_map(d, name + prefix, value);
	} else if (!m && strncasecmp(name, "x-amz-", 6) == 0 &&
		   !matches_any(d->service->passed_headers, name, true)) {
		d->status = not_implemented(d, "header", name);
	}
}

static int decode_headers(struct decoder *d, const struct wire_shape *shape, void *in)
{
	d->shape = shape;
	for (size_t i = 0; shape && i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];
		const char *value;
		int r;

		if (m->flags & WIRE_NO_FIELD)
			continue;
		if (m->location == WIRE_IN_HEADERS) {
			d->map_member = m;
			d->map = member_at(in, m);
		}
		if (m->location != WIRE_IN_HEADER || (m->flags & WIRE_UNSERVED))
			continue;
		value = d->r->header(d->r->header_ctx, m->in);
		r = value ? decode_scalar(d, m, value, in) : 0;
		if (r < 0)
			return r;
	}
	d->r->each_header(d->r->header_ctx, decode_header, d);
	return d->status;
}

static int decode_body(struct decoder *d, const struct wire_member *m, void *in)
{
	struct xml_reader x = {.arena = d->arena, .e = d->e};
	xmlDoc *doc = NULL;
	const xmlNode *root;
	void *child;
	int r = xml_parse(d->r->body, d->r->body_len, &doc, d->e);

	if (r < 0)
		return r;
	root = xmlDocGetRootElement(doc);
	child = arena_alloc(d->arena, m->shape->size);
	if (str_eq((const char *)root->name, m->in)) {
		r = xml_read_struct(&x, m->shape, root, child);
	} else {
		error_set(d->e, "MalformedXML", "The body must be an element %s, not %.60s.", m->in,
			  (const char *)root->name);
		r = -EINVAL;
	}
	xmlFreeDoc(doc);
	if (r >= 0)
		*(void **)member_at(in, m) = child;
	return r;
}

/* The body, when it is one that we parse: a structure, or nothing. */
static int decode_payload(struct decoder *d, const struct wire_action *act, void *in)
{
	const struct wire_member *payload = NULL;

	for (size_t i = 0; act->input && i < act->input->member_count; i++)
		if (act->input->members[i].flags & WIRE_PAYLOAD)
			payload = &act->input->members[i];
	if (!d->r->body || (payload && (payload->flags & WIRE_STREAMING)))
		return 0;
	if (payload && !(payload->flags & (WIRE_UNSERVED | WIRE_NO_FIELD)) &&
	    payload->shape->type == WIRE_STRUCT) {
		if (d->r->body_len == 0 && !(payload->flags & WIRE_REQUIRED))
			return 0;
		return decode_body(d, payload, in);
	}
	if (d->r->body_len > 0) {
		error_set(d->e, "UnexpectedContent", "This request does not support content.");
		return -EINVAL;
	}
	return 0;
}

static void decode_uri(const struct wire_rest_request *r, const struct wire_shape *shape, void *in)
{
	for (size_t i = 0; shape && i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];

		if (m->location == WIRE_IN_URI && !(m->flags & WIRE_NO_FIELD))
			*(const char **)member_at(in, m) =
			    str_eq(m->in, "Bucket") ? r->bucket : r->key;
	}
}

static int check_required(struct decoder *d, const struct wire_shape *shape, const void *in)
{
	for (size_t i = 0; shape && i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];

		if (!(m->flags & WIRE_REQUIRED) || (m->flags & (WIRE_NO_FIELD | WIRE_UNSERVED)) ||
		    (m->flags & WIRE_PAYLOAD && !d->r->body) || member_present(in, m))
			continue;
		error_set(d->e, "InvalidRequest", "The request must contain %s.", m->in);
		return -EINVAL;
	}
	return 0;
}

int wire_rest_decode(struct arena *a, const struct wire_service *s, const struct wire_action *act,
		     const struct wire_rest_request *r, void **ret_in, struct error *e)
{
	struct decoder d = {.arena = a, .r = r, .e = e, .service = s};
	void *in = act->input ? arena_alloc(a, act->input->size) : NULL;
	int status;

	decode_uri(r, act->input, in);
	status = decode_query(&d, act, in);
	if (status >= 0)
		status = decode_headers(&d, act->input, in);
	if (status >= 0)
		status = decode_payload(&d, act, in);
	if (status >= 0)
		status = check_required(&d, act->input, in);
	if (status >= 0 && in)
		status = wire_validate(s, act, in, e);
	if (status < 0)
		return status;
	*ret_in = in;
	return 0;
}
