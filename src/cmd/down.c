/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "cmd/client.h"
#include "cmd/cmd_priv.h"
#include "cmd/processes.h"
#include "cmd/service.h"
#include "cmd/stop.h"
#include "cmd/up.h"

#define SERVICES_TIMEOUT_MS 40000
#define DRAIN_SLACK_S                                                                              \
	30 /* for turning guests off, behind the time they have to go down by themselves */

bool cloud_runs(const struct settings *s)
{
	bool runs = supervisor_pid(s) > 0;

	for (size_t i = 0; i < SERVICE_COUNT; i++)
		runs |= service_pid(s, &services[i]) > 0;
	return runs;
}

/* Only the node controller can stop guests: where it died, it is started again first. */
static int need_node(const struct settings *s, struct error *e)
{
	const struct service *nc = service_of(TLS_ROLE_NC);
	int64_t until_ms = clock_mono_ms() + 20000;
	int r = supervisor_start(s, e);

	while (r == 0) {
		struct error why = {0};

		if (service_pid(s, nc) > 0 && service_health(s, nc, &why) == 0)
			return 0;
		if (clock_mono_ms() > until_ms)
			return error_set(
			    e, "NotHealthy",
			    "The node controller, which stops the guests, is not well: %s",
			    *why.message ? why.message : "it does not run");
		usleep(50000);
	}
	return r;
}

static int wait_drained(struct client *c, int64_t until_ms, struct error *e)
{
	bool told = false;

	for (;;) {
		_cleanup_(arena_freep) struct arena *a = arena_new();
		const struct shared_node_status *n;
		void *reply;
		int r =
		    client_rpc(c, PEER_NC, &node_service, "DescribeNode", NULL, a, &reply, 0, e);

		if (r < 0)
			return r;
		n = reply;
		if (str_eq(n->state, "drained"))
			return 0;
		if (!told)
			printf("  guests: going down (%lld instances)\n",
			       (long long)n->instances.value);
		told = true;
		fflush(stdout);
		if (clock_mono_ms() > until_ms)
			return error_set(
			    e, "TimedOut",
			    "Guests have not gone down; nc.log says why. The services go on.");
		usleep(200000);
	}
}

static int drain(const struct settings *s, int timeout_s, struct error *e)
{
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct node_drain_request in = {.timeout_s = WIRE_INT_OF(timeout_s)};
	int64_t until_ms = clock_mono_ms() + (timeout_s + DRAIN_SLACK_S) * 1000LL;
	int r = need_node(s, e);

	if (r == 0)
		r = client_new(s, &c, e);
	if (r == 0)
		r = client_rpc(c, PEER_NC, &node_service, "Drain", &in, a, NULL,
			       (timeout_s + DRAIN_SLACK_S) * 1000, e);
	if (r == 0)
		r = wait_drained(c, until_ms, e);
	if (r == 0)
		printf("  guests: down\n");
	fflush(stdout);
	return r;
}

static int stop_services(const struct settings *s, struct error *e)
{
	int64_t until_ms = clock_mono_ms() + SERVICES_TIMEOUT_MS;
	pid_t supervisor = supervisor_pid(s);

	if (supervisor > 0)
		kill(supervisor, SIGTERM);
	while (cloud_runs(s)) {
		if (clock_mono_ms() > until_ms)
			return error_set(e, "TimedOut",
					 "The services do not end; see %s/log/supervisor.log",
					 settings_get(s, SETTING_STATE));
		/* Without a supervisor nobody else ends them. */
		for (size_t i = 0; i < SERVICE_COUNT && supervisor_pid(s) <= 0; i++) {
			pid_t pid = service_pid(s, &services[i]);

			if (pid > 0)
				kill(pid, SIGTERM);
		}
		usleep(100000);
	}
	printf("  services: down\n");
	return processes_end(s, e);
}

int cloud_stop(const struct settings *s, int timeout_s, bool regardless, struct error *e)
{
	struct error why = {0};

	if (!cloud_runs(s))
		return 0;
	if (drain(s, timeout_s, &why) < 0) {
		if (!regardless)
			return error_set(e, why.code, "%s", why.message);
		printf("  guests: %s\n", why.message);
	}
	return stop_services(s, e);
}

int confirm(bool yes, const char *question, struct error *e)
{
	const char *set = getenv("YES");
	char answer[8];

	if (yes || str_eq(set, "1"))
		return 0;
	if (!isatty(STDIN_FILENO)) {
		error_set(e, "NotConfirmed", "%s Nothing was changed. Say --yes, or YES=1.",
			  question);
		return -ECANCELED;
	}
	printf("%s [y/N] ", question);
	fflush(stdout);
	if (fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
		return 0;
	error_set(e, "NotConfirmed", "Nothing was changed.");
	return -ECANCELED;
}

int cmd_down(int argc, char **argv)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	const char *timeout = "30";
	const struct option_spec options[] = {{"--timeout", NULL, &timeout}};
	struct error e = {0};
	int64_t timeout_s;

	if (options_parse(argc, argv, options, ARRAY_SIZE(options), NULL, 0, 0) < 0)
		return EXIT_USAGE;
	if (parse_i64(timeout, 0, 3600, &timeout_s) < 0) {
		fprintf(stderr,
			"mallee down: --timeout takes a number of seconds from 0 to 3600\n");
		return EXIT_USAGE;
	}
	if (load_settings(&s))
		return 1;
	if (!cloud_runs(s)) {
		printf("Nothing runs of the cloud in %s.\n", settings_get(s, SETTING_STATE));
		return 0;
	}
	if (cloud_stop(s, (int)timeout_s, false, &e) < 0)
		return command_failed(&e);
	printf("The cloud is down; `mallee up` brings it back as it was.\n");
	return 0;
}
