/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of volumes against a model in memory: of open and of closed ones, several at once, with restarts and deaths. */
#include "svc/sc/sc_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"

#define V1 "vol-00000000000000001"
#define V2 "vol-00000000000000002"
#define I1 "i-00000000000000001"
#define SIZE (12 * MIB)

static const char *blockd;

static int set_up(void **state)
{
	*state = sc_fixture_new(blockd, "tcg");
	return 0;
}

static int set_up_fake(void **state)
{
	*state = sc_fixture_new(blockd, "fake");
	return 0;
}

static int tear_down(void **state)
{
	sc_fixture_free(*state);
	return 0;
}

/* ---- a guest and its model ---- */

struct model {
	struct sc_fixture *f;
	unsigned char *now;
	uint64_t seed;
};

static void scribble(struct model *m, unsigned times)
{
	static unsigned char data[200000];

	for (unsigned i = 0; i < times; i++) {
		uint64_t len = 4096 * (1 + bucket_random(&m->seed) % 40), off = bucket_random(&m->seed) % ((SIZE - len) / 4096) * 4096;
		bool zero = bucket_random(&m->seed) % 5 == 0;
		for (uint64_t k = 0; k < len; k++)
			data[k] = zero ? 0 : (unsigned char)(bucket_random(&m->seed) >> 32);
		fix_write(m->f, V1, off, data, len);
		memcpy(m->now + off, data, len);
	}
}

static void snap_id(unsigned i, char out[static ID_LEN])
{
	snprintf(out, ID_LEN, "snap-%017x", i);
}

static void check(struct sc_fixture *f, const char *id, const unsigned char *expected)
{
	unsigned char *data = malloc(SIZE);

	fix_read_snapshot(f, id, SIZE, data);
	for (uint64_t off = 0; off < SIZE; off += 4096) {
		if (memcmp(data + off, expected + off, 4096))
			fail_msg("%s differs at %llu", id, (unsigned long long)off);
	}
	free(data);
}

static unsigned char *copy(const unsigned char *data)
{
	unsigned char *c = malloc(SIZE);

	memcpy(c, data, SIZE);
	return c;
}

static bool has_begun(struct sc_fixture *f, const void *id)
{
	struct storage_snapshot_observed s = { 0 };

	fix_snapshot_state(f, id, &s);
	return s.begin_time.set;
}

static void open_volume(struct model *m, int64_t attachment)
{
	fix_volume(m->f, &(struct fix_volume){ .id = V1, .size_bytes = SIZE, .instance = I1, .attachment = attachment });
	fix_await_volume(m->f, V1, "available");
	fix_attach(m->f, V1, I1, attachment);
}

/* ---- tests ---- */

/* Snapshot upon snapshot while the guest writes on, two at once now and then; each holds what was there when it began. */
static void run_model(struct sc_fixture *f, bool restarts)
{
	enum { ROUNDS = 10 };
	struct model m = { .f = f, .now = calloc(1, SIZE), .seed = 42 };
	unsigned char *as_of[ROUNDS];
	char id[ID_LEN];

	open_volume(&m, 1);
	f->bucket.delay_us = 2000;
	for (unsigned i = 0; i < ROUNDS; i++) {
		scribble(&m, 6);
		snap_id(i, id);
		fix_snapshot(f, &(struct fix_snapshot){ .id = id, .volume = V1 });
		if (restarts && i % 2)
			sc_fixture_restart(f);
		assert_true(fix_until(has_begun, f, id));
		as_of[i] = copy(m.now);
		scribble(&m, 4);
		if (restarts && i % 3 == 1)
			sc_fixture_restart(f);
		if (i % 3 != 0)
			fix_await_snapshot(f, id, "completed");
		if (i == 5) { /* closed and opened again: what changed goes on to be known */
			fix_detach(f, V1, 1);
			open_volume(&m, 2);
		}
	}
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct snap_info info;
		struct error e = { 0 };
		snap_id(i, id);
		fix_await_snapshot(f, id, "completed");
		check(f, id, as_of[i]);
		assert_int_equal(snap_info(f->sc->store, id, &info, &e), 0);
		assert_true(i ? str_prefix(info.parent, "snap-") : !*info.parent);
		free(as_of[i]);
	}
	fix_detach(f, V1, 2);
	free(m.now);
}

static void test_model(void **state)
{
	run_model(*state, false);
}

static void test_model_with_restarts(void **state)
{
	run_model(*state, true);
}

