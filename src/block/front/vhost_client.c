/* SPDX-License-Identifier: Apache-2.0 */
#include "block/front/vhost_client.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/macros.h"
#include "os/file.h"

#define WANTED_PROTOCOL                                                                                                      \
	(1u << VHOST_PF_MQ | 1u << VHOST_PF_REPLY_ACK | 1u << VHOST_PF_BACKEND_REQ | 1u << VHOST_PF_CONFIG | 1u << VHOST_PF_INFLIGHT_SHMFD)

/* ---- memory ---- */

static uint64_t ring_bytes(const struct vhost_client *c)
{
	return vdriver_bytes(c->set.num, c->set.table);
}

int vhost_client_init(struct vhost_client *c, const struct vhost_client_settings *s)
{
	memset(c, 0, sizeof(*c));
	c->set = *s;
	c->fd = c->back_fd = c->inflight_fd = c->memory_fd = -1;
	for (unsigned i = 0; i < VHOST_CLIENT_QUEUES; i++)
		c->queue[i].kick = c->queue[i].call = -1;
	if (!s->queues || s->queues > VHOST_CLIENT_QUEUES)
		return -EINVAL;
	c->memory_bytes = (ring_bytes(c) * s->queues + s->data_bytes + 4095) & ~(uint64_t)4095;
	c->memory_fd = memfd_create("guest", MFD_CLOEXEC);
	if (c->memory_fd < 0 || ftruncate(c->memory_fd, (off_t)c->memory_bytes))
		return -errno;
	void *map = mmap(NULL, c->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c->memory_fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	c->memory = map;
	c->data = c->memory + ring_bytes(c) * s->queues;
	c->data_guest = VHOST_CLIENT_BASE + ring_bytes(c) * s->queues;
	for (unsigned i = 0; i < s->queues; i++) {
		uint64_t at = ring_bytes(c) * i;
		vdriver_init(&c->queue[i].driver, c->memory + at, VHOST_CLIENT_BASE + at, s->num, s->table, s->event_idx);
		c->queue[i].kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		c->queue[i].call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (c->queue[i].kick < 0 || c->queue[i].call < 0)
			return -errno;
	}
	return 0;
}

void vhost_client_disconnect(struct vhost_client *c)
{
	fd_closep(&c->fd);
	fd_closep(&c->back_fd);
	for (unsigned i = 0; i < VHOST_CLIENT_QUEUES; i++)
		c->queue[i].running = false;
}

void vhost_client_done(struct vhost_client *c)
{
	vhost_client_disconnect(c);
	for (unsigned i = 0; i < VHOST_CLIENT_QUEUES; i++) {
		fd_closep(&c->queue[i].kick);
		fd_closep(&c->queue[i].call);
	}
	if (c->memory)
		munmap(c->memory, c->memory_bytes);
	c->memory = NULL;
	fd_closep(&c->memory_fd);
	fd_closep(&c->inflight_fd);
}

/* ---- messages ---- */

int vhost_client_ask(struct vhost_client *c, uint32_t request, const void *payload, uint32_t size, struct vhost_msg *answer)
{
	struct vhost_channel in = { .fd = c->fd };
	int r = vhost_send(c->fd, request, 0, payload, size, NULL, 0);

	while (!r)
		r = vhost_receive(&in);
	if (r < 0)
		return r;
	*answer = in.in;
	return answer->h.request == request && answer->h.flags & VHOST_FLAG_REPLY ? 0 : -EBADMSG;
}

int vhost_client_tell(struct vhost_client *c, uint32_t request, const void *payload, uint32_t size, const int *fds, unsigned fd_count)
{
	bool ack = c->protocol_features & 1u << VHOST_PF_REPLY_ACK;
	struct vhost_channel in = { .fd = c->fd };
	int r = vhost_send(c->fd, request, ack ? VHOST_FLAG_NEED_REPLY : 0, payload, size, fds, fd_count);

	while (!r && ack)
		r = vhost_receive(&in);
	if (r < 0 || !ack)
		return r;
	return in.in.h.request == request && !in.in.p.u64 ? 0 : -EREMOTEIO;
}

static int ask_u64(struct vhost_client *c, uint32_t request, uint64_t *ret)
{
	struct vhost_msg m;
	int err = vhost_client_ask(c, request, NULL, 0, &m);

	if (!err)
		*ret = m.p.u64;
	return err;
}

int vhost_client_config(struct vhost_client *c, struct virtio_blk_config *ret)
{
	struct vhost_config q = { .size = sizeof(*ret) };
	struct vhost_msg m;

	/* Not every back end knows the newest fields: up to those of WRITE_ZEROES. */
	q.size = offsetof(struct virtio_blk_config, max_secure_erase_sectors);
	int err = vhost_client_ask(c, VHOST_GET_CONFIG, &q, (uint32_t)offsetof(struct vhost_config, data) + q.size, &m);
	if (err)
		return err;
	if (m.h.size < offsetof(struct vhost_config, data) + q.size)
		return -EBADMSG;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, m.p.config.data, q.size);
	return 0;
}

