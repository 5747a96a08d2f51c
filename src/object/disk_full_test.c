/* SPDX-License-Identifier: Apache-2.0 */
#include "object/test_util_priv.h"

#include <errno.h>
#include <sched.h>
#include <sys/mount.h>

/* A store on a file system of 48 MiB, in a mount namespace of this test's own. */
#define DISK "size=48m"

static bool have_small_disk(void)
{
	uid_t uid = getuid();
	char map[64];

	if (unshare(uid == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return false;
	if (uid != 0) {
		snprintf(map, sizeof(map), "0 %d 1", (int)uid);
		FILE *f = fopen("/proc/self/uid_map", "we");

		if (!f || fputs(map, f) < 0 || fclose(f) < 0)
			return false;
	}
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return false;
	return mount("tmpfs", "/tmp", "tmpfs", 0, DISK) == 0;
}

static int64_t free_bytes(struct store *s)
{
	struct store_status status;
	struct error e = {0};

	assert_ok(&e, store_status(s, &status, &e));
	return status.free_bytes;
}

static void test_full(void **state)
{
	const struct store_condition always = {0};
	struct arena *a = arena_new();
	struct store *s;
	struct store_bucket b;
	struct store_writer *w;
	struct store_object o;
	struct error e = {0};
	int small = 0;

	assert_ok(&e, store_open("/tmp/store", &s, &e));
	b = (struct store_bucket){.name = "bucket", .account = "1", .owner = "o"};
	assert_ok(&e, store_bucket_create(s, &b, &e));
	assert_ok(&e, store_bucket_get(s, a, "bucket", &b, &e));
	assert_ok(&e, pattern_put(s, a, b.id, "kept", 1000000, 1, always, &e));

	/* Told before the data is sent, when the size is known. */
	assert_code(store_writer_new(s, 60000000, 0, &w, &e_), "InsufficientStorage");
	/* Told in the middle when not, and what was written is given back. */
	int64_t before = free_bytes(s);

	assert_ok(&e, store_writer_new(s, STORE_SIZE_UNKNOWN, 0, &w, &e));
	char piece[65536] = {0};
	int r = 0;

	for (int i = 0; i < 2000 && r >= 0; i++)
		r = store_writer_write(w, piece, sizeof(piece), &e);
	assert_true(r < 0);
	assert_string_equal(e.code, "InsufficientStorage");
	store_writer_free(w);
	assert_true(free_bytes(s) >= before);

	/* Full of small objects: refused, and what was acknowledged stays. */
	error_clear(&e);
	while (pattern_put(s, a, b.id, arena_printf(a, "small%d", small), 20000, (uint64_t)small,
			   always, &e) >= 0)
		small++;
	assert_string_equal(e.code, "InsufficientStorage");
	assert_true(small > 50);
	error_clear(&e);
	store_close(s);
	assert_ok(&e, store_open("/tmp/store", &s, &e));
	for (int i = 0; i < small; i++) {
		_cleanup_(store_reader_freep) struct store_reader *rd = NULL;

		assert_ok(
		    &e, store_object_open(s, a, b.id, arena_printf(a, "small%d", i), &o, &rd, &e));
		assert_true(pattern_read(rd, 0, 20000, (uint64_t)i));
	}
	/* Deleting works on a full disk, also all at once, and makes room. */
	const char **keys = arena_new_array(a, const char *, (size_t)small + 1);

	for (int i = 0; i < small; i++)
		keys[i] = arena_printf(a, "small%d", i);
	keys[small] = "kept";
	assert_ok(&e, store_objects_delete(s, b.id, keys, (size_t)small + 1, NULL, &e));
	assert_ok(&e, pattern_put(s, a, b.id, "new", 500000, 3, always, &e));
	store_close(s);
	arena_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_full),
	};

	if (!have_small_disk()) {
		printf("skipped: no mount namespace of its own for a small file system: %s\n",
		       strerror(errno));
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
