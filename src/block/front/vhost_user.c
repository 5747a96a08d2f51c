/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user-blk (QEMU, docs/interop/vhost-user): a guest's virtqueues, handed over by its VMM on a unix socket.
 *
 * The socket, its one peer and all settings live on the main thread's loop; each ring on the thread of queue (index % queues).
 * What takes time (requests inside a ring that is stopped, a flush) is counted in `outstanding`; the last one to end writes the
 * eventfd, and the loop runs `then`. Until it has, neither the peer nor the listening socket is read.
 *
 * A peer that goes leaves requests inside: they are answered into its memory as long as that is mapped, and the next peer is let
 * in when the last has ended. So in-flight memory is never looked at while an old request may still be answered into it.
 * (After the death of this process it is the back end's lock that keeps the successor waiting.)
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/front/fronts.h"
#include "block/front/vhost_user_priv.h"
#include "os/file.h"
#include "os/loop.h"
#include "os/socket.h"

void vhost_user_say(struct vhost_user *u, bool is_error, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (is_error)
		blk_count(&u->protocol_errors, 1);
	if (u->front->say)
		u->front->say(u->front->say_ctx, is_error, text);
}

/* ---- things that take time ---- */

void vhost_user_wake(struct vhost_user *u)
{
	_unused_ ssize_t n = write(u->event_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
}

void vhost_user_ended(struct vhost_user *u)
{
	if (atomic_fetch_sub(&u->outstanding, 1) == 1)
		vhost_user_wake(u); /* u is still there: close() waits for the queues' threads to leave here */
}

static void peer_ready(void *ctx, int fd, uint32_t events);
static void listen_ready(void *ctx, int fd, uint32_t events);

static void stop_reading(struct vhost_user *u)
{
	loop_remove(TAKE_PTR(u->peer_source));
	loop_remove(TAKE_PTR(u->listen_source));
}

static void read_on(struct vhost_user *u)
{
	struct loop *l = u->front->loop;

	if (u->peer.fd >= 0 && !u->peer_source)
		loop_add_fd(l, u->peer.fd, EPOLLIN, peer_ready, u, &u->peer_source);
	if (!u->listen_source)
		loop_add_fd(l, u->listen_fd, EPOLLIN, listen_ready, u, &u->listen_source);
}

static void run_then(struct vhost_user *u)
{
	while (u->then && !atomic_load(&u->outstanding)) {
		void (*then)(struct vhost_user *u) = u->then;
		u->then = NULL;
		then(u); /* may wait for something else */
	}
	if (!u->then)
		read_on(u);
}

void vhost_user_wait(struct vhost_user *u, void (*then)(struct vhost_user *u))
{
	u->then = then;
	stop_reading(u);
	if (!atomic_load(&u->outstanding))
		vhost_user_wake(u);
}

void vhost_user_stop_rings(struct vhost_user *u)
{
	for (unsigned i = 0; i < VHOST_RINGS_MAX; i++) {
		if (u->ring[i].running && !u->ring[i].stop_asked)
			vhost_ring_stop(&u->ring[i]);
	}
}

void vhost_user_finish_rings(struct vhost_user *u)
{
	for (unsigned i = 0; i < VHOST_RINGS_MAX; i++) {
		if (u->ring[i].stop_asked)
			vhost_ring_finish(&u->ring[i]);
	}
}

/* ---- the peer comes and goes ---- */

/* Its rings are stopped. */
static void forget_peer(struct vhost_user *u)
{
	vhost_user_finish_rings(u);
	for (unsigned i = 0; i < VHOST_RINGS_MAX; i++) {
		struct vhost_ring *r = &u->ring[i];
		vhost_ring_enable(r, false);
		vhost_ring_set_kick(r, -1);
		vhost_ring_set_call(r, -1);
		vhost_ring_set_err(r, -1);
		r->num = 0;
		r->base = 0;
		r->has_addr = r->resume = false;
	}
	vhost_mem_clear(&u->mem);
	vhost_inflight_drop(u);
	fd_closep(&u->back_fd);
	fd_closep(&u->peer.fd);
	u->features = u->protocol_features = 0;
	u->features_set = false;
}

void vhost_user_drop_peer(struct vhost_user *u, const char *why)
{
	if (why)
		vhost_user_say(u, true, "vhost-user: the connection ends: %s", why);
	else
		vhost_user_say(u, false, "vhost-user: the peer has gone");
	vhost_msg_close(&u->peer.in); /* of half a message */
	u->peer.got = 0;
	vhost_user_stop_rings(u);
	vhost_user_wait(u, forget_peer);
}

static void peer_ready(void *ctx, int fd, uint32_t events)
{
	struct vhost_user *u = ctx;

	while (u->peer.fd >= 0 && !u->then) {
		int r = vhost_receive(&u->peer);
		if (!r)
			return;
		if (r > 0)
			r = vhost_user_message(u, &u->peer.in);
		if (r < 0) {
			vhost_user_drop_peer(u, r == -ECONNRESET ? NULL : strerror(-r));
			return;
		}
	}
}

static bool peer_is_gone(const struct vhost_user *u)
{
	char c;

	return recv(u->peer.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void listen_ready(void *ctx, int fd, uint32_t events)
{
	struct vhost_user *u = ctx;
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (u->peer.fd >= 0 && peer_is_gone(u)) {
		vhost_user_drop_peer(u, NULL); /* the next one waits until it is forgotten */
		return;
	}
	_cleanup_(fd_closep) int peer = socket_accept(u->listen_fd, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (peer < 0)
		return;
	if (getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &cred, &len) || (cred.uid != u->peer_uid && cred.uid != 0)) {
		blk_count(&u->refused, 1);
		vhost_user_say(u, true, "vhost-user: refused a peer of uid %u", cred.uid);
		return;
	}
	if (u->peer.fd >= 0) {
		blk_count(&u->refused, 1);
		vhost_user_say(u, true, "vhost-user: refused a second peer (pid %d)", cred.pid);
		return;
	}
	blk_count(&u->connections, 1);
	u->peer = (struct vhost_channel){ .fd = peer };
	peer = -1;
	vhost_user_say(u, false, "vhost-user: connected to pid %d", cred.pid);
	read_on(u);
}

/* ---- what is to be told ---- */

void vhost_user_tell_config(struct vhost_user *u)
{
	const uint64_t needed = 1u << VHOST_PF_BACKEND_REQ | 1u << VHOST_PF_CONFIG;
	bool runs = false;

	for (unsigned i = 0; i < VHOST_RINGS_MAX; i++)
		runs |= u->ring[i].running;
	/* A peer without a running ring reads the configuration before it starts one. */
	if (!runs || u->back_fd < 0 || (u->protocol_features & needed) != needed)
		return;
	atomic_store(&u->config_changed, false);
	int err = vhost_send(u->back_fd, VHOST_BACKEND_CONFIG_CHANGE, 0, NULL, 0, NULL, 0);
	if (err)
		vhost_user_say(u, true, "vhost-user: the new size could not be told: %s", strerror(-err));
	struct inflight_tail *t = vhost_inflight_tail(u);
	if (!err && t)
		t->capacity_bytes = atomic_load(&u->disk.size_bytes);
}

static void event_ready(void *ctx, int fd, uint32_t events)
{
	struct vhost_user *u = ctx;
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0)
		return;
	for (unsigned i = 0; i < VHOST_RINGS_MAX; i++) {
		struct vhost_ring *r = &u->ring[i];
		const char *why = atomic_load(&r->broken);
		if (why && !r->broken_told) {
			r->broken_told = true;
			vhost_user_say(u, true, "vhost-user: ring %u is broken and stopped: %s", i, why);
		}
	}
	if (atomic_load(&u->config_changed))
		vhost_user_tell_config(u);
	if (u->then)
		run_then(u);
}

static void resized(struct blk_listener *l, uint64_t size_bytes)
{
	struct vhost_user *u = (struct vhost_user *)((char *)l - offsetof(struct vhost_user, listener));

	atomic_store(&u->disk.size_bytes, size_bytes);
	atomic_store(&u->config_changed, true);
	vhost_user_wake(u);
}

/* ---- opening ---- */

static int parse_mode(const char *text, mode_t *ret)
{
	char *end;
	unsigned long v = strtoul(text, &end, 8);

	if (!*text || *end || v > 0777)
		return -EINVAL;
	*ret = (mode_t)v;
	return 0;
}

static int listen_at(struct vhost_user *u, const char *path, mode_t mode, struct error *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(a.sun_path))
		return error_set(e, "InvalidOption", "socket=%s is longer than %zu bytes", path, sizeof(a.sun_path) - 1);
	memcpy(a.sun_path, path, strlen(path));
	int err = socket_remove_stale(path);
	if (err)
		return error_errno(e, err, "listening on %s", path);
	u->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* closed to all until its mode is set */
	if (u->listen_fd < 0 || fchmod(u->listen_fd, 0) || bind(u->listen_fd, (struct sockaddr *)&a, sizeof(a)))
		return error_errno(e, errno, "listening on %s", path);
	u->path = strdup(path);
	if (!u->path || chmod(path, mode) || listen(u->listen_fd, 4))
		return error_errno(e, errno, "listening on %s", path);
	return 0;
}

static void vhost_user_free(struct vhost_user *u)
{
	stop_reading(u);
	loop_remove(u->event_source);
	fd_closep(&u->listen_fd);
	fd_closep(&u->event_fd);
	if (u->path)
		unlink(u->path);
	free(u->path);
	free(u);
}

static struct vhost_user *vhost_user_new(struct blk_front *f, const struct blk_values *v)
{
	struct vhost_user *u = calloc(1, sizeof(*u));
	const struct blk_info *info = blk_stack_info(f->stack);
	const char *serial = blk_values_text(v, "serial");

	if (!u)
		return NULL;
	u->front = f;
	u->stack = f->stack;
	u->listen_fd = u->event_fd = u->back_fd = u->peer.fd = -1;
	u->seg_max = (unsigned)blk_values_number(v, "seg-max");
	u->peer_uid = blk_values_has(v, "peer-uid") ? (uid_t)blk_values_number(v, "peer-uid") : geteuid();
	u->write_back = true;
	u->disk.block_bytes = info->block_bytes;
	u->disk.read_only = info->read_only;
	atomic_store(&u->disk.size_bytes, info->size_bytes);
	if (serial)
		memcpy(u->disk.serial, serial, strnlen(serial, sizeof(u->disk.serial)));
	for (unsigned i = 0; i < VHOST_RINGS_MAX; i++)
		vhost_ring_init(&u->ring[i], u, i);
	u->listener.resized = resized;
	return u;
}

static int vhost_user_open(struct blk_front *f, const struct blk_values *v, struct error *e)
{
	const char *serial = blk_values_text(v, "serial");
	mode_t mode;

	if (serial && (!*serial || strlen(serial) > VIRTIO_BLK_ID_BYTES))
		return error_set(e, "InvalidOption", "serial=%s: 1 to %d characters", serial, VIRTIO_BLK_ID_BYTES);
	if (parse_mode(blk_values_text(v, "mode"), &mode))
		return error_set(e, "InvalidOption", "mode=%s: octal permissions, as 0660", blk_values_text(v, "mode"));
	struct vhost_user *u = vhost_user_new(f, v);
	if (!u)
		return error_errno(e, ENOMEM, "opening vhost-user");
	u->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int err = u->event_fd < 0 ? error_errno(e, errno, "opening vhost-user") : 0;
	if (!err)
		err = listen_at(u, blk_values_text(v, "socket"), mode, e);
	if (!err) {
		err = loop_add_fd(f->loop, u->event_fd, EPOLLIN, event_ready, u, &u->event_source);
		if (err)
			error_errno(e, err, "opening vhost-user");
	}
	if (err) {
		vhost_user_free(u);
		return err;
	}
	f->state = u;
	blk_stack_listen(f->stack, &u->listener);
	read_on(u);
	return 0;
}

static void pass(void *ctx)
{
}

static void wait_outstanding(struct vhost_user *u)
{
	while (atomic_load(&u->outstanding)) {
		struct pollfd p = { .fd = u->event_fd, .events = POLLIN };
		uint64_t count;
		if (poll(&p, 1, -1) > 0) {
			_unused_ ssize_t n = read(u->event_fd, &count, sizeof(count));
		}
	}
	for (unsigned i = 0; i < blk_stack_queues(u->stack); i++)
		blk_queue_call(blk_stack_queue(u->stack, i), pass, NULL);
}

static void vhost_user_close(struct blk_front *f)
{
	struct vhost_user *u = f->state;

	if (!u)
		return;
	blk_stack_unlisten(f->stack, &u->listener);
	stop_reading(u);
	vhost_user_stop_rings(u);
	wait_outstanding(u);
	vhost_msg_close(&u->held);
	forget_peer(u);
	vhost_user_free(u);
	f->state = NULL;
}

/* ---- counters ---- */

static void vhost_user_stats(struct blk_front *f, struct blk_stats_sink *sink)
{
	const struct vhost_user *u = f->state;
	uint64_t kicks = 0, calls = 0, batches = 0, breaks = 0, resubmitted = 0, waits = 0, in_vain = 0;

	for (unsigned i = 0; i < VHOST_RINGS_MAX; i++) {
		const struct vhost_ring *r = &u->ring[i];
		kicks += atomic_load_explicit(&r->kicks, memory_order_relaxed);
		calls += atomic_load_explicit(&r->calls, memory_order_relaxed);
		batches += atomic_load_explicit(&r->batches, memory_order_relaxed);
		waits += atomic_load_explicit(&r->waits, memory_order_relaxed);
		in_vain += atomic_load_explicit(&r->waits_in_vain, memory_order_relaxed);
		breaks += atomic_load_explicit(&r->breaks, memory_order_relaxed);
		resubmitted += atomic_load_explicit(&r->resubmitted, memory_order_relaxed);
	}
	blk_stats_emit(sink, "vhost_user", "kicks", true, kicks, "Notifications from the guest.");
	blk_stats_emit(sink, "vhost_user", "calls", true, calls, "Notifications to the guest.");
	blk_stats_emit(sink, "vhost_user", "batches", true, batches, "Batches of answers.");
	blk_stats_emit(sink, "vhost_user", "waits", true, waits, "Short waits for the driver instead of sleeping.");
	blk_stats_emit(sink, "vhost_user", "waits_in_vain", true, in_vain, "Those in which it did not come.");
	blk_stats_emit(sink, "vhost_user", "broken_rings", true, breaks, "Rings stopped because the guest broke virtio's rules.");
	blk_stats_emit(sink, "vhost_user", "resubmitted", true, resubmitted, "Requests of a dead predecessor that were done again.");
	blk_stats_emit(sink, "vhost_user", "connections", true, atomic_load(&u->connections), "Peers that connected.");
	blk_stats_emit(sink, "vhost_user", "refused", true, atomic_load(&u->refused), "Peers that were refused.");
	blk_stats_emit(sink, "vhost_user", "errors", true, atomic_load(&u->protocol_errors), "Errors of the peer's or the guest's.");
}

static const struct blk_option options[] = {
	{ .name = "socket", .type = BLK_OPT_TEXT, .required = true, .doc = "path of the unix socket that the VMM connects to" },
	{ .name = "serial", .type = BLK_OPT_TEXT, .doc = "serial number that the guest sees, 1 to 20 characters" },
	{ .name = "seg-max", .type = BLK_OPT_UINT, .fallback = "126", .min = 1, .max = 254,
	  .doc = "segments of a request; 254 is best, and right where the VMM's queue-size is 256 or more" },
	{ .name = "peer-uid", .type = BLK_OPT_UINT, .max = UINT32_MAX, .doc = "user id of the VMM (default: our own); root is let in, too" },
	{ .name = "mode", .type = BLK_OPT_TEXT, .fallback = "0600", .doc = "permissions of the socket, octal" },
	{ 0 },
};

const struct blk_front_ops blk_vhost_user_ops = {
	.name = "vhost-user",
	.doc = "a guest's virtio-blk queues, for QEMU's vhost-user-blk-pci",
	.options = options,
	.open = vhost_user_open,
	.close = vhost_user_close,
	.stats = vhost_user_stats,
};
