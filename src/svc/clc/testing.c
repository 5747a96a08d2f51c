/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/text.h"
#include "gen/cluster.h"
#include "os/file.h"
#include "svc/clc/api.h"
#include "svc/clc/peer.h"
#include "svc/clc/dispatch.h"
#include "svc/clc/images.h"
#include "svc/clc/instances.h"
#include "svc/clc/inventory.h"
#include "svc/clc/testing.h"
#include "svc/clc/volumes.h"

/* ---- the cluster controller ---- */

static void *fake_reserve(struct fake_cluster *f, const struct cluster_reserve_capacity_request *in,
			  struct arena *a, struct error *e)
{
	struct cluster_reserve_capacity_response *out =
	    arena_new_struct(a, struct cluster_reserve_capacity_response);
	size_t n = MIN_OF(in->instances.count, f->capacity);

	if ((int64_t)n < in->min_count.value) {
		error_set(e, "InsufficientInstanceCapacity", "no room for %zu",
			  in->instances.count);
		return NULL;
	}
	out->placements.set = true;
	out->placements.count = n;
	out->placements.items = arena_new_array(a, struct cluster_placement, n);
	for (size_t i = 0; i < n; i++) {
		const struct cluster_capacity_request *want = &in->instances.items[i];

		out->placements.items[i] = (struct cluster_placement){
		    .instance_id = want->instance_id,
		    .node_id = f->place_on     ? f->place_on
			       : want->node_id ? want->node_id
					       : "n1"};
	}
	return out;
}

static void *fake_apply(struct fake_cluster *f, const struct shared_apply_instances_request *in,
			struct arena *a)
{
	const struct shared_apply_instances_request *copy =
	    wire_copy(f->arena, &shared_shape_apply_instances_request, in);
	struct shared_apply_instances_response *out =
	    arena_new_struct(a, struct shared_apply_instances_response);

	f->applied++;
	f->full_applied += in->full.set && in->full.value;
	f->spec_count = copy->instances.count;
	f->specs = copy->instances.items;
	out->epoch = f->epoch;
	return out;
}

static void *fake_describe(struct fake_cluster *f,
			   const struct shared_describe_instances_request *in, struct arena *a)
{
	struct shared_describe_instances_response *out =
	    arena_new_struct(a, struct shared_describe_instances_response);
	bool full = !str_eq(in->epoch, f->epoch);

	out->epoch = f->epoch;
	out->revision = WIRE_INT_OF(f->revision);
	out->full = WIRE_BOOL_OF(full);
	out->instances.set = true;
	out->instances.items = arena_new_array(a, struct shared_instance_observed, FAKE_MAX);
	for (size_t i = 0; i < f->observed_count; i++)
		if (full || f->observed[i].revision.value > in->since_revision.value)
			out->instances.items[out->instances.count++] = f->observed[i];
	return out;
}

static void *fake_forget(struct fake_cluster *f, const struct shared_forget_instances_request *in,
			 struct arena *a)
{
	for (size_t i = 0; i < in->instance_ids.count && f->forgotten_count < FAKE_MAX; i++)
		snprintf(f->forgotten[f->forgotten_count++], ID_LEN, "%s",
			 in->instance_ids.items[i]);
	return arena_alloc(a, 1);
}

static int fake_transport(void *ctx, const char *action, const void *in, struct arena *a,
			  void **ret_out, int timeout_ms, struct error *e)
{
	struct fake_cluster *f = ctx;
	void *out = NULL;

	assert_true(timeout_ms > 0);
	if (f->fail)
		return error_set(e, f->fail, "as the test wants it");
	if (str_eq(action, "ReserveCapacity"))
		out = fake_reserve(f, in, a, e);
	else if (str_eq(action, "ApplyInstances"))
		out = fake_apply(f, in, a);
	else if (str_eq(action, "DescribeInstances"))
		out = fake_describe(f, in, a);
	else if (str_eq(action, "ForgetInstances"))
		out = fake_forget(f, in, a);
	else if (str_eq(action, "GetConsoleOutput")) {
		struct shared_get_console_output_response *got =
		    arena_new_struct(a, struct shared_get_console_output_response);
		got->output = (struct wire_blob){.data = "login: ", .len = 7};
		got->timestamp = WIRE_TIME_OF(1000);
		out = got;
	} else {
		fail_msg("unexpected message %s", action);
	}
	*ret_out = out;
	return out ? 0 : -EREMOTEIO;
}

