/* SPDX-License-Identifier: Apache-2.0 */
/* Edges of the Query codec; that it agrees with botocore is shown by tests/golden. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"
#include "gen/ec2.h"
#include "gen/sts.h"
#include "wire/codec.h"

#define EC2(rest) "Version=2016-11-15&Action=" rest
#define RUN EC2("RunInstances&ImageId=ami-12345678&MinCount=1&MaxCount=1")

static int decode_with(struct arena *a, const struct wire_service *s, const char *text, void **in,
		       struct error *e)
{
	const struct wire_action *act;
	struct wire_params params;
	int r = wire_params_parse(a, text, strlen(text), &params, e);

	if (r < 0)
		return r;
	act = wire_query_route(s, &params, e);
	return act ? wire_query_decode(a, s, act, &params, in, e) : -1;
}

static void *decode(struct arena *a, const char *text)
{
	struct error e = {0};
	void *in = NULL;

	if (decode_with(a, &ec2_service, text, &in, &e) < 0)
		fail_msg("%s: %s: %s", text, e.code, e.message);
	return in;
}

static void refused(const char *text, const char *code, const char *words)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	void *in = (void *)1;
	struct error e = {0};

	assert_true(decode_with(a, &ec2_service, text, &in, &e) < 0);
	if (!str_eq(e.code, code) || !strstr(e.message, words))
		fail_msg("%s: got %s: %s", text, e.code, e.message);
	assert_ptr_equal(in, (void *)1); /* results are untouched on failure */
}

static void test_presence(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct ec2_run_instances_request *in = decode(a, RUN);

	assert_false(in->disable_api_termination.set);
	assert_null(in->user_data);
	assert_null(in->monitoring);
	assert_false(in->network_interfaces.set);
	in = decode(a, RUN "&DisableApiTermination=false&UserData=&Monitoring.Enabled=false"
			   "&NetworkInterface.1.DeviceIndex=0");
	assert_true(in->disable_api_termination.set && !in->disable_api_termination.value);
	assert_string_equal(in->user_data, "");
	assert_true(in->monitoring->enabled.set && !in->monitoring->enabled.value);
	assert_int_equal(in->network_interfaces.count, 1);
	assert_true(in->network_interfaces.items[0].device_index.set);
	assert_int_equal(in->network_interfaces.items[0].device_index.value, 0);
}

static void test_lists(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct ec2_create_tags_request *in =
	    decode(a, EC2("CreateTags&Tag.10.Key=c&Tag.9.Key=b&Tag.1000.Key=d&ResourceId.2=y"
			  "&ResourceId.1=x&Tag.1.Value=&Tag.1.Key=a"));

	assert_int_equal(in->tags.count, 4);
	assert_string_equal(in->tags.items[0].key, "a");
	assert_string_equal(in->tags.items[0].value, "");
	assert_string_equal(in->tags.items[1].key, "b");
	assert_null(in->tags.items[1].value);
	assert_string_equal(in->tags.items[2].key, "c");
	assert_string_equal(in->tags.items[3].key, "d");
	assert_int_equal(in->resources.count, 2);
	assert_string_equal(in->resources.items[0], "x");
	/* what EC2 itself never sees from its clients, but other Query services do */
	assert_true(((struct ec2_describe_instances_request *)decode(
			 a, EC2("DescribeInstances&InstanceId=")))
			->instance_ids.set);
}

static void test_indexes_refused(void **state)
{
	static const char *const bad[] = {
	    "0", "1001", "01", "-1", "1x", "x", "", "99999999999999999999", "+1"};
	_cleanup_(buf_done) struct buf text = BUF_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		buf_reset(&text);
		buf_printf(&text, EC2("DescribeInstances&InstanceId.%s=i-12345678"), bad[i]);
		refused(text.data, "InvalidParameterValue", "list indexes are 1 to 1000");
	}
}

