/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FRONT_VHOST_USER_TESTKIT_H
#define MALLEE_BLOCK_FRONT_VHOST_USER_TESTKIT_H

/*
 * For vhost_user_test.c: the front end on a stack of its own, and vhost_client as its peer. The loop runs in a thread, as the
 * program's main thread. After cmocka.h.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/front/fronts.h"
#include "block/front/vhost_client.h"
#include "block/front/vhost_user_priv.h"
#include "os/file.h"
#include "os/loop.h"

/*
 * What passes through a ring is ordered by the ring's indexes, which the two ends see at different addresses: nothing that the
 * thread sanitizer can follow. So it is told to leave the guest's memory and the disk's alone.
 */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:^perform$\nrace:^answer$\nrace:^try_requests$\n";
}

/* ---- a disk that can be told to hold what it is given ---- */

#define DISK (UINT64_C(64) << 20)

static struct shared { /* with child processes, too */
	_Atomic bool hold;
	_Atomic int fail_with;
	_Atomic unsigned ops[BLK_OPS], fua;
	_Atomic unsigned order_count;
	uint64_t order[1024]; /* offsets of writes, as they came */
	char data[DISK];
} *disk;

static pthread_mutex_t held_lock = PTHREAD_MUTEX_INITIALIZER;
static struct blk_list held;

static int disk_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	l->info = (struct blk_info){ .size_bytes = DISK, .block_bytes = 512, .physical_bytes = 4096, .discard_bytes = 4096,
				     .volatile_cache = true, .read_only = blk_values_bool(v, "ro") };
	return 0;
}

static void perform(struct blk_req *r)
{
	int result = -atomic_load(&disk->fail_with);

	if (r->op == BLK_READ && !result)
		blk_iov_to(r->iov, r->iov_count, 0, disk->data + r->off_bytes, r->len_bytes);
	if (r->op == BLK_WRITE && !result)
		blk_iov_from(r->iov, r->iov_count, 0, disk->data + r->off_bytes, r->len_bytes);
	if (r->op == BLK_WRITE_ZEROES && !result)
		memset(disk->data + r->off_bytes, 0, r->len_bytes);
	blk_complete(r, result);
}

static void disk_submit(struct blk_layer *l, struct blk_req *r)
{
	assert_true(r->iov_count <= BLK_IOV_MAX && (!r->iov_count || r->len_bytes <= BLK_LEN_MAX));
	assert_true(!r->iov_count || blk_iov_bytes(r->iov, r->iov_count) == r->len_bytes);
	disk->ops[r->op]++;
	disk->fua += r->flags & BLK_FUA ? 1 : 0;
	if (r->op == BLK_WRITE) {
		unsigned at = atomic_fetch_add(&disk->order_count, 1);
		if (at < ARRAY_SIZE(disk->order))
			disk->order[at] = r->off_bytes;
	}
	if (!atomic_load(&disk->hold)) {
		perform(r);
		return;
	}
	pthread_mutex_lock(&held_lock);
	blk_list_push(&held, r);
	pthread_mutex_unlock(&held_lock);
}

static void release_held(void)
{
	struct blk_req *r;

	atomic_store(&disk->hold, false);
	pthread_mutex_lock(&held_lock);
	while ((r = blk_list_pop(&held)))
		perform(r);
	pthread_mutex_unlock(&held_lock);
}

static int disk_resize(struct blk_layer *l, uint64_t size_bytes, struct error *e)
{
	l->info.size_bytes = size_bytes;
	return 0;
}

static const struct blk_option disk_options[] = {
	{ .name = "ro", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "read-only" },
	{ 0 },
};
static const struct blk_layer_ops disk_ops = { .name = "disk", .is_back = true, .options = disk_options, .open = disk_open,
					       .submit = disk_submit, .resize = disk_resize };
static const struct blk_layer_ops *const drivers[] = { &disk_ops, NULL };
static const struct blk_front_ops *const fronts[] = { &blk_vhost_user_ops, NULL };

/* ---- the program ---- */

#define QUEUES 2u

static struct program {
	struct blk_stack *stack;
	struct blk_front front;
	struct loop *loop;
	pthread_t thread;
	char socket[64];
	char last_error[256];
	_Atomic unsigned errors;
} p;

static void say(void *ctx, bool is_error, const char *text)
{
	if (!is_error)
		return;
	snprintf(p.last_error, sizeof(p.last_error), "%s", text);
	p.errors++;
}

