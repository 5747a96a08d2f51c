/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/text.h"
#include "cmd/blockd.h"
#include "os/file.h"
#include "os/socket.h"
#include "volume/control.h"

#define CONNECTIONS_MAX 8
#define LINE_MAX_BYTES 8192
#define SEND_TIMEOUT_MS 120000 /* a drain may take its time */

struct connection {
	struct blockd_control *control;
	pthread_t thread;
	int fd;      /* -1: free, or ended and still to be joined */
	bool thread_made;
};

struct blockd_control {
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	const char *name;
	uid_t owner;
	struct blk_stack *stack;
	struct blk_front *const *fronts;
	unsigned front_count;
	int listen_fd;
	pthread_t thread;
	pthread_mutex_t lock; /* connection, closing */
	struct connection connection[CONNECTIONS_MAX];
	bool closing;
};

/* ---- commands ---- */

static int do_info(struct blockd_control *c, const char *args, struct buf *out, struct error *e)
{
	const struct blk_info *i = blk_stack_info(c->stack);

	buf_printf(out,
		   "{\"name\":\"%s\",\"size_bytes\":%" PRIu64 ",\"block_bytes\":%u,\"read_only\":%s,\"volatile_cache\":%s,\"queues\":%u,"
		   "\"io\":\"%s\",\"pid\":%d}",
		   c->name, i->size_bytes, i->block_bytes, i->read_only ? "true" : "false", i->volatile_cache ? "true" : "false",
		   blk_stack_queues(c->stack), blk_queue_engine(blk_stack_queue(c->stack, 0)) == BLK_IO_URING ? "uring" : "threads",
		   (int)getpid());
	return 0;
}

static int do_stats(struct blockd_control *c, const char *args, struct buf *out, struct error *e)
{
	blk_stack_stats_json(c->stack, c->fronts, c->front_count, out);
	return 0;
}

static int do_counters(struct blockd_control *c, const char *args, struct buf *out, struct error *e)
{
	blk_stack_counters_json(c->stack, c->fronts, c->front_count, out);
	return 0;
}

static int do_metrics(struct blockd_control *c, const char *args, struct buf *out, struct error *e)
{
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	char labels[96] = "";

	if (*c->name)
		snprintf(labels, sizeof(labels), "volume=\"%s\"", c->name);
	blk_stack_stats_prometheus(c->stack, c->fronts, c->front_count, labels, &text);
	json_t *string = json_stringn(text.data, text.len);
	char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
	json_decref(string);
	if (!quoted)
		return error_errno(e, ENOMEM, "printing metrics");
	buf_puts(out, quoted);
	free(quoted);
	return 0;
}

static int do_resize(struct blockd_control *c, const char *args, struct buf *out, struct error *e)
{
	uint64_t size_bytes;

	if (parse_u64(args, 1, INT64_MAX, &size_bytes))
		return error_set(e, "InvalidCommand", "resize %s: give the new size in bytes", args);
	int err = blk_stack_resize(c->stack, size_bytes, e);
	if (!err)
		buf_printf(out, "{\"size_bytes\":%" PRIu64 "}", blk_stack_info(c->stack)->size_bytes);
	return err;
}

static int do_flush(struct blockd_control *c, const char *args, struct buf *out, struct error *e)
{
	int err = blk_stack_barrier(c->stack, 30000, e);

	if (err)
		return err;
	blk_stack_resume(c->stack);
	buf_puts(out, "{}");
	return 0;
}

static int do_help(struct blockd_control *c, const char *args, struct buf *out, struct error *e);

static const struct command {
	const char *name, *doc;
	int (*run)(struct blockd_control *c, const char *args, struct buf *out, struct error *e);
} commands[] = {
	{ "help", "this list", do_help },
	{ "info", "size, block size, queues", do_info },
	{ "stats", "counters, as JSON", do_stats },
	{ "counters", "the same without histograms: for who asks often", do_counters },
	{ "metrics", "counters, as Prometheus text in a JSON string", do_metrics },
	{ "resize", "BYTES: grow the volume; front ends tell their clients", do_resize },
	{ "flush", "wait for requests in flight, then flush: all that was acknowledged is on the disk", do_flush },
};

