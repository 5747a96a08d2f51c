/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest gets from its network, and what it may do there: with frames of our own on real
 * taps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "net/nettest_priv.h"
#include "os/file.h"

#define QUIET_MS 250 /* how long nothing must come to count as dropped */

struct fixture {
	char *dir;
	struct net *net;
	struct guest a, b, c; /* a and b belong to account 1, c to account 2 */
	struct guest uplink;  /* the outside: another interface of the host, 203.0.113.2 */
};

static uint32_t ip(const char *s)
{
	uint32_t v;

	assert_int_equal(ipv4_parse(s, &v), 0);
	return v;
}

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));

	x->dir = nettest_dir();
	nettest_sh(
	    "ip tuntap add up0 mode tap vnet_hdr && ip link set up0 address 06:00:00:00:00:99 && "
	    "ip addr add 203.0.113.1/24 dev up0");
	guest_plug("up0", "06:00:00:00:00:02", "203.0.113.2", &x->uplink);
	nettest_sh("ip link set up0 up && ip route add default via 203.0.113.2");
	assert_int_equal(mac_parse("06:00:00:00:00:99", x->uplink.gateway_mac), 0);
	x->net = nettest_open(x->dir);
	guest_start(x->net, 10, "111111111111", &x->a);
	guest_start(x->net, 11, "111111111111", &x->b);
	guest_start(x->net, 12, "222222222222", &x->c);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;
	struct error e = {0};

	if (!x)
		return 0; /* the setup failed and said why */
	guest_stop(&x->a);
	guest_stop(&x->b);
	guest_stop(&x->c);
	guest_stop(&x->uplink);
	net_close(x->net);
	assert_int_equal(net_uninstall(x->dir, &e), 0);
	dir_remove(x->dir);
	free(x->dir);
	free(x);
	return 0;
}

/* --- what the bridge sees --- */

/* A socket that sees what passed the rules and reached the host's end of the bridge. */
static int listen_on_bridge(struct fixture *x)
{
	struct sockaddr_ll sa = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int on = 1, fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct nl_link l;

	assert_int_equal(nl_link_get(x->net->nl, net_bridge(x->net), &l), 0);
	sa.sll_ifindex = l.index;
	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

/* Whether exactly this frame arrives. */
static bool arrives(int fd, const struct frame *f, int timeout_ms)
{
	int64_t end = clock_mono_ms() + timeout_ms, now;
	uint8_t got[FRAME_MAX];

	while ((now = clock_mono_ms()) < end) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, (int)(end - now)) <= 0)
			continue;
		n = recv(fd, got, sizeof(got), 0);
		if (n >= (ssize_t)f->len && !memcmp(got, f->data, f->len))
			return true;
	}
	return false;
}

static void raw(struct frame *f, const uint8_t *dst, const uint8_t *src, const char *type_and_data,
		size_t len)
{
	*f = (struct frame){.len = 60};
	memcpy(f->data, dst, 6);
	memcpy(f->data + 6, src, 6);
	memcpy(f->data + 12, type_and_data, len);
}

static const uint8_t stranger[6] = {2, 0, 0, 0, 0, 0x77};

static void udp(struct frame *f, struct guest *g, const uint8_t *src_mac, uint32_t src,
		uint32_t dst, uint16_t sport, uint16_t dport)
{
	frame_udp(f,
		  &(struct udp_fields){src_mac, dst == 0xffffffff ? mac_broadcast : g->gateway_mac,
				       src, dst, sport, dport, "hello", 5});
}

static void arp(struct frame *f, const uint8_t *eth_src, const uint8_t *mac, uint32_t sender)
{
	frame_arp(f, &(struct arp_fields){2, eth_src, mac_broadcast, mac, sender, sender});
}

static void dhcp(struct frame *f, struct guest *g, const uint8_t *chaddr, uint32_t giaddr,
		 uint16_t sport, uint16_t dport)
{
	uint8_t message[300];

	dhcp_build(&(struct dhcp_fields){DHCP_DISCOVER, chaddr, 0, 0, giaddr}, message);
	frame_udp(f, &(struct udp_fields){g->mac, mac_broadcast, 0, 0xffffffff, sport, dport,
					  message, sizeof(message)});
}

