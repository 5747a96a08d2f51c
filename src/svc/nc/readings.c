/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/nc/readings.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/text.h"
#include "os/file.h"

#define TABLE_MAX_BYTES ((size_t)16 << 20)
#define NS_PER_S UINT64_C(1000000000)

static int read_table(const char *root, const char *file, char **ret)
{
	char path[256];
	size_t len;

	snprintf(path, sizeof(path), "%s%s", root, file);
	return file_read(path, TABLE_MAX_BYTES, ret, &len);
}

/* A short file into out, NUL-terminated. */
static int read_short(const char *path, char *out, size_t size)
{
	_cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);

	if (n < 0)
		return -errno;
	out[n] = '\0';
	return 0;
}

/* --- the host's CPUs --- */

int cpu_read(const char *root, struct cpu_reading *ret)
{
	_cleanup_(freep) char *text = NULL;
	uint64_t v[8] = {0}; /* user nice system idle iowait irq softirq steal; what follows is part of user */
	int r = read_table(root, "/proc/stat", &text);

	*ret = (struct cpu_reading){0};
	if (r < 0)
		return r;
	if (sscanf(text, "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &v[0], &v[1],
		   &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]) < 4)
		return -EBADMSG;
	for (size_t i = 0; i < ARRAY_SIZE(v); i++)
		ret->total += v[i];
	ret->idle = v[3] + v[4];
	ret->steal = v[7];
	for (const char *at = text; (at = strstr(at, "\ncpu")); at++)
		ret->cores++;
	return 0;
}

/* --- tables: a line an entry, whose name is its first member --- */

static int compare_names(const void *a, const void *b)
{
	return strcmp(a, b);
}

