/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/text.h"
#include "svc/clc/inventory.h"
#include "svc/clc/testing.h"

static int setup(void **state)
{
	*state = fixture_new();
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

static void takes_what_there_is(void **state)
{
	struct fixture *f = *state;
	struct inventory *inv = f->clc.inventory;
	uint32_t *ips = arena_new_array(f->arena, uint32_t, 5000);
	struct error e = {0};
	size_t n = 0;

	size_t all = inventory_free_addresses(inv); /* 4093 of a /20 */
	assert_int_equal(all, 4093);
	assert_int_equal(inventory_take(inv, "1", 10, 20, 0, ips, &n, &e), 0);
	assert_int_equal(n, 20);
	/* a range that the addresses cannot meet in full, then not at all */
	assert_int_equal(inventory_take(inv, "2", 4000, 5000, 0, ips, &n, &e), 0);
	assert_int_equal(n, all - 20);
	assert_true(inventory_take(inv, "2", 1, 1, 0, ips, &n, &e) < 0);
	assert_string_equal(e.code, "InsufficientFreeAddressesInSubnet");
	inventory_give(inv, "2", ips[0]);
	assert_int_equal(inventory_free_addresses(inv), 1);
}

static void asked_addresses(void **state)
{
	static const struct {
		uint32_t ip;
		const char *code;
	} cases[] = {{0x0a4d0010, ""},
		     {0x0a4d0010, "InvalidIPAddress.InUse"},
		     {0x0a4d0000, "InvalidParameterValue"},
		     {0x0a4d0001, "InvalidParameterValue"},
		     {0x0a4d0fff, "InvalidParameterValue"},
		     {0x0a4d1000, "InvalidParameterValue"},
		     {0x01020304, "InvalidParameterValue"}};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t before = inventory_free_addresses(f->clc.inventory), n = 0;
		struct error e = {0};
		uint32_t ip = 0;
		int r = inventory_take(f->clc.inventory, "1", 1, 1, cases[i].ip, &ip, &n, &e);

		assert_int_equal(r < 0, *cases[i].code != '\0');
		assert_string_equal(e.code, cases[i].code);
		assert_int_equal(inventory_free_addresses(f->clc.inventory), before - (r >= 0));
		if (r >= 0)
			assert_int_equal(ip, cases[i].ip);
	}
}

static void account_limit(void **state)
{
	struct fixture *f = *state;
	struct inventory *inv = f->clc.inventory;
	uint32_t *ips = arena_new_array(f->arena, uint32_t, 4093);
	size_t n, total = 0;
	struct error e = {0};

	/* Addresses are given back, instances are counted on: as if the subnet were larger. */
	while (total < LIMIT_INSTANCES_PER_ACCOUNT) {
		assert_int_equal(inventory_take(inv, "1", 1, 4000, 0, ips, &n, &e), 0);
		total += n;
		for (size_t i = 0; i < n; i++)
			inventory_give(inv, "other", ips[i]);
	}
	assert_int_equal(total, LIMIT_INSTANCES_PER_ACCOUNT);
	assert_true(inventory_take(inv, "1", 1, 1, 0, ips, &n, &e) < 0);
	assert_string_equal(e.code, "InstanceLimitExceeded");
	error_clear(&e);
	assert_int_equal(inventory_take(inv, "2", 1, 1, 0, ips, &n, &e), 0);
}

/* The observer may tell of a state before the launch tells of the one before it. */
static void told_out_of_order(void **state)
{
	struct fixture *f = *state;
	struct inventory *inv = f->clc.inventory;

	inventory_moved(inv, INSTANCE_PENDING, INSTANCE_RUNNING);
	assert_int_equal(inventory_count(inv, INSTANCE_PENDING), 0);
	inventory_moved(inv, INSTANCE_STATE_COUNT, INSTANCE_PENDING);
	assert_int_equal(inventory_count(inv, INSTANCE_PENDING), 0);
	assert_int_equal(inventory_count(inv, INSTANCE_RUNNING), 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(takes_what_there_is),
	    TEST(asked_addresses),
	    TEST(account_limit),
	    TEST(told_out_of_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