enum frame_kind {
	OWN_ARP,
	OWN_IP,
	OWN_DHCP,
	SPOOFED_MAC,
	SPOOFED_ARP_IP,
	SPOOFED_ARP_MAC,
	SPOOFED_ARP_ETHER,
	GATEWAY_ARP,
	SPOOFED_IP,
	GATEWAY_IP,
	ZERO_IP,
	DHCP_FOR_ANOTHER,
	DHCP_RELAYED,
	DHCP_SERVER,
	DHCP_SERVER_UNICAST,
	DHCP_FRAGMENT,
	DHCP_OTHER_PORT,
	IPV6,
	AOE,
	VLAN,
	UNKNOWN_TYPE,
	RUNT,
};

static void build(struct frame *f, struct fixture *x, enum frame_kind kind)
{
	struct guest *g = &x->a;
	uint32_t gateway = ip(NETTEST_GATEWAY);

	switch (kind) {
	case OWN_ARP:
		arp(f, g->mac, g->mac, g->ip);
		break;
	case OWN_IP:
		udp(f, g, g->mac, g->ip, gateway, 5000, 5000);
		break;
	case OWN_DHCP:
		dhcp(f, g, g->mac, 0, 68, 67);
		break;
	case SPOOFED_MAC:
		udp(f, g, x->b.mac, g->ip, gateway, 5000, 5000);
		break;
	case SPOOFED_ARP_IP:
		arp(f, g->mac, g->mac, x->b.ip);
		break;
	case SPOOFED_ARP_MAC:
		arp(f, g->mac, x->b.mac, g->ip);
		break;
	case SPOOFED_ARP_ETHER:
		arp(f, stranger, g->mac, g->ip);
		break;
	case GATEWAY_ARP:
		arp(f, g->mac, g->mac, gateway);
		break;
	case SPOOFED_IP:
		udp(f, g, g->mac, x->b.ip, gateway, 5000, 5000);
		break;
	case GATEWAY_IP:
		udp(f, g, g->mac, gateway, 0xffffffff, 5000, 5000);
		break;
	case ZERO_IP:
		udp(f, g, g->mac, 0, 0xffffffff, 68, 69);
		break;
	case DHCP_FOR_ANOTHER:
		dhcp(f, g, x->b.mac, 0, 68, 67);
		break;
	case DHCP_RELAYED:
		dhcp(f, g, g->mac, g->ip, 68, 67);
		break;
	case DHCP_SERVER:
		dhcp(f, g, g->mac, 0, 67, 68);
		break;
	case DHCP_SERVER_UNICAST:
		udp(f, g, g->mac, g->ip, gateway, 67, 68);
		break;
	case DHCP_OTHER_PORT:
		dhcp(f, g, g->mac, 0, 1068, 67);
		break;
	case DHCP_FRAGMENT:
		dhcp(f, g, g->mac, 0, 68, 67);
		f->data[20] = 0x20; /* more fragments */
		f->data[24] -= 0x20;
		break;
	case IPV6:
		raw(f, mac_broadcast, g->mac, "\x86\xdd\x60", 3);
		break;
	case AOE:
		raw(f, mac_broadcast, g->mac, "\x88\xa2\x10", 3);
		break;
	case VLAN:
		raw(f, mac_broadcast, g->mac, "\x81\x00\x00\x05\x08\x06", 6);
		break;
	case UNKNOWN_TYPE:
		raw(f, mac_broadcast, g->mac, "\x12\x34", 2);
		break;
	case RUNT:
		arp(f, g->mac, g->mac, g->ip);
		f->len = 20;
		break;
	}
}

