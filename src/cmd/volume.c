/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <unistd.h>

#include "base/text.h"
#include "cmd/client.h"
#include "cmd/cmd_priv.h"

#define POLL_MS 200

static void print_progress(const struct storage_describe_scrub_response *d, bool live)
{
	printf("%sread %lld of %lld snapshot(s), %lld chunks, %lld MiB; %lld volume(s); %lld corrupt, %lld unreadable%s",
	       live ? "\r" : "", (long long)d->snapshots.value, (long long)d->snapshots_total.value,
	       (long long)d->chunks.value, (long long)d->bytes.value >> 20, (long long)d->volumes.value,
	       (long long)d->corrupt.value, (long long)d->unreadable.value, live ? "" : "\n");
	fflush(stdout);
}

static int start(struct client *c, const char *snapshot, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct storage_start_scrub_request in = {0};

	if (snapshot) {
		in.snapshot_ids.set = true;
		in.snapshot_ids.count = 1;
		in.snapshot_ids.items = (void *)&snapshot;
	}
	return client_rpc(c, PEER_SC, &storage_service, "StartScrub", &in, a, NULL, 0, e);
}

/* Until it has ended. */
static int follow(struct client *c, struct arena *a, const struct storage_describe_scrub_response **ret,
		  struct error *e)
{
	bool live = isatty(STDOUT_FILENO);

	for (;;) {
		_cleanup_(arena_freep) struct arena *now = arena_new();
		const struct storage_describe_scrub_response *d;
		void *reply;
		int r = client_rpc(c, PEER_SC, &storage_service, "DescribeScrub", NULL, now, &reply, 0, e);

		if (r < 0)
			return r;
		d = reply;
		if (!str_eq(d->state, "running"))
			break;
		if (live)
			print_progress(d, true);
		usleep(POLL_MS * 1000);
	}
	if (live)
		printf("\n");
	return client_rpc(c, PEER_SC, &storage_service, "DescribeScrub", NULL, a, (void **)ret, 0, e);
}

/* 0: all is well; 1: it could not be done, or not all of it; 2: there is corruption. */
static int report(const struct storage_describe_scrub_response *d)
{
	print_progress(d, false);
	for (size_t i = 0; i < d->findings.count; i++) {
		const struct storage_scrub_finding *f = &d->findings.items[i];

		printf("%s  %s: %s\n", f->corrupt.value ? "CORRUPT   " : "UNREADABLE", f->resource_id, f->message);
	}
	if (d->corrupt.value)
		return 2;
	if (!str_eq(d->state, "done")) {
		fprintf(stderr, "mallee volume scrub: it did not come to its end: %s\n", d->reason ? d->reason : "?");
		return 1;
	}
	if (d->unreadable.value)
		return 1;
	printf("Nothing is corrupt.\n");
	return 0;
}

static int scrub(const char *snapshot)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const struct storage_describe_scrub_response *d = NULL;
	struct error e = {0};

	if (load_settings(&s))
		return 1;
	if (client_new(s, &c, &e) < 0 || start(c, snapshot, &e) < 0 || follow(c, a, &d, &e) < 0)
		return command_failed(&e);
	return report(d);
}

int cmd_volume(int argc, char **argv)
{
	const char *words[2] = {NULL}, *snapshot = NULL;
	const struct option_spec options[] = {{"--snapshot", NULL, &snapshot}};

	if (options_parse(argc, argv, options, ARRAY_SIZE(options), words, 1, 1) < 0)
		return EXIT_USAGE;
	if (!str_eq(words[0], "scrub")) {
		fprintf(stderr, "mallee volume: there is no command \"%s\"; there is: scrub\n", words[0]);
		return EXIT_USAGE;
	}
	return scrub(snapshot);
}
