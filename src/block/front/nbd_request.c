/* SPDX-License-Identifier: Apache-2.0 */
/* Requests: what a client may ask, and handing it to the stack. */
#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "block/front/nbd_priv.h"

/* ---- what may be asked: "Request types", "Error values" ---- */

static const struct {
	uint16_t flags;
	bool writes;
	int beyond_end; /* the error when it reaches beyond the end */
} commands[] = {
	[NBD_CMD_READ] = { NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_DF, false, -EINVAL },
	[NBD_CMD_WRITE] = { NBD_CMD_FLAG_FUA, true, -ENOSPC },
	[NBD_CMD_DISC] = { 0, false, -EINVAL },
	[NBD_CMD_FLUSH] = { NBD_CMD_FLAG_FUA, false, -EINVAL },
	[NBD_CMD_TRIM] = { NBD_CMD_FLAG_FUA, true, -EINVAL },
	[NBD_CMD_CACHE] = { 0, false, -EINVAL },
	[NBD_CMD_WRITE_ZEROES] = { NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, true, -ENOSPC },
	[NBD_CMD_BLOCK_STATUS] = { NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE, false, -EINVAL },
};

static int check_command(const struct nbd_conn *c, const struct nbd_request *rq)
{
	bool df = rq->flags & NBD_CMD_FLAG_DF;

	switch (rq->command) {
	case NBD_CMD_READ:
		if (df && !c->structured)
			return -EINVAL;
		return rq->length > (df ? NBD_ORDERED_MAX : NBD_PAYLOAD_MAX) ? (c->structured ? -EOVERFLOW : -EINVAL) : 0;
	case NBD_CMD_WRITE:
		return 0;
	case NBD_CMD_TRIM:
		return c->discards ? 0 : -EINVAL;
	case NBD_CMD_WRITE_ZEROES:
		return rq->flags & NBD_CMD_FLAG_FAST_ZERO && !c->fast_zeroes ? -EOPNOTSUPP : 0;
	case NBD_CMD_BLOCK_STATUS:
		return c->meta ? 0 : -EINVAL;
	default:
		return -EINVAL; /* CACHE is not offered */
	}
}

static int check(const struct nbd_conn *c, const struct nbd_request *rq)
{
	if (rq->command >= ARRAY_SIZE(commands) || rq->flags & ~commands[rq->command].flags)
		return -EINVAL;
	if (rq->command == NBD_CMD_FLUSH)
		return rq->offset || rq->length ? -EINVAL : 0;
	if (commands[rq->command].writes && c->read_only)
		return -EPERM;
	if (!rq->length || (rq->offset | rq->length) & (c->block_bytes - 1))
		return -EINVAL;
	if (rq->offset > c->size_bytes || rq->length > c->size_bytes - rq->offset)
		return commands[rq->command].beyond_end;
	return check_command(c, rq);
}

/* ---- to the stack and back ---- */

/* A read whose reply is one piece. */
static bool is_ordered(const struct nbd_conn *c, const struct nbd_slot *slot)
{
	return !c->structured || slot->rq.flags & NBD_CMD_FLAG_DF;
}

static void submit(struct nbd_conn *c, struct nbd_part *p)
{
	c->inflight++;
	if (c->view)
		blk_submit(c->view, &p->req);
	else
		blk_stack_submit(c->server->stack, &p->req);
}

/* A TRIM with FUA: a discard has no such flag, so a flush comes behind it. */
static bool flush_behind(struct nbd_conn *c, struct nbd_part *p)
{
	if (p->req.op != BLK_DISCARD || !(p->slot->rq.flags & NBD_CMD_FLAG_FUA) || p->req.result)
		return false;
	p->req = (struct blk_req){ .op = BLK_FLUSH, .queue = c->queue, .done = p->req.done, .ctx = p };
	submit(c, p);
	return true;
}

/*
 * Reading far ahead of the socket is good for disks; data that comes from memory it would only push out of the CPU's cache
 * before it is sent. Which one it is shows in when a read ends: those that are answered at once end in the batch after the one
 * in which they were submitted.
 */
