/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two tables. `bridge mallee_<id>` sees the taps and is stateless: it asks only whether a frame is
 * the guest's own. `inet mallee_<id>` sees the bridge as one interface and has connection tracking:
 * it says where guests may go. A guest is elements of sets and maps, so a packet costs the same
 * whether there is one guest or a thousand, and adding one doesn't touch another.
 *
 * Frames of ports that are not in the set `ports` pass the bridge table: such ports are not ours (a
 * port of ours enters the set before its link comes up). The bridge family here has neither
 * conntrack nor the bridge's name, hence the set.
 *
 * Guests of one account reach each other: the source address gives the account's number as a mark,
 * and (destination, mark) must be a member. A guest without account has a number of its own.
 */
#include "net/net_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <nftables/libnftables.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

struct rules {
	struct nft_ctx *nft;
};

int rules_open(struct rules **ret)
{
	struct rules *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->nft = nft_ctx_new(NFT_CTX_DEFAULT);
	if (!r->nft || nft_ctx_buffer_output(r->nft) || nft_ctx_buffer_error(r->nft)) {
		rules_close(r);
		return -ENOMEM;
	}
	*ret = r;
	return 0;
}

void rules_close(struct rules *r)
{
	if (!r)
		return;
	if (r->nft)
		nft_ctx_free(r->nft);
	free(r);
}

/* --- the text --- */

/* What a port is, as elements. The first word of a line is the family, the second the set. */
static const struct element {
	const char *family, *set;
	void (*print)(const struct record_port *p, struct buf *out);
} elements[];

static void print_ports(const struct record_port *p, struct buf *out)
{
	buf_printf(out, "\"%s\"", p->tap);
}

static void print_mac(const struct record_port *p, struct buf *out)
{
	buf_printf(out, "\"%s\" . %s", p->tap, p->mac);
}

static void print_arp(const struct record_port *p, struct buf *out)
{
	buf_printf(out, "\"%s\" . %s . %s", p->tap, p->mac, p->ip);
}

static void print_ip(const struct record_port *p, struct buf *out)
{
	buf_printf(out, "\"%s\" . %s", p->tap, p->ip);
}

static void print_dhcp(const struct record_port *p, struct buf *out)
{
	buf_printf(out, "\"%s\" . 0x", p->tap);
	for (const char *s = p->mac; *s; s++) {
		if (*s != ':')
			buf_putc(out, *s);
	}
}

static void print_account(const struct record_port *p, struct buf *out)
{
	buf_printf(out, "%s : %" PRIu32, p->ip, p->group);
}

static void print_member(const struct record_port *p, struct buf *out)
{
	buf_printf(out, "%s . %" PRIu32, p->ip, p->group);
}

static const struct element elements[] = {
    {"bridge", "ports", print_ports},	      {"bridge", "port_mac", print_mac},
    {"bridge", "port_arp", print_arp},	      {"bridge", "port_ip", print_ip},
    {"bridge", "port_dhcp", print_dhcp},      {"inet", "account_of", print_account},
    {"inet", "account_member", print_member},
};

void rules_print_port(const char *cloud_id, const struct record_port *p, bool add, struct buf *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(elements); i++) {
		buf_printf(out, "%s element %s mallee_%s %s { ", add ? "add" : "delete",
			   elements[i].family, cloud_id, elements[i].set);
		elements[i].print(p, out);
		buf_puts(out, " }\n");
	}
}

/*
 * th,288,48 is the client's hardware address in a DHCP message (UDP header 8, chaddr at 28),
 * th,256,32 the relay's: a guest speaks DHCP for itself alone. Fragments could hide both.
 */
