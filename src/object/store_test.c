/* SPDX-License-Identifier: Apache-2.0 */
#include "object/test_util_priv.h"

#include <pthread.h>
#include <sys/stat.h>

#include "base/id.h"

static const struct store_condition always = {0};

static void test_buckets(void **state)
{
	struct fixture *f = *state;
	struct store_bucket *list, other = {.name = "bucket", .account = "2", .owner = "o2"};
	struct error e = {0};
	size_t count;

	assert_code(store_bucket_create(f->s, &other, &e_), "BucketAlreadyExists");
	other.account = "1";
	assert_code(store_bucket_create(f->s, &other, &e_), "BucketAlreadyOwnedByYou");
	for (int i = 1; i < STORE_BUCKETS_PER_ACCOUNT; i++) {
		other.name = arena_printf(f->a, "b%03d", i);
		assert_ok(&e, store_bucket_create(f->s, &other, &e));
	}
	other.name = "onemore";
	assert_code(store_bucket_create(f->s, &other, &e_), "TooManyBuckets");
	assert_ok(&e, store_bucket_list(f->s, f->a, "1", &list, &count, &e));
	assert_int_equal(count, STORE_BUCKETS_PER_ACCOUNT);
	assert_string_equal(list[0].name, "b001");
	assert_string_equal(list[count - 1].name, "bucket");
	assert_ok(&e, store_bucket_list(f->s, f->a, "2", &list, &count, &e));
	assert_int_equal(count, 0);

	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "k", 10, 1, always, &e));
	assert_code(store_bucket_delete(f->s, f->b.id, &e_), "BucketNotEmpty");
	assert_ok(&e, store_objects_delete(f->s, f->b.id, (const char *[]){"k"}, 1, NULL, &e));
	assert_ok(&e, store_bucket_delete(f->s, f->b.id, &e));
	assert_code(store_bucket_get(f->s, f->a, "bucket", &other, &e_), "NoSuchBucket");
	assert_code(pattern_put(f->s, f->a, f->b.id, "k", 100000, 1, always, &e_), "NoSuchBucket");
	assert_int_equal(fixture_files(f), 0);
}

static void test_put_get(void **state)
{
	struct fixture *f = *state;
	static const uint64_t sizes[] = {
	    0, 1, 100, STORE_INLINE_MAX, STORE_INLINE_MAX + 1, 1000000, 20000000};
	struct error e = {0};

	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			_cleanup_(store_reader_freep) struct store_reader *r = NULL;
			char *key = arena_printf(f->a, "key %zu", i);
			struct store_object o;

			if (round == 0)
				assert_ok(&e, pattern_put(f->s, f->a, f->b.id, key, sizes[i], i,
							  always, &e));
			assert_ok(&e, store_object_open(f->s, f->a, f->b.id, key, &o, &r, &e));
			assert_int_equal(o.size, sizes[i]);
			assert_true(pattern_read(r, 0, sizes[i], i));
			assert_true(pattern_read(r, sizes[i] / 3, sizes[i], i));
		}
		fixture_reopen(f);
	}
	struct store_status st;

	assert_ok(&e, store_status(f->s, &st, &e));
	assert_int_equal(st.objects, ARRAY_SIZE(sizes));
	assert_int_equal(st.bytes, 0 + 1 + 100 + 2 * STORE_INLINE_MAX + 1 + 1000000 + 20000000);
	assert_int_equal(fixture_files(f), 3);
}

static void test_etag_pairs(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};
	_cleanup_(store_writer_freep) struct store_writer *w = NULL;
	const struct store_pair pairs[] = {
	    {"content-type", "text/plain"}, {"meta", ""}, {"x", "y z"}};
	struct store_put put = {.bucket = f->b.id, .key = "o", .pairs = {3, pairs}};
	struct store_object o;
	unsigned char sha[DIGEST_MAX];

	assert_ok(&e,
		  store_writer_new(f->s, STORE_SIZE_UNKNOWN, DIGEST_BIT(DIGEST_SHA256), &w, &e));
	assert_ok(&e, store_writer_write(w, "1234", 4, &e));
	assert_ok(&e, store_writer_write(w, "56789", 5, &e));
	assert_int_equal(store_writer_digest(w, DIGEST_SHA256, sha), 32);
	assert_int_equal(sha[0], 0x15);
	assert_ok(&e, store_writer_commit(w, f->a, &put, &o, &e));
	assert_string_equal(o.etag, "25f9e794323b453885f5181f1b624d0b");
	assert_ok(&e, store_object_head(f->s, f->a, f->b.id, "o", &o, &e));
	assert_int_equal(o.size, 9);
	assert_int_equal(o.pairs.count, 3);
	assert_string_equal(store_pairs_get(&o.pairs, "content-type"), "text/plain");
	assert_string_equal(store_pairs_get(&o.pairs, "meta"), "");
	assert_string_equal(store_pairs_get(&o.pairs, "x"), "y z");
	assert_null(store_pairs_get(&o.pairs, "z"));
	assert_int_equal(o.modified_ms % 1000, 0);
}

