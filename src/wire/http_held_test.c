/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire/http_server_priv.h"

/* Clients that send nearly all of the longest body, and wait. */
enum { BODY = 20000, CLIENTS = HTTP_HELD_BODIES + 8, ROUNDS = 500 };

static void on_end(void *ctx, struct http_request *r)
{
	http_reply(r, 200, "text/plain", "served", 6);
}

static const struct http_handler handler = {.end = on_end};

static int post(uint16_t port, size_t send_bytes)
{
	struct sockaddr_in sin = {.sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char text[256 + BODY];
	int n = snprintf(text, sizeof(text),
			 "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", BODY);

	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	memset(text + n, 'x', send_bytes);
	assert_int_equal(send(fd, text, (size_t)n + send_bytes, MSG_NOSIGNAL),
			 (ssize_t)((size_t)n + send_bytes));
	return fd;
}

/* Sends the last byte; the status of the reply. */
static int finish(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char got[512] = "";
	int status = 0;

	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), 1);
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_true(recv(fd, got, sizeof(got) - 1, 0) > 0);
	assert_int_equal(sscanf(got, "HTTP/1.1 %d", &status), 1);
	return status;
}

static void held_bodies_are_bounded(void **state)
{
	const struct http_server_config c = {
	    .address = "127.0.0.1", .max_body_bytes = BODY, .handler = &handler};
	int fds[CLIENTS], served = 0, refused = 0;
	struct http_server *s;
	struct error e = {0};

	assert_int_equal(http_server_start(&c, &s, &e), 0);
	for (size_t i = 0; i < CLIENTS; i++)
		fds[i] = post(http_server_port(s), BODY - 1);
	/* until all that can be held is */
	for (int i = 0; i < ROUNDS && s->held_bytes < HTTP_HELD_BODIES * (BODY - 1); i++)
		usleep(10000);
	assert_true(s->held_bytes <= HTTP_HELD_BODIES * BODY);
	for (size_t i = 0; i < CLIENTS; i++) {
		int status = finish(fds[i]);

		served += status == 200;
		refused += status == 503;
		close(fds[i]);
	}
	assert_int_equal(served + refused, CLIENTS);
	assert_true(refused >= 1 && served >= 1);
	/* and what was held is given back */
	for (int i = 0; i < ROUNDS && s->held_bytes; i++)
		usleep(10000);
	assert_int_equal(s->held_bytes, 0);
	int fd = post(http_server_port(s), BODY - 1);
	assert_int_equal(finish(fd), 200);
	close(fd);
	http_server_stop(s, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(held_bodies_are_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