int vhost_client_set_wce(struct vhost_client *c, bool on)
{
	struct vhost_config q = { .off = offsetof(struct virtio_blk_config, wce), .size = 1, .data = { on } };

	return vhost_client_tell(c, VHOST_SET_CONFIG, &q, (uint32_t)offsetof(struct vhost_config, data) + 1, NULL, 0);
}

/* ---- connecting ---- */

static int negotiate(struct vhost_client *c)
{
	uint64_t wanted = UINT64_C(1) << VIRTIO_F_VERSION_1 | 1u << VHOST_F_PROTOCOL_FEATURES | 1u << VIRTIO_BLK_F_FLUSH |
			  1u << VIRTIO_BLK_F_CONFIG_WCE | 1u << VIRTIO_BLK_F_BLK_SIZE | 1u << VIRTIO_BLK_F_SEG_MAX | 1u << VIRTIO_BLK_F_RO |
			  1u << VIRTIO_BLK_F_DISCARD | 1u << VIRTIO_BLK_F_WRITE_ZEROES | 1u << VIRTIO_BLK_F_MQ;
	if (c->set.event_idx)
		wanted |= 1u << VIRTIO_RING_F_EVENT_IDX;
	if (c->set.table)
		wanted |= 1u << VIRTIO_RING_F_INDIRECT_DESC;
	c->protocol_features = 0;
	int err = ask_u64(c, VHOST_GET_FEATURES, &c->features);
	if (err)
		return err;
	c->features &= wanted & ~c->set.features_off;
	err = ask_u64(c, VHOST_GET_PROTOCOL_FEATURES, &c->protocol_features);
	if (err)
		return err;
	uint64_t protocol = c->protocol_features & WANTED_PROTOCOL;
	c->protocol_features = 0; /* not in force yet */
	err = vhost_client_tell(c, VHOST_SET_PROTOCOL_FEATURES, &protocol, sizeof(protocol), NULL, 0);
	c->protocol_features = protocol;
	if (!err)
		err = vhost_client_tell(c, VHOST_SET_OWNER, NULL, 0, NULL, 0);
	if (c->set.event_idx && !(c->features & 1u << VIRTIO_RING_F_EVENT_IDX))
		return -EOPNOTSUPP;
	return err;
}

static int give_back_channel(struct vhost_client *c)
{
	int pair[2];

	if (!(c->protocol_features & 1u << VHOST_PF_BACKEND_REQ))
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	int err = vhost_client_tell(c, VHOST_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1);
	close(pair[1]);
	c->back_fd = pair[0];
	return err;
}

int vhost_client_connect(struct vhost_client *c)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	vhost_client_disconnect(c);
	if (strlen(c->set.socket) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	memcpy(a.sun_path, c->set.socket, strlen(c->set.socket));
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof(a)))
		return -errno;
	int err = negotiate(c);
	return err ? err : give_back_channel(c);
}

/* ---- queues ---- */

