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
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "svc/clc/images.h"
#include "svc/clc/testing.h"

enum { WAIT_MS = 10000 };

/* A port of loopback where connections are taken by the kernel and never answered. */
static int silent_listener(uint16_t *ret_port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	*ret_port = ntohs(sin.sin_port);
	return fd;
}

static void pending_image(struct fixture *f)
{
	struct records_image *image;
	struct record rec;
	struct error e = {0};
	const char *id = fixture_image(f, &f->account, 1);

	assert_int_equal(record_get(&f->clc, f->arena, KIND_IMAGE, id, &rec, &e), 0);
	image = rec.value;
	image->state = IMAGE_PENDING;
	assert_int_equal(image_put(&f->clc, image, &e), 0);
}

/* The service must not wait for an object store that has fallen silent. */
static void stops_while_it_reads(void **state)
{
	struct image_worker *worker = NULL;
	struct error e = {0};
	char base[16];
	uint16_t port;
	int fd = silent_listener(&port);

	snprintf(base, sizeof(base), "%d", port - PORT_S3);
	setenv("MALLEE_PORT_BASE", base, 1);
	struct fixture *f = fixture_new();
	pending_image(f);
	assert_int_equal(image_worker_start(&f->clc, &worker, &e), 0);
	struct pollfd asked = {.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&asked, 1, WAIT_MS), 1);

	int64_t before = clock_mono_ms();
	image_worker_stop(worker);
	assert_true(clock_mono_ms() - before < WAIT_MS);
	fixture_free(f);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(stops_while_it_reads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
