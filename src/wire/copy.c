/* SPDX-License-Identifier: Apache-2.0 */
/* Deep copy and deep equality of values, by their shape. */
#include <string.h>

#include "base/text.h"
#include "wire/codec.h"
#include "wire/value_priv.h"

static void copy_struct(struct arena *a, const struct wire_shape *shape, const void *from,
			void *to);

static void copy_scalar(struct arena *a, const struct wire_shape *shape, bool item,
			const void *from, void *to)
{
	struct wire_scalar v;

	scalar_load(shape, item, from, &v);
	if (v.string)
		v.string = arena_strdup(a, v.string);
	if (v.blob.data)
		v.blob.data = arena_memdup(a, v.blob.data, v.blob.len);
	scalar_store(shape, item, to, &v);
}

static void copy_list(struct arena *a, const struct wire_shape *shape, const struct wire_list *from,
		      struct wire_list *to)
{
	size_t stride = shape->item->size;
	char *items = arena_calloc(a, from->count, stride);

	for (size_t i = 0; i < from->count; i++) {
		if (shape->item->type == WIRE_STRUCT)
			copy_struct(a, shape->item, list_item(from, shape, i), items + i * stride);
		else
			copy_scalar(a, shape->item, true, list_item(from, shape, i),
				    items + i * stride);
	}
	*to = (struct wire_list){.set = true, .count = from->count, .items = items};
}

static void copy_map(struct arena *a, const struct wire_map *from, struct wire_map *to)
{
	struct wire_pair *items = arena_new_array(a, struct wire_pair, from->count);

	for (size_t i = 0; i < from->count; i++)
		items[i] = (struct wire_pair){arena_strdup(a, from->items[i].key),
					      arena_strdup(a, from->items[i].value)};
	*to = (struct wire_map){.set = true, .count = from->count, .items = items};
}

static void copy_struct(struct arena *a, const struct wire_shape *shape, const void *from, void *to)
{
	for (size_t i = 0; i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];

		if (!member_present(from, m))
			continue;
		switch (m->shape->type) {
		case WIRE_STRUCT:
			*(void **)member_at(to, m) =
			    wire_copy(a, m->shape, *(const void *const *)member_of(from, m));
			break;
		case WIRE_LIST:
			copy_list(a, m->shape, member_of(from, m), member_at(to, m));
			break;
		case WIRE_MAP:
			copy_map(a, member_of(from, m), member_at(to, m));
			break;
		default:
			copy_scalar(a, m->shape, false, member_of(from, m), member_at(to, m));
		}
	}
}

void *wire_copy(struct arena *a, const struct wire_shape *shape, const void *value)
{
	void *copy;

	if (!value)
		return NULL;
	copy = arena_alloc(a, shape->size);
	copy_struct(a, shape, value, copy);
	return copy;
}

static bool equal_scalar(const struct wire_shape *shape, bool item, const void *x, const void *y)
{
	struct wire_scalar v, w;

	scalar_load(shape, item, x, &v);
	scalar_load(shape, item, y, &w);
	if (shape->type == WIRE_BLOB)
		return v.blob.len == w.blob.len &&
		       (v.blob.len == 0 || memcmp(v.blob.data, w.blob.data, v.blob.len) == 0);
	return str_eq(v.string, w.string) && v.number == w.number && v.real == w.real &&
	       v.truth == w.truth;
}

static bool equal_list(const struct wire_shape *shape, const struct wire_list *x,
		       const struct wire_list *y)
{
	if (x->count != y->count)
		return false;
	for (size_t i = 0; i < x->count; i++) {
		const void *v = list_item(x, shape, i), *w = list_item(y, shape, i);

		if (shape->item->type == WIRE_STRUCT ? !wire_equal(shape->item, v, w)
						     : !equal_scalar(shape->item, true, v, w))
			return false;
	}
	return true;
}

/* Maps are equal in the same order only: who writes them keeps an order. */
static bool equal_map(const struct wire_map *x, const struct wire_map *y)
{
	if (x->count != y->count)
		return false;
	for (size_t i = 0; i < x->count; i++)
		if (!str_eq(x->items[i].key, y->items[i].key) ||
		    !str_eq(x->items[i].value, y->items[i].value))
			return false;
	return true;
}

static bool equal_member(const struct wire_member *m, const void *x, const void *y)
{
	switch (m->shape->type) {
	case WIRE_STRUCT:
		return wire_equal(m->shape, *(const void *const *)x, *(const void *const *)y);
	case WIRE_LIST:
		return equal_list(m->shape, x, y);
	case WIRE_MAP:
		return equal_map(x, y);
	default:
		return equal_scalar(m->shape, false, x, y);
	}
}

bool wire_equal(const struct wire_shape *shape, const void *x, const void *y)
{
	if (!x || !y)
		return x == y;
	for (size_t i = 0; i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];
		bool present = member_present(x, m);

		if (present != member_present(y, m))
			return false;
		if (present && !equal_member(m, member_of(x, m), member_of(y, m)))
			return false;
	}
	return true;
}