static void print_bridge_table(const struct rules_config *c, struct buf *out)
{
	buf_printf(out, "table bridge mallee_%s {\n", c->cloud_id);
	buf_puts(
	    out,
	    "set ports { type ifname; }\n"
	    "set port_mac { type ifname . ether_addr; }\n"
	    "set port_arp { type ifname . ether_addr . ipv4_addr; }\n"
	    "set port_ip { type ifname . ipv4_addr; }\n"
	    "set port_dhcp { typeof iifname . @th,288,48; }\n"
	    "chain dhcp {\n"
	    "ip frag-off & 0x3fff != 0 counter drop\n"
	    "udp sport != 68 counter drop\n"
	    "@th,256,32 != 0 counter drop\n"
	    "ip saddr 0.0.0.0 ip daddr 255.255.255.255 iifname . @th,288,48 @port_dhcp accept\n"
	    "iifname . ip saddr @port_ip iifname . @th,288,48 @port_dhcp accept\n"
	    "counter drop\n"
	    "}\n"
	    "chain prerouting {\n"
	    "type filter hook prerouting priority -300; policy accept;\n"
	    "iifname != @ports accept\n"
	    "iifname . ether saddr != @port_mac counter drop\n"
	    "ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 "
	    "iifname . arp saddr ether . arp saddr ip @port_arp accept\n"
	    "ether type ip udp dport 67 jump dhcp\n"
	    "ether type ip udp sport 67 counter drop\n"
	    "ether type ip iifname . ip saddr @port_ip accept\n"
	    "counter drop\n"
	    "}\n"
	    "chain forward {\n"
	    "type filter hook forward priority -300; policy accept;\n"
	    "iifname @ports oifname @ports counter drop\n"
	    "}\n"
	    "}\n");
}

static void print_tcp_services(const struct rules_config *c, const char *gateway, struct buf *out)
{
	buf_printf(out, "ip daddr %s tcp dport { 53, %u", gateway, c->metadata_port);
	for (size_t i = 0; i < c->api_port_count; i++)
		buf_printf(out, ", %u", c->api_ports[i]);
	buf_puts(out, " }");
}

static void print_input(const struct rules_config *c, const char *gateway, struct buf *out)
{
	buf_printf(out,
		   "chain input {\n"
		   "type filter hook input priority filter; policy accept;\n"
		   "iifname != { \"%s\", \"lo\" } ip daddr %s tcp dport %u counter drop\n"
		   "iifname != \"%s\" accept\n"
		   "ct state established,related accept\n"
		   "ip daddr { %s, 255.255.255.255 } udp sport 68 udp dport 67 accept\n"
		   "ip daddr %s udp dport 53 accept\n"
		   "ip daddr %s icmp type echo-request accept\n",
		   c->bridge, gateway, c->metadata_port, c->bridge, gateway, gateway, gateway);
	print_tcp_services(c, gateway, out);
	buf_printf(out,
		   " ct state new add @connections { ip saddr ct count over %d } counter drop\n",
		   GUEST_CONNECTIONS_MAX);
	print_tcp_services(c, gateway, out);
	buf_puts(out, " accept\n"
		      "counter drop\n"
		      "}\n");
}

static void print_forward(const struct rules_config *c, const char *subnet, struct buf *out)
{
	buf_printf(out,
		   "chain guests {\n"
		   "meta mark set 0\n"
		   "meta mark set ip saddr map @account_of\n"
		   "ip daddr . meta mark @account_member meta mark set 0 accept\n"
		   "meta mark set 0 counter drop\n"
		   "}\n"
		   "chain forward {\n"
		   "type filter hook forward priority filter; policy accept;\n"
		   "iifname != \"%s\" oifname != \"%s\" accept\n"
		   "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu\n"
		   "ct state established,related accept\n"
		   "iifname \"%s\" oifname \"%s\" jump guests\n"
		   "iifname \"%s\" ip saddr %s accept\n"
		   "counter drop\n"
		   "}\n",
		   c->bridge, c->bridge, c->bridge, c->bridge, c->bridge, subnet);
}

static void print_inet_table(const struct rules_config *c, struct buf *out)
{
	char gateway[IPV4_LEN], subnet[CIDR_TEXT];

	ipv4_format(c->gateway, gateway);
	cidr_format(c->subnet, subnet);
	buf_printf(out,
		   "table inet mallee_%s {\n"
		   "map account_of { type ipv4_addr : mark; }\n"
		   "set account_member { type ipv4_addr . mark; }\n"
		   "set connections { type ipv4_addr; size 65535; flags dynamic; }\n"
		   /* Link-local addresses are the host's own business (it may be a cloud's guest
		    * itself), and nobody beyond the bridge speaks for a guest. */
		   "chain guard {\n"
		   "type filter hook prerouting priority raw; policy accept;\n"
		   "iifname \"%s\" ip daddr 169.254.169.254 tcp dport 80 accept\n"
		   "iifname \"%s\" ip daddr 169.254.0.0/16 counter drop\n"
		   "iifname \"%s\" meta nfproto ipv6 counter drop\n"
		   "iifname != { \"%s\", \"lo\" } ip saddr %s counter drop\n"
		   "}\n"
		   "chain metadata {\n"
		   "type nat hook prerouting priority dstnat; policy accept;\n"
		   "iifname \"%s\" ip daddr 169.254.169.254 tcp dport 80 redirect to :%u\n"
		   "}\n"
		   "chain outside {\n"
		   "type nat hook postrouting priority srcnat; policy accept;\n"
		   "oifname != \"%s\" ip saddr %s ip daddr != %s masquerade\n"
		   "}\n"
		   /* Every neighbour is behind us: a redirect would be a lie. The sysctl alone
		      doesn't stop it, `all` counts too. */
		   "chain output {\n"
		   "type filter hook output priority filter; policy accept;\n"
		   "oifname \"%s\" icmp type redirect drop\n"
		   "}\n",
		   c->cloud_id, c->bridge, c->bridge, c->bridge, c->bridge, subnet, c->bridge,
		   c->metadata_port, c->bridge, subnet, subnet, c->bridge);
	print_input(c, gateway, out);
	print_forward(c, subnet, out);
	buf_puts(out, "}\n");
}