static bool may_read(const struct nbd_conn *c, const struct nbd_slot *slot)
{
	bool held = slot->issued && is_ordered(c, slot) && slot != c->stream; /* nothing of it can be sent before all is there */

	return !c->hot || held || c->held_bytes < NBD_HOT_BYTES;
}

static void answer(struct nbd_conn *c, struct nbd_part *p, struct nbd_slot *slot)
{
	if (slot->rq.command == NBD_CMD_READ) {
		c->hot = p->batch == c->batch;
		slot->left -= (uint32_t)p->req.len_bytes;
		nbd_reply_read(c, p);
	} else {
		if (slot->rq.command == NBD_CMD_WRITE)
			slot->left -= (uint32_t)p->req.len_bytes;
		else
			slot->left = 0;
		nbd_part_put(c, p);
		if (!slot->left)
			nbd_reply_status(c, slot);
	}
}

static void part_done(struct blk_req *r)
{
	struct nbd_part *p = r->ctx;
	struct nbd_conn *c = p->conn;
	struct nbd_slot *slot = p->slot;

	c->inflight--;
	if (flush_behind(c, p))
		return;
	if (r->result && !slot->error)
		slot->error = r->result;
	if (slot->abandoned)
		nbd_part_put(c, p);
	else
		answer(c, p, slot);
	blk_queue_defer(c->queue, &c->flush); /* replies, and what waited for the part */
	if (c->out_bytes >= NBD_EARLY_BYTES) {
		nbd_send(c);
		c->in_done = true;
		nbd_pump(c);
		c->in_done = false;
	}
}

static void fill_req(struct nbd_conn *c, struct nbd_part *p, enum blk_op op, uint64_t off, uint64_t len)
{
	p->req = (struct blk_req){
		.op = op,
		.off_bytes = off,
		.len_bytes = len,
		.iov = p->unit_count ? p->iov : NULL,
		.iov_count = p->unit_count,
		.loan = { .wanted = op == BLK_READ && c->borrows },
		.queue = c->queue,
		.done = part_done,
		.ctx = p,
	};
}

/* ---- reads, and what has no data ---- */

static bool issue_read(struct nbd_conn *c, struct nbd_slot *slot)
{
	uint32_t len = MIN_OF(slot->rq.length - slot->issued, NBD_PART_BYTES);
	struct nbd_part *p = nbd_part_get(c, slot, len);

	if (!p)
		return false;
	fill_req(c, p, BLK_READ, slot->rq.offset + slot->issued, len);
	slot->issued += len;
	if (is_ordered(c, slot)) {
		if (slot->first)
			slot->last->next = p;
		else
			slot->first = p;
		slot->last = p;
	}
	c->held_bytes += len;
	p->batch = c->batch + c->in_done;
	c->again |= c->in_done;
	blk_queue_defer(c->queue, &c->flush); /* counts batches */
	submit(c, p);
	return true;
}

static bool issue_plain(struct nbd_conn *c, struct nbd_slot *slot)
{
	const struct nbd_request *rq = &slot->rq;
	struct nbd_part *p = nbd_part_get(c, slot, 0);

	if (!p)
		return false;
	if (rq->command == NBD_CMD_FLUSH)
		fill_req(c, p, BLK_FLUSH, 0, 0);
	else
		fill_req(c, p, rq->command == NBD_CMD_TRIM ? BLK_DISCARD : BLK_WRITE_ZEROES, rq->offset, rq->length);
	if (rq->command == NBD_CMD_WRITE_ZEROES)
		p->req.flags = (rq->flags & NBD_CMD_FLAG_FUA ? BLK_FUA : 0) | (rq->flags & NBD_CMD_FLAG_NO_HOLE ? 0 : BLK_MAY_UNMAP);
	slot->issued = rq->length;
	submit(c, p);
	return true;
}

/* ---- block status ---- */

static int ask_extents(struct nbd_conn *c, const struct nbd_request *rq, enum blk_extent_map map, struct blk_extent *out)
{
	struct blk_layer *l = c->view ? c->view : blk_stack_top(c->server->stack);
	unsigned max = rq->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : NBD_EXTENTS_MAX;
	int n = l->ops->extents ? l->ops->extents(l, map, rq->offset, rq->length, out, max) : 0;

	if (n == 0) { /* nothing is known: all is data */
		out[0] = (struct blk_extent){ rq->length, BLK_EXTENT_DATA };
		n = 1;
	}
	return n;
}

