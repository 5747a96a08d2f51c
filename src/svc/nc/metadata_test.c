/* SPDX-License-Identifier: Apache-2.0 */
/* The real server; guests are loopback's source addresses: 127.0.0.2 and 127.0.0.3 are instances,
 * 127.0.0.9 is nobody. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <jansson.h>

#include "base/text.h"
#include "gen/shared.h"
#include "os/file.h"
#include "svc/nc/metadata.h"
#include "svc/nc/metadata_priv.h"

#define WAIT_MS 3000

struct fixture {
	char dir[64];
	struct metadata *m;
	uint16_t port;
	struct shared_instance_spec guests[2];
	struct shared_metadata_options options[2];
	struct shared_tag tags[4];
	struct shared_block_device disks[4];
};

static int lookup(void *ctx, uint32_t ipv4_be, struct arena *a,
		  const struct shared_instance_spec **ret)
{
	struct fixture *x = ctx;
	struct shared_instance_spec *copy;
	char text[16];

	snprintf(text, sizeof(text), "%s", inet_ntoa((struct in_addr){ipv4_be}));
	for (size_t i = 0; i < 2; i++) {
		if (str_eq(x->guests[i].private_ip, text)) {
			copy = arena_memdup(a, &x->guests[i], sizeof(*copy));
			*ret = copy;
			return 0;
		}
	}
	return -ENOENT;
}

static void describe_guests(struct fixture *x)
{
	x->tags[0] = (struct shared_tag){"Name", "web one"};
	x->tags[1] = (struct shared_tag){"a=b", ""};
	x->tags[2] = (struct shared_tag){"with/slash", "hidden"};
	x->tags[3] = (struct shared_tag){"caf\xc3\xa9", "menu"};
	x->guests[0] = (struct shared_instance_spec){
	    .instance_id = "i-00000000000000002",
	    .account_id = "111111111111",
	    .reservation_id = "r-00000000000000002",
	    .region = "us-east-1",
	    .availability_zone = "us-east-1a",
	    .image_id = "ami-00000000000000001",
	    .instance_type = "t3.micro",
	    .launch_time = {true, 1795341730500},
	    .ami_launch_index = {true, 3},
	    .network_interface_id = "eni-00000000000000002",
	    .mac_address = "02:00:0a:00:00:02",
	    .private_ip = "127.0.0.2",
	    .subnet_id = "subnet-00000000000000001",
	    .vpc_id = "vpc-00000000000000001",
	    .subnet_cidr = "127.0.0.0/20",
	    .gateway_ip = "127.0.0.1",
	    .private_dns_name = "ip-127-0-0-2.ec2.internal",
	    .key_name = "my key",
	    .public_key = "ssh-ed25519 AAAA me",
	    .user_data = {"#!/bin/sh\n\0\xff tail", 17},
	    .metadata_options = &x->options[0],
	};
	x->guests[1] = x->guests[0];
	x->guests[1].instance_id = "i-00000000000000003";
	x->guests[1].private_ip = "127.0.0.3";
	x->guests[1].key_name = x->guests[1].public_key = NULL;
	x->guests[1].user_data = (struct wire_blob){0};
	x->guests[1].metadata_options = NULL;
	x->guests[1].tags = (struct shared_tag_list){true, 4, x->tags};
	x->guests[1].local_disks = WIRE_INT_OF(2);
	x->guests[1].root_device_type = "ebs";
	x->guests[1].root_device_name = "/dev/sda1";
	x->disks[0] = (struct shared_block_device){"vol-1", "/dev/sdf", {true, 1}, {0}, {true, 1}, "attached"};
	x->disks[1] = (struct shared_block_device){"vol-2", "/dev/sda1", {true, 0}, {true, true}, {true, 1}, "attached"};
	x->disks[2] = (struct shared_block_device){"vol-3", "/dev/sdg", {true, 2}, {0}, {true, 1}, "detached"};
	x->disks[3] = (struct shared_block_device){"vol-4", "xvdh", {true, 3}, {0}, {true, 1}, "attached"};
	x->guests[1].block_devices = (struct shared_block_device_list){true, 4, x->disks};
}

static void start(struct fixture *x)
{
	struct metadata_config c = {.dir = x->dir, .lookup = lookup, .ctx = x};
	struct error e = {0};

	if (metadata_start(&c, &x->m, &e) < 0)
		fail_msg("metadata_start: %s", e.message);
	x->port = metadata_port(x->m);
}

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));

	strcpy(x->dir, "/tmp/mallee-metadata-test-XXXXXX");
	assert_non_null(mkdtemp(x->dir));
	describe_guests(x);
	start(x);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	metadata_stop(x->m);
	dir_remove(x->dir);
	free(x);
	return 0;
}

/* --- a client --- */

