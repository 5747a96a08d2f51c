/* SPDX-License-Identifier: Apache-2.0 */
/* mallee doctor: one line a check; under each that fails, what to do. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/text.h"
#include "cmd/client.h"
#include "cmd/cmd_priv.h"
#include "cmd/service.h"
#include "cmd/setup.h"
#include "cmd/virtd.h"
#include "hyper/driver.h"
#include "net/net.h"

#define DISK_LOW_MIB 2048

struct doctor {
	const struct settings *settings;
	int wrong;
};

static void good(const char *fmt, ...) _printf_(1, 2);
static void bad(struct doctor *d, const char *remedy, const char *fmt, ...) _printf_(3, 4);

static void good(const char *fmt, ...)
{
	va_list ap;

	printf("ok     ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

static void bad(struct doctor *d, const char *remedy, const char *fmt, ...)
{
	va_list ap;

	printf("WRONG  ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n       do: %s\n", remedy);
	d->wrong++;
}

static void check_preflight(struct doctor *d, struct settings *s)
{
	struct error e = {0};

	if (preflight(s, &e) == 0)
		good("programs, ports and the state folder %s", settings_get(s, SETTING_STATE));
	else
		bad(d, "what the message says, then `mallee up`", "%s", e.message);
}

static void check_services(struct doctor *d)
{
	if (supervisor_pid(d->settings) > 0)
		good("supervisor runs (pid %d)", (int)supervisor_pid(d->settings));
	else
		bad(d, "mallee up",
		    "the supervisor does not run: nobody restarts a service that dies");
	for (size_t i = 0; i < SERVICE_COUNT; i++) {
		const struct service *svc = &services[i];
		_cleanup_(freep) char *remedy = NULL;
		struct error e = {0};
		pid_t pid = service_pid(d->settings, svc);

		if (asprintf(&remedy, "mallee up; its log is %s/log/%s.log",
			     settings_get(d->settings, SETTING_STATE), svc->name) < 0)
			abort();
		if (pid <= 0)
			bad(d, remedy, "%s does not run", svc->program);
		else if (service_health(d->settings, svc, &e) < 0)
			bad(d, remedy, "%s: %s", svc->program, e.message);
		else if (service_outdated(d->settings, svc, pid))
			bad(d, "mallee up, which restarts it", "%s runs an older build",
			    svc->program);
		else
			good("%s is well (pid %d)", svc->program, (int)pid);
	}
}

static void check_hypervisor(struct doctor *d)
{
	enum hyper_accel accel;
	char why[256];
	int domains;

	if (is_fake(d->settings)) {
		good("hypervisor: fake, no guest really runs");
		return;
	}
	accel = hyper_probe(why, sizeof(why));
	good("guests run on %s: %s", hyper_accel_name(accel), why);
	if (!virtd_answers()) {
		bad(d, virtd_by_systemd() ? "systemctl start libvirtd" : "mallee up",
		    "libvirtd does not answer at /run/libvirt/libvirt-sock");
		return;
	}
	domains = virtd_active_domains();
	if (domains < 0)
		bad(d, "look into libvirtd.log in the state folder, or journalctl -u libvirtd",
		    "libvirtd takes connections but does not answer");
	else
		good("libvirtd answers, %d domain(s) run on it", domains);
}

static void check_network(struct doctor *d)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(freep) char *dir = settings_path(d->settings, "nc/net");
	struct net_config c = {.cloud_id = settings_get(d->settings, SETTING_CLOUD_ID),
			       .dir = dir,
			       .subnet = settings_get(d->settings, SETTING_SUBNET),
			       .region = settings_get(d->settings, SETTING_REGION),
			       .metadata_port = settings_port(d->settings, PORT_METADATA)};
	struct net_finding *findings = NULL;
	size_t count = 0;
	struct error e = {0};

	if (is_fake(d->settings) || !*c.subnet)
		return;
	if (net_diagnose(&c, a, &findings, &count, &e) < 0) {
		bad(d, "run this as root", "the network could not be looked at: %s", e.message);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (findings[i].fatal)
			bad(d, findings[i].remedy, "%s", findings[i].text);
		else
			printf("note   %s\n       %s\n", findings[i].text, findings[i].remedy);
	}
	if (!count)
		good("nothing on this host stands in the way of the guests' network %s", c.subnet);
}

static void check_disk(struct doctor *d)
{
	struct statvfs st;
	unsigned long long free_mib;

	if (statvfs(settings_get(d->settings, SETTING_STATE), &st) < 0)
		return;
	free_mib = (unsigned long long)st.f_bavail * st.f_frsize >> 20;
	if (free_mib < DISK_LOW_MIB)
		bad(d, "free space there, or move the cloud: MALLEE_STATE",
		    "only %llu MiB are free under %s", free_mib,
		    settings_get(d->settings, SETTING_STATE));
	else
		good("%llu MiB are free under %s", free_mib,
		     settings_get(d->settings, SETTING_STATE));
}

/* AppArmor confines QEMU on stock Debian; virt-aa-helper allows the disks of a domain, and the
 * state folder needs no rule of its own unless it lies under a dotted folder of a home. */
