/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One dnsmasq a cloud, on the bridge only, as its own user. It answers DHCP for the MACs that we
 * list and no other, and DNS for guests. It lives on when NC dies: it is found again by its pid
 * file, and is ours when its command line names our configuration and it is in our network
 * namespace. Hosts are two files that it reads again on SIGHUP.
 */
#include "net/net_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"
#include "os/privs.h"
#include "os/spawn.h"

#define STOP_MS 3000

static char *path_in(const char *dir, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		abort();
	return path;
}

/* --- the process --- */

static bool same_netns(pid_t pid)
{
	struct stat own, other;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	return !stat("/proc/self/ns/net", &own) && !stat(path, &other) &&
	       own.st_ino == other.st_ino && own.st_dev == other.st_dev;
}

static bool is_ours(pid_t pid, const char *conf)
{
	_cleanup_(freep) char *cmdline = NULL;
	_cleanup_(freep) char *wanted = NULL;
	char path[64];
	size_t len, at;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	if (file_read(path, 64 * 1024, &cmdline, &len) < 0 || !len ||
	    !str_suffix(cmdline, "dnsmasq"))
		return false;
	if (asprintf(&wanted, "--conf-file=%s", conf) < 0)
		abort();
	for (at = 0; at < len; at += strlen(cmdline + at) + 1) {
		if (str_eq(cmdline + at, wanted))
			return same_netns(pid);
	}
	return false;
}

/* What the pid file says, whoever that is now; 0: nothing. */
static pid_t noted_pid(const char *dir)
{
	_cleanup_(freep) char *pidfile = path_in(dir, "pid");
	_cleanup_(freep) char *text = NULL;
	int64_t pid;
	size_t len;

	if (file_read(pidfile, 64, &text, &len) < 0)
		return 0;
	text[strcspn(text, "\n")] = '\0';
	return parse_i64(text, 2, INT32_MAX, &pid) < 0 ? 0 : (pid_t)pid;
}

pid_t dhcp_pid(const char *dir)
{
	_cleanup_(freep) char *conf = path_in(dir, "dnsmasq.conf");
	pid_t pid = noted_pid(dir);

	return pid && is_ours(pid, conf) ? pid : 0;
}

/* One that was killed a moment ago has lost its command line, and has its sockets still. */
static void await_last(const char *dir)
{
	_cleanup_(fd_closep) int fd = -1;
	_cleanup_(freep) char *cmdline = NULL, *comm = NULL;
	pid_t pid = noted_pid(dir);
	struct pollfd p;
	char path[64];
	size_t len;

	fd = pid ? pidfd_open(pid, 0) : -1;
	if (fd < 0)
		return;
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	if (file_read(path, 64 * 1024, &cmdline, &len) < 0 || len)
		return;
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	if (file_read(path, 64, &comm, &len) < 0 || !str_eq(comm, "dnsmasq\n"))
		return;
	p = (struct pollfd){.fd = fd, .events = POLLIN};
	poll(&p, 1, STOP_MS);
}

/* A process descriptor becomes readable when the process ends, reaped or not; and unlike a pid it
 * can't become another process. */
int dhcp_stop(const char *dir, struct error *e)
{
	_cleanup_(fd_closep) int fd = -1;
	pid_t pid = dhcp_pid(dir);
	struct pollfd p;

	if (!pid) {
		await_last(dir);
		return 0;
	}
	fd = pidfd_open(pid, 0);
	if (fd < 0)
		return errno == ESRCH
			   ? 0
			   : error_errno(e, errno, "cannot watch dnsmasq (pid %d)", (int)pid);
	if (dhcp_pid(dir) != pid)
		return 0;
	p = (struct pollfd){.fd = fd, .events = POLLIN};
	if (pidfd_send_signal(fd, SIGTERM, NULL, 0) < 0 && errno != ESRCH)
		return error_errno(e, errno, "cannot stop dnsmasq (pid %d)", (int)pid);
	if (poll(&p, 1, STOP_MS) == 1)
		return 0;
	pidfd_send_signal(fd, SIGKILL, NULL, 0);
	if (poll(&p, 1, STOP_MS) == 1)
		return 0;
	return error_set(e, "HostNetwork", "dnsmasq (pid %d) does not end", (int)pid);
}

/* --- its files --- */

struct user {
	const char *name;
	char group[64];
	uid_t uid;
	gid_t gid;
};

static bool find_group(struct user *u)
{
	struct group g, *found = NULL;
	char text[16384];

	if (getgrgid_r(u->gid, &g, text, sizeof(text), &found) || !found)
		return false;
	return snprintf(u->group, sizeof(u->group), "%s", g.gr_name) < (int)sizeof(u->group);
}

