/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/sc/snap_reader.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "os/file.h"
#include "svc/sc/snap_store_priv.h"
#include "svc/sc/testkit_priv.h"

#define CHUNKS 100u
#define SIZE ((uint64_t)CHUNKS * KIT_CHUNK - 1024)

struct fixture {
	uint64_t seed;
	struct bucket bucket;
	struct objects *objects;
	struct snap_store *store;
	unsigned char *data;
	char dir[64];
	struct chunk_cache *cache;
	struct kit_keys keys;
};

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
	f->data = malloc(SIZE);
	kit_fill(&f->seed, f->data, SIZE);
	memset(f->data + 2 * KIT_PAGE * KIT_CHUNK, 'n', 99); /* for stored_chunk() */
	kit_snapshot(f->store, "snap-a", NULL, f->data, SIZE);
	strcpy(f->dir, "/tmp/mallee-chunks-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
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

	chunk_cache_close(f->cache);
	snap_store_close(f->store);
	kit_keys_done(&f->keys);
	objects_free(f->objects);
	bucket_done(&f->bucket);
	dir_remove(f->dir);
	free(f->data);
	free(f);
	return 0;
}

static struct snap_reader *open_reader(struct fixture *f, struct snap_reader_config c)
{
	struct snap_reader *r;
	struct error e = { 0 };

	c.snapshot = "snap-a";
	if (snap_reader_open(f->store, &c, &r, &e))
		fail_msg("%s", e.message);
	return r;
}

/* ---- one read, waited for ---- */

static void post(struct snap_read *read)
{
	sem_post(read->ctx);
}

static int read_wait(struct snap_reader *r, uint64_t off, void *out, uint64_t len)
{
	struct iovec iov[2] = { { out, len / 2 }, { (char *)out + len / 2, len - len / 2 } };
	sem_t ended;
	struct snap_read read = { .off_bytes = off, .len_bytes = len, .iov = iov, .iov_count = 2, .done = post, .ctx = &ended };

	sem_init(&ended, 0, 0);
	if (!snap_reader_read(r, &read))
		sem_wait(&ended);
	sem_destroy(&ended);
	return read.result;
}

static void check_all(struct fixture *f, struct snap_reader *r)
{
	unsigned char *out = malloc(SIZE);

	assert_int_equal(read_wait(r, 0, out, SIZE), 0);
	assert_memory_equal(out, f->data, SIZE);
	free(out);
}

/* ---- many ---- */

struct caller {
	struct fixture *f;
	struct snap_reader *r;
	uint64_t seed;
	unsigned wrong, failed;
};

static void *call(void *ctx)
{
	struct caller *c = ctx;
	unsigned char out[6 * KIT_CHUNK];

	for (unsigned i = 0; i < 300; i++) {
		uint64_t off = bucket_random(&c->seed) % (SIZE / 512) * 512;
		uint64_t len = (1 + bucket_random(&c->seed) % 40) * 512;

		len = MIN_OF(len, SIZE - off);

		if (read_wait(c->r, off, out, len))
			c->failed++;
		else
			c->wrong += memcmp(out, c->f->data + off, len) != 0;
	}
	return NULL;
}

static void many(struct fixture *f, struct snap_reader_config config)
{
	struct snap_reader *r = open_reader(f, config);
	struct caller callers[12];
	pthread_t thread[12];

	for (unsigned i = 0; i < 12; i++) {
		callers[i] = (struct caller){ .f = f, .r = r, .seed = f->seed + 77 * i };
		assert_int_equal(pthread_create(&thread[i], NULL, call, &callers[i]), 0);
	}
	for (unsigned i = 0; i < 12; i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(callers[i].wrong, 0);
		assert_int_equal(callers[i].failed, 0);
	}
	check_all(f, r);
	snap_reader_close(r);
}