void rules_print_delete(const char *cloud_id, struct buf *out)
{
	/* Naming a table makes it: the only way to delete one that may be missing, in this version
	 * of nftables. */
	buf_printf(out,
		   "table inet mallee_%s\n"
		   "delete table inet mallee_%s\n"
		   "table bridge mallee_%s\n"
		   "delete table bridge mallee_%s\n",
		   cloud_id, cloud_id, cloud_id, cloud_id);
}

void rules_print(const struct rules_config *c, const struct record_port *ports, size_t count,
		 struct buf *out)
{
	rules_print_delete(c->cloud_id, out);
	print_bridge_table(c, out);
	print_inet_table(c, out);
	for (size_t i = 0; i < count; i++)
		rules_print_port(c->cloud_id, &ports[i], true, out);
}

/* --- the kernel --- */

static int run(struct rules *r, const char *command, unsigned flags, struct error *e)
{
	const char *why;
	int err;

	nft_ctx_output_set_flags(r->nft, flags);
	err = nft_run_cmd_from_buffer(r->nft, command);
	why = nft_ctx_get_error_buffer(r->nft);
	if (!err)
		return 0;
	if (why && strstr(why, "No such file or directory"))
		return -ENOENT;
	return error_set(e, "HostNetwork", "nftables refused our rules: %.*s",
			 why ? (int)strcspn(why, "\n") : 0, why ? why : "");
}

int rules_apply(struct rules *r, const char *batch, struct error *e)
{
	return run(r, batch, 0, e);
}

int rules_list(struct rules *r, const char *command, bool json, struct buf *out, struct error *e)
{
	int err = run(r, command, NFT_CTX_OUTPUT_STATELESS | (json ? NFT_CTX_OUTPUT_JSON : 0), e);

	if (err < 0)
		return err;
	buf_puts(out, nft_ctx_get_output_buffer(r->nft));
	return 0;
}

/* What a guest's connections put into that set is no change of the rules. */
static void forget_connections(char *listing)
{
	char *start = strstr(listing, "\tset connections {");
	char *end = start ? strstr(start, "\n\t}\n") : NULL;

	if (end)
		memmove(start, end, strlen(end) + 1);
}

/* The sum of a hash (FNV-1a) of each word: the order of elements in a listing is the kernel's whim.
 */
static uint64_t hash_words(const char *s)
{
	uint64_t sum = 1;

	while (*s) {
		size_t n = strcspn(s, " \t\n,");
		uint64_t h = 0xcbf29ce484222325;

		for (size_t i = 0; i < n; i++)
			h = (h ^ (unsigned char)s[i]) * 0x100000001b3;
		sum += n ? h : 0;
		s += n + !!s[n];
	}
	return sum;
}

int rules_fingerprint(struct rules *r, const char *cloud_id, uint64_t *ret, struct error *e)
{
	static const char *const families[] = {"inet", "bridge"};
	struct buf text = BUF_INIT;
	char command[64];
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(families) && !err; i++) {
		snprintf(command, sizeof(command), "list table %s mallee_%s", families[i],
			 cloud_id);
		err = rules_list(r, command, false, &text, e);
	}
	if (!err) {
		forget_connections(text.data);
		*ret = hash_words(text.data);
	} else if (err == -ENOENT) {
		*ret = err = 0;
	}
	buf_done(&text);
	return err;
}
