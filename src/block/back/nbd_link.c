/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link: requests in, pieces out, and its ups and downs. All on its queue's thread, but for the inbox.
 *
 *   inbox → waiting ──piece by piece──→ slots ──QUEUED──→ SENT ──reply──→ the request's end, or its next stage
 *
 * While a request is here its scratch holds how much of it has become pieces, how many pieces are out, the first error, and its
 * stage: a FUA write to a server without FUA, and a FUA WRITE_ZEROES likewise, is followed by a FLUSH.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/back/nbd_priv.h"

#define SEND_IOV 512u
#define TICK_NS 250000000u

enum { MADE, OUT, ERROR, STAGE }; /* scratch */

/* ---- requests ---- */

static bool wants_flush(const struct nbd_client *c, const struct blk_req *r)
{
	return r->flags & BLK_FUA && r->op != BLK_FLUSH && !(c->remote.flags & NBD_SEND_FUA) && c->remote.flags & NBD_SEND_FLUSH;
}

/* What the server cannot do ends at once: a TRIM it does not know is a hint, a FLUSH without a cache is nothing. */
static bool is_nothing(const struct nbd_client *c, const struct blk_req *r)
{
	return (r->op == BLK_FLUSH && !(c->remote.flags & NBD_SEND_FLUSH)) || (r->op == BLK_DISCARD && !(c->remote.flags & NBD_SEND_TRIM));
}

static void request_ended(struct nbd_link *k, struct blk_req *r)
{
	if (!r->scratch[ERROR] && !r->scratch[STAGE] && wants_flush(k->client, r)) {
		r->scratch[MADE] = 0;
		r->scratch[STAGE] = 1;
		blk_list_push(&k->waiting, r);
		blk_queue_defer(k->queue, &k->flush);
		return;
	}
	blk_complete(r, -(int)r->scratch[ERROR]);
}

/* What of r is still to become pieces; a flush counts as one byte. */
static uint64_t left_of(const struct blk_req *r)
{
	uint64_t whole = r->op == BLK_FLUSH || r->scratch[STAGE] ? 1 : r->len_bytes;

	return whole - r->scratch[MADE];
}

static void slot_free(struct nbd_link *k, struct nbd_slot *slot)
{
	slot->state = NBD_SLOT_FREE;
	slot->req = NULL;
	slot->next = k->free;
	k->free = slot;
	k->used--;
}

void nbd_slot_done(struct nbd_link *k, struct nbd_slot *slot, int err)
{
	struct blk_req *r = slot->req;

	if (slot->state == NBD_SLOT_QUEUED) { /* the answer came before all was sent */
		slot->answered = true;
		slot->error = err;
		return;
	}
	slot_free(k, slot);
	if (err && !r->scratch[ERROR])
		r->scratch[ERROR] = (uint64_t)-err;
	if (--r->scratch[OUT] == 0 && !left_of(r))
		request_ended(k, r);
	if (!blk_list_empty(&k->waiting))
		blk_queue_defer(k->queue, &k->flush);
}

static uint16_t command_of(const struct nbd_client *c, const struct blk_req *r)
{
	if (r->scratch[STAGE])
		return NBD_CMD_FLUSH;
	switch (r->op) {
	case BLK_READ:
		return NBD_CMD_READ;
	case BLK_FLUSH:
		return NBD_CMD_FLUSH;
	case BLK_DISCARD:
		return NBD_CMD_TRIM;
	case BLK_WRITE_ZEROES:
		return c->remote.flags & NBD_SEND_WRITE_ZEROES ? NBD_CMD_WRITE_ZEROES : NBD_CMD_WRITE;
	default:
		return NBD_CMD_WRITE;
	}
}

static uint64_t piece_max(const struct nbd_client *c, const struct blk_req *r, uint16_t command)
{
	uint64_t most = NBD_PIECE_MAX;

	if (command == NBD_CMD_READ || command == NBD_CMD_WRITE)
		most = MIN_OF(c->remote.maximum, NBD_PAYLOAD_MAX);
	if (command == NBD_CMD_WRITE && r->op == BLK_WRITE_ZEROES)
		most = MIN_OF(most, NBD_ZERO_BYTES);
	return most & ~(uint64_t)(c->block_bytes - 1);
}

