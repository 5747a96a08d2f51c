/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_VIRTIO_VBLK_H
#define MALLEE_BLOCK_VIRTIO_VBLK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <linux/virtio_blk.h>

#include "block/core/layer.h"
#include "block/core/request.h"
#include "block/virtio/virtq.h"

/* A virtio block device (virtio 1.2, 5.2). Settings are made before requests are parsed, but for the atomic ones. */
struct vblk {
	_Atomic uint64_t size_bytes;
	_Atomic bool write_through; /* every write is durable before it is answered */
	uint32_t block_bytes;
	bool read_only;
	char serial[VIRTIO_BLK_ID_BYTES]; /* padded with NULs; 20 bytes need none */
};

/* What a chain asks for. */
struct vblk_request {
	bool submit;              /* false: answer at once, with `status` */
	uint8_t status;
	enum blk_op op;
	uint32_t flags;
	uint64_t off_bytes, len_bytes;
	struct iovec *iov;        /* READ, WRITE: the chain's elements, as changed here */
	unsigned iov_count;
	uint8_t *status_at;       /* the guest's status byte */
	uint32_t written_bytes;   /* of the chain's writable part, the status byte included; when it fails: failed_bytes */
	uint32_t failed_bytes;    /* 0: what comes before the status byte is not to be relied on */
};

/* Takes c apart (its iov is changed). 0; -EBADMSG: there is no room for an answer, or no whole header: *why says which. */
int vblk_parse(const struct vblk *d, struct virtq_chain *c, struct vblk_request *ret, const char **why);
/* The status for a request's result. */
uint8_t vblk_status(int result);

/* The features that a device of this kind has, of those that are its own (bits 0 … 23). */
uint64_t vblk_features(const struct blk_info *info, unsigned queues);
/* The configuration space (5.2.4). */
void vblk_config(const struct blk_info *info, uint64_t size_bytes, unsigned queues, unsigned seg_max, bool write_back,
		 struct virtio_blk_config *ret);

#endif
