/* SPDX-License-Identifier: Apache-2.0 */
/* REST-XML replies: status, headers, body. */
#include "base/text.h"
#include "wire/codec.h"
#include "wire/value_priv.h"
#include "wire/xml_priv.h"

struct header_sink {
	void (*add)(void *ctx, const char *name, const char *value);
	void *ctx;
};

/* A header's value is one line whatever it was made of. */
static void add_header(const struct header_sink *sink, const char *name, const char *value)
{
	_cleanup_(buf_done) struct buf line = BUF_INIT;

	for (const char *c = value; *c; c++)
		buf_putc(&line, (unsigned char)*c < 0x20 || *c == 0x7f ? ' ' : *c);
	sink->add(sink->ctx, name, line.len ? line.data : "");
}

static void put_header(const struct header_sink *sink, const struct wire_member *m,
		       const void *value)
{
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	struct wire_scalar v;

	scalar_load(m->shape, false, member_of(value, m), &v);
	scalar_print(m->shape, m->time_format, &v, &text);
	add_header(sink, m->out, text.len ? text.data : "");
}

static void put_map(const struct header_sink *sink, const struct wire_member *m, const void *value)
{
	const struct wire_map *map = member_of(value, m);

	for (size_t i = 0; i < map->count; i++) {
		_cleanup_(buf_done) struct buf name = BUF_INIT;

		buf_printf(&name, "%s%s", m->out, map->items[i].key);
		add_header(sink, name.data, map->items[i].value ? map->items[i].value : "");
	}
}

/* The whole output is the body, unless one member is, or all travel in headers. */
static void put_body(const struct wire_service *s, const struct wire_action *act, const void *value,
		     struct buf *out)
{
	bool any = false;

	for (size_t i = 0; i < act->output->member_count; i++) {
		const struct wire_member *m = &act->output->members[i];

		if ((m->flags & WIRE_PAYLOAD) && (m->flags & WIRE_STREAMING))
			return;
		if (m->flags & WIRE_PAYLOAD) {
			if (m->shape->type == WIRE_STRUCT && member_present(value, m))
				wire_xml_encode(m->shape, act->output_root, s->xml_namespace,
						*(const void *const *)member_of(value, m), out);
			return;
		}
		any |= m->location == WIRE_IN_BODY;
	}
	if (any)
		wire_xml_encode(act->output, act->output_root, s->xml_namespace, value, out);
}

void wire_rest_reply(const struct wire_service *s, const struct wire_action *act,
		     const void *out_struct, int *ret_status,
		     void (*add)(void *ctx, const char *name, const char *value), void *ctx,
		     struct buf *out)
{
	const struct header_sink sink = {.add = add, .ctx = ctx};
	struct wire_scalar v;

	*ret_status = act->route.success_status;
	if (!act->output || !out_struct)
		return;
	for (size_t i = 0; i < act->output->member_count; i++) {
		const struct wire_member *m = &act->output->members[i];

		if (!member_present(out_struct, m))
			continue;
		if (m->location == WIRE_IN_HEADER) {
			put_header(&sink, m, out_struct);
		} else if (m->location == WIRE_IN_HEADERS) {
			put_map(&sink, m, out_struct);
		} else if (m->location == WIRE_IN_STATUS) {
			scalar_load(m->shape, false, member_of(out_struct, m), &v);
			*ret_status = (int)v.number;
		}
	}
	put_body(s, act, out_struct, out);
}

void wire_rest_error(const struct wire_service *s, const struct error *err, const char *resource,
		     const char *request_id, struct buf *out)
{
	buf_puts(out, XML_PROLOGUE "<Error>");
	xml_put_element(out, "Code", err->code);
	xml_put_element(out, "Message", wire_error_message(s, err));
	xml_put_element(out, "Resource", resource);
	xml_put_element(out, "RequestId", request_id);
	buf_puts(out, "</Error>");
}