/* ---- the storage controller ---- */

static void *fake_apply_storage(struct fake_storage *f,
				const struct storage_apply_storage_request *in, struct arena *a)
{
	const struct storage_apply_storage_request *copy =
	    wire_copy(f->arena, &storage_shape_apply_storage_request, in);
	struct storage_apply_storage_response *out =
	    arena_new_struct(a, struct storage_apply_storage_response);

	f->applied++;
	f->full_applied += in->full.set && in->full.value;
	f->volume_count = copy->volumes.count;
	f->volumes = copy->volumes.items;
	f->snapshot_count = copy->snapshots.count;
	f->snapshots = copy->snapshots.items;
	out->epoch = f->epoch;
	return out;
}

static void *fake_describe_storage(struct fake_storage *f,
				   const struct storage_describe_storage_request *in,
				   struct arena *a)
{
	struct storage_describe_storage_response *out =
	    arena_new_struct(a, struct storage_describe_storage_response);
	bool full = !str_eq(in->epoch, f->epoch);

	out->epoch = f->epoch;
	out->revision = WIRE_INT_OF(f->revision);
	out->full = WIRE_BOOL_OF(full);
	out->volumes.set = out->snapshots.set = true;
	out->volumes.items = arena_new_array(a, struct storage_volume_observed, FAKE_MAX);
	out->snapshots.items = arena_new_array(a, struct storage_snapshot_observed, FAKE_MAX);
	for (size_t i = 0; i < f->seen_volume_count; i++)
		if (full || f->seen_volumes[i].revision.value > in->since_revision.value)
			out->volumes.items[out->volumes.count++] = f->seen_volumes[i];
	for (size_t i = 0; i < f->seen_snapshot_count; i++)
		if (full || f->seen_snapshots[i].revision.value > in->since_revision.value)
			out->snapshots.items[out->snapshots.count++] = f->seen_snapshots[i];
	return out;
}

static void *fake_forget_storage(struct fake_storage *f,
				 const struct storage_forget_storage_request *in, struct arena *a)
{
	const struct wire_string_list *lists[] = {&in->volume_ids, &in->snapshot_ids};

	for (size_t n = 0; n < ARRAY_SIZE(lists); n++)
		for (size_t i = 0; i < lists[n]->count && f->forgotten_count < FAKE_MAX; i++)
			snprintf(f->forgotten[f->forgotten_count++], ID_LEN, "%s",
				 lists[n]->items[i]);
	return arena_alloc(a, 1);
}

static int storage_transport(void *ctx, const char *action, const void *in, struct arena *a,
			     void **ret_out, int timeout_ms, struct error *e)
{
	struct fake_storage *f = ctx;

	assert_true(timeout_ms > 0);
	if (f->fail)
		return error_set(e, f->fail, "as the test wants it");
	if (f->stop_after && f->applied >= f->stop_after)
		return error_set(e, "ServiceUnavailable", "that was enough");
	if (str_eq(action, "ApplyStorage"))
		*ret_out = fake_apply_storage(f, in, a);
	else if (str_eq(action, "DescribeStorage"))
		*ret_out = fake_describe_storage(f, in, a);
	else if (str_eq(action, "ForgetStorage"))
		*ret_out = fake_forget_storage(f, in, a);
	else
		fail_msg("unexpected message %s", action);
	return 0;
}

/* ---- the fixture ---- */

