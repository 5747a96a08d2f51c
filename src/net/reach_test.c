/* SPDX-License-Identifier: Apache-2.0 */
/* Where a guest may go: with frames of our own on real taps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>

#include "net/nettest_priv.h"
#include "os/file.h"

static int listener(const char *address, uint16_t port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sa.sin_addr.s_addr = htonl(nettest_ip(address));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

struct tcp_want {
	uint32_t src;
	uint16_t sport, dport;
};

static bool is_tcp_answer(const struct frame *f, const void *want)
{
	const struct tcp_want *w = want;

	return frame_protocol(f) == 6 && frame_src(f) == w->src && frame_sport(f) == w->sport &&
	       frame_dport(f) == w->dport;
}

enum { NO_ANSWER = 0, SYN_ACK = 0x12, RST_ACK = 0x14 };

static int connect_within(struct guest *g, const char *dst, uint16_t dport, int wait_ms)
{
	static uint16_t next = 40000;
	struct tcp_want w = {nettest_ip(dst), dport, next++};
	struct frame f, reply;

	frame_syn(&f, g, w.src, w.dport, dport);
	guest_send(g, &f);
	if (!guest_expect(g, is_tcp_answer, &w, wait_ms, &reply))
		return NO_ANSWER;
	return frame_l4(&reply)[13];
}

static void assert_answer(struct guest *g, const char *dst, uint16_t dport, int want)
{
	assert_int_equal(connect_within(g, dst, dport, want == NO_ANSWER ? 2 * QUIET_MS : PATIENT_MS), want);
}

static void test_host_services(void **state)
{
	struct fixture *x = *state;
	int fds[] = {listener("0.0.0.0", NETTEST_METADATA_PORT),
		     listener("0.0.0.0", NETTEST_API_PORT), listener("0.0.0.0", 2222),
		     listener("127.0.0.1", 80)};

	assert_answer(&x->a, "169.254.169.254", 80, SYN_ACK);
	assert_answer(&x->a, NETTEST_GATEWAY, NETTEST_API_PORT, SYN_ACK);
	assert_answer(&x->a, NETTEST_GATEWAY, 2222, NO_ANSWER);
	assert_answer(&x->a, "203.0.113.1", NETTEST_API_PORT, NO_ANSWER);
	assert_answer(&x->a, "203.0.113.1", 2222, NO_ANSWER);
	assert_answer(&x->a, "127.0.0.1", 80, NO_ANSWER);
	assert_answer(&x->a, "169.254.169.254", 22, NO_ANSWER);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	assert_answer(&x->a, "169.254.169.254", 80, RST_ACK);
}

/* No guest can take all of a service's connections. */
static void test_connection_limit(void **state)
{
	struct fixture *x = *state;
	int fd = listener("0.0.0.0", NETTEST_API_PORT), answered = 0;
	struct error e = {0};
	unsigned mended;

	assert_int_equal(listen(fd, 1000), 0);
	for (int i = 0; i < GUEST_CONNECTIONS_MAX + 2; i++)
		answered += connect_within(&x->b, NETTEST_GATEWAY, NETTEST_API_PORT,
					   i < GUEST_CONNECTIONS_MAX ? PATIENT_MS : 2 * QUIET_MS) == SYN_ACK;
	assert_int_equal(answered, GUEST_CONNECTIONS_MAX);
	assert_answer(&x->a, NETTEST_GATEWAY, NETTEST_API_PORT, SYN_ACK);
	assert_int_equal(net_check(x->net, &mended, &e), 0);
	assert_int_equal(mended, 0);
	close(fd);
}

struct udp_want {
	uint32_t src;
	uint16_t dport;
};

static bool is_udp(const struct frame *f, const void *want)
{
	const struct udp_want *w = want;

	return frame_protocol(f) == 17 && frame_src(f) == w->src && frame_dport(f) == w->dport;
}

static bool reaches_within(struct guest *from, struct guest *to, const uint8_t *dst_mac, uint16_t dport,
			   int wait_ms, struct frame *ret)
{
	struct udp_want w = {from->ip, dport};
	struct frame f;

	frame_udp(&f, &(struct udp_fields){from->mac, dst_mac, from->ip, to->ip, 6000, dport,
					   "hello", 5});
	guest_send(from, &f);
	return guest_expect(to, is_udp, &w, wait_ms, ret);
}

static void assert_reaches(struct guest *from, struct guest *to, uint16_t dport, struct frame *ret)
{
	assert_true(reaches_within(from, to, from->gateway_mac, dport, PATIENT_MS, ret));
}

static void assert_unreached(struct guest *from, struct guest *to, const uint8_t *dst_mac, uint16_t dport)
{
	assert_false(reaches_within(from, to, dst_mac, dport, 2 * QUIET_MS, NULL));
}

static bool is_redirect(const struct frame *f, const void *want)
{
	return frame_protocol(f) == 1 && frame_l4(f)[0] == 5;
}

static void test_guest_to_guest(void **state)
{
	struct fixture *x = *state;
	struct guest lonely, lonely2;
	struct frame f;

	assert_reaches(&x->a, &x->b, 7000, &f);
	assert_memory_equal(f.data + 6, x->a.gateway_mac, 6); /* routed, not bridged */
	assert_int_equal(f.data[22], 63);
	/* No redirect; NAT itself swallows one for a flow's first packet, and the next is limited
	 * in rate. */
	usleep(200 * 1000);
	assert_reaches(&x->a, &x->b, 7000, NULL);
	assert_false(guest_expect(&x->a, is_redirect, NULL, QUIET_MS, NULL));
	assert_reaches(&x->b, &x->a, 7000, NULL);
	assert_unreached(&x->a, &x->b, x->b.mac, 7001); /* ports are isolated */
	assert_unreached(&x->a, &x->b, mac_broadcast, 7002);
	assert_unreached(&x->a, &x->c, x->a.gateway_mac, 7003); /* another account's */
	assert_unreached(&x->c, &x->a, x->a.gateway_mac, 7004);
	guest_start(x->net, 20, NULL, &lonely);
	guest_start(x->net, 21, NULL, &lonely2);
	assert_unreached(&lonely, &lonely2, lonely.gateway_mac, 7005);
	assert_unreached(&lonely, &x->a, lonely.gateway_mac, 7006);
	guest_stop(&lonely);
	guest_stop(&lonely2);
}

