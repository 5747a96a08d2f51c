/* SPDX-License-Identifier: Apache-2.0 */
#include "object/test_util_priv.h"

#define MIB (UINT64_C(1) << 20)

static const struct store_pairs no_pairs;

static const char *begin(struct fixture *f, const char *key)
{
	char *id = arena_alloc(f->a, STORE_UPLOAD_ID_LEN);
	struct error e = {0};

	assert_ok(&e, store_upload_create(f->s, f->b.id, key, &no_pairs, id, &e));
	return id;
}

static int put_part(struct fixture *f, const char *key, const char *id, int n, uint64_t size,
		    uint64_t seed, const char **ret_etag, struct error *e)
{
	_cleanup_(store_writer_freep) struct store_writer *w = pattern_writer(f->s, size, seed, e);
	struct store_part p;

	assert_non_null(w);
	int r = store_writer_commit_part(w, f->a, f->b.id, key, id, n, &no_pairs, &p, e);

	if (r >= 0 && ret_etag)
		*ret_etag = p.etag;
	return r;
}

static void test_complete(void **state)
{
	struct fixture *f = *state;
	const char *id = begin(f, "k");
	struct store_part_ref refs[3] = {{.number = 2}, {.number = 5}, {.number = 9}};
	struct store_complete c = {
	    .bucket = f->b.id, .key = "k", .upload = id, .parts = refs, .part_count = 3};
	_cleanup_(store_reader_freep) struct store_reader *r = NULL;
	struct store_object o, again;
	struct error e = {0};
	uint64_t off, len;

	assert_ok(&e, put_part(f, "k", id, 5, 7 * MIB, 5, NULL, &e));
	assert_ok(&e, put_part(f, "k", id, 9, 1000, 9, &refs[2].etag, &e));
	assert_ok(&e, put_part(f, "k", id, 2, 5 * MIB, 2, &refs[0].etag, &e));
	assert_ok(&e, put_part(f, "k", id, 5, 6 * MIB, 50, &refs[1].etag, &e)); /* again */
	assert_ok(&e, put_part(f, "k", id, 7, 6 * MIB, 7, NULL, &e));		/* left out */
	assert_code(store_object_head(f->s, f->a, f->b.id, "k", &o, &e_), "NoSuchKey");
	assert_int_equal(fixture_files(f), 3);

	assert_ok(&e, store_upload_complete(f->s, f->a, &c, &o, &e));
	assert_int_equal(o.size, 11 * MIB + 1000);
	assert_int_equal(o.part_count, 3);
	assert_string_equal(o.etag + 32, "-3");
	assert_int_equal(fixture_files(f), 2);
	fixture_reopen(f);
	assert_int_equal(fixture_files(f), 2);

	assert_ok(&e, store_upload_complete(f->s, f->a, &c, &again, &e)); /* the reply was lost */
	assert_string_equal(again.etag, o.etag);
	assert_ok(&e, store_object_open(f->s, f->a, f->b.id, "k", &o, &r, &e));
	assert_string_equal(again.etag, o.etag);
	assert_true(store_reader_part(r, 2, &off, &len));
	assert_int_equal(off, 5 * MIB);
	assert_int_equal(len, 6 * MIB);
	assert_false(store_reader_part(r, 4, &off, &len));

	unsigned char got[64], wanted[64];

	assert_int_equal(store_reader_read(r, 5 * MIB - 10, got, 64), 10);
	pattern_fill(wanted, 10, 5 * MIB - 10, 2);
	assert_memory_equal(got, wanted, 10);
	assert_int_equal(store_reader_read(r, 5 * MIB, got, 64), 64);
	pattern_fill(wanted, 64, 0, 50);
	assert_memory_equal(got, wanted, 64);
	const struct store_copy copy = {
	    .from = r, .object = &o, .to = {.bucket = f->b.id, .key = "copy"}};

	assert_ok(&e, store_object_copy(f->s, f->a, &copy, &again, &e));
	assert_string_equal(again.etag, o.etag);
	assert_int_equal(fixture_files(f), 4);
	assert_ok(&e, store_object_head(f->s, f->a, f->b.id, "copy", &again, &e));
	assert_int_equal(again.part_count, 3);
	assert_ok(&e, store_objects_delete(f->s, f->b.id, (const char *[]){"copy"}, 1, NULL, &e));
	assert_ok(&e, store_objects_delete(f->s, f->b.id, (const char *[]){"k"}, 1, NULL, &e));
	assert_int_equal(fixture_files(f),
			 2); /* the reader still needs them, though one is not open */
	assert_int_equal(store_reader_read(r, 11 * MIB + 990, got, 64), 10);
	pattern_fill(wanted, 10, 990, 9);
	assert_memory_equal(got, wanted, 10);
	assert_int_equal(store_reader_read(r, 0, got, 64), 64);
	store_reader_free(TAKE_PTR(r));
	assert_int_equal(fixture_files(f), 0);
	assert_code(store_upload_complete(f->s, f->a, &c, &o, &e_), "NoSuchUpload");
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	const char *id = begin(f, "k"), *etag1, *etag2;
	struct store_object o;
	struct error e = {0};

	assert_ok(&e, put_part(f, "k", id, 1, 100000, 1, &etag1, &e));
	assert_ok(&e, put_part(f, "k", id, 2, 5 * MIB, 2, &etag2, &e));
	struct store_part_ref small[] = {{1, etag1}, {2, etag2}},
			      order[] = {{2, etag2}, {1, etag1}}, wrong[] = {{1, etag2}},
			      missing[] = {{2, etag2}, {3, etag1}}, gap[] = {{0, etag1}};
	struct store_complete c = {
	    .bucket = f->b.id, .key = "k", .upload = id, .parts = small, .part_count = 2};

	assert_code(store_upload_complete(f->s, f->a, &c, &o, &e_), "EntityTooSmall");
	c.parts = order;
	assert_code(store_upload_complete(f->s, f->a, &c, &o, &e_), "InvalidPartOrder");
	c.parts = missing;
	assert_code(store_upload_complete(f->s, f->a, &c, &o, &e_), "InvalidPart");
	c.part_count = 1;
	c.parts = wrong;
	assert_code(store_upload_complete(f->s, f->a, &c, &o, &e_), "InvalidPart");
	c.parts = gap;
	assert_code(store_upload_complete(f->s, f->a, &c, &o, &e_), "InvalidArgument");
	c.part_count = 0;
	assert_code(store_upload_complete(f->s, f->a, &c, &o, &e_), "InvalidArgument");
	c.part_count = 1;
	c.parts = small;
	c.key = "other";
	assert_code(store_upload_complete(f->s, f->a, &c, &o, &e_), "NoSuchUpload");
	c.key = "k";
	c.condition.if_match = "*";
	assert_code(store_upload_complete(f->s, f->a, &c, &o, &e_), "NoSuchKey");
	assert_code(put_part(f, "k", id, 0, 10, 1, NULL, &e_), "InvalidArgument");
	assert_code(put_part(f, "k", id, STORE_PART_NUMBER_MAX + 1, 10, 1, NULL, &e_),
		    "InvalidArgument");
	assert_code(put_part(f, "k", "nosuch", 1, 100000, 1, NULL, &e_), "NoSuchUpload");
	assert_int_equal(fixture_files(f), 2); /* all refusals left the upload as it was */

	c.condition.if_match = NULL;
	c.condition.if_none = true;
	assert_ok(&e, store_upload_complete(f->s, f->a, &c, &o, &e));
	assert_int_equal(o.size, 100000);
}

