/* SPDX-License-Identifier: Apache-2.0 */
#include "block/virtio/vblk.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"

/* ---- iovecs that are used up from their ends ---- */

static void drop_front(struct iovec **iov, unsigned *count, uint64_t bytes)
{
	while (bytes) {
		size_t take = MIN_OF((*iov)->iov_len, bytes);
		(*iov)->iov_base = (char *)(*iov)->iov_base + take;
		(*iov)->iov_len -= take;
		bytes -= take;
		if (!(*iov)->iov_len) {
			(*iov)++;
			(*count)--;
		}
	}
}

/* Up to len bytes of the guest's memory, once; they are taken off. */
static void take_front(struct iovec **iov, unsigned *count, void *to, size_t len)
{
	blk_iov_from(*iov, *count, 0, to, len);
	drop_front(iov, count, len);
}

/* ---- requests ---- */

static void answer(struct vblk_request *r, uint8_t status)
{
	r->submit = false;
	r->status = status;
	if (status != VIRTIO_BLK_S_OK)
		r->written_bytes = r->failed_bytes;
}

/* Whether [sector, sector + bytes) is on the disk and in whole blocks. Sets off and len. */
static bool place(const struct vblk *d, uint64_t sector, uint64_t bytes, struct vblk_request *r)
{
	uint64_t size = atomic_load_explicit(&d->size_bytes, memory_order_relaxed);

	if (sector > size / BLK_SECTOR || bytes > size - sector * BLK_SECTOR)
		return false;
	r->off_bytes = sector * BLK_SECTOR;
	r->len_bytes = bytes;
	return !((r->off_bytes | bytes) & (d->block_bytes - 1));
}

static uint32_t write_flags(const struct vblk *d)
{
	return atomic_load_explicit(&d->write_through, memory_order_relaxed) ? BLK_FUA : 0;
}

