/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that a filter keeps beside the disk (bitmaps) get a record too: the linker leads their writes and syncs through here
 * (meson.build, --wrap). Files without a record pass. A file that is mapped into memory has no record of its stores: what the
 * kernel wrote of them is anything. Who asks the kernel for its boot id reads the test's: the power goes without a reboot.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/macros.h"
#include "recorder.h"

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
ssize_t __real_pwrite64(int fd, const void *data, size_t len, off_t off);
int __real_fdatasync(int fd);
int __real_fsync(int fd);
void __real_blk_aio_submit(struct blk_queue *q, struct blk_aio *a);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t len, off_t off);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);
void __wrap_blk_aio_submit(struct blk_queue *q, struct blk_aio *a);

int __wrap_open64(const char *path, int flags, ...)
{
	va_list args;

	va_start(args, flags);
	mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
	va_end(args);
	if (recorder_world && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)
		path = recorder_world->boot_file;
	return __real_open64(path, flags, mode);
}

static struct tape *tape_of(int fd)
{
	struct world *w = recorder_world;
	struct stat a, b;

	if (!w || !w->file[0].size_bytes || fstat(fd, &a) || !S_ISREG(a.st_mode))
		return NULL;
	for (unsigned i = 0; i < FILES_MAX && w->file[i].size_bytes; i++) {
		if (!stat(w->file[i].path, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
			return &w->file[i];
	}
	return NULL;
}

ssize_t __wrap_pwrite64(int fd, const void *data, size_t len, off_t off)
{
	struct tape *t = tape_of(fd);
	struct iovec iov = { (void *)data, len };

	if (!t)
		return __real_pwrite64(fd, data, len, off);
	uint32_t op = tape_begin(t, HISTORY_WRITE, false, (uint64_t)off, len, &iov, 1);
	world_event(recorder_world);
	ssize_t n = __real_pwrite64(fd, data, len, off);
	history_end(&t->history, op, n != (ssize_t)len);
	world_event(recorder_world);
	return n;
}

static int synced(int fd, int (*sync)(int fd))
{
	struct tape *t = tape_of(fd);

	if (!t)
		return sync(fd);
	uint32_t op = tape_begin(t, HISTORY_FLUSH, false, 0, 0, NULL, 0);
	world_event(recorder_world);
	int err = sync(fd);
	history_end(&t->history, op, err);
	world_event(recorder_world);
	return err;
}

int __wrap_fdatasync(int fd)
{
	return synced(fd, __real_fdatasync);
}

int __wrap_fsync(int fd)
{
	return synced(fd, __real_fsync);
}

/* ---- asynchronous ones: their done() is led through here as well ---- */

struct hook {
	struct blk_aio *aio;
	void (*done)(struct blk_aio *a);
	struct tape *tape;
	uint32_t op;
	struct hook *next;
};
static struct hook *hooks;
static pthread_mutex_t hooks_lock = PTHREAD_MUTEX_INITIALIZER;

static void hook_done(struct blk_aio *a)
{
	struct hook **at = &hooks, *hook;

	pthread_mutex_lock(&hooks_lock);
	while ((*at)->aio != a)
		at = &(*at)->next;
	hook = *at;
	*at = hook->next;
	pthread_mutex_unlock(&hooks_lock);
	world_event(recorder_world);
	history_end(&hook->tape->history, hook->op, a->result < 0 || (a->op == BLK_AIO_WRITE && (uint64_t)a->result != blk_iov_bytes(a->iov, a->iov_count)));
	a->done = hook->done;
	free(hook);
	a->done(a);
}

void __wrap_blk_aio_submit(struct blk_queue *q, struct blk_aio *a)
{
	struct tape *t = a->op == BLK_AIO_WRITE || a->op == BLK_AIO_FDATASYNC ? tape_of(a->fd) : NULL;
	struct hook *hook = t ? calloc(1, sizeof(*hook)) : NULL;

	if (hook) {
		bool writes = a->op == BLK_AIO_WRITE;
		*hook = (struct hook){ .aio = a, .done = a->done, .tape = t };
		hook->op = tape_begin(t, writes ? HISTORY_WRITE : HISTORY_FLUSH, writes && (a->flags & RWF_DSYNC), writes ? a->off_bytes : 0,
				      writes ? blk_iov_bytes(a->iov, a->iov_count) : 0, a->iov, a->iov_count);
		a->done = hook_done;
		pthread_mutex_lock(&hooks_lock);
		hook->next = hooks;
		hooks = hook;
		pthread_mutex_unlock(&hooks_lock);
		world_event(recorder_world);
	}
	__real_blk_aio_submit(q, a);
}
