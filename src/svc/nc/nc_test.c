/* SPDX-License-Identifier: Apache-2.0 */
/* A whole node on the fake hypervisor, driven over mutual TLS as the cluster controller does;
 * Walrus is a stand-in. */
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "os/file.h"
#include "gen/node_rpc.h"
#include "svc/nc/nc_priv.h"

#define IMAGE_LEN 100000u

struct fixture {
	char dir[64], url[64], sha[65];
	struct http_server *walrus;
	atomic_int fetches;
	struct settings *settings;
	struct nc *nc;
	struct tls_context *tls;
	struct rpc_client *cc;
	struct arena *arena; /* of the last call */
	int64_t generation;
};

static char image[IMAGE_LEN];

static void serve_image(void *ctx, struct http_request *req)
{
	atomic_fetch_add((atomic_int *)ctx, 1);
	http_reply(req, 200, "application/octet-stream", image, IMAGE_LEN);
}

static const struct http_handler walrus_handler = {.end = serve_image};

static void start_walrus(struct fixture *f)
{
	struct http_server_config c = {
	    .address = "127.0.0.1", .handler = &walrus_handler, .ctx = &f->fetches};
	unsigned char digest[32];
	struct error e = {0};

	memset(image, 'i', IMAGE_LEN);
	gnutls_hash_fast(GNUTLS_DIG_SHA256, image, IMAGE_LEN, digest);
	hex_encode(digest, 32, f->sha);
	assert_int_equal(http_server_start(&c, &f->walrus, &e), 0);
	snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u/b/k", http_server_port(f->walrus));
}

static void start_node(struct fixture *f)
{
	struct error e = {0};

	if (nc_start(f->settings, &f->nc, &e) < 0)
		fail_msg("%s", e.message);
}

