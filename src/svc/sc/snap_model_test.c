/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A volume that changes at random, its snapshots against copies of it: chains, branches, growth, deleting in any order, gc, faults of
 * the network, death at any change of the bucket. After each restart every snapshot that was acknowledged reads back exactly,
 * and after a gc the bucket holds the packs that manifests refer to, no more and no less.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/text.h"
#include "svc/sc/snap_store_priv.h"
#include "svc/sc/snap_writer.h"
#include "svc/sc/testkit_priv.h"

#define CHUNK 4096u
#define PAGE 8u
#define CHUNKS_MAX 120u
#define SNAPSHOTS_MAX 24

struct copy {
	bool exists;
	char id[ID_LEN];
	uint64_t size;
	unsigned char *data;
};

struct model {
	uint64_t seed;
	struct bucket bucket;
	struct objects *objects;
	struct snap_store *store;
	uint64_t size;
	unsigned char *volume;
	struct copy copies[SNAPSHOTS_MAX];
	unsigned made, kills, resumes, deletes, lost_commits;
	struct kit_keys keys; /* none: plain snapshots */
};

static uint64_t rnd(struct model *m, uint64_t n)
{
	return bucket_random(&m->seed) % n;
}

static void start(struct model *m)
{
	m->bucket.dead = false;
	m->bucket.kill_in = 0;
	m->objects = bucket_objects(&m->bucket);
	m->store = snap_store_open(m->objects);
	snap_store_use_keys(m->store, m->keys.keys);
}

static void stop(struct model *m)
{
	snap_store_close(m->store);
	objects_free(m->objects);
}

static void fill(struct model *m, unsigned char *p)
{
	unsigned kind = (unsigned)rnd(m, 4);

	for (unsigned i = 0; i < CHUNK; i++)
		p[i] = (unsigned char)(kind == 0 ? 0 : kind == 1 ? rnd(m, 256) : kind == 2 ? 'x' : i % 7);
	if (kind)
		memcpy(p + rnd(m, CHUNK - 8), &m->seed, 8);
}

static void change(struct model *m)
{
	uint64_t chunks = (m->size + CHUNK - 1) / CHUNK;

	for (uint64_t n = rnd(m, 12); n--;)
		fill(m, m->volume + rnd(m, chunks) * CHUNK);
	if (rnd(m, 6) == 0) {
		uint64_t more = rnd(m, 12 * CHUNK / 512) * 512;

		if (m->size + more <= CHUNKS_MAX * CHUNK)
			m->size += more;
	}
	/* behind the end there is nothing */
	memset(m->volume + m->size, 0, CHUNKS_MAX * CHUNK - m->size);
}

static struct copy *any_copy(struct model *m)
{
	for (unsigned tries = 0; tries < 50; tries++) {
		struct copy *c = &m->copies[rnd(m, SNAPSHOTS_MAX)];

		if (c->exists)
			return c;
	}
	return NULL;
}

/* Tells the writer what differs from the parent, and some that does not. */
static int tell(struct model *m, struct snap_writer *w, const struct copy *parent, struct error *e)
{
	uint64_t chunks = (m->size + CHUNK - 1) / CHUNK;
	int err = 0;

	for (uint64_t i = 0; !err && i < chunks; i++) {
		const unsigned char *now = m->volume + i * CHUNK;
		bool same = parent ? memcmp(now, parent->data + i * CHUNK, CHUNK) == 0 : snap_all_zero(now, CHUNK);

		if (same && rnd(m, 5))
			continue;
		if (snap_all_zero(now, CHUNK) && rnd(m, 2))
			err = snap_writer_zero(w, i, 1, e);
		else
			err = snap_writer_put(w, i, now, MIN_OF((uint64_t)CHUNK, m->size - i * CHUNK), e);
	}
	return err;
}

static void check_copy(struct model *m, const struct copy *c)
{
	_cleanup_(snap_root_freep) struct snap_root *r = NULL;
	_cleanup_(buf_done) struct buf scratch = BUF_INIT;
	unsigned char got[CHUNK];
	struct error e = { 0 };
	struct snap_page *p = NULL;
	uint64_t data = 0;

	if (snap_open_root(m->store, c->id, NULL, &r, &e))
		fail_msg("%s: %s", c->id, e.message);
	assert_int_equal(r->encrypted, m->keys.keys != NULL);
	assert_int_equal(r->size_bytes, c->size);
	for (uint64_t i = 0; i < snap_root_chunks(r); i++) {
		if (!p || p->index != i / PAGE) {
			snap_page_free(p);
			p = NULL;
			if (snap_get_page(m->objects, r, i / PAGE, &p, &e))
				fail_msg("%s", e.message);
		}
		if (snap_load_chunk(m->objects, r, p, i % PAGE, &scratch, got, &e))
			fail_msg("%s", e.message);
		assert_memory_equal(got, c->data + i * CHUNK, CHUNK);
		assert_int_equal(snap_root_present(r, i), !snap_all_zero(got, CHUNK));
		data += snap_root_present(r, i);
	}
	assert_int_equal(data, r->data_chunks);
	snap_page_free(p);
}

