/* SPDX-License-Identifier: Apache-2.0 */
/* What leaves a guest: with frames of our own on real taps. */
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
#include <unistd.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "net/nettest_priv.h"

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
	uint32_t gateway = nettest_ip(NETTEST_GATEWAY);

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

static int tests(void)
{
	const struct CMUnitTest all[] = {
	    cmocka_unit_test(test_only_own_frames),
	    cmocka_unit_test(test_no_learning),
	};

	return cmocka_run_group_tests_name("net/spoof", all, nettest_setup, nettest_teardown);
}

int main(void)
{
	return nettest_run(tests);
}
