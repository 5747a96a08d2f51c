/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_BACK_FILE_TESTKIT_H
#define MALLEE_BLOCK_BACK_FILE_TESTKIT_H

/* For the tests of the file back end. After cmocka.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/back/back.h"
#include "block/back/file_priv.h"
#include "block/back/testkit.h"
#include "os/file.h"

static const struct blk_layer_ops *const drivers[] = { &blk_file_ops, NULL };

/* Every test has a folder of its own, where the file system is most likely a real one. */
struct place {
	char dir[128], path[160], spec[320];
};

static inline int set_up(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	snprintf(p->dir, sizeof(p->dir), "%s/mallee-file-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/var/tmp");
	assert_non_null(mkdtemp(p->dir));
	snprintf(p->path, sizeof(p->path), "%s/disk.raw", p->dir);
	*state = p;
	return 0;
}

static inline int tear_down(void **state)
{
	struct place *p = *state;

	umount2(p->dir, MNT_DETACH); /* of a test that failed */
	assert_int_equal(dir_remove(p->dir), 0);
	free(p);
	return 0;
}

static inline const char *spec(struct place *p, const char *more)
{
	snprintf(p->spec, sizeof(p->spec), "file:path=%s%s", p->path, more);
	return p->spec;
}

static inline void make_file(struct place *p, off_t size)
{
	int fd = open(p->path, O_RDWR | O_CREAT, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

static inline int try_open(const char *text, struct error *e)
{
	struct blk_stack_settings settings = { drivers, text, NULL, 1, BLK_IO_AUTO };
	struct blk_stack *s;

	error_clear(e);
	int err = blk_stack_open(&settings, &s, e);
	if (!err)
		blk_stack_close(s, NULL);
	return err;
}

static inline struct file *file_of(struct blk_stack *s)
{
	return blk_stack_layer(s, "file")->state;
}

static inline bool direct_works(struct place *p)
{
	struct error e = { 0 };

	if (!try_open(spec(p, ",create=2M"), &e))
		return true;
	print_message("skipped: %s\n", e.message);
	return false;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
