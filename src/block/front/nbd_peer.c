/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client that has connected and is not admitted yet, on the main thread's loop; nothing here blocks.
 *
 *   TALK ──STARTTLS──→ SECURE ──→ TALK
 *     │                                  (each phase waits until what is to be sent has been sent)
 *     ├── GO, EXPORT_NAME ──→ [WAIT: exclusive, until the old connection has ended] ──→ LEAVE ──→ a queue
 *     └── ABORT ──→ CLOSE
 *
 * It has handshake-ms for all of it, but for WAIT, which is not its fault.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/front/nbd_priv.h"

enum phase { PHASE_TALK, PHASE_SECURE, PHASE_WAIT, PHASE_LEAVE, PHASE_CLOSE };

struct nbd_peer {
	struct nbd_server *server;
	struct nbd_peer *next;
	int fd;
	struct loop_source *source, *deadline;
	uint32_t watched;           /* events */
	struct tls_session *tls;
	enum phase phase;
	struct nbd_handshake hs;
	size_t sent;                /* of hs.out */
	struct nbd_export export;   /* LEAVE */
	struct blk_layer *view_owner, *view;
	unsigned meta;
	char who[96];
	size_t rx_len;
	uint8_t rx[NBD_HANDSHAKE_DATA_MAX + 256];
};

static void run(struct nbd_peer *p);

static void on_event(void *ctx, int fd, uint32_t events)
{
	struct nbd_peer *p = ctx;

	if (p->phase == PHASE_WAIT) /* only its end is watched for */
		nbd_peer_free(p);
	else
		run(p);
}

static void watch(struct nbd_peer *p, uint32_t events)
{
	if (p->source && p->watched == events)
		return;
	loop_remove(p->source);
	p->source = NULL;
	p->watched = events;
	if (loop_add_fd(p->server->loop, p->fd, events, on_event, p, &p->source))
		nbd_say(p->server, true, "NBD client %s: its socket cannot be watched", p->who);
}

static int find_export(void *ctx, const char *name, struct nbd_export *ret)
{
	struct nbd_peer *p = ctx;
	struct blk_layer *owner, *view;
	int err = nbd_export_take(p->server, name, ret, &owner, &view);

	if (!err && view)
		owner->ops->view_release(owner, view);
	return err;
}

static void on_deadline(void *ctx)
{
	struct nbd_peer *p = ctx;

	if (p->phase == PHASE_WAIT)
		return;
	nbd_say(p->server, true, "NBD client %s took too long over its handshake", p->who);
	nbd_peer_free(p);
}

void nbd_peer_new(struct nbd_server *s, int fd, const char *who)
{
	struct nbd_peer *p = calloc(1, sizeof(*p));

	if (!p) {
		close(fd);
		return;
	}
	p->server = s;
	p->fd = fd;
	snprintf(p->who, sizeof(p->who), "%s", who);
	p->hs.exports = find_export;
	p->hs.ctx = p;
	p->hs.tls = s->tls_mode;
	p->next = s->peers;
	s->peers = p;
	s->peer_count++;
	nbd_handshake_init(&p->hs);
	if (loop_add_timer(s->loop, (int64_t)s->handshake_ms, 0, on_deadline, p, &p->deadline))
		nbd_peer_free(p);
	else
		run(p);
}

void nbd_peer_free(struct nbd_peer *p)
{
	struct nbd_server *s = p->server;

	for (struct nbd_peer **at = &s->peers; *at; at = &(*at)->next) {
		if (*at == p) {
			*at = p->next;
			break;
		}
	}
	s->peer_count--;
	loop_remove(p->source);
	loop_remove(p->deadline);
	if (p->view)
		p->view_owner->ops->view_release(p->view_owner, p->view);
	tls_session_free(p->tls);
	if (p->fd >= 0)
		close(p->fd);
	nbd_handshake_done(&p->hs);
	free(p);
}

/* ---- bytes ---- */

