/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asynchronous direct I/O: the kernel's own AIO on a disk opened with O_DIRECT, so many requests in flight, for so many seconds.
 *
 *     aio-load PATH --seconds S [--write] [--random] [--depth N] [--bs BYTES] [--span BYTES]
 *
 * Runs on the host and in the benchmark's guest alike. Writes are flushed once at the end, within the time. The last line is JSON.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MAX 1024u
#define ALIGN 4096u

struct load {
	const char *path;
	bool writes, random;
	unsigned depth;
	uint64_t block_bytes, span_bytes;
	double seconds;
	int fd;
	aio_context_t ctx;
	uint8_t *memory;
	struct iocb iocbs[DEPTH_MAX];
	uint64_t next, state, ops;
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int failed(const struct load *l, const char *what)
{
	fprintf(stderr, "aio-load: %s %s: %s\n", what, l->path, strerror(errno));
	return -1;
}

static uint64_t xorshift(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint64_t next_place(struct load *l)
{
	uint64_t blocks = l->span_bytes / l->block_bytes;

	return (l->random ? xorshift(&l->state) : l->next++) % blocks * l->block_bytes;
}

static int send_one(struct load *l, unsigned slot)
{
	struct iocb *one = &l->iocbs[slot];

	*one = (struct iocb){
		.aio_data = slot,
		.aio_lio_opcode = l->writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)l->fd,
		.aio_buf = (uintptr_t)(l->memory + slot * l->block_bytes),
		.aio_nbytes = l->block_bytes,
		.aio_offset = (int64_t)next_place(l),
	};
	return syscall(SYS_io_submit, l->ctx, 1L, &one) == 1 ? 0 : failed(l, "cannot submit to");
}

static int ended(struct load *l, const struct io_event *e)
{
	if (e->res == (int64_t)l->block_bytes) {
		l->ops++;
		return 0;
	}
	errno = e->res < 0 ? (int)-e->res : EIO;
	return failed(l, l->writes ? "cannot write" : "cannot read");
}

/* What has ended is replaced until the time is over; then the rest is waited for. */
static int run(struct load *l)
{
	struct io_event events[DEPTH_MAX];
	double begin = now_s();
	unsigned out = 0;

	for (; out < l->depth; out++) {
		if (send_one(l, out))
			return -1;
	}
	while (out) {
		long n = syscall(SYS_io_getevents, l->ctx, 1L, (long)l->depth, events, NULL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return failed(l, "cannot wait for");
		bool more = now_s() - begin < l->seconds;
		for (long i = 0; i < n; i++) {
			if (ended(l, &events[i]) || (more && send_one(l, (unsigned)events[i].data)))
				return -1;
			out -= !more;
		}
	}
	if (l->writes && fdatasync(l->fd))
		return failed(l, "cannot flush");
	printf("{\"bytes\": %llu, \"ops\": %llu, \"seconds\": %.6f}\n", (unsigned long long)(l->ops * l->block_bytes),
	       (unsigned long long)l->ops, now_s() - begin);
	return 0;
}

static int begin(struct load *l)
{
	l->fd = open(l->path, O_RDWR | O_DIRECT | O_CLOEXEC);
	off_t size = l->fd < 0 ? -1 : lseek(l->fd, 0, SEEK_END);
	if (size < 0)
		return failed(l, "cannot open");
	if (!l->span_bytes || l->span_bytes > (uint64_t)size)
		l->span_bytes = (uint64_t)size;
	if (l->span_bytes < l->block_bytes) {
		errno = ENOSPC;
		return failed(l, "not a block fits on");
	}
	l->memory = aligned_alloc(ALIGN, l->block_bytes * l->depth);
	if (!l->memory || syscall(SYS_io_setup, (long)l->depth, &l->ctx))
		return failed(l, "cannot prepare for");
	for (uint64_t i = 0; i < l->block_bytes * l->depth / 8; i++)
		((uint64_t *)l->memory)[i] = xorshift(&l->state);
	return 0;
}

static bool understood(struct load *l, int argc, char **argv)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 's' }, { "write", no_argument, NULL, 'w' },
		{ "random", no_argument, NULL, 'r' },        { "depth", required_argument, NULL, 'd' },
		{ "bs", required_argument, NULL, 'b' },      { "span", required_argument, NULL, 'n' }, { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's': l->seconds = strtod(optarg, NULL); break;
		case 'w': l->writes = true; break;
		case 'r': l->random = true; break;
		case 'd': l->depth = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'b': l->block_bytes = strtoull(optarg, NULL, 10); break;
		case 'n': l->span_bytes = strtoull(optarg, NULL, 10); break;
		default: return false;
		}
	}
	l->path = argv[optind];
	return optind == argc - 1 && l->seconds > 0 && l->depth && l->depth <= DEPTH_MAX && l->block_bytes &&
	       l->block_bytes % ALIGN == 0 && l->block_bytes <= 1u << 26;
}

int main(int argc, char **argv)
{
	static struct load l = { .depth = 1, .block_bytes = 65536 };

	if (!understood(&l, argc, argv)) {
		fprintf(stderr, "usage: aio-load PATH --seconds S [--write] [--random] [--depth 1-%u] [--bs BYTES] [--span BYTES]\n"
			"       BYTES of --bs: a multiple of %u\n", DEPTH_MAX, ALIGN);
		return 2;
	}
	l.state = (uint64_t)(now_s() * 1e9) | 1;
	return begin(&l) || run(&l) ? 1 : 0;
}
