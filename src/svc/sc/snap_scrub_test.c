/* SPDX-License-Identifier: Apache-2.0 */
/* Scrub, differences, and what delete and gc do beside uploads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/text.h"
#include "svc/sc/snap_store_priv.h"
#include "svc/sc/testkit_priv.h"

#define CHUNKS 60u
#define SIZE ((uint64_t)CHUNKS * KIT_CHUNK)
#define SNAPSHOTS 4u

struct fixture {
	uint64_t seed;
	struct bucket bucket;
	struct objects *objects;
	struct snap_store *store;
	struct kit_keys keys;
	unsigned char *data[SNAPSHOTS]; /* of snap-0, snap-1 (its child), … */
};

static void name(unsigned i, char out[static ID_LEN])
{
	snprintf(out, ID_LEN, "snap-%u", i);
}

static int setup_with(void **state, bool encrypted)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->seed = (uint64_t)time(NULL) | 1;
	print_message("seed %llu\n", (unsigned long long)f->seed);
	bucket_init(&f->bucket, f->seed);
	f->objects = bucket_objects(&f->bucket);
	f->store = snap_store_open(f->objects);
	if (encrypted)
		kit_keys_init(&f->keys);
	snap_store_use_keys(f->store, f->keys.keys);
	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		char id[ID_LEN], parent[ID_LEN] = "";

		f->data[i] = malloc(SIZE);
		name(i, id);
		if (i == 0) {
			kit_fill(&f->seed, f->data[0], SIZE);
		} else {
			name(i - 1, parent);
			memcpy(f->data[i], f->data[i - 1], SIZE);
			for (unsigned n = 0; n < 6; n++) {
				uint64_t chunk = bucket_random(&f->seed) % CHUNKS;

				memset(f->data[i] + chunk * KIT_CHUNK, n ? (int)(i * 10 + n) : 0, KIT_CHUNK);
			}
		}
		kit_snapshot(f->store, id, parent, f->data[i], SIZE);
	}
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, false);
}

static int setup_encrypted(void **state)
{
	return setup_with(state, true);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	snap_store_close(f->store);
	kit_keys_done(&f->keys);
	objects_free(f->objects);
	bucket_done(&f->bucket);
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		free(f->data[i]);
	free(f);
	return 0;
}

/* ---- differences ---- */

static bool differ(const unsigned char *a, const unsigned char *b, uint64_t chunk)
{
	return a ? memcmp(a + chunk * KIT_CHUNK, b + chunk * KIT_CHUNK, KIT_CHUNK) != 0 : !snap_all_zero(b + chunk * KIT_CHUNK, KIT_CHUNK);
}

static void check_changes(struct fixture *f, int a, unsigned b)
{
	char id_a[ID_LEN] = "", id_b[ID_LEN];
	struct snap_change some[3];
	uint64_t from = 0, expected = 0;
	int n;

	if (a >= 0)
		name((unsigned)a, id_a);
	name(b, id_b);
	while (from < CHUNKS) {
		n = snap_changes(f->store, id_a, id_b, &from, some, 3, NULL);
		assert_true(n >= 0);
		for (int i = 0; i < n; i++) {
			const unsigned char *data = f->data[b] + some[i].off_bytes;
			unsigned char sha[SHA256_LEN];

			while (expected < CHUNKS && !differ(a >= 0 ? f->data[a] : NULL, f->data[b], expected))
				expected++;
			assert_int_equal(some[i].off_bytes, expected * KIT_CHUNK);
			assert_int_equal(some[i].is_zero, snap_all_zero(data, KIT_CHUNK));
			snap_sha256(data, KIT_CHUNK, sha);
			if (!some[i].is_zero && f->keys.keys)
				assert_memory_not_equal(sha, some[i].token, SHA256_LEN);
			else if (!some[i].is_zero)
				assert_memory_equal(sha, some[i].token, SHA256_LEN);
			expected++;
		}
	}
	for (; expected < CHUNKS; expected++)
		assert_false(differ(a >= 0 ? f->data[a] : NULL, f->data[b], expected));
}

