/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/file.h"
#include "os/locked.h"
#include "volume/keyfile.h"

static char cloud[16];

static void test_keys(void **state)
{
	unsigned char key[64], other[64], back[64];
	char path[256], again[256], folder[256];
	struct error e = { 0 };
	struct stat st;

	memset(key, 7, sizeof(key));
	memset(other, 9, sizeof(other));
	if (keyfile_put(cloud, "nc", "vol-1", key, sizeof(key), geteuid(), getegid(), path, sizeof(path), &e) == -EOPNOTSUPP)
		skip(); /* no tmpfs */
	assert_string_equal(e.message, "");
	assert_true(keyfile_is_there(cloud, "nc", "vol-1"));
	assert_false(keyfile_is_there(cloud, "sc", "vol-1"));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0400);
	assert_int_equal(locked_read(path, back, sizeof(back), &e), 0); /* as mallee-blockd reads it */
	assert_memory_equal(back, key, sizeof(key));
	/* Another one in its place; nothing else is left there. */
	assert_int_equal(keyfile_put(cloud, "nc", "vol-1", other, sizeof(other), geteuid(), getegid(), again, sizeof(again), &e), 0);
	assert_string_equal(path, again);
	assert_int_equal(locked_read(path, back, sizeof(back), &e), 0);
	assert_memory_equal(back, other, sizeof(other));
	strcpy(folder, path);
	*strrchr(folder, '/') = '\0';
	assert_int_equal(stat(folder, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0711);
	assert_int_equal(st.st_nlink, 2);
	if (geteuid() == 0) {
		assert_int_equal(keyfile_put(cloud, "nc", "vol-2", key, sizeof(key), 12345, 12345, again, sizeof(again), &e), 0);
		assert_int_equal(stat(again, &st), 0);
		assert_int_equal(st.st_uid, 12345);
	}
	assert_int_equal(keyfile_put(cloud, "nc", "../x", key, sizeof(key), 0, 0, again, sizeof(again), &e), -EINVAL);
	assert_false(keyfile_is_there(cloud, "nc", "../x"));
	keyfile_drop(cloud, "nc", "vol-1");
	keyfile_drop(cloud, "nc", "vol-1");
	keyfile_drop(cloud, "nc", "../x");
	assert_false(keyfile_is_there(cloud, "nc", "vol-1"));
	assert_int_equal(keyfiles_remove(cloud), 0);
	assert_int_equal(access(folder, F_OK), -1);
}

/* Where anybody may make things, what is there already is not trusted. */
static void test_a_folder_of_somebody_else(void **state)
{
	unsigned char key[64] = { 1 };
	char path[256], folder[256], target[] = "/tmp/mallee-keyfile-XXXXXX";
	struct error e = { 0 };

	if (geteuid() || keyfile_put(cloud, "nc", "vol-1", key, sizeof(key), 0, 0, path, sizeof(path), &e) == -EOPNOTSUPP)
		skip(); /* takes root, and a tmpfs */
	strcpy(folder, path);
	*strrchr(folder, '/') = '\0';
	assert_int_equal(chown(folder, 12345, 12345), 0);
	assert_true(keyfile_put(cloud, "nc", "vol-1", key, sizeof(key), 0, 0, path, sizeof(path), &e) < 0 || strncmp(path, folder, strlen(folder)) != 0);
	assert_int_equal(dir_remove(folder), 0);
	assert_non_null(mkdtemp(target));
	assert_int_equal(symlink(target, folder), 0);
	assert_true(keyfile_put(cloud, "nc", "vol-1", key, sizeof(key), 0, 0, path, sizeof(path), NULL) < 0 || strncmp(path, folder, strlen(folder)) != 0);
	snprintf(path, sizeof(path), "%s/vol-1", target);
	assert_int_equal(access(path, F_OK), -1);
	unlink(folder);
	rmdir(target);
	keyfiles_remove(cloud);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_keys), cmocka_unit_test(test_a_folder_of_somebody_else) };

	snprintf(cloud, sizeof(cloud), "kf%d", (int)getpid() % 100000);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
