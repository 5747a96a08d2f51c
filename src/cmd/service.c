/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/service.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "os/file.h"
#include "wire/http_client.h"

const struct service services[SERVICE_COUNT] = {
    {"clc", "mallee-clc", "cloud controller: the EC2, STS and IAM APIs", TLS_ROLE_CLC, false,
     PORT_CLC, PORT_OPS_CLC},
    {"cc", "mallee-cc", "cluster controller: placement", TLS_ROLE_CC, false, PORT_CC, PORT_OPS_CC},
    {"walrus", "mallee-walrus", "object store: the S3 API", TLS_ROLE_WALRUS, false, PORT_WALRUS,
     PORT_OPS_WALRUS},
    {"sc", "mallee-sc", "storage controller: EBS volumes and snapshots", TLS_ROLE_SC, false, PORT_SC,
     PORT_OPS_SC},
    {"nc", "mallee-nc", "node controller: the guests of this machine", TLS_ROLE_NC, true, PORT_NC,
     PORT_OPS_NC},
};

const struct service *service_of(enum tls_role role)
{
	const struct service *svc = services;

	while (svc->role != role)
		svc++;
	return svc;
}

pid_t service_pid(const struct settings *s, const struct service *svc)
{
	_cleanup_(freep) char *path = settings_path(s, "run/%s.pid", svc->name);

	return pidfile_holder(path);
}

pid_t supervisor_pid(const struct settings *s)
{
	_cleanup_(freep) char *path = settings_path(s, "run/supervisor.pid");

	return pidfile_holder(path);
}

int service_health(const struct settings *s, const struct service *svc, struct error *e)
{
	struct http_client *client;
	struct http_exchange x = {.method = "GET", .connect_timeout_ms = 2000, .timeout_ms = 5000};
	char url[64];
	int r = http_client_new(NULL, &client);

	if (r < 0)
		return error_errno(e, r, "Cannot make an HTTP client");
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/healthz", settings_port(s, svc->ops));
	x.url = url;
	r = http_client_do(client, &x, e);
	if (r == 0 && x.status != 200)
		r = error_set(e, "ServiceUnavailable", "%s says: %.*s", svc->name,
			      (int)strcspn(x.reply.data ? x.reply.data : "", "\n"),
			      x.reply.data ? x.reply.data : "nothing");
	buf_done(&x.reply);
	http_client_free(client);
	return r;
}

bool service_outdated(const struct settings *s, const struct service *svc, pid_t pid)
{
	_cleanup_(freep) char *path = settings_path(s, "bin/%s", svc->program);
	struct stat now, running;
	char exe[64];

	snprintf(exe, sizeof(exe), "/proc/%d/exe", (int)pid);
	return stat(path, &now) == 0 && stat(exe, &running) == 0 &&
	       (now.st_dev != running.st_dev || now.st_ino != running.st_ino);
}

int64_t process_age_ms(pid_t pid)
{
	unsigned long long start;
	char path[64];
	double uptime;
	FILE *f;
	int n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return -1;
	/* The 22nd field, counted behind the name, which is in brackets and may hold anything. */
	n = fscanf(
	    f,
	    "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
	    &start);
	fclose(f);
	if (n != 1)
		return -1;
	f = fopen("/proc/uptime", "re");
	if (!f)
		return -1;
	n = fscanf(f, "%lf", &uptime);
	fclose(f);
	return n == 1
		   ? (int64_t)(uptime * 1000 - (double)start * 1000 / (double)sysconf(_SC_CLK_TCK))
		   : -1;
}