struct reply {
	int status;
	char head[2048];
	char body[16384];
	size_t len;
};

#define QUIET_MS 400	/* how long no reply must come to count as dropped */
#define PATIENT_MS 10000 /* how long one that must come is waited for */

static int dial(struct fixture *x, const char *from, int min_ttl, int patience_ms)
{
	struct sockaddr_in sa = {.sin_family = AF_INET};
	struct timeval patience = {.tv_sec = patience_ms / 1000, .tv_usec = patience_ms % 1000 * 1000};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	inet_pton(AF_INET, from, &sa.sin_addr);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	inet_pton(AF_INET, "127.0.0.1", &sa.sin_addr);
	sa.sin_port = htons(x->port);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	/* Segments of fewer hops than this are dropped on arrival: what a router on the way would
	 * have done. */
	if (min_ttl) {
		assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_MINTTL, &min_ttl, sizeof(min_ttl)),
				 0);
		assert_int_equal(
		    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	}
	return fd;
}

/* One request, "Connection: close"; false when no reply comes. */
static bool exchange_within(struct fixture *x, const char *from, int min_ttl, int patience_ms,
			    const char *head, struct reply *ret)
{
	_cleanup_(fd_closep) int fd = dial(x, from, min_ttl, patience_ms);
	char text[4096], in[sizeof(ret->head) + sizeof(ret->body)];
	size_t n = 0;
	ssize_t got;
	char *end;

	snprintf(text, sizeof(text), "%s\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n",
		 head);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	while (n < sizeof(in) - 1 && (got = read(fd, in + n, sizeof(in) - 1 - n)) > 0)
		n += got;
	in[n] = '\0';
	*ret = (struct reply){0};
	end = strstr(in, "\r\n\r\n");
	if (!end)
		return false;
	snprintf(ret->head, sizeof(ret->head), "%.*s\r\n", (int)(end - in), in);
	assert_int_equal(sscanf(in, "HTTP/1.1 %d", &ret->status), 1);
	ret->len = n - (end + 4 - in);
	memcpy(ret->body, end + 4, ret->len);
	return true;
}

static bool exchange(struct fixture *x, const char *from, int min_ttl, const char *head,
		     struct reply *ret)
{
	return exchange_within(x, from, min_ttl, PATIENT_MS, head, ret);
}

static int request(struct fixture *x, const char *from, struct reply *ret, const char *head, ...)
    _printf_(4, 5);
static int request(struct fixture *x, const char *from, struct reply *ret, const char *head, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, head);
	vsnprintf(text, sizeof(text), head, ap);
	va_end(ap);
	assert_true(exchange(x, from, 0, text, ret));
	return ret->status;
}

#define A "127.0.0.2"
#define B "127.0.0.3"

static void assert_page(struct fixture *x, const char *from, const char *path, const char *want)
{
	struct reply r;

	if (request(x, from, &r, "GET %s HTTP/1.1", path) != 200)
		fail_msg("%s: %d", path, r.status);
	if (strcmp(r.body, want))
		fail_msg("%s is \"%s\", not \"%s\"", path, r.body, want);
}

static void assert_status(struct fixture *x, const char *from, const char *head, int want)
{
	struct reply r;

	if (request(x, from, &r, "%s", head) != want)
		fail_msg("%s: %d, not %d", head, r.status, want);
}

