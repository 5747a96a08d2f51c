/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to the host: made, adopted, mended and given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "net/nettest_priv.h"
#include "os/file.h"

static struct net_port port_of(char id[static 32], char mac[static MAC_TEXT],
			       char ip[static IPV4_LEN], unsigned n)
{
	snprintf(id, 32, "i-0123456789abc%04x", n);
	snprintf(mac, MAC_TEXT, "02:00:00:00:00:%02x", n);
	snprintf(ip, IPV4_LEN, "10.31.16.%u", n);
	return (struct net_port){.instance_id = id,
				 .mac = mac,
				 .ip = ip,
				 .hostname = "ip-10-31-16-9",
				 .account = "1",
				 .uid = 61000 + n,
				 .gid = 61000 + n};
}

static void add(struct net *net, unsigned n, char *ret_tap)
{
	char id[32], mac[MAC_TEXT], ip[IPV4_LEN];
	struct net_port p = port_of(id, mac, ip, n);
	struct error e = {0};

	if (net_port_add(net, &p, ret_tap, &e) < 0)
		fail_msg("net_port_add: %s", e.message);
}

static unsigned check(struct net *net)
{
	struct error e = {0};
	unsigned mended = 99;

	if (net_check(net, &mended, &e) < 0)
		fail_msg("net_check: %s", e.message);
	return mended;
}

static void uninstall(const char *dir)
{
	struct error e = {0};

	if (net_uninstall(dir, &e) < 0)
		fail_msg("net_uninstall: %s", e.message);
}

static void remove_dir(char *dir)
{
	assert_int_equal(dir_remove(dir), 0);
	free(dir);
}

static bool has_ended(pid_t pid)
{
	for (int i = 0; i < 200; i++) {
		if (kill(pid, 0) < 0 && errno == ESRCH)
			return true;
		usleep(10000);
	}
	return false;
}

/* A host with a life of its own: rules, a bridge, an interface that forwards although the host does
 * not. */
static const char busy_host[] =
    "ip link add br0 type bridge && ip link add d0 type veth peer name d0p && ip link set d0 master br0 up && ip link set br0 up && "
    "ip addr add 198.51.100.1/24 dev br0 && ip link add d1 type bridge && ip link set d1 up && "
    "ip addr add 192.0.2.9/24 dev d1 && echo 1 > /proc/sys/net/ipv4/conf/d1/forwarding && "
    "for i in br0 d0 d1; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done && " /* or
											   addresses
											   come by
											   and by */
    "nft 'table inet theirs { chain f { type filter hook forward priority 10; policy accept; ip saddr 192.0.2.66 drop; }; }' && "
    "ip tuntap add mltforeign mode tap && ip link set mltforeign alias 'mallee t10 i-1'";

static void assert_same(const char *before, const char *after)
{
	size_t at = 0;

	while (before[at] && before[at] == after[at])
		at++;
	while (at > 0 && before[at - 1] != '\n')
		at--;
	if (before[at] || after[at])
		fail_msg("the host was not given back.\nbefore: %.300s\nafter:  %.300s",
			 before + at, after + at);
}

static void test_uninstall_gives_the_host_back(void **state)
{
	_cleanup_(freep) char *before = NULL;
	_cleanup_(freep) char *during = NULL;
	_cleanup_(freep) char *after = NULL;
	char *dir = nettest_dir(), tap[IFNAMSIZ], path[128];
	struct net *net;
	pid_t pid;

	nettest_sh(busy_host);
	before = nettest_snapshot();
	net = nettest_open(dir);
	add(net, 9, tap);
	add(net, 10, tap);
	pid = dhcp_pid(net->dhcp_dir);
	assert_int_not_equal(pid, 0);
	net_close(net);
	during = nettest_snapshot();
	assert_non_null(strstr(during, "mallee_t1"));
	assert_non_null(strstr(during, "/proc/sys/net/ipv4/ip_forward 1"));
	assert_true(str_prefix(tap, "mltt1"));
	assert_non_null(strstr(during, tap));
	uninstall(dir);
	after = nettest_snapshot();
	assert_same(before, after);
	assert_true(has_ended(pid));
	snprintf(path, sizeof(path), "%s/host.json", dir);
	assert_int_equal(access(path, F_OK), -1);
	uninstall(dir); /* once more: nothing to do */
	remove_dir(dir);
}