static void test_only_own_frames(void **state)
{
	static const struct {
		const char *what;
		enum frame_kind kind;
		bool passes;
	} cases[] = {
	    {"its own ARP", OWN_ARP, true},
	    {"its own IPv4", OWN_IP, true},
	    {"its own DHCP request", OWN_DHCP, true},
	    {"another's MAC", SPOOFED_MAC, false},
	    {"ARP for another's address", SPOOFED_ARP_IP, false},
	    {"ARP with another's MAC inside", SPOOFED_ARP_MAC, false},
	    {"ARP from a strange MAC", SPOOFED_ARP_ETHER, false},
	    {"ARP for the gateway", GATEWAY_ARP, false},
	    {"another's IPv4 address", SPOOFED_IP, false},
	    {"the gateway's IPv4 address", GATEWAY_IP, false},
	    {"no address, and not DHCP", ZERO_IP, false},
	    {"DHCP in another's name", DHCP_FOR_ANOTHER, false},
	    {"DHCP as a relay", DHCP_RELAYED, false},
	    {"a DHCP server's answer", DHCP_SERVER, false},
	    {"a DHCP server's answer, unicast", DHCP_SERVER_UNICAST, false},
	    {"DHCP in fragments", DHCP_FRAGMENT, false},
	    {"DHCP from another port", DHCP_OTHER_PORT, false},
	    {"IPv6", IPV6, false},
	    {"AoE", AOE, false},
	    {"a VLAN tag", VLAN, false},
	    {"an unknown protocol", UNKNOWN_TYPE, false},
	    {"half an ARP message", RUNT, false},
	};
	struct fixture *x = *state;
	int fd = listen_on_bridge(x);

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct frame f;

		build(&f, x, cases[i].kind);
		guest_send(&x->a, &f);
		if (arrives(fd, &f, cases[i].passes ? 2000 : QUIET_MS) != cases[i].passes)
			fail_msg("%s %s", cases[i].what,
				 cases[i].passes ? "was dropped" : "passed");
	}
	close(fd);
}

/* Frames to the bridge group addresses bypass the prerouting hook, but must not teach the bridge
 * where a neighbour lives. */
static void test_no_learning(void **state)
{
	struct fixture *x = *state;
	static const uint8_t lldp[6] = {0x01, 0x80, 0xc2, 0, 0, 0x0e};
	_cleanup_(freep) char *fdb = NULL;
	char line[128], mac[MAC_TEXT];
	struct frame f;

	raw(&f, lldp, x->b.mac, "\x88\xcc", 2);
	guest_send(&x->a, &f);
	raw(&f, mac_broadcast, stranger, "\x08\x06", 2);
	guest_send(&x->a, &f);
	usleep(50 * 1000);
	fdb = nettest_output("bridge fdb show br mlbt1");
	mac_format(x->b.mac, mac);
	snprintf(line, sizeof(line), "%s dev %s master mlbt1 static", mac, x->b.tap);
	assert_non_null(strstr(fdb, line));
	snprintf(line, sizeof(line), "%s dev %s", mac, x->a.tap);
	assert_null(strstr(fdb, line));
	assert_null(strstr(fdb, "02:00:00:00:00:77"));
}

/* --- services of the gateway --- */

static void check_address_option(const struct frame *f, uint8_t code, const char *want)
{
	size_t len;
	const uint8_t *v = dhcp_option(f, code, &len);
	uint32_t be = htonl(ip(want));

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
	assert_int_equal(frame_src(&f), ip(NETTEST_GATEWAY));
	d = (struct dhcp_fields){DHCP_REQUEST, x->a.mac, x->a.ip, ip(NETTEST_GATEWAY), 0};
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
	d = (struct dhcp_fields){DHCP_REQUEST, g.mac, g.ip, ip(NETTEST_GATEWAY), 0};
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

	frame_udp(&f, &(struct udp_fields){x->a.mac, x->a.gateway_mac, x->a.ip, ip(NETTEST_GATEWAY),
					   5353, 53, query, sizeof(query) - 1});
	guest_send(&x->a, &f);
	assert_true(guest_expect(&x->a, is_dns_answer, &want, 2000, NULL));
}

static bool is_arp_answer(const struct frame *f, const void *want)
{
	return frame_type(f) == 0x0806 && f->len >= 42 && f->data[21] == 2 &&
	       !memcmp(f->data + 28, want, 4);
}

static bool resolves(struct guest *g, uint32_t target)
{
	uint32_t be = htonl(target);
	struct frame f, reply;

	frame_arp(&f, &(struct arp_fields){1, g->mac, mac_broadcast, g->mac, g->ip, target});
	guest_send(g, &f);
	if (!guest_expect(g, is_arp_answer, &be, QUIET_MS, &reply))
		return false;
	assert_memory_equal(reply.data + 22, g->gateway_mac, 6);
	return true;
}