struct fixture *fixture_new(void)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char folder[] = "/tmp/mallee-clc-test-XXXXXX", path[64];
	struct error e = {0};

	assert_non_null(f);
	assert_non_null(mkdtemp(folder));
	f->folder = strdup(folder);
	setenv("MALLEE_STATE", folder, 1);
	setenv("MALLEE_SUBNET", "10.77.0.0/20", 1);
	setenv("MALLEE_HYPERVISOR", "fake", 1);
	assert_int_equal(settings_load(&f->settings, &e), 0);
	f->arena = arena_new();
	f->cluster = (struct fake_cluster){
	    .epoch = "e1", .capacity = FAKE_MAX, .revision = 1, .arena = f->arena};
	f->storage = (struct fake_storage){.epoch = "s1", .revision = 1, .arena = f->arena};
	struct clc *c = &f->clc;
	c->settings = f->settings;
	c->region = settings_get(f->settings, SETTING_REGION);
	c->zone = settings_get(f->settings, SETTING_ZONE);
	c->network = (struct clc_network){.set = true,
					  .network = 0x0a4d0000,
					  .gateway = 0x0a4d0001,
					  .prefix = 20,
					  .cidr = "10.77.0.0/20",
					  .gateway_ip = "10.77.0.1"};
	c->metrics = metrics_new(clc_metrics, METRIC_COUNT);
	c->start_time_ms = clock_unix_ms();
	snprintf(path, sizeof(path), "%s/clc.db", folder);
	assert_int_equal(state_open(path, &c->state, &e), 0);
	assert_int_equal(account_ensure_default(c, &e), 0);
	assert_int_equal(account_by_name(c, f->arena, DEFAULT_ACCOUNT, &f->account, &e), 0);
	c->cluster = peer_new_with(fake_transport, &f->cluster);
	c->storage = peer_new_with(storage_transport, &f->storage);
	assert_int_equal(inventory_load(c, &c->inventory, &e), 0);
	return f;
}

void fixture_free(struct fixture *f)
{
	peer_free(f->clc.cluster);
	peer_free(f->clc.storage);
	inventory_free(f->clc.inventory);
	state_close(f->clc.state);
	metrics_free(f->clc.metrics);
	settings_free(f->settings);
	arena_free(f->arena);
	dir_remove(f->folder);
	free(f->folder);
	free(f);
}

const char *fixture_call(struct fixture *f, const struct account *as, const char *query,
			 struct buf *reply)
{
	const char *text = arena_printf(f->arena, "Version=2016-11-15&%s", query);
	struct ec2_call *call = arena_new_struct(f->arena, struct ec2_call);
	struct wire_params params;
	const char *action = NULL;

	*call = (struct ec2_call){.clc = &f->clc,
				  .arena = f->arena,
				  .account_id = as->record->account_id,
				  .account_name = as->record->name,
				  .arn = as->arn,
				  .access_key_id = as->key->access_key_id,
				  .request_id = "request",
				  .now_ms = clock_unix_ms()};
	buf_reset(reply);
	int r = wire_params_parse(f->arena, text, strlen(text), &params, &call->error);
	if (r >= 0)
		r = api_dispatch(call, api_service_find("ec2"), &params, &action, reply);
	assert_false(call->in_transaction);
	assert_int_equal(r < 0, error_is_set(&call->error));
	return call->error.code;
}

const char *fixture_image(struct fixture *f, const struct account *owner, int64_t size_bytes)
{
	struct error e = {0};
	char id[ID_LEN];

	id_new("ami", id);
	const struct records_image image = {
	    .image_id = arena_strdup(f->arena, id),
	    .account_id = owner->record->account_id,
	    .name = id,
	    .image_location = "images/tiny.raw",
	    .state = "available",
	    .architecture = "x86_64",
	    .root_device_name = "/dev/sda1",
	    .root_device_type = "instance-store",
	    .virtualization_type = "hvm",
	    .size_bytes = WIRE_INT_OF(size_bytes),
	    .sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	    .create_time = WIRE_TIME_OF(clock_unix_ms()),
	};
	assert_int_equal(record_put(&f->clc, KIND_IMAGE, image.account_id, image.image_id,
				    image.name, &image, &e),
			 0);
	return image.image_id;
}

const char *fixture_snapshot(struct fixture *f, const struct account *owner, int64_t gib)
{
	struct error e = {0};
	char id[ID_LEN];

	id_new("snap", id);
	struct records_snapshot s = {
	    .snapshot_id = arena_strdup(f->arena, id),
	    .account_id = owner->record->account_id,
	    .volume_id = NO_VOLUME_ID,
	    .volume_size_gib = WIRE_INT_OF(gib),
	    .state = snapshot_state_name(SNAPSHOT_COMPLETED),
	    .progress = WIRE_INT_OF(100),
	    .start_time = WIRE_TIME_OF(clock_unix_ms()),
	    .begin_time = WIRE_TIME_OF(clock_unix_ms()),
	    .wanted = WANTED_COMPLETED,
	};
	assert_int_equal(snapshot_store(&f->clc, &s, true, &e), 0);
	return s.snapshot_id;
}