static void keep(struct model *m, struct copy *c, const char *id)
{
	c->exists = true;
	strcpy(c->id, id);
	c->size = m->size;
	c->data = malloc(CHUNKS_MAX * CHUNK);
	memcpy(c->data, m->volume, CHUNKS_MAX * CHUNK);
}

static void forget(struct copy *c)
{
	c->exists = false;
	free(c->data);
	c->data = NULL;
}

/* 0, or the writer's error; the copy is kept when the snapshot exists. */
static int upload(struct model *m, struct copy *to, const char *id, const struct copy *parent, bool resume)
{
	struct snap_writer_config c = { .snapshot = id, .volume = "vol-1", .parent = parent ? parent->id : NULL,
					.encrypted = m->keys.keys, .size_bytes = m->size, .in_flight = 1 + (unsigned)rnd(m, 3), .resume = resume,
					.chunk_bytes = CHUNK, .page_chunks = PAGE, .pack_bytes = (uint32_t)(3 + rnd(m, 10)) * CHUNK };
	struct snap_writer *w;
	struct error e = { 0 };
	int err = snap_writer_begin(m->store, &c, &w, &e);

	if (err)
		return err;
	err = tell(m, w, parent, &e);
	if (!err)
		err = snap_writer_commit(w, NULL, &e);
	struct snap_progress p;
	snap_writer_progress(w, &p);
	m->resumes += p.resumed_chunks > 0;
	snap_writer_free(w);
	if (!err)
		keep(m, to, id);
	return err;
}

static void make_snapshot(struct model *m)
{
	struct copy *slot = NULL, *parent = any_copy(m);
	struct error e = { 0 };
	struct snap_info info;
	char id[ID_LEN];

	for (unsigned i = 0; i < SNAPSHOTS_MAX && !slot; i++)
		slot = m->copies[i].exists ? NULL : &m->copies[i];
	if (!slot)
		return;
	if (parent && (parent->size > m->size || rnd(m, 8) == 0))
		parent = NULL;
	snprintf(id, sizeof(id), "snap-%u", ++m->made);
	m->bucket.kill_in = rnd(m, 2) ? 0 : 1 + (int)rnd(m, 20);
	int err = upload(m, slot, id, parent, false);
	for (unsigned tries = 0; err && tries < 3; tries++) {
		assert_true(m->bucket.dead);
		m->kills++;
		stop(m);
		start(m);
		if (snap_info(m->store, id, &info, &e) == 0) { /* it was committed just before the end */
			keep(m, slot, id);
			m->lost_commits++;
			return;
		}
		error_clear(&e);
		if (rnd(m, 3) == 0)
			break;
		m->bucket.kill_in = rnd(m, 2) ? 0 : 1 + (int)rnd(m, 12);
		err = upload(m, slot, id, parent, true);
	}
	m->bucket.kill_in = 0;
	if (m->bucket.dead) {
		stop(m);
		start(m);
		if (err && snap_info(m->store, id, &info, NULL) == 0)
			keep(m, slot, id);
	}
	if (slot->exists)
		return;
	assert_int_equal(snap_abandon(m->store, id, &e), 0);
	assert_int_equal(upload(m, slot, id, parent, true), -EEXIST); /* given up is given up */
}

static void delete_one(struct model *m)
{
	struct copy *c = any_copy(m);
	struct snap_removed removed = { 0 };
	struct error e = { 0 };

	if (!c)
		return;
	m->bucket.kill_in = rnd(m, 3) ? 0 : 1 + (int)rnd(m, 6);
	int err = snap_delete(m->store, c->id, &removed, &e);
	m->bucket.kill_in = 0;
	if (!err) {
		assert_true(!removed.incomplete || m->bucket.dead);
		forget(c);
		m->deletes++;
	} else if (!m->bucket.dead) {
		fail_msg("delete %s: %s", c->id, e.message);
	}
	if (m->bucket.dead) {
		stop(m);
		start(m);
		struct snap_info info;
		if (c->exists && snap_info(m->store, c->id, &info, NULL) == -ENOENT)
			forget(c);
	}
}

