/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "net/net_priv.h"

static void test_parse(void **state)
{
	static const char *const bad[] = {"",
					  "/",
					  "10.0.0.0",
					  "10.0.0.0/",
					  "10.0.0.0/33",
					  "10.0.0.0/-1",
					  "10.0.0.0/8/8",
					  "10.1.0.0/8",
					  "1.2.3.4.5.6.7.8.9.0/8",
					  "10.0.0/8",
					  " 10.0.0.0/8"};
	char text[CIDR_TEXT];
	struct cidr c;

	assert_int_equal(cidr_parse("10.16.0.0/12", &c), 0);
	assert_int_equal(c.addr, 0x0a100000);
	assert_int_equal(c.prefix, 12);
	cidr_format(c, text);
	assert_string_equal(text, "10.16.0.0/12");
	assert_int_equal(cidr_parse("0.0.0.0/0", &c), 0);
	assert_int_equal(cidr_mask(c), 0);
	assert_int_equal(cidr_parse("255.255.255.255/32", &c), 0);
	cidr_format(c, text);
	assert_string_equal(text, "255.255.255.255/32");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(cidr_parse(bad[i], &c), -EINVAL);
	assert_int_equal(cidr_parse(NULL, &c), -EINVAL);
}

static bool overlap(const char *a, const char *b)
{
	struct cidr x, y;

	assert_int_equal(cidr_parse(a, &x), 0);
	assert_int_equal(cidr_parse(b, &y), 0);
	assert_int_equal(cidr_overlap(x, y), cidr_overlap(y, x));
	return cidr_overlap(x, y);
}

static void test_overlap(void **state)
{
	struct cidr c;

	assert_true(overlap("10.0.0.0/8", "10.9.8.0/24"));
	assert_true(overlap("10.9.8.0/24", "10.9.8.0/24"));
	assert_true(overlap("0.0.0.0/0", "192.168.1.1/32"));
	assert_false(overlap("10.9.8.0/24", "10.9.9.0/24"));
	assert_false(overlap("10.9.8.0/23", "10.9.10.0/23"));
	assert_int_equal(cidr_parse("10.9.8.0/23", &c), 0);
	assert_true(cidr_has(c, 0x0a0909ff));
	assert_false(cidr_has(c, 0x0a090a00));
}

static void test_mac(void **state)
{
	static const char *const bad[] = {"",
					  "02:00:00:00:00",
					  "02:00:00:00:00:0g",
					  "02-00-00-00-00-01",
					  "02:00:00:00:00:01:",
					  "0200.0000.0001abcd"};
	uint8_t mac[6];
	char text[MAC_TEXT];

	assert_int_equal(mac_parse("02:00:Ab:00:00:fF", mac), 0);
	mac_format(mac, text);
	assert_string_equal(text, "02:00:ab:00:00:ff");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(mac_parse(bad[i], mac), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_parse),
	    cmocka_unit_test(test_overlap),
	    cmocka_unit_test(test_mac),
	};

	return cmocka_run_group_tests_name("net/cidr", tests, NULL, NULL);
}
