/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BENCH_NET_PEER_H
#define MALLEE_BENCH_NET_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/*
 * What the client of net-peer asks of its server, as the first bytes of a connection, all of them big-endian:
 *
 *   magic 4 | version 1 | kind 1 | reserved 2 (zero) | request bytes 4 | answer bytes 4 | milliseconds 4
 *
 * `to`: the client sends until its time is over and closes its half; the server answers with the bytes that it got (8).
 * `from`: the server sends for that time and closes. `rr`: the client sends a request, the server an answer, and so on until the
 * client closes. The client always connects, so that a guest behind address translation can be it.
 */
#define PEER_MAGIC 0x6d6e7031u
#define PEER_VERSION 1
#define PEER_HEADER_BYTES 20
#define PEER_MESSAGE_MAX (1u << 20) /* of a request or an answer */
#define PEER_MS_MAX 3600000u

enum peer_kind { PEER_TO = 1, PEER_FROM, PEER_RR };

struct peer_order {
	enum peer_kind kind;
	uint32_t request_bytes, answer_bytes; /* of PEER_RR */
	uint32_t time_ms;
};

void peer_order_encode(const struct peer_order *o, uint8_t out[static PEER_HEADER_BYTES]);
/* -EPROTO for what is no order of ours or out of range. */
int peer_order_decode(const uint8_t in[static PEER_HEADER_BYTES], struct peer_order *ret);

/* From numbers, of IPv4 or IPv6: a static program has no resolver. -EINVAL. */
int peer_address(const char *address, const char *port, struct sockaddr_storage *ret, socklen_t *ret_len);
void put_be(uint8_t *p, uint64_t v, size_t bytes);
uint64_t get_be(const uint8_t *p, size_t bytes);
uint64_t peer_now_ms(void);
/* All of it; 0 or a negative errno, -ECONNRESET when the other end closed before. */
int peer_send(int fd, const void *data, size_t len);
int peer_recv(int fd, void *data, size_t len);
/* Sends for so long; *ret_bytes: how much. */
int peer_stream_out(int fd, uint32_t time_ms, uint64_t *ret_bytes);
/* Receives until the other end closes. */
int peer_stream_in(int fd, uint64_t *ret_bytes);

/* Serve one connection after another, until killed; says "ready" on standard output once it listens. */
int peer_serve(const char *address, const char *port);
/* Prints what came of it as one JSON object. */
int peer_run(const char *address, const char *port, const struct peer_order *o);
/* Prints the offloads of an interface that are on, as one JSON array. */
int peer_offloads(const char *interface);

#endif