static void make_piece(struct nbd_link *k, struct blk_req *r)
{
	struct nbd_client *c = k->client;
	struct nbd_slot *slot = k->free;
	uint16_t command = command_of(c, r), flags = 0;
	uint64_t len = MIN_OF(left_of(r), piece_max(c, r, command));

	k->free = slot->next;
	k->used++;
	if (r->flags & BLK_FUA && c->remote.flags & NBD_SEND_FUA && (command == NBD_CMD_WRITE || command == NBD_CMD_WRITE_ZEROES))
		flags |= NBD_CMD_FLAG_FUA;
	if (command == NBD_CMD_WRITE_ZEROES && !(r->flags & BLK_MAY_UNMAP))
		flags |= NBD_CMD_FLAG_NO_HOLE;
	*slot = (struct nbd_slot){ .req = r, .seq = k->next_seq++, .generation = slot->generation };
	slot->rq = (struct nbd_request){ .flags = flags, .command = command };
	if (command == NBD_CMD_FLUSH) {
		len = 1;
	} else {
		slot->rq.offset = r->off_bytes + r->scratch[MADE];
		slot->rq.length = (uint32_t)len;
	}
	r->scratch[MADE] += len;
	r->scratch[OUT]++;
	atomic_fetch_add_explicit(&c->counters.requests, 1, memory_order_relaxed);
	slot->state = NBD_SLOT_QUEUED;
	*k->out_last = slot;
	k->out_last = &slot->next;
}

/* A header for what goes out now: each sending has a cookie of its own. */
static void put_header(struct nbd_link *k, struct nbd_slot *slot)
{
	slot->generation++;
	slot->rq.cookie = (uint64_t)slot->generation << 32 | (uint64_t)(slot - k->slots);
	slot->received = 0;
	slot->answered = false;
	slot->error = 0;
	nbd_request_encode(&slot->rq, slot->header);
}

static void make_pieces(struct nbd_link *k)
{
	while (k->free && !blk_list_empty(&k->waiting)) {
		struct blk_req *r = k->waiting.first;
		struct nbd_slot *slot = k->free;
		make_piece(k, r);
		put_header(k, slot);
		if (!left_of(r))
			blk_list_pop(&k->waiting);
	}
}

/* ---- sending ---- */

static uint64_t bytes_of(const struct nbd_slot *slot)
{
	return NBD_REQUEST_BYTES + (slot->rq.command == NBD_CMD_WRITE ? slot->rq.length : 0);
}

/* False: no room in iov for all of it. */
static bool gather_one(struct nbd_link *k, const struct nbd_slot *slot, uint64_t skip, struct iovec *iov, unsigned *n)
{
	struct blk_req *r = slot->req;

	if (*n + 2 + r->iov_count > SEND_IOV)
		return false;
	if (skip < NBD_REQUEST_BYTES) {
		iov[(*n)++] = (struct iovec){ (void *)(slot->header + skip), NBD_REQUEST_BYTES - skip };
		skip = NBD_REQUEST_BYTES;
	}
	skip -= NBD_REQUEST_BYTES;
	if (slot->rq.command != NBD_CMD_WRITE)
		return true;
	uint64_t len = slot->rq.length - skip;
	if (r->op == BLK_WRITE_ZEROES)
		iov[(*n)++] = (struct iovec){ k->client->zeroes, len };
	else
		*n += blk_iov_slice(r->iov, r->iov_count, slot->rq.offset - r->off_bytes + skip, len, iov + *n, SEND_IOV - *n);
	return true;
}

