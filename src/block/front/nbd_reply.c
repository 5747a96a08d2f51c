/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies and sending. With structured replies a read's parts are chunks, queued as they end, the last one with the DONE flag.
 * Where a reply must be one piece (simple replies, DF) its parts wait in slot->first until all are there, so that an error can
 * still be told; a longer one ("stream") is sent as it comes, alone, and an error in its middle ends the connection.
 */
#include <errno.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "block/front/nbd_priv.h"

#define SEND_IOV 256

/* ---- memory ---- */

struct nbd_part *nbd_part_get(struct nbd_conn *c, struct nbd_slot *slot, uint32_t bytes)
{
	struct nbd_part *p = c->free_parts;
	unsigned units = (bytes + NBD_UNIT_BYTES - 1) / NBD_UNIT_BYTES;

	if (!p || units > c->free_unit_count)
		return NULL;
	c->free_parts = p->next;
	p->next = NULL;
	p->conn = c;
	p->slot = slot;
	p->filled = 0;
	p->ended = false;
	p->req.loan = (struct blk_loan){ 0 };
	p->unit_count = (uint8_t)units;
	for (unsigned i = 0; i < units; i++) {
		uint8_t unit = c->free_units[--c->free_unit_count];
		uint32_t len = MIN_OF(bytes, NBD_UNIT_BYTES);
		p->units[i] = unit;
		p->iov[i] = (struct iovec){ c->units + (size_t)unit * NBD_UNIT_BYTES, len };
		bytes -= len;
	}
	slot->refs++;
	return p;
}

void nbd_part_put(struct nbd_conn *c, struct nbd_part *p)
{
	while (p->unit_count)
		c->free_units[c->free_unit_count++] = p->units[--p->unit_count];
	if (p->slot->rq.command == NBD_CMD_READ)
		c->held_bytes -= p->req.len_bytes;
	p->next = c->free_parts;
	c->free_parts = p;
	nbd_slot_unref(c, p->slot);
}

void nbd_slot_unref(struct nbd_conn *c, struct nbd_slot *slot)
{
	if (--slot->refs)
		return;
	if (c->stream == slot)
		c->stream = NULL;
	slot->next = c->free_slots;
	c->free_slots = slot;
}

void nbd_slot_abandon(struct nbd_conn *c, struct nbd_slot *slot)
{
	slot->abandoned = true;
	for (struct nbd_part *p = slot->first, *next; p; p = next) {
		next = p->next;
		if (p->ended) /* the others are put back when they end */
			nbd_part_put(c, p);
	}
	slot->first = NULL;
	nbd_slot_unref(c, slot);
}

/* ---- queueing ---- */

static void release(struct nbd_conn *c, struct nbd_out *o)
{
	if (o->part)
		nbd_part_put(c, o->part);
	else
		nbd_slot_unref(c, o->slot);
}

/* o holds a reference to its slot, or its part does. */
static void queue_out(struct nbd_conn *c, struct nbd_out *o)
{
	if (c->state == NBD_CONN_DEAD) {
		release(c, o);
		return;
	}
	o->next = NULL;
	*c->out_last = o;
	c->out_last = &o->next;
	c->out_bytes += o->head_bytes + o->data_bytes;
	blk_queue_defer(c->queue, &c->flush);
}

void nbd_reply_status(struct nbd_conn *c, struct nbd_slot *slot)
{
	struct nbd_out *o = &slot->out;
	uint32_t error = nbd_errno(slot->error);

	if (error)
		blk_count(&c->counters->errors, 1);
	*o = (struct nbd_out){ .slot = slot };
	if (error && c->structured)
		o->head_bytes = (uint32_t)nbd_chunk_error_encode(slot->rq.cookie, error, o->head);
	else
		o->head_bytes = (uint32_t)nbd_simple_reply_encode(&(struct nbd_simple_reply){ error, slot->rq.cookie }, o->head);
	queue_out(c, o); /* with the slot's own reference */
}

static void queue_part(struct nbd_conn *c, struct nbd_part *p)
{
	p->out.slot = p->slot;
	p->out.part = p;
	queue_out(c, &p->out);
}

void nbd_reply_raw(struct nbd_conn *c, struct nbd_part *p, uint32_t bytes)
{
	struct nbd_slot *slot = p->slot;

	p->out = (struct nbd_out){ .data_bytes = bytes };
	p->iov[0].iov_len = bytes;
	queue_part(c, p);
	nbd_slot_unref(c, slot);
}

