/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/rotate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/file.h"

static int copy(int from, int to)
{
	char chunk[65536];
	ssize_t n;

	while ((n = read(from, chunk, sizeof(chunk))) > 0) {
		int r = fd_write_all(to, chunk, (size_t)n);

		if (r < 0)
			return r;
	}
	return n < 0 ? -errno : 0;
}

int rotate_log(const char *path, uint64_t max_bytes)
{
	_cleanup_(fd_closep) int from = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_(fd_closep) int to = -1;
	_cleanup_(freep) char *old = NULL;
	struct stat st;
	int r;

	if (from < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(from, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size <= max_bytes)
		return 0;
	if (asprintf(&old, "%s.1", path) < 0)
		abort();
	unlink(old);
	to = open(old, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	if (to < 0)
		return -errno;
	r = copy(from, to);
	if (r < 0)
		return r;
	return ftruncate(from, 0) < 0 ? -errno : 0;
}
