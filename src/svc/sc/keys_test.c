/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/id.h"
#include "base/text.h"
#include "os/file.h"
#include "svc/sc/keys.h"

static char folder[64], dir[96];

static struct keys *open_keys(const char *path)
{
	struct keys *k;
	struct error e = { 0 };

	if (keys_open(path, &k, &e))
		fail_msg("%s", e.message);
	return k;
}

static void test_first_use(void **state)
{
	struct keys *k = open_keys(dir);
	char id[KEY_ID_LEN], path[128];
	struct stat st;

	keys_newest(k, id);
	assert_string_equal(id, "master-1");
	snprintf(path, sizeof(path), "%s/master-1", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_size, KEY_MASTER_BYTES);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	keys_close(k);
	keys_close(NULL);
}

static void test_wrapping(void **state)
{
	struct keys *k = open_keys(dir), *again;
	unsigned char key[KEY_VOLUME_BYTES], back[KEY_VOLUME_BYTES], wrapped[KEY_WRAPPED_MAX], other[KEY_WRAPPED_MAX];
	size_t len = sizeof(key) + KEY_WRAP_EXTRA;
	char id[KEY_ID_LEN];
	struct error e = { 0 };

	random_bytes(key, sizeof(key));
	assert_int_equal(keys_wrap(k, "volume vol-1", key, sizeof(key), id, wrapped, &e), 0);
	assert_int_equal(keys_wrap(k, "volume vol-1", key, sizeof(key), id, other, &e), 0);
	assert_memory_not_equal(wrapped, other, len);
	assert_null(memmem(wrapped, len, key, 8));
	assert_int_equal(keys_unwrap(k, id, "volume vol-1", wrapped, len, back, sizeof(back), &e), 0);
	assert_memory_equal(back, key, sizeof(key));
	again = open_keys(dir); /* after a restart */
	memset(back, 0, sizeof(back));
	assert_int_equal(keys_unwrap(again, id, "volume vol-1", wrapped, len, back, sizeof(back), &e), 0);
	assert_memory_equal(back, key, sizeof(key));
	keys_close(again);
	assert_int_equal(keys_unwrap(k, id, "volume vol-2", wrapped, len, back, sizeof(back), &e), -EKEYREJECTED);
	assert_non_null(strstr(e.message, "volume vol-2"));
	for (size_t i = 0; i < len; i++) {
		wrapped[i] ^= 1;
		assert_int_equal(keys_unwrap(k, id, "volume vol-1", wrapped, len, back, sizeof(back), NULL), -EKEYREJECTED);
		wrapped[i] ^= 1;
	}
	assert_true(keys_unwrap(k, id, "volume vol-1", wrapped, len - 1, back, sizeof(back), NULL) < 0);
	keys_close(k);
}

static void test_rotation(void **state)
{
	struct keys *k = open_keys(dir);
	unsigned char key[32], back[32], old[60], new[60];
	char id[KEY_ID_LEN], id2[KEY_ID_LEN];
	struct error e = { 0 };

	random_bytes(key, sizeof(key));
	assert_int_equal(keys_wrap(k, "x", key, sizeof(key), id, old, &e), 0);
	assert_int_equal(keys_rotate(k, &e), 0);
	assert_int_equal(keys_count(k), 2);
	assert_int_equal(keys_wrap(k, "x", key, sizeof(key), id2, new, &e), 0);
	assert_string_equal(id, "master-1");
	assert_string_equal(id2, "master-2");
	keys_close(k);
	k = open_keys(dir);
	assert_int_equal(keys_count(k), 2);
	assert_int_equal(keys_unwrap(k, id, "x", old, sizeof(old), back, sizeof(back), &e), 0);
	assert_memory_equal(back, key, sizeof(key));
	assert_int_equal(keys_unwrap(k, id2, "x", new, sizeof(new), back, sizeof(back), &e), 0);
	assert_int_equal(keys_unwrap(k, id2, "x", old, sizeof(old), back, sizeof(back), &e), -EKEYREJECTED);
	error_clear(&e);
	assert_int_equal(keys_unwrap(k, "master-3", "x", new, sizeof(new), back, sizeof(back), &e), -ENOKEY);
	assert_non_null(strstr(e.message, "master-3"));
	assert_int_equal(keys_unwrap(k, "../master-1", "x", new, sizeof(new), back, sizeof(back), NULL), -ENOKEY);
	keys_close(k);
}

