/* SPDX-License-Identifier: Apache-2.0 */
/* Who listens on a port (declared in privs.h): /proc/net/tcp names the socket, /proc/PID/fd its
 * owner. */
#include "os/privs.h"

#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"

#define TCP_LISTEN 0x0a

/* The inode of a socket that listens on port; 0 if there is none in this table. */
static unsigned long listener_inode(const char *table, uint16_t port)
{
	FILE *f = fopen(table, "re");
	unsigned long inode = 0;
	char line[512];

	if (!f)
		return 0;
	while (inode == 0 && fgets(line, sizeof(line), f)) {
		unsigned local_port, state;
		unsigned long found;

		/* sl local:port remote:port state tx:rx tr:when retrnsmt uid timeout inode */
		if (sscanf(line,
			   " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*u %*u %lu",
			   &local_port, &state, &found) == 3 &&
		    local_port == port && state == TCP_LISTEN)
			inode = found;
	}
	fclose(f);
	return inode;
}

static bool owns_socket(const char *pid, const char *socket_name)
{
	char path[64], target[64];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (n <= 0)
			continue;
		target[n] = '\0';
		found = str_eq(target, socket_name);
	}
	closedir(dir);
	return found;
}

static void describe_process(const char *pid, char *holder, size_t size)
{
	_cleanup_(freep) char *comm = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
	if (file_read(path, 256, &comm, NULL) < 0) {
		snprintf(holder, size, "pid %s", pid);
		return;
	}
	comm[strcspn(comm, "\n")] = '\0';
	snprintf(holder, size, "%s (pid %s)", comm, pid);
}

void port_holder(uint16_t port, char *holder, size_t size)
{
	unsigned long inode = listener_inode("/proc/net/tcp", port);
	struct dirent *entry;
	char name[40];
	DIR *proc;

	holder[0] = '\0';
	if (inode == 0)
		inode = listener_inode("/proc/net/tcp6", port);
	if (inode == 0)
		return;
	snprintf(name, sizeof(name), "socket:[%lu]", inode);
	proc = opendir("/proc");
	if (!proc)
		return;
	while ((entry = readdir(proc))) {
		if (isdigit((unsigned char)entry->d_name[0]) && owns_socket(entry->d_name, name)) {
			describe_process(entry->d_name, holder, size);
			break;
		}
	}
	closedir(proc);
}
