/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One handler for each message, with the sizes and descriptors that it may come with in one table: what is not in the table is
 * refused. A handler that fails is told to the peer where the peer asked for it (REPLY_ACK); else the connection ends, since
 * the peer would go on as if it had been done.
 *
 * The memory table is not changed under a running ring: rings that run are stopped, wait for what they have inside, and
 * start again with the new table; the answer comes behind that. So does GET_VRING_BASE's, whose ring stays stopped.
 */
#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "block/front/vhost_user_priv.h"
#include "os/file.h"

enum { DONE, ANSWERED }; /* of a handler: acknowledge; the answer has been sent, or will be */

#define PROTOCOL_FEATURES                                                                                                    \
	(1u << VHOST_PF_MQ | 1u << VHOST_PF_REPLY_ACK | 1u << VHOST_PF_BACKEND_REQ | 1u << VHOST_PF_CONFIG |                 \
	 1u << VHOST_PF_INFLIGHT_SHMFD | 1u << VHOST_PF_RESET_DEVICE | 1u << VHOST_PF_CONFIGURE_MEM_SLOTS)

static uint64_t features(const struct vhost_user *u)
{
	return vblk_features(blk_stack_info(u->stack), VHOST_RINGS_MAX) | UINT64_C(1) << VIRTIO_F_VERSION_1 |
	       1u << VIRTIO_RING_F_INDIRECT_DESC | 1u << VIRTIO_RING_F_EVENT_IDX | 1u << VHOST_F_PROTOCOL_FEATURES;
}

/* ---- answers ---- */

static int reply(struct vhost_user *u, const struct vhost_msg *m, const void *payload, uint32_t size, const int *fd)
{
	int err = vhost_send(u->peer.fd, m->h.request, VHOST_FLAG_REPLY, payload, size, fd, fd ? 1 : 0);

	return err ? err : ANSWERED;
}

static int reply_u64(struct vhost_user *u, const struct vhost_msg *m, uint64_t v)
{
	return reply(u, m, &v, sizeof(v), NULL);
}

/* The end of a message that its handler did not answer itself. */
static int acknowledge(struct vhost_user *u, const struct vhost_msg *m, int result)
{
	bool wanted = m->h.flags & VHOST_FLAG_NEED_REPLY && u->protocol_features & 1u << VHOST_PF_REPLY_ACK;

	if (result < 0)
		vhost_user_say(u, true, "vhost-user message %u failed: %s", m->h.request, strerror(-result));
	if (wanted)
		result = reply_u64(u, m, result < 0);
	return MIN_OF(result, 0);
}

/* The same for a message that was held. */
static void finish_held(struct vhost_user *u, int result)
{
	int err = result == ANSWERED ? 0 : acknowledge(u, &u->held, result);

	vhost_msg_close(&u->held);
	if (err)
		vhost_user_drop_peer(u, strerror(-err));
}

static int hold(struct vhost_user *u, struct vhost_msg *m, void (*then)(struct vhost_user *u))
{
	u->held = *m;
	m->fds = 0;
	vhost_user_wait(u, then);
	return ANSWERED;
}

/* ---- features ---- */

static int get_features(struct vhost_user *u, struct vhost_msg *m)
{
	return reply_u64(u, m, features(u));
}

/* Whether writes may be answered before they are durable: only if the driver can ask for a flush, and has not turned it off. */
static void choose_cache_mode(struct vhost_user *u)
{
	atomic_store(&u->disk.write_through, !(u->features >> VIRTIO_BLK_F_FLUSH & 1) || !u->write_back);
}

static int set_features(struct vhost_user *u, struct vhost_msg *m)
{
	if (m->p.u64 & ~features(u))
		return -EINVAL;
	u->features = m->p.u64;
	u->features_set = true;
	choose_cache_mode(u);
	for (unsigned i = 0; i < VHOST_RINGS_MAX && !(u->features >> VHOST_F_PROTOCOL_FEATURES & 1); i++)
		vhost_ring_enable(&u->ring[i], true);
	return DONE;
}

static int get_protocol_features(struct vhost_user *u, struct vhost_msg *m)
{
	return reply_u64(u, m, PROTOCOL_FEATURES);
}

