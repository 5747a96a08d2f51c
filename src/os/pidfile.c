/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pid files (declared in file.h). The lock is what counts, the text only says who holds it. It
 * belongs to the open file description: F_OFD_GETLK looks without touching it, unlike a trial with
 * flock(), which would make a daemon that starts in that moment believe that another one runs.
 */
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"

/* The pid in the file; 0 while the holder has not written it yet. */
static pid_t read_pid(int fd)
{
	char text[32];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	int64_t pid;

	if (n <= 0)
		return 0;
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return parse_i64(text, 1, INT32_MAX, &pid) == 0 ? (pid_t)pid : 0;
}

/* The holder locks first and writes then: wait for the text, at most a second. */
static pid_t await_pid(int fd)
{
	pid_t pid = read_pid(fd);

	for (int i = 0; i < 100 && pid == 0; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
		pid = read_pid(fd);
	}
	return pid;
}

int pidfile_take(const char *path, int *ret_fd, pid_t *ret_pid)
{
	_cleanup_(fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char text[32];
	int r;

	if (fd < 0)
		return -errno;
	if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
		if (errno != EAGAIN && errno != EACCES)
			return -errno;
		if (ret_pid)
			*ret_pid = await_pid(fd);
		return -EBUSY;
	}
	snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0)
		return -errno;
	r = fd_pwrite_all(fd, text, strlen(text), 0);
	if (r < 0)
		return r;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

pid_t pidfile_holder(const char *path)
{
	_cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (fd < 0 || fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
		return 0;
	return await_pid(fd);
}