static void test_abort(void **state)
{
	struct fixture *f = *state;
	const char *id = begin(f, "k"), *id2 = begin(f, "k");
	struct error e = {0};

	assert_ok(&e, put_part(f, "k", id, 1, 100000, 1, NULL, &e));
	assert_ok(&e, put_part(f, "k", id, 2, 10, 1, NULL, &e));
	assert_ok(&e, put_part(f, "k", id2, 1, 100000, 1, NULL, &e));
	assert_code(store_upload_abort(f->s, f->b.id, "k", "nosuch", &e_), "NoSuchUpload");
	assert_ok(&e, store_upload_abort(f->s, f->b.id, "k", id, &e));
	assert_code(store_upload_abort(f->s, f->b.id, "k", id, &e_), "NoSuchUpload");
	assert_int_equal(fixture_files(f), 1);
	assert_ok(&e, store_bucket_delete(f->s, f->b.id, &e)); /* takes the other with it */
	assert_int_equal(fixture_files(f), 0);
}

static void test_list(void **state)
{
	struct fixture *f = *state;
	static const char *const keys[] = {"a", "d/x", "d/y", "b", "b"};
	struct store_upload_list q = {.bucket = f->b.id, .delimiter = "/", .max = 1};
	struct store_upload_listing l;
	struct store_part *parts;
	struct buf seen = BUF_INIT;
	struct error e = {0};
	const char *id = NULL;
	size_t count;
	bool truncated;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		id = begin(f, keys[i]);
	do {
		assert_ok(&e, store_upload_list(f->s, f->a, &q, &l, &e));
		assert_int_equal(l.upload_count + l.prefix_count, 1);
		buf_printf(&seen, "%s ", l.upload_count ? l.uploads[0].key : l.prefixes[0]);
		q.key_marker = l.last_key;
		q.id_marker = l.last_id;
	} while (l.truncated);
	assert_string_equal(seen.data, "a b b d/ ");
	buf_done(&seen);
	q = (struct store_upload_list){.bucket = f->b.id, .max = 10, .key_marker = "b"};
	assert_ok(&e, store_upload_list(f->s, f->a, &q, &l, &e));
	assert_int_equal(l.upload_count, 2); /* both of d/ */

	for (int n = 1; n <= 5; n++)
		assert_ok(&e, put_part(f, "b", id, 2 * n, 10, 1, NULL, &e));
	assert_ok(&e, store_part_list(f->s, f->a, f->b.id, "b", id, 2, 3, &parts, &count,
				      &truncated, &e));
	assert_int_equal(count, 3);
	assert_int_equal(parts[0].number, 4);
	assert_true(truncated);
	assert_ok(&e, store_part_list(f->s, f->a, f->b.id, "b", id, 8, 3, &parts, &count,
				      &truncated, &e));
	assert_int_equal(count, 1);
	assert_false(truncated);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_complete, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_refused, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_abort, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_list, fixture_up, fixture_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
