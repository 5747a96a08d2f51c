/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/nc/nc_fixture.h"

#include <arpa/inet.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "os/file.h"

static void serve_image(void *ctx, struct http_request *req)
{
	struct fixture *f = ctx;

	f->fetches++;
	http_reply(req, 200, "application/octet-stream", f->image, f->image_len);
}

static const struct http_handler walrus_handler = {.end = serve_image};

static void start_walrus(struct fixture *f)
{
	struct http_server_config c = {
	    .address = "127.0.0.1", .handler = &walrus_handler, .ctx = f};
	unsigned char digest[32];
	struct error e = {0};

	gnutls_hash_fast(GNUTLS_DIG_SHA256, f->image, f->image_len, digest);
	hex_encode(digest, 32, f->sha);
	assert_int_equal(http_server_start(&c, &f->walrus, &e), 0);
	snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u/b/k", http_server_port(f->walrus));
}

void fixture_start_node(struct fixture *f)
{
	struct error e = {0};

	if (nc_start(f->settings, &f->nc, &e) < 0)
		fail_msg("%s", e.message);
}

void fixture_restart_node(struct fixture *f)
{
	nc_stop(f->nc);
	fixture_start_node(f);
}

static bool port_free(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	_cleanup_(fd_closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

/* Test programs that run at the same time must not find the same ports free. An abstract name belongs to the network
 * namespace, as ports do, and goes with its socket. -1: it is another's. */
static int claim_ports(int base)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int len = snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "mallee-test-ports-%d", base);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len) == 0)
		return fd;
	close(fd);
	return -1;
}

/* Ports for a cloud, below those that outgoing connections get; nobody else's until *ret_fd is closed. */
static int free_ports(int *ret_fd)
{
	enum { FIRST = 21000, STEP = 30, COUNT = 390, PORTS = 20 };

	for (int i = 0; i < COUNT; i++) {
		int base = FIRST + (getpid() + i) % COUNT * STEP, n = 0, fd = claim_ports(base);

		while (fd >= 0 && n < PORTS && port_free(base + n))
			n++;
		if (n == PORTS) {
			*ret_fd = fd;
			return base;
		}
		fd_closep(&fd);
	}
	fail_msg("no %d free ports in a row from %d on", PORTS, FIRST);
	return -1;
}

static void set_up_environment(struct fixture *f, const char *hypervisor, const char *subnet)
{
	char port[16];

	snprintf(port, sizeof(port), "%d", free_ports(&f->ports_fd));
	setenv("MALLEE_STATE", f->dir, 1);
	setenv("MALLEE_HYPERVISOR", hypervisor, 1);
	setenv("MALLEE_PORT_BASE", port, 1);
	setenv("MALLEE_NODE_ID", "n1", 1);
	if (subnet)
		setenv("MALLEE_SUBNET", subnet, 1);
}

static void make_settings(struct fixture *f, const char *certs)
{
	struct error e = {0};
	char cloud[13];

	snprintf(cloud, sizeof(cloud), "nt%u", (unsigned int)getpid() % 100000000);
	if (tls_ca_init(certs, cloud, &e) < 0 ||
	    tls_issue(certs, TLS_ROLE_NC, "n1", (const char *const[]){NULL}, &e) < 0 ||
	    tls_issue(certs, TLS_ROLE_CC, "cc", (const char *const[]){NULL}, &e) < 0 ||
	    settings_load(&f->settings, &e) < 0 ||
	    settings_set(f->settings, SETTING_CLOUD_ID, cloud, &e) < 0 ||
	    settings_save(f->settings, &e) < 0 ||
	    tls_context_load(certs, TLS_ROLE_CC, &f->tls, &e) < 0)
		fail_msg("%s", e.message);
}

struct fixture *fixture_new(const char *hypervisor, const char *subnet, const void *image,
			    size_t image_len)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char certs[96], url[64];

	log_init("nc", LOG_LEVEL_ERROR);
	f->arena = arena_new();
	f->image = arena_memdup(f->arena, image, image_len);
	f->image_len = image_len;
	strcpy(f->dir, "/tmp/mallee-nc-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	chmod(f->dir, 0711);
	snprintf(certs, sizeof(certs), "%s/certs", f->dir);
	assert_int_equal(dir_make(certs, 0700), 0);
	set_up_environment(f, hypervisor, subnet);
	make_settings(f, certs);
	start_walrus(f);
	fixture_start_node(f);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u", settings_port(f->settings, PORT_NC));
	assert_int_equal(rpc_client_new(f->tls, TLS_ROLE_NC, url, &f->cc), 0);
	return f;
}