/* A record of what was only begun. */
static void test_uninstall_after_a_crash(void **state)
{
	_cleanup_(freep) char *before = nettest_snapshot();
	_cleanup_(freep) char *after = NULL;
	char *dir = nettest_dir(), tap[IFNAMSIZ];
	struct net *net = nettest_open(dir);

	add(net, 9, tap);
	net_close(net);
	nettest_sh(
	    "nft delete table bridge mallee_t1; ip link set mlbt1 alias ''; ip link del mltt19abc0009");
	uninstall(dir);
	after = nettest_snapshot();
	assert_same(before, after);
	remove_dir(dir);
}

#define ALL_OF_IT                                                                                  \
	"ip -d link | sed 's/[a-z_]*timer *[0-9.]*//g'; bridge -d link; bridge fdb; ip addr; nft -s list ruleset"

static void test_reopen_adopts(void **state)
{
	char *dir = nettest_dir(), tap[IFNAMSIZ], again[IFNAMSIZ];
	struct net *net = nettest_open(dir);
	_cleanup_(freep) char *before = NULL;
	_cleanup_(freep) char *after = NULL;
	struct guest g;
	pid_t pid;

	add(net, 9, tap);
	guest_plug(tap, "02:00:00:00:00:09", "10.31.16.9", &g);
	guest_settle(net, &g);
	pid = dhcp_pid(net->dhcp_dir);
	nettest_sh("ip route add 10.0.0.0/8 dev lo"); /* a VPN's, say, that came later */
	before = nettest_output(ALL_OF_IT);
	net_close(net);
	net = nettest_open(dir);
	add(net, 9, again);
	after = nettest_output(ALL_OF_IT);
	assert_string_equal(tap, again);
	assert_same(before, after);
	assert_int_equal(pid, dhcp_pid(net->dhcp_dir));
	assert_int_equal(check(net), 0);
	guest_settle(net, &g);
	guest_stop(&g);
	net_close(net);
	uninstall(dir);
	remove_dir(dir);
}

static void test_check_mends(void **state)
{
	static const char *const mischief[] = {
	    "nft flush ruleset",
	    "nft delete table inet mallee_t1",
	    "nft delete element bridge mallee_t1 port_mac '{ \"mltt19abc0009\" . 02:00:00:00:00:09 }'",
	    "nft add element inet mallee_t1 account_of '{ 10.31.16.77 : 1 }'",
	    "bridge link set dev mltt19abc0009 isolated off",
	    "bridge link set dev mltt19abc0009 learning on",
	    "ip link set mltt19abc0009 nomaster",
	    "ip link set mltt19abc0009 down",
	    "ip addr del 10.31.16.1/20 dev mlbt1",
	    "ip link set mlbt1 down",
	    "ip link del mlbt1",
	    "echo 0 > /proc/sys/net/ipv4/conf/mlbt1/proxy_arp_pvlan",
	    "echo 0 > /proc/sys/net/ipv4/ip_forward",
	};
	char *dir = nettest_dir(), tap[IFNAMSIZ];
	struct net *net = nettest_open(dir);
	_cleanup_(freep) char *before = NULL;
	pid_t pid;

	add(net, 9, tap);
	assert_string_equal(tap, "mltt19abc0009");
	assert_int_equal(check(net), 0);
	before = nettest_output(
	    "nft -s list ruleset; bridge -d link | sed 's/^[0-9]*: //'; ip -br addr | sort; ip route");
	for (size_t i = 0; i < ARRAY_SIZE(mischief); i++) {
		_cleanup_(freep) char *after = NULL;

		nettest_sh(mischief[i]);
		if (!check(net))
			fail_msg("not noticed: %s", mischief[i]);
		after = nettest_output(
		    "nft -s list ruleset; bridge -d link | sed 's/^[0-9]*: //'; ip -br addr | sort; ip route");
		assert_same(before, after);
		assert_int_equal(check(net), 0);
	}
	pid = dhcp_pid(net->dhcp_dir);
	assert_int_equal(kill(pid, SIGKILL), 0);
	while (dhcp_pid(net->dhcp_dir) == pid)
		usleep(10000);
	assert_int_equal(check(net), 1);
	assert_int_not_equal(dhcp_pid(net->dhcp_dir), 0);
	net_close(net);
	uninstall(dir);
	remove_dir(dir);
}

