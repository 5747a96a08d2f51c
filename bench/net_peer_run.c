/* SPDX-License-Identifier: Apache-2.0 */
/* The client: times an order from its first byte to the last one that the other end has. */
#include "net_peer.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define CONNECT_S 10
#define SILENCE_S 20

struct outcome {
	uint64_t bytes, transactions;
};

static int connect_to(const char *address, const char *port)
{
	struct timeval connect_time = {.tv_sec = CONNECT_S}, silence = {.tv_sec = SILENCE_S};
	struct sockaddr_storage a;
	socklen_t len;
	int one = 1, fd, r = peer_address(address, port, &a, &len);

	if (r < 0)
		return r;
	fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &connect_time, sizeof(connect_time)) == 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof(silence)) == 0 &&
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0 && connect(fd, (struct sockaddr *)&a, len) == 0)
		return fd;
	r = errno == EINPROGRESS ? -ETIMEDOUT : -errno;
	close(fd);
	return r;
}

static int stream_to(int fd, const struct peer_order *o, struct outcome *ret)
{
	uint8_t count[8];
	uint64_t sent;
	int r = peer_stream_out(fd, o->time_ms, &sent);

	if (r == 0)
		r = peer_recv(fd, count, sizeof(count));
	if (r == 0 && get_be(count, sizeof(count)) != sent)
		r = -EPROTO;
	if (r == 0)
		ret->bytes = sent;
	return r;
}

static int requests(int fd, const struct peer_order *o, struct outcome *ret)
{
	uint8_t *request = calloc(1, o->request_bytes), *answer = malloc(o->answer_bytes);
	uint64_t end = peer_now_ms() + o->time_ms, done = 0;
	int r = request && answer ? 0 : -ENOMEM;

	while (r == 0 && peer_now_ms() < end) {
		r = peer_send(fd, request, o->request_bytes);
		if (r == 0)
			r = peer_recv(fd, answer, o->answer_bytes);
		done += r == 0;
	}
	free(request);
	free(answer);
	ret->transactions = done;
	ret->bytes = done * ((uint64_t)o->request_bytes + o->answer_bytes);
	return r;
}

static double cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int obey_and_time(int fd, const struct peer_order *o, struct outcome *ret)
{
	uint8_t header[PEER_HEADER_BYTES];
	int r;

	peer_order_encode(o, header);
	r = peer_send(fd, header, sizeof(header));
	if (r < 0)
		return r;
	switch (o->kind) {
	case PEER_TO:
		return stream_to(fd, o, ret);
	case PEER_FROM:
		return peer_stream_in(fd, &ret->bytes);
	case PEER_RR:
		return requests(fd, o, ret);
	}
	return -EINVAL;
}

int peer_run(const char *address, const char *port, const struct peer_order *o)
{
	struct outcome got = {0};
	double cpu = cpu_s(), seconds;
	uint64_t start;
	int fd = connect_to(address, port), r;

	if (fd < 0)
		return fd;
	start = peer_now_ms();
	r = obey_and_time(fd, o, &got);
	seconds = (double)(peer_now_ms() - start) / 1e3;
	close(fd);
	if (r < 0)
		return r;
	seconds = seconds > 0 ? seconds : 1e-3;
	printf("{\"bytes\": %" PRIu64 ", \"seconds\": %.3f, \"mbit_s\": %.3f, \"transactions\": %" PRIu64
	       ", \"transactions_s\": %.2f, \"cpu_s\": %.3f}\n",
	       got.bytes, seconds, (double)got.bytes * 8 / seconds / 1e6, got.transactions, (double)got.transactions / seconds,
	       cpu_s() - cpu);
	return 0;
}

int peer_offloads(const char *interface)
{
	static const struct {
		uint32_t command;
		const char *name;
	} all[] = {
	    {ETHTOOL_GRXCSUM, "rx-checksum"}, {ETHTOOL_GTXCSUM, "tx-checksum"}, {ETHTOOL_GSG, "scatter-gather"},
	    {ETHTOOL_GTSO, "tso"},	      {ETHTOOL_GGSO, "gso"},		{ETHTOOL_GGRO, "gro"},
	};
	struct ethtool_value v;
	struct ifreq q = {.ifr_data = (void *)&v};
	const char *between = "";
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r = 0;

	if (fd < 0)
		return -errno;
	if (strlen(interface) >= sizeof(q.ifr_name) || !if_nametoindex(interface))
		r = -ENODEV;
	strncpy(q.ifr_name, interface, sizeof(q.ifr_name) - 1);
	if (r == 0)
		putchar('[');
	for (size_t i = 0; r == 0 && i < sizeof(all) / sizeof(all[0]); i++) {
		v = (struct ethtool_value){.cmd = all[i].command};
		if (ioctl(fd, SIOCETHTOOL, &q) < 0 || !v.data)
			continue;
		printf("%s\"%s\"", between, all[i].name);
		between = ", ";
	}
	if (r == 0)
		puts("]");
	close(fd);
	return r;
}
