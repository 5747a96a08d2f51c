/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client sends to the NBD server. The first byte says to what: even, the handshake (bit 1: TLS required); odd, a connection
 * in its transmission phase (bit 1: structured replies and block status, bit 2: read-only), on a small disk in memory.
 * Each connection must come to its end, whatever came.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/back/back.h"
#include "block/front/nbd_priv.h"

#define TURNS_MAX 20000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the handshake ---- */

static int find_export(void *ctx, const char *name, struct nbd_export *ret)
{
	if (*name && strcmp(name, "snap/a") != 0)
		return -ENOENT;
	*ret = (struct nbd_export){ .size_bytes = 1 << 20, .minimum = 512, .preferred = 4096, .has_changed = *name };
	return 0;
}

static void shake(const uint8_t *data, size_t size, enum nbd_tls_mode tls)
{
	struct nbd_handshake h = { .exports = find_export, .tls = tls };
	struct nbd_export x = { .size_bytes = 4096, .minimum = 512, .preferred = 4096 };
	size_t used = 1;
	bool over = false;

	nbd_handshake_init(&h);
	while (!over && (used || size)) {
		/* Bytes on the heap, so that reading beyond them is seen. */
		uint8_t *copy = malloc(size ? size : 1);
		memcpy(copy, data, size);
		enum nbd_step step = nbd_handshake_feed(&h, copy, size, &used);
		free(copy);
		if (used > size)
			abort();
		data += used;
		size -= used;
		over = step == NBD_STEP_CLOSE || step == NBD_STEP_DROP || (step == NBD_STEP_MORE && !used);
		if (step == NBD_STEP_TLS)
			nbd_handshake_secured(&h);
		if (step == NBD_STEP_ADMIT) {
			nbd_handshake_admit(&h, &x);
			over = true;
		}
	}
	nbd_handshake_done(&h);
}

/* ---- transmission ---- */

struct turn {
	struct blk_task task;
	bool over;
};

static void turned(struct blk_task *t)
{
	((struct turn *)t)->over = true;
}

static void one_turn(struct blk_queue *q)
{
	struct turn t = { .task.fn = turned };

	blk_queue_post(q, &t.task);
	if (blk_queue_run_until(q, &t.over, 10000))
		abort();
}

static void serve(struct blk_stack *stack, const uint8_t *data, size_t size, unsigned how)
{
	struct nbd_server s = { .stack = stack, .ended_fd = eventfd(0, EFD_NONBLOCK), .lock = PTHREAD_MUTEX_INITIALIZER,
				.more_ended = PTHREAD_COND_INITIALIZER };
	static char sink[65536];
	struct nbd_conn *c;
	int pair[2];

	if (s.ended_fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) || nbd_conn_new(&s, &c))
		abort();
	c->fd = pair[0];
	c->size_bytes = blk_stack_info(stack)->size_bytes;
	c->block_bytes = 512;
	c->structured = how & 2;
	c->meta = how & 2 ? NBD_META_BIT_ALLOCATION | NBD_META_BIT_CHANGED : 0;
	c->read_only = how & 4;
	c->discards = c->fast_zeroes = true;
	nbd_conn_begin(c);
	for (unsigned turns = 0; !s.ended; turns++) {
		ssize_t n = size ? send(pair[1], data, size, MSG_NOSIGNAL) : 0;
		if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
		if (n < 0 && errno == EPIPE) /* the server has closed */
			size = 0;
		if (!size)
			shutdown(pair[1], SHUT_WR);
		one_turn(blk_stack_queue(stack, 0));
		while (read(pair[1], sink, sizeof(sink)) > 0)
			;
		if (turns > TURNS_MAX)
			abort();
	}
	if (c->inflight || c->out || c->todo || c->free_unit_count != NBD_UNITS)
		abort();
	nbd_conn_free(c);
	close(pair[1]);
	close(s.ended_fd);
}

static struct blk_stack *open_stack(void)
{
	static const struct blk_layer_ops *const drivers[] = { &blk_mem_ops, NULL };
	struct blk_stack_settings settings = { drivers, "mem:size=1M", NULL, 1, BLK_IO_THREADS };
	struct blk_stack *stack;
	struct error e = { 0 };

	if (blk_stack_open(&settings, &stack, &e))
		abort();
	return stack;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct blk_stack *stack;

	if (!stack)
		stack = open_stack();
	if (!size)
		return 0;
	if (data[0] & 1)
		serve(stack, data + 1, size - 1, data[0]);
	else
		shake(data + 1, size - 1, data[0] & 2 ? NBD_TLS_REQUIRE : NBD_TLS_ON);
	return 0;
}