static int set_protocol_features(struct vhost_user *u, struct vhost_msg *m)
{
	if (m->p.u64 & ~(uint64_t)PROTOCOL_FEATURES)
		return -EINVAL;
	u->protocol_features = m->p.u64;
	return DONE;
}

static int nothing(struct vhost_user *u, struct vhost_msg *m)
{
	return DONE;
}

static int get_queue_num(struct vhost_user *u, struct vhost_msg *m)
{
	return reply_u64(u, m, VHOST_RINGS_MAX);
}

static int set_backend_fd(struct vhost_user *u, struct vhost_msg *m)
{
	fd_closep(&u->back_fd);
	u->back_fd = vhost_msg_take_fd(m);
	vhost_never_block(u->back_fd);
	return DONE;
}

/* ---- memory ---- */

/* New memory is in place: the rings that ran go on. */
static int resume_rings(struct vhost_user *u)
{
	int err = 0;

	for (unsigned i = 0; i < VHOST_RINGS_MAX; i++) {
		struct vhost_ring *r = &u->ring[i];
		if (!r->resume)
			continue;
		r->resume = false;
		int e = vhost_ring_start(r);
		if (e) {
			vhost_user_say(u, true, "ring %u does not start with the new memory: %s", i, strerror(-e));
			err = e;
		}
	}
	return err;
}

static int add_region(struct vmem *mem, const struct vhost_region *in, int fd)
{
	struct vmem_region r = { .guest = in->guest, .user = in->user, .size_bytes = in->size };
	int err = vhost_mem_map(&r, fd, in->fd_off);

	if (!err)
		err = vmem_add(mem, &r);
	if (err)
		vhost_mem_unmap(&r);
	return err;
}

static int change_memory(struct vhost_user *u)
{
	struct vhost_msg *m = &u->held;
	struct vmem_region gone;
	int err = 0;

	switch (m->h.request) {
	case VHOST_SET_MEM_TABLE:
		vhost_mem_clear(&u->mem);
		for (unsigned i = 0; i < m->p.memory.count && !err; i++)
			err = add_region(&u->mem, &m->p.memory.region[i], m->fd[i]);
		return err;
	case VHOST_ADD_MEM_REG:
		return add_region(&u->mem, &m->p.one.region, m->fd[0]);
	default:
		err = vmem_remove(&u->mem, m->p.one.region.guest, m->p.one.region.user, m->p.one.region.size, &gone);
		if (!err)
			vhost_mem_unmap(&gone);
		return err;
	}
}

static void memory_then(struct vhost_user *u)
{
	vhost_user_finish_rings(u);
	int err = change_memory(u), resume_err = resume_rings(u);
	finish_held(u, err ? err : resume_err);
}

static int memory_message(struct vhost_user *u, struct vhost_msg *m)
{
	bool table = m->h.request == VHOST_SET_MEM_TABLE;

	if (table && (m->p.memory.count > VHOST_FDS_MAX || m->fds != m->p.memory.count ||
		      m->h.size < offsetof(struct vhost_memory, region) + m->p.memory.count * sizeof(struct vhost_region)))
		return -EINVAL;
	for (unsigned i = 0; i < VHOST_RINGS_MAX; i++)
		u->ring[i].resume = u->ring[i].running;
	vhost_user_stop_rings(u);
	return hold(u, m, memory_then);
}

static int get_max_mem_slots(struct vhost_user *u, struct vhost_msg *m)
{
	return reply_u64(u, m, VMEM_REGIONS_MAX);
}

/* ---- rings ---- */

static struct vhost_ring *ring_of(struct vhost_user *u, uint64_t index)
{
	return index < VHOST_RINGS_MAX ? &u->ring[index] : NULL;
}

static int set_vring_num(struct vhost_user *u, struct vhost_msg *m)
{
	struct vhost_ring *r = ring_of(u, m->p.state.index);
	uint32_t num = m->p.state.num;

	if (!r || !num || num > VIRTQ_SIZE_MAX || num & (num - 1))
		return -EINVAL;
	if (r->running && num != r->num)
		return -EBUSY;
	r->num = num;
	return DONE;
}

