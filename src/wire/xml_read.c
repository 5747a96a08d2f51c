/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XML into structs, over libxml2's tree. Input is distrusted: no DTD (so no entities but the five),
 * bounded depth, and every element must be one that the shape has. Replies, which only our own
 * clients read, may hold elements of a newer version: those are skipped.
 */
#include <errno.h>
#include <libxml/parser.h>
#include <string.h>

#include "base/text.h"
#include "wire/codec.h"
#include "wire/value_priv.h"
#include "wire/xml_priv.h"

#define XML_DEPTH_MAX 64
#define CODE "MalformedXML"

static int read_struct(struct xml_reader *x, const struct wire_shape *shape, const xmlNode *element,
		       const struct wire_path *path, void *dst);

/* --- parsing -------------------------------------------------------------------------------- */

static bool too_deep(const xmlNode *root)
{
	const xmlNode *n = root;
	int depth = 1;

	while (n) {
		if (depth > XML_DEPTH_MAX)
			return true;
		if (n->type == XML_ELEMENT_NODE && n->children) {
			n = n->children;
			depth++;
			continue;
		}
		while (n != root && !n->next) {
			n = n->parent;
			depth--;
		}
		n = n == root ? NULL : n->next;
	}
	return false;
}

static void ignore_errors(void *ctx, const char *msg, ...)
{
}

int xml_parse(const char *text, size_t len, xmlDoc **ret, struct error *e)
{
	const char *why = "it is not well-formed";
	xmlParserCtxt *parser = NULL;
	xmlDoc *doc = NULL;

	/* Refused before the parser reads them; other encodings than UTF-8 are caught after it. */
	if (len == 0 || len > INT32_MAX) {
		why = len == 0 ? "it is empty" : "it is too long";
	} else if (memmem(text, len, "<!DOCTYPE", 9) || memmem(text, len, "<!ENTITY", 8)) {
		why = "document type declarations are not accepted";
	} else if ((parser = xmlNewParserCtxt())) {
		parser->sax->error = parser->sax->warning = ignore_errors;
		doc = xmlCtxtReadMemory(parser, text, (int)len, NULL, NULL,
					XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
					    XML_PARSE_NOCDATA | XML_PARSE_COMPACT);
		if (doc && doc->intSubset)
			why = "document type declarations are not accepted";
		else if (doc && too_deep(xmlDocGetRootElement(doc)))
			why = "it is nested too deeply";
		else if (doc && xmlDocGetRootElement(doc))
			why = NULL;
		xmlFreeParserCtxt(parser);
	}
	if (why) {
		if (doc)
			xmlFreeDoc(doc);
		error_set(e, CODE, "The XML cannot be read: %s.", why);
		return -EINVAL;
	}
	*ret = doc;
	return 0;
}

/* --- the tree ------------------------------------------------------------------------------- */

static const xmlNode *next_element(const xmlNode *n)
{
	while (n && n->type != XML_ELEMENT_NODE)
		n = n->next;
	return n;
}

#define for_each_element(n, parent)                                                                \
	for (const xmlNode *n = next_element((parent)->children); n; n = next_element(n->next))

const xmlNode *xml_child(const xmlNode *element, const char *name)
{
	for_each_element(n, element) if (str_eq((const char *)n->name, name)) return n;
	return NULL;
}

static bool is_text(const xmlNode *n)
{
	return n->type == XML_TEXT_NODE || n->type == XML_CDATA_SECTION_NODE;
}

const char *xml_text(struct arena *a, const xmlNode *element, size_t *ret_len)
{
	size_t len = 0, used = 0;
	char *text;

	for (const xmlNode *n = element->children; n; n = n->next)
		len += is_text(n) && n->content ? strlen((const char *)n->content) : 0;
	text = arena_alloc(a, len + 1);
	for (const xmlNode *n = element->children; n; n = n->next) {
		if (!is_text(n) || !n->content)
			continue;
		memcpy(text + used, n->content, strlen((const char *)n->content));
		used += strlen((const char *)n->content);
	}
	if (ret_len)
		*ret_len = len;
	return text;
}