static void get_token(struct fixture *x, const char *from, char token[static 128])
{
	struct reply r;

	assert_int_equal(
	    request(
		x, from, &r,
		"PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 21600\r\nContent-Length: 0"),
	    200);
	assert_in_range(r.len, 20, 100);
	snprintf(token, 128, "%.127s", r.body);
	assert_non_null(strcasestr(r.head, "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n"));
	assert_non_null(strcasestr(r.head, "connection: close\r\n"));
}

/* --- the tree --- */

static void test_leaves(void **state)
{
	static const char *const pages[][2] = {
	    {"ami-id", "ami-00000000000000001"},
	    {"ami-launch-index", "3"},
	    {"ami-manifest-path", "(unknown)"},
	    {"block-device-mapping/ami", "vda"},
	    {"block-device-mapping/root", "/dev/vda"},
	    {"hostname", "ip-127-0-0-2.ec2.internal"},
	    {"instance-action", "none"},
	    {"instance-id", "i-00000000000000002"},
	    {"instance-life-cycle", "on-demand"},
	    {"instance-type", "t3.micro"},
	    {"local-hostname", "ip-127-0-0-2.ec2.internal"},
	    {"local-ipv4", "127.0.0.2"},
	    {"mac", "02:00:0a:00:00:02"},
	    {"network/interfaces/macs/02:00:0a:00:00:02/device-number", "0"},
	    {"network/interfaces/macs/02:00:0a:00:00:02/interface-id", "eni-00000000000000002"},
	    {"network/interfaces/macs/02:00:0a:00:00:02/local-ipv4s", "127.0.0.2"},
	    {"network/interfaces/macs/02:00:0a:00:00:02/owner-id", "111111111111"},
	    {"network/interfaces/macs/02:00:0a:00:00:02/subnet-id", "subnet-00000000000000001"},
	    {"network/interfaces/macs/02:00:0a:00:00:02/subnet-ipv4-cidr-block", "127.0.0.0/20"},
	    {"network/interfaces/macs/02:00:0a:00:00:02/vpc-id", "vpc-00000000000000001"},
	    {"network/interfaces/macs/02%3a00:0a:00:00:02/mac", "02:00:0a:00:00:02"},
	    {"placement/availability-zone", "us-east-1a"},
	    {"placement/region", "us-east-1"},
	    {"profile", "default-hvm"},
	    {"public-keys/0/openssh-key", "ssh-ed25519 AAAA me"},
	    {"reservation-id", "r-00000000000000002"},
	    {"security-groups", "default"},
	    {"services/domain", "amazonaws.com"},
	    {"services/partition", "aws"},
	    {"events/maintenance/scheduled", "[]"},
	};
	static const char *const roots[] = {"/latest/meta-data/", "/2009-04-04/meta-data/",
					    "/2021-03-23//meta-data/"};
	char path[256];

	for (size_t r = 0; r < ARRAY_SIZE(roots); r++) {
		for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
			snprintf(path, sizeof(path), "%s%s", roots[r], pages[i][0]);
			assert_page(*state, A, path, pages[i][1]);
		}
	}
}

static void test_listings(void **state)
{
	struct fixture *x = *state;
	struct reply r;

	assert_int_equal(request(x, A, &r, "GET / HTTP/1.1"), 200);
	assert_true(str_prefix(r.body, "1.0\n2007-01-19\n"));
	assert_true(str_suffix(r.body, "\nlatest"));
	assert_page(x, A, "/latest", "dynamic\nmeta-data\nuser-data");
	assert_page(x, A, "/latest/", "dynamic\nmeta-data\nuser-data");
	assert_page(x, B, "/latest/", "dynamic\nmeta-data");
	assert_page(
	    x, A, "/latest/meta-data",
	    "ami-id\nami-launch-index\nami-manifest-path\nblock-device-mapping/\nevents/\nhostname\ninstance-action\n"
	    "instance-id\ninstance-life-cycle\ninstance-type\nlocal-hostname\nlocal-ipv4\nmac\nnetwork/\nplacement/\n"
	    "profile\npublic-keys/\nreservation-id\nsecurity-groups\nservices/");
	assert_page(x, A, "/latest/meta-data/public-keys/", "0=my key");
	assert_page(x, A, "/latest/meta-data/public-keys/0/", "openssh-key");
	assert_page(x, A, "/latest/meta-data/network/interfaces/macs/", "02:00:0a:00:00:02/");
	assert_page(x, A, "/latest/meta-data/block-device-mapping", "ami\nroot");
	assert_page(x, B, "/latest/meta-data/block-device-mapping", "ami\nebs1\nebs2\nephemeral0\nephemeral1\nroot");
	assert_page(x, B, "/latest/meta-data/block-device-mapping/ephemeral1", "sdc");
	assert_page(x, B, "/latest/meta-data/block-device-mapping/ami", "sda1");
	assert_page(x, B, "/latest/meta-data/block-device-mapping/root", "/dev/sda1");
	assert_page(x, B, "/latest/meta-data/block-device-mapping/ebs1", "sdf");
	assert_page(x, B, "/latest/meta-data/block-device-mapping/ebs2", "xvdh");
	assert_page(x, A, "/latest/dynamic/", "instance-identity/");
	assert_page(x, A, "/latest/dynamic/instance-identity", "document");
}

