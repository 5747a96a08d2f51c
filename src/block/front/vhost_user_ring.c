/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring's life: settings are collected while it is stopped; vhost_ring_start() checks them and hands it to its queue's thread;
 * vhost_ring_stop() asks that thread to take no more, which then says when the last request inside has ended; vhost_ring_finish()
 * frees. A broken ring stays with its thread, takes no more, and answers what is inside.
 *
 * The data path. A kick turns notifications off, takes the chains that there are, and asks for the batch's end. There (the queue's
 * deferred task) all that has been answered is published with one store and at most one call; then the ring is looked at again.
 * One round takes no more than ROUND_MAX: where the stack answers at once (from memory) the driver then has the first answers,
 * and makes new requests of them, while the rest is worked on, instead of the two waiting for one another. Only when nothing
 * new is there are notifications asked for again, and the ring is looked at once more behind that, so that a chain which came
 * in between is not left lying. A slot belongs to a head: the driver may not use a head again before it is answered, and one
 * that does breaks its ring.
 *
 * Sleeping and being woken costs both sides some microseconds (in virtual machines more), and where answers come from memory it
 * comes often: the driver is then about to show more. So a ring whose sleeps are short is looked at for WAIT_NS first, while
 * nothing of it is inside. When that was in vain, four times as many short sleeps must come before it is tried again.
 *
 * A request of more elements or bytes than a layer takes goes down in pieces, one after the other (firmware reads a whole
 * kernel at once).
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/front/vhost_user_priv.h"
#include "os/file.h"

#define ROUND_MAX 16u /* half of the 32 that a busy driver often has out: more would make it wait, fewer would cost calls */
/* A ring that slept for less than SHORT_NS so many times in a row is looked at for WAIT_NS before it sleeps again. */
#define SHORT_NS 60000u
#define WAIT_NS 20000u
#define SLEEPS_LEAST 4u
#define SLEEPS_MOST 1024u /* when it was in vain each time */
#define LONG_IOV_BYTES (sizeof(struct iovec) * VIRTQ_IOV_MAX)

static void cpu_relax(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#endif
}

static void signal_fd(int fd)
{
	/* Only a counter that is at its limit refuses, and then its reader has been told. */
	_unused_ ssize_t n = write(fd, &(uint64_t){ 1 }, sizeof(uint64_t));
}

/* ---- broken ---- */

static void tell_broken(struct vhost_ring *r)
{
	if (atomic_load_explicit(&r->broken, memory_order_relaxed))
		return;
	atomic_store(&r->broken, r->q.broken);
	blk_count(&r->breaks, 1);
	if (r->err_fd >= 0)
		signal_fd(r->err_fd);
	vhost_user_wake(r->user);
}

/* ---- answers ---- */

static void answer(struct vhost_ring *r, uint16_t head, uint8_t *status_at, uint8_t status, uint32_t written_bytes)
{
	*status_at = status;
	virtq_push(&r->q, head, written_bytes);
	inflight_pushed(&r->inflight, head);
	blk_queue_defer(r->queue, &r->batch);
}

static void publish(struct vhost_ring *r)
{
	bool call = virtq_publish(&r->q);

	inflight_published(&r->inflight, r->q.used_idx);
	blk_count(&r->batches, 1);
	if (call && r->call_fd >= 0) {
		signal_fd(r->call_fd);
		blk_count(&r->calls, 1);
	}
}

/* ---- requests ---- */

/* As much of what is left as a layer takes: whole blocks. False: not one, its elements are too small. */
static bool next_piece(struct vhost_slot *s)
{
	struct iovec *iov = (struct iovec *)s->req.iov;
	uint64_t room = 0, sum = 0;
	unsigned n = 0;

	while (n < s->iov_left && n < BLK_IOV_MAX && room < BLK_LEN_MAX)
		room += iov[n++].iov_len;
	room = MIN_OF(room, (uint64_t)BLK_LEN_MAX);
	if (room < s->bytes_left)
		room -= room % s->ring->user->disk.block_bytes;
	for (n = 0; sum < room; n++)
		sum += iov[n].iov_len;
	s->cut_bytes = sum - room;
	if (n)
		iov[n - 1].iov_len -= s->cut_bytes;
	s->req.iov_count = n;
	s->req.len_bytes = room;
	s->bytes_left -= room;
	return room > 0;
}