static int find_user(struct user *u, struct error *e)
{
	static const char *const names[] = {"dnsmasq", "nobody"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		u->name = names[i];
		if (!privs_lookup_user(u->name, &u->uid, &u->gid) && find_group(u))
			return 0;
	}
	return error_set(
	    e, "HostNetwork",
	    "neither the user dnsmasq nor nobody exists: apt-get install dnsmasq-base");
}

static void print_conf(const struct dhcp_config *c, const struct user *u, struct buf *out)
{
	char gateway[IPV4_LEN], network[IPV4_LEN], mask[IPV4_LEN];

	ipv4_format(c->gateway, gateway);
	ipv4_format(c->subnet.addr, network);
	ipv4_format(cidr_mask(c->subnet), mask);
	buf_printf(out,
		   "# Written by Mallee; changes are lost.\n"
		   "user=%s\n"
		   "group=%s\n"
		   "pid-file=%s/pid\n"
		   "log-facility=%s/log\n"
		   "quiet-dhcp\n"
		   "interface=%s\n"
		   "except-interface=lo\n"
		   "bind-dynamic\n"
		   "no-hosts\n"
		   "addn-hosts=%s/hosts\n"
		   "domain-needed\n"
		   "bogus-priv\n"
		   "domain=%s\n"
		   "local=/%s/\n"
		   "dhcp-range=%s,static,%s,86400\n"
		   "dhcp-hostsfile=%s/guests\n"
		   "dhcp-ignore=tag:!known\n"
		   "dhcp-ignore-clid\n"
		   "dhcp-authoritative\n"
		   "dhcp-no-override\n"
		   "no-ping\n"
		   "dhcp-lease-max=65536\n"
		   "dhcp-leasefile=%s/leases\n"
		   "dhcp-option=option:router,%s\n"
		   "dhcp-option=option:dns-server,%s\n"
		   "dhcp-option=option:mtu,%u\n",
		   u->name, u->group, c->dir, c->dir, c->bridge, c->dir, c->domain, c->domain,
		   network, mask, c->dir, c->dir, gateway, gateway, c->mtu);
}

/*
 * The folder, the configuration and the leases are root's: dnsmasq opens the latter before it
 * becomes its user, and who could write the former would be root at the next start. The hosts,
 * which it reads later, are its user's.
 */
static int write_new(const char *path, const struct buf *text, uid_t uid)
{
	_cleanup_(fd_closep) int fd = -1;

	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || (uid && fchown(fd, uid, (gid_t)-1) < 0))
		return -errno;
	return text->len ? fd_write_all(fd, text->data, text->len) : 0;
}

/* Whole or not at all for who reads it; but not made durable: after a power cut all of it is
 * written anew. */
static int write_file(const char *dir, const char *name, const struct buf *text, uid_t uid,
		      struct error *e)
{
	_cleanup_(freep) char *path = path_in(dir, name);
	_cleanup_(freep) char *fresh = NULL;
	int err;

	if (asprintf(&fresh, "%s.new", path) < 0)
		abort();
	err = write_new(fresh, text, uid);
	if (!err && rename(fresh, path) < 0)
		err = -errno;
	return err < 0 ? error_errno(e, err, "cannot write %s", path) : 0;
}

static int write_hosts(const struct dhcp_config *c, const struct record_port *ports, size_t count,
		       uid_t uid, struct error *e)
{
	struct buf guests = BUF_INIT, hosts = BUF_INIT;
	int err;

	buf_printf(&hosts, "169.254.169.254 instance-data.%s instance-data\n", c->domain);
	for (size_t i = 0; i < count; i++) {
		const struct record_port *p = &ports[i];

		buf_printf(&guests, "%s,%s,%s\n", p->mac, p->ip, p->hostname);
		buf_printf(&hosts, "%s %s.%s %s\n", p->ip, p->hostname, c->domain, p->hostname);
	}
	err = write_file(c->dir, "guests", &guests, uid, e);
	if (!err)
		err = write_file(c->dir, "hosts", &hosts, uid, e);
	buf_done(&guests);
	buf_done(&hosts);
	return err;
}

static bool lease_is_current(const char *line, const struct record_port *ports, size_t count)
{
	char mac[32], ip[32];

	if (sscanf(line, "%*s %31s %31s", mac, ip) != 2)
		return false;
	for (size_t i = 0; i < count; i++) {
		if (str_eq(ports[i].ip, ip))
			return !strcasecmp(ports[i].mac, mac);
	}
	return false;
}

/* A lease of a guest that is gone would keep its address from the next one. */
static int prune_leases(const struct dhcp_config *c, const struct record_port *ports, size_t count,
			struct error *e)
{
	_cleanup_(freep) char *path = path_in(c->dir, "leases");
	_cleanup_(freep) char *text = NULL;
	struct buf kept = BUF_INIT;
	char *save = NULL;
	size_t len;
	int err;

	if (file_read(path, 64 << 20, &text, &len) < 0)
		text = NULL;
	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		if (lease_is_current(line, ports, count))
			buf_printf(&kept, "%s\n", line);
	}
	err = write_file(c->dir, "leases", &kept, 0, e);
	buf_done(&kept);
	return err;
}