/* ---- reads ---- */

static bool is_zero(const struct nbd_part *p)
{
	for (unsigned i = 0; i < p->unit_count; i++) {
		const char *data = p->iov[i].iov_base;
		size_t len = p->iov[i].iov_len;
		if (memcmp(data, "\0\0\0\0\0\0\0\0", 8) != 0 || memcmp(data, data + 8, len - 8) != 0)
			return false;
	}
	return true;
}

/* A part's chunk. Zeroes are found in the data itself: right whatever the layers below know of holes. What is lent has others. */
static void queue_chunk(struct nbd_conn *c, struct nbd_part *p, bool done)
{
	struct nbd_slot *slot = p->slot;
	uint64_t cookie = slot->rq.cookie, off = p->req.off_bytes;
	uint32_t len = (uint32_t)p->req.len_bytes;

	p->out = (struct nbd_out){ 0 };
	if (len >= 2 * NBD_UNIT_BYTES && !p->req.loan.given && is_zero(p)) {
		p->out.head_bytes = (uint32_t)nbd_chunk_hole_encode(cookie, done, off, len, p->out.head);
		blk_count(&c->counters->holes, 1);
	} else {
		p->out.head_bytes = (uint32_t)nbd_chunk_data_encode(cookie, done, off, len, p->out.head);
		p->out.data_bytes = len;
	}
	queue_part(c, p);
	if (done)
		nbd_slot_unref(c, slot);
}

static void reply_chunk(struct nbd_conn *c, struct nbd_part *p)
{
	struct nbd_slot *slot = p->slot;
	bool last = !slot->left;

	if (p->req.result)
		nbd_part_put(c, p);
	else
		queue_chunk(c, p, last && !slot->error);
	if (last && slot->error)
		nbd_reply_status(c, slot);
}

static struct nbd_part *pop_ordered(struct nbd_slot *slot)
{
	struct nbd_part *p = slot->first;

	slot->first = p->next;
	p->next = NULL;
	return p;
}

/* The next part of an ordered reply; the reply's header goes with the first. */
static void queue_ordered(struct nbd_conn *c, struct nbd_slot *slot)
{
	struct nbd_part *p = pop_ordered(slot);
	struct nbd_out *o = &p->out;

	*o = (struct nbd_out){ .data_bytes = (uint32_t)p->req.len_bytes };
	if (!slot->head_queued && c->structured)
		o->head_bytes = (uint32_t)nbd_chunk_data_encode(slot->rq.cookie, true, slot->rq.offset, slot->rq.length, o->head);
	else if (!slot->head_queued)
		o->head_bytes = (uint32_t)nbd_simple_reply_encode(&(struct nbd_simple_reply){ 0, slot->rq.cookie }, o->head);
	slot->head_queued = true;
	queue_part(c, p);
}

static void reply_ordered(struct nbd_conn *c, struct nbd_part *ended)
{
	struct nbd_slot *slot = ended->slot;

	ended->ended = true;
	if (slot->error && slot->head_queued)
		nbd_conn_fail(c, "was cut off: a read failed within its reply");
	if (slot->abandoned)
		return;
	if (c->stream == slot && !slot->error) {
		while (slot->first && slot->first->ended)
			queue_ordered(c, slot);
	}
	if (slot->left)
		return;
	bool whole = slot->head_queued || !slot->error;
	while (slot->first && !slot->error)
		queue_ordered(c, slot);
	while (slot->first)
		nbd_part_put(c, pop_ordered(slot));
	if (whole)
		nbd_slot_unref(c, slot);
	else
		nbd_reply_status(c, slot);
}

void nbd_reply_read(struct nbd_conn *c, struct nbd_part *p)
{
	if (c->structured && !(p->slot->rq.flags & NBD_CMD_FLAG_DF))
		reply_chunk(c, p);
	else
		reply_ordered(c, p);
}

/* ---- sending ---- */

static bool is_lent(const struct nbd_out *o)
{
	return o->data_bytes && o->part->req.loan.given;
}

