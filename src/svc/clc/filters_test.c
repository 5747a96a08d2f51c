/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "svc/clc/testing.h"

/* The names in the models' own text are tried against a cloud; these are in newer text only. Each
 * one's path is resolved when it is asked for, and one that leads nowhere would be an abort. */
#define NIC "network-interface."
static const char *const newer[] = {
    "current-instance-boot-mode",
    "ipv6-address",
    NIC "addresses.association.allocation-id",
    NIC "addresses.association.association-id",
    NIC "addresses.association.carrier-ip",
    NIC "addresses.association.customer-owned-ip",
    NIC "addresses.association.public-dns-name",
    NIC "addresses.private-dns-name",
    NIC "association.customer-owned-ip",
    NIC "ipv4-prefixes.ipv4-prefix",
    NIC "ipv6-address",
    NIC "ipv6-prefixes.ipv6-prefix",
    NIC "outpost-arn",
    NIC "public-dns-name",
};

static void newer_filters_are_known(void **state)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct fixture *f = fixture_new();
	const char *id;

	fixture_run(f, 1, "", &id);
	for (size_t i = 0; i < ARRAY_SIZE(newer); i++) {
		const char *query = arena_printf(
		    f->arena, "Action=DescribeInstances&Filter.1.Name=%s&Filter.1.Value.1=none",
		    newer[i]);

		assert_string_equal(fixture_call(f, &f->account, query, &reply), "");
		assert_null(fixture_element(f, reply.data, "instanceId", 0));
	}
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(newer_filters_are_known),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
