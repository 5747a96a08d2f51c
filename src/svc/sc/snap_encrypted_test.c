/* SPDX-License-Identifier: Apache-2.0 */
/* What encrypted snapshots show to who has their bucket, and what he can do to them. That they work is told by the other tests. */
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/id.h"
#include "base/text.h"
#include "os/file.h"
#include "svc/sc/chunk_cache.h"
#include "svc/sc/snap_reader.h"
#include "svc/sc/snap_store_priv.h"
#include "svc/sc/testkit_priv.h"

#define CHUNKS 20u
#define SIZE ((uint64_t)CHUNKS * KIT_CHUNK)

struct fixture {
	uint64_t seed;
	struct bucket bucket;
	struct objects *objects;
	struct snap_store *store;
	struct kit_keys keys;
	unsigned char *data, *child;
};

/* snap-a; snap-b, its child; snap-c, of the same bytes as snap-a and another lineage. */
static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->seed = (uint64_t)time(NULL) | 1;
	print_message("seed %llu\n", (unsigned long long)f->seed);
	bucket_init(&f->bucket, f->seed);
	kit_keys_init(&f->keys);
	f->objects = bucket_objects(&f->bucket);
	f->store = snap_store_open(f->objects);
	snap_store_use_keys(f->store, f->keys.keys);
	f->data = malloc(SIZE);
	f->child = malloc(SIZE);
	for (uint64_t i = 0; i < SIZE; i++)
		f->data[i] = (unsigned char)(bucket_random(&f->seed) >> 24);
	memset(f->data + 3 * KIT_CHUNK, 0, KIT_CHUNK);
	memset(f->data + 5 * KIT_CHUNK, 'c', KIT_CHUNK); /* compresses */
	memcpy(f->data + 7 * KIT_CHUNK, f->data, KIT_CHUNK); /* twice */
	memcpy(f->child, f->data, SIZE);
	memset(f->child + 9 * KIT_CHUNK, 'd', KIT_CHUNK);
	memcpy(f->child + 11 * KIT_CHUNK, f->data, KIT_CHUNK);
	kit_snapshot(f->store, "snap-a", NULL, f->data, SIZE);
	kit_snapshot(f->store, "snap-b", "snap-a", f->child, SIZE);
	kit_snapshot(f->store, "snap-c", NULL, f->data, SIZE);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	snap_store_close(f->store);
	kit_keys_done(&f->keys);
	objects_free(f->objects);
	bucket_done(&f->bucket);
	free(f->data);
	free(f->child);
	free(f);
	return 0;
}

/* 0 when all of it reads as data says; else the error. Wrong bytes fail the test. */
static int read_with(struct fixture *f, struct snap_store *s, const char *id, const unsigned char *data, struct error *e)
{
	_cleanup_(snap_root_freep) struct snap_root *r = NULL;
	_cleanup_(buf_done) struct buf scratch = BUF_INIT;
	unsigned char got[KIT_CHUNK];
	int err = snap_open_root(s, id, NULL, &r, e);

	if (!err)
		assert_int_equal(r->size_bytes, SIZE);
	for (unsigned page = 0; !err && page < r->page_count; page++) {
		struct snap_page *p = NULL;

		err = snap_get_page(f->objects, r, page, &p, e);
		for (unsigned i = 0; !err && i < snap_page_ref_chunks(r, page); i++) {
			uint64_t chunk = page * KIT_PAGE + i;

			err = snap_load_chunk(f->objects, r, p, i, &scratch, got, e);
			if (!err && !snap_root_present(r, chunk))
				assert_true(snap_all_zero(got, KIT_CHUNK));
			if (!err)
				assert_memory_equal(got, data + chunk * KIT_CHUNK, KIT_CHUNK);
		}
		snap_page_free(p);
	}
	return err;
}

static int read_all(struct fixture *f, const char *id, const unsigned char *data)
{
	return read_with(f, f->store, id, data, NULL);
}

