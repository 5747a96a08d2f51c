/* SPDX-License-Identifier: Apache-2.0 */
/* mallee up: from nothing, or from anything in between, to a running cloud with an instance that
 * answers. Each step looks first whether it is done, so that doing it again is harmless and mends
 * what died. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "cmd/apparmor.h"
#include "cmd/client.h"
#include "cmd/cmd_priv.h"
#include "cmd/first.h"
#include "cmd/host.h"
#include "cmd/service.h"
#include "cmd/setup.h"
#include "cmd/up.h"
#include "os/file.h"
#include "os/spawn.h"

#define HEALTHY_TIMEOUT_MS 60000

/* Where AppArmor confines guests, libvirt's helper must be able to look at theirs, and they must
 * reach the sockets of their volumes. */
static int confine(const struct settings *s, struct error *e)
{
	bool changed, sockets_changed;
	int r;

	if (!apparmor_confines())
		return 0;
	r = apparmor_allow(APPARMOR_LOCAL, settings_get(s, SETTING_CLOUD_ID),
			   settings_get(s, SETTING_STATE), &changed, e);
	if (r == 0)
		r = apparmor_allow_sockets(APPARMOR_GUESTS_LOCAL,
					   settings_get(s, SETTING_CLOUD_ID),
					   settings_get(s, SETTING_STATE), &sockets_changed, e);
	return r == 0 && changed ? apparmor_reload(e) : r;
}

static int prepare(struct settings *s, struct error *e)
{
	int r = preflight(s, e);

	if (r == 0)
		r = setup_settings(s, e);
	if (r == 0 && !is_fake(s)) {
		r = host_cloud_add(s, e);
		if (r == 0)
			r = host_users_make(e);
		if (r == 0)
			r = host_kvm_prepare(e);
		if (r == 0)
			r = confine(s, e);
	}
	return r < 0 ? r : setup_state(s, e);
}

/* It executes itself anew, and holds its pid file again after that: until then it must not be taken for dead, or another one
 * would be started beside it. */
static void renew_supervisor(const struct settings *s, const struct service *self, pid_t pid)
{
	kill(pid, SIGHUP);
	for (int tries = 0; tries < 400 && kill(pid, 0) == 0; tries++) {
		if (supervisor_pid(s) == pid && !service_outdated(s, self, pid))
			return;
		usleep(50000);
	}
}

/* A service that runs an older build ends; the supervisor starts the new one. */
static void renew(const struct settings *s)
{
	pid_t supervisor = supervisor_pid(s);
	static const struct service self = {.program = "mallee"};

	if (supervisor > 0 && service_outdated(s, &self, supervisor))
		renew_supervisor(s, &self, supervisor);
	for (size_t i = 0; i < SERVICE_COUNT; i++) {
		pid_t pid = service_pid(s, &services[i]);

		if (pid <= 0 || !service_outdated(s, &services[i], pid))
			continue;
		kill(pid, SIGTERM);
		for (int tries = 0; tries < 400 && service_pid(s, &services[i]) == pid; tries++)
			usleep(50000);
	}
}

int supervisor_start(const struct settings *s, struct error *e)
{
	_cleanup_(freep) char *program = settings_path(s, "bin/mallee"),
			      *log = settings_path(s, "log/supervisor.log");
	struct spawn spawn = {
	    .argv = (const char *const[]){program, "supervise", NULL},
	    .log_path = log,
	    .new_session = true,
	};
	pid_t pid;

	if (supervisor_pid(s) > 0)
		return 0;
	setenv("MALLEE_STATE", settings_get(s, SETTING_STATE), 1);
	return spawn_start(&spawn, &pid, e);
}

int services_wait(const struct settings *s, int timeout_ms, struct error *e)
{
	int64_t until = clock_mono_ms() + timeout_ms;

	for (size_t i = 0; i < SERVICE_COUNT; i++) {
		for (;;) {
			struct error why = {0};

			if (service_pid(s, &services[i]) > 0 &&
			    service_health(s, &services[i], &why) == 0)
				break;
			if (clock_mono_ms() > until)
				return error_set(
				    e, "NotHealthy",
				    "%s is not well after %d s: %s. Its log: %s/log/%s.log",
				    services[i].program, timeout_ms / 1000,
				    *why.message ? why.message : "it does not run",
				    settings_get(s, SETTING_STATE), services[i].name);
			usleep(50000);
		}
	}
	return 0;
}