static void skip_piece(struct vhost_slot *s)
{
	unsigned n = s->req.iov_count;
	struct iovec *last = (struct iovec *)&s->req.iov[n - 1];

	if (s->cut_bytes) {
		last->iov_base = (char *)last->iov_base + last->iov_len;
		last->iov_len = s->cut_bytes;
		n--;
	}
	s->req.iov += n;
	s->iov_left -= n;
	s->req.off_bytes += s->req.len_bytes;
}

static void request_done(struct blk_req *req)
{
	struct vhost_slot *s = (struct vhost_slot *)req;
	struct vhost_ring *r = s->ring;
	int result = req->result;

	if (!result && s->bytes_left) {
		skip_piece(s);
		if (next_piece(s)) {
			blk_stack_submit(r->user->stack, req);
			return;
		}
		result = -EINVAL;
	}
	s->busy = false;
	r->inside--;
	answer(r, s->head, s->status_at, vblk_status(result), result ? s->failed_bytes : s->written_bytes);
}

static void submit(struct vhost_ring *r, struct vhost_slot *s, const struct vblk_request *v)
{
	struct iovec *iov = v->iov_count <= SLOT_IOV ? s->iov : &r->long_iov[(size_t)s->head * VIRTQ_IOV_MAX];

	for (unsigned i = 0; i < v->iov_count; i++)
		iov[i] = v->iov[i];
	s->req = (struct blk_req){ .op = v->op, .flags = v->flags, .off_bytes = v->off_bytes, .len_bytes = v->len_bytes, .iov = iov,
				   .iov_count = v->iov_count, .queue = r->queue, .done = request_done };
	s->status_at = v->status_at;
	s->written_bytes = v->written_bytes;
	s->failed_bytes = v->failed_bytes;
	s->busy = true;
	s->bytes_left = 0;
	r->inside++;
	if (v->iov_count > BLK_IOV_MAX || (v->iov_count && v->len_bytes > BLK_LEN_MAX)) {
		s->iov_left = v->iov_count;
		s->bytes_left = v->len_bytes;
		if (!next_piece(s)) {
			s->bytes_left = 0;
			blk_complete(&s->req, -EINVAL);
			return;
		}
	}
	blk_stack_submit(r->user->stack, &s->req);
}

/* The chain in r->chain. fresh: it came through the available ring just now. */
static bool handle(struct vhost_ring *r, bool fresh)
{
	struct vhost_slot *s = &r->slots[r->chain.head];
	struct vblk_request v;
	const char *why = "a chain is made available again while it is in use";

	if (s->busy || vblk_parse(&r->user->disk, &r->chain, &v, &why)) {
		virtq_break(&r->q, why);
		r->q.next_avail = (uint16_t)(r->q.next_avail - fresh);
		return false;
	}
	if (fresh)
		inflight_taken(&r->inflight, r->chain.head);
	if (v.submit)
		submit(r, s, &v);
	else
		answer(r, r->chain.head, v.status_at, v.status, v.written_bytes);
	return true;
}

/* What was in flight when our predecessor died comes first, in its order. */
static void take_again(struct vhost_ring *r)
{
	for (unsigned i = 0; i < r->again_count && !r->q.broken; i++) {
		if (virtq_again(&r->q, r->again[i], &r->chain) == 1 && handle(r, false))
			blk_count(&r->resubmitted, 1);
	}
	r->again_count = 0;
}

static unsigned take_round(struct vhost_ring *r)
{
	unsigned taken = 0;

	while (taken < ROUND_MAX && virtq_pop(&r->q, &r->chain) == 1 && handle(r, true))
		taken++;
	if (r->q.broken)
		tell_broken(r);
	return taken;
}

static void look(struct vhost_ring *r)
{
	if (!r->active || !r->enabled || r->stopping || r->q.broken)
		return;
	virtq_notify_off(&r->q);
	if (r->again_count)
		take_again(r);
	take_round(r);
	blk_queue_defer(r->queue, &r->batch);
}

/* Nothing is there, nothing is inside: whether something comes within WAIT_NS. */
static bool comes_soon(struct vhost_ring *r)
{
	if (r->short_sleeps < r->sleeps_needed || r->inside || blk_queue_has_more(r->queue))
		return false;
	uint64_t until = blk_queue_read_clock(r->queue) + WAIT_NS;
	blk_count(&r->waits, 1);
	do {
		for (unsigned i = 0; i < 16; i++) {
			if (virtq_more(&r->q)) {
				r->sleeps_needed = SLEEPS_LEAST;
				return true;
			}
			cpu_relax();
		}
	} while (blk_queue_read_clock(r->queue) < until && !blk_queue_has_more(r->queue));
	blk_count(&r->waits_in_vain, 1);
	r->short_sleeps = 0;
	r->sleeps_needed = MIN_OF(r->sleeps_needed * 4, SLEEPS_MOST);
	return false;
}

