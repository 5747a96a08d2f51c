/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The streaming writer and reader of TestDFSIO on HDFS, without Java and without a cluster: what a data node does to its disk.
 *
 *     stream write PATH BYTES      stream read PATH BYTES
 *
 * Data come in blocks of 64 MiB, in packets of 64 KiB; each 512 bytes have a CRC-32, and a block's checksums are a second stream
 * (a data node's .meta file), which lies here behind the block. All I/O is buffered; the writer flushes once at its end, within its
 * time. The reader verifies every chunk. BYTES are of data, whole packets. The last line is JSON; exit code 1: says why.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "crc32.h"

#define BLOCK_BYTES (64ull << 20)
#define PACKET_BYTES 65536u
#define CHUNK_BYTES 512u
#define CHUNKS (PACKET_BYTES / CHUNK_BYTES)
#define SUMS_BYTES (CHUNKS * 4)
#define META_BYTES (BLOCK_BYTES / CHUNK_BYTES * 4)

struct stream {
	const char *path;
	int fd;
	uint64_t bytes;
	struct crc32_tables crc;
	uint8_t data[PACKET_BYTES];
	uint8_t sums[SUMS_BYTES];
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int failed(const struct stream *s, const char *what, uint64_t off)
{
	fprintf(stderr, "stream: %s at %llu of %s: %s\n", what, (unsigned long long)off, s->path, strerror(errno));
	return -1;
}

static uint64_t data_place(uint64_t at)
{
	return at / BLOCK_BYTES * (BLOCK_BYTES + META_BYTES) + at % BLOCK_BYTES;
}

static uint64_t sums_place(uint64_t at)
{
	return at / BLOCK_BYTES * (BLOCK_BYTES + META_BYTES) + BLOCK_BYTES + at % BLOCK_BYTES / CHUNK_BYTES * 4;
}

static int put(const struct stream *s, const void *from, size_t len, uint64_t off)
{
	ssize_t n = pwrite(s->fd, from, len, (off_t)off);

	if (n >= 0 && (size_t)n != len)
		errno = ENOSPC;
	return n == (ssize_t)len ? 0 : failed(s, "cannot write", off);
}

static int get(const struct stream *s, void *to, size_t len, uint64_t off)
{
	ssize_t n = pread(s->fd, to, len, (off_t)off);

	if (n >= 0 && (size_t)n != len)
		errno = ENODATA;
	return n == (ssize_t)len ? 0 : failed(s, "cannot read", off);
}

static void sum_up(const struct stream *s, uint8_t sums[SUMS_BYTES])
{
	for (unsigned i = 0; i < CHUNKS; i++) {
		uint32_t crc = crc32_of(&s->crc, s->data + i * CHUNK_BYTES, CHUNK_BYTES);
		for (int byte = 0; byte < 4; byte++)
			sums[i * 4 + byte] = (uint8_t)(crc >> 8 * byte);
	}
}

static int write_packet(struct stream *s, uint64_t at)
{
	for (unsigned i = 0; i < CHUNKS; i++) { /* no two chunks alike: one in a wrong place is found */
		uint64_t place = at + i * CHUNK_BYTES;
		memcpy(s->data + i * CHUNK_BYTES, &place, sizeof(place));
	}
	sum_up(s, s->sums);
	return put(s, s->data, PACKET_BYTES, data_place(at)) || put(s, s->sums, SUMS_BYTES, sums_place(at)) ? -1 : 0;
}

static int read_packet(struct stream *s, uint64_t at)
{
	uint8_t sums[SUMS_BYTES];

	if (get(s, s->sums, SUMS_BYTES, sums_place(at)) || get(s, s->data, PACKET_BYTES, data_place(at)))
		return -1;
	sum_up(s, sums);
	for (unsigned i = 0; i < CHUNKS; i++) {
		uint64_t place;
		memcpy(&place, s->data + i * CHUNK_BYTES, sizeof(place));
		if (place != at + i * CHUNK_BYTES || memcmp(sums + i * 4, s->sums + i * 4, 4)) {
			errno = EBADMSG;
			return failed(s, "a chunk is not what was written (or nothing was)", data_place(at + i * CHUNK_BYTES));
		}
	}
	return 0;
}

static int run(struct stream *s, bool writes)
{
	double begin = now_s();

	for (uint64_t at = 0; at < s->bytes; at += PACKET_BYTES) {
		if (writes ? write_packet(s, at) : read_packet(s, at))
			return -1;
	}
	if (writes && fsync(s->fd))
		return failed(s, "cannot flush", s->bytes);
	double seconds = now_s() - begin;
	printf("{\"bytes\": %llu, \"seconds\": %.6f}\n", (unsigned long long)s->bytes, seconds);
	return 0;
}

int main(int argc, char **argv)
{
	static struct stream s;
	bool writes = argc > 1 && !strcmp(argv[1], "write");
	char *end = "?";

	if (argc == 4 && (writes || !strcmp(argv[1], "read")))
		s.bytes = strtoull(argv[3], &end, 10) / PACKET_BYTES * PACKET_BYTES;
	if (*end || !s.bytes) {
		fprintf(stderr, "usage: stream write|read PATH BYTES   (of data: at least %u)\n", PACKET_BYTES);
		return 2;
	}
	s.path = argv[2];
	s.fd = open(s.path, (writes ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (s.fd < 0)
		return failed(&s, "cannot begin", 0) ? 1 : 0;
	crc32_init(&s.crc);
	for (unsigned i = 0; i < PACKET_BYTES; i++)
		s.data[i] = (uint8_t)('0' + i % 50); /* TestDFSIO's */
	int r = run(&s, writes);
	close(s.fd);
	return r ? 1 : 0;
}
