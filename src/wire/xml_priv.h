/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_WIRE_XML_PRIV_H
#define MALLEE_WIRE_XML_PRIV_H

#include <libxml/tree.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "wire/shape.h"

#define XML_PROLOGUE "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"

/* --- writing (xml_write.c) --- */

/* Text with markup escaped; what XML cannot carry at all becomes U+FFFD. */
void xml_put_text(struct buf *out, const char *s);
/* <name>text</name>; nothing for a NULL text. */
void xml_put_element(struct buf *out, const char *name, const char *text);
/* <root xmlns="…" attributes> of a structure; either may be NULL. */
void xml_open(struct buf *out, const char *root, const char *xmlns, const struct wire_shape *shape,
	      const void *value);
void xml_close(struct buf *out, const char *root);
/* The members that travel in the body, in the model's order, without the element round them. */
void xml_put_members(struct buf *out, const struct wire_shape *shape, const void *value);

/* --- reading (xml_read.c) --- */

/* Well-formed, without a DTD, at most 64 elements deep; else code MalformedXML. Free with
 * xmlFreeDoc. */
int xml_parse(const char *text, size_t len, xmlDoc **ret, struct error *e);

struct xml_reader {
	struct arena *arena;
	bool reply; /* names are the output's; unknown elements are skipped; nothing is required */
	struct error *e; /* codes MalformedXML, NotImplemented */
};
/* The body members of a structure out of the element's children. */
int xml_read_struct(struct xml_reader *x, const struct wire_shape *shape, const xmlNode *element,
		    void *dst);
/* The child of that name, or NULL. */
const xmlNode *xml_child(const xmlNode *element, const char *name);
/* An element's whole text, in the arena. */
const char *xml_text(struct arena *a, const xmlNode *element, size_t *ret_len);

#endif
