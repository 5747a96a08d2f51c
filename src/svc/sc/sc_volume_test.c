/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes: made, opened by who may, grown, limited, filled and deleted, with restarts of the controller in between. */
#include "svc/sc/sc_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "os/file.h"

#define V1 "vol-00000000000000001"
#define V2 "vol-00000000000000002"
#define S1 "snap-00000000000000001"
#define I1 "i-00000000000000001"
#define I2 "i-00000000000000002"

static const char *blockd;

static int set_up_fake(void **state)
{
	*state = sc_fixture_new(blockd, "fake");
	return 0;
}

static int set_up(void **state)
{
	*state = sc_fixture_new(blockd, "tcg");
	return 0;
}

static int tear_down(void **state)
{
	sc_fixture_free(*state);
	return 0;
}

static bool there(struct sc_fixture *f, const char *id, const char *file)
{
	char path[4096];

	sc_volume_path(f->sc, id, file, path, sizeof(path));
	return access(path, F_OK) == 0;
}

static void test_life(void **state)
{
	struct sc_fixture *f = *state;
	struct storage_volume_observed v;

	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 8 * MIB });
	fix_await_volume(f, V1, "available");
	fix_volume_state(f, V1, &v);
	assert_int_equal(v.size_bytes.value, 8 * MIB);
	assert_int_equal(v.generation.value, 1);
	assert_true(v.limits.value);
	assert_true(there(f, V1, "data.raw") && there(f, V1, "changes.map.2"));
	sc_fixture_restart(f);
	assert_string_equal(fix_volume_state(f, V1, NULL), "available");
	f->generation = -1; /* an old specification is no news */
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 8 * MIB, .deleted = true });
	usleep(50000);
	assert_string_equal(fix_volume_state(f, V1, NULL), "available");
	fix_forget(f, V1, NULL); /* not over: stays */
	assert_string_equal(fix_volume_state(f, V1, NULL), "available");
	f->generation = 5;
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 8 * MIB, .deleted = true });
	fix_await_volume(f, V1, "deleted");
	assert_false(there(f, V1, NULL));
	sc_fixture_restart(f);
	assert_string_equal(fix_volume_state(f, V1, NULL), "deleted");
	fix_forget(f, V1, NULL);
	assert_string_equal(fix_volume_state(f, V1, NULL), "");
	sc_fixture_restart(f);
	assert_string_equal(fix_volume_state(f, V1, NULL), "");
}

static void *give_back_later(void *ctx)
{
	struct sc *sc = ctx;

	usleep(200000);
	pthread_mutex_lock(&sc->lock);
	struct sc_item *item = sc_find(sc, V1);
	pthread_mutex_unlock(&sc->lock);
	sc_give_back(sc, item, false);
	return NULL;
}

/* Whoever is at it when it is forgotten is waited for: what comes then makes it anew. */
static void test_forgotten_while_busy(void **state)
{
	struct sc_fixture *f = *state;
	struct storage_forget_storage_request in = { .volume_ids = { .set = true, .count = 1, .items = &(const char *){ V1 } } };
	struct error e = { 0 };
	pthread_t thread;
	bool known;

	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = MIB });
	fix_await_volume(f, V1, "available");
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = MIB, .deleted = true });
	fix_await_volume(f, V1, "deleted");
	assert_non_null(sc_take(f->sc, V1, 10000, &known));
	assert_int_equal(storage_forget_storage(f->sc, f->arena, NULL, &in, &e), -EBUSY);
	assert_string_equal(e.code, "ServiceUnavailable");
	assert_string_equal(fix_volume_state(f, V1, NULL), "deleted");
	assert_int_equal(pthread_create(&thread, NULL, give_back_later, f->sc), 0);
	fix_forget(f, V1, NULL);
	assert_string_equal(fix_volume_state(f, V1, NULL), "");
	pthread_join(thread, NULL);
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 2 * MIB });
	fix_await_volume(f, V1, "available");
	sc_fixture_restart(f);
	fix_await_volume(f, V1, "available");
}

