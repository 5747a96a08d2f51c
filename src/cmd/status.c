/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/text.h"
#include "cmd/client.h"
#include "cmd/cmd_priv.h"
#include "cmd/service.h"

/* Each part prints its lines and counts what is wrong. */

static void print_age(int64_t ms)
{
	long long s = ms / 1000;

	if (s < 120)
		printf("%llds", s);
	else if (s < 7200)
		printf("%lldm", s / 60);
	else if (s < 172800)
		printf("%lldh", s / 3600);
	else
		printf("%lldd", s / 86400);
}

static int print_services(const struct settings *s)
{
	int wrong = 0;
	pid_t supervisor = supervisor_pid(s);

	printf("%-11s %7s %6s  %s\n", "SERVICE", "PID", "UP", "STATE");
	if (supervisor > 0) {
		printf("%-11s %7d ", "supervisor", (int)supervisor);
		printf("%6s  ok\n", "");
	} else {
		printf(
		    "%-11s %7s %6s  does not run: nobody restarts the services; `mallee up` starts it\n",
		    "supervisor", "-", "-");
		wrong++;
	}
	for (size_t i = 0; i < SERVICE_COUNT; i++) {
		pid_t pid = service_pid(s, &services[i]);
		struct error e = {0};

		if (pid <= 0) {
			printf("%-11s %7s %6s  does not run\n", services[i].name, "-", "-");
			wrong++;
			continue;
		}
		printf("%-11s %7d    ", services[i].name, (int)pid);
		print_age(process_age_ms(pid));
		if (service_health(s, &services[i], &e) == 0) {
			printf("  ok\n");
		} else {
			printf("  %s\n", e.message);
			wrong++;
		}
	}
	return wrong;
}

static void print_capacity(const struct shared_node_status *n)
{
	printf(
	    "  vCPUs %lld of %lld, memory %lld of %lld MiB, disk %lld of %lld GiB used; %lld instances\n",
	    (long long)n->vcpus_used.value, (long long)n->vcpus.value,
	    (long long)n->memory_mib_used.value, (long long)n->memory_mib.value,
	    (long long)n->disk_mib_used.value / 1024, (long long)n->disk_mib.value / 1024,
	    (long long)n->instances.value);
	if (n->local_disks.value)
		printf("  whole local disks: %lld of %lld given to instances\n",
		       (long long)n->local_disks_used.value, (long long)n->local_disks.value);
}

static int print_nodes(struct client *c)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const struct cluster_describe_nodes_response *out;
	struct error e = {0};
	void *reply;
	int wrong = 0;

	if (client_rpc(c, PEER_CC, &cluster_service, "DescribeNodes", NULL, a, &reply, 0, &e) < 0) {
		printf("nodes: %s\n", e.message);
		return 1;
	}
	out = reply;
	if (!out->nodes.count) {
		printf("nodes: none has registered\n");
		wrong++;
	}
	for (size_t i = 0; i < out->nodes.count; i++) {
		const struct shared_node_status *n = &out->nodes.items[i];
		bool ready = str_eq(n->state, "ready");

		printf("node %s: %s%s%s\n", n->node_id, n->state, n->reason ? ", " : "",
		       n->reason ? n->reason : "");
		printf("  runs guests on %s: %s\n",
		       n->accelerator  ? n->accelerator
		       : n->hypervisor ? n->hypervisor
				       : "?",
		       n->accelerator_reason ? n->accelerator_reason : "no reason given");
		print_capacity(n);
		wrong += !ready;
	}
	return wrong;
}

static int print_cloud(struct client *c)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const struct admin_get_status_response *out;
	struct error e = {0};
	void *reply;
	int wrong = 0;

	if (client_rpc(c, PEER_CLC, &admin_service, "GetStatus", NULL, a, &reply, 0, &e) < 0) {
		printf("cloud: %s\n", e.message);
		return 1;
	}
	out = reply;
	for (size_t i = 0; i < out->clusters.count; i++) {
		const struct admin_cluster_status *z = &out->clusters.items[i];

		printf("zone %s: %s%s%s\n", z->availability_zone, z->state, z->reason ? ", " : "",
		       z->reason ? z->reason : "");
		wrong += !str_eq(z->state, "available");
	}
	printf("instances: %lld running, %lld pending; images: %lld; accounts: %lld\n",
	       (long long)out->instances_running.value, (long long)out->instances_pending.value,
	       (long long)out->images.value, (long long)out->accounts.value);
	return wrong;
}