static uint32_t state_of(enum blk_extent_map map, enum blk_extent_kind kind)
{
	if (map == BLK_MAP_CHANGED)
		return kind == BLK_EXTENT_DATA ? NBD_STATE_CHANGED : 0;
	return kind == BLK_EXTENT_HOLE ? NBD_STATE_HOLE | NBD_STATE_ZERO : kind == BLK_EXTENT_ZERO ? NBD_STATE_ZERO : 0;
}

/* One context's chunk into out: its length, or a negative errno. Neighbours of one state become one descriptor, and nothing
 * reaches beyond what was asked for. */
static int put_extents(struct nbd_conn *c, const struct nbd_slot *slot, unsigned context, bool done, uint8_t *out)
{
	enum blk_extent_map map = context ? BLK_MAP_CHANGED : BLK_MAP_ALLOCATION;
	struct blk_extent extents[NBD_EXTENTS_MAX];
	uint8_t *descriptor = out + NBD_CHUNK_BYTES + 4 - 8;
	uint32_t left = slot->rq.length, before = UINT32_MAX;
	int n = ask_extents(c, &slot->rq, map, extents);

	if (n < 0)
		return n;
	for (int i = 0; i < n && left; i++) {
		uint32_t len = (uint32_t)MIN_OF(extents[i].len_bytes, (uint64_t)left), state = state_of(map, extents[i].kind);
		if (!len)
			continue;
		if (state == before) {
			nbd_put32(descriptor, nbd_get32(descriptor) + len);
		} else {
			descriptor += 8;
			nbd_put32(descriptor, len);
			nbd_put32(descriptor + 4, state);
		}
		before = state;
		left -= len;
	}
	if (left == slot->rq.length)
		return -EIO;
	uint32_t length = (uint32_t)(descriptor + 8 - out - NBD_CHUNK_BYTES);
	nbd_chunk_encode(&(struct nbd_chunk){ done ? NBD_CHUNK_DONE : 0, NBD_CHUNK_BLOCK_STATUS, slot->rq.cookie, length }, out);
	nbd_put32(out + NBD_CHUNK_BYTES, context + 1);
	return (int)(NBD_CHUNK_BYTES + length);
}

static bool issue_status(struct nbd_conn *c, struct nbd_slot *slot)
{
	struct nbd_part *p = nbd_part_get(c, slot, NBD_UNIT_BYTES);
	int total = 0;

	_Static_assert(2 * (NBD_CHUNK_BYTES + 4 + 8 * NBD_EXTENTS_MAX) <= NBD_UNIT_BYTES, "replies of both contexts fit a unit");
	if (!p)
		return false;
	slot->issued = slot->rq.length;
	for (unsigned context = 0; context < 2 && total >= 0; context++) {
		if (!(c->meta & 1u << context))
			continue;
		int n = put_extents(c, slot, context, !(c->meta >> (context + 1)), (uint8_t *)p->iov[0].iov_base + total);
		total = n < 0 ? n : total + n;
	}
	if (total > 0) {
		nbd_reply_raw(c, p, (uint32_t)total);
		return true;
	}
	slot->error = total;
	nbd_part_put(c, p);
	nbd_reply_status(c, slot);
	return true;
}

void nbd_pump(struct nbd_conn *c)
{
	while (c->todo && may_read(c, c->todo)) {
		struct nbd_slot *slot = c->todo;
		struct nbd_slot *next = slot->next;
		bool issued;
		/* A stream begins when nothing else can come between its parts. */
		if (slot == c->stream && !slot->issued && (c->inflight || c->out))
			return;
		if (slot->rq.command == NBD_CMD_READ)
			issued = issue_read(c, slot);
		else if (slot->rq.command == NBD_CMD_BLOCK_STATUS)
			issued = issue_status(c, slot);
		else
			issued = issue_plain(c, slot);
		if (!issued)
			return;
		if (slot->issued == slot->rq.length) {
			c->todo = next;
			if (!c->todo)
				c->todo_last = &c->todo;
		}
	}
}