static void test_long_poll(void **state)
{
	struct sc_fixture *f = *state;
	struct storage_describe_storage_request in = { 0 };
	struct storage_describe_storage_response out = { 0 };
	struct error e = { 0 };

	assert_int_equal(storage_describe_storage(f->sc, f->arena, NULL, &in, &out, &e), 0);
	assert_true(out.full.value);
	in = (struct storage_describe_storage_request){ .epoch = out.epoch, .since_revision = out.revision, .wait_ms = WIRE_INT_OF(100) };
	int64_t before = clock_mono_ms();
	assert_int_equal(storage_describe_storage(f->sc, f->arena, NULL, &in, &out, &e), 0);
	assert_in_range(clock_mono_ms() - before, 80, 5000);
	assert_int_equal(out.volumes.count, 0);
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = MIB });
	in.wait_ms = WIRE_INT_OF(20000);
	assert_int_equal(storage_describe_storage(f->sc, f->arena, NULL, &in, &out, &e), 0);
	assert_false(out.full.value);
	assert_int_equal(out.volumes.count, 1);
	in.wait_ms = WIRE_INT_OF(20001);
	assert_int_not_equal(storage_describe_storage(f->sc, f->arena, NULL, &in, &out, &e), 0);
	assert_string_equal(e.code, "InvalidParameterValue");
}

static void refused(struct sc_fixture *f, const char *volume, const char *instance, int64_t generation, const char *code)
{
	struct storage_open_volume_response out;
	struct error e = { 0 };

	assert_int_not_equal(fix_open(f, volume, instance, generation, &out, &e), 0);
	assert_string_equal(e.code, code);
}

static int close_as(struct sc_fixture *f, const char *node, int64_t generation, struct error *e)
{
	struct tls_identity peer = { .role = TLS_ROLE_NC };
	struct storage_volume_holder in = { .volume_id = V1, .node_id = "n1", .generation = WIRE_INT_OF(generation) };

	strcpy(peer.id, node);
	return storage_close_volume(f->sc, f->arena, &peer, &in, e);
}

static int release_as(struct sc_fixture *f, const char *node, int64_t generation, struct error *e)
{
	struct tls_identity peer = { .role = TLS_ROLE_NC };
	struct storage_volume_holder in = { .volume_id = V1, .node_id = "n1", .generation = WIRE_INT_OF(generation) };

	strcpy(peer.id, node);
	return storage_release_volume(f->sc, f->arena, &peer, &in, e);
}

static void test_who_may_open(void **state)
{
	struct sc_fixture *f = *state;
	struct storage_open_volume_response one, two;
	struct storage_open_volume_request other = { .volume_id = V1, .instance_id = I1, .node_id = "n1", .generation = WIRE_INT_OF(7),
						     .node_url = "https://127.0.0.1:1" };
	const struct tls_identity n2 = { .role = TLS_ROLE_NC, .id = "n2" };
	struct error e = { 0 };

	refused(f, V1, I1, 7, "VolumeNotReady");
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 4 * MIB });
	fix_await_volume(f, V1, "available");
	refused(f, V1, I1, 7, "VolumeNotReady"); /* not heard of yet */
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 4 * MIB, .instance = I1, .attachment = 7, .iops = 100 });
	refused(f, V1, I2, 7, "StaleAttachment");
	refused(f, V1, I1, 6, "StaleAttachment");
	assert_int_not_equal(storage_open_volume(f->sc, f->arena, &n2, &other, &one, &e), 0);
	assert_string_equal(e.code, "StaleAttachment");
	error_clear(&e);
	assert_int_equal(fix_open(f, V1, I1, 7, &one, &e), 0);
	/* Changed limits: asked again, the answer is the same. */
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 4 * MIB, .instance = I1, .attachment = 7, .iops = 200 });
	sc_fixture_restart(f);
	assert_int_equal(fix_open(f, V1, I1, 7, &two, &e), 0);
	assert_string_equal(one.back, two.back);
	assert_string_equal(one.snap, two.snap);
	assert_string_equal(one.cow, two.cow);
	assert_string_equal(one.throttle, two.throttle);
	assert_non_null(strstr(one.throttle, "iops=100,"));
	assert_int_equal(one.files.count, 4);
	/* About to be closed there, and wanted again before it was. */
	assert_int_equal(release_as(f, "n1", 7, &e), 0);
	assert_int_equal(fix_open(f, V1, I1, 7, &two, &e), 0);
	assert_string_equal(one.back, two.back);
	/* The next attachment waits until this one is closed, which only its node can do. */
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 4 * MIB, .instance = I2, .attachment = 8 });
	refused(f, V1, I2, 8, "VolumeInUse");
	refused(f, V1, I1, 7, "StaleAttachment");
	assert_int_not_equal(close_as(f, "n2", 7, &e), 0);
	error_clear(&e);
	assert_int_equal(close_as(f, "n1", 6, &e), 0); /* was closed before */
	refused(f, V1, I2, 8, "VolumeInUse");
	assert_int_equal(close_as(f, "n1", 7, &e), 0);
	assert_int_equal(fix_open(f, V1, I2, 8, &two, &e), 0);
	/* Deleted while it is open: when it is closed. */
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 4 * MIB, .deleted = true });
	fix_await_volume(f, V1, "deleting");
	sc_fixture_restart(f);
	usleep(100000);
	assert_string_equal(fix_volume_state(f, V1, NULL), "deleting");
	assert_true(there(f, V1, "data.raw"));
	assert_int_equal(close_as(f, "n1", 8, &e), 0);
	fix_await_volume(f, V1, "deleted");
	refused(f, V1, I2, 8, "StaleAttachment");
}

