/* SPDX-License-Identifier: Apache-2.0 */
/* The NBD server with a client that is spelt out byte by byte. */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "block/front/nbd_testkit.h"

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

static uint32_t ask_flush(int fd)
{
	return ask(fd, NBD_CMD_FLUSH, 0, 0, 0);
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

/* A file in memory with the disk's bytes. */
static int twin(void)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);

	assert_int_equal(write(fd, disk.bytes, DISK_BYTES), DISK_BYTES);
	return fd;
}

/* ---- tests ---- */

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

/* What is lent is sent from where it lies, in order with what is not, whatever the reply's form. */
static void test_lent(void **state)
{
	static const uint32_t lengths[] = { 512, 65536, 300 << 10, 2 << 20, 6 << 20 };
	_cleanup_(freep) char *data = malloc(DISK_BYTES);
	unsigned holes = 0;

	fill_disk();
	server_start(1, "");
	disk.lends_off = 0;
	disk.lends = twin();
	disk.lent = 0;
	for (int structured = 0; structured < 2; structured++) {
		int fd = enter(structured);
		for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
			uint16_t whole = structured && lengths[i] <= 2 << 20 && i % 2 ? NBD_CMD_FLAG_DF : 0;
			request(fd, NBD_CMD_READ, whole, 4096 * i + 512, lengths[i]);
			usleep(20000); /* the socket is full meanwhile */
			assert_int_equal(structured ? chunks(fd, 4096 * i + 512, data, lengths[i], &holes) : simple(fd), 0);
			if (!structured)
				get(fd, data, lengths[i]);
			assert_memory_equal(data, disk.bytes + 4096 * i + 512, lengths[i]);
			assert_int_equal(ask_flush(fd), 0); /* which is not data */
		}
		close(fd);
	}
	assert_true(disk.lent >= 2 * (1 + 1 + 2 + 8 + 24));
	server_stop();
	close(disk.lends);
}

/* A file that the kernel cannot send from (this process's memory) is read; then nothing is borrowed any more. */
static void test_loan_that_cannot_be_sent(void **state)
{
	_cleanup_(freep) char *data = malloc(DISK_BYTES);

	fill_disk();
	server_start(1, "");
	disk.lends = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	assert_true(disk.lends >= 0);
	disk.lends_off = (uintptr_t)disk.bytes;
	disk.lent = 0;
	int fd = enter(false);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ask(fd, NBD_CMD_READ, 0, 0, 200 << 10), 0);
		get(fd, data, 200 << 10);
		assert_memory_equal(data, disk.bytes, 200 << 10);
		assert_int_equal(disk.lent, 1);
	}
	close(fd);
	server_stop();
	close(disk.lends);
}

/* Its end was cut off after it was lent: no byte of another's is sent, and the server goes on. */
static void test_loan_that_was_cut(void **state)
{
	char byte[4096];
	size_t got = 0;

	fill_disk();
	server_start(1, "");
	disk.lends_off = 0;
	int cut = disk.lends = twin();
	assert_int_equal(ftruncate(cut, 100 << 10), 0);
	int fd = enter(false);
	assert_int_equal(ask(fd, NBD_CMD_READ, 0, 0, 200 << 10), 0);
	for (ssize_t n; (n = recv(fd, byte, sizeof(byte), 0)) > 0;) {
		assert_memory_equal(byte, disk.bytes + got, n);
		got += (size_t)n;
	}
	assert_true(got <= 100 << 10);
	close(fd);
	disk.lends = -1;
	fd = enter(false);
	assert_int_equal(ask_flush(fd), 0);
	close(fd);
	server_stop();
	close(cut);
}

/* A client that goes while it is sent to, and a socket that was closed, raise no signal. */
static void test_lent_to_nobody(void **state)
{
	fill_disk();
	server_start(1, "");
	disk.lends_off = 0;
	disk.lends = twin();
	for (int i = 0; i < 20; i++) {
		int fd = enter(i % 2);
		for (int k = 0; k < 4; k++)
			request(fd, NBD_CMD_READ, 0, (uint64_t)k << 20, 2 << 20);
		usleep((unsigned)(i * 500));
		close(fd);
	}
	int fd = enter(false);
	assert_int_equal(ask_flush(fd), 0);
	close(fd);
	server_stop();
	close(disk.lends);
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
	server_start(1, ",connections=2,handshake-ms=2000");
	int a = dial(), b = enter(false), c = dial();
	assert_true(at_end(c)); /* too many */
	char greeting[18];
	get(a, greeting, sizeof(greeting));
	assert_true(at_end(a)); /* too slow */
	assert_int_equal(ask(b, NBD_CMD_FLUSH, 0, 0, 0), 0);
	close(a);
	close(b);
	close(c);
	server_stop();
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN); /* as every program with a server does: sendfile() has no flag for it */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_simple_replies), cmocka_unit_test(test_structured_replies), cmocka_unit_test(test_writes),
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_client_goes_mid_request), cmocka_unit_test(test_exclusive),
		cmocka_unit_test(test_limits), cmocka_unit_test(test_lent), cmocka_unit_test(test_loan_that_cannot_be_sent),
		cmocka_unit_test(test_loan_that_was_cut), cmocka_unit_test(test_lent_to_nobody),
	};

	return cmocka_run_group_tests(tests, make_disk, free_disk);
}
