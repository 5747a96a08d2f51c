/* SPDX-License-Identifier: Apache-2.0 */
/* The file back end: errors of the disk, room, devices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/back/file_testkit.h"

/* ---- errors of the disk ---- */

static bool sync_fails, write_fails; /* of direct FUA writes; the threads' engine comes here */

ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t off, int flags)
{
	if (flags & RWF_DSYNC ? sync_fails || write_fails : write_fails) {
		errno = EIO;
		return -1;
	}
	return syscall(SYS_pwritev2, fd, iov, count, off, 0, flags);
}

/* A sync that failed says that earlier writes may be gone; a sector that cannot be written does not. */
static void test_failed_fua(void **state)
{
	struct place *p = *state;
	static char data[4096] __attribute__((aligned(4096)));

	if (!direct_works(p))
		skip();
	struct blk_stack *s = kit_open(drivers, spec(p, ""), BLK_IO_THREADS, 1);
	assert_int_equal(kit_io(s, BLK_WRITE, BLK_FUA, 0, data, sizeof(data)), 0);
	write_fails = true;
	assert_int_equal(kit_io(s, BLK_WRITE, BLK_FUA, 0, data, sizeof(data)), -EIO);
	write_fails = false;
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0);
	sync_fails = true;
	assert_int_equal(kit_io(s, BLK_WRITE, BLK_FUA, 0, data, sizeof(data)), -EIO);
	sync_fails = false;
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), -EIO);
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), -EIO);
	assert_int_equal(blk_stack_close(s, NULL), -EIO);
}

static void test_cut_file(void **state)
{
	struct place *p = *state;
	static char data[16384] __attribute__((aligned(4096)));

	for (unsigned i = 0; i < 2; i++) {
		unlink(p->path);
		if (!i && !direct_works(p))
			continue;
		struct blk_stack *s = kit_open(drivers, spec(p, i ? ",create=2M,direct=off" : ",create=2M"), BLK_IO_AUTO, 1);
		assert_int_equal(truncate(p->path, (1 << 20) + 512), 0);
		assert_int_equal(kit_io(s, BLK_READ, 0, 1 << 20, data, sizeof(data)), -EIO);
		assert_int_equal(kit_io(s, BLK_READ, 0, 3 << 19, data, sizeof(data)), -EIO);
		assert_int_equal(kit_io(s, BLK_READ, 0, (1 << 20) - sizeof(data), data, sizeof(data)), 0);
		assert_int_equal(blk_stack_close(s, NULL), 0);
	}
}

static void test_full(void **state)
{
	struct place *p = *state;
	static char data[65536];
	int err = 0;

	if (mount("tmpfs", p->dir, "tmpfs", 0, "size=1m")) {
		print_message("skipped: no small file system may be mounted (%s)\n", strerror(errno));
		skip();
	}
	struct blk_stack *s = kit_open(drivers, spec(p, ",create=4M,direct=off,discard=on"), BLK_IO_AUTO, 1);
	for (unsigned i = 0; i < 64 && !err; i++)
		err = kit_io(s, BLK_WRITE, 0, i * sizeof(data), data, sizeof(data));
	assert_int_equal(err, -ENOSPC);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, sizeof(data)), 0);
	assert_int_equal(kit_io(s, BLK_DISCARD, 0, 0, NULL, 1 << 20), 0);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 3 << 20, data, sizeof(data)), 0); /* and it recovers */
	assert_int_equal(blk_stack_close(s, NULL), 0);
	umount(p->dir);
}

/* ---- room ---- */

