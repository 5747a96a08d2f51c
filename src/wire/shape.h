/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_WIRE_SHAPE_H
#define MALLEE_WIRE_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Shapes: the tables that the generator (tools/generate) emits from the service models and that
 * every codec walks. A C struct per structure shape; a table that tells name, type, offset and wire
 * names of each member.
 *
 * C form of a member, by its shape's type; absent, empty and zero stay distinct:
 *   WIRE_STRING     const char *            NULL absent
 *   WIRE_BLOB       struct wire_blob        data NULL absent
 *   WIRE_INT        struct wire_int         set
 *   WIRE_BOOL       struct wire_bool        set
 *   WIRE_DOUBLE     struct wire_double      set
 *   WIRE_TIME       struct wire_time        set; milliseconds since 1970 UTC
 *   WIRE_STRUCT     struct SVC_x *          NULL absent
 *   WIRE_LIST       struct { bool set; size_t count; T *items; } with T = const char *, int64_t,
 * struct SVC_x, … (same layout as struct wire_list) WIRE_MAP        struct wire_map         string
 * to string Everything that a codec makes lives in the arena that it is given.
 */
enum wire_type {
	WIRE_STRING,
	WIRE_BLOB,
	WIRE_INT,
	WIRE_BOOL,
	WIRE_DOUBLE,
	WIRE_TIME,
	WIRE_STRUCT,
	WIRE_LIST,
	WIRE_MAP
};

struct wire_blob {
	const void *data;
	size_t len;
};
struct wire_int {
	bool set;
	int64_t value;
};
struct wire_bool {
	bool set;
	bool value;
};
struct wire_double {
	bool set;
	double value;
};
struct wire_time {
	bool set;
	int64_t value;
};
struct wire_list {
	bool set;
	size_t count;
	void *items;
};
struct wire_pair {
	const char *key, *value;
};
struct wire_map {
	bool set;
	size_t count;
	struct wire_pair *items;
};
struct wire_string_list {
	bool set;
	size_t count;
	const char **items;
};
struct wire_int_list {
	bool set;
	size_t count;
	int64_t *items;
};

#define WIRE_INT_OF(v) ((struct wire_int){.set = true, .value = (v)})
#define WIRE_BOOL_OF(v) ((struct wire_bool){.set = true, .value = (v)})
#define WIRE_TIME_OF(ms) ((struct wire_time){.set = true, .value = (ms)})

enum wire_time_format { WIRE_TIME_ISO, WIRE_TIME_HTTP, WIRE_TIME_EPOCH };

/* Where a member travels (REST protocols; WIRE_IN_BODY for Query and JSON). */
enum wire_location {
	WIRE_IN_BODY,
	WIRE_IN_URI,
	WIRE_IN_QUERY,
	WIRE_IN_HEADER,
	WIRE_IN_HEADERS, /* map, `in` is the prefix */
	WIRE_IN_STATUS
};

enum wire_member_flag {
	WIRE_REQUIRED = 1 << 0,
	WIRE_UNSERVED =
	    1
	    << 1, /* the model has it, we don't serve it: given on input, it is refused. It has a C
		   * member only if its structure is written as well as read (see WIRE_NO_FIELD) */
	WIRE_FLATTENED = 1 << 2, /* XML list without a wrapping element */
	WIRE_PAYLOAD = 1 << 3,	 /* REST: this member is the body */
	WIRE_STREAMING = 1 << 4, /* payload that is streamed past the codecs: no C member */
	WIRE_SENSITIVE = 1 << 5,
	WIRE_ATTRIBUTE = 1 << 6,   /* XML attribute of its structure's element */
	WIRE_MEMBER_LIST = 1 << 7, /* awsQuery: list indexes follow ".member" */
	WIRE_NO_FIELD = 1 << 8,	   /* no C member: shape is NULL, offset meaningless */
	WIRE_TEXT =
	    1 << 9, /* XML: this member is its structure's own text (S3's LocationConstraint) */
};

struct wire_shape;

struct wire_member {
	const char *name; /* the model's name: JSON key, and what error messages say */
	const char *in;	  /* name on input: Query key, XML element, header, query-string key */
	const char *out;  /* name on output: XML element, header */
	const struct wire_shape *shape;
	uint32_t offset; /* in the C struct; meaningless with WIRE_NO_FIELD */
	uint16_t flags;
	uint8_t location;    /* enum wire_location */
	uint8_t time_format; /* enum wire_time_format */
};