/* The record survives a reboot, what it tells of does not: another namespace is as good as another
 * boot. */
static void test_reboot(void **state)
{
	_cleanup_(freep) char *after = NULL;
	_cleanup_(freep) char *fresh = NULL;
	char *dir = nettest_dir(), tap[IFNAMSIZ], again[IFNAMSIZ];
	struct net *net = nettest_open(dir);
	pid_t pid = dhcp_pid(net->dhcp_dir);
	struct nl_link l;

	add(net, 9, tap);
	add(net, 10, again);
	net_close(net);
	kill(pid, SIGKILL);
	assert_int_equal(nettest_fresh(state), 0);
	fresh = nettest_snapshot();
	net = nettest_open(dir);
	assert_int_not_equal(dhcp_pid(net->dhcp_dir), 0);
	assert_int_equal(nl_link_get(net->nl, tap, &l), -ENODEV);
	assert_int_equal(check(net), 0); /* a guest that was not started yet is nothing to mend */
	add(net, 9, again);
	assert_string_equal(tap, again);
	assert_int_equal(nl_link_get(net->nl, tap, &l), 0);
	net_close(net);
	uninstall(dir);
	after = nettest_snapshot();
	assert_same(fresh, after);
	remove_dir(dir);
}

static void test_ports(void **state)
{
	char *dir = nettest_dir(), id[32], mac[MAC_TEXT], ip[IPV4_LEN], tap[IFNAMSIZ],
	     other[IFNAMSIZ];
	struct net *net = nettest_open(dir);
	struct net_port p = port_of(id, mac, ip, 9), bad;
	const char *const keep[] = {"i-1123456789abc0009"};
	struct error e = {0};
	struct nl_link l;

	add(net, 9, tap);
	assert_int_equal(nl_link_get(net->nl, tap, &l), 0);
	assert_int_equal(l.owner, 61009);
	assert_int_equal(l.group, 61009);
	assert_true(l.isolated && !l.learning && l.up);
	assert_string_equal(l.alias, "mallee t1 i-0123456789abc0009");
	/* A new owner, a new address. */
	p.uid = 61500;
	p.ip = "10.31.17.1";
	assert_int_equal(net_port_add(net, &p, other, &e), 0);
	assert_string_equal(tap, other);
	assert_int_equal(nl_link_get(net->nl, tap, &l), 0);
	assert_int_equal(l.owner, 61500);
	/* Another instance with the same last digits gets another tap; and neither the MAC nor the
	 * address of the first. */
	bad = p;
	bad.instance_id = keep[0];
	assert_int_equal(net_port_add(net, &bad, other, &e), -EREMOTEIO);
	assert_non_null(strstr(e.message, "that of i-0123456789abc0009"));
	error_clear(&e);
	bad.mac = "02:00:00:00:01:00";
	bad.ip = "10.31.17.2";
	assert_int_equal(net_port_add(net, &bad, other, &e), 0);
	assert_string_not_equal(tap, other);
	assert_int_equal(net_port_prune(net, keep, 1, &e), 0);
	assert_int_equal(nl_link_get(net->nl, tap, &l), -ENODEV);
	assert_int_equal(nl_link_get(net->nl, other, &l), 0);
	assert_int_equal(net->record.port_count, 1);
	assert_int_equal(check(net), 0);
	net_close(net);
	uninstall(dir);
	remove_dir(dir);
}

