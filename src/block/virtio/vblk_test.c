/* SPDX-License-Identifier: Apache-2.0 */
#include "block/virtio/vblk.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SIZE (UINT64_C(1) << 20)

static struct vblk disk;
static struct virtq_chain chain;
static struct vblk_request r;
static const char *why;
static char out_memory[8192], in_memory[8192];

/* out and in: lengths of the pieces, ended by 0. Memory is one after the other. */
static void make(const unsigned *out, const unsigned *in)
{
	char *at = out_memory;

	memset(&chain, 0, sizeof(chain));
	for (; *out; out++, chain.out++) {
		chain.iov[chain.out] = (struct iovec){ at, *out };
		chain.out_bytes += *out;
		at += *out;
	}
	at = in_memory;
	for (; *in; in++, chain.in++) {
		chain.iov[chain.out + chain.in] = (struct iovec){ at, *in };
		chain.in_bytes += *in;
		at += *in;
	}
}

#define LENGTHS(...) ((const unsigned[]){ __VA_ARGS__, 0 })
#define NOTHING ((const unsigned[]){ 0 })

static int parse(uint32_t type, uint64_t sector, const unsigned *out, const unsigned *in)
{
	struct virtio_blk_outhdr h = { type, 0, sector };

	memcpy(out_memory, &h, sizeof(h));
	make(out, in);
	return vblk_parse(&disk, &chain, &r, &why);
}

static int set_up(void **state)
{
	disk = (struct vblk){ .block_bytes = 512, .serial = "vol0123456789abcdef0" };
	atomic_store(&disk.size_bytes, SIZE);
	memset(out_memory, 0, sizeof(out_memory));
	memset(in_memory, 0x55, sizeof(in_memory));
	return 0;
}

static void answers(uint8_t status)
{
	assert_false(r.submit);
	assert_int_equal(r.status, status);
}

static void test_read_any_layout(void **state)
{
	const unsigned *const outs[] = { LENGTHS(16), LENGTHS(8, 8), LENGTHS(1, 15), LENGTHS(4, 4, 8) };
	const unsigned *const ins[] = { LENGTHS(1024, 1), LENGTHS(1025), LENGTHS(512, 513), LENGTHS(1, 1023, 1), LENGTHS(3, 1022) };

	for (unsigned o = 0; o < 4; o++) {
		for (unsigned i = 0; i < 5; i++) {
			assert_int_equal(parse(VIRTIO_BLK_T_IN, 6, outs[o], ins[i]), 0);
			assert_true(r.submit);
			assert_int_equal(r.op, BLK_READ);
			assert_int_equal(r.off_bytes, 6 * 512);
			assert_int_equal(r.len_bytes, 1024);
			assert_int_equal(blk_iov_bytes(r.iov, r.iov_count), 1024);
			assert_ptr_equal(r.iov[0].iov_base, in_memory);
			assert_ptr_equal(r.status_at, in_memory + 1024);
			assert_int_equal(r.written_bytes, 1025);
			assert_int_equal(r.failed_bytes, 0);
		}
	}
}

static void test_write_any_layout(void **state)
{
	const unsigned *const outs[] = { LENGTHS(16, 512), LENGTHS(528), LENGTHS(10, 10, 508), LENGTHS(15, 2, 511) };

	for (unsigned o = 0; o < 4; o++) {
		assert_int_equal(parse(VIRTIO_BLK_T_OUT, 0, outs[o], LENGTHS(1)), 0);
		assert_true(r.submit);
		assert_int_equal(r.op, BLK_WRITE);
		assert_int_equal(r.flags, 0);
		assert_int_equal(blk_iov_bytes(r.iov, r.iov_count), 512);
		assert_ptr_equal(r.iov[0].iov_base, out_memory + 16);
		assert_int_equal(r.written_bytes, 1);
	}
	atomic_store(&disk.write_through, true);
	parse(VIRTIO_BLK_T_OUT, 0, outs[0], LENGTHS(1));
	assert_int_equal(r.flags, BLK_FUA);
}

static void test_no_room_for_an_answer(void **state)
{
	assert_int_equal(parse(VIRTIO_BLK_T_IN, 0, LENGTHS(15), LENGTHS(513)), -EBADMSG);
	assert_string_equal(why, "a request has no whole header");
	assert_int_equal(parse(VIRTIO_BLK_T_OUT, 0, LENGTHS(16, 512), NOTHING), -EBADMSG);
	assert_string_equal(why, "a request has no status byte");
	assert_int_equal(parse(VIRTIO_BLK_T_OUT, 0, NOTHING, LENGTHS(1)), -EBADMSG);
}

