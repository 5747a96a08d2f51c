/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_VIRTIO_VIRTQ_H
#define MALLEE_BLOCK_VIRTIO_VIRTQ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <linux/virtio_ring.h>

#include "block/virtio/vmem.h"

/* virtio is little-endian since 1.0, and so is every host that this runs on. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a big-endian host needs conversions here");

#define VIRTQ_SIZE_MAX 1024u /* descriptors of a queue */
#define VIRTQ_IOV_MAX 1024u  /* pieces of memory of one chain */

/*
 * A split virtqueue as its device sees it (virtio 1.2, 2.7). It belongs to one thread. The driver's memory is read once and
 * then checked, since the driver may change it at any time; what is out of order marks the queue broken: it gives no more
 * buffers until it is set up anew (2.1.2: the device needs a reset), and says why.
 */
struct virtq {
	const struct vmem *mem;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	unsigned num;             /* a power of two */
	bool event_idx, indirect; /* negotiated */
	uint16_t next_avail;      /* position of the next chain in the available ring, free-running */
	uint16_t avail_seen;      /* the driver's idx as last read */
	uint16_t used_idx;        /* as published */
	uint16_t pending;         /* used entries written behind it */
	bool called;              /* the driver has been called since the start */
	const char *broken;       /* why */
};

/* One chain: iov[0 … out - 1] is for the device to read, iov[out … out + in - 1] to write. */
struct virtq_chain {
	uint16_t head;
	unsigned out, in;
	uint64_t out_bytes, in_bytes;
	struct iovec iov[VIRTQ_IOV_MAX];
};

/* Bytes of the three parts, for a queue of num (the event index fields included). */
uint64_t virtq_desc_bytes(unsigned num);
uint64_t virtq_avail_bytes(unsigned num);
uint64_t virtq_used_bytes(unsigned num);

/* desc, avail, used, num, mem and features are set. Reads where the used ring is; goes on at next_avail. */
void virtq_start(struct virtq *q, uint16_t next_avail);
/* The next chain: 1; 0: none; -EBADMSG: the queue is broken, and stays at this chain. */
int virtq_pop(struct virtq *q, struct virtq_chain *ret);
/* The chain at head again, after a restart: 1 or -EBADMSG. */
int virtq_again(struct virtq *q, uint16_t head, struct virtq_chain *ret);
void virtq_break(struct virtq *q, const char *why); /* the first reason stays */

/* A chain is done, written_bytes of its in part; the driver sees it after virtq_publish(). */
void virtq_push(struct virtq *q, uint16_t head, uint32_t written_bytes);
/* Shows the driver what was pushed. True: it wants to be called. */
bool virtq_publish(struct virtq *q);

bool virtq_more(const struct virtq *q); /* a chain is there: a look, no more */

/* Ask the driver not to notify (a hint), and to notify again: true when a chain has come meanwhile and may not be told. */
void virtq_notify_off(struct virtq *q);
bool virtq_notify_on(struct virtq *q);

#endif