static int set_vring_addr(struct vhost_user *u, struct vhost_msg *m)
{
	struct vhost_ring *r = ring_of(u, m->p.addr.index);
	const struct vhost_addr *a = &m->p.addr;

	if (!r || a->flags) /* the one flag there is asks for a log of dirty pages, which is not offered */
		return -EINVAL;
	if (r->running && (a->desc != r->desc_user || a->avail != r->avail_user || a->used != r->used_user))
		return -EBUSY;
	r->desc_user = a->desc;
	r->avail_user = a->avail;
	r->used_user = a->used;
	r->has_addr = true;
	return DONE;
}

static int set_vring_base(struct vhost_user *u, struct vhost_msg *m)
{
	struct vhost_ring *r = ring_of(u, m->p.state.index);

	if (!r || m->p.state.num > UINT16_MAX)
		return -EINVAL;
	if (r->running)
		return -EBUSY;
	r->base = (uint16_t)m->p.state.num;
	return DONE;
}

static void ring_fds_close(struct vhost_ring *r)
{
	vhost_ring_set_kick(r, -1);
	vhost_ring_set_call(r, -1);
	vhost_ring_set_err(r, -1);
}

static void base_then(struct vhost_user *u)
{
	struct vhost_ring *r = &u->ring[u->held.p.state.index];

	if (r->stop_asked)
		vhost_ring_finish(r);
	ring_fds_close(r);
	struct vhost_state s = { u->held.p.state.index, r->base };
	finish_held(u, reply(u, &u->held, &s, sizeof(s), NULL));
}

static int get_vring_base(struct vhost_user *u, struct vhost_msg *m)
{
	struct vhost_ring *r = ring_of(u, m->p.state.index);

	if (!r)
		return -EINVAL;
	if (r->running)
		vhost_ring_stop(r);
	return hold(u, m, base_then);
}

/* What QEMU's order has set before this one is all there. */
static int start(struct vhost_user *u, struct vhost_ring *r)
{
	if (!u->features_set || !r->num || !r->has_addr)
		return -EINVAL;
	int err = vhost_ring_start(r);
	if (err)
		vhost_user_say(u, true, "ring %u does not start: %s", r->index,
			       err == -EBADMSG ? "the in-flight memory makes no sense" :
			       err == -EINVAL  ? "its addresses are not in the guest's memory" :
						 strerror(-err));
	return err;
}

static int set_vring_fd(struct vhost_user *u, struct vhost_msg *m)
{
	struct vhost_ring *r = ring_of(u, m->p.u64 & VHOST_INDEX_MASK);
	bool none = m->p.u64 & VHOST_NO_FD;

	if (!r || m->p.u64 & ~(uint64_t)(VHOST_INDEX_MASK | VHOST_NO_FD) || m->fds != !none)
		return -EINVAL;
	if (m->h.request == VHOST_SET_VRING_CALL) {
		vhost_ring_set_call(r, vhost_msg_take_fd(m));
		return DONE;
	}
	if (m->h.request == VHOST_SET_VRING_ERR) {
		vhost_ring_set_err(r, vhost_msg_take_fd(m));
		return DONE;
	}
	if (none)
		return -EOPNOTSUPP; /* a ring that would have to be polled */
	int err = vhost_ring_set_kick(r, vhost_msg_take_fd(m));
	return err || r->running ? err : start(u, r);
}

static int set_vring_enable(struct vhost_user *u, struct vhost_msg *m)
{
	struct vhost_ring *r = ring_of(u, m->p.state.index);

	if (!r || m->p.state.num > 1)
		return -EINVAL;
	vhost_ring_enable(r, m->p.state.num);
	if (m->p.state.num && atomic_load(&u->config_changed))
		vhost_user_wake(u);
	return DONE;
}

/* Everything as after a connect, but for the memory and the cache mode: the driver has not been told of a new one. */
static void reset_then(struct vhost_user *u)
{
	vhost_user_finish_rings(u);
	for (unsigned i = 0; i < VHOST_RINGS_MAX; i++) {
		vhost_ring_enable(&u->ring[i], false);
		ring_fds_close(&u->ring[i]);
		u->ring[i].base = 0;
		u->ring[i].has_addr = false;
	}
	finish_held(u, DONE);
}