static void test_missing(void **state)
{
	static const char *const paths[] = {
	    "/latest/meta-data/iam/info",
	    "/latest/meta-data/iam/security-credentials/",
	    "/latest/meta-data/instance-i",
	    "/latest/meta-data/public-key",
	    "/latest/meta-data/tags/instance",
	    "/latest/meta-data/network/interfaces/macs/02:00:0a:00:00:03/mac",
	    "/latest/meta-data/../user-data",
	    "/latest/meta-data/instance-id/x",
	    "/latest/meta-data/instance-id%2fx",
	    "/2099-01-01/meta-data/instance-id",
	    "/latestmeta-data/",
	    "/favicon.ico",
	};
	char head[256];
	struct reply r;

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		snprintf(head, sizeof(head), "GET %s HTTP/1.1", paths[i]);
		assert_status(*state, A, head, 404);
	}
	request(*state, A, &r, "GET /x HTTP/1.1");
	assert_non_null(strstr(r.body, "<title>404 - Not Found</title>"));
	assert_status(*state, A, "GET /latest/meta-data/%zz HTTP/1.1", 400);
	assert_status(*state, A, "GET /latest/meta-data/ami-id%00x HTTP/1.1", 400);
	assert_status(*state, B, "GET /latest/user-data HTTP/1.1", 404);
	assert_status(*state, B, "GET /latest/meta-data/public-keys/ HTTP/1.1", 404);
}

static void test_methods(void **state)
{
	struct reply r;

	assert_status(*state, A, "POST /latest/meta-data/ HTTP/1.1\r\nContent-Length: 0", 405);
	assert_status(*state, A, "DELETE /latest/meta-data/ami-id HTTP/1.1", 405);
	assert_status(*state, A, "PUT /latest/meta-data/ami-id HTTP/1.1\r\nContent-Length: 0", 405);
	assert_status(*state, A, "GET /latest/api/token HTTP/1.1", 405);
	assert_int_equal(request(*state, A, &r, "HEAD /latest/meta-data/ami-id HTTP/1.1"), 200);
	assert_int_equal(r.len, 0);
	assert_non_null(strcasestr(r.head, "content-length: 21\r\n"));
}

static void test_user_data(void **state)
{
	struct reply r;

	assert_int_equal(request(*state, A, &r, "GET /latest/user-data HTTP/1.1"), 200);
	assert_int_equal(r.len, 17);
	assert_memory_equal(r.body, "#!/bin/sh\n\0\xff tail", 17);
	assert_non_null(strcasestr(r.head, "content-type: application/octet-stream\r\n"));
}

static void test_document(void **state)
{
	static const char *const wants[][2] = {
	    {"accountId", "111111111111"},
	    {"architecture", "x86_64"},
	    {"availabilityZone", "us-east-1a"},
	    {"imageId", "ami-00000000000000001"},
	    {"instanceId", "i-00000000000000002"},
	    {"instanceType", "t3.micro"},
	    {"pendingTime", "2026-11-22T10:02:10Z"},
	    {"privateIp", "127.0.0.2"},
	    {"region", "us-east-1"},
	    {"version", "2017-09-30"},
	};
	struct reply r;
	json_t *o;

	assert_int_equal(
	    request(*state, A, &r, "GET /latest/dynamic/instance-identity/document HTTP/1.1"), 200);
	o = json_loads(r.body, 0, NULL);
	assert_non_null(o);
	for (size_t i = 0; i < ARRAY_SIZE(wants); i++)
		assert_string_equal(json_string_value(json_object_get(o, wants[i][0])),
				    wants[i][1]);
	assert_true(json_is_null(json_object_get(o, "billingProducts")));
	json_decref(o);
}

