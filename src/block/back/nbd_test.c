/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD client with a server that knows little: old handshake, simple replies, flags as told. What it cannot do the client does
 * for it. (Against our own server, over losses and TLS: front/nbd_model_test.c. What a server may send: the fuzz target nbd_client.)
 */
#include <errno.h>
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

#include "block/back/back.h"
#include "block/back/nbd_priv.h"
#include "block/back/testkit.h"
#include "block/core/nbd_proto.h"

#define DISK_BYTES (4u << 20)

static const struct blk_layer_ops *const drivers[] = { &blk_nbd_ops, NULL };

static struct {
	int listen_fd;
	char path[64];
	pthread_t thread;
	char bytes[DISK_BYTES];
	/* told before it starts */
	uint16_t flags;
	unsigned shut_down_after;  /* requests of a connection; then ESHUTDOWN; 0: never */
	uint64_t later_bytes;      /* the export's length from the second connection on */
	bool garbage_first;        /* the first connection's first reply is nonsense */
	/* seen */
	_Atomic unsigned count[8], fua, no_hole, longest, connections;
} fake;

static bool get(int fd, void *data, size_t len)
{
	return recv(fd, data, len, MSG_WAITALL) == (ssize_t)len;
}

static void put(int fd, const void *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
		if (n <= 0)
			return;
		data = (const char *)data + n;
		len -= (size_t)n;
	}
}

/* Options are refused until EXPORT_NAME comes. */
static bool shake(int fd)
{
	uint8_t greeting[18], flags[4], header[NBD_OPTION_BYTES], data[4096], reply[NBD_OPTION_REPLY_BYTES], info[10];
	uint32_t option, length;

	nbd_put64(greeting, NBD_MAGIC_INIT);
	nbd_put64(greeting + 8, NBD_MAGIC_OPTION);
	nbd_put16(greeting + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	put(fd, greeting, sizeof(greeting));
	if (!get(fd, flags, sizeof(flags)))
		return false;
	for (;;) {
		if (!get(fd, header, sizeof(header)) || nbd_option_decode(header, &option, &length) || length > sizeof(data) ||
		    (length && !get(fd, data, length)))
			return false;
		if (option == NBD_OPT_EXPORT_NAME)
			break;
		nbd_option_reply_encode(&(struct nbd_option_reply){ option, NBD_REP_ERR_UNSUP, 0 }, reply);
		put(fd, reply, sizeof(reply));
	}
	nbd_put64(info, fake.connections > 1 ? fake.later_bytes : DISK_BYTES);
	nbd_put16(info + 8, fake.flags | NBD_HAS_FLAGS);
	put(fd, info, sizeof(info));
	return true;
}

static void serve(int fd, bool garbage)
{
	uint8_t wire[NBD_REQUEST_BYTES], out[NBD_SIMPLE_REPLY_BYTES];
	struct nbd_request rq;
	unsigned left = fake.shut_down_after;

	while (get(fd, wire, sizeof(wire)) && !nbd_request_decode(wire, &rq) && rq.command != NBD_CMD_DISC) {
		uint32_t error = left && !--left ? 108 : 0;
		fake.count[rq.command & 7]++;
		fake.fua += rq.flags & NBD_CMD_FLAG_FUA ? 1 : 0;
		fake.no_hole += rq.flags & NBD_CMD_FLAG_NO_HOLE ? 1 : 0;
		if (rq.length > fake.longest)
			fake.longest = rq.length;
		if (rq.command == NBD_CMD_WRITE && !get(fd, fake.bytes + rq.offset, rq.length))
			return;
		if (rq.command == NBD_CMD_WRITE_ZEROES)
			memset(fake.bytes + rq.offset, 0, rq.length);
		nbd_simple_reply_encode(&(struct nbd_simple_reply){ error, rq.cookie + garbage }, out);
		put(fd, out, sizeof(out));
		if (rq.command == NBD_CMD_READ && !error)
			put(fd, fake.bytes + rq.offset, rq.length);
	}
}

static void *run(void *arg)
{
	int fd;

	while ((fd = accept(fake.listen_fd, NULL, NULL)) >= 0) {
		bool garbage = fake.garbage_first && fake.connections == 0;
		fake.connections++;
		if (shake(fd))
			serve(fd, garbage);
		close(fd);
	}
	return NULL;
}

static struct blk_stack *begin(uint16_t flags, const char *more)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char back[128];

	snprintf(fake.path, sizeof(fake.path), "/tmp/mallee-nbd-fake-%d", (int)getpid());
	strcpy(addr.sun_path, fake.path);
	unlink(fake.path);
	for (unsigned i = 0; i < 8; i++)
		fake.count[i] = 0;
	fake.fua = fake.no_hole = fake.longest = fake.connections = 0;
	fake.flags = flags;
	fake.later_bytes = DISK_BYTES;
	memset(fake.bytes, 0x11, DISK_BYTES);
	fake.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fake.listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fake.listen_fd, 5), 0);
	assert_int_equal(pthread_create(&fake.thread, NULL, run, NULL), 0);
	snprintf(back, sizeof(back), "nbd:socket=%s,reconnect-ms=10%s", fake.path, more);
	return kit_open(drivers, back, BLK_IO_THREADS, 1);
}

