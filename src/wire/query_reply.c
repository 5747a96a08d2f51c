/* SPDX-License-Identifier: Apache-2.0 */
/* Query replies, EC2's and the other services' flavour: written for clients, read by tests and
 * tools. */
#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "wire/codec.h"
#include "wire/xml_priv.h"

static void ec2_reply(const struct wire_service *s, const struct wire_action *act,
		      const void *value, const char *request_id, struct buf *out)
{
	buf_printf(out, "<%s xmlns=\"%s\">", act->output_root, s->xml_namespace);
	xml_put_element(out, "requestId", request_id);
	if (act->flags & WIRE_ACTION_RETURNS_TRUE)
		buf_puts(out, "<return>true</return>");
	else
		xml_put_members(out, act->output, value);
	xml_close(out, act->output_root);
}

static void aws_reply(const struct wire_service *s, const struct wire_action *act,
		      const void *value, const char *request_id, struct buf *out)
{
	buf_printf(out, "<%sResponse xmlns=\"%s\">", act->name, s->xml_namespace);
	if (act->output) {
		xml_open(out, act->output_root, NULL, NULL, NULL);
		xml_put_members(out, act->output, value);
		xml_close(out, act->output_root);
	}
	buf_puts(out, "<ResponseMetadata>");
	xml_put_element(out, "RequestId", request_id);
	buf_printf(out, "</ResponseMetadata></%sResponse>", act->name);
}

void wire_query_reply(const struct wire_service *s, const struct wire_action *act,
		      const void *out_struct, const char *request_id, struct buf *out)
{
	buf_puts(out, XML_PROLOGUE);
	if (s->protocol == WIRE_EC2)
		ec2_reply(s, act, out_struct, request_id, out);
	else
		aws_reply(s, act, out_struct, request_id, out);
}

void wire_query_error(const struct wire_service *s, const struct error *err, const char *request_id,
		      struct buf *out)
{
	const char *type = wire_error_http_status(s, err->code) >= 500 ? "Receiver" : "Sender";

	buf_puts(out, XML_PROLOGUE);
	if (s->protocol == WIRE_EC2)
		buf_puts(out, "<Response><Errors><Error>");
	else
		buf_printf(out, "<ErrorResponse xmlns=\"%s\"><Error><Type>%s</Type>",
			   s->xml_namespace, type);
	xml_put_element(out, "Code", err->code);
	xml_put_element(out, "Message", wire_error_message(s, err));
	buf_puts(out, s->protocol == WIRE_EC2 ? "</Error></Errors>" : "</Error>");
	xml_put_element(out, s->protocol == WIRE_EC2 ? "RequestID" : "RequestId", request_id);
	buf_puts(out, s->protocol == WIRE_EC2 ? "</Response>" : "</ErrorResponse>");
}

/* Fills *e when the reply is an error: <Response><Errors><Error> or <ErrorResponse><Error>. */
static bool read_error(struct arena *a, const xmlNode *root, struct error *e)
{
	const xmlNode *error = root;
	const xmlNode *code, *message;

	if (xml_child(error, "Errors"))
		error = xml_child(error, "Errors");
	error = xml_child(error, "Error");
	code = error ? xml_child(error, "Code") : NULL;
	if (!code)
		return false;
	message = xml_child(error, "Message");
	error_set(e, xml_text(a, code, NULL), "%s", message ? xml_text(a, message, NULL) : "");
	return true;
}

int wire_query_reply_decode(struct arena *a, const struct wire_service *s,
			    const struct wire_action *act, const char *xml, size_t len,
			    void **ret_out, struct error *e)
{
	struct xml_reader x = {.arena = a, .reply = true, .e = e};
	const xmlNode *element;
	xmlDoc *doc = NULL;
	void *out = NULL;
	int r = xml_parse(xml, len, &doc, e);

	if (r < 0)
		return r;
	element = xmlDocGetRootElement(doc);
	if (str_eq((const char *)element->name, "Response") ||
	    str_eq((const char *)element->name, "ErrorResponse")) {
		if (!read_error(a, element, e))
			error_set(e, "MalformedXML", "The service's error reply has no code.");
		r = -EREMOTEIO;
	} else if (act->output) {
		if (s->protocol == WIRE_AWS_QUERY)
			element = xml_child(element, act->output_root);
		out = arena_alloc(a, act->output->size);
		r = element ? xml_read_struct(&x, act->output, element, out) : 0;
	}
	xmlFreeDoc(doc);
	if (r >= 0)
		*ret_out = out;
	return r;
}
