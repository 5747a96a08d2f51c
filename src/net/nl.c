/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests and answers. A request is built in a fixed buffer (ours are short, and a message that
 * would not fit is a mistake of ours: asserted); answers are read until NLMSG_DONE or NLMSG_ERROR
 * with our sequence number. What the kernel sends is bounds-checked by the RTA_/NLMSG_ macros, and
 * unknown attributes are skipped.
 */
#include "net/nl_priv.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

struct nl {
	int fd;
	uint32_t seq;
	uint32_t port;
	char reply[64 * 1024];
};

struct request {
	struct nlmsghdr h;
	char body[1024];
};

typedef int message_fn(void *ctx, const struct nlmsghdr *h);

int nl_open(struct nl **ret)
{
	struct sockaddr_nl sa = {.nl_family = AF_NETLINK};
	struct timeval patience = {.tv_sec = 5};
	socklen_t len = sizeof(sa);
	struct nl *nl = calloc(1, sizeof(*nl));

	if (!nl)
		return -ENOMEM;
	nl->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (nl->fd < 0 || bind(nl->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    getsockname(nl->fd, (struct sockaddr *)&sa, &len) < 0 ||
	    setsockopt(nl->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0) {
		int r = -errno;

		nl_close(nl);
		return r;
	}
	nl->port = sa.nl_pid;
	*ret = nl;
	return 0;
}

void nl_close(struct nl *nl)
{
	if (!nl)
		return;
	if (nl->fd >= 0)
		close(nl->fd);
	free(nl);
}

/* --- building --- */

static void *request_start(struct request *q, uint16_t type, uint16_t flags, size_t head)
{
	memset(q, 0, sizeof(*q));
	q->h.nlmsg_len = NLMSG_LENGTH(head);
	q->h.nlmsg_type = type;
	q->h.nlmsg_flags = NLM_F_REQUEST | flags;
	return NLMSG_DATA(&q->h);
}

static struct rtattr *put(struct request *q, uint16_t type, const void *data, size_t len)
{
	size_t off = NLMSG_ALIGN(q->h.nlmsg_len);
	struct rtattr *a = (struct rtattr *)((char *)q + off);

	assert(off + RTA_SPACE(len) <= sizeof(*q));
	a->rta_type = type;
	a->rta_len = RTA_LENGTH(len);
	if (len)
		memcpy(RTA_DATA(a), data, len);
	q->h.nlmsg_len = off + RTA_SPACE(len);
	return a;
}

static void put_u8(struct request *q, uint16_t type, uint8_t v)
{
	put(q, type, &v, sizeof(v));
}

static void put_u32(struct request *q, uint16_t type, uint32_t v)
{
	put(q, type, &v, sizeof(v));
}

static void put_text(struct request *q, uint16_t type, const char *s)
{
	put(q, type, s, strlen(s) + 1);
}

static struct rtattr *nest(struct request *q, uint16_t type)
{
	return put(q, type | NLA_F_NESTED, NULL, 0);
}

static void nest_end(struct request *q, struct rtattr *a)
{
	a->rta_len = (char *)q + q->h.nlmsg_len - (char *)a;
}

/* --- exchanging --- */

/* NULL at the end of the datagram, or where it is cut. */
static const struct nlmsghdr *message_at(const struct nl *nl, size_t off, size_t len)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)(nl->reply + off);

	if (off > len || len - off < sizeof(*h) || h->nlmsg_len < sizeof(*h) ||
	    h->nlmsg_len > len - off)
		return NULL;
	return h;
}

/* Of NLMSG_ERROR, and of NLMSG_DONE, which may bring the error of a dump. */
static int error_of(const struct nlmsghdr *h)
{
	int err;

	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(err)))
		return h->nlmsg_type == NLMSG_DONE ? 0 : -EBADMSG;
	memcpy(&err, NLMSG_DATA(h), sizeof(err));
	return err;
}

/* One datagram of the answer: the kernel's error, fn's non-zero result, or 0; *ret_more: it goes
 * on. */
static int digest(struct nl *nl, size_t len, message_fn *fn, void *ctx, bool *ret_more)
{
	const struct nlmsghdr *h;

	*ret_more = false;
	for (size_t off = 0; (h = message_at(nl, off, len)); off += NLMSG_ALIGN(h->nlmsg_len)) {
		int r;

		if (h->nlmsg_seq != nl->seq || h->nlmsg_pid != nl->port)
			continue;
		if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
			return error_of(h);
		r = fn ? fn(ctx, h) : 0;
		if (r || !(h->nlmsg_flags & NLM_F_MULTI))
			return r;
	}
	*ret_more = true;
	return 0;
}