static void test_of_a_closed_volume(void **state)
{
	struct sc_fixture *f = *state;
	struct model m = { .f = f, .now = calloc(1, SIZE), .seed = 3 };
	struct storage_snapshot_observed s;
	char one[ID_LEN], two[ID_LEN];
	struct snap_info info;
	struct error e = { 0 };

	snap_id(1, one);
	snap_id(2, two);
	open_volume(&m, 1);
	scribble(&m, 10);
	fix_detach(f, V1, 1);
	fix_snapshot(f, &(struct fix_snapshot){ .id = one, .volume = V1 });
	fix_await_snapshot(f, one, "completed");
	check(f, one, m.now);
	fix_snapshot_state(f, one, &s);
	assert_int_equal(s.progress.value, 100);
	assert_int_equal(s.size_bytes.value, SIZE);
	assert_true(s.data_bytes.value > 0 && s.begin_time.set);
	assert_int_equal(f->begins, 0); /* no node was asked */
	/* Nothing has changed: nothing is added. */
	fix_snapshot(f, &(struct fix_snapshot){ .id = two, .volume = V1 });
	fix_await_snapshot(f, two, "completed");
	check(f, two, m.now);
	assert_int_equal(snap_info(f->sc->store, two, &info, &e), 0);
	assert_string_equal(info.parent, one);
	assert_int_equal(info.added_bytes, 0);
	/* Deleted at once with its volume; the volume waits. */
	char three[ID_LEN];
	snap_id(3, three);
	f->bucket.delay_us = 20000;
	fix_snapshot(f, &(struct fix_snapshot){ .id = three, .volume = V1 });
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = SIZE, .deleted = true });
	fix_await_snapshot(f, three, "completed");
	fix_await_volume(f, V1, "deleted");
	check(f, three, m.now);
	free(m.now);
}

/* Frozen by us while nobody had it open, and opened before that is stored: the node gets it, and no guest before it is frozen there. */
static void test_opened_while_frozen(void **state)
{
	struct sc_fixture *f = *state;
	struct model m = { .f = f, .now = calloc(1, SIZE), .seed = 8 };
	struct storage_open_volume_response out;
	char one[ID_LEN], two[ID_LEN];
	struct error e = { 0 };

	snap_id(1, one);
	snap_id(2, two);
	open_volume(&m, 1);
	scribble(&m, 10);
	fix_detach(f, V1, 1);
	f->bucket.unreachable = true;
	fix_snapshot(f, &(struct fix_snapshot){ .id = one, .volume = V1 });
	fix_snapshot(f, &(struct fix_snapshot){ .id = two, .volume = V1 });
	assert_true(fix_until(has_begun, f, one) && fix_until(has_begun, f, two));
	unsigned char *then = copy(m.now);
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = SIZE, .instance = I1, .attachment = 2 });
	f->node_mute = true; /* it cannot be frozen there yet */
	fix_attach(f, V1, I1, 2);
	assert_int_equal(fix_open(f, V1, I1, 2, &out, &e), 0);
	assert_true(out.held.value);
	sc_fixture_restart(f);
	assert_int_equal(fix_open(f, V1, I1, 2, &out, &e), 0);
	assert_true(out.held.value);
	f->node_mute = false;
	for (int i = 0; fix_open(f, V1, I1, 2, &out, &e) || out.held.value; i++) {
		assert_true(i < 3000);
		error_clear(&e);
		usleep(10000);
	}
	assert_int_equal(f->begins, 2);
	scribble(&m, 20); /* the guest's */
	f->bucket.unreachable = false;
	fix_await_snapshot(f, one, "completed");
	fix_await_snapshot(f, two, "completed");
	check(f, one, then);
	check(f, two, then);
	fix_detach(f, V1, 2);
	free(then);
	free(m.now);
}

/* A view dies with its volume's process. */
static void test_lost_view(void **state)
{
	struct sc_fixture *f = *state;
	struct model m = { .f = f, .now = calloc(1, SIZE), .seed = 4 };
	struct storage_snapshot_observed s = { 0 };
	char one[ID_LEN], two[ID_LEN];

	snap_id(1, one);
	snap_id(2, two);
	open_volume(&m, 1);
	scribble(&m, 10);
	f->bucket.unreachable = true;
	fix_snapshot(f, &(struct fix_snapshot){ .id = one, .volume = V1 });
	assert_true(fix_until(has_begun, f, one)); /* told */
	fix_kill(f, V1);
	usleep(300000);
	f->bucket.unreachable = false;
	fix_await_snapshot(f, one, "error");
	fix_snapshot_state(f, one, &s);
	assert_non_null(strstr(s.reason, "make another snapshot"));
	scribble(&m, 3);
	fix_snapshot(f, &(struct fix_snapshot){ .id = two, .volume = V1 });
	fix_await_snapshot(f, two, "completed");
	check(f, two, m.now);
	fix_snapshot(f, &(struct fix_snapshot){ .id = one, .deleted = true });
	fix_await_snapshot(f, one, "deleted");
	fix_detach(f, V1, 1);
	free(m.now);
}