static void test_bounds(void **state)
{
	parse(VIRTIO_BLK_T_IN, SIZE / 512 - 1, LENGTHS(16), LENGTHS(512, 1));
	assert_true(r.submit);
	const struct {
		uint64_t sector;
		unsigned bytes;
	} bad[] = {
		{ SIZE / 512, 512 }, { SIZE / 512 - 1, 1024 }, { UINT64_MAX, 512 }, { UINT64_MAX / 512, 512 },
		{ UINT64_MAX / 512 + 1, 512 }, { 0, 511 }, { 0, 513 },
	};
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(parse(VIRTIO_BLK_T_IN, bad[i].sector, LENGTHS(16), LENGTHS(bad[i].bytes, 1)), 0);
		answers(VIRTIO_BLK_S_IOERR);
		assert_int_equal(r.written_bytes, 0); /* the data before the status was not written */
		assert_int_equal(parse(VIRTIO_BLK_T_OUT, bad[i].sector, LENGTHS(16, bad[i].bytes), LENGTHS(1)), 0);
		answers(VIRTIO_BLK_S_IOERR);
		assert_int_equal(r.written_bytes, 1);
	}
	disk.block_bytes = 4096;
	parse(VIRTIO_BLK_T_IN, 8, LENGTHS(16), LENGTHS(4096, 1));
	assert_true(r.submit);
	parse(VIRTIO_BLK_T_IN, 1, LENGTHS(16), LENGTHS(4096, 1));
	answers(VIRTIO_BLK_S_IOERR);
	parse(VIRTIO_BLK_T_IN, 8, LENGTHS(16), LENGTHS(512, 1));
	answers(VIRTIO_BLK_S_IOERR);
	parse(VIRTIO_BLK_T_IN, 8, LENGTHS(16), LENGTHS(1));
	answers(VIRTIO_BLK_S_OK); /* nothing, on the disk */
}

static void test_read_only(void **state)
{
	const uint32_t types[] = { VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES };

	disk.read_only = true;
	for (unsigned i = 0; i < 3; i++) {
		parse(types[i], 0, LENGTHS(16, 512), LENGTHS(1));
		answers(VIRTIO_BLK_S_IOERR);
	}
	parse(VIRTIO_BLK_T_FLUSH, 0, LENGTHS(16), LENGTHS(1));
	answers(VIRTIO_BLK_S_OK);
	parse(VIRTIO_BLK_T_IN, 0, LENGTHS(16), LENGTHS(513));
	assert_true(r.submit);
}

static void range(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes seg = { sector, sectors, flags };

	memcpy(out_memory + 16, &seg, sizeof(seg));
	assert_int_equal(parse(type, 99, LENGTHS(5, 20, 7), LENGTHS(1)), 0);
}