static void parse_data(const struct vblk *d, enum blk_op op, uint64_t sector, struct iovec *iov, unsigned count, uint64_t bytes,
		       struct vblk_request *r)
{
	if ((op == BLK_WRITE && d->read_only) || !place(d, sector, bytes, r)) {
		answer(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (!bytes) {
		answer(r, VIRTIO_BLK_S_OK);
		return;
	}
	r->op = op;
	r->flags = op == BLK_WRITE ? write_flags(d) : 0;
	r->iov = iov;
	r->iov_count = count;
	if (op == BLK_READ)
		r->written_bytes = (uint32_t)MIN_OF(bytes + 1, UINT32_MAX);
}

/* One segment (max_discard_seg and max_write_zeroes_seg are 1). 5.2.6.2 names the errors. */
static void parse_range(const struct vblk *d, uint32_t type, struct iovec *iov, unsigned count, uint64_t bytes, struct vblk_request *r)
{
	struct virtio_blk_discard_write_zeroes seg;

	if (d->read_only || bytes != sizeof(seg)) {
		answer(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	take_front(&iov, &count, &seg, sizeof(seg));
	bool zeroes = type == VIRTIO_BLK_T_WRITE_ZEROES, unmap = seg.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	if (seg.flags & ~(uint32_t)VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP || (unmap && !zeroes)) {
		answer(r, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	if (!place(d, seg.sector, (uint64_t)seg.num_sectors * BLK_SECTOR, r)) {
		answer(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (!seg.num_sectors) {
		answer(r, VIRTIO_BLK_S_OK);
		return;
	}
	r->op = zeroes ? BLK_WRITE_ZEROES : BLK_DISCARD;
	if (zeroes)
		r->flags = write_flags(d) | (unmap ? (uint32_t)BLK_MAY_UNMAP : 0);
}

static void give_id(const struct vblk *d, struct iovec *iov, unsigned count, uint64_t room, struct vblk_request *r)
{
	size_t len = MIN_OF(room, sizeof(d->serial));

	blk_iov_to(iov, count, 0, d->serial, len);
	r->written_bytes = (uint32_t)MIN_OF(room + 1, UINT32_MAX);
	if (len < room) /* the status byte is behind it: nothing in between is left as it was */
		blk_iov_zero(iov, count, len, room - len);
	answer(r, VIRTIO_BLK_S_OK);
}

/* The last writable byte is the status, wherever the layout has put it. */
static uint8_t *take_status(struct iovec *iov, unsigned *count)
{
	struct iovec *last = &iov[*count - 1];

	if (!--last->iov_len)
		--*count;
	return (uint8_t *)last->iov_base + last->iov_len;
}

int vblk_parse(const struct vblk *d, struct virtq_chain *c, struct vblk_request *ret, const char **why)
{
	struct iovec *out = c->iov, *in = c->iov + c->out;
	unsigned outs = c->out, ins = c->in;
	struct virtio_blk_outhdr header;

	if (c->out_bytes < sizeof(header) || !c->in_bytes) {
		*why = c->in_bytes ? "a request has no whole header" : "a request has no status byte";
		return -EBADMSG;
	}
	*ret = (struct vblk_request){ .submit = true, .written_bytes = c->in_bytes == 1, .failed_bytes = c->in_bytes == 1 };
	take_front(&out, &outs, &header, sizeof(header));
	ret->status_at = take_status(in, &ins);
	uint64_t out_bytes = c->out_bytes - sizeof(header), in_bytes = c->in_bytes - 1;
	switch (header.type) {
	case VIRTIO_BLK_T_IN:
		parse_data(d, BLK_READ, header.sector, in, ins, in_bytes, ret);
		break;
	case VIRTIO_BLK_T_OUT:
		parse_data(d, BLK_WRITE, header.sector, out, outs, out_bytes, ret);
		break;
	case VIRTIO_BLK_T_FLUSH:
		ret->op = BLK_FLUSH;
		if (d->read_only)
			answer(ret, VIRTIO_BLK_S_OK);
		break;
	case VIRTIO_BLK_T_GET_ID:
		give_id(d, in, ins, in_bytes, ret);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		parse_range(d, header.type, out, outs, out_bytes, ret);
		break;
	default:
		answer(ret, VIRTIO_BLK_S_UNSUPP);
	}
	return 0;
}

uint8_t vblk_status(int result)
{
	if (!result)
		return VIRTIO_BLK_S_OK;
	return result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

/* ---- what the device says of itself ---- */

#define RANGE_SECTORS_MAX (UINT32_C(1) << 22)  /* 2 GiB of one DISCARD, or WRITE_ZEROES that costs little */
#define ZEROES_SECTORS_MAX (UINT32_C(1) << 16) /* 32 MiB of one that must be written */

uint64_t vblk_features(const struct blk_info *info, unsigned queues)
{
	uint64_t f = 1u << VIRTIO_BLK_F_SIZE_MAX | 1u << VIRTIO_BLK_F_SEG_MAX | 1u << VIRTIO_BLK_F_GEOMETRY | 1u << VIRTIO_BLK_F_BLK_SIZE |
		     1u << VIRTIO_BLK_F_FLUSH | 1u << VIRTIO_BLK_F_TOPOLOGY | 1u << VIRTIO_BLK_F_CONFIG_WCE;

	if (queues > 1)
		f |= 1u << VIRTIO_BLK_F_MQ;
	if (info->read_only)
		return f | 1u << VIRTIO_BLK_F_RO;
	if (info->discard_bytes)
		f |= 1u << VIRTIO_BLK_F_DISCARD;
	return f | 1u << VIRTIO_BLK_F_WRITE_ZEROES;
}

static uint8_t log2_of(uint32_t ratio)
{
	uint8_t n = 0;

	while (ratio >>= 1)
		n++;
	return n;
}

static void put_geometry(uint64_t sectors, struct virtio_blk_config *c)
{
	c->geometry.heads = 16;
	c->geometry.sectors = 63;
	c->geometry.cylinders = (uint16_t)MIN_OF(sectors / (16 * 63), UINT64_C(65535));
}

void vblk_config(const struct blk_info *info, uint64_t size_bytes, unsigned queues, unsigned seg_max, bool write_back,
		 struct virtio_blk_config *ret)
{
	uint32_t block = info->block_bytes;

	memset(ret, 0, sizeof(*ret));
	ret->capacity = size_bytes / BLK_SECTOR;
	/* What conforms to both is at most BLK_LEN_MAX long. */
	ret->size_max = (BLK_LEN_MAX / seg_max) & ~UINT32_C(4095);
	ret->seg_max = seg_max;
	put_geometry(ret->capacity, ret);
	ret->blk_size = block;
	ret->physical_block_exp = log2_of(MAX_OF(info->physical_bytes, block) / block);
	ret->min_io_size = (uint16_t)MIN_OF(MAX_OF(info->physical_bytes, block) / block, 65535u);
	ret->opt_io_size = info->optimal_bytes / block;
	ret->wce = write_back;
	ret->num_queues = (uint16_t)queues;
	if (info->read_only)
		return;
	ret->max_discard_sectors = RANGE_SECTORS_MAX;
	ret->max_discard_seg = 1;
	ret->discard_sector_alignment = MAX_OF(info->discard_bytes, block) / BLK_SECTOR;
	ret->max_write_zeroes_sectors = info->fast_zeroes ? RANGE_SECTORS_MAX : ZEROES_SECTORS_MAX;
	ret->max_write_zeroes_seg = 1;
	ret->write_zeroes_may_unmap = info->discard_bytes != 0;
}