static void test_abort_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};
	struct store_writer *w = pattern_writer(f->s, 500000, 1, &e);
	struct store_object o;

	assert_non_null(w);
	assert_int_equal(fixture_files(f), 1);
	store_writer_free(w);
	assert_int_equal(fixture_files(f), 0);
	assert_code(store_object_head(f->s, f->a, f->b.id, "o", &o, &e_), "NoSuchKey");
}

static void test_conditions(void **state)
{
	struct fixture *f = *state;
	struct store_condition none = {.if_none = true}, any = {.if_match = "*"},
			       match = {.if_match = "bad"};
	struct error e = {0};
	struct store_object o;

	assert_code(pattern_put(f->s, f->a, f->b.id, "k", 9, 1, any, &e_), "NoSuchKey");
	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "k", 90000, 1, none, &e));
	assert_code(pattern_put(f->s, f->a, f->b.id, "k", 80000, 2, none, &e_),
		    "PreconditionFailed");
	assert_code(pattern_put(f->s, f->a, f->b.id, "k", 80000, 2, match, &e_),
		    "PreconditionFailed");
	assert_ok(&e, store_object_head(f->s, f->a, f->b.id, "k", &o, &e));
	assert_int_equal(o.size, 90000);
	match.if_match = o.etag;
	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "k", 70000, 2, match, &e));
	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "k", 60000, 2, any, &e));
	assert_code(store_object_delete_if(f->s, f->b.id, "k", "other", &e_), "PreconditionFailed");
	assert_ok(&e, store_object_delete_if(f->s, f->b.id, "k", "*", &e));
	assert_code(store_object_delete_if(f->s, f->b.id, "k", "*", &e_), "NoSuchKey");
	assert_int_equal(fixture_files(f), 0);
}

static void test_reader_outlives_object(void **state)
{
	struct fixture *f = *state;
	_cleanup_(store_reader_freep) struct store_reader *r = NULL;
	struct store_object o;
	struct error e = {0};

	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "k", 300000, 1, always, &e));
	assert_ok(&e, store_object_open(f->s, f->a, f->b.id, "k", &o, &r, &e));
	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "k", 400000, 2, always, &e));
	assert_ok(&e, store_objects_delete(f->s, f->b.id, (const char *[]){"k"}, 1, NULL, &e));
	assert_int_equal(fixture_files(f), 1); /* the reader's */
	assert_true(pattern_read(r, 0, 300000, 1));

	int fd;
	uint64_t off;
	unsigned char got[10], wanted[10];

	assert_true(store_reader_file(r, 1000, 10, &fd, &off));
	pattern_fill(wanted, 10, 1000, 1);
	assert_int_equal(pread(fd, got, 10, (off_t)off), 10);
	assert_memory_equal(got, wanted, 10);
	close(fd);
	assert_false(store_reader_file(r, 299995, 10, &fd, &off));
	store_reader_free(TAKE_PTR(r));
	assert_int_equal(fixture_files(f), 0);
}

static int copy(struct fixture *f, const char *from, const char *to,
		struct store_condition condition, struct error *e)
{
	_cleanup_(store_reader_freep) struct store_reader *r = NULL;
	struct store_object o, copied;

	assert_ok(e, store_object_open(f->s, f->a, f->b.id, from, &o, &r, e));
	const struct store_copy c = {
	    .from = r, .object = &o, .to = {f->b.id, to, .condition = condition}};

	return store_object_copy(f->s, f->a, &c, &copied, e);
}

static void test_copy(void **state)
{
	struct fixture *f = *state;
	static const uint64_t sizes[] = {0, 100, 300000};
	struct error e = {0};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_cleanup_(store_reader_freep) struct store_reader *r = NULL;
		struct store_object o;

		assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "from", sizes[i], i, always, &e));
		assert_ok(&e, copy(f, "from", "to", always, &e));
		assert_ok(&e, copy(f, "to", "to", always, &e)); /* onto itself */
		assert_code(copy(f, "from", "to", (struct store_condition){.if_none = true}, &e_),
			    "PreconditionFailed");
		assert_int_equal(fixture_files(f), sizes[i] > STORE_INLINE_MAX ? 2 : 0);
		assert_ok(
		    &e, store_objects_delete(f->s, f->b.id, (const char *[]){"from"}, 1, NULL, &e));
		fixture_reopen(f);
		assert_ok(&e, store_object_open(f->s, f->a, f->b.id, "to", &o, &r, &e));
		assert_true(pattern_read(r, 0, sizes[i], i));
	}
	assert_ok(&e, store_objects_delete(f->s, f->b.id, (const char *[]){"to"}, 1, NULL, &e));
	assert_int_equal(fixture_files(f), 0);
}