static void test_arp(void **state)
{
	struct fixture *x = *state;

	assert_true(resolves(&x->a, ip(NETTEST_GATEWAY)));
	assert_true(
	    resolves(&x->a, x->b.ip)); /* by proxy: the gateway's own MAC, checked in resolves() */
	assert_true(resolves(&x->a, METADATA_IP));
	assert_false(resolves(&x->a, ip("203.0.113.1"))); /* the host's other address */
	assert_false(resolves(&x->a, x->a.ip));
}

static int listener(const char *address, uint16_t port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sa.sin_addr.s_addr = htonl(ip(address));
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

static int connect_from(struct guest *g, const char *dst, uint16_t dport)
{
	static uint16_t next = 40000;
	struct tcp_want w = {ip(dst), dport, next++};
	struct frame f, reply;

	frame_syn(&f, g, w.src, w.dport, dport);
	guest_send(g, &f);
	if (!guest_expect(g, is_tcp_answer, &w, 2 * QUIET_MS, &reply))
		return NO_ANSWER;
	return frame_l4(&reply)[13];
}

static void test_host_services(void **state)
{
	struct fixture *x = *state;
	int fds[] = {listener("0.0.0.0", NETTEST_METADATA_PORT),
		     listener("0.0.0.0", NETTEST_API_PORT), listener("0.0.0.0", 2222),
		     listener("127.0.0.1", 80)};

	assert_int_equal(connect_from(&x->a, "169.254.169.254", 80), SYN_ACK);
	assert_int_equal(connect_from(&x->a, NETTEST_GATEWAY, NETTEST_API_PORT), SYN_ACK);
	assert_int_equal(connect_from(&x->a, NETTEST_GATEWAY, 2222), NO_ANSWER);
	assert_int_equal(connect_from(&x->a, "203.0.113.1", NETTEST_API_PORT), NO_ANSWER);
	assert_int_equal(connect_from(&x->a, "203.0.113.1", 2222), NO_ANSWER);
	assert_int_equal(connect_from(&x->a, "127.0.0.1", 80), NO_ANSWER);
	assert_int_equal(connect_from(&x->a, "169.254.169.254", 22), NO_ANSWER);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	assert_int_equal(connect_from(&x->a, "169.254.169.254", 80), RST_ACK);
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
		answered += connect_from(&x->b, NETTEST_GATEWAY, NETTEST_API_PORT) == SYN_ACK;
	assert_int_equal(answered, GUEST_CONNECTIONS_MAX);
	assert_int_equal(connect_from(&x->a, NETTEST_GATEWAY, NETTEST_API_PORT), SYN_ACK);
	assert_int_equal(net_check(x->net, &mended, &e), 0);
	assert_int_equal(mended, 0);
	close(fd);
}

/* --- other guests, and the outside --- */

struct udp_want {
	uint32_t src;
	uint16_t dport;
};

static bool is_udp(const struct frame *f, const void *want)
{
	const struct udp_want *w = want;

	return frame_protocol(f) == 17 && frame_src(f) == w->src && frame_dport(f) == w->dport;
}

static bool reaches(struct guest *from, struct guest *to, const uint8_t *dst_mac, uint16_t dport,
		    struct frame *ret)
{
	struct udp_want w = {from->ip, dport};
	struct frame f;

	frame_udp(&f, &(struct udp_fields){from->mac, dst_mac, from->ip, to->ip, 6000, dport,
					   "hello", 5});
	guest_send(from, &f);
	return guest_expect(to, is_udp, &w, 2 * QUIET_MS, ret);
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

	assert_true(reaches(&x->a, &x->b, x->a.gateway_mac, 7000, &f));
	assert_memory_equal(f.data + 6, x->a.gateway_mac, 6); /* routed, not bridged */
	assert_int_equal(f.data[22], 63);
	/* No redirect; NAT itself swallows one for a flow's first packet, and the next is limited in rate. */
	usleep(200 * 1000);
	assert_true(reaches(&x->a, &x->b, x->a.gateway_mac, 7000, NULL));
	assert_false(guest_expect(&x->a, is_redirect, NULL, QUIET_MS, NULL));
	assert_true(reaches(&x->b, &x->a, x->a.gateway_mac, 7000, NULL));
	assert_false(reaches(&x->a, &x->b, x->b.mac, 7001, NULL)); /* ports are isolated */
	assert_false(reaches(&x->a, &x->b, mac_broadcast, 7002, NULL));
	assert_false(reaches(&x->a, &x->c, x->a.gateway_mac, 7003, NULL)); /* another account's */
	assert_false(reaches(&x->c, &x->a, x->a.gateway_mac, 7004, NULL));
	guest_start(x->net, 20, NULL, &lonely);
	guest_start(x->net, 21, NULL, &lonely2);
	assert_false(reaches(&lonely, &lonely2, lonely.gateway_mac, 7005, NULL));
	assert_false(reaches(&lonely, &x->a, lonely.gateway_mac, 7006, NULL));
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
	assert_false(reaches(&x->a, &x->b, x->b.mac, 7100, NULL));
	assert_false(reaches(&x->a, &x->b, mac_broadcast, 7101, NULL));
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
		uint32_t dst = ip(cases[i].dst);
		struct frame f;

		frame_syn(&f, &x->a, dst, 42000, cases[i].port);
		guest_send(&x->a, &f);
		assert_false(guest_expect(&x->uplink, goes_to, &dst, QUIET_MS, NULL));
	}
}

