/* SPDX-License-Identifier: Apache-2.0 */
#include "block/front/vhost_wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

_Static_assert(sizeof(struct vhost_header) == 12 && sizeof(struct vhost_addr) == 40 && sizeof(struct vhost_memory) == 264 &&
		       sizeof(struct vhost_one_region) == 40 && sizeof(struct vhost_config) == 268 && sizeof(struct vhost_inflight) == 24,
	       "the protocol's layout");

void vhost_msg_close(struct vhost_msg *m)
{
	while (m->fds)
		close(m->fd[--m->fds]);
}

int vhost_msg_take_fd(struct vhost_msg *m)
{
	if (!m->fds)
		return -1;
	int fd = m->fd[0];
	m->fds--;
	memmove(m->fd, m->fd + 1, m->fds * sizeof(m->fd[0]));
	return fd;
}

/* ---- receiving ---- */

static int take_fds(struct vhost_channel *c, struct msghdr *msg)
{
	int err = msg->msg_flags & MSG_CTRUNC ? -EBADMSG : 0;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		unsigned count = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (unsigned i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
			if (c->in.fds < VHOST_FDS_MAX) {
				c->in.fd[c->in.fds++] = fd;
			} else {
				close(fd);
				err = -EBADMSG;
			}
		}
	}
	return err;
}

/* Up to `want` bytes in all; the count is kept in c->got. 1: they are there. */
static int receive_to(struct vhost_channel *c, size_t want)
{
	char *at = c->got < sizeof(c->in.h) ? (char *)&c->in.h + c->got : c->in.p.bytes + (c->got - sizeof(c->in.h));
	union {
		char bytes[CMSG_SPACE(sizeof(int) * VHOST_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = { at, want - c->got };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control) };

	if (c->got == want)
		return 1;
	ssize_t n = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -ECONNRESET;
	int err = take_fds(c, &msg);
	if (err)
		return err;
	if (!n)
		return -ECONNRESET;
	c->got += (size_t)n;
	return c->got == want;
}

int vhost_receive(struct vhost_channel *c)
{
	int r;

	if (c->got == 0)
		c->in.fds = 0;
	if (c->got < sizeof(c->in.h)) {
		r = receive_to(c, sizeof(c->in.h));
		if (r <= 0)
			return r;
	}
	if ((c->in.h.flags & VHOST_VERSION_MASK) != VHOST_VERSION || c->in.h.size > sizeof(c->in.p))
		return -EBADMSG;
	r = receive_to(c, sizeof(c->in.h) + c->in.h.size);
	if (r <= 0)
		return r;
	memset(c->in.p.bytes + c->in.h.size, 0, sizeof(c->in.p) - c->in.h.size);
	c->got = 0;
	return 1;
}

/* ---- sending ---- */

int vhost_send(int fd, uint32_t request, uint32_t flags, const void *payload, uint32_t size, const int *fds, unsigned fd_count)
{
	struct vhost_header h = { request, flags | VHOST_VERSION, size };
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)payload, size } };
	union {
		char bytes[CMSG_SPACE(sizeof(int) * VHOST_FDS_MAX)];
		struct cmsghdr align;
	} control = { { 0 } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = size ? 2 : 1 };

	if (fd_count) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
	}
	ssize_t n;
	do
		n = sendmsg(fd, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	/* Messages are far smaller than a socket's buffer: a part of one means that the peer has stopped reading. */
	return (size_t)n == sizeof(h) + size ? 0 : -EAGAIN;
}