void fixture_free(struct fixture *f)
{
	rpc_client_free(f->cc);
	nc_stop(f->nc);
	http_server_stop(f->walrus, 100);
	tls_context_free(f->tls);
	settings_free(f->settings);
	arena_free(f->arena);
	dir_remove(f->dir);
	close(f->ports_fd);
	free(f);
}

void *fixture_call(struct fixture *f, const char *action, const void *in)
{
	struct error e = {0};
	void *out = NULL;

	if (rpc_call(f->cc, &node_service, action, in, f->arena, &out, 30000, &e) < 0)
		fail_msg("%s: %s: %s", action, e.code, e.message);
	return out;
}

struct shared_instance_spec fixture_spec(struct fixture *f, int number, const char *wanted)
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
	    .image_size_bytes = WIRE_INT_OF((int64_t)f->image_len),
	    .instance_type = "t3.micro",
	    .vcpus = WIRE_INT_OF(f->nc->net ? 1 : 2),
	    .memory_mib = WIRE_INT_OF(f->nc->net ? 128 : 1024),
	    .disk_bytes = WIRE_INT_OF(f->nc->net ? 4 << 20 : (int64_t)8 << 30),
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

void fixture_apply_spec(struct fixture *f, struct shared_instance_spec *s)
{
	struct shared_apply_instances_request in = {
	    .instances = {.set = true, .count = 1, .items = s}};
	struct shared_apply_instances_response *out = fixture_call(f, "ApplyInstances", &in);

	assert_string_equal(out->epoch, f->nc->epoch);
}

void fixture_apply(struct fixture *f, int number, const char *wanted)
{
	struct shared_instance_spec s = fixture_spec(f, number, wanted);

	fixture_apply_spec(f, &s);
}

const struct shared_instance_observed *fixture_observe(struct fixture *f, int number)
{
	struct shared_describe_instances_request in = {.wait_ms = WIRE_INT_OF(0)};
	struct shared_describe_instances_response *out = fixture_call(f, "DescribeInstances", &in);
	char id[32];

	snprintf(id, sizeof(id), "i-%017d", number);
	for (size_t i = 0; i < out->instances.count; i++)
		if (str_eq(out->instances.items[i].instance_id, id))
			return &out->instances.items[i];
	return NULL;
}

const struct shared_instance_observed *fixture_await(struct fixture *f, int number,
						     const char *want)
{
	const struct shared_instance_observed *o;
	int64_t end = clock_mono_ms() + (f->nc->net ? 60000 : 20000);

	for (;;) {
		o = fixture_observe(f, number);
		if (o && str_eq(o->state, want))
			return o;
		if (clock_mono_ms() > end)
			fail_msg("instance %d is %s (%s), not %s", number, o ? o->state : "unknown",
				 o && o->progress ? o->progress : "", want);
		usleep(20000);
	}
}

const struct shared_instance_observed *fixture_await_progress(struct fixture *f, int number,
							      const char *part)
{
	const struct shared_instance_observed *o;
	int64_t end = clock_mono_ms() + (f->nc->net ? 60000 : 20000);

	for (;;) {
		o = fixture_observe(f, number);
		if (o && o->progress && strstr(o->progress, part))
			return o;
		if (clock_mono_ms() > end)
			fail_msg("instance %d is %s (%s), not \"%s\"", number, o ? o->state : "unknown",
				 o && o->progress ? o->progress : "", part);
		usleep(20000);
	}
}

bool fixture_has_file(struct fixture *f, int number, const char *file)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/nc/instances/i-%017d%s", f->dir, number, file);
	return access(path, F_OK) == 0;
}

/* gen/node_rpc.h declares these, and belongs to node_rpc.c alone. */
int node_drain(void *ctx, struct arena *a, const struct tls_identity *peer,
	       const struct node_drain_request *in, struct error *e);
int node_resume(void *ctx, struct arena *a, const struct tls_identity *peer, struct error *e);

void fixture_hold(struct fixture *f, bool held, int64_t timeout_s)
{
	struct node_drain_request in = {.timeout_s = WIRE_INT_OF(timeout_s)};
	struct error e = {0};

	if (held)
		assert_int_equal(node_drain(f->nc, f->arena, NULL, &in, &e), 0);
	else
		assert_int_equal(node_resume(f->nc, f->arena, NULL, &e), 0);
}