static void test_changes(void **state)
{
	for (int a = -1; a < (int)SNAPSHOTS; a++) {
		for (unsigned b = 0; b < SNAPSHOTS; b++)
			check_changes(*state, a, b);
	}
}

/* ---- scrub ---- */

struct findings {
	unsigned count, whole;
	bool of[SNAPSHOTS][CHUNKS];
	char message[512];
};

static void note(void *ctx, const struct snap_finding *found)
{
	struct findings *n = ctx;
	unsigned i;

	assert_int_equal(sscanf(found->snapshot, "snap-%u", &i), 1);
	n->count++;
	n->whole += found->whole;
	for (uint64_t c = 0; c < found->chunk_count; c++) {
		assert_false(n->of[i][found->first_chunk + c]); /* once */
		n->of[i][found->first_chunk + c] = true;
	}
	snprintf(n->message, sizeof(n->message), "%s", found->message);
}

static struct snap_scrubbed scrub(struct fixture *f, const char *id, struct findings *n)
{
	struct snap_scrub how = { .snapshot = id, .found = note, .ctx = n };
	struct snap_scrubbed sum;
	struct error e = { 0 };

	memset(n, 0, sizeof(*n));
	if (snap_scrub(f->store, &how, &sum, &e))
		fail_msg("%s", e.message);
	return sum;
}

/* Where a chunk of a snapshot lies; NULL: it is zero. */
static unsigned char *stored(struct fixture *f, unsigned snapshot, unsigned chunk)
{
	char id[ID_LEN], key[SNAP_KEY_MAX];
	struct snap_root *r;
	struct snap_page *p;
	unsigned char *at = NULL;

	name(snapshot, id);
	assert_int_equal(snap_open_root(f->store, id, NULL, &r, NULL), 0);
	assert_int_equal(snap_get_page(f->objects, r, chunk / KIT_PAGE, &p, NULL), 0);
	if (p->chunk[chunk % KIT_PAGE].codec != SNAP_ZERO) {
		snap_page_chunk_key(p, chunk % KIT_PAGE, key);
		at = bucket_find(&f->bucket, key)->data + p->chunk[chunk % KIT_PAGE].off;
	}
	snap_page_free(p);
	snap_root_free(r);
	return at;
}

static void test_clean_scrub_reads_once(void **state)
{
	struct fixture *f = *state;
	struct findings n;
	struct snap_scrubbed all = scrub(f, NULL, &n), one;
	uint64_t distinct = 0;

	assert_int_equal(n.count, 0);
	assert_int_equal(all.snapshots, SNAPSHOTS);
	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		for (unsigned c = 0; c < CHUNKS; c++)
			distinct += !snap_all_zero(f->data[i] + c * KIT_CHUNK, KIT_CHUNK) && (!i || differ(f->data[i - 1], f->data[i], c));
	}
	assert_int_equal(all.chunks, distinct);
	one = scrub(f, "snap-2", &n);
	assert_true(one.snapshots == 1 && one.corrupt == 0);
}

/* Every corrupt chunk is told of every snapshot that refers to it, and nothing else is. */
static void test_scrub_finds(void **state)
{
	struct fixture *f = *state;
	bool wanted[SNAPSHOTS][CHUNKS] = { 0 };
	struct findings n;

	for (unsigned k = 0; k < 5; k++) {
		unsigned snapshot = (unsigned)(bucket_random(&f->seed) % SNAPSHOTS), chunk = (unsigned)(bucket_random(&f->seed) % CHUNKS);
		unsigned char *at = stored(f, snapshot, chunk);

		if (!at || wanted[snapshot][chunk])
			continue;
		for (unsigned i = 0; i < SNAPSHOTS; i++)
			wanted[i][chunk] |= stored(f, i, chunk) == at;
		at[9] ^= 0x40;
	}
	scrub(f, NULL, &n);
	assert_memory_equal(n.of, wanted, sizeof(wanted));
	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		char id[ID_LEN];

		name(i, id);
		scrub(f, id, &n);
		assert_memory_equal(n.of[i], wanted[i], sizeof(wanted[i]));
	}
}

