/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/macros.h"
#include "model/instance_type.h"
#include "model/ipv4.h"

static void addresses(void **state)
{
	static const char *const bad[] = {
	    "",		"1",	    "1.2.3",   "1.2.3.4.5", "256.1.1.1", "01.2.3.4",  "1.2.3.-4",
	    "1.2.3.4 ", " 1.2.3.4", "a.b.c.d", "1..2.3",    "1.2.3.",	 "1.2.3.1000"};
	uint32_t ip = 0;
	char text[IPV4_LEN];

	assert_int_equal(ipv4_parse("10.1.0.255", &ip), 0);
	assert_int_equal(ip, 0x0a0100ff);
	ipv4_format(ip, text);
	assert_string_equal(text, "10.1.0.255");
	assert_int_equal(ipv4_parse("0.0.0.0", &ip), 0);
	assert_int_equal(ipv4_parse("255.255.255.255", &ip), 0);
	assert_int_equal(ip, UINT32_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(ipv4_parse(bad[i], &ip), -EINVAL);
}

static void subnets(void **state)
{
	static const char *const bad[] = {"",
					  "10.0.0.0",
					  "10.0.0.0/",
					  "10.0.0.0/33",
					  "10.0.0.1/24",
					  "10.0.0.0/30",
					  "10.0.0.0/7",
					  "10.0.0.0/ 24",
					  "/24",
					  "10.0.0.0.0.0.0.0.0.0.0/24"};
	struct ipv4_subnet s;

	assert_int_equal(ipv4_subnet_parse("10.9.8.0/24", &s), 0);
	assert_int_equal(ipv4_subnet_gateway(&s), 0x0a090801);
	assert_int_equal(ipv4_subnet_broadcast(&s), 0x0a0908ff);
	assert_true(ipv4_subnet_contains(&s, 0x0a090807));
	assert_false(ipv4_subnet_contains(&s, 0x0a090907));
	assert_int_equal(ipv4_subnet_usable(&s), 253);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(ipv4_subnet_parse(bad[i], &s), -EINVAL);
}

static void pool_gives_each_once(void **state)
{
	struct ipv4_subnet s;
	uint32_t ip, first;

	assert_int_equal(ipv4_subnet_parse("192.168.7.0/29", &s), 0);
	struct ipv4_pool *p = ipv4_pool_new(&s);
	bool seen[8] = {0};
	assert_int_equal(ipv4_pool_free_count(p), 5);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(ipv4_pool_take(p, &ip), 0);
		assert_true(ipv4_subnet_contains(&s, ip));
		assert_false(seen[ip & 7]);
		seen[ip & 7] = true;
	}
	assert_false(seen[0] || seen[1] || seen[7]);
	assert_int_equal(ipv4_pool_take(p, &ip), -ENOSPC);
	/* given back twice counts once */
	first = s.network + 4;
	ipv4_pool_give(p, first);
	ipv4_pool_give(p, first);
	assert_int_equal(ipv4_pool_free_count(p), 1);
	assert_int_equal(ipv4_pool_take(p, &ip), 0);
	assert_int_equal(ip, first);
	/* the reserved ones cannot be given into it */
	ipv4_pool_give(p, s.network);
	ipv4_pool_give(p, s.network + 1);
	ipv4_pool_give(p, s.network + 7);
	ipv4_pool_give(p, 0);
	assert_int_equal(ipv4_pool_free_count(p), 0);
	ipv4_pool_free(p);
	ipv4_pool_free(NULL);
}

static void pool_reuses_late(void **state)
{
	struct ipv4_subnet s;
	uint32_t a, b;

	assert_int_equal(ipv4_subnet_parse("10.0.0.0/24", &s), 0);
	struct ipv4_pool *p = ipv4_pool_new(&s);
	assert_int_equal(ipv4_pool_take(p, &a), 0);
	ipv4_pool_give(p, a);
	assert_int_equal(ipv4_pool_take(p, &b), 0);
	assert_int_not_equal(a, b);
	ipv4_pool_free(p);
}

static void pool_takes_a_certain_one(void **state)
{
	struct ipv4_subnet s;

	assert_int_equal(ipv4_subnet_parse("10.0.0.0/24", &s), 0);
	struct ipv4_pool *p = ipv4_pool_new(&s);
	assert_int_equal(ipv4_pool_take_this(p, s.network + 9), 0);
	assert_int_equal(ipv4_pool_take_this(p, s.network + 9), -EBUSY);
	assert_int_equal(ipv4_pool_take_this(p, s.network), -EADDRNOTAVAIL);
	assert_int_equal(ipv4_pool_take_this(p, s.network + 1), -EADDRNOTAVAIL);
	assert_int_equal(ipv4_pool_take_this(p, s.network + 255), -EADDRNOTAVAIL);
	assert_int_equal(ipv4_pool_take_this(p, s.network + 256), -ERANGE);
	assert_int_equal(ipv4_pool_take_this(p, 1), -ERANGE);
	for (size_t i = 0; i < ipv4_subnet_usable(&s) - 1; i++) {
		uint32_t ip;

		assert_int_equal(ipv4_pool_take(p, &ip), 0);
		assert_int_not_equal(ip, s.network + 9);
	}
	ipv4_pool_free(p);
}

static void macs(void **state)
{
	char a[MAC_LEN], b[MAC_LEN];

	mac_for_ipv4("k3x9", 0x0a010005, a);
	assert_int_equal(strlen(a), MAC_LEN - 1);
	assert_int_equal(strncmp(a, "02:", 3), 0);
	assert_string_equal(a + 5, ":0a:01:00:05");
	mac_for_ipv4("k3x9", 0x0a010006, b);
	assert_string_not_equal(a, b);
	mac_for_ipv4("zzzz", 0x0a010005, b);
	assert_string_not_equal(a, b);
}

static void types(void **state)
{
	assert_non_null(instance_type_find("t2.micro"));
	assert_int_equal(instance_type_find("m1.small")->disk_gib, 4);
	assert_null(instance_type_find("t2.huge"));
	assert_null(instance_type_find(""));
	for (size_t i = 0; i < instance_type_count; i++) {
		const struct instance_type *t = &instance_types[i];

		assert_ptr_equal(instance_type_find(t->name), t); /* no name twice */
		assert_true(t->vcpus > 0 && t->memory_mib >= 512 && t->disk_gib > 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(addresses),
	    cmocka_unit_test(subnets),
	    cmocka_unit_test(pool_gives_each_once),
	    cmocka_unit_test(pool_reuses_late),
	    cmocka_unit_test(pool_takes_a_certain_one),
	    cmocka_unit_test(macs),
	    cmocka_unit_test(types),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
