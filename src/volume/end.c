/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ending processes that nobody keeps any more. They are known by their command line, since one that is about to serve has no
 * control socket yet; whoever dresses up as one of them is ended as well, and has nothing else to fear.
 */
#include <ctype.h>
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "os/file.h"
#include "volume/keeper.h"

#define ENDED_MAX 65536
#define KILLED_MS 10000

static bool serves(const char *line, size_t len, const char *run_dir)
{
	const char *slash = strrchr(line, '/'), *base = slash ? slash + 1 : line;
	size_t dir_len = strlen(run_dir);

	if (!str_eq(base, "mallee-blockd") && !str_eq(base, "mallee-snapshotd"))
		return false;
	for (const char *arg = line; arg < line + len; arg += strlen(arg) + 1) {
		if (str_eq(arg, "--control") && arg + strlen(arg) + 1 < line + len) {
			const char *path = arg + strlen(arg) + 1;
			return strncmp(path, run_dir, dir_len) == 0 && path[dir_len] == '/';
		}
	}
	return false;
}

/* A pidfd of it when it serves a volume of run_dir; the pidfd comes first, so that no other one takes its number. */
static int look_at(const char *pid, const char *run_dir)
{
	_cleanup_(freep) char *line = NULL;
	_cleanup_(fd_closep) int fd = pidfd_open(atoi(pid), 0);
	char path[300];
	size_t len;

	snprintf(path, sizeof(path), "/proc/%s/cmdline", pid);
	if (fd < 0 || file_read(path, 1 << 20, &line, &len) || !len || !serves(line, len, run_dir))
		return -1;
	int found = fd;
	fd = -1;
	return found;
}

static bool wait_end(int fd, int64_t end_ms)
{
	struct pollfd p = {fd, POLLIN, 0};

	for (;;) {
		int64_t left = end_ms - clock_mono_ms();
		if (poll(&p, 1, (int)MAX_OF(left, (int64_t)0)) > 0)
			return true;
		if (left <= 0)
			return false;
	}
}

static bool end_one(int fd, int64_t end_ms)
{
	if (wait_end(fd, end_ms))
		return true;
	pidfd_send_signal(fd, SIGKILL, NULL, 0);
	return wait_end(fd, clock_mono_ms() + KILLED_MS);
}

int keeper_end_all(const char *run_dir, int timeout_ms, unsigned *ret_count, struct error *e)
{
	int64_t end_ms = clock_mono_ms() + timeout_ms;
	DIR *proc = opendir("/proc");
	unsigned n = 0, left = 0;
	int *fds = calloc(ENDED_MAX, sizeof(*fds));

	if (!fds)
		abort();
	if (!proc) {
		free(fds);
		return error_errno(e, errno, "Reading /proc");
	}
	for (struct dirent *entry; n < ENDED_MAX && (entry = readdir(proc));) {
		int fd = isdigit((unsigned char)entry->d_name[0]) ? look_at(entry->d_name, run_dir) : -1;
		if (fd < 0)
			continue;
		pidfd_send_signal(fd, SIGTERM, NULL, 0);
		fds[n++] = fd;
	}
	closedir(proc);
	for (unsigned i = 0; i < n; i++) {
		left += !end_one(fds[i], end_ms);
		close(fds[i]);
	}
	free(fds);
	*ret_count = n;
	if (left)
		return error_set(e, "InternalError", "%u processes that serve volumes of %s do not end", left, run_dir);
	return 0;
}