static ssize_t transmit(struct nbd_link *k)
{
	struct iovec iov[SEND_IOV];
	uint64_t skip = k->out_sent;
	unsigned n = 0;

	for (struct nbd_slot *slot = k->out; slot && gather_one(k, slot, skip, iov, &n); slot = slot->next)
		skip = 0;
	if (k->tls)
		return tls_session_send(k->tls, iov, n);
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t sent = sendmsg(k->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	return sent < 0 ? (errno == EINTR ? -EAGAIN : -errno) : sent;
}

static void advance(struct nbd_link *k, uint64_t bytes)
{
	while (k->out) {
		struct nbd_slot *slot = k->out;
		uint64_t left = bytes_of(slot) - k->out_sent;
		if (bytes < left)
			break;
		bytes -= left;
		k->out_sent = 0;
		k->out = slot->next;
		if (!k->out)
			k->out_last = &k->out;
		slot->next = NULL;
		slot->state = NBD_SLOT_SENT;
		if (slot->answered)
			nbd_slot_done(k, slot, slot->error);
	}
	k->out_sent += bytes;
}

static void wait_for_room(struct nbd_link *k)
{
	k->blocked = true;
	blk_watch_change(&k->watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
}

static bool gave_up(const struct nbd_link *k)
{
	const struct nbd_client *c = k->client;

	return k->fd < 0 && c->gives_up && blk_queue_now(k->queue) - k->down_since_ns >= c->give_up_ms * 1000000;
}

/* No connection for too long: what is here ends. */
static void fail_all(struct nbd_link *k)
{
	struct blk_req *r;

	k->out = NULL;
	k->out_last = &k->out;
	for (unsigned i = 0; i < NBD_LINK_SLOTS; i++) {
		if (k->slots[i].state == NBD_SLOT_FREE)
			continue;
		k->slots[i].state = NBD_SLOT_SENT;
		nbd_slot_done(k, &k->slots[i], -EIO);
	}
	while ((r = blk_list_pop(&k->waiting))) {
		if (r->scratch[OUT] == 0)
			blk_complete(r, -EIO);
	}
}

void nbd_link_flush(struct nbd_link *k)
{
	if (k->fd < 0) {
		if (gave_up(k))
			fail_all(k);
		return;
	}
	make_pieces(k);
	while (k->fd >= 0 && k->out && !k->blocked) {
		ssize_t n = transmit(k);
		if (n == -EAGAIN || n == -EWOULDBLOCK)
			wait_for_room(k);
		else if (n < 0)
			nbd_link_lost(k, false);
		else
			advance(k, (uint64_t)n);
		make_pieces(k);
	}
	if (k->fd >= 0 && k->tls && tls_session_unsent(k->tls) && !k->blocked) {
		ssize_t n = tls_session_send(k->tls, NULL, 0);
		if (n == -EAGAIN)
			wait_for_room(k);
		else if (n < 0)
			nbd_link_lost(k, false);
	}
	if (k->used && !k->tick.link)
		blk_timer_set(k->queue, &k->tick, blk_queue_now(k->queue) + TICK_NS);
}

static void on_flush(struct blk_task *t)
{
	nbd_link_flush((struct nbd_link *)((char *)t - offsetof(struct nbd_link, flush)));
}

/* ---- up and down ---- */

static void hang_up(struct nbd_link *k)
{
	blk_watch_remove(&k->watch);
	tls_session_free(k->tls);
	k->tls = NULL;
	if (k->fd >= 0)
		close(k->fd);
	k->fd = -1;
	k->blocked = false;
}

void nbd_link_lost(struct nbd_link *k, bool protocol_error)
{
	if (k->fd < 0)
		return;
	/* What is still to be delivered goes: it must not arrive after what is sent again by another way. */
	setsockopt(k->fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
	hang_up(k);
	k->reading = NULL;
	k->read_left = 0;
	k->rx_at = k->rx_len = 0;
	k->down_since_ns = blk_queue_now(k->queue);
	blk_timer_set(k->queue, &k->tick, k->down_since_ns + TICK_NS);
	atomic_fetch_add(protocol_error ? &k->client->counters.protocol_errors : &k->client->counters.lost, 1);
	nbd_connector_want(k->client, k);
}

static int by_seq(const void *a, const void *b)
{
	const struct nbd_slot *x = *(const struct nbd_slot *const *)a, *y = *(const struct nbd_slot *const *)b;

	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* All that has not been answered goes out again, oldest first. */
static void resend(struct nbd_link *k)
{
	struct nbd_slot *slots[NBD_LINK_SLOTS];
	unsigned n = 0;

	for (unsigned i = 0; i < NBD_LINK_SLOTS; i++) {
		if (k->slots[i].state != NBD_SLOT_FREE)
			slots[n++] = &k->slots[i];
	}
	qsort(slots, n, sizeof(slots[0]), by_seq);
	k->out = NULL;
	k->out_last = &k->out;
	k->out_sent = 0;
	for (unsigned i = 0; i < n; i++) {
		put_header(k, slots[i]);
		slots[i]->state = NBD_SLOT_QUEUED;
		slots[i]->next = NULL;
		*k->out_last = slots[i];
		k->out_last = &slots[i]->next;
	}
	atomic_fetch_add(&k->client->counters.resent, n);
}

static void on_event(struct blk_watch *w, uint32_t events)
{
	struct nbd_link *k = (struct nbd_link *)((char *)w - offsetof(struct nbd_link, watch));

	if (events & EPOLLOUT && k->blocked) {
		k->blocked = false;
		blk_watch_change(&k->watch, EPOLLIN | EPOLLRDHUP);
		blk_queue_defer(k->queue, &k->flush);
	}
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		nbd_receive(k);
}

static void adopt(struct nbd_link *k)
{
	k->fd = k->fresh.fd;
	k->tls = k->fresh.tls;
	k->fresh = (struct nbd_dial){ .fd = -1 };
	k->heard_ns = blk_queue_now(k->queue);
	if (blk_watch_add(k->queue, &k->watch, k->fd, EPOLLIN | EPOLLRDHUP, on_event)) {
		nbd_link_lost(k, false);
		return;
	}
	resend(k);
	blk_queue_defer(k->queue, &k->flush);
}

static void on_adopt(struct blk_task *t)
{
	adopt((struct nbd_link *)((char *)t - offsetof(struct nbd_link, adopt)));
}

/* Is the server still there? And has it been away for too long? */
static void on_tick(struct blk_timer *t)
{
	struct nbd_link *k = (struct nbd_link *)((char *)t - offsetof(struct nbd_link, tick));
	uint64_t now = blk_queue_now(k->queue), limit = k->client->timeout_ms * 1000000;

	if (k->fd >= 0 && k->used && limit && now - k->heard_ns > limit)
		nbd_link_lost(k, false);
	if (gave_up(k))
		fail_all(k);
	if (k->used || !blk_list_empty(&k->waiting))
		blk_timer_set(k->queue, &k->tick, now + TICK_NS);
}

/* ---- in ---- */

static void take(struct nbd_link *k, struct blk_req *r)
{
	memset(r->scratch, 0, sizeof(r->scratch));
	if (is_nothing(k->client, r)) {
		blk_complete(r, 0);
		return;
	}
	if (!k->used && blk_list_empty(&k->waiting))
		k->heard_ns = blk_queue_now(k->queue); /* silence before a request is no silence */
	blk_list_push(&k->waiting, r);
	blk_queue_defer(k->queue, &k->flush);
	if (k->fd < 0 && !k->tick.link)
		blk_timer_set(k->queue, &k->tick, blk_queue_now(k->queue) + TICK_NS);
}

static void on_knock(struct blk_task *t)
{
	struct nbd_link *k = (struct nbd_link *)((char *)t - offsetof(struct nbd_link, knock));
	struct blk_req *r;

	pthread_mutex_lock(&k->lock);
	struct blk_list inbox = k->inbox;
	k->inbox = (struct blk_list){ 0 };
	k->knocked = false;
	pthread_mutex_unlock(&k->lock);
	while ((r = blk_list_pop(&inbox)))
		take(k, r);
}

void nbd_link_submit(struct nbd_link *k, struct blk_req *r)
{
	if (r->queue == k->queue) {
		take(k, r);
		return;
	}
	pthread_mutex_lock(&k->lock);
	blk_list_push(&k->inbox, r);
	bool knock = !k->knocked;
	k->knocked = true;
	pthread_mutex_unlock(&k->lock);
	if (knock)
		blk_queue_post(k->queue, &k->knock);
}

/* ---- making and ending ---- */

int nbd_link_new(struct nbd_client *c, struct nbd_link **ret)
{
	struct nbd_link *k = calloc(1, sizeof(*k));

	if (!k)
		return -ENOMEM;
	k->rx = mmap(NULL, NBD_LINK_RX_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (k->rx == MAP_FAILED) {
		free(k);
		return -ENOMEM;
	}
	k->client = c;
	k->fd = k->fresh.fd = -1;
	k->out_last = &k->out;
	k->flush.fn = on_flush;
	k->adopt.fn = on_adopt;
	k->knock.fn = on_knock;
	k->tick.fn = on_tick;
	pthread_mutex_init(&k->lock, NULL);
	for (unsigned i = NBD_LINK_SLOTS; i--;) {
		k->slots[i].next = k->free;
		k->free = &k->slots[i];
	}
	*ret = k;
	return 0;
}

int nbd_link_begin(struct nbd_link *k, struct blk_queue *q)
{
	k->queue = q;
	adopt(k);
	return k->fd < 0 ? -EIO : 0;
}

void nbd_link_end(struct nbd_link *k)
{
	struct nbd_request leave = { .command = NBD_CMD_DISC };
	struct iovec iov = { k->rx, NBD_REQUEST_BYTES };

	assert(!k->used && blk_list_empty(&k->waiting) && blk_list_empty(&k->inbox));
	if (k->fd >= 0 && !k->out) { /* out of politeness: the socket may refuse */
		nbd_request_encode(&leave, k->rx);
		_unused_ ssize_t n = k->tls ? tls_session_send(k->tls, &iov, 1) :
					      send(k->fd, k->rx, NBD_REQUEST_BYTES, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	blk_timer_cancel(&k->tick);
	hang_up(k);
}

void nbd_link_free(struct nbd_link *k)
{
	if (!k)
		return;
	hang_up(k);
	nbd_dial_close(&k->fresh);
	munmap(k->rx, NBD_LINK_RX_BYTES);
	pthread_mutex_destroy(&k->lock);
	free(k);
}
