/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/first.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "cmd/cmd_priv.h"
#include "cmd/upload.h"
#include "os/file.h"
#include "os/spawn.h"

#define IMAGE_NAME "tiny"
#define KEY_NAME "mallee"
#define INSTANCE_NAME "first"
#define INSTANCE_TYPE "t2.micro"
#define READY_TIMEOUT_MS 600000 /* emulated, on a machine that is busy with other things */

static int find_image(struct client *c, struct first *f, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const char *self[] = {"self"}, *names[] = {IMAGE_NAME}, *states[] = {"available"};
	struct ec2_filter filters[] = {{.name = "name", .values = {true, 1, names}},
				       {.name = "state", .values = {true, 1, states}}};
	struct ec2_describe_images_request in = {.owners = {true, 1, self},
						 .filters = {true, ARRAY_SIZE(filters), filters}};
	const struct ec2_describe_images_result *out;
	void *reply;
	int r = client_ec2(c, "DescribeImages", &in, a, &reply, e);

	if (r < 0)
		return r;
	out = reply;
	if (out->images.count)
		snprintf(f->image_id, sizeof(f->image_id), "%s", out->images.items[0].image_id);
	return 0;
}

static int make_image(struct client *c, const struct settings *s, struct first *f, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(freep) char *file = NULL;
	const char *image_id = NULL;
	int r = find_image(c, f, e);

	if (r < 0 || *f->image_id)
		return r;
	r = image_build_tiny(NULL, &file, e);
	if (r < 0)
		return r;
	struct import i = {.file = file,
			   .name = IMAGE_NAME,
			   .description = "Mallee tiny: Debian kernel, busybox, SSH",
			   .public = true};
	r = image_import(c, s, &i, a, &image_id, e);
	if (r == 0)
		snprintf(f->image_id, sizeof(f->image_id), "%s", image_id);
	return r;
}

static int key_exists(struct client *c, bool *ret, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const char *names[] = {KEY_NAME};
	struct ec2_filter filter = {.name = "key-name", .values = {true, 1, names}};
	struct ec2_describe_key_pairs_request in = {.filters = {true, 1, &filter}};
	void *reply;
	int r = client_ec2(c, "DescribeKeyPairs", &in, a, &reply, e);

	if (r == 0)
		*ret = ((const struct ec2_describe_key_pairs_result *)reply)->key_pairs.count > 0;
	return r;
}

/* The private key stays on this machine: made here, and only its public half is imported. */
static int make_key(struct client *c, const struct settings *s, struct first *f, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(freep) char *public_path = NULL, *public_key = NULL;
	bool exists = false;
	size_t len;
	int r = key_exists(c, &exists, e);

	f->key_path = settings_path(s, "keys/" KEY_NAME);
	public_path = settings_path(s, "keys/" KEY_NAME ".pub");
	if (r < 0)
		return r;
	if (access(f->key_path, F_OK) < 0) {
		r = run_command(e, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", KEY_NAME,
				"-f", f->key_path, NULL);
		if (r < 0)
			return r;
		exists = false; /* a key pair of that name whose private half is lost is of no use:
				   replaced below */
		struct ec2_delete_key_pair_request gone = {.key_name = KEY_NAME};
		r = client_ec2(c, "DeleteKeyPair", &gone, a, NULL, e);
	}
	if (r < 0 || exists)
		return r;
	r = file_read(public_path, 4096, &public_key, &len);
	if (r < 0)
		return error_errno(e, r, "Cannot read %s", public_path);
	struct ec2_import_key_pair_request in = {.key_name = KEY_NAME,
						 .public_key_material = {public_key, len}};
	return client_ec2(c, "ImportKeyPair", &in, a, NULL, e);
}

static int find_instance(struct client *c, struct first *f, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const char *names[] = {INSTANCE_NAME},
		   *states[] = {"pending", "running", "stopping", "stopped"};
	struct ec2_filter filters[] = {
	    {.name = "tag:Name", .values = {true, 1, names}},
	    {.name = "instance-state-name", .values = {true, ARRAY_SIZE(states), states}}};
	struct ec2_describe_instances_request in = {
	    .filters = {true, ARRAY_SIZE(filters), filters}};
	const struct ec2_describe_instances_result *out;
	void *reply;
	int r = client_ec2(c, "DescribeInstances", &in, a, &reply, e);

	if (r < 0)
		return r;
	out = reply;
	if (out->reservations.count && out->reservations.items[0].instances.count)
		snprintf(f->instance_id, sizeof(f->instance_id), "%s",
			 out->reservations.items[0].instances.items[0].instance_id);
	return 0;
}

static int run_instance(struct client *c, struct first *f, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct ec2_tag tag = {.key = "Name", .value = INSTANCE_NAME};
	struct ec2_tag_specification tags = {.resource_type = "instance", .tags = {true, 1, &tag}};
	struct ec2_run_instances_request in = {.image_id = f->image_id,
					       .instance_type = INSTANCE_TYPE,
					       .key_name = KEY_NAME,
					       .min_count = WIRE_INT_OF(1),
					       .max_count = WIRE_INT_OF(1),
					       .tag_specifications = {true, 1, &tags}};
	const struct ec2_reservation *out;
	void *reply;
	int r = find_instance(c, f, e);

	if (r < 0 || *f->instance_id)
		return r;
	r = client_ec2(c, "RunInstances", &in, a, &reply, e);
	if (r < 0)
		return r;
	out = reply;
	if (out->instances.count != 1)
		return error_set(e, "InternalError", "RunInstances answered without an instance");
	snprintf(f->instance_id, sizeof(f->instance_id), "%s", out->instances.items[0].instance_id);
	return 0;
}