static void test_shape_refused(void **state)
{
	refused(RUN "&ImageId=ami-12345678", "InvalidParameterValue", "given twice");
	refused(RUN "&ImageId.1=x", "UnknownParameter", "ImageId.1");
	refused(EC2("RunInstances&ImageId.x=1&MinCount=1&MaxCount=1"), "UnknownParameter",
		"ImageId.x");
	refused(RUN "&Placement=here", "InvalidParameterValue", "Placement");
	refused(RUN "&NetworkInterface.1=x", "InvalidParameterValue", "NetworkInterface.1");
	refused(EC2("DescribeInstances&InstanceId=i-12345678"), "InvalidParameterValue",
		"InstanceId");
	refused(EC2("DescribeInstances&InstanceId.1.2=x"), "UnknownParameter", "InstanceId.1.2");
	refused(EC2("DescribeInstances&Filter.1.Value.1=x&Filter.1.Value=y"),
		"InvalidParameterValue", "Filter.1.Value");
	refused(RUN "&Monitoring.Enabled=", "InvalidParameterValue", "Monitoring.Enabled");
	refused(RUN "&DisableApiTermination=maybe", "InvalidParameterValue", "true or false");
	refused(EC2("RunInstances&ImageId=ami-12345678&MinCount=one&MaxCount=1"),
		"InvalidParameterValue", "MinCount");
	refused(EC2("RunInstances&ImageId=ami-12345678&MinCount=9223372036854775808&MaxCount=1"),
		"InvalidParameterValue", "MinCount");
	refused(EC2("RunInstances&ImageId=ami-12345678&MinCount=4294967297&MaxCount=1"),
		"InvalidParameterValue", "2147483647");
	refused(EC2("ImportKeyPair&KeyName=k&PublicKeyMaterial=%21%21"), "InvalidParameterValue",
		"base64");
}

static void test_unknown(void **state)
{
	refused(RUN "&imageid=x", "UnknownParameter", "imageid");
	refused(RUN "&Frob.1.Nicate=x", "UnknownParameter", "Frob.1.Nicate");
	refused(RUN "&.=x", "UnknownParameter", ".");
	refused(RUN "&=x", "UnknownParameter", "recognized");
	refused(RUN "&Image=x&Image-Id=x&ImageIdx=x", "UnknownParameter", "Image");
}

static void test_unserved(void **state)
{
	refused(RUN "&KernelId=aki-1", "UnsupportedOperation", "KernelId");
	refused(RUN "&NetworkInterface.3.Ipv6Addresses.1.Ipv6Address=x", "UnsupportedOperation",
		"NetworkInterface.3.Ipv6Addresses.1.Ipv6Address");
}

static void test_missing(void **state)
{
	refused(EC2("RunInstances"), "MissingParameter", "MaxCount");
	refused(EC2("StartInstances"), "MissingParameter", "InstanceId");
	refused(EC2("RunInstances&ImageId=ami-12345678&MinCount=1&MaxCount=1&InstanceId.1=x"),
		"UnknownParameter", "InstanceId.1");
	refused("Version=2016-11-15", "MissingAction", "Action");
	refused(EC2("DescribeVpcs&Action=RunInstances"), "MalformedQueryString", "once");
	refused("Action=DescribeVpcs", "MissingParameter", "Version");
	refused("Action=DescribeVpcs&Version=2016-11-16", "NoSuchVersion", "2016-11-16");
	refused("Action=DescribeVpcs&Version=2010", "NoSuchVersion", "2010");
	refused("Action=DescribeVpcs&Version=2010-01-01x", "NoSuchVersion", "2010");
	refused("Action=FrobVpcs&Version=2010-01-01", "InvalidAction", "FrobVpcs");
	refused(EC2("FrobInstances"), "InvalidAction", "not valid for this web service.");
	refused(EC2("AttachClassicLinkVpc"), "InvalidAction", "does not serve");
}

static void test_hostile_keys(void **state)
{
	_cleanup_(buf_done) struct buf text = BUF_INIT;

	buf_puts(&text, RUN "&");
	for (int i = 0; i < 20000; i++)
		buf_puts(&text, "Filter.1.");
	buf_puts(&text, "=x");
	refused(text.data, "UnknownParameter", "Filter.1.");
	buf_reset(&text);
	buf_puts(&text, RUN "&ClientToken=");
	for (int i = 0; i < 20000; i++)
		buf_puts(&text, "x");
	refused(text.data, "InvalidParameterValue", "ClientToken");
	refused(RUN "&KeyName=%00", "MalformedQueryString", "UTF-8");
	refused(RUN "&KeyName=%ff", "MalformedQueryString", "UTF-8");
}

/* AWS Query's own list form; no action that we serve has one yet. */
struct lister {
	struct wire_string_list names;
};

static void test_member_lists(void **state)
{
	static const struct wire_shape string = {
	    .name = "String", .type = WIRE_STRING, .size = sizeof(char *), .min = 1};
	static const struct wire_shape list = {.name = "Names",
					       .type = WIRE_LIST,
					       .size = sizeof(struct wire_list),
					       .item = &string,
					       .min = 0,
					       .max = 2};
	static const struct wire_member members[] = {{.name = "Names",
						      .in = "Names",
						      .out = "Names",
						      .shape = &list,
						      .flags = WIRE_MEMBER_LIST}};
	static const struct wire_shape input = {.name = "Input",
						.type = WIRE_STRUCT,
						.size = sizeof(struct lister),
						.members = members,
						.member_count = 1};
	static const struct wire_action action = {.name = "List", .input = &input};
	static const char *const bad[] = {"Names.1=a", "Names.member=a",
					  "Names.member.1=a&Names.2=b",
					  "Names.member.1=a&Names.member.2=b&Names.member.3=c"};
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const char *good = "Names.member.2=b&Names.member.1=a";
	struct wire_params params;
	struct lister *in;

	assert_int_equal(wire_params_parse(a, good, strlen(good), &params, NULL), 0);
	assert_int_equal(wire_query_decode(a, &sts_service, &action, &params, (void **)&in, NULL),
			 0);
	assert_int_equal(in->names.count, 2);
	assert_string_equal(in->names.items[0], "a");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error e = {0};

		assert_int_equal(wire_params_parse(a, bad[i], strlen(bad[i]), &params, NULL), 0);
		assert_true(wire_query_decode(a, &sts_service, &action, &params, (void **)&in, &e) <
			    0);
		assert_string_equal(e.code, "ValidationError");
	}
}