static void test_many_callers(void **state)
{
	many(*state, (struct snap_reader_config){ 0 });
	many(*state, (struct snap_reader_config){ .chunks = 2, .threads = 3, .pages = 1, .readahead = -1 });
	many(*state, (struct snap_reader_config){ .chunks = 5, .threads = 8, .readahead = 64 });
}

static void test_bad_network(void **state)
{
	struct fixture *f = *state;

	f->bucket.fail_percent = 10;
	f->bucket.lost_percent = 5;
	f->bucket.short_percent = 1;
	f->bucket.corrupt_percent = 1;
	for (unsigned i = 0; i < 3; i++)
		many(f, (struct snap_reader_config){ .chunks = CHUNKS, .threads = 4 });
}

/* As bad as the bucket's double can be: all comes damaged as often as may be. */
static void test_damaged_on_the_way(void **state)
{
	struct fixture *f = *state;
	struct snap_reader *r = open_reader(f, (struct snap_reader_config){ .threads = 1, .readahead = -1 });
	struct snap_reader_stats st;

	f->bucket.corrupt_percent = 100;
	check_all(f, r);
	f->bucket.corrupt_percent = 0;
	snap_reader_stats(r, &st);
	assert_int_equal(st.corrupt, 0);
	snap_reader_close(r);
}

static void test_cache(void **state)
{
	struct fixture *f = *state;
	struct chunk_cache_stats st;
	struct error e = { 0 };

	/* A small one makes room; */
	assert_int_equal(chunk_cache_open(f->dir, 10 * KIT_CHUNK, &f->cache, &e), 0);
	many(f, (struct snap_reader_config){ .cache = f->cache, .chunks = 4 });
	chunk_cache_stats(f->cache, &st);
	assert_true(st.bytes <= 10 * KIT_CHUNK && st.evicted > 0 && st.dropped == 0);
	struct chunk_cache *second;
	assert_int_equal(chunk_cache_open(f->dir, 1 << 20, &second, NULL), -EBUSY);
	chunk_cache_close(f->cache);
	/* a large one keeps all, over a restart too, and then Walrus is asked for pages only. */
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(chunk_cache_open(f->dir, 1 << 20, &f->cache, &e), 0);
		struct snap_reader *r = open_reader(f, (struct snap_reader_config){ .cache = f->cache });
		struct snap_reader_stats rs;
		check_all(f, r);
		snap_reader_stats(r, &rs);
		assert_int_equal(i ? rs.fetches : rs.corrupt, 0);
		snap_reader_close(r);
		chunk_cache_close(f->cache);
	}
	f->cache = NULL;
}

/* Every file of the cache gets another byte, or another length. */
static unsigned spoil_cache(struct fixture *f)
{
	DIR *d = opendir(f->dir);
	struct dirent *de;
	unsigned count = 0;

	while ((de = readdir(d))) {
		if (strlen(de->d_name) != 64)
			continue;
		int fd = openat(dirfd(d), de->d_name, O_RDWR);
		if (count++ % 2)
			assert_int_equal(ftruncate(fd, 100), 0);
		else
			assert_int_equal(pwrite(fd, "spoilt", 6, 1000), 6);
		close(fd);
	}
	closedir(d);
	return count;
}

static void test_spoilt_cache(void **state)
{
	struct fixture *f = *state;
	struct chunk_cache_stats st;

	assert_int_equal(chunk_cache_open(f->dir, 1 << 20, &f->cache, NULL), 0);
	struct snap_reader *r = open_reader(f, (struct snap_reader_config){ .cache = f->cache, .chunks = 2 });
	check_all(f, r);
	assert_true(spoil_cache(f) > 20);
	check_all(f, r);
	chunk_cache_stats(f->cache, &st);
	assert_true(st.dropped > 20);
	check_all(f, r);
	snap_reader_close(r);
}

/* ---- corrupt objects ---- */

struct reported {
	_Atomic unsigned corrupt, failed;
	char message[512];
};