static void test_nobody_sees_anothers(void **state)
{
	struct fixture *x = *state;

	assert_page(x, A, "/latest/meta-data/instance-id", "i-00000000000000002");
	assert_page(x, B, "/latest/meta-data/instance-id", "i-00000000000000003");
	assert_status(x, "127.0.0.9", "GET /latest/meta-data/instance-id HTTP/1.1", 404);
	assert_status(x, "127.0.0.9", "GET / HTTP/1.1", 404);
	assert_status(x, "127.0.0.9",
		      "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60",
		      404);
	assert_status(
	    x, A, "GET /latest/meta-data/instance-id HTTP/1.1\r\nX-Forwarded-For: 127.0.0.3", 200);
}

static void test_tags(void **state)
{
	struct fixture *x = *state;

	assert_status(x, B, "GET /latest/meta-data/tags/instance/ HTTP/1.1", 404);
	x->guests[1].metadata_options = &x->options[1];
	x->options[1].instance_metadata_tags = "enabled";
	assert_page(x, B, "/latest/meta-data/tags/instance/", "Name\na=b\ncaf\xc3\xa9");
	assert_page(x, B, "/latest/meta-data/tags/instance/Name", "web one");
	assert_page(x, B, "/latest/meta-data/tags/instance/a=b", "");
	assert_page(x, B, "/latest/meta-data/tags/instance/caf%C3%A9", "menu");
	x->options[1].instance_metadata_tags = "disabled";
	assert_status(x, B, "GET /latest/meta-data/tags/instance/Name HTTP/1.1", 404);
}

/* --- access --- */

static void test_token_required(void **state)
{
	struct fixture *x = *state;
	char token[128], other[128], head[512];

	x->options[0].http_tokens = "required";
	assert_status(x, A, "GET /latest/meta-data/ami-id HTTP/1.1", 401);
	assert_status(x, A, "GET / HTTP/1.1", 401);
	get_token(x, A, token);
	get_token(x, B, other);
	snprintf(head, sizeof(head),
		 "GET /latest/meta-data/ami-id HTTP/1.1\r\nX-aws-ec2-metadata-token: %s", token);
	assert_status(x, A, head, 200);
	assert_status(x, B, head, 401); /* another's, though it needs none */
	snprintf(head, sizeof(head),
		 "GET /latest/meta-data/ami-id HTTP/1.1\r\nX-aws-ec2-metadata-token: %s", other);
	assert_status(x, A, head, 401);
	assert_status(x, A,
		      "GET /latest/meta-data/ami-id HTTP/1.1\r\nX-aws-ec2-metadata-token:", 401);
	/* Not one bit of it is for show. */
	for (size_t i = 0; i < strlen(token); i += 3) {
		snprintf(other, sizeof(other), "%s", token);
		other[i] = other[i] == 'A' ? 'B' : 'A';
		snprintf(head, sizeof(head),
			 "GET /latest/meta-data/ami-id HTTP/1.1\r\nX-aws-ec2-metadata-token: %s",
			 other);
		assert_status(x, A, head, 401);
	}
	/* A restart of the service doesn't matter. */
	metadata_stop(x->m);
	start(x);
	snprintf(head, sizeof(head),
		 "GET /latest/meta-data/ami-id HTTP/1.1\r\nX-aws-ec2-metadata-token: %s", token);
	assert_status(x, A, head, 200);
}

