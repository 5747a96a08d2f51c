/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "svc/cc/place.h"

#define NODE(name, v, m, d)                                                                        \
	{                                                                                          \
		.id = name, .total = { {v, m, d} }                                                 \
	}

static const struct capacity small = {{1, 1024, 8192}};

static void spreads_over_equal_nodes(void **state)
{
	struct place_node nodes[] = {NODE("b", 8, 8192, 100000), NODE("a", 8, 8192, 100000),
				     NODE("c", 8, 8192, 100000)};
	int counts[3] = {0};

	assert_int_equal(place_one(nodes, 3, &small), 1); /* all alike: by name */
	counts[1]++;
	for (int i = 1; i < 24; i++)
		counts[place_one(nodes, 3, &small)]++;
	for (int i = 0; i < 3; i++)
		assert_int_equal(counts[i], 8);
	assert_int_equal(place_one(nodes, 3, &small), -1);
}

static void prefers_the_emptier_node(void **state)
{
	struct place_node nodes[] = {NODE("small", 4, 4096, 100000),
				     NODE("large", 16, 65536, 1000000)};

	for (int i = 0; i < 3; i++)
		assert_int_equal(place_one(nodes, 2, &small), 1);
	/* Emptier by its fullest resource: here the large one's disk. */
	nodes[1].used.of[RESOURCE_DISK_MIB] = 900000;
	assert_int_equal(place_one(nodes, 2, &small), 0);
	assert_int_equal(nodes[0].used.of[RESOURCE_MEMORY_MIB], 1024);
	assert_int_equal(nodes[0].instances, 1);
}

static void each_resource_must_fit(void **state)
{
	static const struct capacity needs[] = {
	    {{5, 1, 1}}, {{1, 4097, 1}}, {{1, 1, 100001}}, {{1, 1, 1, 1}}};
	struct place_node node = NODE("n", 4, 4096, 100000);
	struct capacity all = {{4, 4096, 100000}};

	for (size_t i = 0; i < ARRAY_SIZE(needs); i++)
		assert_int_equal(place_one(&node, 1, &needs[i]), -1);
	assert_int_equal(node.instances, 0);
	assert_int_equal(place_one(&node, 1, &all), 0);
	assert_int_equal(place_one(NULL, 0, &all), -1);
}

static void says_what_is_short(void **state)
{
	struct place_node nodes[] = {NODE("one", 4, 2048, 100000), NODE("two", 1, 8192, 100000)};
	struct capacity wide = {{8, 1024, 1}}, both = {{2, 4096, 1}};
	struct error e = {0};

	assert_true(place_explain(nodes, 2, 1, &wide, 3, 0, &e) < 0);
	assert_string_equal(e.code, "InsufficientInstanceCapacity");
	assert_non_null(strstr(e.message, "room for 0 of 3"));
	assert_non_null(strstr(e.message, "No node has 8 vCPUs left; the most is 4 of 4, on one."));
	assert_non_null(strstr(e.message, "Not ready: 1 node."));
	assert_null(strstr(e.message, "memory"));
	error_clear(&e);
	assert_true(place_explain(nodes, 2, 0, &both, 1, 0, &e) < 0);
	assert_non_null(strstr(e.message, "No single node has 2 vCPUs, 4096 MiB of memory"));
	error_clear(&e);
	assert_true(place_explain(nodes, 0, 2, &both, 1, 0, &e) < 0);
	assert_non_null(strstr(e.message, "No node is ready. Not ready: 2 nodes."));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(spreads_over_equal_nodes),
	    cmocka_unit_test(prefers_the_emptier_node),
	    cmocka_unit_test(each_resource_must_fit),
	    cmocka_unit_test(says_what_is_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