/* 0: all is sent. -EAGAIN: not yet, and it is watched for. */
static int send_out(struct nbd_peer *p)
{
	while (p->sent < p->hs.out.len || (p->tls && p->phase != PHASE_SECURE && tls_session_unsent(p->tls))) {
		struct iovec iov = { p->hs.out.data + p->sent, p->hs.out.len - p->sent };
		/* STARTTLS's reply goes out in the clear: the session is made behind it. */
		ssize_t n = p->tls ? tls_session_send(p->tls, &iov, 1) : send(p->fd, iov.iov_base, iov.iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (!p->tls && n < 0)
			n = -errno;
		if (n == -EINTR)
			continue;
		if (n == -EAGAIN)
			watch(p, EPOLLOUT);
		if (n < 0)
			return (int)n;
		p->sent += (size_t)n;
	}
	buf_reset(&p->hs.out);
	p->sent = 0;
	return 0;
}

static int receive(struct nbd_peer *p)
{
	void *to = p->rx + p->rx_len;
	size_t room = sizeof(p->rx) - p->rx_len;
	ssize_t n;

	if (p->tls)
		n = tls_session_recv(p->tls, to, room);
	else
		n = recv(p->fd, to, room, MSG_DONTWAIT);
	if (!p->tls && n < 0)
		n = -errno;
	if (n == -EAGAIN || n == -EINTR)
		watch(p, EPOLLIN);
	if (n < 0)
		return (int)n;
	if (n == 0)
		return -ECONNRESET;
	p->rx_len += (size_t)n;
	return 0;
}

/* ---- phases: 0 go on, -EAGAIN wait, else the end ---- */

static int secure(struct nbd_peer *p)
{
	struct nbd_server *s = p->server;
	int err = p->tls ? 0 : tls_session_new(s->tls, true, p->fd, &p->tls);

	if (!err)
		err = tls_session_handshake(p->tls);
	if (err == -EAGAIN) {
		watch(p, tls_session_wants_write(p->tls) ? EPOLLOUT : EPOLLIN);
		return err;
	}
	struct tls_identity id = err ? (struct tls_identity){ 0 } : tls_session_peer(p->tls);
	if (!err && s->tls_peer != TLS_ROLE_NONE && id.role != s->tls_peer)
		err = -EACCES;
	if (err) {
		nbd_say(s, true, "NBD client %s refused: %s", p->who,
			err == -EACCES ? "its certificate is none that may come in here" : "its TLS handshake failed");
		return err;
	}
	nbd_handshake_secured(&p->hs);
	p->phase = PHASE_TALK;
	return 0;
}

static int admit(struct nbd_peer *p)
{
	struct nbd_server *s = p->server;

	if (s->exclusive && s->conn_count) {
		p->phase = PHASE_WAIT;
		watch(p, EPOLLRDHUP);
		nbd_say(s, false, "NBD client %s waits until the connection before it has ended", p->who);
		nbd_server_drain(s);
		return -EAGAIN;
	}
	if (nbd_export_take(s, p->hs.name, &p->export, &p->view_owner, &p->view)) {
		/* It was there when it was asked for. */
		p->phase = PHASE_TALK;
		return nbd_handshake_refuse(&p->hs, NBD_REP_ERR_UNKNOWN, "that export has gone") == NBD_STEP_DROP ? -ENOENT : 0;
	}
	p->meta = nbd_handshake_admit(&p->hs, &p->export);
	p->phase = PHASE_LEAVE;
	return 0;
}

static int talk(struct nbd_peer *p)
{
	size_t used;
	enum nbd_step step = nbd_handshake_feed(&p->hs, p->rx, p->rx_len, &used);

	memmove(p->rx, p->rx + used, p->rx_len - used);
	p->rx_len -= used;
	switch (step) {
	case NBD_STEP_MORE:
		return used ? 0 : receive(p);
	case NBD_STEP_TLS:
		p->phase = PHASE_SECURE;
		return p->rx_len ? -EPROTO : 0; /* bytes in the clear must not count as said within TLS */
	case NBD_STEP_ADMIT:
		return admit(p);
	case NBD_STEP_CLOSE:
		p->phase = PHASE_CLOSE;
		return 0;
	default:
		return -EPROTO;
	}
}

/* The client is in: from here a queue has it. */
static void leave(struct nbd_peer *p)
{
	struct nbd_server *s = p->server;
	struct nbd_conn *c;
	int err = nbd_conn_new(s, &c);

	if (err) {
		nbd_say(s, true, "NBD client %s: no memory for its connection", p->who);
		nbd_peer_free(p);
		return;
	}
	c->fd = p->fd;
	c->tls = TAKE_PTR(p->tls);
	c->view_owner = p->view_owner;
	c->view = TAKE_PTR(p->view);
	c->size_bytes = p->export.size_bytes;
	c->block_bytes = p->export.minimum;
	c->structured = p->hs.structured;
	c->read_only = p->export.flags & NBD_READ_ONLY;
	c->discards = p->export.flags & NBD_SEND_TRIM;
	c->fast_zeroes = p->export.fast_zeroes;
	c->meta = p->meta;
	memcpy(c->rx, p->rx, p->rx_len);
	c->rx_len = (uint32_t)p->rx_len;
	snprintf(c->name, sizeof(c->name), "%s", p->who);
	loop_remove(TAKE_PTR(p->source)); /* while the socket is still ours */
	p->fd = -1;
	nbd_say(s, false, "NBD client %s admitted to \"%s\"%s", p->who, p->hs.name, c->tls ? " over TLS" : "");
	s->admitted++;
	s->current++;
	nbd_conn_begin(c);
	nbd_peer_free(p);
}

static void run(struct nbd_peer *p)
{
	int err = 0;

	while (!err) {
		err = p->phase == PHASE_SECURE && p->tls ? 0 : send_out(p);
		if (err)
			break;
		switch (p->phase) {
		case PHASE_TALK:
			err = talk(p);
			break;
		case PHASE_SECURE:
			err = secure(p);
			break;
		case PHASE_WAIT:
			return;
		case PHASE_LEAVE:
			leave(p);
			return;
		case PHASE_CLOSE:
			nbd_peer_free(p);
			return;
		}
	}
	if (err != -EAGAIN)
		nbd_peer_free(p);
}

void nbd_peers_admit(struct nbd_server *s)
{
	struct nbd_peer *oldest = NULL;

	for (struct nbd_peer *p = s->peers; p; p = p->next) {
		if (p->phase == PHASE_WAIT)
			oldest = p;
	}
	if (!oldest || s->conn_count)
		return;
	int err = admit(oldest);
	if (err)
		nbd_peer_free(oldest);
	else
		run(oldest);
}