/* As far as to the next data that is lent: *ret_lent. */
static unsigned gather(const struct nbd_conn *c, struct iovec *iov, unsigned max, bool *ret_lent)
{
	uint32_t skip = c->out_sent;
	unsigned n = 0;

	*ret_lent = false;
	for (const struct nbd_out *o = c->out; o && n + 1 + NBD_PART_UNITS <= max; o = o->next) {
		if (skip < o->head_bytes) {
			iov[n++] = (struct iovec){ (void *)(o->head + skip), o->head_bytes - skip };
			skip = 0;
		} else {
			skip -= o->head_bytes;
		}
		*ret_lent = is_lent(o);
		if (*ret_lent)
			break;
		if (o->data_bytes)
			n += blk_iov_slice(o->part->iov, o->part->unit_count, skip, o->data_bytes - skip, iov + n, max - n);
		skip = 0;
	}
	return n;
}

static ssize_t send_own(struct nbd_conn *c)
{
	struct iovec iov[SEND_IOV];
	bool lent;
	unsigned n = gather(c, iov, SEND_IOV, &lent);

	if (c->tls)
		return tls_session_send(c->tls, iov, n);
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t sent = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT | (lent ? MSG_MORE : 0));
	return sent < 0 ? (errno == EINTR ? -EAGAIN : -errno) : sent;
}

/* What was lent cannot be sent from where it lies: it is copied after all, and nothing is borrowed any more. It may wait for the
 * disk: the page cache had it, and has given it up, or the kernel cannot do this with that file. */
static int give_up_loan(struct nbd_conn *c, struct nbd_part *p)
{
	const struct blk_loan *loan = &p->req.loan;

	c->borrows = false;
	if (preadv(loan->fd, p->iov, p->unit_count, (off_t)loan->off_bytes) != (ssize_t)p->req.len_bytes)
		return -EIO;
	p->req.loan.given = false;
	return 0;
}

static ssize_t send_lent(struct nbd_conn *c, struct nbd_part *p, uint32_t skip)
{
	off_t off = (off_t)(p->req.loan.off_bytes + skip);
	ssize_t sent = sendfile(c->fd, p->req.loan.fd, &off, p->req.len_bytes - skip);

	if (sent > 0) {
		blk_count(&c->counters->lent_bytes, (uint64_t)sent);
		return sent;
	}
	if (sent < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	if (sent < 0 && (errno == EPIPE || errno == ECONNRESET))
		return -errno;
	int err = give_up_loan(c, p);
	return err ? err : send_own(c);
}

static ssize_t transmit(struct nbd_conn *c)
{
	const struct nbd_out *o = c->out;

	if (is_lent(o) && c->out_sent >= o->head_bytes)
		return send_lent(c, o->part, c->out_sent - o->head_bytes);
	return send_own(c);
}

static void advance(struct nbd_conn *c, uint64_t bytes)
{
	c->out_bytes -= bytes;
	blk_count(&c->counters->bytes_sent, bytes);
	while (c->out) {
		struct nbd_out *o = c->out;
		uint32_t left = o->head_bytes + o->data_bytes - c->out_sent;
		if (bytes < left)
			break;
		bytes -= left;
		c->out_sent = 0;
		c->out = o->next;
		if (!c->out)
			c->out_last = &c->out;
		release(c, o);
	}
	c->out_sent += (uint32_t)bytes;
}

void nbd_out_drop(struct nbd_conn *c)
{
	while (c->out) {
		struct nbd_out *o = c->out;
		c->out = o->next;
		release(c, o);
	}
	c->out_last = &c->out;
	c->out_bytes = c->out_sent = 0;
}

static void wait_for_room(struct nbd_conn *c)
{
	c->blocked = true;
	blk_watch_change(&c->watch, EPOLLIN | EPOLLRDHUP | EPOLLOUT | EPOLLET);
}

void nbd_send(struct nbd_conn *c)
{
	while (c->out && !c->blocked && c->state != NBD_CONN_DEAD) {
		ssize_t n = transmit(c);
		if (n == -EAGAIN || n == -EWOULDBLOCK)
			wait_for_room(c);
		else if (n < 0)
			nbd_conn_fail(c, n == -EIO ? "was cut off: a read failed within its reply" : "has gone");
		else
			advance(c, (uint64_t)n);
		blk_count(&c->counters->sends, 1);
	}
	if (c->tls && tls_session_unsent(c->tls) && !c->blocked && c->state != NBD_CONN_DEAD)
		wait_for_room(c);
}