static void test_reads_back(void **state)
{
	struct fixture *f = *state;
	struct snap_info info;

	assert_int_equal(read_all(f, "snap-a", f->data), 0);
	assert_int_equal(read_all(f, "snap-b", f->child), 0);
	assert_int_equal(read_all(f, "snap-c", f->data), 0);
	assert_int_equal(snap_info(f->store, "snap-b", &info, NULL), 0);
	assert_true(info.encrypted);
	assert_string_equal(info.key_id, "master-1");
	assert_true(info.added_bytes < 3 * KIT_CHUNK); /* what the parent has is not stored again */
}

/* ---- what can be seen ---- */

static bool bucket_shows(struct fixture *f, const void *bytes, size_t len)
{
	for (size_t i = 0; i < f->bucket.count; i++) {
		if (memmem(f->bucket.objects[i].data, f->bucket.objects[i].len, bytes, len))
			return true;
	}
	return false;
}

static void test_nothing_is_seen(void **state)
{
	struct fixture *f = *state;
	unsigned char sha[SHA256_LEN], key[SNAP_KEY_BYTES], hmac[SHA256_LEN];

	assert_true(bucket_shows(f, "snap-a", 6)); /* it is looked for in the right place */
	assert_int_equal(snap_data_key(f->store, "snap-a", key, NULL), 0);
	assert_false(bucket_shows(f, key, 8));
	struct snap_cipher *c = snap_cipher_new(key);
	for (unsigned i = 0; i < CHUNKS; i++) {
		const unsigned char *chunk = f->data + i * KIT_CHUNK;

		if (snap_all_zero(chunk, KIT_CHUNK))
			continue;
		for (unsigned at = 0; at < KIT_CHUNK; at += 512)
			assert_false(bucket_shows(f, chunk + at, 12));
		snap_sha256(chunk, KIT_CHUNK, sha);
		snap_digest(c, chunk, KIT_CHUNK, hmac);
		assert_false(bucket_shows(f, sha, 8) || bucket_shows(f, hmac, 8));
	}
	assert_false(bucket_shows(f, "dddddddd", 8));
	assert_false(bucket_shows(f, "MALPAGE1", 8)); /* pages neither */
	snap_cipher_free(c);
}

/* No piece of 16 bytes is in the bucket twice, but for what is in clear: chunks that are equal do not look it. */
static int by_bytes(const void *a, const void *b)
{
	return memcmp(a, b, 16);
}

static void test_equal_chunks_look_different(void **state)
{
	struct fixture *f = *state;
	size_t count = 0, total = 0;

	for (size_t i = 0; i < f->bucket.count; i++)
		total += f->bucket.objects[i].len / 16;
	unsigned char *all = malloc((total + 1) * 16);
	for (size_t i = 0; i < f->bucket.count; i++) {
		const struct bucket_object *o = &f->bucket.objects[i];

		if (!str_prefix(o->key, SNAP_PACKS))
			continue;
		assert_true(o->len > SNAP_PACK_HEADER + SNAP_PACK_FOOTER);
		for (size_t at = SNAP_PACK_HEADER; at + 16 <= o->len - SNAP_PACK_FOOTER; at += 16)
			memcpy(all + 16 * count++, o->data + at, 16);
	}
	assert_true(count > CHUNKS * KIT_CHUNK / 16);
	qsort(all, count, 16, by_bytes);
	for (size_t i = 1; i < count; i++)
		assert_memory_not_equal(all + 16 * i, all + 16 * (i - 1), 16);
	free(all);
}

/* ---- what can be done ---- */

static struct bucket_object *object(struct fixture *f, const char *key)
{
	struct bucket_object *o = bucket_find(&f->bucket, key);

	assert_non_null(o);
	return o;
}

/* The first pack of a snapshot. */
static struct bucket_object *first_pack(struct fixture *f, const char *prefix)
{
	for (size_t i = 0; i < f->bucket.count; i++) {
		if (str_prefix(f->bucket.objects[i].key, prefix))
			return &f->bucket.objects[i];
	}
	fail_msg("no %s", prefix);
	return NULL;
}