static void restart_node(struct fixture *f)
{
	nc_stop(f->nc);
	start_node(f);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char certs[96], port[16], url[64];
	struct error e = {0};

	log_init("nc", LOG_LEVEL_ERROR);
	strcpy(f->dir, "/tmp/mallee-nc-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(certs, sizeof(certs), "%s/certs", f->dir);
	snprintf(port, sizeof(port), "%d", 21000 + (int)(getpid() % 1000) * 30);
	setenv("MALLEE_STATE", f->dir, 1);
	setenv("MALLEE_HYPERVISOR", "fake", 1);
	setenv("MALLEE_PORT_BASE", port, 1);
	setenv("MALLEE_NODE_ID", "n1", 1);
	assert_int_equal(dir_make(certs, 0700), 0);
	assert_int_equal(tls_ca_init(certs, "nctest", &e), 0);
	assert_int_equal(tls_issue(certs, TLS_ROLE_NC, "n1", (const char *const[]){NULL}, &e), 0);
	assert_int_equal(tls_issue(certs, TLS_ROLE_CC, "cc", (const char *const[]){NULL}, &e), 0);
	if (settings_load(&f->settings, &e) < 0 ||
	    settings_set(f->settings, SETTING_CLOUD_ID, "nctest", &e) < 0 ||
	    settings_save(f->settings, &e) < 0)
		fail_msg("%s", e.message);
	start_walrus(f);
	start_node(f);
	assert_int_equal(tls_context_load(certs, TLS_ROLE_CC, &f->tls, &e), 0);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u", settings_port(f->settings, PORT_NC));
	assert_int_equal(rpc_client_new(f->tls, TLS_ROLE_NC, url, &f->cc), 0);
	f->arena = arena_new();
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rpc_client_free(f->cc);
	nc_stop(f->nc);
	http_server_stop(f->walrus, 100);
	tls_context_free(f->tls);
	settings_free(f->settings);
	arena_free(f->arena);
	dir_remove(f->dir);
	free(f);
	return 0;
}

static void *call(struct fixture *f, const char *action, const void *in)
{
	struct error e = {0};
	void *out = NULL;

	if (rpc_call(f->cc, &node_service, action, in, f->arena, &out, 30000, &e) < 0)
		fail_msg("%s: %s: %s", action, e.code, e.message);
	return out;
}

static struct shared_instance_spec spec_of(struct fixture *f, int number, const char *wanted)
{
	char *id = arena_printf(f->arena, "i-%017d", number);

	return (struct shared_instance_spec){
	    .instance_id = id,
	    .generation = WIRE_INT_OF(++f->generation),
	    .wanted = wanted,
	    .node_id = "n1",
	    .account_id = "123456789012",
	    .reservation_id = "r-1",
	    .region = "us-east-1",
	    .availability_zone = "us-east-1a",
	    .image_id = "ami-1",
	    .image_url = f->url,
	    .image_sha256 = f->sha,
	    .image_size_bytes = WIRE_INT_OF(IMAGE_LEN),
	    .instance_type = "t3.micro",
	    .vcpus = WIRE_INT_OF(2),
	    .memory_mib = WIRE_INT_OF(1024),
	    .disk_bytes = WIRE_INT_OF((int64_t)8 << 30),
	    .launch_time = WIRE_TIME_OF(1),
	    .network_interface_id = "eni-1",
	    .mac_address = "02:00:00:00:00:01",
	    .private_ip = arena_printf(f->arena, "10.9.%d.%d", number / 250, number % 250 + 1),
	    .subnet_id = "subnet-1",
	    .vpc_id = "vpc-1",
	    .subnet_cidr = "10.9.0.0/16",
	    .gateway_ip = "10.9.0.1",
	    .private_dns_name = "ip-10-9-0-5.ec2.internal",
	};
}

static void apply_spec(struct fixture *f, struct shared_instance_spec *s)
{
	struct shared_apply_instances_request in = {
	    .instances = {.set = true, .count = 1, .items = s}};
	struct shared_apply_instances_response *out = call(f, "ApplyInstances", &in);

	assert_string_equal(out->epoch, f->nc->epoch);
}

static void apply(struct fixture *f, int number, const char *wanted)
{
	struct shared_instance_spec s = spec_of(f, number, wanted);

	apply_spec(f, &s);
}

static const struct shared_instance_observed *observe(struct fixture *f, int number)
{
	struct shared_describe_instances_request in = {.wait_ms = WIRE_INT_OF(0)};
	struct shared_describe_instances_response *out = call(f, "DescribeInstances", &in);
	char id[32];

	snprintf(id, sizeof(id), "i-%017d", number);
	for (size_t i = 0; i < out->instances.count; i++)
		if (str_eq(out->instances.items[i].instance_id, id))
			return &out->instances.items[i];
	return NULL;
}

static const struct shared_instance_observed *await(struct fixture *f, int number, const char *want)
{
	const struct shared_instance_observed *o;
	int64_t end = clock_mono_ms() + 20000;

	for (;;) {
		o = observe(f, number);
		if (o && str_eq(o->state, want))
			return o;
		if (clock_mono_ms() > end)
			fail_msg("instance %d is %s (%s), not %s", number, o ? o->state : "unknown",
				 o && o->progress ? o->progress : "", want);
		usleep(20000);
	}
}

static void write_conf(struct fixture *f, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/nc/fake.conf", f->dir);
	assert_int_equal(file_write_atomic(path, text, strlen(text), 0600), 0);
}

static bool has_file(struct fixture *f, int number, const char *file)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/nc/instances/i-%017d%s", f->dir, number, file);
	return access(path, F_OK) == 0;
}

static void forget(struct fixture *f, int number)
{
	const char *id = arena_printf(f->arena, "i-%017d", number);
	struct shared_forget_instances_request in = {
	    .instance_ids = {.set = true, .count = 1, .items = &id}};

	call(f, "ForgetInstances", &in);
}