static void note(void *ctx, bool corrupt, const char *message)
{
	struct reported *n = ctx;

	*(corrupt ? &n->corrupt : &n->failed) += 1;
	snprintf(n->message, sizeof(n->message), "%s", message);
}

/* The first chunk of the snapshot that is stored. */
static uint64_t stored_chunk(struct fixture *f, struct bucket_object **ret_object, uint32_t *ret_off)
{
	struct snap_root *r;
	struct snap_page *p;
	char key[SNAP_KEY_MAX];
	unsigned i = 0;

	assert_int_equal(snap_open_root(f->store, "snap-a", NULL, &r, NULL), 0);
	assert_int_equal(snap_get_page(f->objects, r, 2, &p, NULL), 0);
	while (p->chunk[i].codec == SNAP_ZERO)
		assert_true(++i < KIT_PAGE);
	snap_page_chunk_key(p, i, key);
	*ret_object = bucket_find(&f->bucket, key);
	*ret_off = p->chunk[i].off;
	snap_page_free(p);
	snap_root_free(r);
	return 2 * KIT_PAGE + i;
}

static void test_corrupt_object(void **state)
{
	struct fixture *f = *state;
	struct reported n = { 0 };
	struct bucket_object *o;
	uint32_t off;
	uint64_t chunk = stored_chunk(f, &o, &off);
	struct snap_reader *r = open_reader(f, (struct snap_reader_config){ .report = note, .report_ctx = &n, .readahead = -1 });
	struct snap_reader_stats st;
	unsigned char out[KIT_CHUNK], *whole = malloc(SIZE);
	char number[32];

	o->data[off + 20] ^= 4;
	assert_int_equal(read_wait(r, chunk * KIT_CHUNK, out, KIT_CHUNK), -EIO);
	assert_int_equal(n.corrupt, 1);
	snprintf(number, sizeof(number), "chunk %u ", (unsigned)chunk);
	assert_non_null(strstr(n.message, "snap-a"));
	assert_non_null(strstr(n.message, number));
	assert_non_null(strstr(n.message, o->key));
	snap_reader_stats(r, &st);
	assert_int_equal(st.corrupt, 1);
	assert_int_equal(read_wait(r, 0, whole, SIZE), -EIO);
	/* Another chunk is what it was; and when the object is mended, so is this. */
	assert_int_equal(read_wait(r, 60 * KIT_CHUNK, out, KIT_CHUNK), 0);
	assert_memory_equal(out, f->data + 60 * KIT_CHUNK, KIT_CHUNK);
	o->data[off + 20] ^= 4;
	check_all(f, r);
	snap_reader_close(r);
	free(whole);
}

static void test_walrus_is_away(void **state)
{
	struct fixture *f = *state;
	struct reported n = { 0 };
	struct snap_reader *r = open_reader(f, (struct snap_reader_config){ .report = note, .report_ctx = &n, .readahead = -1 });
	unsigned char *out = malloc(SIZE);

	f->bucket.unreachable = true;
	assert_int_equal(read_wait(r, 0, out, SIZE), -EIO);
	assert_true(n.failed > 0 && n.corrupt == 0);
	f->bucket.unreachable = false;
	check_all(f, r);
	snap_reader_close(r);
	free(out);
}

/* ---- sharing and looking ahead ---- */