static void open_front(const char *more)
{
	char spec[160];
	struct error e = { 0 };

	snprintf(spec, sizeof(spec), "vhost-user:socket=%s,serial=vol-0123456789abcdef%s", p.socket, more);
	p.front = (struct blk_front){ .stack = p.stack, .loop = p.loop, .say = say };
	if (blk_front_open(fronts, spec, &p.front, &e))
		fail_msg("%s", e.message);
}

static void open_stack(const char *back)
{
	struct blk_stack_settings s = { drivers, back, NULL, QUEUES, BLK_IO_THREADS };
	struct error e = { 0 };

	snprintf(p.socket, sizeof(p.socket), "/tmp/mallee-vhost-test-%d", (int)getpid());
	assert_int_equal(blk_stack_open(&s, &p.stack, &e), 0);
	assert_int_equal(blk_stack_start(p.stack, &e), 0);
	assert_int_equal(loop_new(&p.loop), 0);
}

static void *run_loop(void *arg)
{
	loop_run(p.loop);
	return NULL;
}

static void run(void)
{
	assert_int_equal(pthread_create(&p.thread, NULL, run_loop, NULL), 0);
}

static void stop(void)
{
	loop_stop(p.loop);
	pthread_join(p.thread, NULL);
}

static void close_all(void)
{
	struct error e = { 0 };

	stop();
	blk_front_close(&p.front);
	assert_int_equal(blk_stack_close(p.stack, &e), 0);
	loop_free(p.loop);
	assert_int_equal(access(p.socket, F_OK), -1);
}

static int set_up_with(const char *back, const char *more)
{
	memset(&p, 0, sizeof(p));
	memset(disk, 0, offsetof(struct shared, data));
	open_stack(back);
	open_front(more);
	run();
	return 0;
}

static int set_up(void **state)
{
	return set_up_with("disk", "");
}

static int tear_down(void **state)
{
	close_all();
	return 0;
}

/* ---- the guest ---- */

static struct vhost_client c;

static void connect_as(struct vhost_client_settings s)
{
	s.socket = p.socket;
	if (!s.data_bytes)
		s.data_bytes = 1 << 20;
	if (!s.queues)
		s.queues = 1;
	if (!s.num)
		s.num = 128;
	assert_int_equal(vhost_client_init(&c, &s), 0);
	assert_int_equal(vhost_client_connect(&c), 0);
}

static void connect_and_start(struct vhost_client_settings s)
{
	connect_as(s);
	assert_int_equal(vhost_client_start(&c), 0);
}

/* A request's header and status lie at 64 * slot of the data, its own data at 64 KiB + 4 KiB * slot. */
static int add(unsigned queue, unsigned slot, uint32_t type, uint64_t sector, uint32_t len)
{
	struct virtio_blk_outhdr h = { type, 0, sector };
	uint64_t at = c.data_guest + slot * 64;
	struct vdriver_buf b[3] = { { at, sizeof(h), false },
				    { c.data_guest + 65536 + 4096 * slot, len, type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID },
				    { at + 32, 1, true } };

	memcpy(c.data + slot * 64, &h, sizeof(h));
	c.data[slot * 64 + 32] = 0x77;
	if (!len)
		b[1] = b[2];
	int head = vdriver_add(&c.queue[queue].driver, b, len ? 3 : 2);
	if (vdriver_show(&c.queue[queue].driver))
		vhost_client_kick(&c, queue);
	return head;
}

static char *data_of(unsigned slot)
{
	return c.data + 65536 + 4096 * slot;
}

static int status_of(unsigned slot)
{
	return c.data[slot * 64 + 32];
}

static int get(unsigned queue, int timeout_ms, uint32_t *ret_len)
{
	for (;;) {
		int head = vdriver_get(&c.queue[queue].driver, ret_len);
		if (head >= 0 || (!vdriver_call_on(&c.queue[queue].driver) && !vhost_client_wait(&c, queue, timeout_ms)))
			return head;
	}
}

static int do_one(unsigned queue, uint32_t type, uint64_t sector, uint32_t len)
{
	uint32_t got;
	int head = add(queue, 0, type, sector, len);

	assert_int_equal(get(queue, 5000, &got), head);
	if (type == VIRTIO_BLK_T_IN && !status_of(0))
		assert_int_equal(got, len + 1);
	return status_of(0);
}

#endif