static void test_life(void **state)
{
	struct fixture *f = *state;
	const struct shared_instance_observed *o;
	struct shared_get_console_output_request console = {.instance_id = "i-00000000000000001"};
	struct shared_get_console_output_response *text;

	apply(f, 1, "running");
	o = await(f, 1, "running");
	assert_string_equal(o->reachability, "ok");
	assert_null(o->state_reason_code);
	assert_true(has_file(f, 1, "/root.raw"));
	text = call(f, "GetConsoleOutput", &console);
	assert_non_null(memmem(text->output.data, text->output.len, "booted", 6));

	forget(f, 1); /* not over: nothing happens */
	assert_non_null(observe(f, 1));
	apply(f, 1, "terminated");
	o = await(f, 1, "terminated");
	assert_string_equal(o->state_reason_code, "Client.UserInitiatedShutdown");
	assert_false(has_file(f, 1, ""));
	apply(f, 1, "running"); /* over is over */
	usleep(200000);
	assert_string_equal(observe(f, 1)->state, "terminated");
	forget(f, 1);
	assert_null(observe(f, 1));
}

static void test_old_generations_are_ignored(void **state)
{
	struct fixture *f = *state;
	struct shared_instance_spec old = spec_of(f, 1, "terminated");

	apply(f, 1, "running");
	apply_spec(f, &old);
	await(f, 1, "running");
	usleep(200000);
	assert_string_equal(observe(f, 1)->state, "running");
}

static void test_failed_launches_say_why(void **state)
{
	struct fixture *f = *state;
	struct shared_instance_spec s = spec_of(f, 1, "running");
	const struct shared_instance_observed *o;
	char wrong[65];

	strcpy(wrong, f->sha);
	wrong[0] = wrong[0] == '0' ? '1' : '0';
	s.image_sha256 = wrong;
	apply_spec(f, &s);
	o = await(f, 1, "terminated");
	assert_string_equal(o->state_reason_code, "Server.InternalError");
	assert_non_null(strstr(o->state_reason_message, "damaged"));

	s = spec_of(f, 2, "running");
	s.disk_bytes = WIRE_INT_OF(1000);
	apply_spec(f, &s);
	o = await(f, 2, "terminated");
	assert_non_null(strstr(o->state_reason_message, "root disk only"));

	write_conf(f, "* start-fails\n");
	apply(f, 3, "running");
	o = await(f, 3, "terminated");
	assert_non_null(strstr(o->state_reason_message, "cannot start"));
	assert_false(has_file(f, 3, ""));
}

static void test_trouble_is_waited_out(void **state)
{
	struct fixture *f = *state;
	const struct shared_instance_observed *o;

	write_conf(f, "* start-unreachable\n");
	apply(f, 1, "running");
	usleep(1500000);
	o = observe(f, 1);
	assert_string_equal(o->state, "pending");
	assert_memory_equal(o->progress, "waiting: cannot reach", 21);
	write_conf(f, "\n");
	o = await(f, 1, "running");
	assert_null(o->progress);
}

static void test_guest_switches_itself_off(void **state)
{
	struct fixture *f = *state;
	const struct shared_instance_observed *o;

	apply(f, 1, "running");
	apply(f, 2, "running");
	await(f, 1, "running");
	await(f, 2, "running");
	write_conf(f, "i-00000000000000001 powers-off\n");
	o = await(f, 1, "terminated");
	assert_string_equal(o->state_reason_code, "Client.InstanceInitiatedShutdown");
	assert_string_equal(observe(f, 2)->state, "running");
}

static void test_restart_adopts(void **state)
{
	struct fixture *f = *state;
	char epoch[40];

	apply(f, 1, "running");
	await(f, 1, "running");
	apply(f, 2, "terminated"); /* never seen before */
	await(f, 2, "terminated");
	strcpy(epoch, f->nc->epoch);
	restart_node(f);
	assert_string_not_equal(epoch, f->nc->epoch);
	await(f, 1, "running");
	assert_int_equal(metrics_get(f->nc->metrics, NC_M_RESTARTS), 0);
	assert_int_equal(metrics_get(f->nc->metrics, NC_M_LAUNCHES), 0);
	assert_string_equal(observe(f, 2)->state, "terminated");
	assert_int_equal(f->fetches, 1);
}