static void test_token_requests(void **state)
{
	static const char *const bad[] = {"0", "21601", "-1",  "",
					  "x", "60s",	"1.5", "99999999999999999999"};
	struct fixture *x = *state;
	char head[256];

	assert_status(x, A, "PUT /latest/api/token HTTP/1.1", 400);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(
		    head, sizeof(head),
		    "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: %s",
		    bad[i]);
		assert_status(x, A, head, 400);
	}
	assert_status(
	    x, A,
	    "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\nX-Forwarded-For: 10.0.0.1",
	    403);
	assert_status(
	    x, A, "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 1", 200);
	assert_status(x, A,
		      "PUT /latest/api/tokens HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60",
		      405);
}

static void test_token_expires(void **state)
{
	struct fixture *x = *state;
	char head[512];
	struct reply r;

	assert_int_equal(
	    request(x, A, &r,
		    "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 1"),
	    200);
	snprintf(head, sizeof(head),
		 "GET /latest/meta-data/ami-id HTTP/1.1\r\nX-aws-ec2-metadata-token: %.127s", r.body);
	usleep(1100 * 1000);
	assert_status(x, A, head, 401);
}

static void test_endpoint_disabled(void **state)
{
	struct fixture *x = *state;

	x->options[0].http_endpoint = "disabled";
	assert_status(x, A, "GET /latest/meta-data/ami-id HTTP/1.1", 403);
	assert_status(x, A,
		      "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60",
		      403);
	assert_status(x, B, "GET /latest/meta-data/ami-id HTTP/1.1", 200);
	x->options[0].http_endpoint = "enabled";
	assert_status(x, A, "GET /latest/meta-data/ami-id HTTP/1.1", 200);
}

static void test_hop_limit(void **state)
{
	static const char put[] =
	    "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60";
	static const char get[] = "GET /latest/meta-data/ami-id HTTP/1.1";
	struct fixture *x = *state;
	struct reply r;

	assert_true(exchange(x, A, 1, put, &r));
	assert_false(exchange_within(x, A, 2, QUIET_MS, put, &r)); /* one hop too far, retransmissions included */
	assert_true(exchange(x, A, 2, get, &r));
	x->options[0].http_put_response_hop_limit = WIRE_INT_OF(2);
	assert_true(exchange(x, A, 2, put, &r));
	assert_false(exchange_within(x, A, 3, QUIET_MS, put, &r));
	x->options[0].http_put_response_hop_limit = WIRE_INT_OF(64);
	assert_true(exchange(x, A, 64, put, &r));
	x->options[0].http_put_response_hop_limit = (struct wire_int){0};
}

/* A request that comes on behind the one for a token must not lend that reply its hops. */
static void test_no_pipelining_past_the_limit(void **state)
{
	static const char both[] =
	    "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n"
	    "Content-Length: 0\r\n\r\n"
	    "GET /latest/meta-data/ami-id HTTP/1.1\r\nHost: x\r\n\r\n";
	_cleanup_(fd_closep) int fd = dial(*state, A, 2, QUIET_MS);
	char in[4096];

	assert_int_equal(write(fd, both, strlen(both)), strlen(both));
	usleep(800 * 1000);
	assert_true(read(fd, in, sizeof(in)) <= 0);
}

/* --- cloud-init --- */

struct crawl {
	struct fixture *x;
	char seen[8192];
	int leaves;
};

static void crawl(struct crawl *c, const char *path, int depth)
{
	char *save = NULL, next[512];
	struct reply r;

	assert_in_range(depth, 0, 8);
	if (request(c->x, A, &r, "GET %s HTTP/1.1", path) != 200)
		fail_msg("%s is listed and answers %d", path, r.status);
	for (char *name = strtok_r(r.body, "\n", &save); name; name = strtok_r(NULL, "\n", &save)) {
		struct reply leaf;

		if (strchr(name, '=') && strstr(path, "public-keys"))
			snprintf(next, sizeof(next), "%s%d/openssh-key", path, atoi(name));
		else
			snprintf(next, sizeof(next), "%s%s", path, name);
		if (name[strlen(name) - 1] == '/') {
			crawl(c, next, depth + 1);
			continue;
		}
		if (request(c->x, A, &leaf, "GET %s HTTP/1.1", next) != 200)
			fail_msg("%s is listed and answers %d", next, leaf.status);
		strcat(strcat(c->seen, next + strlen("/2009-04-04/meta-data")), "\n");
		c->leaves++;
	}
}