static bool sleeps(struct vhost_ring *r)
{
	if (virtq_notify_on(&r->q))
		return false;
	r->slept_ns = r->inside ? 0 : blk_queue_read_clock(r->queue); /* what keeps it busy else tells nothing of the driver */
	return true;
}

static void wakes(struct vhost_ring *r)
{
	if (r->slept_ns)
		r->short_sleeps = blk_queue_now(r->queue) - r->slept_ns < SHORT_NS ? MIN_OF(r->short_sleeps + 1, SLEEPS_MOST) : 0;
	r->slept_ns = 0;
}

static void batch_end(struct blk_task *t)
{
	struct vhost_ring *r = (struct vhost_ring *)((char *)t - offsetof(struct vhost_ring, batch));

	if (r->q.pending)
		publish(r);
	if (r->stopping) {
		if (!r->inside && r->active) {
			r->active = false;
			vhost_user_ended(r->user);
		}
		return;
	}
	if (!r->enabled || r->q.broken)
		return;
	if (take_round(r) || (!r->q.broken && (comes_soon(r) || !sleeps(r)))) {
		virtq_notify_off(&r->q);
		blk_queue_defer(r->queue, t);
	}
}

static void kicked(struct blk_watch *w, uint32_t events)
{
	struct vhost_ring *r = (struct vhost_ring *)((char *)w - offsetof(struct vhost_ring, kick));

	blk_count(&r->kicks, 1);
	wakes(r);
	look(r);
}

/* ---- starting ---- */

static void stop_on_queue(struct blk_task *t)
{
	struct vhost_ring *r = (struct vhost_ring *)((char *)t - offsetof(struct vhost_ring, stop));

	r->stopping = true;
	blk_watch_remove(&r->kick);
	virtq_notify_off(&r->q);
	blk_queue_defer(r->queue, &r->batch);
}

void vhost_ring_init(struct vhost_ring *r, struct vhost_user *u, unsigned index)
{
	r->user = u;
	r->index = index;
	r->kick_fd = r->call_fd = r->err_fd = -1;
	r->batch.fn = batch_end;
	r->stop.fn = stop_on_queue;
}

static int find_parts(struct vhost_ring *r)
{
	struct vhost_user *u = r->user;
	struct virtq *q = &r->q;

	*q = (struct virtq){ .mem = &u->mem, .num = r->num, .indirect = u->features >> VIRTIO_RING_F_INDIRECT_DESC & 1,
			     .event_idx = u->features >> VIRTIO_RING_F_EVENT_IDX & 1 };
	q->desc = vmem_user(&u->mem, r->desc_user, virtq_desc_bytes(r->num), 16);
	q->avail = vmem_user(&u->mem, r->avail_user, virtq_avail_bytes(r->num), 2);
	q->used = vmem_user(&u->mem, r->used_user, virtq_used_bytes(r->num), 4);
	return q->desc && q->avail && q->used ? 0 : -EINVAL;
}

static int allocate(struct vhost_ring *r)
{
	r->slots = calloc(r->num, sizeof(*r->slots));
	r->again = calloc(r->num, sizeof(*r->again));
	r->long_iov = mmap(NULL, LONG_IOV_BYTES * r->num, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r->long_iov == MAP_FAILED)
		r->long_iov = NULL;
	if (!r->slots || !r->again || !r->long_iov)
		return -ENOMEM;
	for (unsigned i = 0; i < r->num; i++) {
		r->slots[i].ring = r;
		r->slots[i].head = (uint16_t)i;
	}
	return 0;
}

static void release(struct vhost_ring *r)
{
	free(r->slots);
	free(r->again);
	if (r->long_iov)
		munmap(r->long_iov, LONG_IOV_BYTES * r->num);
	r->slots = NULL;
	r->again = NULL;
	r->long_iov = NULL;
}

struct start {
	struct vhost_ring *ring;
	int err;
};

