/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"
#include "gen/cluster.h"
#include "gen/records.h"
#include "gen/shared.h"
#include "wire/codec.h"
#include "wire/value_priv.h"

static int decode(struct arena *a, const struct wire_shape *shape, const char *text, bool strict,
		  void **ret, struct error *e)
{
	return wire_json_decode(a, shape, text, strlen(text), strict, ret, e);
}

static void refused(const struct wire_shape *shape, const char *text, const char *words)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	void *out = (void *)1;
	struct error e = {0};

	assert_true(decode(a, shape, text, true, &out, &e) < 0);
	assert_string_equal(e.code, "SerializationException");
	if (!strstr(e.message, words))
		fail_msg("%s: %s", text, e.message);
	assert_ptr_equal(out, (void *)1);
}

/* What the test has nothing to say about, but the shape requires. */
static void fill_required(const struct wire_shape *shape, void *value)
{
	for (size_t i = 0; i < shape->member_count; i++) {
		const struct wire_member *m = &shape->members[i];

		if (!(m->flags & WIRE_REQUIRED) || member_present(value, m))
			continue;
		if (m->shape->type == WIRE_STRING)
			*(const char **)member_at(value, m) = "x";
		else
			*(struct wire_int *)member_at(value, m) = WIRE_INT_OF(1);
	}
}

static void test_round_trip(void **state)
{
	struct shared_tag tags[] = {{"Name", "quote \" back \\ line \n tab \t bell \x07 \xc3\xa9"},
				    {"b", ""}};
	struct shared_metadata_options options = {.http_tokens = "required",
						  .http_put_response_hop_limit = WIRE_INT_OF(0)};
	struct shared_instance_spec spec = {
	    .instance_id = "i-1",
	    .generation = WIRE_INT_OF(INT64_MAX),
	    .wanted = "running",
	    .disk_bytes = WIRE_INT_OF(INT64_MIN),
	    .launch_time = WIRE_TIME_OF(1795341600123),
	    .user_data = {"\0\1\xff", 3},
	    .metadata_options = &options,
	    .tags = {.set = true, .count = 2, .items = tags},
	};
	struct shared_apply_instances_request in = {
	    .full = WIRE_BOOL_OF(false), .instances = {.set = true, .count = 1, .items = &spec}};
	const struct wire_shape *shape = &shared_shape_apply_instances_request;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(buf_done) struct buf text = BUF_INIT, again = BUF_INIT;
	struct shared_apply_instances_request *out = NULL;

	fill_required(&shared_shape_instance_spec, &spec);
	wire_json_encode(shape, &in, &text);
	assert_null(strchr(text.data, '\n'));
	assert_int_equal(decode(a, shape, text.data, true, (void **)&out, NULL), 0);
	assert_true(wire_equal(shape, &in, out));
	wire_json_encode(shape, out, &again);
	assert_string_equal(text.data, again.data);
}

static void test_presence(void **state)
{
	const struct wire_shape *shape = &shared_shape_describe_instances_request;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct shared_describe_instances_request *in = NULL;

	assert_int_equal(decode(a, shape, "{}", true, (void **)&in, NULL), 0);
	assert_null(in->epoch);
	assert_false(in->since_revision.set);
	assert_int_equal(decode(a, shape, "{\"Epoch\":\"\",\"SinceRevision\":0,\"WaitMs\":null}",
				true, (void **)&in, NULL),
			 0);
	assert_string_equal(in->epoch, "");
	assert_true(in->since_revision.set);
	assert_false(in->wait_ms.set);
}

static void test_empty_list(void **state)
{
	const struct wire_shape *shape = &shared_shape_forget_instances_request;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	struct shared_forget_instances_request *in = NULL, none = {0};

	assert_int_equal(decode(a, shape, "{\"InstanceIds\":[]}", true, (void **)&in, NULL), 0);
	assert_true(in->instance_ids.set);
	assert_int_equal(in->instance_ids.count, 0);
	wire_json_encode(shape, in, &text);
	assert_string_equal(text.data, "{\"InstanceIds\":[]}");
	assert_false(wire_equal(shape, in, &none));
}

