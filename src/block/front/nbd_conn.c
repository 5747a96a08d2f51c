/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection's life on its queue:
 *
 *   begin → OPEN ──(DISC, end of file, drain)──→ DRAINING ──(all answered and sent)──→ ENDED
 *             └──(socket or protocol error)──→ DEAD ──(the stack has answered)────────────┘
 *
 * A DRAINING connection whose client does not take its replies is DEAD after DRAIN_NS. Whether it has ended is looked at in the
 * deferred `flush` task only, last thing, so that nothing of the connection is queued any more when it goes to the main thread.
 *
 * The watch is edge-triggered: `readable` says that the socket may have more. A read that got less than it asked for has emptied
 * the socket (epoll(7)); TLS, which keeps bytes of its own, is read until it has none.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/front/nbd_priv.h"

#define TICK_NS 1000000000u
#define DRAIN_NS 3000000000u
#define MEMORY_BYTES (NBD_RX_BYTES + (size_t)NBD_UNITS * NBD_UNIT_BYTES)

/* ---- ending ---- */

static void drop_receiving(struct nbd_conn *c)
{
	if (c->filling)
		nbd_part_put(c, c->filling);
	if (c->writing)
		nbd_slot_abandon(c, c->writing);
	c->filling = NULL;
	c->writing = NULL;
	c->skip = 0;
	c->rx_at = c->rx_len = 0;
	c->readable = c->stalled = false;
}

void nbd_conn_fail(struct nbd_conn *c, const char *why)
{
	if (c->state >= NBD_CONN_DEAD)
		return;
	if (c->state == NBD_CONN_OPEN)
		c->why = why;
	c->state = NBD_CONN_DEAD;
	drop_receiving(c);
	nbd_out_drop(c);
	while (c->todo) {
		struct nbd_slot *slot = c->todo;
		c->todo = slot->next;
		nbd_slot_abandon(c, slot);
	}
	c->todo_last = &c->todo;
	blk_queue_defer(c->queue, &c->flush);
}

static void arm_tick(struct nbd_conn *c)
{
	if (!c->tick.link)
		blk_timer_set(c->queue, &c->tick, blk_queue_now(c->queue) + TICK_NS);
}

void nbd_conn_stop(struct nbd_conn *c, const char *why)
{
	if (c->state != NBD_CONN_OPEN)
		return;
	c->why = why;
	c->state = NBD_CONN_DRAINING;
	c->drain_until_ns = blk_queue_now(c->queue) + DRAIN_NS;
	drop_receiving(c);
	arm_tick(c);
	blk_queue_defer(c->queue, &c->flush);
}

static bool has_ended(const struct nbd_conn *c)
{
	if (c->state == NBD_CONN_OPEN || c->state == NBD_CONN_ENDED || c->inflight)
		return false;
	return c->state == NBD_CONN_DEAD || (!c->out && !c->todo && !(c->tls && tls_session_unsent(c->tls)));
}

