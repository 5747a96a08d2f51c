/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's memory: the first bytes choose the queue's size and features, the rest is what a hostile driver has put there. All
 * chains are taken, parsed, done and given back; what the device may touch is touched, so that a wrong address is seen.
 * Writing into the guest's memory changes descriptors that are still to be read: that is meant. Then a part of in-flight
 * memory out of the same bytes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "block/virtio/inflight.h"
#include "block/virtio/vblk.h"
#include "block/virtio/virtq.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LOW_BYTES 0x4000u  /* two regions that follow each other in the guest's addresses and not here */
#define HIGH_BYTES 0x2000u
#define GUEST UINT64_C(0x1000)
#define DISK_BYTES (UINT64_C(1) << 20)

struct machine {
	struct vmem mem;
	struct virtq q;
	struct vblk disk;
	struct inflight inflight;
	char *low, *high;
	struct virtq_chain chain;
};

static void touch(const struct iovec *iov, unsigned count, bool write)
{
	static volatile char sink;

	for (unsigned i = 0; i < count; i++) {
		if (write)
			memset(iov[i].iov_base, 0xa5, iov[i].iov_len);
		else if (iov[i].iov_len)
			sink = ((const char *)iov[i].iov_base)[iov[i].iov_len - 1];
	}
	(void)sink;
}

static void check_request(const struct machine *m, const struct vblk_request *r)
{
	if (r->submit && r->op != BLK_FLUSH &&
	    (!r->len_bytes || r->off_bytes > DISK_BYTES || r->len_bytes > DISK_BYTES - r->off_bytes ||
	     (r->off_bytes | r->len_bytes) % m->disk.block_bytes))
		abort();
	if (r->submit && (r->op == BLK_READ || r->op == BLK_WRITE) && blk_iov_bytes(r->iov, r->iov_count) != r->len_bytes)
		abort();
	if (!r->submit && r->status != VIRTIO_BLK_S_OK && r->status != VIRTIO_BLK_S_IOERR && r->status != VIRTIO_BLK_S_UNSUPP)
		abort();
}

static void serve(struct machine *m)
{
	struct vblk_request r;
	const char *why = NULL;

	for (unsigned n = 0; n < 4 * m->q.num && virtq_pop(&m->q, &m->chain) == 1; n++) {
		uint64_t bytes = blk_iov_bytes(m->chain.iov, m->chain.out + m->chain.in);
		if (bytes != m->chain.out_bytes + m->chain.in_bytes || m->chain.head >= m->q.num)
			abort();
		inflight_taken(&m->inflight, m->chain.head);
		if (vblk_parse(&m->disk, &m->chain, &r, &why)) {
			if (!why)
				abort();
			virtq_break(&m->q, why);
			break;
		}
		check_request(m, &r);
		if (r.submit)
			touch(r.iov, r.iov_count, r.op == BLK_READ);
		*r.status_at = r.status;
		virtq_push(&m->q, m->chain.head, r.written_bytes);
		inflight_pushed(&m->inflight, m->chain.head);
		if (n % 3 == 2) {
			virtq_publish(&m->q);
			inflight_published(&m->inflight, m->q.used_idx);
			virtq_notify_on(&m->q);
		}
	}
	virtq_publish(&m->q);
	inflight_published(&m->inflight, m->q.used_idx);
	if (m->q.broken && virtq_pop(&m->q, &m->chain) != -EBADMSG)
		abort();
}

static void take_memory(struct machine *m, const uint8_t *data, size_t size)
{
	size_t low = size < LOW_BYTES ? size : LOW_BYTES, high = size - low < HIGH_BYTES ? size - low : HIGH_BYTES;
	struct vmem_region a = { .guest = GUEST, .user = 0x100000, .size_bytes = LOW_BYTES };
	struct vmem_region b = { .guest = GUEST + LOW_BYTES, .user = 0x200000, .size_bytes = HIGH_BYTES };

	m->low = aligned_alloc(64, LOW_BYTES);
	m->high = aligned_alloc(64, HIGH_BYTES);
	memset(m->low, 0, LOW_BYTES);
	memset(m->high, 0, HIGH_BYTES);
	memcpy(m->low, data, low);
	memcpy(m->high, data + low, high);
	a.host = m->low;
	b.host = m->high;
	if (vmem_add(&m->mem, &a) || vmem_add(&m->mem, &b))
		abort();
}

static void attach_inflight(struct machine *m, const uint8_t *data, size_t size, uint16_t *next)
{
	uint64_t bytes = inflight_bytes(1, m->q.num);
	void *memory = calloc(1, bytes);
	uint16_t heads[64];

	memcpy(memory, data, size < bytes ? size : bytes);
	int n = inflight_attach(&m->inflight, inflight_queue_at(memory, 0, m->q.num), m->q.num, &m->q, heads, next);
	if (n > (int)m->q.num)
		abort();
	for (int i = 0; i < n; i++) {
		if (heads[i] >= m->q.num)
			abort();
	}
	if (n < 0) {
		free(memory);
		m->inflight.queue = NULL;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine *m;
	uint16_t next;

	if (size < 8)
		return 0;
	m = calloc(1, sizeof(*m));
	take_memory(m, data + 8, size - 8);
	m->disk.block_bytes = data[0] & 4 ? 4096 : 512;
	m->disk.read_only = data[0] & 8;
	m->disk.write_through = data[0] & 16;
	atomic_store(&m->disk.size_bytes, DISK_BYTES);
	m->q = (struct virtq){ .mem = &m->mem, .num = 1u << (data[1] % 7), .event_idx = data[0] & 1, .indirect = data[0] & 2 };
	m->q.desc = vmem_user(&m->mem, 0x100000, virtq_desc_bytes(m->q.num), 16);
	m->q.avail = vmem_user(&m->mem, 0x100400, virtq_avail_bytes(m->q.num), 2);
	m->q.used = vmem_user(&m->mem, 0x100600, virtq_used_bytes(m->q.num), 4);
	if (!m->q.desc || !m->q.avail || !m->q.used)
		abort();
	memcpy(&next, data + 2, sizeof(next));
	virtq_start(&m->q, next);
	if (data[0] & 32)
		attach_inflight(m, data + 4, size - 4, &next);
	virtq_start(&m->q, next);
	serve(m);
	free(m->inflight.queue);
	free(m->low);
	free(m->high);
	free(m);
	return 0;
}