static size_t count_lines(const char *text)
{
	size_t n = 1;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

/* Entries of size bytes out of the lines that parse() takes, malloc()ed, sorted by name. NULL: errors as read_table's. */
static void *read_entries(const char *root, const char *file, size_t size, bool (*parse)(char *line, void *entry), size_t *ret_count, int *err)
{
	_cleanup_(freep) char *text = NULL;
	size_t count = 0;

	*ret_count = 0;
	*err = read_table(root, file, &text);
	if (*err < 0)
		return NULL;
	char *list = calloc(count_lines(text), size);
	if (!list)
		abort();
	for (char *at = text, *line; (line = strsep(&at, "\n"));)
		count += parse(line, list + count * size);
	qsort(list, count, size, compare_names);
	*ret_count = count;
	return list;
}

static bool parse_disk(char *line, void *entry)
{
	struct disk_reading *d = entry;

	return disk_counters_parse(line, d->device, &d->counters) == 0;
}

int disks_read(const char *root, struct disk_reading **ret, size_t *ret_count)
{
	int err;

	*ret = read_entries(root, "/proc/diskstats", sizeof(**ret), parse_disk, ret_count, &err);
	return err;
}

const struct disk_reading *disk_find(const struct disk_reading *list, size_t count, const char *device)
{
	return count ? bsearch(device, list, count, sizeof(*list), compare_names) : NULL;
}

static bool parse_link(char *line, void *entry)
{
	struct link_reading *l = entry;
	char *name = line + strspn(line, " "), *colon = strrchr(name, ':');

	if (!colon || (size_t)(colon - name) >= sizeof(l->name))
		return false;
	*colon = '\0';
	snprintf(l->name, sizeof(l->name), "%s", name);
	return sscanf(colon + 1,
		      "%" SCNu64 " %" SCNu64 " %*u %" SCNu64 " %*u %*u %*u %*u %" SCNu64 " %" SCNu64 " %*u %" SCNu64, &l->rx_bytes,
		      &l->rx_packets, &l->rx_dropped, &l->tx_bytes, &l->tx_packets, &l->tx_dropped) == 6;
}

int links_read(const char *root, struct link_reading **ret, size_t *ret_count)
{
	int err;

	*ret = read_entries(root, "/proc/net/dev", sizeof(**ret), parse_link, ret_count, &err);
	return err;
}

const struct link_reading *link_find(const struct link_reading *list, size_t count, const char *name)
{
	return count ? bsearch(name, list, count, sizeof(*list), compare_names) : NULL;
}

static bool read_nic(const char *root, const char *name, struct nic_reading *ret)
{
	char path[512], text[32];
	uint64_t speed = 0;

	snprintf(path, sizeof(path), "%s/sys/class/net/%s/device", root, name);
	if (strlen(name) >= sizeof(ret->name) || access(path, F_OK) < 0)
		return false;
	snprintf(path, sizeof(path), "%s/sys/class/net/%s/speed", root, name);
	if (read_short(path, text, sizeof(text)) == 0) {
		text[strcspn(text, "\n")] = '\0';
		if (parse_u64(text, 0, UINT32_MAX, &speed) < 0) /* -1: the driver does not know */
			speed = 0;
	}
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	ret->speed_mbit = (unsigned)speed;
	return true;
}

size_t nics_read(const char *root, struct nic_reading ret[static READINGS_NICS])
{
	char path[256];
	struct dirent *entry;
	size_t n = 0;

	snprintf(path, sizeof(path), "%s/sys/class/net", root);
	DIR *d = opendir(path);
	while (d && n < READINGS_NICS && (entry = readdir(d)))
		n += entry->d_name[0] != '.' && read_nic(root, entry->d_name, &ret[n]);
	if (d)
		closedir(d);
	qsort(ret, n, sizeof(*ret), compare_names);
	return n;
}

/* --- a guest's process --- */

/* Behind the command's name, which is in brackets and may hold anything. */
static int parse_stat(const char *text, struct process_reading *p)
{
	const char *at = strrchr(text, ')');
	uint64_t user, system;

	if (!at || sscanf(at + 1,
			  " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64 " %*d %*d %*d %*d %*d %*d %" SCNu64, &user,
			  &system, &p->started_ticks) != 3)
		return -EBADMSG;
	p->cpu_ns = (user + system) * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
	return 0;
}

/* "CPU 0/KVM", "CPU 1/TCG": QEMU's names for them. */
static bool is_vcpu(const char *task_dir, const char *tid)
{
	char path[512], comm[32];

	if (snprintf(path, sizeof(path), "%s/%s/comm", task_dir, tid) >= (int)sizeof(path))
		return false;
	return read_short(path, comm, sizeof(comm)) == 0 && str_prefix(comm, "CPU ");
}

static void find_vcpus(const char *task_dir, struct process_reading *p)
{
	DIR *d = opendir(task_dir);
	struct dirent *entry;

	p->vcpus = 0;
	while (d && (entry = readdir(d)) && p->vcpus < READINGS_VCPUS)
		if (entry->d_name[0] != '.' && is_vcpu(task_dir, entry->d_name))
			p->vcpu_tid[p->vcpus++] = (pid_t)atoi(entry->d_name);
	if (d)
		closedir(d);
}

/* schedstat: nanoseconds on a core, and in wait for one. */
static void read_vcpus(const char *task_dir, struct process_reading *p)
{
	char path[512], text[96];

	for (unsigned i = 0; i < p->vcpus; i++) {
		snprintf(path, sizeof(path), "%s/%d/schedstat", task_dir, (int)p->vcpu_tid[i]);
		if (read_short(path, text, sizeof(text)) < 0 ||
		    sscanf(text, "%" SCNu64 " %" SCNu64, &p->vcpu_run_ns[i], &p->vcpu_wait_ns[i]) != 2) {
			p->vcpus = 0; /* gone, or the kernel does not tell: looked for again next time */
			return;
		}
	}
}

int process_read(const char *root, pid_t pid, unsigned vcpus, const struct process_reading *before, struct process_reading *ret)
{
	char path[256], task_dir[256], text[1024];
	int r;

	*ret = (struct process_reading){.pid = pid};
	snprintf(path, sizeof(path), "%s/proc/%d/stat", root, (int)pid);
	snprintf(task_dir, sizeof(task_dir), "%s/proc/%d/task", root, (int)pid);
	r = read_short(path, text, sizeof(text));
	if (r == 0)
		r = parse_stat(text, ret);
	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	if (before && before->pid == pid && before->started_ticks == ret->started_ticks &&
	    before->vcpus >= MIN_OF(vcpus, (unsigned)READINGS_VCPUS)) {
		ret->vcpus = before->vcpus;
		memcpy(ret->vcpu_tid, before->vcpu_tid, sizeof(ret->vcpu_tid));
	} else {
		find_vcpus(task_dir, ret);
	}
	read_vcpus(task_dir, ret);
	return 0;
}

/* --- what a path lies on --- */

int device_under(const char *root, const char *path, char ret[static DISK_NAME_LEN])
{
	char link[256], target[PATH_MAX], partition[PATH_MAX + 32];
	struct stat st;
	ssize_t n;

	if (stat(path, &st) < 0)
		return -errno;
	dev_t dev = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
	if (!major(dev)) /* a file system of no device, or of several */
		return -ENODEV;
	snprintf(link, sizeof(link), "%s/sys/dev/block/%u:%u", root, major(dev), minor(dev));
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return -ENODEV;
	target[n] = '\0';
	snprintf(partition, sizeof(partition), "%s/partition", link);
	char *name = access(partition, F_OK) == 0 ? basename(dirname(target)) : basename(target);
	if (strlen(name) >= DISK_NAME_LEN)
		return -ENODEV;
	strcpy(ret, name);
	return 0;
}