static void test_every_byte_of_a_root_counts(void **state)
{
	struct fixture *f = *state;
	struct bucket_object *o = object(f, "snapshots/snap-b");

	for (size_t i = 0; i < o->len; i++) {
		unsigned char was = o->data[i];

		o->data[i] ^= (unsigned char)(1 << i % 8);
		assert_true(read_all(f, "snap-b", f->child) < 0);
		/* Who can compute a SHA-256 gets no further. */
		if (i < o->len - SHA256_LEN) {
			unsigned char sum[SHA256_LEN];
			memcpy(sum, o->data + o->len - SHA256_LEN, SHA256_LEN);
			snap_sha256(o->data, o->len - SHA256_LEN, o->data + o->len - SHA256_LEN);
			assert_true(read_all(f, "snap-b", f->child) < 0);
			memcpy(o->data + o->len - SHA256_LEN, sum, SHA256_LEN);
		}
		o->data[i] = was;
	}
	assert_int_equal(read_all(f, "snap-b", f->child), 0);
}

/* Bytes of each pack: it is found, or (what readers do not need) nothing is read that is wrong. */
static void test_every_byte_of_a_pack_counts(void **state)
{
	struct fixture *f = *state;
	unsigned found = 0, harmless = 0;

	for (size_t i = 0; i < f->bucket.count; i++) {
		struct bucket_object *o = &f->bucket.objects[i];

		if (!str_prefix(o->key, "packs/snap-a/") && !str_prefix(o->key, "packs/snap-b/"))
			continue;
		for (size_t at = bucket_random(&f->seed) % 40; at < o->len; at += 1 + bucket_random(&f->seed) % 80) {
			unsigned char was = o->data[at];

			o->data[at] ^= (unsigned char)(1 << bucket_random(&f->seed) % 8);
			int a = read_all(f, "snap-a", f->data), b = read_all(f, "snap-b", f->child);
			assert_true((!a || a == -EBADMSG) && (!b || b == -EBADMSG));
			*(a || b ? &found : &harmless) += 1;
			o->data[at] = was;
		}
	}
	print_message("%u changes found, %u of what no reader reads\n", found, harmless);
	assert_true(found > 10 * harmless);
}