static void test_host_boot_starts_again(void **state)
{
	struct fixture *f = *state;
	char path[160];

	apply(f, 1, "running");
	await(f, 1, "running");
	nc_stop(f->nc);
	/* What a host's boot leaves: no machines; the record names another boot. */
	snprintf(path, sizeof(path), "%s/nc/fake", f->dir);
	assert_int_equal(dir_remove(path), 0);
	start_node(f);
	await(f, 1, "running");
	for (int i = 0; i < 100 && metrics_get(f->nc->metrics, NC_M_RESTARTS) == 0; i++)
		usleep(50000);
	assert_int_equal(metrics_get(f->nc->metrics, NC_M_RESTARTS), 1);
	assert_true(has_file(f, 1, "/root.raw"));
}

static const char *node_state(struct fixture *f)
{
	struct shared_node_status *s = call(f, "DescribeNode", NULL);

	return s->state;
}

static bool machine_is(struct fixture *f, int number, enum hyper_state want)
{
	struct hyper_status st;
	char name[64];

	snprintf(name, sizeof(name), "mallee-nctest-i-%017d", number);
	f->nc->ops->status(f->nc->hyper, name, &st, NULL);
	return st.state == want || (want == HYPER_OFF && st.state == HYPER_ABSENT);
}

static void await_machine(struct fixture *f, int number, enum hyper_state want)
{
	for (int i = 0; !machine_is(f, number, want); i++) {
		assert_true(i < 400);
		usleep(50000);
	}
}

/* The operator's calls, made on the node itself: the fixture's certificate is the cluster
 * controller's. */
static void set_held(struct fixture *f, bool held, int64_t timeout_s)
{
	struct node_drain_request in = {.timeout_s = WIRE_INT_OF(timeout_s)};
	struct error e = {0};

	if (held)
		assert_int_equal(node_drain(f->nc, f->arena, NULL, &in, &e), 0);
	else
		assert_int_equal(node_resume(f->nc, f->arena, NULL, &e), 0);
}

static void test_drain_and_resume(void **state)
{
	struct fixture *f = *state;

	write_conf(f, "i-00000000000000002 ignores-shutdown\n");
	apply(f, 1, "running");
	apply(f, 2, "running");
	await(f, 1, "running");
	await(f, 2, "running");
	assert_string_equal(node_state(f), "ready");
	set_held(f, true, 2);
	await_machine(f, 1, HYPER_OFF);
	await_machine(f, 2, HYPER_OFF); /* by force */
	restart_node(f);		/* remembered */
	apply(f, 3, "running");
	usleep(300000);
	assert_true(machine_is(f, 1, HYPER_OFF) && machine_is(f, 3, HYPER_ABSENT));
	assert_true(has_file(f, 1, "/root.raw") && has_file(f, 2, "/root.raw"));
	set_held(f, false, 0);
	for (int i = 1; i <= 3; i++)
		await_machine(f, i, HYPER_RUNNING);
	await(f, 3, "running");
	assert_string_equal(observe(f, 1)->state, "running");
	assert_string_equal(node_state(f), "ready");
}

static void test_reboot_once(void **state)
{
	struct fixture *f = *state;
	struct shared_instance_spec s = spec_of(f, 1, "running");
	const struct shared_instance_observed *o;

	s.reboot_generation = WIRE_INT_OF(3);
	apply_spec(f, &s);
	o = await(f, 1, "running");
	assert_int_equal(o->reboot_generation.value, 3); /* done with: it has just started */
	s.reboot_generation = WIRE_INT_OF(4);
	s.generation = WIRE_INT_OF(++f->generation);
	apply_spec(f, &s);
	for (int i = 0; observe(f, 1)->reboot_generation.value != 4; i++) {
		assert_true(i < 200);
		usleep(20000);
	}
}