static void start_on_queue(void *ctx)
{
	struct start *s = ctx;
	struct vhost_ring *r = s->ring;

	s->err = blk_watch_add(r->queue, &r->kick, r->kick_fd, EPOLLIN | EPOLLET, kicked);
	if (s->err)
		return;
	r->active = true;
	/* The driver may wait for an answer that our predecessor gave without having called. */
	if (r->call_fd >= 0)
		signal_fd(r->call_fd);
	look(r);
}

int vhost_ring_start(struct vhost_ring *r)
{
	struct vhost_user *u = r->user;
	uint16_t next = r->base;

	assert(!r->running);
	r->queue = blk_stack_queue(u->stack, r->index % blk_stack_queues(u->stack));
	int err = find_parts(r);
	if (!err)
		err = allocate(r);
	if (!err) {
		virtq_start(&r->q, 0);
		int n = inflight_attach(&r->inflight, vhost_inflight_queue(u, r->index), u->inflight_size, &r->q, r->again, &next);
		err = MIN_OF(n, 0);
		r->again_count = (unsigned)MAX_OF(n, 0);
	}
	if (!err) {
		struct start s = { .ring = r };
		virtq_start(&r->q, next);
		r->inside = r->short_sleeps = 0;
		r->sleeps_needed = SLEEPS_LEAST;
		r->slept_ns = 0;
		r->active = r->stopping = false;
		r->enabled = r->enabled_wanted;
		atomic_store(&r->broken, NULL);
		r->broken_told = false;
		blk_queue_call(r->queue, start_on_queue, &s);
		err = s.err;
	}
	r->running = !err;
	if (err)
		release(r);
	return err;
}

void vhost_ring_stop(struct vhost_ring *r)
{
	assert(r->running && !r->stop_asked);
	r->stop_asked = true;
	atomic_fetch_add(&r->user->outstanding, 1);
	blk_queue_post(r->queue, &r->stop);
}

void vhost_ring_finish(struct vhost_ring *r)
{
	if (!r->running)
		return;
	assert(!r->inside && !r->active);
	r->base = r->q.next_avail;
	r->running = r->stop_asked = false;
	release(r);
}

/* ---- changes to a ring that may run ---- */

struct change {
	struct vhost_ring *ring;
	int fd, old_fd, err;
	bool on;
};

static void apply(struct change *c, void (*fn)(void *ctx))
{
	if (c->ring->running)
		blk_queue_call(c->ring->queue, fn, c);
	else
		fn(c);
}

static void enable_on_queue(void *ctx)
{
	struct change *c = ctx;

	c->ring->enabled = c->on;
	look(c->ring);
}

void vhost_ring_enable(struct vhost_ring *r, bool on)
{
	struct change c = { .ring = r, .on = on };

	r->enabled_wanted = on;
	apply(&c, enable_on_queue);
}

static void kick_on_queue(void *ctx)
{
	struct change *c = ctx;
	struct vhost_ring *r = c->ring;

	c->old_fd = r->kick_fd;
	r->kick_fd = c->fd;
	if (!r->active)
		return;
	blk_watch_remove(&r->kick);
	if (c->fd >= 0)
		c->err = blk_watch_add(r->queue, &r->kick, c->fd, EPOLLIN | EPOLLET, kicked);
	look(r);
}

int vhost_ring_set_kick(struct vhost_ring *r, int fd)
{
	struct change c = { .ring = r, .fd = fd };

	apply(&c, kick_on_queue);
	fd_closep(&c.old_fd);
	return c.err;
}

void vhost_never_block(int fd)
{
	int flags = fd >= 0 ? fcntl(fd, F_GETFL) : -1;

	if (flags >= 0 && !(flags & O_NONBLOCK))
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static void call_on_queue(void *ctx)
{
	struct change *c = ctx;

	c->old_fd = c->ring->call_fd;
	c->ring->call_fd = c->fd;
	if (c->ring->active && c->fd >= 0)
		signal_fd(c->fd); /* for what was published while there was none */
}

void vhost_ring_set_call(struct vhost_ring *r, int fd)
{
	struct change c = { .ring = r, .fd = fd };

	vhost_never_block(fd);
	apply(&c, call_on_queue);
	fd_closep(&c.old_fd);
}

static void err_on_queue(void *ctx)
{
	struct change *c = ctx;

	c->old_fd = c->ring->err_fd;
	c->ring->err_fd = c->fd;
}

void vhost_ring_set_err(struct vhost_ring *r, int fd)
{
	struct change c = { .ring = r, .fd = fd };

	vhost_never_block(fd);
	apply(&c, err_on_queue);
	fd_closep(&c.old_fd);
}
