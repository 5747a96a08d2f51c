/* SPDX-License-Identifier: Apache-2.0 */
#include "net/nettest_priv.h"

#include <arpa/inet.h>
#include <string.h>

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htonl(v);
	memcpy(p, &v, 4);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return ntohl(v);
}

static void ethernet(struct frame *f, const uint8_t *dst, const uint8_t *src, uint16_t type)
{
	*f = (struct frame){0};
	memcpy(f->data, dst, 6);
	memcpy(f->data + 6, src, 6);
	put16(f->data + 12, type);
}

void frame_arp(struct frame *f, const struct arp_fields *a)
{
	ethernet(f, a->eth_dst, a->eth_src, 0x0806);
	memcpy(f->data + 14, "\x00\x01\x08\x00\x06\x04", 6);
	put16(f->data + 20, a->op);
	memcpy(f->data + 22, a->sender_mac, 6);
	put32(f->data + 28, a->sender_ip);
	put32(f->data + 38, a->target_ip);
	f->len = 42;
}

static uint32_t add_words(uint32_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static void ipv4(struct frame *f, uint8_t protocol, uint32_t src, uint32_t dst, size_t l4_len)
{
	uint8_t *ip = f->data + 14;
	uint32_t sum;

	ip[0] = 0x45;
	put16(ip + 2, 20 + l4_len);
	ip[8] = 64;
	ip[9] = protocol;
	put32(ip + 12, src);
	put32(ip + 16, dst);
	put16(ip + 10, fold(add_words(0, ip, 20)));
	sum = add_words(protocol + l4_len, ip + 12, 8);
	put16(ip + 20 + (protocol == 6 ? 16 : 6), fold(add_words(sum, ip + 20, l4_len)));
	f->len = 34 + l4_len;
}

void frame_udp(struct frame *f, const struct udp_fields *u)
{
	uint8_t *udp = f->data + 34;

	ethernet(f, u->eth_dst, u->eth_src, 0x0800);
	put16(udp, u->sport);
	put16(udp + 2, u->dport);
	put16(udp + 4, 8 + u->len);
	if (u->len)
		memcpy(udp + 8, u->data, u->len);
	ipv4(f, 17, u->src, u->dst, 8 + u->len);
}

void frame_syn(struct frame *f, struct guest *g, uint32_t dst, uint16_t sport, uint16_t dport)
{
	uint8_t *tcp = f->data + 34;

	ethernet(f, g->gateway_mac, g->mac, 0x0800);
	put16(tcp, sport);
	put16(tcp + 2, dport);
	put32(tcp + 4, 1000);
	tcp[12] = 6 << 4;
	tcp[13] = 2;
	put16(tcp + 14, 64000);
	memcpy(tcp + 20, "\x02\x04\x05\xb4", 4); /* MSS 1460 */
	ipv4(f, 6, g->ip, dst, 24);
}

uint16_t frame_type(const struct frame *f)
{
	return f->len < 14 ? 0 : f->data[12] << 8 | f->data[13];
}

uint8_t frame_protocol(const struct frame *f)
{
	return frame_type(f) == 0x0800 && f->len >= 34 ? f->data[23] : 0;
}

uint32_t frame_src(const struct frame *f)
{
	return frame_protocol(f) ? get32(f->data + 26) : 0;
}

uint32_t frame_dst(const struct frame *f)
{
	return frame_protocol(f) ? get32(f->data + 30) : 0;
}

const uint8_t *frame_l4(const struct frame *f)
{
	return f->data + 14 + (f->data[14] & 15) * 4;
}

uint16_t frame_sport(const struct frame *f)
{
	return frame_protocol(f) ? frame_l4(f)[0] << 8 | frame_l4(f)[1] : 0;
}

uint16_t frame_dport(const struct frame *f)
{
	return frame_protocol(f) ? frame_l4(f)[2] << 8 | frame_l4(f)[3] : 0;
}

const uint8_t *frame_payload(const struct frame *f, size_t *ret_len)
{
	const uint8_t *p = frame_l4(f) + 8;

	*ret_len = f->data + f->len - p;
	return p;
}

/* --- DHCP --- */

size_t dhcp_build(const struct dhcp_fields *d, uint8_t out[static 300])
{
	uint8_t *o = out + 240;

	memset(out, 0, 300);
	memcpy(out, "\x01\x01\x06\x00\x12\x34\x56\x78", 8);
	put32(out + 24, d->giaddr);
	memcpy(out + 28, d->chaddr, 6);
	memcpy(out + 236, "\x63\x82\x53\x63", 4);
	memcpy(o, "\x35\x01", 2);
	o[2] = d->type;
	o += 3;
	if (d->requested) {
		memcpy(o, "\x32\x04", 2);
		put32(o + 2, d->requested);
		o += 6;
	}
	if (d->server) {
		memcpy(o, "\x36\x04", 2);
		put32(o + 2, d->server);
		o += 6;
	}
	memcpy(o, "\x37\x05\x03\x06\x0c\x0f\x1a", 7);
	o[7] = 0xff;
	return 300;
}

const uint8_t *dhcp_option(const struct frame *f, uint8_t code, size_t *ret_len)
{
	size_t len;
	const uint8_t *p = frame_payload(f, &len), *end = p + len;

	for (p += 240; p + 2 <= end && *p != 0xff; p += 2 + p[1]) {
		if (*p == code && p + 2 + p[1] <= end) {
			*ret_len = p[1];
			return p + 2;
		}
	}
	return NULL;
}

static bool is_dhcp_answer(const struct frame *f, const void *want)
{
	const uint8_t *type;
	size_t len;

	if (frame_protocol(f) != 17 || frame_sport(f) != 67 || frame_dport(f) != 68 ||
	    f->len < 14 + 20 + 8 + 240)
		return false;
	type = dhcp_option(f, 53, &len);
	return type && len == 1 && *type == *(const uint8_t *)want;
}

bool guest_dhcp(struct guest *g, const struct dhcp_fields *d, uint8_t answer, struct frame *ret)
{
	uint8_t message[300];
	struct frame f;

	dhcp_build(d, message);
	frame_udp(&f, &(struct udp_fields){g->mac, mac_broadcast, 0, 0xffffffff, 68, 67, message,
					   sizeof(message)});
	/* Like any client, more than once: a port that was made this instant is known to dnsmasq in
	 * the next. */
	for (int i = 0; i < 5; i++) {
		guest_send(g, &f);
		if (guest_expect(g, is_dhcp_answer, &answer, 400, ret))
			return true;
	}
	return false;
}