/* Also if that room is there by now: who was told so has taken the volume for what it was. */
static void stays_refused(struct sc_fixture *f, uint64_t size)
{
	struct storage_volume_observed v;

	fix_volume_state(f, V1, &v);
	assert_true(v.refused.value);
	assert_int_equal(v.generation.value, f->generation);
	assert_non_null(strstr(v.reason, "InsufficientVolumeCapacity"));
	assert_string_equal(v.state, "available");
	assert_int_equal(v.size_bytes.value, size);
}

static bool is_refused(struct sc_fixture *f, const void *arg)
{
	struct storage_volume_observed v = { 0 };

	fix_volume_state(f, V1, &v);
	return v.refused.value;
}

static bool has_size(struct sc_fixture *f, const void *arg)
{
	struct storage_volume_observed v = { 0 };

	fix_volume_state(f, V1, &v);
	return v.size_bytes.value == *(const int64_t *)arg;
}

static void test_refused_growth(void **state)
{
	struct sc_fixture *f = *state;
	struct storage_get_status_response st = { 0 };
	struct storage_volume_observed v;

	sc_status(f->sc, f->arena, &st);
	uint64_t half = (uint64_t)st.pools.items[0].free_bytes.value / 2 / MIB * MIB;
	int64_t more = 2 * MIB;
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = MIB });
	fix_volume(f, &(struct fix_volume){ .id = V2, .size_bytes = half });
	fix_await_volume(f, V1, "available");
	fix_await_volume(f, V2, "available");
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = half / 4 * 6 });
	assert_true(fix_until(is_refused, f, NULL));
	stays_refused(f, MIB);
	int64_t generation = f->generation;
	fix_volume(f, &(struct fix_volume){ .id = V2, .size_bytes = half, .deleted = true });
	fix_await_volume(f, V2, "deleted");
	f->generation = generation;
	sc_fixture_restart(f);
	usleep(300000);
	stays_refused(f, MIB);
	/* As it was; and then a size that can be had. */
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = MIB });
	fix_volume_state(f, V1, &v);
	assert_false(v.refused.value);
	assert_null(v.reason);
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = (uint64_t)more });
	assert_true(fix_until(has_size, f, &more));
	fix_volume_state(f, V1, &v);
	assert_false(v.refused.value);
}

