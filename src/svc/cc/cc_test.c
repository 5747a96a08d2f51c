/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/text.h"
#include "os/file.h"
#include "svc/cc/cc_priv.h"
#include "svc/cc/double_priv.h"

/* The cluster controller between a cloud controller (this test) and nodes (doubles), over real
 * connections. */

struct fixture {
	char certs[64];
	struct tls_context *cc_tls, *clc_tls;
	struct cc *cc;
	struct rpc_client *client;
	struct node_double *one, *two;
	struct arena *arena;
	struct cc_times times;
	const char *nodes_path;
	int64_t generation;
};

static struct tls_context *identity(const char *dir, enum tls_role role)
{
	static const char *const names[] = {NULL};
	struct tls_context *t = NULL;
	struct error e = {0};

	if (tls_issue(dir, role, tls_role_name(role), names, &e) < 0 ||
	    tls_context_load(dir, role, &t, &e) < 0)
		fail_msg("%s", e.message);
	return t;
}

static void start_cc(struct fixture *f)
{
	struct cc_config config = {
	    .tls = f->cc_tls, .times = f->times, .nodes_path = f->nodes_path};
	struct error e = {0};
	char url[64];

	if (cc_start_with(&config, &f->cc, &e) < 0)
		fail_msg("%s", e.message);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u", cc_port(f->cc));
	assert_int_equal(rpc_client_new(f->clc_tls, TLS_ROLE_CC, url, &f->client), 0);
}

