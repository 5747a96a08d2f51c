/* SPDX-License-Identifier: Apache-2.0 */
/* The server: what a connection orders is checked, done, and timed out when the other end is silent. */
#include "net_peer.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define SILENCE_S 15 /* then a client is given up, for the next */

static int listen_on(const char *address, const char *port)
{
	struct sockaddr_storage a;
	socklen_t len;
	int one = 1, fd, r = peer_address(address ? address : "0.0.0.0", port, &a, &len);

	if (r < 0)
		return r;
	fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 && bind(fd, (struct sockaddr *)&a, len) == 0 &&
	    listen(fd, 16) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

static int answer_requests(int fd, const struct peer_order *o)
{
	uint8_t *request = malloc(o->request_bytes), *answer = calloc(1, o->answer_bytes);
	int r = request && answer ? 0 : -ENOMEM;

	while (r == 0) {
		r = peer_recv(fd, request, o->request_bytes);
		if (r == 0)
			r = peer_send(fd, answer, o->answer_bytes);
	}
	free(request);
	free(answer);
	return r == -ECONNRESET ? 0 : r; /* so a client ends */
}

static int obey(int fd)
{
	struct timeval patience = {.tv_sec = SILENCE_S};
	uint8_t header[PEER_HEADER_BYTES], count[8];
	struct peer_order o;
	uint64_t bytes;
	int one = 1, r;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
		return -errno;
	r = peer_recv(fd, header, sizeof(header));
	if (r == 0)
		r = peer_order_decode(header, &o);
	if (r < 0)
		return r;
	if (o.kind == PEER_RR)
		return answer_requests(fd, &o);
	if (o.kind == PEER_FROM)
		return peer_stream_out(fd, o.time_ms, &bytes);
	r = peer_stream_in(fd, &bytes);
	if (r < 0)
		return r;
	put_be(count, bytes, sizeof(count));
	return peer_send(fd, count, sizeof(count));
}

int peer_serve(const char *address, const char *port)
{
	int fd = listen_on(address, port);

	if (fd < 0)
		return fd;
	puts("ready");
	for (;;) {
		int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC), r;

		if (client < 0 && errno != EINTR && errno != ECONNABORTED) {
			r = -errno;
			close(fd);
			return r;
		}
		if (client < 0)
			continue;
		r = obey(client);
		if (r < 0)
			fprintf(stderr, "net-peer: a client: %s\n", strerror(-r));
		close(client);
	}
}