static void stop_server(void)
{
	shutdown(fake.listen_fd, SHUT_RDWR);
	close(fake.listen_fd);
	unlink(fake.path);
}

static void finish(struct blk_stack *s)
{
	struct error e = { 0 };

	assert_int_equal(blk_stack_close(s, &e), 0);
	stop_server();
	pthread_join(fake.thread, NULL);
}

static void test_server_that_knows_nothing(void **state)
{
	struct blk_stack *s = begin(0, ",connections=4");
	const struct blk_info *info = blk_stack_info(s);
	static char data[DISK_BYTES];

	assert_true(info->size_bytes == DISK_BYTES && !info->volatile_cache && !info->discard_bytes && !info->fast_zeroes && !info->read_only);
	assert_int_equal(fake.connections, 1); /* without CAN_MULTI_CONN */
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0);
	assert_int_equal(kit_io(s, BLK_DISCARD, 0, 0, NULL, 4096), 0);
	memset(data, 7, sizeof(data));
	assert_int_equal(kit_io(s, BLK_WRITE, BLK_FUA, 512, data, 8192), 0);
	assert_int_equal(fake.count[NBD_CMD_FLUSH] + fake.count[NBD_CMD_TRIM] + fake.fua, 0);
	assert_true(kit_all(fake.bytes + 512, 8192, 7));
	/* zeroes are written, a mebibyte at a time */
	assert_int_equal(kit_io(s, BLK_WRITE_ZEROES, 0, 0, NULL, 3 << 20), 0);
	assert_int_equal(fake.count[NBD_CMD_WRITE], 1 + 3);
	assert_true(kit_all(fake.bytes, 3 << 20, 0));
	assert_true(kit_all(fake.bytes + (3 << 20), 1 << 20, 0x11));
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, DISK_BYTES), 0);
	assert_memory_equal(data, fake.bytes, DISK_BYTES);
	finish(s);
}

static void test_fua_by_flush(void **state)
{
	struct blk_stack *s = begin(NBD_SEND_FLUSH | NBD_SEND_WRITE_ZEROES | NBD_SEND_TRIM, "");
	char data[512] = { 1 };

	assert_true(blk_stack_info(s)->volatile_cache && blk_stack_info(s)->discard_bytes);
	assert_int_equal(kit_io(s, BLK_WRITE, BLK_FUA, 0, data, 512), 0);
	assert_int_equal(fake.count[NBD_CMD_FLUSH], 1);
	assert_int_equal(kit_io(s, BLK_WRITE_ZEROES, BLK_FUA, 0, NULL, 4096), 0);
	assert_int_equal(fake.count[NBD_CMD_FLUSH], 2);
	assert_int_equal(fake.no_hole, 1);
	assert_int_equal(kit_io(s, BLK_WRITE_ZEROES, BLK_MAY_UNMAP, 0, NULL, 4096), 0);
	assert_int_equal(fake.no_hole, 1);
	assert_int_equal(kit_io(s, BLK_DISCARD, 0, 0, NULL, 4096), 0);
	assert_int_equal(fake.count[NBD_CMD_TRIM], 1);
	assert_int_equal(fake.fua, 0);
	finish(s);
	s = begin(NBD_SEND_FLUSH | NBD_SEND_FUA, "");
	assert_int_equal(kit_io(s, BLK_WRITE, BLK_FUA, 0, data, 512), 0);
	assert_true(fake.fua == 1 && fake.count[NBD_CMD_FLUSH] == 0);
	finish(s);
}

static void test_server_that_shuts_down(void **state)
{
	char data[512];

	fake.shut_down_after = 3;
	struct blk_stack *s = begin(NBD_SEND_FLUSH, "");
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(kit_io(s, BLK_READ, 0, i * 512, data, 512), 0);
	assert_true(fake.connections >= 4);
	fake.shut_down_after = 0;
	finish(s);
}

static uint64_t counter(struct blk_stack *s, const char *name)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	char key[64];

	blk_stack_stats_json(s, NULL, 0, &out);
	snprintf(key, sizeof(key), "\"%s\":", name);
	const char *at = strstr(out.data, key);
	assert_non_null(at);
	return strtoull(at + strlen(key), NULL, 10);
}

static void test_server_whose_export_has_grown(void **state)
{
	char data[512];

	fake.shut_down_after = 2;
	struct blk_stack *s = begin(NBD_SEND_FLUSH, "");
	fake.later_bytes = DISK_BYTES + 512;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(kit_io(s, BLK_READ, 0, i * 512, data, 512), 0);
	assert_true(fake.connections > 1);
	assert_int_equal(blk_stack_info(s)->size_bytes, DISK_BYTES);
	assert_int_equal(counter(s, "other_exports"), 0);
	fake.shut_down_after = 0;
	finish(s);
}

