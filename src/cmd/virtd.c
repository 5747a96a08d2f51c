/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/virtd.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"
#include "os/spawn.h"

static bool socket_answers(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_cleanup_(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	return fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

bool virtd_answers(void)
{
	return socket_answers("/run/libvirt/libvirt-sock");
}

bool virtlogd_answers(void)
{
	return socket_answers("/run/libvirt/virtlogd-sock");
}

bool virtd_by_systemd(void)
{
	return access("/run/systemd/system", F_OK) == 0 &&
	       (access("/lib/systemd/system/libvirtd.service", F_OK) == 0 ||
		access("/etc/systemd/system/libvirtd.service", F_OK) == 0);
}

int virtd_start_by_systemd(struct error *e)
{
	return run_command(e, "systemctl", "start", "libvirtd.service", NULL);
}

static void quiet(void *ctx, virErrorPtr err)
{
}

static virConnectPtr connect_system(void)
{
	virSetErrorFunc(NULL, quiet); /* else libvirt prints to stderr */
	return virConnectOpen("qemu:///system");
}

int virtd_active_domains(void)
{
	virConnectPtr c = connect_system();
	int n;

	if (!c)
		return -EIO;
	n = virConnectNumOfDomains(c);
	virConnectClose(c);
	return n < 0 ? -EIO : n;
}

static int remove_domain(virDomainPtr d, struct error *e)
{
	if (virDomainIsActive(d) == 1 && virDomainDestroy(d) < 0 && virDomainIsActive(d) == 1)
		return error_set(e, "InternalError", "Cannot turn off the domain %s: %s",
				 virDomainGetName(d), virGetLastErrorMessage());
	if (virDomainIsPersistent(d) == 1 &&
	    virDomainUndefineFlags(d, VIR_DOMAIN_UNDEFINE_MANAGED_SAVE |
					  VIR_DOMAIN_UNDEFINE_NVRAM) < 0)
		return error_set(e, "InternalError", "Cannot undefine the domain %s: %s",
				 virDomainGetName(d), virGetLastErrorMessage());
	return 0;
}

int virtd_remove_domains(const char *cloud_id, int *ret, struct error *e)
{
	virConnectPtr c = connect_system();
	virDomainPtr *domains = NULL;
	char prefix[64];
	int n, r = 0;

	*ret = 0;
	if (!c)
		return error_set(e, "ServiceUnavailable", "libvirtd does not answer: %s",
				 virGetLastErrorMessage());
	snprintf(prefix, sizeof(prefix), "mallee-%s-", cloud_id);
	n = virConnectListAllDomains(c, &domains, 0);
	if (n < 0)
		r = error_set(e, "InternalError", "Cannot list libvirt's domains: %s",
			      virGetLastErrorMessage());
	for (int i = 0; i < n; i++) {
		if (r == 0 && str_prefix(virDomainGetName(domains[i]), prefix)) {
			r = remove_domain(domains[i], e);
			*ret += r == 0;
		}
		virDomainFree(domains[i]);
	}
	free(domains);
	virConnectClose(c);
	return r;
}
