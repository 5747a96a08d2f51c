/* SPDX-License-Identifier: Apache-2.0 */
#include "volume/counters.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "os/file.h"

#define REPLY_MAX_BYTES 65536

/* ---- what an answer says ---- */

static uint64_t number(const json_t *object, const char *name)
{
	json_int_t n = json_integer_value(json_object_get(object, name));

	return n > 0 ? (uint64_t)n : 0;
}

static bool take_point(const json_t *j, struct counters_point *p)
{
	static const char *const names[COUNTERS_OPS] = {"read", "write", "flush", "discard", "write_zeroes"};

	for (unsigned i = 0; i < COUNTERS_OPS; i++) {
		const json_t *op = json_object_get(j, names[i]);

		if (!json_is_integer(json_object_get(op, "ops")))
			return false;
		p->op[i] = (struct counters_op){.ops = number(op, "ops"),
						.bytes = number(op, "bytes"),
						.errors = number(op, "errors"),
						.latency_ns = number(op, "latency_ns"),
						.sequential = number(op, "sequential")};
	}
	p->places_known = json_is_integer(json_object_get(json_object_get(j, "read"), "sequential"));
	p->busy_ns = number(j, "busy_ns");
	p->weighted_ns = number(j, "weighted_ns");
	p->outstanding = number(j, "outstanding");
	return true;
}

int counters_parse(const char *line, size_t len, struct counters *ret)
{
	json_t *reply = json_loadb(line, len, 0, NULL), *result = json_object_get(reply, "result");
	const json_t *throttle = json_object_get(json_object_get(result, "layers"), "throttle");
	struct counters c = {.limit_iops = number(throttle, "iops"),
			     .limit_bps = number(throttle, "bps"),
			     .held = number(throttle, "held"),
			     .held_ns = number(throttle, "held_ns")};
	const char *code = json_string_value(json_object_get(reply, "code"));
	int err = -EBADMSG;

	if (take_point(json_object_get(result, "guest"), &c.guest) && take_point(json_object_get(result, "disk"), &c.disk)) {
		*ret = c;
		err = 0;
	} else if (code && str_eq(code, "InvalidCommand")) {
		err = -EOPNOTSUPP;
	}
	json_decref(reply);
	return err;
}

/* ---- connections ---- */

static int fd_of(const struct counters_link *l)
{
	return l->fd_plus_one - 1;
}

static void hang_up(struct counters_link *l)
{
	if (l->fd_plus_one)
		close(fd_of(l));
	l->fd_plus_one = 0;
	l->pid = 0;
	buf_reset(&l->in);
}

void counters_link_done(struct counters_link *l)
{
	hang_up(l);
	buf_done(&l->in);
}

/* Never waits: a process that does not accept has a full backlog, and then it is -EAGAIN. */
static int call_up(struct counters_link *l, const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (strlen(path) >= sizeof(to.sun_path))
		return -ENAMETOOLONG;
	strcpy(to.sun_path, path);
	_cleanup_(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return -errno;
	l->fd_plus_one = fd + 1;
	l->pid = peer.pid;
	l->old = false;
	buf_reset(&l->in);
	fd = -1;
	return 0;
}

static int send_command(struct counters_link *l)
{
	const char *line = l->old ? "stats\n" : "counters\n";
	ssize_t n = send(fd_of(l), line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT);

	return n == (ssize_t)strlen(line) ? 0 : n < 0 ? -errno : -EIO;
}

/* One that was open may lead to a process that has ended since: then there may be another. */
static int ask(struct counters_ask *a)
{
	struct counters_link *l = a->link;
	int err;

	if (l->fd_plus_one) {
		if (!send_command(l))
			return 0;
		hang_up(l);
	}
	err = call_up(l, a->path);
	return err ? err : send_command(l);
}

/* ---- a round ---- */

/* 0: the answer is there and taken; -EAGAIN: more is to come. */
static int take(struct counters_ask *a)
{
	struct counters_link *l = a->link;
	char part[4096];
	int err;

	for (;;) {
		ssize_t n = recv(fd_of(l), part, sizeof(part), MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ECONNRESET;
		if (l->in.len + (size_t)n > REPLY_MAX_BYTES)
			return -EMSGSIZE;
		buf_append(&l->in, part, (size_t)n);
		if (part[n - 1] == '\n')
			break;
	}
	err = counters_parse(l->in.data, l->in.len - 1, &a->got);
	buf_reset(&l->in);
	if (err == -EOPNOTSUPP && !l->old) {
		l->old = true;
		err = send_command(l);
		return err ? err : -EAGAIN;
	}
	return err;
}

/* What is over is known by its pollfd's fd: -1. */
static void settle(struct counters_ask *a, struct pollfd *p, int err)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	a->at_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	a->err = err;
	a->pid = a->link->pid;
	p->fd = -1;
	if (err)
		hang_up(a->link);
}

static size_t ask_all(struct counters_ask *asks, struct pollfd *polls, size_t count)
{
	size_t open = 0;

	for (size_t i = 0; i < count; i++) {
		int err = ask(&asks[i]);

		polls[i] = (struct pollfd){.fd = fd_of(asks[i].link), .events = POLLIN};
		if (err)
			settle(&asks[i], &polls[i], err);
		open += !err;
	}
	return open;
}

static size_t take_all(struct counters_ask *asks, struct pollfd *polls, size_t count)
{
	size_t done = 0;

	for (size_t i = 0; i < count; i++) {
		int err;

		if (polls[i].fd < 0 || !polls[i].revents)
			continue;
		err = take(&asks[i]);
		if (err == -EAGAIN)
			continue;
		settle(&asks[i], &polls[i], err);
		done++;
	}
	return done;
}

void counters_round(struct counters_ask *asks, size_t count, int timeout_ms)
{
	struct pollfd *polls = calloc(count + 1, sizeof(*polls));
	int64_t end = clock_mono_ms() + timeout_ms;
	size_t open;

	if (!polls)
		abort();
	open = ask_all(asks, polls, count);
	while (open) {
		int64_t left = end - clock_mono_ms();
		int n = left > 0 ? poll(polls, count, (int)left) : 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		open -= take_all(asks, polls, count);
	}
	for (size_t i = 0; i < count; i++)
		if (polls[i].fd >= 0)
			settle(&asks[i], &polls[i], -ETIMEDOUT);
	free(polls);
}
