/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server sends. Data goes from the socket straight into its request's memory, but for what came in one piece with the
 * header before it. Whatever does not fit what was asked for ends the connection ("Structured reply types"), never the process.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "block/back/nbd_priv.h"

#define ERROR_CHUNK_MAX (4096u + 64)

/* ---- data ---- */

static void data_arrived(struct nbd_link *k, uint32_t bytes)
{
	struct nbd_slot *slot = k->reading;

	k->read_at += bytes;
	k->read_left -= bytes;
	if (k->read_left)
		return;
	k->reading = NULL;
	/* A simple reply ends with its data; a chunk with the DONE flag was noted as an answer by begin_data(). */
	if (slot->answered)
		nbd_slot_done(k, slot, slot->error ? slot->error : slot->received == slot->rq.length ? 0 : -EIO);
}

/* The next len bytes are slot's, at off of the export. last: the reply ends with them. */
static int begin_data(struct nbd_link *k, struct nbd_slot *slot, uint64_t off, uint32_t len, bool last)
{
	const struct nbd_request *rq = &slot->rq;

	if (rq->command != NBD_CMD_READ || off < rq->offset || len > rq->length || off - rq->offset > rq->length - len ||
	    len > rq->length - slot->received)
		return -EPROTO;
	slot->received += len;
	slot->answered = last;
	k->reading = slot;
	k->read_at = (uint32_t)(off - rq->offset);
	k->read_left = len;
	return 0;
}

/* Where in its request's memory a slot's byte lies. */
static uint64_t place(const struct nbd_slot *slot, uint32_t at)
{
	return slot->rq.offset - slot->req->off_bytes + at;
}

static void take_data(struct nbd_link *k)
{
	struct nbd_slot *slot = k->reading;
	uint32_t take = MIN_OF(k->read_left, k->rx_len - k->rx_at);

	blk_iov_to(slot->req->iov, slot->req->iov_count, place(slot, k->read_at), k->rx + k->rx_at, take);
	k->rx_at += take;
	data_arrived(k, take);
}

/* ---- replies ---- */

/* The slot that a reply is for: one that was sent, with this very cookie. */
static struct nbd_slot *find(struct nbd_link *k, uint64_t cookie)
{
	uint64_t index = cookie & UINT32_MAX;
	struct nbd_slot *slot = index < NBD_LINK_SLOTS ? &k->slots[index] : NULL;

	if (!slot || slot->state == NBD_SLOT_FREE || slot->rq.cookie != cookie || slot->answered)
		return NULL;
	/* Of what is still being sent only that can be answered which the server has seen: the first. */
	if (slot->state == NBD_SLOT_QUEUED && (slot != k->out || k->out_sent < NBD_REQUEST_BYTES))
		return NULL;
	return slot;
}

static int finish(struct nbd_link *k, struct nbd_slot *slot, int err)
{
	if (err == -ESHUTDOWN) /* the server is about to go: what it does not do now another will */
		return -ECONNRESET;
	nbd_slot_done(k, slot, err);
	return 0;
}

static int take_simple(struct nbd_link *k, const struct nbd_reply *r)
{
	struct nbd_slot *slot = find(k, r->cookie);

	if (!slot || (slot->rq.command == NBD_CMD_READ && k->client->remote.structured))
		return -EPROTO;
	if (r->error || slot->rq.command != NBD_CMD_READ)
		return finish(k, slot, nbd_errno_decode(r->error));
	return begin_data(k, slot, slot->rq.offset, slot->rq.length, true);
}

static int take_error(const struct nbd_reply *r, const uint8_t *payload, struct nbd_slot *slot)
{
	uint32_t error = nbd_get32(payload), fixed = r->type == NBD_CHUNK_ERROR_OFFSET ? 14 : 6;

	if (!error || nbd_get16(payload + 4) > r->length - fixed)
		return -EPROTO;
	if (!slot->error)
		slot->error = nbd_errno_decode(error);
	return 0;
}

static int take_hole(const uint8_t *payload, struct nbd_slot *slot)
{
	const struct nbd_request *rq = &slot->rq;
	uint64_t off = nbd_get64(payload);
	uint32_t len = nbd_get32(payload + 8);

	if (rq->command != NBD_CMD_READ || !len || off < rq->offset || len > rq->length || off - rq->offset > rq->length - len ||
	    len > rq->length - slot->received)
		return -EPROTO;
	blk_iov_zero(slot->req->iov, slot->req->iov_count, place(slot, (uint32_t)(off - rq->offset)), len);
	slot->received += len;
	return 0;
}