/* ---- writes ---- */

void nbd_write_filled(struct nbd_conn *c, uint32_t bytes)
{
	struct nbd_slot *slot = c->writing;
	struct nbd_part *p = c->filling;
	uint32_t want = (uint32_t)blk_iov_bytes(p->iov, p->unit_count);

	p->filled += bytes;
	if (p->filled < want)
		return;
	fill_req(c, p, BLK_WRITE, slot->rq.offset + slot->issued, want);
	p->req.flags = slot->rq.flags & NBD_CMD_FLAG_FUA ? BLK_FUA : 0;
	slot->issued += want;
	c->filling = NULL;
	if (slot->issued == slot->rq.length)
		c->writing = NULL;
	submit(c, p);
}

/* Payload that came with its request. False: nothing more can be done now. */
static bool take_payload(struct nbd_conn *c)
{
	struct nbd_slot *slot = c->writing;

	if (!c->filling)
		c->filling = nbd_part_get(c, slot, MIN_OF(slot->rq.length - slot->issued, NBD_PART_BYTES));
	if (!c->filling) {
		c->stalled = true;
		return false;
	}
	struct nbd_part *p = c->filling;
	uint32_t want = (uint32_t)blk_iov_bytes(p->iov, p->unit_count) - p->filled, take = MIN_OF(want, c->rx_len - c->rx_at);
	if (!take)
		return false;
	blk_iov_to(p->iov, p->unit_count, p->filled, c->rx + c->rx_at, take);
	c->rx_at += take;
	nbd_write_filled(c, take);
	return true;
}

/* ---- parsing ---- */

static bool take_skip(struct nbd_conn *c)
{
	uint32_t take = MIN_OF(c->skip, c->rx_len - c->rx_at);

	c->rx_at += take;
	c->skip -= take;
	return take > 0;
}

static void begin(struct nbd_conn *c, struct nbd_slot *slot)
{
	const struct nbd_request *rq = &slot->rq;

	if (rq->command == NBD_CMD_WRITE) {
		c->writing = slot;
		return;
	}
	if (rq->command == NBD_CMD_READ && !c->structured && rq->length > NBD_ORDERED_MAX)
		c->stream = slot;
	slot->next = NULL;
	*c->todo_last = slot;
	c->todo_last = &slot->next;
}

static bool take_request(struct nbd_conn *c)
{
	struct nbd_slot *slot = c->free_slots;
	struct nbd_request rq;

	if (c->rx_len - c->rx_at < NBD_REQUEST_BYTES)
		return false;
	if (!slot || c->stream) {
		c->stalled = true;
		return false;
	}
	int err = nbd_request_decode(c->rx + c->rx_at, &rq);
	c->rx_at += NBD_REQUEST_BYTES;
	if (err || (rq.command == NBD_CMD_WRITE && rq.length > NBD_PAYLOAD_MAX)) {
		nbd_conn_fail(c, err ? "sent no request where one was due" : "sent a write that is too long");
		return false;
	}
	if (rq.command == NBD_CMD_DISC) {
		nbd_conn_stop(c, NULL);
		return false;
	}
	c->free_slots = slot->next;
	*slot = (struct nbd_slot){ .rq = rq, .refs = 1, .left = rq.length, .error = check(c, &rq) };
	blk_count(&c->counters->requests, 1);
	if (slot->error) {
		c->skip = rq.command == NBD_CMD_WRITE ? rq.length : 0;
		nbd_reply_status(c, slot);
	} else {
		begin(c, slot);
	}
	return true;
}

void nbd_parse(struct nbd_conn *c)
{
	bool more = true;

	while (more && c->state == NBD_CONN_OPEN) {
		if (c->skip)
			more = take_skip(c);
		else if (c->writing)
			more = take_payload(c);
		else
			more = take_request(c);
	}
	if (c->stalled)
		blk_count(&c->counters->stalls, 1);
	if (c->rx_at) {
		memmove(c->rx, c->rx + c->rx_at, c->rx_len - c->rx_at);
		c->rx_len -= c->rx_at;
		c->rx_at = 0;
	}
	nbd_pump(c);
}
