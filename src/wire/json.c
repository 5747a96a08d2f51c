/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON: our own messages and the records of the durable state. A structure is an object with the
 * model's member names; times are ISO 8601 strings, blobs base64. `null` means absent.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "wire/codec.h"
#include "wire/value_priv.h"

#define CODE "SerializationException"

struct decoder {
	struct arena *arena;
	bool strict;
	struct error *e;
};

static int decode_struct(struct decoder *d, const struct wire_shape *shape, json_t *j, void *dst,
			 const struct wire_path *path);

static int fail(struct decoder *d, const struct wire_path *path, const char *what)
{
	char where[WIRE_PATH_LEN];

	path_print(path, where);
	error_set(d->e, CODE, "%s%s%s", where, *where ? ": " : "", what);
	return -EINVAL;
}

static int fail_type(struct decoder *d, const struct wire_path *path,
		     const struct wire_shape *shape)
{
	char text[64];

	snprintf(text, sizeof(text), "must be %s", type_phrase(shape->type));
	return fail(d, path, text);
}

static int decode_scalar(struct decoder *d, const struct wire_shape *shape, json_t *j, bool item,
			 void *dst, const struct wire_path *path)
{
	struct wire_scalar v = {0};
	char why[80];
	bool fits = false;

	switch (shape->type) {
	case WIRE_STRING:
	case WIRE_BLOB:
	case WIRE_TIME:
		fits = json_is_string(j) && scalar_parse(d->arena, shape, json_string_value(j),
							 json_string_length(j), &v) >= 0;
		break;
	case WIRE_INT:
		fits = json_is_integer(j);
		v.number = json_integer_value(j);
		break;
	case WIRE_BOOL:
		fits = json_is_boolean(j);
		v.truth = json_is_true(j);
		break;
	case WIRE_DOUBLE:
		fits = json_is_number(j);
		v.real = json_number_value(j);
		break;
	default:
		break;
	}
	if (!fits)
		return fail_type(d, path, shape);
	if (scalar_check(shape, &v, why, sizeof(why)) < 0)
		return fail(d, path, why);
	scalar_store(shape, item, dst, &v);
	return 0;
}

static int decode_list(struct decoder *d, const struct wire_shape *shape, json_t *j,
		       struct wire_list *dst, const struct wire_path *path)
{
	size_t count = json_array_size(j);
	char why[80];
	char *items;

	if (!json_is_array(j))
		return fail_type(d, path, shape);
	if (list_check(shape, count, why, sizeof(why)) < 0)
		return fail(d, path, why);
	items = arena_calloc(d->arena, count, shape->item->size);
	for (size_t i = 0; i < count; i++) {
		struct wire_path at = {.up = path, .index = i + 1, .depth = path->depth};
		void *item = items + i * shape->item->size;
		json_t *value = json_array_get(j, i);
		int r;

		if (shape->item->type == WIRE_STRUCT)
			r = decode_struct(d, shape->item, value, item, &at);
		else
			r = decode_scalar(d, shape->item, value, true, item, &at);
		if (r < 0)
			return r;
	}
	*dst = (struct wire_list){.set = true, .count = count, .items = items};
	return 0;
}

static int decode_map(struct decoder *d, const struct wire_shape *shape, json_t *j,
		      struct wire_map *dst, const struct wire_path *path)
{
	struct wire_pair *items;
	const char *key;
	json_t *value;
	size_t n = 0;

	if (!json_is_object(j))
		return fail_type(d, path, shape);
	items = arena_new_array(d->arena, struct wire_pair, json_object_size(j));
	json_object_foreach(j, key, value)
	{
		if (!json_is_string(value))
			return fail_type(d, path, shape);
		items[n++] = (struct wire_pair){arena_strdup(d->arena, key),
						arena_strdup(d->arena, json_string_value(value))};
	}
	*dst = (struct wire_map){.set = true, .count = n, .items = items};
	return 0;
}

static int decode_member(struct decoder *d, const struct wire_member *m, json_t *j, void *base,
			 const struct wire_path *path)
{
	void *dst = member_at(base, m);

	switch (m->shape->type) {
	case WIRE_STRUCT: {
		void *child = arena_alloc(d->arena, m->shape->size);
		int r = decode_struct(d, m->shape, j, child, path);

		if (r >= 0)
			*(void **)dst = child;
		return r;
	}
	case WIRE_LIST:
		return decode_list(d, m->shape, j, dst, path);
	case WIRE_MAP:
		return decode_map(d, m->shape, j, dst, path);
	default:
		return decode_scalar(d, m->shape, j, false, dst, path);
	}
}

static int refuse_unknown(struct decoder *d, const struct wire_shape *shape, json_t *j,
			  const struct wire_path *path)
{
	const char *key;
	json_t *value;

	json_object_foreach(j, key, value)
	{
		struct wire_path at = {.up = path, .name = key};
		bool known = false;

		for (size_t i = 0; i < shape->member_count && !known; i++)
			known = str_eq(shape->members[i].name, key);
		if (!known)
			return fail(d, &at, "is not a member that we know");
	}
	return 0;
}