static void test_equal_fetches_are_one(void **state)
{
	struct fixture *f = *state;
	struct bucket_object *o;
	uint32_t off;
	uint64_t chunk = stored_chunk(f, &o, &off);
	struct snap_reader *r = open_reader(f, (struct snap_reader_config){ .readahead = -1 });
	unsigned char out[20][KIT_CHUNK];
	struct iovec iov[20];
	struct snap_read reads[20];
	unsigned waits = 0;
	sem_t ended;

	sem_init(&ended, 0, 0);
	f->bucket.delay_us = 50000;
	for (unsigned i = 0; i < 20; i++) {
		iov[i] = (struct iovec){ out[i], KIT_CHUNK };
		reads[i] = (struct snap_read){ .off_bytes = chunk * KIT_CHUNK, .len_bytes = KIT_CHUNK, .iov = &iov[i], .iov_count = 1,
					       .done = post, .ctx = &ended };
		waits += !snap_reader_read(r, &reads[i]);
	}
	while (waits--)
		sem_wait(&ended);
	struct snap_reader_stats st;
	snap_reader_stats(r, &st);
	assert_int_equal(st.fetches, 1);
	for (unsigned i = 0; i < 20; i++)
		assert_memory_equal(out[i], f->data + chunk * KIT_CHUNK, KIT_CHUNK);
	snap_reader_close(r);
	sem_destroy(&ended);
}

static void test_sequence_is_fetched_ahead(void **state)
{
	struct fixture *f = *state;
	struct snap_reader *r = open_reader(f, (struct snap_reader_config){ 0 });
	struct snap_reader_stats st;
	unsigned char out[1024];

	for (uint64_t off = 0; off < SIZE; off += 1024) {
		assert_int_equal(read_wait(r, off, out, 1024), 0);
		assert_memory_equal(out, f->data + off, 1024);
	}
	snap_reader_stats(r, &st);
	assert_true(st.ahead > 40 && st.ahead_used > 40);
	/* Each chunk once. */
	assert_true(st.fetches <= CHUNKS);
	snap_reader_close(r);
	/* At random there is none. */
	r = open_reader(f, (struct snap_reader_config){ 0 });
	for (unsigned i = 0; i < 50; i++)
		read_wait(r, (i * 37 % CHUNKS) * (uint64_t)KIT_CHUNK, out, 512);
	snap_reader_stats(r, &st);
	assert_true(st.ahead < 5);
	snap_reader_close(r);
}

static void test_extents(void **state)
{
	struct fixture *f = *state;
	struct snap_reader *r = open_reader(f, (struct snap_reader_config){ 0 });

	for (uint64_t off = 512, len; off < SIZE; off += len) {
		bool zero;

		len = snap_reader_extent(r, off, SIZE - off, &zero);
		assert_true(len > 0 && off + len <= SIZE);
		for (uint64_t at = off / KIT_CHUNK * KIT_CHUNK; at < off + len; at += KIT_CHUNK)
			assert_int_equal(zero, snap_all_zero(f->data + at, MIN_OF((uint64_t)KIT_CHUNK, SIZE - at)));
		if (off + len < SIZE) {
			bool other;
			snap_reader_extent(r, off + len, 512, &other);
			assert_int_not_equal(zero, other);
		}
	}
	snap_reader_close(r);
}

static void test_not_deleted_while_read(void **state)
{
	struct fixture *f = *state;
	struct snap_reader *r = open_reader(f, (struct snap_reader_config){ 0 });

	assert_int_equal(snap_delete(f->store, "snap-a", NULL, NULL), -EBUSY);
	snap_reader_close(r);
	assert_int_equal(snap_delete(f->store, "snap-a", NULL, NULL), 0);
	struct snap_reader_config c = { .snapshot = "snap-a" };
	assert_int_equal(snap_reader_open(f->store, &c, &r, NULL), -ENOENT);
	assert_int_equal(f->bucket.count, 0);
}

/* Of a plain snapshot, and of an encrypted one. */
#define BOTH(f) cmocka_unit_test_setup_teardown(f, setup, teardown), { #f " encrypted", f, setup_encrypted, teardown, NULL }

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_many_callers),
		BOTH(test_bad_network),
		BOTH(test_damaged_on_the_way),
		BOTH(test_cache),
		BOTH(test_spoilt_cache),
		BOTH(test_corrupt_object),
		BOTH(test_walrus_is_away),
		BOTH(test_equal_fetches_are_one),
		BOTH(test_sequence_is_fetched_ahead),
		BOTH(test_extents),
		BOTH(test_not_deleted_while_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