static void test_scrub_of_damaged_manifests(void **state)
{
	struct fixture *f = *state;
	struct snap_root *r;
	struct findings n;
	char key[SNAP_KEY_MAX];
	unsigned page = 0;

	/* a page: */
	assert_int_equal(snap_load_root(f->store, "snap-0", &r, NULL), 0);
	while (!r->pages[page].stored)
		page++;
	snap_pack_key(&r->uploads[r->pages[page].upload], r->pages[page].pack, key);
	bucket_find(&f->bucket, key)->data[r->pages[page].off + 40] ^= 1;
	scrub(f, NULL, &n);
	for (unsigned c = 0; c < KIT_PAGE && page * KIT_PAGE + c < CHUNKS; c++)
		assert_true(n.of[0][page * KIT_PAGE + c]);
	bucket_find(&f->bucket, key)->data[r->pages[page].off + 40] ^= 1;
	scrub(f, NULL, &n);
	assert_int_equal(n.count, 0);
	/* a root: */
	bucket_find(&f->bucket, "snapshots/snap-1")->data[60] ^= 1;
	scrub(f, NULL, &n);
	assert_int_equal(n.count, 1);
	assert_int_equal(n.whole, 1);
	assert_non_null(strstr(n.message, "snapshots/snap-1"));
	snap_root_free(r);
}

static bool stop_at_once(void *ctx, const struct snap_scrubbed *sum)
{
	return sum->chunks > 3;
}

static void test_scrub_is_stopped(void **state)
{
	struct fixture *f = *state;
	struct findings n = { 0 };
	struct snap_scrub how = { .found = note, .progress = stop_at_once, .ctx = &n };
	struct snap_scrubbed sum;

	assert_int_equal(snap_scrub(f->store, &how, &sum, NULL), -ECANCELED);
	assert_int_equal(sum.chunks, 4);
	/* What cannot be reached is not corrupt. */
	f->bucket.unreachable = true;
	scrub(f, "snap-0", &n);
	assert_int_equal(n.count, 1);
}

/* ---- damaged manifests and removing ---- */

static void test_nothing_goes_beside_a_damaged_manifest(void **state)
{
	struct fixture *f = *state;
	struct snap_removed removed;
	struct error e = { 0 };
	size_t packs;

	bucket_find(&f->bucket, "snapshots/snap-3")->data[60] ^= 1;
	packs = bucket_count(&f->bucket, SNAP_PACKS);
	assert_int_equal(snap_delete(f->store, "snap-1", &removed, &e), 0);
	assert_true(removed.incomplete && error_is_set(&e));
	assert_int_equal(snap_gc(f->store, 0, &removed, NULL), -EBADMSG);
	assert_int_equal(bucket_count(&f->bucket, SNAP_PACKS), packs);
	/* It can be deleted itself, and then gc goes on. */
	assert_int_equal(snap_delete(f->store, "snap-3", &removed, NULL), 0);
	assert_true(removed.incomplete);
	assert_int_equal(snap_gc(f->store, 0, &removed, NULL), 0);
	assert_true(removed.packs > 0);
	check_changes(f, -1, 2);
	check_changes(f, 0, 2);
	struct findings n;
	scrub(f, NULL, &n);
	assert_int_equal(n.count, 0);
}

/* ---- uploads under way ---- */

static struct snap_writer *begin(struct snap_store *s, const char *id, const char *parent, int want)
{
	struct snap_writer_config c = { .snapshot = id, .parent = parent, .size_bytes = SIZE, .chunk_bytes = KIT_CHUNK,
					.page_chunks = KIT_PAGE, .pack_bytes = 3 * KIT_CHUNK, .no_compression = true, .encrypted = s->keys };
	struct snap_writer *w = NULL;