static void end(struct nbd_conn *c)
{
	struct nbd_server *s = c->server;

	c->state = NBD_CONN_ENDED;
	blk_watch_remove(&c->watch);
	blk_timer_cancel(&c->tick);
	tls_session_free(c->tls);
	c->tls = NULL;
	close(c->fd);
	c->fd = -1;
	pthread_mutex_lock(&s->lock);
	c->ended_next = s->ended;
	s->ended = c;
	pthread_cond_signal(&s->more_ended);
	/* Within the lock: once the main thread has seen it, the server may go. */
	_unused_ ssize_t n = write(s->ended_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
	pthread_mutex_unlock(&s->lock);
}

/* ---- memory ---- */

/* Idle for a second: the data's memory goes back to the kernel. */
static void give_back(struct nbd_conn *c)
{
	if (c->free_unit_count == NBD_UNITS)
		madvise(c->units, (size_t)NBD_UNITS * NBD_UNIT_BYTES, MADV_DONTNEED);
	if (!c->rx_len)
		madvise(c->rx, NBD_RX_BYTES, MADV_DONTNEED);
}

static void on_tick(struct blk_timer *t)
{
	struct nbd_conn *c = (struct nbd_conn *)((char *)t - offsetof(struct nbd_conn, tick));

	if (c->state == NBD_CONN_DRAINING && blk_queue_now(c->queue) >= c->drain_until_ns)
		nbd_conn_fail(c, NULL);
	if (c->state == NBD_CONN_OPEN && !c->busy && !c->inflight && !c->out) {
		give_back(c);
		return; /* armed again by the next event */
	}
	c->busy = false;
	arm_tick(c);
}

/* ---- receiving ---- */

static unsigned room(struct nbd_conn *c, struct iovec iov[NBD_PART_UNITS + 1])
{
	struct nbd_part *p = c->filling;
	unsigned n = 0;

	if (p) {
		uint32_t want = (uint32_t)blk_iov_bytes(p->iov, p->unit_count);
		n = blk_iov_slice(p->iov, p->unit_count, p->filled, want - p->filled, iov, NBD_PART_UNITS);
		/* What follows this part is the same write's data: that goes straight into the next part. */
		if (c->writing->issued + want < c->writing->rq.length)
			return n;
	}
	iov[n++] = (struct iovec){ c->rx + c->rx_len, NBD_RX_BYTES - c->rx_len };
	return n;
}

static ssize_t receive_into(struct nbd_conn *c, const struct iovec *iov, unsigned n)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n };

	if (c->tls)
		return tls_session_recv(c->tls, iov[0].iov_base, iov[0].iov_len);
	ssize_t got = recvmsg(c->fd, &msg, MSG_DONTWAIT);
	return got < 0 ? (errno == EINTR || errno == EWOULDBLOCK ? -EAGAIN : -errno) : got;
}

static void received(struct nbd_conn *c, uint32_t bytes)
{
	struct nbd_part *p = c->filling;

	blk_count(&c->counters->bytes_received, bytes);
	if (p) {
		uint32_t take = MIN_OF(bytes, (uint32_t)blk_iov_bytes(p->iov, p->unit_count) - p->filled);
		nbd_write_filled(c, take);
		bytes -= take;
	}
	c->rx_len += bytes;
	nbd_parse(c);
}

static void receive(struct nbd_conn *c)
{
	while (c->state == NBD_CONN_OPEN && c->readable && !c->stalled) {
		struct iovec iov[NBD_PART_UNITS + 1];
		unsigned n = room(c, iov);
		uint64_t asked = blk_iov_bytes(iov, n);
		ssize_t got = receive_into(c, iov, n);
		blk_count(&c->counters->receives, 1);
		if (got == -EAGAIN)
			c->readable = false;
		else if (got < 0)
			nbd_conn_fail(c, "has gone");
		else if (got == 0)
			nbd_conn_stop(c, c->inflight || c->out || c->writing ? "closed with requests out" : NULL);
		else {
			if (!c->tls && (uint64_t)got < asked)
				c->readable = false;
			received(c, (uint32_t)got);
		}
	}
}

void nbd_conn_progress(struct nbd_conn *c)
{
	if (c->state == NBD_CONN_OPEN && c->stalled) {
		c->stalled = false;
		nbd_parse(c);
	}
	receive(c);
	nbd_pump(c);
}

/* ---- events ---- */

static void on_event(struct blk_watch *w, uint32_t events)
{
	struct nbd_conn *c = (struct nbd_conn *)((char *)w - offsetof(struct nbd_conn, watch));

	c->busy = true;
	arm_tick(c);
	if (events & EPOLLOUT && c->blocked) {
		c->blocked = false;
		blk_watch_change(&c->watch, EPOLLIN | EPOLLRDHUP | EPOLLET);
		blk_queue_defer(c->queue, &c->flush);
	}
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->readable = true;
	if (events & (EPOLLHUP | EPOLLERR) && c->state == NBD_CONN_DRAINING)
		nbd_conn_fail(c, NULL);
	receive(c);
}