static void test_server_whose_export_is_shorter(void **state)
{
	char data[512];
	struct error e = { 0 };

	fake.shut_down_after = 1;
	struct blk_stack *s = begin(NBD_SEND_FLUSH, ",reconnect=1");
	fake.later_bytes = DISK_BYTES - 512;
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, 512), -EIO);
	assert_true(counter(s, "other_exports") > 0);
	assert_int_equal(blk_stack_close(s, &e), -EIO);
	stop_server();
	pthread_join(fake.thread, NULL);
	fake.shut_down_after = 0;
}

/* A server that says block sizes, out of memory. */
struct said {
	uint8_t bytes[256];
	size_t length, at;
};

static int hear(void *ctx, void *data, size_t len)
{
	struct said *s = ctx;

	if (len > s->length - s->at)
		return -ECONNRESET;
	memcpy(data, s->bytes + s->at, len);
	s->at += len;
	return 0;
}

static int ignore(void *ctx, const void *data, size_t len)
{
	return 0;
}

static void say_reply(struct said *s, uint32_t option, uint32_t type, const uint8_t *data, uint32_t len)
{
	nbd_option_reply_encode(&(struct nbd_option_reply){ option, type, len }, s->bytes + s->length);
	memcpy(s->bytes + s->length + NBD_OPTION_REPLY_BYTES, data, len);
	s->length += NBD_OPTION_REPLY_BYTES + len;
}

static int negotiate_sizes(uint32_t minimum, uint32_t maximum)
{
	struct said s = { .length = 18 };
	struct nbd_negotiation n = { .read = hear, .write = ignore, .ctx = &s, .export_name = "" };
	uint8_t export[12] = { 0 }, sizes[14] = { 0 };
	struct error e = { 0 };

	nbd_put64(s.bytes, NBD_MAGIC_INIT);
	nbd_put64(s.bytes + 8, NBD_MAGIC_OPTION);
	nbd_put16(s.bytes + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	nbd_put16(export, NBD_INFO_EXPORT);
	nbd_put64(export + 2, DISK_BYTES);
	nbd_put16(export + 10, NBD_HAS_FLAGS);
	nbd_put16(sizes, NBD_INFO_BLOCK_SIZE);
	nbd_put32(sizes + 2, minimum);
	nbd_put32(sizes + 6, minimum);
	nbd_put32(sizes + 10, maximum);
	say_reply(&s, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_UNSUP, NULL, 0);
	say_reply(&s, NBD_OPT_GO, NBD_REP_INFO, export, sizeof(export));
	say_reply(&s, NBD_OPT_GO, NBD_REP_INFO, sizes, sizeof(sizes));
	say_reply(&s, NBD_OPT_GO, NBD_REP_ACK, NULL, 0);
	return nbd_negotiate(&n, &e);
}

/* A server that takes less than a block at a time cannot be written to. */
static void test_block_sizes(void **state)
{
	assert_int_equal(negotiate_sizes(1, 512), 0);
	assert_true(negotiate_sizes(1, 256) < 0);
	assert_int_equal(negotiate_sizes(1024, 4096), 0);
	assert_true(negotiate_sizes(1024, 2048) < 0);
}

static void test_nonsense_drops_the_connection(void **state)
{
	char data[512] = { 0 };

	fake.garbage_first = true;
	struct blk_stack *s = begin(NBD_SEND_FLUSH, "");
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, 512), 0);
	assert_true(kit_all(data, 512, 0x11));
	assert_int_equal(fake.connections, 2);
	fake.garbage_first = false;
	finish(s);
}

static void test_giving_up(void **state)
{
	char data[512];
	struct error e = { 0 };

	fake.shut_down_after = 1;
	struct blk_stack *s = begin(NBD_SEND_FLUSH, ",reconnect=0");
	stop_server(); /* there is no second connection */
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, 512), -EIO);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, data, 512), -EIO);
	assert_int_equal(blk_stack_close(s, &e), -EIO); /* its flush */
	pthread_join(fake.thread, NULL);
	fake.shut_down_after = 0;
}

static void test_nobody_there(void **state)
{
	struct blk_stack_settings settings = { drivers, "nbd:socket=/nonexistent/socket", NULL, 1, BLK_IO_THREADS };
	struct blk_stack *s;
	struct error e = { 0 };

	assert_true(blk_stack_open(&settings, &s, &e) < 0);
	assert_true(error_is_set(&e));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_server_that_knows_nothing), cmocka_unit_test(test_fua_by_flush),
		cmocka_unit_test(test_server_that_shuts_down),    cmocka_unit_test(test_nonsense_drops_the_connection),
		cmocka_unit_test(test_server_whose_export_has_grown), cmocka_unit_test(test_server_whose_export_is_shorter),
		cmocka_unit_test(test_block_sizes),
		cmocka_unit_test(test_giving_up),                 cmocka_unit_test(test_nobody_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
