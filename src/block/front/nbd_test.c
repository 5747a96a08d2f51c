/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD server on a disk that holds requests or fails them when told, with a client that is spelt out byte by byte; and server
 * and client (block/back) against each other, compared with plain memory.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macros.h"
#include "block/back/back.h"
#include "block/core/nbd_proto.h"
#include "block/front/fronts.h"
#include "os/loop.h"

#define DISK_BYTES (8u << 20)

/* ---- the disk: memory that can hold or fail ---- */

static struct {
	char *bytes;
	_Atomic bool hold, read_only;
	_Atomic uint64_t fail_at;  /* reads and writes that cover it fail; UINT64_MAX: none */
	_Atomic unsigned held, flushes, fua;
	struct blk_list list;      /* its queue's */
	struct blk_queue *queue;
} disk;

static int disk_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	l->info = (struct blk_info){ .size_bytes = DISK_BYTES, .block_bytes = 512, .physical_bytes = 4096, .discard_bytes = 4096,
				     .fast_zeroes = true, .read_only = disk.read_only };
	return 0;
}

static void disk_do(struct blk_req *r)
{
	int err = 0;

	if (r->op != BLK_FLUSH && disk.fail_at >= r->off_bytes && disk.fail_at - r->off_bytes < r->len_bytes)
		err = -EIO;
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

static void disk_submit(struct blk_layer *l, struct blk_req *r)
{
	if (disk.hold) {
		disk.queue = r->queue;
		blk_list_push(&disk.list, r);
		disk.held++;
	} else {
		disk_do(r);
	}
}

static void disk_release(void *ctx)
{
	struct blk_req *r;

	disk.hold = false;
	while ((r = blk_list_pop(&disk.list))) {
		disk.held--;
		disk_do(r);
	}
}

/* Data in the first half, a hole behind it. */
static int disk_extents(struct blk_layer *l, enum blk_extent_map map, uint64_t off, uint64_t len, struct blk_extent *out, unsigned max)
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

static void *run_loop(void *arg)
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

static void server_start(unsigned queues, const char *more)
{
	struct blk_stack_settings settings = { drivers, "disk", NULL, queues, BLK_IO_THREADS };
	struct error e = { 0 };
	static _Atomic bool opened;

	disk.hold = false;
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

static void server_stop(void)
{
	struct error e = { 0 };

	loop_stop(server.loop);
	pthread_join(server.thread, NULL);
	loop_free(server.loop);
	assert_int_equal(blk_stack_close(server.stack, &e), 0);
	assert_int_equal(access(server.path, F_OK), -1);
}

/* ---- a client by hand ---- */

static int dial(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = 10 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	strcpy(addr.sun_path, server.path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void put(int fd, const void *data, size_t len)
{
	for (const char *at = data; len;) {
		ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
		assert_true(n > 0);
		at += n;
		len -= (size_t)n;
	}
}

static void get(int fd, void *data, size_t len)
{
	assert_int_equal(recv(fd, data, len, MSG_WAITALL), len);
}

static bool at_end(int fd)
{
	char byte;

	return recv(fd, &byte, 1, 0) <= 0 && errno != EAGAIN;
}

static void put_option(int fd, uint32_t option, const void *data, uint32_t len)
{
	uint8_t header[NBD_OPTION_BYTES];

	nbd_option_encode(option, len, header);
	put(fd, header, sizeof(header));
	put(fd, data, len);
}

static uint32_t get_option_reply(int fd)
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
static int knock(bool structured)
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

static int enter(bool structured)
{
	int fd = knock(structured);

	assert_int_equal(get_option_reply(fd), NBD_REP_ACK);
	return fd;
}

static void request(int fd, uint16_t command, uint16_t flags, uint64_t off, uint32_t len)
{
	struct nbd_request rq = { flags, command, off ^ 0x5555, off, len };
	uint8_t wire[NBD_REQUEST_BYTES];

	nbd_request_encode(&rq, wire);
	put(fd, wire, sizeof(wire));
}

static uint32_t simple(int fd)
{
	uint8_t wire[NBD_SIMPLE_REPLY_BYTES];
	struct nbd_reply r;

	get(fd, wire, sizeof(wire));
	assert_int_equal(nbd_reply_decode(wire, sizeof(wire), &r), sizeof(wire));
	return r.error;
}

static uint32_t ask(int fd, uint16_t command, uint16_t flags, uint64_t off, uint32_t len)
{
	request(fd, command, flags, off, len);
	return simple(fd);
}

/* All chunks of one structured reply: its error; a read's data into data. */
static uint32_t chunks(int fd, uint64_t base, char *data, uint32_t len, unsigned *ret_holes)
{
	uint8_t wire[NBD_CHUNK_BYTES], head[12];
	struct nbd_reply r;
	uint32_t error = 0, seen = 0;

	do {
		get(fd, wire, sizeof(wire));
		assert_int_equal(nbd_reply_decode(wire, sizeof(wire), &r), sizeof(wire));
		if (r.type == NBD_CHUNK_DATA) {
			get(fd, head, 8);
			uint64_t off = nbd_get64(head);
			assert_true(off >= base && off - base + r.length - 8 <= len);
			get(fd, data + (off - base), r.length - 8);
			seen += r.length - 8;
		} else if (r.type == NBD_CHUNK_HOLE) {
			get(fd, head, 12);
			memset(data + (nbd_get64(head) - base), 0, nbd_get32(head + 8));
			seen += nbd_get32(head + 8);
			++*ret_holes;
		} else {
			assert_int_equal(r.type, NBD_CHUNK_ERROR);
			get(fd, head, 6);
			error = nbd_get32(head);
		}
	} while (!(r.flags & NBD_CHUNK_DONE));
	assert_true(error || seen == len);
	return error;
}

/* ---- tests ---- */

static void fill_disk(void)
{
	for (uint32_t i = 0; i < DISK_BYTES; i += 4)
		nbd_put32(disk.bytes + i, i * 2654435761u | 1);
}

static void test_simple_replies(void **state)
{
	_cleanup_(freep) char *data = malloc(DISK_BYTES);
	static const uint32_t lengths[] = { 512, 4096, 65536, 300 << 10, 2 << 20, 6 << 20 };

	fill_disk();
	server_start(2, "");
	int fd = enter(false);
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		assert_int_equal(ask(fd, NBD_CMD_READ, 0, 1 << 20, lengths[i]), 0);
		get(fd, data, lengths[i]);
		assert_memory_equal(data, disk.bytes + (1 << 20), lengths[i]);
	}
	/* several at once, the long ones among them streamed */
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++)
		request(fd, NBD_CMD_READ, 0, i * 512, lengths[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		uint8_t wire[NBD_SIMPLE_REPLY_BYTES];
		get(fd, wire, sizeof(wire));
		uint64_t off = nbd_get64(wire + 8) ^ 0x5555;
		assert_true(off / 512 < ARRAY_SIZE(lengths));
		get(fd, data, lengths[off / 512]);
		assert_memory_equal(data, disk.bytes + off, lengths[off / 512]);
	}
	request(fd, NBD_CMD_DISC, 0, 0, 0);
	assert_true(at_end(fd));
	close(fd);
	server_stop();
}

static void test_structured_replies(void **state)
{
	_cleanup_(freep) char *data = malloc(DISK_BYTES);
	unsigned holes = 0;
	uint8_t wire[64];

	fill_disk();
	memset(disk.bytes + (1 << 20), 0, 1 << 20);
	server_start(1, "");
	int fd = enter(true);
	request(fd, NBD_CMD_READ, 0, 0, 7 << 20);
	assert_int_equal(chunks(fd, 0, data, 7 << 20, &holes), 0);
	assert_memory_equal(data, disk.bytes, 7 << 20);
	assert_true(holes > 0);
	request(fd, NBD_CMD_READ, NBD_CMD_FLAG_DF, 1 << 20, 1 << 20);
	holes = 0;
	assert_int_equal(chunks(fd, 1 << 20, data, 1 << 20, &holes), 0);
	assert_int_equal(holes, 0);
	request(fd, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 4 << 20);
	assert_int_equal(chunks(fd, 0, data, 4 << 20, &holes), 75); /* EOVERFLOW */
	/* an error within a long read */
	disk.fail_at = 1 << 20;
	request(fd, NBD_CMD_READ, 0, 0, 4 << 20);
	assert_int_equal(chunks(fd, 0, data, 4 << 20, &holes), 5);
	request(fd, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 2 << 20);
	assert_int_equal(chunks(fd, 0, data, 2 << 20, &holes), 5);
	disk.fail_at = UINT64_MAX;
	/* block status: two extents, and one when one is asked for */
	request(fd, NBD_CMD_BLOCK_STATUS, 0, DISK_BYTES / 2 - 4096, 8192);
	get(fd, wire, NBD_CHUNK_BYTES + 4 + 16);
	assert_int_equal(nbd_get32(wire + 24), 4096);
	assert_int_equal(nbd_get32(wire + 28), 0);
	assert_int_equal(nbd_get32(wire + 36), NBD_STATE_HOLE | NBD_STATE_ZERO);
	request(fd, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, DISK_BYTES / 2 - 4096, 8192);
	get(fd, wire, NBD_CHUNK_BYTES + 4 + 8);
	assert_int_equal(nbd_get32(wire + 24), 4096);
	close(fd);
	server_stop();
}

static void test_writes(void **state)
{
	_cleanup_(freep) char *data = malloc(DISK_BYTES);

	memset(data, 0x5a, DISK_BYTES);
	memset(disk.bytes, 0, DISK_BYTES);
	server_start(1, "");
	int fd = enter(false);
	request(fd, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 512, 6 << 20);
	put(fd, data, 6 << 20);
	assert_int_equal(simple(fd), 0);
	assert_memory_equal(disk.bytes + 512, data, 6 << 20);
	assert_int_equal(disk.bytes[511] | disk.bytes[512 + (6 << 20)], 0);
	assert_int_equal(disk.fua, 24);
	assert_int_equal(ask(fd, NBD_CMD_FLUSH, 0, 0, 0), 0);
	assert_int_equal(ask(fd, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 0, 4096), 0);
	assert_int_equal(disk.flushes, 2); /* a TRIM with FUA is flushed behind */
	assert_int_equal(ask(fd, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, 4096, 4096), 0);
	assert_int_equal(disk.bytes[4096], 0);
	/* one part of a write fails */
	disk.fail_at = 3 << 20;
	request(fd, NBD_CMD_WRITE, 0, 0, 4 << 20);
	put(fd, data, 4 << 20);
	assert_int_equal(simple(fd), 5);
	close(fd);
	server_stop();
}

static void test_refusals(void **state)
{
	_cleanup_(freep) char *data = calloc(1, 1 << 20);
	int fd;

	server_start(1, "");
	fd = enter(false);
	assert_int_equal(ask(fd, NBD_CMD_READ, 0, 1, 512), 22);
	assert_int_equal(ask(fd, NBD_CMD_READ, 0, 0, 0), 22);
	assert_int_equal(ask(fd, NBD_CMD_READ, 0, DISK_BYTES, 512), 22);
	assert_int_equal(ask(fd, NBD_CMD_READ, 0, UINT64_MAX - 511, 1024), 22);
	assert_int_equal(ask(fd, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 512), 22); /* not negotiated */
	assert_int_equal(ask(fd, NBD_CMD_TRIM, 0, DISK_BYTES - 512, 1024), 22);
	assert_int_equal(ask(fd, NBD_CMD_WRITE_ZEROES, 0, DISK_BYTES - 512, 1024), 28);
	assert_int_equal(ask(fd, NBD_CMD_CACHE, 0, 0, 512), 22);
	assert_int_equal(ask(fd, NBD_CMD_BLOCK_STATUS, 0, 0, 512), 22);
	assert_int_equal(ask(fd, 99, 0, 0, 512), 22);
	assert_int_equal(ask(fd, NBD_CMD_FLUSH, 0, 512, 0), 22);
	assert_int_equal(ask(fd, NBD_CMD_READ, 0x80, 0, 512), 22);
	/* a refused write's data is read over */
	request(fd, NBD_CMD_WRITE, 0, DISK_BYTES - 512, 1 << 20);
	put(fd, data, 1 << 20);
	assert_int_equal(simple(fd), 28);
	assert_int_equal(ask(fd, NBD_CMD_FLUSH, 0, 0, 0), 0);
	request(fd, NBD_CMD_WRITE, 0, 0, NBD_PAYLOAD_MAX + 512);
	assert_true(at_end(fd));
	close(fd);
	fd = enter(false);
	put(fd, data, NBD_REQUEST_BYTES);
	assert_true(at_end(fd));
	close(fd);
	server_stop();

	server_start(1, ",read-only=on");
	fd = enter(false);
	assert_int_equal(ask(fd, NBD_CMD_WRITE_ZEROES, 0, 0, 512), 1);
	assert_int_equal(ask(fd, NBD_CMD_TRIM, 0, 0, 512), 1);
	request(fd, NBD_CMD_WRITE, 0, 0, 512);
	put(fd, data, 512);
	assert_int_equal(simple(fd), 1);
	/* a read that fails within a streamed reply ends the connection */
	disk.fail_at = 5 << 20;
	assert_int_equal(ask(fd, NBD_CMD_READ, 0, 0, 6 << 20), 0);
	while (recv(fd, data, 1 << 20, 0) > 0)
		;
	assert_true(at_end(fd));
	close(fd);
	server_stop();
}

static void wait_held(unsigned n)
{
	for (int i = 0; i < 5000 && disk.held < n; i++)
		usleep(1000);
	assert_true(disk.held >= n);
}

static void test_client_goes_mid_request(void **state)
{
	_cleanup_(freep) char *data = calloc(1, 4 << 20);

	server_start(1, "");
	for (unsigned i = 0; i < 3; i++) {
		disk.hold = true;
		int fd = enter(i > 0);
		request(fd, NBD_CMD_READ, 0, 0, 3 << 20);
		request(fd, NBD_CMD_WRITE, 0, 0, 3 << 20);
		put(fd, data, i ? 1 << 20 : 0); /* and never the rest */
		wait_held(1);
		close(fd);
		usleep(20000);
		assert_true(disk.held > 0); /* its memory is still there: the disk writes to it now */
		blk_queue_call(disk.queue, disk_release, NULL);
	}
	/* and the server's end waits for what is inside */
	disk.hold = true;
	int fd = enter(false);
	request(fd, NBD_CMD_READ, 0, 0, 4096);
	wait_held(1);
	loop_stop(server.loop);
	usleep(20000);
	blk_queue_call(disk.queue, disk_release, NULL);
	server_stop();
	get(fd, data, NBD_SIMPLE_REPLY_BYTES + 4096); /* it was answered */
	assert_true(at_end(fd));
	close(fd);
}

static void test_exclusive(void **state)
{
	server_start(1, ",exclusive=on");
	disk.hold = true;
	int old = enter(false), fd;
	request(old, NBD_CMD_WRITE_ZEROES, 0, 0, 512);
	wait_held(1);
	fd = knock(false);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	assert_int_equal(poll(&p, 1, 100), 0); /* not while a write of the old one is inside */
	blk_queue_call(disk.queue, disk_release, NULL);
	assert_int_equal(get_option_reply(fd), NBD_REP_ACK);
	assert_int_equal(simple(old), 0);
	assert_true(at_end(old));
	assert_int_equal(ask(fd, NBD_CMD_FLUSH, 0, 0, 0), 0);
	close(old);
	close(fd);
	server_stop();
}

static void test_limits(void **state)
{
	server_start(1, ",connections=2,handshake-ms=200");
	int a = dial(), b = enter(false), c = dial();
	assert_true(at_end(c)); /* too many */
	usleep(400000);
	char greeting[18];
	get(a, greeting, sizeof(greeting));
	assert_true(at_end(a)); /* too slow */
	assert_int_equal(ask(b, NBD_CMD_FLUSH, 0, 0, 0), 0);
	close(a);
	close(b);
	close(c);
	server_stop();
}

/* ---- server and client against each other ---- */

struct model {
	struct blk_stack *stack;
	struct blk_queue *queue;
	char *bytes, *data;
	unsigned seed, left, inflight;
	_Atomic bool done;
	bool lossy;               /* DISCARD leaves anything */
	struct op {
		struct blk_req req;
		struct iovec iov[3];
		struct model *model;
		unsigned index;
	} ops[16];
};

#define REGION (DISK_BYTES / 32) /* an operation's own part of its queue's half */

static void model_next(struct op *o);

static void model_done(struct blk_req *r)
{
	struct op *o = r->ctx;
	struct model *m = o->model;

	assert_int_equal(r->result, 0);
	char *want = m->bytes + r->off_bytes;
	if (r->op == BLK_READ) {
		char *got = o->iov[0].iov_base;
		assert_memory_equal(got, want, r->len_bytes);
	} else if (r->op == BLK_WRITE) {
		memcpy(want, o->iov[0].iov_base, r->len_bytes);
	} else if (r->op == BLK_WRITE_ZEROES || r->op == BLK_DISCARD) {
		memset(want, 0, r->len_bytes);
	}
	m->inflight--;
	model_next(o);
}

static void model_next(struct op *o)
{
	struct model *m = o->model;
	uint64_t base = (blk_queue_index(m->queue) * 16 + o->index) * REGION;
	char *data = m->data + o->index * REGION;

	if (!m->left) {
		m->done = !m->inflight;
		return;
	}
	m->left--;
	m->inflight++;
	uint64_t at = (uint64_t)(rand_r(&m->seed) % (REGION / 512)) * 512;
	uint64_t most = REGION - at, len = 512 + (uint64_t)(rand_r(&m->seed) % (rand_r(&m->seed) % 4 ? 16 : REGION / 512)) * 512;
	len = MIN_OF(len, most);
	enum blk_op op = (enum blk_op[]){ BLK_READ, BLK_READ, BLK_WRITE, BLK_WRITE, BLK_WRITE_ZEROES, BLK_FLUSH, BLK_DISCARD }[rand_r(&m->seed) % 7];
	o->req = (struct blk_req){ .op = op, .queue = m->queue, .done = model_done, .ctx = o };
	if (op != BLK_FLUSH) {
		o->req.off_bytes = base + at;
		o->req.len_bytes = len;
	}
	o->req.flags = (op == BLK_WRITE || op == BLK_WRITE_ZEROES) && rand_r(&m->seed) % 2 ? BLK_FUA : 0;
	if (op == BLK_READ || op == BLK_WRITE) {
		uint64_t cut = len / 1024 * 512;
		o->iov[0] = (struct iovec){ data, cut };
		o->iov[1] = (struct iovec){ data + cut, len - cut };
		o->req.iov = cut ? o->iov : o->iov + 1;
		o->req.iov_count = cut ? 2 : 1;
		for (uint64_t i = 0; op == BLK_WRITE && i < len; i += 4)
			nbd_put32(data + i, (uint32_t)rand_r(&m->seed));
	}
	blk_stack_submit(m->stack, &o->req);
}

static void model_start(void *ctx)
{
	struct model *m = ctx;

	for (unsigned i = 0; i < ARRAY_SIZE(m->ops); i++) {
		m->ops[i].model = m;
		m->ops[i].index = i;
		model_next(&m->ops[i]);
	}
}

static void model_run(const char *options)
{
	const char *given = getenv("MALLEE_MODEL_OPS"), *seed = getenv("MALLEE_MODEL_SEED");
	unsigned start = seed ? (unsigned)atoi(seed) : (unsigned)getpid();
	struct model *models = calloc(2, sizeof(*models));
	struct blk_stack *stack;
	struct error e = { 0 };
	char back[256];

	print_message("seed %u\n", start);
	snprintf(back, sizeof(back), "nbd:socket=%s%s", server.path, options);
	struct blk_stack_settings settings = { drivers, back, NULL, 2, BLK_IO_THREADS };
	assert_int_equal(blk_stack_open(&settings, &stack, &e), 0);
	assert_int_equal(blk_stack_start(stack, &e), 0);
	assert_true(blk_stack_info(stack)->size_bytes == DISK_BYTES);
	char *bytes = malloc(DISK_BYTES);
	memcpy(bytes, disk.bytes, DISK_BYTES);
	for (unsigned i = 0; i < 2; i++) {
		models[i] = (struct model){ .stack = stack, .queue = blk_stack_queue(stack, i), .bytes = bytes, .data = malloc(DISK_BYTES / 2),
					    .seed = start + i, .left = given ? (unsigned)atoi(given) : 1500 };
		blk_queue_call(models[i].queue, model_start, &models[i]);
	}
	for (unsigned i = 0; i < 2; i++) {
		while (!models[i].done)
			usleep(1000);
		free(models[i].data);
	}
	assert_memory_equal(bytes, disk.bytes, DISK_BYTES);
	assert_int_equal(blk_stack_close(stack, &e), 0);
	free(bytes);
	free(models);
}

static void test_model(void **state)
{
	fill_disk();
	server_start(2, "");
	model_run("");
	model_run(",connections=3");
	server_stop();
}

/* Connections are broken again and again: every request is done all the same. */
static void *break_connections(void *arg)
{
	while (!*(_Atomic bool *)arg) {
		usleep(20000);
		close(enter(false)); /* exclusive: ends the one before */
	}
	return NULL;
}

static void test_model_with_losses(void **state)
{
	_Atomic bool stop = false;
	pthread_t thread;

	fill_disk();
	server_start(1, ",exclusive=on");
	assert_int_equal(pthread_create(&thread, NULL, break_connections, &stop), 0);
	model_run(",reconnect-ms=10");
	stop = true;
	pthread_join(thread, NULL);
	server_stop();
}

static int make_disk(void **state)
{
	disk.bytes = malloc(DISK_BYTES);
	return !disk.bytes;
}

static int free_disk(void **state)
{
	free(disk.bytes);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_simple_replies), cmocka_unit_test(test_structured_replies), cmocka_unit_test(test_writes),
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_client_goes_mid_request), cmocka_unit_test(test_exclusive),
		cmocka_unit_test(test_limits), cmocka_unit_test(test_model), cmocka_unit_test(test_model_with_losses),
	};

	return cmocka_run_group_tests(tests, make_disk, free_disk);
}
