/* SPDX-License-Identifier: Apache-2.0 */
#include "volume/control.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "os/file.h"

#define REPLY_MAX_BYTES ((size_t)8 << 20)

int control_connect(const char *path, int timeout_ms, int *ret_fd, pid_t *ret_pid)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct timeval limit = {timeout_ms / 1000, (timeout_ms % 1000) * 1000};
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (strlen(path) >= sizeof(to.sun_path))
		return -ENAMETOOLONG;
	strcpy(to.sun_path, path);
	_cleanup_(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) ||
	    connect(fd, (struct sockaddr *)&to, sizeof(to)) ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return -errno;
	*ret_pid = peer.pid;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

static int read_line(int fd, struct buf *line)
{
	char part[4096];

	while (!line->len || line->data[line->len - 1] != '\n') {
		ssize_t n = recv(fd, part, sizeof(part), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? (errno == EAGAIN ? -ETIMEDOUT : -errno) : -ECONNRESET;
		if (line->len + (size_t)n > REPLY_MAX_BYTES)
			return -EMSGSIZE;
		buf_append(line, part, (size_t)n);
	}
	return 0;
}

static int take_reply(const char *text, const char *line, struct buf *ret_json, struct error *e)
{
	json_t *reply = json_loads(text, 0, NULL), *result = json_object_get(reply, "result");
	const char *code = json_string_value(json_object_get(reply, "code"));
	const char *message = json_string_value(json_object_get(reply, "message"));
	int err = 0;

	if (json_is_true(json_object_get(reply, "ok")) && result) {
		char *json = json_dumps(result, JSON_COMPACT | JSON_ENCODE_ANY);
		if (!json)
			abort();
		buf_puts(ret_json, json);
		free(json);
	} else if (code && message) {
		err = error_set(e, code, "%s", message);
	} else {
		err = error_set(e, "InternalError", "The volume's process gave no answer that can be read to \"%s\"", line);
	}
	json_decref(reply);
	return err;
}

int control_ask(int fd, const char *line, struct buf *ret_json, struct error *e)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT, in = BUF_INIT;
	size_t sent = 0;
	int err = 0;

	if (strchr(line, '\n'))
		return error_set(e, "InvalidCommand", "A command has one line");
	buf_printf(&out, "%s\n", line);
	while (sent < out.len && !err) {
		ssize_t n = send(fd, out.data + sent, out.len - sent, MSG_NOSIGNAL);
		if (n >= 0)
			sent += (size_t)n;
		else if (errno != EINTR)
			err = errno == EAGAIN ? -ETIMEDOUT : -errno;
	}
	if (!err)
		err = read_line(fd, &in);
	if (err)
		return error_errno(e, err, "Asking a volume's process \"%s\"", line);
	return take_reply(in.data, line, ret_json, e);
}