/* Begun, and cut off before that was recorded: the room is kept for it. */
static void test_growth_keeps_its_room(void **state)
{
	struct sc_fixture *f = *state;
	struct storage_get_status_response st = { 0 };
	struct error e = { 0 };

	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = MIB });
	fix_await_volume(f, V1, "available");
	sc_status(f->sc, f->arena, &st);
	int64_t size = st.pools.items[0].free_bytes.value / 4 * 3 / (int64_t)MIB * (int64_t)MIB;
	struct sc_volume_record rec = sc_find_volume(f->sc, V1)->rec;
	rec.growing_bytes = size;
	assert_int_equal(sc_store_volume(f->sc, V1, &rec, &e), 0);
	sc_fixture_restart(f);
	fix_volume(f, &(struct fix_volume){ .id = V2, .size_bytes = (uint64_t)size });
	fix_await_volume(f, V2, "error");
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = (uint64_t)size });
	assert_true(fix_until(has_size, f, &size));
}

static void test_capacity(void **state)
{
	struct sc_fixture *f = *state;
	struct storage_volume_observed v;
	struct storage_get_status_response st = { 0 };

	sc_status(f->sc, f->arena, &st);
	uint64_t room = (uint64_t)st.pools.items[0].free_bytes.value / MIB * MIB;
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = room / 2 / MIB * MIB });
	fix_await_volume(f, V1, "available");
	fix_volume(f, &(struct fix_volume){ .id = V2, .size_bytes = room / 4 * 3 / MIB * MIB });
	fix_await_volume(f, V2, "error");
	fix_volume_state(f, V2, &v);
	assert_non_null(strstr(v.reason, "InsufficientVolumeCapacity"));
	/* Growing beyond it is told, and the volume goes on. */
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = room * 2 });
	assert_true(fix_until(is_refused, f, NULL));
	stays_refused(f, room / 2 / MIB * MIB);
	fix_volume(f, &(struct fix_volume){ .id = V2, .size_bytes = MIB, .deleted = true });
	fix_await_volume(f, V2, "deleted");
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = MIB, .deleted = true });
	fix_await_volume(f, V1, "deleted");
	sc_status(f->sc, f->arena, &st);
	assert_int_equal(st.pools.items[0].used_bytes.value, 0);
}

static bool limits_hold(struct sc_fixture *f, const void *arg)
{
	struct storage_volume_observed v = { 0 };

	fix_volume_state(f, V1, &v);
	return v.generation.value == f->generation && v.limits.value;
}

static void test_growth_and_limits(void **state)
{
	struct sc_fixture *f = *state;
	unsigned char text[4096], back[4096];
	int64_t size = 8 * MIB;

	memset(text, 'x', sizeof(text));
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 4 * MIB, .instance = I1, .attachment = 1, .iops = 5000 });
	fix_await_volume(f, V1, "available");
	fix_attach(f, V1, I1, 1);
	fix_write(f, V1, 4 * MIB - 4096, text, 4096);
	/* Open: the node grows it. */
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = (uint64_t)size, .instance = I1, .attachment = 1, .iops = 6000 });
	assert_true(fix_until(has_size, f, &size));
	assert_true(fix_until(limits_hold, f, NULL));
	assert_int_equal(f->changes, 2);
	fix_write(f, V1, 8 * MIB - 4096, text, 4096);
	fix_detach(f, V1, 1);
	/* Nobody has it open: at once; the maps take it when it is opened. */
	size = 16 * MIB;
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = (uint64_t)size, .instance = I2, .attachment = 2 });
	assert_true(fix_until(has_size, f, &size));
	assert_int_equal(f->changes, 2);
	fix_attach(f, V1, I2, 2);
	fix_write(f, V1, 16 * MIB - 4096, text, 4096);
	fix_read(f, V1, 4 * MIB - 4096, back, 4096);
	assert_memory_equal(text, back, 4096);
	fix_read(f, V1, 12 * MIB, back, 4096);
	assert_true(back[0] == 0 && memcmp(back, back + 1, 4095) == 0);
	fix_detach(f, V1, 2);
}

static void make_source(struct sc_fixture *f, unsigned char *data, uint64_t size)
{
	uint64_t seed = 7;

	kit_fill(&seed, data, size);
	kit_snapshot(f->sc->store, S1, NULL, data, size);
	free(f->sc->export_back(f->sc, S1)); /* while nobody stops it */
}