/* Two chunks of one length in each other's place, each with its own tag. */
static void test_chunks_change_places(void **state)
{
	struct fixture *f = *state;
	_cleanup_(snap_root_freep) struct snap_root *r = NULL;
	unsigned char *at[2], kept[KIT_CHUNK + SNAP_TAG];
	char key[SNAP_KEY_MAX];
	struct snap_page *p;

	assert_int_equal(snap_open_root(f->store, "snap-a", NULL, &r, NULL), 0);
	assert_int_equal(snap_get_page(f->objects, r, 0, &p, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(p->chunk[i].len, KIT_CHUNK + SNAP_TAG);
		snap_page_chunk_key(p, i, key);
		at[i] = object(f, key)->data + p->chunk[i].off;
	}
	snap_page_free(p);
	memcpy(kept, at[0], sizeof(kept));
	memcpy(at[0], at[1], sizeof(kept));
	memcpy(at[1], kept, sizeof(kept));
	assert_int_equal(read_all(f, "snap-a", f->data), -EBADMSG);
	memcpy(at[1], at[0], sizeof(kept));
	memcpy(at[0], kept, sizeof(kept));
	assert_int_equal(read_all(f, "snap-a", f->data), 0);
	/* The same chunk, at the same place of the same pack, of another lineage: its key is another. */
	memcpy(at[0], first_pack(f, "packs/snap-c/")->data + SNAP_PACK_HEADER, sizeof(kept));
	assert_int_equal(read_all(f, "snap-a", f->data), -EBADMSG);
}

static void test_roots_change_places(void **state)
{
	struct fixture *f = *state;
	struct bucket_object *a = object(f, "snapshots/snap-a"), *b = object(f, "snapshots/snap-b");
	unsigned char *data = a->data;
	size_t len = a->len;

	a->data = b->data;
	a->len = b->len;
	b->data = data;
	b->len = len;
	assert_int_equal(read_all(f, "snap-a", f->data), -EBADMSG);
	assert_int_equal(read_all(f, "snap-b", f->child), -EBADMSG);
}

/* The wrapped key of one lineage in another's root, everything else redone as far as it can be without a key. */
static void test_wrapped_keys_change_places(void **state)
{
	struct fixture *f = *state;
	struct bucket_object *a = object(f, "snapshots/snap-a");
	_cleanup_(snap_root_freep) struct snap_root *ra = NULL, *rc = NULL;

	assert_int_equal(snap_load_root(f->store, "snap-a", &ra, NULL), 0);
	assert_int_equal(snap_load_root(f->store, "snap-c", &rc, NULL), 0);
	unsigned char *at = memmem(a->data, a->len, ra->wrapped, sizeof(ra->wrapped));
	assert_non_null(at);
	memcpy(at, rc->wrapped, sizeof(rc->wrapped));
	snap_sha256(a->data, a->len - SHA256_LEN, a->data + a->len - SHA256_LEN);
	assert_int_equal(read_all(f, "snap-a", f->data), -EKEYREJECTED);
}

/* ---- keys ---- */

static void test_wrong_and_missing_master_keys(void **state)
{
	struct fixture *f = *state;
	struct kit_keys other = { 0 };
	struct snap_store *s = snap_store_open(f->objects);
	struct snap_removed removed;
	struct snap_info info;
	struct error e = { 0 };
	struct snap_writer_config c = { .snapshot = "snap-d", .parent = "snap-a", .size_bytes = SIZE, .encrypted = true };
	struct snap_writer *w;

	/* None: it can be listed and deleted, neither read nor continued. */
	assert_int_equal(read_with(f, s, "snap-a", f->data, &e), -ENOKEY);
	assert_non_null(strstr(e.message, "snapshot snap-a is encrypted"));
	assert_int_equal(snap_writer_begin(s, &c, &w, NULL), -ENOKEY);
	c.parent = NULL;
	assert_int_equal(snap_writer_begin(s, &c, &w, NULL), -ENOKEY);
	assert_int_equal(bucket_count(&f->bucket, SNAP_MARKS), 0);
	assert_int_equal(snap_info(s, "snap-a", &info, NULL), 0);
	assert_true(info.encrypted);
	/* Another: */
	kit_keys_init(&other);
	snap_store_use_keys(s, other.keys);
	error_clear(&e);
	assert_int_equal(read_with(f, s, "snap-a", f->data, &e), -EKEYREJECTED);
	assert_string_equal(e.code, "KMSKeyNotAccessible");
	assert_non_null(strstr(e.message, "not the master key that wrapped it"));
	/* One that is not there any more: */
	assert_int_equal(keys_rotate(f->keys.keys, NULL), 0);
	kit_snapshot(f->store, "snap-e", "snap-a", f->child, SIZE);
	assert_int_equal(snap_info(s, "snap-e", &info, NULL), 0);
	assert_string_equal(info.key_id, "master-2");
	error_clear(&e);
	assert_int_equal(read_with(f, s, "snap-e", f->child, &e), -ENOKEY);
	assert_non_null(strstr(e.message, "master-2"));
	assert_int_equal(read_all(f, "snap-e", f->child), 0);
	/* Neither deleting nor gc needs any. */
	snap_store_use_keys(s, NULL);
	assert_int_equal(snap_delete(s, "snap-a", &removed, NULL), 0);
	assert_false(removed.incomplete);
	assert_int_equal(snap_gc(s, 0, &removed, NULL), 0);
	assert_int_equal(read_all(f, "snap-b", f->child), 0);
	snap_store_close(s);
	kit_keys_done(&other);
}

static void test_mixed_lineages_are_refused(void **state)
{
	struct fixture *f = *state;
	struct snap_writer_config c = { .snapshot = "snap-d", .parent = "snap-a", .size_bytes = SIZE };
	struct snap_writer *w;
	struct error e = { 0 };

	assert_int_equal(snap_writer_begin(f->store, &c, &w, &e), -EINVAL);
	assert_non_null(strstr(e.message, "its parent is encrypted"));
	c.parent = NULL;
	assert_int_equal(snap_writer_begin(f->store, &c, &w, NULL), 0);
	assert_int_equal(snap_writer_commit(w, NULL, NULL), 0);
	snap_writer_free(w);
	c = (struct snap_writer_config){ .snapshot = "snap-e", .parent = "snap-d", .size_bytes = SIZE, .encrypted = true };
	assert_int_equal(snap_writer_begin(f->store, &c, &w, NULL), -EINVAL);
}

/* A first snapshot's upload that died is resumed with the key in its mark; where that cannot be unwrapped any more, begun anew. */
static void upload_half(struct fixture *f, struct snap_store *s)
{
	struct snap_writer_config c = { .snapshot = "snap-d", .size_bytes = SIZE, .chunk_bytes = KIT_CHUNK, .page_chunks = KIT_PAGE,
					.pack_bytes = 3 * KIT_CHUNK, .encrypted = true };
	struct snap_writer *w;
	struct snap_progress progress;

	assert_int_equal(snap_writer_begin(s, &c, &w, NULL), 0);
	for (unsigned i = 0; i < CHUNKS / 2; i++)
		assert_int_equal(snap_writer_put(w, i, f->data + i * KIT_CHUNK, KIT_CHUNK, NULL), 0);
	do {
		usleep(1000);
		snap_writer_progress(w, &progress);
	} while (progress.sent_bytes < 3 * KIT_CHUNK);
	snap_writer_free(w);
}

static uint64_t upload_rest(struct fixture *f, struct snap_store *s)
{
	struct snap_writer_config c = { .snapshot = "snap-d", .size_bytes = SIZE, .resume = true, .chunk_bytes = KIT_CHUNK, .page_chunks = KIT_PAGE,
					.pack_bytes = 3 * KIT_CHUNK, .encrypted = true };
	struct snap_writer *w;
	struct snap_progress progress;

	assert_int_equal(snap_writer_begin(s, &c, &w, NULL), 0);
	for (unsigned i = 0; i < CHUNKS; i++)
		assert_int_equal(snap_writer_put(w, i, f->data + i * KIT_CHUNK, KIT_CHUNK, NULL), 0);
	snap_writer_progress(w, &progress);
	assert_int_equal(snap_writer_commit(w, NULL, NULL), 0);
	snap_writer_free(w);
	assert_int_equal(read_with(f, s, "snap-d", f->data, NULL), 0);
	return progress.resumed_chunks;
}

static void test_resume(void **state)
{
	struct fixture *f = *state;

	upload_half(f, f->store);
	assert_int_equal(keys_rotate(f->keys.keys, NULL), 0);
	assert_true(upload_rest(f, f->store) >= 2);
}

static void test_resume_without_the_key(void **state)
{
	struct fixture *f = *state;
	struct snap_store *s = snap_store_open(f->objects);
	struct kit_keys other;

	upload_half(f, f->store);
	kit_keys_init(&other);
	snap_store_use_keys(s, other.keys);
	assert_int_equal(upload_rest(f, s), 0);
	snap_store_close(s);
	kit_keys_done(&other);
}

/* ---- the reader and its cache ---- */

static void post(struct snap_read *read)
{
	sem_post(read->ctx);
}

static void read_by(struct fixture *f, struct snap_reader *r)
{
	unsigned char *out = malloc(SIZE);
	struct iovec iov = { out, SIZE };
	sem_t ended;
	struct snap_read read = { .len_bytes = SIZE, .iov = &iov, .iov_count = 1, .done = post, .ctx = &ended };

	sem_init(&ended, 0, 0);
	if (!snap_reader_read(r, &read))
		sem_wait(&ended);
	sem_destroy(&ended);
	assert_int_equal(read.result, 0);
	assert_memory_equal(out, f->data, SIZE);
	free(out);
}

/* With no more than the lineage's key; out of a cache that holds nothing to be read. */
static void test_reader_by_data_key(void **state)
{
	struct fixture *f = *state;
	struct snap_store *s = snap_store_open(f->objects);
	unsigned char key[SNAP_DATA_KEY_BYTES], other[SNAP_DATA_KEY_BYTES];
	char dir[] = "/tmp/mallee-chunks-XXXXXX", path[128], name[2 * SHA256_LEN + 1];
	struct snap_reader_config c = { .snapshot = "snap-a", .key = key };
	struct snap_reader_stats stats;
	struct snap_reader *r;
	struct error e = { 0 };

	assert_non_null(mkdtemp(dir));
	assert_int_equal(snap_data_key(f->store, "snap-a", key, NULL), 0);
	assert_int_equal(snap_data_key(f->store, "snap-b", other, NULL), 0);
	assert_memory_equal(key, other, sizeof(key));
	assert_int_equal(snap_data_key(f->store, "snap-c", other, NULL), 0);
	assert_memory_not_equal(key, other, sizeof(key));
	c.key = other;
	assert_int_equal(snap_reader_open(s, &c, &r, &e), -EKEYREJECTED);
	c.key = NULL;
	assert_int_equal(snap_reader_open(s, &c, &r, NULL), -ENOKEY);
	for (unsigned round = 0; round < 3; round++) {
		c.key = key;
		assert_int_equal(chunk_cache_open(dir, 1 << 20, &c.cache, NULL), 0);
		assert_int_equal(snap_reader_open(s, &c, &r, NULL), 0);
		read_by(f, r);
		snap_reader_stats(r, &stats);
		snap_reader_close(r);
		chunk_cache_close(c.cache);
		assert_int_equal(stats.fetches, round == 1 ? 0 : round == 0 ? CHUNKS - 1 : 1);
		assert_int_equal(stats.cache_hits + stats.fetches, CHUNKS - 1);
		if (round == 1) { /* a file of it is spoilt: dropped, and fetched anew */
			_cleanup_(snap_root_freep) struct snap_root *root = NULL;
			unsigned char sha[SHA256_LEN];
			struct snap_page *p;
			assert_int_equal(snap_open_root(f->store, "snap-a", NULL, &root, NULL), 0);
			assert_int_equal(snap_get_page(f->objects, root, 0, &p, NULL), 0);
			snap_chunk_name(p, 1, sha);
			hex_encode(sha, sizeof(sha), name);
			snprintf(path, sizeof(path), "%s/%s", dir, name);
			char *data;
			size_t len;
			assert_int_equal(file_read(path, 1 << 20, &data, &len), 0);
			assert_int_equal(len, p->chunk[1].len);
			assert_null(memmem(data, len, f->data + KIT_CHUNK, 16));
			data[len / 2] ^= 4;
			assert_int_equal(file_write_atomic(path, data, len, 0600), 0);
			free(data);
			snap_page_free(p);
		}
	}
	/* Nothing of it is plain. */
	char command[256];
	snprintf(command, sizeof(command), "! cat %s/* | grep -qaF cccccccc", dir);
	assert_int_equal(system(command), 0);
	dir_remove(dir);
	snap_store_close(s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_reads_back),
		TEST(test_nothing_is_seen),
		TEST(test_equal_chunks_look_different),
		TEST(test_every_byte_of_a_root_counts),
		TEST(test_every_byte_of_a_pack_counts),
		TEST(test_chunks_change_places),
		TEST(test_roots_change_places),
		TEST(test_wrapped_keys_change_places),
		TEST(test_wrong_and_missing_master_keys),
		TEST(test_mixed_lineages_are_refused),
		TEST(test_resume),
		TEST(test_resume_without_the_key),
		TEST(test_reader_by_data_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
