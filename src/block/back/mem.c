/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk in private memory, gone with the process. Pages come into being when they are written; DISCARD and WRITE_ZEROES give
 * whole pages back. Nothing is locked: overlapping requests at the same time mix, as they may on a disk.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/macros.h"
#include "block/back/back.h"

#define PAGE 4096u

struct mem {
	char *bytes;
	size_t mapped_bytes;
};

static size_t whole_pages(uint64_t size_bytes)
{
	return (size_bytes + PAGE - 1) / PAGE * PAGE;
}

static int mem_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	uint32_t block_bytes = blk_values_text(v, "block-bytes")[0] == '4' ? 4096 : 512;
	uint64_t size_bytes = blk_values_number(v, "size");

	if (size_bytes % block_bytes)
		return error_set(e, "InvalidOption", "size: %llu is no multiple of %u", (unsigned long long)size_bytes, block_bytes);
	struct mem *m = calloc(1, sizeof(*m));
	if (!m)
		return error_errno(e, ENOMEM, "a disk in memory");
	m->mapped_bytes = whole_pages(size_bytes);
	m->bytes = mmap(NULL, m->mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->bytes == MAP_FAILED) {
		free(m);
		return error_errno(e, ENOMEM, "%llu bytes of memory for a disk", (unsigned long long)size_bytes);
	}
	l->state = m;
	l->info = (struct blk_info){
		.size_bytes = size_bytes,
		.block_bytes = block_bytes,
		.physical_bytes = PAGE,
		.discard_bytes = PAGE,
		.volatile_cache = blk_values_bool(v, "volatile-cache"),
		.read_only = blk_values_bool(v, "read-only"),
		.fast_zeroes = true,
	};
	return 0;
}

/* Whole pages by giving them back, what is beside them by hand. */
static void make_zero(struct mem *m, uint64_t off, uint64_t len)
{
	uint64_t first = (off + PAGE - 1) / PAGE * PAGE, end = (off + len) / PAGE * PAGE;

	if (first >= end || madvise(m->bytes + first, end - first, MADV_DONTNEED)) {
		memset(m->bytes + off, 0, len);
		return;
	}
	memset(m->bytes + off, 0, first - off);
	memset(m->bytes + end, 0, off + len - end);
}

static void mem_submit(struct blk_layer *l, struct blk_req *r)
{
	struct mem *m = l->state;
	int err = 0;

	assert(r->off_bytes <= l->info.size_bytes && r->len_bytes <= l->info.size_bytes - r->off_bytes);
	if (r->op != BLK_READ && r->op != BLK_FLUSH && l->info.read_only)
		err = -EROFS;
	else if (r->op == BLK_READ)
		blk_iov_to(r->iov, r->iov_count, 0, m->bytes + r->off_bytes, r->len_bytes);
	else if (r->op == BLK_WRITE)
		blk_iov_from(r->iov, r->iov_count, 0, m->bytes + r->off_bytes, r->len_bytes);
	else if (r->op != BLK_FLUSH && r->len_bytes)
		make_zero(m, r->off_bytes, r->len_bytes);
	blk_complete(r, err);
}

static int mem_resize(struct blk_layer *l, uint64_t size_bytes, struct error *e)
{
	struct mem *m = l->state;
	size_t wanted = whole_pages(size_bytes);

	if (wanted != m->mapped_bytes) {
		void *bytes = mremap(m->bytes, m->mapped_bytes, wanted, MREMAP_MAYMOVE);
		if (bytes == MAP_FAILED)
			return error_errno(e, errno, "growing a disk in memory to %llu bytes", (unsigned long long)size_bytes);
		m->bytes = bytes;
		m->mapped_bytes = wanted;
	}
	l->info.size_bytes = size_bytes;
	return 0;
}

static void mem_close(struct blk_layer *l)
{
	struct mem *m = l->state;

	munmap(m->bytes, m->mapped_bytes);
	free(m);
}

static const struct blk_option mem_options[] = {
	{ .name = "size", .type = BLK_OPT_BYTES, .required = true, .min = 4096, .max = 1ull << 46, .doc = "the disk's length" },
	{ .name = "block-bytes", .type = BLK_OPT_CHOICE, .fallback = "512", .choices = "512|4096", .doc = "the unit of requests" },
	{ .name = "volatile-cache", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "say that writes need a flush (they don't)" },
	{ .name = "read-only", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "refuse to write" },
	{ 0 },
};

const struct blk_layer_ops blk_mem_ops = {
	.name = "mem",
	.doc = "a disk in memory, gone with the process",
	.is_back = true,
	.options = mem_options,
	.open = mem_open,
	.submit = mem_submit,
	.resize = mem_resize,
	.close = mem_close,
};
