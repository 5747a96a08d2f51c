/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FRONT_NBD_TESTKIT_H
#define MALLEE_BLOCK_FRONT_NBD_TESTKIT_H

/* For the NBD tests: a disk that holds requests or fails them when told, a server on it, and a client spelt out byte by byte as
 * far as its handshake. After cmocka.h. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/core/nbd_proto.h"
#include "block/front/fronts.h"
#include "os/loop.h"

extern const struct blk_layer_ops blk_nbd_ops; /* block/back's, which this folder may not include but its tests link */

#define DISK_BYTES (8u << 20)

/* ---- the disk: memory that can hold or fail ---- */

static struct {
	char *bytes;
	_Atomic bool hold, read_only;
	_Atomic int lends;         /* a file with the same bytes, from lends_off on; -1: none */
	_Atomic uint64_t lends_off;
	_Atomic unsigned lent;
	_Atomic uint64_t fail_at;  /* reads and writes that cover it fail; UINT64_MAX: none */
	_Atomic unsigned held, flushes, fua;
	struct blk_list list;      /* its queue's */
	struct blk_queue *queue;
} disk;

static inline int disk_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	l->info = (struct blk_info){ .size_bytes = DISK_BYTES, .block_bytes = 512, .physical_bytes = 4096, .discard_bytes = 4096,
				     .fast_zeroes = true, .read_only = disk.read_only };
	return 0;
}

static inline void disk_lend(struct blk_req *r)
{
	r->loan.given = true;
	r->loan.fd = disk.lends;
	r->loan.off_bytes = disk.lends_off + r->off_bytes;
	disk.lent++;
}

static inline void disk_do(struct blk_req *r)
{
	int err = 0;

	if (r->op != BLK_FLUSH && disk.fail_at >= r->off_bytes && disk.fail_at - r->off_bytes < r->len_bytes)
		err = -EIO;
	else if (r->op == BLK_READ && r->loan.wanted && disk.lends >= 0)
		disk_lend(r);
	else if (r->op == BLK_READ)
		blk_iov_to(r->iov, r->iov_count, 0, disk.bytes + r->off_bytes, r->len_bytes);
	else if (r->op == BLK_WRITE)
		blk_iov_from(r->iov, r->iov_count, 0, disk.bytes + r->off_bytes, r->len_bytes);
	else if (r->op != BLK_FLUSH)
		memset(disk.bytes + r->off_bytes, 0, r->len_bytes);
	disk.flushes += r->op == BLK_FLUSH;
	disk.fua += r->flags & BLK_FUA ? 1 : 0;
	blk_complete(r, err);
}

static inline void disk_submit(struct blk_layer *l, struct blk_req *r)
{
	if (disk.hold) {
		disk.queue = r->queue;
		blk_list_push(&disk.list, r);
		disk.held++;
	} else {
		disk_do(r);
	}
}

static inline void disk_release(void *ctx)
{
	struct blk_req *r;

	disk.hold = false;
	while ((r = blk_list_pop(&disk.list))) {
		disk.held--;
		disk_do(r);
	}
}

/* Data in the first half, a hole behind it. */
static inline int disk_extents(struct blk_layer *l, enum blk_extent_map map, uint64_t off, uint64_t len, struct blk_extent *out, unsigned max)
{
	uint64_t half = DISK_BYTES / 2, data = off < half ? MIN_OF(len, half - off) : 0;
	unsigned n = 0;

	if (data)
		out[n++] = (struct blk_extent){ data, BLK_EXTENT_DATA };
	if (len > data && n < max)
		out[n++] = (struct blk_extent){ len - data, BLK_EXTENT_HOLE };
	return (int)n;
}

static const struct blk_option no_options[] = { { 0 } };
static const struct blk_layer_ops disk_ops = { .name = "disk", .is_back = true, .options = no_options, .open = disk_open,
					       .submit = disk_submit, .extents = disk_extents };
static const struct blk_layer_ops *const drivers[] = { &disk_ops, &blk_nbd_ops, NULL };
static const struct blk_front_ops *const fronts[] = { &blk_nbd_server_ops, NULL };

/* ---- the server: its main loop is a thread ---- */

static struct {
	struct blk_stack *stack;
	struct blk_front front;
	struct loop *loop;
	pthread_t thread;
	char path[64], spec[256];
	int result;
} server;