/* One look: *ret_state (in a) and the address. */
static int look_at_instance(struct client *c, struct first *f, struct arena *a,
			    const char **ret_state, const char **ret_reason, struct error *e)
{
	const char *ids[] = {f->instance_id};
	struct ec2_describe_instances_request in = {.instance_ids = {true, 1, ids}};
	const struct ec2_describe_instances_result *out;
	const struct ec2_instance *i;
	void *reply;
	int r = client_ec2(c, "DescribeInstances", &in, a, &reply, e);

	if (r < 0)
		return r;
	out = reply;
	if (!out->reservations.count || !out->reservations.items[0].instances.count)
		return error_set(e, "InternalError", "The instance %s is gone", f->instance_id);
	i = &out->reservations.items[0].instances.items[0];
	*ret_state = i->state && i->state->name ? i->state->name : "";
	*ret_reason = i->state_reason && i->state_reason->message ? i->state_reason->message
								  : "no reason given";
	if (i->private_ip_address)
		snprintf(f->address, sizeof(f->address), "%s", i->private_ip_address);
	return 0;
}

static int look_at_status(struct client *c, const struct first *f, struct arena *a, bool *ret_ok,
			  struct error *e)
{
	const char *ids[] = {f->instance_id};
	struct ec2_describe_instance_status_request in = {.instance_ids = {true, 1, ids}};
	const struct ec2_describe_instance_status_result *out;
	void *reply;
	int r = client_ec2(c, "DescribeInstanceStatus", &in, a, &reply, e);

	if (r < 0)
		return r;
	out = reply;
	*ret_ok = out->instance_statuses.count && out->instance_statuses.items[0].instance_status &&
		  str_eq(out->instance_statuses.items[0].instance_status->status, "ok");
	return 0;
}

/* An SSH server says "SSH-2.0-…" first. */
static bool ssh_answers(const char *address)
{
	_cleanup_(fd_closep) int fd =
	    socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(22)};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char hello[8] = "";

	if (fd < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1)
		return false;
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
		return false;
	return poll(&p, 1, 2000) == 1 && read(fd, hello, sizeof(hello) - 1) > 3 &&
	       str_prefix(hello, "SSH-");
}

static void say_stage(const struct first *f, const char *stage, char *last, size_t size,
		      int64_t began_ms)
{
	if (str_eq(last, stage))
		return;
	snprintf(last, size, "%s", stage);
	printf("  instance %s: %s (%.1f s)\n", f->instance_id, stage,
	       (double)(clock_mono_ms() - began_ms) / 1000);
	fflush(stdout);
}

static int start_instance(struct client *c, const struct first *f, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const char *ids[] = {f->instance_id};
	struct ec2_start_instances_request in = {.instance_ids = {true, 1, ids}};

	return client_ec2(c, "StartInstances", &in, a, NULL, e);
}

/* One round of waiting: *ret_done when the guest answers. */
static int look(struct client *c, const struct settings *s, struct first *f, char *last,
		size_t size, int64_t began_ms, bool *ret_done, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const char *state = "", *reason = "";
	bool ok = false;
	int r = look_at_instance(c, f, a, &state, &reason, e);

	if (r < 0)
		return r;
	if (str_eq(state, "terminated") || str_eq(state, "shutting-down"))
		return error_set(e, "InstanceFailed", "The instance %s ended: %s", f->instance_id,
				 reason);
	if (str_eq(state, "stopped")) /* it switched itself off, or somebody stopped it */
		return start_instance(c, f, e);
	if (!str_eq(state, "running")) {
		say_stage(f, state, last, size, began_ms);
		return 0;
	}
	r = look_at_status(c, f, a, &ok, e);
	if (r < 0)
		return r;
	*ret_done = is_fake(s) ? ok : ssh_answers(f->address);
	say_stage(f,
		  *ret_done ? "answers"
		  : ok	    ? "reachable, its SSH server not yet"
			    : "running, booting",
		  last, size, began_ms);
	return 0;
}

static int wait_ready(struct client *c, const struct settings *s, struct first *f, struct error *e)
{
	int64_t began_ms = clock_mono_ms();
	char last[64] = "";
	bool done = false;

	while (clock_mono_ms() - began_ms < READY_TIMEOUT_MS) {
		int r = look(c, s, f, last, sizeof(last), began_ms, &done, e);

		if (r < 0 || done)
			return r;
		usleep(250000);
	}
	return error_set(
	    e, "TimedOut",
	    "The instance %s runs but does not answer after %d s; its console: mallee aws ec2 get-console-output --instance-id %s --output text",
	    f->instance_id, READY_TIMEOUT_MS / 1000, f->instance_id);
}

int first_make(struct client *c, const struct settings *s, struct first *f, struct error *e)
{
	int r = make_image(c, s, f, e);

	if (r == 0) {
		printf("  image tiny: %s\n", f->image_id);
		r = make_key(c, s, f, e);
	}
	if (r == 0) {
		printf("  key pair " KEY_NAME ": %s\n", f->key_path);
		r = run_instance(c, f, e);
	}
	return r < 0 ? r : wait_ready(c, s, f, e);
}

void first_done(struct first *f)
{
	free(f->key_path);
}