/* What its EC2 data source does: a token, the versions it prefers, a walk of the tree, and the
 * three pages beside. */
static void test_cloud_init(void **state)
{
	static const char *const asked[] = {
	    "/2021-03-23/meta-data/instance-id", "/2018-09-24/meta-data/instance-id",
	    "/2016-09-02/meta-data/instance-id", "/2009-04-04/user-data",
	    "/2009-04-04/dynamic/instance-identity/document"};
	static const char *const read[] = {
	    "/ami-id\n",
	    "/instance-id\n",
	    "/instance-type\n",
	    "/local-hostname\n",
	    "/local-ipv4\n",
	    "/placement/availability-zone\n",
	    "/block-device-mapping/root\n",
	    "/public-keys/0/openssh-key\n",
	    "/network/interfaces/macs/02:00:0a:00:00:02/device-number\n",
	    "/network/interfaces/macs/02:00:0a:00:00:02/local-ipv4s\n",
	    "/network/interfaces/macs/02:00:0a:00:00:02/subnet-ipv4-cidr-block\n",
	    "/network/interfaces/macs/02:00:0a:00:00:02/vpc-id\n",
	};
	struct crawl c = {.x = *state};
	char token[128], head[512];

	get_token(*state, A, token);
	for (size_t i = 0; i < ARRAY_SIZE(asked); i++) {
		snprintf(head, sizeof(head), "GET %s HTTP/1.1\r\nX-aws-ec2-metadata-token: %s",
			 asked[i], token);
		assert_status(*state, A, head, 200);
	}
	crawl(&c, "/2009-04-04/meta-data/", 0);
	assert_in_range(c.leaves, 30, 100);
	for (size_t i = 0; i < ARRAY_SIZE(read); i++) {
		if (!strstr(c.seen, read[i]))
			fail_msg("not found by the walk: %s", read[i]);
	}
}

/* --- the key --- */

static void test_key_file(void **state)
{
	struct fixture *x = *state;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct metadata_keys first, again;
	struct error e = {0};
	const char *token;
	char path[96];
	int64_t left;

	snprintf(path, sizeof(path), "%s/metadata.key", x->dir);
	assert_int_equal(metadata_keys_load(x->dir, &first, &e), 0);
	assert_int_equal(metadata_keys_load(x->dir, &again, &e), 0);
	assert_memory_equal(&first, &again, sizeof(first));
	token = metadata_token_make(&first, "i-1", 100, a);
	assert_true(metadata_token_check(&again, "i-1", token, &left));
	assert_in_range(left, 99, 100);
	assert_false(metadata_token_check(&again, "i-2", token, &left));
	/* Of another boot, and damaged: a new key. */
	assert_int_equal(
	    file_write_atomic(path, "00000000-0000-0000-0000-000000000000\nabcd", 41, 0600), 0);
	assert_int_equal(metadata_keys_load(x->dir, &again, &e), 0);
	assert_memory_not_equal(&first, &again, sizeof(first));
	assert_false(metadata_token_check(&again, "i-1", token, &left));
	assert_true(metadata_keys_load("/nonexistent", &again, &e) < 0);
	assert_non_null(strstr(e.message, "/nonexistent/metadata.key"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_leaves),
	    cmocka_unit_test(test_listings),
	    cmocka_unit_test(test_missing),
	    cmocka_unit_test(test_methods),
	    cmocka_unit_test(test_user_data),
	    cmocka_unit_test(test_document),
	    cmocka_unit_test(test_nobody_sees_anothers),
	    cmocka_unit_test(test_tags),
	    cmocka_unit_test(test_token_requests),
	    cmocka_unit_test(test_token_expires),
	    cmocka_unit_test(test_cloud_init),
	    cmocka_unit_test(test_hop_limit),
	    cmocka_unit_test(test_no_pipelining_past_the_limit),
	    cmocka_unit_test(test_endpoint_disabled),
	    cmocka_unit_test(test_token_required),
	    cmocka_unit_test(test_key_file),
	};

	return cmocka_run_group_tests_name("nc/metadata", tests, setup, teardown);
}