/* The bridge's table guards only the ports in its set: a tap that is not there is let through. */
static void assert_guarded(const char *dir, const char *tap)
{
	_cleanup_(freep) char *ports = nettest_output("nft list set bridge mallee_t1 ports");
	struct record r = {0};

	assert_non_null(strstr(ports, tap));
	assert_int_equal(record_load(dir, &r, NULL), 0);
	assert_int_equal(r.port_count, 1);
	record_done(&r);
}

/* A full disk: what could not be recorded is not made, and what was tried again is whole. */
static void test_failed_changes(void **state)
{
	static char nowhere[] = "/proc/nowhere/host.json";
	char *dir = nettest_dir(), id[32], mac[MAC_TEXT], ip[IPV4_LEN], tap[IFNAMSIZ];
	struct net *net = nettest_open(dir);
	struct net_port p = port_of(id, mac, ip, 9);
	char *path = net->record.path, *dhcp = net->dhcp_dir;
	struct error e = {0};

	net->record.path = nowhere;
	assert_true(net_port_add(net, &p, tap, &e) < 0);
	net->record.path = path;
	error_clear(&e);
	assert_int_equal(net_port_add(net, &p, tap, &e), 0);
	assert_guarded(dir, tap);
	net->dhcp_dir = nowhere;
	assert_true(net_port_remove(net, id, &e) < 0);
	net->dhcp_dir = dhcp;
	error_clear(&e);
	assert_int_equal(net_port_add(net, &p, tap, &e), 0);
	assert_guarded(dir, tap);
	net_close(net);
	uninstall(dir);
	remove_dir(dir);
}

static void test_bad_ports(void **state)
{
	char *dir = nettest_dir(), id[32], mac[MAC_TEXT], ip[IPV4_LEN], tap[IFNAMSIZ];
	struct net *net = nettest_open(dir);
	struct net_port good = port_of(id, mac, ip, 9);
	struct net_port bad[12];
	struct error e = {0};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		bad[i] = good;
	bad[0].instance_id = "i-1\" . 1";
	bad[1].instance_id = NULL;
	bad[2].mac = "02:00:00:00:00";
	bad[3].mac = "01:00:5e:00:00:01";
	bad[4].ip = "10.31.16.1";
	bad[5].ip = "10.31.16.0";
	bad[6].ip = "10.31.31.255";
	bad[7].ip = "10.31.32.5";
	bad[8].ip = "10.31.16.9/20";
	bad[9].hostname = "ip\naddress=/example.com/1.2.3.4";
	bad[10].hostname = "";
	bad[11].account = "1 }";
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		error_clear(&e);
		assert_true(net_port_add(net, &bad[i], tap, &e) < 0);
		assert_string_equal(e.code, "InvalidPort");
	}
	assert_int_equal(net->record.port_count, 0);
	net_close(net);
	uninstall(dir);
	remove_dir(dir);
}

/* --- other firewalls --- */

static bool blocked(struct net *net)
{
	struct net_config c = {.cloud_id = "t1", .dir = "/nonexistent", .subnet = NETTEST_SUBNET};
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct net_finding *f;
	struct error e = {0};
	bool fatal = false;
	size_t count;

	if (net_diagnose(&c, a, &f, &count, &e) < 0)
		fail_msg("net_diagnose: %s", e.message);
	for (size_t i = 0; i < count; i++) {
		assert_true(f[i].text && *f[i].text && f[i].remedy && *f[i].remedy);
		fatal |= f[i].fatal;
	}
	return fatal;
}