static void test_types_refused(void **state)
{
	const struct wire_shape *describe = &shared_shape_describe_instances_request;
	const struct wire_shape *reserve = &cluster_shape_reserve_capacity_request;

	refused(describe, "", "not JSON");
	refused(describe, "{", "not JSON");
	refused(describe, "{} {}", "not JSON");
	refused(describe, "{\"Epoch\":\"\\u0000\"}", "not JSON");
	refused(describe, "{\"Epoch\":\"a\",\"Epoch\":\"b\"}", "not JSON");
	refused(describe, "[]", "must be an object");
	refused(describe, "{\"Epoch\":1}", "Epoch: must be a string");
	refused(describe, "{\"SinceRevision\":\"1\"}", "SinceRevision: must be an integer");
	refused(describe, "{\"SinceRevision\":1.0}", "must be an integer");
	refused(describe, "{\"SinceRevision\":99999999999999999999}", "not JSON");
	refused(&shared_shape_apply_instances_request, "{\"Full\":1}",
		"Full: must be true or false");
	refused(&shared_shape_forget_instances_request, "{\"InstanceIds\":{}}", "must be a list");
	refused(&shared_shape_forget_instances_request, "{\"InstanceIds\":[\"a\",1]}",
		"InstanceIds.2");
	refused(reserve, "{\"Instances\":[{\"InstanceId\":\"i\"}]}",
		"Instances.1.Vcpus: is missing");
	refused(reserve, "{\"Instances\":[null]}", "Instances.1: must be an object");
	refused(
	    &records_shape_account,
	    "{\"AccountId\":\"1\",\"Name\":\"n\",\"CanonicalId\":\"c\",\"CreateTime\":\"soon\"}",
	    "CreateTime: must be a timestamp");
}

static void test_unknown_members(void **state)
{
	const char *text = "{\"Epoch\":\"e\",\"Frob\":[1,{\"a\":2}]}";
	const struct wire_shape *shape = &shared_shape_describe_instances_request;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct shared_describe_instances_request *in = NULL;

	refused(shape, text, "Frob: is not a member");
	assert_int_equal(decode(a, shape, text, false, (void **)&in, NULL), 0);
	assert_string_equal(in->epoch, "e");
}

/* A message that was cut within a character, say. */
static void test_bad_text(void **state)
{
	const struct wire_shape *shape = &shared_shape_describe_instances_request;
	struct shared_describe_instances_request in = {.epoch = "caf\xc3"}, *out = NULL;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(buf_done) struct buf text = BUF_INIT;

	wire_json_encode(shape, &in, &text);
	assert_int_equal(decode(a, shape, text.data, true, (void **)&out, NULL), 0);
	assert_string_equal(out->epoch, "caf\xef\xbf\xbd");
}

static void test_deep(void **state)
{
	_cleanup_(buf_done) struct buf text = BUF_INIT;

	for (int i = 0; i < 100000; i++)
		buf_puts(&text, "{\"Instances\":[");
	refused(&cluster_shape_reserve_capacity_request, text.data, "not JSON");
}

static void test_copy(void **state)
{
	struct shared_tag tags[] = {{"a", "1"}, {"b", NULL}};
	const struct wire_shape *shape = &records_shape_resource_tags;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct records_resource_tags in = {.resource_id = "i-1",
					   .resource_type = "instance",
					   .tags = {.set = true, .count = 2, .items = tags}};
	struct records_resource_tags *copy = wire_copy(a, shape, &in);

	assert_true(wire_equal(shape, &in, copy));
	assert_ptr_not_equal(copy->tags.items, tags);
	assert_ptr_not_equal(copy->tags.items[0].key, tags[0].key);
	copy->tags.items[1].value = "";
	assert_false(wire_equal(shape, &in, copy));
	copy->tags.items[1].value = NULL;
	copy->tags.count = 1;
	assert_false(wire_equal(shape, &in, copy));
	assert_null(wire_copy(a, shape, NULL));
	assert_true(wire_equal(shape, NULL, NULL));
	assert_false(wire_equal(shape, &in, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_round_trip),	    cmocka_unit_test(test_presence),
	    cmocka_unit_test(test_empty_list),	    cmocka_unit_test(test_types_refused),
	    cmocka_unit_test(test_unknown_members), cmocka_unit_test(test_deep),
	    cmocka_unit_test(test_bad_text),	    cmocka_unit_test(test_copy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