/* Were the isolation of ports undone, the rules would still hold. */
static void test_isolation_has_a_second_line(void **state)
{
	struct fixture *x = *state;
	struct error e = {0};
	unsigned mended;
	char command[256];

	snprintf(
	    command, sizeof(command),
	    "for i in %s %s; do bridge link set dev $i isolated off flood on learning on; done",
	    x->a.tap, x->b.tap);
	nettest_sh(command);
	assert_unreached(&x->a, &x->b, x->b.mac, 7100);
	assert_unreached(&x->a, &x->b, mac_broadcast, 7101);
	assert_int_equal(net_check(x->net, &mended, &e), 0);
	assert_int_equal(mended, 2);
}

static bool goes_to(const struct frame *f, const void *want)
{
	return frame_dst(f) == *(const uint32_t *)want;
}

/* The host may be a cloud's guest itself: its metadata service, and its other link-local
 * neighbours, are not for our guests. */
static void test_link_local_stays_here(void **state)
{
	static const struct {
		const char *dst;
		uint16_t port;
	} cases[] = {{"169.254.169.254", 22}, {"169.254.169.254", 443}, {"169.254.1.1", 80}};
	struct fixture *x = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t dst = nettest_ip(cases[i].dst);
		struct frame f;

		frame_syn(&f, &x->a, dst, 42000, cases[i].port);
		guest_send(&x->a, &f);
		assert_false(guest_expect(&x->uplink, goes_to, &dst, QUIET_MS, NULL));
	}
}

static void test_outside(void **state)
{
	struct fixture *x = *state;
	struct udp_want w = {nettest_ip("203.0.113.1"), 8000}, back = {x->uplink.ip, 6000};
	struct frame f, seen;

	frame_udp(&f, &(struct udp_fields){x->a.mac, x->a.gateway_mac, x->a.ip, x->uplink.ip, 6000,
					   8000, "out", 3});
	guest_send(&x->a, &f);
	assert_true(guest_expect(&x->uplink, is_udp, &w, 2000, &seen)); /* in the host's name */
	frame_udp(&f, &(struct udp_fields){x->uplink.mac, x->uplink.gateway_mac, x->uplink.ip,
					   w.src, 8000, frame_sport(&seen), "in", 2});
	guest_send(&x->uplink, &f);
	assert_true(guest_expect(&x->a, is_udp, &back, 2000, NULL));
	/* Nobody outside begins. */
	assert_unreached(&x->uplink, &x->a, x->uplink.gateway_mac, 8001);
	/* A guest's connection fits the path, which ends in an interface of 1400 bytes. */
	nettest_sh("ip link set up0 mtu 1400");
	frame_syn(&f, &x->a, x->uplink.ip, 41000, 80);
	guest_send(&x->a, &f);
	assert_true(guest_expect(&x->uplink, is_tcp_answer, &(struct tcp_want){w.src, 41000, 80},
				 2000, &seen));
	assert_int_equal(frame_l4(&seen)[22] << 8 | frame_l4(&seen)[23], 1360);
}

/* Whether a datagram from this address gets as far as a socket of the host. */
static bool reaches_host(struct guest *from, int wait_ms)
{
	_cleanup_(fd_closep) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(9000)};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct frame f;

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	frame_udp(&f, &(struct udp_fields){from->mac, from->gateway_mac, from->ip,
					   nettest_ip("203.0.113.1"), 9000, 9000, "hello", 5});
	guest_send(from, &f);
	return poll(&p, 1, wait_ms) == 1;
}

/* Nobody beyond the bridge speaks for a guest, nor reaches the metadata service. */
static void test_outside_is_no_guest(void **state)
{
	struct fixture *x = *state;
	int fd = listener("0.0.0.0", NETTEST_METADATA_PORT);
	struct guest liar = x->uplink;
	uint16_t port = NETTEST_METADATA_PORT;

	assert_answer(&x->uplink, "203.0.113.1", port, SYN_ACK); /* the socket is everywhere: a control */
	assert_answer(&x->uplink, NETTEST_GATEWAY, port, NO_ANSWER);
	liar.ip = x->b.ip;
	assert_answer(&liar, NETTEST_GATEWAY, port, NO_ANSWER);
	assert_unreached(&liar, &x->a, x->uplink.gateway_mac, 8100);
	close(fd);
	assert_true(reaches_host(&x->uplink, PATIENT_MS));
	assert_false(reaches_host(&liar, QUIET_MS));
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
	    cmocka_unit_test(test_host_services),
	    cmocka_unit_test(test_connection_limit),
	    cmocka_unit_test(test_guest_to_guest),
	    cmocka_unit_test(test_isolation_has_a_second_line),
	    cmocka_unit_test(test_link_local_stays_here),
	    cmocka_unit_test(test_outside),
	    cmocka_unit_test(test_outside_is_no_guest),
	};

	return cmocka_run_group_tests_name("net/reach", all, nettest_setup, nettest_teardown);
}

int main(void)
{
	return nettest_run(tests);
}
