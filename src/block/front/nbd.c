/* SPDX-License-Identifier: Apache-2.0 */
/* The NBD server as a front end: options, listening, exports, and the ends of connections. All on the main thread. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/text.h"
#include "block/front/fronts.h"
#include "block/front/nbd_priv.h"
#include "os/file.h"
#include "os/socket.h"

#define BACKLOG 32
#define SEND_BUFFER_BYTES (1 << 20)
#define ROLES "any|clc|cc|nc|sc|walrus|operator"

static const struct blk_option options[] = {
	{ .name = "socket", .type = BLK_OPT_TEXT, .doc = "listen on a unix socket of this path" },
	{ .name = "mode", .type = BLK_OPT_CHOICE, .fallback = "0600", .choices = "0600|0660|0666", .doc = "the socket's permissions" },
	{ .name = "peer-uid", .type = BLK_OPT_TEXT,
	  .doc = "the user that may connect to the unix socket, beside the server's own and root: a number, or any" },
	{ .name = "peer-owners", .type = BLK_OPT_TEXT,
	  .doc = "a folder: who owns a file in it may connect too (links are followed), as it is at that moment" },
	{ .name = "address", .type = BLK_OPT_TEXT, .doc = "listen on TCP at this address" },
	{ .name = "port", .type = BLK_OPT_UINT, .fallback = "10809", .max = 65535, .doc = "TCP port; 0: one that is free" },
	{ .name = "tls", .type = BLK_OPT_CHOICE, .fallback = "off", .choices = "off|on|require", .doc = "offer TLS, or insist on it" },
	{ .name = "tls-dir", .type = BLK_OPT_TEXT, .doc = "folder with ca.crt and the role's certificate and key" },
	{ .name = "tls-role", .type = BLK_OPT_CHOICE, .fallback = "sc", .choices = "clc|cc|nc|sc|walrus|operator", .doc = "whose certificate to show" },
	{ .name = "tls-peer", .type = BLK_OPT_CHOICE, .fallback = "any", .choices = ROLES, .doc = "the role that a client's certificate must have" },
	{ .name = "exclusive", .type = BLK_OPT_BOOL, .fallback = "off",
	  .doc = "one connection at a time: a new one is admitted once the old one has been drained" },
	{ .name = "read-only", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "refuse writes" },
	{ .name = "connections", .type = BLK_OPT_UINT, .fallback = "16", .min = 1, .max = 256, .doc = "at most, those in their handshake included" },
	{ .name = "handshake-ms", .type = BLK_OPT_MS, .fallback = "10000", .min = 100, .max = 600000, .doc = "how long a handshake may take" },
	{ 0 },
};

void nbd_say(struct nbd_server *s, bool is_error, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (s->front->say)
		s->front->say(s->front->say_ctx, is_error, text);
}

/* ---- exports ---- */

static void describe(struct nbd_server *s, const struct blk_info *info, bool view, struct nbd_export *x)
{
	bool read_only = view || s->read_only || info->read_only;
	unsigned flags = NBD_SEND_FLUSH | NBD_SEND_FUA;

	if (read_only)
		flags |= NBD_READ_ONLY;
	else
		flags |= NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO | (info->discard_bytes ? NBD_SEND_TRIM : 0);
	if (info->rotational)
		flags |= NBD_ROTATIONAL;
	if (!s->exclusive) /* all connections stand on one stack */
		flags |= NBD_CAN_MULTI_CONN;
	uint32_t preferred = MAX_OF(4096u, MAX_OF(info->physical_bytes, info->block_bytes));
	*x = (struct nbd_export){
		.size_bytes = info->size_bytes,
		.flags = (uint16_t)flags,
		.minimum = info->block_bytes,
		.preferred = preferred & (preferred - 1) || preferred > 1u << 20 ? 4096 : preferred,
		.has_changed = view,
		.fast_zeroes = info->fast_zeroes,
	};
}