	assert_int_equal(snap_writer_begin(s, &c, &w, NULL), want);
	return w;
}

static void test_uploads_are_safe(void **state)
{
	struct fixture *f = *state;
	struct snap_writer *w = begin(f->store, "snap-9", "snap-2", 0);
	unsigned char chunk[KIT_CHUNK];
	struct snap_removed removed;

	begin(f->store, "snap-9", NULL, -EBUSY);
	begin(f->store, "snap-2", NULL, -EEXIST);
	begin(f->store, "snap-8", "snap-none", -ENOENT);
	begin(f->store, "snap/8", NULL, -EINVAL);
	assert_int_equal(snap_delete(f->store, "snap-2", NULL, NULL), -EBUSY);
	assert_int_equal(snap_abandon(f->store, "snap-9", NULL), -EBUSY);
	for (unsigned i = 0; i < CHUNKS; i++) {
		memset(chunk, (int)i + 1, sizeof(chunk));
		memcpy(chunk, "new", 3);
		assert_int_equal(snap_writer_put(w, i, chunk, KIT_CHUNK, NULL), 0);
		if (i % 20 == 7)
			assert_int_equal(snap_gc(f->store, 0, &removed, NULL), 0);
	}
	assert_int_equal(snap_writer_put(w, 3, chunk, KIT_CHUNK, NULL), -EINVAL); /* backwards; and it stays failed */
	assert_int_equal(snap_writer_commit(w, NULL, NULL), -EINVAL);
	snap_writer_free(w);
	assert_int_equal(bucket_count(&f->bucket, SNAP_MARKS), 1);
	/* Another process (one that knows of no upload here) leaves what is young alone. */
	struct snap_store *other = snap_store_open(f->objects);
	assert_true(bucket_count(&f->bucket, "packs/snap-9/") > 0);
	assert_int_equal(snap_gc(other, 3600 * 1000, &removed, NULL), 0);
	assert_int_equal(removed.packs + removed.uploads, 0);
	assert_int_equal(snap_delete(other, "snap-2", NULL, NULL), -EBUSY);
	assert_int_equal(snap_gc(other, 0, &removed, NULL), 0);
	assert_int_equal(removed.uploads, 1);
	assert_int_equal(bucket_count(&f->bucket, "packs/snap-9/"), 0);
	assert_int_equal(snap_delete(other, "snap-2", NULL, NULL), 0);
	snap_store_close(other);
}

/* A process that seemed dead comes back, and commits what was given up. */
static void test_tombstones_stop_the_undead(void **state)
{
	struct fixture *f = *state;
	struct snap_writer *w = begin(f->store, "snap-9", NULL, 0);
	struct snap_store *other = snap_store_open(f->objects);
	unsigned char chunk[KIT_CHUNK] = "x";
	struct snap_removed removed;
	struct snap_info info;
	struct error e = { 0 };

	assert_int_equal(snap_writer_put(w, 1, chunk, KIT_CHUNK, NULL), 0);
	assert_int_equal(snap_gc(other, 0, &removed, NULL), 0);
	assert_int_equal(removed.uploads, 1);
	assert_int_equal(snap_writer_commit(w, NULL, &e), -EEXIST);
	assert_non_null(strstr(e.message, "given up"));
	snap_writer_free(w);
	assert_int_equal(snap_info(other, "snap-9", &info, NULL), -ENOENT);
	assert_int_equal(bucket_count(&f->bucket, "packs/snap-9/"), 2); /* they came after: the next gc's */
	assert_int_equal(snap_gc(other, 0, &removed, NULL), 0);
	assert_int_equal(removed.packs, 2);
	begin(other, "snap-9", NULL, -EEXIST);
	snap_store_close(other);
}

