/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Are the rules as we left them? Two ways to know. The kernel numbers the commits to all nftables
 * of a network namespace: the same number as after ours means that nobody changed anything, and
 * costs microseconds. Another number may be anybody's (Docker's, an administrator's): then the
 * tables are listed and compared by a fingerprint, which costs a millisecond a guest. The
 * fingerprint is taken when the number says that nothing happened since our last commit, and not at
 * every commit.
 */
#include "net/net_priv.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "os/file.h"

/* --- the commits' number --- */

struct gen_message {
	struct nlmsghdr h;
	struct nfgenmsg g;
};

static int ask_generation(int fd, void *reply, size_t size, ssize_t *ret_len)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct timeval patience = {.tv_sec = 5};
	struct gen_message q = {
	    .h = {.nlmsg_len = sizeof(q),
		  .nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN,
		  .nlmsg_flags = NLM_F_REQUEST},
	    .g = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0},
	};

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
	    sendto(fd, &q, sizeof(q), 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	*ret_len = recv(fd, reply, size, 0);
	return *ret_len < 0 ? -errno : 0;
}

/* 0 when it can't be told: that equals no number, and the long way is gone. */
uint32_t ruleset_generation(void)
{
	_cleanup_(fd_closep) int fd =
	    socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	union {
		struct gen_message m;
		char bytes[1024];
	} reply;
	size_t off = NLMSG_ALIGN(sizeof(struct gen_message));
	ssize_t len = 0;
	uint32_t be;

	if (fd < 0 || ask_generation(fd, &reply, sizeof(reply), &len) < 0)
		return 0;
	if ((size_t)len < sizeof(reply.m) ||
	    reply.m.h.nlmsg_type != (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN))
		return 0;
	while (off + NLA_HDRLEN + sizeof(be) <= (size_t)len) {
		const struct nlattr *a = (const struct nlattr *)(reply.bytes + off);

		if ((a->nla_type & NLA_TYPE_MASK) == NFTA_GEN_ID) {
			memcpy(&be, reply.bytes + off + NLA_HDRLEN, sizeof(be));
			return ntohl(be);
		}
		if (a->nla_len < NLA_HDRLEN)
			break;
		off += NLA_ALIGN(a->nla_len);
	}
	return 0;
}

/* --- asking and changing --- */

/* What the tables hold, when nobody commits meanwhile: of that number, so that it belongs together.
 */
static int take_fingerprint(struct net *n, struct error *e)
{
	uint64_t fingerprint;
	int err = rules_fingerprint(n->rules, n->record.cloud_id, &fingerprint, e);

	if (!err && n->generation && ruleset_generation() == n->generation)
		n->fingerprint = fingerprint;
	return err;
}

int ruleset_intact(struct net *n, bool thorough, bool *ret, struct error *e)
{
	uint32_t now = ruleset_generation();
	uint64_t fingerprint;
	int err;

	if (now && now == n->generation) {
		*ret = true;
		return n->fingerprint || !thorough ? 0 : take_fingerprint(n, e);
	}
	err = rules_fingerprint(n->rules, n->record.cloud_id, &fingerprint, e);
	if (err < 0)
		return err;
	*ret = fingerprint && fingerprint == n->fingerprint;
	if (*ret)
		n->generation = now;
	return 0;
}

void ruleset_doubt(struct net *n)
{
	n->generation = 0;
	n->fingerprint = 0;
}

static int apply_all(struct net *n, struct error *e)
{
	struct buf whole = BUF_INIT;
	struct rules_config c;
	int err;

	rules_config_of(n, &c);
	rules_print(&c, n->record.ports, n->record.port_count, &whole);
	err = rules_apply(n->rules, whole.data, e);
	buf_done(&whole);
	if (err == -ENOENT)
		return error_set(
		    e, "HostNetwork",
		    "this kernel lacks nftables' tables of the families inet and bridge");
	return err;
}

int ruleset_apply(struct net *n, const char *batch, struct error *e)
{
	struct error ignored = {0};
	uint32_t before = ruleset_generation(), after;
	int err = batch ? rules_apply(n->rules, batch, &ignored) : -ENOENT;
	bool whole = err < 0;

	if (whole) {
		before = ruleset_generation();
		err = apply_all(n, e);
	}
	if (err < 0)
		return err;
	/* Somebody else's commit in between may have been anything: not known to be intact, and so
	 * made anew by the next check. */
	after = ruleset_generation();
	n->generation = after == before + 1 ? after : 0;
	n->fingerprint = 0;
	return whole ? take_fingerprint(n, e) : 0;
}
