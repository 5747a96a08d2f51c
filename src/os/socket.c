/* SPDX-License-Identifier: Apache-2.0 */
#include "os/socket.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "os/file.h"

int socket_remove_stale(const char *path)
{
	_cleanup_(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct stat st;

	if (strlen(path) >= sizeof(at.sun_path))
		return -ENAMETOOLONG;
	memcpy(at.sun_path, path, strlen(path));
	if (lstat(path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)&at, sizeof(at)) || errno == EAGAIN)
		return -EADDRINUSE;
	return unlink(path) ? -errno : 0;
}

int socket_accept(int listen_fd, int flags)
{
	int fd = accept4(listen_fd, NULL, NULL, flags), err = errno;

	if (fd < 0 && (err == EMFILE || err == ENFILE || err == ENOMEM || err == ENOBUFS))
		poll(NULL, 0, 100);
	errno = err;
	return fd;
}
