/* SPDX-License-Identifier: Apache-2.0 */
/* Structs into Query requests: the client's half, for tests and tools. */
#include <string.h>

#include "base/text.h"
#include "wire/codec.h"
#include "wire/value_priv.h"

struct encoder {
	struct arena *arena;
	struct buf *out;
};

static void put(struct encoder *c, const char *key, const char *value)
{
	if (c->out->len > 0)
		buf_putc(c->out, '&');
	buf_printf(c->out, "%s=%s", uri_encode(c->arena, key, strlen(key), false),
		   uri_encode(c->arena, value, strlen(value), false));
}

static void encode_struct(struct encoder *c, const struct wire_shape *shape, const char *prefix,
			  const void *value);

static void encode_scalar(struct encoder *c, const struct wire_shape *shape, uint8_t time_format,
			  bool item, const char *key, const void *src)
{
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	struct wire_scalar v;

	scalar_load(shape, item, src, &v);
	scalar_print(shape, time_format, &v, &text);
	put(c, key, text.len ? text.data : "");
}

static void encode_list(struct encoder *c, const struct wire_member *m, const char *key,
			const struct wire_list *l)
{
	const struct wire_shape *item = m->shape->item;
	const char *dot = m->flags & WIRE_MEMBER_LIST ? ".member." : ".";

	/* botocore leaves those of EC2 out. With it would go an item that has no other member, and those behind it move up. */
	if (l->count == 0)
		put(c, key, "");
	for (size_t i = 0; i < l->count; i++) {
		const char *at = arena_printf(c->arena, "%s%s%zu", key, dot, i + 1);

		if (item->type == WIRE_STRUCT)
			encode_struct(c, item, arena_printf(c->arena, "%s.", at),
				      list_item(l, m->shape, i));
		else
			encode_scalar(c, item, WIRE_TIME_ISO, true, at, list_item(l, m->shape, i));
	}
}

static void encode_struct(struct encoder *c, const struct wire_shape *shape, const char *prefix,
			  const void *value)
{
	for (size_t i = 0; i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];
		const char *key;

		if (!member_present(value, m) || (m->flags & WIRE_UNSERVED))
			continue;
		key = arena_printf(c->arena, "%s%s", prefix, m->in);
		switch (m->shape->type) {
		case WIRE_STRUCT:
			encode_struct(c, m->shape, arena_printf(c->arena, "%s.", key),
				      *(const void *const *)member_of(value, m));
			break;
		case WIRE_LIST:
			encode_list(c, m, key, member_of(value, m));
			break;
		case WIRE_MAP:
			break;
		default:
			encode_scalar(c, m->shape, m->time_format, false, key, member_of(value, m));
		}
	}
}

void wire_query_encode(const struct wire_service *s, const struct wire_action *act, const void *in,
		       struct buf *out)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct encoder c = {.arena = a, .out = out};

	put(&c, "Action", act->name);
	put(&c, "Version", s->api_version);
	if (act->input && in)
		encode_struct(&c, act->input, "", in);
}