static void stop_cc(struct fixture *f)
{
	rpc_client_free(f->client);
	cc_stop(f->cc);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error e = {0};

	strcpy(f->certs, "/tmp/mallee-cc-XXXXXX");
	assert_non_null(mkdtemp(f->certs));
	if (tls_ca_init(f->certs, "test", &e) < 0)
		fail_msg("%s", e.message);
	f->cc_tls = identity(f->certs, TLS_ROLE_CC);
	f->clc_tls = identity(f->certs, TLS_ROLE_CLC);
	f->one = double_new(f->certs, "one");
	f->two = double_new(f->certs, "two");
	f->arena = arena_new();
	f->times = (struct cc_times){.silence_ms = 800,
				     .reservation_ms = 60000,
				     .forget_ms = 60000,
				     .poll_ms = 5000,
				     .status_ms = 5000,
				     .backoff_min_ms = 20,
				     .backoff_max_ms = 100};
	start_cc(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stop_cc(f);
	double_free(f->one);
	double_free(f->two);
	tls_context_free(f->cc_tls);
	tls_context_free(f->clc_tls);
	dir_remove(f->certs);
	arena_free(f->arena);
	free(f);
	return 0;
}

/* --- messages --- */

static void *call(struct fixture *f, const char *action, const void *in)
{
	struct error e = {0};
	void *out = NULL;

	if (rpc_call(f->client, &cluster_service, action, in, f->arena, &out, 60000, &e) < 0)
		fail_msg("%s: %s: %s", action, e.code, e.message);
	return out;
}

static void call_fails(struct fixture *f, const char *action, const void *in, const char *code,
		       const char *part)
{
	struct error e = {0};
	void *out = NULL;

	assert_true(rpc_call(f->client, &cluster_service, action, in, f->arena, &out, 60000, &e) <
		    0);
	if (!str_eq(e.code, code) || !strstr(e.message, part))
		fail_msg("%s: %s: %s", action, e.code, e.message);
}

static int register_as(struct fixture *f, struct node_double *d, const char *name, struct error *e)
{
	struct cluster_register_node_request in = {.node_id = name, .url = d->url};
	struct rpc_client *c = NULL;
	char url[64];
	int r;

	snprintf(url, sizeof(url), "https://127.0.0.1:%u", cc_port(f->cc));
	assert_int_equal(rpc_client_new(d->tls, TLS_ROLE_CC, url, &c), 0);
	r = rpc_call(c, &cluster_service, "RegisterNode", &in, f->arena, NULL, 10000, e);
	rpc_client_free(c);
	return r;
}

static const struct shared_node_status *node_status(struct fixture *f, const char *id)
{
	struct cluster_describe_nodes_response *out = call(f, "DescribeNodes", NULL);

	for (size_t i = 0; i < out->nodes.count; i++) {
		if (str_eq(out->nodes.items[i].node_id, id))
			return &out->nodes.items[i];
	}
	return NULL;
}

static bool has_state(struct fixture *f, const char *id, const char *state)
{
	const struct shared_node_status *s = node_status(f, id);

	return s && str_eq(s->state, state);
}

/* Tries for ten seconds: what is under way takes a moment, and this machine may be busy. */
#define EVENTUALLY(condition)                                                                      \
	do {                                                                                       \
		int tries_ = 0;                                                                    \
		while (!(condition)) {                                                             \
			if (++tries_ > 1000)                                                       \
				fail_msg("never came true: %s", #condition);                       \
			usleep(10000);                                                             \
		}                                                                                  \
	} while (0)

static bool has_reported(struct fixture *f, const char *id)
{
	bool yes;

	pthread_mutex_lock(&f->cc->lock);
	yes = *node_find(f->cc, id)->epoch;
	pthread_mutex_unlock(&f->cc->lock);
	return yes;
}

/* Ready is a node that told its capacity. Its first report, which comes next, has it told all
 * that is wanted of it, perhaps once more: tests that count that wait for it. */
static void join(struct fixture *f, struct node_double *d)
{
	struct error e = {0};

	if (register_as(f, d, d->id, &e) < 0)
		fail_msg("%s", e.message);
	EVENTUALLY(has_state(f, d->id, "ready") && has_reported(f, d->id));
}

static struct shared_instance_spec spec(struct fixture *f, const char *id, const char *node,
					const char *wanted)
{
	return (struct shared_instance_spec){
	    .instance_id = arena_strdup(f->arena, id),
	    .generation = WIRE_INT_OF(++f->generation),
	    .wanted = wanted,
	    .node_id = node,
	    .account_id = "123456789012",
	    .reservation_id = "r-00000000000000001",
	    .region = "us-east-1",
	    .availability_zone = "us-east-1a",
	    .image_id = "ami-00000000000000001",
	    .instance_type = "t3.micro",
	    .vcpus = WIRE_INT_OF(2),
	    .memory_mib = WIRE_INT_OF(1024),
	    .disk_bytes = WIRE_INT_OF(INT64_C(8) << 30),
	    .launch_time = WIRE_TIME_OF(INT64_C(1795341600000)),
	    .network_interface_id = "eni-00000000000000001",
	    .mac_address = "02:00:00:00:00:01",
	    .private_ip = "10.1.0.4",
	    .subnet_id = "subnet-00000000000000001",
	    .vpc_id = "vpc-00000000000000001",
	    .subnet_cidr = "10.1.0.0/16",
	    .gateway_ip = "10.1.0.1",
	    .private_dns_name = "ip-10-1-0-4.ec2.internal",
	};
}

static const char *apply(struct fixture *f, bool full, struct shared_instance_spec *specs,
			 size_t count)
{
	struct shared_apply_instances_request in = {
	    .full = {.set = full, .value = true},
	    .instances = {.set = true, .count = count, .items = specs}};
	struct shared_apply_instances_response *out = call(f, "ApplyInstances", &in);

	return out->epoch;
}

static void apply_one(struct fixture *f, const char *id, const char *node, const char *wanted)
{
	struct shared_instance_spec s = spec(f, id, node, wanted);

	apply(f, false, &s, 1);
}

static struct shared_describe_instances_response *describe(struct fixture *f, const char *epoch,
							   int64_t since, int wait_ms)
{
	struct shared_describe_instances_request in = {
	    .epoch = epoch, .since_revision = WIRE_INT_OF(since), .wait_ms = WIRE_INT_OF(wait_ms)};

	return call(f, "DescribeInstances", &in);
}

static const struct shared_instance_observed *seen(struct fixture *f, const char *id)
{
	struct shared_describe_instances_response *out = describe(f, NULL, 0, 0);

	for (size_t i = 0; i < out->instances.count; i++) {
		if (str_eq(out->instances.items[i].instance_id, id))
			return &out->instances.items[i];
	}
	return NULL;
}

static bool is_seen(struct fixture *f, const char *id, const char *state)
{
	const struct shared_instance_observed *o = seen(f, id);

	return o ? str_eq(o->state, state) : !state;
}

static struct cluster_reserve_capacity_request *want(struct fixture *f, const char *prefix,
						     size_t count, int vcpus)
{
	struct cluster_reserve_capacity_request *in =
	    arena_new_struct(f->arena, struct cluster_reserve_capacity_request);

	in->instances.set = true;
	in->instances.count = count;
	in->instances.items = arena_new_array(f->arena, struct cluster_capacity_request, count);
	for (size_t i = 0; i < count; i++)
		in->instances.items[i] = (struct cluster_capacity_request){
		    .instance_id = arena_printf(f->arena, "%s%zu", prefix, i),
		    .vcpus = WIRE_INT_OF(vcpus),
		    .memory_mib = WIRE_INT_OF(1024),
		    .disk_mib = WIRE_INT_OF(8192)};
	return in;
}

static size_t placed_on(const struct cluster_reserve_capacity_response *out, const char *node)
{
	size_t n = 0;

	for (size_t i = 0; i < out->placements.count; i++)
		n += str_eq(out->placements.items[i].node_id, node);
	return n;
}

static void forget(struct fixture *f, const char *id)
{
	struct shared_forget_instances_request in = {
	    .instance_ids = {.set = true, .count = 1, .items = &id}};

	call(f, "ForgetInstances", &in);
}

static bool node_has(struct node_double *d, const char *id, const char *state)
{
	char now[32];

	double_state(d, id, now);
	return str_eq(now, state);
}

static int64_t used_vcpus(struct fixture *f, const char *node)
{
	return node_status(f, node)->vcpus_used.value;
}

/* --- nodes --- */

static void nodes_register_and_become_ready(void **state)
{
	struct fixture *f = *state;
	const struct shared_node_status *s;
	struct error e = {0};

	assert_true(register_as(f, f->two, "one", &e) < 0);
	assert_string_equal(e.code, "AccessDenied");
	join(f, f->one);
	s = node_status(f, "one");
	assert_int_equal(s->vcpus.value, 8);
	assert_int_equal(s->vcpus_used.value, 0);
	assert_string_equal(s->address, f->one->url);
	assert_true(s->last_seen.set);
	assert_null(node_status(f, "two"));
}

/* A registration whose URL leads to another node is not believed. */
static void nodes_are_who_they_say(void **state)
{
	struct fixture *f = *state;
	struct node_double liar = *f->one;
	struct error e = {0};

	strcpy(liar.url, f->two->url);
	assert_int_equal(register_as(f, &liar, "one", &e), 0);
	EVENTUALLY(node_status(f, "one")->reason &&
		   strstr(node_status(f, "one")->reason, "another id"));
	assert_true(has_state(f, "one", "unreachable"));
}

/* --- placement --- */

static void room_is_reserved_and_given_back(void **state)
{
	struct fixture *f = *state;
	struct cluster_reserve_capacity_response *out;

	call_fails(f, "ReserveCapacity", want(f, "i-a", 1, 1), "InsufficientInstanceCapacity",
		   "No node is ready");
	join(f, f->one);
	join(f, f->two);
	out = call(f, "ReserveCapacity", want(f, "i-a", 4, 2));
	assert_int_equal(placed_on(out, "one"), 2);
	assert_int_equal(placed_on(out, "two"), 2);
	call_fails(f, "ReserveCapacity", want(f, "i-b", 5, 2), "InsufficientInstanceCapacity",
		   "room for 4 of 5");
	out = call(f, "ReserveCapacity",
		   want(f, "i-a", 4, 2)); /* asked again: nothing more is taken */
	assert_int_equal(placed_on(out, "one"), 2);
	assert_int_equal(used_vcpus(f, "one"), 4);
	{
		struct cluster_reserve_capacity_request *in = want(f, "i-c", 9, 2);

		in->min_count = WIRE_INT_OF(3);
		out = call(f, "ReserveCapacity", in);
		assert_int_equal(out->placements.count, 4);
	}
	call_fails(f, "ReserveCapacity", want(f, "i-d", 1, 1), "InsufficientInstanceCapacity",
		   "No node has 1 vCPUs left; the most is 0 of 8");
	call_fails(f, "ReserveCapacity", want(f, "i-e", 1, 0), "InvalidParameterValue", "i-e0");
	call_fails(f, "ReserveCapacity", want(f, "i-e", 0, 0), "InvalidParameterValue",
		   "between 1 and");
}

static void reservations_expire(void **state)
{
	struct fixture *f = *state;

	stop_cc(f);
	f->times.reservation_ms = 3000; /* longer than what comes before it is over may take */
	start_cc(f);
	join(f, f->one);
	call(f, "ReserveCapacity", want(f, "i-a", 4, 2));
	call_fails(f, "ReserveCapacity", want(f, "i-b", 1, 2), "InsufficientInstanceCapacity",
		   "vCPUs");
	apply_one(f, "i-a0", "one", "running"); /* this one was meant */
	EVENTUALLY(used_vcpus(f, "one") == 2);
	call(f, "ReserveCapacity", want(f, "i-b", 3, 2));
	call_fails(f, "ReserveCapacity", want(f, "i-c", 1, 2), "InsufficientInstanceCapacity",
		   "vCPUs");
}

static void ended_instances_leave_their_room(void **state)
{
	struct fixture *f = *state;

	join(f, f->one);
	apply_one(f, "i-a", "one", "running");
	EVENTUALLY(is_seen(f, "i-a", "running"));
	assert_int_equal(used_vcpus(f, "one"), 2);
	apply_one(f, "i-a", "one", "terminated");
	EVENTUALLY(is_seen(f, "i-a", "terminated"));
	assert_int_equal(used_vcpus(f, "one"), 0);
	apply_one(f, "i-b", "one", "running");
	EVENTUALLY(is_seen(f, "i-b", "running"));
	double_set_state(f->one, "i-b", "terminated"); /* the guest itself */
	EVENTUALLY(is_seen(f, "i-b", "terminated"));
	assert_int_equal(used_vcpus(f, "one"), 0);
}

/* --- down and up --- */

static void changes_wake_the_long_poll(void **state)
{
	struct fixture *f = *state;
	struct shared_describe_instances_response *out;
	int64_t before;

	join(f, f->one);
	apply(f, true, NULL, 0);
	out = describe(f, NULL, 0, 0);
	assert_true(out->full.value);
	before = clock_mono_ms();
	out = describe(f, out->epoch, out->revision.value, 200);
	assert_false(out->full.value);
	assert_int_equal(out->instances.count, 0);
	assert_true(clock_mono_ms() - before >= 190);
	apply_one(f, "i-a", "one", "running");
	before = clock_mono_ms();
	out = describe(f, out->epoch, out->revision.value, 20000);
	assert_true(clock_mono_ms() - before < 4000);
	assert_int_equal(out->instances.count, 1);
	assert_string_equal(out->instances.items[0].instance_id, "i-a");
	assert_string_equal(out->instances.items[0].node_id, "one");
	assert_int_equal(out->instances.items[0].revision.value, out->revision.value);
	{
		struct shared_describe_instances_request in = {.epoch = out->epoch,
							       .since_revision = WIRE_INT_OF(0),
							       .wait_ms = WIRE_INT_OF(20001)};
		call_fails(f, "DescribeInstances", &in, "InvalidParameterValue", "WaitMs");
	}
}

static void older_specifications_are_ignored(void **state)
{
	struct fixture *f = *state;
	struct shared_instance_spec old = spec(f, "i-a", "one", "running");

	join(f, f->one);
	apply_one(f, "i-a", "one", "terminated");
	EVENTUALLY(is_seen(f, "i-a", "terminated"));
	apply(f, false, &old, 1);
	usleep(100000);
	assert_true(node_has(f->one, "i-a", "terminated"));
}

static void a_restarted_node_is_told_all(void **state)
{
	struct fixture *f = *state;
	struct shared_instance_spec s[] = {spec(f, "i-a", "one", "running"),
					   spec(f, "i-b", "one", "running")};
	int fulls;

	join(f, f->one);
	apply(f, true, s, 2);
	EVENTUALLY(is_seen(f, "i-b", "running"));
	EVENTUALLY(f->one->fulls > 0);
	fulls = f->one->fulls;
	double_stop(f->one);
	f->one->count = 0; /* and has forgotten all */
	random_token(f->one->epoch, 10);
	f->one->revision = 0;
	double_start(f->one);
	EVENTUALLY(f->one->fulls > fulls);
	EVENTUALLY(node_has(f->one, "i-a", "running") && node_has(f->one, "i-b", "running"));
	EVENTUALLY(has_state(f, "one", "ready"));
}

static void a_silent_node_is_unreachable(void **state)
{
	struct fixture *f = *state;
	struct shared_get_console_output_request console = {.instance_id = "i-a"};
	const struct shared_instance_observed *o;

	join(f, f->one);
	apply_one(f, "i-a", "one", "running");
	EVENTUALLY(is_seen(f, "i-a", "running"));
	assert_string_equal(seen(f, "i-a")->reachability, "ok");
	{
		struct shared_get_console_output_response *out =
		    call(f, "GetConsoleOutput", &console);

		assert_int_equal(out->output.len, 6);
	}
	double_stop(f->one);
	EVENTUALLY(has_state(f, "one", "unreachable"));
	o = seen(f, "i-a");
	assert_string_equal(o->state, "running");
	assert_string_equal(o->reachability, "impaired");
	assert_true(o->reachability_since.set);
	call_fails(f, "GetConsoleOutput", &console, "NodeUnreachable", "has not answered since");
	call_fails(f, "ReserveCapacity", want(f, "i-b", 1, 1), "InsufficientInstanceCapacity",
		   "Not ready: 1 node");
	apply_one(f, "i-a", "one", "terminated"); /* meanwhile */
	double_start(f->one);
	EVENTUALLY(has_state(f, "one", "ready"));
	EVENTUALLY(is_seen(f, "i-a", "terminated"));
	console.instance_id = "i-none";
	call_fails(f, "GetConsoleOutput", &console, "InstanceNotFound", "i-none");
}

static void a_refused_specification_holds_nobody_up(void **state)
{
	struct fixture *f = *state;
	struct shared_instance_spec s[] = {spec(f, "i-a", "one", "running"),
					   spec(f, "i-bad", "one", "running"),
					   spec(f, "i-c", "one", "running")};

	f->one->refuse_id = "i-bad";
	join(f, f->one);
	apply(f, true, s, 3);
	EVENTUALLY(is_seen(f, "i-a", "running") && is_seen(f, "i-c", "running"));
	assert_true(is_seen(f, "i-bad", NULL));
	f->one->refuse_id = NULL;
	EVENTUALLY(is_seen(f, "i-bad", "running"));
}

static void what_a_full_telling_lacks_is_dropped(void **state)
{
	struct fixture *f = *state;
	struct shared_instance_spec s[] = {spec(f, "i-a", "one", "running"),
					   spec(f, "i-b", "one", "running")};

	join(f, f->one);
	apply(f, true, s, 2);
	EVENTUALLY(is_seen(f, "i-a", "running") && is_seen(f, "i-b", "running"));
	apply(f, true, s, 1);
	assert_int_equal(used_vcpus(f, "one"), 2);
	EVENTUALLY(f->one->fulls >= 2 && f->one->last_apply_count == 1);
	assert_true(is_seen(f, "i-b", "running")); /* reported, never destroyed */
}

static void releases_are_sent_until_acknowledged(void **state)
{
	struct fixture *f = *state;

	join(f, f->one);
	apply_one(f, "i-a", "one", "terminated");
	EVENTUALLY(is_seen(f, "i-a", "terminated"));
	f->one->refuse_forgets = 3;
	forget(f, "i-a");
	EVENTUALLY(is_seen(f, "i-a", NULL));
	assert_int_equal(f->one->refuse_forgets, 0);
	assert_true(node_has(f->one, "i-a", ""));
	/* One that is on no known node waits for the node that has it. */
	double_set_state(f->two, "i-t", "terminated");
	forget(f, "i-t");
	join(f, f->two);
	EVENTUALLY(node_has(f->two, "i-t", ""));
	EVENTUALLY(is_seen(f, "i-t", NULL));
	/* And through the node's death. */
	apply_one(f, "i-b", "one", "terminated");
	EVENTUALLY(is_seen(f, "i-b", "terminated"));
	double_stop(f->one);
	forget(f, "i-b");
	usleep(200000);
	double_start(f->one);
	EVENTUALLY(node_has(f->one, "i-b", ""));
}

static void a_new_controller_learns_from_both_sides(void **state)
{
	struct fixture *f = *state;
	struct shared_instance_spec s = spec(f, "i-a", "one", "running");
	struct shared_describe_instances_response *out;
	const char *epoch;

	join(f, f->one);
	epoch = apply(f, true, &s, 1);
	EVENTUALLY(is_seen(f, "i-a", "running"));
	stop_cc(f);
	start_cc(f);
	join(f, f->one);
	EVENTUALLY(is_seen(f, "i-a", "running")); /* from the node alone */
	out = describe(f, epoch, 100, 0);
	assert_true(out->full.value);
	assert_string_not_equal(out->epoch, epoch);
	out = describe(f, out->epoch, out->revision.value, 0);
	assert_true(out->full.value); /* the cloud controller has not told all yet */
	assert_int_equal(out->instances.count, 1);
	assert_int_equal(f->one->fulls, 1);
	assert_string_not_equal(apply(f, true, &s, 1), epoch);
	out = describe(f, out->epoch, out->revision.value, 0);
	assert_false(out->full.value);
	assert_int_equal(used_vcpus(f, "one"), 2);
	EVENTUALLY(f->one->fulls == 2);
	/* A specification may also come before its node: it waits for it. */
	apply_one(f, "i-b", "two", "running");
	assert_true(has_state(f, "two", "unreachable"));
	join(f, f->two);
	EVENTUALLY(is_seen(f, "i-b", "running"));
}

/* So that a launch right after a restart is not refused. */
static void nodes_are_remembered(void **state)
{
	struct fixture *f = *state;
	char path[128], *text = NULL;
	size_t len;

	snprintf(path, sizeof(path), "%s/nodes", f->certs);
	f->nodes_path = path;
	stop_cc(f);
	start_cc(f);
	join(f, f->one);
	join(f, f->two);
	stop_cc(f);
	assert_int_equal(file_read(path, 4096, &text, &len), 0);
	assert_non_null(strstr(text, f->one->url));
	free(text);
	start_cc(f);
	EVENTUALLY(has_state(f, "one", "ready") && has_state(f, "two", "ready"));
	stop_cc(f);
	assert_int_equal(file_write_atomic(path, "rubbish\n{\"NodeId\":\"x\"}\n", 24, 0600), 0);
	start_cc(f);
	assert_null(node_status(f, "one"));
	join(f, f->one);
	f->nodes_path = NULL;
}

static void ten_thousand_instances(void **state)
{
	enum { COUNT = 10000 };
	struct fixture *f = *state;
	struct shared_instance_spec *s =
	    arena_new_array(f->arena, struct shared_instance_spec, COUNT);
	struct shared_describe_instances_response *out = NULL;
	int64_t before = clock_mono_ms();

	f->one->vcpus = 4 * COUNT;
	for (int i = 0; i < COUNT; i++)
		s[i] = spec(f, arena_printf(f->arena, "i-%017x", i), "one", "running");
	join(f, f->one);
	apply(f, true, s, COUNT);
	for (int i = 0; i < 600; i++) {
		out = describe(f, NULL, 0, 0);
		if (out->instances.count == COUNT)
			break;
		usleep(100000);
	}
	assert_int_equal(out->instances.count, COUNT);
	assert_int_equal(used_vcpus(f, "one"), 2 * COUNT);
	before = clock_mono_ms() - before;
	print_message("10,000 instances down and up: %lld ms\n", (long long)before);
	assert_true(before < 30000);
}

static struct cluster_reserve_capacity_request *want_start(struct fixture *f, const char *id, const char *node)
{
	struct cluster_reserve_capacity_request *in = want(f, "", 1, 2);

	in->instances.items[0].instance_id = id;
	in->instances.items[0].node_id = node;
	in->instances.items[0].disk_mib = WIRE_INT_OF(0);
	return in;
}

static void apply_ebs(struct fixture *f, const char *id, const char *wanted)
{
	struct shared_instance_spec s = spec(f, id, "one", wanted);

	s.disk_bytes = WIRE_INT_OF(0);
	apply(f, false, &s, 1);
}

/* Its processors and memory go to others; it gets them back on its node, or not at all. */
static void a_stopped_instance_takes_no_room(void **state)
{
	struct fixture *f = *state;

	join(f, f->one);
	join(f, f->two);
	apply_ebs(f, "i-1", "running");
	EVENTUALLY(is_seen(f, "i-1", "running"));
	assert_int_equal(used_vcpus(f, "one"), 2);
	f->one->obey = false;
	apply_ebs(f, "i-1", "stopped");
	assert_int_equal(used_vcpus(f, "one"), 2); /* it is on yet */
	double_set_state(f->one, "i-1", "stopped");
	EVENTUALLY(is_seen(f, "i-1", "stopped"));
	assert_int_equal(used_vcpus(f, "one"), 0);
	assert_int_equal(node_status(f, "one")->memory_mib_used.value, 0);
	f->one->obey = true;

	assert_int_equal(placed_on(call(f, "ReserveCapacity", want_start(f, "i-1", NULL)), "one"), 1);
	assert_int_equal(used_vcpus(f, "one"), 2);
	call(f, "ReserveCapacity", want_start(f, "i-1", "one")); /* again: it has it */
	assert_int_equal(used_vcpus(f, "one"), 2);
	apply_ebs(f, "i-1", "running");
	assert_int_equal(used_vcpus(f, "one"), 2);
	EVENTUALLY(is_seen(f, "i-1", "running"));
	assert_int_equal(used_vcpus(f, "one"), 2);
}

static void a_start_needs_room_on_its_node(void **state)
{
	struct fixture *f = *state;

	join(f, f->one);
	join(f, f->two);
	apply_ebs(f, "i-1", "stopped");
	EVENTUALLY(is_seen(f, "i-1", "stopped"));
	for (int k = 0; k < 4; k++)
		apply_one(f, arena_printf(f->arena, "i-full%d", k), "one", "running");
	call_fails(f, "ReserveCapacity", want_start(f, "i-1", "one"), "InsufficientInstanceCapacity", "vCPUs left");
	call_fails(f, "ReserveCapacity", want_start(f, "i-1", "two"), "InvalidParameterValue", "on node one");
	assert_int_equal(used_vcpus(f, "one"), 8);
	apply_one(f, "i-full0", "one", "terminated");
	EVENTUALLY(is_seen(f, "i-full0", "terminated"));
	call(f, "ReserveCapacity", want_start(f, "i-1", "one"));
	assert_int_equal(used_vcpus(f, "one"), 8);
}

/* The guest switched itself off, under a specification that wants it to run; a newer one counts again. */
static void a_guest_that_stops_itself_takes_no_room(void **state)
{
	struct fixture *f = *state;

	join(f, f->one);
	apply_ebs(f, "i-1", "running");
	EVENTUALLY(is_seen(f, "i-1", "running"));
	double_set_state(f->one, "i-1", "stopped");
	EVENTUALLY(is_seen(f, "i-1", "stopped"));
	assert_int_equal(used_vcpus(f, "one"), 0);
	f->one->refuse_id = "i-1"; /* so that it says nothing about the newer one */
	apply_ebs(f, "i-1", "running");
	assert_int_equal(used_vcpus(f, "one"), 2);
}

/* Only the caller knows where it is: a controller that was started anew does not. */
static void a_start_names_its_node(void **state)
{
	struct fixture *f = *state;

	join(f, f->one);
	join(f, f->two);
	for (int k = 0; k < 3; k++) {
		const char *id = arena_printf(f->arena, "i-%d", k);

		assert_int_equal(placed_on(call(f, "ReserveCapacity", want_start(f, id, "two")), "two"), 1);
	}
	assert_int_equal(used_vcpus(f, "two"), 6);
	call_fails(f, "ReserveCapacity", want_start(f, "i-9", "three"), "InsufficientInstanceCapacity", "is not there");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	    CASE(nodes_register_and_become_ready),
	    CASE(nodes_are_who_they_say),
	    CASE(room_is_reserved_and_given_back),
	    CASE(reservations_expire),
	    CASE(ended_instances_leave_their_room),
	    CASE(changes_wake_the_long_poll),
	    CASE(older_specifications_are_ignored),
	    CASE(a_restarted_node_is_told_all),
	    CASE(a_silent_node_is_unreachable),
	    CASE(a_refused_specification_holds_nobody_up),
	    CASE(what_a_full_telling_lacks_is_dropped),
	    CASE(releases_are_sent_until_acknowledged),
	    CASE(a_new_controller_learns_from_both_sides),
	    CASE(nodes_are_remembered),
	    CASE(a_stopped_instance_takes_no_room),
	    CASE(a_start_needs_room_on_its_node),
	    CASE(a_guest_that_stops_itself_takes_no_room),
	    CASE(a_start_names_its_node),
	    CASE(ten_thousand_instances),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
