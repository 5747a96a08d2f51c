/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server sends to the NBD client. The first byte says to what: even, the handshake; odd, a link with requests out (bit 1:
 * structured replies; cookies are 1 << 32 | slot, slots from 0 on). Each request must end exactly once, and nothing may be
 * written beside its memory.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/back/nbd_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the handshake ---- */

struct input {
	const uint8_t *data;
	size_t size;
};

static int read_input(void *ctx, void *data, size_t len)
{
	struct input *in = ctx;

	if (len > in->size)
		return -ECONNRESET;
	memcpy(data, in->data, len);
	in->data += len;
	in->size -= len;
	return 0;
}

static int write_nothing(void *ctx, const void *data, size_t len)
{
	return 0;
}

static void negotiate(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct nbd_negotiation n = { .read = read_input, .write = write_nothing, .ctx = &in, .export_name = "a", .want_status = true };
	struct error e = { 0 };

	if (nbd_negotiate(&n, &e) == 0 && (n.remote.minimum > 4096 || n.remote.size_bytes > INT64_MAX || n.remote.maximum < n.remote.minimum))
		abort();
}

/* ---- replies ---- */

#define REQUESTS 6

struct request {
	struct blk_req req;
	struct iovec iov[2];
	char *half[2];
	unsigned ended;
};

static void ended(struct blk_req *r)
{
	((struct request *)r->ctx)->ended++;
}

static void submit_all(struct nbd_link *k, struct request *requests)
{
	static const struct {
		enum blk_op op;
		uint32_t len;
	} what[REQUESTS] = { { BLK_READ, 512 }, { BLK_READ, 4096 }, { BLK_WRITE, 512 }, { BLK_FLUSH, 0 }, { BLK_READ, 3 * 4096 }, { BLK_WRITE_ZEROES, 8192 } };

	for (unsigned i = 0; i < REQUESTS; i++) {
		struct request *q = &requests[i];
		uint32_t cut = what[i].len / 4;
		q->half[0] = malloc(cut + 1);
		q->half[1] = malloc(what[i].len - cut + 1);
		memset(q->half[1], 0, what[i].len - cut + 1);
		memset(q->half[0], 0, cut + 1);
		q->iov[0] = (struct iovec){ q->half[0], cut };
		q->iov[1] = (struct iovec){ q->half[1], what[i].len - cut };
		q->req = (struct blk_req){ .op = what[i].op, .off_bytes = what[i].op == BLK_FLUSH ? 0 : i * 16384, .len_bytes = what[i].len,
					   .iov = q->iov, .iov_count = what[i].op <= BLK_WRITE ? 2 : 0, .queue = k->queue, .done = ended, .ctx = q };
		nbd_link_submit(k, &q->req);
	}
}

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

static void replies(struct blk_queue *q, const uint8_t *data, size_t size, bool structured)
{
	struct nbd_client c = { .lock = PTHREAD_MUTEX_INITIALIZER, .wanted = PTHREAD_COND_INITIALIZER, .block_bytes = 512, .gives_up = true,
				.queue_count = 1, .link_count = 1 };
	struct request requests[REQUESTS] = { 0 };
	struct nbd_link *k;
	int pair[2];

	c.remote = (struct nbd_remote){ .size_bytes = 1 << 20, .flags = 0xffff & ~NBD_READ_ONLY, .minimum = 512, .preferred = 4096,
					.maximum = 1 << 20, .structured = structured };
	if (nbd_link_new(&c, &k) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair))
		abort();
	c.links[0] = k;
	k->fresh = (struct nbd_dial){ .client = &c, .fd = pair[0] };
	if (nbd_link_begin(k, q))
		abort();
	submit_all(k, requests);
	one_turn(q);
	while (size && k->fd >= 0) {
		ssize_t n = send(pair[1], data, size, MSG_NOSIGNAL);
		if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
		one_turn(q);
	}
	close(pair[1]);
	for (unsigned i = 0; i < 4; i++) /* lost, and given up at once */
		one_turn(q);
	nbd_link_flush(k);
	one_turn(q);
	for (unsigned i = 0; i < REQUESTS; i++) {
		if (requests[i].ended != 1)
			abort();
		free(requests[i].half[0]);
		free(requests[i].half[1]);
	}
	nbd_link_end(k);
	nbd_link_free(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct blk_queue *q;
	struct error e = { 0 };

	if (!q && blk_queue_new(0, BLK_IO_THREADS, &q, &e))
		abort();
	if (!size)
		return 0;
	if (data[0] & 1)
		replies(q, data + 1, size - 1, data[0] & 2);
	else
		negotiate(data + 1, size - 1);
	return 0;
}