struct wire_shape {
	const char *name; /* the model's name */
	enum wire_type type;
	size_t size; /* of the C struct (WIRE_STRUCT), or of one list item (any other type: of its C
			form as an item) */
	const struct wire_member *members; /* WIRE_STRUCT */
	size_t member_count;
	const struct wire_shape *item; /* WIRE_LIST; item->size is the stride of items */
	const char *item_name;	       /* element name on output, "item" for EC2 */
	int64_t min, max; /* numbers: range; strings, blobs, lists: length; min > max: unlimited */
	const char *const
	    *enum_values; /* NULL-terminated, sorted; informative: codecs never refuse by it */
};

enum wire_protocol { WIRE_EC2, WIRE_AWS_QUERY, WIRE_REST_XML, WIRE_RPC /* our own: JSON */ };

enum wire_action_flag {
	WIRE_ACTION_DRY_RUN = 1 << 0,	   /* input has DryRun (EC2) */
	WIRE_ACTION_STREAM_IN = 1 << 1,	   /* request body is streamed */
	WIRE_ACTION_STREAM_OUT = 1 << 2,   /* reply body is streamed */
	WIRE_ACTION_RETURNS_TRUE = 1 << 3, /* no output shape: <return>true</return> (EC2) */
	WIRE_ACTION_MD5_REQUIRED = 1 << 4,
};

/* How REST requests find their action, in the order of the table: method and path form, then query
 * keys that must be there ("uploads", "uploadId"), then a header that must be there. */
struct wire_route {
	const char *method;	  /* "GET" */
	uint8_t path_labels;	  /* 0 service, 1 bucket, 2 bucket and key */
	const char *const *query; /* NULL-terminated, NULL for none */
	const char *header;	  /* "x-amz-copy-source", NULL for none */
	uint16_t success_status;  /* 200, 204, … */
};

/* Between members of one input: what the model does not say; from the overlays. */
enum wire_rule_kind { WIRE_ONE_OF, WIRE_AT_MOST_ONE, WIRE_RANGE, WIRE_PATTERN_ID, WIRE_VALUES };
struct wire_rule {
	enum wire_rule_kind kind;
	const char *const *members; /* member names, NULL-terminated; dotted for nested ones */
	int64_t min, max;	    /* WIRE_RANGE */
	const char *text;	    /* WIRE_PATTERN_ID: the id prefix; */
	const char *code;	    /* error code when broken; NULL for the protocol's default */
	const char *const *values; /* WIRE_VALUES: the only values that we serve, NULL-terminated */
};

struct wire_action {
	const char *name;
	const struct wire_shape *input;	 /* NULL: none */
	const struct wire_shape *output; /* NULL: none */
	const char *output_root; /* XML root element (REST-XML), result wrapper (AWS Query), reply
				    element (EC2) */
	uint32_t flags;
	uint32_t roles;		 /* WIRE_RPC: TLS_ROLE_BIT()s of who may call */
	struct wire_route route; /* WIRE_REST_XML */
	const struct wire_rule *rules;
	size_t rule_count;
};

struct wire_error_status {
	const char *code;
	int http_status;
	const char *default_message;
};

struct wire_service {
	const char *name;	 /* "ec2", as in the SigV4 scope; "node" */
	const char *api_version; /* "2016-11-15" */
	const char *xml_namespace;
	enum wire_protocol protocol;
	const struct wire_action
	    *actions; /* Query and RPC: sorted by name; REST: in routing order */
	size_t action_count;
	const char *const *known_actions; /* every action of the model, sorted, NULL-terminated: to
					     tell "not served" from "no such action" */
	const struct wire_error_status *errors; /* sorted by code */
	size_t error_count;
	/* WIRE_REST_XML, each NULL-terminated: */
	const char *const
	    *subresources; /* every query key that names an action of the model: acl, policy, … */
	const char *const *passed_query; /* keys that are no parameter of the action (signatures); a
					    final * matches any rest */
	const char *const *passed_headers; /* x-amz-* headers that are none either */
};

/* The table's entry of an error code, or NULL. */
const struct wire_error_status *wire_error_find(const struct wire_service *s, const char *code);
const struct wire_action *wire_action_find(const struct wire_service *s, const char *name);
/* HTTP status of an error code: the table's, else 400 (500 for codes starting "Internal", 503 for
 * "Unavailable"). */
int wire_error_http_status(const struct wire_service *s, const char *code);

#endif
