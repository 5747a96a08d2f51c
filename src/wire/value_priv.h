/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_WIRE_VALUE_PRIV_H
#define MALLEE_WIRE_VALUE_PRIV_H

#include "base/arena.h"
#include "base/buf.h"
#include "wire/shape.h"

/*
 * What all codecs share: getting values in and out of the C forms that shape.h describes. A value
 * has one of two forms: that of a member (with its presence) or that of an item of a list (bare);
 * `item` says which. Only this file and copy.c know the forms of scalars.
 */

#define WIRE_DEPTH_MAX 32 /* of structures in structures */

struct wire_scalar {
	const char *string;
	struct wire_blob blob;
	int64_t number; /* WIRE_INT; WIRE_TIME in milliseconds */
	double real;
	bool truth;
};

static inline void *member_at(void *base, const struct wire_member *m)
{
	return (char *)base + m->offset;
}

static inline const void *member_of(const void *base, const struct wire_member *m)
{
	return (const char *)base + m->offset;
}

static inline const void *list_item(const struct wire_list *l, const struct wire_shape *list_shape,
				    size_t i)
{
	return (const char *)l->items + i * list_shape->item->size;
}

/* False for members without a field. */
bool member_present(const void *base, const struct wire_member *m);

void scalar_store(const struct wire_shape *shape, bool item, void *dst,
		  const struct wire_scalar *v);
void scalar_load(const struct wire_shape *shape, bool item, const void *src,
		 struct wire_scalar *ret);

/* Text as Query, XML and headers carry it. 0 or -EINVAL; text must be free of NULs and UTF-8. */
int scalar_parse(struct arena *a, const struct wire_shape *shape, const char *text, size_t len,
		 struct wire_scalar *ret);
void scalar_print(const struct wire_shape *shape, uint8_t time_format, const struct wire_scalar *v,
		  struct buf *out);

/* s, or a copy in room with U+FFFD for each byte that is no UTF-8: text from the host (a message
 * cut short, a name in another encoding) must not make a reply or a record that nobody can read. */
#define UTF8_REPLACEMENT "\xef\xbf\xbd"
const char *utf8_clean(struct buf *room, const char *s);

/* The shape's limits: ranges of numbers, lengths of strings (in characters) and blobs. 0 or
 * -ERANGE; with why, a phrase such as "must be 1 to 50" for a message. */
int scalar_check(const struct wire_shape *shape, const struct wire_scalar *v, char *why,
		 size_t why_size);
int list_check(const struct wire_shape *shape, size_t count, char *why, size_t why_size);

/* "a string", "an integer": for messages. */
const char *type_phrase(enum wire_type type);

/* Where a decoder is, for messages: printed as "Outer.Inner.2.Leaf". Lives on the stack. */
struct wire_path {
	const struct wire_path *up;
	const char *name; /* NULL: a list's item */
	size_t index;	  /* from 1 */
	int depth;
};
#define WIRE_PATH_LEN 256
/* Returns out. */
const char *path_print(const struct wire_path *p, char out[static WIRE_PATH_LEN]);

#endif
