/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One guest's port on a network as the node controller makes it, for `mallee bench net`: the bridge, the tap, the rules and the
 * sysctls are src/net's own, so that what is measured is what an instance gets. Prints what the guest needs as one JSON object and
 * stands until its standard input closes, however that comes about; then the host is as before. When it is killed itself, the
 * record in its folder is left, and `--uninstall` does what is left to do.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "net/net.h"

#define GUEST_OFFSET 9 /* the guest's address behind the gateway's, which is the subnet's first */
#define METADATA_PORT 9 /* there is no such service here */

static const char usage_text[] =
    "usage: net-port --dir DIR --id ID --mac MAC --port N\n"
    "       net-port --dir DIR --uninstall\n"
    "  --dir DIR      where the record of what was made is kept\n"
    "  --id ID        in the names of all that is made: 1 to 12 of [a-z0-9]\n"
    "  --mac MAC      the guest's\n"
    "  --port N       the TCP port of the host that the guest may reach, as it may reach the cloud's API\n"
    "  --uninstall    take away what a killed net-port left\n";

struct order {
	const char *dir, *id, *mac;
	uint64_t port;
	bool uninstall;
};

static int fail(const struct error *e)
{
	fprintf(stderr, "net-port: %s\n", e->message);
	return 1;
}

static void parse(int argc, char **argv, struct order *o)
{
	static const struct option options[] = {
	    {"dir", 1, 0, 'd'}, {"id", 1, 0, 'i'}, {"mac", 1, 0, 'm'}, {"port", 1, 0, 'p'}, {"uninstall", 0, 0, 'u'}, {0},
	};
	bool good = true;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'd': o->dir = optarg; break;
		case 'i': o->id = optarg; break;
		case 'm': o->mac = optarg; break;
		case 'p': good &= parse_u64(optarg, 1, 65535, &o->port) == 0; break;
		case 'u': o->uninstall = true; break;
		default: good = false;
		}
	}
	if (good && optind == argc && o->dir && (o->uninstall || (o->id && o->mac && o->port)))
		return;
	fputs(usage_text, stderr);
	exit(64);
}

/* An address so far behind that of the subnet. */
static void address_behind(const char *gateway, uint32_t offset, char out[static INET_ADDRSTRLEN])
{
	struct in_addr a;

	inet_pton(AF_INET, gateway, &a);
	a.s_addr = htonl(ntohl(a.s_addr) + offset);
	inet_ntop(AF_INET, &a, out, INET_ADDRSTRLEN);
}

/* Until this process ends. Who is told to take away what a killed bench left waits for the net-port that does it already. */
static int lock_dir(const char *dir, struct error *e)
{
	int fd;

	if (mkdir(dir, 0711) < 0 && errno != EEXIST)
		return error_errno(e, errno, "cannot make %s", dir);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX) < 0)
		return error_errno(e, errno, "cannot lock %s", dir);
	return 0;
}

static int make_port(struct net *n, const struct order *o, const char *subnet, struct error *e)
{
	char ip[INET_ADDRSTRLEN], hostname[32], tap[IFNAMSIZ];
	struct net_port p = {
	    .instance_id = "i-00000000000000001", .mac = o->mac, .ip = ip, .hostname = hostname, .account = "bench"};
	int r;

	address_behind(net_gateway(n), GUEST_OFFSET, ip);
	snprintf(hostname, sizeof(hostname), "ip-%s", ip);
	for (char *s = hostname; *s; s++)
		*s = *s == '.' ? '-' : *s;
	r = net_port_add(n, &p, tap, e);
	if (r < 0)
		return r;
	printf("{\"tap\": \"%s\", \"bridge\": \"%s\", \"gateway\": \"%s\", \"ip\": \"%s\", \"prefix\": %s}\n", tap, net_bridge(n),
	       net_gateway(n), ip, strchr(subnet, '/') + 1);
	fflush(stdout);
	return 0;
}

static void wait_for_the_end(void)
{
	char line[64];

	while (read(STDIN_FILENO, line, sizeof(line)) > 0)
		;
}

int main(int argc, char **argv)
{
	struct order o = {0};
	struct error e = {0}, after = {0};
	char subnet[32];
	struct net *n = NULL;
	int r;

	parse(argc, argv, &o);
	if (o.uninstall && access(o.dir, F_OK) < 0)
		return 0;
	if (lock_dir(o.dir, &e) < 0)
		return fail(&e);
	if (o.uninstall)
		return net_uninstall(o.dir, &e) < 0 ? fail(&e) : 0;
	/* A terminal's Ctrl-C is for who measures; that one's end closes standard input. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	r = net_choose_subnet(subnet, sizeof(subnet), &e);
	if (r == 0)
		r = net_open(&(struct net_config){.cloud_id = o.id,
						  .dir = o.dir,
						  .subnet = subnet,
						  .region = "us-east-1",
						  .metadata_port = METADATA_PORT,
						  .api_ports = {(uint16_t)o.port}},
			     &n, &e);
	if (r == 0)
		r = make_port(n, &o, subnet, &e);
	if (r == 0)
		wait_for_the_end();
	net_close(n);
	if (net_uninstall(o.dir, &after) < 0)
		return fail(&after);
	return r < 0 ? fail(&e) : 0;
}
