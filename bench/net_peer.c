/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of `mallee bench net`: TCP streams and requests with answers. Without libraries, to run in any guest. */
#include "net_peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define STREAM_BYTES (128 * 1024) /* a send, as netperf's and iperf3's */

static const char usage_text[] =
    "usage: net-peer --serve [--listen ADDRESS] [--port N]\n"
    "       net-peer --connect ADDRESS [--port N] --to | --from | --rr [--seconds S] [--request BYTES] [--answer BYTES]\n"
    "       net-peer --offloads INTERFACE\n"
    "  --serve      answer clients, one after another\n"
    "  --to         send to the server for so many seconds (10)\n"
    "  --from       receive from it\n"
    "  --rr         send requests (1 byte) and wait for each answer (1 byte)\n"
    "  --offloads   what the interface does in the processor's stead\n"
    "Without --listen it listens on every address. The port is 9747. Prints one JSON object.\n";

void put_be(uint8_t *p, uint64_t v, size_t bytes)
{
	for (size_t i = bytes; i-- > 0; v >>= 8)
		p[i] = (uint8_t)v;
}

uint64_t get_be(const uint8_t *p, size_t bytes)
{
	uint64_t v = 0;

	for (size_t i = 0; i < bytes; i++)
		v = v << 8 | p[i];
	return v;
}

void peer_order_encode(const struct peer_order *o, uint8_t out[static PEER_HEADER_BYTES])
{
	memset(out, 0, PEER_HEADER_BYTES);
	put_be(out, PEER_MAGIC, 4);
	out[4] = PEER_VERSION;
	out[5] = (uint8_t)o->kind;
	put_be(out + 8, o->request_bytes, 4);
	put_be(out + 12, o->answer_bytes, 4);
	put_be(out + 16, o->time_ms, 4);
}

static bool message_size_valid(uint32_t bytes)
{
	return bytes >= 1 && bytes <= PEER_MESSAGE_MAX;
}

int peer_order_decode(const uint8_t in[static PEER_HEADER_BYTES], struct peer_order *ret)
{
	struct peer_order o = {
	    .kind = in[5],
	    .request_bytes = (uint32_t)get_be(in + 8, 4),
	    .answer_bytes = (uint32_t)get_be(in + 12, 4),
	    .time_ms = (uint32_t)get_be(in + 16, 4),
	};

	if (get_be(in, 4) != PEER_MAGIC || in[4] != PEER_VERSION || in[6] || in[7])
		return -EPROTO;
	if (o.kind < PEER_TO || o.kind > PEER_RR || o.time_ms < 1 || o.time_ms > PEER_MS_MAX)
		return -EPROTO;
	if (o.kind == PEER_RR && (!message_size_valid(o.request_bytes) || !message_size_valid(o.answer_bytes)))
		return -EPROTO;
	*ret = o;
	return 0;
}

int peer_address(const char *address, const char *port, struct sockaddr_storage *ret, socklen_t *ret_len)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
	uint16_t be_port = htons((uint16_t)atoi(port));

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = be_port;
		*ret_len = sizeof(*v4);
		return 0;
	}
	if (inet_pton(AF_INET6, address, &v6->sin6_addr) != 1)
		return -EINVAL;
	v6->sin6_family = AF_INET6;
	v6->sin6_port = be_port;
	*ret_len = sizeof(*v6);
	return 0;
}

uint64_t peer_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int peer_send(int fd, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int peer_recv(int fd, void *data, size_t len)
{
	uint8_t *p = data;

	while (len) {
		ssize_t n = recv(fd, p, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ECONNRESET;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int peer_stream_out(int fd, uint32_t time_ms, uint64_t *ret_bytes)
{
	static const uint8_t zeros[STREAM_BYTES];
	uint64_t end = peer_now_ms() + time_ms, bytes = 0;
	int r;

	do {
		r = peer_send(fd, zeros, sizeof(zeros));
		if (r < 0)
			return r;
		bytes += sizeof(zeros);
	} while (peer_now_ms() < end);
	if (shutdown(fd, SHUT_WR) < 0)
		return -errno;
	*ret_bytes = bytes;
	return 0;
}

int peer_stream_in(int fd, uint64_t *ret_bytes)
{
	uint8_t *data = malloc(STREAM_BYTES);
	uint64_t bytes = 0;
	ssize_t n;

	if (!data)
		return -ENOMEM;
	while ((n = recv(fd, data, STREAM_BYTES, 0)) > 0 || (n < 0 && errno == EINTR))
		bytes += n > 0 ? (uint64_t)n : 0;
	n = n < 0 ? -errno : 0;
	free(data);
	if (n == 0)
		*ret_bytes = bytes;
	return (int)n;
}

/* --- the command line --- */

struct call {
	const char *address, *port, *interface;
	bool serve, connect;
	struct peer_order order;
};

static uint32_t number(const char *text, double scale, uint32_t max)
{
	char *end;
	double v = strtod(text, &end) * scale;

	if (*end || end == text || !(v >= 1 && v <= max)) {
		fprintf(stderr, "net-peer: '%s' is no number from 1 to %u\n%s", text, (unsigned)(max / scale), usage_text);
		exit(64);
	}
	return (uint32_t)v;
}

static void parse(int argc, char **argv, struct call *c)
{
	enum { SERVE = 256, LISTEN, PORT, CONNECT, TO, FROM, RR, SECONDS, REQUEST, ANSWER, OFFLOADS, HELP };
	static const struct option options[] = {
	    {"serve", 0, 0, SERVE},	    {"listen", 1, 0, LISTEN},	{"port", 1, 0, PORT},	  {"connect", 1, 0, CONNECT},
	    {"to", 0, 0, TO},		    {"from", 0, 0, FROM},	{"rr", 0, 0, RR},	  {"seconds", 1, 0, SECONDS},
	    {"request", 1, 0, REQUEST},	    {"answer", 1, 0, ANSWER},	{"offloads", 1, 0, OFFLOADS}, {"help", 0, 0, HELP},
	    {0},
	};
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (o) {
		case SERVE: c->serve = true; break;
		case CONNECT: c->connect = true; /* fallthrough */
		case LISTEN: c->address = optarg; break;
		case PORT: number(optarg, 1, 65535); c->port = optarg; break;
		case TO: c->order.kind = PEER_TO; break;
		case FROM: c->order.kind = PEER_FROM; break;
		case RR: c->order.kind = PEER_RR; break;
		case SECONDS: c->order.time_ms = number(optarg, 1000, PEER_MS_MAX); break;
		case REQUEST: c->order.request_bytes = number(optarg, 1, PEER_MESSAGE_MAX); break;
		case ANSWER: c->order.answer_bytes = number(optarg, 1, PEER_MESSAGE_MAX); break;
		case OFFLOADS: c->interface = optarg; break;
		case HELP: fputs(usage_text, stdout); exit(0);
		default: fputs(usage_text, stderr); exit(64);
		}
	}
	if (optind != argc || c->serve + c->connect + !!c->interface != 1 || (c->connect && !c->order.kind)) {
		fputs(usage_text, stderr);
		exit(64);
	}
}

int main(int argc, char **argv)
{
	struct call c = {
	    .port = "9747",
	    .order = {.request_bytes = 1, .answer_bytes = 1, .time_ms = 10000},
	};
	int r;

	parse(argc, argv, &c);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (c.serve)
		r = peer_serve(c.address, c.port);
	else if (c.connect)
		r = peer_run(c.address, c.port, &c.order);
	else
		r = peer_offloads(c.interface);
	if (r < 0)
		fprintf(stderr, "net-peer: %s\n", strerror(-r));
	return r < 0;
}