static int exchange(struct nl *nl, struct request *q, message_fn *fn, void *ctx)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	bool more;
	int r;

	q->h.nlmsg_seq = ++nl->seq;
	if (!fn)
		q->h.nlmsg_flags |= NLM_F_ACK;
	if (sendto(nl->fd, q, q->h.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	do {
		ssize_t n = recv(nl->fd, nl->reply, sizeof(nl->reply), MSG_TRUNC);

		if (n < 0 && errno == EINTR)
			n = 0;
		if (n < 0)
			return -errno;
		if ((size_t)n > sizeof(nl->reply))
			return -EMSGSIZE;
		r = digest(nl, n, fn, ctx, &more);
	} while (more);
	return r;
}

/* --- links --- */

static uint32_t attr_u32(const struct rtattr *a, uint32_t otherwise)
{
	uint32_t v;

	if (RTA_PAYLOAD(a) < sizeof(v))
		return otherwise;
	memcpy(&v, RTA_DATA(a), sizeof(v));
	return v;
}

static void attr_text(const struct rtattr *a, char *out, size_t size)
{
	size_t n = strnlen(RTA_DATA(a), RTA_PAYLOAD(a));

	if (n >= size)
		n = size - 1;
	memcpy(out, RTA_DATA(a), n);
	out[n] = '\0';
}

#define for_each_attr(a, first, len) for (; RTA_OK(a, len); a = RTA_NEXT(a, len))
#define attr_type(a) ((a)->rta_type & NLA_TYPE_MASK)

static void parse_tun(const struct rtattr *data, struct nl_link *l)
{
	const struct rtattr *a = RTA_DATA(data);
	int len = RTA_PAYLOAD(data);

	for_each_attr(a, data, len)
	{
		if (attr_type(a) == IFLA_TUN_OWNER)
			l->owner = attr_u32(a, UINT32_MAX);
		else if (attr_type(a) == IFLA_TUN_GROUP)
			l->group = attr_u32(a, UINT32_MAX);
	}
}

static void parse_port(const struct rtattr *data, struct nl_link *l)
{
	const struct rtattr *a = RTA_DATA(data);
	int len = RTA_PAYLOAD(data);

	for_each_attr(a, data, len)
	{
		bool on = RTA_PAYLOAD(a) >= 1 && *(const uint8_t *)RTA_DATA(a);

		if (attr_type(a) == IFLA_BRPORT_ISOLATED)
			l->isolated = on;
		else if (attr_type(a) == IFLA_BRPORT_LEARNING)
			l->learning = on;
	}
}

static void parse_info(const struct rtattr *info, struct nl_link *l)
{
	const struct rtattr *a = RTA_DATA(info), *data = NULL, *port = NULL;
	char master_kind[16] = "";
	int len = RTA_PAYLOAD(info);

	for_each_attr(a, info, len)
	{
		switch (attr_type(a)) {
		case IFLA_INFO_KIND:
			attr_text(a, l->kind, sizeof(l->kind));
			break;
		case IFLA_INFO_DATA:
			data = a;
			break;
		case IFLA_INFO_SLAVE_KIND:
			attr_text(a, master_kind, sizeof(master_kind));
			break;
		case IFLA_INFO_SLAVE_DATA:
			port = a;
			break;
		}
	}
	if (data && !strcmp(l->kind, "tun"))
		parse_tun(data, l);
	if (port && !strcmp(master_kind, "bridge"))
		parse_port(port, l);
}

static int parse_link(const struct nlmsghdr *h, struct nl_link *l)
{
	const struct ifinfomsg *i = NLMSG_DATA(h);
	const struct rtattr *a;
	int len;

	if (h->nlmsg_type != RTM_NEWLINK || h->nlmsg_len < NLMSG_LENGTH(sizeof(*i)))
		return -EBADMSG;
	*l = (struct nl_link){.index = i->ifi_index,
			      .up = i->ifi_flags & IFF_UP,
			      .owner = UINT32_MAX,
			      .group = UINT32_MAX};
	a = IFLA_RTA(i);
	len = IFLA_PAYLOAD(h);
	for_each_attr(a, i, len)
	{
		switch (attr_type(a)) {
		case IFLA_IFNAME:
			attr_text(a, l->name, sizeof(l->name));
			break;
		case IFLA_IFALIAS:
			attr_text(a, l->alias, sizeof(l->alias));
			break;
		case IFLA_ADDRESS:
			if (RTA_PAYLOAD(a) == sizeof(l->mac))
				memcpy(l->mac, RTA_DATA(a), sizeof(l->mac));
			break;
		case IFLA_MTU:
			l->mtu = attr_u32(a, 0);
			break;
		case IFLA_MASTER:
			l->master = attr_u32(a, 0);
			break;
		case IFLA_LINKINFO:
			parse_info(a, l);
			break;
		}
	}
	return 0;
}

static int take_link(void *ctx, const struct nlmsghdr *h)
{
	return parse_link(h, ctx);
}

int nl_link_get(struct nl *nl, const char *name, struct nl_link *ret)
{
	struct nl_link l = {0};
	struct request q;
	int r;

	if (strlen(name) >= IFNAMSIZ)
		return -ENODEV;
	request_start(&q, RTM_GETLINK, 0, sizeof(struct ifinfomsg));
	put_text(&q, IFLA_IFNAME, name);
	r = exchange(nl, &q, take_link, &l);
	if (r < 0)
		return r;
	*ret = l;
	return 0;
}

struct link_walk {
	int (*fn)(void *ctx, const struct nl_link *l);
	void *ctx;
};

static int walk_link(void *ctx, const struct nlmsghdr *h)
{
	struct link_walk *w = ctx;
	struct nl_link l;
	int r = parse_link(h, &l);

	return r < 0 ? r : w->fn(w->ctx, &l);
}

/*
 * A walk that ends early leaves the rest of the dump in the socket; it is passed over by its
 * sequence number in the next exchange. But the callback must not make calls of its own meanwhile:
 * they would use the same buffer. So the callers collect, then act.
 */
int nl_link_each(struct nl *nl, int (*fn)(void *ctx, const struct nl_link *l), void *ctx)
{
	struct link_walk w = {fn, ctx};
	struct request q;

	request_start(&q, RTM_GETLINK, NLM_F_DUMP, sizeof(struct ifinfomsg));
	return exchange(nl, &q, walk_link, &w);
}

int nl_bridge_add(struct nl *nl, const char *name, const uint8_t mac[static 6])
{
	struct rtattr *info, *data;
	struct request q;

	request_start(&q, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
	put_text(&q, IFLA_IFNAME, name);
	put(&q, IFLA_ADDRESS, mac, 6);
	info = nest(&q, IFLA_LINKINFO);
	put_text(&q, IFLA_INFO_KIND, "bridge");
	data = nest(&q, IFLA_INFO_DATA);
	put_u32(&q, IFLA_BR_STP_STATE, 0);
	put_u32(&q, IFLA_BR_FORWARD_DELAY, 0);
	put_u8(&q, IFLA_BR_MCAST_SNOOPING, 0);
	nest_end(&q, data);
	nest_end(&q, info);
	return exchange(nl, &q, NULL, NULL);
}

static struct ifinfomsg *link_change(struct request *q, int index)
{
	struct ifinfomsg *i = request_start(q, RTM_NEWLINK, 0, sizeof(*i));

	i->ifi_index = index;
	return i;
}

int nl_link_del(struct nl *nl, int index)
{
	struct request q;
	struct ifinfomsg *i = request_start(&q, RTM_DELLINK, 0, sizeof(*i));

	i->ifi_index = index;
	return exchange(nl, &q, NULL, NULL);
}

int nl_link_up(struct nl *nl, int index, bool up)
{
	struct request q;
	struct ifinfomsg *i = link_change(&q, index);

	i->ifi_flags = up ? IFF_UP : 0;
	i->ifi_change = IFF_UP;
	return exchange(nl, &q, NULL, NULL);
}

int nl_link_mac(struct nl *nl, int index, const uint8_t mac[static 6])
{
	struct request q;

	link_change(&q, index);
	put(&q, IFLA_ADDRESS, mac, 6);
	return exchange(nl, &q, NULL, NULL);
}

int nl_link_alias(struct nl *nl, int index, const char *alias)
{
	struct request q;

	link_change(&q, index);
	put(&q, IFLA_IFALIAS, alias, strlen(alias));
	return exchange(nl, &q, NULL, NULL);
}

int nl_link_master(struct nl *nl, int index, int master)
{
	struct request q;

	link_change(&q, index);
	put_u32(&q, IFLA_MASTER, master);
	return exchange(nl, &q, NULL, NULL);
}

int nl_port_isolate(struct nl *nl, int index)
{
	struct rtattr *info, *data;
	struct request q;

	link_change(&q, index);
	info = nest(&q, IFLA_LINKINFO);
	put_text(&q, IFLA_INFO_SLAVE_KIND, "bridge");
	data = nest(&q, IFLA_INFO_SLAVE_DATA);
	put_u8(&q, IFLA_BRPORT_ISOLATED, 1);
	put_u8(&q, IFLA_BRPORT_LEARNING, 0);
	put_u8(&q, IFLA_BRPORT_UNICAST_FLOOD, 0);
	nest_end(&q, data);
	nest_end(&q, info);
	return exchange(nl, &q, NULL, NULL);
}

static struct ndmsg *neighbour(struct request *q, int family, int index)
{
	struct ndmsg *n = request_start(q, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*n));

	n->ndm_family = family;
	n->ndm_ifindex = index;
	return n;
}

int nl_fdb_set(struct nl *nl, int port_index, const uint8_t mac[static 6])
{
	struct request q;
	struct ndmsg *n = neighbour(&q, AF_BRIDGE, port_index);

	/* "static" in the words of bridge(8): permanent ones would be the host's own. */
	n->ndm_state = NUD_NOARP;
	n->ndm_flags = NTF_MASTER;
	put(&q, NDA_LLADDR, mac, 6);
	return exchange(nl, &q, NULL, NULL);
}

int nl_proxy_set(struct nl *nl, int index, uint32_t ip)
{
	struct request q;
	struct ndmsg *n = neighbour(&q, AF_INET, index);
	uint32_t be = htonl(ip);

	n->ndm_state = NUD_PERMANENT;
	n->ndm_flags = NTF_PROXY;
	put(&q, NDA_DST, &be, sizeof(be));
	return exchange(nl, &q, NULL, NULL);
}

/* --- addresses and routes --- */

int nl_addr_add(struct nl *nl, int index, uint32_t ip, unsigned prefix)
{
	uint32_t be = htonl(ip);
	uint32_t broadcast = prefix < 31 ? htonl(ip | UINT32_MAX >> prefix) : 0;
	struct request q;
	struct ifaddrmsg *m = request_start(&q, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(*m));

	m->ifa_family = AF_INET;
	m->ifa_prefixlen = prefix;
	m->ifa_index = index;
	put(&q, IFA_LOCAL, &be, sizeof(be));
	put(&q, IFA_ADDRESS, &be, sizeof(be));
	if (broadcast)
		put(&q, IFA_BROADCAST, &broadcast, sizeof(broadcast));
	return exchange(nl, &q, NULL, NULL);
}

struct net_walk {
	int (*fn)(void *ctx, int index, uint32_t ip, unsigned prefix);
	void *ctx;
};

static int walk_addr(void *ctx, const struct nlmsghdr *h)
{
	const struct ifaddrmsg *m = NLMSG_DATA(h);
	const struct net_walk *w = ctx;
	const struct rtattr *a;
	uint32_t ip = 0;
	int len;

	if (h->nlmsg_type != RTM_NEWADDR || h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)))
		return -EBADMSG;
	a = IFA_RTA(m);
	len = IFA_PAYLOAD(h);
	for_each_attr(a, m, len)
	{
		if (attr_type(a) == IFA_LOCAL)
			ip = ntohl(attr_u32(a, 0));
	}
	if (m->ifa_family != AF_INET || !ip)
		return 0;
	return w->fn(w->ctx, m->ifa_index, ip, m->ifa_prefixlen);
}