/* --- shapes --------------------------------------------------------------------------------- */

static int fail(struct xml_reader *x, const struct wire_path *path, const char *code,
		const char *what)
{
	char where[WIRE_PATH_LEN];

	error_set(x->e, code, "%s %s.", path_print(path, where), what);
	return -EINVAL;
}

static const char *name_of(const struct xml_reader *x, const struct wire_member *m)
{
	return x->reply ? m->out : m->in;
}

static int read_scalar(struct xml_reader *x, const struct wire_shape *shape, const xmlNode *element,
		       bool item, const struct wire_path *path, void *dst)
{
	char why[80], what[80];
	struct wire_scalar v;
	const char *text;
	size_t len;

	if (next_element(element->children))
		return fail(x, path, CODE, "must hold text alone");
	text = xml_text(x->arena, element, &len);
	if (shape->type != WIRE_STRING) {
		size_t lead = strspn(text, " \t\r\n");

		text += lead;
		len -= lead;
		while (len > 0 && strchr(" \t\r\n", text[len - 1]))
			len--;
	}
	if (scalar_parse(x->arena, shape, text, len, &v) < 0) {
		snprintf(what, sizeof(what), "must be %s", type_phrase(shape->type));
		return fail(x, path, CODE, what);
	}
	if (!x->reply && scalar_check(shape, &v, why, sizeof(why)) < 0)
		return fail(x, path, CODE, why);
	scalar_store(shape, item, dst, &v);
	return 0;
}

/* The items of a list: the children of `parent` called `name` (any, for NULL). */
static int read_list(struct xml_reader *x, const struct wire_shape *shape, const xmlNode *parent,
		     const char *name, const struct wire_path *path, struct wire_list *dst)
{
	size_t count = 0, i = 0;
	char *items, why[80];
	int r;

	for_each_element(n, parent) count += !name || str_eq((const char *)n->name, name);
	if (!x->reply && list_check(shape, count, why, sizeof(why)) < 0)
		return fail(x, path, CODE, why);
	items = arena_calloc(x->arena, count, shape->item->size);
	for_each_element(n, parent)
	{
		struct wire_path at = {.up = path, .index = i + 1};
		void *item = items + i * shape->item->size;

		if (name && !str_eq((const char *)n->name, name))
			continue;
		r = shape->item->type == WIRE_STRUCT
			? read_struct(x, shape->item, n, &at, item)
			: read_scalar(x, shape->item, n, true, &at, item);
		if (r < 0)
			return r;
		i++;
	}
	*dst = (struct wire_list){.set = true, .count = count, .items = items};
	return 0;
}

static int read_member(struct xml_reader *x, const struct wire_member *m, const xmlNode *element,
		       const struct wire_path *path, void *base)
{
	void *dst = member_at(base, m), *child;
	int r;

	if (m->flags & WIRE_FLATTENED) {
		if (((struct wire_list *)dst)->set)
			return 0; /* the first of its elements read them all */
		return read_list(x, m->shape, element->parent, name_of(x, m), path, dst);
	}
	if (member_present(base, m))
		return fail(x, path, CODE, "is there twice");
	switch (m->shape->type) {
	case WIRE_STRUCT:
		child = arena_alloc(x->arena, m->shape->size);
		r = read_struct(x, m->shape, element, path, child);
		if (r >= 0)
			*(void **)dst = child;
		return r;
	case WIRE_LIST:
		return read_list(x, m->shape, element, NULL, path, dst);
	case WIRE_MAP:
		return fail(x, path, CODE, "is a map, which is not supported");
	default:
		return read_scalar(x, m->shape, element, false, path, dst);
	}
}

