/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "block/front/vhost_user_testkit.h"

/* ---- tests ---- */

static void test_negotiation(void **state)
{
	struct virtio_blk_config config;

	connect_as((struct vhost_client_settings){ .event_idx = true, .table = 4, .inflight = true });
	assert_int_equal(c.protocol_features >> VHOST_PF_INFLIGHT_SHMFD & 1, 1);
	const uint64_t must = UINT64_C(1) << VIRTIO_F_VERSION_1 | 1u << VIRTIO_RING_F_EVENT_IDX | 1u << VIRTIO_RING_F_INDIRECT_DESC |
			      1u << VIRTIO_BLK_F_FLUSH | 1u << VIRTIO_BLK_F_CONFIG_WCE | 1u << VIRTIO_BLK_F_DISCARD;
	assert_int_equal(c.features & must, must);
	assert_int_equal(vhost_client_config(&c, &config), 0);
	assert_int_equal(config.capacity, DISK / 512);
	assert_int_equal(config.seg_max, 126);
	assert_int_equal(config.wce, 1);
	assert_int_equal(config.num_queues, QUEUES);
	struct vhost_msg m;
	assert_int_equal(vhost_client_ask(&c, VHOST_GET_QUEUE_NUM, NULL, 0, &m), 0);
	assert_true(m.p.u64 >= 16);
	assert_int_equal(vhost_client_ask(&c, VHOST_GET_MAX_MEM_SLOTS, NULL, 0, &m), 0);
	assert_int_equal(m.p.u64, VMEM_REGIONS_MAX);
	vhost_client_done(&c);
}

