/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_VIRTIO_INFLIGHT_H
#define MALLEE_BLOCK_VIRTIO_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/virtio/virtq.h"

/*
 * Memory that the peer keeps while this process dies: which chains of a queue were taken and not yet given back (vhost-user,
 * "Inflight I/O tracking", split virtqueue). The layout of a queue's part is the protocol's. Behind the queues' parts comes
 * one of our own (struct inflight_tail), for what a successor cannot learn elsewhere.
 */
struct inflight_desc {
	uint8_t inflight;
	uint8_t padding[5];
	uint16_t next;
	uint64_t counter;
};
struct inflight_queue {
	uint64_t features;
	uint16_t version; /* 0: fresh */
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct inflight_desc desc[];
};
_Static_assert(sizeof(struct inflight_desc) == 16 && sizeof(struct inflight_queue) == 16, "the protocol's layout");

struct inflight_tail {
	uint64_t magic;          /* INFLIGHT_TAIL, written last; anything else: a stranger's memory, or fresh */
	uint64_t capacity_bytes; /* as the driver was last told */
	uint8_t write_back;      /* the cache mode that the driver has set */
	uint8_t padding[47];
};
#define INFLIGHT_TAIL UINT64_C(0x314c49415445454d)

uint64_t inflight_bytes(unsigned queues, unsigned size); /* all of it */
struct inflight_queue *inflight_queue_at(void *memory, unsigned index, unsigned size);
struct inflight_tail *inflight_tail_at(void *memory, unsigned queues, unsigned size);

/* This queue's part, while it runs. All functions do nothing without memory (queue NULL). */
struct inflight {
	struct inflight_queue *queue; /* the peer may write there, too: what is read from it is checked */
	unsigned size;
	uint64_t counter;
	unsigned batch;
};

/*
 * Before q takes anything. size: chains that the part has room for. What was in flight goes into heads (room for q->num), in
 * the order in which it was taken: their number. *next_avail is set to where the available ring is read on: the caller's own
 * value stays for a fresh part. -EBADMSG: the part makes no sense.
 */
int inflight_attach(struct inflight *f, struct inflight_queue *part, unsigned size, const struct virtq *q, uint16_t *heads,
		    uint16_t *next_avail);
void inflight_taken(struct inflight *f, uint16_t head);      /* before anything is done for the chain */
void inflight_pushed(struct inflight *f, uint16_t head);     /* with virtq_push() */
void inflight_published(struct inflight *f, uint16_t used_idx); /* after virtq_publish() */

#endif
