/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small NBD client over a unix socket: reads of one length at one depth, as many as it can. Requests go out in one write a batch and
 * answers come in by large reads that nobody looks at, so that what is measured is the server and not its client. Simple replies.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "block/core/nbd_proto.h"

#define DEPTH_MAX 256u
#define BUFFER_BYTES (1u << 20)

struct client {
	const char *socket;
	unsigned depth;
	uint32_t block_bytes;
	bool sequential;
	double seconds;
	int fd;
	uint64_t blocks, next, random;
	uint64_t ops, errors;
	unsigned to_send, inside;
	uint8_t *buffer;
	uint8_t head[NBD_SIMPLE_REPLY_BYTES]; /* of the answer that is coming in */
	unsigned head_bytes;
	uint64_t data_left;
};

static void fail(const char *what, int err)
{
	fprintf(stderr, "nbd-master: %s: %s\n", what, strerror(err));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void send_all(int fd, const void *data, size_t len)
{
	for (const char *at = data; len;) {
		ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			fail("sending", n ? errno : EPIPE);
		at += n;
		len -= (size_t)n;
	}
}

static void take(int fd, void *data, size_t len)
{
	ssize_t n = len ? recv(fd, data, len, MSG_WAITALL) : 0;

	if (n != (ssize_t)len)
		fail("receiving", n < 0 ? errno : EPIPE);
}

/* ---- handshake: fixed newstyle, GO for the export without a name ---- */

static void hear_export(struct client *c)
{
	uint8_t head[NBD_OPTION_REPLY_BYTES], data[4096];
	struct nbd_option_reply reply = { 0 };

	while (reply.type != NBD_REP_ACK) {
		take(c->fd, head, sizeof(head));
		if (nbd_option_reply_decode(head, &reply) || reply.length > sizeof(data) || reply.type & NBD_REP_IS_ERROR)
			fail("the server refused the export", EPROTO);
		take(c->fd, data, reply.length);
		if (reply.type == NBD_REP_INFO && reply.length == 12 && nbd_get16(data) == NBD_INFO_EXPORT)
			c->blocks = nbd_get64(data + 2) / c->block_bytes;
	}
	if (!c->blocks)
		fail("the export is empty", EINVAL);
}

static void attach(struct client *c)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	uint8_t hello[18], out[4 + NBD_OPTION_BYTES + 6] = { 0 };

	snprintf(to.sun_path, sizeof(to.sun_path), "%s", c->socket);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof(to)))
		fail(c->socket, errno);
	take(c->fd, hello, sizeof(hello));
	if (nbd_get64(hello) != NBD_MAGIC_INIT || nbd_get64(hello + 8) != NBD_MAGIC_OPTION)
		fail("no NBD server", EPROTO);
	nbd_put32(out, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	nbd_option_encode(NBD_OPT_GO, 6, out + 4); /* no name, no questions */
	send_all(c->fd, out, sizeof(out));
	hear_export(c);
}

/* ---- load ---- */

static uint64_t next_block(struct client *c)
{
	if (c->sequential)
		return c->next++ % c->blocks;
	c->random ^= c->random << 13;
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	return c->random % c->blocks;
}

static void send_batch(struct client *c)
{
	uint8_t out[DEPTH_MAX * NBD_REQUEST_BYTES];
	size_t len = 0;

	for (; c->to_send; c->to_send--, c->inside++) {
		struct nbd_request r = { .command = NBD_CMD_READ, .offset = next_block(c) * c->block_bytes, .length = c->block_bytes };
		len += nbd_request_encode(&r, out + len);
	}
	if (len)
		send_all(c->fd, out, len);
}

static void end_of_head(struct client *c)
{
	struct nbd_reply r;

	if (nbd_reply_decode(c->head, sizeof(c->head), &r) <= 0 || r.structured)
		fail("an answer that was not asked for", EPROTO);
	c->errors += r.error != 0;
	c->data_left = r.error ? 0 : c->block_bytes;
	c->head_bytes = 0;
}