static const struct wire_member *find_member(const struct xml_reader *x,
					     const struct wire_shape *shape, const char *name)
{
	for (size_t i = 0; i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];

		if (m->location == WIRE_IN_BODY && !(m->flags & (WIRE_ATTRIBUTE | WIRE_TEXT)) &&
		    str_eq(name_of(x, m), name))
			return m;
	}
	return NULL;
}

/* Members that are no elements: attributes, and the structure's own text. */
static int read_attributes(struct xml_reader *x, const struct wire_shape *shape,
			   const xmlNode *element, const struct wire_path *path, void *dst)
{
	for (size_t i = 0; i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];
		const char *colon = strchr(name_of(x, m), ':');
		const char *name = colon ? colon + 1 : name_of(x, m);
		const xmlAttr *attribute;
		int r = 0;

		if (m->flags & WIRE_NO_FIELD)
			continue;
		if (m->flags & WIRE_TEXT) {
			r = read_scalar(x, m->shape, element, false, path, member_at(dst, m));
		} else if (m->flags & WIRE_ATTRIBUTE) {
			attribute = xmlHasProp(element, (const xmlChar *)name);
			if (attribute)
				r = read_scalar(x, m->shape, (const xmlNode *)attribute, false,
						path, member_at(dst, m));
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static int check_required(struct xml_reader *x, const struct wire_shape *shape,
			  const struct wire_path *path, const void *value)
{
	for (size_t i = 0; i < shape->member_count && !x->reply; i++) {
		const struct wire_member *m = &shape->members[i];
		struct wire_path at = {.up = path, .name = m->in};

		if ((m->flags & WIRE_REQUIRED) && !(m->flags & (WIRE_NO_FIELD | WIRE_UNSERVED)) &&
		    m->location == WIRE_IN_BODY && !member_present(value, m))
			return fail(x, &at, CODE, "is missing");
	}
	return 0;
}

static int read_struct(struct xml_reader *x, const struct wire_shape *shape, const xmlNode *element,
		       const struct wire_path *path, void *dst)
{
	int r = read_attributes(x, shape, element, path, dst);

	if (r < 0)
		return r;
	for_each_element(n, element)
	{
		const struct wire_member *m = find_member(x, shape, (const char *)n->name);
		struct wire_path at = {.up = path, .name = (const char *)n->name};

		if (!m && x->reply)
			continue;
		if (!m)
			return fail(x, &at, CODE, "is no element that belongs here");
		if ((m->flags & WIRE_NO_FIELD) || (!x->reply && (m->flags & WIRE_UNSERVED)))
			return fail(x, &at, "NotImplemented", "is not supported by this cloud");
		r = read_member(x, m, n, &at, dst);
		if (r < 0)
			return r;
	}
	return check_required(x, shape, path, dst);
}

int xml_read_struct(struct xml_reader *x, const struct wire_shape *shape, const xmlNode *element,
		    void *dst)
{
	struct wire_path path = {.name = (const char *)element->name};

	return read_struct(x, shape, element, &path, dst);
}

int wire_xml_decode(struct arena *a, const struct wire_shape *shape, const char *text, size_t len,
		    void **ret, struct error *e)
{
	struct xml_reader x = {.arena = a, .e = e};
	xmlDoc *doc = NULL;
	void *dst;
	int r = xml_parse(text, len, &doc, e);

	if (r < 0)
		return r;
	dst = arena_alloc(a, shape->size);
	r = xml_read_struct(&x, shape, xmlDocGetRootElement(doc), dst);
	xmlFreeDoc(doc);
	if (r < 0)
		return r;
	*ret = dst;
	return 0;
}

void wire_xml_encode(const struct wire_shape *shape, const char *root, const char *xmlns,
		     const void *value, struct buf *out)
{
	buf_puts(out, XML_PROLOGUE);
	xml_open(out, root, xmlns, shape, value);
	xml_put_members(out, shape, value);
	xml_close(out, root);
}