static void check_apparmor(struct doctor *d)
{
	if (access("/sys/kernel/security/apparmor/profiles", F_OK) < 0)
		return;
	if (strstr(settings_get(d->settings, SETTING_STATE), "/."))
		bad(d, "use a state folder without a dot in front of a name",
		    "AppArmor denies QEMU every disk under a dotted folder");
	else
		good("AppArmor is on; libvirt makes its profile for each guest");
}

static void list_findings(struct doctor *d, const struct storage_describe_scrub_response *scrub)
{
	for (size_t i = 0; i < scrub->findings.count && i < 10; i++) {
		const struct storage_scrub_finding *f = &scrub->findings.items[i];

		bad(d, f->corrupt.value ? "delete it and make it anew, out of a copy"
					: "mallee volume scrub, once the object store answers",
		    "the last scrub: %s: %s", f->resource_id, f->message);
	}
}

static void check_pools(struct doctor *d, const struct storage_get_status_response *st)
{
	for (size_t i = 0; i < st->pools.count; i++) {
		const struct storage_pool_status *p = &st->pools.items[i];

		if (is_fake(d->settings)) /* nothing is accounted */
			continue;
		if (p->free_bytes.value < p->total_bytes.value / 20)
			bad(d, "delete volumes, or give the pool more: MALLEE_EBS_POOL",
			    "EBS volumes: %lld of %lld GiB are promised", (long long)p->used_bytes.value >> 30,
			    (long long)p->total_bytes.value >> 30);
		else
			good("EBS volumes: %lld GiB of %s can still be promised",
			     (long long)p->free_bytes.value >> 30, p->kind);
	}
}

static void check_storage(struct doctor *d)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(client_freep) struct client *c = NULL;
	struct error e = {0};
	void *reply;

	if (client_new(d->settings, &c, &e) < 0 ||
	    client_rpc(c, PEER_SC, &storage_service, "GetStatus", NULL, a, &reply, 0, &e) < 0)
		return; /* the check of services has told */
	check_pools(d, reply);
	if (client_rpc(c, PEER_SC, &storage_service, "DescribeScrub", NULL, a, &reply, 0, &e) == 0)
		list_findings(d, reply);
}

int cmd_doctor(int argc, char **argv)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	struct doctor d = {0};

	if (options_parse(argc, argv, NULL, 0, NULL, 0, 0) < 0)
		return EXIT_USAGE;
	if (load_settings(&s))
		return 1;
	d.settings = s;
	if (!*settings_get(s, SETTING_CLOUD_ID)) {
		printf("There is no cloud in %s yet; `mallee up` makes one.\n",
		       settings_get(s, SETTING_STATE));
		check_preflight(&d, s);
		return d.wrong ? 1 : 0;
	}
	check_preflight(&d, s);
	check_services(&d);
	check_hypervisor(&d);
	check_network(&d);
	check_disk(&d);
	check_storage(&d);
	check_apparmor(&d);
	if (access("/usr/bin/aws", X_OK) < 0)
		printf(
		    "note   /usr/bin/aws is missing: `mallee aws` needs Debian's package awscli\n");
	printf(d.wrong ? "\n%d thing(s) are wrong.\n" : "\nAll is well.\n", d.wrong);
	return d.wrong ? 1 : 0;
}