/* Answers one behind the other: a header, the data. */
static void consume(struct client *c, const uint8_t *at, size_t len)
{
	while (len) {
		size_t n = c->data_left ? c->data_left : sizeof(c->head) - c->head_bytes;
		bool ends = n <= len;
		n = ends ? n : len;
		if (c->data_left) {
			c->data_left -= n;
		} else {
			memcpy(c->head + c->head_bytes, at, n);
			c->head_bytes += (unsigned)n;
			if (ends)
				end_of_head(c);
			ends = ends && !c->data_left; /* an error has no data */
		}
		at += n;
		len -= n;
		c->ops += ends;
		c->to_send += ends;
		c->inside -= ends;
	}
}

static double own_cpu_s(void)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static void drive(struct client *c)
{
	uint64_t begin = now_ns(), end = begin + (uint64_t)(c->seconds * 1e9), now = begin;
	double cpu = own_cpu_s();

	c->to_send = c->depth;
	for (; now < end || c->inside; now = now_ns()) {
		if (now < end)
			send_batch(c);
		ssize_t n = recv(c->fd, c->buffer, BUFFER_BYTES, 0);
		if (n <= 0 && errno != EINTR)
			fail("receiving", n ? errno : EPIPE);
		consume(c, c->buffer, n > 0 ? (size_t)n : 0);
	}
	double seconds = (double)(now - begin) / 1e9, ops = c->ops ? (double)c->ops : 1;
	printf("{\"ops\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"seconds\":%.4f,\"iops\":%.1f,\"bytes_per_second\":%.0f,\"latency_us\":%.2f,"
	       "\"own_cpu_us_per_op\":%.3f}\n",
	       c->ops, c->errors, seconds, (double)c->ops / seconds, (double)c->ops * c->block_bytes / seconds, seconds * 1e6 * c->depth / ops,
	       (own_cpu_s() - cpu) * 1e6 / ops);
}

/* With nothing in flight: not every server survives a client that just goes. */
static void take_leave(struct client *c)
{
	struct nbd_request r = { .command = NBD_CMD_DISC };
	uint8_t out[NBD_REQUEST_BYTES];

	send_all(c->fd, out, nbd_request_encode(&r, out));
	close(c->fd);
}

static const char usage[] = "usage: nbd-master --socket PATH [--bs BYTES (4096)] [--depth N (32)] [--seconds S (5)] [--access random|sequential]\n"
			    "Reads from an NBD server and prints what it did, as JSON.\n";

static const struct option long_options[] = {
	{ "socket", 1, NULL, 's' }, { "bs", 1, NULL, 'b' }, { "depth", 1, NULL, 'd' }, { "seconds", 1, NULL, 't' }, { "access", 1, NULL, 'a' }, { 0 },
};

int main(int argc, char **argv)
{
	struct client c = { .depth = 32, .block_bytes = 4096, .seconds = 5, .random = 88172645463325252u };
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
		switch (option) {
		case 's': c.socket = optarg; break;
		case 'b': c.block_bytes = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'd': c.depth = (unsigned)strtoul(optarg, NULL, 10); break;
		case 't': c.seconds = strtod(optarg, NULL); break;
		case 'a': c.sequential = !strcmp(optarg, "sequential"); break;
		default: c.socket = NULL; optind = argc; break;
		}
	}
	if (!c.socket || optind != argc || !c.depth || c.depth > DEPTH_MAX || !c.block_bytes || c.block_bytes > NBD_PAYLOAD_MAX || c.seconds <= 0) {
		fputs(usage, stderr);
		return 2;
	}
	c.buffer = malloc(BUFFER_BYTES);
	if (!c.buffer)
		fail("memory", ENOMEM);
	attach(&c);
	drive(&c);
	take_leave(&c);
	free(c.buffer);
	return c.errors ? 1 : 0;
}
