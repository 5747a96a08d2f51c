/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VMM sends to the vhost-user front end, and what its guest's memory holds: the whole front end on a small disk in memory.
 * Input: the length of the messages (2 bytes), the messages, and the memory's first bytes. A message is: request, flags,
 * descriptors (low nibble: how many; high: of which kind), length of the payload, payload. All rings are kicked after each.
 * However it ends, the connection ends, and the next one is let in.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/back/back.h"
#include "block/front/fronts.h"
#include "block/front/vhost_wire.h"
#include "os/loop.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY_BYTES (1u << 20)

struct world {
	struct blk_stack *stack;
	struct blk_front front;
	struct loop *loop;
	pthread_t thread;
	struct sockaddr_un address;
	int memory_fd, event_fd, other_fd;
	char *memory;
};

static void *run_loop(void *arg)
{
	loop_run(arg);
	return NULL;
}

/* The socket's name goes with the process. */
static void remove_socket(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/tmp/mallee-fuzz-vhost-%d", (int)getpid());
	unlink(path);
}

/* Made once: it lives as long as the process does, and the peers come and go. */
static struct world *world(void)
{
	static const struct blk_layer_ops *const drivers[] = { &blk_mem_ops, NULL };
	static const struct blk_front_ops *const fronts[] = { &blk_vhost_user_ops, NULL };
	static struct world *w;
	struct blk_stack_settings s = { drivers, "mem:size=1M", NULL, 1, BLK_IO_THREADS };
	struct error e = { 0 };
	char spec[160];

	if (w)
		return w;
	w = calloc(1, sizeof(*w));
	w->address.sun_family = AF_UNIX;
	snprintf(w->address.sun_path, sizeof(w->address.sun_path), "/tmp/mallee-fuzz-vhost-%d", (int)getpid());
	snprintf(spec, sizeof(spec), "vhost-user:serial=fuzz,socket=%s", w->address.sun_path);
	atexit(remove_socket);
	w->memory_fd = memfd_create("guest", MFD_CLOEXEC);
	w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->other_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (ftruncate(w->memory_fd, MEMORY_BYTES))
		abort();
	w->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, w->memory_fd, 0);
	if (w->memory == MAP_FAILED || loop_new(&w->loop) || blk_stack_open(&s, &w->stack, &e) || blk_stack_start(w->stack, &e))
		abort();
	w->front = (struct blk_front){ .stack = w->stack, .loop = w->loop };
	if (blk_front_open(fronts, spec, &w->front, &e) || pthread_create(&w->thread, NULL, run_loop, w->loop))
		abort();
	return w;
}

static int connect_to(const struct world *w)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)&w->address, sizeof(w->address)))
		abort();
	return fd;
}

static void sink(int fd)
{
	char junk[1024];

	while (recv(fd, junk, sizeof(junk), MSG_DONTWAIT) > 0)
		; /* descriptors that come along are closed by the kernel: there is no room for them */
}

/* One message off the front of data; how much it took. */
static size_t send_one(const struct world *w, int fd, const uint8_t *data, size_t size)
{
	int fds[VHOST_FDS_MAX];
	const int kinds[] = { w->memory_fd, w->event_fd, w->other_fd };
	unsigned count = data[2] & 15, kind = (data[2] >> 4) % ARRAY_SIZE(kinds);
	size_t len = MIN_OF((size_t)data[3] * 2, size - 4);

	count = MIN_OF(count, VHOST_FDS_MAX);
	for (unsigned i = 0; i < count; i++)
		fds[i] = kinds[kind];
	vhost_send(fd, data[0], data[1] & ~VHOST_VERSION_MASK, data + 4, (uint32_t)len, fds, count);
	return 4 + len;
}

/* Until the front end has closed it: everything of this peer is over then. */
static void wait_for_end(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char junk[1024];

	shutdown(fd, SHUT_WR);
	for (;;) {
		int ready = poll(&p, 1, 10000);
		if (ready < 0 && errno == EINTR) /* libFuzzer's own alarm */
			continue;
		if (ready <= 0)
			abort();
		ssize_t n = recv(fd, junk, sizeof(junk), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world *w = world();

	if (size < 2)
		return 0;
	size_t messages = MIN_OF((size_t)(data[0] | data[1] << 8), size - 2);
	const uint8_t *at = data + 2, *end = at + messages;
	memset(w->memory, 0, 65536);
	memcpy(w->memory, end, MIN_OF(size - 2 - messages, (size_t)65536));
	int fd = connect_to(w);
	while (end - at >= 4) {
		at += send_one(w, fd, at, (size_t)(end - at));
		_unused_ ssize_t n = write(w->event_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
		sink(fd);
	}
	wait_for_end(fd);
	close(fd);
	return 0;
}
