/* SPDX-License-Identifier: Apache-2.0 */
#include "net/nettest_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "os/file.h"
#include "os/spawn.h"

#define VNET_HEADER 10
const uint8_t mac_broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/* --- the place --- */

/* The namespace's first process: reaps what is left behind, and takes everything with it when it
 * ends. The tests are its child, since sanitizers cannot look at a first process. */
static int inside(int (*tests)(void))
{
	int status = 1, other;
	pid_t pid, ended;

	if (mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("proc", "/proc", "proc", 0, NULL) < 0) {
		perror("mount");
		return 1;
	}
	if (system("ip link set lo up"))
		return 1;
	pid = fork();
	if (!pid)
		exit(tests());
	while ((ended = wait(&other)) > 0 && ended != pid)
		;
	if (ended == pid)
		status = WIFEXITED(other) ? WEXITSTATUS(other) : 1;
	return status;
}

int nettest_fresh(void **state)
{
	return unshare(CLONE_NEWNET) < 0 || system("ip link set lo up") ? -1 : 0;
}

static int wait_for(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int make_place(int (*tests)(void))
{
	pid_t pid;

	if (unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID) < 0) {
		printf("skipped: no network namespace of our own: %s (these tests need root)\n",
		       strerror(errno));
		fflush(stdout);
		return 77;
	}
	pid = fork();
	if (!pid)
		_exit(inside(tests));
	return wait_for(pid);
}

int nettest_run(int (*tests)(void))
{
	/* In a child: who has left a namespace of processes can make no more of them. */
	pid_t pid = fork();

	if (!pid)
		_exit(make_place(tests));
	return wait_for(pid);
}

char *nettest_dir(void)
{
	char *dir = strdup("/tmp/mallee-net-test-XXXXXX");

	assert_non_null(mkdtemp(dir));
	assert_int_equal(chmod(dir, 0755), 0);
	return dir;
}

struct net *nettest_open(const char *dir)
{
	struct net_config c = {
	    .cloud_id = "t1",
	    .dir = dir,
	    .subnet = NETTEST_SUBNET,
	    .region = "us-east-1",
	    .metadata_port = NETTEST_METADATA_PORT,
	    .api_ports = {NETTEST_API_PORT},
	};
	struct error e = {0};
	struct net *n = NULL;

	if (net_open(&c, &n, &e) < 0)
		fail_msg("net_open: %s", e.message);
	return n;
}

void nettest_sh(const char *command)
{
	if (system(command))
		fail_msg("failed: %s", command);
}

char *nettest_output(const char *command)
{
	struct buf out = BUF_INIT;
	struct error e = {0};

	if (run_command_output(&out, &e, "sh", "-c", command, NULL) < 0)
		fail_msg("%s: %s", command, e.message);
	buf_puts(&out, "");
	return buf_steal(&out);
}

char *nettest_snapshot(void)
{
	return nettest_output(
	    "ip -o link | sed 's/^[0-9]*: //'; ip -o addr | sed 's/^[0-9]*: //; s/ tentative//'; ip route show table all | sort; ip rule; "
	    "ip neigh | sort; nft -s list ruleset; "
	    "for f in $(find /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf /proc/sys/net/bridge "
	    "/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/neigh -type f | grep -v stable_secret | sort); do "
	    "echo $f $(cat $f); done");
}

/* --- guests --- */

void guest_plug(const char *tap, const char *mac, const char *ip, struct guest *g)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};

	*g = (struct guest){.fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)};
	assert_true(g->fd >= 0);
	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", tap);
	snprintf(g->tap, IFNAMSIZ, "%s", tap);
	assert_int_equal(ioctl(g->fd, TUNSETIFF, &ifr), 0);
	assert_int_equal(mac_parse(mac, g->mac), 0);
	assert_int_equal(ipv4_parse(ip, &g->ip), 0);
}

static bool is_arp_of(const struct frame *f, const void *ip_be)
{
	return frame_type(f) == 0x0806 && f->len >= 42 && !memcmp(f->data + 28, ip_be, 4);
}

void guest_settle(struct net *net, struct guest *g)
{
	uint32_t be = htonl(net->gateway);
	struct frame f, reply;

	frame_arp(&f, &(struct arp_fields){1, g->mac, mac_broadcast, g->mac, g->ip, net->gateway});
	for (int i = 0; i < 50; i++) {
		guest_send(g, &f);
		if (guest_expect(g, is_arp_of, &be, 100, &reply)) {
			memcpy(g->gateway_mac, reply.data + 22, 6);
			return;
		}
	}
	fail_msg("the gateway doesn't answer on %s", g->tap);
}