/* --- starting --- */

static int start(const struct dhcp_config *c, const char *conf, struct error *e)
{
	_cleanup_(freep) char *option = NULL;
	_cleanup_(freep) char *log = path_in(c->dir, "log");
	const char *argv[3] = {"dnsmasq"};
	struct spawn s = {.argv = argv, .log_path = NULL, .timeout_ms = 20000};
	struct error why = {0};
	int err;

	if (asprintf(&option, "--conf-file=%s", conf) < 0)
		abort();
	argv[1] = option;
	/* It comes back when its sockets are bound and it has become a daemon. */
	err = spawn_run(&s, NULL, NULL, &why);
	if (err == -ENOENT)
		return error_set(e, "HostNetwork",
				 "dnsmasq is not installed: apt-get install dnsmasq-base");
	if (err < 0)
		return error_set(e, "HostNetwork", "dnsmasq does not start on %s: %s (its log: %s)",
				 c->bridge, why.message, log);
	return 0;
}

static int make_dir(const struct dhcp_config *c, const struct user *u, struct error *e)
{
	int err = dir_make(c->dir, 0711);

	if (!err && chmod(c->dir, 0711) < 0)
		err = -errno;
	if (err < 0)
		return error_errno(e, err, "cannot make %s", c->dir);
	return path_traversable(c->dir, u->uid, u->gid, e);
}

int dhcp_ensure(const struct dhcp_config *c, const struct record_port *ports, size_t count,
		struct error *e)
{
	_cleanup_(freep) char *conf = path_in(c->dir, "dnsmasq.conf");
	_cleanup_(freep) char *old = NULL;
	struct buf text = BUF_INIT;
	struct user user;
	bool same;
	size_t len;
	int err;

	err = find_user(&user, e);
	if (!err)
		err = make_dir(c, &user, e);
	if (err < 0)
		return err;
	print_conf(c, &user, &text);
	same = !file_read(conf, 1 << 20, &old, &len) && str_eq(old, text.data);
	if (same && dhcp_pid(c->dir)) {
		buf_done(&text);
		return 0;
	}
	err = dhcp_stop(c->dir, e);
	if (!err)
		err = write_file(c->dir, "dnsmasq.conf", &text, 0, e);
	buf_done(&text);
	if (!err)
		err = write_hosts(c, ports, count, user.uid, e);
	if (!err)
		err = prune_leases(c, ports, count, e);
	if (!err)
		err = start(c, conf, e);
	return err < 0 ? err : 1;
}

int dhcp_update(const struct dhcp_config *c, const struct record_port *ports, size_t count,
		struct error *e)
{
	struct user user;
	pid_t pid;
	int err;

	err = find_user(&user, e);
	if (!err)
		err = write_hosts(c, ports, count, user.uid, e);
	if (err < 0)
		return err;
	pid = dhcp_pid(c->dir);
	if (!pid) {
		err = dhcp_ensure(c, ports, count, e);
		return err < 0 ? err : 0;
	}
	return kill(pid, SIGHUP) < 0 && errno != ESRCH
		   ? error_errno(e, errno, "cannot signal dnsmasq")
		   : 0;
}

/* --- giving a lease back --- */

struct dhcp_message {
	uint8_t op, htype, hlen, hops;
	uint32_t xid;
	uint16_t secs, flags;
	uint32_t ciaddr, yiaddr, siaddr, giaddr;
	uint8_t chaddr[16];
	uint8_t sname[64], file[128];
	uint8_t options[64];
};
_Static_assert(sizeof(struct dhcp_message) == 236 + 64, "RFC 2131's layout");

void dhcp_release(const struct dhcp_config *c, const struct record_port *p)
{
	struct sockaddr_in server = {
	    .sin_family = AF_INET, .sin_port = htons(67), .sin_addr.s_addr = htonl(c->gateway)};
	struct dhcp_message m = {.op = 1, .htype = 1, .hlen = 6};
	_cleanup_(fd_closep) int fd = -1;
	uint32_t ip, gateway = htonl(c->gateway);
	uint8_t *o = m.options;

	if (ipv4_parse(p->ip, &ip) < 0 || mac_parse(p->mac, m.chaddr) < 0)
		return;
	m.xid = m.ciaddr = htonl(ip);
	memcpy(o, "\x63\x82\x53\x63\x35\x01\x07\x36\x04",
	       9); /* cookie; DHCPRELEASE; server identifier */
	memcpy(o + 9, &gateway, sizeof(gateway));
	o[13] = 0xff;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* Bound to the bridge, so that dnsmasq takes it as come from there. */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, c->bridge, strlen(c->bridge)) < 0)
		return;
	sendto(fd, &m, sizeof(m), 0, (struct sockaddr *)&server, sizeof(server));
}