const char *fixture_ebs_image(struct fixture *f, const struct account *owner, int64_t gib)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	const char *snapshot = fixture_snapshot(f, owner, gib);
	const char *query =
	    arena_printf(f->arena,
			 "Action=RegisterImage&Name=of-%s&RootDeviceName=/dev/sda1&"
			 "BlockDeviceMapping.1.DeviceName=/dev/sda1&"
			 "BlockDeviceMapping.1.Ebs.SnapshotId=%s",
			 snapshot, snapshot);

	assert_string_equal(fixture_call(f, owner, query, &reply), "");
	return fixture_element(f, reply.data, "imageId", 0);
}

const char *fixture_run_ebs(struct fixture *f, const char *extra)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	struct error e = {0};
	const char *query =
	    arena_printf(f->arena,
			 "Action=RunInstances&ImageId=%s&InstanceType=t2.nano&MinCount=1&"
			 "MaxCount=1%s",
			 fixture_ebs_image(f, &f->account, 1), extra);

	assert_string_equal(fixture_call(f, &f->account, query, &reply), "");
	const char *id = fixture_element(f, reply.data, "instanceId", 0);
	struct records_instance *rec = fixture_instance(f, id);
	rec->state = instance_state_name(INSTANCE_RUNNING);
	assert_int_equal(record_put(&f->clc, KIND_INSTANCE, rec->account_id, id, NULL, rec, &e), 0);
	return id;
}

static void *get_record(struct fixture *f, enum clc_kind kind, const char *id)
{
	struct error e = {0};
	struct record r;
	int n = record_get(&f->clc, f->arena, kind, id, &r, &e);

	assert_true(n == 0 || n == -ENOENT);
	return n == 0 ? r.value : NULL;
}

struct records_image *fixture_get_image(struct fixture *f, const char *id)
{
	return get_record(f, KIND_IMAGE, id);
}

struct records_snapshot *fixture_get_snapshot(struct fixture *f, const char *id)
{
	return get_record(f, KIND_SNAPSHOT, id);
}

struct records_volume *fixture_get_volume(struct fixture *f, const char *id)
{
	return get_record(f, KIND_VOLUME, id);
}

const char *fixture_element(struct fixture *f, const char *xml, const char *name, size_t n)
{
	const char *open = arena_printf(f->arena, "<%s>", name);
	const char *close = arena_printf(f->arena, "</%s>", name);

	for (const char *p = xml; (p = strstr(p, open)); p++) {
		if (n--)
			continue;
		p += strlen(open);
		return arena_strndup(f->arena, p, (size_t)(strstr(p, close) - p));
	}
	return NULL;
}

void fixture_run(struct fixture *f, size_t count, const char *extra, const char **ids)
{
	const char *image = fixture_image(f, &f->account, 1 << 20);
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	const char *query =
	    arena_printf(f->arena,
			 "Action=RunInstances&ImageId=%s&InstanceType=t2.nano&MinCount=%zu&"
			 "MaxCount=%zu%s",
			 image, count, count, extra);

	assert_string_equal(fixture_call(f, &f->account, query, &reply), "");
	for (size_t i = 0; i < count; i++)
		ids[i] = fixture_element(f, reply.data, "instanceId", i);
}

struct records_instance *fixture_instance(struct fixture *f, const char *id)
{
	return get_record(f, KIND_INSTANCE, id);
}

void fixture_report(struct fixture *f, const char *id, const char *state)
{
	struct fake_cluster *c = &f->cluster;
	struct records_instance *rec = fixture_instance(f, id);
	size_t i = 0;

	while (i < c->observed_count && !str_eq(c->observed[i].instance_id, id))
		i++;
	assert_true(i < FAKE_MAX);
	if (i == c->observed_count)
		c->observed_count++;
	const struct shared_block_device_observed_list devices = c->observed[i].block_devices;
	c->observed[i] = (struct shared_instance_observed){
	    .instance_id = arena_strdup(f->arena, id),
	    .node_id = "n1",
	    .generation = rec ? rec->generation : WIRE_INT_OF(1),
	    .state = state,
	    .revision = WIRE_INT_OF(++c->revision),
	    .block_devices = devices,
	};
}