/* A mark that outlived its snapshot must not take the packs with it that a child refers to. */
static void test_a_mark_outlives_its_snapshot(void **state)
{
	struct fixture *f = *state;
	struct snap_removed removed;
	struct buf mark = BUF_INIT;
	struct findings n;

	assert_int_equal(snap_delete(f->store, "snap-1", NULL, NULL), 0);
	snap_mark_encode("snap-1", &(struct snap_mark){ .parent = "snap-0", .time_ms = 1 }, &mark);
	assert_int_equal(objects_put(f->objects, "uploads/snap-1", mark.data, mark.len, false, NULL), 0);
	buf_done(&mark);
	assert_int_equal(snap_gc(f->store, 0, &removed, NULL), 0);
	assert_int_equal(removed.packs, 0);
	assert_int_equal(removed.uploads, 1);
	assert_int_equal(snap_abandon(f->store, "snap-1", NULL), 0);
	scrub(f, NULL, &n);
	assert_int_equal(n.count, 0);
	/* and a delete takes the mark along */
	assert_int_equal(objects_put(f->objects, "uploads/snap-2", "x", 1, false, NULL), 0);
	assert_int_equal(snap_delete(f->store, "snap-2", NULL, NULL), 0);
	assert_int_equal(bucket_count(&f->bucket, SNAP_MARKS), 0);
}

static void test_failing_upload(void **state)
{
	struct fixture *f = *state;
	struct snap_writer *w = begin(f->store, "snap-9", NULL, 0);
	unsigned char chunk[KIT_CHUNK] = "x";
	struct error e = { 0 };
	int err = 0;

	f->bucket.unreachable = true;
	for (unsigned i = 0; i < CHUNKS && !err; i++)
		err = snap_writer_put(w, i, memset(chunk, (int)i + 1, 9), KIT_CHUNK, &e);
	assert_int_equal(err, -EHOSTUNREACH);
	assert_true(error_is_set(&e));
	snap_writer_free(w);
	f->bucket.unreachable = false;
	/* Resumed, and cancelled. */
	w = begin(f->store, "snap-9", NULL, 0);
	snap_writer_cancel(w);
	assert_int_equal(snap_writer_commit(w, NULL, NULL), -ECANCELED);
	snap_writer_free(w);
	assert_int_equal(snap_abandon(f->store, "snap-9", NULL), 0);
}

static int count_one(void *ctx, const char *id)
{
	++*(unsigned *)ctx;
	return 0;
}

static void test_info(void **state)
{
	struct fixture *f = *state;
	struct snap_info info;
	unsigned count = 0;

	assert_int_equal(snap_info(f->store, "snap-1", &info, NULL), 0);
	assert_string_equal(info.parent, "snap-0");
	assert_string_equal(info.volume, "vol-1");
	assert_true(info.size_bytes == SIZE && info.added_bytes < 6 * KIT_CHUNK && clock_unix_ms() - info.time_ms < 60000);
	assert_int_equal(snap_list(f->store, count_one, &count, NULL), 0);
	assert_int_equal(count, SNAPSHOTS);
	assert_int_equal(snap_info(f->store, "../x", &info, NULL), -ENOENT);
	assert_int_equal(snap_delete(f->store, "snap-77", NULL, NULL), -ENOENT);
}

/* Of plain snapshots, and of encrypted ones. */
#define BOTH(f) cmocka_unit_test_setup_teardown(f, setup, teardown), { #f " encrypted", f, setup_encrypted, teardown, NULL }

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_changes),
		BOTH(test_clean_scrub_reads_once),
		BOTH(test_scrub_finds),
		BOTH(test_scrub_of_damaged_manifests),
		BOTH(test_scrub_is_stopped),
		BOTH(test_nothing_goes_beside_a_damaged_manifest),
		BOTH(test_uploads_are_safe),
		BOTH(test_tombstones_stop_the_undead),
		BOTH(test_a_mark_outlives_its_snapshot),
		BOTH(test_failing_upload),
		BOTH(test_info),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