int nbd_export_take(struct nbd_server *s, const char *name, struct nbd_export *ret, struct blk_layer **ret_owner, struct blk_layer **ret_view)
{
	const char *slash = strchr(name, '/');
	struct error e = { 0 };
	char layer[32];

	*ret_owner = *ret_view = NULL;
	if (!*name) {
		describe(s, blk_stack_info(s->stack), false, ret);
		return 0;
	}
	if (!slash || (size_t)(slash - name) >= sizeof(layer))
		return -ENOENT;
	snprintf(layer, sizeof(layer), "%.*s", (int)(slash - name), name);
	struct blk_layer *owner = blk_stack_layer(s->stack, layer);
	struct blk_layer *view = owner && owner->ops->view ? owner->ops->view(owner, slash + 1, &e) : NULL;
	if (!view)
		return -ENOENT;
	describe(s, &view->info, true, ret);
	*ret_owner = owner;
	*ret_view = view;
	return 0;
}

/* ---- connections' ends ---- */

void nbd_server_drain(struct nbd_server *s)
{
	for (struct nbd_conn *c = s->conns; c; c = c->next) {
		if (!c->drain_posted)
			blk_queue_post(c->queue, &c->drain);
		c->drain_posted = true;
	}
}

static void nothing(void *ctx)
{
}

static void bury(struct nbd_server *s, struct nbd_conn *c)
{
	for (struct nbd_conn **at = &s->conns; *at; at = &(*at)->next) {
		if (*at == c) {
			*at = c->next;
			break;
		}
	}
	s->conn_count--;
	s->current--;
	if (c->drain_posted) /* it may have ended by itself meanwhile, with that task still to run */
		blk_queue_call(c->queue, nothing, NULL);
	nbd_say(s, c->why != NULL, "NBD client %s %s", c->name, c->why ? c->why : "has left");
	nbd_conn_free(c);
}

static void reap(struct nbd_server *s)
{
	pthread_mutex_lock(&s->lock);
	struct nbd_conn *ended = s->ended;
	s->ended = NULL;
	pthread_mutex_unlock(&s->lock);
	while (ended) {
		struct nbd_conn *next = ended->ended_next;
		bury(s, ended);
		ended = next;
	}
}

static void on_ended(void *ctx, int fd, uint32_t events)
{
	struct nbd_server *s = ctx;
	uint64_t count;
	_unused_ ssize_t n = read(fd, &count, sizeof(count));

	reap(s);
	nbd_peers_admit(s);
}

/* ---- listening ---- */

static bool owns_one(const char *folder, uid_t uid)
{
	DIR *dir = opendir(folder);
	bool found = false;
	struct stat st;

	for (struct dirent *entry; dir && !found && (entry = readdir(dir));)
		found = entry->d_name[0] != '.' && !fstatat(dirfd(dir), entry->d_name, &st, 0) && st.st_uid == uid;
	if (dir)
		closedir(dir);
	return found;
}

static bool peer_allowed(struct nbd_server *s, int fd, char *who, size_t size)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return false;
	snprintf(who, size, "pid %d of uid %u", (int)cred.pid, (unsigned)cred.uid);
	if (s->any_uid || cred.uid == 0 || cred.uid == geteuid() || cred.uid == s->peer_uid)
		return true;
	return s->peer_owners && owns_one(s->peer_owners, cred.uid);
}

static void name_tcp(int fd, char *who, size_t size)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);
	char host[INET6_ADDRSTRLEN + 16], port[8];

	snprintf(who, size, "?");
	if (!getpeername(fd, (struct sockaddr *)&addr, &len) &&
	    !getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(who, size, "%s port %s", host, port);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &(int){ 1 }, sizeof(int));
}

static void on_accept(void *ctx, int listen_fd, uint32_t events)
{
	struct nbd_server *s = ctx;
	int fd = socket_accept(listen_fd, SOCK_CLOEXEC | SOCK_NONBLOCK);
	char who[96] = "?";
	const char *no = NULL;

	if (fd < 0)
		return;
	s->accepted++;
	if (!s->path)
		name_tcp(fd, who, sizeof(who));
	else if (!peer_allowed(s, fd, who, sizeof(who)))
		no = "that user may not connect (peer-uid)";
	if (!no && s->peer_count + s->conn_count >= s->connections_max)
		no = "there are too many connections";
	if (no) {
		s->refused++;
		nbd_say(s, true, "NBD client %s refused: %s", who, no);
		close(fd);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){ SEND_BUFFER_BYTES }, sizeof(int));
	nbd_peer_new(s, fd, who);
}