static void test_delete_many(void **state)
{
	struct fixture *f = *state;
	const char *keys[] = {"a", "missing", "b"};
	bool existed[3];
	struct error e = {0};

	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "a", 3, 1, always, &e));
	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "b", 300000, 1, always, &e));
	assert_ok(&e, store_objects_delete(f->s, f->b.id, keys, 3, existed, &e));
	assert_true(existed[0] && !existed[1] && existed[2]);
	assert_int_equal(fixture_files(f), 0);
}

static void test_keys(void **state)
{
	struct fixture *f = *state;
	char longest[STORE_KEY_MAX + 2];
	struct store_object o;
	struct error e = {0};

	memset(longest, 'x', sizeof(longest));
	longest[STORE_KEY_MAX + 1] = '\0';
	assert_code(pattern_put(f->s, f->a, f->b.id, longest, 1, 1, always, &e_),
		    "KeyTooLongError");
	longest[STORE_KEY_MAX] = '\0';
	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, longest, 1, 1, always, &e));
	assert_code(pattern_put(f->s, f->a, f->b.id, "", 1, 1, always, &e_), "InvalidArgument");
	assert_code(pattern_put(f->s, f->a, f->b.id, "\xff\xfe", 1, 1, always, &e_),
		    "InvalidArgument");
	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "../../etc/passwd", 50000, 1, always, &e));
	assert_ok(&e, store_object_head(f->s, f->a, f->b.id, "../../etc/passwd", &o, &e));
}

static void test_garbage_collected(void **state)
{
	struct fixture *f = *state;
	char path[256];
	struct error e = {0};

	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "k", 300000, 1, always, &e));
	snprintf(path, sizeof(path), "%s/data/00/1234567890abcd00", f->dir);
	assert_int_equal(file_write_atomic(path, "x", 1, 0600), 0);
	snprintf(path, sizeof(path), "%s/data/01/strange", f->dir);
	assert_int_equal(file_write_atomic(path, "x", 1, 0600), 0);
	assert_int_equal(fixture_files(f), 3);
	fixture_reopen(f);
	assert_int_equal(fixture_files(f), 1);
}

/* Without its metadata nothing can be read, but the metadata may come back. */
static void test_lost_database(void **state)
{
	static const char *const ends[] = {"", "-wal", "-shm"};
	struct fixture *f = *state;
	struct error e = {0};
	char path[128];

	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "k", 100000, 1, always, &e));
	store_close(TAKE_PTR(f->s));
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		snprintf(path, sizeof(path), "%s/walrus.db%s", f->dir, ends[i]);
		unlink(path);
	}
	for (int i = 0; i < 2; i++) {
		assert_code(store_open(f->dir, &f->s, &e_), "InternalError");
		assert_int_equal(fixture_files(f), 1);
	}
}

static void test_one_process(void **state)
{
	struct fixture *f = *state;
	struct store *second = NULL;

	assert_code(store_open(f->dir, &second, &e_), "InternalError");
	assert_null(second);
}

struct hammer {
	struct fixture *f;
	unsigned number;
	int failures;
};

/* Writers and readers of the same few keys at once: every read gives one whole version. */
static void *hammer_run(void *ctx)
{
	struct hammer *h = ctx;
	struct error e = {0};

	for (unsigned i = 0; i < 60; i++) {
		_cleanup_(arena_freep) struct arena *a = arena_new();
		_cleanup_(store_reader_freep) struct store_reader *r = NULL;
		const char *key = (i + h->number) % 2 ? "one" : "two";
		struct store_object o;
		uint64_t size = 20000 + 1000 * ((i + h->number) % 50);

		error_clear(&e);
		if (h->number % 2 == 0) {
			h->failures +=
			    pattern_put(h->f->s, a, h->f->b.id, key, size, size, always, &e) < 0;
			continue;
		}
		if (store_object_open(h->f->s, a, h->f->b.id, key, &o, &r, &e) < 0)
			h->failures += strcmp(e.code, "NoSuchKey") != 0;
		else
			h->failures += !pattern_read(r, 0, o.size, o.size);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct fixture *f = *state;
	struct hammer h[6];
	pthread_t threads[6];

	for (unsigned i = 0; i < 6; i++) {
		h[i] = (struct hammer){.f = f, .number = i};
		pthread_create(&threads[i], NULL, hammer_run, &h[i]);
	}
	for (unsigned i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(h[i].failures, 0);
	}
	assert_true(fixture_files(f) <= 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_buckets, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_put_get, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_etag_pairs, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_abort_leaves_nothing, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_conditions, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_reader_outlives_object, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_copy, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_delete_many, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_keys, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_garbage_collected, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_lost_database, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_one_process, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_threads, fixture_up, fixture_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
