/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/processes.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "os/file.h"
#include "volume/control.h"
#include "volume/keeper.h"

#define CONNECT_MS 1000
#define END_MS 30000 /* it flushes what it has */

/* Who serves the control socket, by the kernel's word; 0: nobody. */
static pid_t holder(const char *path)
{
	_cleanup_(fd_closep) int fd = -1;
	pid_t pid = 0;

	return control_connect(path, CONNECT_MS, &fd, &pid) ? 0 : pid;
}

static int end_one(const char *path, struct error *e)
{
	int64_t until_ms = clock_mono_ms() + END_MS;
	pid_t pid = holder(path);

	if (pid <= 0)
		return 0;
	kill(pid, SIGTERM);
	while (kill(pid, 0) == 0) {
		if (clock_mono_ms() > until_ms)
			return error_set(e, "TimedOut", "Process %d, which serves a volume at %s, does not end", (int)pid, path);
		usleep(20000);
	}
	return 0;
}

static int end_all(const char *folder, struct error *e)
{
	DIR *dir = opendir(folder);
	int r = 0;

	for (struct dirent *entry; dir && r == 0 && (entry = readdir(dir));) {
		char path[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s/control.sock", folder, entry->d_name);
		r = end_one(path, e);
	}
	if (dir)
		closedir(dir);
	return r;
}

int processes_end(const struct settings *s, struct error *e)
{
	/* Volumes first: they may wait for what they read from. */
	static const char *const folders[] = {"sc/served", "sc/exports"};
	_cleanup_(freep) char *guests = settings_path(s, "nc/volumes");
	unsigned count;
	int r = keeper_end_all(guests, END_MS, &count, e);

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(folders); i++) {
		_cleanup_(freep) char *folder = settings_path(s, "%s", folders[i]);

		r = end_all(folder, e);
	}
	return r;
}
