/* SPDX-License-Identifier: Apache-2.0 */
#include <netinet/in.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.h"
#include "cmd/cmd_priv.h"
#include "cmd/service.h"
#include "cmd/setup.h"
#include "os/file.h"
#include "os/privs.h"

static int check_root(const struct settings *s, struct error *e)
{
	_cleanup_(freep) char *call = program_to_call();

	if (geteuid() == 0 || is_fake(s))
		return 0;
	return error_set(
	    e, "NotRoot",
	    "Running virtual machines on this host needs root. Nothing was changed. Run:\n  sudo %s up",
	    call);
}

static int check_port(const char *address, uint16_t port, struct error *e)
{
	_cleanup_(fd_closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	char holder[128];
	int one = 1;

	inet_pton(AF_INET, address, &a.sin_addr);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0)
		return error_errno(e, errno, "Cannot make a socket");
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 1) == 0)
		return 0;
	if (errno == EADDRNOTAVAIL)
		return error_set(e, "InvalidSetting",
				 "MALLEE_LISTEN is %s, which is not an address of this host",
				 address);
	if (errno != EADDRINUSE)
		return error_errno(e, errno, "Cannot listen on %s port %u", address, port);
	port_holder(port, holder, sizeof(holder));
	return error_set(
	    e, "PortInUse",
	    "Port %u is taken%s%s. Stop that program, or set MALLEE_PORT_BASE to use other ports.",
	    port, *holder ? " by " : "", holder);
}

/* Ports of services that run already are theirs. */
static int check_ports(const struct settings *s, struct error *e)
{
	const char *listen = settings_get(s, SETTING_LISTEN);

	for (size_t i = 0; i < SERVICE_COUNT; i++) {
		int r;

		if (service_pid(s, &services[i]))
			continue;
		r = check_port("127.0.0.1", settings_port(s, services[i].rpc), e);
		if (r == 0)
			r = check_port("127.0.0.1", settings_port(s, services[i].ops), e);
		if (r == 0 && services[i].role == TLS_ROLE_CLC)
			r = check_port(listen, settings_port(s, PORT_API), e);
		if (r == 0 && services[i].role == TLS_ROLE_WALRUS)
			r = check_port(listen, settings_port(s, PORT_S3), e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The guests' QEMU runs as other users and must walk to its disk. Looked at is what is there of the
 * path. */
static int check_traversable(const struct settings *s, struct error *e)
{
	_cleanup_(freep) char *path = settings_path(s, "nc");
	uid_t uid = 65534;
	gid_t gid = 65534;

	if (is_fake(s))
		return 0;
	privs_lookup_user("libvirt-qemu", &uid, &gid);
	while (access(path, F_OK) < 0) {
		char *slash = strrchr(path, '/');

		slash[slash == path] = '\0';
	}
	return path_traversable(path, uid, gid, e);
}

static int check_programs(const struct settings *s, struct error *e)
{
	static const char *const programs[] = {"/usr/bin/qemu-system-x86_64", "/usr/sbin/libvirtd",
					       "/usr/sbin/virtlogd", "/usr/sbin/dnsmasq"};

	for (size_t i = 0; i < ARRAY_SIZE(programs) && !is_fake(s); i++) {
		if (access(programs[i], X_OK) < 0)
			return error_set(
			    e, "MissingProgram",
			    "%s is missing. `make up` installs it, or: tools/packages run",
			    programs[i]);
	}
	return 0;
}

int preflight(struct settings *s, struct error *e)
{
	int r = check_root(s, e);

	if (r == 0)
		r = check_programs(s, e);
	if (r == 0)
		r = check_ports(s, e);
	if (r == 0)
		r = check_traversable(s, e);
	return r;
}
