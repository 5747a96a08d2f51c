/* SPDX-License-Identifier: Apache-2.0 */
#include "object/test_util_priv.h"

static void put(struct fixture *f, const char *key)
{
	struct error e = {0};

	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, key, 3, 1, (struct store_condition){0}, &e));
}

/* Pages of `max`, as one text: objects as they are, prefixes in brackets, pages apart by '|'. */
static const char *listed(struct fixture *f, const char *prefix, const char *delimiter,
			  const char *after, int max)
{
	struct store_list q = {.bucket = f->b.id,
			       .prefix = prefix,
			       .delimiter = delimiter,
			       .after = after,
			       .max = max};
	struct buf out = BUF_INIT;
	struct error e = {0};

	for (;;) {
		struct store_listing l;
		size_t o = 0, p = 0;

		assert_ok(&e, store_object_list(f->s, f->a, &q, &l, &e));
		assert_true(l.object_count + l.prefix_count <= (size_t)max);
		while (o < l.object_count || p < l.prefix_count) {
			if (p == l.prefix_count ||
			    (o < l.object_count && strcmp(l.objects[o].key, l.prefixes[p]) < 0))
				buf_printf(&out, "%s ", l.objects[o++].key);
			else
				buf_printf(&out, "[%s] ", l.prefixes[p++]);
		}
		if (!l.truncated)
			break;
		assert_non_null(l.last);
		buf_puts(&out, "| ");
		q.after = l.last;
	}
	buf_puts(&out, "");
	char *text = arena_strdup(f->a, out.data ? out.data : "");

	buf_done(&out);
	return text;
}

static void test_order(void **state)
{
	struct fixture *f = *state;

	static const char *const keys[] = {
	    "b", "a",	 "a/",		"a b", "\xc3\xa9", "Z", "\xf0\x9f\x8c\xb3",
	    "~", "a//b", "\xef\xbf\xbd"};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		put(f, keys[i]);
	assert_string_equal(listed(f, NULL, NULL, NULL, 1000),
			    "Z a a b a/ a//b b ~ \xc3\xa9 \xef\xbf\xbd \xf0\x9f\x8c\xb3 ");
	assert_string_equal(listed(f, "a", "", NULL, 2), "a a b | a/ a//b ");
	assert_string_equal(listed(f, "a", "", "a b", 2), "a/ a//b ");
	assert_string_equal(listed(f, "nothing", "", NULL, 2), "");
	assert_string_equal(listed(f, "\xf0", "", NULL, 2), "\xf0\x9f\x8c\xb3 ");
}

static void test_delimiter(void **state)
{
	struct fixture *f = *state;
	static const char *const keys[] = {"photos/2006/feb/1", "photos/2006/jan/1",
					   "photos/2006/jan/2", "photos/a",
					   "sample.jpg",	"photos",
					   "photos/",		"zz/1"};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		put(f, keys[i]);
	assert_string_equal(listed(f, "", "/", NULL, 1000), "photos [photos/] sample.jpg [zz/] ");
	assert_string_equal(listed(f, "", "/", NULL, 1),
			    "photos | [photos/] | sample.jpg | [zz/] ");
	assert_string_equal(listed(f, "photos/", "/", NULL, 1),
			    "photos/ | [photos/2006/] | photos/a ");
	assert_string_equal(listed(f, "photos/2006/", "/", NULL, 10),
			    "[photos/2006/feb/] [photos/2006/jan/] ");
	assert_string_equal(listed(f, "", "/", "photos/2006", 10), "sample.jpg [zz/] ");
	assert_string_equal(listed(f, "photos/2006/jan", "", NULL, 10),
			    "photos/2006/jan/1 photos/2006/jan/2 ");
	assert_string_equal(
	    listed(f, "", "/jan/", NULL, 10),
	    "photos photos/ photos/2006/feb/1 [photos/2006/jan/] photos/a sample.jpg zz/1 ");
	assert_string_equal(listed(f, "p", "o", NULL, 10), "[pho] ");
}

static void test_pages(void **state)
{
	struct fixture *f = *state;
	struct store_list q = {.bucket = f->b.id, .max = 0};
	struct store_listing l;
	struct error e = {0};

	put(f, "a");
	assert_ok(&e, store_object_list(f->s, f->a, &q, &l, &e));
	assert_false(l.truncated);
	q.max = 1;
	assert_ok(&e, store_object_list(f->s, f->a, &q, &l, &e));
	assert_int_equal(l.object_count, 1);
	assert_false(l.truncated);
	q.max = STORE_LIST_MAX + 1;
	assert_code(store_object_list(f->s, f->a, &q, &l, &e_), "InvalidArgument");
}

/* A page over few prefixes with many objects below takes a few seeks, not a walk over all: the
 * arena tells, since every row that is looked at leaves its key there. */
static void test_skip_scan(void **state)
{
	struct fixture *f = *state;
	struct store_list q = {.bucket = f->b.id, .delimiter = "/", .max = 1000};
	struct store_listing l;
	struct error e = {0};

	for (int d = 0; d < 4; d++)
		for (int i = 0; i < 500; i++)
			put(f, arena_printf(f->a, "dir%d/%0200d", d, i));
	_cleanup_(arena_freep) struct arena *a = arena_new();

	assert_ok(&e, store_object_list(f->s, a, &q, &l, &e));
	assert_int_equal(l.prefix_count, 4);
	assert_int_equal(l.object_count, 0);
	assert_true(arena_used(a) <
		    1000 * (sizeof(struct store_object) + sizeof(char *)) + 20 * 1024);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_order, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_delimiter, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_pages, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_skip_scan, fixture_up, fixture_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
