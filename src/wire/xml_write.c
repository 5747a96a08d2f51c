/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <string.h>

#include "base/text.h"
#include "wire/value_priv.h"
#include "wire/xml_priv.h"

/* Why a byte cannot stand as it is; NULL when it can. */
static const char *escape_of(unsigned char c, const char *next, bool attribute)
{
	switch (c) {
	case '&':
		return "&amp;";
	case '<':
		return "&lt;";
	case '>':
		return "&gt;";
	case '"':
		return "&quot;";
	case '\r':
		return "&#13;"; /* a parser would make it a line feed */
	case '\t':		/* and in an attribute it would make these a space */
		return attribute ? "&#9;" : NULL;
	case '\n':
		return attribute ? "&#10;" : NULL;
	}
	if (c < 0x20)
		return UTF8_REPLACEMENT;
	/* U+FFFE and U+FFFF */
	if (c == 0xef && (unsigned char)next[0] == 0xbf && (unsigned char)next[1] >= 0xbe)
		return UTF8_REPLACEMENT;
	return NULL;
}

static void put_text(struct buf *out, const char *raw, bool attribute)
{
	_cleanup_(buf_done) struct buf room = BUF_INIT;
	const char *s = utf8_clean(&room, raw), *start = s;

	for (; *s; s++) {
		const char *escape = escape_of((unsigned char)*s, s + 1, attribute);

		if (!escape)
			continue;
		buf_append(out, start, (size_t)(s - start));
		buf_puts(out, escape);
		if ((unsigned char)*s == 0xef)
			s += 2;
		start = s + 1;
	}
	buf_append(out, start, (size_t)(s - start));
}

void xml_put_text(struct buf *out, const char *s)
{
	put_text(out, s, false);
}

void xml_put_element(struct buf *out, const char *name, const char *text)
{
	if (!text)
		return;
	buf_printf(out, "<%s>", name);
	xml_put_text(out, text);
	buf_printf(out, "</%s>", name);
}

static void put_scalar(struct buf *out, const struct wire_shape *shape, uint8_t time_format,
		       bool item, const void *src)
{
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	struct wire_scalar v;

	scalar_load(shape, item, src, &v);
	if (shape->type == WIRE_STRING) {
		xml_put_text(out, v.string ? v.string : "");
		return;
	}
	scalar_print(shape, time_format, &v, &text);
	if (text.len)
		buf_append(out, text.data, text.len);
}

static void put_attribute(struct buf *out, const struct wire_member *m, const void *value)
{
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	struct wire_scalar v;

	scalar_load(m->shape, false, member_of(value, m), &v);
	scalar_print(m->shape, m->time_format, &v, &text);
	buf_printf(out, " %s=\"", m->out);
	put_text(out, text.len ? text.data : "", true);
	buf_putc(out, '"');
}

void xml_open(struct buf *out, const char *root, const char *xmlns, const struct wire_shape *shape,
	      const void *value)
{
	buf_printf(out, "<%s", root);
	if (xmlns)
		buf_printf(out, " xmlns=\"%s\"", xmlns);
	for (size_t i = 0; shape && value && i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];

		if (!(m->flags & WIRE_ATTRIBUTE) || !member_present(value, m))
			continue;
		if (str_prefix(m->out, "xsi:"))
			buf_puts(out, " xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"");
		put_attribute(out, m, value);
	}
	buf_putc(out, '>');
}

void xml_close(struct buf *out, const char *root)
{
	buf_printf(out, "</%s>", root);
}

static void put_struct(struct buf *out, const char *name, const struct wire_shape *shape,
		       const void *value)
{
	xml_open(out, name, NULL, shape, value);
	xml_put_members(out, shape, value);
	xml_close(out, name);
}

static void put_list(struct buf *out, const struct wire_member *m, const struct wire_list *l)
{
	bool flat = m->flags & WIRE_FLATTENED;
	const char *name = flat ? m->out : m->shape->item_name;

	if (!flat)
		buf_printf(out, "<%s>", m->out);
	for (size_t i = 0; i < l->count; i++) {
		const void *item = list_item(l, m->shape, i);

		if (m->shape->item->type == WIRE_STRUCT) {
			put_struct(out, name, m->shape->item, item);
			continue;
		}
		buf_printf(out, "<%s>", name);
		put_scalar(out, m->shape->item, WIRE_TIME_ISO, true, item);
		buf_printf(out, "</%s>", name);
	}
	if (!flat)
		buf_printf(out, "</%s>", m->out);
}

void xml_put_members(struct buf *out, const struct wire_shape *shape, const void *value)
{
	for (size_t i = 0; value && i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];

		if (m->location != WIRE_IN_BODY || (m->flags & WIRE_ATTRIBUTE) ||
		    !member_present(value, m))
			continue;
		switch (m->shape->type) {
		case WIRE_STRUCT:
			put_struct(out, m->out, m->shape,
				   *(const void *const *)member_of(value, m));
			break;
		case WIRE_LIST:
			put_list(out, m, member_of(value, m));
			break;
		case WIRE_MAP: /* no body that we write has one: the generator sees to it */
			break;
		default:
			if (!(m->flags & WIRE_TEXT))
				buf_printf(out, "<%s>", m->out);
			put_scalar(out, m->shape, m->time_format, false, member_of(value, m));
			if (!(m->flags & WIRE_TEXT))
				buf_printf(out, "</%s>", m->out);
		}
	}
}