static void try_requests(struct vhost_client_settings s)
{
	connect_and_start(s);
	for (unsigned q = 0; q < c.set.queues; q++) {
		memset(data_of(0), 'a' + (int)q, 4096);
		assert_int_equal(do_one(q, VIRTIO_BLK_T_OUT, q * 8, 4096), VIRTIO_BLK_S_OK);
		assert_int_equal(disk->data[q * 4096], 'a' + (int)q);
		memset(data_of(0), 0, 4096);
		assert_int_equal(do_one(q, VIRTIO_BLK_T_IN, q * 8, 4096), VIRTIO_BLK_S_OK);
		assert_int_equal(data_of(0)[4095], 'a' + (int)q);
		assert_int_equal(do_one(q, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
		assert_int_equal(do_one(q, VIRTIO_BLK_T_GET_ID, 0, 20), VIRTIO_BLK_S_OK);
		assert_memory_equal(data_of(0), "vol-0123456789abcdef", 20);
		assert_int_equal(do_one(q, VIRTIO_BLK_T_IN, DISK / 512, 512), VIRTIO_BLK_S_IOERR);
		assert_int_equal(do_one(q, 99, 0, 0), VIRTIO_BLK_S_UNSUPP);
		atomic_store(&disk->fail_with, ENOSPC);
		assert_int_equal(do_one(q, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
		atomic_store(&disk->fail_with, 0);
	}
	assert_int_equal(p.errors, 0);
	vhost_client_done(&c);
}

static void test_requests(void **state)
{
	try_requests((struct vhost_client_settings){ 0 });
	try_requests((struct vhost_client_settings){ .event_idx = true });
	try_requests((struct vhost_client_settings){ .event_idx = true, .table = 4, .queues = 4, .num = 8, .inflight = true });
	try_requests((struct vhost_client_settings){ .table = 4, .num = 1024, .inflight = true });
	assert_true(disk->fua == 0);
}

/* Many at once, random, with everything that a driver may do; read back. */
static void test_many(void **state)
{
	unsigned in_flight = 0, next = 0;
	uint32_t len;

	connect_and_start((struct vhost_client_settings){ .event_idx = true, .num = 64, .table = 4, .data_bytes = 1 << 20 });
	for (unsigned done = 0; done < 20000;) {
		while (next < 20000 && in_flight < 60) {
			unsigned slot = next % 64;
			*(uint32_t *)(void *)data_of(slot) = next;
			if (add(0, slot, VIRTIO_BLK_T_OUT, next * 8 % (DISK / 512), 512) < 0)
				break;
			next++;
			in_flight++;
		}
		assert_true(get(0, 5000, &len) >= 0);
		in_flight--;
		done++;
		if (in_flight && done % 64 == 0) { /* slots are reused: all of them back first */
			while (in_flight) {
				assert_true(get(0, 5000, &len) >= 0);
				in_flight--;
				done++;
			}
		}
	}
	assert_int_equal(disk->ops[BLK_WRITE], 20000);
	vhost_client_done(&c);
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A ring that is asked again and again looks before it sleeps; it sleeps all the same when nothing comes. */
static void test_idle(void **state)
{
	connect_and_start((struct vhost_client_settings){ 0 });
	for (unsigned i = 0; i < 3000; i++)
		assert_int_equal(do_one(0, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	uint64_t before = cpu_ns();
	usleep(300000);
	assert_true(cpu_ns() - before < 100000000u);
	assert_int_equal(do_one(0, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	vhost_client_done(&c);
}

static void test_cache_mode(void **state)
{
	/* without FLUSH every write is durable before it is answered */
	connect_and_start((struct vhost_client_settings){ .features_off = 1u << VIRTIO_BLK_F_FLUSH | 1u << VIRTIO_BLK_F_CONFIG_WCE });
	do_one(0, VIRTIO_BLK_T_OUT, 0, 512);
	assert_int_equal(disk->fua, 1);
	vhost_client_done(&c);

	connect_and_start((struct vhost_client_settings){ .inflight = true });
	do_one(0, VIRTIO_BLK_T_OUT, 0, 512);
	assert_int_equal(disk->fua, 1);
	assert_int_equal(disk->ops[BLK_FLUSH], 0);
	assert_int_equal(vhost_client_set_wce(&c, false), 0);
	assert_int_equal(disk->ops[BLK_FLUSH], 1); /* of what was answered before */
	do_one(0, VIRTIO_BLK_T_OUT, 0, 512);
	assert_int_equal(disk->fua, 2);

	/* a successor learns it from the in-flight memory: the VMM does not say it again */
	stop();
	blk_front_close(&p.front);
	open_front("");
	run();
	assert_int_equal(vhost_client_connect(&c), 0);
	assert_int_equal(vhost_client_start(&c), 0);
	do_one(0, VIRTIO_BLK_T_OUT, 0, 512);
	assert_int_equal(disk->fua, 3);
	assert_int_equal(vhost_client_set_wce(&c, true), 0);
	do_one(0, VIRTIO_BLK_T_OUT, 0, 512);
	assert_int_equal(disk->fua, 3);
	atomic_store(&disk->fail_with, EIO);
	assert_int_equal(vhost_client_set_wce(&c, false), -EREMOTEIO); /* the flush failed: the driver is told */
	atomic_store(&disk->fail_with, 0);
	vhost_client_done(&c);
}

/* A disconnect with requests inside, and the same peer again: each is answered once. */
static void test_reconnect(void **state)
{
	uint32_t len;

	for (unsigned inflight = 0; inflight < 2; inflight++) {
		connect_and_start((struct vhost_client_settings){ .inflight = inflight, .event_idx = true, .table = 4 });
		atomic_store(&disk->hold, true);
		atomic_store(&disk->order_count, 0);
		for (unsigned i = 0; i < 20; i++)
			add(0, i, VIRTIO_BLK_T_OUT, i, 512);
		while (atomic_load(&disk->order_count) < 20)
			usleep(1000);
		vhost_client_disconnect(&c);
		release_held(); /* the next connection waits for them */
		assert_int_equal(vhost_client_connect(&c), 0);
		assert_int_equal(vhost_client_start(&c), 0);
		for (unsigned i = 0; i < 20; i++)
			assert_true(get(0, 5000, &len) >= 0);
		assert_int_equal(get(0, 50, &len), -EAGAIN);
		assert_int_equal(disk->order_count, 20);
		assert_int_equal(do_one(0, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
		vhost_client_done(&c);
	}
	assert_int_equal(p.errors, 0);
}

static void test_vring_base_waits(void **state)
{
	struct vhost_state s = { 0, 0 };
	uint32_t len;
	uint16_t base;

	connect_and_start((struct vhost_client_settings){ 0 });
	do_one(0, VIRTIO_BLK_T_OUT, 0, 512);
	atomic_store(&disk->hold, true);
	add(0, 1, VIRTIO_BLK_T_OUT, 0, 512);
	add(0, 2, VIRTIO_BLK_T_OUT, 0, 512);
	while (atomic_load(&disk->order_count) < 3)
		usleep(1000);
	assert_int_equal(vhost_send(c.fd, VHOST_GET_VRING_BASE, 0, &s, sizeof(s), NULL, 0), 0);
	struct pollfd reply = { .fd = c.fd, .events = POLLIN };
	assert_int_equal(poll(&reply, 1, 100), 0);
	release_held();
	struct vhost_channel in = { .fd = c.fd };
	int r;
	while (!(r = vhost_receive(&in)))
		;
	assert_int_equal(r, 1);
	assert_int_equal(in.in.p.state.num, 3);
	assert_true(vdriver_get(&c.queue[0].driver, &len) >= 0 && vdriver_get(&c.queue[0].driver, &len) >= 0);
	add(0, 3, VIRTIO_BLK_T_OUT, 0, 512); /* while it is stopped */
	assert_int_equal(get(0, 50, &len), -EAGAIN);
	assert_int_equal(vhost_client_start_queue(&c, 0, 3), 0);
	assert_true(get(0, 5000, &len) >= 0);
	assert_int_equal(vhost_client_stop_queue(&c, 0, &base), 0);
	assert_int_equal(base, 4);
	vhost_client_done(&c);
}

/* The table changes under a ring that has a request inside: that is ended first, and the ring goes on. */
static void test_memory_changes(void **state)
{
	struct vhost_memory m = { .count = 1, .region[0] = { VHOST_CLIENT_BASE, 0, 0, 0 } };
	struct vhost_one_region extra = { .region = { UINT64_C(1) << 40, 65536, UINT64_C(1) << 40, 0 } };
	const uint32_t size = offsetof(struct vhost_memory, region[1]);

	connect_and_start((struct vhost_client_settings){ .inflight = true });
	m.region[0].size = c.memory_bytes;
	m.region[0].user = (uint64_t)(uintptr_t)c.memory;
	atomic_store(&disk->hold, true);
	add(0, 1, VIRTIO_BLK_T_OUT, 0, 512);
	while (!atomic_load(&disk->order_count))
		usleep(1000);
	assert_int_equal(vhost_send(c.fd, VHOST_SET_MEM_TABLE, 0, &m, size, &c.memory_fd, 1), 0);
	usleep(50000);
	release_held();
	uint32_t len;
	assert_true(get(0, 5000, &len) >= 0);
	assert_int_equal(do_one(0, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(vhost_client_tell(&c, VHOST_ADD_MEM_REG, &extra, sizeof(extra), &c.memory_fd, 1), 0);
	assert_int_equal(vhost_client_tell(&c, VHOST_ADD_MEM_REG, &extra, sizeof(extra), &c.memory_fd, 1), -EREMOTEIO);
	assert_int_equal(do_one(0, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(vhost_client_tell(&c, VHOST_REM_MEM_REG, &extra, sizeof(extra), NULL, 0), 0);
	assert_int_equal(vhost_client_tell(&c, VHOST_REM_MEM_REG, &extra, sizeof(extra), NULL, 0), -EREMOTEIO);
	assert_int_equal(do_one(0, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	m.region[0].size += 4096; /* more than there is */
	assert_int_equal(vhost_client_tell(&c, VHOST_SET_MEM_TABLE, &m, size, &c.memory_fd, 1), -EREMOTEIO);
	vhost_client_done(&c);
}

static void test_broken_ring(void **state)
{
	uint32_t len;
	uint64_t which = 0, count;
	int err_fd = eventfd(0, EFD_CLOEXEC);

	connect_and_start((struct vhost_client_settings){ .queues = 2 });
	assert_int_equal(vhost_client_tell(&c, VHOST_SET_VRING_ERR, &which, sizeof(which), &err_fd, 1), 0);
	struct vdriver_buf nowhere = { 5, 512, false };
	vdriver_add(&c.queue[0].driver, &nowhere, 1);
	vdriver_show(&c.queue[0].driver);
	vhost_client_kick(&c, 0);
	struct pollfd told = { .fd = err_fd, .events = POLLIN };
	assert_int_equal(poll(&told, 1, 5000), 1);
	assert_int_equal(read(err_fd, &count, sizeof(count)), sizeof(count));
	add(0, 1, VIRTIO_BLK_T_OUT, 0, 512);
	assert_int_equal(get(0, 50, &len), -EAGAIN);
	assert_int_equal(do_one(1, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK); /* the other goes on */
	uint16_t base;
	assert_int_equal(vhost_client_stop_queue(&c, 0, &base), 0);
	assert_int_equal(base, 0);
	assert_int_equal(p.errors, 1);
	assert_non_null(strstr(p.last_error, "outside the guest's memory"));
	close(err_fd);
	vhost_client_done(&c);
}

/* Whatever comes in, we are there for the next peer. */
static void test_malformed(void **state)
{
	static const struct {
		uint32_t request, size;
	} bad[] = { { 0, 0 }, { 999, 8 }, { VHOST_SET_VRING_NUM, 4 }, { VHOST_SET_VRING_NUM, 8 }, { VHOST_SET_VRING_ADDR, 40 },
		    { VHOST_SET_VRING_BASE, 8 }, { VHOST_SET_MEM_TABLE, 8 }, { VHOST_GET_VRING_BASE, 8 }, { VHOST_SET_INFLIGHT_FD, 24 },
		    { VHOST_SET_FEATURES, 8 }, { VHOST_SET_PROTOCOL_FEATURES, 8 }, { VHOST_SET_VRING_KICK, 8 }, { VHOST_SET_CONFIG, 268 },
		    { VHOST_SET_VRING_ENABLE, 8 }, { VHOST_ADD_MEM_REG, 40 } };
	struct vhost_client_settings s = { .socket = p.socket, .queues = 1, .num = 8, .data_bytes = 4096 };
	char junk[600];

	assert_int_equal(vhost_client_init(&c, &s), 0);
	memset(junk, 0xff, sizeof(junk));
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(vhost_client_connect(&c), 0);
		assert_int_equal(vhost_client_tell(&c, bad[i].request, junk, bad[i].size, NULL, 0), -EREMOTEIO);
		c.protocol_features = 0; /* without an acknowledgement the connection ends */
		vhost_client_tell(&c, bad[i].request, junk, bad[i].size, NULL, 0);
		struct vhost_channel in = { .fd = c.fd };
		assert_int_equal(vhost_receive(&in), -ECONNRESET);
	}
	int fds[8] = { 0, 0, 0, 0, 0, 0, 0, 0 };
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(vhost_client_connect(&c), 0);
		if (i == 0) /* no version */
			assert_int_equal(write(c.fd, junk, 12), 12);
		if (i == 1) /* descriptors that nobody asked for */
			assert_int_equal(vhost_send(c.fd, VHOST_GET_FEATURES, 0, NULL, 0, fds, 8), 0);
		if (i == 2) /* half a message, and gone */
			assert_int_equal(vhost_send(c.fd, VHOST_SET_MEM_TABLE, 0, NULL, 0, fds, 8), 0);
		vhost_client_disconnect(&c);
	}
	vhost_client_done(&c);
	connect_and_start((struct vhost_client_settings){ 0 });
	assert_int_equal(do_one(0, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	vhost_client_done(&c);
}

static void test_resize_is_told(void **state)
{
	struct vhost_channel in = { 0 };
	struct virtio_blk_config config;
	struct error e = { 0 };
	int r;

	connect_and_start((struct vhost_client_settings){ 0 });
	assert_int_equal(blk_stack_resize(p.stack, DISK + 4096, &e), 0);
	in.fd = c.back_fd;
	while (!(r = vhost_receive(&in)))
		;
	assert_int_equal(r, 1);
	assert_int_equal(in.in.h.request, VHOST_BACKEND_CONFIG_CHANGE);
	assert_int_equal(vhost_client_config(&c, &config), 0);
	assert_int_equal(config.capacity, DISK / 512 + 8);
	assert_int_equal(do_one(0, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	vhost_client_done(&c);
}

static void test_one_peer(void **state)
{
	struct vhost_client other;
	struct vhost_client_settings s = { .socket = p.socket, .queues = 1, .num = 8, .data_bytes = 4096 };

	connect_and_start((struct vhost_client_settings){ 0 });
	assert_int_equal(vhost_client_init(&other, &s), 0);
	assert_int_not_equal(vhost_client_connect(&other), 0);
	assert_int_equal(do_one(0, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	vhost_client_done(&c);
	assert_int_equal(vhost_client_connect(&other), 0);
	vhost_client_done(&other);
}

static void test_foreign_uid(void **state)
{
	int status;

	if (getuid()) {
		print_message("skipped: needs root, to become somebody else\n");
		skip();
	}
	set_up_with("disk", ",mode=0666");
	pid_t pid = fork();
	if (!pid) {
		struct vhost_client_settings s = { .socket = p.socket, .queues = 1, .num = 8, .data_bytes = 4096 };
		_exit(setuid(65534) || vhost_client_init(&c, &s) ? 2 : vhost_client_connect(&c) == 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close_all();
}

static void test_read_only(void **state)
{
	set_up_with("disk:ro=on", ",seg-max=254");
	connect_and_start((struct vhost_client_settings){ 0 });
	assert_int_equal(c.features >> VIRTIO_BLK_F_RO & 1, 1);
	assert_int_equal(do_one(0, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(do_one(0, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(disk->ops[BLK_WRITE], 0);
	vhost_client_done(&c);
	close_all();
}

/* More bytes, or more elements, than a layer takes. */
static void test_long_requests(void **state)
{
	const uint32_t huge = 40u << 20;
	struct vdriver_buf *b = calloc(1002, sizeof(*b));
	struct virtio_blk_outhdr h = { VIRTIO_BLK_T_IN, 0, 8 };
	uint32_t len;

	for (uint64_t i = 0; i < DISK / 8; i++)
		((uint64_t *)(void *)disk->data)[i] = i * 0x9e3779b97f4a7c15u;
	set_up_with("disk", "");
	connect_and_start((struct vhost_client_settings){ .data_bytes = (42 << 20), .table = 1024, .num = 4 });
	memcpy(c.data, &h, sizeof(h));
	b[0] = (struct vdriver_buf){ c.data_guest, 16, false };
	b[1] = (struct vdriver_buf){ c.data_guest + 4096, huge, true };
	b[2] = (struct vdriver_buf){ c.data_guest + 64, 1, true };
	vdriver_add(&c.queue[0].driver, b, 3);
	vdriver_show(&c.queue[0].driver);
	vhost_client_kick(&c, 0);
	assert_true(get(0, 20000, &len) >= 0);
	assert_int_equal(len, huge + 1);
	assert_int_equal(c.data[64], 0);
	assert_memory_equal(c.data + 4096, disk->data + 4096, huge);
	assert_int_equal(disk->ops[BLK_READ], 2);

	memset(c.data + 4096, 0, huge);
	for (unsigned i = 0; i < 1000; i++) /* pieces of odd lengths */
		b[i + 1] = (struct vdriver_buf){ c.data_guest + 4096 + i * 512 + (i & 1 ? 8 : 0), i & 1 ? 504 : 520, true };
	b[1001] = (struct vdriver_buf){ c.data_guest + 64, 1, true };
	vdriver_add(&c.queue[0].driver, b, 1002);
	vdriver_show(&c.queue[0].driver);
	vhost_client_kick(&c, 0);
	assert_true(get(0, 20000, &len) >= 0);
	assert_int_equal(c.data[64], 0);
	assert_memory_equal(c.data + 4096, disk->data + 4096, 1000 * 512);
	vhost_client_done(&c);
	free(b);
	close_all();
}

/* Closing with requests inside waits for them. */
static void *release_soon(void *arg)
{
	usleep(50000);
	release_held();
	return NULL;
}

static void test_close_waits(void **state)
{
	pthread_t t;
	uint32_t len;

	connect_and_start((struct vhost_client_settings){ 0 });
	atomic_store(&disk->hold, true);
	add(0, 1, VIRTIO_BLK_T_OUT, 0, 512);
	while (!atomic_load(&disk->order_count))
		usleep(1000);
	pthread_create(&t, NULL, release_soon, NULL);
	stop();
	blk_front_close(&p.front);
	pthread_join(t, NULL);
	assert_true(vdriver_get(&c.queue[0].driver, &len) >= 0); /* and answers them */
	open_front("");
	run();
	vhost_client_done(&c);
}

/* ---- death ---- */

static pid_t serve(bool hold)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	atomic_store(&disk->hold, hold);
	open_stack("disk");
	snprintf(p.socket, sizeof(p.socket), "/tmp/mallee-vhost-test-%d", (int)getppid());
	open_front("");
	loop_run(p.loop);
	_exit(0);
}

static void reconnect(void)
{
	int err = -1;

	for (unsigned i = 0; i < 500 && err; i++) {
		err = vhost_client_connect(&c);
		if (err)
			usleep(10000);
	}
	assert_int_equal(err, 0);
	assert_int_equal(vhost_client_start(&c), 0);
}

/* Killed with requests inside: the successor does them again, in their order, before what is new; each is answered once. */
static void test_death(void **state)
{
	struct vhost_client_settings s = { .socket = p.socket, .queues = 1, .num = 128, .table = 4, .event_idx = true, .inflight = true,
					   .data_bytes = 1 << 20 };
	uint32_t len;

	memset(&p, 0, sizeof(p));
	memset(disk, 0, offsetof(struct shared, data));
	snprintf(p.socket, sizeof(p.socket), "/tmp/mallee-vhost-test-%d", (int)getpid());
	assert_int_equal(vhost_client_init(&c, &s), 0);
	pid_t pid = serve(true);
	reconnect();
	for (unsigned i = 0; i < 30; i++)
		add(0, i, VIRTIO_BLK_T_OUT, (i * 7 + 3) % 30, 512);
	while (atomic_load(&disk->order_count) < 30)
		usleep(1000);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	for (unsigned i = 30; i < 40; i++)
		add(0, i, VIRTIO_BLK_T_OUT, i, 512); /* while nobody is there */
	pid = serve(false);
	reconnect();
	for (unsigned i = 0; i < 40; i++)
		assert_true(get(0, 5000, &len) >= 0);
	assert_int_equal(get(0, 50, &len), -EAGAIN);
	assert_int_equal(disk->order_count, 70);
	for (unsigned i = 0; i < 30; i++)
		assert_int_equal(disk->order[30 + i], disk->order[i]);
	for (unsigned i = 30; i < 40; i++)
		assert_int_equal(disk->order[30 + i], i * 512);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(status_of(i), VIRTIO_BLK_S_OK);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	vhost_client_done(&c);
	unlink(p.socket);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_death), /* before there are threads */
		cmocka_unit_test_setup_teardown(test_negotiation, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_requests, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_many, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_idle, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_cache_mode, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_reconnect, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_vring_base_waits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_memory_changes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_broken_ring, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_malformed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_resize_is_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_one_peer, set_up, tear_down),
		cmocka_unit_test(test_foreign_uid),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_long_requests),
		cmocka_unit_test_setup_teardown(test_close_waits, set_up, tear_down),
	};

	disk = mmap(NULL, sizeof(*disk), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return disk == MAP_FAILED ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
