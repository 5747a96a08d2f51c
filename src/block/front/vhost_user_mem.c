/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that the peer shares. What it says of a descriptor is checked against the file itself, so that nothing beyond the
 * file's end is mapped as if it were there. A file that is cut short later is another matter: touching what is gone raises
 * SIGBUS and this process dies; its supervisor starts it again, and the successor refuses the file. Seals would prevent it
 * (QEMU's memory-backend-memfd sets them), but memory from a plain file, or huge pages, has none, so they are not required.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/front/vhost_user_priv.h"
#include "os/file.h"

/* [off, off + len) of the regular file fd, mapped; *ret_at is where off lies. */
static int map_file(int fd, uint64_t off, uint64_t len, void **ret_map, uint64_t *ret_map_bytes, char **ret_at)
{
	struct stat st;
	uint64_t end;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || !len || __builtin_add_overflow(off, len, &end) || end > (uint64_t)st.st_size)
		return -EINVAL;
	/* Huge pages are mapped from a multiple of their size on, which is the file's block size. */
	uint64_t page = st.st_blksize > 4096 && !(st.st_blksize & (st.st_blksize - 1)) ? (uint64_t)st.st_blksize : 4096;
	uint64_t from = off & ~(page - 1), to = (end + page - 1) & ~(page - 1);
	void *map = mmap(NULL, to - from, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)from);
	if (map == MAP_FAILED)
		return -errno;
	madvise(map, to - from, MADV_DONTDUMP);
	*ret_map = map;
	*ret_map_bytes = to - from;
	*ret_at = (char *)map + (off - from);
	return 0;
}

int vhost_mem_map(struct vmem_region *r, int fd, uint64_t fd_off)
{
	return map_file(fd, fd_off, r->size_bytes, &r->map, &r->map_bytes, &r->host);
}

void vhost_mem_unmap(struct vmem_region *r)
{
	if (r->map)
		munmap(r->map, r->map_bytes);
	r->map = NULL;
}

void vhost_mem_clear(struct vmem *m)
{
	while (m->count)
		vhost_mem_unmap(&m->region[--m->count]);
}

/* ---- in-flight memory ---- */

static bool plausible(const struct vhost_inflight *i)
{
	return i->queues && i->queues <= VHOST_RINGS_MAX && i->size && i->size <= VIRTQ_SIZE_MAX;
}

static void set_tail(struct vhost_user *u, struct inflight_tail *t)
{
	t->capacity_bytes = atomic_load(&u->disk.size_bytes);
	t->write_back = u->write_back;
	atomic_thread_fence(memory_order_release);
	t->magic = INFLIGHT_TAIL;
}

int vhost_inflight_make(struct vhost_user *u, struct vhost_inflight *io, int *ret_fd)
{
	if (!plausible(io))
		return -EINVAL;
	uint64_t bytes = (inflight_bytes(io->queues, io->size) + 4095) & ~(uint64_t)4095;
	_cleanup_(fd_closep) int fd = memfd_create("mallee-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL))
		return -errno;
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	set_tail(u, inflight_tail_at(memory, io->queues, io->size));
	munmap(memory, bytes);
	io->map_bytes = bytes;
	io->map_off = 0;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

int vhost_inflight_take(struct vhost_user *u, const struct vhost_inflight *in, int fd)
{
	void *map;
	uint64_t map_bytes;
	char *at;

	if (!plausible(in) || in->map_bytes < inflight_bytes(in->queues, in->size) || in->map_off % 8)
		return -EINVAL;
	int err = map_file(fd, in->map_off, in->map_bytes, &map, &map_bytes, &at);
	if (err)
		return err;
	vhost_inflight_drop(u);
	u->inflight = map;
	u->inflight_map_bytes = map_bytes;
	u->inflight_memory = at;
	u->inflight_queues = in->queues;
	u->inflight_size = in->size;
	return 0;
}

void vhost_inflight_drop(struct vhost_user *u)
{
	if (u->inflight)
		munmap(u->inflight, u->inflight_map_bytes);
	u->inflight = NULL;
	u->inflight_memory = NULL;
	u->inflight_queues = u->inflight_size = 0;
}

struct inflight_queue *vhost_inflight_queue(struct vhost_user *u, unsigned index)
{
	return index < u->inflight_queues ? inflight_queue_at(u->inflight_memory, index, u->inflight_size) : NULL;
}

struct inflight_tail *vhost_inflight_tail(struct vhost_user *u)
{
	if (!u->inflight)
		return NULL;
	struct inflight_tail *t = inflight_tail_at(u->inflight_memory, u->inflight_queues, u->inflight_size);
	return t->magic == INFLIGHT_TAIL ? t : NULL;
}
