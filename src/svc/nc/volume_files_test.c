/* SPDX-License-Identifier: Apache-2.0 */
/* Which files root gives away on the storage controller's word, and which it does not. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/file.h"
#include "svc/nc/nc_priv.h"

#define SC 1999990000u
#define GUEST 1999990001u
#define OTHER 1999990002u

static char top[] = "/tmp/mallee-files-XXXXXX", sc[64], path[128], outside[128];
static struct nc_file_rules rules;

static void make(const char *name, uid_t uid)
{
	int fd = open(name, O_CREAT | O_RDWR | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(lchown(name, uid, uid), 0);
}

static uid_t owner(const char *name)
{
	struct stat st;

	assert_int_equal(lstat(name, &st), 0);
	return st.st_uid;
}

static int setup(void **state)
{
	strcpy(top + strlen(top) - 6, "XXXXXX");
	assert_non_null(mkdtemp(top));
	snprintf(sc, sizeof(sc), "%s/sc", top);
	snprintf(path, sizeof(path), "%s/volumes/vol-1/data.raw", sc);
	snprintf(outside, sizeof(outside), "%s/secret", top);
	assert_int_equal(mkdir(sc, 0711), 0);
	*strrchr(path, '/') = '\0';
	assert_int_equal(dir_make(path, 0711), 0);
	path[strlen(path)] = '/';
	make(path, SC);
	make(outside, 0);
	assert_int_equal(chown(sc, SC, SC), 0);
	rules = (struct nc_file_rules){.dir = sc, .disks = "", .uid = GUEST, .gid = GUEST};
	return 0;
}

static int teardown(void **state)
{
	dir_remove(top);
	return 0;
}

static void refused(const char *name)
{
	struct error e = {0};

	assert_int_equal(nc_file_give(&rules, name, &e), -EPERM);
	assert_string_equal(e.code, "InternalError");
}

static void test_there_and_back(void **state)
{
	struct error e = {0};
	struct stat st;

	assert_int_equal(nc_file_give(&rules, path, &e), 0);
	assert_int_equal(owner(path), GUEST);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(nc_file_give(&rules, path, &e), 0); /* again */
	assert_int_equal(nc_file_take_back(&rules, path, &e), 0);
	assert_int_equal(owner(path), SC);
	assert_int_equal(nc_file_take_back(&rules, path, &e), 0);
	unlink(path);
	assert_int_equal(nc_file_take_back(&rules, path, &e), 0);
	assert_false(error_is_set(&e));
	assert_int_equal(nc_file_give(&rules, path, &e), -ENOENT);
}

static void test_evil_paths(void **state)
{
	char name[160];

	refused(outside);
	refused("/etc/passwd");
	refused("data.raw");
	refused("");
	snprintf(name, sizeof(name), "%s/../secret", sc);
	refused(name);
	snprintf(name, sizeof(name), "%s/volumes/../../secret", sc);
	refused(name);
	snprintf(name, sizeof(name), "%s-too/x", sc);
	refused(name);
	snprintf(name, sizeof(name), "%s/volumes/vol-1", sc); /* a folder */
	refused(name);
	assert_int_equal(owner(outside), 0);
}

static void test_links(void **state)
{
	char name[160], through[200];

	snprintf(name, sizeof(name), "%s/volumes/vol-1/link", sc);
	assert_int_equal(symlink(outside, name), 0);
	refused(name);
	unlink(name);
	assert_int_equal(symlink(top, name), 0); /* a folder on the way */
	snprintf(through, sizeof(through), "%s/secret", name);
	refused(through);
	unlink(name);
	assert_int_equal(link(outside, name), 0); /* it is root's, whatever it is called */
	refused(name);
	unlink(name);
	assert_int_equal(link(path, name), 0); /* two names of one file */
	refused(path);
	assert_int_equal(owner(outside), 0);
}

static void test_others_files(void **state)
{
	char name[160];

	assert_int_equal(lchown(path, OTHER, OTHER), 0); /* another instance's */
	refused(path);
	assert_int_equal(lchown(path, 0, 0), 0);
	refused(path);
	snprintf(name, sizeof(name), "%s/volumes/vol-1/pipe", sc);
	assert_int_equal(mkfifo(name, 0600), 0);
	assert_int_equal(lchown(name, SC, SC), 0);
	refused(name);
}

static void test_devices(void **state)
{
	char disk[160], listed[160], text[400];
	struct error e = {0};

	snprintf(disk, sizeof(disk), "%s/disk", top);
	snprintf(listed, sizeof(listed), "%s/other", top);
	if (mknod(disk, S_IFBLK | 0600, makedev(7, 200)) < 0 || mknod(listed, S_IFBLK | 0600, makedev(7, 201)) < 0)
		skip(); /* not even root may, here */
	refused(disk);
	rules.disks = listed;
	refused(disk);
	refused(outside);
	snprintf(text, sizeof(text), "%s,%s", listed, disk);
	rules.disks = text;
	assert_int_equal(nc_file_give(&rules, disk, &e), 0);
	assert_int_equal(owner(disk), GUEST);
	assert_int_equal(nc_file_take_back(&rules, disk, &e), 0);
	assert_int_equal(owner(disk), SC);
	refused(outside);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_there_and_back), T(test_evil_paths), T(test_links), T(test_others_files), T(test_devices)};

	if (geteuid() != 0) {
		printf("svc_nc/volume_files: not root\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