int nl_addr_each(struct nl *nl, int (*fn)(void *ctx, int index, uint32_t ip, unsigned prefix),
		 void *ctx)
{
	struct net_walk w = {fn, ctx};
	struct request q;
	struct ifaddrmsg *m = request_start(&q, RTM_GETADDR, NLM_F_DUMP, sizeof(*m));

	m->ifa_family = AF_INET;
	return exchange(nl, &q, walk_addr, &w);
}

static int walk_route(void *ctx, const struct nlmsghdr *h)
{
	const struct rtmsg *m = NLMSG_DATA(h);
	const struct net_walk *w = ctx;
	const struct rtattr *a;
	int index = 0, len;
	uint32_t dst = 0;

	if (h->nlmsg_type != RTM_NEWROUTE || h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)))
		return -EBADMSG;
	if (m->rtm_family != AF_INET || !m->rtm_dst_len)
		return 0;
	a = RTM_RTA(m);
	len = RTM_PAYLOAD(h);
	for_each_attr(a, m, len)
	{
		if (attr_type(a) == RTA_DST)
			dst = ntohl(attr_u32(a, 0));
		else if (attr_type(a) == RTA_OIF)
			index = attr_u32(a, 0);
	}
	return w->fn(w->ctx, index, dst, m->rtm_dst_len);
}

int nl_route_each(struct nl *nl, int (*fn)(void *ctx, int index, uint32_t dst, unsigned prefix),
		  void *ctx)
{
	struct net_walk w = {fn, ctx};
	struct request q;
	struct rtmsg *m = request_start(&q, RTM_GETROUTE, NLM_F_DUMP, sizeof(*m));

	m->rtm_family = AF_INET;
	return exchange(nl, &q, walk_route, &w);
}