static void check_exact(struct model *m)
{
	struct packset wanted = PACKSET_INIT;

	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++) {
		_cleanup_(snap_root_freep) struct snap_root *r = NULL;

		if (!m->copies[i].exists)
			continue;
		assert_int_equal(snap_load_root(m->store, m->copies[i].id, &r, NULL), 0);
		snap_root_packs(r, &wanted);
	}
	assert_int_equal(bucket_count(&m->bucket, SNAP_PACKS), packset_size(&wanted));
	assert_int_equal(bucket_count(&m->bucket, SNAP_MARKS), 0);
	for (size_t i = 0; i < m->bucket.count; i++) {
		struct upload_id u;
		uint32_t number;

		if (snap_parse_pack_key(m->bucket.objects[i].key, &u, &number) == 0)
			assert_true(packset_has(&wanted, &u, number));
	}
	packset_done(&wanted);
}

static void collect(struct model *m)
{
	struct error e = { 0 };
	struct snap_removed removed;

	m->bucket.kill_in = rnd(m, 3) ? 0 : 1 + (int)rnd(m, 6);
	int err = snap_gc(m->store, 0, &removed, &e);
	m->bucket.kill_in = 0;
	if (m->bucket.dead) {
		stop(m);
		start(m);
		err = snap_gc(m->store, 0, &removed, &e);
	}
	if (err)
		fail_msg("gc: %s", e.message);
	check_exact(m);
}

static unsigned operations(void)
{
	const char *text = getenv("MALLEE_MODEL_OPS");

	return text ? (unsigned)atoi(text) : 250;
}

static void run(uint64_t seed, unsigned ops, bool faults, bool encrypted)
{
	struct model m = { .seed = seed | 1, .size = 40 * CHUNK + 512 };

	if (encrypted)
		kit_keys_init(&m.keys);
	m.volume = calloc(CHUNKS_MAX, CHUNK);
	bucket_init(&m.bucket, seed + 1);
	if (faults) {
		m.bucket.fail_percent = 5;
		m.bucket.lost_percent = 5;
		m.bucket.short_percent = 1;
	}
	start(&m);
	for (unsigned i = 0; i < ops; i++) {
		change(&m);
		if (encrypted && rnd(&m, 20) == 0 && keys_count(m.keys.keys) < 20)
			assert_int_equal(keys_rotate(m.keys.keys, NULL), 0);
		switch (rnd(&m, 8)) {
		case 0 ... 3:
			make_snapshot(&m);
			break;
		case 4 ... 5:
			delete_one(&m);
			break;
		case 6:
			collect(&m);
			break;
		default:
			for (unsigned c = 0; c < SNAPSHOTS_MAX; c++) {
				if (m.copies[c].exists)
					check_copy(&m, &m.copies[c]);
			}
		}
	}
	m.bucket.fail_percent = m.bucket.lost_percent = m.bucket.short_percent = 0;
	collect(&m);
	for (unsigned c = 0; c < SNAPSHOTS_MAX; c++) {
		if (!m.copies[c].exists)
			continue;
		check_copy(&m, &m.copies[c]);
		assert_int_equal(snap_delete(m.store, m.copies[c].id, NULL, NULL), 0);
		forget(&m.copies[c]);
		check_exact(&m);
	}
	assert_int_equal(bucket_count(&m.bucket, SNAP_PACKS), 0);
	print_message("seed %llu: %u snapshots, %u kills, %u resumed, %u commits of the dead, %u deleted\n",
		      (unsigned long long)seed, m.made, m.kills, m.resumes, m.lost_commits, m.deletes);
	stop(&m);
	assert_true(!encrypted || ops < 200 || m.resumes > 0);
	kit_keys_done(&m.keys);
	bucket_done(&m.bucket);
	free(m.volume);
}

static uint64_t a_seed(void)
{
	const char *text = getenv("MALLEE_MODEL_SEED");

	return text ? strtoull(text, NULL, 10) : (uint64_t)time(NULL);
}

static void test_chains(void **state)
{
	run(a_seed(), operations(), false, false);
}

static void test_chains_on_a_bad_network(void **state)
{
	run(a_seed() + 1, operations() / 4, true, false);
}

static void test_encrypted_chains(void **state)
{
	run(a_seed() + 2, operations(), false, true);
}

static void test_encrypted_chains_on_a_bad_network(void **state)
{
	run(a_seed() + 3, operations() / 4, true, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_chains), cmocka_unit_test(test_chains_on_a_bad_network),
					    cmocka_unit_test(test_encrypted_chains), cmocka_unit_test(test_encrypted_chains_on_a_bad_network) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