static bool nothing_exported(struct sc_fixture *f, const void *arg)
{
	return keeper_list(f->sc->exports, NULL, 0) == 0;
}

static void test_from_snapshot(void **state)
{
	struct sc_fixture *f = *state;
	static unsigned char data[2 * MIB], back[2 * MIB];

	make_source(f, data, sizeof(data));
	fix_snapshot(f, &(struct fix_snapshot){ .id = S1, .copy_of = "snap-00000000000000009" }); /* there already: completed */
	fix_await_snapshot(f, S1, "completed");
	fix_volume(f, &(struct fix_volume){ .id = V1, .snapshot = S1, .size_bytes = MIB });
	fix_await_volume(f, V1, "error"); /* too small */
	fix_volume(f, &(struct fix_volume){ .id = V2, .snapshot = S1, .size_bytes = 4 * MIB, .instance = I1, .attachment = 1 });
	fix_await_volume(f, V2, "available");
	assert_int_equal(keeper_list(f->sc->exports, NULL, 0), 1);
	fix_attach(f, V2, I1, 1);
	fix_read(f, V2, 0, back, sizeof(back));
	assert_memory_equal(data, back, sizeof(back));
	fix_detach(f, V2, 1);
	/* Its snapshot is deleted: when it is not needed any more, which is when the volume was filled here. */
	fix_snapshot(f, &(struct fix_snapshot){ .id = S1, .deleted = true });
	usleep(100000);
	sc_fixture_restart(f);
	fix_volume(f, &(struct fix_volume){ .id = V2, .snapshot = S1, .size_bytes = 4 * MIB });
	fix_await_snapshot(f, S1, "deleted");
	assert_true(fix_until(nothing_exported, f, NULL));
	assert_int_equal(bucket_count(&f->bucket, "snapshots/"), 0);
	assert_int_equal(bucket_count(&f->bucket, "packs/"), 0);
	fix_volume(f, &(struct fix_volume){ .id = V2, .snapshot = S1, .size_bytes = 4 * MIB, .instance = I2, .attachment = 2 });
	fix_attach(f, V2, I2, 2);
	fix_read(f, V2, 0, back, sizeof(back));
	assert_memory_equal(data, back, sizeof(back));
	fix_detach(f, V2, 2);
	fix_volume(f, &(struct fix_volume){ .id = V1, .snapshot = S1, .size_bytes = 4 * MIB });
	fix_await_volume(f, V1, "error");
}

/* Both in one message, as the cloud controller sends them: no worker comes between. */
static void make_and_delete_source(struct sc_fixture *f)
{
	struct storage_volume_spec v = { .volume_id = V1, .generation = WIRE_INT_OF(++f->generation), .wanted = "available", .account_id = "1",
					 .size_bytes = WIRE_INT_OF(4 * MIB), .snapshot_id = S1, .volume_type = "gp3" };
	struct storage_snapshot_spec s = { .snapshot_id = S1, .generation = WIRE_INT_OF(++f->generation), .wanted = "deleted", .account_id = "1" };
	struct storage_apply_storage_request in = { .volumes = { .set = true, .count = 1, .items = &v },
						    .snapshots = { .set = true, .count = 1, .items = &s } };
	struct storage_apply_storage_response out = { 0 };
	struct error e = { 0 };

	assert_int_equal(storage_apply_storage(f->sc, f->arena, NULL, &in, &out, &e), 0);
}

static bool has_tried(struct sc_fixture *f, const void *arg)
{
	pthread_mutex_lock(&f->sc->lock);
	bool tried = sc_find_volume(f->sc, V1)->item.attempts > 0;
	pthread_mutex_unlock(&f->sc->lock);
	return tried;
}