static int reset_device(struct vhost_user *u, struct vhost_msg *m)
{
	vhost_user_stop_rings(u);
	return hold(u, m, reset_then);
}

/* ---- in-flight memory ---- */

static int get_inflight(struct vhost_user *u, struct vhost_msg *m)
{
	struct vhost_inflight io = { .queues = m->p.inflight.queues, .size = m->p.inflight.size };
	_cleanup_(fd_closep) int fd = -1;
	int err = vhost_inflight_make(u, &io, &fd);

	if (err) {
		vhost_user_say(u, true, "no in-flight memory for %u queues of %u: %s", io.queues, io.size, strerror(-err));
		io.map_bytes = 0; /* the peer does without */
	}
	return reply(u, m, &io, m->h.size, err ? NULL : &fd);
}

static int set_inflight(struct vhost_user *u, struct vhost_msg *m)
{
	for (unsigned i = 0; i < VHOST_RINGS_MAX; i++) {
		if (u->ring[i].running)
			return -EBUSY;
	}
	int err = vhost_inflight_take(u, &m->p.inflight, m->fd[0]);
	if (err)
		return err;
	struct inflight_tail *t = vhost_inflight_tail(u);
	if (t) { /* what a predecessor knew and the peer does not say again */
		u->write_back = t->write_back != 0;
		choose_cache_mode(u);
		if (t->capacity_bytes != atomic_load(&u->disk.size_bytes))
			atomic_store(&u->config_changed, true);
	}
	return DONE;
}

/* ---- configuration space ---- */

static int get_config(struct vhost_user *u, struct vhost_msg *m)
{
	struct vhost_config *c = &m->p.config;
	union {
		struct virtio_blk_config config;
		uint8_t bytes[VHOST_CONFIG_MAX];
	} space = { .bytes = { 0 } };
	const uint32_t head = offsetof(struct vhost_config, data);

	if (c->off > VHOST_CONFIG_MAX || c->size > VHOST_CONFIG_MAX - c->off)
		return reply(u, m, NULL, 0, NULL);
	vblk_config(blk_stack_info(u->stack), atomic_load(&u->disk.size_bytes), blk_stack_queues(u->stack), u->seg_max, u->write_back,
		    &space.config);
	memcpy(c->data, space.bytes + c->off, c->size);
	return reply(u, m, c, head + c->size, NULL);
}

static void cache_then(struct vhost_user *u)
{
	finish_held(u, u->flush.result);
}

static void flush_done(struct blk_req *r)
{
	vhost_user_ended(r->ctx);
}

static void flush_on_queue(struct blk_task *t)
{
	struct vhost_user *u = (struct vhost_user *)((char *)t - offsetof(struct vhost_user, flush_task));

	blk_stack_submit(u->stack, &u->flush);
}

/* Writeback off: what was answered before is made durable before the driver hears that it is off. */
static int set_config(struct vhost_user *u, struct vhost_msg *m)
{
	const struct vhost_config *c = &m->p.config;

	if (m->h.size < offsetof(struct vhost_config, data) || c->size != m->h.size - offsetof(struct vhost_config, data))
		return -EINVAL;
	if (c->off != offsetof(struct virtio_blk_config, wce) || c->size != 1 || c->data[0] > 1)
		return -EPERM; /* the one field that is not read-only */
	bool was = u->write_back;
	u->write_back = c->data[0];
	choose_cache_mode(u);
	struct inflight_tail *t = vhost_inflight_tail(u);
	if (t)
		t->write_back = u->write_back;
	if (!was || u->write_back || blk_stack_info(u->stack)->read_only)
		return DONE;
	struct blk_queue *q = blk_stack_queue(u->stack, 0);
	u->flush = (struct blk_req){ .op = BLK_FLUSH, .queue = q, .done = flush_done, .ctx = u };
	u->flush_task = (struct blk_task){ .fn = flush_on_queue };
	atomic_fetch_add(&u->outstanding, 1);
	blk_queue_post(q, &u->flush_task);
	return hold(u, m, cache_then);
}

