/* SPDX-License-Identifier: Apache-2.0 */
/* Root disks and console logs: files that guests' QEMU uses. */
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/file.h"
#include "svc/nc/clone.h"
#include "svc/nc/nc_priv.h"

struct fixture {
	char dir[64], disk[96], console[96];
	int image_fd;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char path[96], block[65536];

	/* Beside the build, which lies on a real disk more often than /tmp does. */
	strcpy(f->dir, "./mallee-disk-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(path, sizeof(path), "%s/image", f->dir);
	snprintf(f->disk, sizeof(f->disk), "%s/root.raw", f->dir);
	snprintf(f->console, sizeof(f->console), "%s/console.log", f->dir);
	f->image_fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(f->image_fd >= 0);
	/* data, a hole, data, an odd end */
	memset(block, 'A', sizeof(block));
	assert_int_equal(fd_pwrite_all(f->image_fd, block, sizeof(block), 0), 0);
	assert_int_equal(fd_pwrite_all(f->image_fd, block, 1000, 6 << 20), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close(f->image_fd);
	dir_remove(f->dir);
	free(f);
	return 0;
}

static struct clone_request request(struct fixture *f, int64_t size)
{
	return (struct clone_request){.image_fd = f->image_fd,
				      .path = f->disk,
				      .size_bytes = size,
				      .uid = getuid(),
				      .gid = getgid()};
}

/* Every byte of the file is in an extent that was written. */
static void assert_all_written(const char *path, int64_t size)
{
	union {
		struct fiemap map;
		char room[sizeof(struct fiemap) + 512 * sizeof(struct fiemap_extent)];
	} m = {.map = {.fm_length = ~0ull, .fm_flags = FIEMAP_FLAG_SYNC, .fm_extent_count = 512}};
	int fd = open(path, O_RDONLY);
	uint64_t covered = 0;

	assert_true(fd >= 0);
	assert_int_equal(lseek(fd, 0, SEEK_HOLE), size);
	if (ioctl(fd, FS_IOC_FIEMAP, &m.map) == 0) {
		assert_true(m.map.fm_mapped_extents < 512);
		for (unsigned int i = 0; i < m.map.fm_mapped_extents; i++) {
			assert_int_equal(m.map.fm_extents[i].fe_flags &
					     (FIEMAP_EXTENT_UNWRITTEN | FIEMAP_EXTENT_DELALLOC |
					      FIEMAP_EXTENT_SHARED),
					 0);
			covered += m.map.fm_extents[i].fe_length;
		}
		assert_true(covered >= (uint64_t)size);
	} else {
		print_message("this file system tells no extents: only holes were looked for\n");
	}
	close(fd);
}

static void assert_clone(struct fixture *f, int64_t size)
{
	char *image = calloc(1, (size_t)size), *disk = calloc(1, (size_t)size + 1);
	int fd = open(f->disk, O_RDONLY);

	assert_true(pread(f->image_fd, image, (size_t)size, 0) > 0);
	assert_int_equal(pread(fd, disk, (size_t)size + 1, 0), size);
	assert_memory_equal(image, disk, (size_t)size);
	close(fd);
	free(image);
	free(disk);
}

static void test_clone(void **state)
{
	static const int64_t sizes[] = {32 << 20, (9 << 20) + 512, (6 << 20) + 1000};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct clone_request c = request(f, sizes[i]);
		struct error e = {0};
		struct stat st;

		if (clone_disk(&c, &e) < 0)
			fail_msg("%s", e.message);
		assert_int_equal(stat(f->disk, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
		assert_int_equal(st.st_size, sizes[i]);
		assert_all_written(f->disk, sizes[i]);
		assert_clone(f, sizes[i]);
	}
}

static bool give_up(void *ctx, int64_t done, int64_t size)
{
	return done > size / 2;
}

static void assert_nothing_left(struct fixture *f)
{
	char path[128];

	assert_int_equal(access(f->disk, F_OK), -1);
	snprintf(path, sizeof(path), "%s.tmp", f->disk);
	assert_int_equal(access(path, F_OK), -1);
}

static void test_clone_refuses(void **state)
{
	struct fixture *f = *state;
	struct clone_request c = request(f, 1 << 20);
	struct error e = {0};

	assert_int_equal(clone_disk(&c, &e), -EFBIG);
	assert_nothing_left(f);

	error_clear(&e);
	c = request(f, 8 << 20);
	c.keep_free_bytes = (int64_t)1 << 60;
	assert_int_equal(clone_disk(&c, &e), -ENOSPC);
	assert_string_equal(e.code, "Server.InsufficientInstanceCapacity");
	assert_nothing_left(f);

	error_clear(&e);
	c = request(f, (int64_t)1 << 50);
	assert_int_equal(clone_disk(&c, &e), -ENOSPC);
	assert_nothing_left(f);

	c = request(f, 16 << 20);
	c.progress = give_up;
	assert_int_equal(clone_disk(&c, &e), -ECANCELED);
	assert_nothing_left(f);
}

static void test_clone_for_the_fake(void **state)
{
	struct fixture *f = *state;
	struct clone_request c = request(f, (int64_t)8 << 30);
	struct error e = {0};
	struct stat st;

	c.sparse = true;
	assert_int_equal(clone_disk(&c, &e), 0);
	assert_int_equal(stat(f->disk, &st), 0);
	assert_int_equal(st.st_size, (int64_t)8 << 30);
	assert_true(st.st_blocks < 1000);
}

static void append(const char *path, char c, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	char *text = malloc(n);

	memset(text, c, n);
	assert_int_equal(fd_write_all(fd, text, n), 0);
	close(fd);
	free(text);
}

static void test_console_tail(void **state)
{
	struct fixture *f = *state;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	char older[128];
	void *data;
	size_t len;
	int64_t mtime;

	assert_int_equal(nc_console_read(f->console, a, &data, &len, &mtime), 0);
	assert_int_equal(len, 0);
	append(f->console, 'x', 100000);
	append(f->console, 'y', 10);
	assert_int_equal(nc_console_read(f->console, a, &data, &len, &mtime), 0);
	assert_int_equal(len, NC_CONSOLE_BYTES);
	assert_memory_equal((char *)data + len - 11, "xyyyyyyyyyy", 11);
	assert_true(mtime > 0);

	/* virtlogd has just turned the log over */
	snprintf(older, sizeof(older), "%s.0", f->console);
	assert_int_equal(rename(f->console, older), 0);
	append(f->console, 'z', 5);
	assert_int_equal(nc_console_read(f->console, a, &data, &len, &mtime), 0);
	assert_int_equal(len, NC_CONSOLE_BYTES);
	assert_memory_equal((char *)data + len - 7, "yyzzzzz", 7);
}

/* Somebody has the log open and appends; its beginning goes, its end stays. */
static void test_console_is_bounded(void **state)
{
	struct fixture *f = *state;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	int writer = open(f->console, O_WRONLY | O_CREAT | O_APPEND, 0600);
	struct stat st;
	void *data;
	size_t len;
	int64_t mtime;

	append(f->console, 'a', 3 << 20);
	assert_int_equal(nc_console_bound(f->console), 0);
	assert_int_equal(fd_write_all(writer, "end", 3), 0);
	fsync(writer);
	close(writer);
	assert_int_equal(stat(f->console, &st), 0);
	assert_true((int64_t)st.st_blocks * 512 <= 1 << 20);
	assert_int_equal(nc_console_read(f->console, a, &data, &len, &mtime), 0);
	assert_int_equal(len, NC_CONSOLE_BYTES);
	assert_memory_equal((char *)data + len - 5, "aaend", 5);
	assert_int_equal(memchr(data, 0, len) != NULL, 0);
}

static void test_names(void **state)
{
	char uuid[37], again[37], other[37];

	nc_instance_uuid("ab12", "i-0123456789abcdef0", uuid);
	nc_instance_uuid("ab12", "i-0123456789abcdef0", again);
	nc_instance_uuid("ab13", "i-0123456789abcdef0", other);
	assert_string_equal(uuid, again);
	assert_string_not_equal(uuid, other);
	assert_memory_equal(uuid, "ec2", 3);
	assert_true(uuid[8] == '-' && uuid[13] == '-' && uuid[14] == '4' && uuid[18] == '-' &&
		    uuid[23] == '-');
	assert_int_equal(strlen(uuid), 36);
	assert_true(nc_uid_base("ab12") >= 1900000000u);
	assert_true(nc_uid_base("ab12") + NC_REAL_SLOTS < 2147483647u);
	assert_int_not_equal(nc_uid_base("ab12"), nc_uid_base("ab13"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_clone, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_clone_refuses, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_clone_for_the_fake, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_console_tail, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_console_is_bounded, setup, teardown),
	    cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