static void list_verbs(struct blk_stack *s, json_t *list)
{
	for (struct blk_layer *l = blk_stack_top(s); l; l = l->below) {
		for (const struct blk_verb *v = l->ops->verbs; v && v->name; v++)
			json_array_append_new(list, json_sprintf("%s %s: %s", l->ops->name, v->name, v->doc));
	}
}

static int do_help(struct blockd_control *c, const char *args, struct buf *out, struct error *e)
{
	json_t *list = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		json_array_append_new(list, json_sprintf("%s: %s", commands[i].name, commands[i].doc));
	list_verbs(c->stack, list);
	char *text = json_dumps(list, 0);
	json_decref(list);
	if (!text)
		return error_errno(e, ENOMEM, "listing commands");
	buf_puts(out, text);
	free(text);
	return 0;
}

/* `NAME ARGS` of the table, or `LAYER VERB key=value,…`. */
static int run_command(struct blockd_control *c, char *line, struct buf *out, struct error *e)
{
	char *rest = strchr(line, ' ');

	if (rest)
		*rest++ = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (str_eq(commands[i].name, line))
			return commands[i].run(c, rest ? rest : "", out, e);
	}
	if (!rest)
		return error_set(e, "InvalidCommand", "there is no command \"%s\"; `help` lists them", line);
	char *args = strchr(rest, ' ');
	if (args)
		*args++ = '\0';
	return blk_stack_command(c->stack, line, rest, args, out, e);
}

static void answer(struct blockd_control *c, char *line, struct buf *reply)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct error e = { 0 };
	int err = run_command(c, line, &out, &e);

	if (!err) {
		buf_printf(reply, "{\"ok\":true,\"result\":%s}\n", out.len ? out.data : "{}");
		return;
	}
	json_t *j = json_pack("{s:b,s:s,s:s}", "ok", 0, "code", error_is_set(&e) ? e.code : "Failed", "message",
			      error_is_set(&e) ? e.message : strerror(-err));
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	buf_printf(reply, "%s\n", text ? text : "{\"ok\":false}");
	free(text);
}

/* ---- connections ---- */

static bool trusted(const struct blockd_control *c, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && (peer.uid == 0 || peer.uid == c->owner);
}

static void *serve_connection(void *arg)
{
	struct connection *conn = arg;
	char line[LINE_MAX_BYTES];
	size_t have = 0;

	for (;;) {
		ssize_t n = recv(conn->fd, line + have, sizeof(line) - have, 0);
		if (n <= 0)
			break;
		have += (size_t)n;
		char *end;
		while ((end = memchr(line, '\n', have))) {
			_cleanup_(buf_done) struct buf reply = BUF_INIT;
			*end = '\0';
			answer(conn->control, line, &reply);
			if (fd_write_all(conn->fd, reply.data, reply.len))
				break;
			have -= (size_t)(end + 1 - line);
			memmove(line, end + 1, have);
		}
		if (end || have == sizeof(line))
			break; /* it does not read its answers, or sends no line */
	}
	pthread_mutex_lock(&conn->control->lock);
	fd_closep(&conn->fd);
	pthread_mutex_unlock(&conn->control->lock);
	return NULL;
}

static void start_connection(struct blockd_control *c, int fd)
{
	for (unsigned i = 0; i < CONNECTIONS_MAX && !c->closing && trusted(c, fd); i++) {
		struct connection *conn = &c->connection[i];
		if (conn->fd >= 0)
			continue;
		if (conn->thread_made)
			pthread_join(conn->thread, NULL);
		conn->control = c;
		conn->fd = fd;
		conn->thread_made = !pthread_create(&conn->thread, NULL, serve_connection, conn);
		if (conn->thread_made)
			return;
		conn->fd = -1;
		break;
	}
	close(fd);
}