static void test_ranges(void **state)
{
	range(VIRTIO_BLK_T_DISCARD, 8, 16, 0);
	assert_true(r.submit && r.op == BLK_DISCARD && r.off_bytes == 4096 && r.len_bytes == 8192 && !r.flags);
	range(VIRTIO_BLK_T_WRITE_ZEROES, 0, SIZE / 512, 0);
	assert_true(r.submit && r.op == BLK_WRITE_ZEROES && r.len_bytes == SIZE && !r.flags);
	atomic_store(&disk.write_through, true);
	range(VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	assert_int_equal(r.flags, BLK_MAY_UNMAP | BLK_FUA);
	range(VIRTIO_BLK_T_DISCARD, 0, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	answers(VIRTIO_BLK_S_UNSUPP);
	range(VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2);
	answers(VIRTIO_BLK_S_UNSUPP);
	range(VIRTIO_BLK_T_DISCARD, SIZE / 512, 1, 0);
	answers(VIRTIO_BLK_S_IOERR);
	range(VIRTIO_BLK_T_DISCARD, UINT64_MAX, UINT32_MAX, 0);
	answers(VIRTIO_BLK_S_IOERR);
	range(VIRTIO_BLK_T_WRITE_ZEROES, 1, 0, 0);
	answers(VIRTIO_BLK_S_OK);
	parse(VIRTIO_BLK_T_DISCARD, 0, LENGTHS(16, 32), LENGTHS(1)); /* two segments */
	answers(VIRTIO_BLK_S_IOERR);
	parse(VIRTIO_BLK_T_DISCARD, 0, LENGTHS(16, 15), LENGTHS(1));
	answers(VIRTIO_BLK_S_IOERR);
}

static void test_other_types(void **state)
{
	parse(VIRTIO_BLK_T_GET_ID, 0, LENGTHS(16), LENGTHS(7, 13, 1));
	answers(VIRTIO_BLK_S_OK);
	assert_memory_equal(in_memory, "vol0123456789abcdef0", 20);
	assert_int_equal(in_memory[20], 0x55); /* the status is the caller's to write */
	assert_int_equal(r.written_bytes, 21);
	parse(VIRTIO_BLK_T_GET_ID, 0, LENGTHS(16), LENGTHS(31));
	assert_int_equal(in_memory[29], 0);
	parse(VIRTIO_BLK_T_GET_ID, 0, LENGTHS(16), LENGTHS(5));
	answers(VIRTIO_BLK_S_OK);
	parse(VIRTIO_BLK_T_GET_ID, 0, LENGTHS(16), LENGTHS(1));
	answers(VIRTIO_BLK_S_OK);
	parse(VIRTIO_BLK_T_FLUSH, 77777777, LENGTHS(16), LENGTHS(1));
	assert_true(r.submit && r.op == BLK_FLUSH && !r.len_bytes);
	const uint32_t unknown[] = { VIRTIO_BLK_T_SCSI_CMD, VIRTIO_BLK_T_SECURE_ERASE, VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_BARRIER, 255 };
	for (unsigned i = 0; i < 4; i++) {
		parse(unknown[i], 0, LENGTHS(16, 512), LENGTHS(1));
		answers(VIRTIO_BLK_S_UNSUPP);
	}
	assert_int_equal(vblk_status(0), VIRTIO_BLK_S_OK);
	assert_int_equal(vblk_status(-ENOSPC), VIRTIO_BLK_S_IOERR);
	assert_int_equal(vblk_status(-EOPNOTSUPP), VIRTIO_BLK_S_UNSUPP);
}

static void test_config(void **state)
{
	struct blk_info info = { .size_bytes = SIZE, .block_bytes = 512, .physical_bytes = 4096, .optimal_bytes = 65536,
				 .discard_bytes = 4096 };
	struct virtio_blk_config c;

	vblk_config(&info, 2 * SIZE, 4, 254, true, &c);
	assert_int_equal(c.capacity, 2 * SIZE / 512);
	assert_int_equal(c.seg_max, 254);
	assert_true((uint64_t)c.size_max * c.seg_max <= BLK_LEN_MAX && c.size_max % 4096 == 0);
	assert_int_equal(c.physical_block_exp, 3);
	assert_int_equal(c.min_io_size, 8);
	assert_int_equal(c.opt_io_size, 128);
	assert_int_equal(c.num_queues, 4);
	assert_int_equal(c.wce, 1);
	assert_int_equal(c.discard_sector_alignment, 8);
	assert_int_equal(c.max_discard_seg, 1);
	assert_int_equal(c.write_zeroes_may_unmap, 1);
	assert_true(vblk_features(&info, 4) & 1u << VIRTIO_BLK_F_MQ);
	assert_false(vblk_features(&info, 1) & 1u << VIRTIO_BLK_F_MQ);
	info.read_only = true;
	assert_int_equal(vblk_features(&info, 1) & (1u << VIRTIO_BLK_F_DISCARD | 1u << VIRTIO_BLK_F_RO), 1u << VIRTIO_BLK_F_RO);
	vblk_config(&info, SIZE, 1, 126, false, &c);
	assert_int_equal(c.max_write_zeroes_seg, 0);
	assert_int_equal(c.wce, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_read_any_layout, set_up),   cmocka_unit_test_setup(test_write_any_layout, set_up),
		cmocka_unit_test_setup(test_no_room_for_an_answer, set_up), cmocka_unit_test_setup(test_bounds, set_up),
		cmocka_unit_test_setup(test_read_only, set_up),         cmocka_unit_test_setup(test_ranges, set_up),
		cmocka_unit_test_setup(test_other_types, set_up),       cmocka_unit_test_setup(test_config, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