static int listen_unix(struct nbd_server *s, const struct blk_values *v, struct error *e)
{
	const char *mode = blk_values_text(v, "mode"), *uid = blk_values_text(v, "peer-uid");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	uint64_t number = 0;

	s->path = strdup(blk_values_text(v, "socket"));
	s->any_uid = str_eq(uid, "any");
	if (blk_values_has(v, "peer-owners"))
		s->peer_owners = strdup(blk_values_text(v, "peer-owners"));
	if (uid && !s->any_uid && parse_u64(uid, 0, UINT32_MAX - 1, &number))
		return error_set(e, "InvalidOption", "peer-uid=%s is no user's number", uid);
	s->peer_uid = (uint32_t)number;
	if (!s->path || strlen(s->path) >= sizeof(addr.sun_path))
		return error_set(e, "InvalidOption", "socket=%s: a socket's path has at most %zu bytes", s->path, sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, s->path);
	s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listen_fd < 0)
		return error_errno(e, errno, "a unix socket");
	int err = socket_remove_stale(s->path);
	if (err == -EADDRINUSE)
		return error_set(e, "AddressInUse", "%s: another process listens there", s->path);
	if (err)
		return error_errno(e, err, "listening on %s", s->path);
	/* Nobody can connect before listen(), so the mode is right in time. */
	s->bound = bind(s->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
	if (!s->bound || chmod(s->path, (mode_t)strtoul(mode, NULL, 8)) ||
	    listen(s->listen_fd, BACKLOG))
		return error_errno(e, errno, "listening on %s", s->path);
	return 0;
}

static int listen_tcp(struct nbd_server *s, const struct blk_values *v, struct error *e)
{
	const char *address = blk_values_text(v, "address");
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV }, *found;
	char port[8];

	snprintf(port, sizeof(port), "%u", (unsigned)blk_values_number(v, "port"));
	int r = getaddrinfo(address, port, &hints, &found);
	if (r)
		return error_set(e, "InvalidOption", "address=%s: %s", address, gai_strerror(r));
	s->listen_fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listen_fd >= 0)
		setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	r = s->listen_fd < 0 || bind(s->listen_fd, found->ai_addr, found->ai_addrlen) || listen(s->listen_fd, BACKLOG) ? errno : 0;
	freeaddrinfo(found);
	if (r)
		return error_errno(e, r, "listening on %s port %s", address, port);
	struct sockaddr_storage bound;
	socklen_t len = sizeof(bound);
	if (!getsockname(s->listen_fd, (struct sockaddr *)&bound, &len)) /* sin_port and sin6_port are at the same place */
		nbd_say(s, false, "NBD on %s port %u", address, ntohs(((struct sockaddr_in *)&bound)->sin_port));
	return 0;
}

/* ---- open and close ---- */

static void server_free(struct nbd_server *s)
{
	loop_remove(s->listen_source);
	loop_remove(s->ended_source);
	if (s->bound)
		unlink(s->path);
	fd_closep(&s->listen_fd);
	fd_closep(&s->ended_fd);
	tls_context_free(s->tls);
	pthread_cond_destroy(&s->more_ended);
	pthread_mutex_destroy(&s->lock);
	free(s->peer_owners);
	free(s->path);
	free(s);
}

static int open_tls(struct nbd_server *s, const struct blk_values *v, struct error *e)
{
	const char *mode = blk_values_text(v, "tls"), *dir = blk_values_text(v, "tls-dir");

	s->tls_mode = str_eq(mode, "require") ? NBD_TLS_REQUIRE : str_eq(mode, "on") ? NBD_TLS_ON : NBD_TLS_OFF;
	s->tls_peer = tls_role_parse(blk_values_text(v, "tls-peer"));
	if (s->tls_mode == NBD_TLS_OFF)
		return 0;
	if (!dir)
		return error_set(e, "InvalidOption", "tls=%s needs tls-dir", mode);
	return tls_context_load(dir, tls_role_parse(blk_values_text(v, "tls-role")), &s->tls, e);
}

