/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does the guest live? An ARP request goes out of the guest's own port, to its own MAC, in the
 * gateway's name; only an answer that comes in by that port, from that MAC and for that address
 * counts. A packet socket of one protocol would see nothing on a bridge port (the bridge takes the
 * frame first), one of all protocols does; a filter leaves it ARP alone.
 */
#include "net/net_priv.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/if_ether.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "os/file.h"

#define RESEND_MS 400

struct target {
	char tap[IFNAMSIZ];
	int index;
	uint8_t mac[6], gateway_mac[6];
	uint32_t ip, gateway;
};

static int find_target(struct net *n, const char *instance_id, struct target *t)
{
	const struct record_port *p = record_find_port(&n->record, instance_id);
	struct nl_link l;
	int err;

	if (!p || ipv4_parse(p->ip, &t->ip) < 0 || mac_parse(p->mac, t->mac) < 0)
		return -ENOENT;
	err = nl_link_get(n->nl, n->record.bridge, &l);
	if (err < 0)
		return err;
	memcpy(t->gateway_mac, l.mac, sizeof(t->gateway_mac));
	err = nl_link_get(n->nl, p->tap, &l);
	if (err < 0)
		return err;
	strcpy(t->tap, p->tap);
	t->index = l.index;
	t->gateway = n->gateway;
	return 0;
}

static int open_socket(int index)
{
	/* ethertype == ARP ? whole frame : nothing */
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_ARP, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, 0xffff),
	    BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog filter = {.len = ARRAY_SIZE(code), .filter = code};
	struct sockaddr_ll sa = {
	    .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = index};
	int on = 1, err;
	/* Protocol 0: nothing is received until it is bound, so that no foreign frame waits in it.
	 */
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (!setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) &&
	    !setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) &&
	    !bind(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

struct arp_frame {
	struct ether_header eth;
	struct ether_arp arp;
} __attribute__((packed));

static void send_request(int fd, const struct target *t)
{
	uint32_t gateway = htonl(t->gateway), ip = htonl(t->ip);
	struct arp_frame f = {
	    .eth.ether_type = htons(ETHERTYPE_ARP),
	    .arp.ea_hdr = {.ar_hrd = htons(ARPHRD_ETHER),
			   .ar_pro = htons(ETHERTYPE_IP),
			   .ar_hln = 6,
			   .ar_pln = 4,
			   .ar_op = htons(ARPOP_REQUEST)},
	};

	memcpy(f.eth.ether_dhost, t->mac, 6);
	memcpy(f.eth.ether_shost, t->gateway_mac, 6);
	memcpy(f.arp.arp_sha, t->gateway_mac, 6);
	memcpy(f.arp.arp_spa, &gateway, 4);
	memcpy(f.arp.arp_tpa, &ip, 4);
	/* A guest that is off has no carrier and the frame is refused: that is no answer, like any
	 * other. */
	if (send(fd, &f, sizeof(f), 0) < 0)
		return;
}

static bool is_answer(const struct arp_frame *f, ssize_t len, const struct target *t)
{
	uint32_t ip = htonl(t->ip);

	return len >= (ssize_t)sizeof(*f) && f->eth.ether_type == htons(ETHERTYPE_ARP) &&
	       f->arp.ea_hdr.ar_op == htons(ARPOP_REPLY) &&
	       !memcmp(f->eth.ether_shost, t->mac, 6) && !memcmp(f->arp.arp_sha, t->mac, 6) &&
	       !memcmp(f->arp.arp_spa, &ip, 4);
}

static int await(int fd, const struct target *t, int timeout_ms)
{
	int64_t now = clock_mono_ms(), end = now + timeout_ms, resend = now;

	for (; now < end; now = clock_mono_ms()) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		struct arp_frame f;
		ssize_t len;

		if (now >= resend) {
			send_request(fd, t);
			resend = now + RESEND_MS;
		}
		if (poll(&p, 1, (int)(MIN_OF(resend, end) - now)) <= 0)
			continue;
		if (p.revents & (POLLERR | POLLHUP))
			return -ENETDOWN; /* the tap is gone */
		while ((len = recv(fd, &f, sizeof(f), 0)) >= 0) {
			if (is_answer(&f, len, t))
				return 0;
		}
	}
	return -ETIMEDOUT;
}

int net_port_ping(struct net *n, const char *instance_id, int timeout_ms, struct error *e)
{
	_cleanup_(fd_closep) int fd = -1;
	struct target t;
	int err;

	pthread_mutex_lock(&n->lock);
	err = find_target(n, instance_id, &t);
	pthread_mutex_unlock(&n->lock);
	if (err < 0)
		return error_errno(e, err, "no port of instance %s to ask on", instance_id);
	fd = open_socket(t.index);
	if (fd < 0)
		return error_errno(e, fd, "cannot listen on %s", t.tap);
	return await(fd, &t, timeout_ms);
}
