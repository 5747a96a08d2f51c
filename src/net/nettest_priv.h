/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_NET_NETTEST_PRIV_H
#define MALLEE_NET_NETTEST_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/net_priv.h"

/*
 * For the tests of this folder: a network namespace of their own, and guests that are imitated by
 * speaking raw Ethernet through their tap. All of it is thrown away with the process, dnsmasq
 * included.
 */

/* Runs tests() in new network, mount and process namespaces and returns its result; without the
 * rights to, says so and returns 77. */
int nettest_run(int (*tests)(void));

/* Another empty network namespace: for cmocka_unit_test_setup, so that a test that fails does not
 * spoil the next. */
int nettest_fresh(void **state);

#define NETTEST_SUBNET "10.31.16.0/20"
#define NETTEST_GATEWAY "10.31.16.1"
#define NETTEST_METADATA_PORT 9779
#define NETTEST_API_PORT 9773

/* A fresh folder that dnsmasq's user can look into; removed with dir_remove. */
char *nettest_dir(void);
struct net *nettest_open(const char *dir);

/* Runs a shell command (fixtures only) and fails the test when that fails. */
void nettest_sh(const char *command);
char *nettest_output(const char *command); /* malloc()ed */
/* All that uninstalling must give back: links, addresses, routes, rules, sysctls. */
char *nettest_snapshot(void);

struct guest {
	int fd;
	char tap[IFNAMSIZ];
	uint8_t mac[6], gateway_mac[6];
	uint32_t ip;
};

#define FRAME_MAX 2048
struct frame {
	size_t len;
	uint8_t data[FRAME_MAX];
};

/* Adds a port and plugs a guest in. n: makes its address, MAC and id. */
void guest_start(struct net *net, unsigned n, const char *account, struct guest *g);
/* Plugs in to a tap that exists. */
void guest_plug(const char *tap, const char *mac, const char *ip, struct guest *g);
/* Wait until the gateway answers: a cable takes up to a second until the bridge notices it. Learns
 * the gateway's MAC. */
void guest_settle(struct net *net, struct guest *g);
void guest_stop(struct guest *g);
void guest_send(struct guest *g, const struct frame *f);
/* The next frame that match() accepts, for at most timeout_ms; meanwhile answers ARP requests for
 * its address. */
bool guest_expect(struct guest *g, bool (*match)(const struct frame *f, const void *want),
		  const void *want, int timeout_ms, struct frame *ret);
/* Answers ARP in a thread of its own. mac NULL: the guest's. */
struct answerer;
struct answerer *answerer_start(struct guest *g, const uint8_t *mac);
void answerer_stop(struct answerer *a);

/* --- a small cloud: the state of a group of tests --- */

struct fixture {
	char *dir;
	struct net *net;
	struct guest a, b, c; /* a and b belong to account 1, c to account 2 */
	struct guest uplink;  /* the outside: another interface of the host, 203.0.113.2 */
};

int nettest_setup(void **state);
int nettest_teardown(void **state);
uint32_t nettest_ip(const char *s); /* of a literal */
#define QUIET_MS 250		    /* how long nothing must come to count as dropped */
#define PATIENT_MS 5000		    /* how long what must come is waited for */

/* --- frames --- */

struct arp_fields {
	uint16_t op;
	const uint8_t *eth_src, *eth_dst, *sender_mac;
	uint32_t sender_ip, target_ip;
};
void frame_arp(struct frame *f, const struct arp_fields *a);

struct udp_fields {
	const uint8_t *eth_src, *eth_dst;
	uint32_t src, dst;
	uint16_t sport, dport;
	const void *data;
	size_t len;
};
void frame_udp(struct frame *f, const struct udp_fields *u);
/* A SYN. */
void frame_syn(struct frame *f, struct guest *g, uint32_t dst, uint16_t sport, uint16_t dport);

/* What frames of IPv4 say; 0 otherwise. */
uint16_t frame_type(const struct frame *f);
uint8_t frame_protocol(const struct frame *f);
uint32_t frame_src(const struct frame *f), frame_dst(const struct frame *f);
uint16_t frame_sport(const struct frame *f), frame_dport(const struct frame *f);
const uint8_t *frame_l4(const struct frame *f);
const uint8_t *frame_payload(const struct frame *f, size_t *ret_len); /* UDP's */

/* --- DHCP --- */

enum { DHCP_DISCOVER = 1, DHCP_OFFER = 2, DHCP_REQUEST = 3, DHCP_ACK = 5 };
struct dhcp_fields {
	uint8_t type;
	const uint8_t *chaddr;
	uint32_t requested, server, giaddr;
};
size_t dhcp_build(const struct dhcp_fields *d, uint8_t out[static 300]);
/* The value of an option, NULL when absent. */
const uint8_t *dhcp_option(const struct frame *f, uint8_t code, size_t *ret_len);
/* Sends and waits for the answer of that type. */
bool guest_dhcp(struct guest *g, const struct dhcp_fields *d, uint8_t answer, struct frame *ret);

extern const uint8_t mac_broadcast[6];

#endif