static int decode_struct(struct decoder *d, const struct wire_shape *shape, json_t *j, void *dst,
			 const struct wire_path *path)
{
	int r;

	if (!json_is_object(j))
		return fail(d, path, "must be an object");
	if (path->depth >= WIRE_DEPTH_MAX)
		return fail(d, path, "is nested too deeply");
	if (d->strict && (r = refuse_unknown(d, shape, j, path)) < 0)
		return r;
	for (size_t i = 0; i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];
		struct wire_path at = {.up = path, .name = m->name, .depth = path->depth + 1};
		json_t *value = json_object_get(j, m->name);

		if (!value || json_is_null(value)) {
			if (m->flags & WIRE_REQUIRED)
				return fail(d, &at, "is missing");
			continue;
		}
		if (m->flags & WIRE_NO_FIELD)
			return fail(d, &at, "is not served");
		r = decode_member(d, m, value, dst, &at);
		if (r < 0)
			return r;
	}
	return 0;
}

int wire_json_decode(struct arena *a, const struct wire_shape *shape, const char *text, size_t len,
		     bool strict, void **ret, struct error *e)
{
	struct decoder d = {.arena = a, .strict = strict, .e = e};
	const struct wire_path root = {0};
	json_error_t problem;
	json_t *j;
	void *dst;
	int r;

	j = json_loadb(text, len, JSON_REJECT_DUPLICATES, &problem);
	if (!j) {
		error_set(e, CODE, "not JSON: line %d, column %d: %s", problem.line, problem.column,
			  problem.text);
		return -EINVAL;
	}
	dst = arena_alloc(a, shape->size);
	r = decode_struct(&d, shape, j, dst, &root);
	json_decref(j);
	if (r < 0)
		return r;
	*ret = dst;
	return 0;
}

/* --- encoding ------------------------------------------------------------------------------- */

static void put_string(struct buf *out, const char *raw)
{
	_cleanup_(buf_done) struct buf room = BUF_INIT;
	const char *s = utf8_clean(&room, raw);
	size_t start = 0, len = strlen(s);

	buf_putc(out, '"');
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		buf_append(out, s + start, i - start);
		start = i + 1;
		switch (c) {
		case '"':
		case '\\':
			buf_putc(out, '\\');
			buf_putc(out, (char)c);
			break;
		case '\n':
			buf_puts(out, "\\n");
			break;
		case '\t':
			buf_puts(out, "\\t");
			break;
		default:
			buf_printf(out, "\\u%04x", c);
		}
	}
	buf_append(out, s + start, len - start);
	buf_putc(out, '"');
}

static void encode_struct(const struct wire_shape *shape, const void *value, struct buf *out);

static void encode_scalar(const struct wire_shape *shape, bool item, const void *src,
			  struct buf *out)
{
	struct wire_scalar v;

	scalar_load(shape, item, src, &v);
	if (shape->type == WIRE_STRING) {
		put_string(out, v.string ? v.string : "");
	} else if (shape->type == WIRE_BLOB || shape->type == WIRE_TIME) {
		buf_putc(out, '"');
		scalar_print(shape, WIRE_TIME_ISO, &v, out);
		buf_putc(out, '"');
	} else {
		scalar_print(shape, WIRE_TIME_ISO, &v, out);
	}
}

static void encode_list(const struct wire_shape *shape, const struct wire_list *l, struct buf *out)
{
	buf_putc(out, '[');
	for (size_t i = 0; i < l->count; i++) {
		if (i > 0)
			buf_putc(out, ',');
		if (shape->item->type == WIRE_STRUCT)
			encode_struct(shape->item, list_item(l, shape, i), out);
		else
			encode_scalar(shape->item, true, list_item(l, shape, i), out);
	}
	buf_putc(out, ']');
}

static void encode_map(const struct wire_map *map, struct buf *out)
{
	buf_putc(out, '{');
	for (size_t i = 0; i < map->count; i++) {
		if (i > 0)
			buf_putc(out, ',');
		put_string(out, map->items[i].key);
		buf_putc(out, ':');
		put_string(out, map->items[i].value ? map->items[i].value : "");
	}
	buf_putc(out, '}');
}

static void encode_struct(const struct wire_shape *shape, const void *value, struct buf *out)
{
	bool first = true;

	buf_putc(out, '{');
	for (size_t i = 0; value && i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];

		if (!member_present(value, m))
			continue;
		buf_printf(out, "%s\"%s\":", first ? "" : ",", m->name);
		first = false;
		switch (m->shape->type) {
		case WIRE_STRUCT:
			encode_struct(m->shape, *(const void *const *)member_of(value, m), out);
			break;
		case WIRE_LIST:
			encode_list(m->shape, member_of(value, m), out);
			break;
		case WIRE_MAP:
			encode_map(member_of(value, m), out);
			break;
		default:
			encode_scalar(m->shape, false, member_of(value, m), out);
		}
	}
	buf_putc(out, '}');
}

void wire_json_encode(const struct wire_shape *shape, const void *value, struct buf *out)
{
	encode_struct(shape, value, out);
}