/* The volume is made all the same: with the deletion before its first look, after one that failed, and after a restart. */
static void test_deleted_source(void **state)
{
	struct sc_fixture *f = *state;
	static unsigned char data[2 * MIB], back[2 * MIB];

	for (int i = 0; i < 3; i++) {
		make_source(f, data, sizeof(data));
		fix_snapshot(f, &(struct fix_snapshot){ .id = S1, .copy_of = "snap-00000000000000009" });
		fix_await_snapshot(f, S1, "completed");
		f->bucket.unreachable = i > 0;
		if (i == 0) {
			make_and_delete_source(f);
		} else {
			fix_volume(f, &(struct fix_volume){ .id = V1, .snapshot = S1, .size_bytes = 4 * MIB });
			assert_true(fix_until(has_tried, f, NULL));
			fix_snapshot(f, &(struct fix_snapshot){ .id = S1, .deleted = true });
		}
		if (i == 2)
			sc_fixture_restart(f);
		f->bucket.unreachable = false;
		fix_await_volume(f, V1, "available");
		fix_volume(f, &(struct fix_volume){ .id = V1, .snapshot = S1, .size_bytes = 4 * MIB, .instance = I1, .attachment = i + 1 });
		fix_attach(f, V1, I1, i + 1);
		fix_read(f, V1, 0, back, sizeof(back));
		assert_memory_equal(data, back, sizeof(back));
		fix_detach(f, V1, i + 1);
		fix_volume(f, &(struct fix_volume){ .id = V1, .snapshot = S1, .size_bytes = 4 * MIB, .deleted = true });
		fix_await_volume(f, V1, "deleted");
		fix_await_snapshot(f, S1, "deleted");
		fix_forget(f, V1, S1);
	}
}

/* Whatever it was doing when it was ended, the next one brings it to its end. */
static void test_restarts(void **state)
{
	struct sc_fixture *f = *state;
	static unsigned char data[2 * MIB];

	make_source(f, data, sizeof(data));
	for (unsigned i = 0; i < 16; i++) {
		fix_volume(f, &(struct fix_volume){ .id = V1, .snapshot = i % 2 ? S1 : NULL, .size_bytes = 4 * MIB });
		usleep(i * 6000);
		sc_fixture_restart(f);
		if (i % 3 == 0)
			fix_await_volume(f, V1, "available");
		fix_volume(f, &(struct fix_volume){ .id = V1, .snapshot = i % 2 ? S1 : NULL, .size_bytes = 4 * MIB, .deleted = true });
		usleep(i * 2000);
		sc_fixture_restart(f);
		fix_await_volume(f, V1, "deleted");
		assert_false(there(f, V1, NULL));
		fix_forget(f, V1, NULL);
	}
	assert_true(fix_until(nothing_exported, f, NULL));
}

/* ---- whole disks ---- */

/* A disk with somebody's bytes in its middle. */
static bool make_disk(const char *dir, const char *name, uint64_t size, char device[64])
{
	static char old[MIB];
	char path[128], command[256];

	memset(old, 'o', sizeof(old));
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(pwrite(fd, old, sizeof(old), 2 * MIB), (ssize_t)sizeof(old));
	close(fd);
	snprintf(command, sizeof(command), "losetup --find --show %s 2>/dev/null", path);
	FILE *out = popen(command, "re");
	bool works = out && fgets(device, 64, out);
	if (out)
		pclose(out);
	device[strcspn(device, "\n")] = '\0';
	return works && *device;
}

static void spoil(const char *device, uint64_t off)
{
	int fd = open(device, O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, "data", 4, (off_t)off), 4);
	assert_int_equal(fsync(fd), 0);
	close(fd);
}