/*
 * The node has ended the first of two views, and the answers are lost until it is given up: what changed before it began is in the
 * second one all the same.
 */
static void test_lost_answers(void **state)
{
	struct sc_fixture *f = *state;
	struct model m = { .f = f, .now = calloc(1, SIZE), .seed = 11 };
	char id[3][ID_LEN];

	for (unsigned i = 0; i < 3; i++)
		snap_id(i, id[i]);
	open_volume(&m, 1);
	scribble(&m, 5);
	fix_snapshot(f, &(struct fix_snapshot){ .id = id[0], .volume = V1 });
	fix_await_snapshot(f, id[0], "completed");
	f->bucket.unreachable = true;
	for (unsigned i = 1; i < 3; i++) {
		scribble(&m, 10);
		fix_snapshot(f, &(struct fix_snapshot){ .id = id[i], .volume = V1 });
		assert_true(fix_until(has_begun, f, id[i]));
	}
	f->lose_ends = 3;
	f->bucket.unreachable = false;
	fix_await_snapshot(f, id[2], "completed");
	check(f, id[2], m.now);
	fix_detach(f, V1, 1);
	free(m.now);
}

static void test_full_scratch(void **state)
{
	struct sc_fixture *f = *state;
	struct model m = { .f = f, .now = calloc(1, SIZE), .seed = 5 };
	char one[ID_LEN];
	unsigned char *data = malloc(SIZE);

	snap_id(1, one);
	open_volume(&m, 1);
	memset(data, 'a', SIZE);
	fix_write(f, V1, 0, data, SIZE);
	f->bucket.unreachable = true;
	pthread_mutex_lock(&f->sc->lock);
	pthread_mutex_unlock(&f->sc->lock);
	fix_snapshot(f, &(struct fix_snapshot){ .id = one, .volume = V1 });
	pthread_mutex_lock(&f->sc->lock);
	if (sc_find_snapshot(f->sc, one))
		sc_find_snapshot(f->sc, one)->scratch_bytes = 65536;
	pthread_mutex_unlock(&f->sc->lock);
	assert_true(fix_until(has_begun, f, one));
	memset(data, 'b', SIZE);
	fix_write(f, V1, 0, data, SIZE); /* the guest goes on */
	f->bucket.unreachable = false;
	for (int i = 0; i < 3000 && str_eq(fix_snapshot_state(f, one, NULL), "pending"); i++)
		usleep(10000);
	/* It was begun before the small room was set, or it has failed for want of it. */
	if (str_eq(fix_snapshot_state(f, one, NULL), "completed")) {
		memset(m.now, 'a', SIZE);
		check(f, one, m.now);
	}
	fix_detach(f, V1, 1);
	free(data);
	free(m.now);
}

static void *write_on(void *ctx)
{
	scribble(ctx, 40);
	return NULL;
}

/* Released while a snapshot is read from it: the node waits; nothing new is begun there meanwhile. */
static void test_release(void **state)
{
	struct sc_fixture *f = *state;
	struct model m = { .f = f, .now = calloc(1, SIZE), .seed = 6 };
	struct storage_volume_holder in = { .volume_id = V1, .node_id = "n1", .generation = WIRE_INT_OF(1) };
	const struct tls_identity n1 = { .role = TLS_ROLE_NC, .id = "n1" };
	char one[ID_LEN], two[ID_LEN];
	struct error e = { 0 };
	pthread_t guest;

	snap_id(1, one);
	snap_id(2, two);
	open_volume(&m, 1);
	scribble(&m, 10);
	unsigned char *then = copy(m.now);
	f->bucket.unreachable = true;
	fix_snapshot(f, &(struct fix_snapshot){ .id = one, .volume = V1 });
	assert_true(fix_until(has_begun, f, one));
	assert_int_equal(pthread_create(&guest, NULL, write_on, &m), 0);
	assert_int_not_equal(storage_release_volume(f->sc, f->arena, &n1, &in, &e), 0);
	assert_string_equal(e.code, "VolumeBusy");
	fix_snapshot(f, &(struct fix_snapshot){ .id = two, .volume = V1 });
	usleep(200000);
	assert_false(has_begun(f, two));
	pthread_join(guest, NULL);
	f->bucket.unreachable = false;
	fix_detach(f, V1, 1);
	fix_await_snapshot(f, one, "completed");
	check(f, one, then);
	fix_await_snapshot(f, two, "completed"); /* of the closed volume */
	check(f, two, m.now);
	free(then);
	free(m.now);
}