void guest_start(struct net *net, unsigned n, const char *account, struct guest *g)
{
	char id[32], mac[MAC_TEXT], ip[IPV4_LEN], host[32], tap[IFNAMSIZ];
	struct error e = {0};
	struct net_port p = {
	    .instance_id = id, .mac = mac, .ip = ip, .hostname = host, .account = account};

	snprintf(id, sizeof(id), "i-0123456789abc%04x", n);
	snprintf(mac, sizeof(mac), "02:00:00:00:00:%02x", n);
	snprintf(ip, sizeof(ip), "10.31.16.%u", n);
	snprintf(host, sizeof(host), "ip-10-31-16-%u", n);
	if (net_port_add(net, &p, tap, &e) < 0)
		fail_msg("net_port_add: %s", e.message);
	guest_plug(tap, mac, ip, g);
	guest_settle(net, g);
}

void guest_stop(struct guest *g)
{
	fd_closep(&g->fd);
}

void guest_send(struct guest *g, const struct frame *f)
{
	uint8_t packet[VNET_HEADER + FRAME_MAX] = {0};

	memcpy(packet + VNET_HEADER, f->data, f->len);
	assert_int_equal(write(g->fd, packet, VNET_HEADER + f->len), VNET_HEADER + f->len);
}

static bool receive(int fd, struct frame *f)
{
	uint8_t packet[VNET_HEADER + FRAME_MAX];
	ssize_t n = read(fd, packet, sizeof(packet));

	if (n < VNET_HEADER)
		return false;
	f->len = n - VNET_HEADER;
	memcpy(f->data, packet + VNET_HEADER, f->len);
	return true;
}

static void answer_arp(struct guest *g, const uint8_t *mac, const struct frame *f)
{
	struct frame reply;
	uint32_t sender, target;

	if (frame_type(f) != 0x0806 || f->len < 42 || f->data[21] != 1)
		return;
	memcpy(&sender, f->data + 28, 4);
	memcpy(&target, f->data + 38, 4);
	if (ntohl(target) != g->ip)
		return;
	frame_arp(&reply, &(struct arp_fields){2, mac, f->data + 22, mac, g->ip, ntohl(sender)});
	memcpy(reply.data + 32, f->data + 22, 6);
	guest_send(g, &reply);
}

bool guest_expect(struct guest *g, bool (*match)(const struct frame *f, const void *want),
		  const void *want, int timeout_ms, struct frame *ret)
{
	int64_t end = clock_mono_ms() + timeout_ms, now;
	struct frame f;

	while ((now = clock_mono_ms()) < end) {
		struct pollfd p = {.fd = g->fd, .events = POLLIN};

		if (poll(&p, 1, (int)(end - now)) <= 0 || !receive(g->fd, &f))
			continue;
		answer_arp(g, g->mac, &f);
		if (match(&f, want)) {
			if (ret)
				*ret = f;
			return true;
		}
	}
	return false;
}

struct answerer {
	struct guest *guest;
	const uint8_t *mac;
	pthread_t thread;
	atomic_bool stop;
};

static void *answer_loop(void *arg)
{
	struct answerer *a = arg;

	while (!a->stop) {
		struct pollfd p = {.fd = a->guest->fd, .events = POLLIN};
		struct frame f;

		if (poll(&p, 1, 50) > 0 && receive(a->guest->fd, &f))
			answer_arp(a->guest, a->mac, &f);
	}
	return NULL;
}

struct answerer *answerer_start(struct guest *g, const uint8_t *mac)
{
	struct answerer *a = calloc(1, sizeof(*a));

	a->guest = g;
	a->mac = mac ? mac : g->mac;
	assert_int_equal(pthread_create(&a->thread, NULL, answer_loop, a), 0);
	return a;
}

void answerer_stop(struct answerer *a)
{
	a->stop = true;
	pthread_join(a->thread, NULL);
	free(a);
}

/* --- a small cloud --- */

uint32_t nettest_ip(const char *s)
{
	uint32_t v;

	assert_int_equal(ipv4_parse(s, &v), 0);
	return v;
}

int nettest_setup(void **state)
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

int nettest_teardown(void **state)
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
