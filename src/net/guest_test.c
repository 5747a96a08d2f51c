/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest gets: with frames of our own on real taps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/nettest_priv.h"

static void check_address_option(const struct frame *f, uint8_t code, const char *want)
{
	size_t len;
	const uint8_t *v = dhcp_option(f, code, &len);
	uint32_t be = htonl(nettest_ip(want));

	assert_non_null(v);
	assert_int_equal(len, 4);
	assert_memory_equal(v, &be, 4);
}

static uint32_t offered(const struct frame *f)
{
	size_t len;
	uint32_t be;

	memcpy(&be, frame_payload(f, &len) + 16, 4);
	return ntohl(be);
}

static void test_dhcp(void **state)
{
	struct fixture *x = *state;
	struct dhcp_fields d = {DHCP_DISCOVER, x->a.mac, 0, 0, 0};
	const uint8_t *v;
	struct frame f;
	size_t len;

	assert_true(guest_dhcp(&x->a, &d, DHCP_OFFER, &f));
	assert_int_equal(offered(&f), x->a.ip);
	assert_int_equal(frame_src(&f), nettest_ip(NETTEST_GATEWAY));
	d = (struct dhcp_fields){DHCP_REQUEST, x->a.mac, x->a.ip, nettest_ip(NETTEST_GATEWAY), 0};
	assert_true(guest_dhcp(&x->a, &d, DHCP_ACK, &f));
	assert_int_equal(offered(&f), x->a.ip);
	check_address_option(&f, 1, "255.255.240.0");
	check_address_option(&f, 3, NETTEST_GATEWAY);
	check_address_option(&f, 6, NETTEST_GATEWAY);
	v = dhcp_option(&f, 26, &len);
	assert_non_null(v);
	assert_int_equal(v[0] << 8 | v[1], 1500);
	v = dhcp_option(&f, 15, &len);
	assert_non_null(v);
	assert_memory_equal(v, "ec2.internal", 12);
	v = dhcp_option(&f, 12, &len);
	assert_non_null(v);
	assert_memory_equal(v, "ip-10-31-16-10", 14);
}

static void test_address_is_free_at_once(void **state)
{
	struct fixture *x = *state;
	struct net_port next = {.instance_id = "i-0fedcba9876540002",
				.mac = "02:00:00:00:00:99",
				.ip = "10.31.16.13",
				.hostname = "ip-10-31-16-13"};
	struct dhcp_fields d;
	char tap[IFNAMSIZ];
	struct error e = {0};
	struct guest g;
	struct frame f;

	guest_start(x->net, 13, NULL, &g);
	d = (struct dhcp_fields){DHCP_DISCOVER, g.mac, 0, 0, 0};
	assert_true(guest_dhcp(&g, &d, DHCP_OFFER, &f));
	d = (struct dhcp_fields){DHCP_REQUEST, g.mac, g.ip, nettest_ip(NETTEST_GATEWAY), 0};
	assert_true(guest_dhcp(&g, &d, DHCP_ACK, &f));
	guest_stop(&g);
	assert_int_equal(net_port_remove(x->net, "i-0123456789abc000d", &e), 0);
	assert_int_equal(net_port_remove(x->net, "i-0123456789abc000d", &e), 0);
	assert_int_equal(net_port_add(x->net, &next, tap, &e), 0);
	guest_plug(tap, next.mac, next.ip, &g);
	guest_settle(x->net, &g);
	d = (struct dhcp_fields){DHCP_DISCOVER, g.mac, 0, 0, 0};
	assert_true(guest_dhcp(&g, &d, DHCP_OFFER, &f));
	assert_int_equal(offered(&f), g.ip);
	guest_stop(&g);
	assert_int_equal(net_port_remove(x->net, next.instance_id, &e), 0);
}

static bool is_dns_answer(const struct frame *f, const void *want)
{
	size_t len;
	const uint8_t *p;

	if (frame_protocol(f) != 17 || frame_sport(f) != 53)
		return false;
	p = frame_payload(f, &len);
	return len > 16 && !(p[3] & 15) && !memcmp(p + len - 4, want, 4);
}

static void test_dns(void **state)
{
	struct fixture *x = *state;
	static const char query[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
				    "\x0eip-10-31-16-11\x03"
				    "ec2\x08internal\x00\x00\x01\x00\x01";
	uint32_t want = htonl(x->b.ip);
	struct frame f;

	frame_udp(&f, &(struct udp_fields){x->a.mac, x->a.gateway_mac, x->a.ip,
					   nettest_ip(NETTEST_GATEWAY), 5353, 53, query,
					   sizeof(query) - 1});
	guest_send(&x->a, &f);
	assert_true(guest_expect(&x->a, is_dns_answer, &want, 2000, NULL));
}

static bool is_arp_answer(const struct frame *f, const void *want)
{
	return frame_type(f) == 0x0806 && f->len >= 42 && f->data[21] == 2 &&
	       !memcmp(f->data + 28, want, 4);
}

static bool resolves_within(struct guest *g, uint32_t target, int wait_ms)
{
	uint32_t be = htonl(target);
	struct frame f, reply;

	frame_arp(&f, &(struct arp_fields){1, g->mac, mac_broadcast, g->mac, g->ip, target});
	guest_send(g, &f);
	if (!guest_expect(g, is_arp_answer, &be, wait_ms, &reply))
		return false;
	assert_memory_equal(reply.data + 22, g->gateway_mac, 6);
	return true;
}

static void test_arp(void **state)
{
	struct fixture *x = *state;

	assert_true(resolves_within(&x->a, nettest_ip(NETTEST_GATEWAY), PATIENT_MS));
	assert_true(resolves_within(&x->a, x->b.ip, PATIENT_MS)); /* by proxy: the gateway's own MAC, checked there */
	assert_true(resolves_within(&x->a, METADATA_IP, PATIENT_MS));
	assert_false(resolves_within(&x->a, nettest_ip("203.0.113.1"), QUIET_MS)); /* the host's other address */
	assert_false(resolves_within(&x->a, x->a.ip, QUIET_MS));
}

static void test_ping(void **state)
{
	struct fixture *x = *state;
	const char *id = "i-0123456789abc000a";
	struct error e = {0};
	struct guest other = x->b;
	struct answerer *a;
	int64_t before;

	a = answerer_start(&x->a, NULL);
	assert_int_equal(net_port_ping(x->net, id, 2000, &e), 0);
	answerer_stop(a);
	before = clock_mono_ms();
	assert_int_equal(net_port_ping(x->net, id, 300, &e), -ETIMEDOUT);
	assert_in_range(clock_mono_ms() - before, 290, 1500);
	/* An answer in another's name, and one on another's port. */
	a = answerer_start(&x->a, x->b.mac);
	assert_int_equal(net_port_ping(x->net, id, 300, &e), -ETIMEDOUT);
	answerer_stop(a);
	other.ip = x->a.ip;
	a = answerer_start(&other, x->a.mac);
	assert_int_equal(net_port_ping(x->net, id, 300, &e), -ETIMEDOUT);
	answerer_stop(a);
	assert_int_equal(net_port_ping(x->net, "i-00000000000000000", 300, &e), -ENOENT);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
	    cmocka_unit_test(test_dhcp), cmocka_unit_test(test_address_is_free_at_once),
	    cmocka_unit_test(test_dns),	 cmocka_unit_test(test_arp),
	    cmocka_unit_test(test_ping),
	};

	return cmocka_run_group_tests_name("net/guest", all, nettest_setup, nettest_teardown);
}

int main(void)
{
	return nettest_run(tests);
}