static void test_delete(void **state)
{
	struct sc_fixture *f = *state;
	struct model m = { .f = f, .now = calloc(1, SIZE), .seed = 8 };
	char id[5][ID_LEN];

	for (unsigned i = 0; i < 5; i++)
		snap_id(i, id[i]);
	open_volume(&m, 1);
	for (unsigned i = 0; i < 3; i++) {
		scribble(&m, 5);
		fix_snapshot(f, &(struct fix_snapshot){ .id = id[i], .volume = V1 });
		fix_await_snapshot(f, id[i], "completed");
	}
	/* The one in the middle goes, its children do not notice; the next one is based on one that is there. */
	unsigned char *third = copy(m.now);
	fix_snapshot(f, &(struct fix_snapshot){ .id = id[1], .deleted = true });
	fix_await_snapshot(f, id[1], "deleted");
	check(f, id[2], third);
	fix_snapshot(f, &(struct fix_snapshot){ .id = id[2], .deleted = true });
	fix_await_snapshot(f, id[2], "deleted");
	scribble(&m, 3);
	fix_snapshot(f, &(struct fix_snapshot){ .id = id[3], .volume = V1 });
	fix_await_snapshot(f, id[3], "completed");
	check(f, id[3], m.now);
	/* While it is on its way: its packs go with it. */
	f->bucket.delay_us = 30000;
	scribble(&m, 20);
	fix_snapshot(f, &(struct fix_snapshot){ .id = id[4], .volume = V1 });
	assert_true(fix_until(has_begun, f, id[4]));
	fix_snapshot(f, &(struct fix_snapshot){ .id = id[4], .deleted = true });
	fix_await_snapshot(f, id[4], "deleted");
	f->bucket.delay_us = 0;
	fix_snapshot(f, &(struct fix_snapshot){ .id = id[0], .deleted = true });
	fix_snapshot(f, &(struct fix_snapshot){ .id = id[3], .deleted = true });
	fix_await_snapshot(f, id[0], "deleted");
	fix_await_snapshot(f, id[3], "deleted");
	assert_int_equal(bucket_count(&f->bucket, "packs/"), 0);
	fix_detach(f, V1, 1);
	free(third);
	free(m.now);
}

static void test_copy(void **state)
{
	struct sc_fixture *f = *state;
	struct model m = { .f = f, .now = calloc(1, SIZE), .seed = 9 };
	char one[ID_LEN], two[ID_LEN], three[ID_LEN];

	snap_id(1, one);
	snap_id(2, two);
	snap_id(3, three);
	open_volume(&m, 1);
	scribble(&m, 5);
	fix_snapshot(f, &(struct fix_snapshot){ .id = one, .volume = V1 });
	fix_snapshot(f, &(struct fix_snapshot){ .id = two, .copy_of = one }); /* waits for it */
	fix_await_snapshot(f, two, "completed");
	check(f, two, m.now);
	fix_snapshot(f, &(struct fix_snapshot){ .id = three, .copy_of = "snap-0ffffffffffffffff" });
	fix_await_snapshot(f, three, "error");
	fix_snapshot(f, &(struct fix_snapshot){ .id = one, .deleted = true });
	fix_await_snapshot(f, one, "deleted");
	check(f, two, m.now);
	fix_detach(f, V1, 1);
	free(m.now);
}

/* With the fake hypervisor who has it open serves nothing: it is read here. */
static void test_fake(void **state)
{
	struct sc_fixture *f = *state;
	struct storage_open_volume_response out;
	unsigned char *zero = calloc(1, SIZE);
	char one[ID_LEN];
	struct error e = { 0 };

	snap_id(1, one);
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = SIZE, .instance = I1, .attachment = 1 });
	fix_await_volume(f, V1, "available");
	while (fix_open(f, V1, I1, 1, &out, &e))
		error_clear(&e);
	fix_snapshot(f, &(struct fix_snapshot){ .id = one, .volume = V1 });
	fix_await_snapshot(f, one, "completed");
	check(f, one, zero);
	free(zero);
	fix_snapshot(f, &(struct fix_snapshot){ .id = "snap-0000000000000000f", .volume = "vol-0000000000000000f" });
	fix_await_snapshot(f, "snap-0000000000000000f", "error");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_model, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_model_with_restarts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_of_a_closed_volume, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_opened_while_frozen, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_lost_view, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_lost_answers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full_scratch, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_release, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_delete, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_copy, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_fake, set_up_fake, tear_down),
	};

	blockd = argc > 1 ? argv[1] : "mallee-blockd";
	if (argc > 2)
		cmocka_set_test_filter(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