static int chunk_ended(struct nbd_link *k, const struct nbd_reply *r, struct nbd_slot *slot)
{
	if (!(r->flags & NBD_CHUNK_DONE))
		return 0;
	if (!slot->error && slot->rq.command == NBD_CMD_READ && slot->received != slot->rq.length)
		return -EPROTO; /* "enough data chunks to cover the entire region" */
	return finish(k, slot, slot->error);
}

/* A chunk whose header is at rx_at. 1: more bytes are needed. */
static int take_chunk(struct nbd_link *k, const struct nbd_reply *r)
{
	struct nbd_slot *slot = find(k, r->cookie);
	uint32_t have = k->rx_len - k->rx_at, need = NBD_CHUNK_BYTES + (r->type == NBD_CHUNK_DATA ? 8 : r->length);
	const uint8_t *payload = k->rx + k->rx_at + NBD_CHUNK_BYTES;
	int err;

	if (!slot || !k->client->remote.structured || (r->type != NBD_CHUNK_DATA && r->length > ERROR_CHUNK_MAX))
		return -EPROTO;
	if (have < need)
		return 1;
	k->rx_at += need;
	if (r->type == NBD_CHUNK_DATA)
		return begin_data(k, slot, nbd_get64(payload), r->length - 8, r->flags & NBD_CHUNK_DONE);
	if (r->type == NBD_CHUNK_HOLE)
		err = take_hole(payload, slot);
	else if (r->type & NBD_CHUNK_IS_ERROR)
		err = take_error(r, payload, slot);
	else
		err = r->type == NBD_CHUNK_NONE ? 0 : -EPROTO;
	return err ? err : chunk_ended(k, r, slot);
}

static int take_reply(struct nbd_link *k)
{
	struct nbd_reply r;
	uint32_t have = k->rx_len - k->rx_at;

	if (have < NBD_SIMPLE_REPLY_BYTES)
		return 1;
	int used = nbd_reply_decode(k->rx + k->rx_at, have, &r);
	if (used <= 0)
		return used ? used : 1;
	if (r.structured)
		return take_chunk(k, &r);
	k->rx_at += (uint32_t)used;
	return take_simple(k, &r);
}

int nbd_take_replies(struct nbd_link *k)
{
	int err = 0;

	while (!err && k->rx_at < k->rx_len) {
		if (k->reading)
			take_data(k);
		else
			err = take_reply(k);
	}
	if (k->rx_at) {
		memmove(k->rx, k->rx + k->rx_at, k->rx_len - k->rx_at);
		k->rx_len -= k->rx_at;
		k->rx_at = 0;
	}
	return MIN_OF(err, 0);
}

/* ---- the socket ---- */

static ssize_t receive_some(struct nbd_link *k, uint64_t *asked)
{
	struct iovec iov[BLK_IOV_MAX + 1];
	unsigned n = 0;

	if (k->reading) {
		const struct blk_req *r = k->reading->req;
		n = blk_iov_slice(r->iov, r->iov_count, place(k->reading, k->read_at), k->read_left, iov, BLK_IOV_MAX);
	}
	iov[n++] = (struct iovec){ k->rx + k->rx_len, NBD_LINK_RX_BYTES - k->rx_len };
	*asked = blk_iov_bytes(iov, n);
	if (k->tls)
		return tls_session_recv(k->tls, iov[0].iov_base, iov[0].iov_len);
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t got = recvmsg(k->fd, &msg, MSG_DONTWAIT);
	return got < 0 ? (errno == EINTR || errno == EWOULDBLOCK ? -EAGAIN : -errno) : got;
}

void nbd_receive(struct nbd_link *k)
{
	while (k->fd >= 0) {
		uint64_t asked;
		ssize_t got = receive_some(k, &asked);
		if (got == -EAGAIN)
			return;
		if (got <= 0) {
			nbd_link_lost(k, got == -EPROTO);
			return;
		}
		k->heard_ns = blk_queue_now(k->queue);
		uint32_t rest = (uint32_t)got;
		if (k->reading) {
			uint32_t take = MIN_OF(k->read_left, rest);
			data_arrived(k, take);
			rest -= take;
		}
		k->rx_len += rest;
		int err = nbd_take_replies(k);
		if (err)
			nbd_link_lost(k, err == -EPROTO);
		if (!k->tls && (uint64_t)got < asked)
			return; /* the watch is level-triggered */
	}
}