static void test_iptables(void **state)
{
	/* as Docker leaves it */
	static const char docker[] =
	    "iptables-nft -N DOCKER-USER && iptables-nft -A FORWARD -j DOCKER-USER && "
	    "iptables-nft -A DOCKER-USER -j RETURN && iptables-nft -P FORWARD DROP";
	static const char rejecting[] =
	    "iptables-nft -P INPUT DROP && "
	    "iptables-nft -A FORWARD -j REJECT --reject-with icmp-host-prohibited";
	static const char *const firewalls[] = {"iptables-nft -P FORWARD DROP", rejecting, docker};
	static const unsigned rules[] = {2, 3, 2};

	if (access("/usr/sbin/iptables-nft", X_OK) < 0) {
		printf("skipped: iptables-nft is not installed (package iptables)\n");
		skip();
	}
	for (size_t i = 0; i < ARRAY_SIZE(firewalls); i++) {
		_cleanup_(freep) char *before = NULL;
		_cleanup_(freep) char *during = NULL;
		_cleanup_(freep) char *after = NULL;
		char *dir = nettest_dir();
		struct net *net;

		nettest_sh(firewalls[i]);
		before = nettest_snapshot();
		net = nettest_open(dir);
		assert_int_equal(net->record.rule_count, rules[i]);
		during = nettest_output("iptables-nft -S");
		assert_non_null(strstr(
		    during, i == 2
				? "-A DOCKER-USER -i mlbt1 -m comment --comment mallee-t1 -j ACCEPT"
				: "-A FORWARD -i mlbt1 -m comment --comment mallee-t1 -j ACCEPT"));
		assert_int_equal(check(net), 0);
		nettest_sh("iptables-nft -F FORWARD; iptables-nft -P FORWARD DROP");
		assert_int_not_equal(check(net), 0);
		assert_int_equal(check(net), 0);
		assert_false(blocked(net));
		nettest_sh("nft flush ruleset");
		nettest_sh(firewalls[i]);
		assert_int_equal(check(net), 1 + rules[i]);
		net_close(net);
		uninstall(dir);
		after = nettest_snapshot();
		assert_same(before, after);
		nettest_sh("nft flush ruleset");
		remove_dir(dir);
	}
}

static void test_diagnose(void **state)
{
	static const char *const firewalls[] = {
	    "nft 'table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }'",
	    "nft 'table ip mine { chain in { type filter hook input priority 0; policy drop; }; }'",
	    "nft 'table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; reject; }; }'",
	};

	assert_false(blocked(NULL));
	for (size_t i = 0; i < ARRAY_SIZE(firewalls); i++) {
		nettest_sh(firewalls[i]);
		assert_true(blocked(NULL));
		nettest_sh("nft flush ruleset");
	}
	nettest_sh(
	    "ip link add d1 type bridge && ip link set d1 up && ip addr add 10.31.20.1/24 dev d1");
	assert_true(blocked(NULL));
	nettest_sh("ip link del d1");
	assert_false(blocked(NULL));
}

/* --- subnets --- */

static void test_subnets(void **state)
{
	char *dir = nettest_dir(), docker[128], chosen[32];
	struct error e = {0};
	struct cidr c, pool;
	struct net *net;

	snprintf(docker, sizeof(docker), "%s/daemon.json", dir);
	static const char json[] =
	    "{\"default-address-pools\":[{\"base\":\"10.16.0.0/12\",\"size\":24}]}";
	assert_int_equal(file_write_atomic(docker, json, strlen(json), 0644), 0);
	cidr_parse("10.16.0.0/12", &pool);
	nettest_sh(
	    "ip link add d1 type bridge && ip link set d1 up && ip route add 10.64.0.0/12 dev d1 table 77 && "
	    "ip route add blackhole 10.32.0.0/11");
	/* Every candidate is taken: by Docker's pool, by the route in a table aside, by the
	 * blackhole. */
	assert_true(subnet_choose(docker, chosen, sizeof(chosen), &e) < 0);
	assert_non_null(strstr(e.message, "MALLEE_SUBNET"));
	error_clear(&e);
	nettest_sh("ip route del blackhole 10.32.0.0/11");
	for (int i = 0; i < 20; i++) {
		assert_int_equal(subnet_choose(docker, chosen, sizeof(chosen), &e), 0);
		assert_int_equal(cidr_parse(chosen, &c), 0);
		assert_int_equal(c.prefix, 20);
		assert_false(cidr_overlap(c, pool));
		assert_in_range(c.addr, 10u << 24 | 32 << 16, 10u << 24 | 63 << 16 | 0xffff);
		assert_int_equal(subnet_check(docker, chosen, "mlbt1", &e), 0);
	}
	assert_true(subnet_check(docker, "10.70.0.0/20", "mlbt1", &e) < 0);
	assert_string_equal(
	    e.message,
	    "the subnet 10.70.0.0/20 overlaps 10.64.0.0/12, a route of this host: set MALLEE_SUBNET to another");
	error_clear(&e);
	assert_int_equal(subnet_check(docker, "172.18.0.0/24", "mlbt1", &e),
			 0); /* Docker has pools of its own */
	assert_true(subnet_check("/nonexistent", "172.18.0.0/24", "mlbt1", &e) < 0);
	nettest_sh("ip link del d1");
	/* Ours is no obstacle to ourselves, but to another cloud. */
	net = nettest_open(dir);
	error_clear(&e);
	assert_int_equal(net_check_subnet(NETTEST_SUBNET, "t1", &e), 0);
	assert_true(net_check_subnet(NETTEST_SUBNET, "t2", &e) < 0);
	net_close(net);
	uninstall(dir);
	remove_dir(dir);
}