static uint64_t user_address(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

int vhost_client_start_queue(struct vhost_client *c, unsigned index, uint16_t base)
{
	struct vdriver *d = &c->queue[index].driver;
	struct vhost_state num = { index, d->num }, first = { index, base }, on = { index, 1 };
	struct vhost_addr a = { .index = index, .desc = user_address(d->desc), .avail = user_address(d->avail), .used = user_address(d->used) };
	uint64_t which = index;
	int err = vhost_client_tell(c, VHOST_SET_VRING_NUM, &num, sizeof(num), NULL, 0);

	if (!err)
		err = vhost_client_tell(c, VHOST_SET_VRING_BASE, &first, sizeof(first), NULL, 0);
	if (!err)
		err = vhost_client_tell(c, VHOST_SET_VRING_ADDR, &a, sizeof(a), NULL, 0);
	if (!err)
		err = vhost_client_tell(c, VHOST_SET_VRING_KICK, &which, sizeof(which), &c->queue[index].kick, 1);
	if (!err)
		err = vhost_client_tell(c, VHOST_SET_VRING_CALL, &which, sizeof(which), &c->queue[index].call, 1);
	if (!err)
		err = vhost_client_tell(c, VHOST_SET_VRING_ENABLE, &on, sizeof(on), NULL, 0);
	c->queue[index].running = !err;
	return err;
}

int vhost_client_stop_queue(struct vhost_client *c, unsigned index, uint16_t *ret_base)
{
	struct vhost_state s = { index, 0 };
	struct vhost_msg m;
	int err = vhost_client_ask(c, VHOST_GET_VRING_BASE, &s, sizeof(s), &m);

	if (err)
		return err;
	c->queue[index].running = false;
	*ret_base = (uint16_t)m.p.state.num;
	return 0;
}

static int hand_inflight(struct vhost_client *c)
{
	struct vhost_msg m;

	if (!c->set.inflight || !(c->protocol_features & 1u << VHOST_PF_INFLIGHT_SHMFD))
		return 0;
	if (c->inflight_fd < 0) {
		c->inflight = (struct vhost_inflight){ .queues = (uint16_t)c->set.queues, .size = (uint16_t)c->set.num };
		int err = vhost_client_ask(c, VHOST_GET_INFLIGHT_FD, &c->inflight, VHOST_INFLIGHT_BYTES, &m);
		if (err)
			return err;
		c->inflight = m.p.inflight;
		c->inflight_fd = vhost_msg_take_fd(&m);
		if (c->inflight_fd < 0)
			return -EBADMSG;
	}
	return vhost_client_tell(c, VHOST_SET_INFLIGHT_FD, &c->inflight, VHOST_INFLIGHT_BYTES, &c->inflight_fd, 1);
}

int vhost_client_start(struct vhost_client *c)
{
	struct vhost_memory m = { .count = 1, .region[0] = { VHOST_CLIENT_BASE, c->memory_bytes, user_address(c->memory), 0 } };
	int err = hand_inflight(c);

	if (!err)
		err = vhost_client_tell(c, VHOST_SET_FEATURES, &c->features, sizeof(c->features), NULL, 0);
	if (!err)
		err = vhost_client_tell(c, VHOST_SET_MEM_TABLE, &m, (uint32_t)offsetof(struct vhost_memory, region[1]), &c->memory_fd, 1);
	for (unsigned i = 0; i < c->set.queues && !err; i++)
		err = vhost_client_start_queue(c, i, __atomic_load_n(&c->queue[i].driver.used->idx, __ATOMIC_RELAXED));
	return err;
}

/* ---- notifications ---- */

void vhost_client_kick(struct vhost_client *c, unsigned queue)
{
	_unused_ ssize_t n = write(c->queue[queue].kick, &(uint64_t){ 1 }, sizeof(uint64_t));
}

bool vhost_client_wait(struct vhost_client *c, unsigned queue, int timeout_ms)
{
	struct pollfd p = { .fd = c->queue[queue].call, .events = POLLIN };
	uint64_t count;

	return poll(&p, 1, timeout_ms) > 0 && read(p.fd, &count, sizeof(count)) > 0;
}