/* ---- the table ---- */

static const struct {
	int (*fn)(struct vhost_user *u, struct vhost_msg *m);
	uint32_t least, most; /* bytes of payload */
	unsigned fds_least, fds_most;
} messages[VHOST_REQUESTS] = {
	[VHOST_GET_FEATURES] = { get_features, 0, 8, 0, 0 },
	[VHOST_SET_FEATURES] = { set_features, 8, 8, 0, 0 },
	[VHOST_SET_OWNER] = { nothing, 0, 8, 0, 0 },
	[VHOST_RESET_OWNER] = { nothing, 0, 8, 0, 0 }, /* deprecated: to be ignored */
	[VHOST_SET_MEM_TABLE] = { memory_message, 8, sizeof(struct vhost_memory), 0, VHOST_FDS_MAX },
	[VHOST_SET_VRING_NUM] = { set_vring_num, 8, 8, 0, 0 },
	[VHOST_SET_VRING_ADDR] = { set_vring_addr, sizeof(struct vhost_addr), sizeof(struct vhost_addr), 0, 0 },
	[VHOST_SET_VRING_BASE] = { set_vring_base, 8, 8, 0, 0 },
	[VHOST_GET_VRING_BASE] = { get_vring_base, 8, 8, 0, 0 },
	[VHOST_SET_VRING_KICK] = { set_vring_fd, 8, 8, 0, 1 },
	[VHOST_SET_VRING_CALL] = { set_vring_fd, 8, 8, 0, 1 },
	[VHOST_SET_VRING_ERR] = { set_vring_fd, 8, 8, 0, 1 },
	[VHOST_GET_PROTOCOL_FEATURES] = { get_protocol_features, 0, 8, 0, 0 },
	[VHOST_SET_PROTOCOL_FEATURES] = { set_protocol_features, 8, 8, 0, 0 },
	[VHOST_GET_QUEUE_NUM] = { get_queue_num, 0, 8, 0, 0 },
	[VHOST_SET_VRING_ENABLE] = { set_vring_enable, 8, 8, 0, 0 },
	[VHOST_SET_BACKEND_REQ_FD] = { set_backend_fd, 0, 8, 1, 1 },
	[VHOST_GET_CONFIG] = { get_config, offsetof(struct vhost_config, data), sizeof(struct vhost_config), 0, 0 },
	[VHOST_SET_CONFIG] = { set_config, offsetof(struct vhost_config, data), sizeof(struct vhost_config), 0, 0 },
	[VHOST_GET_INFLIGHT_FD] = { get_inflight, VHOST_INFLIGHT_BYTES, sizeof(struct vhost_inflight), 0, 0 },
	[VHOST_SET_INFLIGHT_FD] = { set_inflight, VHOST_INFLIGHT_BYTES, sizeof(struct vhost_inflight), 1, 1 },
	[VHOST_RESET_DEVICE] = { reset_device, 0, 8, 0, 0 },
	[VHOST_GET_MAX_MEM_SLOTS] = { get_max_mem_slots, 0, 8, 0, 0 },
	[VHOST_ADD_MEM_REG] = { memory_message, sizeof(struct vhost_one_region), sizeof(struct vhost_one_region), 1, 1 },
	[VHOST_REM_MEM_REG] = { memory_message, sizeof(struct vhost_one_region), sizeof(struct vhost_one_region), 0, 1 },
};

int vhost_user_message(struct vhost_user *u, struct vhost_msg *m)
{
	int result = -EOPNOTSUPP;

	if (m->h.request < VHOST_REQUESTS && messages[m->h.request].fn) {
		result = -EINVAL;
		if (m->h.size >= messages[m->h.request].least && m->h.size <= messages[m->h.request].most &&
		    m->fds >= messages[m->h.request].fds_least && m->fds <= messages[m->h.request].fds_most)
			result = messages[m->h.request].fn(u, m);
	}
	if (result != ANSWERED)
		result = acknowledge(u, m, result);
	vhost_msg_close(m);
	return MIN_OF(result, 0);
}