void fixture_report_device(struct fixture *f, const char *id, const char *volume_id,
			   const char *state)
{
	struct fake_cluster *c = &f->cluster;
	struct records_instance *rec = fixture_instance(f, id);
	const struct records_instance_block_device *d = device_of_volume(rec, volume_id);
	size_t i = 0, n = 0;

	while (i < c->observed_count && !str_eq(c->observed[i].instance_id, id))
		i++;
	assert_true(i < c->observed_count);
	struct shared_block_device_observed_list *l = &c->observed[i].block_devices;
	if (!l->items)
		l->items = arena_new_array(f->arena, struct shared_block_device_observed, FAKE_MAX);
	while (n < l->count && !str_eq(l->items[n].volume_id, volume_id))
		n++;
	if (state) {
		l->count = MAX_OF(l->count, n + 1);
		l->items[n] = (struct shared_block_device_observed){
		    .volume_id = arena_strdup(f->arena, volume_id),
		    .generation = d ? d->generation : WIRE_INT_OF(1),
		    .state = state,
		};
	} else if (n < l->count) {
		l->items[n] = l->items[--l->count];
	}
	c->observed[i].revision = WIRE_INT_OF(++c->revision);
}

const char *fixture_volume(struct fixture *f, int64_t gib)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	const char *query = arena_printf(
	    f->arena, "Action=CreateVolume&AvailabilityZone=%s&Size=%lld", f->clc.zone,
	    (long long)gib);
	struct error e = {0};

	assert_string_equal(fixture_call(f, &f->account, query, &reply), "");
	struct records_volume *v =
	    fixture_get_volume(f, fixture_element(f, reply.data, "volumeId", 0));
	volume_enter(v, VOLUME_AVAILABLE, clock_unix_ms());
	assert_int_equal(volume_store(&f->clc, v, false, &e), 0);
	return v->volume_id;
}

const char *fixture_volume_of(struct fixture *f, const char *instance_id, const char *device)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	const char *id = fixture_volume(f, 1);
	const char *query =
	    arena_printf(f->arena, "Action=AttachVolume&VolumeId=%s&InstanceId=%s&Device=%s", id,
			 instance_id, device);

	assert_string_equal(fixture_call(f, &f->account, query, &reply), "");
	return id;
}

struct storage_volume_observed *fixture_report_volume(struct fixture *f, const char *id,
						      const char *state)
{
	struct fake_storage *s = &f->storage;
	const struct records_volume *v = fixture_get_volume(f, id);
	size_t i = 0;

	while (i < s->seen_volume_count && !str_eq(s->seen_volumes[i].volume_id, id))
		i++;
	assert_true(i < FAKE_MAX);
	s->seen_volume_count = MAX_OF(s->seen_volume_count, i + 1);
	s->seen_volumes[i] = (struct storage_volume_observed){
	    .volume_id = arena_strdup(f->arena, id),
	    .generation = v ? v->generation : WIRE_INT_OF(1),
	    .state = state,
	    .size_bytes = WIRE_INT_OF(v ? volume_wanted_shape(v).size_gib << 30 : 0),
	    .limits = WIRE_BOOL_OF(true),
	    .revision = WIRE_INT_OF(++s->revision),
	};
	return &s->seen_volumes[i];
}

struct storage_snapshot_observed *fixture_report_snapshot(struct fixture *f, const char *id,
							  const char *state)
{
	struct fake_storage *s = &f->storage;
	const struct records_snapshot *rec = fixture_get_snapshot(f, id);
	size_t i = 0;

	while (i < s->seen_snapshot_count && !str_eq(s->seen_snapshots[i].snapshot_id, id))
		i++;
	assert_true(i < FAKE_MAX);
	s->seen_snapshot_count = MAX_OF(s->seen_snapshot_count, i + 1);
	s->seen_snapshots[i] = (struct storage_snapshot_observed){
	    .snapshot_id = arena_strdup(f->arena, id),
	    .generation = rec ? rec->generation : WIRE_INT_OF(1),
	    .state = state,
	    .revision = WIRE_INT_OF(++s->revision),
	};
	return &s->seen_snapshots[i];
}
