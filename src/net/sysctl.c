/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"

/* /proc/sys/net is that of the calling thread's network namespace. */
#define SYSCTL_ROOT "/proc/sys/net/"

int sysctl_get(const char *name, char *ret, size_t size)
{
	_cleanup_(fd_closep) int fd = -1;
	char path[256];
	ssize_t n;

	if (snprintf(path, sizeof(path), SYSCTL_ROOT "%s", name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, ret, size - 1);
	if (n < 0)
		return -errno;
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return 0;
}

int sysctl_put(const char *name, const char *value)
{
	_cleanup_(fd_closep) int fd = -1;
	char path[256];

	if (snprintf(path, sizeof(path), SYSCTL_ROOT "%s", name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fd_write_all(fd, value, strlen(value));
}

int sysctl_link(const char *family, const char *link, const char *key, const char *value)
{
	char name[96], now[32];
	int err;

	snprintf(name, sizeof(name), "%s/%s/%s", family, link, key);
	err = sysctl_get(name, now, sizeof(now));
	/* A kernel without IPv6 has nothing to turn off. */
	if (err == -ENOENT && str_prefix(family, "ipv6"))
		return 0;
	if (err < 0)
		return err;
	if (str_eq(now, value))
		return 0;
	err = sysctl_put(name, value);
	return err < 0 ? err : 1;
}

static void remember(struct record *r, const char *name, const char *before, const char *set)
{
	struct record_sysctl s;

	for (size_t i = 0; i < r->sysctl_count; i++) {
		if (str_eq(r->sysctls[i].name, name))
			return; /* the oldest value is the host's own */
	}
	snprintf(s.name, sizeof(s.name), "%s", name);
	snprintf(s.before, sizeof(s.before), "%s", before);
	snprintf(s.set, sizeof(s.set), "%s", set);
	record_add_sysctl(r, &s);
}

/*
 * Writing ip_forward writes more than itself: the forwarding of every interface, and
 * accept_redirects of `all`, which the kernel turns to the opposite. The interfaces that differ
 * from the new value's mirror are those that forwarded already; they are recorded behind
 * ip_forward, so that restoring in order ends with what was.
 */
static void remember_side_effects(struct record *r)
{
	char name[96], value[32];
	struct dirent *d;
	DIR *dir;

	if (!sysctl_get("ipv4/conf/all/accept_redirects", value, sizeof(value)))
		remember(r, "ipv4/conf/all/accept_redirects", value, "0");
	dir = opendir(SYSCTL_ROOT "ipv4/conf");
	while (dir && (d = readdir(dir))) {
		if (d->d_name[0] == '.' || str_eq(d->d_name, "all") || strlen(d->d_name) > IFNAMSIZ)
			continue;
		snprintf(name, sizeof(name), "ipv4/conf/%s/forwarding", d->d_name);
		if (!sysctl_get(name, value, sizeof(value)) && str_eq(value, "1") &&
		    !str_eq(d->d_name, r->bridge))
			remember(r, name, "1", "1");
	}
	if (dir)
		closedir(dir);
}

int forwarding_on(struct record *r, struct error *e)
{
	char value[32];
	int err;

	err = sysctl_get("ipv4/ip_forward", value, sizeof(value));
	if (err < 0)
		return error_errno(e, err, "cannot read net.ipv4.ip_forward");
	if (str_eq(value, "1"))
		return 0;
	remember(r, "ipv4/ip_forward", value, "1");
	remember_side_effects(r);
	err = record_save(r, e);
	if (err < 0)
		return err;
	err = sysctl_put("ipv4/ip_forward", "1");
	return err < 0 ? error_errno(e, err, "cannot turn on net.ipv4.ip_forward") : 1;
}

int sysctl_restore(const struct record *r, struct error *e)
{
	char value[32];
	int err, first = 0;

	/* Somebody who turned ip_forward off meanwhile has set the rest as well; leave that alone.
	 */
	if (r->sysctl_count && (sysctl_get(r->sysctls[0].name, value, sizeof(value)) < 0 ||
				!str_eq(value, r->sysctls[0].set)))
		return 0;
	for (size_t i = 0; i < r->sysctl_count; i++) {
		const struct record_sysctl *s = &r->sysctls[i];

		err = sysctl_put(s->name, s->before);
		if (err == -ENOENT) /* an interface that is gone */
			err = 0;
		if (err < 0 && !first)
			first =
			    error_errno(e, err, "cannot set net.%s back to %s", s->name, s->before);
	}
	return first;
}