static bool is_zero(const unsigned char *data, size_t len)
{
	return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

static void detach_disk(const char *device)
{
	char command[128];

	if (!*device)
		return;
	snprintf(command, sizeof(command), "losetup --detach %s", device);
	if (system(command))
		print_message("%s stays: losetup does not detach it\n", device);
}

static void use_disk(struct sc_fixture *f, const char *small)
{
	static unsigned char data[MIB], back[MIB];
	struct storage_open_volume_response out;
	struct error e = { 0 };
	int64_t size = 12 * MIB;

	memset(data, 'n', sizeof(data));
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 8 * MIB, .instance = I1, .attachment = 1 });
	fix_await_volume(f, V1, "available");
	fix_attach(f, V1, I1, 1);
	assert_int_equal(fix_open(f, V1, I1, 1, &out, &e), 0);
	assert_int_equal(out.files.count, 5);
	assert_string_equal(out.files.items[4], small);
	fix_read(f, V1, 2 * MIB, back, sizeof(back)); /* of whoever had the disk before */
	assert_true(is_zero(back, sizeof(back)));
	fix_write(f, V1, 7 * MIB, data, sizeof(data));
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = (uint64_t)size, .instance = I1, .attachment = 1 });
	assert_true(fix_until(has_size, f, &size));
	fix_write(f, V1, 11 * MIB, data, sizeof(data));
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 24 * MIB, .instance = I1, .attachment = 1 });
	assert_true(fix_until(is_refused, f, NULL));
	stays_refused(f, 12 * MIB);
	fix_detach(f, V1, 1);
	sc_fixture_restart(f);
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = (uint64_t)size, .instance = I1, .attachment = 2 });
	fix_attach(f, V1, I1, 2);
	fix_read(f, V1, 11 * MIB, back, sizeof(back));
	assert_memory_equal(data, back, sizeof(back));
	fix_write(f, V1, 0, data, sizeof(data));
	fix_detach(f, V1, 2);
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = (uint64_t)size, .deleted = true });
	fix_await_volume(f, V1, "deleted");
}

struct disks {
	struct sc_fixture *f;
	char dir[40], small[64], large[64];
};

static int set_up_disks(void **state)
{
	struct disks *d = calloc(1, sizeof(*d));
	char setting[160];

	*state = d;
	strcpy(d->dir, "/var/tmp/mallee-disks-XXXXXX");
	assert_non_null(mkdtemp(d->dir));
	if (!make_disk(d->dir, "small", 16 * MIB, d->small) || !make_disk(d->dir, "large", 32 * MIB, d->large))
		return 0;
	snprintf(setting, sizeof(setting), "disks:%s,%s", d->large, d->small);
	setenv("MALLEE_EBS_POOL", setting, 1);
	d->f = sc_fixture_new(blockd, "tcg");
	return 0;
}

/* Also when the test has failed. */
static int tear_down_disks(void **state)
{
	struct disks *d = *state;

	if (d->f)
		sc_fixture_free(d->f);
	unsetenv("MALLEE_EBS_POOL");
	detach_disk(d->small);
	detach_disk(d->large);
	dir_remove(d->dir);
	free(d);
	return 0;
}

static void test_disks(void **state)
{
	struct disks *d = *state;
	struct sc_fixture *f = d->f;
	struct storage_volume_observed v;

	if (!f) {
		print_message("skipped: no loop devices to be had\n");
		skip();
	}
	use_disk(f, d->small);
	/* Blank again, so that it is taken again; one that holds something is not. */
	spoil(d->large, 31 * MIB + 5000);
	fix_volume(f, &(struct fix_volume){ .id = V2, .size_bytes = 24 * MIB });
	fix_await_volume(f, V2, "error");
	fix_volume_state(f, V2, &v);
	assert_non_null(strstr(v.reason, "InsufficientVolumeCapacity"));
	assert_non_null(strstr(v.reason, "not blank"));
	fix_volume(f, &(struct fix_volume){ .id = "vol-00000000000000003", .size_bytes = 16 * MIB });
	fix_await_volume(f, "vol-00000000000000003", "available");
	fix_volume(f, &(struct fix_volume){ .id = "vol-00000000000000004", .size_bytes = MIB });
	fix_await_volume(f, "vol-00000000000000004", "error");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_life, set_up_fake, tear_down),
		cmocka_unit_test_setup_teardown(test_forgotten_while_busy, set_up_fake, tear_down),
		cmocka_unit_test_setup_teardown(test_long_poll, set_up_fake, tear_down),
		cmocka_unit_test_setup_teardown(test_who_may_open, set_up_fake, tear_down),
		cmocka_unit_test_setup_teardown(test_capacity, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_refused_growth, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_growth_keeps_its_room, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_growth_and_limits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_from_snapshot, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_deleted_source, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_restarts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_disks, set_up_disks, tear_down_disks),
	};

	blockd = argc > 1 ? argv[1] : "mallee-blockd";
	if (argc > 2)
		cmocka_set_test_filter(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
