/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XML: the first line names one of S3's request bodies, or an action of EC2 whose reply it is.
 * Bodies that are accepted are written; replies that are read are written, read again and found
 * equal.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "gen/ec2.h"
#include "gen/s3.h"
#include "wire/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void body(const struct wire_shape *shape, const char *text, size_t len)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct error e = {0};
	void *value;

	if (wire_xml_decode(a, shape, text, len, &value, &e) < 0) {
		if (!error_is_set(&e))
			abort();
		return;
	}
	wire_xml_encode(shape, "Root", "urn:x", value, &out);
}

static void reply(const struct wire_action *act, const char *text, size_t len)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	void *value = NULL, *again = NULL;
	struct error e = {0};

	if (wire_query_reply_decode(a, &ec2_service, act, text, len, &value, &e) < 0) {
		if (!error_is_set(&e))
			abort();
		return;
	}
	wire_query_reply(&ec2_service, act, value, "r", &out);
	if (wire_query_reply_decode(a, &ec2_service, act, out.data, out.len, &again, &e) < 0)
		abort();
	if (act->output && !wire_equal(act->output, value, again))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct wire_shape *const shapes[] = {&s3_shape_delete,
							  &s3_shape_completed_multipart_upload,
							  &s3_shape_create_bucket_configuration};
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const char *text = (const char *)data, *end = memchr(text, '\n', size), *name;
	const struct wire_action *act;

	if (!end)
		return 0;
	name = arena_strndup(a, text, (size_t)(end - text));
	size -= (size_t)(end + 1 - text);
	act = wire_action_find(&ec2_service, name);
	if (act)
		reply(act, end + 1, size);
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		if (str_eq(shapes[i]->name, name))
			body(shapes[i], end + 1, size);
	return 0;
}