/* What TLS could not send before, when nothing new pushes it. */
static void send_rest(struct nbd_conn *c)
{
	if (!c->tls || c->state >= NBD_CONN_DEAD || c->out || c->blocked || !tls_session_unsent(c->tls))
		return;
	ssize_t n = tls_session_send(c->tls, NULL, 0);
	if (n < 0 && n != -EAGAIN)
		nbd_conn_fail(c, "has gone");
}

/* The batch's end: one send for all replies; what that freed is used at once; the connection's end. */
static void on_flush(struct blk_task *t)
{
	struct nbd_conn *c = (struct nbd_conn *)((char *)t - offsetof(struct nbd_conn, flush));

	if (c->state == NBD_CONN_ENDED)
		return;
	c->batch++;
	if (c->again)
		blk_queue_defer(c->queue, t);
	c->again = false;
	send_rest(c);
	nbd_send(c);
	nbd_conn_progress(c);
	if (has_ended(c) && !t->waiting)
		end(c);
}

static void on_start(struct blk_task *t)
{
	struct nbd_conn *c = (struct nbd_conn *)((char *)t - offsetof(struct nbd_conn, start));

	if (blk_watch_add(c->queue, &c->watch, c->fd, EPOLLIN | EPOLLRDHUP | EPOLLET, on_event)) {
		nbd_conn_fail(c, "cannot be watched");
		return;
	}
	c->busy = c->readable = true;
	arm_tick(c);
	nbd_parse(c); /* what came behind the handshake */
	receive(c);
}

static void on_drain(struct blk_task *t)
{
	nbd_conn_stop((struct nbd_conn *)((char *)t - offsetof(struct nbd_conn, drain)), NULL);
}

/* ---- the main thread's ---- */

int nbd_conn_new(struct nbd_server *s, struct nbd_conn **ret)
{
	struct nbd_conn *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->rx = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->rx == MAP_FAILED) {
		free(c);
		return -ENOMEM;
	}
	madvise(c->rx, MEMORY_BYTES, MADV_NOHUGEPAGE); /* what is not used must cost nothing */
	c->units = c->rx + NBD_RX_BYTES;
	c->server = s;
	c->fd = -1;
	c->hot = true;
	c->todo_last = &c->todo;
	c->out_last = &c->out;
	c->start.fn = on_start;
	c->drain.fn = on_drain;
	c->flush.fn = on_flush;
	c->tick.fn = on_tick;
	while (c->free_unit_count < NBD_UNITS) {
		c->free_units[c->free_unit_count] = (uint8_t)(NBD_UNITS - 1 - c->free_unit_count);
		c->free_unit_count++;
	}
	for (unsigned i = NBD_SLOTS; i--;) {
		c->slots[i].next = c->free_slots;
		c->free_slots = &c->slots[i];
		c->parts[i].next = c->free_parts;
		c->free_parts = &c->parts[i];
	}
	*ret = c;
	return 0;
}

void nbd_conn_begin(struct nbd_conn *c)
{
	struct nbd_server *s = c->server;
	unsigned index = s->next_queue++ % blk_stack_queues(s->stack);

	c->queue = blk_stack_queue(s->stack, index);
	c->counters = &s->counters[index];
	c->borrows = !c->tls && !c->view;
	c->next = s->conns;
	s->conns = c;
	s->conn_count++;
	blk_queue_post(c->queue, &c->start);
}

void nbd_conn_free(struct nbd_conn *c)
{
	if (!c)
		return;
	if (c->view)
		c->view_owner->ops->view_release(c->view_owner, c->view);
	tls_session_free(c->tls);
	if (c->fd >= 0)
		close(c->fd);
	munmap(c->rx, MEMORY_BYTES);
	free(c);
}
