/* SPDX-License-Identifier: Apache-2.0 */
/* A disk of nothing: reads zeroes, forgets what is written. What a stack over it costs is the cost of the path alone. */
#include <assert.h>

#include "block/back/back.h"

static int null_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	uint32_t block_bytes = blk_values_text(v, "block-bytes")[0] == '4' ? 4096 : 512;
	uint64_t size_bytes = blk_values_number(v, "size");

	if (size_bytes % block_bytes)
		return error_set(e, "InvalidOption", "size: %llu is no multiple of %u", (unsigned long long)size_bytes, block_bytes);
	l->info = (struct blk_info){
		.size_bytes = size_bytes,
		.block_bytes = block_bytes,
		.physical_bytes = 4096,
		.discard_bytes = block_bytes,
		.fast_zeroes = true,
	};
	return 0;
}

static void null_submit(struct blk_layer *l, struct blk_req *r)
{
	assert(r->off_bytes <= l->info.size_bytes && r->len_bytes <= l->info.size_bytes - r->off_bytes);
	if (r->op == BLK_READ)
		blk_iov_zero(r->iov, r->iov_count, 0, r->len_bytes);
	blk_complete(r, 0);
}

static int null_resize(struct blk_layer *l, uint64_t size_bytes, struct error *e)
{
	l->info.size_bytes = size_bytes;
	return 0;
}

static int null_extents(struct blk_layer *l, enum blk_extent_map map, uint64_t off_bytes, uint64_t len_bytes, struct blk_extent *out,
			unsigned max)
{
	if (map != BLK_MAP_ALLOCATION)
		return -EOPNOTSUPP;
	out[0] = (struct blk_extent){ len_bytes, BLK_EXTENT_HOLE };
	return 1;
}

static const struct blk_option null_options[] = {
	{ .name = "size", .type = BLK_OPT_BYTES, .fallback = "1G", .min = 4096, .max = 1ull << 60, .doc = "the disk's length" },
	{ .name = "block-bytes", .type = BLK_OPT_CHOICE, .fallback = "512", .choices = "512|4096", .doc = "the unit of requests" },
	{ 0 },
};

const struct blk_layer_ops blk_null_ops = {
	.name = "null",
	.doc = "reads zeroes and forgets writes: measures the path alone",
	.is_back = true,
	.options = null_options,
	.open = null_open,
	.submit = null_submit,
	.resize = null_resize,
	.extents = null_extents,
};