static int open_listener(struct nbd_server *s, const struct blk_values *v, struct error *e)
{
	bool on_unix = blk_values_has(v, "socket");

	if (on_unix == blk_values_has(v, "address"))
		return error_set(e, "InvalidOption", "nbd listens on either a socket or an address");
	int err = on_unix ? listen_unix(s, v, e) : listen_tcp(s, v, e);
	if (!err && loop_add_fd(s->loop, s->listen_fd, EPOLLIN, on_accept, s, &s->listen_source))
		err = error_errno(e, ENOMEM, "listening");
	return err;
}

static int nbd_open(struct blk_front *f, const struct blk_values *v, struct error *e)
{
	struct nbd_server *s = aligned_alloc(_Alignof(struct nbd_server), sizeof(*s));

	if (!s)
		return error_errno(e, ENOMEM, "an NBD server");
	memset(s, 0, sizeof(*s));
	s->front = f;
	s->stack = f->stack;
	s->loop = f->loop;
	s->listen_fd = -1;
	s->exclusive = blk_values_bool(v, "exclusive");
	s->read_only = blk_values_bool(v, "read-only");
	s->connections_max = (unsigned)blk_values_number(v, "connections");
	s->handshake_ms = blk_values_number(v, "handshake-ms");
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->more_ended, NULL);
	s->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int err = s->ended_fd < 0 ? error_errno(e, errno, "an NBD server") : open_tls(s, v, e);
	if (!err && loop_add_fd(s->loop, s->ended_fd, EPOLLIN, on_ended, s, &s->ended_source))
		err = error_errno(e, ENOMEM, "an NBD server");
	if (!err)
		err = open_listener(s, v, e);
	if (err) {
		server_free(s);
		return err;
	}
	if (s->peer_owners)
		f->needs |= BLK_NEEDS_FILES;
	f->state = s;
	return 0;
}

static void nbd_close(struct blk_front *f)
{
	struct nbd_server *s = f->state;

	loop_remove(TAKE_PTR(s->listen_source));
	while (s->peers)
		nbd_peer_free(s->peers);
	nbd_server_drain(s);
	while (s->conn_count) {
		pthread_mutex_lock(&s->lock);
		while (!s->ended)
			pthread_cond_wait(&s->more_ended, &s->lock);
		pthread_mutex_unlock(&s->lock);
		reap(s);
	}
	server_free(s);
	f->state = NULL;
}

static void nbd_stats(struct blk_front *f, struct blk_stats_sink *sink)
{
	struct nbd_server *s = f->state;
	enum { COUNTERS = 9 };
	uint64_t sum[COUNTERS] = { 0 };
	static const char *const names[COUNTERS] = { "requests", "errors", "bytes_sent", "bytes_received", "sends",
						     "receives", "stalls", "holes",      "lent_bytes" };
	static const char *const help[COUNTERS] = {
		"Requests of NBD clients.", "Requests that ended with an error.", "Bytes sent to clients.", "Bytes received from clients.",
		"System calls that sent replies.", "System calls that received requests.",
		"Times that receiving waited for room.", "Zeroes that were told, not sent.",
		"Bytes sent out of the page cache, without a copy.",
	};

	for (unsigned q = 0; q < blk_stack_queues(s->stack); q++) {
		const struct nbd_counters *c = &s->counters[q];
		const _Atomic uint64_t *all[COUNTERS] = { &c->requests, &c->errors,   &c->bytes_sent, &c->bytes_received, &c->sends,
							  &c->receives, &c->stalls,   &c->holes,      &c->lent_bytes };
		for (unsigned i = 0; i < COUNTERS; i++)
			sum[i] += atomic_load_explicit(all[i], memory_order_relaxed);
	}
	for (unsigned i = 0; i < COUNTERS; i++)
		blk_stats_emit(sink, "nbd", names[i], true, sum[i], help[i]);
	blk_stats_emit(sink, "nbd", "accepted", true, s->accepted, "Connections accepted.");
	blk_stats_emit(sink, "nbd", "refused", true, s->refused, "Connections refused at once.");
	blk_stats_emit(sink, "nbd", "admitted", true, s->admitted, "Connections whose handshake succeeded.");
	blk_stats_emit(sink, "nbd", "connections", false, s->current, "Connections that stand.");
}

const struct blk_front_ops blk_nbd_server_ops = {
	.name = "nbd",
	.doc = "NBD server on a unix socket or TCP, with TLS",
	.options = options,
	.open = nbd_open,
	.close = nbd_close,
	.stats = nbd_stats,
};