static void test_outside(void **state)
{
	struct fixture *x = *state;
	struct udp_want w = {ip("203.0.113.1"), 8000}, back = {x->uplink.ip, 6000};
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
	assert_false(reaches(&x->uplink, &x->a, x->uplink.gateway_mac, 8001, NULL));
	/* A guest's connection fits the path, which ends in an interface of 1400 bytes. */
	nettest_sh("ip link set up0 mtu 1400");
	frame_syn(&f, &x->a, x->uplink.ip, 41000, 80);
	guest_send(&x->a, &f);
	assert_true(guest_expect(&x->uplink, is_tcp_answer, &(struct tcp_want){w.src, 41000, 80},
				 2000, &seen));
	assert_int_equal(frame_l4(&seen)[22] << 8 | frame_l4(&seen)[23], 1360);
}

/* Whether a datagram from this address gets as far as a socket of the host. */
static bool reaches_host(struct guest *from)
{
	_cleanup_(fd_closep) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(9000)};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct frame f;

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	frame_udp(&f, &(struct udp_fields){from->mac, from->gateway_mac, from->ip,
					   ip("203.0.113.1"), 9000, 9000, "hello", 5});
	guest_send(from, &f);
	return poll(&p, 1, QUIET_MS) == 1;
}

/* Nobody beyond the bridge speaks for a guest, nor reaches the metadata service. */
static void test_outside_is_no_guest(void **state)
{
	struct fixture *x = *state;
	int fd = listener("0.0.0.0", NETTEST_METADATA_PORT);
	struct guest liar = x->uplink;
	uint16_t port = NETTEST_METADATA_PORT;

	assert_int_equal(connect_from(&x->uplink, "203.0.113.1", port),
			 SYN_ACK); /* the socket is everywhere: a control */
	assert_int_equal(connect_from(&x->uplink, NETTEST_GATEWAY, port), NO_ANSWER);
	liar.ip = x->b.ip;
	assert_int_equal(connect_from(&liar, NETTEST_GATEWAY, port), NO_ANSWER);
	assert_false(reaches(&liar, &x->a, x->uplink.gateway_mac, 8100, NULL));
	close(fd);
	assert_true(reaches_host(&x->uplink));
	assert_false(reaches_host(&liar));
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
	    cmocka_unit_test(test_only_own_frames),
	    cmocka_unit_test(test_no_learning),
	    cmocka_unit_test(test_dhcp),
	    cmocka_unit_test(test_address_is_free_at_once),
	    cmocka_unit_test(test_dns),
	    cmocka_unit_test(test_arp),
	    cmocka_unit_test(test_host_services),
	    cmocka_unit_test(test_connection_limit),
	    cmocka_unit_test(test_guest_to_guest),
	    cmocka_unit_test(test_isolation_has_a_second_line),
	    cmocka_unit_test(test_link_local_stays_here),
	    cmocka_unit_test(test_outside),
	    cmocka_unit_test(test_outside_is_no_guest),
	    cmocka_unit_test(test_ping),
	};

	return cmocka_run_group_tests_name("net/guest", all, setup, teardown);
}

int main(void)
{
	return nettest_run(tests);
}
