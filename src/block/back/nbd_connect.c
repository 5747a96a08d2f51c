/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connecting. open() dials by itself; after that the connecting thread does: it sleeps until a link (or the status connection)
 * wants one, dials, looks whether the export is still what it was, and posts the connection to the link's queue. Its waits end
 * early when cancel_fd becomes readable.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/macros.h"
#include "base/text.h"
#include "block/back/nbd_priv.h"

/* ---- a socket that is waited for ---- */

static int wait_for(struct nbd_dial *d, short events)
{
	struct pollfd fds[2] = { { .fd = d->fd, .events = events }, { .fd = d->client->cancel_fd, .events = POLLIN } };
	int64_t left = d->deadline_ms - clock_mono_ms();

	if (left <= 0)
		return -ETIMEDOUT;
	int n = poll(fds, 2, (int)MIN_OF(left, (int64_t)60000));
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	return fds[1].revents ? -ECANCELED : 0;
}

int nbd_dial_read(void *dial, void *data, size_t len)
{
	struct nbd_dial *d = dial;

	for (char *at = data; len;) {
		ssize_t n = d->tls ? tls_session_recv(d->tls, at, len) : recv(d->fd, at, len, MSG_DONTWAIT);
		int err = n >= 0 ? 0 : d->tls ? (int)n : -errno;
		if (n == 0)
			return -ECONNRESET;
		if (err == -EAGAIN)
			err = wait_for(d, POLLIN);
		if (err && err != -EINTR)
			return err;
		if (n > 0) {
			at += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

int nbd_dial_write(void *dial, const void *data, size_t len)
{
	struct nbd_dial *d = dial;
	struct iovec iov = { (void *)data, len };

	while (iov.iov_len || (d->tls && tls_session_unsent(d->tls))) {
		ssize_t n = d->tls ? tls_session_send(d->tls, &iov, 1) : send(d->fd, iov.iov_base, iov.iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
		int err = n >= 0 ? 0 : d->tls ? (int)n : -errno;
		if (err == -EAGAIN)
			err = wait_for(d, POLLOUT);
		if (err && err != -EINTR)
			return err;
		if (n > 0) {
			iov.iov_base = (char *)iov.iov_base + n;
			iov.iov_len -= (size_t)n;
		}
	}
	return 0;
}

static int secure(void *dial)
{
	struct nbd_dial *d = dial;
	struct nbd_client *c = d->client;
	int err = tls_session_new(c->tls, false, d->fd, &d->tls);

	while (!err) {
		err = tls_session_handshake(d->tls);
		if (err != -EAGAIN)
			break;
		err = wait_for(d, tls_session_wants_write(d->tls) ? POLLOUT : POLLIN);
	}
	if (err)
		return err;
	struct tls_identity id = tls_session_peer(d->tls);
	bool right = (c->tls_peer == TLS_ROLE_NONE || id.role == c->tls_peer) && (!c->tls_peer_id || str_eq(id.id, c->tls_peer_id));
	return right ? 0 : -EACCES;
}

static int connect_to(struct nbd_dial *d, const struct sockaddr *addr, socklen_t len)
{
	d->fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (d->fd < 0)
		return -errno;
	int err = connect(d->fd, addr, len) ? -errno : 0;
	if (err == -EINPROGRESS) {
		socklen_t size = sizeof(err);
		err = wait_for(d, POLLOUT);
		if (!err && getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &err, &size))
			err = errno;
		err = err > 0 ? -err : err;
	}
	if (err) {
		close(d->fd);
		d->fd = -1;
	}
	return err;
}

static int connect_unix(struct nbd_dial *d)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (strlen(d->client->path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, d->client->path);
	return connect_to(d, (struct sockaddr *)&addr, sizeof(addr));
}

static int connect_tcp(struct nbd_dial *d)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *found;
	int err = -EHOSTUNREACH;

	if (getaddrinfo(d->client->host, d->client->port, &hints, &found))
		return err;
	for (struct addrinfo *a = found; a && err && err != -ECANCELED; a = a->ai_next)
		err = connect_to(d, a->ai_addr, a->ai_addrlen);
	freeaddrinfo(found);
	if (!err) {
		setsockopt(d->fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
		setsockopt(d->fd, SOL_SOCKET, SO_KEEPALIVE, &(int){ 1 }, sizeof(int));
	}
	return err;
}

int nbd_dial_open(struct nbd_client *c, bool want_status, struct nbd_dial *d, struct nbd_remote *ret, struct error *e)
{
	*d = (struct nbd_dial){ .client = c, .fd = -1, .deadline_ms = clock_mono_ms() + (int64_t)c->connect_ms };
	struct nbd_negotiation n = {
		.read = nbd_dial_read, .write = nbd_dial_write, .secure = c->tls ? secure : NULL, .ctx = d,
		.export_name = c->export_name, .want_status = want_status,
	};
	int err = c->path ? connect_unix(d) : connect_tcp(d);
	if (!err)
		err = nbd_negotiate(&n, e);
	if (err) {
		nbd_dial_close(d);
		return err;
	}
	*ret = n.remote;
	return 0;
}

void nbd_dial_close(struct nbd_dial *d)
{
	tls_session_free(d->tls);
	if (d->fd >= 0)
		close(d->fd);
	d->tls = NULL;
	d->fd = -1;
}

/* ---- the connecting thread ---- */

/* It may have grown: what we serve stays as long as it was. */
static bool is_the_export(struct nbd_client *c, const struct nbd_remote *now)
{
	const struct nbd_remote *was = &c->remote;
	bool is = now->size_bytes >= was->size_bytes && now->flags == was->flags && now->minimum == was->minimum && now->maximum == was->maximum &&
		  now->structured == was->structured;

	if (!is)
		atomic_fetch_add(&c->counters.other_exports, 1);
	return is;
}

/* Without the lock. True: it stands. */
static bool dial_link(struct nbd_client *c, struct nbd_link *k)
{
	struct nbd_remote remote;

	if (nbd_dial_open(c, false, &k->fresh, &remote, NULL))
		return false;
	if (!is_the_export(c, &remote)) {
		nbd_dial_close(&k->fresh);
		return false;
	}
	blk_queue_post(k->queue, &k->adopt);
	return true;
}

static bool dial_status(struct nbd_client *c)
{
	struct nbd_dial d;
	struct nbd_remote remote;

	if (nbd_dial_open(c, true, &d, &remote, NULL))
		return false;
	if (!is_the_export(c, &remote) || !remote.has_status) {
		nbd_dial_close(&d);
		return false;
	}
	pthread_mutex_lock(&c->status_lock);
	c->status = d;
	c->status_id = remote.status_id;
	c->status_up = true;
	pthread_mutex_unlock(&c->status_lock);
	return true;
}

/* With the lock, which it lets go meanwhile. Links first: requests wait for them. */
static bool dial_next(struct nbd_client *c)
{
	unsigned i = 0;
	bool ok;

	c->dialling = true;
	if (c->links_wanted) {
		i = (unsigned)__builtin_ctz(c->links_wanted);
		c->links_wanted &= ~(1u << i);
		pthread_mutex_unlock(&c->lock);
		ok = dial_link(c, c->links[i]);
		pthread_mutex_lock(&c->lock);
		c->links_wanted |= ok ? 0 : 1u << i;
	} else {
		c->status_wanted = false;
		pthread_mutex_unlock(&c->lock);
		ok = dial_status(c);
		pthread_mutex_lock(&c->lock);
		c->status_wanted |= !ok;
	}
	c->dialling = false;
	atomic_fetch_add(ok ? &c->counters.reconnected : &c->counters.connect_failures, 1);
	return ok;
}

static void rest(struct nbd_client *c)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	uint64_t ns = (uint64_t)t.tv_nsec + c->retry_ms * 1000000;
	t.tv_sec += (time_t)(ns / 1000000000);
	t.tv_nsec = (long)(ns % 1000000000);
	while (!c->quit && !c->stopped && !pthread_cond_timedwait(&c->wanted, &c->lock, &t))
		;
}

static void tell_settled(struct nbd_client *c)
{
	void (*fn)(void *ctx) = c->settled;
	void *ctx = c->settled_ctx;

	c->settled = NULL;
	if (!fn)
		return;
	pthread_mutex_unlock(&c->lock);
	fn(ctx);
	pthread_mutex_lock(&c->lock);
}

static void *run(void *arg)
{
	struct nbd_client *c = arg;

	pthread_mutex_lock(&c->lock);
	while (!c->quit) {
		if (c->stopped)
			tell_settled(c);
		else if (c->links_wanted || c->status_wanted) {
			dial_next(c);
			/* Also after success: a server that drops us at once is not to be hammered. */
			rest(c);
			continue;
		}
		if (!c->quit && (c->stopped || !(c->links_wanted || c->status_wanted)) && !(c->stopped && c->settled))
			pthread_cond_wait(&c->wanted, &c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

int nbd_connector_start(struct nbd_client *c, struct error *e)
{
	int err = pthread_create(&c->thread, NULL, run, c);

	if (err)
		return error_errno(e, err, "a thread that connects");
	c->thread_started = true;
	return 0;
}

static void cancel(struct nbd_client *c, bool on)
{
	uint64_t n = 1;
	_unused_ ssize_t r = on ? write(c->cancel_fd, &n, sizeof(n)) : read(c->cancel_fd, &n, sizeof(n));
}

void nbd_connector_stop(struct nbd_client *c)
{
	if (!c->thread_started)
		return;
	pthread_mutex_lock(&c->lock);
	c->quit = true;
	cancel(c, true);
	pthread_cond_broadcast(&c->wanted);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	c->thread_started = false;
}

void nbd_connector_want(struct nbd_client *c, const struct nbd_link *k)
{
	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < c->link_count; i++)
		c->links_wanted |= c->links[i] == k ? 1u << i : 0;
	c->status_wanted |= !k;
	pthread_cond_broadcast(&c->wanted);
	pthread_mutex_unlock(&c->lock);
}

void nbd_connector_settle(struct nbd_client *c, bool stop, void (*fn)(void *ctx), void *ctx)
{
	pthread_mutex_lock(&c->lock);
	c->stopped = stop;
	cancel(c, stop);
	bool now = !stop || !c->dialling;
	if (!now) {
		c->settled = fn;
		c->settled_ctx = ctx;
	}
	pthread_cond_broadcast(&c->wanted);
	pthread_mutex_unlock(&c->lock);
	if (now)
		fn(ctx);
}