static void test_long_poll(void **state)
{
	struct fixture *f = *state;
	struct shared_describe_instances_request in = {.wait_ms = WIRE_INT_OF(5000)};
	struct shared_describe_instances_response *out;
	int64_t begin;

	out = call(f, "DescribeInstances", &in);
	assert_true(out->full.value);
	in.epoch = out->epoch;
	in.since_revision = out->revision;
	in.wait_ms = WIRE_INT_OF(300);
	begin = clock_mono_ms();
	out = call(f, "DescribeInstances", &in);
	assert_false(out->full.value);
	assert_int_equal(out->instances.count, 0);
	assert_true(clock_mono_ms() - begin >= 290);

	apply(f, 1, "running");
	in.wait_ms = WIRE_INT_OF(10000);
	for (bool seen = false; !seen;) {
		begin = clock_mono_ms();
		out = call(f, "DescribeInstances", &in);
		assert_true(clock_mono_ms() - begin < 5000);
		assert_int_equal(out->instances.count, 1);
		in.since_revision = out->revision;
		seen = str_eq(out->instances.items[0].state, "running");
	}
}

static void test_capacity(void **state)
{
	struct fixture *f = *state;
	struct shared_node_status *s;

	write_conf(f, "host vcpus=8 memory_mib=4096 disk_mib=100000\n");
	usleep(300000);
	apply(f, 1, "running");
	await(f, 1, "running");
	s = call(f, "DescribeNode", NULL);
	assert_int_equal(s->vcpus.value, 8);
	assert_int_equal(s->memory_mib.value, 4096);
	assert_int_equal(s->vcpus_used.value, 2);
	assert_int_equal(s->memory_mib_used.value, 1024);
	assert_int_equal(s->disk_mib_used.value, 8192);
	assert_string_equal(s->hypervisor, "fake");
	apply(f, 1, "terminated");
	await(f, 1, "terminated");
	s = call(f, "DescribeNode", NULL);
	assert_int_equal(s->vcpus_used.value, 0);
}

static void test_bad_specifications(void **state)
{
	struct fixture *f = *state;
	struct shared_instance_spec s = spec_of(f, 1, "running");
	struct shared_get_console_output_request console = {.instance_id = "i-00000000000000009"};
	struct error e = {0};
	void *out;

	s.instance_id = "../../etc";
	apply_spec(f, &s);
	s = spec_of(f, 1, "dancing");
	apply_spec(f, &s);
	s = spec_of(f, 1, "running");
	s.node_id = "n2";
	apply_spec(f, &s);
	s = spec_of(f, 1, "running");
	s.vcpus = WIRE_INT_OF(0);
	apply_spec(f, &s);
	assert_null(observe(f, 1));
	assert_true(rpc_call(f->cc, &node_service, "GetConsoleOutput", &console, f->arena, &out,
			     5000, &e) < 0);
	assert_string_equal(e.code, "InstanceNotFound");
}

static void test_many(void **state)
{
	enum { MANY = 300 };
	struct fixture *f = *state;
	struct shared_instance_spec *specs =
	    arena_new_array(f->arena, struct shared_instance_spec, MANY);
	struct shared_apply_instances_request in = {
	    .full = WIRE_BOOL_OF(true), .instances = {.set = true, .count = MANY, .items = specs}};

	for (int i = 0; i < MANY; i++)
		specs[i] = spec_of(f, i, "running");
	call(f, "ApplyInstances", &in);
	for (int i = 0; i < MANY; i++)
		await(f, i, "running");
	assert_int_equal(f->fetches, 1);
	/* A full list without an instance destroys nothing. */
	in.instances.count = 1;
	call(f, "ApplyInstances", &in);
	usleep(200000);
	assert_string_equal(observe(f, MANY - 1)->state, "running");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_life),
	    T(test_old_generations_are_ignored),
	    T(test_failed_launches_say_why),
	    T(test_trouble_is_waited_out),
	    T(test_guest_switches_itself_off),
	    T(test_restart_adopts),
	    T(test_host_boot_starts_again),
	    T(test_drain_and_resume),
	    T(test_reboot_once),
	    T(test_long_poll),
	    T(test_capacity),
	    T(test_bad_specifications),
	    T(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