static void *accept_all(void *arg)
{
	struct blockd_control *c = arg;

	for (;;) {
		int fd = socket_accept(c->listen_fd, SOCK_CLOEXEC);
		if (fd < 0 && errno != EINTR && errno != ECONNABORTED && errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS)
			return NULL; /* shut down */
		if (fd < 0)
			continue;
		pthread_mutex_lock(&c->lock);
		start_connection(c, fd);
		pthread_mutex_unlock(&c->lock);
	}
}

static int listen_at(struct blockd_control *c, const char *path, struct error *e)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(at.sun_path))
		return error_set(e, "InvalidOption", "--control %s: a socket's path has at most %zu characters", path,
				 sizeof(at.sun_path) - 1);
	memcpy(at.sun_path, path, strlen(path) + 1);
	memcpy(c->path, path, strlen(path) + 1);
	c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->listen_fd < 0)
		return error_errno(e, errno, "making the control socket");
	int err = socket_remove_stale(path); /* of one that was killed */
	if (err)
		return error_errno(e, err, "--control %s", path);
	mode_t before = umask(0177);
	err = bind(c->listen_fd, (struct sockaddr *)&at, sizeof(at)) || listen(c->listen_fd, CONNECTIONS_MAX) ? -errno : 0;
	umask(before);
	return err ? error_errno(e, err, "--control %s", path) : 0;
}

int blockd_control_open(const char *path, const char *name, uid_t owner, struct blk_stack *stack, struct blk_front *const *fronts, unsigned front_count,
			struct blockd_control **ret, struct error *e)
{
	struct blockd_control *c = calloc(1, sizeof(*c));

	if (!c)
		return error_errno(e, ENOMEM, "making the control socket");
	c->name = name;
	c->owner = owner;
	c->stack = stack;
	c->fronts = fronts;
	c->front_count = front_count;
	c->listen_fd = -1;
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		c->connection[i].fd = -1;
	pthread_mutex_init(&c->lock, NULL);
	json_object_seed(0); /* now: it opens a file, which a sandbox forbids later */
	int err = listen_at(c, path, e);
	if (!err && (err = -pthread_create(&c->thread, NULL, accept_all, c)))
		error_errno(e, err, "starting the control socket's thread");
	if (err) {
		fd_closep(&c->listen_fd);
		pthread_mutex_destroy(&c->lock);
		free(c);
		return err;
	}
	*ret = c;
	return 0;
}

void blockd_control_close(struct blockd_control *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->closing = true;
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
		if (c->connection[i].fd >= 0)
			shutdown(c->connection[i].fd, SHUT_RDWR);
	}
	pthread_mutex_unlock(&c->lock);
	shutdown(c->listen_fd, SHUT_RDWR);
	pthread_join(c->thread, NULL);
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
		if (c->connection[i].thread_made)
			pthread_join(c->connection[i].thread, NULL);
	}
	unlink(c->path);
	fd_closep(&c->listen_fd);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* ---- the other side, for operators ---- */

static void print_result(const char *json)
{
	json_t *result = json_loads(json, JSON_DECODE_ANY, NULL);

	if (json_is_string(result)) {
		fputs(json_string_value(result), stdout);
	} else {
		json_dumpf(result, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_PRESERVE_ORDER);
		putchar('\n');
	}
	json_decref(result);
}

int blockd_send(const char *path, int argc, char **argv)
{
	_cleanup_(fd_closep) int fd = -1;
	_cleanup_(buf_done) struct buf line = BUF_INIT, reply = BUF_INIT;
	struct error e = { 0 };
	pid_t pid;

	for (int i = 0; i < argc; i++)
		buf_printf(&line, "%s%s", i ? " " : "", argv[i]);
	int err = control_connect(path, SEND_TIMEOUT_MS, &fd, &pid);
	if (err)
		error_errno(&e, err, "reaching %s", path);
	else
		err = control_ask(fd, line.data, &reply, &e);
	if (err) {
		fprintf(stderr, "mallee-blockd: %s\n", e.message);
		return 1;
	}
	print_result(reply.data);
	return 0;
}