static void test_rules(void **state)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();

	refused(EC2("DeleteKeyPair"), "MissingParameter", "KeyName or KeyPairId");
	refused(EC2("DeleteKeyPair&KeyName=a&KeyPairId=key-12345678"),
		"InvalidParameterCombination", "KeyName and KeyPairId");
	assert_non_null(decode(a, EC2("DeleteKeyPair&KeyPairId=key-12345678")));
	refused(EC2("DescribeInstances&InstanceId.1=i-12345678&InstanceId.2=banana"),
		"InvalidInstanceID.Malformed", "banana");
	refused(EC2("DescribeInstances&InstanceId.1=i-1234567G"), "InvalidInstanceID.Malformed",
		"i-...");
	refused(EC2("DescribeInstances&MaxResults=4"), "InvalidParameterValue", "5 to 1000");
	refused(RUN "&SubnetId=subnet-12345678&NetworkInterface.1.DeviceIndex=0",
		"InvalidParameterCombination", "SubnetId and NetworkInterface");
	refused(RUN "&NetworkInterface.1.SubnetId=vpc-12345678", "InvalidSubnetID.Malformed",
		"subnet-...");
	refused(RUN "&MetadataOptions.HttpTokens=perhaps", "InvalidParameterValue",
		"MetadataOptions.HttpTokens");
	refused(RUN "&MetadataOptions.HttpPutResponseHopLimit=65", "InvalidParameterValue",
		"1 to 64");
}

static void test_reply_escapes(void **state)
{
	struct ec2_tag_description tag = {.key = "a\x01<&>\"\r\n",
					  .value = "\xef\xbf\xbf\xef\xbf\xbd"};
	struct ec2_describe_tags_result out = {.tags = {.set = true, .count = 1, .items = &tag}};
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(buf_done) struct buf xml = BUF_INIT;
	const struct wire_action *act = wire_action_find(&ec2_service, "DescribeTags");
	struct ec2_describe_tags_result *back = NULL;

	wire_query_reply(&ec2_service, act, &out, "r", &xml);
	assert_int_equal(
	    wire_query_reply_decode(a, &ec2_service, act, xml.data, xml.len, (void **)&back, NULL),
	    0);
	assert_string_equal(back->tags.items[0].key, "a\xef\xbf\xbd<&>\"\r\n");
	assert_string_equal(back->tags.items[0].value, "\xef\xbf\xbd\xef\xbf\xbd");
	tag.key = "a\xff\xc3\xa9\xe2\x82";
	buf_reset(&xml);
	wire_query_reply(&ec2_service, act, &out, "r", &xml);
	assert_non_null(
	    strstr(xml.data, "<key>a\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd</key>"));
}

static void test_statuses(void **state)
{
	assert_int_equal(wire_error_http_status(&ec2_service, "DryRunOperation"), 412);
	assert_int_equal(wire_error_http_status(&ec2_service, "InternalFrobError"), 500);
	assert_int_equal(wire_error_http_status(&ec2_service, "FrobUnavailable"), 503);
	assert_int_equal(wire_error_http_status(&ec2_service, "NeverHeardOf"), 400);
	/* the table is searched by halves: its order must be strcmp's */
	for (size_t i = 0; i < ec2_service.error_count; i++)
		assert_ptr_equal(wire_error_find(&ec2_service, ec2_service.errors[i].code),
				 &ec2_service.errors[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_presence),	    cmocka_unit_test(test_lists),
	    cmocka_unit_test(test_indexes_refused), cmocka_unit_test(test_shape_refused),
	    cmocka_unit_test(test_unknown),	    cmocka_unit_test(test_unserved),
	    cmocka_unit_test(test_missing),	    cmocka_unit_test(test_hostile_keys),
	    cmocka_unit_test(test_member_lists),    cmocka_unit_test(test_rules),
	    cmocka_unit_test(test_reply_escapes),   cmocka_unit_test(test_statuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