static inline void *run_loop(void *arg)
{
	struct error e = { 0 };

	server.result = blk_front_open(fronts, server.spec, &server.front, &e);
	if (server.result)
		fprintf(stderr, "%s\n", e.message);
	int result = server.result;
	*(_Atomic bool *)arg = true;
	if (result)
		return NULL;
	loop_run(server.loop);
	blk_front_close(&server.front);
	return NULL;
}

static inline void server_start(unsigned queues, const char *more)
{
	struct blk_stack_settings settings = { drivers, "disk", NULL, queues, BLK_IO_THREADS };
	struct error e = { 0 };
	static _Atomic bool opened;

	disk.hold = false;
	disk.lends = -1;
	disk.fail_at = UINT64_MAX;
	disk.flushes = disk.fua = 0;
	memset(&server, 0, sizeof(server));
	snprintf(server.path, sizeof(server.path), "/tmp/mallee-nbd-test-%d", (int)getpid());
	snprintf(server.spec, sizeof(server.spec), "nbd:socket=%s%s", server.path, more);
	assert_int_equal(blk_stack_open(&settings, &server.stack, &e), 0);
	assert_int_equal(blk_stack_start(server.stack, &e), 0);
	assert_int_equal(loop_new(&server.loop), 0);
	server.front = (struct blk_front){ .stack = server.stack, .loop = server.loop };
	opened = false;
	assert_int_equal(pthread_create(&server.thread, NULL, run_loop, &opened), 0);
	while (!opened)
		usleep(200);
	assert_int_equal(server.result, 0);
}

static inline void server_stop(void)
{
	struct error e = { 0 };

	loop_stop(server.loop);
	pthread_join(server.thread, NULL);
	loop_free(server.loop);
	assert_int_equal(blk_stack_close(server.stack, &e), 0);
	assert_int_equal(access(server.path, F_OK), -1);
}

/* ---- a client by hand ---- */

static inline int dial(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = 10 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	strcpy(addr.sun_path, server.path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static inline void put(int fd, const void *data, size_t len)
{
	for (const char *at = data; len;) {
		ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
		assert_true(n > 0);
		at += n;
		len -= (size_t)n;
	}
}

static inline void get(int fd, void *data, size_t len)
{
	assert_int_equal(recv(fd, data, len, MSG_WAITALL), len);
}

static inline bool at_end(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, 0);

	return n == 0 || (n < 0 && errno != EAGAIN);
}

static inline void put_option(int fd, uint32_t option, const void *data, uint32_t len)
{
	uint8_t header[NBD_OPTION_BYTES];

	nbd_option_encode(option, len, header);
	put(fd, header, sizeof(header));
	put(fd, data, len);
}

static inline uint32_t get_option_reply(int fd)
{
	uint8_t header[NBD_OPTION_REPLY_BYTES], data[4096];
	struct nbd_option_reply r;

	do {
		get(fd, header, sizeof(header));
		assert_int_equal(nbd_option_reply_decode(header, &r), 0);
		assert_true(r.length <= sizeof(data));
		if (r.length)
			get(fd, data, r.length);
	} while (r.type != NBD_REP_ACK && !(r.type & NBD_REP_IS_ERROR));
	return r.type;
}

/* As far as GO's request; its answer is still to come. */
static inline int knock(bool structured)
{
	static const uint8_t flags[] = { 0, 0, 0, 3 }, go[6] = { 0 };
	static const uint8_t meta[] = { 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 15, 'b', 'a', 's', 'e', ':',
					'a', 'l', 'l', 'o', 'c', 'a', 't', 'i', 'o', 'n' };
	int fd = dial();
	uint8_t greeting[18];

	get(fd, greeting, sizeof(greeting));
	put(fd, flags, sizeof(flags));
	if (structured) {
		put_option(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
		assert_int_equal(get_option_reply(fd), NBD_REP_ACK);
		put_option(fd, NBD_OPT_SET_META_CONTEXT, meta, sizeof(meta));
		assert_int_equal(get_option_reply(fd), NBD_REP_ACK);
	}
	put_option(fd, NBD_OPT_GO, go, sizeof(go));
	return fd;
}

static inline int enter(bool structured)
{
	int fd = knock(structured);

	assert_int_equal(get_option_reply(fd), NBD_REP_ACK);
	return fd;
}

static inline int make_disk(void **state)
{
	disk.bytes = malloc(DISK_BYTES);
	return !disk.bytes;
}

static inline int free_disk(void **state)
{
	free(disk.bytes);
	return 0;
}

static inline void fill_disk(void)
{
	for (uint32_t i = 0; i < DISK_BYTES; i += 4)
		nbd_put32(disk.bytes + i, i * 2654435761u | 1);
}

#endif