static void test_another_folder(void **state)
{
	char other[128];
	unsigned char key[32] = { 1 }, back[32], wrapped[60];
	char id[KEY_ID_LEN];
	struct error e = { 0 };

	snprintf(other, sizeof(other), "%s/other", folder);
	struct keys *a = open_keys(dir), *b = open_keys(other);
	assert_int_equal(keys_wrap(a, "x", key, sizeof(key), id, wrapped, &e), 0);
	assert_int_equal(keys_unwrap(b, id, "x", wrapped, sizeof(wrapped), back, sizeof(back), &e), -EKEYREJECTED);
	assert_non_null(strstr(e.message, other));
	keys_close(a);
	keys_close(b);
}

/* They may lie on another medium. */
static void test_folder_is_a_link(void **state)
{
	char elsewhere[128], path[160];

	snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", folder);
	assert_int_equal(mkdir(elsewhere, 0700), 0);
	assert_int_equal(symlink(elsewhere, dir), 0);
	keys_close(open_keys(dir));
	snprintf(path, sizeof(path), "%s/master-1", elsewhere);
	assert_int_equal(access(path, F_OK), 0);
	keys_close(open_keys(dir));
}

static void test_bad_files(void **state)
{
	char path[128];
	struct keys *k;
	struct error e = { 0 };

	keys_close(open_keys(dir));
	snprintf(path, sizeof(path), "%s/master-1", dir);
	assert_int_equal(chmod(path, 0640), 0);
	assert_true(keys_open(dir, &k, &e) < 0);
	assert_non_null(strstr(e.message, "mode 0640"));
	error_clear(&e);
	assert_int_equal(file_write_atomic(path, "short", 5, 0600), 0);
	assert_true(keys_open(dir, &k, &e) < 0);
	assert_non_null(strstr(e.message, "5 bytes"));
	/* What is not named as a key is none. */
	unlink(path);
	snprintf(path, sizeof(path), "%s/master-01", dir);
	assert_int_equal(file_write_atomic(path, "x", 1, 0600), 0);
	k = open_keys(dir);
	assert_int_equal(keys_count(k), 1);
	keys_close(k);
}

/* Two that begin at once have the same key. */
static void test_race(void **state)
{
	enum { PROCESSES = 8 };
	unsigned char key[32] = { 9 }, back[32], wrapped[PROCESSES][60];
	char path[160], id[KEY_ID_LEN];
	char *data;
	size_t len;

	fflush(stdout);
	for (unsigned i = 0; i < PROCESSES; i++) {
		if (fork())
			continue;
		struct keys *k;
		snprintf(path, sizeof(path), "%s/wrapped-%u", folder, i);
		int err = keys_open(dir, &k, NULL);
		err = err ? err : keys_wrap(k, "x", key, sizeof(key), id, wrapped[0], NULL);
		err = err ? err : file_write_atomic(path, wrapped[0], 60, 0600);
		_exit(err ? 1 : 0);
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		int status;
		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	struct keys *k = open_keys(dir);
	for (unsigned i = 0; i < PROCESSES; i++) {
		snprintf(path, sizeof(path), "%s/wrapped-%u", folder, i);
		assert_int_equal(file_read(path, 100, &data, &len), 0);
		assert_int_equal(keys_unwrap(k, "master-1", "x", data, len, back, sizeof(back), NULL), 0);
		free(data);
	}
	keys_close(k);
}

static int setup(void **state)
{
	snprintf(folder, sizeof(folder), "/tmp/mallee-keys-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(dir, sizeof(dir), "%s/keys", folder);
	return 0;
}

static int teardown(void **state)
{
	return dir_remove(folder);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_first_use), TEST(test_wrapping),  TEST(test_rotation),
		TEST(test_another_folder), TEST(test_folder_is_a_link), TEST(test_bad_files), TEST(test_race),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