static int print_objects(struct client *c)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const struct objects_get_status_response *out;
	struct error e = {0};
	void *reply;

	if (client_rpc(c, PEER_WALRUS, &objects_service, "GetStatus", NULL, a, &reply, 0, &e) < 0) {
		printf("objects: %s\n", e.message);
		return 1;
	}
	out = reply;
	printf("objects: %lld in %lld buckets, %lld MiB; %lld MiB free\n",
	       (long long)out->objects.value, (long long)out->buckets.value,
	       (long long)out->bytes.value >> 20, (long long)out->free_bytes.value >> 20);
	return 0;
}

static void print_pool(const struct storage_pool_status *p)
{
	const long long gib = 1LL << 30;

	if (p->total_bytes.value > (1LL << 55)) /* nothing is accounted with the fake hypervisor */
		printf("pool %s of %s: %lld GiB promised\n", p->name, p->kind, (long long)p->used_bytes.value / gib);
	else
		printf("pool %s of %s: %lld of %lld GiB promised to volumes, %lld GiB free\n", p->name,
		       p->kind, (long long)p->used_bytes.value / gib,
		       (long long)p->total_bytes.value / gib, (long long)p->free_bytes.value / gib);
}

static int print_scrub(struct client *c, struct arena *a)
{
	const struct storage_describe_scrub_response *out;
	struct error e = {0};
	void *reply;

	if (client_rpc(c, PEER_SC, &storage_service, "DescribeScrub", NULL, a, &reply, 0, &e) < 0)
		return 0;
	out = reply;
	if (out->corrupt.value)
		printf("scrub: %lld finding(s); `mallee doctor` lists them\n",
		       (long long)out->corrupt.value);
	return out->corrupt.value > 0;
}

static int print_storage(struct client *c)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const struct storage_get_status_response *out;
	struct error e = {0};
	void *reply;

	if (client_rpc(c, PEER_SC, &storage_service, "GetStatus", NULL, a, &reply, 0, &e) < 0) {
		printf("volumes: %s\n", e.message);
		return 1;
	}
	out = reply;
	for (size_t i = 0; i < out->pools.count; i++)
		print_pool(&out->pools.items[i]);
	printf("volumes: %lld, %lld of them open, %lld filling; snapshots: %lld, %lld pending\n",
	       (long long)out->volumes.value, (long long)out->open_volumes.value,
	       (long long)out->filling_volumes.value, (long long)out->snapshots.value,
	       (long long)out->pending_snapshots.value);
	if (out->reason)
		printf("  %s\n", out->reason);
	return print_scrub(c, a) + (out->reason != NULL);
}

int cmd_status(int argc, char **argv)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	_cleanup_(client_freep) struct client *c = NULL;
	struct error e = {0};
	int wrong;

	if (options_parse(argc, argv, NULL, 0, NULL, 0, 0) < 0)
		return EXIT_USAGE;
	if (load_settings(&s))
		return 1;
	if (client_new(s, &c, &e) < 0)
		return command_failed(&e);
	printf("Mallee %s: cloud %s in %s, region %s, guests on %s\n", MALLEE_VERSION,
	       settings_get(s, SETTING_CLOUD_ID), settings_get(s, SETTING_STATE),
	       settings_get(s, SETTING_REGION), settings_get(s, SETTING_SUBNET));
	printf("EC2 http://%s:%u  S3 http://%s:%u\n\n", public_host(s), settings_port(s, PORT_API),
	       public_host(s), settings_port(s, PORT_S3));
	wrong = print_services(s);
	printf("\n");
	wrong += print_nodes(c);
	wrong += print_cloud(c);
	wrong += print_objects(c);
	wrong += print_storage(c);
	if (wrong)
		printf("\n%d thing(s) are wrong; `mallee doctor` looks closer.\n", wrong);
	return wrong ? 1 : 0;
}
