/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_WIRE_CODEC_H
#define MALLEE_WIRE_CODEC_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "wire/shape.h"

/*
 * The codecs: Query (EC2 and AWS flavours), JSON (our own messages and state records), XML and
 * REST-XML (S3). All walk shape tables; none knows an action. Decoders allocate a zeroed struct in
 * the arena, check types, required members, lengths, unknown and unserved names, and give the
 * service's own error codes: MissingParameter, InvalidParameterValue, UnknownParameter,
 * UnsupportedOperation (unserved), MalformedQueryString, InvalidParameterCombination (rules) for
 * Query; MalformedXML, InvalidArgument, … for S3; SerializationException for JSON.
 */

/* A parsed form or query string, in order; keys and values decoded, NUL-free, UTF-8. */
struct wire_params {
	size_t count;
	struct wire_pair *items;
};
/* text is the raw (still encoded) query string or application/x-www-form-urlencoded body. Limits:
 * 4,000 parameters. */
int wire_params_parse(struct arena *a, const char *text, size_t len, struct wire_params *ret,
		      struct error *e);
const char *wire_params_get(const struct wire_params *p, const char *key); /* NULL when absent */

/* The action that a Query request names, or NULL with MissingAction, MissingParameter (Version),
 * NoSuchVersion or InvalidAction (also for actions of the model that we don't serve) in *e. */
const struct wire_action *wire_query_route(const struct wire_service *s,
					   const struct wire_params *params, struct error *e);

/* Query. `reserved` keys (Action, Version, X-Amz-…, DryRun is a member) are skipped. List index
 * limit: 1000 an array. */
int wire_query_decode(struct arena *a, const struct wire_service *s, const struct wire_action *act,
		      const struct wire_params *params, void **ret_in, struct error *e);
/* A request as a client sends it (tests, the mallee command): Action and Version included. */
void wire_query_encode(const struct wire_service *s, const struct wire_action *act, const void *in,
		       struct buf *out);
/* Whole XML reply, EC2 or AWS Query flavour by s->protocol. */
void wire_query_reply(const struct wire_service *s, const struct wire_action *act,
		      const void *out_struct, const char *request_id, struct buf *out);
void wire_query_error(const struct wire_service *s, const struct error *err, const char *request_id,
		      struct buf *out);
/* Client side: an XML reply into its struct; a service error into *e (code and message as sent). */
int wire_query_reply_decode(struct arena *a, const struct wire_service *s,
			    const struct wire_action *act, const char *xml, size_t len,
			    void **ret_out, struct error *e);

/* What a client reads: the error's own message, else the table's default, else the code. Lives as
 * long as both. */
const char *wire_error_message(const struct wire_service *s, const struct error *err);

/* JSON: one shape. Unknown members are refused with `strict`, and else skipped (records written by
 * a newer version). */
int wire_json_decode(struct arena *a, const struct wire_shape *shape, const char *text, size_t len,
		     bool strict, void **ret, struct error *e);
void wire_json_encode(const struct wire_shape *shape, const void *value,
		      struct buf *out); /* one line */

/* XML: one shape under a root element, namespaces ignored on input. DTDs and entities are refused;
 * depth limit 64. */
int wire_xml_decode(struct arena *a, const struct wire_shape *shape, const char *text, size_t len,
		    void **ret, struct error *e);
void wire_xml_encode(const struct wire_shape *shape, const char *root, const char *xmlns,
		     const void *value, struct buf *out);

/* REST-XML. A request's parts as the HTTP layer has them. */
struct wire_rest_request {
	const char *method;
	const char *bucket; /* NULL: service level; decoded */
	const char *key;    /* NULL: bucket level; decoded */
	const struct wire_params *query;
	const char *(*header)(void *ctx, const char *name); /* NULL when absent */
	void (*each_header)(void *ctx,
			    void (*fn)(void *fn_ctx, const char *name, const char *value),
			    void *fn_ctx);
	void *header_ctx;
	const char *body; /* NULL when streamed */
	size_t body_len;
};
/* The action that this request means, or NULL with NotImplemented / MethodNotAllowed in *e. */
const struct wire_action *wire_rest_route(const struct wire_service *s,
					  const struct wire_rest_request *r, struct error *e);
int wire_rest_decode(struct arena *a, const struct wire_service *s, const struct wire_action *act,
		     const struct wire_rest_request *r, void **ret_in, struct error *e);
/* Reply: status, headers through the callback, XML body into out (empty for streamed and body-less
 * replies). */
void wire_rest_reply(const struct wire_service *s, const struct wire_action *act,
		     const void *out_struct, int *ret_status,
		     void (*add_header)(void *ctx, const char *name, const char *value), void *ctx,
		     struct buf *out);
void wire_rest_error(const struct wire_service *s, const struct error *err, const char *resource,
		     const char *request_id, struct buf *out);

/* Rules of the overlays (one of, at most one, ranges, id formats) on a decoded input; called by the
 * decoders. */
int wire_validate(const struct wire_service *s, const struct wire_action *act, const void *in,
		  struct error *e);

/* Deep copy of a value into another arena, by its shape; and deep equality. */
void *wire_copy(struct arena *a, const struct wire_shape *shape, const void *value);
bool wire_equal(const struct wire_shape *shape, const void *x, const void *y);

#endif