static void test_malformed_subnets(void **state)
{
	static const char *const bad[] = {"",
					  "10.0.0.0",
					  "10.0.0.1/24",
					  "10.0.0.0/8",
					  "10.0.0.0/29",
					  "10.0.0.0/x",
					  "10.0.0/24",
					  "0.0.0.0/16",
					  "127.0.0.0/16",
					  "169.254.0.0/16",
					  "224.0.0.0/16",
					  "10.0.0.0/24 ",
					  "300.0.0.0/24",
					  "::/64"};
	struct error e = {0};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		error_clear(&e);
		if (!net_check_subnet(bad[i], "t1", &e))
			fail_msg("accepted: %s", bad[i]);
		assert_string_equal(e.code, "InvalidSubnet");
	}
	error_clear(&e);
	assert_true(net_check_subnet("10.40.0.0/20", "much-too-long-an-id", &e) < 0);
}

static void test_refusals(void **state)
{
	char *dir = nettest_dir();
	struct net_config c = {
	    .cloud_id = "t1", .dir = dir, .subnet = NETTEST_SUBNET, .metadata_port = 1};
	struct error e = {0};
	struct net *net = NULL;

	/* Somebody else's interface of our name is left alone. */
	nettest_sh("ip link add mlbt1 type veth peer name x0");
	assert_true(net_open(&c, &net, &e) < 0);
	assert_non_null(strstr(e.message, "did not make"));
	uninstall(dir);
	error_clear(&e);
	nettest_sh("ip link show mlbt1 >/dev/null && ip link del mlbt1");
	/* Another subnet while the network exists. */
	net = nettest_open(dir);
	net_close(net);
	c.subnet = "10.32.0.0/20";
	assert_true(net_open(&c, &net, &e) < 0);
	assert_non_null(strstr(e.message, "subnet was changed"));
	uninstall(dir);
	remove_dir(dir);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
	    cmocka_unit_test_setup(test_uninstall_gives_the_host_back, nettest_fresh),
	    cmocka_unit_test_setup(test_uninstall_after_a_crash, nettest_fresh),
	    cmocka_unit_test_setup(test_reopen_adopts, nettest_fresh),
	    cmocka_unit_test_setup(test_check_mends, nettest_fresh),
	    cmocka_unit_test_setup(test_reboot, nettest_fresh),
	    cmocka_unit_test_setup(test_ports, nettest_fresh),
	    cmocka_unit_test_setup(test_failed_changes, nettest_fresh),
	    cmocka_unit_test_setup(test_bad_ports, nettest_fresh),
	    cmocka_unit_test_setup(test_iptables, nettest_fresh),
	    cmocka_unit_test_setup(test_diagnose, nettest_fresh),
	    cmocka_unit_test_setup(test_subnets, nettest_fresh),
	    cmocka_unit_test_setup(test_malformed_subnets, nettest_fresh),
	    cmocka_unit_test_setup(test_refusals, nettest_fresh),
	};

	return cmocka_run_group_tests_name("net/host", all, NULL, NULL);
}

int main(void)
{
	return nettest_run(tests);
}