/* `mallee down` drained the node, which is why the cluster may not be well before this. */
static int resume(struct client *c, struct error *e)
{
	int64_t until = clock_mono_ms() + HEALTHY_TIMEOUT_MS;

	for (;;) {
		_cleanup_(arena_freep) struct arena *a = arena_new();
		struct error why = {0};

		if (client_rpc(c, PEER_NC, &node_service, "Resume", NULL, a, NULL, 30000, &why) ==
		    0)
			return 0;
		if (clock_mono_ms() > until)
			return error_set(e, why.code, "%s The node controller's log: nc.log",
					 why.message);
		usleep(50000);
	}
}

static int wait_node(struct client *c, const char **ret_text, struct arena *a, struct error *e)
{
	int64_t until = clock_mono_ms() + HEALTHY_TIMEOUT_MS;

	for (;;) {
		const struct cluster_describe_nodes_response *out;
		void *reply;
		int r = client_rpc(c, PEER_CC, &cluster_service, "DescribeNodes", NULL, a, &reply,
				   0, e);

		if (r < 0)
			return r;
		out = reply;
		for (size_t i = 0; i < out->nodes.count; i++) {
			const struct shared_node_status *n = &out->nodes.items[i];

			if (!str_eq(n->state, "ready"))
				continue;
			*ret_text = arena_printf(
			    a, "%s: %s (%s)", n->node_id, n->accelerator ? n->accelerator : "?",
			    n->accelerator_reason ? n->accelerator_reason : "no reason given");
			return 0;
		}
		if (clock_mono_ms() > until)
			return error_set(e, "NotHealthy",
					 "No node is ready after %d s; see nc.log and cc.log",
					 HEALTHY_TIMEOUT_MS / 1000);
		usleep(50000);
	}
}

static int bring_up(struct settings *s, struct error *e)
{
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	int64_t began_ms = clock_mono_ms();
	const char *node = NULL;
	int r = prepare(s, e);

	if (r < 0)
		return r;
	printf("Mallee %s: cloud %s in %s\n", MALLEE_VERSION, settings_get(s, SETTING_CLOUD_ID),
	       settings_get(s, SETTING_STATE));
	fflush(stdout);
	renew(s);
	r = supervisor_start(s, e);
	if (r == 0)
		r = client_new(s, &c, e);
	if (r == 0)
		r = resume(c, e);
	if (r == 0)
		r = services_wait(s, HEALTHY_TIMEOUT_MS, e);
	if (r == 0)
		r = wait_node(c, &node, a, e);
	if (r < 0)
		return r;
	printf("  services: up (%.1f s)\n  node %s\n", (double)(clock_mono_ms() - began_ms) / 1000,
	       node);
	fflush(stdout);
	return 0;
}

static void print_how(const struct settings *s, const struct first *f)
{
	_cleanup_(freep) char *call = program_to_call();

	if (f && !is_fake(s))
		printf("\nThe first instance answers:\n  ssh -i %s root@%s\n", f->key_path,
		       f->address);
	printf("\nEC2 API  http://%s:%u\nS3 API   http://%s:%u\n", public_host(s),
	       settings_port(s, PORT_API), public_host(s), settings_port(s, PORT_S3));
	printf("\nUse it:\n  %s aws ec2 describe-instances\n  eval \"$(%s env)\"\n  %s status\n",
	       call, call, call);
}

static int make_first(const struct settings *s, struct first *f, struct error *e)
{
	_cleanup_(client_freep) struct client *c = NULL;
	int r = client_new(s, &c, e);

	if (r == 0)
		r = client_use_account(c, "default", e);
	return r < 0 ? r : first_make(c, s, f, e);
}

int cmd_up(int argc, char **argv)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	bool no_instance = false;
	const struct option_spec options[] = {{"--no-instance", &no_instance, NULL}};
	struct first first = {0};
	struct error e = {0};
	int r;

	if (options_parse(argc, argv, options, ARRAY_SIZE(options), NULL, 0, 0) < 0)
		return EXIT_USAGE;
	if (load_settings(&s))
		return 1;
	r = bring_up(s, &e);
	if (r == 0 && !no_instance)
		r = make_first(s, &first, &e);
	if (r == 0)
		print_how(s, no_instance ? NULL : &first);
	first_done(&first);
	return r < 0 ? command_failed(&e) : 0;
}