static uint64_t allocated(struct place *p)
{
	struct stat st;

	assert_int_equal(stat(p->path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void test_room(void **state)
{
	struct place *p = *state;
	struct error e = { 0 };
	char *data = malloc(1 << 20);

	memset(data, 1, 1 << 20);
	/* What is allocated stays so, and written. */
	struct blk_stack *s = kit_open(drivers, spec(p, ",create=2M,direct=off"), BLK_IO_AUTO, 1);
	assert_int_equal(blk_stack_info(s)->discard_bytes, 0);
	assert_false(blk_stack_info(s)->fast_zeroes);
	assert_int_equal(kit_io(s, BLK_WRITE, BLK_FUA, 0, data, 1 << 20), 0);
	assert_int_equal(kit_io(s, BLK_DISCARD, 0, 0, NULL, 1 << 20), 0);
	assert_int_equal(kit_io(s, BLK_WRITE_ZEROES, BLK_MAY_UNMAP | BLK_FUA, 0, NULL, 1 << 20), 0);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, 1 << 20), 0);
	assert_true(kit_all(data, 1 << 20, 0));
	assert_true(allocated(p) >= 1 << 20);
	/* Grows, and is as long as it says. */
	assert_int_equal(blk_stack_resize(s, 8 << 20, &e), 0);
	assert_int_equal(kit_io(s, BLK_WRITE_ZEROES, 0, 1 << 20, NULL, 7 << 20), 0); /* more than one write's worth */
	assert_int_equal(kit_io(s, BLK_READ, 0, (8 << 20) - 4096, data, 4096), 0);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	/* With discard=on it is given back. */
	s = kit_open(drivers, spec(p, ",direct=off,discard=on"), BLK_IO_AUTO, 1);
	assert_true(blk_stack_info(s)->discard_bytes > 0);
	assert_int_equal(kit_io(s, BLK_DISCARD, 0, 512, NULL, (4 << 20) - 512), 0);
	assert_true(allocated(p) < 6 << 20);
	assert_int_equal(kit_io(s, BLK_WRITE_ZEROES, BLK_MAY_UNMAP, 0, NULL, 8 << 20), 0);
	if (!file_of(s)->no_punch)
		assert_true(allocated(p) < 1 << 20);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	free(data);
}

static void test_extents(void **state)
{
	struct place *p = *state;
	struct blk_extent x[8];
	char *data = malloc(256 << 10);

	memset(data, 1, 256 << 10);
	struct blk_stack *s = kit_open(drivers, spec(p, ",create=4M,direct=off"), BLK_IO_AUTO, 1);
	struct blk_layer *l = blk_stack_top(s);
	assert_int_equal(l->ops->extents(l, BLK_MAP_ALLOCATION, 0, 4 << 20, x, 8), 1);
	assert_int_equal(x[0].kind, BLK_EXTENT_HOLE);
	assert_int_equal(x[0].len_bytes, 4 << 20);
	assert_int_equal(kit_io(s, BLK_WRITE, BLK_FUA, 1 << 20, data, 256 << 10), 0);
	int n = l->ops->extents(l, BLK_MAP_ALLOCATION, 512, (4 << 20) - 512, x, 8);
	assert_int_equal(n, 3);
	assert_int_equal(x[0].len_bytes, (1 << 20) - 512);
	assert_int_equal(x[1].kind, BLK_EXTENT_DATA);
	assert_int_equal(x[1].len_bytes, 256 << 10);
	assert_int_equal(x[2].kind, BLK_EXTENT_HOLE);
	assert_int_equal(x[0].len_bytes + x[1].len_bytes + x[2].len_bytes, (4 << 20) - 512);
	assert_int_equal(l->ops->extents(l, BLK_MAP_ALLOCATION, 0, 4 << 20, x, 2), 2);
	assert_int_equal(l->ops->extents(l, BLK_MAP_CHANGED, 0, 4 << 20, x, 8), -EOPNOTSUPP);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	free(data);
}

/* ---- a device ---- */

static bool make_loop(struct place *p, char *device, size_t size)
{
	char command[300];

	snprintf(command, sizeof(command), "losetup --find --show --direct-io=on %s 2>/dev/null", p->path);
	FILE *out = popen(command, "re");
	bool works = out && fgets(device, (int)size, out);
	if (out)
		pclose(out);
	device[strcspn(device, "\n")] = '\0';
	return works && device[0];
}

static void test_device(void **state)
{
	struct place *p = *state, loop = *p;
	char command[300];
	struct error e = { 0 };
	char *data = aligned_alloc(4096, 1 << 20);

	make_file(p, 4 << 20);
	if (!make_loop(p, loop.path, sizeof(loop.path))) {
		print_message("skipped: no loop device to be had\n");
		free(data);
		skip();
	}
	struct blk_stack *s = kit_open(drivers, spec(&loop, ",discard=on"), BLK_IO_AUTO, 1);
	assert_int_equal(blk_stack_info(s)->size_bytes, 4 << 20);
	assert_true(try_open(spec(&loop, ",lock-wait=50"), &e) < 0);
	memset(data, 9, 1 << 20);
	assert_int_equal(kit_io(s, BLK_WRITE, BLK_FUA, 4096, data, 1 << 20), 0);
	assert_int_equal(kit_io(s, BLK_WRITE_ZEROES, 0, 8192, NULL, 4096), 0);
	assert_int_equal(kit_io(s, BLK_DISCARD, 0, 1 << 20, NULL, 1 << 20), 0);
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0);
	assert_int_equal(kit_io(s, BLK_READ, 0, 4096, data, 16384), 0);
	assert_true(kit_all(data, 4096, 9) && kit_all(data + 4096, 4096, 0) && kit_all(data + 8192, 8192, 9));
	assert_true(blk_stack_resize(s, 8 << 20, &e) < 0);
	make_file(p, 8 << 20);
	snprintf(command, sizeof(command), "losetup --set-capacity %s", loop.path);
	assert_int_equal(system(command), 0);
	error_clear(&e);
	assert_int_equal(blk_stack_resize(s, 8 << 20, &e), 0);
	assert_int_equal(kit_io(s, BLK_READ, 0, (8 << 20) - 4096, data, 4096), 0);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	/* As much of it as another file is long, and with that file it grows. */
	char length[120], options[140];
	snprintf(length, sizeof(length), "%.100s.length", p->path);
	snprintf(options, sizeof(options), ",size-of=%s", length);
	int fd = open(length, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, 2 << 20), 0);
	s = kit_open(drivers, spec(&loop, options), BLK_IO_AUTO, 1);
	assert_int_equal(blk_stack_info(s)->size_bytes, 2 << 20);
	assert_int_equal(blk_stack_resize(s, 3 << 20, &e), 0);
	assert_true(blk_stack_resize(s, 16 << 20, &e) < 0);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	assert_int_equal(lseek(fd, 0, SEEK_END), 3 << 20);
	s = kit_open(drivers, spec(&loop, options), BLK_IO_AUTO, 1);
	assert_int_equal(blk_stack_info(s)->size_bytes, 3 << 20);
	assert_int_equal(blk_stack_close(s, NULL), 0);
	assert_int_equal(ftruncate(fd, 16 << 20), 0);
	error_clear(&e);
	assert_true(try_open(spec(&loop, options), &e) < 0);
	close(fd);
	unlink(length);
	snprintf(command, sizeof(command), "losetup --detach %s", loop.path);
	assert_int_equal(system(command), 0);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_cut_file),
		TEST(test_failed_fua),
		TEST(test_full),
		TEST(test_room),
		TEST(test_extents),
		TEST(test_device),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
